//! The times at which something behind the service, or its process, was not there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Reading;
use crate::{
    fault::{CallFault, Fault, FaultKind, Place, ProcessFault},
    transcript::{Event, PROCESS, Service, Transcript, What},
};

/// How long after an outage a service may still say that it is not ready: the longest that one of the reported breakers
/// stays open.
pub const AFTERMATH: Duration = Duration::from_secs(60);

/// How long a process takes to listen once it is started.
const START: Duration = Duration::from_millis(100);

/// How long a service may take to notice that something is there again.
pub const NOTICE: Duration = Duration::from_secs(6);

/// Whether a fault takes something away from the service, or only makes it a little slower.
fn is_outage(fault: &Fault, service: &Service) -> bool {
    match &fault.kind {
        FaultKind::Call { fault: CallFault::Delay { delay }, .. } => delay.0 >= service.slow,
        kind => kind.place() == Place::Dependency || kind.acts_on_process(),
    }
}

/// Whether an outage acted during an exchange, was armed when the exchange began, or had been shortly before. A
/// dependency that is not critical is out for those exchanges only that had to ask it.
pub(super) fn had_outage(transcript: &Transcript, exchange: usize) -> bool {
    if transcript.faults.is_empty() {
        return false;
    }
    let Some(start) = transcript.of(exchange).next().map(|event| event.at) else { return false };
    let is_lasting = |(index, fault): (usize, &Fault)| {
        if !is_outage(fault, &transcript.service) {
            return false;
        }
        let (aftermath, matters) = match &fault.kind {
            // A start takes as long as it takes to notice that something is there.
            FaultKind::Process(ProcessFault::Restart {}) => return start <= NOTICE,
            FaultKind::Process(ProcessFault::ShutDown { at }) => {
                let end = transcript.of(exchange).next_back().map_or(start, |event| event.at);
                return is_replaced(transcript, at.0, start, end);
            }
            FaultKind::Event { events, fault } if events.are_of_lifespan() => {
                // An application that was told of its start what no server may tell need never be ready.
                let noticed = |from: Duration| start <= from + NOTICE;
                return start <= NOTICE
                    || acted_on_process(transcript, index).is_some_and(|at| {
                        !fault.legality(events).is_legal || listens_from(transcript, at).is_none_or(noticed)
                    });
            }
            FaultKind::Process(fault) if fault.ends() => (NOTICE, true),
            kind => (AFTERMATH, kind.calls().is_none_or(|calls| is_critical(transcript, &calls.dependency))),
        };
        let trigger = fault.trigger;
        let is_over = trigger.until.is_some_and(|until| start >= until + aftermath);
        matters && trigger.is_steady() && trigger.from <= start && !is_over
    };
    transcript.faults.iter().enumerate().any(is_lasting)
        || transcript.events.iter().any(|event| {
            let What::FaultFired { index, operation, .. } = event.what else { return false };
            let Some(fault) = transcript.faults.get(index).filter(|fault| is_outage(fault, &transcript.service)) else {
                return false;
            };
            let calls = fault.kind.calls();
            if event.exchange == exchange {
                // Readiness asks what is not critical as well, and does not fail for it.
                let is_critical = calls.is_none_or(|calls| is_critical(transcript, &calls.dependency));
                return is_critical || operation != Some("ping");
            }
            calls.is_some_and(|calls| is_critical(transcript, &calls.dependency))
                && event.at <= start
                && start <= event.at + AFTERMATH
        })
}

/// Whether something happens while a process that is told to stop at some time starts, while it stops, or while the next
/// one starts.
pub fn is_replaced(transcript: &Transcript, stop: Duration, start: Duration, end: Duration) -> bool {
    let is_settled = |from: Duration| start > from + NOTICE;
    start <= NOTICE || (stop <= end && !listens_from(transcript, stop).is_some_and(is_settled))
}

/// When a process next listened, from a moment on.
pub fn listens_from(transcript: &Transcript, from: Duration) -> Option<Duration> {
    let listens = |event: &&Event| event.what == What::Listening && event.at >= from;
    transcript.of(PROCESS).find(listens).map(|event| event.at)
}

/// When a fault first acted on the process itself.
fn acted_on_process(transcript: &Transcript, index: usize) -> Option<Duration> {
    let acts = |event: &&Event| matches!(event.what, What::FaultFired { index: acted, .. } if acted == index);
    transcript.of(PROCESS).find(acts).map(|event| event.at)
}

/// Whether the service cannot work without this dependency. The secret manager is needed to start.
fn is_critical(transcript: &Transcript, dependency: &str) -> bool {
    dependency == "secret_manager" || transcript.service.critical.contains(&dependency)
}

/// Whether the fault that keeps the process away acted when an exchange ended.
pub(super) fn was_absent(transcript: &Transcript, exchange: usize) -> bool {
    let end = transcript.of(exchange).next_back().map(|event| event.at);
    // A process that starts when the fault is over does not listen at that very moment.
    let keeps_away = |(index, fault): (usize, &Fault), at: Duration| match &fault.kind {
        FaultKind::Process(ProcessFault::Absent {}) => fault.trigger.is_armed_at(at.saturating_sub(START)),
        FaultKind::Process(ProcessFault::ShutDown { at: stop }) => {
            stop.0 <= at && listens_from(transcript, stop.0).is_none_or(|from| at <= from + START)
        }
        FaultKind::Event { events, .. } if events.are_of_lifespan() => acted_on_process(transcript, index)
            .is_some_and(|acted| listens_from(transcript, acted).is_none_or(|from| at <= from + START)),
        _ => false,
    };
    end.is_some_and(|at| transcript.faults.iter().enumerate().any(|fault| keeps_away(fault, at)))
}

/// The critical dependencies that failed or did not answer whenever they were asked, from an exchange's start to its end.
pub(super) fn down(transcript: &Transcript, exchange: usize) -> Vec<&str> {
    if transcript.faults.is_empty() {
        return Vec::new();
    }
    let mut times = transcript.of(exchange).map(|event| event.at);
    let Some(start) = times.next() else { return Vec::new() };
    let end = times.next_back().unwrap_or(start);
    let is_down = |fault: &&Fault| {
        let is_failure = matches!(&fault.kind, FaultKind::Call { fault, .. } if fault.is_failure());
        let is_asked = fault.kind.calls().is_some_and(|calls| calls.include(&calls.dependency, "ping"));
        is_failure
            && is_asked
            && fault.trigger.is_steady()
            && fault.trigger.is_armed_at(start)
            && fault.trigger.is_armed_at(end)
    };
    let names = transcript.faults.iter().filter(is_down).filter_map(|fault| fault.kind.calls());
    names.map(|calls| calls.dependency.as_str()).filter(|name| transcript.service.critical.contains(name)).collect()
}

/// How many exchanges went on at one time, at most.
pub(super) fn most_at_once(transcript: &Transcript) -> usize {
    let own = || transcript.events.iter().enumerate().filter(|(_, event)| event.exchange != PROCESS);
    let last: BTreeMap<usize, usize> = own().map(|(at, event)| (event.exchange, at)).collect();
    let (mut begun, mut going_on, mut most) = (BTreeSet::new(), 0, 0);
    for (at, event) in own() {
        going_on += usize::from(begun.insert(event.exchange));
        most = most.max(going_on);
        going_on -= usize::from(last[&event.exchange] == at);
    }
    most
}

impl<'a> Reading<'a> {
    /// Whether this event is one of something that was taken away from the service.
    pub fn is_outage(&self, event: &Event) -> bool {
        let What::FaultFired { index, .. } = event.what else { return false };
        self.faults.get(index).is_some_and(|fault| is_outage(fault, self.service))
    }

    /// The dependencies that failed this exchange.
    pub fn failing(&self) -> Vec<&'a str> {
        let fired = self.events.iter().filter(|event| self.is_outage(event)).filter_map(|event| match event.what {
            What::FaultFired { index, .. } => self.faults.get(index)?.kind.calls(),
            _ => None,
        });
        fired.map(|calls| calls.dependency.as_str()).collect()
    }
}
