//! The checks: each a pure function from evidence to findings, one property a file.
//!
//! A check never drives and never waits. What a check forbids is code; no snapshot can bless it. A new one is its file, and
//! its line in [`ALL`]. A service brings further ones with [`Service::checks`](crate::record::service::Service::checks).

mod answered;
mod answers_agree;
mod asgi_conformance;
mod body_complete;
mod bounded_wait;
mod class_fits_cause;
mod control_opens;
mod delivered_once;
mod five_events_in_order;
mod handler_ends;
mod health_tells_the_truth;
mod isolation;
mod legal_close;
mod limits_hold;
mod no_drop;
mod no_error_log;
mod no_error_log_for_client_fault;
mod no_escaped_exception;
mod no_internal_close;
mod no_leak_in_answers;
mod no_residue;
mod no_server_error;
mod once_per_connection;
mod opened_only_with_credential;
mod own_state;
mod ready_only_when_ready;
mod recovers;
mod retry_after_present;
mod stated_reason;
mod subprotocol_offered;
mod welcome_first;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::{
    asgi::exception::Exception,
    judge::{
        classify::Exchange,
        harm::Harm,
        outcome::{Class, Outcome},
        verdict::{Finding, HealthyClient},
    },
    record::{
        timeline::{Listening, Timeline},
        transcript::Transcript,
    },
};

/// The evidence that a check may look at.
#[derive(Debug)]
pub struct RunView<'a> {
    /// The whole run.
    pub transcript: &'a Transcript,
    /// Its exchanges, in order.
    pub readings: Vec<Exchange<'a>>,
    /// The outcome of each exchange.
    pub outcomes: Vec<Outcome>,
    /// How the healthy client fared beside it.
    pub control: &'a HealthyClient,
    /// The times at which the server's process began to listen.
    listening: Cow<'a, Listening>,
}

impl<'a> RunView<'a> {
    /// Gathers the evidence of a run that is looked at only once.
    pub fn gather(transcript: &'a Transcript, control: &'a HealthyClient) -> RunView<'a> {
        let Timeline { exchanges, listening, .. } = Timeline::of(transcript);
        let readings = exchanges.into_iter().enumerate();
        let readings = readings.map(|(number, facts)| Exchange::new(transcript, number, Cow::Owned(facts))).collect();
        RunView::new(transcript, readings, Cow::Owned(listening), control)
    }

    /// Gathers the evidence of a run, by its timeline.
    pub fn of(transcript: &'a Transcript, timeline: &'a Timeline, control: &'a HealthyClient) -> RunView<'a> {
        let readings = Exchange::all(transcript, timeline);
        RunView::new(transcript, readings, Cow::Borrowed(&timeline.listening), control)
    }

    fn new(
        transcript: &'a Transcript,
        readings: Vec<Exchange<'a>>,
        listening: Cow<'a, Listening>,
        control: &'a HealthyClient,
    ) -> RunView<'a> {
        let outcomes = readings.iter().map(Exchange::outcome).collect();
        RunView { transcript, readings, outcomes, control, listening }
    }

    /// The exchanges in which what the client saw is what the service did: nothing that was injected stood between.
    pub fn exchanges(&self) -> impl Iterator<Item = (&Exchange<'a>, &Outcome)> {
        let exchanges = self.readings.iter().zip(&self.outcomes);
        exchanges.filter(|(reading, outcome)| outcome.class != Class::CutByFault && !reading.is_distorted())
    }

    /// The readings of those exchanges.
    pub fn plain(&self) -> impl Iterator<Item = &Exchange<'a>> {
        self.exchanges().map(|(reading, _)| reading)
    }
}

/// A place where a run breaks a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The key that tells this violation from others of the same check, stable from run to run.
    pub key: String,
    /// The violation, with its evidence.
    pub message: String,
    /// The exchange that breaks it, counted from 0; `None` where it takes several, or the whole run.
    pub exchange: Option<usize>,
    /// The exception that it is about, where the outcome of the exchange does not tell it.
    pub exception: Option<Exception>,
}

impl Violation {
    /// A violation by the run as a whole.
    pub fn of_run(key: impl Into<String>, message: impl Into<String>) -> Violation {
        Violation { key: key.into(), message: message.into(), exchange: None, exception: None }
    }
}

/// One property that must hold in every run. It looks at evidence and neither drives nor waits.
pub trait Check: fmt::Debug + Send + Sync {
    /// Its name, as cases and findings write it.
    fn name(&self) -> &'static str;

    /// The property that must hold.
    fn property(&self) -> &'static str;

    /// The harm of breaking it. [`Harm::Crash`] unless a check says something else.
    fn harm(&self) -> Harm {
        Harm::Crash
    }

    /// The places where a run breaks it; none where it holds.
    fn check(&self, run: &RunView<'_>) -> Vec<Violation>;
}

/// A check that is a closure.
pub struct Closure<F> {
    /// Its name.
    pub name: &'static str,
    /// The property that must hold.
    pub property: &'static str,
    /// The places where a run breaks it.
    pub check: F,
}

impl<F> fmt::Debug for Closure<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<F: Fn(&RunView<'_>) -> Vec<Violation> + Send + Sync> Check for Closure<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn property(&self) -> &'static str {
        self.property
    }

    fn check(&self, run: &RunView<'_>) -> Vec<Violation> {
        (self.check)(run)
    }
}

/// The checks that a service brings for itself, beside [`ALL`].
#[derive(Debug, Clone, Default)]
pub struct Checks(Vec<Arc<dyn Check>>);

impl Checks {
    /// No check.
    pub const NONE: Checks = Checks(Vec::new());

    /// Adds a check.
    pub fn push(&mut self, check: impl Check + 'static) {
        self.0.push(Arc::new(check));
    }

    /// The checks, in the order in which findings are listed.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Check> {
        self.0.iter().map(Arc::as_ref)
    }
}

impl<C: Check + 'static> From<C> for Checks {
    fn from(check: C) -> Checks {
        Checks(vec![Arc::new(check)])
    }
}

/// A check is known by its name.
impl PartialEq for Checks {
    fn eq(&self, other: &Checks) -> bool {
        self.iter().map(Check::name).eq(other.iter().map(Check::name))
    }
}

impl Eq for Checks {}

/// A check of this module.
#[derive(Debug, Clone, Copy)]
struct Property {
    name: &'static str,
    property: &'static str,
    harm: Harm,
    run: fn(&RunView<'_>) -> Vec<Violation>,
}

impl Check for Property {
    fn name(&self) -> &'static str {
        self.name
    }

    fn property(&self) -> &'static str {
        self.property
    }

    fn harm(&self) -> Harm {
        self.harm
    }

    fn check(&self, run: &RunView<'_>) -> Vec<Violation> {
        (self.run)(run)
    }
}

/// The checks of every service, in the order in which findings are listed.
pub const ALL: &[&dyn Check] = &[
    &no_server_error::CHECK,
    &no_internal_close::CHECK,
    &no_drop::CHECK,
    &bounded_wait::CHECK,
    &answered::CHECK,
    &class_fits_cause::CHECK,
    &welcome_first::CHECK,
    &five_events_in_order::CHECK,
    &opened_only_with_credential::CHECK,
    &subprotocol_offered::CHECK,
    &legal_close::CHECK,
    &body_complete::CHECK,
    &asgi_conformance::CHECK,
    &no_leak_in_answers::CHECK,
    &no_escaped_exception::CHECK,
    &handler_ends::CHECK,
    &retry_after_present::CHECK,
    &stated_reason::CHECK,
    &health_tells_the_truth::CHECK,
    &ready_only_when_ready::CHECK,
    &recovers::CHECK,
    &isolation::CHECK,
    &own_state::CHECK,
    &answers_agree::CHECK,
    &delivered_once::CHECK,
    &once_per_connection::CHECK,
    &limits_hold::CHECK,
    &no_residue::CHECK,
    &no_error_log::CHECK,
    &no_error_log_for_client_fault::CHECK,
    &control_opens::CHECK,
];

/// The check with this name: one of [`ALL`], or of these of a service's own.
pub fn named(name: &str, own: &[&'static dyn Check]) -> Option<&'static dyn Check> {
    ALL.iter().chain(own).copied().find(|check| check.name() == name)
}

/// Whether two checks look for the same thing. Those of error logs differ only in whether the client is at fault, and how much
/// is known of a user's service decides which of the two finds a log.
pub fn see_one_thing(one: &str, other: &str) -> bool {
    let of_logs = [no_error_log::CHECK.name, no_error_log_for_client_fault::CHECK.name];
    one == other || (of_logs.contains(&one) && of_logs.contains(&other))
}

/// The findings of every check, those of the service's own last.
pub fn findings(evidence: &RunView<'_>) -> Vec<Finding> {
    let checks = ALL.iter().copied().chain(evidence.transcript.service.checks.iter());
    let mut findings = Vec::new();
    for check in checks {
        let violations = check.check(evidence).into_iter();
        findings.extend(violations.map(|Violation { key, message, exchange, exception }| Finding {
            check: check.name(),
            harm: check.harm(),
            key,
            message,
            exchange,
            exception: exception.map(Box::new),
        }));
    }
    findings
}
