//! Reads the faults of a case.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use relapse_core::{
    asgi::{
        event::{EVENT_NAMES, Inbound},
        scope::keys,
    },
    client::{
        credential::{Credential, CredentialPlace},
        step::{Action, Concurrency, Step},
    },
    error::{Error, did_you_mean, renamed},
    fault::{
        Calls, EventFault, Fault, FaultKind, Place, ProcessFault, ScopeEdit, Trigger,
        setting::{GivenSettings, SettingError},
    },
};
use toml::Spanned;

use super::CaseReader;
use crate::case::keys::RawFault;

/// More frames than any case has in one connection.
const FRAMES_MAX: usize = 1 << 20;

/// The keys that say when a fault acts.
const TRIGGER_KEYS: [&str; 7] = ["nth", "every", "times", "percent", "from_ms", "until_ms", "step"];

impl CaseReader<'_> {
    /// The faults of a case, none of which undoes another.
    pub(super) fn faults(
        &self,
        raw: Vec<Spanned<RawFault>>,
        steps: &[Step],
        crowd: Concurrency,
    ) -> Result<Vec<Fault>, Error> {
        let spans: Vec<Range<usize>> = raw.iter().map(Spanned::span).collect();
        let faults = raw.into_iter().map(|fault| self.fault(fault, steps, crowd)).collect::<Result<Vec<_>, _>>()?;
        self.no_contradiction(&faults, &spans)?;
        Ok(faults)
    }

    /// A fault that belongs to no case.
    pub(super) fn free_fault(&self, raw: Spanned<RawFault>) -> Result<Fault, Error> {
        let span = raw.span();
        let (mut given, kind) = self.given(raw)?;
        if given.settings.contains_key("step") {
            return Err(self.error(span, "`step` needs a script, and there is none here", None));
        }
        let known = FaultKind::all().find(|known| known.name == kind);
        let place = known.map_or(Place::Edge, |known| known.place);
        if place != Place::Edge && self.known.dependencies.is_empty() {
            let message = format!("`{kind}` acts at the {}, and there is only an edge here", place.name());
            return Err(self.error(span, message, None));
        }
        if given.settings.contains_key("at") {
            self.one_of("injection point", &given.text("at")?, &[place.name()])?;
        }
        let trigger = given.trigger(1)?;
        Ok(Fault { kind: given.kind(&kind)?, trigger })
    }

    /// The settings of a fault, and its kind.
    fn given(&self, raw: Spanned<RawFault>) -> Result<(GivenFault<'_>, String), Error> {
        let mut given = GivenFault { reader: self, whole: raw.span(), settings: BTreeMap::new() };
        for (key, value) in raw.into_inner() {
            given.settings.insert(key.get_ref().clone(), (key.span(), value));
        }
        if let (Some((key, _)), Some(help)) = (given.settings.get("place"), renamed("place", ["at"])) {
            return Err(self.error(key.clone(), "a fault has no key `place`", Some(help)));
        }
        let kinds: Vec<&str> = FaultKind::all().map(|kind| kind.name).collect();
        let kind = self.one_of("fault", &given.text("kind")?, &kinds)?;
        Ok((given, kind))
    }

    fn fault(&self, raw: Spanned<RawFault>, steps: &[Step], crowd: Concurrency) -> Result<Fault, Error> {
        let span = raw.span();
        let (mut given, kind) = self.given(raw)?;
        let places: Vec<&str> = Place::ALL.iter().map(|place| place.name()).collect();
        let given_place = given.text("at")?;
        let place = self.one_of("injection point", &given_place, &places)?;
        let right_place = FaultKind::all().find(|known| known.name == kind).map(|known| known.place.name());
        if right_place != Some(place.as_str()) {
            let help = right_place.map(|place| format!("write `at = \"{place}\"`"));
            return Err(self.error(given_place.span(), format!("`{kind}` does not act at the {place}"), help));
        }
        let trigger = given.trigger(steps.len())?;
        let fault_kind = given.kind(&kind)?;
        let (ends, is_process) = match &fault_kind {
            FaultKind::Process(fault) => (fault.ends(), true),
            _ => (false, false),
        };
        let is_timed = !trigger.is_steady() || !trigger.from.is_zero();
        if is_process && (is_timed || trigger.until.is_some() != ends) {
            let message = if ends {
                format!("`{kind}` needs `until_ms`, and nothing else says when it acts")
            } else {
                format!("`{kind}` acts as the case begins; nothing else says when")
            };
            return Err(self.error(span, message, None));
        }
        if let FaultKind::Event { events, fault: EventFault::StartupFails { .. } } = &fault_kind
            && !events.include("lifespan.startup.complete")
        {
            let help = Some("write `event = \"lifespan.startup.complete\"`".to_owned());
            return Err(self.error(span, format!("`{kind}` acts on the end of a start and on nothing else"), help));
        }
        self.can_act(&fault_kind, trigger, steps, crowd, span)?;
        Ok(Fault { kind: fault_kind, trigger })
    }

    /// Refuses a fault that no step of the case could ever meet.
    fn can_act(
        &self,
        kind: &FaultKind,
        trigger: Trigger,
        steps: &[Step],
        crowd: Concurrency,
        span: Range<usize>,
    ) -> Result<(), Error> {
        let occasions = match kind {
            FaultKind::Scope(_) | FaultKind::Answer(_) => steps.iter().filter_map(Step::opening).count(),
            FaultKind::Frame { .. } => {
                steps.iter().filter(|step| matches!(step.act, Action::Open(_))).count() * FRAMES_MAX
            }
            FaultKind::Head(edit) => {
                let opening = steps.iter().filter(|step| step.opening().is_some());
                opening.filter(|step| edit.needs().is_none_or(|header| carries(step, header))).count()
            }
            _ => return Ok(()),
        };
        let occasions = occasions * crowd.clients() * crowd.rounds;
        if occasions < trigger.nth as usize {
            let message = format!(
                "this fault can never act: the steps give it {occasions} occasion(s), and it waits for number {}",
                trigger.nth
            );
            return Err(self.error(span, message, Some("check its settings against the steps".to_owned())));
        }
        Ok(())
    }

    /// Refuses process faults that undo one another.
    fn no_contradiction(&self, faults: &[Fault], spans: &[Range<usize>]) -> Result<(), Error> {
        for (index, fault) in faults.iter().enumerate() {
            if faults[..index].iter().any(|other| undoes(&fault.kind, &other.kind)) {
                let message = format!("this fault undoes another one: {fault}");
                return Err(self.error(spans[index].clone(), message, None));
            }
        }
        Ok(())
    }
}

/// A fault as its file gives it, taken apart setting by setting.
struct GivenFault<'a> {
    reader: &'a CaseReader<'a>,
    /// Where the whole fault stands.
    whole: Range<usize>,
    /// Where each key stands, and its value.
    settings: BTreeMap<String, (Range<usize>, Spanned<toml::Value>)>,
}

impl GivenFault<'_> {
    fn text(&mut self, key: &str) -> Result<Spanned<String>, Error> {
        let Some((_, value)) = self.settings.remove(key) else {
            return Err(self.reader.error(self.whole.clone(), format!("this fault has no `{key}`"), None));
        };
        let span = value.span();
        match value.into_inner() {
            toml::Value::String(text) => Ok(Spanned::new(span, text)),
            _ => Err(self.reader.error(span, format!("`{key}` is a text"), None)),
        }
    }

    /// A number within a range, if it is given.
    fn number(&mut self, key: &str, range: RangeInclusive<i64>, help: &str) -> Result<Option<u64>, Error> {
        let Some((_, value)) = self.settings.remove(key) else { return Ok(None) };
        let number = value.get_ref().as_integer().filter(|number| range.contains(number));
        let number = number.and_then(|number| u64::try_from(number).ok());
        number.map(Some).ok_or_else(|| {
            let message = format!("`{key}` is a number from {} to {}", range.start(), range.end());
            self.reader.error(value.span(), message, Some(help.to_owned()))
        })
    }

    /// A number of occasions, if it is given.
    fn count(&mut self, key: &str) -> Result<Option<u32>, Error> {
        let number = self.number(key, 1..=i64::from(u32::MAX), "occasions are counted from 1")?;
        Ok(number.and_then(|number| u32::try_from(number).ok()))
    }

    fn trigger(&mut self, steps: usize) -> Result<Trigger, Error> {
        const TIMES: &str = "a time is at most an hour";
        let steps = i64::try_from(steps).unwrap_or(i64::MAX);
        let default = Trigger::default();
        let (from, until) =
            (self.number("from_ms", 0..=3_600_000, TIMES)?, self.number("until_ms", 0..=3_600_000, TIMES)?);
        if until.is_some_and(|until| until <= from.unwrap_or(0)) {
            let help = Some("`until_ms` is later than `from_ms`".to_owned());
            return Err(self.reader.error(self.whole.clone(), "this fault is over before it begins", help));
        }
        Ok(Trigger {
            nth: self.count("nth")?.unwrap_or(default.nth),
            every: self.count("every")?.unwrap_or(default.every),
            times: self.count("times")?,
            percent: self
                .number("percent", 1..=100, "100 is always")?
                .and_then(|percent| u8::try_from(percent).ok())
                .unwrap_or(default.percent),
            from: Duration::from_millis(from.unwrap_or(0)),
            until: until.map(Duration::from_millis),
            step: self
                .number("step", 1..=steps, "steps are counted from 1")?
                .and_then(|step| usize::try_from(step).ok()),
        })
    }

    /// The kind with its settings, all of which it must know.
    fn kind(self, kind: &str) -> Result<FaultKind, Error> {
        let mut settings = GivenSettings::default();
        let mut spans = SettingSpans { whole: self.whole, keys: BTreeMap::new() };
        for (key, (key_span, value)) in self.settings {
            spans.keys.insert(key.clone(), (key_span, value.span()));
            settings.0.insert(key, value.into_inner());
        }
        let reader = self.reader;
        let read = FaultKind::read(kind, &mut settings).map_err(|SettingError { key, message }| match message {
            None => reader.error(spans.whole.clone(), format!("`{kind}` needs `{key}`"), None),
            Some(message) => reader.error(spans.of_value(key), format!("`{key}` must be {message}"), None),
        });
        let fault = read?.expect("the kind is known");
        if let Some(key) = settings.0.keys().next() {
            let own = FaultKind::all().filter(|known| known.name == kind).flat_map(|known| known.keys);
            let known = own.chain(FaultKind::selecting_keys(kind)).copied().chain(TRIGGER_KEYS);
            return Err(reader.error(
                spans.of_key(key),
                format!("`{key}` means nothing to `{kind}`"),
                did_you_mean(key, known),
            ));
        }
        reader.known_names(&fault, &spans)?;
        Ok(fault)
    }
}

/// Where the settings of a fault stand in its file.
struct SettingSpans {
    whole: Range<usize>,
    /// Each key, and its value.
    keys: BTreeMap<String, (Range<usize>, Range<usize>)>,
}

impl SettingSpans {
    /// Where a key stands; where it is not given, the whole fault.
    fn of_key(&self, key: &str) -> Range<usize> {
        self.keys.get(key).map_or(&self.whole, |(key, _)| key).clone()
    }

    /// Where the value of a key stands; where it is not given, the whole fault.
    fn of_value(&self, key: &str) -> Range<usize> {
        self.keys.get(key).map_or(&self.whole, |(_, value)| value).clone()
    }
}

impl CaseReader<'_> {
    /// Refuses settings of a fault that name something unknown.
    fn known_names(&self, fault: &FaultKind, spans: &SettingSpans) -> Result<(), Error> {
        match fault {
            FaultKind::Call { calls: Calls { dependency, operation }, .. } => {
                let dependencies = self.known.dependencies;
                let names: Vec<&str> = dependencies.iter().map(|(name, _)| *name).collect();
                self.known_name("dependency", dependency, spans.of_value("dependency"), &names)?;
                let operations = dependencies.iter().find(|(name, _)| name == dependency);
                operation.as_ref().map_or(Ok(()), |operation| {
                    let names = operations.map_or(&[][..], |(_, all)| *all);
                    self.known_name("operation", operation, spans.of_value("operation"), names)
                })
            }
            FaultKind::Scope(ScopeEdit::Drop { key }) => {
                let names: Vec<&str> = keys::ALL.iter().map(|key| key.name).collect();
                self.known_name("scope key", key, spans.of_value("key"), &names)
            }
            FaultKind::Event { events, fault } => {
                if let Some(name) = &events.0 {
                    self.known_name("event", name, spans.of_value("event"), &EVENT_NAMES)?;
                }
                let EventFault::OmitKey { key } = fault else { return Ok(()) };
                let Some(keys) = Inbound::keys(events.0.as_deref().unwrap_or_default()) else {
                    let help = "write `event = \"websocket.disconnect\"`, or another one that is received";
                    let message = "`omit_key` acts on one kind of event that the application receives";
                    return Err(self.error(spans.whole.clone(), message, Some(help.to_owned())));
                };
                self.known_name("key", key, spans.of_value("key"), &[keys, &["type"]].concat())
            }
            FaultKind::Process(ProcessFault::MissingModule { module }) => {
                self.known_name("module", module, spans.of_value("module"), self.known.modules)
            }
            FaultKind::Process(fault) => {
                let variable = fault.variable();
                variable.map_or(Ok(()), |(name, _)| {
                    self.known_name("variable", name, spans.of_value("name"), self.known.variables)
                })
            }
            FaultKind::Head(_)
            | FaultKind::Answer(_)
            | FaultKind::Connection(_)
            | FaultKind::Stream { .. }
            | FaultKind::Frame { .. }
            | FaultKind::Scope(_) => Ok(()),
        }
    }

    fn known_name(&self, what: &str, name: &str, span: Range<usize>, known: &[&str]) -> Result<(), Error> {
        self.one_of(what, &Spanned::new(span, name.to_owned()), known).map(drop)
    }
}

/// Whether two faults of the process cannot both be in force.
fn undoes(fault: &FaultKind, other: &FaultKind) -> bool {
    let (FaultKind::Process(fault), FaultKind::Process(other)) = (fault, other) else { return false };
    match (fault, other) {
        (ProcessFault::Absent {}, ProcessFault::Absent {}) => true,
        (fault, other) => match (fault.variable(), other.variable()) {
            (Some((fault, _)), Some((other, _))) => fault == other,
            _ => false,
        },
    }
}

/// Whether the request of a step has a header with this name.
fn carries(step: &Step, header: &str) -> bool {
    let Some(request) = step.opening() else { return false };
    let is_upgrade = matches!(step.act, Action::Open(_));
    let header = header.to_ascii_lowercase();
    if request.without.iter().any(|name| name.eq_ignore_ascii_case(&header)) {
        return false;
    }
    let presents = request.credential != Credential::None;
    match header.as_str() {
        "host" => true,
        "connection" | "upgrade" | "sec-websocket-key" | "sec-websocket-version" if is_upgrade => true,
        "authorization" if presents && request.places.contains(&CredentialPlace::Header) => true,
        "sec-websocket-protocol" if !request.offers.is_empty() => true,
        "sec-websocket-protocol" => {
            let carriers =
                [CredentialPlace::Subprotocol, CredentialPlace::SubprotocolAlone, CredentialPlace::StagingSubprotocol];
            presents && request.places.iter().any(|place| carriers.contains(place))
        }
        other => request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(other.as_bytes())),
    }
}
