//! What is said about a case, and on which grounds.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{outcome::Outcome, transcript::Transcript};

/// What two runs of one case, on the defective and on the repaired twin, tell. Only [`Verdict::Fixed`] passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Reproduced on the defective twin for the stated reason; accepted on the repaired one, and a valid client gets
    /// through.
    Fixed,
    /// Reproduced, but the repaired twin is not accepted either.
    StillBroken,
    /// The defective twin does not show the symptom.
    CannotReproduce,
    /// The run proves nothing, because a fault never acted.
    Vacuous,
    /// The harness could not do its work.
    Inconclusive,
}

impl Verdict {
    /// Every verdict, best first.
    pub const ALL: [Verdict; 5] =
        [Verdict::Fixed, Verdict::StillBroken, Verdict::CannotReproduce, Verdict::Vacuous, Verdict::Inconclusive];

    /// The verdict's name, as the JSON document writes it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Fixed => "fixed",
            Verdict::StillBroken => "still-broken",
            Verdict::CannotReproduce => "cannot-reproduce",
            Verdict::Vacuous => "vacuous",
            Verdict::Inconclusive => "inconclusive",
        }
    }

    /// The verdict as a table shows it.
    pub fn label(self) -> &'static str {
        match self {
            Verdict::Fixed => "FIXED",
            Verdict::StillBroken => "STILL BROKEN",
            Verdict::CannotReproduce => "CANNOT REPRODUCE",
            Verdict::Vacuous => "VACUOUS",
            Verdict::Inconclusive => "INCONCLUSIVE",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// One complaint of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check that complains.
    pub check: &'static str,
    /// What tells this complaint from others of the same check, stable from run to run.
    pub key: String,
    /// The complaint, with its evidence.
    pub message: String,
}

/// One run of one case on one twin, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// How the case ended: its first bad exchange, or its last.
    pub outcome: Outcome,
    /// How each of its exchanges ended.
    pub outcomes: Vec<Outcome>,
    /// The checks' complaints about it.
    pub findings: Vec<Finding>,
    /// Everything that happened.
    pub transcript: Transcript,
    /// How the valid client fared on the same twin: the worst of its attempts before, during and after.
    pub control: Outcome,
}

/// One case, on both twins, under one server profile and in one environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Why it is not FIXED; empty when it is.
    pub why: String,
    /// The defective twin; `None` when the harness could not run it.
    pub before: Option<Judged>,
    /// The repaired twin; `None` when the harness could not run it.
    pub after: Option<Judged>,
    /// What each claimed repair shows in place of the real one, in the order in which the case names them.
    pub shams: Vec<(Verdict, Judged)>,
}
