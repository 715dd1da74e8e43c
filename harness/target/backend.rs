//! The embedded backend behind a front, in memory or on loopback sockets.

use std::future::{Future, pending};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::{
    application::{Application, Promise},
    backend::{Backend, PORT, Settings, Variables},
    clock::Clock,
    credential::{Credential, Form, Presented},
    dependency::InMemory,
    edge,
    environment::Environment,
    error::Error,
    fault::{FaultKind, Place, ProcessFault},
    front::{self, Life},
    interpose::Interposed,
    link::{Link, Listener},
    profile::Profile,
    recorder::Scribe,
    revision::Revision,
    running::Running,
    transcript::{Party, Residue, Service, What},
};

/// The signing secret of the embedded backend: 48 characters, and nobody's.
const SECRET: &str = "relapse-embedded-backend-signing-secret-00000000";

/// What a running target's links are made of.
#[derive(Debug)]
pub enum Transport {
    /// In-memory links, for the virtual clock.
    Memory,
    /// Loopback sockets, for the real clock.
    Tcp(Listener),
}

/// The embedded backend, running.
#[derive(Debug)]
pub struct Embedded {
    revision: Revision,
    environment: Environment,
    profile: Arc<Profile>,
    transport: Transport,
    seed: u64,
    /// What credentials come from while the service itself is not there: the auth service is another process.
    issuer: Arc<Backend>,
    process: Arc<Mutex<Process>>,
    tasks: Mutex<JoinSet<()>>,
    connections: Arc<AtomicUsize>,
}

/// Counts one connection for as long as it is served.
struct Served(Arc<AtomicUsize>);

impl Served {
    fn begin(connections: &Arc<AtomicUsize>) -> Served {
        connections.fetch_add(1, Ordering::Relaxed);
        Served(Arc::clone(connections))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One process of the service: what was imported, and where it stands.
#[derive(Debug)]
struct Process {
    /// The application; `None` when it could not be imported.
    backend: Option<Arc<Backend>>,
    life: watch::Receiver<Life>,
    /// Tells it to stop; `None` for a process that was never started before our eyes.
    stop: Option<oneshot::Sender<()>>,
}

impl Embedded {
    /// Launches the backend at a revision, in an environment, behind a server with this profile. It has been up for a
    /// while; [`Running::restart`] shows a start.
    pub fn launch(
        revision: Revision,
        environment: Environment,
        profile: Arc<Profile>,
        transport: Transport,
        seed: u64,
    ) -> Embedded {
        let backend = Backend::started(revision, settings(environment), Arc::new(InMemory), seed);
        let (_, life) = watch::channel(Life::Listening);
        let issuer = Arc::clone(&backend);
        let process = Arc::new(Mutex::new(Process { backend: Some(backend), life, stop: None }));
        let tasks = Mutex::new(JoinSet::new());
        let connections = Arc::default();
        Embedded { revision, environment, profile, transport, seed, issuer, process, tasks, connections }
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks().spawn(task);
    }

    async fn pair(&self) -> Result<(Link, Link), Error> {
        match &self.transport {
            Transport::Memory => Ok(Link::pair()),
            Transport::Tcp(listener) => {
                let address = listener.address()?;
                let (client, server) = tokio::join!(Link::connect(address, Clock::Real), listener.accept());
                Ok((client?, server?))
            }
        }
    }

    /// The application that connections reach now; `None` when nothing listens.
    fn listening(&self) -> Option<Arc<Backend>> {
        let process = lock(&self.process);
        let listens = *process.life.borrow() == Life::Listening;
        process.backend.clone().filter(|backend| listens && backend.port() == PORT)
    }

    /// The service as far as it is there, or what it was.
    fn backend(&self) -> Arc<Backend> {
        lock(&self.process).backend.clone().unwrap_or_else(|| Arc::clone(&self.issuer))
    }

    /// Ends the process: what it serves is cut off.
    async fn end(&self) -> Result<(), Error> {
        let stop = lock(&self.process).stop.take();
        if let Some(stop) = stop {
            let mut life = lock(&self.process).life.clone();
            let _ = stop.send(());
            let _ = life.wait_for(|life| *life == Life::Exited).await;
        }
        let mut tasks = std::mem::take(&mut *self.tasks());
        tasks.abort_all();
        while let Some(joined) = tasks.join_next().await {
            if let Err(error) = joined
                && error.is_panic()
            {
                return Err(Error::TargetPanicked(panic_text(error.into_panic())));
            }
        }
        Ok(())
    }

    /// The name of a variable, which may be the environment's own.
    fn variable_name(&self, name: &str) -> String {
        name.replace("{ENVIRONMENT}", &self.environment.name().to_ascii_uppercase())
    }

    /// The variables of a process that starts under the process faults of a plan.
    fn variables(&self, scribe: &Scribe) -> Variables {
        let mut variables = Backend::variables(self.environment, SECRET);
        for fault in &scribe.plan().faults {
            let FaultKind::Process(fault) = &fault.kind else { continue };
            match fault.variable() {
                Some((name, Some(value))) => drop(variables.insert(self.variable_name(name), value.to_owned())),
                Some((name, None)) => drop(variables.remove(&self.variable_name(name))),
                None => {}
            }
        }
        variables
    }

    /// Starts a process: imports the application, and runs its life.
    fn start(&self, scribe: &Scribe) -> impl Future<Output = ()> + Send + 'static {
        let settings = Arc::new(Settings::read(&self.variables(scribe), SECRET));
        let (revision, profile, seed) = (self.revision, Arc::clone(&self.profile), self.seed);
        let (process, scribe) = (Arc::clone(&self.process), scribe.clone());
        async move {
            let imported = async { Backend::import(revision, settings, Arc::new(InMemory), seed) };
            let imported = scribe.with_log(imported).await;
            let (sender, life) = watch::channel(Life::Starting);
            let (stop, stopped) = oneshot::channel();
            match imported {
                Err(exception) => {
                    // The server names what it could not import, and is gone.
                    scribe.record(Party::Process, What::Exited { why: exception.to_string() });
                    sender.send_replace(Life::Exited);
                    *lock(&process) = Process { backend: None, life, stop: None };
                }
                Ok(backend) => {
                    let backend_too = Some(Arc::clone(&backend));
                    *lock(&process) = Process { backend: backend_too, life, stop: Some(stop) };
                    if profile.lifespan.supported {
                        front::live(backend, profile, scribe, sender, stopped).await;
                    } else {
                        // Nobody tells the application to start; it begins by itself.
                        scribe.record(Party::Process, What::Listening);
                        sender.send_replace(Life::Listening);
                        let started = async {
                            scribe.with_log(backend.start_up()).await;
                            pending::<()>().await;
                        };
                        tokio::select! {
                            _ = stopped => {}
                            () = started => {}
                        }
                        sender.send_replace(Life::Exited);
                    }
                }
            }
        }
    }
}

/// How long a restart waits for the process to listen. One that takes longer is watched from outside, as any client
/// would.
const START_PATIENCE: Duration = Duration::from_millis(1);

impl Running for Embedded {
    fn connect(&self, scribe: Scribe) -> Promise<'_, Result<Option<Link>, Error>> {
        Box::pin(async move {
            let Some(backend) = self.listening() else { return Ok(None) };
            let (client, mut server) = self.pair().await?;
            if scribe.has_faults_at(Place::Edge) {
                let (inner, behind) = self.pair().await?;
                self.spawn(edge::relay(server, inner, scribe.clone()));
                server = behind;
            }
            let mut application: Arc<dyn Application> = backend as _;
            if scribe.has_faults_at(Place::Scope) || scribe.has_faults_at(Place::Event) {
                application = Interposed::new(application, scribe.clone());
            }
            let (profile, served) = (Arc::clone(&self.profile), Served::begin(&self.connections));
            self.spawn(async move {
                front::serve(server, application, profile, scribe).await;
                drop(served);
            });
            Ok(Some(client))
        })
    }

    fn restart(&self, scribe: Scribe) -> Promise<'_, Result<(), Error>> {
        Box::pin(async move {
            self.end().await?;
            let mut absent = None;
            for (index, fault) in scribe.plan().faults.iter().enumerate() {
                let FaultKind::Process(what) = &fault.kind else { continue };
                if *what == (ProcessFault::Absent {}) {
                    absent = fault.trigger.until;
                }
                let acts = match what.variable() {
                    Some((name, value)) => {
                        let before = Backend::variables(self.environment, SECRET);
                        before.get(&self.variable_name(name)).map(String::as_str) != value
                    }
                    // A module is missing when somebody imports it.
                    None => !matches!(what, ProcessFault::MissingModule { .. }),
                };
                if acts {
                    scribe.fired(index, Party::Process, fault.kind.to_string());
                }
            }
            let (_, life) = watch::channel(Life::Exited);
            *lock(&self.process) = Process { backend: None, life, stop: None };
            let started = self.start(&scribe);
            let pause = absent.unwrap_or_default().saturating_sub(scribe.elapsed());
            self.spawn(async move {
                sleep(pause).await;
                started.await;
            });
            sleep(START_PATIENCE).await;
            Ok(())
        })
    }

    fn credential(&self, kind: Credential, user: &str, form: Form) -> Presented {
        self.backend().credential(kind, user, form)
    }

    fn service(&self) -> Service {
        self.backend().service()
    }

    fn residue(&self) -> Option<Residue> {
        let sessions = lock(&self.process).backend.as_ref().map_or(0, |backend| backend.sessions());
        Some(Residue { connections: self.connections.load(Ordering::Relaxed), sessions })
    }

    fn stop(&self) -> Promise<'_, Result<(), Error>> {
        Box::pin(self.end())
    }
}

fn lock(process: &Mutex<Process>) -> MutexGuard<'_, Process> {
    // It is only ever replaced as a whole.
    process.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The settings of a well-configured backend, read once for each environment.
fn settings(environment: Environment) -> Arc<Settings> {
    static READ: [OnceLock<Arc<Settings>>; 4] = [const { OnceLock::new() }; 4];
    let read = || Arc::new(Settings::read(&Backend::variables(environment, SECRET), SECRET));
    Arc::clone(READ[environment as usize].get_or_init(read))
}

fn panic_text(panic: Box<dyn std::any::Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().map_or("no message".to_owned(), |text| (*text).to_owned()),
    }
}
