//! An application's dependencies, behind one interface, so that faults can act on every call.

use std::fmt;
use std::future::pending;

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::sleep;

use relapse_core::{
    asgi::exception::Exception,
    fault::{CallFault, FaultKind, Place, ProcessFault},
    record::transcript::{Actor, EventKind},
};
use relapse_simulate::{application::BoxFuture, recorder::ExchangeRecorder};

/// Declares the dependencies: variant, name, and the operations an application may call.
macro_rules! dependencies {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal: $operations:expr;)*) => {
        /// Something the service depends on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Dependency { $($(#[doc = $doc])* $variant,)* }

        impl Dependency {
            /// Every dependency's name with its operations, as cases may use them.
            pub const NAMES: &[(&str, &[&str])] = &[$(($name, &$operations),)*];

            /// The dependency's name.
            pub const fn name(self) -> &'static str {
                match self { $(Dependency::$variant => $name,)* }
            }
        }
    };
}

dependencies! {
    /// Users.
    Database "database": ["ping", "lookup"];
    /// Tickets.
    Redis "redis": ["ping", "get", "set"];
    /// Tells whether a token was revoked.
    AuthService "auth_service": ["check"];
    /// Holds the signing secret where no variable does.
    SecretManager "secret_manager": ["read"];
    /// Runs agents.
    AgentSupervisor "agent_supervisor": ["ping", "run"];
    /// Holds the threads that agents run in.
    ThreadService "thread_service": ["ping", "open"];
    /// Carries an agent's events to its user's connections.
    WebsocketBridge "websocket_bridge": ["ping", "emit"];
}

/// The dependencies that the service needs to start.
pub const NEEDED_TO_START: &[&str] = &[Dependency::SecretManager.name()];

/// The environment variables that the service reads. `{ENVIRONMENT}` stands for the environment's name.
pub const VARIABLES: &[&str] = &[
    "ENVIRONMENT",
    "GCP_PROJECT_ID",
    "GOOGLE_CLOUD_PROJECT",
    "K_SERVICE",
    "BACKEND_URL",
    "AUTH_SERVICE_URL",
    "TESTING",
    "JWT_SECRET_{ENVIRONMENT}",
    "JWT_SECRET_KEY",
    "JWT_SECRET",
    "JWT_SECRET_NAME",
    "LLM_API_KEY",
    "DEMO_MODE",
    "E2E_OAUTH_SIMULATION_KEY",
];

/// The modules that the service imports and that can be missing.
pub const MODULES: &[&str] = &["redis"];

/// A call to a dependency failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependencyError {
    /// Which dependency.
    pub dependency: Dependency,
    /// The message of its client library.
    pub message: String,
}

impl fmt::Display for DependencyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The answer of a dependency that works.
const ANSWER: &[u8] = br#"{"ok":true}"#;

/// An answer as an application understands it.
#[derive(Deserialize)]
struct DependencyAnswer {
    ok: bool,
}

/// Reads an answer, as a client library does that decodes JSON and looks for what it asked for.
///
/// # Errors
/// When it is no answer, or only a part of one.
pub fn read_answer(dependency: Dependency, answer: &[u8]) -> Result<(), DependencyError> {
    let message = match serde_json::from_slice::<DependencyAnswer>(answer) {
        Ok(DependencyAnswer { ok: true }) => return Ok(()),
        Ok(DependencyAnswer { ok: false }) => format!("{} did not do it", dependency.name()),
        Err(error) => format!("cannot decode the answer of {}: {error}", dependency.name()),
    };
    Err(DependencyError { dependency, message })
}

/// The dependencies of an application.
pub trait Dependencies: Send + Sync + fmt::Debug + 'static {
    /// Makes one call on behalf of the exchange that is being served, and gives the answer as it came. It may take for
    /// ever: the caller has a limit.
    fn call(&self, dependency: Dependency, operation: &'static str) -> BoxFuture<'_, Result<Bytes, DependencyError>>;

    /// Makes the call, if it can be made without waiting; whether it was made, and succeeded. One that has to wait, or
    /// may fail, is left to [`Dependencies::call`].
    fn answers_at_once(&self, _dependency: Dependency, _operation: &'static str) -> bool {
        false
    }

    /// Imports a module on behalf of the process that starts.
    ///
    /// # Errors
    /// `ModuleNotFoundError`.
    fn import(&self, module: &'static str) -> Result<(), Exception>;
}

/// The faults of the plan that act on a call that is made now, each with its place in the plan. Every call is an
/// occasion for every fault, whichever of them acts.
pub fn faults_met<'a>(
    scribe: &'a ExchangeRecorder,
    dependency: Dependency,
    operation: &str,
) -> Vec<(usize, &'a CallFault)> {
    let faults = scribe.plan().faults.iter().enumerate();
    let meant = faults.filter_map(|(index, fault)| match &fault.kind {
        FaultKind::Call { calls, fault } if calls.include(dependency.name(), operation) => Some((index, fault)),
        _ => None,
    });
    meant.filter(|(index, _)| scribe.meets(*index)).collect()
}

/// Writes down a call that came back. What the caller makes of the answer is what it got.
pub fn record_call(
    scribe: &ExchangeRecorder,
    dependency: Dependency,
    operation: &'static str,
    result: &Result<Bytes, DependencyError>,
) {
    let read = result.as_ref().map_err(Clone::clone).and_then(|answer| read_answer(dependency, answer));
    let error = read.err().map(|error| error.to_string());
    let dependency = dependency.name();
    scribe.record(Actor::Dependency, EventKind::DependencyCalled { dependency, operation, error });
}

/// Dependencies that answer at once, and on which the plan's faults act under the virtual clock.
#[derive(Debug, Clone, Copy)]
pub struct InMemory;

impl Dependencies for InMemory {
    fn answers_at_once(&self, dependency: Dependency, operation: &'static str) -> bool {
        ExchangeRecorder::with_current(|scribe| {
            if scribe.has_faults_at(Place::Dependency) {
                return false;
            }
            let dependency = dependency.name();
            scribe.record(Actor::Dependency, EventKind::DependencyCalled { dependency, operation, error: None });
            true
        })
        .unwrap_or(true)
    }

    fn call(&self, dependency: Dependency, operation: &'static str) -> BoxFuture<'_, Result<Bytes, DependencyError>> {
        Box::pin(async move {
            let mut result = Ok(Bytes::from_static(ANSWER));
            let Some(scribe) = ExchangeRecorder::current() else { return result };
            for (index, fault) in faults_met(&scribe, dependency, operation) {
                if result.is_err() {
                    continue;
                }
                scribe.fired_on_call(index, operation);
                match fault {
                    CallFault::Delay { delay } => sleep(delay.0).await,
                    CallFault::Hang {} => pending().await,
                    CallFault::Fail { error } => {
                        result = Err(DependencyError { dependency, message: error.clone() });
                    }
                    CallFault::Garbage { answer } => result = Ok(answer.clone().into()),
                    CallFault::Half {} => {
                        result = result.map(|answer: Bytes| answer.slice(..answer.len() / 2));
                    }
                }
            }
            record_call(&scribe, dependency, operation, &result);
            result
        })
    }

    fn import(&self, module: &'static str) -> Result<(), Exception> {
        let Some(scribe) = ExchangeRecorder::current() else { return Ok(()) };
        for (index, fault) in scribe.plan().faults.iter().enumerate() {
            let FaultKind::Process(ProcessFault::MissingModule { module: missing }) = &fault.kind else { continue };
            if missing == module && scribe.meets(index) {
                scribe.fired(index, Actor::Process, fault.kind.to_string());
                return Err(Exception::new("ModuleNotFoundError", format!("No module named '{module}'")));
            }
        }
        Ok(())
    }
}
