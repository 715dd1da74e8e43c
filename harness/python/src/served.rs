//! The user's Python ASGI application behind a real server, on real sockets.

use std::sync::Arc;
use std::time::Duration;

use crate::process::Server;
use relapse::targets::through_the_edge;
use relapse::{
    case::ServerArguments,
    service_file::{ServiceFile, Tokens},
    target::{Capabilities, ProcessControl, Renewal, Target},
};
use relapse_core::{
    client::{
        credential::{Credential, Form, Presented},
        signal::{ExitExpectation, Signal},
    },
    error::Error,
    fault::Place,
    record::{
        service::{Service, TargetKind},
        transcript::Leftovers,
    },
    wire::head_limit::HeadLimit,
};
use relapse_simulate::{
    application::BoxFuture,
    clock::Clock,
    link::{Link, Redial},
    recorder::{ExchangeRecorder, Recorder},
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
    pub fn new(server: Server, binding: &ServiceFile, valid: String) -> Served {
        let service = Service { kind: TargetKind::Served, ..binding.service() };
        Served { server: Arc::new(server), service, tokens: Tokens::of(binding, valid) }
    }

    /// The same behind a server with these limits on the heads of requests.
    pub fn limited(self, head_limits: Vec<HeadLimit>) -> Served {
        Served { service: Service { head_limits, ..self.service }, ..self }
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Makes another connection, for a man in the middle that asks once more.
    fn redial(&self, scribe: &ExchangeRecorder) -> Redial {
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

    fn clear(&self) -> BoxFuture<'_, Result<(), Error>> {
        // Events from now on belong to no exchange of before.
        self.server.forget();
        Box::pin(async { Ok(self.server.recover().await?) })
    }

    fn shut_down(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        Box::pin(async {
            let last = self.server.stop().await;
            let mut complaints = self.server.take_complaints();
            let new = last.filter(|last| !complaints.contains(last));
            complaints.extend(new);
            Ok(complaints)
        })
    }

    fn signal(&self, signal: Signal, step: usize, scribe: ExchangeRecorder) -> BoxFuture<'_, Result<(), Error>> {
        self.server.signal(signal, step, &scribe);
        Box::pin(async { Ok(()) })
    }

    fn await_exit(
        &self,
        expected: ExitExpectation,
        limit: Duration,
        scribe: ExchangeRecorder,
    ) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            self.server.await_exit(expected, limit, &scribe).await;
            Ok(())
        })
    }

    fn look_for_exit(&self, scribe: ExchangeRecorder) {
        self.server.look_for_exit(&scribe);
    }

    fn start_with<'a>(&'a self, arguments: &'a ServerArguments) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(self.server.start_with(&arguments.arguments).await?) })
    }

    fn connect(&self, scribe: ExchangeRecorder) -> BoxFuture<'_, Result<Option<Link>, Error>> {
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

    fn residue(&self) -> Option<Leftovers> {
        Some(Leftovers { connections: self.server.running(), sessions: 0 })
    }

    fn record_unretrieved(&self, _run: &Recorder) {
        self.server.record_unretrieved();
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            self.server.stop().await;
            Ok(())
        })
    }
}
