//! The program that runs in interpreters: compiled once for each kind of Python, and kept in the cache of environments. That
//! takes longer than everything else that an interpreter does before it loads the app.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{
    confinement::Confinement,
    group::Group,
    interpreter::{Site, is_readable, not_started},
    marshal, venv,
};
use relapse_core::{asgi::value::Value, error::AppError};

/// The program itself.
pub(super) const SHIM: &str = include_str!("shim.py");

/// The parts of the program, by their paths here: the first one runs, and imports the others.
const PARTS: &[(&str, &str)] = &[
    ("shim.py", SHIM),
    ("coverage.py", include_str!("coverage.py")),
    ("leaks.py", include_str!("leaks.py")),
    ("routes.py", include_str!("routes.py")),
    ("routes/channels.py", include_str!("routes/channels.py")),
    ("routes/code.py", include_str!("routes/code.py")),
    ("routes/django.py", include_str!("routes/django.py")),
    ("routes/documented.py", include_str!("routes/documented.py")),
    ("routes/entry.py", include_str!("routes/entry.py")),
    ("routes/examples.py", include_str!("routes/examples.py")),
    ("routes/graphql.py", include_str!("routes/graphql.py")),
    ("routes/litestar.py", include_str!("routes/litestar.py")),
    ("routes/mcp.py", include_str!("routes/mcp.py")),
    ("routes/reading.py", include_str!("routes/reading.py")),
    ("routes/shared.py", include_str!("routes/shared.py")),
    ("routes/socketio.py", include_str!("routes/socketio.py")),
    ("routes/starlette.py", include_str!("routes/starlette.py")),
    ("routes/werkzeug.py", include_str!("routes/werkzeug.py")),
];

/// The program that compiles it.
const COMPILER: &str = include_str!("compiler.py");

/// The length of the number in front of compiled code, which tells kinds of Python apart.
const MAGIC_BYTES: usize = 4;

/// The longest code, in bytes; ours is a fifth of it.
const CODE_BYTES_MAX: usize = 1 << 20;

/// How long the compiler may say nothing; it takes a tenth of a second.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// An interpreter: its path, and the PATH that it is found by.
type Kind = (PathBuf, Option<String>);

/// The code for each interpreter that was asked; empty where it could not compile the program, and will say so itself.
static COMPILED: Mutex<BTreeMap<Kind, Arc<Vec<u8>>>> = Mutex::new(BTreeMap::new());

/// The message that brings the program to the loader. An interpreter that always gets the same has the same memory, so the
/// code is compiled in a process of its own.
pub(super) fn of(site: &Site) -> Result<Value, AppError> {
    let path = site.environment.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
    let kind = (site.python.clone(), path);
    // Others that want it wait, rather than compile it too.
    let mut all = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let code = match all.get(&kind) {
        Some(code) => Arc::clone(code),
        None => Arc::clone(all.entry(kind).or_insert(Arc::new(stored_or_compiled(site)?))),
    };
    drop(all);
    let (magic, code) = code.split_at_checked(MAGIC_BYTES).unwrap_or_default();
    let entries = [
        ("title", Value::Bytes(Bytes::from(format!("relapse asgi:{}", site.app)))),
        ("sources", sources()),
        ("magic", Value::Bytes(Bytes::copy_from_slice(magic))),
        ("code", Value::Bytes(Bytes::copy_from_slice(code))),
    ];
    Ok(Value::Dict(entries.into_iter().map(|(key, value)| (key.into(), value)).collect()))
}

/// The source of each part by its path.
fn sources() -> Value {
    Value::Dict(PARTS.iter().map(|(path, source)| ((*path).into(), Value::Str((*source).to_owned()))).collect())
}

/// The code from the cache of an earlier command, or from a compiler, which then stores it there.
fn stored_or_compiled(site: &Site) -> Result<Vec<u8>, AppError> {
    let path = venv::cache().ok().map(|cache| cache.join("programs").join(file_name(site)));
    if let Some(code) = path.as_deref().and_then(stored) {
        return Ok(code);
    }
    let code = compile(site)?;
    if let Some(path) = path.filter(|_| !code.is_empty()) {
        // Where nothing can be written, the next command compiles it again.
        let _ = store(&path, &code);
    }
    Ok(code)
}

/// The name of the file for an interpreter. One that is replaced by another kind of Python is told by the number in its code.
fn file_name(site: &Site) -> String {
    let parts: String = PARTS.iter().map(|(path, source)| format!("{path}\n{source}")).collect();
    let digest = Sha256::digest(format!("{}\n{parts}", site.python.display()));
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The stored code, if it is whole: its digest stands in front.
fn stored(path: &Path) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    let mut text = Vec::new();
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    file.take(if is_file { CODE_BYTES_MAX as u64 } else { 0 }).read_to_end(&mut text).ok()?;
    let (digest, code) = text.split_at_checked(Sha256::output_size())?;
    (*digest == *Sha256::digest(code)).then(|| code.to_vec())
}

/// Stores code, whole or not at all.
fn store(path: &Path, code: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&Sha256::digest(code))?;
    file.write_all(code)?;
    file.persist(path)?;
    Ok(())
}

/// Compiles the program for an interpreter, without what is installed there.
fn compile(site: &Site) -> Result<Vec<u8>, AppError> {
    let mut command = Command::new(&site.python);
    command.args(["-I", "-S", "-c", COMPILER]).current_dir(&site.directory).envs(site.environment.iter().cloned());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let spawned = Group::spawn(&mut command, Confinement::App);
    let mut group = spawned.map_err(|error| not_started(&site.python, &site.directory, &error))?;
    let child = group.child();
    let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
        unreachable!("both are piped");
    };
    // One that cannot do it, for whatever reason, compiles the source when it is to run it.
    let mut parts = Vec::new();
    marshal::write(&sources(), &mut parts);
    let written = deliver(to, parts, SILENCE_LIMIT).map(drop);
    let code = written.and_then(|()| read(from)).unwrap_or_default();
    // Its end follows the end of what it writes.
    let is_done = !code.is_empty() && group.child().wait().is_ok_and(|status| status.success());
    let _ = group.end();
    Ok(if is_done { code } else { Vec::new() })
}

/// Reads to the end.
fn read(mut from: ChildStdout) -> io::Result<Vec<u8>> {
    let (mut code, mut piece) = (Vec::new(), [0; 16 * 1024]);
    while is_readable(&from, SILENCE_LIMIT) {
        match from.read(&mut piece)? {
            0 => return Ok(code),
            count => code.extend_from_slice(&piece[..count]),
        }
        if code.len() > CODE_BYTES_MAX {
            break;
        }
    }
    Err(io::Error::from(io::ErrorKind::TimedOut))
}

/// Writes more than a pipe holds to a process that may not read.
///
/// # Errors
/// When it does not within the limit; it is to be ended then.
pub(super) fn deliver(mut to: ChildStdin, bytes: Vec<u8>, limit: Duration) -> io::Result<ChildStdin> {
    let (sender, written) = channel();
    // Where the limit passes, this thread ends with the process.
    std::thread::spawn(move || {
        let result = to.write_all(&bytes).and_then(|()| to.flush());
        let _ = sender.send(result.map(|()| to));
    });
    written.recv_timeout(limit).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use super::{store, stored};

    #[test]
    fn only_whole_code_is_taken_from_the_cache() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("programs/one");
        assert_eq!(stored(&path), None);
        store(&path, b"code").unwrap();
        assert_eq!(stored(&path).unwrap(), b"code");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(stored(&path), None);
        assert_eq!(stored(directory.path()), None);
    }
}
