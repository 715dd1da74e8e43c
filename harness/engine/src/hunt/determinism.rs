//! Each case of a hunt, run twice.

use super::{CHUNK, Hunt, Played, Worker, guarded};
use crate::determinism::Divergence;
use relapse_core::error::Error;

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
        let Some([first, second]) = worker.play_twice(start..end)? else { return Ok(None) };
        for (number, (first, second)) in (start..end).zip(first.iter().zip(&second)) {
            if let Some(divergence) = divergence(first, second) {
                return Ok(Some(UnstableCase { number: number + 1, seed: hunt.seed_of(number), divergence }));
            }
        }
        if !done(end - start) {
            break;
        }
        start = end;
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
    /// Runs cases twice; `None` where there is no time for that.
    fn play_twice(&self, cases: std::ops::Range<u64>) -> Result<Option<[Vec<Played>; 2]>, Error> {
        let first = self.play_in_fresh_process(cases.clone());
        match first.and_then(|first| Ok([first, self.play_in_fresh_process(cases)?])) {
            Err(Error::TimeIsOver) => Ok(None),
            both => both.map(Some),
        }
    }

    /// Runs cases in a process that has served no client, where there can be one.
    fn play_in_fresh_process(&self, cases: std::ops::Range<u64>) -> Result<Vec<Played>, Error> {
        if let Some(owned) = self.owned().filter(|owned| owned.can_renew()) {
            owned.renew()?;
        }
        let mut played = Vec::new();
        for number in cases {
            let (drawn, seed) = self.draw(number);
            played.push(guarded(seed, || self.play(&drawn, seed))?);
        }
        Ok(played)
    }
}
