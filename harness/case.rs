//! One case: what was reported, what the client does, which faults act, and what is accepted. `fixtures/README.md`
//! documents the file format.

mod raw;
mod reader;
mod short;
mod writer;

use std::collections::BTreeMap;

use crate::{
    cause::Cause,
    environment::Environment,
    error::Error,
    fault::Fault,
    outcome::{Class, Outcome},
    plan::Plan,
    profile::version_of,
    revision::Revision,
    step::{Crowd, Step},
    transcript::Transcript,
};

/// The profile a case runs on unless it names others: the server of the reports.
pub const DEFAULT_PROFILE: &str = "uvicorn-0.35";

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// `area/name`, from the file's place.
    pub name: String,
    /// One line: what must hold.
    pub summary: String,
    /// One sentence: what was reported.
    pub reported: String,
    /// One sentence: what was really behind it.
    pub behind: String,
    /// The issues it was reported under, by number or by the name `fixtures/issues.toml` gives them.
    pub issues: Vec<String>,
    /// Its row in the catalogue of scenarios, such as `S508-1`.
    pub scenario: String,
    /// The defective twin. The repaired revision where there is none: what was found once must not be found again.
    pub twin: Revision,
    /// The server profiles it runs on; `None` for every one.
    pub profiles: Option<Vec<String>>,
    /// The environments it runs in.
    pub environments: Vec<Environment>,
    /// What the client does.
    pub steps: Vec<Step>,
    /// How many clients do it.
    pub crowd: Crowd,
    /// Which faults act.
    pub faults: Vec<Fault>,
    /// The seed it needs; `None` when any will do.
    pub seed: Option<u64>,
    /// Whether the valid client comes only after the case, not before and beside it.
    pub is_alone: bool,
    /// What is accepted on the repaired twin, for each step that opens an exchange.
    pub accepted: Vec<Accepted>,
    /// How many exchanges of a class there must be at least.
    pub at_least: BTreeMap<Class, usize>,
    /// What the defective twin must show.
    pub symptom: Symptom,
    /// What it must show behind particular servers instead.
    pub symptom_on: BTreeMap<String, Symptom>,
    /// Repairs that were claimed, each of which must be seen through.
    pub shams: Vec<Sham>,
}

/// The scenario of what a hunt found.
pub const HUNTED: &str = "hunt";

/// The scenario of what a hunt found by an application's own routes: it is said in that application's words.
pub const HUNTED_BY_ROUTE: &str = "hunt by route";

/// What is accepted of one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The classes; good ones only.
    pub classes: Vec<Class>,
    /// The ending as reports write it, where the class alone says too little.
    pub outcome: Option<String>,
    /// Text that the client must be able to read: in a body, a message or a close reason.
    pub says: Option<String>,
}

impl Accepted {
    /// Whether an outcome is accepted.
    pub fn accepts(&self, outcome: &Outcome) -> bool {
        let ending_fits = self.outcome.as_ref().is_none_or(|ending| *ending == outcome.ending.to_string());
        self.classes.contains(&outcome.class) && ending_fits
    }

    /// Whether what a client reads in an exchange says what it must.
    pub fn is_said(&self, transcript: &Transcript, exchange: usize) -> bool {
        self.says.as_ref().is_none_or(|text| transcript.reads(exchange, text))
    }
}

/// A repair that was claimed and is none: with it in place of the real one the case must be STILL BROKEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sham {
    /// What was claimed, in one sentence.
    pub claim: String,
    /// The backend as the claimed repair left it.
    pub revision: Revision,
    /// The ending it shows, as reports write it.
    pub outcome: String,
    /// The class it shows.
    pub class: Class,
    /// Checks that must complain.
    pub found_by: Vec<String>,
    /// What shows behind particular servers instead: ending and class.
    pub on: BTreeMap<String, (String, Class)>,
}

impl Sham {
    /// The ending and the class it shows behind this server.
    pub fn shows_behind(&self, profile: &str) -> (&str, Class) {
        on_server(&self.on, profile).map_or((&self.outcome, self.class), |(outcome, class)| (outcome, *class))
    }
}

/// What is said of a server; of its version where nothing is said of its implementation of WebSocket.
fn on_server<'a, T>(said: &'a BTreeMap<String, T>, profile: &str) -> Option<&'a T> {
    said.get(profile).or_else(|| said.get(version_of(profile)))
}

/// What the defective twin must show. All of it must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symptom {
    /// The outcome's class.
    pub class: Class,
    /// The ending as reports write it, such as `http 500`.
    pub outcome: String,
    /// The cause.
    pub cause: Cause,
    /// Text that must stand in the log or in the exception.
    pub log: Option<String>,
    /// Text that the close reason must hold.
    pub reason: Option<String>,
    /// Checks that must complain.
    pub found_by: Vec<String>,
}

impl Case {
    /// What the defective twin must show behind this server.
    pub fn symptom_behind(&self, profile: &str) -> &Symptom {
        on_server(&self.symptom_on, profile).unwrap_or(&self.symptom)
    }

    /// Whether a hunt wrote it.
    pub fn is_capsule(&self) -> bool {
        self.scenario == HUNTED || self.is_by_route()
    }

    /// Whether a hunt wrote it that went by the routes of an application, so that it is said in that one's own words.
    pub fn is_by_route(&self) -> bool {
        self.scenario == HUNTED_BY_ROUTE
    }

    /// The plan with this seed.
    pub fn plan(&self, seed: u64) -> Plan {
        Plan { seed, faults: self.faults.clone() }
    }

    /// What is accepted of an exchange; every client, and every round, opens as many as there are opening steps.
    pub fn accepted_at(&self, exchange: usize) -> &Accepted {
        &self.accepted[exchange % self.accepted.len()]
    }

    /// Reads a case. `known_profiles` and `known_checks` are the names its file may use.
    ///
    /// # Errors
    /// Says where in the file and what is wrong, with the nearest right name.
    pub fn parse(path: &str, name: &str, text: &str, known: &Known<'_>) -> Result<Case, Error> {
        reader::read(path, name, text, known)
    }

    /// The case's file: reading it gives the same case.
    pub fn print(&self) -> String {
        writer::write(self)
    }
}

/// Reads the faults of an edge from a text, each a `[[fault]]` as case files have them; the place may be left out.
///
/// # Errors
/// Says where in the text and what is wrong, with the nearest right name.
pub fn read_faults(path: &str, text: &str) -> Result<Vec<Fault>, Error> {
    reader::read_faults(path, text, &Known::NOTHING)
}

/// Reads a fault from one line: its kind and its settings, as in `strip_header header=Authorization`. Where no
/// dependency is known there is only an edge.
///
/// # Errors
/// Says what is wrong, with the nearest right name.
pub fn read_fault(line: &str, known: &Known<'_>) -> Result<Fault, Error> {
    short::read(line, known)
}

/// The names a case file may use besides those of this crate's own enums.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Server profiles.
    pub profiles: &'a [&'a str],
    /// Checks.
    pub checks: &'a [&'a str],
    /// Dependencies of the backend, with their operations.
    pub dependencies: &'a [(&'a str, &'a [&'a str])],
    /// Environment variables of the backend.
    pub variables: &'a [&'a str],
    /// Modules of the backend that can be missing.
    pub modules: &'a [&'a str],
}

impl Known<'_> {
    /// No names at all: there is nothing but an edge.
    pub const NOTHING: Known<'static> =
        Known { profiles: &[], checks: &[], dependencies: &[], variables: &[], modules: &[] };
}
