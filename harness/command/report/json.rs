//! The verdicts of a run as one JSON document.

use std::collections::BTreeMap;

use serde::Serialize;

use relapse::{
    case::ClaimedFix,
    trial::{Ran, Report, shell},
    verdict_rules::clause,
};
use relapse_core::{
    judge::{
        cause::Cause,
        outcome::{Class, Outcome},
        verdict::{Difference, Finding, Frequency, Reason, RunResult, TrialResult, Verdict},
    },
    record::{service::TargetKind, transcript::Actor},
};

/// The version of the document's shape. It grows when a key changes its meaning or goes.
const SCHEMA: u32 = 6;

#[derive(Serialize)]
struct VerdictDocument<'a> {
    schema: u32,
    cases: Vec<VerdictEntry<'a>>,
    shutdown: &'a [String],
    errors: Vec<String>,
    summary: Summary,
}

#[derive(Serialize)]
struct VerdictEntry<'a> {
    case: &'a str,
    scenario: Option<&'a str>,
    issues: &'a [String],
    target: TargetKind,
    target_name: Option<&'a str>,
    before_name: Option<&'a str>,
    profile: Option<&'a str>,
    server: Option<&'a str>,
    environment: Option<&'static str>,
    seed: u64,
    defects: Vec<&'a str>,
    verdict: Verdict,
    why: String,
    differences: &'a [Difference],
    shown: Option<Frequency>,
    findings: &'a [Finding],
    before: Option<VersionEntry<'a>>,
    after: Option<VersionEntry<'a>>,
    #[serde(rename = "healthy_client")]
    control: Option<Seen>,
    /// The request of the first healthy client that after lets in, where it is derived.
    #[serde(rename = "healthy_request")]
    let_in: Option<&'a str>,
    #[serde(rename = "claimed_fixes")]
    shams: Vec<ShamEntry<'a>>,
    #[serde(rename = "reproduce")]
    replay: String,
}

/// A claimed fix in place of the real one.
#[derive(Serialize)]
struct ShamEntry<'a> {
    claim: &'a str,
    defects: Vec<&'a str>,
    verdict: Verdict,
    #[serde(flatten)]
    run: VersionEntry<'a>,
}

#[derive(Serialize)]
struct VersionEntry<'a> {
    #[serde(flatten)]
    seen: Seen,
    clause: String,
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct Seen {
    class: Class,
    cause: Cause,
    outcome: String,
    closed_by: Actor,
}

#[derive(Serialize)]
struct Summary {
    #[serde(flatten)]
    verdicts: BTreeMap<&'static str, usize>,
    trials: usize,
    requests: usize,
    sessions: usize,
    faults_fired: usize,
    wall_ms: u128,
}

/// The document, indented.
pub fn render(report: &Report) -> String {
    let exercised = report.exercised();
    let document = VerdictDocument {
        schema: SCHEMA,
        cases: report.trials.iter().map(|(ran, judgement)| entry(ran, judgement, report.seed)).collect(),
        shutdown: &report.shutdown,
        errors: report.broken.iter().map(|error| format!("could not {error}")).collect(),
        summary: Summary {
            verdicts: report.counts().into_iter().map(|(verdict, count)| (verdict.name(), count)).collect(),
            trials: report.trials.len(),
            requests: exercised.requests,
            sessions: exercised.sessions,
            faults_fired: exercised.faults,
            wall_ms: report.wall.as_millis(),
        },
    };
    serde_json::to_string_pretty(&document).expect("the document holds nothing that JSON cannot write")
}

fn entry<'a>(ran: &'a Ran, judgement: &'a TrialResult, seed: u64) -> VerdictEntry<'a> {
    let (case, external) = (ran.case(), ran.external());
    VerdictEntry {
        case: &case.name,
        scenario: case.scenario.as_deref(),
        issues: &case.issues,
        target: ran.kind(),
        target_name: external.map(|name| name.target.as_str()),
        before_name: external.and_then(|name| name.before.as_deref()),
        profile: ran.profile(),
        server: external.and_then(|name| name.server.as_deref()),
        environment: ran.environment().map(|environment| environment.name()),
        seed,
        defects: case.twin.names().collect(),
        verdict: judgement.verdict,
        why: judgement.why(),
        differences: match &judgement.reason {
            Some(Reason::NotShown(differences)) => differences,
            _ => &[],
        },
        shown: judgement.shown,
        findings: judgement.after.as_ref().map_or(&[], |after| &after.findings),
        before: judgement.before.as_ref().map(run),
        after: judgement.after.as_ref().map(run),
        control: judgement.after.as_ref().and_then(|after| after.control.outcome()).map(seen),
        let_in: judgement.after.as_ref().and_then(|after| Some(after.admission.let_in.as_ref()?.request())),
        shams: case.shams.iter().zip(&judgement.shams).map(sham).collect(),
        replay: shell(&ran.replay(seed)),
    }
}

fn sham<'a>((sham, (verdict, judged)): (&'a ClaimedFix, &'a (Verdict, RunResult))) -> ShamEntry<'a> {
    let defects = sham.defects.names().collect();
    ShamEntry { claim: &sham.claim, defects, verdict: *verdict, run: run(judged) }
}

fn run(judged: &RunResult) -> VersionEntry<'_> {
    VersionEntry { seen: seen(&judged.outcome), clause: clause(judged), findings: &judged.findings }
}

fn seen(outcome: &Outcome) -> Seen {
    Seen {
        class: outcome.class,
        cause: outcome.cause,
        outcome: outcome.ending.to_string(),
        closed_by: outcome.closed_by,
    }
}
