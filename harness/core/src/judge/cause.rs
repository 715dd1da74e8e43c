//! The cause of an outcome.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The cause of an outcome. One and the same cause looks different behind different servers, which is why it is
/// judged beside the class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Client, server and app did their parts.
    Clean,
    /// The application decided so: it answered or closed on its own account.
    AppDecision,
    /// The application itself closed with 1011.
    #[serde(rename = "app-sent-1011")]
    AppSent1011,
    /// An exception left the application before it accepted or answered.
    CrashBeforeResponse,
    /// An exception left the application after it accepted, or in the middle of an answer.
    CrashAfterAccept,
    /// The application returned and left the client without an answer or a close.
    ReturnedWithoutResponse,
    /// One side broke the protocol: an illegal close, a subprotocol that was not offered, a body shorter than
    /// announced.
    Protocol,
    /// The server refused the request itself; the application was not called.
    Server,
    /// A ping went unanswered for too long.
    KeepaliveTimeout,
    /// The application took longer to answer the handshake than the server lets it.
    HandshakeTimeout,
    /// The server was told to stop, and ended the exchange.
    Shutdown,
    /// The application is still waiting for something.
    Hang,
    /// No process listened.
    NoListener,
    /// A fault was injected between client and application.
    Injected,
    /// Nothing decides it.
    Unknown,
}

impl Cause {
    /// Whether the app's call ended without the answer or the close that it owed.
    pub(crate) fn is_crash(self) -> bool {
        matches!(self, Cause::CrashBeforeResponse | Cause::CrashAfterAccept | Cause::ReturnedWithoutResponse)
    }

    /// The cause's name, as cases and reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Clean => "clean",
            Cause::AppDecision => "app-decision",
            Cause::AppSent1011 => "app-sent-1011",
            Cause::CrashBeforeResponse => "crash-before-response",
            Cause::CrashAfterAccept => "crash-after-accept",
            Cause::ReturnedWithoutResponse => "returned-without-response",
            Cause::Protocol => "protocol",
            Cause::Server => "server",
            Cause::KeepaliveTimeout => "keepalive-timeout",
            Cause::HandshakeTimeout => "handshake-timeout",
            Cause::Shutdown => "shutdown",
            Cause::Hang => "hang",
            Cause::NoListener => "no-listener",
            Cause::Injected => "injected",
            Cause::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
