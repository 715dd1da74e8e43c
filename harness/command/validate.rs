//! `relapse validate`: the check of a deployment, fit for a rollback trigger.

use std::time::{Duration, Instant};

use clap::Args;
use relapse::{
    deadline::Deadline,
    external::External,
    validate::{Validation, validate as try_it},
};
use relapse_core::judge::verdict::Conclusion;
use relapse_simulate::clock::{Clock, Runtime};

use super::{
    error::{CommandResult, UsageError},
    exit_code::CommandExit,
    interrupt::{asked_to_end, end_in_order, end_request, stand_until_told, until_told_to_stop, was_asked_to_end},
    output::{note, print, print_page, progress_by_time, tell_progress, width},
    report::{
        formats::{Format, Printing, ValidationPages},
        validation::{Looked, Try, Validations, failing},
    },
    target::{RouteGuessing, TARGET, TargetArgs, TargetIntroduction, behind_each, profiles_in_front, tell_notes},
};

/// The target to look at, and the time limits.
#[derive(Debug, Clone, Args)]
pub(super) struct ValidateArgs {
    /// The server profile in front of a Python application
    ///
    /// May be given more than once, as a glob too; `all` names all. The application is looked at behind each in turn.
    #[arg(help_heading = TARGET, long, value_name = "NAME")]
    profile: Vec<String>,
    /// How long any single answer may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    limit: Duration,
    /// How long all of it may take
    ///
    /// The rest then fails. With --wait and --watch, how long each try may take.
    #[arg(hide_short_help = true, long, value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Try again until everything passes, for so long at most
    ///
    /// As in `90s`; where time is real.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Go on until Ctrl-C, and print a line each time
    ///
    /// Where time is real.
    #[arg(long, conflicts_with = "wait")]
    watch: bool,
    /// The pause between two tries with --watch.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// How to print what was found.
    #[arg(long, default_value = "human", value_parser = Format::parser(|renderer| renderer.validation))]
    format: Format<ValidationPages>,
    #[command(flatten)]
    own: TargetArgs,
}

/// A target that may be looked at.
pub(super) struct ValidatePlan {
    /// The profiles in front of it.
    fronts: Vec<Option<String>>,
    introduction: TargetIntroduction,
}

impl ValidateArgs {
    pub(super) fn plan(&self) -> CommandResult<ValidatePlan> {
        let own = &self.own;
        own.check(&self.profile)?;
        if (self.watch || self.wait.is_some()) && own.clock() == Clock::Virtual {
            return Err(UsageError::WaitInVirtualTime.into());
        }
        let fronts = profiles_in_front(&own.target, &own.python, &self.profile)?;
        if self.watch && fronts.len() > 1 {
            return Err(UsageError::WatchOfSeveral.into());
        }
        Ok(ValidatePlan { fronts, introduction: own.target.introduce(&own.python, &own.service_file)? })
    }
}

impl ValidateArgs {
    /// The end of a try that begins now.
    fn deadline(&self) -> Deadline {
        Deadline::after(Some(self.time)).or_when(end_request)
    }
}

/// Looks at a deployment.
pub(super) fn validate(args: &ValidateArgs) -> CommandResult {
    let ValidatePlan { fronts, introduction } = args.plan()?;
    introduction.notes.iter().for_each(|text| note(text));
    if args.watch && args.own.is_loaded() {
        stand_until_told("stopping; a second signal ends at once");
    } else if !args.watch {
        end_in_order("stopping, with a report on the checks so far; a second signal ends at once");
    }
    let printing = args.format.printing;
    let (exit, mut looked) = behind_each(&fronts, printing, |front| behind(args, front, &introduction))?;
    let validations = match looked.pop() {
        Some((_, only)) if fronts.len() == 1 => Validations::One(Box::new(only)),
        last => {
            let named = looked.into_iter().chain(last);
            Validations::Several(named.map(|(front, looked)| (front.unwrap_or_default(), looked)).collect())
        }
    };
    print_page(&(args.format.pages.validations)(&validations, width()));
    Ok(exit)
}

/// Looks behind one front; the exit code, and what was seen where that is printed later.
fn behind(
    args: &ValidateArgs,
    front: Option<&str>,
    introduction: &TargetIntroduction,
) -> CommandResult<(CommandExit, Option<Looked>)> {
    let (own, TargetIntroduction { binding, token, .. }) = (&args.own, introduction);
    let runtime = Runtime::new(own.clock());
    // Each further look has a time of its own.
    let deadline = if args.watch || args.wait.is_some() { Deadline::NEVER } else { args.deadline() };
    let mut server = own.reach(&runtime, front, binding, token, RouteGuessing::Checked, deadline)?;
    if binding.is_unknown() && server.routes.is_empty() {
        return Err(UsageError::NoRoute.into());
    }
    let looked = runtime.block_on(async {
        match args.watch {
            true => watch(args, &mut server, introduction).await.map(|exit| (exit, None)),
            false => look(args, &mut server, introduction).await,
        }
    });
    tell_notes(server.target.notes());
    looked
}

/// Looks once, or until everything passes; the exit code, and what was seen where that is printed later.
async fn look(
    args: &ValidateArgs,
    server: &mut External,
    introduction: &TargetIntroduction,
) -> CommandResult<(CommandExit, Option<Looked>)> {
    #[expect(clippy::disallowed_methods, reason = "the command says how long it took")]
    let began = Instant::now();
    let (binding, routes) = (&introduction.binding, &args.own.python.path);
    let bar = progress_by_time("tries");
    let mut validation = try_it(server, binding, routes, args.limit, args.deadline()).await?;
    bar.inc(1);
    while let Some(limit) =
        args.wait.filter(|limit| !validation.passes && began.elapsed() < *limit && !was_asked_to_end())
    {
        tell_progress(&bar, &failing(&validation));
        tokio::time::sleep(Duration::from_millis(500).min(limit)).await;
        validation = try_it(server, binding, routes, args.limit, args.deadline()).await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    if validation.rows.is_empty() {
        return Err(UsageError::NothingToTry.into());
    }
    validation.shutdown = server.shut_down().await?;
    validation.passes &= validation.shutdown.is_empty();
    let exit = CommandExit::from(Conclusion::passes_if(validation.passes));
    let looked = Looked { validation, wall: began.elapsed() };
    match args.format.printing {
        Printing::AsItComes => {
            print_page(&(args.format.pages.validations)(&Validations::One(Box::new(looked)), width()));
            Ok((exit, None))
        }
        Printing::AtTheEnd => Ok((exit, Some(looked))),
    }
}

/// Looks again and again; a line each time.
async fn watch(args: &ValidateArgs, server: &mut External, introduction: &TargetIntroduction) -> CommandResult {
    let (mut tries, mut passed, mut last_failure) = (0_u32, 0_u32, None::<String>);
    let stop = async {
        match args.own.is_loaded() {
            true => asked_to_end().await,
            false => until_told_to_stop().await,
        }
    };
    let mut stop = std::pin::pin!(stop);
    loop {
        let validation: Validation = tokio::select! {
            validation = try_it(server, &introduction.binding, &args.own.python.path, args.limit, args.deadline()) => validation?,
            () = stop.as_mut() => break,
        };
        if was_asked_to_end() {
            // It was broken off.
            break;
        }
        tries += 1;
        passed += u32::from(validation.passes);
        if !validation.passes {
            last_failure = Some(failing(&validation));
        }
        let last_failure = last_failure.clone();
        print((args.format.pages.watched)(&Try { validation, tries, passed, last_failure }));
        tokio::select! {
            () = tokio::time::sleep(args.every) => {}
            () = stop.as_mut() => break,
        }
    }
    Ok(CommandExit::from(Conclusion::passes_if(passed == tries && tries > 0)))
}
