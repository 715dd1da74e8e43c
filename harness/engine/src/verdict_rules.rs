//! The rules of verdicts: what the runs of a case mean. They are the same on every target.

mod answering;
mod reported;

use std::borrow::Cow;
use std::time::Duration;

use crate::case::{Case, ExceptionClaim, Origin, Symptom};
use relapse_core::{
    asgi::exception::Exception,
    client::step::Action,
    error::AppError,
    fault::{ConnectionFault, Fault, FaultKind},
    judge::{
        cause::Cause,
        check::{self, RunView},
        classify::{self, Exchange, LateBody},
        outcome::{Class, Ending, Outcome},
        verdict::{Admission, Difference, Finding, HealthyClient, Reason, RunResult, Side, SymptomKey, Verdict},
    },
    record::{
        service::{Service, TargetKind},
        timeline::Timeline,
        transcript::{Actor, Event, EventKind, PROCESS, Transcript},
    },
};

pub use reported::exceptions;
pub(crate) use reported::{handled, own_exception};

/// Derives the outcome of a run and lets every check look at it.
///
/// # Panics
/// When the transcript has no exchange.
pub fn judge(transcript: Transcript, control: HealthyClient) -> RunResult {
    let timeline = Timeline::of(&transcript);
    let evidence = RunView::of(&transcript, &timeline, &control);
    let outcome = classify::worst(&evidence.outcomes).expect("a case opens at least one exchange").clone();
    let findings = check::findings(&evidence);
    let outcomes = evidence.outcomes;
    RunResult { outcome, outcomes, findings, transcript, timeline, control, admission: Admission::default() }
}

/// An exchange of a run, by the run's timeline.
pub fn reading(run: &RunResult, exchange: usize) -> Option<Exchange<'_>> {
    let facts = run.timeline.exchanges.get(exchange)?;
    Some(Exchange::new(&run.transcript, exchange, Cow::Borrowed(facts)))
}

/// A run and its exchanges, as the rules of a verdict read them.
#[derive(Debug)]
struct JudgedExchanges<'a> {
    judged: &'a RunResult,
    readings: Vec<Exchange<'a>>,
}

impl<'a> JudgedExchanges<'a> {
    fn of(judged: &'a RunResult) -> JudgedExchanges<'a> {
        JudgedExchanges { judged, readings: Exchange::all(&judged.transcript, &judged.timeline) }
    }
}

/// The run of a case on an app that does not load or does not start: no exchange of it finds a server.
pub fn not_started(case: &Case, kind: TargetKind, trouble: &AppError) -> RunResult {
    let exception = trouble.exception();
    let why = exception.as_ref().map_or_else(|| trouble.message.clone(), Exception::located);
    let mut events = Vec::new();
    for exchange in 0..case.accepted.len() {
        let what = EventKind::NotStarted { why: why.clone(), exception: exception.clone() };
        events.push(Event { at: Duration::ZERO, exchange, party: Actor::Process, what, omitted_bytes: 0 });
    }
    let (faults, fired) = (case.faults.clone(), vec![0; case.faults.len()]);
    let service = Service::unknown(kind);
    judge(Transcript { events, faults, fired, residue: None, service, reached: Vec::new() }, HealthyClient::Absent)
}

/// The verdict on one version alone.
///
/// # Errors
/// The verdict that does not pass, and the reason for it.
pub fn alone(case: &Case, run: &RunResult) -> Result<(), (Verdict, Reason)> {
    credential_is_taken(run, Side::After)?;
    all_faults_acted(case, run, Side::After).map_err(|reason| (Verdict::NotExercised, reason))?;
    accepts(case, run).map_err(|reason| (Verdict::Failed, reason))
}

/// The verdict on two versions: before has to show the whole symptom, and after has to be accepted.
///
/// # Errors
/// The verdict that does not pass, and the reason for it.
pub fn compare(case: &Case, profile: &str, before: &RunResult, after: &RunResult) -> Result<(), (Verdict, Reason)> {
    let Some(symptom) = case.symptom_behind(profile) else {
        return Err((Verdict::Inconclusive, Reason::NoClaim { shown: before.outcome.clone() }));
    };
    // A hunt does not say which version has to meet the faults.
    if !case.is_alone {
        all_faults_acted(case, before, Side::Before).map_err(|reason| (Verdict::NotExercised, reason))?;
    }
    let (shows, fixes) = (JudgedExchanges::of(before), JudgedExchanges::of(after));
    faults_acted_or_were_in_force(case, before, &fixes).map_err(|reason| (Verdict::NotExercised, reason))?;
    let differences = differences(symptom, before);
    if !differences.is_empty() {
        credential_is_taken(before, Side::Before)?;
        return Err((Verdict::NotReproduced, Reason::NotShown(differences)));
    }
    // A claim that a version in order shows too tells no bug from its fix.
    if accepts_as(case, &shows, Some((symptom, &shows))).is_ok() {
        credential_is_taken(before, Side::Before)?;
        return Err((Verdict::NotReproduced, Reason::BeforeIsAccepted(before.outcome.clone())));
    }
    credential_is_taken(after, Side::After)?;
    accepts_as(case, &fixes, Some((symptom, &shows))).map_err(|reason| (Verdict::StillBroken, reason))
}

/// Whether the service took the credential of the service file.
fn credential_is_taken(run: &RunResult, side: Side) -> Result<(), (Verdict, Reason)> {
    match &run.control {
        HealthyClient::CredentialRefused(outcome) => {
            Err((Verdict::Inconclusive, Reason::CredentialRefused { side, outcome: outcome.clone() }))
        }
        HealthyClient::Tried(_) | HealthyClient::RefusedByDesign(_) | HealthyClient::Absent => Ok(()),
    }
}

/// Whether every claimed fix, run in the order in which the case names them, is seen through: none is accepted in place
/// of the real one, and each shows what is known of it.
///
/// # Errors
/// The verdict that does not pass, and the reason for it.
pub fn see_through(case: &Case, profile: &str, shams: &[(Verdict, RunResult)]) -> Result<(), (Verdict, Reason)> {
    for (sham, (verdict, judged)) in case.shams.iter().zip(shams) {
        let (outcome, class) = sham.shows_behind(profile);
        let Outcome { ending, class: seen, .. } = &judged.outcome;
        let fix = sham.defects.to_string();
        let silent = sham.found_by.iter().find(|name| judged.findings.iter().all(|finding| finding.check != **name));
        if *verdict != Verdict::StillBroken {
            return Err((Verdict::NotExercised, Reason::ClaimedFixAccepted { fix, verdict: *verdict }));
        } else if !outcome.fits(ending) || *seen != class {
            let shows = format!("shows `{ending}` ({seen}) instead of `{outcome}` ({class})");
            return Err((Verdict::NotReproduced, Reason::ClaimedFixDiffers { fix, shows }));
        } else if let Some(silent) = silent {
            let shows = format!("has no finding of the check {silent}");
            return Err((Verdict::NotReproduced, Reason::ClaimedFixDiffers { fix, shows }));
        }
    }
    Ok(())
}

/// Whether every fault of a case acted, and, where it is to be over, was over.
///
/// # Errors
/// Says which did not.
pub fn all_faults_acted(case: &Case, run: &RunResult, side: Side) -> Result<(), Reason> {
    if has_not_started(run) {
        return Ok(());
    }
    if let Some(index) = run.transcript.fired.iter().position(|&count| count == 0) {
        return Err(Reason::FaultNeverActed { side, fault: case.faults[index].to_string() });
    }
    all_faults_are_over(case, run, side)
}

/// The same of the version with the fix. A fault that acted before may have nothing to do because of the fix, as long as it
/// was in force.
fn faults_acted_or_were_in_force(case: &Case, before: &RunResult, after: &JudgedExchanges<'_>) -> Result<(), Reason> {
    if has_not_started(after.judged) {
        return Ok(());
    }
    for (index, fault) in case.faults.iter().enumerate() {
        let had_its_chance = acted(after.judged, index) || acted(before, index) && is_in_force(fault, &after.readings);
        if !had_its_chance {
            return Err(Reason::FaultNeverActed { side: Side::After, fault: fault.to_string() });
        }
    }
    all_faults_are_over(case, after.judged, Side::After)
}

/// Whether the fault with this index acted in a run.
fn acted(run: &RunResult, index: usize) -> bool {
    run.transcript.fired.get(index).is_some_and(|&count| count > 0)
}

/// Whether the app did not start, so that no fault had an occasion.
fn has_not_started(run: &RunResult) -> bool {
    matches!(run.outcome.ending, Ending::NotStarted { .. })
}

/// Whether a fault that never acted waited for something that the service kept from happening: a session outlived an idle
/// limit because it was never idle, or an answer came before the edge gave one.
fn is_in_force(fault: &Fault, readings: &[Exchange<'_>]) -> bool {
    match &fault.kind {
        FaultKind::Connection(ConnectionFault::Idle { after, .. }) => readings.iter().any(|reading| {
            let mut events = reading.events.iter();
            let opened =
                events.find(|event| matches!(&event.what, EventKind::ResponseSeen(head) if head.status == 101));
            let last = events.next_back();
            opened.zip(last).is_some_and(|(opened, last)| last.at.saturating_sub(opened.at) > after.0)
        }),
        FaultKind::Connection(ConnectionFault::LateAnswer { .. } | ConnectionFault::MissingAnswer { .. }) => {
            readings.iter().any(|reading| reading.response.is_some())
        }
        FaultKind::Connection(ConnectionFault::Lifetime { .. } | ConnectionFault::Retry {})
        | FaultKind::Head(_)
        | FaultKind::Answer(_)
        | FaultKind::Stream { .. }
        | FaultKind::Frame { .. }
        | FaultKind::Scope(_)
        | FaultKind::Event { .. }
        | FaultKind::Call { .. }
        | FaultKind::Process(_) => false,
    }
}

fn all_faults_are_over(case: &Case, run: &RunResult, side: Side) -> Result<(), Reason> {
    if case.is_alone {
        // The healthy client comes when every fault is over.
        return Ok(());
    }
    // Without a client that comes after it, the end of a fault says nothing.
    let last = run.timeline.last;
    let never_over =
        case.faults.iter().find(|fault| fault.trigger.until.is_some_and(|until| last.is_none_or(|last| last < until)));
    match never_over {
        Some(fault) => Err(Reason::NothingAfterFault { side, fault: fault.to_string() }),
        None => Ok(()),
    }
}

/// The parts of a claimed symptom that a run does not show, each with what it shows instead.
pub fn differences(symptom: &Symptom, run: &RunResult) -> Vec<Difference> {
    let Outcome { class, cause, ending, .. } = &run.outcome;
    let outcome = symptom.outcome.filter(|claimed| !claimed.fits(ending)).map(|claimed| {
        let observed = match ending.why_not_started() {
            Some(why) => format!("`{ending}` ({why})"),
            None => format!("`{ending}`"),
        };
        Difference::new(SymptomKey::Outcome, claimed, observed)
    });
    let class = symptom.class.filter(|claimed| claimed != class);
    let class = class.map(|claimed| Difference::new(SymptomKey::Class, claimed, format!("`{}`", run.outcome.class)));
    let cause = symptom.cause.filter(|claimed| claimed != cause);
    let cause = cause.map(|claimed| Difference::new(SymptomKey::Cause, claimed, format!("`{}`", run.outcome.cause)));
    let exception = symptom.exception.as_ref().and_then(|claimed| exception_difference(claimed, run));
    let log = symptom.log.as_ref().filter(|text| !run.transcript.says(text)).map(|text| {
        let observed = match run.transcript.logs().count() {
            0 => "no log record".to_owned(),
            count => format!("{count} log record(s) without it"),
        };
        Difference::new(SymptomKey::Log, text, observed)
    });
    let reason = symptom.reason.as_ref().and_then(|text| match ending.reason() {
        Some(reason) if reason.contains(text.as_str()) => None,
        Some(reason) => Some(Difference::new(SymptomKey::Reason, text, format!("`{reason}`"))),
        None => Some(Difference::new(SymptomKey::Reason, text, "no close frame of the service".to_owned())),
    });
    let parts = [outcome, class, cause, exception, log, reason];
    parts.into_iter().flatten().chain(silent_checks(&symptom.found_by, run)).collect()
}

/// The difference where no exception of a run fits the claimed one.
fn exception_difference(claimed: &ExceptionClaim, run: &RunResult) -> Option<Difference> {
    let raised = exceptions(run);
    if raised.iter().any(|exception| claimed.fits(exception)) {
        return None;
    }
    let observed = match raised.as_slice() {
        [] => "none".to_owned(),
        raised => raised.iter().map(|raised| format!("`{}`", raised.located())).collect::<Vec<_>>().join(", "),
    };
    Some(Difference::new(SymptomKey::Exception, claimed, observed))
}

/// The checks that should have a finding and have none, each with those that have one.
fn silent_checks(found_by: &[String], run: &RunResult) -> Vec<Difference> {
    let mut found: Vec<&str> = run.findings.iter().map(|finding| finding.check).collect();
    found.dedup();
    let observed = if found.is_empty() { "no finding".to_owned() } else { format!("`{}`", found.join("`, `")) };
    let is_foreign = run.transcript.service.is_foreign();
    let sees = |name: &str, check: &str| name == check || (is_foreign && check::see_one_thing(name, check));
    let silent = found_by.iter().filter(|name| !found.iter().any(|check| sees(name, check)));
    silent.map(|name| Difference::new(SymptomKey::FoundBy, name, observed.clone())).collect()
}

/// Whether a version alone is accepted.
///
/// # Errors
/// Says why not.
pub fn accepts(case: &Case, run: &RunResult) -> Result<(), Reason> {
    accepts_as(case, &JudgedExchanges::of(run), None)
}

/// Whether the version with the fix is accepted. `claim` is the symptom, and the run that shows it.
fn accepts_as(
    case: &Case,
    after: &JudgedExchanges<'_>,
    claim: Option<(&Symptom, &JudgedExchanges<'_>)>,
) -> Result<(), Reason> {
    if let Some((symptom, before)) = claim {
        reported::still_raised(case, symptom, before, after).map_or(Ok(()), Err)?;
        gone_route(case, before.judged, after).map_or(Ok(()), Err)?;
    }
    let JudgedExchanges { judged: after, readings } = after;
    for (exchange, outcome) in after.outcomes.iter().enumerate() {
        let (accepted, connection) = (case.accepted_at(exchange), exchange + 1);
        let is_error_of_another_number = claim.is_some() && is_own_error(outcome) && !accepted.names(outcome);
        if !accepted.accepts(outcome) || is_error_of_another_number {
            return Err(Reason::NotAccepted { connection, outcome: outcome.clone() });
        }
        if !accepted.is_said(&after.transcript, exchange) {
            return Err(Reason::NotSaid { connection, text: accepted.says.clone().unwrap_or_default() });
        }
        let Some(reading) = readings.get(exchange) else { continue };
        // A hunt waits for what it drew, and expects nothing.
        let is_hunt = case.origin == Origin::Hunt;
        if let Some(waiting_for) = unmet(case, reading, outcome).filter(|_| !is_hunt) {
            return Err(Reason::ExpectationUnmet { connection, waiting_for });
        }
        let is_meant = accepted.names(outcome) || is_hunt;
        if !is_meant && is_unanswered(reading, outcome) {
            return Err(Reason::Unanswered { connection, outcome: outcome.clone() });
        }
    }
    server_expectations(&after.transcript)?;
    for (class, least) in &case.at_least {
        let count = after.outcomes.iter().filter(|outcome| outcome.class == *class).count();
        if count < *least {
            return Err(Reason::TooFew { class: *class, count, least: *least });
        }
    }
    if let HealthyClient::Tried(outcome) = &after.control
        && outcome.class != Class::Served
    {
        return Err(Reason::HealthyClient(outcome.clone()));
    }
    if let Some((_, before)) = claim {
        refuses_everyone(before.judged, after).map_or(Ok(()), Err)?;
    }
    match after.findings.first() {
        Some(finding) => Err(Reason::Finding(finding.clone())),
        None => Ok(()),
    }
}

/// Whether an app answers with an error of its own: another number than 500 repairs nothing. 503 says that it is not ready.
fn is_own_error(outcome: &Outcome) -> bool {
    outcome.cause == Cause::AppDecision && matches!(outcome.ending, Ending::Http { status: 500..=502 | 504..=599, .. })
}

/// The route of the case, where before has it, and after refuses its request because it has none any more.
fn gone_route(case: &Case, before: &RunResult, after: &JudgedExchanges<'_>) -> Option<Reason> {
    let is_gone = before.admission.is_routed == Some(true) && after.judged.admission.is_routed == Some(false);
    let refused = after.judged.outcomes.iter().enumerate().find(|(exchange, outcome)| {
        matches!(outcome.ending, Ending::Http { status: 403..=405, .. }) && !case.accepted_at(*exchange).names(outcome)
    });
    let (exchange, outcome) = refused.filter(|_| is_gone)?;
    Some(Reason::RouteGone { connection: exchange + 1, outcome: outcome.clone() })
}

/// The healthy client that before lets in and after refuses. A service that lets it in does not refuse everyone by design.
fn refuses_everyone(before: &RunResult, after: &RunResult) -> Option<Reason> {
    let let_in = before.admission.let_in.as_ref().map(|let_in| let_in.request().to_owned());
    let refused = let_in.as_ref().and_then(|asked| after.admission.refused.get(asked));
    if let Some(outcome) = refused {
        return Some(Reason::RefusesEveryone { outcome: outcome.clone(), let_in });
    }
    let lets_in = let_in.is_some() || before.control.outcome().is_some_and(|seen| seen.class == Class::Served);
    match &after.control {
        HealthyClient::RefusedByDesign(outcome) if lets_in => {
            Some(Reason::RefusesEveryone { outcome: outcome.clone(), let_in })
        }
        HealthyClient::RefusedByDesign(_)
        | HealthyClient::Tried(_)
        | HealthyClient::CredentialRefused(_)
        | HealthyClient::Absent => None,
    }
}

/// An expectation of the case that an exchange does not meet, although it ended as if nothing had been missing: something
/// that never came, a body that came late, or a message that found no session any more. A refusal and what a fault cut off
/// say themselves why it did not come.
fn unmet(case: &Case, reading: &Exchange<'_>, outcome: &Outcome) -> Option<String> {
    if let Some(late) = reading.late_body() {
        return Some(late.to_string());
    }
    if outcome.class != Class::Served {
        return None;
    }
    reading.never_came().or_else(|| {
        reading.events.iter().find_map(|event| match event.what {
            EventKind::NotPerformed { step } => {
                let is_missed = case.steps.get(step - 1).is_some_and(|step| needs_session(&step.act));
                is_missed.then(|| format!("an open session at step {step}"))
            }
            _ => None,
        })
    })
}

/// Whether a step needs an open session, and does not say itself what it waits for.
fn needs_session(act: &Action) -> bool {
    match act {
        Action::SendText(_) | Action::SendBytes(_) | Action::Ping => true,
        Action::Open(_)
        | Action::Request(_)
        | Action::Wait(_)
        | Action::Close(_)
        | Action::Leave
        | Action::Reset
        | Action::Pause
        | Action::Deafen
        | Action::Freeze
        | Action::StopReading
        | Action::ReadAnswer
        | Action::Signal(_)
        | Action::AwaitExit(_) => false,
    }
}

/// Whether the server's process did what steps of the case expect of it.
fn server_expectations(transcript: &Transcript) -> Result<(), Reason> {
    let unmet = transcript.of(PROCESS).find_map(|event| match &event.what {
        EventKind::ExitAwaited { expected, exit: Some(exit), .. } => {
            (!expected.fits(*exit)).then(|| format!("a step waited for {expected}; it was {exit}"))
        }
        EventKind::ExitAwaited { expected, limit, exit: None } => {
            Some(format!("a step waited in vain for {expected}, {} ms", limit.as_millis()))
        }
        EventKind::NotPerformed { step } => Some(format!("step {step} found no server that runs")),
        _ => None,
    });
    unmet.map_or(Ok(()), |waiting_for| Err(Reason::ServerExpectationUnmet { waiting_for }))
}

/// Whether the service closed a session in which the client had sent a message, and had sent nothing since.
fn is_unanswered(reading: &Exchange<'_>, outcome: &Outcome) -> bool {
    let closes_without_a_word = match &outcome.ending {
        Ending::Close { code, .. } => code.is_none_or(|code| matches!(code.0, 1000 | 1001)),
        Ending::Http { .. }
        | Ending::Drop
        | Ending::BadHandshake { .. }
        | Ending::Hang { .. }
        | Ending::Silence { .. }
        | Ending::Parted { .. }
        | Ending::Left
        | Ending::Refused
        | Ending::NotStarted { .. } => false,
    };
    closes_without_a_word && outcome.class == Class::Served && answering::is_asked_in_vain(reading)
}

/// One clause about a run: how it ended, what decided that, and what the client did not get.
pub fn clause(run: &RunResult) -> String {
    let at = decisive_exchange(run);
    let outcome = run.outcomes.get(at).unwrap_or(&run.outcome);
    let Outcome { ending, class, cause, .. } = outcome;
    let reading = reading(run, at);
    let escaped = reading.as_ref().and_then(Exchange::escaped).map(|(exception, _)| exception);
    let handled = reading.as_ref().and_then(|reading| {
        reading.events.iter().find_map(|event| match &event.what {
            EventKind::Handled(exception) => Some(exception),
            _ => None,
        })
    });
    let missing = reading.as_ref().and_then(|reading| missing(reading, outcome));
    let why = match (ending, escaped, handled) {
        (Ending::NotStarted { why }, ..) => Some(why.clone()),
        (_, Some(exception), _) => Some(exception.located()),
        (_, None, Some(exception)) => Some(format!("the app handled {}", exception.located())),
        (Ending::Close { reason, .. }, ..) if !reason.is_empty() => Some(format!("reason \"{reason}\"")),
        (Ending::Hang { waiting_for } | Ending::Silence { waiting_for }, ..) => {
            Some(format!("waiting for {waiting_for}"))
        }
        (Ending::BadHandshake { why }, ..) => Some(why.clone()),
        (
            Ending::Http { .. }
            | Ending::Close { .. }
            | Ending::Drop
            | Ending::Parted { .. }
            | Ending::Left
            | Ending::Refused,
            None,
            None,
        ) if missing.is_none() => {
            run.findings.first().map(|Finding { check, message, .. }| format!("{check}: {message}"))
        }
        _ => None,
    };
    let advice = reading.as_ref().and_then(Exchange::mistaken_wait);
    let clauses: Vec<String> = why.into_iter().chain(missing).chain(advice).collect();
    let why = if clauses.is_empty() { String::new() } else { format!(": {}", clauses.join("; ")) };
    format!("{ending} ({class}, {cause}){why}")
}

/// The exchange that decides a run: the one whose outcome is the run's, or, in a run that ends well, the first one in which
/// the client did not get what it waited for.
fn decisive_exchange(run: &RunResult) -> usize {
    if run.outcome.class.is_good() {
        let readings = Exchange::all(&run.transcript, &run.timeline);
        let in_vain =
            readings.iter().zip(&run.outcomes).position(|(reading, outcome)| missing(reading, outcome).is_some());
        if let Some(exchange) = in_vain {
            return exchange;
        }
    }
    run.outcomes.iter().position(|outcome| *outcome == run.outcome).unwrap_or_default()
}

/// One clause about what the client waited for and did not get, where its outcome does not say it.
fn missing(reading: &Exchange<'_>, outcome: &Outcome) -> Option<String> {
    match reading.late_body() {
        Some(LateBody { part, limit, took: Some(took) }) => {
            Some(format!("{part} came after {} ms (limit {} ms)", took.as_millis(), limit.as_millis()))
        }
        Some(LateBody { part, limit, took: None }) => {
            Some(format!("{part} did not come within {} ms", limit.as_millis()))
        }
        None if outcome.class == Class::Served => {
            reading.never_came().map(|waiting_for| format!("{waiting_for} never came"))
        }
        None => None,
    }
}
