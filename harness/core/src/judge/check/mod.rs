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
        classify::Reading,
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
pub struct Evidence<'a> {
    /// The whole run.
    pub transcript: &'a Transcript,
    /// Its exchanges, in order.
    pub readings: Vec<Reading<'a>>,
    /// The outcome of each exchange.
    pub outcomes: Vec<Outcome>,
    /// How the healthy client fared beside it.
    pub control: &'a HealthyClient,
    /// The times at which the server's process began to listen.
    listening: Cow<'a, Listening>,
}

impl<'a> Evidence<'a> {
    /// Gathers the evidence of a run that is looked at only once.
    pub fn gather(transcript: &'a Transcript, control: &'a HealthyClient) -> Evidence<'a> {
        let Timeline { exchanges, listening, .. } = Timeline::of(transcript);
        let readings = exchanges.into_iter().map(|facts| Reading::new(transcript, Cow::Owned(facts))).collect();
        Evidence::new(transcript, readings, Cow::Owned(listening), control)
    }

    /// Gathers the evidence of a run, by its timeline.
    pub fn of(transcript: &'a Transcript, timeline: &'a Timeline, control: &'a HealthyClient) -> Evidence<'a> {
        let readings = Reading::all(transcript, timeline);
        Evidence::new(transcript, readings, Cow::Borrowed(&timeline.listening), control)
    }

    fn new(
        transcript: &'a Transcript,
        readings: Vec<Reading<'a>>,
        listening: Cow<'a, Listening>,
        control: &'a HealthyClient,
    ) -> Evidence<'a> {
        let outcomes = readings.iter().map(Reading::outcome).collect();
        Evidence { transcript, readings, outcomes, control, listening }
    }

    /// The exchanges in which what the client saw is what the service did: nothing that was injected stood between.
    fn exchanges(&self) -> impl Iterator<Item = (&Reading<'a>, &Outcome)> {
        let is_plain = |(reading, outcome): &(&Reading<'a>, &Outcome)| {
            outcome.class != Class::CutByFault && !reading.is_distorted()
        };
        self.readings.iter().zip(&self.outcomes).filter(is_plain)
    }

    /// The readings of those exchanges.
    fn plain(&self) -> impl Iterator<Item = &Reading<'a>> {
        self.exchanges().map(|(reading, _)| reading)
    }
}

/// Findings in the making: a key that tells them apart, and the text.
type Complaints = Vec<(String, String)>;

/// One check: its name, what must hold, and the function that looks.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its name, as cases and findings write it.
    pub name: &'static str,
    /// The property that must hold.
    pub property: &'static str,
    look: fn(&Evidence<'_>) -> Complaints,
}

/// Every check, in the order in which findings are listed.
pub const ALL: &[Check] = &[
    Check {
        name: "no_server_error",
        property: "no request is answered with 500, 502 or 504",
        look: no_server_error::look,
    },
    Check { name: "no_internal_close", property: "no WebSocket is closed with 1011", look: no_internal_close::look },
    Check { name: "no_drop", property: "no connection ends without an answer or a close frame", look: no_drop::look },
    Check {
        name: "bounded_wait",
        property: "nothing keeps the client waiting past its limit",
        look: bounded_wait::look,
    },
    Check { name: "answered", property: "no message is taken and left without an answer", look: answered::look },
    Check { name: "class_fits_cause", property: "a refusal names what is really wrong", look: class_fits_cause::look },
    Check { name: "welcome_first", property: "a session begins with the welcome", look: welcome_first::look },
    Check {
        name: "five_events_in_order",
        property: "an agent request is answered by its five events",
        look: five_events_in_order::look,
    },
    Check {
        name: "opened_only_with_credential",
        property: "a session opens on a valid credential only, for the user it names",
        look: opened_only_with_credential::look,
    },
    Check {
        name: "subprotocol_offered",
        property: "the selected subprotocol is one the client offered",
        look: subprotocol_offered::look,
    },
    Check {
        name: "legal_close",
        property: "a close has a code that may be sent and a reason of at most 123 bytes",
        look: legal_close::look,
    },
    Check { name: "body_complete", property: "a body is as long as announced", look: body_complete::look },
    Check {
        name: "asgi_conformance",
        property: "application and server send only what ASGI allows, and finish",
        look: asgi_conformance::look,
    },
    Check {
        name: "no_leak_in_answers",
        property: "no secret and no internal text reaches the client",
        look: no_leak_in_answers::look,
    },
    Check {
        name: "no_escaped_exception",
        property: "no exception leaves the application",
        look: no_escaped_exception::look,
    },
    Check {
        name: "handler_ends",
        property: "the application's call ends once its client is gone",
        look: handler_ends::look,
    },
    Check {
        name: "retry_after_present",
        property: "503 and 429 say when to come back",
        look: retry_after_present::look,
    },
    Check {
        name: "stated_reason",
        property: "a refusal for something that is down names it",
        look: stated_reason::look,
    },
    Check {
        name: "health_tells_the_truth",
        property: "health agrees with a real handshake",
        look: health_tells_the_truth::look,
    },
    Check {
        name: "ready_only_when_ready",
        property: "health says ready only while everything critical answers",
        look: ready_only_when_ready::look,
    },
    Check {
        name: "recovers",
        property: "once a fault is over clients are served again, without a restart",
        look: recovers::look,
    },
    Check { name: "isolation", property: "no frame carries what belongs to another user", look: isolation::look },
    Check {
        name: "once_per_connection",
        property: "the endpoint runs once for every connection",
        look: once_per_connection::look,
    },
    Check {
        name: "limits_hold",
        property: "no user has more connections at a time than the service lets one have",
        look: limits_hold::look,
    },
    Check {
        name: "delivery_retried",
        property: "an event whose delivery fails is tried again as often as it is to be",
        look: delivery_retried::look,
    },
    Check { name: "no_residue", property: "nothing is left behind when every client is gone", look: no_residue::look },
    Check {
        name: "no_error_log",
        property: "nothing is logged as an error unless something behind the service failed",
        look: no_error_log::look,
    },
    Check {
        name: "no_error_log_for_client_fault",
        property: "nothing is logged as an error for a client's own mistake",
        look: no_error_log_for_client_fault::look,
    },
    Check {
        name: "control_opens",
        property: "a healthy client gets through before, during and after",
        look: control_opens::look,
    },
];

/// The findings of every check.
pub fn findings(evidence: &Evidence<'_>) -> Vec<Finding> {
    ALL.iter()
        .flat_map(|check| {
            (check.look)(evidence).into_iter().map(|(key, message)| Finding { check: check.name, key, message })
        })
        .collect()
}

/// The names of all checks.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|check| check.name).collect()
}
