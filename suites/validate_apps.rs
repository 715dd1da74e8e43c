//! Users' own applications under `validate`, `init` and `conform`: in memory, and behind real servers.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use relapse_python::process::ServerChoice;
use rstest::rstest;
use serde_json::Value as Json;

use crate::{python::apps, served::interpreter, stage};

/// Work in threads, one after the other. A worker of anyio is slow to come back for more between its report and its next job,
/// as on a busy machine.
const SLOW_WORKERS: &str = r#"
import select
import anyio
import anyio._backends._asyncio as backend

start = backend.WorkerThread.start

def start_slowly(worker):
    done = worker.queue.task_done
    worker.queue.task_done = lambda: (done(), select.select([], [], [], 0.003))
    start(worker)

backend.WorkerThread.start = start_slowly

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    for _ in range(20):
        await anyio.to_thread.run_sync(select.select, [], [], [], 0.005)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})
"#;

/// A worker that has its next job before it asks for one is at work.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_worker_that_is_slow_to_come_back_is_at_work() {
    let directory = put(SLOW_WORKERS);
    let target = ["validate", "--target", "asgi:service:app", "--path", "GET /work"];
    let python = ["--python", stage::python().to_str().unwrap()];
    let (code, printed, said) = relapse(directory.path(), &[&target[..], &python].concat());
    assert_eq!(code, Some(0), "{printed}{said}");
}

/// Runs the command in a directory; returns its exit code, its output, and its error output.
fn relapse(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut relapse = crate::support::relapse_command();
    relapse.current_dir(directory).args(arguments).env("RELAPSE_TEST_TOKEN", TOKEN);
    let output = relapse.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The rows that fail, and what is noted.
fn failing(document: &str) -> (Vec<String>, String) {
    let found: Json = serde_json::from_str(document).unwrap_or_else(|error| panic!("{error}: {document}"));
    let rows = found["rows"].as_array().unwrap().iter().filter(|row| row["passes"] == false);
    let notes = found["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap());
    let rows: Vec<String> = rows.map(|row| row["tried"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found["passes"], rows.is_empty());
    (rows, notes.collect::<Vec<_>>().join("\n"))
}

const TOKEN: &str = "a-token-of-more-than-24-characters";

/// A service without a framework, whose code has a word for what it is asked.
const SERVICE: &str = r#"
import json

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["type"] == "http":
        status = 200 if scope["path"] == "/live" else 404
        await send({"type": "http.response.start", "status": status})
        return await send({"type": "http.response.body"})
    await receive()
    if scope["path"] != "/feed" or dict(scope["headers"]).get(b"authorization") != b"Bearer TOKEN":
        return await send({"type": "websocket.close"})
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        kind = json.loads(event.get("text") or "{}").get("type")
        answer = "subscribed" if kind == "subscribe" else "error"
        await send({"type": "websocket.send", "text": json.dumps({"type": answer})})
"#;

fn put(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), text.replace("TOKEN", TOKEN)).unwrap();
    directory
}

/// From an application alone to its conformance: what `init` writes is what the others need.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_application_is_made_acquainted_with() {
    let directory = put(SERVICE);
    let relapse = |arguments: &[&str]| relapse(directory.path(), arguments);
    let target = ["--target", "asgi:service:app"];
    let (code, _, told) = relapse(&[&["conform"], &target[..]].concat());
    assert!(code == Some(2) && told.contains("`relapse init --target asgi:service:app` writes"), "{told}");
    let token = ["--token-env", "RELAPSE_TEST_TOKEN"];
    let (code, written, told) = relapse(&[&["init"], &target[..], &token[..]].concat());
    assert_eq!(code, Some(0), "{written}{told}");
    for part in [
        "# How asgi:service:app is spoken to.",
        "A session opens here with the token.",
        "played by the profile uvicorn-0.35",
        "websocket = \"/feed\"",
        "health = [\"/live\"]",
        "env = \"RELAPSE_TEST_TOKEN\"",
        "request = '{\"type\":\"subscribe\"}'",
        "events = [\"subscribed\"]",
    ] {
        assert!(written.contains(part), "{part}: {written}");
    }
    let (code, document, _) = relapse(&[&["validate", "--format", "json"], &target[..]].concat());
    assert_eq!((code, failing(&document).0), (Some(0), Vec::new()), "{document}");
    let conform = ["conform", "5.5.2", "--format", "json", "--profile", "uvicorn-0.35", "--profile", "granian-2.8"];
    let (code, document, told) = relapse(&[&conform[..], &target[..]].concat());
    assert_eq!(code, Some(0), "{document}{told}");
    let found: Json = serde_json::from_str(&document).unwrap();
    let servers = found["servers"].as_array().unwrap().iter().map(|server| server["server"].as_str().unwrap());
    assert_eq!(servers.collect::<Vec<_>>(), ["uvicorn-0.35", "granian-2.8"]);
}

/// An application's own reaction to a frame is not taken for the server's.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn frames_that_the_application_falls_over_are_told() {
    let decodes = r#"event["bytes"].decode() if event.get("bytes") else event["text"]"#;
    let directory = put(&SERVICE.replace(r#"event.get("text") or "{}""#, decodes));
    let binding = format!(
        "[paths]\nwebsocket = \"/feed\"\n[credential]\nliteral = \"{TOKEN}\"\nplace = \"header\"\n[messages]\nwelcome = \"\"\n\
         request = '{{\"type\":\"subscribe\"}}'\nevents = [\"subscribed\"]\n"
    );
    std::fs::write(directory.path().join("relapse.toml"), binding).unwrap();
    let conform = ["conform", "binary-is-no-text", "--target", "asgi:service:app", "--profile", "uvicorn-0.54"];
    let (code, table, told) = relapse(directory.path(), &conform);
    assert_eq!(code, Some(1), "{table}{told}");
    assert!(table.contains("the application raised UnicodeDecodeError"), "{table}{told}");
}

/// Where whatever could be asked may change something, nothing was tried, and that is said.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_cannot_be_asked_is_no_failure() {
    let directory = put(SERVICE);
    let validate = ["validate", "--target", "asgi:service:app", "--path", "POST /orders"];
    let (code, table, told) = relapse(directory.path(), &validate);
    assert!(code == Some(2) && told.contains("--path names what may be asked for"), "{table}{told}");
}

/// Without a service file an application is looked at by its own routes; with one, by that. What raised is said with its place.
#[rstest]
#[case::in_order("", &[], &[])]
#[case::before_the_accept("query", &["ws:/ws"], &["upgrade", "/health and the handshake"])]
#[case::after_the_accept("after_accept", &["ws:/ws"], &["one request"])]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_application_is_looked_at(#[case] defect: &str, #[case] by_route: &[&str], #[case] by_binding: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let (target, defect) = (format!("asgi:raw:app @ {}", apps().display()), format!("DEFECT={defect}"));
    let validate = ["validate", "--target", &target, "--env", &defect, "--format", "json"];
    let binding = apps().join("relapse.toml");
    for (binding, expected) in [(None, by_route), (Some(binding.to_str().unwrap()), by_binding)] {
        let binding: Vec<&str> = binding.into_iter().flat_map(|path| ["--service-file", path]).collect();
        let (code, document, told) = relapse(directory.path(), &[&validate[..], &binding].concat());
        let (rows, notes) = failing(&document);
        assert_eq!(rows, expected, "{document}{told}");
        assert_eq!(code, Some(i32::from(!expected.is_empty())));
        assert_eq!(notes.contains("(raw.py:"), !expected.is_empty(), "{notes}");
    }
}

/// Routes come before paths that are common, with the values and the query that they need.
const ROUTES: &str = r#"
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()

@app.get("/health")
async def common():
    return {}

@app.get("/internal/readiness")
async def ready():
    return {}

@app.get("/readings/{number}")
async def reading(number: int):
    return {}

@app.post("/status")
async def change():
    raise RuntimeError("it was changed")

@app.websocket("/rooms/{room}")
async def converse(websocket: WebSocket, room: int, name: str):
    await websocket.accept()
    await websocket.send_json({"type": "welcome", "room": room})
    try:
        async for text in websocket.iter_text():
            await websocket.send_json({"type": "said"})
    except WebSocketDisconnect:
        return

@app.websocket("/ws")
async def other(websocket: WebSocket):
    await websocket.accept()
    await websocket.receive()
"#;

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_application_is_asked_where_it_says_that_it_is() {
    let python = stage::python();
    let directory = put(ROUTES);
    let relapse = |command: &str, more: &[&str]| {
        let arguments = [command, "--target", "asgi:service:app", "--python", python.to_str().unwrap()];
        relapse(directory.path(), &[&arguments[..], more].concat())
    };
    // Routes that may change data are not requested.
    let (code, document, told) = relapse("validate", &["--format", "json"]);
    let (rows, notes) = failing(&document);
    assert!(
        code == Some(0) && rows.is_empty() && notes.contains("not asked, as it may change something: POST /status")
    );
    assert!(told.contains("no relapse.toml found"), "{told}");
    let (code, written, told) = relapse("init", &[]);
    assert_eq!(code, Some(0), "{told}");
    for part in [
        "websocket = \"/rooms/1?name=a\"",
        "It tells of /ws too",
        "health = [\"/health\", \"/internal/readiness\"]",
        "events = [\"said\"]",
    ] {
        assert!(written.contains(part), "{part}: {written}");
    }
    let (code, document, _) = relapse("validate", &["--format", "json"]);
    assert_eq!((code, failing(&document).0), (Some(0), Vec::new()), "{document}");
    // A path named by the user comes before the application's own routes.
    let named = ["--path", "ws:/ws", "--path", "GET /internal/readiness", "--service-file", "named.toml"];
    let (code, written, told) = relapse("init", &named);
    assert_eq!(code, Some(0), "{told}");
    for part in ["websocket = \"/ws\"", "health = [\"/internal/readiness\", \"/health\"]"] {
        assert!(written.contains(part), "{part}: {written}");
    }
}

/// Behind a real server all three say what they say of any server.
#[rstest]
#[case("uvicorn==0.35.0", "close 1002", 0)]
#[case("hypercorn==0.18.0", "drop (1006)", 1)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_application_behind_a_real_server_is_asked(#[case] server: &str, #[case] evidence: &str, #[case] exit: i32) {
    let choice: ServerChoice = server.parse().unwrap();
    let python = interpreter(&choice);
    let directory = tempfile::tempdir().unwrap();
    let target = format!("asgi:raw:app @ {}", apps().display());
    let relapse = |command: &str, more: &[&str]| {
        let arguments = [command, "--target", &target, "--server", server, "--python", python.to_str().unwrap()];
        relapse(directory.path(), &[&arguments[..], more].concat())
    };
    let (code, written, told) = relapse("init", &[]);
    assert_eq!(code, Some(0), "{told}");
    for part in [&format!("the real one ({server})"), "websocket = \"/ws\"", "health = [\"/health\"]", "\"welcome\""] {
        assert!(written.contains(part), "{part}: {written}");
    }
    let binding = apps().join("relapse.toml");
    let binding = ["--service-file", binding.to_str().unwrap(), "--format", "json"];
    let (code, document, _) = relapse("validate", &[&["--wait", "10s"], &binding[..]].concat());
    assert_eq!((code, failing(&document).0), (Some(0), Vec::new()), "{document}");
    let mistaken = [&["--env", "DEFECT=after_accept"], &binding[..]].concat();
    let (code, document, _) = relapse("validate", &mistaken);
    let (rows, notes) = failing(&document);
    assert!(code == Some(1) && rows == ["one request"] && notes.contains("(raw.py:"), "{document}");
    let (code, document, told) = relapse("conform", &[&["fragmented", "ping-empty"], &binding[..]].concat());
    assert_eq!(code, Some(exit), "{document}{told}");
    let found: Json = serde_json::from_str(&document).unwrap();
    let found = &found["servers"][0];
    assert_eq!(found["server"], server);
    let cases = found["cases"].as_array().unwrap();
    let fragmented = cases.iter().find(|case| case["case"] == "5.5-control-frames/fragmented").unwrap();
    assert_eq!(fragmented["evidence"], evidence);
}

/// An application behind a real server is watched until Ctrl-C, and ends without an error.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_application_behind_a_real_server_is_watched() {
    let server = "uvicorn==0.35.0";
    let python = interpreter(&server.parse().unwrap());
    let target = format!("asgi:raw:app @ {}", apps().display());
    let mut relapse = crate::support::signaled_command();
    relapse.args([
        "validate",
        "--watch",
        "--every",
        "100ms",
        "--target",
        &target,
        "--server",
        server,
        "--service-file",
    ]);
    relapse.arg(apps().join("relapse.toml")).arg("--python").arg(python);
    let mut relapse = relapse.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(relapse.stdout.take().unwrap());
    let mut lines = String::new();
    output.read_line(&mut lines).unwrap();
    output.read_line(&mut lines).unwrap();
    assert!(Command::new("kill").args(["-INT", &relapse.id().to_string()]).status().unwrap().success());
    output.read_to_string(&mut lines).unwrap();
    let mut told = String::new();
    relapse.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(relapse.wait().unwrap().code(), Some(0), "{lines}{told}");
    assert!(lines.starts_with("passes  1 of 1 (100 %)\npasses  2 of 2 (100 %)\n"), "{lines}");
    assert!(told.contains("note: stopping; a second signal ends at once"), "{told}");
}
