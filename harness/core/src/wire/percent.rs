//! Percent-encoding (RFC 3986 section 2.1), of bytes.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// Everything but the unreserved characters (RFC 3986 section 2.3).
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same without `/`, for a path of several segments.
pub const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// The same without `%`, for a path that may be encoded already.
pub const RESERVED_IN_ENCODED_PATH: &AsciiSet = &RESERVED_IN_PATH.remove(b'%');

/// Encodes the bytes of a set, and all that are not ASCII.
pub fn encoded(bytes: &[u8], set: &'static AsciiSet) -> Vec<u8> {
    percent_encode(bytes, set).to_string().into_bytes()
}

/// Replaces each `%NN` by its byte; anything else, a broken escape too, stays as it is.
pub fn decoded(raw: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(raw).collect()
}

/// The decoded text; bytes that are not UTF-8 become U+FFFD, as Python's `unquote` has it.
pub fn decoded_text(raw: &[u8]) -> String {
    percent_encoding::percent_decode(raw).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{RESERVED, RESERVED_IN_ENCODED_PATH, RESERVED_IN_PATH, decoded, decoded_text, encoded};

    #[test]
    fn reserved_bytes_are_encoded() {
        let text = "aZ09-._~ /%\u{e4}".as_bytes();
        assert_eq!(encoded(text, RESERVED), b"aZ09-._~%20%2F%25%C3%A4");
        assert_eq!(encoded(text, RESERVED_IN_PATH), b"aZ09-._~%20/%25%C3%A4");
        assert_eq!(encoded(text, RESERVED_IN_ENCODED_PATH), b"aZ09-._~%20/%%C3%A4");
        assert_eq!(decoded(&encoded(text, RESERVED)), text);
    }

    #[rstest]
    #[case::broken("a%2", "a%2")]
    #[case::no_digits("%zz%41", "%zzA")]
    #[case::plus("a+b%2B", "a+b+")]
    #[case::no_text("%ff", "\u{fffd}")]
    fn a_broken_escape_stays(#[case] raw: &str, #[case] expected: &str) {
        assert_eq!(decoded_text(raw.as_bytes()), expected);
    }
}
