//! The opening handshake from the client's side (RFC 6455 section 4.1).

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};

use relapse_core::{
    client::{
        credential::{Credential, CredentialPlace},
        step::{ClientStrictness, Request},
    },
    wire::{
        deflate::{DeflateParameters, EXTENSIONS},
        head::{Headers, RequestHead, ResponseHead, accept_key, field, has_token, header, readable},
    },
};

/// Draws the key of an upgrade.
pub(super) fn draw_key(chance: &mut fastrand::Rng) -> String {
    let mut key = [0; 16];
    chance.fill(&mut key);
    BASE64_STANDARD.encode(key)
}

/// Writes the head that a standard client would write, with what the step adds and leaves out. `key` is that of an upgrade;
/// `None` for a plain request.
// Long: the lines in the order in which a client writes them.
pub(super) fn request_head(request: &Request, key: Option<String>, token: &str) -> RequestHead {
    let mut headers: Headers = vec![field("Host", "relapse.test")];
    let mut target = request.path.clone();
    let mut query = request.query.clone();
    let mut offers = Vec::new();
    for (place, parameter) in [(CredentialPlace::Query, "token"), (CredentialPlace::Ticket, "ticket")] {
        if presents(request, place) {
            if !query.is_empty() {
                query.push(b'&');
            }
            query.extend_from_slice(format!("{parameter}={token}").as_bytes());
        }
    }
    if presents(request, CredentialPlace::Subprotocol) {
        offers.push("jwt-auth".to_owned());
    }
    if presents(request, CredentialPlace::Subprotocol) || presents(request, CredentialPlace::SubprotocolAlone) {
        offers.push(format!("jwt.{}", BASE64_URL_SAFE_NO_PAD.encode(token)));
    }
    if presents(request, CredentialPlace::StagingSubprotocol) {
        offers.push(format!("staging-auth.{}", BASE64_URL_SAFE_NO_PAD.encode(token)));
    }
    offers.extend(request.offers.iter().cloned());
    if !query.is_empty() {
        target.push(b'?');
        target.extend_from_slice(&query);
    }
    if let Some(key) = key {
        headers.push(field("Upgrade", "websocket"));
        headers.push(field("Connection", "Upgrade"));
        headers.push(field("Sec-WebSocket-Key", key));
        headers.push(field("Sec-WebSocket-Version", "13"));
        if !request.extensions.is_empty() {
            headers.push(field(EXTENSIONS, request.extensions.clone()));
        }
    }
    if !offers.is_empty() {
        headers.push(field("Sec-WebSocket-Protocol", offers.join(", ")));
    }
    for (place, scheme) in [(CredentialPlace::Header, "Bearer"), (CredentialPlace::LowerCaseHeader, "bearer")] {
        if presents(request, place) {
            let value = match request.credential {
                Credential::NoScheme | Credential::Empty => token.to_owned(),
                _ => format!("{scheme} {token}"),
            };
            headers.push(field("Authorization", value));
        }
    }
    if !request.body.is_empty() {
        headers.push(field("Content-Type", "application/json"));
        headers.push(field("Content-Length", request.body.len().to_string()));
    }
    for (name, value) in &request.headers {
        headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        headers.push((name.clone(), value.clone()));
    }
    headers.retain(|(name, _)| !request.without.iter().any(|gone| name.eq_ignore_ascii_case(gone.as_bytes())));
    RequestHead { method: request.method.clone(), target: target.into(), minor_version: 1, headers }
}

/// Whether headers promise that the connection is a WebSocket from here on.
fn upgrades(head: &ResponseHead) -> bool {
    let upgrade = header(&head.headers, "upgrade").unwrap_or_default();
    upgrade.eq_ignore_ascii_case(b"websocket") && has_token(&head.headers, "connection", "upgrade")
}

fn presents(request: &Request, place: CredentialPlace) -> bool {
    request.credential != Credential::None && request.places.contains(&place)
}

/// Checks everything that a client must verify before it takes a 101 for a WebSocket; the compression that both sides agree
/// on.
pub(super) fn verify(
    request: &RequestHead,
    response: &ResponseHead,
    client: ClientStrictness,
) -> Result<Option<DeflateParameters>, String> {
    if !upgrades(response) {
        return Err("the answer does not upgrade to websocket".to_owned());
    }
    let key = header(&request.headers, "sec-websocket-key").unwrap_or_default();
    if header(&response.headers, "sec-websocket-accept") != Some(accept_key(key).as_bytes()) {
        return Err("the accept key does not belong to the key".to_owned());
    }
    let deflate = DeflateParameters::agreed(&request.headers, &response.headers)?;
    let offers = request.offered_subprotocols();
    match header(&response.headers, "sec-websocket-protocol").map(readable) {
        Some(selected) if offers.is_empty() => {
            Err(format!("no subprotocols supported, but the server selected {selected}"))
        }
        Some(selected) if !offers.contains(&selected) => Err(format!("unsupported subprotocol: {selected}")),
        None if !offers.is_empty() && client == ClientStrictness::Browser => {
            Err("the server selected none of the subprotocols offered".to_owned())
        }
        _ => Ok(deflate),
    }
}
