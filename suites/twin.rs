//! The built-in backend is held against the real thing: the same service on Starlette and on FastAPI, case by case.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use relapse::{
    case::Case,
    defects::Defects,
    discover::{Catalogue, servers},
    external::{External, Front},
    hunt::{ExternalTarget, GeneratorConfig, Ground, Hunt, complaints_of, draw},
    run::start_and_converse,
    service_file::ServiceFile,
    target::Target as _,
    trial::Trial,
    verdict_rules,
};
use relapse_backend::{
    defect::Defect,
    revision::Revision,
    runner::{BackendRunner, FAULT_NAMES, KNOWN, conduct},
    target::{Embedded, SECRET, Transport},
};
use relapse_core::{
    asgi::event::Outbound,
    judge::verdict::{RunResult, Verdict},
    plan::Plan,
    record::transcript::{Event, EventKind, Transcript},
    wire::message::message_type,
};
use relapse_python::{
    app::Python as PythonTarget,
    process::{Epoch, Site as PythonSite},
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    memory::RunMemory,
    recorder::Recorder,
};
use rstest::rstest;

use crate::{
    python::{apps, site},
    stage::{self, FACES, Stage},
    support::{profile, server_names},
};

const SEED: u64 = 1;

/// The defects that the reference app does not have, and why.
const NOT_ON_THE_TWIN: [(Defect, &str); 2] = [
    (Defect::SyntaxErrorAtBoot, "the f-string is legal since Python 3.12, so that it is a mistake of one interpreter"),
    (Defect::ListensElsewhere, "the server has the port, and the application never learns it"),
];

/// The cases that differ between the two, and the reasons.
const NOT_ALIKE: [(&str, &str); 1] = [(
    "fixtures/capsules/oversize_message_dropped.toml",
    "the client's patience ends at the very moment of a heartbeat, and either of them may come first",
)];

pub(crate) fn is_on_the_twin(revision: Revision) -> bool {
    NOT_ON_THE_TWIN.iter().all(|(defect, _)| !revision.has(*defect))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read_case(path: &Path) -> Arc<Case> {
    let mut catalogue = Catalogue::knowing(KNOWN);
    catalogue.add(path).unwrap();
    catalogue.cases.pop().unwrap_or_else(|| panic!("{:?}", catalogue.broken))
}

/// A case on the reference app.
fn on_twin(stage: &Stage, trial: &Trial, face: &'static str, revision: Revision) -> RunResult {
    let (twin, profile) = (stage.twin(face, revision), Arc::clone(&trial.profile));
    let seed = trial.case.seed.unwrap_or(SEED);
    stage.block_on(async {
        let target = Embedded::running(twin, trial.environment, profile, Transport::Memory, seed);
        let judged = conduct(&trial.case, &target, seed, &RunMemory::default()).await.unwrap();
        target.stop().await.unwrap();
        judged
    })
}

/// The facts that both must share: how every connection and the healthy client ended, the actor that ended it, its class
/// and cause, which checks have a finding, and the application's events with their times.
fn seen(judged: &RunResult) -> String {
    let show = |outcome: &relapse_core::judge::outcome::Outcome| format!("{outcome}, ended by {}\n", outcome.closed_by);
    let outcomes: String = judged.outcomes.iter().map(show).collect();
    let checks: BTreeSet<&str> = judged.findings.iter().map(|finding| finding.check).collect();
    // The order of many exchanges at one moment is not fixed.
    let exchanges = 0..judged.transcript.exchanges();
    let sent: String = exchanges.flat_map(|exchange| judged.transcript.of(exchange).filter_map(sent)).collect();
    format!(
        "{outcomes}found by {checks:?}\nhealthy client: {}{sent}",
        judged.control.outcome().map(show).unwrap_or_default()
    )
}

/// An event that the application sent, without its content.
fn sent(event: &Event) -> Option<String> {
    let EventKind::Sent(sent) = &event.what else { return None };
    let sent = match sent {
        // Behind the first dot stands a token, of which there are no two.
        Outbound::WebsocketAccept { subprotocol, .. } => {
            format!("accept {:?}", subprotocol.as_deref().and_then(|name| name.split('.').next()))
        }
        Outbound::WebsocketSend { text, .. } => {
            let text = text.clone().unwrap_or_default();
            message_type(text.as_bytes()).unwrap_or_default().into_owned()
        }
        Outbound::WebsocketClose { code, reason } => format!("close {code} {reason:?}"),
        Outbound::ResponseStart { status, .. } => format!("status {status}"),
        Outbound::ResponseBody { more_body, .. } => format!("body, more {more_body}"),
        other => format!("{other:?}"),
    };
    Some(format!("{} at {:?}: {sent}\n", event.exchange + 1, event.at))
}

/// Runs a case on the built-in backend and on the reference app, behind all of its servers and in all of its environments,
/// with its defect, without, and with what was claimed to be a repair. Behind its first server both faces of the reference
/// app are tried, behind each other one of them: what a server plays does not depend on the framework.
fn check_case(path: &Path) {
    let case = read_case(path);
    if !is_on_the_twin(Revision::from(&case.twin)) || NOT_ALIKE.iter().any(|(name, _)| path.ends_with(name)) {
        return;
    }
    let python = stage::python();
    Stage::with(python, |stage| {
        let runner = BackendRunner::default();
        let trials = Trial::of(&[case], &servers().unwrap(), None);
        let mut behind: Vec<&str> = trials.iter().map(|trial| trial.profile.name.as_str()).collect();
        behind.dedup();
        for trial in &trials {
            let place = behind.iter().position(|name| *name == trial.profile.name).unwrap();
            let faces = if place == 0 { &FACES[..] } else { &FACES[place % FACES.len()..][..1] };
            let revisions: Vec<Revision> = [Revision::from(&trial.case.twin), Revision::repaired()]
                .into_iter()
                .chain(trial.case.shams.iter().map(|sham| Revision::from(&sham.defects)))
                .collect();
            let expected: Vec<String> =
                revisions.iter().map(|&revision| seen(&runner.run(trial, revision, SEED).unwrap())).collect();
            for &face in faces {
                let label = format!("{} [{}, {}] on {face}", trial.case.name, trial.profile.name, trial.environment);
                let judged: Vec<RunResult> =
                    revisions.iter().map(|&revision| on_twin(stage, trial, face, revision)).collect();
                for ((revision, judged), expected) in revisions.iter().zip(&judged).zip(&expected) {
                    assert_eq!(
                        seen(judged),
                        *expected,
                        "{label}, {revision}: the reference app, then the built-in backend"
                    );
                }
                check_verdict(trial, &label, judged);
            }
        }
    });
}

/// The case's demands hold for the twin: the stated reason in its log too.
fn check_verdict(trial: &Trial, label: &str, mut judged: Vec<RunResult>) {
    let (case, profile) = (&trial.case, &trial.profile.name);
    let shams = judged.split_off(2);
    let (before, after) = (&judged[0], &judged[1]);
    verdict_rules::compare(case, profile, before, after)
        .unwrap_or_else(|(verdict, why)| panic!("{label}: {verdict}: {why}"));
    let verdict = |sham: &RunResult| {
        verdict_rules::compare(case, profile, before, sham).map_or_else(|(verdict, _)| verdict, |()| Verdict::Fixed)
    };
    let shams: Vec<_> = shams.into_iter().map(|sham| (verdict(&sham), sham)).collect();
    verdict_rules::see_through(case, profile, &shams)
        .unwrap_or_else(|(verdict, why)| panic!("{label}: {verdict}: {why}"));
}

#[rstest]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_backend_does_as_the_frameworks_do(#[files("fixtures/cases/**/*.toml")] path: PathBuf) {
    check_case(&path);
}

/// Findings of hunts hold too.
#[rstest]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_was_found_is_found_on_the_frameworks(#[files("fixtures/capsules/*.toml")] path: PathBuf) {
    check_case(&path);
}

/// The first draw without a hint that shows a defect of the built-in backend shows it on the frameworks too: with the
/// same seeds a hunt finds all of them there, in as many cases.
#[rstest]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_hunt_finds_the_defects_of_the_frameworks(#[files("fixtures/capsules/*.toml")] path: PathBuf) {
    let case = read_case(&path);
    if !is_on_the_twin(Revision::from(&case.twin)) {
        return;
    }
    let python = stage::python();
    let (servers, seed) = (servers().unwrap(), case.seed.unwrap());
    let drawn = draw(seed, &GeneratorConfig::everything(server_names(), FAULT_NAMES));
    let plan = Plan { seed, faults: drawn.faults.clone() };
    let profile = servers.iter().find(|profile| profile.name == drawn.server).unwrap();
    // The checks that have a finding; texts and places differ between frameworks.
    let complains = |transcript: &Transcript| {
        let keys = complaints_of(transcript).into_iter().map(|(key, _)| key);
        keys.map(|key| key.rule.to_string()).collect::<BTreeSet<_>>()
    };
    let runner = BackendRunner::default();
    let played = runner
        .converse(Revision::from(&case.twin), drawn.environment, profile, drawn.crowd, &drawn.steps(), plan.clone())
        .unwrap();
    let expected = complains(&played);
    assert!(!expected.is_empty(), "{} is not found by the hunt that its reproducer is from", path.display());
    Stage::with(python, |stage| {
        for (face, revision) in
            FACES.iter().flat_map(|face| [(face, Revision::from(&case.twin)), (face, Revision::repaired())])
        {
            let twin = stage.twin(face, revision);
            let played = stage.block_on(async {
                let target = Embedded::running(twin, drawn.environment, Arc::clone(profile), Transport::Memory, seed);
                let recorder = Recorder::new(plan.clone());
                let played = start_and_converse(drawn.crowd, &drawn.steps(), recorder, &target).await.unwrap();
                target.stop().await.unwrap();
                played
            });
            let expected = if Defects::from(revision) == case.twin { expected.clone() } else { BTreeSet::new() };
            assert_eq!(complains(&played), expected, "{}, {revision} on {face}", path.display());
        }
    });
}

/// Every defect has one site in the reference app, or a reason why not.
#[test]
fn the_twin_has_the_defects_of_the_backend() {
    let mut code = String::new();
    for entry in std::fs::read_dir(root().join("fixtures/apps/twin")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "py") {
            code.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    for defect in Defect::ALL {
        let name = defect.name();
        let sites = code.matches(&format!("has(Defect.{})", name.to_uppercase())).count();
        let is_named = code.contains(&format!("{} = \"{name}\"", name.to_uppercase()));
        let expected = usize::from(is_on_the_twin(Revision::only(*defect)));
        assert_eq!((sites, usize::from(is_named)), (expected, expected), "{name}");
    }
    // Every exception is one.
    assert!(NOT_ALIKE.iter().all(|(path, reason)| root().join(path).is_file() && !reason.is_empty()));
}

/// The same seed twice gives the same, byte for byte, in the same interpreter and in another.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn runs_are_repeatable() {
    let python = stage::python();
    let servers = servers().unwrap();
    for name in ["outage/s135_4_parallel_upgrades", "session/siso_interleaved_runs", "process/s517_3_import_failure"] {
        let case = read_case(&root().join(format!("fixtures/cases/{name}.toml")));
        let trial = &Trial::of(&[case], &servers, None)[0];
        for face in FACES {
            let once = |stage: &Stage| {
                format!("{:?}", on_twin(stage, trial, face, Revision::from(&trial.case.twin)).transcript)
            };
            let (first, second) = Stage::with(python, |stage| (once(stage), once(stage)));
            assert!(first == second, "{name} on {face}");
            let other = once(&Stage::start(python));
            assert!(first == other, "{name} on {face}, in another interpreter");
        }
    }
}

/// As an engineer does: a hunt with no hint finds what was reported, and on the reference app in order nothing.
#[rstest]
#[case::in_order("starlette", "", "")]
#[case::in_order_too("fastapi", "", "")]
#[case("starlette", "query_params_on_url", "'URL' object has no attribute 'query_params'")]
#[case("fastapi", "enum_in_log_record", "Object of type WebSocketState is not JSON serializable")]
#[case("starlette", "receive_before_accept", "Need to call \"accept\" first")]
#[case("fastapi", "session_inside_auth_context", "SessionMiddleware must be installed")]
#[case("starlette", "relaxed_authentication", "opened_only_with_credential")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_hunt_finds_what_was_reported(#[case] face: &str, #[case] defect: &str, #[case] expected: &str) {
    let python = stage::python();
    let capsules = tempfile::tempdir().unwrap();
    let mut relapse = crate::support::relapse_command();
    relapse.current_dir(root()).env("JWT_SECRET_KEY", SECRET).env("ENVIRONMENT", "staging").env("LLM_API_KEY", "none");
    // A defect is drawn soon; that nothing is found takes more.
    let cases = if defect.is_empty() { "200" } else { "60" };
    relapse.args(["hunt", "--cases", cases, "--dir", "fixtures/apps", "--service-file", "fixtures/apps/twin.toml"]);
    relapse.args(["--env", &format!("DEFECTS={defect}"), "--env", "E2E_OAUTH_SIMULATION_KEY=none"]);
    relapse.args(["--env", "PYTHONDONTWRITEBYTECODE=1", "--target", &format!("asgi:twin.{face}_app:app")]);
    let output = relapse.arg("--python").arg(python).arg("--reproducers").arg(capsules.path()).output().unwrap();
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(i32::from(!defect.is_empty())), "{told}");
    assert!(told.contains(expected), "{told}");
}

/// From which seed on a hunt from outside draws what shows each defect, on which of the two faces it is tried.
const SEEN_FROM_OUTSIDE: [(Defect, &str, u64); 35] = [
    (Defect::QueryParamsOnUrl, "starlette", 1),
    (Defect::PreflightOnPlainGet, "starlette", 5),
    (Defect::AuthAfterAccept, "starlette", 4),
    (Defect::JwtAuthAlwaysSelected, "starlette", 3),
    (Defect::NoSubprotocolSelected, "starlette", 1),
    (Defect::MessageCallArity, "starlette", 1),
    (Defect::ReceiveBeforeAccept, "starlette", 1),
    (Defect::ReceiveAfterOwnClose, "fastapi", 1400),
    (Defect::LoopGoesOn, "starlette", 1),
    (Defect::OversizeMessageDropped, "starlette", 73),
    (Defect::UnboundNameInFallback, "starlette", 1),
    (Defect::LegacyWithoutAuth, "starlette", 3649),
    (Defect::RelaxedAuthentication, "starlette", 4),
    (Defect::RefusalLacksAttribute, "starlette", 4),
    (Defect::HeaderNameBypass, "starlette", 144),
    (Defect::QueryStringOnWebsocket, "starlette", 4),
    (Defect::EnumInLogRecord, "fastapi", 1),
    (Defect::UnboundStateRegistry, "starlette", 1),
    (Defect::SessionInsideAuthContext, "starlette", 5),
    (Defect::DemoModeOnDict, "starlette", 107),
    (Defect::ImportInFactory, "starlette", 1),
    (Defect::MetricsLackAttribute, "starlette", 20),
    (Defect::BreakerCountsClients, "starlette", 4),
    (Defect::DemoByDefault, "starlette", 4),
    (Defect::UserCacheWithoutIdentity, "fastapi", 4),
    (Defect::LimitsKeyedByPort, "starlette", 64),
    (Defect::ManagersLeak, "starlette", 19),
    (Defect::FactoryUnknownParameter, "starlette", 68),
    (Defect::IsolatedScopeArguments, "starlette", 80),
    (Defect::IsolatedRefusalTooLong, "starlette", 10),
    (Defect::FormsNotNegotiable, "starlette", 161),
    (Defect::HandlerIsAFunction, "starlette", 1),
    (Defect::UnknownTypeRaises, "starlette", 125),
    (Defect::HttpScopeRewritten, "fastapi", 483),
    (Defect::AuthExcludesEverything, "starlette", 59),
];

/// The defects that look from outside like a healthy service, and why.
const NOT_SEEN_FROM_OUTSIDE: [(Defect, &str); 26] = [
    (Defect::ScopeKeyRefused, "it shows with a scope that no server makes, which a hunt draws with `--hostile` only"),
    (Defect::RelabellingGuard, "it shows with a scope that no server makes, which a hunt draws with `--hostile` only"),
    (
        Defect::UpgradesWaitInLine,
        "it shows with an event that no server gives, which a hunt draws with `--hostile` only",
    ),
    (
        Defect::UnknownRouteClosed,
        "the frameworks do so of their own accord, so that every application on them would have a finding",
    ),
    (
        Defect::ExceptionAsCloseReason,
        "it is about what becomes of an exception, and a service in order raises none that a client can bring about",
    ),
    (
        Defect::ExceptionSwallowed,
        "it is about what becomes of an exception, and a service in order raises none that a client can bring about",
    ),
    (
        Defect::StatusRemapped,
        "the statuses that it changes are those for what is down; a client brings about those only that it leaves alone",
    ),
    (Defect::NameErrorAtImport, "it shows where a package is not installed that the reference app's requirements name"),
    (Defect::StartupGivesUp, "it shows when something behind the service fails, which no client can bring about"),
    (Defect::ListensWhenStarted, "it shows while a process starts, and a hunt comes when that is over"),
    (Defect::QueuedBeforeStartup, "it shows while a process starts, and a hunt comes when that is over"),
    (
        Defect::SecretReadPerRequest,
        "it shows in a process that lacks a variable, and a hunt leaves the variables alone",
    ),
    (Defect::RandomSecret, "it shows in a process that lacks a variable, and a hunt leaves the variables alone"),
    (
        Defect::RegistryWithoutModel,
        "it shows in a process that lacks a variable, and a hunt leaves the variables alone",
    ),
    (
        Defect::EnvironmentRulesDisagree,
        "it shows when something behind the service fails, which no client can bring about",
    ),
    (Defect::ReadinessFailOpen, "it shows when something behind the service fails, which no client can bring about"),
    (Defect::StagingReadyOverride, "it shows when something behind the service fails, which no client can bring about"),
    (Defect::HealthConstant, "it shows when something behind the service fails, which no client can bring about"),
    (Defect::ComponentCloseCodes, "it shows when something behind the service fails, which no client can bring about"),
    (Defect::ConnectionMaintained, "it shows when something behind the service fails, which no client can bring about"),
    (
        Defect::RedisPropertyCalled,
        "what is not critical is said to be degraded, and a client cannot know that it is not",
    ),
    (
        Defect::SharedRunContext,
        "runs of two users meet where one of them has to wait, and what is asked answers at once",
    ),
    (Defect::SharedThread, "runs of two users meet where one of them has to wait, and what is asked answers at once"),
    (
        Defect::GuardRunsTwice,
        "it is about what becomes of an exception, and a service in order raises none that a client can bring about",
    ),
    (
        Defect::ExceptionClosedNormally,
        "it is about what becomes of an exception, and a service in order raises none that a client can bring about",
    ),
    (Defect::FixedErrorLength, "it answers a scope that no server may make"),
];

/// How many cases a hunt from outside is given, from that seed on.
const CASES_FROM_OUTSIDE: u64 = 64;

/// A hunt from outside on a face of the reference app: its routes, and what its service file says.
fn from_outside(python: &Path, face: &str, defect: Option<Defect>) -> Hunt {
    let variables = [
        ("JWT_SECRET_KEY", SECRET),
        ("ENVIRONMENT", "staging"),
        ("LLM_API_KEY", "none"),
        ("E2E_OAUTH_SIMULATION_KEY", "none"),
        ("DEFECTS", defect.map_or("", Defect::name)),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ];
    let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    // The tokens are of this day.
    let site = PythonSite { environment, epoch: Epoch::Now, ..site(python, &apps(), &format!("twin.{face}_app:app")) };
    let mut tokens = Command::new(python);
    tokens.current_dir(apps()).args(["-m", "twin.tokens", "user-1"]).envs(variables);
    let token = String::from_utf8(tokens.output().unwrap().stdout).unwrap().trim().to_owned();
    let binding = std::fs::read_to_string(apps().join("twin.toml")).unwrap();
    let binding = ServiceFile::parse("twin.toml", &binding).unwrap();
    let runtime = Runtime::new(Clock::Virtual);
    let launched = PythonTarget::launch(site, &binding, token, profile("uvicorn-0.35"), 1);
    let (target, introduction) = runtime.block_on(launched).unwrap();
    let front = Front::Profile("uvicorn-0.35".to_owned());
    let server = External { routes: introduction.routes, ..External::new(target, front) };
    let foreign = ExternalTarget::new(server, binding, runtime);
    foreign.greet(1).unwrap();
    Hunt { legal_only: true, ..Hunt::on(Ground::External(Arc::new(foreign)), servers().unwrap(), CASES_FROM_OUTSIDE) }
}

/// The first finding of a hunt from outside, for a defect that it can see.
#[rstest]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_hunt_from_outside_finds_the_defects(#[values(0, 1, 2, 3)] quarter: usize) {
    let python = stage::python();
    for (defect, face, seed) in SEEN_FROM_OUTSIDE.into_iter().skip(quarter).step_by(4) {
        let hunt = Hunt { seed, ..from_outside(python, face, Some(defect)) };
        let complaints = hunt.first_complaints().unwrap();
        assert!(complaints.is_some(), "{} on {face}, from seed {seed} on", defect.name());
    }
}

/// With the same seeds it finds nothing on the reference app in order.
#[rstest]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_hunt_from_outside_finds_nothing_on_the_twin_in_order(#[values("starlette", "fastapi")] face: &str) {
    let python = stage::python();
    let hunt = from_outside(python, face, None);
    for (_, _, seed) in SEEN_FROM_OUTSIDE {
        let campaign = Hunt { seed, cases: 1, ..hunt.clone() }.run().unwrap();
        let found: Vec<_> = campaign.found.iter().map(|found| (found.seed, &found.key, &found.message)).collect();
        assert_eq!(found, [], "on {face}");
    }
}

/// A hunt from outside sees every defect of the reference app, or there is a reason why not.
#[test]
fn every_defect_is_seen_from_outside_or_has_a_reason() {
    let seen = SEEN_FROM_OUTSIDE.iter().map(|(defect, ..)| *defect);
    let unseen = NOT_SEEN_FROM_OUTSIDE.iter().chain(&NOT_ON_THE_TWIN).map(|(defect, _)| *defect);
    let mut named: Vec<Defect> = seen.chain(unseen).collect();
    named.sort_unstable();
    assert_eq!(named, Defect::ALL);
    assert!(NOT_SEEN_FROM_OUTSIDE.iter().all(|(_, reason)| !reason.is_empty()));
}
