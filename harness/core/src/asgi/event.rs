//! ASGI events, and the state machine both sides of a connection must obey.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    asgi::{exception::Exception, scope::ScopeType, value::Value},
    record::event_log::shorten_text,
    wire::head::Headers,
};

/// How many bytes of the message of a failed startup or shutdown are kept: 64 KiB. The search for secrets takes long in more.
const REASON_BYTES_MAX: usize = 64 << 10;

/// The types of the events that HTTP and WebSocket have, in both directions.
pub const EVENT_NAMES: [&str; 17] = [
    "websocket.connect",
    "websocket.receive",
    "websocket.disconnect",
    "websocket.accept",
    "websocket.send",
    "websocket.close",
    "websocket.http.response.start",
    "websocket.http.response.body",
    "http.request",
    "http.disconnect",
    "http.response.start",
    "http.response.body",
    "lifespan.startup",
    "lifespan.startup.complete",
    "lifespan.startup.failed",
    "lifespan.shutdown",
    "lifespan.shutdown.complete",
];

/// An event that the application gets from `receive`.
#[derive(Debug, Clone, PartialEq)]
pub enum Inbound {
    /// The client asks for a WebSocket.
    WebsocketConnect,
    /// A data message; a well-formed one has exactly one of the two.
    WebsocketReceive {
        /// The text, for a text message.
        text: Option<String>,
        /// The bytes, for a binary message.
        bytes: Option<Vec<u8>>,
    },
    /// The connection is over. 1005 stands for "no code" and 1006 for "no close frame" (ASGI, `websocket.disconnect`).
    WebsocketDisconnect {
        /// The close code as the server reports it; `None` where the server gives `None`.
        code: Option<u16>,
        /// The close reason; `None` where the server leaves the key out.
        reason: Option<String>,
    },
    /// A piece of a request body.
    HttpRequest {
        /// The bytes.
        body: Vec<u8>,
        /// More pieces follow.
        more_body: bool,
    },
    /// The HTTP client is gone, or the response is complete.
    HttpDisconnect,
    /// The process starts; the application may get ready (ASGI, Lifespan Protocol).
    LifespanStartup,
    /// The process stops.
    LifespanShutdown,
    /// A dict that is no event of the specification: of an unknown type, or with keys missing or of another type.
    Invalid(Value),
}

/// Which of `text` and `bytes` a server writes into a `websocket.receive`. ASGI lets it leave one out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MessageKeys {
    /// The one that the message has.
    Present,
    /// Both, one of them with `None`.
    Both,
}

/// An event that the application gives to `send`.
#[derive(Debug, Clone, PartialEq)]
pub enum Outbound {
    /// Accept the WebSocket.
    WebsocketAccept {
        /// The subprotocol selected.
        subprotocol: Option<String>,
        /// Further headers of the 101 response.
        headers: Headers,
    },
    /// A data message; a well-formed one has exactly one of the two.
    WebsocketSend {
        /// The text, for a text message.
        text: Option<String>,
        /// The bytes, for a binary message.
        bytes: Option<Vec<u8>>,
    },
    /// Close the WebSocket, or refuse it when it was not accepted yet.
    WebsocketClose {
        /// The close code; 1000 when the application names none.
        code: u16,
        /// The close reason.
        reason: String,
    },
    /// Start an HTTP response; on a WebSocket that was not accepted, a denial response.
    ResponseStart {
        /// The status code.
        status: u16,
        /// The header fields.
        headers: Headers,
    },
    /// A piece of a response body.
    ResponseBody {
        /// The bytes.
        body: Vec<u8>,
        /// More pieces follow.
        more_body: bool,
    },
    /// The application is ready to be called.
    StartupComplete,
    /// The application cannot start.
    StartupFailed {
        /// Why not.
        message: String,
    },
    /// The application has cleaned up.
    ShutdownComplete,
    /// The application could not clean up.
    ShutdownFailed {
        /// Why not.
        message: String,
    },
    /// A message or a close whose text UTF-8 cannot encode.
    Unencodable {
        /// The event, with the surrogates of its text escaped.
        event: Box<Outbound>,
        /// The error of `str.encode` on the text.
        error: Exception,
    },
    /// An event of a type the specification does not know.
    Unknown(Value),
}

impl Inbound {
    /// The event that a dict stands for.
    pub fn from_value(value: &Value) -> Inbound {
        Inbound::read(value).unwrap_or_else(|| Inbound::Invalid(value.clone()))
    }

    fn read(value: &Value) -> Option<Inbound> {
        let event = EventDict::of(value)?;
        match event.name()? {
            "websocket.connect" => Some(Inbound::WebsocketConnect),
            "websocket.receive" => {
                let (text, bytes) = (event.text("text")?, event.bytes("bytes")?);
                // Exactly one of the two is there.
                (text.is_some() != bytes.is_some()).then_some(Inbound::WebsocketReceive { text, bytes })
            }
            "websocket.disconnect" => {
                let code = match event.0.get("code")? {
                    Value::Int(code) => Some(u16::try_from(*code).ok()?),
                    Value::None => None,
                    _ => return None,
                };
                Some(Inbound::WebsocketDisconnect { code, reason: event.text("reason")? })
            }
            "http.disconnect" => Some(Inbound::HttpDisconnect),
            "lifespan.startup" => Some(Inbound::LifespanStartup),
            "lifespan.shutdown" => Some(Inbound::LifespanShutdown),
            _ => None,
        }
    }

    /// Whether it tells that the connection is over.
    pub fn is_end(&self) -> bool {
        matches!(self, Inbound::WebsocketDisconnect { .. } | Inbound::HttpDisconnect)
    }

    /// The dict that an application gets from a server that writes these keys.
    pub fn written(&self, keys: MessageKeys) -> Value {
        let mut value = self.to_value();
        if let (Inbound::WebsocketReceive { .. }, Value::Dict(entries), MessageKeys::Present) = (self, &mut value, keys)
        {
            entries.retain(|_, value| *value != Value::None);
        }
        value
    }

    /// The dict that an application gets.
    pub fn to_value(&self) -> Value {
        let mut entries: Vec<(&'static str, Value)> = match self {
            Inbound::Invalid(value) => return value.clone(),
            Inbound::WebsocketReceive { text, bytes } => {
                let text = text.as_ref().map_or(Value::None, |text| Value::Str(text.clone()));
                let bytes = bytes.as_ref().map_or(Value::None, |bytes| Value::Bytes(bytes.clone().into()));
                vec![("text", text), ("bytes", bytes)]
            }
            Inbound::WebsocketDisconnect { code, reason } => {
                let code = code.map_or(Value::None, |code| Value::Int(code.into()));
                let reason = reason.iter().map(|reason| ("reason", Value::Str(reason.clone())));
                std::iter::once(("code", code)).chain(reason).collect()
            }
            Inbound::HttpRequest { body, more_body } => {
                vec![("body", Value::Bytes(body.clone().into())), ("more_body", Value::Bool(*more_body))]
            }
            Inbound::WebsocketConnect
            | Inbound::HttpDisconnect
            | Inbound::LifespanStartup
            | Inbound::LifespanShutdown => Vec::new(),
        };
        entries.push(("type", Value::Str(self.name().to_owned())));
        Value::Dict(entries.into_iter().map(|(key, value)| (Cow::Borrowed(key), value)).collect())
    }

    /// The keys that an event of this type may have besides `type` (ASGI, HTTP and WebSocket message format); `None` for a
    /// type that no server gives.
    pub fn keys(name: &str) -> Option<&'static [&'static str]> {
        Some(match name {
            "websocket.receive" => &["bytes", "text"],
            "websocket.disconnect" => &["code", "reason"],
            "http.request" => &["body", "more_body"],
            "websocket.connect" | "http.disconnect" | "lifespan.startup" | "lifespan.shutdown" => &[],
            _ => return None,
        })
    }

    /// The dict without one of its keys, exactly as an application gets it.
    #[must_use]
    pub fn without(&self, key: &str) -> Inbound {
        match self.to_value() {
            Value::Dict(mut entries) => {
                entries.remove(key);
                Inbound::Invalid(Value::Dict(entries))
            }
            other => Inbound::Invalid(other),
        }
    }

    /// The event's `type`.
    pub fn name(&self) -> &str {
        match self {
            Inbound::WebsocketConnect => "websocket.connect",
            Inbound::WebsocketReceive { .. } => "websocket.receive",
            Inbound::WebsocketDisconnect { .. } => "websocket.disconnect",
            Inbound::HttpRequest { .. } => "http.request",
            Inbound::HttpDisconnect => "http.disconnect",
            Inbound::LifespanStartup => "lifespan.startup",
            Inbound::LifespanShutdown => "lifespan.shutdown",
            Inbound::Invalid(value) => type_of(value),
        }
    }
}

impl Outbound {
    /// A text message.
    pub fn text(text: impl Into<String>) -> Outbound {
        Outbound::WebsocketSend { text: Some(text.into()), bytes: None }
    }

    /// The event that a dict stands for. One with a key of another type than the specification gives it is unknown.
    pub fn from_value(value: &Value) -> Outbound {
        Outbound::read(value).unwrap_or_else(|| Outbound::Unknown(value.clone()))
    }

    /// The same on a connection of this kind: a response of the other kind is unknown there.
    pub fn on(kind: ScopeType, value: &Value) -> Outbound {
        let event = Outbound::from_value(value);
        let is_response = matches!(event, Outbound::ResponseStart { .. } | Outbound::ResponseBody { .. });
        match is_response && event.name(kind) != type_of(value) {
            true => Outbound::Unknown(value.clone()),
            false => event,
        }
    }

    fn read(value: &Value) -> Option<Outbound> {
        let event = EventDict::of(value)?;
        let read = Outbound::read_dict(&event)?;
        let error = match read {
            Outbound::WebsocketSend { .. } => event.encode_error("text"),
            Outbound::WebsocketClose { .. } => event.encode_error("reason"),
            _ => None,
        };
        Some(match error {
            Some(error) => Outbound::Unencodable { event: Box::new(read), error },
            None => read,
        })
    }

    fn read_dict(event: &EventDict<'_>) -> Option<Outbound> {
        Some(match event.name()? {
            "websocket.accept" => {
                Outbound::WebsocketAccept { subprotocol: event.text("subprotocol")?, headers: event.headers()? }
            }
            "websocket.send" => Outbound::WebsocketSend { text: event.text("text")?, bytes: event.bytes("bytes")? },
            "websocket.close" => Outbound::WebsocketClose {
                code: event.number("code", 1000)?,
                reason: event.text("reason")?.unwrap_or_default(),
            },
            "http.response.start" | "websocket.http.response.start" => {
                event.0.get("status")?;
                Outbound::ResponseStart { status: event.number("status", 0)?, headers: event.headers()? }
            }
            "http.response.body" | "websocket.http.response.body" => {
                let more_body = match event.0.get("more_body") {
                    None | Some(Value::None) => false,
                    Some(Value::Bool(more)) => *more,
                    Some(_) => return None,
                };
                Outbound::ResponseBody { body: event.bytes("body")?.unwrap_or_default(), more_body }
            }
            "lifespan.startup.complete" => Outbound::StartupComplete,
            "lifespan.startup.failed" => Outbound::StartupFailed { message: event.reason()? },
            "lifespan.shutdown.complete" => Outbound::ShutdownComplete,
            "lifespan.shutdown.failed" => Outbound::ShutdownFailed { message: event.reason()? },
            _ => return None,
        })
    }

    /// Whether it refuses a WebSocket that was not accepted, in whatever words: servers read nothing but the type then,
    /// and FastAPI gives a list as the reason.
    pub fn is_refusal(&self) -> bool {
        match self {
            Outbound::WebsocketClose { .. } => true,
            Outbound::Unencodable { event, .. } => event.is_refusal(),
            Outbound::Unknown(value) => type_of(value) == "websocket.close",
            _ => false,
        }
    }

    /// The event's `type` on a connection of this kind: a denial response has names of its own.
    pub fn name(&self, on: ScopeType) -> &str {
        match (self, on) {
            (Outbound::WebsocketAccept { .. }, _) => "websocket.accept",
            (Outbound::WebsocketSend { .. }, _) => "websocket.send",
            (Outbound::WebsocketClose { .. }, _) => "websocket.close",
            (Outbound::ResponseStart { .. }, ScopeType::Websocket) => "websocket.http.response.start",
            (Outbound::ResponseStart { .. }, _) => "http.response.start",
            (Outbound::ResponseBody { .. }, ScopeType::Websocket) => "websocket.http.response.body",
            (Outbound::ResponseBody { .. }, _) => "http.response.body",
            (Outbound::StartupComplete, _) => "lifespan.startup.complete",
            (Outbound::StartupFailed { .. }, _) => "lifespan.startup.failed",
            (Outbound::ShutdownComplete, _) => "lifespan.shutdown.complete",
            (Outbound::ShutdownFailed { .. }, _) => "lifespan.shutdown.failed",
            (Outbound::Unencodable { event, .. }, _) => event.name(on),
            (Outbound::Unknown(value), _) => type_of(value),
        }
    }
}

/// A dict that may be an event. A key that is left out has its default; a key that is present has a type, and `None`
/// stands for a value of another one.
struct EventDict<'a>(&'a BTreeMap<Cow<'static, str>, Value>);

impl<'a> EventDict<'a> {
    fn of(value: &'a Value) -> Option<EventDict<'a>> {
        match value {
            Value::Dict(entries) => Some(EventDict(entries)),
            _ => None,
        }
    }

    /// The `type`.
    fn name(&self) -> Option<&'a str> {
        match self.0.get("type") {
            Some(Value::Str(name)) => Some(name),
            _ => None,
        }
    }

    /// The `message` of a failed startup or shutdown; of a long one only both ends.
    fn reason(&self) -> Option<String> {
        let mut reason = self.text("message")?.unwrap_or_default();
        shorten_text(&mut reason, REASON_BYTES_MAX);
        Some(reason)
    }

    fn text(&self, key: &str) -> Option<Option<String>> {
        match self.0.get(key) {
            None | Some(Value::None) => Some(None),
            Some(Value::Str(text)) => Some(Some(text.clone())),
            Some(Value::Surrogates(text)) => Some(Some(text.escaped())),
            Some(_) => None,
        }
    }

    /// The error of encoding a text, if UTF-8 cannot.
    fn encode_error(&self, key: &str) -> Option<Exception> {
        match self.0.get(key) {
            Some(Value::Surrogates(text)) => Some(text.error()),
            _ => None,
        }
    }

    fn bytes(&self, key: &str) -> Option<Option<Vec<u8>>> {
        match self.0.get(key) {
            None | Some(Value::None) => Some(None),
            Some(Value::Bytes(bytes)) => Some(Some(bytes.to_vec())),
            Some(_) => None,
        }
    }

    fn number(&self, key: &str, default: u16) -> Option<u16> {
        match self.0.get(key) {
            None | Some(Value::None) => Some(default),
            Some(Value::Int(number)) => u16::try_from(*number).ok(),
            Some(_) => None,
        }
    }

    fn headers(&self) -> Option<Headers> {
        match self.0.get("headers") {
            None | Some(Value::None) => Some(Headers::new()),
            Some(Value::List(pairs)) => pairs.iter().map(header).collect(),
            Some(_) => None,
        }
    }
}

/// A header field of a dict: a name and a value, both bytes.
fn header(pair: &Value) -> Option<(Bytes, Bytes)> {
    match pair {
        Value::List(pair) => match pair.as_slice() {
            [Value::Bytes(name), Value::Bytes(value)] => Some((name.clone(), value.clone())),
            _ => None,
        },
        _ => None,
    }
}

/// The `type` of a dict that is no event.
fn type_of(value: &Value) -> &str {
    EventDict::of(value).and_then(|event| event.name()).unwrap_or("unknown")
}

/// Where a connection stands, as the events alone tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Nothing has been answered.
    Connecting,
    /// A WebSocket is accepted and not yet closed by either side.
    Open,
    /// A response has started and its body is not complete.
    Responding,
    /// A response is complete, or the application sent a close.
    Ended,
    /// The client is gone.
    Gone,
}

/// One breach of the ASGI specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtocolBreach(pub String);

impl fmt::Display for ProtocolBreach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Follows one connection's events and says which of them the specification forbids at that point.
#[derive(Debug, Clone)]
pub struct Machine {
    kind: ScopeType,
    state: ConnectionState,
    received_any: bool,
    /// Whether the application was given a disconnect.
    is_told_end: bool,
}

impl Machine {
    /// The machine of a connection that was just handed to the application.
    pub fn new(kind: ScopeType) -> Machine {
        Machine { kind, state: ConnectionState::Connecting, received_any: false, is_told_end: false }
    }

    /// Where the connection stands.
    pub fn state(&self) -> ConnectionState {
        self.state
    }

    /// The server gives an event to the application.
    ///
    /// # Errors
    /// When the server may not give this event now ("Connect", "Receive", "Disconnect", "Request" events).
    pub fn on_receive(&mut self, event: &Inbound) -> Result<(), ProtocolBreach> {
        let first = !std::mem::replace(&mut self.received_any, true);
        let allowed = match (event, self.kind) {
            (Inbound::WebsocketConnect, ScopeType::Websocket) => first,
            (Inbound::WebsocketReceive { text, bytes }, ScopeType::Websocket) => {
                !first
                    && !self.is_told_end
                    && matches!(self.state, ConnectionState::Open | ConnectionState::Ended | ConnectionState::Gone)
                    && text.is_some() != bytes.is_some()
            }
            (Inbound::WebsocketDisconnect { .. }, ScopeType::Websocket) => {
                self.state = ConnectionState::Gone;
                self.is_told_end = true;
                !first
            }
            (Inbound::HttpRequest { .. }, ScopeType::Http) => true,
            (Inbound::HttpDisconnect, ScopeType::Http) => {
                self.state = ConnectionState::Gone;
                true
            }
            (Inbound::LifespanStartup, ScopeType::Lifespan) => first,
            (Inbound::LifespanShutdown, ScopeType::Lifespan) => !first,
            _ => false,
        };
        if allowed { Ok(()) } else { Err(ProtocolBreach(format!("the server gave {} where it may not", event.name()))) }
    }

    /// The application sends an event.
    ///
    /// # Errors
    /// When the application may not send this event now.
    pub fn on_send(&mut self, event: &Outbound) -> Result<(), ProtocolBreach> {
        let next = match (event, self.kind, self.state) {
            (Outbound::Unencodable { event, .. }, _, _) => return self.on_send(event),
            (Outbound::WebsocketAccept { .. }, ScopeType::Websocket, ConnectionState::Connecting) => {
                ConnectionState::Open
            }
            (event, ScopeType::Websocket, ConnectionState::Connecting) if event.is_refusal() => ConnectionState::Ended,
            (Outbound::WebsocketClose { .. }, ScopeType::Websocket, ConnectionState::Open) => ConnectionState::Ended,
            (Outbound::WebsocketSend { text, bytes }, ScopeType::Websocket, ConnectionState::Open)
                if text.is_some() != bytes.is_some() =>
            {
                ConnectionState::Open
            }
            (Outbound::StartupComplete, ScopeType::Lifespan, ConnectionState::Connecting) => ConnectionState::Open,
            (Outbound::StartupFailed { .. }, ScopeType::Lifespan, ConnectionState::Connecting) => {
                ConnectionState::Ended
            }
            (
                Outbound::ShutdownComplete | Outbound::ShutdownFailed { .. },
                ScopeType::Lifespan,
                ConnectionState::Open,
            ) => ConnectionState::Ended,
            (Outbound::ResponseStart { .. }, ScopeType::Http | ScopeType::Websocket, ConnectionState::Connecting) => {
                ConnectionState::Responding
            }
            (Outbound::ResponseBody { more_body, .. }, _, ConnectionState::Responding) => {
                if *more_body {
                    ConnectionState::Responding
                } else {
                    ConnectionState::Ended
                }
            }
            // Sending to a client that is gone is no mistake of the application: it could not know.
            (Outbound::Unknown(_), _, _) => return Err(self.forbidden(event)),
            (_, _, ConnectionState::Gone) => ConnectionState::Gone,
            _ => return Err(self.forbidden(event)),
        };
        self.state = next;
        Ok(())
    }

    /// `send` tells the application that its client is gone (ASGI, "Disconnected Client"). The messages that came before
    /// may still be received.
    pub fn lose(&mut self) {
        self.state = ConnectionState::Gone;
    }

    /// The application's call ends.
    ///
    /// # Errors
    /// When it leaves the client without an answer or without a close.
    pub fn on_return(&self) -> Result<(), ProtocolBreach> {
        let complaint = match self.state {
            ConnectionState::Connecting => "the application returned without answering the request",
            ConnectionState::Open => "the application returned without closing the WebSocket",
            ConnectionState::Responding => "the application returned before its response was complete",
            ConnectionState::Ended | ConnectionState::Gone => return Ok(()),
        };
        Err(ProtocolBreach(complaint.to_owned()))
    }

    fn forbidden(&self, event: &Outbound) -> ProtocolBreach {
        let state = match self.state {
            ConnectionState::Connecting => "before anything was answered",
            ConnectionState::Open => "on an open WebSocket",
            ConnectionState::Responding => "in the middle of a response",
            ConnectionState::Ended => "after the application ended the exchange",
            ConnectionState::Gone => "after the client was gone",
        };
        ProtocolBreach(format!("the application sent {} {state}", event.name(self.kind)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Inbound, Outbound, REASON_BYTES_MAX};
    use crate::asgi::value::Value;

    #[test]
    fn a_long_reason_keeps_its_ends() {
        let message = format!("no {} pool", "x".repeat(3 << 20));
        let event = [("type", "lifespan.startup.failed"), ("message", &message)];
        let event = event.map(|(key, text)| (key.into(), Value::from(text)));
        let Outbound::StartupFailed { message } = Outbound::from_value(&Value::Dict(event.into())) else { panic!() };
        assert!(message.starts_with("no xx") && message.ends_with("xx pool"));
        assert_eq!(message.len(), REASON_BYTES_MAX);
    }

    #[test]
    fn a_received_event_reads_as_it_is_given() {
        for event in [
            Inbound::WebsocketConnect,
            Inbound::WebsocketReceive { text: Some("hi".to_owned()), bytes: None },
            Inbound::HttpDisconnect,
            Inbound::LifespanStartup,
            Inbound::LifespanShutdown,
        ] {
            assert_eq!(Inbound::from_value(&event.to_value()), event);
        }
    }
}
