//! The faults that a man in the middle can inject into the answer to a request.

use super::{
    draw::{FaultDraw, PAGE, among, counts},
    effect::InjectedEnd,
    setting::{Line, Raw, Token, faults},
};
use crate::{
    fault::setting::Count,
    wire::head::{Headers, ResponseHead, field, header, is_name},
};

/// Header fields of an answer that say what the client did not ask for.
const FIELDS: [(&str, &[u8]); 2] =
    [("Sec-WebSocket-Accept", b"bm90IHRoZSBrZXk="), ("Sec-WebSocket-Protocol", b"never-offered")];

/// A body where none can be.
const FOLLOWING: &[(u32, &[u8])] = &[(1, b"<html>hello</html>")];

fn answer_name(draw: &FaultDraw<'_>, _: &str) -> Option<Token> {
    Some(draw.choices.fork("field").one(&FIELDS).0.into())
}

fn answer_value(draw: &FaultDraw<'_>, _: &str) -> Option<Line> {
    Some(draw.choices.fork("field").one(&FIELDS).1.into())
}

faults! {
    /// One change of an answer on its way to the client.
    AnswerEdit at Edge;
    /// answers in the server's place with a page of the middlebox's own, as load balancers do with 502 and 503
    Hijack "hijack_answer", weight 2 {
        /// The status.
        status: Count as "status" from counts(&[502, 503, 504]),
        /// The page.
        body: String as "body" from among(PAGE),
    } "answer {status} in the server's place";
    /// replaces a header of the answer, or adds it: a wrong accept key, a subprotocol that the client did not offer
    Set "set_answer_header", weight 2 {
        /// The header's name.
        header: Token as "header" from answer_name,
        /// Its value.
        value: Line as "value" from answer_value,
    } "set {header} of the answer to {value}";
    /// removes a header of the answer
    Strip "strip_answer_header", weight 1 {
        /// The header's name, in any case.
        header: Token as "header" from among(&[(1, "Upgrade"), (1, "Connection"), (1, "Content-Length")]),
    } "strip {header} of the answer";
    /// writes bytes right behind the answer's head: a 101 with a body
    Follow "follow_answer", weight 1 {
        /// The bytes.
        bytes: Raw as "bytes" from among(FOLLOWING),
    } "send {bytes} right behind the answer's head";
    /// keeps the whole answer back, its head too, until its body is over
    Hold "hold_answer", weight 1 {} "hold the answer back until it is whole";
    /// keeps the answer back, its head too, until so many bytes of its body have come, and hands on whole pieces of that
    /// size, the rest when it is over; not where the answer says `X-Accel-Buffering: no`. So nginx does with
    /// `proxy_buffering`
    Buffer "buffer_answer", weight 1 {
        /// The size of a piece in bytes, as they are on the wire.
        bytes: Count as "bytes" from counts(&[1, 100, 4096]),
    } "hand the answer on in pieces of {bytes} byte(s)";
    /// leaves `Connection: upgrade` and `Upgrade: websocket` in an answer that refuses the upgrade, as Envoy did
    KeepUpgrade "keep_upgrade", weight 1 {} "keep Connection and Upgrade in an answer that refuses the upgrade";
}

/// The thing that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedFor {
    /// Another protocol on this connection (RFC 9110 section 7.8).
    Upgrade,
    /// A resource, by its method and path.
    Resource,
}

impl AnswerEdit {
    /// The end that it makes of an exchange.
    pub(super) fn end(&self) -> InjectedEnd {
        match self {
            AnswerEdit::Hijack { status, .. } => InjectedEnd::Answer(status.0),
            AnswerEdit::Set { .. }
            | AnswerEdit::Strip { .. }
            | AnswerEdit::Follow { .. }
            | AnswerEdit::Hold {}
            | AnswerEdit::Buffer { .. }
            | AnswerEdit::KeepUpgrade {} => InjectedEnd::None,
        }
    }

    /// Whether there is anything to act on in the answer to a request for this.
    pub fn applies_to(&self, head: &ResponseHead, asked_for: AskedFor) -> bool {
        match self {
            AnswerEdit::KeepUpgrade {} => asked_for == AskedFor::Upgrade && head.status >= 400,
            AnswerEdit::Strip { header } => head.headers.iter().any(|(name, _)| is_name(name, header)),
            AnswerEdit::Hold {} => head.status != 101,
            AnswerEdit::Buffer { .. } => {
                let is_off =
                    header(&head.headers, "x-accel-buffering").is_some_and(|value| value.eq_ignore_ascii_case(b"no"));
                head.status != 101 && !is_off
            }
            AnswerEdit::Hijack { .. } | AnswerEdit::Set { .. } | AnswerEdit::Follow { .. } => true,
        }
    }

    /// Changes the headers.
    pub fn apply(&self, headers: &mut Headers) {
        match self {
            AnswerEdit::Set { header, value } => {
                headers.retain(|(name, _)| !is_name(name, header));
                headers.push((header.0.clone().into(), value.0.clone().into()));
            }
            AnswerEdit::Strip { header } => headers.retain(|(name, _)| !is_name(name, header)),
            AnswerEdit::KeepUpgrade {} => {
                headers.retain(|(name, _)| !is_name(name, "connection") && !is_name(name, "upgrade"));
                headers.push(field("connection", "upgrade"));
                headers.push(field("upgrade", "websocket"));
            }
            AnswerEdit::Hijack { .. } | AnswerEdit::Follow { .. } | AnswerEdit::Hold {} | AnswerEdit::Buffer { .. } => {
            }
        }
    }
}
