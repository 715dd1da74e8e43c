//! The reproducers that a hunt writes: each as soon as something is found, and none over a file of an earlier hunt or of its
//! user.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relapse::{
    Result,
    case::{Case, Vocabulary},
    discover::Catalogue,
    files::{FileLimit, read_text},
    hunt::{Found, Reproduction},
};
use relapse_core::{error::Error, judge::verdict::FindingKey};

use crate::{
    builtin::runner::KNOWN,
    files::{self, Existing},
    output::without_secrets,
};

/// The reproducers of one hunt.
#[derive(Debug)]
pub(super) struct Reproducers {
    /// Where they are written; `None` where none is.
    directory: Option<PathBuf>,
    /// Those that were there before, each with its file.
    earlier: Arc<Vec<(PathBuf, Arc<Case>)>>,
    written: Mutex<WrittenReproducers>,
}

#[derive(Debug, Default)]
struct WrittenReproducers {
    files: Vec<WrittenReproducer>,
    /// Why one could not be written, the first time.
    trouble: Option<Error>,
}

/// A file that this hunt wrote.
#[derive(Debug)]
struct WrittenReproducer {
    key: FindingKey,
    /// The name that the case asked for.
    name: String,
    path: PathBuf,
    /// The whole file.
    text: String,
}

/// The file in which a finding is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptFinding {
    pub(super) path: String,
    pub(super) shows: KeptCase,
}

/// The case of a file, beside the one that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeptCase {
    /// The same, whatever it says to people.
    Same,
    /// Another one with the same finding, of an earlier hunt or changed by its user.
    Other,
}

impl Reproducers {
    /// The reproducers of a directory, to which this hunt adds; of none, nothing is kept. A file that is no case stays as
    /// it is.
    pub(super) fn of(directory: Option<&Path>) -> Reproducers {
        let mut earlier = Vec::new();
        for path in directory.into_iter().flat_map(cases_in) {
            let mut catalogue = Catalogue::knowing(KNOWN);
            if catalogue.add(&path).is_ok() {
                earlier.extend(catalogue.cases.into_iter().map(|case| (path.clone(), case)));
            }
        }
        Reproducers { directory: directory.map(Path::to_owned), earlier: Arc::new(earlier), written: Mutex::default() }
    }

    /// The same for another hunt of the same command, whose reproducers are its own.
    pub(super) fn beside(&self) -> Reproducers {
        let (directory, earlier) = (self.directory.clone(), Arc::clone(&self.earlier));
        Reproducers { directory, earlier, written: Mutex::default() }
    }

    fn written(&self) -> MutexGuard<'_, WrittenReproducers> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the reproducer of a finding, in place of a larger one. A case that shows nothing would read FIXED of what is
    /// not, and is not kept.
    pub(super) fn keep(&self, found: &Found) {
        let Some(directory) = self.directory.as_ref().filter(|_| is_to_be_kept(found)) else { return };
        let mut written = self.written();
        let own = written.files.iter().position(|file| file.key == found.key);
        let result = match own {
            _ if self.earlier_of(found).is_some() => {
                own.map(|at| written.files.remove(at)).iter().for_each(WrittenReproducer::remove);
                Ok(())
            }
            Some(at) => written.files[at].replace(directory, found),
            None => WrittenReproducer::create(directory, found).map(|file| written.files.push(file)),
        };
        if let Err(error) = result {
            written.trouble.get_or_insert(error);
        }
    }

    /// Keeps what a hunt found in the end, and nothing else that it wrote.
    ///
    /// # Errors
    /// When one of all files could not be written.
    pub(super) fn finish<'f>(&self, found: impl IntoIterator<Item = &'f Found>) -> Result {
        let mut keys = Vec::new();
        for found in found.into_iter().filter(|found| is_to_be_kept(found)) {
            self.keep(found);
            keys.push(&found.key);
        }
        let mut written = self.written();
        for left_over in written.files.extract_if(.., |file| !keys.contains(&&file.key)) {
            left_over.remove();
        }
        written.trouble.take().map_or(Ok(()), Err)
    }

    /// The file in which a finding is kept, if it is.
    pub(super) fn of_finding(&self, found: &Found) -> Option<KeptFinding> {
        if !is_to_be_kept(found) {
            return None;
        }
        if let Some((path, case)) = self.earlier_of(found) {
            let shows = if is_same(case, &found.capsule) { KeptCase::Same } else { KeptCase::Other };
            return Some(KeptFinding { path: path.display().to_string(), shows });
        }
        let written = self.written();
        let file = written.files.iter().find(|file| file.key == found.key)?;
        Some(KeptFinding { path: file.path.display().to_string(), shows: KeptCase::Same })
    }

    /// The reproducer of an earlier hunt with the same finding. Where a case is not made smaller yet, the routes on which it
    /// is found are not known.
    fn earlier_of(&self, found: &Found) -> Option<&(PathBuf, Arc<Case>)> {
        self.earlier.iter().find(|(_, case)| has_same_finding(case, found))
    }
}

fn has_same_finding(case: &Case, found: &Found) -> bool {
    let new = &found.capsule;
    let (Some(old), Some(finding)) = (&case.finding, &new.finding) else {
        // Once findings were not written down.
        return case.finding.is_none() && is_same(case, new);
    };
    let is_on_same = found.reproduction == Reproduction::Untried || old.routes == finding.routes;
    // The server in front of an application is chosen by its user, and that in front of the built-in backend is drawn.
    let is_behind_same = new.vocabulary == Vocabulary::Backend || case.profiles == new.profiles;
    old.key == without_secrets(&finding.key) && case.twin == new.twin && is_on_same && is_behind_same
}

fn is_to_be_kept(found: &Found) -> bool {
    match found.reproduction {
        Reproduction::Shown | Reproduction::Untried => true,
        Reproduction::AfterOthers | Reproduction::Unconfirmed | Reproduction::SeenOnce => false,
    }
}

/// Whether two cases do the same, whatever they say to people.
fn is_same(one: &Case, other: &Case) -> bool {
    let said = Case {
        name: other.name.clone(),
        summary: other.summary.clone(),
        reported: other.reported.clone(),
        behind: other.behind.clone(),
        finding: other.finding.clone(),
        symptom: other.symptom.clone(),
        accepted: other.accepted.clone(),
        ..one.clone()
    };
    said == *other
}

impl WrittenReproducer {
    /// Writes a reproducer under the first name that is free: two findings of one seed may have names that begin alike.
    fn create(directory: &Path, found: &Found) -> Result<WrittenReproducer> {
        let (name, text) = (found.capsule.name.clone(), without_secrets(&found.capsule.print()));
        let mut number = 1;
        let path = loop {
            let ending = if number == 1 { String::new() } else { format!("_{number}") };
            let path = directory.join(format!("{name}{ending}.toml"));
            if !path.exists() {
                break path;
            }
            number += 1;
        };
        files::write(&path, &text, Existing::Keep)?;
        Ok(WrittenReproducer { key: found.key.clone(), name, path, text })
    }

    /// Writes a smaller one in its place, unless its user has changed the file.
    fn replace(&mut self, directory: &Path, found: &Found) -> Result {
        let text = without_secrets(&found.capsule.print());
        if self.text == text {
            return Ok(());
        }
        if self.name != found.capsule.name || !self.is_as_written() {
            let smaller = WrittenReproducer::create(directory, found)?;
            self.remove();
            *self = smaller;
            return Ok(());
        }
        files::write(&self.path, &text, Existing::Replace)?;
        self.text = text;
        Ok(())
    }

    fn is_as_written(&self) -> bool {
        read_text(&self.path, FileLimit::WRITTEN).is_ok_and(|text| text == self.text)
    }

    /// Removes the file, unless its user has changed it.
    fn remove(&self) {
        if self.is_as_written() {
            // It is a reproducer as good as the one that stands for it: nothing is lost where it stays.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The case files in a directory, sorted; none where it cannot be read.
fn cases_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    paths.sort();
    paths
}
