//! The user's Python ASGI application behind a front, in memory and under the virtual clock.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::process::{Interpreter, Introduction, LifespanMode, PythonApplication, Site, keep_time};
use relapse::targets::connections::Connections;
use relapse::{
    note::Note,
    service_file::{ServiceFile, Tokens},
    target::{Capabilities, LeftBehind, ProcessControl, Renewal, Target},
};
use relapse_core::{
    client::credential::{Credential, Form, Presented},
    error::{AppError, Blame, Error},
    fault::Place,
    judge::lifespan,
    plan::Plan,
    record::{
        code::Blocks,
        service::{Service, TargetKind},
        transcript::{EventKind, Leftovers, Level, PROCESS, Transcript},
    },
};
use relapse_simulate::{
    application::BoxFuture,
    clock::Clock,
    edge::{self, ServerLink},
    link::Link,
    memory::RunMemory,
    profile::Profile,
    recorder::{ExchangeRecorder, Recorder},
    server::{self, Life},
};

/// How long an application may take to start, on its own clock.
const START_LIMIT: Duration = Duration::from_secs(600);

/// A Python application, running. Its interpreter lives on from case to case, as a server's process does; one that died
/// is followed by another.
#[derive(Debug)]
pub struct Python {
    site: Site,
    profile: Arc<Profile>,
    service: Service,
    tokens: Tokens,
    seed: u64,
    /// `None` if the next case has a process of its own.
    process: Mutex<Option<AppProcess>>,
    /// The errors in the shutdowns of processes.
    complaints: Mutex<BTreeSet<String>>,
    /// The notes about processes that are gone.
    noticed: Mutex<Vec<Note>>,
    /// The tasks that live as long as the process.
    background: Connections,
    connections: Arc<Connections>,
}

#[derive(Debug)]
struct AppProcess {
    interpreter: Arc<Interpreter>,
    /// `None` if the server has no lifespan.
    lifespan: Option<AppLifespan>,
}

/// The lifespan of an application.
#[derive(Debug)]
struct AppLifespan {
    /// Tells it to stop; dropping it tells nothing.
    stop: oneshot::Sender<()>,
    life: watch::Receiver<Life>,
    recorder: Recorder,
}

impl AppProcess {
    /// Tells the application to stop, and waits until it has, which has a limit; what was wrong with that, if anything.
    async fn shut_down(self) -> Option<String> {
        // A process that died earlier is already reported.
        let AppLifespan { stop, mut life, recorder } =
            self.lifespan.filter(|_| self.interpreter.trouble().is_none())?;
        let _ = stop.send(());
        let _ = life.wait_for(|life| *life == Life::Exited).await;
        lifespan::complaint(recorder.transcript().events.iter().map(|event| &event.what))
    }
}

impl Python {
    /// Loads an application and lets it start, behind a server with this profile.
    ///
    /// # Errors
    /// Says why it cannot be loaded or does not start, and what to do.
    pub async fn launch(
        site: Site,
        binding: &ServiceFile,
        valid: String,
        profile: Arc<Profile>,
        seed: u64,
    ) -> Result<(Python, Introduction), AppError> {
        let background = Connections::default();
        let (process, introduction) = start(&site, &profile, seed, &background, &RunMemory::default()).await?;
        let service = Service { kind: TargetKind::Python, ..binding.service() };
        let tokens = Tokens::of(binding, valid);
        let (process, connections) = (Mutex::new(Some(process)), Arc::new(Connections::default()));
        let (complaints, noticed) = (Mutex::default(), Mutex::default());
        let python =
            Python { site, profile, service, tokens, seed, process, complaints, noticed, background, connections };
        Ok((python, introduction))
    }

    async fn end_process(&self) -> Result<(), Error> {
        if let Some(process) = self.take_process() {
            let complaint = process.shut_down().await;
            self.complaints.lock().unwrap_or_else(PoisonError::into_inner).extend(complaint);
        }
        self.background.end().await
    }

    /// Takes the process away; what was noticed of it stays.
    fn take_process(&self) -> Option<AppProcess> {
        let process = self.process().take()?;
        let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        *noticed = Note::merge(noticed.drain(..).chain(process.interpreter.notes()));
        drop(noticed);
        Some(process)
    }

    fn process(&self) -> MutexGuard<'_, Option<AppProcess>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The interpreter that connections of a run with this memory reach: another one where the last died.
    async fn interpreter(&self, memory: &RunMemory) -> Result<Arc<Interpreter>, AppError> {
        if let Some(process) = self.process().as_ref().filter(|process| process.interpreter.trouble().is_none()) {
            process.interpreter.work_within(memory);
            return Ok(Arc::clone(&process.interpreter));
        }
        drop(self.take_process());
        let (process, _) = start(&self.site, &self.profile, self.seed, &self.background, memory).await?;
        let interpreter = Arc::clone(&process.interpreter);
        *self.process() = Some(process);
        Ok(interpreter)
    }
}

/// Starts an interpreter, and the application in it.
async fn start(
    site: &Site,
    profile: &Arc<Profile>,
    seed: u64,
    background: &Connections,
    memory: &RunMemory,
) -> Result<(AppProcess, Introduction), AppError> {
    let (interpreter, introduction) = Interpreter::start(site, seed, memory.clone())?;
    let interpreter = Arc::new(interpreter);
    if site.clock == Clock::Virtual {
        background.spawn(keep_time(Arc::clone(&interpreter)));
    }
    if !profile.lifespan.supported || site.lifespan == LifespanMode::Off {
        return Ok((AppProcess { interpreter, lifespan: None }, introduction));
    }
    let recorder = Recorder::within(Plan { seed, faults: Vec::new() }, memory.clone());
    let (life, watched) = watch::channel(Life::Starting);
    let (stop, stopped) = oneshot::channel();
    let application = PythonApplication::new(Arc::clone(&interpreter));
    background.spawn(server::live(application, Arc::clone(profile), recorder.scribe(PROCESS), life, stopped));
    let mut lifespan = AppLifespan { stop, life: watched, recorder };
    let began = async { lifespan.life.wait_for(|life| *life != Life::Starting).await.map(|life| *life) };
    let limit = if site.clock == Clock::Real { site.deadline.cap(START_LIMIT) } else { START_LIMIT };
    let is_up = matches!(timeout(limit, began).await, Ok(Ok(Life::Listening)));
    if is_up && interpreter.trouble().is_none() {
        return Ok((AppProcess { interpreter, lifespan: Some(lifespan) }, introduction));
    }
    let why = interpreter.trouble();
    Err(why.unwrap_or_else(|| why_not(&lifespan.recorder.transcript(), limit, &site.directory)))
}

/// Why an application did not start, by what it said.
fn why_not(transcript: &Transcript, limit: Duration, directory: &Path) -> AppError {
    let exited = transcript.events.iter().rev().find_map(|event| match &event.what {
        EventKind::Exited { why } => Some(why.clone()),
        _ => None,
    });
    let logged = transcript.events.iter().filter_map(|event| match &event.what {
        EventKind::Logged { level: Level::Error | Level::Info, message, .. } => Some(message.as_str()),
        _ => None,
    });
    let why = exited.unwrap_or_else(|| {
        format!("the application did not start within {} s", (limit.as_secs_f64() * 10.0).round() / 10.0)
    });
    AppError::of_start(why, logged.collect::<Vec<_>>().join("\n"), Blame::App, directory)
}

impl Target for Python {
    fn kind(&self) -> TargetKind {
        TargetKind::Python
    }

    fn capabilities(&self) -> Capabilities {
        let places = &[Place::Edge, Place::Scope, Place::Event];
        Capabilities { places, clock: self.site.clock, renewal: Renewal::Cheap, process: ProcessControl::None }
    }

    /// Ends the connections that are still served, and the interpreter where each case has one of its own.
    fn clear(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            self.connections.end().await?;
            if self.site.fresh {
                self.end_process().await?;
            }
            Ok(())
        })
    }

    /// Ends the interpreter without a word.
    fn renew(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            self.connections.end().await?;
            drop(self.take_process());
            self.background.end().await
        })
    }

    /// Gives what went wrong at the ends of earlier processes too.
    fn shut_down(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        Box::pin(async {
            self.connections.end().await?;
            self.end_process().await?;
            let complaints = std::mem::take(&mut *self.complaints.lock().unwrap_or_else(PoisonError::into_inner));
            Ok(complaints.into_iter().collect())
        })
    }

    fn notes(&self) -> Vec<Note> {
        let mut notes = self.noticed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        notes.extend(self.process().iter().flat_map(|process| process.interpreter.notes()));
        Note::merge(notes)
    }

    fn blocks(&self) -> Blocks {
        self.process().iter().flat_map(|process| process.interpreter.blocks()).collect()
    }

    fn connect(&self, scribe: ExchangeRecorder) -> BoxFuture<'_, Result<Option<Link>, Error>> {
        Box::pin(async move {
            let interpreter = self.interpreter(scribe.memory()).await?;
            interpreter.sow(scribe.plan().seed, scribe.connection());
            let application = PythonApplication::new(interpreter);
            let (client, mut server) = Link::pair();
            if scribe.has_faults_at(Place::Edge) {
                let (inner, behind) = Link::pair();
                let again = edge::asks_again(&scribe)
                    .then(|| self.connections.redial(Arc::clone(&application) as _, &self.profile, &scribe));
                let way = ServerLink { link: Some(inner), again };
                let relay = edge::relay(server, way, scribe.clone(), None);
                self.connections.spawn(async move {
                    relay.await;
                });
                server = behind;
            }
            self.connections.serve(application, server, Arc::clone(&self.profile), scribe, None);
            Ok(Some(client))
        })
    }

    fn credential(&self, kind: Credential, user: &str, _form: Form) -> Presented {
        self.tokens.present(kind, user)
    }

    fn service(&self) -> Service {
        self.service.clone()
    }

    fn residue(&self) -> Option<Leftovers> {
        Some(Leftovers { connections: *self.connections.served().borrow(), sessions: 0 })
    }

    fn left_behind(&self, run: &Recorder, is_last: bool) -> LeftBehind {
        let interpreter = self.process().as_ref().map(|process| Arc::clone(&process.interpreter));
        interpreter.map(|interpreter| interpreter.left_behind(run, is_last)).unwrap_or_default()
    }

    fn await_aftermath<'a>(&'a self, run: &'a Recorder) -> BoxFuture<'a, ()> {
        let interpreter = self.process().as_ref().map(|process| Arc::clone(&process.interpreter));
        Box::pin(async move {
            if let Some(interpreter) = interpreter {
                interpreter.await_aftermath(run).await;
            }
        })
    }

    fn record_unretrieved(&self, run: &Recorder) {
        if let Some(process) = self.process().as_ref() {
            process.interpreter.record_unretrieved(run);
        }
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            self.shut_down().await?;
            Ok(())
        })
    }
}
