//! Holds the minted tokens against `jsonwebtoken`: a valid one is valid there, and a damaged one is damaged as its name says.
//!
//! The service itself signs and checks by hand. Its clock is virtual and most of its rules are its own, and the library
//! takes up to twice as long for a token, of which every trial has several.

use std::sync::Once;

use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Validation,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    decode,
    errors::Result as JwtResult,
    get_current_timestamp,
    signature::{Error as SignatureError, Signer, Verifier},
};
use relapse::environment::Environment;
use relapse_core::client::credential::Credential;
use rstest::rstest;
use serde_json::Value;
use sha2::Sha256;

use super::{AUDIENCES, ISSUER, SigningKey, mint};

const SECRET: &str = "a secret of more than thirty-two characters";

/// HMAC with SHA-256, which is all that the library needs here; with its own features it brings RSA and elliptic curves.
struct Hs256(Hmac<Sha256>);

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _: &EncodingKey| -> JwtResult<Box<dyn JwtSigner>> { Ok(Box::new(Hs256::new())) },
    verifier_factory: |_, _: &DecodingKey| -> JwtResult<Box<dyn JwtVerifier>> { Ok(Box::new(Hs256::new())) },
    key_utils: KeyUtils::new_unimplemented(),
};

static INSTALLED: Once = Once::new();

impl Hs256 {
    fn new() -> Hs256 {
        Hs256(Hmac::new_from_slice(SECRET.as_bytes()).unwrap())
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, text: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(self.0.clone().chain_update(text).finalize().into_bytes().to_vec())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, text: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        self.0.clone().chain_update(text).verify_slice(signature).map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

/// The library's judgment of a token of this kind, minted now.
fn judged(kind: Credential) -> Result<Value, String> {
    INSTALLED.call_once(|| PROVIDER.install_default().unwrap());
    let now = i64::try_from(get_current_timestamp()).unwrap();
    let token = mint(kind, "user-1", &SigningKey::new(SECRET), now, Environment::Staging, 7);
    let mut rules = Validation::new(Algorithm::HS256);
    rules.set_issuer(&[ISSUER]);
    rules.set_audience(&AUDIENCES);
    rules.set_required_spec_claims(&["sub", "iss", "aud", "exp"]);
    let key = DecodingKey::from_secret(SECRET.as_bytes()).unwrap();
    decode::<Value>(&token, &key, &rules).map(|data| data.claims).map_err(|error| format!("{:?}", error.kind()))
}

#[test]
fn a_valid_token_is_one_for_the_library() {
    let claims = judged(Credential::Valid).unwrap();
    assert_eq!((&claims["sub"], &claims["jti"]), (&"user-1".into(), &"0000000000000007".into()));
}

/// These are signed and timely; they break rules that only the service has.
#[rstest]
#[case(Credential::NotYetValid)]
#[case(Credential::MissingIssueTime)]
#[case(Credential::MissingId)]
#[case(Credential::TooOld)]
#[case(Credential::WrongType)]
#[case(Credential::WrongService)]
#[case(Credential::WrongEnvironment)]
#[case(Credential::OverLong)]
#[case(Credential::Revoked)]
fn a_token_that_only_the_service_refuses_is_valid_for_the_library(#[case] kind: Credential) {
    assert!(judged(kind).is_ok());
}

#[rstest]
#[case(Credential::None, "InvalidToken")]
#[case(Credential::Empty, "InvalidToken")]
#[case(Credential::Garbage, "InvalidToken")]
#[case(Credential::NoScheme, "InvalidToken")]
#[case(Credential::TwoSegments, "InvalidToken")]
#[case(Credential::Expired, "ExpiredSignature")]
#[case(Credential::WrongSignature, "InvalidSignature")]
#[case(Credential::WrongIssuer, "InvalidIssuer")]
#[case(Credential::WrongAudience, "InvalidAudience")]
#[case(Credential::MissingSubject, "MissingRequiredClaim(\"sub\")")]
#[case(Credential::MissingExpiry, "MissingRequiredClaim(\"exp\")")]
#[case(Credential::MissingIssuer, "MissingRequiredClaim(\"iss\")")]
#[case(Credential::MissingAudience, "MissingRequiredClaim(\"aud\")")]
#[case(Credential::WrongAlgorithm, "InvalidAlgorithm")]
#[case(Credential::Unsigned, "Json(Error(\"unknown variant `none`")]
fn a_damaged_token_is_refused_for_its_damage(#[case] kind: Credential, #[case] expected: &str) {
    let said = judged(kind).unwrap_err();
    assert!(said.starts_with(expected), "{said}");
}
