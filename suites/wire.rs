//! Real sockets, and independent implementations on the other end of the line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use relapse::{
    case::Case,
    client::{self, Script},
    discover::{Catalogue, servers},
    environment::Environment,
    report::sequence::narrate,
    run,
    target::Target as _,
    trial::Trial,
};
use relapse_backend::{
    revision::Revision,
    runner::KNOWN,
    target::{Embedded, Transport},
};
use relapse_core::{
    client::{
        credential::{Credential, Form},
        step::{Action, Request, Step},
    },
    error::Error,
    plan::Plan,
    record::{
        redact::Redactor,
        transcript::{Actor, BodyEnd, EventKind, Transcript},
    },
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    link::{Link, Listener},
    recorder::{self, Recorder},
};
use rstest::rstest;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{
    Message,
    client::IntoClientRequest,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::support::{Reached, trials_that_differ};

#[test]
fn no_real_socket_lives_under_the_virtual_clock() {
    let runtime = Runtime::new(Clock::Virtual);
    let refused = runtime.block_on(async {
        let address = "127.0.0.1:9".parse().unwrap();
        (Listener::bind(runtime.clock()).await.unwrap_err(), Link::connect(address, runtime.clock()).await.unwrap_err())
    });
    assert!(matches!(refused, (Error::RealSocketUnderVirtualClock, Error::RealSocketUnderVirtualClock)));
}

/// Longer than anything takes that waits for nothing.
const NO_TIME: Duration = Duration::from_millis(200);

/// Longer than any of them takes on sockets.
const LIMIT: Duration = Duration::from_secs(5);

/// The actions of each actor in each exchange, as they are shown, without the times.
type Ledgers = BTreeMap<(usize, Actor), Vec<String>>;

fn ledgers(transcript: &Transcript) -> Ledgers {
    let redactor = Redactor::of(transcript);
    let mut ledgers = Ledgers::new();
    for event in &transcript.events {
        if let Some(text) = narrate(event, &transcript.faults, &redactor) {
            ledgers.entry((event.exchange, event.party)).or_default().push(without_time(&text));
        }
    }
    ledgers
}

/// A line without what is left of time in it: how long to stay away, and how long an answer is that tells an uptime.
fn without_time(line: &str) -> String {
    let marks = ["; retry-after: ", "response.body ", " bytes announced"];
    let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) else { return line.to_owned() };
    // The length stands before the mark; of the status before it nothing is to be lost.
    let from = if *mark == marks[2] { line.find(", ").unwrap_or(0) } else { line.find(mark).unwrap_or(0) };
    let (kept, timed) = line.split_at(from);
    format!("{kept}{}", timed.replace(|character: char| character.is_ascii_digit(), ""))
}

fn perform(trial: &Trial, revision: Revision, clock: Clock) -> Transcript {
    let (case, profile) = (&trial.case, Arc::clone(&trial.profile));
    Runtime::new(clock).block_on(async {
        let _logs = recorder::capture_logs();
        let transport = match clock {
            Clock::Virtual => Transport::Memory,
            Clock::Real => Transport::Tcp(Listener::bind(clock).await.unwrap()),
        };
        let target = Embedded::launch(revision, trial.environment, profile, transport, 1);
        let performed = run::converse_as(case.crowd, &case.steps, Recorder::new(case.plan(1)), &target);
        // A run that leaves residue is watched for minutes; that is for the virtual clock alone.
        let transcript = timeout(LIMIT, performed).await.map_or_else(|_| Transcript::default(), Result::unwrap);
        target.stop().await.unwrap();
        transcript
    })
}

/// Every case that waits for nothing does the same over TCP as in memory, actor by actor, behind each server where it claims
/// something of its own.
#[test]
fn cases_are_alike_in_memory_and_on_sockets() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
    let cases = Catalogue::read(&directory, KNOWN).unwrap().cases;
    let on_process = |case: &Case| case.faults.iter().any(|fault| fault.kind.acts_on_process());
    // A time that a fault or a step names is waited for; who is one of a crowd is a matter of chance on sockets.
    let waits = |case: &Case| {
        case.steps.iter().any(|step| matches!(step.act, Action::Pause | Action::Freeze))
            || case.faults.iter().any(|fault| !fault.trigger.from.is_zero() || fault.trigger.until.is_some())
    };
    let (mut compared, mut differences) = (0, BTreeSet::new());
    for trial in trials_that_differ(&cases) {
        if on_process(&trial.case) || waits(&trial.case) || trial.case.crowd.clients() > 1 {
            continue;
        }
        for revision in [Revision::from(&trial.case.twin), Revision::repaired()] {
            let memory = perform(&trial, revision, Clock::Virtual);
            if memory.events.last().is_none_or(|event| event.at > NO_TIME) {
                continue;
            }
            let sockets = perform(&trial, revision, Clock::Real);
            let name = format!("{} behind {} at {revision}", trial.case.name, trial.profile.name);
            let (memory, sockets) = (ledgers(&memory), ledgers(&sockets));
            for key in memory.keys().chain(sockets.keys()).filter(|key| memory.get(key) != sockets.get(key)) {
                differences.insert(format!(
                    "{name}: {key:?}: {:#?} instead of {:#?}",
                    sockets.get(key),
                    memory.get(key)
                ));
            }
            compared += 1;
        }
    }
    assert!(differences.is_empty(), "{} differences: {differences:#?}", differences.len());
    assert!(compared >= 100, "{compared} runs were compared");
}

/// The `tokio-tungstenite` client opens a session on the built-in backend and closes it.
#[test]
fn an_independent_client_speaks_with_the_front() {
    let runtime = Runtime::new(Clock::Virtual);
    runtime.block_on(async {
        for profile in servers().unwrap() {
            let target = Embedded::launch(Revision::repaired(), Environment::Staging, profile, Transport::Memory, 1);
            let token = target.credential(Credential::Valid, "user-1", Form::Token).text;
            let link = target.connect(Recorder::new(Plan::default()).scribe(0)).await.unwrap().unwrap();
            let request = format!("ws://relapse.test/ws?token={token}").into_client_request().unwrap();
            let (mut socket, response) = tokio_tungstenite::client_async(request, link).await.unwrap();
            assert_eq!(response.status(), 101);
            let welcome = socket.next().await.unwrap().unwrap().into_text().unwrap();
            assert!(welcome.contains("connection_established"), "{welcome}");
            socket.send(Message::text(r#"{"type":"ping"}"#)).await.unwrap();
            assert!(socket.next().await.unwrap().unwrap().into_text().unwrap().contains("pong"));
            let goodbye = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
            socket.close(Some(goodbye)).await.unwrap();
            let answer = socket.next().await.unwrap().unwrap();
            assert!(matches!(answer, Message::Close(Some(frame)) if frame.code == CloseCode::Normal));
        }
    });
}

/// The client reads the answers of an independent HTTP server over TCP.
#[rstest]
#[case::with_a_length(wiremock::ResponseTemplate::new(503).insert_header("Retry-After", "10").set_body_string("later"), "later", BodyEnd::Complete)]
#[case::empty(wiremock::ResponseTemplate::new(204), "", BodyEnd::None)]
fn the_probe_reads_an_independent_server(
    #[case] template: wiremock::ResponseTemplate,
    #[case] expected: &str,
    #[case] expected_end: BodyEnd,
) {
    let runtime = Runtime::new(Clock::Real);
    runtime.block_on(async {
        let server = wiremock::MockServer::start().await;
        wiremock::Mock::given(wiremock::matchers::path("/health")).respond_with(template).mount(&server).await;
        let recorder = Recorder::new(Plan::default());
        let steps = [Step::new(Action::Request(Request::standard("GET", "/health")), Duration::from_secs(20))];
        let address = *server.address();
        let remote = Reached::new(move |_| Box::pin(Link::connect(address, Clock::Real)));
        client::perform(Script::of_one(&steps), &recorder, &remote).await.unwrap();
        let seen = recorder.transcript().events.into_iter().find_map(|event| match event.what {
            EventKind::BodySeen { body, end } => Some((body, end)),
            _ => None,
        });
        let seen = seen.map(|(body, end)| (body.to_vec(), end));
        assert_eq!(seen, Some((expected.as_bytes().to_vec(), expected_end)));
    });
}

/// The raw reader against bytes that a server should not send.
#[rstest]
#[case::cut_by_the_end("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", Some(("half", BodyEnd::Truncated)))]
#[case::chunked("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Some(("abc", BodyEnd::Complete)))]
#[case::without_its_last_chunk("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", Some(("abc", BodyEnd::Truncated)))]
#[case::until_the_end("HTTP/1.1 200 OK\r\n\r\nall of it", Some(("all of it", BodyEnd::Complete)))]
#[case::no_http("SSH-2.0-OpenSSH\r\n", None)]
#[case::nothing("", None)]
fn a_body_is_read_against_what_its_head_announced(
    #[case] answer: &'static str,
    #[case] expected: Option<(&str, BodyEnd)>,
) {
    let runtime = Runtime::new(Clock::Virtual);
    let transcript = runtime.block_on(async {
        let recorder = Recorder::new(Plan::default());
        let steps = [Step::new(Action::Request(Request::standard("GET", "/")), Duration::from_secs(5))];
        let canned = Reached::new(move |_| {
            Box::pin(async move {
                let (client, mut server) = Link::pair();
                server.write_all(answer.as_bytes()).await.unwrap();
                Ok(client)
            })
        });
        client::perform(Script::of_one(&steps), &recorder, &canned).await.unwrap();
        recorder.transcript()
    });
    let seen = transcript.events.iter().find_map(|event| match &event.what {
        EventKind::BodySeen { body, end } => Some((std::str::from_utf8(body).unwrap(), *end)),
        _ => None,
    });
    assert_eq!(seen, expected);
    let ended = |what: &EventKind| matches!(what, EventKind::EndSeen | EventKind::BadHeadSeen { .. });
    assert_eq!(transcript.events.iter().any(|event| ended(&event.what)), expected.is_none());
}
