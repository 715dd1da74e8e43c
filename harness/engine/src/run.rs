//! Performs steps on a running target, and gives everything that happened.

use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::sleep;

use crate::{
    client::{self, Script},
    target::Target,
};
use relapse_core::{
    client::step::{Concurrency, Step},
    error::Error,
    plan::Plan,
    record::transcript::{Actor, EventKind, Leftovers, PROCESS, Transcript},
};
use relapse_simulate::recorder::Recorder;

/// How long an application is first given to let go of clients that are gone; four times as long each further time.
const LEFTOVER_TIME: Duration = Duration::from_secs(1);
/// The longest of these times; in all it is 85 s.
const LEFTOVER_TIME_MAX: Duration = Duration::from_secs(64);

/// How many turns every task gets before any time passes.
const SETTLING_TURNS: usize = 4;

/// How long the application is first given to notice that its client is gone; twice as long each further time.
const SETTLING_TIME: Duration = Duration::from_millis(1);
/// From when on nothing more is waited for: in all, twice this. Longer than anything that is drawn keeps bytes on their
/// way.
const SETTLING_TIME_MAX: Duration = Duration::from_secs(128);
/// The same behind a real server, where time is real.
const SETTLING_TIME_SERVED_MAX: Duration = Duration::from_millis(1024);

/// How long a real server may take to call the application for a client that is gone: in all, twice this.
const LATE_CALL_TIME: Duration = Duration::from_millis(128);

/// Performs steps under a plan and gives everything that happened.
///
/// # Errors
/// When the harness could not do its work.
pub async fn converse(steps: &[Step], plan: Plan, target: &dyn Target) -> Result<Transcript, Error> {
    converse_as(Concurrency::ONE, steps, Recorder::new(plan), target).await
}

/// The same, by many clients, under the plan of a recorder that has recorded nothing.
///
/// # Errors
/// When the harness could not do its work.
pub async fn converse_as(
    crowd: Concurrency,
    steps: &[Step],
    recorder: Recorder,
    target: &dyn Target,
) -> Result<Transcript, Error> {
    client::perform(Script { steps, crowd }, &recorder, target).await?;
    Ok(finish(&recorder, target).await)
}

/// Like `converse_as`, but if the plan has faults of the process, restarts it under them before the first client connects.
///
/// # Errors
/// When the harness could not do its work, or the target has no process of its own.
pub async fn start_and_converse(
    crowd: Concurrency,
    steps: &[Step],
    recorder: Recorder,
    target: &dyn Target,
) -> Result<Transcript, Error> {
    if recorder.plan().faults.iter().any(|fault| fault.kind.acts_on_process()) {
        target.restart(recorder.scribe(PROCESS)).await?;
    }
    client::perform(Script { steps, crowd }, &recorder, target).await?;
    Ok(finish(&recorder, target).await)
}

/// Like `converse_as`, and lets fire what clients have left behind them, where that costs no time.
///
/// # Errors
/// When the harness could not do its work.
pub async fn converse_to_the_end(
    crowd: Concurrency,
    steps: &[Step],
    recorder: Recorder,
    target: &dyn Target,
) -> Result<Transcript, Error> {
    client::perform(Script { steps, crowd }, &recorder, target).await?;
    settle(&recorder, target).await;
    target.await_aftermath(&recorder).await;
    Ok(finish(&recorder, target).await)
}

/// Lets the application come to its end, and closes the transcript.
pub async fn finish(recorder: &Recorder, target: &dyn Target) -> Transcript {
    settle(recorder, target).await;
    let service = target.service();
    look_for_leftovers(recorder, target).await;
    target.record_unretrieved(recorder);
    // A busy served target that was not waited for to its end is not judged by its residue.
    let is_cut_short = service.is_served() && is_busy(recorder, target);
    let mut transcript = recorder.transcript();
    transcript.service = service;
    transcript.residue = target.residue().filter(|_| !is_cut_short);
    transcript
}

/// Waits until the application is done with a run, within a limit.
async fn settle(recorder: &Recorder, target: &dyn Target) {
    let mut pause = SETTLING_TIME;
    // Almost always all tasks are done as soon as each has had a turn.
    for _ in 0..SETTLING_TURNS {
        if !is_busy(recorder, target) {
            break;
        }
        yield_now().await;
    }
    let service = target.service();
    let most = if service.is_served() { SETTLING_TIME_SERVED_MAX } else { SETTLING_TIME_MAX };
    let may_begin = |pause| service.is_served() && pause < LATE_CALL_TIME && recorder.awaits_call();
    while (is_busy(recorder, target) || may_begin(pause)) && pause < most {
        sleep(pause).await;
        pause *= 2;
    }
}

/// Records what the application holds of clients that are gone, once it has had the time to let it go. What it does because
/// of a fault is not asked for.
async fn look_for_leftovers(recorder: &Recorder, target: &dyn Target) {
    if recorder.has_fault_acted() {
        return;
    }
    let mut pause = LEFTOVER_TIME;
    loop {
        let is_last = pause > LEFTOVER_TIME_MAX;
        let left = target.left_behind(recorder, is_last);
        if left.found.is_empty() {
            return;
        }
        if is_last || left.is_known {
            for (scribe, leftover) in left.found {
                scribe.record(Actor::Application, EventKind::LeftBehind(leftover));
            }
            return;
        }
        sleep(pause).await;
        pause *= 4;
    }
}

/// Whether the application runs, or something of the run is left in the target.
fn is_busy(recorder: &Recorder, target: &dyn Target) -> bool {
    recorder.is_application_running() || target.residue().is_some_and(|left| left != Leftovers::default())
}
