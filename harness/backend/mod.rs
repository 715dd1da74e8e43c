//! The embedded service: the one target that has revisions.
//!
//! Middleware, outermost first: `scope_guard` (a malformed scope is answered, not served), `exception_guard` (what a
//! client gets when an endpoint raises), then the routes: `endpoint` for WebSockets, `http` for plain requests with
//! `readiness` in front of them.

mod agent;
mod credentials;
mod endpoint;
mod exception_guard;
mod http;
mod lifecycle;
mod messages;
mod readiness;
mod scope_guard;
mod settings;
mod token;
mod url;
mod websocket;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

pub use settings::{Settings, Variables};

use self::{token::Key, websocket::WebSocket};
use crate::{
    application::{Application, Promise, Receive, SendEvent},
    credential::{Credential, Presented},
    defect::Defect,
    dependency::Dependencies,
    environment::Environment,
    exception::Exception,
    revision::Revision,
    scope::Scope,
    transcript::Service,
};

/// The service's wall clock at the start of every run, in seconds since 1970: 2026-01-01T00:00:00Z. Fixed, so that
/// every run is the same; it goes on with tokio's clock.
const EPOCH: i64 = 1_767_225_600;

/// The service.
#[derive(Debug)]
pub struct Backend {
    revision: Revision,
    settings: Arc<Settings>,
    dependencies: Arc<dyn Dependencies>,
    started: Instant,
    chance: Mutex<fastrand::Rng>,
    opened: AtomicU64,
    open: AtomicU64,
    users: Mutex<BTreeSet<String>>,
}

impl Backend {
    /// The service at a revision, with these settings. The seed decides its identifiers.
    pub fn new(
        revision: Revision,
        settings: Arc<Settings>,
        dependencies: Arc<dyn Dependencies>,
        seed: u64,
    ) -> Arc<Backend> {
        Arc::new(Backend {
            revision,
            settings,
            dependencies,
            started: Instant::now(),
            chance: Mutex::new(fastrand::Rng::with_seed(seed)),
            opened: AtomicU64::new(0),
            open: AtomicU64::new(0),
            users: Mutex::default(),
        })
    }

    /// The variables of a well-configured service in this environment.
    pub fn variables(environment: Environment, secret: &str) -> Variables {
        let own = format!("JWT_SECRET_{}", environment.name().to_ascii_uppercase());
        Variables::from([("ENVIRONMENT".to_owned(), environment.name().to_owned()), (own, secret.to_owned())])
    }

    /// A credential of this kind for a user, as this service's own auth service would issue it.
    pub fn credential(&self, kind: Credential, user: &str) -> Presented {
        // A service without a secret accepts nothing, so that any key will do.
        let key = self.settings.secret.as_ref().map_or_else(|_| Key::new(""), |secret| secret.key.clone());
        let text = token::mint(kind, user, &key, self.now(), self.environment(), self.identifier());
        Presented { kind, text, subject: user.to_owned() }
    }

    /// What is known of the service.
    pub fn service(&self) -> Service {
        Service {
            websocket_paths: &["/ws", "/api/v1/websocket", "/websocket", "/ws/test"],
            http_paths: &[
                "/health",
                "/health/",
                "/health/live",
                "/health/ready",
                "/ws/health",
                "/ws/config",
                "/ws/beacon",
                "/ws/stats",
                "/api/v1/websocket",
            ],
            subprotocols: &credentials::SUBPROTOCOLS,
            message_bytes_max: endpoint::MESSAGE_BYTES_MAX,
            secrets: self.settings.secret.iter().map(|secret| secret.text.clone()).collect(),
        }
    }

    fn environment(&self) -> Environment {
        self.settings.environment
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
        self.chance.lock().unwrap_or_else(PoisonError::into_inner).u64(..)
    }
}

impl Application for Backend {
    fn call(
        self: Arc<Self>,
        scope: Scope,
        receive: Box<dyn Receive>,
        send: Box<dyn SendEvent>,
    ) -> Promise<'static, Result<(), Exception>> {
        Box::pin(async move {
            match scope.str("type") {
                Ok("http") => self.serve_http(scope, receive, send).await,
                Ok("websocket") => self.serve_websocket(WebSocket::new(scope, receive, send)).await,
                _ => Err(Exception::new("ValueError", "unknown scope type")),
            }
        })
    }
}

/// Counts one open session for as long as it lives.
struct Registration<'a>(&'a Backend);

impl Backend {
    fn register(&self) -> Result<Registration<'_>, Exception> {
        if self.revision.has(Defect::UnboundStateRegistry) {
            return Err(Exception::name_error("state_registry"));
        }
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Registration(self))
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
