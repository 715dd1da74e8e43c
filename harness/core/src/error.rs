//! The errors of the harness itself.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::asgi::exception::{CodePlace, Exception};

/// The harness could not do its work, or was misused. Each displays as what follows "could not …".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of ours is not what it should be.
    #[error("read {0}")]
    File(Box<Located>),
    /// A path cannot be read or written.
    #[error("{doing} {}", path.display())]
    Io {
        /// The action that failed, such as `read`.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no such name.
    #[error("find the {what} `{name}`{}", nearest.as_ref().map_or(String::new(), |nearest| format!(": did you mean `{nearest}`?")))]
    UnknownName {
        /// The kind of thing that was named.
        what: &'static str,
        /// The name.
        name: String,
        /// The nearest right name.
        nearest: Option<String>,
    },
    /// No case file lies below a directory.
    #[error("find any case file (*.toml) below {}", .0.display())]
    NoCases(PathBuf),
    /// A corpus has no folder.
    #[error("find any service (a folder with mistake.toml) in {}", .0.display())]
    NoServices(PathBuf),
    /// A document describes no routes.
    #[error("learn routes from {place}: {why}")]
    NoRoutes {
        /// Its file or URL.
        place: String,
        /// The mistake in it.
        why: String,
    },
    /// A filter selects nothing.
    #[error("select any case with `{filter}`{}", nearest.as_ref().map_or(String::new(), |nearest| format!(": did you mean `{nearest}`?")))]
    NothingSelected {
        /// The filter.
        filter: String,
        /// The nearest name of a case, or the nearest number of a report.
        nearest: Option<String>,
    },
    /// A real socket was asked for under the paused clock.
    #[error("open a real socket under the virtual clock: it would jump while the socket waits")]
    RealSocketUnderVirtualClock,
    /// The target's task died of a bug.
    #[error("finish the run: the target panicked: {0}")]
    TargetPanicked(String),
    /// The harness itself died of a bug while it performed or judged a case.
    #[error("finish the case with seed {seed}: the harness panicked: {text}")]
    HarnessPanicked {
        /// The seed of the case.
        seed: u64,
        /// The text of the panic.
        text: String,
    },
    /// The target was to get no more requests than it got.
    #[error("make another request: the target was to get no more; see --max-requests")]
    TooManyRequests,
    /// The time that the work may take is over, or its user asks for its end.
    #[error("go on: the time was over")]
    TimeIsOver,
    /// A Python application cannot be run.
    #[error("run the application: {}{}", .0.message, if .0.details.is_empty() { String::new() } else { format!("\n{}", .0.details) })]
    Python(Box<AppError>),
    /// The build has no built-in backend.
    #[error("use the built-in backend: this build has none, so that every command needs a `--target`")]
    NoBackend,
    /// The target has no server that the harness starts.
    #[error("reach the server's process: the harness does not start it")]
    NoServerProcess,
    /// The target cannot host a fault.
    #[error("inject `{fault}`: the target has no such injection point")]
    NoSuchPlace {
        /// The fault.
        fault: String,
    },
}

/// Why a Python application cannot be loaded, does not start, or is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppError {
    /// The problem, and what to do.
    pub message: String,
    /// The traceback, or the last that was printed; empty where there is none.
    pub details: String,
    /// Whose fault it is.
    pub blame: Blame,
}

/// Whose fault it is that an app does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The app's own: it raises, exits or does not end while it is loaded or started.
    App,
    /// That of how it was named, or of this machine.
    Setup,
}

/// The line that begins a traceback of Python's.
const TRACEBACK: &str = "Traceback (most recent call last):";

impl AppError {
    /// The trouble of an app that does not start, with the text that was printed last. A framework may give its whole
    /// traceback as the message of `lifespan.startup.failed` (Starlette, `routing.py`): its last line stays in the
    /// message.
    ///
    /// Files below the app's directory are named from there.
    pub fn of_start(message: String, printed: String, blame: Blame, directory: &Path) -> AppError {
        let Some((before, _)) = message.split_once(TRACEBACK) else {
            return AppError { message, details: printed, blame };
        };
        let absolute = format!("  File \"{}/", directory.display());
        let traceback = message[before.len()..].trim_end().replace(&absolute, "  File \"");
        let last = traceback.lines().next_back().unwrap_or_default();
        AppError { message: format!("{before}{last}"), details: traceback, blame }
    }

    /// The exception behind it, where its traceback ends with one: type and text from its last line, the place from its
    /// last frame.
    pub fn exception(&self) -> Option<Exception> {
        let mut lines = self.details.lines().rev().filter(|line| !line.trim().is_empty());
        let last = lines.next()?;
        let (type_name, message) = last.split_once(": ").unwrap_or((last, ""));
        let is_name = !type_name.is_empty()
            && type_name.chars().all(|character| character.is_alphanumeric() || matches!(character, '_' | '.'));
        // A line of a log reads alike, and stands behind no frame.
        let is_behind_frame = lines.clone().next().is_some_and(|line| line.starts_with(char::is_whitespace));
        if !is_name || !is_behind_frame {
            return None;
        }
        let place = lines.find_map(|line| {
            let (file, rest) = line.trim_start().strip_prefix("File \"")?.split_once("\", line ")?;
            let (line, function) = rest.split_once(", in ").unwrap_or((rest, "<module>"));
            Some(CodePlace { file: file.to_owned(), line: line.trim().parse().ok()?, function: function.to_owned() })
        });
        Some(Exception { place, ..Exception::new(type_name, message) })
    }
}

impl From<AppError> for Error {
    fn from(trouble: AppError) -> Error {
        Error::Python(Box::new(trouble))
    }
}

/// A mistake in a file, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The file, as the user named it.
    pub path: String,
    /// The whole text.
    pub text: String,
    /// Where the mistake is, in bytes.
    pub span: Range<usize>,
    /// The mistake.
    pub message: String,
    /// The advice on what to do.
    pub help: Option<String>,
}

impl Located {
    /// Line and column of the mistake, both counted from 1.
    pub fn line_and_column(&self) -> (usize, usize) {
        let before = &self.text[..self.span.start.min(self.text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&character| character != '\n').count() + 1;
        (line, column)
    }
}

impl std::fmt::Display for Located {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (line, column) = self.line_and_column();
        write!(f, "{}:{line}:{column}: {}", self.path, self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

impl Error {
    /// A mistake at a place in a file.
    pub fn at(path: &str, text: &str, span: Range<usize>, message: impl Into<String>, help: Option<String>) -> Error {
        let text = text.to_owned();
        Error::File(Box::new(Located { path: path.to_owned(), text, span, message: message.into(), help }))
    }

    /// Makes the error of a failed action on a path, for `map_err`.
    pub fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Error + Copy {
        move |source| Error::Io { doing, path: path.to_owned(), source }
    }

    /// A mistake the TOML reader found; an unknown name gets the nearest right one.
    pub fn toml(path: &str, text: &str, error: &toml::de::Error) -> Error {
        Error::toml_in(path, text, error.span().unwrap_or(0..0), error)
    }

    /// The same, for a part of a file that is read on its own.
    pub fn toml_in(path: &str, text: &str, span: Range<usize>, error: &toml::de::Error) -> Error {
        let message = error.message().trim().replace('\n', "; ");
        let help = suggestion(&message);
        Error::at(path, text, span, message, help)
    }

    /// An unknown name, with the nearest right one.
    pub fn unknown<'a>(what: &'static str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
        Error::UnknownName { what, name: name.to_owned(), nearest: nearest(name, known).map(str::to_owned) }
    }
}

/// The known name nearest to the one given, if any is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (similarity(name, candidate), candidate))
        // In a short name every letter counts.
        .filter(|(similarity, candidate)| *similarity >= if candidate.len() < 6 { 0.6 } else { 0.4 })
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

/// How likely a name stands for a candidate, from 0 to 1.5.
fn similarity(name: &str, candidate: &str) -> f64 {
    // Half a name is meant more likely than a whole one with letters changed.
    let part = if candidate.contains(name) { 0.5 } else { 0.0 };
    part + strsim::normalized_damerau_levenshtein(name, candidate)
}

/// Codes and keys of files that have a new name: the old name, and the new one.
pub const RENAMED: [(&str, &str); 20] = [
    // Classes.
    ("good-open", "ok"),
    ("good-auth-refusal", "refused-auth"),
    ("good-not-ready", "refused-unavailable"),
    ("good-bad-request", "refused-request"),
    ("bad-server", "server-error"),
    ("bad-drop", "dropped"),
    ("bad-hang", "hang"),
    ("bad-silent", "no-answer"),
    ("bad-mask", "disguised-error"),
    ("bad-open", "wrongly-admitted"),
    ("unclean", "cut-by-fault"),
    // Causes.
    ("policy", "app-decision"),
    ("app-chose-1011", "app-sent-1011"),
    ("crash-before-accept", "crash-before-response"),
    ("abandoned", "returned-without-response"),
    ("keepalive", "keepalive-timeout"),
    // Keys of cases and issues.
    ("behind", "root_cause"),
    ("sham", "claimed_fix"),
    ("control", "healthy_client"),
    ("place", "at"),
];

/// Help for the old name of something that is known where it stands.
pub fn renamed<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let (_, new) = RENAMED.iter().find(|(old, _)| *old == name)?;
    known.into_iter().any(|known| known == *new).then(|| format!("`{name}` is now `{new}`"))
}

/// Help for an unknown name: its new name, or the nearest one.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    renamed(name, known.iter().copied())
        .or_else(|| Some(format!("did you mean `{}`?", nearest(name, known.iter().copied())?)))
}

/// Serde lists the names it expects in backquotes, after the one it found.
fn suggestion(message: &str) -> Option<String> {
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let mut names = message.split('`').skip(1).step_by(2);
    let name = names.next().filter(|_| unknown)?;
    did_you_mean(name, names)
}
