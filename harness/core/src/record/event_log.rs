//! The events of a run while it goes on, in a bounded number of bytes.
//!
//! A peer or an app may talk for ever. Where the events become too many, the middle of each exchange gives way: the
//! first ones and the last ones stay, and one [`EventKind::Omitted`] tells what stood between them. The beginning and
//! the end of an exchange, and everything that happens once, always stay.

use std::collections::BTreeMap;
use std::mem::size_of;

use bytes::Bytes;

use crate::{
    asgi::event::{Inbound, Outbound},
    record::transcript::{
        Actor, Event, EventKind, Leftover, PROCESS, end_event, outer_event, server_event, step_event,
    },
    wire::{
        frame::{Frame, Opcode},
        head::Headers,
    },
};

/// How many bytes the events of one run may take in memory: 16 MiB. Several runs go on at a time, and with what else they
/// hold they fit into 256 MiB. An ordinary run has less than 1 MiB.
const RUN_BYTES_MAX: usize = 16 << 20;

/// How much of an exchange stays, of each actor.
#[derive(Debug, Clone, Copy)]
struct KeptPart {
    /// How many events of traffic at the beginning, and as many at the end.
    traffic: usize,
    /// The same of exceptions, log records and faults.
    evidence: usize,
    /// How many bytes of a payload; its middle is left out.
    payload_bytes: usize,
}

/// How much stays, in the order in which it is tried. The last one is for a run of a thousand exchanges.
const KEPT: [KeptPart; 5] = [
    KeptPart { traffic: 256, evidence: 1024, payload_bytes: usize::MAX },
    KeptPart { traffic: 64, evidence: 1024, payload_bytes: 64 << 10 },
    KeptPart { traffic: 16, evidence: 256, payload_bytes: 64 << 10 },
    KeptPart { traffic: 4, evidence: 64, payload_bytes: 8 << 10 },
    KeptPart { traffic: 1, evidence: 8, payload_bytes: 256 },
];

/// Whether an event may give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// It always stays: a beginning, an end, or something that a step does once.
    Once,
    /// A message, a piece of a body, or a frame that controls nothing.
    Traffic,
    /// Something that may be found fault with, and may come again and again.
    Evidence,
    /// It stands for others.
    Omitted,
}

/// The actor of an exchange whose events give way together.
type Speaker = (usize, Actor, Role);

/// The events of a run, in order.
#[derive(Debug)]
pub struct EventLog {
    events: Vec<Event>,
    bytes: usize,
    /// From how many bytes on some give way.
    bytes_max: usize,
    /// The calls of the application that have not ended.
    running: i64,
}

impl EventLog {
    /// No events, and room for so many.
    pub fn with_capacity(events: usize) -> EventLog {
        EventLog { events: Vec::with_capacity(events), bytes: 0, bytes_max: RUN_BYTES_MAX, running: 0 }
    }

    /// Adds an event.
    pub fn push(&mut self, event: Event) {
        self.running += running(&event);
        self.bytes += size_of::<Event>() + heap_bytes(&event.what);
        self.events.push(event);
        if self.bytes > self.bytes_max {
            self.give_way();
        }
    }

    /// Whether some call of the application has not ended.
    pub fn is_application_running(&self) -> bool {
        self.running > 0
    }

    /// Whether a request was sent that has led to neither a call nor an answer, and whose client did not wait until its limit.
    /// Behind a real server the call may still begin.
    pub fn awaits_call(&self) -> bool {
        let tells = |what: &EventKind| {
            matches!(what, EventKind::Called { .. } | EventKind::ResponseSeen(_) | EventKind::DeadlinePassed { .. })
        };
        let mut sent = self.events.iter().filter(|event| matches!(event.what, EventKind::RequestSent { .. }));
        sent.any(|sent| !self.of_exchange(sent.exchange).any(|event| tells(&event.what)))
    }

    /// The events of an exchange so far.
    pub fn of_exchange(&self, exchange: usize) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.exchange == exchange)
    }

    /// Takes the events so far. The calls that run are still known.
    pub fn take(&mut self) -> Vec<Event> {
        (self.bytes, self.bytes_max) = (0, RUN_BYTES_MAX);
        std::mem::take(&mut self.events)
    }

    /// The approximate size of the events in memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lets events give way until half of the room is free, or nothing more can.
    fn give_way(&mut self) {
        self.bytes = give_way(&mut self.events, RUN_BYTES_MAX / 2);
        self.events.shrink_to(self.events.len() * 2);
        // The rest is what the steps ask for. Twice as much of it before the next look, so that looking costs little.
        self.bytes_max = RUN_BYTES_MAX.max(2 * self.bytes);
    }
}

/// Makes the events of a run that is over small enough to be kept with many others: the middle of each exchange gives way.
pub fn compact(events: &mut Vec<Event>, bytes_max: usize) {
    if bytes(events) > bytes_max {
        give_way(events, bytes_max);
        events.shrink_to_fit();
    }
}

/// Removes the middle of exchanges until the events take at most so many bytes, or nothing more can go; returns their size.
fn give_way(events: &mut Vec<Event>, bytes_max: usize) -> usize {
    for kept in KEPT {
        omit(events, kept);
        events.iter_mut().for_each(|event| shorten(event, kept.payload_bytes));
        if bytes(events) <= bytes_max {
            break;
        }
    }
    bytes(events)
}

/// The bytes that events take in memory.
pub fn bytes(events: &[Event]) -> usize {
    events.iter().map(|event| size_of::<Event>() + heap_bytes(&event.what)).sum()
}

/// How an event changes the number of calls that have not ended.
fn running(event: &Event) -> i64 {
    let is_of_exchange = event.exchange != PROCESS;
    match event.what {
        EventKind::Called { .. } => i64::from(is_of_exchange),
        EventKind::Returned | EventKind::Raised(_) => -i64::from(is_of_exchange),
        _ => 0,
    }
}

/// The events that are left out of what one actor did in one exchange.
#[derive(Debug, Default)]
struct Gap {
    /// How many such events there are.
    total: usize,
    /// How many of them were looked at.
    seen: usize,
}

/// Leaves the middle of every exchange out.
fn omit(events: &mut Vec<Event>, kept: KeptPart) {
    let mut gaps: BTreeMap<Speaker, Gap> = BTreeMap::new();
    for event in events.iter() {
        if let Some((speaker, _)) = limited(event, kept) {
            gaps.entry(speaker).or_default().total += 1;
        }
    }
    let mut standing: BTreeMap<(usize, Actor), usize> = BTreeMap::new();
    let mut end = 0;
    for at in 0..events.len() {
        let left_out = match limited(&events[at], kept) {
            Some((speaker, most)) => {
                let gap = gaps.entry(speaker).or_default();
                gap.seen += 1;
                (gap.seen > most && gap.seen + most <= gap.total).then(|| left_out(&events[at]))
            }
            None => stands_for(&events[at]),
        };
        if let Some((more_bytes, more_events)) = left_out {
            let key = (events[at].exchange, events[at].party);
            if let Some(place) = standing.get(&key) {
                if let EventKind::Omitted { bytes, events } = &mut events[*place].what {
                    *bytes += more_bytes;
                    *events += more_events;
                }
                continue;
            }
            standing.insert(key, end);
            let event = &mut events[at];
            (event.what, event.omitted_bytes) = (EventKind::Omitted { bytes: more_bytes, events: more_events }, 0);
        }
        events.swap(end, at);
        end += 1;
    }
    events.truncate(end);
}

/// The actor whose events give way with this one, and how many of them stay at either end.
fn limited(event: &Event, kept: KeptPart) -> Option<(Speaker, usize)> {
    let role = role(&event.what);
    let most = match role {
        Role::Traffic => kept.traffic,
        Role::Evidence => kept.evidence,
        Role::Once | Role::Omitted => return None,
    };
    Some(((event.exchange, event.party, role), most))
}

/// The bytes and events that an event stands for, if it stands for others.
fn stands_for(event: &Event) -> Option<(u64, u64)> {
    match event.what {
        EventKind::Omitted { bytes, events } => Some((bytes, events)),
        _ => None,
    }
}

/// The payload of an event that is left out, and one event.
fn left_out(event: &Event) -> (u64, u64) {
    (heap_bytes(&event.what) as u64 + event.omitted_bytes, 1)
}

// Long: an arm for each kind of event.
fn role(what: &EventKind) -> Role {
    match what {
        EventKind::FrameSent(frame) | EventKind::FrameSeen(frame) if frame.opcode == Opcode::Close => Role::Once,
        EventKind::FrameSent(_) | EventKind::FrameSeen(_) | EventKind::MessageSeen(_) => Role::Traffic,
        EventKind::Received(event) => match event {
            Inbound::WebsocketReceive { .. } | Inbound::HttpRequest { more_body: true, .. } => Role::Traffic,
            Inbound::Invalid(_)
            | Inbound::WebsocketConnect
            | Inbound::WebsocketDisconnect { .. }
            | Inbound::HttpRequest { more_body: false, .. }
            | Inbound::HttpDisconnect
            | Inbound::LifespanStartup
            | Inbound::LifespanShutdown => Role::Evidence,
        },
        EventKind::Sent(event) => match event {
            Outbound::WebsocketSend { .. } | Outbound::ResponseBody { more_body: true, .. } => Role::Traffic,
            Outbound::Unencodable { .. }
            | Outbound::Unknown(_)
            | Outbound::WebsocketAccept { .. }
            | Outbound::WebsocketClose { .. }
            | Outbound::ResponseStart { .. }
            | Outbound::ResponseBody { more_body: false, .. }
            | Outbound::StartupComplete
            | Outbound::StartupFailed { .. }
            | Outbound::ShutdownComplete
            | Outbound::ShutdownFailed { .. } => Role::Evidence,
        },
        EventKind::CallRaised(_)
        | EventKind::Handled(_)
        | EventKind::Logged { .. }
        | EventKind::LeftBehind(_)
        | EventKind::FaultFired { .. }
        | EventKind::DependencyCalled { .. } => Role::Evidence,
        EventKind::Omitted { .. } => Role::Omitted,
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
        | EventKind::StoppedReading
        | EventKind::SeenEnough { .. }
        | EventKind::ConnectionRefused
        | EventKind::RequestSent { .. }
        | EventKind::ResponseSeen(_)
        | EventKind::BodySeen { .. }
        | EventKind::Called { .. }
        | EventKind::Returned
        | EventKind::Raised(_)
        | EventKind::Starting
        | EventKind::Stopping
        | EventKind::Exited { .. }
        | EventKind::Listening
        | EventKind::NotStarted { .. }
        | EventKind::Signaled { .. }
        | EventKind::ExitAwaited { .. }
        | end_event!()
        | server_event!() => Role::Once,
    }
}

/// The bytes that an event keeps in memory beside itself.
fn heap_bytes(what: &EventKind) -> usize {
    match what {
        EventKind::FrameSent(frame) | EventKind::FrameSeen(frame) | EventKind::MessageSeen(frame) => {
            frame.payload.len()
        }
        EventKind::BodySeen { body, .. } => body.len(),
        EventKind::RequestSent { head, .. } | EventKind::Called { head, .. } => {
            head.target.len() + header_bytes(&head.headers)
        }
        EventKind::ResponseSeen(head) => header_bytes(&head.headers),
        EventKind::Received(event) => inbound_bytes(event),
        EventKind::Sent(event) => outbound_bytes(event),
        EventKind::CallRaised(exception) | EventKind::Raised(exception) | EventKind::Handled(exception) => {
            exception.type_name.len() + exception.message.len()
        }
        EventKind::Logged { message: text, .. }
        | EventKind::FaultFired { detail: text, .. }
        | EventKind::HandshakeRefused { why: text }
        | EventKind::BadHeadSeen { why: text }
        | EventKind::DeadlinePassed { waiting_for: text, .. }
        | EventKind::Exited { why: text }
        | EventKind::NotStarted { why: text, .. } => text.len(),
        EventKind::DependencyCalled { error, .. } => error.as_ref().map_or(0, String::len),
        EventKind::LeftBehind(Leftover { name, .. }) => name.len(),
        EventKind::ConnectionRefused
        | EventKind::BadFrameSeen(_)
        | EventKind::EndSeen
        | EventKind::Left
        | EventKind::Returned
        | EventKind::Starting
        | EventKind::Stopping
        | EventKind::Listening
        | EventKind::Signaled { .. }
        | EventKind::ExitAwaited { .. }
        | step_event!()
        | server_event!() => 0,
    }
}

fn header_bytes(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| size_of::<(Bytes, Bytes)>() + name.len() + value.len()).sum()
}

fn message_bytes(text: Option<&String>, bytes: Option<&Vec<u8>>) -> usize {
    text.map_or(0, String::len) + bytes.map_or(0, Vec::len)
}

fn inbound_bytes(event: &Inbound) -> usize {
    match event {
        Inbound::WebsocketReceive { text, bytes } => message_bytes(text.as_ref(), bytes.as_ref()),
        Inbound::HttpRequest { body, .. } => body.len(),
        Inbound::WebsocketDisconnect { reason, .. } => reason.as_ref().map_or(0, String::len),
        Inbound::Invalid(value) => value.heap_bytes(),
        Inbound::WebsocketConnect | Inbound::HttpDisconnect | Inbound::LifespanStartup | Inbound::LifespanShutdown => 0,
    }
}

fn outbound_bytes(event: &Outbound) -> usize {
    match event {
        Outbound::WebsocketSend { text, bytes } => message_bytes(text.as_ref(), bytes.as_ref()),
        Outbound::ResponseBody { body, .. } => body.len(),
        Outbound::WebsocketAccept { headers, .. } | Outbound::ResponseStart { headers, .. } => header_bytes(headers),
        Outbound::WebsocketClose { reason: text, .. }
        | Outbound::StartupFailed { message: text }
        | Outbound::ShutdownFailed { message: text } => text.len(),
        Outbound::Unencodable { event, .. } => outbound_bytes(event),
        Outbound::Unknown(value) => value.heap_bytes(),
        Outbound::StartupComplete | Outbound::ShutdownComplete => 0,
    }
}

/// Leaves the middle of a long payload out. What the client says itself stays whole.
fn shorten(event: &mut Event, bytes_max: usize) {
    let omitted = match &mut event.what {
        EventKind::FrameSeen(Frame { payload, .. }) | EventKind::MessageSeen(Frame { payload, .. }) => {
            shorten_bytes(payload, bytes_max)
        }
        EventKind::BodySeen { body, .. } => shorten_bytes(body, bytes_max),
        EventKind::Received(Inbound::WebsocketReceive { text, bytes })
        | EventKind::Sent(Outbound::WebsocketSend { text, bytes }) => {
            text.as_mut().map_or(0, |text| shorten_text(text, bytes_max))
                + bytes.as_mut().map_or(0, |bytes| shorten_vec(bytes, bytes_max))
        }
        EventKind::Received(Inbound::HttpRequest { body, .. })
        | EventKind::Sent(Outbound::ResponseBody { body, .. }) => shorten_vec(body, bytes_max),
        EventKind::Logged { message: text, .. } | EventKind::DependencyCalled { error: Some(text), .. } => {
            shorten_text(text, bytes_max)
        }
        EventKind::CallRaised(exception) | EventKind::Handled(exception) | EventKind::Raised(exception) => {
            shorten_text(&mut exception.message, bytes_max)
        }
        EventKind::FrameSent(_)
        | EventKind::Received(_)
        | EventKind::Sent(_)
        | EventKind::Called { .. }
        | EventKind::Returned
        | EventKind::ConnectionRefused
        | EventKind::RequestSent { .. }
        | EventKind::ResponseSeen(_)
        | EventKind::LeftBehind(_)
        | step_event!()
        | end_event!()
        | server_event!()
        | outer_event!() => 0,
    };
    event.omitted_bytes += omitted as u64;
}

/// Where the kept head of a payload ends and its kept tail begins, as byte offsets on UTF-8 character boundaries. `None` if
/// the whole payload is kept.
fn ends(payload: &[u8], bytes_max: usize) -> Option<(usize, usize)> {
    if payload.len() <= bytes_max {
        return None;
    }
    let is_inside = |at: usize| payload.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let (mut head, mut tail) = (bytes_max / 2, payload.len() - bytes_max / 2);
    // A character has four bytes at most.
    for _ in 0..3 {
        head -= usize::from(head > 0 && is_inside(head));
        tail += usize::from(is_inside(tail));
    }
    Some((head, tail))
}

/// Shortens bytes that a peer sent. The copy lets the buffer go in which they came.
fn shorten_bytes(payload: &mut Bytes, bytes_max: usize) -> usize {
    let before = payload.len();
    *payload = match ends(payload, bytes_max) {
        Some((head, tail)) => Bytes::from([&payload[..head], &payload[tail..]].concat()),
        None => Bytes::copy_from_slice(payload),
    };
    before - payload.len()
}

fn shorten_vec(payload: &mut Vec<u8>, bytes_max: usize) -> usize {
    let before = payload.len();
    if let Some((head, tail)) = ends(payload, bytes_max) {
        payload.drain(head..tail);
        payload.shrink_to_fit();
    }
    before - payload.len()
}

/// Leaves out the middle of a long text; returns the number of bytes left out.
pub(crate) fn shorten_text(text: &mut String, bytes_max: usize) -> usize {
    let before = text.len();
    if let Some((head, tail)) = ends(text.as_bytes(), bytes_max) {
        text.replace_range(head..tail, "");
        text.shrink_to_fit();
    }
    before - text.len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{EventLog, RUN_BYTES_MAX, compact, stands_for};
    use crate::{
        asgi::{event::Outbound, exception::Exception},
        record::transcript::{Actor, BodyEnd, Event, EventKind},
        wire::{
            close_code::CloseCode,
            frame::{Frame, Opcode},
        },
    };

    fn event(number: u64, party: Actor, what: EventKind) -> Event {
        Event { at: Duration::from_millis(number), exchange: 0, party, what, omitted_bytes: 0 }
    }

    fn seen(number: u64, payload: Vec<u8>) -> Event {
        event(number, Actor::Probe, EventKind::FrameSeen(Frame::new(Opcode::Text, payload)))
    }

    /// The bytes and events that the log says it left out, and those that it kept of the same kind.
    fn omitted(events: &[Event]) -> Vec<(u64, u64)> {
        events.iter().filter_map(stands_for).collect()
    }

    #[test]
    fn an_ordinary_run_is_kept_whole() {
        let mut log = EventLog::with_capacity(0);
        let all: Vec<Event> = (0..10_000).map(|number| seen(number, vec![b'x'; 100])).collect();
        all.iter().for_each(|event| log.push(event.clone()));
        assert_eq!(log.take(), all);
    }

    #[test]
    fn the_error_of_a_dependency_gives_way_too() {
        let error = Some("x".repeat(3 << 20));
        let what = EventKind::DependencyCalled { dependency: "database", operation: "query", error };
        let mut events = vec![event(0, Actor::Dependency, what); 2];
        compact(&mut events, 256 << 10);
        assert!(super::bytes(&events) <= 256 << 10, "{}", super::bytes(&events));
        assert_eq!(events[1].omitted_bytes, (3 << 20) - (64 << 10));
    }

    #[test]
    fn an_endless_run_keeps_its_beginning_and_its_end() {
        let mut log = EventLog::with_capacity(0);
        let (count, bytes) = (2_000_u64, 60_000_u64);
        log.push(event(0, Actor::Front, EventKind::Listening));
        for number in 0..count {
            log.push(seen(number, format!("{number:060000}").into_bytes()));
            assert!(log.bytes <= RUN_BYTES_MAX + 60_000 + 1000, "{} bytes", log.bytes);
        }
        let close = EventKind::FrameSeen(Frame::close(Some(CloseCode(1011)), "x"));
        log.push(event(count, Actor::Probe, close.clone()));
        let events = log.take();
        assert_eq!(events[0].what, EventKind::Listening);
        assert_eq!(events[1], seen(0, format!("{:060000}", 0).into_bytes()));
        assert_eq!(events.last().map(|event| &event.what), Some(&close));
        assert_eq!(events[events.len() - 2].at, Duration::from_millis(count - 1));
        let kept = events.iter().filter(|event| matches!(&event.what, EventKind::FrameSeen(_))).count() as u64 - 1;
        assert_eq!(omitted(&events), [((count - kept) * bytes, count - kept)], "everything is counted once");
        let in_order = events.windows(2).all(|two| two[0].at <= two[1].at);
        assert!(in_order, "the order stays");
    }

    #[test]
    fn the_events_of_each_actor_give_way_by_themselves() {
        let mut log = EventLog::with_capacity(0);
        for number in 0..1000 {
            let text = Some("x".repeat(40_000));
            let sent = EventKind::Sent(Outbound::WebsocketSend { text, bytes: None });
            log.push(event(number, Actor::Application, sent));
            log.push(seen(number, vec![b'x'; 40_000]));
        }
        let events = log.take();
        let actors = [Actor::Application, Actor::Probe].map(|party| {
            let of_it: Vec<Event> = events.iter().filter(|event| event.party == party).cloned().collect();
            (omitted(&of_it).len(), of_it[0].at, of_it[of_it.len() - 1].at)
        });
        assert_eq!(actors, [(1, Duration::ZERO, Duration::from_millis(999)); 2]);
    }

    #[test]
    fn a_long_payload_keeps_its_ends_and_tells_its_length() {
        let mut log = EventLog::with_capacity(0);
        let body = [&b"head"[..], "ä".repeat(20 << 20).as_bytes(), &b"tail"[..]].concat();
        let length = body.len() as u64;
        log.push(event(0, Actor::Probe, EventKind::BodySeen { body: body.into(), end: BodyEnd::Complete }));
        let events = log.take();
        let EventKind::BodySeen { body, end: BodyEnd::Complete } = &events[0].what else { panic!("{events:?}") };
        assert!(body.starts_with(b"head") && body.ends_with(b"tail") && body.len() < 100_000, "{}", body.len());
        assert!(std::str::from_utf8(body).is_ok(), "no character is cut in two");
        assert_eq!(body.len() as u64 + events[0].omitted_bytes, length);
    }

    #[test]
    fn exceptions_and_ends_stay() {
        let mut log = EventLog::with_capacity(0);
        let raised = |number: u64| {
            event(number, Actor::Application, EventKind::Raised(Exception::new("ValueError", number.to_string())))
        };
        let mut expected = Vec::new();
        for number in 0..2000 {
            log.push(seen(number, vec![b'x'; 30_000]));
            if number % 100 == 0 {
                expected.push(raised(number));
                log.push(raised(number));
            }
        }
        let kept: Vec<Event> =
            log.take().into_iter().filter(|event| matches!(event.what, EventKind::Raised(_))).collect();
        assert_eq!(kept, expected);
    }

    /// An app may raise and log without end as well.
    #[test]
    fn repeated_evidence_is_bounded() {
        let mut log = EventLog::with_capacity(0);
        for number in 0..300_000 {
            let what = match number % 2 {
                0 => EventKind::CallRaised(Exception::new("RuntimeError", "no")),
                _ => EventKind::Sent(Outbound::WebsocketClose { code: 1000, reason: String::new() }),
            };
            log.push(event(number, Actor::Application, what));
        }
        assert!(log.bytes <= RUN_BYTES_MAX && log.events.len() < 120_000, "{}", log.events.len());
    }

    #[test]
    fn calls_that_have_not_ended_are_counted() {
        use crate::{
            asgi::scope::ScopeType,
            client::credential::{Credential, Presented},
            record::transcript::PROCESS,
            wire::head::RequestHead,
        };
        let head = RequestHead { method: "GET".to_owned(), target: "/".into(), minor_version: 1, headers: Vec::new() };
        let called = |exchange| {
            let head = head.clone();
            Event { exchange, ..event(0, Actor::Front, EventKind::Called { kind: ScopeType::Http, head }) }
        };
        let mut log = EventLog::with_capacity(0);
        log.push(called(PROCESS));
        assert!(!log.is_application_running(), "the lifespan is no call of a client");
        assert!(!log.awaits_call());
        let credential = Presented { kind: Credential::None, text: String::new(), subject: String::new() };
        log.push(event(0, Actor::Probe, EventKind::RequestSent { head: head.clone(), credential }));
        assert!(log.awaits_call(), "the call may begin later");
        log.push(called(0));
        assert!(!log.awaits_call());
        log.push(called(1));
        log.push(event(1, Actor::Application, EventKind::Returned));
        assert!(log.is_application_running());
        log.push(Event { exchange: 1, ..event(1, Actor::Application, EventKind::Raised(Exception::new("E", ""))) });
        assert!(!log.is_application_running());
    }
}
