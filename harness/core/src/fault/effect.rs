//! The changes that a fault itself makes for client and app, so that the service is not blamed for them.

use std::time::Duration;

use super::{FaultKind, setting::Time};

/// The change that a fault between client and app makes to the things that either of them sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectedEffect {
    /// No change that either of them can notice, or only another request, which is judged as it arrives.
    None,
    /// Things come so much later that one of them may have stopped waiting.
    Slows,
    /// Something is missing, changed or added.
    Distorts,
}

/// The delay from which on one of the two sides may have stopped waiting.
pub const NOTICED: Duration = Duration::from_millis(500);

impl InjectedEffect {
    /// The effect of a delay.
    pub(super) fn of_delay(delay: &Time) -> InjectedEffect {
        if delay.0 >= NOTICED { InjectedEffect::Slows } else { InjectedEffect::None }
    }
}

/// The end that a fault itself makes of an exchange, as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectedEnd {
    /// None: it only changes what one side sees, so that the other side ends the exchange.
    None,
    /// A connection that is cut off.
    Cut,
    /// An answer with this status in the server's place.
    Answer(usize),
    /// A close with this code in the server's place.
    Close(usize),
}

impl FaultKind {
    /// The change that it makes.
    pub fn effect(&self) -> InjectedEffect {
        match self {
            FaultKind::Answer(_) | FaultKind::Connection(_) => InjectedEffect::Distorts,
            FaultKind::Head(edit) => edit.change().effect(),
            FaultKind::Stream { fault, .. } => fault.effect(),
            FaultKind::Frame { fault, .. } => fault.effect(),
            FaultKind::Event { fault, .. } => fault.effect(),
            FaultKind::Scope(_) | FaultKind::Call { .. } | FaultKind::Process(_) => InjectedEffect::None,
        }
    }

    /// The end that it makes of an exchange.
    pub fn end(&self) -> InjectedEnd {
        match self {
            FaultKind::Answer(edit) => edit.end(),
            FaultKind::Connection(fault) => fault.end(),
            FaultKind::Stream { fault, .. } => fault.end(),
            FaultKind::Frame { fault, .. } => fault.end(),
            FaultKind::Head(_)
            | FaultKind::Scope(_)
            | FaultKind::Event { .. }
            | FaultKind::Call { .. }
            | FaultKind::Process(_) => InjectedEnd::None,
        }
    }

    /// Whether it carries anything later, however little.
    pub fn takes_time(&self) -> bool {
        match self {
            FaultKind::Stream { fault, .. } => fault.takes_time(),
            FaultKind::Event { fault, .. } => fault.delays_send(),
            FaultKind::Frame { .. }
            | FaultKind::Head(_)
            | FaultKind::Answer(_)
            | FaultKind::Connection(_)
            | FaultKind::Scope(_)
            | FaultKind::Call { .. }
            | FaultKind::Process(_) => false,
        }
    }

    /// Whether it keeps the app from ever learning that its client is gone, or from learning it within this time.
    pub fn holds_end_back(&self, patience: Duration) -> bool {
        match self {
            FaultKind::Event { events, fault } => fault.holds_end_back(events, patience),
            FaultKind::Stream { direction, fault } => fault.holds_end_back(*direction),
            FaultKind::Head(_)
            | FaultKind::Answer(_)
            | FaultKind::Connection(_)
            | FaultKind::Frame { .. }
            | FaultKind::Scope(_)
            | FaultKind::Call { .. }
            | FaultKind::Process(_) => false,
        }
    }
}
