//! `relapse list`: the catalogue by issue.

use crate::report::catalogue::{render_json as render_catalogue_json, render_list, render_map};
use clap::{Args, ValueEnum};
use relapse::{Result, discover::issues};

use super::{MISUSE, Source, print, width};

/// Which cases are listed, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// As for `run`.
    filters: Vec<String>,
    /// How to print the catalogue.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Issue by issue: what was reported, its root cause, and the cases.
    Human,
    /// The map from issues to cases, defects and checks, as a Markdown table.
    Markdown,
    /// One JSON document.
    Json,
}

/// Lists issues with their cases.
pub(super) fn list(options: &Options) -> Result<u8> {
    let (cases, broken) = options.source.select(&options.filters)?;
    if cases.is_empty() {
        return Ok(MISUSE);
    }
    let issues = issues()?;
    let text = match options.format {
        Format::Human => render_list(&issues, &cases, width()),
        Format::Markdown => render_map(&issues, &cases),
        Format::Json => render_catalogue_json(&issues, &cases),
    };
    print(text.trim_end());
    Ok(if broken.is_empty() { 0 } else { MISUSE })
}
