//! The processes that descend from ours, by `/proc`. Systems without it have none that we see.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// How long a killed process may take to end, in milliseconds. One that hangs in the kernel may take longer, and is left.
const END_LIMIT_MS: i64 = 1000;
/// How many times we look for more processes. One that starts others as fast as we kill them loses long before.
const ROUNDS_MAX: usize = 200;
/// The fields of `/proc/PID/stat` behind the name: state, parent and start (proc(5), fields 3, 4 and 22).
const STATE: usize = 0;
const PARENT: usize = 1;
const STARTED: usize = 19;

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Process {
    pub(super) id: u32,
    /// When it started, in ticks since the boot: together with the id it names one process for ever.
    started: u64,
}

/// A row of `/proc`.
struct Row {
    process: Process,
    parent: u32,
    is_alive: bool,
}

/// Every process that can be seen, at one moment.
pub(super) struct ProcessTable(Vec<Row>);

impl ProcessTable {
    pub(super) fn read() -> ProcessTable {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        ProcessTable(entries.filter_map(|entry| row(entry.file_name().to_str()?.parse().ok()?)).collect())
    }

    /// The processes whose parent is one of these, and theirs.
    pub(super) fn below(&self, roots: impl IntoIterator<Item = u32>) -> Vec<Process> {
        let mut children: BTreeMap<u32, Vec<&Row>> = BTreeMap::new();
        self.0.iter().for_each(|row| children.entry(row.parent).or_default().push(row));
        let (mut parents, mut found): (Vec<u32>, Vec<Process>) = (roots.into_iter().collect(), Vec::new());
        while let Some(parent) = parents.pop() {
            for row in children.remove(&parent).into_iter().flatten() {
                parents.push(row.process.id);
                if row.is_alive {
                    found.push(row.process);
                }
            }
        }
        found
    }

    /// The processes whose parent is this one.
    pub(super) fn children(&self, parent: u32) -> impl Iterator<Item = Process> {
        self.0.iter().filter(move |row| row.parent == parent).map(|row| row.process)
    }
}

/// A row of the table; `None` where there is no such process any more.
fn row(id: u32) -> Option<Row> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name may have spaces and parentheses.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let process = Process { id, started: fields.get(STARTED)?.parse().ok()? };
    let is_alive = !matches!(*fields.get(STATE)?, "Z" | "X");
    Some(Row { process, parent: fields.get(PARENT)?.parse().ok()?, is_alive })
}

/// Whether a process runs, and has not ended without its parent taking note.
pub fn is_running(process: Pid) -> bool {
    u32::try_from(process.as_raw_nonzero().get()).ok().and_then(row).is_some_and(|row| row.is_alive)
}

impl Process {
    /// Kills it, and no other that got its number meanwhile; something that tells of its end, where the system has that.
    fn kill(self) -> Option<OwnedFd> {
        let id = Pid::from_raw(i32::try_from(self.id).ok()?)?;
        let handle = handle(id);
        if row(self.id)?.process != self {
            return None;
        }
        match &handle {
            #[cfg(target_os = "linux")]
            Some(handle) => rustix::process::pidfd_send_signal(handle, Signal::KILL).ok()?,
            _ => kill_process(id, Signal::KILL).ok()?,
        }
        handle
    }

    /// A variable of its environment, as it was when its program started.
    pub(super) fn variable(self, name: &str) -> Option<String> {
        let environment = fs::read(format!("/proc/{}/environ", self.id)).ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        variables.find_map(|entry| {
            Some(String::from_utf8_lossy(entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?).into_owned())
        })
    }

    /// Frees the number of a child of ours that has ended, and that nothing else waits for.
    pub(super) fn reap(self) {
        let id = i32::try_from(self.id).ok().and_then(Pid::from_raw);
        let _ = id.map(|id| waitpid(Some(id), WaitOptions::NOHANG));
    }
}

/// A handle of a process; Linux has them since 5.3.
#[cfg(target_os = "linux")]
fn handle(id: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty()).ok()
}

/// Other systems have none.
#[cfg(not(target_os = "linux"))]
fn handle(_: Pid) -> Option<OwnedFd> {
    None
}

/// Kills processes, and waits until they have ended.
pub(super) fn kill_all(processes: &[Process]) {
    let handles: Vec<OwnedFd> = processes.iter().filter_map(|process| process.kill()).collect();
    let limit = Timespec { tv_sec: END_LIMIT_MS / 1000, tv_nsec: END_LIMIT_MS % 1000 * 1_000_000 };
    for handle in &handles {
        let _ = poll(&mut [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)], Some(&limit));
    }
}

/// Kills processes, again and again, until `find` finds none.
pub(super) fn kill_until_none(mut find: impl FnMut() -> Vec<Process>) {
    let mut last: Vec<Process> = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let found = find();
        // Those that do not end are waited for once.
        if found.is_empty() || found == last {
            return;
        }
        kill_all(&found);
        last = found;
    }
}

/// Whether this process is the reaper of its descendants.
static IS_REAPER: AtomicBool = AtomicBool::new(false);

/// Makes this process the reaper of its descendants: a process whose parent ends comes to it, and not to the init process.
///
/// # Errors
/// When the system has no such thing.
#[cfg(target_os = "linux")]
pub fn adopt_descendants() -> std::io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    IS_REAPER.store(true, Ordering::Relaxed);
    Ok(())
}

/// Whether it is, so that every process that descends from it can be found.
pub(super) fn is_reaper() -> bool {
    IS_REAPER.load(Ordering::Relaxed)
}

/// Kills every process that descends from this one, until there is none. It sees those too that have a session of their
/// own; those whose parent has ended only after `adopt_descendants`.
pub fn end_descendants() {
    kill_until_none(|| ProcessTable::read().below([std::process::id()]));
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::{ProcessTable, kill_until_none, row};

    /// A session of its own hides no descendant.
    #[test]
    fn descendants_are_seen_and_killed() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "setsid sleep 600 & echo started; wait"]).process_group(0).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        let below = ProcessTable::read().below([child.id()]);
        assert_eq!(below.len(), 1);
        assert_eq!(ProcessTable::read().below([below[0].id]), []);
        kill_until_none(|| ProcessTable::read().below([child.id()]));
        child.wait().unwrap();
        assert!(row(below[0].id).is_none_or(|row| !row.is_alive));
    }
}
