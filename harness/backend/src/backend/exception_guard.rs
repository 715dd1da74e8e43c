//! The answer to a WebSocket client whose endpoint raises.

use super::{
    Backend, messages,
    websocket::{SocketState, WebSocket, is_disconnect},
};
use crate::defect::Defect;
use relapse_core::{
    asgi::{exception::Exception, scope::Scope, value::Value},
    wire::close_code::CloseCode,
};

/// The type name of the exception that a failing dependency raises.
pub(super) const DEPENDENCY_ERROR: &str = "DependencyError";

impl Backend {
    /// Ends the exchange decently after its endpoint raised. What the client reads never holds the exception's text.
    pub(super) async fn guard_exception(
        &self,
        websocket: &mut WebSocket,
        exception: Exception,
    ) -> Result<(), Exception> {
        if is_disconnect(&exception) {
            return Ok(());
        }
        if exception.is_cancellation() {
            return Err(exception);
        }
        if self.revision.has(Defect::GuardRunsTwice) && websocket.application_state() == SocketState::Connecting {
            tracing::error!("exception in WebSocket endpoint: {exception}");
            // "Fall back to the unprotected application".
            if let Err(second) = self.route(websocket).await {
                tracing::error!("exception in WebSocket endpoint: {second}");
            }
            return Ok(());
        }
        if websocket.application_state() != SocketState::Connected {
            // Before the accept the server's own answer is the honest one.
            return Err(exception);
        }
        if self.revision.has(Defect::ExceptionSwallowed) {
            tracing::error!("exception in WebSocket endpoint: {exception}");
            return Ok(());
        }
        if self.revision.has(Defect::ExceptionClosedNormally) {
            tracing::error!("exception in WebSocket endpoint: {exception}");
            return websocket.close(CloseCode::NORMAL.0, "").await;
        }
        if self.revision.has(Defect::ExceptionAsCloseReason) {
            let reason = format!("Protocol protection error: {}", exception.message);
            return websocket.close(CloseCode::INTERNAL.0, reason).await;
        }
        let portable = sends_private_codes_only(&websocket.scope);
        let (code, error_code, text) = if exception.type_name == DEPENDENCY_ERROR {
            let code = if portable { CloseCode::PRIVATE_UNAVAILABLE } else { CloseCode::TRY_AGAIN_LATER };
            (code, "SERVICE_UNAVAILABLE", "A service is not available. Try again later.")
        } else {
            tracing::error!("exception in WebSocket endpoint: {exception}");
            let code = if portable { CloseCode::PRIVATE_INTERNAL } else { CloseCode::INTERNAL };
            (code, "INTERNAL_ERROR", "Something went wrong.")
        };
        let told = async {
            websocket.send_text(messages::error(self, error_code, text)).await?;
            websocket.close(code.0, text).await
        };
        // The client may have left in the meantime.
        told.await.or_else(|exception| if is_disconnect(&exception) { Ok(()) } else { Err(exception) })
    }
}

/// Whether the server may refuse the codes below 3000 but 1000. One that announces no version of the specification
/// is taken for daphne, whose protocol library raises on them.
pub(super) fn sends_private_codes_only(scope: &Scope) -> bool {
    !matches!(scope.get("asgi"), Ok(Value::Dict(asgi)) if asgi.contains_key("spec_version"))
}
