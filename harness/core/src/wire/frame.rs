//! One RFC 6455 frame as bytes, well formed or not.

use std::fmt;
use std::io::Cursor;

use bytes::{Bytes, BytesMut};
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use crate::wire::close_code::CloseCode;

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
        self.encode_announcing(Length::Shortest, output);
    }

    /// The same, with a header that announces the payload in its own way.
    pub fn encode_announcing(&self, length: Length, output: &mut Vec<u8>) {
        let bit = |is_set: bool, place: u8| u8::from(is_set) << place;
        output.push(bit(self.is_final, 7) | (self.reserved_bits & 7) << 4 | u8::from(OpCode::from(self.opcode)));
        let mask_bit = bit(self.mask.is_some(), 7);
        let payload_bytes = self.payload.len() as u64;
        match (length, payload_bytes) {
            (Length::Claimed(claimed), _) => wide(mask_bit, claimed, output),
            (Length::InEightBytes, bytes) => wide(mask_bit, bytes, output),
            (Length::Shortest, short @ 0..=125) => output.push(mask_bit | short as u8),
            (Length::Shortest | Length::InTwoBytes, bytes @ 0..=0xffff) => {
                output.push(mask_bit | 126);
                output.extend_from_slice(&(bytes as u16).to_be_bytes());
            }
            (Length::Shortest | Length::InTwoBytes, bytes) => wide(mask_bit, bytes, output),
        }
        output.extend(self.mask.iter().flatten());
        let start = output.len();
        output.extend_from_slice(&self.payload);
        if let Some(mask) = self.mask {
            apply_mask(&mut output[start..], mask);
        }
    }

    /// Whether the header at the front of `input` announces its payload in as few bytes as can be, as far as it has come.
    pub fn announces_shortest(input: &[u8]) -> bool {
        match input.get(1).map(|byte| byte & 0x7f) {
            Some(126) => input.get(2..4).is_none_or(|length| u16::from_be_bytes([length[0], length[1]]) > 125),
            Some(127) => input.get(2..8).is_none_or(|high| high.iter().any(|&byte| byte != 0)),
            _ => true,
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
            reserved_bits: u8::from(header.rsv1) << 2 | u8::from(header.rsv2) << 1 | u8::from(header.rsv3),
            opcode: header.opcode.into(),
            mask: header.mask,
            payload: payload.freeze(),
        }))
    }
}

/// Puts the frames of a server together as a client must (RFC 6455 section 5.4).
#[derive(Debug, Default)]
pub struct Assembly {
    /// The pieces of a message that is not complete.
    message: Option<(Opcode, Vec<u8>)>,
}

impl Assembly {
    /// Takes a frame: a control frame or a whole message comes out, a piece of a message is kept.
    ///
    /// # Errors
    /// Says which rule it breaks; [`FrameError::TooLong`] when the message would have more than `payload_bytes_max`.
    pub fn take(&mut self, frame: Frame, payload_bytes_max: u64) -> Result<Option<Frame>, FrameError> {
        frame.verify()?;
        if frame.mask.is_some() {
            return Err(FrameError::Masked);
        }
        let whole = match (frame.opcode, self.message.take()) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, message) => {
                self.message = message;
                return Ok(Some(frame));
            }
            (Opcode::Continuation, Some((opcode, mut payload))) => {
                payload.extend_from_slice(&frame.payload);
                if payload.len() as u64 > payload_bytes_max {
                    return Err(FrameError::TooLong { announced: payload.len() as u64 });
                }
                if !frame.is_final {
                    self.message = Some((opcode, payload));
                    return Ok(None);
                }
                Frame::new(opcode, payload)
            }
            (Opcode::Continuation, None) | (_, Some(_)) => return Err(FrameError::Fragment),
            (opcode, None) if !frame.is_final => {
                self.message = Some((opcode, frame.payload.to_vec()));
                return Ok(None);
            }
            (_, None) => frame,
        };
        if whole.opcode == Opcode::Text && std::str::from_utf8(&whole.payload).is_err() {
            return Err(FrameError::Utf8);
        }
        Ok(Some(whole))
    }
}

/// Writes a length in eight bytes.
fn wide(mask_bit: u8, length: u64, output: &mut Vec<u8>) {
    output.push(mask_bit | 127);
    output.extend_from_slice(&length.to_be_bytes());
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

impl Opcode {
    /// Whether its frames are about the connection (section 5.5) and carry no message.
    pub fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }

    /// The opcode with this number, of which the lower four bits count.
    pub fn numbered(number: u8) -> Opcode {
        OpCode::from(number & 0x0f).into()
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
