//! Draws a script and a plan from a seed alone, without a report.

use std::time::Duration;

use fastrand::Rng;

use super::faults;
use crate::{case::Known, environment::Environment};
use relapse_core::{
    client::{
        credential::{Credential, CredentialPlace},
        step::{Action, Awaited, ClientStrictness, Concurrency, DEFAULT_LIMIT, DEFAULT_USER, Request, Step},
    },
    fault::{Fault, Place},
    wire::close_code::CloseCode,
};

/// Longer than anything that the service may take, all its attempts together. Virtual time.
pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// A drawn trial: the steps of clients, and the faults on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratedCase {
    /// The steps of each client, a visit at a time: an exchange with its session, or a pause.
    pub visits: Vec<Vec<Step>>,
    /// How many clients do it.
    pub crowd: Concurrency,
    /// The faults.
    pub faults: Vec<Fault>,
    /// In which environment.
    pub environment: Environment,
    /// Behind which server, by its place in the list.
    pub server: usize,
}

impl GeneratedCase {
    /// The steps of every client.
    pub fn steps(&self) -> Vec<Step> {
        self.visits.iter().flatten().cloned().collect()
    }
}

/// The limits of what may be drawn.
#[derive(Debug, Clone)]
pub struct GeneratorConfig {
    /// How many servers there are.
    pub servers: usize,
    /// The places that faults may act at.
    pub places: Vec<Place>,
    /// Whether servers keep to the ASGI specification.
    pub legal_only: bool,
    /// The names that faults of dependencies and of the process may use.
    pub known: Known<'static>,
}

impl GeneratorConfig {
    /// Everything that a built-in service with these names can have, behind this number of servers.
    pub fn everything(servers: usize, known: Known<'static>) -> GeneratorConfig {
        GeneratorConfig { servers, places: Place::ALL.to_vec(), legal_only: false, known }
    }
}

/// Draws one. The same seed and aim give the same.
pub fn draw(seed: u64, aim: &GeneratorConfig) -> GeneratedCase {
    // Seeds that follow one another are to have nothing in common.
    let mut chance = Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    // Swarm testing: each draw leaves most kinds out, so that those it has meet one another.
    let count = match chance.u8(..10) {
        _ if aim.places.is_empty() => 0,
        0..=2 => 0,
        3..=6 => 1,
        _ => 2,
    };
    let mut places: Vec<Place> = (0..count).map(|_| faults::place(&mut chance, &aim.places)).collect();
    let mut visits = vec![visit(&mut chance)];
    if let [Place::Process, others @ ..] = places.as_mut_slice() {
        // One process is enough; its dependencies may fail too. A client comes when it should have started.
        others
            .iter_mut()
            .filter(|_| aim.places.contains(&Place::Dependency))
            .for_each(|place| *place = Place::Dependency);
        if chance.bool() {
            visits.push(vec![pause(&mut chance)]);
        }
        visits.push(session(&mut chance, true));
    } else {
        // A failure is followed by a client that notices it.
        let most = if places.contains(&Place::Dependency) { 4 } else { 2 };
        while visits.len() < most && chance.bool() {
            visits.push(visit(&mut chance));
        }
    }
    let crowd = match chance.u8(..128) {
        0..=9 => Concurrency { users: chance.usize(2..=4), connections: chance.usize(1..=2), rounds: 1 },
        10..=11 => Concurrency { connections: 12, ..Concurrency::ONE },
        12 => Concurrency { rounds: 22, ..Concurrency::ONE },
        _ => Concurrency::ONE,
    };
    if crowd != Concurrency::ONE {
        // Many clients stay below what one user may send in a minute.
        visits.truncate(1);
    }
    if crowd.users > 1 {
        // While both users act, the acts of one do not concern the other.
        visits = vec![session(&mut chance, true)];
        // Each has a name of its own.
        for step in visits.iter_mut().flatten() {
            if let Action::Open(request) | Action::Request(request) = &mut step.act {
                DEFAULT_USER.clone_into(&mut request.user);
            }
        }
    }
    let steps = visits.iter().map(Vec::len).sum();
    let faults = places.into_iter().map(|place| faults::fault(&mut chance, place, aim, steps)).collect();
    GeneratedCase {
        visits,
        crowd,
        faults,
        environment: one(&mut chance, &Environment::ALL),
        server: chance.usize(..aim.servers),
    }
}

/// One of these.
pub(super) fn one<T: Clone>(chance: &mut Rng, from: &[T]) -> T {
    from[chance.usize(..from.len())].clone()
}

fn step(act: Action) -> Step {
    let waits = !matches!(act, Action::SendText(_) | Action::SendBytes(_));
    Step::new(act, if waits { LIMIT } else { DEFAULT_LIMIT })
}

fn credential(chance: &mut Rng) -> Credential {
    if chance.u8(..10) < 7 { Credential::Valid } else { one(chance, &Credential::ALL) }
}

fn visit(chance: &mut Rng) -> Vec<Step> {
    match chance.u8(..10) {
        0..=5 => session(chance, false),
        6..=8 => vec![step(Action::Request(plain(chance)))],
        _ => vec![pause(chance)],
    }
}

fn pause(chance: &mut Rng) -> Step {
    Step::new(Action::Pause, Duration::from_millis(chance.u64(1..40_000)))
}

/// Header fields as text.
const HEADERS: [(&str, &[u8]); 12] = [
    ("X-Latest-Thing", b"1"),
    ("X-Test-Run", b"1"),
    ("X-E2E-Test", b"true"),
    ("User-Agent", b"factory-client/1.0"),
    ("Origin", b"null"),
    ("Cookie", b"session=eyJhbGciOiJub25lIn0.tampered"),
    ("Cookie", b"caf\xe9=\xff; session"),
    ("X-Forwarded-For", b"203.0.113.7, , unknown"),
    ("X-Forwarded-Proto", b"https, gopher"),
    ("X-Forwarded-Host", b"["),
    ("Accept-Language", b"\xff\xfe"),
    ("Connection", b"close"),
];

/// A header that clients, and what stands before them, send now and then.
pub(super) fn header(chance: &mut Rng, request: &mut Request) {
    let (name, value) = one(chance, &HEADERS);
    let is_upgrade = request.method == "GET" && name == "Connection";
    if !is_upgrade {
        request.headers.push((name.as_bytes().into(), value.into()));
    }
}

fn plain(chance: &mut Rng) -> Request {
    const PATHS: [&[u8]; 24] = [
        b"/health",
        b"/health",
        b"/health/ready",
        b"/health/ready",
        b"/health/live",
        b"/ws/health",
        b"/ws/health",
        b"/ws/config",
        b"/ws/beacon",
        b"/ws/stats",
        b"/ws/stats",
        b"/api/threads/",
        b"/api/threads/",
        b"/api/session",
        b"/api/v1/websocket",
        b"/api/v1/websocket/protected",
        b"/ws",
        b"/no/such/path",
        b"/%00",
        b"/%ff%fe/",
        b"/../../etc/passwd",
        b"/health/./live",
        b"//health",
        b"/*",
    ];
    const METHODS: [&str; 8] = ["POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PROPFIND", "get", "BREW"];
    const BODIES: [(&str, &[u8]); 9] = [
        ("application/json", b"{\"type\":\"ping\"}"),
        ("application/json", b"{\"type\":"),
        ("application/json", b"\xff\xfe{}"),
        ("application/json", b"{\"a\":NaN,\"b\":1e999}"),
        ("application/json", b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["),
        ("application/json; charset=\"", b"{}"),
        ("multipart/form-data", b"--x\r\n\r\n--x--"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1"),
        ("text/plain", b""),
    ];
    const ROUTES_WITH_BODY: [&[u8]; 4] = [b"/ws/beacon", b"/ws/beacon", b"/api/session", b"/api/threads/"];
    let mut request = Request::standard("GET", "/");
    request.path = one(chance, &PATHS).to_vec();
    request.credential = credential(chance);
    match chance.u8(..10) {
        0 => {
            // An upgrade that was lost on the way.
            request.headers = vec![
                (b"Upgrade"[..].into(), b"websocket"[..].into()),
                (b"Connection"[..].into(), b"keep-alive"[..].into()),
            ];
        }
        1 => request.method = one(chance, &METHODS).to_owned(),
        2 => {
            let (content_type, body) = one(chance, &BODIES);
            request.method = "POST".to_owned();
            request.path = one(chance, &ROUTES_WITH_BODY).to_vec();
            request.headers = vec![(b"Content-Type"[..].into(), content_type.into())];
            request.body = body.to_vec();
        }
        3 => header(chance, &mut request),
        4 => {
            request.path = one(chance, &[&b"/ws/stats"[..], b"/api/threads/", b"/health/ready"]).to_vec();
            request.give_up = Some(Duration::from_millis(one(chance, &[1, 100, 4000])));
        }
        _ => {}
    }
    // As the table of a file has them.
    request.headers.sort();
    request
}

/// A session; one that talks asks an agent first of all.
fn session(chance: &mut Rng, talks: bool) -> Vec<Step> {
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
    const QUERIES: [&[u8]; 10] = [
        b"",
        b"",
        b"",
        b"",
        b"a=b&a=&c=%C3%A9%FF",
        b"mode=isolated",
        b"mode=legacy",
        b"mode=factory&mode=main",
        b"token",
        b"%zz&=&%",
    ];
    let mut request = Request {
        credential: credential(chance),
        places: vec![one(chance, &CredentialPlace::ALL)],
        query: one(chance, &QUERIES).to_vec(),
        user: one(chance, &["user-1", "user-2", "u"]).to_owned(),
        // An offered subprotocol may be lost on the way; that is a browser's matter, not the service's.
        client: ClientStrictness::Library,
        ..Request::standard("GET", one(chance, &PATHS))
    };
    if chance.u8(..4) == 0 {
        header(chance, &mut request);
    }
    request.headers.sort();
    if chance.u8(..10) == 0 {
        request.offers = vec![one(chance, &["jwt-auth", "e2e-testing", "graphql-ws"]).to_owned()];
    }
    if chance.u8(..16) == 0 {
        request.give_up = Some(Duration::from_millis(one(chance, &[1, 500, 4000])));
    }
    let mut steps = vec![step(Action::Open(request)), wait("connection_established")];
    if talks {
        ask(&mut steps);
    }
    for _ in 0..chance.usize(..=2) {
        say(chance, &mut steps);
    }
    match chance.u8(..16) {
        0 => steps.push(Step::new(Action::Freeze, Duration::from_millis(one(chance, &[100, 15_000])))),
        1 => steps.push(Step::new(Action::Pause, Duration::from_secs(one(chance, &[1, 70])))),
        2 => steps.push(step(Action::Ping)),
        _ => {}
    }
    steps.push(step(match chance.u8(..8) {
        0..=3 => Action::Close(CloseCode::NORMAL),
        4 => Action::Close(one(chance, &[CloseCode::GOING_AWAY, CloseCode(3000), CloseCode(4999)])),
        _ => Action::Leave,
    }));
    steps
}

fn wait(name: &str) -> Step {
    step(Action::Wait(Awaited::Message(name.to_owned())))
}

/// A request to an agent.
const AGENT: &str = r#"{"type":"chat","content":"hello","thread_id":"thread of {user}"}"#;

/// A question to an agent, and the wait for the last word of its answer.
fn ask(steps: &mut Vec<Step>) {
    steps.push(step(Action::SendText(AGENT.to_owned())));
    steps.push(wait("agent_response_complete"));
}

/// A message that asks whether the service is there.
const PING: &str = r#"{"type":"ping"}"#;
/// One byte more than a message may have.
const TOO_MANY_BYTES: usize = 8193;

/// A message, and the wait for its answer.
fn say(chance: &mut Rng, steps: &mut Vec<Step>) {
    let (act, answer) = match chance.u8(..16) {
        0..=5 => return ask(steps),
        6..=7 => (Action::SendText(PING.to_owned()), "pong"),
        8 => (Action::SendText(r#"{"type":"no_such_type"}"#.to_owned()), "ack"),
        9 => (Action::SendText("not json".to_owned()), "error_message"),
        10 => (Action::SendText([PING, &" ".repeat(TOO_MANY_BYTES - PING.len())].concat()), "error_message"),
        11 => (Action::SendText(r#"{"type":null}"#.to_owned()), "ack"),
        12 => (Action::SendText("[1,2]".to_owned()), "error_message"),
        13 => (Action::SendBytes(b"\x00\xff".to_vec()), "error_message"),
        14 => {
            // The client does not wait for the answer to this one.
            steps.push(step(Action::SendText(AGENT.to_owned())));
            return;
        }
        _ => (Action::SendText(r#"{"type":"disconnect"}"#.to_owned()), "disconnect_acknowledged"),
    };
    steps.push(step(act));
    steps.push(wait(answer));
}
