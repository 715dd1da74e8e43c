//! Helpers of all test binaries: the built command, the interpreter, and work that waits.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

/// The built command with the usual effect of every signal: whatever starts the tests in the background ignores some, and the
/// command then ignores them too. `env` is that of GNU coreutils 8.31 or newer.
pub(crate) fn signaled_command() -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,TERM", env!("CARGO_BIN_EXE_relapse")]);
    command
}

/// The built command. The `python3` that it finds is the interpreter itself, and no script of a version manager.
pub(crate) fn relapse_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relapse"));
    if let Some(directory) = option_env!("RELAPSE_TEST_PYTHON").and_then(|python| Path::new(python).parent()) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(directory.to_owned()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(path).unwrap());
    }
    command
}

/// The interpreter. `suites/build.rs` looks for it, and tests that need it are ignored where there is none.
pub(crate) fn python() -> PathBuf {
    if !cfg!(has_python) {
        panic!("no python3 with `venv` and `ensurepip` was found when the tests were built");
    }
    PathBuf::from(option_env!("RELAPSE_TEST_PYTHON").unwrap_or("python3"))
}

/// Does something with each item, so many at a time, for work that mostly waits. Results are in the order of the items.
pub(crate) fn at_a_time<T: Sync, R: Send>(count: usize, items: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let taken =
            std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < items.len()));
        taken.map(|index| (index, act(&items[index]))).collect::<Vec<_>>()
    };
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..count).map(|_| scope.spawn(take)).collect();
        let joined = |worker: ScopedJoinHandle<'_, Vec<(usize, R)>>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(joined).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
