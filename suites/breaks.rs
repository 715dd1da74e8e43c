//! Everything that judges has been seen to fail: a check that never complains, a defect without effect and a repair
//! that repairs nothing each turn some case red.

use std::path::Path;

use relapse::{Catalogue, Conductor, Judged, Revision, Trial, check, run, servers};

/// Every trial with its runs on the defective and on the repaired twin.
fn runs() -> Vec<(Trial, Judged, Judged)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
    let catalogue = Catalogue::read(&directory).unwrap();
    let conductor = Conductor::default();
    Trial::of(&catalogue.cases, &servers().unwrap(), None)
        .into_iter()
        .map(|trial| {
            let run = |revision| conductor.run(&trial, revision, 1).unwrap();
            let (before, after) = (run(Revision::only(trial.case.defect)), run(Revision::repaired()));
            (trial, before, after)
        })
        .collect()
}

#[test]
fn every_break_turns_something_red() {
    let runs = runs();
    for (trial, before, after) in &runs {
        let label = format!("{} behind {}", trial.case.name, trial.profile.name);
        assert!(run::reproduces(&trial.case, &trial.profile.name, after).is_err(), "a defect without effect: {label}");
        assert!(run::holds(&trial.case, before).is_err(), "a repair that repairs nothing: {label}");
    }
    for name in check::names() {
        let goes_red = runs.iter().any(|(trial, before, _)| {
            let mut blind = before.clone();
            blind.findings.retain(|finding| finding.check != name);
            run::reproduces(&trial.case, &trial.profile.name, &blind).is_err()
        });
        assert!(goes_red, "nothing notices that {name} never complains");
    }
}
