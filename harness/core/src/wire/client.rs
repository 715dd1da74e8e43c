//! The client's side of a WebSocket, without I/O.

use bytes::BytesMut;

use super::{
    assembly::{Assembly, TextCheck},
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
        WebSocketClient { assembly, masks, payload_bytes_max, has_closed: false }
    }

    /// Takes the next frame as it came; `None` while more bytes are needed.
    ///
    /// # Errors
    /// As [`Frame::decode`].
    pub fn read(&self, incoming: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        Frame::decode(incoming, self.payload_bytes_max)
    }

    /// Checks a frame and puts messages together: a control frame or a whole message comes out.
    ///
    /// # Errors
    /// As [`Assembly::take`].
    pub fn assemble(&mut self, frame: Frame) -> Result<Option<Frame>, FrameError> {
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

    /// Masks a frame and appends its bytes to `outgoing`; the frame as it goes out.
    pub fn write(&mut self, frame: Frame, outgoing: &mut Vec<u8>) -> Frame {
        self.has_closed |= frame.is_close();
        let frame = frame.masked(self.masks.u32(..).to_be_bytes());
        frame.encode(outgoing);
        frame
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
        let client = WebSocketClient::limited(fastrand::Rng::with_seed(1), 4);
        let mut bytes = Vec::new();
        Frame::new(Opcode::Text, "hello").encode(&mut bytes);
        let read = client.read(&mut BytesMut::from(&bytes[..]));
        assert_eq!(read, Err(FrameError::TooLong { announced: 5 }));
    }
}
