//! The faults that a server can inject into an application's `receive` and `send`.

use super::{
    Legality,
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

faults! {
    /// One fault of `receive` or `send`. An occasion is an event that is meant.
    EventFault at Event;
    /// gives another event first; what is no event of the specification is given as it is
    Give "give_event" {
        /// The event, as a dict.
        given: Value as "given",
    } "receive gives {given} before";
    /// never gives the event
    Drop "drop_event" {} "receive does not give";
    /// gives the event twice
    Repeat "repeat_event" {} "receive gives twice";
    /// gives the event without one of its keys
    OmitKey "omit_key" {
        /// The key.
        key: String as "key",
    } "receive leaves {key:?} out of";
    /// raises where the event would have come
    ReceiveRaises "receive_raises" {
        /// The exception, as `Type: text`.
        error: String as "error",
    } "receive raises {error} instead of giving";
    /// never returns from `receive` again
    ReceiveHangs "receive_hangs" {} "receive never returns, instead of giving";
    /// raises where the event would have been taken
    SendRaises "send_raises" {
        /// The exception, as `Type: text`.
        error: String as "error",
    } "send raises {error} instead of taking";
    /// returns from `send` only after this time, as with a client that does not read
    SendDelays "send_delays" {
        /// The time.
        delay: Time as "delay_ms",
    } "send takes {delay} for";
    /// never returns from `send`
    SendHangs "send_hangs" {} "send never returns from";
    /// tells the server that the start failed, where the application said that it is complete
    StartupFails "startup_fails" {
        /// The message of the failure.
        message: String as "message",
    } "the server is told {message:?} instead of";
    /// cancels the application's call in the middle of `receive` or `send`, as a server does that shuts down
    Cancel "cancel" {} "the call is cancelled at";
}

impl EventFault {
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
