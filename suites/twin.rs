//! The embedded backend is held against the real thing: the same service on Starlette and on FastAPI, case by case.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use relapse::{
    Case, Catalogue, Conductor, Defect, Judged, Place, Plan, Revision, Trial, Verdict,
    event::Outbound,
    hunt::{Aim, complaints_of, draw},
    message::message_type,
    run::{compare, conduct, holds, reproduces, see_through, start_and_converse},
    running::Running as _,
    servers,
    target::{Embedded, SECRET, Transport},
    transcript::{Event, Transcript, What},
};
use rstest::rstest;

use crate::stage::{self, FACES, Stage};

const SEED: u64 = 1;

/// The defects that the twin does not have, and why.
const NOT_ON_THE_TWIN: [(Defect, &str); 2] = [
    (Defect::SyntaxErrorAtBoot, "the f-string is legal since Python 3.12, so that it is a mistake of one interpreter"),
    (Defect::ListensElsewhere, "the server has the port, and the application never learns it"),
];

/// What is not alike on both, and why.
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
    let mut catalogue = Catalogue::default();
    catalogue.add(path).unwrap();
    catalogue.cases.pop().unwrap_or_else(|| panic!("{:?}", catalogue.broken))
}

/// A case on the twin.
fn on_twin(stage: &Stage, trial: &Trial, face: &'static str, revision: Revision) -> Judged {
    let (twin, profile) = (stage.twin(face, revision), Arc::clone(&trial.profile));
    let seed = trial.case.seed.unwrap_or(SEED);
    stage.block_on(async {
        let target = Embedded::running(twin, trial.environment, profile, Transport::Memory, seed);
        let judged = conduct(&trial.case, &target, seed).await.unwrap();
        target.stop().await.unwrap();
        judged
    })
}

/// What both have to have in common: how every connection and the valid client ended, who ended it, what that is and what
/// brought it about, which checks complain, and what the application sent, and when.
fn seen(judged: &Judged) -> String {
    let show = |outcome: &relapse::Outcome| format!("{outcome}, ended by {}\n", outcome.closed_by);
    let outcomes: String = judged.outcomes.iter().map(show).collect();
    let checks: BTreeSet<&str> = judged.findings.iter().map(|finding| finding.check).collect();
    // Which of many exchanges goes on first at one moment is nobody's to say.
    let exchanges = 0..judged.transcript.exchanges();
    let sent: String = exchanges.flat_map(|exchange| judged.transcript.of(exchange).filter_map(sent)).collect();
    format!("{outcomes}found by {checks:?}\nvalid client: {}{sent}", show(&judged.control))
}

/// What the application sent, without what is in it.
fn sent(event: &Event) -> Option<String> {
    let What::Sent(sent) = &event.what else { return None };
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

/// Runs a case on the embedded backend and on both faces of the twin, behind all of its servers and in all of its
/// environments, with its defect, without, and with what was claimed to be a repair.
fn check_case(path: &Path) {
    let case = read_case(path);
    if !is_on_the_twin(case.twin) || NOT_ALIKE.iter().any(|(name, _)| path.ends_with(name)) {
        return;
    }
    let Some(python) = stage::python() else { return };
    Stage::with(python, |stage| {
        let conductor = Conductor::default();
        for trial in Trial::of(&[case], &servers().unwrap(), None) {
            let revisions: Vec<Revision> = [trial.case.twin, Revision::repaired()]
                .into_iter()
                .chain(trial.case.shams.iter().map(|sham| sham.revision))
                .collect();
            let expected: Vec<String> =
                revisions.iter().map(|&revision| seen(&conductor.run(&trial, revision, SEED).unwrap())).collect();
            for face in FACES {
                let label = format!("{} [{}, {}] on {face}", trial.case.name, trial.profile.name, trial.environment);
                let judged: Vec<Judged> =
                    revisions.iter().map(|&revision| on_twin(stage, &trial, face, revision)).collect();
                for ((revision, judged), expected) in revisions.iter().zip(&judged).zip(&expected) {
                    assert_eq!(seen(judged), *expected, "{label}, {revision}: the twin, then the embedded backend");
                }
                check_verdict(&trial, &label, judged);
            }
        }
    });
}

/// What the case demands, it demands of the twin: the stated reason in its log too.
fn check_verdict(trial: &Trial, label: &str, mut judged: Vec<Judged>) {
    let (case, profile) = (&trial.case, &trial.profile.name);
    let shams = judged.split_off(2);
    let (before, after) = (&judged[0], &judged[1]);
    reproduces(case, profile, before).unwrap_or_else(|why| panic!("{label}: {why}"));
    holds(case, after).unwrap_or_else(|why| panic!("{label}: {why}"));
    let shams: Vec<_> = shams.into_iter().map(|sham| (compare(case, profile, before, &sham).0, sham)).collect();
    let (verdict, why) = see_through(case, profile, &shams);
    assert_eq!(verdict, Verdict::Fixed, "{label}: {why}");
}

#[rstest]
fn the_backend_does_as_the_frameworks_do(#[files("fixtures/cases/**/*.toml")] path: PathBuf) {
    check_case(&path);
}

/// What hunts found is no less true.
#[rstest]
fn what_was_found_is_found_on_the_frameworks(#[files("fixtures/capsules/*.toml")] path: PathBuf) {
    check_case(&path);
}

/// What a hunt with no hint draws first that shows a defect of the embedded backend shows it on the frameworks too: with
/// the same seeds it finds all of them there, in as many cases.
#[rstest]
fn a_hunt_finds_the_defects_of_the_frameworks(#[files("fixtures/capsules/*.toml")] path: PathBuf) {
    let case = read_case(&path);
    if !is_on_the_twin(case.twin) {
        return;
    }
    let Some(python) = stage::python() else { return };
    let (servers, seed) = (servers().unwrap(), case.seed.unwrap());
    let drawn = draw(seed, &Aim { servers: servers.len(), places: Place::ALL.to_vec(), legal_only: false });
    let plan = Plan { seed, faults: drawn.faults.clone() };
    let profile = &servers[drawn.server];
    // What complains; the words of a framework, and its places, are its own.
    let complains = |transcript: &Transcript| {
        let keys = complaints_of(transcript).into_iter().map(|(key, _)| key);
        keys.map(|key| key.split(": ").next().unwrap_or_default().to_owned()).collect::<BTreeSet<_>>()
    };
    let conductor = Conductor::default();
    let played =
        conductor.converse(case.twin, drawn.environment, profile, drawn.crowd, &drawn.steps(), plan.clone()).unwrap();
    let expected = complains(&played);
    assert!(!expected.is_empty(), "{} is not found by the hunt that its capsule is from", path.display());
    Stage::with(python, |stage| {
        for (face, revision) in FACES.iter().flat_map(|face| [(face, case.twin), (face, Revision::repaired())]) {
            let twin = stage.twin(face, revision);
            let played = stage.block_on(async {
                let target = Embedded::running(twin, drawn.environment, Arc::clone(profile), Transport::Memory, seed);
                let played = start_and_converse(drawn.crowd, &drawn.steps(), plan.clone(), &target).await.unwrap();
                target.stop().await.unwrap();
                played
            });
            let expected = if revision == case.twin { expected.clone() } else { BTreeSet::new() };
            assert_eq!(complains(&played), expected, "{}, {revision} on {face}", path.display());
        }
    });
}

/// Every defect has one site in the twin, or a reason why not.
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
fn runs_are_repeatable() {
    let Some(python) = stage::python() else { return };
    let servers = servers().unwrap();
    for name in ["outage/s135_4_parallel_upgrades", "session/siso_interleaved_runs", "process/s517_3_import_failure"] {
        let case = read_case(&root().join(format!("fixtures/cases/{name}.toml")));
        let trial = &Trial::of(&[case], &servers, None)[0];
        for face in FACES {
            let once = |stage: &Stage| format!("{:?}", on_twin(stage, trial, face, trial.case.twin).transcript);
            let (first, second) = Stage::with(python, |stage| (once(stage), once(stage)));
            assert!(first == second, "{name} on {face}");
            let other = once(&Stage::start(python));
            assert!(first == other, "{name} on {face}, in another interpreter");
        }
    }
}

/// As an engineer does: a hunt with no hint finds what was reported, and on the twin in order nothing.
#[rstest]
#[case::in_order("starlette", "", "")]
#[case::in_order_too("fastapi", "", "")]
#[case("starlette", "query_params_on_url", "'URL' object has no attribute 'query_params'")]
#[case("fastapi", "enum_in_log_record", "Object of type WebSocketState is not JSON serializable")]
#[case("starlette", "receive_before_accept", "Need to call \"accept\" first")]
#[case("fastapi", "session_inside_auth_context", "SessionMiddleware must be installed")]
#[case("starlette", "relaxed_authentication", "opened_only_with_credential")]
fn a_hunt_finds_what_was_reported(#[case] face: &str, #[case] defect: &str, #[case] expected: &str) {
    let Some(python) = stage::python() else { return };
    let capsules = tempfile::tempdir().unwrap();
    let mut relapse = Command::new(env!("CARGO_BIN_EXE_relapse"));
    relapse.current_dir(root()).env("JWT_SECRET_KEY", SECRET).env("ENVIRONMENT", "staging").env("LLM_API_KEY", "none");
    relapse.args(["hunt", "--cases", "200", "--dir", "fixtures/apps", "--binding", "fixtures/apps/twin.toml"]);
    relapse.args(["--env", &format!("DEFECTS={defect}"), "--env", "E2E_OAUTH_SIMULATION_KEY=none"]);
    relapse.args(["--env", "PYTHONDONTWRITEBYTECODE=1", "--target", &format!("asgi:twin.{face}_app:app")]);
    let output = relapse.arg("--python").arg(python).arg("--capsules").arg(capsules.path()).output().unwrap();
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(i32::from(!defect.is_empty())), "{told}");
    assert!(told.contains(expected), "{told}");
}
