//! The edge as a standing man in the middle, in front of any server that speaks HTTP/1.1.
//!
//! Faults are armed when it begins to listen, so that no connection slips through before them. They can be added,
//! removed and paused while it runs ([`control`]).

pub mod control;
mod entry;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast;
use tokio::time::Instant;

pub use self::entry::{Carriage, LogEvent, LogRecord, ProxySide, SentClose};
use crate::upstream::Upstream;
use relapse_core::{
    error::Error,
    fault::{ConnectionFault, Fault, FaultKind, setting::Count},
    plan::Plan,
    record::{
        redact::Redactor,
        transcript::{Actor, EventKind},
    },
    wire::head::{ResponseHead, field, has_token, readable},
};
use relapse_simulate::{
    clock::Clock,
    edge::{self, Carried, ConnectionSummary, Ended, ServerLink},
    link::{Link, Listener, Receiving},
    recorder::{EventSink, FaultCounters, Recorder},
};

/// How many log entries wait for a slow reader.
const ENTRIES_WAITING: usize = 4096;

/// The settings of a proxy.
#[derive(Debug, Clone)]
pub struct ProxySetup {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it carries to.
    pub upstream: Upstream,
    /// The faults that are armed from the first connection on.
    pub faults: Vec<Fault>,
    /// The only source of chance.
    pub seed: u64,
    /// How many connections it carries at a time.
    pub connections_max: usize,
}

/// A proxy that listens.
#[derive(Debug)]
pub struct Proxy {
    listener: Listener,
    desk: ProxyHandle,
}

/// A handle to a running proxy: its state, and its controls. Clones refer to the same proxy.
#[derive(Debug, Clone)]
pub struct ProxyHandle(Arc<ProxyShared>);

struct ProxyShared {
    upstream: Upstream,
    seed: u64,
    connections_max: usize,
    start: Instant,
    tally: Arc<Mutex<FaultCounters>>,
    state: Mutex<ProxyState>,
    entries: broadcast::Sender<Arc<LogRecord>>,
}

#[derive(Default)]
struct ProxyState {
    faults: Vec<Fault>,
    /// The counts without those of faults that acted, which the recorder has.
    counts: Counts,
}

/// How many connections a proxy has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Carried now.
    pub open: usize,
    /// Accepted so far.
    pub accepted: u64,
    /// Refused because there was no room.
    pub refused: u64,
    /// How often a fault acted.
    pub acted: u64,
}

/// A fault of a running proxy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Armed {
    /// Its number, counted from 1.
    pub number: usize,
    /// The fault's effect and trigger, as text.
    pub fault: String,
    /// How often it acted.
    pub acted: u32,
    /// Whether it may still act.
    pub armed: bool,
}

impl fmt::Debug for ProxyShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Listens; nothing is carried before [`Proxy::run`].
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(setup: ProxySetup) -> Result<Proxy, Error> {
        let listener = Listener::bind_to(Clock::Real, setup.listen).await?;
        let shared = ProxyShared {
            upstream: setup.upstream,
            seed: setup.seed,
            connections_max: setup.connections_max,
            start: Instant::now(),
            tally: Arc::new(Mutex::new(FaultCounters::new(setup.seed))),
            state: Mutex::default(),
            entries: broadcast::channel(ENTRIES_WAITING).0,
        };
        let desk = ProxyHandle(Arc::new(shared));
        for fault in setup.faults {
            desk.add(fault);
        }
        Ok(Proxy { listener, desk })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        self.listener.address()
    }

    /// Where it is controlled from.
    pub fn desk(&self) -> ProxyHandle {
        self.desk.clone()
    }

    /// Carries connections for as long as it is polled.
    ///
    /// # Errors
    /// When it cannot listen any more.
    pub async fn run(self) -> Result<(), Error> {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            // Drop the tasks of finished connections.
            while connections.try_join_next().is_some() {}
            let (link, client) = self.listener.accept_from().await?;
            let (number, has_room) = self.desk.enter();
            let desk = self.desk.clone();
            connections.spawn(async move {
                if has_room {
                    let _present = Present(desk.clone());
                    desk.carry(link, client, number).await;
                } else {
                    desk.note(number, LogEvent::Refused { most: desk.0.connections_max });
                    refuse(link).await;
                }
            });
        }
    }
}

/// Counts a connection for as long as it is carried.
struct Present(ProxyHandle);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.state().counts.open -= 1;
    }
}

impl ProxyHandle {
    fn state(&self) -> MutexGuard<'_, ProxyState> {
        // Every change is one assignment.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, FaultCounters> {
        self.0.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where connections are carried to.
    pub fn upstream(&self) -> &Upstream {
        &self.0.upstream
    }

    /// How many connections there are and were.
    pub fn counts(&self) -> Counts {
        let state = self.state();
        let acted = self.tally().fired().iter().map(|&count| u64::from(count)).sum();
        Counts { acted, ..state.counts }
    }

    /// Every fault, those that were removed too.
    pub fn faults(&self) -> Vec<Armed> {
        let state = self.state();
        let tally = self.tally();
        let faults = state.faults.iter().enumerate().map(|(index, fault)| Armed {
            number: index + 1,
            fault: fault.to_string(),
            acted: tally.fired()[index],
            armed: tally.is_armed(index),
        });
        faults.collect()
    }

    /// Adds a fault for the connections that are made from now on; gives its number.
    pub fn add(&self, fault: Fault) -> usize {
        let mut state = self.state();
        state.faults.push(fault);
        self.tally().grow(state.faults.len());
        state.faults.len()
    }

    /// Removes a fault: it acts no more, on no connection. Whether there is such a fault.
    pub fn remove(&self, number: usize) -> bool {
        let is_there = (1..=self.state().faults.len()).contains(&number);
        if is_there {
            self.tally().disarm(number - 1);
        }
        is_there
    }

    /// Lets no fault act until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.tally().pause();
    }

    /// Lets the faults act again.
    pub fn resume(&self) {
        self.tally().resume();
    }

    /// Whether no fault acts for now.
    pub fn is_paused(&self) -> bool {
        self.tally().is_paused()
    }

    /// The log from now on. Who reads too slowly misses entries, and is told how many.
    pub fn entries(&self) -> broadcast::Receiver<Arc<LogRecord>> {
        self.0.entries.subscribe()
    }

    fn note(&self, connection: u64, what: LogEvent) {
        let at_ms = self.elapsed_ms();
        // Sending fails only when the log has no reader.
        let _ = self.0.entries.send(Arc::new(LogRecord { at_ms, connection, what }));
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A connection came: its number, and whether there is room for it.
    fn enter(&self) -> (u64, bool) {
        let counts = &mut self.state().counts;
        counts.accepted += 1;
        let has_room = counts.open < self.0.connections_max;
        if has_room {
            counts.open += 1;
        } else {
            counts.refused += 1;
        }
        (counts.accepted, has_room)
    }

    async fn carry(&self, link: Link, client: SocketAddr, number: u64) {
        self.note(number, LogEvent::Opened { client: client.to_string() });
        let mut faults = self.state().faults.clone();
        let mut tally = Arc::clone(&self.0.tally);
        let mut is_own = false;
        let server = match self.0.upstream.connect(Receiving::Usual).await {
            Ok(server) => Some(server),
            Err(why) => {
                self.note(number, LogEvent::Unreachable { why: why.clone() });
                let has_answer = faults
                    .iter()
                    .any(|fault| matches!(fault.kind, FaultKind::Connection(ConnectionFault::MissingAnswer { .. })));
                if !has_answer {
                    // A proxy that cannot reach its server says so (RFC 9110 section 15.6.3). It is no fault of the plan.
                    let body = format!("relapse: {} cannot be reached: {why}\n", self.0.upstream);
                    let said = FaultKind::Connection(ConnectionFault::MissingAnswer { status: Count(502), body });
                    faults = vec![said.into()];
                    let mut own = FaultCounters::new(self.0.seed);
                    own.grow(1);
                    tally = Arc::new(Mutex::new(own));
                    is_own = true;
                }
                None
            }
        };
        let (desk, acted) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let acts = Arc::clone(&acted);
        let closes = Arc::new(Mutex::new(Vec::new()));
        let tap = EventSink::new(move |event| match event.what {
            EventKind::FaultFired { index, detail, .. } if !is_own => {
                acts.store(true, Ordering::Relaxed);
                desk.note(number, LogEvent::Fault { number: index + 1, detail });
            }
            EventKind::Logged { message, .. } => desk.note(number, LogEvent::Warning { message }),
            _ => {}
        });
        let plan = Plan { seed: self.0.seed, faults };
        let recorder = Recorder::passing_on(plan, tally, self.0.start, tap);
        let (desk, said) = (self.clone(), Arc::clone(&closes));
        let journal: edge::Journal = Arc::new(move |carried: Carried<'_>| desk.take(number, carried, &said));
        let scribe = recorder.scribe(0);
        let again = edge::asks_again(&scribe).then(|| self.0.upstream.redial());
        let passage = edge::relay(link, ServerLink { link: server, again }, scribe, Some(journal)).await;
        let closes = std::mem::take(&mut *closes.lock().unwrap_or_else(PoisonError::into_inner));
        let acted = match acted.load(Ordering::Relaxed) {
            _ if is_own => ActedFaults::OwnAnswer,
            true => ActedFaults::OfPlan,
            false => ActedFaults::None,
        };
        self.note(number, closed(passage, closes, acted));
    }

    /// Writes down what passes; of each side the first close counts (RFC 6455 section 5.5.1).
    fn take(&self, number: u64, carried: Carried<'_>, closes: &Mutex<Vec<SentClose>>) {
        let what = match carried {
            Carried::Request(head) => LogEvent::Request {
                method: head.method.clone(),
                target: shown_target(&head.target),
                upgrade: has_token(&head.headers, "upgrade", "websocket"),
            },
            Carried::Answer(ResponseHead { status, .. }) => LogEvent::Answer { status: *status },
            Carried::Close { by, code, reason } => {
                let by = if by == Actor::Probe { ProxySide::Client } else { ProxySide::Server };
                let reason = Redactor::NONE.text(&reason);
                let said = SentClose { by, code: code.map(|code| code.0), reason, close_at_ms: self.elapsed_ms() };
                let mut closes = closes.lock().unwrap_or_else(PoisonError::into_inner);
                if closes.iter().all(|other| other.by != by) {
                    closes.push(said.clone());
                }
                LogEvent::Close(said)
            }
        };
        self.note(number, what);
    }
}

/// The target, without the values of its query and without what looks like a secret in its path.
fn shown_target(target: &[u8]) -> String {
    let text = Redactor::NONE.text(&readable(target));
    let Some((path, query)) = text.split_once('?') else { return text };
    let names: Vec<String> = query
        .split('&')
        .map(|pair| pair.split_once('=').map_or_else(|| pair.to_owned(), |(name, _)| format!("{name}=…")))
        .collect();
    format!("{path}?{}", names.join("&"))
}

/// The faults that acted on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ActedFaults {
    None,
    /// Some of those that the user asked for.
    OfPlan,
    /// The answer of the proxy itself for an upstream that cannot be reached.
    OwnAnswer,
}

/// The actor that closed a connection, and the reason.
fn closed(passage: ConnectionSummary, closes: Vec<SentClose>, acted: ActedFaults) -> LogEvent {
    let ended = if passage.ended == Ended::Client { ProxySide::Client } else { ProxySide::Server };
    let how = match (passage.is_reset, passage.upgraded) {
        (true, _) => "reset",
        (false, true) => "end of stream without a close frame",
        (false, false) => "end of stream",
    };
    let (by, why) = match (passage.ended, closes.first()) {
        (Ended::Fault(_), _) if acted == ActedFaults::OwnAnswer => {
            ("proxy".to_owned(), "the upstream cannot be reached".to_owned())
        }
        (Ended::Fault(index), _) => (format!("fault {}", index + 1), "a fault ended it".to_owned()),
        // A fault may have kept one side's close frame from the other side.
        (_, Some(said)) if acted == ActedFaults::OfPlan && said.by != ended => {
            (ended.to_string(), format!("{how}; the {} had said {said}", said.by))
        }
        (_, Some(said)) => (said.by.to_string(), said.to_string()),
        (_, None) => (ended.to_string(), how.to_owned()),
    };
    let lasted_ms = u64::try_from(passage.lasted.as_millis()).unwrap_or(u64::MAX);
    LogEvent::Closed {
        by,
        why,
        closes,
        lasted_ms,
        from_client: passage.from_client.into(),
        from_server: passage.from_server.into(),
    }
}

/// How long a client that is refused may take to read it.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);

async fn refuse(mut link: Link) {
    use tokio::io::AsyncWriteExt;
    const BODY: &str = "relapse: no room for another connection\n";
    let mut answer = Vec::new();
    let headers = vec![
        field("content-type", "text/plain; charset=utf-8"),
        field("content-length", BODY.len().to_string()),
        field("retry-after", "1"),
        field("connection", "close"),
    ];
    ResponseHead { status: 503, headers }.encode(&mut answer);
    answer.extend_from_slice(BODY.as_bytes());
    let refused = async {
        let _ = link.write_all(&answer).await;
        link.finish().await;
    };
    let _ = tokio::time::timeout(REFUSAL_LIMIT, refused).await;
}
