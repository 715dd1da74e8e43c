//! Tells what the client of an exchange waited for and did not get.

use std::fmt;
use std::time::Duration;

use super::Exchange;
use crate::client::step::Awaited;
use crate::record::transcript::{BodyPart, EventKind};
use crate::wire::frame::Opcode;

/// A part of a body that came later than the case allows, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LateBody {
    /// The part.
    pub part: BodyPart,
    /// The limit of the case.
    pub limit: Duration,
    /// The time that it took; `None` if it never came.
    pub took: Option<Duration>,
}

impl fmt::Display for LateBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} within {} ms; ", self.part, self.limit.as_millis())?;
        match self.took {
            Some(took) => write!(f, "it took {} ms", took.as_millis()),
            None => f.write_str("it never came"),
        }
    }
}

impl<'a> Exchange<'a> {
    /// The first part of the body that came later than the case allows.
    pub fn late_body(&self) -> Option<LateBody> {
        self.events.iter().find_map(|event| match event.what {
            EventKind::BodyLate { part, limit, took } => Some(LateBody { part, limit, took }),
            _ => None,
        })
    }

    /// The first message, answer or end that the client waited for and that never came.
    pub fn never_came(&self) -> Option<String> {
        self.events.iter().find_map(|event| match &event.what {
            EventKind::DeadlinePassed { waiting_for, .. } => Some(waiting_for.clone()),
            EventKind::AwaitedNeverCame { waiting_for, .. } => Some(waiting_for.to_string()),
            _ => None,
        })
    }

    /// Advice where the client waited for a message of a type, and one came that only has that text: another wait finds it.
    pub fn mistaken_wait(&self) -> Option<String> {
        let name = self.events.iter().find_map(|event| match &event.what {
            EventKind::AwaitedNeverCame { waiting_for: Awaited::Message(name), .. } => Some(name.as_str()),
            _ => None,
        })?;
        let has_text = self.events.iter().any(|event| match &event.what {
            EventKind::FrameSeen(frame) if frame.opcode == Opcode::Text => {
                std::str::from_utf8(&frame.payload).is_ok_and(|text| text.contains(name))
            }
            _ => false,
        });
        has_text.then(|| {
            format!("a message with that text came, but its JSON `type` is not `{name}`; `wait_text` finds it")
        })
    }
}
