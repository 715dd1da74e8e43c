//! One agent run: five events in order.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value as Json;
use tokio::time::timeout;

use super::{Backend, exception_guard::DEPENDENCY_ERROR, messages, websocket::WebSocket};
use crate::{defect::Defect, dependency::Dependency, exception::Exception};

/// How long the supervisor may take (the readiness table's limit for it on the cloud platform).
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(2);

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
    detail: Detail<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Detail<'a> {
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

impl Backend {
    /// Answers an agent request. An error of the handler itself is told to the client and ends only this request.
    pub(super) async fn answer_agent_request(
        &self,
        websocket: &mut WebSocket,
        user: &str,
        request: &Json,
    ) -> Result<(), Exception> {
        match self.run_agent(websocket, user, request).await {
            Err(exception) if exception.type_name == "NameError" => {
                tracing::error!("agent request failed: {exception}");
                let text = "The request could not be processed.";
                websocket.send_text(messages::error(self, "AGENT_REQUEST_ERROR", text)).await
            }
            result => result,
        }
    }

    async fn run_agent(&self, websocket: &mut WebSocket, user: &str, request: &Json) -> Result<(), Exception> {
        let thread = request.get("thread_id").and_then(Json::as_str);
        let content = request.get("content").or_else(|| request.get("message")).and_then(Json::as_str);
        let task = content.unwrap_or("Processing request");
        if self.revision.has(Defect::UnboundNameInFallback) {
            // The handler's parameters are called `user_id` and `payload`; its log line says `user_request`.
            return Err(Exception::name_error("user_request"));
        }
        let called = timeout(SUPERVISOR_LIMIT, self.dependencies.call(Dependency::AgentSupervisor)).await;
        match called {
            Ok(answer) => answer.map_err(|error| Exception::new(DEPENDENCY_ERROR, error.message))?,
            Err(_) => return Err(Exception::new(DEPENDENCY_ERROR, "agent_supervisor did not answer in time")),
        }
        let details = [
            Detail::Started { agent_name: "triage", task_description: task },
            Detail::Thinking { reasoning: "Looking for what the request needs." },
            Detail::Executing { tool_name: "search", parameters: Parameters { query: task } },
            Detail::Completed { tool_name: "search", results: "nothing found", duration: 0.0, success: true },
            Detail::Finished { status: "completed", final_response: "Done." },
        ];
        for (name, detail) in messages::AGENT_EVENTS.into_iter().zip(details) {
            let timestamp = self.timestamp();
            let event =
                AgentEvent { name, user_id: user, thread_id: thread, timestamp, critical: true, attempt: None, detail };
            websocket.send_text(messages::to_text(&event)).await?;
        }
        Ok(())
    }

    /// What the handler adds after the five events.
    pub(super) fn agent_response_complete(&self, user: &str) -> String {
        let timestamp = self.timestamp();
        messages::to_text(&RunCompleted {
            name: "agent_response_complete",
            user_id: user,
            status: "completed",
            timestamp,
        })
    }
}
