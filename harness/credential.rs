//! The credentials a client can present, and the places it can present them in.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
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
    /// No `exp` claim.
    MissingExpiry,
    /// No `iat` claim.
    MissingIssueTime,
    /// No `iss` claim.
    MissingIssuer,
    /// No `jti` claim.
    MissingId,
    /// No `aud` claim.
    MissingAudience,
    /// Issued more than a day ago, though not expired.
    TooOld,
    /// A refresh token.
    WrongType,
    /// Another service's token.
    WrongService,
    /// Another environment's token.
    WrongEnvironment,
    /// Signed with the right secret by another algorithm than HS256.
    WrongAlgorithm,
    /// Longer than any token is.
    OverLong,
    /// Revoked by the auth service.
    Revoked,
    /// `alg: none` and no signature.
    Unsigned,
    /// Two segments instead of three.
    TwoSegments,
}

/// What a credential is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// A JSON Web Token.
    Token,
    /// A ticket: an identifier that the service gave out for a token, good for one session and a short time.
    Ticket,
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
    /// `Sec-WebSocket-Protocol: staging-auth.<base64url of the token>` and nothing else.
    StagingSubprotocol,
    /// The query parameter `token`.
    Query,
    /// The query parameter `ticket`, with a ticket instead of a token.
    Ticket,
    /// `Authorization: bearer <token>`, the scheme in lower case.
    LowerCaseHeader,
}

impl CredentialPlace {
    /// Every place.
    pub const ALL: [CredentialPlace; 7] = [
        CredentialPlace::Header,
        CredentialPlace::Subprotocol,
        CredentialPlace::SubprotocolAlone,
        CredentialPlace::StagingSubprotocol,
        CredentialPlace::Query,
        CredentialPlace::Ticket,
        CredentialPlace::LowerCaseHeader,
    ];
}

impl Credential {
    /// Every kind.
    pub const ALL: [Credential; 25] = [
        Credential::Valid,
        Credential::None,
        Credential::Empty,
        Credential::Garbage,
        Credential::NoScheme,
        Credential::Expired,
        Credential::NotYetValid,
        Credential::WrongSignature,
        Credential::WrongIssuer,
        Credential::WrongAudience,
        Credential::MissingSubject,
        Credential::MissingExpiry,
        Credential::MissingIssueTime,
        Credential::MissingIssuer,
        Credential::MissingId,
        Credential::MissingAudience,
        Credential::TooOld,
        Credential::WrongType,
        Credential::WrongService,
        Credential::WrongEnvironment,
        Credential::WrongAlgorithm,
        Credential::OverLong,
        Credential::Revoked,
        Credential::Unsigned,
        Credential::TwoSegments,
    ];
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

    /// Whether a request head carries the credential where credentials travel, as itself or as base64url.
    pub fn is_in(&self, head: &RequestHead) -> bool {
        if self.text.is_empty() {
            return false;
        }
        let token = self.text.as_bytes();
        // A credential almost always stands last and fills most of where it stands: preparing a search costs more.
        let holds = |bytes: &[u8], needle: &[u8]| {
            bytes.ends_with(needle) || bytes.windows(needle.len()).any(|window| window == needle)
        };
        holds(&head.target, token)
            || head.headers.iter().any(|(name, value)| {
                let is_list = name.eq_ignore_ascii_case(b"sec-websocket-protocol");
                let carries = is_list || name.eq_ignore_ascii_case(b"authorization");
                carries && (holds(value, token) || holds(value, BASE64_URL_SAFE_NO_PAD.encode(token).as_bytes()))
            })
    }
}
