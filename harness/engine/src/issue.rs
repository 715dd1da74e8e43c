//! The reports, issue by issue: `fixtures/issues.toml`.

use serde::Deserialize;

use crate::case::Case;
use relapse_core::error::Error;

/// One reported issue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issue {
    /// Its number, or the name it goes by where it has none.
    pub key: String,
    /// Other numbers it was reported under.
    #[serde(default)]
    pub also: Vec<String>,
    /// One line: what was reported.
    pub title: String,
    /// One sentence: its root cause.
    #[serde(rename = "root_cause")]
    pub behind: String,
    /// The published claims about it that are wrong.
    #[serde(default)]
    pub claim: Vec<Claim>,
}

/// One published claim, and what is true.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The claim.
    pub said: String,
    /// The finding against it.
    pub found: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Issues {
    issue: Vec<Issue>,
}

impl Issue {
    /// Reads the issues of a file.
    ///
    /// # Errors
    /// Says where in the file and what is wrong.
    pub fn parse(path: &str, text: &str) -> Result<Vec<Issue>, Error> {
        let issues: Issues = toml::from_str(text).map_err(|error| Error::toml(path, text, &error))?;
        Ok(issues.issue)
    }

    /// Whether this is its key, or one that it is reported under too.
    pub fn has_key(&self, key: &str) -> bool {
        self.key == key || self.also.iter().any(|also| also == key)
    }

    /// Whether a case belongs to it.
    pub fn has_case(&self, case: &Case) -> bool {
        case.issues.iter().any(|key| self.has_key(key))
    }
}

/// Issues as a page names them: numbers with a `#`, names as they are.
pub fn labels(keys: &[String]) -> Vec<String> {
    keys.iter().map(label).collect()
}

fn label(key: &String) -> String {
    let is_number = key.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { format!("#{key}") } else { key.clone() }
}
