//! Classifies exchanges: how each one ended, what caused that, which class it is, and which side ended it.
//!
//! Each question has a file of its own, and each answer is a pure function of one [`Exchange`]:
//!
//! | file | question |
//! |---|---|
//! | `ending.rs` | How did the exchange end for its client? |
//! | `cause.rs` | What caused that? |
//! | `class.rs` | Did the service behave, and if not, in which way did it fail? |
//! | `closer.rs` | Which side ended it? |
//! | `injected.rs` | Does an injected fault explain it? |
//!
//! `reading.rs`, `request.rs`, `session.rs` and `awaited.rs` hold what these answers rest on: the exchange, its request, the
//! talk in its session, and what its client waited for in vain. The facts come from a [`Timeline`](crate::record::timeline::Timeline), which looks at a transcript once.

mod awaited;
mod cause;
mod class;
mod closer;
mod ending;
mod injected;
mod reading;
mod request;
mod session;

use std::time::Duration;

pub use awaited::LateBody;
pub use reading::{Exchange, readings};
pub use session::{LARGE_BYTES, LARGE_PATIENCE};

use crate::judge::{
    cause::Cause,
    outcome::{Class, Outcome},
};

/// How long a client may be kept waiting while something is slow, before that is a hang whatever the client does.
const PATIENCE: Duration = Duration::from_secs(5);

/// The outcome of a whole run: of its first bad exchange, or of its last.
pub fn worst(outcomes: &[Outcome]) -> Option<&Outcome> {
    outcomes.iter().find(|outcome| !outcome.class.is_good()).or(outcomes.last())
}

impl<'a> Exchange<'a> {
    /// How the exchange ended and what that means.
    pub fn outcome(&self) -> Outcome {
        let ending = self.ending();
        let cause = self.cause(&ending);
        let class = self.class(&ending, cause);
        let closed_by = self.closed_by(&ending, cause);
        if cause == Cause::Shutdown && !class.is_good() && class != Class::WronglyAdmitted {
            return Outcome { class: Class::CutByFault, cause, closed_by, ending };
        }
        if !class.is_good() && class != Class::WronglyAdmitted && self.is_broken_by_fault(&ending, cause) {
            return Outcome { class: Class::CutByFault, cause: Cause::Injected, closed_by, ending };
        }
        Outcome { class, cause, closed_by, ending }
    }
}
