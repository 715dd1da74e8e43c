//! The check of a deployment: health, an upgrade with and without credentials, the events of one request, and whether
//! health and the handshake say the same.

use std::time::Duration;

use serde::Serialize;

use crate::{
    binding::Binding,
    bound::Server,
    check::{self, Evidence},
    classify::Reading,
    credential::Credential,
    discover,
    error::Error,
    head::{header, readable},
    message::message_type,
    outcome::{Class, Outcome},
    plan::Plan,
    run,
    step::{Act, Awaited, Step},
    target::Url,
    transcript::{Transcript, What},
    upstream::Upstream,
};

/// What was found out about a deployment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Validation {
    /// Whether everything is as it has to be.
    pub passes: bool,
    /// Each thing that was tried, in order.
    pub rows: Vec<Row>,
    /// What its answers say it is; empty where they say nothing.
    pub server: String,
    /// Which of the known servers it is like, and by what that was seen.
    pub kind: String,
    /// What may have brought failures about.
    pub notes: Vec<String>,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was done.
    pub tried: String,
    /// What had to come of it.
    pub expected: String,
    /// What came of it.
    pub got: String,
    /// Whether that is what had to come.
    pub passes: bool,
    /// How long the first answer took, or whatever is measured, in milliseconds; nothing where none came.
    pub took_ms: Option<u64>,
}

/// More requests than one look takes.
const REQUESTS_MAX: usize = 100;

/// How long a server that accepted may take to close what it does not want.
const REFUSAL_LIMIT: Duration = Duration::from_secs(3);

/// Tries a deployment once. Each wait has this limit.
///
/// # Errors
/// When the harness could not do its work; what the server does is never an error.
pub async fn validate(
    upstream: &Upstream,
    binding: &Binding,
    token: &str,
    limit: Duration,
) -> Result<Validation, Error> {
    let target = Url::new(upstream.clone(), binding, token.to_owned(), REQUESTS_MAX, Duration::ZERO);
    let server = Server::recognize(target, binding, &discover::servers()?).await;
    let tried = Tried { server, binding, authority: upstream.authority(), limit };
    let (kind, notes) = (tried.server.kind.to_string(), Vec::new());
    let mut validation = Validation { passes: false, rows: Vec::new(), server: String::new(), kind, notes };
    let mut healthy = Vec::new();
    for path in &binding.paths.health {
        let transcript = tried.perform(vec![tried.get(path)]).await?;
        let reading = Reading::of(&transcript, 0);
        validation.note_server(&reading);
        let outcome = reading.outcome();
        let is_ready = reading.response.is_some_and(|head| (200..300).contains(&head.status));
        if reading.response.is_some() {
            healthy.push((path, is_ready));
        }
        let got = outcome.ending.to_string();
        validation.rows.push(row(format!("GET {path}"), "2xx", got, is_ready, answered(&transcript)));
    }
    if binding.credential.is_needed() {
        for (credential, said) in [(Credential::None, "no"), (Credential::Garbage, "a bad")] {
            // Some servers accept first and refuse then.
            let refusal = Step { act: Act::Wait(Awaited::Close), limit: limit.min(REFUSAL_LIMIT) };
            let transcript = tried.perform(vec![tried.open(credential), refusal]).await?;
            let outcome = Reading::of(&transcript, 0).outcome();
            let refused = outcome.class == Class::GoodAuthRefusal;
            let what = format!("upgrade with {said} credential");
            validation.rows.push(row(what, "refused for that", shown(&outcome), refused, answered(&transcript)));
        }
    }
    let transcript = tried.perform(binding.session(&tried.authority, limit)).await?;
    let reading = Reading::of(&transcript, 0);
    validation.note_server(&reading);
    let outcome = reading.outcome();
    let opened = reading.response.is_some_and(|head| head.status == 101);
    let what = if binding.credential.is_needed() { "upgrade with a valid credential" } else { "upgrade" };
    validation.rows.push(row(what.to_owned(), "101", opening(&reading, &outcome), opened, answered(&transcript)));
    if !outcome.class.is_good()
        && let Some(explanation) = tried.server.kind.explain(&reading, &outcome.ending)
    {
        validation.notes.push(format!("{}: {explanation}", outcome.ending));
    }
    let is_talking = opened && !(binding.messages.request.is_empty() || binding.messages.events.is_empty());
    if is_talking {
        let (events, seen) = (binding.messages.events.len(), reading.agent_events().len());
        let is_whole = outcome.class == Class::GoodOpen && reading.agent_runs() > 0;
        let got = if is_whole { format!("all {events}") } else { format!("{seen}; {}", shown(&outcome)) };
        let expected = format!("{events} events in order");
        validation.rows.push(row("one request".to_owned(), &expected, got, is_whole, first_event(&transcript)));
    } else if opened {
        let is_good = outcome.class == Class::GoodOpen;
        validation.rows.push(row("a session".to_owned(), "closes in good order", shown(&outcome), is_good, None));
    }
    // Who does not answer at all agrees with nobody.
    for (path, is_ready) in healthy.into_iter().filter(|_| reading.response.is_some()) {
        let says = |is: bool| if is { "ready" } else { "not ready" };
        let got = format!("{} and {}", says(is_ready), says(opened));
        let what = format!("{path} and the handshake");
        validation.rows.push(row(what, "say the same", got, is_ready == opened, None));
    }
    let control = Outcome { class: Class::GoodOpen, ..outcome.clone() };
    for finding in check::findings(&Evidence::gather(&transcript, &control)) {
        // What the rows say already is not said twice.
        if outcome.class.is_good() {
            validation.rows.push(row(finding.check.to_owned(), "nothing to complain of", finding.message, false, None));
        }
    }
    validation.passes = !validation.rows.is_empty() && validation.rows.iter().all(|row| row.passes);
    Ok(validation)
}

impl Validation {
    fn note_server(&mut self, reading: &Reading<'_>) {
        let named = reading.response.and_then(|head| header(&head.headers, "server"));
        if let Some(name) = named.filter(|_| self.server.is_empty()) {
            self.server = readable(name);
        }
    }
}

/// A deployment that is being tried.
struct Tried<'a> {
    server: Server,
    binding: &'a Binding,
    authority: String,
    limit: Duration,
}

impl Tried<'_> {
    async fn perform(&self, steps: Vec<Step>) -> Result<Transcript, Error> {
        run::converse(&steps, Plan { seed: 1, faults: Vec::new() }, self.server.running()).await
    }

    fn step(&self, act: Act) -> Step {
        Step { act, limit: self.limit }
    }

    fn get(&self, path: &str) -> Step {
        self.step(Act::Request(self.binding.request(&self.authority, path, Credential::None)))
    }

    fn open(&self, credential: Credential) -> Step {
        self.step(Act::Open(self.binding.request(&self.authority, &self.binding.paths.websocket, credential)))
    }
}

fn row(tried: String, expected: &str, got: String, passes: bool, took: Option<Duration>) -> Row {
    let took_ms = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    Row { tried, expected: expected.to_owned(), got, passes, took_ms }
}

fn shown(outcome: &Outcome) -> String {
    format!("{} ({})", outcome.ending, outcome.class)
}

/// What an upgrade came to.
fn opening(reading: &Reading<'_>, outcome: &Outcome) -> String {
    match reading.response {
        Some(head) => head.status.to_string(),
        None => shown(outcome),
    }
}

fn when(transcript: &Transcript, wanted: impl Fn(&What) -> bool) -> Option<Duration> {
    transcript.of(0).find(|event| wanted(&event.what)).map(|event| event.at)
}

/// How long the answer's head took.
fn answered(transcript: &Transcript) -> Option<Duration> {
    let asked = when(transcript, |what| matches!(what, What::RequestSent { .. }))?;
    Some(when(transcript, |what| matches!(what, What::ResponseSeen(_)))?.saturating_sub(asked))
}

/// How long the first event took after the request.
fn first_event(transcript: &Transcript) -> Option<Duration> {
    let first = *transcript.service.words.events.first()?;
    let asked = when(transcript, |what| matches!(what, What::FrameSent(_)))?;
    let is_first = |what: &What| match what {
        What::FrameSeen(frame) => message_type(&frame.payload).is_some_and(|name| name == first),
        _ => false,
    };
    Some(when(transcript, is_first)?.saturating_sub(asked))
}
