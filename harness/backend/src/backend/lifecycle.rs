//! The states a connection passes through.

use relapse_core::asgi::exception::Exception;

/// A connection's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    Accepted,
    Authenticated,
    ServicesReady,
    ProcessingReady,
    /// Ready, with something missing that it can do without.
    Degraded,
    Processing,
    Idle,
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
            | (State::ServicesReady, State::ProcessingReady | State::Degraded)
            | (State::ProcessingReady | State::Degraded | State::Idle, State::Processing)
            | (State::Processing, State::Idle)
            | (State::Closing, State::Closed) => true,
            (from, State::Closing) => !matches!(from, State::Closing | State::Closed),
            _ => false,
        };
        if !allowed {
            return Err(Exception::runtime_error(format!("invalid transition from {:?} to {next:?}", self.0)));
        }
        self.0 = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Lifecycle, State};

    #[test]
    fn a_connection_skips_no_state() {
        let mut life = Lifecycle::new();
        assert!(life.advance(State::Processing).is_err(), "nothing is processed before the set-up is over");
        for state in [State::Accepted, State::Authenticated, State::ServicesReady, State::ProcessingReady] {
            life.advance(state).unwrap();
        }
        assert!(life.advance(State::Idle).is_err(), "only processing becomes idle");
        for state in [State::Processing, State::Idle, State::Processing, State::Closing, State::Closed] {
            life.advance(state).unwrap();
        }
        assert!(life.advance(State::Closing).is_err(), "what is closed stays closed");
    }
}
