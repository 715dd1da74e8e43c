//! `relapse hunt`: a generated search for failures without a report.

mod corpus;

use crate::builtin::{self, defect::Defect, revision::Revision, runner::ground};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use relapse::{
    Result,
    deadline::Deadline,
    discover::servers,
    files::{FileLimit, read_text},
    hunt::{
        Campaign, Change, Coverage, ExternalTarget as ForeignPrey, FINDINGS_MAX, FIRST_GENERATION, Found, Greeting,
        Ground, Hunt, HuntWatch, Reproduction, Unfinished, hunt_all,
    },
    trial::{option, shell},
};
use relapse_core::{
    error::Error,
    fault::Place,
    judge::verdict::{Conclusion, FindingKey, Side},
};
use relapse_python::process::CodeCoverage;
use relapse_simulate::clock::{Clock, Runtime};

use self::corpus::{CorpusArgs, CorpusHunt, hunt_on_corpus};
use super::{
    Moved,
    baseline::{BaselineArgs, BaselineRun},
    defect, determinism,
    error::{CommandResult, UsageError},
    exit_code::CommandExit,
    files::{self, Existing},
    interrupt::{end_in_order, end_request, was_asked_to_end},
    jobs, moved,
    output::{
        ProgressReport, complain_about, complain_of, note, print_page, progress, progress_by_time, tell_progress, width,
    },
    pytest::Tests,
    replay::{capsule_directory, replay_all},
    report::{
        formats::{Format, HuntPages, Printing},
        hunt::{ChangeReport, Detection, DetectionFigures, HuntDocument, HuntReport, HuntResult, Hunts},
    },
    reproducers::{KeptCase, Reproducers},
    server,
    target::{
        PythonArgs, RequestBudgetArgs, RouteGuessing, ServiceFileArgs, TARGET, TargetContext, TargetHelp,
        TargetIntroduction, TargetSpec, behind_each, profiles_in_front, tell_notes,
    },
};

/// How many cases are drawn unless something else limits the hunt.
const CASES: u64 = 2000;
/// The same, for each defect that is to be detected.
const CASES_PER_DEFECT: u64 = 20_000;
/// The same, on a server of the user's own.
const CASES_ON_A_SERVER: u64 = 200;
/// How many cases a hunt has that ends by the clock.
const CASES_MAX: u64 = 1_000_000_000;

/// The help of `--target`.
const HELP: TargetHelp = TargetHelp {
    summary: "Hunt on this {} of yours",
    more: "On a server, faults act on the way to it only, and times are real; on a Python application, they act on scopes \
           and events too, and time is virtual. Without it the hunt is on the built-in backend.",
};

/// The target of a hunt, and its length.
#[derive(Debug, Clone, Args)]
pub(super) struct HuntArgs {
    #[arg(help_heading = TARGET, long, visible_alias = "after", value_name = "TARGET", default_value = "backend",
        help = HELP.short(), long_help = HELP.long())]
    target: HuntTarget,
    /// Hunt on this version of it too, and compare
    ///
    /// With the same seeds; tells what the change from it to --target fixed and what it broke.
    #[arg(help_heading = TARGET, long, value_name = "TARGET", requires = "target", conflicts_with_all = ["detection", "defect", "shard", "merge"])]
    before: Option<TargetSpec>,
    /// The server profile in front of a Python application
    ///
    /// May be given more than once, as a glob too; `all` names all. The application is hunted behind each in turn, and
    /// reproducers go into a directory for each.
    #[arg(help_heading = TARGET, long, value_name = "NAME")]
    profile: Vec<String>,
    /// How many cases are drawn
    ///
    /// Without it 2000, or 20000 for each defect with --detection, or 200 on a server of yours, unless --time ends the
    /// hunt.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=CASES_MAX))]
    cases: Option<u64>,
    /// How long to hunt behind each profile, as in `60s` or `5m`
    ///
    /// It is all the time there is, also for the start of an application, for making what is found smaller, for confirming
    /// it and for tests; only what --server and --requirements install is installed before. The cases are not the same from
    /// machine to machine then.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// The first seed; each case has the next one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Hunt one part of so many, as in `2/4`
    ///
    /// The parts of a campaign have no seed in common, and their JSON documents merge.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Only faults at these injection points
    ///
    /// They are `edge`, `scope`, `event`, `dependency` and `process`.
    #[arg(long, value_name = "POINT", value_delimiter = ',', hide_possible_values = true, value_parser = ["edge", "scope", "event", "dependency", "process"])]
    faults: Vec<String>,
    /// Let servers do only what the ASGI specification allows
    ///
    /// It is so anyway on a Python application of yours.
    #[arg(long)]
    legal_only: bool,
    /// Draw scopes and events too that no server makes
    ///
    /// In front of a Python application of yours: what the ASGI specification forbids, and what it allows and no server does.
    #[arg(long, conflicts_with = "legal_only")]
    hostile: bool,
    /// Hunt on the backend with this defect
    ///
    /// Instead of the repaired one. May be given more than once.
    #[arg(long, value_name = "NAME")]
    defect: Vec<String>,
    /// Hunt on each defect of the backend, and print the figures
    ///
    /// On each alone, with no hint, until it is found.
    #[arg(long, conflicts_with_all = ["defect", "shard", "time"])]
    detection: bool,
    #[command(flatten)]
    corpus: CorpusArgs,
    /// Join the JSON documents of a campaign's parts instead
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["detection", "defect", "shard", "time", "cases", "seed", "faults", "legal_only", "capsules", "jobs"])]
    merge: Vec<PathBuf>,
    /// Where reproducers are replayed from and written to
    ///
    /// They are replayed first. Without it those are replayed that are inside this command, and new ones are written to
    /// `reproducers`. Of what is found on a service with defects none is written unless this is given.
    #[arg(long = "reproducers", value_name = "DIR")]
    capsules: Option<PathBuf>,
    #[arg(long = "capsules", hide = true, value_name = "DIR", value_parser = |_: &str| moved("--reproducers"))]
    _capsules: Option<Moved>,
    /// Write each finding on a Python application as a test
    ///
    /// The test needs nothing but the application. It is written into this directory, or this file, `NAME.py`.
    #[arg(long, value_name = "DIR|FILE", conflicts_with = "before")]
    write_pytest: Option<PathBuf>,
    /// How many cases run at a time; as many as cores without it
    ///
    /// At most 32 on the virtual clock, and 4 in real time: each needs memory, and the command takes no more than 256 MiB itself.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Run each case twice instead, and tell the first difference
    ///
    /// With its place in the conversation. A run on the virtual clock can be repeated to the byte unless the
    /// application takes something from outside: real time in C, files, sockets, processes.
    #[arg(long, conflicts_with_all = ["detection", "merge", "before", "write_pytest", "time", "capsules"])]
    check_determinism: bool,
    /// How to print it.
    #[arg(long, default_value = "human", value_parser = Format::parser(|renderer| renderer.hunt))]
    format: Format<HuntPages>,
    #[command(flatten)]
    baseline: BaselineArgs,
    #[command(flatten)]
    service_file: ServiceFileArgs,
    #[command(flatten)]
    budget: RequestBudgetArgs,
    #[command(flatten)]
    python: PythonArgs,
}

#[derive(Debug, Clone)]
enum HuntTarget {
    /// The built-in backend.
    Backend,
    /// A target of the user's own.
    Own(TargetSpec),
}

impl FromStr for HuntTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<HuntTarget, String> {
        if text == "backend" { Ok(HuntTarget::Backend) } else { text.parse().map(HuntTarget::Own) }
    }
}

/// One part of many, counted from 1.
#[derive(Debug, Clone, Copy)]
struct Shard {
    number: u64,
    of: u64,
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let parts = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) && of <= CASES_MAX => Ok(Shard { number, of }),
            _ => Err("write it as in `2/4`: the second of four parts".to_owned()),
        }
    }
}

/// The work of a `hunt`.
pub(super) enum HuntPlan<'a> {
    /// Joins the parts of a campaign.
    Merge(&'a [PathBuf]),
    /// Hunts on each defect of the built-in backend alone.
    Detect(Box<Hunt>),
    /// Hunts on each service of a corpus.
    OnCorpus(Box<CorpusHunt>),
    /// Hunts on the built-in backend.
    OnBackend(Box<Hunt>),
    /// Hunts on a target of the user's own.
    OnTarget(Box<TargetHunt<'a>>),
}

/// Hunts on a target of the user's own, behind each front.
pub(super) struct TargetHunt<'a> {
    /// The versions that are hunted on; the last one is the target.
    pub(super) versions: Vec<&'a TargetSpec>,
    pub(super) fronts: Vec<Option<String>>,
    introduction: TargetIntroduction,
}

impl HuntArgs {
    pub(super) fn plan(&self) -> CommandResult<HuntPlan<'_>> {
        if let Some(directory) = &self.corpus.corpus {
            return Ok(HuntPlan::OnCorpus(Box::new(self.plan_on_corpus(directory)?)));
        }
        match &self.target {
            _ if !self.merge.is_empty() => Ok(HuntPlan::Merge(&self.merge)),
            HuntTarget::Own(target) => Ok(HuntPlan::OnTarget(Box::new(self.plan_on_target(target)?))),
            HuntTarget::Backend if self.detection => Ok(HuntPlan::Detect(Box::new(self.plan_on_backend()?))),
            HuntTarget::Backend => Ok(HuntPlan::OnBackend(Box::new(self.plan_on_backend()?))),
        }
    }

    fn plan_on_backend(&self) -> CommandResult<Hunt> {
        builtin::is_there()?;
        if self.before.is_some() {
            return Err(UsageError::BeforeOfBackend.into());
        }
        self.python.check_absent()?;
        if self.hostile || !self.profile.is_empty() || self.write_pytest.is_some() {
            return Err(UsageError::HuntOptionsOfPython.into());
        }
        let defects = self.defect.iter().map(|name| defect(name)).collect::<Result<Vec<_>>>()?;
        let cases = match (self.cases, self.time, self.detection) {
            (Some(cases), ..) => cases,
            (None, Some(_), _) => CASES_MAX,
            (None, None, true) => CASES_PER_DEFECT,
            (None, None, false) => CASES,
        };
        let mut hunt = Hunt::on(ground(Revision::of(defects)), servers()?, cases);
        hunt.seed = self.seed;
        hunt.legal_only = self.legal_only;
        if !self.faults.is_empty() {
            hunt.places =
                Place::ALL.into_iter().filter(|place| self.faults.iter().any(|name| name == place.name())).collect();
        }
        Ok(self.part(hunt))
    }

    fn plan_on_target<'a>(&'a self, target: &'a TargetSpec) -> CommandResult<TargetHunt<'a>> {
        if self.detection || !self.defect.is_empty() {
            return Err(UsageError::HuntOptionsOfBackend.into());
        }
        let kind = target.kind(&self.python);
        if self.write_pytest.is_some() && !kind.is_played() {
            return Err(UsageError::TestsOfServer.into());
        }
        if self.hostile && !kind.is_loaded() {
            return Err(UsageError::NotLoaded { option: "--hostile", noun: target.noun }.into());
        }
        let versions: Vec<&TargetSpec> = self.before.iter().chain([target]).collect();
        target.check_versions(&versions, &self.python, &self.profile, &self.service_file)?;
        let fronts = profiles_in_front(target, &self.python, &self.profile)?;
        if let (Some(_), [Some(first), _, ..]) = (&self.write_pytest, fronts.as_slice()) {
            return Err(UsageError::TestsOfSeveral { first: first.clone() }.into());
        }
        Ok(TargetHunt { versions, fronts, introduction: target.introduce(&self.python, &self.service_file)? })
    }

    /// The part of a hunt that is hunted.
    fn part(&self, hunt: Hunt) -> Hunt {
        match self.shard {
            Some(Shard { number, of }) => hunt.shard(number, of),
            None => hunt,
        }
    }

    /// Everything that says how versions are reached.
    fn context<'a>(&'a self, profile: Option<&'a str>, deadline: Deadline) -> TargetContext<'a> {
        let (budget, python) = (&self.budget, &self.python);
        TargetContext {
            budget,
            python,
            profile,
            guesses: RouteGuessing::Checked,
            coverage: CodeCoverage::Counted,
            seed: self.seed,
            deadline,
        }
    }
}

/// Hunts.
pub(super) fn hunt(args: &HuntArgs) -> CommandResult {
    let plan = args.plan()?;
    let baseline = args.baseline.plan()?;
    match plan {
        HuntPlan::Merge(parts) => merge(args, parts, baseline),
        HuntPlan::Detect(hunt) => detect(args, &hunt),
        HuntPlan::OnCorpus(hunt) => hunt_on_corpus(args, &hunt),
        HuntPlan::OnBackend(hunt) if args.check_determinism => {
            determinism::of_hunt(&hunt, |number| check_again(args, None, number))
        }
        HuntPlan::OnTarget(hunt) if args.check_determinism => check_on_target(args, &hunt),
        HuntPlan::OnBackend(hunt) => hunt_on_backend(args, &hunt, baseline),
        HuntPlan::OnTarget(hunt) => hunt_on_target(args, &hunt, baseline),
    }
}

/// Replays the reproducers, then hunts on the built-in backend.
fn hunt_on_backend(args: &HuntArgs, hunt: &Hunt, mut baseline: Option<BaselineRun<'_>>) -> CommandResult {
    end_in_order(AT_END);
    let (jobs, pages) = (jobs(args.jobs), args.format.pages);
    let directory = capsule_directory(args.capsules.as_deref());
    let writes = hunt.ground.defects().is_empty() || args.capsules.is_some();
    let replayed = replay_all(args.capsules.as_deref(), jobs)?;
    if let Some(report) = &replayed {
        report.broken.iter().for_each(complain_about);
        print_page(&(pages.replayed)(report, width()));
    }
    #[expect(clippy::disallowed_methods, reason = "the command says how long it took")]
    let start = Instant::now();
    let hunt = &Hunt { deadline: args.deadline(), ..hunt.clone() };
    let reproducers = Reproducers::of(writes.then_some(&*directory));
    let campaign = watched(hunt, jobs, args.time, start, (&reproducers, baseline.as_ref()))?;
    let (mut report, written) =
        keep_and_report(hunt, &campaign, &reproducers, |found| again(args, None, found, &reproducers))?;
    let verdicts = replayed.iter().flat_map(|report| &report.trials);
    report.replayed = verdicts.map(|(ran, judgement)| (ran.case().name.clone(), judgement.verdict)).collect();
    baseline.iter_mut().for_each(|baseline| baseline.judge(&mut report));
    let exit = exit_of(report.conclusion(), report.unfinished.is_nothing());
    let results = vec![(None, HuntResult::Alone(Box::new(report), start.elapsed()))];
    let kept = print_all(pages, results, baseline, 1);
    written?;
    kept?;
    Ok(exit.max(replayed.map_or(CommandExit::Passes, |report| CommandExit::from(report.conclusion()))))
}

/// Prints the results that are not printed yet, with the baseline of all the hunts, which is written before.
fn print_all(
    pages: HuntPages,
    results: Vec<(Option<String>, HuntResult)>,
    baseline: Option<BaselineRun<'_>>,
    hunts: usize,
) -> CommandResult<()> {
    let finished = baseline.map(|baseline| baseline.finish(hunts)).transpose();
    // The findings are printed before the error that the file could not be written.
    let (baseline, kept) = finished.map_or_else(|error| (None, Err(error)), |baseline| (baseline, Ok(())));
    print_page(&(pages.hunts)(&Hunts { results, baseline }));
    kept
}

/// Keeps what was found in the end, and stops what was hunted on. Gives the report, and whether everything could be written,
/// which is to be told after what was found.
fn keep_and_report(
    hunt: &Hunt,
    campaign: &Campaign,
    reproducers: &Reproducers,
    again: impl Fn(&Found) -> (String, String),
) -> Result<(HuntReport, Result)> {
    let written = reproducers.finish(&campaign.found);
    let mut report = HuntReport::of(hunt, campaign, again);
    let stopped = shut_down(hunt).map(|complaints| report.shutdown = complaints);
    Ok((report, written.and(stopped)))
}

/// Tells an application of the user's to stop; what was wrong with that. One that was ended has nothing to say.
fn shut_down(hunt: &Hunt) -> Result<BTreeSet<String>> {
    match hunt.ground.external() {
        Some(foreign) if !hunt.deadline.is_cut() => foreign.shut_down(),
        Some(_) | None => Ok(BTreeSet::new()),
    }
}

/// Where something that was found is kept, and the command that shows it again behind the same profile.
fn again(args: &HuntArgs, profile: Option<&str>, found: &Found, reproducers: &Reproducers) -> (String, String) {
    let file = reproducers.of_finding(found);
    // A reproducer of an earlier hunt stays as it is, and need not show it in the same way.
    let kept = file.as_ref().filter(|kept| kept.shows == KeptCase::Same).map(|kept| kept.path.clone());
    let mut arguments = vec!["relapse".to_owned()];
    match (&kept, &args.target) {
        (Some(path), HuntTarget::Backend) => arguments.extend(["replay".to_owned(), path.clone()]),
        (Some(path), HuntTarget::Own(_)) => arguments.extend(["run".to_owned(), path.clone()]),
        (None, _) => {
            arguments.push("hunt".to_owned());
            // A finding that needs other cases is found again by all of them, and so is a case that others steered.
            let is_own = matches!(args.target, HuntTarget::Own(_));
            let is_by_seed_alone = !is_own || found.number <= FIRST_GENERATION;
            arguments.extend(match found.reproduction {
                Reproduction::Shown | Reproduction::Untried if is_by_seed_alone => {
                    [option("--seed", found.seed.to_string()), option("--cases", "1".to_owned())].concat()
                }
                Reproduction::Shown
                | Reproduction::Untried
                | Reproduction::AfterOthers
                | Reproduction::Unconfirmed
                | Reproduction::SeenOnce => all_up_to(args, found.number),
            });
            arguments.extend(aim(args));
        }
    }
    if let HuntTarget::Own(target) = &args.target {
        args.before.iter().for_each(|before| arguments.extend(option("--before", before.to_string())));
        arguments.extend(aimed_at(args, target, profile));
        // An interpreter starts with the seed of the whole hunt.
        if kept.is_some() && target.kind(&args.python).is_loaded() && args.seed != 1 {
            arguments.extend(option("--seed", args.seed.to_string()));
        }
        let more = [args.budget.arguments(), args.python.arguments(), args.service_file.arguments()];
        arguments.extend(more.concat());
    }
    (file.map(|kept| kept.path).unwrap_or_default(), shell(&arguments))
}

/// A target of the user's own behind the profile that was named, as arguments.
fn aimed_at(args: &HuntArgs, target: &TargetSpec, profile: Option<&str>) -> Vec<String> {
    let mut arguments = option("--target", target.to_string());
    let profile = profile.filter(|_| !args.profile.is_empty());
    profile.iter().for_each(|name| arguments.extend(option("--profile", (*name).to_owned())));
    arguments
}

/// The arguments for all cases up to the one with this number, counted from 1. A part of a campaign is repeated whole, as its
/// numbers are not those of the campaign.
fn all_up_to(args: &HuntArgs, number: u64) -> Vec<String> {
    let seed = option("--seed", args.seed.to_string());
    let cases = match args.shard {
        None => option("--cases", number.to_string()),
        Some(shard) => {
            let cases = args.cases.map(|cases| option("--cases", cases.to_string()));
            [cases.unwrap_or_default(), option("--shard", shard.to_string())].concat()
        }
    };
    [seed, cases].concat()
}

/// The command that runs all cases up to one twice again: an app may be another after other cases.
fn check_again(args: &HuntArgs, profile: Option<&str>, number: u64) -> String {
    let mut arguments: Vec<String> = ["relapse", "hunt", "--check-determinism"].map(str::to_owned).to_vec();
    arguments.extend(all_up_to(args, number));
    arguments.extend(aim(args));
    if let HuntTarget::Own(target) = &args.target {
        arguments.extend(aimed_at(args, target, profile));
        arguments.extend([args.python.arguments(), args.service_file.arguments()].concat());
    }
    shell(&arguments)
}

/// Runs each case on an app twice, behind each profile that is named, until one differs.
fn check_on_target(args: &HuntArgs, plan: &TargetHunt<'_>) -> CommandResult {
    let Some(target) = plan.versions.last() else { unreachable!("one version is there") };
    determinism::check_clock(target.clock(&args.python))?;
    plan.introduction.notes.iter().for_each(|text| note(text));
    for profile in &plan.fronts {
        if was_asked_to_end() {
            break;
        }
        let profile = profile.as_deref();
        let hunt = hunt_for(args, target, profile, &plan.introduction, Deadline::NEVER.or_when(end_request), note)?;
        let exit = determinism::of_hunt(&hunt, |number| check_again(args, profile, number))?;
        shut_down(&hunt)?;
        if exit != CommandExit::Passes {
            return Ok(exit);
        }
    }
    Ok(CommandExit::Passes)
}

/// The front of one hunt of several, or of the only one.
#[derive(Debug, Clone, Copy)]
struct HuntFront<'a> {
    /// The profile; `None` of a target whose server is real.
    profile: Option<&'a str>,
    /// Where reproducers are written.
    directory: &'a Path,
}

/// The result of a hunt behind one front, and its reproducers.
struct Hunted {
    result: HuntResult,
    /// The findings of which tests can be written: those on the only version.
    found: Vec<Found>,
    reproducers: Reproducers,
    /// When everything ends at the latest that belongs to it.
    deadline: Deadline,
    /// Whether every reproducer could be written.
    written: Result,
}

/// Hunts on a target of the user's own, behind each profile that is named.
fn hunt_on_target(args: &HuntArgs, plan: &TargetHunt<'_>, mut baseline: Option<BaselineRun<'_>>) -> CommandResult {
    plan.introduction.notes.iter().for_each(|text| note(text));
    end_in_order(AT_END);
    let directory = args.capsules.clone().unwrap_or_else(|| PathBuf::from("reproducers"));
    let Format { printing, pages } = args.format;
    let (exit, hunts) = behind_each(&plan.fronts, printing, |profile| {
        let own = profile.filter(|_| plan.fronts.len() > 1).map(|name| directory.join(name));
        let front = HuntFront { profile, directory: own.as_deref().unwrap_or(&directory) };
        let mut hunted = hunt_behind(args, plan, front, baseline.as_ref())?;
        if let (Some(baseline), HuntResult::Alone(report, _)) = (&mut baseline, &mut hunted.result) {
            baseline.judge(report);
        }
        let exit = exit_of(hunted.result.conclusion(), hunted.result.is_finished());
        let result = Hunts { results: vec![(None, hunted.result)], baseline: None };
        if printing == Printing::AsItComes {
            print_page(&(pages.hunts)(&result));
        }
        let tested = write_tests(args, plan, front, (&hunted.found, &hunted.reproducers, hunted.deadline));
        match (tested.and(hunted.written), printing) {
            (Ok(()), Printing::AsItComes) => Ok((exit, None)),
            (Ok(()), Printing::AtTheEnd) => Ok((exit, result.results.into_iter().next().map(|(_, result)| result))),
            (Err(error), Printing::AsItComes) => Err(error.into()),
            (Err(error), Printing::AtTheEnd) => {
                // The findings are printed before the error that they could not be kept.
                print_page(&(pages.hunts)(&result));
                Err(error.into())
            }
        }
    })?;
    print_all(pages, hunts, baseline, plan.fronts.len())?;
    Ok(exit)
}

/// Hunts behind one front.
fn hunt_behind(
    args: &HuntArgs,
    plan: &TargetHunt<'_>,
    front: HuntFront<'_>,
    baseline: Option<&BaselineRun<'_>>,
) -> CommandResult<Hunted> {
    #[expect(clippy::disallowed_methods, reason = "the command says how long it took")]
    let start = Instant::now();
    let (deadline, reproducers) = (args.deadline(), Reproducers::of(Some(front.directory)));
    let mut hunted = Vec::new();
    for (number, version) in (1..).zip(&plan.versions) {
        let mut hunt = hunt_for(args, version, front.profile, &plan.introduction, deadline, note)?;
        // Of two versions each has two fifths of the time, and the rest is for trying on one what was found on the other.
        hunt.deadline = if plan.versions.len() > 1 { deadline.part(2 * number, 5) } else { deadline };
        let reproducers = reproducers.beside();
        // The second version gets as many cases as the time allowed on the first.
        let time = args.time.filter(|_| hunted.is_empty());
        if let Some(first) = hunted.last() {
            let first: &HuntedVersion = first;
            hunt.cases = first.campaign.reached.cases;
        }
        let campaign = watched(&hunt, jobs(args.jobs), time, start, (&reproducers, baseline))?;
        tell_notes(hunt.ground.external().into_iter().flat_map(|prey| prey.notes()));
        hunt.deadline = deadline;
        hunted.push(HuntedVersion { hunt, campaign, reproducers });
    }
    let Some(last) = hunted.pop() else { unreachable!("one version is there") };
    if let Some(before) = hunted.pop() {
        return compare(args, before, last, front);
    }
    let HuntedVersion { hunt, campaign, reproducers } = last;
    let (report, written) =
        keep_and_report(&hunt, &campaign, &reproducers, |found| again(args, front.profile, found, &reproducers))?;
    let result = HuntResult::Alone(Box::new(report), start.elapsed());
    Ok(Hunted { result, found: campaign.found, reproducers, deadline, written })
}

/// A version that was hunted on.
struct HuntedVersion {
    hunt: Hunt,
    campaign: Campaign,
    reproducers: Reproducers,
}

/// Writes what was found as tests, where tests are asked for.
fn write_tests(
    args: &HuntArgs,
    plan: &TargetHunt<'_>,
    front: HuntFront<'_>,
    (found, reproducers, deadline): (&[Found], &Reproducers, Deadline),
) -> Result {
    let site = plan.versions.last().and_then(|target| target.site(&args.python).transpose()).transpose()?;
    let (Some(path), Some(site)) = (&args.write_pytest, site) else { return Ok(()) };
    let profile = match front.profile {
        Some(name) => server(name)?,
        None => servers()?.swap_remove(0),
    };
    let TargetIntroduction { binding, token, .. } = &plan.introduction;
    Tests { path, site, binding, token, profile: &profile, deadline }
        .write(found, |found| again(args, front.profile, found, reproducers))
}

/// Compares what was found before a change with what was found after it.
fn compare(
    args: &HuntArgs,
    HuntedVersion { hunt: old, campaign: before, reproducers: of_old }: HuntedVersion,
    HuntedVersion { hunt, campaign, reproducers }: HuntedVersion,
    front: HuntFront<'_>,
) -> CommandResult<Hunted> {
    let mut unfinished = Unfinished::default();
    for campaign in [&before, &campaign] {
        campaign.unfinished.line().lines().for_each(note);
        unfinished.add(campaign.unfinished.clone());
    }
    let progress = progress(before.found.len() + campaign.found.len(), "findings tried on both");
    let change = Change::between((&old, before), (&hunt, campaign), || progress.inc(1))?;
    progress.finish_and_clear();
    // The end of the old version is in the past.
    let stopped = shut_down(&old).map(drop);
    let written = of_old.finish(change.found_on(Side::Before)).and(reproducers.finish(change.found_on(Side::After)));
    let (shutdown, stopped) = match shut_down(&hunt) {
        Ok(complaints) => (complaints, stopped),
        Err(error) => (BTreeSet::new(), stopped.and(Err(error))),
    };
    let (written, deadline) = (written.and(stopped), hunt.deadline);
    let report = ChangeReport::of(&hunt, &change, (shutdown, &unfinished), |found, side| match side {
        Side::Before => again(args, front.profile, found, &of_old),
        Side::After => again(args, front.profile, found, &reproducers),
    });
    let result = HuntResult::Compared(Box::new(report));
    Ok(Hunted { result, found: Vec::new(), reproducers, deadline, written })
}

/// A hunt on a target of the user's own. `tell` hears how the target receives the plainest client, where it turns it away.
///
/// # Errors
/// Also when it would prove nothing.
fn hunt_for(
    args: &HuntArgs,
    target: &TargetSpec,
    profile: Option<&str>,
    introduction: &TargetIntroduction,
    deadline: Deadline,
    tell: impl Fn(&str),
) -> CommandResult<Hunt> {
    let TargetIntroduction { binding, token, .. } = introduction;
    let (context, clock) = (args.context(profile, deadline), target.clock(&args.python));
    let runtime = Runtime::new(clock);
    let server = target.reach(&runtime, context, binding, token)?;
    let places = server.target.capabilities().places;
    if let Some(place) = args.faults.iter().find(|place| !places.iter().any(|known| known.name() == *place)) {
        let known: Vec<&str> = places.iter().map(|place| place.name()).collect();
        return Err(UsageError::NoSuchPlace { place: place.clone(), known: known.join(", ") }.into());
    }
    let usual = if clock == Clock::Real { CASES_ON_A_SERVER } else { CASES };
    let cases = args.cases.unwrap_or(if args.time.is_some() { CASES_MAX } else { usual });
    let once_more = target.once_more(context, binding, token)?;
    let mut prey = ForeignPrey::new(server, binding.clone(), runtime);
    if let Some(once_more) = once_more {
        prey = prey.for_many(once_more);
    }
    match prey.greet(args.seed).map_err(|why| UsageError::VainHunt { why })? {
        Greeting::LetIn => {}
        Greeting::TurnedAway(how) => tell(&format!("{how}; the hunt goes on from there")),
    }
    let mut hunt = Hunt::on(Ground::External(Arc::new(prey)), servers()?, cases);
    // Without --hostile, use only faults that real servers produce.
    hunt.legal_only = !args.hostile;
    hunt.places.retain(|place| args.faults.is_empty() || args.faults.iter().any(|name| name == place.name()));
    hunt.seed = args.seed;
    Ok(args.part(hunt))
}

/// The exit code of a hunt. One that reached nothing although it did everything says so.
fn exit_of(conclusion: Conclusion, is_finished: bool) -> CommandExit {
    if conclusion == Conclusion::Nothing {
        complain_of(&if is_finished { UsageError::HuntReachedNothing } else { UsageError::HuntUnfinished });
    }
    CommandExit::from(conclusion)
}

/// The arguments that decide what a seed draws, and on which revision.
fn aim(args: &HuntArgs) -> Vec<String> {
    let mut aim: Vec<String> = args.defect.iter().flat_map(|name| option("--defect", name.clone())).collect();
    if !args.faults.is_empty() {
        aim.extend(option("--faults", args.faults.join(",")));
    }
    let switches = [("--legal-only", args.legal_only), ("--hostile", args.hostile)];
    aim.extend(switches.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned()));
    aim
}

/// The answer to the first signal.
const AT_END: &str = "stopping, with a report on the findings so far; a second signal ends at once";

impl HuntArgs {
    /// The end of a hunt that begins now.
    fn deadline(&self) -> Deadline {
        Deadline::after(self.time).or_when(end_request)
    }
}

/// Hunts with a bar that says what is reached, and keeps what is found as soon as it is.
fn watched(
    hunt: &Hunt,
    jobs: usize,
    time: Option<Duration>,
    start: Instant,
    (reproducers, baseline): (&Reproducers, Option<&BaselineRun<'_>>),
) -> Result<Campaign> {
    let progress = match time {
        None => progress(usize::try_from(hunt.cases).unwrap_or(usize::MAX), "cases"),
        Some(_) => progress_by_time("cases"),
    };
    let watched = WatchedHunt { progress, start, so_far: Mutex::default(), reproducers, baseline };
    let campaign = hunt_all(hunt, jobs, &watched)?;
    watched.progress.finish_and_clear();
    if campaign.has_more {
        note(&format!("there are more than {FINDINGS_MAX} findings: those that came later are left out"));
    }
    Ok(campaign)
}

/// A hunt that goes on.
struct WatchedHunt<'a> {
    progress: ProgressReport,
    start: Instant,
    so_far: Mutex<(Coverage, BTreeSet<FindingKey>)>,
    reproducers: &'a Reproducers,
    baseline: Option<&'a BaselineRun<'a>>,
}

impl HuntWatch for WatchedHunt<'_> {
    fn reached(&self, reached: &Coverage, complaints: &BTreeSet<FindingKey>) {
        let mut so_far = self.so_far.lock().unwrap_or_else(PoisonError::into_inner);
        so_far.0.add(reached);
        if so_far.1.len() < FINDINGS_MAX {
            so_far.1.extend(complaints.iter().cloned());
        }
        let (classes, kinds, complaints) = (so_far.0.classes.len(), so_far.0.faults.len(), so_far.1.len());
        self.progress.inc(reached.cases);
        let rate = so_far.0.cases as f64 / self.start.elapsed().as_secs_f64().max(0.001);
        let message = format!("{rate:.0}/s; {classes} classes, {kinds} kinds of fault, {complaints} finding(s)");
        tell_progress(&self.progress, &message);
    }

    fn found(&self, found: &Found) {
        self.reproducers.keep(found);
        let file = self.reproducers.of_finding(found).map_or(String::new(), |file| format!("; {}", file.path));
        let is_known = self.baseline.is_some_and(|baseline| baseline.knows(found));
        let known = if is_known { ", in the baseline" } else { "" };
        let text = format!("found with seed {}{known}: {}  {}{file}", found.seed, found.key, found.message);
        self.progress.suspend(|| note(&text));
    }

    fn shrunk(&self, found: &Found) {
        self.reproducers.keep(found);
    }
}

/// Hunts on each defect alone; a defect that is not found is a finding.
fn detect(args: &HuntArgs, hunt: &Hunt) -> CommandResult {
    end_in_order("stopping, with a report on the defects so far; a second signal ends at once");
    let hunt = &Hunt { deadline: args.deadline(), ..hunt.clone() };
    let detected = detect_all(hunt, jobs(args.jobs))?;
    if let Some(directory) = &args.capsules {
        for (defect, found) in &detected {
            if let Some(found) = found {
                let path = directory.join(format!("{}.toml", defect.name()));
                files::write(&path, &found.capsule.print(), Existing::Replace)?;
            }
        }
    }
    let rows: Vec<Detection<'_>> =
        detected.iter().map(|(defect, found)| Detection { defect: defect.name(), found: found.as_ref() }).collect();
    print_page(&(args.format.pages.detection)(&DetectionFigures { rows: &rows, limit: hunt.cases }, width()));
    Ok(if rows.iter().all(|row| row.found.is_some()) { CommandExit::Passes } else { CommandExit::Finding })
}

/// The first finding on each defect, in the order of the defects.
fn detect_all(hunt: &Hunt, jobs: usize) -> Result<Vec<(Defect, Option<Found>)>> {
    let progress = progress(Defect::ALL.len(), "defects");
    let next = Mutex::new(Defect::ALL.iter().copied().enumerate());
    let worker = || {
        let mut detected = Vec::new();
        loop {
            let taken = next.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, defect)) = taken else { return Ok(detected) };
            let found = Hunt { ground: ground(Revision::only(defect)), ..hunt.clone() }.first()?;
            if found.is_none() && was_asked_to_end() {
                // It might have been found.
                return Ok(detected);
            }
            detected.push((index, defect, found));
            progress.inc(1);
        }
    };
    let parts: Vec<Result<Vec<_>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    progress.finish_and_clear();
    let mut detected: Vec<_> = parts.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    detected.sort_by_key(|(index, ..)| *index);
    Ok(detected.into_iter().map(|(_, defect, found)| (defect, found)).collect())
}

/// Joins the documents of a campaign's parts.
fn merge(args: &HuntArgs, parts: &[PathBuf], baseline: Option<BaselineRun<'_>>) -> CommandResult {
    let mut whole: Option<HuntDocument> = None;
    for path in parts {
        let failed = Error::io("read", path);
        let text = read_text(path, FileLimit::RECORDED)?;
        let part = HuntDocument::parse(&text).map_err(|why| failed(std::io::Error::other(why)))?;
        match &mut whole {
            None => whole = Some(part),
            Some(whole) => whole.merge(part).map_err(|why| failed(std::io::Error::other(why)))?,
        }
    }
    let mut document = whole.expect("there is at least one file");
    let mut kept = Ok(());
    if let Some(mut baseline) = baseline {
        let mut reports = document.reports_mut();
        reports.iter_mut().for_each(|report| baseline.judge(report));
        let hunts = reports.len();
        let finished = baseline.finish(hunts);
        kept = finished.map(|baseline| document.set_baseline(Some(baseline)));
    }
    print_page(&(args.format.pages.merged)(&document));
    kept?;
    let exits =
        document.hunts().into_iter().map(|(_, report)| exit_of(report.conclusion(), report.unfinished.is_nothing()));
    Ok(exits.max().unwrap_or(CommandExit::NoResult))
}
