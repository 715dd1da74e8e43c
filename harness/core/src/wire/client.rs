//! The client's side of a WebSocket, without I/O.

use bytes::BytesMut;

use super::{
    assembly::{Assembly, TextCheck},
    deflate::{DeflateParameters, Deflater, InflatedFrames, RSV1},
    frame::{Frame, FrameError, Opcode},
};

/// The frames of one connection at its client: reads and assembles them, masks, and knows the answers that a client owes.
///
/// The caller decides which of them it gives, so that it can break a rule.
#[derive(Debug)]
pub struct WebSocketClient {
    assembly: Assembly,
    masks: fastrand::Rng,
    payload_bytes_max: u64,
    /// Compresses what is written, and decompresses what is read, where both sides agreed on it.
    deflate: Option<Box<(Deflater, InflatedFrames)>>,
    /// Whether a close frame is written.
    has_closed: bool,
}

impl WebSocketClient {
    /// The largest payload of a frame or message that a client reads by default, in bytes.
    pub const PAYLOAD_BYTES_MAX: u64 = 16 << 20;

    /// An open connection. `masks` gives the masking keys.
    pub fn new(masks: fastrand::Rng) -> WebSocketClient {
        WebSocketClient::limited(masks, WebSocketClient::PAYLOAD_BYTES_MAX)
    }

    /// The same, with another limit of a frame and a message, in bytes.
    pub fn limited(masks: fastrand::Rng, payload_bytes_max: u64) -> WebSocketClient {
        let assembly = Assembly::new(payload_bytes_max, TextCheck::WhenWhole);
        WebSocketClient { assembly, masks, payload_bytes_max, deflate: None, has_closed: false }
    }

    /// The same, with what both sides agreed on about compression.
    #[must_use]
    pub fn agreed(self, parameters: Option<DeflateParameters>) -> WebSocketClient {
        let deflate = parameters.map(|parameters| {
            let reading = InflatedFrames::new(parameters.of_server(), self.payload_bytes_max);
            Box::new((Deflater::new(parameters.of_client()), reading))
        });
        WebSocketClient { deflate, ..self }
    }

    /// Takes the next frame as it came, but for a payload that came compressed: that one is decompressed, and RSV1 tells;
    /// `None` while more bytes are needed.
    ///
    /// # Errors
    /// As [`Frame::decode`] and [`InflatedFrames::read`].
    pub fn read(&mut self, incoming: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(frame) = Frame::decode(incoming, self.payload_bytes_max)? else { return Ok(None) };
        match &mut self.deflate {
            Some(deflate) => Ok(Some(deflate.1.read(frame)?.frame)),
            None => Ok(Some(frame)),
        }
    }

    /// Checks a frame and puts messages together: a control frame or a whole message comes out.
    ///
    /// # Errors
    /// As [`Assembly::take`].
    pub fn assemble(&mut self, mut frame: Frame) -> Result<Option<Frame>, FrameError> {
        if self.deflate.is_some() && frame.is_message() {
            frame.reserved_bits &= !RSV1;
        }
        self.assembly.take(frame)
    }

    /// The frame that answers this one: a pong to a ping (RFC 6455 section 5.5.2), and a close with the same code to the
    /// first close of the server, where the client has not closed (section 5.5.1).
    pub fn answer(&self, frame: &Frame) -> Option<Frame> {
        match frame.opcode {
            Opcode::Ping => Some(Frame::new(Opcode::Pong, frame.payload.clone())),
            Opcode::Close if !self.has_closed => Some(Frame::close(frame.close_code(), "")),
            Opcode::Close
            | Opcode::Pong
            | Opcode::Text
            | Opcode::Binary
            | Opcode::Continuation
            | Opcode::Reserved(_) => None,
        }
    }

    /// Masks a frame and appends its bytes to `outgoing`; the frame as it goes out. The payload of a whole message goes out
    /// compressed where both sides agreed on that, and RSV1 tells.
    pub fn write(&mut self, frame: Frame, outgoing: &mut Vec<u8>) -> Frame {
        self.has_closed |= frame.is_close();
        let frame = frame.masked(self.masks.u32(..).to_be_bytes());
        match &mut self.deflate {
            Some(deflate) if frame.is_message() && frame.is_final => {
                let frame = Frame { reserved_bits: frame.reserved_bits | RSV1, ..frame };
                Frame { payload: deflate.0.piece(&frame.payload, true), ..frame.clone() }.encode(outgoing);
                frame
            }
            _ => {
                frame.encode(outgoing);
                frame
            }
        }
    }

    /// Whether the client's close frame is written.
    pub fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// The caller writes a close frame itself: a close of the server is not answered.
    pub fn leave_close_to_caller(&mut self) {
        self.has_closed = true;
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::WebSocketClient;
    use crate::wire::{
        close_code::CloseCode,
        deflate::{DeflateParameters, RSV1},
        frame::{Frame, FrameError, Opcode},
    };

    fn client() -> WebSocketClient {
        WebSocketClient::new(fastrand::Rng::with_seed(1))
    }

    #[test]
    fn a_client_answers_pings_and_the_first_close() {
        let mut client = client();
        let ping = Frame::new(Opcode::Ping, "x");
        assert_eq!(client.answer(&ping), Some(Frame::new(Opcode::Pong, "x")));
        assert_eq!(client.answer(&Frame::new(Opcode::Text, "x")), None);
        let close = Frame::close(Some(CloseCode(4001)), "bye");
        let answer = client.answer(&close).unwrap();
        assert_eq!(answer, Frame::close(Some(CloseCode(4001)), ""));
        client.write(answer, &mut Vec::new());
        assert!(client.has_closed());
        assert_eq!(client.answer(&close), None);
        assert_eq!(client.answer(&ping), Some(Frame::new(Opcode::Pong, "x")));
    }

    #[test]
    fn a_client_masks_every_frame_with_another_key() {
        let (mut client, mut bytes) = (client(), Vec::new());
        let sent: Vec<Frame> = (0..2).map(|_| client.write(Frame::new(Opcode::Text, "hello"), &mut bytes)).collect();
        assert!(sent[0].mask.is_some() && sent[0].mask != sent[1].mask, "{sent:?}");
        let mut incoming = BytesMut::from(&bytes[..]);
        for frame in sent {
            assert_eq!(client.read(&mut incoming), Ok(Some(frame)));
        }
        assert_eq!(client.read(&mut incoming), Ok(None));
    }

    #[test]
    fn a_client_has_a_limit() {
        let mut client = WebSocketClient::limited(fastrand::Rng::with_seed(1), 4);
        let mut bytes = Vec::new();
        Frame::new(Opcode::Text, "hello").encode(&mut bytes);
        let read = client.read(&mut BytesMut::from(&bytes[..]));
        assert_eq!(read, Err(FrameError::TooLong { announced: 5 }));
    }

    /// A client that compresses, and the frames of a server that does.
    fn compressing() -> (WebSocketClient, impl FnMut(bool, u8, Opcode, &'static [u8]) -> BytesMut) {
        let encode = |is_final, reserved_bits, opcode, payload: &'static [u8]| {
            let mut bytes = Vec::new();
            Frame { is_final, reserved_bits, ..Frame::new(opcode, payload) }.encode(&mut bytes);
            BytesMut::from(&bytes[..])
        };
        (client().agreed(Some(DeflateParameters::default())), encode)
    }

    #[test]
    fn a_client_reads_compressed_messages() {
        let (mut client, mut encode) = compressing();
        let mut assembled = |mut bytes: BytesMut| {
            let frame = client.read(&mut bytes).transpose().unwrap();
            frame.and_then(|frame| client.assemble(frame)).map(|whole| whole.map(|frame| frame.payload))
        };
        let hello = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(assembled(encode(true, RSV1, Opcode::Text, hello)), Ok(Some("Hello".into())));
        assert_eq!(assembled(encode(true, 0, Opcode::Text, b"plain")), Ok(Some("plain".into())));
        assert_eq!(assembled(encode(false, RSV1, Opcode::Text, &[0xf2, 0x00])), Ok(None));
        assert_eq!(assembled(encode(true, 0, Opcode::Continuation, &[0x11, 0x00, 0x00])), Ok(Some("Hello".into())));
        // RSV1 has no meaning elsewhere (RFC 7692 section 6).
        assert_eq!(assembled(encode(true, RSV1, Opcode::Ping, b"x")), Err(FrameError::Reserved));
        assert_eq!(assembled(encode(false, RSV1, Opcode::Text, &[0xf2, 0x00])), Ok(None));
        assert_eq!(assembled(encode(true, RSV1, Opcode::Continuation, &[0x11])), Err(FrameError::Reserved));
    }

    #[test]
    fn a_client_refuses_compression_that_nobody_agreed_on() {
        let (_, mut encode) = compressing();
        let mut client = client();
        let frame = client.read(&mut encode(true, RSV1, Opcode::Text, &[0x00])).unwrap().unwrap();
        assert_eq!(client.assemble(frame), Err(FrameError::Reserved));
    }

    #[test]
    fn a_client_compresses_its_messages() {
        let (mut client, _) = compressing();
        let mut bytes = Vec::new();
        let sent = client.write(Frame::new(Opcode::Text, "Hello"), &mut bytes);
        assert_eq!((sent.payload.as_ref(), sent.reserved_bits), (&b"Hello"[..], RSV1));
        let frame = Frame::decode(&mut BytesMut::from(&bytes[..]), 100).unwrap().unwrap();
        assert_eq!(
            (frame.payload.as_ref(), frame.reserved_bits),
            (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..], RSV1)
        );
        assert_eq!(client.write(Frame::new(Opcode::Ping, "x"), &mut bytes).reserved_bits, 0);
    }
}
