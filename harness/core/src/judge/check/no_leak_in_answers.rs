//! No secret and no internal text reaches the client: no signing secret, no exception text, no dependency's error, no
//! error log, no traceback.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::{Harm, Property, RunView, Violation};
use crate::record::transcript::{Event, EventKind, Level, PROCESS};

/// A shorter text says too little to be called a leak.
const TEXT_BYTES_MIN: usize = 12;

/// The first line of a traceback in Python.
static TRACEBACK: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("Traceback (most recent call last)"));

pub(super) const CHECK: Property = Property {
    name: "no_leak_in_answers",
    property: "no secret and no internal text reaches the client",
    harm: Harm::WrongData,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    let transcript = evidence.transcript;
    let secrets = transcript.service.secrets.iter().map(|text| ("secret", text.as_str()));
    let internal = transcript.events.iter().filter_map(|event| match &event.what {
        EventKind::Raised(exception) | EventKind::CallRaised(exception) => {
            Some(("exception", exception.message.as_str()))
        }
        EventKind::DependencyCalled { error: Some(error), .. } => Some(("dependency error", error.as_str())),
        // An external service may answer with the text that it logs.
        EventKind::Logged { level: Level::Error, message, .. } if !transcript.service.is_foreign() => {
            Some(("log record", message.as_str()))
        }
        _ => None,
    });
    let needles: Vec<(&str, Finder<'_>)> = secrets
        .chain(internal)
        .filter(|(_, text)| text.len() >= TEXT_BYTES_MIN)
        .map(|(kind, text)| (kind, Finder::new(text)))
        .chain([("traceback", TRACEBACK.as_ref())])
        .collect();
    let leaks = transcript.events.iter().filter_map(|event| {
        let (kind, _) = needles.iter().find(|(_, text)| reads(event, text))?;
        Some(complain(kind, event))
    });
    leaks.collect()
}

fn complain(kind: &str, event: &Event) -> Violation {
    let article = if kind.starts_with('e') { "an" } else { "a" };
    let message = format!("the client can read the text of {article} {kind}");
    let exchange = Some(event.exchange).filter(|&exchange| exchange != PROCESS);
    Violation { exchange, ..Violation::of_run(kind, message) }
}

/// Whether the client reads this text in this event. A close reason may have been cut.
fn reads(event: &Event, text: &Finder<'_>) -> bool {
    match &event.what {
        EventKind::FrameSeen(frame) => {
            text.find(&frame.payload).is_some() || ends_with_start_of(&frame.payload, text.needle())
        }
        EventKind::BodySeen { body, .. } => text.find(body).is_some(),
        EventKind::ResponseSeen(head) => head.headers.iter().any(|(_, value)| text.find(value).is_some()),
        _ => false,
    }
}

/// Whether a payload was cut in the middle of the text.
fn ends_with_start_of(payload: &[u8], text: &[u8]) -> bool {
    payload.len() == 125 && (TEXT_BYTES_MIN..text.len()).any(|length| payload.ends_with(&text[..length]))
}
