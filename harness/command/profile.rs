//! `relapse profile`: where the data of server profiles comes from.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use relapse::{
    Clock, Error, Profile, Result, Runtime, ServerChoice,
    measure::{Slow, measure},
    profile::version_of,
    servers,
};

use super::{complain_of, note, print, server, target::end_interpreters_with_us};

/// What is done with profiles.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Command {
    /// Run a real server, see how it treats an application row by row, and write the file of its profile.
    ///
    /// What takes too long to see, such as a startup that never ends, is kept from the known profile of that server, or left
    /// to be filled in. Exit codes: 0 it is as its known profile says; 1 it is not; 2 it could not be measured, or no
    /// profile of it is known.
    Measure(Options),
}

/// What is measured.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
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
    /// for an application that never starts. That takes 75 s more.
    #[arg(long)]
    slow: bool,
    /// Where the profile is written to; to standard output without it.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs a command about profiles; gives its exit code.
pub(super) fn profile(command: &Command) -> Result<u8> {
    let Command::Measure(options) = command;
    end_interpreters_with_us();
    let asked = options.python.clone().unwrap_or_else(|| PathBuf::from("python3"));
    let python = options.server.interpreter(&asked, options.python.is_some(), &note)?;
    let slow = if options.slow { Slow::Watched } else { Slow::LeftOut };
    let measured = Runtime::new(Clock::Real).block_on(measure(&options.server, &python, slow))?;
    let name = name_of(&options.server, &measured.server);
    let known = match &options.like {
        Some(name) => Some(server(name)?),
        None => known(&name)?,
    };
    #[expect(clippy::disallowed_methods, reason = "the day of a measurement stands in its file")]
    let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let text = measured.print(&name, &date[..10], known.as_deref(), &servers()?[0]);
    match &options.output {
        Some(path) => write(path, &text)?,
        None => print(text.trim_end()),
    }
    let Some(known) = known else {
        complain_of(&format!("no profile {name} is known; --like names another to compare with"));
        return Ok(super::MISUSE);
    };
    if known.name != name {
        note(&format!("compared with {}", known.name));
    }
    let unmeasured = measured.unmeasured(&known);
    if !unmeasured.is_empty() {
        note(&format!("not measured, and kept from {}: {}", known.name, unmeasured.join(", ")));
    }
    let differences = measured.differences(&known);
    differences.iter().for_each(|difference| note(&format!("{}: {difference}", known.name)));
    Ok(u8::from(!differences.is_empty()))
}

/// The known profile of a server: the one of its version where there is none of its implementation of WebSocket.
fn known(name: &str) -> Result<Option<Arc<Profile>>> {
    let servers = servers()?;
    let named = |name: &str| servers.iter().find(|profile| profile.name == name).cloned();
    Ok(named(name).or_else(|| named(version_of(name))))
}

/// The name of a server's profile: with the first two numbers of its version, and its implementation where one was named.
fn name_of(choice: &ServerChoice, measured: &str) -> String {
    let version = measured.split([',', ' ']).nth(1).unwrap_or_default();
    let version: Vec<&str> = version.split('.').take(2).collect();
    let implementation = choice.implementation.as_ref().map_or(String::new(), |name| format!("-{name}"));
    format!("{}-{}{implementation}", choice.software.name(), version.join("."))
}

fn write(path: &Path, text: &str) -> Result {
    fs::write(path, text).map_err(|source| Error::Io { doing: "write", path: path.to_owned(), source })
}
