//! `relapse list`: the catalogue by issue.

use clap::Args;
use relapse::discover::issues;

use super::{
    CaseSource, Selection,
    error::{CommandResult, Failure},
    exit_code::CommandExit,
    output::{complain_about, print_page, width},
    report::{catalogue::Listing, formats::Format},
};

/// Which cases are listed, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct ListArgs {
    /// As for `run`.
    filters: Vec<String>,
    /// How to print the catalogue.
    #[arg(long, default_value = "human", value_parser = Format::parser(|renderer| renderer.catalogue))]
    format: Format<fn(&Listing<'_>, usize) -> String>,
    #[command(flatten)]
    source: CaseSource,
}

impl ListArgs {
    pub(super) fn plan(&self) -> CommandResult<Selection> {
        let selection = self.source.select(&self.filters)?;
        if selection.cases.is_empty() { Err(Failure::NoCase(selection.broken)) } else { Ok(selection) }
    }
}

/// Lists issues with their cases.
pub(super) fn list(args: &ListArgs) -> CommandResult {
    let Selection { cases, broken } = args.plan()?;
    broken.iter().for_each(complain_about);
    let issues = issues()?;
    print_page(&(args.format.pages)(&Listing { issues: &issues, cases: &cases }, width()));
    Ok(if broken.is_empty() { CommandExit::Passes } else { CommandExit::NoResult })
}
