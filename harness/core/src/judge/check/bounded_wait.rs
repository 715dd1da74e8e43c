//! Nothing keeps the client waiting past its limit.

use super::{CheckFindings, Property, RunView};
use crate::judge::outcome::{Class, Ending};

pub(super) const CHECK: Property =
    Property { name: "bounded_wait", property: "nothing keeps the client waiting past its limit", run: check };

fn check(evidence: &RunView<'_>) -> CheckFindings {
    let vain = evidence.exchanges().filter_map(|(_, outcome)| match &outcome.ending {
        Ending::Hang { waiting_for } => {
            let message = format!("the client waited for {waiting_for} until its limit passed ({})", outcome.cause);
            Some((waiting_for.clone(), message))
        }
        Ending::Left if outcome.class == Class::Hang => {
            let message = "the client gave up before it had any answer, and nothing it needed was slow".to_owned();
            Some(("any answer".to_owned(), message))
        }
        _ => None,
    });
    // A case that limits the wait for a part of a body means the whole way, with the faults on it.
    let late = evidence.readings.iter().filter_map(|reading| {
        let late = reading.late_body()?;
        Some((late.part.to_string(), format!("the client waited for {late}")))
    });
    vain.chain(late).collect()
}
