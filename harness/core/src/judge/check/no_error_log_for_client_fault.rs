//! Nothing is logged as an error for a client's own mistake: a bad credential, a request that is malformed, a client that
//! leaves.

use super::{Complaints, Evidence, no_error_log::errors};
use crate::judge::classify::Reading;

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    let at_fault = |reading: &&Reading<'_>| reading.is_client_at_fault();
    evidence.readings.iter().filter(|reading| !reading.is_abused()).filter(at_fault).flat_map(errors).collect()
}
