//! The WebSocket routes: from the upgrade to the last message.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::{
    Backend,
    credentials::{self, Claimed},
    exception_guard::sends_private_codes_only,
    lifecycle::{Lifecycle, LifecycleState as Life},
    limits, lock, messages,
    modes::Mode,
    readiness::Readiness,
    settings::SecretSource,
    startup::StartPhase,
    token::{self, SigningKey, TokenRefusal, Verified},
    websocket::{SocketState, WebSocket, is_disconnect},
    within,
};
use crate::{defect::Defect, dependency::Dependency};
use relapse::environment::Environment;
use relapse_core::{
    asgi::{exception::Exception, scope::Scope},
    wire::{close_code::CloseCode, head::field},
};

/// The largest message the service takes, in bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 8192;

/// How the log record begins that every connection writes once.
pub(super) const CONNECTION_RECORD: &str = "connection context:";

/// How long the pre-SSOT route waits between its error frame and its close.
const PRE_SSOT_CLOSE_DELAY: Duration = Duration::from_millis(100);

/// How long the reported guard waits for the services phase before it queues a connection.
const STARTUP_WAIT: Duration = Duration::from_millis(10_100);

/// How long the auth service may take to answer, all attempts together, and how often it is asked. With the time that readiness
/// takes it stays below the 5 s that daphne lets an app take for a handshake.
const REVOCATION_LIMIT: Duration = Duration::from_secs(2);
const REVOCATION_ATTEMPTS: u32 = 3;
const REVOCATION_PAUSE: Duration = Duration::from_millis(200);

/// How long the reported cache remembers a user, in seconds.
const USER_CACHE_S: i64 = 300;

/// How long the reported loop pauses when `receive` raised.
const LOOP_PAUSE: Duration = Duration::from_secs(1);

/// How long a client is asked to wait when it has too many connections, in seconds (the reported backoff).
const CONNECTION_BACKOFF_S: &str = "5";

/// How long the service waits for a message before it says that it is still there. On the platform a cold start is
/// allowed for.
fn receive_timeout(environment: Environment) -> Duration {
    Duration::from_secs(match environment {
        Environment::Development => 10,
        Environment::Testing => 15,
        Environment::Staging => 15 + 3,
        Environment::Production => 30 + 5,
    })
}

/// Whether the receive loop goes on.
enum LoopNext {
    Receive,
    Stop,
}

/// The reason why an upgrade is denied.
pub(super) enum Denied {
    /// The credential.
    Refused(TokenRefusal),
    /// Something that is needed to tell.
    NotReady(&'static str),
}

impl From<TokenRefusal> for Denied {
    fn from(refusal: TokenRefusal) -> Denied {
        Denied::Refused(refusal)
    }
}

impl Backend {
    /// Serves one WebSocket connection.
    pub(super) async fn serve_websocket(&self, mut websocket: WebSocket) -> Result<(), Exception> {
        let served = async {
            if self.guard_websocket(&mut websocket).await? {
                return Ok(());
            }
            self.route(&mut websocket).await
        };
        match served.await {
            Ok(()) => Ok(()),
            Err(exception) => self.guard_exception(&mut websocket, exception).await,
        }
    }

    pub(super) async fn route(&self, websocket: &mut WebSocket) -> Result<(), Exception> {
        let path = websocket.scope.str("path")?.to_owned();
        tracing::info!("{CONNECTION_RECORD} {path}");
        match path.as_str() {
            "/ws" => {
                let parameter_source =
                    if self.revision.has(Defect::QueryParamsOnUrl) { "query_params" } else { "query" };
                let has_query = !websocket.url()?.attribute(parameter_source)?.is_empty();
                tracing::debug!("connection with a query: {has_query}");
                let mode = Mode::of(&websocket.scope)?;
                self.enter(websocket, mode).await
            }
            "/ws/factory" => self.enter(websocket, Mode::Factory).await,
            "/ws/isolated" => self.enter(websocket, Mode::Isolated).await,
            "/websocket" | "/ws/test" => self.enter(websocket, Mode::Legacy).await,
            "/api/v1/websocket" => self.enter(websocket, Mode::Main).await,
            _ if self.revision.has(Defect::UnknownRouteClosed) => websocket.close(CloseCode::NORMAL.0, "").await,
            _ => websocket.deny(404, Vec::new(), self.error_body("NOT_FOUND", "There is no such route.")).await,
        }
    }

    /// From the upgrade to the end of the session, in the order that `backend` documents.
    // Long: the order of these steps, and of their defects, is the behavior of the service.
    async fn enter(&self, websocket: &mut WebSocket, mode: Mode) -> Result<(), Exception> {
        if mode == Mode::Legacy && self.revision.has(Defect::LegacyWithoutAuth) {
            let life = self.accept_first(websocket).await?;
            return self.converse(websocket, mode, "anonymous", life, &Readiness::default()).await;
        }
        if mode == Mode::Factory && self.revision.has(Defect::FactoryUnknownParameter) {
            let text = "extract_websocket_user_context() got an unexpected keyword argument 'require_pre_auth'";
            return Err(Exception::type_error(text));
        }
        if self.revision.has(Defect::QueuedBeforeStartup) && self.startup().phase < StartPhase::Services {
            sleep(STARTUP_WAIT).await;
            tracing::warn!("connection queued until the services phase");
            // The queue remembers the connection; its endpoint is done.
            return Ok(());
        }
        // One at a time through everything that asks a dependency.
        let line = if self.revision.has(Defect::UpgradesWaitInLine) { Some(self.line.lock().await) } else { None };
        let readiness = self.readiness().await;
        if !readiness.is_ready() && !self.proceeds_unready(websocket, &readiness).await? {
            return Ok(());
        }
        if self.revision.has(Defect::AuthAfterAccept) {
            return self.accept_then_authenticate(websocket).await;
        }
        if self.revision.has(Defect::RefusalLacksAttribute) {
            return self.accept_then_read_result(websocket).await;
        }
        if self.revision.has(Defect::ReceiveBeforeAccept) {
            websocket.receive_text().await?;
        }
        if self.revision.has(Defect::QueryStringOnWebsocket) {
            let in_head = credentials::in_headers_and_subprotocols(&websocket.scope)?;
            if self.verify_all(&in_head).is_err() {
                // `websocket.query_string.decode()`, also in the log line of a refusal.
                return self
                    .raise_in_mode(websocket, mode, Exception::attribute_error("WebSocket", "query_string"))
                    .await;
            }
        }
        if let (SecretSource::Missing(why), None) = (&self.settings.secret, self.key()) {
            // The readiness check let a service through that has no secret to verify a token with.
            return Err(Exception::new("ValueError", why.clone()));
        }
        let presented = credentials::presented(&websocket.scope)?;
        let user = match self.authenticate(&websocket.scope, &presented).await {
            Ok(user) => user,
            Err(Denied::NotReady(name)) => return self.not_ready(websocket, &Readiness::lacks(name)).await,
            Err(Denied::Refused(refusal)) => return self.refuse(websocket, mode, refusal).await,
        };
        drop(line);
        let Some(_place) = self.take_place(&user, &websocket.scope) else {
            let text = format!("A user may have {} connections.", limits::CONNECTIONS_MAX);
            tracing::info!("upgrade refused: too many connections");
            let headers = vec![field("retry-after", CONNECTION_BACKOFF_S)];
            return websocket.deny(429, headers, self.error_body("TOO_MANY_CONNECTIONS", &text)).await;
        };
        let selected = credentials::select_subprotocol(&websocket.scope.subprotocols()?, self.revision);
        let Ok(subprotocol) = selected else {
            return self.refuse_offers(websocket).await;
        };
        if let Err(refusal) = self.spend(&presented) {
            return self.refuse(websocket, mode, refusal).await;
        }
        let mut life = Lifecycle::new();
        websocket.accept(subprotocol).await?;
        life.advance(Life::Accepted)?;
        self.converse(websocket, mode, &user, life, &readiness).await
    }

    /// Answers an upgrade while the service is not ready: the client learns that it is not. Returns `true` if the
    /// upgrade proceeds all the same.
    async fn proceeds_unready(&self, websocket: &mut WebSocket, readiness: &Readiness) -> Result<bool, Exception> {
        if self.revision.has(Defect::ReadinessFailOpen) {
            tracing::error!("readiness guard: {} not ready, proceeding", readiness.failed.join(", "));
            return Ok(true);
        }
        if self.revision.has(Defect::ComponentCloseCodes) {
            self.accept_first(websocket).await?;
            let component = readiness.failed.first().copied().unwrap_or_default();
            let text = format!("{component} is not available");
            websocket.send_text(messages::error(self, "SERVICE_INIT_FAILED", &text)).await?;
            websocket.close(component_code(component), text).await?;
            return Ok(false);
        }
        if self.revision.has(Defect::ConnectionMaintained) {
            self.accept_first(websocket).await?;
            tracing::warn!("{} not ready, connection maintained", readiness.failed.join(", "));
            return Ok(false);
        }
        self.not_ready(websocket, readiness).await?;
        Ok(false)
    }

    /// Says that the service is not ready, what is missing, and when to come back. A server without denial responses
    /// makes a bare 403 of every refusal; behind it the upgrade is accepted and closed again.
    async fn not_ready(&self, websocket: &mut WebSocket, readiness: &Readiness) -> Result<(), Exception> {
        let names = readiness.failed.join(", ");
        tracing::warn!("upgrade refused: {names} not ready");
        if websocket.scope.has_extension("websocket.http.response") {
            let headers = vec![field("retry-after", readiness.retry_after_s().to_string())];
            return websocket.deny(503, headers, self.not_ready_body(&readiness.failed)).await;
        }
        if credentials::select_subprotocol(&websocket.scope.subprotocols()?, self.revision).is_err() {
            // It cannot be accepted, not even to be told; and it is wrong in good times too.
            return self.refuse_offers(websocket).await;
        }
        self.accept_first(websocket).await?;
        let text = format!("Not ready: {names}. Try again later.");
        websocket.send_text(messages::error(self, "SERVICE_UNAVAILABLE", &text)).await?;
        let private = sends_private_codes_only(&websocket.scope);
        let code = if private { CloseCode::PRIVATE_UNAVAILABLE } else { CloseCode::TRY_AGAIN_LATER };
        websocket.close(code.0, text).await
    }

    async fn refuse_offers(&self, websocket: &mut WebSocket) -> Result<(), Exception> {
        let body = self.error_body("BAD_REQUEST", "None of the offered subprotocols is supported.");
        websocket.deny(400, Vec::new(), body).await
    }

    /// The user of a session: the one rule, and what the reported service put beside it.
    async fn authenticate(&self, scope: &Scope, presented: &[Claimed]) -> Result<String, Denied> {
        let caches = self.revision.has(Defect::UserCacheWithoutIdentity);
        if caches
            && let Some((user, until)) = lock(&self.shared).user.clone()
            && self.now() < until
        {
            return Ok(user);
        }
        let outside_production = self.environment() != Environment::Production;
        if self.revision.has(Defect::DemoByDefault) && self.settings.demo.unwrap_or(true) {
            // The level DEMO, which production forbids.
            return if outside_production {
                Ok("demo-user-001".to_owned())
            } else {
                Err(TokenRefusal::Validation.into())
            };
        }
        let strict = self.authenticate_strictly(presented).await;
        if let (true, Ok(user)) = (caches, &strict) {
            lock(&self.shared).user = Some((user.clone(), self.now() + USER_CACHE_S));
        }
        if self.revision.has(Defect::RelaxedAuthentication) && outside_production {
            return strict.or_else(|_| Ok(format!("relaxed_{}", self.now())));
        }
        if self.revision.has(Defect::HeaderNameBypass) && outside_production && looks_like_a_test(scope) {
            let unverified = presented.iter().find_map(|claimed| match claimed {
                Claimed::Token(token) => token::unverified_subject(token),
                Claimed::Ticket(_) => None,
            });
            return strict.or_else(|refusal| unverified.ok_or(refusal));
        }
        strict
    }

    /// The one rule: every credential presented is valid, all name the same user, and no token was revoked.
    pub(super) async fn authenticate_strictly(&self, presented: &[Claimed]) -> Result<String, Denied> {
        if presented.iter().any(|claimed| matches!(claimed, Claimed::Ticket(_))) {
            self.ask_within(Dependency::Redis, "get").await.map_err(|_| Denied::NotReady("redis"))?;
        }
        let verified = match self.verify_all(presented) {
            Ok(verified) => verified,
            Err(refusal) => {
                if self.revision.has(Defect::BreakerCountsClients) {
                    lock(&self.breaker).failed();
                }
                return Err(refusal.into());
            }
        };
        // The breaker comes last: a client that is refused anyway neither waits for it nor counts as its trial.
        let left = lock(&self.breaker).wait();
        if let Some(left) = left {
            tracing::warn!("auth breaker is open for {} s: auth_service is not asked", left.as_secs());
            return Err(Denied::NotReady("auth_service"));
        }
        let answer = self.ask_within(Dependency::AuthService, "check").await;
        let mut breaker = lock(&self.breaker);
        if let Err(why) = answer {
            tracing::warn!("revocation unknown: {why}");
            breaker.failed();
            return Err(Denied::NotReady("auth_service"));
        }
        breaker.succeeded();
        drop(breaker);
        let mut user = None;
        for (name, is_revoked) in verified {
            if is_revoked || user.as_ref().is_some_and(|user| *user != name) {
                return Err(TokenRefusal::Validation.into());
            }
            user = Some(name);
        }
        user.ok_or_else(|| TokenRefusal::Format.into())
    }

    /// Verifies credentials locally, without a call to another service: each one's user, and whether it is known as
    /// revoked.
    pub(super) fn verify_all(&self, presented: &[Claimed]) -> Result<Vec<(String, bool)>, TokenRefusal> {
        let key = self.key().ok_or(TokenRefusal::Validation)?;
        if presented.is_empty() {
            return Err(TokenRefusal::Format);
        }
        presented.iter().map(|claimed| self.verify(claimed, key)).collect()
    }

    fn verify(&self, claimed: &Claimed, key: &SigningKey) -> Result<(String, bool), TokenRefusal> {
        match claimed {
            Claimed::Token(token) => token::verify(token, key, self.now(), self.environment())
                .map(|verified: Verified| (verified.user.clone(), verified.is_revoked())),
            Claimed::Ticket(id) => {
                let user = self.tickets().find(id, self.now()).map(|ticket| ticket.user.clone());
                user.map(|user| (user, false)).ok_or(TokenRefusal::Validation)
            }
        }
    }

    /// Spends the tickets among the credentials, now that everything else holds. Another session may have been quicker.
    fn spend(&self, presented: &[Claimed]) -> Result<(), TokenRefusal> {
        for claimed in presented {
            if let Claimed::Ticket(id) = claimed {
                self.tickets().redeem(id, self.now()).ok_or(TokenRefusal::Validation)?;
            }
        }
        Ok(())
    }

    /// Calls a dependency, again where it fails, within one limit.
    pub(super) async fn ask_within(&self, dependency: Dependency, operation: &'static str) -> Result<(), String> {
        let attempts = async {
            let mut attempt = 1;
            loop {
                match self.ask(dependency, operation).await {
                    Ok(()) => return Ok(()),
                    Err(error) if attempt == REVOCATION_ATTEMPTS => return Err(error.message),
                    Err(_) => {
                        attempt += 1;
                        sleep(REVOCATION_PAUSE).await;
                    }
                }
            }
        };
        within(REVOCATION_LIMIT, attempts).await.unwrap_or_else(|| Err("no answer in time".to_owned()))
    }

    async fn refuse(&self, websocket: &mut WebSocket, mode: Mode, refusal: TokenRefusal) -> Result<(), Exception> {
        let (code, text) = match refusal {
            TokenRefusal::Format => ("NO_TOKEN", "No usable credential was presented."),
            TokenRefusal::Validation => ("VALIDATION_FAILED", "The credential is not valid."),
            TokenRefusal::Expired => ("TOKEN_EXPIRED", "The credential has expired."),
        };
        if mode == Mode::Isolated && self.revision.has(Defect::IsolatedRefusalTooLong) {
            return self.refuse_with_everything_known(websocket, code).await;
        }
        tracing::info!("upgrade refused: {code}");
        let challenge = vec![field("www-authenticate", "Bearer")];
        websocket.deny(401, challenge, self.error_body(code, text)).await
    }

    /// The refusal of the isolated mode: the whole error as the reason of the close, and a handler around it.
    async fn refuse_with_everything_known(&self, websocket: &mut WebSocket, code: &str) -> Result<(), Exception> {
        self.accept_first(websocket).await?;
        let reason = format!(
            "Isolated authentication failed: {code}: token validation was refused by the unified authentication \
             service after all retries (environment {}, protocol handler v2)",
            self.environment()
        );
        if let Err(exception) = websocket.close(CloseCode::POLICY.0, reason).await {
            tracing::error!("isolated mode: {exception}");
        }
        Ok(())
    }

    /// Accepts before the user is known, as the reported routes did.
    async fn accept_first(&self, websocket: &mut WebSocket) -> Result<Lifecycle, Exception> {
        let offers = websocket.scope.subprotocols()?;
        let subprotocol = credentials::select_subprotocol(&offers, self.revision).unwrap_or_default();
        let mut life = Lifecycle::new();
        websocket.accept(subprotocol).await?;
        life.advance(Life::Accepted)?;
        Ok(life)
    }

    /// The order of the pre-SSOT route: accept, then look for a token in header and subprotocols.
    async fn accept_then_authenticate(&self, websocket: &mut WebSocket) -> Result<(), Exception> {
        let presented = credentials::in_headers_and_subprotocols(&websocket.scope)?;
        let life = self.accept_first(websocket).await?;
        match self.authenticate(&websocket.scope, &presented).await {
            Ok(user) => self.converse(websocket, Mode::Main, &user, life, &Readiness::default()).await,
            Err(_) => {
                let text = "No JWT token found in WebSocket headers or subprotocols";
                tracing::warn!("{text}");
                websocket.send_text(messages::error(self, "NO_TOKEN", text)).await?;
                sleep(PRE_SSOT_CLOSE_DELAY).await;
                // `_get_close_code_for_error` maps NO_TOKEN to 1011.
                websocket.close(CloseCode::INTERNAL.0, "SSOT Auth failed").await
            }
        }
    }

    /// The order of the permissive route: accept, then look at a result that is another type when it is a failure.
    async fn accept_then_read_result(&self, websocket: &mut WebSocket) -> Result<(), Exception> {
        let presented = credentials::presented(&websocket.scope)?;
        let life = self.accept_first(websocket).await?;
        match self.authenticate(&websocket.scope, &presented).await {
            Ok(user) => self.converse(websocket, Mode::Main, &user, life, &Readiness::default()).await,
            Err(_) => {
                // The intended frame and close 1008 need `result.error_message`.
                let exception = Exception::attribute_error("AuthPermissivenessResult", "error_message");
                tracing::error!("main mode: {exception}");
                let text = "The connection failed.";
                websocket.send_text(messages::error(self, "CONNECTION_ERROR", text)).await?;
                websocket.close(CloseCode::INTERNAL.0, "main mode error").await
            }
        }
    }

    /// Raises an exception in the authentication of b17: isolated mode has accepted by then, and has a handler of its
    /// own; the other modes have neither.
    async fn raise_in_mode(
        &self,
        websocket: &mut WebSocket,
        mode: Mode,
        exception: Exception,
    ) -> Result<(), Exception> {
        if mode != Mode::Isolated {
            return Err(exception);
        }
        self.accept_first(websocket).await?;
        tracing::error!("isolated mode: {exception}");
        websocket.close(CloseCode::INTERNAL.0, "isolated mode error").await
    }

    /// Manager, welcome, then the receive loop.
    async fn converse(
        &self,
        websocket: &mut WebSocket,
        mode: Mode,
        user: &str,
        mut life: Lifecycle,
        readiness: &Readiness,
    ) -> Result<(), Exception> {
        let _manager = match self.set_up(mode, user, readiness) {
            Ok(manager) => manager,
            Err(exception) => return self.report_failed_init(websocket, mode, &exception).await,
        };
        self.opened.fetch_add(1, Ordering::Relaxed);
        if self.revision.has(Defect::EnumInLogRecord) {
            let state = websocket.client_state();
            return Err(Exception::type_error(format!("Object of type {} is not JSON serializable", state.class())));
        }
        life.advance(Life::Authenticated)?;
        life.advance(Life::ServicesReady)?;
        let connection = format!("ws_{:016x}", self.identifier());
        self.establish(websocket, mode, user, &connection, &readiness.degraded).await?;
        life.advance(if readiness.degraded.is_empty() { Life::ProcessingReady } else { Life::Degraded })?;
        let result = self.receive_loop(websocket, user, &connection, &mut life).await;
        life.advance(Life::Closing)?;
        life.advance(Life::Closed)?;
        result
    }

    /// The manager of a connection, with everything it needs.
    fn set_up(&self, mode: Mode, user: &str, readiness: &Readiness) -> Result<limits::Manager<'_>, Exception> {
        if mode == Mode::Isolated && self.revision.has(Defect::IsolatedScopeArguments) {
            let text = "connection_scope() missing 2 required positional arguments: 'websocket' and 'user_id'";
            return Err(Exception::type_error(text));
        }
        if self.revision.has(Defect::ImportInFactory) {
            let text = "cannot import name 'get_db_session_factory' from 'netra_backend.app.db.session'";
            return Err(Exception::new("ImportError", text));
        }
        if let Some(missing) = readiness.failed.first() {
            // Only a guard that lets every client through leaves this to the factory.
            return Err(Exception::new("FactoryInitializationError", format!("{missing} is None")));
        }
        self.create_manager(user)
    }

    /// The reported route's reaction when it cannot make the manager: an error frame, and a close it chose itself.
    async fn report_failed_init(
        &self,
        websocket: &mut WebSocket,
        mode: Mode,
        exception: &Exception,
    ) -> Result<(), Exception> {
        tracing::error!("{} mode: {exception}", mode.name());
        let text = "The session could not be set up.";
        websocket.send_text(messages::error(self, "SERVICE_INIT_FAILED", text)).await?;
        let reason = match mode {
            Mode::Isolated => "isolated mode error",
            Mode::Main | Mode::Factory | Mode::Legacy => "Service initialization failed",
        };
        websocket.close(CloseCode::INTERNAL.0, reason).await
    }

    async fn establish(
        &self,
        websocket: &mut WebSocket,
        mode: Mode,
        user: &str,
        connection: &str,
        degraded: &[&str],
    ) -> Result<(), Exception> {
        let welcomed = match messages::welcome(self, mode.name(), user, connection, degraded) {
            Ok(frame) => websocket.send_text(frame).await,
            Err(exception) => Err(exception),
        };
        let Err(exception) = welcomed else { return Ok(()) };
        if is_disconnect(&exception) || exception.is_cancellation() {
            return Err(exception);
        }
        let reported = self.report_failed_setup(websocket).await;
        // The clean-up runs whatever became of the report.
        if websocket.application_state() == SocketState::Connected {
            websocket.close(CloseCode::NORMAL.0, format!("{} cleanup", mode.name())).await?;
        }
        reported?;
        Err(exception)
    }

    async fn report_failed_setup(&self, websocket: &mut WebSocket) -> Result<(), Exception> {
        let text = "The session could not be set up.";
        websocket.send_text(messages::setup_error(self, "SERVICE_INIT_FAILED", text)?).await?;
        websocket.close(CloseCode::INTERNAL.0, "Failed to establish connection").await
    }

    async fn receive_loop(
        &self,
        websocket: &mut WebSocket,
        user: &str,
        connection: &str,
        life: &mut Lifecycle,
    ) -> Result<(), Exception> {
        let patience = receive_timeout(self.environment());
        let goes_on = self.revision.has(Defect::LoopGoesOn);
        while goes_on || self.may_receive(websocket) {
            let received = match within(patience, websocket.receive_text()).await {
                Some(received) => received,
                None => {
                    websocket.send_text(messages::heartbeat(self, connection)).await?;
                    continue;
                }
            };
            let text = match received {
                Ok(text) => text,
                Err(exception) if goes_on => {
                    tracing::warn!("error in message loop: {exception}");
                    sleep(LOOP_PAUSE).await;
                    continue;
                }
                // A binary message has no text.
                Err(exception) if exception == Exception::key_error("text") => {
                    let text = "Only text messages are understood.";
                    websocket.send_text(messages::error(self, "UNSUPPORTED_DATA", text)).await?;
                    continue;
                }
                // After a close of its own the framework lets no application receive.
                Err(exception) if websocket.application_state() != SocketState::Connected => {
                    tracing::error!("error in message loop: {exception}");
                    break;
                }
                Err(exception) => return Err(exception),
            };
            life.advance(Life::Processing)?;
            let next = self.answer(websocket, user, &text).await?;
            life.advance(Life::Idle)?;
            match next {
                LoopNext::Receive => {}
                LoopNext::Stop => websocket.close(CloseCode::NORMAL.0, "").await?,
            }
        }
        Ok(())
    }

    /// Whether another message can come: neither side has closed.
    fn may_receive(&self, websocket: &WebSocket) -> bool {
        let client_is_there = websocket.client_state() == SocketState::Connected;
        let own_side_is_open =
            websocket.application_state() == SocketState::Connected || self.revision.has(Defect::ReceiveAfterOwnClose);
        client_is_there && own_side_is_open
    }

    /// Answers a message of a client.
    async fn answer(&self, websocket: &mut WebSocket, user: &str, text: &str) -> Result<LoopNext, Exception> {
        if self.revision.has(Defect::HandlerIsAFunction) {
            return Err(Exception::attribute_error("function", "can_handle"));
        }
        if text.len() > MESSAGE_BYTES_MAX && self.revision.has(Defect::OversizeMessageDropped) {
            return Ok(LoopNext::Receive);
        }
        let request = match self.read_message(user, text) {
            Ok(request) => request,
            Err(refusal) => {
                websocket.send_text(refusal).await?;
                return Ok(LoopNext::Receive);
            }
        };
        if request.get("jsonrpc").and_then(Json::as_str) == Some("2.0") && request.get("method").is_some() {
            let result = json!({ "status": "processed", "method": request["method"] });
            let answer = json!({ "jsonrpc": "2.0", "result": result, "id": request.get("id") });
            websocket.send_text(messages::to_text(&answer)).await?;
            return Ok(LoopNext::Receive);
        }
        let name = request.get("type").and_then(Json::as_str).unwrap_or_default();
        match canonical(name) {
            "user_message" | "chat" | "agent_request" | "start_agent" => {
                self.answer_agent_request(websocket, user, &request).await?;
            }
            "agent_task" => {
                let stamp = self.timestamp();
                for name in ["agent_task_ack", "agent_response_chunk", "agent_response_complete"] {
                    let frame = json!({ "type": name, "timestamp": stamp, "user_id": user });
                    websocket.send_text(messages::to_text(&frame)).await?;
                }
            }
            known => websocket.send_text(messages::to_text(&self.reply(known, user)?)).await?,
        }
        Ok(if name == "disconnect" { LoopNext::Stop } else { LoopNext::Receive })
    }

    /// A message as a JSON object, or the error message that refuses it.
    fn read_message(&self, user: &str, text: &str) -> Result<Json, String> {
        if text.len() > MESSAGE_BYTES_MAX {
            return Err(messages::error(self, "MESSAGE_TOO_LARGE", "A message may have 8192 bytes."));
        }
        let limit = limits::messages_max(self.environment());
        if let Some(wait) = self.limits().message(user, limit) {
            let text = format!("A user may send {limit} messages a minute. Try again in {} s.", wait.as_secs() + 1);
            return Err(messages::error(self, "RATE_LIMITED", &text));
        }
        match serde_json::from_str(text) {
            Ok(Json::Object(request)) => Ok(Json::Object(request)),
            Ok(_) | Err(_) => Err(messages::error(self, "JSON_PARSE_ERROR", "Invalid JSON format")),
        }
    }

    /// The reply to a message that asks no agent.
    fn reply(&self, name: &str, user: &str) -> Result<Json, Exception> {
        let stamp = self.timestamp();
        Ok(match name {
            "ping" => json!({ "type": "pong", "timestamp": stamp, "user_id": user }),
            "heartbeat" => json!({ "type": "heartbeat_ack", "timestamp": stamp, "status": "healthy" }),
            "connect" => json!({ "type": "system_message", "timestamp": stamp, "data": { "status": "connected" } }),
            "user_typing" => json!({ "type": "typing_acknowledged", "timestamp": stamp, "user_id": user }),
            "disconnect" => json!({ "type": "disconnect_acknowledged", "timestamp": stamp, "user_id": user }),
            other if self.revision.has(Defect::UnknownTypeRaises) => {
                return Err(Exception::new("ValueError", format!("Unknown message type: '{other}'")));
            }
            other => json!({
                "type": "ack",
                "received_type": other,
                "timestamp": stamp,
                "user_id": user,
                "status": "acknowledged",
            }),
        })
    }
}

/// The close codes that the pre-SSOT route gave its components. Four of them may not stand in a close frame or mean
/// something else there (RFC 6455 section 7.4.1).
fn component_code(component: &str) -> u16 {
    match component {
        "auth_service" => 1002,
        "database" => 1005,
        "thread_service" => 1006,
        "redis" => 1007,
        "agent_supervisor" => 1008,
        "websocket_bridge" => 1009,
        _ => 1011,
    }
}

/// The reported test for a test: some header has `test` or `e2e` in its name, and a fitting value.
fn looks_like_a_test(scope: &Scope) -> bool {
    scope.headers().is_ok_and(|headers| {
        headers.iter().any(|(name, value)| {
            holds_any(name, &["test", "e2e"]) && holds_any(value, &["e2e", "staging", "test", "true", "1"])
        })
    })
}

/// Whether a text holds one of these parts, in any case.
fn holds_any(text: &[u8], parts: &[&str]) -> bool {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    parts.iter().any(|part| text.contains(part))
}

/// The name behind a message type's aliases.
fn canonical(name: &str) -> &str {
    match name {
        "user" | "user_input" | "message" | "chat_message" => "user_message",
        "agent" => "agent_request",
        "execute_agent" | "EXECUTE_AGENT" => "start_agent",
        "typing" => "user_typing",
        other => other,
    }
}
