//! The talk in a session: the welcome, the requests of the client, and the answers to them.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Exchange, PATIENCE};
use crate::{
    fault::{InjectedEffect, NOTICED},
    record::transcript::{EventKind, app_event, outer_event},
    wire::{
        close_code::CloseCode,
        frame::{Frame, Opcode},
        message::message_type,
    },
};

/// How many characters of the user's name a welcome shows.
const WELCOME_USER_CHARACTERS: usize = 8;

/// From how many bytes on a request is longer than usual.
pub const LARGE_BYTES: usize = 8192;

/// How long a client waits for an answer to such a request.
pub const LARGE_PATIENCE: Duration = Duration::from_secs(10);

/// The agent requests of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AgentRequests {
    /// How many the client sent.
    sent: usize,
    /// How many of them it turned away from before anything could be expected of them.
    given_up: usize,
}

/// Whether this is a close for something that is not ready.
fn says_not_ready(frame: &Frame) -> bool {
    frame.is_close() && matches!(frame.close_code(), Some(CloseCode::TRY_AGAIN_LATER | CloseCode::PRIVATE_UNAVAILABLE))
}

impl<'a> Exchange<'a> {
    /// Whether the welcome names the user whose credential reached the server.
    pub fn is_welcomed_as_itself(&self) -> bool {
        match (&self.welcome, self.user) {
            (Some(_), Some(_)) if !self.service.words.name_user => true,
            (Some(name), Some(user)) => {
                let start: String = user.chars().take(WELCOME_USER_CHARACTERS).collect();
                *name == user || *name == start + "..."
            }
            (None, _) | (_, None) => false,
        }
    }

    pub(super) fn is_agent_request(&self, what: &EventKind) -> bool {
        let EventKind::FrameSent(frame) = what else { return false };
        let requests = &self.service.words.requests;
        // Where requests have no type, whatever the client says is one, as long as anything is known to answer it.
        let is_typeless = self.service.is_opaque() && requests.is_empty() && !self.service.words.events.is_empty();
        // How long a request may be is a rule of the service.
        let is_usual = !self.service.is_foreign() || frame.payload.len() <= LARGE_BYTES;
        frame.opcode == Opcode::Text && is_usual && (is_typeless || self.has_type_of_request(frame))
    }

    /// Whether a message has a type that the service answers with an agent run.
    fn has_type_of_request(&self, frame: &Frame) -> bool {
        message_type(&frame.payload).is_some_and(|name| self.service.words.requests.has(name.as_ref()))
    }

    /// Whether a message of the service is the last that an agent request gets: the last event of a run, or an error.
    fn ends_agent_run(&self, frame: &Frame) -> bool {
        let last = self.service.words.events.last();
        message_type(&frame.payload).is_some_and(|name| Some(name.as_ref()) == last || name.starts_with("error"))
    }

    /// How long a request was that is longer than usual, and was neither answered nor refused although the client waited and
    /// nothing kept anything back.
    pub fn ignored_request(&self) -> Option<usize> {
        if !self.service.is_foreign() || self.service.words.events.is_empty() {
            return None;
        }
        if self.acted().any(|kind| kind.effect() != InjectedEffect::None || kind.takes_time()) {
            return None;
        }
        self.events.iter().enumerate().find_map(|(index, event)| {
            let EventKind::FrameSent(frame) = &event.what else { return None };
            let is_large = frame.opcode == Opcode::Text && frame.payload.len() > LARGE_BYTES;
            // The next act of the client, or the answer.
            let next = self.events[index + 1..].iter().find(|event| match &event.what {
                EventKind::FrameSent(frame) | EventKind::FrameSeen(frame) | EventKind::MessageSeen(frame) => {
                    frame.is_message() || frame.is_close()
                }
                what => matches!(what, EventKind::Left | EventKind::EndSeen | EventKind::BadFrameSeen(_)),
            })?;
            let is_next_sent = matches!(next.what, EventKind::FrameSent(_) | EventKind::Left);
            let is_ignored = is_next_sent && next.at.saturating_sub(event.at) >= LARGE_PATIENCE;
            (is_large && is_ignored && self.has_type_of_request(frame)).then_some(frame.payload.len())
        })
    }

    /// Whether the client said anything that is no request as its service file has it.
    pub fn says_something_else(&self) -> bool {
        self.has(|what| match what {
            EventKind::FrameSent(frame) => frame.is_message() && !self.is_agent_request(what),
            _ => false,
        })
    }

    /// How many agent runs the client asked for.
    pub fn agent_requests(&self) -> usize {
        self.requested().sent
    }

    fn requested(&self) -> AgentRequests {
        *self.requested.get_or_init(|| AgentRequests {
            sent: self.count(|what| self.is_agent_request(what)),
            given_up: self.agent_requests_given_up(),
        })
    }

    /// How many agent runs the client is to see: as many as it asked for and waited for, less those of which it was told
    /// that something behind the service had failed.
    pub fn agent_runs_owed(&self) -> usize {
        let AgentRequests { sent, given_up } = self.requested();
        let asked = sent - given_up;
        let told = self.messages.iter().filter(|name| name.starts_with("error")).count();
        if self.outage { asked.saturating_sub(told) } else { asked }
    }

    /// How many agent requests the client turned away from before anything could be expected of them.
    // Long: one pass over the events, with an arm for each kind.
    fn agent_requests_given_up(&self) -> usize {
        // They are answered one after the other, in the order in which they were sent.
        let mut waiting: VecDeque<Duration> = VecDeque::new();
        let (mut given_up, mut is_let_go, mut answered) = (0, false, Duration::ZERO);
        for event in &self.events {
            match &event.what {
                what if self.is_agent_request(what) && is_let_go => given_up += 1,
                what if self.is_agent_request(what) => waiting.push_back(event.at),
                // A client that closes, leaves or reads no more has turned away.
                EventKind::FrameSent(Frame { opcode: Opcode::Close, .. })
                | EventKind::Left
                | EventKind::StoppedReading => {
                    let since = waiting.drain(..).map(|asked| event.at.saturating_sub(asked.max(answered)));
                    given_up += since.filter(|waited| *waited < PATIENCE).count();
                }
                EventKind::FrameSent(frame) => {
                    is_let_go |= message_type(&frame.payload).is_some_and(|name| name == "disconnect")
                }
                // The app can answer no more.
                EventKind::CutShort => {
                    given_up += waiting.drain(..).count();
                    is_let_go = true;
                }
                // A message that something failed answers every request that still waits.
                EventKind::FrameSeen(frame) if self.outage && says_not_ready(frame) => {
                    given_up += waiting.drain(..).count()
                }
                EventKind::FrameSeen(Frame { opcode: Opcode::Close, .. }) | EventKind::DeadlinePassed { .. } => {
                    waiting.clear()
                }
                EventKind::FrameSeen(frame) if frame.opcode == Opcode::Text && self.ends_agent_run(frame) => {
                    waiting.pop_front();
                    answered = event.at;
                }
                EventKind::OpenedBy { .. }
                | EventKind::OnConnectionOf { .. }
                | EventKind::BodyTimed(_)
                | EventKind::BodyLate { .. }
                | EventKind::BodySent { .. }
                | EventKind::BodyCutShort { .. }
                | EventKind::AwaitedCame { .. }
                | EventKind::AwaitedNeverCame { .. }
                | EventKind::NotPerformed { .. }
                | EventKind::LinkReset
                | EventKind::SeenEnough { .. }
                | EventKind::Omitted { .. }
                | EventKind::ConnectionRefused
                | EventKind::RequestSent { .. }
                | EventKind::ResponseSeen(_)
                | EventKind::BodySeen { .. }
                | EventKind::FrameSeen(_)
                | EventKind::MessageSeen(_)
                | EventKind::HandshakeRefused { .. }
                | EventKind::BadFrameSeen(_)
                | EventKind::BadHeadSeen { .. }
                | EventKind::EndSeen
                | EventKind::RequestRefused { .. }
                | EventKind::KeepaliveExpired
                | EventKind::HandshakeExpired
                | app_event!()
                | outer_event!() => {}
            }
        }
        given_up
    }

    /// How many whole agent runs the client saw: the five events once each and in order. An outage may cut the last one
    /// short.
    pub fn agent_runs(&self) -> usize {
        let (events, whole) = (self.agent_events(), self.service.words.events.iter().collect::<Vec<_>>());
        let length = whole.len().max(1);
        let may_be_cut = self.outage || self.requested().given_up > 0;
        let are_runs = events.chunks(length).all(|run| run == whole || (may_be_cut && whole.starts_with(run)));
        if are_runs { events.len() / length } else { 0 }
    }

    /// The agent events the client saw, in order.
    pub fn agent_events(&self) -> Vec<&str> {
        self.messages.iter().map(String::as_str).filter(|name| self.service.words.events.has(name)).collect()
    }

    /// Whether the client turned away as soon as it was let in, before a user's own service could greet it.
    pub fn turned_away_at_once(&self) -> bool {
        if !self.service.is_foreign() || self.welcome.is_some() {
            return false;
        }
        let opened = self.first(|what| matches!(what, EventKind::ResponseSeen(head) if head.status == 101));
        let ended = self.first(|what| match what {
            EventKind::FrameSent(frame) | EventKind::FrameSeen(frame) => frame.is_close(),
            what => matches!(what, EventKind::Left),
        });
        let Some((opened, ended)) = opened.zip(ended) else { return false };
        // A client that answers a close did not turn away, nor did one that waited as long as it meant to.
        !matches!(ended.what, EventKind::FrameSeen(_))
            && ended.at.saturating_sub(opened.at) < NOTICED
            && !self.has(|what| matches!(what, EventKind::DeadlinePassed { .. }))
    }

    pub(super) fn sent_too_much(&self) -> bool {
        let limit = self.service.message_bytes_max;
        limit > 0
            && self.has(|what| match what {
                EventKind::FrameSent(frame) => frame.is_message() && frame.payload.len() > limit,
                _ => false,
            })
    }
}
