//! No connection ends without an answer or a close frame, and none is refused while nothing keeps the process away.

use super::{Harm, Property, RunView, Violation};
use crate::judge::{
    classify::Exchange,
    outcome::{Class, Ending, Outcome},
};

pub(super) const CHECK: Property = Property {
    name: "no_drop",
    property: "no connection ends without an answer or a close frame",
    harm: Harm::Drop,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence.exchanges().filter_map(|(reading, outcome)| complain(reading, outcome)).collect()
}

fn complain(reading: &Exchange<'_>, outcome: &Outcome) -> Option<Violation> {
    let cause = outcome.cause.to_string();
    match outcome.ending {
        // The server closes on a request that holds more than it takes.
        Ending::Drop if outcome.class == Class::RefusedRequest => None,
        Ending::Drop => {
            let message = format!("the connection ended without a close frame; clients report 1006 ({cause})");
            Some(reading.violation(cause, message))
        }
        Ending::Refused if !outcome.class.is_good() => {
            Some(reading.violation(cause, "nothing listens where clients are sent to"))
        }
        _ => None,
    }
}
