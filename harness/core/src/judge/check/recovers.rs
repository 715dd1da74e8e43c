//! Once a fault is over, a client with nothing wrong is served again, without a restart.

use std::time::Duration;

use super::{Harm, Property, RunView, Violation};
use crate::{
    fault::{FaultKind, Place, ProcessFault},
    judge::{
        classify::Exchange,
        outcome::{Class, Outcome},
    },
    record::timeline::NOTICE,
    wire::head::header,
};

pub(super) const CHECK: Property = Property {
    name: "recovers",
    property: "once a fault is over clients are served again, without a restart",
    harm: Harm::Crash,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    let faults = evidence.transcript.faults.iter();
    let over = faults
        .filter(|fault| fault.kind.place() == Place::Dependency || fault.kind.acts_on_process())
        // A start is over by itself.
        .filter(|fault| fault.kind != FaultKind::Process(ProcessFault::Restart {}))
        .map(|fault| match &fault.kind {
            FaultKind::Process(ProcessFault::ShutDown { at }) => evidence.listening.next(at.0),
            _ => fault.trigger.until,
        })
        // One that never ends is followed by nothing.
        .collect::<Option<Vec<Duration>>>();
    let Some(over) = over.and_then(|ends| ends.into_iter().max()) else { return Vec::new() };
    evidence
        .exchanges()
        .filter(|(reading, _)| start(reading).is_some_and(|start| start >= over + NOTICE))
        .filter(|(reading, _)| asks_for_good(reading))
        .filter(|(reading, _)| !was_told_to_wait(evidence, reading))
        // A client's own mistake is a mistake in good times too.
        .filter(|(_, outcome)| !matches!(outcome.class, Class::Served | Class::RefusedAuth | Class::RefusedRequest))
        .map(|(reading, outcome)| complain(reading, outcome))
        .collect()
}

/// When an exchange began.
fn start(reading: &Exchange<'_>) -> Option<Duration> {
    reading.events.first().map(|event| event.at)
}

/// Whether the request is one that a service in order serves.
fn asks_for_good(reading: &Exchange<'_>) -> bool {
    reading.request.is_none() || reading.user.is_some() || reading.asks_for_health()
}

/// Whether the client had been told to come back later than it did.
fn was_told_to_wait(evidence: &RunView<'_>, reading: &Exchange<'_>) -> bool {
    let Some(now) = start(reading) else { return false };
    let told = evidence.readings.iter().filter_map(|other| {
        let at = other.events.last()?.at;
        let is_earlier = start(other).is_some_and(|start| start < now);
        let head = other.response.filter(|head| head.status == 503 && is_earlier)?;
        let seconds = std::str::from_utf8(header(&head.headers, "retry-after")?).ok()?.parse().ok()?;
        Some(at + Duration::from_secs(seconds))
    });
    told.max().is_some_and(|until| now < until)
}

fn complain(reading: &Exchange<'_>, outcome: &Outcome) -> Violation {
    reading.violation(outcome.ending.to_string(), format!("everything works again, and the client gets {outcome}"))
}
