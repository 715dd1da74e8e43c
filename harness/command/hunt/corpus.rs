//! `relapse hunt --corpus`: a hunt without a hint on each service of a corpus, with its mistake and repaired.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use relapse::{
    corpus::{Corpus, CorpusService, CorpusVersion, ExpectedFinding},
    deadline::Deadline,
    hunt::{Coverage, Found, Hunt, HuntWatch, hunt_all},
};
use relapse_core::{error::Error, judge::verdict::FindingKey};
use relapse_simulate::memory::LargeSlot;
use std::collections::BTreeSet;

use super::{HuntArgs, HuntTarget, again, hunt_for, shut_down};
use crate::{
    error::{CommandResult, Failure, UsageError},
    exit_code::CommandExit,
    interrupt::{end_in_order, was_asked_to_end},
    jobs,
    output::{
        ProgressReport, complain_about, complain_of_one, in_words, note, print_page, progress, reason, tell_progress,
        width,
    },
    report::corpus::{CorpusFinding, CorpusReport, FoundMistake, OnFix, OnMistake, ServiceReport},
    reproducers::Reproducers,
    target::{TargetSpec, profiles_in_front},
};

/// The server in front unless another one is named: the one that the requirement sets of the corpus pin.
const PROFILE: &str = "uvicorn-0.54";

/// How long each version of a service is hunted on, unless something else limits the hunt.
const TIME: Duration = Duration::from_secs(60);

/// A corpus instead of a target.
#[derive(Debug, Clone, Args)]
pub(super) struct CorpusArgs {
    /// Hunt on the services of this corpus
    ///
    /// Each is a folder with a mistake (`app.py`), its repair (`fixed.py`), and how the finding is told from others
    /// (`mistake.toml`). Both are hunted on without a hint for 60 s each, or for --time or --cases, on one core and behind
    /// uvicorn-0.54, or --profile. As many hunts as --jobs says run at a time, one without it.
    #[arg(long, value_name = "DIR", conflicts_with_all = [
        "target", "before", "detection", "merge", "defect", "shard", "capsules", "write_pytest", "check_determinism",
        "faults", "legal_only", "hostile", "binding", "path", "recorded", "dir", "factory", "server",
    ])]
    pub(super) corpus: Option<PathBuf>,
    /// The services of the corpus, by name or glob; all of them without one
    #[arg(value_name = "NAME", requires = "corpus")]
    services: Vec<String>,
}

/// A hunt on each service of a corpus.
#[derive(Debug)]
pub(crate) struct CorpusHunt {
    /// The services, and what cannot be read.
    pub(crate) corpus: Corpus,
    /// The server in front of them.
    pub(crate) profile: String,
    /// How long each version is hunted on; `None` where the number of cases ends it.
    pub(crate) time: Option<Duration>,
    /// How many cases each hunt has at most; `None` where the time ends it.
    pub(crate) cases: Option<u64>,
}

impl HuntArgs {
    pub(super) fn plan_on_corpus(&self, directory: &Path) -> CommandResult<CorpusHunt> {
        if self.service_file.has_binding() {
            return Err(UsageError::HintForCorpus.into());
        }
        let corpus = Corpus::read(directory, &self.corpus.services)?;
        let Some(first) = corpus.services.first() else { return Err(Failure::NoCase(corpus.broken)) };
        let target = target_of(first, CorpusVersion::Mistaken);
        let named = if self.profile.is_empty() { &[PROFILE.to_owned()][..] } else { &self.profile };
        let mut profiles = profiles_in_front(&target, &self.python, named)?.into_iter().flatten();
        let profile = profiles.next().expect("a Python application in memory is behind a profile");
        if profiles.next().is_some() {
            return Err(UsageError::CorpusBehindSeveral { first: profile }.into());
        }
        let time = self.time.or(self.cases.is_none().then_some(TIME));
        Ok(CorpusHunt { corpus, profile, time, cases: self.cases })
    }
}

/// A version of a service as a target.
fn target_of(service: &CorpusService, version: CorpusVersion) -> TargetSpec {
    let directory = service.directory.display().to_string();
    let places = [directory].into_iter().chain(service.requirements.clone()).collect();
    TargetSpec::python(format!("{}:app", version.module()), places)
}

/// Hunts on each service, and prints which mistakes are found.
pub(super) fn hunt_on_corpus(args: &HuntArgs, plan: &CorpusHunt) -> CommandResult {
    end_in_order("stopping, with a report on the services so far; a second signal ends at once");
    plan.corpus.broken.iter().for_each(complain_about);
    let services = &plan.corpus.services;
    let progress = progress(services.len() * CorpusVersion::ALL.len(), "hunts");
    let (next, tried) = (Mutex::new(services.iter().enumerate()), Tried::default());
    let large = LargeSlot::default();
    let work = || {
        loop {
            let taken = next.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((number, service)) = taken else { return };
            let report =
                ServiceHunt { args, plan, service, progress: &progress, tried: &tried, large: &large }.report();
            tried.lock().unwrap_or_else(PoisonError::into_inner).push((number, report));
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<ScopedJoinHandle<'_, ()>> =
            (1..jobs(args.jobs.or(Some(1)))).map(|_| scope.spawn(work)).collect();
        work();
        others.into_iter().for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    });
    progress.finish_and_clear();
    let mut tried = tried.into_inner().unwrap_or_else(PoisonError::into_inner);
    tried.sort_by_key(|(number, _)| *number);
    let report = CorpusReport {
        profile: plan.profile.clone(),
        seed: args.seed,
        time: plan.time,
        cases: plan.cases,
        services: tried.into_iter().map(|(_, report)| report).collect(),
        broken: plan.corpus.broken.iter().map(in_words).collect(),
    };
    print_page(&(args.format.pages.corpus)(&report, width()));
    Ok(CommandExit::from(report.conclusion()))
}

/// The services that were hunted on, each with its place among all.
type Tried = Mutex<Vec<(usize, ServiceReport)>>;

/// The hunts on both versions of a service.
struct ServiceHunt<'a> {
    args: &'a HuntArgs,
    plan: &'a CorpusHunt,
    service: &'a CorpusService,
    progress: &'a ProgressReport,
    tried: &'a Tried,
    /// The room for the large run of all hunts that go on at the same time.
    large: &'a LargeSlot,
}

/// The hunt on one version that has come to its end.
struct VersionHunt {
    args: HuntArgs,
    found: Vec<Found>,
    /// The problems with the end of the service, when it was told to stop.
    shutdown: BTreeSet<String>,
    first: Option<Sighting>,
    took: Duration,
}

impl ServiceHunt<'_> {
    fn report(&self) -> ServiceReport {
        let CorpusService { name, mistake, source, finding, .. } = self.service;
        ServiceReport {
            service: name.clone(),
            mistake: mistake.clone(),
            source: source.clone(),
            route: finding.route.as_ref().map(ToString::to_string),
            symptom: finding.symptoms(),
            on_mistake: self.hunt(CorpusVersion::Mistaken).map(|hunted| self.on_mistake(&hunted)),
            on_fix: self.hunt(CorpusVersion::Repaired).map(|hunted| self.on_fix(&hunted)),
        }
    }

    /// Hunts on a version, or says why it cannot be hunted on.
    fn hunt(&self, version: CorpusVersion) -> Result<VersionHunt, String> {
        let file = self.service.file(version).display().to_string();
        self.tell_begin(&file);
        let hunted = match was_asked_to_end() {
            true => Err(Error::TimeIsOver.into()),
            false => self.hunt_on(version),
        };
        self.progress.inc(1);
        match hunted {
            // More might have been found.
            Ok(_) | Err(_) if was_asked_to_end() => Err("it was asked to end".to_owned()),
            Ok(hunted) => Ok(hunted),
            Err(failure) => {
                let why = reason(&failure);
                self.progress.suspend(|| complain_of_one(&file, &why));
                Err(why)
            }
        }
    }

    /// Says which hunt begins, and what was found before.
    fn tell_begin(&self, file: &str) {
        let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let count = CorpusReport::count(tried.iter().map(|(_, report)| report));
        tell_progress(self.progress, &format!("{count}; on {file}"));
    }

    fn hunt_on(&self, version: CorpusVersion) -> CommandResult<VersionHunt> {
        let target = target_of(self.service, version);
        let args = HuntArgs {
            target: HuntTarget::Own(target.clone()),
            time: self.plan.time,
            profile: vec![self.plan.profile.clone()],
            ..self.args.clone()
        };
        let introduction = target.introduce(&args.python, &args.service_file)?;
        let file = self.service.file(version).display().to_string();
        let tell = |text: &str| self.progress.suspend(|| note(&format!("{file}: {text}")));
        let hunt = hunt_for(&args, &target, Some(&self.plan.profile), &introduction, Deadline::NEVER, tell)?;
        // The time is for the hunt, and the service has started by now.
        let hunt = Hunt { deadline: args.deadline(), large: self.large.clone(), ..hunt };
        let watch = MistakeWatch::on(&self.service.finding);
        let campaign = hunt_all(&hunt, 1, &watch)?;
        let took = watch.start.elapsed();
        let unfinished = campaign.unfinished.line();
        unfinished.lines().for_each(tell);
        if let Some((seed, text)) = campaign.unfinished.internal_errors.into_iter().next() {
            return Err(Error::HarnessPanicked { seed, text }.into());
        }
        let (shutdown, first) = (shut_down(&hunt)?, watch.into_first());
        Ok(VersionHunt { args, found: campaign.found, shutdown, first, took })
    }

    fn on_mistake(&self, hunted: &VersionHunt) -> OnMistake {
        let expected = &self.service.finding;
        let found = hunted.found.iter().filter(|found| expected.is(found)).min_by_key(|found| found.number);
        let found = found.map(|found| {
            let first = hunted.first.as_ref();
            FoundMistake {
                cases: first.and_then(|first| first.number).unwrap_or(found.number),
                after: first.map_or(hunted.took, |first| first.after),
                finding: self.finding(&hunted.args, found),
            }
        });
        OnMistake { found, others: self.findings(hunted, |found| !expected.is(found)) }
    }

    fn on_fix(&self, hunted: &VersionHunt) -> OnFix {
        let is_known = |found: &Found| self.service.known.iter().any(|known| known.is(found));
        let known = hunted.found.iter().filter(|found| is_known(found)).map(|found| self.finding(&hunted.args, found));
        OnFix { known: known.collect(), false_findings: self.findings(hunted, |found| !is_known(found)) }
    }

    /// The findings of a hunt that are to be listed.
    fn findings(&self, hunted: &VersionHunt, is_listed: impl Fn(&Found) -> bool) -> Vec<CorpusFinding> {
        let found = hunted.found.iter().filter(|found| is_listed(found));
        let found = found.map(|found| self.finding(&hunted.args, found));
        found.chain(hunted.shutdown.iter().map(|complaint| CorpusFinding::of_shutdown(complaint))).collect()
    }

    fn finding(&self, args: &HuntArgs, found: &Found) -> CorpusFinding {
        let (_, again) = again(args, Some(&self.plan.profile), found, &Reproducers::of(None));
        CorpusFinding::of(found, again)
    }
}

/// When the finding that shows a mistake is seen for the first time.
struct MistakeWatch<'a> {
    expected: &'a ExpectedFinding,
    start: Instant,
    first: Mutex<Option<Sighting>>,
}

/// The first time that a finding is seen.
struct Sighting {
    /// The case, counted from 1, if that is known.
    number: Option<u64>,
    after: Duration,
}

impl MistakeWatch<'_> {
    fn on(expected: &ExpectedFinding) -> MistakeWatch<'_> {
        #[expect(clippy::disallowed_methods, reason = "the command says how long it took")]
        let start = Instant::now();
        MistakeWatch { expected, start, first: Mutex::default() }
    }

    fn see(&self, number: Option<u64>) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| Sighting { number, after: self.start.elapsed() });
    }

    fn into_first(self) -> Option<Sighting> {
        self.first.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HuntWatch for MistakeWatch<'_> {
    fn found(&self, found: &Found) {
        if self.expected.is(found) {
            self.see(Some(found.number));
        }
    }

    /// Of several new findings of one case, only one is told above.
    fn reached(&self, _: &Coverage, keys: &BTreeSet<FindingKey>) {
        if keys.iter().any(|key| self.expected.is_key(key, &[])) {
            self.see(None);
        }
    }
}
