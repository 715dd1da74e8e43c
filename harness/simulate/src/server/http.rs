//! One plain HTTP request: body in, answer out, as a server with this profile frames it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Sleep, sleep, timeout};

use crate::server::{
    FLUSH_LIMIT, Life, StopNotice, add_server,
    call::{AppCall, CallStep, NextEvent, Protocol},
    refuse, wait_for_end, write_answer,
};
use crate::{
    application::Application,
    link::{Progress, Wire, take},
    profile::{
        self, Effect, HttpBody, HttpDisconnect, HttpRules, Profile, RefusalAnswer, Reuse, ShortEnd, Start,
        WithoutLength,
    },
    recorder::ExchangeRecorder,
};
use relapse_core::{
    asgi::{
        event::{Inbound, Outbound},
        exception::Exception,
        scope::{Scope, ScopeType},
    },
    record::transcript::{Actor, EventKind},
    wire::{
        body::{BodyFraming, LAST_CHUNK, parse_length, write_chunk},
        head::{Headers, RequestHead, ResponseHead, field, has_token, header},
    },
};

/// The largest request body that is read, in bytes.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Serves one request; says whether the connection may carry another.
pub(super) async fn serve(
    wire: &mut Wire,
    head: RequestHead,
    application: Arc<dyn Application>,
    profile: &Arc<Profile>,
    scribe: &ExchangeRecorder,
    stop: &mut StopNotice,
) -> bool {
    let reusable = keeps_alive(&head);
    let length = match body_length(&head) {
        Ok(length) if length <= BODY_BYTES_MAX => length,
        refused => {
            let status = refused.map_or_else(|status| status, |_| 413);
            let answer = RefusalAnswer::Http { status, content_type: String::new(), body: String::new() };
            refuse(wire, &answer, profile, scribe, None).await;
            return false;
        }
    };
    if profile.sequence.http_body == HttpBody::Whole && !is_whole(wire, length).await {
        return false;
    }
    let scope = Scope::build(ScopeType::Http, &head, &profile.scope, scribe.connection());
    let response = Response {
        profile: Arc::clone(profile),
        request: PendingRequest { length_left: length, ..PendingRequest::default() },
        head_only: head.method == "HEAD",
        head: None,
        framing: None,
        complete: false,
        cut: false,
        is_broken: false,
        has_pieces: false,
    };
    scribe.record(Actor::Front, EventKind::Called { kind: ScopeType::Http, head });
    let call = AppCall::start(application, scope, response, scribe);
    let (is_stopping, grace, is_end_told) = (false, None, false);
    RequestService { wire, call, profile, scribe, stop, reusable, is_stopping, grace, is_end_told }.run().await
}

/// One request, from its scope to the last byte of its answer.
struct RequestService<'a> {
    wire: &'a mut Wire,
    call: AppCall<Response>,
    profile: &'a Arc<Profile>,
    scribe: &'a ExchangeRecorder,
    stop: &'a mut StopNotice,
    /// Whether the client asks to keep the connection.
    reusable: bool,
    is_stopping: bool,
    /// When a call is cancelled that goes on while the server stops.
    grace: Option<Pin<Box<Sleep>>>,
    is_end_told: bool,
}

impl RequestService<'_> {
    /// Serves it; says whether the connection may carry another.
    async fn run(mut self) -> bool {
        self.call.feed(self.wire);
        loop {
            let Some(next) = self.next_event().await else { continue };
            if let ControlFlow::Break(is_kept) = self.follow(next).await {
                return is_kept;
            }
            if self.call.desk().protocol.cut {
                flush(self.wire, &mut self.call).await;
                return false;
            }
        }
    }

    /// The next event; `None` once the application knows that the client is gone.
    async fn next_event(&mut self) -> Option<NextEvent> {
        if !self.wire.has_ended() || self.is_end_told {
            return Some(self.call.next(Some(&mut *self.wire), self.stop, &mut self.grace).await);
        }
        self.is_end_told = true;
        // That which came before the end is received before it.
        match poll_fn(|cx| Poll::Ready(self.call.poll_step(None, cx))).await {
            Poll::Ready(step @ CallStep::Ended(_)) => Some(NextEvent::Step(step)),
            Poll::Ready(CallStep::Moved | CallStep::Wire) | Poll::Pending => {
                self.call.end(ClientEnd::Gone);
                None
            }
        }
    }

    /// Does what an event asks for; breaks with whether the connection may carry another request.
    async fn follow(&mut self, next: NextEvent) -> ControlFlow<bool> {
        match next {
            NextEvent::Step(CallStep::Ended(result)) => ControlFlow::Break(self.ended(result).await),
            NextEvent::Step(CallStep::Wire | CallStep::Moved) => {
                read_on(self.wire).await;
                self.call.feed(self.wire);
                let is_complete = self.call.desk().protocol.complete;
                if is_complete {
                    self.call.note_unread();
                    self.call.end(ClientEnd::Answered);
                }
                ControlFlow::Continue(())
            }
            NextEvent::Stop(Life::Exited) => {
                cut_short(&mut self.call, self.scribe);
                ControlFlow::Break(false)
            }
            NextEvent::Stop(_) => self.stopped().await,
            NextEvent::Timer => {
                cut_short(&mut self.call, self.scribe);
                ControlFlow::Break(self.ended(Err(Exception::cancelled())).await)
            }
        }
    }

    /// The server was told to stop.
    async fn stopped(&mut self) -> ControlFlow<bool> {
        let rules = &self.profile.shutdown;
        if let profile::StopFate::Answers(answer) = &rules.request {
            cut_short(&mut self.call, self.scribe);
            flush(self.wire, &mut self.call).await;
            write_answer(&mut self.wire.outgoing, answer, self.profile, Reuse::Closed);
            return ControlFlow::Break(false);
        }
        self.is_stopping = true;
        self.grace = (rules.grace_s > 0).then(|| Box::pin(sleep(Duration::from_secs(rules.grace_s))));
        ControlFlow::Continue(())
    }

    /// The call is over; whether the connection may carry another request.
    async fn ended(&mut self, result: Result<(), Exception>) -> bool {
        flush(self.wire, &mut self.call).await;
        self.call.feed(self.wire);
        let came_late = self.call.note_unread();
        let (progress, unread) = {
            let protocol = &self.call.desk().protocol;
            (protocol.progress(), protocol.request.length_left)
        };
        // The server's own answer is one like another.
        self.call.desk().protocol.complete |= matches!(progress, AnswerProgress::Nothing) && !self.wire.has_ended();
        self.call.end(ClientEnd::Answered);
        let is_kept = finish(self.wire, progress, result, self.profile).await && self.reusable && !self.is_stopping;
        let is_read = came_late == 0 || self.profile.sequence.http_unread == Reuse::Kept;
        is_kept && is_read && skip(self.wire, unread).await
    }
}

/// Cancels the call because the server stops.
fn cut_short(call: &mut AppCall<Response>, scribe: &ExchangeRecorder) {
    scribe.record(Actor::Front, EventKind::CutShort);
    call.cancel();
}

/// Writes everything the application sent. A client that does not read has its limit.
async fn flush(wire: &mut Wire, call: &mut AppCall<Response>) {
    let all = async move {
        while call.move_outgoing(wire) {
            wire.flush().await;
        }
    };
    let _ = timeout(FLUSH_LIMIT, all).await;
}

/// Writes the answer for a call that ended, if it is not whole; returns whether the connection is still usable.
async fn finish(wire: &mut Wire, answered: AnswerProgress, result: Result<(), Exception>, profile: &Profile) -> bool {
    let answer = match (answered, result) {
        (AnswerProgress::Whole, Err(_)) if profile.sequence.http_raises_after_end == Reuse::Closed => return false,
        (AnswerProgress::Whole, _) => return !wire.has_ended(),
        (AnswerProgress::Broken, Ok(())) => &RefusalAnswer::Hang,
        (AnswerProgress::Nothing, Err(_)) => &profile.http.raises,
        (AnswerProgress::Nothing, Ok(())) => &profile.http.returns,
        (AnswerProgress::Begun | AnswerProgress::Broken, _) => &profile.http.ends_after_start,
    };
    if *answer == RefusalAnswer::Hang {
        wait_for_end(wire).await;
    }
    write_answer(&mut wire.outgoing, answer, profile, profile.sequence.http_own_answer);
    profile.sequence.http_own_answer == Reuse::Kept && matches!(answer, RefusalAnswer::Http { .. }) && !wire.has_ended()
}

/// Waits for a whole body; whether it came.
async fn is_whole(wire: &mut Wire, length: usize) -> bool {
    while wire.incoming.len() < length {
        if wire.has_ended() {
            return false;
        }
        wire.progress().await;
    }
    true
}

/// Drops what is left of a body that nothing asked for; whether it came.
async fn skip(wire: &mut Wire, mut left: usize) -> bool {
    while left > 0 {
        let come = wire.incoming.len().min(left);
        take(&mut wire.incoming, come);
        left -= come;
        if left > 0 && wire.has_ended() {
            return false;
        }
        if left > 0 {
            wire.progress().await;
        }
    }
    true
}

/// Reads what is there, so that it reaches the application in one piece as it does from a socket.
async fn read_on(wire: &mut Wire) {
    poll_fn(|cx| {
        while wire.incoming.len() < PIECE_BYTES_MAX
            && !wire.has_ended()
            && matches!(wire.poll_progress(cx), Poll::Ready(Progress::Read))
        {}
        Poll::Ready(())
    })
    .await;
}

/// How much of a body is read at once (hypercorn's `TCPServer._read_data`).
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// How a request ends for its application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientEnd {
    /// The client is gone.
    Gone,
    /// The whole answer is sent.
    Answered,
}

impl AppCall<Response> {
    /// Gives what has come of the request's body to the application.
    fn feed(&self, wire: &mut Wire) {
        let mut pieces = Vec::new();
        {
            let mut desk = self.desk();
            let protocol = &mut desk.protocol;
            let request = &mut protocol.request;
            let come = wire.incoming.len().min(request.length_left);
            let piece = wire.incoming[..come].to_vec();
            take(&mut wire.incoming, come);
            request.length_left -= come;
            if request.is_told_whole || protocol.complete {
                return;
            }
            request.is_told_whole = request.length_left == 0;
            match protocol.profile.sequence.http_body {
                HttpBody::Merged => {
                    request.has_news |= !piece.is_empty() || request.is_told_whole;
                    request.body.extend_from_slice(&piece);
                }
                HttpBody::Pieces => {
                    if !piece.is_empty() {
                        pieces.push(Inbound::HttpRequest { body: piece, more_body: true });
                    }
                    if request.is_told_whole {
                        pieces.push(Inbound::HttpRequest { body: Vec::new(), more_body: false });
                    }
                }
                HttpBody::Whole => pieces.push(Inbound::HttpRequest { body: piece, more_body: false }),
            }
        }
        pieces.into_iter().for_each(|piece| self.deliver(piece));
        self.wake();
    }

    /// How many bytes of the request's body had not come when the answer was whole, which it is by now at the latest.
    fn note_unread(&self) -> usize {
        let request = &mut self.desk().protocol.request;
        *request.unread_at_answer.get_or_insert(request.length_left)
    }

    /// Tells the application that the request is over.
    fn end(&self, end: ClientEnd) {
        let is_first = {
            let mut desk = self.desk();
            let protocol = &mut desk.protocol;
            protocol.request.is_gone |= end == ClientEnd::Gone && !protocol.complete;
            !std::mem::replace(&mut protocol.request.has_ended, true)
        };
        let is_queued = self.desk().protocol.profile.sequence.http_disconnect == HttpDisconnect::Once;
        if is_first && is_queued {
            self.deliver(Inbound::HttpDisconnect);
        }
        self.wake();
    }
}

/// That which has come of a request.
#[derive(Default)]
struct PendingRequest {
    /// How much of its body has not come.
    length_left: usize,
    /// How much of it had not come when the answer was whole.
    unread_at_answer: Option<usize>,
    /// That which has come and was not received.
    body: Vec<u8>,
    /// Whether there is something to receive.
    has_news: bool,
    /// Whether the end of the body was given to the application.
    is_told_whole: bool,
    /// Whether the client is gone.
    is_gone: bool,
    /// Whether the application was told of the end.
    has_ended: bool,
}

/// The announced length of the request's body, or the status that refuses the announcement. A chunked body is not
/// read: no case sends one.
fn body_length(head: &RequestHead) -> Result<usize, u16> {
    if header(&head.headers, "transfer-encoding").is_some() {
        return Err(501);
    }
    match BodyFraming::of_request(head) {
        BodyFraming::Length(length) => usize::try_from(length).map_err(|_| 413),
        BodyFraming::Absent | BodyFraming::Chunked | BodyFraming::UntilEnd | BodyFraming::Unreadable => Err(400),
    }
}

/// Whether the request asks to keep the connection for another one (RFC 9112 section 9.3).
fn keeps_alive(head: &RequestHead) -> bool {
    match head.minor_version {
        0 => has_token(&head.headers, "connection", "keep-alive"),
        _ => !has_token(&head.headers, "connection", "close"),
    }
}

struct Response {
    profile: Arc<Profile>,
    request: PendingRequest,
    head_only: bool,
    head: Option<(u16, Headers)>,
    framing: Option<AnswerFraming>,
    complete: bool,
    cut: bool,
    /// Whether a body raised because of its length.
    is_broken: bool,
    /// Whether a piece came that more was to follow.
    has_pieces: bool,
}

/// How much of the answer the application has given.
enum AnswerProgress {
    Nothing,
    Begun,
    Whole,
    /// It ended before its length, and counts as whole for the server.
    Broken,
}

#[derive(Clone, Copy)]
enum AnswerFraming {
    Chunked,
    BytesLeft(u64),
    NoBody,
}

impl Protocol for Response {
    const KIND: ScopeType = ScopeType::Http;

    fn take(&mut self, event: Outbound, outgoing: &mut Vec<u8>) -> Result<(), Exception> {
        let rules = &self.profile.sequence;
        if let Some(effect) = rules.http_gone.as_ref().filter(|_| self.request.is_gone) {
            return suffer(effect, &event);
        }
        let is_known = matches!(event, Outbound::ResponseStart { .. } | Outbound::ResponseBody { .. });
        if let Some(effect) = rules.http_unknown.as_ref().filter(|_| !is_known) {
            return suffer(effect, &event);
        }
        match event {
            Outbound::ResponseStart { .. } if self.complete && rules.http_unknown.is_some() => {
                suffer(&rules.http_after_start, &event)
            }
            _ if self.complete => {
                let pieces = rules.http_after_pieces.as_ref().filter(|_| self.has_pieces);
                suffer(pieces.unwrap_or(&rules.http_after_end), &event)
            }
            Outbound::ResponseStart { status, headers } if self.head.is_none() => {
                self.head = Some((status, headers));
                if self.profile.http.start == Start::AtOnce {
                    self.framing = Some(self.write_head(outgoing, None));
                }
                Ok(())
            }
            Outbound::ResponseBody { .. } if self.is_broken && rules.http_after_error.is_some() => {
                rules.http_after_error.as_ref().map_or(Ok(()), |effect| suffer(effect, &event))
            }
            Outbound::ResponseBody { body, more_body } if self.head.is_some() => {
                let framing = match self.framing {
                    Some(framing) => framing,
                    None => self.write_head(outgoing, (!more_body).then_some(body.len())),
                };
                self.framing = Some(framing);
                self.has_pieces |= more_body;
                self.write_piece(framing, &body, outgoing)?;
                if more_body { Ok(()) } else { self.end_body(outgoing) }
            }
            other if self.head.is_none() => suffer(&rules.http_before_start, &other),
            other => suffer(&rules.http_after_start, &other),
        }
    }

    fn give(&mut self, inbox: &mut VecDeque<Inbound>) -> Option<Inbound> {
        let is_over = self.request.is_gone || self.complete;
        if is_over && self.profile.sequence.http_disconnect == HttpDisconnect::Always {
            return Some(Inbound::HttpDisconnect);
        }
        if std::mem::take(&mut self.request.has_news) {
            let body = std::mem::take(&mut self.request.body);
            return Some(Inbound::HttpRequest { body, more_body: !self.request.is_told_whole });
        }
        inbox.pop_front()
    }

    fn lose(&mut self) {
        self.request.is_gone |= !self.complete;
    }
}

/// That which a mistake leads to.
fn suffer(effect: &Effect, event: &Outbound) -> Result<(), Exception> {
    match effect {
        Effect::Raises { exception, .. } => {
            let message = exception.message.replace("{type}", event.name(ScopeType::Http));
            Err(Exception { message, ..exception.clone() })
        }
        Effect::Answers(_) | Effect::Ignored | Effect::Truncated => Ok(()),
    }
}

impl Response {
    fn progress(&self) -> AnswerProgress {
        match (self.complete, self.framing) {
            (true, _) if self.is_broken => AnswerProgress::Broken,
            (true, _) => AnswerProgress::Whole,
            (false, Some(_)) => AnswerProgress::Begun,
            (false, None) => AnswerProgress::Nothing,
        }
    }

    /// Writes the head; `whole` is the body's length where all of it is there.
    fn write_head(&mut self, outgoing: &mut Vec<u8>, whole: Option<usize>) -> AnswerFraming {
        let (status, headers) = self.head.as_ref().expect("a body follows a start");
        let (status, mut headers) = (*status, headers.clone());
        let announced = header(&headers, "content-length").and_then(parse_length);
        let added = whole.filter(|_| self.profile.http.without_length == WithoutLength::ContentLength);
        let framing = match (announced, added) {
            // h11 holds the body of these against a length of 0.
            _ if matches!(status, 204 | 304) && !self.head_only && self.counts_all() => AnswerFraming::BytesLeft(0),
            _ if self.head_only || matches!(status, 204 | 304) => AnswerFraming::NoBody,
            (Some(length), _) => AnswerFraming::BytesLeft(length),
            (None, Some(length)) => {
                headers.push(field("content-length", length.to_string()));
                AnswerFraming::BytesLeft(length as u64)
            }
            (None, None) => {
                headers.push(field("transfer-encoding", "chunked"));
                AnswerFraming::Chunked
            }
        };
        add_server(&mut headers, &self.profile);
        ResponseHead { status, headers }.encode(outgoing);
        framing
    }

    fn write_piece(&mut self, framing: AnswerFraming, body: &[u8], outgoing: &mut Vec<u8>) -> Result<(), Exception> {
        match framing {
            AnswerFraming::NoBody => {}
            AnswerFraming::Chunked => write_chunk(body, outgoing),
            AnswerFraming::BytesLeft(left) => {
                let length = body.len() as u64;
                if length > left {
                    self.mismatch(|rules| &rules.long_body)?;
                }
                outgoing.extend_from_slice(body);
                self.framing = Some(AnswerFraming::BytesLeft(left.saturating_sub(length)));
            }
        }
        Ok(())
    }

    /// The body is over.
    fn end_body(&mut self, outgoing: &mut Vec<u8>) -> Result<(), Exception> {
        match self.framing {
            Some(AnswerFraming::Chunked) => outgoing.extend_from_slice(LAST_CHUNK),
            Some(AnswerFraming::BytesLeft(1..)) => {
                self.complete = self.profile.sequence.http_short_end == ShortEnd::Whole && self.counts();
                self.mismatch(|rules| &rules.short_body)?;
            }
            Some(AnswerFraming::BytesLeft(0) | AnswerFraming::NoBody) | None => {}
        }
        self.complete = true;
        Ok(())
    }

    /// Whether that holds for answers without a body, too, whose body hypercorn drops before h11 sees it.
    fn counts_all(&self) -> bool {
        self.counts() && self.profile.sequence.http_body == HttpBody::Merged
    }

    /// Whether a body of another length than announced raises.
    fn counts(&self) -> bool {
        matches!(self.profile.http.long_body, Effect::Raises { .. })
    }

    fn mismatch(&mut self, effect: impl Fn(&HttpRules) -> &Effect) -> Result<(), Exception> {
        match effect(&self.profile.http) {
            // h11 complains of nothing once the other side is gone.
            Effect::Raises { .. } if self.request.is_gone => Ok(()),
            Effect::Raises { exception, .. } => {
                self.is_broken = true;
                Err(exception.clone())
            }
            Effect::Answers(_) => {
                self.cut = true;
                Ok(())
            }
            Effect::Ignored | Effect::Truncated => Ok(()),
        }
    }
}
