//! A fault injected from outside while a case runs.
//!
//! Each place has a file, and in it each fault is one entry: its name, what it does, its settings, and how it is shown.
//! The code that reads and writes case files, lists the catalogue, checks the documents and draws faults for a hunt
//! follows from the entries.

mod answer;
mod call;
mod connection;
mod draw;
mod effect;
mod event;
mod frame;
mod head_edit;
mod process;
mod scope_edit;
pub mod setting;
mod stream;
mod trigger;

use std::fmt;
use std::time::Duration;

use self::setting::{GivenSettings, SettingError, WrittenSettings};
pub use self::{
    answer::{AnswerEdit, AskedFor},
    call::{CallFault, Calls},
    connection::ConnectionFault,
    draw::{FaultLimits, FaultNames},
    effect::{InjectedEffect, InjectedEnd, NOTICED},
    event::{EventFault, Events},
    frame::{Breach, Carries, FrameFate, FrameFault, FrameWaits, Frames, InsteadOfFrame, OwnFrames},
    head_edit::{HeadChange, HeadEdit, Version},
    process::ProcessFault,
    scope_edit::{HeaderForm, ScopeEdit},
    stream::{Direction, StreamFault},
    trigger::Trigger,
};

/// Where a fault acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Between client and server: heads, frames, bytes.
    Edge,
    /// On the scope handed to the application.
    Scope,
    /// On what the application receives and sends.
    Event,
    /// On a call to something the application depends on.
    Dependency,
    /// On the server's process: how it is started, and with what.
    Process,
}

impl Place {
    /// Every place.
    pub const ALL: [Place; 5] = [Place::Edge, Place::Scope, Place::Event, Place::Dependency, Place::Process];

    /// The place's name, as cases write it.
    pub fn name(self) -> &'static str {
        match self {
            Place::Edge => "edge",
            Place::Scope => "scope",
            Place::Event => "event",
            Place::Dependency => "dependency",
            Place::Process => "process",
        }
    }
}

/// One kind of fault, as the catalogue lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name, as cases write it.
    pub name: &'static str,
    /// Where it acts.
    pub place: Place,
    /// Its effect.
    pub does: &'static str,
    /// The keys of its own settings.
    pub keys: &'static [&'static str],
    /// How often a hunt draws it beside the other kinds of its place.
    pub weight: u32,
}

/// Whether the ASGI specification allows what a fault does, and the sentence that says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Legality {
    /// Whether a server that keeps to the specification may do so. What it may not do is hostile.
    pub is_legal: bool,
    /// The sentence, with its section.
    pub sentence: &'static str,
}

impl Legality {
    /// Allowed.
    pub const fn legal(sentence: &'static str) -> Legality {
        Legality { is_legal: true, sentence }
    }

    /// Not allowed.
    pub const fn hostile(sentence: &'static str) -> Legality {
        Legality { is_legal: false, sentence }
    }
}

/// A fault's effect.
#[derive(Debug, Clone, PartialEq)]
pub enum FaultKind {
    /// To a request on its way.
    Head(HeadEdit),
    /// To an answer on its way.
    Answer(AnswerEdit),
    /// To a whole connection.
    Connection(ConnectionFault),
    /// To the bytes of a connection.
    Stream {
        /// Which way they go.
        direction: Direction,
        /// The effect on them.
        fault: StreamFault,
    },
    /// To the frames of a WebSocket.
    Frame {
        /// Which frames.
        frames: Frames,
        /// The effect on them.
        fault: FrameFault,
    },
    /// To the scope.
    Scope(ScopeEdit),
    /// To what the application receives and sends.
    Event {
        /// Which events.
        events: Events,
        /// The effect on them.
        fault: EventFault,
    },
    /// To a call of a dependency.
    Call {
        /// Which calls.
        calls: Calls,
        /// The effect on them.
        fault: CallFault,
    },
    /// To the process.
    Process(ProcessFault),
}

impl FaultKind {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = &'static Kind> {
        [
            HeadEdit::KINDS,
            AnswerEdit::KINDS,
            ConnectionFault::KINDS,
            StreamFault::KINDS,
            FrameFault::KINDS,
            ScopeEdit::KINDS,
            EventFault::KINDS,
            CallFault::KINDS,
            ProcessFault::KINDS,
        ]
        .into_iter()
        .flatten()
    }

    /// The keys that say what a kind acts on, beside those of its own settings.
    pub fn selecting_keys(kind: &str) -> &'static [&'static str] {
        const SELECTING: [(&[Kind], &[&str]); 4] = [
            (StreamFault::KINDS, &["direction"]),
            (FrameFault::KINDS, &Frames::KEYS),
            (EventFault::KINDS, &Events::KEYS),
            (CallFault::KINDS, &Calls::KEYS),
        ];
        let keys = SELECTING.iter().find(|(kinds, _)| kinds.iter().any(|known| known.name == kind));
        keys.map_or(&[], |(_, keys)| keys)
    }

    /// Reads a kind by its name; nothing when there is no such kind.
    ///
    /// # Errors
    /// When a setting is missing, or is not what it must be.
    pub fn read(kind: &str, settings: &mut GivenSettings) -> Result<Option<FaultKind>, SettingError> {
        if let Some(edit) = HeadEdit::read(kind, settings)? {
            return Ok(Some(FaultKind::Head(edit)));
        }
        if let Some(edit) = AnswerEdit::read(kind, settings)? {
            return Ok(Some(FaultKind::Answer(edit)));
        }
        if let Some(fault) = ConnectionFault::read(kind, settings)? {
            return Ok(Some(FaultKind::Connection(fault)));
        }
        if let Some(edit) = ScopeEdit::read(kind, settings)? {
            return Ok(Some(FaultKind::Scope(edit)));
        }
        if let Some(fault) = ProcessFault::read(kind, settings)? {
            return Ok(Some(FaultKind::Process(fault)));
        }
        if let Some(fault) = StreamFault::read(kind, settings)? {
            return Ok(Some(FaultKind::Stream { direction: settings.take("direction")?, fault }));
        }
        if let Some(fault) = FrameFault::read(kind, settings)? {
            return Ok(Some(FaultKind::Frame { frames: Frames::read(settings)?, fault }));
        }
        if let Some(fault) = EventFault::read(kind, settings)? {
            return Ok(Some(FaultKind::Event { events: Events::read(settings)?, fault }));
        }
        let Some(fault) = CallFault::read(kind, settings)? else { return Ok(None) };
        Ok(Some(FaultKind::Call { calls: Calls::read(settings)?, fault }))
    }

    /// Its settings, as [`FaultKind::read`] takes them.
    pub fn write(&self) -> WrittenSettings {
        let mut written = WrittenSettings::new();
        match self {
            FaultKind::Head(edit) => edit.write(&mut written),
            FaultKind::Answer(edit) => edit.write(&mut written),
            FaultKind::Connection(fault) => fault.write(&mut written),
            FaultKind::Stream { direction, fault } => {
                setting::put(&mut written, "direction", direction);
                fault.write(&mut written);
            }
            FaultKind::Frame { frames, fault } => {
                frames.write(&mut written);
                fault.write(&mut written);
            }
            FaultKind::Scope(edit) => edit.write(&mut written),
            FaultKind::Event { events, fault } => {
                events.write(&mut written);
                fault.write(&mut written);
            }
            FaultKind::Call { calls, fault } => {
                calls.write(&mut written);
                fault.write(&mut written);
            }
            FaultKind::Process(fault) => fault.write(&mut written),
        }
        written
    }

    /// The kind's name, as cases write it.
    pub fn name(&self) -> &'static str {
        match self {
            FaultKind::Head(edit) => edit.name(),
            FaultKind::Answer(edit) => edit.name(),
            FaultKind::Connection(fault) => fault.name(),
            FaultKind::Stream { fault, .. } => fault.name(),
            FaultKind::Frame { fault, .. } => fault.name(),
            FaultKind::Scope(edit) => edit.name(),
            FaultKind::Event { fault, .. } => fault.name(),
            FaultKind::Call { fault, .. } => fault.name(),
            FaultKind::Process(fault) => fault.name(),
        }
    }

    /// Where it acts.
    pub fn place(&self) -> Place {
        match self {
            FaultKind::Head(_)
            | FaultKind::Answer(_)
            | FaultKind::Connection(_)
            | FaultKind::Stream { .. }
            | FaultKind::Frame { .. } => Place::Edge,
            FaultKind::Scope(_) => Place::Scope,
            FaultKind::Event { .. } => Place::Event,
            FaultKind::Call { .. } => Place::Dependency,
            FaultKind::Process(_) => Place::Process,
        }
    }

    /// Whether only a process meets it that starts, or stops.
    pub fn acts_on_process(&self) -> bool {
        match self {
            FaultKind::Process(_) => true,
            FaultKind::Event { events, .. } => events.are_of_lifespan(),
            _ => false,
        }
    }

    /// The dependency calls it acts on, if any.
    pub fn calls(&self) -> Option<&Calls> {
        match self {
            FaultKind::Call { calls, .. } => Some(calls),
            _ => None,
        }
    }
}

/// One fault of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Its effect.
    pub kind: FaultKind,
    /// When.
    pub trigger: Trigger,
}

impl Fault {
    /// The same fault with every time multiplied.
    pub fn scaled(&self, factor: f64) -> Fault {
        let scaled = self.kind.write().into_iter().map(|(key, value)| {
            let value = match value {
                // Milliseconds, of which none is to become nothing.
                toml::Value::Integer(time) if key.ends_with("_ms") => {
                    toml::Value::Integer(((time as f64 * factor).round() as i64).max(1))
                }
                other => other,
            };
            (key.to_owned(), value)
        });
        let mut settings = GivenSettings(scaled.collect());
        // A time that is shortened is a time.
        let kind = FaultKind::read(self.kind.name(), &mut settings).ok().flatten();
        Fault { kind: kind.unwrap_or_else(|| self.kind.clone()), trigger: self.trigger.scaled(factor) }
    }
}

impl From<FaultKind> for Fault {
    /// The fault on every occasion.
    fn from(kind: FaultKind) -> Fault {
        Fault { kind, trigger: Trigger::default() }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultKind::Head(edit) => edit.fmt(f),
            FaultKind::Answer(edit) => edit.fmt(f),
            FaultKind::Connection(fault) => fault.fmt(f),
            FaultKind::Stream { direction: Direction::Both, fault } => fault.fmt(f),
            FaultKind::Stream { direction: Direction::ToServer, fault } => write!(f, "{fault}, to the server"),
            FaultKind::Stream { direction: Direction::ToClient, fault } => write!(f, "{fault}, to the client"),
            FaultKind::Frame { frames, fault } => write!(f, "{fault} a {frames}"),
            FaultKind::Scope(edit) => edit.fmt(f),
            FaultKind::Event { events, fault } => write!(f, "{fault} {events}"),
            // The message of a failing dependency stands beside the call itself.
            FaultKind::Call { calls, fault: CallFault::Fail { .. } } => write!(f, "{calls} fails"),
            FaultKind::Call { calls, fault } => write!(f, "{calls} {fault}"),
            FaultKind::Process(fault) => fault.fmt(f),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.place().name(), self.kind)?;
        let Trigger { nth, every, times, percent, step, .. } = self.trigger;
        if nth > 1 {
            write!(f, ", from occasion {nth} on")?;
        }
        if every > 1 {
            write!(f, ", on every {every}.")?;
        }
        if let Some(times) = times {
            write!(f, ", {times} time(s)")?;
        }
        if percent < 100 {
            write!(f, ", in {percent} % of them")?;
        }
        if let Some(step) = step {
            write!(f, ", during step {step}")?;
        }
        match (self.trigger.from, self.trigger.until) {
            (Duration::ZERO, None) => Ok(()),
            (Duration::ZERO, Some(until)) => write!(f, ", for {} s", until.as_secs_f64()),
            (from, None) => write!(f, ", from {} s on", from.as_secs_f64()),
            (from, Some(until)) => write!(f, ", from {} s until {} s", from.as_secs_f64(), until.as_secs_f64()),
        }
    }
}
