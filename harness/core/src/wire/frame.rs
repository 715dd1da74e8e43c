//! One RFC 6455 frame as bytes, well formed or not.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use super::{
    close_code::CloseCode,
    frame_header::{FrameHeader, apply_mask},
};

/// The contents of a frame (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// The next piece of a fragmented message.
    Continuation,
    /// Text.
    Text,
    /// Binary.
    Binary,
    /// Close.
    Close,
    /// Ping.
    Ping,
    /// Pong.
    Pong,
    /// One of the ten opcodes the RFC reserves.
    Reserved(u8),
}

/// One frame. Whether it was masked is kept, because a server must refuse an unmasked one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The last frame of its message.
    pub is_final: bool,
    /// The reserved bits that are set: 4 is RSV1, 2 is RSV2, 1 is RSV3.
    pub reserved_bits: u8,
    /// The frame's opcode.
    pub opcode: Opcode,
    /// The masking key, when the frame is masked.
    pub mask: Option<[u8; 4]>,
    /// The payload, unmasked.
    pub payload: Bytes,
}

/// Why bytes are not a frame that anyone should go on reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The header has a reserved opcode, so that the frame cannot be read.
    Header,
    /// A server masked it (RFC 6455 section 5.1).
    Masked,
    /// A reserved bit or opcode without an extension that gives it a meaning (section 5.2).
    Reserved,
    /// A control frame is fragmented or has more than 125 bytes of payload (section 5.5).
    Control,
    /// A continuation without a beginning, or a beginning in the middle of a message (section 5.4).
    Fragment,
    /// Text, or a close reason, that is not UTF-8 (sections 5.6 and 7.1.6).
    Utf8,
    /// A close frame with one byte, or with a code that may not stand in one (section 7.4).
    CloseCode,
    /// A compressed payload that cannot be decompressed (RFC 7692 section 7.2.2).
    Deflate,
    /// The announced payload is larger than the reader's limit, or more comes out of a compressed one.
    TooLong {
        /// Announced payload, or what came out until then, in bytes.
        announced: u64,
    },
}

/// How a frame's header announces its payload (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// In as few bytes as can be, which is the only right way.
    Shortest,
    /// In two bytes where fewer would do.
    InTwoBytes,
    /// In eight bytes where fewer would do.
    InEightBytes,
    /// As another length than the payload has, in eight bytes.
    Claimed(u64),
}

impl Frame {
    /// A whole, unmasked frame.
    pub fn new(opcode: Opcode, payload: impl Into<Bytes>) -> Frame {
        Frame { is_final: true, reserved_bits: 0, opcode, mask: None, payload: payload.into() }
    }

    /// A close frame; without a code the payload is empty.
    pub fn close(code: Option<CloseCode>, reason: &str) -> Frame {
        let mut payload = Vec::with_capacity(2 + reason.len());
        if let Some(code) = code {
            payload.extend_from_slice(&code.0.to_be_bytes());
            payload.extend_from_slice(reason.as_bytes());
        }
        Frame::new(Opcode::Close, payload)
    }

    /// The same frame, masked.
    pub fn masked(self, mask: [u8; 4]) -> Frame {
        Frame { mask: Some(mask), ..self }
    }

    /// Whether it is a close frame.
    pub fn is_close(&self) -> bool {
        self.opcode == Opcode::Close
    }

    /// Whether it is a message, or the first piece of one.
    pub fn is_message(&self) -> bool {
        matches!(self.opcode, Opcode::Text | Opcode::Binary)
    }

    /// Checks the frame itself, independent of its sender.
    ///
    /// # Errors
    /// Says which rule it breaks.
    pub fn verify(&self) -> Result<(), FrameError> {
        let is_control = self.opcode.is_control();
        if self.reserved_bits != 0 || matches!(self.opcode, Opcode::Reserved(_)) {
            return Err(FrameError::Reserved);
        }
        if is_control && (!self.is_final || self.payload.len() > 125) {
            return Err(FrameError::Control);
        }
        if !self.is_close() {
            return Ok(());
        }
        match self.payload.as_ref() {
            [] => Ok(()),
            [_] => Err(FrameError::CloseCode),
            [high, low, ..] if !CloseCode(u16::from_be_bytes([*high, *low])).is_sendable() => {
                Err(FrameError::CloseCode)
            }
            [_, _, reason @ ..] => std::str::from_utf8(reason).map(drop).map_err(|_| FrameError::Utf8),
        }
    }

    /// The code of a close frame; `None` when the payload has fewer than two bytes.
    pub fn close_code(&self) -> Option<CloseCode> {
        self.payload.first_chunk().map(|code| CloseCode(u16::from_be_bytes(*code)))
    }

    /// Code and reason of a close frame; `None` for the code when the payload has fewer than two bytes.
    pub fn close_parts(&self) -> (Option<CloseCode>, String) {
        match self.payload.as_ref() {
            [high, low, reason @ ..] => {
                (Some(CloseCode(u16::from_be_bytes([*high, *low]))), String::from_utf8_lossy(reason).into_owned())
            }
            _ => (None, String::new()),
        }
    }

    /// Appends the bytes of a whole, unmasked frame with this payload to `output`.
    pub fn encode_whole(opcode: Opcode, payload: &[u8], output: &mut Vec<u8>) {
        output.push(0x80 | opcode.number());
        write_length(0, payload.len() as u64, Length::Shortest, output);
        output.extend_from_slice(payload);
    }

    /// Appends the frame's bytes to `output`.
    pub fn encode(&self, output: &mut Vec<u8>) {
        self.encode_announcing(Length::Shortest, output);
    }

    /// The same, with a header that announces the payload in its own way.
    pub fn encode_announcing(&self, length: Length, output: &mut Vec<u8>) {
        output.push(u8::from(self.is_final) << 7 | (self.reserved_bits & 7) << 4 | self.opcode.number());
        let mask_bit = u8::from(self.mask.is_some()) << 7;
        write_length(mask_bit, self.payload.len() as u64, length, output);
        output.extend(self.mask.iter().flatten());
        let start = output.len();
        output.extend_from_slice(&self.payload);
        if let Some(mask) = self.mask {
            apply_mask(&mut output[start..], mask);
        }
    }

    /// Takes one frame from the front of `input`; `None` while more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError::Header`] when the opcode is reserved, [`FrameError::TooLong`] when it announces more than
    /// `payload_bytes_max`.
    pub fn decode(input: &mut BytesMut, payload_bytes_max: u64) -> Result<Option<Frame>, FrameError> {
        let Some(header) = FrameHeader::parse(input) else { return Ok(None) };
        if matches!(header.opcode, Opcode::Reserved(_)) {
            return Err(FrameError::Header);
        }
        if header.payload_bytes > payload_bytes_max {
            return Err(FrameError::TooLong { announced: header.payload_bytes });
        }
        let length = header.payload_bytes as usize;
        if input.len() < header.header_bytes + length {
            return Ok(None);
        }
        input.advance(header.header_bytes);
        let mut payload = input.split_to(length);
        if let Some(mask) = header.mask {
            apply_mask(&mut payload, mask);
        }
        Ok(Some(Frame {
            is_final: header.is_final,
            reserved_bits: header.reserved_bits,
            opcode: header.opcode,
            mask: header.mask,
            payload: payload.freeze(),
        }))
    }
}

/// Writes the announced length of a payload.
fn write_length(mask_bit: u8, payload_bytes: u64, length: Length, output: &mut Vec<u8>) {
    match (length, payload_bytes) {
        (Length::Claimed(claimed), _) => write_wide_length(mask_bit, claimed, output),
        (Length::InEightBytes, bytes) => write_wide_length(mask_bit, bytes, output),
        (Length::Shortest, short @ 0..=125) => output.push(mask_bit | short as u8),
        (Length::Shortest | Length::InTwoBytes, bytes @ 0..=0xffff) => {
            output.push(mask_bit | 126);
            output.extend_from_slice(&(bytes as u16).to_be_bytes());
        }
        (Length::Shortest | Length::InTwoBytes, bytes) => write_wide_length(mask_bit, bytes, output),
    }
}

/// Writes a length in eight bytes.
fn write_wide_length(mask_bit: u8, length: u64, output: &mut Vec<u8>) {
    output.push(mask_bit | 127);
    output.extend_from_slice(&length.to_be_bytes());
}

impl Opcode {
    /// Whether its frames are about the connection (section 5.5) and carry no message.
    pub fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }

    /// The opcode with this number, of which the lower four bits count.
    pub fn numbered(number: u8) -> Opcode {
        match number & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            reserved => Opcode::Reserved(reserved),
        }
    }

    /// The number of the opcode, 0 to 15.
    pub fn number(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
            Opcode::Reserved(number) => number & 0x0f,
        }
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Opcode::Continuation => f.write_str("continuation"),
            Opcode::Text => f.write_str("text"),
            Opcode::Binary => f.write_str("binary"),
            Opcode::Close => f.write_str("close"),
            Opcode::Ping => f.write_str("ping"),
            Opcode::Pong => f.write_str("pong"),
            Opcode::Reserved(number) => write!(f, "reserved opcode {number}"),
        }
    }
}
