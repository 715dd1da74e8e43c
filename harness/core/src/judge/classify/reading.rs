//! One exchange as it is read: its heads, its events, and the facts that the other files decide from.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ops::Deref;
use std::time::Duration;

use super::{injected::raises, session::AgentRequests};
use crate::{
    asgi::{
        event::{ConnectionState, Machine},
        exception::Exception,
        scope::ScopeType,
    },
    fault::{Fault, FaultKind},
    judge::check::Violation,
    record::{
        service::Service,
        timeline::{Facts, Timeline, is_outage},
        transcript::{Actor, Event, EventKind, Transcript},
    },
    wire::head::{RequestHead, ResponseHead},
};

/// One exchange of a transcript with its facts, as classification and checks read it. The facts come from a [`Timeline`].
#[derive(Debug)]
pub struct Exchange<'a> {
    /// Its number in the run, counted from 0.
    pub number: usize,
    /// The exchange's events, in order.
    pub events: Vec<&'a Event>,
    /// The head the client sent.
    pub request: Option<&'a RequestHead>,
    /// The head as it reached the server, when the server called the application.
    pub delivered: Option<&'a RequestHead>,
    /// The answer's head.
    pub response: Option<&'a ResponseHead>,
    /// The user a valid credential that reached the server names.
    pub user: Option<&'a str>,
    /// The critical dependencies that were down all through the exchange.
    pub down: Vec<&'a str>,
    /// The faults of the plan.
    pub faults: &'a [Fault],
    /// The knowledge about the target.
    pub service: &'a Service,
    /// The type of the app's call.
    pub called: Option<ScopeType>,
    escaped: Option<(&'a Exception, bool)>,
    facts: Cow<'a, Facts>,
    /// The agent requests, counted when they are first asked for, because that parses every message.
    pub(super) requested: OnceCell<AgentRequests>,
}

impl Deref for Exchange<'_> {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.facts
    }
}

/// Every exchange of a transcript that is looked at only once.
pub fn readings(transcript: &Transcript) -> Vec<Exchange<'_>> {
    let facts = Timeline::of(transcript).exchanges.into_iter().enumerate();
    facts.map(|(number, facts)| Exchange::new(transcript, number, Cow::Owned(facts))).collect()
}

impl<'a> Exchange<'a> {
    /// One exchange of a transcript that is looked at only once.
    pub fn of(transcript: &'a Transcript, exchange: usize) -> Exchange<'a> {
        let facts = Timeline::of(transcript).exchanges.into_iter().nth(exchange);
        Exchange::new(transcript, exchange, Cow::Owned(facts.unwrap_or_default()))
    }

    /// Every exchange of a transcript, by its timeline.
    pub fn all(transcript: &'a Transcript, timeline: &'a Timeline) -> Vec<Exchange<'a>> {
        let facts = timeline.exchanges.iter().enumerate();
        facts.map(|(number, facts)| Exchange::new(transcript, number, Cow::Borrowed(facts))).collect()
    }

    /// An exchange of a transcript, by its number and its facts.
    pub fn new(transcript: &'a Transcript, number: usize, facts: Cow<'a, Facts>) -> Exchange<'a> {
        let called = facts.called(transcript);
        let down = facts.down.iter().filter_map(|&fault| transcript.faults[fault].kind.calls());
        Exchange {
            number,
            events: facts.positions.iter().map(|&position| &transcript.events[position]).collect(),
            request: facts.request(transcript),
            delivered: called.map(|(_, head)| head),
            response: facts.response(transcript),
            user: facts.user(transcript),
            down: down.map(|calls| calls.dependency.as_str()).collect(),
            faults: &transcript.faults,
            service: facts.service(transcript),
            called: called.map(|(kind, _)| kind),
            escaped: facts.escaped(transcript),
            facts,
            requested: OnceCell::new(),
        }
    }

    /// A violation by this exchange.
    pub fn violation(&self, key: impl Into<String>, message: impl Into<String>) -> Violation {
        Violation { exchange: Some(self.number), ..Violation::of_run(key, message) }
    }

    /// The exception that left the application's call, and whether the WebSocket was accepted by then.
    pub fn escaped(&self) -> Option<(&'a Exception, bool)> {
        self.escaped
    }

    /// The faults that acted in this exchange.
    pub fn acted(&self) -> impl Iterator<Item = &'a FaultKind> + '_ {
        self.facts.acted.iter().map(|&index| &self.faults[index].kind)
    }

    /// The events, without those that the application sent and the server did not take.
    pub fn taken(&self) -> impl Iterator<Item = &'a Event> + '_ {
        let events = self.events.iter().enumerate();
        events
            .filter(|(index, event)| !matches!(event.what, EventKind::Sent(_)) || !self.is_refused(*index))
            .map(|(_, event)| *event)
    }

    /// Whether the server did not take the event at this index, which the application sent.
    fn is_refused(&self, index: usize) -> bool {
        let next = self.events[index + 1..].iter().find(|event| event.party == Actor::Application);
        next.is_some_and(|event| matches!(event.what, EventKind::CallRaised(_)))
    }

    /// The first event of a kind.
    pub(crate) fn first(&self, wanted: impl Fn(&EventKind) -> bool) -> Option<&'a Event> {
        self.events.iter().find(|event| wanted(&event.what)).copied()
    }

    /// The last event of a kind.
    pub(crate) fn last(&self, wanted: impl Fn(&EventKind) -> bool) -> Option<&'a Event> {
        self.events.iter().rfind(|event| wanted(&event.what)).copied()
    }

    /// Whether there is an event of a kind.
    pub(crate) fn has(&self, wanted: impl Fn(&EventKind) -> bool) -> bool {
        self.first(wanted).is_some()
    }

    /// How many events there are of a kind.
    pub(crate) fn count(&self, wanted: impl Fn(&EventKind) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(&event.what)).count()
    }

    /// Whether so much happened that the record leaves some of it out: nothing in it can be counted.
    pub fn is_abridged(&self) -> bool {
        self.events.iter().any(|event| matches!(event.what, EventKind::Omitted { .. }))
    }

    /// The ASGI state machine of the application's call, if there was one.
    pub fn machine(&self) -> Option<Machine> {
        self.called.map(Machine::new)
    }

    /// How long the client waited for an answer before it left.
    pub(super) fn waited(&self) -> Duration {
        let asked = self.first(|what| matches!(what, EventKind::RequestSent { .. }));
        let left = self.first(|what| matches!(what, EventKind::Left));
        let asked = asked.map_or(Duration::ZERO, |event| event.at);
        left.map_or(Duration::ZERO, |event| event.at.saturating_sub(asked))
    }

    /// Whether the server ended the exchange because it stopped.
    pub fn is_cut_short(&self) -> bool {
        self.has(|what| matches!(what, EventKind::CutShort))
    }

    /// Whether an event comes with the end of the server: a server in memory says so, and a real one got a signal before.
    pub fn is_stop(&self, event: &Event) -> bool {
        matches!(event.what, EventKind::CutShort) || self.signaled.is_some_and(|at| event.at >= at)
    }

    /// The exceptions that `send` raises on an event that ASGI allows, because the client is gone and the app has not been
    /// told. ASGI wants an `OSError` there ("Disconnected Client"); uvicorn's `websockets_sansio_impl.py` and
    /// `websockets_impl.py` raise the `RuntimeError` of an event out of order.
    pub fn refused_as_gone(&self) -> impl Iterator<Item = &'a Exception> + '_ {
        let mut machine = self.machine().filter(|_| !self.acted().any(raises));
        let (mut is_gone, mut is_allowed) = (false, false);
        self.events.iter().filter_map(move |event| {
            let machine = machine.as_mut()?;
            match &event.what {
                EventKind::Left | EventKind::LinkReset => is_gone = true,
                EventKind::FrameSent(frame) if frame.is_close() => is_gone = true,
                EventKind::Received(event) => {
                    is_allowed = false;
                    drop(machine.on_receive(event));
                }
                EventKind::Sent(event) => {
                    is_allowed = machine.state() != ConnectionState::Gone && machine.on_send(event).is_ok()
                }
                EventKind::CallRaised(raised) if is_gone && std::mem::take(&mut is_allowed) => return Some(raised),
                _ => is_allowed &= event.party != Actor::Application,
            }
            None
        })
    }

    /// Whether the server says with this exception that the client is gone.
    pub fn is_told_gone(&self, raised: &Exception) -> bool {
        raised.is_disconnect() || self.refused_as_gone().any(|refused| refused == raised)
    }

    /// Whether the application may go on for as long as it likes: behind a whole answer, where nothing is known of it.
    pub fn may_go_on(&self) -> bool {
        self.service.is_unknown() && self.has(|what| matches!(what, EventKind::BodySeen { end, .. } if end.is_whole()))
    }

    /// Whether this event is one of something that was taken away from the service.
    pub fn is_outage(&self, event: &Event) -> bool {
        let EventKind::FaultFired { index, .. } = event.what else { return false };
        self.faults.get(index).is_some_and(|fault| is_outage(fault, self.service))
    }

    /// The dependencies that failed this exchange.
    pub fn failing(&self) -> Vec<&'a str> {
        let fired = self.events.iter().filter(|event| self.is_outage(event)).filter_map(|event| match event.what {
            EventKind::FaultFired { index, .. } => self.faults.get(index)?.kind.calls(),
            _ => None,
        });
        fired.map(|calls| calls.dependency.as_str()).collect()
    }
}
