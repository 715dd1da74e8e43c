//! The steps of a client, one act each.

use std::fmt;
use std::time::Duration;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::{
    client::{
        credential::{Credential, CredentialPlace},
        signal::{ExitExpectation, Signal},
    },
    wire::{close_code::CloseCode, head::Headers},
};

/// One act of a client, with a limit on how long it may take.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The act.
    pub act: Action,
    /// How long the client waits for the answer, where there is one.
    pub limit: Duration,
    /// The client that acts; `None` in a case that names no clients.
    pub client: Option<ClientName>,
    /// In which pieces a message or a request is written; `None` for one write.
    pub slices: Option<Slices>,
    /// Where the case file has it.
    pub line: SourceLine,
}

/// The line of a file in which something stands, counted from 1; `None` for what no file says. It is no part of what it
/// says: a case that is printed and read again is the same case, so any two lines are equal.
#[derive(Debug, Clone, Copy, Default)]
pub struct SourceLine(pub Option<usize>);

impl PartialEq for SourceLine {
    fn eq(&self, _other: &SourceLine) -> bool {
        true
    }
}

impl Eq for SourceLine {}

impl fmt::Display for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, "line {line}: "))
    }
}

impl Step {
    /// An act of the only client, written in one piece.
    pub fn new(act: Action, limit: Duration) -> Step {
        Step { act, limit, client: None, slices: None, line: SourceLine::default() }
    }

    /// The request of a step that opens an exchange.
    pub fn opening(&self) -> Option<&Request> {
        match &self.act {
            Action::Open(request) | Action::Request(request) => Some(request),
            _ => None,
        }
    }
}

/// The name of one of several clients in a case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientName(pub String);

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How bytes are cut when they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slices {
    /// The size of each piece, in bytes.
    pub bytes: usize,
    /// The pause between two pieces.
    pub pause: Duration,
}

/// How long a step may take unless it says otherwise. Virtual time in memory.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(5);

/// The user that a credential names unless a step names another.
pub const DEFAULT_USER: &str = "user-1";

/// How many clients perform the same steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    /// Users, each named by its number. One alone has the name its steps give it.
    pub users: usize,
    /// Clients of each user; all of them at the same time.
    pub connections: usize,
    /// How often each client performs the steps, one time after the other.
    pub rounds: usize,
}

impl Concurrency {
    /// One client, once.
    pub const ONE: Concurrency = Concurrency { users: 1, connections: 1, rounds: 1 };
    /// The most that a case may ask for, in clients times rounds.
    pub const MAX: usize = 1000;

    /// How many clients there are.
    pub fn clients(self) -> usize {
        self.users * self.connections
    }
}

/// An act of the client.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Ask for a WebSocket on a new connection.
    Open(Request),
    /// Send a plain HTTP request; on a new connection unless it says otherwise.
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
    /// Break the connection (RST on a socket); in memory the peer sees the end of the stream.
    Reset,
    /// Let the step's limit pass, and go on reading meanwhile where there is a session.
    Pause,
    /// Read until the close, and answer no ping meanwhile.
    Deafen,
    /// Let the step's limit pass, and read nothing meanwhile, so that what is sent has to wait.
    Freeze,
    /// Read nothing from here on, until the client's next act that reads. No time passes.
    StopReading,
    /// Read the answer to the request before, which left that to a later step.
    ReadAnswer,
    /// Send a signal to the server. No client acts.
    Signal(Signal),
    /// Wait for the end of the server's process. No client acts.
    AwaitExit(ExitExpectation),
}

impl Action {
    /// Whether a client performs it, and not the harness beside the clients.
    pub fn is_of_client(&self) -> bool {
        match self {
            Action::Signal(_) | Action::AwaitExit(_) => false,
            Action::Open(_)
            | Action::Request(_)
            | Action::SendText(_)
            | Action::SendBytes(_)
            | Action::Ping
            | Action::Wait(_)
            | Action::Close(_)
            | Action::Leave
            | Action::Reset
            | Action::Pause
            | Action::Deafen
            | Action::Freeze
            | Action::StopReading
            | Action::ReadAnswer => true,
        }
    }
}

impl Action {
    /// The request that it makes.
    pub fn request(&self) -> Option<&Request> {
        match self {
            Action::Open(request) | Action::Request(request) => Some(request),
            Action::SendText(_)
            | Action::SendBytes(_)
            | Action::Ping
            | Action::Wait(_)
            | Action::Close(_)
            | Action::Leave
            | Action::Reset
            | Action::Pause
            | Action::Deafen
            | Action::Freeze
            | Action::StopReading
            | Action::ReadAnswer
            | Action::Signal(_)
            | Action::AwaitExit(_) => None,
        }
    }
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
    /// The extension offered in an upgrade, as the header has it; none when it is empty.
    pub extensions: String,
    /// Further headers; one that the request already has is replaced.
    pub headers: Headers,
    /// Headers a standard client sends and this one does not.
    pub without: Vec<String>,
    /// The body, of type JSON; none when it is empty.
    pub body: Vec<u8>,
    /// How many bytes of the body are sent; the head announces all of it. `None` for the whole body.
    pub body_sent: Option<usize>,
    /// The connection that carries the request.
    pub on: Carrier,
    /// When its answer is read.
    pub answer: AnswerReading,
    /// When the parts of the answer's body are expected.
    pub expects: BodyExpectation,
    /// How strict the client is.
    pub client: ClientStrictness,
    /// How long a client that is refused a connection tries again, with growing pauses; it does not without this.
    pub retry: Option<Duration>,
    /// After how long the client leaves when there is no answer yet.
    pub give_up: Option<Duration>,
}

/// The connection that carries a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// A new one.
    #[default]
    NewConnection,
    /// The one of the client's request before, whose answer is read whole by then (RFC 9112 section 9.3).
    SameConnection,
    /// The same, before the answers to the requests before are read (RFC 9112 section 9.3.2).
    Pipeline,
}

impl Carrier {
    /// Whether it is a connection of the request's own.
    pub fn is_new(self) -> bool {
        self == Carrier::NewConnection
    }
}

/// When a client reads the answer to a plain request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AnswerReading {
    /// In the step of the request, or with that of the last request of its pipeline.
    #[default]
    AtOnce,
    /// In a later step.
    Later,
}

/// When the parts of a body are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BodyExpectation {
    /// The longest time from the request to the first byte of the body.
    pub first_byte: Option<Duration>,
    /// The longest time between two reads of the body that bring bytes, and from the last of them to its end.
    pub gap: Option<Duration>,
}

/// How strict a client is about the server's handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientStrictness {
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
            extensions: String::new(),
            headers: Vec::new(),
            without: Vec::new(),
            body: Vec::new(),
            body_sent: None,
            on: Carrier::default(),
            answer: AnswerReading::default(),
            expects: BodyExpectation::default(),
            client: ClientStrictness::default(),
            retry: None,
            give_up: None,
        }
    }
}

/// The event that a client waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaited {
    /// A text message whose JSON has this `type`.
    Message(String),
    /// A text message whose JSON has this key.
    Key(String),
    /// A text message that contains this text.
    Text(String),
    /// A text message that matches this pattern.
    Match(Pattern),
    /// Any message, text or binary.
    Any,
    /// Any message that comes after the last message that the client sent.
    Answer,
    /// The end of the connection.
    Close,
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Awaited::Message(name) => write!(f, "a `{name}` message"),
            Awaited::Key(key) => write!(f, "a message with the key `{key}`"),
            Awaited::Text(text) => write!(f, "a message with the text `{text}`"),
            Awaited::Match(pattern) => write!(f, "a message that matches `{}`", pattern.source()),
            Awaited::Any => f.write_str("a message"),
            Awaited::Answer => f.write_str("an answer"),
            Awaited::Close => f.write_str("the close"),
        }
    }
}

/// The longest program of a pattern, in bytes: repetitions of repetitions are refused instead of compiled.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A regular expression, in the syntax of the `regex` crate: no look-around and no back-references, so that matching
/// takes linear time.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn new(source: &str) -> Result<Pattern, String> {
        let compiled = RegexBuilder::new(source).size_limit(PATTERN_BYTES_MAX).build();
        compiled.map(Pattern).map_err(|error| match error {
            // The parser's message shows the pattern with a caret; its last line says what is wrong.
            regex::Error::Syntax(text) => {
                let last = text.lines().last().unwrap_or_default();
                last.trim_start_matches("error: ").to_owned()
            }
            other => other.to_string(),
        })
    }

    /// The pattern as it was written.
    pub fn source(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it matches anywhere in a text.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.source() == other.source()
    }
}

impl Eq for Pattern {}
