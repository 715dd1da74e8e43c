//! The guard of a command that starts processes: the same program in front of it, which does nothing but outlive it.
//!
//! A command that runs an app, a server, a generated test, a token command or an installer starts itself once more, as the
//! child of a guard. What the two hold:
//!
//! | what happens | what ends the processes |
//! |---|---|
//! | the command ends by itself, panics, or is killed | the guard, the reaper of all its descendants, kills those that are left |
//! | the guard is killed | the command gets SIGTERM as its parent-death signal, ends in order, and kills its own |
//! | both are killed at one moment | interpreters have a parent-death signal of their own; what an app started in a session of its own is held by a container or a cgroup only |
//!
//! The guard stays in the group that it was started in, and the command has a group of its own. So every signal that is sent
//! to the group, as a terminal does it for Ctrl-C, or to the process that the shell knows, comes to the guard alone. It passes
//! each on, so that one Ctrl-C asks once. Systems that are not Linux have no guard.

use std::ffi::OsString;
use std::process::ExitCode;

/// The commands that may start a process whatever is said to them.
const STARTS: [&str; 3] = ["init", "profile", "validate"];

/// The options of the others that name what may be started: an app, or a server with a command that prints its token.
const TARGETS: [&str; 3] = ["--target", "--before", "--after"];

/// Whether a command with these arguments may start a process. They are read in full behind the guard, so that this takes
/// no time.
pub(crate) fn is_needed(arguments: impl Iterator<Item = OsString>) -> bool {
    let words = arguments.map(|argument| argument.to_string_lossy().into_owned());
    words.enumerate().any(|(place, word)| {
        let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
        place == 0 && STARTS.contains(&name) || TARGETS.contains(&name)
    })
}

/// The guarantees for processes that a command starts, as the long help of such a command says them.
pub(crate) const HELP: &str = "\
Processes that are started end with the command, on Linux:
  the command ends, or is killed   its guard kills everything that is left (Linux 3.4)
  the guard is killed              the command ends in order
  both are killed at one moment    interpreters end; a program that an app started in a session of its own
                                   may live on, unless a container or a cgroup ends it
An app cannot signal the command: since Linux 6.12 nothing that it starts can (Landlock, where it is on);
before, `os.kill` and its like in Python cannot.
On other systems a command ends the groups of its processes, and nothing more is held.
";

/// Stands guard in front of this same command; the exit code that the command had. `None` where this process is to do the
/// work itself: it has its guard, or the system has none.
#[cfg(target_os = "linux")]
pub(crate) fn stand() -> Option<ExitCode> {
    match linux::Post::of_this_process() {
        linux::Post::Behind(guard) => {
            linux::be_guarded(guard);
            None
        }
        linux::Post::Orphaned => linux::end_orphaned(),
        linux::Post::InFront => linux::run_behind().ok(),
    }
}

/// Other systems have none.
#[cfg(not(target_os = "linux"))]
pub(crate) fn stand() -> Option<ExitCode> {
    None
}

#[cfg(target_os = "linux")]
mod linux {
    use std::env;
    use std::fs;
    use std::io;
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::path::PathBuf;
    use std::process::{ExitCode, ExitStatus};

    use nix::sys::signal::SigSet;
    use relapse_python::process::{FREE_AT_ONCE, GUARD, adopt_descendants, end_descendants, is_running};
    use relapse_simulate::clock::{Clock, Runtime};
    use rustix::process::{Pid, Signal as Number, getpid, getppid, kill_process, set_parent_process_death_signal};
    use tokio::process::{Child, Command};
    use tokio::signal::unix::{Signal, SignalKind, signal};
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    /// The signals that the guard passes on. Others end the guard, and with it the command.
    const PASSED_ON: [Number; 6] = [Number::HUP, Number::INT, Number::QUIT, Number::TERM, Number::TSTP, Number::CONT];

    /// Added to the number of the signal that ended the command, as shells do.
    const KILLED: i32 = 128;

    /// Where this process stands.
    pub(super) enum Post {
        /// Its parent is its guard.
        Behind(Pid),
        /// Its guard was killed before it could ask for the signal that tells of that.
        Orphaned,
        /// It has none.
        InFront,
    }

    impl Post {
        pub(super) fn of_this_process() -> Post {
            let guard = env::var(GUARD).ok().and_then(|guard| guard.parse().ok()).and_then(Pid::from_raw);
            match guard {
                Some(guard) if Some(guard) == getppid() => Post::Behind(guard),
                Some(guard) if !is_running(guard) => Post::Orphaned,
                // A program that the command runs hands the variable down.
                Some(_) | None => Post::InFront,
            }
        }
    }

    /// Ends in order when the guard is killed.
    pub(super) fn be_guarded(guard: Pid) {
        // Its group is never the foreground one of a terminal, so that printing would stop it where the terminal has
        // `tostop`. Its threads inherit this; the one that starts processes takes it back.
        let mut held = SigSet::empty();
        held.add(nix::sys::signal::SIGTTOU);
        let _ = held.thread_block();
        let _ = set_parent_process_death_signal(Some(Number::TERM));
        let _ = adopt_descendants();
        if getppid() != Some(guard) {
            end_orphaned();
        }
    }

    /// Ends before anything was started, as the signal would that tells of the end of the guard.
    pub(super) fn end_orphaned() -> ! {
        std::process::exit(KILLED + Number::TERM.as_raw());
    }

    /// Runs this program again behind this process, and kills what it leaves.
    pub(super) fn run_behind() -> io::Result<ExitCode> {
        adopt_descendants()?;
        let status = Runtime::new(Clock::Real).block_on(run())?;
        end_descendants();
        Ok(exit_code(status))
    }

    fn exit_code(status: ExitStatus) -> ExitCode {
        let code = status.code().or(status.signal().map(|signal| KILLED + signal)).unwrap_or(KILLED);
        ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
    }

    async fn run() -> io::Result<ExitStatus> {
        // From here on they wait for the command.
        let mut signals = watch()?;
        let mut child = start()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        loop {
            tokio::select! {
                status = child.wait() => return status,
                Some(signal) = signals.recv() => id.into_iter().for_each(|command| pass_on(signal, command)),
            }
        }
    }

    /// This program with the same arguments, in a group of its own.
    fn start() -> io::Result<Child> {
        let mut command = Command::new(own_program());
        let mut arguments = env::args_os();
        if let Some(name) = arguments.next() {
            command.as_std_mut().arg0(name);
        }
        if env::var_os(FREE_AT_ONCE.0).is_none() {
            command.env(FREE_AT_ONCE.0, FREE_AT_ONCE.1);
        }
        command.args(arguments).env(GUARD, getpid().as_raw_nonzero().to_string());
        command.process_group(0).spawn()
    }

    /// The file that this process runs, also where another has taken its place.
    fn own_program() -> PathBuf {
        env::current_exe().ok().filter(|file| file.is_file()).unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
    }

    /// Passes a signal on. One that stops the command stops the guard too, until a shell continues it.
    fn pass_on(signal: Number, command: Pid) {
        let sent = if signal == Number::TSTP { Number::STOP } else { signal };
        let _ = kill_process(command, sent);
        if signal == Number::TSTP {
            let _ = kill_process(getpid(), Number::STOP);
            let _ = kill_process(command, Number::CONT);
        }
    }

    /// The signals to pass on, as they come, but those that this process was started to ignore, as `nohup` does it.
    fn watch() -> io::Result<UnboundedReceiver<Number>> {
        let (sender, signals) = unbounded_channel();
        let ignored = ignored();
        for number in PASSED_ON.into_iter().filter(|number| ignored & 1 << (number.as_raw() - 1) == 0) {
            let mut heard: Signal = signal(SignalKind::from_raw(number.as_raw()))?;
            let sender = sender.clone();
            tokio::spawn(async move { while heard.recv().await.is_some() && sender.send(number).is_ok() {} });
        }
        Ok(signals)
    }

    /// The signals that this process ignores, as bits (proc(5), `SigIgn`).
    fn ignored() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::is_needed;

    #[rstest]
    #[case::nothing(&[], false)]
    #[case::built_in(&["run", "508"], false)]
    #[case::app(&["hunt", "--target", "asgi:main:app"], true)]
    #[case::one_word(&["run", "--before=asgi:main:app"], true)]
    #[case::other_name(&["--after", "http://127.0.0.1:1"], true)]
    #[case::always(&["validate", "-h"], true)]
    #[case::only_a_word(&["run", "validate"], false)]
    #[case::proxy(&["proxy", "--upstream", "http://127.0.0.1:1"], false)]
    fn a_command_that_starts_processes_has_a_guard(#[case] arguments: &[&str], #[case] expected: bool) {
        assert_eq!(is_needed(arguments.iter().map(|argument| argument.into())), expected);
    }
}
