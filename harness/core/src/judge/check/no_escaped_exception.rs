//! No exception leaves the application, whatever the client saw of it. An exception that the server itself raised, or
//! that the specification asks for, is the server's matter.

use super::{Harm, Property, RunView, Violation};
use crate::judge::classify::Exchange;

pub(super) const CHECK: Property = Property {
    name: "no_escaped_exception",
    property: "no exception leaves the application",
    harm: Harm::Crash,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence.readings.iter().filter_map(complain).collect()
}

fn complain(reading: &Exchange<'_>) -> Option<Violation> {
    let (exception, accepted) = reading.escaped()?;
    if reading.is_escape_injected() {
        return None;
    }
    let when = if accepted { "after" } else { "before" };
    // The text may name a user or a thread, and a line moves with every change; type and function do not.
    let (function, place) = match &exception.place {
        Some(place) => (format!(" in {}", place.function), format!(" ({place})")),
        None => Default::default(),
    };
    let key = format!("{}{function} {when} the accept", exception.type_name);
    Some(reading.violation(key, format!("{exception}{place} left the application {when} it had answered")))
}
