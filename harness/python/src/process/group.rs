//! Processes that the harness starts, each in a group of its own, which ends with its owner.
//!
//! A process that an app starts may leave the group, and its parent: it has a session of its own, or is forked twice. It dies
//! with the group all the same, for these reasons:
//!
//! - The processes below the first one are looked up in `/proc` before they are killed, also those in other sessions.
//! - The command is the reaper of its descendants (`PR_SET_CHILD_SUBREAPER`): a process whose parent has ended comes to it. A
//!   variable of its environment ([`MARK`]) says which group it is of. Code that clears its environment escapes this look, and
//!   ends with the command.
//! - The command has a guard in front (`command/guard.rs`), which outlives it and kills all that is left.
//!
//! A program that uses this crate as a library is no reaper unless it makes itself one. There a process that was forked twice
//! lives on, as it does after SIGKILL to the command and its guard at one moment; only a container or a cgroup holds those.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::{
    confinement::{self, Confinement},
    descendants::{Process, ProcessTable, end_descendants, is_reaper, kill_all, kill_until_none},
    starvation,
};

/// The groups that run.
static GROUPS: Mutex<Groups> = Mutex::new(Groups { running: BTreeSet::new(), are_over: false });

/// The number of the next group.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The variable that tells a command which process is its guard. It is no concern of what the command starts.
pub const GUARD: &str = "RELAPSE_GUARD";

/// The option of our allocator to give freed memory back at once, with its value. Each worker of a hunt would keep what its
/// largest run took otherwise. The guard sets it for the command, as it is read when a process begins.
pub const FREE_AT_ONCE: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "0");

/// The variable that names the group of a process.
const MARK: &str = "RELAPSE_GROUP";

/// The groups of this process.
struct Groups {
    /// The ids of their first processes.
    running: BTreeSet<u32>,
    /// Whether this process ends, and starts no more.
    are_over: bool,
}

/// Ends every process that we started, and whatever it started, and lets no further one start: for a process that ends.
pub fn end_all() {
    let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
    groups.are_over = true;
    if is_reaper() {
        drop(groups);
        return end_descendants();
    }
    let below = ProcessTable::read().below(groups.running.iter().copied());
    groups.running.iter().for_each(|group| kill(*group, Signal::KILL));
    kill_all(&below);
}

fn kill(group: u32, signal: Signal) {
    if let Some(group) = i32::try_from(group).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, signal);
    }
}

/// A process and whatever it started.
#[derive(Debug)]
pub struct Group {
    pub(super) child: Child,
    /// The value of [`MARK`]. Its length is the same for all: the layout of an interpreter's memory depends on it.
    mark: String,
    /// How the first of it ended, once all of it has.
    ended: Option<ExitStatus>,
}

impl Group {
    /// Starts a process in a group of its own.
    ///
    /// # Errors
    /// When the system does not start it.
    pub fn spawn(command: &mut Command, confinement: Confinement) -> io::Result<Group> {
        let mark = format!("{:08x}{:08x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        command.process_group(0).env(MARK, &mark).env_remove(GUARD);
        let (option, value) = FREE_AT_ONCE;
        let is_wanted = command.get_envs().any(|(name, _)| name == option);
        if !is_wanted && std::env::var_os(option).is_some_and(|ours| ours == value) {
            command.env_remove(option);
        }
        // With this lock, `end_all` runs either before this, and nothing is started, or after the insert.
        let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
        if groups.are_over {
            return Err(io::Error::other("the command ends"));
        }
        let child = confinement::spawn(command, confinement)?;
        groups.running.insert(child.id());
        Ok(Group { child, mark, ended: None })
    }

    /// The process that was started.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How long the first process has been ready to run without a processor, in all.
    pub(super) fn queued(&self) -> Duration {
        starvation::queued(self.child.id())
    }

    /// Sends a signal to the whole group.
    pub(super) fn signal(&self, signal: Signal) {
        kill(self.child.id(), signal);
    }

    /// Ends all of it; how the first of it ended.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn end(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        // Where the first of it is gone already, another process may have its number.
        let first = self.child.try_wait()?.is_none().then(|| self.child.id());
        let below = ProcessTable::read().below(first);
        self.signal(Signal::KILL);
        kill_all(&below);
        let status = self.child.wait()?;
        let mut adopted = BTreeSet::new();
        kill_until_none(|| self.orphans(&mut adopted));
        // Those that were killed with the first of it are ours now too, if we are the reaper of our descendants.
        below.iter().for_each(|process| process.reap());
        adopted.iter().for_each(|process: &Process| process.reap());
        self.ended = Some(status);
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).running.remove(&self.child.id());
        Ok(status)
    }

    /// The processes of this group whose parent has ended, and those below them. The former are ours now.
    fn orphans(&self, adopted: &mut BTreeSet<Process>) -> Vec<Process> {
        // With this lock no other child appears that is not in the list.
        let groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
        let table = ProcessTable::read();
        let strays: Vec<Process> =
            table.children(std::process::id()).filter(|child| !groups.running.contains(&child.id)).collect();
        let mut found = Vec::new();
        for stray in strays {
            if stray.variable(MARK).as_ref() == Some(&self.mark) {
                adopted.insert(stray);
                found.push(stray);
                found.extend(table.below([stray.id]));
            }
        }
        found
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Whatever it started goes with it.
        let _ = self.end();
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).running.remove(&self.child.id());
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
            // The last line may have no end.
            if !line.is_empty() {
                printed.take(&mut line, b"\n", &mut tell);
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
            }
            if byte != b'\n' {
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
