//! The rules of the ASGI specification for each key of a scope: the "HTTP connection scope" and the "WebSocket
//! connection scope" of its HTTP & WebSocket message format.

use super::{Scope, ScopeType};
use crate::{asgi::value::Value, fault::Legality};

/// One key of a scope.
#[derive(Debug, Clone, Copy)]
pub struct ScopeKey {
    /// Its name.
    pub name: &'static str,
    /// The types of scope that have it.
    pub of: &'static [ScopeType],
    /// The types of scope that may lack it.
    pub optional_in: &'static [ScopeType],
    /// Whether `None` stands for its absence.
    pub may_be_none: bool,
    fits: fn(ScopeType, &Value) -> bool,
    /// The sentence of the specification about it.
    pub sentence: &'static str,
}

const BOTH: &[ScopeType] = &[ScopeType::Http, ScopeType::Websocket];
const WEBSOCKET: &[ScopeType] = &[ScopeType::Websocket];
const HTTP: &[ScopeType] = &[ScopeType::Http];

/// Every key that the specification has.
pub const ALL: &[ScopeKey] = &[
    ScopeKey {
        name: "type",
        of: BOTH,
        optional_in: &[],
        may_be_none: false,
        fits: |scope_type, value| *value == Value::from(scope_type.name()),
        sentence: "type (Unicode string) - \"http\" or \"websocket\".",
    },
    ScopeKey {
        name: "asgi",
        of: BOTH,
        optional_in: &[],
        may_be_none: false,
        fits: |_, value| matches!(value, Value::Dict(entries) if matches!(entries.get("version"), Some(Value::Str(_)))),
        sentence: "asgi[\"version\"] (Unicode string) - Version of the ASGI spec.",
    },
    ScopeKey {
        name: "http_version",
        of: BOTH,
        optional_in: WEBSOCKET,
        may_be_none: false,
        fits: |_, value| matches!(value, Value::Str(version) if ["1.0", "1.1", "2"].contains(&version.as_str())),
        sentence: "http_version (Unicode string) - One of \"1.0\", \"1.1\" or \"2\"; optional for a WebSocket.",
    },
    ScopeKey {
        name: "method",
        of: HTTP,
        optional_in: &[],
        may_be_none: false,
        fits: |_, value| matches!(value, Value::Str(method) if !method.is_empty() && *method == method.to_uppercase()),
        sentence: "method (Unicode string) - The HTTP method name, uppercased.",
    },
    ScopeKey {
        name: "scheme",
        of: BOTH,
        optional_in: BOTH,
        may_be_none: false,
        fits: |_, value| matches!(value, Value::Str(scheme) if !scheme.is_empty()),
        sentence: "scheme (Unicode string) - URL scheme portion. Optional (but must not be empty).",
    },
    ScopeKey {
        name: "path",
        of: BOTH,
        optional_in: &[],
        may_be_none: false,
        fits: |_, value| matches!(value, Value::Str(_)),
        sentence: "path (Unicode string) - HTTP request target excluding any query string, decoded.",
    },
    ScopeKey {
        name: "raw_path",
        of: BOTH,
        optional_in: BOTH,
        may_be_none: true,
        fits: |_, value| matches!(value, Value::Bytes(_)),
        sentence: "raw_path (byte string) - Optional; if missing defaults to None.",
    },
    ScopeKey {
        name: "query_string",
        of: BOTH,
        optional_in: WEBSOCKET,
        may_be_none: true,
        fits: |_, value| matches!(value, Value::Bytes(_)),
        sentence: "query_string (byte string) - URL portion after the ?; optional for a WebSocket: if missing or None default is empty string.",
    },
    ScopeKey {
        name: "root_path",
        of: BOTH,
        optional_in: BOTH,
        may_be_none: false,
        fits: |_, value| matches!(value, Value::Str(_)),
        sentence: "root_path (Unicode string) - Optional; if missing defaults to \"\".",
    },
    ScopeKey {
        name: "headers",
        of: BOTH,
        optional_in: &[],
        may_be_none: false,
        fits: |_, value| is_list(value, is_header),
        sentence: "headers (Iterable[[byte string, byte string]]) - Header names should be lowercased, but it is not required.",
    },
    ScopeKey {
        name: "client",
        of: BOTH,
        optional_in: BOTH,
        may_be_none: true,
        fits: |_, value| is_address(value, AddressPort::Required),
        sentence: "client (Iterable[Unicode string, int]) - Optional; if missing defaults to None.",
    },
    ScopeKey {
        name: "server",
        of: BOTH,
        optional_in: BOTH,
        may_be_none: true,
        fits: |_, value| is_address(value, AddressPort::Optional),
        sentence: "server (Iterable[Unicode string, Optional[int]]) - [path, None] for a unix socket. Optional; if missing defaults to None.",
    },
    ScopeKey {
        name: "subprotocols",
        of: WEBSOCKET,
        optional_in: WEBSOCKET,
        may_be_none: false,
        fits: |_, value| is_list(value, |item| matches!(item, Value::Str(_))),
        sentence: "subprotocols (Iterable[Unicode string]) - Optional; if missing defaults to empty list.",
    },
    ScopeKey {
        name: "extensions",
        of: BOTH,
        optional_in: BOTH,
        may_be_none: true,
        fits: |_, value| matches!(value, Value::Dict(_)),
        sentence: "extensions - scopes may have an entry with a dictionary (Extensions).",
    },
    ScopeKey {
        name: "state",
        of: BOTH,
        optional_in: BOTH,
        may_be_none: false,
        fits: |_, value| matches!(value, Value::Dict(_)),
        sentence: "state (Optional[dict[Unicode string, Any]]) - Optional; if missing the server does not support this feature.",
    },
];

/// The sentence about keys that the specification does not have.
const EXTRA: &str = "servers and middleware may add keys of their own (Middleware, Extensions).";

/// Whether a scope of this type may have this value under a key, or lack it, and what says so.
pub fn legality(scope_type: ScopeType, name: &str, value: Option<&Value>) -> Legality {
    let Some(key) = ALL.iter().find(|key| key.name == name && key.of.contains(&scope_type)) else {
        return Legality::legal(EXTRA);
    };
    let is_optional = key.optional_in.contains(&scope_type);
    let is_legal = match value {
        None => is_optional,
        Some(Value::None) if key.may_be_none => is_optional,
        Some(value) => (key.fits)(scope_type, value),
    };
    Legality { is_legal, sentence: key.sentence }
}

/// The keys of a scope that break the specification, each with its sentence.
pub fn breaches(scope_type: ScopeType, scope: &Scope) -> Vec<(&'static str, &'static str)> {
    let keys = ALL.iter().filter(|key| key.of.contains(&scope_type));
    keys.map(|key| (key.name, legality(scope_type, key.name, scope.0.get(key.name))))
        .filter(|(_, legality)| !legality.is_legal)
        .map(|(name, legality)| (name, legality.sentence))
        .collect()
}

fn is_list(value: &Value, fits: impl Fn(&Value) -> bool) -> bool {
    matches!(value, Value::List(items) if items.iter().all(fits))
}

fn is_header(item: &Value) -> bool {
    matches!(item, Value::List(pair) if matches!(pair.as_slice(), [Value::Bytes(_), Value::Bytes(_)]))
}

/// Whether an address needs a port.
#[derive(PartialEq)]
enum AddressPort {
    Required,
    /// `None` stands in its place for a Unix socket.
    Optional,
}

fn is_address(value: &Value, port: AddressPort) -> bool {
    let Value::List(pair) = value else { return false };
    match pair.as_slice() {
        [Value::Str(_), Value::Int(number)] => (0..=65535).contains(number),
        [Value::Str(_), Value::None] => port == AddressPort::Optional,
        _ => false,
    }
}
