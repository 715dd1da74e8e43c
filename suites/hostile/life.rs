//! The life of a command: signals, time, files and a copied binary.

#![expect(clippy::disallowed_methods, reason = "the time of a command is measured from outside")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use relapse::discover::Catalogue;
use relapse_backend::runner::KNOWN;
use rstest::rstest;
use tempfile::TempDir;

/// Longer than any passing test here waits for an end.
const LIMIT: Duration = Duration::from_secs(40);

/// An app that raises on one path, sleeps and raises on another, and keeps its loop to itself on a third.
const SERVICE: &str = r#"
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/raises":
        scope["room"]
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
        scope["room"]
    if scope["path"] == "/blocks":
        with open("calls", "a") as calls:
            calls.write("x")
        while True:
            pass
    if scope["path"] == "/blocks-once":
        with open("calls", "a+") as calls:
            calls.write("x")
            count = calls.tell()
        while count == 3:
            pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})
"#;

/// A command in a directory with that app.
struct Life {
    directory: TempDir,
}

impl Life {
    fn new() -> Life {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("service.py"), SERVICE).unwrap();
        Life { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The command with its output in pipes.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = crate::support::signaled_command();
        command.current_dir(self.path()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The command on one path of the app.
    fn on_app(&self, verb: &str, path: &str, more: &[&str]) -> Command {
        let mut command = self.command(&[verb, "--target", "asgi:service:app", "--path", &format!("GET {path}")]);
        command.arg("--python").arg(crate::python::python()).args(more);
        command
    }

    /// The exit code of a hunt on one path of the app, and all that it printed.
    fn hunt(&self, path: &str, more: &[&str]) -> (Option<i32>, String) {
        let output = self.on_app("hunt", path, more).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    }

    /// The files below a directory; every case among them reads as one, and none is left half-written.
    fn reproducers(&self, below: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path().join(below)).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        let mut catalogue = Catalogue::knowing(KNOWN);
        for path in &paths {
            assert!(path.extension().is_some_and(|end| end == "toml"), "{} is left", path.display());
            catalogue.add(path).unwrap();
        }
        assert!(catalogue.broken.is_empty(), "{:?}", catalogue.broken);
        paths
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits for the end of a command.
fn end(child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("it does not end");
        }
        pause(Duration::from_millis(10));
    }
}

/// Lets time pass in which only another process can do something.
fn pause(time: Duration) {
    let (_alive, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(time);
}

/// Waits until SIGTERM does not end a command any more (proc(5), `SigCgt`).
fn until_it_listens(child: &Child) {
    const TERM_BIT: u64 = 1 << 14;
    let began = Instant::now();
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        if u64::from_str_radix(caught, 16).unwrap() & TERM_BIT != 0 {
            return;
        }
        assert!(began.elapsed() < LIMIT, "it does not listen to signals");
        pause(Duration::from_millis(5));
    }
}

/// Reads standard error up to a line with this text; the rest is read on another thread.
fn until_said(child: &mut Child, text: &str) -> std::thread::JoinHandle<String> {
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut all = String::new();
    loop {
        let mut line = String::new();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "{all}");
        all.push_str(&line);
        if line.contains(text) {
            break;
        }
    }
    std::thread::spawn(move || {
        said.read_to_string(&mut all).unwrap();
        all
    })
}

/// A hunt writes a finding when it finds it. Whatever ends it, it tells what it found, and exits as the signal has it.
#[rstest]
#[case::hangup("HUP", 129)]
#[case::interrupt("INT", 130)]
#[case::terminate("TERM", 143)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn findings_survive_a_signal(#[case] name: &str, #[case] code: i32, #[values("human", "json")] format: &str) {
    let life = Life::new();
    let mut child = life.on_app("hunt", "/raises", &["--cases", "1000000", "--format", format]).spawn().unwrap();
    let said = until_said(&mut child, "note: found with seed ");
    assert_eq!(life.reproducers("reproducers").len(), 1, "it is written at once");
    signal(&child, name);
    let status = end(&mut child);
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    let said = said.join().unwrap();
    assert_eq!(status.code(), Some(code), "{printed}{said}");
    assert!(printed.contains("no_server_error: 500"), "{printed}{said}");
    assert!(printed.contains("relapse run reproducers/"), "{printed}{said}");
    assert_eq!(life.reproducers("reproducers").len(), 1, "{printed}{said}");
    if format == "json" {
        serde_json::from_str::<serde_json::Value>(&printed).unwrap();
    }
}

/// A run, a validation and a conformance test that are broken off tell what they have.
#[rstest]
#[case::run(&["run", "508", "--profile", "all", "--format", "json"], "not judged: it was asked to end")]
#[case::conform(&["conform", "5.*", "--profile", "all", "--format", "json"], "it was asked to end after ")]
fn work_on_the_built_in_backend_ends_in_order(#[case] arguments: &[&str], #[case] expected: &str) {
    let life = Life::new();
    let mut child = life.command(arguments).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let printed = std::thread::spawn(move || {
        let mut printed = String::new();
        stdout.read_to_string(&mut printed).unwrap();
        printed
    });
    until_it_listens(&child);
    signal(&child, "TERM");
    let said = until_said(&mut child, "note: stopping, with a report on the ");
    assert_eq!(end(&mut child).code(), Some(143));
    let printed = printed.join().unwrap();
    assert!(printed.contains(expected), "{printed}{}", said.join().unwrap());
    serde_json::from_str::<serde_json::Value>(&printed).unwrap();
}

/// A validation of a server that never answers ends on a signal, and reports the rows so far.
#[test]
fn a_validation_of_a_silent_server_ends_in_order() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let life = Life::new();
    let mut child = life.command(&["validate", "--target", &url]).spawn().unwrap();
    let _first = listener.accept().unwrap();
    signal(&child, "INT");
    assert_eq!(end(&mut child).code(), Some(130));
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert!(printed.contains("the rest") && printed.contains("it was asked to end"), "{printed}");
}

/// All of a command has a time, by default and as `--time` says.
#[test]
fn a_validation_has_a_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let life = Life::new();
    let mut child = life.command(&["validate", "--target", &url, "--time", "300ms"]).spawn().unwrap();
    assert_eq!(end(&mut child).code(), Some(1));
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert!(printed.contains("the rest") && printed.contains("the time was over"), "{printed}");
}

/// An app that is stuck delays the end after a signal for a few seconds only, and a second signal ends it at once.
#[rstest]
#[case::alone(&["INT"])]
#[case::twice(&["INT", "TERM"])]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_stuck_app_does_not_delay_the_end(#[case] signals: &[&str]) {
    let life = Life::new();
    let mut child = life.on_app("hunt", "/blocks", &["--cases", "3"]).spawn().unwrap();
    let listening = until_said(&mut child, "note: no relapse.toml found");
    pause(Duration::from_millis(1500));
    let began = Instant::now();
    for name in signals {
        signal(&child, name);
        pause(Duration::from_millis(300));
    }
    assert_eq!(end(&mut child).code(), Some(130), "{}", listening.join().unwrap());
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

/// `--time` bounds a hunt with everything that belongs to it.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_time_of_a_hunt_bounds_all_of_it() {
    let life = Life::new();
    let began = Instant::now();
    let more = ["--time", "8s", "--clock", "real", "--write-pytest", "tests"];
    let (code, printed) = life.hunt("/slow", &more);
    let took = began.elapsed();
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("no_server_error: 500"), "{printed}");
    assert!(took < Duration::from_secs(16), "{took:?}: {printed}");
    assert!(!life.reproducers("reproducers").is_empty(), "{printed}");
}

/// An app that takes long to start, from the first time on or from the second: `--time` bounds that too.
#[rstest]
#[case::at_once("True", 2, "the time was over before slow:app was imported; --time gives it more")]
#[case::again("os.path.exists('started')", 1, "no_server_error: 500")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_time_of_a_hunt_bounds_the_start_of_an_app(#[case] is_slow: &str, #[case] code: i32, #[case] told: &str) {
    let life = Life::new();
    let app = format!(
        "import os, time\nif {is_slow}:\n    time.sleep(100)\nopen('started', 'w').close()\nfrom service import app\n"
    );
    fs::write(life.path().join("slow.py"), app).unwrap();
    let began = Instant::now();
    let mut hunt = life.command(&["hunt", "--target", "asgi:slow:app", "--path", "GET /raises", "--time", "3s"]);
    let output = hunt.arg("--python").arg(crate::python::python()).output().unwrap();
    let (took, printed) = (began.elapsed(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap());
    assert_eq!(output.status.code(), Some(code), "{printed}");
    assert!(printed.contains(told), "{printed}");
    assert!(took < Duration::from_secs(9), "{took:?}: {printed}");
}

/// The run that shows that an app is stuck is kept: each further one would take as long.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_stuck_app_is_run_a_few_times_only() {
    let life = Life::new();
    let (code, printed) = life.hunt("/blocks", &["--cases", "3", "--blocked-limit", "1s"]);
    assert_eq!(code, Some(1), "{printed}");
    // One for the healthy client, four in three cases, and two that confirm the first.
    let calls = fs::read_to_string(life.path().join("calls")).unwrap().len();
    assert!((5..=7).contains(&calls), "{calls}: {printed}");
    assert_eq!(life.reproducers("reproducers").len(), 1, "{printed}");
}

/// An app that was stuck once, and was not when it was tried again, is reported as that; no case shows it.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_app_that_was_stuck_once_is_reported_so() {
    let life = Life::new();
    let (code, printed) = life.hunt("/blocks-once", &["--cases", "3", "--blocked-limit", "1s"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("(seen once, and not when it was tried again in a process of its own)"), "{printed}");
    assert!(printed.contains("not shown again by a case of its own: 1"), "{printed}");
    assert!(life.reproducers("reproducers").is_empty(), "{printed}");
}

/// A finding that is known has one file, which its user may change.
#[test]
fn a_known_finding_is_not_kept_twice() {
    let life = Life::new();
    let hunt = |seed: &str| {
        let arguments = ["hunt", "--defect", "managers_leak", "--cases", "20", "--reproducers", "kept", "--seed", seed];
        let output = life.command(&arguments).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        (printed, life.reproducers("kept"))
    };
    let (_, first) = hunt("1");
    assert!(!first.is_empty());
    let edited = format!("# Looked at by hand.\n{}", fs::read_to_string(&first[0]).unwrap());
    fs::write(&first[0], &edited).unwrap();
    for seed in ["1", "500"] {
        let (printed, again) = hunt(seed);
        assert_eq!(again, first, "{printed}");
        assert_eq!(fs::read_to_string(&first[0]).unwrap(), edited, "{printed}");
    }
}

/// A file of another finding with the same name, and one that is no case, stay as they are.
#[test]
fn files_that_a_user_changed_are_kept() {
    let life = Life::new();
    let hunt = ["hunt", "--defect", "managers_leak", "--cases", "20", "--reproducers", "kept"];
    life.command(&hunt).output().unwrap();
    let names = life.reproducers("kept");
    assert!(!names.is_empty());
    for path in &names {
        fs::write(path, "# mine\n").unwrap();
    }
    life.command(&hunt).output().unwrap();
    for path in &names {
        assert_eq!(fs::read_to_string(path).unwrap(), "# mine\n");
    }
    assert_eq!(fs::read_dir(life.path().join("kept")).unwrap().count(), 2 * names.len());
}

/// Where standard output is full nothing can be told there; what was found is kept all the same.
#[test]
fn a_full_output_is_told_and_loses_no_finding() {
    let life = Life::new();
    let hunt = ["hunt", "--defect", "managers_leak", "--cases", "20", "--reproducers", "kept"];
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = life.command(&hunt).stdout(full).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("could not write to standard output") && said.contains("found with seed "), "{said}");
    assert!(!life.reproducers("kept").is_empty());
}

/// A binary that is copied has everything that it needs with it.
#[rstest]
#[case::run(&["run", "S449-2"], "FIXED")]
#[case::list(&["list", "508"], "#508")]
#[case::replay(&["replay"], "63 FIXED")]
#[case::one(&["run", "embedded:shared_thread"], "1 FIXED")]
fn a_copied_binary_works_anywhere(#[case] arguments: &[&str], #[case] expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let copied = directory.path().join("relapse");
    // Another process writes it: a file that this process has open for writing, and any fork of it with it, cannot be run.
    let copy = Command::new("cp").arg(env!("CARGO_BIN_EXE_relapse")).arg(&copied).status().unwrap();
    assert!(copy.success());
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let output = Command::new(copied).env_clear().current_dir(empty).args(arguments).output().unwrap();
    let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(printed.contains(expected), "{printed}");
}

/// A directory of cases that stands where the command does is taken only by its name.
#[test]
fn cases_are_taken_from_a_directory_that_is_named() {
    let life = Life::new();
    let own = life.path().join("fixtures/cases/own");
    fs::create_dir_all(&own).unwrap();
    let text = "summary = \"x\"\n[[step]]\nrequest = \"GET /health\"\n[expect]\naccept = [\"ok\"]\n";
    fs::write(own.join("mine.toml"), text).unwrap();
    let here = life.command(&["run", "own/mine"]).output().unwrap();
    assert_eq!(here.status.code(), Some(2));
    assert!(String::from_utf8(here.stderr).unwrap().contains("own/mine"));
    let named = life.command(&["run", "own/mine", "--cases", "fixtures/cases"]).output().unwrap();
    assert_eq!(named.status.code(), Some(0));
    assert!(String::from_utf8(named.stdout).unwrap().contains("own/mine"));
}

/// Whenever a signal comes, the exit code is right, and no file is left half-written.
#[rstest]
#[case::run(&["run", "--profile", "all"], 1)]
#[case::hunt(&["hunt", "--defect", "managers_leak", "--cases", "100000", "--reproducers", "kept"], 2)]
#[case::serve(&["serve"], 3)]
#[case::proxy(&["proxy", "--upstream", "http://127.0.0.1:1"], 4)]
#[case::validate(&["validate", "--target", "URL"], 5)]
fn a_signal_may_come_at_any_time(#[case] arguments: &[&str], #[case] seed: u64) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let arguments: Vec<&str> = arguments.iter().map(|part| if *part == "URL" { &url } else { *part }).collect();
    let mut chance = fastrand::Rng::with_seed(seed);
    for _ in 0..super::signals(4) {
        let life = Life::new();
        let (name, number) = chance.choice([("HUP", 1), ("INT", 2), ("TERM", 15)]).unwrap();
        let delay = Duration::from_millis(chance.u64(0..800));
        let mut command = life.command(&arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        pause(delay);
        signal(&child, name);
        let status = end(&mut child);
        // Before it listens, the signal ends it as any process.
        let ended = std::os::unix::process::ExitStatusExt::signal(&status) == Some(number);
        let stands = matches!(arguments[0], "serve" | "proxy") && status.code() == Some(0);
        assert!(ended || stands || status.code() == Some(128 + number), "{name} after {delay:?}: {status}");
        life.reproducers("kept");
    }
}
