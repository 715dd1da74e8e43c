//! Every process that a command starts ends with it, however the command ends and whatever the process does.

use std::fs;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rstest::rstest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use tempfile::TempDir;

/// How long a process may live on after the command.
const LIVES_ON_MAX: Duration = Duration::from_secs(10);

/// How long a command may take to end after a signal, or to come to where it is awaited.
const END_LIMIT: Duration = Duration::from_secs(20);

/// The variable whose value is in the environment of every process that a command of a test starts.
const MARK: &str = "RELAPSE_HOSTILE";

/// The beginning of every app: it starts, and answers one path.
const LIFE: &str = r#"
import os, signal, socket, subprocess, sys, time


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    act()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})


def fork_twice():
    """Leaves a process that has a session of its own, no parent of ours, and no ear for SIGTERM."""
    born_from, born_to = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open("born", "a") as born:
                born.write(f"{os.getpid()}\n")
            os.write(born_to, b"x")
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            for fd in range(64):
                try:
                    os.close(fd)
                except OSError:
                    pass
            os.execvp("sleep", ["sleep", "600"])
        os._exit(0)
    os.close(born_to)
    os.read(born_from, 1)
    os.close(born_from)


def report():
    """Tells the test that it is here, and with whom."""
    with socket.create_connection(("127.0.0.1", int(os.environ["PORT"]))) as ear:
        ear.sendall(str(os.getpid()).encode())


"#;

/// A command, marked, in a directory with an app.
struct Marked {
    mark: String,
    directory: TempDir,
}

impl Marked {
    fn new(app: &str) -> Marked {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("service.py"), format!("{LIFE}{app}")).unwrap();
        Marked { mark, directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The command, as a shell starts a job: in a group of its own.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = crate::support::signaled_command();
        command.current_dir(self.path()).args(arguments).env(MARK, &self.mark).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The command, on the app.
    fn on_app(&self, verb: &str, more: &[&str]) -> Command {
        let python = crate::python::python();
        let mut command = self.command(&[verb, "--target", "asgi:service:app", "--path", "GET /x"]);
        command.arg("--python").arg(python).args(more);
        command
    }

    /// The processes that carry the mark.
    fn processes(&self) -> Vec<Pid> {
        let marked = format!("{MARK}={}", self.mark).into_bytes();
        let is_marked = |id: &Pid| {
            let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == marked)
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let ids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
        ids.filter(is_marked).collect()
    }

    fn kill(&self) {
        for id in self.processes() {
            let _ = kill_process(id, Signal::KILL);
        }
    }

    /// Fails where a process lives on. None is left behind by a test that fails, either.
    fn assert_nothing_lives_on(&self) {
        for id in self.processes() {
            let has_ended = wait_for_end(id, LIVES_ON_MAX);
            let name = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default().replace('\0', " ");
            if !has_ended {
                self.kill();
                panic!("{id} lives on: {name}");
            }
        }
        assert!(self.processes().is_empty(), "a process was started meanwhile");
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a process ends within the limit.
fn wait_for_end(id: Pid, limit: Duration) -> bool {
    let Ok(handle) = pidfd_open(id, PidfdFlags::empty()) else { return true };
    let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
    poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit)).unwrap() > 0
}

/// The end of a command, with its two outputs. It must come within the limit.
fn end(mut child: Child) -> (ExitStatus, String, String) {
    let (mut output, mut errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).unwrap();
        text
    });
    let id = Pid::from_child(&child);
    let killer = std::thread::spawn(move || {
        if !wait_for_end(id, END_LIMIT) {
            kill_process(id, Signal::KILL).unwrap();
        }
    });
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    killer.join().unwrap();
    (child.wait().unwrap(), text, reader.join().unwrap())
}

/// The listener that apps report to, and the option that tells them where it is.
fn ear() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, format!("PORT={port}"))
}

/// Waits for a report; the number of the process that reports.
fn heard(listener: &TcpListener) -> Pid {
    let limit = Timespec { tv_sec: END_LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&limit)).unwrap(), 1, "no app reports");
    let mut stream: TcpStream = listener.accept().unwrap().0;
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    Pid::from_raw(text.parse().unwrap()).unwrap()
}

/// The parent of a process.
fn parent(id: Pid) -> Pid {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let parent = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap();
    Pid::from_raw(parent.parse().unwrap()).unwrap()
}

/// An app starts what it wants, and signals whom it wants: the command has its result, and nothing lives on. Where a failure
/// of this test would reach more than the command, the signal is one that ends nothing.
#[rstest]
#[case::forks_twice_at_import("fork_twice()\ndef act(): pass\n", 0, "")]
#[case::forks_twice("act = fork_twice\n", 0, "")]
#[case::leaves_a_child(
    "def act():\n    child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n    open('born', 'a').write(str(child.pid))\n",
    0,
    ""
)]
#[case::leaves_a_shell("def act(): os.system('trap \"\" TERM HUP INT; (sleep 600 & echo $! >> born)')\n", 0, "")]
#[case::kills_its_parent("def act(): os.kill(os.getppid(), signal.SIGKILL)\n", 1, "Operation not permitted")]
#[case::kills_its_group(
    "def act(): os.killpg(os.getpgid(os.getppid()), signal.SIGKILL)\n",
    1,
    "Operation not permitted"
)]
// In a container the session may lie outside its PID namespace, where it has no number.
#[case::signals_its_session(
    "def act(): os.killpg(os.getsid(0) or os.getpgid(os.getppid()), signal.SIGCONT)\n",
    1,
    "Operation not permitted"
)]
#[case::signals_everything("def act(): os.kill(-1, signal.SIGCONT)\n", 1, "Operation not permitted")]
#[case::signals_the_guard(
    "def act():\n    guard = open(f'/proc/{os.getppid()}/stat').read().rsplit(')', 1)[1].split()[1]\n    os.kill(int(guard), signal.SIGCONT)\n",
    1,
    "Operation not permitted"
)]
#[case::kills_itself("def act(): os.kill(os.getpid(), signal.SIGKILL)\n", 1, "the interpreter ended")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn whatever_an_app_does_ends_with_the_command(#[case] app: &str, #[case] code: i32, #[case] told: &str) {
    let marked = Marked::new(app);
    let child = marked.on_app("hunt", &["--cases", "2"]).spawn().unwrap();
    let (status, output, errors) = end(child);
    marked.assert_nothing_lives_on();
    assert_eq!(status.code(), Some(code), "{output}{errors}");
    assert!(output.contains(told), "{output}{errors}");
    assert!(!told.is_empty() || marked.path().join("born").is_file(), "no process was started: {output}{errors}");
}

/// Programs that an app starts cannot signal us either, where the kernel scopes signals.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_program_of_an_app_cannot_signal_us() {
    if !scopes_signals() {
        return;
    }
    let marked = Marked::new(
        "def act():\n    said = subprocess.run(['sh', '-c', f'kill -9 {os.getppid()}'], capture_output=True)\n    \
         raise RuntimeError(said.stderr.decode())\n",
    );
    let (status, output, errors) = end(marked.on_app("hunt", &["--cases", "1"]).spawn().unwrap());
    marked.assert_nothing_lives_on();
    assert_eq!(status.code(), Some(1), "{output}{errors}");
    assert!(output.contains("ot permitted"), "{output}{errors}");
}

/// The command holds signals of terminals back from itself, and not from an app.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_app_gets_every_signal() {
    let marked = Marked::new(
        "def act():\n    import signal\n    raise RuntimeError(f'held: {signal.pthread_sigmask(signal.SIG_BLOCK, [])}')\n",
    );
    let (status, output, errors) = end(marked.on_app("hunt", &["--cases", "1"]).spawn().unwrap());
    assert_eq!(status.code(), Some(1), "{output}{errors}");
    assert!(output.contains("held: set()"), "{output}{errors}");
}

/// Whether this kernel has Landlock's scope of signals: Linux 6.12 and newer, where Landlock is on.
fn scopes_signals() -> bool {
    let modules = fs::read_to_string("/sys/kernel/security/lsm");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).filter_map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (6, 12) && modules.map_or(true, |modules| modules.contains("landlock"))
}

/// The processes in front of an app that blocks its loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    Guard,
    Command,
    Both,
}

/// SIGKILL to the command, to its guard, or to both: the app ends, and so does all that can be held.
#[rstest]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn nothing_survives_sigkill(
    #[values(Killed::Guard, Killed::Command, Killed::Both)] killed: Killed,
    #[values("hunt", "validate")] verb: &str,
) {
    // A session of its own is held by the survivor of the two.
    let act = if killed == Killed::Both { "" } else { "    fork_twice()\n" };
    let marked = Marked::new(&format!("def act():\n{act}    report()\n    while True: pass\n"));
    let (listener, port) = ear();
    let child = marked.on_app(verb, &["--env", &port]).spawn().unwrap();
    let app = heard(&listener);
    let command = parent(app);
    let guard = Pid::from_child(&child);
    assert_eq!(parent(command), guard);
    match killed {
        Killed::Guard => kill_process(guard, Signal::KILL).unwrap(),
        Killed::Command => kill_process(command, Signal::KILL).unwrap(),
        Killed::Both => {
            // Stopped, neither of them notices the end of the other.
            kill_process(command, Signal::STOP).unwrap();
            kill_process(guard, Signal::KILL).unwrap();
            kill_process(command, Signal::KILL).unwrap();
        }
    }
    let (status, ..) = end(child);
    match killed {
        Killed::Command => assert_eq!(status.code(), Some(128 + 9)),
        Killed::Guard | Killed::Both => assert_eq!(status.signal(), Some(9)),
    }
    marked.assert_nothing_lives_on();
}

/// A list of processes shows which app runs.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_interpreter_has_a_title() {
    let marked = Marked::new("def act():\n    report()\n    while True: pass\n");
    let (listener, port) = ear();
    let child = marked.on_app("validate", &["--env", &port]).spawn().unwrap();
    let app = heard(&listener);
    let shown = fs::read_to_string(format!("/proc/{app}/cmdline")).unwrap();
    assert_eq!(shown.trim_end_matches('\0'), "relapse asgi:service:app");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    end(child);
    marked.assert_nothing_lives_on();
}

/// Ctrl-C, which a terminal sends to the whole group, asks a hunt once: what was found is reported.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn ctrl_c_asks_once() {
    // Before the first cases of the hunt proper, Ctrl-C ends everything.
    let marked = Marked::new(
        "calls = []\ndef act():\n    calls.append(0)\n    if len(calls) == 20:\n        report()\n    raise ValueError\n",
    );
    let (listener, port) = ear();
    let child = marked.on_app("hunt", &["--env", &port, "--time", "60s", "--jobs", "1"]).spawn().unwrap();
    heard(&listener);
    kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
    let (status, output, errors) = end(child);
    assert_eq!(status.code(), Some(130), "{output}{errors}");
    assert!(output.contains("ValueError"), "{output}{errors}");
    marked.assert_nothing_lives_on();
}

/// A command that prints a token, and leaves processes behind.
#[test]
fn a_token_command_leaves_nothing() {
    let marked = Marked::new("");
    let command = "sleep 600 & echo $! >> born; setsid sleep 600 & echo $! >> born; (setsid sleep 600 & echo $! >> born); \
                   echo a-token-of-a-command";
    let binding = format!("[credential]\nplace = \"query\"\ncommand = \"{command}\"\n");
    fs::write(marked.path().join("relapse.toml"), binding).unwrap();
    let child = marked.command(&["validate", "--target", "http://127.0.0.1:1"]).spawn().unwrap();
    let (status, output, errors) = end(child);
    assert_eq!(status.code(), Some(1), "{output}{errors}");
    assert_eq!(fs::read_to_string(marked.path().join("born")).unwrap().lines().count(), 3);
    marked.assert_nothing_lives_on();
}

/// A command whose guard was killed before the command looked for it ends at once; before, it made a guard of its own and did
/// all its work. One that only inherits the variable of a command that still runs does its work.
#[rstest]
#[case::killed(false, 143)]
#[case::another_runs(true, 1)]
#[cfg(target_os = "linux")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_command_does_not_outlive_its_guard(#[case] does_run: bool, #[case] code: i32) {
    let marked = Marked::new("def act():\n    raise ValueError\n");
    let mut other = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    if !does_run {
        other.kill().unwrap();
        other.wait().unwrap();
    }
    let guard = other.id().to_string();
    let child = marked.on_app("hunt", &["--cases", "20"]).env("RELAPSE_GUARD", guard).spawn().unwrap();
    let (status, output, errors) = end(child);
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(status.code(), Some(code), "{output}{errors}");
    marked.assert_nothing_lives_on();
}

/// Signals at any moment: the command ends with one of its codes, and nothing lives on.
#[rstest]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn signals_at_any_moment_leave_nothing(
    #[values("run", "hunt", "validate")] verb: &str,
    #[values(Signal::TERM, Signal::INT, Signal::HUP, Signal::KILL)] signal: Signal,
) {
    let mut chance = fastrand::Rng::with_seed(signal.as_raw().unsigned_abs().into());
    for _ in 0..super::signals(2) {
        let marked = Marked::new("def act():\n    fork_twice()\n    raise ValueError\n");
        fs::write(marked.path().join("case.toml"), CASE).unwrap();
        let more: &[&str] = match verb {
            "run" => &["case.toml", "--repeat", "50"],
            "hunt" => &["--cases", "200"],
            _ => &[],
        };
        let child = marked.on_app(verb, more).spawn().unwrap();
        let guard = Pid::from_child(&child);
        // Its end, or this moment.
        if !wait_for_end(guard, Duration::from_millis(chance.u64(0..700))) {
            kill_process(guard, signal).unwrap();
        }
        let (status, output, errors) = end(child);
        let number = signal.as_raw();
        let codes = [0, 1, 128 + number, 130];
        let is_known = status.code().is_some_and(|code| codes.contains(&code)) || status.signal() == Some(number);
        assert!(is_known, "{status}: {output}{errors}");
        marked.assert_nothing_lives_on();
    }
}

/// A case that the app of the signals fails.
const CASE: &str = "summary = \"It answers.\"\n[[step]]\nrequest = \"GET /x\"\n[expect]\naccept = [\"http 200\"]\n";

/// A terminal that stops what prints from another group than the one in front of it (`stty tostop`). The command has a group of
/// its own, behind its guard.
const TERMINAL: &str = r#"
import os, pty, sys, termios
child, terminal = pty.fork()
if child == 0:
    modes = termios.tcgetattr(0)
    modes[3] |= termios.TOSTOP
    termios.tcsetattr(0, termios.TCSANOW, modes)
    os.execvp(sys.argv[1], sys.argv[1:])
said = b""
while True:
    try:
        more = os.read(terminal, 4096)
    except OSError:
        break
    if not more:
        break
    said += more
sys.stdout.buffer.write(said)
sys.stdout.flush()
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_terminal_does_not_stop_the_command() {
    let marked = Marked::new("");
    let mut command = Command::new(crate::python::python());
    command.args(["-c", TERMINAL, env!("CARGO_BIN_EXE_relapse"), "validate", "--target", "http://127.0.0.1:1"]);
    command.current_dir(marked.path()).env(MARK, &marked.mark).process_group(0);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (status, output, errors) = end(child);
    assert_eq!(status.code(), Some(1), "{output}{errors}");
    assert!(output.contains("FAILS  GET /health"), "{output}{errors}");
    marked.assert_nothing_lives_on();
}
