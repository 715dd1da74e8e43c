//! The hunt: it finds nothing on the repaired service, and finds defects without their cases.

use relapse::{
    Conductor, Defect, Hunt, Revision,
    fault::Place,
    hunt::{Aim, draw},
    hunt_all, servers,
};

fn hunt(revision: Revision, cases: u64) -> Hunt {
    Hunt {
        revision,
        servers: servers().unwrap(),
        seed: 1,
        cases,
        stops_at_first: true,
        places: Place::ALL.to_vec(),
        legal_only: false,
    }
}

/// Defects that take a hunt more than this many cases.
const FEW: u64 = 200;
const TAKE_MORE: [Defect; 10] = [
    // Found, after more cases than a suite may take.
    Defect::HeaderNameBypass,
    Defect::StatusRemapped,
    Defect::StagingReadyOverride,
    Defect::SharedRunContext,
    Defect::SharedThread,
    // Not found: a wrong environment and a wrong key of a limit break no rule that a client can see, two guards do
    // nothing without another defect, and a line is no hang as long as it is short.
    Defect::EnvironmentRulesDisagree,
    Defect::LimitsKeyedByPort,
    Defect::RelabellingGuard,
    Defect::GuardRunsTwice,
    Defect::UpgradesWaitInLine,
];

#[test]
fn nothing_is_found_on_the_repaired_service() {
    let campaign = Conductor::default().hunt(&hunt(Revision::repaired(), 500), &|| {}).unwrap();
    let found: Vec<_> = campaign.found.iter().map(|found| (found.seed, &found.key, &found.message)).collect();
    assert_eq!(found, [], "`relapse hunt --seed N --cases 1` shows it");
    assert!(campaign.reached_anything(), "{campaign:?}");
}

#[test]
fn defects_are_found_without_their_cases() {
    let conductor = Conductor::default();
    for defect in Defect::ALL.iter().filter(|defect| !TAKE_MORE.contains(defect)) {
        let campaign = conductor.hunt(&hunt(Revision::only(*defect), FEW), &|| {}).unwrap();
        let found = campaign.found.first().unwrap_or_else(|| panic!("{} is not found", defect.name()));
        assert!(found.drawn.faults.len() <= 2, "{}: {:?}", defect.name(), found.drawn.faults);
        assert!(found.drawn.visits.len() <= 3, "{}: {:?}", defect.name(), found.drawn.visits);
    }
}

/// The same seeds give the same findings, however many workers look.
#[test]
fn the_findings_do_not_depend_on_the_workers() {
    let run = |jobs| {
        let defects = [Defect::HealthConstant, Defect::ManagersLeak, Defect::MetricsLackAttribute];
        let hunt = Hunt { stops_at_first: false, ..hunt(Revision::of(defects), 200) };
        let campaign = hunt_all(&hunt, jobs, &|| {}).unwrap();
        let found = campaign.found.iter().map(|found| format!("{} {} {:?}", found.key, found.seed, found.drawn));
        (campaign.cases, campaign.sessions, found.collect::<Vec<_>>())
    };
    let (one, three) = (run(1), run(3));
    assert!(!one.2.is_empty());
    assert_eq!(one, three);
}

/// What is drawn varies: every place is faulted, and every server and environment met.
#[test]
fn draws_reach_everywhere() {
    let drawn: Vec<_> = (0..500).map(|seed| draw(seed, &Aim::everything(5))).collect();
    for place in Place::ALL {
        assert!(drawn.iter().any(|drawn| drawn.faults.iter().any(|fault| fault.kind.place() == place)), "{place:?}");
    }
    for server in 0..5 {
        assert!(drawn.iter().any(|drawn| drawn.server == server));
    }
    assert!(drawn.iter().any(|drawn| drawn.faults.is_empty()));
    assert_eq!(draw(7, &Aim::everything(5)), draw(7, &Aim::everything(5)));
}
