//! `relapse run`: cases on both versions, with a table of verdicts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::builtin::conductor::judge_all;
use crate::report::{json::render as render_json, table::render as render_table};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relapse::{
    Result,
    binding::Binding,
    case::{Case, Vocabulary},
    discover::servers_for,
    external::{Versions, judge_external},
    targets::Url,
    trial::{Ran, Report, TargetName, Trial, option},
    upstream::Upstream,
};
use relapse_core::{
    error::Error,
    judge::verdict::{Judgement, Side},
};
use relapse_simulate::clock::Runtime;

use super::{
    MISUSE, Source, print, servers_named,
    target::{Foreign, Guesses, Named, PythonOptions, Way, profiles_in_front, tell_notes},
    width,
};

/// Which cases run, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// Cases to run: the number of a report (`508` or `#508`), a scenario (`S508-1`), the name of a case, a glob over
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
    /// Run each version of a service of yours this often: a failure that comes and goes is shown when one run shows it, and
    /// fixed when none does any more.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "target", value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeat: u16,
    /// How many trials run at a time; as many as there are cores without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    url: UrlOptions,
}

/// Cases on external servers.
#[derive(Debug, Clone, Args)]
struct UrlOptions {
    /// Run on this instead of the built-in backend: a server, `http://`, `https://`, `ws://` or `wss://`, host and port, or a
    /// Python application, `asgi:package.module:app`, and ` @ DIR` behind it where it is elsewhere. PASSED says that the
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

/// How many requests a server of the user's own gets at most, unless they say otherwise.
const REQUESTS_MAX: usize = 1000;

/// The limit on requests to an external server.
#[derive(Debug, Clone, Args)]
pub(super) struct Allowance {
    /// How many requests each server gets at most.
    #[arg(long, value_name = "N", default_value_t = REQUESTS_MAX, requires = "target")]
    max_requests: usize,
    /// How many requests each server gets in a second at most: as many as come on this machine, 10 elsewhere.
    #[arg(long, value_name = "N", requires = "target", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
}

impl Allowance {
    /// The arguments that say the same.
    pub(super) fn arguments(&self) -> Vec<String> {
        let most = (self.max_requests != REQUESTS_MAX).then(|| ("--max-requests", self.max_requests.to_string()));
        let rate = self.rate.map(|rate| ("--rate", rate.to_string()));
        most.into_iter().chain(rate).flat_map(|(name, value)| option(name, value)).collect()
    }

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
    let servers = servers_for(&cases)?;
    if let Some(target) = &options.url.target {
        return run_on(options, target, &cases, broken, start);
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
    let trials = trials.into_iter().map(Ran::OnBackend).zip(judgements).collect();
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

/// Runs the cases on a target of the user's own, behind every profile that is named.
fn run_on(options: &Options, target: &Named, cases: &[Arc<Case>], broken: Vec<Error>, start: Instant) -> Result<u8> {
    let url = &options.url;
    let all: Vec<&Named> = url.before.iter().chain([target]).collect();
    let is_in_order =
        |named: &&Named| named.is_comparable(target) && named.is_in_order(&url.python, &options.profile, &url.foreign);
    if !all.iter().all(is_in_order) {
        return Ok(MISUSE);
    }
    if cases.is_empty() {
        // Nothing is installed and nothing is contacted for cases that cannot be read.
        return Ok(MISUSE);
    }
    let fronts = profiles_in_front(target, &url.python, &options.profile)?;
    url.python.tell_left_out()?;
    // Cases in a service's own words say everything that is said.
    let is_said = !url.foreign.has_binding() && cases.iter().all(|case| case.vocabulary == Vocabulary::Own);
    let introduced = match is_said {
        true => Some((Binding::unknown(), String::new())),
        false => target.introduced(&url.foreign)?,
    };
    let Some((binding, token)) = introduced else { return Ok(MISUSE) };
    let progress = progress(cases.len() * fronts.len(), "cases");
    let (mut trials, mut shutdown) = (Vec::new(), Vec::new());
    for profile in &fronts {
        let name = Arc::new(named(options, target, profile.as_deref()));
        let (judgements, ends) =
            run_behind(options, target, profile.as_deref(), cases, &binding, &token, || progress.inc(1))?;
        trials.extend(cases.iter().map(|case| Ran::On(Arc::clone(&name), Arc::clone(case))).zip(judgements));
        shutdown.extend(ends);
    }
    progress.finish_and_clear();
    shutdown.dedup();
    Ok(tell(options, &Report { trials, broken, shutdown, seed: options.seed, wall: start.elapsed() }))
}

/// Runs the cases behind one front; what was judged, and what went wrong when the app was stopped.
fn run_behind(
    options: &Options,
    target: &Named,
    profile: Option<&str>,
    cases: &[Arc<Case>],
    binding: &Binding,
    token: &str,
    done: impl Fn(),
) -> Result<(Vec<Judgement>, Vec<String>)> {
    let (url, python) = (&options.url, &options.url.python);
    let runtime = Runtime::new(target.clock(python));
    let way = Way { allowance: &url.allowance, python, profile, guesses: Guesses::Apart, seed: options.seed };
    let version = |named: &Named| named.version(&runtime, way, binding, token);
    let before = url.before.as_ref().map(version).transpose()?;
    let repeat = usize::from(options.repeat);
    let versions = Versions { binding: binding.clone(), before, after: version(target)?, repeat };
    let judgements = runtime.block_on(judge_external(cases, &versions, options.seed, done));
    tell_notes(versions.running().flat_map(|(_, external)| external.target.notes()));
    let mut shutdown = Vec::new();
    for (side, external) in versions.running() {
        let ends = runtime.block_on(external.shut_down())?;
        // How the version with the bug ends is in the past.
        if side == Side::After {
            shutdown.extend(ends);
        }
    }
    Ok((judgements, shutdown))
}

/// The target as the command line names it, behind one front.
fn named(options: &Options, target: &Named, profile: Option<&str>) -> TargetName {
    let url = &options.url;
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |name: &str, value: String| arguments.extend(option(name, value));
    url.before.iter().for_each(|before| add("--before", before.to_string()));
    add("--target", target.to_string());
    if let Some(profile) = profile.filter(|_| !options.profile.is_empty()) {
        add("--profile", profile.to_owned());
    }
    if options.repeat > 1 {
        add("--repeat", options.repeat.to_string());
    }
    if let Some(directory) = &options.source.cases {
        add("--cases", directory.display().to_string());
    }
    arguments.extend(url.allowance.arguments());
    arguments.extend(url.python.arguments().into_iter().chain(url.foreign.arguments()));
    TargetName {
        kind: target.kind(&url.python),
        target: target.to_string(),
        before: url.before.as_ref().map(Named::to_string),
        profile: profile.map(str::to_owned),
        server: url.python.server_name(),
        arguments,
    }
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
