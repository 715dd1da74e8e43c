//! Nothing keeps the client waiting past its limit.

use super::{Complaints, Evidence};
use crate::outcome::Ending;

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    evidence
        .exchanges()
        .filter_map(|(_, outcome)| match &outcome.ending {
            Ending::Hang { waiting_for } => {
                let message = format!("the client waited for {waiting_for} until its limit passed ({})", outcome.cause);
                Some((waiting_for.clone(), message))
            }
            _ => None,
        })
        .collect()
}
