//! The times at which something behind the service, or its process, was not there.

use std::time::Duration;

use super::Listening;
use crate::{
    fault::{CallFault, Fault, FaultKind, Place, ProcessFault},
    record::{
        service::Service,
        transcript::{EventKind, PROCESS, Transcript},
    },
};

/// How long after an outage a service may still say that it is not ready: the longest that one of the reported breakers
/// stays open.
pub const AFTERMATH: Duration = Duration::from_secs(60);

/// How long a process takes to listen once it is started.
const START: Duration = Duration::from_millis(100);

/// How long a service may take to notice that something is there again.
pub const NOTICE: Duration = Duration::from_secs(6);

/// Whether a fault takes something away from the service, or only makes it a little slower.
pub(crate) fn is_outage(fault: &Fault, service: &Service) -> bool {
    match &fault.kind {
        FaultKind::Call { fault: CallFault::Delay { delay }, .. } => delay.0 >= service.slow,
        kind => kind.place() == Place::Dependency || kind.acts_on_process(),
    }
}

/// The outages of a run.
#[derive(Debug)]
pub(super) struct Outages<'a> {
    transcript: &'a Transcript,
    pub(super) listening: Listening,
    /// When the server got a signal that ended it, or ends every server.
    pub(super) signaled: Option<Duration>,
    /// The first time at which each fault acted on the process itself.
    on_process: Vec<Option<Duration>>,
    /// Every time that an outage acted.
    acted: Vec<Acted<'a>>,
}

/// One time that an outage acted.
#[derive(Debug)]
struct Acted<'a> {
    at: Duration,
    exchange: usize,
    fault: &'a Fault,
    operation: Option<&'static str>,
}

impl<'a> Outages<'a> {
    pub(super) fn of(transcript: &'a Transcript) -> Outages<'a> {
        let (mut listening, mut on_process) = (Vec::new(), vec![None; transcript.faults.len()]);
        let mut acted = Vec::new();
        let (mut signals, mut has_ended) = (Vec::new(), false);
        for event in &transcript.events {
            let (at, exchange) = (event.at, event.exchange);
            match event.what {
                EventKind::Listening if exchange == PROCESS => listening.push(at),
                EventKind::Signaled { signal } => signals.push((at, signal)),
                EventKind::Exited { .. } => has_ended = true,
                EventKind::FaultFired { index, operation, .. } => {
                    let Some(fault) = transcript.faults.get(index) else { continue };
                    if exchange == PROCESS {
                        on_process[index].get_or_insert(at);
                    }
                    if is_outage(fault, &transcript.service) {
                        acted.push(Acted { at, exchange, fault, operation });
                    }
                }
                _ => {}
            }
        }
        let signaled = signals.into_iter().find(|(_, signal)| has_ended || signal.ends_servers()).map(|(at, _)| at);
        Outages { transcript, listening: Listening(listening), signaled, on_process, acted }
    }

    /// Whether an outage acted during an exchange, was armed when the exchange began, or had been shortly before. A
    /// dependency that is not critical is out for those exchanges only that had to ask it.
    pub(super) fn met(&self, exchange: usize, start: Duration, end: Duration) -> bool {
        self.transcript.faults.iter().enumerate().any(|(index, fault)| self.is_lasting(index, fault, start, end))
            || self.acted.iter().any(|acted| self.is_met(acted, exchange, start))
    }

    /// Whether an outage was armed when an exchange began, or had been shortly before.
    fn is_lasting(&self, index: usize, fault: &Fault, start: Duration, end: Duration) -> bool {
        if !is_outage(fault, &self.transcript.service) {
            return false;
        }
        let (aftermath, matters) = match &fault.kind {
            // A start takes as long as it takes to notice that something is there.
            FaultKind::Process(ProcessFault::Restart {}) => return start <= NOTICE,
            FaultKind::Process(ProcessFault::ShutDown { at }) => return self.listening.is_replaced(at.0, start, end),
            FaultKind::Event { events, fault } if events.are_of_lifespan() => {
                // An app that got an event of its lifespan that no server may send need never be ready.
                return start <= NOTICE
                    || self.on_process[index].is_some_and(|at| {
                        !fault.legality(events).is_legal
                            || self.listening.next(at).is_none_or(|from: Duration| start <= from + NOTICE)
                    });
            }
            FaultKind::Process(fault) if fault.ends() => (NOTICE, true),
            FaultKind::Call { calls, .. } => (AFTERMATH, self.is_critical(&calls.dependency)),
            FaultKind::Head(_)
            | FaultKind::Answer(_)
            | FaultKind::Connection(_)
            | FaultKind::Stream { .. }
            | FaultKind::Frame { .. }
            | FaultKind::Scope(_)
            | FaultKind::Event { .. }
            | FaultKind::Process(
                ProcessFault::Absent {}
                | ProcessFault::MissingModule { .. }
                | ProcessFault::SetVariable { .. }
                | ProcessFault::UnsetVariable { .. },
            ) => (AFTERMATH, true),
        };
        let trigger = fault.trigger;
        let is_over = trigger.until.is_some_and(|until| start >= until + aftermath);
        matters && trigger.is_steady() && trigger.from <= start && !is_over
    }

    /// Whether an outage acted in an exchange, or on a critical dependency shortly before.
    fn is_met(&self, acted: &Acted<'_>, exchange: usize, start: Duration) -> bool {
        let is_critical = acted.fault.kind.calls().map(|calls| self.is_critical(&calls.dependency));
        if acted.exchange == exchange {
            // Readiness asks dependencies that are not critical as well, and does not fail for them.
            return is_critical.unwrap_or(true) || acted.operation != Some("ping");
        }
        is_critical.unwrap_or(false) && acted.at <= start && start <= acted.at + AFTERMATH
    }

    /// Whether the service cannot work without this dependency.
    fn is_critical(&self, dependency: &str) -> bool {
        let service = &self.transcript.service;
        service.needed_to_start.has(dependency) || service.critical.contains(&dependency)
    }

    /// Whether a fault kept the process away at a moment.
    pub(super) fn are_of_process(&self, at: Duration) -> bool {
        self.transcript.faults.iter().enumerate().any(|(index, fault)| self.keeps_away(index, fault, at))
    }

    /// Whether this fault did.
    fn keeps_away(&self, index: usize, fault: &Fault, at: Duration) -> bool {
        match &fault.kind {
            // A process that starts when the fault is over does not listen at that very moment.
            FaultKind::Process(ProcessFault::Absent {}) => fault.trigger.is_armed_at(at.saturating_sub(START)),
            FaultKind::Process(ProcessFault::ShutDown { at: stop }) => {
                stop.0 <= at && self.listening.next(stop.0).is_none_or(|from| at <= from + START)
            }
            FaultKind::Event { events, .. } if events.are_of_lifespan() => self.on_process[index]
                .is_some_and(|acted| self.listening.next(acted).is_none_or(|from| at <= from + START)),
            // A process that lacks a module or a variable is there.
            FaultKind::Process(
                ProcessFault::Restart {}
                | ProcessFault::MissingModule { .. }
                | ProcessFault::SetVariable { .. }
                | ProcessFault::UnsetVariable { .. },
            )
            | FaultKind::Head(_)
            | FaultKind::Answer(_)
            | FaultKind::Connection(_)
            | FaultKind::Stream { .. }
            | FaultKind::Frame { .. }
            | FaultKind::Scope(_)
            | FaultKind::Event { .. }
            | FaultKind::Call { .. } => false,
        }
    }

    /// The faults by which a critical dependency failed or did not answer whenever it was asked, from `start` to `end`.
    pub(super) fn all_through(&self, start: Duration, end: Duration) -> Vec<usize> {
        let faults = self.transcript.faults.iter().enumerate();
        faults
            .filter(|(_, fault)| {
                self.fails_critical(&fault.kind)
                    && fault.trigger.is_steady()
                    && fault.trigger.is_armed_at(start)
                    && fault.trigger.is_armed_at(end)
            })
            .map(|(index, _)| index)
            .collect()
    }

    /// Whether a fault makes a critical dependency fail, or not answer, also when readiness asks it.
    fn fails_critical(&self, kind: &FaultKind) -> bool {
        let FaultKind::Call { calls, fault } = kind else { return false };
        fault.is_failure()
            && calls.include(&calls.dependency, "ping")
            && self.transcript.service.critical.contains(&calls.dependency.as_str())
    }
}
