//! Everything that judges has been seen to fail: a check without findings, a defect without effect, a repair that
//! repairs nothing and a claimed fix each turn some case red. Which check caught what is a page for a reviewer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use relapse::{
    check::{Closure, RunView},
    discover::{Catalogue, servers},
    environment::Environment,
    trial::Trial,
    verdict_rules,
};
use relapse_backend::{
    revision::Revision,
    runner::{BackendRunner, KNOWN},
};
use relapse_core::judge::{
    harm::Harm,
    verdict::{Finding, HealthyClient, Reason, RunResult, Verdict},
};

use crate::support::{self, check_page, on_backend, open, trials_that_differ, wait};

/// A trial with its runs with the bug and with the fix, and on what each claimed fix left.
struct Runs {
    trial: Trial,
    before: RunResult,
    after: RunResult,
    shams: Vec<RunResult>,
}

fn runs() -> Vec<Runs> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
    let catalogue = Catalogue::read(&directory, KNOWN).unwrap();
    let runner = BackendRunner::default();
    // A claimed fix is seen through behind every server. `suites/cases.rs` holds the trials that are left out against the
    // same symptom, and `relapse` without arguments judges them.
    let (with_claimed_fixes, others): (Vec<_>, Vec<_>) =
        catalogue.cases.into_iter().partition(|case| !case.shams.is_empty());
    let trials = Trial::of(&with_claimed_fixes, &servers().unwrap(), None).into_iter();
    trials
        .chain(trials_that_differ(&others))
        .map(|trial| {
            let run = |revision| runner.run(&trial, revision, 1).unwrap();
            let (before, after) = (run(Revision::from(&trial.case.twin)), run(Revision::repaired()));
            let shams = trial.case.shams.iter().map(|sham| run(Revision::from(&sham.defects))).collect();
            Runs { trial, before, after, shams }
        })
        .collect()
}

/// The same run, as if one check never had a finding.
fn blind(judged: &RunResult, check: &str) -> RunResult {
    let mut blind = judged.clone();
    blind.findings.retain(|finding| finding.check != check);
    blind
}

fn verdict(judged: Result<(), (Verdict, Reason)>) -> Verdict {
    judged.map_or_else(|(verdict, _)| verdict, |()| Verdict::Fixed)
}

#[test]
fn every_break_turns_something_red() {
    let runs = runs();
    for Runs { trial, before, after, shams } in &runs {
        let (case, profile) = (&trial.case, &trial.profile.name);
        let label = format!("{} behind {profile}", case.name);
        let compare = |before, after| verdict(verdict_rules::compare(case, profile, before, after));
        assert_eq!(compare(before, after), Verdict::Fixed, "{label}");
        assert_ne!(compare(after, after), Verdict::Fixed, "a defect without effect: {label}");
        assert_eq!(compare(before, before), Verdict::StillBroken, "a repair that repairs nothing: {label}");
        for (sham, judged) in case.shams.iter().zip(shams) {
            assert_eq!(compare(before, judged), Verdict::StillBroken, "the claimed fix {}: {label}", sham.defects);
        }
    }
    for name in &support::checks_of_cases() {
        let complains = |judged: &RunResult| judged.findings.iter().any(|finding| finding.check == name.as_str());
        let is_caught = runs.iter().any(|runs| std::iter::once(&runs.before).chain(&runs.shams).any(complains));
        let goes_red = runs.iter().any(|Runs { trial, before, shams, .. }| {
            let blind_shams: Vec<(Verdict, RunResult)> =
                shams.iter().map(|judged| (Verdict::StillBroken, blind(judged, name))).collect();
            let (case, profile) = (&trial.case, &trial.profile.name);
            let symptom = case.symptom_behind(profile).unwrap();
            !verdict_rules::differences(symptom, &blind(before, name)).is_empty()
                || verdict_rules::see_through(case, profile, &blind_shams).is_err()
        });
        assert!(is_caught && goes_red, "nothing notices that {name} never has a finding");
        assert!(!runs.iter().any(|runs| complains(&runs.after)), "{name} has a finding with the fix");
    }
    check_page("catches", &catches(&runs));
}

/// A check of a library user's own travels with the run, and its findings are listed last.
#[test]
fn a_closure_is_a_check() {
    let steps = [open(), wait("connection_established")];
    let mut transcript = on_backend(Revision::repaired(), Environment::Staging, "uvicorn-0.35", Vec::new(), &steps);
    transcript.service.checks.push(Closure {
        name: "no_upgrade",
        property: "nothing is upgraded",
        check: |run: &RunView<'_>| {
            let upgraded = run.plain().filter(|reading| reading.response.is_some_and(|head| head.status == 101));
            upgraded.map(|reading| reading.violation("101", "an upgrade")).collect()
        },
    });
    let judged = verdict_rules::judge(transcript, HealthyClient::Absent);
    let finding = Finding {
        check: "no_upgrade",
        harm: Harm::Crash,
        key: "101".to_owned(),
        message: "an upgrade".to_owned(),
        exchange: Some(0),
        exception: None,
    };
    assert_eq!(judged.findings, [finding]);
}

/// Which check caught which defect, alone or beside other checks.
fn catches(runs: &[Runs]) -> String {
    let mut caught: BTreeMap<&str, BTreeMap<String, bool>> = BTreeMap::new();
    for Runs { trial, before, shams, .. } in runs {
        let sham_names = trial.case.shams.iter().map(|sham| sham.defects.to_string());
        let named = std::iter::once(trial.case.twin.to_string()).chain(sham_names);
        for (name, judged) in named.zip(std::iter::once(before).chain(shams)) {
            let checks: BTreeSet<&str> = judged.findings.iter().map(|finding| finding.check).collect();
            // The healthy client says again what the case says.
            let others = checks.iter().filter(|check| **check != "control_opens").count();
            for check in &checks {
                *caught.entry(check).or_default().entry(name.clone()).or_default() |= others == 1;
            }
        }
    }
    let mut page = String::from("A check, and what it caught; * where no other check would have.\n");
    for check in support::checks() {
        page.push_str(&format!("\n{}: {}\n", check.name(), check.property()));
        for (defect, alone) in caught.get(check.name()).into_iter().flatten() {
            page.push_str(&format!("  {} {defect}\n", if *alone { '*' } else { ' ' }));
        }
    }
    page
}
