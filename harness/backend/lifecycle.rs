//! The states a connection passes through before it may process messages.

use crate::exception::Exception;

/// A connection's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Connecting,
    Accepted,
    Authenticated,
    ServicesReady,
    ProcessingReady,
    Closing,
    Closed,
}

/// Follows one connection's states and refuses a step that skips one.
#[derive(Debug)]
pub(super) struct Lifecycle(State);

impl Lifecycle {
    pub(super) fn new() -> Lifecycle {
        Lifecycle(State::Connecting)
    }

    pub(super) fn advance(&mut self, next: State) -> Result<(), Exception> {
        let allowed = match (self.0, next) {
            (State::Connecting, State::Accepted)
            | (State::Accepted, State::Authenticated)
            | (State::Authenticated, State::ServicesReady)
            | (State::ServicesReady, State::ProcessingReady)
            | (State::Closing, State::Closed) => true,
            (from, State::Closing) => from < State::Closing,
            _ => false,
        };
        if !allowed {
            return Err(Exception::runtime_error(format!("invalid transition from {:?} to {next:?}", self.0)));
        }
        self.0 = next;
        Ok(())
    }

    pub(super) fn may_process(&self) -> bool {
        self.0 == State::ProcessingReady
    }
}
