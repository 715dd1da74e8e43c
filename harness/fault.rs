//! A hardship injected from outside while a case runs.

mod head_edit;

use std::fmt;
use std::time::Duration;

pub use self::head_edit::HeadEdit;
use crate::value::Value;

/// Where a fault acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// Between client and server: heads, frames, bytes.
    Edge,
    /// On the scope handed to the application.
    Scope,
    /// On a call to something the application depends on.
    Dependency,
    /// On the server's process: how it is started, and with what.
    Process,
}

impl Place {
    /// Every place.
    pub const ALL: [Place; 4] = [Place::Edge, Place::Scope, Place::Dependency, Place::Process];

    /// The place's name, as cases write it.
    pub fn name(self) -> &'static str {
        match self {
            Place::Edge => "edge",
            Place::Scope => "scope",
            Place::Dependency => "dependency",
            Place::Process => "process",
        }
    }
}

/// Which calls of the application a dependency fault acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls {
    /// The dependency.
    pub dependency: String,
    /// The operation; `None` for every one.
    pub operation: Option<String>,
}

impl Calls {
    /// Whether a call is meant.
    pub fn include(&self, dependency: &str, operation: &str) -> bool {
        self.dependency == dependency && self.operation.as_ref().is_none_or(|meant| meant == operation)
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.operation {
            None => f.write_str(&self.dependency),
            Some(operation) => write!(f, "{}.{operation}", self.dependency),
        }
    }
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq)]
pub enum FaultKind {
    /// The identity: the bytes pass as they are, on the same path as with any other edge fault.
    Pass,
    /// Changes the request head on its way.
    Head(HeadEdit),
    /// Removes a key from the scope.
    DropKey {
        /// The key.
        key: String,
    },
    /// Puts a key into the scope, or another value under it.
    SetKey {
        /// The key.
        key: String,
        /// The value.
        value: Value,
    },
    /// The call fails with this error.
    Fail {
        /// Which calls.
        calls: Calls,
        /// The error's text, as the dependency's client library words it.
        error: String,
    },
    /// The call answers only after this delay.
    Delay {
        /// Which calls.
        calls: Calls,
        /// The delay.
        delay: Duration,
    },
    /// The call never answers; whoever waits has to give up.
    Hang {
        /// Which calls.
        calls: Calls,
    },
    /// The process is started anew as the case begins.
    Restart,
    /// The process is gone as the case begins, and is started anew when the fault is over.
    Absent,
    /// The process is started anew, and a module cannot be imported until the fault is over.
    MissingModule {
        /// The module's name.
        module: String,
    },
    /// The process is started anew with another value of an environment variable, or without it.
    Variable {
        /// The variable's name.
        name: String,
        /// Its value; `None` when it is not set.
        value: Option<String>,
    },
}

impl FaultKind {
    /// Every kind's name, with its place.
    pub const NAMES: [(&str, Place); 19] = [
        ("pass", Place::Edge),
        ("strip_header", Place::Edge),
        ("rename_header", Place::Edge),
        ("duplicate_header", Place::Edge),
        ("capitalize_header", Place::Edge),
        ("set_header", Place::Edge),
        ("set_query", Place::Edge),
        ("set_path", Place::Edge),
        ("set_method", Place::Edge),
        ("drop_key", Place::Scope),
        ("set_key", Place::Scope),
        ("fail", Place::Dependency),
        ("delay", Place::Dependency),
        ("hang", Place::Dependency),
        ("restart", Place::Process),
        ("absent", Place::Process),
        ("missing_module", Place::Process),
        ("set_variable", Place::Process),
        ("unset_variable", Place::Process),
    ];

    /// The kind's name, as cases write it.
    pub fn name(&self) -> &'static str {
        match self {
            FaultKind::Pass => "pass",
            FaultKind::Head(edit) => edit.name(),
            FaultKind::DropKey { .. } => "drop_key",
            FaultKind::SetKey { .. } => "set_key",
            FaultKind::Fail { .. } => "fail",
            FaultKind::Delay { .. } => "delay",
            FaultKind::Hang { .. } => "hang",
            FaultKind::Restart => "restart",
            FaultKind::Absent => "absent",
            FaultKind::MissingModule { .. } => "missing_module",
            FaultKind::Variable { value: Some(_), .. } => "set_variable",
            FaultKind::Variable { value: None, .. } => "unset_variable",
        }
    }

    /// The dependency calls it acts on, if any.
    pub fn calls(&self) -> Option<&Calls> {
        match self {
            FaultKind::Fail { calls, .. } | FaultKind::Delay { calls, .. } | FaultKind::Hang { calls } => Some(calls),
            _ => None,
        }
    }

    /// Where it acts.
    pub fn place(&self) -> Place {
        let name = self.name();
        FaultKind::NAMES.iter().find(|(known, _)| *known == name).map_or(Place::Process, |(_, place)| *place)
    }
}

/// When a fault acts: on the `nth` occasion and every `every`th one from there, at most `times` times, from a moment of
/// the run until another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trigger {
    /// The first occasion it acts on, counted from 1.
    pub nth: u32,
    /// The distance to the next occasion; 2 makes a dependency flap.
    pub every: u32,
    /// How often it acts; `None` for every time.
    pub times: Option<u32>,
    /// The moment it begins, since the run began.
    pub from: Duration,
    /// The moment it is over; `None` for never.
    pub until: Option<Duration>,
}

impl Default for Trigger {
    fn default() -> Self {
        Trigger { nth: 1, every: 1, times: None, from: Duration::ZERO, until: None }
    }
}

impl Trigger {
    /// Whether it acts on this occasion, counted from 1.
    pub fn acts_on(&self, occasion: u32) -> bool {
        let Some(since) = occasion.checked_sub(self.nth) else { return false };
        since % self.every == 0 && self.times.is_none_or(|times| since / self.every < times)
    }

    /// Whether a moment of the run lies between its beginning and its end.
    pub fn is_armed_at(&self, at: Duration) -> bool {
        at >= self.from && self.until.is_none_or(|until| at < until)
    }

    /// Whether it acts on every occasion while it is armed.
    pub fn is_steady(&self) -> bool {
        self.nth == 1 && self.every == 1 && self.times.is_none()
    }
}

/// One fault of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What it does.
    pub kind: FaultKind,
    /// When.
    pub trigger: Trigger,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultKind::Pass => f.write_str("pass everything on"),
            FaultKind::Head(edit) => edit.fmt(f),
            FaultKind::DropKey { key } => write!(f, "drop scope[{key:?}]"),
            FaultKind::SetKey { key, value } => write!(f, "set scope[{key:?}] to {value}"),
            FaultKind::Fail { calls, .. } => write!(f, "{calls} fails"),
            FaultKind::Delay { calls, delay } => write!(f, "{calls} takes {} ms", delay.as_millis()),
            FaultKind::Hang { calls } => write!(f, "{calls} never answers"),
            FaultKind::Restart => f.write_str("the process is started anew"),
            FaultKind::Absent => f.write_str("no process is there"),
            FaultKind::MissingModule { module } => write!(f, "the module {module} cannot be imported"),
            FaultKind::Variable { name, value: Some(value) } => write!(f, "{name} is {value:?}"),
            FaultKind::Variable { name, value: None } => write!(f, "{name} is not set"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.place().name(), self.kind)?;
        let seconds = |at: Duration| at.as_secs_f64();
        match (self.trigger.from, self.trigger.until) {
            (Duration::ZERO, None) => Ok(()),
            (Duration::ZERO, Some(until)) => write!(f, ", for {} s", seconds(until)),
            (from, None) => write!(f, ", from {} s on", seconds(from)),
            (from, Some(until)) => write!(f, ", from {} s until {} s", seconds(from), seconds(until)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::Trigger;

    #[rstest]
    #[case::always(Trigger::default(), &[1, 2, 3, 4, 5])]
    #[case::later(Trigger { nth: 3, ..Trigger::default() }, &[3, 4, 5])]
    #[case::once(Trigger { nth: 2, times: Some(1), ..Trigger::default() }, &[2])]
    #[case::flapping(Trigger { every: 2, ..Trigger::default() }, &[1, 3, 5])]
    #[case::flapping_twice(Trigger { nth: 2, every: 2, times: Some(1), ..Trigger::default() }, &[2])]
    fn a_trigger_counts_occasions(#[case] trigger: Trigger, #[case] expected: &[u32]) {
        let acts: Vec<u32> = (1..=5).filter(|&occasion| trigger.acts_on(occasion)).collect();
        assert_eq!(acts, expected);
    }

    #[test]
    fn a_trigger_has_a_beginning_and_an_end() {
        let seconds = Duration::from_secs;
        let trigger = Trigger { from: seconds(2), until: Some(seconds(4)), ..Trigger::default() };
        let armed: Vec<u64> = (0..6).filter(|&at| trigger.is_armed_at(seconds(at))).collect();
        assert_eq!(armed, [2, 3]);
    }
}
