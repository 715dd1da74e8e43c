//! The start and the end of a process, as the named servers play them: none of them listens before the application has
//! started, and every wait has an end.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use relapse::{environment::Environment, run};
use relapse_backend::{revision::Revision, runner::BackendRunner};
use relapse_core::{
    asgi::{
        event::{Inbound, Machine, Outbound},
        exception::Exception,
        scope::ScopeType,
    },
    client::step::{Action, Awaited, Concurrency, Request, Step},
    fault::{CallFault, Calls, EventFault, Events, Fault, FaultKind, ProcessFault, Trigger, setting::Time},
    judge::{cause::Cause, classify},
    plan::Plan,
    record::transcript::{Event, EventKind, PROCESS, Transcript},
    wire::frame::Opcode,
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    link::Link,
    recorder::Recorder,
    server::{self, Life},
};
use rstest::rstest;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use crate::support::{Ends, Reached, Scripted, open, profile, step, wait};

/// The application's behavior in its lifespan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Starts,
    StartsLater,
    Fails,
    Raises,
    Returns,
    NeverAnswers,
    IgnoresTheEnd,
}

async fn lifespan(does: Does, mut ends: Ends) -> Result<(), Exception> {
    ends.receive().await?;
    match does {
        Does::Starts | Does::IgnoresTheEnd => ends.send(Outbound::StartupComplete).await?,
        Does::StartsLater => {
            sleep(Duration::from_secs(3)).await;
            ends.send(Outbound::StartupComplete).await?;
        }
        Does::Fails => return ends.send(Outbound::StartupFailed { message: "no database".to_owned() }).await,
        Does::Raises => return Err(Exception::runtime_error("boom")),
        Does::Returns => return Ok(()),
        Does::NeverAnswers => pending().await,
    }
    let end = ends.receive().await?;
    assert_eq!(end, Inbound::LifespanShutdown);
    if does == Does::IgnoresTheEnd {
        pending::<()>().await;
    }
    ends.send(Outbound::ShutdownComplete).await
}

/// The process's state after this number of seconds, and at its end; the transcript; how long it took to stop.
fn live(server: &str, does: Does, seconds: u64) -> (Life, Transcript, Duration) {
    Runtime::new(Clock::Virtual).block_on(async {
        let application = Scripted::new(move |_, ends| lifespan(does, ends));
        let recorder = Recorder::new(Plan::default());
        let (sender, life) = watch::channel(Life::Starting);
        let (stop, stopped) = oneshot::channel();
        let profile = profile(server);
        let process = server::live(application, Arc::clone(&profile), recorder.scribe(PROCESS), sender, stopped);
        let process = tokio::spawn(process);
        sleep(Duration::from_secs(seconds)).await;
        let stands = *life.borrow();
        let told = tokio::time::Instant::now();
        let _ = stop.send(());
        process.await.unwrap();
        assert_eq!(*life.borrow(), Life::Exited, "every process ends");
        (stands, recorder.transcript(), told.elapsed())
    })
}

fn last_words(transcript: &Transcript) -> &str {
    let words = transcript.events.iter().rev().find_map(|event| match &event.what {
        EventKind::Exited { why } => Some(why.as_str()),
        _ => None,
    });
    words.unwrap_or_default()
}

const SERVERS: [&str; 4] = ["uvicorn-0.35", "uvicorn-0.54", "hypercorn-0.18", "granian-2.8"];

#[rstest]
#[case(Does::Starts, 1, Life::Listening)]
#[case(Does::StartsLater, 1, Life::Starting)]
#[case(Does::StartsLater, 4, Life::Listening)]
#[case(Does::Fails, 1, Life::Exited)]
#[case(Does::Raises, 1, Life::Listening)]
#[case(Does::Returns, 1, Life::Listening)]
#[case(Does::NeverAnswers, 50, Life::Starting)]
fn a_server_listens_when_the_application_lets_it(#[case] does: Does, #[case] seconds: u64, #[case] expected: Life) {
    for server in SERVERS {
        let (stands, transcript, _) = live(server, does, seconds);
        assert_eq!(stands, expected, "{does:?} behind {server}");
        let listened = transcript.events.iter().any(|event| event.what == EventKind::Listening);
        assert_eq!(listened, expected == Life::Listening);
    }
}

#[test]
fn one_server_gives_a_stuck_start_up() {
    for server in SERVERS {
        let (stands, transcript, _) = live(server, Does::NeverAnswers, 61);
        let gives_up = server == "hypercorn-0.18";
        assert_eq!(stands == Life::Exited, gives_up, "{server}");
        assert_eq!(last_words(&transcript).contains("did not start within 60 s"), gives_up);
    }
}

#[rstest]
#[case(Does::Starts, 0)]
#[case(Does::Returns, 0)]
#[case(Does::IgnoresTheEnd, 10)]
#[case(Does::NeverAnswers, 10)]
fn a_process_that_is_told_to_stop_stops(#[case] does: Does, #[case] seconds: u64) {
    for server in SERVERS {
        let (_, transcript, took) = live(server, does, 1);
        assert_eq!(took.as_secs(), seconds, "{does:?} behind {server}");
        assert!(last_words(&transcript).starts_with("it was told to stop"));
    }
}

#[test]
fn the_reason_of_a_failed_start_is_kept() {
    let (_, transcript, _) = live("uvicorn-0.35", Does::Fails, 1);
    assert_eq!(last_words(&transcript), "the application failed to start: no database");
}

/// The events of the lifespan in their order, and no other (ASGI, Lifespan Protocol).
#[test]
fn the_state_machine_knows_the_lifespan() {
    let failed = Outbound::StartupFailed { message: String::new() };
    let mut machine = Machine::new(ScopeType::Lifespan);
    machine.on_receive(&Inbound::LifespanStartup).unwrap();
    assert!(machine.on_send(&Outbound::ShutdownComplete).is_err(), "it has not started");
    assert!(machine.on_receive(&Inbound::WebsocketConnect).is_err());
    machine.on_send(&Outbound::StartupComplete).unwrap();
    assert!(machine.on_send(&failed).is_err(), "it has said that it started");
    machine.on_receive(&Inbound::LifespanShutdown).unwrap();
    machine.on_send(&Outbound::ShutdownComplete).unwrap();
    let mut other = Machine::new(ScopeType::Websocket);
    assert!(other.on_send(&Outbound::StartupComplete).is_err());
}

/// The application's activity when its server is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// A session: it waits for messages.
    Session,
    /// An upgrade that it accepts two seconds later.
    Upgrade,
    /// A plain request that it answers two seconds later.
    Request,
    /// A plain request that it never answers.
    StuckRequest,
}

async fn serve(at: At, mut ends: Ends) -> Result<(), Exception> {
    ends.receive().await?;
    let accept = Outbound::WebsocketAccept { subprotocol: None, headers: Vec::new() };
    match at {
        At::Session => ends.send(accept).await?,
        At::Upgrade => {
            sleep(STOP_AT + Duration::from_secs(2)).await;
            // A careful application still accepts a client that is gone by then.
            let _ = ends.send(accept).await;
        }
        At::Request => {
            sleep(STOP_AT + Duration::from_secs(2)).await;
            ends.send(Outbound::ResponseStart { status: 200, headers: Vec::new() }).await?;
            return ends.send(Outbound::ResponseBody { body: b"ok".to_vec(), more_body: false }).await;
        }
        At::StuckRequest => pending().await,
    }
    while !matches!(ends.receive().await?, Inbound::WebsocketDisconnect { .. }) {}
    Ok(())
}

const STOP_AT: Duration = Duration::from_secs(1);
const KILL_AFTER: Duration = Duration::from_secs(10);

/// How a client ends whose server is told to stop, how many seconds after that, and what the application is told.
fn stopped(at: At, server: &str) -> String {
    let transcript = Runtime::new(Clock::Virtual).block_on(async {
        let (life, watched) = watch::channel(Life::Listening);
        let profile = profile(server);
        let served = Reached::new(move |scribe| {
            let (client, server) = Link::pair();
            let application = Scripted::new(move |_, ends| serve(at, ends));
            tokio::spawn(server::serve(server, application, Arc::clone(&profile), scribe, Some(watched.clone())));
            Box::pin(async { Ok(client) })
        });
        tokio::spawn(async move {
            sleep(STOP_AT).await;
            life.send_replace(Life::Stopping);
            sleep(KILL_AFTER).await;
            life.send_replace(Life::Exited);
        });
        let limit = Duration::from_secs(30);
        let step = |act| Step::new(act, limit);
        let steps = match at {
            At::Session | At::Upgrade => {
                vec![step(Action::Open(Request::standard("GET", "/"))), step(Action::Wait(Awaited::Close))]
            }
            At::Request | At::StuckRequest => vec![step(Action::Request(Request::standard("GET", "/")))],
        };
        run::converse(&steps, Plan::default(), &served).await.unwrap()
    });
    let ended = |event: &&Event| {
        let is_last_word = match &event.what {
            EventKind::FrameSeen(frame) => frame.opcode == Opcode::Close,
            EventKind::ResponseSeen(head) => head.status != 101,
            what => *what == EventKind::EndSeen,
        };
        is_last_word.then_some(event.at)
    };
    let at = transcript.events.iter().find_map(|event| ended(&event)).unwrap() - STOP_AT;
    let told = transcript.events.iter().find_map(|event| match &event.what {
        EventKind::Received(Inbound::WebsocketDisconnect { code, .. }) => code.map(|code| format!(", told {code}")),
        EventKind::Raised(exception) => Some(format!(", {}", exception.type_name)),
        _ => None,
    });
    let outcome = classify::readings(&transcript)[0].outcome();
    assert_eq!(outcome.cause == Cause::Shutdown, told.is_some(), "{at:?} behind {server}: {outcome}");
    format!("{} at {}{}", outcome.ending, at.as_secs(), told.unwrap_or_default())
}

/// Results measured on the real servers, with SIGTERM; the kill is the platform's.
#[rstest]
#[case(At::Session, [
    "close 1012 at 0, told 1012",
    "close 1012 at 0, told 1012",
    "close 1011 at 3, CancelledError",
    "drop (1006) at 0, CancelledError",
    "drop (1006) at 0, told 1005",
])]
#[case(At::Upgrade, [
    "http 500 at 0, told 1006",
    "http 500 at 0, told 1006",
    "close 1011 at 3, CancelledError",
    "drop (1006) at 0, CancelledError",
    "drop (1006) at 2, told 1005",
])]
#[case(At::Request, ["http 200 at 2", "http 200 at 2", "http 200 at 2", "drop (1006) at 0, CancelledError", "http 200 at 2"])]
#[case(At::StuckRequest, [
    "drop (1006) at 10, CancelledError",
    "drop (1006) at 10, CancelledError",
    "http 500 at 3, CancelledError",
    "drop (1006) at 0, CancelledError",
    "drop (1006) at 10, CancelledError",
])]
fn a_server_that_is_told_to_stop(#[case] at: At, #[case] expected: [&str; 5]) {
    let servers = ["uvicorn-0.35", "uvicorn-0.54", "hypercorn-0.18", "daphne-4.2", "granian-2.8"];
    for (server, expected) in servers.into_iter().zip(expected) {
        assert_eq!(stopped(at, server), expected, "{at:?} behind {server}");
    }
}

/// The outcome of each exchange of these steps on the built-in backend, and the transcript.
fn outcomes(server: &str, faults: Vec<Fault>, steps: &[Step]) -> (Vec<String>, Transcript) {
    let plan = Plan { seed: 1, faults };
    let (revision, one) = (Revision::repaired(), Concurrency::ONE);
    let runner = BackendRunner::default();
    let transcript = runner.converse(revision, Environment::Staging, &profile(server), one, steps, plan).unwrap();
    let outcomes = classify::readings(&transcript).iter().map(|reading| reading.outcome().to_string()).collect();
    (outcomes, transcript)
}

fn leave() -> Step {
    step(Action::Leave)
}

fn pause(seconds: u64) -> Step {
    Step::new(Action::Pause, Duration::from_secs(seconds))
}

fn stop_at(seconds: u64) -> Fault {
    FaultKind::Process(ProcessFault::ShutDown { at: Time(Duration::from_secs(seconds)) }).into()
}

/// Only the one server that cancels answers 1011 to a deployment; a client that comes back is served.
#[rstest]
#[case("uvicorn-0.35", "close 1012 (refused-unavailable; shutdown)")]
#[case("uvicorn-0.54", "close 1012 (refused-unavailable; shutdown)")]
#[case("hypercorn-0.18", "close 1011 (cut-by-fault; shutdown)")]
#[case("daphne-4.2", "drop (1006) (cut-by-fault; shutdown)")]
#[case("granian-2.8", "drop (1006) (cut-by-fault; shutdown)")]
fn a_deployment_ends_sessions(#[case] server: &str, #[case] expected: &str) {
    let until_closed = Step::new(Action::Wait(Awaited::Close), Duration::from_secs(20));
    let steps = [
        open(),
        wait("connection_established"),
        until_closed,
        pause(1),
        open(),
        wait("connection_established"),
        leave(),
    ];
    let (outcomes, transcript) = outcomes(server, vec![stop_at(1)], &steps);
    assert_eq!(outcomes, [expected, "left (ok; clean)"]);
    assert_eq!(transcript.fired, [1]);
    let life: Vec<&EventKind> = transcript.of(PROCESS).map(|event| &event.what).collect();
    let count = |what: &EventKind| life.iter().filter(|found| **found == what).count();
    assert_eq!((count(&EventKind::Listening), count(&EventKind::Stopping)), (2, 1), "{life:?}");
    assert!(
        life.iter().any(|what| matches!(what, EventKind::Exited { why } if why == "it was told to stop")),
        "{life:?}"
    );
}

/// A server may go on taking connections that it does not serve any more.
#[rstest]
#[case("uvicorn-0.35", "refused (refused-unavailable; no-listener)")]
#[case("hypercorn-0.18", "drop (1006) (cut-by-fault; shutdown)")]
fn who_comes_while_a_server_stops(#[case] server: &str, #[case] expected: &str) {
    let calls = Calls { dependency: "database".to_owned(), operation: None };
    let trigger = Trigger { from: Duration::from_millis(500), ..Trigger::default() };
    let stuck = Fault { kind: FaultKind::Call { calls, fault: CallFault::Hang {} }, trigger };
    let request = |give_up| {
        let give_up = Some(Duration::from_millis(give_up));
        step(Action::Request(Request { give_up, ..Request::standard("GET", "/api/threads/") }))
    };
    // The first is gone when the server is told to stop, and its call is not over.
    let steps = [pause(1), request(1500), request(20_000)];
    let (outcomes, _) = outcomes(server, vec![stop_at(2), stuck], &steps);
    assert_eq!(outcomes[1], expected);
}

/// A start can go wrong between server and application.
#[rstest]
#[case("lifespan.startup", EventFault::Drop {}, "refused (refused-unavailable; no-listener)")]
#[case("lifespan.startup", EventFault::ReceiveHangs {}, "refused (refused-unavailable; no-listener)")]
#[case(
    "lifespan.startup",
    EventFault::ReceiveRaises { error: "RuntimeError: no lifespan here".to_owned() },
    "http 503 (refused-unavailable; app-decision)",
)]
#[case("lifespan.startup.complete", EventFault::SendHangs {}, "refused (refused-unavailable; no-listener)")]
#[case(
    "lifespan.startup.complete",
    EventFault::StartupFails { message: "no database".to_owned() },
    "refused (refused-unavailable; no-listener)",
)]
#[case(
    "lifespan.startup.complete",
    EventFault::SendDelays { delay: Time(Duration::from_secs(3)) },
    "refused (refused-unavailable; no-listener)",
)]
fn a_start_that_is_tampered_with(#[case] event: &str, #[case] fault: EventFault, #[case] expected: &str) {
    let is_late = matches!(fault, EventFault::SendDelays { .. });
    let kind = FaultKind::Event { events: Events(Some(event.to_owned())), fault };
    let steps = [open(), leave(), pause(5), open(), wait("connection_established"), leave()];
    let (outcomes, transcript) = outcomes("uvicorn-0.35", vec![kind.clone().into()], &steps);
    assert_eq!(outcomes[0], expected);
    // Only a start that is late is over some day.
    assert_eq!(outcomes[1], if is_late { "left (ok; clean)" } else { expected });
    assert_eq!(transcript.fired, [1]);
    // A server that knows no lifespan has nothing to tamper with.
    let (outcomes, transcript) = self::outcomes("daphne-4.2", vec![kind.into()], &steps);
    assert_eq!((outcomes[1].as_str(), transcript.fired), ("left (ok; clean)", vec![0]));
}
