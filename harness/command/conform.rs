//! `relapse conform`: how far a server keeps RFC 6455, frame by frame.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use relapse::{
    Clock, Conformance, FrameCase, PATIENCE, Peer, Result, Runtime, Upstream, conform as try_all, conform_embedded,
    frame_cases, render_conformance, render_conformance_json, servers,
};

use super::{
    MISUSE, complain_of, print,
    run::{Allowance, progress},
    servers_named,
    validate::{Foreign, token},
    width,
};

/// What is tried, and on what.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// What to try: the name of a case or its last part, a section as in `5.5.2`, or a glob over names as in `5.5*`. All
    /// cases without one.
    patterns: Vec<String>,
    /// Behind which server profile the embedded backend stands; may be given more than once, as a glob too; all
    /// without it.
    #[arg(long, visible_alias = "profile", value_name = "NAME", conflicts_with = "target")]
    server: Vec<String>,
    /// Try this server instead of the embedded backend: `http://`, `https://`, `ws://` or `wss://`, host and port.
    #[arg(long, value_name = "URL")]
    target: Option<Upstream>,
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
        Some(target) => on_url(options, target, &cases)?,
        None => on_embedded(options, &cases)?,
    };
    match options.format {
        _ if found.is_empty() => {}
        Format::Human => print(render_conformance(&found, width()).trim_end()),
        Format::Json => print(render_conformance_json(&found)),
    }
    Ok(found.iter().map(Conformance::exit_code).max().unwrap_or(MISUSE))
}

fn on_embedded(options: &Options, cases: &[Arc<FrameCase>]) -> Result<Vec<Conformance>> {
    let servers = if options.server.is_empty() { servers() } else { servers_named(&options.server) }?;
    let progress = progress(cases.len() * servers.len(), "cases");
    let behind = |profile| conform_embedded(cases, profile, Clock::Virtual, options.seed, || progress.inc(1));
    let found = servers.iter().map(behind).collect();
    progress.finish_and_clear();
    found
}

/// Nothing where the server may not or cannot be asked, which is complained of.
fn on_url(options: &Options, target: &Upstream, cases: &[Arc<FrameCase>]) -> Result<Vec<Conformance>> {
    if !options.foreign.allows(target) {
        return Ok(Vec::new());
    }
    let binding = options.foreign.binding()?;
    let found = Runtime::new(Clock::Real).block_on(async {
        let url = options.allowance.server(target, &binding, &token(&binding).await?);
        let peer = Peer {
            target: &url,
            binding: &binding,
            name: target.to_string(),
            authority: target.authority(),
            patience: options.limit.unwrap_or(PATIENCE),
            seed: options.seed,
        };
        let progress = progress(cases.len(), "cases");
        let found = try_all(cases, &peer, || progress.inc(1)).await;
        progress.finish_and_clear();
        Ok(found)
    });
    Ok(found.map_err(|why: String| complain_of(&why)).into_iter().collect())
}
