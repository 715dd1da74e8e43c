//! The faults that a man in the middle can inject into bytes, whatever they mean.

use super::setting::{Count, Time, faults, names};

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
    Delay "delay_bytes" {
        /// By how much.
        delay: Time as "delay_ms",
    } "carry everything {delay} later";
    /// carries each piece later by a time of its own, and keeps their order
    Jitter "jitter_bytes" {
        /// The most, drawn from the seed.
        most: Time as "delay_ms",
    } "carry each piece up to {most} later";
    /// carries no more than so many bytes a second
    Throttle "throttle" {
        /// Bytes a second.
        rate: Count as "bytes_per_s",
    } "carry {rate} byte(s) a second";
    /// hands everything over in pieces of this size
    Slice "slice" {
        /// Bytes in a piece.
        bytes: Count as "bytes",
    } "carry pieces of {bytes} byte(s)";
    /// ends the connection in good order (FIN) once so many bytes went this way
    Cut "cut" {
        /// Bytes that still pass.
        after: Count as "after_bytes",
    } "end the connection after {after} byte(s)";
    /// breaks the connection (RST) once so many bytes went this way; what is under way is lost
    Reset "reset" {
        /// Bytes that still pass.
        after: Count as "after_bytes",
    } "reset the connection after {after} byte(s)";
    /// carries nothing more this way once so many bytes went, and ends nothing: half open
    Stall "stall" {
        /// Bytes that still pass.
        after: Count as "after_bytes",
    } "carry nothing more after {after} byte(s)";
    /// carries nothing more from the upgrade on, and ends nothing
    Silence "silence" {} "carry nothing after the upgrade";
}
