//! The health routes: each answer agrees with what an upgrade would get at the same moment.

use std::sync::Arc;

use axum::{
    Extension, Json,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::{Backend, readiness::Readiness};
use crate::defect::Defect;

type HealthService = Extension<Arc<Backend>>;

/// Whether the service can do its work: its start, its configuration, and everything it depends on.
pub(super) async fn health(Extension(service): HealthService, headers: HeaderMap) -> Response {
    if service.revision.has(Defect::HealthConstant) {
        return Json(json!({ "status": "ok" })).into_response();
    }
    let mut response = match starting(&service) {
        Some(response) => response,
        None => {
            let readiness = service.readiness().await;
            let status = if readiness.degraded.is_empty() { "healthy" } else { "degraded" };
            let body = json!({
                "status": if readiness.is_ready() { status } else { "unhealthy" },
                "environment": service.environment().name(),
                "failed_services": readiness.failed,
                "degraded_services": readiness.degraded,
            });
            answer(&readiness, body)
        }
    };
    if let Some(version) = headers.get("api-version") {
        response.headers_mut().insert("api-version", version.clone());
    }
    response
}

/// Whether the service has started, whatever it depends on does now.
pub(super) async fn startup(Extension(service): HealthService) -> Response {
    starting(&service).unwrap_or_else(|| Json(json!({ "status": "healthy", "startup_complete": true })).into_response())
}

/// Whether the process is there.
pub(super) async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

pub(super) async fn preflight() -> Json<Value> {
    Json(json!({ "status": "ok", "message": "CORS preflight" }))
}

/// Whether sessions can be opened.
pub(super) async fn websocket(Extension(service): HealthService) -> Response {
    let readiness = service.readiness().await;
    let is_ready = readiness.is_ready();
    let body = json!({
        "status": if is_ready { "healthy" } else { "unhealthy" },
        "timestamp": service.timestamp(),
        "mode": "ssot_consolidated",
        "components": { "manager": is_ready, "message_router": is_ready, "connection_monitor": true },
        "failed_services": readiness.failed,
        "degraded_services": readiness.degraded,
    });
    answer(&readiness, body)
}

/// The answer while the service starts; `None` once it has started.
fn starting(service: &Backend) -> Option<Response> {
    let startup = service.startup();
    if startup.is_complete() {
        return None;
    }
    let body = json!({
        "status": "unhealthy",
        "message": startup.message(),
        "startup_in_progress": true,
        "details": { "phase": startup.phase.name(), "waiting_for": startup.waiting_for },
        "failed_services": [startup.waiting_for.unwrap_or("startup")],
    });
    Some(answer(&Readiness::lacks("startup"), body))
}

fn answer(readiness: &Readiness, body: Value) -> Response {
    if readiness.is_ready() {
        return Json(body).into_response();
    }
    let headers = [(header::RETRY_AFTER, readiness.retry_after_s().to_string())];
    (StatusCode::SERVICE_UNAVAILABLE, headers, Json(body)).into_response()
}
