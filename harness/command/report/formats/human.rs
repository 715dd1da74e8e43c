//! Tables, conversations and lines for people.

use relapse_core::judge::verdict::Verdict;

use super::{HuntPages, Printing, Renderer, ValidationPages};
use crate::report::{catalogue, conformance, corpus, hunt, proxy, table, validation};
use relapse::trial::Report;

/// The format.
pub(super) const HUMAN: Renderer = Renderer {
    aliases: &["table"],
    verdicts: Some(verdicts),
    hunt: Some(HuntPages {
        replayed,
        hunts: hunt::Hunts::page,
        merged: hunt::HuntDocument::page,
        detection: |figures, width| hunt::render_detection(figures.rows, figures.limit, width),
        corpus: corpus::render,
    }),
    conformance: Some(conformance::render),
    validation: Some(ValidationPages { validations: validation::page, watched: validation::line }),
    catalogue: Some(|listing, width| catalogue::render_list(listing.issues, listing.cases, width)),
    log: Some(proxy::line),
    ..Renderer::new("human", "Tables and lines for people", Printing::AsItComes)
};

fn verdicts(report: &Report, width: usize) -> String {
    if report.trials.is_empty() { String::new() } else { table::render(report, width) }
}

/// How many reproducers are fixed, and the table where one is not.
fn replayed(report: &Report, width: usize) -> String {
    let counts = report.counts();
    let (fixed, passed) = (counts[&Verdict::Fixed], counts[&Verdict::Passed]);
    let all = report.trials.len() + report.broken.len();
    let passed = if passed > 0 { format!(", {passed} PASSED") } else { String::new() };
    let line = format!("{all} reproducer(s) replayed, {fixed} FIXED{passed}\n");
    match report.trials.iter().all(|(_, judgement)| judgement.verdict.passes()) {
        true => line,
        false => line + &table::render(report, width),
    }
}
