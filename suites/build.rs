//! Looks for Python, so that tests that need it are ignored where it is missing, and not passed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(has_python)");
    println!("cargo::rerun-if-changed=suites/build.rs");
    match on_path("python3") {
        // A file is watched, and not the variable, because an editor and a shell that differ in PATH share one build.
        Some(python) if makes_environments(&python) => {
            println!("cargo::rerun-if-changed={}", python.display());
            println!("cargo::rustc-cfg=has_python");
            if let Some(real) = real_interpreter(&python) {
                println!("cargo::rustc-env=RELAPSE_TEST_PYTHON={}", real.display());
            }
        }
        _ => println!("cargo::rerun-if-env-changed=PATH"),
    }
}

/// The first file with this name in a directory of PATH.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// The interpreter itself: the one on PATH may be a script of a version manager, which takes longer than Python to start.
fn real_interpreter(python: &Path) -> Option<PathBuf> {
    let asked = Command::new(python).args(["-c", "import sys; print(sys.executable)"]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(asked.stdout).ok()?.trim());
    (path.is_file() && path.file_name()? == "python3").then_some(path)
}

/// Whether an interpreter can make virtual environments, which the tests install servers in.
fn makes_environments(python: &Path) -> bool {
    let mut asked = Command::new(python);
    asked.args(["-c", "import ensurepip, venv"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    asked.status().is_ok_and(|status| status.success())
}
