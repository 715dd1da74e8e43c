//! What a server calls: an application with a scope, a receive and a send.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::{
    event::{Inbound, MessageKeys, Outbound},
    exception::Exception,
    scope::{Scope, ScopeType},
};

/// A future that can move between owners.
pub type Promise<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An ASGI application. Its call ends by returning or by raising.
pub trait Application: Send + Sync + fmt::Debug + 'static {
    /// Serves one connection.
    fn call(
        self: Arc<Self>,
        scope: Scope,
        receive: Box<dyn Receive>,
        send: Box<dyn SendEvent>,
    ) -> Promise<'static, Result<(), Exception>>;
}

/// The application's `receive`.
pub trait Receive: Send {
    /// The next event. Cancel safe.
    fn receive(&mut self) -> Promise<'_, Result<Inbound, Exception>>;

    /// The keys that a message has.
    fn message_keys(&self) -> MessageKeys {
        MessageKeys::Both
    }
}

/// The application's `send`.
pub trait SendEvent: Send {
    /// Hands an event to the server; raises what the server raises.
    fn send(&mut self, event: Outbound) -> Promise<'_, Result<(), Exception>>;

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
