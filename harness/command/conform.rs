//! `relapse conform`: how far a server keeps RFC 6455, frame by frame.

use std::sync::Arc;
use std::time::Duration;

use crate::builtin::runner::conform_embedded;
use clap::Args;
use relapse::{
    Result,
    conform::conform as try_all,
    conform::{FramingSubject, PATIENCE},
    deadline::Deadline,
    discover::{frame_cases, servers, servers_named},
    trial::shell,
};
use relapse_core::conformance::{Conformance, FrameCase};
use relapse_python::process::CodeCoverage;
use relapse_simulate::{
    clock::{Clock, Runtime},
    profile::Profile,
};

use super::{
    error::{CommandResult, UsageError},
    exit_code::CommandExit,
    interrupt::{end_in_order, end_request},
    output::{note, print_page, progress, width},
    report::formats::Format,
    target::{
        PythonArgs, RequestBudgetArgs, RouteGuessing, ServiceFileArgs, TARGET, TargetContext, TargetHelp,
        TargetIntroduction, TargetSpec, tell_notes,
    },
};

/// The help of `--target`.
const HELP: TargetHelp = TargetHelp {
    summary: "Try this {} of yours",
    more: "What frames come to is a matter of the server: --server tries a real one with the application in it.",
};

/// The cases to try, and the target.
#[derive(Debug, Clone, Args)]
pub(super) struct ConformArgs {
    /// Cases to try; all without one
    ///
    /// The name of a case or its last part, a section as in `5.5.2`, or a glob over names as in `5.5*`.
    patterns: Vec<String>,
    /// The server profile in front of the target; all without it
    ///
    /// In front of the built-in backend or of a Python application. May be given more than once, as a glob too; `all`
    /// names all.
    #[arg(help_heading = TARGET, long, value_name = "NAME")]
    profile: Vec<String>,
    #[arg(help_heading = TARGET, long, value_name = "TARGET", help = HELP.short(), long_help = HELP.long())]
    target: Option<TargetSpec>,
    /// How long a server may take for what has to come; 2 s without it
    #[arg(long, value_name = "TIME", requires = "target", value_parser = humantime::parse_duration)]
    limit: Option<Duration>,
    /// How long all of it may take
    ///
    /// The result is INCONCLUSIVE then.
    #[arg(hide_short_help = true, long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    time: Duration,
    /// The seed, the only source of chance
    ///
    /// It makes masks, and keys of the handshake.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print what was found.
    #[arg(long, default_value = "human", value_parser = Format::parser(|renderer| renderer.conformance))]
    format: Format<fn(&[Conformance], usize) -> String>,
    #[command(flatten)]
    service_file: ServiceFileArgs,
    #[command(flatten)]
    budget: RequestBudgetArgs,
    #[command(flatten)]
    python: PythonArgs,
}

/// The cases, and the servers that they are tried on.
pub(super) struct ConformPlan<'a> {
    cases: Vec<Arc<FrameCase>>,
    servers: TriedServers<'a>,
}

/// The servers that cases are tried on.
pub(super) enum TriedServers<'a> {
    /// The built-in backend behind profiles.
    Profiles(Vec<Arc<Profile>>),
    /// A target of the user's own.
    Own {
        target: &'a TargetSpec,
        introduction: Box<TargetIntroduction>,
        /// The servers in front of it by name, with the profile that plays each where one does.
        fronts: Vec<(String, Option<String>)>,
    },
}

impl ConformArgs {
    pub(super) fn plan(&self) -> CommandResult<ConformPlan<'_>> {
        let cases = frame_cases(&self.patterns)?;
        let servers = match &self.target {
            Some(target) => self.plan_target(target)?,
            None => {
                self.python.check_absent()?;
                TriedServers::Profiles(self.profiles()?)
            }
        };
        Ok(ConformPlan { cases, servers })
    }

    fn plan_target<'a>(&'a self, target: &'a TargetSpec) -> CommandResult<TriedServers<'a>> {
        target.check(&self.python, &self.profile, &self.service_file)?;
        let introduction = target.introduce(&self.python, &self.service_file)?;
        let messages = &introduction.binding.messages;
        if introduction.binding.is_unknown() {
            let named = [vec![target.to_string()], self.python.arguments(), self.service_file.arguments()].concat();
            return Err(UsageError::NoServiceFile { target: shell(&named) }.into());
        }
        if messages.request.is_none() || messages.events.is_empty() {
            return Err(UsageError::NoMessages.into());
        }
        let fronts = match self.python.server_name() {
            Some(server) => vec![(server, None)],
            None if target.kind(&self.python).is_played() => {
                self.profiles()?.iter().map(|profile| (profile.name.clone(), Some(profile.name.clone()))).collect()
            }
            None => vec![(target.to_string(), None)],
        };
        Ok(TriedServers::Own { target, introduction: Box::new(introduction), fronts })
    }

    /// The profiles that are meant.
    fn profiles(&self) -> Result<Vec<Arc<Profile>>> {
        if self.profile.is_empty() { servers() } else { servers_named(&self.profile) }
    }
}

/// Tries the cases; the exit code is the worst of all servers'.
pub(super) fn conform(args: &ConformArgs) -> CommandResult {
    let ConformPlan { cases, servers } = args.plan()?;
    end_in_order("stopping, with a report on the rules so far; a second signal ends at once");
    let deadline = Deadline::after(Some(args.time)).or_when(end_request);
    let found = match servers {
        TriedServers::Profiles(profiles) => on_backend(args, &profiles, &cases, deadline)?,
        TriedServers::Own { target, introduction, fronts } => {
            on_target(args, target, &introduction, fronts, (&cases, deadline))?
        }
    };
    print_page(&(args.format.pages)(&found, width()));
    let worst = found.iter().map(Conformance::conclusion).max();
    Ok(worst.map_or(CommandExit::NoResult, CommandExit::from))
}

fn on_backend(
    args: &ConformArgs,
    profiles: &[Arc<Profile>],
    cases: &[Arc<FrameCase>],
    deadline: Deadline,
) -> Result<Vec<Conformance>> {
    let progress = progress(cases.len() * profiles.len(), "cases");
    let found = profiles
        .iter()
        .map(|profile| conform_embedded(cases, profile, Clock::Virtual, args.seed, deadline, || progress.inc(1)))
        .collect();
    progress.finish_and_clear();
    found
}

fn on_target(
    args: &ConformArgs,
    target: &TargetSpec,
    introduction: &TargetIntroduction,
    fronts: Vec<(String, Option<String>)>,
    (cases, deadline): (&[Arc<FrameCase>], Deadline),
) -> Result<Vec<Conformance>> {
    let TargetIntroduction { binding, token, notes: known } = introduction;
    known.iter().for_each(|text| note(text));
    let progress = progress(cases.len() * fronts.len(), "cases");
    let (mut found, mut notes) = (Vec::new(), Vec::new());
    for (name, profile) in fronts {
        let (budget, python, profile) = (&args.budget, &args.python, profile.as_deref());
        let runtime = Runtime::new(target.clock(python));
        let context = TargetContext {
            budget,
            python,
            profile,
            guesses: RouteGuessing::Checked,
            coverage: CodeCoverage::None,
            seed: args.seed,
            deadline,
        };
        let server = target.reach_unseen(&runtime, context, binding, token)?;
        let peer = FramingSubject {
            target: server.target.as_ref(),
            binding,
            name,
            authority: server.target.authority(),
            patience: args.limit.unwrap_or(PATIENCE),
            seed: args.seed,
            deadline,
        };
        found.push(runtime.block_on(try_all(cases, &peer, || progress.inc(1))));
        notes.extend(server.target.notes());
    }
    progress.finish_and_clear();
    tell_notes(notes);
    Ok(found)
}
