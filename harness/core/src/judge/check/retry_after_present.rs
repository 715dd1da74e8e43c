//! A client that is sent away for now learns when to come back: 503 and 429 have a `Retry-After` in seconds (RFC 9110
//! section 10.2.3).

use super::{Harm, Property, RunView, Violation};
use crate::{judge::classify::Exchange, wire::head::header};

pub(super) const CHECK: Property = Property {
    name: "retry_after_present",
    property: "503 and 429 say when to come back",
    harm: Harm::Disguised,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence.plain().filter_map(complain).collect()
}

fn complain(reading: &Exchange<'_>) -> Option<Violation> {
    let head = reading.response.filter(|head| matches!(head.status, 429 | 503))?;
    if head.status == 429 && reading.service.is_unknown() {
        return None;
    }
    let seconds = header(&head.headers, "retry-after").and_then(|value| std::str::from_utf8(value).ok());
    match seconds {
        None => {
            Some(reading.violation(head.status.to_string(), format!("{} does not say when to come back", head.status)))
        }
        Some(text) if text.parse::<u32>().is_err() => Some(
            reading.violation(head.status.to_string(), format!("{} says to come back after {text:?}", head.status)),
        ),
        Some(_) => None,
    }
}
