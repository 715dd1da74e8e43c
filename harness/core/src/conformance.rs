//! How a server keeps RFC 6455 sections 5 to 7, and RFC 7692: what a client sends, what has to come of it, and what did.

mod behavior;
mod reader;
mod sent;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use self::{
    behavior::{Behavior, BehaviorEvent, BehaviorResult, Saw, judge},
    sent::{Deflation, Masking, Payload, Sent, SentAction, WrittenPart},
};
use crate::{
    error::Error,
    judge::verdict::Conclusion,
    wire::{close_code::CloseCode, deflate::DeflateParameters, frame::Opcode},
};

/// One rule of RFC 6455 or RFC 7692, and the conversations that try it.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameCase {
    /// Its group and its own name, as in `5.5-control-frames/ping-empty`.
    pub name: String,
    /// The section of RFC 6455 it rests on; of another RFC behind its number, as in `7692 6.1`.
    pub section: String,
    /// The trial, in one sentence.
    pub tries: String,
    /// The conversations, each on a connection of its own. The case is as good as the worst of them.
    pub variants: Vec<Variant>,
    /// The extension that the client offers; none when it is empty. A server may decline it.
    pub extensions: String,
    /// How many bytes are written at a time; nothing where everything goes out in one write.
    pub piece_bytes: Option<usize>,
    /// The required result.
    pub expected: Expected,
}

/// One conversation of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// The difference from the other variants; empty if there is only one.
    pub name: String,
    /// The client's acts once the session is open.
    pub acts: Vec<SentAction>,
}

/// The required result of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Every ping gets its pong (section 5.5.3) and every request its first event. A close with one of these codes says
    /// as well that the message was understood, and that the service does not want it.
    Answers {
        /// The codes.
        or_close: Vec<CloseCode>,
    },
    /// The client's close frame is answered by one with the same code (section 5.5.1), and the stream ends.
    Echo,
    /// The connection is failed (section 7.1.7) with one of these codes.
    Failure {
        /// The codes.
        codes: Vec<CloseCode>,
        /// The sides that the rule binds.
        bound: BoundSide,
    },
}

/// The sides that a rule of RFC 6455 binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundSide {
    /// The sender, which may not send it, and the receiver, which has to fail the connection.
    Both,
    /// The sender alone, so that a server may go on as if nothing had happened.
    Sender,
}

/// The replies and the close code that a server owes for a client's frames.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owed {
    /// Pongs and answers, in order.
    pub replies: Vec<Reply>,
    /// The code of the client's first close frame; nothing where that has none, or where there is no such frame.
    pub code: Option<CloseCode>,
}

/// The answer to something that a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A pong with this payload.
    Pong(Bytes),
    /// The first event of what a request brings about.
    Answer,
}

impl FrameCase {
    /// Reads the cases of a group, which is named as its file without the extension.
    ///
    /// # Errors
    /// Says where in the file and what is wrong.
    pub fn parse(path: &str, text: &str) -> Result<Vec<FrameCase>, Error> {
        reader::read(path, text)
    }
}

impl Variant {
    /// The bytes and pauses on the wire, with this request in the service's own words, and the compression that was agreed
    /// on.
    ///
    /// # Errors
    /// Says why it cannot be said with this request.
    pub fn write(
        &self,
        request: &str,
        agreed: Option<DeflateParameters>,
        chance: &mut fastrand::Rng,
    ) -> Result<Vec<WrittenPart>, String> {
        sent::write(&self.acts, request, agreed, chance)
    }

    /// The replies and the close code that a server owes for it.
    pub fn owed(&self) -> Owed {
        let close = self.sent().find(|sent| sent.opcode == Opcode::Close);
        Owed { replies: self.sent().flat_map(Sent::replies).collect(), code: close.and_then(Sent::code) }
    }

    /// Whether the client closes.
    pub fn closes(&self) -> bool {
        self.sent().any(|sent| sent.opcode == Opcode::Close)
    }

    fn sent(&self) -> impl Iterator<Item = &Sent> {
        self.acts.iter().filter_map(SentAction::sent)
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Answers { or_close } if or_close.is_empty() => f.write_str("every answer and every pong"),
            Expected::Answers { or_close } => write!(f, "every answer, or close {}", either(or_close)),
            Expected::Echo => f.write_str("the close echoed"),
            Expected::Failure { codes, .. } => write!(f, "close {}", either(codes)),
        }
    }
}

/// Close codes of which any will do, as a person would name them.
fn either(codes: &[CloseCode]) -> String {
    codes.iter().map(CloseCode::to_string).collect::<Vec<_>>().join(" or ")
}

/// The results of the cases on one server.
#[derive(Debug, Clone, PartialEq)]
pub struct Conformance {
    /// The server: a profile's name, or a URL.
    pub server: String,
    /// Each case that was tried, in order.
    pub tried: Vec<BehaviorReport>,
    /// Why nothing can be concluded from it, where a healthy client did not get through before or after.
    pub trouble: Option<String>,
}

/// The result of one case.
#[derive(Debug, Clone, PartialEq)]
pub struct BehaviorReport {
    /// The case.
    pub case: Arc<FrameCase>,
    /// The judgement of each of its conversations, or why there was none.
    pub results: Vec<Result<BehaviorResult, String>>,
}

impl Conformance {
    /// Whether the server is an external one.
    pub fn is_foreign(&self) -> bool {
        self.server.contains("://")
    }

    /// The conclusion: a finding where something may not be tolerated.
    pub fn conclusion(&self) -> Conclusion {
        let mut behaviors = self.tried.iter().filter_map(BehaviorReport::behavior).peekable();
        if self.trouble.is_some() || behaviors.peek().is_none() {
            return Conclusion::Nothing;
        }
        Conclusion::passes_if(behaviors.all(|behavior| behavior.is_good()))
    }
}

impl BehaviorReport {
    /// The worst of its conversations; nothing where one of them did not come about.
    pub fn behavior(&self) -> Option<Behavior> {
        let behaviors = self.results.iter().map(|result| result.as_ref().ok().map(|judged| judged.behavior));
        behaviors.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// The evidence for that: of the worst conversations, by name if others differ.
    pub fn evidence(&self) -> String {
        let worst = self.behavior();
        let mut told: Vec<(&str, Vec<&str>)> = Vec::new();
        for (variant, result) in self.case.variants.iter().zip(&self.results) {
            let text = match result {
                Ok(judged) if worst.is_some_and(|worst| worst != judged.behavior) => continue,
                Ok(_) if worst.is_none() => continue,
                Ok(judged) => &judged.evidence,
                Err(why) => why,
            };
            match told.iter_mut().find(|(known, _)| known == text) {
                Some((_, names)) => names.push(&variant.name),
                None => told.push((text, vec![&variant.name])),
            }
        }
        match told.as_slice() {
            [(text, names)] if names.len() == self.results.len() => (*text).to_owned(),
            told => {
                let groups = told.iter().map(|(text, names)| format!("{}: {text}", names.join(" ")));
                groups.collect::<Vec<_>>().join("; ")
            }
        }
    }

    /// How long it took until the first of that came, in milliseconds; nothing where it is that nothing came.
    pub fn took_ms(&self) -> Option<u128> {
        let worst = self.behavior()?;
        let judged = self.results.iter().flatten().find(|judged| judged.behavior == worst)?;
        judged.at.map(|at| at.as_millis())
    }
}
