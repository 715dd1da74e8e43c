//! Whatever fails behind the repaired service, whenever and for how long: every client gets a good class, no check
//! complains, and nothing is left behind.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use relapse::{
    Cause, Class, Defect, Environment, Fault, Outcome, Revision, Transcript,
    check::{self, Evidence},
    close_code::CloseCode,
    credential::{Credential, CredentialPlace},
    dependency::Dependency,
    fault::{CallFault, Calls, FaultKind, HeadEdit, Trigger},
    outcome::Ending,
    step::{Act, Awaited, Request, Step},
    transcript::Party,
};

use crate::support::{on_backend, property_config};

/// Longer than anything that the service may take, all its attempts together.
const LIMIT: Duration = Duration::from_secs(120);

/// What a client does next.
#[derive(Debug, Clone)]
enum Visit {
    Session {
        credential: Credential,
        place: CredentialPlace,
        path: &'static str,
        says: Vec<&'static str>,
        leaves: bool,
    },
    Plain {
        path: &'static str,
        credential: Credential,
    },
    Pause(u64),
}

fn credentials() -> impl Strategy<Value = Credential> {
    prop_oneof![6 => Just(Credential::Valid), 1 => prop::sample::select(Credential::ALL.to_vec())]
}

fn visits() -> impl Strategy<Value = Vec<Visit>> {
    let paths = ["/ws", "/ws/factory", "/ws/isolated", "/websocket", "/api/v1/websocket"];
    let messages = [
        r#"{"type":"ping"}"#,
        r#"{"type":"chat","content":"hello","thread_id":"t"}"#,
        r#"{"type":"no_such_type"}"#,
        "not json",
        r#"{"jsonrpc":"2.0","method":"m","id":1}"#,
    ];
    let routes = ["/health", "/health/ready", "/ws/health", "/ws/stats", "/api/threads/", "/api/session"];
    let session = (
        credentials(),
        prop::sample::select(CredentialPlace::ALL.to_vec()),
        prop::sample::select(paths.to_vec()),
        prop::collection::vec(prop::sample::select(messages.to_vec()), 0..3),
        any::<bool>(),
    );
    let visit = prop_oneof![
        4 => session.prop_map(|(credential, place, path, says, leaves)| {
            Visit::Session { credential, place, path, says, leaves }
        }),
        2 => (prop::sample::select(routes.to_vec()), credentials())
            .prop_map(|(path, credential)| Visit::Plain { path, credential }),
        2 => (1_u64..40_000).prop_map(Visit::Pause),
    ];
    prop::collection::vec(visit, 1..6)
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let operations: Vec<(&str, Option<&str>)> = Dependency::NAMES
        .iter()
        .flat_map(|(name, operations)| {
            operations.iter().map(|operation| (*name, Some(*operation))).chain([(*name, None)]).collect::<Vec<_>>()
        })
        .collect();
    let calls = prop::sample::select(operations).prop_map(|(dependency, operation)| Calls {
        dependency: dependency.to_owned(),
        operation: operation.map(str::to_owned),
    });
    let dependency =
        (calls, 0_u8..3, prop_oneof![1_u64..1000, 1000_u64..100_000]).prop_map(|(calls, kind, delay)| match kind {
            0 => FaultKind::Call {
                calls,
                fault: CallFault::Fail { error: "connection to 10.0.3.7:5432 refused".to_owned() },
            },
            1 => FaultKind::Call { calls, fault: CallFault::Hang {} },
            _ => FaultKind::Call { calls, fault: CallFault::Delay { delay: Duration::from_millis(delay).into() } },
        });
    let header = || {
        prop::sample::select(vec!["Authorization", "Sec-WebSocket-Protocol", "Host", "X-Nothing"])
            .prop_map(str::to_owned)
    };
    let edit = prop_oneof![
        header().prop_map(|header| HeadEdit::Strip { header: header.into() }),
        header().prop_map(|header| HeadEdit::Capitalize { header: header.into() }),
        Just(HeadEdit::Set { header: "X-Forwarded-For".into(), value: b"203.0.113.7".to_vec().into() }),
    ]
    .prop_map(FaultKind::Head);
    let window = prop_oneof![
        3 => Just((0, None)),
        2 => (0_u64..20_000, 1_u64..40_000).prop_map(|(from, length)| (from, Some(from + length))),
    ];
    let trigger = (prop_oneof![4 => Just(1_u32), 1 => 1_u32..6], prop_oneof![4 => Just(1_u32), 1 => 2_u32..4], window)
        .prop_map(|(nth, every, (from, until))| Trigger {
            nth,
            every,
            times: None,
            from: Duration::from_millis(from),
            until: until.map(Duration::from_millis),
            ..Trigger::default()
        });
    let fault = (prop_oneof![4 => dependency, 1 => edit], trigger).prop_map(|(kind, trigger)| Fault { kind, trigger });
    prop::collection::vec(fault, 0..3)
}

fn steps(visits: &[Visit]) -> Vec<Step> {
    let step = |act| Step { act, limit: LIMIT };
    let mut steps = Vec::new();
    for visit in visits {
        match visit {
            Visit::Session { credential, place, path, says, leaves } => {
                let request = Request {
                    credential: *credential,
                    places: vec![*place],
                    // What was offered may be lost on the way; that is the browser's matter, not the service's.
                    client: relapse::step::Client::Library,
                    ..Request::standard("GET", path)
                };
                steps.push(step(Act::Open(request)));
                steps.push(step(Act::Wait(Awaited::Message("connection_established".to_owned()))));
                for text in says {
                    steps.push(step(Act::SendText((*text).to_owned())));
                    if text.contains("chat") {
                        steps.push(step(Act::Wait(Awaited::Message("agent_response_complete".to_owned()))));
                    }
                }
                steps.push(step(if *leaves { Act::Leave } else { Act::Close(CloseCode::NORMAL) }));
            }
            Visit::Plain { path, credential } => {
                let request = Request { credential: *credential, ..Request::standard("GET", path) };
                steps.push(step(Act::Request(request)));
            }
            Visit::Pause(ms) => steps.push(Step { act: Act::Pause, limit: Duration::from_millis(*ms) }),
        }
    }
    steps
}

/// What is tried: visits and faults, behind which server, in which environment.
type Tried = (Vec<Visit>, Vec<Fault>, usize, usize);

/// Everything wrong with a run: bad classes, and what the checks say.
fn complaints(transcript: &Transcript) -> Vec<String> {
    let control =
        Outcome { class: Class::GoodOpen, cause: Cause::Clean, ending: Ending::Left, closed_by: Party::Probe };
    let evidence = Evidence::gather(transcript, &control);
    let bad = evidence.outcomes.iter().enumerate().filter(|(_, outcome)| !outcome.class.is_good());
    let bad: Vec<String> = bad.map(|(exchange, outcome)| format!("connection {}: {outcome}", exchange + 1)).collect();
    let found = check::findings(&evidence).into_iter().map(|finding| format!("{}: {}", finding.check, finding.message));
    bad.into_iter().chain(found).collect()
}

fn try_all(revision: Revision) -> Result<(), TestError<Tried>> {
    let servers = relapse::servers().unwrap();
    let environments = [Environment::Development, Environment::Testing, Environment::Staging, Environment::Production];
    TestRunner::new(property_config()).run(
        &(visits(), faults(), 0..servers.len(), 0..environments.len()),
        |(visits, faults, server, environment)| {
            let server = servers[server].name.as_str();
            let transcript = on_backend(revision, environments[environment], server, faults, &steps(&visits));
            let complaints = complaints(&transcript);
            prop_assert!(complaints.is_empty(), "behind {server} in {}: {complaints:#?}", environments[environment]);
            Ok(())
        },
    )
}

#[test]
fn whatever_fails_every_client_gets_a_good_answer() {
    if let Err(error) = try_all(Revision::repaired()) {
        panic!("{error}");
    }
}

/// The same, on services with a defect each: what is tried here is able to fail.
#[test]
fn what_is_tried_finds_defects() {
    for defect in [
        Defect::QueryParamsOnUrl,
        Defect::ReadinessFailOpen,
        Defect::ExceptionSwallowed,
        Defect::HealthConstant,
        Defect::RelaxedAuthentication,
        Defect::ManagersLeak,
    ] {
        assert!(try_all(Revision::only(defect)).is_err(), "{} is not found", defect.name());
    }
}
