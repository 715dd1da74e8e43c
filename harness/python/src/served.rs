//! The user's Python ASGI application behind a real server, on real sockets.

use std::sync::Arc;
use std::time::Duration;

use crate::process::Server;
use relapse::targets::through_the_edge;
use relapse::{
    binding::{Binding, Tokens},
    case::ServerArguments,
    target::{Capabilities, ProcessControl, Renewal, Target},
};
use relapse_core::{
    client::{
        credential::{Credential, Form, Presented},
        signal::{ExitExpectation, Signal},
    },
    error::Error,
    fault::Place,
    record::transcript::{Residue, Service, TargetKind},
};
use relapse_simulate::{
    application::Promise,
    clock::Clock,
    link::{Link, Redial},
    recorder::Scribe,
};

/// A Python application behind a real server. The wire is seen, and by a witness also what server and application say to
/// one another.
#[derive(Debug)]
pub struct Served {
    server: Arc<Server>,
    service: Service,
    tokens: Tokens,
}

impl Served {
    /// The application of a server, spoken to as the service file says; it takes this token.
    pub fn new(server: Server, binding: &Binding, valid: String) -> Served {
        let service = Service { kind: TargetKind::Served, ..binding.service() };
        Served { server: Arc::new(server), service, tokens: Tokens::of(binding, valid) }
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Makes another connection, for a man in the middle that asks once more.
    fn redial(&self, scribe: &Scribe) -> Redial {
        let (server, scribe) = (Arc::clone(&self.server), scribe.clone());
        Box::new(move || {
            let (server, scribe) = (Arc::clone(&server), scribe.clone());
            Box::pin(async move { server.connect(&scribe).await.ok().flatten() })
        })
    }
}

impl Target for Served {
    fn kind(&self) -> TargetKind {
        TargetKind::Served
    }

    fn capabilities(&self) -> Capabilities {
        let places = &[Place::Edge];
        Capabilities { places, clock: Clock::Real, renewal: Renewal::None, process: ProcessControl::Held }
    }

    fn authority(&self) -> String {
        self.server.address().to_string()
    }

    fn clear(&self) -> Promise<'_, Result<(), Error>> {
        // Events from now on belong to no exchange of before.
        self.server.forget();
        Box::pin(async { Ok(self.server.recover().await?) })
    }

    fn shut_down(&self) -> Promise<'_, Result<Vec<String>, Error>> {
        Box::pin(async {
            let last = self.server.stop().await;
            let mut complaints = self.server.take_complaints();
            let new = last.filter(|last| !complaints.contains(last));
            complaints.extend(new);
            Ok(complaints)
        })
    }

    fn signal(&self, signal: Signal, step: usize, scribe: Scribe) -> Promise<'_, Result<(), Error>> {
        self.server.signal(signal, step, &scribe);
        Box::pin(async { Ok(()) })
    }

    fn await_exit(&self, expected: ExitExpectation, limit: Duration, scribe: Scribe) -> Promise<'_, Result<(), Error>> {
        Box::pin(async move {
            self.server.await_exit(expected, limit, &scribe).await;
            Ok(())
        })
    }

    fn look_for_exit(&self, scribe: Scribe) {
        self.server.look_for_exit(&scribe);
    }

    fn start_with<'a>(&'a self, arguments: &'a ServerArguments) -> Promise<'a, Result<(), Error>> {
        Box::pin(async { Ok(self.server.start_with(&arguments.arguments).await?) })
    }

    fn connect(&self, scribe: Scribe) -> Promise<'_, Result<Option<Link>, Error>> {
        Box::pin(async move {
            let link = self.server.connect(&scribe).await?;
            Ok(through_the_edge(link, scribe, |scribe| self.redial(scribe)))
        })
    }

    fn credential(&self, kind: Credential, user: &str, _form: Form) -> Presented {
        self.tokens.present(kind, user)
    }

    fn service(&self) -> Service {
        self.service.clone()
    }

    fn residue(&self) -> Option<Residue> {
        Some(Residue { connections: self.server.running(), sessions: 0 })
    }

    fn stop(&self) -> Promise<'_, Result<(), Error>> {
        Box::pin(async {
            self.server.stop().await;
            Ok(())
        })
    }
}
