//! Each case of a hunt, run twice.

use std::ops::Range;

use super::{CHUNK, Hunt, Played, Worker, guarded};
use crate::determinism::Divergence;
use relapse_core::{error::Error, record::event_log};

/// How many bytes of first runs are kept until the second ones: 32 MiB.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// The first case of a hunt whose second run differs from its first.
#[derive(Debug, Clone)]
pub struct UnstableCase {
    /// The case, counted from 1.
    pub number: u64,
    /// The seed that drew it.
    pub seed: u64,
    /// The difference.
    pub divergence: Divergence,
}

/// Runs each case of a hunt twice, one after the other on this thread. The first of two runs of as many cases as a worker takes
/// at a time meets a process that has served no client, and so does the second: an app may count its clients. `done` gets
/// how many cases were run twice, and says whether to go on.
///
/// # Errors
/// When the harness could not do its work, or the app does not start.
pub fn run_twice(hunt: &Hunt, done: &dyn Fn(u64) -> bool) -> Result<Option<UnstableCase>, Error> {
    let worker = Worker::new(hunt, None)?;
    let mut start = 0;
    while start < hunt.cases {
        let end = start.saturating_add(CHUNK).min(hunt.cases);
        let Some((count, unstable)) = worker.play_twice(start..end)? else { return Ok(None) };
        if unstable.is_some() {
            return Ok(unstable);
        }
        if !done(count) {
            break;
        }
        start += count;
    }
    Ok(None)
}

/// The difference between two runs of a case. A panic is an end like another.
fn divergence(first: &Played, second: &Played) -> Option<Divergence> {
    match (first, second) {
        (Ok(first), Ok(second)) => Divergence::between(first, second),
        (Err(first), Err(second)) if first == second => None,
        (first, second) => Some(Divergence {
            place: "the end".to_owned(),
            common: Vec::new(),
            first: first.as_ref().err().map(|panic| format!("panicked: {panic}")),
            second: second.as_ref().err().map(|panic| format!("panicked: {panic}")),
        }),
    }
}

impl Worker<'_> {
    /// Runs cases twice, as many of them as can be kept: how many, and the first one that differs. `None` where there is no
    /// time for that.
    fn play_twice(&self, cases: Range<u64>) -> Result<Option<(u64, Option<UnstableCase>)>, Error> {
        match self.compare_runs(cases) {
            Err(Error::TimeIsOver) => Ok(None),
            compared => compared.map(Some),
        }
    }

    fn compare_runs(&self, cases: Range<u64>) -> Result<(u64, Option<UnstableCase>), Error> {
        let start = cases.start;
        let (mut kept, mut first_runs) = (0, Vec::new());
        self.renew()?;
        for number in cases {
            let played = self.play_number(number)?;
            kept += played.as_ref().map_or(0, |transcript| event_log::bytes(&transcript.events));
            first_runs.push(played);
            if kept > KEPT_BYTES_MAX {
                break;
            }
        }
        self.renew()?;
        let count = first_runs.len() as u64;
        for (number, first) in (start..).zip(first_runs) {
            if let Some(divergence) = divergence(&first, &self.play_number(number)?) {
                let unstable = UnstableCase { number: number + 1, seed: self.hunt.seed_of(number), divergence };
                return Ok((count, Some(unstable)));
            }
        }
        Ok((count, None))
    }

    /// Goes on with a process that has served no client, where there can be one.
    fn renew(&self) -> Result<(), Error> {
        match self.owned().filter(|owned| owned.can_renew()) {
            Some(owned) => owned.renew(),
            None => Ok(()),
        }
    }

    /// Runs the case with this number, counted from 0.
    fn play_number(&self, number: u64) -> Result<Played, Error> {
        let (drawn, seed) = self.draw(number);
        guarded(seed, || self.play(&drawn, seed))
    }
}
