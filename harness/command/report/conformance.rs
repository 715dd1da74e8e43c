//! How servers keep RFC 6455, as a table and as a JSON document.

use std::collections::BTreeSet;

use anstyle::Style;
use serde::Serialize;

use super::table::{BAD, GOOD, behind, keep_names_whole, paint, plain_table};
use relapse_core::{
    conformance::{Behavior, BehaviorReport, BehaviorResult, Conformance, FrameCase},
    judge::verdict::Verdict,
};

/// The version of the document's shape. It grows when a key changes its meaning or goes.
const SCHEMA: u32 = 1;

/// A row for each case and each way it comes out, then what was asked for where something else came, then the counts.
pub fn render(found: &[Conformance], width: usize) -> String {
    let rows: Vec<(&FrameCase, Vec<BehaviorRow<'_>>)> = cases(found).map(|case| (case, rows(case, found))).collect();
    let asked = rows.iter().filter(|(_, rows)| rows.iter().any(|row| !is_good(row.behavior)));
    let asked = asked.map(|(case, _)| format!("{}  {} Asked for: {}.\n", case.name, case.tries, case.expected));
    let parts = [table(&rows, found, width), asked.collect(), found.iter().map(count).collect()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<String>>().join("\n")
}

/// The column of the servers, which is left out where there is one.
const BEHIND: usize = 2;

fn table(rows: &[(&FrameCase, Vec<BehaviorRow<'_>>)], found: &[Conformance], width: usize) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let servers: BTreeSet<&str> = found.iter().map(|found| found.server.as_str()).collect();
    let mut table = plain_table(width);
    table.set_header(shown(["case", "section", "server", "evidence", "behavior"], &servers));
    for (case, rows) in rows {
        let names = std::iter::once((case.name.as_str(), case.section.as_str())).chain(std::iter::repeat(("", "")));
        for (row, (name, section)) in rows.iter().zip(names) {
            let behind = behind(&row.servers, &servers);
            table.add_row(shown([name, section, &behind, &row.evidence, label(row.behavior)], &servers));
        }
    }
    keep_names_whole(&mut table, 0, width);
    let styles: Vec<_> = behaviors().map(|behavior| (label(behavior), style(behavior))).collect();
    paint(&table.to_string(), &styles)
}

/// The cells of a row that a table about these servers shows.
fn shown(cells: [&str; 5], servers: &BTreeSet<&str>) -> Vec<String> {
    let cells = cells.into_iter().enumerate().filter(|(index, _)| *index != BEHIND || servers.len() > 1);
    cells.map(|(_, cell)| cell.to_owned()).collect()
}

/// The cases that were tried on any server.
fn cases(found: &[Conformance]) -> impl Iterator<Item = &FrameCase> {
    let longest = found.iter().max_by_key(|found| found.tried.len());
    longest.into_iter().flat_map(|found| found.tried.iter().map(|tried| tried.case.as_ref()))
}

/// How a case comes out behind some servers.
struct BehaviorRow<'a> {
    servers: Vec<&'a str>,
    evidence: String,
    behavior: Option<Behavior>,
}

fn rows<'a>(case: &FrameCase, found: &'a [Conformance]) -> Vec<BehaviorRow<'a>> {
    let mut rows: Vec<BehaviorRow<'a>> = Vec::new();
    for found in found {
        let Some(tried) = found.tried.iter().find(|tried| tried.case.name == case.name) else { continue };
        let took = tried.took_ms().filter(|_| found.is_foreign());
        let evidence = tried.evidence() + &took.map_or(String::new(), |took| format!(" after {took} ms"));
        let behavior = tried.behavior();
        match rows.iter_mut().find(|row| row.evidence == evidence && row.behavior == behavior) {
            Some(row) => row.servers.push(&found.server),
            None => rows.push(BehaviorRow { servers: vec![&found.server], evidence, behavior }),
        }
    }
    rows
}

/// Every behavior, and that nothing can be concluded.
fn behaviors() -> impl Iterator<Item = Option<Behavior>> {
    Behavior::ALL.into_iter().map(Some).chain([None])
}

fn label(behavior: Option<Behavior>) -> &'static str {
    behavior.map_or(Verdict::Inconclusive.label(), Behavior::name)
}

fn is_good(behavior: Option<Behavior>) -> bool {
    behavior.is_some_and(Behavior::is_good)
}

fn style(behavior: Option<Behavior>) -> Style {
    if is_good(behavior) { GOOD } else { BAD }
}

/// How often each behavior showed.
fn count(found: &Conformance) -> String {
    if let Some(trouble) = &found.trouble {
        return format!("{BAD}{}{BAD:#} {}: {trouble}\n", Verdict::Inconclusive, found.server);
    }
    let mut counts = Vec::new();
    for behavior in behaviors() {
        let count = found.tried.iter().filter(|tried| tried.behavior() == behavior).count();
        if count > 0 {
            let style = style(behavior);
            counts.push(format!("{style}{count} {}{style:#}", label(behavior)));
        }
    }
    let conversations: usize = found.tried.iter().map(|tried| tried.results.len()).sum();
    let counts = counts.join(", ");
    format!("{}: {} case(s), {conversations} conversation(s): {counts}\n", found.server, found.tried.len())
}

#[derive(Serialize)]
struct ConformanceDocument<'a> {
    schema: u32,
    servers: Vec<ServerEntry<'a>>,
}

#[derive(Serialize)]
struct ServerEntry<'a> {
    server: &'a str,
    trouble: Option<&'a str>,
    cases: Vec<FrameCaseEntry<'a>>,
}

#[derive(Serialize)]
struct FrameCaseEntry<'a> {
    case: &'a str,
    section: &'a str,
    tries: &'a str,
    asked_for: String,
    behavior: &'static str,
    evidence: String,
    conversations: Vec<ConversationEntry<'a>>,
}

#[derive(Serialize)]
struct ConversationEntry<'a> {
    variant: &'a str,
    behavior: &'static str,
    evidence: &'a str,
    took_ms: Option<u128>,
}

/// The document, indented.
pub fn render_json(found: &[Conformance]) -> String {
    let document = ConformanceDocument { schema: SCHEMA, servers: found.iter().map(server_entry).collect() };
    serde_json::to_string_pretty(&document).expect("the document holds nothing that JSON cannot write")
}

fn server_entry(found: &Conformance) -> ServerEntry<'_> {
    ServerEntry {
        server: &found.server,
        trouble: found.trouble.as_deref(),
        cases: found.tried.iter().map(case_entry).collect(),
    }
}

fn case_entry(tried: &BehaviorReport) -> FrameCaseEntry<'_> {
    let conversations = tried.case.variants.iter().zip(&tried.results);
    FrameCaseEntry {
        case: &tried.case.name,
        section: &tried.case.section,
        tries: &tried.case.tries,
        asked_for: tried.case.expected.to_string(),
        behavior: label(tried.behavior()),
        evidence: tried.evidence(),
        conversations: conversations.map(|(variant, result)| conversation(&variant.name, result)).collect(),
    }
}

fn conversation<'a>(variant: &'a str, result: &'a Result<BehaviorResult, String>) -> ConversationEntry<'a> {
    match result {
        Ok(BehaviorResult { behavior, evidence, at }) => {
            let took_ms = at.map(|at| at.as_millis());
            ConversationEntry { variant, behavior: behavior.name(), evidence, took_ms }
        }
        Err(why) => ConversationEntry { variant, behavior: label(None), evidence: why, took_ms: None },
    }
}
