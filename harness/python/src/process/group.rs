//! Processes that the harness starts, each in a group of its own, which ends with its owner.

use std::collections::{BTreeSet, VecDeque};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

/// The groups that run.
static GROUPS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Ends every process that we started, and whatever it started: for a process that is told to end itself.
pub fn end_all() {
    for group in GROUPS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        kill(*group, Signal::KILL);
    }
}

fn kill(group: u32, signal: Signal) {
    if let Some(group) = i32::try_from(group).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, signal);
    }
}

/// A process and whatever it started.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) child: Child,
}

impl Group {
    /// Starts a process in a group of its own.
    pub(super) fn spawn(command: &mut Command) -> std::io::Result<Group> {
        // With this lock, `end_all` runs either before this spawn or after the insert.
        let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.process_group(0).spawn()?;
        groups.insert(child.id());
        Ok(Group { child })
    }

    /// Tells all of it something.
    pub(super) fn signal(&self, signal: Signal) {
        kill(self.child.id(), signal);
    }

    /// Ends all of it; how the first of it ended.
    pub(super) fn end(&mut self) -> std::io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        self.child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Whatever it started goes with it.
        let _ = self.end();
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.child.id());
    }
}

/// How many lines of what a process prints are kept.
const PRINTED_LINES_MAX: usize = 100;
/// How many of them are told.
const LAST_LINES_MAX: usize = 20;
/// The longest line.
const LINE_BYTES_MAX: usize = 4096;

/// The last lines that a process printed.
#[derive(Debug, Clone, Default)]
pub(super) struct Printed(Arc<Mutex<VecDeque<String>>>);

impl Printed {
    /// Keeps the last lines of what comes from there.
    pub(super) fn keep(&self, from: impl Read + Send + 'static) {
        self.keep_and_tell(from, |_| {});
    }

    /// The same, and gives each line to a function as it comes.
    pub(super) fn keep_and_tell(
        &self,
        mut from: impl Read + Send + 'static,
        mut tell: impl FnMut(&str) + Send + 'static,
    ) {
        let (printed, mut chunk, mut line) = (self.clone(), [0; 4096], Vec::new());
        std::thread::spawn(move || {
            while let Ok(count @ 1..) = from.read(&mut chunk) {
                printed.take(&mut line, &chunk[..count], &mut tell);
            }
        });
    }

    /// Takes a piece of what was printed; `line` is what was taken of the line that it goes on with.
    pub(super) fn take(&self, line: &mut Vec<u8>, piece: &[u8], tell: &mut dyn FnMut(&str)) {
        for &byte in piece {
            if byte == b'\n' || line.len() >= LINE_BYTES_MAX {
                let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == PRINTED_LINES_MAX {
                    lines.pop_front();
                }
                let whole = String::from_utf8_lossy(line).into_owned();
                line.clear();
                lines.push_back(whole.clone());
                drop(lines);
                tell(&whole);
            } else {
                line.push(byte);
            }
        }
    }

    /// The last of them, oldest first.
    pub(super) fn last(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = lines.len().saturating_sub(LAST_LINES_MAX);
        lines.iter().skip(skipped).map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}
