//! The start of the service: its phases, and what it says while they last.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    Backend,
    agent::Registry,
    readiness,
    settings::{Secret, SecretSource},
    within,
};
use crate::{defect::Defect, dependency::Dependency};
use relapse_core::asgi::{
    event::{Inbound, Outbound},
    exception::Exception,
};
use relapse_simulate::application::{Receive, SendEvent};

/// How long one attempt of a phase may take.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// The pause between two attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);
/// From when on the start is said to take too long.
const TOO_LONG: Duration = Duration::from_secs(300);

/// The module that the rate limiter of the tool permissions imports.
const RATE_LIMITER_MODULE: &str = "redis";

/// A phase of the start, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StartPhase {
    Init,
    Dependencies,
    Database,
    Cache,
    Services,
    Websocket,
    Finalize,
    Complete,
}

impl StartPhase {
    const ALL: [StartPhase; 8] = [
        StartPhase::Init,
        StartPhase::Dependencies,
        StartPhase::Database,
        StartPhase::Cache,
        StartPhase::Services,
        StartPhase::Websocket,
        StartPhase::Finalize,
        StartPhase::Complete,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            StartPhase::Init => "init",
            StartPhase::Dependencies => "dependencies",
            StartPhase::Database => "database",
            StartPhase::Cache => "cache",
            StartPhase::Services => "services",
            StartPhase::Websocket => "websocket",
            StartPhase::Finalize => "finalize",
            StartPhase::Complete => "complete",
        }
    }
}

/// Where the start stands.
#[derive(Debug)]
pub(super) struct Startup {
    pub(super) phase: StartPhase,
    /// The dependency or step that the current phase waits for, under the name that `/health` may show.
    pub(super) waiting_for: Option<&'static str>,
    began: Instant,
}

impl Default for Startup {
    fn default() -> Self {
        Startup { phase: StartPhase::Init, waiting_for: None, began: Instant::now() }
    }
}

impl Startup {
    pub(super) fn complete(&mut self) {
        self.phase = StartPhase::Complete;
        self.waiting_for = None;
    }

    pub(super) fn is_complete(&self) -> bool {
        self.phase == StartPhase::Complete
    }

    /// The text that `/health` gives for a start that is not complete.
    pub(super) fn message(&self) -> &'static str {
        if self.began.elapsed() > TOO_LONG {
            "Startup taking too long - possible timeout"
        } else {
            "Startup in progress"
        }
    }
}

/// The obstacle that keeps a phase from being over, as the public may know it, and why.
type Obstacle = (&'static str, String);

impl Backend {
    /// The import of the rate limiter at the top of the application's module.
    pub(super) fn import_rate_limiter(&self) -> Result<(), Exception> {
        let imported = self.dependencies.import(RATE_LIMITER_MODULE);
        if imported.is_err() && self.revision.has(Defect::NameErrorAtImport) {
            // `except ImportError: pass`, and a class body that uses the name all the same.
            return Err(Exception::name_error(RATE_LIMITER_MODULE));
        }
        Ok(())
    }

    /// The process's life: says at once that it can be called, and tells its callers how far it is.
    pub(super) async fn serve_lifespan(
        &self,
        mut receive: Box<dyn Receive>,
        mut send: Box<dyn SendEvent>,
    ) -> Result<(), Exception> {
        receive.receive().await?;
        if self.revision.has(Defect::StartupGivesUp)
            && let Err((name, why)) = self.first_obstacle().await
        {
            tracing::error!("startup failed: {name}: {why}");
            return send.send(Outbound::StartupFailed { message: format!("{name}: {why}") }).await;
        }
        if self.revision.has(Defect::ListensWhenStarted) {
            self.start_up().await;
        }
        send.send(Outbound::StartupComplete).await?;
        let stopped = async {
            loop {
                match receive.receive().await {
                    Ok(Inbound::LifespanShutdown) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        let started = async {
            self.start_up().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = stopped => {}
            () = started => {}
        }
        send.send(Outbound::ShutdownComplete).await
    }

    /// Runs the phases, each as often as it takes. What the service can do without is tried once: a session is then
    /// degraded, as it is when the same thing fails later.
    pub(crate) async fn start_up(&self) {
        for phase in StartPhase::ALL {
            loop {
                let (name, why) = match within(ATTEMPT_LIMIT, self.attempt(phase)).await {
                    Some(Ok(())) => break,
                    Some(Err(obstacle)) => obstacle,
                    None => (self.startup().waiting_for.unwrap_or(phase.name()), "no answer in time".to_owned()),
                };
                tracing::warn!("startup phase {}: {name}: {why}", phase.name());
                let is_spared = matches!(phase, StartPhase::Database | StartPhase::Cache)
                    && !readiness::critical(self.environment()).contains(&name);
                if is_spared {
                    break;
                }
                self.startup().waiting_for = Some(name);
                sleep(ATTEMPT_PAUSE).await;
            }
        }
        tracing::info!("startup complete");
    }

    async fn first_obstacle(&self) -> Result<(), Obstacle> {
        for phase in StartPhase::ALL {
            self.attempt(phase).await?;
        }
        Ok(())
    }

    /// Tries to get one phase behind itself.
    async fn attempt(&self, phase: StartPhase) -> Result<(), Obstacle> {
        {
            let mut startup = self.startup();
            startup.phase = phase;
            startup.waiting_for = None;
        }
        match phase {
            StartPhase::Dependencies => {
                let imported = self.dependencies.import(RATE_LIMITER_MODULE);
                imported.map_err(|exception| ("tool_permissions.rate_limiter", exception.to_string()))?;
                self.read_secret().await
            }
            StartPhase::Database => self.reach(Dependency::Database).await,
            StartPhase::Cache => self.reach(Dependency::Redis).await,
            StartPhase::Services => {
                if self.registry.get().is_none() {
                    let registry = Registry::new(self).map_err(|raised| ("agent_supervisor", raised.to_string()))?;
                    let _ = self.registry.set(registry);
                }
                self.reach(Dependency::ThreadService).await?;
                self.reach(Dependency::AgentSupervisor).await
            }
            StartPhase::Websocket => self.reach(Dependency::WebsocketBridge).await,
            StartPhase::Init | StartPhase::Finalize | StartPhase::Complete => Ok(()),
        }
    }

    async fn reach(&self, dependency: Dependency) -> Result<(), Obstacle> {
        self.startup().waiting_for = Some(dependency.name());
        self.ask(dependency, "ping").await.map_err(|error| (dependency.name(), error.message))
    }

    /// The signing secret, when it is the secret manager that holds it.
    async fn read_secret(&self) -> Result<(), Obstacle> {
        if self.secret.get().is_some() {
            return Ok(());
        }
        match &self.settings.secret {
            SecretSource::Manager(text) => {
                self.startup().waiting_for = Some("secret_manager");
                let read = self.ask(Dependency::SecretManager, "read").await;
                read.map_err(|error| ("secret_manager", error.message))?;
                let _ = self.secret.set(Secret::new(text));
                Ok(())
            }
            // The configuration does not change while a process lives; readiness names it.
            SecretSource::Variable(_) | SecretSource::Missing(_) => Ok(()),
        }
    }
}
