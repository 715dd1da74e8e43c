//! Servers that never do what a server should.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relapse_core::wire::head::accept_key;

/// How a server talks without end.
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
    /// Interim answers.
    Interim,
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
}

/// A server that talks without end to each client that asks for anything; it ends with its test.
pub(super) struct Talker {
    pub(super) address: SocketAddr,
    written: Arc<AtomicU64>,
}

impl Talker {
    pub(super) fn start(talk: Talk) -> Talker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, written) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&written);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                // A client that goes is all that ends it.
                std::thread::spawn(move || talk_to(stream, talk, &count));
            }
        });
        Talker { address, written }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many bytes it has written in all.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

fn talk_to(mut stream: TcpStream, talk: Talk, written: &AtomicU64) -> io::Result<()> {
    let head = read_head(&mut stream)?;
    let (answer, piece) = said(talk);
    let key = head
        .lines()
        .find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")));
    match (answer, key) {
        (Some(answer), _) => stream.write_all(answer.as_bytes())?,
        (None, Some((_, key))) => {
            let accept = accept_key(key.as_bytes());
            let upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade";
            stream.write_all(format!("{upgrade}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes())?;
            if matches!(talk, Talk::Fragments | Talk::EmptyFragments) {
                // The first piece of the message.
                stream.write_all(&[0x01, 0])?;
            }
        }
        (None, None) => return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    }
    loop {
        stream.write_all(&piece)?;
        written.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
}

fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// The beginning of an answer, where it is no upgrade, and what follows again and again.
fn said(talk: Talk) -> (Option<&'static str>, Vec<u8>) {
    let body = vec![b'x'; 0xffff];
    match talk {
        Talk::Chunks => {
            (Some("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), [&b"ffff\r\n"[..], &body, b"\r\n"].concat())
        }
        Talk::Length => (Some("HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n"), body),
        Talk::UntilEnd => (Some("HTTP/1.1 200 OK\r\n\r\n"), body),
        Talk::Header => (Some("HTTP/1.1 200 OK\r\nX-Endless: "), body),
        Talk::Interim => (Some(""), b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1000)),
        Talk::Messages => (None, [&[0x81, 126, 0xff, 0xff][..], &body].concat()),
        Talk::SmallMessages => (None, [&[0x81, 20][..], &[b'x'; 20]].concat().repeat(1000)),
        Talk::Pings => (None, [0x89, 0].repeat(1000)),
        Talk::Fragments => (None, [&[0x00, 126, 0xff, 0xff][..], &body].concat()),
        Talk::EmptyFragments => (None, [0x00, 0].repeat(1000)),
        Talk::Frame => (None, [&[0x82, 127, 0x10, 0, 0, 0, 0, 0, 0, 0][..], &body].concat()),
    }
}
