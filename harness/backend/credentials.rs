//! Which credentials an upgrade request carries, whether they open a session, and which subprotocol is selected.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::token::{self, Key, Refusal};
use crate::{
    defect::Defect,
    environment::Environment,
    exception::Exception,
    revision::Revision,
    scope::{Scope, percent_decode},
};

/// Every subprotocol the service knows. Those that end in a dot carry a token behind it; the others stand for
/// themselves, most preferred first.
pub(super) const SUBPROTOCOLS: [&str; 10] = [
    "jwt-auth",
    "jwt",
    "bearer",
    "e2e-testing",
    "staging-auth",
    "agent_chat",
    "jwt.",
    "jwt-auth.",
    "bearer.",
    "staging-auth.",
];
/// A shorter value is no token.
const TOKEN_BYTES_MIN: usize = 10;

/// Every credential of a request, from the header, the subprotocols and the query, in this order.
pub(super) fn presented(scope: &Scope) -> Result<Vec<String>, Exception> {
    let mut found = in_headers_and_subprotocols(scope)?;
    found.extend(in_query(scope.bytes("query_string")?));
    Ok(found)
}

/// The credentials of the `Authorization` header and of the subprotocols. A header that is there but names no scheme
/// or no token counts as a credential, a bad one.
pub(super) fn in_headers_and_subprotocols(scope: &Scope) -> Result<Vec<String>, Exception> {
    let mut found = Vec::new();
    for (name, value) in scope.headers()? {
        if name == b"authorization" {
            let value = String::from_utf8_lossy(value);
            found.push(value.strip_prefix("Bearer ").unwrap_or_default().trim().to_owned());
        }
    }
    found.extend(scope.subprotocols()?.into_iter().filter_map(token_in_subprotocol));
    Ok(found)
}

fn token_in_subprotocol(offer: &str) -> Option<String> {
    let value = token_prefixes().find_map(|prefix| offer.strip_prefix(prefix))?;
    if value.len() < TOKEN_BYTES_MIN {
        return Some(String::new());
    }
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(value.trim_end_matches('=')).ok();
    let token = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    Some(token.unwrap_or_else(|| value.to_owned()))
}

fn in_query(query: &[u8]) -> Vec<String> {
    query
        .split(|&byte| byte == b'&')
        .filter_map(|pair| pair.strip_prefix(b"token="))
        .map(|value| String::from_utf8_lossy(&percent_decode(value)).into_owned())
        .collect()
}

/// The user a session may be opened for: every credential presented must be valid, and all must name the same user.
pub(super) fn authenticate(
    presented: &[String],
    key: &Key,
    now: i64,
    environment: Environment,
) -> Result<String, Refusal> {
    let mut user = None;
    for credential in presented {
        let subject = token::verify(credential, key, now, environment)?;
        if user.as_ref().is_some_and(|user| *user != subject) {
            return Err(Refusal::Validation);
        }
        user = Some(subject);
    }
    user.ok_or(Refusal::Format)
}

/// The subprotocol to select among those offered (RFC 6455 section 4.2.2): one of them, or none when none was
/// offered. A bare name is preferred, because selecting `jwt.<token>` repeats the token in the answer.
///
/// The error is a list of offers of which none is known.
pub(super) fn select_subprotocol(offers: &[&str], revision: Revision) -> Result<Option<String>, ()> {
    if revision.has(Defect::JwtAuthAlwaysSelected) {
        return Ok(Some("jwt-auth".to_owned()));
    }
    if revision.has(Defect::NoSubprotocolSelected) || offers.is_empty() {
        return Ok(None);
    }
    let bare = SUBPROTOCOLS.into_iter().find(|known| !known.ends_with('.') && offers.contains(known));
    let carrying = || offers.iter().copied().find(|offer| token_prefixes().any(|prefix| offer.starts_with(prefix)));
    bare.or_else(carrying).map(|name| Some(name.to_owned())).ok_or(())
}

fn token_prefixes() -> impl Iterator<Item = &'static str> {
    SUBPROTOCOLS.into_iter().filter(|name| name.ends_with('.'))
}
