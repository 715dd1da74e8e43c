//! The credentials a client can present, and the places it can present them in.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::wire::head::RequestHead;

/// A kind of credential. The target, which has the secret, turns it into text; only [`Credential::Valid`] may open a
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

/// The kind of text that a credential is.
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

    /// The subprotocols that a client offers there; one that ends in a dot stands for all that begin with it.
    pub fn subprotocols(self) -> &'static [&'static str] {
        match self {
            CredentialPlace::Subprotocol => &["jwt-auth", "jwt."],
            CredentialPlace::SubprotocolAlone => &["jwt."],
            CredentialPlace::StagingSubprotocol => &["staging-auth."],
            _ => &[],
        }
    }
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

    /// The kinds that can be made of a valid JSON Web Token without the secret.
    pub const FORGED: [Credential; 4] =
        [Credential::WrongSignature, Credential::Unsigned, Credential::TwoSegments, Credential::OverLong];

    /// A credential of this kind, made of a valid one; nothing where it cannot be, or that one is no JSON Web Token.
    pub fn forged(self, valid: &str) -> Option<String> {
        let (signed, signature) = valid.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: serde_json::Value =
            BASE64_URL_SAFE_NO_PAD.decode(header).ok().and_then(|header| serde_json::from_slice(&header).ok())?;
        header.get("alg")?;
        // The last character need not count; the first one does.
        let another = if signature.starts_with('A') { 'B' } else { 'A' };
        match self {
            Credential::WrongSignature => Some(format!("{signed}.{another}{}", signature.get(1..)?)),
            Credential::Unsigned => {
                let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
                Some(format!("{header}.{claims}."))
            }
            Credential::TwoSegments => Some(signed.to_owned()),
            Credential::OverLong => Some(format!("{valid}{}", "A".repeat(OVER_LONG))),
            _ => None,
        }
    }
}

/// How many characters too many an over-long token has.
const OVER_LONG: usize = 8192;

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
        holds(&head.target, token)
            || head.headers.iter().any(|(name, value)| {
                let is_list = name.eq_ignore_ascii_case(b"sec-websocket-protocol");
                let carries = is_list || name.eq_ignore_ascii_case(b"authorization");
                carries && (holds(value, token) || holds(value, BASE64_URL_SAFE_NO_PAD.encode(token).as_bytes()))
            })
    }
}

/// Whether bytes hold a credential. It almost always stands last and fills most of where it stands: preparing a search
/// costs more.
fn holds(bytes: &[u8], credential: &[u8]) -> bool {
    bytes.ends_with(credential) || bytes.windows(credential.len()).any(|window| window == credential)
}

#[cfg(test)]
mod tests {
    use super::Credential;

    #[test]
    fn a_token_is_forged_of_a_valid_one() {
        let valid = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.ABC";
        let forged = |kind: Credential| kind.forged(valid).unwrap();
        assert_eq!(forged(Credential::WrongSignature), "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.BBC");
        assert_eq!(forged(Credential::Unsigned), "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJhIn0.");
        assert_eq!(forged(Credential::TwoSegments), "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0");
        assert!(Credential::FORGED.iter().all(|kind| kind.forged(valid).is_some_and(|text| text != valid)));
        assert_eq!(Credential::Expired.forged(valid), None);
        // A text that is not a JSON Web Token cannot be forged.
        for opaque in ["secret", "a.b.c", "eyJhbGciOiJIUzI1NiJ9", "bm90.anNvbg.x"] {
            assert!(Credential::FORGED.iter().all(|kind| kind.forged(opaque).is_none()), "{opaque}");
        }
    }
}
