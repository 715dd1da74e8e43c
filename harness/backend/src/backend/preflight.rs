//! The middleware of #449 in front of the HTTP routes. In the repaired service it lets everything through, because
//! readiness is what the health routes are for.

use std::sync::Arc;

use axum::{
    Extension,
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::json;

use super::Backend;
use crate::defect::Defect;

/// Lets a request through, or answers that the service is not ready.
pub(super) async fn check(Extension(backend): Extension<Arc<Backend>>, request: Request, next: Next) -> Response {
    let deployed = backend.environment().is_deployed();
    if backend.revision.has(Defect::PreflightOnPlainGet)
        && deployed
        && is_websocket_request(&request)
        && !has_upgrade_headers(request.headers())
    {
        return enhanced_rejection(&backend);
    }
    next.run(request).await
}

/// The reported rule: any GET on a path that looks like a WebSocket, whether or not it asks for an upgrade.
fn is_websocket_request(request: &Request) -> bool {
    let path = request.uri().path();
    request.method() == Method::GET && (path.starts_with("/ws") || path.contains("/websocket") || path.ends_with("/ws"))
}

fn has_upgrade_headers(headers: &HeaderMap) -> bool {
    headers.contains_key("sec-websocket-key") && headers.contains_key("sec-websocket-version")
}

/// The answer that the reported middleware itself writes.
fn enhanced_rejection(backend: &Backend) -> Response {
    let body = json!({
        "error": "service_not_ready",
        "message": "WebSocket service is not ready. Enhanced uvicorn compatibility check failed.",
        "details": {
            "state": "unknown",
            "failed_services": [],
            "environment": backend.environment().name(),
            "retry_after_seconds": 10,
            "cloud_run_compatible": true,
            "uvicorn_compatible": true,
            "issue_reference": "#449",
        },
    });
    let headers = [(header::RETRY_AFTER, "10"), (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, axum::Json(body)).into_response()
}
