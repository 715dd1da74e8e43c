//! What an application depends on, behind one interface, so that faults can act on every call.

use std::fmt;

use tokio::time::sleep;

use crate::{
    application::Promise,
    fault::FaultKind,
    recorder::Scribe,
    transcript::{Party, What},
};

/// Something the service depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependency {
    /// The component that runs agents.
    AgentSupervisor,
}

impl Dependency {
    /// Every name that cases may use.
    pub const NAMES: &[&str] = &["agent_supervisor"];

    /// The dependency's name.
    pub fn name(self) -> &'static str {
        match self {
            Dependency::AgentSupervisor => "agent_supervisor",
        }
    }
}

/// A call to a dependency failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependencyError {
    /// Which dependency.
    pub dependency: Dependency,
    /// What its client library says.
    pub message: String,
}

impl fmt::Display for DependencyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The dependencies of an application.
pub trait Dependencies: Send + Sync + fmt::Debug + 'static {
    /// Makes one call on behalf of the exchange that is being served.
    fn call(&self, dependency: Dependency) -> Promise<'_, Result<(), DependencyError>>;
}

/// Dependencies that answer at once, and on which the plan's faults act under the virtual clock.
#[derive(Debug, Clone, Copy)]
pub struct InMemory;

impl Dependencies for InMemory {
    fn call(&self, dependency: Dependency) -> Promise<'_, Result<(), DependencyError>> {
        Box::pin(async move {
            let Some(scribe) = Scribe::current() else { return Ok(()) };
            let mut result = Ok(());
            for (index, fault) in scribe.plan().faults.iter().enumerate() {
                let meant = fault.kind.dependency() == Some(dependency.name());
                if !meant || result.is_err() || !scribe.meets(index) {
                    continue;
                }
                scribe.fired(index, Party::Dependency, fault.kind.to_string());
                match &fault.kind {
                    FaultKind::Delay { delay, .. } => sleep(*delay).await,
                    FaultKind::Fail { error, .. } => {
                        result = Err(DependencyError { dependency, message: error.clone() });
                    }
                    FaultKind::Pass
                    | FaultKind::StripHeader { .. }
                    | FaultKind::DropKey { .. }
                    | FaultKind::SetKey { .. } => {}
                }
            }
            let error = result.as_ref().err().map(ToString::to_string);
            scribe.record(Party::Dependency, What::DependencyCalled { dependency: dependency.name(), error });
            result
        })
    }
}
