//! The repaired backend's answer to each message, and the content of its frames.

use std::collections::BTreeSet;
use std::time::Duration;

use relapse::{environment::Environment, run};
use relapse_backend::{
    revision::Revision,
    target::{Embedded, Transport},
};
use relapse_core::{
    client::step::{Action, Awaited, Request, Step},
    plan::Plan,
    record::transcript::{EventKind, Transcript},
    wire::{frame::Opcode, message::message_type},
};
use relapse_simulate::clock::{Clock, Runtime};
use rstest::rstest;
use serde_json::Value;

use crate::support::profile;

/// Sends one message in a session and gives every message that comes after the welcome.
fn answers(message: &str) -> Vec<Value> {
    let step = |act| Step::new(act, Duration::from_secs(2));
    let steps = [
        step(Action::Open(Request::standard("GET", "/ws"))),
        step(Action::Wait(Awaited::Message("connection_established".to_owned()))),
        step(Action::SendText(message.to_owned())),
        step(Action::Pause),
    ];
    let transcript = Runtime::new(Clock::Virtual).block_on(async {
        let profile = profile("uvicorn-0.35");
        let target = Embedded::launch(Revision::repaired(), Environment::Staging, profile, Transport::Memory, 1);
        run::converse(&steps, Plan::default(), &target).await.unwrap()
    });
    texts(&transcript).into_iter().skip(1).collect()
}

fn texts(transcript: &Transcript) -> Vec<Value> {
    transcript
        .events
        .iter()
        .filter_map(|event| match &event.what {
            EventKind::FrameSeen(frame) if frame.opcode == Opcode::Text => serde_json::from_slice(&frame.payload).ok(),
            _ => None,
        })
        .collect()
}

fn names(answers: &[Value]) -> Vec<String> {
    answers.iter().map(|answer| message_type(answer.to_string().as_bytes()).unwrap_or_default().into_owned()).collect()
}

#[rstest]
#[case(r#"{"type":"ping"}"#, "pong")]
#[case(r#"{"type":"heartbeat"}"#, "heartbeat_ack")]
#[case(r#"{"type":"connect"}"#, "system_message")]
#[case(r#"{"type":"disconnect"}"#, "disconnect_acknowledged")]
#[case(r#"{"type":"typing"}"#, "typing_acknowledged")]
#[case(r#"{"type":"user_typing"}"#, "typing_acknowledged")]
#[case(r#"{"type":"no_such_type"}"#, "ack")]
#[case(r#"{}"#, "ack")]
#[case("no json", "error_message")]
#[case("[1]", "error_message")]
#[case("\"text\"", "error_message")]
fn a_message_has_its_reply(#[case] message: &str, #[case] reply: &str) {
    assert_eq!(names(&answers(message)), [reply]);
}

#[test]
fn a_json_rpc_request_is_answered_under_its_id() {
    let answers = answers(r#"{"jsonrpc":"2.0","method":"status","id":7}"#);
    assert_eq!(answers.len(), 1);
    assert_eq!((&answers[0]["jsonrpc"], &answers[0]["id"]), (&"2.0".into(), &7.into()));
    assert_eq!(answers[0]["result"]["method"], "status");
}

const EVENTS: [(&str, &[&str]); 5] = [
    ("agent_started", &["agent_name", "task_description"]),
    ("agent_thinking", &["reasoning"]),
    ("tool_executing", &["tool_name", "parameters"]),
    ("tool_completed", &["tool_name", "results", "duration", "success"]),
    ("agent_completed", &["status", "final_response"]),
];

#[rstest]
fn an_agent_request_gets_its_five_events(
    #[values(
        "user_message",
        "user",
        "user_input",
        "message",
        "chat_message",
        "chat",
        "agent_request",
        "agent",
        "start_agent",
        "execute_agent",
        "EXECUTE_AGENT"
    )]
    name: &str,
) {
    let answers = answers(&format!(r#"{{"type":"{name}","content":"hello","thread_id":"t-1"}}"#));
    let mut expected: Vec<&str> = EVENTS.iter().map(|(name, _)| *name).collect();
    expected.push("agent_response_complete");
    assert_eq!(names(&answers), expected);
    for (answer, (_, fields)) in answers.iter().zip(EVENTS) {
        let keys: BTreeSet<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
        let common = ["type", "user_id", "thread_id", "timestamp", "critical", "attempt"];
        assert_eq!(keys, common.into_iter().chain(fields.iter().copied()).collect());
        assert_eq!((&answer["user_id"], &answer["thread_id"]), (&"user-1".into(), &"t-1".into()));
        assert_eq!((&answer["critical"], &answer["attempt"]), (&true.into(), &Value::Null));
        assert!(answer["timestamp"].is_f64(), "seconds since 1970, with fractions");
    }
}
