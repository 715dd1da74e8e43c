//! Whether what a client sends in a session is answered.

use std::ops::Range;

use relapse_core::{
    asgi::event::{Inbound, Outbound},
    judge::classify::Exchange,
    record::transcript::{EventKind, end_event, outer_event, server_event, step_event},
    wire::frame::Frame,
};

/// Whether the client sent a message, and the service none since. Where the app is seen, its own order counts: what it sends
/// before it gets the message may be read later. An app that closes and never receives was asked when the client sent.
pub(super) fn is_asked_in_vain(reading: &Exchange<'_>) -> bool {
    let asked = first(reading, |what| asks(what, reading)).or_else(|| {
        let sent = first(reading, |what| matches!(what, EventKind::FrameSent(frame) if frame.is_message()))?;
        let closed = first(reading, |what| matches!(what, EventKind::Sent(Outbound::WebsocketClose { .. })))?;
        (sent < closed).then_some(sent)
    });
    asked.is_some_and(|asked| !has_answer(reading, asked..reading.events.len()))
}

/// Whether the service answered the message in which it did something at a position of the exchange: it sent something after
/// it had received that message, and before it received the next one. Without a message there is nothing to answer.
pub(super) fn is_answered_at(reading: &Exchange<'_>, position: usize) -> bool {
    let (past, to_come) = reading.events.split_at(position);
    let Some(asked) = past.iter().rposition(|event| asks(&event.what, reading)) else { return true };
    let next = to_come.iter().position(|event| asks(&event.what, reading));
    has_answer(reading, asked..position + next.unwrap_or(to_come.len()))
}

fn asks(what: &EventKind, reading: &Exchange<'_>) -> bool {
    sender(what, reading) == Some(Sender::Client)
}

fn has_answer(reading: &Exchange<'_>, events: Range<usize>) -> bool {
    reading.events[events].iter().any(|event| sender(&event.what, reading) == Some(Sender::Service))
}

fn first(reading: &Exchange<'_>, is_it: impl Fn(&EventKind) -> bool) -> Option<usize> {
    reading.events.iter().position(|event| is_it(&event.what))
}

/// The sender of a message in a session.
#[derive(PartialEq)]
enum Sender {
    Client,
    Service,
}

/// The sender of the message that an event tells: where the app is seen, the one that the app gets or sends.
fn sender(what: &EventKind, reading: &Exchange<'_>) -> Option<Sender> {
    let is_unseen = |frame: &Frame| reading.machine().is_none() && frame.is_message();
    match what {
        EventKind::Received(Inbound::WebsocketReceive { .. }) => Some(Sender::Client),
        EventKind::Sent(Outbound::WebsocketSend { .. }) => Some(Sender::Service),
        EventKind::FrameSent(frame) => is_unseen(frame).then_some(Sender::Client),
        EventKind::FrameSeen(frame) | EventKind::MessageSeen(frame) => is_unseen(frame).then_some(Sender::Service),
        EventKind::ConnectionRefused
        | EventKind::RequestSent { .. }
        | EventKind::ResponseSeen(_)
        | EventKind::BodySeen { .. }
        | EventKind::Called { .. }
        | EventKind::Received(_)
        | EventKind::Sent(_)
        | EventKind::CallRaised(_)
        | EventKind::Returned
        | EventKind::Raised(_)
        | EventKind::Handled(_)
        | EventKind::Logged { .. }
        | EventKind::LeftBehind(_)
        | step_event!()
        | end_event!()
        | server_event!()
        | outer_event!() => None,
    }
}
