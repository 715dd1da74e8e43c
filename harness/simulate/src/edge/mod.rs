//! The man in the middle: carries bytes between client and server, and lets the plan's edge faults act on them.
//!
//! Whatever no fault acts on passes byte for byte. What a connection carries is first requests and their answers
//! (`head`, `body`), then, after an upgrade, frames (`frames`); all of it is bytes with a way to go (`stream`), on a
//! connection that may have its time (`limits`). Where nothing can act any more, it is only carried (`pass`).

mod body;
mod frames;
mod head;
mod limits;
mod pass;
mod stream;

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

use self::{
    frames::Mangler,
    head::EdgeExchange,
    limits::{ConnectionLimits, Last},
    pass::Scanner,
    stream::{DelayedBytes, Shape},
};
use crate::{
    link::{Link, Progress, Redial, Wire},
    recorder::ExchangeRecorder,
};
use relapse_core::{
    fault::{ConnectionFault, Direction, FaultKind},
    record::transcript::Actor,
    wire::{
        close_code::CloseCode,
        deflate::Coding,
        head::{RequestHead, ResponseHead},
    },
};

/// How many bytes may wait for one side before the other is not read any further: as many under way, as many that are due
/// and not written, and as many that are read and not looked at.
const HIGH_WATER_BYTES: usize = 1 << 20;

/// How long either side may take to read what had arrived when the other one ended, or the next part of it.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// How long a client that says nothing more, and may be gone, is waited for with an answer.
const HALF_CLOSED_LIMIT: Duration = Duration::from_secs(60);

/// How long a stalled direction keeps back the end of its side: a server's keepalive, if it has one, finds it sooner.
const KEPT_END_LIMIT: Duration = Duration::from_secs(600);

/// How a fault ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With a FIN: everything under way arrives.
    Finished,
    /// At once: what is under way is lost.
    Reset,
}

/// The one that ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The client.
    Client,
    /// The server.
    Server,
    /// A fault, by its place in the plan.
    Fault(usize),
}

/// The traffic in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes, before any fault acted on them.
    pub bytes: u64,
    /// Whole messages; counted where there is a journal.
    pub messages: u64,
}

/// How a connection ended, and what it had carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionSummary {
    /// The one that ended it.
    pub ended: Ended,
    /// Whether it carried a WebSocket.
    pub upgraded: bool,
    /// Whether it ended with a reset (RST).
    pub is_reset: bool,
    /// How long it lasted.
    pub lasted: Duration,
    /// The traffic from the client.
    pub from_client: Load,
    /// The traffic from the server.
    pub from_server: Load,
}

/// Something that passes, told while it does.
#[derive(Debug)]
pub enum Carried<'a> {
    /// A request, as the client wrote it.
    Request(&'a RequestHead),
    /// An answer, as the server wrote it.
    Answer(&'a ResponseHead),
    /// A close frame.
    Close {
        /// The sender: the client or the server.
        by: Actor,
        /// Its code.
        code: Option<CloseCode>,
        /// Its reason.
        reason: String,
    },
}

/// Is told what passes.
pub type Journal = Arc<dyn Fn(Carried<'_>) + Send + Sync>;

/// The way to the server.
pub struct ServerLink {
    /// A connection to it; nothing where it cannot be reached.
    pub link: Option<Link>,
    /// A way to make another connection, for a fault that asks once more.
    pub again: Option<Redial>,
}

impl From<Option<Link>> for ServerLink {
    fn from(link: Option<Link>) -> ServerLink {
        ServerLink { link, again: None }
    }
}

impl fmt::Debug for ServerLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("link", &self.link).finish_non_exhaustive()
    }
}

/// Whether a plan has a fault that asks once more, so that it needs a way to do so.
pub fn asks_again(scribe: &ExchangeRecorder) -> bool {
    let faults = &scribe.plan().faults;
    faults.iter().any(|fault| matches!(fault.kind, FaultKind::Connection(ConnectionFault::Retry {})))
}

/// Carries one connection until either side, or a fault, ends it.
pub async fn relay(
    client: Link,
    server: impl Into<ServerLink>,
    scribe: ExchangeRecorder,
    journal: Option<Journal>,
) -> ConnectionSummary {
    let scribe = scribe.of_connection();
    let ServerLink { link: server, again } = server.into();
    let (there, back) = Shape::decide(&scribe);
    let limits = ConnectionLimits::decide(&scribe);
    let server = server.unwrap_or_else(|| Link::pair().0);
    let exchange = EdgeExchange::new(scribe.clone(), journal.clone());
    let to_server = Lane::new(Direction::ToServer, there, &scribe, journal.clone());
    let to_client = Lane::new(Direction::ToClient, back, &scribe, journal);
    let relay = Relay {
        client: to_server.wire(client),
        server: to_client.wire(server),
        exchange,
        to_server,
        to_client,
        limits,
        scribe,
        last: Last::now(),
        began: Instant::now(),
        asked: None,
        half_closed: None,
        kept_end: None,
        blocked: None,
        again,
    };
    relay.carry_all().await
}

/// Whether a side has ended, and everything that it sent before is delivered, as a kernel would.
fn is_through(wire: &Wire, lane: &Lane) -> bool {
    wire.has_ended() && wire.incoming.is_empty() && lane.stream.is_empty()
}

/// Whether a side has ended, and the other one is not to learn it: its direction is stalled. Where both have ended, each
/// knows enough.
fn keeps_end(from: &Wire, lane: &mut Lane, to: &Wire) -> bool {
    from.has_ended() && !to.has_ended() && lane.stream.keeps_end()
}

/// One direction of a connection.
struct Lane {
    frames: Mangler,
    stream: DelayedBytes,
    scanner: Scanner,
    /// How much of what came in has been looked at already.
    scanned: usize,
}

impl Lane {
    fn new(direction: Direction, shape: Shape, scribe: &ExchangeRecorder, journal: Option<Journal>) -> Lane {
        let by = if direction == Direction::ToServer { Actor::Probe } else { Actor::Front };
        Lane {
            frames: Mangler::new(direction, scribe.clone()),
            stream: DelayedBytes::new(shape, scribe.clone()),
            scanner: Scanner::new(by, journal),
            scanned: 0,
        }
    }

    /// The bytes that come in from its side: only a fault of frames needs more than a head at a time.
    fn wire(&self, link: Link) -> Wire {
        let mut wire = Wire::new(link);
        if !self.frames.has_faults() {
            wire.read_ahead(HIGH_WATER_BYTES);
        }
        wire
    }

    /// Carries what is no head and no body; how that ends the connection.
    fn carry(&mut self, incoming: &mut BytesMut, back: &mut DelayedBytes) -> Option<(End, usize)> {
        if incoming.is_empty() {
            return None;
        }
        self.scanner.scan(&incoming[self.scanned..]);
        let end = if self.stream.is_upgraded() && self.frames.has_faults() {
            self.frames.carry(incoming, &mut self.stream, back)
        } else {
            self.stream.push(incoming.to_vec(), Duration::ZERO);
            incoming.clear();
            None
        };
        self.scanned = incoming.len();
        end
    }

    /// Whether nothing will ever act on it any more, and nothing is under way.
    fn is_plain(&self) -> bool {
        !self.frames.has_faults() && self.stream.is_plain()
    }

    fn upgraded(&mut self, coding: Option<Coding>) {
        self.frames.upgraded(coding);
        self.stream.upgraded();
        self.scanner.upgraded();
    }
}

struct Relay {
    client: Wire,
    server: Wire,
    exchange: EdgeExchange,
    to_server: Lane,
    to_client: Lane,
    limits: ConnectionLimits,
    scribe: ExchangeRecorder,
    /// When anything last came from either side.
    last: Last,
    began: Instant,
    /// Since when the client says nothing more, and waits for an answer.
    half_closed: Option<Instant>,
    /// The side whose end a stalled direction keeps back, and since when.
    kept_end: Option<(Ended, Instant)>,
    /// Since when the oldest request waits for its answer, and how many answers there had been.
    asked: Option<(Instant, usize)>,
    /// Since when one side takes nothing of what the other one said before its end.
    blocked: Option<Blocked>,
    /// Makes another connection to the server.
    again: Option<Redial>,
}

/// A side that does not read what the other one said before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Blocked {
    /// The side that has ended.
    ended: Ended,
    since: Instant,
    /// How many bytes it had taken by then.
    written: u64,
}

impl Blocked {
    /// How long it may go on.
    fn due(self) -> Instant {
        let limit = if self.ended == Ended::Server { FLUSH_LIMIT } else { HALF_CLOSED_LIMIT };
        self.since + limit
    }
}

impl Relay {
    /// Carries everything.
    // Long: the ways to an end, in the order in which they count.
    async fn carry_all(mut self) -> ConnectionSummary {
        let (end, ended) = loop {
            if let Some((end, index)) = self.carry() {
                break (end, Ended::Fault(index));
            }
            if self.can_only_pass() && self.client.outgoing.is_empty() && self.server.outgoing.is_empty() {
                return self.pass().await;
            }
            // A fault that answers in the server's place waits for a request to answer.
            let may_yet_ask = self.limits.missing.is_some() && self.exchange.is_fresh() && !self.client.has_ended();
            let now = Instant::now();
            self.kept_end = self.look_for_kept_end(now);
            if let Some((ended, _)) = self.kept_end.filter(|(_, since)| *since + KEPT_END_LIMIT <= now) {
                break (End::Reset, ended);
            }
            let kept = self.kept_end.map(|(ended, _)| ended);
            if is_through(&self.server, &self.to_client) && !may_yet_ask && kept != Some(Ended::Server) {
                if self.ask_again().await {
                    continue;
                }
                let answered = self.limits.missing.take().filter(|_| self.exchange.is_waiting());
                break match answered {
                    Some(page) => (End::Finished, self.answer_with(&page)),
                    None => (broken(&self.server), Ended::Server),
                };
            }
            if self.half_closed.is_some_and(|since| since + HALF_CLOSED_LIMIT <= now) {
                break (End::Finished, Ended::Client);
            }
            self.blocked = self.look_for_blocked(now);
            if let Some(blocked) = self.blocked.filter(|blocked| blocked.due() <= now) {
                break (End::Reset, blocked.ended);
            }
            let is_client_through = is_through(&self.client, &self.to_server) && kept != Some(Ended::Client);
            if is_client_through && self.half_closed.is_none() {
                if self.client.is_broken() || self.exchange.is_upgraded() || !self.exchange.is_busy() {
                    break (broken(&self.client), Ended::Client);
                }
                // A client that ended its side after a request may still read the answer.
                self.half_closed = Some(now);
                let _ = timeout(FLUSH_LIMIT, self.server.end()).await;
            }
            let since = self.waits_since(now);
            let limit = self.limits.due(self.last, since);
            if let Some((_, index)) = limit.filter(|(due, _)| *due <= now) {
                break (End::Finished, self.time_is_over(index));
            }
            let lanes = [&self.to_server, &self.to_client].into_iter().filter_map(|lane| lane.stream.due()).min();
            if lanes.is_some_and(|due| due <= now) && self.can_hand_over() {
                // Another piece is to go; the reader has its turn first.
                yield_now().await;
                continue;
            }
            let due = lanes.filter(|due| *due > now).into_iter().chain(limit.map(|(due, _)| due));
            let due = due.chain(self.half_closed.map(|since| since + HALF_CLOSED_LIMIT));
            let due = due.chain(self.kept_end.map(|(_, since)| since + KEPT_END_LIMIT));
            let due = due.chain(self.blocked.map(Blocked::due)).min();
            self.progress(due).await;
        };
        self.finish(end, ended).await
    }

    /// The side whose end is kept back, and since when.
    fn look_for_kept_end(&mut self, now: Instant) -> Option<(Ended, Instant)> {
        let ended = if keeps_end(&self.client, &mut self.to_server, &self.server) {
            Ended::Client
        } else if keeps_end(&self.server, &mut self.to_client, &self.client) {
            Ended::Server
        } else {
            return None;
        };
        Some(self.kept_end.filter(|(before, _)| *before == ended).unwrap_or((ended, now)))
    }

    /// The side that does not read what the other one said before its end, and since when it has taken nothing.
    fn look_for_blocked(&self, now: Instant) -> Option<Blocked> {
        let is_blocked =
            |from: &Wire, to: &Wire| from.has_ended() && !to.outgoing.is_empty() && self.kept_end.is_none();
        let (ended, written) = if is_blocked(&self.server, &self.client) {
            (Ended::Server, self.client.written())
        } else if is_blocked(&self.client, &self.server) {
            (Ended::Client, self.server.written())
        } else {
            return None;
        };
        let is_same = |before: &Blocked| before.ended == ended && before.written == written;
        Some(self.blocked.filter(is_same).unwrap_or(Blocked { ended, since: now, written }))
    }

    /// Reads or writes on either side, until this time at the latest.
    async fn progress(&mut self, due: Option<Instant>) {
        let (client, server) = (&mut self.client, &mut self.server);
        let moved = poll_fn(|cx| match client.poll_progress(cx) {
            Poll::Ready(progress) => Poll::Ready((Direction::ToServer, progress)),
            Poll::Pending => server.poll_progress(cx).map(|progress| (Direction::ToClient, progress)),
        });
        let progress = match due {
            None => Some(moved.await),
            Some(due) => {
                tokio::select! {
                    biased;
                    progress = moved => Some(progress),
                    () = sleep_until(due) => None,
                }
            }
        };
        match progress {
            Some((Direction::ToServer, Progress::Read)) => self.last.from_client = Instant::now(),
            Some((Direction::ToClient, Progress::Read)) => self.last.from_server = Instant::now(),
            _ => {}
        }
    }

    /// Ends both connections.
    async fn finish(mut self, end: End, ended: Ended) -> ConnectionSummary {
        let (from_client, from_server) = (self.to_server.scanner.load(), self.to_client.scanner.load());
        let (upgraded, lasted, is_reset) = (self.exchange.is_upgraded(), self.began.elapsed(), end == End::Reset);
        if end == End::Finished {
            let (client, server) = (&mut self.client, &mut self.server);
            let _ = timeout(FLUSH_LIMIT, async { tokio::join!(client.flush(), server.flush()) }).await;
        }
        let ((client, from_them), (server, from_it)) = (self.client.into_link(), self.server.into_link());
        let (mut there, mut back) = (self.to_server, self.to_client);
        there.scanner.scan(from_them.get(there.scanned..).unwrap_or_default());
        back.scanner.scan(from_it.get(back.scanned..).unwrap_or_default());
        part((client, there.scanner), (server, back.scanner), end).await;
        ConnectionSummary { ended, upgraded, is_reset, lasted, from_client, from_server }
    }

    /// Whether what comes from now on needs only be carried.
    fn can_only_pass(&self) -> bool {
        self.exchange.is_request_opaque()
            && self.exchange.is_answer_opaque()
            && self.to_server.is_plain()
            && self.to_client.is_plain()
    }

    async fn pass(self) -> ConnectionSummary {
        let ((mut client, from_client), (mut server, from_server)) = (self.client.into_link(), self.server.into_link());
        let there = (&mut client, &from_client, self.to_server.scanner);
        let back = (&mut server, &from_server, self.to_client.scanner);
        let (ended, end, there, back) = pass::pass(there, back, &self.limits, self.last).await;
        let (from_client, from_server) = (there.load(), back.load());
        let (lasted, is_reset) = (self.began.elapsed(), end == End::Reset);
        if let Ended::Fault(index) = ended {
            self.scribe.fired(index, Actor::Edge, self.scribe.plan().faults[index].kind.to_string());
        }
        part((client, there), (server, back), end).await;
        ConnectionSummary { ended, upgraded: self.exchange.is_upgraded(), is_reset, lasted, from_client, from_server }
    }

    /// Since when a request waits for its answer to begin.
    fn waits_since(&mut self, now: Instant) -> Option<Instant> {
        if !self.exchange.is_waiting() {
            self.asked = None;
            return None;
        }
        let answers = self.exchange.answers();
        let since = self.asked.filter(|(_, before)| *before == answers).map_or(now, |(since, _)| since);
        self.asked = Some((since, answers));
        Some(since)
    }

    /// Asks once more on another connection, where a fault does and what was asked allows it.
    async fn ask_again(&mut self) -> bool {
        let Some(index) = self.limits.retry else { return false };
        let (Some(redial), Some(request)) = (&self.again, self.exchange.again()) else { return false };
        self.limits.retry = None;
        let Some(link) = redial().await else { return false };
        self.fire(index);
        self.server = Wire::new(link);
        self.server.outgoing = request;
        true
    }

    /// Answers in the server's place.
    fn answer_with(&mut self, page: &limits::Page) -> Ended {
        self.to_client.stream.hand_over_all(&mut self.client.outgoing);
        head::write_page(page.status, &page.body, &mut self.client.outgoing);
        self.fire(page.index)
    }

    /// Ends the connection because its time is over.
    fn time_is_over(&mut self, index: usize) -> Ended {
        match self.limits.late.take_if(|(_, page)| page.index == index) {
            Some((_, page)) => self.answer_with(&page),
            None => self.fire(index),
        }
    }

    fn fire(&self, index: usize) -> Ended {
        self.scribe.fired(index, Actor::Edge, self.scribe.plan().faults[index].kind.to_string());
        Ended::Fault(index)
    }

    /// Whether a piece that is due has nothing before it.
    fn can_hand_over(&self) -> bool {
        (self.to_server.stream.is_due() && self.server.outgoing.is_empty())
            || (self.to_client.stream.is_due() && self.client.outgoing.is_empty())
    }

    /// Moves what came in on either side as far as it gets; how that ends the connection, and by which fault.
    fn carry(&mut self) -> Option<(End, usize)> {
        let mut end = None;
        if self.to_server.stream.waiting() < HIGH_WATER_BYTES {
            let incoming = &mut self.client.incoming;
            let (before, mut carried) = (incoming.len(), Vec::new());
            self.exchange.request(incoming, &mut carried);
            self.to_server.scanner.pass_by(before - incoming.len());
            self.to_server.stream.push(carried, Duration::ZERO);
        }
        if self.to_client.stream.waiting() < HIGH_WATER_BYTES {
            let incoming = &mut self.server.incoming;
            let (before, mut carried) = (incoming.len(), Vec::new());
            let was_upgraded = self.exchange.is_upgraded();
            end = self.exchange.answer(incoming, &mut carried);
            self.to_client.scanner.pass_by(before - incoming.len());
            self.to_client.stream.push(carried, Duration::ZERO);
            if self.exchange.is_upgraded() && !was_upgraded {
                let (from_client, from_server) = self.exchange.codings();
                self.to_server.upgraded(from_client);
                self.to_client.upgraded(from_server);
            }
        }
        if end.is_none() && !self.can_only_pass() {
            let (there, back) = (&mut self.to_server, &mut self.to_client);
            if self.exchange.is_request_opaque() && there.stream.waiting() < HIGH_WATER_BYTES {
                end = there.carry(&mut self.client.incoming, &mut back.stream);
            }
            if end.is_none() && self.exchange.is_answer_opaque() && back.stream.waiting() < HIGH_WATER_BYTES {
                end = back.carry(&mut self.server.incoming, &mut there.stream);
            }
        }
        if self.server.has_ended() {
            let mut kept = Vec::new();
            self.exchange.release(&mut kept);
            self.to_client.stream.push(kept, Duration::ZERO);
        }
        for (wire, lane) in [(&mut self.client, &mut self.to_server), (&mut self.server, &mut self.to_client)] {
            // A frame that is not whole when a side ends never will be.
            if wire.has_ended() && lane.stream.waiting() < HIGH_WATER_BYTES {
                lane.frames.release(&mut lane.stream);
                lane.stream.push(wire.incoming.to_vec(), Duration::ZERO);
                wire.incoming.clear();
            }
        }
        let cut = self.to_server.stream.hand_over(&mut self.server.outgoing);
        let cut = cut.or(self.to_client.stream.hand_over(&mut self.client.outgoing));
        if let Some((End::Finished, _)) = end {
            // Bytes that a fault of frames or answers sent last still go out.
            self.to_server.stream.hand_over_all(&mut self.server.outgoing);
            self.to_client.stream.hand_over_all(&mut self.client.outgoing);
        }
        end.or(cut)
    }
}

/// How a side that ended its link wants the other's to end.
fn broken(wire: &Wire) -> End {
    if wire.is_broken() { End::Reset } else { End::Finished }
}

/// How long the sides may take to part once everything is said.
const PARTING_LIMIT: Duration = Duration::from_secs(1);

/// Ends both links as the connection ended. A close frame that a side sends meanwhile is still told.
async fn part((client, mut there): (Link, Scanner), (server, mut back): (Link, Scanner), end: End) {
    match end {
        End::Reset => {
            client.reset();
            server.reset();
        }
        End::Finished => {
            let client = client.finish_and_tell(|bytes| there.scan(bytes));
            let server = server.finish_and_tell(|bytes| back.scan(bytes));
            let _ = timeout(PARTING_LIMIT, async { tokio::join!(client, server) }).await;
        }
    }
}
