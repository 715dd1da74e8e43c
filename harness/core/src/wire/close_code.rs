//! WebSocket close codes, and which of them may stand in a close frame.

use std::fmt;

/// A close code as it stands in a frame. Values without a name survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// Normal closure.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The endpoint goes away.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// A protocol error of the peer.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// No code in the frame; never sent (RFC 6455 section 7.4.1), but ASGI events carry it.
    pub const NO_STATUS: CloseCode = CloseCode(1005);
    /// No close frame at all; never sent (RFC 6455 section 7.4.1), but ASGI events carry it.
    pub const ABNORMAL: CloseCode = CloseCode(1006);
    /// A payload that does not fit its type, such as bad UTF-8.
    pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
    /// A policy refuses the peer.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// A message is too big.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// An internal error of the server.
    pub const INTERNAL: CloseCode = CloseCode(1011);
    /// The service restarts; come again (IANA registry).
    pub const SERVICE_RESTART: CloseCode = CloseCode(1012);
    /// Try again later (IANA registry).
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);
    /// A gateway got a bad answer (IANA registry).
    pub const BAD_GATEWAY: CloseCode = CloseCode(1014);
    /// The application range's counterpart of 1013, for servers that send no other codes than 1000 and private ones.
    pub const PRIVATE_UNAVAILABLE: CloseCode = CloseCode(4503);
    /// The application range's counterpart of 1011, for the same servers.
    pub const PRIVATE_INTERNAL: CloseCode = CloseCode(4500);
    /// The application range's usual "unauthorized".
    pub const UNAUTHORIZED: CloseCode = CloseCode(4401);

    /// The longest close reason: 125 bytes of control payload less the code (RFC 6455 sections 5.5 and 5.5.1).
    pub const REASON_BYTES_MAX: usize = 123;

    /// Whether the code may stand in a close frame: 1000 to 1003, 1007 to 1014, or 3000 to 4999
    /// (RFC 6455 section 7.4 with the IANA registry).
    pub fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
