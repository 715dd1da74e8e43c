//! Python applications: loaded, driven in lockstep, judged, hunted on, and kept in check.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use relapse::{
    deadline::Deadline,
    external::{External, Front},
    run,
    service_file::ServiceFile,
    target::Target as _,
};
use relapse_core::{
    client::step::{Action, Awaited, Concurrency, Request, Step},
    error::AppError,
    judge::{
        check,
        classify::{self, Exchange},
    },
    plan::Plan,
    record::transcript::{EventKind, Level, Transcript},
};
use relapse_python::{
    app::Python as PythonTarget,
    process::{BLOCKED_LIMIT, CodeCoverage, Epoch, LifespanMode, MEMORY_LIMIT, START_LIMIT, Site as PythonSite},
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    memory::LargeSlot,
    recorder::Recorder,
};
use rstest::rstest;

use crate::support::{at_a_time, open, profile, step, wait};
pub(crate) use crate::tools::python;

pub(crate) fn apps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/apps")
}

pub(crate) fn site(python: &Path, directory: &Path, app: &str) -> PythonSite {
    PythonSite {
        app: app.to_owned(),
        factory: false,
        python: python.to_owned(),
        directory: directory.to_owned(),
        environment: Vec::new(),
        blocked_limit: BLOCKED_LIMIT,
        clock: Clock::Virtual,
        fresh: false,
        memory_limit: MEMORY_LIMIT,
        start_limit: START_LIMIT,
        deadline: Deadline::NEVER,
        lifespan: LifespanMode::Auto,
        epoch: Epoch::Fixed,
        coverage: CodeCoverage::None,
    }
}

pub(crate) fn binding() -> ServiceFile {
    let path = apps().join("relapse.toml");
    ServiceFile::parse("relapse.toml", &std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The transcripts of these scripts, run one after the other on one application behind a server.
fn converse(site: PythonSite, server: &str, scripts: &[&[Step]]) -> Result<Vec<Transcript>, AppError> {
    Runtime::new(site.clock).block_on(async {
        let (target, _) = PythonTarget::launch(site, &binding(), String::new(), profile(server), 1).await?;
        let mut transcripts = Vec::new();
        for steps in scripts {
            let plan = Plan { seed: 1, faults: Vec::new() };
            transcripts.push(run::converse(steps, plan, &target).await.unwrap());
            target.clear().await.unwrap();
        }
        target.stop().await.unwrap();
        Ok(transcripts)
    })
}

/// The same on a module with this text.
fn converse_with(text: &str, scripts: &[&[Step]]) -> Result<Vec<Transcript>, AppError> {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), text).unwrap();
    let site = PythonSite { blocked_limit: Duration::from_secs(4), ..site(&python, directory.path(), "service:app") };
    converse(site, "uvicorn-0.35", scripts)
}

fn ending(transcript: &Transcript) -> String {
    Exchange::of(transcript, 0).outcome().to_string()
}

fn said(transcript: &Transcript) -> String {
    let logged = transcript.events.iter().filter_map(|event| match &event.what {
        EventKind::Logged { level: Level::Error | Level::Info, message, .. } => Some(message.as_str()),
        _ => None,
    });
    logged.collect::<Vec<_>>().join("\n")
}

/// An application whose lifespan does something when it is told to stop.
pub(crate) fn that_ends(with: &str) -> String {
    format!(
        "
import asyncio, os, time
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        await receive()
        await send({{'type': 'lifespan.startup.complete'}})
        await receive()
        {with}
        return
    await receive()
    await send({{'type': 'http.response.start', 'status': 200, 'headers': []}})
    await send({{'type': 'http.response.body', 'body': b'ok'}})
"
    )
}

/// An application's error on shutdown is reported, once, wherever it runs; a correct shutdown is not.
#[rstest]
#[case::in_order("await send({'type': 'lifespan.shutdown.complete'})", "")]
#[case::says_nothing("pass", "")]
#[case::stays_on("await send({'type': 'lifespan.shutdown.complete'}); await asyncio.sleep(1000)", "")]
#[case::raises(
    "raise KeyError('pool')",
    "KeyError: 'pool' (service.py:8 in app) left the application's lifespan when it"
)]
#[case::fails(
    "await send({'type': 'lifespan.shutdown.failed', 'message': 'Traceback\\nKeyError: 1'})",
    "the application says that its shutdown failed: KeyError: 1"
)]
#[case::hangs("await asyncio.sleep(1000)", "did not end: it was told to stop, and did not within 10 s")]
#[case::blocks("time.sleep(1000)", "the application kept its event loop to itself")]
#[case::exits("os._exit(3)", "left the application's lifespan when it was told to stop")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_end_of_an_application_is_looked_at(
    #[case] with: &str,
    #[case] expected: &str,
    #[values(false, true)] fresh: bool,
) {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), that_ends(with)).unwrap();
    let site = site(&python, directory.path(), "service:app");
    let site = PythonSite { fresh, blocked_limit: Duration::from_secs(1), ..site };
    let complaints = Runtime::new(Clock::Virtual).block_on(async {
        let (target, _) =
            PythonTarget::launch(site, &binding(), String::new(), profile("uvicorn-0.54"), 1).await.unwrap();
        for _ in 0..2 {
            let steps = [step(Action::Request(Request::standard("GET", "/")))];
            run::converse(&steps, Plan::default(), &target).await.unwrap();
            target.clear().await.unwrap();
        }
        target.shut_down().await.unwrap()
    });
    let is_told = complaints.len() == 1 && complaints[0].contains(expected);
    assert!(if expected.is_empty() { complaints.is_empty() } else { is_told }, "{complaints:?}");
}

/// The interpreter that serves one run after the other waits for the memory of the run that it serves, and so does one that is
/// started in a run: an answer that has no time to wait for another large run is not taken.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
#[expect(clippy::disallowed_methods, reason = "the end of the wait is in wall time")]
fn a_large_answer_waits_for_the_run_that_is_large() {
    let text = "
async def app(scope, receive, send):
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': b'x' * (2 << 20)})
";
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), text).unwrap();
    let site = PythonSite { lifespan: LifespanMode::Off, ..site(&python, directory.path(), "service:app") };
    let (slot, steps) = (LargeSlot::default(), [step(Action::Request(Request::standard("GET", "/")))]);
    let run = async |target: &PythonTarget| {
        let worker = slot.worker();
        worker.begin(Some(Instant::now()));
        let recorder = Recorder::within(Plan::default(), worker.of_runs());
        let transcript = run::converse_as(Concurrency::ONE, &steps, recorder, target).await.unwrap();
        target.clear().await.unwrap();
        let is_over = said(&transcript).contains("while this run waited for another large run");
        (worker.is_cut(), is_over)
    };
    Runtime::new(Clock::Virtual).block_on(async {
        let (target, _) =
            PythonTarget::launch(site, &binding(), String::new(), profile("uvicorn-0.54"), 1).await.unwrap();
        assert_eq!(run(&target).await, (false, false));
        let large = slot.worker();
        large.of_runs().grow();
        assert_eq!(run(&target).await, (true, true));
        // The process is another one now.
        assert_eq!(run(&target).await, (true, true));
        large.give_back();
        assert_eq!(run(&target).await, (false, false));
        target.stop().await.unwrap();
    });
}

/// A process that is not there any more was told of where it went.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn who_died_before_is_not_told_to_stop() {
    let text = that_ends("raise KeyError('pool')")
        .replace("    await receive()\n    await send", "    os._exit(3)\n    await send");
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), text).unwrap();
    let site = site(&python, directory.path(), "service:app");
    let complaints = Runtime::new(Clock::Virtual).block_on(async {
        let (target, _) =
            PythonTarget::launch(site, &binding(), String::new(), profile("uvicorn-0.54"), 1).await.unwrap();
        let steps = [step(Action::Request(Request::standard("GET", "/")))];
        run::converse(&steps, Plan::default(), &target).await.unwrap();
        target.shut_down().await.unwrap()
    });
    assert_eq!(complaints, [""; 0]);
}

/// An application's shutdown error is shown without the token that it was given.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_end_is_told_without_the_token() {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), that_ends("raise KeyError('a-secret-token')")).unwrap();
    let site = site(&python, directory.path(), "service:app");
    let complaints = Runtime::new(Clock::Virtual).block_on(async {
        let token = "a-secret-token".to_owned();
        let (target, _) = PythonTarget::launch(site, &binding(), token, profile("uvicorn-0.54"), 1).await.unwrap();
        External::new(target, Front::Unknown).shut_down().await.unwrap()
    });
    assert!(complaints[0].starts_with("KeyError: '<secret>' (service.py:8 in app)"), "{complaints:?}");
}

/// The command fails for it: by its exit code, in its table and in its document.
#[rstest]
#[case::run(&["run", "--path", "GET /", "--target", "asgi:service:app"])]
#[case::validate(&["validate", "--path", "GET /", "--target", "asgi:service:app"])]
#[case::hunt(&["hunt", "--cases", "30", "--path", "GET /", "--target", "asgi:service:app"])]
#[case::hunt_on_two(
    &["hunt", "--cases", "30", "--path", "GET /", "--before", "asgi:service:app", "--target", "asgi:service:app"]
)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_bad_end_fails_the_command(#[case] arguments: &[&str]) {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    for (with, code) in [("pass", 0), ("raise KeyError('pool')", 1)] {
        std::fs::write(directory.path().join("service.py"), that_ends(with)).unwrap();
        std::fs::write(directory.path().join("plain.toml"), PLAIN).unwrap();
        for format in ["human", "json"] {
            let mut relapse = crate::support::relapse_command();
            relapse
                .current_dir(directory.path())
                .args(arguments)
                .args(["--format", format])
                .arg("--python")
                .arg(&python);
            if arguments[0] == "run" {
                relapse.arg("plain.toml");
            }
            let output = relapse.output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(code), "{told}{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(told.contains("KeyError: 'pool' (service.py:8 in app) left"), code == 1, "{told}");
        }
    }
}

/// A request that is answered.
const PLAIN: &str = r#"
summary = "A request is answered."
reported = "Nothing."
root_cause = "Nothing."
scenario = "hunt"
alone = true

[[step]]
request = "GET /"
credential = "none"

[expect]
accept = ["ok"]

[symptom]
outcome = "http 500"
class = "server-error"
cause = "crash-before-response"
found_by = ["no_server_error"]
"#;

/// A session: open, be greeted, ask, be answered, close.
fn session(request: &str) -> Vec<Step> {
    vec![
        open(),
        wait("welcome"),
        step(Action::SendText(request.to_owned())),
        Step { limit: Duration::from_secs(100), ..wait("done") },
        step(Action::Close(relapse_core::wire::close_code::CloseCode::NORMAL)),
    ]
}

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_application_is_driven() {
    let python = python();
    let transcripts = converse(site(&python, &apps(), "raw:app"), "uvicorn-0.35", &[&session(r#"{"type":"ask"}"#)]);
    assert_eq!(ending(&transcripts.unwrap()[0]), "close 1000 (ok; clean)");
}

/// An application's sleep passes at once, and exactly.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_application_sleeps_on_our_clock() {
    let python = python();
    let transcripts = converse(site(&python, &apps(), "raw:app"), "hypercorn-0.18", &[&session(r#"{"type":"nap"}"#)]);
    let transcripts = transcripts.unwrap();
    assert_eq!(ending(&transcripts[0]), "close 1000 (ok; clean)");
    let when = |name: &str| {
        let seen = transcripts[0].events.iter().find(|event| match &event.what {
            EventKind::FrameSeen(frame) => String::from_utf8_lossy(&frame.payload).contains(name),
            _ => false,
        });
        seen.unwrap().at
    };
    assert_eq!(when("done") - when("welcome"), Duration::from_secs(90));
}

/// The same twice is the same, byte for byte.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn runs_are_repeatable() {
    let python = python();
    let scripts: [&[Step]; 2] = [&session(r#"{"type":"ask"}"#), &session(r#"{"type":"nap"}"#)];
    let once = || format!("{:?}", converse(site(&python, &apps(), "raw:app"), "uvicorn-0.35", &scripts).unwrap());
    assert_eq!(once(), once());
}

/// The same crash is another ending behind every server, as with the built-in backend.
#[rstest]
#[case("query", "uvicorn-0.35", "http 500 (server-error; crash-before-response)")]
#[case("query", "granian-2.8", "http 403 (disguised-error; crash-before-response)")]
#[case("after_accept", "uvicorn-0.35", "drop (1006) (dropped; crash-after-accept)")]
#[case("after_accept", "hypercorn-0.18", "close 1011 (server-error; crash-after-accept)")]
#[case("after_accept", "daphne-4.2", "close 1011 (server-error; crash-after-accept)")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn crashes_are_the_servers_to_show(#[case] defect: &str, #[case] server: &str, #[case] expected: &str) {
    let python = python();
    let environment = vec![("DEFECT".to_owned(), defect.to_owned())];
    let site = PythonSite { environment, ..site(&python, &apps(), "raw:app") };
    let transcripts = converse(site, server, &[&session(r#"{"type":"ask"}"#)]).unwrap();
    assert_eq!(ending(&transcripts[0]), expected);
    // And the application's own event log says what it was, and where.
    let raised = transcripts[0].events.iter().find_map(|event| match &event.what {
        EventKind::Raised(exception) => Some(exception.clone()),
        _ => None,
    });
    let raised = raised.unwrap();
    assert_eq!(raised.type_name, if defect == "query" { "KeyError" } else { "AttributeError" });
    let place = raised.place.unwrap();
    assert_eq!((place.file.as_str(), place.function.as_str()), ("raw.py", "converse"));
}

/// An exception that an application turns into another ending is evidence, with type, text and place, and no finding.
#[rstest]
#[case(1011)]
#[case(1000)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_swallowed_exception_is_evidence(#[case] code: u16) {
    let text = format!(
        "
async def app(scope, receive, send):
    await receive()
    if scope['type'] != 'websocket':
        return
    await send({{'type': 'websocket.accept'}})
    try:
        {{}}['answer']
    except KeyError:
        await send({{'type': 'websocket.close', 'code': {code}}})
"
    );
    let steps = [open(), step(Action::Wait(Awaited::Close))];
    let transcripts = converse_with(&text, &[&steps]);
    let transcript = &transcripts.unwrap()[0];
    let handled = transcript.of(0).filter_map(|event| match &event.what {
        EventKind::Handled(exception) => Some(exception.located()),
        _ => None,
    });
    assert_eq!(handled.collect::<Vec<_>>(), ["KeyError: 'answer' (service.py:8 in app)"]);
    assert!(ending(transcript).starts_with(&format!("close {code}")), "{}", ending(transcript));
}

/// Whatever is wrong with an application is said with what to do.
#[rstest]
#[case::no_module("no_such_module:app", "", "no_such_module")]
#[case::no_attribute("service:ap", "async def app(scope, receive, send): pass", "Did you mean service:app?")]
#[case::not_callable("service:app", "app = 3", "cannot be called")]
#[case::a_factory("service:app", "def app(): pass", "--factory")]
#[case::its_own_import("service:app", "import no_such_package", "no_such_package")]
#[case::an_error("service:app", "1 / 0", "ZeroDivisionError")]
#[case::a_variable("service:app", "import os\nos.environ['DATABASE_URL']", "--env DATABASE_URL=")]
#[case::an_exit("service:app", "raise SystemExit(3)", "exit")]
#[case::no_start(
    "service:app",
    "async def app(scope, receive, send):\n    await receive()\n    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})",
    "no database"
)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn trouble_is_told(#[case] app: &str, #[case] text: &str, #[case] expected: &str) {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), text).unwrap();
    let trouble = converse(site(&python, directory.path(), app), "uvicorn-0.35", &[]).unwrap_err();
    let mut told = trouble.message.clone();
    let _ = write!(told, "\n{}", trouble.details);
    assert!(told.contains(expected), "{told}");
}

#[test]
fn a_missing_interpreter_is_told() {
    let trouble = converse(site(Path::new("no-such-python"), &apps(), "raw:app"), "uvicorn-0.35", &[]).unwrap_err();
    assert!(trouble.message.contains("there is no `no-such-python`; --python names"), "{}", trouble.message);
    let trouble = converse(site(Path::new("python3"), Path::new("/no/such"), "raw:app"), "uvicorn-0.35", &[]);
    assert!(trouble.unwrap_err().message.contains("the directory /no/such is not there"));
}

/// Routes of an application on a framework are tested with the frameworks.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_part_in_the_interpreter_tells_the_routes() {
    let python = crate::stage::python();
    let mut command = Command::new(python);
    command.args(["-B", "-m", "unittest", "-q"]).current_dir(apps().join("../../suites/shim"));
    command.args(["test_routes", "test_examples", "test_bodies"].map(|name| format!("test_shim.Loading.{name}")));
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !told.contains("skipped"), "{told}");
}

/// The harness's part in the interpreter has tests of its own, in its own language.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_part_in_the_interpreter_keeps_its_word() {
    let python = python();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/shim");
    let text = std::fs::read_to_string(tests.join("test_shim.py")).unwrap();
    let classes = text.lines().filter_map(|line| line.strip_prefix("class ")?.strip_suffix("(ShimCase):"));
    let classes: Vec<String> = classes.map(|class| format!("test_shim.{class}")).collect();
    // The base is no test; every other class is run.
    assert_eq!(classes.len() + 1, text.lines().filter(|line| line.starts_with("class ")).count());
    at_a_time(3, &classes, |class| {
        let mut command = Command::new(&python);
        command.args(["-B", "-m", "unittest", "-q", class]).current_dir(&tests);
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !told.contains("Ran 0 tests"), "{told}");
    });
}

/// The interpreter of a virtual environment is a link, and found by its own name; beside the application, or here.
#[rstest]
#[case::beside_the_application("asgi:service:app")]
#[case::here("asgi:service:app @ before")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_virtual_environment_is_taken_as_it_is(#[case] target: &str) {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join(".venv/bin");
    std::fs::create_dir_all(&home).unwrap();
    let path = Command::new(python).args(["-c", "import sys; print(sys.executable)"]).output().unwrap().stdout;
    std::os::unix::fs::symlink(String::from_utf8(path).unwrap().trim(), home.join("python")).unwrap();
    let service = "import sys\nraise RuntimeError(sys.executable)\n";
    let place = target.split_once(" @ ").map_or(directory.path().to_owned(), |(_, name)| directory.path().join(name));
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("service.py"), service).unwrap();
    let mut relapse = crate::support::relapse_command();
    let output = relapse.current_dir(directory.path()).args(["hunt", "--target", target]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && told.contains(".venv/bin/python"), "{told}");
}

const ACCEPTS: &str = "
import os, time
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        raise NotImplementedError
    await receive()
    await send({'type': 'websocket.accept'})
";

/// An application that ends its process, or keeps its loop to itself, is reported, and another process follows.
#[rstest]
#[case::exits("    os._exit(3)", "the interpreter ended: exit status: 3")]
#[case::blocks("    time.sleep(1000)", "kept its event loop to itself for 4 s")]
#[case::forks_and_dies(
    "    os.fork() or time.sleep(1000)\n    os.kill(os.getpid(), 9)",
    "the interpreter ended: signal: 9"
)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_application_that_dies_is_followed_by_another(#[case] body: &str, #[case] expected: &str) {
    let open = [open(), wait("anything")];
    let transcripts = converse_with(&format!("{ACCEPTS}{body}\n"), &[&open, &open]);
    for transcript in transcripts.unwrap() {
        assert!(said(&transcript).contains(expected), "{}", said(&transcript));
        assert!(!classify::readings(&transcript)[0].outcome().class.is_good());
    }
}

/// An application that eats memory is stopped at its limit, and is there for the next case.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_application_that_eats_memory_is_stopped() {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    let body = "    hog = []\n    while True:\n        hog.append(bytearray(1 << 20))\n";
    std::fs::write(directory.path().join("service.py"), format!("{ACCEPTS}{body}")).unwrap();
    let site = PythonSite { memory_limit: 256 << 20, ..site(&python, directory.path(), "service:app") };
    let open = [open(), wait("anything")];
    for transcript in converse(site, "uvicorn-0.54", &[&open, &open]).unwrap() {
        let raised = transcript.events.iter().find_map(|event| match &event.what {
            EventKind::Raised(exception) => Some(exception.type_name.clone()),
            _ => None,
        });
        assert_eq!(raised.as_deref(), Some("MemoryError"), "{}", said(&transcript));
    }
}

/// An application that sends without end, and waits for no client, ends with the patience of its client.
#[rstest]
#[case::to_a_client("    while True:\n        await send({'type': 'websocket.send', 'text': 'more'})\n")]
#[case::to_no_client(
    "    while True:\n        try:\n            await send({'type': 'websocket.send', 'bytes': b'', 'text': None})\n        except Exception:\n            pass\n"
)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_endless_sender_ends_no_other_client(#[case] body: &str) {
    let scripts: &[&[Step]] = &[&[open(), step(Action::Freeze), step(Action::Leave)], &[open(), step(Action::Leave)]];
    let transcripts = converse_with(&format!("{ACCEPTS}{body}"), scripts);
    let counts = transcripts.unwrap().into_iter().map(|transcript| transcript.events.len());
    counts.for_each(|count| assert!((1..100_000).contains(&count), "{count} events"));
}

/// Its standard output is its own business.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn rubbish_on_standard_output_does_no_harm() {
    let body = "    print('\\x00rubbish' * 100_000, flush=True)\n    await send({'type': 'websocket.close'})\n";
    let scripts: &[&[Step]] = &[&[open(), wait("anything")]];
    let transcripts = converse_with(&format!("{ACCEPTS}{body}"), scripts);
    assert_eq!(ending(&transcripts.unwrap()[0]), "close 1000 (disguised-error; app-decision)");
}

/// A client that leaves is told to the application, and its call is not left behind.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_cancelled_call_is_over() {
    let python = python();
    let leave: &[Step] = &[open(), wait("welcome"), step(Action::Leave)];
    let transcripts = converse(site(&python, &apps(), "raw:app"), "uvicorn-0.35", &[leave, leave]).unwrap();
    for transcript in transcripts {
        assert!(transcript.events.iter().any(|event| event.what == EventKind::Returned), "{transcript:#?}");
        assert_eq!(transcript.residue.unwrap().connections, 0);
    }
}

/// The command in a directory: its exit code, and what it said.
fn relapse(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut relapse = crate::support::relapse_command();
    let output = relapse.current_dir(directory).args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// As an engineer does: a hunt on an application finds a planted mistake and keeps it; the reproducer is STILL BROKEN on it
/// and FIXED against the one in order.
#[rstest]
#[case("query", "KeyError")]
#[case("after_accept", "AttributeError")]
#[case("early_disconnect", "KeyError")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_planted_mistake_is_found_and_seen_to_be_gone(#[case] defect: &str, #[case] exception: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (before, after) = (directory.path().join("before"), directory.path().join("after"));
    for (place, defect) in [(&before, defect), (&after, "")] {
        std::fs::create_dir(place).unwrap();
        let text = std::fs::read_to_string(apps().join("raw.py")).unwrap();
        let text = text.replace("os.environ.get(\"DEFECT\", \"\")", &format!("{defect:?}"));
        std::fs::write(place.join("raw.py"), text).unwrap();
    }
    std::fs::copy(apps().join("relapse.toml"), directory.path().join("relapse.toml")).unwrap();
    let relapse = |arguments: &[&str]| relapse(directory.path(), arguments);
    // Without faults: what a client alone can do.
    let hunt = ["hunt", "--target", "asgi:raw:app @ before", "--cases", "60", "--faults", "edge"];
    let (code, found) = relapse(&hunt);
    assert_eq!(code, Some(1), "{found}");
    let finding = found.split("\n\n").find(|finding| finding.contains(exception)).unwrap_or_else(|| panic!("{found}"));
    assert!(finding.contains("app raised"), "{finding}");
    let again = finding.lines().find_map(|line| line.strip_prefix("reproduce: relapse run ")).unwrap();
    let capsule = again.split(' ').next().unwrap();
    let (code, said) = relapse(&["run", capsule, "--target", "asgi:raw:app @ before"]);
    assert!(code == Some(1) && said.contains("FAILED reproducers/"), "{said}");
    let (code, said) =
        relapse(&["run", capsule, "--before", "asgi:raw:app @ before", "--after", "asgi:raw:app @ after"]);
    assert!(code == Some(0) && said.contains("FIXED"), "{said}");
    let (code, said) = relapse(&["hunt", "--target", "asgi:raw:app @ after", "--cases", "60", "--faults", "edge"]);
    assert!(code == Some(0), "{said}");
}

/// An application with threads of its own is right in real time, and the advice says so.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_application_with_a_thread_keeps_real_time() {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    let body = "
    import asyncio, select, threading
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    work = lambda: (select.select([], [], [], 0.5), loop.call_soon_threadsafe(done.set))
    threading.Thread(target=work).start()
    await done.wait()
    await send({'type': 'websocket.send', 'text': '{\"type\": \"welcome\"}'})
    await receive()
";
    std::fs::write(directory.path().join("service.py"), format!("{ACCEPTS}{body}")).unwrap();
    let scripts: &[&[Step]] = &[
        &[open(), wait("welcome"), step(Action::Close(relapse_core::wire::close_code::CloseCode::NORMAL))],
        &[open(), wait("welcome")],
    ];
    let site = PythonSite { clock: Clock::Real, ..site(&python, directory.path(), "service:app") };
    let transcripts = converse(site, "uvicorn-0.54", scripts).unwrap();
    assert_eq!(ending(&transcripts[0]), "close 1000 (ok; clean)");
    assert!(transcripts[1].events.iter().any(|event| event.what == EventKind::Returned), "{:#?}", transcripts[1]);
    let app = "asgi:service:app";
    // Notes about an interpreter are shown after its end too.
    for more in [&[][..], &["--fresh"]] {
        let (_, told) = relapse(directory.path(), &[&["run", "s508_02_query", "--target", app], more].concat());
        assert!(told.contains("a thread of the app's own") && told.contains("--clock real"), "{told}");
    }
}

/// On the real clock too, an application that blocks or dies is reported.
#[rstest]
#[case::blocks("    time.sleep(1000)", "kept its event loop to itself for 1 s")]
#[case::exits("    os._exit(3)", "the interpreter ended: exit status: 3")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn trouble_is_told_in_real_time(#[case] body: &str, #[case] expected: &str) {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), format!("{ACCEPTS}{body}\n")).unwrap();
    let (clock, blocked_limit) = (Clock::Real, Duration::from_secs(1));
    let site = PythonSite { clock, blocked_limit, ..site(&python, directory.path(), "service:app") };
    let transcripts = converse(site, "uvicorn-0.35", &[&[open(), wait("anything")]]).unwrap();
    assert!(said(&transcripts[0]).contains(expected), "{}", said(&transcripts[0]));
}

/// Sends a request, and is told that it is done within 100 s.
fn ask_and_wait() -> Vec<Step> {
    let done = Step { limit: Duration::from_secs(100), ..wait("done") };
    let close = step(Action::Close(relapse_core::wire::close_code::CloseCode::NORMAL));
    vec![open(), step(Action::SendText("go".to_owned())), done, close]
}

/// A service that answers a message with `done` once this has been run, with `work` as a plain function.
fn that_works(with: &str, work: &str) -> String {
    format!(
        "
import asyncio, concurrent.futures, select, threading, time
from datetime import datetime
pool = concurrent.futures.ThreadPoolExecutor(1)
def work():
    {work}
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        raise NotImplementedError
    await receive()
    await send({{'type': 'websocket.accept'}})
    await receive()
    {with}
    await send({{'type': 'websocket.send', 'text': '{{\"type\": \"done\"}}'}})
    await receive()
"
    )
}

/// When the client is told that it is done, and what the app logged.
fn done_at(transcript: &Transcript) -> (Duration, String) {
    let is_done = |what: &EventKind| match what {
        EventKind::FrameSeen(frame) => String::from_utf8_lossy(&frame.payload).contains("done"),
        _ => false,
    };
    let seen = transcript.events.iter().find(|event| is_done(&event.what));
    (seen.unwrap_or_else(|| panic!("{}", said(transcript))).at, said(transcript))
}

/// Clocks that an app reads itself are the virtual one, so that a loop with a deadline ends at its time.
#[rstest]
#[case::monotonic("time.monotonic()")]
#[case::time("time.time()")]
#[case::perf_counter("time.perf_counter()")]
#[case::datetime("datetime.now().timestamp()")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_polling_loop_ends_in_virtual_time(#[case] clock: &str) {
    let with = format!("start = {clock}\n    while {clock} - start < 1.0: await asyncio.sleep(0.0625)");
    let transcripts = converse_with(&that_works(&with, "pass"), &[&ask_and_wait()]);
    let transcript = &transcripts.unwrap()[0];
    let (at, said) = done_at(transcript);
    // Its naps of 62.5 ms end at whole milliseconds.
    assert!(at >= Duration::from_secs(1) && at < Duration::from_millis(1020), "{at:?}");
    assert!(said.is_empty() && ending(transcript).starts_with("close 1000"), "{said}");
}

/// Work in a thread is no blocked loop, however long it takes: what it sleeps passes in virtual time, and what it really
/// does takes no virtual time.
#[rstest]
#[case::to_thread("await asyncio.to_thread(work)", "time.sleep(45)", 45)]
#[case::executor("await asyncio.get_running_loop().run_in_executor(pool, work)", "time.sleep(45)", 45)]
#[case::own_pool("await asyncio.wrap_future(pool.submit(work))", "time.sleep(45)", 45)]
#[case::waits("await asyncio.to_thread(work)", "threading.Event().wait(45)", 45)]
#[case::real("await asyncio.to_thread(work)", "select.select([], [], [], 2)", 0)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn work_in_a_thread_is_no_blocked_loop(#[case] with: &str, #[case] work: &str, #[case] seconds: u64) {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), that_works(with, work)).unwrap();
    let site = PythonSite { blocked_limit: Duration::from_secs(1), ..site(&python, directory.path(), "service:app") };
    let script = ask_and_wait();
    let once = || converse(site.clone(), "uvicorn-0.54", &[&script, &script]).unwrap();
    let transcripts = once();
    for transcript in &transcripts {
        assert_eq!(done_at(transcript), (Duration::from_secs(seconds), String::new()));
        assert!(ending(transcript).starts_with("close 1000"), "{}", ending(transcript));
    }
    assert_eq!(format!("{transcripts:?}"), format!("{:?}", once()));
}

/// A sleep on the loop's own thread passes in virtual time, too, and is told as what it is, with its place.
#[rstest]
#[case::short("work()", "time.sleep(3)", 3, "")]
#[case::long(
    "work()",
    "time.sleep(30)",
    30,
    "the application kept its event loop to itself for 30 s: service.py:6 in work"
)]
#[case::waits_for_a_thread(
    "pool.submit(work).result()",
    "time.sleep(30)",
    30,
    "the application kept its event loop to itself for 30 s: service.py:13 in app"
)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_sleep_blocks_the_loop(#[case] with: &str, #[case] work: &str, #[case] seconds: u64, #[case] expected: &str) {
    let transcripts = converse_with(&that_works(with, work), &[&ask_and_wait()]);
    let transcript = &transcripts.unwrap()[0];
    assert_eq!(done_at(transcript), (Duration::from_secs(seconds), expected.to_owned()));
    assert!(ending(transcript).starts_with("close 1000"), "{}", ending(transcript));
    let findings =
        check::findings(&check::RunView::gather(transcript, &relapse_core::judge::verdict::HealthyClient::Absent));
    let found: Vec<_> = findings.iter().filter(|finding| finding.message.contains("kept its event loop")).collect();
    assert_eq!(found.len(), usize::from(!expected.is_empty()), "{findings:?}");
}

/// A session that waits long for its answer.
const PATIENT: &str = r#"
summary = "A long turn costs no connection."
reported = "Nothing."
root_cause = "Nothing."
scenario = "hunt by route"

[[step]]
open = "/"

[[step]]
send = "go"

[[step]]
wait = "done"
within_ms = 70000

[[step]]
close = 1000

[expect]
accept = ["ok"]

[symptom]
outcome = "close 1011"
class = "server-error"
cause = "keepalive-timeout"
found_by = ["no_internal_close"]
"#;

/// A loop that is blocked for longer than the limit is a finding, also on a service of which nothing else is known; the
/// same work in a thread is none.
#[rstest]
#[case::in_the_loop("work()", 1)]
#[case::in_a_thread("await asyncio.to_thread(work)", 0)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_blocked_loop_is_a_finding(#[case] with: &str, #[case] code: i32) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), that_works(with, "time.sleep(45)")).unwrap();
    std::fs::write(directory.path().join("patient.toml"), PATIENT).unwrap();
    let (found, told) = relapse(directory.path(), &["run", "patient.toml", "--target", "asgi:service:app"]);
    assert_eq!(found, Some(code), "{told}");
    let finding = "the application kept its event loop to itself for 45 s: service.py:6 in work";
    assert_eq!(told.contains(finding), code == 1, "{told}");
}

/// A loop that is really blocked is told with the place that blocks it.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_blocked_loop_is_told_with_its_place() {
    let text = that_works("work()", "select.select([], [], [], 1000)");
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), text).unwrap();
    let site = PythonSite { blocked_limit: Duration::from_secs(1), ..site(&python, directory.path(), "service:app") };
    let transcripts = converse(site, "uvicorn-0.54", &[&ask_and_wait()]).unwrap();
    let said = said(&transcripts[0]);
    assert!(said.contains("kept its event loop to itself for 1 s at service.py:6 in work: something"), "{said}");
}

/// Each kind of thing that virtual time does not wait for has one note, with a count.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn one_note_tells_of_all_threads() {
    let directory = tempfile::tempdir().unwrap();
    let with = "for _ in range(2): threading.Thread(target=work, daemon=True).start()";
    std::fs::write(directory.path().join("service.py"), that_works(with, "select.select([], [], [], 1000)")).unwrap();
    let (_, told) = relapse(directory.path(), &["run", "s508_02_query", "S517-2", "--target", "asgi:service:app"]);
    let notes: Vec<&str> = told.lines().filter(|line| line.contains("a thread of the app's own")).collect();
    assert!(notes.len() == 1 && notes[0].contains("of this kind; virtual time does not wait for it"), "{told}");
}

/// An application's state is not there in the next case where each has an interpreter of its own.
#[rstest]
#[case(false, &["1", "2"])]
#[case(true, &["1", "1"])]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn each_case_can_have_an_interpreter_of_its_own(#[case] fresh: bool, #[case] expected: &[&str]) {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    let body = "    seen.append(1)\n    await send({'type': 'websocket.close', 'reason': str(len(seen))})\n";
    std::fs::write(directory.path().join("service.py"), format!("seen = []\n{ACCEPTS}{body}")).unwrap();
    let site = PythonSite { fresh, ..site(&python, directory.path(), "service:app") };
    let look: &[Step] = &[open(), wait("anything")];
    let transcripts = converse(site, "uvicorn-0.54", &[look, look]).unwrap();
    let reasons = transcripts.iter().map(|transcript| match Exchange::of(transcript, 0).outcome().ending {
        relapse_core::judge::outcome::Ending::Close { reason, .. } => reason,
        other => panic!("{other}"),
    });
    assert_eq!(reasons.collect::<Vec<_>>(), expected);
}

/// How many workers hunt is nothing that a hunt finds, and the code that the first generation of cases reached steers
/// the second one.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn workers_find_together_what_one_finds() {
    let found = |jobs: &str| {
        let directory = tempfile::tempdir().unwrap();
        let target = format!("asgi:raw:app @ {}", apps().display());
        let arguments = ["hunt", "--target", &target, "--env", "DEFECT=early_disconnect", "--cases", "400"];
        let binding = apps().join("relapse.toml");
        let more = ["--service-file", binding.to_str().unwrap(), "--format", "json", "--jobs", jobs];
        let (code, told) = relapse(directory.path(), &[&arguments[..], &more[..]].concat());
        assert_eq!(code, Some(1), "{told}");
        // Findings are told as they come, and a slow machine gets a line of progress every 10 s.
        let is_document = |line: &&str| !line.starts_with("progress: ") && !line.starts_with("note: found ");
        told.lines().filter(is_document).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(found("1"), found("3"));
}

/// Two versions are hunted on with the same seeds, and what the change did is told.
#[rstest]
#[case::repaired("query", "", 0, &["broken by the change: 0", "still broken: 0", "fixed by the change: 1"])]
#[case::broken("", "query", 1, &["broken by the change: 1", "still broken: 0", "fixed by the change: 0"])]
#[case::unchanged("after_accept", "after_accept", 1, &["broken by the change: 0", "still broken: 1", "fixed by the change: 0"])]
#[case::otherwise("early_disconnect", "after_accept", 1, &["broken in another way since the change: 1", "fixed by the change: 0"])]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_a_change_did_is_told(#[case] before: &str, #[case] after: &str, #[case] code: i32, #[case] expected: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    for (place, defect) in [("before", before), ("after", after)] {
        let place = directory.path().join(place);
        std::fs::create_dir(&place).unwrap();
        let text = std::fs::read_to_string(apps().join("raw.py")).unwrap();
        std::fs::write(place.join("raw.py"), text.replace("os.environ.get(\"DEFECT\", \"\")", &format!("{defect:?}")))
            .unwrap();
    }
    std::fs::copy(apps().join("relapse.toml"), directory.path().join("relapse.toml")).unwrap();
    let hunt = ["hunt", "--before", "asgi:raw:app @ before", "--after", "asgi:raw:app @ after"];
    let (found, told) = relapse(directory.path(), &[&hunt[..], &["--cases", "20", "--faults", "edge"]].concat());
    assert_eq!(found, Some(code), "{told}");
    assert!(expected.iter().all(|line| told.contains(line)), "{told}");
}

/// A missing directory is not looked up in a package index.
#[test]
fn a_directory_that_is_not_there_is_no_package() {
    let directory = tempfile::tempdir().unwrap();
    let (code, told) = relapse(directory.path(), &["hunt", "--target", "asgi:raw:app @ befor"]);
    assert!(code == Some(2) && told.contains("there is no directory `befor`"), "{told}");
}
