//! The embedded backend behind a front, in memory or on loopback sockets.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::task::JoinSet;

use crate::{
    application::{Application, Promise},
    backend::{Backend, Settings},
    clock::Clock,
    credential::{Credential, Presented},
    dependency::InMemory,
    edge,
    environment::Environment,
    error::Error,
    fault::Place,
    front,
    interpose::Interposed,
    link::{Link, Listener},
    profile::Profile,
    recorder::Scribe,
    revision::Revision,
    running::Running,
    transcript::Service,
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
    backend: Arc<Backend>,
    profile: Arc<Profile>,
    transport: Transport,
    tasks: Mutex<JoinSet<()>>,
}

impl Embedded {
    /// Launches the backend at a revision, in an environment, behind a server with this profile.
    pub fn launch(
        revision: Revision,
        environment: Environment,
        profile: Arc<Profile>,
        transport: Transport,
        seed: u64,
    ) -> Embedded {
        let backend = Backend::new(revision, settings(environment), Arc::new(InMemory), seed);
        Embedded { backend, profile, transport, tasks: Mutex::new(JoinSet::new()) }
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
}

impl Running for Embedded {
    fn connect(&self, scribe: Scribe) -> Promise<'_, Result<Link, Error>> {
        Box::pin(async move {
            let (client, mut server) = self.pair().await?;
            if scribe.has_faults_at(Place::Edge) {
                let (inner, behind) = self.pair().await?;
                self.spawn(edge::relay(server, inner, scribe.clone()));
                server = behind;
            }
            let mut application: Arc<dyn Application> = Arc::clone(&self.backend) as _;
            if scribe.has_faults_at(Place::Scope) {
                application = Interposed::new(application, scribe.clone());
            }
            self.spawn(front::serve(server, application, Arc::clone(&self.profile), scribe));
            Ok(client)
        })
    }

    fn credential(&self, kind: Credential, user: &str) -> Presented {
        self.backend.credential(kind, user)
    }

    fn service(&self) -> Service {
        self.backend.service()
    }

    fn stop(&self) -> Promise<'_, Result<(), Error>> {
        Box::pin(async move {
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
        })
    }
}

/// The settings of a well-configured backend, read once for each environment.
fn settings(environment: Environment) -> Arc<Settings> {
    static READ: [OnceLock<Arc<Settings>>; 4] = [const { OnceLock::new() }; 4];
    let read = || Arc::new(Settings::read(&Backend::variables(environment, SECRET)));
    Arc::clone(READ[environment as usize].get_or_init(read))
}

fn panic_text(panic: Box<dyn std::any::Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().map_or("no message".to_owned(), |text| (*text).to_owned()),
    }
}
