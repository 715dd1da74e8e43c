//! Which clock a run keeps, and the runtime that keeps it.

use std::future::Future;

use tokio::runtime;

/// The clock of a run. In-memory links run on the virtual one, sockets on the real one; never mixed, because the
/// virtual clock jumps to the next timer as soon as nothing else is runnable, also while a socket waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clock {
    /// Tokio's paused clock: waiting costs nothing and is exact.
    Virtual,
    /// The wall clock.
    Real,
}

/// A runtime with its clock. One serves any number of runs, one after the other.
#[derive(Debug)]
pub struct Runtime {
    clock: Clock,
    inner: runtime::Runtime,
}

impl Runtime {
    /// A runtime that keeps this clock. The virtual one has no I/O driver at all.
    pub fn new(clock: Clock) -> Runtime {
        let mut builder = runtime::Builder::new_current_thread();
        match clock {
            Clock::Virtual => builder.enable_time().start_paused(true),
            Clock::Real => builder.enable_all(),
        };
        let inner = builder.build().expect("a current-thread runtime needs nothing but memory and one epoll handle");
        Runtime { clock, inner }
    }

    /// A runtime for a server that stands until it is told to stop: the wall clock, on every core.
    pub fn standing() -> Runtime {
        let inner = runtime::Builder::new_multi_thread().enable_all().build();
        Runtime { clock: Clock::Real, inner: inner.expect("threads are there") }
    }

    /// The clock it keeps.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Runs a future to its end.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.inner.block_on(future)
    }
}
