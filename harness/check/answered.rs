//! No message is taken and left without an answer while the session lives on.

use super::{Complaints, Evidence};
use crate::outcome::Ending;

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    evidence
        .exchanges()
        .filter_map(|(_, outcome)| match &outcome.ending {
            Ending::Silence { waiting_for } => {
                let message = format!("the session lives on, but {waiting_for} never came");
                Some((waiting_for.clone(), message))
            }
            _ => None,
        })
        .collect()
}
