//! How an exchange ended for the client, and the class it falls in.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{
    judge::{cause::Cause, harm::Harm},
    record::transcript::Actor,
    wire::close_code::CloseCode,
};

/// The class of an outcome: what it means to the one who called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The session opened, greeted the client and answered everything; for plain HTTP, a complete 2xx answer.
    #[serde(rename = "ok")]
    Served,
    /// A missing or bad credential was refused, and said so.
    RefusedAuth,
    /// Something behind the service is not ready: 503 with `Retry-After`, close 1013, or close 4503 behind a server
    /// that sends private codes only. A connection refused at once while the process is kept from starting counts too.
    RefusedUnavailable,
    /// The request itself is at fault: 400, 404, 405, 413, 426, 429, or close 1009.
    RefusedRequest,
    /// An injected fault between client and application broke the exchange; other exchanges and the service's own
    /// event log must show whether the service is healthy.
    CutByFault,
    /// HTTP 500, close 1011, or nothing that listens.
    ServerError,
    /// No close frame, a truncated body, an illegal close, an unusable handshake.
    Dropped,
    /// Nothing came before the deadline.
    Hang,
    /// The answer hides what happened: a refusal without a reason for one, a normal close without a session.
    DisguisedError,
    /// A session without a valid credential, or under a foreign identity.
    WronglyAdmitted,
    /// A message was taken and never answered, while the session lived on.
    NoAnswer,
}

impl Class {
    /// Every class, good ones first.
    pub const ALL: [Class; 11] = [
        Class::Served,
        Class::RefusedAuth,
        Class::RefusedUnavailable,
        Class::RefusedRequest,
        Class::CutByFault,
        Class::ServerError,
        Class::Dropped,
        Class::Hang,
        Class::DisguisedError,
        Class::WronglyAdmitted,
        Class::NoAnswer,
    ];

    /// Whether a client can live with it.
    pub fn is_good(self) -> bool {
        self.harm().is_none()
    }

    /// The classes that a client can live with.
    pub fn good() -> impl Iterator<Item = Class> {
        Class::ALL.into_iter().filter(|class| class.is_good())
    }

    /// The harm of such an outcome; `None` where the class is good.
    pub fn harm(self) -> Option<Harm> {
        match self {
            Class::Served
            | Class::RefusedAuth
            | Class::RefusedUnavailable
            | Class::RefusedRequest
            | Class::CutByFault => None,
            Class::WronglyAdmitted => Some(Harm::Admitted),
            Class::ServerError => Some(Harm::Crash),
            Class::Hang | Class::NoAnswer => Some(Harm::Hang),
            Class::Dropped => Some(Harm::Drop),
            Class::DisguisedError => Some(Harm::Disguised),
        }
    }

    /// The class's name, as cases and reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Class::Served => "ok",
            Class::RefusedAuth => "refused-auth",
            Class::RefusedUnavailable => "refused-unavailable",
            Class::RefusedRequest => "refused-request",
            Class::CutByFault => "cut-by-fault",
            Class::ServerError => "server-error",
            Class::Dropped => "dropped",
            Class::Hang => "hang",
            Class::DisguisedError => "disguised-error",
            Class::WronglyAdmitted => "wrongly-admitted",
            Class::NoAnswer => "no-answer",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The last thing the client saw.
///
/// 1005 and 1006 are not close codes here, because they never go over the wire: they stand for a close frame without a
/// code, and for no close frame at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// An HTTP answer instead of, or without, an upgrade.
    Http {
        /// The status code.
        status: u16,
        /// Whether the body arrived whole.
        complete: bool,
    },
    /// A close frame.
    Close {
        /// Its code; `None` for an empty close frame, which clients report as 1005.
        code: Option<CloseCode>,
        /// Its reason.
        reason: String,
    },
    /// The stream ended without a close frame or an answer; clients report 1006.
    Drop,
    /// The client gave the handshake up, because it breaks RFC 6455 section 4.1.
    BadHandshake {
        /// The rule that it breaks.
        why: String,
    },
    /// A deadline passed.
    Hang {
        /// The event that the client was waiting for.
        waiting_for: String,
    },
    /// A message stayed unanswered while the session lived on.
    Silence {
        /// The event that the client was waiting for.
        waiting_for: String,
    },
    /// The client closed, and the server answered its close frame.
    Parted {
        /// The code of the server's answer; `None` for an empty close frame.
        code: Option<CloseCode>,
    },
    /// The client left without a close frame; nothing was wrong until then.
    Left,
    /// Nothing listened.
    Refused,
    /// The app did not load or did not start, so that no client was served.
    NotStarted {
        /// The exception, or what the server said.
        why: String,
    },
}

impl Ending {
    /// The texts of the endings that carry no number.
    pub const FIXED_TEXTS: [&str; 8] = [
        "close without code (1005)",
        "drop (1006)",
        "bad handshake (1006)",
        "hang",
        "silence",
        "left",
        "refused",
        "does not start",
    ];

    /// The reason in a close frame of the service.
    pub fn reason(&self) -> Option<&str> {
        if let Ending::Close { reason, .. } = self { Some(reason) } else { None }
    }

    /// Why the app did not start.
    pub fn why_not_started(&self) -> Option<&str> {
        if let Ending::NotStarted { why } = self { Some(why) } else { None }
    }

    /// The event that the client was waiting for when its time was up.
    pub fn waiting_for(&self) -> Option<&str> {
        match self {
            Ending::Hang { waiting_for } | Ending::Silence { waiting_for } => Some(waiting_for),
            Ending::Http { .. }
            | Ending::Close { .. }
            | Ending::Drop
            | Ending::BadHandshake { .. }
            | Ending::Parted { .. }
            | Ending::Left
            | Ending::Refused
            | Ending::NotStarted { .. } => None,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Ending::Http { status, complete: true } => format!("http {status}"),
            Ending::Http { status, complete: false } => format!("http {status} truncated"),
            Ending::Close { code: Some(code), .. } | Ending::Parted { code: Some(code) } => format!("close {code}"),
            Ending::Close { code: None, .. } | Ending::Parted { code: None } => "close without code (1005)".to_owned(),
            Ending::Drop => "drop (1006)".to_owned(),
            Ending::BadHandshake { .. } => "bad handshake (1006)".to_owned(),
            Ending::Hang { .. } => "hang".to_owned(),
            Ending::Silence { .. } => "silence".to_owned(),
            Ending::Left => "left".to_owned(),
            Ending::Refused => "refused".to_owned(),
            Ending::NotStarted { .. } => "does not start".to_owned(),
        };
        f.pad(&text)
    }
}

/// A number with digits left open at its end: `1011`, `4xx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NumberPattern {
    /// The digits that are given.
    prefix: u16,
    /// How many digits are left open.
    open: u32,
}

impl NumberPattern {
    /// Whether a number fits.
    pub fn fits(self, number: u16) -> bool {
        number / 10_u16.pow(self.open) == self.prefix
    }

    fn fits_any(self, numbers: &[u16]) -> bool {
        numbers.iter().any(|number| self.fits(*number))
    }

    /// Reads an HTTP status.
    fn status(text: &str) -> Option<NumberPattern> {
        NumberPattern::read(text, 200..=599)
    }

    /// Reads a close code.
    fn close_code(text: &str) -> Option<NumberPattern> {
        NumberPattern::read(text, 1000..=4999)
    }

    /// Reads a number with as many digits as the end of the range. `x` stands for any digit, and no digit follows it.
    fn read(text: &str, range: RangeInclusive<u16>) -> Option<NumberPattern> {
        let digits = text.trim_end_matches('x');
        let open = text.len() - digits.len();
        let length = range.end().to_string().len();
        let prefix: u16 = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        let pattern = NumberPattern { prefix, open: u32::try_from(open).ok()? };
        (text.len() == length && open < length && range.into_iter().any(|number| pattern.fits(number)))
            .then_some(pattern)
    }
}

impl fmt::Display for NumberPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.prefix, "x".repeat(self.open as usize))
    }
}

/// Outcomes as case files name them: `http 500`, `http 4xx`, `http 200 truncated`, `close 1008`, `close 44xx`, or one of
/// [`Ending::FIXED_TEXTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutcomePattern {
    /// A whole HTTP answer.
    Http(NumberPattern),
    /// An HTTP answer whose body is cut short.
    HttpTruncated(NumberPattern),
    /// A close frame with a code.
    Close(NumberPattern),
    /// An empty close frame.
    CloseWithoutCode,
    /// The end of the stream without a close frame.
    Drop,
    /// A 101 that is no answer to the handshake.
    BadHandshake,
    /// Nothing within the limit.
    Hang,
    /// A message without an answer.
    Silence,
    /// The client left.
    Left,
    /// Nothing listened.
    Refused,
    /// The app did not start.
    NotStarted,
}

impl OutcomePattern {
    /// Whether an ending fits.
    pub fn fits(self, ending: &Ending) -> bool {
        match ending {
            Ending::Http { status, complete: true } => {
                matches!(self, OutcomePattern::Http(number) if number.fits(*status))
            }
            Ending::Http { status, complete: false } => {
                matches!(self, OutcomePattern::HttpTruncated(number) if number.fits(*status))
            }
            Ending::Close { code: Some(code), .. } | Ending::Parted { code: Some(code) } => {
                matches!(self, OutcomePattern::Close(number) if number.fits(code.0))
            }
            Ending::Close { code: None, .. } | Ending::Parted { code: None } => {
                self == OutcomePattern::CloseWithoutCode
            }
            Ending::Drop => self == OutcomePattern::Drop,
            Ending::BadHandshake { .. } => self == OutcomePattern::BadHandshake,
            Ending::Hang { .. } => self == OutcomePattern::Hang,
            Ending::Silence { .. } => self == OutcomePattern::Silence,
            Ending::Left => self == OutcomePattern::Left,
            Ending::Refused => self == OutcomePattern::Refused,
            Ending::NotStarted { .. } => self == OutcomePattern::NotStarted,
        }
    }

    /// Reads one that has a number.
    fn numbered(text: &str) -> Option<OutcomePattern> {
        match text.split_once(' ')? {
            ("close", code) => NumberPattern::close_code(code).map(OutcomePattern::Close),
            ("http", rest) => match rest.strip_suffix(" truncated") {
                Some(status) => NumberPattern::status(status).map(OutcomePattern::HttpTruncated),
                None => NumberPattern::status(rest).map(OutcomePattern::Http),
            },
            _ => None,
        }
    }

    /// Whether it is a failure of the service whatever a case says: a 500, 502 or 504, a 1011, an illegal close code, or no
    /// end in order. No case accepts one.
    pub fn is_failure(self) -> bool {
        match self {
            OutcomePattern::Http(number) => number.fits_any(&[500, 502, 504]),
            OutcomePattern::Close(number) => number.fits_any(&[1005, 1006, 1011, 1015]),
            OutcomePattern::HttpTruncated(_)
            | OutcomePattern::Drop
            | OutcomePattern::BadHandshake
            | OutcomePattern::Hang
            | OutcomePattern::Silence
            | OutcomePattern::Refused
            | OutcomePattern::NotStarted => true,
            OutcomePattern::CloseWithoutCode | OutcomePattern::Left => false,
        }
    }
}

impl FromStr for OutcomePattern {
    type Err = ();

    fn from_str(text: &str) -> Result<OutcomePattern, ()> {
        let pattern = match text {
            "close without code (1005)" => OutcomePattern::CloseWithoutCode,
            "drop (1006)" => OutcomePattern::Drop,
            "bad handshake (1006)" => OutcomePattern::BadHandshake,
            "hang" => OutcomePattern::Hang,
            "silence" => OutcomePattern::Silence,
            "left" => OutcomePattern::Left,
            "refused" => OutcomePattern::Refused,
            "does not start" => OutcomePattern::NotStarted,
            _ => return OutcomePattern::numbered(text).ok_or(()),
        };
        Ok(pattern)
    }
}

impl fmt::Display for OutcomePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutcomePattern::Http(number) => write!(f, "http {number}"),
            OutcomePattern::HttpTruncated(number) => write!(f, "http {number} truncated"),
            OutcomePattern::Close(number) => write!(f, "close {number}"),
            OutcomePattern::CloseWithoutCode => f.write_str("close without code (1005)"),
            OutcomePattern::Drop => f.write_str("drop (1006)"),
            OutcomePattern::BadHandshake => f.write_str("bad handshake (1006)"),
            OutcomePattern::Hang => f.write_str("hang"),
            OutcomePattern::Silence => f.write_str("silence"),
            OutcomePattern::Left => f.write_str("left"),
            OutcomePattern::Refused => f.write_str("refused"),
            OutcomePattern::NotStarted => f.write_str("does not start"),
        }
    }
}

/// The result of one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its class.
    pub class: Class,
    /// Its root cause.
    pub cause: Cause,
    /// The last thing the client saw.
    pub ending: Ending,
    /// The actor that ended it.
    pub closed_by: Actor,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}; {})", self.ending, self.class, self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::{Ending, OutcomePattern};
    use crate::wire::close_code::CloseCode;

    fn pattern(text: &str) -> OutcomePattern {
        text.parse().unwrap_or_else(|()| panic!("{text}"))
    }

    #[test]
    fn a_pattern_reads_as_it_is_written() {
        for text in Ending::FIXED_TEXTS.into_iter().chain(["http 500", "http 4xx", "http 200 truncated", "close 44xx"])
        {
            assert_eq!(pattern(text).to_string(), text);
        }
        for text in
            ["http", "http 99", "http 600", "http x00", "http xxx", "http 5000", "close 999", "close 5000", "drop", ""]
        {
            assert!(text.parse::<OutcomePattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn open_digits_fit_any_digit() {
        let http = |status| Ending::Http { status, complete: true };
        assert!(pattern("http 4xx").fits(&http(404)) && pattern("http 40x").fits(&http(404)));
        assert!(!pattern("http 4xx").fits(&http(500)) && !pattern("http 41x").fits(&http(404)));
        assert!(!pattern("http 4xx").fits(&Ending::Http { status: 404, complete: false }));
        let close = |code| Ending::Close { code: Some(CloseCode(code)), reason: String::new() };
        assert!(pattern("close 44xx").fits(&close(4401)) && !pattern("close 1011").fits(&close(1000)));
    }

    #[test]
    fn failures_are_known_whatever_is_left_open() {
        for text in ["http 5xx", "http 500", "close 1011", "close 10xx", "drop (1006)", "hang", "does not start"] {
            assert!(pattern(text).is_failure(), "{text}");
        }
        for text in ["http 4xx", "http 503", "close 1008", "close 1000", "left"] {
            assert!(!pattern(text).is_failure(), "{text}");
        }
    }
}
