//! The interface that a server calls: an application with a scope, a receive and a send.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

use relapse_core::asgi::{
    event::{Inbound, MessageKeys, Outbound},
    exception::Exception,
    scope::{Scope, ScopeType},
};

/// A future that can move between owners.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An ASGI application. Its call ends by returning or by raising.
pub trait Application: Send + Sync + fmt::Debug + 'static {
    /// Serves one connection.
    fn call(
        self: Arc<Self>,
        scope: Scope,
        receive: Box<dyn Receive>,
        send: Box<dyn SendEvent>,
    ) -> BoxFuture<'static, Result<(), Exception>>;

    /// The event loop that it runs on, where it may block that; `None` for an app that never does.
    fn event_loop(&self) -> Option<watch::Receiver<EventLoop>> {
        None
    }
}

/// An event loop of an app, as its server sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventLoop {
    /// The state now.
    pub state: LoopState,
    /// How often it has run again after an app had blocked it.
    pub turns: u64,
}

/// Whether an event loop runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoopState {
    /// It does.
    #[default]
    Runs,
    /// An app keeps it to itself.
    Blocked,
}

/// The application's `receive`.
pub trait Receive: Send {
    /// The next event. Cancel safe.
    fn receive(&mut self) -> BoxFuture<'_, Result<Inbound, Exception>>;

    /// The event that the next `receive` gives, where that is certain, whatever happens before it is asked for.
    fn foreseen(&self) -> Option<Inbound> {
        None
    }

    /// The keys that a message has.
    fn message_keys(&self) -> MessageKeys {
        MessageKeys::Both
    }
}

/// The application's `send`.
pub trait SendEvent: Send {
    /// Hands an event to the server; raises what the server raises.
    fn send(&mut self, event: Outbound) -> BoxFuture<'_, Result<(), Exception>>;

    /// The kind of the connection, where a server is behind it.
    fn kind(&self) -> Option<ScopeType> {
        None
    }

    /// Something to ask how many bytes of messages, with their headers, `send` would take now without waiting or raising.
    fn credit(&self) -> Credit {
        Arc::new(|| 0)
    }
}

/// Tells how many bytes of messages would be taken now.
pub type Credit = Arc<dyn Fn() -> usize + Send + Sync>;
