//! A client that says twice what another says once is told everything once, as the other is.
//!
//! Both say the same on the same path. A third client then acts, at least twice in the same way; each time the one is told
//! something twice, byte for byte, and the other once. An answer to what was said twice does not come each time.

use std::collections::{BTreeMap, BTreeSet};

use super::{Property, RunView, Violation};
use crate::{
    record::transcript::{Actor, EventKind},
    wire::{frame::Frame, head::RequestHead},
};

pub(super) const CHECK: Property =
    Property { name: "delivered_once", property: "a client that subscribes twice is told everything once", run: check };

/// How often it has to be seen.
const TIMES: usize = 2;

/// The things that happen from one act of a client to the next act of any client.
#[derive(Debug, Default)]
struct Turn<'a> {
    /// The exchange of the client that acts.
    actor: usize,
    /// The act.
    act: Option<Act<'a>>,
    /// How often each other session was told each message.
    told: BTreeMap<usize, BTreeMap<&'a [u8], usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act<'a> {
    Asks(&'a RequestHead),
    Says(&'a [u8]),
}

/// A session, and the messages that its client has said, each with how often.
#[derive(Debug, Default)]
struct Session<'a> {
    target: Option<&'a [u8]>,
    said: BTreeMap<&'a [u8], usize>,
}

impl Session<'_> {
    /// Whether its client has said the same as another one, and some of it once more.
    fn repeats(&self, other: &Session<'_>) -> bool {
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
    let mut state: BTreeMap<usize, Session<'_>> = BTreeMap::new();
    let (mut turn, mut turns) = (Turn::default(), Seen::default());
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
                *turn.told.entry(event.exchange).or_default().entry(&frame.payload).or_default() += 1;
                continue;
            }
            _ => continue,
        };
        let over = std::mem::replace(&mut turn, Turn { actor: event.exchange, act, ..Turn::default() });
        turns.add(&over, &state);
    }
    turns.add(&turn, &state);
    turns.0.into_iter().filter(|(_, _, times)| *times == TIMES).filter_map(|(told, _, _)| {
        let (exchange, times) = told;
        let reading = evidence.readings.get(exchange)?;
        let message = format!(
            "the client said something twice that another client said once, and is told each message {times} times, the \
             other once"
        );
        Some(reading.violation("again", message))
    }).collect()
}

/// The turns in which a session was told something more often than another: the session with how often, the act of the
/// turn, and in how many turns with this act.
#[derive(Debug, Default)]
struct Seen<'a>(Vec<((usize, usize), Act<'a>, usize)>);

impl<'a> Seen<'a> {
    fn add(&mut self, turn: &Turn<'a>, sessions: &BTreeMap<usize, Session<'_>>) {
        let Some(act) = turn.act else { return };
        for (one, told) in &turn.told {
            let Some(own) = sessions.get(one) else { continue };
            let more =
                turn.told.iter().filter(|(other, _)| sessions.get(other).is_some_and(|other| own.repeats(other)));
            let twice = more.flat_map(|(_, others)| {
                told.iter().filter(|(message, times)| **times > 1 && others.get(*message) == Some(&1))
            });
            let Some(times) = twice.map(|(_, times)| *times).max() else { continue };
            let key = (*one, times);
            match self.0.iter_mut().find(|(known, of, _)| *known == key && *of == act) {
                Some((_, _, count)) => *count += 1,
                None => self.0.push((key, act, 1)),
            }
        }
    }
}
