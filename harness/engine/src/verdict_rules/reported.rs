//! The reported exception, and how the version with the fix still raises it.

use super::{JudgedExchanges, answering};
use crate::case::{Case, Symptom};
use relapse_core::{
    asgi::exception::Exception,
    judge::{
        classify::Exchange,
        outcome::{Ending, Outcome},
        verdict::{Reason, RunResult, StillRaised},
    },
    record::transcript::{EventKind, Level},
    wire::close_code::CloseCode,
};

/// Every exception that the app raises in a run, as far as it is seen: what leaves the app, what it handles, and what stops
/// its start.
pub fn exceptions(run: &RunResult) -> Vec<&Exception> {
    let mut seen: Vec<&Exception> = Vec::new();
    for &position in &run.timeline.raised {
        let raised = run.transcript.events[position].what.raised();
        seen.extend(raised.filter(|exception| !seen.contains(exception)));
    }
    seen
}

/// The reported exception, where the version with the fix still raises it: it leaves the app, or the app handles it and
/// leaves the client without an answer, or logs it as an error. An app that handles it, does not call it an error and
/// answers is one that was fixed where it failed.
///
/// The reported exception is the claimed one; without a claim, what left the app before, and what it handled in an exchange
/// that failed.
pub(super) fn still_raised(
    case: &Case,
    symptom: &Symptom,
    before: &JudgedExchanges<'_>,
    after: &JudgedExchanges<'_>,
) -> Option<Reason> {
    let JudgedExchanges { judged, readings } = before;
    let reported: Vec<&Exception> = match &symptom.exception {
        Some(claim) => exceptions(judged).into_iter().filter(|raised| claim.fits(raised)).collect(),
        None => {
            let failed = readings.iter().zip(&judged.outcomes).filter(|(_, outcome)| !outcome.class.is_good());
            let handled = failed.flat_map(|(reading, _)| handled(reading));
            readings.iter().filter_map(own_exception).chain(handled).collect()
        }
    };
    let is_reported = |exception: &Exception| {
        let is_claimed = symptom.exception.as_ref().is_some_and(|claim| claim.fits(exception));
        is_claimed || reported.iter().any(|reported| is_same(reported, exception))
    };
    let exchanges = after.readings.iter().zip(&after.judged.outcomes).enumerate();
    let mut raised = exchanges.flat_map(|(exchange, (reading, outcome))| {
        let is_refused = case.accepted_at(exchange).names(outcome) && says_no(outcome);
        let escapes = own_exception(reading).map(|exception| (exception, StillRaised::Escapes));
        let handled = handled_at(reading).filter_map(move |(position, exception)| {
            let is_answered =
                is_refused || !answering::is_asked_in_vain(reading) && answering::is_answered_at(reading, position);
            match is_answered {
                false => Some((exception, StillRaised::Unanswered)),
                true => is_logged(reading, exception).then_some((exception, StillRaised::Logged)),
            }
        });
        escapes.into_iter().chain(handled)
    });
    let (exception, how) = raised.find(|(exception, _)| is_reported(exception))?;
    Some(Reason::StillRaised { exception: exception.clone(), how })
}

/// Whether the service closes a session with a code that tells the client what is wrong (RFC 6455 section 7.4): any but those
/// that only say that it is over.
fn says_no(outcome: &Outcome) -> bool {
    let Ending::Close { code: Some(code), .. } = &outcome.ending else { return false };
    !matches!(*code, CloseCode::NORMAL | CloseCode::GOING_AWAY | CloseCode::NO_STATUS)
}

/// Whether the app logs an exception as an error.
fn is_logged(reading: &Exchange<'_>, exception: &Exception) -> bool {
    let text = exception.to_string();
    reading.events.iter().any(|event| match &event.what {
        EventKind::Logged { level: Level::Error, message, .. } => message.contains(&text),
        _ => false,
    })
}

/// The exception that left the app, unless what was injected made it.
pub(crate) fn own_exception<'a>(reading: &Exchange<'a>) -> Option<&'a Exception> {
    reading.escaped().map(|(exception, _)| exception).filter(|_| !reading.is_escape_injected())
}

/// The exceptions that the app handled in an exchange, without those that only say that the client is gone.
pub(crate) fn handled<'a>(reading: &Exchange<'a>) -> impl Iterator<Item = &'a Exception> + use<'a> {
    handled_at(reading).map(|(_, exception)| exception)
}

/// The same, each with its position in the exchange.
fn handled_at<'a>(reading: &Exchange<'a>) -> impl Iterator<Item = (usize, &'a Exception)> + use<'a> {
    let events = reading.events.clone();
    events
        .into_iter()
        .enumerate()
        .filter_map(|(position, event)| match &event.what {
            EventKind::Handled(exception) => Some((position, exception)),
            _ => None,
        })
        .filter(|(_, exception)| {
            !(exception.is_disconnect() || exception.is_broken_off() || exception.is_cancellation())
        })
}

/// Whether two exceptions are the same one in two versions: of one type, and raised in one function or with one message. Lines
/// move with every change, and code from function to function and from file to file. `<lambda>` and its like name no
/// function, so that there the file counts.
fn is_same(one: &Exception, other: &Exception) -> bool {
    let says_the_same = !one.message.is_empty() && one.message == other.message;
    let is_same_place = match (&one.place, &other.place) {
        (Some(one), Some(other)) => {
            one.function == other.function && (one.file == other.file || !one.function.starts_with('<'))
        }
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    one.type_name == other.type_name && (is_same_place || says_the_same)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use relapse_core::asgi::exception::CodePlace;

    #[rstest]
    #[case::another_line("ws", "app.py", 9, "'b'", true)]
    #[case::another_file("ws", "fixed.py", 8, "'b'", true)]
    #[case::a_helper_function("look", "app.py", 3, "'a'", true)]
    #[case::another_function("look", "app.py", 3, "'b'", false)]
    fn an_exception_is_known_again(
        #[case] function: &str,
        #[case] file: &str,
        #[case] line: u32,
        #[case] message: &str,
        #[case] is_known: bool,
    ) {
        let raised = |message: &str, file: &str, line, function: &str| Exception {
            place: Some(CodePlace { file: file.to_owned(), line, function: function.to_owned() }),
            ..Exception::new("KeyError", message)
        };
        let before = raised("'a'", "app.py", 8, "ws");
        assert_eq!(is_same(&before, &raised(message, file, line, function)), is_known);
    }
}
