//! The catalogue by issue: what was reported, its root cause, which cases show it, and which defects and
//! checks they rest on.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use anstyle::Style;
use comfy_table::ColumnConstraint;
use serde::Serialize;

use super::table::plain_table;
use relapse::{
    case::Case,
    issue::{Issue, labels},
};

const BOLD: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();

/// The issues, and the cases that are listed.
#[derive(Debug, Clone, Copy)]
pub struct Listing<'a> {
    /// Every issue.
    pub issues: &'a [Issue],
    /// The cases.
    pub cases: &'a [Arc<Case>],
}

/// One issue with its cases, and what they rest on.
#[derive(Debug, Serialize)]
struct IssueEntry<'a> {
    issue: &'a str,
    also: &'a [String],
    title: &'a str,
    #[serde(rename = "root_cause")]
    behind: &'a str,
    cases: Vec<ListedCase<'a>>,
    defects: BTreeSet<&'a str>,
    #[serde(rename = "claimed_fixes")]
    shams: BTreeSet<&'a str>,
    checks: BTreeSet<&'a str>,
}

#[derive(Debug, Serialize)]
struct ListedCase<'a> {
    case: &'a str,
    scenario: &'a str,
    summary: &'a str,
    issues: &'a [String],
}

/// The issues that any of the cases belongs to, in the order of their file, and what belongs to none of them.
fn entries<'a>(issues: &'a [Issue], cases: &'a [Arc<Case>]) -> Vec<IssueEntry<'a>> {
    let mut entries: Vec<IssueEntry<'_>> = issues
        .iter()
        .map(|issue| {
            let own = cases.iter().filter(|case| issue.has_case(case));
            entry(&issue.key, issue, own.map(Arc::as_ref).collect())
        })
        .collect();
    let others = cases.iter().filter(|case| !issues.iter().any(|issue| issue.has_case(case)));
    let others: Vec<&Case> = others.map(Arc::as_ref).collect();
    static OTHERS: Issue =
        Issue { key: String::new(), title: String::new(), also: Vec::new(), behind: String::new(), claim: Vec::new() };
    entries.push(entry("other", &OTHERS, others));
    entries.retain(|entry| !entry.cases.is_empty());
    entries
}

fn entry<'a>(key: &'a str, issue: &'a Issue, cases: Vec<&'a Case>) -> IssueEntry<'a> {
    let shams = cases.iter().flat_map(|case| &case.shams);
    let symptoms = cases.iter().flat_map(|case| case.symptom.iter().chain(case.symptom_on.values()));
    let found_by = symptoms.flat_map(|symptom| &symptom.found_by).chain(shams.clone().flat_map(|sham| &sham.found_by));
    let defects = cases.iter().flat_map(|case| case.twin.names()).collect();
    IssueEntry {
        issue: key,
        also: &issue.also,
        title: &issue.title,
        behind: &issue.behind,
        checks: found_by.map(String::as_str).collect(),
        shams: cases.iter().flat_map(|case| shams_of(case)).collect(),
        defects,
        cases: cases
            .into_iter()
            .map(|case| ListedCase {
                case: &case.name,
                scenario: case.scenario.as_deref().unwrap_or_default(),
                summary: &case.summary,
                issues: &case.issues,
            })
            .collect(),
    }
}

/// The defects that the claimed fixes of a case brought, beside what they left.
fn shams_of(case: &Case) -> impl Iterator<Item = &str> {
    let brought = case.shams.iter().flat_map(|sham| sham.defects.names());
    brought.filter(|defect| !case.twin.contains(defect))
}

/// The catalogue for a reader, at most this many characters wide. A case that belongs to several issues stands with each.
pub fn render_list(issues: &[Issue], cases: &[Arc<Case>], width: usize) -> String {
    let mut text = String::new();
    for entry in entries(issues, cases) {
        let mut table = plain_table(width.saturating_sub(2));
        for row in &entry.cases {
            table.add_row([row.case, row.scenario, row.summary]);
        }
        let keys: Vec<String> = std::iter::once(entry.issue.to_owned()).chain(entry.also.iter().cloned()).collect();
        let _ = writeln!(text, "{BOLD}{}{BOLD:#}  {}", labels(&keys).join(" "), entry.title);
        if !entry.behind.is_empty() {
            let _ = writeln!(text, "{FAINT}root cause{FAINT:#}  {}", entry.behind);
        }
        for column in table.column_iter_mut().take(2) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        for line in table.lines().filter(|line| !line.trim().is_empty()) {
            let _ = writeln!(text, " {}", line.trim_end());
        }
        text.push('\n');
    }
    text
}

/// Names as Markdown has code.
fn code<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ")
}

/// The map from issues to cases, defects and checks, as a Markdown table.
pub fn render_map(issues: &[Issue], cases: &[Arc<Case>]) -> String {
    let mut text =
        String::from("| issue | reported | cases | defects | claimed fixes | found by |\n|---|---|---|---|---|---|\n");
    for entry in entries(issues, cases) {
        let keys: Vec<String> = std::iter::once(entry.issue.to_owned()).chain(entry.also.iter().cloned()).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            labels(&keys).join(" "),
            entry.title.replace('|', "\\|"),
            code(entry.cases.iter().map(|row| row.case)),
            code(entry.defects.iter().copied()),
            code(entry.shams.iter().copied()),
            code(entry.checks.iter().copied()),
        );
    }
    text
}

/// The same as one JSON document.
pub fn render_json(issues: &[Issue], cases: &[Arc<Case>]) -> String {
    serde_json::to_string_pretty(&entries(issues, cases)).expect("names and texts are JSON")
}
