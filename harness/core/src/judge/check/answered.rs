//! No message is taken and left without an answer while the session lives on.

use super::{Harm, Property, RunView, Violation};
use crate::judge::outcome::{Class, Ending};

pub(super) const CHECK: Property = Property {
    name: "answered",
    property: "no message is taken and left without an answer",
    harm: Harm::Hang,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence
        .exchanges()
        .filter_map(|(reading, outcome)| match &outcome.ending {
            Ending::Silence { waiting_for } => {
                let message = format!("the session lives on, but {waiting_for} never came");
                Some(reading.violation(waiting_for, message))
            }
            Ending::Parted { .. } if outcome.class == Class::NoAnswer => {
                let waiting_for = reading.never_came()?;
                let message = format!("the session went on until the client closed it, but {waiting_for} never came");
                Some(reading.violation(waiting_for, message))
            }
            _ => {
                let bytes = reading.ignored_request()?;
                let message = format!("a request of {bytes} bytes was neither answered nor refused");
                Some(reading.violation("a long request", message))
            }
        })
        .collect()
}
