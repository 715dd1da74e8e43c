//! Where a message's body ends (RFC 9112 section 6.3), so that the next head on the same connection is found.

use bytes::BytesMut;

use crate::link::take;
use relapse_core::wire::head::{Headers, RequestHead, ResponseHead, has_token, header};

/// How long the line with a chunk's size, or a trailer, may be.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// The part of a body that is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// The number of bytes that are left.
    Bytes(u64),
    /// Chunks: a size line comes next.
    Size,
    /// The number of bytes that are left of a chunk, with the line end behind it.
    Chunk(u64),
    /// Trailer fields, and the empty line behind them.
    Trailers,
    /// Everything until the stream ends, or a body that cannot be read.
    UntilEnd,
}

impl Body {
    pub(super) fn of_request(head: &RequestHead) -> Body {
        Body::announced(&head.headers).unwrap_or(Body::Bytes(0))
    }

    /// The body of the answer to a request; `to_head` where the request was a HEAD.
    pub(super) fn of_answer(head: &ResponseHead, to_head: bool) -> Body {
        if to_head || matches!(head.status, 204 | 304) {
            return Body::Bytes(0);
        }
        Body::announced(&head.headers).unwrap_or(Body::UntilEnd)
    }

    fn announced(headers: &Headers) -> Option<Body> {
        if has_token(headers, "transfer-encoding", "chunked") {
            return Some(Body::Size);
        }
        let length = header(headers, "content-length")?;
        let length = std::str::from_utf8(length).ok().and_then(|text| text.trim().parse().ok());
        Some(length.map_or(Body::UntilEnd, Body::Bytes))
    }

    /// Carries what has come of it; whether it is over.
    pub(super) fn carry(&mut self, incoming: &mut BytesMut, carried: &mut Vec<u8>) -> bool {
        let mut carry = |incoming: &mut BytesMut, count: usize| {
            carried.extend_from_slice(&incoming[..count]);
            take(incoming, count);
        };
        loop {
            match self {
                Body::Bytes(0) => return true,
                Body::Bytes(left) | Body::Chunk(left) => {
                    let count = incoming.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    carry(incoming, count);
                    *left -= count as u64;
                    match (*self, count) {
                        (Body::Chunk(0), _) => *self = Body::Size,
                        (_, 0) => return false,
                        _ => {}
                    }
                }
                Body::Size => match httparse::parse_chunk_size(incoming) {
                    Ok(httparse::Status::Complete((line, 0))) => {
                        carry(incoming, line);
                        *self = Body::Trailers;
                    }
                    Ok(httparse::Status::Complete((line, size))) => {
                        carry(incoming, line);
                        *self = Body::Chunk(size.saturating_add(2));
                    }
                    Ok(httparse::Status::Partial) if incoming.len() <= LINE_BYTES_MAX => return false,
                    _ => *self = Body::UntilEnd,
                },
                Body::Trailers => match incoming.windows(2).position(|pair| pair == b"\r\n") {
                    Some(end) => {
                        carry(incoming, end + 2);
                        if end == 0 {
                            return true;
                        }
                    }
                    None if incoming.len() <= LINE_BYTES_MAX => return false,
                    None => *self = Body::UntilEnd,
                },
                Body::UntilEnd => {
                    let count = incoming.len();
                    carry(incoming, count);
                    return false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use rstest::rstest;

    use super::Body;

    /// However a body is cut into pieces, it ends at the same byte.
    #[rstest]
    #[case(Body::Bytes(5), "12345", true)]
    #[case(Body::Bytes(0), "", true)]
    #[case(Body::Size, "3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n", true)]
    #[case(Body::Size, "0\r\nTrailer: x\r\n\r\n", true)]
    #[case(Body::Size, "3\r\nabc\r\n", false)]
    #[case(Body::Size, "zz\r\nwhatever", false)]
    #[case(Body::UntilEnd, "anything", false)]
    fn a_body_ends(#[case] body: Body, #[case] text: &str, #[case] is_over: bool) {
        for piece in 1..=text.len().max(1) {
            let (mut body, mut carried, mut over) = (body, Vec::new(), false);
            let mut incoming = BytesMut::new();
            for bytes in text.as_bytes().chunks(piece) {
                incoming.extend_from_slice(bytes);
                over = body.carry(&mut incoming, &mut carried);
            }
            over |= body.carry(&mut incoming, &mut carried);
            // The next head follows.
            incoming.extend_from_slice(b"NEXT");
            assert_eq!(over, is_over, "{text} in pieces of {piece}");
            if over {
                assert_eq!(carried, text.as_bytes());
                assert_eq!(&incoming[..], b"NEXT");
            }
        }
    }
}
