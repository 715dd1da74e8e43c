//! The defects that a version of a service contains.

use std::fmt;

/// A defect of a built-in service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefectEntry {
    /// Its name, as cases write it.
    pub name: &'static str,
    /// Where it was: issue and commit of the reported service.
    pub origin: &'static str,
    /// The mechanism in the code, in one sentence.
    pub mechanism: &'static str,
}

/// The names of the defects that a version of a built-in service contains. The version with the fix has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Defects(Vec<String>);

impl Defects {
    /// The defects of the version with the fix.
    pub const NONE: Defects = Defects(Vec::new());

    /// These defects, in this order.
    pub fn of(names: impl IntoIterator<Item = impl Into<String>>) -> Defects {
        Defects(names.into_iter().map(Into::into).collect())
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether this is the version with the fix.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this defect is one of them.
    pub fn contains(&self, name: &str) -> bool {
        self.names().any(|other| other == name)
    }
}

impl fmt::Display for Defects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() { f.write_str("repaired") } else { f.write_str(&self.0.join("+")) }
    }
}
