//! A body is as long as its head announced, and a chunked one has its last chunk.

use super::{CheckFindings, Property, RunView};
use crate::{
    judge::outcome::Ending,
    record::transcript::{BodyEnd, EventKind},
};

pub(super) const CHECK: Property =
    Property { name: "body_complete", property: "a body is as long as announced", run: check };

fn check(evidence: &RunView<'_>) -> CheckFindings {
    evidence
        .exchanges()
        // A client that leaves an endless answer does not see its end.
        .filter(|(_, outcome)| outcome.ending != Ending::Left)
        .flat_map(|(reading, _)| &reading.events)
        .filter_map(|event| match &event.what {
            EventKind::BodySeen { body, end } => complain(body.len() as u64 + event.omitted_bytes, *end),
            _ => None,
        })
        .collect()
}

fn complain(length: u64, end: BodyEnd) -> Option<(String, String)> {
    match end {
        BodyEnd::Complete | BodyEnd::None => None,
        BodyEnd::Truncated => {
            let message = format!("the body broke off after {length} bytes, short of its announced end");
            Some(("truncated".to_owned(), message))
        }
        BodyEnd::Surplus => Some(("surplus".to_owned(), format!("more came after the {length} bytes announced"))),
        BodyEnd::Malformed => {
            Some(("malformed".to_owned(), "the body's length or its chunks cannot be read".to_owned()))
        }
    }
}
