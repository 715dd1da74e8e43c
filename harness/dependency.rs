//! What an application depends on, behind one interface, so that faults can act on every call.

use std::fmt;
use std::future::pending;

use tokio::time::sleep;

use crate::{
    application::Promise,
    exception::Exception,
    fault::{Fault, FaultKind, Place},
    recorder::Scribe,
    transcript::{Party, What},
};

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
            pub fn name(self) -> &'static str {
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
    /// What its client library says.
    pub message: String,
}

impl fmt::Display for DependencyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The dependencies of an application.
pub trait Dependencies: Send + Sync + fmt::Debug + 'static {
    /// Makes one call on behalf of the exchange that is being served. It may take for ever: whoever calls has a limit.
    fn call(&self, dependency: Dependency, operation: &'static str) -> Promise<'_, Result<(), DependencyError>>;

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

/// Dependencies that answer at once, and on which the plan's faults act under the virtual clock.
#[derive(Debug, Clone, Copy)]
pub struct InMemory;

impl Dependencies for InMemory {
    fn answers_at_once(&self, dependency: Dependency, operation: &'static str) -> bool {
        Scribe::with_current(|scribe| {
            if scribe.has_faults_at(Place::Dependency) {
                return false;
            }
            let dependency = dependency.name();
            scribe.record(Party::Dependency, What::DependencyCalled { dependency, operation, error: None });
            true
        })
        .unwrap_or(true)
    }

    fn call(&self, dependency: Dependency, operation: &'static str) -> Promise<'_, Result<(), DependencyError>> {
        Box::pin(async move {
            let Some(scribe) = Scribe::current() else { return Ok(()) };
            let mut result = Ok(());
            let meant =
                |fault: &Fault| fault.kind.calls().is_some_and(|calls| calls.include(dependency.name(), operation));
            let faults = scribe.plan().faults.iter().enumerate();
            // Every call is an occasion for every fault, whichever of them acts.
            let met: Vec<(usize, &Fault)> =
                faults.filter(|(index, fault)| meant(fault) && scribe.meets(*index)).collect();
            for (index, fault) in met {
                if result.is_err() {
                    continue;
                }
                scribe.fired_on_call(index, operation);
                match &fault.kind {
                    FaultKind::Delay { delay, .. } => sleep(*delay).await,
                    FaultKind::Hang { .. } => pending().await,
                    FaultKind::Fail { error, .. } => {
                        result = Err(DependencyError { dependency, message: error.clone() });
                    }
                    _ => {}
                }
            }
            let error = result.as_ref().err().map(ToString::to_string);
            let dependency = dependency.name();
            scribe.record(Party::Dependency, What::DependencyCalled { dependency, operation, error });
            result
        })
    }

    fn import(&self, module: &'static str) -> Result<(), Exception> {
        let Some(scribe) = Scribe::current() else { return Ok(()) };
        for (index, fault) in scribe.plan().faults.iter().enumerate() {
            let names = matches!(&fault.kind, FaultKind::MissingModule { module: name } if name == module);
            if names && scribe.meets(index) {
                scribe.fired(index, Party::Process, fault.kind.to_string());
                return Err(Exception::new("ModuleNotFoundError", format!("No module named '{module}'")));
            }
        }
        Ok(())
    }
}
