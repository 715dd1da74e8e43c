//! Somebody's Python ASGI application behind a front, in memory and under the virtual clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::connections::Connections;
use crate::{
    application::Promise,
    binding::{Binding, Tokens},
    clock::Clock,
    credential::{Credential, Form, Presented},
    edge::{self, Way},
    error::{Error, Trouble},
    fault::Place,
    front::{self, Life},
    link::Link,
    plan::Plan,
    profile::Profile,
    python::{Interpreter, Introduction, PythonApplication, Site, keep_time},
    recorder::{Recorder, Scribe},
    running::Running,
    transcript::{Level, PROCESS, Residue, Service, Transcript, What},
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
    /// Nothing where the next case has one of its own.
    process: Mutex<Option<Arc<Process>>>,
    /// What lives as long as the process.
    background: Connections,
    connections: Arc<Connections>,
}

#[derive(Debug)]
struct Process {
    interpreter: Arc<Interpreter>,
    /// Tells it to stop; whoever drops it tells nothing.
    _stop: Option<oneshot::Sender<()>>,
}

impl Python {
    /// Loads an application and lets it start, behind a server with this profile.
    ///
    /// # Errors
    /// Says why it cannot be loaded or does not start, and what to do.
    pub async fn launch(
        site: Site,
        binding: &Binding,
        valid: String,
        profile: Arc<Profile>,
        seed: u64,
    ) -> Result<(Python, Introduction), Trouble> {
        let background = Connections::new();
        let (process, introduction) = start(&site, &profile, seed, &background).await?;
        let service = Service { is_opaque: false, ..binding.service() };
        let tokens = Tokens::of(binding, valid);
        let (process, connections) = (Mutex::new(Some(Arc::new(process))), Arc::new(Connections::new()));
        let python = Python { site, profile, service, tokens, seed, process, background, connections };
        Ok((python, introduction))
    }

    /// Ends the connections that are still served, and the interpreter where each case has one of its own.
    ///
    /// # Errors
    /// When something panicked.
    pub async fn clear(&self) -> Result<(), Error> {
        self.connections.end().await?;
        if self.site.fresh {
            *self.process() = None;
            self.background.end().await?;
        }
        Ok(())
    }

    /// The clock that the application's loop keeps.
    pub fn clock(&self) -> Clock {
        self.site.clock
    }

    /// What virtual time does not wait for, as far as it was noticed.
    pub fn notes(&self) -> Vec<String> {
        self.process().as_ref().map_or_else(Vec::new, |process| process.interpreter.notes())
    }

    fn process(&self) -> MutexGuard<'_, Option<Arc<Process>>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The interpreter that connections reach: another one where the last died.
    async fn interpreter(&self) -> Result<Arc<Interpreter>, Trouble> {
        if let Some(process) = self.process().as_ref().filter(|process| process.interpreter.trouble().is_none()) {
            return Ok(Arc::clone(&process.interpreter));
        }
        let (process, _) = start(&self.site, &self.profile, self.seed, &self.background).await?;
        let interpreter = Arc::clone(&process.interpreter);
        *self.process() = Some(Arc::new(process));
        Ok(interpreter)
    }
}

/// Starts an interpreter, and the application in it.
async fn start(
    site: &Site,
    profile: &Arc<Profile>,
    seed: u64,
    background: &Connections,
) -> Result<(Process, Introduction), Trouble> {
    let (interpreter, introduction) = Interpreter::start(site, seed)?;
    let interpreter = Arc::new(interpreter);
    if site.clock == Clock::Virtual {
        background.spawn(keep_time(Arc::clone(&interpreter)));
    }
    if !profile.lifespan.supported {
        return Ok((Process { interpreter, _stop: None }, introduction));
    }
    let recorder = Recorder::new(Plan { seed, faults: Vec::new() });
    let (life, mut watched) = watch::channel(Life::Starting);
    let (stop, stopped) = oneshot::channel();
    let application = PythonApplication::new(Arc::clone(&interpreter));
    background.spawn(front::live(application, Arc::clone(profile), recorder.scribe(PROCESS), life, stopped));
    let is_up = timeout(START_LIMIT, watched.wait_for(|life| *life != Life::Starting)).await;
    let is_up = matches!(is_up, Ok(Ok(life)) if *life == Life::Listening);
    if is_up && interpreter.trouble().is_none() {
        return Ok((Process { interpreter, _stop: Some(stop) }, introduction));
    }
    Err(interpreter.trouble().unwrap_or_else(|| why_not(&recorder.transcript())))
}

/// Why an application did not start, by what it said.
fn why_not(transcript: &Transcript) -> Trouble {
    let exited = transcript.events.iter().rev().find_map(|event| match &event.what {
        What::Exited { why } => Some(why.clone()),
        _ => None,
    });
    let logged = transcript.events.iter().filter_map(|event| match &event.what {
        What::Logged { level: Level::Error | Level::Info, message } => Some(message.as_str()),
        _ => None,
    });
    let late = || format!("the application did not start within {} s", START_LIMIT.as_secs());
    Trouble { message: exited.unwrap_or_else(late), details: logged.collect::<Vec<_>>().join("\n") }
}

impl Running for Python {
    fn connect(&self, scribe: Scribe) -> Promise<'_, Result<Option<Link>, Error>> {
        Box::pin(async move {
            let interpreter = self.interpreter().await?;
            let application = PythonApplication::new(interpreter);
            let (client, mut server) = Link::pair();
            if scribe.has_faults_at(Place::Edge) {
                let (inner, behind) = Link::pair();
                let redial = || self.connections.redial(Arc::clone(&application) as _, &self.profile, &scribe);
                let way = Way { link: Some(inner), again: edge::asks_again(&scribe).then(redial) };
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

    fn residue(&self) -> Option<Residue> {
        Some(Residue { connections: *self.connections.served().borrow(), sessions: 0 })
    }

    fn stop(&self) -> Promise<'_, Result<(), Error>> {
        Box::pin(async {
            self.connections.end().await?;
            self.background.end().await
        })
    }
}
