//! The exit codes of the command: the one table that help and README show.

use std::fmt::Write as _;
use std::process::ExitCode;

use relapse_core::judge::verdict::Conclusion;

/// An exit code, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Everything passes.
    Passes,
    /// Something is found.
    Finding,
    /// There is no result: the harness could not do its work, or was misused. clap exits with the same.
    NoResult,
    /// Ctrl-C ended the work.
    Interrupted,
}

impl Exit {
    /// All of them.
    pub const ALL: [Exit; 4] = [Exit::Passes, Exit::Finding, Exit::NoResult, Exit::Interrupted];

    /// The number that the process exits with.
    pub const fn number(self) -> u8 {
        match self {
            Exit::Passes => 0,
            Exit::Finding => 1,
            Exit::NoResult => 2,
            Exit::Interrupted => 130,
        }
    }

    /// The results that have this exit code, as help and README say it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Passes => {
                "every case is FIXED, or PASSED where there is one version only, or everything else is as it has to be; a case that a target of yours cannot perform is left out"
            }
            Exit::Finding => {
                "a finding: STILL BROKEN, FAILED, NOT REPRODUCED or NOT EXERCISED, something that a hunt found, a check of `validate` that fails, a rule of RFC 6455 that is not kept, a difference from a profile; or `init` opened no session"
            }
            Exit::NoResult => {
                "a case is INCONCLUSIVE, or a case file cannot be read, also where others pass; the harness could not do its work, or was misused; selecting nothing is misuse; a hunt reached nothing, or found nothing and could not do all its cases"
            }
            Exit::Interrupted => "Ctrl-C ended the work before it had a result",
        }
    }

    /// The table, as help shows it.
    pub fn help() -> String {
        let mut text = "Exit codes:\n".to_owned();
        for exit in Exit::ALL {
            let _ = writeln!(text, "  {:>3}  {}", exit.number(), exit.meaning());
        }
        text
    }
}

impl From<Conclusion> for Exit {
    fn from(conclusion: Conclusion) -> Exit {
        match conclusion {
            Conclusion::Passes => Exit::Passes,
            Conclusion::Finding => Exit::Finding,
            Conclusion::Nothing => Exit::NoResult,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.number())
    }
}
