//! What a client does, one act at a time.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

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

/// How long a step may take unless it says otherwise. Virtual time in memory.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(5);

/// The user that a credential names unless a step names another.
pub const DEFAULT_USER: &str = "user-1";

/// How many clients perform the same steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowd {
    /// Users, each named by its number. One alone has the name its steps give it.
    pub users: usize,
    /// Clients of each user; all of them at the same time.
    pub connections: usize,
    /// How often each client performs the steps, one time after the other.
    pub rounds: usize,
}

impl Crowd {
    /// One client, once.
    pub const ONE: Crowd = Crowd { users: 1, connections: 1, rounds: 1 };
    /// The most that a case may ask for, in clients times rounds.
    pub const MAX: usize = 1000;

    /// How many clients there are.
    pub fn clients(self) -> usize {
        self.users * self.connections
    }
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
    /// Send a binary message.
    SendBytes(Vec<u8>),
    /// Send a ping frame and wait for the pong frame.
    Ping,
    /// Read until this is seen.
    Wait(Awaited),
    /// Send a close frame and wait for the peer's.
    Close(CloseCode),
    /// End the stream without a close frame.
    Leave,
    /// Let the step's limit pass, and go on reading meanwhile where there is a session.
    Pause,
    /// Read until the close, and answer no ping meanwhile.
    Deafen,
    /// Let the step's limit pass, and read nothing meanwhile, so that what is sent has to wait.
    Freeze,
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
    /// The body, of type JSON; none when it is empty.
    pub body: Vec<u8>,
    /// How strict the client is.
    pub client: Client,
    /// How long a client that is refused a connection tries again, with growing pauses; it does not without this.
    pub retry: Option<Duration>,
    /// After how long the client leaves when there is no answer yet.
    pub give_up: Option<Duration>,
}

/// How strict a client is about the server's handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
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
            user: DEFAULT_USER.to_owned(),
            offers: Vec::new(),
            headers: Vec::new(),
            without: Vec::new(),
            body: Vec::new(),
            client: Client::default(),
            retry: None,
            give_up: None,
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
