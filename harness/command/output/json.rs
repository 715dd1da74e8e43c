//! JSON documents on standard output: secrets are replaced in each text of a document, and never across its structure.

use std::borrow::Cow;
use std::fmt::Write as _;

use relapse_core::record::{escape::is_control, redact::Redactor};
use serde::de::IgnoredAny;

/// Whether a text is a JSON document: an object or a list.
pub(super) fn is_document(text: &str) -> bool {
    text.starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// A JSON document without secrets. Characters that a terminal obeys are written as `\u…` (RFC 8259 section 7).
pub(super) fn printable(document: &str, secrets: &Redactor) -> String {
    let (mut shown, mut rest) = (String::with_capacity(document.len()), document);
    while let Some(start) = rest.find('"') {
        let end = start + text_bytes(&rest[start..]);
        shown.push_str(&rest[..start]);
        shown.push_str(&clean(&rest[start..end], secrets));
        rest = &rest[end..];
    }
    shown.push_str(rest);
    shown
}

/// How many bytes a text has with its quotation marks.
fn text_bytes(document: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in document.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    document.len()
}

fn clean<'t>(quoted: &'t str, secrets: &Redactor) -> Cow<'t, str> {
    let Ok(text) = serde_json::from_str::<String>(quoted) else { return Cow::Borrowed(quoted) };
    let quoted = match secrets.clean(&text) {
        Cow::Borrowed(_) => Cow::Borrowed(quoted),
        Cow::Owned(clean) if clean == text => Cow::Borrowed(quoted),
        Cow::Owned(clean) => Cow::Owned(serde_json::Value::from(clean).to_string()),
    };
    if quoted.chars().any(is_control) { Cow::Owned(escaped(&quoted)) } else { quoted }
}

fn escaped(quoted: &str) -> String {
    let mut text = String::with_capacity(quoted.len() + 8);
    for character in quoted.chars() {
        if is_control(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use relapse_core::record::redact::{KnownSecret, Redactor};
    use serde_json::json;

    use super::{is_document, printable};

    #[test]
    fn texts_are_clean_and_the_structure_stays() {
        let secrets = vec![KnownSecret::unnamed("1"), KnownSecret::unnamed("a\"b\\c"), KnownSecret::unnamed("schema")];
        let redactor = Redactor::new(secrets, Vec::new());
        let document = json!({"schema": 1, "why": "got a\"b\\c at 1", "more": ["\u{202e}x\u{9b}", "\\"]});
        let text = serde_json::to_string_pretty(&document).unwrap();
        let shown = printable(&text, &redactor);
        let expected = json!({"<secret>": 1, "why": "got <secret> at <secret>", "more": ["\u{202e}x\u{9b}", "\\"]});
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), expected, "{shown}");
        assert!(shown.contains("\\u202ex\\u009b"), "{shown}");
    }

    #[test]
    fn other_texts_are_no_documents() {
        assert!(is_document("{\"a\": [1]}") && is_document("[]"));
        assert!(!is_document("[case] FAILED") && !is_document("1") && !is_document(""));
    }
}
