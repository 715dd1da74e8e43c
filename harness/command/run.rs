//! `relapse run`: cases on their twins, with a table of verdicts.

use std::time::Instant;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relapse::{Report, Result, Trial, judge_all, render_json, render_table, servers};

use super::{Source, print, server, width};

/// Which cases run, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// What to run: the number of a report (`508` or `#508`), a scenario (`S508-1`), the name of a case, a glob over
    /// names, or a case file. All cases without one.
    filters: Vec<String>,
    /// Run behind this server profile instead of those the cases name; may be given more than once, `all` for all.
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
    let instead = match options.profile.as_slice() {
        [] => None,
        names if names.iter().any(|name| name == "all") => Some(servers.clone()),
        names => Some(names.iter().map(|name| server(name)).collect::<Result<Vec<_>>>()?),
    };
    let mut trials = Trial::of(&cases, &servers, instead.as_deref());
    if !options.environment.is_empty() {
        trials.retain(|trial| options.environment.iter().any(|name| name == trial.environment.name()));
    }
    let jobs = options.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let progress = progress(trials.len(), "trials");
    let judgements = judge_all(&trials, options.seed, jobs, &|| progress.inc(1));
    progress.finish_and_clear();
    let report = Report {
        trials: trials.into_iter().zip(judgements).collect(),
        broken,
        seed: options.seed,
        wall: start.elapsed(),
    };
    match options.format {
        Format::Human if report.trials.is_empty() => {}
        Format::Human => print(render_table(&report, width()).trim_end()),
        Format::Json => print(render_json(&report)),
    }
    Ok(report.exit_code())
}

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
