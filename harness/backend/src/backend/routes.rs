//! The plain HTTP routes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::{
    Extension, Json, Router,
    extract::Path,
    middleware::from_fn,
    response::{IntoResponse, Response},
    routing::{MethodRouter, any, get, post},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{
    Backend, credentials,
    credentials::Claimed,
    endpoint::{self, Denied},
    health, limits, lock,
    messages::AGENT_EVENTS,
    preflight,
    session::SessionProperty,
    tickets::{TTL_RANGE_S, TTL_S, Ticket},
    within,
};
use crate::{defect::Defect, dependency::Dependency};
use relapse::environment::Environment;
use relapse_core::{
    asgi::exception::Exception,
    client::credential::{Credential, Form},
};

/// How long the lookup of a user may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(3);

/// The origins that a browser may call from.
const ORIGINS: [HeaderValue; 2] =
    [HeaderValue::from_static("https://app.relapse.test"), HeaderValue::from_static("http://localhost:3000")];

/// The service behind the request that a handler serves.
type RoutedService = Extension<Arc<Backend>>;

/// An exception that leaves a route: it travels with the response to where ASGI can raise it.
#[derive(Debug, Clone)]
pub(super) struct Raised(pub(super) Exception);

/// The routes, with the router's middleware around them.
pub(super) fn router() -> Router {
    static ROUTER: OnceLock<Router> = OnceLock::new();
    ROUTER.get_or_init(build_router).clone()
}

fn build_router() -> Router {
    Router::new()
        .route("/health", overall())
        .route("/health/", overall())
        .route("/health/ready", overall())
        .route("/health/live", get(health::live).options(health::preflight))
        .route("/health/startup", get(health::startup))
        .route("/ws/health", get(health::websocket).options(health::preflight))
        .route("/ws/config", get(websocket_config))
        .route("/ws/beacon", get(websocket_beacon).options(websocket_beacon))
        .route("/ws/stats", get(websocket_stats))
        .route("/ws", get(upgrade_required))
        .route("/ws/factory", get(upgrade_required))
        .route("/ws/isolated", get(upgrade_required))
        .route("/websocket", get(upgrade_required))
        .route("/ws/test", get(upgrade_required))
        .route("/api/v1/websocket", get(service_info).post(create_service))
        .route("/api/v1/websocket/protected", get(protected))
        .route("/api/threads/", get(threads))
        .route("/api/session", get(session).post(begin_session))
        .route("/api/websocket/ticket", post(issue_ticket))
        .route("/api/websocket/ticket/{id}", get(validate_ticket).delete(revoke_ticket))
        .route("/api/websocket/ticket/{id}/validate", get(validate_ticket))
        .route("/api/websocket/tickets/status", get(tickets_status))
        .route("/auth/e2e/test-auth", post(e2e_token))
        .route("/api/status/{status}", any(raise_status))
        .route("/api/raises", any(raises))
        .fallback(not_found)
        .layer(from_fn(preflight::check))
        .layer(
            CorsLayer::new()
                .allow_origin(AllowOrigin::list(ORIGINS))
                .allow_methods([Method::GET, Method::POST, Method::DELETE])
                .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE]),
        )
}

/// The health of the whole service.
fn overall() -> MethodRouter {
    get(health::health).options(health::preflight)
}

/// The exception that a route raises to answer with a status.
struct HttpException {
    status: u16,
    text: &'static str,
    header: Option<(HeaderName, &'static str)>,
    /// The missing dependency, for a 503.
    lacks: Option<&'static str>,
}

impl HttpException {
    fn new(status: u16, text: &'static str) -> HttpException {
        let header = match status {
            401 => Some((header::WWW_AUTHENTICATE, "Bearer")),
            429 | 503 => Some((header::RETRY_AFTER, "10")),
            _ => None,
        };
        HttpException { status, text, header, lacks: None }
    }

    /// Not ready, for want of one thing.
    fn lacks(name: &'static str) -> HttpException {
        HttpException { lacks: Some(name), ..HttpException::new(503, "The service is not ready.") }
    }

    fn no_database() -> HttpException {
        let text = "Database service temporarily unavailable";
        HttpException { lacks: Some("database"), ..HttpException::new(503, text) }
    }
}

impl Backend {
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
        let mut body = json!({ "error": true, "message": raised.text });
        if let Some(name) = raised.lacks {
            body["failed_services"] = json!([name]);
        }
        let body = Json(body);
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, body).into_response();
        if let Some((name, value)) = raised.header.clone().filter(|_| keeps_headers) {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    /// The user whose token the request carries.
    async fn caller(&self, headers: &HeaderMap) -> Result<String, HttpException> {
        let values = headers.get_all(header::AUTHORIZATION).iter();
        let tokens = values.map(|value| credentials::bearer(&String::from_utf8_lossy(value.as_bytes())).to_owned());
        let presented: Vec<Claimed> = tokens.map(Claimed::Token).collect();
        if self.key().is_none() {
            return Err(HttpException::lacks("configuration"));
        }
        self.authenticate_strictly(&presented).await.map_err(|denied| match denied {
            Denied::Refused(_) => HttpException::new(401, "Authentication required"),
            Denied::NotReady(name) => HttpException::lacks(name),
        })
    }

    /// The row of a user, made on the first request of a user that has none.
    ///
    /// Whether it was made now.
    async fn user_row(&self, user: &str) -> Result<bool, HttpException> {
        let failed = match within(LOOKUP_LIMIT, self.ask(Dependency::Database, "lookup")).await {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.message),
            None => Some("no answer in time".to_owned()),
        };
        if let Some(why) = failed {
            tracing::warn!("user lookup: database failed: {why}");
            return Err(HttpException::no_database());
        }
        let mut users = lock(&self.users);
        if users.contains(user) {
            return Ok(false);
        }
        if self.revision.has(Defect::DemoModeOnDict) {
            let exception = Exception::attribute_error("dict", "is_demo_mode");
            tracing::error!("user lookup: {exception}");
            return Err(HttpException::no_database());
        }
        users.insert(user.to_owned());
        Ok(true)
    }
}

/// The threads of the user.
async fn threads(Extension(service): RoutedService, headers: HeaderMap) -> Response {
    let found = async {
        let user = service.caller(&headers).await?;
        service.user_row(&user).await
    };
    match found.await {
        Ok(created) => Json(json!({ "threads": [], "user_created": created })).into_response(),
        Err(raised) => service.answer_exception(&raised),
    }
}

/// The route that only an authenticated user may see.
async fn protected(Extension(service): RoutedService, headers: HeaderMap) -> Response {
    if service.revision.has(Defect::AuthExcludesEverything) {
        // The excluded paths are compared by substring, and `/` is one of them.
        return Json(json!({ "user": Value::Null })).into_response();
    }
    match service.caller(&headers).await {
        Ok(user) => Json(json!({ "user": user })).into_response(),
        Err(raised) => service.answer_exception(&raised),
    }
}

/// The session that the cookie names.
async fn session(Extension(session): Extension<SessionProperty>) -> Json<Value> {
    Json(json!({ "user": session.user }))
}

/// Begins a session for the user whose token the request carries.
async fn begin_session(Extension(service): RoutedService, headers: HeaderMap) -> Response {
    let begun = service
        .caller(&headers)
        .await
        .and_then(|user| service.session_cookie(&user).ok_or_else(|| HttpException::lacks("configuration")));
    match begun {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], Json(json!({ "status": "ok" }))).into_response(),
        Err(raised) => service.answer_exception(&raised),
    }
}

/// The body of a request for a ticket.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct TicketRequest {
    ttl_seconds: Option<i64>,
    single_use: Option<bool>,
}

/// Gives a ticket for a token.
async fn issue_ticket(Extension(service): RoutedService, headers: HeaderMap, body: axum::body::Bytes) -> Response {
    let asked = if body.is_empty() { Ok(TicketRequest::default()) } else { serde_json::from_slice(&body) };
    let Ok(asked) = asked else {
        return service.answer_exception(&HttpException::new(422, "The body is no request for a ticket."));
    };
    let ttl = asked.ttl_seconds.unwrap_or(TTL_S);
    if !TTL_RANGE_S.contains(&ttl) {
        return service.answer_exception(&HttpException::new(422, "ttl_seconds is between 30 and 3600."));
    }
    let user = match service.caller(&headers).await {
        Ok(user) => user,
        Err(raised) => return service.answer_exception(&raised),
    };
    if let Err(why) = service.ask_within(Dependency::Redis, "set").await {
        tracing::warn!("tickets: redis failed: {why}");
        return service.answer_exception(&HttpException::lacks("redis"));
    }
    let now = service.now();
    let ticket = Ticket { user, expires: now + ttl, single_use: asked.single_use.unwrap_or(true) };
    let id = service.tickets().issue(ticket, service.identifier(), now);
    let body = json!({
        "ticket_id": id,
        "created_at": now,
        "expires_at": now + ttl,
        "ttl_seconds": ttl,
        "websocket_url": format!("/ws?ticket={id}"),
    });
    (StatusCode::CREATED, Json(body)).into_response()
}

async fn validate_ticket(Extension(service): RoutedService, Path(id): Path<String>) -> Response {
    match service.tickets().find(&id, service.now()) {
        Some(ticket) => Json(json!({ "valid": true, "expires_at": ticket.expires })).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({ "valid": false }))).into_response(),
    }
}

async fn revoke_ticket(Extension(service): RoutedService, Path(id): Path<String>, headers: HeaderMap) -> Response {
    match service.caller(&headers).await {
        Ok(user) if service.tickets().revoke(&id, &user) => StatusCode::NO_CONTENT.into_response(),
        Ok(_) => not_found().await.into_response(),
        Err(raised) => service.answer_exception(&raised),
    }
}

async fn tickets_status(Extension(service): RoutedService) -> Json<Value> {
    let now = service.now();
    Json(json!({ "active_tickets": service.tickets().count(now) }))
}

/// The body of a request for a test token.
#[derive(Deserialize)]
struct TestUser {
    email: String,
}

/// The way in for end-to-end tests: a real token for a client with the key, outside production.
async fn e2e_token(Extension(service): RoutedService, headers: HeaderMap, body: axum::body::Bytes) -> Response {
    let refuse = |status, text| service.answer_exception(&HttpException::new(status, text));
    if service.environment() == Environment::Production {
        return refuse(403, "There are no test users in production.");
    }
    let Some(key) = &service.settings.e2e_key else { return refuse(503, "Test users are not configured.") };
    if headers.get("x-e2e-bypass-key").is_none_or(|given| given.as_bytes() != key.as_bytes()) {
        return refuse(401, "Authentication required");
    }
    let Ok(asked) = serde_json::from_slice::<TestUser>(&body) else {
        return refuse(422, "The body names the test user by its email.");
    };
    let user = format!("e2e-{}", asked.email.split('@').next().unwrap_or_default());
    let token = service.credential(Credential::Valid, &user, Form::Token).text;
    let body = json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": 900,
        "user": { "id": user, "email": asked.email },
    });
    Json(body).into_response()
}

/// A route that raises the status it is asked for.
async fn raise_status(Extension(service): RoutedService, Path(status): Path<u16>) -> Response {
    service.answer_exception(&HttpException::new(status, "The route raised this status."))
}

/// A route with a mistake in it.
async fn raises() -> Response {
    let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
    response.extensions_mut().insert(Raised(Exception::attribute_error("NoneType", "thread_id")));
    response
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

async fn websocket_config(Extension(service): RoutedService) -> Json<Value> {
    Json(json!({
        "websocket_config": {
            "heartbeat_interval": 30,
            "connection_timeout": 300,
            "max_message_size": endpoint::MESSAGE_BYTES_MAX,
            "max_connections_per_user": limits::CONNECTIONS_MAX,
            "max_messages_per_minute": limits::messages_max(service.environment()),
            "compression_enabled": false,
        },
        "manager_available": true,
    }))
}

async fn websocket_beacon() -> Json<Value> {
    Json(json!({
        "service": "websocket",
        "status": "operational",
        "modes": ["main", "factory", "isolated", "legacy"],
        "golden_path_events": AGENT_EVENTS,
    }))
}

async fn websocket_stats(Extension(service): RoutedService) -> Response {
    if service.revision.has(Defect::MetricsLackAttribute) {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        let exception = Exception::attribute_error("FactoryMetrics", "emergency_cleanups");
        response.extensions_mut().insert(Raised(exception));
        return response;
    }
    let open = service.limits().connections();
    Json(json!({
        "open_sessions": open,
        "sessions_total": service.opened.load(Ordering::Relaxed),
        "timestamp": service.timestamp(),
    }))
    .into_response()
}

async fn service_info() -> Json<Value> {
    Json(json!({ "service": "websocket", "status": "operational", "endpoint": "/api/v1/websocket" }))
}

async fn create_service() -> (StatusCode, Json<Value>) {
    (StatusCode::CREATED, service_info().await)
}
