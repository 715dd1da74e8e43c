//! Behavior that must not pass as good: targets that misbehave in ways no case of the catalogue does.

use std::sync::Arc;
use std::time::Duration;

use relapse::{
    client::{self, Script},
    environment::Environment,
    run,
};
use relapse_backend::{
    defect::Defect,
    dependency::{Dependencies as _, Dependency, InMemory},
    revision::Revision,
    target::{Embedded, Transport},
};
use relapse_core::{
    asgi::{
        event::{Inbound, Outbound},
        exception::Exception,
    },
    client::step::{Action, Awaited, Request, Step},
    fault::{CallFault, Calls, Fault, FaultKind, Trigger},
    judge::{
        classify::{self, Exchange},
        outcome::Class,
    },
    plan::Plan,
    record::{
        service::Names,
        transcript::{BodyEnd, EventKind, Transcript},
    },
    wire::{
        close_code::CloseCode,
        frame::{Frame, FrameError, Opcode},
        head::{RequestHead, header},
    },
};
use relapse_simulate::{
    application::Application,
    clock::{Clock, Runtime},
    link::Link,
    recorder::Recorder,
    server,
};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::support::{Ends, Reached, Scripted, converse, on_backend, profile};

fn step(act: Action) -> Step {
    Step::new(act, Duration::from_secs(4))
}

fn open() -> Step {
    step(Action::Open(Request::standard("GET", "/ws")))
}

fn wait(name: &str) -> Step {
    step(Action::Wait(Awaited::Message(name.to_owned())))
}

fn accept() -> Outbound {
    Outbound::WebsocketAccept { subprotocol: None, headers: Vec::new() }
}

fn reading(transcript: &Transcript) -> Exchange<'_> {
    Exchange::of(transcript, 0)
}

/// An application that accepts, sends these messages, and then does what `rest` says.
fn session(messages: &'static [&'static str], rest: Rest, steps: &[Step]) -> Transcript {
    let application = Scripted::new(move |_, mut ends: Ends| async move {
        ends.receive().await?;
        ends.send(accept()).await?;
        for message in messages {
            ends.send(Outbound::text(*message)).await?;
        }
        match rest {
            Rest::Closes(code, reason) => {
                ends.send(Outbound::WebsocketClose { code, reason: reason.to_owned() }).await?;
            }
            Rest::Raises => return Err(Exception::runtime_error("boom")),
            Rest::Listens => {}
        }
        while !matches!(ends.receive().await?, Inbound::WebsocketDisconnect { .. }) {}
        Ok(())
    });
    converse(application, &profile("hypercorn-0.18"), steps)
}

#[derive(Clone, Copy)]
enum Rest {
    Closes(u16, &'static str),
    Raises,
    Listens,
}

const WELCOME: &str = r#"{"type":"connection_established","data":{"user_id":"user-1..."}}"#;

/// A close of the server's own that crosses the client's is not an answer to it.
#[rstest]
#[case::chosen(Rest::Closes(1011, "boom"))]
#[case::crashed(Rest::Raises)]
fn a_1011_that_crosses_the_clients_close_is_still_a_1011(#[case] rest: Rest) {
    let transcript = session(&[WELCOME], rest, &[open(), step(Action::Close(CloseCode::NORMAL))]);
    let outcome = reading(&transcript).outcome();
    assert_eq!(outcome.ending.to_string(), "close 1011");
    assert!(!outcome.class.is_good(), "{outcome}");
}

#[test]
fn unrequested_events_are_found() {
    let event = r#"{"type":"agent_completed","user_id":"somebody-else"}"#;
    let transcript: Transcript = session(&[], Rest::Listens, &[open()]);
    let control = relapse_core::judge::verdict::HealthyClient::Tried(reading(&transcript).outcome());
    let findings = |messages: &'static [&'static str]| {
        let transcript = session(messages, Rest::Listens, &[open(), wait("agent_completed")]);
        let evidence = relapse_core::judge::check::RunView::gather(&transcript, &control);
        relapse_core::judge::check::findings(&evidence).into_iter().map(|finding| finding.check).collect::<Vec<_>>()
    };
    assert!(findings(Box::leak(Box::new([WELCOME, event]))).contains(&"five_events_in_order"));
}

/// A target's answers to a request that has nothing wrong with it.
#[rstest]
#[case(400, Class::DisguisedError)]
#[case(401, Class::DisguisedError)]
#[case(403, Class::DisguisedError)]
#[case(404, Class::DisguisedError)]
#[case(426, Class::DisguisedError)]
#[case(500, Class::ServerError)]
#[case(503, Class::ServerError)]
fn a_faultless_request_is_not_refused(#[case] status: u16, #[case] expected: Class) {
    let mut transcript = answered_transcript(status);
    transcript.service.websocket_paths = Names::Compiled(&["/ws"]);
    assert_eq!(reading(&transcript).outcome().class, expected);
}

/// An upgrade with a valid credential on the built-in backend, its answer replaced by this status.
fn answered_transcript(status: u16) -> Transcript {
    let runtime = Runtime::new(Clock::Virtual);
    let mut transcript = runtime.block_on(async {
        let profile = profile("uvicorn-0.35");
        let target = Embedded::launch(Revision::repaired(), Environment::Staging, profile, Transport::Memory, 1);
        run::converse(&[open()], Plan::default(), &target).await.unwrap()
    });
    let mut answered = false;
    transcript.events.retain_mut(|event| {
        let keep = !answered;
        if let EventKind::ResponseSeen(head) = &mut event.what {
            head.status = status;
            answered = true;
        }
        keep
    });
    let mut last = transcript.events.last().unwrap().clone();
    last.what = EventKind::BodySeen { body: bytes::Bytes::new(), end: BodyEnd::Complete };
    transcript.events.push(last);
    transcript
}

#[rstest]
#[case::its_own_name(r#"{"type":"connection_established","data":{"user_id":"user-1..."}}"#, true)]
#[case::in_full(r#"{"type":"connection_established","data":{"user_id":"user-1"}}"#, true)]
#[case::a_shorter_name(r#"{"type":"connection_established","data":{"user_id":"user..."}}"#, false)]
#[case::a_longer_name(r#"{"type":"connection_established","data":{"user_id":"user-10..."}}"#, false)]
#[case::no_user(r#"{"type":"connection_established","data":{}}"#, false)]
fn a_welcome_is_for_one_user(#[case] welcome: &str, #[case] own: bool) {
    let mut transcript = answered_transcript(101);
    let mut event = transcript.events.pop().unwrap();
    event.what = EventKind::FrameSeen(Frame::new(Opcode::Text, welcome.to_owned()));
    transcript.events.push(event);
    assert_eq!(reading(&transcript).is_welcomed_as_itself(), own);
    assert_eq!(reading(&transcript).outcome().class == Class::WronglyAdmitted, !own);
}

/// A server that shakes hands and then writes these frames.
fn frames(frames: Vec<Frame>, steps: &[Step]) -> Transcript {
    Runtime::new(Clock::Virtual).block_on(async {
        let server = Reached::new(move |_| {
            let frames = frames.clone();
            Box::pin(async move {
                let (client, mut server) = Link::pair();
                tokio::spawn(async move {
                    let mut request = vec![0; 4096];
                    let length = server.read(&mut request).await.unwrap();
                    let (head, _) = RequestHead::decode(&request[..length]).unwrap().unwrap();
                    let key = header(&head.headers, "sec-websocket-key").unwrap();
                    let mut bytes = format!(
                        "HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {}\r\n\r\n",
                        derive_accept_key(key)
                    )
                    .into_bytes();
                    frames.iter().for_each(|frame| frame.encode(&mut bytes));
                    server.write_all(&bytes).await.unwrap();
                    while server.read(&mut request).await.is_ok_and(|count| count > 0) {}
                });
                Ok(client)
            })
        });
        let recorder = Recorder::new(Plan::default());
        client::perform(Script::of_one(steps), &recorder, &server).await.unwrap();
        recorder.transcript()
    })
}

fn piece(opcode: Opcode, payload: &'static str, is_final: bool) -> Frame {
    Frame { is_final, ..Frame::new(opcode, payload) }
}

#[test]
fn a_fragmented_message_is_one_message() {
    let pieces = vec![
        piece(Opcode::Text, r#"{"type":"connection_"#, false),
        piece(Opcode::Ping, "", true),
        piece(Opcode::Continuation, r#"established"}"#, true),
    ];
    let transcript = frames(pieces, &[open(), wait("connection_established")]);
    assert_eq!(reading(&transcript).messages, ["connection_established"]);
    assert!(
        !transcript
            .events
            .iter()
            .any(|event| matches!(event.what, EventKind::DeadlinePassed { .. }) && event.at < Duration::from_secs(5))
    );
}

/// Frames that no client may take (RFC 6455 section 5).
#[rstest]
#[case::masked(Frame::new(Opcode::Text, "x").masked([1, 2, 3, 4]), FrameError::Masked)]
#[case::reserved_bit(Frame { reserved_bits: 4, ..Frame::new(Opcode::Text, "x") }, FrameError::Reserved)]
#[case::reserved_opcode(Frame::new(Opcode::Reserved(3), "x"), FrameError::Header)]
#[case::long_ping(Frame::new(Opcode::Ping, vec![b'x'; 126]), FrameError::Control)]
#[case::fragmented_ping(piece(Opcode::Ping, "x", false), FrameError::Control)]
#[case::lone_continuation(piece(Opcode::Continuation, "x", true), FrameError::Fragment)]
#[case::bad_utf8(Frame::new(Opcode::Text, vec![0xff]), FrameError::Utf8)]
#[case::close_of_one_byte(Frame::new(Opcode::Close, vec![3]), FrameError::CloseCode)]
#[case::close_1005(Frame::close(Some(CloseCode::NO_STATUS), ""), FrameError::CloseCode)]
#[case::close_reason_of_200_bytes(Frame::close(Some(CloseCode::NORMAL), &"r".repeat(200)), FrameError::Control)]
fn a_frame_that_breaks_the_protocol_ends_the_connection(#[case] frame: Frame, #[case] error: FrameError) {
    let transcript = frames(vec![frame], &[open(), wait("anything")]);
    assert!(transcript.events.iter().any(|event| event.what == EventKind::BadFrameSeen(error)), "{transcript:#?}");
    assert_eq!(reading(&transcript).outcome().class, Class::Dropped);
}

/// A client's own breach is answered by the server, never echoed.
#[rstest]
#[case::reserved_code(Frame::close(Some(CloseCode::NO_STATUS), ""), "close 1002")]
#[case::reason_of_no_utf8(Frame::new(Opcode::Close, [&[3, 232][..], &[0xff; 123]].concat()), "close 1007")]
#[case::one_byte(Frame::new(Opcode::Close, vec![3]), "close 1002")]
#[case::unmasked(Frame::new(Opcode::Text, "x"), "close 1002")]
fn a_broken_frame_of_the_client_is_refused(#[case] frame: Frame, #[case] expected: &str) {
    let answer = Runtime::new(Clock::Virtual).block_on(async {
        let (mut client, server) = Link::pair();
        let application = Scripted::new(|_, mut ends: Ends| async move {
            ends.receive().await?;
            ends.send(accept()).await?;
            while !matches!(ends.receive().await?, Inbound::WebsocketDisconnect { .. }) {}
            Ok(())
        });
        let scribe = Recorder::new(Plan::default()).scribe(0);
        tokio::spawn(server::serve(server, application, profile("uvicorn-0.35"), scribe, None));
        let mut bytes = b"GET / HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".to_vec();
        let frame = if expected == "close 1002" && frame.opcode == Opcode::Text { frame } else { frame.masked([1, 2, 3, 4]) };
        frame.encode(&mut bytes);
        client.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        answer
    });
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    let mut rest = bytes::BytesMut::from(&answer[head..]);
    let frame = Frame::decode(&mut rest, 1 << 20).unwrap().unwrap();
    assert_eq!(format!("close {}", frame.close_code().unwrap()), expected);
    assert!(frame.verify().is_ok());
}

/// A body that is not what its head announced.
#[rstest]
#[case::surplus("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdef", BodyEnd::Surplus)]
#[case::two_lengths("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 6\r\n\r\nabc", BodyEnd::Malformed)]
#[case::no_number("HTTP/1.1 200 OK\r\ncontent-length: three\r\n\r\nabc", BodyEnd::Malformed)]
#[case::no_chunk("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", BodyEnd::Malformed)]
#[case::no_line_after_a_chunk(
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    BodyEnd::Malformed
)]
#[case::interim_answers_are_skipped(
    "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
    BodyEnd::Complete
)]
fn a_body_is_not_taken_for_whole(#[case] answer: &'static str, #[case] expected: BodyEnd) {
    let transcript = Runtime::new(Clock::Virtual).block_on(async {
        let server = Reached::new(move |_| {
            Box::pin(async move {
                let (client, mut server) = Link::pair();
                server.write_all(answer.as_bytes()).await.unwrap();
                Ok(client)
            })
        });
        let recorder = Recorder::new(Plan::default());
        let request = step(Action::Request(Request::standard("GET", "/")));
        client::perform(Script::of_one(&[request]), &recorder, &server).await.unwrap();
        recorder.transcript()
    });
    let end = transcript.events.iter().find_map(|event| match event.what {
        EventKind::BodySeen { end, .. } => Some(end),
        _ => None,
    });
    assert_eq!(end, Some(expected));
    let class = classify::readings(&transcript)[0].outcome().class;
    assert_eq!(class.is_good(), expected == BodyEnd::Complete, "{class}");
}

#[test]
fn a_streamed_answer_arrives_whole() {
    let application = Scripted::new(|_, mut ends: Ends| async move {
        ends.send(Outbound::ResponseStart { status: 200, headers: Vec::new() }).await?;
        ends.send(Outbound::ResponseBody { body: vec![b'x'; 200_000], more_body: true }).await?;
        ends.send(Outbound::ResponseBody { body: b"tail".to_vec(), more_body: false }).await
    });
    let request = step(Action::Request(Request::standard("GET", "/")));
    let transcript = converse(application, &profile("uvicorn-0.35"), &[request]);
    let body = transcript.events.iter().find_map(|event| match &event.what {
        EventKind::BodySeen { body, end: BodyEnd::Complete } => Some(body.len()),
        _ => None,
    });
    assert_eq!(body, Some(200_004));
}

#[test]
fn a_client_that_leaves_a_peer_that_does_not_read_has_its_limit() {
    let server = Reached::new(|_| {
        Box::pin(async {
            let (client, server) = Link::pair();
            tokio::spawn(async move {
                let _held = server;
                std::future::pending::<()>().await;
            });
            Ok(client)
        })
    });
    let took = Runtime::new(Clock::Virtual).block_on(async {
        let start = tokio::time::Instant::now();
        let mut request = Request::standard("GET", "/");
        request.query = vec![b'x'; 200_000];
        client::perform(Script::of_one(&[step(Action::Open(request))]), &Recorder::new(Plan::default()), &server)
            .await
            .unwrap();
        start.elapsed()
    });
    assert!(took < Duration::from_secs(10), "{took:?}");
}

fn findings(transcript: &Transcript) -> Vec<&'static str> {
    let control = relapse_core::judge::verdict::HealthyClient::Tried(reading(transcript).outcome());
    let evidence = relapse_core::judge::check::RunView::gather(transcript, &control);
    relapse_core::judge::check::findings(&evidence).into_iter().map(|finding| finding.check).collect()
}

/// A temporary refusal says when to come back, in seconds.
#[rstest]
#[case(None, Class::DisguisedError, true)]
#[case(Some("30"), Class::RefusedRequest, false)]
#[case(Some("soon"), Class::RefusedRequest, true)]
fn a_429_says_when_to_come_back(#[case] retry_after: Option<&str>, #[case] class: Class, #[case] is_found: bool) {
    let mut transcript = answered_transcript(429);
    for event in &mut transcript.events {
        if let EventKind::ResponseSeen(head) = &mut event.what {
            let field = retry_after.map(|value| (b"retry-after"[..].into(), value.to_owned().into()));
            head.headers.retain(|(name, _)| name != "retry-after");
            head.headers.extend(field);
        }
    }
    assert_eq!(reading(&transcript).outcome().class, class);
    assert_eq!(findings(&transcript).contains(&"retry_after_present"), is_found);
}

/// A close that speaks of a size means something only where something was too big.
#[test]
fn a_1009_needs_a_message_that_is_too_big() {
    let transcript = session(&[], Rest::Closes(1009, "too big"), &[open(), step(Action::Wait(Awaited::Close))]);
    assert_eq!(reading(&transcript).outcome().class, Class::DisguisedError);
}

/// A run that breaks off is a finding as long as nothing behind the service failed.
#[test]
fn a_partial_run_is_no_run() {
    let messages = Box::leak(Box::new([WELCOME, r#"{"type":"agent_started","user_id":""}"#]));
    let ask = step(Action::SendText(r#"{"type":"chat"}"#.to_owned()));
    // A client that leaves at once is owed nothing; this client waits.
    let pause = Step::new(Action::Pause, Duration::from_secs(6));
    let transcript = session(messages, Rest::Listens, &[open(), ask, wait("agent_started"), pause]);
    assert!(findings(&transcript).contains(&"five_events_in_order"));
}

/// Giving up on a service that has no excuse is a hang; on one that starts, it is none. A client that waits long enough gets
/// the answer of a service that is not ready.
#[rstest]
#[case::no_excuse(200, 0, "left (hang; clean)")]
#[case::quick_start(200, 300, "left (refused-unavailable; clean)")]
#[case::slow_start(200, 8000, "left (refused-unavailable; clean)")]
#[case::answered(6000, 8000, "http 503 (refused-unavailable; app-decision)")]
fn giving_up_is_judged_by_the_wait(#[case] give_up_ms: u64, #[case] delay_ms: u64, #[case] expected: &str) {
    let request = Request { give_up: Some(Duration::from_millis(give_up_ms)), ..Request::standard("GET", "/ws") };
    let steps = [step(Action::Open(request))];
    let transcript = if delay_ms == 0 {
        let application = Scripted::new(|_, _: Ends| std::future::pending());
        converse(application, &profile("uvicorn-0.35"), &steps)
    } else {
        let calls = Calls { dependency: "auth_service".to_owned(), operation: None };
        let delay =
            FaultKind::Call { calls, fault: CallFault::Delay { delay: Duration::from_millis(delay_ms).into() } };
        let fault = Fault { kind: delay, trigger: Trigger::default() };
        let defect = Revision::only(Defect::UpgradesWaitInLine);
        on_backend(defect, Environment::Staging, "uvicorn-0.35", vec![fault], &steps)
    };
    assert_eq!(reading(&transcript).outcome().to_string(), expected);
}

/// A slow dependency excuses a wait of at most 5 s.
#[rstest]
#[case::short(200, "left (refused-unavailable; clean)")]
#[case::at_the_limit(5000, "left (refused-unavailable; clean)")]
#[case::over_the_limit(5001, "left (hang; clean)")]
fn giving_up_on_a_slow_dependency_is_judged_by_the_wait(#[case] give_up_ms: u64, #[case] expected: &str) {
    let application: Arc<dyn Application> = Scripted::new(|_, _: Ends| async {
        InMemory.call(Dependency::Database, "lookup").await.unwrap();
        std::future::pending().await
    });
    let calls = Calls { dependency: "database".to_owned(), operation: None };
    let delay = FaultKind::Call { calls, fault: CallFault::Delay { delay: Duration::from_secs(8).into() } };
    let plan = Plan { seed: 1, faults: vec![delay.into()] };
    let request = Request { give_up: Some(Duration::from_millis(give_up_ms)), ..Request::standard("GET", "/ws") };
    let transcript = Runtime::new(Clock::Virtual).block_on(async {
        let target = Reached::of(&application, &profile("uvicorn-0.35"));
        run::converse(&[step(Action::Open(request))], plan, &target).await.unwrap()
    });
    assert_eq!(reading(&transcript).outcome().to_string(), expected);
}
