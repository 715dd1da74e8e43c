//! Edge faults on a whole connection: how long it may live, and who answers when the server does not.

use std::time::Duration;

use tokio::time::Instant;

use crate::recorder::ExchangeRecorder;
use relapse_core::fault::{ConnectionFault, Direction, FaultKind, setting::Count};

/// The limits of a connection.
#[derive(Default)]
pub(super) struct ConnectionLimits {
    began: Option<Instant>,
    lifetime: Option<(Duration, usize)>,
    idle: Option<(Duration, Direction, usize)>,
    /// The page that is answered if the server does not begin its answer within this time.
    pub(super) late: Option<(Duration, Page)>,
    /// The page that is answered if the server is not there.
    pub(super) missing: Option<Page>,
    /// The fault that asks once more.
    pub(super) retry: Option<usize>,
}

/// When anything last came.
#[derive(Clone, Copy)]
pub(super) struct Last {
    pub(super) from_client: Instant,
    pub(super) from_server: Instant,
}

impl Last {
    pub(super) fn now() -> Last {
        let now = Instant::now();
        Last { from_client: now, from_server: now }
    }

    fn of(self, direction: Direction) -> Instant {
        match direction {
            Direction::ToServer => self.from_client,
            Direction::ToClient => self.from_server,
            Direction::Both => self.from_client.max(self.from_server),
        }
    }
}

/// An answer in the server's place.
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) body: String,
    /// The fault it is of.
    pub(super) index: usize,
}

impl Page {
    fn new(status: &Count, body: &str, index: usize) -> Page {
        Page { status: u16::try_from(status.0).unwrap_or(502), body: body.to_owned(), index }
    }
}

impl ConnectionLimits {
    /// Asks the plan what limits a connection that begins now. Of two limits of a kind the stricter one counts.
    pub(super) fn decide(scribe: &ExchangeRecorder) -> ConnectionLimits {
        let mut limits = ConnectionLimits::default();
        for (index, fault) in scribe.plan().faults.iter().enumerate() {
            let FaultKind::Connection(what) = &fault.kind else { continue };
            if !scribe.meets(index) {
                continue;
            }
            limits.began = Some(Instant::now());
            match what {
                ConnectionFault::Lifetime { after } if limits.lifetime.is_none_or(|(old, _)| after.0 < old) => {
                    limits.lifetime = Some((after.0, index));
                }
                ConnectionFault::Idle { direction, after } if limits.idle.is_none_or(|(old, ..)| after.0 < old) => {
                    limits.idle = Some((after.0, *direction, index));
                }
                ConnectionFault::LateAnswer { after, status, body }
                    if limits.late.as_ref().is_none_or(|(old, _)| after.0 < *old) =>
                {
                    limits.late = Some((after.0, Page::new(status, body, index)));
                }
                ConnectionFault::MissingAnswer { status, body } => {
                    limits.missing.get_or_insert_with(|| Page::new(status, body, index));
                }
                ConnectionFault::Retry {} => limits.retry = limits.retry.or(Some(index)),
                ConnectionFault::Lifetime { .. }
                | ConnectionFault::Idle { .. }
                | ConnectionFault::LateAnswer { .. } => {}
            }
        }
        limits
    }

    /// When the connection's time is over, and by which fault: from when anything last came from either side, and since
    /// when a request waits for its answer.
    pub(super) fn due(&self, last: Last, waits_since: Option<Instant>) -> Option<(Instant, usize)> {
        let began = self.began?;
        let lifetime = self.lifetime.map(|(after, index)| (began + after, index));
        let idle = self.idle.map(|(after, direction, index)| (last.of(direction) + after, index));
        let late = self.late.as_ref().zip(waits_since).map(|((after, page), since)| (since + *after, page.index));
        // A fault that answers for a late server cuts off no client that still waits for that.
        late.or_else(|| [lifetime, idle].into_iter().flatten().min_by_key(|(due, _)| *due))
    }
}
