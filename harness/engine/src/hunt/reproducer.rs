//! Makes a case of what was found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{GeneratedCase, Hunt, On, Worker};
use crate::{
    case::{Accepted, Case, ExceptionClaim, KnownFinding, Origin, PlaceClaim, ServerArguments, Symptom},
    defects::Defects,
    trial::Trial,
    verdict_rules::{exceptions, judge},
};
use relapse_core::{
    client::step::Step,
    error::Error,
    judge::{
        check,
        outcome::Class,
        verdict::{FindingKey, HealthyClient, RaisedAt, Rule, RunResult},
    },
    record::transcript::Transcript,
};

/// How many characters of a finding stand in the name of its reproducer.
const NAME_CHARACTERS: usize = 48;

impl Worker<'_> {
    /// The reproducer of what was found: an ordinary case with concrete values. On a revision with defects that one is
    /// its version with the bug; otherwise it records what must not be found again. On a server that is not ours the symptom
    /// is what was seen.
    pub(super) fn capsule(
        &self,
        key: &FindingKey,
        message: &str,
        drawn: &GeneratedCase,
        seen: Option<&Transcript>,
        seed: u64,
    ) -> Result<Case, Error> {
        let hunt = self.hunt;
        let defects = hunt.ground.defects();
        let mut case = Case {
            reported: Some(format!("A hunt found, with seed {seed}: {message}")),
            ..outline(hunt, key, drawn, seed)
        };
        let On::BuiltIn(runner) = &self.on else {
            if let Some(transcript) = seen.filter(|transcript| !transcript.events.is_empty()) {
                let judged = judge(transcript.clone(), HealthyClient::Absent);
                case.symptom = Some(Symptom { exception: claimed(key, &judged), ..symptom(&judged) });
            }
            return Ok(case);
        };
        let trial = Trial {
            case: Arc::new(case.clone()),
            profile: Arc::clone(hunt.profile(drawn)),
            environment: drawn.environment,
        };
        let before = unless_panicked(runner.run(&trial, defects, seed))?;
        let after = unless_panicked(runner.run(&trial, &Defects::NONE, seed))?;
        case.symptom = before.map(|before| symptom(&before)).or(case.symptom);
        if let Some(after) = after.filter(|_| !defects.is_empty()) {
            accept(&mut case.accepted, &after);
        }
        Ok(case)
    }
}

/// The run, if the target did not panic.
fn unless_panicked(run: Result<RunResult, Error>) -> Result<Option<RunResult>, Error> {
    match run {
        Ok(judged) => Ok(Some(judged)),
        Err(Error::TargetPanicked(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Accepts of each exchange what the repaired version made of it.
fn accept(accepted: &mut [Accepted], after: &RunResult) {
    let openings = accepted.len();
    for (opening, accepted) in accepted.iter_mut().enumerate() {
        let classes = after.outcomes.iter().skip(opening).step_by(openings).map(|outcome| outcome.class);
        let classes: BTreeSet<Class> = classes.filter(|class| class.is_good()).collect();
        if !classes.is_empty() {
            accepted.classes = classes.into_iter().collect();
        }
    }
}

/// The rule that a finding breaks.
fn rule(hunt: &Hunt, key: &FindingKey) -> &'static str {
    let check = match key.rule {
        Rule::Check(name) => check::named(name, hunt.ground.known().checks),
        Rule::Class(_) | Rule::NoPanic => None,
    };
    check.map_or("every outcome is a good one", |check| check.property())
}

/// The reproducer without its symptom.
fn outline(hunt: &Hunt, key: &FindingKey, drawn: &GeneratedCase, seed: u64) -> Case {
    let (steps, defects) = (drawn.steps(), hunt.ground.defects());
    let openings = steps.iter().filter(|step| step.opening().is_some()).count();
    let known = hunt.ground.known().defects.iter().filter(|entry| defects.contains(entry.name));
    let mechanisms: Vec<&str> = known.map(|entry| entry.mechanism).collect();
    let classes = Class::good().collect();
    let accepted = Accepted { classes, patterns: Vec::new(), outcome: None, says: None };
    Case {
        name: format!("{}_{seed}", slug(&hunt.ground.redactor().text(&key.to_string()))),
        summary: format!("Nothing breaks the rule that {}.", rule(hunt, key)),
        reported: None,
        behind: Some(if mechanisms.is_empty() { "Not known yet.".to_owned() } else { mechanisms.join(" ") }),
        issues: Vec::new(),
        scenario: None,
        origin: Origin::Hunt,
        finding: Some(KnownFinding { key: key.to_string(), routes: visited(hunt, &steps) }),
        vocabulary: hunt.ground.vocabulary(),
        twin: defects.clone(),
        profiles: Some(vec![drawn.server.clone()]),
        environments: vec![drawn.environment],
        steps,
        crowd: drawn.crowd,
        faults: drawn.faults.clone(),
        seed: Some(seed),
        is_alone: true,
        server_arguments: ServerArguments::default(),
        control: None,
        accepted: vec![accepted; openings],
        at_least: BTreeMap::new(),
        symptom: None,
        symptom_on: BTreeMap::new(),
        shams: Vec::new(),
    }
}

/// The routes of an application that is hunted on by them, as these steps visit them, each once.
fn visited(hunt: &Hunt, steps: &[Step]) -> Vec<String> {
    let Some(foreign) = hunt.ground.external() else { return Vec::new() };
    let opened = steps.iter().filter_map(|step| foreign.route_of(step)).map(ToString::to_string);
    opened.collect::<BTreeSet<String>>().into_iter().collect()
}

fn symptom(judged: &RunResult) -> Symptom {
    let mut found_by: Vec<String> = judged
        .findings
        .iter()
        .map(|finding| finding.check)
        // The healthy client that comes afterwards says again what the case says.
        .filter(|name| *name != "control_opens")
        .map(str::to_owned)
        .collect();
    found_by.dedup();
    let outcome = judged.outcome.ending.to_string();
    Symptom {
        class: Some(judged.outcome.class),
        outcome: Some(outcome.parse().expect("every ending has a pattern")),
        cause: Some(judged.outcome.cause),
        found_by,
        ..Symptom::default()
    }
}

/// The exception behind a finding as a claim, with its file and its function; without its line, which moves with every change.
fn claimed(key: &FindingKey, judged: &RunResult) -> Option<ExceptionClaim> {
    let raised_at = key.site.as_ref()?.exception.as_ref()?;
    let exception = exceptions(judged).into_iter().find(|exception| RaisedAt::from(*exception) == *raised_at)?;
    let claim: ExceptionClaim = exception.type_name.parse().ok()?;
    let place = exception.place.as_ref().map(|place| PlaceClaim {
        file: Some(place.file.clone()),
        line: None,
        function: Some(place.function.clone()),
    });
    // A place that a case file cannot state, such as one of a generated file, is left out.
    let place = place.filter(|place| place.to_string().parse().as_ref() == Ok(place));
    Some(ExceptionClaim { place, ..claim })
}

/// The text of a finding as a part of a file's name.
fn slug(key: &str) -> String {
    let words = key.to_lowercase();
    let words = words.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let slug = words.collect::<Vec<_>>().join("_");
    slug.chars().take(NAME_CHARACTERS).collect::<String>().trim_end_matches('_').to_owned()
}
