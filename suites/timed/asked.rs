//! Commands on hostile apps, files and signals.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::tempdir;

use super::{
    peer::{Talk, Talker, pause},
    watched::{Ended, Watched},
};

/// How long a command may take that is to end by itself.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// The apps.
const APPS: &str = include_str!("apps.py");

/// The arguments of every command on an app that blocks and grows.
const ON_APP: [&str; 6] = ["--blocked-limit", "500ms", "--memory-limit", "600", "--start-limit", "6s"];

/// Asks a hostile server, with TLS where the scheme says so.
pub(super) fn server(command: &[&str], scheme: &str, talk: Talk) -> Ended {
    let (server, here) = (Talker::start(talk), tempdir().unwrap());
    let url = server.url(scheme);
    let ended = Watched::start(&[command, &["--target", &url]].concat(), here.path()).end_within(LIMIT);
    assert!(server.accepted() > 0, "the server was not asked: {ended:?}");
    assert!(!ended.stdout.contains('\u{1b}'), "what a server says is obeyed by a terminal: {ended:?}");
    assert!(matches!(ended.code(), Some(0..=2)), "{ended:?}");
    ended
}

/// A directory with the apps.
fn with_apps(directory: &Path) -> String {
    fs::write(directory.join("apps.py"), APPS).unwrap();
    fs::write(directory.join("loads.py"), "import apps\napps.at_import()\nfrom apps import app\n").unwrap();
    crate::tools::python().display().to_string()
}

/// Performs a case on each path of the app; every one of them gets a verdict.
pub(super) fn paths(names: &[&str]) -> Ended {
    let here = tempdir().unwrap();
    let python = with_apps(here.path());
    let files: Vec<String> = names.iter().map(|name| format!("{name}.toml")).collect();
    for (name, file) in names.iter().zip(&files) {
        let case = format!(
            "summary = \"It answers.\"\n[[step]]\nrequest = \"GET /{name}\"\nwithin_ms = 2000\n[expect]\naccept = \
             [\"http 200\"]\n"
        );
        fs::write(here.path().join(file), case).unwrap();
    }
    let mut arguments = vec!["run"];
    arguments.extend(files.iter().map(String::as_str));
    arguments.extend(["--target", "asgi:apps:app", "--python", &python, "--path", "GET /ok", "--format", "json"]);
    arguments.extend(["--time", "50s"]);
    let ended = Watched::start(&[&arguments[..], &ON_APP].concat(), here.path()).end_within(LIMIT);
    let document: serde_json::Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let cases = document["cases"].as_array().unwrap().iter();
    let judged = cases.filter(|case| !case["why"].as_str().is_some_and(|why| why.starts_with("not judged"))).count();
    assert_eq!(judged, names.len(), "{ended:?}");
    ended
}

/// A command on an app of its own; it ends with one of these codes.
pub(super) fn app(command: &[&str], app: &str, codes: &[i32]) -> Ended {
    let here = tempdir().unwrap();
    let python = with_apps(here.path());
    fs::write(here.path().join("relapse.toml"), "[paths]\nwebsocket = \"/ws\"\nhealth = [\"/health\"]\n").unwrap();
    let (module, name) = app.split_once(' ').map_or(("apps", app), |(how, name)| {
        fs::write(here.path().join("loads.txt"), how).unwrap();
        ("loads", name)
    });
    let target = format!("asgi:{module}:{name}");
    // A server is installed for an interpreter that is not named.
    let named = ["--python", &python];
    let named = if command.contains(&"--server") { &[][..] } else { &named };
    let arguments = [command, &["--target", &target], named, &ON_APP].concat();
    let ended = Watched::start(&arguments, here.path()).end_within(LIMIT);
    assert!(ended.code().is_some_and(|code| codes.contains(&code)), "{codes:?}: {ended:?}");
    ended
}

/// A token command that does this.
pub(super) fn token(command: &str) -> Ended {
    let here = tempdir().unwrap();
    let service = format!("[credential]\ncommand = \"{command}\"\nplace = \"header\"\n");
    fs::write(here.path().join("relapse.toml"), service).unwrap();
    let ended = Watched::start(&["validate", "--target", "http://127.0.0.1:1"], here.path()).end_within(LIMIT);
    assert!(matches!(ended.code(), Some(1 | 2)), "{ended:?}");
    ended
}

/// A file that no command should be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A pipe.
    Pipe,
    /// A link to a device that never ends.
    Device,
    /// A file of 300 MB that takes no room.
    Long,
    /// Bytes that are no text.
    NoText,
    /// A directory.
    Directory,
    /// A link to nothing.
    LinkToNothing,
    /// A link to itself.
    LinkRound,
    /// Nothing.
    Empty,
    /// Zeros.
    Zeros,
    /// Half a million opening brackets, as the value of a key and as they are.
    Deep,
    DeepJson,
    /// A hundred thousand keys.
    Keys,
    /// 60 MB of numbers, as JSON.
    Numbers,
    /// Control characters.
    Controls,
}

impl Content {
    /// The words of the command about it, where that is always the same.
    fn refusal(self) -> &'static str {
        match self {
            Content::Pipe => "it is a pipe, and a regular file is needed",
            Content::Device => "it is a device, and a regular file is needed",
            Content::Long => " MiB, and no such file is that long",
            Content::NoText => "the byte 0xff is not UTF-8 here",
            _ => "",
        }
    }

    fn make(self, file: &Path) {
        let link = |to: &str| std::os::unix::fs::symlink(to, file).unwrap();
        let write = |text: &str| fs::write(file, text).unwrap();
        match self {
            Content::Pipe => assert!(Command::new("mkfifo").arg(file).status().unwrap().success()),
            Content::Device => link("/dev/zero"),
            Content::Long => fs::File::create(file).unwrap().set_len(300_000_000).unwrap(),
            Content::NoText => fs::write(file, b"[\n\xff]").unwrap(),
            Content::Directory => fs::create_dir(file).unwrap(),
            Content::LinkToNothing => link("nothing"),
            Content::LinkRound => link(&file.file_name().unwrap().to_string_lossy()),
            Content::Empty => write(""),
            Content::Zeros => write(&"\0".repeat(100_000)),
            Content::Deep => write(&format!("key = {}", "[".repeat(500_000))),
            Content::DeepJson => write(&"[".repeat(500_000)),
            Content::Keys => write(&(0..100_000).map(|key| format!("key{key} = 1\n")).collect::<String>()),
            Content::Numbers => write(&format!("[{}1]", "1,".repeat(30_000_000))),
            Content::Controls => write("\u{1b}]0;owned\u{7}\u{1b}[2J = \u{202e}\n"),
        }
    }
}

/// Gives a command a file behind its last option; it refuses it.
pub(super) fn file(command: &[&str], name: &str, content: Content) -> Ended {
    let here = tempdir().unwrap();
    content.make(&here.path().join(name));
    let ended = Watched::start(&[command, &[name]].concat(), here.path()).end_within(LIMIT);
    // A service file may be empty; then nothing answers.
    assert!(matches!(ended.code(), Some(1 | 2)), "{ended:?}");
    let why = content.refusal();
    assert!(why.is_empty() || ended.code() == Some(2), "{ended:?}");
    assert!(ended.stderr.contains(why), "{why}: {ended:?}");
    assert!(!ended.stderr.contains('\u{1b}') && !ended.stdout.contains('\u{1b}'), "it is obeyed: {ended:?}");
    ended
}

/// The signals that a command gets, one after the other.
pub(super) type Signals = &'static [Signal];

/// Signals a command that works or stands, some time after it listens to them.
pub(super) fn signals(command: &[&str], signals: Signals) -> Ended {
    let (server, here) = (Talker::start(Talk::Silent), tempdir().unwrap());
    let url = server.url("http");
    let arguments: Vec<&str> = command.iter().map(|part| if *part == "URL" { &url } else { *part }).collect();
    let mut watched = Watched::start_signaled(&arguments, here.path());
    watched.look_until(LIMIT, |watched| listens(watched.id()));
    for signal in signals {
        watched.look_until(Duration::from_millis(60), |_| false);
        // It may have ended by then.
        let _ = kill_process(watched.id(), *signal);
        if *signal == Signal::STOP {
            pause(Duration::from_millis(100));
        }
    }
    let ended = watched.end_within(LIMIT);
    let number = signals.iter().find(|signal| ![Signal::STOP, Signal::CONT].contains(signal)).unwrap().as_raw();
    let stands = matches!(command[0], "serve" | "proxy");
    let expected = if stands { 0 } else { 128 + number };
    assert_eq!(ended.code(), Some(expected), "{ended:?}");
    let left: Vec<_> = fs::read_dir(here.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{left:?}");
    ended
}

/// Whether SIGTERM does not end a command any more (proc(5), `SigCgt`).
fn listens(process: Pid) -> bool {
    const TERM_BIT: u64 = 1 << 14;
    let status = fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
    u64::from_str_radix(caught, 16).unwrap() & TERM_BIT != 0
}
