//! The words: values, heads, scopes, frames, and the ASGI state machine.

use bytes::BytesMut;
use proptest::prelude::*;
use relapse_core::{
    asgi::{
        event::{Inbound, Machine, Outbound},
        scope::{Scope, ScopeType},
        value::{Value, escape_bytes, unescape_bytes},
    },
    wire::{
        close_code::CloseCode,
        frame::{Frame, FrameError, Opcode},
        head::RequestHead,
        percent,
    },
};
use rstest::rstest;

use crate::support::{profile, property_config};

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::None),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_filter("NaN differs from itself", |float| !float.is_nan()).prop_map(Value::Float),
        ".*".prop_map(Value::Str),
        any::<Vec<u8>>().prop_map(|bytes| Value::Bytes(bytes.into())),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            prop::collection::btree_map("\\$?[a-z]{0,6}", inner, 0..4).prop_map(|entries| {
                Value::Dict(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #![proptest_config(property_config())]

    #[test]
    fn a_value_survives_its_json_form(value in any_value()) {
        let json = serde_json::to_string(&value).unwrap();
        prop_assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value, "{}", json);
    }

    #[test]
    fn bytes_survive_their_text_form(bytes: Vec<u8>) {
        prop_assert_eq!(unescape_bytes(&escape_bytes(&bytes)).unwrap(), bytes);
    }

    #[test]
    fn a_frame_survives_the_wire_however_it_is_cut(payload: Vec<u8>, mask: Option<[u8; 4]>, cut in 0_usize..64) {
        let frame = Frame { mask, ..Frame::new(Opcode::Binary, payload) };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let cut = cut.min(bytes.len() - 1);
        let mut input = BytesMut::from(&bytes[..cut]);
        prop_assert_eq!(Frame::decode(&mut input, 1 << 20), Ok(None));
        input.extend_from_slice(&bytes[cut..]);
        prop_assert_eq!(Frame::decode(&mut input, 1 << 20), Ok(Some(frame)));
        prop_assert!(input.is_empty());
    }
}

#[rstest]
#[case::unknown_tag(r#"{"$what":1}"#)]
#[case::not_alone(r#"{"$bytes":"a","x":1}"#)]
#[case::half_an_escape(r#"{"$bytes":"\\x4"}"#)]
#[case::too_large("18446744073709551615")]
fn a_value_that_cannot_be_is_refused(#[case] json: &str) {
    assert!(serde_json::from_str::<Value>(json).is_err());
}

#[test]
fn a_frame_that_announces_too_much_is_refused_before_it_is_read() {
    let mut bytes = Vec::new();
    Frame::new(Opcode::Text, vec![b'x'; 200]).encode(&mut bytes);
    let mut input = BytesMut::from(&bytes[..4]);
    assert_eq!(Frame::decode(&mut input, 100), Err(FrameError::TooLong { announced: 200 }));
}

#[rstest]
#[case(999, false)]
#[case(1000, true)]
#[case(1003, true)]
#[case(1004, false)]
#[case(1005, false)]
#[case(1006, false)]
#[case(1007, true)]
#[case(1011, true)]
#[case(1014, true)]
#[case(1015, false)]
#[case(2999, false)]
#[case(3000, true)]
#[case(4999, true)]
#[case(5000, false)]
fn a_close_code_may_stand_in_a_frame_or_not(#[case] code: u16, #[case] sendable: bool) {
    assert_eq!(CloseCode(code).is_sendable(), sendable);
}

#[rstest]
#[case("/a%20b", "/a b")]
#[case("/%zz%4", "/%zz%4")]
#[case("/caf%C3%A9", "/caf\u{e9}")]
fn a_path_is_percent_decoded(#[case] raw: &str, #[case] decoded: &str) {
    assert_eq!(percent::decoded(raw.as_bytes()), decoded.as_bytes());
}

/// The scope for `/a%20b%C3%A9?x=%31&y=` as it was measured on the real servers.
#[rstest]
#[case("uvicorn-0.35", &["2.4", "2.3"], true, true)]
#[case("hypercorn-0.18", &["2.3", "2.1"], true, true)]
#[case("daphne-4.2", &["", ""], false, false)]
fn a_scope_is_built_as_the_specification_says(
    #[case] server: &str,
    #[case] versions: &[&str; 2],
    #[case] denial: bool,
    #[case] state: bool,
) {
    let bytes = b"GET /a%20b%C3%A9?x=%31&y= HTTP/1.1\r\nHost: h\r\nX-Two: 1\r\nx-two: 2\r\nSec-WebSocket-Protocol: chat, b\r\nsec-websocket-protocol: c\r\n\r\n";
    let (head, length) = RequestHead::decode(bytes).unwrap().unwrap();
    assert_eq!(length, bytes.len());
    for (kind, version) in [ScopeType::Websocket, ScopeType::Http].into_iter().zip(versions) {
        let scope = Scope::build(kind, &head, &profile(server).scope, 0);
        assert_eq!(scope.str("path"), Ok("/a b\u{e9}"));
        assert_eq!(scope.bytes("raw_path"), Ok(&b"/a%20b%C3%A9"[..]));
        assert_eq!(scope.bytes("query_string"), Ok(&b"x=%31&y="[..]));
        let names: Vec<&[u8]> = scope.headers().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names[..3], [&b"host"[..], b"x-two", b"x-two"], "lower case, in order, repeated ones apart");
        assert_eq!(scope.0.contains_key("state"), state);
        let asgi = scope.get("asgi").unwrap().to_string();
        assert_eq!(asgi.contains("spec_version"), !version.is_empty());
        assert!(asgi.contains(version));
        let is_websocket = kind == ScopeType::Websocket;
        assert_eq!(scope.0.contains_key("method"), !is_websocket, "no server puts a method into a websocket scope");
        assert_eq!(scope.0.contains_key("subprotocols"), is_websocket);
        assert_eq!(scope.has_extension("websocket.http.response"), is_websocket && denial);
        if is_websocket {
            assert_eq!(scope.subprotocols(), Ok(vec!["chat", "b", "c"]));
        }
    }
}

fn accept() -> Outbound {
    Outbound::WebsocketAccept { subprotocol: None, headers: Vec::new() }
}

fn close() -> Outbound {
    Outbound::WebsocketClose { code: 1000, reason: String::new() }
}

#[rstest]
#[case::the_usual(vec![accept(), Outbound::text("x"), close()], None)]
#[case::refusal(vec![close()], None)]
#[case::denial(vec![Outbound::ResponseStart { status: 401, headers: Vec::new() }, Outbound::ResponseBody { body: Vec::new(), more_body: false }], None)]
#[case::send_before_accept(vec![Outbound::text("x")], Some(0))]
#[case::accept_twice(vec![accept(), accept()], Some(1))]
#[case::send_after_close(vec![accept(), close(), Outbound::text("x")], Some(2))]
#[case::close_twice(vec![accept(), close(), close()], Some(2))]
#[case::nothing_in_a_message(vec![accept(), Outbound::WebsocketSend { text: None, bytes: None }], Some(1))]
#[case::denial_after_accept(vec![accept(), Outbound::ResponseStart { status: 401, headers: Vec::new() }], Some(1))]
#[case::body_without_a_start(vec![Outbound::ResponseBody { body: Vec::new(), more_body: false }], Some(0))]
fn an_application_sends_what_the_state_machine_allows(
    #[case] events: Vec<Outbound>,
    #[case] first_refused: Option<usize>,
) {
    let mut machine = Machine::new(ScopeType::Websocket);
    machine.on_receive(&Inbound::WebsocketConnect).unwrap();
    assert_eq!(events.iter().position(|event| machine.on_send(event).is_err()), first_refused);
    assert_eq!(machine.on_return().is_ok(), first_refused.is_none() || events.len() > 2);
}

#[test]
fn a_server_gives_what_the_state_machine_allows() {
    let text = Inbound::WebsocketReceive { text: Some("x".to_owned()), bytes: None };
    let gone = Inbound::WebsocketDisconnect { code: Some(1006), reason: None };
    let refused = |events: &[&Inbound]| {
        let mut machine = Machine::new(ScopeType::Websocket);
        events.iter().position(|event| machine.on_receive(event).is_err())
    };
    assert_eq!(refused(&[&Inbound::WebsocketConnect, &gone]), None);
    assert_eq!(refused(&[&text]), Some(0), "a message before connect");
    assert_eq!(refused(&[&Inbound::WebsocketConnect, &text]), Some(1), "a message before accept");
    assert_eq!(refused(&[&gone]), Some(0), "a disconnect before connect");
    assert_eq!(refused(&[&Inbound::WebsocketConnect, &Inbound::WebsocketConnect]), Some(1), "connect twice");
    assert_eq!(refused(&[&Inbound::WebsocketConnect, &Inbound::HttpDisconnect]), Some(1), "an event of another kind");
    // A send that raises because the client is gone does not take away what it had said before.
    let mut machine = Machine::new(ScopeType::Websocket);
    machine.on_receive(&Inbound::WebsocketConnect).unwrap();
    machine.on_send(&accept()).unwrap();
    machine.lose();
    assert!(machine.on_receive(&text).is_ok() && machine.on_receive(&gone).is_ok());
    assert!(machine.on_receive(&text).is_err(), "a message after the disconnect");
}
