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
            if let FaultKind::DropKey { key } = &fault.kind
                && scope.0.contains_key(key.as_str())
                && self.scribe.meets(index)
            {
                scope.0.remove(key.as_str());
                self.scribe.fired(index, Party::Front, fault.kind.to_string());
            }
        }
        Arc::clone(&self.application).call(scope, receive, send)
    }
}
