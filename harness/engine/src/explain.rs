//! Derives the cause of an exchange's end: from the events of a server that the harness started, or, where only the wire is
//! seen, from the known server that answers and the situations in which it ends an exchange so.
//!
//! Only what was seen is certain. A profile names candidates, and one candidate alone is still a guess.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use relapse_core::{
    asgi::{event::Outbound, exception::Exception},
    judge::{cause::Cause, classify::Exchange, outcome::Ending},
    record::transcript::{EventKind, end_event, outer_event, step_event, wire_event},
    wire::{close_code::CloseCode, head::header},
};
use relapse_simulate::profile::{Denial, Effect, Keepalive, Profile, Reception, RefusalAnswer};

/// The known servers that a server may be, by its answers.
#[derive(Debug, Clone, Default)]
pub struct PossibleServers {
    /// Their profiles; none where nothing is recognized.
    pub profiles: Vec<Arc<Profile>>,
    /// The feature that they were recognized by.
    pub by: &'static str,
}

impl PossibleServers {
    /// Recognizes a server by the `Server` header of its answers, and by that to an upgrade without a
    /// `Sec-WebSocket-Key`. A proxy may put its own name into the header, and a proxy may answer in its place: then
    /// nothing is recognized.
    pub fn of(
        servers: &[Arc<Profile>],
        answers: &[Exchange<'_>],
        without_key: Option<&Exchange<'_>>,
    ) -> PossibleServers {
        let names: Vec<&[u8]> =
            answers.iter().filter_map(|reading| header(&reading.response?.headers, "server")).collect();
        let mut named = Vec::new();
        let mut alike = Vec::new();
        let mut both = Vec::new();
        for profile in servers {
            let is_named = !profile.server_header.is_empty() && names.contains(&profile.server_header.as_bytes());
            let refusal = refusal(&profile.handshake.missing_key);
            let seen = refusal.filter(|answer| without_key.is_some_and(|reading| is_answer(answer, reading)));
            if is_named {
                named.push(Arc::clone(profile));
            }
            if is_named && seen.is_some() {
                both.push(Arc::clone(profile));
            }
            if seen.is_some_and(tells_something) {
                alike.push(Arc::clone(profile));
            }
        }
        match (named.is_empty(), alike.is_empty(), both.is_empty()) {
            (false, _, false) => {
                PossibleServers { profiles: both, by: "its Server header, and how it refuses a bad handshake" }
            }
            (false, ..) => PossibleServers { profiles: named, by: "its Server header" },
            // An unknown name is that of a proxy, or of a server that is not in the profiles.
            (true, false, _) => PossibleServers { profiles: alike, by: "how it refuses a bad handshake" },
            (true, true, _) => PossibleServers::default(),
        }
    }

    /// The cause of an end as it was seen, or else what it may have been, the likeliest first; `None` where nothing was
    /// seen and no server is recognized, or none of them ends an exchange so.
    pub fn explain(&self, reading: &Exchange<'_>, ending: &Ending) -> Option<Explanation> {
        let passage = UpgradePassage::of(reading, &self.profiles);
        // An exception that leaves the app passes handlers that raise it again.
        let escaped = reading.escaped().map(|(exception, _)| exception);
        let handled = reading.events.iter().rev().find_map(|event| match &event.what {
            EventKind::Handled(exception) if Some(exception) != escaped => Some(exception.clone()),
            _ => None,
        });
        let seen = match passage {
            UpgradePassage::Lost => Some(Vec::new()),
            UpgradePassage::Arrived | UpgradePassage::Doubtful => observed(reading, ending).map(|cause| vec![cause]),
        };
        if let Some(causes) = seen {
            return Some(Explanation { servers: Vec::new(), causes, basis: Basis::Observed, passage, handled });
        }
        let mut causes = Vec::new();
        for profile in &self.profiles {
            for cause in situations(profile, reading, ending) {
                if !causes.contains(&cause) {
                    causes.push(cause);
                }
            }
        }
        let servers = self.profiles.iter().map(|profile| profile.name.clone()).collect();
        match (causes.is_empty(), passage) {
            (true, UpgradePassage::Arrived) => None,
            (true, UpgradePassage::Doubtful | UpgradePassage::Lost) | (false, _) => {
                Some(Explanation { servers, causes, basis: Basis::Derived, passage, handled })
            }
        }
    }
}

impl fmt::Display for PossibleServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.profiles.is_empty() {
            return f.write_str("none that is known");
        }
        let names: Vec<&str> = self.profiles.iter().map(|profile| profile.name.as_str()).collect();
        write!(f, "like {}, by {}", names.join(" or "), self.by)
    }
}

/// The possible causes of the end of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The names of the profiles it rests on.
    pub servers: Vec<String>,
    /// The possible causes, the likeliest first.
    pub causes: Vec<Cause>,
    /// The basis of the causes.
    pub basis: Basis,
    /// Whether the request arrived as the upgrade that it was.
    pub passage: UpgradePassage,
    /// The last exception that the application handled in the exchange.
    pub handled: Option<Exception>,
}

/// The basis of an explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The application, its server or our own edge was seen to do it.
    Observed,
    /// The wire shows what servers like this one show in such a situation.
    Derived,
}

/// Whether the headers that make a request an upgrade (RFC 6455 section 4.1) came to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradePassage {
    /// Nothing speaks against it, or the request is no upgrade.
    Arrived,
    /// The answer is one to a plain request.
    Doubtful,
    /// They were seen to be gone when the request came to the server, or left our edge.
    Lost,
}

impl UpgradePassage {
    fn of(reading: &Exchange<'_>, profiles: &[Arc<Profile>]) -> UpgradePassage {
        if reading.has_lost_upgrade() {
            return UpgradePassage::Lost;
        }
        if !reading.is_answered_as_plain() {
            return UpgradePassage::Arrived;
        }
        // A server that names another fault of the handshake took it for one.
        let is_handshake = profiles.iter().any(|profile| {
            let handshake = &profile.handshake;
            let mut of_plain = [&handshake.upgrade, &handshake.connection_keep_alive].into_iter().filter_map(refusal);
            let refuses = handshake.refusals().any(|answer| tells_something(answer) && is_answer(answer, reading));
            refuses && !of_plain.any(|answer| is_answer(answer, reading))
        });
        if is_handshake { UpgradePassage::Arrived } else { UpgradePassage::Doubtful }
    }
}

impl Explanation {
    /// Whether the cause was seen.
    pub fn is_certain(&self) -> bool {
        self.basis == Basis::Observed
    }

    /// The same where upgrades are known to arrive on this way; `None` if nothing else explains the end.
    pub fn of_arrived(self) -> Option<Explanation> {
        match self.passage {
            UpgradePassage::Doubtful if self.causes.is_empty() => None,
            UpgradePassage::Doubtful => Some(Explanation { passage: UpgradePassage::Arrived, ..self }),
            UpgradePassage::Arrived | UpgradePassage::Lost => Some(self),
        }
    }

    /// The only cause that comes into question.
    pub fn sole_cause(&self) -> Option<Cause> {
        match (self.causes.as_slice(), self.passage) {
            ([cause], UpgradePassage::Arrived) => Some(*cause),
            ([] | [_, _, ..], UpgradePassage::Arrived) | (_, UpgradePassage::Doubtful | UpgradePassage::Lost) => None,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.passage {
            UpgradePassage::Arrived => {}
            UpgradePassage::Doubtful => {
                f.write_str(
                    "the headers Upgrade and Connection may not have reached the server, which a proxy has to pass on",
                )?;
            }
            UpgradePassage::Lost => {
                return f.write_str("the headers Upgrade and Connection did not reach the server (certain)");
            }
        }
        if !self.causes.is_empty() {
            let causes: Vec<&str> = self.causes.iter().map(|cause| said(*cause)).collect();
            if self.passage == UpgradePassage::Doubtful {
                f.write_str("; or ")?;
            }
            if !self.servers.is_empty() {
                write!(f, "behind {} ", self.servers.join(" or "))?;
            }
            write!(f, "that is: {}", causes.join("; or "))?;
        }
        if let Some(exception) = &self.handled {
            write!(f, ", and it handled {}", exception.located())?;
        }
        match (self.basis, self.causes.len()) {
            (Basis::Observed, _) => f.write_str(" (certain)"),
            (Basis::Derived, ..=1) if self.passage == UpgradePassage::Arrived => f.write_str(" (likely)"),
            (Basis::Derived, 0) => f.write_str(" (likely)"),
            (Basis::Derived, _) => f.write_str(" (the likeliest first)"),
        }
    }
}

/// The log records of servers for an exception that left the app, and for a call that returned too early: uvicorn
/// (`protocols/http/h11_impl.py`, `protocols/websockets/websockets_sansio_impl.py`), hypercorn
/// (`asyncio/task_group.py`), daphne (`server.py`) and granian (`_granian`, by its own logger).
const CRASHES: [&str; 4] = [
    "Exception in ASGI application",
    "Error in ASGI Framework",
    "Exception inside application",
    "Application callable raised an exception",
];
const RETURNED: &str = "ASGI callable returned without ";

/// The cause as a server that we started showed it: by what it and the application said to one another, and by its log.
fn observed(reading: &Exchange<'_>, ending: &Ending) -> Option<Cause> {
    let escaped = reading
        .escaped()
        .filter(|(exception, _)| !exception.is_cancellation() && !exception.is_disconnect())
        .filter(|_| !reading.is_raised_too_late(ending));
    let events = events_until_end(reading, ending);
    let decided = events.clone().find_map(|what| decides(what, ending, escaped.map(|(exception, _)| exception)));
    match decided {
        // Its limit passes for an app that has returned, too.
        Some(Cause::HandshakeTimeout) if reading.events.iter().any(|event| event.what == EventKind::Returned) => {
            return Some(Cause::ReturnedWithoutResponse);
        }
        Some(cause) => return Some(cause),
        None => {}
    }
    let crashed_after_begin = match escaped {
        Some((_, has_begun)) => Some(has_begun),
        None if events.clone().any(is_crash_logged) => Some(events.clone().any(is_accept)),
        None => None,
    };
    match crashed_after_begin {
        Some(true) => Some(Cause::CrashAfterAccept),
        Some(false) => Some(Cause::CrashBeforeResponse),
        None => events.clone().any(|what| is_answer_seen(what, ending)).then_some(Cause::AppDecision),
    }
}

/// The events of an exchange. A wait in vain is over when its limit passes; later events are no reason for it.
fn events_until_end<'a>(reading: &'a Exchange<'_>, ending: &Ending) -> impl Iterator<Item = &'a EventKind> + Clone {
    let is_in_vain = ending.waiting_for().is_some();
    let events = reading.events.iter().map(|event| &event.what);
    events.take_while(move |what| !(is_in_vain && matches!(what, EventKind::DeadlinePassed { .. })))
}

fn is_accept(what: &EventKind) -> bool {
    matches!(what, EventKind::Sent(Outbound::WebsocketAccept { .. }))
}

/// The cause that one event shows by itself. Frameworks answer an exception with an error of their own before they let it
/// escape to the server.
fn decides(what: &EventKind, ending: &Ending, escaped: Option<&Exception>) -> Option<Cause> {
    match what {
        EventKind::Sent(Outbound::ResponseStart { status, .. }) => {
            (is_answer_seen(what, ending) && *status < 500 && escaped.is_none()).then_some(Cause::AppDecision)
        }
        EventKind::Sent(Outbound::WebsocketClose { code, .. }) => match ending {
            Ending::Close { code: Some(seen), .. } if seen.0 != *code => None,
            Ending::Close { .. } if CloseCode(*code) == CloseCode::INTERNAL => Some(Cause::AppSent1011),
            Ending::Close { .. } | Ending::Http { .. } => Some(Cause::AppDecision),
            Ending::Drop
            | Ending::BadHandshake { .. }
            | Ending::Hang { .. }
            | Ending::Silence { .. }
            | Ending::Parted { .. }
            | Ending::Left
            | Ending::Refused
            | Ending::NotStarted { .. } => None,
        },
        EventKind::KeepaliveExpired => Some(Cause::KeepaliveTimeout),
        EventKind::HandshakeExpired => Some(Cause::HandshakeTimeout),
        EventKind::RequestRefused { .. } => Some(Cause::Server),
        EventKind::CutShort => Some(Cause::Shutdown),
        EventKind::Logged { message, .. } if message.starts_with(RETURNED) => Some(Cause::ReturnedWithoutResponse),
        EventKind::Sent(
            Outbound::WebsocketAccept { .. }
            | Outbound::WebsocketSend { .. }
            | Outbound::ResponseBody { .. }
            | Outbound::StartupComplete
            | Outbound::StartupFailed { .. }
            | Outbound::ShutdownComplete
            | Outbound::ShutdownFailed { .. }
            | Outbound::Unencodable { .. }
            | Outbound::Unknown(_),
        )
        | EventKind::Called { .. }
        | EventKind::Received(_)
        | EventKind::CallRaised(_)
        | EventKind::Returned
        | EventKind::Raised(_)
        | EventKind::Handled(_)
        | EventKind::Logged { .. }
        | EventKind::LeftBehind(_)
        | step_event!()
        | wire_event!()
        | end_event!()
        | outer_event!() => None,
    }
}

/// Whether a server logs that the app crashed.
fn is_crash_logged(what: &EventKind) -> bool {
    matches!(what, EventKind::Logged { message, .. } if CRASHES.iter().any(|text| message.starts_with(text)))
}

/// Whether an event is the app's answer that reached the client; one that did not decided nothing.
fn is_answer_seen(what: &EventKind, ending: &Ending) -> bool {
    match (what, ending) {
        (EventKind::Sent(Outbound::ResponseStart { status, .. }), Ending::Http { complete: true, status: seen }) => {
            status == seen
        }
        _ => false,
    }
}

/// A cause as a sentence about an external application.
fn said(cause: Cause) -> &'static str {
    match cause {
        Cause::CrashBeforeResponse => "an exception left the application before it accepted",
        Cause::CrashAfterAccept => "an exception left the application after it accepted",
        Cause::ReturnedWithoutResponse => "the application returned and left the client waiting",
        Cause::AppSent1011 => "the application itself closed with 1011",
        Cause::AppDecision => "the application itself decided so",
        Cause::KeepaliveTimeout => "a ping of the server went unanswered",
        Cause::HandshakeTimeout => "the application took too long to answer the handshake",
        Cause::Shutdown => "the server was told to stop",
        Cause::Server => "the server refused the request itself",
        Cause::Protocol => "the server took what the client sent for a breach of RFC 6455",
        Cause::Clean | Cause::Hang | Cause::NoListener | Cause::Injected | Cause::Unknown => cause.name(),
    }
}

/// The situations in which a server ends an exchange so, the likeliest first.
fn situations(profile: &Profile, reading: &Exchange<'_>, ending: &Ending) -> Vec<Cause> {
    let mut possible = PossibleCauses { reading, ending, causes: Vec::new() };
    let is_upgrade = reading.request.is_some_and(|head| header(&head.headers, "upgrade").is_some());
    let opened =
        reading.events.iter().find(|event| matches!(&event.what, EventKind::ResponseSeen(head) if head.status == 101));
    let exceeded = reading.request.and_then(|head| profile.limits.exceeded(head, is_upgrade));
    possible.add_by(exceeded.map(|(_, over)| over).filter(|_| opened.is_none()), Cause::Server);
    match (is_upgrade, opened) {
        (false, _) => possible.add_of_request(profile),
        (true, None) => possible.add_before_accept(profile),
        (true, Some(opened)) => possible.add_after_accept(profile, opened.at),
    }
    possible.causes
}

/// The causes that may be behind the end of an exchange, the likeliest first.
struct PossibleCauses<'a> {
    reading: &'a Exchange<'a>,
    ending: &'a Ending,
    causes: Vec<Cause>,
}

impl PossibleCauses<'_> {
    fn add(&mut self, cause: Cause) {
        if !self.causes.contains(&cause) {
            self.causes.push(cause);
        }
    }

    /// Adds a cause if the exchange ended with one of the answers that it leads to.
    fn add_by<'a>(&mut self, answers: impl IntoIterator<Item = &'a RefusalAnswer>, cause: Cause) {
        if answers.into_iter().any(|answer| ends_so(answer, self.reading, self.ending)) {
            self.add(cause);
        }
    }

    /// Adds the causes of a plain request.
    fn add_of_request(&mut self, profile: &Profile) {
        let http = &profile.http;
        // Frameworks answer an exception themselves, before they let the server see it.
        if matches!(self.ending, Ending::Http { status: 500, complete: true }) {
            self.add(Cause::CrashBeforeResponse);
        }
        self.add_by([&http.raises], Cause::CrashBeforeResponse);
        self.add_by([&http.returns], Cause::ReturnedWithoutResponse);
        let is_cut = matches!(self.ending, Ending::Http { complete: false, .. } | Ending::Drop);
        if is_cut && http.ends_after_start == RefusalAnswer::Drop {
            self.add(Cause::CrashAfterAccept);
        }
        if matches!(self.ending, Ending::Http { complete: true, .. }) {
            self.add(Cause::AppDecision);
        }
    }

    /// Adds the causes of an upgrade that opened no session.
    fn add_before_accept(&mut self, profile: &Profile) {
        let before = &profile.before_accept;
        self.add_by([&before.raises], Cause::CrashBeforeResponse);
        self.add_by([&before.returns], Cause::ReturnedWithoutResponse);
        self.add_by([&before.close], Cause::AppDecision);
        for (answer, raises) in [&before.send, &before.unoffered_subprotocol].into_iter().filter_map(Effect::answer) {
            self.add_by([answer], if raises { Cause::CrashBeforeResponse } else { Cause::AppDecision });
        }
        self.add_by(profile.handshake.refusals(), Cause::Server);
        let waited = self.reading.events.last().map_or(Duration::ZERO, |event| event.at);
        if before.time_limit_s > 0 && waited >= Duration::from_secs(before.time_limit_s) && *self.ending == Ending::Drop
        {
            self.add(Cause::HandshakeTimeout);
            // The limit ends what would hang.
            if before.returns == RefusalAnswer::Hang {
                self.add(Cause::ReturnedWithoutResponse);
            }
        }
        self.add_by(profile.shutdown.pending.answer(), Cause::Shutdown);
        // A denial response may be anything.
        let is_denial = matches!(self.ending, Ending::Http { .. }) && before.denial == Denial::Sent;
        if is_denial && profile.scope.denial_response {
            self.add(Cause::AppDecision);
        }
    }

    /// Adds the causes of the end of a session.
    fn add_after_accept(&mut self, profile: &Profile, opened_at: Duration) {
        let events = &self.reading.events;
        let lasted = events.last().map_or(Duration::ZERO, |event| event.at.saturating_sub(opened_at));
        // A frame that the application may send and the server should not have passed on.
        let is_broken = events.iter().any(|event| matches!(event.what, EventKind::BadFrameSeen(_)));
        let after = &profile.after_accept;
        if is_expired(&profile.keepalive, lasted) {
            self.add_by([&profile.keepalive.expired], Cause::KeepaliveTimeout);
        }
        self.add_by([&after.raises], Cause::CrashAfterAccept);
        self.add_by([&after.returns], Cause::ReturnedWithoutResponse);
        if let Ending::Close { code: Some(code), .. } = self.ending {
            if after.close_codes.contain(*code) {
                self.add(if *code == CloseCode::INTERNAL { Cause::AppSent1011 } else { Cause::AppDecision });
            }
            let rules = &profile.violation;
            self.add_by([&rules.protocol, &rules.close_code, &rules.payload, &rules.too_big], Cause::Protocol);
        }
        if is_broken && after.long_close_reason == Effect::Ignored {
            self.add(Cause::AppDecision);
        }
        // Events that the server does not pass on.
        let unsaid = [&after.other_close_code, &after.long_close_reason, &after.accept_again, &after.send_after_close];
        for (answer, raises) in unsaid.into_iter().filter_map(Effect::answer) {
            self.add_by([answer], if raises { Cause::CrashAfterAccept } else { Cause::AppDecision });
        }
        self.add_by(profile.shutdown.open.answer(), Cause::Shutdown);
    }
}

/// Whether a session lasted long enough for a ping of the server to go unanswered.
fn is_expired(keepalive: &Keepalive, lasted: Duration) -> bool {
    keepalive.ping_interval_ms > 0
        && lasted >= Duration::from_millis(keepalive.ping_interval_ms + keepalive.pong_timeout_ms)
}

/// Whether an exchange ended with this answer.
fn ends_so(answer: &RefusalAnswer, reading: &Exchange<'_>, ending: &Ending) -> bool {
    match ending {
        Ending::Http { .. } => is_answer(answer, reading),
        Ending::Close { code: seen, reason: said } => {
            matches!(answer, RefusalAnswer::Close { code, reason } if code == seen && reason == said)
        }
        Ending::Drop => *answer == RefusalAnswer::Drop,
        Ending::Hang { .. } | Ending::Silence { .. } => *answer == RefusalAnswer::Hang,
        // The client or nothing ended it.
        Ending::BadHandshake { .. }
        | Ending::Parted { .. }
        | Ending::Left
        | Ending::Refused
        | Ending::NotStarted { .. } => false,
    }
}

/// Whether an HTTP answer is this one: its status and its body.
fn is_answer(answer: &RefusalAnswer, reading: &Exchange<'_>) -> bool {
    let RefusalAnswer::Http { status, body, .. } = answer else { return false };
    let seen = reading.events.iter().find_map(|event| match &event.what {
        EventKind::BodySeen { body, .. } => Some(body.as_ref()),
        _ => None,
    });
    reading.response.is_some_and(|head| head.status == *status) && seen.unwrap_or_default() == body.as_bytes()
}

/// The answer of a server that does not receive a request.
fn refusal(reception: &Reception) -> Option<&RefusalAnswer> {
    match reception {
        Reception::Refused(answer) => Some(answer),
        Reception::Accepted | Reception::Http => None,
    }
}

/// Whether an answer is distinctive: a page with a body.
fn tells_something(answer: &RefusalAnswer) -> bool {
    matches!(answer, RefusalAnswer::Http { body, .. } if !body.is_empty())
}
