//! The signals that a case may send to a server that the harness starts.

use std::fmt;
use std::str::FromStr;

use crate::error::nearest;

/// A signal of signal(7). Those that say something about the program itself, such as SIGSEGV, are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// SIGHUP: granian starts its workers anew.
    Hup,
    /// SIGINT: what Ctrl-C sends.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGTERM: what orchestrators send first.
    Term,
    /// SIGKILL: what orchestrators send last. No process can handle it.
    Kill,
    /// SIGSTOP: the process is frozen until SIGCONT. No process can handle it.
    Stop,
    /// SIGCONT.
    Cont,
    /// SIGTTIN: gunicorn starts a worker more.
    Ttin,
    /// SIGTTOU: gunicorn has a worker less.
    Ttou,
    /// SIGWINCH: gunicorn lets its workers end.
    Winch,
}

impl Signal {
    /// All of them.
    pub const ALL: [Signal; 12] = [
        Signal::Hup,
        Signal::Int,
        Signal::Quit,
        Signal::Usr1,
        Signal::Usr2,
        Signal::Term,
        Signal::Kill,
        Signal::Stop,
        Signal::Cont,
        Signal::Ttin,
        Signal::Ttou,
        Signal::Winch,
    ];

    /// Its name, as signal(7) has it.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Hup => "SIGHUP",
            Signal::Int => "SIGINT",
            Signal::Quit => "SIGQUIT",
            Signal::Usr1 => "SIGUSR1",
            Signal::Usr2 => "SIGUSR2",
            Signal::Term => "SIGTERM",
            Signal::Kill => "SIGKILL",
            Signal::Stop => "SIGSTOP",
            Signal::Cont => "SIGCONT",
            Signal::Ttin => "SIGTTIN",
            Signal::Ttou => "SIGTTOU",
            Signal::Winch => "SIGWINCH",
        }
    }

    /// Whether every server takes it as the order to end.
    pub fn ends_servers(self) -> bool {
        match self {
            Signal::Int | Signal::Quit | Signal::Term | Signal::Kill => true,
            Signal::Hup
            | Signal::Usr1
            | Signal::Usr2
            | Signal::Stop
            | Signal::Cont
            | Signal::Ttin
            | Signal::Ttou
            | Signal::Winch => false,
        }
    }

    /// Its number on this system.
    pub fn number(self) -> i32 {
        match self {
            Signal::Hup => libc::SIGHUP,
            Signal::Int => libc::SIGINT,
            Signal::Quit => libc::SIGQUIT,
            Signal::Usr1 => libc::SIGUSR1,
            Signal::Usr2 => libc::SIGUSR2,
            Signal::Term => libc::SIGTERM,
            Signal::Kill => libc::SIGKILL,
            Signal::Stop => libc::SIGSTOP,
            Signal::Cont => libc::SIGCONT,
            Signal::Ttin => libc::SIGTTIN,
            Signal::Ttou => libc::SIGTTOU,
            Signal::Winch => libc::SIGWINCH,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Signal {
    type Err = String;

    /// Reads a name of signal(7); the error is the help for another one.
    fn from_str(text: &str) -> Result<Signal, String> {
        if let Some(signal) = Signal::ALL.into_iter().find(|signal| signal.name() == text) {
            return Ok(signal);
        }
        // All names begin alike, which makes none of them nearer.
        let own = text.to_uppercase();
        let own = own.trim_start_matches("SIG");
        let names = Signal::ALL.map(Signal::name);
        Err(match nearest(own, names.map(|name| name.trim_start_matches("SIG"))) {
            Some(nearest) => format!("did you mean `SIG{nearest}`?"),
            None => format!("known are {}", names.join(", ")),
        })
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this exit status.
    Status(i32),
    /// By a signal, by its number.
    Signal(i32),
}

impl Exit {
    /// The end of a process that the system tells of.
    pub fn of(status: std::process::ExitStatus) -> Exit {
        use std::os::unix::process::ExitStatusExt;
        match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Status(code),
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Status(code) => write!(f, "exit status {code}"),
            Exit::Signal(number) => match Signal::ALL.into_iter().find(|signal| signal.number() == *number) {
                Some(signal) => write!(f, "ended by {signal}"),
                None => write!(f, "ended by signal {number}"),
            },
        }
    }
}

/// The end of a process that a step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitExpectation {
    /// Any end.
    Any,
    /// An end with this exit status.
    Status(i32),
    /// An end by this signal.
    Signal(Signal),
}

impl ExitExpectation {
    /// Whether an end is the expected one.
    pub fn fits(self, exit: Exit) -> bool {
        match (self, exit) {
            (ExitExpectation::Any, _) => true,
            (ExitExpectation::Status(expected), Exit::Status(code)) => expected == code,
            (ExitExpectation::Signal(expected), Exit::Signal(number)) => expected.number() == number,
            (ExitExpectation::Status(_), Exit::Signal(_)) | (ExitExpectation::Signal(_), Exit::Status(_)) => false,
        }
    }
}

impl fmt::Display for ExitExpectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitExpectation::Any => f.write_str("the end of the server"),
            ExitExpectation::Status(code) => write!(f, "the end of the server with exit status {code}"),
            ExitExpectation::Signal(signal) => write!(f, "the end of the server by {signal}"),
        }
    }
}
