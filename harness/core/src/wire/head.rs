//! Request and response heads of HTTP/1.1, kept as the bytes that crossed the wire.

use std::mem::MaybeUninit;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use sha1_smol::Sha1;

use crate::asgi::value::escape_bytes;

/// Header fields in the order they were written: name and value as bytes, names in their own case.
pub type Headers = Vec<(Bytes, Bytes)>;

/// The largest head of an answer that is read, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 128;
/// The largest head of a request that is read, in bytes. It is above the limits of every known server.
const REQUEST_BYTES_MAX: usize = 512 * 1024;
const REQUEST_FIELDS_MAX: usize = 1024;

/// A request line and its header fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The method, as written.
    pub method: String,
    /// The request target, as written: path and query, percent-encoded.
    pub target: Bytes,
    /// The minor version of HTTP/1: 0 or 1.
    pub minor_version: u8,
    /// The header fields.
    pub headers: Headers,
}

/// A status line and its header fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code, 100 to 999.
    pub status: u16,
    /// The header fields.
    pub headers: Headers,
}

/// Why a head cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadError {
    /// Not HTTP/1; says what is wrong with it.
    Malformed(String),
    /// More bytes or header fields than are read.
    TooLarge,
}

/// The value of the first header with this name, whatever its case.
pub fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value.as_ref())
}

/// Whether a field's name is this one, whatever its case (RFC 9110 section 5.1).
pub fn is_name(name: &[u8], wanted: &str) -> bool {
    name.eq_ignore_ascii_case(wanted.as_bytes())
}

/// Whether a comma-separated header holds this token, whatever its case.
pub fn has_token(headers: &Headers, name: &str, token: &str) -> bool {
    headers
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))
        .flat_map(|(_, value)| value.split(|&byte| byte == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

impl RequestHead {
    /// Path and query string of the target, both still percent-encoded.
    pub fn path_and_query(&self) -> (Bytes, Bytes) {
        match self.target.iter().position(|&byte| byte == b'?') {
            Some(at) => (self.target.slice(..at), self.target.slice(at + 1..)),
            None => (self.target.clone(), Bytes::new()),
        }
    }

    /// The subprotocols offered, in order.
    pub fn offered_subprotocols(&self) -> Vec<String> {
        offered_subprotocols(&self.headers)
    }

    /// Appends the head's bytes to `output`.
    pub fn encode(&self, output: &mut Vec<u8>) {
        output.extend_from_slice(self.method.as_bytes());
        output.push(b' ');
        output.extend_from_slice(&self.target);
        output.extend_from_slice(if self.minor_version == 0 { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
        encode_headers(&self.headers, output);
    }

    /// Reads a head from the front of `input`: the head and how many bytes it took, or `None` while more are needed.
    ///
    /// # Errors
    /// When the bytes are no HTTP/1 head, or too many.
    pub fn decode(input: &[u8]) -> Result<Option<(RequestHead, usize)>, HeadError> {
        let mut fields = [const { MaybeUninit::uninit() }; REQUEST_FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(input, &mut fields) {
            Ok(httparse::Status::Complete(length)) => {
                let parts = Parts::copy(&input[..length]);
                let head = RequestHead {
                    method: request.method.unwrap_or_default().to_owned(),
                    target: request.path.map_or_else(Bytes::new, |path| parts.own(path.as_bytes())),
                    minor_version: request.version.unwrap_or(1),
                    headers: owned(request.headers, &parts),
                };
                Ok(Some((head, length)))
            }
            Ok(httparse::Status::Partial) if input.len() >= REQUEST_BYTES_MAX => Err(HeadError::TooLarge),
            Ok(httparse::Status::Partial) => Ok(None),
            Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooLarge),
            Err(error) => Err(HeadError::Malformed(error.to_string())),
        }
    }
}

impl ResponseHead {
    /// Appends the head's bytes to `output`.
    pub fn encode(&self, output: &mut Vec<u8>) {
        output.extend_from_slice(format!("HTTP/1.1 {} {}\r\n", self.status, reason_phrase(self.status)).as_bytes());
        encode_headers(&self.headers, output);
    }

    /// Reads a head from the front of `input`: the head and how many bytes it took, or `None` while more are needed.
    ///
    /// # Errors
    /// When the bytes are no HTTP/1 head, or too many.
    pub fn decode(input: &[u8]) -> Result<Option<(ResponseHead, usize)>, HeadError> {
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(input) {
            Ok(httparse::Status::Complete(length)) => {
                let head = ResponseHead {
                    status: response.code.unwrap_or_default(),
                    headers: owned(response.headers, &Parts::copy(&input[..length])),
                };
                Ok(Some((head, length)))
            }
            Ok(httparse::Status::Partial) if input.len() >= HEAD_BYTES_MAX => Err(HeadError::TooLarge),
            Ok(httparse::Status::Partial) => Ok(None),
            Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooLarge),
            Err(error) => Err(HeadError::Malformed(error.to_string())),
        }
    }
}

/// A header field.
pub fn field(name: &'static str, value: impl Into<Bytes>) -> (Bytes, Bytes) {
    (Bytes::from_static(name.as_bytes()), value.into())
}

/// The subprotocols offered by these header fields, in order.
pub fn offered_subprotocols(headers: &Headers) -> Vec<String> {
    headers
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(b"sec-websocket-protocol"))
        .flat_map(|(_, value)| value.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|part| !part.is_empty())
        // A token in a subprotocol is long, and reading it leniently costs several times as much.
        .map(|part| str::from_utf8(part).map_or_else(|_| String::from_utf8_lossy(part).into_owned(), str::to_owned))
        .collect()
}

/// A header value as text a person can read.
pub fn readable(value: &[u8]) -> String {
    escape_bytes(value)
}

/// The standard reason phrase of a status, or nothing for an unknown one.
pub fn reason_phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}

/// The fields, as parts of one copy of the head's bytes.
fn owned(fields: &[httparse::Header<'_>], parts: &Parts<'_>) -> Headers {
    fields.iter().map(|field| (parts.own(field.name.as_bytes()), parts.own(field.value))).collect()
}

/// One copy of a head's bytes, of which its fields are parts.
struct Parts<'a> {
    borrowed: &'a [u8],
    owned: Bytes,
}

impl<'a> Parts<'a> {
    fn copy(head: &'a [u8]) -> Parts<'a> {
        Parts { borrowed: head, owned: Bytes::copy_from_slice(head) }
    }

    fn own(&self, part: &[u8]) -> Bytes {
        let start = part.as_ptr() as usize - self.borrowed.as_ptr() as usize;
        self.owned.slice(start..start + part.len())
    }
}

fn encode_headers(headers: &Headers, output: &mut Vec<u8>) {
    for (name, value) in headers {
        output.extend_from_slice(name);
        output.extend_from_slice(b": ");
        output.extend_from_slice(value);
        output.extend_from_slice(b"\r\n");
    }
    output.extend_from_slice(b"\r\n");
}
/// The accept key for the key of an upgrade request (RFC 6455 section 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(GUID);
    BASE64_STANDARD.encode(hash.digest().bytes())
}

#[cfg(test)]
mod tests {
    use super::accept_key;

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
