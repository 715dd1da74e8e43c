//! Hunts whose clients belong together: what is made is used, clients meet, and each failure is told apart.

use std::fs;
use std::path::Path;

use crate::{python::python, support::relapse_command};

/// An app without a framework: what is made can be read, and three routes fail each in its own way.
const NOTES: &str = r#"
import json

notes = {}

async def answer(send, status, value):
    await send({"type": "http.response.start", "status": status,
                "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})

def title_of(note):
    return note["title"].strip()

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        return await send({"type": "websocket.close", "code": 4404})
    path = scope["path"]
    try:
        if path == "/notes" and scope["method"] == "POST":
            key = f"n{len(notes) + 1000}"
            notes[key] = {"note": key}
            return await answer(send, 201, {"data": {"noteId": key}})
        if path.startswith("/notes/") and path[7:] in notes:
            return await answer(send, 200, title_of(notes[path[7:]]))
        if path == "/count":
            return await answer(send, 200, len(scope["query_string"].split(b"=")[1]))
        if path == "/first":
            return await answer(send, 200, scope["query_string"].decode().split("&")[1])
    except Exception:
        return await answer(send, 500, "internal")
    await answer(send, 404, "not found")
"#;

/// Runs the command in a directory: its exit code, its output, and what it says beside that.
fn relapse(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = relapse_command().current_dir(directory).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The directory of an app, and the options that name it.
pub(crate) fn app(text: &str) -> (tempfile::TempDir, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("service.py"), text).unwrap();
    let options = ["--target", "asgi:service:app", "--python", python().to_str().unwrap()].map(str::to_owned);
    (directory, options.to_vec())
}

/// Hunts on the app of a directory: the exit code, and what the command says.
pub(crate) fn hunt_on(directory: &Path, target: &[String], more: &[&str]) -> (Option<i32>, String) {
    let options: Vec<&str> = target.iter().map(String::as_str).collect();
    let (code, told, errors) = relapse(directory, &[&["hunt"], more, &options[..]].concat());
    (code, format!("{told}\n{errors}"))
}

pub(crate) fn hunt(text: &str, more: &[&str]) -> (tempfile::TempDir, Option<i32>, String, Vec<String>) {
    let (directory, target) = app(text);
    let (code, told) = hunt_on(directory.path(), &target, more);
    (directory, code, told, target)
}

/// Three failures on three routes are three findings, each with its place; the one that needs a value of an earlier answer
/// has a reproducer that uses it.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_is_made_is_used_and_each_failure_is_told_apart() {
    let routes = ["POST /notes", "GET /notes/{note_id}", "GET /count", "GET /first"];
    let paths: Vec<&str> = routes.iter().flat_map(|route| ["--path", route]).collect();
    let (directory, code, told, target) = hunt(NOTES, &[&["--cases", "400", "--jobs", "1"], &paths[..]].concat());
    assert_eq!(code, Some(1), "{told}");
    for (place, route) in [
        ("KeyError in title_of", "GET /notes/{note_id}"),
        ("IndexError in app", "GET /count"),
        ("IndexError in app", "GET /first"),
    ] {
        let key = format!("no_server_error: 500:app-decision on {route} by {place}");
        assert_eq!(
            told.matches(&format!("\n{key}  ")).count() + usize::from(told.starts_with(&key)),
            1,
            "{key}: {told}"
        );
    }
    let line = told.lines().find(|line| line.starts_with("reproduce: ") && line.contains("notes")).unwrap();
    let file = line.split(' ').nth(3).unwrap();
    let case = fs::read_to_string(directory.path().join(file)).unwrap();
    assert!(case.contains("request = \"GET /notes/{1.note_id|"), "{case}");
    let options: Vec<&str> = target.iter().map(String::as_str).collect();
    let (code, told, _) = relapse(directory.path(), &[&["run", file], &options[..]].concat());
    assert!(code == Some(1) && told.contains("KeyError: 'title'"), "{told}");
}

/// An app in which the death of one client breaks another.
const CHAT: &str = r#"
clients = {}

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    clients[id(send)] = send
    while (await receive())["type"] != "websocket.disconnect":
        for key, other in list(clients.items()):
            try:
                await other({"type": "websocket.send", "text": "said"})
            except DEATH:
                clients.pop(key, None)
    END
"#;

/// Clients meet: one is sent to after it has gone. In the repaired app nothing is found.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn clients_meet_and_the_death_of_one_is_noticed() {
    let options = ["--cases", "150", "--jobs", "1", "--path", "ws:/chat", "--profile", "uvicorn-0.35"];
    let (_directory, code, told, _) = hunt(&CHAT.replace("DEATH", "KeyError").replace("END", "pass"), &options);
    assert!(
        code == Some(1) && told.contains("--- connection 2: ") && told.contains(" in app after the accept"),
        "{told}"
    );
    let (_directory, code, told, _) =
        hunt(&CHAT.replace("DEATH", "Exception").replace("END", "clients.pop(id(send), None)"), &options);
    assert_eq!(code, Some(0), "{told}");
}

/// An app that refuses everyone, but for what it does not get so far to refuse.
const GUARDED: &str = r#"
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    names = [name for name, _ in scope["headers"]]
    status = 500 if names.count(b"x-forwarded-for") else 401
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body"})
"#;

/// An app that lets no client in is hunted on.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_app_that_refuses_everyone_is_hunted_on() {
    let options = ["--cases", "300", "--jobs", "1", "--path", "GET /inside"];
    let (_directory, code, told, _) = hunt(GUARDED, &options);
    assert!(code == Some(1) && told.contains("no_server_error: 500:app-decision on GET /inside"), "{told}");
    assert!(told.contains("the plainest request to relapse.test gets http 401"), "{told}");
    assert!(told.contains("WARNING `GET /inside` served no client: mostly http 401; provide a credential"), "{told}");
}

/// An app that receives without end once its client is gone.
const ENDLESS: &str = r#"
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        await receive()
"#;

/// Virtual time passes although the server gives the end again whenever it is asked.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_call_that_receives_without_end_is_found() {
    let options = ["--cases", "2", "--jobs", "1", "--path", "ws:/ws", "--profile", "uvicorn-0.35", "--faults", "edge"];
    let (_directory, code, told, _) = hunt(ENDLESS, &options);
    assert!(code == Some(1) && told.contains("handler_ends: running on ws:/ws"), "{told}");
}

/// Faults that no server produces are left to `--hostile`.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_no_server_does_needs_to_be_asked_for() {
    let text = "async def app(scope, receive, send):\n    scope['scheme']\n    await receive()\n    \
                await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n    \
                await send({'type': 'http.response.body'})\n";
    let options = ["--cases", "300", "--jobs", "1", "--path", "GET /", "--faults", "scope"];
    let (_directory, code, told, _) = hunt(text, &options);
    assert!(code == Some(0) && !told.contains("KeyError"), "{told}");
    let (_directory, code, told, _) = hunt(text, &[&options[..], &["--hostile"]].concat());
    assert!(code == Some(1) && told.contains("KeyError in app"), "{told}");
}
