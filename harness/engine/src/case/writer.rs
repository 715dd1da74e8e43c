//! Writes a case as its file: what is written reads as the same case again.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::{Accepted, Case, ClaimedFix, DEFAULT_PROFILE, ExceptionClaim, KnownFinding, Origin, Symptom, Vocabulary};
use crate::environment::Environment;
use relapse_core::{
    asgi::value::escape_bytes,
    client::{
        credential::{Credential, CredentialPlace},
        signal::ExitExpectation,
        step::{
            Action, AnswerReading, Awaited, BodyExpectation, ClientStrictness, Concurrency, DEFAULT_LIMIT,
            DEFAULT_USER, Request, Slices, Step,
        },
    },
    fault::{Fault, Trigger},
    judge::outcome::OutcomePattern,
};

/// From how many trailing spaces on a message is written without them, and padded when it is read.
const PADDING_MIN: usize = 16;

/// The file of a case.
pub(super) fn write(case: &Case) -> String {
    let mut file = File::default();
    file.about(case);
    file.setting(case);
    let accept = case.accepted.first().map(accepts).unwrap_or_default();
    let mut accepted = case.accepted.iter();
    for step in &case.steps {
        file.table("[[step]]");
        let own = step.opening().and_then(|_| accepted.next());
        file.step(step, own.map(|own| (own, accept.as_slice())));
    }
    case.faults.iter().for_each(|fault| file.fault(fault));
    for step in case.control.iter().flatten() {
        file.table("[[healthy_client.step]]");
        file.step(step, None);
    }
    file.table("[expect]");
    file.line("accept", texts(&accept));
    if !case.at_least.is_empty() {
        file.table("[expect.at_least]");
        case.at_least.iter().for_each(|(class, count)| file.line(class.name(), number(*count)));
    }
    file.symptoms(case);
    case.shams.iter().for_each(|sham| file.sham(sham));
    file.0
}

fn texts<T: AsRef<str>>(texts: &[T]) -> toml::Value {
    toml::Value::Array(texts.iter().map(|text| toml::Value::from(text.as_ref())).collect())
}

/// The classes and the outcomes that are accepted.
fn accepts(accepted: &Accepted) -> Vec<String> {
    let classes = accepted.classes.iter().map(|class| class.name().to_owned());
    classes.chain(accepted.patterns.iter().map(OutcomePattern::to_string)).collect()
}

fn number(number: usize) -> toml::Value {
    toml::Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn ms(time: Duration) -> toml::Value {
    toml::Value::Integer(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

/// A word as serde names it.
fn word<T: serde::Serialize>(word: T) -> toml::Value {
    toml::Value::try_from(word).expect("a unit variant is a text")
}

#[derive(Default)]
struct File(String);

impl File {
    fn line(&mut self, key: &str, value: impl Into<toml::Value>) {
        let _ = writeln!(self.0, "{key} = {}", value.into());
    }

    fn table(&mut self, head: &str) {
        let _ = writeln!(self.0, "\n{head}");
    }

    /// The keys that tell people, and the issue tracker, about the case.
    fn about(&mut self, case: &Case) {
        self.line("summary", case.summary.as_str());
        self.text("reported", case.reported.as_ref());
        self.text("root_cause", case.behind.as_ref());
        if !case.issues.is_empty() {
            self.line("issues", texts(&case.issues));
        }
        self.text("scenario", case.scenario.as_ref());
        if case.origin == Origin::Hunt {
            self.line("origin", "hunt");
        }
        if let Some(KnownFinding { key, routes }) = &case.finding {
            let mut finding = toml::Table::new();
            finding.insert("key".to_owned(), key.as_str().into());
            if !routes.is_empty() {
                finding.insert("routes".to_owned(), texts(routes));
            }
            self.line("finding", toml::Value::Table(finding));
        }
    }

    /// The keys that state where the case runs, and with how many clients.
    fn setting(&mut self, case: &Case) {
        match (case.vocabulary, case.twin.is_empty()) {
            (Vocabulary::Backend, true) => self.line("vocabulary", "backend"),
            (Vocabulary::Own, false) => self.line("vocabulary", "own"),
            (Vocabulary::Backend, false) | (Vocabulary::Own, true) => {}
        }
        match case.twin.names().collect::<Vec<_>>().as_slice() {
            [] => {}
            [one] => self.line("defect", *one),
            many => self.line("defects", texts(many)),
        }
        match &case.profiles {
            None => self.line("profiles", texts(&["all"])),
            Some(names) if names.as_slice() == [DEFAULT_PROFILE] => {}
            Some(names) => self.line("profiles", texts(names)),
        }
        if case.environments != [Environment::Staging] {
            let names: Vec<&str> = case.environments.iter().map(|environment| environment.name()).collect();
            self.line("environments", texts(&names));
        }
        let Concurrency { users, connections, rounds } = case.crowd;
        for (key, count) in [("users", users), ("connections", connections), ("rounds", rounds)] {
            if count != 1 {
                self.line(key, number(count));
            }
        }
        if let Some(seed) = case.seed {
            // TOML has no unsigned numbers.
            self.line("seed", toml::Value::Integer(i64::from_ne_bytes(seed.to_ne_bytes())));
        }
        if case.is_alone {
            self.line("alone", toml::Value::Boolean(true));
        }
        if !case.server_arguments.arguments.is_empty() {
            self.line("server_arguments", texts(&case.server_arguments.arguments));
        }
    }

    /// The claimed symptom, and what differs behind particular servers.
    fn symptoms(&mut self, case: &Case) {
        let Some(symptom) = &case.symptom else { return };
        self.table("[symptom]");
        self.symptom(symptom);
        for (profile, own) in &case.symptom_on {
            self.table(&format!("[symptom.on.{}]", toml::Value::from(profile.as_str())));
            self.symptom(own);
            // An empty text takes back what is demanded elsewhere.
            for (key, own, elsewhere) in [("log", &own.log, &symptom.log), ("reason", &own.reason, &symptom.reason)] {
                if own.is_none() && elsewhere.is_some() {
                    self.line(key, "");
                }
            }
        }
    }

    // Long: an arm for each act.
    fn step(&mut self, step: &Step, accepted: Option<(&Accepted, &[String])>) {
        if let Some(client) = &step.client {
            self.line("as", client.0.as_str());
        }
        let mut limit = Some(step.limit).filter(|limit| *limit != DEFAULT_LIMIT);
        match &step.act {
            Action::Open(request) => {
                self.line("open", escape_bytes(&request.path));
                if request.method != "GET" {
                    self.line("method", request.method.as_str());
                }
                self.request(request, Credential::Valid);
            }
            Action::Request(request) => {
                self.line("request", format!("{} {}", request.method, escape_bytes(&request.path)));
                self.request(request, Credential::None);
            }
            Action::SendText(text) => {
                let short = text.trim_end_matches(' ');
                if text.len() - short.len() >= PADDING_MIN {
                    self.line("send", short);
                    self.line("pad_to", number(text.len()));
                } else {
                    self.line("send", text.as_str());
                }
                limit = None;
            }
            Action::SendBytes(bytes) => {
                self.line("send_bytes", escape_bytes(bytes));
                limit = None;
            }
            Action::Ping => self.line("ping", true),
            Action::Wait(Awaited::Message(name)) => self.line("wait", name.as_str()),
            Action::Wait(Awaited::Key(key)) => self.line("wait_key", key.as_str()),
            Action::Wait(Awaited::Text(text)) => self.line("wait_text", text.as_str()),
            Action::Wait(Awaited::Match(pattern)) => self.line("wait_match", pattern.source()),
            Action::Wait(Awaited::Any) => self.line("wait_any", true),
            Action::Wait(Awaited::Answer) => self.line("wait_answer", true),
            Action::Wait(Awaited::Close) => self.line("wait", "close"),
            Action::Close(code) => self.line("close", toml::Value::Integer(i64::from(code.0))),
            Action::Leave => self.line("leave", true),
            Action::Reset => self.line("reset", true),
            Action::StopReading => {
                self.line("stop_reading", true);
                limit = None;
            }
            Action::ReadAnswer => self.line("read_answer", true),
            Action::Signal(signal) => {
                self.line("signal", signal.name());
                limit = None;
            }
            Action::AwaitExit(ExitExpectation::Any) => self.line("wait_exit", true),
            Action::AwaitExit(ExitExpectation::Status(code)) => {
                self.line("wait_exit", toml::Value::Integer(i64::from(*code)));
            }
            Action::AwaitExit(ExitExpectation::Signal(signal)) => self.line("wait_exit", signal.name()),
            Action::Pause => self.line("pause_ms", ms(limit.take().unwrap_or(step.limit))),
            Action::Deafen => self.line("deaf_ms", ms(limit.take().unwrap_or(step.limit))),
            Action::Freeze => self.line("freeze_ms", ms(limit.take().unwrap_or(step.limit))),
        }
        if let Some(limit) = limit {
            self.line("within_ms", ms(limit));
        }
        if let Some(Slices { bytes, pause }) = step.slices {
            self.line("slice_bytes", number(bytes));
            if !pause.is_zero() {
                self.line("slice_pause_ms", ms(pause));
            }
        }
        if let Some((own, everywhere)) = accepted {
            let accept = accepts(own);
            if accept != everywhere {
                self.line("accept", texts(&accept));
            }
            self.shown("outcome", own.outcome);
            self.text("says", own.says.as_ref());
        }
    }

    fn text(&mut self, key: &str, text: Option<&String>) {
        if let Some(text) = text {
            self.line(key, text.as_str());
        }
    }

    // Long: a line for each key of a request.
    fn request(&mut self, request: &Request, credential: Credential) {
        if !request.query.is_empty() {
            self.line("query", escape_bytes(&request.query));
        }
        if request.credential != credential {
            self.line("credential", word(request.credential));
        }
        match request.places.as_slice() {
            [CredentialPlace::Header] => {}
            [one] => self.line("by", word(one)),
            many => self.line("by", toml::Value::Array(many.iter().map(word).collect())),
        }
        if request.user != DEFAULT_USER {
            self.line("user", request.user.as_str());
        }
        if !request.offers.is_empty() {
            self.line("offers", texts(&request.offers));
        }
        if !request.extensions.is_empty() {
            self.line("extensions", request.extensions.as_str());
        }
        if !request.headers.is_empty() {
            let fields = request.headers.iter();
            let table: toml::Table = fields
                .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), escape_bytes(value).into()))
                .collect();
            self.line("headers", toml::Value::Table(table));
        }
        if !request.without.is_empty() {
            self.line("without", texts(&request.without));
        }
        if !request.body.is_empty() {
            match std::str::from_utf8(&request.body) {
                Ok(text) => self.line("body", text),
                Err(_) => self.line("body_bytes", escape_bytes(&request.body)),
            }
        }
        if let Some(sent) = request.body_sent {
            self.line("send_body_bytes", number(sent));
        }
        if !request.on.is_new() {
            self.line("on", word(request.on));
        }
        if request.answer == AnswerReading::Later {
            self.line("answer", "later");
        }
        let BodyExpectation { first_byte, gap } = request.expects;
        for (key, time) in [("first_byte_within_ms", first_byte), ("gap_within_ms", gap)] {
            if let Some(time) = time {
                self.line(key, ms(time));
            }
        }
        if request.client != ClientStrictness::default() {
            self.line("client", word(request.client));
        }
        for (key, time) in [("retry_ms", request.retry), ("give_up_ms", request.give_up)] {
            if let Some(time) = time {
                self.line(key, ms(time));
            }
        }
    }

    fn fault(&mut self, fault: &Fault) {
        self.table("[[fault]]");
        self.line("at", fault.kind.place().name());
        self.line("kind", fault.kind.name());
        fault.kind.write().into_iter().for_each(|(key, value)| self.line(key, value));
        let (trigger, default) = (fault.trigger, Trigger::default());
        for (key, count, default) in [("nth", trigger.nth, default.nth), ("every", trigger.every, default.every)] {
            if count != default {
                self.line(key, toml::Value::Integer(i64::from(count)));
            }
        }
        if let Some(times) = trigger.times {
            self.line("times", toml::Value::Integer(i64::from(times)));
        }
        if trigger.percent != default.percent {
            self.line("percent", toml::Value::Integer(i64::from(trigger.percent)));
        }
        if trigger.from != default.from {
            self.line("from_ms", ms(trigger.from));
        }
        if let Some(until) = trigger.until {
            self.line("until_ms", ms(until));
        }
        if let Some(step) = trigger.step {
            self.line("step", number(step));
        }
    }

    fn shown(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.line(key, value.to_string());
        }
    }

    fn symptom(&mut self, symptom: &Symptom) {
        self.shown("outcome", symptom.outcome);
        self.shown("class", symptom.class);
        self.shown("cause", symptom.cause);
        if let Some(claim) = &symptom.exception {
            self.exception(claim);
        }
        self.text("log", symptom.log.as_ref());
        self.text("reason", symptom.reason.as_ref());
        self.line("found_by", texts(&symptom.found_by));
    }

    fn exception(&mut self, claim: &ExceptionClaim) {
        let Some(place) = &claim.place else {
            return self.line("exception", claim.to_string());
        };
        let mut parts = toml::Table::new();
        parts.insert("type".to_owned(), claim.type_name.as_str().into());
        parts.extend(claim.text.iter().map(|text| ("text".to_owned(), text.as_str().into())));
        parts.insert("place".to_owned(), place.to_string().into());
        self.line("exception", toml::Value::Table(parts));
    }

    fn sham(&mut self, sham: &ClaimedFix) {
        self.table("[[claimed_fix]]");
        self.line("claim", sham.claim.as_str());
        self.line("defects", texts(&sham.defects.names().collect::<Vec<_>>()));
        self.line("outcome", sham.outcome.to_string());
        self.line("class", sham.class.name());
        self.line("found_by", texts(&sham.found_by));
        for (profile, (outcome, class)) in &sham.on {
            self.table(&format!("[claimed_fix.on.{}]", toml::Value::from(profile.as_str())));
            self.line("outcome", outcome.to_string());
            self.line("class", class.name());
        }
    }
}
