//! A WebSocket from the client's side.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::client::{
    Attention, PARTING_LIMIT, READ_AHEAD_BYTES_MAX, USER_PLACEHOLDER, bounded, earlier::EarlierAnswers, hearing::Heard,
    write_slices,
};
use relapse_core::{
    client::step::{Action, Awaited, Slices, Step},
    record::transcript::{Actor, EventKind, NeverCame},
    wire::{
        client::WebSocketClient,
        close_code::CloseCode,
        deflate::DeflateParameters,
        frame::{Frame, FrameError, Opcode},
        frame_header::FrameHeader,
    },
};
use relapse_simulate::{link::Wire, recorder::ExchangeRecorder};

/// How many bytes of payload a client reads in one session: 64 MiB, four of the longest messages. A server that says more is
/// not read any further.
const SESSION_BYTES_MAX: u64 = 64 << 20;

/// The same in frames: as many as a server says in a quarter of an hour at a hundred a second.
const SESSION_FRAMES_MAX: u64 = 100_000;

/// How many bytes may wait to be written before a ping is not answered any more: a pong may answer several pings (RFC 6455
/// section 5.5.3), and a server that only pings need not read.
const UNWRITTEN_BYTES_MAX: usize = 1 << 20;

/// How far the closing handshake has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    /// The client's close frame is out.
    Sent,
    /// Both close frames are through; the end of the stream is to come.
    Parting,
    /// The stream is over, or cannot be read.
    Done,
    /// The client goes without a close frame.
    Gone,
}

/// Whether a client takes what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientReading {
    Everything,
    Nothing,
}

/// An open WebSocket.
pub(super) struct ClientSession {
    wire: Wire,
    pub(super) scribe: ExchangeRecorder,
    /// The user the client says it is.
    user: String,
    closing: Closing,
    hears_pings: bool,
    reads: ClientReading,
    attention: Attention,
    frames: WebSocketClient,
    /// The compression that both sides agreed on, if any.
    agreed: Option<DeflateParameters>,
    /// The bytes and the frames that came.
    seen: (u64, u64),
    /// The event that the client waits for.
    waiting_for: Option<String>,
    /// When the stream was over, counted from the start of the run.
    ended: Option<Duration>,
    pub(super) heard: Heard,
}

impl ClientSession {
    pub(super) fn new(
        wire: Wire,
        scribe: ExchangeRecorder,
        user: String,
        attention: Attention,
        masks: fastrand::Rng,
    ) -> ClientSession {
        ClientSession {
            wire,
            scribe,
            user,
            closing: Closing::No,
            hears_pings: true,
            reads: ClientReading::Everything,
            attention,
            frames: WebSocketClient::new(masks),
            agreed: None,
            seen: (0, 0),
            waiting_for: None,
            ended: None,
            heard: Heard::default(),
        }
    }

    /// The same, with what both sides agreed on about compression.
    pub(super) fn agreed(mut self, agreed: Option<DeflateParameters>) -> ClientSession {
        self.agreed = agreed;
        self.frames = self.frames.agreed(agreed);
        self
    }

    pub(super) fn into_wire(mut self) -> (Wire, Option<DeflateParameters>) {
        self.wire.read_ahead(usize::MAX);
        (self.wire, self.agreed)
    }

    /// Whether both sides have closed, or the stream is over.
    pub(super) fn is_parting(&self) -> bool {
        matches!(self.closing, Closing::Parting | Closing::Done)
    }

    /// Whether the client goes.
    pub(super) fn has_gone(&self) -> bool {
        self.closing == Closing::Gone
    }

    /// When the stream was over, or now.
    pub(super) fn ended(&self) -> Duration {
        self.ended.unwrap_or_else(|| self.scribe.elapsed())
    }

    /// Nothing more can be read.
    fn end(&mut self) {
        self.closing = Closing::Done;
        self.ended = Some(self.scribe.elapsed());
    }

    fn record(&self, what: EventKind) {
        self.scribe.record(Actor::Probe, what);
    }

    /// Performs one act.
    pub(super) async fn perform(&mut self, step: &Step, earlier: &EarlierAnswers<'_>) {
        let limit = step.limit;
        if !matches!(step.act, Action::SendText(_) | Action::SendBytes(_) | Action::StopReading) {
            self.reads = ClientReading::Everything;
        }
        match &step.act {
            Action::SendText(text) => {
                let text = earlier.in_text(text).replace(USER_PLACEHOLDER, &self.user);
                self.say(Frame::new(Opcode::Text, text), step.slices, limit).await;
            }
            Action::SendBytes(bytes) => {
                self.say(Frame::new(Opcode::Binary, bytes.clone()), step.slices, limit).await;
            }
            Action::StopReading => {
                self.record(EventKind::StoppedReading);
                self.reads = ClientReading::Nothing;
                self.push(limit).await;
            }
            Action::Freeze => {
                self.record(EventKind::StoppedReading);
                let start = Instant::now();
                // The messages before it still go out.
                let _ = bounded(limit, self.wire.push()).await;
                sleep(limit.saturating_sub(start.elapsed())).await;
            }
            Action::Ping => {
                self.send(Frame::new(Opcode::Ping, &b"probe"[..]));
                self.within(limit, "a pong", |frame| frame.opcode == Opcode::Pong).await;
            }
            Action::Wait(awaited) => self.wait(awaited, limit).await,
            Action::Close(code) => {
                self.close(*code);
                self.within(limit, "the close", |_| false).await;
            }
            Action::Leave | Action::Reset => self.closing = Closing::Gone,
            Action::Pause => {
                // The client waits for nothing here, so nothing can come too late. The time passes even if the server closes.
                let start = Instant::now();
                let _ = bounded(limit, self.read_until(|_| false)).await;
                sleep(limit.saturating_sub(start.elapsed())).await;
            }
            Action::Deafen => {
                self.hears_pings = false;
                self.within(limit, "the close", |_| false).await;
                self.hears_pings = true;
            }
            Action::Open(_) | Action::Request(_) | Action::ReadAnswer | Action::Signal(_) | Action::AwaitExit(_) => {}
        }
    }

    /// Ends the connection without a close frame, as the act says.
    pub(super) async fn go(mut self, act: &Action, limit: Duration) {
        let _ = bounded(limit, self.wire.flush()).await;
        if matches!(act, Action::Reset) {
            self.record(EventKind::LinkReset);
            self.record(EventKind::Left);
            self.wire.reset();
        } else {
            self.record(EventKind::Left);
        }
    }

    /// Closes what the steps left open.
    pub(super) async fn part(mut self) {
        if self.closing == Closing::No {
            self.close(CloseCode::NORMAL);
        }
        self.within(PARTING_LIMIT, "the close", |_| false).await;
    }

    /// Waits for the end of a stream on which both sides have closed.
    pub(super) async fn finish_parting(&mut self, limit: Duration) {
        self.within(limit, "the close", |_| false).await;
    }

    /// Reads what comes, keeps the messages, and answers pings, for as long as it is polled. Cancel safe.
    pub(super) async fn attend(&mut self) {
        match self.reads {
            ClientReading::Everything => {
                self.read_until(|_| false).await;
                pending().await
            }
            ClientReading::Nothing => {
                self.wire.push().await;
                pending().await
            }
        }
    }

    /// Writes what is to go out; a client that reads takes what comes meanwhile.
    pub(super) async fn push(&mut self, limit: Duration) {
        let _ = match self.reads {
            ClientReading::Everything => bounded(limit, self.wire.flush()).await,
            ClientReading::Nothing => bounded(limit, self.wire.push()).await,
        };
    }

    async fn wait(&mut self, awaited: &Awaited, limit: Duration) {
        let waiting_for = awaited.clone();
        if self.heard.find(awaited) {
            return self.record(EventKind::AwaitedCame { waiting_for });
        }
        self.waiting_for = Some(awaited.to_string());
        let reading = async {
            while let Some(frame) = self.next_frame().await {
                if self.heard.passes(&frame, awaited) {
                    return true;
                }
            }
            false
        };
        let ended = bounded(limit, reading).await.or_else(|| self.leaves_after_close().then_some(false));
        self.waiting_for = None;
        match ended {
            Some(has_come) if has_come || *awaited == Awaited::Close => {
                self.record(EventKind::AwaitedCame { waiting_for });
            }
            Some(_) => self.record(EventKind::AwaitedNeverCame { waiting_for, why: NeverCame::SessionOver }),
            None => {
                self.record(EventKind::DeadlinePassed { waiting_for: awaited.to_string(), limit });
                self.record(EventKind::AwaitedNeverCame { waiting_for, why: NeverCame::Deadline });
            }
        }
    }

    fn close(&mut self, code: CloseCode) {
        self.send(Frame::close(Some(code), ""));
        self.closing = Closing::Sent;
    }

    /// Takes what came until now, and waits for nothing.
    async fn take_what_came(&mut self) {
        if self.attention == Attention::Always && self.reads == ClientReading::Everything {
            let mut reading = pin!(self.read_until(|_| false));
            poll_fn(|cx| {
                let _ = reading.as_mut().poll(cx);
                Poll::Ready(())
            })
            .await;
        }
    }

    /// Sends a message of the client's own.
    async fn say(&mut self, frame: Frame, slices: Option<Slices>, limit: Duration) {
        self.take_what_came().await;
        self.heard.asked();
        if let Some(slices) = slices {
            let mut bytes = Vec::new();
            let frame = self.frames.write(frame, &mut bytes);
            self.record(EventKind::FrameSent(frame));
            return write_slices(&mut self.wire, &bytes, slices, limit).await;
        }
        self.send(frame);
        if self.reads == ClientReading::Nothing {
            self.push(limit).await;
        }
    }

    /// Sends a frame with the next write.
    fn send(&mut self, frame: Frame) {
        let frame = self.frames.write(frame, &mut self.wire.outgoing);
        self.record(EventKind::FrameSent(frame));
    }

    async fn within(&mut self, limit: Duration, waiting_for: impl ToString, found: impl Fn(&Frame) -> bool) {
        let waiting_for = waiting_for.to_string();
        self.waiting_for = Some(waiting_for.clone());
        if bounded(limit, self.read_until(found)).await.is_none() && !self.leaves_after_close() {
            self.record(EventKind::DeadlinePassed { waiting_for, limit });
        }
        self.waiting_for = None;
    }

    /// Leaves where both sides have closed, and the server does not end the stream (RFC 6455 section 7.1.1 lets a client do
    /// so).
    fn leaves_after_close(&mut self) -> bool {
        let has_closed = self.closing == Closing::Parting;
        if has_closed {
            self.record(EventKind::Left);
            self.closing = Closing::Gone;
        }
        has_closed
    }

    /// Reads until a frame is found or the connection is over; the messages before it are kept. Cancel safe.
    async fn read_until(&mut self, found: impl Fn(&Frame) -> bool) {
        while let Some(frame) = self.next_frame().await {
            if found(&frame) {
                return;
            }
            self.heard.keep(frame);
        }
    }

    /// The next frame or whole message, after its ping or close is answered; `None` once the connection is over. Cancel
    /// safe.
    async fn next_frame(&mut self) -> Option<Frame> {
        loop {
            match self.closing {
                Closing::No | Closing::Sent => {}
                Closing::Parting => return self.see_the_end().await,
                Closing::Done | Closing::Gone => return None,
            }
            match self.frames.read(&mut self.wire.incoming) {
                Ok(Some(frame)) => {
                    self.record(EventKind::FrameSeen(frame.clone()));
                    if self.has_seen_enough(&frame) {
                        return None;
                    }
                    let frame = match self.take(frame) {
                        Ok(Some(frame)) => frame,
                        Ok(None) => continue,
                        Err(error) => {
                            self.record(EventKind::BadFrameSeen(error));
                            self.end();
                            return None;
                        }
                    };
                    let has_room = self.wire.outgoing.len() < UNWRITTEN_BYTES_MAX;
                    let answers = frame.opcode != Opcode::Ping || self.hears_pings && has_room;
                    if let Some(answer) = self.frames.answer(&frame).filter(|_| answers) {
                        self.send(answer);
                    }
                    if frame.opcode == Opcode::Close {
                        self.closing = Closing::Parting;
                        continue;
                    }
                    return Some(frame);
                }
                Ok(None) if self.wire.has_ended() => {
                    self.record(EventKind::EndSeen);
                    self.end();
                }
                Ok(None) => {
                    self.make_room();
                    self.wire.progress().await;
                }
                Err(error) => {
                    self.record(EventKind::BadFrameSeen(error));
                    self.end();
                }
            }
        }
    }

    /// Counts a frame; whether the server has said so much that the client leaves. A close ends the session by itself.
    fn has_seen_enough(&mut self, frame: &Frame) -> bool {
        let (bytes, frames) = (self.seen.0 + frame.payload.len() as u64, self.seen.1 + 1);
        self.seen = (bytes, frames);
        let has_enough = bytes > SESSION_BYTES_MAX || frames > SESSION_FRAMES_MAX;
        if !has_enough || frame.opcode == Opcode::Close {
            return false;
        }
        self.record(EventKind::SeenEnough { bytes, frames, waiting_for: self.waiting_for.clone() });
        self.record(EventKind::Left);
        self.end();
        true
    }

    /// Reads as far ahead as the frame needs that has begun.
    fn make_room(&mut self) {
        let announced = FrameHeader::parse(&self.wire.incoming)
            .map_or(0, |header| usize::try_from(header.payload_bytes).unwrap_or(usize::MAX));
        self.wire.read_ahead(announced.saturating_add(READ_AHEAD_BYTES_MAX));
    }

    /// The server ends the stream first (RFC 6455 section 7.1.1); a client does not wait for it for ever.
    async fn see_the_end(&mut self) -> Option<Frame> {
        while !self.wire.has_ended() {
            self.wire.progress().await;
            self.wire.incoming.clear();
        }
        self.record(EventKind::EndSeen);
        self.end();
        None
    }

    /// Takes a frame as a client must: a control frame or a whole message comes out, a piece of a message is kept.
    fn take(&mut self, frame: Frame) -> Result<Option<Frame>, FrameError> {
        let is_last_piece = frame.opcode == Opcode::Continuation && frame.is_final;
        let taken = self.frames.assemble(frame)?;
        if let Some(whole) = taken.as_ref().filter(|_| is_last_piece) {
            self.record(EventKind::MessageSeen(whole.clone()));
        }
        Ok(taken)
    }
}
