//! Virtual environments of the harness's own: installed once for each set of requirements, and whole or not there.

use std::error::Error as _;
use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sha2::{Digest, Sha256};

use super::{
    confinement::Confinement,
    group::{Group, Printed},
    installer::{Installer, interpreter},
    interpreter::not_started,
};
use relapse::{
    discover::requirements,
    files::{FileLimit, read_text},
};
use relapse_core::error::{AppError, Blame, Error};

/// How long an installation may take, and how long one is waited for that another process makes.
const INSTALL_LIMIT: Duration = Duration::from_secs(600);

/// How long a process waits for another one that makes the environment: uv may fail, and pip try after it, in two commands
/// each.
const WAIT_LIMIT: Duration = INSTALL_LIMIT.saturating_mul(4);
/// How long an interpreter may take to say what it is.
const ASK_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked whether another process is done.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How deep requirement files may name one another.
const DEPTH_MAX: usize = 8;

/// The packages of an environment, in pip's format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirements {
    /// The name shown to the user.
    name: String,
    /// The lines of a requirements file; together with the interpreter they name the environment.
    text: String,
    /// The file to give to pip, where the lines name files that lie beside it.
    file: Option<PathBuf>,
}

impl Requirements {
    /// Reads requirements: a requirements file, a directory that has a `requirements.txt`, the name of a known set, or
    /// packages as pip knows them, with spaces between, as in `starlette==0.47.3`. Of what is known with every package pinned, as `uvicorn==0.35.0` is,
    /// the pins are taken; the rest of anything else is found by pip.
    ///
    /// # Errors
    /// Says what is no requirement, or which file cannot be read.
    pub fn of(text: &str, directory: &Path) -> Result<Requirements, AppError> {
        let path = directory.join(text);
        if path.is_dir() {
            return Requirements::of_file(path.join("requirements.txt"));
        }
        if let Some(known) = Requirements::known(text).filter(|_| !path.is_file()) {
            return Ok(known);
        }
        if path.is_file() || text.contains('/') || text.ends_with(".txt") {
            return Requirements::of_file(path);
        }
        Requirements::of_packages(&text.split_whitespace().collect::<Vec<_>>())
    }

    /// Packages as pip knows them.
    ///
    /// # Errors
    /// Says which is none.
    pub fn of_packages(packages: &[&str]) -> Result<Requirements, AppError> {
        let mut others =
            packages.iter().filter(|package| !package.starts_with(|first: char| first.is_ascii_alphanumeric()));
        if let Some(other) = others.next() {
            return Err(trouble(format!("`{other}` is no package: write it as in `starlette==0.47.3`"), ""));
        }
        let pinned = match packages {
            [] => return Err(trouble("no package is named: write one as in `starlette==0.47.3`", "")),
            [package] => Requirements::pinned(package),
            [_, _, ..] => None,
        };
        Ok(pinned.unwrap_or_else(|| {
            let text = packages.iter().map(|package| format!("{package}\n")).collect();
            Requirements { name: packages.join(" "), text, file: None }
        }))
    }

    /// The known set for a package, at its version or, without one, the newest. The name of a set begins with the package it
    /// is for.
    fn pinned(package: &str) -> Option<Requirements> {
        let (name, text) = requirements().find(|(name, text)| {
            let known = name.rsplit_once('-').map_or(*name, |(known, _)| known);
            known == package || package.starts_with(&format!("{known}==")) && text.lines().any(|line| line == package)
        })?;
        Some(Requirements { name: name.to_owned(), text: text.to_owned(), file: None })
    }

    /// The known set with this name.
    fn known(name: &str) -> Option<Requirements> {
        let (name, text) = requirements().find(|(known, _)| *known == name)?;
        Some(Requirements { name: name.to_owned(), text: text.to_owned(), file: None })
    }

    /// Whether a set with this name is known.
    pub fn is_known(name: &str) -> bool {
        Requirements::known(name).is_some()
    }

    /// Whether a package, at its version or without one, is known with every other package pinned.
    pub fn is_pinned(package: &str) -> bool {
        Requirements::pinned(package).is_some()
    }

    fn of_file(path: PathBuf) -> Result<Requirements, AppError> {
        let mut text = String::new();
        add_with_named(&path, 0, &mut text)?;
        let name = path.display().to_string();
        Ok(Requirements { name, text, file: Some(std::path::absolute(&path).unwrap_or(path)) })
    }

    /// The interpreter of an environment that holds them, in [`cache`]: made with `python` where it is not there yet.
    /// `tell` hears of work that takes long. Blocks.
    ///
    /// # Errors
    /// Says why it cannot be made, with the last that the installer said.
    pub fn install(&self, python: &Path, tell: &dyn Fn(&str)) -> Result<PathBuf, AppError> {
        self.install_in(&cache()?, python, &Installer::on_path(), tell)
    }

    /// The same in another directory: an environment for every version of the interpreter and every set, which several
    /// processes may want at the same time.
    ///
    /// # Errors
    /// As [`Requirements::install`].
    pub fn install_in(
        &self,
        cache: &Path,
        python: &Path,
        installer: &Installer,
        tell: &dyn Fn(&str),
    ) -> Result<PathBuf, AppError> {
        let kind = ask(python)?;
        let home = std::path::absolute(cache).unwrap_or(cache.to_owned()).join("venvs");
        fs::create_dir_all(&home).map_err(|error| failed("make the directory", &home, &error))?;
        let digest = Sha256::digest(format!("{kind}\n{}\n{}", installer.name(), self.text));
        let key: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        // The link comes last, and at once, so that what it points to is whole.
        let (link, lock) = (home.join(&key), home.join(format!("{key}.lock")));
        let made = link.join("bin/python");
        if made.exists() {
            return Ok(made);
        }
        let version = kind.lines().next().unwrap_or_default();
        let lock = File::create(&lock).map_err(|error| failed("open", &lock, &error))?;
        self.wait_for(&lock, tell)?;
        if made.exists() {
            return Ok(made);
        }
        tell(&format!("installing {} for Python {version} in {}; this is done once", self.name, home.display()));
        clear_away(&home, &key);
        // A killed run may leave a pip behind, so every attempt has a directory of its own.
        let attempt = home.join(format!("{key}.{}", std::process::id()));
        let _ = fs::remove_dir_all(&attempt);
        let whole = self.make(python, &attempt, installer, tell).and_then(|()| {
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(&attempt, &link).map_err(|error| failed("link", &link, &error))
        });
        if whole.is_err() {
            let _ = fs::remove_dir_all(&attempt);
        }
        whole.map(|()| made)
    }

    /// Waits until no other process makes the same environment.
    fn wait_for(&self, lock: &File, tell: &dyn Fn(&str)) -> Result<(), AppError> {
        let mut waited = Duration::ZERO;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::Error(error)) => return Err(trouble(format!("no lock can be had: {error}"), "")),
                Err(TryLockError::WouldBlock) if waited >= WAIT_LIMIT => {
                    let message = format!("another process installs {} for longer than {}", self.name, minutes(waited));
                    return Err(trouble(message, ""));
                }
                Err(TryLockError::WouldBlock) => {
                    if waited.is_zero() {
                        tell(&format!("another process installs {}; waiting for it", self.name));
                    }
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "a lock of another process sends no event when it is free"
                    )]
                    std::thread::sleep(LOOK_AGAIN);
                    waited += LOOK_AGAIN;
                }
            }
        }
    }

    /// Makes the environment, with pip where uv cannot.
    fn make(&self, python: &Path, place: &Path, installer: &Installer, tell: &dyn Fn(&str)) -> Result<(), AppError> {
        let made = self.make_with(python, place, installer);
        match (made, installer) {
            (Err(why), Installer::Uv(_)) => {
                tell(&format!("{}; trying pip\n{}", why.message, why.details));
                let _ = fs::remove_dir_all(place);
                self.make_with(python, place, &Installer::Pip)
            }
            (made, Installer::Uv(_) | Installer::Pip) => made,
        }
    }

    fn make_with(&self, python: &Path, place: &Path, installer: &Installer) -> Result<(), AppError> {
        if let Err(said) = run(&mut installer.make(python, place), python, INSTALL_LIMIT)? {
            return Err(match installer {
                Installer::Uv(_) => trouble("uv makes no virtual environment", said),
                Installer::Pip => no_venv(python, &said),
            });
        }
        let written = place.join("requirements.txt");
        fs::write(&written, &self.text).map_err(|error| failed("write", &written, &error))?;
        let file = self.file.as_ref().unwrap_or(&written);
        let installed = run(&mut installer.install(place, file), python, INSTALL_LIMIT)?;
        installed.map(drop).map_err(|said| self.not_installed(installer, said))
    }

    fn not_installed(&self, installer: &Installer, said: String) -> AppError {
        const OFFLINE: [&str; 4] =
            ["NewConnectionError", "Failed to establish", "name resolution", "Network is unreachable"];
        let hint = match OFFLINE.iter().any(|sign| said.contains(sign)) {
            true => {
                ": the package index cannot be reached; PIP_INDEX_URL names another, and what is installed once is kept"
            }
            false => "",
        };
        trouble(format!("{} cannot install {}{hint}", installer.name(), self.name), said)
    }
}

/// The longest text of requirements with the files that they name: 4 MiB. Files that name one another go round.
const WHOLE_BYTES_MAX: usize = 4 << 20;

/// Adds a requirements file, with the text of the files that it names: when one of them changes, the set is another.
fn add_with_named(path: &Path, depth: usize, whole: &mut String) -> Result<(), AppError> {
    let text = read_text(path, FileLimit::WRITTEN).map_err(unreadable)?;
    whole.push_str(&text);
    if whole.len() > WHOLE_BYTES_MAX {
        let message = format!("{} names more than {} MiB of requirements", path.display(), WHOLE_BYTES_MAX >> 20);
        return Err(trouble(message, ""));
    }
    for line in text.lines() {
        let named =
            ["-r ", "-c ", "--requirement ", "--constraint "].iter().find_map(|flag| line.trim().strip_prefix(flag));
        if let Some(named) = named.filter(|_| depth < DEPTH_MAX) {
            let beside = path.parent().unwrap_or(Path::new(".")).join(named.trim());
            let _ = writeln!(whole, "\n# {}", named.trim());
            add_with_named(&beside, depth + 1, whole)?;
        }
    }
    Ok(())
}

/// A requirements file that cannot be read, and why.
fn unreadable(error: Error) -> AppError {
    let cause = error.source().map_or(String::new(), |cause| format!(": {cause}"));
    trouble(format!("could not {error}{cause}"), "")
}

/// The interpreter's identity: its version, and its location.
fn ask(python: &Path) -> Result<String, AppError> {
    let question = "import platform, sys; print(platform.python_version(), platform.python_implementation(), \
                    platform.machine(), sys.base_prefix, sep='\\n')";
    run(interpreter(python).args(["-c", question]), python, ASK_LIMIT)?
        .map_err(|said| trouble(format!("`{}` is no interpreter of Python", python.display()), said))
}

/// An interpreter's version. Blocks.
///
/// # Errors
/// When it is none.
pub fn version(python: &Path) -> Result<String, AppError> {
    Ok(ask(python)?.lines().next().unwrap_or_default().to_owned())
}

/// The versions of packages that an interpreter has; nothing for one that it has not. Blocks.
///
/// # Errors
/// When it is no interpreter.
pub fn versions(python: &Path, packages: &[&str]) -> Result<Vec<(String, Option<String>)>, AppError> {
    let question = "import sys\nfrom importlib import metadata\nfor name in sys.argv[1:]:\n    \
                    try: print(name, metadata.version(name))\n    except metadata.PackageNotFoundError: print(name)";
    let said = run(interpreter(python).arg("-c").arg(question).args(packages), python, ASK_LIMIT)?
        .map_err(|said| trouble(format!("`{}` is no interpreter of Python", python.display()), said))?;
    let found = said.lines().map(|line| match line.split_once(' ') {
        Some((name, version)) => (name.to_owned(), Some(version.to_owned())),
        None => (line.to_owned(), None),
    });
    Ok(found.collect())
}

/// Where environments are kept: `RELAPSE_CACHE`, `XDG_CACHE_HOME/relapse`, or `~/.cache/relapse`.
///
/// # Errors
/// When none of them is named.
pub fn cache() -> Result<PathBuf, AppError> {
    let found = path_of_variable("RELAPSE_CACHE")
        .or_else(|| path_of_variable("XDG_CACHE_HOME").map(|cache| cache.join("relapse")))
        .or_else(|| path_of_variable("HOME").map(|home| home.join(".cache/relapse")));
    let found =
        found.ok_or_else(|| trouble("there is no place for environments: set RELAPSE_CACHE to a directory", ""))?;
    Ok(std::path::absolute(&found).unwrap_or(found))
}

fn path_of_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Removes the leftovers of failed attempts. No other process works here, because we hold the lock.
fn clear_away(home: &Path, key: &str) {
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_attempt =
            name.to_str().and_then(|name| name.strip_prefix(key)).is_some_and(|rest| rest.starts_with('.'));
        if is_attempt && entry.path().is_dir() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Why there is no environment, and which package of the system is missing.
fn no_venv(python: &Path, said: &str) -> AppError {
    let python = python.display();
    if said.contains("ensurepip") || said.contains("No module named venv") {
        let what = "apt-get install python3-venv";
        return trouble(format!("`{python}` makes no virtual environments: on Debian and Ubuntu, {what}"), said);
    }
    trouble(format!("`{python} -m venv` failed"), said)
}

/// Runs a command to its end: what it printed, or, where it failed, the last of that.
fn run(command: &mut Command, python: &Path, limit: Duration) -> Result<Result<String, String>, AppError> {
    let (mut group, mut output) =
        spawn_with_pipe(command).map_err(|error| not_started(python, Path::new("/"), &error))?;
    let (mut said, mut chunk) = (Vec::new(), [0; 4096]);
    #[expect(clippy::disallowed_methods, reason = "what pip takes is real time, whichever clock a run keeps")]
    let start = std::time::Instant::now();
    loop {
        let left = limit.saturating_sub(start.elapsed());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&left)) {
            Ok(0) => {
                let _ = group.end();
                let message = format!("`{}` took longer than {}", shown(command), minutes(limit));
                return Err(trouble(message, last_lines(&said)));
            }
            Err(rustix::io::Errno::INTR) => continue,
            _ => {}
        }
        match output.read(&mut chunk) {
            Ok(count @ 1..) => said.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
        }
    }
    let is_well = group.child.wait().is_ok_and(|status| status.success());
    Ok(if is_well { Ok(String::from_utf8_lossy(&said).into_owned()) } else { Err(last_lines(&said)) })
}

/// Starts a command whose output and errors go into one pipe; gives its other end.
fn spawn_with_pipe(command: &mut Command) -> io::Result<(Group, io::PipeReader)> {
    let (output, input) = io::pipe()?;
    let errors = input.try_clone()?;
    command.stdin(Stdio::null()).stdout(input).stderr(errors);
    let spawned = Group::spawn(command, Confinement::None);
    // Our ends of the pipe go with the command's settings.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok((spawned?, output))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The last of what a command printed.
fn last_lines(said: &[u8]) -> String {
    let printed = Printed::default();
    printed.take(&mut Vec::new(), said, &mut |_| {});
    printed.last()
}

fn minutes(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds => format!("{} minutes", seconds / 60),
    }
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> AppError {
    trouble(format!("could not {doing} {}: {error}", path.display()), "")
}

fn trouble(message: impl Into<String>, details: impl Into<String>) -> AppError {
    AppError { message: message.into(), details: details.into(), blame: Blame::Setup }
}
