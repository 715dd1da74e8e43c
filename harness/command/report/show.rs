//! One case in full: what was reported, what happens on both versions, and how to see it again.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use relapse::report::sequence::{self, SequenceDetail, SequenceLine, seconds};

use super::table::plain_table;
use relapse::{
    case::Symptom,
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
    let case = &trial.case;
    let mut text = String::new();
    let mut say = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    say(format!(
        "{BOLD}{}{BOLD:#}  {}  {}",
        case.name,
        case.scenario.as_deref().unwrap_or_default(),
        issue::labels(&case.issues).join(", ")
    ));
    say(format!("{}\n", case.summary));
    if let Some(reported) = &case.reported {
        say(format!("{FAINT}reported      {FAINT:#}  {reported}"));
    }
    if let Some(behind) = &case.behind {
        say(format!("{FAINT}root cause    {FAINT:#}  {behind}"));
    }
    for DefectEntry { name, origin, mechanism } in
        background.defects.iter().filter(|entry| case.twin.contains(entry.name))
    {
        say(format!("{FAINT}defect        {FAINT:#}  {name}, {origin}: {mechanism}"));
    }
    for fault in &case.faults {
        say(format!("{FAINT}fault         {FAINT:#}  {fault}"));
    }
    say(format!("{FAINT}server        {FAINT:#}  {} in {}\n", trial.profile.server, trial.environment));
    if let (Some(before), Some(after)) = (&judgement.before, &judgement.after) {
        say(side_by_side(before, after, width, detail));
        say(format!("\n{FAINT}before        {FAINT:#}  {}, ended by {}", before.outcome, before.outcome.closed_by));
        for finding in &before.findings {
            say(format!("                {}: {}", finding.check, finding.message));
        }
        say(format!("{FAINT}after         {FAINT:#}  {}, ended by {}", after.outcome, after.outcome.closed_by));
        for finding in &after.findings {
            say(format!("                {}: {}", finding.check, finding.message));
        }
        say(format!("{FAINT}healthy client{FAINT:#}  {}", healthy(&after.control)));
    }
    if let (None, Some(after)) = (&judgement.before, &judgement.after) {
        for line in sequence::lines(&after.transcript, detail) {
            say(format!(" {}", cell(Some(&line))));
        }
        if let Some(Symptom { outcome: Some(outcome), class: Some(class), cause: Some(cause), .. }) = &case.symptom {
            say(format!("\n{FAINT}found         {FAINT:#}  {outcome} ({class}; {cause})"));
        }
        say(format!("{FAINT}now           {FAINT:#}  {}, ended by {}", after.outcome, after.outcome.closed_by));
        for finding in &after.findings {
            say(format!("                {}: {}", finding.check, finding.message));
        }
        say(format!("{FAINT}healthy client{FAINT:#}  {}", healthy(&after.control)));
    }
    for (sham, (verdict, judged)) in case.shams.iter().zip(&judgement.shams) {
        say(format!("{FAINT}claimed       {FAINT:#}  {} ({})", sham.claim, sham.defects));
        say(format!("                in place of the fix: {}; {verdict}", judged.outcome));
    }
    let style = if judgement.verdict.passes() { GOOD } else { BAD };
    let why = judgement.reason.as_ref().map_or(String::new(), |_| format!(": {}", judgement.why()));
    say(format!("{FAINT}verdict       {FAINT:#}  {style}{}{style:#}{why}", judgement.verdict));
    say(format!("{FAINT}reproduce     {FAINT:#}  {}", shell(&trial.replay(seed))));
    let is_its = |issue: &&Issue| case.issues.iter().any(|key| *key == issue.key || issue.also.contains(key));
    for issue in background.issues.iter().filter(is_its) {
        for claim in &issue.claim {
            let label = issue::labels(std::slice::from_ref(&issue.key)).join(" ");
            say(format!("\n{FAINT}published about {label}{FAINT:#}  {}", claim.said));
            say(format!("{FAINT}in truth{FAINT:#}  {}", claim.found));
        }
    }
    text
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
