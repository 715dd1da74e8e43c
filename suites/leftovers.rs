//! Hunts on apps that keep something of clients that are gone, or leave an exception to nothing.

use std::fs;

use crate::stories::{app, hunt, hunt_on};

/// An app that serves rooms. What it lets go of a client that leaves is in `END`, and what it does first in `BEGIN`.
const ROOMS: &str = r#"
import asyncio

queues = []
rooms = {}
latest = None

class Hub:
    def __init__(self):
        self.members = []

hub = Hub()

async def tick():
    while True:
        await asyncio.sleep(10)

async def app(scope, receive, send):
    global latest
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})
    if scope["type"] != "websocket":
        return
    await receive()
    latest = send
    room = scope["path"].removeprefix("/rooms/")
    rooms.setdefault(room, set()).add(send)
    queue = asyncio.Queue()
    queues.append(queue)
    hub.members.append(receive)
    task = asyncio.create_task(tick())
    try:
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
    except OSError:
        pass
    finally:
        END
"#;

/// How the app lets go of a client, each with the finding where it does not.
const ENDS: [(&str, &str); 4] = [
    ("queues.remove(queue)", "no_residue: objects in queues on ws:/rooms/{name}"),
    ("hub.members.remove(receive)", "no_residue: objects in hub.members on ws:/rooms/{name}"),
    ("task.cancel()", "no_residue: task tick on ws:/rooms/{name}"),
    ("rooms.pop(room) if len(rooms[room]) == 1 else rooms[room].discard(send)", ""),
];

/// Enough that some cases have clients who come and go one after the other, while no fault acts.
const OPTIONS: [&str; 10] =
    ["--cases", "250", "--jobs", "1", "--path", "ws:/rooms/{name}", "--profile", "uvicorn-0.35", "--faults", "edge"];

/// The app, without the end with this number.
fn without(left_out: Option<usize>) -> String {
    let ends = ENDS.iter().enumerate().filter(|(number, _)| Some(*number) != left_out);
    let ends: Vec<&str> = ends.map(|(_, (end, _))| *end).collect();
    ROOMS.replace("END", &ends.join("\n        "))
}

/// Whatever is kept of each client is found, with the variable or the coroutine; what is kept of the latest alone is not.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_is_kept_of_each_client_is_found() {
    for (number, (end, key)) in ENDS.iter().enumerate().filter(|(_, (_, key))| !key.is_empty()) {
        let (_directory, code, told, _) = hunt(&without(Some(number)), &OPTIONS);
        assert!(code == Some(1) && told.contains(key), "{end}: {told}");
    }
    let (_directory, code, told, _) = hunt(&without(None), &OPTIONS);
    assert_eq!(code, Some(0), "{told}");
}

/// An entry that stays without content for each name that clients bring is found.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn entries_without_content_are_found() {
    let emptied = without(Some(3)).replace("task.cancel()", "task.cancel()\n        rooms[room].discard(send)");
    let (_directory, code, told, _) = hunt(&emptied, &OPTIONS);
    assert!(code == Some(1) && told.contains("no_residue: empty entries in rooms on ws:/rooms/{name}"), "{told}");
}

/// An app whose task fails, for one client or in the background, or whose library logs what its handler raises; each text
/// has what is random.
const FAILING: &str = r#"
import asyncio, os, sys
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "site-packages"))
import library

names = {}
jobs = worker = None

async def greet(key):
    return names[key]

async def work():
    while True:
        await greet(await jobs.get())

async def live(receive, send):
    global jobs, worker
    jobs, worker = asyncio.Queue(), asyncio.create_task(work())
    while True:
        kind = (await receive())["type"]
        await send({"type": kind + ".complete"})
        if kind == "lifespan.shutdown":
            return

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await live(receive, send)
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        CALL
        AFTER
"#;

/// The library.
const LIBRARY: &str = r#"
import logging

async def dispatch(handler, key):
    try:
        await handler(key)
    except Exception:
        logging.getLogger("library").exception("handler failed for %s", key)
"#;

/// An exception that nothing handles is one finding, with its place and without the text, however it comes to light; what the
/// library answers is none.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_exception_that_nothing_handles_is_one_finding() {
    let options = ["--cases", "60", "--jobs", "1", "--path", "ws:/chat", "--profile", "uvicorn-0.35"];
    let options = [&options[..], &["--faults", "edge"]].concat();
    let key = "unhandled KeyError in greet on ws:/chat";
    let answer = r#"await send({"type": "websocket.send", "text": "failed"})"#;
    for (call, after, count) in [
        ("asyncio.create_task(greet(os.urandom(8).hex()))", "pass", 1),
        ("jobs.put_nowait(os.urandom(8).hex())", "pass", 1),
        ("await library.dispatch(greet, os.urandom(8).hex())", "pass", 1),
        ("await library.dispatch(greet, os.urandom(8).hex())", answer, 0),
    ] {
        let text = FAILING.replace("CALL", call).replace("AFTER", after);
        let (directory, target) = app(&text);
        let libraries = directory.path().join("site-packages");
        fs::create_dir(&libraries).unwrap();
        fs::write(libraries.join("library.py"), LIBRARY).unwrap();
        let (code, told) = hunt_on(directory.path(), &target, &options);
        // A note told of it when it was found.
        let findings = told.lines().filter(|line| !line.starts_with("note: ") && line.contains(&format!(": {key}")));
        assert_eq!((code, findings.count()), (Some(count), count as usize), "{call}: {told}");
    }
}

/// An app that keeps its lock where a client leaves in the middle.
const LOCKED: &str = r#"
import asyncio

lock = asyncio.Lock()

async def work():
    TAKE
    await asyncio.sleep(5)
    LEAVE

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})
    if scope["type"] != "http":
        return
    task = asyncio.create_task(work())
    while not task.done():
        event = asyncio.create_task(receive())
        await asyncio.wait({event, task}, return_when=asyncio.FIRST_COMPLETED)
        if event.done() and event.result()["type"] == "http.disconnect":
            task.cancel()
            return
        event.cancel()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})
"#;

/// A client that waits for what one that left has kept is found, in a process of its own.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_lock_that_a_client_kept_is_found() {
    let options = ["--cases", "250", "--jobs", "1", "--path", "GET /work", "--profile", "uvicorn-0.35"];
    let options = [&options[..], &["--faults", "edge"]].concat();
    let kept = LOCKED.replace("TAKE", "await lock.acquire()").replace("LEAVE", "lock.release()");
    let (_directory, code, told, _) = hunt(&kept, &options);
    assert!(code == Some(1) && told.contains("bounded_wait: the answer to the request on GET /work"), "{told}");
    assert!(!told.contains("seen again only in a process that had served other cases"), "{told}");
    let freed = LOCKED
        .replace("TAKE", "async with lock:")
        .replace("    await asyncio.sleep(5)\n    LEAVE", "        await asyncio.sleep(5)");
    let (_directory, code, told, _) = hunt(&freed, &options);
    assert_eq!(code, Some(0), "{told}");
}
