//! Nothing is logged as an error unless something behind the service failed: a client's own mistakes are not errors.

use super::{Complaints, Evidence};
use crate::{
    classify::is_dependency_failure,
    transcript::{Level, What},
};

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    evidence
        .readings
        .iter()
        .flat_map(|reading| reading.events.iter().take_while(|event| !is_dependency_failure(event)))
        .filter_map(|event| match &event.what {
            What::Logged { level: Level::Error, message } => {
                Some((message.clone(), format!("logged as an error: {message}")))
            }
            _ => None,
        })
        .collect()
}
