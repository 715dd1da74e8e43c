//! An event whose delivery fails is tried again, as often as the environment asks for, before the client is told.

use super::{Complaints, Evidence};
use crate::{classify::Reading, fault::FaultKind, frame::Opcode, transcript::What};

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
    // For a client that turns away nothing more is delivered.
    let parts = |what: &What| match what {
        What::FrameSent(frame) => frame.opcode == Opcode::Close,
        What::Left | What::EndSeen | What::StoppedReading => true,
        _ => false,
    };
    let beside = reading.events.iter().take_while(|event| !parts(&event.what));
    let answers = beside.filter_map(|event| match &event.what {
        What::DependencyCalled { dependency, operation, error } if (*dependency, *operation) == DELIVERY => {
            Some(error.is_some())
        }
        _ => None,
    });
    // The next failure is another event's once all attempts are made.
    let failed = answers.fold(0, |failed, is_failure| if is_failure { (failed + 1) % due } else { 0 });
    let was_told = reading.messages.iter().any(|name| name.starts_with("error"));
    if failed == 0 || !was_told {
        return Vec::new();
    }
    let text = format!("the client was told after {failed} attempt(s) to deliver an event; {due} are due");
    vec![(failed.to_string(), text)]
}
