//! No connection ends without an answer or a close frame.

use super::{Complaints, Evidence};
use crate::{cause::Cause, outcome::Ending};

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    evidence
        .exchanges()
        // A cut made on the way is not the target's doing.
        .filter(|(_, outcome)| outcome.ending == Ending::Drop && outcome.cause != Cause::Transport)
        .map(|(_, outcome)| {
            let message =
                format!("the connection ended without a close frame; clients report 1006 ({})", outcome.cause);
            (outcome.cause.to_string(), message)
        })
        .collect()
}
