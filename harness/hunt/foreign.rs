//! Hunting on a server that is not ours: what was drawn, in the server's own words, on the wall clock and within its
//! budget.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::thread::{ThreadId, current};
use std::time::Duration;

use super::{Drawn, promise, visit};
use crate::{
    binding::Binding,
    bound::{Reach, Server, as_said, in_the_words_of},
    check::Evidence,
    classify,
    clock::{Clock, Runtime},
    credential::Credential,
    environment::Environment,
    error::Error,
    explain::{Explanation, Kind},
    fault::Place,
    outcome::Class,
    plan::Plan,
    python::Note,
    route::Route,
    run,
    step::{Act, Crowd, Step},
    transcript::Transcript,
};

/// The longest that a step may take, or pause: time is real.
const STEP_MAX: Duration = Duration::from_secs(4);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How much shorter the times of drawn faults are than where time costs nothing.
const TIME_SCALE: f64 = 0.05;

/// A server that is not ours, as something to hunt on. Each worker has one of its own, where there can be more than one.
pub struct Foreign {
    binding: Binding,
    /// What is the same of all of them.
    authority: String,
    kind: Kind,
    places: &'static [Place],
    clock: Clock,
    routes: Vec<Route>,
    reach: Option<Box<Reaching>>,
    seats: Mutex<HashMap<ThreadId, Seat>>,
}

/// Reaches the same once more.
pub type Reaching = dyn Fn(&Runtime) -> Result<Server, Error> + Send + Sync;

/// What one worker hunts on, on the clock that it was reached with.
#[derive(Debug)]
struct Seat {
    server: Server,
    runtime: Runtime,
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Foreign {
    /// What is hunted on, on the clock that it was reached with, by the thread that calls.
    pub fn new(server: Server, binding: Binding, runtime: Runtime) -> Foreign {
        Foreign {
            binding,
            authority: server.authority(),
            kind: server.kind.clone(),
            places: server.places(),
            clock: server.clock(),
            routes: server.routes.clone(),
            reach: None,
            seats: Mutex::new(HashMap::from([(current().id(), Seat { server, runtime })])),
        }
    }

    /// The same, where each further worker reaches one of its own.
    #[must_use]
    pub fn for_many(self, reach: Box<Reaching>) -> Foreign {
        Foreign { reach: Some(reach), ..self }
    }

    /// Whether more than one worker can hunt on it.
    pub(super) fn is_for_many(&self) -> bool {
        self.reach.is_some()
    }

    /// Does something with what this thread hunts on.
    fn with_seat<T>(&self, then: impl FnOnce(&Seat) -> T) -> Result<T, Error> {
        let own = current().id();
        let seats = || self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = seats().remove(&own);
        let seat = match (taken, &self.reach) {
            (Some(seat), _) => seat,
            (None, Some(reach)) => {
                let runtime = Runtime::new(self.clock);
                Seat { server: reach(&runtime)?, runtime }
            }
            (None, None) => unreachable!("one worker hunts on what there is once"),
        };
        let done = then(&seat);
        seats().insert(own, seat);
        Ok(done)
    }

    /// Looks whether a valid client gets a say there, without which a hunt proves nothing.
    ///
    /// # Errors
    /// Says what it gets instead.
    pub fn greet(&self, seed: u64) -> Result<(), String> {
        let greet = |seat: &Seat| seat.runtime.block_on(seat.server.control(&self.binding, seed)).map(drop);
        self.with_seat(greet).map_err(|error| format!("could not {error}"))?
    }

    /// Whether it can be had in a process that has served nobody yet, at a price that can be paid for each finding.
    pub(super) fn can_begin_anew(&self) -> bool {
        self.with_seat(|seat| matches!(seat.server.reach, Reach::Python(_))).unwrap_or(false)
    }

    /// Lets what is played next meet a process that has served nobody yet.
    pub(super) fn begin_anew(&self) -> Result<(), Error> {
        self.with_seat(|Seat { server, runtime }| match &server.reach {
            Reach::Python(python) => runtime.block_on(python.begin_anew()),
            Reach::Url(_) | Reach::Served(_) => Ok(()),
        })?
    }

    /// What was noticed that virtual time does not wait for.
    pub fn notes(&self) -> Vec<Note> {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.values().flat_map(|seat| seat.server.notes()).collect()
    }

    /// Tells whatever was hunted on to stop, and waits until it has; what was wrong with that, each once.
    ///
    /// # Errors
    /// When something panicked.
    pub fn shut_down(&self) -> Result<BTreeSet<String>, Error> {
        let seats = std::mem::take(&mut *self.seats.lock().unwrap_or_else(PoisonError::into_inner));
        let mut complaints = BTreeSet::new();
        for Seat { server, runtime } in seats.into_values() {
            complaints.extend(runtime.block_on(server.shut_down())?);
        }
        Ok(complaints)
    }

    /// Whether it is hunted on by its own routes.
    pub(super) fn is_by_route(&self) -> bool {
        !self.routes.is_empty()
    }

    /// Counts which routes let somebody in.
    pub(super) fn count(&self, reached: &mut BTreeMap<String, u64>, evidence: &Evidence<'_>) {
        for (reading, outcome) in evidence.readings.iter().zip(&evidence.outcomes) {
            let Some(head) = reading.request else { continue };
            let path = head.path_and_query().0;
            let is_it = |route: &&Route| {
                route.is_websocket == reading.asked_for_upgrade()
                    && (route.is_websocket || route.methods.contains(&head.method))
                    && route.has_path(&path)
            };
            if let Some(route) = self.routes.iter().find(is_it) {
                *reached.entry(route.to_string()).or_default() += u64::from(outcome.class == Class::GoodOpen);
            }
        }
    }

    /// Where faults can act.
    pub(super) fn places(&self) -> &'static [Place] {
        self.places
    }

    /// What was drawn, as far as it can be done there: clients for whom there is room, faults where they can act, and times
    /// that somebody can wait for.
    pub(super) fn adapt(&self, drawn: Drawn, seed: u64) -> Drawn {
        let faults = drawn.faults.into_iter().filter(|fault| self.places().contains(&fault.kind.place()));
        let (visits, crowd) = self.as_promised(seed).unwrap_or_else(|| {
            let visits = if self.is_by_route() { self.by_route(drawn.visits, seed) } else { drawn.visits };
            (visits, Crowd::ONE)
        });
        Drawn {
            visits,
            crowd,
            faults: faults.map(|fault| if self.is_real() { fault.scaled(TIME_SCALE) } else { fault }).collect(),
            environment: Environment::Staging,
            server: 0,
        }
    }

    /// Some clients are about what the binding says: where somebody said how it is spoken to. Many at a time come only where
    /// time, and so everything, is ours.
    fn as_promised(&self, seed: u64) -> Option<promise::Clients> {
        let mut chance = fastrand::Rng::with_seed(seed.wrapping_mul(0xA24B_AED4_963E_E407));
        let is_one = !self.binding.is_unknown() && chance.u8(..4) == 0;
        is_one.then(|| promise::draw(&mut chance, &self.binding, !self.is_real())).flatten()
    }

    /// The visits, to the application's own routes. Where somebody said how it is spoken to, some stay as they are, in the
    /// binding's words.
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
                Some(Act::Request(_)) if chance.u8(..8) == 0 => return in_own_words(visit),
                Some(Act::Open(_)) if !self.binding.is_unknown() && chance.usize(..=sessions.len()) <= 1 => {
                    return in_own_words(visit);
                }
                Some(Act::Open(_)) => &sessions,
                Some(Act::Request(_)) => &requests,
                _ => return visit,
            };
            let among = if like.is_empty() || chance.bool() { &all } else { like };
            let route = among[chance.usize(..among.len())];
            let mut visit = visit::visit(&mut chance, route);
            // As a file has it that says nothing of it.
            for step in visit.iter_mut().filter(|_| !self.binding.credential.is_needed()) {
                match &mut step.act {
                    Act::Open(request) => request.credential = Credential::Valid,
                    Act::Request(request) => request.credential = Credential::None,
                    _ => {}
                }
            }
            visit
        };
        visits.into_iter().map(&mut by_route).collect()
    }

    fn is_real(&self) -> bool {
        self.clock == Clock::Real
    }

    /// A step in the server's own words.
    fn say(&self, step: Step) -> Option<Step> {
        let say = if self.is_by_route() { as_said } else { in_the_words_of };
        let step = say(&self.binding, &self.authority, step)?;
        Some(match step.act {
            _ if !self.is_real() => step,
            Act::Pause | Act::Freeze => Step { limit: step.limit.min(PAUSE_MAX), ..step },
            _ => Step { limit: step.limit.min(STEP_MAX), ..step },
        })
    }

    /// Runs what was adapted, in the server's own words.
    pub(super) fn play(&self, drawn: &Drawn, seed: u64) -> Result<Transcript, Error> {
        let plan = Plan { seed, faults: drawn.faults.clone() };
        self.with_seat(|Seat { server, runtime }| {
            let steps: Vec<Step> = drawn.steps().into_iter().filter_map(|step| self.say(step)).collect();
            runtime.block_on(async {
                let transcript = run::converse_as(drawn.crowd, &steps, plan, server.running()).await;
                server.clear().await?;
                transcript
            })
        })?
    }

    /// Where it is, and what it is like.
    pub(super) fn name(&self) -> String {
        let Foreign { kind, authority, .. } = self;
        if kind.profiles.is_empty() { authority.clone() } else { format!("{authority} ({kind})") }
    }

    /// What may have brought the worst of these endings about.
    pub(super) fn explain(&self, transcript: &Transcript) -> Option<Explanation> {
        let readings = classify::readings(transcript);
        let mut ended = readings.iter().map(|reading| (reading, reading.outcome()));
        let (reading, outcome) = ended.rfind(|(_, outcome)| !outcome.class.is_good())?;
        self.kind.explain(reading, &outcome.ending)
    }

    /// Whether so much of the budget is left that more can be tried; the rest is for looking at what was found.
    pub(super) fn may_go_on(&self) -> bool {
        let may = self.with_seat(|seat| match &seat.server.reach {
            Reach::Url(url) => url.is_half_left(),
            Reach::Python(_) | Reach::Served(_) => true,
        });
        may.unwrap_or(true)
    }
}
