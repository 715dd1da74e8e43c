//! Tables, pages and messages, as snapshots for a reviewer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use relapse::{
    Case, Catalogue, Conductor, Detail, Ran, Report, Trial, Verdict, error::Error, issues, judge, judge_all,
    render_json, render_list, render_located, render_map, render_show, render_table, servers,
};

use crate::support::check_page;

fn catalogue() -> Vec<Arc<Case>> {
    Catalogue::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases")).unwrap().cases
}

fn trials(filter: &str) -> Vec<Trial> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
    let cases = Catalogue::read(&directory).unwrap().select(&[filter.to_owned()]);
    Trial::of(&cases, &servers().unwrap(), None)
}

fn report(filter: &str) -> Report {
    let trials = trials(filter);
    let judgements = judge_all(&trials, 1, 1, &|| {});
    Report {
        trials: trials.into_iter().map(Ran::OnBackend).zip(judgements).collect(),
        broken: Vec::new(),
        shutdown: Vec::new(),
        seed: 1,
        wall: Duration::ZERO,
    }
}

#[test]
fn the_table_of_verdicts() {
    check_page("table", &render_table(&report("S517-2"), 150));
}

#[test]
fn the_table_where_not_everything_is_fixed() {
    let mut report = report("S466-*");
    let (ran, judgement) = &mut report.trials[0];
    let Ran::OnBackend(trial) = ran else { panic!("the backend's own") };
    // The same defect on both versions: what a repair that does nothing looks like.
    let unrepaired = Conductor::default().run(trial, trial.case.twin, 1).unwrap();
    judgement.verdict = Verdict::StillBroken;
    judgement.reason = Some(judge::accepts(&trial.case, &unrepaired).unwrap_err());
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
    check_page("show", &render_show(trial, &judgement, &issues().unwrap(), 1, 150, Detail::Conversation));
}

#[test]
fn the_catalogue_by_issue() {
    let cases = catalogue();
    check_page("list", &render_list(&issues().unwrap(), &cases, 150));
    check_page("map", &render_map(&issues().unwrap(), &cases));
}

#[test]
fn a_claimed_repair_in_the_table_and_in_full() {
    check_page("table_with_shams", &render_table(&report("SR4"), 150));
    let trial = &trials("SR4")[0];
    let judgement = Conductor::default().judge(trial, 1);
    check_page("show_with_shams", &render_show(trial, &judgement, &issues().unwrap(), 1, 150, Detail::Conversation));
}

#[test]
fn a_mistake_in_a_case_file() {
    let text = "summary = \"A case.\"\nsteps = 1\n";
    let error =
        Error::at("cases/a.toml", text, 20..25, "unknown field `steps`", Some("did you mean `step`?".to_owned()));
    let Error::File(located) = error else { unreachable!("the constructor makes nothing else") };
    check_page("located", &render_located(&located, false));
}
