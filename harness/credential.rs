//! The credentials a client can present, and the places it can present them in.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use memchr::memmem;
use serde::{Deserialize, Serialize};

use crate::head::RequestHead;

/// A kind of credential. Whoever knows the target's secret turns it into text; only [`Credential::Valid`] may open a
/// session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credential {
    /// A token that satisfies every rule.
    Valid,
    /// No credential at all.
    None,
    /// An empty value where a token belongs.
    Empty,
    /// Text that is no token: `invalid_token`.
    Garbage,
    /// An `Authorization` header that names no scheme: `InvalidFormat`. Elsewhere the same as garbage.
    NoScheme,
    /// Expired an hour ago.
    Expired,
    /// Issued ten minutes in the future.
    NotYetValid,
    /// Signed with another secret.
    WrongSignature,
    /// Another issuer.
    WrongIssuer,
    /// Another audience.
    WrongAudience,
    /// No `sub` claim.
    MissingSubject,
    /// `alg: none` and no signature.
    Unsigned,
    /// Two segments instead of three.
    TwoSegments,
}

/// Where a credential travels on an upgrade request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialPlace {
    /// `Authorization: Bearer <token>`.
    Header,
    /// `Sec-WebSocket-Protocol: jwt-auth, jwt.<base64url of the token>`, as the front end sends it.
    Subprotocol,
    /// `Sec-WebSocket-Protocol: jwt.<base64url of the token>` and nothing else.
    SubprotocolAlone,
    /// The query parameter `token`.
    Query,
}

/// A credential as it was put into a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Its kind.
    pub kind: Credential,
    /// Its text; empty for none.
    pub text: String,
    /// The user it names.
    pub subject: String,
}

impl Presented {
    /// Whether a session may be opened on it.
    pub fn is_valid(&self) -> bool {
        self.kind == Credential::Valid
    }

    /// Whether a request head carries the credential, as itself or as base64url.
    pub fn is_in(&self, head: &RequestHead) -> bool {
        if self.text.is_empty() {
            return false;
        }
        let contains = |bytes: &[u8], needle: &[u8]| memmem::find(bytes, needle).is_some();
        let token = self.text.as_bytes();
        contains(&head.target, token)
            || head.headers.iter().any(|(name, value)| {
                if name.eq_ignore_ascii_case(b"sec-websocket-protocol") {
                    contains(value, BASE64_URL_SAFE_NO_PAD.encode(token).as_bytes()) || contains(value, token)
                } else {
                    contains(value, token)
                }
            })
    }
}
