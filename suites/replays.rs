//! Every command that is printed to do something again, run by a shell: it shows the same again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use relapse_python::process::Server as PythonServer;
use relapse_simulate::clock::{Clock, Runtime};
use rstest::rstest;
use tempfile::TempDir;

use crate::{
    rulings::{ONE, app, put, relapse},
    served::{installation, interpreter},
    verdicts::SERVER,
};

/// The output of a line that a shell runs in a directory, with the command in its path.
pub(crate) fn in_a_shell(directory: &Path, line: &str) -> (Option<i32>, String) {
    let beside = Path::new(env!("CARGO_BIN_EXE_relapse")).parent().unwrap().display().to_string();
    let path = format!("{beside}:{}", std::env::var("PATH").unwrap());
    let output = Command::new("sh").args(["-c", line]).current_dir(directory).env("PATH", path).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// The commands that are printed to do something again.
fn printed_commands(printed: &str) -> Vec<&str> {
    printed.lines().filter_map(|line| line.trim().strip_prefix("reproduce: ")).collect()
}

/// The app of a directory behind a real server of the test's own, and the directory that the server lives in.
struct OwnServer {
    server: PythonServer,
    runtime: Runtime,
}

impl OwnServer {
    fn start(directory: &Path) -> OwnServer {
        let installation = installation(SERVER.1, directory);
        let runtime = Runtime::new(Clock::Real);
        let (server, _) = runtime.block_on(PythonServer::start(installation)).unwrap();
        OwnServer { server, runtime }
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.runtime.block_on(self.server.stop());
    }
}

/// The functions of an app whose two routes fail, each in its own way.
const FAILS: &str = "
import os
async def ask(scope, receive, send):
    if os.environ.get('GREETING', '') not in ('', 'a b \\'c\\' $d \"e\"'):
        return await answer(send, 200)
    scope['room']

async def other(scope, receive, send):
    await answer(send, 502)

def make():
    return app
";

/// A directory with that app, a version of it in order, and a case for each of its routes.
fn with_cases() -> TempDir {
    let directory = app(FAILS);
    put(&directory.path().join("it's before"), "async def ask(scope, receive, send):\n    await answer(send, 200)\n");
    let cases = directory.path().join("my cases");
    std::fs::create_dir_all(&cases).unwrap();
    for name in ["ask", "other"] {
        let case = format!(
            "summary = \"x\"\n[[step]]\nrequest = \"GET /{name}\"\n[expect]\naccept = [\"ok\"]\n\
             [symptom]\noutcome = \"http 418\"\n"
        );
        std::fs::write(cases.join(format!("{name} it.toml")), case).unwrap();
    }
    directory
}

/// Runs both cases behind so many fronts, named and as a directory, and every command that this prints.
fn check_run(directory: &Path, arguments: &[&str], fronts: usize) {
    // A line that is printed twice does the same twice.
    let mut ran: BTreeMap<String, (Option<i32>, String)> = BTreeMap::new();
    for named in [&["my cases/ask it.toml", "my cases/other it.toml"][..], &["--cases", "my cases"][..]] {
        let (code, printed, said) = relapse(directory, &[&["run"], named, arguments].concat());
        assert_eq!(code, Some(1), "{printed}{said}");
        let lines = printed_commands(&printed);
        let blocks: Vec<&str> = printed.split("\n\n").filter(|block| block.contains("  reproduce: ")).collect();
        assert_eq!((lines.len(), blocks.len()), (2 * fronts, 2 * fronts), "{printed}");
        for (line, block) in lines.iter().zip(blocks) {
            let run = || in_a_shell(directory, line);
            let (code, again) = ran.entry((*line).to_owned()).or_insert_with(run);
            assert_eq!(*code, Some(1), "{line}\n{again}");
            let told = block.lines().find(|line| line.starts_with(char::is_uppercase)).unwrap();
            assert!(again.contains(told), "{line}\nthe run said\n{told}\nand this says\n{again}");
            assert_eq!(again.matches("  reproduce: ").count(), 1, "{line}\n{again}");
            assert!(again.contains(line), "{line}\nsays {again}");
        }
        if named[0] == "--cases" {
            continue;
        }
        let (_, document, said) = relapse(directory, &[&["run", "--format", "json"], named, arguments].concat());
        let document: serde_json::Value =
            serde_json::from_str(&document).unwrap_or_else(|error| panic!("{error}: {document}{said}"));
        let replays: Vec<&str> =
            document["cases"].as_array().unwrap().iter().map(|entry| entry["reproduce"].as_str().unwrap()).collect();
        assert_eq!(replays, lines, "the document and the table print the same commands");
    }
}

/// Every command of a run gives the verdict that it stands below.
#[rstest]
#[case::one_target(1, &ONE)]
#[case::fresh(1, &["--target", "asgi:service:app", "--fresh"])]
#[case::both(1, &["--before", "asgi:service:app @ it's before", "--target", "asgi:service:app"])]
#[case::with_all_sorts(
    2,
    &["--target", "asgi:service:make @ .", "--factory", "--env", "GREETING=a b 'c' $d \"e\"", "--profile", "hypercorn-0.18",
      "--profile", "daphne-*", "--repeat", "2", "--seed", "7", "--lifespan", "off", "--blocked-limit", "90s",
      "--start-limit", "2m", "--memory-limit", "512", "--path", "GET /well?name=a%20b"]
)]
#[case::real(1, &["--target", "asgi:service:app", "--clock", "real"])]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_a_run_prints_reproduces(#[case] fronts: usize, #[case] arguments: &[&str]) {
    check_run(with_cases().path(), arguments, fronts);
}

/// The same of an app behind a real server.
#[rstest]
#[case::one_target(&["--target", "asgi:service:app"])]
#[case::with_all_sorts(
    &["--before", "asgi:service:app @ it's before", "--target", "asgi:service:make @ .", "--factory",
      "--env", "GREETING=a b 'c' $d \"e\"", "--env", "API_TOKEN=hidden", "--repeat", "2", "--seed", "7", "--lifespan", "off",
      "--start-limit", "2m", "--path", "GET /well?name=a%20b"]
)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_a_run_behind_a_server_prints_reproduces(#[case] arguments: &[&str]) {
    let directory = with_cases();
    let installation = installation(SERVER.1, directory.path());
    let served = ["--server", SERVER.1, "--python", installation.site.python.to_str().unwrap()];
    // The other version has no factory of that name.
    let before = directory.path().join("it's before");
    put(&before, "async def ask(scope, receive, send):\n    await answer(send, 200)\n\ndef make():\n    return app\n");
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|argument| match *argument {
            "asgi:service:app @ it's before" => "asgi:service:make @ it's before",
            argument => argument,
        })
        .collect();
    check_run(directory.path(), &[&arguments[..], &served].concat(), 1);
}

/// The same of servers behind URLs.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_a_run_by_url_prints_reproduces() {
    let directory = with_cases();
    let here = directory.path();
    let after = OwnServer::start(here);
    let before = OwnServer::start(&here.join("it's before"));
    let (after, before) = (after.url(), before.url());
    check_run(here, &["--target", &after], 1);
    std::fs::write(here.join("it's spoken.toml"), "[paths]\nhealth = [\"/well\"]\n").unwrap();
    let more = ["--service-file", "it's spoken.toml", "--max-requests", "500", "--rate", "5000", "--repeat", "2"];
    check_run(here, &[&["--before", &before, "--target", &after, "--seed", "7"], &more[..]].concat(), 1);
}

/// The functions of an app in which a hunt finds something on each route.
const HUNTED: &str = "
async def ask(scope, receive, send):
    query(scope)['count']
    await answer(send, 200)

async def chat(scope, receive, send):
    await opened(receive, send)
    event = await receive()
    event['text'].upper()
    await listen(receive)
";

/// The routes of that app, in memory and behind a server.
const ROUTES: [&str; 4] = ["--path", "GET /ask", "--path", "ws:/chat"];

/// The way to speak to that app by URL.
const SPOKEN: &str = "[paths]\nwebsocket = \"/chat\"\nhealth = [\"/well\"]\n[messages]\nwelcome = \"\"\n\
                      request = \"hello\"\nevents = []\n";

/// Hunts, and runs every command that this prints: each shows the finding that it stands below.
fn check_hunt(directory: &Path, arguments: &[&str]) {
    let hunt = [&["hunt"], arguments].concat();
    let (code, printed, said) = relapse(directory, &hunt);
    assert_eq!(code, Some(1), "{printed}{said}");
    let findings: Vec<&str> = printed.split("\n\n").filter(|block| block.contains("reproduce: ")).collect();
    assert!(!findings.is_empty(), "{printed}{said}");
    for finding in findings {
        let line = the_command(finding);
        let (code, again) = in_a_shell(directory, line);
        assert!(code == Some(1) && again.contains("FAILED") && again.contains(&shown(finding)), "{line}\n{again}");
    }
}

/// The only command that is printed.
fn the_command(printed: &str) -> &str {
    let [line] = printed_commands(printed)[..] else { panic!("{printed}") };
    line
}

/// The failure that a finding is about: the exception where the app is seen, or what the client gets.
fn shown(finding: &str) -> String {
    let heading = finding.lines().find(|line| line.contains(": ")).unwrap();
    let exception = heading.split_once("  KeyError: ").map(|(_, rest)| rest.split(')').next().unwrap().to_owned());
    let answer = heading.contains("HTTP 500").then(|| "http 500".to_owned());
    exception.or(answer).unwrap_or_else(|| panic!("{finding}"))
}

/// Every command of a hunt shows its finding once more.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_a_hunt_prints_shows_it_again() {
    let target = ["--target", "asgi:service:app @ .", "--env", "NAME=a b", "--cases", "40"];
    check_hunt(app(HUNTED).path(), &[&target[..], &ROUTES].concat());
}

/// The same of an app behind a real server.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_a_hunt_behind_a_server_prints_shows_it_again() {
    let directory = app(HUNTED);
    let installation = installation(SERVER.1, directory.path());
    let python = installation.site.python.to_str().unwrap();
    let target = ["--target", "asgi:service:app @ .", "--env", "NAME=a 'b'", "--server", SERVER.1, "--python", python];
    check_hunt(directory.path(), &[&target[..], &ROUTES, &["--cases", "10"]].concat());
}

/// The same of servers behind URLs: of one, and of a change from one to another.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_a_hunt_by_url_prints_shows_it_again() {
    let directory = app(HUNTED);
    let here = directory.path();
    // The path that the built-in backend opens sessions at.
    put(&here.join("fixed"), &format!("{HUNTED}\nws = well\n"));
    let broken = OwnServer::start(here);
    let fixed = OwnServer::start(&here.join("fixed"));
    let (broken, fixed) = (broken.url(), fixed.url());
    std::fs::write(here.join("it's spoken.toml"), SPOKEN).unwrap();
    let spoken = [
        "--seed",
        "200",
        "--cases",
        "12",
        "--service-file",
        "it's spoken.toml",
        "--max-requests",
        "900",
        "--reproducers",
        "it's found",
    ];
    check_hunt(here, &[&["--target", &broken], &spoken[..]].concat());
    for (before, after, fate, verdict, code) in [
        (&broken, &fixed, "fixed by the change: ", "FIXED", 0),
        (&broken, &broken, "still broken: ", "STILL BROKEN", 1),
        // The finding is of the new version.
        (&fixed, &broken, "broken by the change: ", "NOT REPRODUCED", 1),
    ] {
        let hunt = ["hunt", "--before", before, "--target", after];
        let (_, printed, said) = relapse(here, &[&hunt[..], &spoken].concat());
        let (_, finding) = printed.split_once(fate).unwrap_or_else(|| panic!("{fate}: {printed}{said}"));
        let finding = finding.split_inclusive("\n\n").nth(1).unwrap_or_else(|| panic!("{printed}"));
        let line = the_command(finding);
        let same = printed_commands(&printed).iter().filter(|other| **other == line).count();
        assert_eq!(same, 1, "each finding has a reproducer of its own: {printed}");
        let (exit, again) = in_a_shell(here, line);
        assert_eq!(exit, Some(code), "{line}\n{again}");
        assert!(again.contains(&format!("\n{verdict} ")) && again.contains(&shown(finding)), "{line}\n{again}");
    }
}

/// A file that `init` writes is checked by the command that it prints, and `conform`, which needs the file, prints the
/// command that writes it.
#[rstest]
#[case::in_memory(&["--env", "NAME=it's here", "--profile", "hypercorn-0.18"])]
#[case::behind_a_server(&["--server", SERVER.1])]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_init_and_conform_print_goes_on(#[case] more: &[&str]) {
    let speaks = "
async def ws(scope, receive, send):
    await opened(receive, send)
    while True:
        event = await receive()
        if event['type'] == 'websocket.disconnect':
            return
        await say(send, '{\"type\": \"answer\"}')
";
    let directory = app(speaks);
    let here = directory.path();
    let installation = installation(SERVER.1, here);
    let python = installation.site.python.to_str().unwrap();
    let target = ["--target", "asgi:service:app @ .", "--path", "ws:/ws", "--python", python];
    let conform = ["conform", "ping-empty"];
    let quoted = |said: &str, before: &str| {
        let (_, rest) = said.split_once(before).unwrap_or_else(|| panic!("{before}: {said}"));
        rest.split('`').next().unwrap().to_owned()
    };
    let (code, printed, said) = relapse(here, &[&conform[..], &target, more].concat());
    assert_eq!(code, Some(2), "{printed}{said}");
    let init = quoted(&said, "what is answered has to be known: `");
    let (code, again) = in_a_shell(here, &format!("{init} --service-file \"it's new.toml\""));
    assert_eq!(code, Some(0), "{init}\n{again}");
    let validate = quoted(&again, "it's new.toml: written; `");
    let (code, again) = in_a_shell(here, &validate);
    assert!(code == Some(0) && again.contains("passes after"), "{validate}\n{again}");
    let known = ["--service-file", "it's new.toml"];
    let (code, printed, said) = relapse(here, &[&conform[..], &target, more, &known].concat());
    assert_eq!(code, Some(0), "{printed}{said}");
}

/// A program that differs between a profile and a server, which need not be the profile's own, is performed again.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_a_comparison_prints_shows_the_same_difference() {
    let server = "uvicorn==0.35.0";
    let python = interpreter(&server.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let python = python.to_str().unwrap();
    let with = ["--server", server, "--python", python];
    let compare = ["profile", "differential", "--profile", "hypercorn-0.18", "--programs", "4"];
    let (code, printed, said) = relapse(directory.path(), &[&compare[..], &with].concat());
    assert_eq!(code, Some(1), "{printed}{said}");
    let differences: Vec<&str> = printed.split_inclusive("\n\n").filter(|block| !block.trim().is_empty()).collect();
    assert!(!differences.is_empty(), "{printed}");
    for difference in differences {
        let line = the_command(difference);
        let (code, again) = in_a_shell(directory.path(), line);
        assert!(code == Some(1) && again.contains(difference.trim()), "{line}\n{again}\nbefore it was\n{difference}");
    }
}
