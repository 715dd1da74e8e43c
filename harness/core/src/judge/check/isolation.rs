//! No frame carries what belongs to another user: an identifier, a connection, a thread.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use super::{Harm, Property, RunView, Violation};
use crate::{judge::classify::Exchange, record::transcript::EventKind, wire::frame::Opcode};

/// The identifiers that belong to one user in a JSON message, or in its `data`.
#[derive(Debug, Default, Deserialize)]
struct Identifiers<'a> {
    #[serde(borrow)]
    user_id: Option<Lenient<Cow<'a, str>>>,
    #[serde(borrow)]
    thread_id: Option<Lenient<Cow<'a, str>>>,
    #[serde(borrow)]
    run_id: Option<Lenient<Cow<'a, str>>>,
    #[serde(borrow)]
    connection_id: Option<Lenient<Cow<'a, str>>>,
    #[serde(borrow)]
    data: Option<Lenient<Box<Identifiers<'a>>>>,
}

/// A value where others may stand too.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Some(T),
    Other(IgnoredAny),
}

pub(super) const CHECK: Property = Property {
    name: "isolation",
    property: "no frame carries what belongs to another user",
    harm: Harm::WrongData,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    let users: Vec<&str> = evidence.readings.iter().filter_map(|reading| reading.user).collect();
    // A single user cannot see another user's data.
    if users.windows(2).all(|pair| pair[0] == pair[1]) {
        return Vec::new();
    }
    let mut owners: BTreeMap<(&str, Cow<'_, str>), &str> = BTreeMap::new();
    for reading in &evidence.readings {
        let Some(user) = reading.user else { continue };
        owners.insert(("user_id", user.into()), user);
        for event in &reading.events {
            if let EventKind::FrameSent(frame) = &event.what {
                owners.extend(identifiers(&frame.payload).map(|identifier| (identifier, user)));
            }
        }
        if let Some(welcome) = seen_texts(reading).next() {
            let connections = identifiers(welcome).filter(|(key, _)| *key == "connection_id");
            owners.extend(connections.map(|identifier| (identifier, user)));
        }
    }
    let mut found = Vec::new();
    for reading in &evidence.readings {
        let Some(user) = reading.user else { continue };
        for identifier in seen_texts(reading).flat_map(identifiers) {
            if let Some(owner) = owners.get(&identifier).filter(|owner| **owner != user) {
                let (key, value) = identifier;
                let message = format!("{user:?} sees the {key} {value:?}, which belongs to {owner:?}");
                found.push(reading.violation(key, message));
            }
        }
    }
    found
}

fn seen_texts<'a>(reading: &'a Exchange<'a>) -> impl Iterator<Item = &'a [u8]> {
    reading.events.iter().filter_map(|event| match &event.what {
        EventKind::FrameSeen(frame) if frame.opcode == Opcode::Text => Some(frame.payload.as_ref()),
        _ => None,
    })
}

/// Every identifier in a JSON message: its key, and its value.
fn identifiers(payload: &[u8]) -> impl Iterator<Item = (&'static str, Cow<'_, str>)> {
    let mut message: Identifiers<'_> = serde_json::from_slice(payload).unwrap_or_default();
    let data = match message.data.take() {
        Some(Lenient::Some(data)) => Some(*data),
        _ => None,
    };
    [Some(message), data].into_iter().flatten().flat_map(|part| {
        let Identifiers { user_id, thread_id, run_id, connection_id, .. } = part;
        [("user_id", user_id), ("thread_id", thread_id), ("run_id", run_id), ("connection_id", connection_id)]
            .into_iter()
            .filter_map(|(key, value)| match value {
                Some(Lenient::Some(value)) => Some((key, value)),
                _ => None,
            })
    })
}
