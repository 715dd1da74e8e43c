//! Nothing is logged as an error while a client with nothing wrong is served, unless something behind the service failed.

use super::{Harm, Property, RunView, Violation};
use crate::{
    asgi::exception::Exception,
    judge::classify::Exchange,
    record::transcript::{Actor, Event, EventKind, KEPT_LOOP, Level},
};

pub(super) const CHECK: Property = Property {
    name: "no_error_log",
    property: "nothing is logged as an error unless something behind the service failed",
    harm: Harm::Noise,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence
        .readings
        .iter()
        .filter(|reading| !reading.is_abused())
        .filter(|reading: &&Exchange<'_>| !reading.is_client_at_fault())
        .flat_map(errors)
        .collect()
}

/// How the log record of an exception begins that ends a task that is not awaited, or a thread.
const UNHANDLED: [&str; 3] = ["Task exception was never retrieved", "Exception in thread", "Exception ignored"];

/// The part of a log record that is the same each time: of an exception its type, of anything else its first line without
/// numbers. The records of an external service may contain values that occur only once, and stacks of its threads.
fn steady(message: &str) -> String {
    let message = message.lines().next().unwrap_or_default();
    if let Some(exception) = message.strip_prefix(ESCAPED) {
        let type_name = exception.split(':').next().unwrap_or(exception);
        return format!("{ESCAPED}{type_name}");
    }
    let pieces = message.as_bytes().chunk_by(|one, other| one.is_ascii_digit() == other.is_ascii_digit());
    let steady = pieces.map(|piece| if piece[0].is_ascii_digit() { &b"0"[..] } else { piece });
    String::from_utf8_lossy(&steady.collect::<Vec<_>>().concat()).into_owned()
}

/// How a server logs an exception that left the application.
const ESCAPED: &str = "Exception in ASGI application: ";

/// The errors logged in an exchange before anything behind the service failed, or its server stopped.
pub(super) fn errors<'a>(reading: &'a Exchange<'_>) -> impl Iterator<Item = Violation> + 'a {
    let before_outage = reading.events.iter().take_while(|event| !reading.is_outage(event) && !reading.is_stop(event));
    // Servers log whatever leaves an application; what they gave it themselves is their own matter.
    let is_echo = reading.is_escape_injected();
    let own = before_outage.filter(move |event| !(is_echo && event.party == Actor::Front));
    let is_unknown = reading.service.is_unknown();
    own.filter_map(move |event| match &event.what {
        // The log records that an application of which nothing is known writes itself are its own matter.
        EventKind::Logged { message, unhandled: None, .. }
            if event.party == Actor::Application && is_unknown && !is_of_runtime(message) =>
        {
            None
        }
        // The application repeats what the server told it.
        EventKind::Logged { message, .. }
            if reading.refused_as_gone().any(|raised| message.contains(&raised.to_string())) =>
        {
            None
        }
        EventKind::Logged { level: Level::Error, message, unhandled: Some(exception) } => {
            let is_answered = !is_of_runtime(message) && is_answered(reading, event);
            (!is_answered).then(|| unhandled(reading, exception, message))
        }
        EventKind::Logged { level: Level::Error, message, unhandled: None } => {
            let key = if reading.service.is_foreign() { steady(message) } else { message.clone() };
            Some(reading.violation(key, format!("logged as an error: {message}")))
        }
        _ => None,
    })
}

/// The violation by an exception that nothing in the application handled. The text may name a user or a session.
fn unhandled(reading: &Exchange<'_>, exception: &Exception, message: &str) -> Violation {
    let function = exception.place.iter().map(|place| format!(" in {}", place.function)).collect::<String>();
    let key = format!("unhandled {}{function}", exception.type_name);
    let place = exception.place.as_ref().map(ToString::to_string).filter(|place| !message.contains(place));
    let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
    let message = format!("logged as an error, and handled nowhere in the application: {message}{place}");
    Violation { exception: Some(exception.clone()), ..reading.violation(key, message) }
}

/// Whether the client is told something after this event, before the application is given anything else: a library that
/// logs an exception may answer with it.
fn is_answered(reading: &Exchange<'_>, logged: &Event) -> bool {
    let later = reading.events.iter().skip_while(|event| !std::ptr::eq(**event, logged)).skip(1);
    let mut own = later.filter(|event| matches!(event.what, EventKind::Sent(_) | EventKind::Received(_)));
    own.next().is_some_and(|event| matches!(event.what, EventKind::Sent(_)))
}

/// Whether the runtime wrote a log record, about an exception that was left unhandled, or the harness, about an event loop
/// that was blocked.
fn is_of_runtime(message: &str) -> bool {
    UNHANDLED.iter().any(|start| message.starts_with(start)) || message.starts_with(KEPT_LOOP)
}
