//! The rows, section by section, each from what it takes to see it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Bench, LOOK_AGAIN, PATIENCE, RunningServer, Scene,
    limits::limits,
    request,
    seen::{answer, answer_header, close, close_effect, effect, effect_on_app, head, message, reception, told},
};
use crate::process::ServerSoftware;
use relapse::{client, discover::read_edge_fault};
use relapse_core::{
    asgi::event::Inbound,
    client::step::{Action, Request},
    error::Error,
    plan::Plan,
    record::transcript::{Actor, EventKind, Transcript},
    wire::{
        assembly::TextCheck,
        client::WebSocketClient,
        close_code::CloseCode,
        deflate::{DeflateParameters, RSV1, WindowBits},
        frame::{Frame, Length, Opcode},
    },
};
use relapse_simulate::{
    profile::{
        AfterFinalBlock, CloseCodes, CloseEcho, CloseReason, CompressionDeviation, CompressionRules, Connects, Denial,
        Effect, LengthCheck, ProfileValue, RefusalAnswer, Start, StopFate, Strictness, UnencodableText, WithoutLength,
    },
    recorder::Recorder,
};

/// The measured rows.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) server_header: String,
    pub(super) rows: BTreeMap<(&'static str, &'static str), Option<String>>,
}

impl Rows {
    pub(super) fn put(&mut self, section: &'static str, key: &'static str, value: &impl ProfileValue) {
        self.rows.insert((section, key), value.written());
    }
}

/// Measures everything.
pub(super) async fn all(bench: &Bench) -> Result<Rows, Error> {
    let mut rows = Rows::default();
    // Start all servers before the first client connects.
    let asking = asks_often(bench.choice.software);
    let (stage, plain, asking, sessions, unanswered) = tokio::join!(
        bench.start(&[]),
        bench.start(&[]),
        async { if asking.is_empty() { Ok(None) } else { bench.start(asking).await.map(Some) } },
        bench.start(&[]),
        bench.start(&[]),
    );
    let (stage, plain, asking, sessions, unanswered) = (stage?, plain?, asking?, sessions?, unanswered?);
    let (scope, handshake, before, after, disconnect, http, violation, compression, keepalive, shutdown) = tokio::join!(
        scope(&stage),
        handshake(&stage),
        before_accept(&stage),
        after_accept(&stage),
        disconnect(&stage),
        http(&plain),
        violation(&stage),
        compression(&stage),
        keepalive(asking.as_ref()),
        shutdown(&sessions, &unanswered),
    );
    let client_parts = [scope?, handshake?, before?, after?, disconnect?, http?, violation?, compression?];
    for part in client_parts.into_iter().chain([keepalive?, shutdown?]) {
        rows.rows.extend(part.rows);
        rows.server_header += &part.server_header;
    }
    // They take every turn of a server that they get.
    rows.rows.extend(limits(&plain).await.rows);
    Ok(rows)
}

/// Measures what a server does of itself, and only after a long time: how often it pings, how long it waits for a pong, and
/// how long for an application that never starts or never answers.
pub(super) async fn slow(bench: &Bench) -> Result<Rows, Error> {
    let (pings, unanswered, starts) = tokio::join!(pings(bench), unanswered(bench), starts(bench));
    let mut rows = Rows::default();
    for part in [pings?, unanswered?, starts?] {
        rows.rows.extend(part.rows);
    }
    Ok(rows)
}

/// When a server drops a client whose handshake the application does not answer; 0 for one that has not by then.
async fn unanswered(bench: &Bench) -> Result<Rows, Error> {
    let stage = bench.start(&[]).await?;
    let waits = Scene::opened("/receive/wait", Vec::new());
    let transcript = stage.perform_within(&waits, LONG_WATCH).await?;
    let asked = time_of(&transcript, |what| matches!(what, EventKind::RequestSent { .. }));
    let dropped = time_of(&transcript, |what| *what == EventKind::EndSeen);
    let mut rows = Rows::default();
    rows.put("before_accept", "time_limit_s", &whole_seconds(asked, dropped));
    Ok(rows)
}

/// Measures how a server with its default settings treats a client that answers no ping.
async fn pings(bench: &Bench) -> Result<Rows, Error> {
    let stage = bench.start(&[]).await?;
    let deaf = Scene::opened("/receive/accept/wait", vec![Action::Deafen]);
    let transcript = stage.perform_within(&deaf, LONG_WATCH).await?;
    let opened = time_of(&transcript, |what| matches!(what, EventKind::ResponseSeen(_)));
    let pinged = time_of(&transcript, is_ping);
    let ended = time_of(&transcript, |what| match what {
        EventKind::FrameSeen(frame) => frame.opcode == Opcode::Close,
        EventKind::EndSeen => true,
        _ => false,
    });
    let mut rows = Rows::default();
    rows.put("keepalive", "ping_interval_ms", &(1000 * whole_seconds(opened, pinged)));
    rows.put("keepalive", "pong_timeout_ms", &(1000 * whole_seconds(pinged, ended)));
    Ok(rows)
}

/// When the first event of a kind happened.
fn time_of(transcript: &Transcript, is_wanted: impl Fn(&EventKind) -> bool) -> Option<Duration> {
    transcript.events.iter().find(|event| is_wanted(&event.what)).map(|event| event.at)
}

fn is_ping(what: &EventKind) -> bool {
    matches!(what, EventKind::FrameSeen(frame) if frame.opcode == Opcode::Ping)
}

/// The seconds between two times; 0 where one of them is missing.
fn whole_seconds(from: Option<Duration>, to: Option<Duration>) -> u64 {
    from.zip(to).map_or(0, |(from, to)| to.saturating_sub(from).as_secs_f64().round() as u64)
}

/// When a server gives an application up that never starts; 0 for one that has not by then.
async fn starts(bench: &Bench) -> Result<Rows, Error> {
    let began = Instant::now();
    let started = bench.start_with(&[], &[("MEASURED_START", "never")], LONG_WATCH).await;
    let took = began.elapsed();
    let given_up = started.is_err() && took < LONG_WATCH;
    let mut rows = Rows::default();
    rows.put("lifespan", "startup_timeout_s", &if given_up { took.as_secs() } else { 0 });
    Ok(rows)
}

/// Measures the contents of scopes, and of the lifespan's.
async fn scope(stage: &RunningServer) -> Result<Rows, Error> {
    let mut rows = Rows::default();
    let scenes =
        [Scene::opened("/receive/accept/scope/wait", vec![Action::Close(CloseCode::NORMAL)]), Scene::plain("/scope")];
    let [websocket, http] = stage.each(scenes).await?;
    let (websocket, plain) = (reported_scope(&websocket), reported_scope(&http));
    rows.put("scope", "asgi_version", &text(&websocket["asgi"]["version"]));
    rows.put("scope", "websocket_spec_version", &text(&websocket["asgi"]["spec_version"]));
    rows.put("scope", "http_spec_version", &text(&plain["asgi"]["spec_version"]));
    let extensions = websocket["extensions"].as_array().cloned().unwrap_or_default();
    rows.put("scope", "denial_response", &extensions.iter().any(|name| name == "websocket.http.response"));
    rows.put("scope", "state", &(websocket["state"] == true));
    rows.put("lifespan", "supported", &plain["lifespan"].as_object().is_some_and(|scope| !scope.is_empty()));
    rows.put("lifespan", "spec_version", &text(&plain["lifespan"]["asgi"]["spec_version"]));
    rows.server_header = answer_header(&http, "server").unwrap_or_default().to_owned();
    Ok(rows)
}

/// The scope that an application reports in its message.
fn reported_scope(transcript: &Transcript) -> serde_json::Value {
    serde_json::from_slice(message(transcript).unwrap_or_default()).unwrap_or_default()
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// How upgrades are received.
async fn handshake(stage: &RunningServer) -> Result<Rows, Error> {
    let named = [
        ("upgrade", upgrade(|_| {})),
        ("missing_key", upgrade_without("Sec-WebSocket-Key")),
        ("short_key", upgrade_with("Sec-WebSocket-Key", "short")),
        ("missing_version", upgrade_without("Sec-WebSocket-Version")),
        ("wrong_version", upgrade_with("Sec-WebSocket-Version", "8")),
        ("post", upgrade_by("POST")),
        ("http_1_0", upgrade_under("set_version version=1.0")?),
        ("connection_keep_alive", upgrade_with("Connection", "keep-alive")),
        ("missing_host", upgrade_without("Host")),
        ("two_hosts", upgrade_under("duplicate_header header=Host")?),
        ("two_keys", upgrade_under("duplicate_header header=Sec-WebSocket-Key")?),
        ("two_versions", upgrade_under("duplicate_header header=Sec-WebSocket-Version")?),
        ("unknown_method", upgrade_by("BREW")),
    ];
    let received = stage.each(named.each_ref().map(|(_, scene)| scene.clone())).await?;
    let mut rows = Rows::default();
    for ((key, _), transcript) in named.iter().zip(&received) {
        rows.put("handshake", key, &reception(transcript));
    }
    Ok(rows)
}

/// An upgrade that is changed, and left once it is answered.
fn upgrade(change: impl FnOnce(&mut Request)) -> Scene {
    let mut asked = request("/ws/receive/accept/wait");
    change(&mut asked);
    Scene { opening: Action::Open(asked), then: vec![Action::Leave], faults: Vec::new() }
}

fn upgrade_without(header: &str) -> Scene {
    upgrade(|request| request.without.push(header.to_owned()))
}

fn upgrade_with(header: &'static str, value: &'static str) -> Scene {
    upgrade(|request| request.headers.push((Bytes::from(header), Bytes::from(value))))
}

fn upgrade_by(method: &str) -> Scene {
    upgrade(|request| request.method = method.to_owned())
}

fn upgrade_under(fault: &str) -> Result<Scene, Error> {
    Ok(upgrade(|_| {}).under(vec![read_edge_fault(fault)?]))
}

/// An act at the end of a path: once the application catches what it raises, and once it lets it through.
fn caught_and_escaped(path: &str, act: &str) -> [Scene; 2] {
    [format!("{path}/try-{act}/stay"), format!("{path}/{act}/stay")].map(|path| Scene::socket(&path))
}

/// Measures how the server treats an upgrade that is not accepted.
async fn before_accept(stage: &RunningServer) -> Result<Rows, Error> {
    let alone = ["/raise", "", "/close-4401", "/deny-401"].map(|acts| Scene::socket(&format!("/receive{acts}")));
    let (alone, send, bogus, unoffered) = tokio::join!(
        stage.each(alone),
        stage.each(caught_and_escaped("/receive", "send")),
        stage.each(caught_and_escaped("/receive", "bogus")),
        stage.each(caught_and_escaped("/receive", "accept-chat")),
    );
    let [raises, returns, close, denial] = alone?;
    let mut rows = Rows::default();
    rows.put("before_accept", "raises", &answer(&raises));
    rows.put("before_accept", "returns", &answer(&returns));
    rows.put("before_accept", "close", &answer(&close));
    let is_denied = head(&denial).is_some_and(|head| head.status == 401);
    rows.put("before_accept", "denial", &if is_denied { Denial::Sent } else { Denial::Hang });
    for (key, [caught, escaped]) in [("send", send?), ("unknown_event", bogus?), ("unoffered_subprotocol", unoffered?)]
    {
        let is_opened = head(&caught).is_some_and(|head| head.status == 101);
        let effect = match effect(&caught, &escaped, &answer(&raises)) {
            _ if is_opened => Effect::Ignored,
            // An accept that never reaches the client counts as no accept.
            Effect::Ignored if key == "unoffered_subprotocol" => Effect::Answers(RefusalAnswer::Hang),
            effect => effect,
        };
        rows.put("before_accept", key, &effect);
    }
    Ok(rows)
}

/// Codes that tell every kind of server apart.
const CODES: [u16; 16] =
    [1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1011, 1012, 1014, 1015, 2999, 3000, 4000, 4999];

/// Measures how the server treats an accepted WebSocket.
async fn after_accept(stage: &RunningServer) -> Result<Rows, Error> {
    let accepted = "/receive/accept";
    let alone = ["/raise", "", "/close-4000-5"].map(|acts| Scene::socket(&format!("/receive/accept{acts}")));
    let late = [Scene::socket("/receive/accept/close-1000/try-send")];
    // A server that restricts close codes stops this one.
    let reserved = [Scene::socket("/receive/accept/close-1005/stay")];
    let codes = CODES.map(|code| Scene::socket(&format!("/receive/accept/try-close-{code}/stay")));
    let surrogate = [Scene::socket("/receive/accept/try-surrogate/stay")];
    let (alone, late, reserved, again, empty, surrogate, bogus, long, codes) = tokio::join!(
        stage.each(alone),
        stage.each(late),
        stage.each(reserved),
        stage.each(caught_and_escaped(accepted, "accept")),
        stage.each(caught_and_escaped(accepted, "empty")),
        stage.each(surrogate),
        stage.each(caught_and_escaped(accepted, "bogus")),
        stage.each(caught_and_escaped(accepted, "close-1000-200")),
        stage.each(codes),
    );
    let mut rows = Rows::default();
    let [raises, returns, reason] = alone?;
    let crashed = answer(&raises);
    rows.put("after_accept", "raises", &crashed);
    rows.put("after_accept", "returns", &answer(&returns));
    let is_kept = close(&reason).is_some_and(|(_, reason)| !reason.is_empty());
    rows.put("after_accept", "close_reason", &if is_kept { CloseReason::Kept } else { CloseReason::Lost });
    // The close itself is what the client sees in any case.
    rows.put("after_accept", "send_after_close", &effect_on_app(&late?[0]));
    for (key, performed) in [("accept_again", again?), ("empty_send", empty?), ("unknown_event", bogus?)] {
        rows.put("after_accept", key, &effect(&performed[0], &performed[1], &crashed));
    }
    let fate = match effect_on_app(&surrogate?[0]) {
        Effect::Raises { .. } => UnencodableText::Raises,
        _ => UnencodableText::Emptied,
    };
    rows.put("after_accept", "unencodable_text", &fate);
    let [caught, escaped] = long?;
    rows.put("after_accept", "long_close_reason", &close_effect(&caught, &escaped, &crashed, (1000, 200)));
    let codes = codes?;
    let written: Vec<bool> = CODES
        .iter()
        .zip(&codes)
        .map(|(code, transcript)| close(transcript).is_some_and(|(seen, _)| seen == Some(CloseCode(*code))))
        .collect();
    let all = [CloseCodes::Sendable, CloseCodes::NormalAndPrivate, CloseCodes::AllButReserved, CloseCodes::All];
    let fitting = all.into_iter().find(|kind| {
        CODES.iter().zip(&written).all(|(code, is_written)| kind.contain(CloseCode(*code)) == *is_written)
    });
    if let Some(kind) = fitting {
        rows.put("after_accept", "close_codes", &kind);
    }
    let at = CODES.iter().position(|code| *code == 1005).unwrap_or_default();
    let other =
        if written[at] { Effect::Ignored } else { close_effect(&codes[at], &reserved?[0], &crashed, (CODES[at], 0)) };
    rows.put("after_accept", "other_close_code", &other);
    Ok(rows)
}

/// Measures how the application learns of the client's end.
async fn disconnect(stage: &RunningServer) -> Result<Rows, Error> {
    let empty = read_edge_fault("replace_frame direction=to-server opcode=close payload=''")?;
    let wait = "/receive/accept/wait";
    let scenes = [
        Scene::opened(wait, vec![Action::Close(CloseCode(4321))]),
        Scene::opened(wait, vec![Action::Close(CloseCode::NORMAL)]).under(vec![empty]),
        Scene::opened(wait, vec![Action::Leave]),
        Scene::socket("/receive/accept/close-4001/wait"),
        // It has not been told yet.
        Scene::opened("/receive/accept/sleep-500/try-send", vec![Action::Leave]),
    ];
    let [with_code, without_code, without_frame, own, send] = stage.each(scenes).await?;
    let mut rows = Rows::default();
    for (key, transcript, own) in [("with_code", &with_code, 4321), ("after_own_close", &own, 4001)] {
        if let Some(code) = told(transcript) {
            rows.put("disconnect", key, &Some(code).filter(|code| *code != own));
        }
    }
    for (key, transcript) in [("without_code", &without_code), ("without_frame", &without_frame)] {
        if let Some(code) = told(transcript) {
            rows.put("disconnect", key, &code);
        }
    }
    let is_same = close(&with_code).is_some_and(|(code, _)| code == Some(CloseCode(4321)));
    rows.put("disconnect", "close_echo", &if is_same { CloseEcho::Same } else { CloseEcho::Normal });
    rows.put("disconnect", "send", &effect_on_app(&send));
    Ok(rows)
}

/// Measures plain requests, on a server of their own: daphne may not notice any more that an application failed once a
/// WebSocket's did.
async fn http(stage: &RunningServer) -> Result<Rows, Error> {
    let paths = [
        "/receive/raise",
        "/receive",
        "/receive/start-200/stay",
        "/receive/start-200/more-5/raise",
        "/receive/start-200/body-5",
        "/receive/start-200-10/try-body-5/stay",
        "/receive/start-200-3/try-body-5/stay",
    ];
    let [raises, returns, start, ends, whole, short, long] = stage.each(paths.map(Scene::plain)).await?;
    let mut rows = Rows::default();
    rows.put("http", "raises", &answer(&raises));
    rows.put("http", "returns", &answer(&returns));
    rows.put("http", "start", &if head(&start).is_some() { Start::AtOnce } else { Start::Held });
    rows.put("http", "ends_after_start", &answer(&ends));
    let is_chunked = answer_header(&whole, "transfer-encoding") == Some("chunked");
    rows.put("http", "without_length", &if is_chunked { WithoutLength::Chunked } else { WithoutLength::ContentLength });
    // The client's view follows from the exception, or the server does nothing: there is no third.
    for (key, caught) in [("short_body", &short), ("long_body", &long)] {
        rows.put("http", key, &effect_on_app(caught));
    }
    Ok(rows)
}

/// A frame of a client, as it is.
fn encoded(frame: Frame, length: Length) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.masked([0; 4]).encode_announcing(length, &mut bytes);
    bytes
}

fn whole_frame(opcode: u8, payload: impl Into<Bytes>) -> Vec<u8> {
    encoded(Frame::new(Opcode::numbered(opcode), payload), Length::Shortest)
}

/// The first frame of a text message with more frames.
fn first_fragment(payload: &'static [u8]) -> Vec<u8> {
    encoded(Frame { is_final: false, ..Frame::new(Opcode::Text, payload) }, Length::Shortest)
}

fn close_frame(code: u16) -> Vec<u8> {
    encoded(Frame::new(Opcode::Close, code.to_be_bytes().to_vec()), Length::Shortest)
}

/// The longest message that is taken (uvicorn's `ws_max_size`), in bytes.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Measures how the server treats a client that breaks RFC 6455.
async fn violation(stage: &RunningServer) -> Result<Rows, Error> {
    let long = Length::Claimed((MESSAGE_BYTES_MAX + 1) as u64);
    let (protocol, close_code, payload, text, big, length, inside, gateway) = tokio::join!(
        stage.write(whole_frame(3, "")),
        stage.write(close_frame(1005)),
        stage.write(whole_frame(1, &b"\xff"[..])),
        stage.write(first_fragment(b"\xff")),
        stage.write(encoded(Frame::new(Opcode::Text, ""), long)),
        stage.write(encoded(Frame::new(Opcode::Text, "hi"), Length::InTwoBytes)),
        stage.write([first_fragment(b"a"), close_frame(1000)].concat()),
        stage.write(close_frame(1014)),
    );
    let mut rows = Rows::default();
    let protocol = protocol?;
    rows.put("violation", "protocol", &answer_without_reason(&protocol));
    rows.put("violation", "close_code", &answer_without_reason(&close_code?));
    rows.put("violation", "payload", &answer_without_reason(&payload?));
    let is_at_once = answer(&text?) != RefusalAnswer::Hang;
    rows.put("violation", "text", &if is_at_once { TextCheck::AtOnce } else { TextCheck::WhenWhole });
    let (check, too_big) = match answer_without_reason(&big?) {
        RefusalAnswer::Hang => {
            let whole = whole_frame(1, vec![b'x'; MESSAGE_BYTES_MAX + 1]);
            (LengthCheck::Received, answer_without_reason(&stage.write(whole).await?))
        }
        answer => (LengthCheck::Announced, answer),
    };
    rows.put("violation", "too_big", &too_big);
    rows.put("violation", "length", &check);
    let mut refuses = Vec::new();
    if answer(&length?) != RefusalAnswer::Hang {
        refuses.push(Strictness::LongLength);
    }
    if !is_close_taken(&inside?, 1000) {
        refuses.push(Strictness::CloseInsideMessage);
    }
    if !is_close_taken(&gateway?, 1014) {
        refuses.push(Strictness::BadGateway);
    }
    rows.put("violation", "refuses", &refuses);
    let sent = close(&protocol).and_then(|(code, _)| code);
    rows.put("violation", "application_sees", &told(&protocol).filter(|code| Some(CloseCode(*code)) != sent));
    Ok(rows)
}

/// The offer of a client that leaves its window to the server, as browsers do.
const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// The text `hi` in a block without compression, and in one that says that it is the last (RFC 7692 section 7.2.3).
const HI: &[u8] = b"\x00\x02\x00\xfd\xffhi\x00";
const LAST_HI: &[u8] = b"\x01\x02\x00\xfd\xffhi\x00";

/// Measures how the server compresses messages, and takes compressed ones.
async fn compression(stage: &RunningServer) -> Result<Rows, Error> {
    let [opened] = stage.each([upgrade(|request| OFFER.clone_into(&mut request.extensions))]).await?;
    let selected = head(&opened).and_then(|head| DeflateParameters::selected(&head.headers));
    let mut rules = CompressionRules::default();
    if let Some(selected) = selected {
        let bits = |bits| if let WindowBits::AtMost(bits) = bits { Some(bits) } else { None };
        rules.accepts = true;
        rules.server_max_window_bits = bits(selected.server_max_window_bits);
        rules.client_max_window_bits = bits(selected.client_max_window_bits);
        let first = compressed_frame(Opcode::Text, &HI[..4], RSV1, false);
        let [last, last_with_bit] = [0, RSV1].map(|bits| compressed_frame(Opcode::Continuation, &HI[4..], bits, true));
        let [after_final, hi] = [LAST_HI, HI].map(|payload| compressed_frame(Opcode::Text, payload, RSV1, true));
        let (behind, bit, between) = tokio::join!(
            stage.write_offering(OFFER, [after_final, hi].concat()),
            stage.write_offering(OFFER, [first.clone(), last_with_bit].concat()),
            stage.write_offering(OFFER, [first, whole_frame(9, ""), last].concat()),
        );
        let behind = behind?;
        rules.after_final_block = match texts(&behind).as_slice() {
            [_, "hi"] => None,
            [_, _] => Some(AfterFinalBlock::Empty),
            _ => Some(AfterFinalBlock::Refused),
        };
        let taken = |transcript: &Transcript| texts(transcript) == ["hi"];
        let found = [
            (taken(&bit?), CompressionDeviation::BitOnContinuation),
            (!taken(&between?), CompressionDeviation::ControlBetween),
        ];
        rules.deviations = found.into_iter().filter_map(|(is_there, how)| is_there.then_some(how)).collect();
    }
    let mut rows = Rows::default();
    rows.put("compression", "accepts", &rules.accepts);
    rows.put("compression", "server_max_window_bits", &rules.server_max_window_bits);
    rows.put("compression", "client_max_window_bits", &rules.client_max_window_bits);
    rows.put("compression", "after_final_block", &rules.after_final_block);
    rows.put("compression", "deviations", &rules.deviations);
    Ok(rows)
}

fn compressed_frame(opcode: Opcode, payload: &'static [u8], reserved_bits: u8, is_final: bool) -> Vec<u8> {
    encoded(Frame { is_final, reserved_bits, ..Frame::new(opcode, payload) }, Length::Shortest)
}

/// The texts that the application received.
fn texts(transcript: &Transcript) -> Vec<&str> {
    let received = transcript.events.iter().filter_map(|event| match &event.what {
        EventKind::Received(Inbound::WebsocketReceive { text, .. }) => text.as_deref(),
        _ => None,
    });
    received.collect()
}

/// The answer to a breach. A reason says which rule was broken, so that it is another one each time.
fn answer_without_reason(transcript: &Transcript) -> RefusalAnswer {
    match answer(transcript) {
        RefusalAnswer::Close { code, .. } => RefusalAnswer::Close { code, reason: String::new() },
        other => other,
    }
}

/// Whether a server takes a close with this code: it answers with the code, or with 1000.
fn is_close_taken(transcript: &Transcript, code: u16) -> bool {
    close(transcript).is_some_and(|(seen, _)| [CloseCode(code), CloseCode::NORMAL].map(Some).contains(&seen))
}

impl RunningServer {
    /// Opens a WebSocket, writes something, and reads until the end.
    async fn write(&self, bytes: Vec<u8>) -> Result<Transcript, Error> {
        self.write_offering("", bytes).await
    }

    /// The same, with the offer of an extension.
    async fn write_offering(&self, extensions: &str, bytes: Vec<u8>) -> Result<Transcript, Error> {
        let recorder = Recorder::new(Plan { seed: 1, faults: Vec::new() });
        let request = Request { extensions: extensions.to_owned(), ..request("/ws/receive/accept/wait") };
        let opened = client::open(&request, PATIENCE, &recorder, &self.served).await?;
        let scribe = recorder.scribe(0);
        if let Some((mut wire, agreed)) = opened {
            wire.outgoing.extend_from_slice(&bytes);
            let mut frames = WebSocketClient::new(fastrand::Rng::with_seed(1)).agreed(agreed);
            let read = async {
                loop {
                    match frames.read(&mut wire.incoming) {
                        Ok(Some(frame)) => {
                            let is_close = frame.opcode == Opcode::Close;
                            scribe.record(Actor::Probe, EventKind::FrameSeen(frame));
                            if is_close {
                                return;
                            }
                        }
                        Ok(None) if wire.has_ended() => return scribe.record(Actor::Probe, EventKind::EndSeen),
                        Ok(None) => drop(wire.progress().await),
                        Err(error) => return scribe.record(Actor::Probe, EventKind::BadFrameSeen(error)),
                    }
                }
            };
            if timeout(PATIENCE, read).await.is_err() {
                let waiting_for = "the end".to_owned();
                scribe.record(Actor::Probe, EventKind::DeadlinePassed { waiting_for, limit: PATIENCE });
            }
        }
        Ok(self.close(&recorder, PATIENCE).await)
    }
}

/// The options that make a server ping often; empty for one that never pings.
fn asks_often(software: ServerSoftware) -> &'static [&'static str] {
    match software {
        ServerSoftware::Uvicorn => &["--ws-ping-interval", "0.2", "--ws-ping-timeout", "0.2"],
        ServerSoftware::Daphne => &["--ping-interval", "1", "--ping-timeout", "1"],
        ServerSoftware::Hypercorn => &["--websocket-ping-interval", "1"],
        ServerSoftware::Granian => &[],
    }
}

/// Measures how the server treats a client that answers no ping, if it can be told to ping often.
async fn keepalive(stage: Option<&RunningServer>) -> Result<Rows, Error> {
    let mut rows = Rows::default();
    let Some(stage) = stage else { return Ok(rows) };
    let deaf = stage.perform(&Scene::opened("/receive/accept/wait", vec![Action::Deafen])).await?;
    if !deaf.events.iter().any(|event| is_ping(&event.what)) {
        rows.put("keepalive", "ping_interval_ms", &0_u64);
    }
    if answer(&deaf) == RefusalAnswer::Hang {
        rows.put("keepalive", "pong_timeout_ms", &0_u64);
    }
    rows.put("keepalive", "expired", &answer(&deaf));
    if let Some(code) = told(&deaf).filter(|_| answer(&deaf) != RefusalAnswer::Hang) {
        rows.put("keepalive", "application_sees", &code);
    }
    Ok(rows)
}

/// How long a server is watched that may do something of itself: longer than any known one takes.
const LONG_WATCH: Duration = Duration::from_secs(75);

/// How long calls that go on are watched after a server was told to stop.
const GRACE_WATCHED: Duration = Duration::from_millis(4500);
/// An event that takes longer than this does not come at once.
const AT_ONCE: Duration = Duration::from_millis(900);
/// How long it takes at most until client and server know what just happened.
const SETTLING: Duration = Duration::from_millis(100);

/// Measures the end of all clients when the server is told to stop: of sessions, and on another server of unanswered
/// requests.
async fn shutdown(sessions: &RunningServer, unanswered: &RunningServer) -> Result<Rows, Error> {
    let open = ["/wait", "/sleep-1500/send/wait"].map(|acts| Scene::socket(&format!("/receive/accept{acts}")));
    let pending = [
        Scene::socket("/receive/wait/try-accept/stay"),
        Scene::socket("/receive/sleep-1500/accept/wait"),
        Scene::plain("/receive/sleep-1500/start-200/body-2"),
    ];
    let (sessions, unanswered) = tokio::join!(
        stop_with(sessions, open, WatchedSession::OneThatStays),
        stop_with(unanswered, pending, WatchedSession::None),
    );
    let (([open, session], _, cancelled), ([pending, early, request], connects, _)) = (sessions?, unanswered?);
    let mut rows = Rows::default();
    for (key, transcript, goes_on) in [
        ("open", &open, message(&session).is_some()),
        ("pending", &early, head(&early).is_some_and(|head| head.status == 101)),
        ("request", &request, head(&request).is_some_and(|head| head.status == 200)),
    ] {
        rows.put("shutdown", key, &if goes_on { StopFate::GoesOn } else { StopFate::Answers(answer(transcript)) });
    }
    rows.put("shutdown", "connects", &connects);
    let seen = told(&open).filter(|_| message(&session).is_none());
    // A process that is gone may have been about to tell.
    if seen.is_some() || cancelled.is_none() {
        rows.put("shutdown", "open_sees", &seen);
    }
    rows.put("shutdown", "pending_sees", &told(&pending));
    if told(&pending).is_some() {
        rows.put("shutdown", "pending_send", &effect_on_app(&pending));
    }
    rows.put("shutdown", "cancels", &cancelled.is_some_and(|after| after < AT_ONCE));
    let grace = cancelled.filter(|after| *after >= AT_ONCE).map_or(0, |after| after.as_secs_f64().round() as u64);
    rows.put("shutdown", "grace_s", &grace);
    Ok(rows)
}

/// The session beside the scenes whose call is watched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WatchedSession {
    /// One that never ends.
    OneThatStays,
    None,
}

fn is_cancelled(transcript: &Transcript) -> bool {
    let mut events = transcript.events.iter();
    events.any(|event| matches!(&event.what, EventKind::Raised(raised) if raised.is_cancellation()))
}

/// Stops a server while these go on, and a watched session: what became of them, what meets a client that comes then, and
/// after how long that session's call was cancelled.
async fn stop_with<const N: usize>(
    stage: &RunningServer,
    scenes: [Scene; N],
    watched: WatchedSession,
) -> Result<([Transcript; N], Connects, Option<Duration>), Error> {
    let is_watched = watched == WatchedSession::OneThatStays;
    let stuck = Recorder::new(Plan { seed: 1, faults: Vec::new() });
    let stay = request("/ws/receive/accept/stay");
    let hold = async { if is_watched { client::open(&stay, PATIENCE, &stuck, &stage.served).await } else { Ok(None) } };
    let stopped = async {
        let all = async {
            while stage.server().running() < N + usize::from(is_watched) {
                sleep(LOOK_AGAIN).await;
            }
        };
        let _ = timeout(PATIENCE, all).await;
        // Clients that have just been accepted hear of it first.
        sleep(SETTLING).await;
        let start = Instant::now();
        stage.server().terminate();
        sleep(AT_ONCE / 2).await;
        let connects = match TcpStream::connect(stage.server().address()).await {
            Ok(_) => Connects::Queued,
            Err(_) => Connects::Refused,
        };
        let mut seen = Transcript::default();
        while is_watched && !is_cancelled(&seen) && start.elapsed() < GRACE_WATCHED {
            sleep(LOOK_AGAIN).await;
            stage.server().running();
            let at = start.elapsed();
            seen = stuck.transcript();
            // A process that ends takes its calls with it.
            if is_cancelled(&seen) || stage.server().has_ended() {
                return (connects, Some(at));
            }
        }
        (connects, None)
    };
    let (performed, (connects, cancelled), held) = tokio::join!(stage.each(scenes), stopped, hold);
    held?;
    Ok((performed?, connects, cancelled))
}
