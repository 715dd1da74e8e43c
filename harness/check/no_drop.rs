//! No connection ends without an answer or a close frame.

use super::{Complaints, Evidence};
use crate::outcome::Ending;

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    evidence
        .exchanges()
        .filter(|(_, outcome)| outcome.ending == Ending::Drop)
        .map(|(_, outcome)| {
            let message =
                format!("the connection ended without a close frame; clients report 1006 ({})", outcome.cause);
            (outcome.cause.to_string(), message)
        })
        .collect()
}
