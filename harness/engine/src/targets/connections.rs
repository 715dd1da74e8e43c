//! The connections that a target of ours serves.

use std::future::{Future, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinSet;

use relapse_core::{error::Error, fault::Place};
use relapse_simulate::{
    app_faults::FaultyApp,
    application::Application,
    link::{Link, Redial},
    profile::Profile,
    recorder::ExchangeRecorder,
    server::{self, Life},
};

/// The tasks of a target, and the number of connections it serves.
#[derive(Debug)]
pub struct Connections {
    tasks: Mutex<JoinSet<()>>,
    served: watch::Sender<usize>,
}

/// Counts one connection for as long as it is served.
struct ServedConnection(watch::Sender<usize>);

impl ServedConnection {
    fn begin(served: &watch::Sender<usize>) -> ServedConnection {
        served.send_modify(|count| *count += 1);
        ServedConnection(served.clone())
    }
}

impl Drop for ServedConnection {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Default for Connections {
    fn default() -> Connections {
        Connections { tasks: Mutex::new(JoinSet::new()), served: watch::channel(0).0 }
    }
}

impl Connections {
    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs something for as long as the target runs.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // The task of a relay is large; in a box it is moved once.
        self.tasks().spawn(Box::pin(task));
    }

    /// Forgets what has ended.
    pub fn forget_ended(&self) {
        while self.tasks().try_join_next().is_some() {}
    }

    /// How many connections are served, and how that changes.
    pub fn served(&self) -> watch::Receiver<usize> {
        self.served.subscribe()
    }

    /// Serves one connection to its end, with the plan's faults behind the edge. If the process may end meanwhile, it
    /// learns of that end.
    pub fn serve(
        &self,
        mut application: Arc<dyn Application>,
        server: Link,
        profile: Arc<Profile>,
        scribe: ExchangeRecorder,
        life: Option<watch::Receiver<Life>>,
    ) {
        if scribe.has_faults_at(Place::Scope) || scribe.has_faults_at(Place::Event) {
            application = FaultyApp::new(application, scribe.clone());
        }
        let served = ServedConnection::begin(&self.served);
        self.spawn(async move {
            server::serve(server, application, profile, scribe, life).await;
            drop(served);
        });
    }

    /// Makes another connection in memory, to the same application, for a man in the middle that asks once more.
    pub fn redial(
        self: &Arc<Self>,
        application: Arc<dyn Application>,
        profile: &Arc<Profile>,
        scribe: &ExchangeRecorder,
    ) -> Redial {
        let (connections, profile, scribe) = (Arc::clone(self), Arc::clone(profile), scribe.clone());
        Box::new(move || {
            let (near, far) = Link::pair();
            connections.serve(Arc::clone(&application), far, Arc::clone(&profile), scribe.clone(), None);
            Box::pin(ready(Some(near)))
        })
    }

    /// Cuts off whatever still runs. A panic in it comes out here, so that a target that died cannot look like one that
    /// passed.
    pub async fn end(&self) -> Result<(), Error> {
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
}

/// The text of a panic.
pub fn panic_text(panic: Box<dyn std::any::Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().map_or("no message".to_owned(), |text| (*text).to_owned()),
    }
}
