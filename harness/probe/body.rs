//! A response body as it comes, against what its head announced (RFC 9112 section 6.3).

use bytes::BytesMut;

use crate::{
    head::{ResponseHead, has_token, header},
    link::take,
    transcript::BodyEnd,
};

/// The largest body that is kept, in bytes.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Reads one body piece by piece.
pub(super) struct Reader {
    body: Vec<u8>,
    framing: Framing,
}

enum Framing {
    None,
    BytesLeft(usize),
    Chunked,
    UntilEnd,
}

impl Reader {
    pub(super) fn new(method: &str, head: &ResponseHead) -> Reader {
        let length =
            header(&head.headers, "content-length").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        let framing = if method == "HEAD" || matches!(head.status, 100..=199 | 204 | 304) {
            Framing::None
        } else if has_token(&head.headers, "transfer-encoding", "chunked") {
            Framing::Chunked
        } else {
            length.map_or(Framing::UntilEnd, Framing::BytesLeft)
        };
        Reader { body: Vec::new(), framing }
    }

    pub(super) fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// Takes what has come; how the body ended, once it has.
    pub(super) fn read(&mut self, incoming: &mut BytesMut, stream_ended: bool) -> Option<BodyEnd> {
        let cut = stream_ended.then_some(BodyEnd::Truncated);
        match &mut self.framing {
            Framing::None => Some(BodyEnd::None),
            Framing::UntilEnd => {
                let count = incoming.len();
                self.keep(incoming, count);
                stream_ended.then_some(BodyEnd::Complete)
            }
            Framing::BytesLeft(left) => {
                let count = incoming.len().min(*left);
                *left -= count;
                let complete = *left == 0;
                self.keep(incoming, count);
                if complete { Some(BodyEnd::Complete) } else { cut }
            }
            Framing::Chunked => loop {
                let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(incoming) else {
                    return cut;
                };
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                // The chunk's data is followed by an empty line, and so is the last chunk.
                let whole = line.saturating_add(size).saturating_add(2);
                if incoming.len() < whole {
                    return cut;
                }
                take(incoming, line);
                self.keep(incoming, size);
                take(incoming, 2);
                if size == 0 {
                    return Some(BodyEnd::Complete);
                }
            },
        }
    }

    fn keep(&mut self, incoming: &mut BytesMut, count: usize) {
        let room = BODY_BYTES_MAX.saturating_sub(self.body.len());
        self.body.extend_from_slice(&incoming[..count.min(room)]);
        take(incoming, count);
    }
}
