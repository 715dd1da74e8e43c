//! One core for both sides of a conversation in which only one of them moves at a time: waking another core takes longer
//! than most answers.

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
    use std::thread::{self, ThreadId};

    use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

    /// The core of an interpreter and of the thread that started it.
    #[derive(Debug)]
    pub(in crate::process) struct Core {
        number: usize,
        thread: ThreadId,
    }

    impl Core {
        /// Takes a core, and keeps this thread, and what it starts from now on, on it.
        pub(in crate::process) fn take() -> Core {
            let (thread, here) = (thread::current().id(), sched_getcpu());
            let number = cores().take(thread, here);
            let mut set = CpuSet::new();
            set.set(number);
            // Where that may not be asked for, everything is as right and slower.
            let _ = sched_setaffinity(None, &set);
            Core { number, thread }
        }
    }

    impl Drop for Core {
        fn drop(&mut self) {
            cores().give_back(self.thread, self.number);
        }
    }

    /// The cores of the process. It owns them: all its interpreters run on the same few, on every thread. They can be read
    /// only on a thread that is not kept on one yet, so they are read once, before the first is taken.
    fn cores() -> MutexGuard<'static, Cores> {
        static OF_PROCESS: OnceLock<Mutex<Cores>> = OnceLock::new();
        let cores = OF_PROCESS.get_or_init(|| {
            let given = sched_getaffinity(None).ok();
            let is_given = |core: &usize| given.as_ref().is_some_and(|given| given.is_set(*core));
            Mutex::new(Cores { given: (0..CpuSet::MAX_CPU).filter(is_given).collect(), taken: Vec::new() })
        });
        cores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cores, and the interpreters on them.
    #[derive(Debug)]
    struct Cores {
        given: Vec<usize>,
        /// For each interpreter its core, and the thread that started it.
        taken: Vec<(ThreadId, usize)>,
    }

    impl Cores {
        /// A core for an interpreter that this thread starts: that of another interpreter of the thread, as the thread stays on
        /// it. Without one, the core with the fewest interpreters; of several the one that the thread is on. A new thread is
        /// kept where the thread was that started it, which says nothing of where it is to be.
        fn take(&mut self, thread: ThreadId, here: usize) -> usize {
            let own = self.taken.iter().find(|(of, _)| *of == thread).map(|(_, core)| *core);
            let count = |core| self.taken.iter().filter(|(_, taken)| *taken == core).count();
            let least = || self.given.iter().copied().min_by_key(|core| (count(*core), *core != here));
            let core = own.or_else(least).unwrap_or(here);
            self.taken.push((thread, core));
            core
        }

        fn give_back(&mut self, thread: ThreadId, core: usize) {
            if let Some(at) = self.taken.iter().position(|taken| *taken == (thread, core)) {
                self.taken.swap_remove(at);
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use std::thread::{self, ThreadId};

        use rustix::thread::sched_getaffinity;

        use super::{Core, Cores};

        fn threads<const N: usize>() -> [ThreadId; N] {
            [(); N].map(|()| thread::spawn(|| thread::current().id()).join().unwrap())
        }

        #[test]
        fn an_interpreter_takes_the_core_with_the_fewest() {
            let mut cores = Cores { given: vec![2, 5], taken: Vec::new() };
            let [first, second, third, fourth] = threads();
            // They all were started by the thread that is on the first core.
            assert_eq!([first, second, third].map(|thread| cores.take(thread, 5)), [5, 2, 5]);
            cores.give_back(first, 5);
            cores.give_back(third, 5);
            assert_eq!(cores.take(fourth, 2), 5);
        }

        #[test]
        fn the_interpreters_of_a_thread_are_on_its_core() {
            let mut cores = Cores { given: vec![2, 5], taken: Vec::new() };
            let [first, second] = threads();
            assert_eq!([0, 0].map(|here| cores.take(first, here)), [2, 2]);
            cores.give_back(first, 2);
            assert_eq!([first, second].map(|thread| cores.take(thread, 5)), [2, 5]);
        }

        #[test]
        fn a_thread_stays_on_the_core_that_it_took() {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let core = Core::take();
                    let on = sched_getaffinity(None).unwrap();
                    assert!(on.is_set(core.number) && on.count() == 1);
                });
            });
        }
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::Core;

/// Nothing: other systems move threads as they like.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(super) struct Core;

#[cfg(not(target_os = "linux"))]
impl Core {
    /// Leaves everything as it is.
    pub(super) fn take() -> Core {
        Core
    }
}
