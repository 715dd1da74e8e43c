//! The plain HTTP routes, and the way from ASGI events to an axum router and back.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};

use axum::{
    Extension, Json, Router,
    body::{Body, to_bytes},
    middleware::from_fn,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Backend, credentials::authenticate, messages::AGENT_EVENTS, readiness};
use crate::{
    application::{Receive, SendEvent},
    defect::Defect,
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
        self.read_session()?;
        request.extensions_mut().insert(self);
        let response = match routes().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        send_response(&mut *send, response).await
    }
}

impl Backend {
    /// The auth-context middleware's look at the session, on the cloud platform only.
    fn read_session(&self) -> Result<(), Exception> {
        if self.revision.has(Defect::SessionInsideAuthContext) && self.environment().is_deployed() {
            // `hasattr(request, "session")` hides an AttributeError only.
            let text = "SessionMiddleware must be installed to access request.session";
            return Err(Exception::new("AssertionError", text));
        }
        Ok(())
    }

    /// The row of a user, made on the first request of a user that has none.
    fn user_row(&self, user: &str) -> Result<(), HttpException> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.contains(user) {
            return Ok(());
        }
        if self.revision.has(Defect::DemoModeOnDict) {
            let exception = Exception::attribute_error("dict", "is_demo_mode");
            tracing::error!("user lookup: {exception}");
            return Err(HttpException::new(503, "Database service temporarily unavailable"));
        }
        users.insert(user.to_owned());
        Ok(())
    }

    /// The application-wide exception handler: the raised status, text and headers reach the client.
    fn answer_exception(&self, raised: &HttpException) -> Response {
        let (status, keeps_headers) = if self.revision.has(Defect::StatusRemapped) {
            // 403 shares its error code with 401, and what has no code of its own is an internal error.
            let status = match raised.status {
                401 | 403 => 401,
                known @ (404 | 422 | 503) => known,
                _ => 500,
            };
            (status, false)
        } else {
            (raised.status, true)
        };
        let body = Json(json!({ "error": true, "message": raised.text }));
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, body).into_response();
        if let Some(seconds) = raised.retry_after_s.filter(|_| keeps_headers) {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// What a route raises to answer with a status.
struct HttpException {
    status: u16,
    text: &'static str,
    retry_after_s: Option<u16>,
}

impl HttpException {
    fn new(status: u16, text: &'static str) -> HttpException {
        HttpException { status, text, retry_after_s: None }
    }
}

/// The threads of the user whose credential the request carries.
async fn threads(Extension(service): Service, headers: HeaderMap) -> Response {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let presented: Vec<String> = token.into_iter().map(str::to_owned).collect();
    let user = match &service.settings.secret {
        Ok(secret) => authenticate(&presented, &secret.key, service.now(), service.environment())
            .map_err(|_| HttpException::new(401, "Authentication required")),
        Err(_) => {
            let retry_after_s = Some(10);
            Err(HttpException { retry_after_s, ..HttpException::new(503, "The service is not ready.") })
        }
    };
    match user.and_then(|user| service.user_row(&user)) {
        Ok(()) => Json(json!({ "threads": [] })).into_response(),
        Err(raised) => service.answer_exception(&raised),
    }
}

/// A route whose own limit is always reached.
async fn limited(Extension(service): Service) -> Response {
    let raised = HttpException { retry_after_s: Some(30), ..HttpException::new(429, "Too many requests.") };
    service.answer_exception(&raised)
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
            .route("/api/threads/", get(threads))
            .route("/api/limited", get(limited))
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
