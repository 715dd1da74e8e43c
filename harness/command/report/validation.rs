//! The check of a deployment, as a table, a line and JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use relapse::validate::Validation;

use super::table::plain_table;

/// The validations behind one profile, or behind several.
#[derive(Debug)]
pub enum Validations {
    /// Of the only front.
    One(Box<Looked>),
    /// Of several, each with its profile.
    Several(Vec<(String, Looked)>),
}

/// A validation, and how long it took.
#[derive(Debug)]
pub struct Looked {
    /// The validation itself.
    pub validation: Validation,
    /// How long it took, tries that failed included, in wall time.
    pub wall: Duration,
}

/// One of the tries of a watch.
#[derive(Debug)]
pub struct Try {
    /// The validation of this time.
    pub validation: Validation,
    /// How many tries there were.
    pub tries: u32,
    /// How many of them passed.
    pub passed: u32,
    /// The last failure.
    pub last_failure: Option<String>,
}

/// The tables for people, at most so many characters wide.
pub fn page(validations: &Validations, width: usize) -> String {
    match validations {
        Validations::One(looked) => looked.page(width),
        Validations::Several(several) => several.iter().map(|(_, looked)| looked.page(width)).collect(),
    }
}

/// The line of one try.
pub fn line(tried: &Try) -> String {
    let Try { validation, tries, passed, last_failure } = tried;
    let rate = 100.0 * f64::from(*passed) / f64::from(*tries);
    let last = last_failure.as_ref().map_or(String::new(), |last| format!("; last failure: {last}"));
    let said = if validation.passes { "passes" } else { "FAILS " };
    format!("{said}  {passed} of {tries} ({rate:.0} %){last}")
}

/// One document, which names each profile where there are several.
pub fn to_json(validations: &Validations) -> String {
    match validations {
        Validations::One(looked) => serde_json::to_string_pretty(&looked.validation),
        Validations::Several(several) if several.is_empty() => Ok(String::new()),
        Validations::Several(several) => {
            let by_profile: BTreeMap<&str, &Validation> =
                several.iter().map(|(profile, looked)| (profile.as_str(), &looked.validation)).collect();
            serde_json::to_string_pretty(&by_profile)
        }
    }
    .unwrap_or_default()
}

/// One document in one line.
pub fn to_json_line(tried: &Try) -> String {
    serde_json::to_string(&tried.validation).unwrap_or_default()
}

/// The first thing that is not as it has to be.
pub fn failing(validation: &Validation) -> String {
    let failing = validation.rows.iter().find(|row| !row.passes);
    failing.map_or(String::new(), |row| format!("{}: {}", row.tried, row.got))
}

impl Looked {
    fn page(&self, width: usize) -> String {
        let said = if self.validation.passes { "passes" } else { "FAILS" };
        format!("{}\n{said} after {:.1} s\n", table(&self.validation, width), self.wall.as_secs_f64())
    }
}

fn table(validation: &Validation, width: usize) -> String {
    let mut table = plain_table(width);
    table.set_header(["", "tried", "expected", "got", "ms"]);
    for row in &validation.rows {
        let took = row.took_ms.map_or(String::new(), |took| took.to_string());
        let mark = if row.passes { "ok" } else { "FAILS" };
        table.add_row([mark, &row.tried, &row.expected, &row.got, &took]);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    let named = if validation.server.is_empty() { String::new() } else { format!("{}, ", validation.server) };
    let ends = validation.shutdown.iter().map(|complaint| format!("shutdown: {complaint}"));
    let notes: String = validation.notes.iter().cloned().chain(ends).map(|note| format!("\n{note}")).collect();
    format!("{}\n\nserver: {named}{}{notes}", lines.join("\n"), validation.kind)
}
