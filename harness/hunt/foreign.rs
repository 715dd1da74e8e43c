//! Hunting on a server that is not ours: what was drawn, in the server's own words, on the wall clock and within its
//! budget.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Drawn;
use crate::{
    binding::Binding,
    bound::{Reach, Server, in_the_words_of},
    classify,
    clock::Runtime,
    environment::Environment,
    error::Error,
    exception::Exception,
    explain::Explanation,
    fault::{EventFault, Fault, FaultKind, Place},
    plan::Plan,
    run,
    step::{Act, Crowd, Step},
    transcript::Transcript,
};

/// The longest that a step may take, or pause: time is real.
const STEP_MAX: Duration = Duration::from_secs(4);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How much shorter the times of drawn faults are than where time costs nothing.
const TIME_SCALE: f64 = 0.05;

/// A server that is not ours, as something to hunt on.
#[derive(Debug)]
pub struct Foreign {
    server: Server,
    binding: Binding,
    runtime: Mutex<Runtime>,
}

impl Foreign {
    /// What is hunted on, on the clock that it was reached with.
    pub fn new(server: Server, binding: Binding, runtime: Runtime) -> Foreign {
        Foreign { server, binding, runtime: Mutex::new(runtime) }
    }

    /// Looks whether a valid client gets a say there, without which a hunt proves nothing.
    ///
    /// # Errors
    /// Says what it gets instead.
    pub fn greet(&self, seed: u64) -> Result<(), String> {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        runtime.block_on(self.server.control(&self.binding, seed)).map(drop)
    }

    /// Where faults can act.
    pub(super) fn places(&self) -> &'static [Place] {
        self.server.places()
    }

    /// What was drawn, as far as it can be done there: one client, faults where they can act, and times that somebody can
    /// wait for.
    pub(super) fn adapt(&self, drawn: Drawn) -> Drawn {
        // A send that raises because the client is gone may leave the application: servers take it for that ("Disconnected
        // Client" of the ASGI specification).
        let tells_of_the_end = |fault: &Fault| match &fault.kind {
            FaultKind::Event { fault: EventFault::SendRaises { error }, .. } => Exception::parse(error).is_disconnect(),
            _ => false,
        };
        let faults = drawn.faults.into_iter().filter(|fault| self.places().contains(&fault.kind.place()));
        let faults = faults.filter(|fault| !tells_of_the_end(fault));
        Drawn {
            visits: drawn.visits,
            crowd: Crowd::ONE,
            faults: faults.map(|fault| if self.is_real() { fault.scaled(TIME_SCALE) } else { fault }).collect(),
            environment: Environment::Staging,
            server: 0,
        }
    }

    fn is_real(&self) -> bool {
        matches!(self.server.reach, Reach::Url(_))
    }

    /// A step in the server's own words.
    fn say(&self, step: Step) -> Option<Step> {
        let step = in_the_words_of(&self.binding, &self.server, step)?;
        Some(match step.act {
            _ if !self.is_real() => step,
            Act::Pause | Act::Freeze => Step { limit: step.limit.min(PAUSE_MAX), ..step },
            _ => Step { limit: step.limit.min(STEP_MAX), ..step },
        })
    }

    /// Runs what was adapted, in the server's own words. One client at a time: what is somebody else's is not to be flooded.
    pub(super) fn play(&self, drawn: &Drawn, seed: u64) -> Result<Transcript, Error> {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = Plan { seed, faults: drawn.faults.clone() };
        let steps: Vec<Step> = drawn.steps().into_iter().filter_map(|step| self.say(step)).collect();
        runtime.block_on(async {
            let transcript = run::converse(&steps, plan, self.server.running()).await;
            self.server.clear().await?;
            transcript
        })
    }

    /// Where it is, and what it is like.
    pub(super) fn name(&self) -> String {
        let (kind, authority) = (&self.server.kind, self.server.authority());
        if kind.profiles.is_empty() { authority } else { format!("{authority} ({kind})") }
    }

    /// What may have brought the worst of these endings about.
    pub(super) fn explain(&self, transcript: &Transcript) -> Option<Explanation> {
        let readings = classify::readings(transcript);
        let mut ended = readings.iter().map(|reading| (reading, reading.outcome()));
        let (reading, outcome) = ended.rfind(|(_, outcome)| !outcome.class.is_good())?;
        self.server.kind.explain(reading, &outcome.ending)
    }

    /// Whether so much of the budget is left that more can be tried; the rest is for looking at what was found.
    pub(super) fn may_go_on(&self) -> bool {
        match &self.server.reach {
            Reach::Url(url) => url.is_half_left(),
            Reach::Python(_) => true,
        }
    }
}
