//! Helpers: an application made of a function, and a target that serves it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use crate::tools::{at_a_time, relapse_command, signaled_command};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use relapse::{
    case::{Case, WORDS},
    discover::Catalogue,
    environment::Environment,
    run,
    target::{Capabilities, ProcessControl, Renewal, Target},
    trial::Trial,
};
use relapse_backend::{
    revision::Revision,
    runner::KNOWN,
    target::{Embedded, Transport},
};
use relapse_core::{
    asgi::{
        event::{Inbound, Outbound},
        exception::Exception,
        scope::Scope,
    },
    client::{
        credential::{Credential, Form, Presented},
        step::{Action, Awaited, Request, Step},
    },
    error::Error,
    fault::Fault,
    judge::check::{self, Check},
    plan::Plan,
    record::{
        service::{Service, TargetKind},
        transcript::{EventKind, Leftovers, Transcript},
    },
    wire::head::ResponseHead,
};
use relapse_simulate::{
    application::{Application, BoxFuture, Receive, SendEvent},
    clock::{Clock, Runtime},
    link::Link,
    profile::Profile,
    recorder::{self, ExchangeRecorder},
    server,
};

/// The profiles that have a place in the list, on which reviewed pages and pinned seeds rest. A new profile has none.
pub(crate) fn listed_servers() -> Vec<Arc<Profile>> {
    let mut servers = relapse::discover::servers().unwrap();
    servers.retain(|profile| profile.order.is_some());
    servers
}

/// The names of the server profiles.
pub(crate) fn server_names() -> Vec<String> {
    relapse::discover::servers().unwrap().iter().map(|profile| profile.name.clone()).collect()
}

/// Each case behind its first server, and behind those where it claims another symptom.
pub(crate) fn trials_that_differ(cases: &[Arc<Case>]) -> Vec<Trial> {
    let mut trials = Trial::of(cases, &relapse::discover::servers().unwrap(), None);
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    for Trial { case, profile, .. } in &trials {
        first.entry(case.name.clone()).or_insert_with(|| profile.name.clone());
    }
    trials.retain(|Trial { case, profile, .. }| {
        let first = &first[&case.name];
        profile.name == *first || case.symptom_behind(&profile.name) != case.symptom_behind(first)
    });
    trials
}

/// The checks of every service, and those of the built-in backend.
pub(crate) fn checks() -> impl Iterator<Item = &'static dyn Check> {
    check::ALL.iter().chain(relapse_backend::check::KNOWN).copied()
}

/// Their names.
pub(crate) fn check_names() -> impl Iterator<Item = &'static str> {
    checks().map(|check| check.name())
}

/// The names of the checks that a case or its claimed fix is found by, which `suites/mutations.rs` sees fail.
pub(crate) fn checks_of_cases() -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
    let cases = Catalogue::read(&directory, KNOWN).unwrap().cases;
    let found_by = cases.iter().flat_map(|case| {
        let symptoms = case.symptom.iter().chain(case.symptom_on.values()).flat_map(|symptom| &symptom.found_by);
        symptoms.chain(case.shams.iter().flat_map(|sham| &sham.found_by))
    });
    found_by.cloned().collect()
}

/// The two ends an application holds.
pub(crate) struct Ends {
    receive: Box<dyn Receive>,
    send: Box<dyn SendEvent>,
}

impl Ends {
    pub(crate) async fn receive(&mut self) -> Result<Inbound, Exception> {
        self.receive.receive().await
    }

    pub(crate) async fn send(&mut self, event: Outbound) -> Result<(), Exception> {
        self.send.send(event).await
    }
}

type Body = Box<dyn Fn(Scope, Ends) -> BoxFuture<'static, Result<(), Exception>> + Send + Sync>;

/// An application made of a function.
pub(crate) struct Scripted(Body);

impl Scripted {
    pub(crate) fn new<F, R>(body: F) -> Arc<Scripted>
    where
        F: Fn(Scope, Ends) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Exception>> + Send + 'static,
    {
        Arc::new(Scripted(Box::new(move |scope, ends| Box::pin(body(scope, ends)))))
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl Application for Scripted {
    fn call(
        self: Arc<Self>,
        scope: Scope,
        receive: Box<dyn Receive>,
        send: Box<dyn SendEvent>,
    ) -> BoxFuture<'static, Result<(), Exception>> {
        (self.0)(scope, Ends { receive, send })
    }
}

type Connect = Box<dyn Fn(ExchangeRecorder) -> BoxFuture<'static, Result<Link, Error>> + Send + Sync>;

/// A target that is reached by a function, and knows no credentials.
pub(crate) struct Reached {
    connect: Connect,
    clock: Clock,
}

impl Reached {
    pub(crate) fn new(
        connect: impl Fn(ExchangeRecorder) -> BoxFuture<'static, Result<Link, Error>> + Send + Sync + 'static,
    ) -> Reached {
        Reached { connect: Box::new(connect), clock: Clock::Virtual }
    }

    /// An app behind a server.
    pub(crate) fn of(application: &Arc<dyn Application>, profile: &Arc<Profile>) -> Reached {
        let (application, profile) = (Arc::clone(application), Arc::clone(profile));
        Reached::new(move |scribe| {
            let (client, server) = Link::pair();
            tokio::spawn(server::serve(server, Arc::clone(&application), Arc::clone(&profile), scribe, None));
            Box::pin(async { Ok(client) })
        })
    }

    /// The same, as a target whose time is said to be real.
    pub(crate) fn in_real_time(self) -> Reached {
        Reached { clock: Clock::Real, ..self }
    }
}

impl fmt::Debug for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reached")
    }
}

impl Target for Reached {
    fn kind(&self) -> TargetKind {
        TargetKind::Backend
    }

    fn capabilities(&self) -> Capabilities {
        let places = &relapse_core::fault::Place::ALL;
        Capabilities { places, clock: self.clock, renewal: Renewal::None, process: ProcessControl::None }
    }

    fn connect(&self, scribe: ExchangeRecorder) -> BoxFuture<'_, Result<Option<Link>, Error>> {
        let connecting = (self.connect)(scribe);
        Box::pin(async move { connecting.await.map(Some) })
    }

    fn restart(&self, _scribe: ExchangeRecorder) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    fn credential(&self, kind: Credential, user: &str, _form: Form) -> Presented {
        Presented { kind, text: String::new(), subject: user.to_owned() }
    }

    fn service(&self) -> Service {
        Service { words: WORDS.clone(), ..Service::default() }
    }

    fn residue(&self) -> Option<Leftovers> {
        None
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

/// The transcript of a client with these steps on an application behind a server.
pub(crate) fn converse(application: Arc<dyn Application>, profile: &Arc<Profile>, steps: &[Step]) -> Transcript {
    Runtime::new(Clock::Virtual)
        .block_on(async { run::converse(steps, Plan::default(), &Reached::of(&application, profile)).await.unwrap() })
}

/// How properties are tried: always with the same cases, so that one tree passes or fails once and for all.
/// `PROPTEST_RNG_SEED` and `PROPTEST_CASES` try others, and more.
pub(crate) fn property_config() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match config.rng_seed {
        RngSeed::Random => ProptestConfig { rng_seed: RngSeed::Fixed(1), ..config },
        RngSeed::Fixed(_) => config,
    }
}

/// The server profile with this name.
pub(crate) fn profile(name: &str) -> Arc<Profile> {
    relapse::discover::servers().unwrap().into_iter().find(|profile| profile.name == name).unwrap()
}

/// Compares a page with its snapshot in `snapshots/rendering/`, without color.
pub(crate) fn check_page(name: &str, text: &str) {
    check_snapshot("rendering", name, &anstream::adapter::strip_str(text).to_string());
}

/// Compares a text with its snapshot in a directory of `snapshots/`.
pub(crate) fn check_snapshot(directory: &str, name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(format!("../snapshots/{directory}"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// The transcript of a client with these steps on the built-in backend, under these faults.
pub(crate) fn on_backend(
    revision: Revision,
    environment: Environment,
    server: &str,
    faults: Vec<Fault>,
    steps: &[Step],
) -> Transcript {
    Runtime::new(Clock::Virtual).block_on(async {
        let _logs = recorder::capture_logs();
        let target = Embedded::launch(revision, environment, profile(server), Transport::Memory, 1);
        let transcript = run::converse(steps, Plan { seed: 1, faults }, &target).await.unwrap();
        target.stop().await.unwrap();
        transcript
    })
}

/// A step with a limit that no passing test here reaches.
pub(crate) fn step(act: Action) -> Step {
    Step::new(act, Duration::from_secs(10))
}

/// An upgrade on `/ws` with a valid credential.
pub(crate) fn open() -> Step {
    step(Action::Open(Request::standard("GET", "/ws")))
}

/// Waiting for a message of this type.
pub(crate) fn wait(name: &str) -> Step {
    step(Action::Wait(Awaited::Message(name.to_owned())))
}

/// The head and the body of the answer to a plain request.
pub(crate) fn answer(transcript: &Transcript, exchange: usize) -> (ResponseHead, serde_json::Value) {
    let mut found = (None, serde_json::Value::Null);
    for event in transcript.of(exchange) {
        match &event.what {
            EventKind::ResponseSeen(head) => found.0 = Some(head.clone()),
            EventKind::BodySeen { body, .. } => found.1 = serde_json::from_slice(body).unwrap_or_default(),
            _ => {}
        }
    }
    (found.0.expect("an answer"), found.1)
}
