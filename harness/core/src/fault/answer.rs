//! The faults that a man in the middle can inject into the answer to a request.

use super::setting::{Line, Raw, Token, faults};
use crate::{
    fault::setting::Count,
    wire::head::{Headers, ResponseHead, field, header, is_name},
};

faults! {
    /// One change of an answer on its way to the client.
    AnswerEdit at Edge;
    /// answers in the server's place with a page of the middlebox's own, as load balancers do with 502 and 503
    Hijack "hijack_answer" {
        /// The status.
        status: Count as "status",
        /// The page.
        body: String as "body",
    } "answer {status} in the server's place";
    /// replaces a header of the answer, or adds it: a wrong accept key, a subprotocol that the client did not offer
    Set "set_answer_header" {
        /// The header's name.
        header: Token as "header",
        /// Its value.
        value: Line as "value",
    } "set {header} of the answer to {value}";
    /// removes a header of the answer
    Strip "strip_answer_header" {
        /// The header's name, in any case.
        header: Token as "header",
    } "strip {header} of the answer";
    /// writes bytes right behind the answer's head: a 101 with a body
    Follow "follow_answer" {
        /// The bytes.
        bytes: Raw as "bytes",
    } "send {bytes} right behind the answer's head";
    /// keeps the whole answer back, its head too, until its body is over
    Hold "hold_answer" {} "hold the answer back until it is whole";
    /// keeps the answer back, its head too, until so many bytes of its body have come, and hands on whole pieces of that
    /// size, the rest when it is over; not where the answer says `X-Accel-Buffering: no`. So nginx does with
    /// `proxy_buffering`
    Buffer "buffer_answer" {
        /// The size of a piece in bytes, as they are on the wire.
        bytes: Count as "bytes",
    } "hand the answer on in pieces of {bytes} byte(s)";
    /// leaves `Connection: upgrade` and `Upgrade: websocket` in an answer that refuses the upgrade, as Envoy did
    KeepUpgrade "keep_upgrade" {} "keep Connection and Upgrade in an answer that refuses the upgrade";
}

impl AnswerEdit {
    /// Whether there is anything to act on in the answer to a request, which may have asked for an upgrade.
    pub fn applies_to(&self, head: &ResponseHead, to_upgrade: bool) -> bool {
        match self {
            AnswerEdit::KeepUpgrade {} => to_upgrade && head.status >= 400,
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
