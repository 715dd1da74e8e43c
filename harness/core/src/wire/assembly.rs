//! Messages of a WebSocket, put together from their frames.

use serde::{Deserialize, Serialize};

use super::frame::{Frame, FrameError, Opcode};

/// Puts the frames of one direction together (RFC 6455 section 5.4).
#[derive(Debug)]
pub struct Assembly {
    /// The most bytes of a message.
    message_bytes_max: u64,
    text: TextCheck,
    /// The message that is not complete.
    message: Option<PartialMessage>,
}

/// When text that is not UTF-8 is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextCheck {
    /// With the fragment that it stands in.
    AtOnce,
    /// When the message is whole.
    WhenWhole,
}

/// A message that is not complete.
#[derive(Debug)]
struct PartialMessage {
    opcode: Opcode,
    payload: Vec<u8>,
    /// How many bytes of it are known to be whole characters.
    checked: usize,
}

impl Assembly {
    /// Begins with no message. A message has at most so many bytes.
    pub fn new(message_bytes_max: u64, text: TextCheck) -> Assembly {
        Assembly { message_bytes_max, text, message: None }
    }

    /// Whether the next frame goes on with a message.
    pub fn is_inside_message(&self) -> bool {
        self.message.is_some()
    }

    /// Takes a frame of a server as a client must: a control frame or a whole message comes out, a piece of a message is
    /// kept.
    ///
    /// # Errors
    /// Says which rule it breaks; [`FrameError::TooLong`] when the message would be longer than the limit.
    pub fn take(&mut self, frame: Frame) -> Result<Option<Frame>, FrameError> {
        frame.verify()?;
        if frame.mask.is_some() {
            return Err(FrameError::Masked);
        }
        if frame.opcode.is_control() {
            return Ok(Some(frame));
        }
        let Some(whole) = self.take_data(frame)? else { return Ok(None) };
        if whole.opcode == Opcode::Text && std::str::from_utf8(&whole.payload).is_err() {
            return Err(FrameError::Utf8);
        }
        Ok(Some(whole))
    }

    /// Takes a data frame: a whole message comes out, a piece is kept. Leaves the check of a whole text to the reader,
    /// which may need it as a `String` anyway. A message of one frame is not copied.
    ///
    /// # Errors
    /// [`FrameError::Fragment`] for a piece in the wrong place, [`FrameError::TooLong`] when the message would be longer
    /// than the limit, and [`FrameError::Utf8`] when a piece is checked at once and is no text.
    pub fn take_data(&mut self, frame: Frame) -> Result<Option<Frame>, FrameError> {
        let mut message = match (frame.opcode, self.message.take()) {
            (Opcode::Continuation, Some(message)) => message,
            (Opcode::Continuation, None) | (_, Some(_)) => return Err(FrameError::Fragment),
            (_, None) if frame.is_final => return Ok(Some(frame)),
            (opcode, None) => PartialMessage { opcode, payload: Vec::new(), checked: 0 },
        };
        let announced = (message.payload.len() + frame.payload.len()) as u64;
        if announced > self.message_bytes_max {
            return Err(FrameError::TooLong { announced });
        }
        message.payload.extend_from_slice(&frame.payload);
        if frame.is_final {
            return Ok(Some(Frame::new(message.opcode, message.payload)));
        }
        if self.text == TextCheck::AtOnce && !message.may_become_text() {
            return Err(FrameError::Utf8);
        }
        self.message = Some(message);
        Ok(None)
    }
}

impl PartialMessage {
    /// Whether it is binary, or the part that has come is UTF-8 up to a character that may be cut.
    fn may_become_text(&mut self) -> bool {
        if self.opcode != Opcode::Text {
            return true;
        }
        match std::str::from_utf8(&self.payload[self.checked..]) {
            Ok(_) => self.checked = self.payload.len(),
            Err(error) if error.error_len().is_some() => return false,
            Err(error) => self.checked += error.valid_up_to(),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Assembly, TextCheck};
    use crate::wire::frame::{Frame, FrameError, Opcode};

    /// The most bytes of a message here.
    const MAX: u64 = 8;

    /// A frame as a short word: `t` text, `b` binary, `c` continuation, `p` ping; a capital letter is final.
    fn frame(word: &str) -> Frame {
        let (kind, payload) = word.split_at(1);
        let opcode = match kind.to_ascii_lowercase().as_str() {
            "t" => Opcode::Text,
            "b" => Opcode::Binary,
            "c" => Opcode::Continuation,
            _ => Opcode::Ping,
        };
        let is_final = kind.chars().all(char::is_uppercase);
        Frame { is_final, ..Frame::new(opcode, payload.to_owned()) }
    }

    #[rstest]
    #[case::whole(&["Tone", "Btwo"], &[Ok("one"), Ok("two")])]
    #[case::pieces(&["tone", "ctwo", "C!"], &[Ok("onetwo!")])]
    #[case::control_between(&["tone", "Pping", "Ctwo"], &[Ok("ping"), Ok("onetwo")])]
    #[case::no_beginning(&["Cone"], &[Err(FrameError::Fragment)])]
    #[case::two_beginnings(&["tone", "Ttwo"], &[Err(FrameError::Fragment)])]
    #[case::as_long_as_may_be(&["b1234", "C5678"], &[Ok("12345678")])]
    #[case::too_long(&["b1234", "C56789"], &[Err(FrameError::TooLong { announced: 9 })])]
    fn frames_become_messages(#[case] frames: &[&str], #[case] expected: &[Result<&str, FrameError>]) {
        let mut assembly = Assembly::new(MAX, TextCheck::WhenWhole);
        let taken = frames.iter().filter_map(|word| assembly.take(frame(word)).transpose());
        let payloads: Vec<Result<Vec<u8>, FrameError>> =
            taken.map(|frame| frame.map(|frame| frame.payload.to_vec())).collect();
        let expected: Vec<Result<Vec<u8>, FrameError>> =
            expected.iter().map(|payload| payload.map(|text| text.as_bytes().to_vec())).collect();
        assert_eq!(payloads, expected);
        assert!(!assembly.is_inside_message());
    }

    #[test]
    fn a_server_masks_nothing() {
        let mut assembly = Assembly::new(MAX, TextCheck::WhenWhole);
        assert_eq!(assembly.take(frame("Tone").masked([0; 4])), Err(FrameError::Masked));
        assert!(assembly.take_data(frame("Tone").masked([0; 4])).is_ok());
    }

    /// A character may be cut between two pieces; a byte that no character has is noticed at once, or at the end.
    #[rstest]
    #[case::cut_character(&[0xc3], &[0xa4], TextCheck::AtOnce, Ok(()), Ok(()))]
    #[case::at_once(&[0xff], b"x", TextCheck::AtOnce, Err(FrameError::Utf8), Err(FrameError::Fragment))]
    #[case::when_whole(&[0xff], b"x", TextCheck::WhenWhole, Ok(()), Err(FrameError::Utf8))]
    #[case::never_whole(&[0xc3], b"x", TextCheck::AtOnce, Ok(()), Err(FrameError::Utf8))]
    fn text_is_checked(
        #[case] first: &'static [u8],
        #[case] second: &'static [u8],
        #[case] check: TextCheck,
        #[case] after_first: Result<(), FrameError>,
        #[case] after_second: Result<(), FrameError>,
    ) {
        let mut assembly = Assembly::new(MAX, check);
        let first = Frame { is_final: false, ..Frame::new(Opcode::Text, first) };
        assert_eq!(assembly.take(first).map(drop), after_first);
        assert_eq!(assembly.take(Frame::new(Opcode::Continuation, second)).map(drop), after_second);
    }
}
