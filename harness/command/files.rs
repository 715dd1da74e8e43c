//! The files that the command writes: whole or not at all, and without secrets.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

use relapse::Result;
use relapse_core::error::Error;

use crate::output::without_secrets;

/// Whether a file that exists may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It is replaced by the new text.
    Replace,
    /// It stays as it is, and writing is an error.
    Keep,
}

/// Writes a file, and the directories that it is in. A reader sees the old file or all of the new one, also when the disk is
/// full or the process is killed.
///
/// # Errors
/// When the file cannot be written, or exists and is to be kept.
pub(crate) fn write(path: &Path, text: &str, existing: Existing) -> Result {
    let _one = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    write_whole(path, &without_secrets(text), existing).map_err(Error::io("write", path))
}

/// Held while a file is written, so that no end of the process leaves a part of one.
static WRITING: Mutex<()> = Mutex::new(());

/// Keeps files from being written from now on. Waits for the one that is, for so long at most.
pub(crate) async fn finish_writing(limit: Duration) {
    const PAUSE: Duration = Duration::from_millis(5);
    let writing = async {
        while is_writing() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    let _ = tokio::time::timeout(limit, writing).await;
}

/// Whether a file is being written. If none is, none ever is again.
fn is_writing() -> bool {
    match WRITING.try_lock() {
        Ok(last) => std::mem::forget(last),
        Err(TryLockError::Poisoned(last)) => std::mem::forget(last.into_inner()),
        Err(TryLockError::WouldBlock) => return true,
    }
    false
}

/// Makes the directory of a file.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn make_directory_of(path: &Path) -> Result {
    let directory = directory_of(path);
    fs::create_dir_all(&directory).map_err(Error::io("make", &directory))
}

fn directory_of(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(PathBuf::from("."), Path::to_owned)
}

fn write_whole(path: &Path, text: &str, existing: Existing) -> io::Result<()> {
    let path = behind_links(path)?;
    let metadata = fs::metadata(&path);
    if metadata.as_ref().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let directory = directory_of(&path);
    fs::create_dir_all(&directory)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".relapse-").suffix(".tmp");
    // A new file has the permissions that the user's mask leaves, and a temporary one only the owner's.
    if let (Err(_), Some(permissions)) = (&metadata, new_file_permissions()) {
        builder.permissions(permissions);
    }
    let mut file = builder.tempfile_in(&directory)?;
    file.write_all(text.as_bytes())?;
    if let Ok(existing) = metadata {
        file.as_file().set_permissions(existing.permissions())?;
    }
    file.as_file().sync_all()?;
    match existing {
        Existing::Replace => file.persist(&path)?,
        Existing::Keep => file.persist_noclobber(&path)?,
    };
    Ok(())
}

/// The file that a path stands for: a link stays a link, also where nothing is at its other end yet.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    /// As many as Linux follows (path_resolution(7)).
    const LINKS_MAX: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(other) => path = directory_of(&path).join(other),
            Err(_) => return Ok(fs::canonicalize(&path).unwrap_or(path)),
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

#[cfg(unix)]
fn new_file_permissions() -> Option<fs::Permissions> {
    Some(std::os::unix::fs::PermissionsExt::from_mode(0o666))
}

#[cfg(not(unix))]
fn new_file_permissions() -> Option<fs::Permissions> {
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Existing, write};

    #[test]
    fn a_file_is_replaced_or_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/file.toml");
        write(&path, "one", Existing::Keep).unwrap();
        assert!(write(&path, "two", Existing::Keep).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        write(&path, "two", Existing::Replace).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        let names: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file.toml"], "nothing else is left");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_no_file() {
        let error = write(std::path::Path::new("/dev/full"), "one", Existing::Replace).unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("no regular file"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_and_its_permissions_stay() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "one").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        symlink(&file, &link).unwrap();
        write(&link, "two", Existing::Replace).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o666);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nothing_stays_and_gets_its_file() {
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("first"), directory.path().join("second"));
        symlink("second", &first).unwrap();
        symlink("new/file", &second).unwrap();
        write(&first, "one", Existing::Replace).unwrap();
        assert!(
            fs::symlink_metadata(&first).unwrap().is_symlink() && fs::symlink_metadata(&second).unwrap().is_symlink()
        );
        assert_eq!(fs::read_to_string(directory.path().join("new/file")).unwrap(), "one");
        assert!(write(&first, "two", Existing::Keep).is_err());
        let round = directory.path().join("round");
        symlink("round", &round).unwrap();
        let error = write(&round, "one", Existing::Replace).unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("too many levels of symbolic links"));
    }
}
