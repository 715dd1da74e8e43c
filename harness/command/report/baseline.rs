//! The report on a baseline: how much of what a hunt found is in it, and what changed in the file.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// A baseline after a hunt. Findings are named by their keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineReport {
    /// The file.
    pub file: String,
    /// How many findings of the hunt are in it, with those that were added.
    pub known: usize,
    /// How many are not.
    pub new: usize,
    /// The entries that this hunt added.
    pub added: BTreeSet<String>,
    /// The entries that it dropped.
    pub dropped: BTreeSet<String>,
    /// The entries that it did not find again, and that are still there.
    pub not_found: BTreeSet<String>,
}

impl BaselineReport {
    /// Counts findings: those in the baseline, and the others.
    pub fn count(&mut self, are_known: impl IntoIterator<Item = bool>) {
        let (known, new): (Vec<bool>, Vec<bool>) = are_known.into_iter().partition(|is_known| *is_known);
        (self.known, self.new) = (known.len(), new.len());
    }

    /// Joins the baseline of another part of the same campaign; [`BaselineReport::count`] has to follow. An entry is not found
    /// if no part finds it.
    ///
    /// # Errors
    /// When only one of the two parts has a baseline.
    pub fn merge(own: &mut Option<BaselineReport>, other: Option<BaselineReport>) -> Result<(), String> {
        match (own, other) {
            (None, None) => Ok(()),
            (Some(own), Some(other)) => {
                own.added.extend(other.added);
                own.dropped.extend(other.dropped);
                own.not_found.retain(|key| other.not_found.contains(key));
                Ok(())
            }
            (Some(_), None) | (None, Some(_)) => Err("only one of the parts has a baseline".to_owned()),
        }
    }

    /// The counts, the changes, and the entries that were not found.
    pub fn page(&self) -> String {
        let mut text = format!("baseline {}: {} known, {} new\n", self.file, self.known, self.new);
        text.push_str(&list("added to the baseline", &self.added));
        text.push_str(&list("dropped from the baseline", &self.dropped));
        text.push_str(&list("in the baseline and not found by this hunt", &self.not_found));
        if !self.not_found.is_empty() {
            text.push_str("a longer hunt may find more of them; --prune-baseline drops those that are not found\n");
        }
        text
    }
}

/// Keys below a title with their count; empty without any.
fn list(title: &str, keys: &BTreeSet<String>) -> String {
    if keys.is_empty() {
        return String::new();
    }
    let mut text = format!("{title}: {}\n", keys.len());
    for key in keys {
        let _ = writeln!(text, "  {key}");
    }
    text
}
