//! A hardship injected from outside while a case runs.

use std::fmt;
use std::time::Duration;

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
}

impl Place {
    /// Every place.
    pub const ALL: [Place; 3] = [Place::Edge, Place::Scope, Place::Dependency];

    /// The place's name, as cases write it.
    pub fn name(self) -> &'static str {
        match self {
            Place::Edge => "edge",
            Place::Scope => "scope",
            Place::Dependency => "dependency",
        }
    }
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq)]
pub enum FaultKind {
    /// The identity: the bytes pass as they are, on the same path as with any other edge fault.
    Pass,
    /// Removes every header with this name from the request head, as load balancers do.
    StripHeader {
        /// The header's name, in any case.
        header: String,
    },
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
        /// The dependency.
        dependency: String,
        /// The error's text, as the dependency's client library words it.
        error: String,
    },
    /// The call answers only after this delay.
    Delay {
        /// The dependency.
        dependency: String,
        /// The delay.
        delay: Duration,
    },
}

impl FaultKind {
    /// Every kind's name, with its place.
    pub const NAMES: [(&str, Place); 6] = [
        ("pass", Place::Edge),
        ("strip_header", Place::Edge),
        ("drop_key", Place::Scope),
        ("set_key", Place::Scope),
        ("fail", Place::Dependency),
        ("delay", Place::Dependency),
    ];

    /// The kind's name, as cases write it.
    pub fn name(&self) -> &'static str {
        match self {
            FaultKind::Pass => "pass",
            FaultKind::StripHeader { .. } => "strip_header",
            FaultKind::DropKey { .. } => "drop_key",
            FaultKind::SetKey { .. } => "set_key",
            FaultKind::Fail { .. } => "fail",
            FaultKind::Delay { .. } => "delay",
        }
    }

    /// The dependency it acts on, if any.
    pub fn dependency(&self) -> Option<&str> {
        match self {
            FaultKind::Fail { dependency, .. } | FaultKind::Delay { dependency, .. } => Some(dependency),
            FaultKind::Pass | FaultKind::StripHeader { .. } | FaultKind::DropKey { .. } | FaultKind::SetKey { .. } => {
                None
            }
        }
    }

    /// Where it acts.
    pub fn place(&self) -> Place {
        match self {
            FaultKind::Pass | FaultKind::StripHeader { .. } => Place::Edge,
            FaultKind::DropKey { .. } | FaultKind::SetKey { .. } => Place::Scope,
            FaultKind::Fail { .. } | FaultKind::Delay { .. } => Place::Dependency,
        }
    }
}

/// When a fault acts: from the `nth` occasion on, at most `times` times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trigger {
    /// The first occasion it acts on, counted from 1.
    pub nth: u32,
    /// How often it acts; `None` for every time.
    pub times: Option<u32>,
}

impl Default for Trigger {
    fn default() -> Self {
        Trigger { nth: 1, times: None }
    }
}

impl Trigger {
    /// Whether it acts on this occasion, counted from 1.
    pub fn acts_on(&self, occasion: u32) -> bool {
        occasion >= self.nth && self.times.is_none_or(|times| occasion - self.nth < times)
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
            FaultKind::StripHeader { header } => write!(f, "strip {header}"),
            FaultKind::DropKey { key } => write!(f, "drop scope[{key:?}]"),
            FaultKind::SetKey { key, value } => write!(f, "set scope[{key:?}] to {value}"),
            FaultKind::Fail { dependency, .. } => write!(f, "{dependency} fails"),
            FaultKind::Delay { dependency, delay } => write!(f, "{dependency} takes {} ms", delay.as_millis()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.place().name(), self.kind)
    }
}
