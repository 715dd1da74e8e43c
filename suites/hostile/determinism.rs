//! The same seed gives the same document, also where an app tells numbers that are others in each run.

use std::path::Path;
use std::process::Command;

use rstest::rstest;
use tempfile::TempDir;

/// The JSON document of a hunt on the app that tells such numbers, or what the command says.
fn hunted(app: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let reproducers = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_relapse"));
    command.args(["hunt", "--target", app, "--python"]).arg(crate::python::python());
    command.args(["--cases", "70"]).args(arguments);
    if !arguments.contains(&"--check-determinism") {
        command.arg("--reproducers").arg(reproducers.path());
    }
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    // The directory of the reproducers is another each time.
    (output.status.code(), said.replace(&reproducers.path().display().to_string(), "REPRODUCERS"))
}

fn chance() -> String {
    format!("asgi:chance:app @ {}", Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/apps").display())
}

/// Addresses, sets, threads, clocks, chance and blocked loops: on one worker and on two, and once more.
#[rstest]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_same_seeds_give_the_same_document(
    #[values("/address", "/set", "/thread", "/time", "/random", "/identity", "/block")] path: &str,
) {
    if path == "/address" && !has_fixed_layout() {
        return;
    }
    let route = format!("GET {path}");
    let documents = ["1", "2"].map(|jobs| hunted(&chance(), &["--format", "json", "--path", &route, "--jobs", jobs]));
    let [one, two] = &documents;
    assert_eq!(one.0, Some(1), "{}", one.1);
    assert!(one.1.contains("RuntimeError"), "{}", one.1);
    assert_eq!(one, two);
    assert_eq!(*one, hunted(&chance(), &["--format", "json", "--path", &route, "--jobs", "1"]));
}

/// Whether the system lets a process have a fixed layout of addresses; seccomp in a container may not.
fn has_fixed_layout() -> bool {
    Command::new("setarch").args(["-R", "true"]).status().is_ok_and(|status| status.success())
}

/// The check of an app that keeps to what is virtual finds nothing; that of an app that asks the system by another way does.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_app_that_differs_is_told() {
    let (code, told) = hunted(&chance(), &["--check-determinism", "--path", "GET /time", "--path", "GET /identity"]);
    assert_eq!((code, told.contains("70 case(s), each run twice, and no difference")), (Some(0), true), "{told}");
    let directory = TempDir::new().unwrap();
    let app = "async def app(scope, receive, send):\n    assert scope['type'] == 'http'\n    body = \
               open('/proc/sys/kernel/random/uuid', 'rb').read()\n    await send({'type': 'http.response.start', \
               'status': 200, 'headers': []})\n    await send({'type': 'http.response.body', 'body': body})\n";
    std::fs::write(directory.path().join("other.py"), app).unwrap();
    let other = format!("asgi:other:app @ {}", directory.path().display());
    let (code, told) = hunted(&other, &["--check-determinism", "--path", "GET /x"]);
    assert_eq!(code, Some(1), "{told}");
    for part in ["not deterministic: case ", "of connection 1", "first    ", "second   ", "reproduce: relapse hunt"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// A server behind a URL cannot be repeated, and is not checked.
#[test]
fn a_server_is_not_checked() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relapse"));
    let output = command.args(["hunt", "--check-determinism", "--target", "http://127.0.0.1:1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("needs the virtual clock"));
}

/// The cases of the built-in backend, and its hunts.
#[rstest]
#[case(&["run", "508", "--check-determinism"])]
#[case(&["hunt", "--cases", "200", "--check-determinism"])]
fn the_built_in_backend_is_deterministic(#[case] arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_relapse")).args(arguments).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("and no difference"), "{told}");
}
