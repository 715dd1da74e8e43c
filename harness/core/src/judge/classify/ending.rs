//! Decides how an exchange ended for its client.

use super::Exchange;
use crate::{
    judge::outcome::Ending,
    record::transcript::{BodyEnd, Event, EventKind, app_event, outer_event, server_event, step_event, wire_event},
    wire::{
        close_code::CloseCode,
        head::{ResponseHead, header},
    },
};

impl<'a> Exchange<'a> {
    pub(super) fn ending(&self) -> Ending {
        let not_started = self.events.iter().find_map(|event| match &event.what {
            EventKind::NotStarted { why, .. } => Some(why.clone()),
            _ => None,
        });
        if let Some(why) = not_started {
            return Ending::NotStarted { why };
        }
        let mut probe_closed = None;
        for (index, event) in self.events.iter().enumerate() {
            match &event.what {
                EventKind::ResponseSeen(head) if head.status != 101 => return self.http_ending(head.status, index),
                EventKind::HandshakeRefused { why } => return Ending::BadHandshake { why: why.clone() },
                EventKind::BadHeadSeen { .. } | EventKind::BadFrameSeen(_) | EventKind::EndSeen => return Ending::Drop,
                // The answer did not come, and the session ended when the client closed it.
                EventKind::DeadlinePassed { .. } if self.is_parted_unanswered(index) => {}
                EventKind::DeadlinePassed { waiting_for, .. } => {
                    // A pong or a close may be the server's; a message is the application's.
                    let lives_on = self.events[index..]
                        .iter()
                        .any(|event| matches!(&event.what, EventKind::FrameSeen(frame) if frame.is_message()));
                    let waiting_for = waiting_for.clone();
                    return if lives_on { Ending::Silence { waiting_for } } else { Ending::Hang { waiting_for } };
                }
                EventKind::FrameSent(frame) if frame.is_close() => probe_closed = Some(frame.close_code()),
                EventKind::FrameSeen(frame) if frame.is_close() && frame.verify().is_ok() => {
                    let (code, reason) = frame.close_parts();
                    // An answer repeats the code, or says nothing in particular; anything else crossed it on the way.
                    let is_answer = match probe_closed {
                        Some(sent) => code == sent || code.is_none_or(|code| code == CloseCode::NORMAL),
                        None => false,
                    };
                    return match is_answer && reason.is_empty() {
                        true => Ending::Parted { code },
                        false => Ending::Close { code, reason },
                    };
                }
                // All that the server said meanwhile was something else.
                EventKind::SeenEnough { waiting_for: Some(waiting_for), .. } => {
                    return Ending::Hang { waiting_for: waiting_for.clone() };
                }
                EventKind::Left => return Ending::Left,
                step_event!() | wire_event!() | app_event!() | server_event!() | outer_event!() => {}
            }
        }
        let refused = self.has(|what| matches!(what, EventKind::ConnectionRefused));
        if refused && self.request.is_none() { Ending::Refused } else { Ending::Drop }
    }

    fn http_ending(&self, status: u16, from: usize) -> Ending {
        for event in &self.events[from..] {
            match &event.what {
                EventKind::BodySeen { end, .. } => match end {
                    BodyEnd::Complete | BodyEnd::None => return Ending::Http { status, complete: true },
                    BodyEnd::Truncated | BodyEnd::Surplus | BodyEnd::Malformed => {}
                },
                // A client that has seen enough of an endless answer leaves.
                EventKind::Left => return Ending::Left,
                EventKind::DeadlinePassed { .. } if self.is_stream() => return Ending::Left,
                EventKind::DeadlinePassed { waiting_for, .. } => {
                    return Ending::Hang { waiting_for: waiting_for.clone() };
                }
                EventKind::ConnectionRefused
                | EventKind::RequestSent { .. }
                | EventKind::ResponseSeen(_)
                | EventKind::FrameSent(_)
                | EventKind::FrameSeen(_)
                | EventKind::MessageSeen(_)
                | EventKind::HandshakeRefused { .. }
                | EventKind::BadFrameSeen(_)
                | EventKind::BadHeadSeen { .. }
                | EventKind::EndSeen
                | step_event!()
                | app_event!()
                | server_event!()
                | outer_event!() => {}
            }
        }
        Ending::Http { status, complete: false }
    }

    /// Whether the client had sent a request that the service file says is answered, waited for the answer until this event,
    /// and then closed, and whether the service answered that. Where no more than the wire is known, this is the sign that a
    /// session lives on.
    fn is_parted_unanswered(&self, deadline: usize) -> bool {
        let (before, after) = self.events.split_at(deadline);
        self.service.is_opaque()
            && before.iter().any(|event| self.is_agent_request(&event.what))
            && !self.service.words.events.is_empty()
            && has_answered_close(after)
    }

    /// Whether a user's own service answers with a body of unknown length.
    fn is_stream(&self) -> bool {
        self.service.is_foreign()
            && self.response.is_some_and(|head: &ResponseHead| header(&head.headers, "content-length").is_none())
            && self.has(|what| matches!(what, EventKind::BodySeen { body, .. } if !body.is_empty()))
    }
}

/// Whether the client closed, and the service answered that.
fn has_answered_close(events: &[&Event]) -> bool {
    let mut rest = events.iter();
    rest.any(|event| matches!(&event.what, EventKind::FrameSent(frame) if frame.is_close()))
        && rest.any(|event| matches!(&event.what, EventKind::FrameSeen(frame) if frame.is_close()))
}
