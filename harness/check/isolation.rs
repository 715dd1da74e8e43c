//! No frame carries what belongs to another user: an identifier, a connection, a thread.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{Complaints, Evidence};
use crate::{classify::Reading, frame::Opcode, transcript::What};

/// The keys whose values belong to one user.
const KEYS: [&str; 4] = ["user_id", "thread_id", "run_id", "connection_id"];

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    let users: Vec<&str> = evidence.readings.iter().filter_map(|reading| reading.user).collect();
    // Alone nobody can see what is somebody else's.
    if users.windows(2).all(|pair| pair[0] == pair[1]) {
        return Vec::new();
    }
    let mut owners: BTreeMap<(String, String), &str> = BTreeMap::new();
    for reading in &evidence.readings {
        let Some(user) = reading.user else { continue };
        owners.insert(("user_id".to_owned(), user.to_owned()), user);
        for event in &reading.events {
            if let What::FrameSent(frame) = &event.what {
                each_identifier(&frame.payload, &mut |key, value| {
                    owners.insert((key, value), user);
                });
            }
        }
        if let Some(welcome) = seen_texts(reading).next() {
            each_identifier(welcome, &mut |key, value| {
                if key == "connection_id" {
                    owners.insert((key, value), user);
                }
            });
        }
    }
    let mut found = Vec::new();
    for reading in &evidence.readings {
        let Some(user) = reading.user else { continue };
        for payload in seen_texts(reading) {
            each_identifier(payload, &mut |key, value| {
                let text = format!("{user:?} sees the {key} {value:?}");
                if let Some(owner) = owners.get(&(key.clone(), value)).filter(|owner| **owner != user) {
                    found.push((key, format!("{text}, which belongs to {owner:?}")));
                }
            });
        }
    }
    found
}

fn seen_texts<'a>(reading: &'a Reading<'a>) -> impl Iterator<Item = &'a [u8]> {
    reading.events.iter().filter_map(|event| match &event.what {
        What::FrameSeen(frame) if frame.opcode == Opcode::Text => Some(frame.payload.as_ref()),
        _ => None,
    })
}

/// Every identifier in a JSON message, at its root and in its `data`.
fn each_identifier(payload: &[u8], take: &mut impl FnMut(String, String)) {
    let Ok(Json::Object(message)) = serde_json::from_slice(payload) else { return };
    for part in [Some(&message), message.get("data").and_then(Json::as_object)].into_iter().flatten() {
        for key in KEYS {
            if let Some(Json::String(value)) = part.get(key) {
                take(key.to_owned(), value.clone());
            }
        }
    }
}
