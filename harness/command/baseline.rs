//! The baseline of a hunt: a file of findings that a team knows, which do not fail the hunt.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use relapse::{
    Result,
    files::{FileLimit, read_text},
    hunt::Found,
};
use relapse_core::error::Error;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::{
    error::{CommandResult, UsageError},
    files::{self, Existing},
    interrupt::was_asked_to_end,
    output::{note, without_secrets},
    report::{baseline::BaselineReport, hunt::HuntReport},
};

/// The first lines of a file.
const HEADING: &str = "\
# The findings that `relapse hunt --baseline` knows: they are reported and do not fail the hunt.
# `--update-baseline` adds entries and `--prune-baseline` drops them. `note` is yours, and stays.
";

/// The baseline of a hunt, and how the hunt changes it.
#[derive(Debug, Clone, Args)]
pub(super) struct BaselineArgs {
    /// Let the findings in this file not fail
    ///
    /// They are reported as known; everything else fails as without it. --update-baseline writes the file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["before", "detection", "check_determinism"])]
    baseline: Option<PathBuf>,
    /// Add to the baseline what is found and not in it
    ///
    /// It does not fail then. The entries that are there stay as they are, with their notes.
    #[arg(long, requires = "baseline", hide_short_help = true)]
    update_baseline: bool,
    /// Drop from the baseline what is not found again
    ///
    /// A hunt that is not done with all its cases drops nothing.
    #[arg(long, requires = "baseline", hide_short_help = true)]
    prune_baseline: bool,
}

/// The fate of a finding that is not in the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NewFindings {
    Fail,
    Added,
}

/// The fate of an entry that the hunt does not find again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StaleEntries {
    Listed,
    Dropped,
}

/// The baseline of a hunt that goes on.
#[derive(Debug)]
pub(super) struct BaselineRun<'a> {
    path: &'a Path,
    new: NewFindings,
    stale: StaleEntries,
    /// The entries when the hunt began.
    entries: BaselineEntries,
    /// The findings so far.
    found: Vec<JudgedFinding>,
    /// How many hunts did all that they had to.
    finished: usize,
}

/// A finding of the hunt, beside the baseline.
#[derive(Debug)]
struct JudgedFinding {
    entry: BaselineEntry,
    is_known: bool,
    is_to_be_added: bool,
}

impl BaselineArgs {
    /// The baseline, read; `None` if no option names one.
    ///
    /// # Errors
    /// When it is broken, or missing and not to be written.
    pub(super) fn plan(&self) -> CommandResult<Option<BaselineRun<'_>>> {
        let Some(path) = &self.baseline else { return Ok(None) };
        let new = if self.update_baseline { NewFindings::Added } else { NewFindings::Fail };
        let stale = if self.prune_baseline { StaleEntries::Dropped } else { StaleEntries::Listed };
        let entries = read(path, new)?.unwrap_or_default();
        Ok(Some(BaselineRun { path, new, stale, entries, found: Vec::new(), finished: 0 }))
    }
}

impl BaselineRun<'_> {
    /// Whether a finding is in the baseline since before the hunt.
    pub(super) fn knows(&self, found: &Found) -> bool {
        let also = found.also.iter().map(|(key, _)| key.to_string());
        self.entries.know(&BaselineEntry::new(&found.key.to_string(), &found.message, also))
    }

    /// Marks the findings of a hunt that are in the baseline, or will be.
    pub(super) fn judge(&mut self, report: &mut HuntReport) {
        for found in &mut report.found {
            found.baseline = None;
            let entry = BaselineEntry::new(&found.key, &found.message, found.also.iter().cloned());
            found.baseline = Some(self.is_known(entry, found.fails()));
        }
        report.known_shutdown.clear();
        for complaint in &report.shutdown {
            if self.is_known(BaselineEntry::of_shutdown(complaint), true) {
                report.known_shutdown.insert(complaint.clone());
            }
        }
        let is_whole = report.unfinished.is_nothing() && !report.has_more;
        self.finished += usize::from(is_whole && !report.proves_nothing());
    }

    /// Whether a finding is in the baseline, or will be, which one has to be that would fail the hunt.
    fn is_known(&mut self, entry: BaselineEntry, fails: bool) -> bool {
        let is_listed = self.entries.know(&entry);
        let is_to_be_added = !is_listed && self.new == NewFindings::Added && fails;
        let is_known = is_listed || is_to_be_added;
        self.found.push(JudgedFinding { entry, is_known, is_to_be_added });
        is_known
    }

    /// Changes the file as far as that is asked for, after so many hunts.
    ///
    /// # Errors
    /// When it cannot be read again or written.
    pub(super) fn finish(self, hunts: usize) -> CommandResult<BaselineReport> {
        // It may have got a note or an entry while the hunt went on.
        let now = read(self.path, self.new)?;
        let is_there = now.is_some();
        let mut entries = now.unwrap_or_default();
        let mut not_found = entries.without(&self.found);
        let mut dropped = BTreeSet::new();
        match (self.stale, self.finished == hunts && !was_asked_to_end()) {
            (StaleEntries::Dropped, true) => dropped = std::mem::take(&mut not_found),
            (StaleEntries::Dropped, false) => {
                note("nothing is dropped from the baseline, as the hunt did not do all its cases");
            }
            (StaleEntries::Listed, _) => {}
        }
        entries.0.retain(|key, _| !dropped.contains(key));
        let mut added = BTreeSet::new();
        let are_known: Vec<bool> = self.found.iter().map(|found| found.is_known).collect();
        for JudgedFinding { entry, .. } in self.found.into_iter().filter(|found| found.is_to_be_added) {
            if !entries.know(&entry) {
                added.insert(entry.key.clone());
                entries.0.insert(entry.key.clone(), entry);
            }
        }
        if !is_there || !added.is_empty() || !dropped.is_empty() {
            entries.write(self.path)?;
        }
        let file = self.path.display().to_string();
        let mut report = BaselineReport { file, known: 0, new: 0, added, dropped, not_found };
        report.count(are_known);
        Ok(report)
    }
}

/// A finding that a team knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct BaselineEntry {
    key: String,
    /// The finding, as it was told when it was added.
    message: String,
    /// The other keys that the same failure had then.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    also: BTreeSet<String>,
    /// A remark of the team.
    note: String,
}

impl BaselineEntry {
    /// A problem with the end of an app. The lines of its code move with every change.
    fn of_shutdown(complaint: &str) -> BaselineEntry {
        BaselineEntry::new(&format!("shutdown: {}", without_lines(complaint)), complaint, std::iter::empty())
    }

    /// An entry without a note, and without secrets.
    fn new(key: &str, message: &str, also: impl Iterator<Item = String>) -> BaselineEntry {
        let also = also.map(|key| without_secrets(&key)).collect();
        BaselineEntry { key: without_secrets(key), message: without_secrets(message), also, note: String::new() }
    }

    fn has(&self, key: &str) -> bool {
        may_be_same(&self.key, key) || self.also.iter().any(|also| may_be_same(also, key))
    }

    /// Whether a finding is this one. Which of several rules sees a failure first differs from seed to seed, so the hunt's
    /// own test of one failure holds here too: the finding is one of this failure's, cannot be had without it, or the same
    /// exception is behind both. Of two exceptions that look alike from outside each is one.
    fn is(&self, found: &BaselineEntry) -> bool {
        let is_another = is_located_exception(&found.key);
        let has = |key: &String| !is_another && *key == self.key || is_located_exception(key) && self.has(key);
        self.has(&found.key) || found.also.iter().any(has)
    }
}

/// Whether two keys can mean the same finding: they are equal, or the same exception is behind both and one has no route, as
/// when a request fits none.
fn may_be_same(one: &str, other: &str) -> bool {
    let ((short, route), (short_other, route_other)) = (without_route(one), without_route(other));
    let lacks_route = route.is_none() || route_other.is_none();
    one == other || lacks_route && short == short_other && has_located_exception(&short)
}

/// A key without its route, and the route: `no_drop: crash on ws:/chat by KeyError in chat` is
/// `no_drop: crash by KeyError in chat`.
fn without_route(key: &str) -> (String, Option<&str>) {
    for (at, mark) in key.match_indices(" on ") {
        let rest = &key[at + mark.len()..];
        let (route, exception) = rest.split_at(rest.find(" by ").unwrap_or(rest.len()));
        if is_route(route) {
            return (format!("{}{exception}", &key[..at]), Some(route));
        }
    }
    (key.to_owned(), None)
}

/// Whether a text is a route, such as `GET /orders/{id}` or `ws:/chat`.
fn is_route(text: &str) -> bool {
    let methods = text.split_once(" /").map(|(methods, _)| methods);
    text.starts_with("ws:/")
        || methods.is_some_and(|methods| methods.chars().all(|letter| letter.is_ascii_uppercase() || letter == ','))
}

/// Whether a key names an exception with the function that raised it.
fn has_located_exception(key: &str) -> bool {
    is_located_exception(key) || key.rsplit_once(" by ").is_some_and(|(_, exception)| exception.contains(" in "))
}

/// A text in which each place has no number of a line: `(service.py:8 in chat)` is `(service.py in chat)`.
fn without_lines(text: &str) -> String {
    let mut kept = String::new();
    let mut places = text.split(" in ").peekable();
    while let Some(part) = places.next() {
        let line = part.rsplit_once(':').filter(|(_, line)| line.parse::<u32>().is_ok());
        let Some(_) = places.peek() else { return kept + part };
        kept.push_str(line.map_or(part, |(file, _)| file));
        kept.push_str(" in ");
    }
    kept
}

/// Whether a key is that of an exception that left the app, with the function that raised it.
fn is_located_exception(key: &str) -> bool {
    key.strip_prefix("no_escaped_exception: ").is_some_and(|subject| subject.contains(" in "))
}

/// The entries of a baseline, by their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct BaselineEntries(BTreeMap<String, BaselineEntry>);

/// The shape of the file.
#[derive(Debug, Serialize)]
struct BaselineFile<'e> {
    finding: Vec<&'e BaselineEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBaseline {
    #[serde(default)]
    finding: Vec<RawBaselineEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBaselineEntry {
    key: Spanned<String>,
    #[serde(default)]
    message: String,
    #[serde(default)]
    also: BTreeSet<String>,
    #[serde(default)]
    note: String,
}

/// The entries of a file; `None` where there is none and the hunt writes it.
fn read(path: &Path, new: NewFindings) -> CommandResult<Option<BaselineEntries>> {
    match read_text(path, FileLimit::RECORDED) {
        Ok(text) => Ok(Some(BaselineEntries::parse(&path.display().to_string(), &text)?)),
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => match new {
            NewFindings::Added => Ok(None),
            NewFindings::Fail => Err(UsageError::NoBaseline { path: path.to_owned() }.into()),
        },
        Err(error) => Err(error.into()),
    }
}

impl BaselineEntries {
    fn parse(path: &str, text: &str) -> Result<BaselineEntries> {
        let raw: RawBaseline = toml::from_str(text).map_err(|error| Error::toml(path, text, &error))?;
        let (mut entries, mut keys) = (BTreeMap::new(), BTreeSet::new());
        for RawBaselineEntry { key, message, also, note } in raw.finding {
            if !keys.insert(key.get_ref().clone()) {
                let help = Some("keep one of the two entries".to_owned());
                return Err(Error::at(path, text, key.span(), "this key is there twice", help));
            }
            let key = without_secrets(key.get_ref());
            let also = also.iter().map(|key| without_secrets(key)).collect();
            entries.insert(key.clone(), BaselineEntry { key, message, also, note });
        }
        Ok(BaselineEntries(entries))
    }

    /// Whether a finding is one of them.
    fn know(&self, found: &BaselineEntry) -> bool {
        self.0.values().any(|entry| entry.is(found))
    }

    /// The keys of those that are none of these findings.
    fn without(&self, found: &[JudgedFinding]) -> BTreeSet<String> {
        let missed = self.0.values().filter(|entry| !found.iter().any(|found| entry.is(&found.entry)));
        missed.map(|entry| entry.key.clone()).collect()
    }

    fn print(&self) -> String {
        let file = BaselineFile { finding: self.0.values().collect() };
        let entries = if file.finding.is_empty() {
            String::new()
        } else {
            toml::to_string_pretty(&file).expect("texts are TOML")
        };
        format!("{HEADING}\n{entries}")
    }

    fn write(&self, path: &Path) -> Result {
        let text = self.print();
        // A file that cannot be read again would lose every entry.
        BaselineEntries::parse(&path.display().to_string(), &without_secrets(&text))?;
        files::write(path, &text, Existing::Replace)
    }
}

#[cfg(test)]
mod tests {
    use super::{BaselineEntries, BaselineEntry};

    fn entry(key: &str, also: &[&str]) -> BaselineEntry {
        let also = also.iter().map(|key| (*key).to_owned()).collect();
        BaselineEntry { key: key.to_owned(), message: String::new(), also, note: String::new() }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let odd = "it's \"quoted\" '''three''' \\ and \u{1b}[31m\r\nover\ttwo lines \u{2028} [[finding]]\n";
        let mut entries = BaselineEntries::default();
        assert_eq!(BaselineEntries::parse("b", &entries.print()).unwrap(), entries);
        for key in ["z: last", "a: first", odd] {
            let also = [odd.to_owned(), "x".to_owned()].into();
            let one = BaselineEntry { key: key.to_owned(), message: odd.to_owned(), also, note: odd.to_owned() };
            entries.0.insert(key.to_owned(), one);
        }
        let text = entries.print();
        assert_eq!(BaselineEntries::parse("b", &text).unwrap(), entries);
        assert_eq!(BaselineEntries::parse("b", &text).unwrap().print(), text);
        let [first, last] = ["a: first", "z: last"].map(|key| text.find(&format!("key = \"{key}\"")).unwrap());
        assert!(first < last, "{text}");
    }

    #[test]
    fn the_end_of_an_app_is_known_when_its_code_moves() {
        let [one, two] = [8, 9].map(|line| {
            BaselineEntry::of_shutdown(&format!("KeyError: 'a: 5 in b' (s.py:{line} in life) left in haste: 7"))
        });
        assert_eq!(one.key, "shutdown: KeyError: 'a: 5 in b' (s.py in life) left in haste: 7");
        assert!(one.is(&two));
    }

    #[test]
    fn a_failure_is_known_by_any_of_its_keys() {
        let (drop, exception) = ("no_drop: crash on ws:/ws", "no_escaped_exception: KeyError in chat on ws:/ws");
        let another = "no_escaped_exception: ValueError in chat on ws:/ws";
        let known = entry(drop, &[exception]);
        assert!(known.is(&entry(drop, &[])));
        assert!(known.is(&entry(exception, &[drop])), "another rule saw it first");
        assert!(known.is(&entry("no_hang: chat", &[drop])), "it cannot be had without the known one");
        assert!(known.is(&entry("server-error: crash", &[exception])), "the same exception is behind it");
        assert!(!known.is(&entry(another, &[drop])), "another exception that looks alike from outside");
        assert!(!known.is(&entry("no_drop: crash on ws:/other", &[])));
        assert!(!known.is(&entry("no_drop: crash", &[])), "a failure without an exception is one of its route");
    }

    #[test]
    fn an_exception_is_known_where_a_request_fits_no_route() {
        let [on, off, elsewhere] = [" on GET,POST /{id}", "", " on ws:/{id}"]
            .map(|route| entry(&format!("no_server_error: 500:on crash{route} by KeyError in by_id"), &[]));
        assert!(on.is(&off) && off.is(&on) && on.is(&on));
        assert!(!on.is(&elsewhere), "the same function fails on another route");
        let [on, off] = [" on GET /{id}", ""]
            .map(|route| entry(&format!("no_escaped_exception: KeyError in by_id before the accept{route}"), &[]));
        assert!(on.is(&off) && off.is(&on));
        assert!(!on.is(&entry("no_escaped_exception: KeyError before the accept", &[])));
    }
}
