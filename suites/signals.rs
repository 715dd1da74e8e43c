//! Signals and arguments for a server that the harness starts, with the real servers.

use std::path::Path;
use std::time::Duration;

use relapse::{case::Case, discover::Catalogue, run, target::Target as _};
use relapse_backend::runner::KNOWN;
use relapse_core::{
    judge::classify,
    plan::Plan,
    record::transcript::{EventKind, PROCESS, Transcript},
    wire::frame::Opcode,
};
use relapse_python::{process::Server as PythonServer, served::Served};
use relapse_simulate::clock::{Clock, Runtime};
use rstest::rstest;

use crate::{
    python::binding,
    served::{installation, interpreter},
};

/// A list that sessions watch. `/slow` tells them that it has begun, and answers when the last one has ended; `/stuck` does
/// the same and never answers. Each start is another life, and every answer names it.
const SERVICE: &str = r#"
import asyncio, os

watchers, ended, life = [], asyncio.Event(), str(os.getpid())

async def watch(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    watchers.append(send)
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            watchers.remove(send)
            ended.set()
            return
        await send({"type": "websocket.send", "text": "echo " + event["text"]})

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        return await watch(receive, send)
    await receive()
    if scope["path"] in ("/slow", "/stuck"):
        for watcher in watchers:
            await watcher({"type": "websocket.send", "text": "begun"})
        await (ended.wait() if scope["path"] == "/slow" else asyncio.Event().wait())
    body = life.encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"#;

fn write(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), SERVICE).unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn case(directory: &Path, name: &str) -> Case {
    let mut catalogue = Catalogue::knowing(KNOWN);
    catalogue.add(&directory.join(name)).unwrap();
    assert!(catalogue.broken.is_empty(), "{:?}", catalogue.broken);
    Case::clone(&catalogue.cases[0])
}

/// Performs a case twice behind a server, each time on one that got no signal.
fn perform(server: &str, text: &str) -> [Transcript; 2] {
    let directory = write(&[("case.toml", text)]);
    let case = case(directory.path(), "case.toml");
    let installation = installation(server, directory.path());
    Runtime::new(Clock::Real).block_on(async {
        let (server, _) = PythonServer::start(installation).await.unwrap();
        let served = Served::new(server, &binding(), String::new());
        served.start_with(&case.server_arguments).await.unwrap();
        let mut transcripts = Vec::new();
        for _ in 0..2 {
            transcripts.push(run::converse(&case.steps, Plan::default(), &served).await.unwrap());
            served.clear().await.unwrap();
        }
        assert_eq!(served.shut_down().await.unwrap(), Vec::<String>::new());
        transcripts.try_into().unwrap()
    })
}

/// How each exchange ended, with its class and its cause.
fn endings(transcript: &Transcript) -> Vec<String> {
    classify::readings(transcript).iter().map(|reading| reading.outcome().to_string()).collect()
}

/// The events of the process, in order.
fn process(transcript: &Transcript) -> Vec<String> {
    let told = |what: &EventKind| match what {
        EventKind::Signaled { signal } => Some(signal.to_string()),
        EventKind::Exited { why } => why.lines().next().map(|line| {
            let (server, rest) = line.split_once(" ended ").unwrap();
            format!("{} ended {}", server.split('=').next().unwrap(), rest.split_once(" s ").unwrap().1)
        }),
        EventKind::ExitAwaited { expected, exit, .. } => {
            Some(format!("{}", exit.is_some_and(|exit| expected.fits(exit))))
        }
        EventKind::NotPerformed { step } => Some(format!("step {step} left out")),
        _ => None,
    };
    transcript.of(PROCESS).filter_map(|event| told(&event.what)).collect()
}

/// Stops a server with a session and a request under way, and then knocks once more.
fn stopping(request: &str, exit: &str, arguments: &str) -> String {
    format!(
        r#"
summary = "A server that stops answers what it runs."
{arguments}

[[step]]
as = "ann"
open = "/jobs"

[[step]]
as = "ann"
send = "x"

[[step]]
as = "ann"
wait_answer = true

[[step]]
as = "bob"
request = "GET {request}"
answer = "later"

[[step]]
as = "ann"
wait_text = "begun"

[[step]]
signal = "SIGTERM"

[[step]]
as = "ann"
wait = "close"
within_ms = 10000

[[step]]
as = "bob"
read_answer = true
within_ms = 10000

[[step]]
wait_exit = {exit}
within_ms = 20000

[[step]]
as = "cat"
request = "GET /"

[expect]
accept = ["ok", "refused-unavailable"]
"#
    )
}

/// A server is told to stop: its session, its running request and a late client end as they should, and so does it.
#[rstest]
#[case::uvicorn(
    "uvicorn==0.54.0",
    stopping("/slow", "'SIGTERM'", ""),
    &["close 1012 (refused-unavailable; shutdown)", "http 200 (ok; clean)", "refused (refused-unavailable; no-listener)"],
    &["SIGTERM", "uvicorn ended after SIGTERM: ended by SIGTERM", "true"]
)]
#[case::uvicorn_with_a_limit(
    "uvicorn==0.54.0",
    stopping("/stuck", "true", "server_arguments = ['--timeout-graceful-shutdown', '1']"),
    &["close 1012 (refused-unavailable; shutdown)", "http 500 (cut-by-fault; shutdown)", "refused (refused-unavailable; no-listener)"],
    &["SIGTERM", "uvicorn ended after SIGTERM: ended by SIGTERM", "true"]
)]
#[case::hypercorn(
    "hypercorn==0.18.0",
    stopping("/slow", "0", "server_arguments = ['--graceful-timeout', '1']"),
    &["close 1011 (cut-by-fault; shutdown)", "http 500 (cut-by-fault; shutdown)", "refused (refused-unavailable; no-listener)"],
    &["SIGTERM", "hypercorn ended after SIGTERM: exit status 0", "true"]
)]
#[case::granian(
    "granian==2.8.7",
    stopping("/slow", "true", ""),
    &["drop (1006) (cut-by-fault; shutdown)", "http 200 (ok; clean)", "refused (refused-unavailable; no-listener)"],
    &["SIGTERM", "granian ended after SIGTERM: exit status 0", "true"]
)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_server_is_told_to_stop(
    #[case] server: &str,
    #[case] text: String,
    #[case] expected: &[&str],
    #[case] process_expected: &[&str],
) {
    let transcripts = perform(server, &text);
    for transcript in &transcripts {
        assert_eq!(endings(transcript), expected, "{transcript:#?}");
        assert_eq!(process(transcript), process_expected, "{transcript:#?}");
    }
}

/// A signal that ends nothing leaves the server as it is, one that kills it does not; after each comes another process.
#[rstest]
#[case::continues("SIGCONT", 1)]
#[case::kills("SIGKILL", 0)]
#[case::freezes("SIGSTOP", 0)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn every_trial_has_a_server_that_got_no_signal(#[case] signal: &str, #[case] answers: usize) {
    let text = format!(
        "summary = \"It answers.\"\n[[step]]\nrequest = \"GET /\"\n[[step]]\nsignal = \"{signal}\"\n{}\
         [[step]]\nrequest = \"GET /\"\n{}[expect]\naccept = [\"ok\"]\n",
        if signal == "SIGKILL" { "[[step]]\nwait_exit = \"SIGKILL\"\n" } else { "" },
        if answers == 0 { "within_ms = 300\n" } else { "" }
    );
    let transcripts = perform("uvicorn==0.54.0", &text);
    let lives = |transcript: &Transcript| -> Vec<String> {
        let body = |what: &EventKind| match what {
            EventKind::BodySeen { body, .. } => Some(String::from_utf8(body.to_vec()).unwrap()),
            _ => None,
        };
        transcript.events.iter().filter_map(|event| body(&event.what)).collect()
    };
    let [first, second] = transcripts.each_ref().map(lives);
    assert_eq!((first.len(), second.len()), (1 + answers, 1 + answers), "{transcripts:#?}");
    assert!(first.iter().all(|life| *life == first[0] && !second.contains(life)), "{first:?} {second:?}");
}

/// A step that no server is left for is told, and so is an end that does not come.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_signal_that_finds_no_server_is_told() {
    let text = "summary = \"x\"\n[[step]]\nrequest = \"GET /\"\n[[step]]\nwait_exit = true\nwithin_ms = 50\n[[step]]\n\
                signal = \"SIGKILL\"\n[[step]]\nwait_exit = 0\n[[step]]\nsignal = \"SIGTERM\"\n[expect]\naccept = \
                [\"ok\"]\n";
    let [transcript, _] = perform("uvicorn==0.54.0", text);
    let expected = ["false", "SIGKILL", "uvicorn ended after SIGKILL: ended by SIGKILL", "false", "step 5 left out"];
    assert_eq!(process(&transcript), expected);
}

/// A session whose client answers no ping.
fn deaf(arguments: &str) -> String {
    format!(
        "summary = \"A client that answers no ping is let go.\"\n{arguments}\n[[step]]\nopen = \"/jobs\"\n[[step]]\n\
         deaf_ms = 1500\n[expect]\naccept = [\"ok\"]\n"
    )
}

/// Arguments decide what a client sees that stalls.
#[rstest]
#[case::uvicorn(
    "uvicorn==0.54.0",
    "'--ws-ping-interval', '0.2', '--ws-ping-timeout', '0.2'",
    "close 1011 (server-error; keepalive-timeout)"
)]
#[case::hypercorn("hypercorn==0.18.0", "'--websocket-ping-interval', '1'", "hang (hang; hang)")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn arguments_change_what_a_stalled_client_sees(#[case] server: &str, #[case] arguments: &str, #[case] expected: &str) {
    let [transcript, _] = perform(server, &deaf(&format!("server_arguments = [{arguments}]")));
    let pings = |transcript: &Transcript| {
        let is_ping = |what: &EventKind| matches!(what, EventKind::FrameSeen(frame) if frame.opcode == Opcode::Ping);
        transcript.of(0).filter(|event| is_ping(&event.what)).count()
    };
    assert!(pings(&transcript) >= 1, "{transcript:#?}");
    assert_eq!(endings(&transcript), [expected], "{transcript:#?}");
    let [transcript, _] = perform(server, &deaf(""));
    assert_eq!(pings(&transcript), 0, "{transcript:#?}");
    assert_eq!(endings(&transcript), ["hang (hang; hang)"]);
}

/// The command, in a directory with the service and these cases.
fn command(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut relapse = crate::support::relapse_command();
    let output = relapse.current_dir(directory).arg("run").args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// The life of the server that answers, as the case wants it.
fn same_life(arguments: &str) -> String {
    format!(
        "summary = \"It answers.\"\n{arguments}\n[[step]]\nrequest = \"GET /\"\n[expect]\naccept = [\"http 200\"]\n"
    )
}

/// Cases with signals, with arguments and without stand side by side, in the order of the command line.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn cases_with_signals_and_arguments_are_judged() {
    let (args, other) = ("server_arguments = ['--ws-ping-interval', '5']", "server_arguments = ['--backlog', '16']");
    let long = stopping("/slow", "'SIGTERM'", "");
    let wrong = stopping("/slow", "7", "");
    let bad = same_life("server_arguments = ['--no-such-option']");
    let later = "summary = \"x\"\n[[step]]\nrequest = \"GET /\"\nanswer = \"later\"\n[[step]]\nread_answer = true\n\
                 [expect]\naccept = [\"http 200\"]\n";
    let directory = write(&[
        ("stop.toml", &long),
        ("wrong.toml", &wrong),
        ("one.toml", &same_life(args)),
        ("two.toml", &same_life(other)),
        ("three.toml", &same_life(args)),
        ("bad.toml", &bad),
        ("four.toml", &same_life("")),
        ("later.toml", later),
    ]);
    let python = interpreter(&"uvicorn==0.54.0".parse().unwrap());
    let files =
        ["stop.toml", "wrong.toml", "one.toml", "two.toml", "three.toml", "bad.toml", "four.toml", "later.toml"];
    let target = ["--target", "asgi:service:app", "--server", "uvicorn==0.54.0", "--python", python.to_str().unwrap()];
    let json = ["--format", "json"];
    let (code, told) = command(directory.path(), &[&files[..], &target, &json].concat());
    let document: serde_json::Value = serde_json::from_str(&told[told.find('{').unwrap()..]).unwrap_or_else(|error| {
        let end = told.rfind('}').unwrap();
        serde_json::from_str(&told[told.find('{').unwrap()..=end]).unwrap_or_else(|_| panic!("{error}: {told}"))
    });
    let verdicts: Vec<String> = document["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| format!("{} {}: {}", entry["case"], entry["verdict"], entry["why"]))
        .collect();
    let expected = [
        r#""stop.toml" "passed""#,
        r#""wrong.toml" "failed": "after: a step waited for the end of the server with exit status 7; it was ended by SIGTERM"#,
        r#""one.toml" "passed""#,
        r#""two.toml" "passed""#,
        r#""three.toml" "passed""#,
        r#""bad.toml" "inconclusive": "could not run the application: with `--no-such-option`: uvicorn==0.54.0 ended before"#,
        r#""four.toml" "passed""#,
        r#""later.toml" "passed""#,
    ];
    assert_eq!(verdicts.len(), expected.len(), "{verdicts:#?}");
    for (verdict, expected) in verdicts.iter().zip(expected) {
        assert!(verdict.starts_with(expected), "{verdict}\n{expected}");
    }
    assert_eq!(code, Some(2), "{told}");
    // The healthy client leaves nothing for later.
    let last = document["cases"].as_array().unwrap().last().unwrap();
    assert_eq!(last["healthy_client"]["outcome"], "http 200", "{told}");
}

/// A target without a server that the harness starts refuses such a case with its line, and nothing is sent.
#[rstest]
#[case::signal("stop.toml", "line 27: `signal = \"SIGTERM\"` cannot be executed here: it needs a server")]
#[case::exit("exit.toml", "line 5: `wait_exit` cannot be executed here: it needs a server")]
#[case::arguments("arguments.toml", "line 2: `server_arguments` cannot be executed here: it needs a server")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_target_without_a_server_of_ours_refuses(
    #[case] file: &str,
    #[case] expected: &str,
    #[values("backend", "memory", "url")] target: &str,
) {
    let stop = stopping("/slow", "true", "");
    let exit =
        "summary = \"x\"\n[[step]]\nrequest = \"GET /\"\n[[step]]\nwait_exit = true\n[expect]\naccept = [\"ok\"]\n";
    let directory = write(&[
        ("stop.toml", &stop),
        ("exit.toml", exit),
        ("arguments.toml", &same_life("server_arguments = ['--backlog', '16']")),
    ]);
    let python = crate::python::python();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let arguments: &[&str] = match target {
        "backend" => &[],
        "memory" => &["--target", "asgi:service:app", "--python", python.to_str().unwrap()],
        _ => &["--target", &url],
    };
    let (code, told) = command(directory.path(), &[&[file], arguments].concat());
    assert_eq!(code, Some(2), "{told}");
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains(expected), "{told}");
}

/// How long a server took to end is told with its end.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_time_to_the_end_is_told() {
    let text = "summary = \"x\"\n[[step]]\nrequest = \"GET /\"\n[[step]]\nsignal = \"SIGTERM\"\n[[step]]\nwait_exit = \
                true\n[expect]\naccept = [\"ok\"]\n";
    let [transcript, _] = perform("uvicorn==0.54.0", text);
    let at = |is_it: &dyn Fn(&EventKind) -> bool| transcript.events.iter().find(|event| is_it(&event.what)).unwrap().at;
    let took =
        at(&|what| matches!(what, EventKind::Exited { .. })) - at(&|what| matches!(what, EventKind::Signaled { .. }));
    assert!(took < Duration::from_secs(5), "{took:?}");
    let why = transcript.events.iter().find_map(|event| match &event.what {
        EventKind::Exited { why } => Some(why.clone()),
        _ => None,
    });
    assert!(
        why.as_ref().is_some_and(|why| why.contains(&format!("{:.1} s after SIGTERM", took.as_secs_f64()))),
        "{why:?}"
    );
}
