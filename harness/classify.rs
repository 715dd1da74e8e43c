//! Derives from a transcript how an exchange ended, which class that is, and what brought it about.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use memchr::memmem::Finder;
use serde::Deserialize;

use crate::{
    cause::Cause,
    close_code::CloseCode,
    credential::Presented,
    event::{Inbound, Machine, Outbound, State},
    exception::Exception,
    fault::{
        AnswerEdit, CallFault, ConnectionFault, EventFault, Fault, FaultKind, FrameFault, HeadEdit, Place,
        ProcessFault, ScopeEdit, StreamFault, setting::Count,
    },
    frame::{Frame, Opcode},
    head::{RequestHead, ResponseHead, has_token, header},
    message::message_type,
    outcome::{Class, Ending, Outcome},
    scope::{ScopeType, keys},
    transcript::{BodyEnd, Event, PROCESS, Party, Service, Transcript, What, Words},
};

/// What one exchange showed, gathered once and read by classification and checks alike.
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
    /// Whether there may be more connections than a service that is not ours lets a user have, which refuses them as it likes.
    pub is_crowded: bool,
    /// When a case sent the server a signal that ended it, or ends every server, if it did before the exchange was over.
    signaled: Option<Duration>,
    /// What is critical and was down all through the exchange.
    pub down: Vec<&'a str>,
    /// The faults of the plan.
    pub faults: &'a [Fault],
    /// What is known of the target.
    pub service: &'a Service,
}

/// How many characters of the user's name a welcome shows.
const WELCOME_USER_CHARACTERS: usize = 8;

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
            signaled: signaled(transcript, exchange),
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
        // What the application got, or, where it was not called and nobody rewrote the request, what was sent.
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

    /// A head as the edge left it.
    fn edited(&self, head: &'a RequestHead) -> Cow<'a, RequestHead> {
        let mut edited = Cow::Borrowed(head);
        for event in self.events.iter().filter(|event| event.party == Party::Edge) {
            let What::FaultFired { index, .. } = event.what else { continue };
            if let Some(FaultKind::Head(edit)) = self.faults.get(index).map(|fault| &fault.kind) {
                edit.apply(edited.to_mut());
            }
        }
        edited
    }

    fn take_message(&mut self, frame: &'a Frame) {
        let name = message_type(&frame.payload).unwrap_or_default();
        if self.welcome.is_none() && self.service.words.welcomes.contains(&name.as_ref()) {
            self.welcome = Some(serde_json::from_slice::<Welcome>(&frame.payload).unwrap_or_default().data.user_id);
        }
        self.messages.push(name);
    }

    /// Whether the application may go on for as long as it likes: behind a whole answer, where nothing is known of it.
    pub fn may_go_on(&self) -> bool {
        let is_whole = |event: &Event| match &event.what {
            What::BodySeen { end, .. } => matches!(end, BodyEnd::Complete | BodyEnd::None),
            _ => false,
        };
        self.service.is_unknown() && self.events.iter().any(|event| is_whole(event))
    }

    /// Whether the client asked for a WebSocket. A request that the server took for a plain one did not: a server may
    /// ignore an upgrade that is not asked for in full (RFC 9110 section 7.8).
    pub fn asked_for_upgrade(&self) -> bool {
        if let Some(head) = &self.passed_on {
            let is_whole =
                ["sec-websocket-key", "sec-websocket-version"].iter().all(|name| header(&head.headers, name).is_some());
            return is_whole
                && has_token(&head.headers, "upgrade", "websocket")
                && has_token(&head.headers, "connection", "upgrade");
        }
        let plain = |event: &&Event| matches!(event.what, What::Called { kind: ScopeType::Http, .. });
        let asked = self.request.is_some_and(|head| has_token(&head.headers, "upgrade", "websocket"));
        asked && !self.events.iter().any(plain)
    }

    /// Whether the welcome names the user whose credential reached the server.
    pub fn is_welcomed_as_itself(&self) -> bool {
        match (&self.welcome, self.user) {
            (Some(_), Some(_)) if !self.service.words.name_user => true,
            (Some(name), Some(user)) => {
                let start: String = user.chars().take(WELCOME_USER_CHARACTERS).collect();
                *name == user || *name == start + "..."
            }
            _ => false,
        }
    }

    fn is_agent_request(&self, what: &What) -> bool {
        let What::FrameSent(frame) = what else { return false };
        let requests = self.service.words.requests;
        // Where requests have no type, whatever the client says is one, as long as anything is known to answer it.
        let is_typeless = self.service.is_opaque() && requests.is_empty() && !self.service.words.events.is_empty();
        let is_one = || message_type(&frame.payload).is_some_and(|name| requests.contains(&name.as_ref()));
        // How long a request may be is a rule of whoever is asked.
        let is_usual = !self.service.is_foreign() || frame.payload.len() <= LARGE_BYTES;
        frame.opcode == Opcode::Text && is_usual && (is_typeless || is_one())
    }

    /// How long a request was that is longer than usual, and was neither answered nor refused although the client waited and
    /// nothing kept anything back.
    pub fn ignored_request(&self) -> Option<usize> {
        let is_kept_back = || self.acted().any(|kind| effect(kind) != Effect::None || takes_time(kind));
        if !self.service.is_foreign() || self.service.words.events.is_empty() || is_kept_back() {
            return None;
        }
        self.events.iter().enumerate().find_map(|(index, event)| {
            let What::FrameSent(frame) = &event.what else { return None };
            let says = |frame: &Frame| matches!(frame.opcode, Opcode::Text | Opcode::Binary | Opcode::Close);
            let is_large = frame.opcode == Opcode::Text && frame.payload.len() > LARGE_BYTES;
            let names_one = || {
                message_type(&frame.payload).is_some_and(|name| self.service.words.requests.contains(&name.as_ref()))
            };
            // What the client did next, or was answered.
            let next = self.events[index + 1..].iter().find(|event| match &event.what {
                What::FrameSent(frame) | What::FrameSeen(frame) | What::MessageSeen(frame) => says(frame),
                what => matches!(what, What::Left | What::EndSeen | What::BadFrameSeen(_)),
            })?;
            let is_next_sent = matches!(next.what, What::FrameSent(_) | What::Left);
            let is_ignored = is_next_sent && next.at.saturating_sub(event.at) >= LARGE_PATIENCE;
            (is_large && is_ignored && names_one()).then_some(frame.payload.len())
        })
    }

    /// Whether the client said anything that is no request as its binding has it.
    pub fn says_something_else(&self) -> bool {
        let is_message = |frame: &Frame| matches!(frame.opcode, Opcode::Text | Opcode::Binary);
        self.events.iter().any(|event| match &event.what {
            What::FrameSent(frame) => is_message(frame) && !self.is_agent_request(&event.what),
            _ => false,
        })
    }

    /// How many agent runs the client asked for.
    pub fn agent_requests(&self) -> usize {
        self.events.iter().filter(|event| self.is_agent_request(&event.what)).count()
    }

    /// How many agent runs the client is to see: as many as it asked for and waited for, less those of which it was told
    /// that something behind the service had failed.
    pub fn agent_runs_owed(&self) -> usize {
        let asked = self.agent_requests() - self.agent_requests_given_up();
        let told = self.messages.iter().filter(|name| name.starts_with("error")).count();
        if self.outage { asked.saturating_sub(told) } else { asked }
    }

    /// How many agent requests the client turned away from before anything could be expected of them.
    fn agent_requests_given_up(&self) -> usize {
        // They are answered one after the other, in the order in which they were sent.
        let mut waiting: VecDeque<Duration> = VecDeque::new();
        let (mut given_up, mut is_let_go, mut answered) = (0, false, Duration::ZERO);
        for event in &self.events {
            match &event.what {
                what if self.is_agent_request(what) && is_let_go => given_up += 1,
                what if self.is_agent_request(what) => waiting.push_back(event.at),
                // Who closes, leaves or reads no more has turned away.
                What::FrameSent(Frame { opcode: Opcode::Close, .. }) | What::Left | What::StoppedReading => {
                    let since = |asked: Duration| event.at.saturating_sub(asked.max(answered));
                    given_up += waiting.drain(..).filter(|asked| since(*asked) < PATIENCE).count();
                }
                What::FrameSent(frame) => {
                    is_let_go |= message_type(&frame.payload).is_some_and(|name| name == "disconnect")
                }
                // Nobody is left who could answer.
                What::CutShort => {
                    given_up += waiting.drain(..).count();
                    is_let_go = true;
                }
                // Who is told that something failed is told so for everything that still waits.
                What::FrameSeen(frame) if self.outage && says_not_ready(frame) => given_up += waiting.drain(..).count(),
                What::FrameSeen(Frame { opcode: Opcode::Close, .. }) | What::DeadlinePassed { .. } => waiting.clear(),
                What::FrameSeen(frame) if frame.opcode == Opcode::Text => {
                    let last = self.service.words.events.last();
                    let ends_it = |name: Cow<'_, str>| Some(&name.as_ref()) == last || name.starts_with("error");
                    if message_type(&frame.payload).is_some_and(ends_it) {
                        waiting.pop_front();
                        answered = event.at;
                    }
                }
                _ => {}
            }
        }
        given_up
    }

    /// How many whole agent runs the client saw: the five events once each and in order. An outage may cut the last one
    /// short.
    pub fn agent_runs(&self) -> usize {
        let (events, whole) = (self.agent_events(), self.service.words.events);
        let runs = events.chunks(whole.len().max(1));
        let may_be_cut = self.outage || self.agent_requests_given_up() > 0;
        let is_run = |run: &&[&str]| *run == whole || (may_be_cut && whole.starts_with(run));
        if runs.clone().all(|run| is_run(&run)) { events.len() / whole.len().max(1) } else { 0 }
    }

    /// The agent events the client saw, in order.
    pub fn agent_events(&self) -> Vec<&str> {
        self.messages.iter().map(Cow::as_ref).filter(|name| self.service.words.events.contains(name)).collect()
    }

    fn find_foreign_user(&self) -> Option<String> {
        let words = &self.service.words;
        if !words.name_user || !self.messages.iter().any(|name| words.events.contains(&name.as_ref())) {
            return None;
        }
        let user = self.user.unwrap_or_default();
        let mine = format!("\"user_id\":\"{user}\"");
        let mine = Finder::new(&mine);
        self.events.iter().find_map(|event| match &event.what {
            What::FrameSeen(frame) if frame.opcode == Opcode::Text && mine.find(&frame.payload).is_none() => {
                addressee(&frame.payload, words).filter(|found| found != user)
            }
            _ => None,
        })
    }

    /// The exception that left the application's call, and whether the WebSocket was accepted by then.
    pub fn escaped(&self) -> Option<(&'a Exception, bool)> {
        let (mut accepted, mut pending) = (false, false);
        for event in &self.events {
            match &event.what {
                // What a framework answers to an exception before it lets it through accepts nothing.
                What::Sent(Outbound::ResponseStart { status: 500, .. }) => {}
                What::Sent(Outbound::WebsocketAccept { .. } | Outbound::ResponseStart { .. }) => {
                    pending = !accepted;
                    accepted = true;
                }
                // The server did not take it.
                What::CallRaised(_) if pending => accepted = false,
                What::Sent(_) => pending = false,
                What::Raised(exception) => return Some((exception, accepted)),
                _ => {}
            }
        }
        None
    }

    /// How the exchange ended and what that means.
    pub fn outcome(&self) -> Outcome {
        let ending = self.ending();
        let cause = self.cause(&ending);
        let class = self.class(&ending, cause);
        let closed_by = self.closed_by(&ending, cause);
        if cause == Cause::Shutdown && !class.is_good() && class != Class::BadOpen {
            return Outcome { class: Class::Unclean, cause, closed_by, ending };
        }
        if !class.is_good() && class != Class::BadOpen && self.is_broken_by_fault(&ending, cause) {
            return Outcome { class: Class::Unclean, cause: Cause::Injected, closed_by, ending };
        }
        Outcome { class, cause, closed_by, ending }
    }

    /// The faults that acted in this exchange.
    pub fn acted(&self) -> impl Iterator<Item = &'a FaultKind> + '_ {
        self.events.iter().filter_map(|event| match event.what {
            What::FaultFired { index, .. } => self.faults.get(index).map(|fault| &fault.kind),
            _ => None,
        })
    }

    /// Whether what was injected between client and server, or between server and application, changed what either of
    /// them got to see, so that what the client saw is not the service's alone.
    pub fn is_distorted(&self) -> bool {
        self.acted().any(|kind| effect(kind) == Effect::Distorts)
    }

    /// Whether the server did to the application what the specification forbids.
    pub fn is_abused(&self) -> bool {
        self.acted().any(|kind| matches!(kind, FaultKind::Event { events, fault } if !fault.legality(events).is_legal))
    }

    /// Whether anything acted on what the application received and sent.
    pub fn has_event_faults(&self) -> bool {
        self.acted().any(|kind| matches!(kind, FaultKind::Event { .. }))
    }

    /// Whether the application is kept from ever learning that its client is gone, or learns it very late.
    pub fn is_held(&self) -> bool {
        self.acted().any(|kind| match kind {
            FaultKind::Event { events, fault } => match fault {
                EventFault::ReceiveHangs {} | EventFault::SendHangs {} => true,
                EventFault::Drop {} => events.include("websocket.disconnect") || events.include("http.disconnect"),
                EventFault::SendDelays { delay } => delay.0 > PATIENCE,
                _ => false,
            },
            FaultKind::Stream { fault: StreamFault::Throttle { rate }, .. } => rate.0 < HELD_BYTES_PER_S,
            _ => false,
        })
    }

    /// Whether a bad ending is the doing of what was injected, and not the service's.
    fn is_broken_by_fault(&self, ending: &Ending, cause: Cause) -> bool {
        let (mut on_wire, mut on_answer, mut on_events, mut slows, mut spoils) = (false, false, false, false, false);
        for kind in self.acted() {
            let effect = effect(kind);
            slows |= effect == Effect::Slows || self.is_too_long_for(kind);
            match kind {
                _ if effect != Effect::Distorts => {}
                FaultKind::Answer(_) | FaultKind::Connection(_) => (on_wire, on_answer) = (true, true),
                FaultKind::Event { .. } => on_events = true,
                _ => on_wire = true,
            }
            // What ends the head early leaves the rest of it to be taken for another request.
            spoils |= matches!(kind, FaultKind::Head(HeadEdit::Fold { .. } | HeadEdit::Truncate { .. }));
        }
        // An answer that the application did not give.
        let is_servers_own = |status: u16| {
            let gives = |what: &What| matches!(what, What::Sent(Outbound::ResponseStart { status: sent, .. }) if *sent == status);
            !self.taken().any(|event| gives(&event.what))
        };
        // Who leaves so soon cannot have waited for what is only a little late.
        let is_impatient = self.response.is_none() && self.waited() <= NOTICED && self.acted().any(takes_time);
        // An upgrade is a GET (RFC 6455 section 4.1); whoever else asks for one may never be answered.
        let is_no_upgrade = self.asked_for_upgrade()
            && self.machine().is_none()
            && self.acted().any(|kind| matches!(kind, FaultKind::Head(HeadEdit::Method { .. })));
        match (cause, ending) {
            (_, Ending::Left) if is_impatient => true,
            (_, Ending::Hang { .. } | Ending::Left) if is_no_upgrade => true,
            // What the answer was made of was another key, or other offers.
            (_, Ending::BadHandshake { .. }) if self.acted().any(rewrites_handshake) => true,
            (Cause::CrashBeforeAccept | Cause::CrashAfterAccept, _) => self.is_escape_injected(),
            (Cause::AppChose1011, _) => self.is_abused(),
            (Cause::Abandoned, _) => self.is_abused(),
            // Time alone explains what came too late, or was not waited for.
            (Cause::Keepalive, _)
            | (_, Ending::Hang { .. } | Ending::Silence { .. } | Ending::Left | Ending::Parted { .. }) => {
                on_wire || on_events || slows
            }
            // uvicorn's `websockets_impl.py` sends a denial response as far as it has come when the application waits.
            (_, Ending::Http { complete: false, .. }) if self.asked_for_upgrade() && self.acted().any(delays_send) => {
                true
            }
            (Cause::Server, _) => on_wire || spoils,
            (_, Ending::Http { complete: true, status }) => {
                on_answer || self.is_abused() || (on_events && is_servers_own(*status))
            }
            _ => on_wire || on_events,
        }
    }

    /// Whether what the client said takes so long at the rate of a fault that everything behind it comes too late.
    fn is_too_long_for(&self, kind: &FaultKind) -> bool {
        let FaultKind::Stream { fault: StreamFault::Throttle { rate }, .. } = kind else { return false };
        let sent = self.events.iter().filter_map(|event| match &event.what {
            What::FrameSent(frame) => Some(frame.payload.len()),
            _ => None,
        });
        sent.max().is_some_and(|bytes| bytes as f64 / rate.0 as f64 >= PATIENCE.as_secs_f64())
    }

    /// Whether the exception that left the application follows from what the server did to it, or is one that the
    /// specification asks for.
    pub fn is_escape_injected(&self) -> bool {
        let Some((escaped, _)) = self.escaped() else { return false };
        let follows = |kind: &FaultKind| match kind {
            // Frameworks make other exceptions of a cancellation (Starlette's `RuntimeError: No response returned.`).
            FaultKind::Event { fault: EventFault::Cancel {}, .. } => {
                escaped.is_cancellation() || self.service.is_foreign()
            }
            // An application raises on a type of scope that it does not know (ASGI, Applications).
            FaultKind::Scope(ScopeEdit::Drop { key } | ScopeEdit::Set { key, .. }) => key == "type",
            _ => false,
        };
        self.is_raised_by_stop(escaped) || self.is_passed_on(escaped) || self.is_abused() || self.acted().any(follows)
    }

    /// Whether an exception only passes on that the client is gone, which the server itself had told the application: as
    /// `send` raised it, or in the framework's own word for that. Servers are to catch it (ASGI, "Disconnected Client").
    fn is_passed_on(&self, exception: &Exception) -> bool {
        let tells = |event: &&Event| match &event.what {
            What::CallRaised(raised) => raised.is_disconnect(),
            // Of a request there is nothing left to answer.
            What::Received(Inbound::HttpDisconnect) => exception.is_broken_off(),
            _ => false,
        };
        let is_word_for_it = exception.is_disconnect() || exception.is_broken_off();
        is_word_for_it && self.events.iter().any(tells) || self.refused_as_gone().any(|raised| raised == exception)
    }

    /// The exceptions that `send` raises on an event that ASGI allows, because the client is gone and the application has
    /// not been told. ASGI wants an `OSError` there ("Disconnected Client"); uvicorn's `websockets_sansio_impl.py` and
    /// `websockets_impl.py` raise the `RuntimeError` of an event out of order.
    pub fn refused_as_gone(&self) -> impl Iterator<Item = &'a Exception> + '_ {
        let mut machine = self.machine().filter(|_| !self.acted().any(raises));
        let (mut is_gone, mut is_allowed) = (false, false);
        self.events.iter().filter_map(move |event| {
            let machine = machine.as_mut()?;
            match &event.what {
                What::Left | What::LinkReset => is_gone = true,
                What::FrameSent(frame) if frame.opcode == Opcode::Close => is_gone = true,
                What::Received(event) => {
                    is_allowed = false;
                    drop(machine.on_receive(event));
                }
                What::Sent(event) => is_allowed = machine.state() != State::Gone && machine.on_send(event).is_ok(),
                What::CallRaised(raised) if is_gone && std::mem::take(&mut is_allowed) => return Some(raised),
                _ => is_allowed &= event.party != Party::Application,
            }
            None
        })
    }

    /// Whether the server says with this exception that the client is gone.
    pub fn is_told_gone(&self, raised: &Exception) -> bool {
        raised.is_disconnect() || self.refused_as_gone().any(|refused| refused == raised)
    }

    /// Whether an exception is what a server that stops raises in the application: a cancellation, or from `send` what
    /// the specification does not provide for (it provides for an `OSError`, which an application can deal with).
    fn is_raised_by_stop(&self, exception: &Exception) -> bool {
        let mut after = self.events.iter().skip_while(|event| !self.is_stop(event));
        let is_raised = |event: &&Event| match &event.what {
            What::CallRaised(raised) => raised == exception && !raised.is_disconnect(),
            _ => false,
        };
        after.next().is_some() && (exception.is_cancellation() || after.any(is_raised))
    }

    fn ending(&self) -> Ending {
        let not_started = self.events.iter().find_map(|event| match &event.what {
            What::NotStarted { why, .. } => Some(why.clone()),
            _ => None,
        });
        if let Some(why) = not_started {
            return Ending::NotStarted { why };
        }
        let mut probe_closed = None;
        for (index, event) in self.events.iter().enumerate() {
            match &event.what {
                What::ResponseSeen(head) if head.status != 101 => return self.http_ending(head.status, index),
                What::HandshakeRefused { why } => return Ending::BadHandshake { why: why.clone() },
                What::BadHeadSeen { .. } | What::BadFrameSeen(_) | What::EndSeen => return Ending::Drop,
                What::DeadlinePassed { waiting_for, .. } => {
                    // A pong or a close may be the server's; a message is the application's.
                    let is_message = |frame: &Frame| matches!(frame.opcode, Opcode::Text | Opcode::Binary);
                    let lives_on = self.events[index..]
                        .iter()
                        .any(|event| matches!(&event.what, What::FrameSeen(frame) if is_message(frame)));
                    let waiting_for = waiting_for.clone();
                    return if lives_on { Ending::Silence { waiting_for } } else { Ending::Hang { waiting_for } };
                }
                What::FrameSent(frame) if frame.opcode == Opcode::Close => probe_closed = Some(frame.close_parts().0),
                What::FrameSeen(frame) if frame.opcode == Opcode::Close && frame.verify().is_ok() => {
                    let (code, reason) = frame.close_parts();
                    // An answer repeats the code, or says nothing in particular; anything else crossed it on the way.
                    let is_answer = |sent| code == sent || code.is_none_or(|code| code == CloseCode::NORMAL);
                    let is_answer = probe_closed.is_some_and(is_answer) && reason.is_empty();
                    return if is_answer { Ending::Parted { code } } else { Ending::Close { code, reason } };
                }
                What::Left => return Ending::Left,
                _ => {}
            }
        }
        let refused = self.events.iter().any(|event| event.what == What::ConnectionRefused);
        if refused && self.request.is_none() { Ending::Refused } else { Ending::Drop }
    }

    fn http_ending(&self, status: u16, from: usize) -> Ending {
        for event in &self.events[from..] {
            match &event.what {
                What::BodySeen { end: BodyEnd::Complete | BodyEnd::None, .. } => {
                    return Ending::Http { status, complete: true };
                }
                // Who has seen enough of an answer without end goes.
                What::Left => return Ending::Left,
                What::DeadlinePassed { .. } if self.is_stream() => return Ending::Left,
                What::DeadlinePassed { waiting_for, .. } => {
                    return Ending::Hang { waiting_for: waiting_for.clone() };
                }
                _ => {}
            }
        }
        Ending::Http { status, complete: false }
    }

    /// Whether a service that is not ours answers with pieces of which nobody knows how many are to come.
    fn is_stream(&self) -> bool {
        let begins = |event: &Event| matches!(&event.what, What::BodySeen { body, .. } if !body.is_empty());
        let is_endless = |head: &ResponseHead| header(&head.headers, "content-length").is_none();
        self.service.is_foreign()
            && self.response.is_some_and(is_endless)
            && self.events.iter().any(|event| begins(event))
    }

    fn cause(&self, ending: &Ending) -> Cause {
        let has = |wanted: fn(&What) -> bool| self.events.iter().any(|event| wanted(&event.what));
        if has(|what| matches!(what, What::KeepaliveExpired)) {
            return Cause::Keepalive;
        }
        if self.is_cut_short() || self.is_cut_off_by_signal(ending) {
            return Cause::Shutdown;
        }
        match self.escaped().filter(|_| !self.is_raised_too_late(ending)) {
            Some((_, false)) => return Cause::CrashBeforeAccept,
            Some((_, true)) => return Cause::CrashAfterAccept,
            None => {}
        }
        if has(|what| matches!(what, What::RequestRefused { .. })) || self.is_refused_by_real_server() {
            return Cause::Server;
        }
        if has(|what| matches!(what, What::Sent(Outbound::WebsocketClose { code: 1011, .. }))) {
            return Cause::AppChose1011;
        }
        if self.was_abandoned() {
            return Cause::Abandoned;
        }
        match ending {
            Ending::BadHandshake { .. } | Ending::Http { complete: false, .. } => Cause::Protocol,
            Ending::Close { code: Some(code), .. } if !code.is_sendable() => Cause::Protocol,
            Ending::Http { status: 200..=299, .. } | Ending::Parted { .. } | Ending::Left => Cause::Clean,
            Ending::Close { code: Some(CloseCode::NORMAL), .. } if self.welcome.is_some() => Cause::Clean,
            // What failed inside cannot be seen from outside; the server's kind may tell.
            Ending::Http { status: 500.., .. } | Ending::Close { code: Some(CloseCode::INTERNAL), .. }
                if self.service.is_opaque() =>
            {
                Cause::Unknown
            }
            // A server whose application lives on says so of its own accord in one place.
            Ending::Close { code: Some(CloseCode::INTERNAL), .. } if self.service.is_served() => Cause::Keepalive,
            Ending::Http { .. } | Ending::Close { .. } | Ending::Silence { .. } => Cause::Policy,
            Ending::Hang { .. } => Cause::Hang,
            Ending::Drop if has(|what| matches!(what, What::BadFrameSeen(_) | What::BadHeadSeen { .. })) => {
                Cause::Protocol
            }
            Ending::Drop => Cause::Unknown,
            Ending::Refused | Ending::NotStarted { .. } => Cause::NoListener,
        }
    }

    /// Whether the client had already waited in vain when an exception left the application, so that the exception does not
    /// explain the wait.
    fn is_raised_too_late(&self, ending: &Ending) -> bool {
        let first =
            self.events.iter().find(|event| matches!(event.what, What::Raised(_) | What::DeadlinePassed { .. }));
        let is_in_vain = matches!(ending, Ending::Hang { .. } | Ending::Silence { .. });
        is_in_vain && first.is_some_and(|event| matches!(event.what, What::DeadlinePassed { .. }))
    }

    /// Whether a real server answered, and neither called the application nor was spared the answer by the edge.
    fn is_refused_by_real_server(&self) -> bool {
        let is_answered = self.response.is_some_and(|head| head.status != 101);
        let answers = |kind: &FaultKind| matches!(kind, FaultKind::Answer(_) | FaultKind::Connection(_));
        self.service.is_served() && is_answered && self.machine().is_none() && !self.acted().any(answers)
    }

    /// Whether the application returned and left the client waiting.
    fn was_abandoned(&self) -> bool {
        let Some(mut machine) = self.machine() else { return false };
        for event in self.taken() {
            match &event.what {
                What::Sent(event) => drop(machine.on_send(event)),
                What::Received(event) => drop(machine.on_receive(event)),
                What::CallRaised(exception) if self.is_told_gone(exception) => machine.lose(),
                What::Returned => return machine.on_return().is_err(),
                // What happens behind the back of a client that has given up is no reason for it.
                What::DeadlinePassed { .. } => return false,
                _ => {}
            }
        }
        false
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

    fn class(&self, ending: &Ending, cause: Cause) -> Class {
        let crashed = matches!(cause, Cause::CrashBeforeAccept | Cause::CrashAfterAccept | Cause::Abandoned);
        if self.welcome.is_some() && !self.is_welcomed_as_itself() || self.foreign_user.is_some() {
            return Class::BadOpen;
        }
        match ending {
            Ending::Hang { .. } => Class::BadHang,
            Ending::Silence { .. } => Class::BadSilent,
            Ending::Drop | Ending::BadHandshake { .. } | Ending::Http { complete: false, .. } => Class::BadDrop,
            Ending::Http { status, .. } => self.class_of_status(*status, crashed),
            Ending::Close { code: Some(code), reason } => self.class_of_close(*code, reason, crashed),
            Ending::Close { code: None, .. } if crashed => Class::BadMask,
            Ending::Close { code: None, .. } => self.class_of_session(),
            // A client that is impatient while something is slow has nothing to complain of.
            Ending::Left if self.response.is_none() && self.is_slowed_down() && self.waited() <= PATIENCE => {
                Class::GoodNotReady
            }
            // Nobody knows how long an application may take that is not ours.
            Ending::Left if self.response.is_none() && self.service.is_foreign() => Class::GoodNotReady,
            Ending::Left if self.response.is_none() => Class::BadHang,
            Ending::Parted { .. } | Ending::Left => self.class_of_session(),
            Ending::Refused if self.absent || self.signaled.is_some() => Class::GoodNotReady,
            Ending::Refused | Ending::NotStarted { .. } => Class::BadServer,
        }
    }

    /// Whether anything behind the service kept it waiting.
    fn is_slowed_down(&self) -> bool {
        self.outage || self.acted().any(|kind| matches!(kind, FaultKind::Call { .. }))
    }

    /// How long the client waited for an answer before it left.
    fn waited(&self) -> Duration {
        let when =
            |wanted: fn(&What) -> bool| self.events.iter().find(|event| wanted(&event.what)).map(|event| event.at);
        let asked = when(|what| matches!(what, What::RequestSent { .. })).unwrap_or_default();
        when(|what| *what == What::Left).unwrap_or_default().saturating_sub(asked)
    }

    /// The status that the application would have refused an upgrade with, had the server let it: the code of its
    /// close before the accept, less 4000. Only a client's own fault can be told so; an outage is not to look like one.
    fn meant_status(&self) -> Option<u16> {
        self.events.iter().find_map(|event| match event.what {
            What::Sent(Outbound::WebsocketAccept { .. }) => Some(None),
            What::Sent(Outbound::WebsocketClose { code: code @ 4400..=4499, .. }) => Some(Some(code - 4000)),
            _ => None,
        })?
    }

    fn class_of_status(&self, status: u16, crashed: bool) -> Class {
        // Without denial responses a server says 403 whatever is meant.
        let meant = if status == 403 { self.meant_status() } else { None };
        let status = meant.unwrap_or(status);
        // A close before the accept has no place for a header either.
        let retry_after =
            meant.is_some() || self.response.is_some_and(|head| header(&head.headers, "retry-after").is_some());
        match status {
            200..=299 if !self.asked_for_upgrade() && !crashed => self.class_of_success(),
            500 | 502 | 504 => Class::BadServer,
            503 if !retry_after => Class::BadServer,
            503 if self.outage => Class::GoodNotReady,
            // A refusal must have its reason in what the client did.
            401 | 403 if (self.user.is_none() || self.may_have_lost_credential()) && !crashed => Class::GoodAuthRefusal,
            // ASGI servers answer 403 where an application that has no such path closes before it accepts.
            403 if self.service.is_foreign() && !crashed && !self.is_faultless() => Class::GoodBadRequest,
            400 | 404 | 405 | 413 | 426 | 431 if !crashed && !self.is_faultless() => Class::GoodBadRequest,
            429 if retry_after && !crashed => Class::GoodBadRequest,
            // What a service that is not ours has against a request is its own rule.
            300..=499 | 501 if self.service.is_foreign() && !crashed && !self.is_faultless() => Class::GoodBadRequest,
            _ => Class::BadMask,
        }
    }

    /// The class of a plain request that is answered with success.
    fn class_of_success(&self) -> Class {
        if self.is_protected() && self.user.is_none() {
            Class::BadOpen
        } else if self.asks_for_health() && !self.down.is_empty() {
            Class::BadMask
        } else {
            Class::GoodOpen
        }
    }

    /// Whether the client itself did something wrong: no valid credential where one is needed, or a request that deserves
    /// a complaint.
    pub fn is_client_at_fault(&self) -> bool {
        let misses_credential = self.is_protected() && self.user.is_none();
        let is_malformed = self.is_scope_faulted() || (self.is_websocket() && !self.is_faultless());
        self.delivered.is_some() && (is_malformed || misses_credential)
    }

    /// Whether the request reads a health route.
    pub fn asks_for_health(&self) -> bool {
        let Some(head) = self.request.filter(|head| matches!(head.method.as_str(), "GET" | "HEAD")) else {
            return false;
        };
        let (path, _) = head.path_and_query();
        self.service.health_paths.iter().any(|known| path == known.as_bytes())
    }

    /// Whether only a user may make this plain request.
    fn is_protected(&self) -> bool {
        let is_plain = !self.is_websocket() && !self.is_scope_rewritten();
        let Some(head) = self.delivered.or(self.request).filter(|_| is_plain) else { return false };
        let (path, _) = head.path_and_query();
        let is_it = |(method, known): &(&str, &str)| head.method == *method && path == known.as_bytes();
        self.service.protected.iter().any(is_it)
    }

    /// Whether this event is one of something that was taken away from the service.
    pub fn is_outage(&self, event: &Event) -> bool {
        let What::FaultFired { index, .. } = event.what else { return false };
        self.faults.get(index).is_some_and(|fault| is_outage(fault, self.service))
    }

    /// The dependencies that failed this exchange.
    pub fn failing(&self) -> Vec<&'a str> {
        let fired = self.events.iter().filter(|event| self.is_outage(event)).filter_map(|event| match event.what {
            What::FaultFired { index, .. } => self.faults.get(index)?.kind.calls(),
            _ => None,
        });
        fired.map(|calls| calls.dependency.as_str()).collect()
    }

    /// Whether the application got a scope that the specification does not allow.
    fn is_scope_faulted(&self) -> bool {
        let kind = if self.is_websocket() { ScopeType::Websocket } else { ScopeType::Http };
        self.acted().any(|fault| matches!(fault, FaultKind::Scope(edit) if !edit.legality(kind).is_legal))
    }

    /// Whether the application got a scope that says something else than the request did.
    fn is_scope_rewritten(&self) -> bool {
        let is_standard = |key: &String| keys::ALL.iter().any(|known| known.name == key);
        self.acted().any(|kind| match kind {
            FaultKind::Scope(ScopeEdit::Set { key, .. }) => is_standard(key),
            FaultKind::Scope(ScopeEdit::Headers { .. }) => true,
            _ => false,
        })
    }

    /// Whether what carries credentials and offers was changed on the way, so that nobody can say what was made of them.
    pub fn may_have_lost_credential(&self) -> bool {
        let carries = |key: &str| matches!(key, "headers" | "query_string" | "subprotocols");
        self.acted().any(|kind| match kind {
            FaultKind::Head(HeadEdit::Set { header, .. } | HeadEdit::Add { header, .. }) => {
                ["authorization", "sec-websocket-protocol"].iter().any(|name| header.eq_ignore_ascii_case(name))
            }
            FaultKind::Scope(ScopeEdit::Drop { key } | ScopeEdit::Set { key, .. }) => carries(key),
            FaultKind::Scope(ScopeEdit::Headers { .. }) => true,
            _ => false,
        })
    }

    /// Whether the request that arrived deserves no complaint: on a path that the target is known to serve, a plain
    /// GET, or an upgrade with everything it needs, a valid credential, and an offer that the target knows, if any.
    fn is_faultless(&self) -> bool {
        // Where nothing is known of the inside, what was passed on has to stand for what arrived.
        let Some(head) = self.delivered.or(self.passed_on.as_deref()).filter(|head| head.method == "GET") else {
            return false;
        };
        if self.is_scope_faulted() || self.is_scope_rewritten() || self.is_crowded {
            return false;
        }
        // Nobody can say what a server makes of a head that was changed on its way.
        let changes = |kind: &FaultKind| matches!(kind, FaultKind::Head(edit) if *edit != (HeadEdit::Pass {}));
        if self.passed_on.is_some() && self.acted().any(changes) {
            return false;
        }
        let (path, _) = head.path_and_query();
        let is_among = |paths: &[&str]| paths.iter().any(|known| path == known.as_bytes());
        if !self.is_websocket() {
            return is_among(self.service.http_paths);
        }
        let offers = head.offered_subprotocols();
        let knows = |offer: &String| self.service.knows_subprotocol(offer);
        is_among(self.service.websocket_paths) && self.user.is_some() && (offers.is_empty() || offers.iter().any(knows))
    }

    /// Whether the server ended the exchange because it stopped.
    pub fn is_cut_short(&self) -> bool {
        self.events.iter().any(|event| event.what == What::CutShort)
    }

    /// Whether an event comes of the end of the server: a server that plays says so, and a real one got a signal before.
    pub fn is_stop(&self, event: &Event) -> bool {
        event.what == What::CutShort || self.signaled.is_some_and(|at| event.at >= at)
    }

    /// Whether the connection ended otherwise than by an answer or by the client, after the server had got a signal.
    fn is_cut_off_by_signal(&self, ending: &Ending) -> bool {
        let is_end = |what: &What| match what {
            What::EndSeen => true,
            What::FrameSeen(frame) => frame.opcode == Opcode::Close,
            _ => false,
        };
        let end = self.events.iter().find(|event| is_end(&event.what));
        let is_late = self.signaled.zip(end).is_some_and(|(at, end)| end.at >= at);
        // A server that goes on for a while shows what its app does meanwhile.
        let is_app_gone = || self.escaped().is_some_and(|(exception, _)| !self.is_raised_by_stop(exception));
        match ending {
            Ending::Close { code: Some(CloseCode::GOING_AWAY | CloseCode::SERVICE_RESTART), .. } => is_late,
            Ending::Drop | Ending::Close { .. } | Ending::Http { complete: false, .. } => is_late && !is_app_gone(),
            // A request that the server gives up when it has waited long enough.
            Ending::Http { complete: true, status: 500.. } => {
                self.escaped().is_some_and(|(exception, _)| self.is_raised_by_stop(exception))
            }
            Ending::Http { complete: true, .. }
            | Ending::Parted { .. }
            | Ending::Left
            | Ending::BadHandshake { .. }
            | Ending::Hang { .. }
            | Ending::Silence { .. }
            | Ending::Refused
            | Ending::NotStarted { .. } => false,
        }
    }

    /// Whether the server took the request for a WebSocket.
    fn is_websocket(&self) -> bool {
        let websocket = |event: &&Event| matches!(event.what, What::Called { kind: ScopeType::Websocket, .. });
        self.events.iter().any(websocket) || (self.service.is_opaque() && self.asked_for_upgrade())
    }

    fn sent_too_much(&self) -> bool {
        let limit = self.service.message_bytes_max;
        let is_too_much = |frame: &Frame| {
            matches!(frame.opcode, Opcode::Text | Opcode::Binary) && limit > 0 && frame.payload.len() > limit
        };
        self.events.iter().any(|event| matches!(&event.what, What::FrameSent(frame) if is_too_much(frame)))
    }

    fn class_of_close(&self, code: CloseCode, reason: &str, crashed: bool) -> Class {
        if !code.is_sendable() || reason.len() > CloseCode::REASON_BYTES_MAX {
            return Class::BadDrop;
        }
        match code {
            CloseCode::PRIVATE_INTERNAL if self.service.is_unknown() && !crashed => Class::GoodBadRequest,
            CloseCode::INTERNAL | CloseCode::PRIVATE_INTERNAL => Class::BadServer,
            _ if crashed => Class::BadMask,
            CloseCode::TRY_AGAIN_LATER | CloseCode::PRIVATE_UNAVAILABLE if self.outage => Class::GoodNotReady,
            CloseCode::GOING_AWAY | CloseCode::SERVICE_RESTART if self.is_cut_short() || self.signaled.is_some() => {
                Class::GoodNotReady
            }
            CloseCode::POLICY | CloseCode::UNAUTHORIZED if self.user.is_none() && !reason.is_empty() => {
                Class::GoodAuthRefusal
            }
            CloseCode::TOO_BIG if self.sent_too_much() => Class::GoodBadRequest,
            CloseCode::NORMAL | CloseCode::GOING_AWAY => self.class_of_session(),
            // So is what it has against a session of which nothing is known, or in which something odd was said.
            _ if self.service.is_unknown()
                || self.is_crowded
                || (self.service.is_foreign() && self.says_something_else()) =>
            {
                Class::GoodBadRequest
            }
            _ => Class::BadMask,
        }
    }

    /// Whether the client turned away as soon as it was let in, before a service that is not ours could greet it.
    pub fn turned_away_at_once(&self) -> bool {
        let is_close = |frame: &Frame| frame.opcode == Opcode::Close;
        let opened =
            self.events.iter().find(|event| matches!(&event.what, What::ResponseSeen(head) if head.status == 101));
        let ended = self.events.iter().find(|event| match &event.what {
            What::FrameSent(frame) | What::FrameSeen(frame) => is_close(frame),
            what => *what == What::Left,
        });
        // Whoever answers a close did not turn away.
        let is_at_once = |(opened, ended): (&&Event, &&Event)| {
            !matches!(ended.what, What::FrameSeen(_)) && ended.at.saturating_sub(opened.at) < NOTICED
        };
        self.service.is_foreign() && self.welcome.is_none() && opened.zip(ended).is_some_and(is_at_once)
    }

    /// The class of a session that ended without a complaint from either side.
    fn class_of_session(&self) -> Class {
        let wanted = self.agent_runs_owed();
        if self.turned_away_at_once() {
            Class::GoodOpen
        } else if self.welcome.is_none() && !self.service.words.welcomes.is_empty() {
            Class::BadMask
        } else if self.agent_runs() >= wanted {
            Class::GoodOpen
        } else if self.messages.iter().any(|name| name.starts_with("error")) {
            // The service was healthy and said that it could not.
            Class::BadMask
        } else {
            Class::BadSilent
        }
    }

    fn closed_by(&self, ending: &Ending, cause: Cause) -> Party {
        match (ending, cause) {
            _ if self.is_ended_by_edge(ending) => Party::Edge,
            (Ending::Parted { .. } | Ending::Left | Ending::BadHandshake { .. }, _) => Party::Probe,
            (Ending::Hang { .. } | Ending::Silence { .. } | Ending::Refused | Ending::NotStarted { .. }, _) => {
                Party::Nobody
            }
            (_, Cause::Keepalive | Cause::Shutdown | Cause::Server | Cause::CrashBeforeAccept | Cause::Abandoned) => {
                Party::Front
            }
            (Ending::Drop, _) | (_, Cause::Unknown) => Party::Front,
            (_, Cause::CrashAfterAccept) if !self.application_closed() => Party::Front,
            _ => Party::Application,
        }
    }

    /// Whether a fault ended the exchange as the client saw it end: cut it off, or answered or closed in the server's place.
    fn is_ended_by_edge(&self, ending: &Ending) -> bool {
        let is_answer =
            |status: &Count| matches!(ending, Ending::Http { status: seen, .. } if usize::from(*seen) == status.0);
        let is_close =
            |code: &Count| matches!(ending, Ending::Close { code: Some(seen), .. } if usize::from(seen.0) == code.0);
        let is_cut = matches!(ending, Ending::Drop | Ending::Http { complete: false, .. });
        self.acted().any(|kind| match kind {
            FaultKind::Stream { fault: StreamFault::Cut { .. } | StreamFault::Reset { .. }, .. }
            | FaultKind::Connection(ConnectionFault::Lifetime { .. } | ConnectionFault::Idle { .. }) => is_cut,
            FaultKind::Answer(AnswerEdit::Hijack { status, .. })
            | FaultKind::Connection(
                ConnectionFault::LateAnswer { status, .. } | ConnectionFault::MissingAnswer { status, .. },
            ) => is_answer(status),
            FaultKind::Frame { fault: FrameFault::Close { code, .. }, .. } => is_close(code),
            _ => false,
        })
    }

    fn application_closed(&self) -> bool {
        let refused = self.events.iter().any(|event| matches!(event.what, What::CallRaised(_)));
        let closed = |event: &&Event| matches!(event.what, What::Sent(Outbound::WebsocketClose { .. }));
        !refused && self.events.iter().any(closed)
    }
}

/// What a fault between client and application does to what either of them sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Nothing that anybody could notice, or nothing but another request, which is judged as what it says.
    None,
    /// Things come later, so much that somebody may have stopped waiting.
    Slows,
    /// Something is missing, changed, or there that nobody said.
    Distorts,
}

/// From which delay on somebody may have stopped waiting.
const NOTICED: Duration = Duration::from_millis(500);

/// Below which rate the end of a client may not get through before the run is over, in bytes a second.
const HELD_BYTES_PER_S: usize = 300;

/// Below which rate a stream is so slow, in bytes a second.
const THROTTLED_BYTES_PER_S: usize = 2000;

fn effect(kind: &FaultKind) -> Effect {
    let slows = |slows: bool| if slows { Effect::Slows } else { Effect::None };
    match kind {
        FaultKind::Answer(_) | FaultKind::Connection(_) | FaultKind::Head(HeadEdit::Follow { .. }) => Effect::Distorts,
        FaultKind::Stream { fault, .. } => match fault {
            StreamFault::Delay { delay: time } | StreamFault::Jitter { most: time } => slows(time.0 >= NOTICED),
            StreamFault::Throttle { rate } => slows(rate.0 < THROTTLED_BYTES_PER_S),
            StreamFault::Slice { .. } => Effect::None,
            StreamFault::Cut { .. }
            | StreamFault::Reset { .. }
            | StreamFault::Stall { .. }
            | StreamFault::Silence {} => Effect::Distorts,
        },
        FaultKind::Frame { fault, .. } => match fault {
            FrameFault::Split {} => Effect::None,
            FrameFault::Delay { delay } => slows(delay.0 >= NOTICED),
            _ => Effect::Distorts,
        },
        FaultKind::Event { fault: EventFault::SendDelays { delay }, .. } => slows(delay.0 >= NOTICED),
        FaultKind::Event { .. } => Effect::Distorts,
        FaultKind::Head(_) | FaultKind::Scope(_) | FaultKind::Call { .. } | FaultKind::Process(_) => Effect::None,
    }
}

/// Whether a fault carries anything later, however little.
fn takes_time(kind: &FaultKind) -> bool {
    match kind {
        FaultKind::Stream { fault, .. } => {
            matches!(fault, StreamFault::Delay { .. } | StreamFault::Jitter { .. } | StreamFault::Throttle { .. })
        }
        FaultKind::Event { .. } => delays_send(kind),
        _ => false,
    }
}

/// Whether a fault makes the application wait in `send`.
fn delays_send(kind: &FaultKind) -> bool {
    matches!(kind, FaultKind::Event { fault: EventFault::SendDelays { .. }, .. })
}

/// Whether a fault makes `receive` or `send` raise.
fn raises(kind: &FaultKind) -> bool {
    let FaultKind::Event { fault, .. } = kind else { return false };
    matches!(fault, EventFault::ReceiveRaises { .. } | EventFault::SendRaises { .. } | EventFault::Cancel {})
}

/// Whether a fault changes what the answer to a handshake is made of.
fn rewrites_handshake(kind: &FaultKind) -> bool {
    let FaultKind::Head(edit) = kind else { return false };
    edit.header().is_some_and(|header| {
        ["sec-websocket-key", "sec-websocket-protocol"].iter().any(|name| header.eq_ignore_ascii_case(name))
    })
}

/// How many exchanges went on at one time, at most.
fn most_at_once(transcript: &Transcript) -> usize {
    let own = || transcript.events.iter().enumerate().filter(|(_, event)| event.exchange != PROCESS);
    let last: BTreeMap<usize, usize> = own().map(|(at, event)| (event.exchange, at)).collect();
    let (mut begun, mut going_on, mut most) = (BTreeSet::new(), 0, 0);
    for (at, event) in own() {
        going_on += usize::from(begun.insert(event.exchange));
        most = most.max(going_on);
        going_on -= usize::from(last[&event.exchange] == at);
    }
    most
}

/// From how many bytes on a request is longer than usual.
pub const LARGE_BYTES: usize = 8192;
/// How long a client waits for whatever is said to such a request.
pub const LARGE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a client may be kept waiting while something is slow, before that is a hang whatever the client does.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a fault takes something away from the service, or only makes it a little slower.
fn is_outage(fault: &Fault, service: &Service) -> bool {
    match &fault.kind {
        FaultKind::Call { fault: CallFault::Delay { delay }, .. } => delay.0 >= service.slow,
        kind => kind.place() == Place::Dependency || kind.acts_on_process(),
    }
}

/// How long after an outage a service may still say that it is not ready: the longest that one of the reported breakers
/// stays open.
pub const AFTERMATH: Duration = Duration::from_secs(60);

/// Whether an outage acted during an exchange, was armed when the exchange began, or had been shortly before. A
/// dependency that is not critical is out for those exchanges only that had to ask it.
fn had_outage(transcript: &Transcript, exchange: usize) -> bool {
    if transcript.faults.is_empty() {
        return false;
    }
    let Some(start) = transcript.of(exchange).next().map(|event| event.at) else { return false };
    let is_lasting = |(index, fault): (usize, &Fault)| {
        if !is_outage(fault, &transcript.service) {
            return false;
        }
        let (aftermath, matters) = match &fault.kind {
            // A start takes as long as it takes to notice that something is there.
            FaultKind::Process(ProcessFault::Restart {}) => return start <= NOTICE,
            FaultKind::Process(ProcessFault::ShutDown { at }) => {
                let end = transcript.of(exchange).next_back().map_or(start, |event| event.at);
                return is_replaced(transcript, at.0, start, end);
            }
            FaultKind::Event { events, fault } if events.are_of_lifespan() => {
                // An application that was told of its start what no server may tell need never be ready.
                let noticed = |from: Duration| start <= from + NOTICE;
                return start <= NOTICE
                    || acted_on_process(transcript, index).is_some_and(|at| {
                        !fault.legality(events).is_legal || listens_from(transcript, at).is_none_or(noticed)
                    });
            }
            FaultKind::Process(fault) if fault.ends() => (NOTICE, true),
            kind => (AFTERMATH, kind.calls().is_none_or(|calls| is_critical(transcript, &calls.dependency))),
        };
        let trigger = fault.trigger;
        let is_over = trigger.until.is_some_and(|until| start >= until + aftermath);
        matters && trigger.is_steady() && trigger.from <= start && !is_over
    };
    transcript.faults.iter().enumerate().any(is_lasting)
        || transcript.events.iter().any(|event| {
            let What::FaultFired { index, operation, .. } = event.what else { return false };
            let Some(fault) = transcript.faults.get(index).filter(|fault| is_outage(fault, &transcript.service)) else {
                return false;
            };
            let calls = fault.kind.calls();
            if event.exchange == exchange {
                // Readiness asks what is not critical as well, and does not fail for it.
                let is_critical = calls.is_none_or(|calls| is_critical(transcript, &calls.dependency));
                return is_critical || operation != Some("ping");
            }
            calls.is_some_and(|calls| is_critical(transcript, &calls.dependency))
                && event.at <= start
                && start <= event.at + AFTERMATH
        })
}

/// Whether something happens while a process that is told to stop at some time starts, while it stops, or while the next
/// one starts.
pub fn is_replaced(transcript: &Transcript, stop: Duration, start: Duration, end: Duration) -> bool {
    let is_settled = |from: Duration| start > from + NOTICE;
    start <= NOTICE || (stop <= end && !listens_from(transcript, stop).is_some_and(is_settled))
}

/// When a process next listened, from a moment on.
pub fn listens_from(transcript: &Transcript, from: Duration) -> Option<Duration> {
    let listens = |event: &&Event| event.what == What::Listening && event.at >= from;
    transcript.of(PROCESS).find(listens).map(|event| event.at)
}

/// When a fault first acted on the process itself.
fn acted_on_process(transcript: &Transcript, index: usize) -> Option<Duration> {
    let acts = |event: &&Event| matches!(event.what, What::FaultFired { index: acted, .. } if acted == index);
    transcript.of(PROCESS).find(acts).map(|event| event.at)
}

/// How long a process takes to listen once it is started.
const START: Duration = Duration::from_millis(100);

/// How long a service may take to notice that something is there again.
pub const NOTICE: Duration = Duration::from_secs(6);

/// Whether the service cannot work without this dependency. The secret manager is needed to start.
fn is_critical(transcript: &Transcript, dependency: &str) -> bool {
    dependency == "secret_manager" || transcript.service.critical.contains(&dependency)
}

/// Whether the fault that keeps the process away acted when an exchange ended.
fn was_absent(transcript: &Transcript, exchange: usize) -> bool {
    let end = transcript.of(exchange).next_back().map(|event| event.at);
    // What is started when the fault is over does not listen at that very moment.
    let keeps_away = |(index, fault): (usize, &Fault), at: Duration| match &fault.kind {
        FaultKind::Process(ProcessFault::Absent {}) => fault.trigger.is_armed_at(at.saturating_sub(START)),
        FaultKind::Process(ProcessFault::ShutDown { at: stop }) => {
            stop.0 <= at && listens_from(transcript, stop.0).is_none_or(|from| at <= from + START)
        }
        FaultKind::Event { events, .. } if events.are_of_lifespan() => acted_on_process(transcript, index)
            .is_some_and(|acted| listens_from(transcript, acted).is_none_or(|from| at <= from + START)),
        _ => false,
    };
    end.is_some_and(|at| transcript.faults.iter().enumerate().any(|fault| keeps_away(fault, at)))
}

/// When the server got a signal that ended it, or ends every server, if that was before an exchange was over.
fn signaled(transcript: &Transcript, exchange: usize) -> Option<Duration> {
    let process = || transcript.of(PROCESS);
    let has_ended = process().any(|event| matches!(event.what, What::Exited { .. }));
    let sent = process().find_map(|event| match event.what {
        What::Signaled { signal } if has_ended || signal.ends_servers() => Some(event.at),
        _ => None,
    })?;
    let over = transcript.of(exchange).next_back()?.at;
    (over >= sent).then_some(sent)
}

/// The critical dependencies that failed or did not answer whenever they were asked, from an exchange's start to its end.
fn down(transcript: &Transcript, exchange: usize) -> Vec<&str> {
    if transcript.faults.is_empty() {
        return Vec::new();
    }
    let mut times = transcript.of(exchange).map(|event| event.at);
    let Some(start) = times.next() else { return Vec::new() };
    let end = times.next_back().unwrap_or(start);
    let is_down = |fault: &&Fault| {
        let is_failure = matches!(&fault.kind, FaultKind::Call { fault, .. } if fault.is_failure());
        let is_asked = fault.kind.calls().is_some_and(|calls| calls.include(&calls.dependency, "ping"));
        is_failure
            && is_asked
            && fault.trigger.is_steady()
            && fault.trigger.is_armed_at(start)
            && fault.trigger.is_armed_at(end)
    };
    let names = transcript.faults.iter().filter(is_down).filter_map(|fault| fault.kind.calls());
    names.map(|calls| calls.dependency.as_str()).filter(|name| transcript.service.critical.contains(name)).collect()
}

/// Whether this is a close for something that is not ready.
fn says_not_ready(frame: &Frame) -> bool {
    let code = frame.close_parts().0;
    frame.opcode == Opcode::Close && matches!(code, Some(CloseCode::TRY_AGAIN_LATER | CloseCode::PRIVATE_UNAVAILABLE))
}

/// The user an agent event is for; empty when it names none, nothing when it is no agent event.
fn addressee(payload: &[u8], words: &Words) -> Option<String> {
    #[derive(Deserialize)]
    struct Addressed<'a> {
        #[serde(borrow)]
        user_id: Cow<'a, str>,
    }
    if !words.events.contains(&message_type(payload)?.as_ref()) {
        return None;
    }
    let addressed = serde_json::from_slice::<Addressed<'_>>(payload).ok();
    Some(addressed.map_or_else(String::new, |event| event.user_id.into_owned()))
}

/// What matters of a welcome.
#[derive(Default, Deserialize)]
struct Welcome {
    #[serde(default)]
    data: WelcomeData,
}

#[derive(Default, Deserialize)]
struct WelcomeData {
    #[serde(default)]
    user_id: String,
}

/// Every exchange of a run.
pub fn readings(transcript: &Transcript) -> Vec<Reading<'_>> {
    (0..transcript.exchanges()).map(|exchange| Reading::of(transcript, exchange)).collect()
}

/// The outcome of a whole run: of its first bad exchange, or of its last.
pub fn worst(outcomes: &[Outcome]) -> Option<&Outcome> {
    outcomes.iter().find(|outcome| !outcome.class.is_good()).or(outcomes.last())
}
