//! A health route says that the service is ready only while everything critical behind it answers.

use super::{Complaints, Evidence};
use crate::classify::Reading;

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    evidence.readings.iter().filter_map(complain).collect()
}

fn complain(reading: &Reading<'_>) -> Option<(String, String)> {
    let (path, _) = reading.request?.path_and_query();
    let is_health = reading.service.health_paths.iter().any(|known| path == known.as_bytes());
    let status = reading.response?.status;
    let down = reading.down.first().filter(|_| is_health && status < 400)?;
    Some(((*down).to_owned(), format!("{} says {status} while {down} is down", String::from_utf8_lossy(&path))))
}
