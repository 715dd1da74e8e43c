//! A response body as it comes, against what its head announced (RFC 9112 section 6.3).

use bytes::BytesMut;

use relapse_core::{
    record::transcript::BodyEnd,
    wire::{
        body::{AnsweredMethod, BodyDecoder, BodyFraming, BodyStep},
        head::ResponseHead,
    },
};
use relapse_simulate::{
    link::{Wire, take},
    memory::{RunMemory, SMALL_RUN_BYTES},
};

/// How many bytes of a body are kept: 4 MiB, because a crowd has many clients.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// The largest chunk, in bytes.
const CHUNK_BYTES_MAX: u64 = 16 << 20;

/// After how many bytes a client has seen enough of any body, however long it is to be.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Reads one body piece by piece.
#[derive(Debug)]
pub struct BodyReader {
    body: Vec<u8>,
    /// The number of its bytes that are not of a chunk of which more is to come.
    whole: usize,
    /// The number of bytes that came of it.
    arrived: usize,
    /// The number of bytes that came in complete chunks.
    arrived_whole: usize,
    framing: BodyFraming,
    decoder: BodyDecoder,
    /// How often something came.
    pieces: usize,
    behind: AfterBody,
    memory: RunMemory,
}

/// The bytes that may follow a body on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterBody {
    /// Nothing: no other request waits for an answer.
    Nothing,
    /// The answers to further requests.
    Answers,
}

/// After how many pieces, or bytes, of an answer that does not say how long it is a client has seen enough: more than a
/// streamed export or file has as a rule.
const PIECES_MAX: usize = 4000;
const ENDLESS_BYTES_MAX: usize = 8 << 20;

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

impl BodyReader {
    /// Reads the body of an answer with this head to a request with this method, in a run with this memory.
    pub fn new(method: &str, head: &ResponseHead, behind: AfterBody, memory: RunMemory) -> BodyReader {
        let framing = BodyFraming::of_answer(head, AnsweredMethod::of(method));
        let decoder = BodyDecoder::new(framing, CHUNK_BYTES_MAX);
        let body = Vec::new();
        BodyReader { body, whole: 0, arrived: 0, arrived_whole: 0, framing, decoder, pieces: 0, behind, memory }
    }

    /// Whether so much of an answer without end, or of a very long one, has come that it need not be read on.
    pub fn has_enough(&mut self) -> bool {
        self.pieces += 1;
        if self.arrived >= BODY_BYTES_MAX {
            return true;
        }
        let is_endless = matches!(self.framing, BodyFraming::Chunked | BodyFraming::UntilEnd);
        is_endless && (self.pieces > PIECES_MAX || self.arrived_whole >= ENDLESS_BYTES_MAX)
    }

    /// Whether nothing but the end of the stream ends the body.
    pub(super) fn ends_with_the_stream(&self) -> bool {
        self.framing == BodyFraming::UntilEnd
    }

    /// How many bytes of the body have come, those included that are not kept.
    pub(super) fn arrived(&self) -> usize {
        self.arrived
    }

    /// How many bytes of the body have come and are not kept.
    pub(super) fn omitted(&self) -> u64 {
        (self.arrived - self.body.len()) as u64
    }

    /// The bytes of the body so far, without those of an unfinished chunk.
    pub fn body(&self) -> &[u8] {
        &self.body[..self.whole]
    }

    /// The bytes of the body, without those of an unfinished chunk.
    pub fn into_body(mut self) -> Vec<u8> {
        self.body.truncate(self.whole);
        self.body
    }

    /// Takes the bytes that came, and returns how the body ended, once it has.
    pub fn read(&mut self, incoming: &mut BytesMut, stream: BodyStream) -> Option<BodyEnd> {
        loop {
            match self.decoder.step(incoming) {
                BodyStep::Payload(count) => self.keep(incoming, count),
                BodyStep::Framing(count) => take(incoming, count),
                BodyStep::More => return self.end_of_stream(stream),
                BodyStep::Over => return Some(self.end(incoming)),
                BodyStep::Malformed => return Some(BodyEnd::Malformed),
            }
        }
    }

    /// How a body ended that is not over, if the stream is.
    fn end_of_stream(&self, stream: BodyStream) -> Option<BodyEnd> {
        match stream {
            BodyStream::Open => None,
            BodyStream::Ended if self.ends_with_the_stream() => Some(BodyEnd::Complete),
            BodyStream::Ended | BodyStream::Broken => Some(BodyEnd::Truncated),
        }
    }

    /// How a body ended that is over.
    fn end(&self, incoming: &BytesMut) -> BodyEnd {
        match (self.framing, self.behind) {
            (BodyFraming::Absent, _) => BodyEnd::None,
            (_, AfterBody::Nothing) if !incoming.is_empty() => BodyEnd::Surplus,
            (_, AfterBody::Nothing | AfterBody::Answers) => BodyEnd::Complete,
        }
    }

    fn keep(&mut self, incoming: &mut BytesMut, count: usize) {
        if self.body.len() > SMALL_RUN_BYTES {
            self.memory.grow();
        }
        let room = KEPT_BYTES_MAX.saturating_sub(self.body.len());
        self.body.extend_from_slice(&incoming[..count.min(room)]);
        self.arrived += count;
        take(incoming, count);
        if !self.decoder.is_within_chunk() {
            self.whole = self.body.len();
            self.arrived_whole = self.arrived;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use crate::{
        client::body::{AfterBody, BODY_BYTES_MAX, BodyReader, BodyStream, ENDLESS_BYTES_MAX, KEPT_BYTES_MAX},
        deadline::now,
    };
    use relapse_core::{
        record::transcript::BodyEnd,
        wire::head::{ResponseHead, field},
    };
    use relapse_simulate::memory::{LargeSlot, RunMemory, SMALL_RUN_BYTES};

    fn read(header: (&'static str, &'static str), text: &str, stream: BodyStream) -> (Option<BodyEnd>, String) {
        let head = ResponseHead { status: 200, headers: vec![field(header.0, header.1)] };
        let mut reader = BodyReader::new("GET", &head, AfterBody::Nothing, RunMemory::default());
        let end = reader.read(&mut BytesMut::from(text), stream);
        (end, String::from_utf8(reader.into_body()).unwrap())
    }

    #[test]
    fn a_chunked_body_may_have_a_trailer() {
        for (text, end) in [
            ("5\r\nhello\r\n0\r\n\r\n", Some(BodyEnd::Complete)),
            ("5\r\nhello\r\n0\r\nA: 1\r\nB: 2\r\n\r\n", Some(BodyEnd::Complete)),
            ("5\r\nhello\r\n0\r\nA: 1\r\n\r\nmore", Some(BodyEnd::Surplus)),
            ("5\r\nhello\r\n0\r\nno field\r\n\r\n", Some(BodyEnd::Malformed)),
            ("5\r\nhello\r\n0\r\n\rx", Some(BodyEnd::Malformed)),
            ("5\r\nhello\r\n0\r\n", None),
            ("5\r\nhello\r\n0\r\n\r", None),
            ("5\r\nhello\r\n0\r\nA: 1\r\n", None),
        ] {
            let read = read(("transfer-encoding", "chunked"), text, BodyStream::Open);
            assert_eq!(read, (end, "hello".to_owned()), "{text:?}");
        }
    }

    /// A chunk counts when it is whole: an answer of one large chunk is read to its end.
    #[test]
    fn an_unfinished_chunk_does_not_count() {
        let head = ResponseHead { status: 200, headers: vec![field("transfer-encoding", "chunked")] };
        let mut reader = BodyReader::new("GET", &head, AfterBody::Nothing, RunMemory::default());
        let size = 2 * ENDLESS_BYTES_MAX;
        let mut incoming = BytesMut::from(format!("3\r\nabc\r\n{size:x}\r\n").as_bytes());
        incoming.extend_from_slice(&vec![b'x'; size - 1]);
        assert_eq!(reader.read(&mut incoming, BodyStream::Open), None);
        assert_eq!(reader.body(), b"abc");
        assert!(!reader.has_enough());
        assert_eq!(reader.read(&mut BytesMut::from("x\r\n"), BodyStream::Open), None);
        assert_eq!(reader.body().len(), KEPT_BYTES_MAX);
        assert_eq!(reader.arrived(), size + 3);
        assert!(reader.has_enough());
    }

    /// A server may announce any length: the reading ends, the beginning is kept, and all that came is counted.
    #[test]
    fn a_long_body_is_not_read_to_its_end() {
        let head = ResponseHead { status: 200, headers: vec![field("content-length", "1000000000000")] };
        let mut reader = BodyReader::new("GET", &head, AfterBody::Nothing, RunMemory::default());
        let piece = vec![b'x'; 1 << 20];
        let mut pieces = 0;
        while !reader.has_enough() {
            assert_eq!(reader.read(&mut BytesMut::from(&piece[..]), BodyStream::Open), None);
            pieces += 1;
        }
        assert_eq!(pieces << 20, BODY_BYTES_MAX);
        assert_eq!(reader.omitted() + KEPT_BYTES_MAX as u64, BODY_BYTES_MAX as u64);
        assert_eq!(reader.into_body().len(), KEPT_BYTES_MAX);
    }

    #[test]
    fn a_run_with_a_long_body_is_large() {
        let slot = LargeSlot::default();
        let (large, small) = (slot.worker(), slot.worker());
        small.begin(Some(now()));
        let head = ResponseHead { status: 200, headers: vec![field("content-length", "1000000000000")] };
        let mut reader = BodyReader::new("GET", &head, AfterBody::Nothing, large.of_runs());
        for (more, is_cut) in [(SMALL_RUN_BYTES + 1, false), (1, true)] {
            assert_eq!(reader.read(&mut BytesMut::from(&vec![b'x'; more][..]), BodyStream::Open), None);
            small.of_runs().grow();
            assert_eq!(small.is_cut(), is_cut);
            small.give_back();
        }
    }

    /// RFC 9112 section 8: a body without a length is complete only if the stream ends without an error.
    #[test]
    fn a_broken_stream_completes_no_body() {
        for (stream, end) in [
            (BodyStream::Open, None),
            (BodyStream::Ended, Some(BodyEnd::Complete)),
            (BodyStream::Broken, Some(BodyEnd::Truncated)),
        ] {
            assert_eq!(read(("connection", "close"), "hello", stream).0, end);
        }
    }
}
