//! The header of an RFC 6455 frame, read from bytes.

use super::frame::Opcode;

/// The header of one frame (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The last frame of its message.
    pub is_final: bool,
    /// The reserved bits that are set: 4 is RSV1, 2 is RSV2, 1 is RSV3.
    pub reserved_bits: u8,
    /// The frame's opcode.
    pub opcode: Opcode,
    /// The masking key, when the frame is masked.
    pub mask: Option<[u8; 4]>,
    /// The announced length of the payload, in bytes.
    pub payload_bytes: u64,
    /// The length of the header itself, in bytes.
    pub header_bytes: usize,
}

impl FrameHeader {
    /// The longest header, in bytes.
    pub const BYTES_MAX: usize = 14;

    /// Reads a header at the front of `input`; `None` while more bytes are needed.
    pub fn parse(input: &[u8]) -> Option<FrameHeader> {
        let (payload_bytes, mask_at) = announced(input)?;
        let (first, second) = (input[0], input[1]);
        let mask = match second & 0x80 {
            0 => None,
            _ => Some(*input.get(mask_at..)?.first_chunk()?),
        };
        Some(FrameHeader {
            is_final: first & 0x80 != 0,
            reserved_bits: first >> 4 & 7,
            opcode: Opcode::numbered(first),
            mask,
            payload_bytes,
            header_bytes: mask_at + mask.map_or(0, |mask| mask.len()),
        })
    }

    /// Whether the header at the front of `input` announces its payload in as few bytes as can be, as far as it has come.
    pub fn announces_shortest(input: &[u8]) -> bool {
        match input.get(1).map(|byte| byte & 0x7f) {
            Some(126) => announced(input).is_none_or(|(payload_bytes, _)| payload_bytes > 125),
            // The six high bytes of the length tell.
            Some(127) => input.get(2..8).is_none_or(|high| high.iter().any(|&byte| byte != 0)),
            _ => true,
        }
    }
}

/// The announced length of a payload, and the number of header bytes up to its end; `None` while more bytes are needed.
fn announced(input: &[u8]) -> Option<(u64, usize)> {
    match input.get(1)? & 0x7f {
        126 => Some((u16::from_be_bytes(*input.get(2..)?.first_chunk()?).into(), 4)),
        127 => Some((u64::from_be_bytes(*input.get(2..)?.first_chunk()?), 10)),
        short => Some((short.into(), 2)),
    }
}

/// Removes or adds a mask (RFC 6455 section 5.3).
pub fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let mut chunks = payload.chunks_exact_mut(4);
    for chunk in &mut chunks {
        let word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]) ^ u32::from_ne_bytes(mask);
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{FrameHeader, apply_mask};
    use crate::wire::frame::Opcode;

    #[rstest]
    #[case::empty(&[0x81, 0], 0, 2)]
    #[case::short(&[0x81, 125], 125, 2)]
    #[case::two_bytes(&[0x81, 126, 1, 2], 0x0102, 4)]
    #[case::eight_bytes(&[0x81, 127, 1, 2, 3, 4, 5, 6, 7, 8], 0x0102_0304_0506_0708, 10)]
    fn a_length_is_announced_in_three_ways(#[case] input: &[u8], #[case] payload_bytes: u64, #[case] end: usize) {
        let header = FrameHeader::parse(input).unwrap();
        assert_eq!((header.payload_bytes, header.header_bytes, header.mask), (payload_bytes, end, None));
        let masked: Vec<u8> = [&input[..1], &[input[1] | 0x80], &input[2..], &[9, 8, 7, 6]].concat();
        let header = FrameHeader::parse(&masked).unwrap();
        assert_eq!(
            (header.payload_bytes, header.header_bytes, header.mask),
            (payload_bytes, end + 4, Some([9, 8, 7, 6]))
        );
        // A header that is not whole is no header.
        for length in 0..masked.len() {
            assert_eq!(FrameHeader::parse(&masked[..length]), None, "{length} bytes");
        }
    }

    #[rstest]
    #[case(0x81, true, 0, Opcode::Text)]
    #[case(0x02, false, 0, Opcode::Binary)]
    #[case(0xc0, true, 4, Opcode::Continuation)]
    #[case(0xa8, true, 2, Opcode::Close)]
    #[case(0x99, true, 1, Opcode::Ping)]
    #[case(0xfa, true, 7, Opcode::Pong)]
    #[case(0x83, true, 0, Opcode::Reserved(3))]
    #[case(0x8f, true, 0, Opcode::Reserved(15))]
    fn the_first_byte_has_bits_and_an_opcode(
        #[case] first: u8,
        #[case] is_final: bool,
        #[case] reserved_bits: u8,
        #[case] opcode: Opcode,
    ) {
        let header = FrameHeader::parse(&[first, 0]).unwrap();
        assert_eq!((header.is_final, header.reserved_bits, header.opcode), (is_final, reserved_bits, opcode));
        assert_eq!(opcode.number(), first & 0x0f);
    }

    #[rstest]
    #[case(&[0x81], true)]
    #[case(&[0x81, 5], true)]
    #[case(&[0x81, 126, 0], true)]
    #[case(&[0x81, 126, 0, 125], false)]
    #[case(&[0x81, 126, 0, 126], true)]
    #[case(&[0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], false)]
    #[case(&[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0], true)]
    fn a_length_may_take_more_bytes_than_it_needs(#[case] input: &[u8], #[case] is_shortest: bool) {
        assert_eq!(FrameHeader::announces_shortest(input), is_shortest);
    }

    #[test]
    fn a_mask_is_applied_byte_by_byte() {
        let mask = [1, 2, 4, 8];
        for length in 0..9 {
            let mut payload = vec![0; length];
            apply_mask(&mut payload, mask);
            assert!(payload.iter().enumerate().all(|(index, &byte)| byte == mask[index % 4]), "{payload:?}");
        }
    }
}
