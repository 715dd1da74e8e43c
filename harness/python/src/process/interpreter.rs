//! A Python interpreter that runs the user's application, and the conversation with it: one batch of commands, one
//! answer, and nothing moves on our side until the answer is there. On the real clock answers come at any time.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::iter;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use nix::unistd::{Pid, getpgid, getsid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::{
    confinement::Confinement,
    core::Core,
    group::{Group, Printed},
    marshal, program, starvation,
};
use relapse::{
    deadline::Deadline,
    note::Note,
    route::{Parameter, Route, RouteSource, RouteTrouble},
    target::LeftBehind,
};
use relapse_core::{
    asgi::{
        exception::{CodePlace, Exception},
        value::Value,
    },
    error::{AppError, Blame},
    record::{
        code::{Block, BlockPlace, Blocks, ReachedBlocks},
        transcript::{Actor, EventKind, Held, KEPT_LOOP, Leftover, Level, PROCESS},
    },
};
use relapse_simulate::{
    application::{EventLoop, LoopState},
    clock::Clock,
    memory::{RunMemory, SMALL_RUN_BYTES},
    recorder::{ExchangeRecorder, Recorder},
};

/// The program that loads the one that runs in the interpreter. It is short, as every list of processes shows it until it has
/// given its process a title.
const LOADER: &str = include_str!("loader.py");

/// How long a stuck interpreter may take to say where it is.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);
/// How long an interpreter usually takes to answer, at most.
const AT_ONCE: Duration = Duration::from_millis(20);
/// How often it is looked whether an interpreter on the real clock is stuck.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The longest answer: 20 MiB, for a message of 16 MiB, the most that a server takes, and what else the app does meanwhile.
pub(super) const ANSWER_BYTES_MAX: usize = 20 << 20;

/// How long timers that calls of a case have started may fire after its end. Virtual time.
const AFTERMATH_LIMIT: Duration = Duration::from_secs(30);
/// How many of them are waited for.
const AFTERMATH_TIMERS_MAX: usize = 100;
/// How many turns every task gets after each of them.
const AFTERMATH_TURNS: usize = 4;

/// From how many clients on it is looked whether the application keeps something of each; the shim has the same number.
const CLIENTS_MIN: usize = 3;
/// The longest name of a type or function that is told, in bytes: an app can make up names of any length.
const NAME_BYTES_MAX: usize = 800;
/// The longest path of a file, in bytes (PATH_MAX of Linux).
const PATH_BYTES_MAX: usize = 4096;

/// Whose application it is, and where.
#[derive(Debug, Clone)]
pub struct Site {
    /// `package.module:attribute`.
    pub app: String,
    /// Whether the attribute is a function that makes the application.
    pub factory: bool,
    /// The interpreter: a path, or a name to be found in `PATH`.
    pub python: PathBuf,
    /// The directory it runs in, first in `sys.path`.
    pub directory: PathBuf,
    /// Environment variables beside our own.
    pub environment: Vec<(String, String)>,
    /// How long the application may keep its event loop to itself before it is taken for stuck. Real time; in virtual time a
    /// sleep on the loop's thread may take ten times as long, and is logged as an error beyond the limit. Virtual time waits
    /// for work in threads for three times the limit, in real time.
    pub blocked_limit: Duration,
    /// The clock of its event loop: ours, in lockstep; or the real one, where it has threads or files of its own.
    pub clock: Clock,
    /// Whether each case has an interpreter of its own.
    pub fresh: bool,
    /// How much memory its process may have, in bytes.
    pub memory_limit: u64,
    /// How long its import, and the start of a real server, may take. Real time.
    pub start_limit: Duration,
    /// The end of the work that it is started for: no start goes on after it.
    pub deadline: Deadline,
    /// Whether the app has a lifespan.
    pub lifespan: LifespanMode,
    /// When its virtual clock begins.
    pub epoch: Epoch,
    /// Whether the code that its calls reach is counted.
    pub coverage: CodeCoverage,
}

/// Whether the code that the calls of an app reach is counted, which changes its modules as they are imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CodeCoverage {
    /// It is.
    Counted,
    /// The app runs as it is.
    #[default]
    None,
}

impl Site {
    /// How long an import may take that begins now. Real time.
    fn import_limit(&self) -> Duration {
        self.deadline.cap(self.start_limit)
    }
}

/// When the virtual clock of an application begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Epoch {
    /// At [`FIXED_EPOCH`], so that a run can be repeated to the byte.
    #[default]
    Fixed,
    /// At the true time, in whole seconds: an app may check when a token was issued and when it expires.
    Now,
}

/// 2026-01-01 00:00:00 UTC, in seconds since the Unix epoch. It is in the past, so that a token, a certificate or a license
/// that an app has in its files has not expired.
pub const FIXED_EPOCH: i64 = 1_767_225_600;

/// Whether the lifespan events of an app are sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LifespanMode {
    /// As the server does it.
    #[default]
    Auto,
    /// The app gets none: it is served at once.
    Off,
}

/// How long an import, and the start of a real server, may usually take.
pub const START_LIMIT: Duration = Duration::from_secs(60);

/// How long an application usually may.
pub const BLOCKED_LIMIT: Duration = Duration::from_secs(8);

/// How much memory an application usually may have, in bytes.
pub const MEMORY_LIMIT: u64 = 4 << 30;

/// The application's description of itself, sent when it is loaded.
#[derive(Debug, Clone, Default)]
pub struct Introduction {
    /// Python's version.
    pub python: String,
    /// The framework; empty where it is none that is known.
    pub framework: String,
    /// The versions of the packages that matter.
    pub versions: BTreeMap<String, String>,
    /// Its routes, as far as it tells.
    pub routes: Vec<Route>,
    /// Routes that its code looks as if it had besides.
    pub guesses: Vec<Route>,
    /// The failures to learn its routes.
    pub troubles: Vec<RouteTrouble>,
}

/// An event of a call.
#[derive(Debug)]
pub(super) enum Happening {
    /// It awaits `receive`.
    Receive,
    /// It no longer awaits `receive`, and was given nothing.
    Withdrawn,
    /// It awaits `send`.
    Send(Value),
    /// It sent on credit, and went on.
    Sent(Value),
    /// It returned.
    Returned,
    /// It raised.
    Raised(Exception),
    /// It handled an exception that was raised in its own code.
    Handled(Exception),
    /// It reached this code of its own, and is about to end.
    Reached(ReachedBlocks),
    /// It logged something: level as Python numbers it, the text, and the exception that nothing in it handled.
    Logged(i64, String, Option<Box<Exception>>),
    /// It left an exception to its runtime, in this exchange.
    Left(EventKind, Option<ExchangeRecorder>),
    /// The interpreter is gone.
    Died(AppError),
}

/// A running interpreter.
#[derive(Debug)]
pub struct Interpreter {
    pipes: Mutex<Pipes>,
    calls: Arc<Mutex<RunningCalls>>,
    group: Arc<Mutex<Group>>,
    clock: Clock,
    blocked_limit: Duration,
    /// When its clock began.
    epoch: Instant,
    /// When its next timer is to fire, on its clock.
    timer: watch::Sender<Option<u64>>,
    /// The core that it shares with the thread that started it, in lockstep.
    _core: Option<Core>,
}

#[derive(Debug)]
struct Pipes {
    to: ChildStdin,
    /// Where answers are awaited in lockstep; on the real clock another thread listens.
    ear: Option<Ear>,
}

/// Where an interpreter's answers come from.
#[derive(Debug)]
struct Ear {
    from: BufReader<ChildStdout>,
    group: Arc<Mutex<Group>>,
    printed: Printed,
    /// Where the application's own code is.
    directory: PathBuf,
    /// The memory of the run that the interpreter works for.
    memory: RunMemory,
}

/// The calls that run, and what is known of their interpreter.
#[derive(Debug, Default)]
struct RunningCalls {
    running: BTreeMap<i64, mpsc::UnboundedSender<Happening>>,
    /// Calls that are over, and that something of the application can still send and receive with.
    kept: BTreeSet<i64>,
    /// Of them, those that ask for nothing, and what serves one as soon as it does.
    asleep: BTreeMap<i64, Asleep>,
    next: i64,
    /// Where the application's own code is.
    directory: PathBuf,
    died: Option<AppError>,
    /// Threads and sockets that virtual time does not wait for.
    notes: Vec<Note>,
    /// Since when an answer is owed, on the real clock, and how long the interpreter had been queued for a processor by then.
    owed: Option<(Instant, Duration)>,
    /// The application's event loop, in lockstep.
    event_loop: watch::Sender<EventLoop>,
    /// The seed of a connection, to be told with the next commands.
    seed: Option<(i64, usize)>,
    /// The app's own code.
    code: AppCode,
    /// The exchanges of the calls since it was last looked what is left behind, by call.
    exchanges: BTreeMap<i64, ExchangeRecorder>,
    /// The call of the lifespan.
    lifespan: Option<i64>,
    /// The things that the application was seen to hold of calls that are over.
    held: Vec<HeldOfCalls>,
    /// The things that it was seen to hold in an earlier run, until nothing was waited for any more.
    stays: BTreeSet<(Held, String)>,
    /// The exceptions of tasks and jobs that nothing has asked for yet.
    unretrieved: Unretrieved,
    /// When the next timer is to fire of the calls that were last asked for, on its clock.
    due: Option<u64>,
}

/// The exceptions of tasks and jobs of threads that nothing has asked for yet, by number, each with its call.
pub(super) type Unretrieved = BTreeMap<i64, (i64, Exception)>;

/// An exception that an application leaves to its runtime, by the name of that in the messages of the shim.
pub(super) fn left_to_runtime(kind: &str, exception: Exception) -> EventKind {
    // The words of asyncio, of threading, and of Python.
    let said = match kind {
        "in_thread" => "Exception in thread",
        "ignored" => "Exception ignored",
        _ => "Task exception was never retrieved",
    };
    let message = format!("{said}: {}", exception.located());
    // Without an exception it is a warning of asyncio.
    let unhandled = Some(Box::new(exception)).filter(|exception| !exception.type_name.is_empty());
    EventKind::Logged { level: Level::Error, message, unhandled }
}

/// Something that the application holds of calls that are over.
#[derive(Debug)]
struct HeldOfCalls {
    leftover: Leftover,
    /// The last of the calls.
    last: i64,
}

/// The blocks of an app's own code, by the numbers that the interpreter gives them.
#[derive(Debug, Default)]
struct AppCode {
    blocks: Vec<Block>,
    places: Blocks,
    /// The sets of blocks that calls reached.
    sets: Vec<ReachedBlocks>,
}

/// How many sets of blocks the interpreter numbers at most.
const SETS_MAX: usize = 4096;

impl AppCode {
    /// Takes the blocks of a module, of which each has its lines and its function.
    fn add(&mut self, file: &str, directory: &Path, told: Vec<Value>) {
        let file: Arc<str> =
            own_file(file, directory).map_or_else(|| file.into(), |own| own.display().to_string().into());
        for (number, block) in (0_u32..).zip(told) {
            let block_place = match block {
                Value::List(parts) => <[Value; 4]>::try_from(parts).ok(),
                _ => None,
            };
            let Some([Value::Int(first), Value::Int(last), Value::Str(function), Value::Int(line)]) = block_place
            else {
                return;
            };
            let [first, last, function_line] = [first, last, line].map(|line| u32::try_from(line).unwrap_or(0));
            let block = Block { file: Arc::clone(&file), number };
            self.blocks.push(block.clone());
            self.places.insert(block, BlockPlace { first, last, function, function_line });
        }
    }

    /// The set with this number; a new one has the numbers of its blocks.
    fn set(&mut self, number: Option<Value>, blocks: Option<Value>) -> Option<ReachedBlocks> {
        let number = usize::try_from(call_id(number)?).ok()?;
        let Some(Value::List(blocks)) = blocks else { return self.sets.get(number).cloned() };
        let blocks =
            blocks.into_iter().filter_map(|block| call_id(Some(block)).and_then(|block| usize::try_from(block).ok()));
        let set = ReachedBlocks::new(blocks.filter_map(|block| self.blocks.get(block).cloned()).collect());
        if number == self.sets.len() && number < SETS_MAX {
            self.sets.push(Arc::clone(&set));
        }
        Some(set)
    }
}

impl Interpreter {
    /// Starts an interpreter and loads the application, for a run with this memory.
    ///
    /// # Errors
    /// Says why it cannot be loaded, and what to do.
    pub fn start(site: &Site, seed: u64, memory: RunMemory) -> Result<(Interpreter, Introduction), AppError> {
        let core = (site.clock == Clock::Virtual).then(Core::take);
        let mut command = Command::new(&site.python);
        command.arg("-c").arg(LOADER).current_dir(&site.directory);
        command.env("PYTHONHASHSEED", "0").env("PYTHONUNBUFFERED", "1").envs(site.environment.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let confinement = match site.clock {
            Clock::Virtual => Confinement::LockstepApp,
            Clock::Real => Confinement::App,
        };
        let program = program::of(site)?;
        let mut group = Group::spawn(&mut command, confinement)
            .map_err(|error| not_started(&site.python, &site.directory, &error))?;
        let child = &mut group.child;
        let (Some(to), Some(from), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three are piped");
        };
        let printed = Printed::default();
        printed.keep(errors);
        let group = Arc::new(Mutex::new(group));
        let from = BufReader::with_capacity(64 * 1024, from);
        let mut ear = Ear { from, group: Arc::clone(&group), printed, directory: site.directory.clone(), memory };
        let first = [framed(&program), framed(&settings(site, seed))].concat();
        let limit = site.import_limit();
        let to = program::deliver(to, first, limit).map_err(|error| match error.kind() {
            ErrorKind::TimedOut => late_import(site, ear.stuck(limit)),
            _ => ear.gone(),
        })?;
        let introduced = ear.hear(site.import_limit());
        let introduction = introduction(&introduced.map_err(|trouble| late_import(site, trouble))?)?;
        let calls = Arc::new(Mutex::new(RunningCalls {
            next: 1,
            directory: site.directory.clone(),
            ..RunningCalls::default()
        }));
        let ear = match site.clock {
            Clock::Virtual => Some(ear),
            Clock::Real => {
                let (calls, limit) = (Arc::clone(&calls), site.blocked_limit);
                std::thread::spawn(move || listen(ear, &calls, limit));
                None
            }
        };
        let interpreter = Interpreter {
            pipes: Mutex::new(Pipes { to, ear }),
            calls,
            group,
            clock: site.clock,
            blocked_limit: site.blocked_limit,
            epoch: Instant::now(),
            timer: watch::channel(None).0,
            _core: core,
        };
        Ok((interpreter, introduction))
    }

    /// The clock that the application's loop keeps.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Something to watch the next timer by, on the interpreter's clock, in nanoseconds. On the real clock it has its own.
    pub(super) fn timer(&self) -> watch::Receiver<Option<u64>> {
        self.timer.subscribe()
    }

    /// Something to watch the application's event loop by. On the real clock it shows nothing.
    pub(super) fn event_loop(&self) -> watch::Receiver<EventLoop> {
        lock(&self.calls).event_loop.subscribe()
    }

    /// When a time on the interpreter's clock is.
    pub(super) fn instant(&self, at: u64) -> Instant {
        self.epoch + Duration::from_nanos(at)
    }

    /// Starts a call, whose first `receive` gives the first event at once if there is one: its number, and what happens to
    /// it.
    pub(super) fn call(&self, scope: Value, first: Option<Value>) -> (i64, mpsc::UnboundedReceiver<Happening>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let id = {
            let mut calls = lock(&self.calls);
            let id = calls.next;
            calls.next += 1;
            calls.running.insert(id, sender);
            match ExchangeRecorder::current() {
                Some(exchange) if exchange.exchange() == PROCESS => calls.lifespan = Some(id),
                Some(exchange) => drop(calls.exchanges.insert(id, exchange)),
                None => {}
            }
            id
        };
        self.tell(vec![match first {
            Some(event) => command("call", id, [scope, event]),
            None => command("call", id, [scope]),
        }]);
        (id, receiver)
    }

    /// The server is done with a call that is over; whether something of the application may still send and receive with
    /// it.
    pub(super) fn forget(&self, id: i64) -> bool {
        let mut calls = lock(&self.calls);
        if !calls.kept.contains(&id) {
            calls.running.remove(&id);
        }
        calls.running.contains_key(&id)
    }

    /// The server is done with a call that goes on; whether something of the application may still send and receive with
    /// it.
    pub(super) fn cancel(&self, id: i64) -> bool {
        if !lock(&self.calls).running.contains_key(&id) {
            return false;
        }
        self.tell(vec![command("forget", id, []), command("cancel", id, [])]);
        lock(&self.calls).running.contains_key(&id)
    }

    /// As [`Target::left_behind`](relapse::target::Target::left_behind).
    pub(crate) fn left_behind(&self, run: &Recorder, is_last: bool) -> LeftBehind {
        let first = {
            let mut calls = lock(&self.calls);
            calls.exchanges.retain(|_, exchange| exchange.is_of(run));
            if self.clock == Clock::Real || calls.exchanges.len() < CLIENTS_MIN {
                return LeftBehind::default();
            }
            calls.exchanges.keys().next().copied().unwrap_or(0)
        };
        self.tell(vec![command("look", first, [])]);
        let mut calls = lock(&self.calls);
        let held = std::mem::take(&mut calls.held);
        let found = held.into_iter().filter_map(|held| Some((calls.exchanges.get(&held.last)?.clone(), held.leftover)));
        let found: Vec<(ExchangeRecorder, Leftover)> = found.collect();
        let names = found.iter().map(|(_, leftover)| (leftover.held, leftover.name.clone()));
        if is_last {
            calls.stays.extend(names);
            return LeftBehind { found, is_known: true };
        }
        let is_known = names.into_iter().all(|name| calls.stays.contains(&name));
        LeftBehind { found, is_known }
    }

    /// When the next timer fires that calls of a run have started, on the virtual clock.
    fn next_timer_of(&self, run: &Recorder) -> Option<Instant> {
        // Almost always there is none at all.
        let has_none = self.timer.borrow().is_none();
        let first = {
            let mut calls = lock(&self.calls);
            calls.exchanges.retain(|_, exchange| exchange.is_of(run));
            calls.exchanges.keys().next().copied()
        };
        let first = first.filter(|_| !has_none && self.clock == Clock::Virtual)?;
        self.tell(vec![command("timers", first, [])]);
        lock(&self.calls).due.take().map(|at| self.instant(at))
    }

    /// As [`Target::await_aftermath`](relapse::target::Target::await_aftermath).
    pub(crate) async fn await_aftermath(&self, run: &Recorder) {
        if self.trouble().is_some() {
            return;
        }
        let end = Instant::now() + AFTERMATH_LIMIT;
        for _ in 0..AFTERMATH_TIMERS_MAX {
            let Some(at) = self.next_timer_of(run).filter(|at| *at <= end) else { return };
            sleep_until(at).await;
            // The timer fires, and others do what follows.
            for _ in 0..AFTERMATH_TURNS {
                yield_now().await;
            }
            if let Some(trouble) = self.trouble() {
                // The end of the process is the app's doing, as an exception would be.
                let unhandled = Some(Box::new(Exception::new("SystemExit", trouble.message.clone())));
                let what = EventKind::Logged { level: Level::Error, message: trouble.message, unhandled };
                return lock(&self.calls).exchanges.values().next_back().into_iter().for_each(|exchange| {
                    exchange.record(Actor::Application, what.clone());
                });
            }
        }
    }

    /// As [`Target::record_unretrieved`](relapse::target::Target::record_unretrieved).
    pub(crate) fn record_unretrieved(&self, run: &Recorder) {
        let mut calls = lock(&self.calls);
        for (_, (id, exception)) in std::mem::take(&mut calls.unretrieved) {
            if let Some(exchange) = calls.exchange_of(id).filter(|exchange| exchange.is_of(run)) {
                exchange.record(Actor::Application, left_to_runtime("unretrieved", exception));
            }
        }
    }

    /// Serves a call that is over when it next asks for something.
    pub(super) fn when_asked(&self, id: i64, serve: Serve) {
        let mut calls = lock(&self.calls);
        if calls.running.contains_key(&id) {
            calls.asleep.insert(id, Asleep(serve));
        }
    }

    /// From now on it works for a run with this memory.
    pub(crate) fn work_within(&self, memory: &RunMemory) {
        if let Some(ear) = &mut lock(&self.pipes).ear {
            ear.memory.clone_from(memory);
        }
    }

    /// From its next command on, everything random in it is drawn from this seed, and the number of the connection. On the real
    /// clock it is as random as the system.
    pub(crate) fn sow(&self, seed: u64, connection: usize) {
        // Fibonacci hashing keeps the streams of connections apart.
        let mixed = seed ^ (connection as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        lock(&self.calls).seed = Some((mixed.cast_signed(), connection));
    }

    /// Gives commands. In lockstep the application then runs until it is idle, before anything else does.
    pub(super) fn tell(&self, mut commands: Vec<Value>) {
        let mut pipes = lock(&self.pipes);
        if let Some((seed, connection)) = lock(&self.calls).seed.take() {
            let connection = Value::Int(i64::try_from(connection).unwrap_or(i64::MAX));
            commands.insert(0, command("seed", seed, [connection]));
        }
        if pipes.ear.as_ref().is_some_and(|ear| ear.memory.is_cut()) && self.trouble().is_none() {
            lock(&self.calls).die(over());
            let _ = lock(&self.group).end();
        }
        if let Some(trouble) = self.trouble() {
            lock(&self.calls).tell_of_death(&trouble);
            return;
        }
        let now = i64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let batch = Value::List(vec![Value::Int(now), Value::List(commands)]);
        let Pipes { to, ear } = &mut *pipes;
        match ear {
            None => {
                let queued = lock(&self.group).queued();
                lock(&self.calls).owed.get_or_insert_with(|| (Instant::now(), queued));
                // If this fails, the interpreter is gone, and the listener reports the reason.
                let _ = say(to, &batch);
            }
            Some(ear) => {
                let answer = say(to, &batch).map_err(|_| ear.gone()).and_then(|()| ear.hear(self.blocked_limit));
                let mut calls = lock(&self.calls);
                let next = calls.take(answer);
                if calls.died.is_some() {
                    let _ = lock(&self.group).end();
                }
                // Without a timer before and after, there is nothing new for those that watch it.
                self.timer.send_if_modified(|timer| {
                    let had_one = timer.is_some();
                    *timer = next;
                    had_one || next.is_some()
                });
            }
        }
    }

    /// Why it is gone, if it is.
    pub fn trouble(&self) -> Option<AppError> {
        lock(&self.calls).died.clone()
    }

    /// The blocks of the app's own code, as far as its modules were imported and it is counted.
    pub fn blocks(&self) -> Blocks {
        lock(&self.calls).code.places.clone()
    }

    /// Things that virtual time does not wait for, as far as they were seen: one note for each kind.
    pub fn notes(&self) -> Vec<Note> {
        Note::merge(lock(&self.calls).notes.iter().cloned())
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        // The listener notices the end.
        let _ = lock(&self.group).end();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic falls between whole batches, or the pipe shows it; the state is usable.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves a call from now on.
pub(super) type Serve = Box<dyn FnOnce() + Send>;

/// A call that asks for nothing.
struct Asleep(Serve);

impl fmt::Debug for Asleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asleep")
    }
}

/// Sends one message.
fn say(to: &mut ChildStdin, message: &Value) -> std::io::Result<()> {
    to.write_all(&framed(message))?;
    to.flush()
}

/// A message with its length in front.
fn framed(message: &Value) -> Vec<u8> {
    let mut frame = vec![0; 4];
    marshal::write(message, &mut frame);
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame
}

/// Passes on what an interpreter tells whenever it does, on the real clock, until it ends.
fn listen(mut ear: Ear, calls: &Mutex<RunningCalls>, blocked_limit: Duration) {
    loop {
        if ear.from.buffer().is_empty() && !is_readable(ear.from.get_ref(), LOOK_EVERY) {
            let owed = lock(calls).owed;
            let is_stuck = |(since, before): (Instant, Duration)| {
                let queued = lock(&ear.group).queued().saturating_sub(before);
                starvation::left(blocked_limit, since.elapsed(), queued).is_zero()
            };
            if owed.is_some_and(is_stuck) {
                let trouble = ear.stuck(blocked_limit);
                return lock(calls).die(trouble);
            }
            continue;
        }
        let answer = ear.hear(blocked_limit);
        let mut calls = lock(calls);
        calls.owed = None;
        calls.take(answer);
        if calls.died.is_some() {
            return;
        }
    }
}

impl Ear {
    /// Waits for one answer. Work in threads may take longer than the limit: signs of life come meanwhile.
    fn hear(&mut self, limit: Duration) -> Result<Value, AppError> {
        loop {
            match self.hear_one(limit)? {
                Value::None => {}
                answer => return Ok(answer),
            }
        }
    }

    /// Waits for one message.
    fn hear_one(&mut self, limit: Duration) -> Result<Value, AppError> {
        let mut head = [0; 4];
        self.read(&mut head, limit)?;
        let length = u32::from_le_bytes(head) as usize;
        if length > SMALL_RUN_BYTES {
            self.memory.grow();
        }
        if self.memory.is_cut() {
            return Err(over());
        }
        if length > ANSWER_BYTES_MAX {
            let message = format!(
                "it sent and logged {} MiB at once, and {} MiB are the most that are taken",
                length >> 20,
                ANSWER_BYTES_MAX >> 20
            );
            return Err(AppError { message, details: self.printed.last(), blame: Blame::App });
        }
        let mut answer = vec![0; length];
        self.read(&mut answer, limit)?;
        marshal::read(&answer).map_err(|why| AppError {
            message: format!("its answer cannot be read: {why}"),
            details: self.printed.last(),
            blame: Blame::App,
        })
    }

    fn read(&mut self, into: &mut [u8], limit: Duration) -> Result<(), AppError> {
        let mut filled = 0;
        while filled < into.len() {
            if self.from.buffer().is_empty() && !self.is_readable(limit) {
                return Err(self.stuck(limit));
            }
            match self.from.read(&mut into[filled..]) {
                Ok(0) => return Err(self.gone()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(self.gone()),
            }
        }
        Ok(())
    }

    /// Whether something can be read within the limit. The time in which the interpreter is queued for a processor does not count.
    fn is_readable(&self, limit: Duration) -> bool {
        // Almost always it answers at once.
        if is_readable(self.from.get_ref(), AT_ONCE.min(limit)) {
            return true;
        }
        let queued_before = lock(&self.group).queued();
        let (mut waited, mut left) = (Duration::ZERO, limit);
        while !left.is_zero() {
            if is_readable(self.from.get_ref(), left) {
                return true;
            }
            waited += left;
            let queued = lock(&self.group).queued().saturating_sub(queued_before);
            left = starvation::left(limit, waited, queued);
        }
        false
    }

    /// It did not answer: where it is stuck, as far as it tells, and its end.
    fn stuck(&mut self, limit: Duration) -> AppError {
        lock(&self.group).signal(Signal::USR1);
        let _ = is_readable(self.from.get_ref(), LAST_WORDS_LIMIT);
        let _ = lock(&self.group).end();
        // Hide our own frames from the traceback.
        let said = self.printed.last();
        let frames: Vec<&str> = said.lines().filter(|line| !line.starts_with("  File \"<string>\"")).collect();
        let message = stuck(limit, printed_place(&frames, &self.directory));
        AppError { message, details: frames.join("\n"), blame: Blame::App }
    }

    fn gone(&mut self) -> AppError {
        let how = lock(&self.group).end().map_or_else(|error| error.to_string(), |status| status.to_string());
        AppError { message: format!("the interpreter ended: {how}"), details: self.printed.last(), blame: Blame::App }
    }
}

impl RunningCalls {
    /// Passes on an answer; when the next timer is to fire.
    fn take(&mut self, answer: Result<Value, AppError>) -> Option<u64> {
        let answer = answer.and_then(|answer| match answer {
            Value::List(parts) => Ok(parts),
            other => {
                let message = format!("the interpreter answered a {}", other.type_name());
                Err(AppError { message, details: String::new(), blame: Blame::Setup })
            }
        });
        let mut parts = match answer {
            Ok(parts) => parts.into_iter(),
            Err(trouble) => {
                self.die(trouble);
                return None;
            }
        };
        let next = match parts.next() {
            Some(Value::Int(at)) => u64::try_from(at).ok(),
            _ => None,
        };
        if let Some(Value::List(events)) = parts.next() {
            events.into_iter().for_each(|event| self.happen(event));
        }
        // Nothing fires in one that is gone.
        next.filter(|_| self.died.is_none())
    }

    fn die(&mut self, trouble: AppError) {
        self.tell_of_death(&trouble);
        self.died = Some(trouble);
        // Nothing waits for it any more.
        self.run_again();
    }

    /// The loop runs again, if only for a turn.
    fn run_again(&self) {
        self.event_loop.send_modify(|seen| *seen = EventLoop { state: LoopState::Runs, turns: seen.turns + 1 });
    }

    fn tell_of_death(&mut self, trouble: &AppError) {
        for (_, call) in std::mem::take(&mut self.running) {
            // A receiver that no longer listens does not need this.
            let _ = call.send(Happening::Died(trouble.clone()));
        }
    }

    /// The exchange of a call. Work in the background of the lifespan fails for the client that came last.
    fn exchange_of(&self, id: i64) -> Option<&ExchangeRecorder> {
        match self.lifespan == Some(id) {
            true => self.exchanges.values().next_back(),
            false => self.exchanges.get(&id),
        }
    }

    /// Drops a call that was kept after its end.
    fn free(&mut self, id: i64) {
        if self.kept.remove(&id) {
            self.running.remove(&id);
            self.asleep.remove(&id);
        }
    }

    /// Passes on one thing that happened.
    // Long: an arm for each message of the interpreter.
    fn happen(&mut self, event: Value) {
        let Value::List(parts) = event else { return };
        let mut parts = parts.into_iter();
        let kind = text(parts.next());
        let (id, happening) = match kind.as_str() {
            "note" => {
                let (kind, example) = (text(parts.next()), text(parts.next()));
                return self.notes.push(Note { kind, example, count: 1 });
            }
            "stuck" => {
                let blocked = nanoseconds(parts.next());
                let place = place(parts.next(), &self.directory);
                let (message, details) = (stuck(blocked, place), String::new());
                return self.die(AppError { message, details, blame: Blame::App });
            }
            "held" => {
                return self.event_loop.send_modify(|seen| seen.state = LoopState::Blocked);
            }
            "free" => return self.run_again(),
            "blocked" => {
                let (id, level) = (parts.next(), level(parts.next()));
                let blocked = nanoseconds(parts.next()).as_secs_f64();
                let place = place(parts.next(), &self.directory).map(|place| format!(": {place}"));
                let message = format!("{KEPT_LOOP} for {blocked} s{}", place.unwrap_or_default());
                (id, Happening::Logged(level, message, None))
            }
            "fatal" => {
                let message = "the harness's part in the interpreter failed".to_owned();
                return self.die(AppError { message, details: text(parts.next()), blame: Blame::Setup });
            }
            "blocks" => {
                let (_first, file) = (parts.next(), text(parts.next()));
                let Some(Value::List(told)) = parts.next() else { return };
                return self.code.add(&file, &self.directory, told);
            }
            "reached" => {
                let id = parts.next();
                let Some(set) = self.code.set(parts.next(), parts.next()) else { return };
                (id, Happening::Reached(set))
            }
            "kept" => return self.kept.extend(call_id(parts.next())),
            "leftover" => {
                let found = held(&mut parts, &self.directory);
                return self.held.extend(found);
            }
            "freed" => return call_id(parts.next()).into_iter().for_each(|id| self.free(id)),
            "receive" => (parts.next(), Happening::Receive),
            "withdrawn" => (parts.next(), Happening::Withdrawn),
            "send" => (parts.next(), Happening::Send(parts.next().unwrap_or(Value::None))),
            "sent" => (parts.next(), Happening::Sent(parts.next().unwrap_or(Value::None))),
            "returned" => (parts.next(), Happening::Returned),
            "raised" => {
                let id = parts.next();
                (id, Happening::Raised(exception(&mut parts, &self.directory)))
            }
            "handled" => {
                let id = parts.next();
                (id, Happening::Handled(exception(&mut parts, &self.directory)))
            }
            "log" => {
                let (id, level) = (parts.next(), level(parts.next()));
                let (_logger, message, _trace) = (parts.next(), text(parts.next()), parts.next());
                let unhandled = match parts.next() {
                    Some(Value::List(parts)) => Some(Box::new(exception(&mut parts.into_iter(), &self.directory))),
                    _ => None,
                };
                (id, Happening::Logged(level, message, unhandled))
            }
            "unhandled" | "in_thread" | "ignored" => {
                let id = parts.next();
                let what = left_to_runtime(&kind, exception(&mut parts, &self.directory));
                let Some(number) = call_id(id) else { return };
                // After the end of a call nothing serves it, and it need not be served for this.
                if self.lifespan == Some(number) || self.kept.contains(&number) {
                    return self.exchange_of(number).into_iter().for_each(|scribe| {
                        scribe.record(Actor::Application, what.clone());
                    });
                }
                (Some(Value::Int(number)), Happening::Left(what, self.exchange_of(number).cloned()))
            }
            "unretrieved" => {
                let (Some(number), Some(id)) = (call_id(parts.next()), call_id(parts.next())) else { return };
                let exception = exception(&mut parts, &self.directory);
                return drop(self.unretrieved.insert(number, (id, exception)));
            }
            "due" => {
                let at = call_id(parts.next());
                return self.due = at.and_then(|at| u64::try_from(at).ok());
            }
            "retrieved" => {
                let number = call_id(parts.next());
                return number.into_iter().for_each(|number| drop(self.unretrieved.remove(&number)));
            }
            _ => return,
        };
        if let Some(id) = call_id(id)
            && let Some(call) = self.running.get(&id)
        {
            let _ = call.send(happening);
            if let Some(Asleep(serve)) = self.asleep.remove(&id) {
                serve();
            }
        }
    }
}

/// The first message to an interpreter.
fn settings(site: &Site, seed: u64) -> Value {
    dict([
        ("app", Value::Str(site.app.clone())),
        ("factory", Value::Bool(site.factory)),
        ("path", Value::List(vec![Value::Str(site.directory.display().to_string())])),
        ("clock", if site.clock == Clock::Virtual { "virtual" } else { "real" }.into()),
        ("seed", Value::Int((seed & 0x7FFF_FFFF) as i64)),
        ("log_level", Value::Int(20)),
        ("blocked_limit", Value::Int(i64::try_from(site.blocked_limit.as_nanos()).unwrap_or(i64::MAX))),
        ("epoch", Value::Int(epoch(site.epoch))),
        ("harness", Value::List(ours().into_iter().map(Value::Int).collect())),
        ("chance", if has_chance(site) { "system" } else { "seeded" }.into()),
        ("coverage", Value::Bool(site.coverage == CodeCoverage::Counted)),
        ("memory_limit", Value::Int(i64::try_from(site.memory_limit).unwrap_or(i64::MAX))),
    ])
}

/// The trouble of an app whose run may not go on.
fn over() -> AppError {
    let message = "time ran out while this run waited for another large run to end".to_owned();
    AppError { message, details: String::new(), blame: Blame::Setup }
}

/// The trouble of an import; one that only takes too long gets the option that allows more.
fn late_import(site: &Site, trouble: AppError) -> AppError {
    if !trouble.message.starts_with(KEPT_LOOP) {
        return trouble;
    }
    let limit = site.start_limit.as_secs_f64();
    let message = match site.deadline.is_over() {
        true => format!("{} before {} was imported; --time gives it more", site.deadline.reason(), site.app),
        false => format!("the import of {} took longer than {limit} s; --start-limit gives it more", site.app),
    };
    AppError { message, details: trouble.details, blame: Blame::App }
}

/// The number of a call.
fn call_id(value: Option<Value>) -> Option<i64> {
    if let Some(Value::Int(id)) = value { Some(id) } else { None }
}

/// Whether something can be read within the limit. Real time: nothing else moves meanwhile.
pub(super) fn is_readable(from: &ChildStdout, limit: Duration) -> bool {
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    let mut fds = [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&limit)) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

/// Why an interpreter cannot be started.
pub(super) fn not_started(python: &Path, directory: &Path, error: &std::io::Error) -> AppError {
    let message = match error.kind() {
        ErrorKind::NotFound if !directory.is_dir() => format!("the directory {} is not there", directory.display()),
        ErrorKind::NotFound => format!("there is no `{}`; --python names an interpreter", python.display()),
        _ => format!("`{}` cannot be started: {error}", python.display()),
    };
    AppError { message, details: String::new(), blame: Blame::Setup }
}

/// A command about a call.
pub(super) fn command<const N: usize>(name: &str, id: i64, more: [Value; N]) -> Value {
    let mut parts = vec![name.into(), Value::Int(id)];
    parts.extend(more);
    Value::List(parts)
}

fn dict<const N: usize>(entries: [(&'static str, Value); N]) -> Value {
    Value::Dict(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

/// The contents of a dictionary.
pub(super) type Entries = BTreeMap<Cow<'static, str>, Value>;

/// A text, or nothing.
pub(super) fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::Str(text)) => text,
        Some(Value::Surrogates(text)) => text.escaped(),
        _ => String::new(),
    }
}

/// Type, message and frames of an exception. Its place is the innermost in the application's own code, which is in this
/// directory; where it has none there, the innermost of all.
pub(super) fn exception(parts: &mut impl Iterator<Item = Value>, directory: &Path) -> Exception {
    let (mut type_name, message) = (text(parts.next()), text(parts.next()));
    cut(&mut type_name, NAME_BYTES_MAX);
    Exception { type_name, message, place: place(parts.next(), directory) }
}

/// Leaves out the end of a text that is too long.
fn cut(text: &mut String, bytes_max: usize) {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
}

/// The innermost of these frames that is in the application's own code, which is in this directory; where none is, the
/// innermost of all.
fn place(frames: Option<Value>, directory: &Path) -> Option<CodePlace> {
    let Some(Value::List(frames)) = frames else { return None };
    let places = frames.into_iter().rev().filter_map(|frame| match frame {
        Value::List(parts) => match <[Value; 3]>::try_from(parts) {
            Ok([Value::Str(mut file), Value::Int(line), Value::Str(mut function)]) => {
                cut(&mut file, PATH_BYTES_MAX);
                cut(&mut function, NAME_BYTES_MAX);
                let own = own_file(&file, directory);
                let name = own.as_ref().map_or(file, |own| own.display().to_string());
                let place = CodePlace { file: name, line: u32::try_from(line).unwrap_or(0), function };
                Some((own.is_some(), place))
            }
            _ => None,
        },
        _ => None,
    });
    let places: Vec<(bool, CodePlace)> = places.collect();
    let own = places.iter().position(|(is_own, _)| *is_own).unwrap_or(0);
    places.into_iter().nth(own).map(|(_, place)| place)
}

/// A file of the application's own, from its directory.
fn own_file(file: &str, directory: &Path) -> Option<PathBuf> {
    let own = Path::new(file).strip_prefix(directory).ok()?;
    (!own.components().any(|part| part.as_os_str() == "site-packages")).then(|| own.to_path_buf())
}

/// The place that keeps the event loop, by the frames that `faulthandler` printed: its thread is the last one there, and
/// the innermost frame comes first.
fn printed_place(lines: &[&str], directory: &Path) -> Option<CodePlace> {
    let thread = lines.rsplit(|line| line.contains("hread 0x")).next()?;
    thread.iter().find_map(|line| {
        let (file, rest) = line.strip_prefix("  File \"")?.split_once("\", line ")?;
        let (line, function) = rest.split_once(" in ")?;
        let file = own_file(file, directory)?.display().to_string();
        Some(CodePlace { file, line: line.parse().ok()?, function: function.to_owned() })
    })
}

/// The trouble with an application that does not let its event loop run.
fn stuck(blocked: Duration, place: Option<CodePlace>) -> String {
    let place = place.map(|place| format!(" at {place}")).unwrap_or_default();
    format!(
        "{KEPT_LOOP} for {} s{place}: something in it blocks, as time.sleep or a socket without asyncio does; \
         --blocked-limit gives it more",
        blocked.as_secs_f64()
    )
}

/// When the virtual clock of an interpreter begins, in nanoseconds since the Unix epoch.
fn epoch(epoch: Epoch) -> i64 {
    let seconds = match epoch {
        Epoch::Fixed => FIXED_EPOCH,
        Epoch::Now => {
            #[expect(clippy::disallowed_methods, reason = "the virtual clock begins at the true time of day")]
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(0)
        }
    };
    seconds.saturating_mul(1_000_000_000)
}

/// Whether the user wants what is random to be so: `--env PYTHONHASHSEED=random`.
fn has_chance(site: &Site) -> bool {
    let chosen = site.environment.iter().rev().find(|(name, _)| name == "PYTHONHASHSEED");
    chosen.is_some_and(|(_, value)| value == "random")
}

/// Numbers that an application may not signal: this process first, its parent, which may be its guard, their groups, and
/// their session. Where one lies outside our PID namespace, the kernel says 0, and an application cannot name it either.
///
/// Read through `nix`: `rustix` 1.1.6 assumes that no number is 0, and panics in debug builds.
pub(super) fn ours() -> Vec<i64> {
    let (own, parent) = (Pid::this(), Pid::parent());
    let groups = [own, parent].into_iter().filter_map(|process| getpgid(Some(process)).ok());
    let mut numbers = vec![own];
    numbers.extend(iter::once(parent).chain(groups).chain(getsid(None).ok()));
    numbers.into_iter().map(|number| i64::from(number.as_raw())).filter(|number| *number > 0).collect()
}

/// Something that the application holds of calls that are over: how, its name, where it is defined, and the calls.
fn held(parts: &mut impl Iterator<Item = Value>, directory: &Path) -> Option<HeldOfCalls> {
    let held = match text(parts.next()).as_str() {
        "task" => Held::Task,
        "objects" => Held::Objects,
        "empty" => Held::EmptyEntries,
        _ => return None,
    };
    let (name, place) = (text(parts.next()), place(parts.next(), directory));
    let Some(Value::List(calls)) = parts.next() else { return None };
    let clients = calls.len();
    let last = calls.into_iter().filter_map(|call| call_id(Some(call))).max()?;
    Some(HeldOfCalls { leftover: Leftover { held, name, place, clients }, last })
}

/// A level of logging, as Python numbers them; INFO where there is none.
fn level(value: Option<Value>) -> i64 {
    if let Some(Value::Int(level)) = value { level } else { 20 }
}

/// A span of time in nanoseconds.
fn nanoseconds(value: Option<Value>) -> Duration {
    match value {
        Some(Value::Int(count)) => Duration::from_nanos(u64::try_from(count).unwrap_or(0)),
        _ => Duration::ZERO,
    }
}

/// Whose fault it is that an app cannot be loaded, by the shim's word for what went wrong.
pub(super) fn blame_for(kind: &str) -> Blame {
    match kind {
        "import-error" | "exited" | "factory-failed" => Blame::App,
        _ => Blame::Setup,
    }
}

/// Reads the application's description of itself.
fn introduction(told: &Value) -> Result<Introduction, AppError> {
    let Value::Dict(told) = told else {
        return Err(AppError {
            message: "the interpreter did not introduce itself".to_owned(),
            details: String::new(),
            blame: Blame::Setup,
        });
    };
    if told.get("ok") != Some(&Value::Bool(true)) {
        let (kind, mut details) = (text_at(told, "kind"), text_at(told, "traceback"));
        if let (Some(Value::List(_)), "module-not-found") = (told.get("searched"), kind.as_str()) {
            let mut searched = texts_at(told, "searched");
            searched.retain(|path| !path.is_empty());
            details = format!("searched in {}", searched.join(", "));
        }
        return Err(AppError { message: text_at(told, "message"), details, blame: blame_for(&kind) });
    }
    let versions = match told.get("versions") {
        Some(Value::Dict(versions)) => {
            versions.iter().map(|(name, version)| (name.clone().into_owned(), text(Some(version.clone())))).collect()
        }
        _ => BTreeMap::new(),
    };
    Ok(Introduction {
        python: text_at(told, "python"),
        framework: text_at(told, "framework"),
        versions,
        routes: routes_at(told, "routes", RouteSource::Known),
        guesses: routes_at(told, "guesses", RouteSource::Guessed),
        troubles: list_at(told, "troubles").iter().filter_map(trouble).collect(),
    })
}

fn trouble(told: &Value) -> Option<RouteTrouble> {
    let Value::Dict(told) = told else { return None };
    let [framework, place, kind, message] = ["framework", "place", "kind", "message"].map(|key| text_at(told, key));
    Some(RouteTrouble { framework, place, kind, message })
}

fn routes_at(told: &Entries, key: &str, source: RouteSource) -> Vec<Route> {
    list_at(told, key).iter().filter_map(route).map(|route| Route { source, ..route }).collect()
}

/// A route; `None` of a mount, which is where other routes are.
fn route(told: &Value) -> Option<Route> {
    let Value::Dict(told) = told else { return None };
    let (kind, path) = (text_at(told, "kind"), text_at(told, "path"));
    if kind == "mount" {
        return None;
    }
    let methods = match texts_at(told, "methods") {
        _ if kind == "websocket" => Vec::new(),
        none if none.is_empty() => vec!["GET".to_owned()],
        methods => methods,
    };
    path.starts_with('/').then(|| Route {
        path,
        is_websocket: kind == "websocket",
        methods,
        params: parameters_at(told, "params"),
        query: parameters_at(told, "query"),
        headers: parameters_at(told, "headers"),
        cookies: parameters_at(told, "cookies"),
        content_type: text_at(told, "content_type"),
        body: text_at(told, "body"),
        full_body: text_at(told, "full_body"),
        offers: texts_at(told, "offers"),
        subprotocols: texts_at(told, "subprotocols"),
        messages: texts_at(told, "messages"),
        words: texts_at(told, "words"),
        numbers: numbers_at(told, "numbers"),
        source: RouteSource::Known,
    })
}

fn parameter(told: &Value) -> Option<Parameter> {
    let Value::Dict(told) = told else { return None };
    let is_required = told.get("required") == Some(&Value::Bool(true));
    Some(Parameter {
        name: text_at(told, "name"),
        is_required,
        good: text_at(told, "good"),
        others: texts_at(told, "others"),
    })
}

fn parameters_at(told: &Entries, key: &str) -> Vec<Parameter> {
    list_at(told, key).iter().filter_map(parameter).collect()
}

fn numbers_at(told: &Entries, key: &str) -> Vec<i64> {
    let number = |value: &Value| match value {
        Value::Int(number) => Some(*number),
        _ => None,
    };
    list_at(told, key).iter().filter_map(number).collect()
}

fn text_at(told: &Entries, key: &str) -> String {
    text(told.get(key).cloned())
}

fn texts_at(told: &Entries, key: &str) -> Vec<String> {
    list_at(told, key).iter().map(|item| text(Some(item.clone()))).collect()
}

/// A list; empty where there is none.
fn list_at<'a>(told: &'a Entries, key: &str) -> &'a [Value] {
    match told.get(key) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}
