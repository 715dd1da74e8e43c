//! The memory of concurrent runs: many small ones, and one large one.
//!
//! A run that grows waits until no other run is large. So the number of workers does not decide how much memory a process
//! takes, and no run depends on how many there are: its time is virtual, and stands still while it waits. The wait ends with
//! the other run, which has limits of its own, or with the time of the work; then the run is cut, and shows nothing.
//!
//! The one who starts workers makes a [`LargeSlot`], and gives each a [`WorkerMemory`] of it. The worker hands a
//! [`RunMemory`] to everything that grows with a run: its transcript, the bodies of its answers, and its application.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How many bytes a small run has: 1 MiB, which is more than almost any run has.
pub const SMALL_RUN_BYTES: usize = 1 << 20;

/// Longer than any wait.
const NO_DEADLINE: Duration = Duration::from_secs(1 << 30);

/// The room for one large run at a time. Its clones are the same room.
#[derive(Debug, Clone, Default)]
pub struct LargeSlot(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    /// Whether some run is in it.
    is_taken: Mutex<bool>,
    freed: Condvar,
}

/// The large slot, taken until it is dropped.
#[derive(Debug)]
struct TakenSlot(LargeSlot);

/// The memory of a worker whose runs come one after the other. The default shares the large slot with no other worker, so
/// that its runs never wait.
#[derive(Debug, Default)]
pub struct WorkerMemory(Arc<WorkerState>);

#[derive(Debug, Default)]
struct WorkerState {
    slot: LargeSlot,
    run: Mutex<Run>,
}

/// The run of a worker.
#[derive(Debug, Default)]
struct Run {
    /// The large slot, if it is large.
    large: Option<TakenSlot>,
    /// Until when it may wait for the large slot; without an end if `None`.
    wait_until: Option<Instant>,
    /// Whether that time was over while it waited.
    is_cut: bool,
    /// How long it has waited.
    waited: Duration,
}

/// The memory of a run, for what grows with it. The default is of a run without a worker, as is that of a worker that has
/// ended: it grows freely.
#[derive(Debug, Clone, Default)]
pub struct RunMemory(Weak<WorkerState>);

impl LargeSlot {
    /// The memory of a worker that shares this slot with the others.
    pub fn worker(&self) -> WorkerMemory {
        WorkerMemory(Arc::new(WorkerState { slot: self.clone(), run: Mutex::default() }))
    }

    /// Takes it, and waits for it no longer than this.
    fn take(&self, limit: Duration) -> Option<TakenSlot> {
        let Slot { is_taken, freed } = &*self.0;
        let is_taken = is_taken.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = freed.wait_timeout_while(is_taken, limit, |is_taken| *is_taken);
        let (mut is_taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let is_free = !std::mem::replace(&mut *is_taken, true);
        is_free.then(|| TakenSlot(self.clone()))
    }
}

impl Drop for TakenSlot {
    fn drop(&mut self) {
        let Slot { is_taken, freed } = &*self.0.0;
        *is_taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        freed.notify_one();
    }
}

impl WorkerMemory {
    /// The memory of the worker's runs, present and future.
    pub fn of_runs(&self) -> RunMemory {
        RunMemory(Arc::downgrade(&self.0))
    }

    /// Starts a run. It may wait for the large slot until `wait_until`.
    pub fn begin(&self, wait_until: Option<Instant>) {
        let mut run = self.0.run();
        *run = Run { large: run.large.take(), wait_until, ..Run::default() };
    }

    /// How long the run has waited for another one. It is no part of the time that it takes.
    pub fn waited(&self) -> Duration {
        self.0.run().waited
    }

    /// Whether the time was over while the run waited. It is to end at once, as it may not grow.
    pub fn is_cut(&self) -> bool {
        self.0.run().is_cut
    }

    /// Ends the run, of which nothing large is left, and frees the large slot.
    pub fn give_back(&self) {
        let mut run = self.0.run();
        run.is_cut = false;
        run.large = None;
    }
}

impl RunMemory {
    /// Takes the large slot for the run, and waits for it; does nothing for a run without a worker.
    pub fn grow(&self) {
        if let Some(worker) = self.0.upgrade() {
            worker.run().grow(&worker.slot);
        }
    }

    /// As [`WorkerMemory::is_cut`].
    pub fn is_cut(&self) -> bool {
        self.0.upgrade().is_some_and(|worker| worker.run().is_cut)
    }
}

impl WorkerState {
    fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    fn grow(&mut self, slot: &LargeSlot) {
        if self.large.is_some() || self.is_cut {
            return;
        }
        let began = now();
        self.large = slot.take(self.time_left());
        self.is_cut = self.large.is_none();
        self.waited += began.elapsed();
    }

    /// How long it may wait.
    fn time_left(&self) -> Duration {
        self.wait_until.map_or(NO_DEADLINE, |until| until.saturating_duration_since(now()))
    }
}

#[expect(clippy::disallowed_methods, reason = "the wait, and the end of a piece of work, are in wall time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use bytes::Bytes;

    use super::{LargeSlot, RunMemory, SMALL_RUN_BYTES, WorkerMemory, now};
    use crate::recorder::Recorder;
    use relapse_core::{
        plan::Plan,
        record::transcript::{Actor, BodyEnd, EventKind},
    };

    /// The memory of a worker that may not wait.
    fn impatient(slot: &LargeSlot) -> WorkerMemory {
        let worker = slot.worker();
        worker.begin(Some(now()));
        worker
    }

    /// Whether a run of another worker may be large.
    fn is_free(slot: &LargeSlot) -> bool {
        let other = impatient(slot);
        other.of_runs().grow();
        !other.is_cut()
    }

    #[test]
    fn one_run_is_large_at_a_time() {
        let (slot, large, most) = (LargeSlot::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let worker = slot.worker();
                    let run = worker.of_runs();
                    for _ in 0..100 {
                        run.grow();
                        run.clone().grow();
                        most.fetch_max(large.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        large.fetch_sub(1, Ordering::SeqCst);
                        worker.give_back();
                    }
                    // The end of the worker gives it back.
                    run.grow();
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
    }

    #[test]
    fn a_run_that_may_not_wait_is_cut() {
        let slot = LargeSlot::default();
        let (large, small) = (slot.worker(), slot.worker());
        large.of_runs().grow();
        small.begin(Some(now() + Duration::from_millis(1)));
        let run = small.of_runs();
        run.grow();
        assert!(run.is_cut() && small.is_cut() && small.waited() >= Duration::from_millis(1));
        small.begin(Some(now()));
        assert!(!run.is_cut() && small.waited().is_zero());
        drop(large);
        run.grow();
        assert!(!run.is_cut());
    }

    /// The runs of a piece of work keep the slot from one to the next, until it is given back.
    #[test]
    fn the_slot_is_given_back_with_the_work() {
        let slot = LargeSlot::default();
        let worker = slot.worker();
        worker.of_runs().grow();
        worker.begin(None);
        assert!(!is_free(&slot));
        worker.give_back();
        assert!(is_free(&slot));
    }

    #[test]
    fn a_run_with_a_long_transcript_is_large() {
        let slot = LargeSlot::default();
        let worker = slot.worker();
        let scribe = Recorder::within(Plan::default(), worker.of_runs()).scribe(0);
        for (length, is_small) in [(1, true), (SMALL_RUN_BYTES, false)] {
            let body = Bytes::from(vec![b'x'; length]);
            scribe.record(Actor::Probe, EventKind::BodySeen { body, end: BodyEnd::Complete });
            assert_eq!(is_free(&slot), is_small);
        }
    }

    #[test]
    fn what_shares_no_memory_does_not_wait() {
        let slot = LargeSlot::default();
        let large = slot.worker();
        large.of_runs().grow();
        let ended = slot.worker().of_runs();
        let alone = WorkerMemory::default();
        alone.begin(Some(now()));
        for run in [RunMemory::default(), ended, alone.of_runs()] {
            run.grow();
            assert!(!run.is_cut());
        }
    }
}
