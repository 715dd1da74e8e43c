//! Nothing is logged as an error unless something behind the service failed: a client's own mistakes are not errors.

use super::{Complaints, Evidence};
use crate::transcript::{Level, What};

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    evidence
        .readings
        .iter()
        .filter(|reading| !reading.dependency_failed)
        .flat_map(|reading| &reading.events)
        .filter_map(|event| match &event.what {
            What::Logged { level: Level::Error, message } => {
                Some((message.clone(), format!("logged as an error: {message}")))
            }
            _ => None,
        })
        .collect()
}
