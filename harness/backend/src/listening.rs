//! The built-in backend on a port, for any client.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::{
    revision::Revision,
    target::{Embedded, Transport},
};
use relapse::{environment::Environment, report::sequence::narrate, target::Target};
use relapse_core::{
    client::credential::{Credential, Form},
    error::Error,
    fault::Fault,
    plan::Plan,
    record::{
        redact::{KnownSecret, Redactor},
        transcript::{Event, PROCESS},
    },
};
use relapse_simulate::{
    clock::Clock,
    link::Listener,
    profile::Profile,
    recorder::{EventSink, ExchangeRecorder, FaultCounters, Recorder, capture_logs},
};

/// The settings of a backend that listens.
#[derive(Debug, Clone)]
pub struct StandSetup {
    /// Where it listens.
    pub listen: SocketAddr,
    /// With which defects.
    pub revision: Revision,
    /// Behind which server.
    pub profile: Arc<Profile>,
    /// In which environment it believes to be.
    pub environment: Environment,
    /// The faults, which act on every connection.
    pub faults: Vec<Fault>,
    /// The only source of chance.
    pub seed: u64,
}

/// A backend that listens.
#[derive(Debug)]
pub struct Stand {
    listener: Listener,
    target: Embedded,
    faults: Vec<Fault>,
    seed: u64,
    tally: Arc<Mutex<FaultCounters>>,
    redactor: Arc<Redactor>,
    start: Instant,
}

/// How long a server that stops lets its clients go on; short, because the user waits for the prompt.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Is given each line of the log.
pub type LogSink = Arc<dyn Fn(String) + Send + Sync>;

impl Stand {
    /// Listens; no client is served before [`Stand::run`].
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(setup: StandSetup) -> Result<Stand, Error> {
        let StandSetup { listen, revision, profile, environment, faults, seed } = setup;
        let listener = Listener::bind_to(Clock::Real, listen).await?;
        let target = Embedded::launch(revision, environment, profile, Transport::Memory, seed);
        let mut tally = FaultCounters::new(seed);
        tally.grow(faults.len());
        let redactor = Arc::new(Redactor::new(
            target.service().secrets.into_iter().map(KnownSecret::unnamed).collect(),
            Vec::new(),
        ));
        Ok(Stand {
            listener,
            target,
            faults,
            seed,
            tally: Arc::new(Mutex::new(tally)),
            redactor,
            start: Instant::now(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        self.listener.address()
    }

    /// A token that it takes, for as long as its auth service issues them: 15 minutes.
    pub fn token(&self, user: &str) -> String {
        self.target.credential(Credential::Valid, user, Form::Token).text
    }

    /// Serves every client, until `stop` is over. On the thread that calls; its log records go into the log.
    ///
    /// # Errors
    /// When it cannot listen any more, or the backend panicked.
    pub async fn run(self, tell: LogSink, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let _logs = capture_logs();
        if self.faults.iter().any(|fault| fault.kind.acts_on_process()) {
            self.target.restart(self.scribe(PROCESS, &tell)).await?;
        }
        let serving = async {
            for number in 0.. {
                let (link, _) = self.listener.accept_from().await?;
                self.target.attend(link, self.scribe(number, &tell));
            }
            Ok::<_, Error>(())
        };
        tokio::select! {
            biased;
            stopped = serving => stopped?,
            () = stop => {}
        }
        self.target.tell_to_stop(STOP_PATIENCE).await;
        self.target.stop().await
    }

    /// A hand for a connection, that tells what happens on it.
    fn scribe(&self, number: usize, tell: &LogSink) -> ExchangeRecorder {
        let (faults, redactor, tell) = (self.faults.clone(), Arc::clone(&self.redactor), Arc::clone(tell));
        let tap = EventSink::new(move |event: Event| {
            if let Some(line) = narrate(&event, &faults, &redactor) {
                let connection = if number == PROCESS { String::new() } else { format!("#{}", number + 1) };
                tell(format!("{:>9.3}  {connection:<5} {line}", event.at.as_secs_f64()));
            }
        });
        let plan = Plan { seed: self.seed, faults: self.faults.clone() };
        Recorder::passing_on(plan, Arc::clone(&self.tally), self.start, tap).scribe(number)
    }
}
