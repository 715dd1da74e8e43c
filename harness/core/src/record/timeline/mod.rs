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

use crate::record::transcript::{PROCESS, Transcript};

/// The facts of one transcript. It holds positions and no events, so that a run can own both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timeline {
    /// The facts of each exchange, in order.
    pub exchanges: Vec<Facts>,
    /// The times at which the server's process began to listen.
    pub(crate) listening: Listening,
    /// The positions of the events that carry an exception of the app.
    pub raised: Vec<usize>,
    /// The time of the last event of any exchange.
    pub last: Option<Duration>,
}

impl Timeline {
    /// Looks at a transcript.
    pub fn of(transcript: &Transcript) -> Timeline {
        let exchanges = positions(transcript);
        let service = &transcript.service;
        let is_crowded =
            service.is_foreign() && service.connections_max > 0 && most_at_once(&exchanges) > service.connections_max;
        let outages = Outages::of(transcript);
        let exchanges = exchanges.into_iter().enumerate();
        let exchanges = exchanges
            .map(|(exchange, positions)| Facts::gather(transcript, &outages, exchange, positions, is_crowded))
            .collect();
        let events = transcript.events.iter();
        let raised = events.clone().enumerate().filter(|(_, event)| event.what.raised().is_some());
        let raised = raised.map(|(position, _)| position).collect();
        let last = events.filter(|event| event.exchange != PROCESS).map(|event| event.at).max();
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
    let counts = spans.iter().map(|(at, _)| spans.iter().filter(|(first, last)| first <= at && at <= last).count());
    counts.max().unwrap_or(0)
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
        start <= NOTICE || (stop <= end && self.next(stop).is_none_or(|from| start <= from + NOTICE))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Listening, NOTICE, Timeline, most_at_once};
    use crate::record::transcript::{Actor, Event, EventKind, PROCESS, Transcript};

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn event(at: u64, exchange: usize, what: EventKind) -> Event {
        Event { at: seconds(at), exchange, party: Actor::Probe, what, omitted_bytes: 0 }
    }

    #[test]
    fn an_exchange_has_its_own_events_only() {
        let events = vec![
            event(0, 1, EventKind::Left),
            event(1, PROCESS, EventKind::Listening),
            event(2, 0, EventKind::Left),
            event(3, 1, EventKind::EndSeen),
            event(9, PROCESS, EventKind::Stopping),
        ];
        let timeline = Timeline::of(&Transcript { events, ..Transcript::default() });
        let positions: Vec<&[usize]> = timeline.exchanges.iter().map(|facts| facts.positions.as_slice()).collect();
        assert_eq!(positions, [&[2][..], &[0, 3]]);
        assert_eq!(timeline.last, Some(seconds(3)), "the process belongs to no exchange");
        assert_eq!(timeline.listening.next(Duration::ZERO), Some(seconds(1)));
    }

    #[test]
    fn exchanges_are_counted_while_they_last() {
        assert_eq!(most_at_once(&[]), 0);
        assert_eq!(most_at_once(&[vec![0, 1], vec![2, 3], Vec::new()]), 1, "one after the other");
        assert_eq!(most_at_once(&[vec![0, 5], vec![1, 2], vec![3, 4]]), 2);
        assert_eq!(most_at_once(&[vec![0, 2], vec![1]]), 2, "an exchange of one event");
        assert_eq!(most_at_once(&[vec![0, 3], vec![1, 5], vec![2, 4]]), 3);
    }

    #[test]
    fn a_process_is_replaced_until_the_next_one_has_settled() {
        let listening = Listening(vec![seconds(0), seconds(30)]);
        assert_eq!(listening.next(seconds(30)), Some(seconds(30)));
        assert_eq!(listening.next(seconds(31)), None);
        let is_replaced = |start, end| listening.is_replaced(seconds(20), seconds(start), seconds(end));
        assert!(is_replaced(NOTICE.as_secs(), NOTICE.as_secs()), "the first process has just started");
        assert!(!is_replaced(7, 19), "before the stop");
        assert!(is_replaced(7, 20) && is_replaced(36, 36), "from the stop until the next process has settled");
        assert!(!is_replaced(37, 40));
    }
}
