//! The built-in backend behind a front, in memory or on loopback sockets.

use std::fmt;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::{
    backend::{Backend, BackendSettings, PORT, Variables},
    dependency::{Dependencies, InMemory},
    revision::Revision,
};
use relapse::targets::connections::Connections;
use relapse::{
    environment::Environment,
    target::{Capabilities, ProcessControl, Renewal, Target},
};
use relapse_core::{
    asgi::exception::Exception,
    client::credential::{Credential, Form, Presented},
    error::Error,
    fault::{ConnectionFault, FaultKind, Place, ProcessFault},
    record::{
        service::{Service, TargetKind},
        transcript::{Actor, EventKind, Leftovers},
    },
};
use relapse_simulate::{
    app_faults::FaultyApp,
    application::{Application, BoxFuture},
    clock::Clock,
    edge::{self, ServerLink},
    link::{Link, Listener},
    profile::{Connects, Profile},
    recorder::ExchangeRecorder,
    server::{self, Life},
};

/// The signing secret of the built-in backend: 48 characters, used by no real service.
pub const SECRET: &str = "relapse-embedded-backend-signing-secret-00000000";

/// The kind of links of a running target.
#[derive(Debug)]
pub enum Transport {
    /// In-memory links, for the virtual clock.
    Memory,
    /// Loopback sockets, for the real clock.
    Tcp(Listener),
}

/// Where the processes of a service come from: its code, at a revision.
pub trait ServiceCode: fmt::Debug + Send + Sync + 'static {
    /// A process that has been up for a while.
    fn started(&self, environment: Environment, seed: u64) -> Arc<dyn ServiceProgram>;

    /// A process as a server starts it: imported under these variables, and not started. The recorder belongs to the
    /// caller.
    ///
    /// # Errors
    /// The exception that the import raises.
    fn import(
        &self,
        variables: &Variables,
        seed: u64,
        scribe: &ExchangeRecorder,
    ) -> Result<Arc<dyn ServiceProgram>, Exception>;
}

/// The program of one process of a service.
pub trait ServiceProgram: Application {
    /// Starts by itself, where the server has no lifespan.
    fn start_up(self: Arc<Self>) -> BoxFuture<'static, ()>;

    /// A credential of this kind for a user, as the service's own auth service would issue it.
    fn credential(&self, kind: Credential, user: &str, form: Form) -> Presented;

    /// The known facts about the service.
    fn service(&self) -> Service;

    /// How many sessions it holds.
    fn sessions(&self) -> usize;

    /// The port it listens on.
    fn port(&self) -> u16;
}

/// The built-in backend as it stands at a revision.
#[derive(Debug)]
struct BackendCode {
    revision: Revision,
    dependencies: Arc<dyn Dependencies>,
}

impl ServiceCode for BackendCode {
    fn started(&self, environment: Environment, seed: u64) -> Arc<dyn ServiceProgram> {
        Backend::started(self.revision, settings(environment), Arc::clone(&self.dependencies), seed)
    }

    fn import(
        &self,
        variables: &Variables,
        seed: u64,
        _scribe: &ExchangeRecorder,
    ) -> Result<Arc<dyn ServiceProgram>, Exception> {
        let settings = Arc::new(BackendSettings::read(variables, SECRET));
        Ok(Backend::import(self.revision, settings, Arc::clone(&self.dependencies), seed)?)
    }
}

impl ServiceProgram for Backend {
    fn start_up(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { Backend::start_up(&self).await })
    }

    fn credential(&self, kind: Credential, user: &str, form: Form) -> Presented {
        Backend::credential(self, kind, user, form)
    }

    fn service(&self) -> Service {
        Backend::service(self)
    }

    fn sessions(&self) -> usize {
        Backend::sessions(self)
    }

    fn port(&self) -> u16 {
        Backend::port(self)
    }
}

/// The built-in backend, running; or other software in its place.
#[derive(Debug)]
pub struct Embedded {
    software: Arc<dyn ServiceCode>,
    environment: Environment,
    profile: Arc<Profile>,
    transport: Transport,
    seed: u64,
    /// The issuer of credentials while the service itself is down: the auth service is another process.
    issuer: Arc<dyn ServiceProgram>,
    process: Arc<Mutex<BackendProcess>>,
    connections: Arc<Connections>,
}

/// One process of the service: what was imported, and where it stands.
#[derive(Debug)]
struct BackendProcess {
    /// The application; `None` when it could not be imported.
    program: Option<Arc<dyn ServiceProgram>>,
    life: watch::Sender<Life>,
    /// Tells it to stop; `None` for a process that was never started before our eyes.
    stop: Option<oneshot::Sender<()>>,
}

impl Embedded {
    /// Launches the backend at a revision, in an environment, behind a server with this profile. It has been up for a
    /// while; [`Target::restart`] shows a start.
    pub fn launch(
        revision: Revision,
        environment: Environment,
        profile: Arc<Profile>,
        transport: Transport,
        seed: u64,
    ) -> Embedded {
        Embedded::depending_on(Arc::new(InMemory), revision, environment, profile, transport, seed)
    }

    /// The same, with dependencies of the caller's own.
    pub fn depending_on(
        dependencies: Arc<dyn Dependencies>,
        revision: Revision,
        environment: Environment,
        profile: Arc<Profile>,
        transport: Transport,
        seed: u64,
    ) -> Embedded {
        Embedded::running(Arc::new(BackendCode { revision, dependencies }), environment, profile, transport, seed)
    }

    /// The same with other software, which answers as the backend does.
    pub fn running(
        software: Arc<dyn ServiceCode>,
        environment: Environment,
        profile: Arc<Profile>,
        transport: Transport,
        seed: u64,
    ) -> Embedded {
        let program = software.started(environment, seed);
        let (life, _) = watch::channel(Life::Listening);
        let issuer = Arc::clone(&program);
        let process = Arc::new(Mutex::new(BackendProcess { program: Some(program), life, stop: None }));
        let connections = Arc::new(Connections::default());
        Embedded { software, environment, profile, transport, seed, issuer, process, connections }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.connections.spawn(task);
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
    fn listening(&self) -> Option<Arc<dyn ServiceProgram>> {
        let process = lock(&self.process);
        let listens = *process.life.borrow() == Life::Listening;
        process.program.clone().filter(|program| listens && program.port() == PORT)
    }

    /// A connection while nothing listens: to a man in the middle that answers in the server's place, or to a server
    /// that stops and leaves its clients waiting.
    async fn without_listener(&self, scribe: ExchangeRecorder) -> Result<Option<Link>, Error> {
        let mut life = lock(&self.process).life.subscribe();
        let is_queued = *life.borrow() == Life::Stopping && self.profile.shutdown.connects == Connects::Queued;
        let mut faults = scribe.plan().faults.iter();
        let is_answered =
            faults.any(|fault| matches!(fault.kind, FaultKind::Connection(ConnectionFault::MissingAnswer { .. })));
        if !is_queued && !is_answered {
            return Ok(None);
        }
        let (client, server) = self.pair().await?;
        if is_answered {
            self.spawn(async move {
                edge::relay(server, None, scribe, None).await;
            });
            return Ok(Some(client));
        }
        self.spawn(async move {
            let _ = life.wait_for(|life| *life == Life::Exited).await;
            scribe.record(Actor::Process, EventKind::CutShort);
            drop(server);
        });
        Ok(Some(client))
    }

    /// Serves one connection, which learns of the end of the process where it gets the process's life.
    fn serve(
        &self,
        program: Arc<dyn ServiceProgram>,
        server: Link,
        scribe: ExchangeRecorder,
        life: Option<watch::Receiver<Life>>,
    ) {
        self.connections.serve(program, server, Arc::clone(&self.profile), scribe, life);
    }

    /// The life of the process, from now on.
    fn life(&self) -> watch::Receiver<Life> {
        lock(&self.process).life.subscribe()
    }

    /// Serves a connection from outside; ends it at once if nothing listens.
    pub fn attend(&self, mut server: Link, scribe: ExchangeRecorder) {
        // Drop the tasks of finished connections.
        self.connections.forget_ended();
        let Some(program) = self.listening() else { return };
        if scribe.has_faults_at(Place::Edge) {
            let (inner, behind) = Link::pair();
            let relay = edge::relay(server, Some(inner), scribe.clone(), None);
            self.spawn(async move {
                relay.await;
            });
            server = behind;
        }
        self.serve(program, server, scribe, Some(self.life()));
    }

    /// Tells the process to stop, and its open connections end as this server ends them. Those that it lets go on have
    /// this long.
    pub async fn tell_to_stop(&self, patience: Duration) {
        lock(&self.process).life.send_replace(Life::Stopping);
        let mut connections = self.connections.served();
        let _ = timeout(patience, connections.wait_for(|count| *count == 0)).await;
    }

    /// The service as far as it is there, or what it was.
    fn program(&self) -> Arc<dyn ServiceProgram> {
        lock(&self.process).program.clone().unwrap_or_else(|| Arc::clone(&self.issuer))
    }

    /// Ends the process: what it serves is cut off.
    async fn end(&self) -> Result<(), Error> {
        let stop = lock(&self.process).stop.take();
        if let Some(stop) = stop {
            let mut life = lock(&self.process).life.subscribe();
            let _ = stop.send(());
            let _ = life.wait_for(|life| *life == Life::Exited).await;
        }
        self.connections.end().await
    }

    /// The name of a variable, which may be the environment's own.
    fn variable_name(&self, name: &str) -> String {
        name.replace("{ENVIRONMENT}", &self.environment.name().to_ascii_uppercase())
    }

    /// The variables of a process that starts under the process faults of a plan.
    fn variables(&self, scribe: &ExchangeRecorder) -> Variables {
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
    fn start(&self, scribe: &ExchangeRecorder, seed: u64) -> impl Future<Output = ()> + Send + 'static {
        let variables = self.variables(scribe);
        let (software, profile) = (Arc::clone(&self.software), Arc::clone(&self.profile));
        let (process, scribe) = (Arc::clone(&self.process), scribe.clone());
        async move {
            let imported = async { software.import(&variables, seed, &scribe) };
            let imported = scribe.with_log(imported).await;
            let (life, mut watched) = watch::channel(Life::Starting);
            let (stop, stopped) = oneshot::channel();
            match imported {
                Err(exception) => {
                    // The server names what it could not import, and is gone.
                    scribe.record(Actor::Process, EventKind::Exited { why: exception.to_string() });
                    life.send_replace(Life::Exited);
                    *lock(&process) = BackendProcess { program: None, life, stop: None };
                }
                Ok(program) => {
                    *lock(&process) =
                        BackendProcess { program: Some(Arc::clone(&program)), life: life.clone(), stop: Some(stop) };
                    let lived = live(program, profile, scribe, life, stopped);
                    tokio::select! {
                        biased;
                        () = lived => {}
                        // It was killed.
                        _ = watched.wait_for(|life| *life == Life::Exited) => {}
                    }
                }
            }
        }
    }

    /// Tells the process to stop at a time, kills it where it does not, and starts another.
    fn stop_and_restart(
        &self,
        index: usize,
        at: Duration,
        scribe: &ExchangeRecorder,
    ) -> impl Future<Output = ()> + Send + 'static {
        // Give the replacement process its own random stream.
        let next = self.start(scribe, self.seed.wrapping_add(1 + index as u64));
        let (process, scribe) = (Arc::clone(&self.process), scribe.clone());
        let mut connections = self.connections.served();
        async move {
            sleep(at.saturating_sub(scribe.elapsed())).await;
            let (life, stop) = {
                let mut process = lock(&process);
                (process.life.clone(), process.stop.take())
            };
            // Nothing is there that could be told.
            let Some(stop) = stop.filter(|_| *life.borrow() != Life::Exited) else { return };
            scribe.fired(index, Actor::Process, scribe.plan().faults[index].kind.to_string());
            scribe.record(Actor::Process, EventKind::Stopping);
            life.send_replace(Life::Stopping);
            let stops = async {
                let _ = connections.wait_for(|count| *count == 0).await;
                let _ = stop.send(());
                let _ = life.subscribe().wait_for(|life| *life == Life::Exited).await;
            };
            if timeout(KILLED_AFTER, stops).await.is_err() {
                let why = format!("it was killed {} s after it was told to stop", KILLED_AFTER.as_secs());
                scribe.record(Actor::Process, EventKind::Exited { why });
                life.send_replace(Life::Exited);
            }
            next.await;
        }
    }
}

/// Runs the life of a process that imported its application.
async fn live(
    program: Arc<dyn ServiceProgram>,
    profile: Arc<Profile>,
    scribe: ExchangeRecorder,
    life: watch::Sender<Life>,
    stopped: oneshot::Receiver<()>,
) {
    if profile.lifespan.supported {
        let application: Arc<dyn Application> = match scribe.has_faults_at(Place::Event) {
            true => FaultyApp::new(program, scribe.clone()),
            false => program,
        };
        return server::live(application, profile, scribe, life, stopped).await;
    }
    // The server has no lifespan, so the application starts by itself.
    server::listen(&scribe, &life);
    let started = async {
        scribe.with_log(program.start_up()).await;
        pending::<()>().await;
    };
    tokio::select! {
        biased;
        _ = stopped => {}
        () = started => {}
    }
    scribe.record(Actor::Process, EventKind::Exited { why: "it was told to stop".to_owned() });
    life.send_replace(Life::Exited);
}

/// How long a process may take to stop before it is killed (Cloud Run's).
const KILLED_AFTER: Duration = Duration::from_secs(10);

/// How long a restart waits for the process to listen. One that takes longer is watched from outside, as any client
/// would.
const START_PATIENCE: Duration = Duration::from_millis(1);

impl Target for Embedded {
    fn kind(&self) -> TargetKind {
        TargetKind::Backend
    }

    fn capabilities(&self) -> Capabilities {
        let clock = match self.transport {
            Transport::Memory => Clock::Virtual,
            Transport::Tcp(_) => Clock::Real,
        };
        Capabilities { places: &Place::ALL, clock, renewal: Renewal::None, process: ProcessControl::None }
    }

    fn connect(&self, scribe: ExchangeRecorder) -> BoxFuture<'_, Result<Option<Link>, Error>> {
        Box::pin(async move {
            let Some(program) = self.listening() else { return self.without_listener(scribe).await };
            let (client, mut server) = self.pair().await?;
            if scribe.has_faults_at(Place::Edge) {
                let (inner, behind) = self.pair().await?;
                let again = edge::asks_again(&scribe)
                    .then(|| self.connections.redial(Arc::clone(&program) as _, &self.profile, &scribe));
                let way = ServerLink { link: Some(inner), again };
                let relay = edge::relay(server, way, scribe.clone(), None);
                self.spawn(async move {
                    relay.await;
                });
                server = behind;
            }
            let mut faults = scribe.plan().faults.iter();
            let stops = faults.any(|fault| matches!(fault.kind, FaultKind::Process(ProcessFault::ShutDown { .. })));
            let life = stops.then(|| self.life());
            self.serve(program, server, scribe, life);
            Ok(Some(client))
        })
    }

    fn restart(&self, scribe: ExchangeRecorder) -> BoxFuture<'_, Result<(), Error>> {
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
                    // A missing module acts on import, and a shutdown acts when the process is told to stop.
                    None => !matches!(what, ProcessFault::MissingModule { .. } | ProcessFault::ShutDown { .. }),
                };
                if acts {
                    scribe.fired(index, Actor::Process, fault.kind.to_string());
                }
            }
            let (life, _) = watch::channel(Life::Exited);
            *lock(&self.process) = BackendProcess { program: None, life, stop: None };
            let started = self.start(&scribe, self.seed);
            let pause = absent.unwrap_or_default().saturating_sub(scribe.elapsed());
            self.spawn(async move {
                sleep(pause).await;
                started.await;
            });
            sleep(START_PATIENCE).await;
            for (index, fault) in scribe.plan().faults.iter().enumerate() {
                if let FaultKind::Process(ProcessFault::ShutDown { at }) = &fault.kind {
                    self.spawn(self.stop_and_restart(index, at.0, &scribe));
                }
            }
            Ok(())
        })
    }

    fn credential(&self, kind: Credential, user: &str, form: Form) -> Presented {
        self.program().credential(kind, user, form)
    }

    fn service(&self) -> Service {
        self.program().service()
    }

    fn residue(&self) -> Option<Leftovers> {
        let sessions = lock(&self.process).program.as_ref().map_or(0, |program| program.sessions());
        Some(Leftovers { connections: *self.connections.served().borrow(), sessions })
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.end())
    }
}

fn lock(process: &Mutex<BackendProcess>) -> MutexGuard<'_, BackendProcess> {
    // It is only ever replaced as a whole.
    process.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The settings of a well-configured backend, read once for each environment.
fn settings(environment: Environment) -> Arc<BackendSettings> {
    static READ: [OnceLock<Arc<BackendSettings>>; 4] = [const { OnceLock::new() }; 4];
    let read = READ[environment as usize]
        .get_or_init(|| Arc::new(BackendSettings::read(&Backend::variables(environment, SECRET), SECRET)));
    Arc::clone(read)
}
