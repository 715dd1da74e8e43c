//! The endpoint runs once for every connection: the record that it writes then stands in the log once.

use super::{Harm, Property, RunView, Violation};
use crate::{judge::classify::Exchange, record::transcript::EventKind};

pub(super) const CHECK: Property = Property {
    name: "once_per_connection",
    property: "the endpoint runs once for every connection",
    harm: Harm::Noise,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence.readings.iter().filter_map(complain).collect()
}

fn complain(reading: &Exchange<'_>) -> Option<Violation> {
    let record = Some(reading.service.connection_record).filter(|record| !record.is_empty())?;
    let runs = reading
        .events
        .iter()
        .filter(|event| matches!(&event.what, EventKind::Logged { message, .. } if message.starts_with(record)));
    let count = runs.count();
    (count > 1).then(|| reading.violation("again", format!("the endpoint ran {count} times for one connection")))
}
