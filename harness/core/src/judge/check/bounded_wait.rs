//! Nothing keeps the client waiting past its limit.

use super::{Harm, Property, RunView, Violation};
use crate::judge::outcome::{Class, Ending};

pub(super) const CHECK: Property = Property {
    name: "bounded_wait",
    property: "nothing keeps the client waiting past its limit",
    harm: Harm::Hang,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    let vain = evidence.exchanges().filter_map(|(reading, outcome)| match &outcome.ending {
        // The server does not answer a request that holds more than it takes.
        Ending::Hang { .. } if outcome.class == Class::RefusedRequest => None,
        Ending::Hang { waiting_for } => {
            let message = format!("the client waited for {waiting_for} until its limit passed ({})", outcome.cause);
            Some(reading.violation(waiting_for, message))
        }
        Ending::Left if outcome.class == Class::Hang => {
            let message = "the client gave up before it had any answer, and nothing it needed was slow";
            Some(reading.violation("any answer", message))
        }
        _ => None,
    });
    // A case that limits the wait for a part of a body means the whole way, with the faults on it.
    let late = evidence.readings.iter().filter_map(|reading| {
        let late = reading.late_body()?;
        Some(reading.violation(late.part.to_string(), format!("the client waited for {late}")))
    });
    vain.chain(late).collect()
}
