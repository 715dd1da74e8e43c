//! The backend's dependencies, over HTTP: a client library on real sockets, an independent server that answers, and
//! between them a pipe for what that server cannot do. Whatever happens to a call, the service makes the same of it as
//! in memory.
//!
//! Time is virtual all the same. It stands still while a call moves on its sockets, and goes on as soon as the pipe
//! holds the answer back.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, mpsc as blocking};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use relapse::{
    case::Case,
    discover::{Catalogue, servers},
    trial::Trial,
};
use relapse_backend::{
    dependency::{
        Dependencies,
        Dependency::{self, AgentSupervisor, AuthService, SecretManager},
        DependencyError, InMemory, faults_met, record_call,
    },
    revision::Revision,
    runner::{BackendRunner, KNOWN},
};
use relapse_core::{
    asgi::exception::Exception,
    fault::{CallFault, FaultKind, setting::Time},
    judge::verdict::RunResult,
};
use relapse_simulate::{application::BoxFuture, recorder::ExchangeRecorder};
use rstest::rstest;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate, matchers};

/// Those that are other services, and are spoken to over HTTP.
const SERVICES: [Dependency; 3] = [AuthService, SecretManager, AgentSupervisor];

/// Where sockets live: beside the virtual clock, which has no business with them.
static WIRE: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread is there")
});

/// The answer that a call asks for. It travels in the request, so that calls made at the same time each get their own.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Answer {
    status: u16,
    body: String,
}

/// Answers as it is asked to.
struct Obliging;

impl Respond for Obliging {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let Answer { status, body } = request.body_json().expect("our own client asks");
        ResponseTemplate::new(status).set_body_string(body)
    }
}

/// The pipe's effect on an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hardship {
    /// Passes it on, after a while.
    Delayed(Duration),
    /// Refuses the connection.
    Refused,
    /// Breaks the connection instead.
    Reset,
    /// Passes half of its body on, and ends.
    Halved,
    /// Never passes it on.
    Held,
    /// Takes the connection only after a while: until then the client is not connected.
    Unaccepted(Duration),
}

impl Hardship {
    fn is_before_the_request(self) -> bool {
        matches!(self, Hardship::Unaccepted(_))
    }
}

/// Where the delay of a call is: the one that waits cannot tell.
#[derive(Debug, Clone, Copy)]
enum Slow {
    ToConnect,
    ToAnswer,
}

/// A call as the plan has it: its answer, and the fate of that answer on its way.
fn meet(scribe: &ExchangeRecorder, dependency: Dependency, operation: &'static str, slow: Slow) -> (Answer, Hardship) {
    let mut answer = Answer { status: 200, body: r#"{"ok":true}"#.to_owned() };
    let mut delay = Duration::ZERO;
    for (index, fault) in faults_met(scribe, dependency, operation) {
        scribe.fired_on_call(index, operation);
        match fault {
            CallFault::Delay { delay: time } => delay += time.0,
            CallFault::Garbage { answer: body } => answer.body.clone_from(body),
            CallFault::Hang {} => return (answer, Hardship::Held),
            CallFault::Half {} => return (answer, Hardship::Halved),
            // Errors that only a socket raises come from a socket.
            CallFault::Fail { error } if error == "connection refused" => return (answer, Hardship::Refused),
            CallFault::Fail { error } if error == "connection reset by peer" => return (answer, Hardship::Reset),
            CallFault::Fail { error } => answer = Answer { status: 500, body: error.clone() },
        }
    }
    let hardship = match slow {
        Slow::ToConnect if !delay.is_zero() => Hardship::Unaccepted(delay),
        _ => Hardship::Delayed(delay),
    };
    (answer, hardship)
}

/// A connection whose port is free again as soon as it is closed: there are thousands. The side that closes it has read
/// everything by then.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_zero_linger()?;
    Ok(stream)
}

/// Takes one connection, passes the request on, and does to the answer what is to be done.
async fn pipe(
    listener: tokio::net::TcpListener,
    upstream: SocketAddr,
    hardship: Hardship,
    held: mpsc::UnboundedSender<()>,
    mut go_on: mpsc::UnboundedReceiver<()>,
) -> io::Result<()> {
    if hardship.is_before_the_request() {
        let _ = held.send(());
        let _ = go_on.recv().await;
        // Take out the connection that fills the queue; the one behind it gets through when it asks again, a second
        // later.
        let _ = listener.accept().await?;
    }
    let (mut client, _) = listener.accept().await?;
    if hardship == Hardship::Reset {
        client.read_u8().await?;
        return client.set_zero_linger();
    }
    let mut server = connect(upstream).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let mut answer = Vec::new();
    tokio::select! {
        // The server ends the connection behind its answer.
        read = from_server.read_to_end(&mut answer) => drop(read?),
        Err(error) = copy(&mut from_client, &mut to_server) => return Err(error),
    }
    if !hardship.is_before_the_request() {
        let _ = held.send(());
        let _ = go_on.recv().await;
    }
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    if hardship == Hardship::Halved {
        answer.truncate(body + (answer.len() - body) / 2);
    }
    to_client.write_all(&answer).await?;
    if hardship == Hardship::Halved {
        return to_client.shutdown().await;
    }
    // The side that has the whole answer closes first.
    from_client.read_to_end(&mut Vec::new()).await.map(drop)
}

/// Asks over HTTP, through a pipe of its own.
async fn ask(
    upstream: SocketAddr,
    path: String,
    body: Vec<u8>,
    hardship: Hardship,
    held: mpsc::UnboundedSender<()>,
    go_on: mpsc::UnboundedReceiver<()>,
) -> Result<(u16, Bytes), String> {
    let said = |error: &dyn std::error::Error| {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            let _ = write!(text, ": {error}");
            source = error.source();
        }
        text
    };
    let socket = TcpSocket::new_v4().and_then(|socket| {
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        Ok(socket)
    });
    let socket = socket.map_err(|error| said(&error))?;
    let address = socket.local_addr().map_err(|error| said(&error))?;
    // A port that is taken and not listened on refuses.
    let mut pipes = JoinSet::new();
    let (mut _refusing, mut _filling) = (None, None);
    if hardship == Hardship::Refused {
        _refusing = Some(socket);
    } else {
        // A queue with room for one (listen(2)): connections behind it wait.
        let listener = socket.listen(0).map_err(|error| said(&error))?;
        if hardship.is_before_the_request() {
            _filling = Some(connect(address).await.map_err(|error| said(&error))?);
        }
        pipes.spawn(pipe(listener, upstream, hardship, held, go_on));
    }
    let stream = connect(address).await.map_err(|error| said(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| said(&error))?;
    pipes.spawn(async move {
        let _ = connection.await;
        Ok(())
    });
    let request = hyper::Request::post(path).header("host", "service.test").header("connection", "close");
    let request = request.body(Full::new(Bytes::from(body))).expect("a path and two headers");
    let response = sender.send_request(request).await.map_err(|error| said(&error))?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(|error| said(&error))?;
    Ok((status, body.to_bytes()))
}

/// Keeps the virtual clock where it is: it does not jump while blocking work is under way.
struct Still {
    _until: blocking::Sender<()>,
    _waiting: JoinHandle<()>,
}

impl Still {
    fn keep() -> Still {
        let (until, dropped) = blocking::channel::<()>();
        let waiting = tokio::task::spawn_blocking(move || {
            // Nothing is ever sent.
            let _ = dropped.recv();
        });
        Still { _until: until, _waiting: waiting }
    }
}

/// The services over HTTP, everything else in memory.
#[derive(Debug)]
struct OverHttp {
    server: SocketAddr,
    slow: Slow,
    /// How many calls went over the wire.
    calls: AtomicUsize,
}

impl OverHttp {
    async fn call(
        &self,
        scribe: &ExchangeRecorder,
        dependency: Dependency,
        operation: &'static str,
    ) -> Result<Bytes, DependencyError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let failed = |message: String| DependencyError { dependency, message };
        let (answer, hardship) = meet(scribe, dependency, operation, self.slow);
        let (held, mut is_held) = mpsc::unbounded_channel();
        let (go_on, told) = mpsc::unbounded_channel();
        let path = format!("/{}/{operation}", dependency.name());
        let body = serde_json::to_vec(&answer).expect("plain text");
        let mut still = Some(Still::keep());
        // Giving up the call drops its sockets.
        let mut asked = JoinSet::new();
        asked.spawn_on(ask(self.server, path, body, hardship, held, told), WIRE.handle());
        loop {
            tokio::select! {
                biased;
                Some(()) = is_held.recv() => {
                    still = None;
                    match hardship {
                        Hardship::Held => std::future::pending().await,
                        Hardship::Delayed(delay) | Hardship::Unaccepted(delay) if !delay.is_zero() => sleep(delay).await,
                        _ => {}
                    }
                    still.replace(Still::keep());
                    let _ = go_on.send(());
                }
                Some(answered) = asked.join_next() => {
                    drop(still);
                    return match answered.expect("the client does not panic") {
                        Ok((200, body)) => Ok(body),
                        Ok((_, body)) => Err(failed(String::from_utf8_lossy(&body).into_owned())),
                        Err(error) => Err(failed(error)),
                    };
                }
            }
        }
    }
}

impl Dependencies for OverHttp {
    fn call(&self, dependency: Dependency, operation: &'static str) -> BoxFuture<'_, Result<Bytes, DependencyError>> {
        if !SERVICES.contains(&dependency) {
            return InMemory.call(dependency, operation);
        }
        Box::pin(async move {
            let Some(scribe) = ExchangeRecorder::current() else { return InMemory.call(dependency, operation).await };
            let result = OverHttp::call(self, &scribe, dependency, operation).await;
            record_call(&scribe, dependency, operation, &result);
            result
        })
    }

    fn import(&self, module: &'static str) -> Result<(), Exception> {
        InMemory.import(module)
    }
}

fn is_about_a_service(case: &Case) -> bool {
    let names: BTreeSet<&str> = SERVICES.iter().map(|service| service.name()).collect();
    case.faults.iter().any(|fault| fault.kind.calls().is_some_and(|calls| names.contains(calls.dependency.as_str())))
}

/// The result of a run: each exchange's class and cause, which checks have a finding, and how often each fault acted.
fn essence(judged: &RunResult) -> (Vec<String>, BTreeSet<String>, &[u32]) {
    let outcomes = judged.outcomes.iter().map(|outcome| format!("{:?} {:?}", outcome.class, outcome.cause)).collect();
    let complaints = judged.findings.iter().map(|finding| finding.check.to_owned()).collect();
    (outcomes, complaints, &judged.transcript.fired)
}

/// The same run with the services in memory and over HTTP.
struct BothWays {
    server: MockServer,
    over_http: Arc<OverHttp>,
    memory: BackendRunner,
    wire: BackendRunner,
}

impl BothWays {
    fn new(slow: Slow) -> BothWays {
        let server = WIRE.block_on(async {
            let server = MockServer::start().await;
            Mock::given(matchers::method("POST")).respond_with(Obliging).mount(&server).await;
            server
        });
        let over_http = Arc::new(OverHttp { server: *server.address(), slow, calls: AtomicUsize::new(0) });
        let wire = BackendRunner::depending_on(Arc::clone(&over_http) as _);
        BothWays { server, over_http, memory: BackendRunner::default(), wire }
    }

    fn compare(&self, trial: &Trial, revision: Revision, name: &str) {
        let before = self.over_http.calls.load(Ordering::Relaxed);
        let on_wire = self.wire.run(trial, revision, 1).unwrap();
        assert!(self.over_http.calls.load(Ordering::Relaxed) > before, "{name}: nothing was asked over HTTP");
        let in_memory = self.memory.run(trial, revision, 1).unwrap();
        assert_eq!(essence(&on_wire), essence(&in_memory), "{name}");
    }

    /// How many requests came out of the pipes.
    fn received(self) -> usize {
        WIRE.block_on(self.server.received_requests()).unwrap().len()
    }
}

/// Each case about a service behind its first server: the calls do not depend on the server in front.
fn trials_about_services() -> Vec<Trial> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
    let mut cases = Catalogue::read(&directory, KNOWN).unwrap().cases;
    cases.retain(|case| is_about_a_service(case));
    let mut trials = Trial::of(&cases, &servers().unwrap(), None);
    trials.dedup_by(|other, first| other.case.name == first.case.name && other.profile != first.profile);
    trials
}

/// Every case in which such a service fails, is slow or hangs comes to the same over HTTP.
#[test]
fn services_over_http_fail_as_services_in_memory_do() {
    let both = BothWays::new(Slow::ToAnswer);
    let mut compared = 0;
    for trial in trials_about_services() {
        for revision in [Revision::from(&trial.case.twin), Revision::repaired()] {
            // The struck clients of a crowd are a matter of chance on sockets.
            if trial.case.crowd.clients() > 1 && revision != Revision::repaired() {
                continue;
            }
            let name = format!("{} behind {} at {revision}", trial.case.name, trial.profile.name);
            both.compare(&trial, revision, &name);
            compared += 1;
        }
    }
    assert!(compared > 30, "{compared} runs were compared");
    assert!(both.received() > compared);
}

/// Whatever else can happen to a call comes to the same over HTTP: each case with every other fault in the place of
/// its own.
#[rstest]
#[case::refused(Slow::ToAnswer, CallFault::Fail { error: "connection refused".to_owned() })]
#[case::reset(Slow::ToAnswer, CallFault::Fail { error: "connection reset by peer".to_owned() })]
#[case::server_error(Slow::ToAnswer, CallFault::Fail { error: "the connection pool is exhausted".to_owned() })]
#[case::slow(Slow::ToAnswer, CallFault::Delay { delay: Time(Duration::from_millis(400)) })]
#[case::too_slow(Slow::ToAnswer, CallFault::Delay { delay: Time(Duration::from_secs(15)) })]
#[case::too_slow_to_connect(Slow::ToConnect, CallFault::Delay { delay: Time(Duration::from_secs(15)) })]
#[case::hanging(Slow::ToAnswer, CallFault::Hang {})]
#[case::garbage(Slow::ToAnswer, CallFault::Garbage { answer: "<html>502 Bad Gateway</html>".to_owned() })]
#[case::half(Slow::ToAnswer, CallFault::Half {})]
fn every_hardship_is_the_same_over_http(#[case] slow: Slow, #[case] hardship: CallFault) {
    let both = BothWays::new(slow);
    let mut compared = 0;
    for trial in trials_about_services() {
        let mut case = Case::clone(&trial.case);
        for fault in &mut case.faults {
            if let FaultKind::Call { fault, .. } = &mut fault.kind {
                fault.clone_from(&hardship);
            }
        }
        let name = format!("{} with {hardship}", case.name);
        both.compare(&Trial { case: Arc::new(case), ..trial }, Revision::repaired(), &name);
        compared += 1;
    }
    assert!(compared >= 10, "{compared} runs were compared");
}

/// A connection that is not accepted is not made; once there is room, the call goes its way.
#[test]
fn a_connection_can_be_slow_to_come_about() {
    let both = BothWays::new(Slow::ToConnect);
    let answered = WIRE.block_on(async {
        let ((held, mut is_held), (go_on, told)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let body = serde_json::to_vec(&Answer { status: 200, body: "late".to_owned() }).unwrap();
        let hardship = Hardship::Unaccepted(Duration::from_secs(1));
        let mut asked = pin!(ask(both.over_http.server, "/auth_service/check".to_owned(), body, hardship, held, told));
        let patience = Duration::from_millis(300);
        assert!(timeout(patience, &mut asked).await.is_err(), "it is answered before it is taken");
        is_held.recv().await.unwrap();
        assert_eq!(both.server.received_requests().await.unwrap().len(), 0);
        go_on.send(()).unwrap();
        timeout(Duration::from_secs(30), asked).await.unwrap()
    });
    assert_eq!(answered.unwrap(), (200, Bytes::from_static(b"late")));
}
