//! The cost of the proxy: a WebSocket echo there and back, and a megabyte there and back, without anything between
//! client
//! and server, through a plain relay that only copies, and through the proxy, all in one run on one runtime; and two
//! thousand sessions at a time. Machines differ; the ratios of the proxy to the plain relay do not.

use std::net::SocketAddr;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use mimalloc::MiMalloc;
use relapse::proxy::{Proxy, ProxySetup};
use relapse_simulate::clock::{Clock, Runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// The command's own allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const HEAD: &str = "GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A message as a client writes it: masked with zeros, so that the same bytes are valid on both ways.
fn frame(length: u32) -> Vec<u8> {
    let mut frame = vec![0x82, 0x80 | 127];
    frame.extend_from_slice(&u64::from(length).to_be_bytes());
    frame.resize(frame.len() + 4 + length as usize, 0);
    frame
}

/// Switches protocols, and says everything back.
async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.set_nodelay(true).expect("a socket");
                let mut head = vec![0; HEAD.len()];
                if stream.read_exact(&mut head).await.is_err() || stream.write_all(ANSWER.as_bytes()).await.is_err() {
                    return;
                }
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// A relay that copies and does nothing else.
async fn plain_relay(upstream: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(upstream).await.expect("the server");
                client.set_nodelay(true).expect("a socket");
                server.set_nodelay(true).expect("a socket");
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

async fn proxy(upstream: SocketAddr) -> SocketAddr {
    let setup = ProxySetup {
        listen: ([127, 0, 0, 1], 0).into(),
        upstream: format!("http://{upstream}").parse().expect("a URL"),
        faults: Vec::new(),
        seed: 1,
        connections_max: 4000,
    };
    let proxy = Proxy::bind(setup).await.expect("loopback");
    let address = proxy.address().expect("an address");
    tokio::spawn(proxy.run());
    address
}

async fn session(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("the proxy listens");
    stream.set_nodelay(true).expect("a socket");
    stream.write_all(HEAD.as_bytes()).await.expect("a socket");
    let mut answer = vec![0; ANSWER.len()];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    stream
}

/// A frame there and back.
async fn echo(stream: &mut TcpStream, frame: &[u8], back: &mut [u8]) {
    let (mut read, mut write) = stream.split();
    let (wrote, heard) = tokio::join!(write.write_all(frame), read.read_exact(back));
    wrote.expect("a socket");
    heard.expect("an echo");
    assert_eq!(back[0], 0x82);
}

fn bench(criterion: &mut Criterion) {
    // One thread: what is measured is work, not how threads find one another.
    let runtime = Runtime::new(Clock::Real);
    let (direct, relayed, proxied) = runtime.block_on(async {
        let upstream = echo_server().await;
        (upstream, plain_relay(upstream).await, proxy(upstream).await)
    });
    let ways = [("nothing", direct), ("plain relay", relayed), ("proxy", proxied)];
    for (name, length) in [("echo", 64), ("megabyte", 1 << 20)] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(2 * u64::from(length)));
        for (between, address) in ways {
            let (frame, mut stream) = (frame(length), runtime.block_on(session(address)));
            let mut back = vec![0; frame.len()];
            group.bench_function(between, |bencher| {
                bencher.iter(|| runtime.block_on(echo(&mut stream, &frame, &mut back)));
            });
        }
        group.finish();
    }
    let mut group = criterion.benchmark_group("two thousand sessions");
    group.sample_size(10);
    for (between, address) in &ways[1..] {
        let frame = frame(64);
        group.bench_function(*between, |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let mut sessions = join_all((0..2000).map(|_| session(*address))).await;
                    // All of them are open at this time, and each loses nothing.
                    join_all(sessions.iter_mut().map(|stream| async {
                        echo(stream, &frame, &mut vec![0; frame.len()]).await;
                    }))
                    .await;
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
