//! State that belongs to one object is not seen through another.
//!
//! The target tells where instances of a class share a value that the class holds, and that they change through `self`. It is
//! a violation where a client is shown by it something that another exchange said. Where clients are told at once what
//! another one says, the value may be meant for all: in a session it takes another client on the same path who was not
//! told.

use super::{Harm, Property, RunView, Violation};
use crate::{
    asgi::event::Inbound,
    judge::classify::Exchange,
    record::transcript::{Actor, Event, EventKind, SHARED_STATE},
};

pub(super) const CHECK: Property = Property {
    name: "own_state",
    property: "an object's state is not seen through another object",
    harm: Harm::WrongData,
    run: check,
};

/// The shortest text that tells where it comes from, in characters.
const TEXT_CHARACTERS_MIN: usize = 3;

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    let events = &evidence.transcript.events;
    let told = events.iter().enumerate().filter_map(|(position, event)| match &event.what {
        EventKind::Logged { message, .. } => {
            let (name, texts) = message.strip_prefix(SHARED_STATE)?.split_once(": ")?;
            Some((position, event.exchange, name, serde_json::from_str::<Vec<String>>(texts).ok()?))
        }
        _ => None,
    });
    let found = told.filter_map(|(position, exchange, name, texts)| {
        let texts = texts.iter().filter(|text| text.chars().count() >= TEXT_CHARACTERS_MIN);
        let text = texts.into_iter().find(|text| is_shown_anothers(evidence, position, exchange, text))?;
        let message = format!(
            "all instances share `{name}`, which is an attribute of the class and is changed through `self`: through one of \
             them the client is shown {text:?}, which was given to another"
        );
        Some(evidence.readings.get(exchange)?.violation(name, message))
    });
    found.collect()
}

/// Whether the client of an exchange is shown a text after this position that another exchange said before, and it did not.
fn is_shown_anothers(evidence: &RunView<'_>, position: usize, exchange: usize, text: &str) -> bool {
    let events = &evidence.transcript.events;
    let (before, after) = events.split_at(position);
    let is_shown = after.iter().any(|event| event.exchange == exchange && shows(event, text));
    let is_own = before.iter().any(|event| event.exchange == exchange && says(event, text));
    let said = before.iter().rposition(|event| event.exchange != exchange && says(event, text));
    let Some(said) = said.filter(|_| is_shown && !is_own) else { return false };
    let Some(reading) = evidence.readings.get(exchange) else { return false };
    !reading.asked_for_upgrade() || has_untold(evidence, reading, said, text)
}

/// Whether a client on the same path had a session when another one said a text, and was not shown it by that.
fn has_untold(evidence: &RunView<'_>, reading: &Exchange<'_>, said: usize, text: &str) -> bool {
    let events = &evidence.transcript.events;
    let sayer = events[said].exchange;
    let target = |reading: &Exchange<'_>| reading.request.map(|head| head.target.clone());
    evidence.readings.iter().filter(|other| other.number != sayer && target(other) == target(reading)).any(|other| {
        let of_other = |event: &&Event| event.exchange == other.number;
        let opens = |event: &Event| matches!(&event.what, EventKind::ResponseSeen(head) if head.status == 101);
        let ends = |event: &Event| {
            matches!(&event.what, EventKind::Left | EventKind::EndSeen | EventKind::LinkReset)
                || matches!(&event.what, EventKind::FrameSent(frame) | EventKind::FrameSeen(frame) if frame.is_close())
        };
        let before: Vec<&Event> = events[..said].iter().filter(of_other).collect();
        let is_there = before.iter().any(|event| opens(event)) && !before.iter().any(|event| ends(event));
        // Until the client says something itself, it gets no answer.
        let mut meanwhile = events[said..].iter().filter(of_other).take_while(|event| !says_anything(event));
        is_there && !meanwhile.any(|event| shows(event, text))
    })
}

/// Whether a client says something with this event.
fn says_anything(event: &Event) -> bool {
    event.party == Actor::Probe && matches!(event.what, EventKind::FrameSent(_) | EventKind::RequestSent { .. })
}

/// Whether a client says a text, or the app gets it from one.
fn says(event: &Event, text: &str) -> bool {
    match &event.what {
        EventKind::RequestSent { head, .. } => has(&head.target, text),
        EventKind::FrameSent(frame) => has(&frame.payload, text),
        EventKind::Received(Inbound::HttpRequest { body, .. }) => has(body, text),
        _ => false,
    }
}

/// Whether a client reads a text.
fn shows(event: &Event, text: &str) -> bool {
    match &event.what {
        EventKind::FrameSeen(frame) => has(&frame.payload, text),
        EventKind::BodySeen { body, .. } => has(body, text),
        _ => false,
    }
}

fn has(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}
