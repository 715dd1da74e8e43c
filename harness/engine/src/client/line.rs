//! A connection that carries plain requests: one, several after one another, or several at a time.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::client::{
    Attention, READ_AHEAD_BYTES_MAX, Seat, body, bounded, dwell, handshake, session::ClientSession, write_slices,
};
use relapse_core::{
    client::{
        credential::Presented,
        step::{Action, BodyExpectation, Carrier, Request, Slices},
    },
    record::transcript::{Actor, BodyEnd, BodyPart, BodyTiming, EventKind},
    wire::{
        deflate::DeflateParameters,
        head::{RequestHead, ResponseHead, has_token},
    },
};
use relapse_simulate::{
    link::{Link, Wire, take},
    recorder::ExchangeRecorder,
};

/// A request whose answer is not read yet.
pub(super) struct PendingAnswer<'a> {
    scribe: ExchangeRecorder,
    /// The user the client says it is.
    user: String,
    request: Cow<'a, Request>,
    head: RequestHead,
    limit: Duration,
    sent: Instant,
}

impl<'a> PendingAnswer<'a> {
    pub(super) fn new(
        scribe: ExchangeRecorder,
        user: String,
        request: Cow<'a, Request>,
        head: RequestHead,
        limit: Duration,
    ) -> PendingAnswer<'a> {
        PendingAnswer { scribe, user, request, head, limit, sent: Instant::now() }
    }

    fn record(&self, what: EventKind) {
        self.scribe.record(Actor::Probe, what);
    }

    /// Records a body of which so many bytes more came than are kept.
    fn record_body(&self, body: Bytes, end: BodyEnd, omitted: u64) {
        self.scribe.record_abridged(Actor::Probe, EventKind::BodySeen { body, end }, omitted);
    }

    fn deadline(&self, waiting_for: &str) {
        self.record(EventKind::DeadlinePassed { waiting_for: waiting_for.to_owned(), limit: self.limit });
    }
}

/// Whether a connection is kept for another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionReuse {
    Connection,
    Nothing,
}

impl ConnectionReuse {
    /// The fate of a connection after which a client's next request, if any, goes on this one.
    pub(super) fn before(next: Option<Carrier>) -> ConnectionReuse {
        match next {
            Some(Carrier::SameConnection | Carrier::Pipeline) => ConnectionReuse::Connection,
            Some(Carrier::NewConnection) | None => ConnectionReuse::Nothing,
        }
    }
}

/// How reading an answer ended.
enum AnswerEnd {
    /// It opened a WebSocket, whose messages may be compressed.
    Upgraded(Option<DeflateParameters>),
    /// It came whole; the connection may carry another.
    Whole,
    /// It is the last one of its connection, or no answer came before the end of the stream.
    Last,
    /// The client waits no longer, so that what comes next cannot be told apart.
    Lost(Lost),
}

/// Why an answer is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    Deadline,
    Left,
    Unreadable,
}

/// One connection with the requests on it that are not answered.
pub(super) struct ClientConnection<'a> {
    wire: Wire,
    /// Writes for the last request.
    pub(super) scribe: ExchangeRecorder,
    /// The exchange that began the connection.
    pub(super) first: usize,
    asked: VecDeque<PendingAnswer<'a>>,
    attention: Attention,
    chance: fastrand::Rng,
}

impl<'a> ClientConnection<'a> {
    pub(super) fn new(
        link: Link,
        scribe: ExchangeRecorder,
        attention: Attention,
        chance: fastrand::Rng,
    ) -> ClientConnection<'a> {
        let first = scribe.exchange();
        let mut wire = Wire::new(link);
        wire.read_ahead(READ_AHEAD_BYTES_MAX);
        ClientConnection { wire, scribe, first, asked: VecDeque::new(), attention, chance }
    }

    /// Writes a request, as much of it as its step says.
    pub(super) async fn ask(&mut self, mut asked: PendingAnswer<'a>, credential: Presented, slices: Option<Slices>) {
        let body = &asked.request.body;
        let sent = asked.request.body_sent.unwrap_or(body.len()).min(body.len());
        let mut bytes = Vec::new();
        asked.head.encode(&mut bytes);
        bytes.extend_from_slice(&body[..sent]);
        asked.sent = Instant::now();
        asked.record(EventKind::RequestSent { head: asked.head.clone(), credential });
        match slices {
            None => self.wire.outgoing.append(&mut bytes),
            Some(slices) => write_slices(&mut self.wire, &bytes, slices, asked.limit).await,
        }
        if !body.is_empty() {
            let is_in_pieces = slices.is_some_and(|slices| slices.bytes * 2 <= body.len());
            asked.record(EventKind::BodySent { digest: digest(body), is_in_pieces });
        }
        if sent < body.len() {
            asked.record(EventKind::BodyCutShort { sent, whole: body.len() });
            self.push(asked.limit).await;
        }
        self.scribe = asked.scribe.clone();
        self.asked.push_back(asked);
    }

    /// Lets a time pass, and keeps what comes meanwhile.
    pub(super) async fn dwell(&mut self, time: Duration) {
        dwell(&mut self.wire, time).await;
    }

    /// Lets a time pass, and reads nothing.
    pub(super) async fn freeze(&mut self, time: Duration) {
        let start = Instant::now();
        let _ = bounded(time, self.wire.push()).await;
        sleep(time.saturating_sub(start.elapsed())).await;
    }

    /// Writes what is to go out.
    pub(super) async fn push(&mut self, limit: Duration) {
        let _ = bounded(limit, self.wire.flush()).await;
    }

    /// Ends the connection as the act says. An answer that came before is still seen.
    pub(super) async fn go(mut self, act: &Action, limit: Duration) {
        self.push(limit).await;
        let Some(asked) = self.asked.pop_front() else { return };
        if let Ok(Some((response, length))) = ResponseHead::decode(&self.wire.incoming) {
            take(&mut self.wire.incoming, length);
            asked.record(EventKind::ResponseSeen(response.clone()));
            let memory = asked.scribe.memory().clone();
            let mut reader = body::BodyReader::new(&asked.head.method, &response, body::AfterBody::Answers, memory);
            let end = reader.read(&mut self.wire.incoming, body::BodyStream::Ended).unwrap_or(BodyEnd::Truncated);
            asked.record(EventKind::BodySeen { body: Bytes::from(reader.into_body()), end });
        }
        let unanswered: Vec<PendingAnswer<'_>> = std::iter::once(asked).chain(self.asked.drain(..)).collect();
        for asked in &unanswered {
            if matches!(act, Action::Reset) {
                asked.record(EventKind::LinkReset);
            }
            asked.record(EventKind::Left);
        }
        if matches!(act, Action::Reset) {
            self.wire.reset();
        }
    }

    /// Limits what is still to be read.
    pub(super) fn within(mut self: Box<Self>, limit: Duration) -> Box<Self> {
        self.asked.iter_mut().for_each(|asked| asked.limit = limit);
        self
    }

    /// Reads the answers to everything that was asked, in order.
    pub(super) async fn read_answers(mut self: Box<Self>, keeps: ConnectionReuse) -> Seat<'a> {
        let mut last = AnswerEnd::Last;
        while let Some(asked) = self.asked.pop_front() {
            last = match last {
                AnswerEnd::Lost(lost) => {
                    match lost {
                        Lost::Deadline => asked.deadline("the answer to the request"),
                        Lost::Left => asked.record(EventKind::Left),
                        Lost::Unreadable => asked.record(EventKind::BadHeadSeen {
                            why: "the end of the answer before it cannot be told".to_owned(),
                        }),
                    }
                    AnswerEnd::Lost(lost)
                }
                AnswerEnd::Upgraded(_) | AnswerEnd::Whole | AnswerEnd::Last => self.read_answer(&asked).await,
            };
            if let AnswerEnd::Upgraded(agreed) = last {
                let ClientConnection { wire, attention, chance, .. } = *self;
                let session = ClientSession::new(wire, asked.scribe, asked.user, attention, chance);
                return Seat::Open(Box::new(session.agreed(agreed)));
            }
        }
        match (last, keeps) {
            (AnswerEnd::Whole, ConnectionReuse::Connection) => Seat::Kept(self),
            _ => Seat::over(self.scribe),
        }
    }

    async fn read_answer(&mut self, asked: &PendingAnswer<'a>) -> AnswerEnd {
        let request = &asked.request;
        let patience = request.give_up.unwrap_or(asked.limit);
        let Some(response) = bounded(patience, self.read_head(asked)).await else {
            self.tell_late(asked, None);
            return AnswerEnd::Lost(match request.give_up {
                Some(_) => {
                    asked.record(EventKind::Left);
                    Lost::Left
                }
                None => {
                    asked.deadline("the answer to the request");
                    Lost::Deadline
                }
            });
        };
        let Some(response) = response else { return AnswerEnd::Last };
        asked.record(EventKind::ResponseSeen(response.clone()));
        if response.status != 101 {
            return self.read_body(asked, &response).await;
        }
        match handshake::verify(&asked.head, &response, request.client) {
            Ok(agreed) => AnswerEnd::Upgraded(agreed),
            Err(why) => {
                asked.record(EventKind::HandshakeRefused { why });
                AnswerEnd::Last
            }
        }
    }

    async fn read_head(&mut self, asked: &PendingAnswer<'a>) -> Option<ResponseHead> {
        loop {
            match ResponseHead::decode(&self.wire.incoming) {
                Ok(Some((head, length))) => {
                    take(&mut self.wire.incoming, length);
                    // An interim answer says nothing yet (RFC 9110 section 15.2).
                    if head.status == 101 || head.status >= 200 {
                        return Some(head);
                    }
                }
                Ok(None) if self.wire.has_ended() => {
                    asked.record(EventKind::EndSeen);
                    return None;
                }
                Ok(None) => {
                    self.wire.progress().await;
                }
                Err(error) => {
                    asked.record(EventKind::BadHeadSeen { why: format!("{error:?}") });
                    return None;
                }
            }
        }
    }

    async fn read_body(&mut self, asked: &PendingAnswer<'a>, head: &ResponseHead) -> AnswerEnd {
        let behind = if self.asked.is_empty() { body::AfterBody::Nothing } else { body::AfterBody::Answers };
        let memory = asked.scribe.memory().clone();
        let mut reader = body::BodyReader::new(&asked.head.method, head, behind, memory);
        let mut pace = BodyPace::new(asked.sent);
        let finished = bounded(asked.limit, async {
            loop {
                let stream = body::BodyStream::of(&self.wire);
                let end = reader.read(&mut self.wire.incoming, stream);
                pace.saw(reader.arrived());
                if end.is_some() {
                    return end;
                }
                if reader.has_enough() {
                    return None;
                }
                self.wire.progress().await;
            }
        })
        .await;
        let timing = pace.timing();
        let omitted = reader.omitted();
        let closes = reader.ends_with_the_stream() || has_token(&head.headers, "connection", "close");
        let body = Bytes::from(reader.into_body());
        let answered = match finished {
            Some(Some(end)) => {
                asked.record_body(body, end, omitted);
                match end {
                    BodyEnd::Complete | BodyEnd::None if !closes && !self.wire.has_ended() => AnswerEnd::Whole,
                    BodyEnd::Complete | BodyEnd::None | BodyEnd::Truncated => AnswerEnd::Last,
                    BodyEnd::Surplus | BodyEnd::Malformed => AnswerEnd::Lost(Lost::Unreadable),
                }
            }
            Some(None) => {
                asked.record_body(body, BodyEnd::Truncated, omitted);
                asked.record(EventKind::Left);
                AnswerEnd::Lost(Lost::Left)
            }
            None => {
                asked.record_body(body, BodyEnd::Truncated, omitted);
                asked.deadline("the rest of the body");
                AnswerEnd::Lost(Lost::Deadline)
            }
        };
        if !matches!(finished, Some(Some(BodyEnd::None))) {
            asked.record(EventKind::BodyTimed(timing));
            self.tell_late(asked, Some(timing));
        }
        answered
    }

    /// Records the parts of a body that came later than the step expects, or not at all.
    fn tell_late(&self, asked: &PendingAnswer<'a>, timing: Option<BodyTiming>) {
        let BodyExpectation { first_byte, gap } = asked.request.expects;
        let took = timing.and_then(|timing| timing.first_byte);
        if let Some(limit) = first_byte.filter(|limit| took.is_none_or(|took| took > *limit)) {
            asked.record(EventKind::BodyLate { part: BodyPart::FirstByte, limit, took });
        }
        let longest = timing.map(|timing| timing.longest_gap);
        if let Some((limit, took)) = gap.zip(longest).filter(|(limit, took)| took > limit) {
            asked.record(EventKind::BodyLate { part: BodyPart::Next, limit, took: Some(took) });
        }
    }
}

/// A number that is equal for equal bodies.
fn digest(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

/// Follows when the bytes of a body come.
struct BodyPace {
    sent: Instant,
    head: Instant,
    first: Option<Instant>,
    last: Instant,
    longest_gap: Duration,
    arrived: usize,
}

impl BodyPace {
    /// The head came now.
    fn new(sent: Instant) -> BodyPace {
        let now = Instant::now();
        BodyPace { sent, head: now, first: None, last: now, longest_gap: Duration::ZERO, arrived: 0 }
    }

    /// So many bytes of the body are there by now.
    fn saw(&mut self, arrived: usize) {
        if arrived <= self.arrived {
            return;
        }
        self.arrived = arrived;
        let now = Instant::now();
        match self.first {
            None => self.first = Some(now),
            Some(_) => self.longest_gap = self.longest_gap.max(now - self.last),
        }
        self.last = now;
    }

    /// The timing of a body that ends now.
    fn timing(self) -> BodyTiming {
        let now = Instant::now();
        let last_gap = if self.first.is_some() { now - self.last } else { Duration::ZERO };
        BodyTiming {
            head: self.head - self.sent,
            first_byte: self.first.map(|first| first - self.sent),
            longest_gap: self.longest_gap.max(last_gap),
            end: now - self.sent,
        }
    }
}
