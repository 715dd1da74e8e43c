//! No connection ends without an answer or a close frame, and none is refused while nothing keeps the process away.

use super::{CheckFindings, Property, RunView};
use crate::judge::outcome::{Ending, Outcome};

pub(super) const CHECK: Property =
    Property { name: "no_drop", property: "no connection ends without an answer or a close frame", run: check };

fn check(evidence: &RunView<'_>) -> CheckFindings {
    evidence.exchanges().filter_map(|(_, outcome)| complain(outcome)).collect()
}

fn complain(outcome: &Outcome) -> Option<(String, String)> {
    let cause = outcome.cause.to_string();
    match outcome.ending {
        Ending::Drop => {
            let message = format!("the connection ended without a close frame; clients report 1006 ({cause})");
            Some((cause, message))
        }
        Ending::Refused if !outcome.class.is_good() => {
            Some((cause, "nothing listens where clients are sent to".to_owned()))
        }
        _ => None,
    }
}
