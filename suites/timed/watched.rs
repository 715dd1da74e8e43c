//! The built command, looked at from outside: the memory that it takes, how it ends, and what it leaves behind.

#![expect(clippy::disallowed_methods, reason = "the time of a command is measured from outside")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::Pid;

/// The variable that every process has that a command starts, whatever becomes of its parent.
const MARKER: &str = "RELAPSE_HOSTILE";

/// How often its memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a process that it started may outlive it.
const ORPHAN_LIMIT: Duration = Duration::from_secs(10);

/// How long the rest of its output may take.
const REST_LIMIT: Duration = Duration::from_secs(10);

/// How much of its output is kept, in bytes.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// The most memory that a command may take itself: 256 MiB.
const PEAK_BYTES_MAX: u64 = 256 << 20;

/// A command that runs.
pub(super) struct Watched {
    child: Child,
    marker: String,
    began: Instant,
    /// The most memory that it was seen to take, in bytes.
    peak: u64,
    output: Receiver<Output>,
    /// Keeps the channel open, so that to wait for output is to wait.
    _open: Sender<Output>,
    /// How many of its two streams have not ended.
    streams: usize,
    stdout: String,
    stderr: String,
}

/// A line that it printed.
enum Output {
    Printed(String),
    Complained(String),
    /// One of its streams has ended.
    Over,
}

/// How a command ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit status; `None` where it had to be killed.
    pub(super) status: Option<ExitStatus>,
    /// The most memory that it was seen to take, in bytes.
    pub(super) peak: u64,
    /// How long it ran.
    pub(super) took: Duration,
    pub(super) stdout: String,
    pub(super) stderr: String,
    /// The processes that it left behind.
    orphans: Vec<String>,
}

impl Watched {
    /// Starts the built command in a directory.
    pub(super) fn start(arguments: &[&str], directory: &Path) -> Watched {
        Watched::start_command(crate::tools::relapse_command(), arguments, directory)
    }

    /// The same, with the usual effect of every signal.
    pub(super) fn start_signaled(arguments: &[&str], directory: &Path) -> Watched {
        Watched::start_command(crate::tools::signaled_command(), arguments, directory)
    }

    fn start_command(mut command: Command, arguments: &[&str], directory: &Path) -> Watched {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let marker = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        command.args(arguments).current_dir(directory).env(MARKER, &marker);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, output) = channel();
        tell_lines(child.stdout.take().unwrap(), sender.clone(), Output::Printed);
        tell_lines(child.stderr.take().unwrap(), sender.clone(), Output::Complained);
        Watched {
            child,
            marker,
            began: Instant::now(),
            peak: 0,
            output,
            _open: sender,
            streams: 2,
            stdout: String::new(),
            stderr: String::new(),
        }
    }

    /// Lets it run for as long as one look takes; whether it has printed something.
    pub(super) fn look(&mut self) -> bool {
        self.peak = self.peak.max(own_peak(self.child.id()));
        let heard = match self.output.recv_timeout(LOOK_EVERY) {
            Ok(output) => output,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
        };
        let (all, line) = match heard {
            Output::Printed(line) => (&mut self.stdout, line),
            Output::Complained(line) => (&mut self.stderr, line),
            Output::Over => {
                self.streams -= 1;
                return true;
            }
        };
        if all.len() + line.len() <= OUTPUT_BYTES_MAX {
            all.push_str(&line);
        }
        true
    }

    /// Lets it run until this holds, which is asked after each look, or until the limit.
    pub(super) fn look_until(&mut self, limit: Duration, mut holds: impl FnMut(&Watched) -> bool) {
        let until = Instant::now() + limit;
        while !holds(self) && Instant::now() < until {
            self.look();
        }
    }

    /// The first line that it prints with this text.
    pub(super) fn line_with(&mut self, text: &str, limit: Duration) -> String {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if let Some(line) = self.stdout.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            self.look();
        }
        panic!("it does not print {text:?}: {}\n{}", self.stdout, self.stderr)
    }

    /// Waits for its end, and kills it at the limit, or when it takes too much memory.
    pub(super) fn end_within(mut self, limit: Duration) -> Ended {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            let is_quiet = !self.look();
            if let Some(status) = self.child.try_wait().unwrap().filter(|_| is_quiet) {
                return self.ended(Some(status));
            }
            if self.peak > PEAK_BYTES_MAX {
                break;
            }
        }
        self.kill()
    }

    /// Kills it.
    pub(super) fn kill(mut self) -> Ended {
        self.peak = self.peak.max(own_peak(self.child.id()));
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.ended(None)
    }

    /// Ends a command that is to stand until it is ended.
    pub(super) fn end_standing(mut self) -> Ended {
        assert!(self.child.try_wait().unwrap().is_none(), "it ended by itself: {}{}", self.stdout, self.stderr);
        self.kill()
    }

    /// Its process: where it has a guard, that is the guard.
    pub(super) fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn ended(mut self, status: Option<ExitStatus>) -> Ended {
        let took = self.began.elapsed();
        let until = Instant::now() + REST_LIMIT;
        while self.streams > 0 && Instant::now() < until {
            self.look();
        }
        let until = Instant::now() + ORPHAN_LIMIT;
        let mut orphans = marked(&self.marker);
        while !orphans.is_empty() && Instant::now() < until {
            self.look();
            orphans = marked(&self.marker);
        }
        Ended { status, peak: self.peak, took, stdout: self.stdout, stderr: self.stderr, orphans }
    }
}

impl Ended {
    /// Checks what holds for every command, whatever it met: its memory, that it did not break, and that it left nothing.
    #[track_caller]
    pub(super) fn is_harmless(&self) -> &Ended {
        assert!((1..PEAK_BYTES_MAX).contains(&self.peak), "it took {} MiB, or was not seen: {self:?}", self.peak >> 20);
        let said = [&self.stdout, &self.stderr].map(|said| said.contains("panicked") || said.contains("memory alloc"));
        assert_eq!(said, [false; 2], "it broke: {self:?}");
        assert_eq!(self.orphans, [""; 0], "it left processes");
        assert!(self.status.is_none_or(|status| status.code().is_some()), "it was ended by a signal: {self:?}");
        self
    }

    /// The most memory that it took, in MiB.
    pub(super) fn peak_mib(&self) -> u64 {
        self.peak >> 20
    }

    /// Checks that it ended by itself.
    #[track_caller]
    pub(super) fn has_ended(&self) -> &Ended {
        assert!(self.status.is_some(), "it had to be killed: {self:?}");
        self
    }

    /// Its exit code.
    pub(super) fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }
}

/// Tells each line that comes from there.
fn tell_lines(from: impl Read + Send + 'static, to: Sender<Output>, of: fn(String) -> Output) {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        // A line may be endless, too.
        while let Ok(1..) = from.by_ref().take(OUTPUT_BYTES_MAX as u64).read_until(b'\n', &mut line) {
            if to.send(of(String::from_utf8_lossy(&line).into_owned())).is_err() {
                return;
            }
            line.clear();
        }
        // Where the command is not looked at any more, it does not matter.
        let _ = to.send(Output::Over);
    });
}

/// The most memory that a command took until now, in bytes: its guard and itself, whichever took more.
fn own_peak(guard: u32) -> u64 {
    let file = |process: u32| fs::read_link(format!("/proc/{process}/exe")).ok();
    let tasks = fs::read_dir(format!("/proc/{guard}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> =
        children.flat_map(|all| all.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect();
    // A process of an app is no part of the command.
    let own = children.into_iter().filter(|child| file(*child).is_some_and(|its| Some(its) == file(guard)));
    own.chain([guard]).filter_map(peak).max().unwrap_or(0)
}

/// The most memory that a process took until now, in bytes (proc_pid_status(5), `VmHWM`).
fn peak(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

/// The processes that have this marker in their environment: number and name.
fn marked(marker: &str) -> Vec<String> {
    let wanted = format!("{MARKER}={marker}");
    let processes = fs::read_dir("/proc").unwrap();
    let is_marked = |directory: &Path| {
        let environment = fs::read(directory.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let directories = processes.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let marked = directories.filter(|directory| is_marked(directory));
    let name = |path: &Path| fs::read_to_string(path.join("comm")).unwrap_or_default().trim().to_owned();
    marked.map(|directory| format!("{} {}", directory.display(), name(&directory))).collect()
}
