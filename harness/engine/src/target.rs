//! A launched target, as the client and the runner see it.

use std::fmt;
use std::time::Duration;

use crate::{
    case::{Case, ServerArguments},
    note::Note,
};
use relapse_core::{
    client::{
        credential::{Credential, Form, Presented},
        signal::{ExitExpectation, Signal},
        step::Action,
    },
    error::Error,
    fault::Place,
    record::{
        code::Blocks,
        service::{Service, TargetKind},
        transcript::{Leftover, Leftovers},
    },
};
use relapse_simulate::{
    application::BoxFuture,
    clock::Clock,
    link::Link,
    recorder::{ExchangeRecorder, Recorder},
};

/// The abilities of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Where faults can act.
    pub places: &'static [Place],
    /// The clock that it keeps.
    pub clock: Clock,
    /// Whether a fresh process can follow the present one at little cost.
    pub renewal: Renewal,
    /// Whether the harness holds the server's process.
    pub process: ProcessControl,
}

/// Whether the harness holds the process of a server, so that a case can send it signals and give it arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessControl {
    /// It starts a real server, and [`Target::signal`], [`Target::await_exit`] and [`Target::start_with`] act on it.
    Held,
    /// There is no such process, or someone else starts it.
    None,
}

impl ProcessControl {
    /// Why a case cannot be executed on such a target, by the first of its steps and keys that need a server that the
    /// harness starts; `None` where nothing does.
    pub fn refuses(self, case: &Case) -> Option<String> {
        if self == ProcessControl::Held {
            return None;
        }
        let needs = "cannot be executed here: it needs a server that the harness starts, as `--target \
                     asgi:module:app --server uvicorn` names one";
        if !case.server_arguments.arguments.is_empty() {
            return Some(format!("{}`server_arguments` {needs}", case.server_arguments.line));
        }
        case.steps.iter().find_map(|step| match &step.act {
            Action::Signal(signal) => Some(format!("{}`signal = \"{signal}\"` {needs}", step.line)),
            Action::AwaitExit(_) => Some(format!("{}`wait_exit` {needs}", step.line)),
            Action::Open(_)
            | Action::Request(_)
            | Action::SendText(_)
            | Action::SendBytes(_)
            | Action::Ping
            | Action::Wait(_)
            | Action::Close(_)
            | Action::Leave
            | Action::Reset
            | Action::Pause
            | Action::Deafen
            | Action::Freeze
            | Action::StopReading
            | Action::ReadAnswer => None,
        })
    }
}

/// Whether a fresh process can follow the present one at little cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// [`Target::renew`] does it.
    Cheap,
    /// The process lives on, or takes long to start.
    None,
}

/// How much of a request budget is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetLeft {
    /// More than half, or there is no limit.
    Ample,
    /// At most half. The rest is for repeating what was found.
    Reserve,
}

/// The tasks and objects that an application holds for clients that are gone. It is empty unless each of several clients
/// has one, and on a target that cannot look into the application.
#[derive(Debug, Default)]
pub struct LeftBehind {
    /// Each with the exchange of the last of its clients.
    pub found: Vec<(ExchangeRecorder, Leftover)>,
    /// Whether an earlier run has shown of all of it that it stays, so that it need not be given time to go.
    pub is_known: bool,
}

/// The host that a target in memory is called by.
pub const IN_MEMORY: &str = "relapse.test";

/// A launched target: whatever stands behind the edge.
pub trait Target: fmt::Debug + Sync {
    /// The kind of target.
    fn kind(&self) -> TargetKind;

    /// Its abilities.
    fn capabilities(&self) -> Capabilities;

    /// Host and port, as its clients name it.
    fn authority(&self) -> String {
        IN_MEMORY.to_owned()
    }

    /// Opens a link to it; `None` when nothing listens. The recorder records everything that happens behind the link.
    ///
    /// # Errors
    /// When the harness could not do its work.
    fn connect(&self, scribe: ExchangeRecorder) -> BoxFuture<'_, Result<Option<Link>, Error>>;

    /// Starts its process anew, under the process faults of the recorder's plan. Its events belong to no exchange.
    ///
    /// # Errors
    /// When the target has no process that the harness may start.
    fn restart(&self, _scribe: ExchangeRecorder) -> BoxFuture<'_, Result<(), Error>> {
        let fault = "anything at the process of a target that the harness does not start".to_owned();
        Box::pin(async move { Err(Error::NoSuchPlace { fault }) })
    }

    /// Sends its server's process a signal, and records that; where it has ended, that instead.
    ///
    /// # Errors
    /// When the target has no process that the harness starts.
    fn signal(&self, _signal: Signal, _step: usize, _scribe: ExchangeRecorder) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Err(Error::NoServerProcess) })
    }

    /// Waits for the end of its server's process, and records what came of it.
    ///
    /// # Errors
    /// When the target has no process that the harness starts.
    fn await_exit(
        &self,
        _: ExitExpectation,
        _limit: Duration,
        _scribe: ExchangeRecorder,
    ) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Err(Error::NoServerProcess) })
    }

    /// Records how its server's process ended, where it did. A target without one has nothing to record.
    fn look_for_exit(&self, _scribe: ExchangeRecorder) {}

    /// Starts its server anew with these arguments beside its own, unless it runs with them.
    ///
    /// # Errors
    /// When it does not start with them, or the target has no server that the harness starts.
    fn start_with<'a>(&'a self, arguments: &'a ServerArguments) -> BoxFuture<'a, Result<(), Error>> {
        let is_default = arguments.arguments.is_empty();
        Box::pin(async move { if is_default { Ok(()) } else { Err(Error::NoServerProcess) } })
    }

    /// Tries whether a connection to it can be made now. A target that the harness starts has one that listens.
    ///
    /// # Errors
    /// Says why there is none.
    fn reach(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    /// A credential of this kind for a user; a ticket where one is asked for.
    fn credential(&self, kind: Credential, user: &str, form: Form) -> Presented;

    /// The known part of its service.
    fn service(&self) -> Service;

    /// The connections and sessions that it holds now; `None` where it cannot tell.
    fn residue(&self) -> Option<Leftovers>;

    /// The tasks and objects that its application holds for clients of a run that are gone. `is_last` says that the run does
    /// not ask again: what is found then is remembered, and later runs need not wait for it.
    fn left_behind(&self, _run: &Recorder, _is_last: bool) -> LeftBehind {
        LeftBehind::default()
    }

    /// Lets timers fire that the application has set for clients of a run that is over, as far as that takes no real time. Records
    /// that the application ends meanwhile.
    fn await_aftermath<'a>(&'a self, _run: &'a Recorder) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    /// Records the exceptions of tasks and threads of a run that ends now which nothing in the application has asked for. What
    /// is recorded once is not recorded for a later run.
    fn record_unretrieved(&self, _run: &Recorder) {}

    /// Ends whatever a case left behind, so that it does not count as the next one's.
    ///
    /// # Errors
    /// When it panicked.
    fn clear(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    /// Replaces its process, so that the next connection meets one that has served no client.
    ///
    /// # Errors
    /// When it panicked.
    fn renew(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    /// Stops it where the harness started it, and waits for its end; gives what went wrong then.
    ///
    /// # Errors
    /// When it panicked.
    fn shut_down(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        Box::pin(async {
            self.stop().await?;
            Ok(Vec::new())
        })
    }

    /// Remarks about its runs that a user should read, such as work that the virtual clock does not wait for.
    fn notes(&self) -> Vec<Note> {
        Vec::new()
    }

    /// The blocks of the app's own code, where the code that calls reach is counted.
    fn blocks(&self) -> Blocks {
        Blocks::new()
    }

    /// How much of its request budget is left.
    fn budget(&self) -> BudgetLeft {
        BudgetLeft::Ample
    }

    /// Ends whatever still runs. A panic in the target comes out here, so that a target that died cannot look like one
    /// that passed.
    ///
    /// # Errors
    /// When it panicked.
    fn stop(&self) -> BoxFuture<'_, Result<(), Error>>;
}
