//! Removes secrets from every text that leaves the process: those that are known, in every form they can have, and those
//! that have the shape of one. Makes a transcript fit to be compared, too: nothing in it differs from run to run.

mod forms;
mod names;
mod shapes;

pub use names::{holds_secret, holds_secret_in_head};
pub use shapes::password_in_url;

use std::borrow::Cow;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use regex::Regex;
use serde_json::Value as Json;

use crate::record::{
    escape::{Lines, escape},
    transcript::{EventKind, Transcript},
};

/// Keys of messages whose values differ from run to run or say nothing, and what stands for them.
const VOLATILE: [(&str, &str); 3] =
    [("timestamp", "<time>"), ("connection_id", "<connection>"), ("duration", "<time>")];

/// A shorter secret may be a part of any word, and is replaced only where it is a word of its own.
const PART_OF_WORD_BYTES_MIN: usize = 4;

/// A secret that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSecret {
    /// The secret itself.
    pub text: String,
    /// Its replacement, as in `<secret API_TOKEN>`.
    pub label: String,
}

impl KnownSecret {
    /// A secret that is known by the name of the variable or the key that holds it.
    pub fn named(name: &str, text: impl Into<String>) -> KnownSecret {
        KnownSecret { text: text.into(), label: format!("<secret {name}>") }
    }

    /// A secret without a name.
    pub fn unnamed(text: impl Into<String>) -> KnownSecret {
        KnownSecret { text: text.into(), label: "<secret>".to_owned() }
    }
}

/// Replaces what must not be shown. A copy of it is cheap.
#[derive(Debug, Clone, Default)]
pub struct Redactor(Option<Arc<SecretFinder>>);

#[derive(Debug)]
struct SecretFinder {
    secrets: Vec<KnownSecret>,
    patterns: Vec<Regex>,
    /// Finds every form of every secret.
    finder: AhoCorasick,
    /// The label of each form, and whether it stands only where it is a word of its own.
    forms: Vec<(Arc<str>, FormPlace)>,
}

/// Where the form of a secret is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FormPlace {
    Anywhere,
    OwnWord,
}

impl PartialEq for Redactor {
    fn eq(&self, other: &Redactor) -> bool {
        self.secrets() == other.secrets()
    }
}

impl Eq for Redactor {}

impl Redactor {
    /// Replaces only what has the shape of a secret.
    pub const NONE: Redactor = Redactor(None);

    /// A redactor for these secrets, and for what these patterns find beside the usual shapes.
    pub fn new(secrets: Vec<KnownSecret>, patterns: Vec<Regex>) -> Redactor {
        let secrets: Vec<KnownSecret> = secrets.into_iter().filter(|secret| !secret.text.trim().is_empty()).collect();
        if secrets.is_empty() && patterns.is_empty() {
            return Redactor::default();
        }
        let (mut needles, mut forms) = (Vec::new(), Vec::new());
        for secret in &secrets {
            let label: Arc<str> = secret.label.as_str().into();
            for form in forms::forms(&secret.text) {
                let place = match form.len() < PART_OF_WORD_BYTES_MIN {
                    true => FormPlace::OwnWord,
                    false => FormPlace::Anywhere,
                };
                needles.push(form);
                forms.push((Arc::clone(&label), place));
            }
        }
        // The kind that is built fastest: each rendered run builds one.
        let kind = Some(AhoCorasickKind::NoncontiguousNFA);
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).kind(kind).build(&needles);
        let finder = finder.expect("secrets are far smaller than the automaton's limit of 2 GiB");
        Redactor(Some(Arc::new(SecretFinder { secrets, patterns, finder, forms })))
    }

    /// A redactor for the credentials and secrets of a run.
    pub fn of(transcript: &Transcript) -> Redactor {
        let service = &transcript.service;
        let mut secrets: Vec<KnownSecret> = service.secrets.iter().map(KnownSecret::unnamed).collect();
        secrets.extend(service.redactor.secrets().iter().cloned());
        for event in &transcript.events {
            let EventKind::RequestSent { credential, .. } = &event.what else { continue };
            // A text too short for a token or a ticket hides nothing and may occur anywhere.
            if credential.text.len() < 24 {
                continue;
            }
            let kind = serde_json::to_value(credential.kind).ok();
            let kind = kind.as_ref().and_then(Json::as_str).unwrap_or_default();
            let label = format!("<{kind} token of {}>", credential.subject);
            // A forged token may be a part of the valid one, or the other way round: the label of the run's own is better.
            secrets.retain(|secret| secret.text != credential.text);
            let credential = KnownSecret { text: credential.text.clone(), label };
            if !secrets.contains(&credential) {
                secrets.push(credential);
            }
        }
        Redactor::new(secrets, service.redactor.patterns().to_vec())
    }

    /// The same, for more secrets and patterns.
    #[must_use]
    pub fn with(
        &self,
        secrets: impl IntoIterator<Item = KnownSecret>,
        patterns: impl IntoIterator<Item = Regex>,
    ) -> Redactor {
        let mut known = self.secrets().to_vec();
        for secret in secrets {
            if !known.iter().any(|other| other.text == secret.text) {
                known.push(secret);
            }
        }
        Redactor::new(known, self.patterns().iter().cloned().chain(patterns).collect())
    }

    /// The secrets that it knows.
    pub fn secrets(&self) -> &[KnownSecret] {
        self.0.as_ref().map_or(&[], |known| &known.secrets)
    }

    /// The user's own patterns.
    pub fn patterns(&self) -> &[Regex] {
        self.0.as_ref().map_or(&[], |known| &known.patterns)
    }

    /// One line of text without secrets and control characters.
    pub fn text(&self, text: &str) -> String {
        escape(&self.clean(text), Lines::One).into_owned()
    }

    /// The text without secrets.
    pub fn clean<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let known = match &self.0 {
            Some(known) => known.replace(text),
            None => Cow::Borrowed(text),
        };
        match shapes::replace(&known) {
            Cow::Borrowed(_) => known,
            Cow::Owned(replaced) => Cow::Owned(replaced),
        }
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

impl SecretFinder {
    fn replace<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let (mut replaced, mut end, mut from) = (String::new(), 0, 0);
        while let Some(found) = self.finder.find(Input::new(text).range(from..)) {
            let (label, place) = &self.forms[found.pattern().as_usize()];
            if *place == FormPlace::OwnWord && !is_own_word(text, found.start(), found.end()) {
                // Another form may begin inside.
                from = found.start() + text[found.start()..].chars().next().map_or(1, char::len_utf8);
                continue;
            }
            replaced.push_str(&text[end..found.start()]);
            replaced.push_str(label);
            (end, from) = (found.end(), found.end());
        }
        let mut text = match end {
            0 => Cow::Borrowed(text),
            _ => Cow::Owned(replaced + &text[end..]),
        };
        for pattern in &self.patterns {
            if let Cow::Owned(replaced) = shapes::replace_own(pattern, &text) {
                text = Cow::Owned(replaced);
            }
        }
        text
    }
}

fn is_own_word(text: &str, start: usize, end: usize) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    !text[..start].chars().next_back().is_some_and(is_part) && !text[end..].chars().next().is_some_and(is_part)
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

#[cfg(test)]
mod tests {
    use regex::Regex;
    use rstest::rstest;

    use super::{KnownSecret, Redactor};

    fn redactor() -> Redactor {
        let secrets = vec![KnownSecret::named("API_TOKEN", "planted-token-1"), KnownSecret::named("PIN", "q7Z")];
        Redactor::new(secrets, vec![Regex::new("order-(?P<value>[0-9]+)").unwrap()])
    }

    #[rstest]
    #[case::as_it_is("x planted-token-1 y", "x <secret API_TOKEN> y")]
    #[case::twice("planted-token-1planted-token-1", "<secret API_TOKEN><secret API_TOKEN>")]
    #[case::base64("cGxhbnRlZC10b2tlbi0x", "<secret API_TOKEN>")]
    #[case::short("PIN q7Z.", "PIN <secret PIN>.")]
    #[case::part_of_a_word("aq7Z q7Za", "aq7Z q7Za")]
    #[case::pattern("see order-12345", "see order-<redacted>")]
    #[case::shape("?api_key=a1b2c3d4e5", "?api_key=<redacted>")]
    #[case::control("a\u{1b}[31m\nb", "a\\x1b[31m\\nb")]
    #[case::plain("nothing to hide", "nothing to hide")]
    fn a_text_has_no_secret(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(redactor().text(text), expected);
        assert_eq!(redactor().text(expected), expected, "what is replaced stays as it is");
    }

    #[test]
    fn a_part_of_a_word_hides_no_other_secret() {
        let redactor =
            Redactor::new(vec![KnownSecret::unnamed("12"), KnownSecret::unnamed("2-token-value")], Vec::new());
        assert_eq!(redactor.text("112-token-value"), "11<secret>");
    }

    #[test]
    fn a_secret_that_is_learned_later_is_replaced_too() {
        let redactor = redactor().with([KnownSecret::unnamed("later-token")], []);
        assert_eq!(redactor.text("later-token planted-token-1"), "<secret> <secret API_TOKEN>");
    }
}
