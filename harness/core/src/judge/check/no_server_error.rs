//! No request is answered with a fault of the server: 500, 502, or 504. A 503 is the matter of `retry_after_present`.

use super::{CheckFindings, Property, RunView};
use crate::judge::outcome::{Class, Ending, Outcome};

pub(super) const CHECK: Property =
    Property { name: "no_server_error", property: "no request is answered with 500, 502 or 504", run: check };

fn check(evidence: &RunView<'_>) -> CheckFindings {
    let status = |outcome: &Outcome| match outcome.ending {
        Ending::Http { status, .. } if outcome.class == Class::ServerError && status != 503 => Some(status),
        _ => None,
    };
    evidence
        .exchanges()
        .filter_map(|(_, outcome)| Some((status(outcome)?, outcome.cause)))
        .map(|(status, cause)| (format!("{status}:{cause}"), format!("the client got HTTP {status} ({cause})")))
        .collect()
}
