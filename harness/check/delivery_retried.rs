//! An event whose delivery fails is tried again as often as the environment asks for, and no more often.

use super::{Complaints, Evidence};
use crate::{classify::Reading, fault::FaultKind, transcript::What};

/// The call that delivers an event.
const DELIVERY: (&str, &str) = ("websocket_bridge", "emit");

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    let due = evidence.transcript.service.delivery_attempts;
    evidence.plain().filter(|_| due > 0).flat_map(|reading| complaints(reading, due)).collect()
}

fn complaints(reading: &Reading<'_>, due: usize) -> Vec<(String, String)> {
    // Of a call that gets no answer there is no record.
    let is_silent = |kind: &FaultKind| match kind {
        FaultKind::Call { calls, fault } => calls.include(DELIVERY.0, DELIVERY.1) && !fault.answers(),
        _ => false,
    };
    if reading.acted().any(is_silent) {
        return Vec::new();
    }
    let answers = reading.events.iter().filter_map(|event| match &event.what {
        What::DependencyCalled { dependency, operation, error } if (*dependency, *operation) == DELIVERY => {
            Some(error.is_some())
        }
        _ => None,
    });
    let (mut failed, mut found) = (0, Vec::new());
    let mut judge = |attempts: usize, has_given_up: bool| {
        if attempts > due || (has_given_up && attempts > 0 && attempts < due) {
            let text = format!("the delivery of an event was tried {attempts} time(s); {due} are due");
            found.push((attempts.to_string(), text));
        }
    };
    for is_failure in answers {
        failed = if is_failure { failed + 1 } else { 0 };
        // The next failure is another event's once all attempts are made.
        if failed == due {
            judge(failed, true);
            failed = 0;
        }
    }
    judge(failed, true);
    found
}
