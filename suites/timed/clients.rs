//! Clients that break the rules, against `serve` and `proxy`.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use tempfile::tempdir;

use super::{
    peer::{Talk, Talker, frame, pause},
    watched::{Ended, Watched},
};

/// A command that stands on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A proxy before a server that sees the client's bytes.
    Proxy,
    /// The address that a proxy is controlled from.
    Control,
    /// The built-in backend.
    Serve,
}

/// How clients behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rudeness {
    /// A head that never ends.
    EndlessHead,
    /// A body of a tebibyte, as announced.
    EndlessBody,
    /// A byte at a time, slowly.
    SlowHead,
    /// Anything.
    Noise,
    /// Many connections that say nothing.
    Idle,
    /// Connections that end after half a head, again and again.
    Hasty,
    /// Requests, one after the other, whose answers are not read.
    Pipelined,
    /// Messages without end.
    Messages,
    /// A frame of an exbibyte, as announced.
    Frame,
    /// Pieces of a message that never ends.
    Fragments,
    /// Pings, whose answers are not read.
    Pings,
}

/// How long a client goes on.
const RUDE: Duration = Duration::from_millis(400);

/// How many clients that say nothing.
const IDLE: usize = 300;

/// How long something may take to stand, or a client to be served.
const LIMIT: Duration = Duration::from_secs(30);

/// Lets a client at what stands. Then another client is served, and it is told to end.
pub(super) fn attack(standing: Standing, rudeness: Rudeness) -> Ended {
    let here = tempdir().unwrap();
    // It answers each request with nothing wrong, and swallows the rest.
    let upstream = Talker::start(Talk::Cookie);
    let url = upstream.url("http");
    let mut command = match standing {
        Standing::Proxy | Standing::Control => Watched::start(&["proxy", "--upstream", &url], here.path()),
        Standing::Serve => Watched::start(&["serve"], here.path()),
    };
    let line = match standing {
        Standing::Control => command.line_with("control: ", LIMIT),
        Standing::Proxy | Standing::Serve => command.line_with("://127.0.0.1", LIMIT),
    };
    let address = address_in(&line);
    // One that is refused has done what it could.
    let mut rude = be_rude(&address, rudeness);
    command.look_until(RUDE, |_| {
        rude.iter_mut().for_each(|client| drop(client.go_on()));
        false
    });
    let answer = asked(&address);
    assert!(answer.starts_with("HTTP/1.1 "), "{line}: another client is not served: {answer:?}");
    drop(rude);
    command.end_standing()
}

/// The first address in a line.
pub(super) fn address_in(line: &str) -> String {
    let start = line.find("127.0.0.1:").unwrap_or_else(|| panic!("no address: {line}"));
    line[start..].chars().take_while(|character| character.is_ascii_digit() || matches!(character, '.' | ':')).collect()
}

/// The answer to a plain request; its first line will do.
fn asked(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// A client that is at it.
struct Rude {
    stream: TcpStream,
    again: Vec<u8>,
    /// How much of that was taken last.
    at: usize,
}

impl Rude {
    /// Says it once more, as far as that is taken.
    fn go_on(&mut self) -> io::Result<()> {
        for _ in 0..64 {
            if self.again.is_empty() {
                break;
            }
            self.at = (self.at + self.stream.write(&self.again[self.at..])?) % self.again.len();
        }
        Ok(())
    }
}

fn connect(address: &str, first: &[u8], again: Vec<u8>) -> Rude {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(first).unwrap();
    stream.set_nonblocking(true).unwrap();
    Rude { stream, again, at: 0 }
}

fn be_rude(address: &str, rudeness: Rudeness) -> Vec<Rude> {
    let piece = vec![b'x'; 0xffff];
    let mut chance = fastrand::Rng::with_seed(1);
    let post = |rest: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{rest}").into_bytes();
    let upgrade =
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: \
                    13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let one = |first: &[u8], again: Vec<u8>| vec![connect(address, first, again)];
    match rudeness {
        Rudeness::EndlessHead => one(&post("X-Endless: "), piece),
        Rudeness::EndlessBody => one(&post("Content-Length: 1099511627776\r\n\r\n"), piece),
        Rudeness::SlowHead => one(b"G", Vec::new()),
        Rudeness::Noise => one(b"", std::iter::repeat_with(|| chance.u8(..)).take(1 << 16).collect()),
        Rudeness::Idle => (0..IDLE).map(|_| connect(address, b"", Vec::new())).collect(),
        Rudeness::Hasty => {
            for _ in 0..IDLE {
                let half = connect(address, &post("X-Half"), Vec::new());
                let _ = half.stream.shutdown(Shutdown::Both);
            }
            pause(Duration::from_millis(50));
            Vec::new()
        }
        Rudeness::Pipelined => one(b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000)),
        Rudeness::Messages => one(upgrade, masked(0x81, &piece)),
        Rudeness::Frame => one(upgrade, [&[0x82, 0xff, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &piece].concat()),
        Rudeness::Fragments => one(&[&upgrade[..], &masked(0x01, b"")].concat(), masked(0x00, &piece)),
        Rudeness::Pings => one(upgrade, masked(0x89, b"").repeat(1000)),
    }
}

/// A frame with a mask that changes nothing.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(first, payload);
    let header = bytes.len() - payload.len();
    bytes[1] |= 0x80;
    bytes.splice(header..header, [0; 4]);
    bytes
}

/// A proxy holds little of what its client does not read, and goes on when the client does.
pub(super) fn do_not_read(faults: &[&str], talk: Talk) -> Ended {
    // The kernel's buffers on both sides of the proxy, and its own.
    const HELD_BYTES_MAX: u64 = 64 << 20;
    // Longer than a busy machine keeps the proxy from its work.
    const STILL: Duration = Duration::from_secs(2);
    let (server, here) = (Talker::start(talk), tempdir().unwrap());
    let url = server.url("http");
    let mut proxy = Watched::start(&[&["proxy", "--upstream", &url], faults].concat(), here.path());
    let address = address_in(&proxy.line_with("http://127.0.0.1", LIMIT));
    let mut client = TcpStream::connect(&address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut before = 0;
    loop {
        proxy.look_until(STILL, |_| server.written() >= HELD_BYTES_MAX);
        let written = server.written();
        assert!(written < HELD_BYTES_MAX, "the server does not wait: {} MiB are held", written >> 20);
        if written > 0 && written == before {
            break;
        }
        before = written;
    }
    let mut read = vec![0; 8 << 20];
    client.read_exact(&mut read).unwrap();
    proxy.end_standing()
}
