//! One plain HTTP request: body in, answer out, as a server with this profile frames it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    FLUSH_LIMIT, Life, Stop, add_server,
    call::{Call, Next, Protocol, Step},
    refuse, wait_for_end, write_answer,
};
use crate::{
    application::Application,
    event::{Inbound, Outbound},
    exception::Exception,
    head::{Headers, RequestHead, ResponseHead, field, has_token, header},
    link::{Progress, Wire, take},
    profile::{self, Answer, Effect, HttpRules, Profile, Start, WithoutLength},
    recorder::Scribe,
    scope::{Scope, ScopeType},
    transcript::{Party, What},
};

/// The largest request body that is read, in bytes.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Serves one request; says whether the connection may carry another.
pub(super) async fn serve(
    wire: &mut Wire,
    head: RequestHead,
    application: Arc<dyn Application>,
    profile: &Arc<Profile>,
    scribe: &Scribe,
    stop: &mut Stop,
) -> bool {
    let reusable = keeps_alive(&head);
    let body = match body_length(&head) {
        Ok(length) if length <= BODY_BYTES_MAX => read_body(wire, length).await,
        refused => {
            let status = refused.map_or_else(|status| status, |_| 413);
            let answer = Answer::Http { status, content_type: String::new(), body: String::new() };
            refuse(wire, &answer, profile, scribe).await;
            return false;
        }
    };
    let Some(body) = body else { return false };
    let scope = Scope::build(ScopeType::Http, &head, &profile.scope, scribe.connection());
    let response = Response {
        profile: Arc::clone(profile),
        head_only: head.method == "HEAD",
        head: None,
        framing: None,
        complete: false,
        cut: false,
    };
    scribe.record(Party::Front, What::Called { kind: ScopeType::Http, head });
    let mut call = Call::start(application, scope, response, scribe);
    call.deliver(Inbound::HttpRequest { body, more_body: false });
    let rules = &profile.shutdown;
    let (mut is_stopping, mut grace) = (false, None);
    loop {
        let ended = match call.next(Some(&mut *wire), stop, &mut grace).await {
            Next::Step(Step::Ended(result)) => Some(result),
            Next::Step(Step::Wire(Progress::End)) => {
                call.deliver(Inbound::HttpDisconnect);
                None
            }
            Next::Step(Step::Wire(_) | Step::Moved) => None,
            Next::Stop(Life::Exited) => {
                cut_short(&mut call, scribe);
                return false;
            }
            Next::Stop(_) => {
                if let profile::Stop::Answers(answer) = &rules.request {
                    cut_short(&mut call, scribe);
                    flush(wire, &mut call).await;
                    write_answer(&mut wire.outgoing, answer, profile);
                    return false;
                }
                is_stopping = true;
                grace = (rules.grace_s > 0).then(|| Box::pin(sleep(Duration::from_secs(rules.grace_s))));
                None
            }
            Next::Timer => {
                cut_short(&mut call, scribe);
                Some(Err(Exception::cancelled()))
            }
        };
        if let Some(result) = ended {
            flush(wire, &mut call).await;
            let progress = call.desk().protocol.progress();
            return finish(wire, progress, result, profile).await && reusable && !is_stopping;
        }
        if call.desk().protocol.cut {
            flush(wire, &mut call).await;
            return false;
        }
    }
}

/// Cancels the call because the server stops.
fn cut_short(call: &mut Call<Response>, scribe: &Scribe) {
    scribe.record(Party::Front, What::CutShort);
    call.cancel();
}

/// Writes everything the application sent. A client that does not read has its limit.
async fn flush(wire: &mut Wire, call: &mut Call<Response>) {
    let all = async move {
        while call.move_outgoing(wire) {
            wire.flush().await;
        }
    };
    let _ = timeout(FLUSH_LIMIT, all).await;
}

/// What the client gets when the call ended without a whole answer; says whether the connection is still usable.
async fn finish(wire: &mut Wire, answered: Answered, result: Result<(), Exception>, profile: &Profile) -> bool {
    let answer = match (answered, result) {
        (Answered::Whole, _) => return !wire.has_ended(),
        (Answered::Nothing, Err(_)) => &profile.http.raises,
        (Answered::Nothing, Ok(())) => &profile.http.returns,
        (Answered::Begun, _) => &profile.http.ends_after_start,
    };
    if *answer == Answer::Hang {
        wait_for_end(wire).await;
    }
    write_answer(&mut wire.outgoing, answer, profile);
    false
}

async fn read_body(wire: &mut Wire, length: usize) -> Option<Vec<u8>> {
    while wire.incoming.len() < length {
        if wire.has_ended() {
            return None;
        }
        wire.progress().await;
    }
    let body = wire.incoming[..length].to_vec();
    take(&mut wire.incoming, length);
    Some(body)
}

/// The announced length of the request's body, or the status that refuses the announcement. A chunked body is not
/// read: no case sends one.
fn body_length(head: &RequestHead) -> Result<usize, u16> {
    if header(&head.headers, "transfer-encoding").is_some() {
        return Err(501);
    }
    let mut lengths = head.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"content-length"));
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(0),
        (Some((_, value)), None) => parse_length(value).ok_or(400),
        (Some(_), Some(_)) => Err(400),
    }
}

fn parse_length(value: &[u8]) -> Option<usize> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
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
    head_only: bool,
    head: Option<(u16, Headers)>,
    framing: Option<Framing>,
    complete: bool,
    cut: bool,
}

/// How much of the answer the application has given.
enum Answered {
    Nothing,
    Begun,
    Whole,
}

#[derive(Clone, Copy)]
enum Framing {
    Chunked,
    BytesLeft(u64),
    NoBody,
}

impl Protocol for Response {
    fn take(&mut self, event: Outbound, outgoing: &mut Vec<u8>) -> Result<(), Exception> {
        match event {
            Outbound::ResponseStart { status, headers } if self.head.is_none() => {
                let announced = header(&headers, "content-length").is_some();
                self.head = Some((status, headers));
                // Without a length the head can only be written once the first piece of the body is known.
                if self.profile.http.start == Start::AtOnce && announced {
                    self.framing = Some(self.write_head(outgoing, None));
                }
                Ok(())
            }
            Outbound::ResponseBody { body, more_body } if self.head.is_some() && !self.complete => {
                let framing = match self.framing {
                    Some(framing) => framing,
                    None => self.write_head(outgoing, (!more_body).then_some(body.len())),
                };
                self.framing = Some(framing);
                self.write_body(framing, &body, more_body, outgoing)
            }
            other => {
                let name = other.name(ScopeType::Http);
                Err(Exception::runtime_error(format!("Unexpected ASGI message '{name}'.")))
            }
        }
    }
}

impl Response {
    fn progress(&self) -> Answered {
        match (self.complete, self.framing) {
            (true, _) => Answered::Whole,
            (false, Some(_)) => Answered::Begun,
            (false, None) => Answered::Nothing,
        }
    }

    /// Writes the head; `whole` is the body's length where all of it is there.
    fn write_head(&mut self, outgoing: &mut Vec<u8>, whole: Option<usize>) -> Framing {
        let (status, headers) = self.head.as_ref().expect("a body follows a start");
        let (status, mut headers) = (*status, headers.clone());
        let announced = header(&headers, "content-length").and_then(parse_length);
        let added = whole.filter(|_| self.profile.http.without_length == WithoutLength::ContentLength);
        let framing = match (announced, added) {
            _ if self.head_only || matches!(status, 204 | 304) => Framing::NoBody,
            (Some(length), _) => Framing::BytesLeft(length as u64),
            (None, Some(length)) => {
                headers.push(field("content-length", length.to_string()));
                Framing::BytesLeft(length as u64)
            }
            (None, None) => {
                headers.push(field("transfer-encoding", "chunked"));
                Framing::Chunked
            }
        };
        add_server(&mut headers, &self.profile);
        ResponseHead { status, headers }.encode(outgoing);
        framing
    }

    fn write_body(
        &mut self,
        framing: Framing,
        body: &[u8],
        more_body: bool,
        outgoing: &mut Vec<u8>,
    ) -> Result<(), Exception> {
        match framing {
            Framing::NoBody => {}
            Framing::Chunked => {
                if !body.is_empty() {
                    outgoing.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
                    outgoing.extend_from_slice(body);
                    outgoing.extend_from_slice(b"\r\n");
                }
                if !more_body {
                    outgoing.extend_from_slice(b"0\r\n\r\n");
                }
            }
            Framing::BytesLeft(left) => {
                let length = body.len() as u64;
                if length > left {
                    self.mismatch(|rules| &rules.long_body)?;
                }
                outgoing.extend_from_slice(body);
                self.framing = Some(Framing::BytesLeft(left.saturating_sub(length)));
                if !more_body && length < left {
                    self.mismatch(|rules| &rules.short_body)?;
                }
            }
        }
        self.complete = !more_body;
        Ok(())
    }

    fn mismatch(&mut self, effect: impl Fn(&HttpRules) -> &Effect) -> Result<(), Exception> {
        match effect(&self.profile.http) {
            Effect::Raises { exception, .. } => Err(exception.clone()),
            Effect::Answers(_) => {
                self.cut = true;
                Ok(())
            }
            Effect::Ignored | Effect::Truncated => Ok(()),
        }
    }
}
