//! Once the client is gone the application's call ends within its limit.

use std::time::Duration;

use super::{Harm, Property, RunView, Violation};
use crate::{judge::classify::Exchange, record::transcript::EventKind};

/// How long a call may go on without its client: longer than the longest that the service itself waits for anything.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) const CHECK: Property = Property {
    name: "handler_ends",
    property: "the application's call ends once its client is gone",
    harm: Harm::Hang,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence.readings.iter().filter(|reading| !reading.is_held() && !reading.may_go_on()).filter_map(complain).collect()
}

fn complain(reading: &Exchange<'_>) -> Option<Violation> {
    let calls = reading.count(|what| matches!(what, EventKind::Called { .. }));
    if calls == 0 {
        return None;
    }
    if calls > reading.count(ends_call) {
        // In real time the harness does not wait as long as the call may take.
        if reading.service.is_served() {
            return None;
        }
        let message = "every client is gone, and the application's call has not ended";
        return Some(reading.violation("running", message));
    }
    let gone =
        reading.last(|what| matches!(what, EventKind::EndSeen | EventKind::Left | EventKind::BodySeen { .. }))?;
    let late = reading.last(ends_call)?.at.saturating_sub(gone.at);
    (late > LIMIT).then(|| {
        let message = format!("the application's call ended {} s after its client was gone", late.as_secs());
        reading.violation("late", message)
    })
}

/// Whether the application's call ends with this event.
fn ends_call(what: &EventKind) -> bool {
    matches!(what, EventKind::Returned | EventKind::Raised(_))
}
