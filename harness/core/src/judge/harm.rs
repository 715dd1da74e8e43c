//! How much a finding harms, by which reports order findings.

use serde::{Deserialize, Serialize};

/// The harm that a broken rule does; the worst comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Harm {
    /// A client gets what belongs to another one, or a secret.
    WrongData,
    /// A client is let in, or gets more, without the right.
    Admitted,
    /// The service fails: an exception, a 500, a close with 1011.
    Crash,
    /// A client, or the call that serves it, waits and never goes on.
    Hang,
    /// The service keeps something of each client that is gone.
    Leak,
    /// A connection, an answer or a part of it is lost.
    Drop,
    /// The client is told something else than what is true.
    Disguised,
    /// Only logs, or another server, show it.
    Noise,
}

impl Harm {
    /// Every harm, the worst first.
    pub const ALL: [Harm; 8] = [
        Harm::WrongData,
        Harm::Admitted,
        Harm::Crash,
        Harm::Hang,
        Harm::Leak,
        Harm::Drop,
        Harm::Disguised,
        Harm::Noise,
    ];

    /// Whether it reaches further than the client whose request fails, so that no exception in the same exchange stands for it.
    pub fn is_worse_than_a_failure(self) -> bool {
        match self {
            Harm::WrongData | Harm::Admitted | Harm::Leak => true,
            Harm::Crash | Harm::Hang | Harm::Drop | Harm::Disguised | Harm::Noise => false,
        }
    }
}
