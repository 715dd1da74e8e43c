//! Every case as named trials: with the bug it must show its symptom, with the fix it must be accepted, and
//! both conversations must look as a reviewer last saw them.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Arguments, Failed, Trial as Named};
use relapse::{
    discover::{Catalogue, servers},
    report::sequence::{self, SequenceDetail, SequenceLine, seconds},
    trial::Trial,
    verdict_rules,
};
use relapse_backend::{
    revision::Revision,
    runner::{BackendRunner, KNOWN},
};
use relapse_core::judge::{
    outcome::Outcome,
    verdict::{Reason, RunResult, Side},
};
use relapse_simulate::profile::Profile;

const SEED: u64 = 1;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, tests()).exit_code()
}

/// All tests. Nothing to run, or a file that is no case, is a failing test of its own.
fn tests() -> Vec<Named> {
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
    let runs: Vec<Vec<Arc<Run>>> = catalogue
        .cases
        .iter()
        .map(|case| Trial::of(std::slice::from_ref(case), &servers, None).into_iter().map(Run::new).collect())
        .collect();
    for run in runs.iter().flatten() {
        for (version, does) in [(Version::WithBug, "reproduces"), (Version::WithFix, "holds")] {
            let Trial { case, profile, environment } = &run.trial;
            let (run, name) = (Arc::clone(run), format!("{does} {} [{}, {environment}]", case.name, profile.name));
            named.push(Named::test(name, move || run.seen(version)?.judgement.clone().map_err(Failed::from)));
        }
    }
    for of_case in &runs {
        let (name, of_case) = (of_case[0].trial.case.name.clone(), of_case.clone());
        named.push(Named::test(format!("looks as reviewed {name}"), move || check_case(&of_case)));
    }
    // Behind the first server of all, every case looks as its own file says.
    for profile in servers.into_iter().skip(1) {
        let runs = runs.clone();
        named.push(Named::test(format!("looks as reviewed behind {}", profile.name), move || {
            check_server(&profile, &runs)
        }));
    }
    named
}

/// One of the two versions of the backend that a case compares.
#[derive(Debug, Clone, Copy)]
enum Version {
    WithBug,
    WithFix,
}

impl Version {
    const BOTH: [Version; 2] = [Version::WithBug, Version::WithFix];

    fn name(self) -> &'static str {
        match self {
            Version::WithBug => "with bug",
            Version::WithFix => "with fix",
        }
    }
}

/// A trial with its two runs, each performed when it is first asked for.
#[derive(Debug)]
struct Run {
    trial: Trial,
    with_bug: OnceLock<Result<Seen, String>>,
    with_fix: OnceLock<Result<Seen, String>>,
}

impl Run {
    fn new(trial: Trial) -> Arc<Run> {
        Arc::new(Run { trial, with_bug: OnceLock::new(), with_fix: OnceLock::new() })
    }

    fn seen(&self, version: Version) -> Result<&Seen, Failed> {
        let kept = match version {
            Version::WithBug => &self.with_bug,
            Version::WithFix => &self.with_fix,
        };
        kept.get_or_init(|| Seen::perform(&self.trial, version)).as_ref().map_err(Failed::from)
    }
}

/// The result of one run: its judgment, and everything that a reviewer is shown of it.
#[derive(Debug)]
struct Seen {
    /// The reason why it is not as the case claims.
    judgement: Result<(), String>,
    summary: Summary,
    client: Vec<SequenceLine>,
    service: Vec<SequenceLine>,
}

/// A run as its client judges it. Runs are shown as different where this differs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Summary {
    outcome: Outcome,
    found_by: String,
}

impl Seen {
    fn perform(trial: &Trial, version: Version) -> Result<Seen, String> {
        let revision = match version {
            Version::WithBug => Revision::from(&trial.case.twin),
            Version::WithFix => Revision::repaired(),
        };
        let run = BackendRunner::default().run(trial, revision, SEED).map_err(|error| format!("could not {error}"))?;
        let judgement = match version {
            Version::WithBug => reproduces(trial, &run),
            Version::WithFix => verdict_rules::alone(&trial.case, &run).map_err(|(_, reason)| reason),
        };
        let mut checks: Vec<&str> = run.findings.iter().map(|finding| finding.check).collect();
        checks.dedup();
        Ok(Seen {
            judgement: judgement.map_err(|reason| reason.to_string()),
            summary: Summary { outcome: run.outcome, found_by: checks.join(", ") },
            client: sequence::lines(&run.transcript, SequenceDetail::Client),
            service: sequence::lines(&run.transcript, SequenceDetail::Service),
        })
    }
}

fn reproduces(trial: &Trial, run: &RunResult) -> Result<(), Reason> {
    let symptom = trial.case.symptom_behind(&trial.profile.name).expect("a case of the catalogue claims one");
    verdict_rules::all_faults_acted(&trial.case, run, Side::Before)?;
    match verdict_rules::differences(symptom, run).as_slice() {
        [] => Ok(()),
        differences => Err(Reason::NotShown(differences.to_vec())),
    }
}

/// Compares a case with its snapshot: both versions behind the first server and in the first environment, and its other
/// environments where they differ. No other server has a place in it.
fn check_case(runs: &[Arc<Run>]) -> Result<(), Failed> {
    let Trial { case, profile, environment } = &runs[0].trial;
    let mut page = format!("{}\nbehind {} in {environment}\n", case.summary, profile.name);
    for version in Version::BOTH {
        let seen = runs[0].seen(version)?;
        let Summary { outcome, found_by } = &seen.summary;
        let revision = match version {
            Version::WithBug => format!(": {}", Revision::from(&case.twin)),
            Version::WithFix => String::new(),
        };
        let _ = writeln!(page, "\n=== {}{revision} ===\n{}", version.name(), timed(&seen.client));
        let rows = [
            ("outcome", outcome.ending.to_string()),
            ("class", outcome.class.to_string()),
            ("cause", outcome.cause.to_string()),
            ("ended by", outcome.closed_by.to_string()),
            ("found by", found_by.clone()),
        ];
        for (key, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
            let _ = writeln!(page, "{key:<10}{value}");
        }
        for other in runs[1..].iter().filter(|run| run.trial.profile == *profile) {
            let summary = &other.seen(version)?.summary;
            if *summary != seen.summary {
                let _ = writeln!(page, "in {}\n{}", other.trial.environment, row(summary, "  "));
            }
        }
        let service = timed(&shortened(&seen.service, &seen.client));
        if !service.is_empty() {
            let _ = writeln!(page, "\nbehind the client\n{}", service.trim_end());
        }
    }
    let (area, name) = case.name.rsplit_once('/').unwrap_or(("", &case.name));
    check_snapshot(&format!("cases/{area}"), name, &page);
    Ok(())
}

/// Compares a server with its snapshot: each case that looks different behind it than its own file says.
fn check_server(profile: &Arc<Profile>, runs: &[Vec<Arc<Run>>]) -> Result<(), Failed> {
    let mut page = format!("Each case that ends differently behind {} than its own file shows.\n", profile.name);
    for of_case in runs {
        let first = &of_case[0].trial;
        let mut rows = String::new();
        for version in Version::BOTH {
            for run in of_case.iter().filter(|run| run.trial.profile == *profile) {
                let environment = run.trial.environment;
                let is_known =
                    |other: &&Arc<Run>| other.trial.profile == first.profile && other.trial.environment == environment;
                let known = of_case.iter().find(is_known).expect("every server is tried in the same environments");
                let summary = &run.seen(version)?.summary;
                if *summary != known.seen(version)?.summary {
                    let _ = writeln!(rows, "  {} in {environment}\n{}", version.name(), row(summary, "    "));
                }
            }
        }
        if !rows.is_empty() {
            let _ = write!(page, "\n{}\n{rows}", first.case.name);
        }
    }
    check_snapshot("servers", &profile.name, &page);
    Ok(())
}

/// A summary as one line, with a second one for the checks.
fn row(summary: &Summary, indent: &str) -> String {
    let Summary { outcome, found_by } = summary;
    let row = format!("{indent}{outcome}, ended by {}", outcome.closed_by);
    if found_by.is_empty() { row } else { format!("{row}\n{indent}found by {found_by}") }
}

/// The lines, each with its time where that is not the start.
fn timed(lines: &[SequenceLine]) -> String {
    let mut text = String::new();
    for line in lines {
        let at = if line.at.is_zero() { String::new() } else { format!("  [{}]", seconds(line.at)) };
        let _ = writeln!(text, "{}{at}", line.text);
    }
    text
}

/// The events behind the client, without the content of messages that the client sends or sees as they are there.
fn shortened(service: &[SequenceLine], client: &[SequenceLine]) -> Vec<SequenceLine> {
    let passed: Vec<&str> = client.iter().filter_map(|line| line.text.get(4..)).collect();
    let shorten = |line: &SequenceLine| {
        let mut line = line.clone();
        for event in ["    send: websocket.send ", "    receive: websocket.receive "] {
            let message = line.text.strip_prefix(event).filter(|message| passed.contains(message));
            if let Some((name, _)) = message.and_then(|message| message.split_once(' ')) {
                line.text = format!("{event}{name} …");
            }
        }
        line
    };
    service.iter().map(shorten).collect()
}

fn check_snapshot(directory: &str, name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(format!("../snapshots/{directory}"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}
