//! Whether the same run gives the same transcript, and the first place where it does not.

use std::fmt;
use std::time::Duration;

use crate::report::sequence::{SequenceDetail, SequenceLine, lines};
use relapse_core::record::transcript::{Event, PROCESS, Transcript};

/// How many lines in front of a difference are shown.
const LINES_BEFORE: usize = 3;

/// The first difference between two runs that should be the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// The place: the event, counted from 1, its time, and its connection.
    pub place: String,
    /// The last lines of the conversation that both have.
    pub common: Vec<String>,
    /// The event of the first run; `None` where it has ended before.
    pub first: Option<String>,
    /// The event of the second run.
    pub second: Option<String>,
}

impl Divergence {
    /// The first difference between two transcripts, if there is one.
    pub fn between(first: &Transcript, second: &Transcript) -> Option<Divergence> {
        let count = first.events.len().max(second.events.len());
        let (mut one, mut other) = (first.events.iter(), second.events.iter());
        for number in 1..=count {
            let pair = (one.next(), other.next());
            if !are_same(pair) {
                return Some(Divergence::at(number, pair, [first, second]));
            }
        }
        None
    }

    /// The difference at an event.
    fn at(number: usize, pair: (Option<&Event>, Option<&Event>), runs: [&Transcript; 2]) -> Divergence {
        let [first, second] = runs.map(|run| lines(run, SequenceDetail::Full));
        let same = first.iter().zip(&second).take_while(|(one, other)| one == other).count();
        let common = first[same.saturating_sub(LINES_BEFORE)..same].iter().map(|line| line.text.clone()).collect();
        let place = pair.0.or(pair.1).map(|event| place(number, event)).unwrap_or_default();
        let (mut one, mut other) = (shown(first.get(same)), shown(second.get(same)));
        if one == other {
            // The lines leave out what is different in each run, and some events.
            (one, other) = (pair.0.map(described), pair.1.map(described));
        }
        Divergence { place, common, first: one, second: other }
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "at {}", self.place)?;
        self.common.iter().try_for_each(|line| writeln!(f, "         {line}"))?;
        writeln!(f, "first    {}", self.first.as_deref().unwrap_or("(has ended)"))?;
        write!(f, "second   {}", self.second.as_deref().unwrap_or("(has ended)"))
    }
}

/// Whether two events are the same. A number that is none equals itself here.
fn are_same(pair: (Option<&Event>, Option<&Event>)) -> bool {
    pair.0 == pair.1 || pair.0.map(described) == pair.1.map(described)
}

fn described(event: &Event) -> String {
    format!("{:.9} s, {}: {:?}", event.at.as_secs_f64(), event.party, event.what)
}

fn shown(line: Option<&SequenceLine>) -> Option<String> {
    line.map(|line| format!("{:.9} s  {}", line.at.as_secs_f64(), line.text.trim_start()))
}

fn place(number: usize, event: &Event) -> String {
    let at = Duration::as_secs_f64(&event.at);
    match event.exchange {
        PROCESS => format!("event {number}, {at:.3} s, of the process"),
        exchange => format!("event {number}, {at:.3} s, of connection {}", exchange + 1),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use relapse_core::record::transcript::{Actor, Event, EventKind, Level, Transcript};

    use super::Divergence;

    fn transcript(messages: &[&str]) -> Transcript {
        let event = |message: &&str| Event {
            at: Duration::from_millis(5),
            exchange: 0,
            party: Actor::Application,
            what: EventKind::Logged { level: Level::Error, message: (*message).to_owned(), unhandled: None },
            omitted_bytes: 0,
        };
        Transcript { events: messages.iter().map(event).collect(), ..Transcript::default() }
    }

    #[test]
    fn the_first_difference_is_told_with_its_place() {
        let [one, other] = [transcript(&["a", "b", "c"]), transcript(&["a", "x", "y"])];
        assert_eq!(Divergence::between(&one, &one), None);
        let found = Divergence::between(&one, &other).unwrap();
        assert_eq!(found.place, "event 2, 0.005 s, of connection 1");
        assert!(
            found.first.as_ref().unwrap().ends_with('b') && found.second.as_ref().unwrap().ends_with('x'),
            "{found}"
        );
        assert_eq!(found.common.len(), 1);
        let shorter = Divergence::between(&one, &transcript(&["a", "b"])).unwrap();
        assert_eq!((shorter.place.as_str(), shorter.second), ("event 3, 0.005 s, of connection 1", None));
    }
}
