//! The client leaves while the application waits: at every call of a dependency, before and after the accept, in every
//! way there is to leave. Nothing is left behind, and it is no error.

use std::time::Duration;

use relapse::environment::Environment;
use relapse_backend::{defect::Defect, revision::Revision};
use relapse_core::{
    client::{
        credential::CredentialPlace,
        step::{Action, Request, Step},
    },
    fault::{CallFault, Calls, Fault, FaultKind, Trigger},
    judge::{check, classify::Exchange, outcome::Ending},
    record::transcript::{EventKind, Leftovers, Level, Transcript},
    wire::close_code::CloseCode,
};
use rstest::rstest;

use crate::support::{on_backend, open, server_names, step, wait};

/// A call that takes long enough for the client to leave meanwhile.
fn slow(dependency: &str, operation: &str, nth: u32) -> Fault {
    let calls = Calls { dependency: dependency.to_owned(), operation: Some(operation.to_owned()) };
    let delay = Duration::from_millis(400);
    Fault {
        kind: FaultKind::Call { calls, fault: CallFault::Delay { delay: delay.into() } },
        trigger: Trigger { nth, times: Some(1), ..Trigger::default() },
    }
}

fn pause(ms: u64) -> Step {
    Step::new(Action::Pause, Duration::from_millis(ms))
}

/// The check that counts events, which a client that leaves in the middle of a run does not wait for.
const MAY_COMPLAIN: [&str; 1] = ["five_events_in_order"];

/// Nothing is left, nothing was logged as an error, and every call of the application has ended.
fn assert_clean(transcript: &Transcript, label: &str) {
    assert_eq!(transcript.residue, Some(Leftovers::default()), "{label}");
    let errors: Vec<&str> =
        transcript.logs().filter(|(level, _)| *level == Level::Error).map(|(_, message)| message).collect();
    assert_eq!(errors, [""; 0], "{label}");
    let findings =
        check::findings(&check::RunView::gather(transcript, &relapse_core::judge::verdict::HealthyClient::Absent));
    let findings: Vec<_> = findings.iter().filter(|finding| !MAY_COMPLAIN.contains(&finding.check)).collect();
    assert!(findings.is_empty(), "{label}: {findings:?}");
    assert_eq!(transcript.fired, [1], "{label}: the application never waited there");
    let count = |wanted: fn(&EventKind) -> bool| transcript.events.iter().filter(|event| wanted(&event.what)).count();
    let called = count(|what| matches!(what, EventKind::Called { .. }));
    assert_eq!(count(|what| matches!(what, EventKind::Returned)), called, "{label}");
}

/// Before the accept a client can only go: its stream ends.
#[rstest]
fn the_client_leaves_before_it_is_answered(
    #[values(
        ("database", "ping"),
        ("redis", "ping"),
        ("thread_service", "ping"),
        ("agent_supervisor", "ping"),
        ("websocket_bridge", "ping"),
        ("redis", "get"),
        ("auth_service", "check")
    )]
    at: (&str, &str),
) {
    for server in &server_names() {
        let upgrade = Request {
            give_up: Some(Duration::from_millis(200)),
            places: vec![if at == ("redis", "get") { CredentialPlace::Ticket } else { CredentialPlace::Header }],
            ..Request::standard("GET", "/ws")
        };
        let steps = [step(Action::Open(upgrade)), pause(1000)];
        let faults = vec![slow(at.0, at.1, 1)];
        let transcript = on_backend(Revision::repaired(), Environment::Staging, server, faults, &steps);
        assert_eq!(Exchange::of(&transcript, 0).outcome().ending, Ending::Left);
        // These take a client that is gone for one that was accepted, and raise at the accept.
        if ["uvicorn-0.35-sansio", "uvicorn-0.35-wsproto"].contains(&server.as_str()) {
            let is_told = |(_, message): (Level, &str)| message.contains("but got 'websocket.accept'");
            assert!(transcript.logs().any(is_told), "{at:?} behind {server}");
            continue;
        }
        assert_clean(&transcript, &format!("{at:?} behind {server}"));
    }
}

/// How a client ends its session.
#[derive(Debug, Clone, Copy)]
enum Way {
    CloseFrame,
    EndOfStream,
    AskToDisconnect,
}

/// During an agent run a client can close, go, or ask to be let go.
#[rstest]
fn the_client_leaves_during_an_agent_run(
    #[values(
        ("thread_service", "open", 1),
        ("agent_supervisor", "run", 1),
        ("websocket_bridge", "emit", 1),
        ("websocket_bridge", "emit", 2),
        ("websocket_bridge", "emit", 3),
        ("websocket_bridge", "emit", 4),
        ("websocket_bridge", "emit", 5)
    )]
    at: (&str, &str, u32),
    #[values(Way::CloseFrame, Way::EndOfStream, Way::AskToDisconnect)] way: Way,
) {
    for server in &server_names() {
        let say = |text: &str| step(Action::SendText(text.to_owned()));
        let mut steps =
            vec![open(), wait("connection_established"), say(r#"{"type":"chat","content":"x"}"#), pause(200)];
        match way {
            Way::CloseFrame => steps.push(step(Action::Close(CloseCode::NORMAL))),
            Way::EndOfStream => steps.push(step(Action::Leave)),
            Way::AskToDisconnect => {
                steps.extend([say(r#"{"type":"disconnect"}"#), step(Action::Close(CloseCode::NORMAL))])
            }
        }
        steps.push(pause(1000));
        let faults = vec![slow(at.0, at.1, at.2)];
        let transcript = on_backend(Revision::repaired(), Environment::Staging, server, faults, &steps);
        assert_clean(&transcript, &format!("{way:?} at {at:?} behind {server}"));
    }
}

/// The same race on a service that leaks, so that the suite is known to see it.
#[test]
fn what_is_left_behind_is_seen() {
    let steps = [open(), wait("connection_established"), step(Action::Leave), pause(1000)];
    let leaky = Revision::only(Defect::ManagersLeak);
    let transcript = on_backend(leaky, Environment::Staging, "uvicorn-0.35", Vec::new(), &steps);
    assert_eq!(transcript.residue, Some(Leftovers { connections: 0, sessions: 1 }));
    let findings =
        check::findings(&check::RunView::gather(&transcript, &relapse_core::judge::verdict::HealthyClient::Absent));
    assert!(findings.iter().any(|finding| finding.check == "no_residue"), "{findings:?}");
}
