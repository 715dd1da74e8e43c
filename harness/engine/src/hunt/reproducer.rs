//! Makes a case of what was found.

use std::sync::Arc;

use super::{GeneratedCase, On, Worker};
use crate::{
    case::{Accepted, Case, Origin, ServerArguments, Symptom, Vocabulary},
    defects::Defects,
    trial::Trial,
    verdict::judge,
};
use relapse_core::{
    client::step::Action,
    error::Error,
    judge::{
        check,
        outcome::Class,
        verdict::{FindingKey, HealthyClient, Rule, RunResult},
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
        let profile = Arc::clone(&hunt.servers[drawn.server]);
        let steps = drawn.steps();
        let openings = steps.iter().filter(|step| matches!(step.act, Action::Open(_) | Action::Request(_))).count();
        let check = match key.rule {
            Rule::Check(name) => {
                let mut checks = check::ALL.iter().chain(hunt.ground.known().checks);
                checks.find(|known| known.name() == name)
            }
            Rule::Class(_) | Rule::NoPanic => None,
        };
        let property = check.map_or("every outcome is a good one", |check| check.property());
        let defects = hunt.ground.defects();
        let known = hunt.ground.known().defects.iter().filter(|entry| defects.contains(entry.name));
        let mechanisms: Vec<&str> = known.map(|entry| entry.mechanism).collect();
        let is_by_route = hunt.ground.external().is_some_and(|foreign| foreign.is_by_route());
        let classes = Class::good().collect();
        let accepted = Accepted { classes, patterns: Vec::new(), outcome: None, says: None };
        let mut case = Case {
            name: format!("{}_{seed}", slug(key)),
            summary: format!("Nothing breaks the rule that {property}."),
            reported: Some(format!("A hunt found, with seed {seed}: {message}")),
            behind: Some(if mechanisms.is_empty() { "Not known yet.".to_owned() } else { mechanisms.join(" ") }),
            issues: Vec::new(),
            scenario: None,
            origin: Origin::Hunt,
            vocabulary: if is_by_route { Vocabulary::Own } else { Vocabulary::Backend },
            twin: defects.clone(),
            profiles: Some(vec![profile.name.clone()]),
            environments: vec![drawn.environment],
            steps,
            crowd: drawn.crowd,
            faults: drawn.faults.clone(),
            seed: Some(seed),
            is_alone: true,
            server_arguments: ServerArguments::default(),
            control: None,
            accepted: vec![accepted; openings],
            at_least: std::collections::BTreeMap::new(),
            symptom: None,
            symptom_on: std::collections::BTreeMap::new(),
            shams: Vec::new(),
        };
        let On::BuiltIn(runner) = &self.on else {
            if let Some(transcript) = seen.filter(|transcript| !transcript.events.is_empty()) {
                case.symptom = Some(symptom(&judge(transcript.clone(), HealthyClient::Absent)));
            }
            return Ok(case);
        };
        let run = |defects| {
            let trial =
                Trial { case: Arc::new(case.clone()), profile: Arc::clone(&profile), environment: drawn.environment };
            match runner.run(&trial, defects, seed) {
                Ok(judged) => Ok(Some(judged)),
                Err(Error::TargetPanicked(_)) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let (before, after) = (run(defects)?, run(&Defects::NONE)?);
        if let Some(before) = before {
            case.symptom = Some(symptom(&before));
        }
        if let Some(after) = after.filter(|_| !defects.is_empty()) {
            for (opening, accepted) in case.accepted.iter_mut().enumerate() {
                let classes = after.outcomes.iter().skip(opening).step_by(openings).map(|outcome| outcome.class);
                let mut classes: Vec<Class> = classes.filter(|class| class.is_good()).collect();
                classes.sort_unstable();
                classes.dedup();
                if !classes.is_empty() {
                    accepted.classes = classes;
                }
            }
        }
        Ok(case)
    }
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

/// The finding as a part of a file's name.
fn slug(key: &FindingKey) -> String {
    let words = key.to_string().to_lowercase();
    let words = words.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let slug = words.collect::<Vec<_>>().join("_");
    slug.chars().take(NAME_CHARACTERS).collect::<String>().trim_end_matches('_').to_owned()
}
