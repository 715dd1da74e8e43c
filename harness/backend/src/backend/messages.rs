//! The frames the service sends.

use serde::Serialize;
use serde_json::json;

use super::Backend;
use crate::{defect::Defect, revision::Revision};
use relapse_core::asgi::exception::Exception;

/// The events of one agent run, in order.
pub(super) const AGENT_EVENTS: [&str; 5] =
    ["agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed"];

#[derive(Serialize)]
struct ServerMessage<'a, T> {
    #[serde(rename = "type")]
    name: &'a str,
    data: T,
    timestamp: f64,
    server_id: &'a str,
    correlation_id: Option<&'a str>,
}

#[derive(Serialize)]
struct WelcomePayload<'a> {
    mode: &'a str,
    user_id: String,
    connection_id: &'a str,
    golden_path_events: [&'a str; 5],
    features: Features<'a>,
    timestamp: f64,
}

/// The features of a session, and those it lacks.
#[derive(Serialize)]
struct Features<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    degraded: &'a [&'a str],
}

/// `{}`.
#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct ErrorMessage<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    error_code: &'a str,
    error_message: &'a str,
    details: Empty,
    timestamp: f64,
    recovery_suggestions: [&'a str; 0],
}

/// A positional argument of a Python call.
type Argument<'a> = Option<&'a str>;

/// `create_server_message(msg_type, data)`, as a dynamic language calls it.
fn create_server_message(backend: &Backend, msg_type: &str, data: Option<impl Serialize>) -> Result<String, Exception> {
    let data = data.ok_or_else(|| missing_argument("create_server_message", "data"))?;
    let message = ServerMessage {
        name: msg_type,
        data,
        timestamp: backend.timestamp(),
        server_id: "relapse",
        correlation_id: None,
    };
    Ok(to_text(&message))
}

/// `create_error_message(error_code, error_message)`, as a dynamic language calls it.
fn create_error_message(backend: &Backend, error_code: &str, error_message: Argument<'_>) -> Result<String, Exception> {
    let text = error_message.ok_or_else(|| missing_argument("create_error_message", "error_message"))?;
    Ok(error(backend, error_code, text))
}

fn missing_argument(function: &str, argument: &str) -> Exception {
    Exception::type_error(format!("{function}() missing 1 required positional argument: '{argument}'"))
}

/// How the endpoint calls the two constructors above.
struct CallShape(Revision);

impl CallShape {
    /// The second positional argument, if this revision passes one.
    fn second<T>(&self, argument: T) -> Option<T> {
        (!self.0.has(Defect::MessageCallArity)).then_some(argument)
    }
}

/// The endpoint's welcome.
pub(super) fn welcome(
    backend: &Backend,
    mode: &str,
    user: &str,
    connection: &str,
    degraded: &[&str],
) -> Result<String, Exception> {
    let user: String = user.chars().take(8).collect();
    let data = WelcomePayload {
        mode,
        user_id: format!("{user}..."),
        connection_id: connection,
        golden_path_events: AGENT_EVENTS,
        features: Features { degraded },
        timestamp: backend.timestamp(),
    };
    create_server_message(backend, "connection_established", CallShape(backend.revision).second(data))
}

/// The endpoint's report of a failed set-up.
pub(super) fn setup_error(backend: &Backend, error_code: &str, text: &str) -> Result<String, Exception> {
    create_error_message(backend, error_code, CallShape(backend.revision).second(text))
}

/// An error that the client may read.
pub(super) fn error(backend: &Backend, error_code: &str, text: &str) -> String {
    to_text(&ErrorMessage {
        name: "error_message",
        error_code,
        error_message: text,
        details: Empty {},
        timestamp: backend.timestamp(),
        recovery_suggestions: [],
    })
}

/// The message that the service sends when it has not heard from the client for a while.
pub(super) fn heartbeat(backend: &Backend, connection: &str) -> String {
    let stamp = backend.timestamp();
    to_text(&json!({ "type": "heartbeat", "timestamp": stamp, "connection_id": connection, "stats": {} }))
}

/// Anything else the service says.
pub(super) fn to_text(message: &impl Serialize) -> String {
    let mut text = Vec::with_capacity(384);
    serde_json::to_writer(&mut text, message).expect("frames hold nothing that JSON cannot write");
    String::from_utf8(text).expect("JSON is UTF-8")
}

impl Backend {
    /// The body of an answer that says that the service is not ready, and what is missing.
    pub(super) fn not_ready_body(&self, failed: &[&str]) -> String {
        to_text(&json!({
            "error": true,
            "error_code": "SERVICE_UNAVAILABLE",
            "message": "The service is not ready. Try again later.",
            "failed_services": failed,
        }))
    }

    /// The body of an HTTP error. It names the kind of error and nothing from the inside.
    pub(super) fn error_body(&self, error_code: &str, message: &str) -> String {
        to_text(&json!({ "error": true, "error_code": error_code, "message": message }))
    }
}
