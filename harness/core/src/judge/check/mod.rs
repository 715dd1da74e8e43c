//! The checks: each a pure function from evidence to findings, one property a file.
//!
//! A check never drives and never waits. What a check forbids is code; no snapshot can bless it.

mod answered;
mod asgi_conformance;
mod body_complete;
mod bounded_wait;
mod class_fits_cause;
mod control_opens;
mod delivery_retried;
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
mod ready_only_when_ready;
mod recovers;
mod retry_after_present;
mod stated_reason;
mod subprotocol_offered;
mod welcome_first;

use std::borrow::Cow;

use crate::{
    judge::{
        classify::Exchange,
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
        let readings = exchanges.into_iter().map(|facts| Exchange::new(transcript, Cow::Owned(facts))).collect();
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
    fn exchanges(&self) -> impl Iterator<Item = (&Exchange<'a>, &Outcome)> {
        let is_plain = |(reading, outcome): &(&Exchange<'a>, &Outcome)| {
            outcome.class != Class::CutByFault && !reading.is_distorted()
        };
        self.readings.iter().zip(&self.outcomes).filter(is_plain)
    }

    /// The readings of those exchanges.
    fn plain(&self) -> impl Iterator<Item = &Exchange<'a>> {
        self.exchanges().map(|(reading, _)| reading)
    }
}

/// Findings in the making: a key that tells them apart, and the text.
type CheckFindings = Vec<(String, String)>;

/// One check: its name, what must hold, and the function that looks.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its name, as cases and findings write it.
    pub name: &'static str,
    /// The property that must hold.
    pub property: &'static str,
    run: fn(&RunView<'_>) -> CheckFindings,
}

/// Every check, in the order in which findings are listed.
pub const ALL: &[Check] = &[
    Check {
        name: "no_server_error",
        property: "no request is answered with 500, 502 or 504",
        run: no_server_error::check,
    },
    Check { name: "no_internal_close", property: "no WebSocket is closed with 1011", run: no_internal_close::check },
    Check { name: "no_drop", property: "no connection ends without an answer or a close frame", run: no_drop::check },
    Check {
        name: "bounded_wait",
        property: "nothing keeps the client waiting past its limit",
        run: bounded_wait::check,
    },
    Check { name: "answered", property: "no message is taken and left without an answer", run: answered::check },
    Check { name: "class_fits_cause", property: "a refusal names what is really wrong", run: class_fits_cause::check },
    Check { name: "welcome_first", property: "a session begins with the welcome", run: welcome_first::check },
    Check {
        name: "five_events_in_order",
        property: "an agent request is answered by its five events",
        run: five_events_in_order::check,
    },
    Check {
        name: "opened_only_with_credential",
        property: "a session opens on a valid credential only, for the user it names",
        run: opened_only_with_credential::check,
    },
    Check {
        name: "subprotocol_offered",
        property: "the selected subprotocol is one the client offered",
        run: subprotocol_offered::check,
    },
    Check {
        name: "legal_close",
        property: "a close has a code that may be sent and a reason of at most 123 bytes",
        run: legal_close::check,
    },
    Check { name: "body_complete", property: "a body is as long as announced", run: body_complete::check },
    Check {
        name: "asgi_conformance",
        property: "application and server send only what ASGI allows, and finish",
        run: asgi_conformance::check,
    },
    Check {
        name: "no_leak_in_answers",
        property: "no secret and no internal text reaches the client",
        run: no_leak_in_answers::check,
    },
    Check {
        name: "no_escaped_exception",
        property: "no exception leaves the application",
        run: no_escaped_exception::check,
    },
    Check {
        name: "handler_ends",
        property: "the application's call ends once its client is gone",
        run: handler_ends::check,
    },
    Check {
        name: "retry_after_present",
        property: "503 and 429 say when to come back",
        run: retry_after_present::check,
    },
    Check {
        name: "stated_reason",
        property: "a refusal for something that is down names it",
        run: stated_reason::check,
    },
    Check {
        name: "health_tells_the_truth",
        property: "health agrees with a real handshake",
        run: health_tells_the_truth::check,
    },
    Check {
        name: "ready_only_when_ready",
        property: "health says ready only while everything critical answers",
        run: ready_only_when_ready::check,
    },
    Check {
        name: "recovers",
        property: "once a fault is over clients are served again, without a restart",
        run: recovers::check,
    },
    Check { name: "isolation", property: "no frame carries what belongs to another user", run: isolation::check },
    Check {
        name: "once_per_connection",
        property: "the endpoint runs once for every connection",
        run: once_per_connection::check,
    },
    Check {
        name: "limits_hold",
        property: "no user has more connections at a time than the service lets one have",
        run: limits_hold::check,
    },
    Check {
        name: "delivery_retried",
        property: "an event whose delivery fails is tried again as often as it is to be",
        run: delivery_retried::check,
    },
    Check { name: "no_residue", property: "nothing is left behind when every client is gone", run: no_residue::check },
    Check {
        name: "no_error_log",
        property: "nothing is logged as an error unless something behind the service failed",
        run: no_error_log::check,
    },
    Check {
        name: "no_error_log_for_client_fault",
        property: "nothing is logged as an error for a client's own mistake",
        run: no_error_log_for_client_fault::check,
    },
    Check {
        name: "control_opens",
        property: "a healthy client gets through before, during and after",
        run: control_opens::check,
    },
];

/// The findings of every check.
pub fn findings(evidence: &RunView<'_>) -> Vec<Finding> {
    ALL.iter()
        .flat_map(|check| {
            (check.run)(evidence).into_iter().map(|(key, message)| Finding { check: check.name, key, message })
        })
        .collect()
}

/// The names of all checks.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|check| check.name).collect()
}
