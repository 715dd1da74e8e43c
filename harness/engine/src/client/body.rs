//! A response body as it comes, against what its head announced (RFC 9112 section 6.3).

use bytes::BytesMut;

use relapse_core::{
    record::transcript::BodyEnd,
    wire::head::{ResponseHead, has_token},
};
use relapse_simulate::link::{Wire, take};

/// The largest body that is kept, in bytes.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Reads one body piece by piece.
#[derive(Debug)]
pub struct BodyReader {
    body: Vec<u8>,
    framing: BodyFraming,
    /// How often something came.
    pieces: usize,
    behind: AfterBody,
}

/// The bytes that may follow a body on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterBody {
    /// Nothing: no other request waits for an answer.
    Nothing,
    /// The answers to further requests.
    Answers,
}

/// After how many pieces, or bytes, of an answer that does not say how long it is a client has seen enough.
const PIECES_MAX: usize = 500;
const ENDLESS_BYTES_MAX: usize = 1 << 20;

/// The state of the stream that a body comes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyStream {
    /// More bytes may come.
    Open,
    /// The peer ended it.
    Ended,
    /// It broke: a reset, or TLS without `close_notify`. A body that only the end of the stream ends is then incomplete
    /// (RFC 9112 section 8).
    Broken,
}

impl BodyStream {
    /// The state of the stream that a wire reads.
    pub fn of(wire: &Wire) -> BodyStream {
        match (wire.has_ended(), wire.is_broken()) {
            (false, _) => BodyStream::Open,
            (true, false) => BodyStream::Ended,
            (true, true) => BodyStream::Broken,
        }
    }
}

/// The longest trailer section that is read, in bytes.
const TRAILER_BYTES_MAX: usize = 64 << 10;

/// A trailer section that is none: a line without a colon, or too many bytes.
struct BadTrailer;

/// The length of the trailer section behind the last chunk with the empty line that ends it (RFC 9112 section 7.1.2);
/// `None` if its end has not come.
fn trailer_length(bytes: &[u8]) -> Result<Option<usize>, BadTrailer> {
    let mut length = 0;
    while let Some(line) = memchr::memmem::find(&bytes[length..], b"\r\n") {
        let start = length;
        length += line + 2;
        if line == 0 {
            return Ok(Some(length));
        }
        if !bytes[start..start + line].contains(&b':') {
            return Err(BadTrailer);
        }
    }
    // A line that cannot become one any more.
    let rest = &bytes[length..];
    let is_field = rest.len() < 2 || rest[0] != b'\r';
    if bytes.len() > TRAILER_BYTES_MAX || !is_field { Err(BadTrailer) } else { Ok(None) }
}

#[derive(Debug)]
enum BodyFraming {
    None,
    BytesLeft(usize),
    Chunked,
    UntilEnd,
    Unreadable,
}

impl BodyReader {
    /// Reads the body of an answer with this head to a request with this method.
    pub fn new(method: &str, head: &ResponseHead, behind: AfterBody) -> BodyReader {
        let mut lengths = head.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"content-length"));
        let parse = |value: &[u8]| std::str::from_utf8(value).ok()?.trim().parse().ok();
        let framing = if method == "HEAD" || matches!(head.status, 204 | 304) {
            BodyFraming::None
        } else if has_token(&head.headers, "transfer-encoding", "chunked") {
            BodyFraming::Chunked
        } else {
            match (lengths.next(), lengths.next()) {
                (None, _) => BodyFraming::UntilEnd,
                (Some((_, value)), None) => parse(value).map_or(BodyFraming::Unreadable, BodyFraming::BytesLeft),
                (Some(_), Some(_)) => BodyFraming::Unreadable,
            }
        };
        BodyReader { body: Vec::new(), framing, pieces: 0, behind }
    }

    /// Whether so much of an answer without end has come that it need not be read on.
    pub fn has_enough(&mut self) -> bool {
        self.pieces += 1;
        let is_endless = matches!(self.framing, BodyFraming::Chunked | BodyFraming::UntilEnd);
        is_endless && (self.pieces > PIECES_MAX || self.body.len() >= ENDLESS_BYTES_MAX)
    }

    /// Whether nothing but the end of the stream ends the body.
    pub(super) fn ends_with_the_stream(&self) -> bool {
        matches!(self.framing, BodyFraming::UntilEnd)
    }

    /// How many bytes of the body have come, with those of what came in that are not taken yet. Those behind a chunk that
    /// is not whole are not looked at.
    pub(super) fn arrived(&self, incoming: &[u8]) -> usize {
        let waiting = match &self.framing {
            BodyFraming::None | BodyFraming::Unreadable => 0,
            BodyFraming::UntilEnd => incoming.len(),
            BodyFraming::BytesLeft(left) => incoming.len().min(*left),
            BodyFraming::Chunked => match httparse::parse_chunk_size(incoming) {
                Ok(httparse::Status::Complete((line, size))) => {
                    incoming.len().saturating_sub(line).min(usize::try_from(size).unwrap_or(usize::MAX))
                }
                Ok(httparse::Status::Partial) | Err(_) => 0,
            },
        };
        self.body.len() + waiting
    }

    /// The bytes of the body so far.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The bytes of the body.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// Takes the bytes that came, and returns how the body ended, once it has.
    pub fn read(&mut self, incoming: &mut BytesMut, stream: BodyStream) -> Option<BodyEnd> {
        let cut = (stream != BodyStream::Open).then_some(BodyEnd::Truncated);
        let behind = self.behind;
        let end = |incoming: &BytesMut| match (incoming.is_empty(), behind) {
            (true, _) | (false, AfterBody::Answers) => Some(BodyEnd::Complete),
            (false, AfterBody::Nothing) => Some(BodyEnd::Surplus),
        };
        match &mut self.framing {
            BodyFraming::None => Some(BodyEnd::None),
            BodyFraming::Unreadable => Some(BodyEnd::Malformed),
            BodyFraming::UntilEnd => {
                let count = incoming.len();
                self.keep(incoming, count);
                match stream {
                    BodyStream::Open => None,
                    BodyStream::Ended => Some(BodyEnd::Complete),
                    BodyStream::Broken => Some(BodyEnd::Truncated),
                }
            }
            BodyFraming::BytesLeft(left) => {
                let count = incoming.len().min(*left);
                *left -= count;
                let complete = *left == 0;
                self.keep(incoming, count);
                if complete { end(incoming) } else { cut }
            }
            BodyFraming::Chunked => loop {
                let (line, size) = match httparse::parse_chunk_size(incoming) {
                    Ok(httparse::Status::Complete(chunk)) => chunk,
                    Ok(httparse::Status::Partial) => return cut,
                    Err(_) => return Some(BodyEnd::Malformed),
                };
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                if size > BODY_BYTES_MAX {
                    return Some(BodyEnd::Malformed);
                }
                if size == 0 {
                    return match trailer_length(&incoming[line..]) {
                        Ok(Some(trailer)) => {
                            take(incoming, line + trailer);
                            end(incoming)
                        }
                        Ok(None) => cut,
                        Err(BadTrailer) => Some(BodyEnd::Malformed),
                    };
                }
                if incoming.len() < line + size + 2 {
                    return cut;
                }
                if &incoming[line + size..line + size + 2] != b"\r\n" {
                    return Some(BodyEnd::Malformed);
                }
                take(incoming, line);
                self.keep(incoming, size);
                take(incoming, 2);
            },
        }
    }

    fn keep(&mut self, incoming: &mut BytesMut, count: usize) {
        let room = BODY_BYTES_MAX.saturating_sub(self.body.len());
        self.body.extend_from_slice(&incoming[..count.min(room)]);
        take(incoming, count);
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use crate::client::body::{AfterBody, BodyReader, BodyStream};
    use relapse_core::{
        record::transcript::BodyEnd,
        wire::head::{ResponseHead, field},
    };

    fn read(header: (&'static str, &'static str), text: &str, stream: BodyStream) -> (Option<BodyEnd>, String) {
        let head = ResponseHead { status: 200, headers: vec![field(header.0, header.1)] };
        let mut reader = BodyReader::new("GET", &head, AfterBody::Nothing);
        let end = reader.read(&mut BytesMut::from(text), stream);
        (end, String::from_utf8(reader.into_body()).unwrap())
    }

    #[test]
    fn a_chunked_body_may_have_a_trailer() {
        let read = |text| read(("transfer-encoding", "chunked"), text, BodyStream::Open);
        let body = |end| (end, "hello".to_owned());
        assert_eq!(read("5\r\nhello\r\n0\r\n\r\n"), body(Some(BodyEnd::Complete)));
        assert_eq!(read("5\r\nhello\r\n0\r\nA: 1\r\nB: 2\r\n\r\n"), body(Some(BodyEnd::Complete)));
        assert_eq!(read("5\r\nhello\r\n0\r\nA: 1\r\n\r\nmore"), body(Some(BodyEnd::Surplus)));
        assert_eq!(read("5\r\nhello\r\n0\r\nno field\r\n\r\n"), body(Some(BodyEnd::Malformed)));
        assert_eq!(read("5\r\nhello\r\n0\r\n\rx"), body(Some(BodyEnd::Malformed)));
        for part in ["5\r\nhello\r\n0\r\n", "5\r\nhello\r\n0\r\n\r", "5\r\nhello\r\n0\r\nA: 1\r\n"] {
            assert_eq!(read(part), body(None), "{part:?}");
        }
    }

    /// RFC 9112 section 8: a body without a length is complete only if the stream ends without an error.
    #[test]
    fn a_broken_stream_completes_no_body() {
        let read = |stream| read(("connection", "close"), "hello", stream).0;
        assert_eq!(read(BodyStream::Open), None);
        assert_eq!(read(BodyStream::Ended), Some(BodyEnd::Complete));
        assert_eq!(read(BodyStream::Broken), Some(BodyEnd::Truncated));
    }
}
