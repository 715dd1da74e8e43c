//! Python applications behind real servers: the same class and cause as where only a profile of the server stands, and
//! whatever is wrong is told.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use relapse::{run, target::Target as _};
use relapse_core::{
    asgi::event::Outbound,
    client::step::{Action, Awaited, ClientStrictness, Request, Step},
    error::AppError,
    judge::classify,
    plan::Plan,
    record::transcript::{Event, EventKind, Transcript},
    wire::head::header,
};
use relapse_python::{
    app::Python as PythonTarget,
    process::{
        Installation as PythonInstallation, InterpreterOrigin, Requirements, START_LIMIT, Server as PythonServer,
        ServerChoice, Site as PythonSite,
    },
    served::Served,
};
use relapse_simulate::clock::{Clock, Runtime};
use rstest::rstest;

use crate::{
    python::{apps, binding, python, site, that_ends},
    stage::install_all,
    support::profile,
};

/// An interpreter that has this server.
pub(crate) fn interpreter(server: &ServerChoice) -> PathBuf {
    let python = python();
    install_all(&python);
    installed(server.interpreter(&python, InterpreterOrigin::Default, &|_| {}))
}

/// The interpreter of an environment; where none can be made the test fails and says why.
pub(crate) fn installed(made: Result<PathBuf, AppError>) -> PathBuf {
    made.unwrap_or_else(|trouble| panic!("{}\n{}", trouble.message, trouble.details))
}

/// One application, whose path says what it does.
const SERVICE: &str = r#"
import asyncio, logging

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    path = scope["path"]
    await receive()
    if path == "/raises":
        raise KeyError("room")
    if path == "/returns":
        return
    if path == "/refuses":
        return await send({"type": "websocket.close", "code": 4401})
    if path == "/denies":
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        return await send({"type": "websocket.http.response.body", "body": b"{}"})
    if path == "/health":
        logging.getLogger("service").error("not well")
        await send({"type": "http.response.start", "status": 500, "headers": []})
        return await send({"type": "http.response.body", "body": b"down"})
    await send({"type": "websocket.accept"})
    if path == "/accepts_and_raises":
        raise AttributeError("'str' object has no attribute 'name'")
    if path == "/accepts_and_returns":
        return
    if path == "/internal":
        await send({"type": "websocket.close", "code": 1011, "reason": "boom"})
    while (await receive())["type"] != "websocket.disconnect":
        pass
"#;

/// Long enough for a busy machine; what hangs costs as much.
const LIMIT: Duration = Duration::from_secs(2);

fn visits() -> Vec<(&'static str, Vec<Step>)> {
    let step = |act| Step::new(act, LIMIT);
    let paths = [
        "/raises",
        "/returns",
        "/refuses",
        "/denies",
        "/accepts_and_raises",
        "/accepts_and_returns",
        "/internal",
        "/ok",
    ];
    let open = |path: &str| step(Action::Open(Request::standard("GET", path)));
    let mut visits: Vec<_> = paths.map(|path| (path, vec![open(path), step(Action::Wait(Awaited::Close))])).into();
    visits.push(("/health", vec![step(Action::Request(Request::standard("GET", "/health")))]));
    let keyless = Request { without: vec!["Sec-WebSocket-Key".to_owned()], ..Request::standard("GET", "/ok") };
    visits.push(("a handshake without a key", vec![step(Action::Open(keyless))]));
    visits
}

/// A server, and the application `service:app` of a directory.
pub(crate) fn installation(server: &str, directory: &Path) -> PythonInstallation {
    let server: ServerChoice = server.parse().unwrap();
    let site = site(&interpreter(&server), directory, "service:app");
    PythonInstallation { site, server, flags: Vec::new(), start_limit: START_LIMIT }
}

fn write(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), text).unwrap();
    directory
}

fn endings(transcripts: Vec<Transcript>) -> Vec<String> {
    let outcome = |transcript: &Transcript| classify::readings(transcript)[0].outcome().to_string();
    visits()
        .iter()
        .zip(&transcripts)
        .map(|((path, _), transcript)| format!("{path}: {}", outcome(transcript)))
        .collect()
}

/// The real server's answers, and the event log behind it, are judged as where a profile plays the server. Each software keeps
/// its log in its own way.
#[rstest]
#[case("uvicorn==0.54.0", "uvicorn-0.54")]
#[case("hypercorn==0.18.0", "hypercorn-0.18")]
#[case("daphne==4.2.3", "daphne-4.2")]
#[case("granian==2.8.7", "granian-2.8")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_real_server_is_judged_as_its_profile(#[case] server: &str, #[case] like: &str) {
    let directory = write(SERVICE);
    let installation = installation(server, directory.path());
    let site = installation.site.clone();
    let real = Runtime::new(Clock::Real).block_on(async {
        let (server, _) = PythonServer::start(installation).await.unwrap();
        let served = Served::new(server, &binding(), String::new());
        let mut transcripts = Vec::new();
        for (_, steps) in visits() {
            transcripts.push(run::converse(&steps, Plan::default(), &served).await.unwrap());
            served.clear().await.unwrap();
        }
        served.stop().await.unwrap();
        transcripts
    });
    let logged = real[8].logs().any(|(_, message)| message == "not well");
    assert!(logged, "what the application logs is in the transcript: {:#?}", real[8]);
    let played = Runtime::new(Clock::Virtual).block_on(async {
        let launched = PythonTarget::launch(site, &binding(), String::new(), profile(like), 1).await;
        let (target, _) = launched.unwrap();
        let mut transcripts = Vec::new();
        for (_, steps) in visits() {
            transcripts.push(run::converse(&steps, Plan::default(), &target).await.unwrap());
            target.clear().await.unwrap();
        }
        transcripts
    });
    assert_eq!(endings(real), endings(played));
}

/// An application that hides what goes wrong: its path says how.
const HIDES: &str = r#"
import logging, threading, traceback

def parse(text):
    return int(text)

def work():
    raise LookupError("no row")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    path, status = scope["path"], 200
    await receive()
    try:
        if path != "/thread":
            parse(path)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    except ValueError:
        status = 500
        if path == "/prints":
            print("it went wrong")
            traceback.print_exc()
        if path == "/logs":
            logging.getLogger("service").exception("it went wrong")
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})
"#;

/// An exception that an app swallows, prints or logs is evidence, with type, text and place.
#[rstest]
#[case("uvicorn==0.54.0")]
#[case("hypercorn==0.18.0")]
#[case("daphne==4.2.3")]
#[case("granian==2.8.7")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_an_application_hides_is_evidence(#[case] server: &str) {
    let directory = write(HIDES);
    let installation = installation(server, directory.path());
    let found = Runtime::new(Clock::Real).block_on(async {
        let (server, _) = PythonServer::start(installation).await.unwrap();
        let served = Served::new(server, &binding(), String::new());
        let mut found = Vec::new();
        for path in ["/swallows", "/prints", "/logs", "/thread"] {
            let steps = [Step::new(Action::Request(Request::standard("GET", path)), LIMIT)];
            let transcript = run::converse(&steps, Plan::default(), &served).await.unwrap();
            served.clear().await.unwrap();
            let evidence = transcript.events.iter().filter_map(|event| match &event.what {
                EventKind::Handled(exception) => Some(exception.located()),
                EventKind::Raised(exception) => Some(format!("raised {}", exception.located())),
                EventKind::Logged { message, .. } if message.starts_with("it went wrong") => Some(message.clone()),
                _ => None,
            });
            found.push(evidence.collect::<Vec<_>>());
        }
        served.stop().await.unwrap();
        found
    });
    let no_number =
        |path: &str| format!("ValueError: invalid literal for int() with base 10: '{path}' (service.py:5 in parse)");
    let logged = "it went wrong: ValueError: invalid literal for int() with base 10: '/logs'";
    let expected = [
        vec![no_number("/swallows")],
        vec!["it went wrong".to_owned(), no_number("/prints")],
        vec![logged.to_owned(), no_number("/logs")],
        vec!["LookupError: no row (service.py:8 in work)".to_owned()],
    ];
    assert_eq!(found, expected, "{server}");
}

/// Of a long payload the witness tells both ends, so that what an app sends does not fill the harness. The client gets it all.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_long_payload_is_told_by_its_ends() {
    const LENGTH: usize = 3_000_000;
    let directory = write(
        "async def app(scope, receive, send):
    if scope['type'] == 'http':
        body = 'ä' + 'x' * 2_999_996 + 'ö'
        await send({'type': 'http.response.start', 'status': 200, 'headers': []})
        await send({'type': 'http.response.body', 'body': body.encode()})
",
    );
    let installation = installation("uvicorn==0.54.0", directory.path());
    let transcript = Runtime::new(Clock::Real).block_on(async {
        let (server, _) = PythonServer::start(installation).await.unwrap();
        let served = Served::new(server, &binding(), String::new());
        let steps = [Step::new(Action::Request(Request::standard("GET", "/")), 10 * LIMIT)];
        run::converse(&steps, Plan::default(), &served).await.unwrap()
    });
    let length = |event: &Event| match &event.what {
        EventKind::Sent(Outbound::ResponseBody { body, .. }) => {
            assert!(body.starts_with("ä".as_bytes()) && body.ends_with("ö".as_bytes()));
            Some((body.len(), event.omitted_bytes))
        }
        _ => None,
    };
    let lengths: Vec<_> = transcript.events.iter().filter_map(length).collect();
    let ends = 64 << 10;
    assert_eq!(lengths, [(ends, (LENGTH - ends) as u64)]);
    let outcome = classify::readings(&transcript)[0].outcome();
    assert_eq!(outcome.ending.to_string(), "http 200");
    let seen = transcript.events.iter().find_map(|event| match &event.what {
        EventKind::BodySeen { body, .. } => Some(body.len() as u64 + event.omitted_bytes),
        _ => None,
    });
    assert_eq!(seen, Some(LENGTH as u64));
}

const LIFESPAN: &str = "
import os, sys, asyncio
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        await receive()
";

fn trouble(installation: PythonInstallation) -> String {
    let AppError { message, details, .. } =
        Runtime::new(Clock::Real).block_on(PythonServer::start(installation)).unwrap_err();
    format!("{message}\n{details}")
}

/// Whatever keeps a server from starting is told.
#[rstest]
#[case::no_module("no_such_module:app", "", "There is no module no_such_module")]
#[case::its_own_import("service:app", "import no_such_package", "no_such_package")]
#[case::lifespan_failed(
    "service:app",
    "        await send({'type': 'lifespan.startup.failed', 'message': 'no database'})",
    "the application failed to start: no database"
)]
#[case::exits(
    "service:app",
    "        print('out of luck')\n        os._exit(3)",
    "ended before it listened: exit status: 3"
)]
#[case::hangs(
    "service:app",
    "        await asyncio.sleep(1000)",
    "uvicorn==0.35.0 did not start within 4 s: the application has not said `lifespan.startup.complete`"
)]
#[case::blocks(
    "service:app",
    "if 'relapse_witness' in sys.modules:\n    import time\n    time.sleep(1000)",
    "did not start within 4 s: the import of the application goes on"
)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_server_that_does_not_start_is_told(#[case] app: &str, #[case] text: &str, #[case] expected: &str) {
    let directory = write(&format!("{LIFESPAN}{text}\n"));
    let installation = installation("uvicorn==0.35.0", directory.path());
    let site = PythonSite { app: app.to_owned(), ..installation.site };
    let told = trouble(PythonInstallation { site, start_limit: Duration::from_secs(4), ..installation });
    assert!(told.contains(expected), "{told}");
}

/// The end of a server by its application is reported, and another follows on the same port.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_server_that_dies_is_followed_by_another() {
    let text =
        "import os\nasync def app(scope, receive, send):\n    if scope['type'] != 'lifespan':\n        os._exit(3)\n";
    let directory = write(text);
    let installation = installation("uvicorn==0.35.0", directory.path());
    Runtime::new(Clock::Real).block_on(async {
        let (server, _) = PythonServer::start(installation).await.unwrap();
        let served = Served::new(server, &binding(), String::new());
        let steps = [Step::new(Action::Request(Request::standard("GET", "/")), LIMIT)];
        for number in 0..2 {
            let transcript = run::converse(&steps, Plan::default(), &served).await.unwrap();
            assert_eq!(classify::readings(&transcript)[0].outcome().ending.to_string(), "drop (1006)");
            let exited = transcript.events.iter().any(|event| matches!(event.what, EventKind::Exited { .. }));
            assert_eq!(exited, number == 1, "{transcript:#?}");
        }
    });
}

/// How an application ends when its server is told to stop is told, whichever that is. Daphne tells it nothing.
#[rstest]
#[case::uvicorn("uvicorn==0.54.0", "raise KeyError('pool')", "KeyError: 'pool' (service.py:8 in app) left")]
#[case::uvicorn_in_order("uvicorn==0.54.0", "await send({'type': 'lifespan.shutdown.complete'})", "")]
#[case::uvicorn_late(
    "uvicorn==0.54.0",
    "await asyncio.sleep(1000)",
    "uvicorn==0.54.0 did not end within 5 s of SIGTERM"
)]
#[case::hypercorn("hypercorn==0.18.0", "raise KeyError('pool')", "KeyError: 'pool' (service.py:8 in app) left")]
#[case::hypercorn_in_order("hypercorn==0.18.0", "await send({'type': 'lifespan.shutdown.complete'})", "")]
#[case::granian("granian==2.8.7", "raise KeyError('pool')", "KeyError: 'pool' (service.py:8 in app) left")]
#[case::daphne("daphne==4.2.3", "raise KeyError('pool')", "")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_end_behind_a_server_is_looked_at(#[case] server: &str, #[case] with: &str, #[case] expected: &str) {
    let directory = write(&that_ends(with));
    let installation = installation(server, directory.path());
    let complaint = Runtime::new(Clock::Real).block_on(async {
        let (server, _) = PythonServer::start(installation).await.unwrap();
        Served::new(server, &binding(), String::new()).shut_down().await.unwrap().join("; ")
    });
    assert!(if expected.is_empty() { complaint.is_empty() } else { complaint.contains(expected) }, "{complaint}");
}

/// An interpreter that was chosen for an application has its server, or it is said what to do.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_server_that_is_not_there_is_told() {
    let python = python();
    let directory = write(SERVICE);
    let bare = directory.path().join("bare");
    let made = Command::new(python).args(["-m", "venv", "--without-pip"]).arg(&bare).status().unwrap();
    assert!(made.success());
    let mut relapse = crate::support::relapse_command();
    relapse.current_dir(directory.path()).args(["run", "--target", "asgi:service:app", "--server", "daphne==4.2.3"]);
    let output = relapse.arg("--python").arg(bare.join("bin/python")).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && told.contains("has no daphne: install it there with"), "{told}");
}

/// A command that is told to end ends the server too, and all processes that it started.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn nothing_is_left_of_a_server() {
    // It never starts, and its process says which it is.
    let text = "
import os, sys, time
if 'relapse_witness' in sys.modules:
    child = os.fork()
    if child == 0:
        time.sleep(1000)
    open('pids', 'w').write(f'{os.getpid()} {child}\\n')
    time.sleep(1000)
async def app(scope, receive, send): pass
";
    let directory = write(text);
    let server: ServerChoice = "uvicorn==0.35.0".parse().unwrap();
    let python = interpreter(&server);
    let mut relapse = crate::support::signaled_command();
    relapse.current_dir(directory.path()).args([
        "run",
        "--target",
        "asgi:service:app",
        "--server",
        "uvicorn",
        "--python",
    ]);
    let mut relapse = relapse.arg(python).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // It says first how the application is spoken to, and then nothing.
    let pids = directory.path().join("pids");
    let read = || std::fs::read_to_string(&pids).ok().filter(|text| text.ends_with('\n'));
    let text = wait_for("the server's process", read);
    assert!(Command::new("kill").args(["-INT", &relapse.id().to_string()]).status().unwrap().success());
    assert_eq!(relapse.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    BufReader::new(relapse.stderr.take().unwrap()).read_line(&mut said).unwrap();
    for pid in text.split_whitespace() {
        // Gone, or dead and not yet reaped by the process that inherits it.
        let is_gone = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            (status.is_empty() || status.contains(") Z ")).then_some(())
        };
        wait_for("the end of it", is_gone);
    }
}

/// Looks again until something is there, for 20 s at most.
fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    for _ in 0..2000 {
        if let Some(found) = look() {
            return found;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "a process that the test does not own sends no event when it is so far"
        )]
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} was waited for in vain");
}

/// The reports' claims about the transport, on the framework and the server of their time: the row, the client's
/// answer, and the application's exception.
const REPORTED: [(&str, &str, &str); 21] = [
    ("/raises", "http 500", "'URL' object has no attribute 'query_params'"),
    ("/closes", "http 403", ""),
    ("/returns", "http 500", ""),
    ("/receives", "http 500", "WebSocket is not connected. Need to call \"accept\" first."),
    ("/sends", "http 500", "\"websocket.http.response.start\", but got 'websocket.send'"),
    ("/refuses", "http 401", ""),
    ("/forbids", "http 401", ""),
    ("/limits", "http 500", ""),
    ("/violates", "http 403", ""),
    ("/denies", "http 401", ""),
    ("/selects", "bad handshake (1006)", ""),
    ("/accepts-then-raises", "drop (1006)", "'URL' object has no attribute 'query_params'"),
    ("/accepts-then-returns", "hang", ""),
    ("/accepts-then-closes_and_receives", "close 1000", "WebSocket is not connected. Need to call \"accept\" first."),
    ("/accepts-then-accepts", "drop (1006)", "Expected ASGI message"),
    ("/accepts-then-closes_reserved", "drop (1006)", "invalid status code"),
    ("/accepts-then-closes_long", "drop (1006)", "control frame too long"),
    ("/accepts-then-closes_long_and_swallows", "hang", ""),
    ("/accepts-then-violates", "close 1008", ""),
    ("/accepts-then-refuses", "drop (1006)", "but got 'websocket.http.response.start'"),
    ("/no/such/path", "http 403", ""),
];

/// The reports' application behind the server of their time, with these arguments.
fn reported(flags: &[&str]) -> PythonInstallation {
    let python = python();
    install_all(&python);
    let requirements =
        Requirements::of("fixtures/requirements/reported.txt", Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    let python = installed(requirements.install(&python, &|_| {}));
    let (site, server) = (site(&python, &apps(), "reported:app"), "uvicorn==0.35.0".parse().unwrap());
    let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    PythonInstallation { site, server, flags, start_limit: START_LIMIT }
}

/// The transcript of a client of the reports' application that does this, and waits for the end.
async fn visit(served: &Served, act: Action) -> Transcript {
    let step = |act| Step::new(act, LIMIT);
    let transcript =
        run::converse(&[step(act), step(Action::Wait(Awaited::Close))], Plan::default(), served).await.unwrap();
    served.clear().await.unwrap();
    transcript
}

fn ending(transcript: &Transcript) -> String {
    classify::readings(transcript)[0].outcome().ending.to_string()
}

/// A client that takes what Python's own takes.
fn lenient(path: &str) -> Request {
    Request { client: ClientStrictness::Library, ..Request::standard("GET", path) }
}

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_transport_is_as_reported() {
    let installation = reported(&[]);
    let seen = Runtime::new(Clock::Real).block_on(async {
        let (server, _) = PythonServer::start(installation).await.unwrap();
        let served = Served::new(server, &binding(), String::new());
        let mut seen = Vec::new();
        for (path, ..) in REPORTED {
            let transcript = visit(&served, Action::Open(lenient(path))).await;
            let raised = transcript.events.iter().find_map(|event| match &event.what {
                EventKind::Raised(exception) => Some(exception.message.clone()),
                _ => None,
            });
            seen.push((path, ending(&transcript), raised.unwrap_or_default()));
        }
        // A path for WebSockets only does not exist for any other client.
        let plain = visit(&served, Action::Request(Request::standard("GET", "/raises"))).await;
        assert_eq!(ending(&plain), "http 404");
        // The handler of exceptions loses their headers; the framework's own keeps them.
        for (path, expected) in [("/limits", None), ("/refuses", Some(&b"5"[..]))] {
            let refused = visit(&served, Action::Open(lenient(path))).await;
            let reading = &classify::readings(&refused)[0];
            assert_eq!(header(&reading.response.unwrap().headers, "retry-after"), expected, "{path}");
        }
        // A server that selects nothing of what was offered is left by browsers only.
        let offers = vec!["chat".to_owned()];
        for (client, expected) in
            [(ClientStrictness::Library, "hang"), (ClientStrictness::Browser, "bad handshake (1006)")]
        {
            let open = Request { client, offers: offers.clone(), ..lenient("/accepts-then-receives") };
            assert_eq!(ending(&visit(&served, Action::Open(open)).await), expected, "{client:?}");
        }
        seen
    });
    for ((path, ending, raised), (_, expected, message)) in seen.iter().zip(REPORTED) {
        let is_raised = if message.is_empty() { raised.is_empty() } else { raised.contains(message) };
        assert!(ending == expected && is_raised, "{path}: {ending}, {raised:?}; reported: {expected}, {message:?}");
    }
}

/// Without a library for WebSockets the server of the reports takes an upgrade for a plain request.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn without_a_websocket_library_an_upgrade_is_lost() {
    let installation = reported(&["--ws", "none"]);
    Runtime::new(Clock::Real).block_on(async {
        let (server, _) = PythonServer::start(installation).await.unwrap();
        let served = Served::new(server, &binding(), String::new());
        assert_eq!(ending(&visit(&served, Action::Open(lenient("/accepts"))).await), "http 404");
    });
}

/// The command, in a directory with an app and a case.
fn command(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let case = "summary = \"It answers.\"\n\n[[step]]\nrequest = \"GET /\"\n\n[expect]\naccept = [\"http 200\"]\n";
    std::fs::write(directory.join("case.toml"), case).unwrap();
    let mut relapse = crate::support::relapse_command();
    relapse.current_dir(directory).args(["run", "case.toml", "--target", "asgi:service:app"]).args(arguments);
    let output = relapse.output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

const ANSWERS: &str = "
    if scope['type'] == 'http':
        await send({'type': 'http.response.start', 'status': 200, 'headers': []})
        await send({'type': 'http.response.body', 'body': b'ok'})
";

/// The app finds its own modules and ours, whatever PYTHONPATH is said to be.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_python_path_reaches_an_app_behind_a_server() {
    let text = format!("import elsewhere\nasync def app(scope, receive, send):{ANSWERS}");
    let directory = write(&text);
    let here = directory.path();
    let python = interpreter(&"uvicorn==0.54.0".parse().unwrap());
    std::fs::create_dir(here.join("more")).unwrap();
    std::fs::write(here.join("more/elsewhere.py"), "").unwrap();
    let arguments = ["--server", "uvicorn==0.54.0", "--python", python.to_str().unwrap()];
    let path = format!("PYTHONPATH={}", here.join("more").display());
    let (code, told) = command(here, &[&arguments[..], &["--env", &path]].concat());
    assert!(code == Some(0) && told.contains("1 PASSED"), "{told}");
    let (code, told) = command(here, &arguments);
    assert!(code == Some(1) && told.contains("No module named 'elsewhere'"), "{told}");
}

/// An app that fails over lifespan events, and never says that it started, serves without them.
const WITHOUT_LIFESPAN: &str = "
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        await receive()
        await send({'type': 'lifespan.startup.failed', 'message': 'no lifespan here'})
";

/// `--lifespan off` keeps lifespan events away from an app on every target that can; the other one says that it cannot.
#[rstest]
#[case::in_memory(None)]
#[case::uvicorn(Some("uvicorn==0.35.0"))]
#[case::granian(Some("granian==2.8.7"))]
#[case::daphne(Some("daphne==4.2.3"))]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn lifespan_events_can_be_left_out(#[case] server: Option<&str>) {
    let directory = write(&format!("{WITHOUT_LIFESPAN}{ANSWERS}"));
    let python = match server {
        Some(server) => interpreter(&server.parse().unwrap()),
        None => python(),
    };
    let mut arguments = vec!["--python", python.to_str().unwrap()];
    server.iter().for_each(|server| arguments.extend(["--server", server]));
    let (code, told) = command(directory.path(), &[&arguments[..], &["--lifespan", "off"]].concat());
    assert!(code == Some(0) && told.contains("1 PASSED"), "{told}");
    // Daphne sends none anyway.
    let (code, told) = command(directory.path(), &arguments);
    let is_daphne = server.is_some_and(|server| server.starts_with("daphne"));
    assert_eq!(code, Some(i32::from(!is_daphne)), "{told}");
    assert!(is_daphne || told.contains("no lifespan here"), "{told}");
}

/// Nothing is looked for or installed before that is said.
#[test]
fn a_server_that_cannot_leave_lifespan_events_out_says_so() {
    let directory = write(&format!("{WITHOUT_LIFESPAN}{ANSWERS}"));
    let (code, told) = command(directory.path(), &["--server", "hypercorn==0.0.1", "--lifespan", "off"]);
    let expected =
        "error: hypercorn==0.0.1 sends lifespan events to every application; `--lifespan off` needs another\n";
    assert_eq!((code, told.as_str()), (Some(2), expected));
}
