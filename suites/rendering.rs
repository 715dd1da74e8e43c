//! What tables, pages and messages look like, as snapshots for a reviewer.

use std::path::Path;
use std::time::Duration;

use relapse::{
    Catalogue, Conductor, Detail, Report, Revision, Trial, Verdict, error::Error, judge_all, render_json,
    render_located, render_show, render_table, servers,
};

use crate::support::check_page;

fn trials(filter: &str) -> Vec<Trial> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
    let cases = Catalogue::read(&directory).unwrap().select(&[filter.to_owned()]);
    Trial::of(&cases, &servers().unwrap(), None)
}

fn report(filter: &str) -> Report {
    let trials = trials(filter);
    let judgements = judge_all(&trials, 1, 1, &|| {});
    Report { trials: trials.into_iter().zip(judgements).collect(), broken: Vec::new(), seed: 1, wall: Duration::ZERO }
}

#[test]
fn the_table_of_verdicts() {
    check_page("table", &render_table(&report("S517-2"), 150));
}

#[test]
fn the_table_where_not_everything_is_fixed() {
    let mut report = report("S466-*");
    let (trial, judgement) = &mut report.trials[0];
    // The same defect on both twins: what a repair that does nothing looks like.
    let unrepaired = Conductor::default().run(trial, Revision::only(trial.case.defect), 1).unwrap();
    judgement.verdict = Verdict::StillBroken;
    judgement.why = relapse::run::holds(&trial.case, &unrepaired).unwrap_err();
    judgement.after = Some(unrepaired);
    check_page("table_still_broken", &render_table(&report, 150));
}

#[test]
fn the_json_document() {
    check_page("json", &render_json(&report("S488-3")));
}

#[test]
fn one_case_in_full() {
    let trial = &trials("session/s449_2_short_exception_text")[0];
    let judgement = Conductor::default().judge(trial, 1);
    check_page("show", &render_show(trial, &judgement, 1, 150, Detail::Conversation));
}

#[test]
fn a_mistake_in_a_case_file() {
    let text = "summary = \"A case.\"\nsteps = 1\n";
    let error =
        Error::at("cases/a.toml", text, 20..25, "unknown field `steps`", Some("did you mean `step`?".to_owned()));
    let Error::File(located) = error else { unreachable!("the constructor makes nothing else") };
    check_page("located", &render_located(&located, false));
}
