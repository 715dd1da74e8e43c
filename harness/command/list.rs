//! `relapse list`: the catalogue.

use clap::Args;
use relapse::{Result, plain_table};

use super::{MISUSE, Source, print, width};

/// Which cases are listed.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// As for `run`.
    filters: Vec<String>,
    #[command(flatten)]
    source: Source,
}

/// Lists cases, a line each.
pub(super) fn list(options: &Options) -> Result<u8> {
    let (cases, broken) = options.source.select(&options.filters)?;
    if cases.is_empty() {
        return Ok(MISUSE);
    }
    let mut table = plain_table(width());
    table.set_header(["case", "scenario", "issues", "what must hold"]);
    for case in cases {
        let issues = case.issues.join(" ");
        table.add_row([&case.name, &case.scenario, &issues, &case.summary]);
    }
    table.lines().for_each(|line| print(line.trim_end()));
    Ok(if broken.is_empty() { 0 } else { MISUSE })
}
