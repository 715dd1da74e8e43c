//! How servers keep RFC 6455: behind every profile, on sockets, and what every way of not keeping it looks like.
//!
//! The pictures of the five profiles are what the real servers show, conversation by conversation.

use std::process::Output;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use relapse::{
    conform::{FramingSubject, conform},
    deadline::Deadline,
    discover::frame_cases,
    service_file::ServiceFile,
    targets::Url,
    upstream::Upstream,
};
use relapse_backend::runner::conform_embedded;
use relapse_command::report::conformance::render as render_conformance;
use relapse_core::{
    conformance::{
        Behavior, BehaviorEvent, BehaviorReport, BoundSide, Conformance, Expected, FrameCase, Owed, Reply, Saw,
        WrittenPart, judge,
    },
    error::Error,
    judge::verdict::Conclusion,
    wire::{
        close_code::CloseCode,
        frame::{Frame, FrameError, Opcode},
    },
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    link::{Link, Listener, Wire},
};
use rstest::rstest;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{check_page, listed_servers, profile};

fn cases(patterns: &[&str]) -> Vec<Arc<FrameCase>> {
    frame_cases(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn in_memory(server: &str) -> Conformance {
    conform_embedded(&cases(&[]), &profile(server), Clock::Virtual, 1, Deadline::NEVER, || {}).unwrap()
}

#[test]
fn every_case_behind_every_server() {
    let found: Vec<Conformance> = listed_servers().iter().map(|server| in_memory(&server.name)).collect();
    for found in &found {
        assert_eq!(found.trouble, None, "{}", found.server);
        assert!(found.tried.iter().all(|tried| tried.behavior().is_some()), "{}", found.server);
    }
    check_page("conformance", &render_conformance(&found, 150));
}

/// The behaviors of each conversation.
fn behaviors(found: &Conformance) -> Vec<(&str, Vec<Behavior>)> {
    let behaviors =
        |tried: &BehaviorReport| tried.results.iter().map(|result| result.as_ref().unwrap().behavior).collect();
    found.tried.iter().map(|tried| (tried.case.name.as_str(), behaviors(tried))).collect()
}

/// Two servers of different design are enough: sockets are the same for all, and the others are tried in memory.
#[rstest]
#[case("uvicorn-0.54")]
#[case("granian-2.8")]
fn sockets_show_the_same_as_memory(#[case] server: &str) {
    let on_sockets = conform_embedded(&cases(&[]), &profile(server), Clock::Real, 1, Deadline::NEVER, || {}).unwrap();
    assert_eq!(on_sockets.trouble, None);
    assert_eq!(behaviors(&on_sockets), behaviors(&in_memory(server)));
}

/// How a small server takes a ping without a mask, which it must fail the connection for with 1002.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Strict,
    PongsFirst,
    Drops,
    ClosesWith(u16),
    ClosesWithoutCode,
    Pongs,
    Ignores,
    Masks,
}

/// Serves one connection: answers `ask` with an `answer`, and keeps every rule but the one that it is for.
async fn serve(link: Link, manner: Manner) {
    let mut wire = Wire::new(tokio_tungstenite::accept_async(link).await.unwrap().into_inner());
    while !wire.has_ended() {
        let Some(frame) = Frame::decode(&mut wire.incoming, 1 << 20).unwrap() else {
            wire.progress().await;
            continue;
        };
        let pong = Frame::new(Opcode::Pong, frame.payload.clone());
        let close = |code| Frame::close(Some(CloseCode(code)), "");
        let (answers, ends) = match (frame.mask, frame.opcode, manner) {
            (Some(_), Opcode::Text, _) => (vec![Frame::new(Opcode::Text, r#"{"type":"answer"}"#)], false),
            (Some(_), Opcode::Close, _) => (vec![frame.clone()], true),
            (Some(_), Opcode::Ping, _) | (None, _, Manner::Pongs) => (vec![pong], false),
            (None, _, Manner::Strict) => (vec![close(1002)], true),
            (None, _, Manner::PongsFirst) => (vec![pong, close(1002)], true),
            (None, _, Manner::Drops) => (vec![], true),
            (None, _, Manner::ClosesWith(code)) => (vec![close(code)], true),
            (None, _, Manner::ClosesWithoutCode) => (vec![Frame::close(None, "")], true),
            (None, _, Manner::Masks) => (vec![close(1002).masked([1; 4])], true),
            (Some(_), _, _) | (None, _, Manner::Ignores) => (vec![], false),
        };
        for answer in answers {
            let mask = answer.mask.filter(|_| frame.mask.is_none());
            Frame { mask, ..answer }.encode(&mut wire.outgoing);
        }
        wire.flush().await;
        if ends {
            return wire.into_link().0.finish().await;
        }
    }
}

/// How the servers here are spoken to.
const BINDING: &str = r#"
[paths]
health = []
[messages]
welcome = ""
request = '{"type":"ask"}'
events = ["answer"]
"#;

/// The result of one case on a small server.
fn on_small_server(manner: Manner, case: &str) -> Conformance {
    Runtime::new(Clock::Real).block_on(async {
        let listener = Listener::bind(Clock::Real).await.unwrap();
        let upstream: Upstream = format!("http://{}", listener.address().unwrap()).parse().unwrap();
        let serving = tokio::spawn(async move {
            loop {
                tokio::spawn(serve(listener.accept().await.unwrap(), manner));
            }
        });
        let binding = ServiceFile::parse("relapse.toml", BINDING).unwrap();
        let url = Url::new(upstream.clone(), &binding, String::new(), 100, Duration::ZERO);
        let peer = FramingSubject {
            target: &url,
            binding: &binding,
            name: upstream.to_string(),
            authority: upstream.authority(),
            patience: Duration::from_secs(3),
            seed: 1,
            deadline: Deadline::NEVER,
        };
        let found = conform(&cases(&[case]), &peer, || {}).await;
        serving.abort();
        found
    })
}

#[rstest]
#[case(Manner::Strict, Behavior::Ok, "close 1002")]
#[case(Manner::PongsFirst, Behavior::NonStrict, "pong \"bare\", close 1002")]
#[case(Manner::Drops, Behavior::Unclean, "drop (1006)")]
#[case(Manner::ClosesWith(1000), Behavior::WrongCode, "close 1000")]
#[case(Manner::ClosesWithoutCode, Behavior::WrongCode, "close without code (1005)")]
#[case(Manner::Pongs, Behavior::Failed, "pong \"bare\", and goes on")]
#[case(Manner::Ignores, Behavior::Failed, "nothing in time")]
#[case(Manner::Masks, Behavior::Failed, "bytes that are no frame (Masked)")]
fn every_behavior_is_told_from_the_others(#[case] manner: Manner, #[case] behavior: Behavior, #[case] evidence: &str) {
    let found = on_small_server(manner, "unmasked-ping");
    assert_eq!(found.trouble, None);
    let tried = &found.tried[0];
    assert_eq!((tried.behavior(), tried.evidence().as_str()), (Some(behavior), evidence));
    assert_eq!(found.conclusion(), Conclusion::passes_if(behavior <= Behavior::NonStrict));
}

fn answers() -> Expected {
    Expected::Answers { or_close: vec![CloseCode::TOO_BIG] }
}

fn failure(bound: BoundSide) -> Expected {
    Expected::Failure { codes: vec![CloseCode::INVALID_PAYLOAD], bound }
}

fn closed(code: u16) -> Saw {
    Saw::Close(Some(CloseCode(code)))
}

fn pong(text: &'static str) -> Saw {
    Saw::Reply(Reply::Pong(text.into()))
}

fn other() -> Saw {
    Saw::Other("error".to_owned())
}

const ANSWER: Saw = Saw::Reply(Reply::Answer);

/// Two pings and a request were sent, or a close with 3000.
#[rstest]
#[case::echo(Expected::Echo, vec![closed(3000), Saw::End], Behavior::Ok, "echo")]
#[case::open(Expected::Echo, vec![closed(3000)], Behavior::NonStrict, "close 3000, and the stream stays open")]
#[case::normal(Expected::Echo, vec![closed(1000), Saw::End], Behavior::NonStrict, "close 1000")]
#[case::another(Expected::Echo, vec![closed(4000), Saw::End], Behavior::WrongCode, "close 4000")]
#[case::refused(Expected::Echo, vec![closed(1002), Saw::End], Behavior::Failed, "close 1002")]
#[case::cut(Expected::Echo, vec![Saw::End], Behavior::Unclean, "drop (1006)")]
#[case::silent(Expected::Echo, vec![], Behavior::Failed, "nothing in time")]
#[case::answered(Expected::Echo, vec![ANSWER, closed(3000), Saw::End], Behavior::Failed, "answer after the close")]
#[case::all(answers(), vec![pong("1"), pong("2"), ANSWER], Behavior::Ok, r#"pong "1", pong "2", answer"#)]
#[case::last_pong(answers(), vec![pong("2"), ANSWER], Behavior::NonStrict, r#"pong "2", answer"#)]
#[case::late_pongs(answers(), vec![ANSWER, pong("1"), pong("2")], Behavior::NonStrict, r#"answer, pong "1", pong "2""#)]
#[case::no_pong(answers(), vec![pong("1"), ANSWER], Behavior::Failed, r#"pong "1", answer, nothing more in time"#)]
#[case::another_pong(answers(), vec![pong("3"), pong("2"), ANSWER], Behavior::Failed, r#"pong "3", pong "2", answer, nothing more in time"#)]
#[case::no_answer(answers(), vec![pong("1"), pong("2"), other()], Behavior::Failed, r#"pong "1", pong "2", message "error", nothing more in time"#)]
#[case::refusal(answers(), vec![closed(1002), Saw::End], Behavior::Failed, "close 1002")]
#[case::too_big(answers(), vec![closed(1009), Saw::End], Behavior::Ok, "close 1009")]
#[case::at_once(failure(BoundSide::Both), vec![closed(1007), Saw::End, Saw::Resumed], Behavior::Ok, "close 1007")]
#[case::at_the_end(failure(BoundSide::Both), vec![Saw::Resumed, closed(1007), Saw::End], Behavior::NonStrict, "close 1007 once the message is whole")]
#[case::tolerated(failure(BoundSide::Sender), vec![ANSWER], Behavior::NonStrict, "answer, and goes on")]
#[case::tolerated_silence(failure(BoundSide::Sender), vec![], Behavior::Failed, "nothing in time")]
#[case::taken(failure(BoundSide::Both), vec![other()], Behavior::Failed, r#"message "error", and goes on"#)]
#[case::illegal(failure(BoundSide::Both), vec![Saw::Illegal(FrameError::Reserved)], Behavior::Failed, "bytes that are no frame (Reserved)")]
fn what_came_is_judged(
    #[case] expected: Expected,
    #[case] saw: Vec<Saw>,
    #[case] behavior: Behavior,
    #[case] evidence: &str,
) {
    let owed = Owed {
        replies: vec![Reply::Pong("1".into()), Reply::Pong("2".into()), Reply::Answer],
        code: Some(CloseCode(3000)),
    };
    let events: Vec<BehaviorEvent> = saw.into_iter().map(|saw| BehaviorEvent { at: Duration::ZERO, saw }).collect();
    let judged = judge(&expected, &owed, &events);
    assert_eq!((judged.behavior, judged.evidence.as_str()), (behavior, evidence));
}

/// A server that `tokio-tungstenite` frames: it answers the request, and echoes what is binary.
async fn echo(link: Link) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(link).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        let answer = match message {
            Message::Text(_) => Message::text(r#"{"type":"answer"}"#),
            Message::Binary(bytes) => Message::Binary(bytes),
            _ => continue,
        };
        if socket.send(answer).await.is_err() {
            return;
        }
    }
}

/// Runs the command on such a server, which stands as long as the tests do.
fn on_independent_server(arguments: &[&str]) -> Output {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        Runtime::new(Clock::Real).block_on(async {
            let listener = Listener::bind(Clock::Real).await.unwrap();
            tell.send(listener.address().unwrap()).unwrap();
            loop {
                tokio::spawn(echo(listener.accept().await.unwrap()));
            }
        });
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relapse.toml");
    std::fs::write(&path, BINDING).unwrap();
    let target = format!("ws://{}", told.recv().unwrap());
    let command = &mut crate::support::relapse_command();
    command.args(arguments).args(["--target", &target, "--service-file", path.to_str().unwrap()]).output().unwrap()
}

#[test]
fn the_command_tries_an_independent_server() {
    let output = on_independent_server(&["conform", "--limit", "5s", "--format", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = &document["servers"][0];
    assert_eq!(found["trouble"], serde_json::Value::Null);
    let rows = found["cases"].as_array().unwrap().iter().map(|case| {
        let [name, behavior, evidence] = ["case", "behavior", "evidence"].map(|key| case[key].as_str().unwrap());
        format!("{name:<50} {behavior:<11} {evidence}\n")
    });
    check_page("conformance_tungstenite", &rows.collect::<String>());
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}

/// If no client needs a credential, a session without one is valid.
#[test]
fn a_server_that_lets_anybody_in_is_valid() {
    let output = on_independent_server(&["validate"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A server that is absent, or refuses every client, keeps no rule and breaks none.
#[test]
fn without_a_valid_session_nothing_is_concluded() {
    let output = crate::support::relapse_command()
        .args(["conform", "--target", "ws://127.0.0.1:1", "--format", "json", "ping-empty"])
        .output()
        .unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let trouble = document["servers"][0]["trouble"].as_str().unwrap();
    assert!(trouble.contains("before anything was tried a healthy client gets refused"), "{trouble}");
    assert_eq!((output.status.code(), &document["servers"][0]["cases"]), (Some(2), &serde_json::json!([])));
}

/// Invalid arguments are refused at once, with the nearest right name.
#[rstest]
#[case(&["conform", "ping-emty"], "select any case with `ping-emty`: did you mean `ping-empty`?")]
#[case(&["conform", "--profile", "uvicorn-0.45"], "did you mean `uvicorn-0.54`?")]
#[case(&["conform", "--server", "uvicorn-0.54"], "`--profile uvicorn-0.54` plays the server")]
#[case(&["conform", "--server", "uvicorn"], "`--target asgi:module:app` names one")]
#[case(&["conform", "--target", "wss://example.org"], "--allow-host example.org")]
#[case(&["conform", "--target", "ws://127.0.0.1:1", "--profile", "daphne-4.2"], "a server of yours is what it is")]
#[case(&["conform", "--target", "asgi:raw:app", "--server", "uvicorn", "--profile", "daphne-4.2"], "--server runs a real server")]
#[case(&["conform", "--target", "asgi:raw:app", "--allow-host", "here"], "a Python application runs on this machine")]
#[case(&["conform", "--target", "asgi:raw:app", "--dir", "fixtures/apps"], "`relapse init --target asgi:raw:app --dir fixtures/apps` writes a relapse.toml")]
#[case(&["conform", "--limit", "1s"], "--target <TARGET>")]
fn misuse_is_told(#[case] arguments: &[&str], #[case] message: &str) {
    let output = crate::support::relapse_command().args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(message), "{said}");
    assert_eq!(output.status.code(), Some(2));
}

fn case_with(send: &str) -> String {
    format!(
        "[[case]]\nname = \"one\"\nsection = \"5.2\"\ntries = \"It.\"\nsend = [{send}]\nexpect = {{ fail = [1002] }}\n"
    )
}

fn written(send: &str, request: &str) -> Result<Vec<WrittenPart>, String> {
    let cases = FrameCase::parse("group.toml", &case_with(send)).unwrap();
    cases[0].variants[0].write(request, None, &mut fastrand::Rng::with_seed(1))
}

/// The request to the small servers.
const ASK: &str = r#"{"type":"ask"}"#;

/// The bytes of an entry are written exactly.
#[rstest]
#[case::bits(r#"{ opcode = "text", text = "a", rsv = 5, mask = "none" }"#, b"\xd1\x01a")]
#[case::opcode(r#"{ opcode = 11, fin = false, mask = "none" }"#, b"\x0b\x00")]
#[case::zero_mask(r#"{ opcode = "ping", text = "a", mask = "zero" }"#, b"\x89\x81\0\0\0\0a")]
#[case::two_bytes(r#"{ opcode = "binary", text = "a", length_bytes = 2, mask = "none" }"#, b"\x82\x7e\0\x01a")]
#[case::eight_bytes(
    r#"{ opcode = "binary", text = "a", length_bytes = 8, mask = "none" }"#,
    b"\x82\x7f\0\0\0\0\0\0\0\x01a"
)]
#[case::claimed(
    r#"{ opcode = "binary", text = "a", length = "0x8000000000000001", mask = "none" }"#,
    b"\x82\x7f\x80\0\0\0\0\0\0\x01a"
)]
#[case::code(
    r#"{ opcode = "close", code = 1000, bytes = '\xff', repeat = 2, mask = "none" }"#,
    b"\x88\x04\x03\xe8\xff\xff"
)]
#[case::times(r#"{ opcode = "pong", times = 2, mask = "none" }"#, b"\x8a\x00\x8a\x00")]
#[case::fragments(r#"{ opcode = "text", text = "abc", fragment_bytes = 2, mask = "none" }"#, b"\x01\x02ab\x80\x01c")]
#[case::halves(r#"{ opcode = "text", request = "2/2", mask = "none" }"#, b"\x81\x07:\"ask\"}")]
#[case::one_block(
    r#"{ opcode = "text", text = "Hello", deflate = "one-block", times = 2, mask = "none" }"#,
    b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\xc1\x05\xf2\x00\x11\x00\x00"
)]
#[case::stored(
    r#"{ opcode = "text", text = "Hello", deflate = "stored", mask = "none" }"#,
    b"\xc1\x0b\x00\x05\x00\xfa\xffHello\x00"
)]
#[case::final_block(
    r#"{ opcode = "text", text = "Hello", deflate = "final-block", mask = "none" }"#,
    b"\xc1\x0b\x01\x05\x00\xfa\xffHello\x00"
)]
#[case::compressed_fragments(
    r#"{ opcode = "text", text = "Hello", deflate = "one-block", fragment_bytes = 3, mask = "none" }"#,
    b"\x41\x03\xf2\x48\xcd\x00\x03\xc9\xc9\x07\x80\x01\x00"
)]
#[case::padded(
    r#"{ opcode = "text", request = "whole", pad_to = 16, mask = "none" }"#,
    b"\x81\x10  {\"type\":\"ask\"}"
)]
fn an_entry_is_written_as_it_says(#[case] send: &str, #[case] expected: &[u8]) {
    assert_eq!(written(send, ASK), Ok(vec![WrittenPart::Bytes(expected.to_vec())]));
}

#[test]
fn what_cannot_be_said_with_a_request_is_told() {
    let short = r#"{ opcode = "text", request = "whole", pad_to = 4 }"#;
    assert!(written(short, ASK).unwrap_err().contains("the service's is longer"));
    let beside = r#"{ opcode = "text", request = "whole", beside = "a" }"#;
    assert!(written(beside, "hello").unwrap_err().contains("no JSON object"));
}

/// A mistake in a file is located, with the nearest right name.
#[rstest]
#[case::opcode(r#"opcode = "ping""#, r#"opcode = "pin""#, "unknown opcode `pin`", "did you mean `ping`?")]
#[case::number(r#"opcode = "ping""#, "opcode = 16", "there is no opcode 16", "")]
#[case::key("opcode =", "opcod =", "unknown field `opcod`", "did you mean `opcode`?")]
#[case::no_opcode(r#"{ opcode = "ping" }"#, "{}", "a frame has an `opcode`", "")]
#[case::bits(r#"opcode = "ping""#, r#"opcode = "ping", rsv = 8"#, "three reserved bits", "")]
#[case::payloads(
    r#"opcode = "ping""#,
    r#"opcode = "ping", text = "a", bytes = "b""#,
    "one of `text`, `bytes` and `request`",
    ""
)]
#[case::pad(r#"opcode = "ping""#, r#"opcode = "ping", pad_to = 9"#, "for a `request`", "")]
#[case::part(r#"opcode = "ping""#, r#"opcode = "text", request = "3/2""#, "`3/2` is no part of a request", "")]
#[case::length(r#"opcode = "ping""#, r#"opcode = "ping", length = "many""#, "`many` is no length", "")]
#[case::pause(r#"opcode = "ping""#, r#"opcode = "ping", pause_ms = 5"#, "a pause stands alone", "")]
#[case::pause_with_more(r#"opcode = "ping""#, r#"pause_ms = 5, text = "a""#, "a pause stands alone", "")]
#[case::long_pause(r#"opcode = "ping""#, "pause_ms = 10001", "1 to 10000 milliseconds", "")]
#[case::lists(r#"opcode = "ping""#, "opcode = [1, 2], rsv = [1]", "not as long as the first", "has 2 value(s)")]
#[case::nothing(r#"[{ opcode = "ping" }]"#, "[]", "nothing would be sent", "")]
#[case::no_time("tries", "piece_bytes = 0\ntries", "nothing would ever be written", "")]
#[case::section("5.2", "five", "no section of an RFC", "")]
#[case::rfc("tries", "rfc = 7691\ntries", "the rules are those of RFC 6455 and RFC 7692", "")]
#[case::extension("tries", "extensions = \"mux\"\ntries", "no extension that the client speaks", "as in `permessage")]
#[case::deflation(r#"opcode = "ping""#, r#"opcode = "ping", deflate = "fast""#, "unknown variant `fast`", "")]
#[case::sentence("It.", "It", "no sentence", "")]
#[case::expectation("fail = [1002]", "fail = [1002], echo = true", "what is expected is one of", "")]
#[case::no_close("fail = [1002]", "echo = true", "nothing that is sent could be answered so", "")]
fn a_mistake_is_located(#[case] from: &str, #[case] to: &str, #[case] message: &str, #[case] help: &str) {
    let text = case_with(r#"{ opcode = "ping" }"#);
    assert!(text.contains(from));
    match FrameCase::parse("group.toml", &text.replacen(from, to, 1)) {
        Err(Error::File(located)) => {
            assert!(located.message.contains(message), "{}", located.message);
            assert!(located.help.as_deref().unwrap_or_default().contains(help), "{:?}", located.help);
            assert!(located.span.end > 0, "{located}");
        }
        other => panic!("{other:?}"),
    }
}
