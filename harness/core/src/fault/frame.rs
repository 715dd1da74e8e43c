//! The faults that a man in the middle can inject into the frames of a WebSocket.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use memchr::memmem;

use super::{
    draw::{FaultDraw, among, counts, up_to_ms},
    effect::{InjectedEffect, InjectedEnd},
    setting::{Count, GivenSettings, Raw, Setting, SettingError, Time, WrittenSettings, faults, names, put},
    stream::Direction,
};
use crate::wire::frame::{Frame, Opcode};

names! {
    /// The contents of a frame (RFC 6455 section 5.2).
    Carries;
    /// A piece of a message.
    Continuation "continuation",
    /// Text.
    Text "text",
    /// Binary.
    Binary "binary",
    /// Close.
    Close "close",
    /// Ping.
    Ping "ping",
    /// Pong.
    Pong "pong",
}

impl Carries {
    /// As a frame's header has it.
    pub fn opcode(self) -> Opcode {
        match self {
            Carries::Continuation => Opcode::Continuation,
            Carries::Text => Opcode::Text,
            Carries::Binary => Opcode::Binary,
            Carries::Close => Opcode::Close,
            Carries::Ping => Opcode::Ping,
            Carries::Pong => Opcode::Pong,
        }
    }
}

names! {
    /// A rule of RFC 6455 that a frame can break.
    Breach;
    /// A reserved bit is set (section 5.2).
    ReservedBit "reserved-bit",
    /// The opcode is reserved (section 5.2).
    ReservedOpcode "reserved-opcode",
    /// A client's frame without a mask, or a server's with one (section 5.1).
    Mask "mask",
    /// Text that is not UTF-8 (section 5.6).
    Utf8 "utf8",
    /// A ping in pieces (section 5.5).
    FragmentedControl "fragmented-control",
    /// A ping of 126 bytes (section 5.5).
    LongControl "long-control",
    /// A continuation of nothing (section 5.4).
    LoneContinuation "lone-continuation",
    /// A payload larger than any peer takes is announced (section 10.4).
    Oversize "oversize",
    /// A close frame with one byte (section 5.5.1).
    OneByteClose "one-byte-close",
}

/// Which frames a fault acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frames {
    /// Those that go this way.
    pub direction: Direction,
    /// Those that carry this; `None` for any.
    pub carries: Option<Carries>,
    /// Those whose payload has this text in it; `None` for any.
    pub containing: Option<String>,
}

impl Frames {
    /// The keys of these settings.
    pub const KEYS: [&str; 3] = ["direction", "opcode", "containing"];

    pub(super) fn read(settings: &mut GivenSettings) -> Result<Frames, SettingError> {
        Ok(Frames {
            direction: settings.take("direction")?,
            carries: settings.take("opcode")?,
            containing: settings.take("containing")?,
        })
    }

    pub(super) fn write(&self, written: &mut WrittenSettings) {
        put(written, "direction", &self.direction);
        put(written, "opcode", &self.carries);
        put(written, "containing", &self.containing);
    }

    /// Whether this frame is meant, on its way in this direction.
    pub fn include(&self, frame: &Frame, direction: Direction) -> bool {
        self.direction.includes(direction)
            && self.carries.is_none_or(|carries| carries.opcode() == frame.opcode)
            && self.containing.as_ref().is_none_or(|text| memmem::find(&frame.payload, text.as_bytes()).is_some())
    }
}

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.carries {
            Some(carries) => write!(f, "{carries} frame")?,
            None => f.write_str("frame")?,
        }
        if let Some(text) = &self.containing {
            write!(f, " with {text:?}")?;
        }
        match self.direction {
            Direction::Both => Ok(()),
            Direction::ToServer => f.write_str(" to the server"),
            Direction::ToClient => f.write_str(" to the client"),
        }
    }
}

const REPLACING: &[(u32, &[u8])] =
    &[(1, b""), (1, b"{}"), (1, b"["), (1, b"null"), (1, b"\"\\ud800\""), (1, b"{\"type\":\"chat\"}")];

const INJECTED: &[(u32, &[u8])] = &[(1, b""), (1, b"{\"type\":\"ping\"}"), (1, b"\x03\xe8"), (1, b"\x03\xed")];

/// More messages than a user may send in a minute would be refused to all clients of that user; of pings and pongs there
/// may be many.
fn injected_count(draw: &FaultDraw<'_>, key: &str) -> Option<Count> {
    let choices = draw.choices.fork(key);
    Some(Count(match Carries::draw(draw.choices.fork("injected")) {
        Carries::Ping | Carries::Pong => choices.one(&[1_usize, 3, 200]),
        Carries::Continuation | Carries::Text | Carries::Binary | Carries::Close => choices.count(1..=3),
    }))
}

faults! {
    /// One change of the frames. An occasion is a frame that is meant.
    FrameFault at Edge;
    /// loses the frame
    Drop "drop_frame", weight 2 {} "lose";
    /// carries the frame later, and what follows it
    Delay "delay_frame", weight 2 {
        /// By how much.
        delay: Time as "delay_ms" from up_to_ms(20_000),
    } "carry {delay} later";
    /// carries the frame twice
    Duplicate "duplicate_frame", weight 2 {} "carry twice";
    /// carries the frame behind the next one
    Swap "swap_frame", weight 2 {} "carry behind the next one";
    /// carries the frame in the same write as the next one
    Join "join_frame", weight 2 {} "carry together with the next one";
    /// carries a message in two pieces (section 5.4), which is allowed
    Split "split_frame", weight 2 {} "carry in two pieces";
    /// gives the frame another payload
    Replace "replace_frame", weight 3 {
        /// The payload.
        payload: Raw as "payload" from among(REPLACING),
    } "carry {payload} instead of";
    /// carries a frame of its own before this one
    Inject "inject_frame", weight 3 {
        /// The kind of frame.
        carries: Carries as "injected",
        /// Its payload.
        payload: Raw as "payload" from among(INJECTED),
        /// How often.
        count: Count as "count" from injected_count,
    } "carry {count} {carries} frame(s) {payload} before";
    /// carries neither this frame nor any that follows it this way
    Suppress "suppress_frames", weight 2 {} "carry nothing from here on:";
    /// closes with this code and reason towards both sides, in the frame's place, and ends the connection
    Close "close_with", weight 5 {
        /// The code; any, also one that may not be sent.
        code: Count as "code" from counts(&[1000, 1001, 1005, 1006, 1011, 1012, 1015, 999, 4000, 5000]),
        /// The reason.
        reason: String as "reason" from among(&[(1, ""), (1, "idle timeout")]),
    } "close {code} {reason:?} in the place of";
    /// breaks a rule of RFC 6455 in the frame's place
    Break "break_frame", weight 11 {
        /// Which rule.
        rule: Breach as "rule",
    } "break the rule `{rule}` with";
}

/// The fate of one frame: the sum of what the faults that act on it do, which the edge carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameFate {
    /// Frames of the edge's own that go before it.
    pub before: Vec<OwnFrames>,
    /// The thing in its place; `None` where it goes itself.
    pub instead: Option<InsteadOfFrame>,
    /// How often it goes.
    pub copies: usize,
    /// How much later it goes, and what follows it.
    pub delay: Duration,
    /// Whether it waits for the next frame.
    pub waits: FrameWaits,
    /// The code and the reason with which the edge closes towards both sides.
    pub close: Option<(usize, String)>,
    /// Whether neither it nor any that follows it goes this way.
    pub ends_direction: bool,
}

impl Default for FrameFate {
    /// It goes on as it is.
    fn default() -> FrameFate {
        FrameFate {
            before: Vec::new(),
            instead: None,
            copies: 1,
            delay: Duration::ZERO,
            waits: FrameWaits::No,
            close: None,
            ends_direction: false,
        }
    }
}

/// Frames of the edge's own, one like the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFrames {
    /// Their contents.
    pub carries: Carries,
    /// The payload of each.
    pub payload: Bytes,
    /// How many.
    pub count: usize,
}

/// The things that can go in the place of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InsteadOfFrame {
    /// The same frame with another payload, as its sender would have meant it.
    Payload(Bytes),
    /// The message in two pieces.
    TwoPieces,
    /// Bytes that break a rule.
    Breach(Breach),
}

/// Whether a frame waits for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameWaits {
    /// It does not.
    No,
    /// It goes in the same write.
    ToGoTogether,
    /// It goes behind it.
    ToGoBehind,
}

impl FrameFault {
    /// Whether the fault can act on a frame that its trigger selects.
    pub fn applies_to(&self, frame: &Frame) -> bool {
        // A control frame cannot be cut.
        !matches!(self, FrameFault::Split {}) || (frame.is_message() && frame.is_final)
    }

    /// Adds to the fate of a frame what the fault does to it.
    pub fn decide(&self, fate: &mut FrameFate) {
        match self {
            FrameFault::Drop {} => fate.copies = 0,
            FrameFault::Delay { delay } => fate.delay += delay.0,
            FrameFault::Duplicate {} => fate.copies += 1,
            FrameFault::Swap {} => fate.waits = FrameWaits::ToGoBehind,
            FrameFault::Join {} => fate.waits = FrameWaits::ToGoTogether,
            FrameFault::Split {} => fate.instead = Some(InsteadOfFrame::TwoPieces),
            FrameFault::Replace { payload } => {
                fate.instead = Some(InsteadOfFrame::Payload(payload.0.clone().into()));
            }
            FrameFault::Inject { carries, payload, count } => {
                fate.before.push(OwnFrames { carries: *carries, payload: payload.0.clone().into(), count: count.0 });
            }
            FrameFault::Suppress {} => fate.ends_direction = true,
            FrameFault::Close { code, reason } => {
                fate.copies = 0;
                fate.close = Some((code.0, reason.clone()));
            }
            FrameFault::Break { rule } => fate.instead = Some(InsteadOfFrame::Breach(*rule)),
        }
    }

    /// Whether it lets the receiver get other messages, or the same in another order.
    pub fn changes_messages(&self) -> bool {
        match self {
            FrameFault::Drop {}
            | FrameFault::Duplicate {}
            | FrameFault::Swap {}
            | FrameFault::Replace { .. }
            | FrameFault::Break { .. } => true,
            FrameFault::Delay { .. }
            | FrameFault::Join {}
            | FrameFault::Split {}
            | FrameFault::Inject { .. }
            | FrameFault::Suppress {}
            | FrameFault::Close { .. } => false,
        }
    }

    /// The change that client and app get to see.
    pub(super) fn effect(&self) -> InjectedEffect {
        match self {
            FrameFault::Delay { delay } => InjectedEffect::of_delay(delay),
            FrameFault::Split {} => InjectedEffect::None,
            FrameFault::Drop {}
            | FrameFault::Duplicate {}
            | FrameFault::Swap {}
            | FrameFault::Join {}
            | FrameFault::Replace { .. }
            | FrameFault::Inject { .. }
            | FrameFault::Suppress {}
            | FrameFault::Close { .. }
            | FrameFault::Break { .. } => InjectedEffect::Distorts,
        }
    }

    /// The end that it makes of an exchange.
    pub(super) fn end(&self) -> InjectedEnd {
        match self {
            FrameFault::Close { code, .. } => InjectedEnd::Close(code.0),
            FrameFault::Drop {}
            | FrameFault::Delay { .. }
            | FrameFault::Duplicate {}
            | FrameFault::Swap {}
            | FrameFault::Join {}
            | FrameFault::Split {}
            | FrameFault::Replace { .. }
            | FrameFault::Inject { .. }
            | FrameFault::Suppress {}
            | FrameFault::Break { .. } => InjectedEnd::None,
        }
    }
}
