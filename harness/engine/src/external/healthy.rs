//! The healthy client of a service: which one there is, and how it fares.

use std::time::Duration;

use super::{External, translate};
use crate::{
    case::{Case, Vocabulary},
    route::{Route, RouteSource},
    run,
    service_file::ServiceFile,
};
use relapse_core::{
    asgi::exception::Exception,
    client::{
        credential::Credential,
        step::{Action, AnswerReading, DEFAULT_LIMIT, Request, Step},
    },
    error::Error,
    judge::{
        classify::{self, Exchange},
        outcome::{Class, Ending, Outcome},
        verdict::{Admission, HealthyClient, LetIn},
    },
    plan::Plan,
    record::transcript::EventKind,
    wire::{close_code::CloseCode, head::readable},
};
use relapse_simulate::clock::Clock;

/// How long each step of a healthy client may take, on the app's own clock.
const LIMIT: Duration = Duration::from_secs(30);
/// The same of a derived one where time is real and a user waits for it, unless the case's own step may take longer.
const REAL_LIMIT: Duration = DEFAULT_LIMIT;
/// How many derived healthy clients may get no answer where time is real. No further route is asked then.
const HANGS_MAX: usize = 2;
/// How many of an app's routes are tried until one lets the healthy client in.
const ROUTES_MAX: usize = 16;

/// Where a healthy client comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HealthySource {
    /// The case says what it does, so that it has to get through, and everything that it waits for has to come.
    Control,
    /// The service file says what it does, so that it has to get through.
    ServiceFile,
    /// It is derived, so that the service may refuse it.
    Derived,
}

impl External {
    /// How the healthy client of a case fares, without any fault: the case's own `[healthy_client]`; the service file's session; the
    /// case's own first request; the plainest request to a route of the app.
    ///
    /// # Errors
    /// When the harness could not do its work.
    pub(super) async fn healthy_client(
        &self,
        case: Option<&Case>,
        binding: &ServiceFile,
        seed: u64,
    ) -> Result<Healthy, Error> {
        let mut attempts = Attempts::default();
        let derived = case.map_or_else(Vec::new, |case| self.derived(case, binding));
        for (source, steps) in self.stated(case, binding).into_iter().chain(derived) {
            if attempts.app_ended || (self.clock() == Clock::Real && attempts.hangs > 0) {
                break;
            }
            let outcome = attempts.note(self.fares(source, &steps, seed).await?);
            if let Some(client) = attempts.with_steps(source, &steps, outcome) {
                return Ok(Healthy { client, admission: attempts.admission });
            }
        }
        let routes =
            self.routes.iter().chain(&self.guesses).filter(|route| {
                is_harmless(route) && case.is_none_or(|case| route.is_websocket == opens_sessions(case))
            });
        for route in routes.take(ROUTES_MAX) {
            if attempts.app_ended || (self.clock() == Clock::Real && attempts.hangs >= HANGS_MAX) {
                break;
            }
            let outcome = attempts.note(self.visit(route, binding, seed).await?);
            if let Some(client) = attempts.with_route(route, outcome) {
                return Ok(Healthy { client, admission: attempts.admission });
            }
        }
        // The failure of another route says nothing about a case; for a hunt it is something to find.
        let Attempts { refused, failed, decided, admission, .. } = attempts;
        let last_word = if case.is_some() { decided.or(refused) } else { failed.or(refused) };
        Ok(Healthy { client: last_word.unwrap_or(HealthyClient::Absent), admission })
    }

    /// The steps that the case or the service file states.
    fn stated(&self, case: Option<&Case>, binding: &ServiceFile) -> Vec<(HealthySource, Vec<Step>)> {
        let authority = self.target.authority();
        if let Some(control) = case.and_then(|case| case.control.as_ref()) {
            let steps = control.iter().cloned();
            return vec![(
                HealthySource::Control,
                steps.map(|step| translate::as_written(binding, &authority, step)).collect(),
            )];
        }
        let is_there =
            case.is_none_or(|case| case.vocabulary == Vocabulary::Backend || opens_session_of(case, binding));
        let session = if is_there { binding.session(&authority, self.patience(LIMIT)) } else { None };
        session.into_iter().map(|steps| (HealthySource::ServiceFile, steps)).collect()
    }

    /// The case's own first request, without what makes it a trigger: its faults, its messages and its bad credential; and
    /// the same without its query, which may be what the service refuses. What may change something is not repeated.
    fn derived(&self, case: &Case, binding: &ServiceFile) -> Vec<(HealthySource, Vec<Step>)> {
        let own = case.steps.iter().find_map(|step| {
            let act = match &step.act {
                Action::Open(asked) => {
                    Action::Open(Request { method: "GET".to_owned(), ..made_healthy(asked, binding) })
                }
                Action::Request(asked) if matches!(asked.method.as_str(), "GET" | "HEAD") => {
                    Action::Request(made_healthy(asked, binding))
                }
                _ => return None,
            };
            Some((act, self.derived_limit(step.limit)))
        });
        let plain = own.as_ref().and_then(|(act, limit)| match act {
            Action::Open(asked) if !asked.query.is_empty() => Some((Action::Open(without_query(asked)), *limit)),
            Action::Request(asked) if !asked.query.is_empty() => Some((Action::Request(without_query(asked)), *limit)),
            _ => None,
        });
        let authority = self.target.authority();
        let mut derived = Vec::new();
        for (act, limit) in own.into_iter().chain(plain) {
            let close = matches!(act, Action::Open(_)).then_some(Action::Close(CloseCode::NORMAL));
            let steps = std::iter::once(act).chain(close).map(|act| Step::new(act, limit));
            let steps = steps.map(|step| translate::as_written(binding, &authority, step));
            derived.push((HealthySource::Derived, steps.collect()));
        }
        derived
    }

    /// How long a derived healthy client waits for an answer. `own` is how long the case's own step may take.
    fn derived_limit(&self, own: Duration) -> Duration {
        match self.clock() {
            Clock::Virtual => LIMIT,
            Clock::Real => own.clamp(REAL_LIMIT, LIMIT),
        }
    }

    /// How steps fare without any fault: the worst of their exchanges. A message that a case's own healthy client waits for
    /// and does not get is no answer. One that gets no answer at all says what it asked for, and how long it waited.
    async fn fares(&self, source: HealthySource, steps: &[Step], seed: u64) -> Result<Fared, Error> {
        let plan = Plan { seed, faults: Vec::new() };
        let transcript = run::converse(steps, plan, self.target.as_ref()).await?;
        self.target.clear().await?;
        let readings = classify::readings(&transcript);
        let outcomes: Vec<Outcome> = readings.iter().map(|reading| outcome_of(source, reading)).collect();
        let outcome = classify::worst(&outcomes).expect("a healthy client opens an exchange").clone();
        Ok(Fared { outcome, app_ended: readings.iter().any(shows_end_of_app) })
    }

    /// How the plainest request to a route fares.
    ///
    /// # Errors
    /// When the harness could not do its work.
    pub async fn greet(&self, route: &Route, binding: &ServiceFile, seed: u64) -> Result<Outcome, Error> {
        Ok(self.visit(route, binding, seed).await?.outcome)
    }

    async fn visit(&self, route: &Route, binding: &ServiceFile, seed: u64) -> Result<Fared, Error> {
        let authority = self.target.authority();
        let steps = route.greeting(self.derived_limit(REAL_LIMIT)).into_iter();
        let steps: Vec<Step> = steps.map(|step| translate::as_written(binding, &authority, step)).collect();
        self.fares(HealthySource::Derived, &steps, seed).await
    }
}

/// How a healthy client fared.
#[derive(Debug)]
struct Fared {
    outcome: Outcome,
    /// Whether the app ended meanwhile: it exits, or the harness ended it because it blocked its event loop for too long. A
    /// new one takes its time to start, and so does the next block.
    app_ended: bool,
}

/// The attempts to find a healthy client that is let in.
#[derive(Debug, Default)]
struct Attempts {
    /// The first that was refused.
    refused: Option<HealthyClient>,
    /// The first request to a route that failed.
    failed: Option<HealthyClient>,
    /// The first request of the case's own that failed: it decides, although others may be let in.
    decided: Option<HealthyClient>,
    /// How many got no answer.
    hangs: usize,
    /// Whether one of them ended the app. Nothing else is asked then.
    app_ended: bool,
    admission: Admission,
}

impl Attempts {
    /// Notes whether an attempt ended the app, and gives its outcome.
    fn note(&mut self, fared: Fared) -> Outcome {
        self.app_ended |= fared.app_ended;
        fared.outcome
    }

    /// Takes the outcome of the case's own steps or the service file's; gives the client if it decides.
    fn with_steps(&mut self, source: HealthySource, steps: &[Step], outcome: Outcome) -> Option<HealthyClient> {
        match judged(source, outcome, steps) {
            HealthyClient::RefusedByDesign(outcome) => {
                self.refuse(asked(steps), outcome);
                None
            }
            tried if source == HealthySource::Derived && is_let_in(&tried) => {
                self.admission.let_in = asked(steps).map(LetIn::Own);
                Some(self.decided.take().unwrap_or(tried))
            }
            // The case's own request may be what fails, so that it does not say whether anyone else is let in.
            tried @ HealthyClient::Tried(_) if source == HealthySource::Derived => {
                self.hangs += usize::from(tried.outcome().is_some_and(is_hang));
                self.decided.get_or_insert(tried);
                None
            }
            stated => Some(stated),
        }
    }

    /// Notes a request that is refused. One that is sent elsewhere is not.
    fn refuse(&mut self, request: Option<String>, outcome: Outcome) {
        let is_redirected = matches!(outcome.ending, Ending::Http { status: 300..=399, .. });
        let refused = request.filter(|_| !is_redirected).map(|request| (request, outcome.clone()));
        self.admission.refused.extend(refused);
        self.refused.get_or_insert(HealthyClient::RefusedByDesign(outcome));
    }

    /// Takes the outcome of the plainest request to a route; gives the client if it is let in.
    fn with_route(&mut self, route: &Route, outcome: Outcome) -> Option<HealthyClient> {
        self.hangs += usize::from(is_hang(&outcome));
        let request = asked(&route.greeting(LIMIT)).unwrap_or_else(|| route.to_string());
        if outcome.class == Class::Served {
            self.admission.let_in = Some(LetIn::Other(request));
            return Some(self.decided.take().unwrap_or(HealthyClient::Tried(outcome)));
        }
        let is_no_route = route.source == RouteSource::Guessed && is_unfound(&outcome);
        if !is_no_route && outcome.class.is_good() {
            self.refuse(Some(request), outcome);
        } else if !is_no_route {
            self.failed.get_or_insert(HealthyClient::Tried(outcome));
        }
        None
    }
}

/// How a healthy client fares, and which requests the service lets in.
#[derive(Debug)]
pub(super) struct Healthy {
    pub(super) client: HealthyClient,
    pub(super) admission: Admission,
}

/// The first request of steps, as a route is named.
fn asked(steps: &[Step]) -> Option<String> {
    let act = steps.iter().map(|step| &step.act).find(|act| act.request().is_some())?;
    let request = act.request()?;
    let query = if request.query.is_empty() { String::new() } else { format!("?{}", readable(&request.query)) };
    let path = readable(&request.path);
    Some(match act {
        Action::Open(_) => format!("ws:{path}{query}"),
        _ => format!("{} {path}{query}", request.method),
    })
}

fn is_hang(outcome: &Outcome) -> bool {
    matches!(outcome.ending, Ending::Hang { .. })
}

/// Whether an exchange shows that the app's process ended: by an exception that left the app, or that nothing handled.
fn shows_end_of_app(reading: &Exchange<'_>) -> bool {
    let is_exit = |exception: &Exception| exception.type_name == "SystemExit";
    reading.events.iter().any(|event| match &event.what {
        EventKind::Raised(exception) => is_exit(exception),
        EventKind::Logged { unhandled, .. } => unhandled.as_deref().is_some_and(is_exit),
        _ => false,
    })
}

fn outcome_of(source: HealthySource, reading: &Exchange<'_>) -> Outcome {
    let waits_in_vain = reading.events.iter().any(|event| matches!(event.what, EventKind::AwaitedNeverCame { .. }));
    match with_the_wait(reading.outcome(), reading) {
        outcome if source == HealthySource::Control && outcome.class == Class::Served && waits_in_vain => {
            Outcome { class: Class::NoAnswer, ..outcome }
        }
        outcome => outcome,
    }
}

/// The outcome of a client that waited in vain, with its request and how long it waited.
fn with_the_wait(outcome: Outcome, reading: &Exchange<'_>) -> Outcome {
    let limit = reading.events.iter().find_map(|event| match &event.what {
        EventKind::DeadlinePassed { limit, .. } => Some(*limit),
        _ => None,
    });
    match (outcome.ending, reading.request, limit) {
        (Ending::Hang { waiting_for }, Some(head), Some(limit)) => {
            let asked = format!("{} {}", head.method, readable(&head.target));
            let waiting_for = format!("{waiting_for} ({asked}) for {} s", limit.as_secs_f64());
            Outcome { ending: Ending::Hang { waiting_for }, ..outcome }
        }
        (ending, ..) => Outcome { ending, ..outcome },
    }
}

fn is_let_in(healthy: &HealthyClient) -> bool {
    matches!(healthy, HealthyClient::Tried(outcome) if outcome.class == Class::Served)
}

/// Whether a route is refused as a path is refused that the app does not have.
pub(super) fn is_unfound(outcome: &Outcome) -> bool {
    matches!(outcome.ending, Ending::Http { status: 403..=405, .. })
}

/// Whether the first request of a case asks for a WebSocket.
fn opens_sessions(case: &Case) -> bool {
    let first = case.steps.iter().find(|step| step.act.request().is_some());
    first.is_some_and(|step| matches!(step.act, Action::Open(_)))
}

/// Whether a case opens the session that the service file describes.
fn opens_session_of(case: &Case, binding: &ServiceFile) -> bool {
    let Some(path) = &binding.paths.websocket else { return false };
    let path = path.split_once('?').map_or(path.as_str(), |(path, _)| path);
    case.steps.iter().any(|step| matches!(&step.act, Action::Open(request) if request.path == path.as_bytes()))
}

/// A request of a case with a good credential, and with nothing else of what makes it a trigger.
fn made_healthy(request: &Request, binding: &ServiceFile) -> Request {
    let credential = if binding.credential.is_needed() { Credential::Valid } else { Credential::None };
    let answer = AnswerReading::AtOnce;
    Request { credential, without: Vec::new(), retry: None, give_up: None, answer, ..request.clone() }
}

fn without_query(request: &Request) -> Request {
    Request { query: Vec::new(), ..request.clone() }
}

/// Whether any of the steps presents a credential.
fn presents_credential(steps: &[Step]) -> bool {
    steps.iter().filter_map(|step| step.act.request()).any(|request| request.credential == Credential::Valid)
}

/// The meaning of the outcome of a healthy client with these steps.
fn judged(source: HealthySource, outcome: Outcome, steps: &[Step]) -> HealthyClient {
    let is_refusal = match &outcome.ending {
        Ending::Http { status: 401 | 403, .. } => true,
        Ending::Close { code: Some(code), .. } => matches!(code.0, 1008 | 4401 | 4403),
        Ending::Http { .. }
        | Ending::Close { code: None, .. }
        | Ending::Drop
        | Ending::BadHandshake { .. }
        | Ending::Hang { .. }
        | Ending::Silence { .. }
        | Ending::Parted { .. }
        | Ending::Left
        | Ending::Refused
        | Ending::NotStarted { .. } => outcome.class == Class::RefusedAuth,
    };
    match outcome.class {
        Class::Served => HealthyClient::Tried(outcome),
        _ if is_refusal && presents_credential(steps) => HealthyClient::CredentialRefused(outcome),
        _ if is_refusal && source != HealthySource::Control => HealthyClient::RefusedByDesign(outcome),
        Class::RefusedAuth | Class::RefusedRequest if source == HealthySource::Derived => {
            HealthyClient::RefusedByDesign(outcome)
        }
        Class::RefusedAuth
        | Class::RefusedRequest
        | Class::RefusedUnavailable
        | Class::CutByFault
        | Class::ServerError
        | Class::Dropped
        | Class::Hang
        | Class::DisguisedError
        | Class::WronglyAdmitted
        | Class::NoAnswer => HealthyClient::Tried(outcome),
    }
}

/// Whether asking changes nothing, as far as HTTP promises (RFC 9110 section 9.2.1).
pub(crate) fn is_harmless(route: &Route) -> bool {
    route.is_websocket || route.methods.is_empty() || route.methods.iter().any(|method| method == "GET")
}
