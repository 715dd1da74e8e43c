//! JSON Web Tokens: the rules a token must satisfy, and tokens that break one of them.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use relapse::environment::Environment;
use relapse_core::client::credential::Credential;

const ISSUER: &str = "netra-auth-service";
/// The only `svc_id` a token may name.
const SERVICE: &str = "netra-backend";
const AUDIENCES: [&str; 5] = ["netra-platform", "netra-services", "netra-admin", "netra-backend", "netra-auth"];
const AUDIENCES_IN_DEVELOPMENT: [&str; 3] = ["test", "localhost", "development"];

/// The oldest a token may be, in seconds.
const AGE_MAX: i64 = 24 * 3600;
/// How far in the future a token may have been issued, in seconds.
const FUTURE_MAX: i64 = 60;
/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 8192;

/// The smallest signing secret, in characters.
pub(super) const SECRET_CHARACTERS_MIN: usize = 32;

#[derive(Debug, Serialize, Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow, default)]
    typ: Cow<'a, str>,
}

/// The claims a token carries. Every one may be missing in what a client sends.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Claims<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    sub: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    iss: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    aud: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    jti: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    env: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    token_type: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    svc_id: Option<Cow<'a, str>>,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenRefusal {
    /// It is no token at all.
    Format,
    /// A rule is broken.
    Validation,
    /// Its time is over.
    Expired,
}

/// How the identifier of a token begins that the auth service has revoked.
const REVOKED_PREFIX: &str = "revoked-";

/// A token that satisfies every rule that can be told from it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verified {
    /// The user it names.
    pub(super) user: String,
    /// Its identifier, by which the auth service knows it.
    id: String,
}

impl Verified {
    /// The auth service's answer about it: the built-in one has revoked every token whose identifier says so.
    pub(super) fn is_revoked(&self) -> bool {
        self.id.starts_with(REVOKED_PREFIX)
    }
}

/// The contents of a token, if it satisfies every rule at this time (seconds since 1970).
pub(super) fn verify(
    token: &str,
    key: &SigningKey,
    now: i64,
    environment: Environment,
) -> Result<Verified, TokenRefusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenRefusal::Format);
    }
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenRefusal::Format);
    };
    let (header_bytes, signature_bytes) = (decode(header)?, decode(signature)?);
    let algorithm: Header<'_> = serde_json::from_slice(&header_bytes).map_err(|_| TokenRefusal::Format)?;
    if algorithm.alg != "HS256" {
        return Err(TokenRefusal::Validation);
    }
    let signed = &token.as_bytes()[..header.len() + 1 + claims.len()];
    if !key.verifies(signed, &signature_bytes) {
        return Err(TokenRefusal::Validation);
    }
    let claims = decode(claims)?;
    satisfies(serde_json::from_slice(&claims).map_err(|_| TokenRefusal::Validation)?, now, environment)
}

fn decode(part: &str) -> Result<Vec<u8>, TokenRefusal> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenRefusal::Format)
}

fn satisfies(claims: Claims<'_>, now: i64, environment: Environment) -> Result<Verified, TokenRefusal> {
    let required = (claims.sub, claims.iss, claims.exp, claims.iat, claims.jti);
    let (Some(subject), Some(issuer), Some(expires), Some(issued), Some(id)) = required else {
        return Err(TokenRefusal::Validation);
    };
    let in_development = environment == Environment::Development || environment == Environment::Testing;
    let audience_fits = claims.aud.is_some_and(|audience| {
        AUDIENCES.contains(&audience.as_ref())
            || (in_development && AUDIENCES_IN_DEVELOPMENT.contains(&audience.as_ref()))
    });
    let environment_fits = claims.env.is_none_or(|name| name == environment.name());
    let is_access = [claims.token_type, claims.kind].into_iter().flatten().all(|kind| kind == "access");
    let service_fits = claims.svc_id.is_none_or(|service| service == SERVICE);
    if !service_fits || subject.is_empty() || issuer != ISSUER || !audience_fits || !environment_fits || !is_access {
        return Err(TokenRefusal::Validation);
    }
    if expires <= now || now.saturating_sub(issued) > AGE_MAX {
        return Err(TokenRefusal::Expired);
    }
    if issued.saturating_sub(now) > FUTURE_MAX {
        return Err(TokenRefusal::Validation);
    }
    Ok(Verified { user: subject.into_owned(), id: id.into_owned() })
}

/// The user a token names, whether or not anything about it is true.
pub(super) fn unverified_subject(token: &str) -> Option<String> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Claims<'_>>(&claims).ok()?.sub.map(Cow::into_owned)
}

/// Makes a credential of this kind for a user; `id` becomes the token's `jti`.
// Long: an arm for each kind of damage.
pub(super) fn mint(
    kind: Credential,
    user: &str,
    key: &SigningKey,
    now: i64,
    environment: Environment,
    id: u64,
) -> String {
    let good = Claims {
        sub: Some(user.into()),
        iss: Some(ISSUER.into()),
        aud: Some(AUDIENCES[0].into()),
        exp: Some(now + 900),
        iat: Some(now),
        jti: Some(format!("{id:016x}").into()),
        env: Some(environment.name().into()),
        token_type: None,
        kind: None,
        svc_id: None,
    };
    let signed = |claims: &Claims<'_>| sign("HS256", claims, key);
    match kind {
        Credential::Valid => signed(&good),
        Credential::None | Credential::Empty => String::new(),
        Credential::Garbage => "invalid_token".to_owned(),
        Credential::NoScheme => "InvalidFormat".to_owned(),
        Credential::Expired => signed(&Claims { exp: Some(now - 3600), iat: Some(now - 7200), ..good }),
        Credential::NotYetValid => signed(&Claims { iat: Some(now + 600), exp: Some(now + 1500), ..good }),
        Credential::WrongSignature => {
            sign("HS256", &good, &SigningKey::new("another secret of more than thirty-two characters"))
        }
        Credential::WrongIssuer => signed(&Claims { iss: Some("somebody-else".into()), ..good }),
        Credential::WrongAudience => signed(&Claims { aud: Some("another-platform".into()), ..good }),
        Credential::MissingSubject => signed(&Claims { sub: None, ..good }),
        Credential::MissingExpiry => signed(&Claims { exp: None, ..good }),
        Credential::MissingIssueTime => signed(&Claims { iat: None, ..good }),
        Credential::MissingIssuer => signed(&Claims { iss: None, ..good }),
        Credential::MissingId => signed(&Claims { jti: None, ..good }),
        Credential::MissingAudience => signed(&Claims { aud: None, ..good }),
        Credential::TooOld => signed(&Claims { iat: Some(now - AGE_MAX - 1), ..good }),
        Credential::WrongType => signed(&Claims { token_type: Some("refresh".into()), ..good }),
        Credential::WrongService => signed(&Claims { svc_id: Some("another-service".into()), ..good }),
        Credential::WrongEnvironment => {
            let other = match environment {
                Environment::Production => Environment::Staging,
                _ => Environment::Production,
            };
            signed(&Claims { env: Some(other.name().into()), ..good })
        }
        Credential::WrongAlgorithm => sign("HS512", &good, key),
        // Nothing else is wrong with it: the identifier may be anything.
        Credential::OverLong => signed(&Claims { jti: Some("x".repeat(TOKEN_BYTES_MAX).into()), ..good }),
        Credential::Revoked => signed(&Claims { jti: Some(format!("{REVOKED_PREFIX}{id:016x}").into()), ..good }),
        Credential::Unsigned => {
            let token = sign("none", &good, key);
            token[..=token.rfind('.').expect("a token has dots")].to_owned()
        }
        Credential::TwoSegments => {
            let token = signed(&good);
            token[..token.rfind('.').expect("a token has dots")].to_owned()
        }
    }
}

fn sign(algorithm: &str, claims: &Claims<'_>, key: &SigningKey) -> String {
    let header = Header { alg: algorithm.into(), typ: "JWT".into() };
    let header = serde_json::to_vec(&header).expect("a header is plain text");
    let claims = serde_json::to_vec(claims).expect("claims are plain text");
    let (header, claims) = (BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims));
    let mut token = format!("{header}.{claims}");
    let signature = BASE64_URL_SAFE_NO_PAD.encode(key.sign(token.as_bytes()));
    token.push('.');
    token.push_str(&signature);
    token
}

/// A signing secret, made ready for use.
#[derive(Clone)]
pub(super) struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    pub(super) fn new(secret: &str) -> SigningKey {
        SigningKey(Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length"))
    }

    /// The signature of a text.
    pub(super) fn sign(&self, text: &[u8]) -> Vec<u8> {
        let mut mac = self.0.clone();
        mac.update(text);
        mac.finalize().into_bytes().to_vec()
    }

    /// Whether a signature belongs to a text, in constant time.
    pub(super) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        let mut mac = self.0.clone();
        mac.update(text);
        mac.verify_slice(signature).is_ok()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod by_library;

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{AGE_MAX, AUDIENCES, Claims, FUTURE_MAX, ISSUER, satisfies};
    use relapse::environment::Environment;

    const NOW: i64 = 1_767_225_600;

    /// The edges of a token's time: when it was issued and when it expires, from now.
    #[rstest]
    #[case::fresh(0, 900, true)]
    #[case::a_clock_ahead(FUTURE_MAX, 900, true)]
    #[case::too_far_ahead(FUTURE_MAX + 1, 900, false)]
    #[case::a_day_old(-AGE_MAX, 900, true)]
    #[case::too_old(-AGE_MAX - 1, 900, false)]
    #[case::last_second(0, 1, true)]
    #[case::expired(0, 0, false)]
    #[case::far_future(i64::MAX - NOW, i64::MAX - NOW, false)]
    #[case::far_past(i64::MIN, 900, false)]
    fn a_token_has_its_time(#[case] issued: i64, #[case] expires: i64, #[case] is_good: bool) {
        let claims = Claims {
            sub: Some("u".into()),
            iss: Some(ISSUER.into()),
            aud: Some(AUDIENCES[0].into()),
            iat: Some(NOW.saturating_add(issued)),
            exp: Some(NOW.saturating_add(expires)),
            jti: Some("1".into()),
            ..Claims::default()
        };
        assert_eq!(satisfies(claims, NOW, Environment::Staging).is_ok(), is_good);
    }
}
