//! Application and server send only what the ASGI state machine allows, and the application finishes what it began.

use super::{Harm, Property, RunView, Violation};
use crate::{
    asgi::event::{Machine, ProtocolBreach},
    judge::classify::Exchange,
    record::transcript::EventKind,
};

pub(super) const CHECK: Property = Property {
    name: "asgi_conformance",
    property: "application and server send only what ASGI allows, and finish",
    harm: Harm::Noise,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence
        .readings
        .iter()
        .flat_map(|reading| {
            breaches(reading).into_iter().map(|breach| reading.violation(&breach.0, breach.to_string()))
        })
        .collect()
}

fn breaches(reading: &Exchange<'_>) -> Vec<ProtocolBreach> {
    let Some(mut machine) = reading.machine() else { return Vec::new() };
    reading
        .events
        .iter()
        // A client that leaves before the answer cannot say what it is owed.
        .take_while(|event| match event.what {
            EventKind::Left | EventKind::DeadlinePassed { .. } => reading.response.is_some(),
            _ => true,
        })
        .filter_map(|event| match &event.what {
            // Another request on the same connection.
            EventKind::Called { kind, .. } => {
                machine = Machine::new(*kind);
                None
            }
            // An injected event is no breach by the server.
            EventKind::Received(event) => machine.on_receive(event).err().filter(|_| !reading.has_event_faults()),
            EventKind::Sent(event) => machine.on_send(event).err(),
            EventKind::CallRaised(exception) if reading.is_told_gone(exception) => {
                machine.lose();
                None
            }
            EventKind::Returned => machine.on_return().err(),
            _ => None,
        })
        .collect()
}
