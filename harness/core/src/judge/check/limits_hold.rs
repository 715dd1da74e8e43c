//! No user has more connections at a time than the service lets one have.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Harm, Property, RunView, Violation};
use crate::{judge::classify::Exchange, record::transcript::EventKind};

pub(super) const CHECK: Property = Property {
    name: "limits_hold",
    property: "no user has more connections at a time than the service lets one have",
    harm: Harm::Admitted,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    let most = evidence.transcript.service.connections_max;
    let mut sessions: BTreeMap<&str, Vec<(Duration, Duration)>> = BTreeMap::new();
    for reading in evidence.readings.iter().filter(|_| most > 0) {
        if let (Some(user), Some(session)) = (reading.user, session(reading)) {
            sessions.entry(user).or_default().push(session);
        }
    }
    let counts = sessions.into_iter().map(|(user, sessions)| (user, most_at_once(&sessions)));
    let too_many = counts.filter(|(_, count)| *count > most);
    too_many
        .map(|(user, count)| {
            let message = format!("{user} has {count} connections at a time, and {most} is the most");
            Violation::of_run("connections", message)
        })
        .collect()
}

/// The largest number of sessions that are open at one time.
fn most_at_once(sessions: &[(Duration, Duration)]) -> usize {
    let counts = sessions.iter().map(|(at, _)| sessions.iter().filter(|(start, end)| start <= at && at < end).count());
    counts.max().unwrap_or(0)
}

/// From when until when a session is open: from its welcome until its client or the service ends it.
fn session(reading: &Exchange<'_>) -> Option<(Duration, Duration)> {
    reading.welcome.as_ref()?;
    let start = reading.first(|what| matches!(what, EventKind::FrameSeen(_)))?;
    let end = reading.first(|what| {
        matches!(
            what,
            EventKind::EndSeen
                | EventKind::Left
                | EventKind::BadFrameSeen(_)
                | EventKind::Returned
                | EventKind::Raised(_)
        )
    })?;
    Some((start.at, end.at))
}
