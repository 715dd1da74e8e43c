//! One case in full: what was reported, what happens on both versions, and how to see it again.

use anstyle::{AnsiColor, Style};

use relapse::report::sequence::{self, SequenceDetail, SequenceLine, seconds};

use super::table::plain_table;
use relapse::{
    case::{Case, Symptom},
    defects::DefectEntry,
    issue::{self, Issue},
    trial::{Trial, shell},
};
use relapse_core::judge::verdict::{HealthyClient, RunResult, TrialResult};

const BOLD: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// The facts about a built-in service that a case names only.
#[derive(Debug, Clone, Copy)]
pub struct Background<'a> {
    /// The reported issues.
    pub issues: &'a [Issue],
    /// The defects.
    pub defects: &'a [DefectEntry],
}

/// Renders one judged trial, at most this many characters wide.
///
/// Of the issues those are told that the case belongs to, with what was published about them and is wrong.
pub fn render(
    trial: &Trial,
    judgement: &TrialResult,
    background: Background<'_>,
    seed: u64,
    width: usize,
    detail: SequenceDetail,
) -> String {
    let mut lines = about(trial, background.defects);
    match (&judgement.before, &judgement.after) {
        (Some(before), Some(after)) => {
            lines.push(side_by_side(before, after, width, detail));
            lines.push(String::new());
            lines.extend(ending("before        ", before));
            lines.extend(ending("after         ", after));
            lines.push(format!("{FAINT}healthy client{FAINT:#}  {}", healthy(&after.control)));
        }
        (None, Some(after)) => {
            let sequence = sequence::lines(&after.transcript, detail);
            lines.extend(sequence.iter().map(|line| format!(" {}", cell(Some(line)))));
            if let Some(Symptom { outcome: Some(outcome), class: Some(class), cause: Some(cause), .. }) =
                &trial.case.symptom
            {
                lines.push(format!("\n{FAINT}found         {FAINT:#}  {outcome} ({class}; {cause})"));
            }
            lines.extend(ending("now           ", after));
            lines.push(format!("{FAINT}healthy client{FAINT:#}  {}", healthy(&after.control)));
        }
        (_, None) => {}
    }
    for (sham, (verdict, judged)) in trial.case.shams.iter().zip(&judgement.shams) {
        lines.push(format!("{FAINT}claimed       {FAINT:#}  {} ({})", sham.claim, sham.defects));
        lines.push(format!("                in place of the fix: {}; {verdict}", judged.outcome));
    }
    let style = if judgement.verdict.passes() { GOOD } else { BAD };
    let why = judgement.reason.as_ref().map_or(String::new(), |_| format!(": {}", judgement.why()));
    lines.push(format!("{FAINT}verdict       {FAINT:#}  {style}{}{style:#}{why}", judgement.verdict));
    lines.push(format!("{FAINT}reproduce     {FAINT:#}  {}", shell(&trial.replay(seed))));
    lines.extend(published(&trial.case, background.issues));
    lines.push(String::new());
    lines.join("\n")
}

/// The case and its surroundings.
fn about(trial: &Trial, defects: &[DefectEntry]) -> Vec<String> {
    let case = &trial.case;
    let (scenario, issues) = (case.scenario.as_deref().unwrap_or_default(), issue::labels(&case.issues).join(", "));
    let mut lines = vec![format!("{BOLD}{}{BOLD:#}  {scenario}  {issues}", case.name), format!("{}\n", case.summary)];
    lines.extend(case.reported.iter().map(|reported| format!("{FAINT}reported      {FAINT:#}  {reported}")));
    lines.extend(case.behind.iter().map(|behind| format!("{FAINT}root cause    {FAINT:#}  {behind}")));
    for DefectEntry { name, origin, mechanism } in defects.iter().filter(|entry| case.twin.contains(entry.name)) {
        lines.push(format!("{FAINT}defect        {FAINT:#}  {name}, {origin}: {mechanism}"));
    }
    lines.extend(case.faults.iter().map(|fault| format!("{FAINT}fault         {FAINT:#}  {fault}")));
    lines.push(format!("{FAINT}server        {FAINT:#}  {} in {}\n", trial.profile.server, trial.environment));
    lines
}

/// The ending of a run, under a label of 14 columns, and its findings.
fn ending(label: &str, run: &RunResult) -> Vec<String> {
    let first = format!("{FAINT}{label}{FAINT:#}  {}, ended by {}", run.outcome, run.outcome.closed_by);
    let findings = run.findings.iter().map(|finding| format!("                {}: {}", finding.check, finding.message));
    std::iter::once(first).chain(findings).collect()
}

/// The published claims about the issues of a case, each with the truth.
fn published(case: &Case, issues: &[Issue]) -> Vec<String> {
    let mut lines = Vec::new();
    for issue in issues.iter().filter(|issue| issue.has_case(case)) {
        let label = issue::labels(std::slice::from_ref(&issue.key)).join(" ");
        for claim in &issue.claim {
            lines.push(format!("\n{FAINT}published about {label}{FAINT:#}  {}", claim.said));
            lines.push(format!("{FAINT}in truth{FAINT:#}  {}", claim.found));
        }
    }
    lines
}

fn side_by_side(before: &RunResult, after: &RunResult, width: usize, detail: SequenceDetail) -> String {
    let mut table = plain_table(width);
    table.set_header(["before: with bug", "after: with fix"]);
    let (left, right) = (sequence::lines(&before.transcript, detail), sequence::lines(&after.transcript, detail));
    for index in 0..left.len().max(right.len()) {
        table.add_row([cell(left.get(index)), cell(right.get(index))]);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A line with its time, where time has passed.
fn cell(line: Option<&SequenceLine>) -> String {
    match line {
        Some(line) if line.at.is_zero() => line.text.clone(),
        Some(line) => format!("{}  [{}]", line.text, seconds(line.at)),
        None => String::new(),
    }
}

/// How the healthy client fared, in full.
fn healthy(healthy: &HealthyClient) -> String {
    match healthy {
        HealthyClient::Tried(outcome) => outcome.to_string(),
        other => other.label(),
    }
}
