//! Once the client is gone the application's call ends within its limit.

use std::time::Duration;

use super::{CheckFindings, Property, RunView};
use crate::{judge::classify::Exchange, record::transcript::EventKind};

/// How long a call may go on without its client: longer than the longest that the service itself waits for anything.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) const CHECK: Property =
    Property { name: "handler_ends", property: "the application's call ends once its client is gone", run: check };

fn check(evidence: &RunView<'_>) -> CheckFindings {
    evidence.readings.iter().filter(|reading| !reading.is_held() && !reading.may_go_on()).filter_map(complain).collect()
}

fn complain(reading: &Exchange<'_>) -> Option<(String, String)> {
    let when = |wanted: fn(&EventKind) -> bool| reading.events.iter().rev().find(|event| wanted(&event.what));
    when(|what| matches!(what, EventKind::Called { .. }))?;
    let gone = when(|what| matches!(what, EventKind::EndSeen | EventKind::Left | EventKind::BodySeen { .. }));
    let count = |wanted: fn(&EventKind) -> bool| reading.events.iter().filter(|event| wanted(&event.what)).count();
    let has_ended = |what: &EventKind| matches!(what, EventKind::Returned | EventKind::Raised(_));
    if count(|what| matches!(what, EventKind::Called { .. })) > count(has_ended) {
        // In real time the harness does not wait as long as the call may take.
        if reading.service.is_served() {
            return None;
        }
        let message = "every client is gone, and the application's call has not ended";
        return Some(("running".to_owned(), message.to_owned()));
    }
    let ended = when(has_ended)?;
    let late = ended.at.saturating_sub(gone?.at);
    let message = || format!("the application's call ended {} s after its client was gone", late.as_secs());
    (late > LIMIT).then(|| ("late".to_owned(), message()))
}
