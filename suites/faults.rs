//! Each fault does what it says, and what it breaks is told from what the service breaks.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use relapse::{discover::servers, environment::Environment, hunt::GeneratorConfig};
use relapse_backend::{
    revision::Revision,
    runner::{FAULT_NAMES, KNOWN},
};
use relapse_core::{
    asgi::{
        event::Outbound,
        scope::{Scope, ScopeType, keys},
        value::Value,
    },
    client::step::{Action, Request},
    fault::{
        AnswerEdit, Breach, CallFault, Calls, Carries, Direction, EventFault, Events, Fault, FaultKind, FrameFault,
        Frames, HeadEdit, HeaderForm, ScopeEdit, StreamFault, Trigger,
        setting::{Count, GivenSettings, Time},
    },
    judge::{
        cause::Cause,
        classify::Exchange,
        outcome::{Class, Ending},
    },
    record::transcript::{BodyEnd, EventKind, Transcript},
    wire::{
        close_code::CloseCode,
        frame::Opcode,
        head::{RequestHead, header},
    },
};
use rstest::rstest;

use crate::support::{on_backend, open, property_config, server_names, step, wait};

const SERVER: &str = "uvicorn-0.35";

fn session() -> Vec<relapse_core::client::step::Step> {
    let ask = r#"{"type":"user_message","content":"hello"}"#.to_owned();
    vec![
        open(),
        wait("connection_established"),
        step(Action::SendText(ask)),
        wait("agent_completed"),
        step(Action::Close(CloseCode::NORMAL)),
    ]
}

fn under(faults: Vec<Fault>, steps: &[relapse_core::client::step::Step]) -> Transcript {
    on_backend(Revision::repaired(), Environment::Staging, SERVER, faults, steps)
}

fn any_frame(direction: Direction) -> Frames {
    Frames { direction, carries: None, containing: None }
}

fn frames(direction: Direction, fault: FrameFault) -> FaultKind {
    FaultKind::Frame { frames: any_frame(direction), fault }
}

fn once(kind: FaultKind, nth: u32) -> Fault {
    Fault { kind, trigger: Trigger { nth, times: Some(1), ..Trigger::default() } }
}

fn count(transcript: &Transcript, wanted: impl Fn(&EventKind) -> bool) -> usize {
    transcript.events.iter().filter(|event| wanted(&event.what)).count()
}

fn outcome(transcript: &Transcript) -> relapse_core::judge::outcome::Outcome {
    Exchange::of(transcript, 0).outcome()
}

/// Faults that only delay, slice or cut messages in the middle go unnoticed: the same session, frame for frame.
#[rstest]
#[case::delayed(FaultKind::Stream { direction: Direction::Both, fault: StreamFault::Delay { delay: Time(Duration::from_millis(200)) } })]
#[case::jittered(FaultKind::Stream { direction: Direction::Both, fault: StreamFault::Jitter { most: Time(Duration::from_millis(200)) } })]
#[case::throttled(FaultKind::Stream { direction: Direction::ToClient, fault: StreamFault::Throttle { rate: Count(10_000) } })]
#[case::single_bytes(FaultKind::Stream { direction: Direction::Both, fault: StreamFault::Slice { bytes: Count(1) } })]
#[case::joined(once(frames(Direction::ToClient, FrameFault::Join {}), 2))]
#[case::no_such_frame(FaultKind::Frame {
    frames: Frames { containing: Some("no such text".to_owned()), ..any_frame(Direction::Both) },
    fault: FrameFault::Drop {},
})]
fn what_is_only_carried_otherwise_arrives(#[case] fault: impl Into<Fault>) {
    let fault = fault.into();
    let changed = under(vec![fault.clone()], &session());
    assert_eq!(outcome(&changed).class, Class::Served, "{fault}: {}", outcome(&changed));
    let untouched = under(Vec::new(), &session());
    assert_eq!(Exchange::of(&changed, 0).messages, Exchange::of(&untouched, 0).messages, "{fault}");
    let waits = !fault.to_string().contains("no such text");
    assert_eq!(changed.fired.iter().any(|&count| count > 0), waits, "{fault}");
}

/// A message in two pieces is the same message.
#[test]
fn a_split_message_is_one_message() {
    let transcript = under(vec![frames(Direction::Both, FrameFault::Split {}).into()], &session());
    assert_eq!(outcome(&transcript).class, Class::Served);
    assert_eq!(count(&transcript, |what| matches!(what, EventKind::MessageSeen(_))), 7);
}

/// Breaks by the edge are its own: never a class that accuses the service.
#[rstest]
#[case::cut(StreamFault::Cut { after: Count(400) }, Ending::Drop)]
#[case::reset(StreamFault::Reset { after: Count(400) }, Ending::Drop)]
#[case::stalled(StreamFault::Stall { after: Count(400) }, Ending::Hang { waiting_for: String::new() })]
#[case::silent(StreamFault::Silence {}, Ending::Hang { waiting_for: String::new() })]
fn a_broken_stream_is_unclean(#[case] fault: StreamFault, #[case] expected: Ending) {
    let kind = FaultKind::Stream { direction: Direction::ToClient, fault };
    let transcript = under(vec![kind.clone().into()], &session());
    let outcome = outcome(&transcript);
    assert_eq!((outcome.class, outcome.cause), (Class::CutByFault, Cause::Injected), "{kind}: {outcome}");
    let is_same = std::mem::discriminant(&outcome.ending) == std::mem::discriminant(&expected);
    assert!(is_same, "{kind}: {outcome}");
    assert_eq!(transcript.fired, [1], "{kind}");
    assert_eq!(transcript.residue, Some(relapse_core::record::transcript::Leftovers::default()), "{kind}");
}

/// Every server gives a client up that breaks RFC 6455, the application ends, and the class is no drop.
#[rstest]
fn a_violation_of_ours_is_unclean(
    #[values("uvicorn-0.35", "uvicorn-0.54", "uvicorn-0.54-wsproto", "hypercorn-0.18", "daphne-4.2", "granian-2.8")]
    server: &str,
) {
    for &rule in Breach::ALL {
        let fault = once(frames(Direction::ToServer, FrameFault::Break { rule }), 1);
        let transcript = on_backend(Revision::repaired(), Environment::Staging, server, vec![fault], &session());
        let outcome = outcome(&transcript);
        assert_eq!(
            (outcome.class, outcome.cause),
            (Class::CutByFault, Cause::Injected),
            "{rule} behind {server}: {outcome}"
        );
        assert_eq!(count(&transcript, |what| matches!(what, EventKind::Returned)), 1, "{rule} behind {server}");
        assert_eq!(
            transcript.residue,
            Some(relapse_core::record::transcript::Leftovers::default()),
            "{rule} behind {server}"
        );
    }
}

/// A code that may not be sent is refused by its receiver, and one that may ends the session.
#[rstest]
#[case(1000, true)]
#[case(1012, true)]
#[case(4000, true)]
#[case(999, false)]
#[case(1005, false)]
#[case(1006, false)]
#[case(1015, false)]
#[case(5000, false)]
fn the_edge_closes_with_any_code(#[case] code: usize, #[case] legal: bool) {
    let close = FrameFault::Close { code: Count(code), reason: "idle".to_owned() };
    let transcript = under(vec![once(frames(Direction::ToClient, close), 2)], &session());
    let refused = count(&transcript, |what| matches!(what, EventKind::BadFrameSeen(_)));
    assert_eq!(refused, usize::from(!legal), "{code}");
    assert!(outcome(&transcript).class.is_good(), "{code}: {}", outcome(&transcript));
    assert_eq!(count(&transcript, |what| matches!(what, EventKind::Returned)), 1, "{code}");
}

#[rstest]
#[case::dropped(FrameFault::Drop {}, 0)]
#[case::twice(FrameFault::Duplicate {}, 2)]
#[case::flooded(FrameFault::Inject { carries: Carries::Ping, payload: b"x".to_vec().into(), count: Count(300) }, 1)]
fn a_frame_is_carried_as_often_as_it_says(#[case] fault: FrameFault, #[case] expected: usize) {
    let kind =
        FaultKind::Frame { frames: Frames { carries: Some(Carries::Text), ..any_frame(Direction::ToServer) }, fault };
    let transcript = under(vec![once(kind.clone(), 1)], &session());
    let received = |what: &EventKind| matches!(what, EventKind::Received(event) if event.name() == "websocket.receive");
    assert_eq!(count(&transcript, received), expected, "{kind}");
    let pongs = |what: &EventKind| matches!(what, EventKind::FrameSeen(frame) if frame.opcode == Opcode::Pong);
    assert_eq!(count(&transcript, pongs), if kind.name() == "inject_frame" { 300 } else { 0 });
}

/// The fault acts while the client performs one step, and on frames that say something.
#[test]
fn a_frame_fault_is_aimed() {
    let said = Frames { containing: Some("tool_executing".to_owned()), ..any_frame(Direction::ToClient) };
    let kind = FaultKind::Frame { frames: said, fault: FrameFault::Drop {} };
    let at = |step| Fault { kind: kind.clone(), trigger: Trigger { step: Some(step), ..Trigger::default() } };
    let lost = under(vec![at(4)], &session());
    assert!(!Exchange::of(&lost, 0).messages.iter().any(|name| name == "tool_executing"));
    assert_eq!((outcome(&lost).class, lost.fired), (Class::CutByFault, vec![1]));
    assert_eq!(under(vec![at(2)], &session()).fired, [0]);
}

/// A middlebox's answer in the server's place is not the service's answer, which ran and ended.
#[test]
fn a_hijacked_answer_is_not_the_services() {
    let kind = FaultKind::Answer(AnswerEdit::Hijack { status: Count(502), body: "<html>".to_owned() });
    for steps in [session(), vec![step(Action::Request(Request::standard("GET", "/health")))]] {
        let transcript = under(vec![kind.clone().into()], &steps);
        let outcome = outcome(&transcript);
        assert_eq!(outcome.ending, Ending::Http { status: 502, complete: true });
        assert_eq!(outcome.class, Class::CutByFault);
        assert_eq!(count(&transcript, |what| matches!(what, EventKind::Returned)), 1);
    }
}

#[rstest]
#[case::accept_key(AnswerEdit::Set { header: "Sec-WebSocket-Accept".into(), value: b"x".to_vec().into() })]
#[case::subprotocol(AnswerEdit::Set { header: "Sec-WebSocket-Protocol".into(), value: b"x".to_vec().into() })]
#[case::no_upgrade(AnswerEdit::Strip { header: "Upgrade".into() })]
#[case::body(AnswerEdit::Follow { bytes: b"<html>".to_vec().into() })]
fn a_spoilt_handshake_is_given_up(#[case] edit: AnswerEdit) {
    let transcript = under(vec![FaultKind::Answer(edit.clone()).into()], &session());
    assert_eq!(outcome(&transcript).class, Class::CutByFault, "{edit}: {}", outcome(&transcript));
    let gives_up = |what: &EventKind| matches!(what, EventKind::HandshakeRefused { .. } | EventKind::BadFrameSeen(_));
    assert_eq!(count(&transcript, gives_up), 1, "{edit}");
}

/// A refused upgrade that says it is one is a refusal all the same; another answer stays as it is.
#[test]
fn a_refusal_may_keep_the_headers_of_an_upgrade() {
    let keep = || vec![FaultKind::Answer(AnswerEdit::KeepUpgrade {}).into()];
    let refused =
        Request { credential: relapse_core::client::credential::Credential::None, ..Request::standard("GET", "/ws") };
    let transcript = under(keep(), &[step(Action::Open(refused))]);
    assert_eq!((outcome(&transcript).class, transcript.fired.as_slice()), (Class::RefusedAuth, &[1][..]));
    let seen = transcript.events.iter().find_map(|event| match &event.what {
        EventKind::ResponseSeen(head) => Some(head.clone()),
        _ => None,
    });
    let seen = seen.unwrap();
    assert_eq!((seen.status, header(&seen.headers, "upgrade")), (401, Some(&b"websocket"[..])));
    assert_eq!(under(keep(), &session()).fired, [0]);
    assert_eq!(under(keep(), &[step(Action::Request(Request::standard("GET", "/nowhere")))]).fired, [0]);
}

/// A first frame in the same write as the upgrade is answered once the session is open, and another request after its
/// own answer.
#[test]
fn what_follows_a_request_is_taken_after_it() {
    let ping = b"\x81\x8f\x00\x00\x00\x00{\"type\":\"ping\"}".to_vec();
    let kind = FaultKind::Head(HeadEdit::Follow { bytes: ping.into() });
    let transcript = under(vec![kind.into()], &[open(), wait("connection_established"), wait("pong")]);
    assert_eq!(outcome(&transcript).class, Class::Served);
    let again = b"GET /health HTTP/1.1\r\nHost: relapse.test\r\n\r\n".to_vec();
    let kind = FaultKind::Head(HeadEdit::Follow { bytes: again.into() });
    let transcript = under(vec![kind.into()], &[step(Action::Request(Request::standard("GET", "/health")))]);
    assert_eq!(count(&transcript, |what| matches!(what, EventKind::Called { .. })), 2);
    assert_eq!(count(&transcript, |what| matches!(what, EventKind::BodySeen { end: BodyEnd::Surplus, .. })), 1);
}

/// Whatever a client asks for, the scope that each server makes of it obeys the specification.
#[test]
fn scopes_obey_the_specification() {
    let header = ("[a-zA-Z-]{1,12}", prop::collection::vec(0x20_u8..=0xff, 0..20));
    let head = ("[A-Z]{1,8}", "/[ -~]{0,30}", prop::collection::vec(header, 0..8), 0_u8..2);
    TestRunner::new(property_config())
        .run(&head, |(method, target, fields, minor_version)| {
            let headers = fields.into_iter().map(|(name, value)| (name.into_bytes().into(), value.into())).collect();
            let head = RequestHead { method, target: target.into_bytes().into(), minor_version, headers };
            for profile in servers().unwrap() {
                for kind in [ScopeType::Http, ScopeType::Websocket] {
                    let scope = Scope::build(kind, &head, &profile.scope, 0);
                    prop_assert_eq!(keys::breaches(kind, &scope), vec![], "{}: {:?}", profile.name, scope);
                }
            }
            Ok(())
        })
        .unwrap();
}

/// A legal edit is served, and a hostile one is served or refused, on either protocol and behind every server. None of
/// them is an error of the service.
#[rstest]
fn any_scope_is_taken(
    #[values("uvicorn-0.35", "uvicorn-0.54", "uvicorn-0.54-wsproto", "hypercorn-0.18", "daphne-4.2", "granian-2.8")]
    server: &str,
) {
    let values = [
        Value::None,
        Value::Bool(true),
        Value::Int(-1),
        Value::Float(0.5),
        Value::from(""),
        Value::from("text"),
        Value::Bytes(bytes::Bytes::from_static(b"\xff")),
        Value::List(vec![Value::None]),
        Value::List(vec!["/run/app.sock".into(), Value::None]),
        Value::from([]),
    ];
    let edits = keys::ALL.iter().flat_map(|key| {
        let set = values.iter().map(|value| ScopeEdit::Set { key: key.name.to_owned(), value: value.clone() });
        set.chain([ScopeEdit::Drop { key: key.name.to_owned() }])
    });
    let edits = edits.chain(HeaderForm::ALL.iter().map(|form| ScopeEdit::Headers { form: *form }));
    let ask = [open(), wait("connection_established")];
    for edit in edits {
        for (on, steps) in [
            (ScopeType::Websocket, ask.to_vec()),
            (ScopeType::Http, vec![step(Action::Request(Request::standard("GET", "/health")))]),
        ] {
            let fault = FaultKind::Scope(edit.clone());
            let transcript = on_backend(Revision::repaired(), Environment::Staging, server, vec![fault.into()], &steps);
            let outcome = outcome(&transcript);
            let label = format!("{edit} on {} behind {server}: {outcome}", on.name());
            assert!(outcome.class.is_good(), "{label}");
            let legality = edit.legality(on);
            // A scope that differs from the request is answered for its own content.
            let says_the_same = matches!(&edit, ScopeEdit::Drop { key } if key != "subprotocols");
            if legality.is_legal && says_the_same {
                assert_eq!(outcome.class, Class::Served, "{label}; {}", legality.sentence);
            }
        }
    }
}

fn on_event(event: &str, fault: EventFault) -> FaultKind {
    FaultKind::Event { events: Events(Some(event.to_owned())), fault }
}

fn disconnect(code: i64) -> Value {
    Value::from([("type", "websocket.disconnect".into()), ("code", Value::Int(code))])
}

/// A server tells by an `OSError` that the client is gone (ASGI, Disconnected Client): the application ends quietly,
/// whenever it is told, over WebSocket and HTTP.
#[rstest]
fn a_send_that_fails_ends_the_call(
    #[values("websocket.accept", "websocket.send", "websocket.close", "http.response.start", "http.response.body")]
    event: &str,
    #[values(1, 2, 4)] nth: u32,
) {
    let error = "OSError: [Errno 32] Broken pipe".to_owned();
    let fault = once(on_event(event, EventFault::SendRaises { error }), nth);
    let disconnecting = vec![
        open(),
        wait("connection_established"),
        step(Action::SendText(r#"{"type":"disconnect"}"#.to_owned())),
        step(Action::Leave),
    ];
    for steps in [session(), disconnecting, vec![step(Action::Request(Request::standard("GET", "/health")))]] {
        let transcript = under(vec![fault.clone()], &steps);
        let raised = count(&transcript, |what| {
            matches!(
                what,
                EventKind::Raised(_) | EventKind::Logged { level: relapse_core::record::transcript::Level::Error, .. }
            )
        });
        assert_eq!(raised, 0, "{event} {nth}: {:?}", transcript.events.last());
        assert!(outcome(&transcript).class.is_good(), "{event} {nth}: {}", outcome(&transcript));
        assert_eq!(transcript.residue, Some(relapse_core::record::transcript::Leftovers::default()));
    }
}

/// A client may be gone at any moment, and a server may say so with any code.
#[rstest]
fn an_early_disconnect_ends_the_call(#[values(1000, 1001, 1005, 1006, 1012)] code: i64, #[values(1, 2)] nth: u32) {
    let fault = once(on_event("websocket.receive", EventFault::Give { given: disconnect(code) }), nth);
    let mut steps = session();
    steps.insert(2, step(Action::SendText(r#"{"type":"ping"}"#.to_owned())));
    let transcript = under(vec![fault], &steps);
    assert_eq!(transcript.fired, [1]);
    assert_eq!(count(&transcript, |what| matches!(what, EventKind::Returned)), 1);
    assert_eq!(count(&transcript, |what| matches!(what, EventKind::Raised(_))), 0);
}

/// An application raises on an event that is none (ASGI, Error Handling), and that is not held against it.
#[rstest]
#[case::connect_twice("websocket.connect", EventFault::Repeat {})]
#[case::unknown("websocket.receive", EventFault::Give { given: Value::from([("type", "websocket.x".into())]) })]
#[case::no_type("websocket.receive", EventFault::Give { given: Value::from([]) })]
#[case::disconnect_without_code("websocket.receive", EventFault::Give { given: Value::from([("type", "websocket.disconnect".into())]) })]
#[case::message_before_connect("websocket.connect", EventFault::Give { given: Value::from([("type", "websocket.receive".into()), ("text", "x".into())]) })]
#[case::neither("websocket.receive", EventFault::Give { given: Value::from([("type", "websocket.receive".into()), ("text", Value::None)]) })]
#[case::both("websocket.receive", EventFault::Give {
    given: Value::from([("type", "websocket.receive".into()), ("text", "x".into()), ("bytes", Value::Bytes(bytes::Bytes::new()))]),
})]
#[case::raising("websocket.receive", EventFault::ReceiveRaises { error: "RuntimeError: gone".to_owned() })]
#[case::cancelled("websocket.receive", EventFault::Cancel {})]
fn a_server_that_misbehaves_is_not_the_service(#[case] event: &str, #[case] fault: EventFault) {
    let transcript = under(vec![once(on_event(event, fault.clone()), 1)], &session());
    assert_eq!(transcript.fired, [1], "{fault}");
    assert!(outcome(&transcript).class.is_good(), "{fault}: {}", outcome(&transcript));
    assert_eq!(count(&transcript, |what| matches!(what, EventKind::Returned | EventKind::Raised(_))), 1, "{fault}");
    assert_eq!(transcript.residue, Some(relapse_core::record::transcript::Leftovers::default()), "{fault}");
}

/// A cancelled call sends nothing more: no frame, no close, no log.
#[rstest]
fn a_cancelled_call_is_silent(#[values(1, 2, 3, 4, 5, 6, 7, 8)] nth: u32) {
    let fault = once(FaultKind::Event { events: Events(None), fault: EventFault::Cancel {} }, nth);
    let transcript = under(vec![fault], &session());
    let cancelled = transcript
        .events
        .iter()
        .position(|event| matches!(&event.what, EventKind::CallRaised(exception) if exception.is_cancellation()));
    let after = &transcript.events[cancelled.unwrap()..];
    assert!(!after.iter().any(|event| matches!(event.what, EventKind::Sent(_))), "{nth}");
    assert!(
        after.iter().any(|event| matches!(&event.what, EventKind::Raised(exception) if exception.is_cancellation())),
        "{nth}"
    );
}

/// A dependency that answers nonsense, or half an answer, has failed, and its text reaches no client.
#[rstest]
fn an_answer_that_is_none_is_a_failure(
    #[values("auth_service", "database", "agent_supervisor", "thread_service", "websocket_bridge")] dependency: &str,
    #[values("", "null", "[]", "{\"ok\":1}", "<html>secret of the upstream</html>", "{\"ok\":false}")] answer: &str,
) {
    let calls = || Calls { dependency: dependency.to_owned(), operation: None };
    let garbage = FaultKind::Call { calls: calls(), fault: CallFault::Garbage { answer: answer.to_owned() } };
    let half = FaultKind::Call { calls: calls(), fault: CallFault::Half {} };
    for kind in [garbage, half] {
        let transcript = under(vec![kind.clone().into()], &session());
        let outcome = outcome(&transcript);
        let is_critical = transcript.service.critical.contains(&dependency);
        assert_eq!(
            outcome.class,
            if is_critical { Class::RefusedUnavailable } else { Class::Served },
            "{kind}: {outcome}"
        );
        assert!(!transcript.reads(0, "secret of the upstream"), "{kind}");
    }
}

/// A chance of one half acts now and then, and the same seed decides the same.
#[test]
fn a_chance_is_decided_by_the_seed() {
    let calls = Calls { dependency: "websocket_bridge".to_owned(), operation: Some("emit".to_owned()) };
    let kind = FaultKind::Call { calls, fault: CallFault::Delay { delay: Time(Duration::from_millis(1)) } };
    let fault = Fault { kind, trigger: Trigger { percent: 50, ..Trigger::default() } };
    let steps: Vec<_> = std::iter::repeat_n(session(), 8).flatten().collect();
    let fired = |_| under(vec![fault.clone()], &steps).fired[0];
    let (first, again) = (fired(1), fired(2));
    assert_eq!(first, again);
    assert!((10..30).contains(&first), "{first} of 40");
}

/// Data that a client does not read has to wait, and the service waits with it.
#[test]
fn a_client_that_reads_nothing_gets_everything_later() {
    let mut steps = session();
    steps.insert(3, relapse_core::client::step::Step::new(Action::Freeze, Duration::from_secs(10)));
    let transcript = under(Vec::new(), &steps);
    assert_eq!(outcome(&transcript).class, Class::Served);
    assert_eq!(count(&transcript, |what| matches!(what, EventKind::StoppedReading)), 1);
}

/// The settings of every kind are read as they are written, and none is forgotten.
#[test]
fn settings_survive_their_file() {
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..5000 {
        for fault in relapse::hunt::draw(seed, &GeneratorConfig::everything(server_names(), FAULT_NAMES)).faults {
            let settings = fault.kind.write().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            let mut settings = GivenSettings(settings);
            let read = FaultKind::read(fault.kind.name(), &mut settings).unwrap().unwrap();
            assert_eq!(read, fault.kind);
            assert!(settings.0.is_empty(), "{}: {settings:?}", fault.kind);
            kinds.insert(fault.kind.name());
        }
    }
    assert_eq!(kinds.len(), FaultKind::all().count());
    let names: std::collections::BTreeSet<&str> = FaultKind::all().map(|kind| kind.name).collect();
    assert_eq!(names.len(), FaultKind::all().count(), "a name is given twice");
}

/// The application's own misuse of `send` is its own, however many faults there are.
#[test]
fn a_defect_is_not_excused_by_a_fault_beside_it() {
    let steps = session();
    let slow = FaultKind::Stream {
        direction: Direction::Both,
        fault: StreamFault::Delay { delay: Time(Duration::from_millis(10)) },
    };
    let defect = Revision::only(relapse_backend::defect::Defect::QueryParamsOnUrl);
    let transcript = on_backend(defect, Environment::Staging, SERVER, vec![slow.into()], &steps);
    assert_eq!(outcome(&transcript).class, Class::ServerError);
    let raised = |what: &EventKind| matches!(what, EventKind::Raised(_));
    assert_eq!(count(&transcript, raised), 1);
    assert_eq!(count(&transcript, |what| matches!(what, EventKind::Sent(Outbound::WebsocketAccept { .. }))), 0);
}

/// A fault without a visible effect excuses nothing: the result of every case on its version with the bug is classed the same
/// beside it.
#[rstest]
#[case::sliced(FaultKind::Stream { direction: Direction::Both, fault: StreamFault::Slice { bytes: Count(7) } })]
#[case::delayed(FaultKind::Stream { direction: Direction::Both, fault: StreamFault::Delay { delay: Time(Duration::from_millis(1)) } })]
#[case::split(frames(Direction::ToServer, FrameFault::Split {}))]
#[case::sending(FaultKind::Event { events: Events(None), fault: EventFault::SendDelays { delay: Time(Duration::from_millis(1)) } })]
#[case::capitals(FaultKind::Head(HeadEdit::Capitalize { header: "Host".into() }))]
#[case::passed(FaultKind::Head(HeadEdit::Pass {}))]
fn a_harmless_fault_excuses_nothing(#[case] kind: FaultKind) {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
    let runner = relapse_backend::runner::BackendRunner::default();
    let mut looked_at = 0;
    for case in relapse::discover::Catalogue::read(&directory, KNOWN).unwrap().cases {
        let mut with = relapse::case::Case::clone(&case);
        with.faults.push(kind.clone().into());
        // uvicorn 0.35 sends a denial response as far as it has come when the application waits in the middle of it.
        let server: Vec<_> = servers().unwrap().into_iter().filter(|server| server.name == "uvicorn-0.54").collect();
        let trial = |case: relapse::case::Case| {
            relapse::trial::Trial::of(&[std::sync::Arc::new(case)], &server, Some(&server)).remove(0)
        };
        let run = |case: relapse::case::Case| {
            runner.run(&trial(case), relapse_backend::revision::Revision::from(&with.twin), 1).unwrap()
        };
        let (before, beside) = (run(relapse::case::Case::clone(&case)), run(with.clone()));
        assert_eq!(beside.outcome.class, before.outcome.class, "{} with {kind}: {}", case.name, beside.outcome);
        looked_at += usize::from(beside.transcript.fired.last().is_some_and(|&count| count > 0));
    }
    assert!(looked_at > 20, "{kind} acted in {looked_at} cases");
}

/// The application's own decision stays its own, whatever acted on the way.
#[rstest]
#[case::chose_1011(relapse_backend::defect::Defect::UnknownTypeRaises, FrameFault::Duplicate {}, Class::ServerError)]
#[case::swallowed(relapse_backend::defect::Defect::MessageCallArity, FrameFault::Split {}, Class::DisguisedError)]
fn a_frame_fault_does_not_excuse_the_application(
    #[case] defect: relapse_backend::defect::Defect,
    #[case] fault: FrameFault,
    #[case] expected: Class,
) {
    let say = step(Action::SendText(r#"{"type":"no_such_type"}"#.to_owned()));
    let steps = [open(), wait("connection_established"), say, wait("ack")];
    let fault = once(frames(Direction::Both, fault), 1);
    let transcript = on_backend(Revision::only(defect), Environment::Staging, SERVER, vec![fault], &steps);
    assert_eq!(outcome(&transcript).class, expected, "{}", outcome(&transcript));
}

/// When frames are carried, and in which order.
#[rstest]
#[case::swapped(FrameFault::Swap {}, &["agent_thinking", "agent_started", "tool_executing"], 0)]
#[case::delayed(FrameFault::Delay { delay: Time(Duration::from_secs(3)) }, &["agent_started", "agent_thinking", "tool_executing"], 3)]
fn frames_arrive_as_the_fault_says(#[case] fault: FrameFault, #[case] expected: &[&str], #[case] after_s: u64) {
    let started = Frames { containing: Some("agent_started\"".to_owned()), ..any_frame(Direction::ToClient) };
    let kind = FaultKind::Frame { frames: started, fault };
    let trigger = Trigger { nth: 2, times: Some(1), ..Trigger::default() };
    // The welcome names the agent events too.
    let transcript = under(vec![Fault { kind: kind.clone(), trigger }], &session());
    let reading = Exchange::of(&transcript, 0);
    assert_eq!(reading.messages[1..4], *expected, "{kind}");
    let texts = |event: &&relapse_core::record::transcript::Event| matches!(&event.what, EventKind::FrameSeen(frame) if frame.opcode == Opcode::Text);
    let times: Vec<u64> = transcript.events.iter().filter(texts).map(|event| event.at.as_secs()).collect();
    assert_eq!(times[1], after_s, "{kind}");
}

/// A frame held for the next one goes with it, and not before.
#[test]
fn a_joined_frame_waits_for_the_next_one() {
    let started = Frames { containing: Some("agent_completed".to_owned()), ..any_frame(Direction::ToClient) };
    let join = Fault {
        kind: FaultKind::Frame { frames: started, fault: FrameFault::Join {} },
        trigger: Trigger { nth: 2, times: Some(1), ..Trigger::default() },
    };
    let calls = Calls { dependency: "websocket_bridge".to_owned(), operation: None };
    let slow = FaultKind::Call { calls, fault: CallFault::Delay { delay: Time(Duration::from_millis(400)) } };
    let transcript = under(vec![join, slow.into()], &session());
    let seen = |name: &str| {
        let is_it = |event: &&relapse_core::record::transcript::Event| matches!(&event.what, EventKind::FrameSeen(frame) if holds(&frame.payload, &format!("\"type\":\"{name}\"")));
        transcript.events.iter().find(is_it).map(|event| event.at)
    };
    assert_eq!(transcript.fired[0], 1);
    assert_eq!(seen("agent_completed"), seen("agent_response_complete"));
}

fn holds(payload: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(payload).contains(text)
}

/// Jitter takes time, and an event that is repeated comes twice.
#[test]
fn jitter_takes_time_and_a_repeated_event_comes_twice() {
    let jitter = StreamFault::Jitter { most: Time(Duration::from_secs(2)) };
    let transcript =
        under(vec![FaultKind::Stream { direction: Direction::ToClient, fault: jitter }.into()], &session());
    let welcomed = transcript.events.iter().find(|event| matches!(event.what, EventKind::FrameSeen(_))).unwrap().at;
    assert!(welcomed > Duration::ZERO && welcomed <= Duration::from_secs(4), "{welcomed:?}");
    let repeat = on_event("websocket.receive", EventFault::Repeat {});
    let ping = step(Action::SendText(r#"{"type":"ping"}"#.to_owned()));
    let transcript =
        under(vec![repeat.into()], &[open(), wait("connection_established"), ping, wait("pong"), wait("pong")]);
    assert_eq!(outcome(&transcript).class, Class::Served, "{}", outcome(&transcript));
}

/// However much waits on its way, all of it arrives when the sender is gone.
#[test]
fn a_slow_edge_loses_nothing() {
    use relapse_core::plan::Plan;
    use relapse_simulate::{
        clock::{Clock, Runtime},
        edge,
        link::Link,
        recorder::Recorder,
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for size in [1_usize << 10, 1 << 20, 3 << 20] {
        let received = Runtime::new(Clock::Virtual).block_on(async {
            let delay = StreamFault::Delay { delay: Time(Duration::from_secs(1)) };
            let faults = vec![FaultKind::Stream { direction: Direction::Both, fault: delay }.into()];
            let recorder = Recorder::new(Plan { seed: 1, faults });
            let ((mut client, near), (far, mut server)) = (Link::pair(), Link::pair());
            let carried = tokio::spawn(edge::relay(near, Some(far), recorder.scribe(0), None));
            let send = async {
                client.write_all(&vec![b'x'; size]).await.unwrap();
                client.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            let (_, read) = tokio::join!(send, server.read_to_end(&mut received));
            read.unwrap();
            carried.await.unwrap();
            received.len()
        });
        assert_eq!(received, size);
    }
}
