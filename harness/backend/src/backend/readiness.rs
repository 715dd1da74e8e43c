//! Whether the service can do its work right now: asked on every upgrade and by every health route, and never
//! remembered.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Backend, lock, settings::SecretSource, within};
use crate::{
    defect::Defect,
    dependency::Dependency::{self, AgentSupervisor, AuthService, Database, Redis, ThreadService, WebsocketBridge},
};
use relapse::environment::Environment;
use relapse_core::asgi::exception::Exception;

/// How long a client is asked to wait before it comes back, in seconds, where nothing says more.
pub(super) const RETRY_AFTER_S: u64 = 10;

/// How one service is asked: limit of one attempt, attempts after the first, pause between them.
struct Asking {
    limit: Duration,
    retries: u32,
    pause: Duration,
}

const fn asking(limit_ms: u64, retries: u32, pause_ms: u64) -> Asking {
    Asking { limit: Duration::from_millis(limit_ms), retries, pause: Duration::from_millis(pause_ms) }
}

/// Where the service runs, as far as its limits depend on it.
#[derive(Clone, Copy)]
enum Stage {
    Deployed,
    Local,
}

impl Stage {
    fn of(environment: Environment) -> Stage {
        if environment.is_deployed() { Stage::Deployed } else { Stage::Local }
    }
}

/// How a dependency is asked, on the platform and elsewhere (the reported validator's table).
fn table(dependency: Dependency, stage: Stage) -> Asking {
    match (dependency, stage) {
        (Database, Stage::Deployed) => asking(3000, 4, 1000),
        (Database, Stage::Local) => asking(5000, 3, 1000),
        (Redis, Stage::Deployed) => asking(1500, 3, 500),
        (Redis, Stage::Local) => asking(3000, 3, 1000),
        (AuthService, Stage::Deployed) => asking(2000, 2, 500),
        (AuthService, Stage::Local) => asking(5000, 2, 500),
        (AgentSupervisor | ThreadService, Stage::Deployed) => asking(2000, 3, 500),
        (AgentSupervisor | ThreadService, Stage::Local) => asking(8000, 4, 1000),
        (_, Stage::Deployed) => asking(1000, 2, 500),
        (_, Stage::Local) => asking(3000, 2, 500),
    }
}

/// The limits of the two groups that are asked one after the other, before the environment's factor. The supervisor
/// needs the threads.
const GROUP_LIMITS: [Duration; 2] = [Duration::from_millis(1500), Duration::from_millis(1000)];
/// The least that a group gets.
const GROUP_LIMIT_MIN: Duration = Duration::from_millis(500);

/// The environment's factor on a group's limit: its own, its margin, and half as much again on the platform.
fn factor(environment: Environment) -> f64 {
    match environment {
        Environment::Production => 1.0 * 1.2 * 1.5,
        Environment::Staging => 0.7 * 1.1 * 1.5,
        Environment::Development | Environment::Testing => 0.3,
    }
}

/// The time limit of a group.
fn group_limit(group: usize, environment: Environment) -> Duration {
    GROUP_LIMITS[group].mul_f64(factor(environment)).max(GROUP_LIMIT_MIN)
}

/// From which delay on a dependency may be given up: the shorter group asks two of them, one after the other, beside
/// a third.
pub(super) fn slow(environment: Environment) -> Duration {
    group_limit(1, environment) / 3
}

/// The dependencies without which no session opens. Without the others a session is degraded, and says so. The auth
/// service is critical everywhere: without it the service cannot tell which token was revoked.
pub(super) fn critical(environment: Environment) -> Vec<&'static str> {
    let all = [Database, Redis, AuthService, ThreadService, AgentSupervisor, WebsocketBridge];
    let spared: &[Dependency] = if environment == Environment::Staging { &[Database, Redis] } else { &[] };
    all.into_iter().filter(|dependency| !spared.contains(dependency)).map(Dependency::name).collect()
}

/// The dependencies that are not ready, by name.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    /// Those that keep sessions from being opened.
    pub(super) failed: Vec<&'static str>,
    /// Those without which a session opens, but degraded.
    pub(super) degraded: Vec<&'static str>,
    /// How long a breaker keeps calls away, where one does.
    breaker: Option<Duration>,
}

impl Readiness {
    /// Not ready, for want of one thing.
    pub(super) fn lacks(name: &'static str) -> Readiness {
        Readiness { failed: vec![name], ..Readiness::default() }
    }

    /// Notes the answer of a dependency. Those in `critical` keep sessions from being opened.
    fn note(&mut self, dependency: Dependency, answer: Result<(), String>, critical: &[&'static str]) {
        let Err(why) = answer else { return };
        let name = dependency.name();
        tracing::warn!("readiness: {name} failed: {why}");
        if critical.contains(&name) { self.failed.push(name) } else { self.degraded.push(name) }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.failed.is_empty()
    }

    /// In how many seconds a client is asked to come back.
    pub(super) fn retry_after_s(&self) -> u64 {
        self.breaker.map_or(RETRY_AFTER_S, |left| left.as_secs() + 1)
    }
}

impl Backend {
    /// Whether sessions can be opened. Bounded by the two groups' limits.
    pub(super) async fn readiness(&self) -> Readiness {
        let is_configured = !matches!(self.settings.secret, SecretSource::Missing(_)) || self.key().is_some();
        if !is_configured && !self.revision.has(Defect::SecretReadPerRequest) {
            return Readiness::lacks("configuration");
        }
        {
            let startup = self.startup();
            if !startup.is_complete() {
                return Readiness::lacks(startup.waiting_for.unwrap_or("startup"));
            }
        }
        let open_for = lock(&self.breaker).is_open_for();
        if open_for.is_some() {
            tracing::warn!("readiness: auth_service failed several times, its breaker is open");
            return Readiness { breaker: open_for, ..Readiness::lacks("auth_service") };
        }
        let mut readiness = Readiness::default();
        let critical = critical(self.environment());
        let first = self.span(0);
        let (database, redis, auth) = tokio::join!(
            self.is_there(Database, first),
            self.is_there(Redis, first),
            self.is_there(AuthService, first)
        );
        readiness.note(Database, database, &critical);
        readiness.note(Redis, redis, &critical);
        readiness.note(AuthService, auth, &critical);
        let second = self.span(1);
        let agents = async {
            match self.is_there(ThreadService, second).await {
                Ok(()) => (Ok(()), self.is_there(AgentSupervisor, second).await),
                failed => (failed, Ok(())),
            }
        };
        let ((threads, supervisor), bridge) = tokio::join!(agents, self.is_there(WebsocketBridge, second));
        readiness.note(ThreadService, threads, &critical);
        readiness.note(AgentSupervisor, supervisor, &critical);
        readiness.note(WebsocketBridge, bridge, &critical);
        if self.revision.has(Defect::StagingReadyOverride)
            && self.environment() == Environment::Staging
            && !readiness.is_ready()
        {
            tracing::warn!("graceful degradation: {} overridden in staging", readiness.failed.join(", "));
            return Readiness::default();
        }
        readiness
    }

    /// The start and the end of a group that begins now.
    fn span(&self, group: usize) -> (Instant, Instant) {
        let start = Instant::now();
        (start, start + group_limit(group, self.environment()))
    }

    /// Asks one dependency, again where it fails, between the start and the end of its group.
    async fn is_there(&self, dependency: Dependency, (start, end): (Instant, Instant)) -> Result<(), String> {
        let Asking { limit: each, retries, pause } = table(dependency, Stage::of(self.environment()));
        let attempts = async {
            let mut attempt = 0;
            loop {
                let why = match within(each, self.ping(dependency)).await {
                    Some(Ok(())) => return Ok(()),
                    Some(Err(raised)) => raised.to_string(),
                    None => "no answer in time".to_owned(),
                };
                if attempt == retries || Instant::now() + pause >= end {
                    return Err(why);
                }
                attempt += 1;
                sleep(pause).await;
            }
        };
        within(end.saturating_duration_since(start), attempts)
            .await
            .unwrap_or_else(|| Err("no answer in time".to_owned()))
    }

    async fn ping(&self, dependency: Dependency) -> Result<(), Exception> {
        if dependency == Redis && self.revision.has(Defect::RedisPropertyCalled) {
            // `redis_manager.is_connected()`, where `is_connected` is a property.
            return Err(Exception::type_error("'bool' object is not callable"));
        }
        // The auth service is asked what upgrades ask it, so that both get the same answer.
        let operation = if dependency == AuthService { "check" } else { "ping" };
        let answer = self.ask(dependency, operation).await;
        answer.map_err(|error| Exception::new("DependencyError", error.message))
    }
}
