//! One WebSocket connection, from the scope to the last byte, as a server with this profile handles it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    Life, Stop, add_server,
    call::{Call, Next, Protocol, Step},
    write_answer,
};
use crate::{
    application::Application,
    close_code::CloseCode,
    event::{Inbound, Outbound},
    exception::Exception,
    frame::{Frame, FrameError, Opcode},
    head::{Headers, RequestHead, ResponseHead, field, header},
    link::{Progress, Wire},
    profile::{
        self, Answer, CloseEcho, CloseReason, Denial, Effect, LengthCheck, Profile, Strictness, TextCheck, Violation,
    },
    recorder::Scribe,
    scope::{Scope, ScopeType},
    transcript::{Party, What},
};

/// The largest message that is read, in bytes (uvicorn's `ws_max_size`).
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// How long a server waits for the answer to its close frame (the `websockets` library's `close_timeout`).
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// Serves one WebSocket connection to its end.
pub(super) async fn serve(
    wire: Wire,
    head: RequestHead,
    application: Arc<dyn Application>,
    profile: Arc<Profile>,
    scribe: Scribe,
    stop: Stop,
) {
    let scope = Scope::build(ScopeType::Websocket, &head, &profile.scope, scribe.connection());
    let negotiation = Negotiation {
        profile: Arc::clone(&profile),
        accept_key: derive_accept_key(header(&head.headers, "sec-websocket-key").unwrap_or_default()),
        offers: head.offered_subprotocols(),
        phase: Phase::Connecting,
        denial: None,
        decided: None,
        own_close: None,
    };
    scribe.record(Party::Front, What::Called { kind: ScopeType::Websocket, head });
    let call = Call::start(application, scope, negotiation, &scribe);
    call.deliver(Inbound::WebsocketConnect);
    let mut connection = Connection {
        wire: Some(wire),
        call,
        profile,
        scribe,
        message: None,
        ending: None,
        ping: Ping { due: None, pong_due: None },
        timer: None,
        stop,
        is_stopping: false,
        cancel_at: None,
    };
    connection.run().await;
}

/// Where the connection stands for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The application has not decided.
    Connecting,
    /// The application accepted, and nobody hears of it.
    Lost,
    /// A denial response has begun.
    Denying,
    /// Accepted, and nobody has closed.
    Open,
    /// Accepted, and the application's call is over; the server goes on alone.
    Abandoned,
    /// The application's close went out.
    Closed,
    /// The client is gone, or the server gave the connection up.
    Over,
    /// The server stopped before the application decided.
    Stopped,
}

/// The application's side of the protocol.
struct Negotiation {
    profile: Arc<Profile>,
    accept_key: String,
    offers: Vec<String>,
    phase: Phase,
    denial: Option<(u16, Headers, Vec<u8>)>,
    /// What the server decided to answer by itself.
    decided: Option<Answer>,
    /// The code of the application's close.
    own_close: Option<CloseCode>,
}

impl Protocol for Negotiation {
    fn take(&mut self, event: Outbound, outgoing: &mut Vec<u8>) -> Result<(), Exception> {
        match (self.phase, event) {
            (Phase::Connecting, Outbound::WebsocketAccept { subprotocol, headers }) => {
                self.accept(subprotocol, headers, outgoing)
            }
            (Phase::Connecting, refusal) if refusal.is_refusal() => {
                self.phase = Phase::Closed;
                self.decided = Some(self.profile.before_accept.close.clone());
                Ok(())
            }
            (Phase::Connecting, Outbound::ResponseStart { status, headers }) => {
                self.phase = Phase::Denying;
                self.denial = Some((status, headers, Vec::new()));
                Ok(())
            }
            (Phase::Denying, Outbound::ResponseBody { body, more_body }) => {
                self.deny(&body, more_body, outgoing);
                Ok(())
            }
            (Phase::Open, Outbound::WebsocketSend { text: Some(text), .. }) => {
                Frame::encode_whole(Opcode::Text, text.as_bytes(), outgoing);
                Ok(())
            }
            (Phase::Open, Outbound::WebsocketSend { text: None, bytes: Some(bytes) }) => {
                Frame::encode_whole(Opcode::Binary, &bytes, outgoing);
                Ok(())
            }
            (Phase::Open, Outbound::WebsocketClose { code, reason }) => self.close(CloseCode(code), &reason, outgoing),
            (phase, event) => {
                let profile = Arc::clone(&self.profile);
                let (before, after) = (&profile.before_accept, &profile.after_accept);
                let effect = match (phase, &event) {
                    (Phase::Connecting, Outbound::WebsocketSend { .. }) | (Phase::Lost, _) => &before.send,
                    (Phase::Connecting | Phase::Denying, _) => &before.unknown_event,
                    (Phase::Open, Outbound::WebsocketSend { .. }) => &after.empty_send,
                    (Phase::Open, Outbound::WebsocketAccept { .. }) => &after.accept_again,
                    (Phase::Open, _) => &after.unknown_event,
                    (Phase::Closed, _) => &after.send_after_close,
                    (Phase::Abandoned | Phase::Over, _) => &profile.disconnect.send,
                    (Phase::Stopped, _) => &profile.shutdown.pending_send,
                };
                self.suffer(effect, event.name(ScopeType::Websocket))
            }
        }
    }

    fn takes_messages(&self) -> bool {
        self.phase == Phase::Open
    }
}

impl Negotiation {
    fn suffer(&mut self, effect: &Effect, detail: &str) -> Result<(), Exception> {
        match effect {
            Effect::Raises { exception, then } => {
                // What was decided stays decided, whatever else the application tries.
                self.decided = self.decided.take().or_else(|| then.clone());
                let message = exception.message.replace("{type}", detail).replace("{code}", detail);
                Err(Exception { message, ..exception.clone() })
            }
            Effect::Answers(answer) => {
                self.decided = Some(answer.clone());
                Ok(())
            }
            Effect::Ignored | Effect::Truncated => Ok(()),
        }
    }

    fn accept(&mut self, subprotocol: Option<String>, extra: Headers, outgoing: &mut Vec<u8>) -> Result<(), Exception> {
        if let Some(name) = &subprotocol
            && !self.offers.contains(name)
        {
            let effect = self.profile.before_accept.unoffered_subprotocol.clone();
            self.suffer(&effect, name)?;
            if effect != Effect::Ignored {
                self.phase = Phase::Lost;
                return Ok(());
            }
        }
        let mut headers: Headers = vec![
            field("upgrade", "websocket"),
            field("connection", "Upgrade"),
            field("sec-websocket-accept", self.accept_key.clone()),
        ];
        if let Some(name) = subprotocol {
            headers.push(field("sec-websocket-protocol", name));
        }
        headers.extend(extra);
        add_server(&mut headers, &self.profile);
        ResponseHead { status: 101, headers }.encode(outgoing);
        self.phase = Phase::Open;
        Ok(())
    }

    fn deny(&mut self, piece: &[u8], more_body: bool, outgoing: &mut Vec<u8>) {
        let Some((_, _, body)) = self.denial.as_mut() else { return };
        body.extend_from_slice(piece);
        if more_body {
            return;
        }
        self.phase = Phase::Closed;
        self.decided = match (self.profile.before_accept.denial.clone(), self.denial.take()) {
            (Denial::Sent, Some((status, mut headers, body))) => {
                if header(&headers, "content-length").is_none() {
                    headers.push(field("content-length", body.len().to_string()));
                }
                headers.push(field("connection", "close"));
                add_server(&mut headers, &self.profile);
                ResponseHead { status, headers }.encode(outgoing);
                outgoing.extend_from_slice(&body);
                Some(Answer::Drop)
            }
            _ => Some(Answer::Hang),
        };
    }

    fn close(&mut self, code: CloseCode, reason: &str, outgoing: &mut Vec<u8>) -> Result<(), Exception> {
        let profile = Arc::clone(&self.profile);
        let rules = &profile.after_accept;
        let mut code = code;
        if !rules.close_codes.contain(code) {
            match &rules.other_close_code {
                Effect::Answers(Answer::Close { code: Some(instead), .. }) => code = *instead,
                effect => return self.suffer(effect, &code.to_string()),
            }
        }
        let reason = match rules.close_reason {
            CloseReason::Kept => reason,
            CloseReason::Lost => "",
        };
        let reason = match &rules.long_close_reason {
            _ if reason.len() <= CloseCode::REASON_BYTES_MAX => reason,
            Effect::Truncated => truncate(reason),
            Effect::Ignored => reason,
            effect => return self.suffer(effect, &code.to_string()),
        };
        Frame::close(Some(code), reason).encode(outgoing);
        self.phase = Phase::Closed;
        self.own_close = Some(code);
        Ok(())
    }
}

/// The longest start of a reason that fits a close frame and is whole characters.
fn truncate(reason: &str) -> &str {
    let fits = |end: &usize| reason.is_char_boundary(*end);
    &reason[..(0..=CloseCode::REASON_BYTES_MAX).rev().find(fits).unwrap_or(0)]
}

/// How the server ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// As soon as everything is written.
    Cut,
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

/// A message that is not complete.
struct Message {
    opcode: Opcode,
    payload: BytesMut,
    /// How many bytes of it are known to be whole characters.
    checked: usize,
}

impl Message {
    /// Whether it is binary, or what has come of it is UTF-8 up to a character that may be cut.
    fn may_become_text(&mut self) -> bool {
        if self.opcode != Opcode::Text {
            return true;
        }
        match std::str::from_utf8(&self.payload[self.checked..]) {
            Ok(_) => self.checked = self.payload.len(),
            Err(error) if error.error_len().is_some() => return false,
            Err(error) => self.checked += error.valid_up_to(),
        }
        true
    }
}

struct Connection {
    wire: Option<Wire>,
    call: Call<Negotiation>,
    profile: Arc<Profile>,
    scribe: Scribe,
    message: Option<Message>,
    ending: Option<Ending>,
    ping: Ping,
    /// Fires at whatever is due next.
    timer: Option<Pin<Box<Sleep>>>,
    stop: Stop,
    /// Whether the server was told to stop.
    is_stopping: bool,
    /// When the application's call is cancelled.
    cancel_at: Option<Instant>,
}

impl Connection {
    /// Goes on until the connection is cut and the application's call has ended.
    async fn run(&mut self) {
        while self.wire.is_some() || self.call.is_running() {
            match self.next().await {
                Next::Step(Step::Ended(result)) => self.application_ended(result),
                Next::Step(Step::Wire(Progress::End)) => self.client_ended(),
                Next::Step(Step::Wire(_) | Step::Moved) => self.read_frames(),
                Next::Timer => self.timer_fired(),
                Next::Stop(Life::Exited) => return self.kill(),
                Next::Stop(_) => self.server_stops(),
            }
            let (phase, decided) = {
                let protocol = &mut self.call.desk().protocol;
                (protocol.phase, protocol.decided.take())
            };
            match decided {
                Some(answer) => self.answer(&answer),
                None => self.follow(phase),
            }
            if self.ending == Some(Ending::Cut)
                && let Some(mut wire) = self.wire.take()
            {
                self.flush(&mut wire).await;
            }
        }
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

    async fn next(&mut self) -> Next {
        let (call, wire) = (&mut self.call, &mut self.wire);
        let close_by = match self.ending {
            Some(Ending::CloseBy(due)) => Some(due),
            _ => None,
        };
        let due = [self.ping.due, self.ping.pong_due, close_by, self.cancel_at].into_iter().flatten().min();
        match (due, &mut self.timer) {
            (None, timer) => *timer = None,
            (Some(due), Some(timer)) if timer.deadline() == due => {}
            (Some(due), timer) => *timer = Some(Box::pin(sleep_until(due))),
        }
        call.next(wire.as_mut(), &mut self.stop, &mut self.timer).await
    }

    /// Does what the server does to a connection when it is told to stop.
    fn server_stops(&mut self) {
        self.is_stopping = true;
        let grace = Duration::from_secs(self.profile.shutdown.grace_s);
        self.cancel_at = (!grace.is_zero()).then(|| Instant::now() + grace);
        let rules = &self.profile.shutdown;
        match self.phase() {
            Phase::Connecting | Phase::Lost | Phase::Denying => {
                let (rule, sees) = (rules.pending.clone(), rules.pending_sees);
                if self.cut_short(&rule, sees) {
                    self.set_phase(Phase::Stopped);
                }
            }
            Phase::Open | Phase::Abandoned => self.stop_session(),
            Phase::Closed | Phase::Over | Phase::Stopped => {}
        }
    }

    fn stop_session(&mut self) {
        let rules = &self.profile.shutdown;
        let (rule, sees) = (rules.open.clone(), rules.open_sees);
        self.cut_short(&rule, sees);
    }

    /// Ends the connection because the server stops, if that is the rule; says whether it is.
    fn cut_short(&mut self, rule: &profile::Stop, sees: Option<u16>) -> bool {
        let profile::Stop::Answers(answer) = rule else { return false };
        self.scribe.record(Party::Front, What::CutShort);
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
            self.scribe.record(Party::Front, What::CutShort);
            self.call.cancel();
        }
    }

    fn phase(&self) -> Phase {
        self.call.desk().protocol.phase
    }

    /// Whether the server still speaks WebSocket with the client.
    fn is_open(&self) -> bool {
        matches!(self.phase(), Phase::Open | Phase::Abandoned)
    }

    fn set_phase(&self, phase: Phase) {
        self.call.desk().protocol.phase = phase;
    }

    fn decided(&self) -> Option<Answer> {
        self.call.desk().protocol.decided.take()
    }

    /// Starts what an accept or a close of the application brings with it.
    fn follow(&mut self, phase: Phase) {
        match phase {
            Phase::Open if self.is_stopping && self.profile.shutdown.open != profile::Stop::GoesOn => {
                self.stop_session();
            }
            Phase::Open if self.ping.due.is_none() && self.profile.keepalive.ping_interval_ms > 0 => {
                let interval = Duration::from_millis(self.profile.keepalive.ping_interval_ms);
                self.ping.due = Some(Instant::now() + interval);
            }
            Phase::Closed if self.ending.is_none() => {
                self.stop_pings();
                self.ending = Some(Ending::CloseBy(Instant::now() + CLOSE_WAIT));
                let own = self.call.desk().protocol.own_close.unwrap_or(CloseCode::ABNORMAL);
                let code = self.profile.disconnect.after_own_close.unwrap_or(own.0);
                self.call.deliver(Inbound::WebsocketDisconnect { code, reason: String::new() });
            }
            _ => {}
        }
    }

    fn stop_pings(&mut self) {
        self.ping = Ping { due: None, pong_due: None };
    }

    fn answer(&mut self, answer: &Answer) {
        let ending = match answer {
            Answer::Http { .. } => {
                write_answer(self.call.desk().outgoing(), answer, &self.profile);
                Ending::Cut
            }
            Answer::Close { code, reason } => {
                Frame::close(*code, reason).encode(self.call.desk().outgoing());
                Ending::CloseBy(Instant::now() + CLOSE_WAIT)
            }
            Answer::Drop => Ending::Cut,
            Answer::Hang => Ending::Never,
        };
        let is_abandoned = *answer == Answer::Hang && self.phase() == Phase::Open;
        if is_abandoned {
            return self.set_phase(Phase::Abandoned);
        }
        self.stop_pings();
        self.ending = Some(ending);
        if self.phase() != Phase::Lost {
            self.set_phase(Phase::Over);
        }
    }

    fn application_ended(&mut self, result: Result<(), Exception>) {
        // What it sent last may have decided something.
        if let Some(answer) = self.decided() {
            return self.answer(&answer);
        }
        let answer = match (self.phase(), result) {
            (Phase::Connecting, Err(_)) => &self.profile.before_accept.raises,
            (Phase::Connecting, Ok(())) => &self.profile.before_accept.returns,
            (Phase::Open, Err(_)) => &self.profile.after_accept.raises,
            (Phase::Open, Ok(())) => &self.profile.after_accept.returns,
            (Phase::Denying, _) => &Answer::Drop,
            (Phase::Lost | Phase::Abandoned | Phase::Closed | Phase::Over | Phase::Stopped, _) => return,
        };
        let answer = answer.clone();
        self.answer(&answer);
    }

    fn client_ended(&mut self) {
        self.stop_pings();
        self.ending = Some(Ending::Cut);
        self.disconnect(CloseCode(self.profile.disconnect.without_frame), String::new());
    }

    /// Tells the application that the client is gone, once.
    fn disconnect(&mut self, code: CloseCode, reason: String) {
        if matches!(self.phase(), Phase::Connecting | Phase::Lost | Phase::Denying | Phase::Open | Phase::Abandoned) {
            self.set_phase(Phase::Over);
            self.call.deliver(Inbound::WebsocketDisconnect { code: code.0, reason });
        }
    }

    fn timer_fired(&mut self) {
        let now = Instant::now();
        if matches!(self.ending, Some(Ending::CloseBy(due)) if due <= now) {
            self.ending = Some(Ending::Cut);
        } else if self.cancel_at.is_some_and(|due| due <= now) {
            self.cancel_at = None;
            if self.call.is_running() {
                self.scribe.record(Party::Front, What::CutShort);
                self.call.cancel();
                self.application_ended(Err(Exception::cancelled()));
            }
        } else if self.ping.pong_due.is_some_and(|due| due <= now) {
            self.scribe.record(Party::Front, What::KeepaliveExpired);
            self.disconnect(CloseCode(self.profile.keepalive.application_sees), String::new());
            let answer = self.profile.keepalive.expired.clone();
            self.answer(&answer);
        } else if self.ping.due.is_some_and(|due| due <= now) {
            let keepalive = &self.profile.keepalive;
            Frame::new(Opcode::Ping, &b"keepalive"[..]).encode(self.call.desk().outgoing());
            self.ping.due = Some(now + Duration::from_millis(keepalive.ping_interval_ms));
            if keepalive.pong_timeout_ms > 0 && self.ping.pong_due.is_none() {
                self.ping.pong_due = Some(now + Duration::from_millis(keepalive.pong_timeout_ms));
            }
        }
    }

    fn read_frames(&mut self) {
        loop {
            let Some(wire) = self.wire.as_mut().filter(|wire| !wire.incoming.is_empty()) else { return };
            let not_yet = matches!(self.call.desk().protocol.phase, Phase::Connecting | Phase::Denying);
            if not_yet || self.call.is_inbox_full() {
                return;
            }
            let rules = &self.profile.violation;
            if rules.refuses.contains(&Strictness::LongLength) && !Frame::announces_shortest(&wire.incoming) {
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
    fn fail(&mut self, answer: impl Fn(&Violation) -> &Answer) {
        if let Some(wire) = self.wire.as_mut() {
            wire.incoming.clear();
        }
        if self.is_open() {
            let rules = &self.profile.violation;
            let answer = answer(rules).clone();
            let sent = match &answer {
                Answer::Close { code, .. } => code.unwrap_or(CloseCode::NO_STATUS),
                Answer::Http { .. } | Answer::Drop | Answer::Hang => CloseCode::ABNORMAL,
            };
            self.disconnect(rules.application_sees.map_or(sent, CloseCode), String::new());
            self.answer(&answer);
            if matches!(answer, Answer::Close { .. }) {
                // Whatever the client has to say to that is not waited for.
                self.ending = Some(Ending::Cut);
            }
        }
    }

    /// The rule that a frame breaks in this server's eyes.
    fn broken_rule(&self, frame: &Frame) -> Option<fn(&Violation) -> &Answer> {
        // A client masks every frame (RFC 6455 section 5.1).
        if frame.mask.is_none() {
            return Some(|rules| &rules.protocol);
        }
        let refuses = |what| self.profile.violation.refuses.contains(&what);
        let code = || frame.close_parts().0;
        match frame.verify() {
            Err(FrameError::Utf8) => Some(|rules| &rules.payload),
            Err(FrameError::CloseCode) if code().is_some() => Some(|rules| &rules.close_code),
            Err(_) => Some(|rules| &rules.protocol),
            Ok(()) if frame.opcode != Opcode::Close => None,
            Ok(()) if refuses(Strictness::BadGateway) && code() == Some(CloseCode::BAD_GATEWAY) => {
                Some(|rules| &rules.close_code)
            }
            Ok(()) if refuses(Strictness::CloseInsideMessage) && self.message.is_some() => {
                Some(|rules| &rules.protocol)
            }
            Ok(()) => None,
        }
    }

    fn take_frame(&mut self, frame: Frame) {
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
        match self.phase() {
            Phase::Open | Phase::Abandoned => {
                let rules = &self.profile.disconnect;
                let answer = match rules.close_echo {
                    CloseEcho::Same => Frame::close(code, &reason),
                    CloseEcho::Normal => Frame::close(Some(CloseCode::NORMAL), ""),
                };
                answer.encode(self.call.desk().outgoing());
                let seen = match code {
                    Some(code) => rules.with_code.map_or(code, CloseCode),
                    None => CloseCode(rules.without_code),
                };
                self.disconnect(seen, reason);
            }
            // Frames are read from the moment of the accept on.
            Phase::Connecting | Phase::Lost | Phase::Denying | Phase::Closed | Phase::Over | Phase::Stopped => {}
        }
        self.stop_pings();
        self.ending = Some(Ending::Cut);
    }

    fn take_data(&mut self, frame: Frame) {
        let mut message = match (frame.opcode, self.message.take()) {
            (Opcode::Continuation, Some(message)) => message,
            (Opcode::Continuation, None) | (_, Some(_)) => return self.fail(|rules| &rules.protocol),
            (opcode, None) => Message { opcode, payload: BytesMut::new(), checked: 0 },
        };
        if message.payload.len() + frame.payload.len() > MESSAGE_BYTES_MAX {
            return self.fail(|rules| &rules.too_big);
        }
        message.payload.extend_from_slice(&frame.payload);
        if !frame.is_final {
            if self.profile.violation.text == TextCheck::AtOnce && !message.may_become_text() {
                return self.fail(|rules| &rules.payload);
            }
            self.message = Some(message);
            return;
        }
        let Message { opcode, payload, .. } = message;
        let event = match opcode {
            Opcode::Text => match String::from_utf8(payload.into()) {
                Ok(text) => Inbound::WebsocketReceive { text: Some(text), bytes: None },
                Err(_) => return self.fail(|rules| &rules.payload),
            },
            _ => Inbound::WebsocketReceive { text: None, bytes: Some(payload.into()) },
        };
        if self.phase() == Phase::Open {
            self.call.deliver(event);
        }
    }
}
