//! The start and the end of a process, as the named servers play them: none of them listens before the application has
//! started, and every wait has an end.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use relapse::{
    Plan,
    clock::{Clock, Runtime},
    event::{Inbound, Machine, Outbound},
    exception::Exception,
    front::{self, Life},
    recorder::Recorder,
    scope::ScopeType,
    transcript::{PROCESS, Transcript, What},
};
use rstest::rstest;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use crate::support::{Ends, Scripted, profile};

/// What the application does with its lifespan.
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

/// Where the process stands after so many seconds, and at its end; what was recorded; how long it took to stop.
fn live(server: &str, does: Does, seconds: u64) -> (Life, Transcript, Duration) {
    Runtime::new(Clock::Virtual).block_on(async {
        let application = Scripted::new(move |_, ends| lifespan(does, ends));
        let recorder = Recorder::new(Plan::default());
        let (sender, life) = watch::channel(Life::Starting);
        let (stop, stopped) = oneshot::channel();
        let profile = profile(server);
        let process = front::live(application, Arc::clone(&profile), recorder.scribe(PROCESS), sender, stopped);
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
        What::Exited { why } => Some(why.as_str()),
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
        let listened = transcript.events.iter().any(|event| event.what == What::Listening);
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
