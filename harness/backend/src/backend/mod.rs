//! The built-in service: the one target that has revisions.
//!
//! The layers that an HTTP request passes, outermost first: `scope_guard` (a malformed scope is answered, not served),
//! `relabel` (nothing, in the repaired service), `session` and inside of it the auth context, which reads the session;
//! then the router's own middleware, CORS and `preflight` (nothing either), and the `routes`.
//!
//! The layers that a WebSocket passes: `scope_guard`, `exception_guard` (the answer to a client whose endpoint raises),
//! then `endpoint`: readiness, credential, revocation, limits, subprotocol, accept, welcome, messages. No dispatch-type
//! middleware ever sees it, as in the reported framework.

mod agent;
mod breaker;
mod credentials;
mod endpoint;
mod exception_guard;
mod health;
mod http;
mod lifecycle;
mod limits;
mod messages;
mod modes;
mod preflight;
mod readiness;
mod relabel;
mod routes;
mod scope_guard;
mod session;
mod settings;
mod startup;
mod tickets;
mod token;
mod url;
mod websocket;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout};

pub use settings::{BackendSettings, Variables};

use self::{
    agent::Registry,
    breaker::Breaker,
    limits::UserLimits,
    settings::{Secret, SecretSource},
    startup::Startup,
    tickets::Tickets,
    token::SigningKey,
    websocket::WebSocket,
};
use crate::{
    check::DeliveryRetried,
    defect::Defect,
    dependency::{Dependencies, Dependency, DependencyError, NEEDED_TO_START, read_answer},
    revision::Revision,
};
use relapse::{case::WORDS, environment::Environment};
use relapse_core::{
    asgi::{exception::Exception, scope::Scope},
    client::credential::{Credential, Form, Presented},
    record::{
        redact::Redactor,
        service::{Knowledge, Names, ProtectedRequest, Service, TargetKind},
    },
};
use relapse_simulate::application::{Application, BoxFuture, Receive, SendEvent};

/// The service's wall clock at the start of every run, in seconds since 1970: 2026-01-01T00:00:00Z. Fixed, so that
/// every run is the same; it goes on with tokio's clock.
const EPOCH: i64 = 1_767_225_600;

/// The port that clients are told.
pub const PORT: u16 = 8000;

/// The service.
#[derive(Debug)]
pub struct Backend {
    revision: Revision,
    settings: Arc<BackendSettings>,
    dependencies: Arc<dyn Dependencies>,
    started: Instant,
    chance: Mutex<fastrand::Rng>,
    secret: OnceLock<Secret>,
    startup: Mutex<Startup>,
    registry: OnceLock<Registry>,
    breaker: Mutex<Breaker>,
    limits: Mutex<UserLimits>,
    tickets: Mutex<Tickets>,
    users: Mutex<BTreeSet<String>>,
    opened: AtomicU64,
    /// The state that the shared-state defects share.
    shared: Mutex<SharedSession>,
    /// Whom `upgrades_wait_in_line` makes wait.
    line: tokio::sync::Mutex<()>,
}

/// State that ought to belong to one session, where a defect shares it.
#[derive(Debug, Default)]
struct SharedSession {
    /// The user and the thread of the run that began last.
    run: Option<(String, Option<String>)>,
    /// The user of the session that was authenticated last, and until when that is remembered.
    user: Option<(String, i64)>,
}

impl Backend {
    /// The service as it is when it has been up for a while. The seed decides its identifiers.
    pub fn started(
        revision: Revision,
        settings: Arc<BackendSettings>,
        dependencies: Arc<dyn Dependencies>,
        seed: u64,
    ) -> Arc<Backend> {
        let backend = Backend::new(revision, settings, dependencies, seed);
        backend.startup().complete();
        let _ = backend.registry.set(Registry::new(&backend).unwrap_or_default());
        Arc::new(backend)
    }

    /// The service as a server imports it; it is not started.
    ///
    /// # Errors
    /// The exception that the import raises.
    pub fn import(
        revision: Revision,
        settings: Arc<BackendSettings>,
        dependencies: Arc<dyn Dependencies>,
        seed: u64,
    ) -> Result<Arc<Backend>, Exception> {
        if revision.has(Defect::SyntaxErrorAtBoot) {
            return Err(Exception::new("SyntaxError", "f-string: unmatched '('"));
        }
        let backend = Backend::new(revision, settings, dependencies, seed);
        backend.import_rate_limiter()?;
        Ok(Arc::new(backend))
    }

    fn new(
        revision: Revision,
        settings: Arc<BackendSettings>,
        dependencies: Arc<dyn Dependencies>,
        seed: u64,
    ) -> Backend {
        let mut chance = fastrand::Rng::with_seed(seed);
        let secret = match &settings.secret {
            SecretSource::Variable(secret) => OnceLock::from(secret.clone()),
            SecretSource::Missing(_) if revision.has(Defect::RandomSecret) => {
                // `secrets.token_urlsafe(32)`, in every process another.
                OnceLock::from(Secret::new(&format!("{:032x}", chance.u128(..))))
            }
            SecretSource::Manager(_) | SecretSource::Missing(_) => OnceLock::new(),
        };
        Backend {
            revision,
            breaker: Mutex::new(Breaker::of(settings.environment)),
            limits: Mutex::default(),
            tickets: Mutex::default(),
            startup: Mutex::default(),
            registry: OnceLock::new(),
            secret,
            settings,
            dependencies,
            started: Instant::now(),
            chance: Mutex::new(chance),
            users: Mutex::default(),
            opened: AtomicU64::new(0),
            shared: Mutex::default(),
            line: tokio::sync::Mutex::new(()),
        }
    }

    /// The variables of a well-configured service in this environment.
    pub fn variables(environment: Environment, secret: &str) -> Variables {
        let own = format!("JWT_SECRET_{}", environment.name().to_ascii_uppercase());
        let pairs = [
            ("ENVIRONMENT", environment.name()),
            (own.as_str(), secret),
            ("LLM_API_KEY", "relapse-embedded-backend-model-key"),
            ("E2E_OAUTH_SIMULATION_KEY", "relapse-embedded-backend-e2e-key"),
        ];
        let mut variables: Variables =
            pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        if environment.is_deployed() {
            // The platform names the service by itself.
            variables.insert("K_SERVICE".to_owned(), format!("relapse-backend-{environment}"));
        }
        variables
    }

    /// A credential of this kind for a user, as this service's own auth service would issue it.
    pub fn credential(&self, kind: Credential, user: &str, form: Form) -> Presented {
        let ticket = match form {
            Form::Token => None,
            Form::Ticket => self.tickets().mint(kind, user, self.identifier(), self.now()),
        };
        let text = ticket.unwrap_or_else(|| {
            // The auth service is another process: it signs with the configured secret, whatever this one has.
            let key = &self.settings.issuer.key;
            token::mint(kind, user, key, self.now(), self.environment(), self.identifier())
        });
        Presented { kind, text, subject: user.to_owned() }
    }

    /// The facts about the service by which its answers are judged.
    pub fn service(&self) -> Service {
        Service {
            websocket_paths: Names::Compiled(&[
                "/ws",
                "/api/v1/websocket",
                "/websocket",
                "/ws/test",
                "/ws/factory",
                "/ws/isolated",
            ]),
            http_paths: Names::Compiled(&[
                "/health",
                "/health/",
                "/health/live",
                "/health/ready",
                "/health/startup",
                "/ws/health",
                "/ws/config",
                "/ws/beacon",
                "/ws/stats",
                "/api/v1/websocket",
            ]),
            health_paths: Names::Compiled(&["/health", "/health/", "/health/ready", "/ws/health"]),
            protected: Cow::Borrowed(
                const {
                    &[
                        ProtectedRequest::compiled("GET", "/api/threads/"),
                        ProtectedRequest::compiled("GET", "/api/v1/websocket/protected"),
                        ProtectedRequest::compiled("POST", "/api/session"),
                        ProtectedRequest::compiled("POST", "/api/websocket/ticket"),
                    ]
                },
            ),
            subprotocols: Names::Compiled(&credentials::SUBPROTOCOLS),
            message_bytes_max: endpoint::MESSAGE_BYTES_MAX,
            secrets: self.secret.get().map(|secret| secret.text.clone()).into_iter().collect(),
            redactor: Redactor::NONE,
            critical: readiness::critical(self.environment()),
            slow: readiness::slow(self.environment()),
            connection_record: endpoint::CONNECTION_RECORD,
            connections_max: limits::CONNECTIONS_MAX,
            words: WORDS.clone(),
            kind: TargetKind::Backend,
            knowledge: Knowledge::Whole,
            is_public: false,
            needed_to_start: Names::Compiled(NEEDED_TO_START),
            checks: DeliveryRetried { attempts: agent::delivery(self.environment()).0 as usize }.into(),
            head_limits: Vec::new(),
        }
    }

    /// How many sessions it holds.
    pub fn sessions(&self) -> usize {
        let limits = self.limits();
        limits.managers().max(limits.connections())
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        if self.revision.has(Defect::ListensElsewhere) { 8002 } else { PORT }
    }

    /// Calls a dependency. It may take for ever: the caller has a limit.
    async fn ask(&self, dependency: Dependency, operation: &'static str) -> Result<(), DependencyError> {
        if self.dependencies.answers_at_once(dependency, operation) {
            return Ok(());
        }
        let answer = self.dependencies.call(dependency, operation).await?;
        read_answer(dependency, &answer)
    }

    fn environment(&self) -> Environment {
        self.settings.environment
    }

    /// The key that tokens are verified with; `None` while there is none.
    fn key(&self) -> Option<&SigningKey> {
        self.secret.get().map(|secret| &secret.key)
    }

    /// Seconds since 1970.
    fn now(&self) -> i64 {
        EPOCH + i64::try_from(self.started.elapsed().as_secs()).unwrap_or(i64::MAX - EPOCH)
    }

    /// Seconds since 1970, with fractions, as frames carry them.
    fn timestamp(&self) -> f64 {
        EPOCH as f64 + self.started.elapsed().as_secs_f64()
    }

    fn identifier(&self) -> u64 {
        lock(&self.chance).u64(..)
    }

    fn startup(&self) -> MutexGuard<'_, Startup> {
        lock(&self.startup)
    }

    fn limits(&self) -> MutexGuard<'_, UserLimits> {
        lock(&self.limits)
    }

    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        lock(&self.tickets)
    }
}

/// Waits for a future, but not longer than the limit. What is there at once costs no timer, and that is what almost every
/// dependency is.
async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    match poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        Poll::Ready(output) => Some(output),
        Poll::Pending => timeout(limit, future).await.ok(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic with the lock held happens between whole changes, so the data is consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Application for Backend {
    fn call(
        self: Arc<Self>,
        scope: Scope,
        receive: Box<dyn Receive>,
        send: Box<dyn SendEvent>,
    ) -> BoxFuture<'static, Result<(), Exception>> {
        Box::pin(async move {
            match scope.str("type") {
                Ok("http") => self.serve_http(scope, receive, send).await,
                Ok("websocket") => self.serve_websocket(WebSocket::new(scope, receive, send)).await,
                Ok("lifespan") => self.serve_lifespan(receive, send).await,
                _ => Err(Exception::new("ValueError", "unknown scope type")),
            }
        })
    }
}
