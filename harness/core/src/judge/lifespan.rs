//! Checks an application's shutdown by the events of its lifespan.

use crate::{
    asgi::event::{Inbound, Outbound},
    record::transcript::EventKind,
};

/// Returns the error in the shutdown of an application that had started; `None` if it stopped correctly, or has no
/// lifespan (ASGI, Lifespan Protocol).
pub fn complaint<'a>(lifespan: impl IntoIterator<Item = &'a EventKind>) -> Option<String> {
    let (mut has_started, mut was_told, mut is_over) = (false, false, false);
    let mut failed = None;
    for what in lifespan {
        match what {
            EventKind::Sent(Outbound::StartupComplete) => has_started = true,
            EventKind::Received(Inbound::LifespanShutdown) => was_told = true,
            EventKind::Sent(Outbound::ShutdownComplete) | EventKind::Returned => is_over = true,
            EventKind::Sent(Outbound::ShutdownFailed { message }) => {
                is_over = true;
                // A framework gives its whole traceback, with the exception at its end.
                let last = message.trim_end().lines().last().unwrap_or_default();
                failed = Some(format!("the application says that its shutdown failed: {last}"));
            }
            EventKind::Raised(exception) if exception.is_cancellation() => is_over = true,
            EventKind::Raised(exception) if has_started => {
                let when = if was_told { "when it was told to stop" } else { "while it served" };
                return Some(format!("{} left the application's lifespan {when}", exception.located()));
            }
            EventKind::Exited { why } if was_told && !is_over && failed.is_none() => {
                failed = Some(format!("the application did not end: {why}"));
            }
            _ => {}
        }
    }
    failed
}
