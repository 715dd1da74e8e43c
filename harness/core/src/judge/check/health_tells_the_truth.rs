//! Health agrees with a real handshake: where a health route and an upgrade with a valid credential follow one another
//! under the same conditions, both say that the service is ready, or neither does.

use std::time::Duration;

use super::{Harm, Property, RunView, Violation};
use crate::{
    fault::{Fault, FaultKind, ProcessFault, Trigger},
    judge::{
        classify::Exchange,
        outcome::{Class, Ending, Outcome},
    },
    record::{timeline::NOTICE, transcript::EventKind},
};

pub(super) const CHECK: Property = Property {
    name: "health_tells_the_truth",
    property: "health agrees with a real handshake",
    harm: Harm::Disguised,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    let exchanges: Vec<(&Exchange<'_>, &Outcome)> = evidence.exchanges().collect();
    exchanges
        .windows(2)
        .filter(|pair| same_conditions(evidence, pair[0].0, pair[1].0))
        .filter_map(|pair| Some((says(pair[0])?, says(pair[1])?)))
        .filter(|((one, first), (other, second))| one != other && first != second)
        .map(|((one, first), (other, _))| {
            // They say the opposite of each other.
            let (first_word, second_word) = if first { ("ready", "not ready") } else { ("not ready", "ready") };
            Violation::of_run(format!("{one}:{first}"), format!("{one} says {first_word}, {other} says {second_word}"))
        })
        .collect()
}

/// Whether an exchange says that the service is ready, after the name of the part that says so; `None` for another
/// request, or no answer.
fn says((reading, outcome): (&Exchange<'_>, &Outcome)) -> Option<(&'static str, bool)> {
    says_ready(reading, outcome)
        .map(|ready| ("health", ready))
        .or_else(|| is_ready(reading, outcome).map(|ready| ("the handshake", ready)))
}

/// Whether a health route reports ready; `None` for another request, or no answer.
fn says_ready(reading: &Exchange<'_>, outcome: &Outcome) -> Option<bool> {
    let is_health = reading.asks_for_health();
    match outcome.ending {
        Ending::Http { status: 200..=299, .. } if is_health => Some(true),
        // Only the service's own 503; a request that the server refuses says nothing of it.
        Ending::Http { status: 503, .. } if is_health && reading.delivered.is_some() => Some(false),
        _ => None,
    }
}

/// Whether an upgrade that nothing was wrong with opened; `None` for another request.
fn is_ready(reading: &Exchange<'_>, outcome: &Outcome) -> Option<bool> {
    if !reading.asked_for_upgrade() || reading.user.is_none() {
        return None;
    }
    match outcome.class {
        Class::RefusedRequest | Class::RefusedAuth => None,
        // A client that leaves before the answer does not learn it.
        _ if outcome.ending == Ending::Left && reading.response.is_none() => None,
        _ if reading.turned_away_at_once() => None,
        // An outcome that this client asked for alone says nothing of the service.
        _ if asked_for_itself(reading) => None,
        _ if reading.service.words.welcomes.is_empty() => Some(reading.response.is_some_and(|head| head.status == 101)),
        _ => Some(reading.welcome.is_some()),
    }
}

/// Whether a call failed that readiness does not make.
fn asked_for_itself(reading: &Exchange<'_>) -> bool {
    reading.events.iter().any(|event| match event.what {
        EventKind::FaultFired { operation: Some(operation), .. } => operation != "ping" && operation != "check",
        _ => false,
    })
}

/// Whether no fault began or ended from the start of the first of two exchanges to the end of the last.
fn same_conditions(evidence: &RunView<'_>, one: &Exchange<'_>, other: &Exchange<'_>) -> bool {
    let times = one.events.iter().chain(&other.events).map(|event| event.at);
    let (Some(start), Some(end)) = (times.clone().min(), times.max()) else { return false };
    evidence.transcript.faults.iter().all(|fault| {
        is_unchanged(fault.trigger, start, end) && (start == end || !is_process_starting(evidence, fault, start, end))
    })
}

/// Whether a fault is armed, or not armed, from a start to an end.
fn is_unchanged(trigger: Trigger, start: Duration, end: Duration) -> bool {
    trigger.is_steady()
        && trigger.is_armed_at(start) == trigger.is_armed_at(end)
        && !trigger.until.is_some_and(|until| start < until && until <= end)
}

/// Whether a process may start from a start to an end because of a fault. While it does, what is true changes as soon as
/// time passes.
fn is_process_starting(evidence: &RunView<'_>, fault: &Fault, start: Duration, end: Duration) -> bool {
    match &fault.kind {
        FaultKind::Process(ProcessFault::ShutDown { at }) => evidence.listening.is_replaced(at.0, start, end),
        kind => kind.acts_on_process() && start <= fault.trigger.until.unwrap_or_default() + NOTICE,
    }
}
