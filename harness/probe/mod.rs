//! The client: performs steps and records what it sees. It never judges.

mod body;
mod handshake;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    close_code::CloseCode,
    credential::{CredentialPlace, Form, Presented},
    error::Error,
    frame::{Assembly, Frame, FrameError, Opcode},
    head::{RequestHead, ResponseHead, has_token, header},
    link::{Link, Wire, take},
    message::message_type,
    recorder::{Recorder, Scribe},
    step::{Act, Awaited, Crowd, Request, Step},
    target::Target,
    transcript::{BodyEnd, Party, What},
};

/// The largest payload the probe reads, in bytes.
pub const PAYLOAD_BYTES_MAX: u64 = 16 << 20;

/// How long the probe waits for the end of a session that its steps left open.
const PARTING_LIMIT: Duration = Duration::from_secs(5);

/// The first pause of a client that was refused a connection; each further one is twice as long (the reported front
/// end's reconnect: 1 s, at most 30 s).
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause of a client that was refused a connection.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// What stands for the client's user in a message.
const USER_PLACEHOLDER: &str = "{user}";

/// What is performed, and by how many clients.
#[derive(Debug, Clone, Copy)]
pub struct Script<'a> {
    /// The steps of every client.
    pub steps: &'a [Step],
    /// The clients.
    pub crowd: Crowd,
}

impl<'a> Script<'a> {
    /// The steps of one client.
    pub fn of_one(steps: &'a [Step]) -> Script<'a> {
        Script { steps, crowd: Crowd::ONE }
    }
}

/// Performs the steps against a running target: every client at the same time, each a step at a time.
///
/// # Errors
/// When no link to the target can be had. What the target does is never an error.
pub async fn perform(script: Script<'_>, recorder: &Recorder, target: &dyn Target) -> Result<(), Error> {
    let clients = (0..script.crowd.clients()).map(|number| Client::new(number, script, recorder, target).perform());
    try_join_all(clients).await.map(drop)
}

/// Opens a WebSocket, and hands its wire over to whoever goes on alone; nothing where it does not come about, and the
/// recorder knows why.
///
/// # Errors
/// When no link to the target can be had.
pub async fn open(
    request: &Request,
    limit: Duration,
    recorder: &Recorder,
    target: &dyn Target,
) -> Result<Option<Wire>, Error> {
    let step = Step { act: Act::Open(request.clone()), limit };
    let mut client = Client::new(0, Script::of_one(std::slice::from_ref(&step)), recorder, target);
    let session = client.open(request, &step, recorder.scribe(0)).await?;
    Ok(session.map(|session| session.exchange.wire))
}

/// One client of a script.
struct Client<'a> {
    number: usize,
    script: Script<'a>,
    recorder: &'a Recorder,
    target: &'a dyn Target,
    chance: fastrand::Rng,
}

impl<'a> Client<'a> {
    fn new(number: usize, script: Script<'a>, recorder: &'a Recorder, target: &'a dyn Target) -> Client<'a> {
        let seed = recorder.plan().seed.wrapping_add(number as u64);
        Client { number, script, recorder, target, chance: fastrand::Rng::with_seed(seed) }
    }

    async fn perform(mut self) -> Result<(), Error> {
        let openings = self.script.steps.iter().filter(|step| opening(step).is_some()).count();
        for round in 0..self.script.crowd.rounds {
            self.play((self.number * self.script.crowd.rounds + round) * openings).await?;
        }
        Ok(())
    }

    /// Performs the steps once; the exchanges they open are counted from `first` on.
    async fn play(&mut self, first: usize) -> Result<(), Error> {
        let mut session: Option<Session> = None;
        let mut exchanges = first;
        for (number, step) in self.script.steps.iter().enumerate() {
            if let Some(request) = opening(step) {
                if let Some(session) = session.take() {
                    session.part(&mut self.chance).await;
                }
                let scribe = self.recorder.scribe(exchanges);
                scribe.at_step(number + 1);
                exchanges += 1;
                session = self.open(request, step, scribe).await?;
            } else if let Some(mut open) = session.take() {
                open.exchange.scribe.at_step(number + 1);
                session = open.perform(&step.act, step.limit, &mut self.chance).await.then_some(open);
            } else if matches!(step.act, Act::Pause | Act::Freeze) {
                sleep(step.limit).await;
            }
        }
        if let Some(session) = session {
            session.part(&mut self.chance).await;
        }
        Ok(())
    }

    async fn open(&mut self, request: &Request, step: &Step, scribe: Scribe) -> Result<Option<Session>, Error> {
        let Some(link) = self.connect(request, &scribe).await? else { return Ok(None) };
        let user = match self.script.crowd.users {
            1 => request.user.clone(),
            users => format!("user-{}", self.number % users + 1),
        };
        let form = if request.places.contains(&CredentialPlace::Ticket) { Form::Ticket } else { Form::Token };
        let credential = self.target.credential(request.credential, &user, form);
        let exchange = Exchange { wire: Wire::new(link), scribe, user };
        let is_upgrade = matches!(step.act, Act::Open(_));
        let head = handshake::request_head(request, is_upgrade, &credential.text, &mut self.chance);
        Ok(exchange.request(request, head, credential, step.limit).await)
    }

    /// Connects, and tries again as long as the request says.
    async fn connect(&self, request: &Request, scribe: &Scribe) -> Result<Option<Link>, Error> {
        let start = Instant::now();
        let mut pause = RETRY_PAUSE;
        loop {
            if let Some(link) = self.target.connect(scribe.clone()).await? {
                return Ok(Some(link));
            }
            scribe.record(Party::Probe, What::ConnectionRefused);
            if request.retry.is_none_or(|limit| start.elapsed() + pause > limit) {
                return Ok(None);
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }
}

/// The request of a step that opens an exchange.
fn opening(step: &Step) -> Option<&Request> {
    match &step.act {
        Act::Open(request) | Act::Request(request) => Some(request),
        _ => None,
    }
}

/// One connection, from the request on.
struct Exchange {
    wire: Wire,
    scribe: Scribe,
    /// The user the client says it is.
    user: String,
}

impl Exchange {
    fn record(&self, what: What) {
        self.scribe.record(Party::Probe, what);
    }

    fn deadline(&self, waiting_for: impl ToString, limit: Duration) {
        self.record(What::DeadlinePassed { waiting_for: waiting_for.to_string(), limit });
    }

    /// Sends a request and reads the answer; a session when the answer opens one.
    async fn request(
        mut self,
        request: &Request,
        head: RequestHead,
        credential: Presented,
        limit: Duration,
    ) -> Option<Session> {
        head.encode(&mut self.wire.outgoing);
        self.wire.outgoing.extend_from_slice(&request.body);
        self.record(What::RequestSent { head: head.clone(), credential });
        let patience = request.give_up.unwrap_or(limit);
        let Some(response) = bounded(patience, self.read_head()).await else {
            match request.give_up {
                Some(_) => self.record(What::Left),
                None => self.deadline("the answer to the request", limit),
            }
            return None;
        };
        let response = response?;
        self.record(What::ResponseSeen(response.clone()));
        if response.status != 101 {
            self.read_body(&head.method, &response, limit).await;
            return None;
        }
        if let Err(why) = handshake::verify(&head, &response, request.client) {
            self.record(What::HandshakeRefused { why });
            return None;
        }
        Some(Session { exchange: self, closing: Closing::No, hears_pings: true, assembly: Assembly::default() })
    }

    async fn read_head(&mut self) -> Option<ResponseHead> {
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
                    self.record(What::EndSeen);
                    return None;
                }
                Ok(None) => {
                    self.wire.progress().await;
                }
                Err(error) => {
                    self.record(What::BadHeadSeen { why: format!("{error:?}") });
                    return None;
                }
            }
        }
    }

    async fn read_body(&mut self, method: &str, head: &ResponseHead, limit: Duration) {
        let mut reader = body::Reader::new(method, head);
        let finished = bounded(limit, async {
            loop {
                let ended = self.wire.has_ended();
                if let Some(end) = reader.read(&mut self.wire.incoming, ended) {
                    return Some(end);
                }
                if reader.has_enough() {
                    return None;
                }
                self.wire.progress().await;
            }
        })
        .await;
        let body = Bytes::from(reader.into_body());
        match finished {
            Some(Some(end)) => self.record(What::BodySeen { body, end }),
            Some(None) => {
                self.record(What::BodySeen { body, end: BodyEnd::Truncated });
                self.record(What::Left);
            }
            None => {
                self.record(What::BodySeen { body, end: BodyEnd::Truncated });
                self.deadline("the rest of the body", limit);
            }
        }
    }
}

/// How far the closing handshake has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    /// The probe's close frame is out.
    Sent,
    /// Both close frames are through, or the stream is over.
    Done,
}

/// An open WebSocket.
struct Session {
    exchange: Exchange,
    closing: Closing,
    hears_pings: bool,
    assembly: Assembly,
}

impl Session {
    /// Performs one act; whether the session is still there for another.
    async fn perform(&mut self, act: &Act, limit: Duration, chance: &mut fastrand::Rng) -> bool {
        match act {
            Act::SendText(text) => {
                let text = text.replace(USER_PLACEHOLDER, &self.exchange.user);
                self.send(Frame::new(Opcode::Text, text), chance);
            }
            Act::SendBytes(bytes) => self.send(Frame::new(Opcode::Binary, bytes.clone()), chance),
            Act::Freeze => {
                self.exchange.record(What::StoppedReading);
                sleep(limit).await;
            }
            Act::Ping => {
                self.send(Frame::new(Opcode::Ping, &b"probe"[..]), chance);
                self.within(limit, "a pong", chance, |frame| frame.opcode == Opcode::Pong).await;
            }
            Act::Wait(Awaited::Close) => self.within(limit, "the close", chance, |_| false).await,
            Act::Wait(awaited) => self.within(limit, awaited, chance, |frame| is_awaited(frame, awaited)).await,
            Act::Close(code) => {
                self.close(*code, chance);
                self.within(limit, "the close", chance, |_| false).await;
            }
            Act::Leave => {
                let _ = bounded(limit, self.exchange.wire.flush()).await;
                self.exchange.record(What::Left);
                return false;
            }
            Act::Pause => {
                // Nothing is awaited, so that nothing can come too late; the time passes whoever closes.
                let start = Instant::now();
                let _ = bounded(limit, self.read_until(chance, |_| false)).await;
                sleep(limit.saturating_sub(start.elapsed())).await;
            }
            Act::Deafen => {
                self.hears_pings = false;
                self.within(limit, "the close", chance, |_| false).await;
                self.hears_pings = true;
            }
            Act::Open(_) | Act::Request(_) => {}
        }
        self.closing != Closing::Done
    }

    /// Closes what the steps left open.
    async fn part(mut self, chance: &mut fastrand::Rng) {
        if self.closing == Closing::No {
            self.close(CloseCode::NORMAL, chance);
        }
        self.within(PARTING_LIMIT, "the close", chance, |_| false).await;
    }

    fn close(&mut self, code: CloseCode, chance: &mut fastrand::Rng) {
        self.send(Frame::close(Some(code), ""), chance);
        self.closing = Closing::Sent;
    }

    fn send(&mut self, frame: Frame, chance: &mut fastrand::Rng) {
        let frame = frame.masked(chance.u32(..).to_be_bytes());
        frame.encode(&mut self.exchange.wire.outgoing);
        self.exchange.record(What::FrameSent(frame));
    }

    async fn within(
        &mut self,
        limit: Duration,
        waiting_for: impl ToString,
        chance: &mut fastrand::Rng,
        found: impl Fn(&Frame) -> bool,
    ) {
        if bounded(limit, self.read_until(chance, found)).await.is_none() {
            self.exchange.deadline(waiting_for, limit);
        }
    }

    /// Reads until a frame is found or the connection is over, and answers pings and closes meanwhile.
    async fn read_until(&mut self, chance: &mut fastrand::Rng, found: impl Fn(&Frame) -> bool) {
        while self.closing != Closing::Done {
            match Frame::decode(&mut self.exchange.wire.incoming, PAYLOAD_BYTES_MAX) {
                Ok(Some(frame)) => {
                    self.exchange.record(What::FrameSeen(frame.clone()));
                    let frame = match self.take(frame) {
                        Ok(Some(frame)) => frame,
                        Ok(None) => continue,
                        Err(error) => {
                            self.exchange.record(What::BadFrameSeen(error));
                            self.closing = Closing::Done;
                            return;
                        }
                    };
                    if frame.opcode == Opcode::Ping && self.hears_pings {
                        self.send(Frame::new(Opcode::Pong, frame.payload.clone()), chance);
                    }
                    if frame.opcode == Opcode::Close {
                        return self.answer_close(&frame, chance).await;
                    }
                    if found(&frame) {
                        return;
                    }
                }
                Ok(None) if self.exchange.wire.has_ended() => {
                    self.exchange.record(What::EndSeen);
                    self.closing = Closing::Done;
                }
                Ok(None) => {
                    self.exchange.wire.progress().await;
                }
                Err(error) => {
                    self.exchange.record(What::BadFrameSeen(error));
                    self.closing = Closing::Done;
                }
            }
        }
    }

    /// Takes a frame as a client must: a control frame or a whole message comes out, a piece of a message is kept.
    fn take(&mut self, frame: Frame) -> Result<Option<Frame>, FrameError> {
        let is_last_piece = frame.opcode == Opcode::Continuation && frame.is_final;
        let taken = self.assembly.take(frame, PAYLOAD_BYTES_MAX)?;
        if let Some(whole) = taken.as_ref().filter(|_| is_last_piece) {
            self.exchange.record(What::MessageSeen(whole.clone()));
        }
        Ok(taken)
    }

    async fn answer_close(&mut self, frame: &Frame, chance: &mut fastrand::Rng) {
        if self.closing == Closing::No {
            self.send(Frame::close(frame.close_parts().0, ""), chance);
        }
        self.closing = Closing::Done;
        // The server ends the stream first (RFC 6455 section 7.1.1); a client does not wait for it for ever.
        while !self.exchange.wire.has_ended() {
            self.exchange.wire.progress().await;
            self.exchange.wire.incoming.clear();
        }
        self.exchange.record(What::EndSeen);
    }
}

/// Waits for a future, but not longer than the limit.
async fn bounded<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    // What is already on its way needs no timer: let everybody else run once, then look again.
    for _ in 0..2 {
        if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Some(output);
        }
        yield_now().await;
    }
    timeout(limit, future).await.ok()
}

fn is_awaited(frame: &Frame, awaited: &Awaited) -> bool {
    if frame.opcode != Opcode::Text {
        return false;
    }
    match awaited {
        Awaited::Message(name) => message_type(&frame.payload).is_some_and(|found| found == *name),
        Awaited::Key(key) => {
            let parsed = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&frame.payload);
            parsed.is_ok_and(|message| message.contains_key(key))
        }
        Awaited::Close => false,
    }
}

/// Whether headers promise that the connection is a WebSocket from here on.
fn upgrades(head: &ResponseHead) -> bool {
    let upgrade = header(&head.headers, "upgrade").unwrap_or_default();
    upgrade.eq_ignore_ascii_case(b"websocket") && has_token(&head.headers, "connection", "upgrade")
}
