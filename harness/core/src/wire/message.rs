//! The `type` of a JSON message, the one key by which clients and checks tell messages apart.

use std::borrow::Cow;

use serde::Deserialize;

/// The first bytes of a message whose first key is its type, in the compact form that most writers use.
const TYPE_FIRST: &[u8] = b"{\"type\":\"";

/// The `type` of a JSON message; `None` when it is no JSON object or has none.
pub fn message_type(payload: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(rename = "type", borrow)]
        name: Cow<'a, str>,
    }
    if let Some(rest) = payload.strip_prefix(TYPE_FIRST)
        && let Some(end) = memchr::memchr2(b'"', b'\\', rest)
        && rest[end] == b'"'
        && let Ok(name) = std::str::from_utf8(&rest[..end])
    {
        return Some(Cow::Borrowed(name));
    }
    serde_json::from_slice::<Typed<'_>>(payload).ok().map(|typed| typed.name)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::message_type;

    #[rstest]
    #[case::first(r#"{"type":"ping","x":1}"#, Some("ping"))]
    #[case::later(r#"{"x":1, "type": "ping"}"#, Some("ping"))]
    #[case::escaped(r#"{"type":"p\u0069ng"}"#, Some("ping"))]
    #[case::none(r#"{"x":1}"#, None)]
    #[case::of_another_kind(r#"{"type":1}"#, None)]
    #[case::no_json("ping", None)]
    fn a_message_is_known_by_its_type(#[case] payload: &str, #[case] expected: Option<&str>) {
        assert_eq!(message_type(payload.as_bytes()).as_deref(), expected);
    }
}
