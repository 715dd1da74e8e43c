//! Planted secrets: an application tells them in every place and every encoding, and none of them is in any output.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use relapse_core::record::redact::{KnownSecret, Redactor};
use rstest::rstest;

/// The secrets, by the name of the variable that holds each. They have characters that each encoding writes in its own way.
const PLANTED: [(&str, &str); 4] = [
    ("API_TOKEN", "p4\"l/nt+d s3cret\\é"),
    ("SHORT_KEY", "q7Zx"),
    ("DATABASE_URL", "postgres://bob:pw0rdPlanted@db/x"),
    ("SESSION_SECRET", "planted-session-secret-of-many-characters"),
];

/// An application that tells each secret in nine encodings, in a place that the path names.
const LEAKY: &str = r#"
import asyncio, base64, json, logging, os, sys, threading, urllib.parse, warnings

def forms():
    for name in ("API_TOKEN", "SHORT_KEY", "SESSION_SECRET", "PASSWORD"):
        secret = os.environ.get(name) or os.environ["DATABASE_URL"].split(":")[2].split("@")[0]
        data = secret.encode()
        yield from (secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret), json.dumps(secret),
                    repr(secret))
        if len(data) > 4:
            yield from (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode(),
                        base64.b64encode(b"user:" + data + b"!").decode(), data.hex())

SHORT = os.environ["SHORT_KEY"]
KEPT = []
TEXT = " | ".join(forms())
LATIN = TEXT.encode("ascii", "backslashreplace")

async def answer(send, status=200, headers=(), body=b""):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})

def shout():
    raise LookupError(TEXT)

async def later():
    raise LookupError(TEXT)

class Told(Exception):
    def __str__(self):
        return "told: " + TEXT

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": TEXT})
        return
    place = scope["path"].strip("/")
    if scope["type"] == "websocket":
        await receive()
        if place == "denied":
            await send({"type": "websocket.close", "code": 4401, "reason": TEXT[:100]})
            return
        if place == "subprotocol":
            await send({"type": "websocket.accept", "subprotocol": SHORT})
            raise RuntimeError("chosen")
        if place == "denied-in-full":
            await send({"type": "websocket.http.response.start", "status": 403, "headers": [(b"x-secret", LATIN)]})
            return await send({"type": "websocket.http.response.body", "body": TEXT.encode()})
        await send({"type": "websocket.accept", "headers": [(b"x-secret", LATIN)]})
        if place == "text":
            await send({"type": "websocket.send", "text": TEXT})
        if place == "bytes":
            await send({"type": "websocket.send", "bytes": TEXT.encode()})
        if place == "message":
            await send({"type": "websocket.send", "text": json.dumps({"type": "told", "secret": TEXT})})
        if place == "reason":
            await send({"type": "websocket.close", "code": 1011, "reason": TEXT[:100]})
        if place == "raises":
            raise RuntimeError(TEXT)
        return
    if place == "exception":
        raise ValueError(TEXT)
    if place == "key":
        {}[TEXT]
    if place == "chained":
        try:
            raise KeyError(TEXT)
        except KeyError as error:
            raise RuntimeError("outer " + TEXT) from error
    if place == "type":
        raise Told()
    if place == "group":
        task = asyncio.ensure_future(later())
        await asyncio.sleep(0)
        return await answer(send)
    if place == "handled":
        try:
            raise OSError(TEXT)
        except OSError:
            return await answer(send, 500, body=TEXT.encode())
    if place == "log":
        logging.getLogger("app").error("failed for %s", TEXT)
        return await answer(send, 500)
    if place == "trace":
        try:
            raise ValueError(TEXT)
        except ValueError:
            logging.exception("while serving %s", TEXT)
        return await answer(send, 500)
    if place == "print":
        print(TEXT)
        print(TEXT, file=sys.stderr)
        raise SystemError("printed")
    if place == "header":
        return await answer(send, 500, [(b"x-secret", LATIN), (b"server", LATIN), (b"www-authenticate", LATIN)])
    if place == "cookie":
        return await answer(send, 500, [(b"set-cookie", b"sid=" + LATIN)])
    if place == "location":
        return await answer(send, 302, [(b"location", b"/next?token=" + LATIN)])
    if place == "body":
        return await answer(send, 500, [(b"content-type", b"application/json")], json.dumps({"error": TEXT}).encode())
    if place == "event":
        await send({"type": "http.response.start", "status": "x" + TEXT})
    if place == "note":
        error = ValueError("plain")
        error.add_note(TEXT)
        raise error
    if place == "exceptions":
        raise ExceptionGroup("several " + TEXT, [KeyError(TEXT), OSError(TEXT)])
    if place == "args":
        raise LookupError(TEXT, {"given": TEXT})
    if place == "named":
        raise type("Failed" + SHORT, (Exception,), {})(TEXT)
    if place == "errno":
        raise FileNotFoundError(2, "no file", TEXT)
    if place == "warning":
        warnings.warn(TEXT)
        raise SystemError("warned")
    if place == "extra":
        logging.getLogger(TEXT).error("from %r", {"given": TEXT}, extra={"given": TEXT})
        return await answer(send, 500)
    if place == "thread":
        thread = threading.Thread(target=shout, name=TEXT)
        thread.start()
        thread.join()
        return await answer(send, 500)
    if place == "handler":
        asyncio.get_running_loop().call_exception_handler({"message": TEXT, "exception": OSError(TEXT)})
        return await answer(send, 500)
    if place == "exit":
        sys.exit(TEXT)
    if place == "keyboard":
        raise KeyboardInterrupt(TEXT)
    if place == "cancelled":
        raise asyncio.CancelledError(TEXT)
    if place == "assertion":
        assert TEXT == "", TEXT
    if place == "header-name":
        return await answer(send, 500, [(b"x-" + SHORT.encode(), b"a")])
    if place == "type-of-body":
        return await answer(send, 500, [(b"content-type", b"text/" + LATIN)], b"x")
    if place == "pieces":
        await send({"type": "http.response.start", "status": 500})
        for start in range(0, len(TEXT), 7):
            await send({"type": "http.response.body", "body": TEXT[start:start + 7].encode(), "more_body": True})
        return await send({"type": "http.response.body"})
    if place == "stream":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": ("data: " + TEXT + "\n\n").encode(), "more_body": True})
        raise BufferError(TEXT)
    if place == "unknown-event":
        await send({"type": "http." + TEXT})
    if place == "key-of-event":
        await send({"type": "http.response.start", "status": 500, TEXT: TEXT, "headers": TEXT})
    if place == "state":
        KEPT.append((scope, TEXT))
        raise IndexError(f"{scope['path']} {TEXT}")
    if place == TEXT:
        return
    await answer(send, 404)
"#;

const PLACES: [&str; 43] = [
    "GET /exception",
    "GET /key",
    "GET /chained",
    "GET /type",
    "GET /group",
    "GET /handled",
    "GET /log",
    "GET /trace",
    "GET /print",
    "GET /header",
    "GET /cookie",
    "GET /location",
    "GET /body",
    "GET /event",
    "GET /note",
    "GET /exceptions",
    "GET /args",
    "GET /named",
    "GET /errno",
    "GET /warning",
    "GET /extra",
    "GET /thread",
    "GET /handler",
    "GET /exit",
    "GET /keyboard",
    "GET /cancelled",
    "GET /assertion",
    "GET /header-name",
    "GET /type-of-body",
    "GET /pieces",
    "GET /stream",
    "GET /unknown-event",
    "GET /key-of-event",
    "GET /state",
    "ws:/denied",
    "ws:/text",
    "ws:/bytes",
    "ws:/message",
    "ws:/reason",
    "ws:/raises",
    "ws:/subprotocol",
    "ws:/denied-in-full",
    "GET /elsewhere",
];

/// The outputs of one command: what it prints, and the files below a directory with their names.
fn outputs(directory: &Path, arguments: &[String]) -> BTreeMap<String, String> {
    outputs_of(crate::support::relapse_command().current_dir(directory).args(arguments), directory)
}

fn outputs_of(command: &mut Command, directory: &Path) -> BTreeMap<String, String> {
    let output = command.output().unwrap();
    let mut outputs = BTreeMap::from([
        ("standard output".to_owned(), String::from_utf8(output.stdout).unwrap()),
        ("standard error".to_owned(), String::from_utf8(output.stderr).unwrap()),
    ]);
    let mut directories = vec![directory.join("out")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            let text = if path.is_dir() { String::new() } else { fs::read_to_string(&path).unwrap() };
            outputs.insert(path.display().to_string(), format!("{}\n{text}", path.display()));
            directories.extend(path.is_dir().then_some(path));
        }
    }
    outputs
}

/// A redactor with a label of its own, which finds a secret in whatever encoding it is.
fn finder() -> Redactor {
    let secrets = PLANTED.map(|(name, value)| match name {
        "DATABASE_URL" => KnownSecret::named("PLANTED", "pw0rdPlanted"),
        _ => KnownSecret::named("PLANTED", value),
    });
    Redactor::new(secrets.to_vec(), Vec::new())
}

/// Parts of the secrets in each encoding of the app, written out: a form that the redactor does not know is found all the same.
const FRAGMENTS: [&str; 13] = [
    // Plain, percent-encoded, in JSON and in Python.
    "s3cret",
    "q7Zx",
    "pw0rdPlanted",
    "planted-session",
    // Hexadecimal.
    "7034226c2f6e",
    "7077307264506c616e746564",
    "706c616e7465642d",
    // Base64, alone and behind `user:`.
    "cDQibC9udCtk",
    "cHcwcmRQbGFudGVk",
    "cGxhbnRlZC1zZXNz",
    "NCJsL250K2Q",
    "dzByZFBsYW50ZWQ",
    "bGFudGVkLXNlc3Npb24",
];

#[track_caller]
fn assert_clean(outputs: &BTreeMap<String, String>) {
    let finder = finder();
    for (name, text) in outputs {
        for fragment in FRAGMENTS {
            let at = text.find(fragment).map(|at| text[..at].chars().rev().take(200).collect::<Vec<_>>());
            let before = at.map(|before| before.into_iter().rev().collect::<String>());
            assert_eq!(before, None, "{fragment} in {name}");
        }
        // A text in JSON is looked at as it is read, too.
        let unescaped = text.replace("\\\\", "\\").replace("\\\"", "\"").replace("\\/", "/");
        for text in [text, &unescaped] {
            let found = finder.clean(text);
            let at = found.find("<secret PLANTED>");
            let around = at.map(|at| {
                found.chars().skip(found[..at].chars().count().saturating_sub(200)).take(300).collect::<String>()
            });
            assert_eq!(around, None, "in {name}");
        }
    }
}

/// A case in the app's own words, without a service file: the secrets of `--env` are kept all the same.
#[rstest]
#[case::human("human")]
#[case::json("json")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn no_secret_is_printed_by_a_run_of_own_cases(#[case] format: &str) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("leaky.py"), LEAKY).unwrap();
    let requests = PLACES.iter().filter(|place| !place.starts_with("ws:"));
    let steps: Vec<String> = requests.map(|place| format!("{{ request = \"{place}\" }}")).collect();
    let case = format!("summary = \"x\"\nstep = [{}]\n[expect]\naccept = [\"ok\"]\n", steps.join(", "));
    fs::write(directory.path().join("own.toml"), case).unwrap();
    let mut arguments: Vec<String> = ["run", "own.toml", "--target", "asgi:leaky:app"].map(str::to_owned).to_vec();
    for (name, value) in PLANTED {
        arguments.extend(["--env".to_owned(), format!("{name}={value}")]);
    }
    arguments.extend(["--format", format].map(str::to_owned));
    let outputs = outputs(directory.path(), &arguments);
    let told = &outputs["standard output"];
    assert!(told.contains("<secret API_TOKEN>"), "{told}{}", outputs["standard error"]);
    assert_clean(&outputs);
}

/// The finder finds: without this the suite would pass whatever is printed.
#[test]
fn a_planted_secret_would_be_found() {
    let finder = finder();
    for (_, secret) in &PLANTED[..2] {
        assert!(finder.clean(&format!("a {secret} b")).contains("<secret PLANTED>"));
    }
    assert!(finder.clean("cGxhbnRlZC1zZXNzaW9uLXNlY3JldC1vZi1tYW55LWNoYXJhY3RlcnM").contains("<secret PLANTED>"));
}

#[rstest]
#[case::human("human")]
#[case::json("json")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn no_secret_of_an_application_is_printed_or_written(#[case] format: &str) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("leaky.py"), LEAKY).unwrap();
    let mut arguments: Vec<String> = ["hunt", "--target", "asgi:leaky:app"].map(str::to_owned).to_vec();
    for (name, value) in PLANTED {
        arguments.extend(["--env".to_owned(), format!("{name}={value}")]);
    }
    arguments.extend(PLACES.into_iter().flat_map(|place| ["--path".to_owned(), place.to_owned()]));
    for more in
        ["--cases", "150", "--format", format, "--reproducers", "out/reproducers", "--write-pytest", "out/tests"]
    {
        arguments.push(more.to_owned());
    }
    let outputs = outputs(directory.path(), &arguments);
    let told = &outputs["standard output"];
    assert!(told.contains("/exception") && told.contains("<secret API_TOKEN>"), "{told}{}", outputs["standard error"]);
    for place in ["/named", "/exceptions", "/stream", "/state"] {
        assert!(told.contains(place), "{place}: {told}");
    }
    assert!(outputs.keys().any(|name| name.ends_with(".toml")) && outputs.keys().any(|name| name.ends_with(".py")));
    assert_clean(&outputs);
    for name in outputs.keys() {
        assert!(
            !["s3cret", "q7zx", "pw0rd", "planted"].iter().any(|word| name.to_lowercase().contains(word)),
            "{name}"
        );
    }
}

/// Mistakes in arguments, files and applications are told without the secrets in them.
#[rstest]
#[case::in_the_url(&["validate", "--target", "http://u:pw0rdPlanted@127.0.0.1:1/path"])]
#[case::in_an_option(&["hunt", "--target", "asgi:broken:app", "--env", "postgres://u:pw0rdPlanted@db"])]
#[case::at_import(&["hunt", "--target", "asgi:broken:app", "--env", "SESSION_SECRET=planted-session-secret-of-many-characters"])]
#[case::in_the_service_file(&["validate", "--target", "http://127.0.0.1:1", "--service-file", "service.toml"])]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn no_secret_is_in_an_error(#[case] arguments: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let broken = "import os\nraise ImportError('no ' + os.environ['SESSION_SECRET'])\n";
    fs::write(directory.path().join("broken.py"), broken).unwrap();
    let service = "[credential]\nliteral = \"planted-session-secret-of-many-characters\"\nplace = \"query\"\n";
    fs::write(directory.path().join("service.toml"), service).unwrap();
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let outputs = outputs(directory.path(), &arguments);
    assert!(!outputs["standard output"].is_empty() || !outputs["standard error"].is_empty());
    assert_clean(&outputs);
}

/// A server that tells everything that it is told, in its head and in its body, until the test ends.
/// Gives its URL, and all that it heard.
fn echoing_server() -> (String, Arc<Mutex<String>>) {
    let heard = Arc::new(Mutex::new(String::new()));
    let hears = Arc::clone(&heard);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (mut head, mut piece) = (Vec::new(), [0; 4096]);
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(count @ 1..) => head.extend_from_slice(&piece[..count]),
                    Ok(0) | Err(_) => break,
                }
            }
            let told = String::from_utf8_lossy(&head).into_owned();
            hears.lock().unwrap().push_str(&told);
            let line = told.lines().collect::<Vec<_>>().join(" ");
            let answer = format!(
                "HTTP/1.1 500 {line}\r\nServer: {line}\r\nSet-Cookie: sid={line}\r\nLocation: {line}\r\nWWW-Authenticate: {line}\r\n\
                 Content-Type: text/plain\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{told}",
                told.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (format!("http://{address}"), heard)
}

/// A service echoes the token of its service file. No command prints or writes it, whatever the token's source and place.
#[rstest]
fn no_token_of_a_service_file_is_printed_or_written(
    #[values("header", "query", "subprotocol")] place: &str,
    #[values("literal = 'planted-session-secret-of-many-characters'", "env = 'PLANTED'", "command = 'printf q7Zx'")]
    source: &str,
) {
    let (directory, (url, heard)) = (tempfile::tempdir().unwrap(), echoing_server());
    let service = format!("[credential]\n{source}\nplace = \"{place}\"\n[users.bob]\nliteral = \"pw0rdPlanted\"\n");
    fs::write(directory.path().join("relapse.toml"), service).unwrap();
    let hunt = ["hunt", "--cases", "12", "--reproducers", "out"];
    let json = ["hunt", "--cases", "12", "--reproducers", "out", "--format", "json"];
    for command in [&["validate"][..], &["validate", "--format", "json"], &hunt, &json, &["conform", "5.1*"]] {
        let mut relapse = crate::support::relapse_command();
        relapse.env("PLANTED", "planted-session-secret-of-many-characters").current_dir(directory.path());
        let outputs = outputs_of(relapse.args(command).args(["--target", &url]), directory.path());
        assert!(!std::mem::take(&mut *heard.lock().unwrap()).is_empty(), "{command:?} asks nothing: {outputs:#?}");
        assert_clean(&outputs);
    }
}
