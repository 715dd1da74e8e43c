//! The services that a hunt can run on.

use std::fmt;
use std::sync::Arc;

use super::{ExternalTarget, GeneratedCase};
use crate::{
    case::{Known, Vocabulary},
    defects::Defects,
    trial::Trial,
};
use relapse_core::{
    error::Error,
    fault::FaultNames,
    judge::verdict::RunResult,
    record::{redact::Redactor, transcript::Transcript},
};
use relapse_simulate::{memory::RunMemory, profile::Profile};

/// A service that is a part of the harness, which can launch any version of it.
pub trait BuiltIn: fmt::Debug + Send + Sync {
    /// A runner for one worker, with a clock of its own, whose runs have this memory.
    fn runner(&self, memory: RunMemory) -> Box<dyn Runner>;

    /// The names that its cases may use: its defects, dependencies, variables and modules.
    fn known(&self) -> Known<'static>;

    /// The names that drawn faults act on.
    fn fault_names(&self) -> FaultNames<'static>;
}

/// Runs drawn cases on a built-in service, one at a time.
pub trait Runner {
    /// Runs a drawn case on the version with these defects behind a server with this profile, and gives all its events.
    ///
    /// # Errors
    /// When the harness could not do its work, and [`Error::TargetPanicked`] when the service panicked.
    fn play(
        &self,
        defects: &Defects,
        drawn: &GeneratedCase,
        profile: &Arc<Profile>,
        seed: u64,
    ) -> Result<Transcript, Error>;

    /// Runs a case with its healthy client on the version with these defects, and judges.
    ///
    /// # Errors
    /// As [`Runner::play`].
    fn run(&self, trial: &Trial, defects: &Defects, seed: u64) -> Result<RunResult, Error>;
}

/// The service that a hunt runs on.
#[derive(Debug, Clone)]
pub enum Ground {
    /// A built-in service with these defects.
    BuiltIn(Arc<dyn BuiltIn>, Defects),
    /// A target of the user's own.
    External(Arc<ExternalTarget>),
}

impl Ground {
    /// The target of the user's own.
    pub fn external(&self) -> Option<&Arc<ExternalTarget>> {
        match self {
            Ground::BuiltIn(..) => None,
            Ground::External(foreign) => Some(foreign),
        }
    }

    /// The defects of the version that is hunted on. A target of the user's own names none.
    pub fn defects(&self) -> &Defects {
        static NONE: Defects = Defects::NONE;
        match self {
            Ground::BuiltIn(_, defects) => defects,
            Ground::External(_) => &NONE,
        }
    }

    /// The names that its cases may use.
    pub fn known(&self) -> Known<'static> {
        match self {
            Ground::BuiltIn(service, _) => service.known(),
            Ground::External(_) => Known::NOTHING,
        }
    }

    /// Replaces the secrets of a target of the user's own.
    pub(super) fn redactor(&self) -> Redactor {
        match self {
            Ground::BuiltIn(..) => Redactor::NONE,
            Ground::External(foreign) => foreign.redactor(),
        }
    }

    /// The words of its cases.
    pub(super) fn vocabulary(&self) -> Vocabulary {
        match self {
            Ground::External(foreign) if foreign.is_by_route() => Vocabulary::Own,
            Ground::External(_) | Ground::BuiltIn(..) => Vocabulary::Backend,
        }
    }

    /// The names that drawn faults act on.
    pub fn fault_names(&self) -> FaultNames<'static> {
        match self {
            Ground::BuiltIn(service, _) => service.fault_names(),
            Ground::External(_) => FaultNames::NOTHING,
        }
    }
}
