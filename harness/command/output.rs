//! Everything that the command prints: standard output, standard error and the bar of progress. No secret passes, and no
//! character of others that a terminal obeys.

mod json;

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};

use std::io::IsTerminal as _;
use std::ops::Deref;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relapse_core::{
    error::Error,
    record::{
        escape::{Lines, escape},
        redact::Redactor,
    },
};

use crate::{
    error::{Failure, UsageError},
    exit_code::CommandExit,
    report::located::render as render_located,
};

/// The width of what is printed where no terminal says another, in characters.
const WIDTH: usize = 150;

/// The secrets that the process knows: its arguments and files name them, and none of them is ever printed.
static SECRETS: RwLock<Redactor> = RwLock::new(Redactor::NONE);
/// Why standard output could not be written to, the first time.
static UNWRITTEN: OnceLock<io::Error> = OnceLock::new();
/// The panics of tasks and threads are printed one after the other.
static PANICS: Mutex<()> = Mutex::new(());

/// From now on these secrets are printed nowhere.
pub(crate) fn keep_secret(redactor: &Redactor) {
    let mut known = SECRETS.write().unwrap_or_else(PoisonError::into_inner);
    let more = redactor.secrets().to_vec();
    *known = known.with(more, redactor.patterns().iter().cloned());
}

/// A text as it may leave the process, on a terminal and in a file.
pub(crate) fn without_secrets(text: &str) -> String {
    secrets().clean(text).into_owned()
}

fn secrets() -> Redactor {
    SECRETS.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Prints a line, or more, to standard output. [`finish`] tells when that fails.
pub(crate) fn print(text: impl Display) {
    write_out(&printable(&text.to_string()));
}

/// Prints a line with a credential that is made for the user to copy.
pub(crate) fn print_credential(line: impl Display) {
    write_out(&line.to_string());
}

/// Prints the page that a renderer returns. An empty page prints nothing.
pub(crate) fn print_page(text: &str) {
    let text = text.trim_end();
    if json::is_document(text) {
        write_out(&json::printable(text, &secrets()));
    } else if !text.is_empty() {
        print(text);
    }
}

fn write_out(text: &str) {
    let mut stdout = anstream::stdout();
    if let Err(error) = writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        UNWRITTEN.get_or_init(|| error);
    }
}

/// The exit code of a command that ends with this one, if everything could be printed. Otherwise there is no result that
/// anyone could read, and the error is told.
pub(crate) fn finish(exit: CommandExit) -> CommandExit {
    if let Err(error) = anstream::stdout().flush() {
        UNWRITTEN.get_or_init(|| error);
    }
    match UNWRITTEN.get() {
        None => exit,
        Some(error) => {
            write_err(&format!("error: could not write to standard output: {error}"));
            exit.max(CommandExit::NoResult)
        }
    }
}

/// Prints why a command could not do its work.
pub(crate) fn complain(failure: &Failure) {
    match failure {
        Failure::Usage(error) => complain_of(error),
        Failure::Work(error) => complain_about(error),
        Failure::NoCase(errors) => errors.iter().for_each(complain_about),
    }
}

/// Prints a mistake in what was asked for to standard error.
pub(crate) fn complain_of(error: &UsageError) {
    write_err(&format!("error: {error}"));
}

/// Prints what could not be done to standard error.
pub(crate) fn complain_about(error: &Error) {
    write_err(&match error {
        Error::File(located) => render_located(located),
        other => format!("error: {}", in_words(other)),
    });
}

/// Prints why one of several things could not be done to standard error, with its name.
pub(crate) fn complain_of_one(name: &str, why: &str) {
    write_err(&format!("error: {name}: {why}"));
}

/// Why a command could not do its work, in words.
pub(crate) fn reason(failure: &Failure) -> String {
    match failure {
        Failure::Usage(error) => error.to_string(),
        Failure::Work(error) => in_words(error),
        Failure::NoCase(errors) => errors.iter().map(in_words).collect::<Vec<_>>().join("; "),
    }
}

/// An error with its causes, in words.
pub(crate) fn in_words(error: &Error) -> String {
    let mut text = format!("could not {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!("\n  because: {cause}"));
        source = cause.source();
    }
    text
}

/// Says what is good to know to standard error.
pub(crate) fn note(text: &str) {
    write_err(&format!("note: {text}"));
}

fn write_err(text: &str) {
    // There is no other place to say that standard error cannot be written to.
    let _ = writeln!(anstream::stderr(), "{}", printable(text));
}

/// Prints help or a version to standard output, or a mistake in the arguments to standard error; gives the exit code.
pub(crate) fn print_usage(error: &clap::Error) -> u8 {
    let text = error.render().ansi().to_string();
    match error.use_stderr() {
        true => write_err(text.trim_end()),
        false => write_out(text.trim_end()),
    }
    u8::try_from(error.exit_code()).unwrap_or(CommandExit::NoResult.number())
}

/// From now on, a panic is printed as an error.
pub(crate) fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let _one = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        write_err(&format!("error: panicked at {place}: {text}"));
    }));
}

/// A text without secrets, in which nothing but the styles of renderers is obeyed by a terminal.
fn printable(text: &str) -> String {
    let text = secrets().clean(text).into_owned();
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text.as_str());
    while let Some(at) = rest.find(ESCAPE) {
        shown.push_str(&escape(&rest[..at], Lines::Many));
        let style = style_bytes(&rest[at..]);
        let end = at + style.max(ESCAPE.len_utf8());
        shown.push_str(&match style {
            0 => escape(&rest[at..end], Lines::Many),
            _ => Cow::Borrowed(&rest[at..end]),
        });
        rest = &rest[end..];
    }
    shown.push_str(&escape(rest, Lines::Many));
    shown
}

const ESCAPE: char = '\u{1b}';

/// The styles of renderers: reset, bold, faint, underline, and the colors from red to cyan, also bright except for magenta.
const STYLES: [&str; 15] = ["0", "1", "2", "4", "31", "32", "33", "34", "35", "36", "91", "92", "93", "94", "96"];

/// How many bytes a style has at the beginning of a text; 0 for none (ECMA-48 section 8.3.117, SGR).
fn style_bytes(text: &str) -> usize {
    let parameters = text.strip_prefix("\u{1b}[").and_then(|rest| rest.split_once('m'));
    match parameters {
        Some((parameters, _)) if parameters.split(';').all(|one| STYLES.contains(&one)) => parameters.len() + 3,
        _ => 0,
    }
}

/// The width of standard output, in characters.
pub(crate) fn width() -> usize {
    let terminal = console::Term::stdout();
    if terminal.is_term() { usize::from(terminal.size().1).max(60) } else { WIDTH }
}

/// How far a piece of work is: a bar on a terminal, and elsewhere a line on standard error every 10 s.
#[derive(Debug)]
pub(crate) struct ProgressReport {
    bar: ProgressBar,
    /// Ends the lines when it is dropped.
    _lines: Option<Sender<()>>,
}

/// How often a line says how far the work is. A log of an hour has 360 of them.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

impl Deref for ProgressReport {
    type Target = ProgressBar;

    fn deref(&self) -> &ProgressBar {
        &self.bar
    }
}

/// The progress of so many things.
pub(crate) fn progress(length: usize, what: &'static str) -> ProgressReport {
    let bar = styled(Some(length as u64), &format!("{{bar:40}} {{pos}}/{{len}} {what} {{msg}}"));
    ProgressReport { _lines: tell_by_lines(&bar, what), bar }
}

/// The same, for work that ends by the clock.
pub(crate) fn progress_by_time(what: &'static str) -> ProgressReport {
    let bar = standing_progress(what);
    ProgressReport { _lines: tell_by_lines(&bar, what), bar }
}

/// A progress bar for a command that runs until it is stopped. Hidden when standard error is no terminal.
pub(crate) fn standing_progress(what: &str) -> ProgressBar {
    styled(None, &format!("{{spinner}} {{elapsed}} {{pos}} {what} {{msg}}"))
}

/// Without a terminal, prints the state of a bar as lines until the returned value is dropped.
fn tell_by_lines(bar: &ProgressBar, what: &'static str) -> Option<Sender<()>> {
    if io::stderr().is_terminal() {
        return None;
    }
    let (lines, is_over) = mpsc::channel();
    let bar = bar.clone();
    std::thread::spawn(move || {
        while is_over.recv_timeout(PROGRESS_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            let of = bar.length().map_or(String::new(), |length| format!(" of {length}"));
            let line = format!("progress: {}{of} {what} {}", bar.position(), bar.message());
            write_err(line.trim_end());
        }
    });
    Some(lines)
}

/// Says how far the work is, behind the bar.
pub(crate) fn tell_progress(bar: &ProgressBar, text: &str) {
    bar.set_message(escape(&secrets().clean(text), Lines::One).into_owned());
}

fn styled(length: Option<u64>, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr()).with_style(style)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{printable, style_bytes};

    #[rstest]
    #[case::style("a \u{1b}[1m\u{1b}[32mFIXED\u{1b}[0m b", "a \u{1b}[1m\u{1b}[32mFIXED\u{1b}[0m b")]
    #[case::cursor("a\u{1b}[2Jb", "a\\x1b[2Jb")]
    #[case::title("\u{1b}]0;owned\u{7}", "\\x1b]0;owned\\x07")]
    #[case::blinking("\u{1b}[5mx", "\\x1b[5mx")]
    #[case::end("a\u{1b}", "a\\x1b")]
    #[case::lines("a\n\tb\rc", "a\n\tb\\rc")]
    fn a_terminal_obeys_styles_only(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(printable(text), expected);
    }

    #[test]
    fn a_style_has_known_parameters() {
        assert_eq!(style_bytes("\u{1b}[1;32mtext"), 7);
        assert_eq!(style_bytes("\u{1b}[38;5;1mtext"), 0);
        assert_eq!(style_bytes("\u{1b}[text"), 0);
    }
}
