//! Every case as named trials: with the bug it must show its symptom, with the fix it must be accepted, and
//! both conversations must look as a reviewer last saw them.

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial as Named};
use relapse::{
    discover::{Catalogue, servers},
    report::sequence::{self, SequenceDetail, seconds},
    trial::Trial,
    verdict,
};
use relapse_backend::{
    revision::Revision,
    runner::{BackendRunner, KNOWN},
};
use relapse_command::report::table::behind;
use relapse_core::judge::verdict::{Reason, RunResult, Side};
use relapse_simulate::profile::Profile;

const SEED: u64 = 1;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, trials()).exit_code()
}

/// All trials. Nothing to run, or a file that is no case, is a failing trial of its own.
fn trials() -> Vec<Named> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
    let (catalogue, servers) = match (Catalogue::read(&directory, KNOWN), servers()) {
        (Ok(catalogue), Ok(servers)) => (catalogue, servers),
        (Err(error), _) | (_, Err(error)) => {
            let text = format!("could not {error}");
            return vec![Named::test("cases are found", move || Err(text.into()))];
        }
    };
    let mut named: Vec<Named> = catalogue
        .broken
        .iter()
        .map(|error| {
            let text = format!("could not {error}");
            Named::test(text.clone(), move || Err(text.into()))
        })
        .collect();
    for case in &catalogue.cases {
        let trials = Trial::of(std::slice::from_ref(case), &servers, None);
        for trial in &trials {
            let label = format!("{} [{}, {}]", case.name, trial.profile.name, trial.environment);
            let (before, after) = (trial.clone(), trial.clone());
            named.push(Named::test(format!("reproduces {label}"), move || {
                let symptom =
                    before.case.symptom_behind(&before.profile.name).expect("a case of the catalogue claims one");
                let run = perform(&before, defective(&before))?;
                verdict::all_faults_acted(&before.case, &run, Side::Before).map_err(failed)?;
                match verdict::differences(symptom, &run).as_slice() {
                    [] => Ok(()),
                    differences => Err(failed(Reason::NotShown(differences.to_vec()))),
                }
            }));
            named.push(Named::test(format!("holds {label}"), move || {
                let run = perform(&after, Revision::repaired())?;
                verdict::alone(&after.case, &run).map_err(|(_, reason)| failed(reason))
            }));
        }
        for (revision, of) in [(defective(&trials[0]), "defective"), (Revision::repaired(), "repaired")] {
            let trials = trials.clone();
            named.push(Named::test(format!("looks as reviewed {} [{of}]", case.name), move || look(&trials, revision)));
        }
    }
    named
}

fn failed(reason: Reason) -> Failed {
    reason.to_string().into()
}

fn defective(trial: &Trial) -> Revision {
    Revision::from(&trial.case.twin)
}

fn perform(trial: &Trial, revision: Revision) -> Result<RunResult, Failed> {
    BackendRunner::default().run(trial, revision, SEED).map_err(|error| format!("could not {error}").into())
}

/// Compares the conversation behind the first server, and the outcomes behind all listed ones, with the snapshot. A profile
/// without a place in the list is new, and changes no snapshot.
fn look(trials: &[Trial], revision: Revision) -> Result<(), Failed> {
    let mut text = String::new();
    let mut outcomes: Vec<(String, Vec<&str>)> = Vec::new();
    let is_listed = |profile: &Profile| profile.order.is_some();
    for (index, trial) in trials.iter().filter(|trial| is_listed(&trial.profile)).enumerate() {
        let judged = perform(trial, revision)?;
        if index == 0 {
            text.push_str(&format!("{}\n\n", trial.case.summary));
            for line in sequence::lines(&judged.transcript, SequenceDetail::Full) {
                let at = if line.at.is_zero() { String::new() } else { format!("  [{}]", seconds(line.at)) };
                text.push_str(&format!("{}{at}\n", line.text));
            }
            text.push('\n');
        }
        let mut outcome = format!("{}: {}, ended by {}\n", trial.environment, judged.outcome, judged.outcome.closed_by);
        let mut checks: Vec<&str> = judged.findings.iter().map(|finding| finding.check).collect();
        checks.dedup();
        if !checks.is_empty() {
            outcome.push_str(&format!("  found by {}\n", checks.join(", ")));
        }
        match outcomes.iter_mut().find(|(known, _)| *known == outcome) {
            Some((_, servers)) => servers.push(&trial.profile.name),
            None => outcomes.push((outcome, vec![&trial.profile.name])),
        }
    }
    let servers = servers().map_err(|error| format!("could not {error}"))?;
    let listed = servers.iter().filter(|profile| is_listed(profile));
    let all = listed.map(|profile| profile.name.as_str()).collect();
    for (outcome, of) in outcomes {
        text.push_str(&format!("{}, {outcome}", behind(&of, &all)));
    }
    let (area, name) = trials[0].case.name.rsplit_once('/').unwrap_or(("", &trials[0].case.name));
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(format!("../snapshots/cases/{area}"));
    settings.set_snapshot_suffix(revision.to_string());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
    Ok(())
}
