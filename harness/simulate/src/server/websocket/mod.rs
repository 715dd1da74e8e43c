//! One WebSocket connection, from the scope to the last byte, as a server with this profile handles it.

mod negotiation;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use self::negotiation::{LoopEvents, Negotiation, ServerPhase};
use crate::server::{
    Life, StopNotice,
    call::{AppCall, CallStep, NextEvent, Protocol},
    write_answer,
};
use crate::{
    application::{Application, EventLoop, LoopState},
    link::{Progress, Wire},
    profile::{
        self, AfterDisconnect, AfterFinalBlock, AfterReturns, CloseEcho, CompressionDeviation, CompressionRules,
        LengthCheck, LoopOrder, LoopWrites, Profile, ReadAhead, RefusalAnswer, Reuse, StateTracking, Strictness,
        ToldReason, ViolationAnswers,
    },
    recorder::ExchangeRecorder,
};
use relapse_core::{
    asgi::{
        event::Inbound,
        exception::Exception,
        scope::{Scope, ScopeType},
    },
    record::transcript::{Actor, EventKind},
    wire::{
        assembly::Assembly,
        close_code::CloseCode,
        deflate::{DeflateParameters, Deflater, InflatedFrames, PlainFrame, RSV1},
        frame::{Frame, FrameError, Opcode},
        frame_header::FrameHeader,
        head::{RequestHead, ResponseHead, accept_key, field, header},
    },
};

/// The largest message that is read, in bytes (uvicorn's `ws_max_size`).
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// How long a server waits for the answer to its close frame (the `websockets` library's `close_timeout`).
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// Serves one WebSocket connection to its end. The wire, and what watches for a stop, where it goes on with another request.
// Long: the stages of a connection, one after the other.
pub(super) async fn serve(
    wire: Wire,
    head: RequestHead,
    application: Arc<dyn Application>,
    profile: Arc<Profile>,
    scribe: ExchangeRecorder,
    stop: StopNotice,
) -> Option<(Wire, StopNotice)> {
    let scope = Scope::build(ScopeType::Websocket, &head, &profile.scope, scribe.connection());
    let offers = DeflateParameters::offered(&head.headers);
    let agreed = profile.compression.answer(&offers);
    let negotiation = Negotiation {
        profile: Arc::clone(&profile),
        agreed,
        deflater: agreed.map(|agreed| Deflater::new(agreed.of_server())),
        accept_key: accept_key(header(&head.headers, "sec-websocket-key").unwrap_or_default()),
        offers: head.offered_subprotocols(),
        phase: ServerPhase::Connecting,
        denial: None,
        denial_framing: None,
        decided: None,
        own_close: None,
        told_code: None,
        told_reason: None,
        refusal: None,
        failed_close: None,
        disconnect: None,
        is_accepted: false,
        is_behind: false,
        is_broken: false,
        is_closed_by_client: false,
        refusal_turn: None,
        events: LoopEvents::default(),
    };
    scribe.record(Actor::Front, EventKind::Called { kind: ScopeType::Websocket, head });
    let event_loop = application.event_loop();
    let turns = event_loop.as_ref().map_or(0, |watched| watched.borrow().turns);
    let call = AppCall::start(application, scope, negotiation, &scribe);
    call.deliver(Inbound::WebsocketConnect);
    let assembly = Assembly::new(MESSAGE_BYTES_MAX as u64, profile.violation.text);
    let limit = Duration::from_secs(profile.before_accept.time_limit_s);
    let answer_due = (!limit.is_zero()).then(|| Instant::now() + limit);
    let mut connection = ServerConnection {
        wire: Some(wire),
        call,
        profile,
        scribe,
        assembly,
        compressed: agreed.map(CompressedMessages::new),
        ending: None,
        ping: Ping { due: None, pong_due: None },
        timer: None,
        stop,
        is_stopping: false,
        cancel_at: None,
        answer_due,
        is_told: false,
        is_lost: false,
        event_loop,
        turns,
        found: VecDeque::new(),
    };
    let wire = connection.run().await?;
    Some((wire, connection.stop))
}

/// The compressed messages of a client, as a server takes them.
struct CompressedMessages {
    frames: InflatedFrames,
    has_takeover: bool,
    /// A control frame came in the middle of one.
    is_interrupted: bool,
}

impl CompressedMessages {
    fn new(agreed: DeflateParameters) -> CompressedMessages {
        let coding = agreed.of_client();
        let frames = InflatedFrames::new(coding, MESSAGE_BYTES_MAX as u64);
        CompressedMessages { frames, has_takeover: coding.has_takeover, is_interrupted: false }
    }

    /// A frame as its sender meant it, with RSV1 left where it means nothing.
    fn read(&mut self, mut frame: Frame, rules: &CompressionRules) -> Result<Frame, FrameError> {
        let is_inside = self.frames.is_inside_compressed();
        if is_inside && frame.opcode.is_control() && rules.deviates(CompressionDeviation::ControlBetween) {
            self.is_interrupted = true;
        }
        if is_inside && frame.opcode == Opcode::Continuation {
            if self.is_interrupted {
                return Err(FrameError::Deflate);
            }
            if rules.deviates(CompressionDeviation::BitOnContinuation) {
                frame.reserved_bits &= !RSV1;
            }
        }
        let is_behind_final = self.has_takeover && self.frames.has_seen_final_block();
        let PlainFrame { mut frame, was_compressed } = self.frames.read(frame)?;
        if was_compressed && is_behind_final {
            match rules.after_final_block {
                None => {}
                Some(AfterFinalBlock::Empty) => frame.payload = Bytes::new(),
                Some(AfterFinalBlock::Refused) => return Err(FrameError::Deflate),
            }
        }
        if frame.is_message() {
            frame.reserved_bits &= !RSV1;
        }
        Ok(frame)
    }
}

/// The event that a whole message becomes.
fn received(message: Frame) -> Result<Inbound, FrameError> {
    let payload = Vec::from(message.payload);
    Ok(match message.opcode {
        Opcode::Text => {
            let text = String::from_utf8(payload).map_err(|_| FrameError::Utf8)?;
            Inbound::WebsocketReceive { text: Some(text), bytes: None }
        }
        _ => Inbound::WebsocketReceive { text: None, bytes: Some(payload) },
    })
}

/// The longest start of a reason that fits a close frame and is whole characters.
fn truncate(reason: &str) -> &str {
    &reason[..(0..=CloseCode::REASON_BYTES_MAX).rev().find(|end: &usize| reason.is_char_boundary(*end)).unwrap_or(0)]
}

/// How the server ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerEnding {
    /// As soon as everything is written.
    Cut,
    /// The same, and the connection goes on with another request.
    Kept,
    /// When the client answers the close frame, or at this time.
    CloseBy(Instant),
    /// When the client ends it.
    Never,
}

/// When the server's next ping is due, and the answer to its last.
struct Ping {
    due: Option<Instant>,
    pong_due: Option<Instant>,
}

/// The things that a loop finds when it looks. It does that only behind what was ready before (asyncio's `BaseEventLoop._run_once`), so
/// that an app that is ready at once blocks it once more.
struct LoopFindings {
    /// When it looked, and so what was due.
    at: Instant,
    /// The bytes that had come.
    came: BytesMut,
}

/// The things that a connection deals with.
enum Happens {
    /// Its call, its client, its timer, or the server's process.
    Next(NextEvent),
    /// The event loop, which an app has blocked, runs again, if only for a turn.
    Turn,
}

struct ServerConnection {
    wire: Option<Wire>,
    call: AppCall<Negotiation>,
    profile: Arc<Profile>,
    scribe: ExchangeRecorder,
    assembly: Assembly,
    /// The compressed messages of the client, where the two agreed on that.
    compressed: Option<CompressedMessages>,
    ending: Option<ServerEnding>,
    ping: Ping,
    /// Fires at whatever is due next.
    timer: Option<Pin<Box<Sleep>>>,
    stop: StopNotice,
    /// Whether the server was told to stop.
    is_stopping: bool,
    /// When the application's call is cancelled.
    cancel_at: Option<Instant>,
    /// When the handshake has to be answered.
    answer_due: Option<Instant>,
    /// Whether the application was told of the end.
    is_told: bool,
    /// Whether the connection is gone.
    is_lost: bool,
    /// The event loop that server and application share; `None` where they do not.
    event_loop: Option<watch::Receiver<EventLoop>>,
    /// How many of its turns after a block the server has had.
    turns: u64,
    /// The things that the loop found in turns before, and has not done yet.
    found: VecDeque<LoopFindings>,
}

impl ServerConnection {
    /// Goes on until the connection is cut and the application's call has ended.
    async fn run(&mut self) -> Option<Wire> {
        let mut kept = None;
        while self.wire.is_some() || self.call.is_running() {
            match self.next().await {
                Happens::Turn => self.take_turn().await,
                Happens::Next(NextEvent::Step(CallStep::Ended(result))) => self.application_ended(result),
                Happens::Next(NextEvent::Step(CallStep::Wire | CallStep::Moved)) => {}
                Happens::Next(NextEvent::Timer) => self.timer_fired(Instant::now()),
                Happens::Next(NextEvent::Stop(Life::Exited)) => {
                    self.kill();
                    return None;
                }
                Happens::Next(NextEvent::Stop(_)) => self.server_stops(),
            }
            if !self.is_blocked() {
                self.read_frames();
            }
            // A server that has paused reading keeps the socket of a call that is over for good; nothing can see that.
            let sees_the_end = !self.is_blocked() && (!self.is_paused() || !self.call.is_running());
            if self.wire.as_ref().is_some_and(Wire::has_ended) && sees_the_end && !self.is_lost {
                self.client_ended();
            }
            self.deny();
            let (phase, decided, failed) = {
                let protocol = &mut self.call.desk().protocol;
                (protocol.phase, protocol.decided.take(), protocol.take_failed_close())
            };
            failed.into_iter().for_each(|event| self.call.deliver(event));
            match decided {
                Some(answer) => self.answer(&answer),
                None => self.follow(phase),
            }
            if self.is_answered() {
                self.answer_due = None;
            }
            if matches!(self.ending, Some(ServerEnding::Cut | ServerEnding::Kept))
                && let Some(mut wire) = self.wire.take()
            {
                self.flush(&mut wire).await;
                kept = (self.ending == Some(ServerEnding::Kept)).then_some(wire);
                self.lose();
            }
        }
        kept
    }

    /// Whether the handshake is answered, or ends without an answer.
    fn is_answered(&self) -> bool {
        let is_ending = self.ending.is_some_and(|ending| ending != ServerEnding::Never);
        is_ending || self.call.desk().protocol.is_accepted
    }

    /// Sends a denial response that does not wait for its end.
    fn deny(&mut self) {
        if self.profile.sequence.keeps == StateTracking::Events && self.phase() == ServerPhase::Denying {
            let mut outgoing = Vec::new();
            let mut desk = self.call.desk();
            desk.protocol.deny_with_what_is_there(&mut outgoing);
            desk.outgoing().append(&mut outgoing);
        }
    }

    /// Whether the server reads nothing because the application has not received what came.
    fn is_paused(&self) -> bool {
        let is_behind = self.call.desk().protocol.is_behind;
        is_behind && self.is_open() && self.profile.sequence.reads == ReadAhead::OneMessage
    }

    /// Writes what is still to be written before the wire is cut. A client that does not read has its limit.
    async fn flush(&mut self, wire: &mut Wire) {
        let call = &mut self.call;
        let all = async move {
            while call.move_outgoing(wire) {
                wire.flush().await;
            }
        };
        let _ = timeout(CLOSE_WAIT, all).await;
    }

    /// The loop is blocked: the application's call goes on, and nothing is read and no time kept until the loop runs again.
    async fn blocked(&mut self) -> Option<Happens> {
        let turns = self.turns;
        let event_loop = self.event_loop.as_mut()?;
        let EventLoop { state, turns: now } = *event_loop.borrow();
        if state == LoopState::Runs && now == turns {
            return None;
        }
        let writes = self.profile.blocked_loop.writes;
        let (call, mut wire) = (&mut self.call, self.wire.as_mut().filter(|_| writes == LoopWrites::AtOnce));
        let mut turn = pin!(event_loop.wait_for(|seen| seen.turns != turns));
        let next = poll_fn(|cx| {
            if let Poll::Ready(step) = call.poll_writing(wire.as_deref_mut(), cx) {
                return Poll::Ready(Happens::Next(NextEvent::Step(step)));
            }
            turn.as_mut().poll(cx).map(|_| Happens::Turn)
        });
        Some(next.await)
    }

    /// A turn of the loop after a block. Where the app blocks it again at once, the loop has only looked for what came and
    /// what is due, and does what it found in an earlier turn.
    async fn take_turn(&mut self) {
        let watched = self.event_loop.as_ref().map(|watched| *watched.borrow());
        let EventLoop { state, turns } = watched.unwrap_or_default();
        if turns == self.turns {
            // The interpreter is gone, and the loop with it.
            self.event_loop = None;
        }
        self.turns = turns;
        let found = self.look().await;
        self.found.push_back(found);
        let left = match state {
            LoopState::Runs => 0,
            LoopState::Blocked => self.profile.blocked_loop.order.turns(),
        };
        while self.found.len() > left {
            let Some(found) = self.found.pop_front() else { return };
            self.do_what_was_found(found);
        }
    }

    /// The things that the loop finds now.
    async fn look(&mut self) -> LoopFindings {
        let at = Instant::now();
        let Some(wire) = self.wire.as_mut() else { return LoopFindings { at, came: BytesMut::new() } };
        self.call.move_outgoing(wire);
        let known = wire.incoming.len();
        poll_fn(|cx| {
            while let Poll::Ready(Progress::Read | Progress::Flushed) = wire.poll_progress(cx) {}
            Poll::Ready(())
        })
        .await;
        LoopFindings { at, came: wire.incoming.split_off(known) }
    }

    fn do_what_was_found(&mut self, found: LoopFindings) {
        if self.profile.blocked_loop.order == LoopOrder::TimersFirst {
            self.fire_due(found.at);
        }
        if let Some(wire) = self.wire.as_mut() {
            wire.incoming.unsplit(found.came);
        }
        self.read_frames();
        self.fire_due(found.at);
    }

    /// Does everything that was due at a time.
    fn fire_due(&mut self, found: Instant) {
        while self.ending != Some(ServerEnding::Cut) && self.dues().any(|due| due <= found) {
            self.timer_fired(found);
        }
    }

    /// Whether the app keeps the loop to itself.
    fn is_blocked(&self) -> bool {
        self.event_loop.as_ref().is_some_and(|watched| watched.borrow().state == LoopState::Blocked)
    }

    /// The times at which something is due.
    fn dues(&self) -> impl Iterator<Item = Instant> {
        let close_by = match self.ending {
            Some(ServerEnding::CloseBy(due)) => Some(due),
            Some(ServerEnding::Cut | ServerEnding::Kept | ServerEnding::Never) | None => None,
        };
        [self.ping.due, self.ping.pong_due, close_by, self.cancel_at, self.answer_due].into_iter().flatten()
    }

    async fn next(&mut self) -> Happens {
        if let Some(next) = self.blocked().await {
            return next;
        }
        let due = self.dues().min();
        let (call, wire) = (&mut self.call, &mut self.wire);
        match (due, &mut self.timer) {
            (None, timer) => *timer = None,
            (Some(due), Some(timer)) if timer.deadline() == due => {}
            (Some(due), timer) => *timer = Some(Box::pin(sleep_until(due))),
        }
        Happens::Next(call.next(wire.as_mut(), &mut self.stop, &mut self.timer).await)
    }

    /// Does what the server does to a connection when it is told to stop.
    fn server_stops(&mut self) {
        self.is_stopping = true;
        let grace = Duration::from_secs(self.profile.shutdown.grace_s);
        self.cancel_at = (!grace.is_zero()).then(|| Instant::now() + grace);
        let rules = &self.profile.shutdown;
        match self.phase() {
            ServerPhase::Connecting | ServerPhase::Lost | ServerPhase::Denying | ServerPhase::Broken => {
                let (rule, sees) = (rules.pending.clone(), rules.pending_sees);
                if self.cut_short(&rule, sees) {
                    self.set_phase(ServerPhase::Stopped);
                }
            }
            ServerPhase::Open | ServerPhase::Abandoned => self.stop_session(),
            ServerPhase::Answered | ServerPhase::Closed | ServerPhase::Over | ServerPhase::Stopped => {}
        }
    }

    fn stop_session(&mut self) {
        let rules = &self.profile.shutdown;
        let (rule, sees) = (rules.open.clone(), rules.open_sees);
        self.cut_short(&rule, sees);
    }

    /// Ends the connection because the server stops, if that is the rule; says whether it is.
    fn cut_short(&mut self, rule: &profile::StopFate, sees: Option<u16>) -> bool {
        let profile::StopFate::Answers(answer) = rule else { return false };
        self.scribe.record(Actor::Front, EventKind::CutShort);
        let cancels = self.profile.shutdown.cancels;
        match sees {
            Some(code) => {
                self.disconnect(CloseCode(code), String::new());
                // It has a turn to do something about that.
                self.cancel_at = if cancels { Some(Instant::now()) } else { self.cancel_at };
            }
            None if cancels => self.call.cancel(),
            None => {}
        }
        self.answer(answer);
        true
    }

    /// The process is gone, and everything with it.
    fn kill(&mut self) {
        if self.call.is_running() {
            self.scribe.record(Actor::Front, EventKind::CutShort);
            self.call.cancel();
        }
    }

    fn phase(&self) -> ServerPhase {
        self.call.desk().protocol.phase
    }

    /// Whether the server still speaks WebSocket with the client.
    fn is_open(&self) -> bool {
        matches!(self.phase(), ServerPhase::Open | ServerPhase::Abandoned)
    }

    fn set_phase(&self, phase: ServerPhase) {
        self.call.desk().protocol.phase = phase;
    }

    fn decided(&self) -> Option<RefusalAnswer> {
        self.call.desk().protocol.decided.take()
    }

    /// Starts what an accept or a close of the application brings with it.
    fn follow(&mut self, phase: ServerPhase) {
        match phase {
            ServerPhase::Open if self.is_stopping && self.profile.shutdown.open != profile::StopFate::GoesOn => {
                self.stop_session();
            }
            ServerPhase::Open if self.ping.due.is_none() && self.profile.keepalive.ping_interval_ms > 0 => {
                let interval = Duration::from_millis(self.profile.keepalive.ping_interval_ms);
                self.ping.due = Some(Instant::now() + interval);
            }
            ServerPhase::Closed if self.ending.is_none() && self.profile.sequence.keeps != StateTracking::Stream => {
                self.stop_pings();
                self.ending = Some(ServerEnding::CloseBy(Instant::now() + CLOSE_WAIT));
                let told = self.call.desk().protocol.own_disconnect();
                if let Some(event) = told {
                    self.tell(event);
                }
            }
            _ => {}
        }
    }

    fn stop_pings(&mut self) {
        self.ping = Ping { due: None, pong_due: None };
    }

    fn answer(&mut self, answer: &RefusalAnswer) {
        let ending = match answer {
            RefusalAnswer::Http { .. } => {
                write_answer(
                    self.call.desk().outgoing(),
                    answer,
                    &self.profile,
                    self.profile.sequence.refused_connection,
                );
                match self.profile.sequence.refused_connection {
                    Reuse::Closed => ServerEnding::Cut,
                    Reuse::Kept => ServerEnding::Kept,
                }
            }
            RefusalAnswer::Close { code, reason } => {
                Frame::close(*code, reason).encode(self.call.desk().outgoing());
                ServerEnding::CloseBy(Instant::now() + CLOSE_WAIT)
            }
            RefusalAnswer::Drop => ServerEnding::Cut,
            RefusalAnswer::Hang => ServerEnding::Never,
        };
        let is_abandoned = *answer == RefusalAnswer::Hang && self.phase() == ServerPhase::Open;
        if is_abandoned {
            return self.set_phase(ServerPhase::Abandoned);
        }
        self.stop_pings();
        self.ending = Some(ending);
        let is_refused = self.call.desk().protocol.refusal.is_some();
        if let Some(code) = self.profile.sequence.after_refusal.filter(|_| is_refused && !self.is_told) {
            self.tell(Inbound::WebsocketDisconnect { code: Some(code), reason: None });
        }
        if self.phase() != ServerPhase::Lost {
            self.call.desk().protocol.lose_refused();
        }
    }

    /// Tells the application of its end.
    fn tell(&mut self, event: Inbound) {
        self.is_told = true;
        // There the end is no event of its own.
        self.call.deliver(event);
    }

    /// The connection is gone.
    fn lose(&mut self) {
        let (is_accepted, code) = {
            let protocol = &self.call.desk().protocol;
            (protocol.is_accepted, protocol.lost_code())
        };
        let is_due = match self.profile.sequence.after_disconnect {
            AfterDisconnect::OneMore => true,
            AfterDisconnect::Nothing | AfterDisconnect::Always => !self.is_told,
        };
        if let (true, Some(code)) = (is_due && !self.is_lost, code) {
            let reason = self.profile.sequence.lost_reason.clone().filter(|_| is_accepted);
            self.tell(Inbound::WebsocketDisconnect { code: Some(code), reason });
        }
        self.is_lost = true;
        self.call.desk().protocol.lose();
    }

    fn application_ended(&mut self, result: Result<(), Exception>) {
        self.deny();
        {
            let events = &mut self.call.desk().protocol.events;
            // The handshake goes on behind the server's own answer.
            events.completed |= !events.started;
            (events.started, events.closed) = (true, true);
        }
        // The application's last event may have decided something.
        if let Some(answer) = self.decided() {
            return self.answer(&answer);
        }
        if self.profile.sequence.keeps == StateTracking::Stream && self.stream_ended() {
            return;
        }
        let is_return = result.is_ok();
        let is_denied_at_once = self.call.desk().protocol.denial_framing.is_some();
        let returns = &self.profile.after_accept.returns;
        let hang_or_drop = if *returns == RefusalAnswer::Hang { returns } else { &RefusalAnswer::Drop };
        let phase = match self.phase() {
            ServerPhase::Closed if !self.is_lost && self.call.desk().protocol.has_unwritten_close() => {
                ServerPhase::Open
            }
            phase => phase,
        };
        let answer = match (phase, result) {
            // It may be another connection's.
            (ServerPhase::Connecting | ServerPhase::Open, Err(exception)) if exception.is_client_disconnected() => {
                &RefusalAnswer::Drop
            }
            (ServerPhase::Connecting, Err(_)) => &self.profile.before_accept.raises,
            (ServerPhase::Connecting, Ok(())) => &self.profile.before_accept.returns,
            (ServerPhase::Open, Err(_)) => &self.profile.after_accept.raises,
            (ServerPhase::Open, Ok(())) => &self.profile.after_accept.returns,
            (ServerPhase::Denying, Ok(())) if is_denied_at_once => hang_or_drop,
            (ServerPhase::Broken, Ok(())) => hang_or_drop,
            (ServerPhase::Denying | ServerPhase::Broken, _) => &RefusalAnswer::Drop,
            (
                ServerPhase::Lost
                | ServerPhase::Abandoned
                | ServerPhase::Answered
                | ServerPhase::Closed
                | ServerPhase::Over
                | ServerPhase::Stopped,
                _,
            ) => {
                return;
            }
        };
        let (answer, phase) = (answer.clone(), self.phase());
        self.answer(&answer);
        if phase == ServerPhase::Connecting
            && is_return
            && self.profile.sequence.after_returns == AfterReturns::Handshake
        {
            let headers = vec![field("upgrade", "websocket"), field("connection", "Upgrade")];
            ResponseHead { status: 101, headers }.encode(self.call.desk().outgoing());
        }
    }

    /// The call is over, and the connection with it; whether that is all.
    fn stream_ended(&mut self) -> bool {
        match self.phase() {
            ServerPhase::Connecting => false,
            ServerPhase::Open => {
                let answer = self.profile.after_accept.returns.clone();
                self.answer(&answer);
                self.ending = Some(ServerEnding::Cut);
                true
            }
            ServerPhase::Broken => {
                // That the end raises, too, keeps it from being told.
                self.is_told = true;
                self.ending = Some(ServerEnding::Cut);
                true
            }
            ServerPhase::Lost
            | ServerPhase::Denying
            | ServerPhase::Abandoned
            | ServerPhase::Answered
            | ServerPhase::Closed
            | ServerPhase::Over
            | ServerPhase::Stopped => {
                self.ending = Some(ServerEnding::Cut);
                true
            }
        }
    }

    fn client_ended(&mut self) {
        self.stop_pings();
        self.ending = Some(ServerEnding::Cut);
        self.lose();
    }

    /// Tells the application that the client is gone, once.
    fn disconnect(&mut self, code: impl Into<Option<CloseCode>>, reason: String) {
        if matches!(
            self.phase(),
            ServerPhase::Connecting
                | ServerPhase::Lost
                | ServerPhase::Denying
                | ServerPhase::Broken
                | ServerPhase::Open
                | ServerPhase::Abandoned
        ) {
            self.set_phase(ServerPhase::Over);
            let reason = Some(reason).filter(|_| self.profile.sequence.close_reason == ToldReason::Told);
            self.tell(Inbound::WebsocketDisconnect { code: code.into().map(|code| code.0), reason });
        }
    }

    /// Does the first thing that was due at a time.
    fn timer_fired(&mut self, found: Instant) {
        let now = Instant::now();
        if matches!(self.ending, Some(ServerEnding::CloseBy(due)) if due <= found) {
            self.ending = Some(ServerEnding::Cut);
        } else if self.cancel_at.is_some_and(|due| due <= found) {
            self.cancel_at = None;
            if self.call.is_running() {
                self.scribe.record(Actor::Front, EventKind::CutShort);
                self.call.cancel();
                self.application_ended(Err(Exception::cancelled()));
            }
        } else if self.answer_due.is_some_and(|due| due <= found) {
            self.answer_due = None;
            self.scribe.record(Actor::Front, EventKind::HandshakeExpired);
            self.client_ended();
        } else if self.ping.pong_due.is_some_and(|due| due <= found) {
            self.scribe.record(Actor::Front, EventKind::KeepaliveExpired);
            self.disconnect(CloseCode(self.profile.keepalive.application_sees), String::new());
            let answer = self.profile.keepalive.expired.clone();
            self.answer(&answer);
        } else if self.ping.due.is_some_and(|due| due <= found) {
            let keepalive = &self.profile.keepalive;
            Frame::new(Opcode::Ping, &b"keepalive"[..]).encode(self.call.desk().outgoing());
            self.ping.due = Some(now + Duration::from_millis(keepalive.ping_interval_ms));
            if keepalive.pong_timeout_ms > 0 && self.ping.pong_due.is_none() {
                self.ping.pong_due = Some(now + Duration::from_millis(keepalive.pong_timeout_ms));
            }
        }
    }

    fn read_frames(&mut self) {
        // A server that pauses its reading has already read all that came together with a message.
        if self.is_paused() {
            return;
        }
        loop {
            let Some(wire) = self.wire.as_mut().filter(|wire| !wire.incoming.is_empty()) else { return };
            let not_yet = matches!(self.call.desk().protocol.phase, ServerPhase::Connecting | ServerPhase::Denying);
            if not_yet || self.call.is_inbox_full() {
                return;
            }
            let rules = &self.profile.violation;
            if rules.refuses.contains(&Strictness::LongLength) && !FrameHeader::announces_shortest(&wire.incoming) {
                return self.fail(|rules| &rules.protocol);
            }
            match Frame::decode(&mut wire.incoming, MESSAGE_BYTES_MAX as u64) {
                Ok(Some(frame)) => self.take_frame(frame),
                Ok(None) => return,
                Err(FrameError::TooLong { announced }) if self.is_awaited(announced) => return,
                // A server that counts what comes takes a length that cannot be for another mistake.
                Err(FrameError::TooLong { .. }) if self.counts_on() => return self.fail(|rules| &rules.protocol),
                Err(FrameError::TooLong { .. }) => return self.fail(|rules| &rules.too_big),
                Err(_) => return self.fail(|rules| &rules.protocol),
            }
        }
    }

    /// Whether the server waits for a frame that announces more than it takes.
    fn is_awaited(&self, announced: u64) -> bool {
        let come = self.wire.as_ref().map_or(&[][..], |wire| &wire.incoming);
        let is_data = come.first().is_some_and(|first| first & 0x08 == 0);
        // The highest bit of a length is 0 (RFC 6455 section 5.2).
        let is_length = announced >> 63 == 0;
        is_data && is_length && self.counts_on()
    }

    /// Whether the server looks at what has come, and that is not too much.
    fn counts_on(&self) -> bool {
        let come = self.wire.as_ref().map_or(0, |wire| wire.incoming.len());
        self.profile.violation.length == LengthCheck::Received && come <= MESSAGE_BYTES_MAX
    }

    /// Gives the connection up because of what the client sent (RFC 6455 section 7.1.7).
    fn fail(&mut self, answer: impl Fn(&ViolationAnswers) -> &RefusalAnswer) {
        if let Some(wire) = self.wire.as_mut() {
            wire.incoming.clear();
        }
        if self.is_open() {
            let rules = &self.profile.violation;
            let answer = answer(rules).clone();
            let sent = match &answer {
                RefusalAnswer::Close { code, .. } => code.unwrap_or(CloseCode::NO_STATUS),
                RefusalAnswer::Http { .. } | RefusalAnswer::Drop | RefusalAnswer::Hang => CloseCode::ABNORMAL,
            };
            self.disconnect(rules.application_sees.map_or(sent, CloseCode), String::new());
            self.answer(&answer);
            if matches!(answer, RefusalAnswer::Close { .. }) {
                // Whatever the client has to say to that is not waited for.
                self.ending = Some(ServerEnding::Cut);
            }
        } else if matches!(self.ending, Some(ServerEnding::CloseBy(_))) {
            self.ending = Some(ServerEnding::Cut);
        }
    }

    /// The rule that a frame breaks in this server's eyes.
    fn broken_rule(&self, frame: &Frame) -> Option<fn(&ViolationAnswers) -> &RefusalAnswer> {
        // A client masks every frame (RFC 6455 section 5.1).
        if frame.mask.is_none() {
            return Some(|rules| &rules.protocol);
        }
        let refused = &self.profile.violation.refuses;
        match frame.verify() {
            Err(FrameError::Utf8) => Some(|rules| &rules.payload),
            Err(FrameError::CloseCode) if frame.close_code().is_some() => Some(|rules| &rules.close_code),
            Err(_) => Some(|rules| &rules.protocol),
            Ok(()) if !frame.is_close() => None,
            Ok(())
                if refused.contains(&Strictness::BadGateway) && frame.close_code() == Some(CloseCode::BAD_GATEWAY) =>
            {
                Some(|rules| &rules.close_code)
            }
            Ok(()) if refused.contains(&Strictness::CloseInsideMessage) && self.assembly.is_inside_message() => {
                Some(|rules| &rules.protocol)
            }
            Ok(()) => None,
        }
    }

    fn take_frame(&mut self, mut frame: Frame) {
        if let Some(compressed) = &mut self.compressed {
            frame = match compressed.read(frame, &self.profile.compression) {
                Ok(frame) => frame,
                Err(FrameError::TooLong { .. }) => return self.fail(|rules| &rules.too_big),
                Err(_) => return self.fail(|rules| &rules.protocol),
            };
        }
        if let Some(rule) = self.broken_rule(&frame) {
            return self.fail(rule);
        }
        match frame.opcode {
            Opcode::Close => self.client_closed(&frame),
            Opcode::Ping if self.is_open() => {
                Frame::new(Opcode::Pong, frame.payload).encode(self.call.desk().outgoing());
            }
            Opcode::Pong => self.ping.pong_due = None,
            Opcode::Ping | Opcode::Reserved(_) => {}
            Opcode::Text | Opcode::Binary | Opcode::Continuation => self.take_data(frame),
        }
    }

    fn client_closed(&mut self, frame: &Frame) {
        let (code, reason) = frame.close_parts();
        self.call.desk().protocol.is_closed_by_client = true;
        match self.phase() {
            ServerPhase::Open | ServerPhase::Abandoned => {
                let rules = &self.profile.disconnect;
                let answer = match rules.close_echo {
                    CloseEcho::Same => Frame::close(code, &reason),
                    CloseEcho::Normal => Frame::close(Some(CloseCode::NORMAL), ""),
                };
                if !self.call.desk().protocol.events.mute {
                    answer.encode(self.call.desk().outgoing());
                }
                let seen = match code {
                    Some(code) => Some(rules.with_code.map_or(code, CloseCode)),
                    None => rules.without_code.map(CloseCode),
                };
                self.disconnect(seen, reason);
            }
            // Frames are read from the moment of the accept on.
            ServerPhase::Connecting
            | ServerPhase::Lost
            | ServerPhase::Denying
            | ServerPhase::Broken
            | ServerPhase::Answered
            | ServerPhase::Closed
            | ServerPhase::Over
            | ServerPhase::Stopped => {}
        }
        self.stop_pings();
        self.ending = Some(ServerEnding::Cut);
    }

    fn take_data(&mut self, frame: Frame) {
        let event = match self.assembly.take_data(frame).and_then(|whole| whole.map(received).transpose()) {
            Ok(None) => return,
            Ok(Some(event)) => event,
            Err(FrameError::TooLong { .. }) => return self.fail(|rules| &rules.too_big),
            Err(FrameError::Utf8) => return self.fail(|rules| &rules.payload),
            Err(_) => return self.fail(|rules| &rules.protocol),
        };
        let goes_on = self.profile.sequence.abandoned.is_none() && self.phase() == ServerPhase::Abandoned;
        if self.phase() == ServerPhase::Open || goes_on {
            self.call.desk().protocol.is_behind = true;
            self.call.deliver(event);
        }
    }
}
