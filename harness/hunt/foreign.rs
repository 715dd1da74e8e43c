//! Hunting on a server that is not ours: what was drawn, in the server's own words, on the wall clock and within its
//! budget.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Drawn;
use crate::{
    binding::Binding,
    bound::{Server, in_the_words_of},
    classify,
    clock::{Clock, Runtime},
    environment::Environment,
    error::Error,
    explain::Explanation,
    fault::{Fault, Place},
    plan::Plan,
    profile::Profile,
    run,
    step::{Act, Crowd, Step},
    target::Url,
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
    /// Finds out which known server answers, and keeps a clock for it.
    pub fn new(url: Url, binding: Binding, known: &[Arc<Profile>]) -> Foreign {
        let runtime = Runtime::new(Clock::Real);
        let server = runtime.block_on(Server::recognize(url, &binding, known));
        Foreign { server, binding, runtime: Mutex::new(runtime) }
    }

    /// What was drawn, in the server's own words: one client, faults on the way to it only, and times that somebody can
    /// wait for. The same again gives the same.
    pub(super) fn adapt(&self, drawn: Drawn) -> Drawn {
        let say = |steps: Vec<Step>| -> Vec<Step> {
            let said = steps.into_iter().filter_map(|step| in_the_words_of(&self.binding, &self.server.url, step));
            let bounded = said.map(|step| {
                let is_pause = matches!(step.act, Act::Pause | Act::Freeze);
                Step { limit: step.limit.min(if is_pause { PAUSE_MAX } else { STEP_MAX }), ..step }
            });
            bounded.collect()
        };
        let faults = drawn.faults.into_iter().filter(|fault| fault.kind.place() == Place::Edge);
        let visits = drawn.visits.into_iter().map(say).filter(|visit| !visit.is_empty());
        Drawn {
            visits: visits.collect(),
            crowd: Crowd::ONE,
            faults: faults.map(|fault: Fault| fault.scaled(TIME_SCALE)).collect(),
            environment: Environment::Staging,
            server: 0,
        }
    }

    /// Runs what was adapted. One client at a time: what is somebody else's is not to be flooded.
    pub(super) fn play(&self, drawn: &Drawn, seed: u64) -> Result<Transcript, Error> {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = Plan { seed, faults: drawn.faults.clone() };
        runtime.block_on(run::converse(&drawn.steps(), plan, &self.server.url))
    }

    /// Where it is, and what it is like.
    pub(super) fn name(&self) -> String {
        let Server { url, kind } = &self.server;
        if kind.profiles.is_empty() { url.authority() } else { format!("{} ({kind})", url.authority()) }
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
        self.server.url.is_half_left()
    }
}
