//! One core for both sides of a conversation in which only one of them moves at a time: waking another core takes longer
//! than most answers.

#[cfg(target_os = "linux")]
mod linux {
    use std::cell::OnceCell;
    use std::sync::{Mutex, OnceLock, PoisonError};

    use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

    /// The cores that the process was given, each with the number of threads that were put on it.
    static CORES: OnceLock<Mutex<Vec<(usize, usize)>>> = OnceLock::new();

    thread_local! {
        static OWN: OnceCell<Core> = const { OnceCell::new() };
    }

    /// The core of a thread, for as long as the thread lives.
    struct Core(usize);

    fn with_cores<T>(then: impl FnOnce(&mut Vec<(usize, usize)>) -> T) -> T {
        let cores = CORES.get_or_init(|| {
            let given = sched_getaffinity(None).ok();
            Mutex::new(
                (0..CpuSet::MAX_CPU)
                    .filter(|core: &usize| given.as_ref().is_some_and(|given| given.is_set(*core)))
                    .map(|core| (core, 0))
                    .collect(),
            )
        });
        then(&mut cores.lock().unwrap_or_else(PoisonError::into_inner))
    }

    impl Core {
        /// The core with the fewest threads; of several the one that the thread is on.
        fn take() -> Core {
            let here = sched_getcpu();
            let taken = with_cores(|cores| {
                let least = cores.iter_mut().min_by_key(|(core, threads)| (*threads, *core != here))?;
                least.1 += 1;
                Some(least.0)
            });
            let core = taken.unwrap_or(here);
            let mut set = CpuSet::new();
            set.set(core);
            // Where that may not be asked for, everything is as right and slower.
            let _ = sched_setaffinity(None, &set);
            Core(core)
        }
    }

    impl Drop for Core {
        fn drop(&mut self) {
            with_cores(|cores| {
                cores.iter_mut().filter(|(core, _)| *core == self.0).for_each(|(_, threads)| *threads -= 1);
            });
        }
    }

    pub(in crate::process) fn share() {
        OWN.with(|own| {
            own.get_or_init(Core::take);
        });
    }
}

/// Keeps this thread, and what it starts from now on, on one core.
#[cfg(target_os = "linux")]
pub(super) use linux::share;

/// Other systems move threads as they like.
#[cfg(not(target_os = "linux"))]
pub(super) fn share() {}
