//! Edge faults on the frames of a WebSocket.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{End, stream::DelayedBytes};
use crate::recorder::ExchangeRecorder;
use relapse_core::{
    fault::{Breach, Direction, FaultKind, FrameFate, FrameWaits, InsteadOfFrame, OwnFrames},
    record::transcript::{Actor, EventKind, Level},
    wire::{
        close_code::CloseCode,
        deflate::{Coding, Deflater, InflatedFrames, PlainFrame},
        frame::{Frame, FrameError, Opcode},
    },
};

/// The largest payload that is read as a frame, and the largest message that is decompressed, in bytes.
const PAYLOAD_BYTES_MAX: u64 = 16 << 20;

/// How often faults act on the frames of one connection and direction, each frame that they inject counted. Two that
/// answer one another go no further.
const ACTS_MAX: usize = 500;

/// How much is injected at a time at most, in bytes, whatever was asked for.
const INJECTED_BYTES_MAX: usize = 1 << 20;

/// The masking key of a frame of the edge's own. The key may be anything (RFC 6455 section 5.3).
const MASK: [u8; 4] = [0x72, 0x65, 0x6c, 0x61];

/// Lets the plan's frame faults act on one direction.
pub(super) struct Mangler {
    direction: Direction,
    scribe: ExchangeRecorder,
    has_faults: bool,
    /// How often a fault acted.
    acts: usize,
    /// Nothing more is carried.
    is_suppressed: bool,
    /// Something came that is no frame; from there on everything passes as it is.
    is_opaque: bool,
    /// The compression of the messages, where the two sides agreed on it.
    compression: Option<Compression>,
    /// Bytes to be written before the next frame.
    before_next: Vec<u8>,
    /// Bytes to be written behind the next frame.
    behind_next: Vec<u8>,
}

/// The compressed messages of one direction (RFC 7692), as the edge reads and writes them.
///
/// A message that no fault changes passes byte for byte. One that the edge compresses refers to no other, so that it can be
/// read in any place and as often as it comes. Once a change has left the receiver with another window than the sender
/// believes, the edge compresses every message that follows; and where a message comes in fragments, each of them, because a
/// fault may act on any.
struct Compression {
    reading: InflatedFrames,
    writing: Deflater,
    /// Whether a message may refer to those before it.
    has_takeover: bool,
    /// Whether the receiver's window is not what the sender believes.
    is_window_changed: bool,
}

impl Compression {
    fn new(coding: Coding) -> Compression {
        Compression {
            reading: InflatedFrames::new(coding, PAYLOAD_BYTES_MAX),
            writing: Deflater::new(Coding { has_takeover: false, ..coding }),
            has_takeover: coding.has_takeover,
            is_window_changed: false,
        }
    }
}

/// A frame on its way.
struct PassingFrame {
    /// As its sender meant it.
    plain: PlainFrame,
    /// As it goes on where nothing acts on it.
    wire: Frame,
}

/// The faults that act on one frame.
#[derive(Default)]
struct ActingFaults {
    /// Whether one lets the receiver get other messages, or the same in another order.
    changes_messages: bool,
    /// The one that closes, by its place in the plan.
    closing: Option<usize>,
}

impl Mangler {
    pub(super) fn new(direction: Direction, scribe: ExchangeRecorder) -> Mangler {
        let has_faults = scribe.plan().faults.iter().any(|fault| match &fault.kind {
            FaultKind::Frame { frames, .. } => frames.direction.includes(direction),
            _ => false,
        });
        let (before_next, behind_next) = (Vec::new(), Vec::new());
        Mangler {
            direction,
            scribe,
            has_faults,
            acts: 0,
            is_suppressed: false,
            is_opaque: false,
            compression: None,
            before_next,
            behind_next,
        }
    }

    /// Whether there is anything that could act; what passes otherwise need not be read as frames.
    pub(super) fn has_faults(&self) -> bool {
        self.has_faults
    }

    /// The server switched protocols; the messages of this direction are compressed so, if at all.
    pub(super) fn upgraded(&mut self, coding: Option<Coding>) {
        self.compression = coding.filter(|_| self.has_faults).map(Compression::new);
    }

    /// Takes whole frames, lets faults act, and carries what is left of them; how that ends the connection.
    pub(super) fn carry(
        &mut self,
        incoming: &mut BytesMut,
        there: &mut DelayedBytes,
        back: &mut DelayedBytes,
    ) -> Option<(End, usize)> {
        while !self.is_opaque {
            match Frame::decode(incoming, PAYLOAD_BYTES_MAX) {
                Ok(Some(frame)) => {
                    let passing = match self.read(frame) {
                        Ok(passing) => passing,
                        Err((frame, error)) => {
                            self.give_up(&frame, error, there);
                            continue;
                        }
                    };
                    if let Some((index, code, reason)) = self.take(passing, there) {
                        self.release(there);
                        self.close(code, &reason, there, back);
                        return Some((End::Finished, index));
                    }
                }
                Ok(None) => return None,
                Err(_) => self.is_opaque = true,
            }
        }
        self.release(there);
        there.push(incoming.to_vec(), Duration::ZERO);
        incoming.clear();
        None
    }

    /// Carries what waited for a frame that does not come any more.
    pub(super) fn release(&mut self, there: &mut DelayedBytes) {
        let mut waiting = std::mem::take(&mut self.before_next);
        waiting.append(&mut self.behind_next);
        there.push(waiting, Duration::ZERO);
    }

    /// Reads a frame as its sender meant it.
    fn read(&mut self, wire: Frame) -> Result<PassingFrame, (Frame, FrameError)> {
        let plain = match &mut self.compression {
            None => PlainFrame { frame: wire.clone(), was_compressed: false },
            Some(compression) => match compression.reading.read(wire.clone()) {
                Ok(plain) => plain,
                Err(error) => return Err((wire, error)),
            },
        };
        let mut passing = PassingFrame { plain, wire };
        let is_whole = passing.wire.is_message() && passing.wire.is_final;
        if passing.plain.was_compressed
            && (!is_whole || self.compression.as_ref().is_some_and(|compression| compression.is_window_changed))
        {
            passing.wire = self.compressed(&passing.plain.frame);
        }
        Ok(passing)
    }

    /// A frame with its payload compressed by itself.
    fn compressed(&mut self, plain: &Frame) -> Frame {
        match &mut self.compression {
            Some(compression) => {
                Frame { payload: compression.writing.piece(&plain.payload, plain.is_final), ..plain.clone() }
            }
            None => plain.clone(),
        }
    }

    /// A compressed message cannot be read: it passes as it came, and so does everything behind it.
    fn give_up(&mut self, frame: &Frame, error: FrameError, there: &mut DelayedBytes) {
        self.is_opaque = true;
        self.release(there);
        there.push(encoded(frame), Duration::ZERO);
        let why = match error {
            FrameError::TooLong { .. } => "is longer than 16 MiB",
            _ => "cannot be decompressed",
        };
        let whose = if self.direction == Direction::ToServer { "client" } else { "server" };
        let message = format!("a message of the {whose} {why}: no fault acts on its frames from here on");
        self.scribe.record(Actor::Edge, EventKind::Logged { level: Level::Warning, message, unhandled: None });
    }

    fn take(
        &mut self,
        PassingFrame { plain, mut wire }: PassingFrame,
        there: &mut DelayedBytes,
    ) -> Option<(usize, CloseCode, String)> {
        let (fate, acting) = self.decide(&plain.frame);
        if plain.was_compressed && acting.changes_messages {
            wire = self.compressed(&plain.frame);
            if let Some(compression) = &mut self.compression {
                compression.is_window_changed |= compression.has_takeover;
            }
        }
        if self.is_suppressed {
            return None;
        }
        let mut bytes = self.injected(&fate.before);
        let instead = fate.instead.map(|instead| self.instead(instead, &plain, &wire));
        for _ in 0..fate.copies {
            match &instead {
                Some(instead) => bytes.extend_from_slice(instead),
                None => wire.encode(&mut bytes),
            }
        }
        match fate.waits {
            FrameWaits::ToGoTogether => self.before_next.append(&mut bytes),
            FrameWaits::ToGoBehind if self.behind_next.is_empty() => self.behind_next.append(&mut bytes),
            // One that waits goes behind this one, even if this was to wait too.
            FrameWaits::ToGoBehind | FrameWaits::No => {
                let mut whole = std::mem::take(&mut self.before_next);
                whole.append(&mut bytes);
                whole.append(&mut self.behind_next);
                there.push(whole, fate.delay);
            }
        }
        let (index, (code, reason)) = acting.closing.zip(fate.close)?;
        Some((index, CloseCode(u16::try_from(code).unwrap_or(u16::MAX)), reason))
    }

    /// Asks each fault that acts on a frame what it does with it.
    fn decide(&mut self, frame: &Frame) -> (FrameFate, ActingFaults) {
        let (mut fate, mut acting) = (FrameFate::default(), ActingFaults::default());
        let scribe = self.scribe.clone();
        for (index, fault) in scribe.plan().faults.iter().enumerate() {
            let FaultKind::Frame { frames, fault: what } = &fault.kind else { continue };
            if self.is_suppressed
                || self.acts >= ACTS_MAX
                || !frames.include(frame, self.direction)
                || !scribe.meets(index)
                || !what.applies_to(frame)
            {
                continue;
            }
            scribe.fired(index, Actor::Edge, fault.kind.to_string());
            let (own, earlier) = (fate.before.len(), fate.close.take());
            what.decide(&mut fate);
            self.acts += 1 + fate.before[own..].iter().map(|own| own.count).sum::<usize>();
            self.is_suppressed |= fate.ends_direction;
            acting.changes_messages |= what.changes_messages();
            match fate.close {
                Some(_) => acting.closing = Some(index),
                None => fate.close = earlier,
            }
        }
        (fate, acting)
    }

    /// The frames that go before one, as bytes.
    fn injected(&self, before: &[OwnFrames]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for OwnFrames { carries, payload, count } in before {
            // Messages that are not compressed may stand among others (RFC 7692 section 6).
            let own = self.own(carries.opcode(), payload.clone());
            for _ in 0..*count {
                if bytes.len() < INJECTED_BYTES_MAX {
                    own.encode(&mut bytes);
                }
            }
        }
        bytes
    }

    /// The bytes in the place of a frame.
    fn instead(&mut self, instead: InsteadOfFrame, plain: &PlainFrame, wire: &Frame) -> Vec<u8> {
        match instead {
            InsteadOfFrame::TwoPieces => split(wire),
            InsteadOfFrame::Breach(rule) => self.broken(rule, wire),
            InsteadOfFrame::Payload(payload) => {
                let replaced = Frame { payload, ..plain.frame.clone() };
                encoded(&if plain.was_compressed { self.compressed(&replaced) } else { replaced })
            }
        }
    }

    /// A frame of the edge's own, as the side that it goes to must have it.
    fn own(&self, opcode: Opcode, payload: impl Into<Bytes>) -> Frame {
        let frame = Frame::new(opcode, payload);
        if self.direction == Direction::ToServer { frame.masked(MASK) } else { frame }
    }

    /// Closes towards both sides.
    fn close(&self, code: CloseCode, reason: &str, there: &mut DelayedBytes, back: &mut DelayedBytes) {
        let frame = Frame::close(Some(code), reason);
        let (server, client) = if self.direction == Direction::ToServer { (there, back) } else { (back, there) };
        server.push(encoded(&frame.clone().masked(MASK)), Duration::ZERO);
        client.push(encoded(&frame), Duration::ZERO);
    }

    /// Bytes that break a rule where this frame would have been.
    fn broken(&self, rule: Breach, frame: &Frame) -> Vec<u8> {
        let broken = match rule {
            // RSV1 has a meaning where messages are compressed.
            Breach::ReservedBit if self.compression.is_some() => {
                Frame { reserved_bits: frame.reserved_bits | 2, ..frame.clone() }
            }
            Breach::ReservedBit => Frame { reserved_bits: 4, ..frame.clone() },
            Breach::ReservedOpcode => self.own(Opcode::Reserved(3), frame.payload.clone()),
            Breach::Mask if self.direction == Direction::ToServer => Frame { mask: None, ..frame.clone() },
            Breach::Mask => frame.clone().masked(MASK),
            Breach::Utf8 => self.own(Opcode::Text, Bytes::from_static(b"\xff\xfe")),
            Breach::FragmentedControl => Frame { is_final: false, ..self.own(Opcode::Ping, Bytes::new()) },
            Breach::LongControl => self.own(Opcode::Ping, Bytes::from_static(&[b'x'; 126])),
            Breach::LoneContinuation => self.own(Opcode::Continuation, frame.payload.clone()),
            Breach::OneByteClose => self.own(Opcode::Close, Bytes::from_static(b"\x03")),
            // Only the header: no peer is to wait for a payload of a gibibyte.
            Breach::Oversize => {
                let mask_bit = if self.direction == Direction::ToServer { 0x80 } else { 0 };
                let mut header = vec![0x81, mask_bit | 127];
                header.extend_from_slice(&(1_u64 << 30).to_be_bytes());
                return header;
            }
        };
        encoded(&broken)
    }
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.payload.len() + 14);
    frame.encode(&mut bytes);
    bytes
}

/// The message in two pieces. A reserved bit of a message stands in the first (RFC 7692 section 6.1).
fn split(frame: &Frame) -> Vec<u8> {
    let middle = frame.payload.len() / 2;
    let first = Frame { is_final: false, payload: frame.payload.slice(..middle), ..frame.clone() };
    let (opcode, payload) = (Opcode::Continuation, frame.payload.slice(middle..));
    let second = Frame { opcode, payload, reserved_bits: 0, ..frame.clone() };
    [encoded(&first), encoded(&second)].concat()
}
