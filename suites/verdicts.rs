//! The verdicts on a user's own app: small apps with one defect each, in memory, behind a real server and by URL.

use std::path::Path;
use std::time::Duration;

use relapse::{
    case::{Case, ExceptionClaim, Known, Symptom},
    external::{External, Front, Version, Versions},
    service_file::ServiceFile,
    targets::Url,
    verdict_rules,
};
use relapse_core::{
    error::{AppError, Blame},
    judge::{
        cause::Cause,
        check,
        outcome::Class,
        verdict::{Reason, Side, SymptomKey, TrialResult, Verdict},
    },
    record::service::TargetKind,
};
use relapse_python::{
    app::Python as PythonTarget,
    process::{Installation as PythonInstallation, Server as PythonServer},
    served::Served,
};
use relapse_simulate::clock::{Clock, Runtime};
use tempfile::TempDir;

use crate::{
    python::{python, site},
    served::installation,
    support::profile,
};

/// The version of the server that plays, stands behind the URL and is started.
pub(crate) const SERVER: (&str, &str) = ("uvicorn-0.54", "uvicorn==0.54.0");

/// An app with one defect.
struct App {
    /// Its path, and the name of its function.
    name: &'static str,
    /// The body of its function with the defect.
    before: &'static str,
    /// The body without it.
    after: &'static str,
    /// The steps of the case, after `step = `. `PATH` stands for its path.
    steps: &'static str,
    /// The accepted outcomes, after `accept = `.
    accept: &'static str,
    /// The steps of a healthy client of the case's own; empty where the case's first request does.
    control: &'static str,
    /// The symptom of before, as lines of `[symptom]`.
    shows: &'static str,
    /// The symptom of before where only the wire is seen.
    by_url: &'static str,
}

/// The helpers of every app in the module.
pub(crate) const PRELUDE: &str = r#"
import asyncio, json, logging
from urllib.parse import parse_qsl

log = logging.getLogger("service")

async def answer(send, status, body=b"done", headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})

async def opened(receive, send):
    await receive()
    await send({"type": "websocket.accept"})

async def say(send, text):
    await send({"type": "websocket.send", "text": text})

async def close(send, code, reason=""):
    await send({"type": "websocket.close", "code": code, "reason": reason})

async def listen(receive):
    while (await receive())["type"] != "websocket.disconnect":
        pass

def query(scope):
    return dict(parse_qsl(scope["query_string"].decode()))

def header(scope, wanted):
    return next((value for name, value in scope["headers"] if name == wanted), None)

async def well(scope, receive, send):
    await answer(send, 200)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    await globals()[scope["path"][1:]](scope, receive, send)
"#;

/// The steps of a plain request.
const GET: &str = r#"[{ request = "GET PATH" }]"#;
/// The steps of a session in which nothing is said.
const SESSION: &str = r#"[{ open = "PATH" }, { close = 1000 }]"#;
/// The steps of a session in which the client waits for its end.
const UNTIL_CLOSE: &str = r#"[{ open = "PATH" }, { wait = "close" }]"#;
/// The steps of a session in which a message is answered.
const ASK: &str =
    r#"[{ open = "PATH" }, { send = { do = "join" } }, { wait_answer = true, within_ms = 600 }, { close = 1000 }]"#;

const OPEN: &str = r#"["ok"]"#;

const APPS: &[App] = &[
    App {
        name: "crash_before_accept",
        before: "room = scope['room']\nawait opened(receive, send)\nawait listen(receive)",
        after: "room = scope.get('room')\nawait opened(receive, send)\nawait listen(receive)",
        steps: SESSION,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "http 500"
class = "server-error"
cause = "crash-before-response"
exception = { type = "KeyError", text = "'room'", place = "service.py in crash_before_accept" }
log = "Exception in ASGI application"
found_by = ["no_server_error", "no_escaped_exception"]"#,
        by_url: r#"outcome = "http 500"
class = "server-error"
cause = "unknown"
found_by = ["no_server_error"]"#,
    },
    App {
        name: "crash_after_accept",
        before: "await opened(receive, send)\nscope.get('room').upper()\nawait listen(receive)",
        after: "await opened(receive, send)\n(scope.get('room') or 'hall').upper()\nawait listen(receive)",
        steps: UNTIL_LEFT,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "drop (1006)"
class = "dropped"
cause = "crash-after-accept"
exception = { type = "AttributeError", text = "'NoneType' object has no attribute 'upper'", place = "service.py in crash_after_accept" }
log = "Exception in ASGI application"
found_by = ["no_drop", "no_escaped_exception"]"#,
        by_url: r#"outcome = "drop (1006)"
class = "dropped"
cause = "unknown"
found_by = ["no_drop"]"#,
    },
    App {
        name: "crash_on_message",
        before: "await opened(receive, send)\nevent = await receive()\nawait say(send, json.loads(event['text'])['room'])\nawait listen(receive)",
        after: "await opened(receive, send)\nevent = await receive()\nawait say(send, json.loads(event['text']).get('room', 'hall'))\nawait listen(receive)",
        steps: ASK,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "drop (1006)"
class = "dropped"
cause = "crash-after-accept"
exception = { type = "KeyError", text = "'room'", place = "service.py in crash_on_message" }
log = "Exception in ASGI application"
found_by = ["no_drop", "no_escaped_exception"]"#,
        by_url: r#"outcome = "drop (1006)"
class = "dropped"
cause = "unknown"
found_by = ["no_drop"]"#,
    },
    App {
        name: "crash_in_the_body",
        before: "await send({'type': 'http.response.start', 'status': 200, 'headers': []})\nawait send({'type': 'http.response.body', 'body': b'begun', 'more_body': True})\nawait send({'type': 'http.response.body', 'body': [][0]})",
        after: "await send({'type': 'http.response.start', 'status': 200, 'headers': []})\nawait send({'type': 'http.response.body', 'body': b'begun', 'more_body': True})\nawait send({'type': 'http.response.body', 'body': b'end'})",
        steps: GET,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "http 200 truncated"
class = "dropped"
cause = "crash-after-accept"
exception = { type = "IndexError", text = "list index out of range", place = "service.py in crash_in_the_body" }
log = "Exception in ASGI application"
found_by = ["body_complete", "no_escaped_exception"]"#,
        by_url: r#"outcome = "http 200 truncated"
class = "dropped"
cause = "protocol"
found_by = ["body_complete"]"#,
    },
    App {
        name: "swallowed_with_1011",
        before: "await opened(receive, send)\nevent = await receive()\ntry:\n    await say(send, json.loads(event['text'])['room'])\nexcept KeyError:\n    return await close(send, 1011, 'no room')\nawait listen(receive)",
        after: "await opened(receive, send)\nevent = await receive()\ntry:\n    await say(send, json.loads(event['text']).get('room', 'hall'))\nexcept KeyError:\n    return await close(send, 1011, 'no room')\nawait listen(receive)",
        steps: ASK,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "close 1011"
class = "server-error"
cause = "app-sent-1011"
exception = { type = "KeyError", text = "'room'", place = "service.py in swallowed_with_1011" }
reason = "no room"
found_by = ["no_internal_close"]"#,
        by_url: r#"outcome = "close 1011"
class = "server-error"
cause = "unknown"
reason = "no room"
found_by = ["no_internal_close"]"#,
    },
    App {
        name: "swallowed_with_1000",
        before: "await opened(receive, send)\nevent = await receive()\ntry:\n    await say(send, json.loads(event['text'])['room'])\nexcept KeyError:\n    return await close(send, 1000, 'bye')\nawait listen(receive)",
        after: "await opened(receive, send)\nevent = await receive()\ntry:\n    await say(send, json.loads(event['text']).get('room', 'hall'))\nexcept KeyError:\n    return await close(send, 1000, 'bye')\nawait listen(receive)",
        steps: ASK,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "close 1000"
class = "ok"
cause = "app-decision"
exception = { type = "KeyError", text = "'room'", place = "service.py in swallowed_with_1000" }
reason = "bye""#,
        by_url: r#"outcome = "close 1000"
class = "ok"
cause = "app-decision"
reason = "bye""#,
    },
    App {
        name: "chosen_500",
        before: "if 'count' not in query(scope):\n    log.error('no count given')\n    return await answer(send, 500)\nawait answer(send, 200)",
        after: "if 'count' not in query(scope):\n    log.info('no count given')\nawait answer(send, 200)",
        steps: GET,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "http 500"
class = "server-error"
cause = "app-decision"
log = "no count given"
found_by = ["no_server_error"]"#,
        by_url: r#"outcome = "http 500"
class = "server-error"
cause = "unknown"
found_by = ["no_server_error"]"#,
    },
    App {
        name: "logged_500",
        before: "try:\n    query(scope)['count']\nexcept KeyError:\n    log.exception('could not count')\n    return await answer(send, 500)\nawait answer(send, 200)",
        after: "try:\n    query(scope).get('count')\nexcept KeyError:\n    log.exception('could not count')\n    return await answer(send, 500)\nawait answer(send, 200)",
        steps: GET,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "http 500"
class = "server-error"
cause = "app-decision"
exception = { type = "KeyError", text = "'count'", place = "service.py in logged_500" }
log = "could not count"
found_by = ["no_server_error"]"#,
        by_url: r#"outcome = "http 500"
class = "server-error"
cause = "unknown"
found_by = ["no_server_error"]"#,
    },
    App {
        name: "missing_parameter",
        before: "query(scope)['count']\nawait answer(send, 200)",
        after: "if 'count' not in query(scope):\n    return await answer(send, 400)\nawait answer(send, 200)",
        steps: GET,
        accept: r#"["http 400"]"#,
        control: "",
        shows: r#"outcome = "http 500"
class = "server-error"
cause = "crash-before-response"
exception = { type = "KeyError", text = "'count'", place = "service.py in missing_parameter" }
log = "Exception in ASGI application"
found_by = ["no_server_error", "no_escaped_exception"]"#,
        by_url: r#"outcome = "http 500"
class = "server-error"
cause = "unknown"
found_by = ["no_server_error"]"#,
    },
    App {
        name: "missing_header",
        before: "header(scope, b'x-room').decode()\nawait answer(send, 200)",
        after: "if header(scope, b'x-room') is None:\n    return await answer(send, 422)\nawait answer(send, 200)",
        steps: GET,
        accept: r#"["http 4xx"]"#,
        control: "",
        shows: r#"outcome = "http 500"
class = "server-error"
cause = "crash-before-response"
exception = { type = "AttributeError", text = "'NoneType' object has no attribute 'decode'", place = "service.py in missing_header" }
log = "Exception in ASGI application"
found_by = ["no_server_error", "no_escaped_exception"]"#,
        by_url: r#"outcome = "http 500"
class = "server-error"
cause = "unknown"
found_by = ["no_server_error"]"#,
    },
    App {
        name: "empty_body",
        before: "json.loads((await receive())['body'])\nawait answer(send, 200)",
        after: "try:\n    json.loads((await receive())['body'])\nexcept ValueError:\n    return await answer(send, 400)\nawait answer(send, 200)",
        steps: r#"[{ request = "POST PATH" }]"#,
        accept: r#"["refused-request"]"#,
        control: "",
        shows: r#"outcome = "http 500"
class = "server-error"
cause = "crash-before-response"
exception = { type = "JSONDecodeError", text = "Expecting value: line 1 column 1 (char 0)", place = "service.py in empty_body" }
log = "Exception in ASGI application"
found_by = ["no_server_error", "no_escaped_exception"]"#,
        by_url: r#"outcome = "http 500"
class = "server-error"
cause = "unknown"
found_by = ["no_server_error"]"#,
    },
    App {
        name: "stuck_on_message",
        before: "await opened(receive, send)\nawait receive()\nawait asyncio.sleep(2)\nawait say(send, 'late')\nawait listen(receive)",
        after: "await opened(receive, send)\nawait receive()\nawait say(send, 'in time')\nawait listen(receive)",
        steps: ASK,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "hang"
class = "hang"
cause = "hang"
found_by = ["bounded_wait"]"#,
        by_url: r#"outcome = "hang"
class = "hang"
cause = "hang"
found_by = ["bounded_wait"]"#,
    },
    App {
        name: "stuck_request",
        before: "await asyncio.sleep(2)\nawait answer(send, 200)",
        after: "await asyncio.sleep(0)\nawait answer(send, 200)",
        steps: r#"[{ request = "GET PATH", within_ms = 600 }]"#,
        accept: OPEN,
        control: r#"[{ request = "GET /well" }]"#,
        shows: r#"outcome = "hang"
class = "hang"
cause = "hang"
found_by = ["bounded_wait"]"#,
        by_url: r#"outcome = "hang"
class = "hang"
cause = "hang"
found_by = ["bounded_wait"]"#,
    },
    App {
        name: "never_answered",
        before: "await opened(receive, send)\nif 'text' not in await receive():\n    await say(send, 'welcome')\nawait listen(receive)",
        after: "await opened(receive, send)\nif 'text' in await receive():\n    await say(send, 'welcome')\nawait listen(receive)",
        steps: ASK,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "hang"
class = "hang"
cause = "hang"
found_by = ["bounded_wait"]"#,
        by_url: r#"outcome = "hang"
class = "hang"
cause = "hang"
found_by = ["bounded_wait"]"#,
    },
    App {
        name: "no_response",
        before: "await receive()",
        after: "await receive()\nawait answer(send, 200)",
        steps: GET,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "http 500"
class = "server-error"
cause = "returned-without-response"
found_by = ["no_server_error", "asgi_conformance"]"#,
        by_url: r#"outcome = "http 500"
class = "server-error"
cause = "unknown"
found_by = ["no_server_error"]"#,
    },
    App {
        name: "returns_before_accept",
        before: "await receive()",
        after: "await opened(receive, send)\nawait listen(receive)",
        steps: SESSION,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "http 500"
class = "server-error"
cause = "returned-without-response"
found_by = ["no_server_error", "asgi_conformance"]"#,
        by_url: r#"outcome = "http 500"
class = "server-error"
cause = "unknown"
found_by = ["no_server_error"]"#,
    },
    App {
        name: "returns_after_accept",
        before: "await opened(receive, send)",
        after: "await opened(receive, send)\nawait listen(receive)",
        steps: UNTIL_LEFT,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "drop (1006)"
class = "dropped"
cause = "returned-without-response"
found_by = ["no_drop", "asgi_conformance"]"#,
        by_url: r#"outcome = "drop (1006)"
class = "dropped"
cause = "unknown"
found_by = ["no_drop"]"#,
    },
    App {
        name: "body_too_short",
        before: "await answer(send, 200, b'done', [(b'content-length', b'10')])",
        after: "await answer(send, 200, b'done', [(b'content-length', b'4')])",
        steps: GET,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "http 200 truncated"
class = "dropped"
cause = "crash-after-accept"
log = "Exception in ASGI application"
found_by = ["body_complete", "no_escaped_exception"]"#,
        by_url: r#"outcome = "http 200 truncated"
class = "dropped"
cause = "protocol"
found_by = ["body_complete"]"#,
    },
    App {
        name: "body_too_long",
        before: "await answer(send, 200, b'done', [(b'content-length', b'2')])",
        after: "await answer(send, 200, b'done', [(b'content-length', b'4')])",
        steps: GET,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "http 200 truncated"
class = "dropped"
cause = "crash-after-accept"
log = "Exception in ASGI application"
found_by = ["body_complete", "no_escaped_exception"]"#,
        by_url: r#"outcome = "http 200 truncated"
class = "dropped"
cause = "protocol"
found_by = ["body_complete"]"#,
    },
    App {
        name: "close_without_reason",
        before: "await opened(receive, send)\nawait close(send, 1008)",
        after: "await opened(receive, send)\nawait close(send, 1008, 'not a member')",
        steps: r#"[{ open = "PATH", says = "not a member" }, { wait = "close" }]"#,
        accept: r#"["close 1008"]"#,
        control: "",
        shows: r#"outcome = "close 1008"
class = "refused-request"
cause = "app-decision""#,
        by_url: r#"outcome = "close 1008"
class = "refused-request"
cause = "app-decision""#,
    },
    App {
        name: "reserved_code",
        before: "await opened(receive, send)\nawait close(send, 1005)",
        after: "await opened(receive, send)\nawait close(send, 1000)",
        steps: UNTIL_CLOSE,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "drop (1006)"
class = "dropped"
cause = "crash-after-accept"
log = "Exception in ASGI application"
found_by = ["no_drop", "legal_close", "no_escaped_exception"]"#,
        by_url: r#"outcome = "drop (1006)"
class = "dropped"
cause = "unknown"
found_by = ["no_drop"]"#,
    },
    App {
        name: "reason_too_long",
        before: "await opened(receive, send)\nawait close(send, 1008, 'no member ' * 20)",
        after: "await opened(receive, send)\nawait close(send, 1008, 'no member')",
        steps: UNTIL_CLOSE,
        accept: r#"["close 1008"]"#,
        control: "",
        shows: r#"outcome = "drop (1006)"
class = "dropped"
cause = "crash-after-accept"
log = "Exception in ASGI application"
found_by = ["no_drop", "legal_close", "no_escaped_exception"]"#,
        by_url: r#"outcome = "drop (1006)"
class = "dropped"
cause = "unknown"
found_by = ["no_drop"]"#,
    },
    App {
        name: "refuses_everyone",
        before: "await receive()\nawait close(send, 4403)",
        after: "await opened(receive, send)\nawait listen(receive)",
        steps: SESSION,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "http 403"
class = "refused-request"
cause = "app-decision""#,
        by_url: r#"outcome = "http 403"
class = "refused-request"
cause = "app-decision""#,
    },
    App {
        name: "accepts_twice",
        before: "await opened(receive, send)\nawait send({'type': 'websocket.accept'})\nawait listen(receive)",
        after: "await opened(receive, send)\nawait listen(receive)",
        steps: UNTIL_LEFT,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "drop (1006)"
class = "dropped"
cause = "crash-after-accept"
exception = { type = "RuntimeError", text = "Expected ASGI message 'websocket.send' or 'websocket.close', but got 'websocket.accept'.", place = "service.py in accepts_twice" }
log = "Exception in ASGI application"
found_by = ["no_drop", "asgi_conformance", "no_escaped_exception"]"#,
        by_url: r#"outcome = "drop (1006)"
class = "dropped"
cause = "unknown"
found_by = ["no_drop"]"#,
    },
    App {
        name: "says_after_close",
        before: "await opened(receive, send)\nawait close(send, 1000)\nawait say(send, 'one more thing')",
        after: "await opened(receive, send)\nawait say(send, 'one more thing')\nawait close(send, 1000)",
        steps: UNTIL_CLOSE,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "close 1000"
class = "disguised-error"
cause = "crash-after-accept"
exception = { type = "RuntimeError", text = "Unexpected ASGI message 'websocket.send', after sending 'websocket.close'.", place = "service.py in say" }
log = "Exception in ASGI application"
found_by = ["class_fits_cause", "asgi_conformance", "no_escaped_exception"]"#,
        by_url: "",
    },
    App {
        name: "raises_on_leave",
        before: "await opened(receive, send)\nevent = await receive()\nlog.info(event['text'])",
        after: "await opened(receive, send)\nevent = await receive()\nlog.info(event.get('text'))",
        steps: SESSION,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "close 1000"
class = "ok"
cause = "crash-after-accept"
exception = { type = "KeyError", text = "'text'", place = "service.py in raises_on_leave" }
log = "Exception in ASGI application"
found_by = ["no_escaped_exception"]"#,
        by_url: "",
    },
    App {
        name: "binary_message",
        before: "await opened(receive, send)\nevent = await receive()\nawait say(send, event.get('text').upper())\nawait listen(receive)",
        after: "await opened(receive, send)\nevent = await receive()\nawait say(send, (event.get('text') or event['bytes'].decode()).upper())\nawait listen(receive)",
        steps: r#"[{ open = "PATH" }, { send_bytes = "join" }, { wait_answer = true, within_ms = 600 }, { close = 1000 }]"#,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "drop (1006)"
class = "dropped"
cause = "crash-after-accept"
exception = { type = "AttributeError", text = "'NoneType' object has no attribute 'upper'", place = "service.py in binary_message" }
log = "Exception in ASGI application"
found_by = ["no_drop", "no_escaped_exception"]"#,
        by_url: r#"outcome = "drop (1006)"
class = "dropped"
cause = "unknown"
found_by = ["no_drop"]"#,
    },
    App {
        name: "subprotocol_not_offered",
        before: "await receive()\nawait send({'type': 'websocket.accept', 'subprotocol': 'chat'})\nawait listen(receive)",
        after: "await receive()\nawait send({'type': 'websocket.accept', 'subprotocol': None})\nawait listen(receive)",
        steps: SESSION,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "bad handshake (1006)"
class = "dropped"
cause = "protocol"
found_by = ["subprotocol_offered"]"#,
        by_url: r#"outcome = "bad handshake (1006)"
class = "dropped"
cause = "protocol"
found_by = ["subprotocol_offered"]"#,
    },
    App {
        name: "gives_up_with_504",
        before: "try:\n    await asyncio.wait_for(asyncio.sleep(5), 0.05)\nexcept TimeoutError:\n    return await answer(send, 504)\nawait answer(send, 200)",
        after: "try:\n    await asyncio.wait_for(asyncio.sleep(0), 0.05)\nexcept TimeoutError:\n    return await answer(send, 504)\nawait answer(send, 200)",
        steps: GET,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "http 504"
class = "server-error"
cause = "app-decision"
exception = { type = "TimeoutError", place = "service.py in gives_up_with_504" }
found_by = ["no_server_error"]"#,
        by_url: r#"outcome = "http 504"
class = "server-error"
cause = "unknown"
found_by = ["no_server_error"]"#,
    },
    App {
        name: "not_ready",
        before: "await answer(send, 503)",
        after: "await answer(send, 200)",
        steps: GET,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "http 503"
class = "server-error"
cause = "app-decision"
found_by = ["retry_after_present"]"#,
        by_url: r#"outcome = "http 503"
class = "server-error"
cause = "unknown"
found_by = ["retry_after_present"]"#,
    },
    App {
        name: "second_page",
        before: "await answer(send, 200, [b'first'][int(query(scope)['page'])])",
        after: "await answer(send, 200, [b'first', b'second'][int(query(scope)['page'])])",
        steps: r#"[{ request = "GET PATH", query = "page=0" }, { request = "GET PATH", query = "page=1" }]"#,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "http 500"
class = "server-error"
cause = "crash-before-response"
exception = { type = "IndexError", text = "list index out of range", place = "service.py in second_page" }
log = "Exception in ASGI application"
found_by = ["no_server_error", "no_escaped_exception"]"#,
        by_url: r#"outcome = "http 500"
class = "server-error"
cause = "unknown"
found_by = ["no_server_error"]"#,
    },
    App {
        name: "refuses_a_number",
        before: "try:\n    int(query(scope)['count'], 0)\nexcept ValueError:\n    return await answer(send, 400)\nawait answer(send, 200)",
        after: "try:\n    int(query(scope)['count'], 10)\nexcept ValueError:\n    return await answer(send, 400)\nawait answer(send, 200)",
        steps: r#"[{ request = "GET PATH", query = "count=07" }]"#,
        accept: OPEN,
        control: "",
        shows: r#"outcome = "http 400"
class = "refused-request"
cause = "app-decision"
exception = { type = "ValueError", text = "invalid literal for int() with base 0: '07'", place = "service.py in refuses_a_number" }"#,
        by_url: r#"outcome = "http 400"
class = "refused-request"
cause = "app-decision""#,
    },
];

/// The steps of a session in which the client listens for a moment before it leaves.
const UNTIL_LEFT: &str = r#"[{ open = "PATH" }, { pause_ms = 100 }, { close = 1000 }]"#;

impl App {
    /// Its case, with this symptom.
    fn case(&self, symptom: &str) -> Case {
        let App { name, steps, accept, control, .. } = self;
        let control = if control.is_empty() { String::new() } else { format!("[healthy_client]\nstep = {control}\n") };
        let text =
            format!("summary = \"{name}\"\nstep = {steps}\n{control}[expect]\naccept = {accept}\n[symptom]\n{symptom}");
        let known = Known { checks: check::ALL, ..Known::NOTHING };
        let text = text.replace("PATH", &format!("/{name}"));
        Case::parse(name, name, &text, &known).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }
}

/// A directory with a module that has every app, on one side.
fn module(side: Side) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut text = PRELUDE.to_owned();
    for app in APPS {
        let body = match side {
            Side::Before => app.before,
            Side::After => app.after,
        };
        text.push_str(&format!(
            "\nasync def {}(scope, receive, send):\n    {}\n",
            app.name,
            body.replace('\n', "\n    ")
        ));
    }
    std::fs::write(directory.path().join("service.py"), text).unwrap();
    directory
}

/// The app of a directory in an interpreter.
pub(crate) async fn in_memory(python: &Path, directory: &Path) -> Version {
    let site = site(python, directory, "service:app");
    let launched = PythonTarget::launch(site, &ServiceFile::unknown(), String::new(), profile(SERVER.0), 1).await;
    match launched {
        Ok((target, _)) => Version::Running(External::new(target, Front::Profile(SERVER.0.to_owned()))),
        Err(trouble) => not_started(TargetKind::Python, trouble),
    }
}

/// The app of a directory behind a real server, and where that listens.
pub(crate) async fn behind_a_server(installation: PythonInstallation) -> (Version, String) {
    match PythonServer::start(installation).await {
        Ok((server, _)) => {
            let url = format!("http://{}", server.address());
            let served = Served::new(server, &ServiceFile::unknown(), String::new());
            (Version::Running(External::new(served, Front::Server(SERVER.1.to_owned()))), url)
        }
        Err(trouble) => (not_started(TargetKind::Served, trouble), String::new()),
    }
}

/// The server behind a URL, for which there is no service file.
pub(crate) fn by_url(url: &str) -> Version {
    let url = Url::new(url.parse().unwrap(), &ServiceFile::default(), String::new(), 10_000, Duration::ZERO);
    Version::Running(External::new(url, Front::Unknown))
}

fn not_started(kind: TargetKind, trouble: AppError) -> Version {
    assert_eq!(trouble.blame, Blame::App, "{trouble:?}");
    Version::NotStarted { kind, trouble }
}

/// Each key of a symptom made wrong, or added where it is not claimed.
fn made_wrong(symptom: &Symptom) -> Vec<(SymptomKey, Symptom)> {
    let mut wrong: Vec<(SymptomKey, Symptom)> = Vec::new();
    let mut add = |key: SymptomKey, change: &dyn Fn(&mut Symptom)| {
        let mut symptom = symptom.clone();
        change(&mut symptom);
        wrong.push((key, symptom));
    };
    add(SymptomKey::Outcome, &|symptom| symptom.outcome = "http 418".parse().ok());
    add(SymptomKey::Class, &|symptom| symptom.class = Some(Class::WronglyAdmitted));
    add(SymptomKey::Cause, &|symptom| symptom.cause = Some(Cause::KeepaliveTimeout));
    add(SymptomKey::Log, &|symptom| symptom.log = Some("no such record".to_owned()));
    add(SymptomKey::Reason, &|symptom| symptom.reason = Some("no such reason".to_owned()));
    add(SymptomKey::FoundBy, &|symptom| symptom.found_by.push("isolation".to_owned()));
    match &symptom.exception {
        None => add(SymptomKey::Exception, &|symptom| symptom.exception = "NoSuchError".parse().ok()),
        Some(claim) => {
            let wrong_place = |place: &str| Some(place.parse().unwrap());
            for claim in [
                ExceptionClaim { type_name: "NoSuchError".to_owned(), ..claim.clone() },
                ExceptionClaim { text: Some("no such text".to_owned()), ..claim.clone() },
                ExceptionClaim { place: wrong_place("no_such_file.py"), ..claim.clone() },
                ExceptionClaim { place: wrong_place("service.py in no_such_function"), ..claim.clone() },
                ExceptionClaim { place: wrong_place("service.py:9999"), ..claim.clone() },
            ] {
                add(SymptomKey::Exception, &|symptom| symptom.exception = Some(claim.clone()));
            }
        }
    }
    wrong
}

/// The wrong verdicts on these cases, of which some show their defect on this target: on the pairs of two versions with the
/// defects and two without, and with each key of the symptom made wrong. The versions are given back.
// Long: one pass over the pairs of versions.
async fn wrong_verdicts(
    cases: &[(Case, Shows)],
    binding: &ServiceFile,
    [broken, broken_too, fixed, fixed_too]: [Version; 4],
) -> (Vec<String>, [Version; 4]) {
    let mut wrong = Vec::new();
    let mut expect = |what: &str, case: &Case, expected: Verdict, judgement: &TrialResult| {
        if judgement.verdict != expected {
            let (name, verdict, why) = (&case.name, judgement.verdict, judgement.why());
            wrong.push(format!("{name}, {what}: {verdict} instead of {expected}: {why}"));
        }
    };
    let versions = |before, after| Versions { binding: binding.clone(), before: Some(before), after, repeat: 1 };

    let right = versions(broken, fixed);
    for (case, shows) in cases {
        let judgement = right.judge(case, 1).await;
        let expected = match shows {
            Shows::Defect => Verdict::Fixed,
            Shows::Nothing => Verdict::NotReproduced,
        };
        expect("broken and fixed", case, expected, &judgement);
        if judgement.verdict != Verdict::Fixed {
            continue;
        }
        for (key, symptom) in made_wrong(case.symptom.as_ref().unwrap()) {
            let case = Case { symptom: Some(symptom), ..case.clone() };
            let judgement = match right.after.running().map(External::clock) {
                // Time is real, so that the same runs are judged again.
                Some(Clock::Real) => judged_again(&case, judgement.clone()),
                Some(Clock::Virtual) | None => right.judge(&case, 1).await,
            };
            expect(&format!("a wrong {key}"), &case, Verdict::NotReproduced, &judgement);
            let told: Vec<SymptomKey> = match &judgement.reason {
                Some(Reason::NotShown(differences)) => differences.iter().map(|difference| difference.key).collect(),
                _ => Vec::new(),
            };
            if told != [key] {
                expect(&format!("only the wrong {key} is told, not {told:?}"), &case, Verdict::Fixed, &judgement);
            }
        }
    }

    let swapped = versions(right.after, right.before.unwrap());
    for (case, _) in cases {
        expect("fixed and broken", case, Verdict::NotReproduced, &swapped.judge(case, 1).await);
    }

    let both_fixed = versions(swapped.before.unwrap(), fixed_too);
    for (case, _) in cases {
        expect("fixed on both sides", case, Verdict::NotReproduced, &both_fixed.judge(case, 1).await);
    }

    let both_broken = versions(swapped.after, broken_too);
    for (case, shows) in cases {
        let expected = match shows {
            Shows::Defect => Verdict::StillBroken,
            Shows::Nothing => Verdict::NotReproduced,
        };
        expect("broken on both sides", case, expected, &both_broken.judge(case, 1).await);
    }
    let given_back = [both_broken.before.unwrap(), both_broken.after, both_fixed.before.unwrap(), both_fixed.after];
    (wrong, given_back)
}

/// Whether a target shows a defect.
#[derive(Clone, Copy)]
enum Shows {
    Defect,
    /// Of the wire alone, nothing of it is seen.
    Nothing,
}

/// The verdict on the same runs when the case claims something else.
fn judged_again(case: &Case, judgement: TrialResult) -> TrialResult {
    let (before, after) = (judgement.before.as_ref().unwrap(), judgement.after.as_ref().unwrap());
    match verdict_rules::compare(case, SERVER.0, before, after) {
        Ok(()) => judgement,
        Err((verdict, reason)) => TrialResult { verdict, reason: Some(reason), ..judgement },
    }
}

fn cases() -> Vec<(Case, Shows)> {
    APPS.iter().map(|app| (app.case(app.shows), Shows::Defect)).collect()
}

/// The cases with the symptom that is seen from outside. An app that raises where no client sees it any more shows nothing.
fn cases_by_url() -> Vec<(Case, Shows)> {
    let seen = |app: &App| match app.by_url {
        "" => (app.case("outcome = \"close 1000\""), Shows::Nothing),
        symptom => (app.case(symptom), Shows::Defect),
    };
    let cases: Vec<_> = APPS.iter().map(seen).collect();
    assert_eq!(cases.iter().filter(|(_, shows)| matches!(shows, Shows::Defect)).count(), 30);
    cases
}

const NONE: [String; 0] = [];

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn defects_in_memory_are_judged_right() {
    let python = python();
    let (before, after) = (module(Side::Before), module(Side::After));
    let wrong = Runtime::new(Clock::Virtual).block_on(async {
        let mut versions = Vec::new();
        for directory in [&before, &before, &after, &after] {
            versions.push(in_memory(&python, directory.path()).await);
        }
        wrong_verdicts(&cases(), &ServiceFile::unknown(), versions.try_into().unwrap()).await.0
    });
    assert_eq!(wrong, NONE, "{wrong:#?}");
}

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn defects_behind_a_server_and_a_url_are_judged_right() {
    let (before, after) = (module(Side::Before), module(Side::After));
    let start = |directory: &TempDir| behind_a_server(installation(SERVER.1, directory.path()));
    let starts = [&before, &before, &after, &after].map(start);
    let (wrong, wrong_by_url) = Runtime::new(Clock::Real).block_on(async {
        let (mut versions, mut urls) = (Vec::new(), Vec::new());
        for (version, url) in futures_util::future::join_all(starts).await {
            versions.push(version);
            urls.push(url);
        }
        // They go on running behind their URLs.
        let (wrong, _running) = wrong_verdicts(&cases(), &ServiceFile::unknown(), versions.try_into().unwrap()).await;
        let urls = [&urls[0], &urls[1], &urls[2], &urls[3]].map(|url| by_url(url));
        (wrong, wrong_verdicts(&cases_by_url(), &ServiceFile::default(), urls).await.0)
    });
    assert_eq!(wrong, NONE, "{wrong:#?}");
    assert_eq!(wrong_by_url, NONE, "by URL: {wrong_by_url:#?}");
}

/// An app that does not load or does not start: what its module has before the app, its lifespan, and what is seen of it.
const NOT_STARTED: [(&str, &str, &str, &str); 5] = [
    (
        "a_syntax_error",
        "def broken(:\n    pass",
        "",
        r#"exception = { type = "SyntaxError", text = "invalid syntax", place = "service.py:1" }"#,
    ),
    (
        "a_missing_module",
        "import no_such_module_anywhere",
        "",
        r#"exception = { type = "ModuleNotFoundError", text = "no_such_module_anywhere", place = "service.py:1 in <module>" }"#,
    ),
    (
        "an_error_at_import",
        "{}['port']",
        "",
        r#"exception = { type = "KeyError", text = "'port'", place = "service.py:1 in <module>" }"#,
    ),
    ("a_failed_startup", "", "        await send({'type': 'lifespan.startup.failed', 'message': 'no database'})", ""),
    ("an_exit_at_startup", "", "        import os\n        os._exit(3)", ""),
];

/// The app of a row, broken or fixed.
fn that_starts(side: Side, (_, top, lifespan, _): &(&str, &str, &str, &str)) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (top, lifespan) = match side {
        Side::Before => (*top, *lifespan),
        Side::After => ("", ""),
    };
    let complete = "        await send({'type': 'lifespan.startup.complete'})";
    let lifespan = if lifespan.is_empty() { complete } else { lifespan };
    let text = format!(
        "{top}\nasync def app(scope, receive, send):\n    if scope['type'] == 'lifespan':\n        await receive()\n{lifespan}\n        \
         await receive()\n        return await send({{'type': 'lifespan.shutdown.complete'}})\n    \
         await send({{'type': 'http.response.start', 'status': 200, 'headers': []}})\n    \
         await send({{'type': 'http.response.body', 'body': b'done'}})\n"
    );
    std::fs::write(directory.path().join("service.py"), text).unwrap();
    directory
}

/// The case of an app that does not start.
fn that_does_not_start((name, _, _, exception): &(&'static str, &str, &str, &str)) -> (Case, Shows) {
    let app = App { name, before: "", after: "", steps: GET, accept: OPEN, control: "", shows: "", by_url: "" };
    let symptom =
        format!("outcome = \"does not start\"\nclass = \"server-error\"\ncause = \"no-listener\"\n{exception}\n");
    (app.case(&symptom), Shows::Defect)
}

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn apps_that_do_not_start_are_judged_right() {
    let python = python();
    let mut wrong = Vec::new();
    for row in &NOT_STARTED {
        let sides = [Side::Before, Side::Before, Side::After, Side::After];
        let directories = sides.map(|side| that_starts(side, row));
        wrong.extend(Runtime::new(Clock::Virtual).block_on(async {
            let mut versions = Vec::new();
            for directory in &directories {
                versions.push(in_memory(&python, directory.path()).await);
            }
            let cases = [that_does_not_start(row)];
            wrong_verdicts(&cases, &ServiceFile::unknown(), versions.try_into().unwrap()).await.0
        }));
    }
    assert_eq!(wrong, NONE, "{wrong:#?}");
    let started: Vec<Vec<_>> = NOT_STARTED
        .iter()
        .map(|row| {
            let sides = [Side::Before, Side::Before, Side::After, Side::After];
            sides
                .iter()
                .map(|side| {
                    let directory = that_starts(*side, row);
                    (installation(SERVER.1, directory.path()), directory)
                })
                .collect()
        })
        .collect();
    let wrong = Runtime::new(Clock::Real).block_on(async {
        let mut wrong = Vec::new();
        for (row, installations) in NOT_STARTED.iter().zip(started) {
            let starting = installations.iter().map(|(installation, _)| behind_a_server(installation.clone()));
            let versions: Vec<Version> =
                futures_util::future::join_all(starting).await.into_iter().map(|(version, _)| version).collect();
            let cases = [that_does_not_start(row)];
            wrong.extend(wrong_verdicts(&cases, &ServiceFile::unknown(), versions.try_into().unwrap()).await.0);
        }
        wrong
    });
    assert_eq!(wrong, NONE, "behind a server: {wrong:#?}");
}
