//! How an exchange ended for the client, and the class it falls in.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{cause::Cause, close_code::CloseCode, transcript::Party};

/// The class of an outcome: what it means to the one who called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The session opened, greeted the client and answered everything; for plain HTTP, a complete 2xx answer.
    GoodOpen,
    /// A missing or bad credential was refused, and said so.
    GoodAuthRefusal,
    /// Something behind the service is not ready: 503 with `Retry-After`, close 1013, or close 4503 behind a server
    /// that sends private codes only. A connection refused at once while the process is kept from starting counts too.
    GoodNotReady,
    /// The request itself is at fault: 400, 404, 405, 413, 426, 429, or close 1009.
    GoodBadRequest,
    /// What was injected between client and application broke the exchange; whether the service is in order, other
    /// exchanges and the service's own ledger must say.
    Unclean,
    /// HTTP 500, close 1011, or nothing that listens.
    BadServer,
    /// No close frame, a truncated body, an illegal close, an unusable handshake.
    BadDrop,
    /// Nothing came before the deadline.
    BadHang,
    /// The answer hides what happened: a refusal without a reason for one, a normal close without a session.
    BadMask,
    /// A session without a valid credential, or under a foreign identity.
    BadOpen,
    /// A message was taken and never answered, while the session lived on.
    BadSilent,
}

impl Class {
    /// Every class, good ones first.
    pub const ALL: [Class; 11] = [
        Class::GoodOpen,
        Class::GoodAuthRefusal,
        Class::GoodNotReady,
        Class::GoodBadRequest,
        Class::Unclean,
        Class::BadServer,
        Class::BadDrop,
        Class::BadHang,
        Class::BadMask,
        Class::BadOpen,
        Class::BadSilent,
    ];

    /// Whether a client can live with it.
    pub fn is_good(self) -> bool {
        matches!(
            self,
            Class::GoodOpen | Class::GoodAuthRefusal | Class::GoodNotReady | Class::GoodBadRequest | Class::Unclean
        )
    }

    /// The classes that a client can live with.
    pub fn good() -> impl Iterator<Item = Class> {
        Class::ALL.into_iter().filter(|class| class.is_good())
    }

    /// The class's name, as cases and reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Class::GoodOpen => "good-open",
            Class::GoodAuthRefusal => "good-auth-refusal",
            Class::GoodNotReady => "good-not-ready",
            Class::GoodBadRequest => "good-bad-request",
            Class::Unclean => "unclean",
            Class::BadServer => "bad-server",
            Class::BadDrop => "bad-drop",
            Class::BadHang => "bad-hang",
            Class::BadMask => "bad-mask",
            Class::BadOpen => "bad-open",
            Class::BadSilent => "bad-silent",
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
/// 1005 and 1006 are not close codes here, because nobody sends them: they are a close frame without a code, and no
/// close frame at all.
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
        /// What is wrong with it.
        why: String,
    },
    /// A deadline passed.
    Hang {
        /// What the client was waiting for.
        waiting_for: String,
    },
    /// A message stayed unanswered while the session lived on.
    Silence {
        /// What the client was waiting for.
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
}

impl Ending {
    /// The texts of the endings that carry no number.
    pub const FIXED_TEXTS: [&str; 7] =
        ["close without code (1005)", "drop (1006)", "bad handshake (1006)", "hang", "silence", "left", "refused"];
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
        };
        f.pad(&text)
    }
}

/// What became of one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its class.
    pub class: Class,
    /// What brought it about.
    pub cause: Cause,
    /// The last thing the client saw.
    pub ending: Ending,
    /// Who ended it.
    pub closed_by: Party,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}; {})", self.ending, self.class, self.cause)
    }
}
