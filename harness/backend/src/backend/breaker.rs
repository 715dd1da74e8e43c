//! Keeps calls from a dependency that has just failed several times. It counts the dependency's failures, and nothing
//! that a client does.

use std::time::Duration;

use tokio::time::Instant;

use relapse::environment::Environment;

/// The breaker of the auth service.
#[derive(Debug)]
pub(super) struct Breaker {
    failures_max: u32,
    recovery: Duration,
    failures: u32,
    opened: Option<Instant>,
}

impl Breaker {
    /// The breaker of an environment: failures before it opens, and how long it stays open (the reported table).
    pub(super) fn of(environment: Environment) -> Breaker {
        let (failures_max, recovery_s) = match environment {
            Environment::Staging => (3, 15),
            Environment::Production => (5, 60),
            Environment::Development => (10, 5),
            Environment::Testing => (5, 30),
        };
        Breaker { failures_max, recovery: Duration::from_secs(recovery_s), failures: 0, opened: None }
    }

    /// How long the caller is to wait; `None` when it may call. Once that time is over one caller is let through, and
    /// what comes of its call decides.
    pub(super) fn wait(&mut self) -> Option<Duration> {
        self.opened?;
        let left = self.is_open_for();
        if left.is_none() {
            self.opened = Some(Instant::now());
        }
        left
    }

    /// How long the breaker lets no call through; `None` if it is closed. Asking changes nothing.
    pub(super) fn is_open_for(&self) -> Option<Duration> {
        self.recovery.checked_sub(self.opened?.elapsed()).filter(|left| !left.is_zero())
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.opened = None;
    }

    pub(super) fn failed(&mut self) {
        self.failures += 1;
        if self.failures >= self.failures_max {
            self.opened = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::Breaker;
    use relapse::environment::Environment;
    use relapse_simulate::clock::{Clock, Runtime};

    #[test]
    fn it_opens_on_failures_in_a_row_and_lets_one_caller_try() {
        Runtime::new(Clock::Virtual).block_on(async {
            let mut breaker = Breaker::of(Environment::Staging);
            breaker.failed();
            breaker.failed();
            breaker.succeeded();
            breaker.failed();
            breaker.failed();
            assert_eq!(breaker.wait(), None, "two in a row");
            breaker.failed();
            assert_eq!(breaker.wait(), Some(Duration::from_secs(15)));
            sleep(Duration::from_secs(15)).await;
            assert_eq!(breaker.wait(), None, "one may try");
            assert_eq!(breaker.wait(), Some(Duration::from_secs(15)), "and no other client");
            breaker.succeeded();
            assert_eq!(breaker.wait(), None);
        });
    }
}
