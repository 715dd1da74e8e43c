//! Makes a transcript fit to be shown and compared: no credential, no secret, nothing that differs from run to run.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value as Json;

use crate::record::transcript::{EventKind, Transcript};

/// Keys of messages whose values differ from run to run or say nothing, and what stands for them.
const VOLATILE: [(&str, &str); 3] =
    [("timestamp", "<time>"), ("connection_id", "<connection>"), ("duration", "<time>")];

/// Replaces what must not be shown.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    replacements: Vec<(String, String)>,
}

impl Redactor {
    /// A redactor for the credentials and secrets of a run.
    pub fn of(transcript: &Transcript) -> Redactor {
        let mut replacements: Vec<(String, String)> =
            transcript.service.secrets.iter().map(|secret| (secret.clone(), "<secret>".to_owned())).collect();
        for event in &transcript.events {
            let EventKind::RequestSent { credential, .. } = &event.what else { continue };
            // A text too short for a token or a ticket hides nothing and may occur anywhere.
            if credential.text.len() < 24 {
                continue;
            }
            let kind = serde_json::to_value(credential.kind).ok();
            let kind = kind.as_ref().and_then(Json::as_str).unwrap_or_default();
            let label = format!("<{kind} token of {}>", credential.subject);
            replacements.push((BASE64_URL_SAFE_NO_PAD.encode(&credential.text), label.clone()));
            replacements.push((credential.text.clone(), label));
        }
        Redactor { replacements }
    }

    /// A redactor for secrets alone.
    pub fn of_secrets(secrets: &[String]) -> Redactor {
        Redactor { replacements: secrets.iter().map(|secret| (secret.clone(), "<secret>".to_owned())).collect() }
    }

    /// The text without credentials and secrets.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (needle, label) in &self.replacements {
            if text.contains(needle.as_str()) {
                text = text.replace(needle.as_str(), label);
            }
        }
        text
    }

    /// A message without credentials, secrets and volatile values. A JSON message comes back as its `type` and the
    /// rest, its keys in order and what is null or empty left out.
    pub fn message(&self, payload: &[u8]) -> String {
        let text = match serde_json::from_slice::<Json>(payload) {
            Ok(Json::Object(mut entries)) => {
                let name = entries.remove("type");
                entries.retain(|_, value| !is_empty(value));
                let mut rest = Json::Object(entries);
                settle(&mut rest);
                match name {
                    Some(Json::String(name)) if is_empty(&rest) => name,
                    Some(Json::String(name)) => format!("{name} {rest}"),
                    _ => rest.to_string(),
                }
            }
            _ => String::from_utf8_lossy(payload).into_owned(),
        };
        self.text(text.trim_end())
    }
}

fn is_empty(json: &Json) -> bool {
    match json {
        Json::Null => true,
        Json::Array(items) => items.is_empty(),
        Json::Object(entries) => entries.is_empty(),
        Json::Bool(_) | Json::Number(_) | Json::String(_) => false,
    }
}

fn settle(json: &mut Json) {
    match json {
        Json::Object(entries) => {
            for (key, value) in entries.iter_mut() {
                match VOLATILE.iter().find(|(name, _)| name == key) {
                    Some((_, label)) if !value.is_null() => *value = Json::from(*label),
                    _ => settle(value),
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(settle),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}
