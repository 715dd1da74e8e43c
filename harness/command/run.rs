//! `relapse run`: cases on both versions, with a table of verdicts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::builtin::runner::judge_all;
use clap::Args;
use relapse::{
    case::{Case, Vocabulary},
    deadline::Deadline,
    discover::{servers_for, servers_named},
    external::{Versions, judge_external, late},
    trial::{Ran, Report, TargetName, Trial, add_option, shell},
};
use relapse_core::{
    error::Error,
    judge::verdict::{Side, TrialResult},
};
use relapse_python::process::CodeCoverage;
use relapse_simulate::clock::Runtime;

use super::{
    CaseSource, Selection, determinism,
    error::{CommandResult, Failure},
    exit_code::CommandExit,
    interrupt::{end_in_order, end_request},
    jobs,
    output::{complain_about, note, print_page, progress, width},
    report::formats::Format,
    target::{
        PythonArgs, RequestBudgetArgs, RouteGuessing, ServiceFileArgs, TARGET, TargetContext, TargetHelp,
        TargetIntroduction, TargetSpec, profiles_in_front, tell_notes,
    },
};

/// Which cases run, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct RunArgs {
    /// Cases to run; all without one
    ///
    /// The number of a report (`508` or `#508`), a scenario (`S508-1`), the name of a case, a glob over names, or a
    /// case file.
    filters: Vec<String>,
    /// Run behind this server profile instead of those of the cases
    ///
    /// May be given more than once, as a glob too; `all` names all.
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// Run only in this environment
    ///
    /// May be given more than once.
    #[arg(hide_short_help = true, long, value_name = "NAME", value_parser = ["development", "testing", "staging", "production"])]
    environment: Vec<String>,
    /// The seed, the only source of chance
    ///
    /// The same seed gives the same transcripts, byte for byte.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print the verdicts
    #[arg(long, default_value = "human", value_parser = Format::parser(|renderer| renderer.verdicts))]
    format: Format<fn(&Report, usize) -> String>,
    /// Run each version of a target this often
    ///
    /// A failure that comes and goes is shown when one run shows it, and fixed when none does any more.
    #[arg(help_heading = TARGET, long, value_name = "N", default_value_t = 1, requires = "target", value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeat: u16,
    /// How long all of it may take
    ///
    /// A trial for which there is no time is INCONCLUSIVE.
    #[arg(hide_short_help = true, long, value_name = "TIME", default_value = "30m", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Run each case twice instead, and tell the first difference
    ///
    /// With its place in the conversation.
    #[arg(long)]
    check_determinism: bool,
    /// How many trials run at a time, at most 32; as many as cores without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    #[command(flatten)]
    source: CaseSource,
    #[command(flatten)]
    url: ExternalArgs,
}

/// The help of `--target`.
const HELP: TargetHelp = TargetHelp {
    summary: "Run on this {} of yours",
    more: "PASSED says that the trigger gives an accepted answer; that it ever failed only --before shows.",
};

/// Cases on external servers.
#[derive(Debug, Clone, Args)]
struct ExternalArgs {
    #[arg(help_heading = TARGET, long, visible_alias = "after", value_name = "TARGET", help = HELP.short(), long_help = HELP.long())]
    target: Option<TargetSpec>,
    /// The version of it that should show what was reported
    #[arg(help_heading = TARGET, long, value_name = "TARGET", requires = "target")]
    before: Option<TargetSpec>,
    #[command(flatten)]
    service_file: ServiceFileArgs,
    #[command(flatten)]
    budget: RequestBudgetArgs,
    #[command(flatten)]
    python: PythonArgs,
}

/// The trials of a run, and the case files that cannot be read.
pub(super) struct RunPlan<'a> {
    trials: PlannedTrials<'a>,
    broken: Vec<Error>,
}

/// The trials of a run.
pub(super) enum PlannedTrials<'a> {
    /// On the built-in backend.
    OnBackend(Vec<Trial>),
    /// On a target of the user's own.
    OnTarget(Box<TargetTrials<'a>>),
}

/// Trials with their judgements.
type JudgedTrials = Vec<(Ran, TrialResult)>;

/// Cases on a target of the user's own, behind each front.
pub(super) struct TargetTrials<'a> {
    target: &'a TargetSpec,
    cases: Vec<Arc<Case>>,
    fronts: Vec<Option<String>>,
    introduction: TargetIntroduction,
}

impl RunArgs {
    pub(super) fn plan(&self) -> CommandResult<RunPlan<'_>> {
        match &self.url.target {
            Some(target) => self.plan_on_target(target),
            None => self.plan_on_backend(),
        }
    }

    fn plan_on_backend(&self) -> CommandResult<RunPlan<'_>> {
        self.url.python.check_absent()?;
        let Selection { cases, broken } = self.source.select(&self.filters)?;
        let instead = if self.profile.is_empty() { None } else { Some(servers_named(&self.profile)?) };
        let mut trials = Trial::of(&cases, &servers_for(&cases)?, instead.as_deref());
        if !self.environment.is_empty() {
            trials.retain(|trial| self.environment.iter().any(|name| name == trial.environment.name()));
        }
        Ok(RunPlan { trials: PlannedTrials::OnBackend(trials), broken })
    }

    fn plan_on_target<'a>(&'a self, target: &'a TargetSpec) -> CommandResult<RunPlan<'a>> {
        let url = &self.url;
        let versions: Vec<&TargetSpec> = url.before.iter().chain([target]).collect();
        target.check_versions(&versions, &url.python, &self.profile, &url.service_file)?;
        let Selection { cases, broken } = self.source.select(&self.filters)?;
        if cases.is_empty() {
            // Nothing is installed and nothing is contacted for cases that cannot be read.
            return Err(Failure::NoCase(broken));
        }
        let fronts = profiles_in_front(target, &url.python, &self.profile)?;
        // Cases in a service's own words say everything that is said.
        let is_said = !url.service_file.has_binding() && cases.iter().all(|case| case.vocabulary == Vocabulary::Own);
        let introduction = match is_said {
            true => TargetIntroduction::unasked(&url.python)?,
            false => target.introduce(&url.python, &url.service_file)?,
        };
        let trials = PlannedTrials::OnTarget(Box::new(TargetTrials { target, cases, fronts, introduction }));
        Ok(RunPlan { trials, broken })
    }
}

/// Runs the cases; the exit code is the report's.
pub(super) fn run(args: &RunArgs) -> CommandResult {
    #[expect(clippy::disallowed_methods, reason = "the command says how long it took")]
    let start = Instant::now();
    let RunPlan { trials, broken } = args.plan()?;
    broken.iter().for_each(complain_about);
    end_in_order("stopping, with a report on the verdicts so far; a second signal ends at once");
    let deadline = Deadline::after(Some(args.time)).or_when(end_request);
    if args.check_determinism {
        return check_determinism(args, trials, deadline);
    }
    let (trials, shutdown) = match trials {
        PlannedTrials::OnBackend(trials) => (run_on_backend(args, trials, deadline), Vec::new()),
        PlannedTrials::OnTarget(trials) => run_on_target(args, &trials, deadline)?,
    };
    let report = Report { trials, broken, shutdown, seed: args.seed, wall: start.elapsed() };
    print_page(&(args.format.pages)(&report, width()));
    Ok(CommandExit::from(report.conclusion()))
}

/// Runs the cases twice, the second time in processes of their own, and compares.
fn check_determinism(args: &RunArgs, trials: PlannedTrials<'_>, deadline: Deadline) -> CommandResult {
    let (first, second) = match trials {
        PlannedTrials::OnBackend(trials) => {
            (run_on_backend(args, trials.clone(), deadline), run_on_backend(args, trials, deadline))
        }
        PlannedTrials::OnTarget(trials) => {
            determinism::check_clock(trials.target.clock(&args.url.python))?;
            (run_on_target(args, &trials, deadline)?.0, run_on_target(args, &trials, deadline)?.0)
        }
    };
    Ok(determinism::of_trials(&first, &second, |ran| {
        let mut arguments = ran.replay(args.seed);
        arguments.push("--check-determinism".to_owned());
        shell(&arguments)
    }))
}

fn run_on_backend(args: &RunArgs, trials: Vec<Trial>, deadline: Deadline) -> JudgedTrials {
    let progress = progress(trials.len(), "trials");
    let judgements = judge_all(&trials, args.seed, jobs(args.jobs), deadline, &|| progress.inc(1));
    progress.finish_and_clear();
    trials.into_iter().map(Ran::OnBackend).zip(judgements).collect()
}

/// Runs the cases behind every front; what was judged, and what went wrong when the app was stopped.
fn run_on_target(
    args: &RunArgs,
    plan: &TargetTrials<'_>,
    deadline: Deadline,
) -> CommandResult<(JudgedTrials, Vec<String>)> {
    plan.introduction.notes.iter().for_each(|text| note(text));
    let progress = progress(plan.cases.len() * plan.fronts.len(), "cases");
    let (mut trials, mut shutdown) = (Vec::new(), Vec::new());
    for profile in &plan.fronts {
        let name = Arc::new(named(args, plan.target, profile.as_deref()));
        let (judgements, ends) = match deadline.is_over() {
            // Nothing is started that is not used.
            true => (plan.cases.iter().map(|_| TrialResult::inconclusive(late(deadline))).collect(), Vec::new()),
            false => run_behind(args, plan, profile.as_deref(), deadline, || progress.inc(1))?,
        };
        trials.extend(plan.cases.iter().map(|case| Ran::On(Arc::clone(&name), Arc::clone(case))).zip(judgements));
        shutdown.extend(ends);
    }
    progress.finish_and_clear();
    shutdown.dedup();
    Ok((trials, shutdown))
}

/// Runs the cases behind one front; what was judged, and what went wrong when the app was stopped.
fn run_behind(
    args: &RunArgs,
    plan: &TargetTrials<'_>,
    profile: Option<&str>,
    deadline: Deadline,
    done: impl Fn(),
) -> CommandResult<(Vec<TrialResult>, Vec<String>)> {
    let (url, python) = (&args.url, &args.url.python);
    let TargetIntroduction { binding, token, .. } = &plan.introduction;
    let runtime = Runtime::new(plan.target.clock(python));
    let guesses = RouteGuessing::Apart;
    let (budget, seed, coverage) = (&url.budget, args.seed, CodeCoverage::None);
    let context = TargetContext { budget, python, profile, guesses, coverage, seed, deadline };
    let before = match &url.before {
        Some(before) => Some(before.version(&runtime, context, binding, token)?),
        None => None,
    };
    let after = plan.target.version(&runtime, context, binding, token)?;
    let versions = Versions { binding: binding.clone(), before, after, repeat: usize::from(args.repeat) };
    let judgements = runtime.block_on(judge_external(&plan.cases, &versions, args.seed, deadline, done));
    tell_notes(versions.running().flat_map(|(_, external)| external.target.notes()));
    let mut shutdown = Vec::new();
    for (side, external) in versions.running() {
        let ends = runtime.block_on(external.shut_down())?;
        // How the version with the bug ends is in the past.
        if side == Side::After && !deadline.is_cut() {
            shutdown.extend(ends);
        }
    }
    Ok((judgements, shutdown))
}

/// The target as the command line names it, behind one front.
fn named(args: &RunArgs, target: &TargetSpec, profile: Option<&str>) -> TargetName {
    let url = &args.url;
    let mut arguments: Vec<String> = Vec::new();
    if let Some(before) = &url.before {
        add_option(&mut arguments, "--before", before);
    }
    add_option(&mut arguments, "--target", target);
    if let Some(profile) = profile.filter(|_| !args.profile.is_empty()) {
        add_option(&mut arguments, "--profile", profile);
    }
    if args.repeat > 1 {
        add_option(&mut arguments, "--repeat", args.repeat);
    }
    if let Some(directory) = &args.source.cases {
        add_option(&mut arguments, "--cases", directory.display());
    }
    arguments.extend(url.budget.arguments());
    arguments.extend(url.python.arguments().into_iter().chain(url.service_file.arguments()));
    TargetName {
        kind: target.kind(&url.python),
        target: target.to_string(),
        before: url.before.as_ref().map(TargetSpec::to_string),
        profile: profile.map(str::to_owned),
        server: url.python.server_name(),
        arguments,
    }
}
