//! Tables, pages and messages, as snapshots for a reviewer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use relapse::{
    case::Case,
    deadline::Deadline,
    discover::{Catalogue, issues},
    hunt::Reproduction,
    issue::Issue,
    report::sequence::SequenceDetail,
    trial::{Ran, Report, Trial},
    verdict_rules,
};
use relapse_backend::{
    revision::Revision,
    runner::{BackendRunner, KNOWN, judge_all},
};
use relapse_command::report::{
    catalogue::{render_list, render_map},
    corpus::{self, CorpusFinding, CorpusReport, FoundMistake, OnFix, OnMistake, ServiceReport},
    faults::render as render_faults,
    json::render as render_json,
    located::render as render_located,
    show::{Background, render as render_show},
    table::render as render_table,
};
use relapse_core::{error::Error, judge::verdict::Verdict};

use crate::support::{check_page, listed_servers};

fn catalogue() -> Vec<Arc<Case>> {
    Catalogue::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases"), KNOWN).unwrap().cases
}

fn trials(filter: &str) -> Vec<Trial> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
    let cases = Catalogue::read(&directory, KNOWN).unwrap().select(&[filter.to_owned()]);
    Trial::of(&cases, &listed_servers(), None)
}

fn report(filter: &str) -> Report {
    let trials = trials(filter);
    let judgements = judge_all(&trials, 1, 1, Deadline::NEVER, &|| {});
    Report {
        trials: trials.into_iter().map(Ran::OnBackend).zip(judgements).collect(),
        broken: Vec::new(),
        shutdown: Vec::new(),
        seed: 1,
        wall: Duration::ZERO,
    }
}

/// The facts about the built-in backend.
fn background(issues: &[Issue]) -> Background<'_> {
    Background { issues, defects: KNOWN.defects }
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
    let unrepaired = BackendRunner::default().run(trial, Revision::from(&trial.case.twin), 1).unwrap();
    judgement.verdict = Verdict::StillBroken;
    judgement.reason = Some(verdict_rules::accepts(&trial.case, &unrepaired).unwrap_err());
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
    let judgement = BackendRunner::default().judge(trial, 1);
    let shown = render_show(trial, &judgement, background(&issues().unwrap()), 1, 150, SequenceDetail::Conversation);
    check_page("show", &shown);
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
    let judgement = BackendRunner::default().judge(trial, 1);
    let shown = render_show(trial, &judgement, background(&issues().unwrap()), 1, 150, SequenceDetail::Conversation);
    check_page("show_with_shams", &shown);
}

#[test]
fn a_mistake_in_a_case_file() {
    let text = "summary = \"A case.\"\nsteps = 1\n";
    let error =
        Error::at("cases/a.toml", text, 20..25, "unknown field `steps`", Some("did you mean `step`?".to_owned()));
    let Error::File(located) = error else { unreachable!("the constructor makes nothing else") };
    check_page("located", &render_located(&located));
}

#[test]
fn every_kind_of_fault() {
    check_page("faults", &render_faults(150));
}

fn corpus_finding(key: &str) -> CorpusFinding {
    CorpusFinding {
        key: key.to_owned(),
        message: "the client got HTTP 500".to_owned(),
        also: Vec::new(),
        seed: Some(7),
        reproduction: Some(Reproduction::Shown),
        again: "relapse hunt --seed 7 --cases 1 --target 'asgi:app:app @ fixtures/corpus/one'".to_owned(),
    }
}

fn corpus_service(
    service: &str,
    on_mistake: Result<OnMistake, String>,
    on_fix: Result<OnFix, String>,
) -> ServiceReport {
    ServiceReport {
        service: service.to_owned(),
        mistake: "It fails.".to_owned(),
        source: "https://example.com/1".to_owned(),
        route: Some("GET /orders/{id}".to_owned()),
        symptom: "KeyError".to_owned(),
        on_mistake,
        on_fix,
    }
}

fn corpus_report() -> CorpusReport {
    let finding = corpus_finding("no_server_error: 500 on GET /orders/{id} by KeyError in order");
    let found = FoundMistake { cases: 6, after: Duration::from_millis(1234), finding };
    let late = "it was asked to end".to_owned();
    CorpusReport {
        profile: "uvicorn-0.35".to_owned(),
        seed: 1,
        time: Some(Duration::from_secs(60)),
        cases: None,
        services: vec![
            corpus_service(
                "found",
                Ok(OnMistake { found: Some(found), others: Vec::new() }),
                Ok(OnFix { false_findings: Vec::new(), known: Vec::new() }),
            ),
            corpus_service(
                "missed",
                Ok(OnMistake { found: None, others: vec![corpus_finding("hang on ws:/chat")] }),
                Ok(OnFix {
                    false_findings: vec![corpus_finding("no_drop on GET /"), CorpusFinding::of_shutdown("it hangs")],
                    known: vec![corpus_finding("legal_close: reason on ws:/chat")],
                }),
            ),
            corpus_service("broken_repair", Ok(OnMistake { found: None, others: Vec::new() }), Err("no".to_owned())),
            corpus_service("late", Err(late.clone()), Err(late)),
        ],
        broken: vec!["could not read x/mistake.toml".to_owned()],
    }
}

#[test]
fn the_mistakes_of_a_corpus() {
    check_page("corpus", &corpus::render(&corpus_report(), 150));
    check_page("corpus_json", &corpus::render_json(&corpus_report()));
}
