//! Which requests a server takes for an upgrade, and which of those it refuses itself (RFC 6455 section 4.2.1).

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::profile::{Handshake, Reception};
use relapse_core::wire::head::{Headers, RequestHead, has_token, header, is_name};

/// How a server with these rules receives the request.
pub(super) fn receive(head: &RequestHead, rules: &Handshake) -> Reception {
    if !has_token(&head.headers, "upgrade", "websocket") {
        return Reception::Http;
    }
    let headers = &head.headers;
    let broken = [
        (!has_token(&head.headers, "connection", "upgrade"), &rules.connection_keep_alive),
        (!METHODS.contains(&head.method.as_str()), &rules.unknown_method),
        (head.method != "GET", &rules.post),
        (head.minor_version == 0, &rules.http_1_0),
        (header(headers, "host").is_none(), &rules.missing_host),
        (is_doubled(headers, "host"), &rules.two_hosts),
        (is_doubled(headers, "sec-websocket-key"), &rules.two_keys),
        (is_doubled(headers, "sec-websocket-version"), &rules.two_versions),
        (header(headers, "sec-websocket-version").is_none(), &rules.missing_version),
        (header(headers, "sec-websocket-version").is_some_and(|version| version != b"13"), &rules.wrong_version),
        (header(headers, "sec-websocket-key").is_none(), &rules.missing_key),
        (header(headers, "sec-websocket-key").is_some_and(|key| !is_key(key)), &rules.short_key),
    ];
    let mut answers = broken.into_iter().filter(|(is_broken, _)| *is_broken).map(|(_, reception)| reception);
    // A rule that lets one mistake pass must not hide another that is refused.
    answers.find(|reception| **reception != Reception::Accepted).cloned().unwrap_or_else(|| rules.upgrade.clone())
}

/// The methods of RFC 9110 section 9, and PATCH (RFC 5789).
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

fn is_doubled(headers: &Headers, wanted: &str) -> bool {
    headers.iter().filter(|(name, _)| is_name(name, wanted)).count() > 1
}

/// A key is 16 bytes in base64 (RFC 6455 section 4.1).
fn is_key(key: &[u8]) -> bool {
    BASE64_STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}
