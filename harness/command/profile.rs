//! `relapse profile`: where the data of server profiles comes from.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use relapse::{
    Result,
    discover::servers,
    trial::{add_option, shell},
};
use relapse_core::error::{AppError, Blame, Error};
use relapse_python::{
    differential::{DifferentialSetup, ProgramDifference, compare},
    measure::{Slow, measure},
    process::{InterpreterOrigin, ServerChoice},
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    profile::{Profile, version_of},
};

use super::{
    error::{CommandResult, UsageError},
    exit_code::CommandExit,
    files::{self, Existing},
    interrupt::end_interpreters_with_us,
    output::{note, print},
    server,
};

/// The commands about profiles.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum ProfileCommand {
    /// Measure a real server, and write the file of its profile.
    ///
    /// Runs the server and sees how it treats an application, row by row. A row that takes too long to see, such as a startup
    /// that never ends, is kept from the known profile of that server, or left to be filled in.
    Measure(MeasureArgs),
    /// Compare profiles with their servers, program by program.
    ///
    /// Performs small programs in memory behind a profile and for real behind its server, and compares what is seen.
    /// A program is an application and its clients, drawn from a seed: any events in any order, on one or two connections.
    /// The clients must see the same, the application must receive the same, and every exception must have the same place.
    Differential(DifferentialArgs),
}

/// The profiles and programs that are compared.
#[derive(Debug, Clone, Args)]
pub(super) struct DifferentialArgs {
    /// A profile; may be repeated. Without it every profile is compared.
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// The server to compare a profile with, as `measure` names it; without it that of the profile.
    #[arg(long, value_name = "NAME[==VERSION]")]
    server: Option<ServerChoice>,
    /// How many programs for each.
    #[arg(long, value_name = "COUNT", default_value_t = 2000)]
    programs: u64,
    /// The seed of the first program; each further one has the next number.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// How many differing programs of a profile are printed.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    shown: usize,
    /// Print programs that differ as the profile records, too.
    #[arg(long)]
    recorded: bool,
    /// An interpreter that has the server; without one it is installed in an environment of its own.
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
}

/// The server to measure.
#[derive(Debug, Clone, Args)]
pub(super) struct MeasureArgs {
    /// The server: `uvicorn`, `hypercorn`, `daphne` or `granian`, with `==VERSION` behind it where that matters, and
    /// `uvicorn[websockets]`, `uvicorn[sansio]` or `uvicorn[wsproto]` for one of its implementations.
    #[arg(long, value_name = "NAME[==VERSION]")]
    server: ServerChoice,
    /// An interpreter that has the server; without one it is installed in an environment of its own.
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// The profile to compare with, and to keep from what is not measured; without it the one with the name that is written,
    /// or else the one of the server's version.
    #[arg(long, value_name = "NAME")]
    like: Option<String>,
    /// Measure too what a server does only after a long time: how often it pings, how long it waits for a pong, and how long
    /// for an application that never starts, or never answers a handshake. That takes 75 s more.
    #[arg(long)]
    slow: bool,
    /// Where the profile is written to; to standard output without it.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs a command about profiles; gives its exit code.
pub(super) fn profile(command: &ProfileCommand) -> CommandResult {
    end_interpreters_with_us();
    match command {
        ProfileCommand::Measure(args) => measure_server(args),
        ProfileCommand::Differential(args) => differential(args),
    }
}

/// Holds profiles against their servers; gives the exit code.
fn differential(args: &DifferentialArgs) -> CommandResult {
    let profiles = match args.profile.as_slice() {
        [] => servers()?,
        names => names.iter().map(|name| server(name)).collect::<Result<_>>()?,
    };
    let asked = args.python.clone().unwrap_or_else(|| PathBuf::from("python3"));
    let mut exit = CommandExit::Passes;
    for profile in profiles {
        exit = exit.max(compare_profile(profile, args, &asked)?);
    }
    Ok(exit)
}

fn compare_profile(profile: Arc<Profile>, args: &DifferentialArgs, asked: &Path) -> CommandResult {
    let choice: ServerChoice = match &args.server {
        Some(choice) => choice.clone(),
        None => profile
            .choice
            .parse()
            .map_err(|message| Error::from(AppError { message, details: String::new(), blame: Blame::Setup }))?,
    };
    let python = choice.interpreter(asked, origin(args.python.as_ref()), &note)?;
    let name = profile.name.clone();
    let setup = DifferentialSetup { server: choice, profile, seed: args.seed, programs: args.programs };
    let compared = compare(&setup, &python, &note)?;
    let again = Again { profile: &name, server: args.server.as_ref(), python: args.python.as_deref() };
    if args.recorded {
        compared.differences.iter().take(args.shown).for_each(|difference| print(again.render(difference)));
    } else {
        compared.unrecorded().take(args.shown).for_each(|difference| print(again.render(difference)));
    }
    let (all, unrecorded) = (compared.differences.len(), compared.unrecorded().count());
    let recorded =
        if all > unrecorded { format!(", {} of them as its profile records", all - unrecorded) } else { String::new() };
    let strict = compared.strict;
    note(&format!(
        "{name}: {all} of {} programs differ{recorded}; {strict} are in no situation that it records",
        args.programs
    ));
    // Other programs need not show everything.
    let is_full = args.programs >= FULL_RUN && args.seed == 1 && args.server.is_none();
    let unseen = if is_full { compared.unseen() } else { Vec::new() };
    for situation in &unseen {
        note(&format!("{name}: the profile records a difference that does not occur: {situation:?}"));
    }
    Ok(if unrecorded == 0 && unseen.is_empty() { CommandExit::Passes } else { CommandExit::Finding })
}

/// How many programs show everything that a profile records.
const FULL_RUN: u64 = 2000;

/// The arguments that compare the same profile with the same server again.
struct Again<'a> {
    profile: &'a str,
    /// The server, where it is not that of the profile.
    server: Option<&'a ServerChoice>,
    python: Option<&'a Path>,
}

impl Again<'_> {
    /// A program, both sides, and a command that performs it again.
    fn render(&self, difference: &ProgramDifference) -> String {
        let mut text = difference.program.to_string();
        let (memory, server) = (&difference.memory.0, &difference.server.0);
        for line in memory.iter().filter(|line| server.contains(line)) {
            text.push_str(&format!("    same    {line}\n"));
        }
        for (side, lines, others) in [("memory", memory, server), ("server", server, memory)] {
            for line in lines.iter().filter(|line| !others.contains(line)) {
                text.push_str(&format!("    {side}  {line}\n"));
            }
        }
        text + &format!("reproduce: {}\n", shell(&self.arguments(difference.program.seed)))
    }

    fn arguments(&self, seed: u64) -> Vec<String> {
        let mut arguments: Vec<String> = ["relapse", "profile", "differential"].map(str::to_owned).into();
        add_option(&mut arguments, "--profile", self.profile);
        if let Some(server) = self.server {
            add_option(&mut arguments, "--server", server);
        }
        if let Some(python) = self.python {
            add_option(&mut arguments, "--python", python.display());
        }
        add_option(&mut arguments, "--programs", 1);
        add_option(&mut arguments, "--seed", seed);
        arguments
    }
}

fn origin(python: Option<&PathBuf>) -> InterpreterOrigin {
    if python.is_some() { InterpreterOrigin::Chosen } else { InterpreterOrigin::Default }
}

/// Measures a server; gives the exit code.
fn measure_server(args: &MeasureArgs) -> CommandResult {
    let asked = args.python.clone().unwrap_or_else(|| PathBuf::from("python3"));
    let python = args.server.interpreter(&asked, origin(args.python.as_ref()), &note)?;
    let slow = if args.slow { Slow::Watched } else { Slow::LeftOut };
    let measured = Runtime::new(Clock::Real).block_on(measure(&args.server, &python, slow))?;
    let name = name_of(&args.server, &measured.server);
    let known = match &args.like {
        Some(name) => Some(server(name)?),
        None => known(&name)?,
    };
    #[expect(clippy::disallowed_methods, reason = "the day of a measurement stands in its file")]
    let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let text = measured.print(&name, &date[..10], known.as_deref(), &servers()?[0]);
    match &args.output {
        Some(path) => write(path, &text)?,
        None => print(text.trim_end()),
    }
    let Some(known) = known else {
        return Err(UsageError::NoKnownProfile { name }.into());
    };
    if known.name != name {
        note(&format!("compared with {}", known.name));
    }
    let mut unmeasured = measured.unmeasured(&known);
    // The fate of any order of events is compared instead.
    unmeasured.retain(|name| !name.starts_with("sequence."));
    if !unmeasured.is_empty() {
        note(&format!("not measured, and kept from {}: {}", known.name, unmeasured.join(", ")));
    }
    let differences = measured.differences(&known);
    differences.iter().for_each(|difference| note(&format!("{}: {difference}", known.name)));
    let setup = DifferentialSetup {
        server: args.server.clone(),
        profile: Arc::clone(&known),
        seed: 1,
        programs: PROGRAMS_MEASURED,
    };
    let compared = compare(&setup, &python, &note)?;
    let again = Again { profile: &known.name, server: Some(&args.server), python: args.python.as_deref() };
    compared.unrecorded().for_each(|difference| note(&again.render(difference)));
    let is_as_known = differences.is_empty() && compared.unrecorded().count() == 0;
    Ok(if is_as_known { CommandExit::Passes } else { CommandExit::Finding })
}

/// How many programs are compared where a server is measured.
const PROGRAMS_MEASURED: u64 = 50;

/// The known profile of a server: the one of its version where there is none of its implementation of WebSocket.
fn known(name: &str) -> Result<Option<Arc<Profile>>> {
    let servers = servers()?;
    let mut names = [name, version_of(name)].into_iter();
    Ok(names.find_map(|name| servers.iter().find(|profile| profile.name == name).cloned()))
}

/// The name of a server's profile: with the first two numbers of its version, and its implementation where one was named.
fn name_of(choice: &ServerChoice, measured: &str) -> String {
    let version = measured.split([',', ' ']).nth(1).unwrap_or_default();
    let version: Vec<&str> = version.split('.').take(2).collect();
    let implementation = choice.implementation.as_ref().map_or(String::new(), |name| format!("-{name}"));
    format!("{}-{}{implementation}", choice.software.name(), version.join("."))
}

fn write(path: &Path, text: &str) -> Result {
    files::write(path, text, Existing::Replace)
}
