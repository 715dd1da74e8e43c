//! Reads exceptions from what a process prints: tracebacks of Python, and panics of libraries in Rust.

use std::path::Path;

use super::interpreter::exception;
use relapse_core::asgi::{
    exception::{CodePlace, Exception},
    value::Value,
};

/// The line that a traceback begins with (CPython, `traceback.py`).
const TRACEBACK: &str = "Traceback (most recent call last):";
/// How many frames of one traceback are kept.
const FRAMES_MAX: usize = 200;

/// A traceback that is being printed, line by line.
#[derive(Debug, Default)]
pub(super) struct Traceback {
    /// Its frames, the outermost first; `None` outside of a traceback.
    frames: Option<Vec<Value>>,
}

impl Traceback {
    /// Takes a line; gives the exception when the line is the last of a traceback. The application's own code is in this
    /// directory.
    pub(super) fn take(&mut self, line: &str, directory: &Path) -> Option<Exception> {
        if line.trim_start().ends_with(TRACEBACK) {
            self.frames = Some(Vec::new());
            return None;
        }
        let frames = self.frames.as_mut()?;
        if line.starts_with(char::is_whitespace) {
            frames.extend(frame(line).filter(|_| frames.len() < FRAMES_MAX));
            return None;
        }
        let frames = self.frames.take()?;
        let (name, message) = line.split_once(": ").unwrap_or((line, ""));
        let name = name.rsplit('.').next().unwrap_or(name);
        // Lines of other threads can come between.
        let is_name = !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
        let told = [name.into(), message.into(), Value::List(frames)];
        is_name.then(|| exception(&mut told.into_iter(), directory))
    }
}

/// A frame of a traceback: `  File "service.py", line 8, in chat`.
fn frame(line: &str) -> Option<Value> {
    let (file, rest) = line.trim_start().strip_prefix("File \"")?.split_once("\", line ")?;
    let (number, function) = rest.split_once(", in ")?;
    Some(Value::List(vec![file.into(), Value::Int(number.parse().ok()?), function.into()]))
}

/// A panic that is being printed: `thread 'main' panicked at src/lib.rs:5:9:`, and the message on the next line.
#[derive(Debug, Default)]
pub(super) struct Panic(Option<CodePlace>);

impl Panic {
    /// Takes a line; gives the panic when its message is there.
    pub(super) fn take(&mut self, line: &str) -> Option<Exception> {
        if let Some(place) = self.0.take() {
            return Some(Exception { place: Some(place), ..Exception::new("panic", line) });
        }
        let (thread, place) = line.strip_prefix("thread '")?.split_once(" panicked at ")?;
        let thread = thread.split('\'').next().unwrap_or_default();
        let mut parts = place.trim_end_matches(':').rsplitn(3, ':');
        let (_column, line, file) = (parts.next()?, parts.next()?, parts.next()?);
        let function = format!("thread {thread}");
        self.0 = Some(CodePlace { file: file.to_owned(), line: line.parse().ok()?, function });
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Panic, Traceback};

    #[test]
    fn a_printed_traceback_is_an_exception() {
        let printed = "Exception in thread Thread-1 (work):
Traceback (most recent call last):
  File \"/usr/lib/python3.12/threading.py\", line 1073, in _bootstrap_inner
    self.run()
  File \"/srv/app/jobs.py\", line 7, in work
    parse(row)
    ~~~~~^^^^^
  File \"/srv/app/.venv/lib/python3.12/site-packages/lib/rows.py\", line 3, in parse
    raise RowError(row)
lib.rows.RowError: no: row
and more of the message
Traceback (most recent call last):
KeyError";
        let mut traceback = Traceback::default();
        let found: Vec<String> = printed
            .lines()
            .filter_map(|line| traceback.take(line, Path::new("/srv/app")))
            .map(|exception| exception.located())
            .collect();
        assert_eq!(found, ["RowError: no: row (jobs.py:7 in work)", "KeyError"]);
    }

    #[test]
    fn a_panic_is_an_exception() {
        let mut panic = Panic::default();
        let printed = [
            "listening",
            "thread 'tokio-runtime-worker' panicked at src/asgi/io.rs:118:14:",
            "called `Option::unwrap()` on a `None` value",
            "note: run with `RUST_BACKTRACE=1`",
        ];
        let told = printed.map(|line| panic.take(line).map(|exception| exception.located()));
        let expected =
            "panic: called `Option::unwrap()` on a `None` value (src/asgi/io.rs:118 in thread tokio-runtime-worker)";
        assert_eq!(told, [None, None, Some(expected.to_owned()), None]);
    }
}
