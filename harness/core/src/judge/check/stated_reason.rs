//! A refusal for something that is down names it in the answer.

use super::{Harm, Property, RunView, Violation};
use crate::{
    judge::{
        classify::Exchange,
        outcome::{Ending, Outcome},
    },
    record::transcript::EventKind,
    wire::close_code::CloseCode,
};

pub(super) const CHECK: Property = Property {
    name: "stated_reason",
    property: "a refusal for something that is down names it",
    harm: Harm::Disguised,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence.exchanges().filter_map(|(reading, outcome)| complain(reading, outcome)).collect()
}

fn complain(reading: &Exchange<'_>, outcome: &Outcome) -> Option<Violation> {
    let is_refusal = match &outcome.ending {
        Ending::Http { status: 503, .. } => true,
        Ending::Close { code: Some(code), .. } => {
            matches!(*code, CloseCode::TRY_AGAIN_LATER | CloseCode::PRIVATE_UNAVAILABLE)
        }
        _ => false,
    };
    // A process that starts, or lacks something, has reasons of its own, which only the case knows.
    let may_have_another = reading.faults.iter().any(|fault| fault.kind.acts_on_process());
    // The answer to HEAD has no place for a reason.
    let has_body = reading.request.is_none_or(|head| head.method != "HEAD");
    if !is_refusal || !has_body || may_have_another || reading.down.is_empty() {
        return None;
    }
    // Naming any one failing dependency is enough.
    let failing = reading.failing();
    let is_stated = reading.has(|what| {
        let bytes = match what {
            EventKind::BodySeen { body, .. } => body,
            EventKind::FrameSeen(frame) | EventKind::MessageSeen(frame) => &frame.payload,
            _ => return false,
        };
        let text = String::from_utf8_lossy(bytes);
        reading.down.iter().chain(&failing).any(|name| text.contains(*name))
    });
    let down = reading.down.join(", ");
    (!is_stated).then(|| {
        let message = format!("{} says nothing of {down}, which is down", outcome.ending);
        reading.violation(down, message)
    })
}
