//! The faults that a server can inject into an application's `receive` and `send`.

use std::time::Duration;

use super::{
    Legality,
    draw::{FaultDraw, among, up_to_ms},
    effect::InjectedEffect,
    setting::{GivenSettings, SettingError, Time, WrittenSettings, faults, put},
};
use crate::asgi::{event::Inbound, value::Value};

/// Which events an event fault acts on, by their type; `None` for every one but those of the lifespan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events(pub Option<String>);

/// How the types of the lifespan's events begin.
const LIFESPAN: &str = "lifespan.";

impl Events {
    /// The keys of these settings.
    pub const KEYS: [&str; 1] = ["event"];

    /// Whether an event of this type is meant.
    pub fn include(&self, name: &str) -> bool {
        self.0.as_ref().map_or(!name.starts_with(LIFESPAN), |meant| meant == name)
    }

    /// Whether events of the lifespan are meant, which only a process that starts or stops meets.
    pub fn are_of_lifespan(&self) -> bool {
        self.0.as_ref().is_some_and(|meant| meant.starts_with(LIFESPAN))
    }

    pub(super) fn read(settings: &mut GivenSettings) -> Result<Events, SettingError> {
        settings.take("event").map(Events)
    }

    pub(super) fn write(&self, written: &mut WrittenSettings) {
        put(written, "event", &self.0);
    }
}

impl std::fmt::Display for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("an event"))
    }
}

/// Errors that `receive` raises.
const RAISED: &[(u32, &str)] = &[
    (1, "RuntimeError: the queue was closed"),
    (1, "ConnectionResetError: [Errno 104] the authentication header was lost"),
    (1, "KeyError: 'websocket'"),
    (1, "RuntimeError: missing upgrade"),
];

/// Errors that `send` raises. A client that is gone is the most frequent one.
const ERRORS: &[(u32, &str)] = &[
    (2, "OSError: [Errno 32] Broken pipe"),
    (1, "OSError: [Errno 104] Connection reset by peer"),
    (1, "RuntimeError: Unexpected ASGI message"),
    (1, "AssertionError: unauthorized"),
];

/// An event of this type, with nothing but its type.
fn of_type(name: &str) -> Value {
    Value::from([("type", name.into())])
}

/// A message that a client sent.
fn message(text: Value, bytes: Value) -> Value {
    Value::from([("type", "websocket.receive".into()), ("text", text), ("bytes", bytes)])
}

/// An event that comes where none was to come.
fn given(draw: &FaultDraw<'_>, key: &str) -> Option<Value> {
    let choices = draw.choices.fork(key);
    let code = choices.fork("code").one(&[1000_i64, 1001, 1005, 1006, 1012]);
    let (ping, bytes) = ("{\"type\":\"ping\"}", Value::Bytes(bytes::Bytes::from_static(b"x")));
    choices.pick([
        (6, "disconnect", Value::from([("type", "websocket.disconnect".into()), ("code", Value::Int(code))])),
        (2, "disconnect without code", of_type("websocket.disconnect")),
        (2, "http.disconnect", of_type("http.disconnect")),
        (2, "websocket.connect", of_type("websocket.connect")),
        (2, "text and bytes", message(ping.into(), bytes)),
        (2, "neither text nor bytes", message(Value::None, Value::None)),
        (2, "text", message(ping.into(), Value::None)),
        (1, "unknown type", of_type("websocket.unheard_of")),
        (1, "no type", Value::from([("code", Value::Int(1))])),
    ])
}

faults! {
    /// One fault of `receive` or `send`. An occasion is an event that is meant.
    EventFault at Event;
    /// gives another event first; what is no event of the specification is given as it is
    Give "give_event", weight 6 {
        /// The event, as a dict.
        given: Value as "given" from given,
    } "receive gives {given} before";
    /// never gives the event
    Drop "drop_event", weight 2 {} "receive does not give";
    /// gives the event twice
    Repeat "repeat_event", weight 2 {} "receive gives twice";
    /// gives the event without one of its keys
    OmitKey "omit_key", weight 2 {
        /// The key.
        key: String as "key" from among(&[(1, "code")]),
    } "receive leaves {key:?} out of";
    /// raises where the event would have come
    ReceiveRaises "receive_raises", weight 4 {
        /// The exception, as `Type: text`.
        error: String as "error" from among(RAISED),
    } "receive raises {error} instead of giving";
    /// never returns from `receive` again
    ReceiveHangs "receive_hangs", weight 2 {} "receive never returns, instead of giving";
    /// raises where the event would have been taken
    SendRaises "send_raises", weight 6 {
        /// The exception, as `Type: text`.
        error: String as "error" from among(ERRORS),
    } "send raises {error} instead of taking";
    /// returns from `send` only after this time, as with a client that does not read
    SendDelays "send_delays", weight 2 {
        /// The time.
        delay: Time as "delay_ms" from up_to_ms(20_000),
    } "send takes {delay} for";
    /// never returns from `send`
    SendHangs "send_hangs", weight 2 {} "send never returns from";
    /// tells the server that the start failed, where the application said that it is complete
    StartupFails "startup_fails", weight 1 {
        /// The message of the failure.
        message: String as "message" from among(&[(1, "no database")]),
    } "the server is told {message:?} instead of";
    /// cancels the application's call in the middle of `receive` or `send`, as a server does that shuts down
    Cancel "cancel", weight 2 {} "the call is cancelled at";
}

impl EventFault {
    /// The change that client and app get to see.
    pub(super) fn effect(&self) -> InjectedEffect {
        match self {
            EventFault::SendDelays { delay } => InjectedEffect::of_delay(delay),
            EventFault::Give { .. }
            | EventFault::Drop {}
            | EventFault::Repeat {}
            | EventFault::OmitKey { .. }
            | EventFault::ReceiveRaises { .. }
            | EventFault::ReceiveHangs {}
            | EventFault::SendRaises { .. }
            | EventFault::SendHangs {}
            | EventFault::StartupFails { .. }
            | EventFault::Cancel {} => InjectedEffect::Distorts,
        }
    }

    /// Whether it makes the app wait in `send`, and no longer than a time.
    pub fn delays_send(&self) -> bool {
        matches!(self, EventFault::SendDelays { .. })
    }

    /// Whether it makes `receive` or `send` raise.
    pub fn raises(&self) -> bool {
        matches!(self, EventFault::ReceiveRaises { .. } | EventFault::SendRaises { .. } | EventFault::Cancel {})
    }

    /// Whether it keeps the app from ever learning that its client is gone, or from learning it within this time.
    pub(super) fn holds_end_back(&self, events: &Events, patience: Duration) -> bool {
        match self {
            EventFault::ReceiveHangs {} | EventFault::SendHangs {} => true,
            EventFault::Drop {} => events.include("websocket.disconnect") || events.include("http.disconnect"),
            EventFault::SendDelays { delay } => delay.0 > patience,
            EventFault::Give { .. }
            | EventFault::Repeat {}
            | EventFault::OmitKey { .. }
            | EventFault::ReceiveRaises { .. }
            | EventFault::SendRaises { .. }
            | EventFault::StartupFails { .. }
            | EventFault::Cancel {} => false,
        }
    }

    /// Whether it acts on what the application sends.
    pub fn is_on_send(&self) -> bool {
        matches!(
            self,
            EventFault::SendRaises { .. }
                | EventFault::SendDelays { .. }
                | EventFault::SendHangs {}
                | EventFault::StartupFails { .. }
        )
    }

    /// Whether a server does it while the client is there.
    pub fn is_ordinary(&self) -> bool {
        match self {
            EventFault::StartupFails { .. } | EventFault::SendDelays { .. } => true,
            EventFault::Cancel {}
            | EventFault::Give { .. }
            | EventFault::Drop {}
            | EventFault::OmitKey { .. }
            | EventFault::Repeat {}
            | EventFault::ReceiveRaises { .. }
            | EventFault::ReceiveHangs {}
            | EventFault::SendRaises { .. }
            | EventFault::SendHangs {} => false,
        }
    }

    /// Whether a server may do so, and what says it.
    // Long: an arm for each fault, with the sentence of the specification that decides it.
    pub fn legality(&self, events: &Events) -> Legality {
        let before = events.0.as_deref().unwrap_or_default();
        match self {
            EventFault::StartupFails { .. } => Legality::legal(
                "Sent by the application when it has failed to complete its startup. If a server sees this it should [...] exit (Lifespan, Startup Failed).",
            ),
            EventFault::SendDelays { .. } => Legality::legal(
                "send [...] will return once the send has been completed or the connection has been closed (Applications).",
            ),
            _ if events.are_of_lifespan() => Legality::hostile(
                "Sent to the application when the server is ready to startup and receive connections, but before it has started to do so (Lifespan, Startup).",
            ),
            EventFault::Give { given } => match (Inbound::from_value(given), before) {
                // A client can be gone at any time, once the application knows of it.
                (Inbound::WebsocketDisconnect { .. }, "websocket.receive" | "websocket.disconnect")
                | (Inbound::HttpDisconnect, "http.request" | "http.disconnect") => Legality::legal(
                    "Sent when either connection to the client is lost, [...] or loss of the socket (WebSocket, Disconnect).",
                ),
                _ => Legality::hostile(
                    "If an application receives an invalid event [...] it should raise an exception (Error Handling).",
                ),
            },
            EventFault::Drop {} => Legality::hostile(
                "receive [...] will yield a new event dictionary when one is available (Applications).",
            ),
            EventFault::Repeat {} => Legality::hostile(
                "Sent to the application when the client initially opens a connection (WebSocket, Connect).",
            ),
            EventFault::OmitKey { key } => match (before, key.as_str()) {
                ("websocket.receive", "bytes" | "text") => Legality::legal(
                    "At least one of bytes or text must be non-None. One or both keys may be present, however (WebSocket, Receive).",
                ),
                ("websocket.disconnect", "reason") => Legality::legal(
                    "reason (Unicode string) - A reason given for the disconnect, can be any string. Optional; if missing or None default is empty string (WebSocket, Disconnect).",
                ),
                ("http.request", "body" | "more_body") => Legality::legal(
                    "body (byte string) - Body of the request. Optional; if missing defaults to b\"\" (HTTP, Request).",
                ),
                _ => Legality::hostile(
                    "If an application receives an invalid event [...] it should raise an exception (Error Handling).",
                ),
            },
            EventFault::ReceiveRaises { .. } => Legality::hostile(
                "receive [...] will yield a new event dictionary when one is available (Applications).",
            ),
            EventFault::ReceiveHangs {} => {
                Legality::legal("receive [...] will yield a new event dictionary when one is available (Applications).")
            }
            EventFault::SendRaises { error } if error.starts_with("OSError") => Legality::legal(
                "If send is called after the client has disconnected, the server should raise a server-specific subclass of OSError (Disconnected Client).",
            ),
            EventFault::SendRaises { .. } => Legality::hostile(
                "send [...] will return once the send has been completed or the connection has been closed (Applications).",
            ),
            EventFault::SendHangs {} => Legality::hostile(
                "send [...] will return once the send has been completed or the connection has been closed (Applications).",
            ),
            EventFault::Cancel {} => Legality::legal(
                "The specification is silent; an application is an asyncio coroutine, and servers cancel those when they shut down.",
            ),
        }
    }
}
