//! Files that a user names, read whole within a limit.
//!
//! A name may stand for anything: a pipe that nothing writes into, a device without end, a file of a gigabyte. Only
//! regular files are read, and only up to a length that their kind never has.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use relapse_core::error::Error;

/// The most bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimit(u64);

impl FileLimit {
    /// For what people write: cases, profiles, service files, requirements. 4 MiB; the longest that is known has 60 KB.
    pub const WRITTEN: FileLimit = FileLimit(4 << 20);
    /// For what programs write: recordings of a browser, and reports of hunts. 64 MiB.
    pub const RECORDED: FileLimit = FileLimit(64 << 20);
}

/// Reads a text.
///
/// # Errors
/// When it is no regular file, is longer than the limit, or is not UTF-8, with the place where it is not.
pub fn read_text(path: &Path, limit: FileLimit) -> Result<String, Error> {
    let bytes = read(path, limit).map_err(|source| Error::Io { doing: "read", path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|error| not_utf8(path, &error))
}

fn read(path: &Path, limit: FileLimit) -> io::Result<Vec<u8>> {
    // To open a pipe waits for a writer, so it is looked at first; and once more where it was replaced meanwhile.
    refuse(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    refuse(&metadata)?;
    if metadata.len() > limit.0 {
        return Err(too_long(limit));
    }
    // A file may grow, and some have no length at all (those of /proc).
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    file.take(limit.0 + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit.0 { Err(too_long(limit)) } else { Ok(bytes) }
}

fn too_long(limit: FileLimit) -> io::Error {
    let message = format!("it has more than {} MiB, and no such file is that long", limit.0 >> 20);
    io::Error::new(io::ErrorKind::FileTooLarge, message)
}

/// Refuses whatever is no regular file.
fn refuse(metadata: &fs::Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let name = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {name}, and a regular file is needed")))
}

/// How much of a text is shown behind the place where it is wrong, in bytes.
const SHOWN_BYTES_MAX: usize = 80;

fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> Error {
    let (bytes, start) = (error.as_bytes(), error.utf8_error().valid_up_to());
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(start + SHOWN_BYTES_MAX)]);
    // One character stands for the bytes that are none.
    let end = start + text[start..].chars().next().map_or(0, char::len_utf8);
    let help = Some("save the file as UTF-8".to_owned());
    let message = format!("the byte {:#04x} is not UTF-8 here", bytes.get(start).copied().unwrap_or_default());
    Error::at(&path.display().to_string(), &text, start..end, message, help)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::path::Path;

    use relapse_core::error::Error;
    use rstest::rstest;

    use super::{FileLimit, read_text};

    /// The message of an error and of its cause.
    fn failed(path: &Path, limit: FileLimit) -> String {
        let error: Error = read_text(path, limit).unwrap_err();
        error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
    }

    #[rstest]
    #[case::directory("/proc/self", "read /proc/self: it is a directory, and a regular file is needed")]
    #[case::device("/dev/zero", "read /dev/zero: it is a device, and a regular file is needed")]
    fn only_regular_files_are_read(#[case] path: &str, #[case] message: &str) {
        assert_eq!(failed(Path::new(path), FileLimit::WRITTEN), message);
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(failed(&pipe, FileLimit::WRITTEN).ends_with("it is a pipe, and a regular file is needed"));
    }

    #[test]
    fn a_long_file_is_refused_and_an_allowed_one_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, vec![b'x'; 5]).unwrap();
        assert_eq!(read_text(&file, FileLimit(5)).unwrap(), "xxxxx");
        assert!(failed(&file, FileLimit(4)).ends_with("it has more than 0 MiB, and no such file is that long"));
    }

    #[test]
    fn bytes_that_are_no_text_are_located() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, b"one\ntw\xffo\n").unwrap();
        let expected = format!("read {}:2:3: the byte 0xff is not UTF-8 here (save the file as UTF-8)", file.display());
        assert_eq!(failed(&file, FileLimit::WRITTEN), expected);
    }
}
