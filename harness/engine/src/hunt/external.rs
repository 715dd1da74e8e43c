//! Hunting on an external server: the drawn cases, in the server's own words, on the wall clock and within its budget.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    Coverage, GeneratedCase, GeneratorConfig,
    generate::{AbstractCase, OwnClients, PlainRequest, Session, Translator},
    promised::{self, Room},
    routes,
    standard::StandardWords,
    stories::{self, Story},
};
use crate::{
    environment::Environment,
    explain::{Explanation, PossibleServers},
    external::{External, as_written, in_the_words_of},
    note::Note,
    route::{Route, RouteTrouble},
    run,
    service_file::ServiceFile,
    target::{BudgetLeft, Capabilities, Renewal},
};
use relapse_core::{
    choices::Choices,
    client::{
        credential::Credential,
        step::{Action, Concurrency, Step},
    },
    error::Error,
    fault::{Fault, Place},
    judge::{check::RunView, classify::Exchange, outcome::Class, verdict::HealthyClient},
    plan::Plan,
    record::{code::Blocks, redact::Redactor, transcript::Transcript},
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    memory::RunMemory,
    recorder::Recorder,
};

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
    /// The failures to learn its routes.
    pub troubles: Vec<RouteTrouble>,
    launch: Option<Box<Launch>>,
    /// Those that no worker owns at the moment.
    free: Mutex<Vec<Owned>>,
}

/// How a target receives the plainest client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeting {
    /// It serves it.
    LetIn,
    /// It does not: the client, and how it fares. Refusals are answers, and hangs and failures are what a hunt is for.
    TurnedAway(String),
}

/// Launches the same once more.
pub type Launch = dyn Fn(&Runtime) -> Result<External, Error> + Send + Sync;

/// The target that one worker hunts on, with the clock that it was launched on.
#[derive(Debug)]
pub(super) struct Owned {
    external: External,
    runtime: Runtime,
}

/// The weights of a route that speaks the same as a visit, of one that does not, and of the service file.
const LIKE: u32 = 4;
const UNLIKE: u32 = 1;
const SERVICE_FILE: u32 = 16;

/// The protocol that a route speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RouteKind {
    Websocket,
    Http,
}

impl RouteKind {
    fn of(route: &Route) -> RouteKind {
        if route.is_websocket { RouteKind::Websocket } else { RouteKind::Http }
    }
}

/// How much more weight a route has that has code which no case has reached.
const FAVORED: u32 = 3;

/// How much more weight a route has that takes something which can be varied. One of a library that only serves a page or a
/// document takes nothing.
const VARIABLE: u32 = 8;

/// The words of a target, where these routes are favored.
#[derive(Clone, Copy)]
struct Words<'w> {
    target: &'w ExternalTarget,
    favored: &'w BTreeSet<String>,
}

/// Visits go to the application's own routes. If a service file describes the service, some sessions are in its words, and
/// some clients follow what it promises.
impl Translator for Words<'_> {
    fn session(&self, session: &Session) -> Vec<Step> {
        let target = self.target;
        if !target.is_by_route() {
            return StandardWords.session(session);
        }
        let file = (!target.binding.is_unknown()).then(|| (SERVICE_FILE, "service file".to_owned(), None));
        let candidates = self.candidates(RouteKind::Websocket).chain(file);
        match session.choices.fork("route").pick(candidates).flatten() {
            None => target.in_own_words(StandardWords.session(session)),
            Some(route) => target.without_credential(routes::session(session, route)),
        }
    }

    fn request(&self, asked: &PlainRequest) -> Vec<Step> {
        let target = self.target;
        if !target.is_by_route() {
            return StandardWords.request(asked);
        }
        // The paths that servers and middleware trip over are the same everywhere.
        if asked.choices.fork("is standard").happens(1, 8) {
            return target.in_own_words(StandardWords.request(asked));
        }
        match asked.choices.fork("route").pick(self.candidates(RouteKind::Http)).flatten() {
            None => Vec::new(),
            Some(route) if route.is_websocket => {
                target.without_credential(routes::session(&Session::draw(asked.choices, &[]), route))
            }
            Some(route) => target.without_credential(routes::request(asked, route)),
        }
    }

    fn own_clients(&self, choices: Choices) -> Option<OwnClients> {
        let target = self.target;
        let are_own = !target.binding.is_unknown() && choices.fork("are own").happens(1, 4);
        let room = if target.is_real() { Room::ForOne } else { Room::ForMany };
        let promised = are_own.then(|| promised::draw(choices, &target.binding, room)).flatten();
        promised.map(|clients| OwnClients { clients, are_compared: false }).or_else(|| target.story(choices))
    }

    fn room(&self, _: Concurrency) -> Concurrency {
        Concurrency::ONE
    }
}

impl<'w> Words<'w> {
    /// The routes as candidates, each with its weight: mostly those that speak the same as the visit, those with code that
    /// no case has reached, and those that take something.
    fn candidates(&self, of_visit: RouteKind) -> impl Iterator<Item = (u32, String, Option<&'w Route>)> {
        let Words { target, favored } = *self;
        target.routes.iter().map(move |route| {
            let weight = if RouteKind::of(route) == of_visit { LIKE } else { UNLIKE };
            let name = route.to_string();
            let weight = if favored.contains(&name) { weight * FAVORED } else { weight };
            let weight = if route.takes_something() { weight * VARIABLE } else { weight };
            (weight, name, Some(route))
        })
    }
}

impl fmt::Debug for ExternalTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalTarget").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Owned {
    /// Whether a process that has served no client can follow at a price that can be paid for each finding.
    pub(super) fn can_renew(&self) -> bool {
        self.external.target.capabilities().renewal == Renewal::Cheap
    }

    /// Whether its time is virtual, so that a run really takes no longer than its computing.
    pub(super) fn is_virtual(&self) -> bool {
        self.runtime.clock() == Clock::Virtual
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
    /// Clients whose acts belong together, in a part of the cases.
    fn story(&self, choices: Choices) -> Option<OwnClients> {
        let choices = choices.fork("story");
        let is_one = self.is_by_route() && choices.fork("is one").happens(1, 3);
        let Story { visits, is_compared } = is_one.then(|| stories::draw(choices, &self.routes)).flatten()?;
        let visits = visits.into_iter().map(|steps| self.without_credential(steps)).collect();
        Some(OwnClients { clients: (visits, Concurrency::ONE), are_compared: is_compared })
    }

    /// Replaces its secrets.
    pub(super) fn redactor(&self) -> Redactor {
        self.binding.redactor.clone()
    }

    /// A target to hunt on, with the clock that it was launched on.
    pub fn new(external: External, binding: ServiceFile, runtime: Runtime) -> ExternalTarget {
        let is_described = !(external.routes.is_empty() && binding.is_unknown());
        let routes = if is_described { external.routes.clone() } else { Route::root() };
        ExternalTarget {
            routes,
            binding,
            authority: external.target.authority(),
            kind: external.kind.clone(),
            capabilities: external.target.capabilities(),
            troubles: external.troubles.clone(),
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

    /// Looks whether the plainest client is let in, so that its user knows what a hunt can reach.
    ///
    /// # Errors
    /// When nothing answers there, or the user's own credential is refused.
    pub fn greet(&self, seed: u64) -> Result<Greeting, String> {
        let owned = self.take().map_err(|error| format!("could not {error}"))?;
        let healthy = owned.runtime.block_on(owned.external.answers(&self.binding, seed));
        self.give_back(owned);
        let last_word = match healthy.map_err(|reason| reason.to_string())? {
            HealthyClient::Tried(outcome) if outcome.class == Class::Served => return Ok(Greeting::LetIn),
            HealthyClient::CredentialRefused(outcome) => {
                return Err(format!("your credential was refused: {outcome}"));
            }
            HealthyClient::Tried(outcome) | HealthyClient::RefusedByDesign(outcome) => outcome.to_string(),
            HealthyClient::Absent => {
                return Ok(Greeting::TurnedAway(format!("no route of {} is known to serve a client", self.authority)));
            }
        };
        let client = if self.binding.is_unknown() { "the plainest request" } else { "the healthy client" };
        Ok(Greeting::TurnedAway(format!("{client} to {} gets {last_word}", self.authority)))
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

    /// Counts which routes accepted a client, and how they turned clients away.
    pub(super) fn count(&self, reached: &mut Coverage, evidence: &RunView<'_>) {
        for (reading, outcome) in evidence.readings.iter().zip(&evidence.outcomes) {
            let Some(route) = self.route_of_exchange(reading).map(ToString::to_string) else { continue };
            let is_served = outcome.class == Class::Served;
            *reached.routes.entry(route.clone()).or_default() += u64::from(is_served);
            if !is_served && reached.routes[&route] == 0 {
                *reached.refusals.entry(route).or_default().entry(outcome.ending.to_string()).or_default() += 1;
            }
        }
    }

    /// The names of its routes.
    pub(super) fn route_names(&self) -> Vec<String> {
        self.routes.iter().map(ToString::to_string).collect()
    }

    /// The blocks of the app's own code, as far as they are known of the targets that no worker owns.
    pub(super) fn blocks(&self) -> Blocks {
        self.free().iter().flat_map(|owned| owned.external.target.blocks()).collect()
    }

    /// The route that takes the request of an exchange, as it reached the server.
    pub(super) fn route_of_exchange(&self, reading: &Exchange<'_>) -> Option<&Route> {
        let head = reading.delivered.or(reading.request)?;
        let path = head.path_and_query().0;
        self.routes.iter().find(|route| {
            let is_taken = if reading.asked_for_upgrade() { route.is_websocket } else { route.takes(&head.method) };
            is_taken && route.has_path(&path)
        })
    }

    /// The route that a step visits.
    pub(super) fn route_of(&self, step: &Step) -> Option<&Route> {
        let (request, is_upgrade) = match &step.act {
            Action::Open(request) => (request, true),
            Action::Request(request) => (request, false),
            _ => return None,
        };
        self.routes.iter().find(|route| {
            let is_taken = if is_upgrade { route.is_websocket } else { route.takes(&request.method) };
            is_taken && route.has_path(&request.path)
        })
    }

    /// Where faults can act.
    pub(super) fn places(&self) -> &'static [Place] {
        self.capabilities.places
    }

    /// Draws a case in its words: clients for whom there is room, and times that a client can wait for. The same seed gives
    /// the same.
    pub fn draw(&self, seed: u64, config: &GeneratorConfig) -> GeneratedCase {
        self.draw_favoring(seed, config, &BTreeSet::new())
    }

    /// Draws a case, more often on these routes than on others.
    pub(super) fn draw_favoring(
        &self,
        seed: u64,
        config: &GeneratorConfig,
        favored: &BTreeSet<String>,
    ) -> GeneratedCase {
        let words = Words { target: self, favored };
        let drawn = AbstractCase::draw(seed, &config.places).translate(&words, config);
        // Where servers keep to the specification they do what real ones do.
        let faults = drawn.faults.iter().filter(|fault| !config.legal_only || fault.kind.is_ordinary());
        GeneratedCase {
            faults: faults.map(|fault| self.in_its_time(fault)).collect(),
            environment: Environment::Staging,
            server: config.servers.first().cloned().unwrap_or_default(),
            ..drawn
        }
    }

    /// A fault whose times a client can wait for.
    fn in_its_time(&self, fault: &Fault) -> Fault {
        if self.is_real() { fault.scaled(TIME_SCALE) } else { fault.clone() }
    }

    /// Steps in the words of the built-in service, said in those of the service file.
    fn in_own_words(&self, steps: Vec<Step>) -> Vec<Step> {
        steps.into_iter().filter_map(|step| in_the_words_of(&self.binding, &self.authority, step)).collect()
    }

    /// Steps on a route. A file that says nothing of a credential has it thus.
    fn without_credential(&self, mut steps: Vec<Step>) -> Vec<Step> {
        for step in steps.iter_mut().filter(|_| !self.binding.credential.is_needed()) {
            match &mut step.act {
                Action::Open(request) => request.credential = Credential::Valid,
                Action::Request(request) => request.credential = Credential::None,
                _ => {}
            }
        }
        steps
    }

    /// Whether its time is real.
    pub(super) fn is_real(&self) -> bool {
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

    /// Runs what was adapted, in the service's own words, as a run with this memory.
    pub(super) fn play(
        &self,
        owned: &Owned,
        drawn: &GeneratedCase,
        seed: u64,
        memory: RunMemory,
    ) -> Result<Transcript, Error> {
        let plan = Plan { seed, faults: drawn.faults.clone() };
        let steps: Vec<Step> = drawn.steps().into_iter().filter_map(|step| self.say(step)).collect();
        let target = owned.external.target.as_ref();
        owned.runtime.block_on(async {
            let transcript = run::converse_as(drawn.crowd, &steps, Recorder::within(plan, memory), target).await;
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
