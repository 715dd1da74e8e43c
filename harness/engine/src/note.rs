//! Things that virtual time does not wait for, each kind once.

use std::collections::BTreeMap;
use std::fmt;

/// Something of an app that virtual time does not wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The kind of thing, as a clause.
    pub kind: String,
    /// The first one of this kind.
    pub example: String,
    /// How many of this kind there were.
    pub count: usize,
}

impl Note {
    /// One note for each kind, sorted by kind, with the counts added up.
    pub fn merge(notes: impl IntoIterator<Item = Note>) -> Vec<Note> {
        let mut merged: BTreeMap<String, Note> = BTreeMap::new();
        for note in notes {
            let known = merged.get_mut(&note.kind);
            match known {
                Some(known) => known.count += note.count,
                None => drop(merged.insert(note.kind.clone(), note)),
            }
        }
        merged.into_values().collect()
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.example)?;
        if self.count > 1 {
            write!(f, ", and {} more of this kind", self.count - 1)?;
        }
        f.write_str("; virtual time does not wait for it")
    }
}
