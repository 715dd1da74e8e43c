//! The outermost middleware: a scope that lacks what every endpoint needs is answered with 400.

use super::{Backend, http::send_json, websocket::WebSocket};
use crate::defect::Defect;
use relapse_core::{
    asgi::{exception::Exception, scope::Scope},
    wire::{close_code::CloseCode, head::field},
};
use relapse_simulate::application::SendEvent;

/// The length that the answer declares under `fixed_error_length`.
const FIXED_LENGTH: usize = 77;

impl Backend {
    /// Answers a malformed HTTP scope; `Ok(false)` when the scope is well formed.
    pub(super) async fn guard_http(&self, scope: &Scope, send: &mut dyn SendEvent) -> Result<bool, Exception> {
        if is_well_formed(scope) && scope.bytes("query_string").is_ok() && scope.str("method").is_ok() {
            return Ok(false);
        }
        let body = self.error_body("BAD_REQUEST", "Malformed request.");
        let length = if self.revision.has(Defect::FixedErrorLength) { FIXED_LENGTH } else { body.len() };
        send_json(send, 400, vec![field("content-length", length.to_string())], body).await?;
        Ok(true)
    }

    /// Whether the middleware of #449 makes a WebSocket of this plain request, because it carries the headers of one.
    pub(super) fn rewrites(&self, scope: &Scope) -> bool {
        self.revision.has(Defect::HttpScopeRewritten)
            && scope.headers().is_ok_and(|headers| asks_for_websocket(&headers))
    }

    /// Refuses a malformed WebSocket scope; `Ok(false)` when the scope is well formed.
    pub(super) async fn guard_websocket(&self, websocket: &mut WebSocket) -> Result<bool, Exception> {
        let has_foreign_key = ["method", "query_params"].iter().any(|key| websocket.scope.get(key).is_ok());
        if self.revision.has(Defect::ScopeKeyRefused) && has_foreign_key {
            websocket.close(CloseCode::INTERNAL.0, "uvicorn scope validation failed").await?;
            return Ok(true);
        }
        if is_well_formed(&websocket.scope) && websocket.scope.subprotocols().is_ok() {
            return Ok(false);
        }
        websocket.deny(400, Vec::new(), self.error_body("BAD_REQUEST", "Malformed request.")).await?;
        Ok(true)
    }
}

/// Whether the keys that every route reads are there as the specification has them.
fn is_well_formed(scope: &Scope) -> bool {
    scope.str("path").is_ok() && scope.query().is_ok() && scope.headers().is_ok()
}

fn asks_for_websocket(headers: &[(&[u8], &[u8])]) -> bool {
    headers.iter().any(|(name, value)| *name == b"upgrade" && value.eq_ignore_ascii_case(b"websocket"))
}
