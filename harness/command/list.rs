//! `relapse list`: the catalogue by issue, and the kinds of faults.

use clap::Args;
use relapse::discover::issues;

use super::{
    CaseSource, Selection,
    error::{CommandResult, Failure},
    exit_code::CommandExit,
    output::{complain_about, print_page, width},
    report::{catalogue::Listing, faults, formats::Format},
};

/// The choice of cases to list, and the format.
#[derive(Debug, Clone, Args)]
pub(super) struct ListArgs {
    /// As for `run`.
    filters: Vec<String>,
    /// How to print the catalogue.
    #[arg(long, default_value = "human", value_parser = Format::parser(|renderer| renderer.catalogue))]
    format: Format<fn(&Listing<'_>, usize) -> String>,
    /// List the kinds of faults instead, with their settings, as a case's `[[fault]]` and `--fault` take them.
    #[arg(long, conflicts_with_all = ["filters", "format"])]
    faults: bool,
    #[command(flatten)]
    source: CaseSource,
}

impl ListArgs {
    pub(super) fn plan(&self) -> CommandResult<Selection> {
        let selection = self.source.select(&self.filters)?;
        if selection.cases.is_empty() { Err(Failure::NoCase(selection.broken)) } else { Ok(selection) }
    }
}

/// Lists issues with their cases, or the kinds of faults.
pub(super) fn list(args: &ListArgs) -> CommandResult {
    if args.faults {
        print_page(&faults::render(width()));
        return Ok(CommandExit::Passes);
    }
    let Selection { cases, broken } = args.plan()?;
    broken.iter().for_each(complain_about);
    let issues = issues()?;
    print_page(&(args.format.pages)(&Listing { issues: &issues, cases: &cases }, width()));
    Ok(if broken.is_empty() { CommandExit::Passes } else { CommandExit::NoResult })
}
