//! Servers that never do what a server should.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use relapse_core::wire::head::accept_key;

/// How a server talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Talk {
    /// A body in chunks that never ends.
    Chunks,
    /// A body of a tebibyte, as announced.
    Length,
    /// A body without a length.
    UntilEnd,
    /// One header that never ends.
    Header,
    /// Headers without end.
    Headers,
    /// A cookie that is as long as a head may be.
    Cookie,
    /// Interim answers.
    Interim,
    /// A chunk whose size does not fit 64 bits.
    ChunkSize,
    /// Two lengths that differ.
    TwoLengths,
    /// A length below 0.
    NegativeLength,
    /// A length that does not fit 64 bits.
    HugeLength,
    /// A body that says that it is compressed, and is not.
    FalseGzip,
    /// Redirects to itself.
    Redirects,
    /// Text messages of 60 KB.
    Messages,
    /// Text messages of 20 bytes.
    SmallMessages,
    /// Pings.
    Pings,
    /// Pieces of a message that never ends.
    Fragments,
    /// Empty pieces of a message that never ends.
    EmptyFragments,
    /// A frame of an exbibyte, as announced.
    Frame,
    /// Frames with a mask, as clients have it.
    Masked,
    /// Frames with bits that nothing has agreed on.
    ReservedBits,
    /// An upgrade with the key of another client.
    WrongKey,
    /// Nothing.
    Silent,
    /// The end before the request is read, which resets the connection.
    Reset,
    /// A body, a byte at a time, slowly.
    SlowBody,
    /// A handshake of TLS that never ends.
    TlsRecords,
    /// The greeting of another protocol.
    Ssh,
    /// Anything.
    Noise,
    /// Control characters and false directions in a head and in a body.
    Controls,
}

/// The words of a server.
#[derive(Default)]
struct Script {
    /// Whether it waits for a request.
    is_rude: bool,
    /// Whether a WebSocket is accepted; a request without one is served then.
    accepts: bool,
    first: Vec<u8>,
    /// The part that follows again and again. If it is empty, the server waits for the client's end.
    again: Vec<u8>,
    /// How long it waits after each byte.
    pause: Option<Duration>,
    /// Whether it ends after the first.
    ends: bool,
}

/// A server that talks to each client that asks for anything; it ends with its test.
pub(super) struct Talker {
    pub(super) address: SocketAddr,
    written: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
}

impl Talker {
    pub(super) fn start(talk: Talk) -> Talker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let talker = Talker { address, written: Arc::default(), accepted: Arc::default() };
        let (written, accepted) = (Arc::clone(&talker.written), Arc::clone(&talker.accepted));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accepted.fetch_add(1, Ordering::Relaxed);
                let written = Arc::clone(&written);
                // A client that goes is all that ends it.
                std::thread::spawn(move || talk_to(stream, talk, &written));
            }
        });
        talker
    }

    pub(super) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    /// How many bytes it has written in all.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// How many clients it had.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

fn talk_to(mut stream: TcpStream, talk: Talk, written: &AtomicU64) -> io::Result<()> {
    let script = script(talk);
    if script.is_rude && script.ends {
        // With bytes unread, the end is a reset.
        stream.peek(&mut [0])?;
        return Ok(());
    }
    let head = if script.is_rude { String::new() } else { read_head(&mut stream)? };
    if script.accepts {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        let Some((_, key)) = lines.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")) else {
            return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        };
        let key = if talk == Talk::WrongKey { "b3RoZXIga2V5IG9mIDE2IQ==" } else { key };
        let accept = accept_key(key.as_bytes());
        let upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade";
        stream.write_all(format!("{upgrade}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes())?;
    }
    say(&mut stream, &script.first, &script, written)?;
    while !script.again.is_empty() {
        say(&mut stream, &script.again, &script, written)?;
    }
    if script.ends {
        return stream.shutdown(Shutdown::Write);
    }
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

fn say(stream: &mut TcpStream, bytes: &[u8], script: &Script, written: &AtomicU64) -> io::Result<()> {
    let pieces = bytes.chunks(if script.pause.is_some() { 1 } else { usize::MAX });
    for piece in pieces {
        stream.write_all(piece)?;
        written.fetch_add(piece.len() as u64, Ordering::Relaxed);
        script.pause.iter().for_each(|time| pause(*time));
    }
    Ok(())
}

/// Lets time pass in which only another process, or another thread, can do something.
pub(super) fn pause(time: Duration) {
    let (_alive, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(time);
}

fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Frames, each with the first byte and with an unmasked payload of this length.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u64;
    let mut frame = vec![first];
    match length {
        0..126 => frame.push(length as u8),
        126..=0xffff => frame.extend([&[126][..], &(length as u16).to_be_bytes()].concat()),
        _ => frame.extend([&[127][..], &length.to_be_bytes()].concat()),
    }
    frame.extend_from_slice(payload);
    frame
}

// Long: an arm for each way to talk.
fn script(talk: Talk) -> Script {
    let piece = vec![b'x'; 0xffff];
    let answers = |first: &str, again: Vec<u8>| Script { first: first.into(), again, ..Script::default() };
    let ok = |headers: &str, again: Vec<u8>| answers(&format!("HTTP/1.1 200 OK\r\n{headers}"), again);
    let session = |again: Vec<u8>| Script { accepts: true, again, ..Script::default() };
    let once = |first: &[u8]| Script { first: first.to_vec(), ..Script::default() };
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    match talk {
        Talk::Chunks => ok(chunked, [&b"ffff\r\n"[..], &piece, b"\r\n"].concat()),
        Talk::Length => ok("Content-Length: 1099511627776\r\n\r\n", piece),
        Talk::UntilEnd => ok("\r\n", piece),
        Talk::Header => ok("X-Endless: ", piece),
        Talk::Headers => ok("", b"X-More: x\r\n".repeat(1000)),
        Talk::Cookie => ok(&format!("Content-Length: 0\r\nSet-Cookie: a={}\r\n\r\n", "x".repeat(60_000)), Vec::new()),
        Talk::Interim => answers("", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1000)),
        Talk::ChunkSize => ok(chunked, [&b"fffffffffffffffffffff\r\n"[..], &piece].concat()),
        Talk::TwoLengths => ok("Content-Length: 5\r\nContent-Length: 7\r\n\r\nhello", Vec::new()),
        Talk::NegativeLength => ok("Content-Length: -1\r\n\r\n", piece),
        Talk::HugeLength => ok("Content-Length: 99999999999999999999999\r\n\r\n", piece),
        Talk::FalseGzip => ok("Content-Encoding: gzip\r\nContent-Length: 65535\r\n\r\n", piece),
        Talk::Redirects => answers("HTTP/1.1 307 Again\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", Vec::new()),
        Talk::Messages => session(frame(0x81, &piece)),
        Talk::SmallMessages => session(frame(0x81, &[b'x'; 20]).repeat(1000)),
        Talk::Pings => session(frame(0x89, b"").repeat(1000)),
        // The first piece of the message.
        Talk::Fragments => Script { first: frame(0x01, b""), ..session(frame(0x00, &piece)) },
        Talk::EmptyFragments => Script { first: frame(0x01, b""), ..session(frame(0x00, b"").repeat(1000)) },
        Talk::Frame => session([&[0x82, 127, 0x10, 0, 0, 0, 0, 0, 0, 0][..], &piece].concat()),
        Talk::Masked => session([&[0x81, 0x80 | 5, 1, 2, 3, 4][..], b"hello"].concat()),
        Talk::ReservedBits => session(frame(0xf1, &piece)),
        Talk::WrongKey => session(frame(0x81, &piece)),
        Talk::Silent => Script::default(),
        Talk::Reset => Script { is_rude: true, ends: true, ..Script::default() },
        Talk::SlowBody => {
            let slow = ok("Content-Length: 100000\r\n\r\n", vec![b'x']);
            Script { pause: Some(Duration::from_millis(1)), ..slow }
        }
        Talk::TlsRecords => {
            // A server's hello of 16 MiB, of which each record is a part (RFC 8446, sections 4 and 5.1).
            let record = [&[22, 3, 3, 0x40, 0][..], &[0; 0x4000]].concat();
            let first = [&[22, 3, 3, 0, 4][..], &[2, 0xff, 0xff, 0xff]].concat();
            Script { is_rude: true, first, again: record, ..Script::default() }
        }
        Talk::Ssh => Script { is_rude: true, ..once(b"SSH-2.0-OpenSSH_9.9\r\n") },
        Talk::Noise => {
            let mut chance = fastrand::Rng::with_seed(1);
            answers("", std::iter::repeat_with(|| chance.u8(..)).take(1 << 16).collect())
        }
        Talk::Controls => {
            let text = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}live\u{0}";
            let head = format!("HTTP/1.1 500 {text}\r\nServer: {text}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            answers(&head, Vec::new())
        }
    }
}
