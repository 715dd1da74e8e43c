//! The ASGI connection scope, built from a request head as the specification says.
//!
//! Section names refer to the ASGI HTTP and WebSocket message format, version 2.3 and later.

pub mod keys;

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;

use crate::{
    asgi::{exception::Exception, value::Value},
    wire::{
        head::{RequestHead, offered_subprotocols},
        percent,
    },
};

/// The kind of connection that a scope describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScopeType {
    /// One HTTP request.
    Http,
    /// One WebSocket connection.
    Websocket,
    /// The life of the server's process.
    Lifespan,
}

impl ScopeType {
    /// The value of the scope's `type` key.
    pub fn name(self) -> &'static str {
        match self {
            ScopeType::Http => "http",
            ScopeType::Websocket => "websocket",
            ScopeType::Lifespan => "lifespan",
        }
    }
}

/// The facts in a server's scopes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeFacts {
    /// `scope["asgi"]["version"]`.
    pub asgi_version: String,
    /// `scope["asgi"]["spec_version"]` of a WebSocket; empty where the server leaves it out.
    pub websocket_spec_version: String,
    /// `scope["asgi"]["spec_version"]` of an HTTP request; empty where the server leaves it out.
    pub http_spec_version: String,
    /// Whether `extensions` has `websocket.http.response`, so that an upgrade can be refused with a real answer.
    pub denial_response: bool,
    /// Whether there is a `state` key.
    pub state: bool,
}

/// A scope as the application gets it. It can hold anything, because a fault may have been at work; the readers
/// below fail as the same expression would in Python.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope(pub BTreeMap<Cow<'static, str>, Value>);

/// Header fields as the application reads them: lower-cased name and value.
pub type HeaderPairs<'a> = Vec<(&'a [u8], &'a [u8])>;

/// The client address every scope carries: a documentation address (RFC 5737) so that nothing depends on a real one.
const CLIENT: &str = "192.0.2.10";
/// The first of the ports that connections come from (RFC 6335 section 6), and how many there are.
const CLIENT_PORTS: (usize, usize) = (49152, 16384);
const SERVER: (&str, i64) = ("127.0.0.1", 8000);

impl Scope {
    /// Builds the scope for a request ("HTTP connection scope", "WebSocket connection scope"): header names
    /// lower-cased, `path` percent-decoded, `raw_path` and `query_string` as they were sent. Every connection comes from
    /// another port of the same client.
    pub fn build(scope_type: ScopeType, head: &RequestHead, facts: &ScopeFacts, connection: usize) -> Scope {
        let (raw_path, query) = head.path_and_query();
        let mut scope = BTreeMap::new();
        let mut put = |key: &'static str, value: Value| scope.insert(Cow::Borrowed(key), value);
        put("type", scope_type.name().into());
        let spec_version = match scope_type {
            ScopeType::Websocket => &facts.websocket_spec_version,
            ScopeType::Http | ScopeType::Lifespan => &facts.http_spec_version,
        };
        let mut asgi = BTreeMap::from([(Cow::Borrowed("version"), facts.asgi_version.as_str().into())]);
        if !spec_version.is_empty() {
            asgi.insert(Cow::Borrowed("spec_version"), spec_version.as_str().into());
        }
        put("asgi", Value::Dict(asgi));
        put("http_version", if head.minor_version == 0 { "1.0" } else { "1.1" }.into());
        put("path", percent::decoded_text(&raw_path).into());
        put("raw_path", raw_path.into());
        put("query_string", query.into());
        put("root_path", "".into());
        put("headers", header_pairs(head));
        let port = CLIENT_PORTS.0 + connection % CLIENT_PORTS.1;
        put("client", address((CLIENT, port as i64)));
        put("server", address(SERVER));
        let mut extensions = BTreeMap::new();
        match scope_type {
            ScopeType::Http => {
                put("method", head.method.to_ascii_uppercase().into());
                put("scheme", "http".into());
            }
            ScopeType::Websocket => {
                put("scheme", "ws".into());
                let offered = offered_subprotocols(&head.headers);
                put("subprotocols", Value::List(offered.into_iter().map(Value::Str).collect()));
                if facts.denial_response {
                    extensions.insert(Cow::Borrowed("websocket.http.response"), Value::Dict(BTreeMap::new()));
                }
            }
            ScopeType::Lifespan => {}
        }
        put("extensions", Value::Dict(extensions));
        if facts.state {
            put("state", Value::Dict(BTreeMap::new()));
        }
        Scope(scope)
    }

    /// The scope of the process's life ("Lifespan Protocol").
    pub fn lifespan(facts: &ScopeFacts, spec_version: &str) -> Scope {
        let asgi = BTreeMap::from([
            (Cow::Borrowed("version"), facts.asgi_version.as_str().into()),
            (Cow::Borrowed("spec_version"), spec_version.into()),
        ]);
        let mut scope = BTreeMap::from([
            (Cow::Borrowed("type"), ScopeType::Lifespan.name().into()),
            (Cow::Borrowed("asgi"), Value::Dict(asgi)),
        ]);
        if facts.state {
            scope.insert(Cow::Borrowed("state"), Value::Dict(BTreeMap::new()));
        }
        Scope(scope)
    }

    /// `scope[key]`.
    ///
    /// # Errors
    /// `KeyError` when the key is absent.
    pub fn get(&self, key: &str) -> Result<&Value, Exception> {
        self.0.get(key).ok_or_else(|| Exception::key_error(key))
    }

    /// `scope[key]`, used as a `str`.
    ///
    /// # Errors
    /// `KeyError` when absent, `TypeError` when of another type.
    pub fn str(&self, key: &str) -> Result<&str, Exception> {
        match self.get(key)? {
            Value::Str(value) => Ok(value),
            other => Err(wrong_type(key, "str", other)),
        }
    }

    /// `scope[key]`, used as `bytes`.
    ///
    /// # Errors
    /// `KeyError` when absent, `TypeError` when of another type.
    pub fn bytes(&self, key: &str) -> Result<&[u8], Exception> {
        match self.get(key)? {
            Value::Bytes(value) => Ok(value),
            other => Err(wrong_type(key, "bytes", other)),
        }
    }

    /// The query string; on a WebSocket an absent one, and `None`, is an empty one.
    ///
    /// # Errors
    /// `KeyError` when a request lacks it, `TypeError` when it is no `bytes`.
    pub fn query(&self) -> Result<&[u8], Exception> {
        match self.0.get("query_string") {
            None | Some(Value::None) if self.is_websocket() => Ok(&[]),
            _ => self.bytes("query_string"),
        }
    }

    fn is_websocket(&self) -> bool {
        matches!(self.0.get("type"), Some(Value::Str(kind)) if kind == ScopeType::Websocket.name())
    }

    /// `scope["headers"]`, as pairs of bytes.
    ///
    /// # Errors
    /// `KeyError` when absent, `TypeError` or `ValueError` when it is no iterable of byte pairs.
    pub fn headers(&self) -> Result<HeaderPairs<'_>, Exception> {
        let Value::List(items) = self.get("headers")? else {
            return Err(wrong_type("headers", "list", self.get("headers")?));
        };
        items
            .iter()
            .map(|item| match item {
                Value::List(pair) => match pair.as_slice() {
                    [Value::Bytes(name), Value::Bytes(value)] => Ok((name.as_ref(), value.as_ref())),
                    [name, _] => Err(wrong_type("headers", "bytes", name)),
                    _ => Err(Exception::new("ValueError", "not enough values to unpack (expected 2)")),
                },
                other => Err(wrong_type("headers", "list", other)),
            })
            .collect()
    }

    /// The subprotocols offered; an absent key means none (the key is optional in the specification).
    ///
    /// # Errors
    /// `TypeError` when the key holds something else than a list of `str`.
    pub fn subprotocols(&self) -> Result<Vec<&str>, Exception> {
        match self.0.get("subprotocols") {
            None | Some(Value::None) => Ok(Vec::new()),
            Some(Value::List(items)) => items
                .iter()
                .map(|item| match item {
                    Value::Str(value) => Ok(value.as_str()),
                    other => Err(wrong_type("subprotocols", "str", other)),
                })
                .collect(),
            Some(other) => Err(wrong_type("subprotocols", "list", other)),
        }
    }

    /// Whether the server says that it understands this extension.
    pub fn has_extension(&self, name: &str) -> bool {
        matches!(self.0.get("extensions"), Some(Value::Dict(extensions)) if extensions.contains_key(name))
    }
}

fn wrong_type(key: &str, expected: &str, found: &Value) -> Exception {
    Exception::type_error(format!("scope['{key}'] must be {expected}, not {}", found.type_name()))
}

fn header_pairs(head: &RequestHead) -> Value {
    Value::List(head.headers.iter().map(|(name, value)| header_pair(name, value)).collect())
}

fn header_pair(name: &Bytes, value: &Bytes) -> Value {
    let is_lower = !name.iter().any(u8::is_ascii_uppercase);
    let name = if is_lower { name.clone() } else { name.to_ascii_lowercase().into() };
    Value::List(vec![name.into(), value.clone().into()])
}

fn address((host, port): (&str, i64)) -> Value {
    Value::List(vec![Value::from(host), Value::Int(port)])
}
