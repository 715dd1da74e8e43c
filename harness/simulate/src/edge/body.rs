//! The bodies that the edge carries, byte for byte, up to the next head on the same connection.

use bytes::BytesMut;

use crate::link::take;
use relapse_core::wire::body::{BodyDecoder, BodyFraming, BodyStep};

/// The decoder of a body that may have chunks of any size.
pub(super) fn decoder(framing: BodyFraming) -> BodyDecoder {
    BodyDecoder::new(framing, u64::MAX)
}

/// Carries the part of a body that has come; whether the body is over. One that cannot be read goes on until the stream
/// ends.
pub(super) fn carry(body: &mut BodyDecoder, incoming: &mut BytesMut, carried: &mut Vec<u8>) -> bool {
    loop {
        match body.step(incoming) {
            BodyStep::Payload(count) | BodyStep::Framing(count) => {
                carried.extend_from_slice(&incoming[..count]);
                take(incoming, count);
            }
            BodyStep::More => return false,
            BodyStep::Over => return true,
            BodyStep::Malformed => *body = decoder(BodyFraming::UntilEnd),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use rstest::rstest;

    use super::{carry, decoder};
    use relapse_core::wire::body::BodyFraming;

    /// However a body is cut into pieces, all of it is carried, and nothing behind it.
    #[rstest]
    #[case(BodyFraming::Length(5), "12345", true)]
    #[case(BodyFraming::Length(0), "", true)]
    #[case(BodyFraming::Chunked, "3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n", true)]
    #[case(BodyFraming::Chunked, "0\r\nTrailer: x\r\n\r\n", true)]
    #[case(BodyFraming::Chunked, "3\r\nabc\r\n", false)]
    #[case(BodyFraming::Chunked, "zz\r\nwhatever", false)]
    #[case(BodyFraming::Unreadable, "whatever", false)]
    #[case(BodyFraming::UntilEnd, "anything", false)]
    fn a_body_is_carried(#[case] framing: BodyFraming, #[case] text: &str, #[case] is_over: bool) {
        for piece in 1..=text.len().max(1) {
            let (mut body, mut carried, mut over) = (decoder(framing), Vec::new(), false);
            let mut incoming = BytesMut::new();
            for bytes in text.as_bytes().chunks(piece) {
                incoming.extend_from_slice(bytes);
                over = carry(&mut body, &mut incoming, &mut carried);
            }
            over |= carry(&mut body, &mut incoming, &mut carried);
            // The next head follows.
            incoming.extend_from_slice(b"NEXT");
            assert_eq!((over, &carried[..]), (is_over, text.as_bytes()), "in pieces of {piece}");
            if over {
                assert_eq!(&incoming[..], b"NEXT");
            }
        }
    }
}
