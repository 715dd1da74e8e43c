//! A refusal names what is really wrong: bad credential, malformed request, or something not ready, and nothing else.

use super::{Complaints, Evidence};
use crate::outcome::Class;

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    evidence
        .exchanges()
        .filter(|(_, outcome)| outcome.class == Class::BadMask)
        .map(|(reading, outcome)| {
            let credential = if reading.user.is_some() { "a valid" } else { "no valid" };
            let place = if reading.service.is_opaque() { "was sent" } else { "reached the server" };
            let behind = if reading.outage {
                "something behind the service had failed"
            } else {
                "everything behind the service was healthy"
            };
            let behind = if reading.service.is_opaque() && !reading.outage {
                "no fault was injected behind the service"
            } else {
                behind
            };
            let message = format!(
                "{} hides what happened: {credential} credential {place}, and {behind} ({})",
                outcome.ending, outcome.cause
            );
            (outcome.ending.to_string(), message)
        })
        .collect()
}
