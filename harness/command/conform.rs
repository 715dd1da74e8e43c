//! `relapse conform`: how far a server keeps RFC 6455, frame by frame.

use std::sync::Arc;
use std::time::Duration;

use crate::builtin::conductor::conform_embedded;
use crate::report::conformance::{render as render_conformance, render_json as render_conformance_json};
use clap::{Args, ValueEnum};
use relapse::{
    Result,
    conform::conform as try_all,
    conform::{PATIENCE, Peer},
    discover::{frame_cases, servers},
    trial::shell,
};
use relapse_core::conformance::{Conformance, FrameCase};
use relapse_simulate::{
    clock::{Clock, Runtime},
    profile::Profile,
};

use super::{
    MISUSE, complain_of, print,
    run::{Allowance, progress},
    servers_named,
    target::{Foreign, Guesses, Named, PythonOptions, Way, tell_notes},
    width,
};

/// The cases to try, and the target.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// Cases to try: the name of a case or its last part, a section as in `5.5.2`, or a glob over names as in `5.5*`.
    /// All cases without one.
    patterns: Vec<String>,
    /// The server profile in front of the built-in backend, or of a Python application; may be given more than once, as a
    /// glob too; all without it.
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// Try this instead of the built-in backend: a server, `http://`, `https://`, `ws://` or `wss://`, host and port; or a
    /// Python application, `asgi:package.module:app`, and ` @ DIR` behind it where it is elsewhere. What frames come to is a
    /// matter of the server: --server tries a real one with the application in it.
    #[arg(long, value_name = "URL|asgi:MODULE:APP")]
    target: Option<Named>,
    #[command(flatten)]
    python: PythonOptions,
    #[command(flatten)]
    foreign: Foreign,
    #[command(flatten)]
    allowance: Allowance,
    /// How long a server may take for what has to come; 2 s without it.
    #[arg(long, value_name = "TIME", requires = "target", value_parser = humantime::parse_duration)]
    limit: Option<Duration>,
    /// The seed, the only source of chance: masks, and keys of the handshake.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print what was found.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    #[value(alias = "table")]
    Human,
    /// One JSON document.
    Json,
}

/// Tries the cases; the exit code is the highest of all servers'.
pub(super) fn conform(options: &Options) -> Result<u8> {
    let cases = frame_cases(&options.patterns)?;
    let found = match &options.target {
        Some(target) => on_own(options, target, &cases)?,
        None if options.python.is_out_of_place() => Vec::new(),
        None => on_embedded(options, &cases)?,
    };
    match options.format {
        _ if found.is_empty() => {}
        Format::Human => print(render_conformance(&found, width()).trim_end()),
        Format::Json => print(render_conformance_json(&found)),
    }
    Ok(found.iter().map(Conformance::exit_code).max().unwrap_or(MISUSE))
}

/// The profiles that are meant.
fn profiles(options: &Options) -> Result<Vec<Arc<Profile>>> {
    if options.profile.is_empty() { servers() } else { servers_named(&options.profile) }
}

fn on_embedded(options: &Options, cases: &[Arc<FrameCase>]) -> Result<Vec<Conformance>> {
    let servers = profiles(options)?;
    let progress = progress(cases.len() * servers.len(), "cases");
    let behind = |profile| conform_embedded(cases, profile, Clock::Virtual, options.seed, || progress.inc(1));
    let found = servers.iter().map(behind).collect();
    progress.finish_and_clear();
    found
}

/// Returns an empty list if the target may not or cannot be asked, and prints why.
fn on_own(options: &Options, target: &Named, cases: &[Arc<FrameCase>]) -> Result<Vec<Conformance>> {
    if !target.is_in_order(&options.python, &options.profile, &options.foreign) {
        return Ok(Vec::new());
    }
    let Some((binding, token)) = target.introduced(&options.foreign)? else { return Ok(Vec::new()) };
    if binding.is_unknown() {
        complain_of(&format!(
            "what is answered has to be known: `relapse init --target {}` writes a relapse.toml",
            shell(&[vec![target.to_string()], options.python.arguments(), options.foreign.arguments()].concat()),
        ));
        return Ok(Vec::new());
    }
    if binding.messages.request.is_none() || binding.messages.events.is_empty() {
        complain_of(
            "what is asked and answered has to be known: put `request` and `events` into the relapse.toml, under [messages]",
        );
        return Ok(Vec::new());
    }
    // By name, and the profile that plays it where one does.
    let servers: Vec<(String, Option<String>)> = match options.python.server_name() {
        Some(server) => vec![(server, None)],
        None if target.is_python() => {
            profiles(options)?.iter().map(|profile| (profile.name.clone(), Some(profile.name.clone()))).collect()
        }
        None => vec![(target.to_string(), None)],
    };
    let progress = progress(cases.len() * servers.len(), "cases");
    let (mut found, mut notes) = (Vec::new(), Vec::new());
    for (name, profile) in servers {
        let (allowance, python, profile) = (&options.allowance, &options.python, profile.as_deref());
        let runtime = Runtime::new(target.clock(python));
        let way = Way { allowance, python, profile, guesses: Guesses::Checked, seed: options.seed };
        let server = target.reach_unseen(&runtime, way, &binding, &token)?;
        let peer = Peer {
            target: server.target.as_ref(),
            binding: &binding,
            name,
            authority: server.target.authority(),
            patience: options.limit.unwrap_or(PATIENCE),
            seed: options.seed,
        };
        found.push(runtime.block_on(try_all(cases, &peer, || progress.inc(1))));
        notes.extend(server.target.notes());
    }
    progress.finish_and_clear();
    tell_notes(notes);
    Ok(found)
}
