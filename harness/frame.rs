//! One RFC 6455 frame as bytes, well formed or not.

use std::fmt;
use std::io::Cursor;

use bytes::{Bytes, BytesMut};
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use crate::close_code::CloseCode;

/// What a frame carries (RFC 6455 section 5.2).
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
    /// Any of the three reserved bits is set.
    pub has_reserved_bits: bool,
    /// What it carries.
    pub opcode: Opcode,
    /// The masking key, when the frame is masked.
    pub mask: Option<[u8; 4]>,
    /// The payload, unmasked.
    pub payload: Bytes,
}

/// Why bytes are not a frame that anyone should go on reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The header cannot be read.
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
    /// The announced payload is larger than the reader's limit.
    TooLong {
        /// Announced payload, in bytes.
        announced: u64,
    },
}

impl Frame {
    /// A whole, unmasked frame.
    pub fn new(opcode: Opcode, payload: impl Into<Bytes>) -> Frame {
        Frame { is_final: true, has_reserved_bits: false, opcode, mask: None, payload: payload.into() }
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

    /// What is wrong with a frame on its own account, whoever sent it.
    ///
    /// # Errors
    /// Says which rule it breaks.
    pub fn verify(&self) -> Result<(), FrameError> {
        let is_control = matches!(self.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
        if self.has_reserved_bits || matches!(self.opcode, Opcode::Reserved(_)) {
            return Err(FrameError::Reserved);
        }
        if is_control && (!self.is_final || self.payload.len() > 125) {
            return Err(FrameError::Control);
        }
        if self.opcode != Opcode::Close {
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
        let header = FrameHeader { opcode: opcode.into(), ..FrameHeader::default() };
        header.format(payload.len() as u64, output).expect("writing to a Vec succeeds");
        output.extend_from_slice(payload);
    }

    /// Appends the frame's bytes to `output`.
    pub fn encode(&self, output: &mut Vec<u8>) {
        let header = FrameHeader {
            is_final: self.is_final,
            rsv1: self.has_reserved_bits,
            rsv2: false,
            rsv3: false,
            opcode: self.opcode.into(),
            mask: self.mask,
        };
        header.format(self.payload.len() as u64, output).expect("writing to a Vec succeeds");
        let start = output.len();
        output.extend_from_slice(&self.payload);
        if let Some(mask) = self.mask {
            apply_mask(&mut output[start..], mask);
        }
    }

    /// Takes one frame from the front of `input`; `None` while more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError::Header`] when the header is unreadable, [`FrameError::TooLong`] when it announces more than
    /// `payload_bytes_max`.
    pub fn decode(input: &mut BytesMut, payload_bytes_max: u64) -> Result<Option<Frame>, FrameError> {
        let mut cursor = Cursor::new(&input[..]);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| FrameError::Header)?;
        let Some((header, length)) = parsed else { return Ok(None) };
        let header_bytes = cursor.position() as usize;
        if length > payload_bytes_max {
            return Err(FrameError::TooLong { announced: length });
        }
        let length = length as usize;
        if input.len() < header_bytes + length {
            return Ok(None);
        }
        let mut whole = input.split_to(header_bytes + length);
        let mut payload = whole.split_off(header_bytes);
        if let Some(mask) = header.mask {
            apply_mask(&mut payload, mask);
        }
        Ok(Some(Frame {
            is_final: header.is_final,
            has_reserved_bits: header.rsv1 || header.rsv2 || header.rsv3,
            opcode: header.opcode.into(),
            mask: header.mask,
            payload: payload.freeze(),
        }))
    }
}

fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let mut chunks = payload.chunks_exact_mut(4);
    for chunk in &mut chunks {
        let word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]) ^ u32::from_ne_bytes(mask);
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

impl From<OpCode> for Opcode {
    fn from(code: OpCode) -> Self {
        match code {
            OpCode::Data(Data::Continue) => Opcode::Continuation,
            OpCode::Data(Data::Text) => Opcode::Text,
            OpCode::Data(Data::Binary) => Opcode::Binary,
            OpCode::Control(Control::Close) => Opcode::Close,
            OpCode::Control(Control::Ping) => Opcode::Ping,
            OpCode::Control(Control::Pong) => Opcode::Pong,
            OpCode::Data(Data::Reserved(number)) | OpCode::Control(Control::Reserved(number)) => {
                Opcode::Reserved(number)
            }
        }
    }
}

impl From<Opcode> for OpCode {
    fn from(code: Opcode) -> Self {
        match code {
            Opcode::Continuation => OpCode::Data(Data::Continue),
            Opcode::Text => OpCode::Data(Data::Text),
            Opcode::Binary => OpCode::Data(Data::Binary),
            Opcode::Close => OpCode::Control(Control::Close),
            Opcode::Ping => OpCode::Control(Control::Ping),
            Opcode::Pong => OpCode::Control(Control::Pong),
            Opcode::Reserved(number) if number < 8 => OpCode::Data(Data::Reserved(number)),
            Opcode::Reserved(number) => OpCode::Control(Control::Reserved(number)),
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
