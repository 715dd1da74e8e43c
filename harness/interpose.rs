//! Lets the plan's scope faults act between a server and its application.

use std::sync::Arc;

use crate::{
    application::{Application, Promise, Receive, SendEvent},
    exception::Exception,
    fault::FaultKind,
    recorder::Scribe,
    scope::Scope,
    transcript::Party,
};

/// An application behind scope faults.
#[derive(Debug)]
pub struct Interposed {
    application: Arc<dyn Application>,
    scribe: Scribe,
}

impl Interposed {
    /// Puts the faults of the scribe's plan in front of an application.
    pub fn new(application: Arc<dyn Application>, scribe: Scribe) -> Arc<Interposed> {
        Arc::new(Interposed { application, scribe })
    }
}

impl Application for Interposed {
    fn call(
        self: Arc<Self>,
        mut scope: Scope,
        receive: Box<dyn Receive>,
        send: Box<dyn SendEvent>,
    ) -> Promise<'static, Result<(), Exception>> {
        for (index, fault) in self.scribe.plan().faults.iter().enumerate() {
            let meets = match &fault.kind {
                FaultKind::DropKey { key } => scope.0.contains_key(key.as_str()) && self.scribe.meets(index),
                FaultKind::SetKey { .. } => self.scribe.meets(index),
                _ => false,
            };
            if !meets {
                continue;
            }
            match &fault.kind {
                FaultKind::DropKey { key } => drop(scope.0.remove(key.as_str())),
                FaultKind::SetKey { key, value } => drop(scope.0.insert(key.clone().into(), value.clone())),
                _ => {}
            }
            self.scribe.fired(index, Party::Front, fault.kind.to_string());
        }
        Arc::clone(&self.application).call(scope, receive, send)
    }
}
