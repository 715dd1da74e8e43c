//! The routes that the frameworks of users' own applications tell.

use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

use crate::{stage, support::relapse_command};

/// Each framework has a test of its own, in its own language.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn each_framework_tells_its_routes() {
    let mut command = Command::new(stage::interpreter_with("fixtures/requirements/frameworks.txt"));
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/shim");
    command.args(["-B", "-m", "unittest", "-q", "test_frameworks"]).current_dir(tests);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !told.contains("skipped") && !told.contains("Ran 0 tests"), "{told}");
}

/// An application whose list of routes cannot be read, and which serves its root alone.
const UNREADABLE: &str = r#"
class App:
    @property
    def routes(self):
        raise RuntimeError("no list today")

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        status = 200 if scope["type"] == "http" and scope["path"] == "/" else 404
        kind = "http" if scope["type"] == "http" else "websocket.http"
        await send({"type": f"{kind}.response.start", "status": status})
        await send({"type": f"{kind}.response.body"})

app = App()
"#;

/// A failure to learn routes is told, to people and to machines, and the hunt goes on with what is left.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_cannot_be_learned_is_told() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), UNREADABLE).unwrap();
    let relapse = |arguments: &[&str]| {
        let mut relapse = relapse_command();
        relapse.current_dir(directory.path()).args(arguments);
        let output = relapse.args(["--format", "json", "--target", "asgi:service:app"]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        let document: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
        (output.status.code(), document, told)
    };
    let expected = "the routes of starlette below / are not all known: RuntimeError: no list today";
    let (code, document, told) = relapse(&["validate"]);
    assert_eq!(code, Some(0), "{document}{told}");
    assert_eq!(told.matches(&format!("note: {expected}")).count(), 1, "{told}");
    assert_eq!(document["notes"][0], expected);
    let tried: Vec<&str> =
        document["rows"].as_array().unwrap().iter().filter_map(|row| row["tried"].as_str()).collect();
    assert_eq!(tried, ["GET /"]);
    let (code, document, told) = relapse(&["hunt", "--cases", "20", "--profile", "uvicorn-0.35", "--jobs", "2"]);
    assert_eq!(code, Some(0), "{document}{told}");
    assert_eq!(told.matches(&format!("note: {expected}")).count(), 1, "{told}");
    assert_eq!(document["route_troubles"][0]["kind"], "RuntimeError", "{document}");
}

/// A route that is only guessed is kept where it lets a client in, and never counts against the application.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_guess_is_never_the_applications_fault() {
    let directory = tempfile::tempdir().unwrap();
    let service = r#"
class Told:
    path, methods, endpoint = "/told", ["GET"], print

class App:
    routes = [Told()]

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        if scope["path"] != "/told":
            raise ValueError(f"No route found for path {scope['path']}")
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

app = App()
"#;
    std::fs::write(directory.path().join("service.py"), service).unwrap();
    let validate = ["validate", "--format", "json", "--target", "asgi:service:app"];
    let output = relapse_command().current_dir(directory.path()).args(validate).output().unwrap();
    let document: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{document}");
    let rows = document["rows"].as_array().unwrap();
    assert_eq!(rows.iter().filter_map(|row| row["tried"].as_str()).collect::<Vec<_>>(), ["GET /told"]);
}
