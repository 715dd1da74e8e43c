//! Writes a transcript while a run goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::{
    link::Receiving,
    memory::{RunMemory, SMALL_RUN_BYTES},
};
use relapse_core::{
    fault::Place,
    plan::Plan,
    record::{
        code::ReachedBlocks,
        event_log::EventLog,
        transcript::{Actor, Event, EventKind, Level, PROCESS, Transcript},
    },
};

/// The transcript of a run in the making, shared by every actor.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<RecorderState>);

#[derive(Debug)]
struct RecorderState {
    start: Instant,
    plan: Plan,
    tally: Arc<Mutex<FaultCounters>>,
    ledger: Mutex<Ledger>,
    memory: RunMemory,
    tap: Option<EventSink>,
}

#[derive(Debug)]
struct Ledger {
    events: EventLog,
    /// The step that the client of an exchange is performing, counted from 1.
    steps: BTreeMap<usize, usize>,
    /// The exchanges that follow the first one of a connection, in the order of their requests.
    following: BTreeMap<usize, Vec<usize>>,
    /// The app's own code that the calls of exchanges reached.
    reached: Vec<(usize, ReachedBlocks)>,
}

impl Ledger {
    fn with_capacity(events: usize) -> Ledger {
        let events = EventLog::with_capacity(events);
        Ledger { events, steps: BTreeMap::new(), following: BTreeMap::new(), reached: Vec::new() }
    }
}

/// The exchange that a recorder records, on a connection that may carry several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    /// This one.
    This,
    /// The last one that began on the connection whose first one this is.
    Latest,
}

/// How often the faults of a plan had an occasion, and how often they acted.
#[derive(Debug)]
pub struct FaultCounters {
    occasions: Vec<u32>,
    fired: Vec<u32>,
    chance: fastrand::Rng,
    /// Faults that do not act any more, by their place in the plan.
    disarmed: BTreeSet<usize>,
    /// No fault acts for now.
    is_paused: bool,
}

impl FaultCounters {
    /// Nothing has acted. Chance comes from the seed.
    pub fn new(seed: u64) -> FaultCounters {
        // The faults' own chance, apart from that of masks and keys.
        let chance = fastrand::Rng::with_seed(seed ^ 0xFA17);
        FaultCounters { occasions: Vec::new(), fired: Vec::new(), chance, disarmed: BTreeSet::new(), is_paused: false }
    }

    /// Makes room for a plan with this number of faults.
    pub fn grow(&mut self, faults: usize) {
        self.occasions.resize(faults, 0);
        self.fired.resize(faults, 0);
    }

    /// How often each fault acted.
    pub fn fired(&self) -> &[u32] {
        &self.fired
    }

    /// A fault acts no more.
    pub fn disarm(&mut self, index: usize) {
        self.disarmed.insert(index);
    }

    /// Whether a fault may still act.
    pub fn is_armed(&self, index: usize) -> bool {
        !self.disarmed.contains(&index)
    }

    /// Lets no fault act until [`resume`](Self::resume).
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// Lets the faults act again.
    pub fn resume(&mut self) {
        self.is_paused = false;
    }

    /// Whether no fault acts for now.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }
}

/// Gets every event of a recorder that keeps none.
#[derive(Clone)]
pub struct EventSink(Arc<dyn Fn(Event) + Send + Sync>);

impl EventSink {
    /// Gives each event to a function.
    pub fn new(take: impl Fn(Event) + Send + Sync + 'static) -> EventSink {
        EventSink(Arc::new(take))
    }
}

impl fmt::Debug for EventSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap")
    }
}

/// The recorder's hand for one exchange.
#[derive(Debug, Clone)]
pub struct ExchangeRecorder {
    recorder: Recorder,
    exchange: usize,
    /// The exchange that began the connection.
    connection: usize,
    writes: Writes,
    /// How the client of the connection receives.
    receiving: Receiving,
}

impl Recorder {
    /// An empty transcript that begins now, of a run that shares its memory with no other.
    pub fn new(plan: Plan) -> Recorder {
        Recorder::within(plan, RunMemory::default())
    }

    /// An empty transcript that begins now, of a run with this memory.
    pub fn within(plan: Plan, memory: RunMemory) -> Recorder {
        let mut tally = FaultCounters::new(plan.seed);
        tally.grow(plan.faults.len());
        let (tally, ledger) = (Arc::new(Mutex::new(tally)), Mutex::new(Ledger::with_capacity(64)));
        Recorder(Arc::new(RecorderState { start: Instant::now(), plan, tally, ledger, memory, tap: None }))
    }

    /// A recorder that keeps nothing and gives each event away as it comes. Its faults share their count with others,
    /// and their time begins at `start`.
    pub fn passing_on(plan: Plan, tally: Arc<Mutex<FaultCounters>>, start: Instant, tap: EventSink) -> Recorder {
        let (ledger, memory) = (Mutex::new(Ledger::with_capacity(0)), RunMemory::default());
        Recorder(Arc::new(RecorderState { start, plan, tally, ledger, memory, tap: Some(tap) }))
    }

    /// The plan of the run.
    pub fn plan(&self) -> &Plan {
        &self.0.plan
    }

    /// Time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.0.start.elapsed()
    }

    /// A hand for an exchange.
    pub fn scribe(&self, exchange: usize) -> ExchangeRecorder {
        ExchangeRecorder {
            recorder: self.clone(),
            exchange,
            connection: exchange,
            writes: Writes::This,
            receiving: Receiving::Usual,
        }
    }

    /// A request is about to follow on the connection that an exchange began; it is an exchange of its own.
    pub fn follow(&self, first: usize, exchange: usize) {
        self.ledger().following.entry(first).or_default().push(exchange);
    }

    /// The events of an exchange so far.
    pub fn events_of(&self, exchange: usize) -> Vec<Event> {
        self.ledger().events.of_exchange(exchange).cloned().collect()
    }

    /// Takes the transcript so far; a second call has none of it.
    pub fn transcript(&self) -> Transcript {
        let (events, reached) = {
            let mut ledger = self.ledger();
            (ledger.events.take(), std::mem::take(&mut ledger.reached))
        };
        let fired = self.tally().fired.clone();
        let faults = self.0.plan.faults.clone();
        Transcript { events, faults, fired, reached, ..Transcript::default() }
    }

    /// Whether some call of the application has not ended.
    pub fn is_application_running(&self) -> bool {
        self.ledger().events.is_application_running()
    }

    /// Whether a request was sent that has led to neither a call nor an answer, and whose client did not wait until its limit.
    pub fn awaits_call(&self) -> bool {
        self.ledger().events.awaits_call()
    }

    /// Whether a fault of the plan has acted.
    pub fn has_fault_acted(&self) -> bool {
        self.tally().fired.iter().any(|count| *count > 0)
    }

    fn tally(&self) -> MutexGuard<'_, FaultCounters> {
        // A poisoned lock is at most one count short; use it anyway.
        self.0.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // An actor that panicked while recording left a whole event or none behind.
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ExchangeRecorder {
    /// Writes down one thing.
    pub fn record(&self, party: Actor, what: EventKind) {
        self.record_as_of(self.recorder.elapsed(), party, what);
    }

    /// Writes down one thing that was settled at an earlier time.
    pub fn record_as_of(&self, at: Duration, party: Actor, what: EventKind) {
        self.take(Event { at, exchange: self.exchange(), party, what, omitted_bytes: 0 });
    }

    /// Writes down one thing, of whose payload so many bytes are left out already.
    pub fn record_abridged(&self, party: Actor, what: EventKind, omitted_bytes: u64) {
        self.take(Event { at: self.recorder.elapsed(), exchange: self.exchange(), party, what, omitted_bytes });
    }

    /// Keeps the code that a call of the exchange reached.
    pub fn reach(&self, blocks: ReachedBlocks) {
        self.recorder.ledger().reached.push((self.exchange(), blocks));
    }

    fn take(&self, event: Event) {
        match &self.recorder.0.tap {
            None => {
                let mut ledger = self.recorder.ledger();
                ledger.events.push(event);
                if ledger.events.bytes() > SMALL_RUN_BYTES {
                    self.memory().grow();
                }
            }
            Some(EventSink(take)) => take(event),
        }
    }

    /// The plan of the run.
    pub fn plan(&self) -> &Plan {
        self.recorder.plan()
    }

    /// The memory of the run.
    pub fn memory(&self) -> &RunMemory {
        &self.recorder.0.memory
    }

    /// The same transcript, for what belongs to the process and to no exchange.
    pub fn of_process(&self) -> ExchangeRecorder {
        ExchangeRecorder { exchange: PROCESS, writes: Writes::This, ..self.clone() }
    }

    /// Whether it writes what a recorder records.
    pub fn is_of(&self, recorder: &Recorder) -> bool {
        Arc::ptr_eq(&self.recorder.0, &recorder.0)
    }

    /// The exchange it writes for.
    pub fn exchange(&self) -> usize {
        match self.writes {
            Writes::This => self.exchange,
            Writes::Latest => {
                let ledger = self.recorder.ledger();
                ledger.following.get(&self.connection).and_then(|all| all.last()).copied().unwrap_or(self.connection)
            }
        }
    }

    /// A hand for the request with this number, counted from 0, of the connection that this exchange began. Where the
    /// client says nothing of a further one, it belongs to the first.
    pub fn of_request(&self, number: usize) -> ExchangeRecorder {
        let exchange = self.following(number).unwrap_or(self.connection);
        ExchangeRecorder { exchange, writes: Writes::This, ..self.clone() }
    }

    /// The exchange of a further request of the connection, if the client says one.
    fn following(&self, number: usize) -> Option<usize> {
        self.recorder.ledger().following.get(&self.connection)?.get(number.checked_sub(1)?).copied()
    }

    /// The same hand, for a connection whose client receives in this way.
    #[must_use]
    pub fn receiving_as(self, receiving: Receiving) -> ExchangeRecorder {
        ExchangeRecorder { receiving, ..self }
    }

    /// How the client of the connection receives.
    pub fn receiving(&self) -> Receiving {
        self.receiving
    }

    /// The exchange that began the connection; several may follow one another on it.
    pub fn connection(&self) -> usize {
        self.connection
    }

    /// A hand for whichever exchange began last on the connection that this one began.
    pub fn of_connection(&self) -> ExchangeRecorder {
        ExchangeRecorder { writes: Writes::Latest, ..self.clone() }
    }

    /// Whether the plan has a fault for this place.
    pub fn has_faults_at(&self, place: Place) -> bool {
        self.plan().faults.iter().any(|fault| fault.kind.place() == place)
    }

    /// Asks a fault of the plan whether it acts on this occasion, and counts the occasion if the fault is armed.
    pub fn meets(&self, index: usize) -> bool {
        let trigger = self.plan().faults[index].trigger;
        if !trigger.is_always_armed() && !trigger.is_armed_at(self.elapsed()) {
            return false;
        }
        if trigger.step.is_some_and(|step| self.step() != Some(step)) {
            return false;
        }
        let mut tally = self.recorder.tally();
        if tally.is_paused || tally.disarmed.contains(&index) {
            return false;
        }
        tally.occasions[index] += 1;
        let acts = trigger.acts_on(tally.occasions[index]);
        acts && (trigger.percent == 100 || tally.chance.u8(..100) < trigger.percent)
    }

    /// The step that the client of the exchange performs, counted from 1.
    fn step(&self) -> Option<usize> {
        let exchange = self.exchange();
        self.recorder.ledger().steps.get(&exchange).copied()
    }

    /// The client of this exchange performs a step, counted from 1.
    pub fn at_step(&self, step: usize) {
        if self.plan().faults.iter().any(|fault| fault.trigger.step.is_some()) {
            self.recorder.ledger().steps.insert(self.exchange, step);
        }
    }

    /// A number up to the most, from the plan's seed.
    pub fn chance(&self, most: u32) -> u32 {
        self.recorder.tally().chance.u32(0..=most)
    }

    /// Time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.recorder.elapsed()
    }

    /// Writes down that a fault acted.
    pub fn fired(&self, index: usize, party: Actor, detail: String) {
        self.recorder.tally().fired[index] += 1;
        self.record(party, EventKind::FaultFired { index, detail, operation: None });
    }

    /// Writes down that a fault acted on a call of a dependency.
    pub fn fired_on_call(&self, index: usize, operation: &'static str) {
        self.recorder.tally().fired[index] += 1;
        let kind = &self.plan().faults[index].kind;
        let detail = match kind.calls() {
            // A fault for every call acted on this one.
            Some(calls) if calls.operation.is_none() => {
                kind.to_string().replacen(&calls.dependency, &format!("{}.{operation}", calls.dependency), 1)
            }
            _ => kind.to_string(),
        };
        self.record(Actor::Dependency, EventKind::FaultFired { index, detail, operation: Some(operation) });
    }

    /// The recorder of the exchange that the current task serves, if any.
    pub fn current() -> Option<ExchangeRecorder> {
        Self::with_current(Clone::clone)
    }

    /// Does something with that recorder, without a copy of it.
    pub fn with_current<T>(act: impl FnOnce(&ExchangeRecorder) -> T) -> Option<T> {
        CURRENT.try_with(act).ok()
    }

    /// Runs a future so that everything it logs goes into this exchange.
    pub fn with_log<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), future)
    }
}

tokio::task_local! {
    /// The exchange that a task serves. An app logs without saying for which exchange, so the task has to know.
    static CURRENT: ExchangeRecorder;
}

/// The log: a tracing layer that writes each record into the exchange that is being polled.
#[derive(Debug)]
struct LogLedger;

/// Sends this thread's log records into the transcripts, until the guard is dropped.
pub fn capture_logs() -> tracing::subscriber::DefaultGuard {
    tracing::subscriber::set_default(tracing_subscriber::registry().with(LogLedger))
}

impl<S: tracing::Subscriber> Layer<S> for LogLedger {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG | tracing::Level::TRACE => return,
        };
        ExchangeRecorder::with_current(|recorder| {
            let mut message = CapturedMessage(String::new());
            event.record(&mut message);
            recorder.record(Actor::Application, EventKind::Logged { level, message: message.0, unhandled: None });
        });
    }
}

struct CapturedMessage(String);

impl Visit for CapturedMessage {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}
