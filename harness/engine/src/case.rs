//! One case: what was reported, what the client does, which faults act, and what is accepted. `fixtures/README.md`
//! documents the file format.

mod arguments;
mod claim;
mod keys;
mod one_line;
mod reader;
mod writer;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use arguments::ServerArguments;
pub use claim::{ExceptionClaim, PlaceClaim, Symptom};

use crate::{
    defects::{DefectEntry, Defects},
    environment::Environment,
};
use relapse_core::{
    client::step::{Concurrency, Step},
    error::Error,
    fault::Fault,
    judge::{
        check::Check,
        outcome::{Class, Outcome, OutcomePattern},
    },
    plan::Plan,
    record::{
        service::{MessageNames, Names},
        transcript::Transcript,
    },
};
use relapse_simulate::profile::Profile;

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
    pub reported: Option<String>,
    /// One sentence: its root cause.
    pub behind: Option<String>,
    /// The issues it was reported under, by number or by the name `fixtures/issues.toml` gives them.
    pub issues: Vec<String>,
    /// Its row in the catalogue of scenarios, such as `S508-1`.
    pub scenario: Option<String>,
    /// Its author.
    pub origin: Origin,
    /// The finding of the hunt that wrote it.
    pub finding: Option<KnownFinding>,
    /// Whose paths and messages its steps name.
    pub vocabulary: Vocabulary,
    /// The defects of the version with the bug; none where there is no such version, and what was found once must not be
    /// found again.
    pub twin: Defects,
    /// The server profiles it runs on; `None` for every one.
    pub profiles: Option<Vec<String>>,
    /// The environments it runs in.
    pub environments: Vec<Environment>,
    /// The client's steps.
    pub steps: Vec<Step>,
    /// How many clients do it.
    pub crowd: Concurrency,
    /// Which faults act.
    pub faults: Vec<Fault>,
    /// The seed it needs; `None` when any will do.
    pub seed: Option<u64>,
    /// Whether the healthy client comes only after the case, not before and beside it.
    pub is_alone: bool,
    /// Arguments for the server that the harness starts, beside its own.
    pub server_arguments: ServerArguments,
    /// The steps of its healthy client; `None` where the target or the case's own first request says them.
    pub control: Option<Vec<Step>>,
    /// The outcomes that are accepted of the version with the fix, for each step that opens an exchange.
    pub accepted: Vec<Accepted>,
    /// How many exchanges of a class there must be at least.
    pub at_least: BTreeMap<Class, usize>,
    /// The symptom that the version with the bug must show; `None` where the case claims nothing.
    pub symptom: Option<Symptom>,
    /// The symptoms that it must show behind particular servers instead.
    pub symptom_on: BTreeMap<String, Symptom>,
    /// Repairs that were claimed, each of which must be seen through.
    pub shams: Vec<ClaimedFix>,
}

/// A finding, by which a hunt knows a reproducer again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFinding {
    /// The key that tells it from others.
    pub key: String,
    /// The routes of the application that its case visits.
    pub routes: Vec<String>,
}

/// The author of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A person, from a report.
    #[default]
    Report,
    /// A hunt: the case is a reproducer.
    Hunt,
}

/// Whose paths and messages the steps of a case name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vocabulary {
    /// The built-in backend's. On any other target the service file translates them.
    Backend,
    /// Those of the app that it runs on. The steps are performed as they are written.
    Own,
}

/// The outcomes that are accepted of one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The classes; good ones only.
    pub classes: Vec<Class>,
    /// Outcomes that are accepted whatever their class; none of them a failure.
    pub patterns: Vec<OutcomePattern>,
    /// The outcome, where the class alone says too little.
    pub outcome: Option<OutcomePattern>,
    /// Text that the client must be able to read: in a body, a message or a close reason.
    pub says: Option<String>,
}

impl Accepted {
    /// Whether an outcome is accepted.
    pub fn accepts(&self, outcome: &Outcome) -> bool {
        let is_named = self.outcome.is_none_or(|pattern| pattern.fits(&outcome.ending));
        is_named && (self.classes.contains(&outcome.class) || self.names(outcome))
    }

    /// Whether an outcome is accepted by its pattern, whatever its class.
    pub fn names(&self, outcome: &Outcome) -> bool {
        self.patterns.iter().any(|pattern| pattern.fits(&outcome.ending))
    }

    /// Whether what a client reads in an exchange says what it must.
    pub fn is_said(&self, transcript: &Transcript, exchange: usize) -> bool {
        self.says.as_ref().is_none_or(|text| transcript.reads(exchange, text))
    }
}

/// A repair that was claimed and is none: with it in place of the real one the case must be STILL BROKEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedFix {
    /// The claim, in one sentence.
    pub claim: String,
    /// The defects that the claimed fix left in.
    pub defects: Defects,
    /// The outcome it shows.
    pub outcome: OutcomePattern,
    /// The class it shows.
    pub class: Class,
    /// Checks that must have a finding.
    pub found_by: Vec<String>,
    /// Outcome and class behind particular servers, where they differ.
    pub on: BTreeMap<String, (OutcomePattern, Class)>,
}

impl ClaimedFix {
    /// The outcome and the class it shows behind this server.
    pub fn shows_behind(&self, profile: &str) -> (OutcomePattern, Class) {
        self.on.get(profile).copied().unwrap_or((self.outcome, self.class))
    }
}

/// Copies the entry for the profile that this one fails like, where this one has none of its own.
fn inherit<T: Clone>(entries: &mut BTreeMap<String, T>, profile: &Profile) {
    let inherited = profile.fails_like.as_ref().and_then(|like| entries.get(like)).cloned();
    if let Some(inherited) = inherited {
        entries.entry(profile.name.clone()).or_insert(inherited);
    }
}

impl Case {
    /// The symptom that the version with the bug must show behind this server.
    pub fn symptom_behind(&self, profile: &str) -> Option<&Symptom> {
        self.symptom_on.get(profile).or(self.symptom.as_ref())
    }

    /// Lets the claims behind the profile that this one fails like hold behind this one too.
    pub(crate) fn inherit_claims(&mut self, profile: &Profile) {
        inherit(&mut self.symptom_on, profile);
        self.shams.iter_mut().for_each(|fix| inherit(&mut fix.on, profile));
    }

    /// Its row in the catalogue of scenarios; its name where it has none.
    pub fn label(&self) -> &str {
        self.scenario.as_deref().unwrap_or(&self.name)
    }

    /// The plan with this seed.
    pub fn plan(&self, seed: u64) -> Plan {
        Plan { seed, faults: self.faults.clone() }
    }

    /// The outcomes accepted of an exchange; every client, and every round, opens as many as there are opening steps.
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
    one_line::read(line, known)
}

/// The names of the messages in the catalogue's cases, which are those of the built-in backend.
pub static WORDS: MessageNames = MessageNames {
    welcomes: Names::Compiled(&["connection_established", "connect"]),
    requests: Names::Compiled(&[
        "user_message",
        "user",
        "user_input",
        "message",
        "chat_message",
        "chat",
        "agent_request",
        "agent",
        "start_agent",
        "execute_agent",
        "EXECUTE_AGENT",
    ]),
    events: Names::Compiled(&[
        "agent_started",
        "agent_thinking",
        "tool_executing",
        "tool_completed",
        "agent_completed",
    ]),
    name_user: true,
};

/// The names a case file may use besides those of this crate's own enums.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Server profiles.
    pub profiles: &'a [&'a str],
    /// Checks.
    pub checks: &'a [&'a dyn Check],
    /// Defects of the backend, in the order of its list.
    pub defects: &'a [DefectEntry],
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
        Known { profiles: &[], checks: &[], defects: &[], dependencies: &[], variables: &[], modules: &[] };
}
