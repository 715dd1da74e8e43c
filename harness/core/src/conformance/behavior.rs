//! A server's behavior in a conversation, judged from the bytes on the wire.

use std::fmt;
use std::time::Duration;

use super::{BoundSide, Expected, Owed, Reply};
use crate::{
    asgi::value::escape_bytes,
    wire::{
        close_code::CloseCode,
        frame::{Frame, FrameError, Opcode},
        message::message_type,
    },
};

/// How far a server keeps a rule. From best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Behavior {
    /// It does what RFC 6455 demands.
    Ok,
    /// It does what may be tolerated and is not what the section asks for: it answers before it fails the connection,
    /// fails it only when the message is whole, echoes another code, or leaves the stream open.
    NonStrict,
    /// It fails the connection, and ends the stream without a close frame.
    Unclean,
    /// It closes with a code that says something else, or with none.
    WrongCode,
    /// It takes a violation for good, refuses what is right, breaks a rule itself, or does nothing in time.
    Failed,
}

/// Something that came from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saw {
    /// A pong, or what answers a request.
    Reply(Reply),
    /// Another message, by its `type`.
    Other(String),
    /// A close frame, and its code.
    Close(Option<CloseCode>),
    /// A frame that no server may send.
    Illegal(FrameError),
    /// The end of the stream.
    End,
    /// Nothing from the server: the client went on after a pause.
    Resumed,
}

/// Something that came, and how long after the client had begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BehaviorEvent {
    /// When.
    pub at: Duration,
    /// The event as the client saw it.
    pub saw: Saw,
}

/// The judgement of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BehaviorResult {
    /// How far the rule was kept.
    pub behavior: Behavior,
    /// The evidence for it.
    pub evidence: String,
    /// When that came; nothing where it is that nothing came.
    pub at: Option<Duration>,
}

impl Behavior {
    /// Every behavior, best first.
    pub const ALL: [Behavior; 5] =
        [Behavior::Ok, Behavior::NonStrict, Behavior::Unclean, Behavior::WrongCode, Behavior::Failed];

    /// Whether it may be tolerated.
    pub fn is_good(self) -> bool {
        self <= Behavior::NonStrict
    }

    /// Its name, as reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Behavior::Ok => "ok",
            Behavior::NonStrict => "non-strict",
            Behavior::Unclean => "unclean",
            Behavior::WrongCode => "wrong-code",
            Behavior::Failed => "failed",
        }
    }
}

impl fmt::Display for Behavior {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Saw {
    /// A whole message or a control frame of the server, as a client sees it that waits for an event of this type;
    /// `None` for a ping.
    pub fn of(frame: &Frame, awaited: &str) -> Option<Saw> {
        match frame.opcode {
            Opcode::Ping => None,
            Opcode::Close => Some(Saw::Close(frame.close_code())),
            Opcode::Pong => Some(Saw::Reply(Reply::Pong(frame.payload.clone()))),
            _ => match message_type(&frame.payload).unwrap_or_default() {
                name if name == awaited => Some(Saw::Reply(Reply::Answer)),
                name => Some(Saw::Other(name.into_owned())),
            },
        }
    }
}

/// Judges what came, in order, up to the end of the stream or of the client's patience.
pub fn judge(expected: &Expected, owed: &Owed, events: &[BehaviorEvent]) -> BehaviorResult {
    let came = Came::read(events);
    if let Some((at, error)) = came.illegal {
        return judged(Behavior::Failed, format!("bytes that are no frame ({error:?})"), Some(at));
    }
    match expected {
        Expected::Answers { or_close } => came.answers(&owed.replies, or_close),
        Expected::Echo => came.echo(owed.code),
        Expected::Failure { codes, bound } => came.failure(codes, *bound),
    }
}

fn judged(behavior: Behavior, evidence: impl Into<String>, at: Option<Duration>) -> BehaviorResult {
    BehaviorResult { behavior, evidence: evidence.into(), at }
}

/// Everything that came, and when.
#[derive(Default)]
struct Came<'a> {
    /// Before the connection ended.
    replies: Vec<&'a Reply>,
    replied_at: Option<Duration>,
    /// The first message that is no reply.
    other: Option<&'a str>,
    illegal: Option<(Duration, FrameError)>,
    close: Option<(Duration, Option<CloseCode>)>,
    end: Option<Duration>,
    /// Whether the client had to go on after a pause before the connection ended.
    is_late: bool,
}

impl Came<'_> {
    fn read(events: &[BehaviorEvent]) -> Came<'_> {
        let mut came = Came::default();
        for BehaviorEvent { at, saw } in events {
            let is_open = came.close.is_none() && came.end.is_none();
            match saw {
                Saw::Reply(reply) if is_open => {
                    came.replies.push(reply);
                    came.replied_at = Some(*at);
                }
                Saw::Other(name) if is_open => came.other = came.other.or(Some(name)),
                Saw::Reply(_) | Saw::Other(_) => {}
                Saw::Illegal(error) => came.illegal = came.illegal.or(Some((*at, *error))),
                Saw::Close(code) => came.close = came.close.or(Some((*at, *code))),
                Saw::End => came.end = Some(*at),
                Saw::Resumed => came.is_late |= is_open,
            }
        }
        came
    }

    /// When the connection began to end.
    fn ended_at(&self) -> Option<Duration> {
        self.close.map(|(at, _)| at).or(self.end)
    }

    /// All of it, in words; `goes_on` where the connection did not end.
    fn told(&self, goes_on: &str) -> String {
        let replies = Some(said(&self.replies)).filter(|text| !text.is_empty());
        let other =
            self.other.map(|name| if name.is_empty() { "a message".to_owned() } else { format!("message {name:?}") });
        let ending = match (self.close, self.end) {
            (Some((_, code)), end) => {
                let code = code.map_or("without code (1005)".to_owned(), |code| code.to_string());
                let open = if end.is_some() { "" } else { ", and the stream stays open" };
                format!("close {code}{open}")
            }
            (None, Some(_)) => "drop (1006)".to_owned(),
            (None, None) if replies.is_none() && other.is_none() => "nothing in time".to_owned(),
            (None, None) => goes_on.to_owned(),
        };
        [replies, other, Some(ending)].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Where a reply to everything is owed.
    fn answers(&self, owed: &[Reply], or_close: &[CloseCode]) -> BehaviorResult {
        let all: Vec<&Reply> = owed.iter().collect();
        if self.replies == all {
            return judged(Behavior::Ok, said(&all), self.replied_at);
        }
        if let Some((at, Some(code))) = self.close
            && or_close.contains(&code)
        {
            return judged(Behavior::Ok, format!("close {code}"), Some(at));
        }
        if covers(&self.replies, &without_early_pongs(&all)) && covers(&all, &self.replies) {
            return judged(Behavior::NonStrict, said(&self.replies), self.replied_at);
        }
        judged(Behavior::Failed, self.told("nothing more in time"), self.ended_at())
    }

    /// Where an answer to a close frame is owed.
    fn echo(&self, owed: Option<CloseCode>) -> BehaviorResult {
        if let Some(at) = self.replied_at {
            return judged(Behavior::Failed, format!("{} after the close", said(&self.replies)), Some(at));
        }
        let behavior = match self.close {
            Some((_, code)) if code == owed => if_over(self.end),
            // It takes the close for what it is, and has a word of its own for that.
            Some((_, None | Some(CloseCode::NORMAL))) => Behavior::NonStrict,
            // It takes the close for a violation.
            Some((_, Some(CloseCode::PROTOCOL_ERROR | CloseCode::INVALID_PAYLOAD))) => Behavior::Failed,
            Some(_) => Behavior::WrongCode,
            None if self.end.is_some() => Behavior::Unclean,
            None => Behavior::Failed,
        };
        let told = if behavior == Behavior::Ok { "echo".to_owned() } else { self.told("no echo in time") };
        judged(behavior, told, self.ended_at())
    }

    /// Where the connection has to be failed.
    fn failure(&self, codes: &[CloseCode], bound: BoundSide) -> BehaviorResult {
        let is_strict = self.replies.is_empty() && !self.is_late;
        let behavior = match self.close {
            Some((_, Some(code))) if codes.contains(&code) && is_strict => if_over(self.end),
            Some((_, Some(code))) if codes.contains(&code) => Behavior::NonStrict,
            Some(_) => Behavior::WrongCode,
            None if self.end.is_some() => Behavior::Unclean,
            None if bound == BoundSide::Sender && !self.replies.is_empty() => Behavior::NonStrict,
            None => Behavior::Failed,
        };
        let at = self.ended_at();
        let late = if self.is_late && at.is_some() { " once the message is whole" } else { "" };
        judged(behavior, self.told("and goes on") + late, at.or(self.replied_at))
    }
}

/// The behavior so far, if a server has to end the stream as well (section 7.1.1).
fn if_over(end: Option<Duration>) -> Behavior {
    if end.is_some() { Behavior::Ok } else { Behavior::NonStrict }
}

/// The replies that have to come: of some pings one after the other the last may be answered alone (section 5.5.3).
fn without_early_pongs<'a>(owed: &[&'a Reply]) -> Vec<&'a Reply> {
    let replies = owed.iter().enumerate();
    replies
        .filter(|(index, reply)| !matches!((reply, owed.get(index + 1)), (Reply::Pong(_), Some(Reply::Pong(_)))))
        .map(|(_, reply)| *reply)
        .collect()
}

/// Whether all of these are among those, each as often.
fn covers(those: &[&Reply], these: &[&Reply]) -> bool {
    let mut rest = those.to_vec();
    these.iter().all(|reply| {
        let found = rest.iter().position(|other| other == reply);
        found.map(|index| rest.swap_remove(index)).is_some()
    })
}

/// Replies as a person would tell them.
fn said(replies: &[&Reply]) -> String {
    let groups = replies.chunk_by(|one, next| one == next).map(|group| match (group[0].to_string(), group.len()) {
        (text, 1) => text,
        (text, count) => format!("{text} {count} times"),
    });
    groups.collect::<Vec<_>>().join(", ")
}

/// The longest payload that is shown as it is, in bytes.
const SHOWN_BYTES_MAX: usize = 20;

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Answer => f.write_str("answer"),
            Reply::Pong(payload) if payload.is_empty() => f.write_str("empty pong"),
            Reply::Pong(payload) if payload.len() <= SHOWN_BYTES_MAX => write!(f, "pong \"{}\"", escape_bytes(payload)),
            Reply::Pong(payload) => write!(f, "pong of {} bytes", payload.len()),
        }
    }
}
