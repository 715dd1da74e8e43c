//! The state of an upgrade and its session, as the app and the server agree on it event by event.

use std::collections::VecDeque;
use std::sync::Arc;

use relapse_core::{
    asgi::{
        event::{Inbound, MessageKeys, Outbound},
        exception::Exception,
        scope::ScopeType,
    },
    wire::{
        body::{LAST_CHUNK, write_chunk},
        close_code::CloseCode,
        deflate::{DeflateParameters, Deflater, RSV1},
        frame::{Frame, Opcode},
        head::{Headers, ResponseHead, field, header},
    },
};

use super::truncate;
use crate::{
    profile::{
        AfterDisconnect, Both, CloseReason, Denial, Effect, EmptyCheck, FailedClose, Gone, Profile, RefusalAnswer,
        Start, StateTracking, ToldReason, UnencodableText,
    },
    server::{add_server, call::Protocol, write_answer},
};

/// Where the connection stands for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerPhase {
    /// The application has not decided.
    Connecting,
    /// The application accepted, and the client never learns it.
    Lost,
    /// A denial response has begun.
    Denying,
    /// The accept raised, and the server goes on as after one.
    Broken,
    /// Accepted, and neither side has closed.
    Open,
    /// Accepted, and the application's call is over; the server goes on alone.
    Abandoned,
    /// A refusal or a denial response is out, and the connection stays until the call is over.
    Answered,
    /// The application's close went out.
    Closed,
    /// The client is gone, or the server gave the connection up.
    Over,
    /// The server stopped before the application decided.
    Stopped,
}

/// The application's side of the protocol.
pub(super) struct Negotiation {
    pub(super) profile: Arc<Profile>,
    pub(super) accept_key: String,
    pub(super) offers: Vec<String>,
    /// The compression that it tells the client with an accept, if any.
    pub(super) agreed: Option<DeflateParameters>,
    /// Compresses messages, where it agreed on that.
    pub(super) deflater: Option<Deflater>,
    pub(super) phase: ServerPhase,
    pub(super) denial: Option<(u16, Headers, Vec<u8>)>,
    /// How the body of a denial response is delimited whose head is out.
    pub(super) denial_framing: Option<DenialFraming>,
    /// The server's own decision on the answer.
    pub(super) decided: Option<RefusalAnswer>,
    /// The code of the application's close.
    pub(super) own_close: Option<CloseCode>,
    /// The code that the application closed with, which may not be the one that went out.
    pub(super) told_code: Option<CloseCode>,
    /// The reason that the application is told with its own close.
    pub(super) told_reason: Option<String>,
    /// How the application refused the WebSocket, if it did.
    pub(super) refusal: Option<AppRefusal>,
    /// A close that raised: its code and reason.
    pub(super) failed_close: Option<(CloseCode, String)>,
    /// The last disconnect that the application was given, where it gets it again and again.
    pub(super) disconnect: Option<Inbound>,
    /// Whether it accepted.
    pub(super) is_accepted: bool,
    /// Whether a message came that it has not received, or something that came before.
    pub(super) is_behind: bool,
    /// Whether an accept raised.
    pub(super) is_broken: bool,
    /// Whether the client closed.
    pub(super) is_closed_by_client: bool,
    /// The rest of the turn in which the application refused the client, while that lasts.
    pub(super) refusal_turn: Option<RefusalTurn>,
    /// The events of the server's own that were set.
    pub(super) events: LoopEvents,
}

/// Events of uvicorn's `websockets_impl.py`, and when it lost the connection.
#[derive(Debug, Default)]
pub(super) struct LoopEvents {
    /// `handshake_started_event`.
    pub(super) started: bool,
    /// `handshake_completed_event`.
    pub(super) completed: bool,
    /// `closed_event`.
    pub(super) closed: bool,
    /// `initial_response` is there.
    pub(super) initial: bool,
    /// `lost_connection_before_handshake`.
    pub(super) lost_before: bool,
    /// `connect_sent`.
    pub(super) connected: bool,
    /// A close of the application raised: that of the client is not answered.
    pub(super) mute: bool,
}

/// The turn of the event loop in which an application refuses its client. A server in that loop learns in the next turn that
/// the connection is gone (asyncio's `_SelectorTransport.close` calls `connection_lost` by `call_soon`).
#[derive(Debug, Default)]
pub(super) struct RefusalTurn {
    /// Whether the application has received the event that was there at once. It waits for the next one.
    has_received: bool,
}

/// How the body of a denial response is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DenialFraming {
    /// By the length that the application announced.
    Length,
    /// In chunks.
    Chunks,
}

impl DenialFraming {
    /// Writes a piece of a body whose head is out.
    fn write(self, piece: &[u8], outgoing: &mut Vec<u8>) {
        match self {
            DenialFraming::Length => outgoing.extend_from_slice(piece),
            DenialFraming::Chunks => write_chunk(piece, outgoing),
        }
    }

    /// Writes the end of a body.
    fn end(self, outgoing: &mut Vec<u8>) {
        match self {
            DenialFraming::Length => {}
            DenialFraming::Chunks => outgoing.extend_from_slice(LAST_CHUNK),
        }
    }
}

/// How an application refuses a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AppRefusal {
    /// With a close.
    Close,
    /// With a response.
    Response,
}

impl Protocol for Negotiation {
    const KIND: ScopeType = ScopeType::Websocket;

    fn take(&mut self, event: Outbound, outgoing: &mut Vec<u8>) -> Result<(), Exception> {
        match event {
            Outbound::Unencodable { event, error } => self.take_unencodable(*event, error, outgoing),
            event => self.take_event(event, outgoing),
        }
    }

    fn takes_messages(&self) -> bool {
        self.phase == ServerPhase::Open
    }

    fn give(&mut self, inbox: &mut VecDeque<Inbound>) -> Option<Inbound> {
        if self.profile.sequence.keeps == StateTracking::Events {
            return self.give_by_events(inbox);
        }
        inbox.extend(self.take_failed_close());
        if let Some(turn) = &mut self.refusal_turn
            && std::mem::replace(&mut turn.has_received, true)
        {
            self.end_refusal_turn();
        }
        if self.profile.sequence.after_disconnect != AfterDisconnect::Always {
            let event = inbox.pop_front();
            self.is_behind &= !inbox.is_empty();
            return event;
        }
        let event = inbox.pop_front().or_else(|| self.disconnect.clone());
        if let Some(Inbound::WebsocketDisconnect { code, .. }) = &event {
            let code = self.profile.disconnect.after_own_close.filter(|_| self.is_accepted).or(*code);
            self.disconnect = Some(Inbound::WebsocketDisconnect { code, reason: None });
        }
        event
    }

    fn message_keys(&self) -> MessageKeys {
        self.profile.sequence.message_keys
    }

    fn rest(&mut self) {
        self.end_refusal_turn();
    }

    fn lose(&mut self) {
        self.events.lost_before |= !self.events.completed;
        self.events.completed = true;
        let stays = matches!(self.phase, ServerPhase::Closed | ServerPhase::Denying);
        let is_kept = stays && self.profile.sequence.gone == Gone::Messages;
        if !is_kept && self.refusal_turn.is_none() {
            self.phase = ServerPhase::Over;
        }
    }
}

impl Negotiation {
    /// The application has refused the client, and the connection ends.
    pub(super) fn lose_refused(&mut self) {
        let rules = &self.profile.sequence;
        let tells_at_once = rules.keeps == StateTracking::State && rules.after_refusal.is_some();
        if tells_at_once && self.phase == ServerPhase::Closed && self.refusal.is_some() {
            self.refusal_turn = Some(RefusalTurn::default());
        }
        self.lose();
    }

    fn end_refusal_turn(&mut self) {
        if self.refusal_turn.take().is_some() {
            self.lose();
        }
    }

    /// The phase in which an event is taken. Some servers still take events for an open session after its call has ended.
    fn phase_for_events(&self) -> ServerPhase {
        match self.phase {
            ServerPhase::Abandoned if self.profile.sequence.abandoned.is_none() => ServerPhase::Open,
            phase => phase,
        }
    }

    /// Takes an event whose text UTF-8 cannot encode. It fails only where the server would write the text.
    fn take_unencodable(
        &mut self,
        mut event: Outbound,
        error: Exception,
        outgoing: &mut Vec<u8>,
    ) -> Result<(), Exception> {
        let profile = Arc::clone(&self.profile);
        let (after, sequence) = (&profile.after_accept, &profile.sequence);
        let is_written = match &event {
            Outbound::WebsocketSend { bytes, .. } => bytes.is_none() || sequence.both_send == Both::Text,
            _ => after.close_reason == CloseReason::Kept,
        };
        let is_shut = sequence.keeps == StateTracking::Events && (self.events.closed || self.events.mute);
        let is_open = self.phase_for_events() == ServerPhase::Open && !is_shut;
        if !(is_open && is_written) {
            return self.take_event(event, outgoing);
        }
        match (after.unencodable_text, &mut event) {
            (UnencodableText::Raises, Outbound::WebsocketClose { code, reason }) => {
                let raises = Effect::Raises { exception: error, then: None };
                let result = self.fail_close(&raises, CloseCode(*code), reason);
                if sequence.keeps == StateTracking::Stream {
                    self.phase = ServerPhase::Closed;
                }
                result
            }
            (UnencodableText::Raises, _) => Err(error),
            (UnencodableText::Emptied, event) => {
                if let Outbound::WebsocketSend { text: Some(text), .. }
                | Outbound::WebsocketClose { reason: text, .. } = event
                {
                    text.clear();
                }
                self.take_event(event.clone(), outgoing)
            }
        }
    }

    // Long: an arm for each phase and event.
    fn take_event(&mut self, event: Outbound, outgoing: &mut Vec<u8>) -> Result<(), Exception> {
        let is_empty = matches!(event, Outbound::WebsocketSend { text: None, bytes: None });
        if is_empty && self.profile.sequence.empty_check == EmptyCheck::First {
            return self.suffer(&self.profile.after_accept.empty_send.clone(), event.name(ScopeType::Websocket));
        }
        if self.profile.sequence.keeps == StateTracking::Events {
            return self.take_by_events(event, outgoing);
        }
        if self.profile.sequence.keeps == StateTracking::Stream {
            return self.take_as_stream(event, outgoing);
        }
        match (self.phase_for_events(), event) {
            (ServerPhase::Connecting, Outbound::WebsocketAccept { subprotocol, headers }) => {
                self.accept(subprotocol, headers, outgoing)
            }
            (ServerPhase::Connecting, refusal) if refusal.is_refusal() => {
                self.phase = ServerPhase::Closed;
                self.refusal = Some(AppRefusal::Close);
                self.decided = Some(self.profile.before_accept.close.clone());
                Ok(())
            }
            (ServerPhase::Connecting, Outbound::ResponseStart { status, headers }) => {
                self.start_denial(status, headers, outgoing);
                Ok(())
            }
            (ServerPhase::Denying, Outbound::ResponseBody { body, more_body }) => {
                self.deny(&body, outgoing);
                if !more_body {
                    self.end_denial(outgoing);
                }
                Ok(())
            }
            (ServerPhase::Open, Outbound::WebsocketSend { text: Some(text), bytes: Some(bytes) }) => {
                match self.profile.sequence.both_send.clone() {
                    Both::Text => self.send(Opcode::Text, text.as_bytes(), outgoing),
                    Both::Bytes => self.send(Opcode::Binary, &bytes, outgoing),
                    Both::Suffers(effect) => return self.suffer(&effect, "websocket.send"),
                }
                Ok(())
            }
            (ServerPhase::Open, Outbound::WebsocketSend { text: Some(text), .. }) => {
                self.send(Opcode::Text, text.as_bytes(), outgoing);
                Ok(())
            }
            (ServerPhase::Open, Outbound::WebsocketSend { text: None, bytes: Some(bytes) }) => {
                self.send(Opcode::Binary, &bytes, outgoing);
                Ok(())
            }
            (ServerPhase::Open, Outbound::WebsocketClose { code, reason }) => {
                self.close(CloseCode(code), &reason, outgoing)
            }
            (ServerPhase::Over, Outbound::WebsocketClose { code, reason })
                if matches!(self.late_close(&self.profile), Effect::Answers(_)) =>
            {
                self.failed_close = Some((CloseCode(code), reason));
                self.phase = ServerPhase::Closed;
                Ok(())
            }
            (phase, event) => self.misuse(phase, &event),
        }
    }

    pub(super) fn suffer(&mut self, effect: &Effect, detail: &str) -> Result<(), Exception> {
        match effect {
            Effect::Raises { exception, then } => {
                // The first decision stands, whatever else the application tries.
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

    pub(super) fn accept(
        &mut self,
        subprotocol: Option<String>,
        extra: Headers,
        outgoing: &mut Vec<u8>,
    ) -> Result<(), Exception> {
        if let Some(name) = &subprotocol
            && !self.offers.contains(name)
        {
            let effect = self.profile.before_accept.unoffered_subprotocol.clone();
            if let (Effect::Raises { exception, .. }, true) = (&effect, self.profile.sequence.broken_send.is_some()) {
                (self.phase, self.is_broken) = (ServerPhase::Broken, true);
                return self.suffer(&Effect::Raises { exception: exception.clone(), then: None }, name);
            }
            self.suffer(&effect, name)?;
            if effect != Effect::Ignored {
                self.phase = ServerPhase::Lost;
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
        if let Some(agreed) = self.agreed {
            headers.push(field("sec-websocket-extensions", agreed.to_string()));
        }
        if self.profile.sequence.accept_headers == CloseReason::Kept {
            headers.extend(extra);
        }
        add_server(&mut headers, &self.profile);
        ResponseHead { status: 101, headers }.encode(outgoing);
        self.phase = ServerPhase::Open;
        self.is_accepted = true;
        Ok(())
    }

    /// Writes a message.
    fn send(&mut self, opcode: Opcode, payload: &[u8], outgoing: &mut Vec<u8>) {
        match &mut self.deflater {
            None => Frame::encode_whole(opcode, payload, outgoing),
            Some(deflater) => {
                let frame = Frame::new(opcode, deflater.piece(payload, true));
                Frame { reserved_bits: RSV1, ..frame }.encode(outgoing);
            }
        }
    }

    /// Takes a piece of a denial response.
    fn deny(&mut self, piece: &[u8], outgoing: &mut Vec<u8>) {
        match (self.denial_framing, self.denial.as_mut()) {
            (Some(framing), Some(_)) => framing.write(piece, outgoing),
            (None, Some((_, _, body))) => body.extend_from_slice(piece),
            (_, None) => {}
        }
    }

    /// A denial response is whole.
    fn end_denial(&mut self, outgoing: &mut Vec<u8>) {
        if self.denial.is_none() {
            return;
        }
        if let Some(framing) = self.denial_framing {
            framing.end(outgoing);
            self.denial = None;
            (self.phase, self.refusal, self.decided) =
                (ServerPhase::Closed, Some(AppRefusal::Response), Some(RefusalAnswer::Drop));
            return;
        }
        self.phase = ServerPhase::Closed;
        self.refusal = Some(AppRefusal::Response);
        self.decided = match (self.profile.before_accept.denial.clone(), self.denial.take()) {
            (Denial::Sent, Some((status, mut headers, body))) => {
                if let Some(content_type) = &self.profile.sequence.denial_type {
                    headers.insert(0, field("content-type", content_type.clone()));
                }
                self.write_whole_denial(status, headers, &body, outgoing);
                Some(RefusalAnswer::Drop)
            }
            _ => Some(RefusalAnswer::Hang),
        };
    }

    pub(super) fn close(&mut self, code: CloseCode, reason: &str, outgoing: &mut Vec<u8>) -> Result<(), Exception> {
        let profile = Arc::clone(&self.profile);
        let rules = &profile.after_accept;
        let (mut code, whole) = (code, reason);
        (self.told_reason, self.told_code) = (Some(reason.to_owned()), Some(code));
        if !rules.close_codes.contain(code) {
            match &rules.other_close_code {
                Effect::Answers(RefusalAnswer::Close { code: Some(instead), .. }) => code = *instead,
                effect => return self.fail_close(effect, code, reason),
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
            effect => return self.fail_close(effect, code, whole),
        };
        Frame::close(Some(code), reason).encode(outgoing);
        self.phase = ServerPhase::Closed;
        self.own_close = Some(code);
        Ok(())
    }
}

impl Negotiation {
    /// The effect of an event that does not fit the phase.
    pub(super) fn misuse(&mut self, phase: ServerPhase, event: &Outbound) -> Result<(), Exception> {
        let profile = Arc::clone(&self.profile);
        let (before, after, sequence) = (&profile.before_accept, &profile.after_accept, &profile.sequence);
        let is_message = matches!(event, Outbound::WebsocketSend { .. } | Outbound::WebsocketClose { .. });
        let effect = match (phase, event) {
            (ServerPhase::Connecting, Outbound::WebsocketSend { .. }) | (ServerPhase::Lost, _) => &before.send,
            (ServerPhase::Connecting, _) => &before.unknown_event,
            (ServerPhase::Denying, _) => &sequence.denying,
            (ServerPhase::Broken, _) if is_message => {
                if let Outbound::WebsocketClose { code, reason } = event
                    && sequence.failed_close == FailedClose::Closed
                {
                    self.failed_close = Some((CloseCode(*code), reason.clone()));
                    self.phase = ServerPhase::Closed;
                }
                sequence.broken_send.as_ref().unwrap_or(&after.unknown_event)
            }
            (ServerPhase::Open, Outbound::WebsocketSend { .. }) => &after.empty_send,
            (ServerPhase::Open | ServerPhase::Broken, Outbound::WebsocketAccept { .. }) => &after.accept_again,
            (ServerPhase::Open | ServerPhase::Broken, _) => &after.unknown_event,
            (ServerPhase::Closed | ServerPhase::Answered, _) => match self.refusal {
                None => &after.send_after_close,
                Some(AppRefusal::Close) => &sequence.refused,
                Some(AppRefusal::Response) => &sequence.denied,
            },
            (ServerPhase::Over, Outbound::WebsocketAccept { .. }) if !is_message && sequence.gone == Gone::Messages => {
                &after.accept_again
            }
            (ServerPhase::Over, _) if !is_message && sequence.gone == Gone::Messages => &after.unknown_event,
            (ServerPhase::Abandoned, _) => sequence.abandoned.as_ref().unwrap_or(&profile.disconnect.send),
            (ServerPhase::Over, Outbound::WebsocketSend { text: None, bytes: None })
                if self.is_empty_first(&profile) =>
            {
                &after.empty_send
            }
            (ServerPhase::Over, Outbound::WebsocketClose { .. }) => self.late_close(&profile),
            (ServerPhase::Over, _) => match &sequence.closed_send {
                Some(effect) if self.is_closed_by_client || !self.is_accepted => effect,
                _ => &profile.disconnect.send,
            },
            (ServerPhase::Stopped, _) => &profile.shutdown.pending_send,
        };
        self.suffer(effect, event.name(ScopeType::Websocket))
    }

    /// Begins a denial response; its head goes out at once where the server does so.
    pub(super) fn start_denial(&mut self, status: u16, mut headers: Headers, outgoing: &mut Vec<u8>) {
        self.phase = ServerPhase::Denying;
        if self.profile.sequence.denial_start == Start::AtOnce {
            let announces = header(&headers, "content-length").is_some();
            self.denial_framing = Some(if announces { DenialFraming::Length } else { DenialFraming::Chunks });
            if !announces {
                headers.push(field("transfer-encoding", "chunked"));
            }
            add_server(&mut headers, &self.profile);
            ResponseHead { status, headers: headers.clone() }.encode(outgoing);
        }
        self.denial = Some((status, headers, Vec::new()));
    }

    /// Whether the server counts the session as closed by the application, although it could not write the close frame.
    pub(super) fn has_unwritten_close(&self) -> bool {
        let is_closed = self.phase == ServerPhase::Closed && self.own_close.is_none();
        is_closed && self.is_accepted && self.refusal.is_none() && !self.is_broken
    }

    /// Whether a message with nothing in it is looked at before the state of the connection.
    pub(super) fn is_empty_first(&self, profile: &Profile) -> bool {
        let is_closed = self.is_closed_by_client || !self.is_accepted;
        let comes_first = profile.after_accept.empty_send == Effect::Ignored || !is_closed;
        profile.sequence.gone == Gone::Messages && comes_first
    }

    /// The fate of a close whose client is not there any more.
    pub(super) fn late_close<'a>(&self, profile: &'a Profile) -> &'a Effect {
        let rules = &profile.sequence;
        let closed = rules.closed_close.as_ref().filter(|_| self.is_closed_by_client || !self.is_accepted);
        closed.or(rules.gone_close.as_ref()).unwrap_or(&profile.disconnect.send)
    }

    /// An event as uvicorn's `WebSocketProtocol.asgi_send` takes it.
    pub(super) fn take_by_events(&mut self, event: Outbound, outgoing: &mut Vec<u8>) -> Result<(), Exception> {
        let profile = Arc::clone(&self.profile);
        let (after, sequence) = (&profile.after_accept, &profile.sequence);
        let name = event.name(ScopeType::Websocket).to_owned();
        if !self.events.started {
            return self.start_by_events(event, outgoing);
        }
        if self.events.initial {
            let Outbound::ResponseBody { body, more_body } = event else {
                return self.suffer(&sequence.denying, &name);
            };
            if let Some((_, _, so_far)) = self.denial.as_mut() {
                so_far.extend_from_slice(&body);
            }
            self.events.closed |= !more_body;
            return Ok(());
        }
        if self.events.closed {
            return self.suffer(&after.send_after_close, &name);
        }
        let is_gone = self.phase != ServerPhase::Open;
        match event {
            Outbound::WebsocketSend { .. } if self.events.lost_before => match &sequence.lost_send {
                Some(effect) => self.suffer(effect, &name),
                None => Ok(()),
            },
            Outbound::WebsocketClose { .. } if self.events.lost_before => match &sequence.lost_close {
                Some(effect) => self.suffer(effect, &name),
                None => Ok(()),
            },
            Outbound::WebsocketSend { .. } if is_gone || self.events.mute => {
                self.suffer(&profile.disconnect.send, &name)
            }
            Outbound::WebsocketClose { .. } if is_gone => {
                self.events.closed = true;
                Ok(())
            }
            Outbound::WebsocketSend { bytes: Some(bytes), .. } => {
                self.send(Opcode::Binary, &bytes, outgoing);
                Ok(())
            }
            Outbound::WebsocketSend { text: Some(text), .. } => {
                self.send(Opcode::Text, text.as_bytes(), outgoing);
                Ok(())
            }
            Outbound::WebsocketSend { .. } => self.suffer(&after.empty_send, &name),
            Outbound::WebsocketClose { code, reason } => {
                self.close(CloseCode(code), &reason, outgoing)?;
                self.events.closed = true;
                Ok(())
            }
            Outbound::WebsocketAccept { .. } => self.suffer(&after.accept_again, &name),
            _ => self.suffer(&after.unknown_event, &name),
        }
    }

    /// The first event, as uvicorn's `WebSocketProtocol.asgi_send` takes it.
    pub(super) fn start_by_events(&mut self, event: Outbound, outgoing: &mut Vec<u8>) -> Result<(), Exception> {
        let profile = Arc::clone(&self.profile);
        let before = &profile.before_accept;
        let name = event.name(ScopeType::Websocket).to_owned();
        match event {
            Outbound::WebsocketAccept { subprotocol, headers } => {
                self.events.started = true;
                if self.events.lost_before {
                    return Ok(());
                }
                self.events.completed = true;
                self.accept(subprotocol, headers, outgoing)
            }
            refusal if refusal.is_refusal() => {
                (self.events.started, self.events.closed, self.events.initial) = (true, true, true);
                self.refusal = Some(AppRefusal::Close);
                match &before.close {
                    // Bodies of a denial response that follow at once go with it.
                    RefusalAnswer::Http { status, content_type, .. } => {
                        self.phase = ServerPhase::Denying;
                        let headers = vec![field("content-type", content_type.clone())];
                        self.denial = Some((*status, headers, Vec::new()));
                    }
                    answer => (self.phase, self.decided) = (ServerPhase::Closed, Some(answer.clone())),
                }
                Ok(())
            }
            Outbound::ResponseStart { status, headers } => {
                (self.events.started, self.events.initial) = (true, true);
                (self.phase, self.refusal) = (ServerPhase::Denying, Some(AppRefusal::Response));
                self.denial = Some((status, headers, Vec::new()));
                Ok(())
            }
            Outbound::WebsocketSend { .. } => self.suffer(&before.send, &name),
            _ => self.suffer(&before.unknown_event, &name),
        }
    }

    /// An event as hypercorn's `WSStream.app_send` takes it.
    // Long: an arm for each phase and event of hypercorn's stream.
    pub(super) fn take_as_stream(&mut self, event: Outbound, outgoing: &mut Vec<u8>) -> Result<(), Exception> {
        let profile = Arc::clone(&self.profile);
        let (before, after, sequence) = (&profile.before_accept, &profile.after_accept, &profile.sequence);
        let name = event.name(ScopeType::Websocket).to_owned();
        match (self.phase, event) {
            (ServerPhase::Over | ServerPhase::Stopped | ServerPhase::Abandoned, _) => Ok(()),
            (ServerPhase::Connecting, Outbound::WebsocketAccept { subprotocol, headers }) => {
                self.accept(subprotocol, headers, outgoing)
            }
            (ServerPhase::Connecting, Outbound::ResponseStart { status, headers }) => {
                self.denial = Some((status, headers, Vec::new()));
                Ok(())
            }
            (ServerPhase::Connecting | ServerPhase::Denying, Outbound::ResponseBody { body, more_body }) => {
                if self.phase == ServerPhase::Connecting {
                    let Some((status, mut headers, _)) = self.denial.clone() else { return lacks("response") };
                    if header(&headers, "content-length").is_none() {
                        headers.push(field("transfer-encoding", "chunked"));
                        self.denial_framing = Some(DenialFraming::Chunks);
                    } else {
                        self.denial_framing = Some(DenialFraming::Length);
                    }
                    add_server(&mut headers, &self.profile);
                    ResponseHead { status, headers }.encode(outgoing);
                    self.phase = ServerPhase::Denying;
                }
                let Some(framing) = self.denial_framing else { return Ok(()) };
                framing.write(&body, outgoing);
                if !more_body {
                    framing.end(outgoing);
                    (self.phase, self.refusal) = (ServerPhase::Answered, Some(AppRefusal::Response));
                }
                Ok(())
            }
            (ServerPhase::Connecting, refusal) if refusal.is_refusal() => {
                write_answer(outgoing, &before.close, &profile, sequence.refused_connection);
                (self.phase, self.refusal) = (ServerPhase::Answered, Some(AppRefusal::Close));
                Ok(())
            }
            (ServerPhase::Open, Outbound::WebsocketSend { bytes: Some(bytes), .. }) => {
                self.send(Opcode::Binary, &bytes, outgoing);
                Ok(())
            }
            (ServerPhase::Open, Outbound::WebsocketSend { text: Some(text), .. }) => {
                self.send(Opcode::Text, text.as_bytes(), outgoing);
                Ok(())
            }
            (ServerPhase::Open | ServerPhase::Broken, Outbound::WebsocketSend { text: None, bytes: None }) => {
                self.suffer(&after.empty_send, &name)
            }
            (ServerPhase::Broken, Outbound::WebsocketSend { .. }) => lacks("connection"),
            (ServerPhase::Open, Outbound::WebsocketClose { code, reason }) => {
                self.close(CloseCode(code), &reason, outgoing)
            }
            (ServerPhase::Closed, Outbound::WebsocketClose { code, reason }) if self.has_unwritten_close() => {
                self.close(CloseCode(code), &reason, outgoing)
            }
            // Its own second close is swallowed.
            (ServerPhase::Closed, Outbound::WebsocketClose { .. }) if !self.is_broken && self.refusal.is_none() => {
                Ok(())
            }
            (
                ServerPhase::Broken | ServerPhase::Denying | ServerPhase::Answered | ServerPhase::Closed,
                Outbound::WebsocketClose { .. },
            ) => {
                (self.phase, self.is_broken) = (ServerPhase::Closed, true);
                lacks("connection")
            }
            (ServerPhase::Connecting | ServerPhase::Lost, Outbound::WebsocketSend { .. }) => {
                self.suffer(&before.send, &name)
            }
            (ServerPhase::Connecting | ServerPhase::Lost, _) => self.suffer(&before.unknown_event, &name),
            (ServerPhase::Open | ServerPhase::Broken, Outbound::WebsocketAccept { .. }) => {
                self.suffer(&after.accept_again, &name)
            }
            (ServerPhase::Open | ServerPhase::Broken, _) => self.suffer(&after.unknown_event, &name),
            (ServerPhase::Denying, _) => self.suffer(&sequence.denying, &name),
            (ServerPhase::Answered, _) => self.suffer(&sequence.denied, &name),
            (ServerPhase::Closed, _) => self.suffer(&after.send_after_close, &name),
        }
    }

    /// The event that uvicorn's `WebSocketProtocol.asgi_receive` gives.
    pub(super) fn give_by_events(&mut self, inbox: &mut VecDeque<Inbound>) -> Option<Inbound> {
        if !std::mem::replace(&mut self.events.connected, true) {
            return inbox.pop_front();
        }
        if self.events.lost_before {
            return Some(disconnect_without_reason(CloseCode::ABNORMAL));
        }
        if !self.events.completed {
            return None;
        }
        if self.events.closed {
            return Some(disconnect_without_reason(CloseCode::NO_STATUS));
        }
        let event = inbox.pop_front();
        self.events.closed |= matches!(event, Some(Inbound::WebsocketDisconnect { .. }));
        event
    }

    /// Writes a denial response with its length, after which the connection ends.
    fn write_whole_denial(&self, status: u16, mut headers: Headers, body: &[u8], outgoing: &mut Vec<u8>) {
        if header(&headers, "content-length").is_none() {
            headers.push(field("content-length", body.len().to_string()));
        }
        headers.push(field("connection", "close"));
        add_server(&mut headers, &self.profile);
        ResponseHead { status, headers }.encode(outgoing);
        outgoing.extend_from_slice(body);
    }

    /// Sends a denial response as far as it has come.
    pub(super) fn deny_with_what_is_there(&mut self, outgoing: &mut Vec<u8>) {
        if let Some((status, headers, body)) = self.denial.take() {
            self.write_whole_denial(status, headers, &body, outgoing);
            self.phase = ServerPhase::Closed;
            self.decided = Some(RefusalAnswer::Drop);
        }
    }

    /// The event that tells the application of a close that raised.
    pub(super) fn take_failed_close(&mut self) -> Option<Inbound> {
        let (code, reason) = self.failed_close.take()?;
        Some(Inbound::WebsocketDisconnect { code: Some(code.0), reason: Some(reason) })
    }

    /// The event that tells the application of its own close.
    pub(super) fn own_disconnect(&self) -> Option<Inbound> {
        let code = self.profile.disconnect.after_own_close;
        let is_told = code.is_none() && self.profile.sequence.close_reason == ToldReason::Told;
        let reason = self.told_reason.clone().filter(|_| is_told);
        self.own_close?;
        Some(Inbound::WebsocketDisconnect { code: code.or(self.told_code.map(|own| own.0)), reason })
    }

    /// The code that the end of the connection is told with.
    pub(super) fn lost_code(&self) -> Option<u16> {
        let rules = &self.profile.sequence;
        match self.refusal {
            None if self.denial.is_some() && rules.keeps != StateTracking::Stream => rules.lost_denied,
            _ if self.own_close.is_some() && rules.keeps == StateTracking::Stream => {
                self.profile.disconnect.after_own_close
            }
            _ if self.is_accepted || (self.is_broken && rules.keeps != StateTracking::Stream) => {
                Some(self.profile.disconnect.without_frame)
            }
            Some(AppRefusal::Close) => rules.lost_refused,
            Some(AppRefusal::Response) => rules.lost_denied,
            None => rules.lost_pending,
        }
    }

    /// A close that the server does not take.
    pub(super) fn fail_close(&mut self, effect: &Effect, code: CloseCode, reason: &str) -> Result<(), Exception> {
        let result = self.suffer(effect, &code.to_string());
        self.events.mute |= result.is_err() && self.profile.sequence.keeps == StateTracking::Events;
        if result.is_err() && self.profile.sequence.failed_close != FailedClose::Nothing {
            self.failed_close = Some((code, reason.to_owned()));
            if self.profile.sequence.failed_close == FailedClose::Closed {
                self.phase = ServerPhase::Closed;
            }
        }
        result
    }
}

/// The error of hypercorn's stream where it has not set an attribute yet.
fn lacks(attribute: &str) -> Result<(), Exception> {
    Err(Exception::attribute_error("WSStream", attribute))
}

fn disconnect_without_reason(code: CloseCode) -> Inbound {
    Inbound::WebsocketDisconnect { code: Some(code.0), reason: None }
}
