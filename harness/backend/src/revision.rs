//! Which defects a backend contains.

use std::fmt;

use crate::defect::Defect;
use relapse::defects::Defects;

/// A revision of the backend: the set of its defects. The repaired revision has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Revision {
    defects: u128,
}

impl Revision {
    /// The revision without defects.
    pub fn repaired() -> Revision {
        Revision::default()
    }

    /// The revision with exactly this defect.
    pub fn only(defect: Defect) -> Revision {
        Revision::of([defect])
    }

    /// The revision with exactly these defects.
    pub fn of(defects: impl IntoIterator<Item = Defect>) -> Revision {
        let defects = defects.into_iter().fold(0, |set, defect| set | 1 << defect as u128);
        Revision { defects }
    }

    /// Its defects, in the catalogue's order.
    pub fn defects(self) -> impl Iterator<Item = Defect> {
        Defect::ALL.iter().copied().filter(move |defect| self.has(*defect))
    }

    /// Whether it contains the defect.
    pub fn has(self, defect: Defect) -> bool {
        self.defects & (1 << defect as u128) != 0
    }
}

impl From<&Defects> for Revision {
    /// The revision with the defects that a case names. A case file names known defects only.
    fn from(defects: &Defects) -> Revision {
        Revision::of(Defect::ALL.iter().copied().filter(|defect| defects.contains(defect.name())))
    }
}

impl From<Revision> for Defects {
    fn from(revision: Revision) -> Defects {
        Defects::of(revision.defects().map(Defect::name))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = self.defects().map(Defect::name);
        match names.next() {
            None => f.write_str("repaired"),
            Some(first) => {
                f.write_str(first)?;
                names.try_for_each(|name| write!(f, "+{name}"))
            }
        }
    }
}
