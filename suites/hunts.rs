//! The hunt: it finds nothing on the repaired service, finds every defect without its case, and keeps what it finds.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use relapse::{
    case::Case,
    deadline::{Deadline, EndRequest},
    defects::Defects,
    discover::{Catalogue, servers},
    environment::Environment,
    hunt::{Found, GeneratorConfig, Hunt, HuntWatch, Reproduction, draw, hunt_all},
    report::sequence::{SequenceDetail, lines as sequence_lines},
    trial::Trial,
};
use relapse_backend::{
    defect::Defect,
    revision::Revision,
    runner::{BackendRunner, FAULT_NAMES, KNOWN, ground},
};
use relapse_core::{
    client::step::{Action, Step},
    fault::{FaultKind, Place},
    judge::{classify::readings, outcome::Class, verdict::Verdict},
};

use crate::support::{check_snapshot, listed_servers, profile, property_config, server_names, step};

/// Within how many cases a hunt must find any defect.
const CASES_MAX: u64 = 20_000;

fn capsules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/capsules")
}

fn hunt(revision: Revision, cases: u64) -> Hunt {
    Hunt::on(ground(revision), listed_servers(), cases)
}

/// The reproducer of a defect, as it is filed.
fn filed(defect: Defect) -> Arc<Case> {
    read(&capsules().join(format!("{}.toml", defect.name())))
}

fn read(path: &Path) -> Arc<Case> {
    let mut catalogue = Catalogue::knowing(KNOWN);
    catalogue.add(path).unwrap();
    assert!(catalogue.broken.is_empty(), "{:?}", catalogue.broken);
    catalogue.cases.remove(0)
}

/// How many steps a script has besides the waits for what they ask for.
fn steps(steps: &[Step]) -> usize {
    steps.iter().filter(|step| !matches!(step.act, Action::Wait(_))).count()
}

/// The meaning of a reproducer: which defect it shows, as which class, by which checks. Seed, server, values and wording are not
/// part of it.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    defects: Defects,
    class: Option<Class>,
    checks: BTreeSet<String>,
}

impl Meaning {
    fn of(case: &Case) -> Meaning {
        let symptom = case.symptom.clone().unwrap_or_default();
        Meaning { defects: case.twin.clone(), class: symptom.class, checks: symptom.found_by.into_iter().collect() }
    }
}

/// How much a reproducer needs: steps, faults, and clients with their rounds.
fn size(case: &Case) -> [usize; 3] {
    [steps(&case.steps), case.faults.len(), case.crowd.clients() * case.crowd.rounds]
}

/// Whether one reproducer stands for another: it shows the same, and is no larger.
fn stands_for(found: &Case, filed: &Case) -> bool {
    let is_no_larger = size(found).into_iter().zip(size(filed)).all(|(found, filed)| found <= filed);
    Meaning::of(found) == Meaning::of(filed) && is_no_larger
}

#[test]
fn nothing_is_found_on_the_repaired_service() {
    let cases = u64::from(property_config().cases);
    for places in [Place::ALL.to_vec()].into_iter().chain(Place::ALL.map(|place| vec![place])) {
        let hunt = Hunt { places, ..hunt(Revision::repaired(), cases) };
        let campaign = hunt.run().unwrap();
        let found: Vec<_> = campaign.found.iter().map(|found| (found.seed, &found.key, &found.message)).collect();
        assert_eq!(found, [], "at {:?}; `relapse hunt --seed N --cases 1 --faults PLACE` shows it", hunt.places);
        let reached = &campaign.reached;
        assert!(!reached.is_nothing() && !reached.is_without_faults(), "{reached:?}");
    }
}

/// How many cases a hunt has, from the seed of a filed reproducer on, to find a defect again. Those of its seed suffice
/// unless something was added that its case has now, such as another kind of fault.
const CASES_AGAIN: u64 = 300;

/// The seed of each filed reproducer lies within the bound. From there on a hunt finds the defect alone, and shrinks what
/// it finds to a reproducer that means the same.
///
/// `relapse hunt --detection --reproducers fixtures/capsules` files them anew.
#[test]
fn every_defect_is_found_without_its_case() {
    let mut soon = 0;
    for &defect in Defect::ALL {
        let case = filed(defect);
        let seed = case.seed.unwrap();
        assert!((1..=CASES_MAX).contains(&seed), "{} takes {seed} cases", defect.name());
        soon += usize::from(seed <= CASES_MAX / 10);
        assert!(case.faults.len() <= 2, "{}: {:?}", defect.name(), case.faults);
        assert!(steps(&case.steps) <= 4, "{}: {:?}", defect.name(), case.steps);
        let found = found_again(&case, seed);
        assert!(found.is_some(), "{} is not found again: {:?}", defect.name(), Meaning::of(&case));
    }
    assert!(soon * 10 >= Defect::ALL.len() * 9, "{soon} within {}", CASES_MAX / 10);
}

/// The first reproducer that a hunt finds from this seed on, and that stands for a filed one. It is read from its file.
fn found_again(case: &Case, mut seed: u64) -> Option<Arc<Case>> {
    let (directory, end) = (tempfile::tempdir().unwrap(), seed + CASES_AGAIN);
    while seed < end {
        let found = Hunt { seed, ..hunt(Revision::from(&case.twin), end - seed) }.first().unwrap()?;
        let path = directory.path().join("found.toml");
        fs::write(&path, found.capsule.print()).unwrap();
        let again = read(&path);
        if stands_for(&again, case) {
            return Some(again);
        }
        seed = found.seed + 1;
    }
    None
}

/// Whether a reproducer with this change still stands for it.
fn stands_for_with(case: &Case, change: impl FnOnce(&mut Case)) -> bool {
    let mut other = case.clone();
    change(&mut other);
    stands_for(&other, case)
}

/// Two reproducers mean the same whatever their values; not with another defect, class or check, and not if one is larger.
#[test]
fn reproducers_are_compared_by_meaning() {
    let case = filed(Defect::ExceptionAsCloseReason);
    assert!(stands_for_with(&case, |case| {
        case.seed = Some(7);
        case.profiles = Some(vec!["hypercorn-0.17".to_owned()]);
        case.environments = vec![Environment::Production];
        case.reported = None;
        case.steps.iter_mut().for_each(|step| step.limit *= 2);
    }));
    assert!(stands_for_with(&case, |case| drop(case.steps.pop())), "a smaller one stands for a larger one");
    assert!(!stands_for_with(&case, |case| case.steps.push(step(Action::Ping))));
    assert!(!stands_for_with(&case, |case| case
        .faults
        .push(FaultKind::read("pass", &mut Default::default()).unwrap().unwrap().into())));
    assert!(!stands_for_with(&case, |case| case.crowd.connections = 2));
    assert!(!stands_for_with(&case, |case| case.twin = Revision::only(Defect::HealthConstant).into()));
    assert!(!stands_for_with(&case, |case| case.symptom.as_mut().unwrap().class = Some(Class::Hang)));
    assert!(!stands_for_with(&case, |case| case.symptom.as_mut().unwrap().found_by.push("no_drop".to_owned())));
    assert!(!stands_for_with(&case, |case| case.symptom = None));
}

/// A reproducer stands for itself, whatever is drawn from its seed: what it found is there with the bug, and gone on
/// the repaired one. The conversation it was shrunk to is reviewed.
#[test]
fn every_capsule_is_fixed() {
    let catalogue = Catalogue::read(&capsules(), KNOWN).unwrap();
    assert!(catalogue.broken.is_empty(), "{:?}", catalogue.broken);
    let runner = BackendRunner::default();
    for trial in Trial::of(&catalogue.cases, &servers().unwrap(), None) {
        let judgement = runner.judge(&trial, 1);
        assert_eq!(judgement.verdict, Verdict::Fixed, "{}: {}", trial.case.name, judgement.why());
        let Some(before) = judgement.before else { continue };
        let mut page = format!(
            "{}\nbehind {} in {}\n\n",
            trial.case.reported.as_deref().unwrap_or_default(),
            trial.profile.name,
            trial.environment
        );
        for line in sequence_lines(&before.transcript, SequenceDetail::Conversation) {
            page.push_str(&format!("{}\n", line.text));
        }
        check_snapshot("capsules", &trial.case.name, &page);
    }
}

/// A finding on the backend without defects is FIXED as long as it is not found again.
#[test]
fn a_capsule_without_a_twin_is_judged_by_what_happens_now() {
    let case = filed(Defect::QueryParamsOnUrl);
    let runner = BackendRunner::default();
    let trial = |case: Case| Trial::of(&[Arc::new(case)], &servers().unwrap(), None).remove(0);
    let alone = Case { twin: Defects::NONE, ..Case::clone(&case) };
    assert_eq!(runner.judge(&trial(alone.clone()), 1).verdict, Verdict::Passed);
    // Its own accepted class is not what happens.
    let mut broken = alone.clone();
    broken.accepted.iter_mut().for_each(|accepted| accepted.classes = vec![Class::RefusedUnavailable]);
    assert_eq!(runner.judge(&trial(broken), 1).verdict, Verdict::Failed);
    // A trigger that does not come about any more proves nothing.
    let never = FaultKind::read("drop_key", &mut keys("query_params")).unwrap().unwrap();
    let unmet = Case { faults: vec![never.into()], ..alone };
    assert_eq!(runner.judge(&trial(unmet), 1).verdict, Verdict::NotExercised);
}

fn keys(key: &str) -> relapse_core::fault::setting::GivenSettings {
    relapse_core::fault::setting::GivenSettings([("key".to_owned(), key.into())].into_iter().collect())
}

/// A written finding reads as the same case, whatever was drawn.
#[test]
fn whatever_is_drawn_survives_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let aim = aim();
    let model = filed(Defect::QueryParamsOnUrl);
    for seed in 0..2 * u64::from(property_config().cases) {
        let drawn = draw(seed, &aim);
        let openings =
            drawn.steps().iter().filter(|step| matches!(step.act, Action::Open(_) | Action::Request(_))).count();
        if openings == 0 {
            continue;
        }
        let mut steps = drawn.steps();
        if let Some(Action::Open(request) | Action::Request(request)) = steps.first_mut().map(|step| &mut step.act) {
            request.without = vec!["Sec-WebSocket-Version".to_owned()];
        }
        let case = Case {
            steps,
            crowd: drawn.crowd,
            faults: drawn.faults,
            environments: vec![drawn.environment],
            seed: Some(seed.wrapping_mul(u64::MAX / 7)),
            accepted: vec![model.accepted[0].clone(); openings],
            ..Case::clone(&model)
        };
        let path = directory.path().join("drawn.toml");
        fs::write(&path, case.print()).unwrap();
        let mut catalogue = Catalogue::knowing(KNOWN);
        catalogue.add(&path).unwrap();
        // A fault that no step can meet is drawn now and then, and refused in a file.
        if let Some(refused) = catalogue.broken.first() {
            assert!(refused.to_string().contains("can never act"), "{refused}\n{}", case.print());
            continue;
        }
        let again = Case { name: case.name.clone(), ..Case::clone(&catalogue.cases[0]) };
        assert_eq!(again, case, "{}", case.print());
    }
}

/// The same seeds give the same findings, however many workers look, and however the hunt is shared.
#[test]
fn the_findings_do_not_depend_on_the_workers() {
    let defects = [Defect::HealthConstant, Defect::ManagersLeak, Defect::MetricsLackAttribute];
    let whole = hunt(Revision::of(defects), 400);
    let run = |hunt: &Hunt, jobs| hunt_all(hunt, jobs, &()).unwrap();
    let keys = |hunt: &Hunt, jobs| {
        let campaign = run(hunt, jobs);
        let found = campaign.found.iter().map(|found| format!("{} {} {:?}", found.key, found.seed, found.drawn));
        (campaign.reached, found.collect::<Vec<_>>())
    };
    let (one, three) = (keys(&whole, 1), keys(&whole, 3));
    assert!(!one.1.is_empty());
    assert_eq!(one, three);
    let mut shared = relapse::hunt::Coverage::default();
    (1..=3).for_each(|number| shared.add(&run(&whole.clone().shard(number, 3), 2).reached));
    assert_eq!(shared, one.0);
}

/// Whatever ends a hunt, what it found is told: that needs no further run.
#[test]
fn what_is_found_before_the_end_is_told() {
    static IS_FOUND: AtomicBool = AtomicBool::new(false);
    struct Cut;
    impl HuntWatch for Cut {
        fn found(&self, found: &Found) {
            assert_eq!(found.reproduction, Reproduction::Untried);
            IS_FOUND.store(true, Ordering::Relaxed);
        }
    }
    fn asked() -> EndRequest {
        if IS_FOUND.load(Ordering::Relaxed) { EndRequest::Cut } else { EndRequest::None }
    }
    let deadline = Deadline::NEVER.or_when(asked);
    let hunt = Hunt { deadline, ..hunt(Revision::only(Defect::ManagersLeak), 1000) };
    let campaign = hunt_all(&hunt, 1, &Cut).unwrap();
    let found: Vec<_> = campaign.found.iter().map(|found| (found.key.to_string(), found.reproduction)).collect();
    assert_eq!(found, [("no_residue: session(s)".to_owned(), Reproduction::Untried)]);
    assert!(
        campaign.reached.cases < 1000 && campaign.found[0].message.ends_with("(not tried again: it was asked to end)")
    );
    let early = Hunt { deadline: Deadline::after(Some(Duration::ZERO)), ..hunt };
    assert_eq!(hunt_all(&early, 2, &()).unwrap().reached.cases, 0);
}

/// An aim at everything, behind every server.
fn aim() -> GeneratorConfig {
    GeneratorConfig::everything(server_names(), FAULT_NAMES)
}

/// The same seed gives the same transcript, byte for byte, on a runner that has done other things before too.
#[test]
fn one_seed_gives_one_transcript() {
    let play = |runner: &BackendRunner, seed| {
        let drawn = draw(seed, &aim());
        let plan = relapse_core::plan::Plan { seed, faults: drawn.faults.clone() };
        let profile = &profile(&drawn.server);
        let (environment, steps) = (drawn.environment, drawn.steps());
        runner.converse(Revision::repaired(), environment, profile, drawn.crowd, &steps, plan).unwrap()
    };
    let used = BackendRunner::default();
    for seed in 0..u64::from(property_config().cases) {
        let (first, again) = (play(&used, seed), play(&BackendRunner::default(), seed));
        assert_eq!(format!("{first:?}"), format!("{again:?}"), "seed {seed}");
    }
}

/// Draws vary: every kind of fault, every server and every environment is met.
#[test]
fn draws_reach_everywhere() {
    let drawn: Vec<_> = (0..5000).map(|seed| draw(seed, &aim())).collect();
    let kinds: BTreeSet<&str> = drawn.iter().flat_map(|drawn| &drawn.faults).map(|fault| fault.kind.name()).collect();
    let missed: Vec<&str> = FaultKind::all().map(|kind| kind.name).filter(|name| !kinds.contains(name)).collect();
    assert_eq!(missed, Vec::<&str>::new());
    let met: BTreeSet<_> = drawn.iter().map(|drawn| (&drawn.server, drawn.environment)).collect();
    assert_eq!(met.len(), servers().unwrap().len() * Environment::ALL.len());
    assert!(drawn.iter().any(|drawn| drawn.faults.is_empty()));
    assert_eq!(draw(7, &aim()), draw(7, &aim()));
}

/// With `--faults` nothing acts elsewhere, and with `--legal-only` nothing that the specification forbids.
#[test]
fn draws_keep_to_their_aim() {
    let aim = GeneratorConfig { legal_only: true, places: vec![Place::Scope, Place::Event], ..aim() };
    let faults: Vec<_> = (0..2000).flat_map(|seed| draw(seed, &aim).faults).map(|fault| fault.kind).collect();
    assert!(faults.len() > 500);
    for kind in faults {
        assert!(matches!(kind.place(), Place::Scope | Place::Event) && kind.is_legal(), "{kind}");
    }
    assert!((0..200).all(|seed| draw(seed, &GeneratorConfig { places: Vec::new(), ..aim.clone() }).faults.is_empty()));
}

/// Every bad class is also a finding of a check: a reproducer can name what found it.
#[test]
fn no_bad_class_goes_without_a_check() {
    let runner = BackendRunner::default();
    for &defect in Defect::ALL {
        let case = filed(defect);
        let trial = Trial::of(&[case], &servers().unwrap(), None).remove(0);
        let judged = runner.run(&trial, Revision::from(&trial.case.twin), 1).unwrap();
        let is_bad = readings(&judged.transcript).iter().any(|reading| !reading.outcome().class.is_good());
        assert!(!is_bad || judged.findings.iter().any(|finding| finding.check != "control_opens"), "{}", defect.name());
    }
}
