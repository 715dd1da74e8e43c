//! Nothing is logged as an error while a client with nothing wrong is served, unless something behind the service failed.

use super::{Complaints, Evidence};
use crate::{
    classify::Reading,
    transcript::{Level, What},
};

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    let faultless = |reading: &&Reading<'_>| !reading.is_client_at_fault();
    evidence.readings.iter().filter(faultless).flat_map(errors).collect()
}

/// The errors logged in an exchange before anything behind the service failed.
pub(super) fn errors<'a>(reading: &'a Reading<'_>) -> impl Iterator<Item = (String, String)> + 'a {
    let before_outage = reading.events.iter().take_while(|event| !reading.is_outage(event));
    before_outage.filter_map(|event| match &event.what {
        What::Logged { level: Level::Error, message } => {
            Some((message.clone(), format!("logged as an error: {message}")))
        }
        _ => None,
    })
}
