//! Why a command cannot do its work.

use std::net::SocketAddr;
use std::path::PathBuf;

use relapse_core::error::{AppError, Error};

use crate::exit_code::CommandExit;

/// The end of a command: its exit code, or why it could not do its work.
pub(crate) type CommandResult<T = CommandExit> = Result<T, Failure>;

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments do not fit together or to what they name.
    Usage(UsageError),
    /// The work failed.
    Work(Error),
    /// No case is left, as these files and filters are wrong.
    NoCase(Vec<Error>),
}

impl Failure {
    /// The exit code of a command that ends with it.
    pub(crate) fn exit(&self) -> CommandExit {
        match self {
            Failure::Usage(_) | Failure::Work(_) | Failure::NoCase(_) => CommandExit::NoResult,
        }
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Failure {
        Failure::Usage(error)
    }
}

impl From<AppError> for Failure {
    fn from(trouble: AppError) -> Failure {
        Failure::Work(trouble.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Work(error)
    }
}

/// A mistake in what a command is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    /// Options of a Python application without one.
    #[error("there is no Python application to load with {options}: `--target asgi:module:app` names one")]
    NoPythonApplication {
        /// The options, as a shell takes them.
        options: String,
    },
    /// `--server` with an option that excludes it.
    #[error("--server runs a real server: --profile plays one, and --fresh is for interpreters without one")]
    ServerIsPlayed,
    /// `--lifespan off` with a server that always sends lifespan events.
    #[error("{server} sends lifespan events to every application; `--lifespan off` needs another")]
    ServerSendsLifespan {
        /// The server.
        server: String,
    },
    /// Two versions of different forms, each with the noun of its form.
    #[error("a {one} and a {other} cannot be compared: name two of a kind")]
    DifferentKinds {
        /// The target.
        one: &'static str,
        /// The other version.
        other: &'static str,
    },
    /// An option that changes what is loaded, with a target that someone else runs.
    #[error("{option} is about an application that is loaded here; a {noun} of yours is what it is")]
    NotLoaded {
        /// The option.
        option: &'static str,
        /// The noun of the target's form.
        noun: &'static str,
    },
    /// `--check-determinism` on a target that keeps the real clock.
    #[error(
        "--check-determinism needs the virtual clock: in real time no two runs are the same; it works on the built-in backend and on a Python application without --server and `--clock real`"
    )]
    RealClockDiffers,
    /// A host that is not this machine and is not allowed.
    #[error("{host} is not this machine; name it with `--allow-host {host}` if it may be contacted")]
    HostNotAllowed {
        /// The host.
        host: String,
    },
    /// `--allow-host` without a URL.
    #[error("--allow-host is about a server behind a URL; a Python application runs on this machine")]
    HostOfPython,
    /// The variable of a token is not set.
    #[error("the variable {name} is not set, and the service file says that it holds the token")]
    TokenVariable {
        /// The variable.
        name: String,
    },
    /// The command for a token takes too long.
    #[error("`{command}` printed no token within {seconds} s")]
    TokenLate {
        /// The command.
        command: String,
        /// The limit.
        seconds: u64,
    },
    /// The command for a token cannot be run.
    #[error("`{command}` cannot be run: {why}")]
    TokenCommand {
        /// The command.
        command: String,
        /// The reason of the system.
        why: String,
    },
    /// The command for a token printed none.
    #[error("`{command}` gave no token ({status}): {said}")]
    NoToken {
        /// The command.
        command: String,
        /// How it ended.
        status: String,
        /// Its standard error.
        said: String,
    },
    /// `--wait` or `--watch` in virtual time.
    #[error(
        "--wait and --watch let time pass, and that of an application in memory is virtual: --server runs it behind \
         a real server, and --clock real lets it keep real time"
    )]
    WaitInVirtualTime,
    /// `--watch` behind several profiles.
    #[error("--watch looks behind one profile: name one")]
    WatchOfSeveral,
    /// No route to look at.
    #[error("it tells no routes: --path names one, or a relapse.toml says how it is spoken to")]
    NoRoute,
    /// No route that may be asked for without a change.
    #[error("there is nothing that can be tried without changing anything: --path names what may be asked for")]
    NothingToTry,
    /// `--before` without a target of the user's own.
    #[error("--before is about something of yours: `--target` names its other version")]
    BeforeOfBackend,
    /// Options of a Python application on the built-in backend.
    #[error(
        "--hostile, --profile and --write-pytest are about a Python application of yours: `--target asgi:module:app` names one"
    )]
    HuntOptionsOfPython,
    /// Options of the built-in backend on a target of the user's own.
    #[error("--detection and --defect are about the built-in backend")]
    HuntOptionsOfBackend,
    /// Tests for what is not run in lockstep.
    #[error("--write-pytest is about a Python application that is run in lockstep: `--target asgi:module:app`")]
    TestsOfServer,
    /// Tests behind several profiles.
    #[error("--write-pytest writes the events of one server: name one profile with it, as in `--profile {first}`")]
    TestsOfSeveral {
        /// The first of the profiles.
        first: String,
    },
    /// Faults at a place that the target does not have.
    #[error("no fault can act at the {place} of this target; at the {known} one can")]
    NoSuchPlace {
        /// The place.
        place: String,
        /// The places that it has.
        known: String,
    },
    /// A target on which a hunt would find nothing.
    #[error("a hunt would prove nothing: {why}")]
    VainHunt {
        /// The reason.
        why: String,
    },
    /// A baseline that is not there.
    #[error("there is no baseline {}; --update-baseline writes one", path.display())]
    NoBaseline {
        /// The file.
        path: PathBuf,
    },
    /// A hunt that reached nothing.
    #[error("the hunt proves nothing: no upgrade was accepted, or no fault acted; let it have more cases")]
    HuntReachedNothing,
    /// A hunt that could not do everything.
    #[error("the hunt is incomplete, so it concludes nothing; what it found stands above")]
    HuntUnfinished,
    /// A corpus behind several profiles.
    #[error("--corpus hunts behind one profile: name one, as in `--profile {first}`")]
    CorpusBehindSeveral {
        /// The first of the profiles.
        first: String,
    },
    /// A service file beside a corpus.
    #[error("--corpus hunts without a hint, and the relapse.toml of this directory would be one")]
    HintForCorpus,
    /// No service file, where answers have to be known.
    #[error("what is answered has to be known: `relapse init --target {target}` writes a relapse.toml")]
    NoServiceFile {
        /// The target and its options, as a shell takes them.
        target: String,
    },
    /// A service file without messages.
    #[error(
        "what is asked and answered has to be known: put `request` and `events` into the relapse.toml, under [messages]"
    )]
    NoMessages,
    /// A service file that is there already.
    #[error("{} is there already; --force writes over it", path.display())]
    FileExists {
        /// The file.
        path: PathBuf,
    },
    /// A listener that other machines reach.
    #[error("clients on other machines reach {address}: `--allow-remote-clients` lets them in")]
    RemoteClients {
        /// The address.
        address: SocketAddr,
    },
    /// A control address that other machines reach.
    #[error("--control must be an address of this machine alone: every client that reaches it controls the proxy")]
    ControlFromElsewhere,
    /// A fault of a case that does not act at an edge.
    #[error("`{fault}` of {case} cannot act here: there is only an edge")]
    FaultElsewhere {
        /// The fault.
        fault: String,
        /// The case file.
        case: String,
    },
    /// A case without a fault of the edge.
    #[error("{case} has no fault of the edge: nothing of it acts here")]
    NoEdgeFault {
        /// The case file.
        case: String,
    },
    /// A log that came too fast.
    #[error("{lines} line(s) of the log are missing: they came too fast")]
    LogLost {
        /// How many lines.
        lines: u64,
    },
    /// The number of no fault.
    #[error("there is no fault {number:?}; `list` shows their numbers")]
    NoSuchFault {
        /// The text in place of the number.
        number: String,
    },
    /// A line that is no order.
    #[error("`{order}` is no order: {help}")]
    NoSuchOrder {
        /// The first word of the line.
        order: String,
        /// The nearest order, or how to list them.
        help: String,
    },
    /// A server without a known profile.
    #[error("no profile {name} is known; --like names another to compare with")]
    NoKnownProfile {
        /// The name of the profile.
        name: String,
    },
    /// A directory without reproducers.
    #[error("there is no reproducer in {}", path.display())]
    NoReproducer {
        /// The directory.
        path: PathBuf,
    },
}
