//! Apps that try to obtain a verdict that they do not deserve.

use std::path::Path;

use relapse::{
    case::{Case, Known},
    verdict_rules,
};
use relapse_core::{
    asgi::event::{Inbound, Outbound},
    judge::verdict::{HealthyClient, Reason, Verdict},
};
use rstest::rstest;

use crate::{
    rulings::{BOTH, put, run},
    served::installation,
    support::{Ends, Scripted, converse, profile},
    verdicts::SERVER,
};

/// A bug, a version that only looks as if it were fixed, and one that is.
struct Attack {
    /// The case, after its summary.
    case: &'static str,
    /// The functions of the app with the bug.
    before: &'static str,
    /// The functions of the app that tries to obtain a FIXED.
    fake: &'static str,
    /// A part of the reason why it does not.
    why: &'static str,
    /// The functions of the app that is fixed.
    fixed: &'static str,
}

/// A plain request that fails with an exception.
const ASK: &str = "step = [{ request = \"GET /ask\" }]\n[expect]\naccept = [\"ok\"]\n\
                   [symptom]\noutcome = \"http 500\"\nexception = \"KeyError: 'room'\"\n";

const ASK_RAISES: &str = "
async def ask(scope, receive, send):
    scope['room']
    await answer(send, 200)
";

const ASK_IS_FIXED: &str = "
async def ask(scope, receive, send):
    await answer(send, 200)
";

/// The route answers, and another exception ends a thread, which no client sees.
const INTO_A_THREAD: Attack = Attack {
    case: ASK,
    before: ASK_RAISES,
    fake: "
import threading
def look(scope):
    scope['hall']

async def ask(scope, receive, send):
    thread = threading.Thread(target=look, args=[scope])
    thread.start()
    thread.join()
    await answer(send, 200)
",
    why: "Exception in thread",
    fixed: "
import threading
async def ask(scope, receive, send):
    thread = threading.Thread(target=scope.get, args=['room'])
    thread.start()
    thread.join()
    await answer(send, 200)
",
};

/// The exception is caught and logged as an error, and the client gets an answer.
const INTO_THE_LOG: Attack = Attack {
    case: ASK,
    before: ASK_RAISES,
    fake: "
async def ask(scope, receive, send):
    try:
        scope['room']
    except KeyError:
        log.exception('the room is not there')
    await answer(send, 200)
",
    why: "is still raised, handled with an answer, and logged as an error: KeyError: 'room' (service.py:",
    fixed: ASK_IS_FIXED,
};

/// The exception is caught, and the session closed without a word. A close with a code that says no, and that the case
/// accepts, is an answer.
const INTO_A_CLOSE: Attack = Attack {
    case: "step = [{ open = \"/chat\" }, { send = \"hello\" }, { wait = \"close\" }]\n\
           [expect]\naccept = [\"close 1000\", \"close 1008\"]\n[symptom]\nexception = \"KeyError: 'room'\"\n",
    before: "
async def chat(scope, receive, send):
    await opened(receive, send)
    await receive()
    scope['room']
",
    fake: "
async def chat(scope, receive, send):
    await opened(receive, send)
    await receive()
    try:
        scope['room']
    except KeyError:
        await close(send, 1000)
",
    why: "the reported exception is still raised, and handled without an answer to the client: KeyError: 'room' (service.py:",
    fixed: "
async def chat(scope, receive, send):
    await opened(receive, send)
    await receive()
    try:
        scope['room']
    except KeyError:
        await close(send, 1008, 'no room')
",
};

/// The exception is swallowed, and the answer to the next message looks like one to the first.
const THE_NEXT_IS_ANSWERED: Attack = Attack {
    case: "step = [{ open = \"/chat\" }, { send = \"bad\" }, { send = \"good\" }, { wait_answer = true }, { close = 1000 }]\n\
           [expect]\naccept = [\"ok\"]\n[symptom]\nexception = \"KeyError: 'room'\"\n",
    before: "
async def chat(scope, receive, send):
    await opened(receive, send)
    while text := (await receive()).get('text'):
        await say(send, scope['room'] if text == 'bad' else text)
",
    fake: "
async def chat(scope, receive, send):
    await opened(receive, send)
    while text := (await receive()).get('text'):
        try:
            await say(send, scope['room'] if text == 'bad' else text)
        except KeyError:
            pass
",
    why: "and handled without an answer to the client: KeyError: 'room' (service.py:",
    fixed: "
async def chat(scope, receive, send):
    await opened(receive, send)
    while text := (await receive()).get('text'):
        try:
            await say(send, scope['room'] if text == 'bad' else text)
        except KeyError:
            await say(send, 'no room')
",
};

/// The app closes without having read the message.
const NEVER_READ: Attack = Attack {
    case: "step = [{ open = \"/chat\" }, { send = \"hello\" }, { wait = \"close\" }]\n\
           [expect]\naccept = [\"ok\"]\n[symptom]\nexception = \"KeyError: 'room'\"\n",
    before: "
async def chat(scope, receive, send):
    await opened(receive, send)
    await receive()
    scope['room']
",
    fake: "
async def chat(scope, receive, send):
    await opened(receive, send)
    await asyncio.sleep(1)
    await close(send, 1000)
",
    why: "sent a message and got close 1000 without an answer",
    fixed: "
async def chat(scope, receive, send):
    await opened(receive, send)
    await say(send, (await receive())['text'])
    await close(send, 1000)
",
};

/// The error has another number, which the case's class lets pass.
const ANOTHER_STATUS: Attack = Attack {
    case: "step = [{ request = \"GET /ask\" }]\n[expect]\naccept = [\"ok\", \"refused-request\"]\n\
           [symptom]\noutcome = \"http 500\"\n",
    before: ASK_RAISES,
    fake: "
async def ask(scope, receive, send):
    await answer(send, 501)
",
    why: "connection 1 gives http 501",
    fixed: "
async def ask(scope, receive, send):
    await answer(send, 404)
",
};

/// The fix refuses the bad query, and every client without it too, while another route lets clients in.
const ALL_ARE_REFUSED: Attack = Attack {
    case: "step = [{ request = \"GET /ask\", query = \"n=x\" }]\n[expect]\naccept = [\"refused-request\"]\n\
           [symptom]\noutcome = \"http 500\"\n",
    before: "
async def ask(scope, receive, send):
    int(query(scope).get('n', 1))
    await answer(send, 200)
",
    fake: "
async def ask(scope, receive, send):
    await answer(send, 400)
",
    why: "the healthy client gets http 400 (refused-request; app-decision), and before let it in for `GET /ask`",
    fixed: "
async def ask(scope, receive, send):
    await answer(send, 400 if 'n' in query(scope) else 200)
",
};

/// The fix refuses every client, also for the route that let one in before.
const EVERYONE_IS_REFUSED: Attack = Attack {
    case: "step = [{ request = \"GET /ask\" }]\n[expect]\naccept = [\"http 403\"]\n\
           [symptom]\noutcome = \"http 500\"\n",
    before: ASK_RAISES,
    fake: "
async def ask(scope, receive, send):
    await answer(send, 403)

well = ask
",
    why: "and before let it in for `GET /well`",
    fixed: "
async def ask(scope, receive, send):
    await answer(send, 403)
",
};

/// The fix refuses the bad query, and fails for every client without it.
const OTHERS_FAIL: Attack = Attack {
    case: "step = [{ request = \"GET /ask\", query = \"n=x\" }]\n[expect]\naccept = [\"refused-request\"]\n\
           [symptom]\noutcome = \"http 500\"\n",
    before: "
async def ask(scope, receive, send):
    int(query(scope).get('n', 1))
    await answer(send, 200)
",
    fake: "
async def ask(scope, receive, send):
    if 'n' in query(scope):
        return await answer(send, 400)
    raise RuntimeError('no n')
",
    why: "the healthy client gets http 500",
    fixed: "
async def ask(scope, receive, send):
    await answer(send, 400 if 'n' in query(scope) else 200)
",
};

/// A route that only the code names changes the app, so that it must not be asked before the case.
const ANOTHER_ROUTE_REPAIRS: Attack = Attack {
    case: "step = [{ open = \"/chat\" }, { send = \"hello\" }, { wait_answer = true, within_ms = 500 }, { close = 1000 }]\n\
           [expect]\naccept = [\"ok\"]\n[symptom]\nexception = \"KeyError: 'room'\"\n",
    before: WARMS_UP,
    fake: WARMS_UP,
    why: "KeyError: 'room'",
    fixed: "
async def chat(scope, receive, send):
    await opened(receive, send)
    await receive()
    await say(send, 'hello')
    await listen(receive)
",
};

const WARMS_UP: &str = "
rooms = {}
async def chat(scope, receive, send):
    if scope['path'] == '/warm':
        rooms['room'] = 1
        return await answer(send, 200)
    await opened(receive, send)
    await receive()
    await say(send, str(rooms['room']))
    await listen(receive)

warm = chat
";

/// The fix answers the trigger, and leaves the case's own healthy client without the message that it waits for.
const THE_CONTROL_WAITS: Attack = Attack {
    case: "step = [{ open = \"/chat\" }, { send = \"bad\" }, { wait_answer = true, within_ms = 500 }, { wait = \"close\" }]\n\
           [healthy_client]\nstep = [{ open = \"/chat\" }, { send = \"good\" }, { wait_text = \"hello\", within_ms = 500 }, { wait = \"close\" }]\n\
           [expect]\naccept = [\"ok\"]\n[symptom]\nexception = \"KeyError: 'room'\"\n",
    before: "
async def chat(scope, receive, send):
    await opened(receive, send)
    if (await receive()).get('text') == 'bad':
        scope['room']
    await say(send, 'hello')
    await close(send, 1000)
",
    fake: "
async def chat(scope, receive, send):
    await opened(receive, send)
    await receive()
    await say(send, 'no')
    await close(send, 1000)
",
    why: "the healthy client gets close 1000 (no-answer",
    fixed: "
async def chat(scope, receive, send):
    await opened(receive, send)
    bad = (await receive()).get('text') == 'bad'
    await say(send, 'no' if bad else 'hello')
    await close(send, 1000)
",
};

/// Puts the three versions into a directory.
fn lay_out(attack: &Attack, directory: &Path) {
    for (name, functions) in [("before", attack.before), ("fake", attack.fake), ("fixed", attack.fixed)] {
        put(&directory.join(name), functions);
    }
}

/// The verdict on a version of the app in a directory, and the reason.
fn verdict(attack: &Attack, directory: &Path, after: &str, more: &[&str]) -> (String, String) {
    let after = format!("asgi:service:app @ {after}");
    let versions = [BOTH[0], BOTH[1], "--target", &after];
    let (_, verdict, entry) =
        run(directory, &format!("summary = \"x\"\n{}", attack.case), &[&versions[..], more].concat());
    (verdict, entry["why"].as_str().unwrap().to_owned())
}

/// A version that only looks as if it were fixed is STILL BROKEN, for the right reason; one that is fixed is FIXED.
#[rstest]
#[case::into_a_thread(&INTO_A_THREAD, &[])]
#[case::into_the_log(&INTO_THE_LOG, &[])]
#[case::into_a_close(&INTO_A_CLOSE, &[])]
#[case::the_next_is_answered(&THE_NEXT_IS_ANSWERED, &[])]
#[case::never_read(&NEVER_READ, &[])]
#[case::another_status(&ANOTHER_STATUS, &[])]
#[case::all_are_refused(&ALL_ARE_REFUSED, &["--path", "GET /well"])]
#[case::everyone_is_refused(&EVERYONE_IS_REFUSED, &["--path", "GET /well"])]
#[case::others_fail(&OTHERS_FAIL, &[])]
#[case::another_route_repairs(&ANOTHER_ROUTE_REPAIRS, &[])]
#[case::the_control_waits(&THE_CONTROL_WAITS, &[])]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_fake_fix_is_seen_through(#[case] attack: &Attack, #[case] more: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    lay_out(attack, directory.path());
    let (got, why) = verdict(attack, directory.path(), "fake", more);
    assert!(got == "still-broken" && why.contains(attack.why), "{got}: {why}");
    let (got, why) = verdict(attack, directory.path(), "fixed", more);
    assert_eq!((got.as_str(), why.as_str()), ("fixed", ""));
}

/// A fix may move a route: a client that is sent elsewhere is not refused.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_route_may_move() {
    let directory = tempfile::tempdir().unwrap();
    let asks = "int(query(scope).get('n', 1))\n    await answer(send, 200)\n";
    put(&directory.path().join("before"), &format!("async def ask(scope, receive, send):\n    {asks}"));
    let moved =
        "async def ask(scope, receive, send):\n    await answer(send, 308, headers=[(b'location', b'/well')])\n";
    put(&directory.path().join("after"), moved);
    let case = "summary = \"x\"\nstep = [{ request = \"GET /ask\", query = \"n=x\" }]\n\
                [expect]\naccept = [\"http 308\"]\n[symptom]\noutcome = \"http 500\"\n";
    let (_, verdict, entry) =
        run(directory.path(), case, &[&BOTH[..], &["--path", "GET /ask", "--path", "GET /well"]].concat());
    assert_eq!(verdict, "fixed", "{entry:#}");
}

/// A fix that takes the route away repairs nothing, although the documentation of the app still lets clients in. A case that
/// accepts just that refusal says so.
#[rstest]
#[case::refused("refused-request", "still-broken")]
#[case::named("http 404", "fixed")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_route_that_is_gone_is_no_fix(#[case] accepted: &str, #[case] expected: &str) {
    let python = crate::stage::python();
    let directory = tempfile::tempdir().unwrap();
    let versions = [("before", "@app.get('/ask')\ndef ask():\n    return {}['room']\n"), ("after", "")];
    for (name, route) in versions {
        let app = format!("from fastapi import FastAPI\napp = FastAPI()\n{route}");
        std::fs::create_dir(directory.path().join(name)).unwrap();
        std::fs::write(directory.path().join(name).join("service.py"), app).unwrap();
    }
    let case = format!(
        "summary = \"x\"\nstep = [{{ request = \"GET /ask\" }}]\n[expect]\naccept = [\"{accepted}\"]\n\
         [symptom]\noutcome = \"http 500\"\n"
    );
    let more = ["--python", python.to_str().unwrap()];
    let (_, verdict, entry) = run(directory.path(), &case, &[&BOTH[..], &more].concat());
    assert_eq!(verdict, expected, "{entry:#}");
    let why = entry["why"].as_str().unwrap();
    assert_eq!(why.contains("the app has no route for it any more"), expected == "still-broken", "{why}");
    // The route that lets clients in is told, because it is not that of the case.
    assert_eq!(entry["healthy_request"], "GET /openapi.json", "{entry:#}");
}

/// The same behind a real server, where a witness sees what the app does.
#[rstest]
#[case::into_a_thread(&INTO_A_THREAD)]
#[case::into_the_log(&INTO_THE_LOG)]
#[case::into_a_close(&INTO_A_CLOSE)]
#[case::the_next_is_answered(&THE_NEXT_IS_ANSWERED)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_fake_fix_behind_a_server_is_seen_through(#[case] attack: &Attack) {
    let directory = tempfile::tempdir().unwrap();
    lay_out(attack, directory.path());
    let installation = installation(SERVER.1, directory.path());
    let more = ["--server", SERVER.1, "--python", installation.site.python.to_str().unwrap()];
    let (got, why) = verdict(attack, directory.path(), "fake", &more);
    assert!(got == "still-broken" && why.contains(attack.why), "{got}: {why}");
    let (got, why) = verdict(attack, directory.path(), "fixed", &more);
    assert_eq!((got.as_str(), why.as_str()), ("fixed", ""));
}

/// A greeting that the app sends before it gets the message is no answer to it, however late the client reads it.
#[test]
fn a_greeting_is_no_answer() {
    let text = "summary = \"A question is answered.\"\nstep = [{ open = \"/\" }, { send = \"q\" }, { wait = \"close\" }]\n\
                [expect]\naccept = [\"ok\"]\n";
    let case = Case::parse("greeting", "greeting", text, &Known::NOTHING).unwrap();
    let app = Scripted::new(|_, mut ends: Ends| async move {
        ends.receive().await?;
        ends.send(Outbound::WebsocketAccept { subprotocol: None, headers: Vec::new() }).await?;
        ends.send(Outbound::text("hello")).await?;
        while !matches!(ends.receive().await?, Inbound::WebsocketReceive { .. }) {}
        ends.send(Outbound::WebsocketClose { code: 1000, reason: String::new() }).await
    });
    let mut transcript = converse(app, &profile("uvicorn-0.54"), &case.steps);
    transcript.service =
        relapse_core::record::service::Service::unknown(relapse_core::record::service::TargetKind::Python);
    let result = verdict_rules::alone(&case, &verdict_rules::judge(transcript, HealthyClient::Absent));
    assert!(matches!(result, Err((Verdict::Failed, Reason::Unanswered { .. }))), "{result:?}");
}
