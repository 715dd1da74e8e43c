//! How a named ASGI server turns an application's behavior into bytes. Profiles are data: `fixtures/profiles/servers/`.

mod rows;

use serde::{Deserialize, Serialize};

pub use rows::{ProfileRow, ProfileValue};

use relapse_core::{
    asgi::{event::MessageKeys, exception::Exception, scope::ScopeFacts},
    error::Error,
    wire::{
        assembly::TextCheck,
        close_code::CloseCode,
        deflate::{DeflateParameters, WindowBits},
        head::RequestHead,
        head_limit::{HeadExcess, HeadLimit, HeadPart, LimitedRequests},
    },
};

/// The name of a server's profile without its implementation of WebSocket: `uvicorn-0.54` of `uvicorn-0.54-wsproto`.
pub fn version_of(name: &str) -> &str {
    name.match_indices('-').nth(1).map_or(name, |(at, _)| &name[..at])
}

/// A named server's behavior, as measured.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The profile's name: the server and its version, as in `uvicorn-0.35`, and its implementation of WebSocket where that
    /// is not the one it has of itself, as in `uvicorn-0.35-wsproto`.
    pub name: String,
    /// The server as `--server` takes it, as in `uvicorn[sansio]==0.54.0`.
    pub choice: String,
    /// The server, with the versions of the libraries that decide its behavior.
    pub server: String,
    /// Where the figures come from.
    pub source: String,
    /// The `Server` header it adds to the application's answers; empty for none.
    pub server_header: String,
    /// Its place in a list of profiles, from 1; those without one follow, by name. A seed draws a server by its place, so
    /// that a new profile takes the end.
    #[serde(default)]
    pub order: Option<u16>,
    /// The profile whose symptoms hold here too, as in `uvicorn-0.54`: where a case has an entry `[symptom.on."…"]` for
    /// that one and none for this one, that entry counts.
    #[serde(default)]
    pub fails_like: Option<String>,
    /// The rows that a measurement of the server cannot see, as `section.key`. Their values are kept as they are known.
    #[serde(default)]
    pub unseen: Vec<String>,
    /// The facts in its scopes.
    pub scope: ScopeFacts,
    /// How it starts an application.
    pub lifespan: LifespanRules,
    /// The server's own answers to upgrade requests.
    pub handshake: Handshake,
    /// The client's answer while nothing is accepted.
    pub before_accept: BeforeAccept,
    /// The client's answer on an accepted WebSocket.
    pub after_accept: AfterAccept,
    /// The disconnect event that the application receives when the client ends.
    pub disconnect: Disconnect,
    /// Plain HTTP.
    pub http: HttpRules,
    /// The answers to a client that breaks RFC 6455.
    pub violation: ViolationAnswers,
    /// Compressed messages. A server of which nothing is said declines them.
    #[serde(default)]
    pub compression: CompressionRules,
    /// The limits on the head of a request.
    #[serde(default)]
    pub limits: HeadLimits,
    /// Pings of the server's own.
    pub keepalive: Keepalive,
    /// The server's acts while an app keeps the event loop to itself.
    pub blocked_loop: BlockedLoop,
    /// The fate of every client and call when it is told to stop.
    pub shutdown: Shutdown,
    /// The fate of events in an order that an application should not choose.
    pub sequence: Sequence,
    /// In which situations it is known to do something else than this profile has it do.
    #[serde(default, rename = "difference")]
    pub differences: Vec<KnownDifference>,
}

/// A situation in which a server does something else than its profile has it do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownDifference {
    /// The situation.
    pub situation: Situation,
    /// Why the profile does not do the same.
    pub reason: String,
    /// Whether programs in it are performed.
    #[serde(default)]
    pub programs: SequencePrograms,
}

/// Whether programs in a situation are performed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SequencePrograms {
    /// They are, and may differ.
    #[default]
    Performed,
    /// They are not: the server may serve others differently, or not at all, after one.
    LeftOut,
}

/// A situation that a program can bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Situation {
    /// An application uses the receive and send of another call.
    AnotherCall,
    /// An application sends a message with both text and bytes.
    TextAndBytes,
    /// An application raises after `http.response.start`.
    RaisesAfterStart,
    /// An application does something else with a WebSocket than accept it first.
    NotAccepted,
    /// An application uses its send or receive after a refusal, a denial response or a close of its own.
    AfterOwnEnd,
    /// An application cancels a receive that waits.
    CancelledReceive,
    /// An application uses its send or receive after its client has closed or is gone, or waits in a receive when that
    /// happens.
    AfterClientEnd,
    /// An application sends an event of HTTP on a WebSocket, or one of a WebSocket on a request.
    OtherProtocol,
    /// An application sends a denial response.
    DenialResponse,
    /// An application sends the body of a denial response that it has not started.
    DenialBodyFirst,
    /// A client sends messages that the application does not receive.
    UnreadMessages,
    /// The client of a request leaves before the answer is whole.
    RequestLeft,
    /// The application announces another length than its body has.
    WrongLength,
    /// The application accepts with a subprotocol that was not offered.
    UnofferedSubprotocol,
    /// An application closes with a code or a reason that may not stand in a frame.
    UnsendableClose,
}

/// The fate of events in any order. `relapse profile differential` proves these rows, in which servers differ.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequence {
    /// How it knows where a WebSocket stands.
    pub keeps: StateTracking,
    /// The keys of a `websocket.receive`.
    pub message_keys: MessageKeys,
    /// How far it reads ahead of an application that does not receive.
    pub reads: ReadAhead,
    /// When the head of a denial response goes out.
    pub denial_start: Start,
    /// The bytes behind the server's own answer to an application that returned before the accept.
    pub after_returns: AfterReturns,
    /// An event that is no `websocket.http.response.body` once a denial response has begun.
    pub denying: Effect,
    /// An event after a whole denial response, while the connection is still there.
    pub denied: Effect,
    /// An event after a refusal, while the connection is still there.
    pub refused: Effect,
    /// The code of the `websocket.disconnect` after a refusal or a denial response of the application; `None` for none.
    pub after_refusal: Option<u16>,
    /// The fate of the connection after an HTTP answer to an upgrade.
    pub refused_connection: Reuse,
    /// When a message with neither text nor bytes is looked at.
    pub empty_check: EmptyCheck,
    /// Whether the headers of an accept reach the client.
    pub accept_headers: CloseReason,
    /// A message with both text and bytes.
    pub both_send: Both,
    /// The further effect of a close that raises.
    pub failed_close: FailedClose,
    /// Which events meet what `disconnect.send` says once the client is gone.
    pub gone: Gone,
    /// The event that `receive` gives after a `websocket.disconnect`.
    pub after_disconnect: AfterDisconnect,
    /// The code that the end of a connection is told with before the accept; `None` where it is not told.
    pub lost_pending: Option<u16>,
    /// The same after a refusal.
    pub lost_refused: Option<u16>,
    /// The same after a denial response.
    pub lost_denied: Option<u16>,
    /// The reason that the end of an accepted connection is told with; `None` where the key is left out.
    pub lost_reason: Option<String>,
    /// Whether the reason of a close is told.
    pub close_reason: ToldReason,
    /// A message or a close after an accept that raised, where the server takes the WebSocket for accepted all the same.
    pub broken_send: Option<Effect>,
    /// The content type that it puts before that of a denial response.
    pub denial_type: Option<String>,
    /// A message once the client has closed, where that is another thing than when it is gone.
    pub closed_send: Option<Effect>,
    /// A close once the client has closed, where that is another thing than a message.
    pub closed_close: Option<Effect>,
    /// A close once the client is gone, where that is another thing than a message.
    pub gone_close: Option<Effect>,
    /// A message on a WebSocket that is accepted after its client went; `None` where it is as if the client went later.
    pub lost_send: Option<Effect>,
    /// The same of a close.
    pub lost_close: Option<Effect>,
    /// An event on a WebSocket whose call is over, and whose client is still there; `None` where it goes on.
    pub abandoned: Option<Effect>,
    /// How the body of a request reaches the application.
    pub http_body: HttpBody,
    /// An event that is no `http.response.start` before it.
    pub http_before_start: Effect,
    /// An event that is no `http.response.body` after `http.response.start`.
    pub http_after_start: Effect,
    /// An event of a type that HTTP has not; `None` where it is as another that comes at the wrong time.
    pub http_unknown: Option<Effect>,
    /// An event after a whole answer.
    pub http_after_end: Effect,
    /// The same where the answer came in more than one piece; `None` where that is the same.
    pub http_after_pieces: Option<Effect>,
    /// An event whose client is gone; `None` where it is as if the client were there.
    pub http_gone: Option<Effect>,
    /// A body after one that raised because of its length; `None` where it is as if nothing had happened.
    pub http_after_error: Option<Effect>,
    /// Whether an answer counts as whole whose end raises because of its length.
    pub http_short_end: ShortEnd,
    /// How often the application gets the end of a request.
    pub http_disconnect: HttpDisconnect,
    /// The fate of the connection when the application raises after a whole answer.
    pub http_raises_after_end: Reuse,
    /// The fate of the connection when the body of the request is not whole by the end of the answer.
    pub http_unread: Reuse,
    /// The fate of the connection after the server's own answer.
    pub http_own_answer: Reuse,
}

/// How a server knows where a WebSocket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateTracking {
    /// By one state.
    State,
    /// By one state, and the connection lasts as long as the call (hypercorn's `ws_stream.py`): a refusal or a close ends it
    /// only when the client or the application does, which gets the end then.
    Stream,
    /// By the events of its own that were set (uvicorn's `websockets_impl.py`): what the client did counts only once the
    /// application has received it, and a denial response goes out with what there is of it when the application waits.
    Events,
}

/// The bytes behind a server's own answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AfterReturns {
    /// The end of the stream.
    End,
    /// The answer to the handshake, in the same stream (uvicorn's `websockets_impl.py` from 0.36 on).
    Handshake,
}

/// How far a server reads ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadAhead {
    /// Nothing while a message waits for the application: neither a close nor the end of the stream is noticed.
    OneMessage,
    /// On.
    Ahead,
}

/// Which part of a message with both is sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawBoth")]
pub enum Both {
    /// The text.
    Text,
    /// The bytes.
    Bytes,
    /// Neither: this happens.
    Suffers(Effect),
}

/// When a message with neither text nor bytes is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EmptyCheck {
    /// Where the WebSocket stands comes first.
    InTurn,
    /// Before anything else.
    First,
}

/// The further effect of a close that raises because of its code or its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailedClose {
    /// Nothing.
    Nothing,
    /// The application gets its own close all the same.
    Told,
    /// The same, and for the server the application has closed.
    Closed,
}

/// Which events meet what `disconnect.send` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gone {
    /// Every event.
    Everything,
    /// Messages and closes; another event meets what it would have met.
    Messages,
}

/// The event that `receive` gives after a `websocket.disconnect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AfterDisconnect {
    /// Nothing: it waits.
    Nothing,
    /// One more when the connection is gone, with the code of a lost connection.
    OneMore,
    /// The same again, as often as it is asked.
    Always,
}

/// Whether the reason of a close is told in `websocket.disconnect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToldReason {
    /// It is.
    Told,
    /// The key is left out.
    LeftOut,
}

/// How the body of a request reaches the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HttpBody {
    /// In one event with all that has come since the last.
    Merged,
    /// In an event for each piece that comes, and an empty one at the end.
    Pieces,
    /// The application is not called before it is whole.
    Whole,
}

/// Whether an answer counts as whole whose end raises because of its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShortEnd {
    /// It does.
    Whole,
    /// More of it can come.
    Open,
}

/// How often the application gets the end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HttpDisconnect {
    /// Once, behind what has come.
    Once,
    /// As often as it asks, and before anything else.
    Always,
}

/// Whether a connection can carry another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reuse {
    /// It is closed.
    Closed,
    /// It can.
    Kept,
}

/// How the server starts an application (ASGI, Lifespan Protocol).
///
/// Rules that all servers share have no key: nothing listens before the application has started, an import that fails
/// and `lifespan.startup.failed` end the process, and an application that returns or raises without a message is
/// served.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifespanRules {
    /// Whether it calls the application for its lifespan at all.
    pub supported: bool,
    /// `scope["asgi"]["spec_version"]` of the lifespan.
    pub spec_version: String,
    /// How long the application may take to start, in seconds; 0 for ever.
    pub startup_timeout_s: u64,
}

/// The server's treatment of an upgrade request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handshake {
    /// An upgrade with nothing wrong: accepted, or a plain request for a server without a WebSocket library.
    pub upgrade: Reception,
    /// No `Sec-WebSocket-Key`.
    pub missing_key: Reception,
    /// A key that is not 16 bytes of base64.
    pub short_key: Reception,
    /// No `Sec-WebSocket-Version`.
    pub missing_version: Reception,
    /// Another version than 13.
    pub wrong_version: Reception,
    /// Another method than GET.
    pub post: Reception,
    /// HTTP/1.0.
    pub http_1_0: Reception,
    /// `Connection` without `upgrade`, as proxies rewrite it.
    pub connection_keep_alive: Reception,
    /// No `Host`.
    pub missing_host: Reception,
    /// Two `Host`s.
    pub two_hosts: Reception,
    /// Two `Sec-WebSocket-Key`s.
    pub two_keys: Reception,
    /// Two `Sec-WebSocket-Version`s.
    pub two_versions: Reception,
    /// A method that RFC 9110 does not know.
    pub unknown_method: Reception,
}

impl Handshake {
    /// Every answer it refuses a request with.
    pub fn refusals(&self) -> impl Iterator<Item = &RefusalAnswer> {
        let all = [
            &self.upgrade,
            &self.missing_key,
            &self.short_key,
            &self.missing_version,
            &self.wrong_version,
            &self.post,
            &self.http_1_0,
            &self.connection_keep_alive,
            &self.missing_host,
            &self.two_hosts,
            &self.two_keys,
            &self.two_versions,
            &self.unknown_method,
        ];
        all.into_iter().filter_map(|reception| match reception {
            Reception::Refused(answer) => Some(answer),
            Reception::Accepted | Reception::Http => None,
        })
    }
}

/// How a request is received.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawReception")]
pub enum Reception {
    /// As a WebSocket.
    Accepted,
    /// As a plain HTTP request.
    Http,
    /// Not at all: this answer, and the application is not called.
    Refused(RefusalAnswer),
}

/// The answer that the client gets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawEffect")]
pub enum RefusalAnswer {
    /// An HTTP answer, after which the connection closes.
    Http {
        /// The status code.
        status: u16,
        /// The content type; empty for none.
        content_type: String,
        /// The body.
        body: String,
    },
    /// A close frame.
    Close {
        /// Its code; `None` for an empty frame.
        code: Option<CloseCode>,
        /// Its reason.
        reason: String,
    },
    /// The end of the stream.
    Drop,
    /// Nothing.
    Hang,
}

/// The effect of an application's mistake.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawEffect")]
pub enum Effect {
    /// The application's own call raises.
    Raises {
        /// The exception. `{code}` and `{type}` in its text stand for the close code and the event's type.
        exception: Exception,
        /// The server's answer beside it; `None` where the client's view follows from the exception alone.
        then: Option<RefusalAnswer>,
    },
    /// The server acts by itself.
    Answers(RefusalAnswer),
    /// Nothing: the event is dropped, or passed on as it is.
    Ignored,
    /// The close reason is cut to what fits, and the close goes out.
    Truncated,
}

impl Effect {
    /// Returns the client's immediate answer, and whether the application's call raises as well; `None` if there is no
    /// immediate answer.
    pub fn answer(&self) -> Option<(&RefusalAnswer, bool)> {
        match self {
            Effect::Raises { then, .. } => then.as_ref().map(|answer| (answer, true)),
            Effect::Answers(answer) => Some((answer, false)),
            Effect::Ignored | Effect::Truncated => None,
        }
    }
}

/// Before the application accepted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeforeAccept {
    /// The application raises.
    pub raises: RefusalAnswer,
    /// The application returns.
    pub returns: RefusalAnswer,
    /// The application sends a close.
    pub close: RefusalAnswer,
    /// The application sends a denial response.
    pub denial: Denial,
    /// The application sends a message.
    pub send: Effect,
    /// The application sends an event of an unknown type.
    pub unknown_event: Effect,
    /// The application accepts with a subprotocol that the client did not offer.
    pub unoffered_subprotocol: Effect,
    /// How long the application may take to answer, in seconds; 0 for ever. Then the server drops the connection.
    pub time_limit_s: u64,
}

/// The fate of a denial response.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Denial {
    /// It reaches the client.
    Sent,
    /// It goes nowhere.
    Hang,
}

/// After the application accepted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AfterAccept {
    /// The application raises.
    pub raises: RefusalAnswer,
    /// The application returns without a close.
    pub returns: RefusalAnswer,
    /// The application accepts again.
    pub accept_again: Effect,
    /// The application sends after its own close.
    pub send_after_close: Effect,
    /// Which close codes of the application are written as they are.
    pub close_codes: CloseCodes,
    /// The application closes with another code.
    pub other_close_code: Effect,
    /// The application closes with a reason of more than 123 bytes.
    pub long_close_reason: Effect,
    /// The application sends a message with neither text nor bytes.
    pub empty_send: Effect,
    /// The application sends a text, or a close with a reason, that UTF-8 cannot encode.
    pub unencodable_text: UnencodableText,
    /// The application sends an event of an unknown type.
    pub unknown_event: Effect,
    /// Whether the reason of the application's close reaches the client.
    pub close_reason: CloseReason,
}

/// The fate of a text with halves of surrogate pairs, which UTF-8 cannot encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnencodableText {
    /// `send` raises `UnicodeEncodeError`, and the connection goes on.
    Raises,
    /// An empty text is written.
    Emptied,
}

/// Which close codes a server writes as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloseCodes {
    /// Those that may stand in a frame (RFC 6455 section 7.4).
    Sendable,
    /// 1000, and 3000 to 4999.
    NormalAndPrivate,
    /// All but 1005, 1006 and 1015.
    AllButReserved,
    /// All.
    All,
}

impl CloseCodes {
    /// Whether this code is written as it is.
    pub fn contain(self, code: CloseCode) -> bool {
        match self {
            CloseCodes::Sendable => code.is_sendable(),
            CloseCodes::NormalAndPrivate => matches!(code.0, 1000 | 3000..=4999),
            CloseCodes::AllButReserved => !matches!(code.0, 1005 | 1006 | 1015),
            CloseCodes::All => true,
        }
    }
}

/// The fate of the reason in the application's close.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloseReason {
    /// It reaches the client.
    Kept,
    /// It is left out.
    Lost,
}

/// The `websocket.disconnect` the application gets, and what the client gets for its close.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disconnect {
    /// The code after a close frame with one; `None` for the client's own.
    pub with_code: Option<u16>,
    /// The code after a close frame without one; `None` where the server gives `None`.
    pub without_code: Option<u16>,
    /// The code after an end of stream without a close frame.
    pub without_frame: u16,
    /// The code after the application's own close; `None` for its own.
    pub after_own_close: Option<u16>,
    /// How the client's close frame is answered.
    pub close_echo: CloseEcho,
    /// The application sends to a client that is gone.
    pub send: Effect,
}

/// How a server answers a close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloseEcho {
    /// With the same code and reason.
    Same,
    /// With 1000 and no reason.
    Normal,
}

/// Plain HTTP.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpRules {
    /// The application raises before it answered.
    pub raises: RefusalAnswer,
    /// The application returns before it answered.
    pub returns: RefusalAnswer,
    /// When the head of an answer goes out.
    pub start: Start,
    /// The application raises, or returns, in the middle of its answer.
    pub ends_after_start: RefusalAnswer,
    /// An answer whose whole body comes in one event and announces no length.
    pub without_length: WithoutLength,
    /// The body ends before its announced length: what `send` does.
    pub short_body: Effect,
    /// The body goes on past its announced length: what `send` does.
    pub long_body: Effect,
}

/// When the head of an answer goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// With `http.response.start`.
    AtOnce,
    /// With the first `http.response.body`.
    Held,
}

/// How a body is delimited whose length the application did not announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithoutLength {
    /// In chunks.
    Chunked,
    /// By a length the server adds.
    ContentLength,
}

/// The answers to a client that breaks RFC 6455. The stream ends right behind each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViolationAnswers {
    /// For a frame that breaks the framing rules.
    pub protocol: RefusalAnswer,
    /// For a close frame with a code that may not stand in one.
    pub close_code: RefusalAnswer,
    /// For text that is not UTF-8.
    pub payload: RefusalAnswer,
    /// When that is noticed in a message of many fragments.
    pub text: TextCheck,
    /// For a message over 16 MiB.
    pub too_big: RefusalAnswer,
    /// When that is noticed of a frame.
    pub length: LengthCheck,
    /// Violations of the framing rules that this server refuses and others do not.
    pub refuses: Vec<Strictness>,
    /// The code the application sees; `None` for the one that was sent.
    pub application_sees: Option<u16>,
}

/// How a server compresses messages (RFC 7692), and takes compressed ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompressionRules {
    /// Whether it accepts the offer of a client.
    pub accepts: bool,
    /// The largest window of its own, in bits; `None` for as many as the client allows.
    pub server_max_window_bits: Option<u8>,
    /// The largest window that it allows a client which leaves that to it, in bits; `None` where it says nothing.
    pub client_max_window_bits: Option<u8>,
    /// The fate of compressed messages behind one with a final block (section 7.2.3.4), where one may refer to others; `None`
    /// where they are read, as the RFC demands.
    pub after_final_block: Option<AfterFinalBlock>,
    /// Further deviations from the RFC.
    #[serde(default)]
    pub deviations: Vec<CompressionDeviation>,
}

/// The fate of compressed messages behind one with a final block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AfterFinalBlock {
    /// They are empty: their decompressor is at its end, and gives nothing more.
    Empty,
    /// They are taken for broken ones.
    Refused,
}

/// A deviation from RFC 7692.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CompressionDeviation {
    /// It takes RSV1 on a continuation of a compressed message (section 6.1).
    BitOnContinuation,
    /// A control frame between two fragments of a compressed message breaks the message (RFC 6455 section 5.4).
    ControlBetween,
}

impl CompressionRules {
    /// The answer to the offers of a client: to the first one that it can accept.
    pub fn answer(&self, offers: &[DeflateParameters]) -> Option<DeflateParameters> {
        // zlib cannot compress with the smallest window (`deflateInit2`).
        const TOO_SMALL: WindowBits = WindowBits::AtMost(8);
        let possible = |offer: &&DeflateParameters| self.accepts && offer.server_max_window_bits != TOO_SMALL;
        let offer = offers.iter().find(possible)?;
        let least = |own: Option<u8>, offered: WindowBits| match (own, offered) {
            (Some(own), WindowBits::AtMost(bits)) => WindowBits::AtMost(own.min(bits)),
            (Some(own), WindowBits::Open | WindowBits::Absent) => WindowBits::AtMost(own),
            (None, WindowBits::AtMost(bits)) => WindowBits::AtMost(bits),
            (None, WindowBits::Open | WindowBits::Absent) => WindowBits::Absent,
        };
        Some(DeflateParameters {
            server_max_window_bits: least(self.server_max_window_bits, offer.server_max_window_bits),
            client_max_window_bits: match offer.client_max_window_bits {
                WindowBits::Absent => WindowBits::Absent,
                offered => least(self.client_max_window_bits, offered),
            },
            ..*offer
        })
    }

    /// Whether it deviates so.
    pub fn deviates(&self, how: CompressionDeviation) -> bool {
        self.deviations.contains(&how)
    }
}

/// The limits on the head of a request. A request over one does not reach the application; of several, the first one here
/// counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadLimits {
    /// The bytes of the whole head. Servers look at them after each read of a head that is not whole yet, so that the most
    /// depends on how reads cut it: up to a read less, which is 64 KiB on loopback.
    #[serde(default)]
    pub head: Option<LimitRule>,
    /// The bytes of the request line, with its CRLF.
    #[serde(default)]
    pub line: Option<LimitRule>,
    /// The bytes of the request target.
    #[serde(default)]
    pub target: Option<LimitRule>,
    /// The bytes of each field line, with its CRLF.
    #[serde(default)]
    pub field: Option<LimitRule>,
    /// The number of fields.
    #[serde(default)]
    pub fields: Option<LimitRule>,
    /// The bytes of the request line and of all field lines, without their CRLFs.
    #[serde(default)]
    pub lines: Option<LimitRule>,
}

/// A limit on a part of the head of a request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitRule {
    /// The requests that it concerns.
    pub on: LimitedRequests,
    /// The largest count that passes, in bytes or fields.
    pub most: usize,
    /// The answer to a request that is over it.
    pub over: RefusalAnswer,
}

impl LimitRule {
    /// Reads a rule as a profile's file has it, as in `{ on = "any", most = 100, over = { answer = "drop" } }`.
    pub fn parse(value: &str) -> Option<LimitRule> {
        LimitRule::deserialize(toml::de::ValueDeserializer::parse(value).ok()?).ok()
    }
}

impl HeadLimits {
    /// Every limit with its answer, in the order in which they count.
    pub fn all(&self) -> impl Iterator<Item = (HeadLimit, &RefusalAnswer)> {
        let all = [
            (HeadPart::Head, &self.head),
            (HeadPart::Line, &self.line),
            (HeadPart::Target, &self.target),
            (HeadPart::Field, &self.field),
            (HeadPart::Fields, &self.fields),
            (HeadPart::Lines, &self.lines),
        ];
        all.into_iter().filter_map(|(of, rule)| {
            rule.as_ref().map(|LimitRule { on, most, over }| (HeadLimit { of, on: *on, most: *most }, over))
        })
    }

    /// The limit on whole heads that a head with so many bytes is over, which has not come whole.
    pub fn exceeded_by(&self, count: usize) -> Option<(HeadExcess, &RefusalAnswer)> {
        let of_head = self.all().filter(|(limit, _)| limit.of == HeadPart::Head && limit.on == LimitedRequests::Any);
        let mut exceeded = of_head.filter(|(limit, _)| count > limit.most);
        exceeded.next().map(|(limit, over)| (HeadExcess { limit, count }, over))
    }

    /// The first limit that a head is over, with its answer.
    pub fn exceeded(&self, head: &RequestHead, is_upgrade: bool) -> Option<(HeadExcess, &RefusalAnswer)> {
        self.all().find_map(|(limit, over)| limit.excess(head, is_upgrade).map(|excess| (excess, over)))
    }
}

/// When a frame that is too big is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LengthCheck {
    /// With its header, which announces its length.
    Announced,
    /// When so much of it has come. A control frame is measured by its header all the same.
    Received,
}

/// A violation that some servers refuse and others do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strictness {
    /// A length that is told in more bytes than it needs (RFC 6455 section 5.2).
    LongLength,
    /// A close frame between the fragments of a message, where RFC 6455 section 5.4 allows it.
    CloseInsideMessage,
    /// The close code 1014, which was registered after the RFC.
    BadGateway,
}

/// Pings of the server's own.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keepalive {
    /// Time between pings, in milliseconds; 0 for none.
    pub ping_interval_ms: u64,
    /// How long a pong may take, in milliseconds; 0 for no limit.
    pub pong_timeout_ms: u64,
    /// The client's answer after that.
    pub expired: RefusalAnswer,
    /// The code the application sees after that.
    pub application_sees: u16,
}

/// The server's acts while an app keeps the event loop to itself, as `time.sleep` in a coroutine does. Measured with
/// pings every second, and apps that block for longer than a pong may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockedLoop {
    /// With what it begins when the loop runs again. Meanwhile it reads nothing and keeps no time, also granian, which reads
    /// where an app receives.
    pub order: LoopOrder,
    /// When messages go out that the app sends before it blocks.
    pub writes: LoopWrites,
}

/// With what a server goes on when its event loop runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoopOrder {
    /// It reads what came first. A pong that came meanwhile is in time, however long that was: asyncio calls readers before
    /// timers (`BaseEventLoop._run_once`), and the protocol takes the pong where it reads.
    ReadsFirst,
    /// Its times come first. A pong that came meanwhile is late where its time was up: the library `websockets` reads in a
    /// task of its own, which runs after the timers (`legacy/protocol.py`, `keepalive_ping`).
    TimersFirst,
}

impl LoopOrder {
    /// How many turns later the server does what the loop finds, where an app blocks it again in each: a task that is woken
    /// runs one turn after whatever wakes it.
    pub fn turns(self) -> usize {
        match self {
            LoopOrder::ReadsFirst => 1,
            LoopOrder::TimersFirst => 2,
        }
    }
}

/// When messages go out that an app sends before it blocks its event loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoopWrites {
    /// At once: `send` writes.
    AtOnce,
    /// When the loop runs again.
    Later,
}

/// The fate of every client and call when the server is told to stop (SIGTERM).
///
/// Rules that all servers share have no key: a connection that carries no request is closed, and the application's
/// lifespan ends after its calls.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// The fate of a client that connects now.
    pub connects: Connects,
    /// An upgrade that the application has not decided.
    pub pending: StopFate,
    /// The code the application sees on such an upgrade; `None` when it is told nothing.
    pub pending_sees: Option<u16>,
    /// The effect of `send` on such an upgrade then.
    pub pending_send: Effect,
    /// An accepted WebSocket.
    pub open: StopFate,
    /// The code the application sees on it; `None` when it is told nothing.
    pub open_sees: Option<u16>,
    /// A plain request that is not answered yet.
    pub request: StopFate,
    /// Whether the application's call is cancelled, or ends with the process, when its client was answered; otherwise the
    /// server waits for it.
    pub cancels: bool,
    /// After how long calls that go on are cancelled, in seconds; 0 for never.
    pub grace_s: u64,
}

/// The fate of a client that connects to a server which was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connects {
    /// Nothing listens any more.
    Refused,
    /// The connection is made, but the server never serves it before its process ends.
    Queued,
}

/// The fate of a call when the server is told to stop.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawStop")]
pub enum StopFate {
    /// It goes on as if nothing had happened.
    GoesOn,
    /// The client gets this at once.
    Answers(RefusalAnswer),
}

impl StopFate {
    /// Returns the client's answer; `None` if the call goes on.
    pub fn answer(&self) -> Option<&RefusalAnswer> {
        match self {
            StopFate::Answers(answer) => Some(answer),
            StopFate::GoesOn => None,
        }
    }
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// Says where in the file and what is wrong.
    pub fn parse(path: &str, text: &str) -> Result<Profile, Error> {
        toml::from_str(text).map_err(|error| Error::toml(path, text, &error))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawReception {
    Name(String),
    Answer(RawEffect),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawStop {
    Name(String),
    Answer(RawEffect),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEffect {
    answer: Option<String>,
    raises: Option<String>,
    then: Option<String>,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    content_type: String,
    #[serde(default)]
    body: String,
    code: Option<u16>,
    #[serde(default)]
    reason: String,
}

impl TryFrom<RawReception> for Reception {
    type Error = String;

    fn try_from(raw: RawReception) -> Result<Self, String> {
        match raw {
            RawReception::Name(name) if name == "accepted" => Ok(Reception::Accepted),
            RawReception::Name(name) if name == "http" => Ok(Reception::Http),
            RawReception::Name(name) => {
                Err(format!("unknown reception `{name}`, expected `accepted`, `http` or an answer"))
            }
            RawReception::Answer(raw) => RefusalAnswer::try_from(raw).map(Reception::Refused),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawBoth {
    Name(String),
    Effect(RawEffect),
}

impl TryFrom<RawBoth> for Both {
    type Error = String;

    fn try_from(raw: RawBoth) -> Result<Self, String> {
        match raw {
            RawBoth::Name(name) if name == "text" => Ok(Both::Text),
            RawBoth::Name(name) if name == "bytes" => Ok(Both::Bytes),
            RawBoth::Name(name) => Err(format!("unknown part `{name}`, expected `text`, `bytes` or an effect")),
            RawBoth::Effect(raw) => Effect::try_from(raw).map(Both::Suffers),
        }
    }
}

impl TryFrom<RawStop> for StopFate {
    type Error = String;

    fn try_from(raw: RawStop) -> Result<Self, String> {
        match raw {
            RawStop::Name(name) if name == "goes-on" => Ok(StopFate::GoesOn),
            RawStop::Name(name) => Err(format!("unknown stop `{name}`, expected `goes-on` or an answer")),
            RawStop::Answer(raw) => RefusalAnswer::try_from(raw).map(StopFate::Answers),
        }
    }
}

impl TryFrom<RawEffect> for RefusalAnswer {
    type Error = String;

    fn try_from(raw: RawEffect) -> Result<Self, String> {
        match raw.answer.as_deref() {
            Some("http") if (100..=599).contains(&raw.status) => {
                Ok(RefusalAnswer::Http { status: raw.status, content_type: raw.content_type, body: raw.body })
            }
            Some("http") => Err("an `http` answer needs a `status` from 100 to 599".to_owned()),
            Some("close") => Ok(RefusalAnswer::Close { code: raw.code.map(CloseCode), reason: raw.reason }),
            Some("drop") => Ok(RefusalAnswer::Drop),
            Some("hang") => Ok(RefusalAnswer::Hang),
            other => Err(format!(
                "unknown answer `{}`, expected one of `http`, `close`, `drop`, `hang`",
                other.unwrap_or_default()
            )),
        }
    }
}

impl TryFrom<RawEffect> for Effect {
    type Error = String;

    fn try_from(raw: RawEffect) -> Result<Self, String> {
        match (&raw.raises, raw.answer.as_deref()) {
            (Some(text), None) => {
                let (type_name, message) = text.split_once(": ").unwrap_or((text, ""));
                let then = match raw.then.as_deref() {
                    None => None,
                    Some("drop") => Some(RefusalAnswer::Drop),
                    Some("hang") => Some(RefusalAnswer::Hang),
                    Some(other) => return Err(format!("unknown `then` `{other}`, expected one of `drop`, `hang`")),
                };
                Ok(Effect::Raises { exception: Exception::new(type_name, message), then })
            }
            (None, Some("ignored")) => Ok(Effect::Ignored),
            (None, Some("truncated")) => Ok(Effect::Truncated),
            (None, Some(_)) => RefusalAnswer::try_from(raw).map(Effect::Answers),
            _ => Err("an effect has either `raises` or `answer`".to_owned()),
        }
    }
}
