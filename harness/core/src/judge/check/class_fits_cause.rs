//! A refusal names what is really wrong: bad credential, malformed request, or something not ready, and nothing else.

use super::{Harm, Property, RunView, Violation};
use crate::judge::outcome::Class;

pub(super) const CHECK: Property = Property {
    name: "class_fits_cause",
    property: "a refusal names what is really wrong",
    harm: Harm::Disguised,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence
        .exchanges()
        .filter(|(_, outcome)| outcome.class == Class::DisguisedError)
        .map(|(reading, outcome)| {
            let credential = match (reading.user.is_some(), reading.service.is_public) {
                (true, true) => "no credential is needed",
                (true, false) if reading.service.is_opaque() => "a valid credential was sent",
                (true, false) => "a valid credential reached the server",
                (false, _) if reading.service.is_opaque() => "no valid credential was sent",
                (false, _) => "no valid credential reached the server",
            };
            let behind = match (reading.outage, reading.service.is_opaque()) {
                (true, _) => "something behind the service had failed",
                (false, true) => "no fault was injected behind the service",
                (false, false) => "everything behind the service was healthy",
            };
            let message =
                format!("{} hides what happened: {credential}, and {behind} ({})", outcome.ending, outcome.cause);
            reading.violation(outcome.ending.to_string(), message)
        })
        .collect()
}
