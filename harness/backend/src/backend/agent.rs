//! One agent run: a thread, the supervisor, and five events in order.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value as Json;
use tokio::time::sleep;

use super::{Backend, exception_guard::DEPENDENCY_ERROR, lock, messages, websocket::WebSocket, within};
use crate::{defect::Defect, dependency::Dependency};
use relapse::environment::Environment;
use relapse_core::asgi::exception::Exception;

/// How long a call of a run may take (the readiness table's limit for the supervisor on the platform).
const CALL_LIMIT: Duration = Duration::from_secs(2);

/// The agents, and the language model they need.
#[derive(Debug, Default)]
pub(super) struct Registry {
    has_model: bool,
}

impl Registry {
    /// The registry of a service that starts.
    ///
    /// # Errors
    /// `ValueError` without a language model.
    pub(super) fn new(backend: &Backend) -> Result<Registry, Exception> {
        let has_model = backend.settings.has_model;
        if !has_model && backend.revision.has(Defect::RegistryWithoutModel) {
            tracing::warn!("llm_manager is None in AgentRegistry");
        } else if !has_model {
            let text = "llm_manager is required for AgentRegistry initialization - cannot be None";
            return Err(Exception::new("ValueError", text));
        }
        Ok(Registry { has_model })
    }
}

#[derive(Serialize)]
struct AgentEvent<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    user_id: &'a str,
    thread_id: Option<&'a str>,
    timestamp: f64,
    critical: bool,
    attempt: Option<u32>,
    #[serde(flatten)]
    detail: EventDetail<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum EventDetail<'a> {
    Started { agent_name: &'a str, task_description: &'a str },
    Thinking { reasoning: &'a str },
    Executing { tool_name: &'a str, parameters: Parameters<'a> },
    Completed { tool_name: &'a str, results: &'a str, duration: f64, success: bool },
    Finished { status: &'a str, final_response: &'a str },
}

#[derive(Serialize)]
struct RunCompleted<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    user_id: &'a str,
    status: &'a str,
    timestamp: f64,
}

#[derive(Serialize)]
struct Parameters<'a> {
    query: &'a str,
}

/// How often the delivery of an event is tried, and how long each further attempt waits.
pub(super) fn delivery(environment: Environment) -> (u32, Duration) {
    match environment.is_deployed() {
        true => (3, Duration::from_secs(1)),
        false => (1, Duration::from_millis(500)),
    }
}

impl Backend {
    /// Answers an agent request. An error of the handler itself is told to the client and ends only this request.
    pub(super) async fn answer_agent_request(
        &self,
        websocket: &mut WebSocket,
        user: &str,
        request: &Json,
    ) -> Result<(), Exception> {
        match self.run_agent(websocket, user, request).await {
            Ok(()) => {}
            Err(exception) if exception.type_name == "NameError" => {
                tracing::error!("agent request failed: {exception}");
                let text = "The request could not be processed.";
                websocket.send_text(messages::error(self, "AGENT_REQUEST_ERROR", text)).await?;
            }
            // The reported handler catches what its agents raise, and returns False to a caller that does not look.
            Err(exception) if exception.type_name == "AttributeError" => {
                tracing::error!("agent request failed: {exception}");
                return Ok(());
            }
            Err(exception) => return Err(exception),
        }
        websocket.send_text(self.agent_response_complete(user)).await
    }

    async fn run_agent(&self, websocket: &mut WebSocket, user: &str, request: &Json) -> Result<(), Exception> {
        let thread = request.get("thread_id").and_then(Json::as_str);
        let content = request.get("content").or_else(|| request.get("message")).and_then(Json::as_str);
        let task = content.unwrap_or("Processing request");
        if self.revision.has(Defect::UnboundNameInFallback) {
            // The handler's parameters are called `user_id` and `payload`; its log line says `user_request`.
            return Err(Exception::name_error("user_request"));
        }
        if !self.registry.get().is_some_and(|registry| registry.has_model) {
            return Err(Exception::attribute_error("NoneType", "ask_llm"));
        }
        let shares_context = self.revision.has(Defect::SharedRunContext);
        let shares_thread = self.revision.has(Defect::SharedThread);
        if shares_context || shares_thread {
            lock(&self.shared).run = Some((user.to_owned(), thread.map(str::to_owned)));
        }
        self.call(Dependency::ThreadService, "open").await?;
        self.call(Dependency::AgentSupervisor, "run").await?;
        let last = lock(&self.shared).run.clone();
        let (user, thread) = match &last {
            Some((last_user, last_thread)) if shares_context => (last_user.as_str(), last_thread.as_deref()),
            Some((_, last_thread)) if shares_thread => (user, last_thread.as_deref()),
            _ => (user, thread),
        };
        let details = [
            EventDetail::Started { agent_name: "triage", task_description: task },
            EventDetail::Thinking { reasoning: "Looking for what the request needs." },
            EventDetail::Executing { tool_name: "search", parameters: Parameters { query: task } },
            EventDetail::Completed { tool_name: "search", results: "nothing found", duration: 0.0, success: true },
            EventDetail::Finished { status: "completed", final_response: "Done." },
        ];
        for (name, detail) in messages::AGENT_EVENTS.into_iter().zip(details) {
            let attempt = self.reach_bridge().await?;
            let timestamp = self.timestamp();
            let event =
                AgentEvent { name, user_id: user, thread_id: thread, timestamp, critical: true, attempt, detail };
            websocket.send_text(messages::to_text(&event)).await?;
        }
        Ok(())
    }

    /// Asks the bridge to carry an event, again where it fails: three times on the platform, once elsewhere. Gives the
    /// number of the attempt that succeeded; nothing for the first.
    async fn reach_bridge(&self) -> Result<Option<u32>, Exception> {
        let environment = if self.revision.has(Defect::EnvironmentRulesDisagree) {
            self.settings.environment_by_name_only
        } else {
            self.environment()
        };
        let (attempts, pause) = delivery(environment);
        let mut attempt = 1;
        loop {
            match self.call(Dependency::WebsocketBridge, "emit").await {
                Ok(()) => return Ok((attempt > 1).then_some(attempt)),
                Err(exception) if attempt == attempts => return Err(exception),
                Err(exception) => {
                    tracing::warn!("event delivery, attempt {attempt}: {exception}");
                    attempt += 1;
                    sleep(pause).await;
                }
            }
        }
    }

    /// Calls a dependency within the limit.
    async fn call(&self, dependency: Dependency, operation: &'static str) -> Result<(), Exception> {
        match within(CALL_LIMIT, self.ask(dependency, operation)).await {
            Some(answer) => answer.map_err(|error| Exception::new(DEPENDENCY_ERROR, error.message)),
            None => {
                let text = format!("{} did not answer in time", dependency.name());
                Err(Exception::new(DEPENDENCY_ERROR, text))
            }
        }
    }

    /// The event that the handler adds after the five events.
    fn agent_response_complete(&self, user: &str) -> String {
        let timestamp = self.timestamp();
        messages::to_text(&RunCompleted {
            name: "agent_response_complete",
            user_id: user,
            status: "completed",
            timestamp,
        })
    }
}
