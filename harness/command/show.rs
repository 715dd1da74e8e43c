//! `relapse show`: one case in full.

use crate::builtin::runner::{BackendRunner, KNOWN};
use crate::report::show::{Background, render as render_show};
use clap::Args;
use relapse::{
    discover::{issues, servers_for},
    report::sequence::SequenceDetail,
    trial::Trial,
};
use relapse_core::error::Error;

use super::{
    CaseSource, Selection,
    error::{CommandResult, Failure},
    exit_code::CommandExit,
    output::{complain_about, print, width},
    server,
};

/// Which case is shown, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct ShowArgs {
    /// The case: its name, its scenario, the number of a report, or a case file. The first that fits is shown.
    case: String,
    /// Show it behind this server profile instead of the first it names.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Show every ASGI event, not only what a client notices.
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    source: CaseSource,
}

/// The trial that is shown.
pub(super) struct ShowPlan {
    trial: Trial,
    /// The other cases that are called so.
    others: Vec<String>,
    /// The case files that cannot be read.
    broken: Vec<Error>,
}

impl ShowArgs {
    pub(super) fn plan(&self) -> CommandResult<ShowPlan> {
        let Selection { cases, broken } = self.source.select(std::slice::from_ref(&self.case))?;
        let Some((first, others)) = cases.split_first() else { return Err(Failure::NoCase(broken)) };
        let instead = self.profile.as_deref().map(server).transpose()?;
        let instead = instead.as_slice().first().map(std::slice::from_ref);
        let trial =
            Trial::of(std::slice::from_ref(first), &servers_for(std::slice::from_ref(first))?, instead).swap_remove(0);
        Ok(ShowPlan { trial, others: others.iter().map(|case| case.name.clone()).collect(), broken })
    }
}

/// Shows a case; the exit code is its verdict's.
pub(super) fn show(args: &ShowArgs) -> CommandResult {
    let ShowPlan { trial, others, broken } = args.plan()?;
    broken.iter().for_each(complain_about);
    let judgement = BackendRunner::default().judge(&trial, args.seed);
    let detail = if args.full { SequenceDetail::Full } else { SequenceDetail::Conversation };
    print(
        render_show(
            &trial,
            &judgement,
            Background { issues: &issues()?, defects: KNOWN.defects },
            args.seed,
            width(),
            detail,
        )
        .trim_end(),
    );
    if !others.is_empty() {
        print(format!("\n`{}` also selects {}", args.case, others.join(", ")));
    }
    Ok(CommandExit::from(judgement.verdict.conclusion()))
}
