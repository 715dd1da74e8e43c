//! A real server that runs the user's application, behind a witness, on a loopback port.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::{
    confinement::Confinement,
    group::{Group, Printed},
    interpreter::{Interpreter, Introduction, LifespanMode, Site, not_started, ours},
    laid_out::LaidOut,
    ledger::{WitnessLog, WitnessedLifespan},
    printed::Panic,
    program::SHIM,
    venv::{self, Requirements},
};
use relapse_core::{
    client::signal::{self, Exit, ExitExpectation},
    error::{AppError, Blame, did_you_mean},
    record::transcript::{Actor, EventKind},
};
use relapse_simulate::{
    clock::Clock,
    link::{Link, dial},
    memory::RunMemory,
    recorder::ExchangeRecorder,
};

/// The program that runs in front of the application.
const WITNESS: &str = include_str!("witness.py");

/// How long it may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How often it is looked whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How long a connection to it may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerSoftware {
    /// <https://www.uvicorn.org>
    Uvicorn,
    /// <https://hypercorn.readthedocs.io>
    Hypercorn,
    /// <https://github.com/django/daphne>
    Daphne,
    /// <https://github.com/emmett-framework/granian>
    Granian,
}

impl ServerSoftware {
    /// All of them.
    pub const ALL: [ServerSoftware; 4] =
        [ServerSoftware::Uvicorn, ServerSoftware::Hypercorn, ServerSoftware::Daphne, ServerSoftware::Granian];

    /// The name of its package and of its module.
    pub fn name(self) -> &'static str {
        match self {
            ServerSoftware::Uvicorn => "uvicorn",
            ServerSoftware::Hypercorn => "hypercorn",
            ServerSoftware::Daphne => "daphne",
            ServerSoftware::Granian => "granian",
        }
    }

    /// The packages that decide how it behaves.
    pub fn decisive(self) -> &'static [&'static str] {
        match self {
            ServerSoftware::Uvicorn => &["uvicorn", "websockets", "wsproto", "h11", "httptools", "uvloop"],
            ServerSoftware::Hypercorn => &["hypercorn", "wsproto", "h11"],
            ServerSoftware::Daphne => &["daphne", "autobahn", "twisted"],
            ServerSoftware::Granian => &["granian"],
        }
    }
}

/// A server as a user names it: `uvicorn`, `hypercorn==0.18.0`, `uvicorn[wsproto]==0.35.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerChoice {
    /// Which.
    pub software: ServerSoftware,
    /// Which of uvicorn's implementations of WebSocket: `websockets`, `sansio` or `wsproto`; its own choice without one.
    pub implementation: Option<String>,
    /// Its version; any without one.
    pub version: Option<String>,
}

/// Uvicorn's implementations of WebSocket, by our name and its own.
const IMPLEMENTATIONS: [(&str, &str); 3] =
    [("websockets", "websockets"), ("sansio", "websockets-sansio"), ("wsproto", "wsproto")];

impl FromStr for ServerChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<ServerChoice, String> {
        let (server, version) = match text.split_once("==") {
            Some((server, version)) if !version.is_empty() => (server, Some(version.to_owned())),
            Some(_) => return Err("write the version as in `uvicorn==0.35.0`".to_owned()),
            None => (text, None),
        };
        let (name, implementation) = match server.split_once('[') {
            Some((name, rest)) => (name, Some(rest.strip_suffix(']').ok_or("a `]` is missing")?)),
            None => (server, None),
        };
        let known = ServerSoftware::ALL.map(ServerSoftware::name);
        let software = ServerSoftware::ALL
            .into_iter()
            .find(|software| software.name() == name)
            .ok_or_else(|| did_you_mean(name, known).unwrap_or_else(|| format!("it is one of {}", known.join(", "))))?;
        let implementation = match implementation {
            Some(_) if software != ServerSoftware::Uvicorn => {
                return Err(format!("{name} has one implementation of WebSocket"));
            }
            Some(other) if !IMPLEMENTATIONS.iter().any(|(known, _)| *known == other) => {
                let known = IMPLEMENTATIONS.map(|(known, _)| known);
                return Err(did_you_mean(other, known)
                    .unwrap_or_else(|| format!("in the brackets stands one of {}", known.join(", "))));
            }
            implementation => implementation.map(str::to_owned),
        };
        Ok(ServerChoice { software, implementation, version })
    }
}

impl fmt::Display for ServerChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.software.name())?;
        self.implementation.as_ref().map_or(Ok(()), |name| write!(f, "[{name}]"))?;
        self.version.as_ref().map_or(Ok(()), |version| write!(f, "=={version}"))
    }
}

impl ServerChoice {
    /// The package, as pip names it.
    fn package(&self) -> String {
        let name = self.software.name();
        self.version.as_ref().map_or(name.to_owned(), |version| format!("{name}=={version}"))
    }

    /// The packages that it needs to run, without those of the application.
    ///
    /// # Errors
    /// When its version is none.
    pub fn requirements(&self) -> Result<Requirements, AppError> {
        let package = self.package();
        match self.software {
            // By itself it has no implementation of WebSocket.
            ServerSoftware::Uvicorn if !Requirements::is_pinned(&package) => {
                Requirements::of_packages(&[&package, "websockets", "wsproto"])
            }
            _ => Requirements::of_packages(&[&package]),
        }
    }

    /// Whether an interpreter has it, at its version.
    ///
    /// # Errors
    /// Says what is missing there, and what to do.
    pub fn is_in(&self, python: &Path) -> Result<(), AppError> {
        let found = venv::versions(python, &[self.software.name()])?.pop().and_then(|(_, version)| version);
        let (shown, package) = (python.display(), self.package());
        let message = match (&self.version, found) {
            (_, None) => format!(
                "`{shown}` has no {}: install it there with `{shown} -m pip install {package}`",
                self.software.name()
            ),
            (Some(wanted), Some(found)) if *wanted != found => {
                format!(
                    "`{shown}` has {} {found}: install the other with `{shown} -m pip install {package}`",
                    self.software.name()
                )
            }
            _ => return Ok(()),
        };
        Err(AppError { message, details: String::new(), blame: Blame::Setup })
    }

    /// The interpreter that runs it: the given one if it has the server. If it does not, and the user did not choose
    /// it, the interpreter of an environment of ours, which has nothing else.
    ///
    /// # Errors
    /// Says what is missing, and what to do.
    pub fn interpreter(
        &self,
        python: &Path,
        origin: InterpreterOrigin,
        tell: &dyn Fn(&str),
    ) -> Result<PathBuf, AppError> {
        match (self.is_in(python), origin) {
            (Ok(()), _) => Ok(python.to_owned()),
            (Err(trouble), InterpreterOrigin::Chosen) => Err(trouble),
            (Err(_), InterpreterOrigin::Default) => self.requirements()?.install(python, tell),
        }
    }

    /// Its arguments, to listen on a port of loopback.
    fn arguments(&self, port: u16, lifespan: LifespanMode) -> Vec<String> {
        let port = port.to_string();
        let mut arguments = vec!["-m".to_owned(), self.software.name().to_owned()];
        arguments.extend(
            match self.software {
                ServerSoftware::Uvicorn => vec!["--host", "127.0.0.1", "--port", &port, "--no-access-log"],
                ServerSoftware::Hypercorn => vec!["--bind", "127.0.0.1:{port}"],
                ServerSoftware::Daphne => vec!["--bind", "127.0.0.1", "--port", &port, "--verbosity", "0"],
                ServerSoftware::Granian => {
                    let interface = if lifespan == LifespanMode::Off { "asginl" } else { "asgi" };
                    vec!["--interface", interface, "--host", "127.0.0.1", "--port", &port]
                }
            }
            .into_iter()
            .map(|argument| argument.replace("{port}", &port)),
        );
        if self.software == ServerSoftware::Uvicorn && lifespan == LifespanMode::Off {
            arguments.extend(["--lifespan".to_owned(), "off".to_owned()]);
        }
        let implementation = self.implementation.as_ref();
        if let Some((_, flag)) = IMPLEMENTATIONS.iter().find(|(name, _)| implementation.is_some_and(|own| own == name))
        {
            arguments.extend(["--ws".to_owned(), (*flag).to_owned()]);
        }
        arguments
    }
}

impl ServerSoftware {
    /// Whether it can serve an app without sending it lifespan events.
    pub fn can_omit_lifespan(self) -> bool {
        match self {
            ServerSoftware::Uvicorn | ServerSoftware::Granian | ServerSoftware::Daphne => true,
            ServerSoftware::Hypercorn => false,
        }
    }
}

/// Where an interpreter comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterpreterOrigin {
    /// The user named it, or it is that of a virtual environment.
    Chosen,
    /// It is the system's.
    Default,
}

/// A server, and the application for it.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The application, and an interpreter that has the server.
    pub site: Site,
    /// The server.
    pub server: ServerChoice,
    /// Arguments of the server beside our own.
    pub flags: Vec<String>,
    /// How long it may take to start. Real time.
    pub start_limit: Duration,
}

/// A server that runs, with its witness.
#[derive(Debug)]
pub struct Server {
    installation: Installation,
    port: u16,
    /// Keeps the port reserved meanwhile.
    _reserved: TcpSocket,
    directory: LaidOut,
    /// Arguments of a case, beside those of the installation.
    arguments: Mutex<Vec<String>>,
    process: Mutex<ServerProcess>,
    /// Held while a process takes the place of one that ended, so that clients that come together start one only.
    succession: tokio::sync::Mutex<()>,
    /// How many processes have taken the place of another.
    successors: AtomicUsize,
    /// The troubles with the ends of earlier processes.
    complaints: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct ServerProcess {
    // Dropped before the event log, so that no process is left that would write into it.
    group: Group,
    printed: Printed,
    ledger: Arc<WitnessLog>,
    /// The last signal that a case sent it, and when.
    told: Option<(signal::Signal, Instant)>,
    /// Whether a case froze it.
    is_frozen: bool,
    /// Whether its end is in a transcript.
    is_end_recorded: bool,
}

impl Server {
    /// Loads an application once to see whether it can be, which blocks, and starts its server.
    ///
    /// # Errors
    /// Says why the application cannot be loaded, or the server does not start, and what to do.
    pub async fn start(installation: Installation) -> Result<(Server, Introduction), AppError> {
        // In lockstep it would keep this thread, and the server with it, on one core.
        let looked_at = Site { clock: Clock::Real, ..installation.site.clone() };
        let (_, introduction) = Interpreter::start(&looked_at, 0, RunMemory::default())?;
        Ok((Server::run(installation).await?, introduction))
    }

    /// Starts the server of an application that can be loaded.
    ///
    /// # Errors
    /// Says why it does not start.
    pub async fn run(installation: Installation) -> Result<Server, AppError> {
        let (reserved, port) =
            reserve().map_err(|error| trouble(format!("no port of this machine can be had: {error}")))?;
        let directory = LaidOut::write(&[("relapse_shim.py", SHIM), ("relapse_witness.py", WITNESS)])
            .map_err(|error| trouble(format!("no temporary files can be written: {error}")))?;
        let process = Mutex::new(launch(&installation, &[], port, directory.path()).await?);
        let (arguments, complaints) = (Mutex::default(), Mutex::default());
        let (succession, successors) = (tokio::sync::Mutex::new(()), AtomicUsize::new(0));
        Ok(Server {
            installation,
            port,
            _reserved: reserved,
            directory,
            arguments,
            process,
            succession,
            successors,
            complaints,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Opens a link to it, whose events this recorder records; `None` if it does not listen. A server that ended by itself
    /// is followed by another, and its end is recorded.
    ///
    /// # Errors
    /// When the next one does not start.
    pub async fn connect(&self, scribe: &ExchangeRecorder) -> Result<Option<Link>, AppError> {
        if self.has_ended() {
            let _guard = self.succession.lock().await;
            let ended = {
                let mut process = self.process();
                let ended = process.group.child.try_wait().ok().flatten();
                if ended.is_some() && process.told.is_some() {
                    // The case ended it, and goes on without it.
                    return Ok(None);
                }
                ended.map(|status| format!("{} ended: {status}\n{}", self.installation.server, process.printed.last()))
            };
            if let Some(why) = ended {
                scribe.record(Actor::Process, EventKind::Exited { why: why.trim_end().to_owned() });
                self.launch_anew().await?;
            }
        }
        let ledger = Arc::clone(&self.process().ledger);
        let dialing = timeout(CONNECT_LIMIT, dial(self.address(), scribe.receiving()));
        let Ok(Ok(stream)) = dialing.await else { return Ok(None) };
        let Ok(own) = stream.local_addr() else { return Ok(None) };
        ledger.expect(own.port(), scribe);
        Ok(Some(Link::Tcp(stream)))
    }

    /// How many calls of the application go on. Everything that it told until now is written down by then.
    pub fn running(&self) -> usize {
        let ledger = Arc::clone(&self.process().ledger);
        ledger.running()
    }

    /// Records the exceptions that nothing in the application has asked for.
    pub fn record_unretrieved(&self) {
        let ledger = Arc::clone(&self.process().ledger);
        ledger.record_unretrieved();
    }

    /// Detaches later reports from earlier exchanges.
    pub fn forget(&self) {
        self.process().ledger.forget();
    }

    /// Starts a process in place of the present one, with the arguments that are asked for now.
    async fn launch_anew(&self) -> Result<(), AppError> {
        let arguments = lock(&self.arguments).clone();
        let _ = self.process().group.end();
        let process = launch(&self.installation, &arguments, self.port, self.directory.path()).await?;
        *self.process() = process;
        self.successors.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The process that runs, as its number among those that were started; `None` where it has ended.
    pub fn generation(&self) -> Option<usize> {
        (!self.has_ended()).then(|| self.successors.load(Ordering::Relaxed))
    }

    /// Lets it run with these arguments beside those of its installation; it is started anew where it runs with others.
    ///
    /// # Errors
    /// Says why it does not start with them.
    pub async fn start_with(&self, arguments: &[String]) -> Result<(), AppError> {
        let runs_with_them = *lock(&self.arguments) == arguments && !self.has_ended();
        if runs_with_them {
            return Ok(());
        }
        self.end_process().await;
        *lock(&self.arguments) = arguments.to_vec();
        self.launch_anew().await.map_err(|trouble| match arguments {
            [] => trouble,
            given => AppError { message: format!("with `{}`: {}", given.join(" "), trouble.message), ..trouble },
        })
    }

    /// Sends the process that was started a signal, and records that. A server with workers passes on what it wants to.
    /// Where it has ended, that is recorded, and that the step was not performed.
    pub fn signal(&self, signal: signal::Signal, step: usize, scribe: &ExchangeRecorder) {
        self.look_for_exit(scribe);
        let mut process = self.process();
        if process.group.child.try_wait().is_ok_and(|status| status.is_some()) {
            return scribe.record(Actor::Process, EventKind::NotPerformed { step });
        }
        // Its effects come after it.
        scribe.record(Actor::Process, EventKind::Signaled { signal });
        process.told = Some((signal, Instant::now()));
        process.is_frozen = match signal {
            signal::Signal::Stop => true,
            signal::Signal::Cont => false,
            _ => process.is_frozen,
        };
        process.send(signal);
    }

    /// Waits for the end of the process, and records how it ended, or that it did not.
    pub async fn await_exit(&self, expected: ExitExpectation, limit: Duration, scribe: &ExchangeRecorder) {
        let _ = timeout(limit, self.ended()).await;
        self.look_for_exit(scribe);
        let exit = self.process().exit();
        scribe.record(Actor::Process, EventKind::ExitAwaited { expected, limit, exit });
    }

    /// Records how the process ended, once, if it did.
    pub fn look_for_exit(&self, scribe: &ExchangeRecorder) {
        let mut process = self.process();
        let Some(exit) = process.exit().filter(|_| !process.is_end_recorded) else { return };
        process.is_end_recorded = true;
        let after = match process.told {
            Some((signal, at)) => format!(" {:.1} s after {signal}", at.elapsed().as_secs_f64()),
            None => String::new(),
        };
        let why = format!("{} ended{after}: {exit}\n{}", self.installation.server, process.printed.last());
        scribe.record(Actor::Process, EventKind::Exited { why: why.trim_end().to_owned() });
    }

    /// Replaces a process that a case sent a signal, so that the next one meets a server that got none.
    ///
    /// # Errors
    /// When the next one does not start.
    pub async fn recover(&self) -> Result<(), AppError> {
        if self.process().told.is_none() {
            return Ok(());
        }
        self.end_process().await;
        self.launch_anew().await
    }

    /// The troubles with the ends of processes that were replaced.
    pub fn take_complaints(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.complaints))
    }

    /// Ends the process; what is wrong with that is kept.
    async fn end_process(&self) {
        let complaint = self.stop().await;
        let mut complaints = lock(&self.complaints);
        let new = complaint.filter(|new| !complaints.contains(new));
        complaints.extend(new);
    }

    /// Tells it to stop (SIGTERM), unless a case did, and lets it go on where a case froze it.
    pub fn terminate(&self) {
        let process = self.process();
        if !process.told.is_some_and(|(signal, _)| signal.ends_servers()) {
            process.send(signal::Signal::Term);
        }
        if process.is_frozen {
            process.send(signal::Signal::Cont);
        }
    }

    /// Comes to its end with the process.
    async fn ended(&self) {
        while !self.has_ended() {
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.process().group.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Tells it to stop, and ends it where it does not within 5 s; what was wrong with that, if anything.
    pub async fn stop(&self) -> Option<String> {
        self.terminate();
        let is_late = timeout(STOP_LIMIT, self.ended()).await.is_err();
        let mut process = self.process();
        let _ = process.group.end();
        process.ledger.complaint_of_the_end().or_else(|| {
            let server = &self.installation.server;
            is_late.then(|| format!("{server} did not end within {} s of SIGTERM", STOP_LIMIT.as_secs()))
        })
    }

    fn process(&self) -> MutexGuard<'_, ServerProcess> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerProcess {
    /// Sends the process that was started a signal, and none that it started itself.
    fn send(&self, signal: signal::Signal) {
        let id = i32::try_from(self.group.child.id()).ok().and_then(Pid::from_raw);
        let _ = id
            .zip(rustix::process::Signal::from_named_raw(signal.number()))
            .map(|(id, signal)| kill_process(id, signal));
    }

    /// How it ended; `None` while it runs.
    fn exit(&mut self) -> Option<Exit> {
        self.group.child.try_wait().ok().flatten().map(Exit::of)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A reserved loopback port, bound and not listened on, so that a server may take it.
fn reserve() -> io::Result<(TcpSocket, u16)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

/// Starts the process of a server, and waits until it listens.
async fn launch(
    installation: &Installation,
    arguments: &[String],
    port: u16,
    directory: &Path,
) -> Result<ServerProcess, AppError> {
    let Installation { site, server: choice, start_limit, .. } = installation;
    let mut process = spawn(installation, arguments, port, directory)?;
    let listening = async {
        loop {
            if let Some(why) = why_not(&mut process, choice, &site.directory) {
                return Err(why);
            }
            let is_ready = match process.ledger.standing() {
                (is_loaded, WitnessedLifespan::Untold) => {
                    is_loaded && (choice.software == ServerSoftware::Daphne || site.lifespan == LifespanMode::Off)
                }
                (_, lifespan) => lifespan == WitnessedLifespan::Started,
            };
            if is_ready && TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
    };
    match timeout(site.deadline.cap(*start_limit), listening).await {
        Ok(Ok(())) => Ok(process),
        Ok(Err(trouble)) => Err(trouble),
        Err(_) => {
            let what = match process.ledger.standing() {
                (false, _) => "the import of the application goes on",
                (true, WitnessedLifespan::Starting) => "the application has not said `lifespan.startup.complete`",
                (true, _) => "it does not listen",
            };
            let limit = start_limit.as_secs_f64();
            let message = match site.deadline.is_over() {
                true => format!("{} before {choice} started: {what}; --time gives it more", site.deadline.reason()),
                false => format!("{choice} did not start within {limit} s: {what}; --start-limit gives it more"),
            };
            Err(AppError { message, details: process.printed.last(), blame: Blame::App })
        }
    }
}

/// Starts the process of a server.
fn spawn(
    installation: &Installation,
    arguments: &[String],
    port: u16,
    directory: &Path,
) -> Result<ServerProcess, AppError> {
    let site = &installation.site;
    let socket = directory.join("ledger");
    let _ = std::fs::remove_file(&socket);
    let ledger = WitnessLog::open(&socket, &site.directory)
        .map_err(|error| trouble(format!("no socket can be had in {}: {error}", directory.display())))?;
    let mut command = command(installation, arguments, port, directory);
    command.env("RELAPSE_LEDGER", &socket);
    let (output, input) = io::pipe().map_err(|error| trouble(format!("no pipe can be had: {error}")))?;
    let errors = input.try_clone().map_err(|error| trouble(format!("no pipe can be had: {error}")))?;
    command.stdin(Stdio::null()).stdout(input).stderr(errors);
    let spawned = Group::spawn(&mut command, Confinement::App);
    drop(command);
    let group = spawned.map_err(|error| not_started(&site.python, &site.directory, &error))?;
    let (printed, ledger, mut panic) = (Printed::default(), Arc::new(ledger), Panic::default());
    let told = Arc::downgrade(&ledger);
    printed.keep_and_tell(output, move |line| {
        if let Some(ledger) = told.upgrade() {
            ledger.take_line(&mut panic, line);
        }
    });
    Ok(ServerProcess { group, printed, ledger, told: None, is_frozen: false, is_end_recorded: false })
}

/// The command that starts a server with the witness around the app.
fn command(installation: &Installation, arguments: &[String], port: u16, directory: &Path) -> Command {
    let Installation { site, server: choice, flags, .. } = installation;
    let mut command = Command::new(&site.python);
    command
        .args(choice.arguments(port, site.lifespan))
        .args(flags)
        .args(arguments)
        .arg("relapse_witness:app")
        .current_dir(&site.directory);
    let mut path = directory.as_os_str().to_owned();
    // The app's own path stands behind that of the witness.
    let own = site.environment.iter().rev().find(|(name, _)| name == "PYTHONPATH");
    let own = own.map(|(_, value)| value.into()).or_else(|| std::env::var_os("PYTHONPATH"));
    if let Some(more) = own.filter(|more| !more.is_empty()) {
        path.push(":");
        path.push(more);
    }
    command.env("RELAPSE_APP", &site.app).envs(site.environment.iter().cloned());
    command.env("PYTHONPATH", path).env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1");
    if site.factory {
        command.env("RELAPSE_FACTORY", "1");
    }
    let harness: Vec<String> = ours().into_iter().map(|number| number.to_string()).collect();
    command.env("RELAPSE_HARNESS", harness.join(" "));
    command
}

/// Why a server will not listen any more, if so.
fn why_not(process: &mut ServerProcess, choice: &ServerChoice, directory: &Path) -> Option<AppError> {
    let standing = process.ledger.standing();
    if let Some(trouble) = process.ledger.trouble() {
        return Some(trouble);
    }
    let mut blame = Blame::App;
    let message = match standing {
        (_, WitnessedLifespan::Failed(why)) => format!("the application failed to start: {why}"),
        _ => {
            let status = process.group.child.try_wait().ok().flatten()?;
            let said = process.printed.last();
            if said.contains("ddress already in use") || said.contains("Errno 98") {
                blame = Blame::Setup;
                format!("{choice} finds its port taken: start again")
            } else {
                format!("{choice} ended before it listened: {status}")
            }
        }
    };
    // Its last output is complete only after its end.
    let _ = process.group.end();
    Some(AppError::of_start(message, process.printed.last(), blame, directory))
}

fn trouble(message: String) -> AppError {
    AppError { message, details: String::new(), blame: Blame::Setup }
}
