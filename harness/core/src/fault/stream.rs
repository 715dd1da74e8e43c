//! The faults that a man in the middle can inject into bytes, whatever they mean.

use super::{
    draw::{counts, up_to_ms},
    effect::{InjectedEffect, InjectedEnd},
    setting::{Count, Time, faults, names},
};

/// How many bytes pass before a connection breaks: within a request's head, behind it, within a session.
const PASSED: &[usize] = &[1, 30, 200, 300, 500, 900];

names! {
    /// A direction of a connection.
    Direction = Both;
    /// From the client to the server.
    ToServer "to-server",
    /// From the server to the client.
    ToClient "to-client",
    /// Both of them.
    Both "both",
}

impl Direction {
    /// Whether one direction is meant by this.
    pub fn includes(self, one: Direction) -> bool {
        self == Direction::Both || self == one
    }
}

faults! {
    /// One fault of a byte stream. An occasion is a connection.
    StreamFault at Edge;
    /// carries everything later
    Delay "delay_bytes", weight 2 {
        /// By how much.
        delay: Time as "delay_ms" from up_to_ms(5000),
    } "carry everything {delay} later";
    /// carries each piece later by a time of its own, and keeps their order
    Jitter "jitter_bytes", weight 2 {
        /// The most, drawn from the seed.
        most: Time as "delay_ms" from up_to_ms(2000),
    } "carry each piece up to {most} later";
    /// carries no more than so many bytes a second
    Throttle "throttle", weight 2 {
        /// Bytes a second.
        rate: Count as "bytes_per_s" from counts(&[1000, 10_000, 100_000]),
    } "carry {rate} byte(s) a second";
    /// hands everything over in pieces of this size
    Slice "slice", weight 5 {
        /// Bytes in a piece.
        bytes: Count as "bytes" from counts(&[1, 2, 7, 100]),
    } "carry pieces of {bytes} byte(s)";
    /// ends the connection in good order (FIN) once so many bytes went this way
    Cut "cut", weight 2 {
        /// Bytes that still pass.
        after: Count as "after_bytes" from counts(PASSED),
    } "end the connection after {after} byte(s)";
    /// breaks the connection (RST) once so many bytes went this way; what is under way is lost
    Reset "reset", weight 2 {
        /// Bytes that still pass.
        after: Count as "after_bytes" from counts(PASSED),
    } "reset the connection after {after} byte(s)";
    /// carries nothing more this way once so many bytes went, neither bytes nor the end of the stream (FIN or RST): half open
    Stall "stall", weight 2 {
        /// Bytes that still pass.
        after: Count as "after_bytes" from counts(PASSED),
    } "carry nothing more after {after} byte(s)";
    /// carries nothing more from the upgrade on, neither bytes nor the end of the stream
    Silence "silence", weight 2 {} "carry nothing after the upgrade";
}

/// Below which rate the end of a client may not get through before the run is over, in bytes a second.
const HELD_BYTES_PER_S: usize = 300;

/// Below which rate a stream is so slow that one side may stop waiting, in bytes a second.
const THROTTLED_BYTES_PER_S: usize = 2000;

impl StreamFault {
    /// The change that client and app get to see.
    pub(super) fn effect(&self) -> InjectedEffect {
        match self {
            StreamFault::Delay { delay: time } | StreamFault::Jitter { most: time } => InjectedEffect::of_delay(time),
            StreamFault::Throttle { rate } if rate.0 < THROTTLED_BYTES_PER_S => InjectedEffect::Slows,
            StreamFault::Throttle { .. } | StreamFault::Slice { .. } => InjectedEffect::None,
            StreamFault::Cut { .. }
            | StreamFault::Reset { .. }
            | StreamFault::Stall { .. }
            | StreamFault::Silence {} => InjectedEffect::Distorts,
        }
    }

    /// The end that it makes of an exchange.
    pub(super) fn end(&self) -> InjectedEnd {
        match self {
            StreamFault::Cut { .. } | StreamFault::Reset { .. } => InjectedEnd::Cut,
            StreamFault::Delay { .. }
            | StreamFault::Jitter { .. }
            | StreamFault::Throttle { .. }
            | StreamFault::Slice { .. }
            | StreamFault::Stall { .. }
            | StreamFault::Silence {} => InjectedEnd::None,
        }
    }

    /// Whether it carries anything later, however little.
    pub(super) fn takes_time(&self) -> bool {
        match self {
            StreamFault::Delay { .. } | StreamFault::Jitter { .. } | StreamFault::Throttle { .. } => true,
            StreamFault::Slice { .. }
            | StreamFault::Cut { .. }
            | StreamFault::Reset { .. }
            | StreamFault::Stall { .. }
            | StreamFault::Silence {} => false,
        }
    }

    /// Whether it keeps the end of the client back from the server, in one of the directions that are meant.
    pub(super) fn holds_end_back(&self, direction: Direction) -> bool {
        match self {
            StreamFault::Throttle { rate } => rate.0 < HELD_BYTES_PER_S,
            StreamFault::Stall { .. } | StreamFault::Silence {} => direction.includes(Direction::ToServer),
            StreamFault::Delay { .. }
            | StreamFault::Jitter { .. }
            | StreamFault::Slice { .. }
            | StreamFault::Cut { .. }
            | StreamFault::Reset { .. } => false,
        }
    }
}
