//! A close has a code that may be sent and a reason of at most 123 bytes, both as the application asks for it and as
//! it arrives (RFC 6455 sections 5.5 and 7.4).

use super::{Harm, Property, RunView, Violation};
use crate::{
    asgi::event::Outbound,
    judge::classify::Exchange,
    record::transcript::{Event, EventKind},
    wire::close_code::CloseCode,
};

pub(super) const CHECK: Property = Property {
    name: "legal_close",
    property: "a close has a code that may be sent and a reason of at most 123 bytes",
    harm: Harm::Drop,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    let own = evidence.readings.iter().filter(|reading| may_close(reading)).flat_map(events_of);
    let own = own.filter_map(|(reading, event)| match &event.what {
        EventKind::Sent(Outbound::WebsocketClose { code, reason }) => {
            complain(reading, "the application closed", CloseCode(*code), reason)
        }
        _ => None,
    });
    let seen = evidence.plain().flat_map(events_of).filter_map(|(reading, event)| match &event.what {
        EventKind::FrameSeen(frame) if frame.is_close() => {
            let (code, reason) = frame.close_parts();
            complain(reading, "the client got a close", code.unwrap_or(CloseCode::NORMAL), &reason)
        }
        _ => None,
    });
    own.chain(seen).collect()
}

/// Whether a close of the application becomes a close frame. One that refuses becomes a 403, and the code
/// that an external app gives for that does not matter.
fn may_close(reading: &Exchange<'_>) -> bool {
    !reading.service.is_foreign()
        || reading.has(|what| matches!(what, EventKind::Sent(Outbound::WebsocketAccept { .. })))
}

fn events_of<'r, 'a>(reading: &'r Exchange<'a>) -> impl Iterator<Item = (&'r Exchange<'a>, &'a Event)> {
    reading.events.iter().map(move |event| (reading, *event))
}

fn complain(reading: &Exchange<'_>, who: &str, code: CloseCode, reason: &str) -> Option<Violation> {
    if !code.is_sendable() {
        Some(reading.violation("code", format!("{who} with {code}, which may not stand in a close frame")))
    } else if reason.len() > CloseCode::REASON_BYTES_MAX {
        Some(reading.violation("reason", format!("{who} with a reason of {} bytes; 123 fit", reason.len())))
    } else {
        None
    }
}
