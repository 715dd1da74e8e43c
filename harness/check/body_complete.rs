//! A body is as long as its head announced, and a chunked one has its last chunk.

use super::{Complaints, Evidence};
use crate::transcript::{BodyEnd, What};

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    evidence
        .transcript
        .events
        .iter()
        .filter_map(|event| match &event.what {
            What::BodySeen { body, end: BodyEnd::Truncated } => Some((
                "truncated".to_owned(),
                format!("the body broke off after {} bytes, short of its announced end", body.len()),
            )),
            _ => None,
        })
        .collect()
}
