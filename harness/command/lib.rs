//! The command: arguments, plans, runs and renderers.
//!
//! Each command is one module: `…Args` are its arguments, `plan` checks them and prints nothing, a run does the work, and a
//! renderer turns the result into a page. [`report::formats`] lists the formats, [`exit_code`] the exit codes; mistakes in the arguments are variants of
//! `error::UsageError`, and `output` prints everything.

mod baseline;
mod builtin;
mod conform;
mod determinism;
mod error;
pub mod exit_code;
mod files;
mod guard;
mod hunt;
mod init;
mod interrupt;
mod list;
mod orders;
mod output;
mod profile;
mod proxy;
mod pytest;
mod replay;
pub mod report;
mod reproducers;
mod run;
#[cfg(feature = "backend")]
mod serve;
mod show;
mod target;
mod validate;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use crate::builtin::{defect::Defect, runner::KNOWN};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use exit_code::CommandExit;
use relapse::{
    Result,
    case::Case,
    discover::{Catalogue, EMBEDDED, server},
    hunt::WORKERS_MAX,
};
use relapse_core::error::Error;
use relapse_python::process::end_all as end_processes;

/// Reproduces reported WebSocket 1011s and HTTP 500s by their real mechanism, and shows that they are gone.
///
/// Without a command, every case runs on the built-in backend: once with the reported defect and once repaired. A
/// case passes only when the defect shows the reported failure for the stated reason, the repaired service gives an
/// accepted answer to the same trigger, and a healthy client gets through.
#[derive(Debug, Parser)]
#[command(version, max_term_width = WIDTH_OF_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::RunArgs,
}

/// The widest that help is, in characters.
const WIDTH_OF_HELP: usize = 100;

#[derive(Debug, Subcommand)]
enum Command {
    /// Run cases on both versions of the backend, or on servers of yours, and judge each.
    ///
    /// A case that a target of yours cannot perform is left out, as long as another one can be.
    Run(run::RunArgs),
    /// Hunt for failures that were not reported: drawn scripts and faults, judged and shrunk.
    Hunt(hunt::HuntArgs),
    /// Run reproducers, which are what hunts found, and judge each.
    ///
    /// A reproducer is a case with concrete values. FIXED means that what was found is gone; STILL BROKEN that it is not;
    /// NOT EXERCISED that a fault of it does not act any more.
    Replay(replay::ReplayArgs),
    /// Stand as the built-in backend on a loopback port, repaired or with defects.
    ///
    /// Stands until Ctrl-C. Prints a valid token and commands to try; every connection is logged as it happens.
    Serve(builtin::ServeArgs),
    /// Stand between clients and a server as a faulty edge.
    ///
    /// Stands until Ctrl-C. Bytes on which no fault acts pass unchanged. Every connection is logged, with who closed it
    /// and why.
    Proxy(proxy::ProxyArgs),
    /// Check a deployment or a Python application.
    ///
    /// Looks at health, upgrades with and without credentials, and the events of one request. An application that no
    /// `relapse.toml` describes is looked at by its own routes.
    Validate(validate::ValidateArgs),
    /// Find out how a target is spoken to, and write a `relapse.toml`.
    ///
    /// Asks the routes that an application tells, and common paths, for health and WebSockets, tries a token in every place
    /// where tokens travel, and says what clients commonly say.
    Init(init::InitArgs),
    /// See how far a server keeps RFC 6455 sections 5 to 7.
    ///
    /// The server is the built-in backend behind every server profile, a server of yours, or a Python application behind a
    /// real server or every profile. Each case is a conversation on a connection of its own, and is `ok`, `non-strict` (it
    /// may be tolerated), `unclean` (no close frame), `wrong-code` or `failed`. A healthy client has to get through before
    /// and after.
    Conform(conform::ConformArgs),
    /// Measure servers, and compare their profiles with them.
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// List the issues: what was reported, its root cause, and the cases.
    List(list::ListArgs),
    /// Show one case: what was reported, both conversations, and its root cause.
    Show(show::ShowArgs),
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
struct CaseSource {
    /// Directory of case files; those of the reported issues, which are inside this command, without it.
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
}

/// The cases that filters select.
#[derive(Debug, Default)]
struct Selection {
    cases: Vec<Arc<Case>>,
    /// The files that cannot be read, and the filters that select nothing.
    broken: Vec<Error>,
}

/// The command line, with the exit codes below the long help of each command. The first page of help without a command
/// leaves the options to `relapse run`.
fn command() -> clap::Command {
    fn with_exit_codes(command: clap::Command) -> clap::Command {
        let starts_processes = command.get_arguments().any(|argument| argument.get_id() == "python");
        let processes = if starts_processes { guard::HELP } else { "" };
        let help = [&CommandExit::help(), processes].join("\n");
        command.after_long_help(help.trim_end().to_owned()).mut_subcommands(with_exit_codes)
    }
    let short = "Without a command, all cases run; the options are those of `relapse run`.";
    let options: Vec<String> = Arguments::command().get_arguments().map(|arg| arg.get_id().to_string()).collect();
    let mut command = Arguments::command();
    for id in &options {
        command = command.mut_arg(id, |arg| arg.hide_short_help(true));
    }
    with_exit_codes(command.after_help(short))
}

/// Runs the command; gives its exit code.
pub fn main() -> ExitCode {
    if guard::is_needed(std::env::args_os().skip(1))
        && let Some(exit) = guard::stand()
    {
        return exit;
    }
    output::tell_panics();
    let matches = command().try_get_matches();
    let arguments = match matches.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => return ExitCode::from(output::print_usage(&error)),
    };
    let outcome = match arguments.command {
        None => run::run(&arguments.run),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Hunt(args)) => hunt::hunt(&args),
        Some(Command::Replay(args)) => replay::replay(&args),
        Some(Command::Serve(args)) => builtin::serve(&args),
        Some(Command::Proxy(args)) => proxy::proxy(&args),
        Some(Command::Validate(args)) => validate::validate(&args),
        Some(Command::Init(args)) => init::init(&args),
        Some(Command::Conform(args)) => conform::conform(&args),
        Some(Command::Profile(command)) => profile::profile(&command),
        Some(Command::List(args)) => list::list(&args),
        Some(Command::Show(args)) => show::show(&args),
    };
    let exit = outcome.unwrap_or_else(|failure| {
        output::complain(&failure);
        failure.exit()
    });
    // Everything that was started ends before the result is known.
    end_processes();
    ExitCode::from(output::finish(interrupt::exit_with(exit)))
}

/// Whether a filter is the path of a case file, or of something that stands in its place, or names one inside this command.
fn names_file(filter: &str) -> bool {
    let is_path = filter.ends_with(".toml") && Path::new(filter).metadata().is_ok_and(|found| !found.is_dir());
    is_path || filter.starts_with(EMBEDDED)
}

impl CaseSource {
    /// Reads the catalogue. Filters that name a case file add it.
    fn read(&self, filters: &[String]) -> Result<(Catalogue, Vec<String>)> {
        let (files, filters): (Vec<&String>, Vec<&String>) = filters.iter().partition(|filter| names_file(filter));
        let mut filters: Vec<String> = filters.into_iter().cloned().collect();
        let mut catalogue = if files.is_empty() || !filters.is_empty() {
            builtin::is_there()?;
            match &self.cases {
                Some(directory) => Catalogue::read(directory, KNOWN)?,
                None => Catalogue::embedded(KNOWN)?,
            }
        } else {
            Catalogue::knowing(KNOWN)
        };
        for file in files {
            filters.extend(catalogue.add(Path::new(file))?);
        }
        Ok((catalogue, filters))
    }

    /// The cases that the filters select.
    fn select(&self, filters: &[String]) -> Result<Selection> {
        let (mut catalogue, filters) = self.read(filters)?;
        let cases = catalogue.select(&filters);
        Ok(Selection { cases, broken: catalogue.broken })
    }
}

/// The defect with this name.
fn defect(name: &str) -> Result<Defect> {
    let found = Defect::ALL.iter().copied().find(|defect| defect.name() == name);
    found.ok_or_else(|| Error::unknown("defect", name, Defect::ALL.iter().map(|defect| defect.name())))
}

/// How many run at a time: the given number or one per core, within the limit that memory sets.
fn jobs(named: Option<u16>) -> usize {
    let wanted = named.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    wanted.min(WORKERS_MAX)
}

/// The README's example is a test.
#[doc = include_str!("../../README.md")]
#[cfg(all(doctest, feature = "backend"))]
pub struct Readme;
