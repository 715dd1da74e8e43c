//! The control interface of a running proxy, over HTTP on loopback.
//!
//! `GET /` describes the proxy, `GET /faults` lists the faults, `POST /faults` adds those of a TOML text (`[[fault]]`
//! each, as case files have them), `DELETE /faults/N` removes one, `POST /pause` and `POST /resume` hold them all, and
//! `GET /events` streams the log as lines of JSON until the reader leaves.
//!
//! Every request names this machine in `Host`, and brings the token as `Authorization: Bearer TOKEN`: a page in a browser
//! can reach loopback too, also under a name that leads there (DNS rebinding).

use std::fmt;
use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{StatusCode, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::ProxyHandle;
use crate::{case::read_faults, upstream::is_this_machine};
use relapse_core::error::{Error, Located};
use relapse_simulate::link::Listener;

/// The token that every request to the control interface brings.
#[derive(Clone, PartialEq, Eq)]
pub struct ControlToken(String);

/// How many random bytes a token has, so that it cannot be guessed (RFC 6750 section 5.2).
const TOKEN_BYTES: usize = 24;

impl ControlToken {
    /// A token of the system's random numbers.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn random() -> Result<ControlToken, Error> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| Error::Io {
            doing: "get random numbers from",
            path: "the system".into(),
            source: std::io::Error::other(error.to_string()),
        })?;
        Ok(ControlToken(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether a header field carries it. How long that takes does not tell how much of it is right.
    fn is_in(&self, field: &[u8]) -> bool {
        let (scheme, credential) = field.split_at(field.len().min(BEARER.len()));
        let differences = credential.iter().zip(self.0.as_bytes()).fold(0, |all, (one, other)| all | (one ^ other));
        scheme.eq_ignore_ascii_case(BEARER) && credential.len() == self.0.len() && differences == 0
    }
}

/// The scheme of the credential, with the space behind it (RFC 6750 section 2.1).
const BEARER: &[u8] = b"Bearer ";

impl fmt::Debug for ControlToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ControlToken")
    }
}

/// The requests that the control interface takes.
#[derive(Debug)]
struct ControlGuard {
    token: ControlToken,
    /// The port that it listens at.
    port: u16,
}

/// Answers requests with this token on this listener for as long as it is polled.
///
/// # Errors
/// When it cannot listen any more.
pub async fn serve(listener: Listener, desk: ProxyHandle, token: ControlToken) -> Result<(), Error> {
    let address = listener.address()?;
    let guard = Arc::new(ControlGuard { token, port: address.port() });
    let routes = Router::new()
        .route("/", get(about))
        .route("/faults", get(list).post(add))
        .route("/faults/{number}", delete(remove))
        .route("/pause", post(pause))
        .route("/resume", post(resume))
        .route("/events", get(events))
        .layer(middleware::from_fn_with_state(guard, refuse_strangers))
        .with_state(desk);
    let serving = axum::serve(listener.into_inner(), routes);
    serving.await.map_err(|source| Error::Io { doing: "listen on", path: address.to_string().into(), source })
}

/// Refuses what a page in a browser sends, what names another host, and what does not bring the token.
async fn refuse_strangers(State(guard): State<Arc<ControlGuard>>, request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "this is not for pages\n").into_response();
    }
    if !guard.is_meant_by(&request) {
        return (StatusCode::FORBIDDEN, "`Host` has to name this address\n").into_response();
    }
    let credentials = request.headers().get_all(header::AUTHORIZATION);
    if !credentials.iter().any(|field| guard.token.is_in(field.as_bytes())) {
        let scheme = [(header::WWW_AUTHENTICATE, "Bearer")];
        let help = "bring the token that the proxy printed, as `Authorization: Bearer TOKEN`\n";
        return (StatusCode::UNAUTHORIZED, scheme, help).into_response();
    }
    next.run(request).await
}

impl ControlGuard {
    /// Whether a request is to this address by its only `Host`, and by its target where that names a host too.
    fn is_meant_by(&self, request: &Request) -> bool {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let host = host.to_str().ok().and_then(|host| host.parse().ok());
        host.is_some_and(|host| self.is_own(&host)) && request.uri().authority().is_none_or(|host| self.is_own(host))
    }

    /// Whether this is a name of the address that it listens at.
    fn is_own(&self, named: &Authority) -> bool {
        let host = named.host().trim_start_matches('[').trim_end_matches(']');
        let is_loopback = is_this_machine(host);
        is_loopback && named.port_u16().unwrap_or(HTTP_PORT) == self.port && !named.as_str().contains('@')
    }
}

/// The port of a host without one (RFC 9110 section 4.2.1).
const HTTP_PORT: u16 = 80;

async fn about(State(desk): State<ProxyHandle>) -> Response {
    let upstream = desk.upstream().to_string();
    Json(json!({"upstream": upstream, "paused": desk.is_paused(), "connections": desk.counts()})).into_response()
}

async fn list(State(desk): State<ProxyHandle>) -> Response {
    Json(desk.faults()).into_response()
}

async fn add(State(desk): State<ProxyHandle>, text: String) -> Response {
    let faults = match read_faults("the request", &text) {
        Ok(faults) if faults.is_empty() => Err("no `[[fault]]` in the request".to_owned()),
        Ok(faults) => Ok(faults),
        Err(Error::File(located)) => Err(said(&located)),
        Err(error) => Err(error.to_string()),
    };
    match faults {
        Ok(faults) => {
            let numbers: Vec<usize> = faults.into_iter().map(|fault| desk.add(fault)).collect();
            (StatusCode::CREATED, Json(json!({"added": numbers}))).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response(),
    }
}

fn said(located: &Located) -> String {
    let (line, column) = located.line_and_column();
    let help = located.help.as_ref().map_or(String::new(), |help| format!(" ({help})"));
    format!("line {line}, column {column}: {}{help}", located.message)
}

async fn remove(State(desk): State<ProxyHandle>, Path(number): Path<usize>) -> Response {
    if desk.remove(number) {
        StatusCode::NO_CONTENT.into_response()
    } else {
        (StatusCode::NOT_FOUND, Json(json!({"error": format!("there is no fault {number}")}))).into_response()
    }
}

async fn pause(State(desk): State<ProxyHandle>) -> StatusCode {
    desk.pause();
    StatusCode::NO_CONTENT
}

async fn resume(State(desk): State<ProxyHandle>) -> StatusCode {
    desk.resume();
    StatusCode::NO_CONTENT
}

async fn events(State(desk): State<ProxyHandle>) -> Response {
    let lines = futures_util::stream::unfold(desk.entries(), |mut entries| async {
        let line = match entries.recv().await {
            Ok(entry) => serde_json::to_string(&*entry).unwrap_or_default(),
            Err(RecvError::Lagged(missed)) => json!({"event": "missed", "entries": missed}).to_string(),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok::<_, std::convert::Infallible>(line + "\n"), entries))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
