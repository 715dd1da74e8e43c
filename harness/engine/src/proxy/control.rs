//! The control interface of a running proxy, over HTTP on loopback.
//!
//! `GET /` describes the proxy, `GET /faults` lists the faults, `POST /faults` adds those of a TOML text (`[[fault]]`
//! each, as case files have them), `DELETE /faults/N` removes one, `POST /pause` and `POST /resume` hold them all, and
//! `GET /events` streams the log as lines of JSON until the reader leaves.

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::ProxyHandle;
use crate::case::read_faults;
use relapse_core::error::{Error, Located};
use relapse_simulate::link::Listener;

/// Answers on this listener for as long as it is polled.
///
/// # Errors
/// When it cannot listen any more.
pub async fn serve(listener: Listener, desk: ProxyHandle) -> Result<(), Error> {
    let routes = Router::new()
        .route("/", get(about))
        .route("/faults", get(list).post(add))
        .route("/faults/{number}", delete(remove))
        .route("/pause", post(pause))
        .route("/resume", post(resume))
        .route("/events", get(events))
        .layer(middleware::from_fn(refuse_pages))
        .with_state(desk);
    let address = listener.address()?;
    let serving = axum::serve(listener.into_inner(), routes);
    serving.await.map_err(|source| Error::Io { doing: "listen on", path: address.to_string().into(), source })
}

/// Refuses requests from browser pages: any site could send them.
async fn refuse_pages(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "this is not for pages\n").into_response();
    }
    next.run(request).await
}

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
