//! The verdicts of a run as a table.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

use relapse::{
    trial::{Ran, Report, shell},
    verdict_rules::clause,
};
use relapse_core::judge::{
    outcome::{Class, Outcome},
    verdict::{HealthyClient, LetIn, Reason, RunResult, TrialResult, Verdict},
};
use relapse_simulate::profile::version_of;

pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(super) const FAINT: Style = Style::new().dimmed();

/// The column of the healthy client, and the width from which on it is shown.
const CONTROL: usize = 4;
const WIDTH_WITH_CONTROL: usize = 130;
/// The width from which on names are never cut.
const WIDTH_WITH_WHOLE_NAMES: usize = 100;

/// A table without frames, at most this many characters wide.
pub fn plain_table(width: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    table
}

/// The whole report: a row for each case and each way it shows, then what is wrong, then the count.
pub fn render(report: &Report, width: usize) -> String {
    let mut table = plain_table(width);
    let is_external = report.trials.iter().any(|(ran, _)| ran.external().is_some());
    let (before, after) = if is_external { ("before", "after") } else { ("with bug", "with fix") };
    let header = ["case", "server", before, after, "healthy", "verdict"];
    table.set_header(shown(header, width));
    for row in fold(&report.trials) {
        let cells = row.cells(&servers_of(&report.trials, &row.ran.case().name));
        table.add_row(shown(cells, width));
    }
    keep_names_whole(&mut table, 0, width);
    let verdicts = Verdict::ALL.map(|verdict| (verdict.label(), style(verdict)));
    let mut text = paint(&table.to_string(), &verdicts);
    text.push_str(&shams(report, width));
    for (ran, judgement) in &report.trials {
        if !judgement.verdict.passes() {
            text.push_str(&explain(ran, judgement, report.seed));
        } else if ran.external().is_some() {
            text.push_str(&clauses(ran, judgement));
        }
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    for complaint in &report.shutdown {
        let _ = writeln!(text, "\n{BAD}FAILED{BAD:#} shutdown: {complaint}");
    }
    text.push_str(&count(report));
    text
}

/// The cells of a row for which there is room. A narrow terminal has none for what is the same in every row that passes.
fn shown<T>(cells: [T; 6], width: usize) -> impl Iterator<Item = T> {
    let cells = cells.into_iter().enumerate();
    cells.filter(move |(index, _)| *index != CONTROL || width >= WIDTH_WITH_CONTROL).map(|(_, cell)| cell)
}

fn style(verdict: Verdict) -> Style {
    if verdict.passes() { GOOD } else { BAD }
}

/// A case behind the servers where both versions look alike.
struct VerdictRow<'a> {
    ran: &'a Ran,
    judgement: &'a TrialResult,
    servers: Vec<&'a str>,
    is_first: bool,
}

fn fold(trials: &[(Ran, TrialResult)]) -> Vec<VerdictRow<'_>> {
    let mut rows: Vec<VerdictRow<'_>> = Vec::new();
    for (ran, judgement) in trials {
        let of_case = rows.iter().position(|row| row.ran.case().name == ran.case().name);
        let alike = rows.iter_mut().find(|row| {
            row.ran.case().name == ran.case().name
                && row.judgement.verdict == judgement.verdict
                && look(&row.judgement.before) == look(&judgement.before)
                && look(&row.judgement.after) == look(&judgement.after)
        });
        match alike {
            Some(row) if row.servers.contains(&ran.server()) => {}
            Some(row) => row.servers.push(ran.server()),
            None => rows.push(VerdictRow { ran, judgement, servers: vec![ran.server()], is_first: of_case.is_none() }),
        }
    }
    rows
}

/// Behind which servers a case ran.
fn servers_of<'a>(trials: &'a [(Ran, TrialResult)], case: &str) -> BTreeSet<&'a str> {
    trials.iter().filter(|(ran, _)| ran.case().name == case).map(|(ran, _)| ran.server()).collect()
}

fn look(judged: &Option<RunResult>) -> String {
    judged.as_ref().map_or("-".to_owned(), |judged| show(&judged.outcome))
}

fn show(outcome: &Outcome) -> String {
    format!("{}  {}", outcome.ending, outcome.class)
}

impl VerdictRow<'_> {
    fn cells(&self, all_servers: &BTreeSet<&str>) -> [String; 6] {
        let name = if self.is_first { self.ran.case().name.clone() } else { String::new() };
        let control = self.judgement.after.as_ref().map_or("-".to_owned(), |after| after.control.label());
        [
            name,
            behind(&self.servers, all_servers),
            look(&self.judgement.before),
            look(&self.judgement.after),
            control,
            self.judgement.verdict.label().to_owned(),
        ]
    }
}

/// Some of all servers, by name or, where that is shorter, by what is left out.
pub fn behind(servers: &[&str], all: &BTreeSet<&str>) -> String {
    let others: Vec<&str> = all.iter().copied().filter(|name| !servers.contains(name)).collect();
    let (named, left_out) = (versions(servers, all), versions(&others, all));
    match left_out.as_slice() {
        [] if all.len() > 1 => "all".to_owned(),
        [_, ..] if left_out.len() < named.len() => format!("all but {}", left_out.join(" ")),
        _ => named.join(" "),
    }
}

/// Their names; one with a star for every implementation of WebSocket of one version.
fn versions(servers: &[&str], all: &BTreeSet<&str>) -> Vec<String> {
    let mut names = Vec::new();
    for server in servers {
        let version = version_of(server);
        let mut implementations = all.iter().filter(|name| version_of(name) == version);
        let is_whole = implementations.clone().count() > 1 && implementations.all(|name| servers.contains(name));
        let name = if is_whole { format!("{version}*") } else { (*server).to_owned() };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Keeps the names of a column as they are, where there is room: a name cut in two can be neither read nor copied.
pub(super) fn keep_names_whole(table: &mut Table, column: usize, width: usize) {
    if let Some(names) = table.column_mut(column).filter(|_| width >= WIDTH_WITH_WHOLE_NAMES) {
        names.set_constraint(ColumnConstraint::ContentWidth);
    }
}

/// Colors the header, and each row by the label it ends with; a stream that is no terminal strips it again.
pub(super) fn paint(table: &str, labels: &[(&str, Style)]) -> String {
    let mut text = String::new();
    for (index, line) in table.lines().enumerate() {
        let line = line.trim_end();
        let label = labels.iter().find(|(label, _)| line.ends_with(label));
        let _ = match label {
            _ if index == 0 => writeln!(text, "{FAINT}{line}{FAINT:#}"),
            Some((label, style)) => {
                let (start, label) = line.split_at(line.len() - label.len());
                writeln!(text, "{start}{style}{label}{style:#}")
            }
            None => writeln!(text, "{line}"),
        };
    }
    text
}

/// The claimed fixes, each with what it shows in place of the real one.
fn shams(report: &Report, width: usize) -> String {
    let mut table = plain_table(width);
    table.set_header(["claimed fix", "of", "in place of the fix", "verdict"]);
    let mut seen = BTreeSet::new();
    for (ran, judgement) in &report.trials {
        for (sham, (verdict, judged)) in ran.case().shams.iter().zip(&judgement.shams) {
            let shown = show(&judged.outcome);
            if seen.insert((ran.case().name.as_str(), sham.defects.to_string(), shown.clone())) {
                table.add_row([&sham.claim, &ran.case().name, &shown, verdict.label()]);
            }
        }
    }
    if seen.is_empty() {
        return String::new();
    }
    keep_names_whole(&mut table, 1, width);
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    let (header, rows) = lines.split_first().map_or(("", &[][..]), |(header, rows)| (header.as_str(), rows));
    format!("\n{FAINT}{header}{FAINT:#}\n{}\n", rows.join("\n"))
}

/// Why a verdict does not pass, and how to see it again.
fn explain(ran: &Ran, judgement: &TrialResult, seed: u64) -> String {
    let (verdict, case, why) = (judgement.verdict, &ran.case().name, judgement.why());
    if matches!(judgement.reason, Some(Reason::NotForThisTarget(_))) {
        // A case that the target cannot perform is no finding against it.
        return format!("\n{verdict} {case}: {why}");
    }
    let environment = ran.environment().map_or(String::new(), |environment| format!(" in {environment}"));
    let mut text = format!("\n{BAD}{verdict}{BAD:#} {case} behind {}{environment}: {why}\n", ran.server());
    text.push_str(&lines(judgement));
    let findings = judgement.after.iter().flat_map(|after| &after.findings);
    let mut findings: Vec<String> = findings.map(|finding| format!("{}: {}", finding.check, finding.message)).collect();
    findings.dedup();
    // A finding that a clause gives already is not repeated.
    findings.retain(|finding| !text.contains(finding.as_str()));
    findings.iter().for_each(|finding| text.push_str(&format!("    {finding}\n")));
    let _ = writeln!(text, "  reproduce: {}", shell(&ran.replay(seed)));
    text
}

/// A clause about each version, where the verdict passes.
fn clauses(ran: &Ran, judgement: &TrialResult) -> String {
    let verdict = judgement.verdict;
    let shown = judgement.shown.map_or(String::new(), |shown| format!(", {shown}"));
    format!("\n{GOOD}{verdict}{GOOD:#} {} behind {}{shown}\n{}", ran.case().name, ran.server(), lines(judgement))
}

/// A clause about each version.
fn lines(judgement: &TrialResult) -> String {
    let mut text = String::new();
    let shown = judgement.shown.filter(|_| !judgement.verdict.passes());
    let shown = shown.map_or(String::new(), |shown| format!(" ({shown})"));
    if let Some(before) = &judgement.before {
        let _ = writeln!(text, "  before{shown}: {}", clause(before));
    }
    if let Some(after) = &judgement.after {
        let _ = writeln!(text, "  after: {}", clause(after));
        if let (HealthyClient::Tried(outcome), Some(LetIn::Other(request))) = (&after.control, &after.admission.let_in)
            && outcome.class == Class::Served
        {
            let _ = writeln!(text, "  healthy client: served at `{request}`, not at the route of the case");
        }
        match &after.control {
            HealthyClient::RefusedByDesign(outcome) => {
                let _ = writeln!(
                    text,
                    "  no healthy client: the service refuses the plainest request ({})",
                    outcome.ending
                );
            }
            HealthyClient::Absent if judgement.before.is_some() => text.push_str("  no healthy client\n"),
            HealthyClient::Absent | HealthyClient::Tried(_) | HealthyClient::CredentialRefused(_) => {}
        }
    }
    text
}

fn count(report: &Report) -> String {
    let cases = report.trials.iter().map(|(ran, _)| ran.case().name.as_str()).collect::<BTreeSet<_>>();
    let verdicts: Vec<String> = report
        .counts()
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(verdict, count)| {
            let style = style(verdict);
            format!("{style}{count} {verdict}{style:#}")
        })
        .collect();
    let exercised = report.exercised();
    format!(
        "\n{} case(s), {} trial(s): {}\n{} requests sent, {} sessions opened, {} times a fault acted; seed {}, {:.2} s\n",
        cases.len(),
        report.trials.len(),
        verdicts.join(", "),
        exercised.requests,
        exercised.sessions,
        exercised.faults,
        report.seed,
        report.wall.as_secs_f64(),
    )
}
