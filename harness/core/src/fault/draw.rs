//! Draws faults for a hunt: which kind, with which settings, and when. The kinds and their weights are those of the
//! entries; nothing here names a kind but where its settings depend on one another.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{
    AnswerEdit, CallFault, Calls, ConnectionFault, Direction, EventFault, Events, Fault, FaultKind, FrameFault, Frames,
    HeadEdit, Kind, Place, ProcessFault, ScopeEdit, StreamFault, Trigger,
    frame::Carries,
    setting::{Count, Setting, Time},
};
use crate::{
    asgi::{scope::ScopeType, value::Value},
    choices::{Choices, Named},
};

/// How often settings are drawn again for a fault that the specification must allow, before another kind comes.
const ATTEMPTS: usize = 32;

/// The names in a service that faults can act on.
#[derive(Debug, Clone, Copy)]
pub struct FaultNames<'a> {
    /// Its dependencies, with their operations.
    pub dependencies: &'a [(&'a str, &'a [&'a str])],
    /// Its modules that can be missing.
    pub modules: &'a [&'a str],
    /// Its variables that can be unset, each with its weight.
    pub unset: &'a [(u32, &'a str)],
    /// Its variables that can have another value, with such values.
    pub set: &'a [(&'a str, &'a [&'a str])],
}

impl FaultNames<'_> {
    /// Those of a service of which nothing is known.
    pub const NOTHING: FaultNames<'static> = FaultNames { dependencies: &[], modules: &[], unset: &[], set: &[] };
}

/// The limits within which a fault is drawn.
#[derive(Debug, Clone, Copy)]
pub struct FaultLimits<'a> {
    /// The kinds that may be drawn.
    pub kinds: &'a [&'static Kind],
    /// The names that they may act on.
    pub names: FaultNames<'a>,
    /// Whether the ASGI specification must allow what the fault does.
    pub legal_only: bool,
    /// How many steps the clients have.
    pub steps: usize,
}

/// The settings of one fault, as they are drawn. Each has a stream with the name of its key.
#[derive(Debug)]
pub(super) struct FaultDraw<'a> {
    pub(super) choices: Choices,
    names: FaultNames<'a>,
}

impl Place {
    /// How often it is drawn beside the others. On the way to dependencies most goes wrong.
    pub fn weight(self) -> u32 {
        match self {
            Place::Dependency => 6,
            Place::Edge => 5,
            Place::Scope | Place::Process => 2,
            Place::Event => 1,
        }
    }
}

impl Fault {
    /// Draws a fault at this place; `None` if no kind has anything to act on there.
    pub fn draw(choices: Choices, place: Place, limits: &FaultLimits<'_>) -> Option<Fault> {
        let kinds = limits.kinds.iter().filter(|kind| kind.place == place).map(|kind| (kind.weight, kind.name, *kind));
        let ranked = choices.fork("kind").ranked(kinds);
        ranked.into_iter().find_map(|kind| of_kind(choices.fork(kind.name), kind, limits))
    }
}

/// Draws a fault of this kind; `None` if there is none within the limits.
fn of_kind(choices: Choices, kind: &Kind, limits: &FaultLimits<'_>) -> Option<Fault> {
    let attempts = if limits.legal_only { ATTEMPTS } else { 1 };
    (0..attempts).map(|attempt| choices.nth(attempt)).find_map(|choices| {
        let drawn = FaultKind::draw(kind.name, &FaultDraw { choices, names: limits.names })?;
        let trigger = trigger(choices.fork("trigger"), &drawn, limits.steps);
        (!limits.legal_only || drawn.is_legal()).then_some(Fault { kind: drawn, trigger })
    })
}

impl FaultKind {
    /// Draws the settings of a kind by its name.
    fn draw(kind: &str, draw: &FaultDraw<'_>) -> Option<FaultKind> {
        let direction = Direction::draw(draw.choices.fork("direction"));
        None.or_else(|| HeadEdit::draw(kind, draw).map(FaultKind::Head))
            .or_else(|| AnswerEdit::draw(kind, draw).map(FaultKind::Answer))
            .or_else(|| ConnectionFault::draw(kind, draw).map(FaultKind::Connection))
            .or_else(|| ScopeEdit::draw(kind, draw).map(FaultKind::Scope))
            .or_else(|| ProcessFault::draw(kind, draw).map(FaultKind::Process))
            .or_else(|| StreamFault::draw(kind, draw).map(|fault| FaultKind::Stream { direction, fault }))
            .or_else(|| {
                FrameFault::draw(kind, draw).map(|fault| FaultKind::Frame { frames: frames(draw.choices), fault })
            })
            .or_else(|| {
                let fault = EventFault::draw(kind, draw)?;
                Some(FaultKind::Event { events: events(draw.choices.fork("event"), &fault), fault })
            })
            .or_else(|| {
                let fault = CallFault::draw(kind, draw)?;
                Some(FaultKind::Call { calls: calls(draw)?, fault })
            })
    }

    /// Whether a server that keeps to the ASGI specification may do so, on whatever it acts.
    pub fn is_legal(&self) -> bool {
        match self {
            FaultKind::Scope(edit) => {
                [ScopeType::Http, ScopeType::Websocket].iter().all(|on| edit.legality(*on).is_legal)
            }
            FaultKind::Event { events, fault } => fault.legality(events).is_legal,
            FaultKind::Head(_)
            | FaultKind::Answer(_)
            | FaultKind::Connection(_)
            | FaultKind::Stream { .. }
            | FaultKind::Frame { .. }
            | FaultKind::Call { .. }
            | FaultKind::Process(_) => true,
        }
    }

    /// Whether real servers do this, or what lies between them and their clients: then an app in use meets it. Much that
    /// the specification allows is done by none, and a client that leaves does so itself.
    pub fn is_ordinary(&self) -> bool {
        match self {
            FaultKind::Scope(edit) => edit.is_ordinary(),
            FaultKind::Event { fault, .. } => fault.is_ordinary(),
            FaultKind::Head(_)
            | FaultKind::Answer(_)
            | FaultKind::Connection(_)
            | FaultKind::Stream { .. }
            | FaultKind::Frame { .. }
            | FaultKind::Call { .. }
            | FaultKind::Process(_) => true,
        }
    }
}

/// When a fault acts. Each kind of thing that it acts on has occasions of its own.
fn trigger(choices: Choices, kind: &FaultKind, steps: usize) -> Trigger {
    match kind {
        FaultKind::Head(_) | FaultKind::Answer(_) | FaultKind::Connection(_) | FaultKind::Scope(_) => {
            Trigger::default()
        }
        FaultKind::Stream { .. } => occasionally(choices, 2),
        FaultKind::Frame { .. } if choices.fork("by step").happens(1, 8) => {
            Trigger { step: Some(choices.fork("step").count(1..=steps.max(1))), ..Trigger::default() }
        }
        FaultKind::Frame { .. } => occasionally(choices, 5),
        FaultKind::Event { .. } => occasionally(choices, 4),
        FaultKind::Call { .. } => on_calls(choices),
        FaultKind::Process(fault) => {
            let until = fault.ends().then(|| Duration::from_millis(choices.fork("until").within(1..=20_000)));
            Trigger { until, ..Trigger::default() }
        }
    }
}

/// On one of the first occasions, or on all.
fn occasionally(choices: Choices, most: usize) -> Trigger {
    if choices.fork("always").happens(1, 4) {
        return Trigger::default();
    }
    Trigger { nth: small(choices.fork("nth"), most), times: Some(1), ..Trigger::default() }
}

/// A number from 1 to `most`.
fn small(choices: Choices, most: usize) -> u32 {
    u32::try_from(choices.count(1..=most)).unwrap_or(1)
}

/// 1, and a number up to `most` now and then.
fn rarely(choices: Choices, most: usize) -> u32 {
    if choices.fork("rarely").happens(1, 5) { small(choices, most) } else { 1 }
}

/// On calls of a dependency: for a time, now and then, or always.
fn on_calls(choices: Choices) -> Trigger {
    let from = choices.fork("from");
    let from = if from.fork("later").happens(2, 5) { from.within(0..=20_000) } else { 0 };
    let until = choices.fork("until");
    let until = until.fork("ends").happens(1, 2).then(|| Duration::from_millis(from + until.within(1..=40_000)));
    let percent = choices.fork("percent");
    let percent = if percent.fork("less").happens(1, 10) { percent.within(20..=80) } else { 100 };
    let times = choices.fork("times");
    Trigger {
        nth: rarely(choices.fork("nth"), 5),
        every: rarely(choices.fork("every"), 3),
        times: times.fork("limited").happens(1, 4).then(|| small(times, 3)),
        percent: u8::try_from(percent).unwrap_or(100),
        from: Duration::from_millis(from),
        until,
        step: None,
    }
}

/// Frames: those of a direction, now and then only some of them.
fn frames(choices: Choices) -> Frames {
    const CARRIES: [Carries; 4] = [Carries::Text, Carries::Close, Carries::Ping, Carries::Pong];
    let (carries, containing) = (choices.fork("opcode"), choices.fork("containing"));
    let text = containing.one(&["agent", "ping", "connection_established"]);
    Frames {
        direction: Direction::draw(choices.fork("direction")),
        carries: carries.fork("is given").happens(1, 4).then(|| carries.one(&CARRIES)),
        containing: containing.fork("is given").happens(1, 4).then(|| text.to_owned()),
    }
}

/// Events that an application receives, each with its weight. Those of a start come now and then.
const RECEIVED: &[(u32, &str)] = &[
    (6, "websocket.connect"),
    (12, "websocket.receive"),
    (6, "websocket.disconnect"),
    (6, "http.request"),
    (2, "lifespan.startup"),
];

/// Events that an application sends.
const SENT: &[(u32, &str)] = &[
    (5, "websocket.accept"),
    (10, "websocket.send"),
    (5, "websocket.close"),
    (5, "http.response.start"),
    (5, "http.response.body"),
    (2, "lifespan.startup.complete"),
];

/// The events that a fault can act on.
fn events(choices: Choices, fault: &EventFault) -> Events {
    let names = match fault {
        EventFault::Cancel {} => return Events(None),
        EventFault::StartupFails { .. } => return Events(Some("lifespan.startup.complete".to_owned())),
        EventFault::OmitKey { key } if key == "code" => return Events(Some("websocket.disconnect".to_owned())),
        fault if fault.is_on_send() => SENT,
        _ => RECEIVED,
    };
    Events((!choices.fork("any").happens(1, 5)).then(|| choices.weighed(names).to_owned()))
}

/// The calls of one dependency, or of one of its operations; `None` if the service has no dependency.
fn calls(draw: &FaultDraw<'_>) -> Option<Calls> {
    let dependencies = draw.names.dependencies.iter().map(|(name, operations)| (1, *name, (*name, *operations)));
    let (name, operations) = draw.choices.fork("dependency").pick(dependencies)?;
    let one = operations.iter().map(|operation| (1, *operation, Some((*operation).to_owned())));
    let operation = draw.choices.fork("operation").pick(one.chain([(2, "", None)])).flatten();
    Some(Calls { dependency: name.to_owned(), operation })
}

/// One of these, with their weights.
pub(super) fn among<V: Named + Clone, T: From<V>>(
    from: &'static [(u32, V)],
) -> impl Fn(&FaultDraw<'_>, &str) -> Option<T> {
    |draw, key| Some(draw.choices.fork(key).weighed(from).into())
}

/// One of these numbers.
pub(super) fn counts(from: &'static [usize]) -> impl Fn(&FaultDraw<'_>, &str) -> Option<Count> {
    |draw, key| Some(Count(draw.choices.fork(key).one(from)))
}

/// A number from 1 to `most`.
pub(super) fn up_to(most: usize) -> impl Fn(&FaultDraw<'_>, &str) -> Option<Count> {
    move |draw, key| Some(Count(draw.choices.fork(key).count(1..=most)))
}

/// A time from 1 ms to this many milliseconds.
pub(super) fn up_to_ms(most: u64) -> impl Fn(&FaultDraw<'_>, &str) -> Option<Time> {
    move |draw, key| Some(Time(Duration::from_millis(draw.choices.fork(key).within(1..=most))))
}

/// Always this.
pub(super) fn always<T: Clone>(value: T) -> impl Fn(&FaultDraw<'_>, &str) -> Option<T> {
    move |_, _| Some(value.clone())
}

/// The page that a middlebox answers with.
pub(super) const PAGE: &[(u32, &str)] = &[(1, "<html>upstream</html>")];

/// A module that can be missing; `None` if the service names none.
pub(super) fn module(draw: &FaultDraw<'_>, key: &str) -> Option<String> {
    let modules = draw.names.modules.iter().map(|name| (1, *name, (*name).to_owned()));
    draw.choices.fork(key).pick(modules)
}

/// A variable that can be unset; `None` if the service names none.
pub(super) fn unset_variable(draw: &FaultDraw<'_>, key: &str) -> Option<String> {
    let names = draw.names.unset.iter().map(|(weight, name)| (*weight, *name, (*name).to_owned()));
    draw.choices.fork(key).pick(names)
}

/// A variable with the values that it can have; `None` if the service names none.
fn variable<'a>(draw: &FaultDraw<'a>) -> Option<(&'a str, &'a [&'a str])> {
    let names = draw.names.set.iter().map(|(name, values)| (1, *name, (*name, *values)));
    draw.choices.fork("name").pick(names)
}

/// The name of a variable that can have another value.
pub(super) fn set_variable(draw: &FaultDraw<'_>, _: &str) -> Option<String> {
    Some(variable(draw)?.0.to_owned())
}

/// Another value of that variable.
pub(super) fn variable_value(draw: &FaultDraw<'_>, key: &str) -> Option<String> {
    let (_, values) = variable(draw)?;
    draw.choices.fork(key).pick(values.iter().map(|value| (1, *value, (*value).to_owned())))
}

/// A list of two.
fn pair(first: impl Into<Value>, second: impl Into<Value>) -> Value {
    Value::List(vec![first.into(), second.into()])
}

/// A value of some type, most often of a wrong one.
pub(super) fn odd_value(choices: Choices) -> Value {
    let values = [
        ("true", Value::Bool(true)),
        ("0", Value::Int(0)),
        ("-1", Value::Int(-1)),
        ("65536", Value::Int(65536)),
        ("1.5", Value::Float(1.5)),
        ("empty text", "".into()),
        ("text beyond ASCII", "caf\u{e9} \u{2028}".into()),
        ("empty bytes", Value::Bytes(Bytes::new())),
        ("bytes that are no text", Value::Bytes(Bytes::from_static(b"\xff\xfe=%"))),
        ("bytes", Value::Bytes(Bytes::from_static(b"a=b"))),
        ("empty list", Value::List(Vec::new())),
        ("path and none", pair("unix:/run/app.sock", Value::None)),
        ("address of IPv6", pair("2001:db8::1", Value::Int(443))),
        ("none and text", pair(Value::None, "443")),
        ("number and none", pair(Value::Int(1), Value::None)),
        ("empty dict", Value::Dict(BTreeMap::new())),
        ("prefix", "/prefix".into()),
        ("names", Value::List(vec!["graphql-ws".into()])),
    ];
    choices.pick(values.into_iter().map(|(name, value)| (1, name, value))).unwrap_or(Value::None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{FaultLimits, FaultNames};
    use crate::{
        choices::Choices,
        fault::{Fault, FaultKind, Kind, Place},
    };

    const NAMES: FaultNames<'static> = FaultNames {
        dependencies: &[("database", &["ping", "lookup"])],
        modules: &["redis"],
        unset: &[(1, "SECRET")],
        set: &[("STAGE", &["a", "b"])],
    };

    fn drawn(kinds: &[&'static Kind], names: FaultNames<'_>, place: Place) -> Vec<Option<Fault>> {
        let limits = FaultLimits { kinds, names, legal_only: false, steps: 3 };
        (0..500).map(|seed| Fault::draw(Choices::of(seed), place, &limits)).collect()
    }

    #[test]
    fn every_kind_is_drawn_at_its_place() {
        let kinds: Vec<&Kind> = FaultKind::all().collect();
        for place in Place::ALL {
            let drawn: BTreeSet<&str> =
                drawn(&kinds, NAMES, place).iter().flatten().map(|fault| fault.kind.name()).collect();
            let known = kinds.iter().filter(|kind| kind.place == place).map(|kind| kind.name);
            assert_eq!(drawn, known.collect());
        }
    }

    /// Each kind left out in turn: what was not of that kind stays as it was, settings and all.
    #[test]
    fn a_further_kind_changes_only_what_it_wins() {
        let kinds: Vec<&Kind> = FaultKind::all().collect();
        for added in &kinds {
            let before: Vec<&Kind> = kinds.iter().copied().filter(|kind| kind != added).collect();
            let both = drawn(&before, NAMES, added.place).into_iter().zip(drawn(&kinds, NAMES, added.place));
            let mut won = 0;
            for (before, after) in both {
                let is_won = after.as_ref().is_some_and(|fault| fault.kind.name() == added.name);
                assert!(is_won || before == after, "{}: {before:?}, then {after:?}", added.name);
                won += usize::from(is_won);
            }
            assert!(won > 0, "{} is never drawn", added.name);
        }
    }

    #[test]
    fn a_service_that_names_nothing_has_no_such_fault() {
        let kinds: Vec<&Kind> = FaultKind::all().collect();
        assert!(drawn(&kinds, FaultNames::NOTHING, Place::Dependency).iter().all(Option::is_none));
        let drawn = drawn(&kinds, FaultNames::NOTHING, Place::Process);
        let drawn: BTreeSet<&str> = drawn.iter().flatten().map(|fault| fault.kind.name()).collect();
        assert_eq!(drawn, ["absent", "restart", "shut_down"].into());
    }
}
