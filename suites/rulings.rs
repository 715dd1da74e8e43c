//! The rules of the verdicts on a user's own app, one by one, as a user meets them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use relapse::{
    case::{Case, Known},
    external::{External, Front, Version, Versions},
    route::Route,
    service_file::ServiceFile,
};
use relapse_core::{
    asgi::event::Inbound,
    judge::{
        check,
        verdict::{Reason, Verdict},
    },
};
use relapse_simulate::{
    application::Application,
    clock::{Clock, Runtime},
};
use rstest::rstest;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::{
    python::python,
    served::installation,
    support::{Reached, Scripted, at_a_time, profile},
    verdicts::{PRELUDE, SERVER, behind_a_server, by_url, in_memory},
};

/// A directory with an app that has these functions, each at the path of its name.
pub(crate) fn app(functions: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), functions);
    directory
}

pub(crate) fn put(directory: &Path, functions: &str) {
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(directory.join("service.py"), format!("{PRELUDE}\n{functions}")).unwrap();
}

/// Runs the command in a directory: its exit code, standard output and standard error.
pub(crate) fn relapse(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = crate::support::relapse_command().current_dir(directory).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Runs one case: the exit code, the verdict, and the document's entry.
pub(crate) fn run(directory: &Path, case: &str, arguments: &[&str]) -> (Option<i32>, String, serde_json::Value) {
    std::fs::write(directory.join("case.toml"), case).unwrap();
    let (code, printed, said) = relapse(directory, &[&["run", "case.toml", "--format", "json"], arguments].concat());
    let mut document: serde_json::Value =
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}{said}"));
    let entry = document["cases"][0].take();
    (code, entry["verdict"].as_str().unwrap_or_default().to_owned(), entry)
}

/// The two versions of an app in a directory, `before` and `after`.
pub(crate) const BOTH: [&str; 4] = ["--before", "asgi:service:app @ before", "--target", "asgi:service:app @ after"];
pub(crate) const ONE: [&str; 2] = ["--target", "asgi:service:app"];

/// With one target nothing is FIXED or STILL BROKEN, because nothing shows that it ever failed.
#[rstest]
#[case::passes("200", "passed", 0)]
#[case::fails("500", "failed", 1)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn one_target_passes_or_fails(#[case] status: &str, #[case] verdict: &str, #[case] code: i32) {
    let directory = app(&format!("async def ask(scope, receive, send):\n    await answer(send, {status})\n"));
    let case = "summary = \"x\"\nstep = [{ request = \"GET /ask\" }]\n[expect]\naccept = [\"ok\"]\n";
    // A claim of the case says nothing about the only version.
    for symptom in ["", "[symptom]\noutcome = \"http 500\"\n", "[symptom]\noutcome = \"http 418\"\n"] {
        let (exit, got, entry) = run(directory.path(), &format!("{case}{symptom}"), &ONE);
        assert_eq!((exit, got.as_str()), (Some(code), verdict), "{entry:#}");
    }
}

/// A status of the app's own choice is an answer, also from 505 on; 500, 502 and 504 are failures.
#[rstest]
#[case::too_full("507", "passed")]
#[case::loops("508", "passed")]
#[case::fails("502", "failed")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_refusal_of_the_app_is_an_answer(#[case] status: &str, #[case] verdict: &str) {
    let directory = app(&format!("async def ask(scope, receive, send):\n    await answer(send, {status})\n"));
    let case = "summary = \"x\"\nstep = [{ request = \"POST /ask\" }]\n[expect]\naccept = [\"refused-request\"]\n";
    let (_, got, entry) = run(directory.path(), case, &ONE);
    assert_eq!(got, verdict, "{entry:#}");
}

/// An outcome pattern accepts what its class would not, and nothing else.
#[rstest]
#[case("http 403", true)]
#[case("http 4xx", true)]
#[case("http 401", false)]
#[case("ok", false)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_outcome_is_accepted_by_its_pattern(#[case] accept: &str, #[case] passes: bool) {
    let directory = app("async def ask(scope, receive, send):\n    await receive()\n    await close(send, 4000)\n");
    let case = format!("summary = \"x\"\nstep = [{{ open = \"/ask\" }}]\n[expect]\naccept = [\"{accept}\"]\n");
    let (_, verdict, entry) = run(directory.path(), &case, &ONE);
    assert_eq!(verdict == "passed", passes, "{entry:#}");
}

/// No case accepts a failure.
#[rstest]
fn a_failure_is_accepted_by_no_case(
    #[values("http 500", "http 5xx", "close 1011", "drop (1006)", "hang", "server-error", "close 1o08")] accept: &str,
) {
    let directory = tempfile::tempdir().unwrap();
    let case = format!("summary = \"x\"\nstep = [{{ open = \"/ask\" }}]\n[expect]\naccept = [\"{accept}\"]\n");
    std::fs::write(directory.path().join("case.toml"), case).unwrap();
    let (code, printed, said) = relapse(directory.path(), &["run", "case.toml", "--target", "asgi:service:app"]);
    assert!(code == Some(2) && said.contains("case.toml:4:"), "{printed}{said}");
}

fn read(text: &str) -> Case {
    Case::parse("case.toml", "case", text, &Known { checks: check::ALL, ..Known::NOTHING })
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A wait that never arrives is a failure on every target: while the session lives on, and when it is over first.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
// Long: an app and its rows.
fn a_wait_that_is_not_met_fails_on_every_target() {
    let python = python();
    let directory = app("
async def stays(scope, receive, send):
    await opened(receive, send)
    await receive()
    await say(send, '{\"type\": \"other\"}')
    await listen(receive)

async def leaves(scope, receive, send):
    await opened(receive, send)
    await receive()
    await say(send, '{\"type\": \"other\"}')
    await close(send, 1000)
");
    let mut cases = Vec::new();
    for path in ["stays", "leaves"] {
        for (wait, is_met) in [
            ("wait = \"other\"", true),
            ("wait_any = true", true),
            ("wait_answer = true", true),
            ("wait = \"pong\"", false),
            ("wait_text = \"pong\"", false),
            ("wait_match = \"^pong$\"", false),
            ("wait_key = \"pong\"", false),
        ] {
            let text = format!(
                "summary = \"x\"\nstep = [{{ open = \"/{path}\" }}, {{ send = \"hello\" }}, {{ {wait}, within_ms = 200 }}]\n\
                 [expect]\naccept = [\"ok\"]\n"
            );
            cases.push((format!("/{path}, {wait}"), read(&text), is_met));
        }
    }
    let judge = async |version: Version, binding: ServiceFile| {
        let versions = Versions { binding, before: None, after: version, repeat: 1 };
        let mut wrong = Vec::new();
        for (name, case, is_met) in &cases {
            let judgement = versions.judge(case, 1).await;
            let is_right = match is_met {
                true => judgement.verdict == Verdict::Passed,
                false => judgement.verdict == Verdict::Failed,
            };
            if !is_right {
                wrong.push(format!("{name}: {}: {}", judgement.verdict, judgement.why()));
            }
        }
        wrong
    };
    let none: [String; 0] = [];
    let wrong = Runtime::new(Clock::Virtual)
        .block_on(async { judge(in_memory(&python, directory.path()).await, ServiceFile::unknown()).await });
    assert_eq!(wrong, none, "in memory");
    let installation = installation(SERVER.1, directory.path());
    let (served, at_url) = Runtime::new(Clock::Real).block_on(async {
        let (version, url) = behind_a_server(installation.clone()).await;
        let served = judge(version, ServiceFile::unknown()).await;
        let (_running, url_too) = behind_a_server(installation).await;
        drop(url);
        (served, judge(by_url(&url_too), ServiceFile::default()).await)
    });
    assert_eq!(served, none, "behind a server");
    assert_eq!(at_url, none, "by URL");
}

/// A case's own healthy client has to get through, and only on the version with the fix.
#[rstest]
#[case::gets_through("200", "fixed")]
#[case::does_not("500", "still-broken")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_healthy_client_of_the_cases_own_has_to_get_through(#[case] status: &str, #[case] expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let version = |ask: &str, well: &str| {
        format!(
            "async def ask(scope, receive, send):\n    {ask}\n    await answer(send, 200)\n\n\
             async def other(scope, receive, send):\n    await answer(send, {well})\n"
        )
    };
    put(&directory.path().join("before"), &version("scope['room']", "500"));
    put(&directory.path().join("after"), &version("scope.get('room')", status));
    let case = "summary = \"x\"\n[[step]]\nrequest = \"GET /ask\"\n[[healthy_client.step]]\nrequest = \"GET /other\"\n\
                [expect]\naccept = [\"ok\"]\n[symptom]\nexception = \"KeyError: 'room'\"\n";
    let (_, verdict, entry) = run(directory.path(), case, &BOTH);
    assert_eq!(verdict, expected, "{entry:#}");
    let is_told = entry["why"].as_str().unwrap().contains("the healthy client gets http 500");
    assert_eq!(is_told, expected == "still-broken", "{entry:#}");
}

/// An app with a room and a list: each takes a token, the room in the query, the list in the header.
const MEMBERS: &str = "
TOKENS = {'token-of-ann': 'ann', 'token-of-bob': 'bob'}

def bearer(scope):
    return (header(scope, b'authorization') or b'').decode().removeprefix('Bearer ')

async def rooms(scope, receive, send):
    await receive()
    user = TOKENS.get(query(scope).get('token'))
    if user is None:
        await send({'type': 'websocket.http.response.start', 'status': 401, 'headers': []})
        return await send({'type': 'websocket.http.response.body', 'body': b'no'})
    await send({'type': 'websocket.accept'})
    await say(send, 'hello ' + user)
    await listen(receive)

async def members(scope, receive, send):
    user = TOKENS.get(bearer(scope))
    await answer(send, 200 if user else 401, ('hello ' + str(user)).encode())

inner = app
async def app(scope, receive, send):
    if scope['type'] != 'lifespan' and scope['path'].startswith('/rooms/'):
        return await rooms(scope, receive, send)
    await inner(scope, receive, send)
";

const MEMBERS_FILE: &str = "
[paths]
websocket = \"\"
health = []
[credential]
literal = \"token-of-ann\"
place = \"header\"
[[credential.route]]
route = \"ws:/rooms/{name}\"
place = \"query\"
[users.bob]
literal = \"token-of-bob\"
[messages]
welcome = \"\"
request = \"\"
events = []
";

const MEMBERS_CASE: &str = "
summary = \"Each user is called by their own name, wherever the token travels.\"

[[step]]
as = \"ann\"
open = \"/rooms/kitchen\"

[[step]]
as = \"ann\"
wait_text = \"hello ann\"
within_ms = 300

[[step]]
as = \"bob\"
open = \"/rooms/hall\"
user = \"bob\"

[[step]]
as = \"bob\"
wait_text = \"hello bob\"
within_ms = 300

[[step]]
as = \"bob\"
request = \"GET /members\"
user = \"bob\"
credential = \"valid\"
says = \"hello bob\"

[expect]
accept = [\"ok\"]
";

/// The service file says who the users are and where the credential goes on which route.
#[rstest]
#[case::as_it_is("", "", "passed", 0, "")]
#[case::no_place_for_the_route(
    "ws:/rooms/{name}",
    "ws:/halls/{name}",
    "inconclusive",
    2,
    "credential was refused (401)"
)]
#[case::no_such_user("[users.bob]", "[users.eve]", "inconclusive", 2, "the user `bob`")]
#[case::the_wrong_token("token-of-bob", "token-of-ann", "failed", 1, "connection 2")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn several_users_and_places_are_stated(
    #[case] from: &str,
    #[case] to: &str,
    #[case] expected: &str,
    #[case] exit: i32,
    #[case] told: &str,
) {
    let directory = app(MEMBERS);
    std::fs::write(directory.path().join("relapse.toml"), MEMBERS_FILE.replace(from, to)).unwrap();
    let (code, verdict, entry) = run(directory.path(), MEMBERS_CASE, &ONE);
    assert_eq!((verdict.as_str(), code), (expected, Some(exit)), "{entry:#}");
    let why = entry["why"].as_str().unwrap();
    assert!(why.contains(told), "{why}");
}

/// A credential that is refused proves nothing, and says so.
#[rstest]
#[case::by_a_status("rooms/kitchen", "401")]
#[case::of_a_plain_request("members", "401")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_refused_credential_is_told(#[case] path: &str, #[case] status: &str) {
    let directory = app(MEMBERS);
    let file = MEMBERS_FILE.replace("token-of-ann", "token-of-yesterday");
    std::fs::write(directory.path().join("relapse.toml"), file).unwrap();
    let step = match path {
        "members" => "request = \"GET /members\"\ncredential = \"valid\"",
        _ => "open = \"/rooms/kitchen\"",
    };
    for accept in ["ok", "http 401"] {
        let case = format!("summary = \"x\"\n[[step]]\n{step}\n[expect]\naccept = [\"{accept}\"]\n");
        let (code, verdict, entry) = run(directory.path(), &case, &ONE);
        assert_eq!((code, verdict.as_str()), (Some(2), "inconclusive"), "{entry:#}");
        let told = format!("your credential was refused ({status})");
        assert!(entry["why"].as_str().unwrap().contains(&told), "{entry:#}");
    }
}

/// Of a service that refuses everyone the trigger is judged alone, and that is told.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_service_that_refuses_everyone_has_no_healthy_client() {
    let directory = tempfile::tempdir().unwrap();
    let version = |status: u16| format!("async def ask(scope, receive, send):\n    await answer(send, {status})\n");
    put(&directory.path().join("before"), &version(500));
    put(&directory.path().join("after"), &version(403));
    let case = "summary = \"x\"\n[[step]]\nrequest = \"GET /ask\"\n[expect]\naccept = [\"http 403\"]\n\
                [symptom]\noutcome = \"http 500\"\n";
    std::fs::write(directory.path().join("case.toml"), case).unwrap();
    let (code, printed, said) = relapse(directory.path(), &[&["run", "case.toml"], &BOTH[..]].concat());
    let is_told = printed.contains("no healthy client: the service refuses the plainest request (http 403)");
    assert!(code == Some(0) && printed.contains("FIXED") && is_told, "{printed}{said}");
    // A service that let everyone in before does not refuse them by design.
    put(&directory.path().join("before"), &version(200));
    let case = case.replace("http 500", "http 200");
    let (_, verdict, entry) = run(directory.path(), &case, &BOTH);
    assert_eq!(verdict, "still-broken", "{entry:#}");
}

/// An answer that does not say how long it is is read to its end: a file of megabytes, and an export in thousands of rows.
#[rstest]
#[case::file("b'x' * 6_000_000, 1")]
#[case::rows("b'1,2,3\\r\\n', 3000")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_long_answer_is_read_to_its_end(#[case] body_and_times: &str) {
    let directory = tempfile::tempdir().unwrap();
    let app = format!(
        "async def ask(scope, receive, send):\n    body, times = {body_and_times}\n    \
         await send({{'type': 'http.response.start', 'status': 200, 'headers': []}})\n    \
         for _ in range(times):\n        \
         await send({{'type': 'http.response.body', 'body': body, 'more_body': True}})\n        \
         await asyncio.sleep(0.001)\n    \
         await send({{'type': 'http.response.body', 'body': b''}})\n"
    );
    put(directory.path(), &app);
    let case = "summary = \"x\"\n[[step]]\nrequest = \"GET /ask\"\n[expect]\naccept = [\"http 200\"]\n";
    let (code, verdict, entry) = run(directory.path(), case, &ONE);
    assert_eq!((code, verdict.as_str()), (Some(0), "passed"), "{entry:#}");
}

/// A failure that comes and goes is shown when one run shows it, and fixed when none does any more.
#[rstest]
#[case::fixed("False", "fixed", "shown in 2 of 6")]
#[case::rarer("count == 5", "still-broken", "shown in 2 of 6")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_failure_that_comes_and_goes_is_looked_for(#[case] fails: &str, #[case] expected: &str, #[case] shown: &str) {
    let directory = tempfile::tempdir().unwrap();
    let version = |fails: &str| {
        format!(
            "count = 0\n\nasync def ask(scope, receive, send):\n    global count\n    count += 1\n    \
             await answer(send, 500 if {fails} else 200)\n"
        )
    };
    put(&directory.path().join("before"), &version("count % 3 == 0"));
    put(&directory.path().join("after"), &version(fails));
    let case = "summary = \"x\"\n[[step]]\nrequest = \"GET /ask\"\n[[healthy_client.step]]\nrequest = \"GET /well\"\n\
                [expect]\naccept = [\"ok\"]\n[symptom]\noutcome = \"http 500\"\n";
    let (_, verdict, entry) = run(directory.path(), case, &[&BOTH[..], &["--repeat", "6"]].concat());
    assert_eq!(verdict, expected, "{entry:#}");
    let told = format!("shown in {} of {}", entry["shown"]["in_runs"], entry["shown"]["of_runs"]);
    assert_eq!(told, shown);
    let (_, verdict, entry) = run(directory.path(), case, &[&BOTH[..], &["--repeat", "2"]].concat());
    assert_eq!(verdict, "not-reproduced", "{entry:#}");
}

/// An idle limit of the edge, below the interval of the server's own pings, that a heartbeat outlives had its chance. One that no session reached had none.
#[rstest]
#[case::heartbeat("while True:\n        await say(send, 'beat')\n        await asyncio.sleep(5)", "fixed")]
#[case::ends_early("await close(send, 1000)", "not-exercised")]
#[case::still_silent("await asyncio.sleep(1)\n    await listen(receive)", "still-broken")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_fault_that_was_in_force_is_not_vacuous(#[case] after: &str, #[case] expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let version =
        |rest: &str| format!("async def feed(scope, receive, send):\n    await opened(receive, send)\n    {rest}\n");
    put(&directory.path().join("before"), &version("await listen(receive)"));
    put(&directory.path().join("after"), &version(after));
    let case = "summary = \"x\"\nstep = [{ open = \"/feed\" }, { pause_ms = 90000 }, { close = 1000 }]\n\
                [[fault]]\nat = \"edge\"\nkind = \"idle\"\ndirection = \"both\"\nafter_ms = 15000\n\
                [expect]\naccept = [\"ok\"]\n[symptom]\noutcome = \"drop (1006)\"\n";
    let (_, verdict, entry) = run(directory.path(), case, &BOTH);
    assert_eq!(verdict, expected, "{entry:#}");
}

/// Where time is real, a healthy client without a description waits as long as a step without a limit does, or as long as
/// the case's own step; and after two routes without an answer no other is asked.
#[rstest]
#[case::as_usual("", 5, 25)]
#[case::a_short_step(", within_ms = 100", 5, 21)]
#[case::a_slow_route(", within_ms = 9000", 9, 37)]
#[case::never_longer(", within_ms = 50000", 30, 120)]
fn a_derived_healthy_client_waits_a_bounded_time(#[case] within: &str, #[case] limit: u64, #[case] in_all: u64) {
    let case =
        format!("summary = \"x\"\nstep = [{{ request = \"GET /slow\"{within} }}]\n[expect]\naccept = [\"ok\"]\n");
    let app: Arc<dyn Application> = Scripted::new(|_, mut ends| async move {
        while ends.receive().await? != Inbound::HttpDisconnect {}
        Ok(())
    });
    Runtime::new(Clock::Virtual).block_on(async {
        let target = Reached::of(&app, &profile("uvicorn-0.54")).in_real_time();
        let mut external = External::new(target, Front::Unknown);
        external.routes = ["/a", "/b", "/c", "/d"].map(|path| Route::parse(&format!("GET {path}")).unwrap()).into();
        let versions =
            Versions { binding: ServiceFile::unknown(), before: None, after: Version::Running(external), repeat: 1 };
        let start = tokio::time::Instant::now();
        let judgement = versions.judge(&read(&case), 1).await;
        let took = start.elapsed();
        let after = judgement.after.as_ref().unwrap();
        let said = Reason::HealthyClient(after.control.outcome().unwrap().clone()).to_string();
        let expected = format!(
            "after: the healthy client gets hang (hang; hang), waiting for the answer to the request (GET /slow) for {limit} s"
        );
        assert_eq!(said, expected);
        assert!(took <= Duration::from_secs(in_all), "{took:?}");
    });
}

/// A chat server on a socket: it answers a message with one of the type `said`, if it answers any.
fn chat_server(answers: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move |stream: TcpStream| {
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        while let Ok(message) = socket.read() {
            if message.is_text() && answers && socket.send(Message::text(r#"{"type":"said"}"#)).is_err() {
                return;
            }
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// The version that keeps a body back until it is whole is told from the one that streams it, by the check that says so.
#[rstest]
#[case::by_its_check("bounded_wait", "fixed")]
#[case::by_another_check("answered", "not-reproduced")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_late_body_is_a_finding(#[case] found_by: &str, #[case] expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let version = |first: &str| {
        format!(
            "async def words(scope, receive, send):\n    \
             await send({{'type': 'http.response.start', 'status': 200, 'headers': []}})\n    {first}\n    \
             await asyncio.sleep(4)\n    await send({{'type': 'http.response.body', 'body': b'last'}})\n"
        )
    };
    put(&directory.path().join("before"), &version("pass"));
    let streams = "await send({'type': 'http.response.body', 'body': b'first', 'more_body': True})";
    put(&directory.path().join("after"), &version(streams));
    let case = format!(
        "summary = \"x\"\nstep = [{{ request = \"GET /words\", first_byte_within_ms = 1000 }}]\n\
         [expect]\naccept = [\"ok\"]\n[symptom]\noutcome = \"http 200\"\nfound_by = [\"{found_by}\"]\n"
    );
    let (_, verdict, entry) = run(directory.path(), &case, &BOTH);
    assert_eq!(verdict, expected, "{entry:#}");
    let told = "http 200 (ok, clean): the first byte of the body came after 4000 ms (limit 1000 ms)";
    assert_eq!(entry["before"]["clause"], told, "{entry:#}");
}

/// The clause on a version names the message that never came, beside the exception that is still raised.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_clause_names_what_never_came() {
    let directory = tempfile::tempdir().unwrap();
    let version = |code: u16| {
        format!(
            "async def ask(scope, receive, send):\n    await opened(receive, send)\n    await receive()\n    \
             try:\n        {{}}['text']\n    except KeyError:\n        return await close(send, {code})\n"
        )
    };
    put(&directory.path().join("before"), &version(1011));
    put(&directory.path().join("after"), &version(1000));
    let case = "summary = \"x\"\nstep = [{ open = \"/ask\" }, { send = \"hello\" }, { wait = \"reply\" }]\n\
                [expect]\naccept = [\"ok\"]\n[symptom]\noutcome = \"close 1011\"\n";
    let (_, verdict, entry) = run(directory.path(), case, &BOTH);
    let clause = entry["after"]["clause"].as_str().unwrap_or_default();
    assert!(verdict == "still-broken" && clause.contains("KeyError: 'text'"), "{entry:#}");
    assert!(clause.ends_with("; a `reply` message never came"), "{clause}");
}

/// A healthy client that fails before the trigger is not tried again after it: where an app blocks, each try takes its limit.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_healthy_client_that_fails_is_tried_once() {
    let directory = app("
async def down(scope, receive, send):
    with open('calls.txt', 'a') as calls:
        calls.write('x')
    await answer(send, 500)

async def up(scope, receive, send):
    with open('calls.txt', 'a') as calls:
        calls.write('x')
    await answer(send, 200)
");
    for (path, calls) in [("down", "xx"), ("up", "xxx")] {
        let case = format!("summary = \"x\"\nstep = [{{ request = \"GET /{path}\" }}]\n[expect]\naccept = [\"ok\"]\n");
        run(directory.path(), &case, &["--target", "asgi:service:app", "--path", "GET /none"]);
        let file = directory.path().join("calls.txt");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), calls, "{path}");
        std::fs::remove_file(file).unwrap();
    }
}

/// After a client that ended the app, no other is tried: each needs a new app, and may end that too after a long time.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn no_healthy_client_is_tried_after_one_that_ended_the_app() {
    let directory = app("
import os
def end():
    with open('calls.txt', 'a') as calls:
        calls.write('x')
    os._exit(3)

async def down(scope, receive, send):
    end()

async def other(scope, receive, send):
    end()
");
    let case = "summary = \"x\"\nstep = [{ request = \"GET /down\" }]\n[expect]\naccept = [\"ok\"]\n";
    run(directory.path(), case, &["--target", "asgi:service:app", "--path", "GET /other"]);
    assert_eq!(std::fs::read_to_string(directory.path().join("calls.txt")).unwrap(), "xx");
}

/// A wait for a type that a message only has as its text says which wait finds the message.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_clause_tells_of_a_mistaken_wait() {
    let directory = app("
async def ask(scope, receive, send):
    await opened(receive, send)
    await say(send, (await receive())['text'])
    await listen(receive)
");
    for (wait, advised) in [("wait = \"hello\"", true), ("wait_text = \"hell no\"", false), ("wait = \"bye\"", false)] {
        let case = format!(
            "summary = \"x\"\nstep = [{{ open = \"/ask\" }}, {{ send = \"hello\" }}, {{ {wait} }}]\n[expect]\naccept = [\"ok\"]\n"
        );
        let (_, verdict, entry) = run(directory.path(), &case, &["--target", "asgi:service:app"]);
        let clause = entry["after"]["clause"].as_str().unwrap_or_default();
        assert!(verdict == "failed" && clause.contains("`wait_text` finds it") == advised, "{wait}: {entry:#}");
    }
}

/// A session in which the answer never comes, but whose close is answered, is silent: for every client, the healthy one too.
#[test]
fn a_session_that_is_deaf_is_silent() {
    let service =
        "[paths]\nwebsocket = \"/ws\"\n[messages]\nwelcome = \"\"\nrequest = \"hello\"\nevents = [\"said\"]\n";
    let case = "summary = \"x\"\nstep = [{ open = \"/ws\" }, { send = \"hello\" }, { wait = \"said\", within_ms = 300 }, { close = 1000 }]\n\
                [expect]\naccept = [\"ok\"]\n\
                [symptom]\noutcome = \"close 1000\"\nclass = \"no-answer\"\ncause = \"clean\"\nfound_by = [\"answered\"]\n";
    let [deaf, deaf_too, fixed] = [false, false, true].map(|answers| format!("ws://{}", chat_server(answers)));
    let pairs = [(&deaf, &fixed, "fixed"), (&deaf, &deaf_too, "still-broken"), (&fixed, &deaf, "not-reproduced")];
    at_a_time(3, &pairs, |(before, after, expected)| {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("relapse.toml"), service).unwrap();
        let (_, verdict, entry) = run(directory.path(), case, &["--before", before, "--target", after]);
        assert_eq!(verdict, *expected, "{entry:#}");
    });
}

/// Where no server is, a case says nothing, whatever its fault does to the connection and whether it has a healthy client.
#[rstest]
#[case::with_a_healthy_client("step = [{ open = \"/ws\" }]\n")]
#[case::alone("alone = true\nstep = [{ open = \"/ws\" }]\n")]
#[case::cut_at_the_edge(
    "step = [{ request = \"POST /ws\", body = \"text\" }]\n\
     [[fault]]\nat = \"edge\"\nkind = \"cut\"\ndirection = \"to-server\"\nafter_bytes = 20\n"
)]
fn a_server_that_is_not_there_is_told(#[case] steps: &str) {
    // A socket that does not listen keeps its port, and refuses connections.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    let case = format!("summary = \"x\"\n{steps}[expect]\naccept = [\"ok\", \"cut-by-fault\"]\n");
    let directory = tempfile::tempdir().unwrap();
    let (code, verdict, entry) = run(directory.path(), &case, &["--target", &format!("ws://{address}")]);
    assert_eq!((code, verdict.as_str()), (Some(2), "inconclusive"), "{entry:#}");
    let told = format!("could not connect to {address}: Connection refused");
    assert!(entry.to_string().contains(&told), "{entry:#}");
}

/// Headers that our own edge took from an upgrade are named as the cause of its refusal, on either version.
#[test]
fn a_refusal_of_what_the_edge_took_is_explained() {
    let upgrade = "upgrade: websocket";
    let [one, two] = [true, true].map(|answers| gateway(upgrade, "426 Upgrade Required", chat_server(answers)));
    let case = "summary = \"x\"\nstep = [{ open = \"/ws\" }]\n\
                [[fault]]\nat = \"edge\"\nkind = \"drop_hop_by_hop\"\n\
                [expect]\naccept = [\"ok\"]\n[symptom]\noutcome = \"close 1011\"\n";
    let runs = [(vec!["--target", &one], "failed"), (vec!["--before", &one, "--target", &two], "not-reproduced")];
    at_a_time(2, &runs, |(targets, expected)| {
        let directory = tempfile::tempdir().unwrap();
        let (_, verdict, entry) = run(directory.path(), case, targets);
        assert_eq!(verdict, *expected, "{entry:#}");
        assert_eq!(entry["after"]["cause"], "injected", "{entry:#}");
        let told = "the headers Upgrade and Connection did not reach the server (certain)";
        assert!(entry.to_string().contains(told), "{entry:#}");
    });
}

/// Where a healthy client opens a session, upgrades arrive: on its own path only.
#[rstest]
#[case::seen_to_arrive("[[healthy_client.step]]\nopen = \"/ws\"\nquery = \"room=a\"\n", false)]
#[case::on_another_path("[[healthy_client.step]]\nopen = \"/other\"\nquery = \"room=a\"\n", true)]
#[case::not_seen("", true)]
fn an_upgrade_that_arrives_is_not_doubted(#[case] control: &str, #[case] is_doubted: bool) {
    let directory = tempfile::tempdir().unwrap();
    let url = gateway("room=", "302 Found", chat_server(true));
    let case = format!("summary = \"x\"\nstep = [{{ open = \"/ws\" }}]\n{control}[expect]\naccept = [\"ok\"]\n");
    let (_, verdict, entry) = run(directory.path(), &case, &["--target", &url]);
    let doubt = "the headers Upgrade and Connection may not have reached the server";
    assert_eq!((verdict.as_str(), entry.to_string().contains(doubt)), ("failed", is_doubted), "{entry:#}");
}

/// The URL of a gateway that passes requests with a text in their head on to a server, and answers others with a status.
fn gateway(wanted: &'static str, status: &'static str, server: SocketAddr) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || pass_on(stream, wanted, status, server));
        }
    });
    format!("ws://{address}")
}

/// Passes one connection on, or answers its request.
fn pass_on(mut stream: TcpStream, wanted: &str, status: &str, server: SocketAddr) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    if !String::from_utf8_lossy(&head).to_ascii_lowercase().contains(wanted) {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return drop(stream.write_all(answer.as_bytes()));
    }
    let Ok(mut upstream) = TcpStream::connect(server) else { return };
    let (mut from_client, mut to_server) = (stream.try_clone().unwrap(), upstream.try_clone().unwrap());
    if upstream.write_all(&head).is_ok() {
        std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
        let _ = std::io::copy(&mut upstream, &mut stream);
    }
}

/// The counts of a run that is repeated are those of all its tries.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn every_try_is_counted() {
    let directory = app("async def ask(scope, receive, send):\n    await answer(send, 200)\n");
    let case = "summary = \"x\"\nstep = [{ request = \"GET /ask\" }]\n[expect]\naccept = [\"ok\"]\n";
    std::fs::write(directory.path().join("case.toml"), case).unwrap();
    for (repeat, requests) in [("1", 1), ("4", 4)] {
        let arguments = [&["run", "case.toml", "--format", "json", "--repeat", repeat], &ONE[..]].concat();
        let (_, printed, said) = relapse(directory.path(), &arguments);
        let document: serde_json::Value = serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{printed}{said}"));
        assert_eq!(document["summary"]["requests"], requests, "{document:#}");
    }
}

/// The exception that stops a start is one that a case can claim, also where a framework catches it and gives its traceback.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_exception_of_the_start_can_be_claimed() {
    let directory = tempfile::tempdir().unwrap();
    let version = |ready: &str| {
        format!(
            "import traceback\n\ndef ready():\n    {ready}\n\nasync def app(scope, receive, send):\n    \
             if scope['type'] != 'lifespan':\n        return await answer(send, 200)\n    await receive()\n    \
             try:\n        ready()\n    except KeyError:\n        \
             return await send({{'type': 'lifespan.startup.failed', 'message': traceback.format_exc()}})\n    \
             await send({{'type': 'lifespan.startup.complete'}})\n    await receive()\n    \
             await send({{'type': 'lifespan.shutdown.complete'}})\n"
        )
    };
    put(&directory.path().join("before"), &version("{}['room']"));
    put(&directory.path().join("after"), &version("pass"));
    for (exception, expected) in [
        ("\"KeyError: 'room'\"", "fixed"),
        ("{ type = \"KeyError\", place = \"service.py in ready\" }", "fixed"),
        ("\"ValueError\"", "not-reproduced"),
        ("{ type = \"KeyError\", place = \"service.py in other\" }", "not-reproduced"),
    ] {
        let case = format!(
            "summary = \"x\"\nstep = [{{ request = \"GET /ask\" }}]\n[expect]\naccept = [\"ok\"]\n\
             [symptom]\noutcome = \"does not start\"\nexception = {exception}\n"
        );
        let (_, verdict, entry) = run(directory.path(), &case, &BOTH);
        assert_eq!(verdict, expected, "{exception}: {entry:#}");
        let clause = entry["before"]["clause"].as_str().unwrap_or_default();
        assert!(clause.contains("KeyError: 'room' (service.py:"), "{clause}");
    }
}

/// A cause that is called certain is not one that came after the failure, and an exception that leaves the app is not one
/// that the app handled.
#[rstest]
#[case::after_the_answer(
    "await answer(send, 200)\n    {}['room']",
    "step = [{ request = \"GET /ask\" }]",
    "an exception left the application after it accepted (certain)"
)]
#[case::after_the_wait(
    "await opened(receive, send)\n    while (await receive())['type'] != 'websocket.disconnect':\n        pass\n    {}['room']",
    "step = [{ open = \"/ask\" }, { send = \"hi\" }, { wait = \"reply\", within_ms = 500 }, { close = 1000 }]",
    "hang (hang; hang)"
)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_certain_cause_comes_before_the_failure(#[case] app_does: &str, #[case] steps: &str, #[case] told: &str) {
    let directory = app(&format!("async def ask(scope, receive, send):\n    {app_does}\n"));
    let case = format!("summary = \"x\"\n{steps}\n[expect]\naccept = [\"ok\"]\n");
    let (_, verdict, entry) = run(directory.path(), &case, &ONE);
    let why = entry["why"].as_str().unwrap_or_default();
    assert!(verdict == "failed" && why.contains(told) && !why.contains("handled"), "{entry:#}");
    assert_eq!(why.contains("(certain)"), told.contains("(certain)"), "{entry:#}");
}

/// An exception in the job of an executor, which the app never retrieves, is still raised.
#[rstest]
#[case::in_memory(&[])]
#[case::behind_a_server(&["--server", SERVER.1])]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_exception_that_is_never_retrieved_is_still_raised(#[case] server: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    put(&directory.path().join("before"), "async def ask(scope, receive, send):\n    {}['room']\n");
    let after = "
def look(done):
    done()
    {}['room']

async def ask(scope, receive, send):
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    loop.run_in_executor(None, look, lambda: loop.call_soon_threadsafe(done.set))
    await done.wait()
    # The job ends, and the loop learns of its exception.
    await loop.shutdown_default_executor()
    await asyncio.sleep(0)
    await answer(send, 200)
";
    put(&directory.path().join("after"), after);
    let case = "summary = \"x\"\nstep = [{ request = \"GET /ask\" }]\n[[healthy_client.step]]\nrequest = \"GET /well\"\n\
                [expect]\naccept = [\"ok\"]\n[symptom]\nexception = \"KeyError: 'room'\"\n";
    let (_, verdict, entry) = run(directory.path(), case, &[&BOTH[..], server].concat());
    assert_eq!(verdict, "still-broken", "{entry:#}");
}

/// An app that logs an error for each request, and answers it.
const LOGS: &str = "import logging\n\nasync def ask(scope, receive, send):\n    logging.error('lost')\n    \
                    await answer(send, 200)\n";

/// A log claimed for a client's mistake is the same log where a service file makes it one without a mistake, and no other
/// finding stands for it.
#[rstest]
#[case::the_other_check_of_logs("no_error_log_for_client_fault", "fixed")]
#[case::another_check("no_drop", "not-reproduced")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_claimed_log_is_found_by_either_check(#[case] claimed: &str, #[case] expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    put(&directory.path().join("before"), LOGS);
    put(&directory.path().join("after"), "async def ask(scope, receive, send):\n    await answer(send, 200)\n");
    std::fs::write(directory.path().join("relapse.toml"), "[paths]\nhealth = [\"/ask\"]\n").unwrap();
    let case = format!(
        "summary = \"x\"\n[[step]]\nrequest = \"GET /ask\"\n[expect]\naccept = [\"ok\"]\n[symptom]\noutcome = \"http \
         200\"\nfound_by = [\"{claimed}\"]\n"
    );
    let (_, verdict, entry) = run(directory.path(), &case, &BOTH);
    assert_eq!(verdict, expected, "{entry:#}");
}

/// A server may call the app for a client that is gone already; the exception of that call is seen all the same.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_call_for_a_client_that_is_gone_is_seen_behind_a_server() {
    let directory = app(
        "async def ask(scope, receive, send):\n    while (await receive())['type'] != 'http.disconnect':\n        \
                         pass\n    raise RuntimeError('left')\n",
    );
    let body = "x".repeat(1000);
    let case = format!(
        "summary = \"x\"\n[[step]]\nrequest = \"POST /ask\"\nbody = {{ text = \"{body}\" }}\n[[fault]]\nat = \"edge\"\nkind = \
         \"cut\"\ndirection = \"to-server\"\nafter_bytes = 600\n[expect]\naccept = [\"cut-by-fault\"]\n"
    );
    let server = [&ONE[..], &["--server", SERVER.1]].concat();
    let (_, verdict, entry) = run(directory.path(), &case, &server);
    let told = entry["after"].to_string();
    assert!(verdict == "failed" && told.contains("RuntimeError: left"), "{entry:#}");
}
