//! The place of a backend that is not there: it knows no names, and every run on it is an error.

use crate::error::CommandResult;
use clap::Args;
use relapse_core::error::Error;

/// Any arguments of `serve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    anything: Vec<String>,
}

/// Refuses: there is nothing to serve.
pub(crate) fn serve(_: &ServeArgs) -> CommandResult {
    Err(Error::NoBackend.into())
}

pub(crate) mod defect {
    //! No defects.

    /// A defect of an absent backend: there is none.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Defect {}

    impl Defect {
        /// Every defect.
        pub(crate) const ALL: &[Defect] = &[];

        /// The defect's name.
        pub(crate) fn name(self) -> &'static str {
            match self {}
        }
    }
}

pub(crate) mod revision {
    //! No versions.

    use super::defect::Defect;

    /// The only version, which has no defects.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Revision;

    impl Revision {
        /// The version with these defects.
        pub(crate) fn of(_: impl IntoIterator<Item = Defect>) -> Revision {
            Revision
        }

        /// The version with one defect.
        pub(crate) fn only(defect: Defect) -> Revision {
            match defect {}
        }
    }
}

pub(crate) mod runner {
    //! No runs.

    use std::sync::Arc;

    use relapse::{
        Error, Profile, Transcript, Trial, TrialResult,
        case::Known,
        deadline::Deadline,
        defects::Defects,
        hunt::{BuiltIn, GeneratedCase, Ground, Runner},
    };
    use relapse_core::{
        conformance::{Conformance, FrameCase},
        fault::FaultNames,
        judge::verdict::{Reason, RunResult},
    };
    use relapse_simulate::{clock::Clock, memory::RunMemory};

    use super::revision::Revision;

    /// The names that cases may use besides those of servers and checks.
    pub(crate) const KNOWN: Known<'static> = Known::NOTHING;

    /// Refuses every trial.
    #[derive(Debug, Default)]
    pub(crate) struct BackendRunner {
        _nothing: (),
    }

    impl BackendRunner {
        /// Gives the reason why a trial is not judged.
        pub(crate) fn judge(&self, _: &Trial, _: u64) -> TrialResult {
            TrialResult::inconclusive(Reason::Harness(format!("could not {}", Error::NoBackend)))
        }
    }

    /// Gives the reason why each trial is not judged.
    pub(crate) fn judge_all(
        trials: &[Trial],
        seed: u64,
        _: usize,
        _: Deadline,
        done: &(dyn Fn() + Sync),
    ) -> Vec<TrialResult> {
        trials
            .iter()
            .map(|trial| {
                done();
                BackendRunner::default().judge(trial, seed)
            })
            .collect()
    }

    /// Refuses every frame case.
    pub(crate) fn conform_embedded(
        _: &[Arc<FrameCase>],
        _: &Arc<Profile>,
        _: Clock,
        _: u64,
        _: Deadline,
        _: impl Fn(),
    ) -> Result<Conformance, Error> {
        Err(Error::NoBackend)
    }

    /// A service that cannot be launched.
    #[derive(Debug)]
    struct Absent;

    /// The ground of a hunt that ends with an error.
    pub(crate) fn ground(_: Revision) -> Ground {
        Ground::BuiltIn(Arc::new(Absent), Defects::NONE)
    }

    impl BuiltIn for Absent {
        fn runner(&self, _: RunMemory) -> Box<dyn Runner> {
            Box::new(Absent)
        }

        fn known(&self) -> Known<'static> {
            KNOWN
        }

        fn fault_names(&self) -> FaultNames<'static> {
            FaultNames::NOTHING
        }
    }

    impl Runner for Absent {
        fn play(&self, _: &Defects, _: &GeneratedCase, _: &Arc<Profile>, _: u64) -> Result<Transcript, Error> {
            Err(Error::NoBackend)
        }

        fn run(&self, _: &Trial, _: &Defects, _: u64) -> Result<RunResult, Error> {
            Err(Error::NoBackend)
        }
    }
}
