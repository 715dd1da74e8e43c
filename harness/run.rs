//! Runs a case on both versions and judges.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::sleep;

use crate::{
    case::Case,
    classify::{self, Reading},
    clock::{Clock, Runtime},
    close_code::CloseCode,
    dependency::{Dependencies, InMemory},
    environment::Environment,
    error::Error,
    fault::{Fault, FaultKind},
    judge,
    outcome::{Class, Outcome},
    plan::Plan,
    probe::{self, Script},
    profile::Profile,
    recorder::{self, Recorder},
    revision::Revision,
    step::{Act, Awaited, Crowd, Request, Step},
    target::{ProcessControl, Target},
    targets::{Embedded, Transport},
    timeline::AFTERMATH,
    transcript::{PROCESS, Residue, Transcript},
    trial::Trial,
    verdict::{HealthyClient, Judged, Judgement, Reason, Verdict},
};

/// How long the healthy client may take for any single step.
const CONTROL_LIMIT: Duration = Duration::from_secs(5);

/// How many turns everybody gets before any time passes.
const SETTLING_TURNS: usize = 4;

/// How long the application is first given to notice that its client is gone; twice as long each further time.
const SETTLING_TIME: Duration = Duration::from_millis(1);
/// From when on nothing more is waited for: in all, twice this. Longer than anything that is drawn keeps bytes on their
/// way.
const SETTLING_TIME_MAX: Duration = Duration::from_secs(128);
/// The same behind a real server, where time is real.
const SETTLING_TIME_SERVED_MAX: Duration = Duration::from_millis(1024);

/// Runs trials one after the other, each exactly reproducible, on one virtual clock.
#[derive(Debug)]
pub struct Conductor {
    runtime: Runtime,
    dependencies: Arc<dyn Dependencies>,
    _logs: tracing::subscriber::DefaultGuard,
}

impl Default for Conductor {
    fn default() -> Self {
        Conductor::depending_on(Arc::new(InMemory))
    }
}

impl Conductor {
    /// One whose backends depend on these dependencies instead of on those in memory.
    pub fn depending_on(dependencies: Arc<dyn Dependencies>) -> Conductor {
        Conductor { runtime: Runtime::new(Clock::Virtual), dependencies, _logs: recorder::capture_logs() }
    }

    fn launch(&self, revision: Revision, environment: Environment, profile: &Arc<Profile>, seed: u64) -> Embedded {
        let (dependencies, profile) = (Arc::clone(&self.dependencies), Arc::clone(profile));
        Embedded::depending_on(dependencies, revision, environment, profile, Transport::Memory, seed)
    }

    /// Runs the case on its version with the bug and on its version with the fix, and compares.
    pub fn judge(&self, trial: &Trial, seed: u64) -> Judgement {
        if let Some(why) = ProcessControl::None.refuses(&trial.case) {
            return Judgement::inconclusive(Reason::NotForThisTarget(why));
        }
        let run = |revision| self.run(trial, revision, seed);
        if trial.case.twin == Revision::repaired() {
            return judge_alone(&trial.case, run(Revision::repaired()));
        }
        let runs = || {
            let twins = (run(trial.case.twin)?, run(Revision::repaired())?);
            let shams = trial.case.shams.iter().map(|sham| run(sham.revision)).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, Error>((twins, shams))
        };
        match runs() {
            Ok(((before, after), shams)) => {
                let (case, profile) = (&trial.case, &trial.profile.name);
                let verdict = |sham: &Judged| match judge::compare(case, profile, &before, sham) {
                    Ok(()) => Verdict::Fixed,
                    Err((verdict, _)) => verdict,
                };
                let shams = shams.into_iter().map(|sham| (verdict(&sham), sham)).collect::<Vec<_>>();
                let judged = judge::compare(case, profile, &before, &after)
                    .and_then(|()| judge::see_through(case, profile, &shams));
                let judged = judged.map(|()| Verdict::Fixed);
                Judgement { shams, ..Judgement::of(judged, Some(before), Some(after)) }
            }
            Err(error) => Judgement::inconclusive(Reason::Harness(format!("could not {error}"))),
        }
    }

    /// Runs the case on one version: the healthy client before, during and after, and the case itself.
    ///
    /// # Errors
    /// When the harness could not do its work.
    pub fn run(&self, trial: &Trial, revision: Revision, seed: u64) -> Result<Judged, Error> {
        let seed = trial.case.seed.unwrap_or(seed);
        self.runtime.block_on(async {
            let target = self.launch(revision, trial.environment, &trial.profile, seed);
            let judged = conduct(&trial.case, &target, seed).await;
            target.stop().await?;
            judged
        })
    }
}

impl Conductor {
    /// Runs a script under a plan on the built-in backend, and gives everything that happened.
    ///
    /// # Errors
    /// When the harness could not do its work.
    pub fn converse(
        &self,
        revision: Revision,
        environment: Environment,
        profile: &Arc<Profile>,
        crowd: Crowd,
        steps: &[Step],
        plan: Plan,
    ) -> Result<Transcript, Error> {
        self.runtime.block_on(async {
            let target = self.launch(revision, environment, profile, plan.seed);
            let transcript = start_and_converse(crowd, steps, plan, &target).await?;
            target.stop().await?;
            Ok(transcript)
        })
    }
}

/// Judges many trials, `jobs` at a time, each worker with a clock of its own; the result does not depend on how many.
/// `done` is called after each.
pub fn judge_all(trials: &[Trial], seed: u64, jobs: usize, done: &(dyn Fn() + Sync)) -> Vec<Judgement> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let conductor = Conductor::default();
        let mut judged = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(trial) = trials.get(index) else { return judged };
            judged.push((index, conductor.judge(trial, seed)));
            done();
        }
    };
    let mut judged: Vec<(usize, Judgement)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.clamp(1, trials.len().max(1))).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    judged.sort_by_key(|(index, _)| *index);
    judged.into_iter().map(|(_, judgement)| judgement).collect()
}

/// Judges a case that has no version with the bug: what was found once must not be found again.
fn judge_alone(case: &Case, run: Result<Judged, Error>) -> Judgement {
    let judged = match run {
        Ok(judged) => judged,
        Err(error) => return Judgement::inconclusive(Reason::Harness(format!("could not {error}"))),
    };
    Judgement::of(judge::alone(case, &judged).map(|()| Verdict::Passed), None, Some(judged))
}

/// Performs a case and its healthy client on a running target, and judges.
///
/// # Errors
/// When the harness could not do its work.
pub async fn conduct(case: &Case, target: &dyn Target, seed: u64) -> Result<Judged, Error> {
    let mut controls = Vec::new();
    if !case.is_alone {
        controls.push(control(target, seed).await?);
    }
    let recorder = Recorder::new(case.plan(seed));
    let script = Script { steps: &case.steps, crowd: case.crowd };
    let on_process = case.faults.iter().any(|fault| fault.kind.acts_on_process());
    if on_process {
        // A process that starts serves no client beside the case.
        target.restart(recorder.scribe(PROCESS)).await?;
        probe::perform(script, &recorder, target).await?;
    } else if case.is_alone {
        probe::perform(script, &recorder, target).await?;
    } else {
        // Faults act on the exchanges of their own plan, so that the healthy client beside the case meets none of them.
        let (performed, beside) = tokio::join!(probe::perform(script, &recorder, target), control(target, seed));
        performed?;
        controls.push(beside?);
    }
    let transcript = finish(&recorder, target).await;
    let outlives = |fault: &Fault| match &fault.kind {
        FaultKind::Process(fault) => fault.variable().is_some(),
        kind => kind.acts_on_process(),
    };
    if case.faults.iter().any(outlives) {
        // A process reads its variables once, and starts once; anything else takes another process.
        target.restart(Recorder::new(Plan { seed, faults: Vec::new() }).scribe(PROCESS)).await?;
    }
    if case.is_alone {
        let over = case.faults.iter().filter_map(|fault| fault.trigger.until).max();
        sleep(over.map_or(Duration::ZERO, |over| over + AFTERMATH).saturating_sub(recorder.elapsed())).await;
    }
    controls.push(control(target, seed).await?);
    let worst = controls.iter().position(|outcome| outcome.class != Class::Served).unwrap_or(0);
    Ok(judge::judge(transcript, HealthyClient::Tried(controls.swap_remove(worst))))
}

/// Performs steps under a plan and gives everything that happened.
///
/// # Errors
/// When the harness could not do its work.
pub async fn converse(steps: &[Step], plan: Plan, target: &dyn Target) -> Result<Transcript, Error> {
    converse_as(Crowd::ONE, steps, plan, target).await
}

/// The same, by many clients.
///
/// # Errors
/// When the harness could not do its work.
pub async fn converse_as(crowd: Crowd, steps: &[Step], plan: Plan, target: &dyn Target) -> Result<Transcript, Error> {
    let recorder = Recorder::new(plan);
    probe::perform(Script { steps, crowd }, &recorder, target).await?;
    Ok(finish(&recorder, target).await)
}

/// Like `converse`, but if the plan has faults of the process, restarts it under them before the first client connects.
///
/// # Errors
/// When the harness could not do its work, or the target has no process of its own.
pub async fn start_and_converse(
    crowd: Crowd,
    steps: &[Step],
    plan: Plan,
    target: &dyn Target,
) -> Result<Transcript, Error> {
    let recorder = Recorder::new(plan);
    if recorder.plan().faults.iter().any(|fault| fault.kind.acts_on_process()) {
        target.restart(recorder.scribe(PROCESS)).await?;
    }
    probe::perform(Script { steps, crowd }, &recorder, target).await?;
    Ok(finish(&recorder, target).await)
}

/// Lets the application come to its end, and closes the transcript.
async fn finish(recorder: &Recorder, target: &dyn Target) -> Transcript {
    let mut pause = SETTLING_TIME;
    let is_busy =
        || recorder.is_application_running() || target.residue().is_some_and(|left| left != Residue::default());
    // Almost always everybody is done as soon as everybody has had a turn.
    for _ in 0..SETTLING_TURNS {
        if is_busy() {
            yield_now().await;
        }
    }
    let service = target.service();
    let most = if service.is_served() { SETTLING_TIME_SERVED_MAX } else { SETTLING_TIME_MAX };
    while is_busy() && pause < most {
        sleep(pause).await;
        pause *= 2;
    }
    // A busy served target that was not waited for to its end is not judged by its residue.
    let is_cut_short = service.is_served() && is_busy();
    let mut transcript = recorder.transcript();
    transcript.service = service;
    transcript.residue = target.residue().filter(|_| !is_cut_short);
    transcript
}

/// The steps of a healthy client: open, be welcomed, ask an agent, close.
pub fn control_steps() -> Vec<Step> {
    let step = |act| Step::new(act, CONTROL_LIMIT);
    let wait = |name: &str| step(Act::Wait(Awaited::Message(name.to_owned())));
    // A user of its own, so that its sessions count against no other user.
    let request = Request { user: "control".to_owned(), ..Request::standard("GET", "/ws") };
    vec![
        step(Act::Open(request)),
        wait("connection_established"),
        step(Act::SendText(r#"{"type":"user_message","content":"hello"}"#.to_owned())),
        wait("agent_completed"),
        step(Act::Close(CloseCode::NORMAL)),
    ]
}

async fn control(target: &dyn Target, seed: u64) -> Result<Outcome, Error> {
    let transcript = converse(&control_steps(), Plan { seed, faults: Vec::new() }, target).await?;
    let outcomes: Vec<Outcome> = classify::readings(&transcript).iter().map(Reading::outcome).collect();
    Ok(classify::worst(&outcomes).expect("the healthy client opens an exchange").clone())
}
