//! Reads the measured value of one profile row from a transcript.

use relapse_core::{
    asgi::{
        event::{Inbound, Outbound},
        exception::Exception,
        scope::ScopeType,
    },
    record::transcript::{BodyEnd, EventKind, Transcript},
    wire::{
        close_code::CloseCode,
        frame::Opcode,
        head::{ResponseHead, header},
    },
};
use relapse_simulate::profile::{Effect, Reception, RefusalAnswer};

/// The head of the answer.
pub(super) fn head(transcript: &Transcript) -> Option<&ResponseHead> {
    transcript.events.iter().find_map(|event| match &event.what {
        EventKind::ResponseSeen(head) => Some(head),
        _ => None,
    })
}

/// A header of the answer.
pub(super) fn answer_header<'a>(transcript: &'a Transcript, name: &str) -> Option<&'a str> {
    head(transcript).and_then(|head| header(&head.headers, name)).and_then(|value| std::str::from_utf8(value).ok())
}

/// The close frame that came in time, whatever stands in it. One that comes later answers the client's own.
pub(super) fn close(transcript: &Transcript) -> Option<(Option<CloseCode>, String)> {
    let in_time = transcript.events.iter().take_while(|event| !matches!(event.what, EventKind::DeadlinePassed { .. }));
    in_time.into_iter().find_map(|event| match &event.what {
        EventKind::FrameSeen(frame) if frame.opcode == Opcode::Close => Some(frame.close_parts()),
        _ => None,
    })
}

/// The client's final answer: a close, an HTTP response, or a hang.
pub(super) fn answer(transcript: &Transcript) -> RefusalAnswer {
    if let Some((code, reason)) = close(transcript) {
        return RefusalAnswer::Close { code, reason };
    }
    let is_hang = transcript.events.iter().any(|event| matches!(event.what, EventKind::DeadlinePassed { .. }));
    let body = transcript.events.iter().find_map(|event| match &event.what {
        EventKind::BodySeen { body, end: BodyEnd::Complete | BodyEnd::None } => Some(body),
        _ => None,
    });
    match (head(transcript), body) {
        (Some(head), Some(body)) => RefusalAnswer::Http {
            status: head.status,
            content_type: answer_header(transcript, "content-type").unwrap_or_default().to_owned(),
            body: String::from_utf8_lossy(body).into_owned(),
        },
        _ if is_hang => RefusalAnswer::Hang,
        _ => RefusalAnswer::Drop,
    }
}

/// How an upgrade was received.
pub(super) fn reception(transcript: &Transcript) -> Reception {
    let mut events = transcript.events.iter();
    if events.any(|event| matches!(event.what, EventKind::Called { kind: ScopeType::Http, .. })) {
        return Reception::Http;
    }
    match head(transcript) {
        Some(head) if head.status == 101 => Reception::Accepted,
        _ => Reception::Refused(answer(transcript)),
    }
}

/// The exception that the application's last event raised in it. In its text, `{code}` or `{type}` replaces the event's
/// close code or type.
pub(super) fn raised(transcript: &Transcript) -> Option<Exception> {
    let mut found = None;
    for event in &transcript.events {
        match &event.what {
            EventKind::Sent(Outbound::WebsocketClose { code, .. }) => found = Some((code.to_string(), "{code}", None)),
            EventKind::Sent(sent) => found = Some((sent.name(ScopeType::Websocket).to_owned(), "{type}", None)),
            EventKind::CallRaised(exception) => {
                if let Some((.., raised)) = &mut found {
                    raised.get_or_insert_with(|| exception.clone());
                }
            }
            _ => {}
        }
    }
    let (text, name, raised) = found?;
    raised.map(|exception| Exception { message: exception.message.replace(&text, name), ..exception })
}

/// The effect of the application's last event where the client is not looked at: it raises, or nothing happens.
pub(super) fn effect_on_app(transcript: &Transcript) -> Effect {
    raised(transcript).map_or(Effect::Ignored, |exception| Effect::Raises { exception, then: None })
}

/// The effect of the application's last event. In `caught` the application catches the exception and stays; in
/// `escaped` it lets it through. `crashed` is the answer to any other exception.
pub(super) fn effect(caught: &Transcript, escaped: &Transcript, crashed: &RefusalAnswer) -> Effect {
    let seen = answer(caught);
    let Some(exception) = raised(caught) else {
        return match seen {
            RefusalAnswer::Hang => Effect::Ignored,
            answer => Effect::Answers(answer),
        };
    };
    let then = match (seen, answer(escaped)) {
        // `None` if the client sees the same as after any other exception.
        (RefusalAnswer::Hang, escaped) => Some(escaped).filter(|escaped| escaped != crashed),
        (answer, _) => Some(answer),
    };
    Effect::Raises { exception, then }
}

/// The effect of a close with this code and a reason of this length in bytes.
pub(super) fn close_effect(
    caught: &Transcript,
    escaped: &Transcript,
    crashed: &RefusalAnswer,
    (code, length): (u16, usize),
) -> Effect {
    let has_bad_frame = caught.events.iter().any(|event| matches!(event.what, EventKind::BadFrameSeen(_)));
    match close(caught) {
        _ if raised(caught).is_some() => effect(caught, escaped, crashed),
        // It went out as it is, as far as reasons do, or as no client may take it.
        Some((Some(CloseCode(seen)), reason)) if seen == code && (reason.is_empty() || reason.len() == length) => {
            Effect::Ignored
        }
        Some((Some(CloseCode(seen)), _)) if seen == code => Effect::Truncated,
        None if has_bad_frame => Effect::Ignored,
        _ => effect(caught, escaped, crashed),
    }
}

/// The code of the disconnect that the application was told of while the client waited.
pub(super) fn told(transcript: &Transcript) -> Option<u16> {
    let in_time = transcript.events.iter().take_while(|event| !matches!(event.what, EventKind::DeadlinePassed { .. }));
    in_time.into_iter().find_map(|event| match &event.what {
        EventKind::Received(Inbound::WebsocketDisconnect { code, .. }) => *code,
        _ => None,
    })
}

/// The text message that came.
pub(super) fn message(transcript: &Transcript) -> Option<&[u8]> {
    transcript.events.iter().find_map(|event| match &event.what {
        EventKind::FrameSeen(frame) if frame.opcode == Opcode::Text => Some(frame.payload.as_ref()),
        EventKind::BodySeen { body, .. } => Some(body.as_ref()),
        _ => None,
    })
}
