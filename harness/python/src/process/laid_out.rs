//! The directory of a server's own modules, which goes with it: also after a kill, when the next one is made.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use tempfile::TempDir;

/// The beginning of the names of such directories.
const PREFIX: &str = "relapse-";

/// The file that is locked as long as a directory is in use. A lock goes with its process, however that ends, and other
/// containers see it.
const LOCK: &str = "in-use";

/// A directory with files that a server imports.
#[derive(Debug)]
pub(super) struct LaidOut {
    directory: TempDir,
    _lock: File,
}

impl LaidOut {
    /// Writes files to a directory of their own.
    pub(super) fn write(files: &[(&str, &str)]) -> io::Result<LaidOut> {
        sweep(&env::temp_dir());
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        // It is locked before it is there, so that nothing finds it free.
        let unnamed = directory.path().join("in-making");
        let lock = File::create(&unnamed)?;
        lock.lock()?;
        fs::rename(&unnamed, directory.path().join(LOCK))?;
        for (name, text) in files {
            fs::write(directory.path().join(name), text)?;
        }
        Ok(LaidOut { directory, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes the directories of processes that were killed: nothing holds their locks.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let lock = entry.path().join(LOCK);
        // A link could lead anywhere.
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) && is_free(&lock) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether there is a lock that nothing holds.
fn is_free(lock: &Path) -> bool {
    let is_file = lock.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
    is_file && File::open(lock).is_ok_and(|file| file.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{LOCK, LaidOut, PREFIX, is_free, sweep};

    #[test]
    fn only_what_nothing_uses_is_removed() {
        let used = LaidOut::write(&[("a.py", "x = 1")]).unwrap();
        assert!(used.path().join("a.py").is_file() && !is_free(&used.path().join(LOCK)));
        let place = tempfile::tempdir().unwrap();
        let [left, other, new] = [PREFIX, "other-", PREFIX]
            .map(|prefix| tempfile::Builder::new().prefix(prefix).tempdir_in(place.path()).unwrap().keep());
        [&left, &other].iter().for_each(|directory| fs::write(directory.join(LOCK), "").unwrap());
        sweep(place.path());
        assert_eq!([left, other, new].map(|directory| directory.is_dir()), [false, true, true]);
    }
}
