//! Hunting on an external server: the drawn cases, in the server's own words, on the wall clock and within its budget.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{GeneratedCase, promised, routes};
use crate::{
    environment::Environment,
    explain::{Explanation, PossibleServers},
    external::{External, as_written, in_the_words_of},
    note::Note,
    route::Route,
    run,
    service_file::ServiceFile,
    target::{BudgetLeft, Capabilities, Renewal},
};
use relapse_core::{
    client::{
        credential::Credential,
        step::{Action, Concurrency, Step},
    },
    error::Error,
    fault::Place,
    judge::{check::RunView, outcome::Class, verdict::HealthyClient},
    plan::Plan,
    record::transcript::Transcript,
};
use relapse_simulate::clock::{Clock, Runtime};

/// The longest that a step may take, or pause: time is real.
const STEP_MAX: Duration = Duration::from_secs(4);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How much shorter the times of drawn faults are than where time costs nothing.
const TIME_SCALE: f64 = 0.05;

/// A target of the user's own, as something to hunt on. Each worker owns one, where there can be more than one.
pub struct ExternalTarget {
    binding: ServiceFile,
    /// The same for all of them.
    authority: String,
    kind: PossibleServers,
    capabilities: Capabilities,
    routes: Vec<Route>,
    launch: Option<Box<Launch>>,
    /// Those that no worker owns at the moment.
    free: Mutex<Vec<Owned>>,
}

/// Launches the same once more.
pub type Launch = dyn Fn(&Runtime) -> Result<External, Error> + Send + Sync;

/// The target that one worker hunts on, with the clock that it was launched on.
#[derive(Debug)]
pub(super) struct Owned {
    external: External,
    runtime: Runtime,
}

impl fmt::Debug for ExternalTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Owned {
    /// Whether a process that has served no client can follow at a price that can be paid for each finding.
    pub(super) fn can_renew(&self) -> bool {
        self.external.target.capabilities().renewal == Renewal::Cheap
    }

    /// Lets the next case meet a process that has served no client.
    pub(super) fn renew(&self) -> Result<(), Error> {
        self.runtime.block_on(self.external.target.renew())
    }

    /// Whether so much of the request budget is left that more can be tried.
    pub(super) fn may_go_on(&self) -> bool {
        self.external.target.budget() == BudgetLeft::Ample
    }
}

impl ExternalTarget {
    /// A target to hunt on, with the clock that it was launched on.
    pub fn new(external: External, binding: ServiceFile, runtime: Runtime) -> ExternalTarget {
        ExternalTarget {
            binding,
            authority: external.target.authority(),
            kind: external.kind.clone(),
            capabilities: external.target.capabilities(),
            routes: external.routes.clone(),
            launch: None,
            free: Mutex::new(vec![Owned { external, runtime }]),
        }
    }

    /// The same, where each further worker launches one of its own.
    #[must_use]
    pub fn for_many(self, launch: Box<Launch>) -> ExternalTarget {
        ExternalTarget { launch: Some(launch), ..self }
    }

    /// Whether more than one worker can hunt on it.
    pub(super) fn is_for_many(&self) -> bool {
        self.launch.is_some()
    }

    fn free(&self) -> MutexGuard<'_, Vec<Owned>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a worker a target of its own.
    pub(super) fn take(&self) -> Result<Owned, Error> {
        let taken = self.free().pop();
        match (taken, &self.launch) {
            (Some(owned), _) => Ok(owned),
            (None, Some(launch)) => {
                let runtime = Runtime::new(self.capabilities.clock);
                Ok(Owned { external: launch(&runtime)?, runtime })
            }
            (None, None) => unreachable!("one worker hunts on what there is once"),
        }
    }

    /// Takes a worker's target back.
    pub(super) fn give_back(&self, owned: Owned) {
        self.free().push(owned);
    }

    /// Looks whether a healthy client gets a say there, without which a hunt proves nothing.
    ///
    /// # Errors
    /// Says what it gets instead.
    pub fn greet(&self, seed: u64) -> Result<(), String> {
        let owned = self.take().map_err(|error| format!("could not {error}"))?;
        let healthy = owned.runtime.block_on(owned.external.answers(&self.binding, seed));
        self.give_back(owned);
        let last_word = match healthy.map_err(|reason| reason.to_string())? {
            HealthyClient::Tried(outcome) if outcome.class == Class::Served || !outcome.class.is_good() => {
                return Ok(());
            }
            HealthyClient::CredentialRefused(outcome) => {
                return Err(format!("your credential was refused: {outcome}"));
            }
            HealthyClient::Tried(outcome) | HealthyClient::RefusedByDesign(outcome) => outcome.to_string(),
            HealthyClient::Absent => "none of them lets it in".to_owned(),
        };
        if !self.binding.is_unknown() {
            return Err(format!("before anything was tried the healthy client of {} gets {last_word}", self.authority));
        }
        if self.routes.is_empty() {
            return Err("it tells no routes: `--path` names one, or a relapse.toml says how it is spoken to".to_owned());
        }
        let asked: Vec<String> = self.routes.iter().map(ToString::to_string).collect();
        Err(format!(
            "no route lets the plainest request in ({}), {last_word}; `--path` names one with the query it needs, or a \
             relapse.toml says how it is spoken to",
            asked.join("; ")
        ))
    }

    /// Remarks about its runs that a user should read.
    pub fn notes(&self) -> Vec<Note> {
        self.free().iter().flat_map(|owned| owned.external.target.notes()).collect()
    }

    /// Stops whatever was hunted on, and waits for its end; what went wrong then, each once.
    ///
    /// # Errors
    /// When something panicked.
    pub fn shut_down(&self) -> Result<BTreeSet<String>, Error> {
        let all = std::mem::take(&mut *self.free());
        let mut complaints = BTreeSet::new();
        for Owned { external, runtime } in all {
            complaints.extend(runtime.block_on(external.shut_down())?);
        }
        Ok(complaints)
    }

    /// Whether it is hunted on by its own routes.
    pub(super) fn is_by_route(&self) -> bool {
        !self.routes.is_empty()
    }

    /// Counts which routes accepted a client.
    pub(super) fn count(&self, reached: &mut BTreeMap<String, u64>, evidence: &RunView<'_>) {
        for (reading, outcome) in evidence.readings.iter().zip(&evidence.outcomes) {
            let Some(head) = reading.request else { continue };
            let path = head.path_and_query().0;
            let is_it = |route: &&Route| {
                route.is_websocket == reading.asked_for_upgrade()
                    && (route.is_websocket || route.methods.contains(&head.method))
                    && route.has_path(&path)
            };
            if let Some(route) = self.routes.iter().find(is_it) {
                *reached.entry(route.to_string()).or_default() += u64::from(outcome.class == Class::Served);
            }
        }
    }

    /// Where faults can act.
    pub(super) fn places(&self) -> &'static [Place] {
        self.capabilities.places
    }

    /// The drawn case, as far as it can be done there: clients for whom there is room, faults where they can act, and
    /// times that a client can wait for.
    pub(super) fn adapt(&self, drawn: GeneratedCase, seed: u64) -> GeneratedCase {
        let faults = drawn.faults.into_iter().filter(|fault| self.places().contains(&fault.kind.place()));
        let (visits, crowd) = self.as_promised(seed).unwrap_or_else(|| {
            let visits = if self.is_by_route() { self.by_route(drawn.visits, seed) } else { drawn.visits };
            (visits, Concurrency::ONE)
        });
        GeneratedCase {
            visits,
            crowd,
            faults: faults.map(|fault| if self.is_real() { fault.scaled(TIME_SCALE) } else { fault }).collect(),
            environment: Environment::Staging,
            server: 0,
        }
    }

    /// Some clients follow the service file, if there is one that describes the service. Many at a time come only if time,
    /// and so everything, is virtual.
    fn as_promised(&self, seed: u64) -> Option<promised::Clients> {
        let mut chance = fastrand::Rng::with_seed(seed.wrapping_mul(0xA24B_AED4_963E_E407));
        let is_one = !self.binding.is_unknown() && chance.u8(..4) == 0;
        is_one.then(|| promised::draw(&mut chance, &self.binding, !self.is_real())).flatten()
    }

    /// The visits, to the application's own routes. If a service file describes the service, some stay as they are, in the
    /// service file's words.
    fn by_route(&self, visits: Vec<Vec<Step>>, seed: u64) -> Vec<Vec<Step>> {
        let mut chance = fastrand::Rng::with_seed(seed.wrapping_mul(0xD1B5_4A32_D192_ED03));
        let (sessions, requests): (Vec<&Route>, Vec<&Route>) = self.routes.iter().partition(|route| route.is_websocket);
        let in_own_words = |visit: Vec<Step>| -> Vec<Step> {
            visit.into_iter().filter_map(|step| in_the_words_of(&self.binding, &self.authority, step)).collect()
        };
        let all: Vec<&Route> = self.routes.iter().collect();
        let mut by_route = |visit: Vec<Step>| {
            let like = match visit.first().map(|step| &step.act) {
                // The paths that servers and middleware trip over are the same everywhere.
                Some(Action::Request(_)) if chance.u8(..8) == 0 => return in_own_words(visit),
                Some(Action::Open(_)) if !self.binding.is_unknown() && chance.usize(..=sessions.len()) <= 1 => {
                    return in_own_words(visit);
                }
                Some(Action::Open(_)) => &sessions,
                Some(Action::Request(_)) => &requests,
                _ => return visit,
            };
            let among = if like.is_empty() || chance.bool() { &all } else { like };
            let route = among[chance.usize(..among.len())];
            let mut visit = routes::visit(&mut chance, route);
            // As a file has it that says nothing of it.
            for step in visit.iter_mut().filter(|_| !self.binding.credential.is_needed()) {
                match &mut step.act {
                    Action::Open(request) => request.credential = Credential::Valid,
                    Action::Request(request) => request.credential = Credential::None,
                    _ => {}
                }
            }
            visit
        };
        visits.into_iter().map(&mut by_route).collect()
    }

    fn is_real(&self) -> bool {
        self.capabilities.clock == Clock::Real
    }

    /// A step in the service's own words.
    fn say(&self, step: Step) -> Option<Step> {
        let step = match self.is_by_route() {
            true => as_written(&self.binding, &self.authority, step),
            false => in_the_words_of(&self.binding, &self.authority, step)?,
        };
        Some(match step.act {
            _ if !self.is_real() => step,
            Action::Pause | Action::Freeze => Step { limit: step.limit.min(PAUSE_MAX), ..step },
            _ => Step { limit: step.limit.min(STEP_MAX), ..step },
        })
    }

    /// Runs what was adapted, in the service's own words.
    pub(super) fn play(&self, owned: &Owned, drawn: &GeneratedCase, seed: u64) -> Result<Transcript, Error> {
        let plan = Plan { seed, faults: drawn.faults.clone() };
        let steps: Vec<Step> = drawn.steps().into_iter().filter_map(|step| self.say(step)).collect();
        let target = owned.external.target.as_ref();
        owned.runtime.block_on(async {
            let transcript = run::converse_as(drawn.crowd, &steps, plan, target).await;
            target.clear().await?;
            transcript
        })
    }

    /// Where it is, and what it is like.
    pub fn name(&self) -> String {
        let ExternalTarget { kind, authority, .. } = self;
        if kind.profiles.is_empty() { authority.clone() } else { format!("{authority} ({kind})") }
    }

    /// The possible causes of the last bad ending of a run.
    pub(super) fn explain(&self, evidence: &RunView<'_>) -> Option<Explanation> {
        let mut ended = evidence.readings.iter().zip(&evidence.outcomes);
        let (reading, outcome) = ended.rfind(|(_, outcome)| !outcome.class.is_good())?;
        self.kind.explain(reading, &outcome.ending)
    }
}
