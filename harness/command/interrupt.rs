//! Signals that ask the command to stop, and the end of the interpreters with it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, OnceLock, mpsc};

use relapse_python::process::end_all as end_interpreters;
use relapse_simulate::clock::{Clock, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::{exit_code::CommandExit, output::note};

/// The text for the first Ctrl-C if it only asks to stop, and whether it did.
static ASKS_FIRST: OnceLock<&str> = OnceLock::new();
static WAS_ASKED: AtomicBool = AtomicBool::new(false);
/// Wakes what waits for that Ctrl-C.
static ASKED: Notify = Notify::const_new();

/// From now on the first Ctrl-C asks for a clean end and prints this text, and only the second one ends everything.
pub(crate) fn ask_first(said: &'static str) {
    ASKS_FIRST.get_or_init(|| said);
    end_interpreters_with_us();
}

/// Whether an end was asked for.
pub(crate) fn was_asked_to_end() -> bool {
    WAS_ASKED.load(Ordering::Acquire)
}

/// Waits until an end is asked for, after [`ask_first`]. The answer to Ctrl-C is printed by then.
pub(crate) async fn asked_to_end() {
    let asked = ASKED.notified();
    if !was_asked_to_end() {
        asked.await;
    }
}

/// A signal that ends this process ends the interpreters too, wherever their applications are stuck.
pub(crate) fn end_interpreters_with_us() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            Runtime::new(Clock::Real).block_on(async {
                let Ok(mut stops) = StopSignals::watch() else { return };
                let _ = ready.send(());
                let stop = stops.next().await;
                if let (StopSignal::Interrupt, Some(said)) = (stop, ASKS_FIRST.get()) {
                    // A reader of the request may end the process at once.
                    note(said);
                    WAS_ASKED.store(true, Ordering::Release);
                    ASKED.notify_waiters();
                    stops.next().await;
                }
                end_interpreters();
                std::process::exit(i32::from(CommandExit::Interrupted.number()));
            });
        });
        // From here on Ctrl-C is heard; an error means that it cannot be, and ends the process alone.
        let _ = is_ready.recv();
    });
}

/// Waits for Ctrl-C, or for whatever else asks a program to stop.
pub(crate) async fn until_told_to_stop() {
    match StopSignals::watch() {
        Ok(mut stops) => drop(stops.next().await),
        Err(_) => std::future::pending().await,
    }
}

/// A signal that asks a program to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopSignal {
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// The signals that ask a program to stop. From the moment it exists they do not end the process by themselves.
#[derive(Debug)]
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Watches for them, in a runtime that keeps real time.
    ///
    /// # Errors
    /// When the system does not let it.
    fn watch() -> io::Result<StopSignals> {
        Ok(StopSignals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next of them.
    async fn next(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.interrupt.recv() => StopSignal::Interrupt,
            _ = self.terminate.recv() => StopSignal::Terminate,
        }
    }
}
