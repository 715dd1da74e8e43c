//! A connection that carries plain requests: one, several after one another, or several at a time.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{Attention, Seat, body, bounded, dwell, handshake, session::Session, write_slices};
use relapse_core::{
    client::{
        credential::Presented,
        step::{Act, BodyExpectation, Carrier, Request, Slices},
    },
    record::transcript::{BodyEnd, BodyPart, BodyTiming, Party, What},
    wire::head::{RequestHead, ResponseHead, has_token},
};
use relapse_simulate::{
    link::{Link, Wire, take},
    recorder::Scribe,
};

/// A request whose answer is not read yet.
pub(super) struct Asked<'a> {
    scribe: Scribe,
    /// The user the client says it is.
    user: String,
    request: &'a Request,
    head: RequestHead,
    limit: Duration,
    sent: Instant,
}

impl<'a> Asked<'a> {
    pub(super) fn new(
        scribe: Scribe,
        user: String,
        request: &'a Request,
        head: RequestHead,
        limit: Duration,
    ) -> Asked<'a> {
        Asked { scribe, user, request, head, limit, sent: Instant::now() }
    }

    fn record(&self, what: What) {
        self.scribe.record(Party::Probe, what);
    }

    fn deadline(&self, waiting_for: &str) {
        self.record(What::DeadlinePassed { waiting_for: waiting_for.to_owned(), limit: self.limit });
    }
}

/// Whether a connection is kept for another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    Connection,
    Nothing,
}

impl Keeps {
    /// The fate of a connection after which a client's next request, if any, goes on this one.
    pub(super) fn before(next: Option<Carrier>) -> Keeps {
        match next {
            Some(Carrier::SameConnection | Carrier::Pipeline) => Keeps::Connection,
            Some(Carrier::NewConnection) | None => Keeps::Nothing,
        }
    }
}

/// How reading an answer ended.
enum Answered {
    /// It opened a WebSocket.
    Upgraded,
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
pub(super) struct Line<'a> {
    wire: Wire,
    /// Writes for the last request.
    pub(super) scribe: Scribe,
    /// The exchange that began the connection.
    pub(super) first: usize,
    asked: VecDeque<Asked<'a>>,
    attention: Attention,
    chance: fastrand::Rng,
}

impl<'a> Line<'a> {
    pub(super) fn new(link: Link, scribe: Scribe, attention: Attention, chance: fastrand::Rng) -> Line<'a> {
        let first = scribe.exchange();
        Line { wire: Wire::new(link), scribe, first, asked: VecDeque::new(), attention, chance }
    }

    /// Writes a request, as much of it as its step says.
    pub(super) async fn ask(&mut self, mut asked: Asked<'a>, credential: Presented, slices: Option<Slices>) {
        let body = &asked.request.body;
        let sent = asked.request.body_sent.unwrap_or(body.len()).min(body.len());
        let mut bytes = Vec::new();
        asked.head.encode(&mut bytes);
        bytes.extend_from_slice(&body[..sent]);
        asked.sent = Instant::now();
        asked.record(What::RequestSent { head: asked.head.clone(), credential });
        match slices {
            None => self.wire.outgoing.append(&mut bytes),
            Some(slices) => write_slices(&mut self.wire, &bytes, slices, asked.limit).await,
        }
        if sent < body.len() {
            asked.record(What::BodyCutShort { sent, whole: body.len() });
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
    pub(super) async fn go(mut self, act: &Act, limit: Duration) {
        self.push(limit).await;
        let Some(asked) = self.asked.pop_front() else { return };
        if let Ok(Some((response, length))) = ResponseHead::decode(&self.wire.incoming) {
            take(&mut self.wire.incoming, length);
            asked.record(What::ResponseSeen(response.clone()));
            let mut reader = body::Reader::new(&asked.head.method, &response, body::Behind::Answers);
            let end = reader.read(&mut self.wire.incoming, body::Stream::Ended).unwrap_or(BodyEnd::Truncated);
            asked.record(What::BodySeen { body: Bytes::from(reader.into_body()), end });
        }
        let unanswered: Vec<Asked<'_>> = std::iter::once(asked).chain(self.asked.drain(..)).collect();
        for asked in &unanswered {
            if matches!(act, Act::Reset) {
                asked.record(What::LinkReset);
            }
            asked.record(What::Left);
        }
        if matches!(act, Act::Reset) {
            self.wire.reset();
        }
    }

    /// Limits what is still to be read.
    pub(super) fn within(mut self: Box<Self>, limit: Duration) -> Box<Self> {
        self.asked.iter_mut().for_each(|asked| asked.limit = limit);
        self
    }

    /// Reads the answers to everything that was asked, in order.
    pub(super) async fn read_answers(mut self: Box<Self>, keeps: Keeps) -> Seat<'a> {
        let mut last = Answered::Last;
        while let Some(asked) = self.asked.pop_front() {
            last = match last {
                Answered::Lost(lost) => {
                    match lost {
                        Lost::Deadline => asked.deadline("the answer to the request"),
                        Lost::Left => asked.record(What::Left),
                        Lost::Unreadable => asked.record(What::BadHeadSeen {
                            why: "the end of the answer before it cannot be told".to_owned(),
                        }),
                    }
                    Answered::Lost(lost)
                }
                Answered::Upgraded | Answered::Whole | Answered::Last => self.read_answer(&asked).await,
            };
            if let Answered::Upgraded = last {
                let Line { wire, attention, chance, .. } = *self;
                return Seat::Open(Box::new(Session::new(wire, asked.scribe, asked.user, attention, chance)));
            }
        }
        match (last, keeps) {
            (Answered::Whole, Keeps::Connection) => Seat::Kept(self),
            _ => Seat::over(self.scribe),
        }
    }

    async fn read_answer(&mut self, asked: &Asked<'a>) -> Answered {
        let request = asked.request;
        let patience = request.give_up.unwrap_or(asked.limit);
        let Some(response) = bounded(patience, self.read_head(asked)).await else {
            self.tell_late(asked, None);
            return Answered::Lost(match request.give_up {
                Some(_) => {
                    asked.record(What::Left);
                    Lost::Left
                }
                None => {
                    asked.deadline("the answer to the request");
                    Lost::Deadline
                }
            });
        };
        let Some(response) = response else { return Answered::Last };
        asked.record(What::ResponseSeen(response.clone()));
        if response.status != 101 {
            return self.read_body(asked, &response).await;
        }
        if let Err(why) = handshake::verify(&asked.head, &response, request.client) {
            asked.record(What::HandshakeRefused { why });
            return Answered::Last;
        }
        Answered::Upgraded
    }

    async fn read_head(&mut self, asked: &Asked<'a>) -> Option<ResponseHead> {
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
                    asked.record(What::EndSeen);
                    return None;
                }
                Ok(None) => {
                    self.wire.progress().await;
                }
                Err(error) => {
                    asked.record(What::BadHeadSeen { why: format!("{error:?}") });
                    return None;
                }
            }
        }
    }

    async fn read_body(&mut self, asked: &Asked<'a>, head: &ResponseHead) -> Answered {
        let behind = if self.asked.is_empty() { body::Behind::Nothing } else { body::Behind::Answers };
        let mut reader = body::Reader::new(&asked.head.method, head, behind);
        let mut pace = Pace::new(asked.sent);
        let finished = bounded(asked.limit, async {
            loop {
                pace.saw(reader.arrived(&self.wire.incoming));
                let stream = body::Stream::of(&self.wire);
                if let Some(end) = reader.read(&mut self.wire.incoming, stream) {
                    return Some(end);
                }
                if reader.has_enough() {
                    return None;
                }
                self.wire.progress().await;
            }
        })
        .await;
        let timing = pace.timing();
        let closes = reader.ends_with_the_stream() || has_token(&head.headers, "connection", "close");
        let body = Bytes::from(reader.into_body());
        let answered = match finished {
            Some(Some(end)) => {
                asked.record(What::BodySeen { body, end });
                match end {
                    BodyEnd::Complete | BodyEnd::None if !closes && !self.wire.has_ended() => Answered::Whole,
                    BodyEnd::Complete | BodyEnd::None | BodyEnd::Truncated => Answered::Last,
                    BodyEnd::Surplus | BodyEnd::Malformed => Answered::Lost(Lost::Unreadable),
                }
            }
            Some(None) => {
                asked.record(What::BodySeen { body, end: BodyEnd::Truncated });
                asked.record(What::Left);
                Answered::Lost(Lost::Left)
            }
            None => {
                asked.record(What::BodySeen { body, end: BodyEnd::Truncated });
                asked.deadline("the rest of the body");
                Answered::Lost(Lost::Deadline)
            }
        };
        if !matches!(finished, Some(Some(BodyEnd::None))) {
            asked.record(What::BodyTimed(timing));
            self.tell_late(asked, Some(timing));
        }
        answered
    }

    /// Records the parts of a body that came later than the step expects, or not at all.
    fn tell_late(&self, asked: &Asked<'a>, timing: Option<BodyTiming>) {
        let BodyExpectation { first_byte, gap } = asked.request.expects;
        let took = timing.and_then(|timing| timing.first_byte);
        if let Some(limit) = first_byte.filter(|limit| took.is_none_or(|took| took > *limit)) {
            asked.record(What::BodyLate { part: BodyPart::FirstByte, limit, took });
        }
        let longest = timing.map(|timing| timing.longest_gap);
        if let Some((limit, took)) = gap.zip(longest).filter(|(limit, took)| took > limit) {
            asked.record(What::BodyLate { part: BodyPart::Next, limit, took: Some(took) });
        }
    }
}

/// Follows when the bytes of a body come.
struct Pace {
    sent: Instant,
    head: Instant,
    first: Option<Instant>,
    last: Instant,
    longest_gap: Duration,
    arrived: usize,
}

impl Pace {
    /// The head came now.
    fn new(sent: Instant) -> Pace {
        let now = Instant::now();
        Pace { sent, head: now, first: None, last: now, longest_gap: Duration::ZERO, arrived: 0 }
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
