//! The states a connection passes through.

use relapse_core::asgi::exception::Exception;

/// A connection's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LifecycleState {
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
pub(super) struct Lifecycle(LifecycleState);

impl Lifecycle {
    pub(super) fn new() -> Lifecycle {
        Lifecycle(LifecycleState::Connecting)
    }

    pub(super) fn advance(&mut self, next: LifecycleState) -> Result<(), Exception> {
        let allowed = match (self.0, next) {
            (LifecycleState::Connecting, LifecycleState::Accepted)
            | (LifecycleState::Accepted, LifecycleState::Authenticated)
            | (LifecycleState::Authenticated, LifecycleState::ServicesReady)
            | (LifecycleState::ServicesReady, LifecycleState::ProcessingReady | LifecycleState::Degraded)
            | (
                LifecycleState::ProcessingReady | LifecycleState::Degraded | LifecycleState::Idle,
                LifecycleState::Processing,
            )
            | (LifecycleState::Processing, LifecycleState::Idle)
            | (LifecycleState::Closing, LifecycleState::Closed) => true,
            (from, LifecycleState::Closing) => !matches!(from, LifecycleState::Closing | LifecycleState::Closed),
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
    use super::{Lifecycle, LifecycleState};

    #[test]
    fn a_connection_skips_no_state() {
        let mut life = Lifecycle::new();
        assert!(life.advance(LifecycleState::Processing).is_err(), "nothing is processed before the set-up is over");
        for state in [
            LifecycleState::Accepted,
            LifecycleState::Authenticated,
            LifecycleState::ServicesReady,
            LifecycleState::ProcessingReady,
        ] {
            life.advance(state).unwrap();
        }
        assert!(life.advance(LifecycleState::Idle).is_err(), "only processing becomes idle");
        for state in [
            LifecycleState::Processing,
            LifecycleState::Idle,
            LifecycleState::Processing,
            LifecycleState::Closing,
            LifecycleState::Closed,
        ] {
            life.advance(state).unwrap();
        }
        assert!(life.advance(LifecycleState::Closing).is_err(), "what is closed stays closed");
    }
}
