//! Compressed messages (RFC 7692): what two sides agree on, and the payloads of one direction in both forms.

use std::fmt;

use bytes::Bytes;
use miniz_oxide::{
    deflate::core::{CompressorOxide, TDEFLFlush, compress_to_output, create_comp_flags_from_zip_params},
    inflate::{
        TINFLStatus,
        core::{
            DecompressorOxide, decompress,
            inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF},
        },
    },
};

use super::{
    frame::{Frame, FrameError, Opcode},
    head::Headers,
};

/// The name of the extension (RFC 7692 section 7).
pub const PERMESSAGE_DEFLATE: &str = "permessage-deflate";

/// The header field that offers and selects extensions (RFC 6455 section 11.3.2).
pub const EXTENSIONS: &str = "Sec-WebSocket-Extensions";

/// The reserved bit of the first frame of a compressed message (RFC 7692 section 6).
pub const RSV1: u8 = 4;

/// The end of each compressed message that is not sent (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The largest window of DEFLATE, in bits and in bytes (RFC 1951 section 2).
const WINDOW_BITS_MAX: u8 = 15;
const WINDOW_BYTES_MAX: usize = 1 << WINDOW_BITS_MAX;

/// How many bytes are made room for at a time where messages are decompressed.
const ROOM_BYTES: usize = 32 << 10;

/// How hard is tried to compress, of 10: zlib's default is 6.
const LEVEL: i32 = 6;

/// The parameters of an offer, or of the answer to one (RFC 7692 section 7.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeflateParameters {
    /// The server begins each message with an empty window.
    pub server_no_context_takeover: bool,
    /// The client begins each message with an empty window.
    pub client_no_context_takeover: bool,
    /// The largest window of the server.
    pub server_max_window_bits: WindowBits,
    /// The largest window of the client.
    pub client_max_window_bits: WindowBits,
}

/// A parameter that limits a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WindowBits {
    /// It is not there.
    #[default]
    Absent,
    /// It has no value: a client leaves the choice to the server (RFC 7692 section 7.1.2.2).
    Open,
    /// The window has at most so many bits, 8 to 15.
    AtMost(u8),
}

/// How the messages of one direction are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coding {
    /// Whether a message may refer to those before it.
    pub has_takeover: bool,
    /// The largest window, in bits, 8 to 15.
    pub window_bits: u8,
}

impl DeflateParameters {
    /// Reads an element of the header field; `None` for another extension.
    ///
    /// # Errors
    /// Says which parameter is unknown, repeated, or has a value that it may not have (RFC 7692 section 7.1).
    pub fn read(element: &str) -> Result<Option<DeflateParameters>, String> {
        let mut parts = element.split(';').map(str::trim);
        if !parts.next().unwrap_or_default().eq_ignore_ascii_case(PERMESSAGE_DEFLATE) {
            return Ok(None);
        }
        let mut parameters = DeflateParameters::default();
        let mut known = Vec::new();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (part, None),
            };
            if known.contains(&name) {
                return Err(format!("`{name}` stands there twice"));
            }
            known.push(name);
            match (name, value) {
                ("server_no_context_takeover", None) => parameters.server_no_context_takeover = true,
                ("client_no_context_takeover", None) => parameters.client_no_context_takeover = true,
                ("server_max_window_bits", Some(bits)) => parameters.server_max_window_bits = window_bits(bits)?,
                ("client_max_window_bits", Some(bits)) => parameters.client_max_window_bits = window_bits(bits)?,
                ("client_max_window_bits", None) => parameters.client_max_window_bits = WindowBits::Open,
                ("server_max_window_bits", None) => return Err(format!("`{name}` has no value")),
                ("server_no_context_takeover" | "client_no_context_takeover", Some(value)) => {
                    return Err(format!("`{name}` has the value `{value}`, and no value is allowed"));
                }
                _ => return Err(format!("`{part}` is no parameter of {PERMESSAGE_DEFLATE}")),
            }
        }
        Ok(Some(parameters))
    }

    /// The offers of a client, in order, without those that no server can accept.
    pub fn offered(headers: &Headers) -> Vec<DeflateParameters> {
        elements(headers).iter().filter_map(|element| DeflateParameters::read(element).ok().flatten()).collect()
    }

    /// The parameters that a server selected, whether it may or not.
    pub fn selected(headers: &Headers) -> Option<DeflateParameters> {
        DeflateParameters::offered(headers).first().copied()
    }

    /// The parameters that a server selected in its answer, as its client must read them; `None` if it selected no extension.
    ///
    /// # Errors
    /// Says why a client fails the connection (RFC 6455 section 9.1, RFC 7692 section 7.1).
    pub fn agreed(request: &Headers, response: &Headers) -> Result<Option<DeflateParameters>, String> {
        let selected = elements(response);
        let offers = DeflateParameters::offered(request);
        match selected.as_slice() {
            [] => Ok(None),
            [element] if !offers.is_empty() => {
                let unsupported = || format!("unsupported extension: {element}");
                let parameters = DeflateParameters::read(element)?.ok_or_else(unsupported)?;
                if offers.iter().any(|offer| parameters.answer(offer)) {
                    return Ok(Some(parameters));
                }
                Err(format!("the parameters answer no offer: {element}"))
            }
            elements => Err(format!("unsupported extension: {}", elements.join(", "))),
        }
    }

    /// Whether they are an answer to an offer.
    fn answer(&self, offer: &DeflateParameters) -> bool {
        let keeps_takeover = self.server_no_context_takeover || !offer.server_no_context_takeover;
        let keeps_server = match (offer.server_max_window_bits, self.server_max_window_bits) {
            (WindowBits::AtMost(offered), WindowBits::AtMost(selected)) => selected <= offered,
            (WindowBits::AtMost(_), _) => false,
            (WindowBits::Absent | WindowBits::Open, _) => true,
        };
        let keeps_client = match (offer.client_max_window_bits, self.client_max_window_bits) {
            (_, WindowBits::Absent) => true,
            (_, WindowBits::Open) | (WindowBits::Absent, _) => false,
            (WindowBits::AtMost(offered), WindowBits::AtMost(selected)) => selected <= offered,
            (WindowBits::Open, WindowBits::AtMost(_)) => true,
        };
        keeps_takeover && keeps_server && keeps_client
    }

    /// How the client compresses.
    pub fn of_client(&self) -> Coding {
        Coding { has_takeover: !self.client_no_context_takeover, window_bits: self.client_max_window_bits.most() }
    }

    /// How the server compresses.
    pub fn of_server(&self) -> Coding {
        Coding { has_takeover: !self.server_no_context_takeover, window_bits: self.server_max_window_bits.most() }
    }
}

impl fmt::Display for DeflateParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PERMESSAGE_DEFLATE)?;
        for (name, is_there) in [
            ("server_no_context_takeover", self.server_no_context_takeover),
            ("client_no_context_takeover", self.client_no_context_takeover),
        ] {
            if is_there {
                write!(f, "; {name}")?;
            }
        }
        for (name, bits) in [
            ("server_max_window_bits", self.server_max_window_bits),
            ("client_max_window_bits", self.client_max_window_bits),
        ] {
            match bits {
                WindowBits::Absent => {}
                WindowBits::Open => write!(f, "; {name}")?,
                WindowBits::AtMost(bits) => write!(f, "; {name}={bits}")?,
            }
        }
        Ok(())
    }
}

impl WindowBits {
    /// The most bits that it allows.
    pub fn most(self) -> u8 {
        match self {
            WindowBits::Absent | WindowBits::Open => WINDOW_BITS_MAX,
            WindowBits::AtMost(bits) => bits,
        }
    }
}

fn window_bits(text: &str) -> Result<WindowBits, String> {
    match text.parse() {
        Ok(bits @ 8..=WINDOW_BITS_MAX) if !text.starts_with(['0', '+']) => Ok(WindowBits::AtMost(bits)),
        _ => Err(format!("a window has 8 to {WINDOW_BITS_MAX} bits, and `{text}` is not among them")),
    }
}

/// The elements of the header field, which may stand there several times. No value has a comma: each is a token, in
/// quotation marks or without (RFC 6455 section 9.1).
fn elements(headers: &Headers) -> Vec<String> {
    let fields = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(EXTENSIONS.as_bytes()));
    let elements = fields.flat_map(|(_, value)| value.split(|&byte| byte == b','));
    let elements = elements.map(|element| String::from_utf8_lossy(element.trim_ascii()).into_owned());
    elements.filter(|element| !element.is_empty()).collect()
}

/// Compresses the messages of one direction.
pub struct Deflater {
    encoder: Box<CompressorOxide>,
    coding: Coding,
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").field("coding", &self.coding).finish_non_exhaustive()
    }
}

impl Deflater {
    /// Nothing is compressed yet.
    pub fn new(coding: Coding) -> Deflater {
        let flags = create_comp_flags_from_zip_params(LEVEL, 0, 0);
        Deflater { encoder: Box::new(CompressorOxide::new(flags)), coding }
    }

    /// Compresses a piece of a message, which is the payload of one frame. The pieces of a message give the whole one, in
    /// order.
    ///
    /// Without takeover, or with a smaller window than DEFLATE's, no piece refers to anything before it.
    pub fn piece(&mut self, piece: &[u8], is_last: bool) -> Bytes {
        if piece.is_empty() {
            // An empty stored block without the tail (RFC 7692 section 7.2.3.6).
            return if is_last { Bytes::from_static(&[0]) } else { Bytes::new() };
        }
        let (size, flush) = match self.coding {
            Coding { has_takeover: true, window_bits: WINDOW_BITS_MAX } => (piece.len(), TDEFLFlush::Sync),
            Coding { window_bits: WINDOW_BITS_MAX, .. } => (piece.len(), TDEFLFlush::Full),
            // No distance is longer than what was compressed since the last full flush.
            Coding { window_bits, .. } => (1 << window_bits, TDEFLFlush::Full),
        };
        let mut output = Vec::with_capacity(piece.len() / 2 + 16);
        for chunk in piece.chunks(size) {
            compress_to_output(&mut self.encoder, chunk, flush, |bytes| {
                output.extend_from_slice(bytes);
                true
            });
        }
        if is_last && output.ends_with(&TAIL) {
            output.truncate(output.len() - TAIL.len());
        }
        output.into()
    }
}

/// Decompresses the messages of one direction.
pub struct Inflater {
    decoder: Box<DecompressorOxide>,
    /// The last bytes that came out, at least as many as a window has, and room behind them.
    window: Vec<u8>,
    /// Where the room begins.
    position: usize,
    coding: Coding,
    has_seen_final_block: bool,
}

/// Where a decoder stands after its input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FeedEnd {
    InBlocks,
    BehindFinalBlock,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("coding", &self.coding).finish_non_exhaustive()
    }
}

impl Inflater {
    /// Nothing is decompressed yet.
    pub fn new(coding: Coding) -> Inflater {
        Inflater { decoder: Box::default(), window: Vec::new(), position: 0, coding, has_seen_final_block: false }
    }

    /// Whether a final block came, which no further block of its stream may follow.
    pub fn has_seen_final_block(&self) -> bool {
        self.has_seen_final_block
    }

    /// Decompresses the payload of a frame into at most so many bytes: as much as it tells.
    ///
    /// # Errors
    /// [`FrameError::Deflate`] where it is no DEFLATE, [`FrameError::TooLong`] where more bytes come out.
    pub fn piece(&mut self, piece: &[u8], is_last: bool, bytes_max: u64) -> Result<Bytes, FrameError> {
        if self.position > 2 * WINDOW_BYTES_MAX {
            self.window.copy_within(self.position - WINDOW_BYTES_MAX..self.position, 0);
            self.position = WINDOW_BYTES_MAX;
            self.window.truncate(2 * WINDOW_BYTES_MAX);
            self.window.shrink_to(4 * WINDOW_BYTES_MAX);
        }
        let start = self.position;
        let end = self.feed(piece, start, bytes_max)?;
        // The tail is that of a block, and behind a final one there may be none.
        if is_last && end == FeedEnd::InBlocks {
            self.feed(&TAIL, start, bytes_max)?;
        }
        let output = Bytes::copy_from_slice(&self.window[start..self.position]);
        if is_last && !self.coding.has_takeover {
            self.decoder.init();
            self.position = 0;
        }
        Ok(output)
    }

    /// Decompresses what belongs to the piece that began at `start`.
    fn feed(&mut self, mut input: &[u8], start: usize, bytes_max: u64) -> Result<FeedEnd, FrameError> {
        const FLAGS: u32 = TINFL_FLAG_HAS_MORE_INPUT | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        loop {
            if self.window.len() < self.position + ROOM_BYTES {
                self.window.resize(self.position + 2 * ROOM_BYTES, 0);
            }
            let (status, taken, given) = decompress(&mut self.decoder, input, &mut self.window, self.position, FLAGS);
            self.position += given;
            input = &input[taken..];
            let came = (self.position - start) as u64;
            if came > bytes_max {
                return Err(FrameError::TooLong { announced: came });
            }
            match status {
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput => return Ok(FeedEnd::InBlocks),
                // A final block ends its stream and not the window (RFC 7692 section 7.2.3.4).
                TINFLStatus::Done => {
                    self.decoder.init();
                    self.has_seen_final_block = true;
                }
                _ => return Err(FrameError::Deflate),
            }
            if status == TINFLStatus::Done && input.is_empty() {
                return Ok(FeedEnd::BehindFinalBlock);
            }
        }
    }
}

/// Reads the frames of one direction, of which some are compressed.
#[derive(Debug)]
pub struct InflatedFrames {
    inflater: Inflater,
    /// The most bytes of a message.
    message_bytes_max: u64,
    /// The message that is not complete.
    message: Option<OpenMessage>,
}

/// A message that is not complete.
#[derive(Debug, Clone, Copy)]
struct OpenMessage {
    is_compressed: bool,
    /// The bytes that are left for it.
    left: u64,
}

/// A frame as its sender meant it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainFrame {
    /// The frame, with its payload decompressed and its reserved bits as they came.
    pub frame: Frame,
    /// Whether its payload came compressed.
    pub was_compressed: bool,
}

impl InflatedFrames {
    /// Begins between two messages, each of which has at most so many bytes.
    pub fn new(coding: Coding, message_bytes_max: u64) -> InflatedFrames {
        InflatedFrames { inflater: Inflater::new(coding), message_bytes_max, message: None }
    }

    /// Whether the next data frame goes on with a compressed message.
    pub fn is_inside_compressed(&self) -> bool {
        self.message.is_some_and(|message| message.is_compressed)
    }

    /// Whether a final block came in a compressed message.
    pub fn has_seen_final_block(&self) -> bool {
        self.inflater.has_seen_final_block()
    }

    /// Takes the next frame. One that breaks a rule by its header comes out as it went in.
    ///
    /// # Errors
    /// As [`Inflater::piece`].
    pub fn read(&mut self, frame: Frame) -> Result<PlainFrame, FrameError> {
        let message = match frame.opcode {
            Opcode::Text | Opcode::Binary => {
                OpenMessage { is_compressed: frame.reserved_bits == RSV1, left: self.message_bytes_max }
            }
            Opcode::Continuation => match self.message {
                Some(message) if frame.reserved_bits == 0 => message,
                _ => return Ok(PlainFrame { frame, was_compressed: false }),
            },
            Opcode::Close | Opcode::Ping | Opcode::Pong | Opcode::Reserved(_) => {
                return Ok(PlainFrame { frame, was_compressed: false });
            }
        };
        let mut message = message;
        let frame = if message.is_compressed {
            let payload = self.inflater.piece(&frame.payload, frame.is_final, message.left)?;
            message.left -= payload.len() as u64;
            Frame { payload, ..frame }
        } else {
            frame
        };
        self.message = (!frame.is_final).then_some(message);
        Ok(PlainFrame { frame, was_compressed: message.is_compressed })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Coding, DeflateParameters, Deflater, InflatedFrames, Inflater, PlainFrame, RSV1, WindowBits};
    use crate::wire::{
        frame::{Frame, FrameError, Opcode},
        head::{Headers, field},
    };

    const TAKEOVER: Coding = Coding { has_takeover: true, window_bits: 15 };
    const ALONE: Coding = Coding { has_takeover: false, window_bits: 15 };
    const MAX: u64 = 1 << 20;

    fn extensions(value: &'static str) -> Headers {
        vec![field("sec-websocket-extensions", value)]
    }

    const HELLO: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    /// Refers to the message before.
    const AGAIN: &[u8] = &[0xf2, 0x00, 0x11, 0x00, 0x00];
    const STORED: &[u8] = &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
    const FINAL: &[u8] = &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    const FINAL_ALONE: &[u8] = &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    const TWO_BLOCKS: &[u8] = &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];

    /// RFC 7692 sections 7.2.3.1 to 7.2.3.6.
    #[rstest]
    #[case::one_block(&[HELLO], "Hello")]
    #[case::shared_window(&[HELLO, AGAIN], "HelloHello")]
    #[case::no_compression(&[STORED], "Hello")]
    #[case::final_block(&[FINAL], "Hello")]
    #[case::final_block_alone(&[FINAL_ALONE, AGAIN], "HelloHello")]
    #[case::two_blocks(&[TWO_BLOCKS], "Hello")]
    #[case::empty(&[&[0x00][..]], "")]
    #[case::after_a_final_block(&[FINAL, AGAIN], "HelloHello")]
    fn the_examples_of_the_rfc_are_read(#[case] messages: &[&[u8]], #[case] expected: &str) {
        let mut inflater = Inflater::new(TAKEOVER);
        let texts = messages.iter().map(|message| inflater.piece(message, true, MAX).unwrap());
        assert_eq!(texts.collect::<Vec<_>>().concat(), expected.as_bytes());
        // The same, a byte at a time.
        let mut inflater = Inflater::new(TAKEOVER);
        let mut text = Vec::new();
        for message in messages {
            for (index, byte) in message.iter().enumerate() {
                text.extend(inflater.piece(&[*byte], index + 1 == message.len(), MAX).unwrap());
            }
        }
        assert_eq!(text, expected.as_bytes());
    }

    #[test]
    fn the_examples_of_the_rfc_are_written() {
        let mut deflater = Deflater::new(TAKEOVER);
        assert_eq!(deflater.piece(b"", true), [0].as_slice());
        let first = deflater.piece(b"Hello", true);
        let second = deflater.piece(b"Hello", true);
        assert_eq!(first, [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00].as_slice());
        assert!(second.len() < first.len(), "{second:?} refers to the first one");
    }

    /// Text that repeats itself over many distances, and text that hardly does.
    fn samples() -> Vec<Vec<u8>> {
        let mut chance = fastrand::Rng::with_seed(7);
        let mut noise = vec![0; 40_000];
        chance.fill(&mut noise);
        let words: Vec<u8> =
            (0..15_000_u32).flat_map(|number| (number * number % 977).to_string().into_bytes()).collect();
        vec![
            b"".to_vec(),
            b"a".to_vec(),
            b"hello hello hello".to_vec(),
            words.clone(),
            noise,
            words,
            vec![b'x'; 70_000],
        ]
    }

    #[rstest]
    fn what_is_written_is_read(#[values(true, false)] has_takeover: bool, #[values(8, 9, 12, 15)] window_bits: u8) {
        let coding = Coding { has_takeover, window_bits };
        let (mut deflater, mut inflater) = (Deflater::new(coding), Inflater::new(coding));
        for sample in samples() {
            for pieces in [1, 5] {
                let size = sample.len().div_ceil(pieces).max(1);
                let mut read = Vec::new();
                for piece in 0..pieces {
                    let part = &sample[(piece * size).min(sample.len())..((piece + 1) * size).min(sample.len())];
                    let written = deflater.piece(part, piece + 1 == pieces);
                    read.extend(inflater.piece(&written, piece + 1 == pieces, MAX).unwrap());
                }
                assert!(read == sample, "{coding:?}, {} bytes in {pieces}", sample.len());
            }
        }
    }

    /// Without takeover each message is readable alone, in whichever order.
    #[test]
    fn a_message_without_takeover_stands_alone() {
        let mut deflater = Deflater::new(ALONE);
        let written: Vec<_> = samples().iter().map(|sample| deflater.piece(sample, true)).collect();
        for (written, sample) in written.iter().zip(samples()).rev() {
            assert!(Inflater::new(TAKEOVER).piece(written, true, MAX).unwrap() == sample);
        }
        let again = deflater.piece(b"Hello Hello Hello", true);
        assert_eq!(deflater.piece(b"Hello Hello Hello", true), again);
    }

    #[test]
    fn no_more_comes_out_than_is_allowed() {
        let bomb = Deflater::new(ALONE).piece(&vec![0; 2 << 20], true);
        assert!(bomb.len() < 10_000);
        let read = Inflater::new(TAKEOVER).piece(&bomb, true, 1 << 20);
        assert!(
            matches!(read, Err(FrameError::TooLong { announced }) if announced <= (1 << 20) + (64 << 10)),
            "{read:?}"
        );
        assert_eq!(Inflater::new(TAKEOVER).piece(&bomb, true, 2 << 20).map(|bytes| bytes.len()), Ok(2 << 20));
    }

    #[rstest]
    #[case::reserved_block(&[0x07])]
    #[case::length_check(&[0x00, 0x05, 0x00, 0x05, 0x00])]
    #[case::noise(&[0xff, 0xff, 0xff, 0xff])]
    #[case::distance_before_the_start(&[0xf2, 0x00, 0x11, 0x00, 0x00])]
    fn what_is_no_deflate_is_refused(#[case] payload: &[u8]) {
        assert_eq!(Inflater::new(TAKEOVER).piece(payload, true, MAX), Err(FrameError::Deflate));
    }

    /// RSV1 stands in the first frame of a message, and control frames come in between.
    #[test]
    fn frames_of_compressed_messages_are_read() {
        let mut frames = InflatedFrames::new(TAKEOVER, 8);
        let mut read = |is_final, reserved_bits, opcode, payload: &'static [u8]| {
            let frame = Frame { is_final, reserved_bits, ..Frame::new(opcode, payload) };
            frames.read(frame).map(|PlainFrame { frame, was_compressed }| (frame.payload.to_vec(), was_compressed))
        };
        assert_eq!(read(false, RSV1, Opcode::Text, &[0xf2, 0x48, 0xcd]), Ok((b"He".to_vec(), true)));
        assert_eq!(read(true, 0, Opcode::Ping, b"ping"), Ok((b"ping".to_vec(), false)));
        assert_eq!(read(true, 0, Opcode::Continuation, &[0xc9, 0xc9, 0x07, 0x00]), Ok((b"llo".to_vec(), true)));
        assert_eq!(read(true, 0, Opcode::Text, b"plain"), Ok((b"plain".to_vec(), false)));
        assert_eq!(read(true, RSV1, Opcode::Text, &[0xf2, 0x00, 0x11, 0x00, 0x00]), Ok((b"Hello".to_vec(), true)));
        // Eight bytes are allowed in one message, in however many frames.
        assert_eq!(
            read(false, RSV1, Opcode::Text, &[0xf2, 0x00, 0x11, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff]).unwrap().0,
            b"Hello"
        );
        let more = read(true, 0, Opcode::Continuation, &[0xf2, 0x00, 0x11, 0x00, 0x00]);
        assert_eq!(more, Err(FrameError::TooLong { announced: 5 }));
    }

    #[rstest]
    #[case("permessage-deflate", Ok(Some(DeflateParameters::default())))]
    #[case("PerMessage-Deflate ; client_max_window_bits", Ok(Some(DeflateParameters { client_max_window_bits: WindowBits::Open, ..DeflateParameters::default() })))]
    #[case("permessage-deflate; server_max_window_bits=\"10\"; server_no_context_takeover", Ok(Some(DeflateParameters { server_no_context_takeover: true, server_max_window_bits: WindowBits::AtMost(10), ..DeflateParameters::default() })))]
    #[case("x-webkit-deflate-frame", Ok(None))]
    #[case("permessage-deflate; server_max_window_bits", Err("has no value"))]
    #[case("permessage-deflate; server_max_window_bits=7", Err("8 to 15 bits"))]
    #[case("permessage-deflate; client_max_window_bits=010", Err("8 to 15 bits"))]
    #[case("permessage-deflate; client_no_context_takeover=1", Err("no value is allowed"))]
    #[case("permessage-deflate; client_no_context_takeover; client_no_context_takeover", Err("twice"))]
    #[case("permessage-deflate; mux", Err("is no parameter"))]
    fn an_offer_is_read(#[case] element: &str, #[case] expected: Result<Option<DeflateParameters>, &str>) {
        match (DeflateParameters::read(element), expected) {
            (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
            (read, expected) => assert_eq!(read, expected.map_err(str::to_owned)),
        }
    }

    #[rstest]
    #[case::plain("permessage-deflate", "permessage-deflate", true)]
    #[case::declined("permessage-deflate", "", true)]
    #[case::not_offered("", "permessage-deflate", false)]
    #[case::another("permessage-deflate", "mux", false)]
    #[case::two("permessage-deflate", "permessage-deflate, permessage-deflate", false)]
    #[case::own_limit(
        "permessage-deflate",
        "permessage-deflate; server_max_window_bits=12; server_no_context_takeover",
        true
    )]
    #[case::wish("permessage-deflate", "permessage-deflate; client_no_context_takeover", true)]
    #[case::limit("permessage-deflate; client_max_window_bits", "permessage-deflate; client_max_window_bits=12", true)]
    #[case::limit_not_offered("permessage-deflate", "permessage-deflate; client_max_window_bits=12", false)]
    #[case::limit_without_value(
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits",
        false
    )]
    #[case::larger_window(
        "permessage-deflate; server_max_window_bits=10",
        "permessage-deflate; server_max_window_bits=11",
        false
    )]
    #[case::forgotten("permessage-deflate; server_no_context_takeover", "permessage-deflate", false)]
    #[case::fallback("permessage-deflate; server_max_window_bits=10, permessage-deflate", "permessage-deflate", true)]
    fn a_client_accepts_answers_to_its_offers(
        #[case] offered: &'static str,
        #[case] selected: &'static str,
        #[case] is_accepted: bool,
    ) {
        let agreed = DeflateParameters::agreed(&extensions(offered), &extensions(selected));
        assert_eq!(agreed.is_ok(), is_accepted, "{agreed:?}");
        assert_eq!(
            agreed.ok().flatten().map(|agreed| agreed.to_string()).unwrap_or_default(),
            if is_accepted { selected_text(selected) } else { "" }
        );
    }

    /// Parameters are written in a fixed order.
    fn selected_text(selected: &str) -> &str {
        match selected {
            "permessage-deflate; server_max_window_bits=12; server_no_context_takeover" => {
                "permessage-deflate; server_no_context_takeover; server_max_window_bits=12"
            }
            other => other,
        }
    }
}
