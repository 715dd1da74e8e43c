//! Real sockets, and independent implementations on the other end of the line.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use relapse::{
    Case, Catalogue, Environment, Error, Plan, Revision,
    clock::{Clock, Runtime},
    credential::{Credential, Form},
    link::{Link, Listener},
    probe::{self, Script},
    recorder::Recorder,
    run,
    running::Running as _,
    servers,
    step::{Act, Request, Step},
    target::{Embedded, Transport},
    transcript::{BodyEnd, What},
};
use rstest::rstest;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::{
    Message,
    client::IntoClientRequest,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::support::{Reached, profile};

#[test]
fn no_real_socket_lives_under_the_virtual_clock() {
    let runtime = Runtime::new(Clock::Virtual);
    let refused = runtime.block_on(async {
        let address = "127.0.0.1:9".parse().unwrap();
        (Listener::bind(runtime.clock()).await.unwrap_err(), Link::connect(address, runtime.clock()).await.unwrap_err())
    });
    assert!(matches!(refused, (Error::RealSocketUnderVirtualClock, Error::RealSocketUnderVirtualClock)));
}

fn case(name: &str) -> Arc<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
    Catalogue::read(&directory).unwrap().select(&[name.to_owned()]).remove(0)
}

/// A case gives the same outcome over TCP as in memory.
#[rstest]
#[case("upgrade/s508_01_no_query")]
#[case("auth/s135_1_token_in_query")]
#[case("http/s488_1_health")]
#[case("session/smsg_explicit_answers")]
fn a_case_ends_alike_in_memory_and_on_sockets(#[case] name: &str) {
    let case = case(name);
    let revisions = [case.twin, Revision::repaired()];
    // A silent defect would be waited for in real time.
    let revisions = if name.contains("smsg") { &revisions[1..] } else { &revisions[..] };
    for &revision in revisions {
        let [memory, sockets] = [Clock::Virtual, Clock::Real].map(|clock| {
            let runtime = Runtime::new(clock);
            runtime.block_on(async {
                let transport = match clock {
                    Clock::Virtual => Transport::Memory,
                    Clock::Real => Transport::Tcp(Listener::bind(clock).await.unwrap()),
                };
                let target = Embedded::launch(revision, Environment::Staging, profile("uvicorn-0.35"), transport, 1);
                let transcript = run::converse(&case.steps, case.plan(1), &target).await.unwrap();
                target.stop().await.unwrap();
                let control = relapse::Outcome {
                    class: relapse::Class::GoodOpen,
                    cause: relapse::Cause::Clean,
                    ending: relapse::outcome::Ending::Left,
                    closed_by: relapse::transcript::Party::Probe,
                };
                let judged = run::judge(transcript, control);
                (judged.outcome, judged.findings)
            })
        });
        assert_eq!(memory, sockets, "{name} at {revision}");
    }
}

/// The `tokio-tungstenite` client opens a session on the embedded backend and closes it.
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

/// The probe reads the answers of an independent HTTP server over TCP.
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
        let steps = [Step { act: Act::Request(Request::standard("GET", "/health")), limit: Duration::from_secs(20) }];
        let address = *server.address();
        let remote = Reached::new(move |_| Box::pin(Link::connect(address, Clock::Real)));
        probe::perform(Script::of_one(&steps), &recorder, &remote).await.unwrap();
        let seen = recorder.transcript().events.into_iter().find_map(|event| match event.what {
            What::BodySeen { body, end } => Some((body, end)),
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
        let steps = [Step { act: Act::Request(Request::standard("GET", "/")), limit: Duration::from_secs(5) }];
        let canned = Reached::new(move |_| {
            Box::pin(async move {
                let (client, mut server) = Link::pair();
                server.write_all(answer.as_bytes()).await.unwrap();
                Ok(client)
            })
        });
        probe::perform(Script::of_one(&steps), &recorder, &canned).await.unwrap();
        recorder.transcript()
    });
    let seen = transcript.events.iter().find_map(|event| match &event.what {
        What::BodySeen { body, end } => Some((std::str::from_utf8(body).unwrap(), *end)),
        _ => None,
    });
    assert_eq!(seen, expected);
    let ended = |what: &What| matches!(what, What::EndSeen | What::BadHeadSeen { .. });
    assert_eq!(transcript.events.iter().any(|event| ended(&event.what)), expected.is_none());
}
