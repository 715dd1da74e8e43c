//! The mistakes of a corpus, found and missed, as a table and as a JSON document.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::Style;
use relapse::hunt::{Found, Reproduction};
use relapse_core::judge::verdict::Conclusion;
use serde_json::{Value, json};

use super::table::{BAD, FAINT, GOOD, keep_names_whole, paint, plain_table};

/// The version of the document's shape. It grows when a key changes its meaning or goes.
const SCHEMA: u32 = 1;

/// The results of the hunts on a corpus.
#[derive(Debug)]
pub struct CorpusReport {
    /// The server in front of the services.
    pub profile: String,
    /// The first seed of each hunt.
    pub seed: u64,
    /// How long each version was hunted on; `None` where the number of cases ended it.
    pub time: Option<Duration>,
    /// How many cases each hunt had at most; `None` where the time ended it.
    pub cases: Option<u64>,
    /// The services, by name.
    pub services: Vec<ServiceReport>,
    /// The folders that could not be read, and the names that select nothing.
    pub broken: Vec<String>,
}

/// The hunts on one service.
#[derive(Debug)]
pub struct ServiceReport {
    /// Its name.
    pub service: String,
    /// The mistake in one sentence.
    pub mistake: String,
    /// The public report that it retells.
    pub source: String,
    /// The route that the finding is expected on; `None` for any.
    pub route: Option<String>,
    /// How the mistake shows.
    pub symptom: String,
    /// The hunt on the service with its mistake, or why there was none.
    pub on_mistake: Result<OnMistake, String>,
    /// The findings on the repaired service, or why there was no hunt.
    pub on_fix: Result<OnFix, String>,
}

/// The findings on a repaired service.
#[derive(Debug)]
pub struct OnFix {
    /// Those that are false.
    pub false_findings: Vec<CorpusFinding>,
    /// Those that are known to be right, because they show a mistake of a library.
    pub known: Vec<CorpusFinding>,
}

/// The findings on a service with its mistake.
#[derive(Debug)]
pub struct OnMistake {
    /// The finding that shows the mistake; `None` where the hunt missed it.
    pub found: Option<FoundMistake>,
    /// The findings that show something else.
    pub others: Vec<CorpusFinding>,
}

/// A mistake that was found.
#[derive(Debug)]
pub struct FoundMistake {
    /// After how many cases it was seen for the first time.
    pub cases: u64,
    /// After how much time.
    pub after: Duration,
    /// Its finding.
    pub finding: CorpusFinding,
}

/// A finding on a service.
#[derive(Debug)]
pub struct CorpusFinding {
    /// The key that tells it from others.
    pub key: String,
    /// The finding.
    pub message: String,
    /// The other findings of its smallest case.
    pub also: Vec<String>,
    /// The seed that drew it; `None` of the end of a service.
    pub seed: Option<u64>,
    /// Whether its case shows it again; `None` of the end of a service.
    pub reproduction: Option<Reproduction>,
    /// The command that shows it again; empty where there is none.
    pub again: String,
}

impl CorpusFinding {
    /// A hunt's finding, with the command that shows it again.
    pub fn of(found: &Found, again: String) -> CorpusFinding {
        CorpusFinding {
            key: found.key.to_string(),
            message: found.message.clone(),
            also: found.also.iter().map(|(key, _)| key.to_string()).collect(),
            seed: Some(found.seed),
            reproduction: Some(found.reproduction),
            again,
        }
    }

    /// A problem with the end of a service that was told to stop.
    pub fn of_shutdown(complaint: &str) -> CorpusFinding {
        CorpusFinding {
            key: "shutdown".to_owned(),
            message: complaint.to_owned(),
            also: Vec::new(),
            seed: None,
            reproduction: None,
            again: String::new(),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "key": self.key, "message": self.message, "also": self.also, "seed": self.seed,
            "reproduction": self.reproduction, "reproduce": self.again,
        })
    }
}

impl ServiceReport {
    fn found(&self) -> Option<&FoundMistake> {
        self.on_mistake.as_ref().ok().and_then(|hunted| hunted.found.as_ref())
    }

    fn others(&self) -> &[CorpusFinding] {
        self.on_mistake.as_ref().map_or(&[], |hunted| &hunted.others)
    }

    fn false_findings(&self) -> &[CorpusFinding] {
        self.on_fix.as_ref().map_or(&[], |hunted| &hunted.false_findings)
    }

    fn known(&self) -> &[CorpusFinding] {
        self.on_fix.as_ref().map_or(&[], |hunted| &hunted.known)
    }

    /// Why a version was not hunted on.
    fn troubles(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let on_mistake = self.on_mistake.as_ref().err().map(|why| ("app.py", why.as_str()));
        on_mistake.into_iter().chain(self.on_fix.as_ref().err().map(|why| ("fixed.py", why.as_str())))
    }

    /// Why a version was not hunted on, for people; empty where both were.
    fn page_of_troubles(&self) -> String {
        let troubles: Vec<_> = self.troubles().collect();
        match troubles.as_slice() {
            [(_, why), (_, same)] if why == same => format!("\n{BAD}{NOT_TRIED}{BAD:#} {}: {why}\n", self.service),
            others => {
                let lines = others.iter();
                let lines =
                    lines.map(|(file, why)| format!("\n{BAD}{NOT_TRIED}{BAD:#} {}/{file}: {why}\n", self.service));
                lines.collect()
            }
        }
    }

    fn result(&self) -> &'static str {
        match &self.on_mistake {
            Ok(OnMistake { found: Some(_), .. }) => FOUND,
            Ok(OnMistake { found: None, .. }) => MISSED,
            Err(_) => NOT_TRIED,
        }
    }

    fn cells(&self) -> [String; 7] {
        let after = self.found().map_or(String::new(), |found| {
            let seed = found.finding.seed.map_or(String::new(), |seed| format!("seed {seed}, "));
            format!("{seed}{} cases, {:.1} s", found.cases, found.after.as_secs_f64())
        });
        let count = |is_tried: bool, count: usize| if is_tried { count.to_string() } else { "-".to_owned() };
        [
            self.service.clone(),
            self.route.clone().unwrap_or_default(),
            self.symptom.clone(),
            count(self.on_mistake.is_ok(), self.others().len()),
            count(self.on_fix.is_ok(), self.false_findings().len()),
            after,
            self.result().to_owned(),
        ]
    }

    fn to_json(&self) -> Value {
        let found = self.found().map(|found| {
            json!({
                "cases": found.cases, "seconds": (found.after.as_secs_f64() * 1000.0).round() / 1000.0,
                "finding": found.finding.to_json(),
            })
        });
        let findings = |findings: &[CorpusFinding]| findings.iter().map(CorpusFinding::to_json).collect::<Vec<_>>();
        json!({
            "service": self.service, "mistake": self.mistake, "source": self.source, "route": self.route,
            "symptom": self.symptom, "result": self.result().replace(' ', "-"), "found": found,
            "others": findings(self.others()), "false_findings": findings(self.false_findings()),
            "known_findings": findings(self.known()),
            "not_tried": self.troubles().map(|(file, why)| json!({ "file": file, "why": why })).collect::<Vec<_>>(),
        })
    }
}

const FOUND: &str = "found";
const MISSED: &str = "missed";
const NOT_TRIED: &str = "not tried";

/// The results, each with its color.
const RESULTS: [(&str, Style); 3] = [(FOUND, GOOD), (MISSED, BAD), (NOT_TRIED, BAD)];

impl CorpusReport {
    /// The conclusion: `Finding` where a mistake is missed or a finding is false, `Nothing` where something could not be tried.
    pub fn conclusion(&self) -> Conclusion {
        let is_right = |service: &ServiceReport| service.found().is_some() && service.false_findings().is_empty();
        let is_whole = self.broken.is_empty() && self.services.iter().all(|service| service.troubles().count() == 0);
        match (is_whole, self.services.iter().all(is_right)) {
            (true, is_right) => Conclusion::passes_if(is_right),
            (false, _) => Conclusion::Nothing,
        }
    }

    /// How many mistakes are found, and how many findings are false.
    pub fn count<'s>(services: impl Iterator<Item = &'s ServiceReport> + Clone) -> String {
        let found = services.clone().filter(|service| service.found().is_some()).count();
        let false_findings: usize = services.clone().map(|service| service.false_findings().len()).sum();
        let not_tried = services.clone().filter(|service| service.troubles().count() > 0).count();
        let not_tried = if not_tried > 0 { format!("; {not_tried} not tried") } else { String::new() };
        let all = services.count();
        format!("found {found} of {all}, {false_findings} false findings on the fixes{not_tried}")
    }
}

/// A row for each service, then the findings that show no mistake, then the count.
pub fn render(report: &CorpusReport, width: usize) -> String {
    let mut table = plain_table(width);
    table.set_header(["service", "route", "symptom", "others", "false", "after", "result"]);
    for service in &report.services {
        table.add_row(service.cells());
    }
    keep_names_whole(&mut table, 0, width);
    let mut text = paint(&table.to_string(), &RESULTS);
    let others = report.services.iter().map(|service| (service, service.others()));
    list(&mut text, "other findings on the services with their mistakes", others);
    let false_findings = report.services.iter().map(|service| (service, service.false_findings()));
    list(&mut text, "false findings on the fixes", false_findings);
    let known = report.services.iter().map(|service| (service, service.known()));
    list(&mut text, "mistakes of libraries found on the fixes", known);
    report.services.iter().for_each(|service| text.push_str(&service.page_of_troubles()));
    let broken = report.broken.len();
    let broken = if broken > 0 { format!("; {broken} not read") } else { String::new() };
    let _ = writeln!(text, "\n{}{broken}", CorpusReport::count(report.services.iter()));
    text
}

/// Lists the findings of some services below a title, if there are any.
fn list<'s>(
    text: &mut String,
    title: &str,
    findings: impl Iterator<Item = (&'s ServiceReport, &'s [CorpusFinding])> + Clone,
) {
    let count: usize = findings.clone().map(|(_, findings)| findings.len()).sum();
    if count == 0 {
        return;
    }
    let _ = writeln!(text, "\n{FAINT}{title}: {count}{FAINT:#}");
    for (service, findings) in findings {
        for finding in findings {
            let _ = writeln!(text, "{}  {}  {}", service.service, finding.key, finding.message);
            if !finding.again.is_empty() {
                let _ = writeln!(text, "  reproduce: {}", finding.again);
            }
        }
    }
}

/// One document with the same facts.
pub fn render_json(report: &CorpusReport) -> String {
    let found = report.services.iter().filter(|service| service.found().is_some()).count();
    let false_findings: usize = report.services.iter().map(|service| service.false_findings().len()).sum();
    let document = json!({
        "schema": SCHEMA,
        "profile": report.profile,
        "seed": report.seed,
        "time_s": report.time.map(|time| time.as_secs_f64()),
        "cases": report.cases,
        "services": report.services.iter().map(ServiceReport::to_json).collect::<Vec<_>>(),
        "errors": report.broken,
        "summary": { "found": found, "of": report.services.len(), "false_findings": false_findings },
    });
    serde_json::to_string_pretty(&document).expect("the document holds nothing that JSON cannot write")
}
