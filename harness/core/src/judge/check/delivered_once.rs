//! A client that says twice what another says once is told everything once, as the other is.
//!
//! Both say the same on the same path. A third client then acts, at least twice in the same way; each time the one is told
//! something twice, byte for byte, and the other once. An answer to what was said twice does not come each time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Harm, Property, RunView, Violation};
use crate::{
    record::transcript::{Actor, EventKind},
    wire::{frame::Frame, head::RequestHead},
};

pub(super) const CHECK: Property = Property {
    name: "delivered_once",
    property: "a client that subscribes twice is told everything once",
    harm: Harm::Disguised,
    run: check,
};

/// How often it has to be seen.
const TIMES: usize = 2;

/// How far apart what is told twice comes at most: what comes with time comes to each client in its own time.
const BURST: Duration = Duration::from_millis(100);

/// The things that happen from one act of a client to the next act of any client.
#[derive(Debug, Default)]
struct Turn<'a> {
    /// The exchange of the client that acts.
    actor: usize,
    /// The act.
    act: Option<Act<'a>>,
    /// How often each other session was told each message.
    told: BTreeMap<usize, BTreeMap<&'a [u8], DeliveryTimes>>,
}

/// How often a message came, and when it did first and last.
#[derive(Debug, Clone, Copy)]
struct DeliveryTimes {
    times: usize,
    first: Duration,
    last: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act<'a> {
    Asks(&'a RequestHead),
    Says(&'a [u8]),
}

/// A session, and the messages that its client has said, each with how often.
#[derive(Debug, Default)]
struct SessionState<'a> {
    target: Option<&'a [u8]>,
    said: BTreeMap<&'a [u8], usize>,
}

impl SessionState<'_> {
    /// Whether its client has said the same as another one, and some of it once more.
    fn repeats(&self, other: &SessionState<'_>) -> bool {
        let (own, others) = (self.said.keys().collect::<BTreeSet<_>>(), other.said.keys().collect::<BTreeSet<_>>());
        let is_said_once = other.said.values().all(|times| *times == 1);
        let is_alike = own == others && self.target.is_some() && self.target == other.target;
        is_alike && is_said_once && self.said.values().any(|times| *times > 1)
    }
}

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    let sessions = evidence.transcript.sessions();
    if sessions < 2 || evidence.transcript.fired.iter().any(|fired| *fired > 0) {
        return Vec::new();
    }
    let mut state: BTreeMap<usize, SessionState<'_>> = BTreeMap::new();
    let (mut turn, mut turns) = (Turn::default(), SeenActs::default());
    for event in &evidence.transcript.events {
        if event.party != Actor::Probe {
            continue;
        }
        let session = state.entry(event.exchange).or_default();
        let act = match &event.what {
            EventKind::RequestSent { head, .. } => {
                session.target = Some(&head.target);
                Some(Act::Asks(head))
            }
            EventKind::FrameSent(frame) if frame.is_message() => {
                *session.said.entry(&frame.payload).or_default() += 1;
                Some(Act::Says(&frame.payload))
            }
            EventKind::FrameSent(Frame { .. }) | EventKind::Left | EventKind::LinkReset => None,
            EventKind::FrameSeen(frame) if frame.is_message() && event.exchange != turn.actor => {
                let told = turn.told.entry(event.exchange).or_default();
                let told =
                    told.entry(&frame.payload).or_insert(DeliveryTimes { times: 0, first: event.at, last: event.at });
                (told.times, told.last) = (told.times + 1, event.at);
                continue;
            }
            _ => continue,
        };
        let over = std::mem::replace(&mut turn, Turn { actor: event.exchange, act, ..Turn::default() });
        turns.add(&over, &state);
    }
    turns.add(&turn, &state);
    let often = turns.0.into_iter().filter(|(.., turns)| *turns >= TIMES);
    let found = often.filter_map(|((exchange, times), ..)| {
        let message = format!(
            "a client that said something twice is told a message {times} times, where one that said it once is told it once"
        );
        Some(evidence.readings.get(exchange)?.violation("again", message))
    });
    found.collect()
}

/// The turns in which a session was told something more often than another: the session with how often, the act of the
/// turn, and in how many turns with this act.
#[derive(Debug, Default)]
struct SeenActs<'a>(Vec<((usize, usize), Act<'a>, usize)>);

impl<'a> SeenActs<'a> {
    fn add(&mut self, turn: &Turn<'a>, sessions: &BTreeMap<usize, SessionState<'_>>) {
        let Some(act) = turn.act else { return };
        for (one, told) in &turn.told {
            let Some(own) = sessions.get(one) else { continue };
            let more =
                turn.told.iter().filter(|(other, _)| sessions.get(other).is_some_and(|other| own.repeats(other)));
            let twice = more.flat_map(|(_, others)| {
                told.iter().filter(|(message, told)| {
                    let is_burst = told.times > 1 && told.last.saturating_sub(told.first) <= BURST;
                    is_burst && others.get(*message).is_some_and(|told| told.times == 1)
                })
            });
            let Some(times) = twice.map(|(_, told)| told.times).max() else { continue };
            let key = (*one, times);
            match self.0.iter_mut().find(|(known, of, _)| *known == key && *of == act) {
                Some((_, _, count)) => *count += 1,
                None => self.0.push((key, act, 1)),
            }
        }
    }
}
