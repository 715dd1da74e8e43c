//! No request is answered with 500, 502 or 504.

use super::{Complaints, Evidence};
use crate::outcome::Ending;

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    let status = |ending: &Ending| match ending {
        Ending::Http { status: status @ (500 | 502 | 504), .. } => Some(*status),
        _ => None,
    };
    evidence
        .exchanges()
        .filter_map(|(_, outcome)| Some((status(&outcome.ending)?, outcome.cause)))
        .map(|(status, cause)| (format!("{status}:{cause}"), format!("the client got HTTP {status} ({cause})")))
        .collect()
}
