//! `relapse run`: cases on their twins, with a table of verdicts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relapse::{
    Binding, Case, Error, Profile, Report, Result, Runtime, Servers, Trial, Upstream, Url, judge_all, judge_bound,
    render_json, render_table, servers,
};

use super::{
    MISUSE, Source, complain_of, print, servers_named,
    target::{Foreign, Guesses, Named, PythonOptions, Way, tell_notes},
    width,
};

/// Which cases run, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// What to run: the number of a report (`508` or `#508`), a scenario (`S508-1`), the name of a case, a glob over
    /// names, or a case file. All cases without one.
    filters: Vec<String>,
    /// Run behind this server profile instead of those the cases name; may be given more than once, as a glob too, and `all`
    /// for all.
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// Run only in this environment; may be given more than once.
    #[arg(long, value_name = "NAME", value_parser = ["development", "testing", "staging", "production"])]
    environment: Vec<String>,
    /// The seed, the only source of chance. The same seed gives the same transcripts, byte for byte.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print the verdicts.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// How many trials run at a time; as many as there are cores without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    url: UrlOptions,
}

/// Cases on servers that are not ours.
#[derive(Debug, Clone, Args)]
struct UrlOptions {
    /// Run on this instead of the embedded backend: a server, `http://`, `https://`, `ws://` or `wss://`, host and port, or a
    /// Python application, `asgi:package.module:app`, and ` @ DIR` behind it where it is elsewhere. FIXED then says that the
    /// trigger gives an accepted answer; that it ever failed only --before shows.
    #[arg(long, visible_alias = "after", value_name = "URL|asgi:MODULE:APP")]
    target: Option<Named>,
    /// The one that should show what was reported.
    #[arg(long, value_name = "URL|asgi:MODULE:APP", requires = "target")]
    before: Option<Named>,
    #[command(flatten)]
    python: PythonOptions,
    #[command(flatten)]
    foreign: Foreign,
    #[command(flatten)]
    allowance: Allowance,
}

/// How much a server that is not ours is asked.
#[derive(Debug, Clone, Args)]
pub(super) struct Allowance {
    /// How many requests each server gets at most.
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "target")]
    max_requests: usize,
    /// How many requests each server gets in a second at most: as many as come on this machine, 10 elsewhere.
    #[arg(long, value_name = "N", requires = "target", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
}

impl Allowance {
    /// For a command that asks little, whatever the answers are.
    pub(super) const UNLIMITED: Allowance = Allowance { max_requests: usize::MAX, rate: None };

    /// The server, to be asked so much.
    pub(super) fn server(&self, upstream: &Upstream, binding: &Binding, token: &str) -> Url {
        let rate = self.rate.or((!upstream.is_loopback()).then_some(RATE));
        let pause = rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate);
        Url::new(upstream.clone(), binding, token.to_owned(), self.max_requests, pause)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    Human,
    /// One JSON document.
    Json,
}

/// Runs the cases; the exit code is the report's.
pub(super) fn run(options: &Options) -> Result<u8> {
    #[expect(clippy::disallowed_methods, reason = "the command says how long it took")]
    let start = Instant::now();
    let (cases, broken) = options.source.select(&options.filters)?;
    let servers = servers()?;
    if let Some(target) = &options.url.target {
        return run_on(options, target, &cases, broken, &servers, start);
    }
    if options.url.python.is_out_of_place() {
        return Ok(MISUSE);
    }
    let instead = if options.profile.is_empty() { None } else { Some(servers_named(&options.profile)?) };
    let mut trials = Trial::of(&cases, &servers, instead.as_deref());
    if !options.environment.is_empty() {
        trials.retain(|trial| options.environment.iter().any(|name| name == trial.environment.name()));
    }
    let jobs = options.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let progress = progress(trials.len(), "trials");
    let judgements = judge_all(&trials, options.seed, jobs, &|| progress.inc(1));
    progress.finish_and_clear();
    let trials = trials.into_iter().zip(judgements).collect();
    Ok(tell(options, &Report { trials, broken, shutdown: Vec::new(), seed: options.seed, wall: start.elapsed() }))
}

/// Prints a report; its exit code.
fn tell(options: &Options, report: &Report) -> u8 {
    match options.format {
        Format::Human if report.trials.is_empty() => {}
        Format::Human => print(render_table(report, width()).trim_end()),
        Format::Json => print(render_json(report)),
    }
    report.exit_code()
}

/// Runs the cases on what is not ours.
fn run_on(
    options: &Options,
    target: &Named,
    cases: &[Arc<Case>],
    broken: Vec<Error>,
    known: &[Arc<Profile>],
    start: Instant,
) -> Result<u8> {
    let url = &options.url;
    if options.profile.len() > 1 {
        complain_of("one --profile stands in front of an application of yours");
        return Ok(MISUSE);
    }
    let all: Vec<&Named> = url.before.iter().chain([target]).collect();
    let is_in_order =
        |named: &&Named| named.is_comparable(target) && named.is_in_order(&url.python, &options.profile, &url.foreign);
    if !all.iter().all(is_in_order) {
        return Ok(MISUSE);
    }
    url.python.tell_left_out()?;
    let Some((binding, token)) = target.introduced(&url.foreign)? else { return Ok(MISUSE) };
    let runtime = Runtime::new(target.clock(&url.python));
    let (allowance, python) = (&url.allowance, &url.python);
    let profile = options.profile.first().map(String::as_str);
    let way = Way { allowance, python, profile, guesses: Guesses::Checked, seed: options.seed };
    let reach = |named: &Named| named.reach(&runtime, way, &binding, &token);
    let before = url.before.as_ref().map(reach).transpose()?;
    let servers = Servers { binding: binding.clone(), before, after: reach(target)? };
    let trials = Trial::behind(&format!("{target}{}", url.python.server_argument()), cases, &known[0]);
    let progress = progress(trials.len(), "cases");
    let judgements = runtime.block_on(judge_bound(cases, &servers, options.seed, || progress.inc(1)));
    progress.finish_and_clear();
    tell_notes(servers.before.iter().chain([&servers.after]).flat_map(|server| server.notes()));
    if let Some(before) = &servers.before {
        runtime.block_on(before.shut_down())?;
    }
    let shutdown = runtime.block_on(servers.after.shut_down())?;
    let trials = trials.into_iter().zip(judgements).collect();
    Ok(tell(options, &Report { trials, broken, shutdown, seed: options.seed, wall: start.elapsed() }))
}

/// How many requests a second a server gets that is not on this machine.
pub(super) const RATE: u32 = 10;

/// A bar on a terminal, nothing where standard error is piped.
pub(super) fn progress(length: usize, what: &str) -> ProgressBar {
    styled(Some(length as u64), &format!("{{bar:40}} {{pos}}/{{len}} {what} {{msg}}"))
}

/// The same, for work that ends by the clock.
pub(super) fn progress_by_time(what: &str) -> ProgressBar {
    styled(None, &format!("{{spinner}} {{elapsed}} {{pos}} {what} {{msg}}"))
}

fn styled(length: Option<u64>, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr()).with_style(style)
}
