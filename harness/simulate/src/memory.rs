//! The memory of concurrent runs: many small ones, and one large one.
//!
//! A run that grows waits until no other run is large. So the number of workers does not decide how much memory a process
//! takes, and no run depends on how many there are: its time is virtual, and stands still while it waits. The wait ends with
//! the other run, which has limits of its own, or with the time of the work; then the run is cut, and shows nothing.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many bytes a small run has: 1 MiB, which is more than almost any run has.
pub const SMALL_RUN_BYTES: usize = 1 << 20;

/// Whether some run holds the large slot.
static IS_TAKEN: Mutex<bool> = Mutex::new(false);
static FREED: Condvar = Condvar::new();

thread_local! {
    /// How many workers of this thread share the memory.
    static WORKERS: Cell<usize> = const { Cell::new(0) };
    /// Whether the run of this thread holds the large slot.
    static HOLDS_LARGE: Cell<bool> = const { Cell::new(false) };
    /// Until when the run of this thread may wait for the large slot.
    static WAIT_UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Whether the time was over while it waited.
    static IS_CUT: Cell<bool> = const { Cell::new(false) };
    /// How long it has waited.
    static WAITED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Longer than any wait.
const NO_DEADLINE: Duration = Duration::from_secs(1 << 30);

/// A worker of this thread, whose runs share the memory with those of other threads until it is dropped.
#[derive(Debug)]
pub struct SharedMemory(PhantomData<*const ()>);

impl SharedMemory {
    /// Registers a worker on this thread.
    pub fn of_worker() -> SharedMemory {
        WORKERS.set(WORKERS.get() + 1);
        SharedMemory(PhantomData)
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        WORKERS.set(WORKERS.get() - 1);
        if WORKERS.get() == 0 {
            give_back();
        }
    }
}

/// Starts a run on this thread. It may wait for the large slot until `wait_until`.
pub fn begin(wait_until: Option<Instant>) {
    WAIT_UNTIL.set(wait_until);
    IS_CUT.set(false);
    WAITED.set(Duration::ZERO);
}

/// How long the run of this thread has waited for another one. It is no part of the time that it takes.
pub fn waited() -> Duration {
    WAITED.get()
}

/// Whether the time was over while the run of this thread waited. It is to end at once, as it may not grow.
pub fn is_cut() -> bool {
    IS_CUT.get()
}

/// Takes the large slot for the run of this thread, and waits for it; does nothing on a thread without workers.
pub fn grow() {
    if WORKERS.get() == 0 || HOLDS_LARGE.get() || IS_CUT.get() {
        return;
    }
    let began = now();
    let is_taken = IS_TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let freed = FREED.wait_timeout_while(is_taken, time_left(), |is_taken| *is_taken);
    let (mut is_taken, _) = freed.unwrap_or_else(PoisonError::into_inner);
    WAITED.set(WAITED.get() + began.elapsed());
    if *is_taken {
        return IS_CUT.set(true);
    }
    *is_taken = true;
    HOLDS_LARGE.set(true);
}

/// How long the run of this thread may wait.
fn time_left() -> Duration {
    WAIT_UNTIL.get().map_or(NO_DEADLINE, |until| until.saturating_duration_since(now()))
}

#[expect(clippy::disallowed_methods, reason = "the wait, and the end of a piece of work, are in wall time")]
fn now() -> Instant {
    Instant::now()
}

/// Ends the run of this thread, of which nothing large is left, and frees the large slot.
pub fn give_back() {
    IS_CUT.set(false);
    if HOLDS_LARGE.replace(false) {
        *IS_TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        FREED.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    use super::{SharedMemory, begin, give_back, grow, is_cut, waited};

    /// The memory is one for all tests.
    static ONE_TEST: Mutex<()> = Mutex::new(());

    #[test]
    fn one_run_is_large_at_a_time() {
        let _one = ONE_TEST.lock();
        let (large, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _worker = SharedMemory::of_worker();
                    for _ in 0..100 {
                        grow();
                        grow();
                        most.fetch_max(large.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        large.fetch_sub(1, Ordering::SeqCst);
                        give_back();
                    }
                    // The end of the worker gives it back.
                    grow();
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the end of the wait is in wall time")]
    fn a_run_that_may_not_wait_is_cut() {
        let _one = ONE_TEST.lock();
        let ((grown, has_grown), (end, ends)) = (channel(), channel::<()>());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let _worker = SharedMemory::of_worker();
                grow();
                grown.send(()).unwrap();
                let _ = ends.recv();
            });
            has_grown.recv().unwrap();
            let _worker = SharedMemory::of_worker();
            begin(Some(Instant::now() + Duration::from_millis(1)));
            grow();
            assert!(is_cut() && waited() >= Duration::from_millis(1));
            begin(None);
            assert!(!is_cut());
            drop(end);
            grow();
            assert!(!is_cut());
        });
    }

    #[test]
    fn what_shares_no_memory_does_not_wait() {
        grow();
        std::thread::scope(|scope| drop(scope.spawn(grow).join()));
        give_back();
    }
}
