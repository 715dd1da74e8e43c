//! The reference app in Python as software of the built-in target: process after process in one interpreter, whose dependencies
//! are ours.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use relapse::environment::Environment;
use relapse_backend::{
    backend::{Backend, BackendSettings, PORT, Variables},
    defect::Defect,
    dependency::{Dependencies as _, Dependency, InMemory},
    revision::Revision,
    target::{SECRET, ServiceCode, ServiceProgram},
};
use relapse_core::{
    asgi::{
        event::{Inbound, Outbound},
        exception::Exception,
        scope::Scope,
        value::Value,
    },
    client::credential::{Credential, Form, Presented},
    fault::{FaultKind, Place, ProcessFault},
    record::{service::Service, transcript::Actor},
};
use relapse_python::process::{Interpreter, PythonApplication, Requirements, Site as PythonSite, keep_time};
use relapse_simulate::{
    application::{Application, BoxFuture, Receive, SendEvent},
    clock::{Clock, Runtime},
    memory::RunMemory,
    recorder::{self, ExchangeRecorder},
};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// The service's wall clock at the start of a process, as the built-in backend has it.
pub(crate) const EPOCH: &str = "1767225600";

/// How long a ticket is good, in seconds; one that has expired did so a second ago.
const TICKET_S: i64 = 300;

/// The two faces of the reference app.
pub(crate) const FACES: [&str; 2] = ["starlette", "fastapi"];

/// An interpreter with the reference app in it, and the clock that both keep. Once started it serves any number of runs.
pub(crate) struct Stage {
    runtime: Runtime,
    interpreter: Arc<Interpreter>,
}

impl Stage {
    /// Starts an interpreter. It goes when this process goes.
    pub(crate) fn start(python: &Path) -> Stage {
        let environment = vec![("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned())];
        let site = PythonSite { environment, ..crate::python::site(python, &crate::python::apps(), "twin.stage:app") };
        let runtime = Runtime::new(Clock::Virtual);
        let interpreter = runtime.block_on(async {
            let (interpreter, _) = Interpreter::start(&site, 1, RunMemory::default()).unwrap();
            let interpreter = Arc::new(interpreter);
            tokio::spawn(keep_time(Arc::clone(&interpreter)));
            interpreter
        });
        Stage { runtime, interpreter }
    }

    /// Does something on a stage that is free: one that was used before, or another.
    pub(crate) fn with<T>(python: &Path, act: impl FnOnce(&Stage) -> T) -> T {
        static FREE: Mutex<Vec<Stage>> = Mutex::new(Vec::new());
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let stage = free.unwrap_or_else(|| Stage::start(python));
        let _logs = recorder::capture_logs();
        let done = act(&stage);
        // A test that panics leaves its stage behind; it is not used again.
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(stage);
        done
    }

    /// Runs a future on the clock of this stage.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// The reference app with one of its faces, at a revision.
    pub(crate) fn twin(&self, face: &'static str, revision: Revision) -> Arc<Twin> {
        Arc::new(Twin { interpreter: Arc::clone(&self.interpreter), face, revision })
    }
}

/// The interpreter that has what the reference app needs.
pub(crate) fn python() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| interpreter_with("fixtures/requirements/twin.txt"))
}

/// Makes every environment there is before the first is used: a test in real time is not to share the
/// machine with pip. What cannot be made is told where it is wanted.
pub(crate) fn install_all(python: &Path) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/requirements");
        let files = [root.join("twin"), root].into_iter().flat_map(|directory| std::fs::read_dir(directory).unwrap());
        let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
        files.sort();
        for file in files {
            let requirements = Requirements::of(&file.display().to_string(), Path::new("/")).unwrap();
            let _ = requirements.install(python, &|_| {});
        }
    });
}

/// An interpreter that has what a requirements file names.
pub(crate) fn interpreter_with(requirements: &str) -> PathBuf {
    let python = crate::python::python();
    install_all(&python);
    let requirements = Requirements::of(requirements, Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    #[expect(clippy::print_stderr, reason = "what takes long is told loudly")]
    let tell = |text: &str| eprintln!("{text}");
    crate::served::installed(requirements.install(&python, &tell))
}

/// The reference app's code, with one of its faces, at a revision.
#[derive(Debug)]
pub(crate) struct Twin {
    interpreter: Arc<Interpreter>,
    face: &'static str,
    revision: Revision,
}

impl Twin {
    /// A process, and what it hid from its import.
    fn process(
        &self,
        mut variables: Variables,
        seed: u64,
        scribe: Option<&ExchangeRecorder>,
    ) -> (Result<Arc<dyn ServiceProgram>, Exception>, usize) {
        static NEXT: AtomicI64 = AtomicI64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let settings = Arc::new(BackendSettings::read(&variables, SECRET));
        let issuer = Backend::started(Revision::repaired(), settings, Arc::new(InMemory), seed);
        let defects: Vec<&str> =
            Defect::ALL.iter().filter(|&&defect| self.revision.has(defect)).map(|defect| defect.name()).collect();
        for (name, value) in [("DEFECTS", defects.join(",").as_str()), ("EPOCH", EPOCH), ("MANAGED_JWT_SECRET", SECRET)]
        {
            variables.insert(name.to_owned(), value.to_owned());
        }
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let hidden = scribe.map(hidden).unwrap_or_default();
        let hides = hidden.iter().map(|(name, until)| (name.clone().into(), Value::Float(*until))).collect();
        let order = [
            ("face", self.face.into()),
            ("variables", Value::Dict(variables)),
            ("seed", Value::Int((seed & 0x7FFF_FFFF) as i64)),
            ("is_up", Value::Bool(scribe.is_none())),
            ("hidden", Value::Dict(hides)),
        ];
        let (started, said) = order_at_once(&self.interpreter, "start", number, order);
        let program = started.map(|()| {
            let interpreter = Arc::clone(&self.interpreter);
            let exchanges = Arc::new(Exchanges::default());
            let calls = tokio::spawn(depend(Arc::clone(&interpreter), number, Arc::clone(&exchanges)));
            let scribe = scribe.cloned();
            let calls = calls.abort_handle();
            Arc::new(Process { interpreter, number, issuer, exchanges, scribe, calls }) as Arc<dyn ServiceProgram>
        });
        (program, said.len())
    }
}

/// The modules that the plan hides, and until when.
fn hidden(scribe: &ExchangeRecorder) -> Vec<(String, f64)> {
    let missing = scribe.plan().faults.iter().filter_map(|fault| match &fault.kind {
        FaultKind::Process(ProcessFault::MissingModule { module }) => {
            Some((module.clone(), fault.trigger.until.map_or(1e9, |until| until.as_secs_f64())))
        }
        _ => None,
    });
    missing.collect()
}

impl ServiceCode for Twin {
    fn started(&self, environment: Environment, seed: u64) -> Arc<dyn ServiceProgram> {
        self.process(Backend::variables(environment, SECRET), seed, None).0.unwrap()
    }

    fn import(
        &self,
        variables: &Variables,
        seed: u64,
        scribe: &ExchangeRecorder,
    ) -> Result<Arc<dyn ServiceProgram>, Exception> {
        let (program, refused) = self.process(variables.clone(), seed, Some(scribe));
        for (index, fault) in scribe.plan().faults.iter().enumerate() {
            if refused > 0 && matches!(fault.kind, FaultKind::Process(ProcessFault::MissingModule { .. })) {
                scribe.fired(index, Actor::Process, fault.kind.to_string());
            }
        }
        program
    }
}

/// The exchanges for which dependencies may fail.
#[derive(Debug, Default)]
struct Exchanges(Mutex<Vec<ExchangeRecorder>>);

impl Exchanges {
    /// The number of an exchange; `None` where nothing fails.
    fn add(&self, scribe: Option<ExchangeRecorder>) -> Value {
        let Some(scribe) = scribe.filter(|scribe| scribe.has_faults_at(Place::Dependency)) else { return Value::None };
        let mut exchanges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        exchanges.push(scribe);
        Value::Int(exchanges.len() as i64 - 1)
    }

    fn get(&self, number: i64) -> ExchangeRecorder {
        let exchanges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        exchanges[usize::try_from(number).unwrap()].clone()
    }
}

/// One process of the reference app.
#[derive(Debug)]
struct Process {
    interpreter: Arc<Interpreter>,
    number: i64,
    /// Signs and describes as the built-in backend does.
    issuer: Arc<Backend>,
    exchanges: Arc<Exchanges>,
    /// Of the caller that started it.
    scribe: Option<ExchangeRecorder>,
    calls: AbortHandle,
}

impl Application for Process {
    fn call(
        self: Arc<Self>,
        mut scope: Scope,
        receive: Box<dyn Receive>,
        send: Box<dyn SendEvent>,
    ) -> BoxFuture<'static, Result<(), Exception>> {
        Box::pin(async move {
            let exchange = self.exchanges.add(ExchangeRecorder::current());
            let order = order("serve", self.number, [("exchange", exchange)]);
            scope.0.insert("stage".into(), order);
            PythonApplication::new(Arc::clone(&self.interpreter)).call(scope, receive, send).await
        })
    }
}

impl ServiceProgram for Process {
    fn start_up(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let exchange = self.exchanges.add(self.scribe.clone());
            let scope = stage_scope("begin", self.number, [("exchange", exchange)]);
            let application = PythonApplication::new(Arc::clone(&self.interpreter));
            let _ = application.call(scope, Box::new(Nothing), Box::new(Said::default())).await;
        })
    }

    fn credential(&self, kind: Credential, user: &str, form: Form) -> Presented {
        let presented = self.issuer.credential(kind, user, form);
        let ttl_s = match kind {
            Credential::Valid => TICKET_S,
            _ => -1,
        };
        if form == Form::Ticket && matches!(kind, Credential::Valid | Credential::Expired) {
            let ticket =
                [("id", presented.text.clone().into()), ("user", user.to_owned().into()), ("ttl_s", Value::Int(ttl_s))];
            order_at_once(&self.interpreter, "ticket", self.number, ticket).0.unwrap();
        }
        presented
    }

    fn service(&self) -> Service {
        self.issuer.service()
    }

    fn sessions(&self) -> usize {
        let (counted, said) = order_at_once(&self.interpreter, "count", self.number, []);
        counted.unwrap();
        match said.first().and_then(|said| said.get("count")) {
            Some(Value::Int(count)) => usize::try_from(*count).unwrap(),
            other => panic!("the reference app counts {other:?} sessions"),
        }
    }

    fn port(&self) -> u16 {
        PORT
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.calls.abort();
        let _ = order_at_once(&self.interpreter, "stop", self.number, []);
    }
}

fn order<const N: usize>(what: &'static str, process: i64, more: [(&'static str, Value); N]) -> Value {
    let entries = [("do", Value::from(what)), ("process", Value::Int(process))].into_iter().chain(more);
    Value::Dict(entries.map(|(key, value)| (key.into(), value)).collect())
}

fn stage_scope<const N: usize>(what: &'static str, process: i64, more: [(&'static str, Value); N]) -> Scope {
    Scope(BTreeMap::from([("type".into(), "stage".into()), ("stage".into(), order(what, process, more))]))
}

/// An event that the stage sends.
type Event = BTreeMap<Cow<'static, str>, Value>;

/// Gives an order that is carried out at once, and what was said to it.
fn order_at_once<const N: usize>(
    interpreter: &Arc<Interpreter>,
    what: &'static str,
    process: i64,
    more: [(&'static str, Value); N],
) -> (Result<(), Exception>, Vec<Event>) {
    let said = Said::default();
    let application = PythonApplication::new(Arc::clone(interpreter));
    let call = application.call(stage_scope(what, process, more), Box::new(Nothing), Box::new(said.clone()));
    let done = call.now_or_never().unwrap_or_else(|| panic!("the stage waits before it is done with {what}"));
    let said = std::mem::take(&mut *said.0.lock().unwrap_or_else(PoisonError::into_inner));
    (done, said)
}

/// Keeps what is said.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<Event>>>);

impl SendEvent for Said {
    fn send(&mut self, event: Outbound) -> BoxFuture<'_, Result<(), Exception>> {
        if let Outbound::Unknown(Value::Dict(said)) = event {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(said);
        }
        Box::pin(async { Ok(()) })
    }
}

/// Gives nothing.
struct Nothing;

impl Receive for Nothing {
    fn receive(&mut self) -> BoxFuture<'_, Result<Inbound, Exception>> {
        Box::pin(std::future::pending())
    }
}

/// Asks the target that answers.
struct Questions(mpsc::UnboundedSender<Value>);

impl SendEvent for Questions {
    fn send(&mut self, event: Outbound) -> BoxFuture<'_, Result<(), Exception>> {
        if let Outbound::Unknown(question) = event {
            let _ = self.0.send(question);
        }
        Box::pin(async { Ok(()) })
    }
}

/// Gives the answers.
struct Answers(mpsc::UnboundedReceiver<Value>);

impl Receive for Answers {
    fn receive(&mut self) -> BoxFuture<'_, Result<Inbound, Exception>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(answer) => Ok(Inbound::Invalid(answer)),
                None => std::future::pending().await,
            }
        })
    }
}

/// Answers the calls of dependencies that a process makes, as the plans of its exchanges have it.
async fn depend(interpreter: Arc<Interpreter>, process: i64, exchanges: Arc<Exchanges>) {
    let (ask, mut asked) = mpsc::unbounded_channel();
    let (answer, answered) = mpsc::unbounded_channel();
    let scope = stage_scope("depend", process, []);
    let application = PythonApplication::new(interpreter);
    let carrying = application.call(scope, Box::new(Answers(answered)), Box::new(Questions(ask)));
    let answering = async {
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                question = asked.recv() => match question {
                    Some(question) => under_way.push(answer_to(question, &exchanges)),
                    None => std::future::pending().await,
                },
                Some(given) = under_way.next() => drop(answer.send(given)),
            }
        }
    };
    tokio::select! {
        biased;
        _ = carrying => {}
        () = answering => {}
    }
}

/// A dependency's answer to one question.
async fn answer_to(question: Value, exchanges: &Exchanges) -> Value {
    let Value::Dict(question) = question else { panic!("{question:?} is no question") };
    let number = |key: &str| match question.get(key) {
        Some(Value::Int(number)) => *number,
        other => panic!("{key} is {other:?}"),
    };
    let text = |key: &str| match question.get(key) {
        Some(Value::Str(text)) => text.as_str(),
        other => panic!("{key} is {other:?}"),
    };
    let (name, operation) = (text("dependency"), text("operation"));
    let operations = Dependency::NAMES.iter().find(|(known, _)| *known == name).unwrap().1;
    let operation = operations.iter().find(|known| **known == operation).unwrap();
    let dependency = DEPENDENCIES.into_iter().find(|dependency| dependency.name() == name).unwrap();
    let scribe = exchanges.get(number("exchange"));
    let answer = match scribe.with_log(InMemory.call(dependency, operation)).await {
        Ok(bytes) => ("answer", Value::Bytes(bytes)),
        Err(error) => ("error", Value::Str(error.message)),
    };
    let id = ("id", Value::Int(number("id")));
    Value::Dict([id, answer].into_iter().map(|(key, value)| (key.into(), value)).collect())
}

const DEPENDENCIES: [Dependency; 7] = [
    Dependency::Database,
    Dependency::Redis,
    Dependency::AuthService,
    Dependency::SecretManager,
    Dependency::AgentSupervisor,
    Dependency::ThreadService,
    Dependency::WebsocketBridge,
];
