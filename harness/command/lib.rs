//! Arguments, and what is done with them.

mod builtin;
mod conform;
mod hunt;
mod init;
mod list;
mod orders;
mod profile;
mod proxy;
mod pytest;
mod replay;
pub mod report;
mod run;
#[cfg(feature = "backend")]
mod serve;
mod show;
mod target;
mod validate;

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use crate::builtin::conductor::KNOWN;
use crate::report::located::render as render_located;
use clap::{Args, Parser, Subcommand};
use relapse::{
    Result,
    case::Case,
    discover::{Catalogue, server, servers_named},
};
use relapse_core::error::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code when the harness could not do its work or was misused; clap exits with the same.
const MISUSE: u8 = 2;

/// The width of what is printed where no terminal says another.
const WIDTH: usize = 150;

/// Reproduces reported WebSocket 1011s and HTTP 500s by their real mechanism, and shows that they are gone.
///
/// Without a command, every case runs on the built-in backend: once with the reported defect and once repaired. A
/// case passes only when the defect shows the reported failure for the stated reason, the repaired service gives an
/// accepted answer to the same trigger, and a healthy client gets through.
///
/// Exit codes: 0 every case is FIXED; 1 a finding; 2 the harness could not do its work or was misused.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run cases on both versions of the built-in backend, or on servers of yours, and say what became of each.
    ///
    /// Exit codes: 0 every case is FIXED, or PASSED where there is one version; 1 a finding; 2 the harness could not do its
    /// work or was misused. A case that a target of yours cannot perform is left out, as long as another one can be.
    Run(run::Options),
    /// Look for failures that nobody reported: drawn scripts and faults, judged by the same checks, and shrunk.
    Hunt(hunt::Options),
    /// Run reproducers, which are what hunts found, and say what became of each.
    ///
    /// A reproducer is a case with concrete values. FIXED means that what was found is gone; STILL BROKEN that it is not;
    /// NOT EXERCISED that a fault of it does not act any more.
    Replay(replay::Options),
    /// Stand as the built-in backend on a loopback port, repaired or with defects, until Ctrl-C.
    ///
    /// Prints a valid token and commands to try; every connection is logged as it happens.
    Serve(builtin::ServeOptions),
    /// Stand between clients and a server as a faulty edge, until Ctrl-C.
    ///
    /// Bytes on which no fault acts pass unchanged. Every connection is logged, with who closed it and why.
    Proxy(proxy::Options),
    /// Look at a deployment, or at a Python application: health, upgrades with and without credentials, the events of one
    /// request.
    ///
    /// An application that no `relapse.toml` describes is looked at by its own routes.
    ///
    /// Exit codes: 0 everything is as it has to be; 1 something is not; 2 the harness could not do its work or was misused.
    Validate(validate::Options),
    /// Find out how a server or a Python application is spoken to, and write it down as a `relapse.toml`.
    ///
    /// Asks the routes that an application tells, and common paths, for health and WebSockets, tries a token in every place where tokens travel, and says what
    /// clients commonly say. Exit codes: 0 a session opened; 1 none did; 2 the harness could not do its work or was misused.
    Init(init::Options),
    /// See how far a server keeps RFC 6455 sections 5 to 7: the built-in backend behind every server profile, a server of
    /// yours, or a Python application behind a real server or every profile.
    ///
    /// Each case is a conversation on a connection of its own, and is `ok`, `non-strict` (it may be tolerated), `unclean`
    /// (no close frame), `wrong-code` or `failed`. A healthy client has to get through before and after.
    ///
    /// Exit codes: 0 everything is ok or non-strict; 1 something is worse; 2 the harness could not do its work, was misused,
    /// or the healthy client did not get through.
    Conform(conform::Options),
    /// Look after server profiles, the data that says how each server treats an application.
    #[command(subcommand)]
    Profile(profile::Command),
    /// List the issues: what was reported, its root cause, and the cases.
    List(list::Options),
    /// Show one case: what was reported, both conversations side by side, and its root cause.
    Show(show::Options),
}

/// The value of an option that has a new name: there is none.
#[derive(Debug, Clone, Copy)]
enum Moved {}

/// Refuses an option that has a new name.
fn moved(new: &str) -> Result<Moved, String> {
    Err(format!("this option is now `{new}`"))
}

/// Where the cases are.
#[derive(Debug, Clone, Args)]
struct Source {
    /// Directory of case files.
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
}

/// Runs the command; gives its exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let code = match arguments.command {
        None => run::run(&arguments.run),
        Some(Command::Run(options)) => run::run(&options),
        Some(Command::Hunt(options)) => hunt::hunt(&options),
        Some(Command::Replay(options)) => replay::replay(&options),
        Some(Command::Serve(options)) => builtin::serve(&options),
        Some(Command::Proxy(options)) => proxy::proxy(&options),
        Some(Command::Validate(options)) => validate::validate(&options),
        Some(Command::Init(options)) => init::init(&options),
        Some(Command::Conform(options)) => conform::conform(&options),
        Some(Command::Profile(command)) => profile::profile(&command),
        Some(Command::List(options)) => list::list(&options),
        Some(Command::Show(options)) => show::show(&options),
    };
    ExitCode::from(code.unwrap_or_else(|error| {
        complain(&error);
        MISUSE
    }))
}

impl Source {
    /// Reads the catalogue. Filters that name a case file add it.
    fn read(&self, filters: &[String]) -> Result<(Catalogue, Vec<String>)> {
        let (files, filters): (Vec<&String>, Vec<&String>) =
            filters.iter().partition(|filter| filter.ends_with(".toml") && Path::new(filter).is_file());
        let mut filters: Vec<String> = filters.into_iter().cloned().collect();
        let mut catalogue = if files.is_empty() || !filters.is_empty() {
            builtin::is_there()?;
            Catalogue::read(&self.directory(), KNOWN)?
        } else {
            Catalogue::knowing(KNOWN)
        };
        for file in files {
            filters.extend(catalogue.add(Path::new(file))?);
        }
        Ok((catalogue, filters))
    }

    /// The cases that the filters select; complains about whatever is broken on the way.
    fn select(&self, filters: &[String]) -> Result<(Vec<Arc<Case>>, Vec<Error>)> {
        let (mut catalogue, filters) = self.read(filters)?;
        let cases = catalogue.select(&filters);
        catalogue.broken.iter().for_each(complain);
        Ok((cases, catalogue.broken))
    }

    /// The directory named, or the one of the checkout this command stands in or was built from.
    fn directory(&self) -> PathBuf {
        let here = PathBuf::from("fixtures/cases");
        let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
        match &self.cases {
            Some(directory) => directory.clone(),
            None if here.is_dir() => here,
            None => built_from,
        }
    }
}

/// Prints a line, or more, to standard output. A reader that has left is no reason to complain.
fn print(text: impl Display) {
    use std::io::Write;
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Prints what could not be done to standard error.
fn complain(error: &Error) {
    use std::io::Write;
    let mut stream = anstream::stderr();
    let mut text = match error {
        Error::File(located) => render_located(located, true),
        other => format!("error: could not {other}"),
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!("\n  because: {cause}"));
        source = cause.source();
    }
    let _ = writeln!(stream, "{text}");
}

/// Prints an error in the command's own words to standard error.
fn complain_of(text: &str) {
    use std::io::Write;
    let _ = writeln!(anstream::stderr(), "error: {text}");
}

/// Says what is good to know to standard error.
fn note(text: &str) {
    use std::io::Write;
    let _ = writeln!(anstream::stderr(), "note: {text}");
}

/// Waits for Ctrl-C, or for whatever else asks a program to stop.
async fn until_told_to_stop() {
    match Stops::watch() {
        Ok(mut stops) => drop(stops.next().await),
        Err(_) => std::future::pending().await,
    }
}

/// A signal that asks a program to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// The signals that ask a program to stop. From the moment it exists they do not end the process by themselves.
#[derive(Debug)]
struct Stops {
    interrupt: Signal,
    terminate: Signal,
}

impl Stops {
    /// Watches for them, in a runtime that keeps real time.
    ///
    /// # Errors
    /// When the system does not let it.
    fn watch() -> io::Result<Stops> {
        Ok(Stops { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next of them.
    async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }
}

/// How wide standard output is.
fn width() -> usize {
    let terminal = console::Term::stdout();
    if terminal.is_term() { usize::from(terminal.size().1).max(60) } else { WIDTH }
}
