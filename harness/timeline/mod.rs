//! A transcript, looked at once: the facts of each exchange, and the times at which the server's process listened.
//!
//! Classification, checks, verdicts, explanations and reports read these facts. None of them looks for one again.

mod facts;
mod outage;
mod talk;

use std::time::Duration;

pub(crate) use facts::Facts;
use outage::Outages;
pub(crate) use outage::is_outage;
pub use outage::{AFTERMATH, NOTICE};

use crate::transcript::{PROCESS, Transcript};

/// The facts of one transcript. It holds positions and no events, so that a run can own both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timeline {
    /// The facts of each exchange, in order.
    pub(crate) exchanges: Vec<Facts>,
    /// The times at which the server's process began to listen.
    pub(crate) listening: Listening,
    /// The positions of the events that carry an exception of the app.
    pub(crate) raised: Vec<usize>,
    /// The time of the last event of any exchange.
    pub(crate) last: Option<Duration>,
}

impl Timeline {
    /// Looks at a transcript.
    pub fn of(transcript: &Transcript) -> Timeline {
        let exchanges = positions(transcript);
        let service = &transcript.service;
        let is_crowded =
            service.is_foreign() && service.connections_max > 0 && most_at_once(&exchanges) > service.connections_max;
        let outages = Outages::of(transcript);
        let facts = |(exchange, positions)| Facts::gather(transcript, &outages, exchange, positions, is_crowded);
        let exchanges = exchanges.into_iter().enumerate().map(facts).collect();
        let events = || transcript.events.iter();
        let raised = events().enumerate().filter(|(_, event)| event.what.raised().is_some());
        let raised = raised.map(|(position, _)| position).collect();
        let last = events().filter(|event| event.exchange != PROCESS).map(|event| event.at).max();
        Timeline { exchanges, listening: outages.listening, raised, last }
    }
}

/// The positions of the events of each exchange.
fn positions(transcript: &Transcript) -> Vec<Vec<usize>> {
    let mut exchanges: Vec<Vec<usize>> = Vec::new();
    for (position, event) in transcript.events.iter().enumerate().filter(|(_, event)| event.exchange != PROCESS) {
        if exchanges.len() <= event.exchange {
            exchanges.resize(event.exchange + 1, Vec::new());
        }
        exchanges[event.exchange].push(position);
    }
    exchanges
}

/// The largest number of exchanges that went on at one time.
fn most_at_once(exchanges: &[Vec<usize>]) -> usize {
    let spans: Vec<(usize, usize)> =
        exchanges.iter().filter_map(|positions| Some((*positions.first()?, *positions.last()?))).collect();
    let beside = |at: usize| spans.iter().filter(|(first, last)| *first <= at && at <= *last).count();
    spans.iter().map(|(first, _)| beside(*first)).max().unwrap_or(0)
}

/// The times at which the server's process began to listen, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listening(Vec<Duration>);

impl Listening {
    /// The first time at or after a moment at which the process began to listen.
    pub fn next(&self, from: Duration) -> Option<Duration> {
        self.0.iter().copied().find(|at| *at >= from)
    }

    /// Whether an exchange that lasted from `start` to `end` met a process that starts, that stops because it was told to at
    /// `stop`, or that starts again after that.
    pub fn is_replaced(&self, stop: Duration, start: Duration, end: Duration) -> bool {
        let is_settled = |from: Duration| start > from + NOTICE;
        start <= NOTICE || (stop <= end && !self.next(stop).is_some_and(is_settled))
    }
}
