//! An event whose delivery fails is tried again, as often as the environment asks for, before the client is told.

use relapse_core::{
    asgi::event::Outbound,
    fault::FaultKind,
    judge::{
        check::{Check, RunView, Violation},
        classify::Exchange,
    },
    record::transcript::EventKind,
    wire::message::message_type,
};

use crate::dependency::Dependency;

/// The call that delivers an event.
const DELIVERY: (&str, &str) = (Dependency::WebsocketBridge.name(), "emit");

/// The check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryRetried {
    /// How often the delivery of an event is tried before it is given up.
    pub attempts: usize,
}

impl Check for DeliveryRetried {
    fn name(&self) -> &'static str {
        "delivery_retried"
    }

    fn property(&self) -> &'static str {
        "an event whose delivery fails is tried again as often as it is to be"
    }

    fn check(&self, run: &RunView<'_>) -> Vec<Violation> {
        run.plain().filter_map(|reading| complain(reading, self.attempts)).collect()
    }
}

fn complain(reading: &Exchange<'_>, due: usize) -> Option<Violation> {
    // Of a call that gets no answer there is no record.
    if reading.acted().any(silences_delivery) {
        return None;
    }
    let mut failed = 0;
    let mut was_told = false;
    // For a client that turns away nothing more is delivered.
    for event in reading.events.iter().take_while(|event| !is_parting(&event.what)) {
        match &event.what {
            EventKind::DependencyCalled { dependency, operation, error } if (*dependency, *operation) == DELIVERY => {
                // The next failure is another event's once all attempts are made.
                failed = if error.is_some() { (failed + 1) % due } else { 0 };
                was_told = false;
            }
            EventKind::Sent(Outbound::WebsocketSend { text: Some(text), .. }) => {
                was_told |= message_type(text.as_bytes()).is_some_and(|name| name.starts_with("error"));
            }
            _ => {}
        }
    }
    if failed == 0 || !was_told {
        return None;
    }
    let message = format!("the client was told after {failed} attempt(s) to deliver an event; {due} are due");
    Some(reading.violation(failed.to_string(), message))
}

/// Whether a delivery gets no answer because of a fault.
fn silences_delivery(kind: &FaultKind) -> bool {
    match kind {
        FaultKind::Call { calls, fault } => calls.include(DELIVERY.0, DELIVERY.1) && !fault.answers(),
        _ => false,
    }
}

/// Whether the client closes, leaves or reads no more, or is cut off.
fn is_parting(what: &EventKind) -> bool {
    match what {
        EventKind::FrameSent(frame) => frame.is_close(),
        EventKind::Left | EventKind::EndSeen | EventKind::StoppedReading => true,
        _ => false,
    }
}
