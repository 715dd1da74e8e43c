//! The forms in which a secret can stand in a text: as it is, escaped, or encoded.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// A shorter secret is looked for only as it is, escaped and percent-encoded: base64 or hexadecimal digits of it may stand for
/// something else.
const ENCODED_BYTES_MIN: usize = 5;

/// The unreserved characters (RFC 3986 section 2.3) are not percent-encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Encoders of a query leave these as they are, too (RFC 3986 section 3.4, and the URL Standard's component set).
const IN_QUERY: &AsciiSet =
    &RESERVED.remove(b'!').remove(b'$').remove(b'\'').remove(b'(').remove(b')').remove(b'*').remove(b',');
/// Encoders of a path, these (RFC 3986 section 3.3).
const IN_PATH: &AsciiSet =
    &IN_QUERY.remove(b'&').remove(b'+').remove(b':').remove(b';').remove(b'=').remove(b'@').remove(b'/');

/// Every form of a secret, each once. None is empty.
pub(super) fn forms(secret: &str) -> BTreeSet<String> {
    let mut forms: BTreeSet<String> = markup(secret).into_iter().chain([secret.to_owned()]).collect();
    for _ in 0..NESTED_MAX {
        let escaped: Vec<String> = forms.iter().flat_map(|form| ESCAPES.map(|escape| escape(form))).collect();
        forms.extend(escaped);
    }
    forms.extend([json(secret), python(secret)].iter().flat_map(|text| markup(text)));
    forms.extend(percent(secret));
    if secret.len() >= ENCODED_BYTES_MIN {
        forms.extend(base64(secret));
        let hex: String = secret.bytes().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        forms.extend([hex.to_ascii_uppercase(), hex]);
    }
    forms.remove("");
    forms
}

/// How often a text may be escaped: the `repr` of a JSON text, in a JSON document.
const NESTED_MAX: usize = 3;

/// The ways to escape a text.
const ESCAPES: [fn(&str) -> String; 8] =
    [json, json_with_slashes, json_of_ascii, python, python_quoted, python_of_ascii, python_of_bytes, rust];

/// As a part of a JSON text (RFC 8259 section 7).
fn json(secret: &str) -> String {
    let text = serde_json::Value::from(secret).to_string();
    text[1..text.len() - 1].to_owned()
}

/// The same in ASCII, as Python's `json` writes it.
fn json_of_ascii(secret: &str) -> String {
    let mut text = String::new();
    for character in json(secret).chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

/// The same with `\/`, as PHP writes it.
fn json_with_slashes(secret: &str) -> String {
    json(secret).replace('/', "\\/")
}

/// As a part of Rust's `Debug`.
fn rust(secret: &str) -> String {
    let text = format!("{secret:?}");
    text[1..text.len() - 1].to_owned()
}

/// As a part of Python's `repr` of a text with quotation marks of both kinds.
fn python_quoted(secret: &str) -> String {
    python(secret).replace('\'', "\\'")
}

/// In ASCII, as Python's error handler `backslashreplace` writes it.
fn python_of_ascii(secret: &str) -> String {
    let mut text = String::new();
    for character in secret.chars() {
        let _ = match u32::from(character) {
            0..0x80 => write!(text, "{character}"),
            code @ ..0x100 => write!(text, "\\x{code:02x}"),
            code @ ..0x1_0000 => write!(text, "\\u{code:04x}"),
            code => write!(text, "\\U{code:08x}"),
        };
    }
    text
}

/// The bytes of its UTF-8, as a part of Python's `repr` of bytes.
fn python_of_bytes(secret: &str) -> String {
    python(secret).bytes().fold(String::new(), |mut text, byte| {
        let _ = if byte.is_ascii() { write!(text, "{}", byte as char) } else { write!(text, "\\x{byte:02x}") };
        text
    })
}

/// As a part of Python's `repr`.
fn python(secret: &str) -> String {
    let mut text = String::new();
    for character in secret.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            control if control.is_control() && u32::from(control) < 256 => {
                let _ = write!(text, "\\x{:02x}", u32::from(control));
            }
            other => text.push(other),
        }
    }
    text
}

/// As a part of HTML or XML, with or without references for quotation marks and apostrophes (HTML Living Standard section 13.3,
/// XML 1.0 section 2.4).
fn markup(secret: &str) -> Vec<String> {
    let text = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let quotes = ["\"", "&quot;", "&#34;"].into_iter();
    let pairs = quotes.flat_map(|quote| ["'", "&#x27;", "&#39;", "&apos;"].map(|apostrophe| (quote, apostrophe)));
    pairs.map(|(quote, apostrophe)| text.replace('"', quote).replace('\'', apostrophe)).collect()
}

/// Percent-encoded as encoders of whole components, of queries, of paths and of forms do it, with digits of either case.
fn percent(secret: &str) -> Vec<String> {
    let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let sets = [RESERVED, IN_QUERY, IN_PATH].map(|set| utf8_percent_encode(secret, set).to_string());
    sets.into_iter().chain([form]).flat_map(|text| [lowercase_digits(&text), text]).collect()
}

/// The text with the digits of its percent-encodings in lower case.
fn lowercase_digits(text: &str) -> String {
    let mut parts = text.split('%');
    let mut lower = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        let _ = write!(lower, "%{}{rest}", digits.to_ascii_lowercase());
    }
    lower
}

/// Base64 (RFC 4648 sections 4 and 5) of the secret alone, and inside a longer text at each of the three offsets at which it can
/// begin, without the characters that it shares with its neighbors.
fn base64(secret: &str) -> Vec<String> {
    let mut forms = Vec::new();
    for before in 0..3 {
        let bytes = [&vec![0; before], secret.as_bytes()].concat();
        let text = BASE64_STANDARD_NO_PAD.encode(&bytes);
        // The first characters hold bits of what stands before, and the last one may hold bits of what follows.
        let first = (before * 8).div_ceil(6);
        let last = bytes.len() * 8 / 6;
        forms.push(text[first..last].to_owned());
    }
    forms.push(BASE64_STANDARD_NO_PAD.encode(secret));
    let url_safe: Vec<String> = forms.iter().map(|form| form.replace('+', "-").replace('/', "_")).collect();
    forms.extend(url_safe);
    forms
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE};
    use rstest::rstest;

    use super::forms;

    const SECRET: &str = "pa\"ss/w+rd é\\~1";

    #[rstest]
    #[case::as_it_is("x=pa\"ss/w+rd é\\~1;")]
    #[case::backslashreplace("x=pa\"ss/w+rd \\xe9\\~1;")]
    #[case::repr_of_bytes(r#"b'pa"ss/w+rd \xc3\xa9\\~1'"#)]
    #[case::json(r#"{"key":"pa\"ss/w+rd é\\~1"}"#)]
    #[case::json_with_escaped_slashes(r#"{"key":"pa\"ss\/w+rd é\\~1"}"#)]
    #[case::json_of_ascii(r#"{"key": "pa\"ss/w+rd \u00e9\\~1"}"#)]
    #[case::python(r#"KeyError('pa"ss/w+rd é\\~1')"#)]
    #[case::python_in_json(r#"{"why":"KeyError('pa\"ss/w+rd é\\\\~1')"}"#)]
    #[case::json_in_python(r#"KeyError('{"key": "pa\\"ss/w+rd \\u00e9\\\\~1"}')"#)]
    #[case::component("?key=pa%22ss%2Fw%2Brd%20%C3%A9%5C~1&")]
    #[case::lower_case("?key=pa%22ss%2fw%2brd%20%c3%a9%5c~1&")]
    #[case::path("/reset/pa%22ss/w+rd%20%C3%A9%5C~1")]
    #[case::form("key=pa%22ss%2Fw%2Brd+%C3%A9%5C%7E1")]
    #[case::hexadecimal("70612273732f772b726420c3a95c7e31")]
    #[case::html(r"<b>pa&quot;ss/w+rd é\~1</b>")]
    #[case::json_in_html(r"<pre>{&#34;key&#34;:&#34;pa\&#34;ss/w+rd é\\~1&#34;}</pre>")]
    #[case::html_in_json(r#"{"page":"<b>pa&#34;ss/w+rd \u00e9\\~1</b>"}"#)]
    fn a_form_of_the_secret_is_known(#[case] text: &str) {
        assert!(forms(SECRET).iter().any(|form| text.contains(form.as_str())), "{:#?}", forms(SECRET));
    }

    #[test]
    fn base64_is_known_wherever_the_secret_begins() {
        for before in ["", "a", "user:", "user-1:"] {
            for after in ["", "!", "more of it"] {
                let text = format!("{before}{SECRET}{after}");
                for text in [BASE64_STANDARD.encode(&text), BASE64_URL_SAFE.encode(&text)] {
                    assert!(forms(SECRET).iter().any(|form| text.contains(form.as_str())), "{before}…{after}: {text}");
                }
            }
        }
    }

    #[test]
    fn a_short_secret_has_no_encoded_forms() {
        assert_eq!(forms("q7Zx").into_iter().collect::<Vec<_>>(), ["q7Zx"]);
    }
}
