//! Secrets that are unknown, and known by their shape: the values of credentials' headers and parameters, tokens in paths,
//! passwords in URLs, JSON Web Tokens, and the keys of well-known services.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex, bytes};

use super::names;

/// A value with fewer characters is shown: it is more often a word than a secret.
const VALUE_CHARACTERS_MIN: usize = 8;
/// A value with so many characters counts as a secret even if it is only letters of one case.
const RANDOM_CHARACTERS_MIN: usize = 20;

/// The replacement of an unknown secret.
pub(super) const LABEL: &str = "<redacted>";

/// How sure a shape is that its value is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certainty {
    /// Every value is one.
    Always,
    /// A value that looks random is one: words such as `undefined` stand in the same place.
    LooksRandom,
    /// A value of letters and digits is one: names of classes and functions stand in the same place.
    HasDigits,
}

/// A place in which secrets stand. The group `value` is what is replaced.
#[derive(Debug)]
struct SecretShape {
    pattern: bytes::Regex,
    certainty: Certainty,
    /// The parts of the group `value` that are judged, each by a group `value` of its own; `None` where it is one value.
    parts: Option<bytes::Regex>,
}

/// Parts of a path behind which a token stands.
const PATHS: &str = "reset|password|verif(?:y|ication)|confirm(?:ation)?|invit(?:e|ation)|activat(?:e|ion)|magic|\
                     unsubscribe|token|share|sso|callback";

static SHAPES: LazyLock<Vec<SecretShape>> = LazyLock::new(|| {
    let keys = names::suspicious();
    vec![
        // A private key in PEM (RFC 7468 section 10).
        SecretShape::new(
            Certainty::Always,
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?P<value>(?s:.*?))(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
        ),
        // A JSON Web Token (RFC 7519 section 3): a header, a payload and a signature.
        SecretShape::new(Certainty::Always, r"(?P<value>\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]*)"),
        // User information in a URL (RFC 3986 section 3.2.1).
        SecretShape::new(Certainty::Always, r#"://[^/ \t\r\n:@"'<>]*:(?P<value>[^/ \t\r\n@"'<>]+)@"#),
        // Keys of well-known services.
        SecretShape::new(
            Certainty::Always,
            r"\b(?P<value>(?:sk|pk|rk)[-_](?:live|test|proj|ant)[-_][A-Za-z0-9_-]{8,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[0-9A-Za-z_]{20,}|glpat-[0-9A-Za-z_-]{16,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|A(?:KI|SI)A[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{30,}|npm_[A-Za-z0-9]{30,}|pypi-[0-9A-Za-z_-]{30,})",
        ),
        // The credentials of a request (RFC 9110 section 11.6.2).
        SecretShape::new(
            Certainty::LooksRandom,
            r#"(?i-u)\b(?:proxy-)?authorization\\?["']?[ \t\r\n]*[:=,][ \t\r\n]*b?\\?["']?(?:(?:basic|bearer|digest|token|negotiate|aws4-hmac-sha256)[ \t\r\n]+)?(?P<value>[^ \t\r\n"'\\<>;,{][^ \t\r\n"'\\<>;,]*)"#,
        ),
        SecretShape::new(Certainty::LooksRandom, r#"(?i-u)\b(?:bearer|basic)[ +](?P<value>[A-Za-z0-9._~+/=-]+)"#),
        // Cookies (RFC 6265 section 4): a list of names and values, of which each is looked at.
        SecretShape {
            parts: Some(compiled(r#"[^=; \t\r\n"'<>]+=\\?"?(?P<value>[^; \t\r\n"'\\<>]+)"#)),
            ..SecretShape::new(
                Certainty::LooksRandom,
                r#"(?i-u)\bcookie\\?["']?[ \t\r\n]*[:=,][ \t\r\n]*b?\\?["']?(?P<value>(?:[^=; \t\r\n"'<>]+=\\?"?(?:<[^<>]*>|[^; \t\r\n"'\\<>]*)\\?"?(?:;[ \t\r\n]*)?)+)"#,
            )
        },
        // Parameters, keys and variables, as in `?api_key=…`, `"password": "…"` and `DB_PASSWORD=…`.
        SecretShape::new(
            Certainty::LooksRandom,
            &format!(
                r#"(?i-u)[?&][0-9A-Za-z_.-]*(?:{keys})[0-9A-Za-z_.-]*(?:=|%3D)(?P<value>[^ \t\r\n&;,"'\\<>#}})]+)"#
            ),
        ),
        SecretShape::new(
            Certainty::HasDigits,
            &format!(
                r#"(?i-u)(?:{keys})[0-9A-Za-z_.-]*(?:\\?["']?[ \t\r\n]*(?:=|:|%3D)[ \t\r\n]*\\?["']?|\\?["'][ \t\r\n]*,[ \t\r\n]*b?\\?["'])(?P<value>[^ \t\r\n&;,"'\\<>#}})]+)"#
            ),
        ),
        // Tokens in paths, as in `/reset/…`.
        SecretShape::new(
            Certainty::LooksRandom,
            &format!(r#"(?i-u)/(?:[0-9A-Za-z_.-]*(?:{PATHS})[0-9A-Za-z_.-]*)/(?P<value>[0-9A-Za-z_.~%+-]+)"#),
        ),
    ]
});

/// The text with a label in the place of each secret that has a known shape.
pub(super) fn replace(text: &str) -> Cow<'_, str> {
    SHAPES.iter().fold(Cow::Borrowed(text), |text, shape| match shape.replace(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(replaced) => Cow::Owned(replaced),
    })
}

/// The text with a label in the place of each part that a pattern of the user's finds: of its group `value`, or else all of it.
pub(super) fn replace_own<'t>(pattern: &Regex, text: &'t str) -> Cow<'t, str> {
    pattern.replace_all(text, |found: &Captures<'_>| with_label(found))
}

static USER_INFORMATION: LazyLock<bytes::Regex> =
    LazyLock::new(|| compiled(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/ \t\r\n:@]*:(?P<value>[^/ \t\r\n@]+)@"));

/// A pattern of bytes: its classes are small, so that it is compiled in no time.
fn compiled(pattern: &str) -> bytes::Regex {
    bytes::RegexBuilder::new(pattern).unicode(false).build().expect("the pattern is a constant that a test compiles")
}

/// The password in a URL (RFC 3986 section 3.2.1), if it has one.
pub fn password_in_url(text: &str) -> Option<&str> {
    let value = USER_INFORMATION.captures(text.as_bytes())?.name("value")?;
    text.get(value.range())
}

impl SecretShape {
    fn new(certainty: Certainty, pattern: &str) -> SecretShape {
        SecretShape { pattern: compiled(pattern), certainty, parts: None }
    }

    fn replace<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.pattern.replace_all(text.as_bytes(), self) {
            Cow::Owned(replaced) if replaced != text.as_bytes() => {
                Cow::Owned(String::from_utf8_lossy(&replaced).into_owned())
            }
            Cow::Owned(_) | Cow::Borrowed(_) => Cow::Borrowed(text),
        }
    }

    /// The replacement of a value; `None` for one that is no secret.
    fn replacement<'v>(&self, value: &'v [u8]) -> Option<Cow<'v, [u8]>> {
        match &self.parts {
            Some(parts) => {
                let each = SecretShape { pattern: parts.clone(), certainty: self.certainty, parts: None };
                Some(parts.replace_all(value, &each))
            }
            None => self.is_secret(value).then_some(Cow::Borrowed(LABEL.as_bytes())),
        }
    }

    fn is_secret(&self, value: &[u8]) -> bool {
        let value = String::from_utf8_lossy(value);
        let is_label = value.starts_with('<') || value.contains(LABEL) || is_variable(&value) || is_placeholder(&value);
        !is_label
            && !value.trim().is_empty()
            && match self.certainty {
                Certainty::Always => true,
                Certainty::LooksRandom => looks_random(&value) || has_letters_and_digits(&value),
                Certainty::HasDigits => has_letters_and_digits(&value),
            }
    }
}

impl bytes::Replacer for &SecretShape {
    fn replace_append(&mut self, found: &bytes::Captures<'_>, replaced: &mut Vec<u8>) {
        let (whole, value) = (found.get_match(), found.name("value"));
        match value.and_then(|value| Some((value, self.replacement(value.as_bytes())?))) {
            None => replaced.extend_from_slice(whole.as_bytes()),
            Some((value, replacement)) => {
                replaced.extend_from_slice(&whole.as_bytes()[..value.start() - whole.start()]);
                replaced.extend_from_slice(&replacement);
                replaced.extend_from_slice(&whole.as_bytes()[value.end() - whole.start()..]);
            }
        }
    }
}

/// Whether a value names a variable, as in `$API_TOKEN` or `${API_TOKEN}`.
fn is_variable(value: &str) -> bool {
    value.strip_prefix('$').is_some_and(|name| {
        let name = name.strip_prefix('{').unwrap_or(name).trim_end_matches('}');
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    })
}

/// Whether a value stands for one of an earlier answer, as in `{1.access_token|token}`. A shape may end before the brace.
fn is_placeholder(value: &str) -> bool {
    let inside = value.strip_prefix('{').map(|inside| inside.trim_end_matches('}'));
    inside.and_then(|inside| inside.split_once('.')).is_some_and(|(number, names)| {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'|');
        number.parse::<usize>().is_ok() && !names.is_empty() && names.bytes().all(is_name)
    })
}

fn with_label(found: &Captures<'_>) -> String {
    let whole = found.get_match();
    let value = found.name("value").unwrap_or(whole);
    let text = whole.as_str();
    let (start, end) = (value.start() - whole.start(), value.end() - whole.start());
    [&text[..start], LABEL, &text[end..]].concat()
}

/// Whether a value is long enough for a secret, and of letters and digits.
fn has_letters_and_digits(value: &str) -> bool {
    value.chars().nth(VALUE_CHARACTERS_MIN - 1).is_some()
        && value.chars().any(|character| character.is_ascii_digit())
        && value.chars().any(char::is_alphabetic)
}

/// Whether a value looks as if a machine had made it: long, of letters of either case, or without a word's end.
fn looks_random(value: &str) -> bool {
    let is_mixed = value.chars().skip(1).any(char::is_uppercase) && value.chars().any(char::is_lowercase);
    let is_one_word = value.chars().all(char::is_alphanumeric);
    let count = value.chars().count();
    count >= VALUE_CHARACTERS_MIN && is_mixed || count >= RANDOM_CHARACTERS_MIN && is_one_word
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::replace;

    #[rstest]
    #[case::bearer("Authorization: Bearer a1b2c3d4e5f6", "Authorization: Bearer <redacted>")]
    #[case::json_header(r#"{"authorization": "Basic dXNlcjpwYXNz"}"#, r#"{"authorization": "Basic <redacted>"}"#)]
    #[case::asgi_header("(b'authorization', b'Bearer a1b2c3d4e5f6')", "(b'authorization', b'Bearer <redacted>')")]
    #[case::cookies(
        "cookie: theme=dark; sid=a1b2c3d4e5; t=z9y8x7w6v5",
        "cookie: theme=dark; sid=<redacted>; t=<redacted>"
    )]
    #[case::set_cookie("set-cookie: sid=a1b2c3d4e5; Path=/", "set-cookie: sid=<redacted>; Path=/")]
    #[case::cookie_behind_a_plain_one(
        "cookie: theme=darkmode; sid=a1b2c3d4e5",
        "cookie: theme=darkmode; sid=<redacted>"
    )]
    #[case::cookie_behind_a_label("cookie: sid=<secret X>; csrf=a1b2c3d4e5", "cookie: sid=<secret X>; csrf=<redacted>")]
    #[case::quoted_cookie("cookie: sid=\"a1b2c3d4e5\"", "cookie: sid=\"<redacted>\"")]
    #[case::asgi_key("(b'x-api-key', b'a1b2c3d4e5')", "(b'x-api-key', b'<redacted>')")]
    #[case::begins_with_a_dollar("postgres://bob:$ecret99@db", "postgres://bob:<redacted>@db")]
    #[case::jwt("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln!", "got <redacted>!")]
    #[case::parameter("GET /ws?room=1&api_key=a1b2c3d4e5&x=1", "GET /ws?room=1&api_key=<redacted>&x=1")]
    #[case::json_key(r#"{"password":"hunter2hunter"}"#, r#"{"password":"<redacted>"}"#)]
    #[case::escaped_json(r#""{\"token\":\"a1b2c3d4e5\"}""#, r#""{\"token\":\"<redacted>\"}""#)]
    #[case::variable("DB_PASSWORD=a1b2c3d4e5", "DB_PASSWORD=<redacted>")]
    #[case::path("/auth/reset/a1b2c3d4e5f6?x=1", "/auth/reset/<redacted>?x=1")]
    #[case::path_with_a_verb("POST /users/password-reset/a1b2c3d4e5", "POST /users/password-reset/<redacted>")]
    #[case::user_information("postgres://bob:pw@db/x", "postgres://bob:<redacted>@db/x")]
    #[case::key_of_a_service("key sk_live_abcdefgh12", "key <redacted>")]
    #[case::private_key(
        "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----<redacted>-----END PRIVATE KEY-----"
    )]
    fn an_unknown_secret_is_replaced(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(replace(text), expected);
        assert_eq!(replace(expected), expected, "what is replaced stays as it is");
    }

    #[rstest]
    #[case::word("GET /ws?token=undefined")]
    #[case::number("GET /items?code=1234&page=2")]
    #[case::label("Authorization: Bearer <expired token of user-1>")]
    #[case::value_of_an_answer("authorization: Bearer {1.access_token|token}")]
    #[case::header_of_an_answer(r#"headers = { x-token = "{1.x_token|id|token}" }"#)]
    #[case::json_of_an_answer(r#"{"token":"{2.token|key}"}"#)]
    #[case::variable("--env API_TOKEN=\"$API_TOKEN\"")]
    #[case::shell_variable("API_TOKEN=${API_TOKEN_1}")]
    #[case::route("GET /auth/reset/{token}")]
    #[case::path_of_words("GET /password/forgotten")]
    #[case::url("http://127.0.0.1:8000/ws")]
    #[case::code("token = validated_credentials(binding)")]
    #[case::class("auth: HTTPAuthorizationCredentials")]
    #[case::text("the client sent a token, and the server closed with 1008")]
    fn everything_else_stays(#[case] text: &str) {
        assert_eq!(replace(text), text);
    }
}
