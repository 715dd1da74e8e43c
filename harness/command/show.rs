//! `relapse show`: one case in full.

use crate::builtin::conductor::{Conductor, KNOWN};
use crate::report::show::{Background, render as render_show};
use clap::Args;
use relapse::{
    Result,
    discover::{issues, servers_for},
    report::sequence::Detail,
    trial::Trial,
};
use relapse_core::judge::verdict::Verdict;

use super::{MISUSE, Source, print, server, width};

/// Which case is shown, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
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
    source: Source,
}

/// Shows a case; the exit code is its verdict's.
pub(super) fn show(options: &Options) -> Result<u8> {
    let (cases, _) = options.source.select(std::slice::from_ref(&options.case))?;
    let Some((first, others)) = cases.split_first() else { return Ok(MISUSE) };
    let instead = options.profile.as_deref().map(server).transpose()?;
    let trials = Trial::of(
        std::slice::from_ref(first),
        &servers_for(&cases)?,
        instead.as_slice().first().map(std::slice::from_ref),
    );
    let trial = &trials[0];
    let judgement = Conductor::default().judge(trial, options.seed);
    let detail = if options.full { Detail::Full } else { Detail::Conversation };
    print(
        render_show(
            trial,
            &judgement,
            Background { issues: &issues()?, defects: KNOWN.defects },
            options.seed,
            width(),
            detail,
        )
        .trim_end(),
    );
    let others: Vec<&str> = others.iter().map(|case| case.name.as_str()).collect();
    if !others.is_empty() {
        print(format!("\n`{}` also selects {}", options.case, others.join(", ")));
    }
    Ok(match judgement.verdict {
        Verdict::Inconclusive => MISUSE,
        verdict => u8::from(!verdict.passes()),
    })
}
