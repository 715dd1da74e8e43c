//! Virtual environments of the harness's own: made once, whole or not there, and clear about what is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use relapse_python::process::{Installer, Requirements};
use rstest::rstest;

/// An interpreter that is a shell script: it tells a version, makes "environments" with itself in them, and takes
/// `pip install` for what `pip` says.
fn interpreter(directory: &Path, venv: &str, pip: &str) -> PathBuf {
    let path = directory.join("python");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n-c*) printf '3.99.0\\nScript\\nnone\\n{}\\n' ;;\n'-m venv '*) {venv} ;;\n'-m pip '*) {pip} ;;\nesac\n",
        directory.display()
    );
    write_script(&path, &script);
    path
}

fn write_script(path: &Path, script: &str) {
    // Another process writes it: a file that this process has open for writing, and any fork of it with it, cannot be
    // run.
    let write = r#"printf '%s' "$1" > "$2" && chmod +x "$2""#;
    let written = Command::new("sh").args(["-c", write, "sh", script]).arg(path).status().unwrap();
    assert!(written.success());
}

/// Makes an environment that is a copy of the script.
const VENV: &str = "mkdir -p \"$3/bin\" && cp \"$0\" \"$3/bin/python\"";

fn no_word(_: &str) {}

#[test]
fn an_environment_is_made_once_for_everybody() {
    let directory = tempfile::tempdir().unwrap();
    let python = interpreter(directory.path(), VENV, "echo installed >> \"$(dirname \"$0\")/pip\"");
    let requirements = Requirements::of("some==1.0 other", directory.path()).unwrap();
    let cache = directory.path().join("cache");
    let places: Vec<PathBuf> = std::thread::scope(|scope| {
        let install = || requirements.install_in(&cache, &python, &Installer::Pip, &no_word).unwrap();
        let installs: Vec<_> = (0..4).map(|_| scope.spawn(install)).collect();
        installs.into_iter().map(|install| install.join().unwrap()).collect()
    });
    assert!(places.iter().all(|place| *place == places[0] && place.is_file()), "{places:?}");
    let beside = places[0].parent().unwrap();
    assert_eq!(fs::read_to_string(beside.join("pip")).unwrap(), "installed\n");
    assert_eq!(fs::read_to_string(beside.join("../requirements.txt")).unwrap(), "some==1.0\nother\n");
    // Another set is another environment.
    let other = Requirements::of("some==1.1", directory.path()).unwrap();
    assert_ne!(other.install_in(&cache, &python, &Installer::Pip, &no_word).unwrap(), places[0]);
}

/// A `uv` that is a shell script: it keeps its arguments in a file beside it.
fn uv(directory: &Path, venv: &str, pip: &str) -> Installer {
    let script = format!(
        "#!/bin/sh\necho \"$*\" >> {}/said\ncase \"$1\" in\nvenv) {venv} ;;\npip) {pip} ;;\nesac\n",
        directory.display()
    );
    write_script(&directory.join("uv"), &script);
    let path = std::env::join_paths([Path::new("/nowhere"), directory]).unwrap();
    Installer::on(Some(&path))
}

/// Makes an environment as `uv venv` does: the place is the last argument, and the interpreter the one before it.
const UV_VENV: &str = "mkdir -p \"$6/bin\" && cp \"$5\" \"$6/bin/python\"";

/// Where `uv` is on PATH, it makes the environment and installs into it, and pip does nothing.
#[test]
fn uv_installs_where_it_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let python = interpreter(directory.path(), "exit 1", "exit 1");
    let installer = uv(directory.path(), UV_VENV, "");
    assert_eq!(installer, Installer::Uv(directory.path().join("uv")));
    let requirements = Requirements::of("some==1.0", directory.path()).unwrap();
    let cache = directory.path().join("cache");
    let made = requirements.install_in(&cache, &python, &installer, &no_word).unwrap();
    let place = made.parent().unwrap().parent().unwrap().read_link().unwrap();
    let (python, place) = (python.display(), place.display());
    let said = fs::read_to_string(directory.path().join("said")).unwrap();
    assert_eq!(
        said,
        format!(
            "venv --quiet --no-project --python {python} {place}\n\
             pip install --quiet --compile-bytecode --python {place}/bin/python -r {place}/requirements.txt\n"
        )
    );
}

/// A `uv` that cannot make or fill an environment leaves it to pip, and says so.
#[rstest]
#[case::no_venv("echo 'no such option'; exit 2", "", "uv makes no virtual environment; trying pip\nno such option")]
#[case::no_package(UV_VENV, "echo 'not found'; exit 1", "uv cannot install some==1.0; trying pip\nnot found")]
fn pip_installs_where_uv_cannot(#[case] venv: &str, #[case] pip: &str, #[case] expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let python = interpreter(directory.path(), VENV, "echo installed >> \"$(dirname \"$0\")/pip\"");
    let installer = uv(directory.path(), venv, pip);
    let requirements = Requirements::of("some==1.0", directory.path()).unwrap();
    let told = std::cell::RefCell::new(String::new());
    let tell = |word: &str| told.borrow_mut().push_str(word);
    let made = requirements.install_in(&directory.path().join("cache"), &python, &installer, &tell).unwrap();
    assert_eq!(fs::read_to_string(made.with_file_name("pip")).unwrap(), "installed\n");
    assert!(told.borrow().contains(expected), "{}", told.borrow());
}

#[test]
fn pip_installs_where_no_uv_is_on_path() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(Installer::on(Some(directory.path().as_os_str())), Installer::Pip);
    assert_eq!(Installer::on(None), Installer::Pip);
}

/// An attempt that comes to nothing leaves nothing, and says why.
#[rstest]
#[case::no_ensurepip("echo 'ensurepip is not available'; exit 1", "", "apt-get install python3-venv")]
#[case::no_venv("echo 'No module named venv'; exit 1", "", "apt-get install python3-venv")]
#[case::venv_fails("echo 'disk full'; exit 1", "", "-m venv` failed")]
#[case::no_such_version(
    VENV,
    "echo 'ERROR: No matching distribution found for some==1.0'; exit 1",
    "No matching distribution"
)]
#[case::offline(VENV, "echo 'Failed to establish a new connection'; exit 1", "the package index cannot be reached")]
fn what_cannot_be_made_is_told_and_not_there(#[case] venv: &str, #[case] pip: &str, #[case] expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let python = interpreter(directory.path(), venv, pip);
    let requirements = Requirements::of("some==1.0", directory.path()).unwrap();
    let trouble = requirements.install_in(directory.path(), &python, &Installer::Pip, &no_word).unwrap_err();
    let told = format!("{}\n{}", trouble.message, trouble.details);
    assert!(told.contains(expected), "{told}");
    let left = fs::read_dir(directory.path().join("venvs")).unwrap().map(|entry| entry.unwrap().path());
    assert!(left.into_iter().all(|path| path.extension().is_some_and(|kind| kind == "lock")));
    // And the next attempt is as good as the first.
    interpreter(directory.path(), VENV, "");
    assert!(requirements.install_in(directory.path(), &python, &Installer::Pip, &no_word).unwrap().is_file());
}

/// Leftovers of a killed run are in no later run's way.
#[test]
fn half_an_environment_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let python = interpreter(directory.path(), VENV, "");
    let requirements = Requirements::of("some==1.0", directory.path()).unwrap();
    let whole = requirements.install_in(directory.path(), &python, &Installer::Pip, &no_word).unwrap();
    let link = whole.parent().unwrap().parent().unwrap().to_owned();
    fs::remove_file(&link).unwrap();
    // No process has this number: it is above the largest `pid_max` of Linux, 2^22 (proc(5)).
    let left = link.with_extension("4194305");
    fs::create_dir(&left).unwrap();
    assert!(requirements.install_in(directory.path(), &python, &Installer::Pip, &no_word).unwrap().is_file());
    assert!(!left.exists());
}

#[rstest]
#[case::an_option("--index-url", "`--index-url` is no package")]
#[case::nothing(" ", "no package is named")]
#[case::no_file("./requirements.txt", "could not read ")]
#[case::a_directory_without("empty", "empty/requirements.txt")]
#[case::a_file_that_names_none("names.txt", "none.txt")]
fn what_is_no_requirement_is_told(#[case] text: &str, #[case] expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("empty")).unwrap();
    fs::write(directory.path().join("names.txt"), "-r none.txt\n").unwrap();
    let trouble = Requirements::of(text, directory.path()).unwrap_err();
    assert!(trouble.message.contains(expected), "{}", trouble.message);
}

/// Known sets are pinned; a file is another set as soon as a file that it names is.
#[test]
fn sets_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let of = |text: &str| Requirements::of(text, directory.path()).unwrap();
    assert_eq!(of("uvicorn"), of("uvicorn==0.54.0"));
    assert_ne!(of("uvicorn==0.35.0"), of("uvicorn==0.54.0"));
    assert_ne!(of("uvicorn==0.35.0"), of("uvicorn==0.35.0 websockets"));
    fs::write(directory.path().join("requirements.txt"), "-r more.txt\n").unwrap();
    fs::write(directory.path().join("more.txt"), "one\n").unwrap();
    let one = of(".");
    assert_eq!(one, of("./requirements.txt"));
    fs::write(directory.path().join("more.txt"), "two\n").unwrap();
    assert_ne!(of("."), one);
}
