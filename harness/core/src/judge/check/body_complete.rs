//! A body is as long as its head announced, and a chunked one has its last chunk.

use super::{Harm, Property, RunView, Violation};
use crate::{
    judge::{classify::Exchange, outcome::Ending},
    record::transcript::{BodyEnd, EventKind},
};

pub(super) const CHECK: Property =
    Property { name: "body_complete", property: "a body is as long as announced", harm: Harm::Drop, run: check };

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence
        .exchanges()
        // A client that leaves an endless answer does not see its end.
        .filter(|(_, outcome)| outcome.ending != Ending::Left)
        .flat_map(|(reading, _)| reading.events.iter().map(move |event| (reading, event)))
        .filter_map(|(reading, event)| match &event.what {
            EventKind::BodySeen { body, end } => complain(reading, body.len() as u64 + event.omitted_bytes, *end),
            _ => None,
        })
        .collect()
}

fn complain(reading: &Exchange<'_>, length: u64, end: BodyEnd) -> Option<Violation> {
    match end {
        BodyEnd::Complete | BodyEnd::None => None,
        BodyEnd::Truncated => {
            let message = format!("the body broke off after {length} bytes, short of its announced end");
            Some(reading.violation("truncated", message))
        }
        BodyEnd::Surplus => Some(reading.violation("surplus", format!("more came after the {length} bytes announced"))),
        BodyEnd::Malformed => Some(reading.violation("malformed", "the body's length or its chunks cannot be read")),
    }
}
