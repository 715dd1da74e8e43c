//! `relapse replay`: what hunts found, again.

use crate::builtin::{
    self,
    runner::{KNOWN, judge_all},
};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use relapse::{
    Result,
    case::Vocabulary,
    deadline::Deadline,
    discover::{Catalogue, embedded_reproducers, servers_for},
    trial::{Ran, Report, Trial},
};
use relapse_core::error::Error;

use super::{
    Moved,
    error::{CommandResult, UsageError},
    exit_code::CommandExit,
    interrupt::{end_in_order, end_request},
    jobs, moved,
    output::{complain_about, print_page, progress, width},
    report::formats::Format,
};

/// Which reproducers are replayed.
#[derive(Debug, Clone, Args)]
pub(super) struct ReplayArgs {
    /// Reproducer files, or `embedded:NAME`; all of `--reproducers` without one.
    capsule: Vec<PathBuf>,
    /// Where reproducers are; those that are inside this command, and those in `reproducers`, without it.
    #[arg(long = "reproducers", value_name = "DIR")]
    capsules: Option<PathBuf>,
    #[arg(long = "capsules", hide = true, value_name = "DIR", value_parser = |_: &str| moved("--reproducers"))]
    _capsules: Option<Moved>,
    /// How to print the verdicts.
    #[arg(long, default_value = "human", value_parser = Format::parser(|renderer| renderer.verdicts))]
    format: Format<fn(&Report, usize) -> String>,
    /// How many reproducers run at a time, at most 32; as many as there are cores without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
}

/// The reproducers that are replayed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReplayPlan {
    files: Vec<PathBuf>,
    /// How many run at a time.
    jobs: usize,
}

impl ReplayArgs {
    pub(super) fn plan(&self) -> CommandResult<ReplayPlan> {
        builtin::is_there()?;
        let files = match self.capsule.as_slice() {
            [] => {
                let files = reproducers(self.capsules.as_deref())?;
                if files.is_empty() {
                    let path = capsule_directory(self.capsules.as_deref());
                    return Err(UsageError::NoReproducer { path }.into());
                }
                files
            }
            named => named.to_vec(),
        };
        Ok(ReplayPlan { files, jobs: jobs(self.jobs) })
    }
}

/// Replays reproducers; the exit code is the report's.
pub(super) fn replay(args: &ReplayArgs) -> CommandResult {
    let plan = args.plan()?;
    end_in_order("stopping, with a report on the verdicts so far; a second signal ends at once");
    let report = judge(&plan.files, plan.jobs)?;
    report.broken.iter().for_each(complain_about);
    print_page(&(args.format.pages)(&report, width()));
    Ok(CommandExit::from(report.conclusion()))
}

/// The directory named, or where reproducers are kept here.
pub(super) fn capsule_directory(named: Option<&Path>) -> PathBuf {
    named.map_or_else(|| PathBuf::from("reproducers"), Path::to_owned)
}

/// Replays every reproducer in the named directory, or the embedded ones and those in `reproducers` if none is named. Returns
/// `None` if there are no reproducers.
pub(super) fn replay_all(named: Option<&Path>, jobs: usize) -> Result<Option<Report>> {
    match reproducers(named)?.as_slice() {
        [] => Ok(None),
        files => judge(files, jobs).map(Some),
    }
}

/// The reproducers of the directory named. Without one those inside this command, and those kept here that are about the
/// built-in backend.
fn reproducers(named: Option<&Path>) -> Result<Vec<PathBuf>> {
    let kept = reproducers_in(&capsule_directory(named))?;
    if named.is_some() {
        return Ok(kept);
    }
    let mut reproducers: Vec<PathBuf> = embedded_reproducers().collect();
    for path in kept {
        let mut catalogue = Catalogue::knowing(KNOWN);
        catalogue.add(&path)?;
        // A file that is no case is told when it is replayed.
        if catalogue.cases.iter().all(|case| case.vocabulary == Vocabulary::Backend) {
            reproducers.push(path);
        }
    }
    Ok(reproducers)
}

/// The reproducers of a directory, sorted; none where there is no directory.
fn reproducers_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Io { doing: "read the directory", path: directory.to_owned(), source }),
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    paths.sort();
    Ok(paths)
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
    let judgements = judge_all(&trials, SEED, jobs, Deadline::NEVER.or_when(end_request), &|| progress.inc(1));
    progress.finish_and_clear();
    let trials = trials.into_iter().map(Ran::OnBackend).zip(judgements).collect();
    Ok(Report { trials, broken: catalogue.broken, shutdown: Vec::new(), seed: SEED, wall: start.elapsed() })
}
