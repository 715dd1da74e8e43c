//! Names whose values are secrets: of headers, parameters, keys, form fields and variables.

use std::sync::LazyLock;

use regex::Regex;

/// Parts of names whose value is a secret, whatever it looks like.
const CERTAIN: &str = "token|secret|passw(?:or)?d|passphrase|api[_-]?key|authorization|credential|jwt|ticket";
/// Parts of names whose value is a secret if it looks like one: `auth` is a part of `author`, too.
const LIKELY: &str = "pwd|access[_-]?key|private[_-]?key|signature|session[_-]?id|sessid|auth|otp";
/// Ends of names whose value is a secret. They are too short to be looked for everywhere.
const ENDS: &str = "_(?:auth|dsn|key|pass|pat|pwd)";
/// Parts of the names of headers and parameters that carry a credential or belong to one session.
const IN_HEAD: &str = "auth|bearer|cookie|csrf|key|session|signature";

static SECRET: LazyLock<Regex> = LazyLock::new(|| compiled(&format!("(?i-u)(?:{CERTAIN})|{ENDS}$")));
static SECRET_IN_HEAD: LazyLock<Regex> = LazyLock::new(|| compiled(&format!("(?i-u){IN_HEAD}")));

/// Whether the value of this name is a secret, whatever it looks like.
pub fn holds_secret(name: &str) -> bool {
    SECRET.is_match(name)
}

/// Whether a header or a parameter of this name carries a credential, or belongs to one session.
pub fn holds_secret_in_head(name: &str) -> bool {
    holds_secret(name) || SECRET_IN_HEAD.is_match(name)
}

/// A pattern for parts of names whose value is a secret if it looks like one.
pub(super) fn suspicious() -> String {
    format!("{CERTAIN}|{LIKELY}")
}

fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is a constant that a test compiles")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::field("Password", true, true)]
    #[case::short("passwd", true, true)]
    #[case::variable("STRIPE_API_KEY", true, true)]
    #[case::end("SENTRY_DSN", true, true)]
    #[case::access_key("aws_access_key", true, true)]
    #[case::within("ticketing", true, true)]
    #[case::header("Cookie", false, true)]
    #[case::session("session", false, true)]
    #[case::word("author", false, true)]
    #[case::room("room", false, false)]
    #[case::not_at_the_end("_keys", false, true)]
    fn a_name_tells_whether_its_value_is_a_secret(#[case] name: &str, #[case] everywhere: bool, #[case] in_head: bool) {
        assert_eq!((holds_secret(name), holds_secret_in_head(name)), (everywhere, in_head));
    }
}
