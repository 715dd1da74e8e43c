//! The framework's WebSocket object, with the states and the error texts of Starlette 0.47.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::url::RequestUrl;
use relapse_core::{
    asgi::{
        event::{Inbound, Outbound},
        exception::Exception,
        scope::Scope,
        value::Value,
    },
    wire::head::{Headers, field, reason_phrase},
};
use relapse_simulate::application::{Receive, SendEvent};

/// Where one side of the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketState {
    Connecting,
    Connected,
    Response,
    Disconnected,
}

impl SocketState {
    /// The name of the Python class.
    pub(super) fn class(self) -> &'static str {
        "WebSocketState"
    }
}

/// A WebSocket connection as an endpoint handles it.
pub(super) struct WebSocket {
    pub(super) scope: Scope,
    receive: Box<dyn Receive>,
    send: Box<dyn SendEvent>,
    client: SocketState,
    application: SocketState,
}

/// The type name of the exception that says that the client is gone; its message is the close code.
const DISCONNECT: &str = "WebSocketDisconnect";

impl WebSocket {
    pub(super) fn new(scope: Scope, receive: Box<dyn Receive>, send: Box<dyn SendEvent>) -> WebSocket {
        WebSocket { scope, receive, send, client: SocketState::Connecting, application: SocketState::Connecting }
    }

    /// `websocket.client_state`.
    pub(super) fn client_state(&self) -> SocketState {
        self.client
    }

    /// `websocket.application_state`.
    pub(super) fn application_state(&self) -> SocketState {
        self.application
    }

    /// `websocket.url`.
    pub(super) fn url(&self) -> Result<RequestUrl, Exception> {
        RequestUrl::of(&self.scope)
    }

    /// `await websocket.accept(…)`.
    pub(super) async fn accept(&mut self, subprotocol: Option<String>) -> Result<(), Exception> {
        if self.client == SocketState::Connecting {
            self.receive_event().await?;
        }
        self.send_event(Outbound::WebsocketAccept { subprotocol, headers: Vec::new() }).await
    }

    /// `await websocket.receive_text()`.
    pub(super) async fn receive_text(&mut self) -> Result<String, Exception> {
        if self.application != SocketState::Connected {
            return Err(Exception::runtime_error("WebSocket is not connected. Need to call \"accept\" first."));
        }
        if self.client == SocketState::Disconnected {
            let text = "Cannot call \"receive\" once a disconnect message has been received.";
            return Err(Exception::runtime_error(text));
        }
        match self.receive_event().await? {
            Inbound::WebsocketReceive { text: Some(text), .. } => Ok(text),
            Inbound::WebsocketReceive { .. } => Err(Exception::key_error("text")),
            Inbound::WebsocketDisconnect { code, .. } => {
                let code = code.map_or("None".to_owned(), |code| code.to_string());
                Err(Exception::new(DISCONNECT, code))
            }
            // The framework looks at the type of an event alone.
            Inbound::Invalid(Value::Dict(mut event)) if is_of_type(&event, "websocket.receive") => {
                match event.remove("text") {
                    Some(Value::Str(text)) => Ok(text),
                    None | Some(Value::None) => Err(Exception::key_error("text")),
                    Some(other) => Err(Exception::attribute_error(other.type_name(), "encode")),
                }
            }
            Inbound::Invalid(Value::Dict(event)) if is_of_type(&event, "websocket.disconnect") => {
                let code = event.get("code").ok_or_else(|| Exception::key_error("code"))?;
                Err(Exception::new(DISCONNECT, code.to_string()))
            }
            other => Err(Exception::runtime_error(format!(
                "Expected ASGI message \"websocket.receive\" or \"websocket.disconnect\", but got '{}'",
                other.name()
            ))),
        }
    }

    /// `await websocket.send_text(…)`.
    pub(super) async fn send_text(&mut self, text: String) -> Result<(), Exception> {
        self.send_event(Outbound::text(text)).await
    }

    /// `await websocket.close(…)`.
    pub(super) async fn close(&mut self, code: u16, reason: impl Into<String>) -> Result<(), Exception> {
        self.send_event(Outbound::WebsocketClose { code, reason: reason.into() }).await
    }

    /// `await websocket.send_denial_response(…)`: refuses the upgrade with a real HTTP answer. A server without that
    /// extension makes a bare 403 of everything; it gets a close that at least says to its log what is meant, with the
    /// private code 4000 + status.
    pub(super) async fn deny(&mut self, status: u16, mut headers: Headers, body: String) -> Result<(), Exception> {
        if self.client == SocketState::Connecting {
            self.receive_event().await?;
        }
        if !self.scope.has_extension("websocket.http.response") {
            return self.close(4000 + status, reason_phrase(status)).await;
        }
        headers.push(field("content-type", "application/json"));
        headers.push(field("content-length", body.len().to_string()));
        self.send_event(Outbound::ResponseStart { status, headers }).await?;
        self.send_event(Outbound::ResponseBody { body: body.into_bytes(), more_body: false }).await
    }

    async fn receive_event(&mut self) -> Result<Inbound, Exception> {
        let event = self.receive.receive().await?;
        if self.client == SocketState::Connecting && event != Inbound::WebsocketConnect {
            let name = event.name();
            let text = format!("Expected ASGI message \"websocket.connect\", but got '{name}'");
            return Err(Exception::runtime_error(text));
        }
        match event.name() {
            "websocket.connect" => self.client = SocketState::Connected,
            "websocket.disconnect" => self.client = SocketState::Disconnected,
            _ => {}
        }
        Ok(event)
    }

    async fn send_event(&mut self, event: Outbound) -> Result<(), Exception> {
        let next = match (self.application, &event) {
            (SocketState::Connecting, Outbound::WebsocketAccept { .. }) => SocketState::Connected,
            (SocketState::Connecting | SocketState::Connected, Outbound::WebsocketClose { .. }) => {
                SocketState::Disconnected
            }
            (SocketState::Connecting, Outbound::ResponseStart { .. }) => SocketState::Response,
            (SocketState::Connected, Outbound::WebsocketSend { .. }) => SocketState::Connected,
            (SocketState::Response, Outbound::ResponseBody { more_body, .. }) => {
                if *more_body {
                    SocketState::Response
                } else {
                    SocketState::Disconnected
                }
            }
            (SocketState::Connecting, other) => return Err(unexpected(CONNECTING, other)),
            (SocketState::Connected, other) => return Err(unexpected(CONNECTED, other)),
            (SocketState::Response, other) => return Err(unexpected(RESPONSE, other)),
            (SocketState::Disconnected, _) => {
                return Err(Exception::runtime_error("Cannot call \"send\" once a close message has been sent."));
            }
        };
        self.application = next;
        self.send.send(event).await.map_err(|exception| {
            // The framework turns an OSError of the server into its own "client is gone".
            if exception.is_disconnect() {
                self.application = SocketState::Disconnected;
                Exception::new(DISCONNECT, "1006")
            } else {
                exception
            }
        })
    }
}

fn is_of_type(event: &BTreeMap<Cow<'static, str>, Value>, name: &str) -> bool {
    event.get("type").is_some_and(|found| *found == Value::from(name.to_owned()))
}

/// Whether an exception says that the client is gone, which is no mistake.
pub(super) fn is_disconnect(exception: &Exception) -> bool {
    exception.type_name == DISCONNECT
}

const CONNECTING: &str = "\"websocket.accept\", \"websocket.close\" or \"websocket.http.response.start\"";
const CONNECTED: &str = "\"websocket.send\" or \"websocket.close\"";
const RESPONSE: &str = "\"websocket.http.response.body\"";

fn unexpected(expected: &str, event: &Outbound) -> Exception {
    let name = event.name(relapse_core::asgi::scope::ScopeType::Websocket);
    Exception::runtime_error(format!("Expected ASGI message {expected}, but got '{name}'"))
}
