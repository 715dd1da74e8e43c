//! Nothing is logged as an error for a client's own mistake: a bad credential, a request that is malformed, a client that
//! leaves.

use super::{Harm, Property, RunView, Violation, no_error_log::errors};
use crate::judge::classify::Exchange;

pub(super) const CHECK: Property = Property {
    name: "no_error_log_for_client_fault",
    property: "nothing is logged as an error for a client's own mistake",
    harm: Harm::Noise,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence
        .readings
        .iter()
        .filter(|reading| !reading.is_abused())
        .filter(|reading: &&Exchange<'_>| reading.is_client_at_fault())
        .flat_map(errors)
        .collect()
}
