//! The WebSocket routes: from the upgrade to the last message.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::{
    Backend, credentials,
    lifecycle::{Lifecycle, State as Life},
    messages,
    token::{self, Key, Refusal},
    websocket::{State, WebSocket},
};
use crate::{
    close_code::CloseCode, defect::Defect, environment::Environment, exception::Exception, head::field, scope::Scope,
};

/// The largest message the service takes, in bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 8192;

/// How long the pre-SSOT route waits between its error frame and its close.
const PRE_SSOT_CLOSE_DELAY: Duration = Duration::from_millis(100);

/// Whether the receive loop goes on.
enum Next {
    Receive,
    Stop,
}

impl Backend {
    /// Serves one WebSocket connection.
    pub(super) async fn serve_websocket(&self, mut websocket: WebSocket) -> Result<(), Exception> {
        if self.guard_websocket(&mut websocket).await? {
            return Ok(());
        }
        match self.route(&mut websocket).await {
            Ok(()) => Ok(()),
            Err(exception) => self.guard_exception(&mut websocket, exception).await,
        }
    }

    async fn route(&self, websocket: &mut WebSocket) -> Result<(), Exception> {
        let path = websocket.scope.str("path")?.to_owned();
        match path.as_str() {
            "/ws" => {
                let parameter_source =
                    if self.revision.has(Defect::QueryParamsOnUrl) { "query_params" } else { "query" };
                let parameters = websocket.url()?.attribute(parameter_source)?.len();
                tracing::info!("connection context: path {path}, {parameters} bytes of query");
                self.main_mode(websocket).await
            }
            "/websocket" | "/ws/test" if self.revision.has(Defect::LegacyWithoutAuth) => {
                let mut life = Lifecycle::new();
                websocket.accept(None).await?;
                life.advance(Life::Accepted)?;
                self.converse(websocket, "legacy", "anonymous", life).await
            }
            "/api/v1/websocket" | "/websocket" | "/ws/test" => self.main_mode(websocket).await,
            _ if self.revision.has(Defect::UnknownRouteClosed) => websocket.close(CloseCode::NORMAL.0, "").await,
            _ => websocket.deny(404, Vec::new(), self.error_body("NOT_FOUND", "There is no such route.")).await,
        }
    }

    async fn main_mode(&self, websocket: &mut WebSocket) -> Result<(), Exception> {
        let key = match &self.settings.secret {
            Ok(secret) => &secret.key,
            Err(_) => {
                let retry = vec![field("retry-after", "10")];
                let body = self.error_body("SERVICE_UNAVAILABLE", "The service is not ready.");
                return websocket.deny(503, retry, body).await;
            }
        };
        if self.revision.has(Defect::AuthAfterAccept) {
            return self.accept_then_authenticate(websocket, key).await;
        }
        if self.revision.has(Defect::RefusalLacksAttribute) {
            return self.accept_then_read_result(websocket, key).await;
        }
        if self.revision.has(Defect::ReceiveBeforeAccept) {
            websocket.receive_text().await?;
        }
        let presented = credentials::presented(&websocket.scope)?;
        if self.revision.has(Defect::QueryStringOnWebsocket) {
            let in_head = credentials::in_headers_and_subprotocols(&websocket.scope)?;
            if credentials::authenticate(&in_head, key, self.now(), self.environment()).is_err() {
                return self.isolated_mode_without_head_credential(websocket).await;
            }
        }
        let user = match self.authenticate(websocket, key, &presented) {
            Ok(user) => user,
            Err(refusal) => return self.refuse(websocket, refusal).await,
        };
        let selected = credentials::select_subprotocol(&websocket.scope.subprotocols()?, self.revision);
        let Ok(subprotocol) = selected else {
            let body = self.error_body("BAD_REQUEST", "None of the offered subprotocols is supported.");
            return websocket.deny(400, Vec::new(), body).await;
        };
        let mut life = Lifecycle::new();
        websocket.accept(subprotocol).await?;
        life.advance(Life::Accepted)?;
        self.converse(websocket, "main", &user, life).await
    }

    /// The user of a session: the one rule, and what the reported service put beside it.
    fn authenticate(&self, websocket: &WebSocket, key: &Key, presented: &[String]) -> Result<String, Refusal> {
        let strict = credentials::authenticate(presented, key, self.now(), self.environment());
        let outside_production = self.environment() != Environment::Production;
        if self.revision.has(Defect::RelaxedAuthentication) && outside_production {
            return strict.or_else(|_| Ok(format!("relaxed_{}", self.now())));
        }
        if self.revision.has(Defect::HeaderNameBypass) && outside_production && looks_like_a_test(&websocket.scope) {
            let unverified = presented.iter().find_map(|token| token::unverified_subject(token));
            return strict.or_else(|refusal| unverified.ok_or(refusal));
        }
        strict
    }

    async fn refuse(&self, websocket: &mut WebSocket, refusal: Refusal) -> Result<(), Exception> {
        let (code, text) = match refusal {
            Refusal::Format => ("NO_TOKEN", "No usable credential was presented."),
            Refusal::Validation => ("VALIDATION_FAILED", "The credential is not valid."),
            Refusal::Expired => ("TOKEN_EXPIRED", "The credential has expired."),
        };
        tracing::info!("upgrade refused: {code}");
        let challenge = vec![field("www-authenticate", "Bearer")];
        websocket.deny(401, challenge, self.error_body(code, text)).await
    }

    /// Accepts before anybody is known, as the reported routes did.
    async fn accept_first(&self, websocket: &mut WebSocket) -> Result<Lifecycle, Exception> {
        let offers = websocket.scope.subprotocols()?;
        let subprotocol = credentials::select_subprotocol(&offers, self.revision).unwrap_or_default();
        let mut life = Lifecycle::new();
        websocket.accept(subprotocol).await?;
        life.advance(Life::Accepted)?;
        Ok(life)
    }

    /// The order of the pre-SSOT route: accept, then look for a token in header and subprotocols.
    async fn accept_then_authenticate(&self, websocket: &mut WebSocket, key: &Key) -> Result<(), Exception> {
        let presented = credentials::in_headers_and_subprotocols(&websocket.scope)?;
        let life = self.accept_first(websocket).await?;
        match credentials::authenticate(&presented, key, self.now(), self.environment()) {
            Ok(user) => self.converse(websocket, "main", &user, life).await,
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
    async fn accept_then_read_result(&self, websocket: &mut WebSocket, key: &Key) -> Result<(), Exception> {
        let presented = credentials::presented(&websocket.scope)?;
        let life = self.accept_first(websocket).await?;
        match credentials::authenticate(&presented, key, self.now(), self.environment()) {
            Ok(user) => self.converse(websocket, "main", &user, life).await,
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

    /// The isolated mode of b17, once header and subprotocol gave no credential: it has accepted, and reads the query
    /// where there is none.
    async fn isolated_mode_without_head_credential(&self, websocket: &mut WebSocket) -> Result<(), Exception> {
        websocket.accept(None).await?;
        let exception = Exception::attribute_error("WebSocket", "query_string");
        tracing::error!("isolated mode: {exception}");
        websocket.close(CloseCode::INTERNAL.0, "isolated mode error").await
    }

    /// Welcome, then the receive loop.
    async fn converse(
        &self,
        websocket: &mut WebSocket,
        mode: &str,
        user: &str,
        mut life: Lifecycle,
    ) -> Result<(), Exception> {
        let _registration = self.register()?;
        if self.revision.has(Defect::EnumInLogRecord) {
            let state = websocket.client_state();
            return Err(Exception::type_error(format!("Object of type {} is not JSON serializable", state.class())));
        }
        life.advance(Life::Authenticated)?;
        life.advance(Life::ServicesReady)?;
        self.establish(websocket, mode, user).await?;
        life.advance(Life::ProcessingReady)?;
        let result = self.receive_loop(websocket, user, &mut life).await;
        life.advance(Life::Closing)?;
        life.advance(Life::Closed)?;
        result
    }

    async fn establish(&self, websocket: &mut WebSocket, mode: &str, user: &str) -> Result<(), Exception> {
        let connection = format!("ws_{:016x}", self.identifier());
        let welcomed = match messages::welcome(self, mode, user, &connection) {
            Ok(frame) => websocket.send_text(frame).await,
            Err(exception) => Err(exception),
        };
        let Err(exception) = welcomed else { return Ok(()) };
        let reported = self.report_failed_setup(websocket).await;
        // The clean-up runs whatever became of the report.
        if websocket.application_state() == State::Connected {
            websocket.close(CloseCode::NORMAL.0, format!("{mode} cleanup")).await?;
        }
        reported?;
        Err(exception)
    }

    async fn report_failed_setup(&self, websocket: &mut WebSocket) -> Result<(), Exception> {
        let text = "The session could not be set up.";
        websocket.send_text(messages::setup_error(self, "SERVICE_INIT_FAILED", text)?).await?;
        websocket.close(CloseCode::INTERNAL.0, "Failed to establish connection").await
    }

    async fn receive_loop(&self, websocket: &mut WebSocket, user: &str, life: &mut Lifecycle) -> Result<(), Exception> {
        while self.may_receive(websocket) {
            let text = match websocket.receive_text().await {
                Ok(text) => text,
                // A binary message has no text.
                Err(exception) if exception.type_name == "KeyError" => {
                    let text = "Only text messages are understood.";
                    websocket.send_text(messages::error(self, "UNSUPPORTED_DATA", text)).await?;
                    continue;
                }
                Err(exception) if exception.type_name == "RuntimeError" => {
                    tracing::error!("error in message loop: {exception}");
                    break;
                }
                Err(exception) => return Err(exception),
            };
            life.advance(Life::Processing)?;
            let next = self.answer(websocket, user, &text).await?;
            life.advance(Life::Idle)?;
            match next {
                Next::Receive => {}
                Next::Stop => websocket.close(CloseCode::NORMAL.0, "").await?,
            }
        }
        Ok(())
    }

    /// Whether another message can come: neither side has closed.
    fn may_receive(&self, websocket: &WebSocket) -> bool {
        let client_is_there = websocket.client_state() == State::Connected;
        let own_side_is_open =
            websocket.application_state() == State::Connected || self.revision.has(Defect::ReceiveAfterOwnClose);
        client_is_there && own_side_is_open
    }

    async fn answer(&self, websocket: &mut WebSocket, user: &str, text: &str) -> Result<Next, Exception> {
        if text.len() > MESSAGE_BYTES_MAX {
            if self.revision.has(Defect::OversizeMessageDropped) {
                return Ok(Next::Receive);
            }
            let error = messages::error(self, "MESSAGE_TOO_LARGE", "A message may have 8192 bytes.");
            websocket.send_text(error).await?;
            return Ok(Next::Receive);
        }
        let Ok(Json::Object(request)) = serde_json::from_str(text) else {
            websocket.send_text(messages::error(self, "JSON_PARSE_ERROR", "Invalid JSON format")).await?;
            return Ok(Next::Receive);
        };
        let request = Json::Object(request);
        if request.get("jsonrpc").and_then(Json::as_str) == Some("2.0") && request.get("method").is_some() {
            let result = json!({ "status": "processed", "method": request["method"] });
            let answer = json!({ "jsonrpc": "2.0", "result": result, "id": request.get("id") });
            websocket.send_text(messages::to_text(&answer)).await?;
            return Ok(Next::Receive);
        }
        let name = request.get("type").and_then(Json::as_str).unwrap_or_default();
        let stamp = self.timestamp();
        let reply = match canonical(name) {
            "ping" => json!({ "type": "pong", "timestamp": stamp, "user_id": user }),
            "heartbeat" => json!({ "type": "heartbeat_ack", "timestamp": stamp, "status": "healthy" }),
            "connect" => json!({ "type": "system_message", "timestamp": stamp, "data": { "status": "connected" } }),
            "user_typing" => json!({ "type": "typing_acknowledged", "timestamp": stamp, "user_id": user }),
            "disconnect" => json!({ "type": "disconnect_acknowledged", "timestamp": stamp, "user_id": user }),
            "user_message" | "chat" | "agent_request" | "start_agent" => {
                self.answer_agent_request(websocket, user, &request).await?;
                websocket.send_text(self.agent_response_complete(user)).await?;
                return Ok(Next::Receive);
            }
            other => json!({
                "type": "ack",
                "received_type": other,
                "timestamp": stamp,
                "user_id": user,
                "status": "acknowledged",
            }),
        };
        websocket.send_text(messages::to_text(&reply)).await?;
        Ok(if name == "disconnect" { Next::Stop } else { Next::Receive })
    }
}

/// The reported test for a test: some header has `test` or `e2e` in its name, and a fitting value.
fn looks_like_a_test(scope: &Scope) -> bool {
    let holds = |text: &[u8], parts: &[&str]| {
        let text = String::from_utf8_lossy(text).to_ascii_lowercase();
        parts.iter().any(|part| text.contains(part))
    };
    let fits = |(name, value): &(&[u8], &[u8])| {
        holds(name, &["test", "e2e"]) && holds(value, &["e2e", "staging", "test", "true", "1"])
    };
    scope.headers().is_ok_and(|headers| headers.iter().any(fits))
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
