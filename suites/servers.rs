//! The effect of an application's behavior under each server profile: the table that was measured on the real servers.
//!
//! One raw application, one mistake a row, one column a server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use relapse_core::{
    asgi::{
        event::{Inbound, Outbound},
        exception::Exception,
        value::{SurrogateText, Value},
    },
    client::{
        credential::Credential,
        step::{Action, Awaited, Request, Step},
    },
    judge::{cause::Cause, classify, outcome::Class},
    record::{
        service::{Service, TargetKind},
        transcript::{EventKind, Transcript},
    },
    wire::{
        close_code::CloseCode,
        head_limit::{HeadLimit, HeadPart, LimitedRequests},
    },
};
use relapse_simulate::profile::{Profile, Reception, RefusalAnswer};
use rstest::rstest;

use crate::support::{Ends, Scripted, converse, profile};

const SERVERS: [&str; 7] = [
    "uvicorn-0.35",
    "uvicorn-0.54",
    "uvicorn-0.54-websockets",
    "uvicorn-0.54-wsproto",
    "hypercorn-0.18",
    "daphne-4.2",
    "granian-2.8",
];

/// The application's behavior.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behavior {
    RaisesBeforeAccept,
    ReturnsBeforeAccept,
    ClosesBeforeAccept,
    Denies,
    SendsBeforeAccept,
    UnknownEventBeforeAccept,
    RaisesAfterAccept,
    RaisesAfterOneMessage,
    ReturnsAfterAccept,
    Closes1011,
    SendsAfterClose,
    ClosesWithReservedCode,
    UnknownEvent,
    SendsNothing,
    SendsSurrogates,
    ClosesWithSurrogates,
    ClosesWithLongReason,
    AcceptsTwice,
    SelectsUnoffered,
}

fn accept(subprotocol: Option<&str>) -> Outbound {
    Outbound::WebsocketAccept { subprotocol: subprotocol.map(str::to_owned), headers: Vec::new() }
}

fn close(code: u16, reason: &str) -> Outbound {
    Outbound::WebsocketClose { code, reason: reason.to_owned() }
}

/// An event of a type whose text, at this key, UTF-8 cannot encode.
fn with_surrogates(name: &str, key: &'static str) -> Outbound {
    let text = SurrogateText::from_bytes(b"a\xED\xA0\x80b");
    Outbound::from_value(&Value::from([("type", name.into()), (key, Value::Surrogates(text))]))
}

fn unknown() -> Outbound {
    Outbound::Unknown(Value::from([("type", "websocket.bogus".into())]))
}

async fn behave(behavior: Behavior, mut ends: Ends) -> Result<(), Exception> {
    use Behavior::*;
    ends.receive().await?;
    let boom = || Err(Exception::new("RuntimeError", "boom"));
    match behavior {
        RaisesBeforeAccept => return boom(),
        ReturnsBeforeAccept => return Ok(()),
        ClosesBeforeAccept => return ends.send(close(4401, "x")).await,
        Denies => {
            ends.send(Outbound::ResponseStart { status: 401, headers: Vec::new() }).await?;
            return ends.send(Outbound::ResponseBody { body: b"{}".to_vec(), more_body: false }).await;
        }
        SendsBeforeAccept => {
            ends.send(Outbound::text("early")).await?;
            return Ok(());
        }
        UnknownEventBeforeAccept => {
            ends.send(unknown()).await?;
            return Ok(());
        }
        SelectsUnoffered => ends.send(accept(Some("chat"))).await?,
        _ => ends.send(accept(None)).await?,
    }
    match behavior {
        RaisesAfterAccept => return boom(),
        RaisesAfterOneMessage => {
            ends.send(Outbound::text("one")).await?;
            return boom();
        }
        ReturnsAfterAccept => return Ok(()),
        Closes1011 => ends.send(close(1011, "boom reason")).await?,
        SendsAfterClose => {
            ends.send(close(1000, "")).await?;
            ends.send(Outbound::text("late")).await?;
        }
        ClosesWithReservedCode => ends.send(close(1005, "")).await?,
        UnknownEvent => ends.send(unknown()).await?,
        SendsNothing => ends.send(Outbound::WebsocketSend { text: None, bytes: None }).await?,
        SendsSurrogates => ends.send(with_surrogates("websocket.send", "text")).await?,
        ClosesWithSurrogates => ends.send(with_surrogates("websocket.close", "reason")).await?,
        ClosesWithLongReason => ends.send(close(1011, &"r".repeat(200))).await?,
        AcceptsTwice => ends.send(accept(None)).await?,
        _ => {}
    }
    while !matches!(ends.receive().await?, Inbound::WebsocketDisconnect { .. }) {}
    Ok(())
}

fn step(act: Action) -> Step {
    Step::new(act, Duration::from_secs(4))
}

fn ending(behavior: Behavior, server: &str) -> String {
    let application = Scripted::new(move |_, ends| behave(behavior, ends));
    let steps = [step(Action::Open(Request::standard("GET", "/"))), step(Action::Wait(Awaited::Close))];
    let transcript = converse(application, &profile(server), &steps);
    let outcome = classify::readings(&transcript)[0].outcome();
    outcome.ending.to_string()
}

#[rstest]
#[case(Behavior::RaisesBeforeAccept, ["http 500", "http 500", "http 500", "http 500", "http 500", "http 500", "http 403"])]
#[case(Behavior::ReturnsBeforeAccept, ["http 500", "http 500", "http 500", "http 500", "http 500", "hang", "http 403"])]
#[case(Behavior::ClosesBeforeAccept, ["http 403", "http 403", "http 403", "http 403", "http 403", "http 403", "http 403"])]
#[case(Behavior::Denies, ["http 401", "http 401", "http 401", "http 401", "http 401", "hang", "http 401"])]
#[case(Behavior::SendsBeforeAccept, ["http 500", "http 500", "http 500", "http 500", "http 500", "http 500", "http 403"])]
#[case(Behavior::UnknownEventBeforeAccept, ["http 500", "http 500", "http 500", "http 500", "http 500", "hang", "http 403"])]
#[case(Behavior::RaisesAfterAccept, ["drop (1006)", "drop (1006)", "drop (1006)", "drop (1006)", "close 1011", "close 1011", "close without code (1005)"])]
#[case(Behavior::RaisesAfterOneMessage, ["drop (1006)", "drop (1006)", "drop (1006)", "drop (1006)", "close 1011", "close 1011", "close without code (1005)"])]
#[case(Behavior::ReturnsAfterAccept, ["hang", "drop (1006)", "drop (1006)", "drop (1006)", "close 1011", "hang", "close without code (1005)"])]
#[case(Behavior::Closes1011, ["close 1011", "close 1011", "close 1011", "close 1011", "close 1011", "close 1011", "close 1011"])]
#[case(Behavior::SendsAfterClose, ["close 1000", "close 1000", "close 1000", "close 1000", "close 1000", "close 1000", "close 1000"])]
#[case(Behavior::ClosesWithReservedCode, ["drop (1006)", "drop (1006)", "drop (1006)", "close 1000", "close 1000", "close 1011", "drop (1006)"])]
#[case(Behavior::UnknownEvent, ["drop (1006)", "drop (1006)", "drop (1006)", "drop (1006)", "close 1011", "hang", "close without code (1005)"])]
#[case(Behavior::SendsNothing, ["drop (1006)", "hang", "drop (1006)", "drop (1006)", "close 1011", "hang", "close without code (1005)"])]
#[case(Behavior::SendsSurrogates, ["drop (1006)", "drop (1006)", "drop (1006)", "drop (1006)", "close 1011", "close 1011", "hang"])]
#[case(Behavior::ClosesWithSurrogates, ["drop (1006)", "drop (1006)", "drop (1006)", "drop (1006)", "drop (1006)", "close 1000", "close 1000"])]
#[case(Behavior::ClosesWithLongReason, ["drop (1006)", "drop (1006)", "drop (1006)", "close 1011", "close 1011", "close 1011", "drop (1006)"])]
#[case(Behavior::AcceptsTwice, ["drop (1006)", "drop (1006)", "drop (1006)", "drop (1006)", "close 1011", "close 1011", "close without code (1005)"])]
#[case(Behavior::SelectsUnoffered, ["bad handshake (1006)", "bad handshake (1006)", "bad handshake (1006)", "drop (1006)", "drop (1006)", "hang", "bad handshake (1006)"])]
fn a_behavior_looks_as_measured(#[case] behavior: Behavior, #[case] expected: [&str; 7]) {
    let seen: Vec<String> = SERVERS.iter().map(|server| ending(behavior, server)).collect();
    assert_eq!(seen, expected, "{behavior:?} behind {SERVERS:?}");
}

/// A handshake header that is wrong, missing, or rewritten on the way.
#[rstest]
#[case::no_key(&["sec-websocket-key"], &[], "GET", ["http 400", "http 400", "http 400", "http 400", "http 400", "http 400", "http 400"])]
#[case::short_key(&[], &[("sec-websocket-key", "short")], "GET", ["http 400", "http 400", "http 400", "open", "open", "http 400", "open"])]
#[case::no_version(&["sec-websocket-version"], &[], "GET", ["http 400", "http 400", "http 400", "http 400", "http 400", "http 400", "http 400"])]
#[case::version_8(&[], &[("sec-websocket-version", "8")], "GET", ["http 400", "http 400", "http 400", "http 426", "http 400", "open", "http 400"])]
#[case::post(&[], &[], "POST", ["http 400", "http 405", "http 400", "http 400", "http 200", "http 405", "open"])]
#[case::keep_alive(&[], &[("connection", "keep-alive")], "GET", ["http 200", "http 200", "http 200", "http 200", "http 200", "http 400", "http 200"])]
#[case::no_host(&["host"], &[], "GET", ["http 400", "http 400", "http 400", "http 400", "http 400", "http 400", "open"])]
#[case::unknown_method(&[], &[], "BREW", ["http 400", "http 405", "http 400", "http 400", "http 200", "http 405", "open"])]
fn a_handshake_is_received_as_measured(
    #[case] without: &[&str],
    #[case] headers: &[(&'static str, &'static str)],
    #[case] method: &str,
    #[case] expected: [&str; 7],
) {
    let received = SERVERS.map(|server| {
        let application = Scripted::new(|scope, mut ends: Ends| async move {
            ends.receive().await?;
            if scope.str("type")? == "http" {
                ends.send(Outbound::ResponseStart { status: 200, headers: Vec::new() }).await?;
                return ends.send(Outbound::ResponseBody { body: Vec::new(), more_body: false }).await;
            }
            ends.send(accept(None)).await?;
            while !matches!(ends.receive().await?, Inbound::WebsocketDisconnect { .. }) {}
            Ok(())
        });
        let mut request = Request::standard(method, "/");
        request.without = without.iter().map(|name| (*name).to_owned()).collect();
        request.headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let transcript = converse(application, &profile(server), &[step(Action::Open(request))]);
        let status = transcript.events.iter().find_map(|event| match &event.what {
            EventKind::ResponseSeen(head) => Some(head.status),
            _ => None,
        });
        status.map_or("nothing".to_owned(), |status| match status {
            101 => "open".to_owned(),
            status => format!("http {status}"),
        })
    });
    assert_eq!(received, expected);
}

/// A server started without a WebSocket library hands every upgrade on as a plain request.
#[test]
fn without_a_websocket_library_an_upgrade_is_a_plain_request() {
    let mut profile = (*profile("uvicorn-0.35")).clone();
    profile.handshake.upgrade = Reception::Http;
    let application = Scripted::new(|scope, mut ends: Ends| async move {
        assert_eq!(scope.str("type"), Ok("http"));
        ends.send(Outbound::ResponseStart { status: 404, headers: Vec::new() }).await?;
        ends.send(Outbound::ResponseBody { body: Vec::new(), more_body: false }).await
    });
    let transcript = converse(application, &Arc::new(profile), &[step(Action::Open(Request::standard("GET", "/ws")))]);
    assert_eq!(classify::readings(&transcript)[0].outcome().ending.to_string(), "http 404");
}

/// The disconnect that the application receives when the client ends the connection.
#[rstest]
#[case::close_with_code(Action::Close(CloseCode(4321)), [4321, 4321, 4321, 4321, 1006, 4321, 4321])]
#[case::end_of_stream(Action::Leave, [1006, 1005, 1006, 1005, 1006, 1006, 1005])]
fn the_application_is_told_as_measured(#[case] act: Action, #[case] expected: [u16; 7]) {
    let told = SERVERS.map(|server| {
        let application = Scripted::new(|_, mut ends: Ends| async move {
            ends.receive().await?;
            ends.send(accept(None)).await?;
            ends.receive().await.map(drop)
        });
        let steps = [step(Action::Open(Request::standard("GET", "/"))), step(act.clone())];
        disconnect_code(&converse(application, &profile(server), &steps))
    });
    assert_eq!(told, expected.map(Some));
}

fn disconnect_code(transcript: &Transcript) -> Option<u16> {
    transcript.of(0).find_map(|event| match &event.what {
        EventKind::Received(Inbound::WebsocketDisconnect { code, .. }) => *code,
        _ => None,
    })
}

/// A client that never pongs is given up after interval and limit, and only by servers that ping.
#[rstest]
#[case("uvicorn-0.35", Some(40), "close 1011")]
#[case("uvicorn-0.54", Some(40), "close 1011")]
#[case("uvicorn-0.54-websockets", Some(40), "close 1011")]
#[case("uvicorn-0.54-wsproto", Some(40), "close 1011")]
#[case("uvicorn-0.35-sansio", None, "hang")]
#[case("uvicorn-0.35-wsproto", None, "hang")]
#[case("daphne-4.2", Some(50), "drop (1006)")]
#[case("hypercorn-0.18", None, "hang")]
#[case("granian-2.8", None, "hang")]
fn an_unanswered_ping_ends_the_connection_as_measured(
    #[case] server: &str,
    #[case] after_s: Option<u64>,
    #[case] expected: &str,
) {
    let application = Scripted::new(|_, mut ends: Ends| async move {
        ends.receive().await?;
        ends.send(accept(None)).await?;
        while !matches!(ends.receive().await?, Inbound::WebsocketDisconnect { .. }) {}
        Ok(())
    });
    let deaf = Step::new(Action::Deafen, Duration::from_secs(66));
    let steps = [step(Action::Open(Request::standard("GET", "/"))), deaf];
    let transcript = converse(application, &profile(server), &steps);
    let reading = &classify::readings(&transcript)[0];
    assert_eq!(reading.outcome().ending.to_string(), expected);
    let expired = transcript.events.iter().find(|event| event.what == EventKind::KeepaliveExpired);
    assert_eq!(expired.map(|event| event.at.as_secs()), after_s);
}

/// An app that ignores the end of its client waits in the end, however often its server tells it.
#[rstest]
#[case::always("uvicorn-0.35")]
#[case::one_more("uvicorn-0.54")]
#[case::nothing("hypercorn-0.18")]
fn an_app_that_ignores_the_end_of_its_client_waits(#[case] server: &str) {
    let application = Scripted::new(|_, mut ends: Ends| async move {
        loop {
            if ends.receive().await? == Inbound::WebsocketConnect {
                ends.send(accept(None)).await?;
            }
        }
    });
    let steps = [step(Action::Open(Request::standard("GET", "/ws"))), step(Action::Leave)];
    let transcript = converse(application, &profile(server), &steps);
    let told = |what: &EventKind| matches!(what, EventKind::Received(Inbound::WebsocketDisconnect { .. }));
    let count = transcript.events.iter().filter(|event| told(&event.what)).count();
    assert!((1..=1000).contains(&count), "{count}");
    let is_over =
        transcript.events.iter().any(|event| matches!(event.what, EventKind::Returned | EventKind::Raised(_)));
    assert!(!is_over, "the call goes on");
}

/// An application that accepts every WebSocket, and answers every request.
fn welcoming() -> Arc<Scripted> {
    Scripted::new(|scope, mut ends: Ends| async move {
        ends.receive().await?;
        if scope.str("type")? == "http" {
            ends.send(Outbound::ResponseStart { status: 200, headers: Vec::new() }).await?;
            return ends.send(Outbound::ResponseBody { body: Vec::new(), more_body: false }).await;
        }
        ends.send(accept(None)).await?;
        while !matches!(ends.receive().await?, Inbound::WebsocketDisconnect { .. }) {}
        Ok(())
    })
}

/// A request that has so many bytes, or fields, more in one part of its head.
fn grown(part: HeadPart, more: usize) -> Request {
    // A token that is empty would leave a space that no server counts.
    let mut request = Request { credential: Credential::None, ..Request::standard("GET", "/") };
    let name = |number: usize| Bytes::from(format!("x-{number:04}"));
    let value = |bytes: usize| Bytes::from(vec![b'a'; bytes]);
    match part {
        HeadPart::Line | HeadPart::Target => request.query = vec![b'q'; more],
        HeadPart::Field => request.headers.push((name(0), value(more))),
        HeadPart::Fields => request.headers.extend((0..more).map(|number| (name(number), value(1)))),
        HeadPart::Head | HeadPart::Lines => {
            // Less than any limit on a field.
            let fields = more.div_ceil(8000);
            let bytes = |number| more / fields + usize::from(number < more % fields);
            request.headers.extend((0..fields).map(|number| (name(number), value(bytes(number)))));
        }
    }
    request
}

/// The transcript of a request whose head counts this for a part.
fn counted(profile: &Arc<Profile>, limit: HeadLimit, is_upgrade: bool, count: usize) -> Transcript {
    let mut more = count;
    for _ in 0..4 {
        let request = grown(limit.of, more);
        let action = if is_upgrade { Action::Open(request) } else { Action::Request(request) };
        let transcript = converse(welcoming(), profile, &[step(action)]);
        let sent = transcript.events.iter().find_map(|event| match &event.what {
            EventKind::RequestSent { head, .. } => Some(limit.of.count(head)),
            _ => None,
        });
        let sent = sent.expect("a request was sent");
        if sent == count {
            return transcript;
        }
        // The rest of the head counts too.
        more = more + count - sent;
    }
    panic!("no head counts {count} for {limit:?}");
}

/// A head within each limit passes, or meets another limit; one just over it is refused as the profile says, and the
/// application never hears of it.
#[test]
fn a_head_over_a_limit_is_refused_by_the_server() {
    let mut limits = 0;
    for profile in relapse::discover::servers().unwrap() {
        for (limit, over) in profile.limits.all() {
            for is_upgrade in [true, false] {
                limits += 1;
                let told = format!("{} {limit:?}, upgrade {is_upgrade}", profile.name);
                let refused = |transcript: &Transcript| {
                    transcript.events.iter().find_map(|event| match &event.what {
                        EventKind::RequestRefused { excess, .. } => excess.map(|excess| excess.limit),
                        _ => None,
                    })
                };
                let is_called = |transcript: &Transcript| {
                    transcript.events.iter().any(|event| matches!(event.what, EventKind::Called { .. }))
                };
                let within = counted(&profile, limit, is_upgrade, limit.most);
                assert_ne!(refused(&within), Some(limit), "{told}");
                assert_ne!(is_called(&within), refused(&within).is_some(), "{told}");
                let beyond = counted(&profile, limit, is_upgrade, limit.most + 1);
                if !is_upgrade && limit.on == LimitedRequests::Upgrade {
                    assert!(is_called(&beyond), "{told}");
                    continue;
                }
                assert_eq!(refused(&beyond), Some(limit), "{told}");
                assert!(!is_called(&beyond), "{told}");
                let outcome = classify::readings(&beyond)[0].outcome();
                assert_eq!((outcome.cause, outcome.class), (Cause::Server, Class::RefusedRequest), "{told}");
                let expected = match over {
                    RefusalAnswer::Http { status, .. } => format!("http {status}"),
                    RefusalAnswer::Hang => "hang".to_owned(),
                    RefusalAnswer::Drop | RefusalAnswer::Close { .. } => "drop (1006)".to_owned(),
                };
                assert_eq!(outcome.ending.to_string(), expected, "{told}");
            }
        }
    }
    assert!(limits > 0, "no profile has a limit");
}

/// Behind a real server only the silence is seen: it is the server's own where the head is over a limit that is known.
#[test]
fn a_real_server_is_silent_on_its_own_account_where_a_head_is_over_its_limits() {
    let profile = profile("uvicorn-0.54");
    let (limit, _) = profile.limits.all().find(|(limit, _)| limit.of == HeadPart::Line).unwrap();
    let mut seen = counted(&profile, limit, true, limit.most + 1);
    seen.events.retain(|event| !matches!(event.what, EventKind::RequestRefused { .. }));
    let judged = |head_limits: &[HeadLimit]| {
        let service = Service {
            kind: TargetKind::Served,
            head_limits: head_limits.to_vec(),
            ..Service::unknown(TargetKind::Served)
        };
        let transcript = Transcript { service, ..seen.clone() };
        let outcome = classify::readings(&transcript)[0].outcome();
        (outcome.cause, outcome.class)
    };
    assert_eq!(judged(&[limit]), (Cause::Server, Class::RefusedRequest));
    assert_eq!(judged(&[]), (Cause::Hang, Class::Hang));
    assert_eq!(judged(&[HeadLimit { most: limit.most + 1, ..limit }]), (Cause::Hang, Class::Hang));
}
