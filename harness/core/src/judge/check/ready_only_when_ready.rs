//! A health route says that the service is ready only while everything critical behind it answers.

use super::{Harm, Property, RunView, Violation};
use crate::judge::classify::Exchange;

pub(super) const CHECK: Property = Property {
    name: "ready_only_when_ready",
    property: "health says ready only while everything critical answers",
    harm: Harm::Disguised,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence.plain().filter_map(complain).collect()
}

fn complain(reading: &Exchange<'_>) -> Option<Violation> {
    let (path, _) = reading.request?.path_and_query();
    let status = reading.response?.status;
    let down = reading.down.first().filter(|_| reading.asks_for_health() && status < 400)?;
    let message = format!("{} says {status} while {down} is down", String::from_utf8_lossy(&path));
    Some(reading.violation(*down, message))
}
