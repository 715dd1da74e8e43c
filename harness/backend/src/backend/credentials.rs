//! Which credentials an upgrade request carries, whether they open a session, and which subprotocol is selected.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{defect::Defect, revision::Revision};
use relapse_core::{
    asgi::{exception::Exception, scope::Scope},
    wire::percent,
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

/// The parameters of the query that carry a token, and those that carry a ticket.
const TOKEN_PARAMETERS: [&[u8]; 4] = [b"token", b"jwt", b"auth_token", b"access_token"];
const TICKET_PARAMETERS: [&[u8]; 3] = [b"ticket", b"auth_ticket", b"ticket_id"];

/// One credential that a request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claimed {
    /// A token, or what stands where one belongs.
    Token(String),
    /// A ticket's identifier.
    Ticket(String),
}

/// Every credential of a request, from the header, the subprotocols and the query, in this order.
pub(super) fn presented(scope: &Scope) -> Result<Vec<Claimed>, Exception> {
    let mut found = in_headers_and_subprotocols(scope)?;
    found.extend(in_query(scope.query()?));
    Ok(found)
}

/// The credentials of the `Authorization` header and of the subprotocols. A header that is there but names no scheme
/// or no token counts as a credential, a bad one.
pub(super) fn in_headers_and_subprotocols(scope: &Scope) -> Result<Vec<Claimed>, Exception> {
    let mut found = Vec::new();
    for (name, value) in scope.headers()? {
        if name == b"authorization" {
            found.push(Claimed::Token(bearer(&String::from_utf8_lossy(value)).to_owned()));
        }
    }
    let offered = scope.subprotocols()?.into_iter().filter_map(token_in_subprotocol);
    found.extend(offered.map(Claimed::Token));
    Ok(found)
}

/// The token of an `Authorization` header; empty when there is none. The scheme may be written in any case (RFC 9110
/// section 11.1).
pub(super) fn bearer(value: &str) -> &str {
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => "",
    }
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

fn in_query(query: &[u8]) -> Vec<Claimed> {
    let parameters = query.split(|&byte| byte == b'&').filter_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        Some((&pair[..equals], &pair[equals + 1..]))
    });
    // An empty one is none.
    let parameters = parameters.filter(|(_, value)| !value.is_empty());
    parameters
        .filter_map(|(name, value)| {
            if TOKEN_PARAMETERS.contains(&name) {
                Some(Claimed::Token(percent::decoded_text(value)))
            } else if TICKET_PARAMETERS.contains(&name) {
                Some(Claimed::Ticket(percent::decoded_text(value)))
            } else {
                None
            }
        })
        .collect()
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
    let known = SUBPROTOCOLS.into_iter().filter(|name| is_negotiable(name, revision));
    let bare = known.clone().find(|name| !name.ends_with('.') && offers.contains(name));
    let prefixes = known.filter(|name| name.ends_with('.'));
    bare.or_else(|| offers.iter().copied().find(|offer| prefixes.clone().any(|prefix| offer.starts_with(prefix))))
        .map(|name| Some(name.to_owned()))
        .ok_or(())
}

fn is_negotiable(name: &str, revision: Revision) -> bool {
    !revision.has(Defect::FormsNotNegotiable) || name == "jwt-auth" || name == "jwt."
}

fn token_prefixes() -> impl Iterator<Item = &'static str> {
    SUBPROTOCOLS.into_iter().filter(|name| name.ends_with('.'))
}
