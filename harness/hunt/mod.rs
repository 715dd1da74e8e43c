//! Looks for what nobody reported: draws scripts and plans, runs them, judges, and shrinks what fails.

mod draw;
mod hardship;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::Arc;

pub use draw::{Aim, Drawn, draw};

use crate::{
    cause::Cause,
    check::{self, Evidence},
    error::Error,
    fault::{Place, Trigger},
    outcome::{Class, Ending, Outcome},
    plan::Plan,
    profile::Profile,
    revision::Revision,
    run::Conductor,
    step::{Act, Crowd},
    transcript::{Party, Transcript},
};

/// Something that a hunt found.
#[derive(Debug, Clone)]
pub struct Found {
    /// What tells it from other findings: the class or the check, and what it complains of.
    pub key: String,
    /// The complaint, with its evidence.
    pub message: String,
    /// What else is complained of in the same smallest case: key and message.
    pub also: Vec<(String, String)>,
    /// The seed that drew it.
    pub seed: u64,
    /// The smallest thing that still shows it.
    pub drawn: Drawn,
    /// What happens then.
    pub transcript: Transcript,
}

/// What a hunt did. One that reached nothing proves nothing.
#[derive(Debug, Default)]
pub struct Campaign {
    /// How many cases were drawn and judged.
    pub cases: u64,
    /// How often each class was reached.
    pub classes: BTreeMap<Class, u64>,
    /// How often each kind of fault acted.
    pub faults: BTreeMap<&'static str, u64>,
    /// How many upgrades were accepted.
    pub sessions: u64,
    /// What was found, each once.
    pub found: Vec<Found>,
}

/// A hunt: on which revision, behind which servers, with which seeds.
#[derive(Debug, Clone)]
pub struct Hunt {
    /// The revision that is hunted on.
    pub revision: Revision,
    /// The servers.
    pub servers: Vec<Arc<Profile>>,
    /// The first seed; each further case has the next one.
    pub seed: u64,
    /// How many cases.
    pub cases: u64,
    /// Whether the first finding ends it.
    pub stops_at_first: bool,
    /// The places that faults may act at.
    pub places: Vec<Place>,
    /// Whether servers keep to the ASGI specification.
    pub legal_only: bool,
}

impl Hunt {
    /// What may be drawn.
    fn aim(&self) -> Aim {
        Aim { servers: self.servers.len(), places: self.places.clone(), legal_only: self.legal_only }
    }
}

/// Hunts with many workers at a time, each with a clock of its own; the result does not depend on how many. `done` is
/// called after each case.
///
/// # Errors
/// When the harness could not do its work.
pub fn hunt_all(hunt: &Hunt, jobs: usize, done: &(dyn Fn() + Sync)) -> Result<Campaign, Error> {
    let jobs = jobs.clamp(1, usize::try_from(hunt.cases).unwrap_or(usize::MAX).max(1)) as u64;
    let part = |job: u64| {
        let (start, end) = (hunt.cases * job / jobs, hunt.cases * (job + 1) / jobs);
        let hunt = Hunt { seed: hunt.seed.wrapping_add(start), cases: end - start, ..hunt.clone() };
        Conductor::default().scan(&hunt, &|| done())
    };
    let parts: Vec<Result<Scan, Error>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|job| scope.spawn(move || part(job))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    let mut whole = Scan::default();
    for part in parts {
        whole.add(part?);
    }
    Conductor::default().conclude(hunt, whole)
}

/// What was drawn and run, and which draws complained of something first.
#[derive(Debug, Default)]
struct Scan {
    campaign: Campaign,
    /// For each complaint the first case that has it, counted from the hunt's own first.
    first: BTreeMap<String, u64>,
}

impl Scan {
    /// Adds the scan of the cases that follow.
    fn add(&mut self, next: Scan) {
        let before = self.campaign.cases;
        self.campaign.cases += next.campaign.cases;
        self.campaign.sessions += next.campaign.sessions;
        for (class, count) in next.campaign.classes {
            *self.campaign.classes.entry(class).or_default() += count;
        }
        for (kind, count) in next.campaign.faults {
            *self.campaign.faults.entry(kind).or_default() += count;
        }
        for (key, case) in next.first {
            self.first.entry(key).or_insert(before + case);
        }
    }
}

impl Conductor {
    /// Hunts. `done` is called after each case.
    ///
    /// # Errors
    /// When the harness could not do its work.
    pub fn hunt(&self, hunt: &Hunt, done: &dyn Fn()) -> Result<Campaign, Error> {
        self.conclude(hunt, self.scan(hunt, done)?)
    }

    fn scan(&self, hunt: &Hunt, done: &dyn Fn()) -> Result<Scan, Error> {
        let mut scan = Scan::default();
        let aim = hunt.aim();
        for case in 0..hunt.cases {
            let seed = hunt.seed.wrapping_add(case);
            let drawn = draw(seed, &aim);
            let transcript = self.play(hunt, &drawn, seed)?;
            scan.campaign.count(&drawn, &transcript);
            for (key, _) in complaints(&transcript) {
                scan.first.entry(key).or_insert(case);
            }
            done();
            if hunt.stops_at_first && !scan.first.is_empty() {
                break;
            }
        }
        Ok(scan)
    }

    /// Shrinks what complained first, in the order of the cases. What the smallest case complains of beside it is the
    /// same finding, seen by another check.
    fn conclude(&self, hunt: &Hunt, scan: Scan) -> Result<Campaign, Error> {
        let Scan { mut campaign, first } = scan;
        let (mut known, aim) = (BTreeSet::new(), hunt.aim());
        let cases: BTreeSet<u64> = first.values().copied().collect();
        for seed in cases.into_iter().map(|case| hunt.seed.wrapping_add(case)) {
            let drawn = draw(seed, &aim);
            for (key, _) in complaints(&self.play(hunt, &drawn, seed)?) {
                if known.contains(&key) {
                    continue;
                }
                let found = self.shrink(hunt, key, drawn.clone(), seed)?;
                known.insert(found.key.clone());
                known.extend(found.also.iter().map(|(key, _)| key.clone()));
                campaign.found.push(found);
            }
        }
        Ok(campaign)
    }

    fn play(&self, hunt: &Hunt, drawn: &Drawn, seed: u64) -> Result<Transcript, Error> {
        let plan = Plan { seed, faults: drawn.faults.clone() };
        let profile = &hunt.servers[drawn.server];
        self.converse(hunt.revision, drawn.environment, profile, drawn.crowd, &drawn.steps(), plan)
    }

    /// Takes away whatever can be taken away while the same complaint remains.
    fn shrink(&self, hunt: &Hunt, key: String, drawn: Drawn, seed: u64) -> Result<Found, Error> {
        let mut smallest = drawn;
        let shows = |candidate: &Drawn| -> Result<bool, Error> {
            let transcript = self.play(hunt, candidate, seed)?;
            Ok(complaints(&transcript).iter().any(|(other, _)| *other == key))
        };
        'again: loop {
            for candidate in smaller(&smallest) {
                if shows(&candidate)? {
                    smallest = candidate;
                    continue 'again;
                }
            }
            break;
        }
        let transcript = self.play(hunt, &smallest, seed)?;
        let (own, also): (Vec<_>, Vec<_>) = complaints(&transcript).into_iter().partition(|(other, _)| *other == key);
        let message = own.into_iter().next().map(|(_, message)| message).unwrap_or_default();
        Ok(Found { key, message, also, seed, drawn: smallest, transcript })
    }
}

/// Everything that is one step smaller: fewer visits, fewer faults, fewer clients, fewer steps in a visit, a simpler
/// trigger, the first server.
fn smaller(drawn: &Drawn) -> Vec<Drawn> {
    let with = |change: &dyn Fn(&mut Drawn)| {
        let mut candidate = drawn.clone();
        change(&mut candidate);
        candidate
    };
    let mut candidates = Vec::new();
    if drawn.visits.len() > 1 {
        candidates.extend((0..drawn.visits.len()).map(|index| with(&|drawn| drop(drawn.visits.remove(index)))));
    }
    candidates.extend((0..drawn.faults.len()).map(|index| with(&|drawn| drop(drawn.faults.remove(index)))));
    if drawn.crowd != Crowd::ONE {
        candidates.push(with(&|drawn| drawn.crowd = Crowd::ONE));
    }
    for (visit, steps) in drawn.visits.iter().enumerate() {
        // The first step opens, without it the others mean nothing; a message goes with the wait for its answer.
        for (index, step) in steps.iter().enumerate().skip(1) {
            match step.act {
                Act::SendText(_) | Act::SendBytes(_) => {
                    let waits = steps.get(index + 1).is_some_and(|next| matches!(next.act, Act::Wait(_)));
                    let end = index + 1 + usize::from(waits);
                    candidates.push(with(&|drawn| drop(drawn.visits[visit].drain(index..end))));
                }
                Act::Wait(_) => {}
                _ => candidates.push(with(&|drawn| drop(drawn.visits[visit].remove(index)))),
            }
        }
    }
    for (index, fault) in drawn.faults.iter().enumerate() {
        let simplest = Trigger { until: fault.trigger.until, ..Trigger::default() };
        if fault.trigger != simplest {
            candidates.push(with(&|drawn| drawn.faults[index].trigger = simplest));
        }
    }
    if drawn.server != 0 {
        candidates.push(with(&|drawn| drawn.server = 0));
    }
    candidates
}

impl Campaign {
    /// Whether anything was reached at all: an upgrade, and a fault.
    pub fn reached_anything(&self) -> bool {
        self.sessions > 0 && self.faults.values().any(|&count| count > 0)
    }

    fn count(&mut self, drawn: &Drawn, transcript: &Transcript) {
        self.cases += 1;
        self.sessions += transcript.sessions() as u64;
        for reading in crate::classify::readings(transcript) {
            *self.classes.entry(reading.outcome().class).or_default() += 1;
        }
        for (fault, count) in drawn.faults.iter().zip(&transcript.fired) {
            *self.faults.entry(fault.kind.name()).or_default() += u64::from(*count);
        }
    }
}

/// Everything that is wrong with a run, each with what tells it from other complaints.
fn complaints(transcript: &Transcript) -> Vec<(String, String)> {
    // Nobody is beside the clients of a hunt.
    let control =
        Outcome { class: Class::GoodOpen, cause: Cause::Clean, ending: Ending::Left, closed_by: Party::Probe };
    let evidence = Evidence::gather(transcript, &control);
    let bad = evidence.outcomes.iter().filter(|outcome| !outcome.class.is_good());
    let bad: Vec<(String, String)> =
        bad.map(|outcome| (format!("{}: {}", outcome.class, outcome.cause), outcome.to_string())).collect();
    let found = check::findings(&evidence).into_iter();
    bad.into_iter()
        .chain(found.map(|finding| (format!("{}: {}", finding.check, finding.key), finding.message)))
        .collect()
}
