//! The exit codes of the command: the one table that help and README show.

use std::fmt::Write as _;
use std::process::ExitCode;

use relapse_core::judge::verdict::Conclusion;

/// An exit code, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommandExit {
    /// Everything passes.
    Passes,
    /// Something is found.
    Finding,
    /// There is no result: the harness could not do its work, or was misused. clap exits with the same.
    NoResult,
    /// SIGHUP ended the work.
    HungUp,
    /// SIGINT ended the work, as Ctrl-C does.
    Interrupted,
    /// SIGTERM ended the work.
    Terminated,
}

impl CommandExit {
    /// All of them.
    pub const ALL: [CommandExit; 6] = [
        CommandExit::Passes,
        CommandExit::Finding,
        CommandExit::NoResult,
        CommandExit::HungUp,
        CommandExit::Interrupted,
        CommandExit::Terminated,
    ];

    /// The number that the process exits with.
    pub const fn number(self) -> u8 {
        match self {
            CommandExit::Passes => 0,
            CommandExit::Finding => 1,
            CommandExit::NoResult => 2,
            CommandExit::HungUp => 129,
            CommandExit::Interrupted => 130,
            CommandExit::Terminated => 143,
        }
    }

    /// The results that have this exit code, as help and README say it.
    pub const fn meaning(self) -> &'static str {
        match self {
            CommandExit::Passes => {
                "every case is FIXED, or PASSED where there is one version only, or everything else is as it has to be; a case that a target of yours cannot perform is left out"
            }
            CommandExit::Finding => {
                "a finding: STILL BROKEN, FAILED, NOT REPRODUCED or NOT EXERCISED, something that a hunt found and no baseline has, a check of `validate` that fails, a rule of RFC 6455 that is not kept, a difference from a profile; or `init` opened no session"
            }
            CommandExit::NoResult => {
                "a case is INCONCLUSIVE, or a case file cannot be read, also where others pass; the harness could not do its work, or was misused; selecting nothing is misuse; a hunt reached nothing, or found nothing and could not do all its cases"
            }
            CommandExit::HungUp => {
                "SIGHUP ended the work, as when a terminal closes; the results so far are reported if they can still be written"
            }
            CommandExit::Interrupted => {
                "SIGINT ended the work, as Ctrl-C does; the results so far are reported; after a second signal, or 5 s, it ends at once"
            }
            CommandExit::Terminated => "SIGTERM ended the work; the results so far are reported",
        }
    }

    /// The table, as help shows it.
    pub fn help() -> String {
        let mut text = "Exit codes:\n".to_owned();
        for exit in CommandExit::ALL {
            let _ = writeln!(text, "  {:>3}  {}", exit.number(), exit.meaning());
        }
        text
    }
}

impl From<Conclusion> for CommandExit {
    fn from(conclusion: Conclusion) -> CommandExit {
        match conclusion {
            Conclusion::Passes => CommandExit::Passes,
            Conclusion::Finding => CommandExit::Finding,
            Conclusion::Nothing => CommandExit::NoResult,
        }
    }
}

impl From<CommandExit> for ExitCode {
    fn from(exit: CommandExit) -> ExitCode {
        ExitCode::from(exit.number())
    }
}
