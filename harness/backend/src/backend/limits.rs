//! The limits on what one user may hold and send. They belong to the authenticated user; the user learns which limit is
//! reached.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::{Backend, lock};
use crate::defect::Defect;
use relapse::environment::Environment;
use relapse_core::asgi::{exception::Exception, scope::Scope, value::Value};

/// How many connections a user may have at a time.
pub(super) const CONNECTIONS_MAX: usize = 10;
/// How many managers a user may have: one for each connection, and as many again while old ones are cleaned up.
const MANAGERS_MAX: usize = 20;
/// The time in which messages are counted.
const RATE_WINDOW: Duration = Duration::from_secs(60);

/// From how many users on those are forgotten who have sent nothing for that time.
const USERS_REMEMBERED: usize = 1000;

/// How many messages a user may send in a minute.
pub(super) fn messages_max(environment: Environment) -> usize {
    match environment {
        Environment::Staging | Environment::Production => 60,
        Environment::Testing => 1000,
        Environment::Development => 120,
    }
}

/// The connections and managers that each user holds, and when each sent messages.
#[derive(Debug, Default)]
pub(super) struct UserLimits {
    connections: BTreeMap<String, usize>,
    managers: BTreeMap<String, usize>,
    messages: BTreeMap<String, VecDeque<Instant>>,
}

impl UserLimits {
    pub(super) fn managers(&self) -> usize {
        self.managers.values().sum()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.values().sum()
    }

    /// Counts a message; how long the user is to wait when it is one too many.
    pub(super) fn message(&mut self, user: &str, limit: usize) -> Option<Duration> {
        if self.messages.len() > USERS_REMEMBERED && !self.messages.contains_key(user) {
            self.messages.retain(|_, sent| sent.back().is_some_and(|at: &Instant| at.elapsed() < RATE_WINDOW));
        }
        let sent = match self.messages.get_mut(user) {
            Some(sent) => sent,
            None => self.messages.entry(user.to_owned()).or_default(),
        };
        while sent.front().is_some_and(|at| at.elapsed() >= RATE_WINDOW) {
            sent.pop_front();
        }
        if sent.len() >= limit {
            return sent.front().map(|at| RATE_WINDOW.saturating_sub(at.elapsed()));
        }
        sent.push_back(Instant::now());
        None
    }
}

fn increase(counts: &mut BTreeMap<String, usize>, key: &str, limit: usize) -> bool {
    let count = match counts.get_mut(key) {
        Some(count) => count,
        None => counts.entry(key.to_owned()).or_default(),
    };
    let is_free = *count < limit;
    *count += usize::from(is_free);
    is_free
}

fn decrease(counts: &mut BTreeMap<String, usize>, key: &str) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// One of a user's connections, for as long as it lives.
pub(super) struct HeldConnection<'a> {
    backend: &'a Backend,
    key: String,
}

/// The manager of one connection, for as long as it lives.
pub(super) struct Manager<'a> {
    backend: &'a Backend,
    user: String,
}

impl Backend {
    /// Takes one of the user's connections; `None` when all are taken.
    pub(super) fn take_place(&self, user: &str, scope: &Scope) -> Option<HeldConnection<'_>> {
        let key = if self.revision.has(Defect::LimitsKeyedByPort) { host_and_port(scope) } else { user.to_owned() };
        let is_free = increase(&mut self.limits().connections, &key, CONNECTIONS_MAX);
        // Made only now: a place gives itself back when it is dropped.
        is_free.then(|| HeldConnection { backend: self, key })
    }

    /// Makes the manager of a connection.
    pub(super) fn create_manager(&self, user: &str) -> Result<Manager<'_>, Exception> {
        if self.revision.has(Defect::UnboundStateRegistry) {
            return Err(Exception::name_error("state_registry"));
        }
        if !increase(&mut self.limits().managers, user, MANAGERS_MAX) {
            let text = format!("User {user} has reached the maximum number of WebSocket managers ({MANAGERS_MAX})");
            return Err(Exception::runtime_error(text));
        }
        Ok(Manager { backend: self, user: user.to_owned() })
    }
}

/// `f"{client.host}:{client.port}"`, which is another one for every connection.
fn host_and_port(scope: &Scope) -> String {
    match scope.get("client") {
        Ok(Value::List(parts)) => parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(":"),
        _ => "unknown".to_owned(),
    }
}

impl Drop for HeldConnection<'_> {
    fn drop(&mut self) {
        decrease(&mut lock(&self.backend.limits).connections, &self.key);
    }
}

impl Drop for Manager<'_> {
    fn drop(&mut self) {
        // The clean-up that was to find abandoned managers runs only when a manager is made for the same connection.
        if !self.backend.revision.has(Defect::ManagersLeak) {
            decrease(&mut lock(&self.backend.limits).managers, &self.user);
        }
    }
}
