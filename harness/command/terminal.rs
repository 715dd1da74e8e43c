//! Standard output, standard error and the bar of progress: everything that the command prints goes through here.

use std::fmt::Display;
use std::io::Write as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relapse_core::error::Error;

use crate::{
    error::{Failure, UsageError},
    report::located::render as render_located,
};

/// The width of what is printed where no terminal says another, in characters.
const WIDTH: usize = 150;

/// Prints a line, or more, to standard output. A reader that has left is no reason to complain.
pub(crate) fn print(text: impl Display) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Prints what a renderer made of a result; nothing where it made nothing.
pub(crate) fn print_page(text: &str) {
    let text = text.trim_end();
    if !text.is_empty() {
        print(text);
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
    let _ = writeln!(anstream::stderr(), "error: {error}");
}

/// Prints what could not be done to standard error.
pub(crate) fn complain_about(error: &Error) {
    let mut text = match error {
        Error::File(located) => render_located(located),
        other => format!("error: could not {other}"),
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!("\n  because: {cause}"));
        source = cause.source();
    }
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Says what is good to know to standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "note: {text}");
}

/// The width of standard output, in characters.
pub(crate) fn width() -> usize {
    let terminal = console::Term::stdout();
    if terminal.is_term() { usize::from(terminal.size().1).max(60) } else { WIDTH }
}

/// A bar on a terminal, nothing where standard error is piped.
pub(crate) fn progress(length: usize, what: &str) -> ProgressBar {
    styled(Some(length as u64), &format!("{{bar:40}} {{pos}}/{{len}} {what} {{msg}}"))
}

/// The same, for work that ends by the clock.
pub(crate) fn progress_by_time(what: &str) -> ProgressBar {
    styled(None, &format!("{{spinner}} {{elapsed}} {{pos}} {what} {{msg}}"))
}

fn styled(length: Option<u64>, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr()).with_style(style)
}
