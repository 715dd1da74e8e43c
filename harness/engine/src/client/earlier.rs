//! Values of earlier answers in later requests: `{1.id|name}` in a path, a query, a header, a body or a text message is the
//! value called `id`, or else `name`, in the answer to the case's first request.

use std::borrow::Cow;

use serde_json::Value as Json;

use relapse_core::{
    client::step::{Action, Request, Step},
    record::transcript::{Event, EventKind},
    wire::{
        head::{header, readable},
        percent::{RESERVED, encoded},
    },
};
use relapse_simulate::recorder::Recorder;

/// The longest value that is taken from an answer, in characters.
const VALUE_CHARACTERS_MAX: usize = 4096;

/// A place for a value of an earlier answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Placeholder<'t> {
    /// Which request of the case was answered, counted from 1.
    request: usize,
    /// The names that the value may have, the best first.
    names: &'t str,
}

impl<'t> Placeholder<'t> {
    /// The placeholder at the start of a text, and its length.
    fn at_start(text: &'t [u8]) -> Option<(Placeholder<'t>, usize)> {
        let inside = text.strip_prefix(b"{")?;
        let length = inside.iter().position(|&byte| byte == b'}')?;
        let (number, names) = std::str::from_utf8(&inside[..length]).ok()?.split_once('.')?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'|');
        let request = number.parse().ok().filter(|&request| request > 0)?;
        (!names.is_empty() && names.bytes().all(is_name)).then_some((Placeholder { request, names }, length + 2))
    }
}

/// The text with each placeholder replaced; `None` if it has none.
fn replaced(text: &[u8], value: &dyn Fn(Placeholder<'_>) -> Vec<u8>) -> Option<Vec<u8>> {
    let (mut whole, mut at, mut is_changed) = (Vec::new(), 0, false);
    while at < text.len() {
        match Placeholder::at_start(&text[at..]) {
            Some((placeholder, length)) => {
                whole.extend(value(placeholder));
                at += length;
                is_changed = true;
            }
            None => {
                whole.push(text[at]);
                at += 1;
            }
        }
    }
    is_changed.then_some(whole)
}

fn has_placeholder(text: &[u8]) -> bool {
    replaced(text, &|_| Vec::new()).is_some()
}

/// Whether a step uses values of earlier answers.
pub(crate) fn refers_to_earlier(step: &Step) -> bool {
    match &step.act {
        Action::Open(request) | Action::Request(request) => {
            let values = request.headers.iter().map(|(_, value)| value.as_ref());
            let texts = [&request.path, &request.query, &request.body];
            texts.into_iter().map(Vec::as_slice).chain(values).any(has_placeholder)
        }
        Action::SendText(text) => has_placeholder(text.as_bytes()),
        _ => false,
    }
}

/// The answers to the requests of a case, up to now.
#[derive(Debug)]
pub(super) struct EarlierAnswers<'a> {
    recorder: &'a Recorder,
    /// The exchange of the first request.
    first: usize,
}

impl<'a> EarlierAnswers<'a> {
    pub(super) fn new(recorder: &'a Recorder, first: usize) -> EarlierAnswers<'a> {
        EarlierAnswers { recorder, first }
    }

    /// The request with the values of earlier answers.
    pub(super) fn in_request<'r>(&self, request: &'r Request) -> Cow<'r, Request> {
        let texts = [&request.path, &request.query, &request.body];
        let values = request.headers.iter().map(|(_, value)| value.as_ref());
        if !texts.into_iter().map(Vec::as_slice).chain(values).any(has_placeholder) {
            return Cow::Borrowed(request);
        }
        let find = |placeholder: Placeholder<'_>| self.value(placeholder).into_bytes();
        let in_target = |placeholder: Placeholder<'_>| encoded(&find(placeholder), RESERVED);
        let is_form = header(&request.headers, "content-type").is_some_and(|kind| kind.ends_with(b"urlencoded"));
        let in_body = |placeholder: Placeholder<'_>| match is_form {
            true => in_target(placeholder),
            false => in_json(&find(placeholder)),
        };
        let mut request = request.clone();
        for (text, value) in [
            (&mut request.path, &in_target as &dyn Fn(Placeholder<'_>) -> Vec<u8>),
            (&mut request.query, &in_target),
            (&mut request.body, &in_body),
        ] {
            *text = replaced(text, value).unwrap_or_else(|| std::mem::take(text));
        }
        for (_, value) in &mut request.headers {
            // A line of a head ends with its value.
            let in_head = |placeholder: Placeholder<'_>| {
                find(placeholder).into_iter().filter(|byte| !byte.is_ascii_control()).collect()
            };
            if let Some(new) = replaced(value, &in_head) {
                *value = new.into();
            }
        }
        Cow::Owned(request)
    }

    /// The text of a message with the values of earlier answers.
    pub(super) fn in_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if !has_placeholder(text.as_bytes()) {
            return Cow::Borrowed(text);
        }
        let find = |placeholder: Placeholder<'_>| in_json(self.value(placeholder).as_bytes());
        let whole = replaced(text.as_bytes(), &find).unwrap_or_default();
        Cow::Owned(String::from_utf8_lossy(&whole).into_owned())
    }

    /// A value of an answer; empty where there is none.
    fn value(&self, placeholder: Placeholder<'_>) -> String {
        let events = self.recorder.events_of(self.first + placeholder.request - 1);
        let documents: Vec<Json> = events.iter().rev().filter_map(|event| document(&event.what)).collect();
        for name in placeholder.names.split('|') {
            let named = documents.iter().find_map(|document| named(document, &plain(name)));
            if let Some(value) = named.or_else(|| location(&events).filter(|_| name == "location")) {
                return value.chars().take(VALUE_CHARACTERS_MAX).collect();
            }
        }
        String::new()
    }
}

/// The JSON document of an answer or of a message.
fn document(what: &EventKind) -> Option<Json> {
    let bytes = match what {
        EventKind::BodySeen { body, .. } => body,
        EventKind::FrameSeen(frame) | EventKind::MessageSeen(frame) if !frame.is_close() => &frame.payload,
        _ => return None,
    };
    serde_json::from_slice(bytes).ok()
}

/// The last part of the path in the header `Location`.
fn location(events: &[Event]) -> Option<String> {
    events.iter().find_map(|event| match &event.what {
        EventKind::ResponseSeen(head) => {
            let location = readable(header(&head.headers, "location")?);
            location.trim_end_matches('/').rsplit('/').next().map(str::to_owned)
        }
        _ => None,
    })
}

/// A name as it is compared: `noteId` and `note_id` are the same.
fn plain(name: &str) -> String {
    name.chars().filter(|character| character.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The first plain value with this name, the least deep first.
fn named(document: &Json, name: &str) -> Option<String> {
    let mut level = vec![document];
    while !level.is_empty() {
        for value in &level {
            let Json::Object(entries) = value else { continue };
            let own = entries.iter().filter(|(key, _)| plain(key) == name);
            if let Some(value) = own.filter_map(|(_, value)| scalar(value)).next() {
                return Some(value);
            }
        }
        level = level.into_iter().flat_map(inside).collect();
    }
    None
}

fn inside(value: &Json) -> Vec<&Json> {
    match value {
        Json::Object(entries) => entries.values().collect(),
        Json::Array(items) => items.iter().collect(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Vec::new(),
    }
}

fn scalar(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(truth) => Some(truth.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// A value inside a string of a JSON text.
fn in_json(value: &[u8]) -> Vec<u8> {
    let quoted = Json::String(String::from_utf8_lossy(value).into_owned()).to_string();
    quoted.as_bytes()[1..quoted.len() - 1].to_vec()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_placeholder_is_a_number_and_names() {
        let value =
            |placeholder: Placeholder<'_>| format!("<{}:{}>", placeholder.request, placeholder.names).into_bytes();
        let replaced = |text: &str| replaced(text.as_bytes(), &value).map(|text| String::from_utf8(text).unwrap());
        assert_eq!(replaced("/notes/{1.note_id|id}/x").as_deref(), Some("/notes/<1:note_id|id>/x"));
        assert_eq!(replaced("{\"a\":{\"id\":\"{2.id}\"}}").as_deref(), Some("{\"a\":{\"id\":\"<2:id>\"}}"));
        for text in ["/notes/{note_id}", "{0.id}", "{1.}", "{1.a b}", "{\"a\":1}", "{1.id"] {
            assert_eq!(replaced(text), None, "{text}");
        }
    }

    #[test]
    fn a_value_is_found_by_its_name() {
        let document = json!({ "data": [{ "noteId": 7, "id": null }], "ok": true });
        assert_eq!(named(&document, &plain("note_id")).as_deref(), Some("7"));
        assert_eq!(named(&document, "ok").as_deref(), Some("true"));
        assert_eq!(named(&document, "id"), None);
    }
}
