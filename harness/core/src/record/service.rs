//! The known facts about a service: those of the built-in one, those that a service file states, or none.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use serde::{Serialize, Serializer};

use crate::{judge::check::Checks, record::redact::Redactor, wire::head_limit::HeadLimit};

/// A list of names: compiled in, or read from a file. A copy shares the list.
#[derive(Debug, Clone)]
pub enum Names {
    /// Names that are compiled in.
    Compiled(&'static [&'static str]),
    /// Names that were read.
    Read(Arc<[Box<str>]>),
}

impl Names {
    /// The empty list.
    pub const NONE: Names = Names::Compiled(&[]);

    /// The names, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> {
        let (compiled, read): (&[&str], &[Box<str>]) = match self {
            Names::Compiled(names) => (names, &[]),
            Names::Read(names) => (&[], names),
        };
        compiled.iter().copied().chain(read.iter().map(|name| &**name))
    }

    /// The number of names.
    pub fn len(&self) -> usize {
        match self {
            Names::Compiled(names) => names.len(),
            Names::Read(names) => names.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first name.
    pub fn first(&self) -> Option<&str> {
        self.iter().next()
    }

    /// The last name.
    pub fn last(&self) -> Option<&str> {
        self.iter().next_back()
    }

    /// Whether a name is in the list; names are compared byte by byte.
    pub fn has(&self, name: impl AsRef<[u8]>) -> bool {
        self.iter().any(|known| known.as_bytes() == name.as_ref())
    }
}

impl Default for Names {
    fn default() -> Names {
        Names::NONE
    }
}

impl PartialEq for Names {
    fn eq(&self, other: &Names) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Names {}

impl<T: Into<Box<str>>> FromIterator<T> for Names {
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Names {
        Names::Read(names.into_iter().map(Into::into).collect())
    }
}

/// A request that only a user may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectedRequest {
    /// Its method.
    pub method: Cow<'static, str>,
    /// Its path, without a query.
    pub path: Cow<'static, str>,
}

impl ProtectedRequest {
    /// A request that is compiled in.
    pub const fn compiled(method: &'static str, path: &'static str) -> ProtectedRequest {
        ProtectedRequest { method: Cow::Borrowed(method), path: Cow::Borrowed(path) }
    }
}

/// The known facts about a target, by which its answers are judged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// Paths that speak WebSocket.
    pub websocket_paths: Names,
    /// Paths that answer a plain GET with 2xx.
    pub http_paths: Names,
    /// Requests that only a user may make.
    pub protected: Cow<'static, [ProtectedRequest]>,
    /// Subprotocols it knows; one that ends in a dot stands for all that begin with it.
    pub subprotocols: Names,
    /// The largest message it takes, in bytes.
    pub message_bytes_max: usize,
    /// Texts that only the target may read: its signing secret.
    pub secrets: Vec<String>,
    /// Replaces the secrets of its user in every text that is shown.
    pub redactor: Redactor,
    /// Paths whose answer says whether the service can do its work.
    pub health_paths: Names,
    /// Dependencies without which it cannot.
    pub critical: Vec<&'static str>,
    /// From which delay on it may give a dependency up.
    pub slow: Duration,
    /// The beginning of the log record that is written once for every connection; empty for none.
    pub connection_record: &'static str,
    /// How many connections a user may have at a time; 0 where that is not known.
    pub connections_max: usize,
    /// The names of its messages.
    pub words: MessageNames,
    /// The kind of target it stands behind, which decides how much of it is seen.
    pub kind: TargetKind,
    /// How much is known of its rules.
    pub knowledge: Knowledge,
    /// Whether every client may have a session without a credential.
    pub is_public: bool,
    /// Dependencies that it needs to start.
    pub needed_to_start: Names,
    /// Its own checks.
    pub checks: Checks,
    /// The limits of a real server in front of it on the heads of requests.
    pub head_limits: Vec<HeadLimit>,
}

impl Service {
    /// A service of which nothing is known but what happens: how it answers a request is its own rule.
    pub const fn unknown(kind: TargetKind) -> Service {
        Service {
            websocket_paths: Names::NONE,
            http_paths: Names::NONE,
            protected: Cow::Borrowed(&[]),
            subprotocols: Names::NONE,
            message_bytes_max: 0,
            secrets: Vec::new(),
            redactor: Redactor::NONE,
            health_paths: Names::NONE,
            critical: Vec::new(),
            slow: Duration::ZERO,
            connection_record: "",
            connections_max: 0,
            words: MessageNames { welcomes: Names::NONE, requests: Names::NONE, events: Names::NONE, name_user: false },
            kind,
            knowledge: Knowledge::None,
            is_public: true,
            needed_to_start: Names::NONE,
            checks: Checks::NONE,
            head_limits: Vec::new(),
        }
    }

    /// Whether only the wire is seen of it.
    pub fn is_opaque(&self) -> bool {
        self.kind.is_opaque()
    }

    /// Whether a real server stands in front of it, of whose own decisions only the wire tells.
    pub fn is_served(&self) -> bool {
        self.kind.is_served()
    }

    /// Whether it has rules that the harness does not know.
    pub fn is_foreign(&self) -> bool {
        self.knowledge != Knowledge::Whole
    }

    /// Whether nothing is known of it.
    pub fn is_unknown(&self) -> bool {
        self.knowledge == Knowledge::None
    }

    /// Whether it knows a subprotocol.
    pub fn knows_subprotocol(&self, offer: &str) -> bool {
        self.subprotocols.iter().any(|known| {
            offer == known || (known.ends_with('.') && offer.len() > known.len() && offer.starts_with(known))
        })
    }

    /// Whether it knows one of these subprotocols.
    pub fn knows_any(&self, offers: &[String]) -> bool {
        offers.iter().any(|offer| self.knows_subprotocol(offer))
    }

    /// The known part of it at a path: a service file describes its own paths only.
    pub fn at(&self, path: &[u8]) -> &Service {
        let is_protected = self.protected.iter().any(|known| path == known.path.as_bytes());
        let is_known = self.websocket_paths.has(path) || self.http_paths.has(path) || is_protected;
        if is_known || !self.is_foreign() {
            return self;
        }
        &self.kind.facts().unknown
    }
}

/// The kinds of targets. A kind is a variant and its `KindFacts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum TargetKind {
    /// The built-in backend.
    #[default]
    Backend,
    /// A Python app in an interpreter, behind a server that a profile plays.
    Python,
    /// A Python app behind a real server that the harness starts.
    Served,
    /// A server behind a URL, which someone else runs.
    Url,
}

/// Everything that tells the targets of one kind from those of another.
#[derive(Debug)]
struct KindFacts {
    /// Its name, as the JSON document writes it.
    name: &'static str,
    /// The part of such a target that faults reach, as a clause.
    reach: &'static str,
    /// Whether the harness loads it: an app of the user's, which ends with the harness and tells its own routes.
    is_loaded: bool,
    /// The server in front of it, or the server that it is.
    server: KindServer,
    /// A service of this kind of which nothing is known.
    unknown: Service,
}

/// The server of the targets of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KindServer {
    /// A profile plays it.
    Played,
    /// The harness starts a real one.
    Started,
    /// The target is a real one, of which only the wire is seen.
    Itself,
}

impl TargetKind {
    fn facts(self) -> &'static KindFacts {
        static BACKEND: KindFacts = KindFacts {
            name: "backend",
            reach: "the target has no such injection point",
            is_loaded: false,
            server: KindServer::Played,
            unknown: Service::unknown(TargetKind::Backend),
        };
        static PYTHON: KindFacts = KindFacts {
            name: "python",
            reach: "of a Python application only what is in front of it is reached",
            is_loaded: true,
            server: KindServer::Played,
            unknown: Service::unknown(TargetKind::Python),
        };
        static SERVED: KindFacts = KindFacts {
            name: "served",
            reach: "of an application behind a real server only the edge is reached",
            is_loaded: true,
            server: KindServer::Started,
            unknown: Service::unknown(TargetKind::Served),
        };
        static URL: KindFacts = KindFacts {
            name: "url",
            reach: "of a server behind a URL only the edge is reached",
            is_loaded: false,
            server: KindServer::Itself,
            unknown: Service::unknown(TargetKind::Url),
        };
        match self {
            TargetKind::Backend => &BACKEND,
            TargetKind::Python => &PYTHON,
            TargetKind::Served => &SERVED,
            TargetKind::Url => &URL,
        }
    }

    /// Its name, as the JSON document writes it.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// Whether only the wire is seen of such a target.
    pub fn is_opaque(self) -> bool {
        self.facts().server == KindServer::Itself
    }

    /// Whether the harness starts a real server in front of it.
    pub fn is_served(self) -> bool {
        self.facts().server == KindServer::Started
    }

    /// Whether a profile plays the server in front of it.
    pub fn is_played(self) -> bool {
        self.facts().server == KindServer::Played
    }

    /// Whether the harness loads it: an app of the user's, which ends with the harness and tells its own routes.
    pub fn is_loaded(self) -> bool {
        self.facts().is_loaded
    }

    /// The part of such a target that faults reach, as a clause.
    pub fn reach(self) -> &'static str {
        self.facts().reach
    }
}

impl Serialize for TargetKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How much is known of a service's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Knowledge {
    /// Everything: it is the built-in backend's service.
    #[default]
    Whole,
    /// As much as its service file says.
    File,
    /// Nothing.
    None,
}

/// The names of the messages of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageNames {
    /// The names a welcome goes by.
    pub welcomes: Names,
    /// The message types that ask for an agent run, aliases included.
    pub requests: Names,
    /// The events of one agent run, in order.
    pub events: Names,
    /// Whether welcome and events say for which user they are.
    pub name_user: bool,
}
