//! A healthy client gets through before, during and after.

use super::{Harm, Property, RunView, Violation};
use crate::judge::{outcome::Class, verdict::HealthyClient};

pub(super) const CHECK: Property = Property {
    name: "control_opens",
    property: "a healthy client gets through before, during and after",
    harm: Harm::Crash,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    match evidence.control {
        HealthyClient::Tried(outcome) if outcome.class != Class::Served => {
            vec![Violation::of_run(outcome.ending.to_string(), format!("the healthy client got {outcome}"))]
        }
        HealthyClient::Tried(_)
        | HealthyClient::CredentialRefused(_)
        | HealthyClient::RefusedByDesign(_)
        | HealthyClient::Absent => Vec::new(),
    }
}
