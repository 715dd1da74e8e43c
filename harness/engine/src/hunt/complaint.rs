//! The complaints about a run of a hunt, and which of them are one failure.

use std::collections::BTreeSet;

use super::{Found, Ground, Played};
use crate::verdict_rules::{handled, own_exception};
use relapse_core::{
    asgi::exception::Exception,
    judge::{
        check::{self, RunView},
        classify::Exchange,
        harm::Harm,
        outcome::{Class, Ending, Outcome},
        verdict::{FindingKey, FindingSite, HealthyClient, RaisedAt, Rule},
    },
    record::transcript::Transcript,
    wire::close_code::CloseCode,
};

/// The exceptions by which a library refuses a path that no route has: the type, the end of the file's path, and the start of
/// the text. Channels 4.3 raises these.
const REFUSALS_OF_PATHS: [(&str, &str, &str); 2] = [
    ("ValueError", "channels/routing.py", "No route found for path"),
    ("ValueError", "channels/routing.py", "No application configured for scope type"),
];

/// Something that is wrong with a run.
#[derive(Debug, Clone)]
pub(super) struct Complaint {
    /// Its identity.
    pub(super) key: FindingKey,
    /// The finding, with its evidence.
    pub(super) message: String,
    /// The exchange that it is about; `None` where it is about several, or the whole run.
    exchange: Option<usize>,
    /// The exception that it is about, where the outcome of the exchange does not tell it.
    exception: Option<Exception>,
}

impl Complaint {
    /// Whether another complaint about the same run can be the same failure, seen by another rule.
    fn may_be(&self, other: &Complaint) -> bool {
        let (own, others) = (self.exchange, other.exchange);
        own == others || own.is_none() || others.is_none()
    }
}

/// The complaint with this key, and those that can be the same failure; the complaint is `None` where the run does not
/// have it.
pub(super) fn with_company(
    complaints: Vec<Complaint>,
    key: &FindingKey,
) -> (Option<Complaint>, Vec<(FindingKey, String)>) {
    let own = complaints.iter().find(|complaint| complaint.key == *key).cloned();
    let others = complaints.into_iter().filter(|other| other.key != *key);
    let others = others.filter(|other| own.as_ref().is_none_or(|own| own.may_be(other)));
    let others = others.map(|other| (other.key, other.message)).collect();
    (own, others)
}

/// Whether something was found before: it cannot be had without that, or the same exception is behind both. Of two
/// exceptions that look alike from outside each is one.
pub(super) fn is_in_another_dress(new: &Found, old: &Found) -> bool {
    let is_another = is_located_exception(&new.key);
    new.key.may_be(&old.key)
        || new.also.iter().any(|(key, _)| !is_another && *key == old.key || is_located_exception(key) && old.has(key))
}

/// Whether a finding is an exception that left the app, with the function that raised it.
fn is_located_exception(key: &FindingKey) -> bool {
    let has_function = key.subject.as_ref().is_some_and(|subject| subject.contains(" in "));
    key.rule == Rule::Check("no_escaped_exception") && has_function
}

/// Everything that is wrong with a run, each with what tells it from other findings.
pub(super) fn complaints(ground: &Ground, played: &Played) -> Vec<Complaint> {
    look(ground, played, &mut |_, _| {})
}

/// Whether a run has this finding.
pub(super) fn complains(ground: &Ground, played: &Played, key: &FindingKey) -> bool {
    complaints(ground, played).iter().any(|complaint| complaint.key == *key)
}

/// Everything that is wrong with a run of the built-in service.
pub fn complaints_of(transcript: &Transcript) -> Vec<(FindingKey, String)> {
    let complaints = look_at(transcript, &mut |_, _| {}, &|_, _| None);
    complaints.into_iter().map(|complaint| (complaint.key, complaint.message)).collect()
}

/// The complaints about a run, and what the run reached.
pub(super) fn look(
    ground: &Ground,
    played: &Played,
    reached: &mut dyn FnMut(&RunView<'_>, &Transcript),
) -> Vec<Complaint> {
    match played {
        Ok(transcript) => look_at(transcript, reached, &|reading, outcome| site(ground, reading, outcome)),
        Err(panic) => {
            let key = FindingKey { rule: Rule::NoPanic, harm: Harm::Crash, subject: None, site: None };
            vec![Complaint { key, message: format!("the target panicked: {panic}"), exchange: None, exception: None }]
        }
    }
}

/// Where something goes wrong in an exchange.
type SiteOf<'a> = &'a dyn Fn(&Exchange<'_>, &Outcome) -> Option<FindingSite>;

fn look_at(
    transcript: &Transcript,
    reached: &mut dyn FnMut(&RunView<'_>, &Transcript),
    site: SiteOf<'_>,
) -> Vec<Complaint> {
    let evidence = RunView::gather(transcript, &HealthyClient::Absent);
    reached(&evidence, transcript);
    let of_exchanges = evidence.readings.iter().zip(&evidence.outcomes).enumerate();
    let bad = of_exchanges.filter(|(_, (_, outcome))| !outcome.class.is_good());
    let bad = bad.map(|(number, (_, outcome))| Complaint {
        key: FindingKey::of_outcome(outcome),
        message: outcome.to_string(),
        exchange: Some(number),
        exception: None,
    });
    let found = check::findings(&evidence).into_iter();
    let found = found.map(|finding| Complaint {
        key: finding.id(),
        exchange: finding.exchange,
        exception: finding.exception.map(|exception| *exception),
        message: finding.message,
    });
    let mut all: Vec<Complaint> = found.chain(bad).collect();
    for complaint in &mut all {
        let exchange =
            complaint.exchange.and_then(|number| evidence.readings.get(number).zip(evidence.outcomes.get(number)));
        let site = exchange.and_then(|(reading, outcome)| site(reading, outcome)).map(|site| FindingSite {
            exception: complaint.exception.as_ref().map(RaisedAt::from).or(site.exception),
            ..site
        });
        complaint.key.site = site.filter(|site| site.route.is_some() || site.exception.is_some());
    }
    let mut seen = BTreeSet::new();
    all.retain(|complaint| !is_refused_guess(complaint, &evidence) && seen.insert(complaint.key.clone()));
    all
}

/// Whether a complaint is about a path that the app has no route for, and says so: the guess of a hunt is no mistake of the app.
fn is_refused_guess(complaint: &Complaint, evidence: &RunView<'_>) -> bool {
    let has_route = complaint.key.site.as_ref().is_none_or(|site| site.route.is_some());
    let reading = complaint.exchange.and_then(|number| evidence.readings.get(number));
    !has_route && reading.and_then(own_exception).is_some_and(refuses_path)
}

fn refuses_path(exception: &Exception) -> bool {
    REFUSALS_OF_PATHS.iter().any(|(type_name, file, text)| {
        let is_there = exception.place.as_ref().is_some_and(|place| place.file.ends_with(file));
        is_there && exception.type_name == *type_name && exception.message.starts_with(text)
    })
}

/// The route of an exchange, and the exception behind its end. The built-in service is known: what tells its findings
/// apart are its defects.
fn site(ground: &Ground, reading: &Exchange<'_>, outcome: &Outcome) -> Option<FindingSite> {
    let foreign = ground.external()?;
    let route = foreign.route_of_exchange(reading).map(ToString::to_string);
    let answers_for = matches!(outcome.class, Class::ServerError | Class::DisguisedError)
        || matches!(
            outcome.ending,
            Ending::Close { code: Some(CloseCode::INTERNAL | CloseCode::PRIVATE_INTERNAL), .. }
        );
    let exception = own_exception(reading).or_else(|| handled(reading).filter(|_| answers_for).last());
    Some(FindingSite { route, exception: exception.map(RaisedAt::from) })
}

#[cfg(test)]
mod tests {
    use relapse_core::asgi::exception::{CodePlace, Exception};

    use super::refuses_path;

    #[test]
    fn a_router_refuses_a_path_by_its_own_exception() {
        let raised = |type_name: &str, file: &str, message: &str| Exception {
            type_name: type_name.to_owned(),
            message: message.to_owned(),
            place: Some(CodePlace { file: file.to_owned(), line: 136, function: "__call__".to_owned() }),
        };
        let (router, text) = ("/venv/site-packages/channels/routing.py", "No route found for path 'a'.");
        assert!(refuses_path(&raised("ValueError", router, text)));
        assert!(refuses_path(&raised("ValueError", router, "No application configured for scope type 'http'")));
        assert!(!refuses_path(&raised("ValueError", "service.py", text)));
        assert!(!refuses_path(&raised("ValueError", router, "not enough values to unpack")));
        assert!(!refuses_path(&raised("KeyError", router, text)));
        assert!(!refuses_path(&Exception { place: None, ..raised("ValueError", router, text) }));
    }
}
