//! The facts of one exchange, gathered in one pass over its events.

use std::time::Duration;

use super::{outage::Outages, talk::Talk};
use crate::{
    asgi::{event::Outbound, exception::Exception, scope::ScopeType},
    fault::{Fault, FaultKind},
    record::{
        service::Service,
        transcript::{
            Actor, Event, EventKind, Transcript, end_event, outer_event, server_event, step_event, wire_event,
        },
    },
    wire::{
        frame::Opcode,
        head::{RequestHead, ResponseHead, has_token},
    },
};

/// The facts of one exchange. Positions are those of events in the transcript.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The positions of its events.
    pub(crate) positions: Vec<usize>,
    /// The first request, whose path the service file may describe.
    asked: Option<usize>,
    /// The last request.
    request: Option<usize>,
    /// The call of the app.
    called: Option<usize>,
    /// The last response.
    response: Option<usize>,
    /// Whether a valid credential reached the server, or none is needed.
    is_user: bool,
    /// The exception that left the app's call.
    escaped: Option<Escape>,
    /// The faults that acted, each time that they did.
    pub(crate) acted: Vec<usize>,
    /// The faults that kept a critical dependency down all through the exchange.
    pub(crate) down: Vec<usize>,
    /// The head as it left the edge, where nothing is known of the inside.
    pub passed_on: Option<RequestHead>,
    /// The welcome's `user_id`, when a welcome came.
    pub welcome: Option<String>,
    /// The user an agent event was for, when that is another one than the session's.
    pub foreign_user: Option<String>,
    /// The `type` of every text message the client read; empty for one that has none.
    pub messages: Vec<String>,
    /// Whether something behind the service was failing during the exchange, or had failed shortly before.
    pub outage: bool,
    /// Whether the process was kept away when the client wanted to connect.
    pub absent: bool,
    /// When a case sent the server a signal that ended it, or ends every server, if it did before the exchange was over.
    pub signaled: Option<Duration>,
    /// Whether the head that left the edge is over a limit of the real server in front of the app.
    pub is_over_limit: bool,
    /// True when the case may exceed a user's own service's limit of connections; any refusal is then acceptable.
    pub is_crowded: bool,
}

/// An exception that left the app's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Escape {
    position: usize,
    /// Whether the WebSocket was accepted, or the answer begun, by then.
    has_begun: bool,
}

impl Facts {
    // Long: one pass over the events, with an arm for each kind that matters and the names of the others.
    pub(super) fn gather(
        transcript: &Transcript,
        outages: &Outages<'_>,
        exchange: usize,
        positions: Vec<usize>,
        is_crowded: bool,
    ) -> Facts {
        let events = positions.iter().map(|&position| (position, &transcript.events[position]));
        let mut facts = Facts { is_crowded, ..Facts::default() };
        if let (Some((_, first)), Some((_, last))) = (events.clone().next(), events.clone().next_back()) {
            facts.meet(outages, exchange, first.at, last.at);
        }
        let asked = events.clone().find(|(_, event)| matches!(event.what, EventKind::RequestSent { .. }));
        facts.asked = asked.map(|(position, _)| position);
        let service = facts.service(transcript);
        let (mut credential, mut is_rewritten, mut talk) = (None, false, Talk::default());
        let mut escape = EscapeSearch::default();
        for (position, event) in events.clone() {
            escape.take(position, event);
            match &event.what {
                EventKind::RequestSent { credential: presented, .. } => {
                    facts.request = Some(position);
                    credential = Some(presented);
                }
                EventKind::Called { .. } => facts.called = facts.called.or(Some(position)),
                EventKind::FaultFired { index, .. } => {
                    let Some(fault) = transcript.faults.get(*index) else { continue };
                    facts.acted.push(*index);
                    is_rewritten |= event.party == Actor::Edge && matches!(fault.kind, FaultKind::Head(_));
                }
                EventKind::ResponseSeen(_) => facts.response = Some(position),
                EventKind::FrameSeen(frame) if frame.opcode == Opcode::Text && frame.is_final => {
                    talk.take(frame, &service.words);
                }
                EventKind::MessageSeen(frame) if frame.opcode == Opcode::Text => talk.take(frame, &service.words),
                EventKind::ConnectionRefused
                | EventKind::BodySeen { .. }
                | EventKind::FrameSent(_)
                | EventKind::FrameSeen(_)
                | EventKind::MessageSeen(_)
                | EventKind::Received(_)
                | EventKind::Sent(_)
                | EventKind::CallRaised(_)
                | EventKind::Returned
                | EventKind::Raised(_)
                | EventKind::Handled(_)
                | EventKind::Logged { .. }
                | EventKind::LeftBehind(_)
                | EventKind::Starting
                | EventKind::Stopping
                | EventKind::Exited { .. }
                | EventKind::Listening
                | EventKind::NotStarted { .. }
                | EventKind::Signaled { .. }
                | EventKind::ExitAwaited { .. }
                | EventKind::DependencyCalled { .. }
                | step_event!()
                | end_event!()
                | server_event!() => {}
            }
        }
        facts.escaped = escape.found;
        let request = facts.request(transcript);
        let events = events.map(|(_, event)| event);
        facts.passed_on =
            request.filter(|_| service.is_opaque()).map(|head| edited(head, events.clone(), &transcript.faults));
        let limits = &transcript.service.head_limits;
        facts.is_over_limit = request.filter(|_| !limits.is_empty()).is_some_and(|head| {
            let head = edited(head, events.clone(), &transcript.faults);
            let is_upgrade = has_token(&head.headers, "upgrade", "websocket");
            limits.iter().any(|limit| limit.excess(&head, is_upgrade).is_some())
        });
        // The head that the app got, or, where it was not called and the request was not rewritten, the one that was sent.
        let arrived =
            facts.passed_on.as_ref().or_else(|| facts.delivered(transcript).or(request.filter(|_| !is_rewritten)));
        facts.is_user = credential.is_some_and(|credential| {
            service.is_public || credential.is_valid() && arrived.is_some_and(|head| credential.is_in(head))
        });
        let user = facts.user(transcript);
        facts.foreign_user = talk.foreign_user(events, user, &service.words);
        (facts.messages, facts.welcome) = (talk.messages, talk.welcome);
        facts.positions = positions;
        facts
    }

    /// Notes the outages of an exchange that lasts from one time to another.
    fn meet(&mut self, outages: &Outages<'_>, exchange: usize, first: Duration, last: Duration) {
        self.outage = outages.met(exchange, first, last);
        self.absent = outages.are_of_process(last);
        self.signaled = outages.signaled.filter(|sent| last >= *sent);
        self.down = outages.all_through(first, last);
    }

    /// The knowledge about the target at the path of the first request.
    pub(crate) fn service<'a>(&self, transcript: &'a Transcript) -> &'a Service {
        match self.asked.map(|position| &transcript.events[position].what) {
            Some(EventKind::RequestSent { head, .. }) => transcript.service.at(&head.path_and_query().0),
            _ => &transcript.service,
        }
    }

    /// The head that the client sent.
    pub(crate) fn request<'a>(&self, transcript: &'a Transcript) -> Option<&'a RequestHead> {
        match &transcript.events[self.request?].what {
            EventKind::RequestSent { head, .. } => Some(head),
            _ => None,
        }
    }

    /// The type of the app's call, and the head as it reached the server.
    pub(crate) fn called<'a>(&self, transcript: &'a Transcript) -> Option<(ScopeType, &'a RequestHead)> {
        match &transcript.events[self.called?].what {
            EventKind::Called { kind, head } => Some((*kind, head)),
            _ => None,
        }
    }

    fn delivered<'a>(&self, transcript: &'a Transcript) -> Option<&'a RequestHead> {
        self.called(transcript).map(|(_, head)| head)
    }

    /// The head of the answer.
    pub(crate) fn response<'a>(&self, transcript: &'a Transcript) -> Option<&'a ResponseHead> {
        match &transcript.events[self.response?].what {
            EventKind::ResponseSeen(head) => Some(head),
            _ => None,
        }
    }

    /// The user that a valid credential that reached the server names.
    pub(crate) fn user<'a>(&self, transcript: &'a Transcript) -> Option<&'a str> {
        match &transcript.events[self.request?].what {
            EventKind::RequestSent { credential, .. } if self.is_user => Some(credential.subject.as_str()),
            _ => None,
        }
    }

    /// The exception that left the app's call, and whether the WebSocket was accepted or the answer begun by then.
    pub(crate) fn escaped<'a>(&self, transcript: &'a Transcript) -> Option<(&'a Exception, bool)> {
        let Escape { position, has_begun } = self.escaped?;
        match &transcript.events[position].what {
            EventKind::Raised(exception) => Some((exception, has_begun)),
            _ => None,
        }
    }
}

/// A head as the edge left it.
fn edited<'a>(head: &RequestHead, events: impl Iterator<Item = &'a Event>, faults: &[Fault]) -> RequestHead {
    let mut edited = head.clone();
    for event in events.filter(|event| event.party == Actor::Edge) {
        let EventKind::FaultFired { index, .. } = event.what else { continue };
        if let Some(FaultKind::Head(edit)) = faults.get(index).map(|fault| &fault.kind) {
            edit.apply(&mut edited);
        }
    }
    edited
}

/// Looks for the exception that leaves the app's call.
#[derive(Debug, Default)]
struct EscapeSearch {
    has_begun: bool,
    /// Whether the event that began it may still be refused by the server.
    is_pending: bool,
    found: Option<Escape>,
}

impl EscapeSearch {
    fn take(&mut self, position: usize, event: &Event) {
        match &event.what {
            // A framework that answers an exception before it lets it through accepts nothing.
            EventKind::Sent(Outbound::ResponseStart { status: 500, .. }) => {}
            EventKind::Sent(Outbound::WebsocketAccept { .. } | Outbound::ResponseStart { .. }) => {
                self.is_pending = !self.has_begun;
                self.has_begun = true;
            }
            // The server did not take it.
            EventKind::CallRaised(_) if self.is_pending => self.has_begun = false,
            EventKind::Sent(
                Outbound::WebsocketSend { .. }
                | Outbound::WebsocketClose { .. }
                | Outbound::ResponseBody { .. }
                | Outbound::StartupComplete
                | Outbound::StartupFailed { .. }
                | Outbound::ShutdownComplete
                | Outbound::ShutdownFailed { .. }
                | Outbound::Unencodable { .. }
                | Outbound::Unknown(_),
            ) => self.is_pending = false,
            EventKind::Raised(_) => {
                self.found.get_or_insert(Escape { position, has_begun: self.has_begun });
            }
            EventKind::CallRaised(_)
            | EventKind::Called { .. }
            | EventKind::Received(_)
            | EventKind::Returned
            | EventKind::Handled(_)
            | EventKind::Logged { .. }
            | EventKind::LeftBehind(_)
            | step_event!()
            | wire_event!()
            | end_event!()
            | server_event!()
            | outer_event!() => {}
        }
    }
}
