//! Everything that happened in one run, in one order.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    asgi::{
        event::{Inbound, Outbound},
        exception::{CodePlace, Exception},
        scope::ScopeType,
    },
    client::{
        credential::Presented,
        signal::{Exit, ExitExpectation, Signal},
        step::{Awaited, ClientName},
    },
    fault::Fault,
    record::{code::ReachedBlocks, service::Service},
    wire::{
        frame::{Frame, FrameError},
        head::{RequestHead, ResponseHead},
        head_limit::HeadExcess,
    },
};

/// The actor that caused an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// The client.
    #[serde(rename = "client")]
    Probe,
    /// The man in the middle.
    Edge,
    /// The ASGI server.
    #[serde(rename = "server")]
    Front,
    /// The application.
    #[serde(rename = "app")]
    Application,
    /// Something the application depends on.
    Dependency,
    /// The server's process: its start, its end, and what it is started with.
    Process,
    /// Neither side: the connection went, or time ran out.
    Neither,
}

impl Actor {
    /// The actor's name.
    pub fn name(self) -> &'static str {
        match self {
            Actor::Probe => "client",
            Actor::Edge => "edge",
            Actor::Front => "server",
            Actor::Application => "app",
            Actor::Dependency => "dependency",
            Actor::Process => "process",
            Actor::Neither => "neither side",
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How serious a log record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For information.
    Info,
    /// Worth a look.
    Warning,
    /// A fault of the service.
    Error,
}

/// How a server refuses a request on its own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerRefusal {
    /// It answers with this status.
    Status(u16),
    /// It closes the connection without an answer.
    Closed,
    /// It leaves the client waiting.
    Silence,
}

/// How a response body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyEnd {
    /// As announced: by its length, its last chunk, or the end of the stream where neither was announced.
    Complete,
    /// Before the length or the last chunk that was announced.
    Truncated,
    /// More bytes came than were announced.
    Surplus,
    /// The announcement cannot be read, or the chunks are none.
    Malformed,
    /// The head forbids a body (HEAD, 1xx, 204, 304).
    None,
}

impl BodyEnd {
    /// Whether the body came whole, or there can be none.
    pub fn is_whole(self) -> bool {
        match self {
            BodyEnd::Complete | BodyEnd::None => true,
            BodyEnd::Truncated | BodyEnd::Surplus | BodyEnd::Malformed => false,
        }
    }
}

/// When the parts of a response body came, counted from the moment at which the request was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyTiming {
    /// The end of the head.
    pub head: Duration,
    /// The first byte of the body; `None` where none came.
    pub first_byte: Option<Duration>,
    /// The longest time between two reads that brought bytes of the body, and from the last one to its end.
    pub longest_gap: Duration,
    /// The end of the body, or of the client's patience.
    pub end: Duration,
}

/// A part of a response body that can come late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyPart {
    /// Its first byte.
    FirstByte,
    /// The bytes, or the end, that follow other bytes.
    Next,
}

impl fmt::Display for BodyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyPart::FirstByte => "the first byte of the body",
            BodyPart::Next => "the next bytes of the body",
        })
    }
}

/// Why a client waits no longer for something that did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NeverCame {
    /// The step's limit passed; [`EventKind::DeadlinePassed`] stands before it.
    Deadline,
    /// The session ended first. Where it had ended before the client began to wait, the event's time is that of the end.
    SessionOver,
    /// There never was a session: the opening was refused, or got no answer.
    NotOpened,
}

/// One observed thing.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// Nothing listened where the client wanted to connect.
    ConnectionRefused,
    /// The client of this exchange has a name.
    OpenedBy {
        /// The name.
        client: ClientName,
    },
    /// The request goes on the connection that another exchange began.
    OnConnectionOf {
        /// The exchange that began it.
        exchange: usize,
    },
    /// The client wrote a request head.
    RequestSent {
        /// The head.
        head: RequestHead,
        /// The credential in it.
        credential: Presented,
    },
    /// The client read a response head.
    ResponseSeen(ResponseHead),
    /// The client read a response body.
    BodySeen {
        /// The bytes that came.
        body: Bytes,
        /// How it ended.
        end: BodyEnd,
    },
    /// When the parts of the body came that was seen last.
    BodyTimed(BodyTiming),
    /// A part of the answer's body came later than the step expects.
    BodyLate {
        /// The part.
        part: BodyPart,
        /// The longest time that the step allows.
        limit: Duration,
        /// The time that it took; `None` where it had not come when the client stopped reading.
        took: Option<Duration>,
    },
    /// The client wrote the body of its request.
    BodySent {
        /// Equal bodies have equal ones.
        digest: u64,
        /// Whether it came in pieces, with pauses between them.
        is_in_pieces: bool,
    },
    /// The client sent a part of the request's body only.
    BodyCutShort {
        /// The bytes that it sent.
        sent: usize,
        /// The bytes of the whole body.
        whole: usize,
    },
    /// The client refuses the handshake, as a client must (RFC 6455 section 4.1).
    HandshakeRefused {
        /// The rule that it breaks.
        why: String,
    },
    /// The client wrote a frame.
    FrameSent(Frame),
    /// The client read a frame.
    FrameSeen(Frame),
    /// The last frame of a fragmented message completed it.
    MessageSeen(Frame),
    /// The client read a frame, or bytes, that no client may take.
    BadFrameSeen(FrameError),
    /// The client read bytes that are no response head.
    BadHeadSeen {
        /// The rule that they break.
        why: String,
    },
    /// The client saw the end of the stream.
    EndSeen,
    /// The client's limit passed.
    DeadlinePassed {
        /// The event it was waiting for.
        waiting_for: String,
        /// The limit.
        limit: Duration,
    },
    /// A step waited for something, and it came.
    AwaitedCame {
        /// The thing that the step waited for.
        waiting_for: Awaited,
    },
    /// A step waited for something, and it did not come.
    AwaitedNeverCame {
        /// The thing that the step waited for.
        waiting_for: Awaited,
        /// The reason why the client waits no longer.
        why: NeverCame,
    },
    /// A step was not performed, because its connection was over by then. The event's time is that of the connection's end.
    NotPerformed {
        /// The step, counted from 1.
        step: usize,
    },
    /// The client breaks the connection (RST on a socket). [`EventKind::Left`] follows.
    LinkReset,
    /// The client ended the stream without a close frame.
    Left,
    /// The client reads no more for a while.
    StoppedReading,
    /// The server said as much as a client reads in one session. [`EventKind::Left`] follows.
    SeenEnough {
        /// The bytes of the payloads that came.
        bytes: u64,
        /// The frames that came.
        frames: u64,
        /// The event that the client was waiting for, if it was waiting for one. It did not come.
        waiting_for: Option<String>,
    },
    /// A fault acted. The actor says where.
    FaultFired {
        /// Its place in the plan.
        index: usize,
        /// The fault's effect.
        detail: String,
        /// The operation it acted on, where it acted on a call.
        operation: Option<&'static str>,
    },
    /// The front refused a request on its own account.
    RequestRefused {
        /// The answer that the client got.
        refusal: ServerRefusal,
        /// The limit that the request's head is over, where that is the reason.
        excess: Option<HeadExcess>,
    },
    /// The front called the application.
    Called {
        /// As what.
        kind: ScopeType,
        /// The request head as it reached the front.
        head: RequestHead,
    },
    /// The front closed because a ping went unanswered.
    KeepaliveExpired,
    /// The front dropped the connection because the application took too long to answer the handshake.
    HandshakeExpired,
    /// The front ended the exchange because it was told to stop.
    CutShort,
    /// The application received an event.
    Received(Inbound),
    /// The application sent an event.
    Sent(Outbound),
    /// The application's `send` or `receive` raised.
    CallRaised(Exception),
    /// The application's call returned.
    Returned,
    /// The application's call raised.
    Raised(Exception),
    /// An exception was raised in the application's own code and did not leave the call: the application or a framework
    /// handled it, whatever the client saw. It is evidence and no finding by itself: exceptions are a normal way to
    /// branch. Recorded when the call sends, receives or ends next; each type once for each place.
    Handled(Exception),
    /// The application logged.
    Logged {
        /// How serious.
        level: Level,
        /// The text.
        message: String,
        /// The exception that the record tells of, where nothing in the application handled it: it ended a task or a
        /// thread, or a library caught it, which was raised in the application's own code.
        unhandled: Option<Box<Exception>>,
    },
    /// The application holds something of clients that are gone, of the last of which this exchange is.
    LeftBehind(Leftover),
    /// The server's process starts, and calls the application for its lifespan.
    Starting,
    /// The server's process was told to stop (SIGTERM).
    Stopping,
    /// The server's process ended.
    Exited {
        /// Why.
        why: String,
    },
    /// The harness sends the server's process a signal, because a step says so.
    Signaled {
        /// The signal.
        signal: Signal,
    },
    /// A step waited for the end of the server's process. [`EventKind::Exited`] stands before it where it ended.
    ExitAwaited {
        /// The end that the step waited for.
        expected: ExitExpectation,
        /// How long it waited at most.
        limit: Duration,
        /// How the process ended; `None` where it runs on.
        exit: Option<Exit>,
    },
    /// The server's process listens.
    Listening,
    /// There is no process: the app did not load or did not start.
    NotStarted {
        /// Why.
        why: String,
        /// The exception that the app raised, where there is one.
        exception: Option<Exception>,
    },
    /// The application called a dependency.
    DependencyCalled {
        /// Which.
        dependency: &'static str,
        /// For what.
        operation: &'static str,
        /// The error it got, if any.
        error: Option<String>,
    },
    /// The actor has seen or done more in this exchange from here on than is kept.
    Omitted {
        /// The bytes of what is left out.
        bytes: u64,
        /// The number of events.
        events: u64,
    },
}

/// Events that say how a step fared, or what is left out, and nothing about the exchange itself.
#[macro_export]
macro_rules! step_event {
    () => {
        $crate::record::transcript::EventKind::OpenedBy { .. }
            | $crate::record::transcript::EventKind::OnConnectionOf { .. }
            | $crate::record::transcript::EventKind::BodyTimed(_)
            | $crate::record::transcript::EventKind::BodyLate { .. }
            | $crate::record::transcript::EventKind::BodySent { .. }
            | $crate::record::transcript::EventKind::BodyCutShort { .. }
            | $crate::record::transcript::EventKind::AwaitedCame { .. }
            | $crate::record::transcript::EventKind::AwaitedNeverCame { .. }
            | $crate::record::transcript::EventKind::NotPerformed { .. }
            | $crate::record::transcript::EventKind::LinkReset
            | $crate::record::transcript::EventKind::StoppedReading
            | $crate::record::transcript::EventKind::SeenEnough { .. }
            | $crate::record::transcript::EventKind::Omitted { .. }
    };
}

/// Everything else that a client does or sees on the wire while the exchange lasts.
#[macro_export]
macro_rules! wire_event {
    () => {
        $crate::record::transcript::EventKind::ConnectionRefused
            | $crate::record::transcript::EventKind::RequestSent { .. }
            | $crate::record::transcript::EventKind::ResponseSeen(_)
            | $crate::record::transcript::EventKind::BodySeen { .. }
            | $crate::record::transcript::EventKind::FrameSent(_)
            | $crate::record::transcript::EventKind::FrameSeen(_)
            | $crate::record::transcript::EventKind::MessageSeen(_)
    };
}

/// Events with which a client gives an exchange up, or finds that it is over.
#[macro_export]
macro_rules! end_event {
    () => {
        $crate::record::transcript::EventKind::HandshakeRefused { .. }
            | $crate::record::transcript::EventKind::BadFrameSeen(_)
            | $crate::record::transcript::EventKind::BadHeadSeen { .. }
            | $crate::record::transcript::EventKind::EndSeen
            | $crate::record::transcript::EventKind::DeadlinePassed { .. }
            | $crate::record::transcript::EventKind::Left
    };
}

/// Events of the app's call.
#[macro_export]
macro_rules! app_event {
    () => {
        $crate::record::transcript::EventKind::Called { .. }
            | $crate::record::transcript::EventKind::Received(_)
            | $crate::record::transcript::EventKind::Sent(_)
            | $crate::record::transcript::EventKind::CallRaised(_)
            | $crate::record::transcript::EventKind::Returned
            | $crate::record::transcript::EventKind::Raised(_)
            | $crate::record::transcript::EventKind::Handled(_)
            | $crate::record::transcript::EventKind::Logged { .. }
            | $crate::record::transcript::EventKind::LeftBehind(_)
    };
}

/// Decisions of the server about an exchange.
#[macro_export]
macro_rules! server_event {
    () => {
        $crate::record::transcript::EventKind::RequestRefused { .. }
            | $crate::record::transcript::EventKind::KeepaliveExpired
            | $crate::record::transcript::EventKind::HandshakeExpired
            | $crate::record::transcript::EventKind::CutShort
    };
}

/// Events of the server's process, of a dependency, or of a fault.
#[macro_export]
macro_rules! outer_event {
    () => {
        $crate::record::transcript::EventKind::Starting
            | $crate::record::transcript::EventKind::Stopping
            | $crate::record::transcript::EventKind::Exited { .. }
            | $crate::record::transcript::EventKind::Listening
            | $crate::record::transcript::EventKind::NotStarted { .. }
            | $crate::record::transcript::EventKind::Signaled { .. }
            | $crate::record::transcript::EventKind::ExitAwaited { .. }
            | $crate::record::transcript::EventKind::FaultFired { .. }
            | $crate::record::transcript::EventKind::DependencyCalled { .. }
    };
}

// With these patterns a match names every kind of event and stays short. A new kind belongs to one of them, and the compiler
// then asks every match that decides something whether the kind matters there.
pub use crate::{app_event, end_event, outer_event, server_event, step_event, wire_event};

impl EventKind {
    /// The exception of the app that it carries: one that leaves the app, one that the app handles, or one that stops its
    /// start.
    pub fn raised(&self) -> Option<&Exception> {
        match self {
            EventKind::Raised(exception)
            | EventKind::Handled(exception)
            | EventKind::NotStarted { exception: Some(exception), .. } => Some(exception),
            // An exception of `send` or `receive` is the server's; the app may not even notice it.
            EventKind::CallRaised(_)
            | EventKind::Called { .. }
            | EventKind::Received(_)
            | EventKind::Sent(_)
            | EventKind::Returned
            | EventKind::Logged { .. }
            | EventKind::LeftBehind(_)
            | step_event!()
            | wire_event!()
            | end_event!()
            | server_event!()
            | outer_event!() => None,
        }
    }
}

/// One observed thing, by whom, when, and in which exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Time since the run began: virtual in memory, real on sockets.
    pub at: Duration,
    /// The exchange it belongs to, counted from 0: client by client, and of each in the order of its steps. [`PROCESS`]
    /// for what belongs to none.
    pub exchange: usize,
    /// The actor that caused it.
    pub party: Actor,
    /// The event itself.
    pub what: EventKind,
    /// How many bytes are left out in the middle of its payload: a run keeps a bounded number of bytes.
    pub omitted_bytes: u64,
}

/// Stands for an exchange where the life of the server's process is meant.
pub const PROCESS: usize = usize::MAX;

/// How a log record begins that says how long an app did not let its event loop run.
pub const KEPT_LOOP: &str = "the application kept its event loop to itself";

/// How an application holds something of clients that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Held {
    /// A task for each of them runs on.
    Task,
    /// A variable refers to an object of each of them.
    Objects,
    /// A variable has an entry without content for each of them.
    EmptyEntries,
}

/// Something that an application holds of clients that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// How it is held.
    pub held: Held,
    /// The coroutine, or the variable with the attributes on the way.
    pub name: String,
    /// Where the coroutine or the variable is defined, where that is known.
    pub place: Option<CodePlace>,
    /// The number of clients.
    pub clients: usize,
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Leftover { held, name, place, clients } = self;
        let place = place.iter().map(|place| format!(" ({}:{})", place.file, place.line)).collect::<String>();
        match held {
            Held::Task => write!(f, "`{name}`{place} runs on for {clients} clients that are gone"),
            Held::Objects => write!(f, "`{name}`{place} keeps something of {clients} clients that are gone"),
            Held::EmptyEntries => {
                write!(f, "`{name}`{place} keeps an entry without content for each of {clients} clients that are gone")
            }
        }
    }
}

/// How a log record begins that says that instances of a class share what one of them has changed. Then come the attribute,
/// a colon, and the texts in it as a list in JSON.
pub const SHARED_STATE: &str = "all instances share ";

/// The connections and sessions that a target still holds once every client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// Connections that are served.
    pub connections: usize,
    /// Sessions in the registry.
    pub sessions: usize,
}

/// All events of one run, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transcript {
    /// The events.
    pub events: Vec<Event>,
    /// The faults of the plan.
    pub faults: Vec<Fault>,
    /// How often each of them acted.
    pub fired: Vec<u32>,
    /// The target's remaining connections and sessions, if it reports them.
    pub residue: Option<Leftovers>,
    /// The known facts about the target.
    pub service: Service,
    /// The app's own code that the calls of exchanges reached, where that is counted.
    pub reached: Vec<(usize, ReachedBlocks)>,
}

impl Transcript {
    /// How many exchanges there were.
    pub fn exchanges(&self) -> usize {
        self.events.iter().filter(|event| event.exchange != PROCESS).map(|event| event.exchange + 1).max().unwrap_or(0)
    }

    /// The events of one exchange.
    pub fn of(&self, exchange: usize) -> impl DoubleEndedIterator<Item = &Event> {
        self.events.iter().filter(move |event| event.exchange == exchange)
    }

    /// How many upgrades were accepted.
    pub fn sessions(&self) -> usize {
        self.events
            .iter()
            .filter(|event| matches!(&event.what, EventKind::ResponseSeen(head) if head.status == 101))
            .count()
    }

    /// Whether a client can read a text in an exchange: in a body, a message or a close reason.
    pub fn reads(&self, exchange: usize, text: &str) -> bool {
        self.of(exchange).any(|event| {
            let bytes = match &event.what {
                EventKind::BodySeen { body, .. } => body,
                EventKind::FrameSeen(frame) => &frame.payload,
                _ => return false,
            };
            String::from_utf8_lossy(bytes).contains(text)
        })
    }

    /// Whether a text stands in the log, or in the last words of the process.
    pub fn says(&self, text: &str) -> bool {
        let last_words =
            self.events.iter().any(|event| matches!(&event.what, EventKind::Exited { why } if why.contains(text)));
        last_words || self.logs().any(|(_, message)| message.contains(text))
    }

    /// The log records, in order.
    pub fn logs(&self) -> impl Iterator<Item = (Level, &str)> {
        self.events.iter().filter_map(|event| match &event.what {
            EventKind::Logged { level, message, .. } => Some((*level, message.as_str())),
            _ => None,
        })
    }
}
