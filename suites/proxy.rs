//! The standing man in the middle, on real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use relapse::{
    discover::{balancers, read_edge_fault},
    environment::Environment,
    proxy::{
        LogEvent, LogRecord, Proxy, ProxyHandle, ProxySetup,
        control::{ControlToken, serve as serve_control},
    },
    run,
};
use relapse_backend::revision::Revision;
use relapse_core::{
    asgi::{
        event::{Inbound, Outbound},
        exception::Exception,
        scope::ScopeType,
    },
    client::step::{Action, Awaited, Request, Step},
    fault::{Fault, FaultKind},
    judge::classify,
    plan::Plan,
    record::transcript::EventKind,
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    edge,
    link::{Link, Listener},
    server,
};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::support::{Ends, Reached, Scripted, on_backend, open, profile, step};

/// Longer than any passing test here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// A proxy in front of an address, and its log.
struct Standing {
    address: SocketAddr,
    desk: ProxyHandle,
    entries: Receiver<Arc<LogRecord>>,
}

impl Standing {
    async fn before(upstream: SocketAddr, faults: &[&str], connections_max: usize) -> Standing {
        let faults = faults.iter().map(|line| read_edge_fault(line).unwrap()).collect();
        Standing::with(upstream, faults, connections_max).await
    }

    async fn with(upstream: SocketAddr, faults: Vec<Fault>, connections_max: usize) -> Standing {
        let setup = ProxySetup {
            listen: "127.0.0.1:0".parse().unwrap(),
            upstream: format!("http://{upstream}").parse().unwrap(),
            faults,
            seed: 1,
            connections_max,
        };
        let proxy = Proxy::bind(setup).await.unwrap();
        let (address, desk) = (proxy.address().unwrap(), proxy.desk());
        let entries = desk.entries();
        tokio::spawn(proxy.run());
        Standing { address, desk, entries }
    }

    /// The next entry that is wanted.
    async fn entry<T>(&mut self, wanted: impl Fn(&LogEvent) -> Option<T>) -> T {
        let found = async {
            loop {
                let entry = self.entries.recv().await.unwrap();
                if let Some(found) = wanted(&entry.what) {
                    return found;
                }
            }
        };
        timeout(LIMIT, found).await.unwrap()
    }

    /// The next entry of a kind, whole.
    async fn entry_of(&mut self, wanted: impl Fn(&LogEvent) -> bool) -> Arc<LogRecord> {
        let found = async {
            loop {
                let entry = self.entries.recv().await.unwrap();
                if wanted(&entry.what) {
                    return entry;
                }
            }
        };
        timeout(LIMIT, found).await.unwrap()
    }

    /// The actor that closed the next connection that ends, and how.
    async fn closed(&mut self) -> (String, String) {
        self.entry(|what| match what {
            LogEvent::Closed { by, why, .. } => Some((by.clone(), why.clone())),
            _ => None,
        })
        .await
    }
}

fn on_sockets<T>(future: impl Future<Output = T>) -> T {
    Runtime::new(Clock::Real).block_on(async { timeout(LIMIT, future).await.expect("it hangs") })
}

/// A WebSocket server that answers every message with the same; `1011` makes it close so.
async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if message == Message::text("1011") {
                        let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame {
                            code: CloseCode::Error,
                            reason: "boom".into(),
                        };
                        let _ = socket.close(Some(frame)).await;
                    } else if message.is_text() || message.is_binary() {
                        let _ = socket.send(message).await;
                    }
                }
            });
        }
    });
    address
}

async fn client(address: SocketAddr) -> tokio_tungstenite::WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    tokio_tungstenite::client_async(format!("ws://{address}/echo"), stream).await.unwrap().0
}

/// A server that keeps what one client says, and answers with given bytes before it ends.
async fn raw_server(answer: Vec<u8>) -> (SocketAddr, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = vec![0; 64 * 1024];
        let count = stream.read(&mut heard).await.unwrap();
        heard.truncate(count);
        stream.write_all(&answer).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut heard)).await;
        heard
    });
    (address, heard)
}

const UPGRADE: &str = "GET /ws?token=secret HTTP/1.1\r\nHoSt:  odd\r\nX-A:\tb \r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\u{1}early";
const POST: &str = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";

/// Without faults, with none that is armed, and while they are held, every byte passes as it is.
#[rstest]
fn what_no_fault_acts_on_passes_byte_for_byte(
    #[values(UPGRADE, POST, "garbage that is no HTTP\r\n\r\n\u{0}")] said: &str,
    #[values(
        "HTTP/1.1 101 Odd  Reason\r\nX:  y \r\n\r\n\u{2}frames?",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
        "no HTTP either"
    )]
    answer: &str,
    #[values("none", "removed", "paused")] faults: &str,
) {
    let acts = ["strip_header header=Host", "delay_bytes delay_ms=1", "drop_frame", "hijack_answer status=503 body=x"];
    on_sockets(async {
        let (upstream, heard) = raw_server(answer.into()).await;
        let mut proxy = Standing::before(upstream, if faults == "none" { &[] } else { &acts }, 10).await;
        match faults {
            "removed" => (1..=acts.len()).for_each(|number| assert!(proxy.desk.remove(number))),
            "paused" => proxy.desk.pause(),
            _ => {}
        }
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        stream.read_to_end(&mut seen).await.unwrap();
        drop(stream);
        assert_eq!(String::from_utf8_lossy(&seen), answer);
        assert_eq!(String::from_utf8_lossy(&heard.await.unwrap()), said);
        proxy.closed().await;
        assert_eq!(proxy.desk.counts().acted, 0);
    });
}

/// The log names the closing actor, and the way, for every connection.
#[rstest]
#[case("1011", &[], "server", "close 1011 \"boom\"")]
#[case("bye", &[], "client", "close 1000")]
#[case("leave", &[], "client", "end of stream without a close frame")]
#[case("1011", &["drop_frame opcode=close direction=to-client"], "client", "end of stream without a close frame; the server had said close 1011 \"boom\"")]
#[case("hello", &["close_with code=4000 reason=enough direction=to-server nth=1"], "fault 1", "a fault ended it")]
#[case("hello", &["cut after_bytes=131 direction=to-client"], "fault 1", "a fault ended it")]
#[case("wait", &["lifetime after_ms=50"], "fault 1", "a fault ended it")]
#[case("wait", &["idle after_ms=50"], "fault 1", "a fault ended it")]
fn who_closed_is_told(#[case] said: &str, #[case] faults: &[&str], #[case] by: &str, #[case] why: &str) {
    on_sockets(async {
        let mut proxy = Standing::before(echo_server().await, faults, 10).await;
        let mut socket = client(proxy.address).await;
        match said {
            "bye" => socket.close(Some(close_normal())).await.unwrap(),
            "leave" => drop(socket.get_mut().shutdown().await),
            "wait" => {}
            text => socket.send(Message::text(text)).await.unwrap(),
        }
        // A client that does not see the close leaves some day.
        let _ = timeout(Duration::from_millis(300), async { while let Some(Ok(_)) = socket.next().await {} }).await;
        drop(socket);
        assert_eq!(proxy.closed().await, (by.to_owned(), why.to_owned()));
    });
}

/// When the head of an answer comes, and when its first word, of an application that says a word of 1000 bytes every
/// second, ten in all; in milliseconds, at the edge with this fault.
fn first_word(fault: &str, unbuffered: bool) -> (u64, u64) {
    let application = Scripted::new(move |_, mut ends: Ends| async move {
        ends.receive().await?;
        let off = (b"x-accel-buffering"[..].into(), b"no"[..].into());
        let headers = if unbuffered { vec![off] } else { Vec::new() };
        ends.send(Outbound::ResponseStart { status: 200, headers }).await?;
        for left in (0..10).rev() {
            ends.send(Outbound::ResponseBody { body: vec![b'x'; 1000], more_body: left > 0 }).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    });
    let faults = read_edge_fault(fault).into_iter().collect();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    Runtime::new(Clock::Virtual).block_on(async {
        let recorder = relapse_simulate::recorder::Recorder::new(Plan { seed: 1, faults });
        let (mut client, near) = Link::pair();
        let (far, server) = Link::pair();
        let scribe = recorder.scribe(0);
        tokio::spawn(server::serve(server, application, profile("uvicorn-0.54"), scribe.clone(), None));
        tokio::spawn(edge::relay(near, Some(far), scribe, None));
        let began = tokio::time::Instant::now();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut whole = Vec::new();
        while !whole.ends_with(b"\r\n0\r\n\r\n") {
            assert_ne!(client.read_buf(&mut whole).await.unwrap(), 0, "{}", String::from_utf8_lossy(&whole));
            seen.lock().unwrap().push((began.elapsed().as_millis() as u64, whole.clone()));
        }
        assert_eq!(whole.iter().filter(|byte| **byte == b'x').count() - usize::from(unbuffered), 10_000);
    });
    let seen = seen.lock().unwrap();
    let when = |wanted: &[u8]| {
        let is_in = |text: &[u8]| text.windows(wanted.len()).any(|part| part == wanted);
        seen.iter().find(|(_, text)| is_in(text)).unwrap().0
    };
    (when(b"HTTP/1.1 200"), when(b"xxxx"))
}

/// An edge that keeps an answer back hands its head and its first word on when a piece is full, or at its end.
#[rstest]
#[case::nothing("drop_frame", false, (0, 0))]
#[case::whole("hold_answer", false, (9000, 9000))]
#[case::whole_whatever_it_says("hold_answer", true, (9000, 9000))]
#[case::full("buffer_answer bytes=4096", false, (4000, 4000))]
#[case::never_full("buffer_answer bytes=65536", false, (9000, 9000))]
#[case::switched_off("buffer_answer bytes=4096", true, (0, 0))]
fn an_answer_is_kept_back(#[case] fault: &str, #[case] unbuffered: bool, #[case] expected: (u64, u64)) {
    assert_eq!(first_word(fault, unbuffered), expected);
}

/// A client that does not read makes the server wait, however much there is to carry; once it reads, it gets everything.
#[rstest]
#[case::no_fault("", "HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")]
#[case::until_the_end("", "HTTP/1.1 200 OK\r\n\r\n")]
#[case::frames("drop_frame direction=to-server", "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")]
#[case::delayed("delay_bytes delay_ms=1", "HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")]
fn a_client_that_does_not_read_makes_the_server_wait(#[case] fault: &str, #[case] head: &'static str) {
    const BODY_BYTES: usize = 64 << 20;
    // At each of the edge's three places a MiB, and the piece that reaches it.
    const HELD_BYTES_MAX: usize = 4 << 20;
    let faults: Vec<Fault> =
        Some(fault).filter(|fault| !fault.is_empty()).into_iter().map(|line| read_edge_fault(line).unwrap()).collect();
    let written = Arc::new(AtomicUsize::new(0));
    let taken = Arc::clone(&written);
    Runtime::new(Clock::Virtual).block_on(async {
        let recorder = relapse_simulate::recorder::Recorder::new(Plan { seed: 1, faults });
        let (mut client, near) = Link::pair();
        let (far, mut server) = Link::pair();
        tokio::spawn(edge::relay(near, Some(far), recorder.scribe(0), None));
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            .await
            .unwrap();
        tokio::spawn(async move {
            server.read_u8().await.unwrap();
            server.write_all(head.as_bytes()).await.unwrap();
            let piece = [0x82, 0x7e, 0xff, 0xfc].into_iter().chain([b'x'; 0xfffc]).collect::<Vec<u8>>();
            for _ in 0..BODY_BYTES / piece.len() {
                server.write_all(&piece).await.unwrap();
                taken.fetch_add(piece.len(), Ordering::Relaxed);
            }
        });
        // Nothing else goes on in this time, so that everything that can move has moved.
        tokio::time::sleep(Duration::from_secs(100)).await;
        let held = written.load(Ordering::Relaxed);
        assert!(held < HELD_BYTES_MAX, "{held} bytes are held");
        let (mut read, mut buffer) = (0, vec![0; 64 << 10]);
        while let count @ 1.. = client.read(&mut buffer).await.unwrap() {
            read += count;
        }
        assert_eq!(read, head.len() + BODY_BYTES);
    });
}

/// An answer that ends with its stream is handed on then.
#[rstest]
#[case("hold_answer")]
#[case("buffer_answer bytes=4")]
fn an_answer_that_is_kept_back_ends_with_its_stream(#[case] fault: &str) {
    on_sockets(async {
        let answer = "HTTP/1.1 200 OK\r\n\r\nno length";
        let (upstream, _heard) = raw_server(answer.as_bytes().to_vec()).await;
        let proxy = Standing::before(upstream, &[fault], 10).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut seen = String::new();
        stream.read_to_string(&mut seen).await.unwrap();
        assert_eq!(seen, answer);
        assert_eq!(proxy.desk.faults()[0].acted, 1);
    });
}

/// A server that closes with 1011 once the client has closed, waited for the end of its stream or not.
async fn contrary_server(waits_for_end: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(CLOSE_1000) {
            assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0, "the client ends before it closes");
            if heard.ends_with(b"\r\n\r\n") {
                let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
        if waits_for_end {
            let _ = stream.read_to_end(&mut heard).await;
        }
        stream.write_all(b"\x88\x06\x03\xf3boom").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    address
}

/// Close 1000, with the mask 0.
const CLOSE_1000: &[u8] = b"\x88\x82\x00\x00\x00\x00\x03\xe8";

/// The closes of both sides are told, also the server's that comes when the client is gone.
#[rstest]
#[case::answered(false, &[])]
#[case::too_late(true, &[])]
#[case::answered_among_faults(false, &["drop_frame opcode=ping"])]
#[case::too_late_among_faults(true, &["drop_frame opcode=ping"])]
fn the_closes_of_both_sides_are_told(#[case] waits_for_end: bool, #[case] faults: &[&str]) {
    on_sockets(async {
        let mut proxy = Standing::before(contrary_server(waits_for_end).await, faults, 10).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let head = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
        }
        stream.write_all(CLOSE_1000).await.unwrap();
        if waits_for_end {
            stream.shutdown().await.unwrap();
        }
        let _ = stream.read_to_end(&mut seen).await;
        let entry = proxy.entry_of(|what| matches!(what, LogEvent::Closed { .. })).await;
        let json = serde_json::to_value(&*entry).unwrap();
        let told = |index: usize, key: &str| json["closes"][index][key].clone();
        assert_eq!((told(0, "by"), told(0, "code"), told(0, "reason")), ("client".into(), 1000.into(), "".into()));
        assert_eq!((told(1, "by"), told(1, "code"), told(1, "reason")), ("server".into(), 1011.into(), "boom".into()));
        assert!(told(0, "close_at_ms").as_u64() <= told(1, "close_at_ms").as_u64(), "{json}");
        let line = entry.to_string();
        assert!(line.contains("closed by client: close 1000, then server said close 1011 \"boom\" "), "{line}");
    });
}

fn close_normal() -> tokio_tungstenite::tungstenite::protocol::CloseFrame {
    tokio_tungstenite::tungstenite::protocol::CloseFrame { code: CloseCode::Normal, reason: "".into() }
}

/// Requests of one connection are read one after the other, and so are their answers.
#[test]
fn a_fault_acts_on_every_request_of_a_connection() {
    on_sockets(async {
        let upstream = wiremock::MockServer::start().await;
        let stripped = wiremock::matchers::header_exists("authorization");
        wiremock::Mock::given(stripped).respond_with(wiremock::ResponseTemplate::new(500)).mount(&upstream).await;
        let any = wiremock::matchers::any();
        let chunked = wiremock::ResponseTemplate::new(200).set_body_string("x".repeat(50_000));
        wiremock::Mock::given(any).respond_with(chunked).mount(&upstream).await;
        let proxy = Standing::before(*upstream.address(), &["strip_header header=Authorization"], 10).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        for _ in 0..3 {
            stream
                .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: y\r\nContent-Length: 3\r\n\r\nabc")
                .await
                .unwrap();
            let mut seen = Vec::new();
            while !String::from_utf8_lossy(&seen).contains(&"x".repeat(50_000)) {
                assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
            }
            assert!(seen.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&seen[..40]));
        }
        assert_eq!(proxy.desk.faults()[0].acted, 3);
    });
}

/// A load balancer's answer where its server is not there.
#[rstest]
#[case("", "HTTP/1.1 502", "relapse: http://")]
#[case("alb", "HTTP/1.1 502", "<center><h1>502 Bad Gateway</h1></center>")]
#[case("cloudflare", "HTTP/1.1 521", "Web server is down")]
#[case("traefik", "HTTP/1.1 502", "Bad Gateway")]
#[case("envoy", "HTTP/1.1 503", "upstream connect error")]
fn a_server_that_is_not_there_is_answered_for(#[case] balancer: &str, #[case] status: &str, #[case] body: &str) {
    on_sockets(async {
        // A port that is taken, without a listener.
        let taken = TcpSocket::new_v4().unwrap();
        taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let vacant = taken.local_addr().unwrap();
        let mut proxy = Standing::with(vacant, faults_of(balancer), 10).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut seen = String::new();
        stream.read_to_string(&mut seen).await.unwrap();
        assert!(seen.starts_with(status) && seen.contains(body), "{seen}");
        drop(stream);
        let why = proxy.entry(|what| matches!(what, LogEvent::Unreachable { .. }).then_some(())).await;
        assert_eq!(why, ());
        assert_eq!(proxy.closed().await.0.starts_with("fault"), !balancer.is_empty());
    });
}

fn faults_of(balancer: &str) -> Vec<Fault> {
    let found = balancers().unwrap().into_iter().find(|known| known.name == balancer);
    found.map_or_else(Vec::new, |balancer| balancer.faults)
}

/// An application that accepts, and is silent from then on.
async fn session(mut ends: Ends) -> Result<(), Exception> {
    ends.receive().await?;
    let head = Outbound::WebsocketAccept { subprotocol: None, headers: Vec::new() };
    ends.send(head).await?;
    while !matches!(ends.receive().await?, Inbound::WebsocketDisconnect { .. }) {}
    Ok(())
}

/// A load balancer does the same in memory on virtual time and on sockets on shortened real time.
#[rstest]
#[case("gcp-https", Some(30))]
#[case("cloud-run", Some(300))]
#[case("alb", Some(60))]
#[case("nginx", None)]
#[case("nginx-websocket", Some(60))]
#[case("cloudflare", Some(100))]
#[case("envoy", Some(300))]
fn a_load_balancer_ends_a_silent_session(#[case] name: &str, #[case] after_s: Option<u64>) {
    let limit = Duration::from_secs(400);
    let silent = [open(), Step::new(Action::Wait(Awaited::Close), limit)];
    let transcript = Runtime::new(Clock::Virtual).block_on(async {
        let faults = faults_of(name);
        let target = Reached::new(move |scribe| {
            let ((client, near), (far, server)) = (Link::pair(), Link::pair());
            let application = Scripted::new(|_, ends| session(ends));
            let relay = edge::relay(near, Some(far), scribe.clone(), None);
            tokio::spawn(relay);
            // This server does not ping.
            tokio::spawn(server::serve(server, application, profile("hypercorn-0.18"), scribe, None));
            Box::pin(async { Ok(client) })
        });
        run::converse(&silent, Plan { seed: 1, faults }, &target).await.unwrap()
    });
    let outcome = classify::readings(&transcript)[0].outcome();
    let Some(after_s) = after_s else {
        // An upgrade that is not passed on is no upgrade.
        let called = transcript.events.iter().find_map(|event| match &event.what {
            EventKind::Called { kind, .. } => Some(*kind),
            _ => None,
        });
        assert_eq!(called, Some(ScopeType::Http));
        return;
    };
    assert_eq!(outcome.to_string(), "drop (1006) (cut-by-fault; injected)");
    let ended = transcript.events.iter().find(|event| event.what == EventKind::EndSeen).unwrap();
    assert_eq!(ended.at.as_secs(), after_s);
    let on_wire = on_sockets(async {
        let faults = faults_of(name).iter().map(|fault| fault.scaled(0.1 / after_s as f64)).collect();
        let mut proxy = Standing::with(echo_server().await, faults, 10).await;
        let mut socket = client(proxy.address).await;
        let end = socket.next().await;
        assert!(!matches!(end, Some(Ok(_))), "{end:?}");
        proxy.closed().await
    });
    assert!(on_wire.0.starts_with("fault"), "{on_wire:?}");
}

/// A server that reads a request and ends the connection, `times` times, and then answers; how often it was asked.
async fn reluctant_server(times: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            if count.fetch_add(1, Ordering::Relaxed) >= times {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
        }
    });
    (address, asked)
}

/// A request that may be made again is made once more, on another connection; no other is, and none twice.
#[rstest]
#[case::a_get("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1, "HTTP/1.1 200 OK", 2)]
#[case::answered_at_once("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 0, "HTTP/1.1 200 OK", 1)]
#[case::once_only("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 2, "", 2)]
#[case::a_post("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 1, "", 1)]
#[case::a_get_with_a_body("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 1, "", 1)]
#[case::an_upgrade("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 1, "", 1)]
fn a_balancer_asks_once_more(
    #[case] request: &str,
    #[case] refuses: usize,
    #[case] expected: &str,
    #[case] expected_asked: usize,
) {
    on_sockets(async {
        let (upstream, asked) = reluctant_server(refuses).await;
        let proxy = Standing::before(upstream, &["retry_request"], 10).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut seen = Vec::new();
        // A client without an answer sees the end, in whatever way.
        let _ = stream.read_to_end(&mut seen).await;
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.starts_with(expected) && seen.is_empty() == expected.is_empty(), "{seen}");
        assert_eq!(asked.load(Ordering::Relaxed), expected_asked);
        assert_eq!(proxy.desk.counts().acted, u64::from(expected_asked == 2));
    });
}

/// Every balancer says where its figures come from, and does something.
#[test]
fn balancers_have_sources() {
    for balancer in balancers().unwrap() {
        assert!(balancer.source.contains("https://"), "{}", balancer.name);
        assert!(!balancer.faults.is_empty() && !balancer.title.is_empty(), "{}", balancer.name);
        let is_upstream =
            |fault: &Fault| matches!(&fault.kind, FaultKind::Connection(kind) if kind.name() == "missing_answer");
        assert!(balancer.faults.iter().any(is_upstream), "{}", balancer.name);
    }
}

/// No more connections than are allowed, and a refused client is told so.
#[test]
fn there_is_room_for_so_many() {
    on_sockets(async {
        let proxy = Standing::before(echo_server().await, &[], 2).await;
        let mut kept = vec![client(proxy.address).await, client(proxy.address).await];
        let mut third = TcpStream::connect(proxy.address).await.unwrap();
        let mut seen = String::new();
        third.read_to_string(&mut seen).await.unwrap();
        assert!(seen.starts_with("HTTP/1.1 503") && seen.to_ascii_lowercase().contains("retry-after"), "{seen}");
        let counts = proxy.desk.counts();
        assert_eq!((counts.open, counts.accepted, counts.refused), (2, 3, 1));
        for socket in &mut kept {
            socket.send(Message::text("still here")).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("still here"));
        }
    });
}

/// Many at a time, and none loses a frame.
#[test]
fn many_sessions_at_a_time() {
    const SESSIONS: usize = 200;
    on_sockets(async {
        let proxy = Standing::before(echo_server().await, &["strip_header header=Origin"], SESSIONS).await;
        let sessions = (0..SESSIONS).map(|number| async move {
            let mut socket = client(proxy.address).await;
            for round in 0..5 {
                let text = Message::text(format!("{number}.{round}"));
                socket.send(text.clone()).await.unwrap();
                assert_eq!(socket.next().await.unwrap().unwrap(), text);
            }
            socket
        });
        let kept = futures_util::future::join_all(sessions).await;
        assert_eq!(proxy.desk.counts().open, SESSIONS);
        drop(kept);
    });
}

/// Whatever either side does, the proxy goes on for all other connections.
#[rstest]
#[case::endless_headers("GET / HTTP/1.1\r\n{a: b\r\n}", "")]
#[case::endless_requests("{GET / HTTP/1.1\r\n\r\n}", "")]
#[case::garbage("\u{0}\u{1}\u{2}\u{3}\u{4}", "\u{5}\u{6}")]
#[case::a_frame_of_a_gibibyte(UPGRADE, "HTTP/1.1 101 x\r\n\r\n\u{1}\u{7f}\u{0}\u{0}\u{0}\u{0}\u{40}\u{0}\u{0}\u{0}{x}")]
#[case::an_endless_answer("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n{a: b\r\n}")]
#[case::a_huge_chunk(POST, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{x}")]
#[case::a_length_that_is_none("POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n{x}", "")]
fn a_hostile_side_ends_nothing_else(#[case] said: &str, #[case] answer: &str) {
    // The text between braces is repeated until the other side gives up, or there was a lot of it.
    fn repeated(text: &str) -> Vec<u8> {
        match text.split_once('{') {
            None => text.into(),
            Some((start, rest)) => [start, &rest[..rest.len() - 1].repeat(4 << 20)[..4 << 20]].concat().into_bytes(),
        }
    }
    on_sockets(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        let answer = repeated(answer);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut first = [0; 5];
                    let is_guest = stream.read_exact(&mut first).await.is_ok() && &first == b"GUEST";
                    let _ = stream.write_all(if is_guest { b"welcome" } else { &answer }).await;
                    let _ = timeout(Duration::from_millis(200), stream.read_to_end(&mut Vec::new())).await;
                });
            }
        });
        let faults = ["drop_frame containing=never", "set_answer_header header=X value=y", "strip_header header=Y"];
        let proxy = Standing::before(upstream, &faults, 10).await;
        let mut hostile = TcpStream::connect(proxy.address).await.unwrap();
        let mut seen = Vec::new();
        let (_, _) = tokio::join!(
            timeout(Duration::from_millis(500), async {
                let (mut read, mut write) = hostile.split();
                let said = repeated(said);
                tokio::join!(write.write_all(&said), read.read_to_end(&mut seen))
            }),
            async {
                // Beside it, and after it, another client is served.
                for _ in 0..2 {
                    let mut guest = TcpStream::connect(proxy.address).await.unwrap();
                    guest.write_all(b"GUEST\r\n\r\n").await.unwrap();
                    let mut heard = vec![0; 7];
                    guest.read_exact(&mut heard).await.unwrap();
                    assert_eq!(heard, b"welcome");
                }
            }
        );
        drop(hostile);
    });
}

/// The control interface of a proxy, and the token that it takes.
struct Control {
    address: SocketAddr,
    token: String,
}

impl Control {
    async fn of(proxy: &Standing) -> Control {
        let listener = Listener::bind(Clock::Real).await.unwrap();
        let (address, token) = (listener.address().unwrap(), ControlToken::random().unwrap());
        let text = token.text().to_owned();
        tokio::spawn(serve_control(listener, proxy.desk.clone(), token));
        Control { address, token: text }
    }

    /// The answer to a request with these header lines, each with its end.
    async fn answer(&self, request: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let head = format!("{request}\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut seen = String::new();
        stream.read_to_string(&mut seen).await.unwrap();
        seen
    }

    /// The header lines that every request has.
    fn headers(&self) -> String {
        format!("host: {}\r\nauthorization: Bearer {}\r\n", self.address, self.token)
    }

    async fn ask(&self, request: &str, body: &str) -> String {
        self.answer(request, &self.headers(), body).await
    }
}

/// A request that names another host, does not bring the token, or comes from a page is refused, whatever it asks for.
#[rstest]
#[case::own("host: HERE\r\nauthorization: Bearer TOKEN\r\n", 204)]
#[case::by_name("host: localhost:PORT\r\nauthorization: bearer TOKEN\r\n", 204)]
#[case::rebound("host: evil.example:PORT\r\nauthorization: Bearer TOKEN\r\n", 403)]
#[case::another_port("host: 127.0.0.1:1\r\nauthorization: Bearer TOKEN\r\n", 403)]
#[case::no_port("host: 127.0.0.1\r\nauthorization: Bearer TOKEN\r\n", 403)]
#[case::no_host("authorization: Bearer TOKEN\r\n", 403)]
#[case::two_hosts("host: HERE\r\nhost: evil.example\r\nauthorization: Bearer TOKEN\r\n", 403)]
#[case::a_user("host: evil.example@HERE\r\nauthorization: Bearer TOKEN\r\n", 403)]
#[case::no_token("host: HERE\r\n", 401)]
#[case::another_token("host: HERE\r\nauthorization: Bearer xTOKEN\r\n", 401)]
#[case::half_a_token("host: HERE\r\nauthorization: Bearer HALF\r\n", 401)]
#[case::another_scheme("host: HERE\r\nauthorization: Basic! TOKEN\r\n", 401)]
#[case::a_page("host: HERE\r\nauthorization: Bearer TOKEN\r\norigin: null\r\n", 403)]
fn strangers_do_not_control_a_proxy(#[case] headers: &str, #[case] status: u16) {
    on_sockets(async {
        let proxy = Standing::before(echo_server().await, &["strip_header header=Origin"], 10).await;
        let control = Control::of(&proxy).await;
        let (here, port) = (control.address.to_string(), control.address.port().to_string());
        let headers = headers.replace("HERE", &here).replace("PORT", &port).replace("TOKEN", &control.token);
        let headers = headers.replace("HALF", &control.token[..control.token.len() / 2]);
        for request in ["POST /pause HTTP/1.1", "POST /resume HTTP/1.1", "DELETE /faults/1 HTTP/1.1"] {
            let answer = control.answer(request, &headers, "").await;
            let begins = answer.starts_with(&format!("HTTP/1.1 {status}"));
            // The server itself may refuse a head that no client writes.
            assert!(begins || status == 403 && answer.starts_with("HTTP/1.1 400"), "{request}: {answer}");
        }
        assert_eq!(proxy.desk.faults()[0].armed, status != 204);
        let read = control.answer("GET /faults HTTP/1.1", &headers, "").await;
        assert_eq!(read.contains("strip Origin"), status == 204, "{read}");
    });
}

/// Faults are listed, added, removed and held while the proxy runs.
#[test]
fn a_proxy_is_controlled_over_http() {
    on_sockets(async {
        let proxy = Standing::before(echo_server().await, &["strip_header header=Origin"], 10).await;
        let control = Control::of(&proxy).await;
        let listed = control.ask("GET /faults HTTP/1.1", "").await;
        assert!(listed.contains(r#"{"number":1,"fault":"edge: strip Origin","acted":0,"armed":true}"#), "{listed}");
        let close = "[[fault]]\nkind = \"close_with\"\ncode = 4001\nreason = \"added\"\ndirection = \"to-client\"\n";
        assert!(control.ask("POST /faults HTTP/1.1", close).await.contains(r#"{"added":[2]}"#));
        let wrong = control.ask("POST /faults HTTP/1.1", "[[fault]]\nkind = \"close_wit\"\n").await;
        assert!(wrong.starts_with("HTTP/1.1 400") && wrong.contains("did you mean `close_with`?"), "{wrong}");
        let mut socket = client(proxy.address).await;
        socket.send(Message::text("hello")).await.unwrap();
        let closed = socket.next().await.unwrap().unwrap();
        assert!(matches!(&closed, Message::Close(Some(frame)) if frame.code == CloseCode::Library(4001)), "{closed:?}");
        assert!(control.ask("POST /pause HTTP/1.1", "").await.starts_with("HTTP/1.1 204"));
        assert!(control.ask("GET / HTTP/1.1", "").await.contains(r#""paused":true"#));
        let mut socket = client(proxy.address).await;
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
        assert!(control.ask("POST /resume HTTP/1.1", "").await.starts_with("HTTP/1.1 204"));
        assert!(control.ask("DELETE /faults/2 HTTP/1.1", "").await.starts_with("HTTP/1.1 204"));
        assert!(control.ask("DELETE /faults/3 HTTP/1.1", "").await.starts_with("HTTP/1.1 404"));
        socket.send(Message::text("again")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("again"));
    });
}

/// The log is read as lines of JSON while it is written.
#[test]
fn the_log_is_read_as_it_comes() {
    on_sockets(async {
        let proxy = Standing::before(echo_server().await, &[], 10).await;
        let control = Control::of(&proxy).await;
        let mut events = TcpStream::connect(control.address).await.unwrap();
        let head = format!("GET /events HTTP/1.1\r\n{}\r\n", control.headers());
        events.write_all(head.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            events.read_buf(&mut seen).await.unwrap();
        }
        let mut socket = client(proxy.address).await;
        socket.close(Some(close_normal())).await.unwrap();
        while socket.next().await.is_some() {}
        drop(socket);
        while !String::from_utf8_lossy(&seen).contains(r#""event":"closed","by":"client","why":"close 1000""#) {
            assert_ne!(events.read_buf(&mut seen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
        }
        let text = String::from_utf8(seen).unwrap();
        for part in
            [r#""event":"request","method":"GET","target":"/echo","upgrade":true"#, r#""event":"answer","status":101"#]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    });
}

/// A fault that resets is seen as a reset.
#[test]
fn a_reset_is_a_reset_on_sockets() {
    on_sockets(async {
        let proxy = Standing::before(echo_server().await, &["reset after_bytes=10 direction=to-client"], 10).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

/// A request waits no longer than a balancer lets it.
#[test]
fn an_answer_that_is_late_is_given_in_the_servers_place() {
    let faults = vec![read_edge_fault("late_answer after_ms=100 status=504 body=late").unwrap()];
    let calls = relapse_core::fault::Calls { dependency: "agent_supervisor".to_owned(), operation: None };
    let hang = FaultKind::Call { calls, fault: relapse_core::fault::CallFault::Hang {} };
    let faults = faults.into_iter().chain([hang.into()]).collect();
    let steps = [step(Action::Request(Request::standard("GET", "/health/ready")))];
    let transcript = on_backend(Revision::repaired(), Environment::Production, "uvicorn-0.35", faults, &steps);
    let outcome = classify::readings(&transcript)[0].outcome();
    assert_eq!(outcome.to_string(), "http 504 (cut-by-fault; injected)");
}

/// A client that asked and says nothing more still gets its answer, and a server that breaks off is seen to.
#[rstest]
#[case::half_closed(false, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "end of stream")]
#[case::reset(true, "", "reset")]
fn an_end_is_carried_as_it_is(#[case] resets: bool, #[case] expected: &str, #[case] why: &str) {
    on_sockets(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            if resets {
                let _ = stream.read_buf(&mut heard).await;
                return stream.set_zero_linger().unwrap();
            }
            // Only now that the client is through is it answered.
            stream.read_to_end(&mut heard).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        });
        let mut proxy = Standing::before(upstream, &[], 10).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        if !resets {
            stream.shutdown().await.unwrap();
        }
        let mut seen = String::new();
        let end = stream.read_to_string(&mut seen).await;
        assert_eq!((seen.as_str(), end.is_err()), (expected, resets));
        drop(stream);
        assert_eq!(proxy.closed().await, ("server".to_owned(), why.to_owned()));
    });
}

/// A balancer that gives up on a server says so, and does not cut off a client that waits for that.
#[rstest]
#[case("alb", "HTTP/1.1 504")]
#[case("gcp-https", "HTTP/1.1 502")]
#[case("cloud-run", "HTTP/1.1 504")]
#[case("cloudflare", "HTTP/1.1 524")]
#[case("nginx", "HTTP/1.1 504")]
fn a_server_that_never_answers_is_answered_for(#[case] balancer: &str, #[case] status: &str) {
    on_sockets(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        let faults = faults_of(balancer).iter().map(|fault| fault.scaled(0.001)).collect();
        let proxy = Standing::with(upstream, faults, 10).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let (_silent, _) = listener.accept().await.unwrap();
        let mut seen = String::new();
        stream.read_to_string(&mut seen).await.unwrap();
        assert!(seen.starts_with(status), "{seen}");
    });
}
