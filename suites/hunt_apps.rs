//! Applications that are visited by their own routes: what is found, what is none, and the tests that are written of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use relapse::{run, service_file::ServiceFile, target::Target as _};
use relapse_core::{
    client::step::{Action, Step},
    fault::{Direction, Fault, FaultKind, StreamFault, Trigger, setting},
    judge::check::{RunView, findings},
    plan::Plan,
    record::transcript::{EventKind, Transcript},
    wire::close_code::CloseCode,
};
use relapse_python::app::Python as PythonTarget;
use relapse_simulate::clock::{Clock, Runtime};
use rstest::rstest;

use crate::{
    python::{apps, python, site},
    support::{check_page, open, profile, step, wait},
};

/// Runs the command in a directory; returns its exit code and its output.
fn relapse(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = crate::support::relapse_command().current_dir(directory).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// An application of the fixtures in a directory, with the mistake that is named, or in order.
fn put(app: &str, defect: &str, directory: &Path) {
    let text = fs::read_to_string(apps().join(app)).unwrap();
    let named = text.replace("os.environ.get(\"DEFECT\", \"\")", &format!("{defect:?}"));
    // A call that outlives its client is a finding of its own, which `raw.py` has for other tests.
    let named = named.replace("asyncio.sleep(90)", "asyncio.sleep(0)");
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join(app), named).unwrap();
}

/// Runs a Python test beside its application: whether it passes, and the last line.
fn test(python: &Path, path: &Path) -> (bool, String) {
    let output = Command::new(python).arg("-B").arg(path).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.success(), said.lines().last().unwrap_or_default().to_owned())
}

/// As an engineer does who has written nothing down: the hunt goes by the routes, the reproducer and the test show what it
/// found, and both tell that it is repaired.
fn check_from_hunt_to_repair(python: &Path, app: &str, defect: &str, exception: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (here, module) = (directory.path(), app.trim_end_matches(".py"));
    put(app, defect, &here.join("before"));
    put(app, "", &here.join("after"));
    let at = |place: &str| format!("asgi:{module}:app @ {place}");
    let python_option = ["--python", python.to_str().unwrap()];
    let hunt = ["hunt", "--target", &at("before"), "--cases", "150", "--faults", "edge", "--write-pytest", "tests"];
    let (code, told) = relapse(here, &[&hunt[..], &python_option].concat());
    let finding = told.split("\n\n").find(|finding| finding.contains(exception)).unwrap_or_else(|| panic!("{told}"));
    assert_eq!(code, Some(1), "{told}");

    let again = finding.lines().find_map(|line| line.strip_prefix("reproduce: relapse run ")).unwrap();
    let capsule = again.split(' ').next().unwrap();
    let run = ["run", capsule, "--before", &at("before"), "--after", &at("after")];
    let (code, said) = relapse(here, &[&run[..], &python_option].concat());
    assert!(code == Some(0) && said.contains("FIXED"), "{said}");

    let name = Path::new(capsule).file_stem().unwrap().to_str().unwrap();
    let path = here.join(format!("tests/test_{name}.py"));
    let (passes, why) = test(python, &path);
    assert!(!passes && why.starts_with(&format!("AssertionError: {exception}")), "{why}");
    put(app, "", &here.join("before"));
    assert_eq!(test(python, &path), (true, String::new()));
    let (code, told) = relapse(here, &[&hunt[..], &python_option].concat());
    assert_eq!(code, Some(0), "{told}");
}

/// Of an application without a framework the routes are what its code names.
#[rstest]
#[case("after_accept", "AttributeError")]
#[case("early_disconnect", "KeyError")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_bare_application_is_visited_where_its_code_says(#[case] defect: &str, #[case] exception: &str) {
    let python = python();
    check_from_hunt_to_repair(&python, "raw.py", defect, exception);
}

/// Of one on FastAPI they are what its routes say.
#[rstest]
#[case("query", "KeyError")]
#[case("after_accept", "KeyError")]
#[case("early_disconnect", "KeyError")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_application_is_visited_by_its_routes(#[case] defect: &str, #[case] exception: &str) {
    let python = crate::stage::python();
    check_from_hunt_to_repair(python, "shop.py", defect, exception);
}

/// A healthy application's answers to all requests are no finding.
#[rstest]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn nothing_is_found_on_an_application_in_order(#[values("fast", "plain")] app: &str) {
    let python = crate::stage::python();
    let directory = tempfile::tempdir().unwrap();
    let target = format!("asgi:orderly:{app} @ {}", apps().display());
    let hunt = ["hunt", "--target", &target, "--python", python.to_str().unwrap(), "--cases", "200"];
    let (code, told) = relapse(directory.path(), &hunt);
    assert_eq!(code, Some(0), "{told}");
    let routes = told.lines().find(|line| line.starts_with("routes")).unwrap_or_else(|| panic!("{told}"));
    // A file is taken where one is asked for.
    assert!(routes.contains(" served"), "{told}");
    assert!(!told.lines().any(|line| line.starts_with("WARNING not tested") && line.contains("/files")), "{told}");
}

/// An app whose code lies deeper the more of a body fits.
const DEEP: &str = r#"
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Order(BaseModel):
    kind: str = "a"
    count: int = 1
    urgent: bool = True


@app.post("/orders")
async def order(order: Order):
    if order.kind == "b":
        if order.count > 1000:
            if not order.urgent:
                return {"depth": 3}
            return {"depth": 2}
        return {"depth": 1}
    if order.kind == "a word that no client knows":
        return {"depth": -1}
    return {"depth": 0}
"#;

/// Cases that reach something new are varied, so that a hunt gets where one case alone hardly gets; what it does not reach is
/// told, with its lines. The figures of the seed are 3 of 4 branches; without variations they are 2.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_code_that_is_reached_steers_the_hunt() {
    let python = crate::stage::python();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("service.py"), DEEP).unwrap();
    let hunt = ["hunt", "--target", "asgi:service:app", "--python", python.to_str().unwrap(), "--faults", "edge"];
    let (_, told) = relapse(directory.path(), &[&hunt[..], &["--cases", "1500"]].concat());
    assert!(told.contains("code       4 of 5 blocks of the app's functions reached\n"), "{told}");
    assert!(told.contains("POST /orders; never service.py:23\n"), "{told}");
}

/// A service with an ordinary mistake, for an ordinary value: `n=0`.
const DIVIDES: &str = r#"
from fastapi import FastAPI

app = FastAPI()


@app.get("/mean")
async def mean(total: int, n: int):
    return total / n
"#;

/// An ordinary value is drawn soon; the reproducer states the exception, without the line, which moves with every change.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_reproducer_states_the_exception() {
    let python = crate::stage::python();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("service.py"), DIVIDES).unwrap();
    let hunt = ["hunt", "--target", "asgi:service:app", "--python", python.to_str().unwrap(), "--cases", "150"];
    let (code, told) = relapse(directory.path(), &hunt);
    let files = fs::read_dir(directory.path().join("reproducers")).unwrap();
    let written: String = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    assert_eq!(code, Some(1), "{told}");
    assert!(
        written.contains(r#"exception = { place = "service.py in mean", type = "ZeroDivisionError" }"#),
        "{written}"
    );
}

/// An app with a mistake for one value in a query, a body and a message each: a number that its code names, and values that
/// Python reads as JSON and `serde_json` does not hold.
const FOR_ONE_VALUE: &str = r#"
import json

from fastapi import FastAPI, Request, WebSocket

app = FastAPI()
LEAP = 366


@app.get("/day")
async def day(number: int = 1):
    return {"left": 1 // (number - LEAP)}


@app.post("/share")
async def share(request: Request):
    try:
        weight = (await request.json())["weight"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {"share": 0}
    return {"share": int(100 * weight) if isinstance(weight, float) else 0}


@app.websocket("/names")
async def names(websocket: WebSocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        name = json.loads(text).get("name", "") if text.startswith("{") else ""
        await websocket.send_bytes(str(name).encode())
"#;

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn values_that_only_the_code_or_python_knows_are_drawn() {
    let python = crate::stage::python();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("service.py"), FOR_ONE_VALUE).unwrap();
    let hunt = ["hunt", "--target", "asgi:service:app", "--python", python.to_str().unwrap(), "--faults", "edge"];
    let (_, told) = relapse(directory.path(), &[&hunt[..], &["--cases", "1500"]].concat());
    let exceptions = [
        "ZeroDivisionError: integer division or modulo by zero (service.py:12 in day)",
        "ValueError: cannot convert float NaN to integer (service.py:21 in share)",
        "OverflowError: cannot convert float infinity to integer (service.py:21 in share)",
        "ValueError: Exceeds the limit (4300 digits)",
        "UnicodeEncodeError in names",
    ];
    for exception in exceptions {
        assert!(told.contains(exception), "{exception}: {told}");
    }
}

/// Routes of a server behind a URL are those of its OpenAPI document, in a file or behind a URL of its own.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_server_is_hunted_by_its_document() {
    let document = r#"{"openapi": "3.1.0", "paths": {"/broken/{id}": {"get": {
        "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "integer"}}]}}}}"#;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, at) = runtime.block_on(async {
        let server = wiremock::MockServer::start().await;
        let answer = |status| wiremock::ResponseTemplate::new(status);
        let path = wiremock::matchers::path_regex;
        wiremock::Mock::given(path("^/broken/[0-9]+$")).respond_with(answer(500)).mount(&server).await;
        let given = wiremock::Mock::given(wiremock::matchers::path("/openapi.json"));
        given.respond_with(answer(200).set_body_string(document)).mount(&server).await;
        let at = server.uri();
        (server, at)
    });
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("api.yaml"), "openapi: 3.0.0\npaths:\n  /broken/{id}:\n    get: {}\n").unwrap();
    fs::write(directory.path().join("none.yaml"), "info: {}\n").unwrap();
    let by = |place: &str| {
        relapse(directory.path(), &["hunt", "--target", &at, "--cases", "40", "--faults", "edge", "--api", place])
    };
    for place in [&format!("{at}/openapi.json"), "api.yaml"] {
        let (code, told) = by(place);
        assert!(code == Some(1) && told.contains("on GET /broken/{id}"), "{place}: {told}");
    }
    for (place, why) in
        [("none.yaml", "neither `openapi`"), ("gone.json", "gone.json"), (&format!("{at}/none"), "HTTP 404")]
    {
        let (code, told) = by(place);
        assert!(code == Some(2) && told.contains(why), "{place}: {told}");
    }
    drop(server);
}

/// Optional parts of a body are there now and then, and a form of parts is one, with a part of it missing or empty.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn bodies_are_drawn_with_all_that_they_may_have() {
    let python = crate::stage::python();
    let directory = tempfile::tempdir().unwrap();
    let text = "from typing import Optional\nfrom fastapi import FastAPI, UploadFile\nfrom pydantic import BaseModel\n\n\n\
                class Order(BaseModel):\n    name: str\n    note: Optional[str] = None\n\n\napp = FastAPI()\n\n\n\
                @app.post('/order')\ndef order(order: Order):\n    return {}[order.note] if order.note else {}\n\n\n\
                @app.post('/file')\nasync def file(file: UploadFile):\n    return (await file.read())[0]\n";
    fs::write(directory.path().join("service.py"), text).unwrap();
    let hunt = ["hunt", "--target", "asgi:service:app", "--python", python.to_str().unwrap(), "--cases", "200"];
    let (code, told) = relapse(directory.path(), &[&hunt[..], &["--faults", "edge"]].concat());
    assert_eq!(code, Some(1), "{told}");
    for found in ["KeyError: 'a' (service.py", "IndexError: index out of range (service.py"] {
        assert!(told.contains(found), "{found}: {told}");
    }
}

/// The test of a finding, as it is written.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_test_is_written_as_an_engineer_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    put("raw.py", "early_disconnect", &directory.path().join("src"));
    let hunt = ["hunt", "--target", "asgi:raw:app @ src", "--cases", "64", "--faults", "edge"];
    let more = ["--write-pytest", "tests/test_raw.py", "--python", "python3"];
    let (_, told) = relapse(directory.path(), &[&hunt[..], &more[..]].concat());
    assert!(told.contains("tests/test_raw.py: written; it fails, as it is to: KeyError('text')"), "{told}");
    check_page("found_as_pytest", &fs::read_to_string(directory.path().join("tests/test_raw.py")).unwrap());
}

/// An unreachable application is reported with the options that help.
#[rstest]
#[case::nowhere("async def app(scope, receive, send):\n    pass\n", "returned without")]
#[case::refused(
    "async def app(scope, receive, send):\n    if scope['type'] == 'http':\n        \
     await send({'type': 'http.response.start', 'status': 404})\n        await send({'type': 'http.response.body'})\n    \
     elif scope['type'] == 'websocket':\n        await send({'type': 'websocket.close'})\n",
    "WARNING `ws:/` served no client: mostly http 403; provide a credential"
)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_application_that_lets_no_client_in_is_reported(#[case] text: &str, #[case] expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("service.py"), text).unwrap();
    let (code, told) = relapse(directory.path(), &["hunt", "--target", "asgi:service:app", "--cases", "30"]);
    assert!(code != Some(0) && told.contains(expected), "{told}");
}

/// A route that is named is visited with the query it needs.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_route_that_is_named_is_visited() {
    let directory = tempfile::tempdir().unwrap();
    put("raw.py", "query", directory.path());
    let hunt = ["hunt", "--target", "asgi:raw:app", "--path", "ws:/ws?room=a", "--cases", "100", "--faults", "edge"];
    let (code, told) = relapse(directory.path(), &hunt);
    assert!(code == Some(1) && told.contains("KeyError") && told.contains("--path 'ws:/ws?room=a'"), "{told}");
    // The printed command is the same, without secrets.
    let more =
        ["--env", "API_TOKEN=hidden", "--env", "PLACE=here", "--profile", "hypercorn-0.18", "--write-pytest", "tests"];
    let (code, told) = relapse(directory.path(), &[&hunt[..], &more].concat());
    assert_eq!(code, Some(1), "{told}");
    for part in
        [" --profile hypercorn-0.18", " --env API_TOKEN=\"$API_TOKEN\"", " --env PLACE=here", "it fails, as it is to"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    let tests = fs::read_dir(directory.path().join("tests")).unwrap();
    let written: String = tests.map(|test| fs::read_to_string(test.unwrap().path()).unwrap()).collect();
    assert!(!told.contains("hidden") && !written.contains("hidden"), "{told}{written}");
    assert!(written.contains("secret(\"API_TOKEN\")") || written.contains("secret('API_TOKEN')"), "{written}");
    let (code, told) = relapse(directory.path(), &["hunt", "--target", "asgi:raw:app", "--path", "/ws"]);
    assert!(code == Some(2) && told.contains("write it as in `ws:/path`"), "{told}");
}

/// An application whose mistake lies behind what only a client of its own says: a subprotocol, a room, a first message with a
/// table in it.
const SPOKEN_TO: &str = "
import json

async def app(scope, receive, send):
    if scope['type'] == 'http':
        await send({'type': 'http.response.start', 'status': 404, 'headers': []})
        return await send({'type': 'http.response.body'})
    if scope['type'] == 'lifespan':
        return
    await receive()
    if scope['query_string'] != b'room=kitchen' or 'orders.v2' not in scope['subprotocols']:
        return await send({'type': 'websocket.close', 'code': 4400})
    await send({'type': 'websocket.accept', 'subprotocol': 'orders.v2'})
    while True:
        event = await receive()
        if event['type'] == 'websocket.disconnect':
            return
        try:
            order = json.loads(event.get('text') or '')
        except ValueError:
            continue
        if isinstance(order, dict) and order.get('do') == 'place' and isinstance(order.get('order'), dict):
            order['order']['dishes']
";

/// A browser's recording of a session.
const SAVED: &str = r#"{"log": {"entries": [{
    "request": {"method": "GET", "url": "wss://shop.test/service?room=kitchen", "headers": [
        {"name": "Sec-WebSocket-Protocol", "value": "orders.v2"}, {"name": "Cookie", "value": "session=1"}]},
    "response": {"status": 101},
    "_webSocketMessages": [
        {"type": "send", "opcode": 1, "data": "{\"do\": \"place\", \"order\": {\"dishes\": [1], \"table\": 2}}"}]
}]}}"#;

/// The same as a case.
const SAVED_AS_A_CASE: &str = r#"
summary = "An order is placed."
reported = "Nothing."
root_cause = "Nothing."
scenario = "order"
alone = true

[[step]]
open = "/service"
query = "room=kitchen"
credential = "none"
offers = ["orders.v2"]

[[step]]
send = '{"do":"place","order":{"dishes":[1],"table":2}}'

[expect]
accept = ["ok"]

[symptom]
outcome = "drop (1006)"
class = "dropped"
cause = "crash-after-accept"
found_by = ["no_drop"]
"#;

/// A hunt starts from a recorded good conversation; without one it does not get so far.
#[rstest]
#[case::an_archive("good.har", SAVED)]
#[case::a_case("good.toml", SAVED_AS_A_CASE)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_recorded_conversation_is_learned_from(#[case] name: &str, #[case] text: &str) {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("service.py"), SPOKEN_TO).unwrap();
    fs::write(directory.path().join(name), text).unwrap();
    let hunt = ["hunt", "--cases", "200", "--faults", "edge", "--target", "asgi:service:app"];
    let hunt = [&hunt[..], &["--python", python.to_str().unwrap()]].concat();
    let (code, told) = relapse(directory.path(), &[&hunt[..], &["--recorded", name]].concat());
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("KeyError: 'dishes' (service.py:23 in app)"), "{told}");
    let left_out = told.matches("good.har: left out, as credentials are in them: cookie;").count();
    assert_eq!(left_out, usize::from(name == "good.har"), "{told}");
    let again = told.lines().find_map(|line| line.strip_prefix("reproduce: relapse ")).unwrap();
    assert!(again.contains(&format!(" --recorded {name}")), "{again}");
    let (code, told) = relapse(directory.path(), &[&hunt[..], &["--path", "ws:/service?room=kitchen"]].concat());
    assert!(code == Some(2) && !told.contains("KeyError"), "{told}");
}

/// An application that remembers whom it has let in, and fails from one of them on.
fn that_remembers(from: usize) -> String {
    format!(
        "
seen = 0

async def app(scope, receive, send):
    global seen
    if scope['type'] != 'websocket':
        if scope['type'] == 'http':
            await send({{'type': 'http.response.start', 'status': 404, 'headers': []}})
            await send({{'type': 'http.response.body'}})
        return
    await receive()
    await send({{'type': 'websocket.accept'}})
    seen += 1
    if seen >= {from}:
        raise KeyError(seen)
    while (await receive())['type'] != 'websocket.disconnect':
        pass
"
    )
}

/// A finding in an interpreter that had served other clients occurs in a fresh one too, or is reported as one that does
/// not: a reproducer that shows nothing would say FIXED of a bug that remains.
#[rstest]
#[case::within_a_case(2, true)]
#[case::over_many_cases(20, false)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_is_found_shows_in_an_interpreter_of_its_own(#[case] from: usize, #[case] shows: bool) {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("service.py"), that_remembers(from)).unwrap();
    let target = ["--target", "asgi:service:app", "--path", "ws:/", "--python", python.to_str().unwrap()];
    let hunt = ["hunt", "--seed", "100", "--cases", "100", "--jobs", "1", "--faults", "edge"];
    let (code, told) = relapse(directory.path(), &[&hunt[..], &target].concat());
    assert_eq!(code, Some(1), "{told}");
    let finding = told.split("\n\n").find(|finding| finding.contains("KeyError")).unwrap();
    assert_eq!(!finding.contains("and not in one of its own)"), shows, "{finding}");
    let again = finding.lines().find_map(|line| line.strip_prefix("reproduce: relapse ")).unwrap();
    if !shows {
        // There is no case that would read FIXED of unchanged code; all the cases before bring it about again.
        assert!(told.contains("not shown again by a case of its own: 1") && again.starts_with("hunt "), "{told}");
        assert!(fs::read_dir(directory.path().join("reproducers")).is_err());
        return;
    }
    let capsule = again.split(' ').nth(1).unwrap();
    let (code, told) = relapse(directory.path(), &[&["run", capsule], &target[..]].concat());
    assert!(code == Some(1) && told.contains("FAILED reproducers/"), "{told}");
}

/// An unusable recording is reported.
#[rstest]
#[case::not_there("good.har", None, "could not read good.har")]
#[case::no_archive("good.har", Some("{}"), "good.har: it is no HAR file: missing field `log`")]
#[case::no_case("good.toml", Some("summary = 1"), "good.toml:1")]
fn what_is_no_recording_is_told(#[case] name: &str, #[case] text: Option<&str>, #[case] expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("service.py"), SPOKEN_TO).unwrap();
    if let Some(text) = text {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let (code, told) = relapse(directory.path(), &["hunt", "--target", "asgi:service:app", "--recorded", name]);
    assert!(code == Some(2) && told.contains(expected), "{told}");
}

/// The transcript of a script on a module without a service file.
fn played(python: PathBuf, text: &str, steps: &[Step]) -> Transcript {
    played_as(ServiceFile::unknown(), python, text, steps)
}

/// The same, spoken to as a service file says.
fn played_as(binding: ServiceFile, python: PathBuf, text: &str, steps: &[Step]) -> Transcript {
    played_under(Vec::new(), binding, python, text, steps)
}

/// The same, where something acts on the way.
fn played_under(faults: Vec<Fault>, binding: ServiceFile, python: PathBuf, text: &str, steps: &[Step]) -> Transcript {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("service.py"), text).unwrap();
    let site = site(&python, directory.path(), "service:app");
    Runtime::new(Clock::Virtual).block_on(async {
        let launched = PythonTarget::launch(site, &binding, String::new(), profile("uvicorn-0.35"), 1);
        let (target, _) = launched.await.unwrap();
        let transcript = run::converse(steps, Plan { seed: 1, faults }, &target).await.unwrap();
        target.clear().await.unwrap();
        target.stop().await.unwrap();
        transcript
    })
}

/// The keys of everything that is found in a transcript.
fn found(transcript: &Transcript) -> Vec<String> {
    let evidence = RunView::gather(transcript, &relapse_core::judge::verdict::HealthyClient::Absent);
    findings(&evidence).into_iter().map(|finding| format!("{}: {}", finding.check, finding.key)).collect()
}

/// A client that is gone: `send` says so. An app that passes this on, in whichever word of its framework, is not at fault;
/// one that makes something else of it is.
#[rstest]
#[case::as_it_came("raise", true)]
#[case::as_starlette_says_it("raise type('WebSocketDisconnect', (Exception,), {})(1006)", true)]
#[case::as_a_mistake("raise KeyError('socket')", false)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn that_the_client_is_gone_may_be_passed_on(#[case] then: &str, #[case] is_in_order: bool) {
    let python = python();
    let text = format!(
        "import asyncio\nasync def app(scope, receive, send):\n    if scope['type'] != 'websocket':\n        raise ValueError\n    \
         await send({{'type': 'websocket.accept'}})\n    await asyncio.sleep(1)\n    try:\n        \
         await send({{'type': 'websocket.send', 'text': 'hello'}})\n    except OSError:\n        {then}\n"
    );
    let found = found(&played(python, &text, &[open(), step(Action::Leave)]));
    assert_eq!(found.is_empty(), is_in_order, "{found:?}");
}

/// A long request is answered, or refused: by a message, or by a close. An application that does neither is reported.
#[rstest]
#[case::answered("await say('done')", true)]
#[case::refused("await say('too_long')", true)]
#[case::closed("await send({'type': 'websocket.close', 'code': 1009})\n        return", true)]
#[case::ignored("continue", false)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_long_request_is_not_ignored(#[case] then: &str, #[case] is_in_order: bool) {
    let python = python();
    let text = format!(
        "async def app(scope, receive, send):\n    if scope['type'] != 'websocket':\n        raise ValueError\n    \
         async def say(name):\n        await send({{'type': 'websocket.send', 'text': '{{\"type\":\"%s\"}}' % name}})\n    \
         await receive()\n    await send({{'type': 'websocket.accept'}})\n    while True:\n        \
         event = await receive()\n        if event['type'] != 'websocket.receive':\n            return\n        \
         if len(event['text']) < 9000:\n            await say('done')\n            continue\n        {then}\n"
    );
    let binding = ServiceFile::parse(
        "relapse.toml",
        "[messages]\nwelcome = \"\"\nrequest = '{\"type\":\"ask\"}'\nevents = [\"done\"]\n",
    );
    let pause = Step::new(Action::Pause, std::time::Duration::from_secs(10));
    let ask = r#"{"type":"ask"}"#;
    let steps = [
        open(),
        step(Action::SendText(format!("{ask:<9000}"))),
        pause,
        step(Action::SendText(ask.to_owned())),
        wait("done"),
        step(Action::Close(CloseCode::NORMAL)),
    ];
    let found = found(&played_as(binding.unwrap(), python, &text, &steps));
    let expected: &[&str] = if is_in_order { &[] } else { &["answered: a long request"] };
    assert_eq!(found, expected);
}

/// A long message takes its time on a slow connection, and a late answer behind it is no finding.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_long_request_on_a_slow_way_is_no_finding() {
    let python = python();
    let text = "async def app(scope, receive, send):\n    if scope['type'] != 'websocket':\n        raise ValueError\n    \
                await receive()\n    await send({'type': 'websocket.accept'})\n    \
                while (await receive())['type'] == 'websocket.receive':\n        pass\n";
    let slow = Fault {
        kind: FaultKind::Stream {
            direction: Direction::ToServer,
            fault: StreamFault::Throttle { rate: setting::Count(10_000) },
        },
        trigger: Trigger::default(),
    };
    let steps = [
        open(),
        step(Action::SendText("a".repeat(1 << 20))),
        Step::new(Action::Pause, std::time::Duration::from_secs(90)),
        step(Action::Close(CloseCode::NORMAL)),
    ];
    let transcript = played_under(vec![slow], ServiceFile::unknown(), python, text, &steps);
    assert!(transcript.events.iter().any(|event| event.what == EventKind::KeepaliveExpired), "it is as slow as that");
    assert_eq!(found(&transcript), [""; 0]);
}

/// An app that lets clients in at `/ws`, refuses them at `/closed`, and fails over bytes.
const FAILS_OVER_BYTES: &str = "
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        return
    if scope['type'] == 'http':
        await send({'type': 'http.response.start', 'status': 200, 'headers': []})
        return await send({'type': 'http.response.body', 'body': b'ok'})
    await receive()
    if scope['path'] == '/closed':
        return await send({'type': 'websocket.close'})
    await send({'type': 'websocket.accept'})
    while True:
        event = await receive()
        if event['type'] == 'websocket.disconnect':
            return
        event.get('text') + ''
";

/// A directory with an app, `service:app`.
fn service(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("service.py"), text).unwrap();
    directory
}

/// Standard output, as a document, and the exit code.
fn document(directory: &Path, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
    let output = crate::support::relapse_command()
        .current_dir(directory)
        .args(arguments)
        .args(["--format", "json"])
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}: {error}")))
}

/// Each profile finds in its own way, and each finding is shown again behind its own profile.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_hunt_goes_behind_several_profiles() {
    let python = python();
    let directory = service(FAILS_OVER_BYTES);
    let (here, python) = (directory.path(), python.to_str().unwrap());
    let target = ["--target", "asgi:service:app", "--path", "ws:/ws", "--python", python];
    let hunt = [&["hunt", "--seed", "100", "--cases", "60", "--faults", "edge"], &target[..]].concat();
    let profiles = ["--profile", "hyper*", "--profile", "uvicorn-0.35"];
    let (code, told) = relapse(here, &[&hunt[..], &profiles].concat());
    assert_eq!(code, Some(1), "{told}");
    let lines: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("reproduce: relapse ")).collect();
    for (name, class) in [("hypercorn-0.18", "server-error"), ("uvicorn-0.35", "dropped")] {
        assert!(told.contains(&format!("behind {name}:\n")), "{told}");
        let own = told.split("behind ").find(|hunt| hunt.starts_with(&format!("{name}:"))).unwrap();
        let line = lines.iter().find(|line| line.contains(&format!(" --profile {name} "))).unwrap();
        assert!(
            line.starts_with(&format!("run reproducers/{name}/")) && own.contains(&format!(", {class} ")),
            "{told}"
        );
        let (code, told) = relapse(here, &line.split(' ').collect::<Vec<_>>());
        assert!(code == Some(1) && told.contains(&format!(" behind {name}: ")), "{told}");
    }
    // One document with a document for each, which is what one profile gives.
    let (code, many) = document(here, &[&hunt[..], &profiles].concat());
    let (only, one) = document(here, &[&hunt[..], &["--profile", "uvicorn-0.35"]].concat());
    assert_eq!((code, only), (Some(1), Some(1)));
    let names: Vec<&String> = many["profiles"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["hypercorn-0.18", "uvicorn-0.35"]);
    assert_eq!(many["profiles"]["uvicorn-0.35"]["coverage"], one["coverage"]);
    let keys = |report: &serde_json::Value| {
        report["found"].as_array().unwrap().iter().map(|found| found["key"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&many["profiles"]["uvicorn-0.35"]), keys(&one));
    // A test in Python plays what one server gives.
    let (code, told) = relapse(here, &[&hunt[..], &profiles, &["--write-pytest", "tests"]].concat());
    assert!(code == Some(2) && told.contains("name one profile with it, as in `--profile hypercorn-0.18`"), "{told}");
    assert!(!here.join("tests").exists());
}

/// Mistakes of different harm, those that harm least first.
const OF_ALL_KINDS: &str = r#"
import asyncio, traceback

async def answer(send, status, text):
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for reply in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{reply}.complete"})
        return
    if scope["path"] == "/a-hang":
        await asyncio.sleep(3600)
    elif scope["path"] == "/b-crash":
        {}["order"]
    elif scope["path"] == "/c-leak":
        try:
            {}["order"]
        except KeyError:
            return await answer(send, 400, traceback.format_exc())
    await answer(send, 404, "not found")
"#;

/// The finding that harms most is the first one, whatever was found first.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn findings_are_in_the_order_of_their_harm() {
    let python = python();
    let directory = service(OF_ALL_KINDS);
    let paths = ["--path", "GET /a-hang", "--path", "GET /b-crash", "--path", "GET /c-leak"];
    let hunt = ["hunt", "--target", "asgi:service:app", "--python", python.to_str().unwrap(), "--cases", "60"];
    let (code, told) = document(directory.path(), &[&hunt[..], &paths].concat());
    assert_eq!(code, Some(1), "{told:#}");
    let found: Vec<(&str, &str)> = told["found"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| (found["harm"].as_str().unwrap(), found["key"].as_str().unwrap()))
        .collect();
    let harms: Vec<&str> = found.iter().map(|(harm, _)| *harm).collect();
    assert_eq!(harms, ["wrong_data", "crash", "hang"], "{found:#?}");
    for ((_, key), path) in found.iter().zip(["/c-leak", "/b-crash", "/a-hang"]) {
        assert!(key.contains(path), "{found:#?}");
    }
}

/// The parts of a campaign behind several profiles merge profile by profile.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_parts_of_a_hunt_behind_several_profiles_merge() {
    let python = python();
    let directory = service(FAILS_OVER_BYTES);
    let (here, python) = (directory.path(), python.to_str().unwrap());
    let target = ["--target", "asgi:service:app", "--path", "ws:/ws", "--python", python, "--profile", "uvicorn-0.35*"];
    let hunt = [&["hunt", "--cases", "60", "--faults", "edge"], &target[..]].concat();
    for part in ["1/2", "2/2"] {
        let (_, part_of) = document(here, &[&hunt[..], &["--shard", part]].concat());
        fs::write(here.join(format!("{}.json", &part[..1])), part_of.to_string()).unwrap();
    }
    let (code, merged) = document(here, &["hunt", "--merge", "1.json", "2.json"]);
    assert_eq!(code, Some(1));
    assert_eq!(merged["profiles"].as_object().unwrap().len(), 3);
    assert_eq!(merged["profiles"]["uvicorn-0.35-sansio"]["coverage"]["cases"], 60);
    // That of one profile belongs to another campaign.
    let (_, one) = document(here, &[&["hunt"], &target[..6], &["--cases", "5", "--seed", "900"]].concat());
    fs::write(here.join("one.json"), one.to_string()).unwrap();
    let (code, told) = relapse(here, &["hunt", "--merge", "1.json", "one.json"]);
    assert!(code == Some(2) && told.contains("the profiles differ"), "{told}");
}

/// A deployment is looked at behind each profile; the worst decides.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_app_is_looked_at_behind_several_profiles() {
    let python = python();
    // It needs what some servers only give it.
    let text = FAILS_OVER_BYTES.replace("    await receive()", "    scope['state']\n    await receive()");
    let directory = service(&text);
    let here = directory.path();
    let validate =
        ["validate", "--target", "asgi:service:app", "--path", "ws:/ws", "--python", python.to_str().unwrap()];
    let (code, all) = document(here, &[&validate[..], &["--profile", "all"]].concat());
    let by_profile = all.as_object().unwrap();
    assert_eq!(by_profile.len(), relapse::discover::servers().unwrap().len());
    let passing = by_profile.values().filter(|validation| validation["passes"] == true).count();
    assert!(passing > 0 && passing < by_profile.len() && code == Some(1), "{all:#}");
    let (name, good) = by_profile.iter().find(|(_, validation)| validation["passes"] == true).unwrap();
    // The document of one profile is that of its name in the other, and so is its table.
    let (code, one) = document(here, &[&validate[..], &["--profile", name]].concat());
    assert_eq!((code, &one["rows"]), (Some(0), &good["rows"]));
    let (failing, _) = by_profile.iter().find(|(_, validation)| validation["passes"] == false).unwrap();
    let (code, told) = relapse(here, &[&validate[..], &["--profile", name, "--profile", failing]].concat());
    assert_eq!(code, Some(1));
    assert_eq!(told.matches("server: ").count(), 2, "{told}");
    for name in [name, failing] {
        assert!(told.contains(&format!("behind {name}:\n")), "{told}");
    }
    let (code, told) = relapse(here, &[&validate[..], &["--clock", "real", "--watch", "--profile", "all"]].concat());
    assert!(code == Some(2) && told.contains("--watch looks behind one profile"), "{told}");
}

/// A path that a user names is meant to let clients in.
#[rstest]
#[case("ws:/closed", 1, "refused, although the path was named")]
#[case("ws:/ws", 0, "close 1000 (ok)")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_named_path_that_refuses_clients_fails(#[case] path: &str, #[case] exit: i32, #[case] expected: &str) {
    let python = python();
    let directory = service(FAILS_OVER_BYTES);
    let validate = ["validate", "--target", "asgi:service:app", "--python", python.to_str().unwrap(), "--path", path];
    let (code, told) = document(directory.path(), &validate);
    assert_eq!((code, told["passes"].as_bool()), (Some(exit), Some(exit == 0)), "{told:#}");
    assert!(told["rows"][0]["got"].as_str().unwrap().ends_with(expected), "{told:#}");
}

/// An app that starts once. The hunt keeps what the workers that have one find, and says what became of the others.
#[rstest]
#[case::raises("raise RuntimeError('no licence is left')", "60s", "no licence is left")]
#[case::hangs(
    "threading.Event().wait()",
    "10s",
    "the import of service:app took longer than 10 s; --start-limit gives"
)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_hunt_outlives_an_app_that_does_not_start_again(#[case] then: &str, #[case] limit: &str, #[case] expected: &str) {
    let python = python();
    let once = format!(
        "import os, threading\nstarted = os.path.join(os.path.dirname(__file__), 'started')\n\
         if os.path.exists(started):\n    {then}\nopen(started, 'w').close()\n"
    );
    let directory = service(&(once + FAILS_OVER_BYTES));
    let here = directory.path();
    let target = ["--target", "asgi:service:app", "--path", "ws:/ws", "--python", python.to_str().unwrap()];
    let hunt = ["hunt", "--seed", "100", "--cases", "130", "--jobs", "2", "--faults", "edge", "--start-limit", limit];
    let (code, told) = relapse(here, &[&hunt[..], &target].concat());
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("TypeError in app after the accept") && told.contains("130 case(s), 1 finding(s)"), "{told}");
    assert!(told.contains("(seen again in a process that had served other cases; the app did not start"), "{told}");
    let unfinished = told.lines().find(|line| line.starts_with("unfinished ")).unwrap_or_else(|| panic!("{told}"));
    assert!(
        unfinished.contains(expected) && unfinished.ends_with("no case is left out because of that"),
        "{unfinished}"
    );
    // Where it starts for no worker there is no hunt.
    let (code, told) = relapse(here, &[&hunt[..], &target].concat());
    assert!(code == Some(2) && told.contains(expected) && !told.contains("finding(s)"), "{told}");
}

/// An import that never ends is an outcome like any other.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_import_may_take_so_long() {
    let python = python();
    let directory = service("import threading\nthreading.Event().wait()\n");
    fs::write(directory.path().join("open.toml"), PLAIN_SESSION).unwrap();
    let run = ["run", "open.toml", "--target", "asgi:service:app", "--python", python.to_str().unwrap()];
    let (code, told) = relapse(directory.path(), &[&run[..], &["--start-limit", "500ms"]].concat());
    assert!(code == Some(1) && told.contains("the import of service:app took longer than 0.5 s"), "{told}");
    assert!(told.contains(" --start-limit 500ms --seed 1"), "{told}");
}

/// A session that is opened and closed.
const PLAIN_SESSION: &str = "summary = \"A session opens.\"\n\n[[step]]\nopen = \"/ws\"\n\n[[step]]\nclose = 1000\n\n\
                             [expect]\naccept = [\"ok\"]\n";

/// The app answers 200 where everything that the command line says arrives as it was said.
const SAYS_WHAT_ARRIVED: &str = "
import os
good = os.environ['ODD'] == ODD and os.environ['API_TOKEN'] == 'hidden' and os.environ['SAME'] == '\"$SAME\"'
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        return
    if scope['type'] == 'http':
        await send({'type': 'http.response.start', 'status': 200 if good else 404, 'headers': []})
        return await send({'type': 'http.response.body', 'body': b'ok'})
";

/// Whatever was said on the command line, the line that a run prints says it again to a shell, and no secret.
#[rstest]
#[case::spaces("a b  c")]
#[case::quotes("it's \"quoted\" `twice`")]
#[case::variables("$HOME ${PATH} $(id) \\$")]
#[case::lines("a\nb\\n\tc'")]
#[case::other_scripts("gr\u{fc}\u{df} \u{65e5}\u{672c}")]
#[case::globs("* ? [a] ~ # ! ; & | < >")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_printed_command_runs_the_same_again(#[case] odd: &str) {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    fs::create_dir(here.join("it's $here")).unwrap();
    let text = format!("ODD = {}\n{SAYS_WHAT_ARRIVED}", serde_json::Value::from(odd));
    fs::write(here.join("it's $here/service.py"), text).unwrap();
    let case = |accept: &str| {
        format!("summary = \"It answers.\"\n\n[[step]]\nrequest = \"GET /\"\n\n[expect]\naccept = [\"{accept}\"]\n")
    };
    fs::write(here.join("it's [g]ood $1.toml"), case("http 200")).unwrap();
    fs::write(here.join("not good.toml"), case("http 404")).unwrap();
    let odd = format!("ODD={odd}");
    let target = ["--target", "asgi:service:app @ it's $here", "--python", python.to_str().unwrap(), "--env", &odd];
    let more = ["--env", "API_TOKEN=hidden", "--env", "SAME=\"$SAME\"", "--profile", "hyper*", "--path", "GET /?a=*"];
    let again = |line: &str| {
        let script = format!("relapse() {{ '{}' \"$@\"; }}\n{line}", env!("CARGO_BIN_EXE_relapse"));
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(here).env("API_TOKEN", "hidden").env("SAME", "another");
        let output = bash.output().unwrap();
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), told)
    };
    let (code, run) = document(here, &[&["run", "it's [g]ood $1.toml"], &target[..], &more].concat());
    assert_eq!(code, Some(0), "{run:#}");
    let line = run["cases"][0]["reproduce"].as_str().unwrap();
    assert!(!line.contains("hidden") && !line.contains(char::is_control), "{line}");
    let (code, told) = again(line);
    assert!(code == Some(0) && told.contains("1 PASSED"), "{line}\n{told}");
    let (code, told) = relapse(here, &[&["run", "not good.toml"], &target[..], &more].concat());
    assert_eq!(code, Some(1), "{told}");
    let reproduce = |told: &str| told.lines().find_map(|line| line.strip_prefix("  reproduce: ")).map(str::to_owned);
    let line = reproduce(&told).unwrap_or_else(|| panic!("{told}"));
    let (code, told) = again(&line);
    assert_eq!((code, reproduce(&told)), (Some(1), Some(line)), "{told}");
}
