//! Apps that keep the event loop to themselves, behind real servers and behind the profiles that play them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use relapse::{case::ServerArguments, discover::servers, run, target::Target};
use relapse_core::{
    client::step::{Action, Awaited, Request, Step},
    judge::classify,
    plan::Plan,
    record::transcript::{EventKind, Transcript},
    wire::frame::Opcode,
};
use relapse_python::{
    app::Python as PythonTarget,
    process::{Server as PythonServer, ServerChoice, ServerSoftware, Site as PythonSite},
    served::Served,
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    profile::Profile,
};
use rstest::rstest;

use crate::{
    python::{binding, site},
    served::{installation, interpreter},
    support::{at_a_time, profile},
};

/// A session that blocks the loop as often as it is asked to, each time for as long as the environment says, with one turn
/// of the loop between two.
const SERVICE: &str = r#"
import asyncio, os, time

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": "begun"})
        for _ in range(int(event["text"])):
            time.sleep(float(os.environ["BLOCKED_S"]))
            await asyncio.sleep(0)
        await send({"type": "websocket.send", "text": "done"})
"#;

/// How many servers stall at a time: most of their time they wait.
const SERVERS_AT_A_TIME: usize = 4;

/// The arguments that let a server ping every second and wait a second for the answer, where it pings at times of its choice.
fn pings_every_second(server: ServerSoftware) -> &'static [&'static str] {
    match server {
        ServerSoftware::Uvicorn => &["--ws-ping-interval", "1", "--ws-ping-timeout", "1"],
        ServerSoftware::Hypercorn => &["--websocket-ping-interval", "1"],
        ServerSoftware::Daphne | ServerSoftware::Granian => &[],
    }
}

/// Clients of the session, in units of a stall.
fn scripts(stall: Duration) -> Vec<(&'static str, Vec<Step>)> {
    let long = |act| Step::new(act, 20 * stall);
    let short = |act| Step::new(act, stall / 2);
    let open = || long(Action::Open(Request::standard("GET", "/")));
    let send = |text: &str| long(Action::SendText(text.to_owned()));
    let wait = |text: &str| long(Action::Wait(Awaited::Text(text.to_owned())));
    let close = |step: &dyn Fn(Action) -> Step| step(Action::Close(relapse_core::wire::close_code::CloseCode::NORMAL));
    vec![
        ("once", vec![open(), send("1"), wait("done"), close(&long)]),
        ("three times", vec![open(), send("3"), wait("done"), close(&long)]),
        ("four times", vec![open(), send("4"), wait("done"), close(&long)]),
        ("asked for a pong", vec![open(), send("1"), wait("begun"), short(Action::Ping), wait("done"), close(&long)]),
        ("closed", vec![open(), send("1"), wait("begun"), close(&short), wait("done")]),
    ]
}

/// The sight of a client: how the session ended, whether a pong or a close came in time, and what came before the stall was
/// over.
fn seen(transcript: &Transcript, stall: Duration) -> String {
    // From outside nothing tells why a server drops a connection.
    let relapse_core::judge::outcome::Outcome { ending, class, .. } = classify::readings(transcript)[0].outcome();
    let at =
        |is_it: &dyn Fn(&EventKind) -> bool| transcript.of(0).find(|event| is_it(&event.what)).map(|event| event.at);
    let asked =
        at(&|what| matches!(what, EventKind::FrameSent(frame) if frame.opcode == Opcode::Text)).unwrap_or_default();
    let is_early = |opcode: Opcode, text: &str| {
        let came = at(&|what| match what {
            EventKind::FrameSeen(frame) => frame.opcode == opcode && frame.payload.starts_with(text.as_bytes()),
            _ => false,
        });
        match came {
            Some(came) if came.saturating_sub(asked) < stall * 3 / 4 => "early",
            Some(_) => "late",
            None => "never",
        }
    };
    let disconnect = transcript.of(0).find_map(|event| match &event.what {
        EventKind::Received(relapse_core::asgi::event::Inbound::WebsocketDisconnect { .. }) => {
            Some(event.at.saturating_sub(asked))
        }
        _ => None,
    });
    let told = disconnect.map_or("never", |at| if at < stall * 3 / 4 { "early" } else { "late" });
    format!(
        "{ending} ({class}); begun {}, pong {}, told {told}",
        is_early(Opcode::Text, "begun"),
        is_early(Opcode::Pong, "probe")
    )
}

/// Performs the clients one after the other; those that block the loop again and again only where that says something.
async fn perform(target: &dyn Target, is_repeated: bool, stall: Duration) -> Vec<String> {
    let mut all = Vec::new();
    for (name, steps) in scripts(stall) {
        if !is_repeated && name.ends_with("times") {
            continue;
        }
        // A pong that is under way comes while the loop is blocked again, and not before it looks.
        let slow = relapse::discover::read_edge_fault("delay_bytes direction=to-server delay_ms=300").unwrap();
        let plan = Plan { seed: 1, faults: vec![slow] };
        let transcript = run::converse(&steps, plan, target).await.unwrap();
        target.clear().await.unwrap();
        all.push(format!("{name}: {}", seen(&transcript, stall)));
    }
    all
}

fn site_that_blocks(python: &Path, directory: &Path, stall: Duration) -> PythonSite {
    std::fs::write(directory.join("service.py"), SERVICE).unwrap();
    let environment = vec![("BLOCKED_S".to_owned(), stall.as_secs_f64().to_string())];
    PythonSite { environment, ..site(python, directory, "service:app") }
}

/// A stall shows behind a profile as it does behind the server that the profile plays: what is read late, what goes out
/// late, and where a pong is too late that came meanwhile. The real servers ping every second, and a stall takes 1.3 s; the
/// profiles ping every 20 s, and a stall takes 45 s.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_stall_shows_as_behind_the_real_server() {
    let compared = at_a_time(SERVERS_AT_A_TIME, &servers().unwrap(), |profile| {
        let (real, played) = stalled(profile);
        (real != played).then(|| format!("{}\n  real   {real:#?}\n  played {played:#?}", profile.name))
    });
    let different: Vec<String> = compared.into_iter().flatten().collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// The sights of the clients behind a real server, and behind its profile.
fn stalled(profile: &Arc<Profile>) -> (Vec<String>, Vec<String>) {
    let server = profile.choice.as_str();
    let choice: ServerChoice = server.parse().unwrap();
    let arguments = pings_every_second(choice.software);
    let directory = tempfile::tempdir().unwrap();
    let installation = installation(server, directory.path());
    let short = Duration::from_millis(1300);
    // Elsewhere no pong has a limit; and daphne pings when it looks, every 2 s since its start, so that it is chance which
    // stall a pong meets.
    let is_repeated = !arguments.is_empty() && profile.keepalive.pong_timeout_ms > 0;
    let site = site_that_blocks(&installation.site.python, directory.path(), short);
    let installation = relapse_python::process::Installation { site, ..installation };
    let real = Runtime::new(Clock::Real).block_on(async {
        let (started, _) = PythonServer::start(installation).await.unwrap();
        let served = Served::new(started, &binding(), String::new());
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        served.start_with(&ServerArguments { arguments, ..ServerArguments::default() }).await.unwrap();
        let seen = perform(&served, is_repeated, short).await;
        served.stop().await.unwrap();
        seen
    });
    let python = interpreter(&choice);
    let long = Duration::from_secs(45);
    let site = site_that_blocks(&python, directory.path(), long);
    let played = Runtime::new(Clock::Virtual).block_on(async {
        let launched = PythonTarget::launch(site, &binding(), String::new(), Arc::clone(profile), 1).await;
        let (target, _) = launched.unwrap_or_else(|trouble| panic!("{}", trouble.message));
        let seen = perform(&target, is_repeated, long).await;
        target.stop().await.unwrap();
        seen
    });
    (real, played)
}

/// One stall is enough where a pong is under way as it begins: behind the library `websockets` the session ends with 1011,
/// behind the others it goes on. The same work in a thread costs no session anywhere.
#[rstest]
#[case("uvicorn-0.35", "close 1011 (server-error; keepalive-timeout)")]
#[case("uvicorn-0.54-websockets", "close 1011 (server-error; keepalive-timeout)")]
#[case("uvicorn-0.54", "close 1000 (ok; clean)")]
#[case("uvicorn-0.54-wsproto", "close 1000 (ok; clean)")]
#[case("hypercorn-0.18", "close 1000 (ok; clean)")]
#[case("daphne-4.2", "close 1000 (ok; clean)")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_pong_under_way_is_late_behind_one_library(#[case] name: &str, #[case] expected: &str) {
    let python = crate::python::python();
    let directory = tempfile::tempdir().unwrap();
    let stall = Duration::from_secs(45);
    let step = |act| Step::new(act, Duration::from_secs(100));
    let steps = [
        step(Action::Open(Request::standard("GET", "/"))),
        // The ping goes out 20 s after the accept, and its answer takes 0.3 s, as does the message, which comes first.
        Step::new(Action::Pause, Duration::from_millis(19_800)),
        step(Action::SendText("1".to_owned())),
        step(Action::Wait(Awaited::Text("done".to_owned()))),
        step(Action::Pause),
        step(Action::Close(relapse_core::wire::close_code::CloseCode::NORMAL)),
    ];
    let endings = ["time.sleep(", "await asyncio.to_thread(time.sleep, "].map(|work| {
        let site = site_that_blocks(&python, directory.path(), stall);
        std::fs::write(directory.path().join("service.py"), SERVICE.replace("time.sleep(", work)).unwrap();
        Runtime::new(Clock::Virtual).block_on(async {
            let launched = PythonTarget::launch(site, &binding(), String::new(), profile(name), 1).await;
            let (target, _) = launched.unwrap_or_else(|trouble| panic!("{}", trouble.message));
            let slow = relapse::discover::read_edge_fault("delay_bytes direction=to-server delay_ms=300").unwrap();
            let transcript = run::converse(&steps, Plan { seed: 1, faults: vec![slow] }, &target).await.unwrap();
            target.stop().await.unwrap();
            classify::readings(&transcript)[0].outcome().to_string()
        })
    });
    assert_eq!(endings, [expected, "close 1000 (ok; clean)"]);
}

/// Daphne lets an app take 5 s to answer a handshake, whatever it does meanwhile, and then drops the connection. The app is
/// told, and what it still sends goes nowhere.
#[rstest]
#[case::in_time("await asyncio.sleep(4)\n    await send({'type': 'websocket.accept'})", "passed", None)]
#[case::too_late(
    "await asyncio.sleep(6)\n    await send({'type': 'websocket.accept'})",
    "failed",
    Some("drop (1006) (dropped, handshake-timeout)")
)]
#[case::never("return", "failed", Some("drop (1006) (dropped, returned-without-response)"))]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_handshake_has_its_time(#[case] act: &str, #[case] expected: &str, #[case] told: Option<&str>) {
    let directory = crate::rulings::app(&format!(
        "async def late(scope, receive, send):\n    await receive()\n    {act}\n    await receive()\n"
    ));
    let case = "summary = \"x\"\nstep = [{ open = \"/late\", within_ms = 20000 }]\n[expect]\naccept = [\"ok\"]\n";
    let more = ["--target", "asgi:service:app", "--profile", "daphne-4.2"];
    let (_, verdict, entry) = crate::rulings::run(directory.path(), case, &more);
    assert_eq!(verdict, expected, "{entry:#}");
    if let Some(told) = told {
        assert!(entry["after"]["clause"].as_str().unwrap().starts_with(told), "{entry:#}");
    }
}
