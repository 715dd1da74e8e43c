//! Whatever upgrade request a client may write: the repaired revision gives a good class, the same seed gives the same
//! transcript, and an edge that changes nothing changes nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::support;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use relapse::{
    case::Case,
    discover::{Catalogue, servers},
    environment::Environment,
    report::sequence::{self, SequenceDetail},
    run,
    target::Target,
    trial::Trial,
};
use relapse_backend::{
    revision::Revision,
    runner::{self, BackendRunner, KNOWN},
    target::{Embedded, Transport},
};
use relapse_core::{
    client::{
        credential::{Credential, CredentialPlace},
        step::{Action, Awaited, ClientStrictness, Request, Step},
    },
    fault::{Fault, FaultKind, HeadEdit, Trigger},
    judge::{
        check::{self, RunView},
        classify,
        outcome::{Class, Outcome},
        verdict::{HealthyClient, RunResult},
    },
    plan::Plan,
    record::transcript::{EventKind, Transcript},
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    profile::{Profile, Reception, RefusalAnswer},
    recorder,
};

fn credentials() -> impl Strategy<Value = Credential> {
    prop_oneof![1 => Just(Credential::Valid), 4 => prop::sample::select(Credential::ALL.to_vec())]
}

fn places() -> impl Strategy<Value = Vec<CredentialPlace>> {
    let all = vec![
        CredentialPlace::Header,
        CredentialPlace::Subprotocol,
        CredentialPlace::SubprotocolAlone,
        CredentialPlace::Query,
    ];
    prop::sample::subsequence(all, 1..=2)
}

fn paths() -> impl Strategy<Value = Vec<u8>> {
    let routes =
        ["/ws", "/api/v1/websocket", "/websocket", "/ws/test", "/ws/health", "/health", "/", "/api/ws", "//ws"];
    prop_oneof![
        6 => prop::sample::select(routes.to_vec()).prop_map(|path| path.as_bytes().to_vec()),
        1 => "/[a-zA-Z0-9%._~/-]{0,40}".prop_map(String::into_bytes),
    ]
}

/// Headers that a client may add or rewrite. None announces a body: no body is sent, and a server would wait for it.
fn headers() -> impl Strategy<Value = Vec<(Bytes, Bytes)>> {
    let names = prop_oneof![
        3 => prop::sample::select(vec!["Origin", "User-Agent", "Cookie", "X-Forwarded-For", "X-E2E-Bypass", "Host", "Connection", "Upgrade", "Sec-WebSocket-Version", "Sec-WebSocket-Key", "Sec-WebSocket-Extensions"]).prop_map(str::to_owned),
        1 => "[A-Za-z][A-Za-z0-9-]{0,20}",
    ];
    let values = prop_oneof![
        2 => "[ -~]{0,40}".prop_map(|text| text.trim().to_owned().into_bytes()),
        1 => prop::collection::vec(prop_oneof![0x21_u8..0x7f, 0x80_u8..=0xff], 0..20),
    ];
    prop::collection::vec((names, values), 0..3)
        .prop_map(|headers| headers.into_iter().map(|(name, value)| (Bytes::from(name), Bytes::from(value))).collect())
}

fn requests() -> impl Strategy<Value = Request> {
    let standard = ["host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version"];
    (
        prop_oneof![9 => Just("GET"), 1 => prop::sample::select(vec!["POST", "HEAD", "OPTIONS", "BREW"])],
        paths(),
        prop_oneof![2 => Just(String::new()), 1 => "[a-z=&%0-9+.;]{0,60}"],
        credentials(),
        places(),
        prop::collection::vec(prop::sample::select(vec!["jwt-auth", "bearer", "chat.v7", "graphql-ws"]), 0..3),
        headers(),
        prop_oneof![3 => Just(Vec::new()), 1 => prop::sample::subsequence(standard.to_vec(), 1..=2)],
    )
        .prop_map(|(method, path, query, credential, places, offers, headers, without)| Request {
            path,
            query: query.into_bytes(),
            credential,
            places,
            offers: offers.into_iter().map(str::to_owned).collect(),
            headers,
            without: without.into_iter().map(str::to_owned).collect(),
            // A browser's reaction to an unselected subprotocol is the client's choice, not the service's answer.
            client: ClientStrictness::Library,
            ..Request::standard(method, "/")
        })
}

fn steps(request: Request) -> Vec<Step> {
    let step = |act| Step::new(act, Duration::from_secs(5));
    vec![
        step(Action::Open(request)),
        step(Action::Wait(Awaited::Message("connection_established".to_owned()))),
        step(Action::SendText(r#"{"type":"chat","content":"hello"}"#.to_owned())),
        step(Action::Wait(Awaited::Message("agent_response_complete".to_owned()))),
    ]
}

/// Runs steps on the repaired revision.
fn transcript(runtime: &Runtime, profile: &Arc<Profile>, steps: &[Step], plan: Plan) -> Transcript {
    runtime.block_on(async {
        let target = Embedded::launch(
            Revision::repaired(),
            Environment::Production,
            Arc::clone(profile),
            Transport::Memory,
            plan.seed,
        );
        let transcript = run::converse(steps, plan, &target).await.unwrap();
        target.stop().await.unwrap();
        transcript
    })
}

/// The class that a request must get whose every part is known to be right, or wrong in its credential alone.
fn expected(request: &Request) -> Option<Class> {
    let known = [&b"/ws"[..], b"/api/v1/websocket", b"/websocket", b"/ws/test"].contains(&request.path.as_slice());
    let standard = request.method == "GET" && request.headers.is_empty() && request.without.is_empty();
    let offers_known =
        request.offers.is_empty() || request.offers.iter().any(|name| name == "jwt-auth" || name == "bearer");
    if !known || !standard || request.query.windows(6).any(|part| part == b"token=") {
        return None;
    }
    match request.credential {
        Credential::Valid if offers_known => Some(Class::Served),
        // A token among the offers is an offer the service knows.
        Credential::Valid => None,
        // Some servers do not take so long a head.
        Credential::OverLong => None,
        _ => Some(Class::RefusedAuth),
    }
}

fn good_control() -> Outcome {
    let runtime = Runtime::new(Clock::Virtual);
    let transcript = transcript(&runtime, &servers().unwrap()[0], &runner::control_steps(), Plan::default());
    classify::readings(&transcript)[0].outcome()
}

fn shown(transcript: &Transcript) -> String {
    sequence::lines(transcript, SequenceDetail::Full).into_iter().map(|line| line.text + "\n").collect()
}

fn runner() -> TestRunner {
    // An input that fails once becomes a case of its own; seeds of a generator do not survive its next change.
    TestRunner::new(ProptestConfig { max_shrink_iters: 2000, ..support::property_config() })
}

#[test]
fn any_upgrade_request_gets_a_good_answer_on_the_repaired_revision() {
    let _logs = recorder::capture_logs();
    let runtime = Runtime::new(Clock::Virtual);
    let control = good_control();
    assert_eq!(control.class, Class::Served);
    let servers = servers().unwrap();
    let mut opened = 0;
    let mut refused = 0;
    let seen = std::cell::RefCell::new((&mut opened, &mut refused));
    runner()
        .run(&(requests(), any::<u64>(), 0..servers.len()), |(request, seed, server)| {
            let plan = Plan { seed, faults: Vec::new() };
            let asked = request.clone();
            let transcript = transcript(&runtime, &servers[server], &steps(request), plan);
            let RunResult { outcome, findings, transcript, .. } = relapse::verdict_rules::judge(
                transcript,
                relapse_core::judge::verdict::HealthyClient::Tried(control.clone()),
            );
            // The service cannot answer a request that never reaches it.
            if asked.method != "GET" && servers[server].handshake.post == Reception::Refused(RefusalAnswer::Hang) {
                prop_assert_eq!(outcome.class, Class::Hang);
                return Ok(());
            }
            prop_assert!(
                outcome.class.is_good(),
                "{}: {outcome}, seed {seed}\n{}",
                servers[server].name,
                shown(&transcript)
            );
            if let Some(expected) = expected(&asked) {
                prop_assert_eq!(
                    outcome.class,
                    expected,
                    "{}, seed {}\n{}",
                    servers[server].name,
                    seed,
                    shown(&transcript)
                );
            }
            prop_assert!(
                findings.is_empty(),
                "{}: {findings:#?}, seed {seed}\n{}",
                servers[server].name,
                shown(&transcript)
            );
            let mut seen = seen.borrow_mut();
            if outcome.class == Class::Served {
                *seen.0 += 1
            } else {
                *seen.1 += 1
            }
            Ok(())
        })
        .unwrap();
    assert!(opened > 10 && refused > 10, "both sides of the line were seen: {opened} opened, {refused} refused");
}

#[test]
fn the_same_seed_gives_the_same_transcript() {
    let _logs = recorder::capture_logs();
    let profile = &servers().unwrap()[0];
    runner()
        .run(&(requests(), any::<u64>()), |(request, seed)| {
            // Each time on a runtime of its own, so that nothing can be left over from the first.
            let run = || {
                let plan = Plan { seed, faults: Vec::new() };
                format!("{:?}", transcript(&Runtime::new(Clock::Virtual), profile, &steps(request.clone()), plan))
            };
            prop_assert_eq!(run(), run());
            Ok(())
        })
        .unwrap();
}

#[test]
fn another_seed_gives_other_keys_and_masks() {
    let profile = &servers().unwrap()[0];
    let run = |seed| {
        let plan = Plan { seed, faults: Vec::new() };
        transcript(&Runtime::new(Clock::Virtual), profile, &runner::control_steps(), plan)
    };
    assert_ne!(run(1), run(2));
}

#[test]
fn an_edge_that_changes_nothing_is_not_seen() {
    let _logs = recorder::capture_logs();
    let profile = &servers().unwrap()[0];
    let pass = Fault { kind: FaultKind::Head(HeadEdit::Pass {}), trigger: Trigger::default() };
    runner()
        .run(&(requests(), any::<u64>()), |(request, seed)| {
            let run = |faults: Vec<Fault>| {
                let runtime = Runtime::new(Clock::Virtual);
                let transcript = transcript(&runtime, profile, &steps(request.clone()), Plan { seed, faults });
                let fired = transcript.fired.clone();
                let own = |what: &EventKind| !matches!(what, EventKind::FaultFired { .. });
                let events: Vec<_> = transcript.events.into_iter().filter(|event| own(&event.what)).collect();
                (by_party(events), fired)
            };
            let (without, _) = run(Vec::new());
            let (with, fired) = run(vec![pass.clone()]);
            prop_assert_eq!(with, without);
            prop_assert_eq!(fired, vec![1]);
            Ok(())
        })
        .unwrap();
}

/// Each actor's events in their order. Between actors the order on one tick is the scheduler's, and one more task
/// on the way may change it.
fn by_party(mut events: Vec<relapse_core::record::transcript::Event>) -> Vec<String> {
    events.sort_by_key(|event| event.party);
    events.iter().map(|event| format!("{event:?}")).collect()
}

/// The first trial of each case, on the defective revision and on each repair that is none: the transcript, and how the
/// healthy client fared.
fn runs() -> Vec<(Transcript, HealthyClient)> {
    let cases = Catalogue::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases"), KNOWN).unwrap().cases;
    let (runner, servers) = (BackendRunner::default(), servers().unwrap());
    let run = |trial: &Trial, revision| {
        let judged = runner.run(trial, revision, 1).unwrap();
        (judged.transcript, judged.control)
    };
    let runs = cases.iter().flat_map(|case| {
        let trial = Trial::of(std::slice::from_ref(case), &servers, None).swap_remove(0);
        let versions = std::iter::once(&case.twin).chain(case.shams.iter().map(|sham| &sham.defects));
        versions.map(|defects| run(&trial, Revision::from(defects))).collect::<Vec<_>>()
    });
    runs.collect()
}

/// Each check that a case is found by complains of some whole transcript. One that lacks events, or ends early, makes no check panic, and gives the
/// same findings whenever it is looked at.
#[test]
fn every_check_can_look_at_any_transcript() {
    let found =
        |(transcript, control): &(Transcript, HealthyClient)| check::findings(&RunView::gather(transcript, control));
    assert_eq!(found(&(Transcript::default(), HealthyClient::Absent)), Vec::new());
    let runs = runs();
    let complaining: BTreeSet<&str> = runs.iter().flat_map(&found).map(|finding| finding.check).collect();
    let silent: Vec<String> =
        support::checks_of_cases().into_iter().filter(|name| !complaining.contains(&**name)).collect();
    assert!(silent.is_empty(), "{silent:?} complain of nothing");
    let pieces = (prop::sample::select(runs), any::<prop::sample::Index>(), prop::collection::vec(0_u8..8, 1..200));
    TestRunner::new(support::property_config())
        .run(&pieces, |((transcript, control), end, kept)| {
            let end = end.index(transcript.events.len() + 1);
            let events = transcript.events.iter().take(end).zip(kept.iter().cycle()).filter(|(_, kept)| **kept > 0);
            let events = events.map(|(event, _)| event.clone()).collect();
            let piece = (Transcript { events, ..transcript }, control);
            prop_assert_eq!(found(&piece), found(&piece.clone()));
            Ok(())
        })
        .unwrap();
}

/// A written case reads as the same case again.
#[test]
fn a_case_survives_its_file() {
    let cases = Catalogue::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases"), KNOWN).unwrap().cases;
    let directory = tempfile::tempdir().unwrap();
    for case in cases {
        let path = directory.path().join("case.toml");
        std::fs::write(&path, case.print()).unwrap();
        let mut catalogue = Catalogue::knowing(KNOWN);
        catalogue.add(&path).unwrap();
        assert!(catalogue.broken.is_empty(), "{}: {:?}\n{}", case.name, catalogue.broken, case.print());
        let again = Case { name: case.name.clone(), ..Case::clone(&catalogue.cases[0]) };
        assert_eq!(again, *case, "{}", case.print());
    }
}
