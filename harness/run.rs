//! Runs a case on its two twins and judges.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::sleep;

use crate::{
    case::Case,
    check::{self, Evidence},
    classify::{self, Reading},
    clock::{Clock, Runtime},
    close_code::CloseCode,
    dependency::{Dependencies, InMemory},
    environment::Environment,
    error::Error,
    fault::{Fault, FaultKind},
    outcome::{Class, Ending, Outcome},
    plan::Plan,
    probe::{self, Script},
    profile::Profile,
    recorder::{self, Recorder},
    revision::Revision,
    running::Running,
    step::{Act, Awaited, Crowd, Request, Step},
    target::{Embedded, Transport},
    transcript::{PROCESS, Residue, Transcript},
    trial::Trial,
    verdict::{Finding, Judged, Judgement, Verdict},
};

/// How long the control may take for any single step.
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

    /// Runs the case on its defective and on its repaired twin, and compares.
    pub fn judge(&self, trial: &Trial, seed: u64) -> Judgement {
        let run = |revision| self.run(trial, revision, seed);
        if trial.case.twin == Revision::repaired() {
            return judge_again(&trial.case, run(Revision::repaired()));
        }
        let runs = || {
            let twins = (run(trial.case.twin)?, run(Revision::repaired())?);
            let shams = trial.case.shams.iter().map(|sham| run(sham.revision)).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, Error>((twins, shams))
        };
        match runs() {
            Ok(((before, after), shams)) => {
                let (case, profile) = (&trial.case, &trial.profile.name);
                let judge = |sham: Judged| (compare(case, profile, &before, &sham).0, sham);
                let shams = shams.into_iter().map(judge).collect::<Vec<_>>();
                let (verdict, why) = match compare(case, profile, &before, &after) {
                    (Verdict::Fixed, _) => see_through(case, profile, &shams),
                    not_fixed => not_fixed,
                };
                Judgement { verdict, why, before: Some(before), after: Some(after), shams }
            }
            Err(error) => inconclusive(&error),
        }
    }

    /// Runs the case on one twin: the control before, during and after, and the case itself.
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
    /// Runs a script under a plan on the embedded backend, and gives everything that happened.
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

fn inconclusive(error: &Error) -> Judgement {
    let why = format!("could not {error}");
    Judgement { verdict: Verdict::Inconclusive, why, before: None, after: None, shams: Vec::new() }
}

/// Judges a case that has no defective twin: what was found once, and is on record in its file, must not be found again.
fn judge_again(case: &Case, run: Result<Judged, Error>) -> Judgement {
    let judged = match run {
        Ok(judged) => judged,
        Err(error) => return inconclusive(&error),
    };
    let (verdict, why) = match all_faults_acted(case, &judged) {
        Err(why) => (Verdict::CannotReproduce, why),
        Ok(()) => {
            holds(case, &judged).map_or_else(|why| (Verdict::StillBroken, why), |()| (Verdict::Fixed, String::new()))
        }
    };
    Judgement { verdict, why, before: None, after: Some(judged), shams: Vec::new() }
}

/// Performs a case and its control on a running target, and judges.
///
/// # Errors
/// When the harness could not do its work.
pub async fn conduct(case: &Case, target: &dyn Running, seed: u64) -> Result<Judged, Error> {
    let mut controls = Vec::new();
    if !case.is_alone {
        controls.push(control(target, seed).await?);
    }
    let recorder = Recorder::new(case.plan(seed));
    let script = Script { steps: &case.steps, crowd: case.crowd };
    let on_process = case.faults.iter().any(|fault| fault.kind.acts_on_process());
    if on_process {
        // Nobody is served beside a process that starts.
        target.restart(recorder.scribe(PROCESS)).await?;
        probe::perform(script, &recorder, target).await?;
    } else if case.is_alone {
        probe::perform(script, &recorder, target).await?;
    } else {
        // Faults act on the exchanges of their own plan, so that the control beside the case meets none of them.
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
        sleep(over.map_or(Duration::ZERO, |over| over + classify::AFTERMATH).saturating_sub(recorder.elapsed())).await;
    }
    controls.push(control(target, seed).await?);
    let worst = controls.iter().position(|outcome| outcome.class != Class::GoodOpen).unwrap_or(0);
    Ok(judge(transcript, controls.swap_remove(worst)))
}

/// Performs steps under a plan and gives everything that happened.
///
/// # Errors
/// When the harness could not do its work.
pub async fn converse(steps: &[Step], plan: Plan, target: &dyn Running) -> Result<Transcript, Error> {
    converse_as(Crowd::ONE, steps, plan, target).await
}

/// The same, by many clients.
///
/// # Errors
/// When the harness could not do its work.
pub async fn converse_as(crowd: Crowd, steps: &[Step], plan: Plan, target: &dyn Running) -> Result<Transcript, Error> {
    let recorder = Recorder::new(plan);
    probe::perform(Script { steps, crowd }, &recorder, target).await?;
    Ok(finish(&recorder, target).await)
}

/// The same. Where the plan has faults of the process, that is started anew under them before anybody comes.
///
/// # Errors
/// When the harness could not do its work, or the target has no process of its own.
pub async fn start_and_converse(
    crowd: Crowd,
    steps: &[Step],
    plan: Plan,
    target: &dyn Running,
) -> Result<Transcript, Error> {
    let recorder = Recorder::new(plan);
    if recorder.plan().faults.iter().any(|fault| fault.kind.acts_on_process()) {
        target.restart(recorder.scribe(PROCESS)).await?;
    }
    probe::perform(Script { steps, crowd }, &recorder, target).await?;
    Ok(finish(&recorder, target).await)
}

/// Lets the application come to its end, and closes the transcript.
async fn finish(recorder: &Recorder, target: &dyn Running) -> Transcript {
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
    let most = if service.is_served { SETTLING_TIME_SERVED_MAX } else { SETTLING_TIME_MAX };
    while is_busy() && pause < most {
        sleep(pause).await;
        pause *= 2;
    }
    // What may come to its end a little later is no residue yet, where nobody has the time to wait for it.
    let is_cut_short = service.is_served && is_busy();
    let mut transcript = recorder.transcript();
    transcript.service = service;
    transcript.residue = target.residue().filter(|_| !is_cut_short);
    transcript
}

/// Derives the outcome of a run and lets every check look at it.
pub fn judge(transcript: Transcript, control: Outcome) -> Judged {
    let evidence = Evidence::gather(&transcript, &control);
    let outcome = classify::worst(&evidence.outcomes).expect("a case opens at least one exchange").clone();
    let findings = check::findings(&evidence);
    let outcomes = evidence.outcomes;
    Judged { outcome, outcomes, findings, transcript, control }
}

/// What a valid client does: open, be welcomed, ask an agent, close.
pub fn control_steps() -> Vec<Step> {
    let step = |act| Step::new(act, CONTROL_LIMIT);
    let wait = |name: &str| step(Act::Wait(Awaited::Message(name.to_owned())));
    // A user of its own, so that what it holds is nobody else's.
    let request = Request { user: "control".to_owned(), ..Request::standard("GET", "/ws") };
    vec![
        step(Act::Open(request)),
        wait("connection_established"),
        step(Act::SendText(r#"{"type":"user_message","content":"hello"}"#.to_owned())),
        wait("agent_completed"),
        step(Act::Close(CloseCode::NORMAL)),
    ]
}

async fn control(target: &dyn Running, seed: u64) -> Result<Outcome, Error> {
    let transcript = converse(&control_steps(), Plan { seed, faults: Vec::new() }, target).await?;
    let outcomes: Vec<Outcome> = classify::readings(&transcript).iter().map(Reading::outcome).collect();
    Ok(classify::worst(&outcomes).expect("the control opens an exchange").clone())
}

/// What two runs tell, the first one on the defective twin, and why it is not FIXED.
pub fn compare(case: &Case, profile: &str, before: &Judged, after: &Judged) -> (Verdict, String) {
    let verdict = || {
        // A hunt was not told which twin has to meet the faults.
        if !case.is_alone {
            all_faults_acted(case, before).map_err(|why| (Verdict::Vacuous, format!("on the defective twin {why}")))?;
        }
        all_faults_acted(case, after).map_err(|why| (Verdict::Vacuous, format!("on the repaired twin {why}")))?;
        reproduces(case, profile, before).map_err(|why| (Verdict::CannotReproduce, why))?;
        holds(case, after).map_err(|why| (Verdict::StillBroken, why))
    };
    match verdict() {
        Ok(()) => (Verdict::Fixed, String::new()),
        Err(not_fixed) => not_fixed,
    }
}

/// Whether every fault of a case acted, and, where it is to be over, was over.
///
/// # Errors
/// Says which did not.
pub fn all_faults_acted(case: &Case, judged: &Judged) -> Result<(), String> {
    if let Some(index) = judged.transcript.fired.iter().position(|&count| count == 0) {
        return Err(format!("the fault `{}` never acted", case.faults[index]));
    }
    if case.is_alone {
        // The valid client comes when every fault is over.
        return Ok(());
    }
    // Without a client that comes after it, the end of a fault says nothing.
    let last = judged.transcript.events.iter().filter(|event| event.exchange != PROCESS).map(|event| event.at).max();
    let never_over = |fault: &&Fault| fault.trigger.until.is_some_and(|until| last.is_none_or(|last| last < until));
    match case.faults.iter().find(never_over) {
        Some(fault) => Err(format!("nobody came after the fault `{fault}` was over")),
        None => Ok(()),
    }
}

/// Whether every claimed repair, run in the order in which the case names them, is seen through: none is accepted in place
/// of the real one, and each shows what is known of it.
pub fn see_through(case: &Case, profile: &str, shams: &[(Verdict, Judged)]) -> (Verdict, String) {
    for (sham, (verdict, judged)) in case.shams.iter().zip(shams) {
        let (outcome, class) = sham.shows_behind(profile);
        let ending = judged.outcome.ending.to_string();
        let silent =
            sham.found_by.iter().find(|name| !judged.findings.iter().any(|finding| finding.check == name.as_str()));
        if *verdict != Verdict::StillBroken {
            return (Verdict::Vacuous, format!("the sham repair {} is not seen through: {verdict}", sham.revision));
        } else if ending != outcome || judged.outcome.class != class {
            let shows = format!("shows `{ending}` ({}) instead of `{outcome}` ({class})", judged.outcome.class);
            return (Verdict::CannotReproduce, format!("the sham repair {} {shows}", sham.revision));
        } else if let Some(silent) = silent {
            let why = format!("the check {silent} does not complain about the sham repair {}", sham.revision);
            return (Verdict::CannotReproduce, why);
        }
    }
    (Verdict::Fixed, String::new())
}

/// Whether a run of the repaired twin is accepted: its class, every check, and the control.
///
/// # Errors
/// Says what is not accepted.
pub fn holds(case: &Case, after: &Judged) -> Result<(), String> {
    all_faults_acted(case, after)?;
    for (exchange, outcome) in after.outcomes.iter().enumerate() {
        let accepted = case.accepted_at(exchange);
        if !accepted.accepts(outcome) {
            return Err(format!("connection {} on the repaired twin gives {outcome}", exchange + 1));
        }
        if !accepted.is_said(&after.transcript, exchange) {
            let text = accepted.says.as_deref().unwrap_or_default();
            return Err(format!("nothing that connection {} on the repaired twin reads says `{text}`", exchange + 1));
        }
    }
    for (class, least) in &case.at_least {
        let count = after.outcomes.iter().filter(|outcome| outcome.class == *class).count();
        if count < *least {
            return Err(format!("{count} of the connections on the repaired twin are {class}, and {least} must be"));
        }
    }
    if after.control.class != Class::GoodOpen {
        return Err(format!("on the repaired twin the valid client gets {}", after.control));
    }
    match after.findings.first() {
        Some(Finding { check, message, .. }) => Err(format!("on the repaired twin {check}: {message}")),
        None => Ok(()),
    }
}

/// Whether a run of the defective twin shows the whole symptom.
///
/// # Errors
/// Says what is missing.
pub fn reproduces(case: &Case, profile: &str, judged: &Judged) -> Result<(), String> {
    if !case.is_alone {
        all_faults_acted(case, judged)?;
    }
    let symptom = case.symptom_behind(profile);
    let Outcome { class, cause, ending, .. } = &judged.outcome;
    let differs = |what: &str, expected: &str, found: String| {
        Err(format!("the defective twin shows the {what} `{found}` instead of `{expected}`"))
    };
    if ending.to_string() != symptom.outcome {
        return differs("outcome", &symptom.outcome, ending.to_string());
    }
    if *class != symptom.class {
        return differs("class", symptom.class.name(), class.to_string());
    }
    if *cause != symptom.cause {
        return differs("cause", symptom.cause.name(), cause.to_string());
    }
    if let Some(text) = &symptom.log
        && !judged.transcript.says(text)
    {
        return Err(format!("nothing in the defective twin's log says `{text}`"));
    }
    if let Some(text) = &symptom.reason
        && !matches!(ending, Ending::Close { reason, .. } if reason.contains(text))
    {
        return Err(format!("the close reason on the defective twin does not say `{text}`"));
    }
    match symptom.found_by.iter().find(|name| !judged.findings.iter().any(|finding| finding.check == name.as_str())) {
        Some(silent) => Err(format!("the check {silent} does not complain about the defective twin")),
        None => Ok(()),
    }
}
