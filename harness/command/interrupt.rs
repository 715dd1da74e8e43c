//! Signals that ask the command to end. The first one asks for an orderly end: the command reports its results so far. Whatever that
//! waits for, a second signal, or [`ORDERLY_LIMIT`], ends everything at once.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Once, OnceLock, mpsc};
use std::time::Duration;

use relapse::deadline::EndRequest;
use relapse_python::process::end_all as end_interpreters;
use relapse_simulate::clock::{Clock, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use crate::{exit_code::CommandExit, files, output::note};

/// How long an orderly end may take: longer than a report takes to be written, and shorter than the 10 s after which
/// supervisors kill (`docker stop`).
const ORDERLY_LIMIT: Duration = Duration::from_secs(5);

/// How long after a signal the interpreters may go on with what they do. Then they are ended, so that nothing of an orderly
/// end waits for an application that is stuck.
const INTERPRETER_LIMIT: Duration = Duration::from_secs(2);

/// How long the answer to a signal may take to be printed, on a terminal that may not be there any more.
const ANSWER_LIMIT: Duration = Duration::from_millis(200);

/// How long a file that is being written delays the end.
const FILE_LIMIT: Duration = Duration::from_millis(500);

/// How the first signal is answered, if an orderly end follows.
static ORDERLY: OnceLock<OrderlyEnd> = OnceLock::new();
/// The number of the first signal; 0 before it.
static FIRST: AtomicU8 = AtomicU8::new(0);
/// Whether the interpreters were ended because of it.
static IS_CUT: AtomicBool = AtomicBool::new(false);
/// Wakes what waits for the first signal.
static ASKED: Notify = Notify::const_new();

/// The orderly end of a command.
#[derive(Debug, Clone, Copy)]
struct OrderlyEnd {
    /// Printed at the first signal.
    said: &'static str,
    /// The occupation of the command until then.
    until_then: Occupation,
}

/// The occupation of a command until it is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occupation {
    /// It works, and a signal ends that early.
    Works,
    /// It stands until it is told to stop, which is no failure.
    Stands,
}

/// From now on the first signal asks for an orderly end and prints this text, and only the second one ends everything. The
/// command exits with the signal's code.
pub(crate) fn end_in_order(said: &'static str) {
    begin(OrderlyEnd { said, until_then: Occupation::Works });
}

/// The same of a command that stands until it is told to stop, and has an exit code of its own then.
pub(crate) fn stand_until_told(said: &'static str) {
    begin(OrderlyEnd { said, until_then: Occupation::Stands });
}

fn begin(end: OrderlyEnd) {
    ORDERLY.get_or_init(|| end);
    end_interpreters_with_us();
}

/// Whether an end was asked for.
pub(crate) fn was_asked_to_end() -> bool {
    FIRST.load(Ordering::Acquire) != 0
}

/// The end that was asked for, as the library asks.
pub(crate) fn end_request() -> EndRequest {
    match (was_asked_to_end(), IS_CUT.load(Ordering::Acquire)) {
        (false, _) => EndRequest::None,
        (true, false) => EndRequest::Orderly,
        (true, true) => EndRequest::Cut,
    }
}

/// The exit code of a command that ends with this one: that of the signal that ended its work, if one did.
pub(crate) fn exit_with(exit: CommandExit) -> CommandExit {
    let works = ORDERLY.get().is_some_and(|end| end.until_then == Occupation::Works);
    let first = StopSignal::ALL.into_iter().find(|signal| signal.number() == FIRST.load(Ordering::Acquire));
    first.filter(|_| works).map_or(exit, |signal| exit.max(signal.exit()))
}

/// Waits until an end is asked for, after [`end_in_order`]. The answer to the signal is printed by then.
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
                let first = stops.next().await;
                if let Some(end) = ORDERLY.get() {
                    // A reader of the request may end the process at once.
                    answer(end.said).await;
                    FIRST.store(first.number(), Ordering::Release);
                    ASKED.notify_waiters();
                    end_late(&mut stops).await;
                }
                end_interpreters();
                files::finish_writing(FILE_LIMIT).await;
                std::process::exit(i32::from(first.exit().number()));
            });
        });
        // From here on signals are heard; an error means that they cannot be, and they end the process alone.
        let _ = is_ready.recv();
    });
}

/// Waits for a second signal, or for the end of all patience.
async fn end_late(stops: &mut StopSignals) {
    if timeout(INTERPRETER_LIMIT, stops.next()).await.is_ok() {
        return;
    }
    IS_CUT.store(true, Ordering::Release);
    end_interpreters();
    if timeout(ORDERLY_LIMIT.saturating_sub(INTERPRETER_LIMIT), stops.next()).await.is_err() {
        answer("it did not come to an end in time, and ends now").await;
    }
}

/// Prints a note, and waits for that as long as a terminal that is there takes.
async fn answer(said: &'static str) {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        note(said);
        let _ = tell.send(());
    });
    tokio::select! {
        _ = told => {}
        () = sleep(ANSWER_LIMIT) => {}
    }
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
    /// SIGHUP, as a terminal that closes sends it.
    Hangup,
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl StopSignal {
    const ALL: [StopSignal; 3] = [StopSignal::Hangup, StopSignal::Interrupt, StopSignal::Terminate];

    /// Its number (POSIX.1-2024, `kill`).
    const fn number(self) -> u8 {
        match self {
            StopSignal::Hangup => 1,
            StopSignal::Interrupt => 2,
            StopSignal::Terminate => 15,
        }
    }

    /// The exit code of a process that it ends.
    const fn exit(self) -> CommandExit {
        match self {
            StopSignal::Hangup => CommandExit::HungUp,
            StopSignal::Interrupt => CommandExit::Interrupted,
            StopSignal::Terminate => CommandExit::Terminated,
        }
    }
}

/// The signals that ask a program to stop. From the moment it exists they do not end the process by themselves.
#[derive(Debug)]
pub(crate) struct StopSignals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Watches for them, in a runtime that keeps real time.
    ///
    /// # Errors
    /// When the system does not let it.
    fn watch() -> io::Result<StopSignals> {
        Ok(StopSignals {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next of them.
    async fn next(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.hangup.recv() => StopSignal::Hangup,
            _ = self.interrupt.recv() => StopSignal::Interrupt,
            _ = self.terminate.recv() => StopSignal::Terminate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::StopSignal;

    #[test]
    fn a_signal_exits_as_shells_have_it() {
        for signal in StopSignal::ALL {
            assert_eq!(signal.exit().number(), 128 + signal.number(), "{signal:?}");
        }
    }
}
