//! Draws faults: at which place, of which kind, with which settings, and when.

use std::time::Duration;

use fastrand::Rng;

use super::generate::{GeneratorConfig, one};
use relapse_core::{
    asgi::{
        scope::{ScopeType, keys},
        value::Value,
    },
    fault::{
        AnswerEdit, Breach, CallFault, Calls, Carries, ConnectionFault, Direction, EventFault, Events, Fault,
        FaultKind, FrameFault, Frames, HeadEdit, HeaderForm, Place, ProcessFault, ScopeEdit, StreamFault, Trigger,
        Version,
        setting::{Count, Line, Path, Raw, Time, Token},
    },
};

/// One of these places. What the service depends on is where most goes wrong.
pub(super) fn place(chance: &mut Rng, places: &[Place]) -> Place {
    const WEIGHED: [Place; 16] = [
        Place::Dependency,
        Place::Dependency,
        Place::Dependency,
        Place::Dependency,
        Place::Dependency,
        Place::Dependency,
        Place::Edge,
        Place::Edge,
        Place::Edge,
        Place::Edge,
        Place::Edge,
        Place::Scope,
        Place::Scope,
        Place::Event,
        Place::Process,
        Place::Process,
    ];
    let drawn = one(chance, &WEIGHED);
    if places.contains(&drawn) { drawn } else { one(chance, places) }
}

/// A fault at this place, for a script with this number of steps.
pub(super) fn fault(chance: &mut Rng, place: Place, aim: &GeneratorConfig, steps: usize) -> Fault {
    let legal_only = aim.legal_only;
    match place {
        Place::Dependency => Fault { kind: call(chance, aim.known.dependencies), trigger: trigger(chance) },
        Place::Process => process(chance, aim.known.modules),
        Place::Edge => edge(chance, steps),
        Place::Scope => {
            let again = |kind: &ScopeEdit| {
                legal_only && [ScopeType::Http, ScopeType::Websocket].iter().any(|on| !kind.legality(*on).is_legal)
            };
            let mut kind = scope(chance);
            while again(&kind) {
                kind = scope(chance);
            }
            FaultKind::Scope(kind).into()
        }
        Place::Event => {
            let (mut events, mut fault) = event(chance);
            while legal_only && !fault.legality(&events).is_legal {
                (events, fault) = event(chance);
            }
            Fault { kind: FaultKind::Event { events, fault }, trigger: occasionally(chance, 4) }
        }
    }
}

/// A trigger on one of the first occasions, or on all.
fn occasionally(chance: &mut Rng, most: u32) -> Trigger {
    match chance.u8(..4) {
        0 => Trigger::default(),
        _ => Trigger { nth: chance.u32(1..=most), times: Some(1), ..Trigger::default() },
    }
}

fn trigger(chance: &mut Rng) -> Trigger {
    let rarely = |chance: &mut Rng, most| if chance.u8(..5) == 0 { chance.u32(1..=most) } else { 1 };
    let (nth, every) = (rarely(chance, 5), rarely(chance, 3));
    let times = (chance.u8(..4) == 0).then(|| chance.u32(1..=3));
    let percent = if chance.u8(..10) == 0 { chance.u8(20..80) } else { 100 };
    let from = if chance.u8(..5) < 2 { chance.u64(..20_000) } else { 0 };
    let until = chance.bool().then(|| Duration::from_millis(from + chance.u64(1..40_000)));
    Trigger { nth, every, times, percent, from: Duration::from_millis(from), until, step: None }
}

fn call(chance: &mut Rng, dependencies: &[(&str, &[&str])]) -> FaultKind {
    let (name, operations) = one(chance, dependencies);
    // The last one is what sessions ask for.
    let operation = match chance.u8(..6) {
        0..=1 => None,
        2 => operations.first(),
        _ => operations.last(),
    };
    let operation = operation.map(|operation| (*operation).to_owned());
    let calls = Calls { dependency: name.to_owned(), operation };
    let fault = match chance.u8(..16) {
        0..=4 => CallFault::Fail { error: "connection to 10.0.3.7:5432 refused".to_owned() },
        5..=8 => CallFault::Hang {},
        9 => CallFault::Garbage {
            answer: one(chance, &["", "<html>502 Bad Gateway</html>", "null", "{\"ok\":false}"]).to_owned(),
        },
        10 => CallFault::Half {},
        _ => {
            let most = one(chance, &[100, 1000, 5000, 100_000]);
            CallFault::Delay { delay: Time(Duration::from_millis(chance.u64(1..=most))) }
        }
    };
    FaultKind::Call { calls, fault }
}

fn token(text: &str) -> Token {
    Token(text.to_owned())
}

fn line(bytes: &[u8]) -> Line {
    Line(bytes.to_vec())
}

/// A time of 1 ms to this many milliseconds.
fn time(chance: &mut Rng, most: u64) -> Time {
    Time(Duration::from_millis(chance.u64(1..=most)))
}

fn edge(chance: &mut Rng, steps: usize) -> Fault {
    match chance.u8(..17) {
        0..=6 => FaultKind::Head(head_edit(chance)).into(),
        7 => FaultKind::Answer(answer_edit(chance)).into(),
        16 => FaultKind::Connection(connection(chance)).into(),
        8..=10 => {
            let direction = one(chance, Direction::ALL);
            Fault { kind: FaultKind::Stream { direction, fault: stream(chance) }, trigger: occasionally(chance, 2) }
        }
        _ => {
            let frames = Frames {
                direction: one(chance, Direction::ALL),
                carries: match chance.u8(..4) {
                    0 => Some(one(chance, &[Carries::Text, Carries::Close, Carries::Ping, Carries::Pong])),
                    _ => None,
                },
                containing: match chance.u8(..4) {
                    0 => Some(one(chance, &["agent", "ping", "connection_established"]).to_owned()),
                    _ => None,
                },
            };
            let mut trigger = occasionally(chance, 5);
            if chance.u8(..8) == 0 {
                trigger = Trigger { step: Some(chance.usize(1..=steps.max(1))), ..Trigger::default() };
            }
            Fault { kind: FaultKind::Frame { frames, fault: frame(chance) }, trigger }
        }
    }
}

fn head_edit(chance: &mut Rng) -> HeadEdit {
    const HEADERS: [&str; 9] = [
        "Authorization",
        "Authorization",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Host",
        "Connection",
        "Upgrade",
        "Cookie",
    ];
    const VALUES: [(&str, &[u8]); 16] = [
        ("Host", b"["),
        ("Host", b"[::1"),
        ("Host", b""),
        ("Host", b"caf\xc3\xa9"),
        ("Host", b"a:b:c"),
        ("Origin", b"https://[bad"),
        ("Origin", b"\xff"),
        ("X-Forwarded-For", b"203.0.113.7"),
        ("X-Forwarded-Host", b"a\", b"),
        ("X-Forwarded-Proto", b""),
        ("Sec-WebSocket-Key", b"short"),
        ("Sec-WebSocket-Version", b"8"),
        ("Sec-WebSocket-Extensions", b"permessage-deflate; client_max_window_bits"),
        ("Authorization", b"{authorization}"),
        ("Sec-WebSocket-Protocol", b",,"),
        ("Cookie", b"session=\xff\xfe"),
    ];
    const QUERIES: [&[u8]; 6] = [b"", b"utm_source=x&utm_source=y", b"%", b"a=%ff%fe", b"caf\xc3\xa9=\xff", b"&&==&"];
    let header = token(one(chance, &HEADERS));
    match chance.u8(..25) {
        0..=3 => HeadEdit::Strip { header: token(one(chance, &["Authorization", "Sec-WebSocket-Protocol"])) },
        4 => HeadEdit::Strip { header },
        5 => HeadEdit::Rename { header: token("Authorization"), to: token("X-Forwarded-Authorization") },
        6 => HeadEdit::Duplicate { header },
        7 => HeadEdit::Capitalize { header },
        8 => HeadEdit::Fold { header },
        9 => HeadEdit::Move { header },
        10 => HeadEdit::Truncate { header, bytes: Count(chance.usize(1..=24)) },
        11 => HeadEdit::Pad {
            header: token(one(chance, &["Cookie", "X-Pad", "User-Agent"])),
            bytes: Count(one(chance, &[300, 9000, 70_000])),
        },
        12..=13 => {
            let (name, value) = one(chance, &VALUES);
            HeadEdit::Set { header: token(name), value: line(value) }
        }
        14 => {
            let (name, value) = one(chance, &VALUES);
            HeadEdit::Add { header: token(name), value: line(value) }
        }
        15 => HeadEdit::HopByHop {},
        16..=17 => HeadEdit::Query { query: line(one(chance, &QUERIES)) },
        18 => HeadEdit::PadQuery { bytes: Count(one(chance, &[100, 9000])) },
        19 => HeadEdit::Path { path: Path(one(chance, &[&b"/moved"[..], b"/%2e%2e/ws", b"/ws/", b"//ws"]).to_vec()) },
        20 => HeadEdit::Version { version: Version::Old },
        21 => HeadEdit::Method { method: token(one(chance, &["POST", "get", "BREW"])) },
        22 => HeadEdit::Pass {},
        23 => HeadEdit::Lower {},
        _ => {
            const FOLLOWING: [&[u8]; 4] = [
                b"\x81\x84\x00\x00\x00\x00ping",
                b"\x88\x82\x00\x00\x00\x00\x03\xe8",
                b"GET /health HTTP/1.1\r\nHost: relapse.test\r\n\r\n",
                b"\x00\x01garbage\r\n\r\n",
            ];
            HeadEdit::Follow { bytes: Raw(one(chance, &FOLLOWING).to_vec()) }
        }
    }
}

fn answer_edit(chance: &mut Rng) -> AnswerEdit {
    match chance.u8(..6) {
        0..=1 => AnswerEdit::Hijack {
            status: Count(one(chance, &[502, 503, 504])),
            body: "<html>upstream</html>".to_owned(),
        },
        2 => AnswerEdit::Set { header: token("Sec-WebSocket-Accept"), value: line(b"bm90IHRoZSBrZXk=") },
        3 => AnswerEdit::Set { header: token("Sec-WebSocket-Protocol"), value: line(b"nobody-offered-this") },
        4 => match one(chance, &["Upgrade", "Connection", "Content-Length", ""]) {
            "" => AnswerEdit::KeepUpgrade {},
            header => AnswerEdit::Strip { header: token(header) },
        },
        _ => match chance.u8(..3) {
            0 => AnswerEdit::Hold {},
            1 => AnswerEdit::Buffer { bytes: Count(one(chance, &[1, 100, 4096])) },
            _ => AnswerEdit::Follow { bytes: Raw(b"<html>hello</html>".to_vec()) },
        },
    }
}

fn connection(chance: &mut Rng) -> ConnectionFault {
    let body = "<html>upstream</html>".to_owned();
    match chance.u8(..5) {
        0 => ConnectionFault::Lifetime { after: time(chance, 60_000) },
        1 => ConnectionFault::Idle { direction: one(chance, Direction::ALL), after: time(chance, 60_000) },
        2 => ConnectionFault::LateAnswer { after: time(chance, 20_000), status: Count(504), body },
        3 => ConnectionFault::Retry {},
        _ => ConnectionFault::MissingAnswer { status: Count(502), body },
    }
}

fn stream(chance: &mut Rng) -> StreamFault {
    let after = Count(one(chance, &[1, 30, 200, 300, 500, 900]));
    match chance.u8(..9) {
        0 => StreamFault::Delay { delay: time(chance, 5000) },
        1 => StreamFault::Jitter { most: time(chance, 2000) },
        2 => StreamFault::Throttle { rate: Count(one(chance, &[1000, 10_000, 100_000])) },
        3..=4 => StreamFault::Slice { bytes: Count(one(chance, &[1, 2, 7, 100])) },
        5 => StreamFault::Cut { after },
        6 => StreamFault::Reset { after },
        7 => StreamFault::Stall { after },
        _ => StreamFault::Silence {},
    }
}

fn frame(chance: &mut Rng) -> FrameFault {
    match chance.u8(..16) {
        0 => FrameFault::Drop {},
        1 => FrameFault::Delay { delay: time(chance, 20_000) },
        2 => FrameFault::Duplicate {},
        3 => FrameFault::Swap {},
        4 => FrameFault::Join {},
        5 => FrameFault::Split {},
        6 => FrameFault::Replace {
            payload: Raw(
                one(chance, &[&b""[..], b"{}", b"[", b"null", b"\"\\ud800\"", b"{\"type\":\"chat\"}"]).to_vec()
            ),
        },
        7 => {
            let carries = one(chance, Carries::ALL);
            // More messages than a user may send in a minute would be refused to all clients of that user.
            let is_control = matches!(carries, Carries::Ping | Carries::Pong);
            let payloads = [&b""[..], b"{\"type\":\"ping\"}", b"\x03\xe8", b"\x03\xed"];
            FrameFault::Inject {
                carries,
                payload: Raw(one(chance, &payloads).to_vec()),
                count: Count(if is_control { one(chance, &[1, 3, 200]) } else { chance.usize(1..=3) }),
            }
        }
        8 => FrameFault::Suppress {},
        9..=10 => FrameFault::Close {
            code: Count(one(chance, &[1000, 1001, 1005, 1006, 1011, 1012, 1015, 999, 4000, 5000])),
            reason: one(chance, &["", "idle timeout"]).to_owned(),
        },
        _ => FrameFault::Break { rule: one(chance, Breach::ALL) },
    }
}

fn scope(chance: &mut Rng) -> ScopeEdit {
    let key = one(chance, keys::ALL).name.to_owned();
    match chance.u8(..8) {
        0..=2 => ScopeEdit::Drop { key },
        3 => ScopeEdit::Set { key, value: Value::None },
        4..=5 => ScopeEdit::Set { key, value: odd(chance) },
        6 => ScopeEdit::Set {
            key: one(chance, &["method", "query_params", "x"]).to_owned(),
            value: one(chance, &[Value::from("GET"), Value::None]),
        },
        _ => ScopeEdit::Headers { form: one(chance, HeaderForm::ALL) },
    }
}

/// A value of some type, most often of a wrong one.
fn odd(chance: &mut Rng) -> Value {
    let pair = |first: Value, second: Value| Value::List(vec![first, second]);
    match chance.u8(..16) {
        0 => Value::Bool(chance.bool()),
        1 => Value::Int(one(chance, &[0, -1, 65536])),
        2 => Value::Float(1.5),
        3 => Value::from(""),
        4 => Value::from("caf\u{e9} \u{2028}"),
        5 => Value::Bytes(bytes::Bytes::new()),
        6 => Value::Bytes(bytes::Bytes::from_static(b"\xff\xfe=%")),
        7 => Value::Bytes(bytes::Bytes::from_static(b"a=b")),
        8 => Value::List(Vec::new()),
        9 => pair("unix:/run/app.sock".into(), Value::None),
        10 => pair("2001:db8::1".into(), Value::Int(443)),
        11 => pair(Value::None, "443".into()),
        12 => Value::List(vec![Value::Int(1), Value::None]),
        13 => Value::Dict(std::collections::BTreeMap::new()),
        14 => Value::from("/prefix"),
        _ => Value::List(vec!["graphql-ws".into()]),
    }
}

fn event(chance: &mut Rng) -> (Events, EventFault) {
    const RECEIVED: [&str; 5] =
        ["websocket.connect", "websocket.receive", "websocket.receive", "websocket.disconnect", "http.request"];
    const SENT: [&str; 6] = [
        "websocket.accept",
        "websocket.send",
        "websocket.send",
        "websocket.close",
        "http.response.start",
        "http.response.body",
    ];
    const ERRORS: [&str; 5] = [
        "OSError: [Errno 32] Broken pipe",
        "OSError: [Errno 32] Broken pipe",
        "OSError: [Errno 104] Connection reset by peer",
        "RuntimeError: Unexpected ASGI message",
        "AssertionError: unauthorized",
    ];
    const RAISED: [&str; 4] = [
        "RuntimeError: the queue was closed",
        "ConnectionResetError: [Errno 104] the authentication header was lost",
        "KeyError: 'websocket'",
        "RuntimeError: missing upgrade",
    ];
    if chance.u8(..16) == 0 {
        return lifespan(chance);
    }
    let some = |chance: &mut Rng, names: &[&str]| Events((chance.u8(..5) > 0).then(|| one(chance, names).to_owned()));
    let fault = match chance.u8(..14) {
        0..=2 => EventFault::Give { given: given(chance) },
        3 => EventFault::Drop {},
        4 => EventFault::Repeat {},
        5..=6 => EventFault::ReceiveRaises { error: one(chance, &RAISED).to_owned() },
        7 => EventFault::ReceiveHangs {},
        8..=10 => EventFault::SendRaises { error: one(chance, &ERRORS).to_owned() },
        11 => EventFault::SendDelays { delay: time(chance, 20_000) },
        12 => EventFault::SendHangs {},
        _ => EventFault::Cancel {},
    };
    let events = match &fault {
        EventFault::Cancel {} => Events(None),
        fault if fault.is_on_send() => some(chance, &SENT),
        _ => some(chance, &RECEIVED),
    };
    // A second disconnect tells little beside one that lacks its code.
    let fault = match (fault, events.0.as_deref()) {
        (EventFault::Repeat {}, Some("websocket.disconnect")) => EventFault::OmitKey { key: "code".to_owned() },
        (fault, _) => fault,
    };
    (events, fault)
}

/// The events of a start and their faults.
fn lifespan(chance: &mut Rng) -> (Events, EventFault) {
    let raised = || "RuntimeError: no lifespan here".to_owned();
    let (event, fault) = match chance.u8(..8) {
        0 => ("lifespan.startup", EventFault::Drop {}),
        1 => ("lifespan.startup", EventFault::Repeat {}),
        2 => ("lifespan.startup", EventFault::ReceiveRaises { error: raised() }),
        3 => ("lifespan.startup", EventFault::Give { given: given(chance) }),
        4 => ("lifespan.startup.complete", EventFault::SendRaises { error: raised() }),
        5 => ("lifespan.startup.complete", EventFault::SendHangs {}),
        6 => ("lifespan.startup.complete", EventFault::SendDelays { delay: time(chance, 20_000) }),
        _ => ("lifespan.startup.complete", EventFault::StartupFails { message: "no database".to_owned() }),
    };
    (Events(Some(event.to_owned())), fault)
}

/// An event that comes where none was to come.
fn given(chance: &mut Rng) -> Value {
    let message = |text: Value, bytes: Value| {
        Value::from([("type", "websocket.receive".into()), ("text", text), ("bytes", bytes)])
    };
    let bytes = || Value::Bytes(bytes::Bytes::from_static(b"x"));
    match chance.u8(..10) {
        0..=2 => Value::from([
            ("type", "websocket.disconnect".into()),
            ("code", Value::Int(one(chance, &[1000, 1001, 1005, 1006, 1012]))),
        ]),
        3 => Value::from([("type", "websocket.disconnect".into())]),
        4 => Value::from([("type", "http.disconnect".into())]),
        5 => Value::from([("type", "websocket.connect".into())]),
        6 => message("{\"type\":\"ping\"}".into(), bytes()),
        7 => message(Value::None, Value::None),
        8 => message("{\"type\":\"ping\"}".into(), Value::None),
        _ => one(
            chance,
            &[Value::from([("type", "websocket.unheard_of".into())]), Value::from([("code", Value::Int(1))])],
        ),
    }
}

fn process(chance: &mut Rng, modules: &[&str]) -> Fault {
    let until = Some(Duration::from_millis(chance.u64(1..20_000)));
    let timed = Trigger { until, ..Trigger::default() };
    let always = Trigger::default();
    let unset = |name: &str| ProcessFault::UnsetVariable { name: name.to_owned() };
    let set = |name: &str, value: &str| ProcessFault::SetVariable { name: name.to_owned(), value: value.to_owned() };
    let (fault, trigger) = match chance.u8(..11) {
        0 => (ProcessFault::Absent {}, timed),
        1 => (ProcessFault::MissingModule { module: one(chance, modules).to_owned() }, timed),
        2 => (unset("LLM_API_KEY"), always),
        3 => (unset("JWT_SECRET_{ENVIRONMENT}"), always),
        4..=6 => (unset("ENVIRONMENT"), always),
        7..=8 => (ProcessFault::ShutDown { at: Time(Duration::from_millis(chance.u64(1..20_000))) }, always),
        9 => (set("ENVIRONMENT", one(chance, &["development", "staging", "production", "nonsense"])), always),
        _ => (ProcessFault::Restart {}, always),
    };
    Fault { kind: FaultKind::Process(fault), trigger }
}
