//! The guard of a57de9ab6 around the HTTP routes. In the repaired service an exception passes it as it is, and the server
//! answers it with an honest 500.

use serde_json::json;

use super::{Backend, http::send_json, messages};
use crate::defect::Defect;
use relapse_core::{asgi::exception::Exception, wire::head::field};
use relapse_simulate::application::SendEvent;

impl Backend {
    /// Relabels an exception that leaves the routes as a status; the repaired service passes it on.
    pub(super) async fn relabel(&self, exception: Exception, send: &mut dyn SendEvent) -> Result<(), Exception> {
        if !self.revision.has(Defect::RelabellingGuard) {
            return Err(exception);
        }
        let text = exception.message.to_lowercase();
        let status = if text.contains("websocket") {
            426
        } else if text.contains("auth") {
            401
        } else {
            400
        };
        let body = json!({
            "error": "asgi_scope_validation_failed",
            "message": exception.message,
            "status_code": status,
            "issue_reference": "#517",
        });
        send_json(send, status, vec![field("x-asgi-scope-error", "true")], messages::to_text(&body)).await
    }
}
