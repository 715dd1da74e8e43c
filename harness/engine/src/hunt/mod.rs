//! Searches for failures without a report: draws scripts and plans, runs them, judges, shrinks each that fails, and
//! keeps it as a reproducer, which is a case like any other.

mod alike;
mod complaint;
mod determinism;
mod external;
mod first_runs;
mod generate;
mod ground;
mod promised;
mod repeats;
mod reproducer;
mod routes;
mod shrink;
mod standard;
mod steering;
mod stories;
mod values;
mod versions;

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt::Write as _;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use complaint::complaints_of;
use complaint::{Complaint, complains, complaints, is_in_another_dress, look, with_company};
pub use determinism::{UnstableCase, run_twice};
use external::Owned;
pub use external::{ExternalTarget, Greeting, Launch};
use first_runs::FirstRuns;
use generate::AbstractCase;
pub use generate::{GeneratedCase, GeneratorConfig};
pub use ground::{BuiltIn, Ground, Runner};
use serde::{Deserialize, Serialize};
use shrink::shrink;
use standard::StandardWords;
pub use steering::{FIRST_GENERATION, ReachedCode};
use steering::{SeenSets, Steering, generations, join_first, vary};
pub use versions::{Change, ChangeKind};

use crate::{
    case::Case,
    deadline::{Deadline, now},
    targets::connections::panic_text,
};
use relapse_core::{
    asgi::event::Inbound,
    choices::Choices,
    error::{AppError, Blame, Error},
    fault::Place,
    judge::{
        check::RunView,
        classify::Exchange,
        harm::Harm,
        outcome::{Class, Outcome},
        verdict::FindingKey,
    },
    record::{
        code::Block,
        transcript::{EventKind, Transcript},
    },
};
use relapse_simulate::{
    memory::{LargeSlot, WorkerMemory},
    profile::Profile,
    recorder::capture_logs,
};

/// The requests that fit no route, where the code that they reached is told.
const OTHER_REQUESTS: &str = "other requests";

/// How many cases a worker takes at a time.
const CHUNK: u64 = 64;

/// From how many cases on a hunt must have reached something.
const ENOUGH: u64 = 20;

/// How many cases with a finding are tried alone where one shows it only after others.
const TRIED_ALONE: usize = 32;

/// How long a run in virtual time may really take before its app is taken for slow: then it is not run again to make it
/// smaller, because each try would take as long.
const SLOW_RUN: Duration = Duration::from_secs(2);

/// How long the one run may take that confirms a finding of a slow app.
const SLOW_CONFIRMATION_LIMIT: Duration = Duration::from_secs(12);

/// How many findings keep their first run and are reported when found. The limit is needed because the app decides how many
/// there are.
const FIRST_RUNS_MAX: usize = 100;

/// How many findings a hunt keeps at all: those of its first cases.
pub const FINDINGS_MAX: usize = 500;

/// How many workers there are at most, each with a target of its own: the command takes no more memory than it may.
pub const WORKERS_MAX: usize = 32;

/// The same in real time, where a run cannot pause for memory.
pub const WORKERS_IN_REAL_TIME_MAX: usize = 4;

/// How often the harness itself may fail before the hunt ends.
const INTERNAL_ERRORS_MAX: usize = 10;

/// The part of its time in which a hunt that has found something goes on looking; the rest is for making that smaller.
const LOOKING_PART: (u32, u32) = (3, 4);

/// The smallest thing that shows a finding.
struct Smallest {
    drawn: GeneratedCase,
    played: Played,
    /// The case that it is of, counted from 0.
    number: u64,
    /// Whether it is shown again.
    reproduction: Reproduction,
}

/// Whether a hunt can show a finding again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reproduction {
    /// Its smallest case shows it again, in a process that has served no other client where there can be one.
    Shown,
    /// It was shown again, and only in a process that had served other cases before.
    AfterOthers,
    /// It was shown again in a process that had served other cases, and no other process started.
    Unconfirmed,
    /// It was seen, and the time was over before it was tried again, or before it was confirmed.
    Untried,
    /// It was seen once and not again.
    SeenOnce,
}

/// Something that a hunt found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its identity.
    pub key: FindingKey,
    /// The finding, with its evidence.
    pub message: String,
    /// The other findings of the same smallest case: key and message.
    pub also: Vec<(FindingKey, String)>,
    /// The seed that drew it.
    pub seed: u64,
    /// Which case of the hunt it was, counted from 1.
    pub number: u64,
    /// The smallest thing that still shows it.
    pub drawn: GeneratedCase,
    /// The events of its run.
    pub transcript: Transcript,
    /// The case that shows it again.
    pub capsule: Case,
    /// Whether it does.
    pub reproduction: Reproduction,
}

impl Found {
    /// The worst harm of what its smallest case shows.
    pub fn harm(&self) -> Harm {
        self.also.iter().map(|(key, _)| key.harm).fold(self.key.harm, Harm::min)
    }

    /// Whether its smallest case has this finding.
    fn has(&self, key: &FindingKey) -> bool {
        self.key.may_be(key) || self.also.iter().any(|(also, _)| also.may_be(key))
    }
}

/// The coverage of a hunt. One that reached nothing proves nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// How many cases were drawn and judged.
    pub cases: u64,
    /// How many upgrades were accepted.
    pub sessions: u64,
    /// How often each class was reached.
    pub classes: BTreeMap<Class, u64>,
    /// How often each kind of fault acted.
    pub faults: BTreeMap<String, u64>,
    /// How many exchanges came to each [`STATES`] of their life.
    pub states: BTreeMap<String, u64>,
    /// The number of clients that each route of an application accepted; 0 for one that was visited and never accepted
    /// any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, u64>,
    /// How the routes that had not accepted any client by then ended their exchanges: the ending as reports write it, and
    /// how often.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals: BTreeMap<String, BTreeMap<String, u64>>,
    /// How many exchanges ended in each way: the ending as reports write it, and what brought it about.
    pub endings: BTreeMap<String, u64>,
    /// The app's own code, and what of it the calls of each route reached, where that is counted.
    #[serde(default, skip_serializing_if = "ReachedCode::is_nothing")]
    pub code: ReachedCode,
}

/// The results of a hunt.
#[derive(Debug, Default)]
pub struct Campaign {
    /// Its coverage.
    pub reached: Coverage,
    /// The findings, each once.
    pub found: Vec<Found>,
    /// The part that it could not do.
    pub unfinished: Unfinished,
    /// Whether there were more findings than [`FINDINGS_MAX`].
    pub has_more: bool,
}

/// The part of a hunt that could not be done, because the app did not start for every worker, or the harness failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unfinished {
    /// Why the app did not start, each reason once.
    pub reasons: BTreeSet<String>,
    /// How many times it did not start.
    pub starts: u64,
    /// How many cases no other worker could do.
    pub cases: u64,
    /// Why the harness itself failed, by the seed of the case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub internal_errors: BTreeMap<u64, String>,
}

impl Unfinished {
    /// Whether the hunt did everything.
    pub fn is_nothing(&self) -> bool {
        *self == Unfinished::default()
    }

    fn note(&mut self, trouble: &AppError) {
        self.reasons.insert(trouble.message.clone());
        self.starts += 1;
    }

    /// Adds what another part of the hunt could not do.
    pub fn add(&mut self, other: Unfinished) {
        self.reasons.extend(other.reasons);
        self.starts += other.starts;
        self.cases += other.cases;
        self.internal_errors.extend(other.internal_errors);
    }

    /// Lines for people; empty where the hunt did everything.
    pub fn line(&self) -> String {
        let errors = self.internal_errors.iter();
        let errors = errors.map(|(seed, why)| {
            format!("unfinished internal error with seed {seed}: the harness panicked: {why}; please report it\n")
        });
        errors.chain(self.line_of_starts()).collect()
    }

    /// A line about the starts that failed.
    fn line_of_starts(&self) -> Option<String> {
        if self.starts == 0 && self.cases == 0 {
            return None;
        }
        let reasons: Vec<&str> = self.reasons.iter().map(String::as_str).collect();
        let left_out = match self.cases {
            0 => "no case is left out because of that".to_owned(),
            cases => format!("{cases} case(s) are left out"),
        };
        let (starts, reasons) = (self.starts, reasons.join("; "));
        Some(format!("unfinished the app did not start {starts} time(s): {reasons}; {left_out}\n"))
    }
}

/// Does something with the case of this seed.
///
/// # Errors
/// Also [`Error::HarnessPanicked`], when that panics. Whatever `act` changed may then be inconsistent.
fn guarded<T>(seed: u64, act: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(act))
        .unwrap_or_else(|panic| Err(Error::HarnessPanicked { seed, text: panic_text(panic) }))
}

/// The reason, if an error says that the app does not start; it ends one worker, and not the hunt.
fn not_started(error: Error) -> Result<AppError, Error> {
    match error {
        Error::Python(trouble) if trouble.blame == Blame::App => Ok(*trouble),
        other => Err(other),
    }
}

/// The cases that no worker has taken yet.
struct Queue {
    next: AtomicU64,
    /// Those that a worker took and did not finish.
    returned: Mutex<Vec<Range<u64>>>,
    end: u64,
}

impl Queue {
    fn of(generation: Range<u64>) -> Queue {
        Queue { next: AtomicU64::new(generation.start), returned: Mutex::default(), end: generation.end }
    }

    fn take(&self) -> Option<Range<u64>> {
        if let Some(cases) = self.returned.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Some(cases);
        }
        let start = self.next.fetch_add(CHUNK, Ordering::Relaxed);
        (start < self.end).then(|| start..start.saturating_add(CHUNK).min(self.end))
    }

    fn give_back(&self, cases: Range<u64>) {
        if !cases.is_empty() {
            self.returned.lock().unwrap_or_else(PoisonError::into_inner).push(cases);
        }
    }

    /// How many are left.
    fn left(&self) -> u64 {
        let returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        let returned: u64 = returned.iter().map(|cases| cases.end - cases.start).sum();
        returned + self.end.saturating_sub(self.next.load(Ordering::Relaxed))
    }
}

/// A hunt: on which revision, behind which servers, with which seeds.
#[derive(Debug, Clone)]
pub struct Hunt {
    /// The service that is hunted on.
    pub ground: Ground,
    /// The servers.
    pub servers: Vec<Arc<Profile>>,
    /// The first seed; each further case has the next one.
    pub seed: u64,
    /// How many cases.
    pub cases: u64,
    /// Whether the first finding ends it.
    pub stops_at_first: bool,
    /// The places that faults may act at.
    pub places: Vec<Place>,
    /// Whether servers keep to the ASGI specification.
    pub legal_only: bool,
    /// When it ends at the latest, with everything that belongs to it.
    pub deadline: Deadline,
    /// The room for the large run of its workers. Hunts that go on at the same time share one.
    pub large: LargeSlot,
}

impl Hunt {
    /// A hunt for anything, from seed 1 on.
    pub fn on(ground: Ground, servers: Vec<Arc<Profile>>, cases: u64) -> Hunt {
        let places = match &ground {
            Ground::BuiltIn(..) => Place::ALL.to_vec(),
            Ground::External(foreign) => foreign.places().to_vec(),
        };
        Hunt {
            ground,
            servers,
            seed: 1,
            cases,
            stops_at_first: false,
            places,
            legal_only: false,
            deadline: Deadline::NEVER,
            large: LargeSlot::default(),
        }
    }

    /// The part of it that machine `number` (counted from 1) of `of` machines hunts. The parts have no seed in common.
    pub fn shard(self, number: u64, of: u64) -> Hunt {
        let (start, end) = (self.cases * (number - 1) / of, self.cases * number / of);
        Hunt { seed: self.seed.wrapping_add(start), cases: end - start, ..self }
    }

    /// The limits of what may be drawn.
    fn aim(&self) -> GeneratorConfig {
        GeneratorConfig {
            places: self.places.clone(),
            legal_only: self.legal_only,
            ..GeneratorConfig::everything(self.server_names(), self.ground.fault_names())
        }
    }

    /// The names of the servers, in their order.
    fn server_names(&self) -> Vec<String> {
        self.servers.iter().map(|profile| profile.name.clone()).collect()
    }

    /// The profile of the server that a case is drawn for.
    fn profile(&self, drawn: &GeneratedCase) -> &Arc<Profile> {
        self.servers.iter().find(|profile| profile.name == drawn.server).expect("a server of this hunt is drawn")
    }

    /// The seed of the case with this number, counted from 0.
    fn seed_of(&self, number: u64) -> u64 {
        self.seed.wrapping_add(number)
    }

    /// The case with this number, counted from 0, by what was known when it was drawn.
    fn draw(&self, number: u64, steering: &Steering) -> (GeneratedCase, u64) {
        let (seed, aim) = (self.seed_of(number), self.aim());
        let foreign = match &self.ground {
            Ground::BuiltIn(..) => return (draw(seed, &aim), seed),
            Ground::External(foreign) => foreign,
        };
        let Some(learnt) = steering.before(number) else { return (foreign.draw(seed, &aim), seed) };
        let new = foreign.draw_favoring(seed, &aim, &learnt.favored);
        let choices = Choices::of(seed).fork("steering");
        match learnt.parent(choices) {
            Some(parent) => (vary(choices, self.draw(parent, steering).0, new, foreign), seed),
            None => (new, seed),
        }
    }

    /// The cases in the parts in which they are drawn. Only an app's own code steers what is drawn next.
    fn generations(&self) -> Vec<Range<u64>> {
        match &self.ground {
            Ground::BuiltIn(..) => std::iter::once(0..self.cases).collect(),
            Ground::External(_) => generations(self.cases).collect(),
        }
    }
}

/// Draws a case in the words of the built-in service. The same seed and limits give the same.
pub fn draw(seed: u64, config: &GeneratorConfig) -> GeneratedCase {
    AbstractCase::draw(seed, &config.places).translate(&StandardWords, config)
}

/// Is told how a hunt goes on.
pub trait HuntWatch: Sync {
    /// Some cases are done: their coverage, and their findings.
    fn reached(&self, _: &Coverage, _: &BTreeSet<FindingKey>) {}

    /// Something is found for the first time, in a case that is not made smaller yet.
    fn found(&self, _: &Found) {}

    /// A case of something that was found is as small as it gets.
    fn shrunk(&self, _: &Found) {}
}

impl HuntWatch for () {}

/// The observer of a hunt, and the findings that it has received.
struct ToldFindings<'h> {
    watch: &'h dyn HuntWatch,
    found: Mutex<BTreeSet<FindingKey>>,
}

impl ToldFindings<'_> {
    fn found(&self) -> std::sync::MutexGuard<'_, BTreeSet<FindingKey>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of looking for more: a part of the time is for what is found.
    fn looking_deadline(&self, whole: Deadline) -> Deadline {
        let (numerator, denominator) = LOOKING_PART;
        if self.found().is_empty() { whole } else { whole.part(numerator, denominator) }
    }

    /// The first of these findings that is new, where it is to be told.
    fn first_new<'l>(&self, looked: &'l [Complaint]) -> Option<&'l FindingKey> {
        let mut found = self.found();
        let new =
            looked.iter().map(|complaint| &complaint.key).find(|key| !found.iter().any(|known| known.may_be(key)));
        let has_room = found.len() < FIRST_RUNS_MAX;
        if has_room {
            found.extend(looked.iter().map(|complaint| complaint.key.clone()));
        }
        new.filter(|_| has_room)
    }
}

/// Hunts with many workers at a time, each with a clock of its own. Unless the hunt is stopped, or an external target
/// remembers whom it has served, the result does not depend on the number of workers.
/// An app that does not start for one worker ends that worker; the others do its cases.
///
/// # Errors
/// When the harness could not do its work, or the app started for no worker.
pub fn hunt_all(hunt: &Hunt, jobs: usize, watch: &dyn HuntWatch) -> Result<Campaign, Error> {
    let (steering, runs, state) = (Steering::default(), Arc::default(), WorkState::default());
    let told = ToldFindings { watch, found: Mutex::default() };
    let team = Team { hunt, steering: &steering, runs: &runs, state: &state, told: &told };
    let mut jobs = match hunt.ground.external() {
        Some(foreign) if !foreign.is_for_many() => 1,
        foreign => {
            let most =
                if foreign.is_some_and(|foreign| foreign.is_real()) { WORKERS_IN_REAL_TIME_MAX } else { WORKERS_MAX };
            u64::try_from(jobs.min(most)).unwrap_or(1).clamp(1, hunt.cases.div_ceil(CHUNK).max(1))
        }
    };
    let (mut whole, mut unfinished) = (Scan::default(), Unfinished::default());
    for generation in hunt.generations() {
        let end = generation.end;
        let (scan, part) = team.scan(generation, jobs)?;
        whole.add(scan);
        jobs = jobs.saturating_sub(part.starts);
        unfinished.add(part);
        if jobs == 0 {
            unfinished.cases += hunt.cases - end;
        }
        if jobs == 0 || state.is_over() || told.looking_deadline(hunt.deadline).is_over() {
            break;
        }
        team.learn(end, &mut whole);
    }
    unfinished.internal_errors = state.take_errors();
    if let Some(foreign) = hunt.ground.external() {
        whole.reached.code.add_blocks(foreign.blocks());
    }
    let worker = match Worker::new(hunt, Some(team)) {
        Ok(worker) => worker,
        Err(error) => Worker::on(hunt, Some(team), On::NotStarted(not_started(error)?), WorkerMemory::default()),
    };
    let mut campaign = worker.conclude(whole)?;
    campaign.unfinished.add(unfinished);
    Ok(campaign)
}

/// The workers of a hunt, and what they share.
#[derive(Clone, Copy)]
struct Team<'h> {
    hunt: &'h Hunt,
    steering: &'h Steering,
    runs: &'h Arc<FirstRuns>,
    state: &'h WorkState,
    told: &'h ToldFindings<'h>,
}

/// The state of a hunt's work, for all workers.
#[derive(Default)]
struct WorkState {
    /// Whether nothing more is to be looked for.
    is_over: AtomicBool,
    /// Why the harness itself failed, by the seed of the case.
    internal_errors: Mutex<BTreeMap<u64, String>>,
}

impl WorkState {
    /// The harness failed in a case.
    fn note(&self, seed: u64, why: String) {
        let mut errors = self.internal_errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.insert(seed, why);
        if errors.len() >= INTERNAL_ERRORS_MAX {
            self.end();
        }
    }

    fn take_errors(&self) -> BTreeMap<u64, String> {
        std::mem::take(&mut self.internal_errors.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

impl Team<'_> {
    /// Does one generation of cases with this number of workers: what it reached, and what it could not do.
    fn scan(self, generation: Range<u64>, jobs: u64) -> Result<(Scan, Unfinished), Error> {
        let hunt = self.hunt;
        let is_first = generation.start == 0;
        let queue = Queue::of(generation);
        let parts: Vec<Result<Part, Error>> = std::thread::scope(|scope| {
            // This thread works too: what it has reached already need not be reached once more.
            let workers: Vec<_> = (1..jobs).map(|_| scope.spawn(|| self.work(&queue))).collect();
            let own = self.work(&queue);
            let others = workers.into_iter().map(|worker| {
                // A panic outside of a case belongs to no seed.
                worker.join().unwrap_or_else(|panic| resume_unwind(panic))
            });
            std::iter::once(own).chain(others.collect::<Vec<_>>()).collect()
        });
        let (mut whole, mut unfinished, mut failed_at) = (Scan::default(), Unfinished::default(), 0);
        for (scan, trouble) in parts.into_iter().collect::<Result<Vec<_>, _>>()? {
            failed_at += u64::from(trouble.is_some() && scan.is_some());
            scan.into_iter().for_each(|scan| whole.add(scan));
            trouble.iter().for_each(|trouble| unfinished.note(trouble));
            let is_all = unfinished.starts == jobs && is_first && whole.reached.cases == 0;
            if let Some(trouble) = trouble.filter(|_| is_all) {
                return Err(trouble.into());
            }
        }
        if unfinished.starts > 0 {
            // The cases that are left when a hunt ends early are not left out because of the app.
            let ends_early = self.state.is_over() || self.told.looking_deadline(hunt.deadline).is_over();
            unfinished.cases = failed_at + if ends_early { 0 } else { queue.left() };
        }
        Ok((whole, unfinished))
    }

    /// Learns from the generations that ended before the case with this number.
    fn learn(self, end: u64, whole: &mut Scan) {
        let Some(foreign) = self.hunt.ground.external() else { return };
        whole.reached.code.add_blocks(foreign.blocks());
        self.steering.learn(end, &whole.first_reached, &whole.reached.code, &foreign.route_names());
    }

    /// Takes cases until there are none left, the hunt is over, or the app does not start any more.
    fn work(self, queue: &Queue) -> Result<Part, Error> {
        let Team { hunt, state, told, .. } = self;
        let mut worker = match Worker::new(hunt, Some(self)) {
            Ok(worker) => worker,
            Err(error) => return Ok((None, Some(not_started(error)?))),
        };
        let (mut whole, mut is_done): (Option<Scan>, bool) = (None, false);
        while !is_done && !state.is_over() && worker.may_look_on() {
            let Some(cases) = queue.take() else { break };
            let mut scan = Scan::default();
            let trouble = match worker.scan_into(cases.clone(), &mut scan) {
                Ok(()) => {
                    let done = scan.reached.cases;
                    is_done = done < cases.end - cases.start;
                    queue.give_back(cases.start + done..cases.end);
                    None
                }
                Err(error) => {
                    // Another worker need not fail at the case that this one failed at, which is left out all the same.
                    queue.give_back(cases.start + scan.reached.cases + 1..cases.end);
                    self.trouble(&mut worker, error)?
                }
            };
            told.watch.reached(&scan.reached, &scan.first.keys().cloned().collect());
            if hunt.stops_at_first && !scan.first.is_empty() {
                state.end();
            }
            whole.get_or_insert_default().add(scan);
            if let Some(trouble) = trouble {
                return Ok((whole, Some(trouble)));
            }
        }
        Ok((whole, None))
    }

    /// The reason why a worker ends after an error, if it does: where the harness failed, it goes on with another target.
    fn trouble(self, worker: &mut Worker<'_>, error: Error) -> Result<Option<AppError>, Error> {
        match error {
            Error::HarnessPanicked { seed, text } => {
                self.state.note(seed, text);
                worker.recover()
            }
            error => {
                let trouble = not_started(error)?;
                worker.abandon(trouble.clone());
                Ok(Some(trouble))
            }
        }
    }
}

/// The work of one worker: what it reached, and why it ended early if it did.
type Part = (Option<Scan>, Option<AppError>);

/// The coverage of the cases that were drawn and run, and the first case for each finding.
#[derive(Debug, Default)]
struct Scan {
    reached: Coverage,
    /// For each finding the first case that has it.
    first: BTreeMap<FindingKey, First>,
    /// For each block of the app's own code the first case that reached it.
    first_reached: BTreeMap<Block, u64>,
    /// Whether findings are left out, because there are too many.
    has_more: bool,
}

/// The first case that has a finding. Its events are among the [`FirstRuns`].
#[derive(Debug)]
struct First {
    number: u64,
    /// The cases that have it, as far as they would be tried alone.
    all: Alone,
    /// The finding's words there.
    message: String,
    /// How long the run really took.
    took: Duration,
}

/// Cases with one finding, of which one may show it alone: those with the most connections first, which depend least on what
/// others have left behind.
#[derive(Debug, Default)]
struct Alone(BTreeSet<(Reverse<usize>, u64)>);

impl Alone {
    fn add(&mut self, drawn: &GeneratedCase, number: u64) {
        let openings = drawn.visits.iter().flatten().filter(|step| step.opening().is_some()).count();
        self.0.insert((Reverse(openings), number));
        self.limit();
    }

    fn join(&mut self, other: Alone) {
        self.0.extend(other.0);
        self.limit();
    }

    fn limit(&mut self) {
        while self.0.len() > TRIED_ALONE {
            self.0.pop_last();
        }
    }

    fn numbers(&self) -> Vec<u64> {
        self.0.iter().map(|(_, number)| *number).collect()
    }
}

impl Scan {
    fn add(&mut self, other: Scan) {
        self.reached.add(&other.reached);
        join_first(&mut self.first_reached, other.first_reached);
        for (key, mut first) in other.first {
            match self.first.entry(key) {
                Entry::Vacant(entry) => drop(entry.insert(first)),
                Entry::Occupied(mut entry) => {
                    let old = entry.get_mut();
                    if first.number < old.number {
                        std::mem::swap(old, &mut first);
                    }
                    old.all.join(first.all);
                }
            }
        }
        self.has_more |= other.has_more;
        self.limit();
    }

    /// Keeps the findings of the first cases. So it does not depend on who found them.
    fn limit(&mut self) {
        if self.first.len() <= FINDINGS_MAX {
            return;
        }
        let mut order: Vec<(u64, FindingKey)> =
            self.first.iter().map(|(key, first)| (first.number, key.clone())).collect();
        order.sort();
        order.drain(..FINDINGS_MAX);
        order.iter().for_each(|(_, key)| drop(self.first.remove(key)));
        self.has_more = true;
    }
}

impl Coverage {
    /// Adds what another part of the hunt reached.
    pub fn add(&mut self, other: &Coverage) {
        fn join<K: Ord + Clone>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
            for (key, count) in from {
                *into.entry(key.clone()).or_default() += count;
            }
        }
        self.cases += other.cases;
        self.sessions += other.sessions;
        join(&mut self.classes, &other.classes);
        join(&mut self.faults, &other.faults);
        join(&mut self.states, &other.states);
        join(&mut self.routes, &other.routes);
        other.refusals.iter().for_each(|(route, from)| join(self.refusals.entry(route.clone()).or_default(), from));
        join(&mut self.endings, &other.endings);
        self.code.add(&other.code);
    }

    /// Whether nothing was reached although there were cases enough: no upgrade and no route.
    pub fn is_nothing(&self) -> bool {
        self.has_enough_cases() && self.sessions == 0 && self.routes.values().all(|&count| count == 0)
    }

    /// Whether no fault acted although there were cases enough.
    pub fn is_without_faults(&self) -> bool {
        self.has_enough_cases() && self.faults.values().all(|&count| count == 0)
    }

    fn has_enough_cases(&self) -> bool {
        self.cases == 0 || self.cases >= ENOUGH
    }

    fn count(&mut self, drawn: &GeneratedCase, transcript: &Transcript, evidence: &RunView<'_>) {
        for reading in &evidence.readings {
            let reached = STATES.iter().zip(states(reading)).filter(|(_, is_reached)| *is_reached);
            reached.for_each(|(state, _)| count(&mut self.states, state, 1));
        }
        let outcomes = &evidence.outcomes;
        self.sessions += transcript.sessions() as u64;
        let mut ended = String::new();
        for Outcome { class, cause, ending, .. } in outcomes {
            *self.classes.entry(*class).or_default() += 1;
            ended.clear();
            let _ = write!(ended, "{ending}; {cause}");
            count(&mut self.endings, &ended, 1);
        }
        for (fault, fired) in drawn.faults.iter().zip(&transcript.fired).filter(|(_, fired)| **fired > 0) {
            count(&mut self.faults, fault.kind.name(), u64::from(*fired));
        }
    }
}

/// Counts something under its name, which is almost always known already.
fn count(counts: &mut BTreeMap<String, u64>, name: &str, more: u64) {
    match counts.get_mut(name) {
        Some(count) => *count += more,
        None => drop(counts.insert(name.to_owned(), more)),
    }
}

/// The states of an exchange's life that a hunt is to come to.
pub const STATES: [&str; 9] = [
    "no listener",
    "called",
    "accepted",
    "welcomed",
    "agent answered",
    "told of the end",
    "call raised",
    "cancelled",
    "cut short by a stop",
];

/// Which of them an exchange came to.
fn states(reading: &Exchange<'_>) -> [bool; STATES.len()] {
    let mut reached = [false; STATES.len()];
    for event in &reading.events {
        let state = match &event.what {
            EventKind::ConnectionRefused => 0,
            EventKind::Called { .. } => 1,
            EventKind::ResponseSeen(head) if head.status == 101 => 2,
            EventKind::Received(Inbound::WebsocketDisconnect { .. } | Inbound::HttpDisconnect) => 5,
            EventKind::CallRaised(_) => 6,
            EventKind::Raised(exception) if exception.is_cancellation() => 7,
            EventKind::CutShort => 8,
            _ => continue,
        };
        reached[state] = true;
    }
    reached[3] = reading.welcome.is_some();
    reached[4] = reading.messages.iter().any(|name| Some(name.as_str()) == reading.service.words.events.last());
    reached
}

impl Hunt {
    /// Hunts on this thread alone.
    ///
    /// # Errors
    /// When the harness could not do its work.
    pub fn run(&self) -> Result<Campaign, Error> {
        let worker = Worker::new(self, None)?;
        let scan = worker.scan(0..self.cases)?;
        worker.conclude(scan)
    }

    /// The findings of the first case that has any, as it was drawn: its seed, and the keys of the findings.
    ///
    /// # Errors
    /// When the harness could not do its work.
    pub fn first_complaints(&self) -> Result<Option<(u64, Vec<FindingKey>)>, Error> {
        let hunt = Hunt { stops_at_first: true, ..self.clone() };
        let first = Worker::new(&hunt, None)?.scan(0..hunt.cases)?.first;
        let number = first.values().map(|first| first.number).next();
        Ok(number.map(|number| (hunt.seed_of(number), first.into_keys().collect())))
    }

    /// The first finding, as small as it gets; `None` if the hunt's cases show none.
    ///
    /// # Errors
    /// When the harness could not do its work.
    pub fn first(&self) -> Result<Option<Found>, Error> {
        let hunt = Hunt { stops_at_first: true, ..self.clone() };
        Ok(hunt.run()?.found.into_iter().next())
    }
}

/// The fate of the findings of a hunt.
#[derive(Default)]
struct Concluded {
    /// The findings that were tried again, as small as they get.
    found: Vec<Found>,
    /// Everything that is one of them.
    known: BTreeSet<FindingKey>,
    /// The cases that were tried again, counted from 0.
    looked: BTreeSet<u64>,
    /// Why the findings that are left were not tried again, if the deadline is the reason.
    untried: Option<&'static str>,
    unfinished: Unfinished,
}

/// One worker of a hunt. It owns the target that it hunts on.
struct Worker<'h> {
    hunt: &'h Hunt,
    /// The workers that it belongs to; `None` for one that works alone.
    team: Option<Team<'h>>,
    /// The sets of blocks that it has seen, of the app's own code.
    seen_sets: RefCell<SeenSets>,
    on: On<'h>,
    /// The end of what it does at the moment.
    deadline: Cell<Deadline>,
    /// How long its longest run really took.
    longest: Cell<Duration>,
    /// The first runs of all findings, of all workers.
    runs: Arc<FirstRuns>,
    /// The memory of its runs. It is shared in virtual time only: in real time a run cannot pause for memory.
    memory: WorkerMemory,
    _logs: tracing::subscriber::DefaultGuard,
}

/// The target that a worker hunts on.
enum On<'h> {
    /// A built-in service.
    BuiltIn(Box<dyn Runner>),
    /// One of the user's own, where it came from.
    Own(&'h ExternalTarget, Option<Owned>),
    /// One of the user's own that does not start any more.
    NotStarted(AppError),
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        if let On::Own(foreign, owned) = &mut self.on
            && let Some(owned) = owned.take()
        {
            foreign.give_back(owned);
        }
    }
}

impl<'h> Worker<'h> {
    fn new(hunt: &'h Hunt, team: Option<Team<'h>>) -> Result<Worker<'h>, Error> {
        match &hunt.ground {
            Ground::External(foreign) => {
                let owned = foreign.take()?;
                let is_real = foreign.is_real();
                let memory = if is_real { WorkerMemory::default() } else { hunt.large.worker() };
                Ok(Worker::on(hunt, team, On::Own(foreign, Some(owned)), memory))
            }
            Ground::BuiltIn(service, _) => {
                let memory = hunt.large.worker();
                let runner = service.runner(memory.of_runs());
                Ok(Worker::on(hunt, team, On::BuiltIn(runner), memory))
            }
        }
    }

    fn on(hunt: &'h Hunt, team: Option<Team<'h>>, on: On<'h>, memory: WorkerMemory) -> Worker<'h> {
        let (deadline, longest, seen_sets) = (Cell::new(hunt.deadline), Cell::default(), RefCell::default());
        let runs = team.map(|team| Arc::clone(team.runs)).unwrap_or_default();
        Worker { hunt, team, seen_sets, on, deadline, longest, runs, memory, _logs: capture_logs() }
    }

    /// The observer of the hunt.
    fn told(&self) -> Option<&'h ToldFindings<'h>> {
        self.team.map(|team| team.told)
    }

    /// The case with this number, counted from 0.
    fn draw(&self, number: u64) -> (GeneratedCase, u64) {
        match self.team {
            Some(team) => self.hunt.draw(number, team.steering),
            None => self.hunt.draw(number, &Steering::default()),
        }
    }

    /// Counts the app's own code that a case reached.
    fn count_code(&self, number: u64, transcript: &Transcript, evidence: &RunView<'_>, scan: &mut Scan) {
        let Some(foreign) = self.hunt.ground.external() else { return };
        let mut seen = self.seen_sets.borrow_mut();
        for (exchange, set) in &transcript.reached {
            let route = evidence.readings.get(*exchange).and_then(|reading| foreign.route_of_exchange(reading));
            let route = route.map_or_else(|| OTHER_REQUESTS.to_owned(), ToString::to_string);
            seen.add(&route, set, number, &mut scan.reached.code, &mut scan.first_reached);
        }
    }

    /// Goes on after a panic, with another target where there can be one; why not, if the app does not start again.
    fn recover(&mut self) -> Result<Option<AppError>, Error> {
        self.deadline.set(self.hunt.deadline);
        match (&mut self.on, &self.hunt.ground) {
            (On::BuiltIn(runner), Ground::BuiltIn(service, _)) => *runner = service.runner(self.memory.of_runs()),
            (On::Own(foreign, owned), _) if foreign.is_for_many() => {
                drop(owned.take());
                match foreign.take() {
                    Ok(another) => *owned = Some(another),
                    Err(error) => {
                        let trouble = not_started(error)?;
                        self.abandon(trouble.clone());
                        return Ok(Some(trouble));
                    }
                }
            }
            (On::BuiltIn(_) | On::Own(..) | On::NotStarted(_), _) => {}
        }
        Ok(None)
    }

    /// Whether there is time to look for more.
    fn may_look_on(&self) -> bool {
        !self.looking_deadline().is_over()
    }

    /// The end of looking for more.
    fn looking_deadline(&self) -> Deadline {
        let deadline = self.hunt.deadline;
        self.told().map_or(deadline, |told| told.looking_deadline(deadline))
    }

    /// The target of the user's own that it hunts on.
    fn owned(&self) -> Option<&Owned> {
        match &self.on {
            On::Own(_, owned) => owned.as_ref(),
            On::BuiltIn(_) | On::NotStarted(_) => None,
        }
    }

    /// Ends the target, which does not start any more, so that no other worker takes it.
    fn abandon(&mut self, trouble: AppError) {
        self.on = On::NotStarted(trouble);
    }

    fn scan(&self, cases: Range<u64>) -> Result<Scan, Error> {
        let mut scan = Scan::default();
        self.scan_into(cases, &mut scan)?;
        Ok(scan)
    }

    /// Keeps what was seen until an error too.
    fn scan_into(&self, cases: Range<u64>, scan: &mut Scan) -> Result<(), Error> {
        let hunt = self.hunt;
        for number in cases {
            if self.owned().is_some_and(|owned| !owned.may_go_on()) || !self.may_look_on() {
                break;
            }
            let scanned = guarded(hunt.seed_of(number), || self.scan_one(number, scan));
            self.memory.give_back();
            match scanned {
                Err(Error::TooManyRequests | Error::TimeIsOver) => break,
                scanned => scanned?,
            }
            if hunt.stops_at_first && !scan.first.is_empty() {
                break;
            }
        }
        scan.limit();
        Ok(())
    }

    /// Runs the case with this number, counted from 0, and keeps what was seen.
    fn scan_one(&self, number: u64, scan: &mut Scan) -> Result<(), Error> {
        let hunt = self.hunt;
        let ((drawn, seed), began) = (self.draw(number), now());
        self.memory.begin(self.looking_deadline().end());
        let played = self.play_now(&drawn, seed)?;
        let took = began.elapsed().saturating_sub(self.memory.waited());
        let looked = look(&hunt.ground, &played, &mut |evidence, transcript| {
            scan.reached.count(&drawn, transcript, evidence);
            self.count_code(number, transcript, evidence, scan);
            hunt.ground.external().into_iter().for_each(|foreign| foreign.count(&mut scan.reached, evidence));
        });
        self.tell(&drawn, &looked, &played, number)?;
        if let Ok(transcript) = played {
            let keys = looked.iter().map(|complaint| &complaint.key);
            self.runs.keep(keys, number, transcript, took >= SLOW_RUN);
        }
        for Complaint { key, message, .. } in looked {
            let first = scan.first.entry(key);
            let first = first.or_insert_with(|| First { number, all: Alone::default(), message, took });
            first.all.add(&drawn, number);
        }
        scan.reached.cases += 1;
        Ok(())
    }

    /// Tells the watch what a case shows for the first time.
    fn tell(&self, drawn: &GeneratedCase, looked: &[Complaint], played: &Played, number: u64) -> Result<(), Error> {
        let Some(told) = self.told().filter(|_| !looked.is_empty()) else { return Ok(()) };
        let Some(new) = told.first_new(looked) else { return Ok(()) };
        let (Some(Complaint { key, message, .. }), also) = with_company(looked.to_vec(), new) else { return Ok(()) };
        let seed = self.hunt.seed_of(number);
        let capsule = self.capsule(&key, &message, drawn, played.as_ref().ok(), seed)?;
        let transcript = played.as_ref().cloned().unwrap_or_default();
        let (drawn, number, reproduction) = (drawn.clone(), number + 1, Reproduction::Untried);
        told.watch.found(&Found { key, message, also, seed, number, drawn, transcript, capsule, reproduction });
        Ok(())
    }

    /// Shrinks the first findings, in the order of the cases. What else is found in the smallest case is the
    /// same finding, seen by another check.
    fn conclude(mut self, scan: Scan) -> Result<Campaign, Error> {
        let hunt = self.hunt;
        let Scan { reached, first, has_more, .. } = scan;
        let mut concluded = Concluded::default();
        // The rest of the time is for what is found.
        self.longest.take();
        for number in first.values().map(|first| first.number).collect::<BTreeSet<u64>>() {
            if hunt.stops_at_first && !concluded.found.is_empty() {
                break;
            }
            let concluding = guarded(hunt.seed_of(number), || self.conclude_one(number, &first, &mut concluded));
            self.memory.give_back();
            match concluding {
                Ok(()) => {}
                Err(Error::TimeIsOver) => {
                    concluded.untried = Some(hunt.deadline.reason());
                    break;
                }
                Err(Error::TooManyRequests) => break,
                Err(Error::HarnessPanicked { seed, text }) => {
                    concluded.looked.remove(&number);
                    concluded.unfinished.internal_errors.insert(seed, text);
                    if let Some(trouble) = self.recover()? {
                        concluded.unfinished.note(&trouble);
                        break;
                    }
                }
                Err(error) => {
                    concluded.unfinished.note(&not_started(error)?);
                    break;
                }
            }
        }
        let once = self.seen_once(first, &concluded)?;
        let Concluded { mut found, unfinished, .. } = concluded;
        for new in once {
            if new.reproduction != Reproduction::Untried || !found.iter().any(|old| is_in_another_dress(&new, old)) {
                found.push(new);
            }
        }
        Ok(Campaign { reached, found, unfinished, has_more })
    }

    /// Shrinks the findings of one case.
    ///
    /// # Errors
    /// When no further one can be looked at.
    fn conclude_one(
        &self,
        number: u64,
        first: &BTreeMap<FindingKey, First>,
        concluded: &mut Concluded,
    ) -> Result<(), Error> {
        let hunt = self.hunt;
        let (drawn, seed) = self.draw(number);
        let slow = self.slow_run(first.iter().filter(|(_, first)| first.number == number));
        let effort = slow.as_ref().map_or(Effort::Shrink, |(_, took)| Effort::Confirm(*took));
        let played = slow.map_or_else(|| self.play(&drawn, seed), |(seen, _)| Ok(Ok(seen)))?;
        let played = self.unhidden(&drawn, (number, effort), played, (first, &concluded.known));
        concluded.looked.insert(number);
        for Complaint { key, .. } in complaints(&hunt.ground, &played) {
            if concluded.known.iter().any(|known: &FindingKey| known.may_be(&key)) {
                continue;
            }
            let alone = first.get(&key).map_or_else(Vec::new, |first| first.all.numbers());
            let new = match self.keep(key, (drawn.clone(), played.clone()), (number, &alone), effort) {
                Ok(new) => new,
                Err(error) => {
                    concluded.unfinished.note(&not_started(error)?);
                    concluded.looked.remove(&number);
                    break;
                }
            };
            concluded.known.insert(new.key.clone());
            concluded.known.extend(new.also.iter().map(|(key, _)| key.clone()));
            if !concluded.found.iter().any(|old| is_in_another_dress(&new, old)) {
                self.told().iter().for_each(|told| told.watch.shrunk(&new));
                concluded.found.push(new);
            }
        }
        Ok(())
    }

    /// The run of a case, counted from 0: another one in a process that has served no client, where what earlier cases have
    /// left behind hides a finding in this one that is not known.
    fn unhidden(
        &self,
        drawn: &GeneratedCase,
        (number, effort): (u64, Effort),
        played: Played,
        (first, known): (&BTreeMap<FindingKey, First>, &BTreeSet<FindingKey>),
    ) -> Played {
        let is_new = |key: &FindingKey| !known.iter().any(|known| known.may_be(key));
        let wanted = first.iter().filter(|(key, first)| first.number == number && is_new(key));
        let wanted: Vec<&FindingKey> = wanted.map(|(key, _)| key).collect();
        let lacks = |played: &Played| wanted.iter().any(|key| !complains(&self.hunt.ground, played, key));
        let owned = self.owned().filter(|owned| effort == Effort::Shrink && owned.can_renew());
        match owned.filter(|_| lacks(&played)) {
            Some(owned) => {
                let fresh = self.play_anew(owned, drawn, self.hunt.seed_of(number)).ok();
                fresh.filter(|fresh| !lacks(fresh)).unwrap_or(played)
            }
            None => played,
        }
    }

    /// The first run of these findings, where another one would really take long: an app in virtual time that keeps its
    /// event loop to itself. With the time that it took.
    fn slow_run<'f>(
        &self,
        firsts: impl Iterator<Item = (&'f FindingKey, &'f First)>,
    ) -> Option<(Transcript, Duration)> {
        let is_virtual = self.owned().is_some_and(Owned::is_virtual);
        let mut slow = firsts.filter(|(_, first)| first.took >= SLOW_RUN && is_virtual);
        slow.find_map(|(key, first)| Some((Transcript::clone(&*self.runs.of(key, first.number)?), first.took)))
    }

    /// The findings that were not seen again: an external server need not do twice what it did once.
    fn seen_once(
        &self,
        first: BTreeMap<FindingKey, First>,
        Concluded { known, looked, untried, unfinished, .. }: &Concluded,
    ) -> Result<Vec<Found>, Error> {
        let (hunt, untried) = (self.hunt, *untried);
        let mut found = Vec::new();
        let mut once: BTreeMap<u64, Vec<(FindingKey, First)>> = BTreeMap::new();
        let is_external = hunt.ground.external().is_some();
        for (key, first) in first.into_iter().filter(|(key, _)| !known.iter().any(|known| known.may_be(key))) {
            // The built-in backend does it again whenever there is time, and the harness does not fail.
            let is_broken = unfinished.internal_errors.contains_key(&hunt.seed_of(first.number));
            if is_external || !looked.contains(&first.number) && (untried.is_some() || is_broken) {
                once.entry(first.number).or_default().push((key, first));
            }
        }
        for (number, mut complaints) in once {
            let (key, First { message, .. }) = complaints.remove(0);
            let is_broken = unfinished.internal_errors.contains_key(&hunt.seed_of(number));
            let also = complaints.into_iter().map(|(key, first)| (key, first.message)).collect();
            let untried = untried.filter(|_| !looked.contains(&number));
            let again = match (untried, looked.contains(&number), unfinished.is_nothing()) {
                _ if is_broken => "not tried again: the harness failed".to_owned(),
                (Some(reason), ..) => format!("not tried again: {reason}"),
                (None, true, _) => "seen once, and not when it was tried again".to_owned(),
                (None, false, true) => "seen once, and no request was left to look again".to_owned(),
                (None, false, false) => "seen once, and the app did not start again to look".to_owned(),
            };
            let is_untried = untried.is_some() || is_broken;
            let reproduction = if is_untried { Reproduction::Untried } else { Reproduction::SeenOnce };
            let message = format!("{message} ({again})");
            let (drawn, seed) = self.draw(number);
            let transcript = self.runs.of(&key, number).map_or_else(Transcript::default, Arc::unwrap_or_clone);
            let capsule = self.capsule(&key, &message, &drawn, Some(&transcript), seed)?;
            let number = number + 1;
            found.push(Found { key, message, also, seed, number, drawn, transcript, capsule, reproduction });
        }
        Ok(found)
    }

    /// Makes a reproducer of what was found, with so much effort.
    fn keep(
        &self,
        key: FindingKey,
        found: (GeneratedCase, Played),
        (number, alone): (u64, &[u64]),
        effort: Effort,
    ) -> Result<Found, Error> {
        let hunt = self.hunt;
        if let Effort::Confirm(took) = effort {
            self.deadline.set(hunt.deadline.within(SLOW_CONFIRMATION_LIMIT));
            self.longest.set(self.longest.get().max(took));
        }
        let smallest = self.shrink_and_confirm(&key, found, (number, alone), effort);
        self.deadline.set(hunt.deadline);
        let Smallest { drawn, played, number, reproduction } = smallest?;
        let seed = hunt.seed_of(number);
        let mut explanation = None;
        let complaints = look(&hunt.ground, &played, &mut |evidence, _| {
            explanation = hunt.ground.external().and_then(|foreign| foreign.explain(evidence));
        });
        let (own, also) = with_company(complaints, &key);
        let mut message = own.map(|complaint| complaint.message).unwrap_or_default();
        if let Some(explanation) = explanation {
            let _ = write!(message, "; {explanation}");
        }
        message.push_str(match reproduction {
            Reproduction::Shown => "",
            Reproduction::SeenOnce => " (seen once, and not when it was tried again in a process of its own)",
            Reproduction::AfterOthers => {
                " (seen again only in a process that had served other cases, and not in one of its own)"
            }
            Reproduction::Unconfirmed => {
                " (seen again in a process that had served other cases; the app did not start for another)"
            }
            Reproduction::Untried => {
                " (seen in a process that had served other cases, and not tried in one of its own)"
            }
        });
        let capsule = self.capsule(&key, &message, &drawn, played.as_ref().ok(), seed)?;
        let (number, transcript) = (number + 1, first_runs::compact(played.unwrap_or_default()));
        Ok(Found { key, message, also, seed, number, drawn, transcript, capsule, reproduction })
    }

    /// The smallest thing that still shows a finding of the case with this number, counted from 0; in a fresh process
    /// if there can be one. `alone` are the cases to try there instead.
    fn shrink_and_confirm(
        &self,
        key: &FindingKey,
        found: (GeneratedCase, Played),
        (number, alone): (u64, &[u64]),
        effort: Effort,
    ) -> Result<Smallest, Error> {
        let hunt = self.hunt;
        let seed = hunt.seed_of(number);
        let (drawn, played) = match effort {
            Effort::Shrink => shrink(hunt, key, found, &|drawn| self.play(drawn, seed))?,
            Effort::Confirm(_) => found,
        };
        let Some(owned) = self.owned().filter(|owned| owned.can_renew()) else {
            return Ok(Smallest { drawn, played, number, reproduction: Reproduction::Shown });
        };
        // An interpreter that does not start confirms nothing, and loses nothing.
        match self.play_anew(owned, &drawn, seed) {
            Ok(played) if complains(&hunt.ground, &played, key) => {
                return Ok(Smallest { drawn, played, number, reproduction: Reproduction::Shown });
            }
            Ok(_) => {}
            Err(Error::TimeIsOver) => {
                return Ok(Smallest { drawn, played, number, reproduction: Reproduction::Untried });
            }
            Err(_) => {
                let reproduction = match effort {
                    Effort::Shrink => Reproduction::Unconfirmed,
                    Effort::Confirm(_) => Reproduction::Untried,
                };
                return Ok(Smallest { drawn, played, number, reproduction });
            }
        }
        // State left by other cases was a part of it. There may be a case that shows it alone.
        for &number in alone {
            let (whole, seed) = self.draw(number);
            let shown = match self.play_anew(owned, &whole, seed) {
                Err(Error::TimeIsOver) => break,
                shown => shown?,
            };
            if complains(&hunt.ground, &shown, key) {
                let (drawn, played) = shrink(hunt, key, (whole, shown), &|drawn| self.play_anew(owned, drawn, seed))?;
                return Ok(Smallest { drawn, played, number, reproduction: Reproduction::Shown });
            }
        }
        let reproduction = match effort {
            Effort::Shrink => Reproduction::AfterOthers,
            // Nothing but the first run has shown it.
            Effort::Confirm(_) => Reproduction::SeenOnce,
        };
        Ok(Smallest { drawn, played, number, reproduction })
    }

    /// Runs what was drawn in a fresh process.
    fn play_anew(&self, owned: &Owned, drawn: &GeneratedCase, seed: u64) -> Result<Played, Error> {
        self.check_time()?;
        owned.renew()?;
        self.play(drawn, seed)
    }

    /// Runs what was drawn, if there is time for that.
    fn play(&self, drawn: &GeneratedCase, seed: u64) -> Result<Played, Error> {
        self.memory.begin(self.deadline.get().end());
        self.play_now(drawn, seed)
    }

    fn play_now(&self, drawn: &GeneratedCase, seed: u64) -> Result<Played, Error> {
        self.check_time()?;
        let began = now();
        let played = self.play_in_any_time(drawn, seed);
        let took = began.elapsed().saturating_sub(self.memory.waited());
        self.longest.set(self.longest.get().max(took));
        // An app whose process was ended shows nothing of its own, and no start goes on after the end of the hunt.
        let is_cut = self.hunt.deadline.is_cut() || self.memory.is_cut();
        let is_late = matches!(played, Err(Error::Python(_))) && self.hunt.deadline.is_over();
        if is_cut || is_late { Err(Error::TimeIsOver) } else { played }
    }

    /// Checks that there is time for another run that takes as long as the longest one.
    fn check_time(&self) -> Result<(), Error> {
        if self.deadline.get().has_time_for(self.longest.get()) { Ok(()) } else { Err(Error::TimeIsOver) }
    }

    fn play_in_any_time(&self, drawn: &GeneratedCase, seed: u64) -> Result<Played, Error> {
        let hunt = self.hunt;
        let runner = match &self.on {
            On::Own(foreign, Some(owned)) => return foreign.play(owned, drawn, seed, self.memory.of_runs()).map(Ok),
            On::Own(_, None) => unreachable!("only a worker that is dropped gives its target back"),
            On::NotStarted(trouble) => return Err(trouble.clone().into()),
            On::BuiltIn(runner) => runner,
        };
        match runner.play(hunt.ground.defects(), drawn, hunt.profile(drawn), seed) {
            Ok(transcript) => Ok(Ok(transcript)),
            // A target that dies is found, and does not end the hunt.
            Err(Error::TargetPanicked(text)) => Ok(Err(text)),
            Err(error) => Err(error),
        }
    }
}

/// The work on something that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effort {
    /// It is made smaller, and confirmed.
    Shrink,
    /// It is confirmed once as it is, because each run of it takes so long.
    Confirm(Duration),
}

/// Everything that happened, or the text of a panic.
type Played = Result<Transcript, String>;
