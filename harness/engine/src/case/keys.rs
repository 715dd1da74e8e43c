//! A case file as it is written: every key it may have, and no other.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::{Origin, Vocabulary};
use crate::environment::Environment;
use relapse_core::{
    client::{
        credential::{Credential, CredentialPlace},
        step::{Carrier, ClientStrictness},
    },
    judge::{cause::Cause, outcome::Class},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCase {
    pub(super) summary: Spanned<String>,
    pub(super) reported: Option<Spanned<String>>,
    #[serde(rename = "root_cause")]
    pub(super) behind: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) issues: Vec<String>,
    pub(super) scenario: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) origin: Origin,
    pub(super) finding: Option<RawFinding>,
    pub(super) vocabulary: Option<Vocabulary>,
    pub(super) defect: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) defects: Vec<Spanned<String>>,
    pub(super) profiles: Option<Vec<Spanned<String>>>,
    #[serde(default = "staging")]
    pub(super) environments: Spanned<Vec<Environment>>,
    pub(super) users: Option<Spanned<usize>>,
    pub(super) connections: Option<Spanned<usize>>,
    pub(super) rounds: Option<Spanned<usize>>,
    pub(super) seed: Option<i64>,
    #[serde(default)]
    pub(super) alone: bool,
    pub(super) server_arguments: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) step: Spanned<Vec<Spanned<RawStep>>>,
    #[serde(default)]
    pub(super) fault: Vec<Spanned<RawFault>>,
    #[serde(rename = "healthy_client")]
    pub(super) control: Option<RawControl>,
    pub(super) expect: RawExpect,
    pub(super) symptom: Option<Spanned<RawSymptom>>,
    #[serde(rename = "claimed_fix", default)]
    pub(super) sham: Vec<RawSham>,
}

/// The finding of a reproducer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFinding {
    pub(super) key: String,
    #[serde(default)]
    pub(super) routes: Vec<String>,
}

/// The faults of a file that may hold anything else.
#[derive(Deserialize)]
pub(super) struct RawFaults {
    #[serde(default)]
    pub(super) fault: Vec<Spanned<RawFault>>,
}

fn staging() -> Spanned<Vec<Environment>> {
    Spanned::new(0..0, vec![Environment::Staging])
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStep {
    #[serde(rename = "as")]
    pub(super) client_name: Option<Spanned<String>>,

    pub(super) open: Option<Spanned<String>>,
    pub(super) request: Option<Spanned<String>>,
    pub(super) send: Option<Spanned<toml::Value>>,
    pub(super) ping: Option<Spanned<bool>>,
    pub(super) wait: Option<Spanned<String>>,
    pub(super) wait_key: Option<Spanned<String>>,
    pub(super) wait_text: Option<Spanned<String>>,
    pub(super) wait_match: Option<Spanned<String>>,
    pub(super) wait_any: Option<Spanned<bool>>,
    pub(super) wait_answer: Option<Spanned<bool>>,
    pub(super) close: Option<Spanned<u16>>,
    pub(super) leave: Option<Spanned<bool>>,
    pub(super) reset: Option<Spanned<bool>>,
    pub(super) pause_ms: Option<Spanned<u64>>,
    pub(super) deaf_ms: Option<Spanned<u64>>,
    pub(super) freeze_ms: Option<Spanned<u64>>,
    pub(super) stop_reading: Option<Spanned<bool>>,
    pub(super) read_answer: Option<Spanned<bool>>,
    pub(super) signal: Option<Spanned<String>>,
    pub(super) wait_exit: Option<Spanned<RawExit>>,
    pub(super) send_bytes: Option<Spanned<String>>,

    pub(super) pad_to: Option<Spanned<usize>>,
    pub(super) slice_bytes: Option<Spanned<usize>>,
    pub(super) slice_pause_ms: Option<Spanned<u64>>,
    pub(super) on: Option<Spanned<Carrier>>,
    pub(super) answer: Option<Spanned<String>>,
    pub(super) send_body_bytes: Option<Spanned<usize>>,
    pub(super) first_byte_within_ms: Option<Spanned<u64>>,
    pub(super) gap_within_ms: Option<Spanned<u64>>,
    pub(super) query: Option<Spanned<String>>,
    pub(super) credential: Option<Spanned<Credential>>,
    pub(super) by: Option<Spanned<OneOrMany>>,
    pub(super) user: Option<Spanned<String>>,
    pub(super) offers: Option<Spanned<Vec<String>>>,
    pub(super) extensions: Option<Spanned<String>>,
    pub(super) headers: Option<Spanned<BTreeMap<String, String>>>,
    pub(super) without: Option<Spanned<Vec<String>>>,
    pub(super) client: Option<Spanned<ClientStrictness>>,
    pub(super) method: Option<Spanned<String>>,
    pub(super) body: Option<Spanned<toml::Value>>,
    pub(super) body_bytes: Option<Spanned<String>>,
    pub(super) within_ms: Option<Spanned<u64>>,
    pub(super) retry_ms: Option<Spanned<u64>>,
    pub(super) give_up_ms: Option<Spanned<u64>>,
    pub(super) accept: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) outcome: Option<Spanned<String>>,
    pub(super) says: Option<Spanned<String>>,
}

/// The end of a process: `true` for any, its exit status, or the name of the signal that ended it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "an exit is `true`, an exit status, or the name of a signal")]
pub(super) enum RawExit {
    Any(bool),
    Status(i32),
    Signal(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(CredentialPlace),
    Many(Vec<CredentialPlace>),
}

/// A fault: which settings it may have depends on its kind.
pub(super) type RawFault = BTreeMap<Spanned<String>, Spanned<toml::Value>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExpect {
    pub(super) accept: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) at_least: BTreeMap<Class, Spanned<usize>>,
}

/// A healthy client of the case's own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawControl {
    pub(super) step: Spanned<Vec<Spanned<RawStep>>>,
}

/// An exception: `Type: text`, or its parts.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum RawException {
    Written(String),
    Parts(RawExceptionParts),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExceptionParts {
    #[serde(rename = "type")]
    pub(super) type_name: String,
    pub(super) text: Option<String>,
    pub(super) place: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSham {
    pub(super) claim: Spanned<String>,
    pub(super) defects: Spanned<Vec<Spanned<String>>>,
    pub(super) outcome: Spanned<String>,
    pub(super) class: Class,
    pub(super) found_by: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) on: BTreeMap<Spanned<String>, RawShamOn>,
}

/// A claimed fix behind another server: what is not said is as behind the first.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawShamOn {
    pub(super) outcome: Option<Spanned<String>>,
    pub(super) class: Option<Class>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSymptom {
    pub(super) class: Option<Class>,
    pub(super) outcome: Option<Spanned<String>>,
    pub(super) cause: Option<Cause>,
    pub(super) exception: Option<Spanned<RawException>>,
    pub(super) log: Option<Spanned<String>>,
    pub(super) reason: Option<Spanned<String>>,
    pub(super) found_by: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    pub(super) on: BTreeMap<Spanned<String>, RawOverride>,
}

/// A symptom behind another server: what is not said is as behind the first; an empty text takes a demand back.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOverride {
    pub(super) class: Option<Class>,
    pub(super) outcome: Option<Spanned<String>>,
    pub(super) cause: Option<Cause>,
    pub(super) exception: Option<Spanned<RawException>>,
    pub(super) log: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) found_by: Option<Vec<Spanned<String>>>,
}
