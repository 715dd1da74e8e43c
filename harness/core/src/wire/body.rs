//! The body of an HTTP/1.1 message: where it ends, and what of it is payload (RFC 9112 section 6.3).

use super::head::{Headers, RequestHead, ResponseHead, has_token};

/// The longest line with a chunk's size, or with a field of a trailer, in bytes.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// The longest trailer section, in bytes.
const TRAILER_BYTES_MAX: usize = 64 * 1024;

/// The delimitation of a body that its head announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no body, whatever the head says: the answer to a HEAD, or one with status 204 or 304.
    Absent,
    /// The number of bytes.
    Length(u64),
    /// Chunks, and a trailer section.
    Chunked,
    /// Everything until the stream ends.
    UntilEnd,
    /// A length that is no number, or more than one length.
    Unreadable,
}

/// The request that an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnsweredMethod {
    /// A HEAD, whose answer has no body.
    Head,
    /// Another one.
    Other,
}

impl AnsweredMethod {
    /// The kind of this method.
    pub fn of(method: &str) -> AnsweredMethod {
        if method == "HEAD" { AnsweredMethod::Head } else { AnsweredMethod::Other }
    }
}

impl BodyFraming {
    /// The framing of a request's body. Without any there is none.
    pub fn of_request(head: &RequestHead) -> BodyFraming {
        BodyFraming::announced(&head.headers).unwrap_or(BodyFraming::Length(0))
    }

    /// The framing of an answer's body. Without any it is over with the stream.
    pub fn of_answer(head: &ResponseHead, method: AnsweredMethod) -> BodyFraming {
        if method == AnsweredMethod::Head || matches!(head.status, 204 | 304) {
            return BodyFraming::Absent;
        }
        BodyFraming::announced(&head.headers).unwrap_or(BodyFraming::UntilEnd)
    }

    fn announced(headers: &Headers) -> Option<BodyFraming> {
        if has_token(headers, "transfer-encoding", "chunked") {
            return Some(BodyFraming::Chunked);
        }
        let mut lengths = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"content-length"));
        let length = parse_length(&lengths.next()?.1).filter(|_| lengths.next().is_none());
        Some(length.map_or(BodyFraming::Unreadable, BodyFraming::Length))
    }
}

/// The value of a `Content-Length`: digits alone (RFC 9110 section 8.6).
pub fn parse_length(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

/// Writes a chunk; an empty piece writes none, because that would be the last one.
pub fn write_chunk(piece: &[u8], output: &mut Vec<u8>) {
    if !piece.is_empty() {
        output.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        output.extend_from_slice(piece);
        output.extend_from_slice(b"\r\n");
    }
}

/// The last chunk, without a trailer section.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Follows one body through the bytes of its connection. It copies nothing: the caller takes the bytes that a
/// [`BodyStep`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyDecoder {
    state: DecoderState,
    /// The largest chunk, in bytes.
    chunk_bytes_max: u64,
}

/// The part of a body that is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DecoderState {
    /// The number of bytes that are left.
    Bytes(u64),
    /// The line with a chunk's size comes next.
    Size,
    /// The number of bytes that are left of a chunk.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    /// Trailer fields and the empty line behind them; the number of bytes that were taken of them.
    Trailers(usize),
    UntilEnd,
    Over,
    Malformed,
}

/// The next part of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyStep {
    /// So many bytes at the front of the input are payload, and at least one. They are to be taken.
    Payload(usize),
    /// So many bytes at the front of the input delimit the body. They are to be taken.
    Framing(usize),
    /// More bytes are needed, or the end of the stream.
    More,
    /// The body is over. Whatever the input has belongs to something else.
    Over,
    /// The body cannot be read.
    Malformed,
}

impl BodyDecoder {
    /// Begins with the first byte behind the head. A larger chunk is malformed.
    pub fn new(framing: BodyFraming, chunk_bytes_max: u64) -> BodyDecoder {
        let state = match framing {
            BodyFraming::Absent => DecoderState::Over,
            BodyFraming::Length(length) => DecoderState::Bytes(length),
            BodyFraming::Chunked => DecoderState::Size,
            BodyFraming::UntilEnd => DecoderState::UntilEnd,
            BodyFraming::Unreadable => DecoderState::Malformed,
        };
        BodyDecoder { state, chunk_bytes_max }
    }

    /// The next part at the front of `input`. The caller takes it before it asks again.
    pub fn step(&mut self, input: &[u8]) -> BodyStep {
        match self.state {
            DecoderState::Over | DecoderState::Bytes(0) => BodyStep::Over,
            DecoderState::Malformed => BodyStep::Malformed,
            _ if input.is_empty() => BodyStep::More,
            DecoderState::UntilEnd => BodyStep::Payload(input.len()),
            DecoderState::Bytes(left) => self.payload(input, left, DecoderState::Bytes),
            DecoderState::Chunk(left) => self.payload(input, left, |left| match left {
                0 => DecoderState::ChunkEnd,
                left => DecoderState::Chunk(left),
            }),
            DecoderState::ChunkEnd => match input {
                [b'\r', b'\n', ..] => self.framing(2, DecoderState::Size),
                [_] => BodyStep::More,
                _ => self.fail(),
            },
            DecoderState::Size => self.size(input),
            DecoderState::Trailers(taken) => self.trailer(input, taken),
        }
    }

    /// Whether a part of a chunk is still to come.
    pub fn is_within_chunk(&self) -> bool {
        matches!(self.state, DecoderState::Chunk(_))
    }

    fn payload(&mut self, input: &[u8], left: u64, then: impl Fn(u64) -> DecoderState) -> BodyStep {
        let count = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.state = then(left - count as u64);
        BodyStep::Payload(count)
    }

    fn framing(&mut self, count: usize, then: DecoderState) -> BodyStep {
        self.state = then;
        BodyStep::Framing(count)
    }

    fn fail(&mut self) -> BodyStep {
        self.state = DecoderState::Malformed;
        BodyStep::Malformed
    }

    /// The line with a chunk's size, which begins with a digit (RFC 9112 section 7.1).
    fn size(&mut self, input: &[u8]) -> BodyStep {
        if !input[0].is_ascii_hexdigit() {
            return self.fail();
        }
        match httparse::parse_chunk_size(input) {
            Ok(httparse::Status::Complete((line, _))) if line > LINE_BYTES_MAX => self.fail(),
            Ok(httparse::Status::Complete((line, 0))) => self.framing(line, DecoderState::Trailers(0)),
            Ok(httparse::Status::Complete((line, size))) if size <= self.chunk_bytes_max => {
                self.framing(line, DecoderState::Chunk(size))
            }
            Ok(httparse::Status::Partial) if input.len() <= LINE_BYTES_MAX => BodyStep::More,
            Ok(httparse::Status::Complete(_) | httparse::Status::Partial) | Err(_) => self.fail(),
        }
    }

    /// The next line of the trailer section (RFC 9112 section 7.1.2).
    fn trailer(&mut self, input: &[u8], taken: usize) -> BodyStep {
        match memchr::memmem::find(input, b"\r\n") {
            Some(0) => self.framing(2, DecoderState::Over),
            Some(line)
                if input[..line].contains(&b':') && line + 2 <= LINE_BYTES_MAX && taken + line <= TRAILER_BYTES_MAX =>
            {
                self.framing(line + 2, DecoderState::Trailers(taken + line + 2))
            }
            // A line that begins with CR and is not empty cannot become a field.
            None if input.len() <= LINE_BYTES_MAX && (input.len() < 2 || input[0] != b'\r') => BodyStep::More,
            Some(_) | None => self.fail(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{AnsweredMethod, BodyDecoder, BodyFraming, BodyStep, LAST_CHUNK, LINE_BYTES_MAX, write_chunk};
    use crate::wire::head::{ResponseHead, field};

    /// The largest chunk here, in bytes.
    const CHUNK_MAX: u64 = 5;

    /// Reads all of a text that comes in pieces: the payload, the bytes that are left, and the last step.
    fn read(framing: BodyFraming, text: &str, piece: usize) -> (String, String, BodyStep) {
        let (mut decoder, mut input, mut payload) = (BodyDecoder::new(framing, CHUNK_MAX), Vec::new(), Vec::new());
        let mut pieces = text.as_bytes().chunks(piece);
        loop {
            match decoder.step(&input) {
                BodyStep::Payload(count) => payload.extend(input.drain(..count)),
                BodyStep::Framing(count) => drop(input.drain(..count)),
                BodyStep::More => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => break,
                },
                BodyStep::Over | BodyStep::Malformed => break,
            }
        }
        let last = decoder.step(&input);
        input.extend(pieces.flatten());
        (String::from_utf8(payload).unwrap(), String::from_utf8(input).unwrap(), last)
    }

    /// However a body is cut into pieces, it ends at the same byte, and has the same payload.
    #[rstest]
    #[case::absent(BodyFraming::Absent, "NEXT", "", "NEXT", BodyStep::Over)]
    #[case::nothing(BodyFraming::Length(0), "NEXT", "", "NEXT", BodyStep::Over)]
    #[case::length(BodyFraming::Length(5), "12345NEXT", "12345", "NEXT", BodyStep::Over)]
    #[case::cut(BodyFraming::Length(5), "123", "123", "", BodyStep::More)]
    #[case::chunks(BodyFraming::Chunked, "3\r\nabc\r\n2;x=1\r\nde\r\n0\r\n\r\nNEXT", "abcde", "NEXT", BodyStep::Over)]
    #[case::trailer(BodyFraming::Chunked, "1\r\na\r\n0\r\nA: 1\r\nB: 2\r\n\r\nNEXT", "a", "NEXT", BodyStep::Over)]
    #[case::no_trailer_end(BodyFraming::Chunked, "1\r\na\r\n0\r\nA: 1\r\n", "a", "", BodyStep::More)]
    #[case::no_field(
        BodyFraming::Chunked,
        "1\r\na\r\n0\r\nno field\r\n\r\n",
        "a",
        "no field\r\n\r\n",
        BodyStep::Malformed
    )]
    #[case::no_line_end(BodyFraming::Chunked, "0\r\n\rx", "", "\rx", BodyStep::Malformed)]
    #[case::cut_chunk(BodyFraming::Chunked, "3\r\nab", "ab", "", BodyStep::More)]
    #[case::no_chunk_end(BodyFraming::Chunked, "3\r\nabcde", "abc", "de", BodyStep::Malformed)]
    #[case::no_size(BodyFraming::Chunked, "zz\r\n", "", "zz\r\n", BodyStep::Malformed)]
    #[case::no_digit(BodyFraming::Chunked, "\r\n\r\n", "", "\r\n\r\n", BodyStep::Malformed)]
    #[case::extension_alone(BodyFraming::Chunked, ";x\r\n\r\n", "", ";x\r\n\r\n", BodyStep::Malformed)]
    #[case::largest(BodyFraming::Chunked, "5\r\nabcde\r\n0\r\n\r\nNEXT", "abcde", "NEXT", BodyStep::Over)]
    #[case::large(BodyFraming::Chunked, "6\r\nabcdef\r\n", "", "6\r\nabcdef\r\n", BodyStep::Malformed)]
    #[case::until_end(BodyFraming::UntilEnd, "anything", "anything", "", BodyStep::More)]
    #[case::unreadable(BodyFraming::Unreadable, "anything", "", "anything", BodyStep::Malformed)]
    fn a_body_ends(
        #[case] framing: BodyFraming,
        #[case] text: &str,
        #[case] payload: &str,
        #[case] left: &str,
        #[case] last: BodyStep,
    ) {
        for piece in 1..=text.len() {
            let expected = (payload.to_owned(), left.to_owned(), last);
            assert_eq!(read(framing, text, piece), expected, "{text:?} in pieces of {piece}");
        }
    }

    #[rstest]
    #[case::nothing(&[], BodyFraming::UntilEnd)]
    #[case::length(&[("content-length", " 5 ")], BodyFraming::Length(5))]
    #[case::two_lengths(&[("content-length", "5"), ("content-length", "5")], BodyFraming::Unreadable)]
    #[case::no_length(&[("content-length", "x")], BodyFraming::Unreadable)]
    #[case::signed(&[("content-length", "+5")], BodyFraming::Unreadable)]
    #[case::empty(&[("content-length", "")], BodyFraming::Unreadable)]
    #[case::both(&[("content-length", "5"), ("transfer-encoding", "Chunked")], BodyFraming::Chunked)]
    fn a_head_announces_its_body(#[case] headers: &[(&'static str, &'static str)], #[case] expected: BodyFraming) {
        let headers = headers.iter().map(|(name, value)| field(name, *value)).collect();
        let head = ResponseHead { status: 200, headers };
        assert_eq!(BodyFraming::of_answer(&head, AnsweredMethod::of("GET")), expected);
        assert_eq!(BodyFraming::of_answer(&head, AnsweredMethod::of("HEAD")), BodyFraming::Absent);
        assert_eq!(
            BodyFraming::of_answer(&ResponseHead { status: 304, ..head }, AnsweredMethod::Other),
            BodyFraming::Absent
        );
    }

    /// A line has the same limit whether it comes at once or in pieces.
    #[rstest]
    #[case::longest_size(LINE_BYTES_MAX, "1;{}\r\na\r\n0\r\n\r\n", BodyStep::Over)]
    #[case::size(LINE_BYTES_MAX + 1, "1;{}\r\na\r\n0\r\n\r\n", BodyStep::Malformed)]
    #[case::longest_trailer(LINE_BYTES_MAX, "0\r\n:{}\r\n\r\n", BodyStep::Over)]
    #[case::trailer(LINE_BYTES_MAX + 1, "0\r\n:{}\r\n\r\n", BodyStep::Malformed)]
    fn a_line_has_a_limit(#[case] bytes: usize, #[case] text: &str, #[case] last: BodyStep) {
        // The line, with its end, has this many bytes.
        let begins = text.rfind("{}").map_or(0, |at| at - text[..at].rfind('\n').map_or(0, |end| end + 1));
        let text = text.replace("{}", &"x".repeat(bytes - begins - 2));
        for piece in [1, LINE_BYTES_MAX, text.len()] {
            assert_eq!(read(BodyFraming::Chunked, &text, piece).2, last, "in pieces of {piece}");
        }
    }

    #[test]
    fn chunks_are_read_as_they_are_written() {
        let mut written = Vec::new();
        ["ab", "", "cde"].iter().for_each(|piece| write_chunk(piece.as_bytes(), &mut written));
        written.extend_from_slice(LAST_CHUNK);
        let text = String::from_utf8(written).unwrap();
        assert_eq!(read(BodyFraming::Chunked, &text, 1), ("abcde".to_owned(), String::new(), BodyStep::Over));
    }
}
