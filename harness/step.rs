//! What a client does, one act at a time.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::{
    close_code::CloseCode,
    credential::{Credential, CredentialPlace},
    head::Headers,
};

/// One act of the client, with a limit on how long it may take.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What the client does.
    pub act: Act,
    /// How long it waits for the answer, where there is one.
    pub limit: Duration,
}

/// An act of the client.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Ask for a WebSocket on a new connection.
    Open(Request),
    /// Send a plain HTTP request on a new connection.
    Request(Request),
    /// Send a text message.
    SendText(String),
    /// Send a ping frame and wait for the pong frame.
    Ping,
    /// Read until this is seen.
    Wait(Awaited),
    /// Send a close frame and wait for the peer's.
    Close(CloseCode),
    /// End the stream without a close frame.
    Leave,
    /// Go on reading for as long as the step's limit, and wait for nothing.
    Pause,
    /// Read until the close, and answer no ping meanwhile.
    Deafen,
}

/// A request to be written: everything a client may want to say, and to leave out.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path, percent-encoded.
    pub path: Vec<u8>,
    /// The query string without `?`; a token in the query is appended to it.
    pub query: Vec<u8>,
    /// The credential to present.
    pub credential: Credential,
    /// Where to present it.
    pub places: Vec<CredentialPlace>,
    /// The user the credential names.
    pub user: String,
    /// Subprotocols offered, besides those that carry the credential.
    pub offers: Vec<String>,
    /// Further headers; one that the request already has is replaced.
    pub headers: Headers,
    /// Headers a standard client sends and this one does not.
    pub without: Vec<String>,
    /// How strict the client is.
    pub client: Client,
}

/// How strict a client is about the server's handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// It insists on a subprotocol when it offered some (WHATWG WebSockets, "establish a WebSocket connection").
    #[default]
    Browser,
    /// It goes on without one, as RFC 6455 section 4.1 lets it and Python's `websockets` does.
    Library,
}

impl Request {
    /// A request as a standard client makes it: a valid credential in the `Authorization` header.
    pub fn standard(method: &str, path: &str) -> Request {
        Request {
            method: method.to_owned(),
            path: path.as_bytes().to_vec(),
            query: Vec::new(),
            credential: Credential::Valid,
            places: vec![CredentialPlace::Header],
            user: "user-1".to_owned(),
            offers: Vec::new(),
            headers: Vec::new(),
            without: Vec::new(),
            client: Client::default(),
        }
    }
}

/// What a client waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaited {
    /// A text message whose JSON has this `type`.
    Message(String),
    /// A text message whose JSON has this key.
    Key(String),
    /// The end of the connection.
    Close,
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Awaited::Message(name) => write!(f, "a `{name}` message"),
            Awaited::Key(key) => write!(f, "a message with the key `{key}`"),
            Awaited::Close => f.write_str("the close"),
        }
    }
}
