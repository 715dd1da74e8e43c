//! Runs a case on the built-in backend with and without its defects, and judges.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::{
    check,
    defect::Defect,
    dependency::{Dependencies, Dependency, InMemory, MODULES, VARIABLES},
    revision::Revision,
    target::{Embedded, Transport},
};
use relapse::{
    case::{Case, Known, read_fault},
    client::{self, Script},
    conform::{FramingSubject, PATIENCE, conform},
    deadline::Deadline,
    defects::Defects,
    environment::Environment,
    external::late,
    hunt::{BuiltIn, GeneratedCase, Ground, Runner},
    run,
    service_file::ServiceFile,
    target::{IN_MEMORY, ProcessControl, Target},
    targets::connections::panic_text,
    trial::Trial,
    verdict_rules,
};
use relapse_core::{
    client::step::{Action, Awaited, Concurrency, Request, Step},
    conformance::{Conformance, FrameCase},
    error::Error,
    fault::{Fault, FaultKind, FaultNames},
    judge::{
        classify::{self, Exchange},
        outcome::{Class, Outcome},
        verdict::{HealthyClient, Reason, RunResult, TrialResult, Verdict},
    },
    plan::Plan,
    record::{
        timeline::AFTERMATH,
        transcript::{PROCESS, Transcript},
    },
    wire::close_code::CloseCode,
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    link::Listener,
    memory::{LargeSlot, RunMemory},
    profile::Profile,
    recorder::{self, Recorder},
};

/// How long the healthy client may take for any single step.
const CONTROL_LIMIT: Duration = Duration::from_secs(5);

/// The names that cases of the built-in backend may use besides those of servers and checks.
pub const KNOWN: Known<'static> = Known {
    profiles: &[],
    checks: check::KNOWN,
    defects: Defect::ENTRIES,
    dependencies: Dependency::NAMES,
    variables: VARIABLES,
    modules: MODULES,
};

/// The names that drawn faults act on. A service without a stage to be in goes wrong most often.
pub const FAULT_NAMES: FaultNames<'static> = FaultNames {
    dependencies: Dependency::NAMES,
    modules: MODULES,
    unset: &[(3, "ENVIRONMENT"), (1, "JWT_SECRET_{ENVIRONMENT}"), (1, "LLM_API_KEY")],
    set: &[("ENVIRONMENT", &["development", "staging", "production", "nonsense"])],
};

/// Runs trials one after the other, each exactly reproducible, on one virtual clock.
#[derive(Debug)]
pub struct BackendRunner {
    runtime: Runtime,
    dependencies: Arc<dyn Dependencies>,
    memory: RunMemory,
    _logs: tracing::subscriber::DefaultGuard,
}

impl Default for BackendRunner {
    fn default() -> Self {
        BackendRunner::depending_on(Arc::new(InMemory))
    }
}

impl BackendRunner {
    /// One whose backends depend on these dependencies instead of on those in memory.
    pub fn depending_on(dependencies: Arc<dyn Dependencies>) -> BackendRunner {
        let (runtime, memory) = (Runtime::new(Clock::Virtual), RunMemory::default());
        BackendRunner { runtime, dependencies, memory, _logs: recorder::capture_logs() }
    }

    /// One whose runs have this memory.
    pub fn within(memory: RunMemory) -> BackendRunner {
        BackendRunner { memory, ..BackendRunner::default() }
    }

    fn launch(&self, revision: Revision, environment: Environment, profile: &Arc<Profile>, seed: u64) -> Embedded {
        let (dependencies, profile) = (Arc::clone(&self.dependencies), Arc::clone(profile));
        Embedded::depending_on(dependencies, revision, environment, profile, Transport::Memory, seed)
    }

    /// Runs the case on its version with the bug and on its version with the fix, and compares.
    pub fn judge(&self, trial: &Trial, seed: u64) -> TrialResult {
        if let Some(why) = ProcessControl::None.refuses(&trial.case) {
            return TrialResult::inconclusive(Reason::NotForThisTarget(why));
        }
        if trial.case.twin.is_empty() {
            return judge_alone(&trial.case, self.run(trial, Revision::repaired(), seed));
        }
        self.judge_versions(trial, seed)
            .unwrap_or_else(|error| TrialResult::inconclusive(Reason::Harness(format!("could not {error}"))))
    }

    /// Runs the case with the bug, with the fix, and with each claimed fix, and compares.
    fn judge_versions(&self, trial: &Trial, seed: u64) -> Result<TrialResult, Error> {
        let (case, profile) = (&trial.case, &trial.profile.name);
        let before = self.run(trial, Revision::from(&case.twin), seed)?;
        let after = self.run(trial, Revision::repaired(), seed)?;
        let mut shams = Vec::with_capacity(case.shams.len());
        for sham in &case.shams {
            let run = self.run(trial, Revision::from(&sham.defects), seed)?;
            let verdict = match verdict_rules::compare(case, profile, &before, &run) {
                Ok(()) => Verdict::Fixed,
                Err((verdict, _)) => verdict,
            };
            shams.push((verdict, run));
        }
        let judged = verdict_rules::compare(case, profile, &before, &after)
            .and_then(|()| verdict_rules::see_through(case, profile, &shams));
        let judged = judged.map(|()| Verdict::Fixed);
        Ok(TrialResult { shams, ..TrialResult::of(judged, Some(before), Some(after)) })
    }

    /// Runs the case on one version: the healthy client before, during and after, and the case itself.
    ///
    /// # Errors
    /// When the harness could not do its work.
    pub fn run(&self, trial: &Trial, revision: Revision, seed: u64) -> Result<RunResult, Error> {
        let seed = trial.case.seed.unwrap_or(seed);
        self.runtime.block_on(async {
            let target = self.launch(revision, trial.environment, &trial.profile, seed);
            let judged = conduct(&trial.case, &target, seed, &self.memory).await;
            target.stop().await?;
            judged
        })
    }
}

impl Runner for BackendRunner {
    fn play(
        &self,
        defects: &Defects,
        drawn: &GeneratedCase,
        profile: &Arc<Profile>,
        seed: u64,
    ) -> Result<Transcript, Error> {
        let plan = Plan { seed, faults: drawn.faults.clone() };
        self.converse(defects.into(), drawn.environment, profile, drawn.crowd, &drawn.steps(), plan)
    }

    fn run(&self, trial: &Trial, defects: &Defects, seed: u64) -> Result<RunResult, Error> {
        BackendRunner::run(self, trial, defects.into(), seed)
    }
}

/// The built-in backend, for a hunt.
#[derive(Debug)]
struct OnBackend;

impl BuiltIn for OnBackend {
    fn runner(&self, memory: RunMemory) -> Box<dyn Runner> {
        Box::new(BackendRunner::within(memory))
    }

    fn known(&self) -> Known<'static> {
        KNOWN
    }

    fn fault_names(&self) -> FaultNames<'static> {
        FAULT_NAMES
    }
}

/// The built-in backend with the defects of this revision, to hunt on.
pub fn ground(revision: Revision) -> Ground {
    Ground::BuiltIn(Arc::new(OnBackend), revision.into())
}

impl BackendRunner {
    /// Runs a script under a plan on the built-in backend, and gives everything that happened.
    ///
    /// # Errors
    /// When the harness could not do its work.
    pub fn converse(
        &self,
        revision: Revision,
        environment: Environment,
        profile: &Arc<Profile>,
        crowd: Concurrency,
        steps: &[Step],
        plan: Plan,
    ) -> Result<Transcript, Error> {
        self.runtime.block_on(async {
            let target = self.launch(revision, environment, profile, plan.seed);
            let recorder = Recorder::within(plan, self.memory.clone());
            let transcript = run::start_and_converse(crowd, steps, recorder, &target).await?;
            target.stop().await?;
            Ok(transcript)
        })
    }
}

/// Judges many trials, `jobs` at a time, each worker with a clock of its own; the result does not depend on how many.
/// A trial for which there is no time is INCONCLUSIVE. `done` is called after each.
pub fn judge_all(
    trials: &[Trial],
    seed: u64,
    jobs: usize,
    deadline: Deadline,
    done: &(dyn Fn() + Sync),
) -> Vec<TrialResult> {
    let (next, large) = (AtomicUsize::new(0), LargeSlot::default());
    let mut judged: Vec<(usize, TrialResult)> = std::thread::scope(|scope| {
        let workers = 0..jobs.clamp(1, trials.len().max(1));
        let workers: Vec<_> =
            workers.map(|_| scope.spawn(|| judge_remaining(trials, &next, &large, seed, deadline, done))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    judged.sort_by_key(|(index, _)| *index);
    judged.into_iter().map(|(_, judgement)| judgement).collect()
}

/// Judges one trial after the other, as long as there is a next one; each result with the trial's place.
fn judge_remaining(
    trials: &[Trial],
    next: &AtomicUsize,
    large: &LargeSlot,
    seed: u64,
    deadline: Deadline,
    done: &(dyn Fn() + Sync),
) -> Vec<(usize, TrialResult)> {
    let memory = large.worker();
    let mut runner = BackendRunner::within(memory.of_runs());
    let mut judged = Vec::new();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(trial) = trials.get(index) else { return judged };
        judged.push(match deadline.is_over() {
            true => (index, TrialResult::inconclusive(late(deadline))),
            false => {
                let result = catch_unwind(AssertUnwindSafe(|| runner.judge(trial, seed)));
                let result = result.unwrap_or_else(|panic| {
                    runner = BackendRunner::within(memory.of_runs());
                    let error = Error::HarnessPanicked { seed, text: panic_text(panic) };
                    TrialResult::inconclusive(Reason::Harness(format!("could not {error}")))
                });
                (index, result)
            }
        });
        memory.give_back();
        done();
    }
}

/// Judges a case that has no version with the bug: what was found once must not be found again.
fn judge_alone(case: &Case, run: Result<RunResult, Error>) -> TrialResult {
    let judged = match run {
        Ok(judged) => judged,
        Err(error) => return TrialResult::inconclusive(Reason::Harness(format!("could not {error}"))),
    };
    TrialResult::of(verdict_rules::alone(case, &judged).map(|()| Verdict::Passed), None, Some(judged))
}

/// Performs a case and its healthy client on a running target, and judges; all of it is one run with this memory.
///
/// # Errors
/// When the harness could not do its work.
pub async fn conduct(case: &Case, target: &dyn Target, seed: u64, memory: &RunMemory) -> Result<RunResult, Error> {
    let mut controls = Vec::new();
    if !case.is_alone {
        controls.push(control(target, seed, memory).await?);
    }
    let recorder = Recorder::within(case.plan(seed), memory.clone());
    let script = Script { steps: &case.steps, crowd: case.crowd };
    let on_process = case.faults.iter().any(|fault| fault.kind.acts_on_process());
    if on_process {
        // A process that starts serves no client beside the case.
        target.restart(recorder.scribe(PROCESS)).await?;
        client::perform(script, &recorder, target).await?;
    } else if case.is_alone {
        client::perform(script, &recorder, target).await?;
    } else {
        // Faults act on the exchanges of their own plan, so that the healthy client beside the case meets none of them.
        let (performed, beside) =
            tokio::join!(client::perform(script, &recorder, target), control(target, seed, memory));
        performed?;
        controls.push(beside?);
    }
    let transcript = run::finish(&recorder, target).await;
    if case.faults.iter().any(outlives_case) {
        // A process reads its variables once, and starts once; anything else takes another process.
        let recorder = Recorder::within(Plan { seed, faults: Vec::new() }, memory.clone());
        target.restart(recorder.scribe(PROCESS)).await?;
    }
    if case.is_alone {
        let over = case.faults.iter().filter_map(|fault| fault.trigger.until).max();
        sleep(over.map_or(Duration::ZERO, |over| over + AFTERMATH).saturating_sub(recorder.elapsed())).await;
    }
    controls.push(control(target, seed, memory).await?);
    let worst = controls.iter().position(|outcome| outcome.class != Class::Served).unwrap_or(0);
    Ok(verdict_rules::judge(transcript, HealthyClient::Tried(controls.swap_remove(worst))))
}

/// Whether a process that met a fault does not work once the fault is over.
fn outlives_case(fault: &Fault) -> bool {
    match &fault.kind {
        FaultKind::Process(fault) => fault.variable().is_some(),
        kind => kind.acts_on_process(),
    }
}

/// The steps of a healthy client: open, be welcomed, ask an agent, close.
pub fn control_steps() -> Vec<Step> {
    // A user of its own, so that its sessions count against no other user.
    let request = Request { user: "control".to_owned(), ..Request::standard("GET", "/ws") };
    let actions = [
        Action::Open(request),
        Action::Wait(Awaited::Message("connection_established".to_owned())),
        Action::SendText(r#"{"type":"user_message","content":"hello"}"#.to_owned()),
        Action::Wait(Awaited::Message("agent_completed".to_owned())),
        Action::Close(CloseCode::NORMAL),
    ];
    actions.into_iter().map(|action| Step::new(action, CONTROL_LIMIT)).collect()
}

async fn control(target: &dyn Target, seed: u64, memory: &RunMemory) -> Result<Outcome, Error> {
    let recorder = Recorder::within(Plan { seed, faults: Vec::new() }, memory.clone());
    let transcript = run::converse_as(Concurrency::ONE, &control_steps(), recorder, target).await?;
    let outcomes: Vec<Outcome> = classify::readings(&transcript).iter().map(Exchange::outcome).collect();
    Ok(classify::worst(&outcomes).expect("the healthy client opens an exchange").clone())
}

/// Tries cases on the repaired built-in backend behind a server with this profile: in memory on the virtual clock, over
/// loopback sockets on the real one.
///
/// # Errors
/// When the harness could not do its work.
pub fn conform_embedded(
    cases: &[Arc<FrameCase>],
    profile: &Arc<Profile>,
    clock: Clock,
    seed: u64,
    deadline: Deadline,
    done: impl Fn(),
) -> Result<Conformance, Error> {
    Runtime::new(clock).block_on(async {
        let _logs = recorder::capture_logs();
        let transport = match clock {
            Clock::Virtual => Transport::Memory,
            Clock::Real => Transport::Tcp(Listener::bind(clock).await?),
        };
        let (revision, environment) = (Revision::repaired(), Environment::Staging);
        let target = Embedded::launch(revision, environment, Arc::clone(profile), transport, seed);
        let (name, authority, binding) = (profile.name.clone(), IN_MEMORY.to_owned(), ServiceFile::embedded());
        let (binding, patience) = (&binding, PATIENCE);
        let peer = FramingSubject { target: &target, binding, name, authority, patience, seed, deadline };
        let conformance = conform(cases, &peer, done).await;
        target.stop().await?;
        Ok(conformance)
    })
}

/// Reads a fault of the built-in backend, or of the edge before it, from one line, as in
/// `hang dependency=database until_ms=5000`.
///
/// # Errors
/// Says what is wrong, with the nearest right name.
pub fn read_backend_fault(line: &str) -> Result<Fault, Error> {
    read_fault(line, &KNOWN)
}
