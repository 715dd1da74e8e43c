//! The reference app behind real servers: every case that needs no more than the wire, and no long wait, ends there as where a
//! profile plays the server.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use relapse::{
    case::Case,
    discover::Catalogue,
    environment::Environment,
    run,
    service_file::ServiceFile,
    target::{Capabilities, Target},
    trial::Trial,
};
use relapse_backend::{
    backend::{Backend, BackendSettings, Variables},
    dependency::InMemory,
    revision::Revision,
    runner::{self, BackendRunner, KNOWN},
    target::SECRET,
};
use relapse_core::{
    client::{
        credential::{Credential, CredentialPlace, Form, Presented},
        step::{Action, Concurrency, Step},
    },
    error::Error,
    fault::{CallFault, Fault, FaultKind, Place},
    judge::{
        classify::{self, Exchange},
        outcome::Outcome,
    },
    plan::Plan,
    record::{
        service::{Service, TargetKind},
        transcript::{EventKind, Leftovers, Transcript},
    },
    wire::head::field,
};
use relapse_python::{
    process::{Installation as PythonInstallation, START_LIMIT, Server as PythonServer},
    served::Served,
};
use relapse_simulate::{
    application::BoxFuture,
    clock::{Clock, Runtime},
    link::Link,
    recorder::{ExchangeRecorder, Recorder},
};
use rstest::rstest;

use crate::{
    python::{apps, site},
    stage::{EPOCH, interpreter_with},
    support::{check_page, profile},
    twin::is_on_the_twin,
};

const SEED: u64 = 1;

/// Two servers of different design, by the profiles that are measured on them, one for each framework. The other profiles are
/// held against their servers row by row (`suites/timed/servers_real.rs`) and by programs (`suites/differential.rs`), and the
/// reference app against the built-in backend behind all of them in memory (`suites/twin.rs`).
const SERVERS: [&str; 2] = ["uvicorn-0.35", "hypercorn-0.18"];

/// How many cases run at a time: most of their time they wait.
const CASES_AT_A_TIME: usize = 8;

/// How long an answer may take where the profile gives one. Nothing that is answered takes so long, on any machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a case may wait for anything but an answer.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The cases that end differently behind a real server, and the reason.
const NOT_ALIKE: [(&str, &str); 2] = [
    (
        "auth/sr10_3_breaker",
        "a success of the client beside decides when the breaker opens, and the machine when that comes",
    ),
    ("outage/s135_4_parallel_upgrades", "how many get through in their time is the machine's"),
];

/// The reference app behind a real server. Credentials are what the built-in backend's own auth service issues.
#[derive(Debug)]
struct Behind<'a> {
    served: &'a Served,
    issuer: Arc<Backend>,
}

impl Target for Behind<'_> {
    fn kind(&self) -> TargetKind {
        TargetKind::Served
    }

    fn capabilities(&self) -> Capabilities {
        self.served.capabilities()
    }

    fn connect(&self, scribe: ExchangeRecorder) -> BoxFuture<'_, Result<Option<Link>, Error>> {
        self.served.connect(scribe)
    }

    fn restart(&self, scribe: ExchangeRecorder) -> BoxFuture<'_, Result<(), Error>> {
        self.served.restart(scribe)
    }

    fn credential(&self, kind: Credential, user: &str, form: Form) -> Presented {
        self.issuer.credential(kind, user, form)
    }

    fn service(&self) -> Service {
        Service { kind: TargetKind::Served, ..self.issuer.service() }
    }

    fn residue(&self) -> Option<Leftovers> {
        // Asking flushes the server's reports up to now; but the residue is not the case's, because the server serves
        // other cases too.
        let _ = self.served.residue();
        None
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

/// Why a case cannot run on a real server; `None` when it can.
fn why_not(case: &Case) -> Option<String> {
    if let Some((_, reason)) = NOT_ALIKE.iter().find(|(name, _)| case.name == *name) {
        return Some((*reason).to_owned());
    }
    if !is_on_the_twin(Revision::from(&case.twin)) {
        return Some("the reference app does not have its defect".to_owned());
    }
    let other = |fault: &&Fault| !matches!(fault.kind.place(), Place::Edge | Place::Dependency);
    if let Some(fault) = case.faults.iter().find(other) {
        return Some(format!("`{fault}` acts where no fault can reach a real server"));
    }
    let passing = |fault: &&Fault| fault.kind.calls().is_some() && state(fault).is_none();
    if let Some(fault) = case.faults.iter().find(passing) {
        return Some(format!("`{fault}` comes and goes, and the reference app is told of its dependencies once"));
    }
    let waits =
        |step: &&Step| matches!(step.act, Action::Pause | Action::Deafen | Action::Freeze) && step.limit > PAUSE_MAX;
    if let Some(step) = case.steps.iter().find(waits) {
        return Some(format!("it waits for {} s", step.limit.as_secs()));
    }
    let is_ticket = |step: &Step| match &step.act {
        Action::Open(request) | Action::Request(request) => request.places.contains(&CredentialPlace::Ticket),
        _ => false,
    };
    case.steps.iter().any(is_ticket).then(|| "its ticket is not put into the reference app".to_owned())
}

/// The state of a dependency for a fault that is there from the start and stays.
fn state(fault: &Fault) -> Option<String> {
    let FaultKind::Call { calls, fault: what } = &fault.kind else { return None };
    if !fault.trigger.is_steady() || fault.trigger.until.is_some() {
        return None;
    }
    let operation = calls.operation.as_ref().map(|operation| format!(".{operation}")).unwrap_or_default();
    let state = match what {
        CallFault::Fail { error } => format!("down:{error}"),
        CallFault::Delay { delay } => format!("slow:{}", delay.0.as_millis()),
        CallFault::Hang {} => "hanging".to_owned(),
        CallFault::Garbage { .. } | CallFault::Half {} => return None,
    };
    Some(format!("{}{operation}={state}", calls.dependency))
}

/// Steps, said to the one service that is meant for a case.
fn to_service(
    mut steps: Vec<Step>,
    case: &Case,
    number: usize,
    revision: Revision,
    environment: Environment,
) -> Vec<Step> {
    let defects: Vec<&str> = revision.defects().map(|defect| defect.name()).collect();
    let dependencies: Vec<String> = case.faults.iter().filter_map(state).collect();
    let named = serde_json::json!({
        "NUMBER": number.to_string(),
        "ENVIRONMENT": environment.name(),
        "DEFECTS": defects.join(","),
        "DEPENDENCIES": dependencies.join(";"),
    });
    for step in &mut steps {
        if let Action::Open(request) | Action::Request(request) = &mut step.act {
            request.headers.push(field("X-Twin", named.to_string()));
        }
    }
    steps
}

/// The variables that all services of a server have in common.
fn variables() -> Vec<(String, String)> {
    let mut variables = Backend::variables(Environment::Development, SECRET);
    variables.remove("ENVIRONMENT");
    variables.insert("JWT_SECRET_KEY".to_owned(), SECRET.to_owned());
    variables.insert("EPOCH".to_owned(), EPOCH.to_owned());
    variables.insert("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned());
    variables.into_iter().collect()
}

/// An interpreter with a server and the reference app.
fn installation(server: &str, like: &str, face: &str) -> PythonInstallation {
    let python = interpreter_with(&format!("fixtures/requirements/twin/{like}.txt"));
    let site = site(&python, &apps(), &format!("twin.many:{face}"));
    let site = relapse_python::process::Site { environment: variables(), ..site };
    PythonInstallation { site, server: server.parse().unwrap(), flags: Vec::new(), start_limit: START_LIMIT }
}

fn catalogue() -> Vec<Arc<Case>> {
    Catalogue::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases"), KNOWN).unwrap().cases
}

/// Ending, class and cause of every connection. The order of many clients is not fixed.
fn seen(case: &Case, outcomes: &[Outcome]) -> Vec<String> {
    let mut seen: Vec<String> = outcomes.iter().map(Outcome::to_string).collect();
    if case.crowd != Concurrency::ONE {
        seen.sort();
    }
    seen
}

#[rstest]
#[case(SERVERS[0], "starlette")]
#[case(SERVERS[1], "fastapi")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_twin_ends_as_the_backend_behind_a_profile(#[case] like: &str, #[case] face: &str) {
    let profile = profile(like);
    let installation = installation(&profile.choice, like, face);
    let runner = BackendRunner::default();
    let mut runs = Vec::new();
    for case in catalogue().iter().filter(|case| why_not(case).is_none()) {
        for trial in Trial::of(std::slice::from_ref(case), &[Arc::clone(&profile)], None) {
            for revision in [Revision::from(&case.twin), Revision::repaired()] {
                let played = runner.run(&trial, revision, SEED).unwrap();
                let run = Run { trial: trial.clone(), revision, patience: patience(&played.transcript) };
                runs.push((run, seen(case, &played.outcomes)));
            }
        }
    }
    let different: Vec<String> = Runtime::new(Clock::Real).block_on(async {
        let (server, _) = PythonServer::start(installation).await.unwrap();
        let served = Served::new(server, &ServiceFile::default(), String::new());
        let runs = stream::iter(runs.into_iter().enumerate().map(|(number, (run, played))| {
            let served = &served;
            async move {
                let real = on_server(served, &run, number).await;
                let Run { trial, revision, .. } = run;
                let label = format!("{} [{}] {revision}", trial.case.name, trial.environment);
                (real != played).then(|| format!("{label}\n  real   {real:?}\n  played {played:?}\n"))
            }
        }));
        let different = runs.buffer_unordered(CASES_AT_A_TIME).filter_map(|difference| async { difference });
        let different = different.collect().await;
        served.stop().await.unwrap();
        different
    });
    assert!(different.is_empty(), "{}", different.concat());
}

/// A case on one of its versions.
struct Run {
    trial: Trial,
    revision: Revision,
    patience: Patience,
}

/// How long a real server may take for what a profile gives at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// Everything that the client waits for comes, however slow the machine is.
    Long,
    /// The client waits in vain for something, as long as its step says.
    AsWritten,
}

/// The patience with a real server that is to do what was played.
fn patience(played: &Transcript) -> Patience {
    let waits_in_vain = played.events.iter().any(|event| matches!(event.what, EventKind::DeadlinePassed { .. }));
    if waits_in_vain { Patience::AsWritten } else { Patience::Long }
}

/// A step that gives up as late as the patience lets it. A pause is as long as it is.
fn patient(step: Step, patience: Patience) -> Step {
    match (patience, &step.act) {
        (Patience::AsWritten, _) | (_, Action::Pause | Action::Deafen | Action::Freeze) => step,
        (Patience::Long, _) => Step { limit: PATIENCE, ..step },
    }
}

async fn on_server(served: &Served, run: &Run, number: usize) -> Vec<String> {
    let Run { trial, revision, patience } = run;
    let variables: Variables = Backend::variables(trial.environment, SECRET);
    let settings = Arc::new(BackendSettings::read(&variables, SECRET));
    let issuer = Backend::started(Revision::repaired(), settings, Arc::new(InMemory), SEED);
    let target = Behind { served, issuer };
    let to_service = |steps| to_service(steps, &trial.case, number, *revision, trial.environment);
    let steps = trial.case.steps.iter().cloned().map(|step| patient(step, *patience)).collect();
    // The outcome of the healthy client is not compared, so that it may wait in vain.
    let (steps, control) = (to_service(steps), to_service(runner::control_steps()));
    // A healthy client comes before and beside, as on the built-in backend; but what fails for the case fails for it too.
    let beside = async {
        if trial.case.faults.iter().all(|fault| fault.kind.calls().is_none()) {
            run::converse(&control, Plan::default(), &target).await.unwrap();
        }
    };
    run::converse(&control, Plan::default(), &target).await.unwrap();
    let performed = run::converse_as(trial.case.crowd, &steps, Recorder::new(trial.case.plan(SEED)), &target);
    let (performed, ()) = tokio::join!(performed, beside);
    let transcript = performed.unwrap();
    let outcomes: Vec<Outcome> = classify::readings(&transcript).iter().map(Exchange::outcome).collect();
    seen(&trial.case, &outcomes)
}

/// Changes to the list of omitted cases are reviewed.
#[test]
fn what_is_left_out_behind_real_servers() {
    let mut page = String::new();
    for case in catalogue() {
        if let Some(reason) = why_not(&case) {
            let _ = writeln!(page, "{}: {reason}", case.name);
        }
    }
    check_page("left_out_behind_servers", &page);
}
