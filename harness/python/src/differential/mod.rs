//! Holds a profile against its server: small programs run in memory behind the one and for real behind the other, and
//! must show the same.

mod client;
mod known;
mod program;

use std::path::Path;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tempfile::TempDir;

use self::client::Performance;
pub use self::{
    client::Observed,
    program::{
        Deed, ExceptionFate, GeneratedApp, Holder, Move, Offer, ProgramAction, ProgramConnection, ProgramRequest,
    },
};
use crate::{
    app::Python,
    process::{
        BLOCKED_LIMIT, CodeCoverage, Epoch, Installation, LifespanMode, MEMORY_LIMIT, START_LIMIT, Server,
        ServerChoice, ServerSoftware, Site,
    },
    served::Served,
};
use relapse::{deadline::Deadline, service_file::ServiceFile, target::Target as _};
use relapse_core::error::{AppError, Blame, Error};
use relapse_simulate::{
    clock::{Clock, Runtime},
    profile::{Profile, SequencePrograms, Situation},
};

/// The application that performs the programs.
const APPLICATION: &str = include_str!("../../../../fixtures/apps/programs.py");

/// How many programs a server performs at the same time, and how many of those that it did not live through, again.
const AT_ONCE: [usize; 3] = [48, 8, 1];

/// How long nothing may move before a wait is taken for one without end. Daphne looks once a second whether its
/// applications have failed.
fn patience(software: ServerSoftware) -> Duration {
    match software {
        ServerSoftware::Daphne => Duration::from_millis(2500),
        ServerSoftware::Uvicorn | ServerSoftware::Hypercorn | ServerSoftware::Granian => Duration::from_millis(600),
    }
}

/// The profile and the server that are compared, and the programs.
#[derive(Debug, Clone)]
pub struct DifferentialSetup {
    /// The server.
    pub server: ServerChoice,
    /// The profile that should do as it does.
    pub profile: Arc<Profile>,
    /// The seed of the first program; each further one has the next number.
    pub seed: u64,
    /// How many programs.
    pub programs: u64,
}

/// A program that shows something else in memory than for real.
#[derive(Debug, Clone)]
pub struct ProgramDifference {
    /// The program.
    pub program: GeneratedApp,
    /// The observations in memory.
    pub memory: Observed,
    /// The observations of the server.
    pub server: Observed,
}

/// The result of a comparison.
#[derive(Debug, Clone)]
pub struct Compared {
    /// The programs that differ.
    pub differences: Vec<ProgramDifference>,
    /// How many programs are in no situation that the profile records: all of them must show the same.
    pub strict: usize,
    known: Vec<Situation>,
}

impl Compared {
    /// The differences that the profile does not record.
    pub fn unrecorded(&self) -> impl Iterator<Item = &ProgramDifference> {
        self.differences.iter().filter(|difference| !known::is_in_any(&difference.program, &self.known))
    }

    /// The situations that the profile records and no program showed.
    pub fn unseen(&self) -> Vec<Situation> {
        let mut unseen = self.known.clone();
        unseen.retain(|situation| {
            !self.differences.iter().any(|difference| known::is_in(&difference.program, *situation))
        });
        unseen
    }
}

/// Performs programs on both sides; those that differ. `python` is an interpreter that has the server. `tell` is told
/// how far it is. This blocks.
///
/// # Errors
/// When one of the sides cannot be run.
pub fn compare(setup: &DifferentialSetup, python: &Path, tell: &(dyn Fn(&str) + Sync)) -> Result<Compared, Error> {
    let directory = lay_out().map_err(|error| AppError {
        message: format!("no temporary files can be written: {error}"),
        details: String::new(),
        blame: Blame::Setup,
    })?;
    let drawn = (0..).map(|number| GeneratedApp::draw(setup.seed.wrapping_add(number)));
    let count = usize::try_from(setup.programs).unwrap_or(usize::MAX);
    let programs: Vec<GeneratedApp> =
        drawn.filter(|program| known::is_performed(program, &setup.profile)).take(count).collect();
    let real = Site {
        app: "programs:app".to_owned(),
        factory: false,
        python: python.to_owned(),
        directory: directory.path().to_owned(),
        environment: vec![("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned())],
        blocked_limit: BLOCKED_LIMIT,
        clock: Clock::Real,
        fresh: false,
        memory_limit: MEMORY_LIMIT,
        start_limit: START_LIMIT,
        deadline: Deadline::NEVER,
        lifespan: LifespanMode::Auto,
        epoch: Epoch::Fixed,
        coverage: CodeCoverage::None,
    };
    let in_memory = Site { clock: Clock::Virtual, ..real.clone() };
    let served = Runtime::new(Clock::Real).block_on(serve(setup, real, &programs, tell))?;
    let memory = Runtime::new(Clock::Virtual).block_on(remember(setup, in_memory, &programs, tell))?;
    let performed = setup.profile.differences.iter().filter(|known| known.programs == SequencePrograms::Performed);
    let known: Vec<Situation> = performed.map(|known| known.situation).collect();
    let strict = programs.iter().filter(|program| !known::is_in_any(program, &known)).count();
    let pairs = programs.into_iter().zip(memory.into_iter().zip(served));
    let differs = pairs.filter(|(_, (memory, server))| memory != server);
    let differences =
        differs.map(|(program, (memory, server))| ProgramDifference { program, memory, server }).collect();
    Ok(Compared { differences, strict, known })
}

fn lay_out() -> std::io::Result<TempDir> {
    let directory = tempfile::Builder::new().prefix("relapse-programs-").tempdir()?;
    std::fs::write(directory.path().join("programs.py"), APPLICATION)?;
    Ok(directory)
}

/// Performs the programs in memory, behind the profile.
async fn remember(
    setup: &DifferentialSetup,
    site: Site,
    programs: &[GeneratedApp],
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Vec<Observed>, Error> {
    let profile = Arc::clone(&setup.profile);
    let (python, _) = Python::launch(site, &ServiceFile::default(), String::new(), profile, 1).await?;
    let patience = patience(setup.server.software);
    let mut seen = Vec::new();
    for (number, program) in (0..).zip(programs) {
        seen.push(client::perform(program, number, &python, patience, &|| {}).await?.observed);
        python.clear().await?;
        if seen.len() % PROGRESS == 0 {
            tell(&format!("{} of {} programs performed in memory", seen.len(), programs.len()));
        }
    }
    Ok(seen)
}

/// After how many programs the progress is told.
const PROGRESS: usize = 250;

/// Performs the programs behind the real server.
async fn serve(
    setup: &DifferentialSetup,
    site: Site,
    programs: &[GeneratedApp],
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Vec<Observed>, Error> {
    let installation = Installation { site, server: setup.server.clone(), flags: Vec::new(), start_limit: START_LIMIT };
    let served = Served::new(Server::run(installation).await?, &ServiceFile::default(), String::new());
    let patience = patience(setup.server.software);
    let catch_up = || {
        served.server().running();
    };
    let performed = AtomicU64::new(0);
    let mut seen: Vec<Option<Observed>> = vec![None; programs.len()];
    // A program during which the server ended shows nothing of its own, unless it ends the server each time.
    for at_once in AT_ONCE {
        let (served, performed, catch_up) = (&served, &performed, &catch_up);
        let left: Vec<(usize, &GeneratedApp)> = (0..).zip(programs).filter(|(at, _)| seen[*at].is_none()).collect();
        let performing = left.into_iter().map(|(at, program)| async move {
            // Each program has a number of its own, and so has each time it is performed.
            let number = performed.fetch_add(1, Ordering::Relaxed);
            let began = served.server().generation();
            let Performance { observed, is_reached } =
                client::perform(program, number, served, patience, catch_up).await?;
            let is_whole = is_reached && began.is_some() && began == served.server().generation();
            Ok::<_, Error>((at, observed, is_whole))
        });
        let mut performing = stream::iter(performing).buffered(at_once);
        while let Some((at, observed, is_whole)) = performing.try_next().await? {
            seen[at] = Some(observed).filter(|_| is_whole || at_once == 1);
            let done = seen.iter().flatten().count();
            if is_whole && done.is_multiple_of(PROGRESS) {
                tell(&format!("{done} of {} programs performed by {}", programs.len(), setup.server));
            }
        }
    }
    served.stop().await?;
    Ok(seen.into_iter().flatten().collect())
}
