//! Draws a script and a plan that nobody reported, from a seed alone.

use std::time::Duration;

use fastrand::Rng;

use crate::{
    close_code::CloseCode,
    credential::{Credential, CredentialPlace},
    dependency::{Dependency, MODULES},
    environment::Environment,
    fault::{Calls, Fault, FaultKind, HeadEdit, Trigger},
    step::{Act, Awaited, Client, Crowd, Request, Step},
    value::Value,
};

/// Longer than anything that the service may take, all its attempts together. Virtual time.
const LIMIT: Duration = Duration::from_secs(120);

/// What is tried: what clients do, and what acts on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// What each client does, a visit at a time: an exchange with its session, or a pause.
    pub visits: Vec<Vec<Step>>,
    /// How many clients do it.
    pub crowd: Crowd,
    /// What acts.
    pub faults: Vec<Fault>,
    /// In which environment.
    pub environment: Environment,
    /// Behind which server, by its place in the list.
    pub server: usize,
}

impl Drawn {
    /// The steps of every client.
    pub fn steps(&self) -> Vec<Step> {
        self.visits.iter().flatten().cloned().collect()
    }
}

/// Draws one. The same seed gives the same.
pub fn draw(seed: u64, servers: usize) -> Drawn {
    let mut chance = Rng::with_seed(seed);
    // Swarm testing: each draw leaves most kinds out, so that those it has meet one another.
    let has_faults = chance.u8(..10) < 7;
    let mut visits: Vec<Vec<Step>> = (0..chance.usize(1..=5)).map(|_| visit(&mut chance)).collect();
    let faults = if has_faults { (0..chance.usize(1..=2)).map(|_| fault(&mut chance)).collect() } else { Vec::new() };
    let crowd = match chance.u8(..20) {
        0 => Crowd { users: chance.usize(2..=4), connections: chance.usize(1..=2), rounds: 1 },
        1 => Crowd { connections: 12, ..Crowd::ONE },
        2 => Crowd { rounds: 22, ..Crowd::ONE },
        _ => Crowd::ONE,
    };
    if crowd != Crowd::ONE {
        // Many clients stay below what one user may send in a minute.
        visits.truncate(1);
    }
    let environments = [Environment::Development, Environment::Testing, Environment::Staging, Environment::Production];
    Drawn { visits, crowd, faults, environment: one(&mut chance, &environments), server: chance.usize(..servers) }
}

fn one<T: Clone>(chance: &mut Rng, from: &[T]) -> T {
    from[chance.usize(..from.len())].clone()
}

fn step(act: Act) -> Step {
    Step { act, limit: LIMIT }
}

fn credential(chance: &mut Rng) -> Credential {
    if chance.u8(..10) < 7 { Credential::Valid } else { one(chance, &Credential::ALL) }
}

fn visit(chance: &mut Rng) -> Vec<Step> {
    match chance.u8(..10) {
        0..=5 => session(chance),
        6..=7 => vec![step(Act::Request(plain(chance)))],
        _ => vec![Step { act: Act::Pause, limit: Duration::from_millis(chance.u64(1..40_000)) }],
    }
}

fn plain(chance: &mut Rng) -> Request {
    const PATHS: [&str; 12] = [
        "/health",
        "/health/ready",
        "/health/live",
        "/ws/health",
        "/ws/config",
        "/ws/beacon",
        "/ws/stats",
        "/api/threads/",
        "/api/v1/websocket",
        "/api/v1/websocket/protected",
        "/ws",
        "/no/such/path",
    ];
    let mut request = Request::standard("GET", one(chance, &PATHS));
    request.credential = credential(chance);
    if chance.u8(..10) == 0 {
        // An upgrade that was lost on the way.
        request.headers = vec![
            (b"Upgrade"[..].into(), b"websocket"[..].into()),
            (b"Connection"[..].into(), b"keep-alive"[..].into()),
        ];
    }
    request
}

fn session(chance: &mut Rng) -> Vec<Step> {
    const PATHS: [&str; 10] = [
        "/ws",
        "/ws",
        "/ws",
        "/ws",
        "/ws/factory",
        "/ws/isolated",
        "/websocket",
        "/ws/test",
        "/api/v1/websocket",
        "/v1/ws",
    ];
    const QUERIES: [&str; 6] = ["", "", "", "a=b&a=&c=%C3%A9%FF", "mode=isolated", "mode=legacy"];
    const HEADERS: [(&[u8], &[u8]); 3] =
        [(b"X-Latest-Thing", b"1"), (b"User-Agent", b"factory-client/1.0"), (b"Origin", b"null")];
    let mut request = Request {
        credential: credential(chance),
        places: vec![one(chance, &CredentialPlace::ALL)],
        query: one(chance, &QUERIES).as_bytes().to_vec(),
        user: one(chance, &["user-1", "user-2", "u"]).to_owned(),
        // What was offered may be lost on the way; that is a browser's matter, not the service's.
        client: Client::Library,
        ..Request::standard("GET", one(chance, &PATHS))
    };
    if chance.u8(..5) == 0 {
        let (name, value) = one(chance, &HEADERS);
        request.headers = vec![(name.into(), value.into())];
    }
    if chance.u8(..10) == 0 {
        request.offers = vec![one(chance, &["jwt-auth", "e2e-testing", "graphql-ws"]).to_owned()];
    }
    let mut steps = vec![step(Act::Open(request)), wait("connection_established")];
    for _ in 0..chance.usize(..=2) {
        say(chance, &mut steps);
    }
    steps.push(step(if chance.bool() { Act::Close(CloseCode::NORMAL) } else { Act::Leave }));
    steps
}

fn wait(name: &str) -> Step {
    step(Act::Wait(Awaited::Message(name.to_owned())))
}

/// A message, and the wait for its answer.
fn say(chance: &mut Rng, steps: &mut Vec<Step>) {
    let (text, answer) = match chance.u8(..8) {
        0..=2 => (
            r#"{"type":"chat","content":"hello","thread_id":"thread of {user}"}"#.to_owned(),
            "agent_response_complete",
        ),
        3 => (r#"{"type":"ping"}"#.to_owned(), "pong"),
        4 => (r#"{"type":"no_such_type"}"#.to_owned(), "ack"),
        5 => ("not json".to_owned(), "error_message"),
        6 => (format!("{:8193}", r#"{"type":"ping"}"#), "error_message"),
        _ => (r#"{"type":"disconnect"}"#.to_owned(), "disconnect_acknowledged"),
    };
    steps.push(step(Act::SendText(text)));
    steps.push(wait(answer));
}

fn fault(chance: &mut Rng) -> Fault {
    match chance.u8(..20) {
        0..=11 => Fault { kind: dependency(chance), trigger: trigger(chance) },
        12..=15 => Fault { kind: FaultKind::Head(edit(chance)), trigger: Trigger::default() },
        16..=17 => Fault { kind: scope(chance), trigger: Trigger::default() },
        _ => process(chance),
    }
}

fn trigger(chance: &mut Rng) -> Trigger {
    let rarely = |chance: &mut Rng, most| if chance.u8(..5) == 0 { chance.u32(1..=most) } else { 1 };
    let (nth, every) = (rarely(chance, 5), rarely(chance, 3));
    let from = if chance.u8(..5) < 2 { chance.u64(..20_000) } else { 0 };
    let until = chance.bool().then(|| Duration::from_millis(from + chance.u64(1..40_000)));
    Trigger { nth, every, times: None, from: Duration::from_millis(from), until }
}

fn dependency(chance: &mut Rng) -> FaultKind {
    let (name, operations) = one(chance, Dependency::NAMES);
    let operation = chance.bool().then(|| one(chance, operations).to_owned());
    let calls = Calls { dependency: name.to_owned(), operation };
    match chance.u8(..3) {
        0 => FaultKind::Fail { calls, error: "connection to 10.0.3.7:5432 refused".to_owned() },
        1 => FaultKind::Hang { calls },
        _ => {
            let most = one(chance, &[100, 1000, 100_000]);
            FaultKind::Delay { calls, delay: Duration::from_millis(chance.u64(1..=most)) }
        }
    }
}

fn edit(chance: &mut Rng) -> HeadEdit {
    let header = one(chance, &["Authorization", "Sec-WebSocket-Protocol", "Host", "User-Agent"]).to_owned();
    match chance.u8(..4) {
        0 => HeadEdit::Capitalize { header },
        1 => HeadEdit::Rename { header: "Authorization".to_owned(), to: "X-Forwarded-Authorization".to_owned() },
        2 => HeadEdit::Set { header: "X-Forwarded-For".to_owned(), value: b"203.0.113.7".to_vec() },
        _ => HeadEdit::Strip { header: one(chance, &["Authorization", "Sec-WebSocket-Protocol"]).to_owned() },
    }
}

/// Keys that a scope need not have, and one that it must.
fn scope(chance: &mut Rng) -> FaultKind {
    match chance.u8(..4) {
        0 => FaultKind::SetKey { key: "method".to_owned(), value: Value::from("GET") },
        1 => FaultKind::SetKey { key: "query_params".to_owned(), value: Value::None },
        2 => FaultKind::DropKey { key: one(chance, &["state", "client", "server", "root_path"]).to_owned() },
        _ => FaultKind::DropKey { key: one(chance, &["path", "query_string", "headers"]).to_owned() },
    }
}

fn process(chance: &mut Rng) -> Fault {
    let until = Some(Duration::from_millis(chance.u64(1..20_000)));
    let timed = Trigger { until, ..Trigger::default() };
    let always = Trigger::default();
    let unset = |name: &str| FaultKind::Variable { name: name.to_owned(), value: None };
    match chance.u8(..5) {
        0 => Fault { kind: FaultKind::Absent, trigger: timed },
        1 => Fault { kind: FaultKind::MissingModule { module: one(chance, MODULES).to_owned() }, trigger: timed },
        2 => Fault { kind: unset("LLM_API_KEY"), trigger: always },
        3 => Fault { kind: unset("JWT_SECRET_{ENVIRONMENT}"), trigger: always },
        _ => Fault { kind: FaultKind::Restart, trigger: always },
    }
}
