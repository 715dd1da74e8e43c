//! The plain HTTP routes, and the way from ASGI events to an axum router and back.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use axum::{
    Extension, Json, Router,
    body::{Body, to_bytes},
    middleware::from_fn,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Backend, messages::AGENT_EVENTS, readiness};
use crate::{
    application::{Receive, SendEvent},
    event::{Inbound, Outbound},
    exception::Exception,
    head::{Headers, field, header as find},
    scope::Scope,
};

/// The largest answer of a route, in bytes.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// The service behind the request that a handler serves.
type Service = Extension<Arc<Backend>>;

impl Backend {
    /// Serves one HTTP request.
    pub(super) async fn serve_http(
        self: Arc<Self>,
        scope: Scope,
        mut receive: Box<dyn Receive>,
        mut send: Box<dyn SendEvent>,
    ) -> Result<(), Exception> {
        if self.guard_http(&scope, &mut *send).await? {
            return Ok(());
        }
        let mut body = Vec::new();
        while let Inbound::HttpRequest { body: piece, more_body } = receive.receive().await? {
            body.extend_from_slice(&piece);
            if !more_body {
                break;
            }
        }
        let Some(mut request) = to_request(&scope, body)? else {
            let body = self.error_body("BAD_REQUEST", "Malformed request.");
            return send_json(&mut *send, 400, Vec::new(), body).await;
        };
        request.extensions_mut().insert(self);
        let response = match routes().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        send_response(&mut *send, response).await
    }
}

fn routes() -> Router {
    static ROUTES: OnceLock<Router> = OnceLock::new();
    let build = || {
        Router::new()
            .route("/health", get(health))
            .route("/health/", get(health))
            .route("/health/live", get(live))
            .route("/health/ready", get(health))
            .route("/ws", get(upgrade_required))
            .route("/websocket", get(upgrade_required))
            .route("/ws/test", get(upgrade_required))
            .route("/ws/health", get(websocket_health))
            .route("/ws/config", get(websocket_config))
            .route("/ws/beacon", get(websocket_beacon))
            .route("/ws/stats", get(websocket_stats))
            .route("/api/v1/websocket", get(service_info))
            .fallback(not_found)
            .layer(from_fn(readiness::check))
    };
    ROUTES.get_or_init(build).clone()
}

/// Whether the service can do its work. A broken configuration is named by its variables, never by their values.
async fn health(Extension(service): Service) -> Response {
    match &service.settings.secret {
        Ok(_) => Json(json!({ "status": "healthy", "environment": service.environment().name() })).into_response(),
        Err(why) => {
            let body = json!({ "status": "unhealthy", "component": "configuration", "message": why });
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], Json(body)).into_response()
        }
    }
}

async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn not_found() -> (StatusCode, Json<Value>) {
    (StatusCode::NOT_FOUND, Json(json!({ "detail": "Not Found" })))
}

/// A plain request on a path that speaks WebSocket only (RFC 9110 section 15.5.22).
async fn upgrade_required() -> Response {
    let headers = [(header::UPGRADE, "websocket"), (header::CONNECTION, "Upgrade")];
    let body = json!({ "error": true, "error_code": "UPGRADE_REQUIRED", "message": "This path speaks WebSocket." });
    (StatusCode::UPGRADE_REQUIRED, headers, Json(body)).into_response()
}

async fn websocket_health(Extension(service): Service) -> Response {
    let ready = service.settings.secret.is_ok();
    let body = json!({
        "status": if ready { "healthy" } else { "unhealthy" },
        "timestamp": service.timestamp(),
        "mode": "ssot_consolidated",
        "components": { "manager": true, "message_router": true, "connection_monitor": true },
    });
    match ready {
        true => Json(body).into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], Json(body)).into_response(),
    }
}

async fn websocket_config() -> Json<Value> {
    Json(json!({
        "websocket_config": {
            "heartbeat_interval": 30,
            "connection_timeout": 300,
            "max_message_size": super::endpoint::MESSAGE_BYTES_MAX,
            "compression_enabled": false,
        },
        "manager_available": true,
    }))
}

async fn websocket_beacon() -> Json<Value> {
    Json(json!({
        "service": "websocket_ssot",
        "status": "operational",
        "modes": ["main"],
        "golden_path_events": AGENT_EVENTS,
    }))
}

async fn websocket_stats(Extension(service): Service) -> Json<Value> {
    Json(json!({
        "open_sessions": service.open.load(Ordering::Relaxed),
        "sessions_total": service.opened.load(Ordering::Relaxed),
        "timestamp": service.timestamp(),
    }))
}

async fn service_info() -> Json<Value> {
    Json(json!({ "service": "websocket", "status": "operational", "endpoint": "/api/v1/websocket" }))
}

/// The router's request; `None` when the target is none that a router can read.
fn to_request(scope: &Scope, body: Vec<u8>) -> Result<Option<Request<Body>>, Exception> {
    let mut target = match scope.bytes("raw_path") {
        Ok(raw) => raw.to_vec(),
        Err(_) => scope.str("path")?.as_bytes().to_vec(),
    };
    let query = scope.bytes("query_string")?;
    if !query.is_empty() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    let mut request = Request::builder().method(scope.str("method")?).uri(target.as_slice());
    for (name, value) in scope.headers()? {
        request = request.header(name, value);
    }
    Ok(request.body(Body::from(body)).ok())
}

async fn send_response(send: &mut dyn SendEvent, response: Response) -> Result<(), Exception> {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, RESPONSE_BYTES_MAX)
        .await
        .map_err(|error| Exception::runtime_error(format!("response body failed: {error}")))?;
    let mut headers: Headers = parts
        .headers
        .iter()
        .map(|(name, value)| (Bytes::copy_from_slice(name.as_ref()), Bytes::copy_from_slice(value.as_ref())))
        .collect();
    if !parts.headers.contains_key(header::CONTENT_LENGTH) {
        headers.push(field("content-length", body.len().to_string()));
    }
    send.send(Outbound::ResponseStart { status: parts.status.as_u16(), headers }).await?;
    send.send(Outbound::ResponseBody { body: body.to_vec(), more_body: false }).await
}

/// Sends a whole JSON answer; its length is among the headers, or added.
pub(super) async fn send_json(
    send: &mut dyn SendEvent,
    status: u16,
    mut headers: Headers,
    body: String,
) -> Result<(), Exception> {
    headers.push(field("content-type", "application/json"));
    if find(&headers, "content-length").is_none() {
        headers.push(field("content-length", body.len().to_string()));
    }
    send.send(Outbound::ResponseStart { status, headers }).await?;
    send.send(Outbound::ResponseBody { body: body.into_bytes(), more_body: false }).await
}
