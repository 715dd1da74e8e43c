//! No WebSocket is closed with 1011, or with its private counterpart 4500.

use super::{Harm, Property, RunView, Violation};
use crate::{judge::outcome::Ending, wire::close_code::CloseCode};

pub(super) const CHECK: Property =
    Property { name: "no_internal_close", property: "no WebSocket is closed with 1011", harm: Harm::Crash, run: check };

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence
        .exchanges()
        .filter_map(|(reading, outcome)| match &outcome.ending {
            Ending::Close { code: Some(code @ (CloseCode::INTERNAL | CloseCode::PRIVATE_INTERNAL)), reason } => {
                let message = format!("the client got close {code} {reason:?} ({})", outcome.cause);
                Some(reading.violation(outcome.cause.to_string(), message))
            }
            _ => None,
        })
        .collect()
}
