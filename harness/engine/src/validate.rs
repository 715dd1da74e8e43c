//! The check of a deployment: health, an upgrade with and without credentials, the events of one request, and whether
//! health and the handshake agree; for an application without a service file, the answers of its own routes.

use std::time::Duration;

use serde::Serialize;

use crate::{
    deadline::Deadline,
    discover,
    explain::UpgradePassage,
    external::{External, as_written, is_harmless},
    route::Route,
    run,
    service_file::ServiceFile,
};
use relapse_core::{
    client::{
        credential::Credential,
        step::{Action, Awaited, Step},
    },
    error::Error,
    judge::{
        check::{self, RunView},
        classify::Exchange,
        outcome::{Class, Outcome},
        verdict::HealthyClient,
    },
    plan::Plan,
    record::{
        redact::Redactor,
        transcript::{EventKind, Transcript},
    },
    wire::{
        head::{header, readable},
        message::message_type,
    },
};

/// The result of checking a deployment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Validation {
    /// Whether everything is as it has to be.
    pub passes: bool,
    /// Each thing that was tried, in order.
    pub rows: Vec<ValidationRow>,
    /// The server named by its answers; empty if they name none.
    pub server: String,
    /// Which of the known servers it is like, and by what that was seen; or which one was put in front of an application.
    pub kind: String,
    /// Possible causes of the failures.
    pub notes: Vec<String>,
    /// The errors in the shutdown of the user's application; filled in by the caller that stops it.
    pub shutdown: Vec<String>,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValidationRow {
    /// The step that was tried.
    pub tried: String,
    /// The expected result.
    pub expected: String,
    /// The actual result.
    pub got: String,
    /// Whether that is what had to come.
    pub passes: bool,
    /// How long the first answer took, or whatever is measured, in milliseconds; nothing where none came.
    pub took_ms: Option<u64>,
}

/// How long a server that accepted may take to close what it does not want.
const REFUSAL_LIMIT: Duration = Duration::from_secs(3);

/// Tries a deployment once. Each wait has this limit, and all of it this deadline. A WebSocket route that a user named must
/// let a client in.
///
/// # Errors
/// When the harness could not do its work; what the server does is never an error.
pub async fn validate(
    server: &mut External,
    binding: &ServiceFile,
    named: &[Route],
    limit: Duration,
    deadline: Deadline,
) -> Result<Validation, Error> {
    // It may have been replaced since the last look.
    let (clock, known) = (server.clock(), discover::servers()?);
    // Where there is no time for that, none is left for the rest, which says so.
    let _ = deadline.bound(clock, server.recognize(binding, &known)).await;
    let tried = TriedDeployment { server, binding, named, authority: server.target.authority(), limit, deadline };
    let (kind, notes) = (server.described(), server.troubles.iter().map(ToString::to_string).collect());
    let mut validation =
        Validation { passes: false, rows: Vec::new(), server: String::new(), kind, notes, shutdown: Vec::new() };
    let all = match binding.is_unknown() {
        true => tried.routes(&mut validation).await,
        false => tried.service(&mut validation).await,
    };
    match all {
        Err(Error::TimeIsOver) => {
            validation.rows.push(row("the rest".to_owned(), "in time", deadline.reason().to_owned(), false, None));
        }
        all => all?,
    }
    validation.passes = !validation.rows.is_empty() && validation.rows.iter().all(|row| row.passes);
    Ok(validation)
}

impl Validation {
    fn note_server(&mut self, reading: &Exchange<'_>) {
        let named = reading.response.and_then(|head| header(&head.headers, "server"));
        if let Some(name) = named.filter(|_| self.server.is_empty()) {
            self.server = readable(name);
        }
    }
}

/// A deployment that is being tried.
struct TriedDeployment<'a> {
    server: &'a External,
    binding: &'a ServiceFile,
    /// The routes that a user named.
    named: &'a [Route],
    authority: String,
    limit: Duration,
    deadline: Deadline,
}

impl TriedDeployment<'_> {
    async fn perform(&self, steps: Vec<Step>) -> Result<Transcript, Error> {
        let plan = Plan { seed: 1, faults: Vec::new() };
        let conversation = run::converse(&steps, plan, self.server.target.as_ref());
        let transcript = self.deadline.bound(self.server.clock(), conversation).await??;
        self.server.target.clear().await?;
        Ok(transcript)
    }

    /// Tries what the service file says.
    async fn service(&self, validation: &mut Validation) -> Result<(), Error> {
        let mut healthy = Vec::new();
        for path in &self.binding.paths.health {
            let transcript = self.perform(vec![self.get(path)]).await?;
            let reading = Exchange::of(&transcript, 0);
            validation.note_server(&reading);
            let outcome = reading.outcome();
            let is_ready = reading.response.is_some_and(|head| (200..300).contains(&head.status));
            if reading.response.is_some() {
                healthy.push((path, is_ready));
            }
            let got = outcome.ending.to_string();
            validation.rows.push(row(format!("GET {path}"), "2xx", got, is_ready, answered(&transcript)));
            self.explain(&transcript, &reading, &outcome, validation);
        }
        if let Some(path) = self.binding.paths.websocket.as_ref().filter(|_| self.binding.credential.is_needed()) {
            for (credential, said) in [(Credential::None, "no"), (Credential::Garbage, "a bad")] {
                // Some servers accept first and refuse then.
                let refusal = Step::new(Action::Wait(Awaited::Close), self.limit.min(REFUSAL_LIMIT));
                let transcript = self.perform(vec![self.open(path, credential), refusal]).await?;
                let outcome = Exchange::of(&transcript, 0).outcome();
                let refused = outcome.class == Class::RefusedAuth;
                let what = format!("upgrade with {said} credential");
                validation.rows.push(row(what, "refused for that", shown(&outcome), refused, answered(&transcript)));
            }
        }
        let Some(session) = self.binding.session(&self.authority, self.limit) else { return Ok(()) };
        let transcript = self.perform(session).await?;
        let reading = Exchange::of(&transcript, 0);
        validation.note_server(&reading);
        let outcome = reading.outcome();
        let opened = reading.response.is_some_and(|head| head.status == 101);
        let what = if self.binding.credential.is_needed() { "upgrade with a valid credential" } else { "upgrade" };
        validation.rows.push(row(what.to_owned(), "101", opening(&reading, &outcome), opened, answered(&transcript)));
        self.explain(&transcript, &reading, &outcome, validation);
        let is_talking = opened && self.binding.messages.request.is_some() && !self.binding.messages.events.is_empty();
        if is_talking {
            let (events, seen) = (self.binding.messages.events.len(), reading.agent_events().len());
            let is_whole = outcome.class == Class::Served && reading.agent_runs() > 0;
            let got = if is_whole { format!("all {events}") } else { format!("{seen}; {}", shown(&outcome)) };
            let expected = format!("{events} events in order");
            validation.rows.push(row("one request".to_owned(), &expected, got, is_whole, first_event(&transcript)));
        } else if opened {
            let is_good = outcome.class == Class::Served;
            validation.rows.push(row("a session".to_owned(), "closes in good order", shown(&outcome), is_good, None));
        }
        // A service that does not answer cannot be compared.
        for (path, is_ready) in healthy.into_iter().filter(|_| reading.response.is_some()) {
            let [by_path, by_handshake] = [is_ready, opened].map(|is| if is { "ready" } else { "not ready" });
            let got = format!("{by_path} and {by_handshake}");
            let what = format!("{path} and the handshake");
            validation.rows.push(row(what, "say the same", got, is_ready == opened, None));
        }
        let complaints = complaints(&transcript, &outcome);
        validation.rows.extend(complaints.map(|(check, message)| row(check, NO_COMPLAINT, message, false, None)));
        Ok(())
    }

    /// Tries the routes that an application has by what it tells: each has to let the plainest request in, or to refuse it
    /// in order. What may change something is not asked for.
    async fn routes(&self, validation: &mut Validation) -> Result<(), Error> {
        let (asked, left): (Vec<Route>, Vec<Route>) = self.server.routes.iter().cloned().partition(is_harmless);
        for route in asked.into_iter().map(plainest) {
            let greeting = route.greeting(self.limit).into_iter();
            let steps = greeting.map(|step| as_written(self.binding, &self.authority, step)).collect();
            let transcript = self.perform(steps).await?;
            let reading = Exchange::of(&transcript, 0);
            validation.note_server(&reading);
            let outcome = reading.outcome();
            let took = answered(&transcript);
            let is_named = self.named.iter().any(|named| named.is_websocket && named.path == route.path);
            let is_refused = reading.response.is_some_and(|head| (400..500).contains(&head.status));
            let (expected, got, passes) = match is_named && route.is_websocket && is_refused {
                true => ("101", format!("{}: refused, although the path was named", shown(&outcome)), false),
                false => ("a good ending", shown(&outcome), outcome.class.is_good()),
            };
            validation.rows.push(row(route.to_string(), expected, got, passes, took));
            let complaints = complaints(&transcript, &outcome);
            validation.rows.extend(
                complaints.map(|(check, message)| row(format!("{route}: {check}"), NO_COMPLAINT, message, false, None)),
            );
            self.explain(&transcript, &reading, &outcome, validation);
        }
        let left: Vec<String> = left.iter().map(Route::to_string).collect();
        if !left.is_empty() {
            validation.notes.push(format!("not asked, as it may change something: {}", left.join("; ")));
        }
        Ok(())
    }

    /// Notes what may have brought a failure about.
    fn explain(&self, transcript: &Transcript, reading: &Exchange<'_>, outcome: &Outcome, validation: &mut Validation) {
        let explanation = self.server.kind.explain(reading, &outcome.ending);
        if outcome.class.is_good() {
            // A refusal may be in order, and still not what was meant for an upgrade.
            let lost = explanation.filter(|explanation| explanation.passage != UpgradePassage::Arrived);
            validation.notes.extend(lost.map(|explanation| format!("{}: {explanation}", outcome.ending)));
            return;
        }
        let raised = transcript.of(0).find_map(|event| match &event.what {
            EventKind::Raised(exception) => Some(exception),
            _ => None,
        });
        if let Some(exception) = raised {
            let place = exception.place.as_ref().map_or(String::new(), |place| format!(" ({place})"));
            let redactor = Redactor::of(transcript);
            let note =
                format!("{}: the application raised {}{place}", outcome.ending, redactor.text(&exception.to_string()));
            validation.notes.push(note);
        } else if let Some(explanation) = explanation {
            validation.notes.push(format!("{}: {explanation}", outcome.ending));
        }
    }

    fn step(&self, act: Action) -> Step {
        Step::new(act, self.limit)
    }

    fn get(&self, path: &str) -> Step {
        self.step(Action::Request(self.binding.request(&self.authority, path, Credential::None)))
    }

    fn open(&self, path: &str, credential: Credential) -> Step {
        self.step(Action::Open(self.binding.request(&self.authority, path, credential)))
    }
}

/// Of a row that only says what is wrong.
const NO_COMPLAINT: &str = "no finding";

/// The findings of the checks where the exchange ended well; the rows already show other failures.
fn complaints(transcript: &Transcript, outcome: &Outcome) -> impl Iterator<Item = (String, String)> {
    let findings = match outcome.class.is_good() {
        true => check::findings(&RunView::gather(transcript, &HealthyClient::Absent)),
        false => Vec::new(),
    };
    findings.into_iter().map(|finding| (finding.check.to_owned(), finding.message))
}

/// The same route, asked for with GET.
fn plainest(route: Route) -> Route {
    match route.is_websocket {
        true => route,
        false => Route { methods: vec!["GET".to_owned()], ..route },
    }
}

fn row(tried: String, expected: &str, got: String, passes: bool, took: Option<Duration>) -> ValidationRow {
    let took_ms = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    ValidationRow { tried, expected: expected.to_owned(), got, passes, took_ms }
}

fn shown(outcome: &Outcome) -> String {
    format!("{} ({})", outcome.ending, outcome.class)
}

/// The result of an upgrade.
fn opening(reading: &Exchange<'_>, outcome: &Outcome) -> String {
    match reading.response {
        Some(head) => head.status.to_string(),
        None => shown(outcome),
    }
}

fn when(transcript: &Transcript, wanted: impl Fn(&EventKind) -> bool) -> Option<Duration> {
    transcript.of(0).find(|event| wanted(&event.what)).map(|event| event.at)
}

/// How long the answer's head took.
fn answered(transcript: &Transcript) -> Option<Duration> {
    let asked = when(transcript, |what| matches!(what, EventKind::RequestSent { .. }))?;
    Some(when(transcript, |what| matches!(what, EventKind::ResponseSeen(_)))?.saturating_sub(asked))
}

/// How long the first event took after the request.
fn first_event(transcript: &Transcript) -> Option<Duration> {
    let first = transcript.service.words.events.first()?;
    let asked = when(transcript, |what| matches!(what, EventKind::FrameSent(_)))?;
    let answered = when(transcript, |what| match what {
        EventKind::FrameSeen(frame) => message_type(&frame.payload).is_some_and(|name| name == first),
        _ => false,
    })?;
    Some(answered.saturating_sub(asked))
}
