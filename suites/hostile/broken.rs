//! A harness that breaks: a panic in a case is told with its seed, and ends nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use relapse::{
    defects::Defects,
    hunt::{BuiltIn, Campaign, Change, ChangeKind, GeneratedCase, Ground, Hunt, Reproduction, Runner, hunt_all},
    trial::Trial,
};
use relapse_backend::{defect::Defect, revision::Revision, runner::ground};
use relapse_command::report::hunt::HuntReport;
use relapse_core::{
    error::Error,
    fault::FaultNames,
    judge::verdict::{Conclusion, RunResult},
    record::transcript::Transcript,
};
use relapse_simulate::{memory::RunMemory, profile::Profile};

use crate::support::listed_servers;

/// How often the case of a seed has to be run before it breaks the harness, from 0 on.
type Breaks = BTreeMap<u64, usize>;

/// The built-in backend, with a harness around it that has a bug.
#[derive(Debug)]
struct Fragile {
    inner: Arc<dyn BuiltIn>,
    breaks: Breaks,
    runs: Arc<Mutex<BTreeMap<u64, usize>>>,
}

struct FragileRunner {
    inner: Box<dyn Runner>,
    breaks: Breaks,
    runs: Arc<Mutex<BTreeMap<u64, usize>>>,
}

impl BuiltIn for Fragile {
    fn runner(&self, memory: RunMemory) -> Box<dyn Runner> {
        Box::new(FragileRunner {
            inner: self.inner.runner(memory),
            breaks: self.breaks.clone(),
            runs: Arc::clone(&self.runs),
        })
    }

    fn known(&self) -> relapse::case::Known<'static> {
        self.inner.known()
    }

    fn fault_names(&self) -> FaultNames<'static> {
        self.inner.fault_names()
    }
}

impl Runner for FragileRunner {
    fn play(
        &self,
        defects: &Defects,
        drawn: &GeneratedCase,
        profile: &Arc<Profile>,
        seed: u64,
    ) -> Result<Transcript, Error> {
        let run = {
            let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
            let count = runs.entry(seed).or_default();
            *count += 1;
            *count - 1
        };
        assert!(self.breaks.get(&seed).is_none_or(|from| run < *from), "a bug of seed {seed}");
        self.inner.play(defects, drawn, profile, seed)
    }

    fn run(&self, trial: &Trial, defects: &Defects, seed: u64) -> Result<RunResult, Error> {
        self.inner.run(trial, defects, seed)
    }
}

/// A hunt on a backend with a defect, with a harness that breaks so.
fn hunt(breaks: Breaks, cases: u64, jobs: usize) -> (Hunt, Campaign) {
    let Ground::BuiltIn(inner, defects) = ground(Revision::only(Defect::ManagersLeak)) else { unreachable!() };
    let fragile = Fragile { inner, breaks, runs: Arc::default() };
    let hunt = Hunt::on(Ground::BuiltIn(Arc::new(fragile), defects), listed_servers(), cases);
    let campaign = hunt_all(&hunt, jobs, &()).unwrap();
    (hunt, campaign)
}

/// The findings and the coverage of a campaign, for comparing.
fn told(campaign: &Campaign) -> String {
    let found = campaign.found.iter().map(|found| format!("{} {} {}", found.seed, found.key, found.message));
    let found: Vec<String> = found.collect();
    format!("{found:#?} {:?} {:?}", campaign.reached, campaign.unfinished)
}

/// Two cases of 200 break the harness. The others are done, and what they show is told.
#[test]
fn a_panic_in_a_case_ends_nothing_else() {
    let (_, whole) = hunt(Breaks::new(), 200, 1);
    let first = whole.found[0].seed;
    let breaks: Breaks = [3, 150].into_iter().filter(|seed| *seed != first).map(|seed| (seed, 0)).collect();
    let seeds: Vec<u64> = breaks.keys().copied().collect();
    let mut all = Vec::new();
    for jobs in [1, 3] {
        let (hunt, campaign) = hunt(breaks.clone(), 200, jobs);
        let errors = &campaign.unfinished.internal_errors;
        assert_eq!(errors.keys().copied().collect::<Vec<_>>(), seeds);
        assert!(errors.iter().all(|(seed, why)| *why == format!("a bug of seed {seed}")), "{errors:?}");
        assert_eq!(campaign.reached.cases, 200 - seeds.len() as u64);
        assert_eq!((campaign.found[0].seed, campaign.found[0].reproduction), (first, Reproduction::Shown));
        let report = HuntReport::of(&hunt, &campaign, |_| (String::new(), String::new()));
        assert_eq!(report.conclusion(), Conclusion::Nothing);
        assert!(report.coverage().contains("unfinished internal error with seed 150: the harness panicked: a bug"));
        all.push(told(&campaign));
    }
    assert_eq!(all[0], all[1]);
}

/// Every case breaks the harness when it is run again: what it showed is told, and so is that it was not tried again.
#[test]
fn a_panic_while_something_is_made_smaller_loses_no_finding() {
    let (_, whole) = hunt(Breaks::new(), 200, 1);
    let (_, campaign) = hunt((1..=200).map(|seed| (seed, 1)).collect(), 200, 2);
    assert_eq!(campaign.reached.cases, 200);
    for known in &whole.found {
        let told = campaign
            .found
            .iter()
            .find(|found| found.key == known.key || found.also.iter().any(|(key, _)| *key == known.key));
        let told = told.unwrap_or_else(|| panic!("{} is lost", known.key));
        assert!(campaign.unfinished.internal_errors.contains_key(&told.seed), "{}", told.key);
        assert_eq!(told.reproduction, Reproduction::Untried);
        assert!(told.message.ends_with("(not tried again: the harness failed)"), "{}", told.message);
        assert!(!told.transcript.events.is_empty());
    }
}

/// A harness that breaks on one version ends no comparison: what was found on the other is told, and why it was not tried.
#[test]
fn a_panic_on_one_version_ends_no_comparison() {
    let breaks: Breaks = (1..=200).map(|seed| (seed, 0)).collect();
    let (before, after) = (hunt(breaks, 200, 1), hunt(Breaks::new(), 200, 1));
    let found = after.1.found.len();
    let change = Change::between((&before.0, before.1), (&after.0, after.1), || {}).unwrap();
    assert!(found > 0 && change.fates.len() == found, "{}", change.fates.len());
    for (fate, found, _) in &change.fates {
        assert_eq!(*fate, ChangeKind::Unclear);
        assert!(found.message.contains("not tried on the other version: the harness panicked: a bug of seed"));
    }
}

/// Where every case breaks the harness, the hunt ends soon, in order.
#[test]
fn a_harness_that_always_breaks_ends_its_hunt() {
    let (_, campaign) = hunt((1..=2000).map(|seed| (seed, 0)).collect(), 2000, 2);
    let errors = campaign.unfinished.internal_errors.len();
    assert!((10..=11).contains(&errors), "{errors}");
    assert_eq!((campaign.reached.cases, campaign.found.len()), (0, 0));
}
