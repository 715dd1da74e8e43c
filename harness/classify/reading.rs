//! One exchange as it is read: its heads, its events, and the facts that the other files decide from.

use std::borrow::Cow;
use std::time::Duration;

use super::{outage::down, outage::had_outage, outage::most_at_once, outage::was_absent};
use crate::{
    credential::Presented,
    event::Machine,
    fault::{Fault, FaultKind},
    frame::Opcode,
    head::{RequestHead, ResponseHead},
    transcript::{BodyEnd, Event, Party, Service, Transcript, What},
};

/// One exchange, gathered once for classification and checks alike.
#[derive(Debug)]
pub struct Reading<'a> {
    /// The exchange's events, in order.
    pub events: Vec<&'a Event>,
    /// The head the probe sent.
    pub request: Option<&'a RequestHead>,
    /// The head as it reached the server, when the server called the application.
    pub delivered: Option<&'a RequestHead>,
    /// The head as it left the edge, where nothing is known of the inside.
    pub passed_on: Option<Cow<'a, RequestHead>>,
    /// The answer's head.
    pub response: Option<&'a ResponseHead>,
    /// The user a valid credential that reached the server names.
    pub user: Option<&'a str>,
    /// The welcome's `user_id`, when a welcome came.
    pub welcome: Option<String>,
    /// The user an agent event was for, when that is another one than the session's.
    pub foreign_user: Option<String>,
    /// The `type` of every text message the probe read; empty for one that has none.
    pub messages: Vec<Cow<'a, str>>,
    /// Whether something behind the service was failing during the exchange, or had failed shortly before.
    pub outage: bool,
    /// Whether the process was kept away when the client wanted to connect.
    pub absent: bool,
    /// True when the case may exceed a user's own service's limit of connections; any refusal is then acceptable.
    pub is_crowded: bool,
    /// The critical dependencies that were down all through the exchange.
    pub down: Vec<&'a str>,
    /// The faults of the plan.
    pub faults: &'a [Fault],
    /// The knowledge about the target.
    pub service: &'a Service,
}

impl<'a> Reading<'a> {
    /// Gathers one exchange.
    pub fn of(transcript: &'a Transcript, exchange: usize) -> Reading<'a> {
        let asked = transcript.of(exchange).find_map(|event| match &event.what {
            What::RequestSent { head, .. } => Some(head.path_and_query().0),
            _ => None,
        });
        let service = &transcript.service;
        let mut reading = Reading {
            events: transcript.of(exchange).collect(),
            request: None,
            delivered: None,
            passed_on: None,
            response: None,
            user: None,
            welcome: None,
            foreign_user: None,
            messages: Vec::new(),
            outage: had_outage(transcript, exchange),
            absent: was_absent(transcript, exchange),
            is_crowded: service.is_foreign()
                && service.connections_max > 0
                && most_at_once(transcript) > service.connections_max,
            down: down(transcript, exchange),
            faults: &transcript.faults,
            service: asked.map_or(service, |path| service.at(&path)),
        };
        let mut credential = None;
        let mut tampered = false;
        for event in transcript.of(exchange) {
            match &event.what {
                What::RequestSent { head, credential: presented } => {
                    reading.request = Some(head);
                    credential = Some(presented);
                }
                What::Called { head, .. } => drop(reading.delivered.get_or_insert(head)),
                What::FaultFired { index, .. } if event.party == Party::Edge => {
                    tampered |= matches!(transcript.faults[*index].kind, FaultKind::Head(_));
                }
                What::ResponseSeen(head) => reading.response = Some(head),
                What::FrameSeen(frame) if frame.opcode == Opcode::Text && frame.is_final => reading.take_message(frame),
                What::MessageSeen(frame) if frame.opcode == Opcode::Text => reading.take_message(frame),
                _ => {}
            }
        }
        reading.passed_on = reading.request.filter(|_| reading.service.is_opaque()).map(|head| reading.edited(head));
        // The head that the app got, or, where it was not called and the request was not rewritten, the one that was sent.
        let arrived = match &reading.passed_on {
            Some(head) => Some(head.as_ref()),
            None => reading.delivered.or(reading.request.filter(|_| !tampered)),
        };
        let is_public = reading.service.is_public;
        let valid = |credential: &&Presented| {
            is_public || credential.is_valid() && arrived.is_some_and(|head| credential.is_in(head))
        };
        let user = credential.filter(valid).map(|credential| credential.subject.as_str());
        reading.user = user;
        reading.foreign_user = reading.find_foreign_user();
        reading
    }

    /// The faults that acted in this exchange.
    pub fn acted(&self) -> impl Iterator<Item = &'a FaultKind> + '_ {
        self.events.iter().filter_map(|event| match event.what {
            What::FaultFired { index, .. } => self.faults.get(index).map(|fault| &fault.kind),
            _ => None,
        })
    }

    /// The events, without those that the application sent and the server did not take.
    pub fn taken(&self) -> impl Iterator<Item = &'a Event> + '_ {
        let refused = |index: usize| {
            let next = self.events[index + 1..].iter().find(|event| event.party == Party::Application);
            next.is_some_and(|event| matches!(event.what, What::CallRaised(_)))
        };
        let is_taken =
            move |(index, event): &(usize, &&Event)| !(matches!(event.what, What::Sent(_)) && refused(*index));
        self.events.iter().enumerate().filter(is_taken).map(|(_, event)| *event)
    }

    /// The ASGI state machine of the application's call, if there was one.
    pub fn machine(&self) -> Option<Machine> {
        self.events.iter().find_map(|event| match event.what {
            What::Called { kind, .. } => Some(Machine::new(kind)),
            _ => None,
        })
    }

    /// How long the client waited for an answer before it left.
    pub(super) fn waited(&self) -> Duration {
        let when =
            |wanted: fn(&What) -> bool| self.events.iter().find(|event| wanted(&event.what)).map(|event| event.at);
        let asked = when(|what| matches!(what, What::RequestSent { .. })).unwrap_or_default();
        when(|what| *what == What::Left).unwrap_or_default().saturating_sub(asked)
    }

    /// Whether the server ended the exchange because it stopped.
    pub fn is_cut_short(&self) -> bool {
        self.events.iter().any(|event| event.what == What::CutShort)
    }

    /// Whether the application may go on for as long as it likes: behind a whole answer, where nothing is known of it.
    pub fn may_go_on(&self) -> bool {
        let is_whole = |event: &Event| match &event.what {
            What::BodySeen { end, .. } => matches!(end, BodyEnd::Complete | BodyEnd::None),
            _ => false,
        };
        self.service.is_unknown() && self.events.iter().any(|event| is_whole(event))
    }
}
