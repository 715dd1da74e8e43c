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
    record::transcript::{Event, EventKind, end_event, outer_event, step_event, wire_event},
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
        let is_named = |profile: &&Arc<Profile>| {
            !profile.server_header.is_empty() && names.contains(&profile.server_header.as_bytes())
        };
        let answers_so = |profile: &&Arc<Profile>| match (&profile.handshake.missing_key, without_key) {
            (Reception::Refused(answer), Some(reading)) => is_answer(answer, reading),
            (Reception::Refused(_), None) | (Reception::Accepted | Reception::Http, _) => false,
        };
        let is_unlike_others = |profile: &&Arc<Profile>| matches!(&profile.handshake.missing_key, Reception::Refused(answer) if tells_something(answer));
        let named: Vec<_> = servers.iter().filter(is_named).cloned().collect();
        let alike: Vec<_> = servers.iter().filter(answers_so).filter(is_unlike_others).cloned().collect();
        let both: Vec<_> = named.iter().filter(answers_so).cloned().collect();
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
        let explained = |servers, causes, basis| Some(Explanation { servers, causes, basis, passage, handled });
        if passage == UpgradePassage::Lost {
            return explained(Vec::new(), Vec::new(), Basis::Observed);
        }
        if let Some(cause) = observed(reading, ending) {
            return explained(Vec::new(), vec![cause], Basis::Observed);
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
                explained(servers, causes, Basis::Derived)
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
            let is =
                |reception: &Reception| matches!(reception, Reception::Refused(answer) if is_answer(answer, reading));
            let refuses = handshake.refusals().any(|answer| tells_something(answer) && is_answer(answer, reading));
            refuses && !is(&handshake.upgrade) && !is(&handshake.connection_keep_alive)
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
    // A wait in vain is over when its limit passes; later events are no reason for it.
    let is_in_vain = ending.waiting_for().is_some();
    let is_over = |event: &&Event| is_in_vain && matches!(event.what, EventKind::DeadlinePassed { .. });
    let events = || reading.events.iter().copied().take_while(|event| !is_over(event)).map(|event| &event.what);
    let has_accepted = events().any(|what| matches!(what, EventKind::Sent(Outbound::WebsocketAccept { .. })));
    events()
        .find_map(|what| decides(what, ending, escaped.map(|(exception, _)| exception)))
        .or_else(|| escaped.map(|(_, has_begun)| crash(has_begun)))
        .or_else(|| events().any(is_crash_logged).then(|| crash(has_accepted)))
        .or_else(|| events().any(|what| is_answer_seen(what, ending)).then_some(Cause::AppDecision))
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
            | Outbound::Unknown(_),
        )
        | EventKind::Called { .. }
        | EventKind::Received(_)
        | EventKind::CallRaised(_)
        | EventKind::Returned
        | EventKind::Raised(_)
        | EventKind::Handled(_)
        | EventKind::Logged { .. }
        | step_event!()
        | wire_event!()
        | end_event!()
        | outer_event!() => None,
    }
}

/// The cause of an exception that escapes.
fn crash(has_begun: bool) -> Cause {
    if has_begun { Cause::CrashAfterAccept } else { Cause::CrashBeforeResponse }
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
        Cause::Shutdown => "the server was told to stop",
        Cause::Server => "the server refused the request itself",
        Cause::Protocol => "the server took what the client sent for a breach of RFC 6455",
        Cause::Clean | Cause::Hang | Cause::NoListener | Cause::Injected | Cause::Unknown => cause.name(),
    }
}

/// The situations in which a server ends an exchange so, the likeliest first.
fn situations(profile: &Profile, reading: &Exchange<'_>, ending: &Ending) -> Vec<Cause> {
    let is = |answer: &RefusalAnswer| ends_so(answer, reading, ending);
    let opened =
        reading.events.iter().find(|event| matches!(&event.what, EventKind::ResponseSeen(head) if head.status == 101));
    let mut causes = Vec::new();
    let mut may_be = |is_it: bool, cause: Cause| {
        if is_it && !causes.contains(&cause) {
            causes.push(cause);
        }
    };
    let is_upgrade = reading.request.is_some_and(|head| header(&head.headers, "upgrade").is_some());
    if !is_upgrade {
        let http = &profile.http;
        // Frameworks answer an exception themselves, before they let the server see it.
        let is_error = matches!(ending, Ending::Http { status: 500, complete: true });
        may_be(is_error || is(&http.raises), Cause::CrashBeforeResponse);
        may_be(is(&http.returns), Cause::ReturnedWithoutResponse);
        let is_cut = matches!(ending, Ending::Http { complete: false, .. } | Ending::Drop);
        may_be(is_cut && http.ends_after_start == RefusalAnswer::Drop, Cause::CrashAfterAccept);
        may_be(matches!(ending, Ending::Http { complete: true, .. }), Cause::AppDecision);
        return causes;
    }
    let Some(opened) = opened else {
        let before = &profile.before_accept;
        may_be(is(&before.raises), Cause::CrashBeforeResponse);
        may_be(is(&before.returns), Cause::ReturnedWithoutResponse);
        may_be(is(&before.close), Cause::AppDecision);
        for (answer, raises) in [&before.send, &before.unoffered_subprotocol].into_iter().filter_map(Effect::answer) {
            may_be(is(answer), if raises { Cause::CrashBeforeResponse } else { Cause::AppDecision });
        }
        may_be(profile.handshake.refusals().any(is), Cause::Server);
        may_be(profile.shutdown.pending.answer().is_some_and(is), Cause::Shutdown);
        // A denial response may be anything.
        let is_answer = matches!(ending, Ending::Http { .. }) && before.denial == Denial::Sent;
        may_be(is_answer && profile.scope.denial_response, Cause::AppDecision);
        return causes;
    };
    let lasted = reading.events.last().map_or(Duration::ZERO, |event| event.at.saturating_sub(opened.at));
    let after = &profile.after_accept;
    may_be(is_expired(&profile.keepalive, lasted) && is(&profile.keepalive.expired), Cause::KeepaliveTimeout);
    may_be(is(&after.raises), Cause::CrashAfterAccept);
    may_be(is(&after.returns), Cause::ReturnedWithoutResponse);
    if let Ending::Close { code: Some(code), .. } = ending {
        let own = if *code == CloseCode::INTERNAL { Cause::AppSent1011 } else { Cause::AppDecision };
        may_be(after.close_codes.contain(*code), own);
        let rules = &profile.violation;
        let breaches = [&rules.protocol, &rules.close_code, &rules.payload, &rules.too_big];
        may_be(breaches.into_iter().any(is), Cause::Protocol);
    }
    // Events that the application may send and the server does not pass on, or should not have.
    let is_broken = reading.events.iter().any(|event| matches!(event.what, EventKind::BadFrameSeen(_)));
    may_be(is_broken && after.long_close_reason == Effect::Ignored, Cause::AppDecision);
    let unsaid = [&after.other_close_code, &after.long_close_reason, &after.accept_again, &after.send_after_close];
    for (answer, raises) in unsaid.into_iter().filter_map(Effect::answer) {
        may_be(is(answer), if raises { Cause::CrashAfterAccept } else { Cause::AppDecision });
    }
    may_be(profile.shutdown.open.answer().is_some_and(is), Cause::Shutdown);
    causes
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

/// Whether an answer is distinctive: a page with a body.
fn tells_something(answer: &RefusalAnswer) -> bool {
    matches!(answer, RefusalAnswer::Http { body, .. } if !body.is_empty())
}
