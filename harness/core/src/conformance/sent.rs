//! A client's frames, right or wrong.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use super::Reply;
use crate::wire::{
    close_code::CloseCode,
    deflate::{DeflateParameters, Deflater, RSV1},
    frame::{Frame, Length, Opcode},
};

/// The key of the member that a request gets beside its own.
const MEMBER: &str = "conformance";

/// One thing that a client does.
#[derive(Debug, Clone, PartialEq)]
pub enum SentAction {
    /// It sends a frame, or some.
    Send(Sent),
    /// It holds back what follows for so long.
    Pause(Duration),
}

/// Frames as they are to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// The frames' opcode.
    pub opcode: Opcode,
    /// Whether the last one is the last of its message.
    pub is_final: bool,
    /// RSV1 (4), RSV2 (2) and RSV3 (1).
    pub reserved_bits: u8,
    /// How they are masked.
    pub masking: Masking,
    /// The payload of all of them.
    pub payload: Payload,
    /// How the payload is compressed, if it is: then the first frame of a message has RSV1 (RFC 7692 section 6).
    pub deflate: Option<Deflation>,
    /// How many bytes of the payload each of them has; all where nothing is said.
    pub fragment_bytes: Option<usize>,
    /// How each announces its payload.
    pub length: Length,
    /// How often all of it is sent.
    pub times: usize,
}

/// How a client masks a frame (section 5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Masking {
    /// With a key that cannot be predicted.
    #[default]
    Random,
    /// With the key 0.
    Zero,
    /// Not at all, which no client may.
    None,
}

/// How a client compresses a payload (RFC 7692 section 7.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deflation {
    /// In one block, which may refer to the messages before.
    OneBlock,
    /// In three blocks.
    Blocks,
    /// In a block without compression.
    Stored,
    /// In a block without compression whose header says that it is the last of its stream.
    FinalBlock,
}

/// The payload of frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// These bytes.
    Bytes(Bytes),
    /// The service's request, or one of its parts.
    Request {
        /// Which part, counted from 1.
        part: usize,
        /// Of how many.
        parts: usize,
        /// Its length in bytes, with spaces before it.
        pad_to: Option<usize>,
        /// A text that the request, a JSON object, has in a further member.
        beside: Option<String>,
        /// Whether the service has to answer it; what may be too large for it has no claim.
        is_owed: bool,
    },
}

/// Something written to the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrittenPart {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing, for so long.
    Pause(Duration),
}

/// Writes everything that is sent between two pauses as one.
pub(super) fn write(
    acts: &[SentAction],
    request: &str,
    agreed: Option<DeflateParameters>,
    chance: &mut fastrand::Rng,
) -> Result<Vec<WrittenPart>, String> {
    let (mut written, mut bytes) = (Vec::new(), Vec::new());
    let mut compressor = Compressor { parameters: agreed.unwrap_or_default(), deflater: None };
    for act in acts {
        match act {
            SentAction::Send(sent) => sent.encode(request, &mut compressor, chance, &mut bytes)?,
            SentAction::Pause(pause) => {
                written.extend([WrittenPart::Bytes(std::mem::take(&mut bytes)), WrittenPart::Pause(*pause)]);
            }
        }
    }
    written.push(WrittenPart::Bytes(bytes));
    Ok(written)
}

/// Compresses the payloads of a conversation.
struct Compressor {
    parameters: DeflateParameters,
    /// Knows the messages to which the next one may refer.
    deflater: Option<Deflater>,
}

/// The most bytes of a block without compression (RFC 1951 section 3.2.4).
const STORED_BYTES_MAX: usize = 0xffff;

impl Compressor {
    fn deflater(&mut self) -> &mut Deflater {
        let coding = self.parameters.of_client();
        self.deflater.get_or_insert_with(|| Deflater::new(coding))
    }

    /// Compresses the payload of a whole message, or of a piece of one.
    fn compress(&mut self, payload: &Bytes, deflation: Deflation, is_final: bool) -> Result<Bytes, String> {
        let is_last_block = match deflation {
            Deflation::OneBlock => return Ok(self.deflater().piece(payload, is_final)),
            Deflation::Blocks => {
                let size = payload.len().div_ceil(3).max(1);
                let count = payload.len().div_ceil(size);
                let pieces = payload.chunks(size).enumerate();
                let blocks = pieces.map(|(index, piece)| self.deflater().piece(piece, is_final && index + 1 == count));
                return Ok(blocks.collect::<Vec<_>>().concat().into());
            }
            Deflation::Stored => false,
            Deflation::FinalBlock => true,
        };
        // The compressor does not know these bytes: nothing behind them may refer to anything before them.
        self.deflater = None;
        let length = u16::try_from(payload.len());
        let length = length.map_err(|_| format!("a block without compression has at most {STORED_BYTES_MAX} bytes"))?;
        let mut block = vec![u8::from(is_last_block)];
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(&(!length).to_le_bytes());
        block.extend_from_slice(payload);
        // An empty block behind it, whose end is not sent with the last piece.
        block.extend_from_slice(if is_final { &[0] } else { &[0, 0, 0, 0xff, 0xff] });
        Ok(block.into())
    }
}

impl SentAction {
    /// The frames that it sends, if any.
    pub(super) fn sent(&self) -> Option<&Sent> {
        match self {
            SentAction::Send(sent) => Some(sent),
            SentAction::Pause(_) => None,
        }
    }
}

impl Sent {
    /// The replies that a server owes for it.
    pub(super) fn replies(&self) -> impl Iterator<Item = Reply> + use<> {
        let reply = match (&self.payload, self.opcode) {
            (Payload::Bytes(payload), Opcode::Ping) => Some(Reply::Pong(payload.clone())),
            (Payload::Request { part, parts, is_owed: true, .. }, _) if part == parts => Some(Reply::Answer),
            _ => None,
        };
        reply.into_iter().cycle().take(self.times)
    }

    /// The code that a close frame carries.
    pub(super) fn code(&self) -> Option<CloseCode> {
        match &self.payload {
            Payload::Bytes(bytes) => bytes.first_chunk().map(|code| CloseCode(u16::from_be_bytes(*code))),
            Payload::Request { .. } => None,
        }
    }

    fn encode(
        &self,
        request: &str,
        compressor: &mut Compressor,
        chance: &mut fastrand::Rng,
        output: &mut Vec<u8>,
    ) -> Result<(), String> {
        let payload = self.payload.bytes(request)?;
        let mut fragments = self.fragments(payload.clone());
        for _ in 0..self.times {
            if let Some(deflation) = self.deflate {
                fragments = self.fragments(compressor.compress(&payload, deflation, self.is_final)?);
            }
            for frame in &fragments {
                let mask = match self.masking {
                    Masking::Random => Some(chance.u32(..).to_be_bytes()),
                    Masking::Zero => Some([0; 4]),
                    Masking::None => None,
                };
                Frame { mask, ..frame.clone() }.encode_announcing(self.length, output);
            }
        }
        Ok(())
    }

    /// The frames that carry a payload, without their masks.
    fn fragments(&self, payload: Bytes) -> Vec<Frame> {
        let size = self.fragment_bytes.unwrap_or(payload.len()).max(1);
        let pieces: Vec<Bytes> = match payload.len() {
            0 => vec![payload],
            length => (0..length).step_by(size).map(|at| payload.slice(at..length.min(at + size))).collect(),
        };
        let last = pieces.len() - 1;
        let begins_compressed = self.deflate.is_some() && self.opcode != Opcode::Continuation;
        let pieces = pieces.into_iter().enumerate();
        pieces
            .map(|(index, payload)| Frame {
                is_final: self.is_final && index == last,
                reserved_bits: self.reserved_bits | if begins_compressed && index == 0 { RSV1 } else { 0 },
                ..Frame::new(if index == 0 { self.opcode } else { Opcode::Continuation }, payload)
            })
            .collect()
    }
}

impl Payload {
    fn bytes(&self, request: &str) -> Result<Bytes, String> {
        match self {
            Payload::Bytes(bytes) => Ok(bytes.clone()),
            Payload::Request { part, parts, pad_to, beside, .. } => {
                let request = match beside {
                    Some(text) => with_member(request, text)?,
                    None => request.to_owned(),
                };
                let padded = padded(&request, pad_to.unwrap_or(request.len()))?;
                let (start, end) = (padded.len() * (part - 1) / parts, padded.len() * part / parts);
                Ok(padded.slice(start..end))
            }
        }
    }
}

/// The request with a further member. What a service does not know it does not look at.
fn with_member(request: &str, text: &str) -> Result<String, String> {
    match serde_json::from_str(request) {
        Ok(serde_json::Value::Object(mut members)) => {
            members.insert(MEMBER.to_owned(), text.into());
            Ok(serde_json::Value::Object(members).to_string())
        }
        _ => Err("it adds something to the request, and the request is no JSON object".to_owned()),
    }
}

/// The request behind as many spaces as it lacks, which mean nothing in JSON.
fn padded(request: &str, bytes: usize) -> Result<Bytes, String> {
    let lacking = bytes.checked_sub(request.len());
    let lacking = lacking.ok_or_else(|| format!("its request has {bytes} bytes, and the service's is longer"))?;
    Ok(Bytes::from(" ".repeat(lacking) + request))
}
