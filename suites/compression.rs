//! Messages under permessage-deflate: client, edge and played servers among one another, and behind real servers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use relapse::{discover::read_edge_fault, run, target::Target};
use relapse_core::{
    asgi::event::{Inbound, Outbound},
    client::step::{Action, Awaited, Request, Step},
    plan::Plan,
    record::transcript::{Actor, EventKind, Transcript},
    wire::{
        close_code::CloseCode,
        deflate::{Coding, DeflateParameters, Deflater, RSV1},
        frame::{Frame, FrameError, Opcode},
        head::{RequestHead, ResponseHead, accept_key, field, header},
    },
};
use relapse_python::{process::Server as PythonServer, served::Served};
use relapse_simulate::{
    clock::{Clock, Runtime},
    edge,
    link::{Link, Wire},
    recorder::Recorder,
    server,
};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::{
    python::binding,
    served::installation,
    support::{Ends, Reached, Scripted, profile},
};

/// The words of the clients. They come back, so that a message refers to those before it.
const SAID: [&str; 5] = ["one and one", "two and one and two", "three and two", "two", "one and three and two"];

const TAKEOVER: &str = "permessage-deflate";
const NO_TAKEOVER: &str = "permessage-deflate; client_no_context_takeover; server_no_context_takeover";
const SMALL_WINDOWS: &str = "permessage-deflate; client_max_window_bits=9; server_max_window_bits=9";

fn step(act: Action) -> Step {
    Step::new(act, Duration::from_secs(5))
}

/// A client that offers an extension, says everything, and reads until the answer to the last word.
fn steps(extensions: &str) -> Vec<Step> {
    let open = Request { extensions: extensions.to_owned(), ..Request::standard("GET", "/") };
    let said = SAID.iter().map(|text| step(Action::SendText((*text).to_owned())));
    let rest = [
        Action::SendText("end".to_owned()),
        Action::Wait(Awaited::Text("end".to_owned())),
        Action::Close(CloseCode::NORMAL),
    ];
    std::iter::once(step(Action::Open(open))).chain(said).chain(rest.map(step)).collect()
}

fn plan(fault: &str) -> Plan {
    let faults = Some(fault).filter(|fault| !fault.is_empty()).map(|line| read_edge_fault(line).unwrap());
    Plan { seed: 1, faults: faults.into_iter().collect() }
}

/// The texts that a client got.
fn heard(transcript: &Transcript) -> Vec<String> {
    let whole = transcript.events.iter().filter_map(|event| match &event.what {
        EventKind::FrameSeen(frame) if frame.is_message() && frame.is_final => Some(frame),
        EventKind::MessageSeen(frame) => Some(frame),
        _ => None,
    });
    whole.map(|frame| String::from_utf8(frame.payload.to_vec()).unwrap()).collect()
}

fn close_seen(transcript: &Transcript) -> Option<CloseCode> {
    transcript.events.iter().find_map(|event| match &event.what {
        EventKind::FrameSeen(frame) if frame.is_close() => frame.close_code(),
        _ => None,
    })
}

/// Whether all messages, in either direction, were compressed on the wire.
fn is_compressed(transcript: &Transcript) -> bool {
    let mut messages = transcript.events.iter().filter_map(|event| match &event.what {
        EventKind::FrameSeen(frame) | EventKind::FrameSent(frame) if frame.is_message() => Some(frame),
        _ => None,
    });
    messages.all(|frame| frame.reserved_bits == RSV1)
}

/// An app that says what it hears.
fn echo() -> Arc<Scripted> {
    Scripted::new(|_, mut ends: Ends| async move {
        ends.receive().await?;
        ends.send(Outbound::WebsocketAccept { subprotocol: None, headers: Vec::new() }).await?;
        while let Inbound::WebsocketReceive { text, bytes } = ends.receive().await? {
            ends.send(Outbound::WebsocketSend { text, bytes }).await?;
        }
        Ok(())
    })
}

/// Steps in memory, at an edge in front of a played server.
fn in_memory(server: &str, steps: &[Step], fault: &str) -> Transcript {
    let profile = profile(server);
    Runtime::new(Clock::Virtual).block_on(async move {
        let target = Reached::new(move |scribe| {
            let ((client, near), (far, server)) = (Link::pair(), Link::pair());
            tokio::spawn(edge::relay(near, Some(far), scribe.clone(), None));
            tokio::spawn(server::serve(server, echo(), Arc::clone(&profile), scribe, None));
            Box::pin(async { Ok(client) })
        });
        run::converse(steps, plan(fault), &target).await.unwrap()
    })
}

/// The faults that act on frames, and the texts that come back under each.
const FAULTS: [(&str, &[&str]); 10] = [
    ("", &["one and one", "two and one and two", "three and two", "two", "one and three and two", "end"]),
    (
        "replace_frame direction=to-server containing=three payload=new",
        &["one and one", "two and one and two", "new", "two", "new", "end"],
    ),
    (
        "replace_frame direction=to-client containing=three payload=new",
        &["one and one", "two and one and two", "new", "two", "new", "end"],
    ),
    (
        "split_frame containing=two",
        &["one and one", "two and one and two", "three and two", "two", "one and three and two", "end"],
    ),
    (
        "drop_frame direction=to-server containing=one nth=2 times=1",
        &["one and one", "three and two", "two", "one and three and two", "end"],
    ),
    (
        "drop_frame direction=to-client containing=one times=1",
        &["two and one and two", "three and two", "two", "one and three and two", "end"],
    ),
    (
        "duplicate_frame direction=to-client containing=three times=1",
        &[
            "one and one",
            "two and one and two",
            "three and two",
            "three and two",
            "two",
            "one and three and two",
            "end",
        ],
    ),
    (
        "swap_frame direction=to-server containing=two times=1",
        &["one and one", "three and two", "two and one and two", "two", "one and three and two", "end"],
    ),
    (
        "inject_frame direction=to-client containing=three injected=text payload=own count=1 times=1",
        &["one and one", "two and one and two", "own", "three and two", "two", "one and three and two", "end"],
    ),
    (
        "join_frame containing=two",
        &["one and one", "two and one and two", "three and two", "two", "one and three and two", "end"],
    ),
];

/// Faults act on the content of compressed messages, and every later message is still read as its sender meant it.
#[rstest]
fn faults_act_on_compressed_messages(
    #[values("uvicorn-0.54", "uvicorn-0.54-websockets")] server: &str,
    #[values(TAKEOVER, NO_TAKEOVER, SMALL_WINDOWS)] offer: &str,
) {
    for (fault, expected) in FAULTS {
        let transcript = in_memory(server, &steps(offer), fault);
        assert_eq!(heard(&transcript), expected, "{fault}");
        assert!(is_compressed(&transcript) || fault.starts_with("inject"), "{fault}");
        assert_eq!(transcript.fired.first().is_some_and(|&fired| fired > 0), !fault.is_empty(), "{fault}");
    }
}

/// The same behind real servers, whose libraries are written by others.
#[rstest]
#[case::sansio("uvicorn[sansio]==0.54.0")]
#[case::websockets("uvicorn[websockets]==0.54.0")]
#[case::wsproto("uvicorn[wsproto]==0.54.0")]
#[case::hypercorn("hypercorn==0.18.0")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn faults_act_on_compressed_messages_of_real_servers(#[case] server: &str) {
    let directory = tempfile::tempdir().unwrap();
    write_echo(directory.path());
    let installation = installation(server, directory.path());
    Runtime::new(Clock::Real).block_on(async {
        let (server, _) = PythonServer::start(installation).await.unwrap();
        let served = Served::new(server, &binding(), String::new());
        for offer in [TAKEOVER, NO_TAKEOVER, SMALL_WINDOWS] {
            for (fault, expected) in FAULTS {
                let transcript = run::converse(&steps(offer), plan(fault), &served).await.unwrap();
                served.clear().await.unwrap();
                assert_eq!(heard(&transcript), expected, "{fault} under {offer}");
                assert!(is_compressed(&transcript) || fault.starts_with("inject"), "{fault}");
            }
        }
        served.stop().await.unwrap();
    });
}

/// Messages of every size, in both directions, behind real servers.
#[rstest]
#[case::websockets("uvicorn[sansio]==0.54.0")]
#[case::wsproto("uvicorn[wsproto]==0.54.0")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn long_messages_go_to_real_servers_and_back(#[case] server: &str) {
    let directory = tempfile::tempdir().unwrap();
    write_echo(directory.path());
    let installation = installation(server, directory.path());
    let mut chance = fastrand::Rng::with_seed(3);
    let mut bytes: Vec<Vec<u8>> = [0, 1, 125, 4096, 70_000, 200_000].map(|size| vec![b'x'; size]).into();
    bytes.extend([1000, 40_000].map(|size| (0..size).map(|_| chance.u8(..)).collect()));
    bytes.extend(
        [1000, 100_000].map(|size| (0..size).map(|number: u32| (number.wrapping_mul(number) % 251) as u8).collect()),
    );
    let mut all = steps(TAKEOVER);
    all.splice(1..=SAID.len(), bytes.iter().map(|bytes| step(Action::SendBytes(bytes.clone()))));
    let transcript = Runtime::new(Clock::Real).block_on(async {
        let (server, _) = PythonServer::start(installation).await.unwrap();
        let served = Served::new(server, &binding(), String::new());
        let transcript = run::converse(&all, plan("split_frame direction=to-client"), &served).await.unwrap();
        served.stop().await.unwrap();
        transcript
    });
    let came = transcript.events.iter().filter_map(|event| match &event.what {
        EventKind::MessageSeen(frame) if frame.opcode == Opcode::Binary => Some(frame.payload.to_vec()),
        _ => None,
    });
    assert!(came.collect::<Vec<_>>() == bytes);
}

fn write_echo(directory: &Path) {
    const ECHO: &str = r#"
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return  # it has none
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        kind = "text" if event.get("text") is not None else "bytes"
        await send({"type": "websocket.send", kind: event[kind]})
"#;
    std::fs::write(directory.join("service.py"), ECHO).unwrap();
}

/// A reserved bit is one that has no meaning: RSV2 where messages are compressed.
#[rstest]
#[case("uvicorn-0.54", TAKEOVER, 6)]
#[case("uvicorn-0.54", "", 4)]
#[case("daphne-4.2", TAKEOVER, 4)]
fn a_reserved_bit_breaks_the_rule(#[case] server: &str, #[case] offer: &str, #[case] bits: u8) {
    let transcript =
        in_memory(server, &steps(offer), "break_frame direction=to-client rule=reserved-bit containing=three");
    let broken = transcript.events.iter().find_map(|event| match &event.what {
        EventKind::FrameSeen(frame)
            if frame.reserved_bits & !RSV1 != 0 || (offer.is_empty() || bits == 4) && frame.reserved_bits != 0 =>
        {
            Some(frame.reserved_bits)
        }
        _ => None,
    });
    assert_eq!(broken, Some(bits));
    let refused = transcript.events.iter().any(|event| event.what == EventKind::BadFrameSeen(FrameError::Reserved));
    assert!(refused, "{transcript:#?}");
    let transcript =
        in_memory(server, &steps(offer), "break_frame direction=to-server rule=reserved-bit containing=three");
    let expected = Some(CloseCode::PROTOCOL_ERROR).filter(|_| server != "daphne-4.2");
    assert_eq!(close_seen(&transcript), expected);
}

/// Messages pass byte for byte until a fault changes one.
#[test]
fn messages_pass_byte_for_byte_until_one_is_changed() {
    let sent: Vec<Frame> = compressed(&["one", "two one", "three two one", "one two"], true);
    let carried = through_edge(&sent, true, "replace_frame direction=to-client containing=three payload=new");
    assert_eq!(carried[..2], sent[..2]);
    assert!(carried[2].payload != sent[2].payload && carried[3].payload != sent[3].payload);
    // Without takeover the next message is readable as it is.
    let sent: Vec<Frame> = compressed(&["one", "two one", "three two one", "one two"], false);
    let carried = through_edge(&sent, false, "replace_frame direction=to-client containing=three payload=new");
    assert_eq!([&carried[0], &carried[1], &carried[3]], [&sent[0], &sent[1], &sent[3]]);
}

fn compressed(texts: &[&str], has_takeover: bool) -> Vec<Frame> {
    let mut deflater = Deflater::new(Coding { has_takeover, window_bits: 15 });
    let frame =
        |text: &&str| Frame { reserved_bits: RSV1, ..Frame::new(Opcode::Text, deflater.piece(text.as_bytes(), true)) };
    texts.iter().map(frame).collect()
}

/// The frames of a server, which share a window or do not, as they come out of an edge.
fn through_edge(frames: &[Frame], has_takeover: bool, fault: &str) -> Vec<Frame> {
    let parameters = DeflateParameters { server_no_context_takeover: !has_takeover, ..DeflateParameters::default() };
    let frames = frames.to_vec();
    Runtime::new(Clock::Virtual).block_on(async {
        let ((client, near), (far, mut server)) = (Link::pair(), Link::pair());
        let recorder = Recorder::new(plan(fault));
        tokio::spawn(edge::relay(near, Some(far), recorder.scribe(0), None));
        let mut wire = Wire::new(client);
        wire.outgoing.extend_from_slice(UPGRADE);
        wire.flush().await;
        let mut answer = Vec::new();
        let headers = vec![field("upgrade", "websocket"), field("sec-websocket-extensions", parameters.to_string())];
        ResponseHead { status: 101, headers }.encode(&mut answer);
        frames.iter().for_each(|frame| frame.encode(&mut answer));
        server.write_all(&answer).await.unwrap();
        server.shutdown().await.unwrap();
        while !wire.has_ended() {
            wire.progress().await;
        }
        let (_, length) = ResponseHead::decode(&wire.incoming).unwrap().unwrap();
        let mut rest = wire.incoming.split_off(length);
        std::iter::from_fn(|| Frame::decode(&mut rest, 1 << 20).unwrap()).collect()
    })
}

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

/// A message that unfolds to more than the limit is not unfolded: the edge lets it pass and says so, and the client gives up.
#[test]
fn a_message_that_unfolds_without_end_is_given_up() {
    let transcript = Runtime::new(Clock::Virtual).block_on(async move {
        let target = Reached::new(move |scribe| {
            let ((client, near), (far, server)) = (Link::pair(), Link::pair());
            tokio::spawn(edge::relay(near, Some(far), scribe, None));
            tokio::spawn(serve_bomb(server));
            Box::pin(async { Ok(client) })
        });
        run::converse(&steps(TAKEOVER), plan("drop_frame containing=y"), &target).await.unwrap()
    });
    let given_up = transcript.events.iter().any(|event| {
        matches!(&event.what, EventKind::BadFrameSeen(FrameError::TooLong { announced }) if *announced < 17 << 20)
    });
    assert!(given_up, "{transcript:#?}");
    let warned = transcript.events.iter().any(|event| {
        event.party == Actor::Edge
            && matches!(&event.what, EventKind::Logged { message, .. } if message.contains("is longer than 16 MiB"))
    });
    assert!(warned, "{transcript:#?}");
}

/// Says a message of 64 MiB in 64 KiB.
async fn serve_bomb(server: Link) {
    let mut wire = Wire::new(server);
    let head = loop {
        if let Some((head, _)) = RequestHead::decode(&wire.incoming).unwrap() {
            break head;
        }
        wire.progress().await;
    };
    let accept = accept_key(header(&head.headers, "sec-websocket-key").unwrap());
    let headers = vec![
        field("upgrade", "websocket"),
        field("connection", "Upgrade"),
        field("sec-websocket-accept", accept),
        field("sec-websocket-extensions", TAKEOVER),
    ];
    ResponseHead { status: 101, headers }.encode(&mut wire.outgoing);
    let piece = {
        let mut deflater = Deflater::new(Coding { has_takeover: false, window_bits: 15 });
        deflater.piece(&vec![b'x'; 1 << 20], false)
    };
    let frame = Frame::new(Opcode::Binary, piece.repeat(64));
    Frame { reserved_bits: RSV1, ..frame }.encode(&mut wire.outgoing);
    wire.flush().await;
    wire.end().await;
}

/// How a client ends its side.
#[derive(Debug, Clone, Copy)]
enum ClientEnd {
    Finishes,
    Breaks,
}

/// A stalled direction keeps back the end of its side as well, for ten minutes at most.
#[rstest]
fn a_stalled_direction_keeps_back_the_end(#[values(ClientEnd::Finishes, ClientEnd::Breaks)] end: ClientEnd) {
    Runtime::new(Clock::Virtual).block_on(async {
        let ((mut client, near), (far, mut server)) = (Link::pair(), Link::pair());
        let recorder = Recorder::new(plan("stall direction=to-server after_bytes=80"));
        let carried = tokio::spawn(edge::relay(near, Some(far), recorder.scribe(0), None));
        client.write_all(UPGRADE).await.unwrap();
        server.write_all(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n").await.unwrap();
        // A frame that is cut off by the stall.
        client.write_all(&[0x81, 0x80, 0, 0, 0, 0].repeat(10)).await.unwrap();
        let mut came = vec![0; 80];
        server.read_exact(&mut came).await.unwrap();
        match end {
            ClientEnd::Finishes => client.shutdown().await.unwrap(),
            ClientEnd::Breaks => client.reset(),
        }
        let began = Instant::now();
        let learned = timeout(Duration::from_secs(500), server.read_u8()).await;
        assert!(learned.is_err(), "{end:?}: the server is told after {:?}", began.elapsed());
        assert!(server.read_u8().await.is_err());
        assert_eq!(began.elapsed().as_secs(), 600);
        carried.await.unwrap();
    });
}

/// On sockets a reset of the client is kept back as a FIN is, and the server's own end is the end.
#[test]
fn a_stalled_direction_keeps_back_a_reset() {
    Runtime::new(Clock::Real).block_on(async {
        let listener = relapse_simulate::link::Listener::bind(Clock::Real).await.unwrap();
        let address = listener.address().unwrap();
        let (client, near) = tokio::join!(Link::connect(address, Clock::Real), listener.accept());
        let (mut client, near) = (client.unwrap(), near.unwrap());
        let (far, mut server) = Link::pair();
        let recorder = Recorder::new(plan("stall direction=to-server after_bytes=80"));
        let carried = tokio::spawn(edge::relay(near, Some(far), recorder.scribe(0), None));
        client.write_all(&[UPGRADE, UPGRADE].concat()).await.unwrap();
        let mut came = vec![0; 80];
        server.read_exact(&mut came).await.unwrap();
        client.reset();
        // The reset has come once what the server says cannot be delivered any more.
        let told = timeout(Duration::from_millis(300), server.read_u8()).await;
        assert!(told.is_err(), "the server is told");
        drop(server);
        let summary = carried.await.unwrap();
        assert_eq!(summary.ended, edge::Ended::Server);
    });
}

/// Where the server's direction is stalled, its end is kept from the client, until the client goes.
#[test]
fn the_end_of_the_server_is_kept_back() {
    Runtime::new(Clock::Virtual).block_on(async {
        let ((mut client, near), (far, mut server)) = (Link::pair(), Link::pair());
        let recorder = Recorder::new(plan("silence direction=to-client"));
        let carried = tokio::spawn(edge::relay(near, Some(far), recorder.scribe(0), None));
        client.write_all(UPGRADE).await.unwrap();
        server.write_all(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello").await.unwrap();
        server.shutdown().await.unwrap();
        let mut came = Vec::new();
        let end = timeout(Duration::from_secs(500), client.read_to_end(&mut came)).await;
        assert!(end.is_err(), "{}", String::from_utf8_lossy(&came));
        drop(client);
        let began = Instant::now();
        carried.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 0);
    });
}
