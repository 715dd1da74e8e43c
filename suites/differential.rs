//! Profiles held against their servers by small programs, and what only that strictness shows of an application.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use relapse::{discover::read_edge_fault, run, service_file::ServiceFile, target::Target as _};
use relapse_core::{
    asgi::event::Inbound,
    client::step::{Action, Request, Step},
    fault::Fault,
    plan::Plan,
    record::transcript::{EventKind, Transcript},
};
use relapse_python::{
    app::Python as PythonTarget,
    differential::{DifferentialSetup, GeneratedApp, ProgramDifference, compare},
    process::{ServerChoice, Site as PythonSite},
};
use relapse_simulate::clock::{Clock, Runtime};
use rstest::rstest;

use crate::{
    python::{python, site},
    served::interpreter,
    support::{at_a_time, profile, server_names, step},
};

/// So many programs are performed here; `relapse profile differential` performs more.
const PROGRAMS: u64 = 100;

/// A program shows in memory what it shows behind the server. Only a few servers run at a time: each is given only so
/// much time, and mostly waits.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn programs_show_the_same_in_memory_and_for_real() {
    let wrong = at_a_time(3, &server_names(), |name| unrecorded(name, 1, PROGRAMS)).concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Rare programs, each of which once differed.
#[rstest]
// The rest of a body comes when the answer is whole.
#[case::late_rest("hypercorn-0.18", 501360)]
// The application receives and closes in the turn in which it refused its client.
#[case::turn_of_a_refusal("uvicorn-0.54", 500819)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_rare_program_shows_the_same(#[case] name: &str, #[case] seed: u64) {
    let wrong = unrecorded(name, seed, 1);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// The differences between a profile and its server that the profile does not record.
fn unrecorded(name: &str, seed: u64, programs: u64) -> Vec<String> {
    let profile = profile(name);
    let server: ServerChoice = profile.choice.parse().unwrap();
    let python = interpreter(&server);
    let setup = DifferentialSetup { server, profile, seed, programs };
    let compared = compare(&setup, &python, &|_| {}).unwrap();
    let describe = |difference: &ProgramDifference| {
        let (memory, server) = (difference.memory.0.join("\n"), difference.server.0.join("\n"));
        format!(
            "{name}, seed {}\n{}\nin memory\n{memory}\nfor real\n{server}",
            difference.program.seed, difference.program
        )
    };
    compared.unrecorded().map(describe).collect()
}

/// A program is its seed, and together they try every event in every way.
#[test]
fn programs_come_from_their_seed() {
    let mut words = BTreeSet::new();
    for seed in 0..1000 {
        let program = GeneratedApp::draw(seed);
        assert_eq!(program, GeneratedApp::draw(seed));
        words.extend(program.to_string().split([' ', ',', '\n', ':', '.']).map(str::to_owned));
    }
    let all = [
        "receive",
        "receive_soon",
        "raise",
        "return",
        "wait",
        "accept",
        "accept_named",
        "accept_headed",
        "text",
        "bytes",
        "both",
        "neither",
        "close",
        "close_saying",
        "close_surrogates",
        "surrogates",
        "deny",
        "deny_more",
        "deny_body",
        "start",
        "more",
        "body",
        "try",
        "other",
        "leaves",
        "asks",
        "rest",
        "GET",
        "POST",
        "WebSocket",
        "`chat`",
    ];
    for word in all {
        assert!(words.contains(word), "no program has {word}");
    }
}

/// The transcripts of these steps, one list after the other, on this app behind a server in memory.
fn converse(text: &str, server: &str, scripts: &[(&[Step], Vec<Fault>)]) -> Vec<Transcript> {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("service.py"), text).unwrap();
    let site: PythonSite = site(&python, directory.path(), "service:app");
    Runtime::new(Clock::Virtual).block_on(async {
        let launched = PythonTarget::launch(site, &ServiceFile::default(), String::new(), profile(server), 1).await;
        let (target, _) = launched.unwrap();
        let mut transcripts = Vec::new();
        for (steps, faults) in scripts {
            let plan = Plan { seed: 1, faults: faults.clone() };
            transcripts.push(run::converse(steps, plan, &target).await.unwrap());
            target.clear().await.unwrap();
        }
        target.stop().await.unwrap();
        transcripts
    })
}

/// How the application's calls ended, each with its place.
fn ends(transcript: &Transcript) -> Vec<String> {
    let end = |what: &EventKind| match what {
        EventKind::Returned => Some("returned".to_owned()),
        EventKind::Raised(exception) => Some(exception.located()),
        _ => None,
    };
    transcript.events.iter().filter_map(|event| end(&event.what)).collect()
}

fn open(path: &str) -> Step {
    step(Action::Open(Request::standard("GET", path)))
}

/// Keeps the send of every caller for good, and greets all of them whenever one comes.
const GREETER: &str = "
everybody = []

async def app(scope, receive, send):
    assert scope['type'] == 'websocket'
    await receive()
    await send({'type': 'websocket.accept'})
    everybody.append(send)
    for one in everybody:
        await one({'type': 'websocket.send', 'text': 'welcome'})
    await receive()
";

/// A send of a call that is over does what it does on the server, and is never waited for.
#[rstest]
#[case::legacy("uvicorn-0.35", "RuntimeError: Unexpected ASGI message 'websocket.send', after sending")]
#[case::sansio("uvicorn-0.54", "ClientDisconnected")]
#[case::hypercorn("hypercorn-0.18", "returned")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_send_after_the_call_ends(#[case] server: &str, #[case] expected: &str) {
    let visit: &[Step] = &[open("/"), step(Action::Leave)];
    let scripts = [(visit, Vec::new()), (visit, Vec::new())];
    let transcripts = converse(GREETER, server, &scripts);
    assert_eq!(ends(&transcripts[0]), ["returned"]);
    let second = ends(&transcripts[1]).concat();
    assert!(second.starts_with(expected), "{second}");
    assert_eq!(second.contains("(service.py:10 in app)"), expected != "returned", "{second}");
}

/// A response of HTTP on a WebSocket is what the server makes of it, at the place of the application that sent it.
#[rstest]
#[case("uvicorn-0.35", "RuntimeError: Expected ASGI message")]
#[case("uvicorn-0.54-wsproto", "RuntimeError: Expected ASGI message")]
#[case("hypercorn-0.18", "hypercorn.utils.UnexpectedMessageError: Unexpected message type, http.response.start given")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_response_on_a_websocket_raises(#[case] server: &str, #[case] expected: &str) {
    let text = "
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        raise ValueError('not spoken')
    await receive()
    await send({'type': 'http.response.start', 'status': 204, 'headers': []})
    await send({'type': 'http.response.body'})
";
    let visit: &[Step] = &[open("/anything")];
    let transcripts = converse(text, server, &[(visit, Vec::new())]);
    let end = ends(&transcripts[0]).concat();
    assert!(end.starts_with(expected) && end.ends_with("(service.py:6 in app)"), "{end}");
    let status = transcripts[0].events.iter().find_map(|event| match &event.what {
        EventKind::ResponseSeen(head) => Some(head.status),
        _ => None,
    });
    assert_eq!(status, Some(500));
}

/// A body that is cut reaches the application as far as it came, and then its end; of one that waits for whole bodies
/// the application hears nothing.
#[rstest]
#[case("uvicorn-0.54", &["more", "gone"])]
#[case("hypercorn-0.18", &["more", "gone"])]
#[case("daphne-4.2", &[])]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_cut_body_is_told(#[case] server: &str, #[case] expected: &[&str]) {
    let text = "
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        return
    while (await receive())['type'] == 'http.request':
        pass
";
    let upload = Request { body: vec![b'u'; 300], ..Request::standard("POST", "/upload") };
    let steps: &[Step] = &[step(Action::Request(upload))];
    let cut = read_edge_fault("cut direction=to-server after_bytes=350").unwrap();
    let transcripts = converse(text, server, &[(steps, vec![cut])]);
    let told = |what: &EventKind| match what {
        EventKind::Received(Inbound::HttpRequest { body, more_body: true }) if !body.is_empty() => Some("more"),
        EventKind::Received(Inbound::HttpRequest { .. }) => Some("whole"),
        EventKind::Received(Inbound::HttpDisconnect) => Some("gone"),
        _ => None,
    };
    let told: Vec<&str> = transcripts[0].events.iter().filter_map(|event| told(&event.what)).collect();
    assert_eq!(told, expected);
}

/// The file of the application is the one that the programs are written for.
#[test]
fn the_application_knows_every_act() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/apps/programs.py");
    let text = fs::read_to_string(path).unwrap();
    for seed in 0..300 {
        let program = GeneratedApp::draw(seed);
        for act in program.connections.iter().flat_map(|connection| connection.segments.iter().flatten()) {
            let name = act.to_string();
            let name = name.rsplit('.').next().unwrap().split(':').next().unwrap().to_owned();
            let is_known =
                text.contains(&format!("name == \"{name}\"")) || text.contains(&format!("act == \"{name}\""));
            assert!(is_known, "{name}");
        }
    }
}
