//! `relapse replay`: what hunts found, again.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::builtin::{
    self,
    conductor::{KNOWN, judge_all},
};
use crate::report::{json::render as render_json, table::render as render_table};
use clap::{Args, ValueEnum};
use relapse::{
    Result,
    discover::{Catalogue, servers_for},
    trial::{Ran, Report, Trial},
};
use relapse_core::error::Error;

use super::{MISUSE, Moved, complain, moved, print, run::progress, width};

/// Which reproducers are replayed.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// Reproducer files; all of `--reproducers` without one.
    capsule: Vec<PathBuf>,
    /// Where reproducers are: `fixtures/capsules`, or `reproducers` where there is no `fixtures`.
    #[arg(long = "reproducers", value_name = "DIR")]
    capsules: Option<PathBuf>,
    #[arg(long = "capsules", hide = true, value_name = "DIR", value_parser = |_: &str| moved("--reproducers"))]
    _capsules: Option<Moved>,
    /// How to print the verdicts.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// How many reproducers run at a time; as many as there are cores without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    Human,
    /// One JSON document.
    Json,
}

/// Replays reproducers; the exit code is the report's.
pub(super) fn replay(options: &Options) -> Result<u8> {
    builtin::is_there()?;
    let jobs = options.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let directory = capsule_directory(options.capsules.as_deref());
    let report =
        if options.capsule.is_empty() { replay_all(&directory, jobs)? } else { Some(judge(&options.capsule, jobs)?) };
    let Some(report) = report else {
        print(format!("there is no reproducer in {}", directory.display()));
        return Ok(MISUSE);
    };
    report.broken.iter().for_each(complain);
    match options.format {
        Format::Human if report.trials.is_empty() => {}
        Format::Human => print(render_table(&report, width()).trim_end()),
        Format::Json => print(render_json(&report)),
    }
    Ok(report.exit_code())
}

/// The directory named, or where reproducers are kept here.
pub(super) fn capsule_directory(named: Option<&Path>) -> PathBuf {
    match named {
        Some(directory) => directory.to_owned(),
        None if Path::new("fixtures").is_dir() => PathBuf::from("fixtures/capsules"),
        None => PathBuf::from("reproducers"),
    }
}

/// Replays every reproducer of a directory; nothing where there is none.
pub(super) fn replay_all(directory: &Path, jobs: usize) -> Result<Option<Report>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { doing: "read the directory", path: directory.to_owned(), source }),
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    paths.sort();
    if paths.is_empty() { Ok(None) } else { judge(&paths, jobs).map(Some) }
}

fn judge(paths: &[PathBuf], jobs: usize) -> Result<Report> {
    /// Reproducers bring their own.
    const SEED: u64 = 1;
    #[expect(clippy::disallowed_methods, reason = "the command says how long it took")]
    let start = Instant::now();
    let mut catalogue = Catalogue::knowing(KNOWN);
    for path in paths {
        catalogue.add(path)?;
    }
    let trials = Trial::of(&catalogue.cases, &servers_for(&catalogue.cases)?, None);
    let progress = progress(trials.len(), "reproducers");
    let judgements = judge_all(&trials, SEED, jobs, &|| progress.inc(1));
    progress.finish_and_clear();
    let trials = trials.into_iter().map(Ran::OnBackend).zip(judgements).collect();
    Ok(Report { trials, broken: catalogue.broken, shutdown: Vec::new(), seed: SEED, wall: start.elapsed() })
}
