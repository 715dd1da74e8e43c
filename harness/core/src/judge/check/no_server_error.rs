//! No request is answered with a fault of the server: 500, 502, or 504. A 503 is the matter of `retry_after_present`.

use super::{Harm, Property, RunView, Violation};
use crate::judge::{
    classify::Exchange,
    outcome::{Class, Ending, Outcome},
};

pub(super) const CHECK: Property = Property {
    name: "no_server_error",
    property: "no request is answered with 500, 502 or 504",
    harm: Harm::Crash,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence.exchanges().filter_map(|(reading, outcome)| complain(reading, outcome)).collect()
}

fn complain(reading: &Exchange<'_>, outcome: &Outcome) -> Option<Violation> {
    match (&outcome.ending, outcome.cause) {
        (Ending::Http { status, .. }, cause) if outcome.class == Class::ServerError && *status != 503 => {
            Some(reading.violation(format!("{status}:{cause}"), format!("the client got HTTP {status} ({cause})")))
        }
        _ => None,
    }
}
