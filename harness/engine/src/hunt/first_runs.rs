//! The first run of each finding, for all workers of a hunt: of as many as there is room for, and with little of each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::FIRST_RUNS_MAX;
use relapse_core::{
    judge::verdict::FindingKey,
    record::{event_log, transcript::Transcript},
};

/// How many bytes the events of a run take that is kept with others: 256 KiB.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// The same of a run that is judged again instead of being run again, because it really takes long: 4 MiB.
const SLOW_BYTES_MAX: usize = 4 << 20;

/// The first run of each finding, with the number of its case. Where there are too many, those of the first cases stay. So it
/// does not depend on which worker found what.
#[derive(Debug, Default)]
pub(super) struct FirstRuns(Mutex<BTreeMap<FindingKey, (u64, Arc<Transcript>)>>);

impl FirstRuns {
    /// Keeps the run of a case for those of its findings that it is the first one of.
    pub(super) fn keep<'k>(
        &self,
        keys: impl Iterator<Item = &'k FindingKey>,
        number: u64,
        mut run: Transcript,
        is_slow: bool,
    ) {
        let mut runs = self.runs();
        let new: Vec<&FindingKey> = keys.filter(|key| wants(&runs, key, number)).collect();
        if new.is_empty() {
            return;
        }
        event_log::compact(&mut run.events, if is_slow { SLOW_BYTES_MAX } else { KEPT_BYTES_MAX });
        let run = Arc::new(run);
        for key in new {
            runs.insert(key.clone(), (number, Arc::clone(&run)));
        }
        while runs.len() > FIRST_RUNS_MAX {
            let last = runs.iter().max_by_key(|(key, (number, _))| (*number, *key)).map(|(key, _)| key.clone());
            last.iter().for_each(|key| drop(runs.remove(key)));
        }
    }

    /// The run of the case with this number for a finding, if it is kept.
    pub(super) fn of(&self, key: &FindingKey, number: u64) -> Option<Arc<Transcript>> {
        let runs = self.runs();
        runs.get(key).filter(|(kept, _)| *kept == number).map(|(_, run)| Arc::clone(run))
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<FindingKey, (u64, Arc<Transcript>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the run of a case is to be kept for a finding.
fn wants(runs: &BTreeMap<FindingKey, (u64, Arc<Transcript>)>, key: &FindingKey, number: u64) -> bool {
    match runs.get(key) {
        Some((kept, _)) => number < *kept,
        None => runs.len() < FIRST_RUNS_MAX || runs.values().any(|(kept, _)| number <= *kept),
    }
}

/// A run that is small enough to be kept with many others.
pub(super) fn compact(mut run: Transcript) -> Transcript {
    event_log::compact(&mut run.events, KEPT_BYTES_MAX);
    run
}

#[cfg(test)]
mod tests {
    use relapse_core::{
        judge::{
            harm::Harm,
            verdict::{FindingKey, Rule},
        },
        record::transcript::{Actor, BodyEnd, Event, EventKind, Transcript},
    };

    use super::{FIRST_RUNS_MAX, FirstRuns, KEPT_BYTES_MAX};

    fn key(number: u64) -> FindingKey {
        FindingKey { rule: Rule::NoPanic, harm: Harm::Crash, subject: Some(format!("{number:04}")), site: None }
    }

    /// A run of 1 MiB that tells its case by its time.
    fn run(number: u64) -> Transcript {
        let what = EventKind::BodySeen { body: vec![b'x'; 1 << 20].into(), end: BodyEnd::Complete };
        let at = std::time::Duration::from_secs(number);
        Transcript {
            events: vec![Event { at, exchange: 0, party: Actor::Probe, what, omitted_bytes: 0 }],
            ..Transcript::default()
        }
    }

    #[test]
    fn the_runs_of_the_first_cases_stay_whatever_the_order() {
        let count = 3 * FIRST_RUNS_MAX as u64;
        for order in
            [(0..count).collect::<Vec<_>>(), (0..count).rev().collect(), (0..count).map(|n| n * 7 % count).collect()]
        {
            let runs = FirstRuns::default();
            for number in order {
                // Each finding is in two cases.
                runs.keep([&key(number / 2)].into_iter(), number, run(number), false);
            }
            let kept: Vec<u64> = runs.runs().values().map(|(number, _)| *number).collect();
            assert_eq!(kept, (0..FIRST_RUNS_MAX as u64).map(|number| 2 * number).collect::<Vec<_>>());
        }
    }

    #[test]
    fn little_of_a_long_run_is_kept() {
        let runs = FirstRuns::default();
        runs.keep([&key(1)].into_iter(), 1, run(1), false);
        let event = &runs.of(&key(1), 1).unwrap().events[0];
        let EventKind::BodySeen { body, .. } = &event.what else { unreachable!() };
        assert!(body.len() <= KEPT_BYTES_MAX, "{}", body.len());
        assert_eq!(event.omitted_bytes + body.len() as u64, 1 << 20);
        assert!(runs.of(&key(1), 2).is_none() && runs.of(&key(2), 1).is_none());
    }
}
