//! One byte stream between two actors, in memory or TCP, and the buffers at its end.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::{application::BoxFuture, clock::Clock};
use relapse_core::error::Error;

/// How many bytes an in-memory link holds in each direction before a writer has to wait, as a socket buffer does.
const MEMORY_BYTES_MAX: usize = 64 * 1024;

/// How many bytes are read at a time. Small, because every connection has such a buffer at each end.
const READ_BYTES: usize = 4096;

/// How many bytes that are written already are kept in front of those that are not, so that they need not move each time.
const GONE_BYTES_MAX: usize = 64 * 1024;

/// How many bytes are read ahead: a whole message of 16 MiB with its header, and a little.
const READ_AHEAD_BYTES_MAX: usize = (16 << 20) + 64 * 1024;

/// A byte stream that encrypts what it carries over a socket, such as TLS.
pub trait Secured: AsyncRead + AsyncWrite + Unpin + Send + Sync + fmt::Debug {
    /// The socket below.
    fn socket(&self) -> &TcpStream;
}

/// One byte stream between two actors.
#[derive(Debug)]
pub enum Link {
    /// In memory.
    Memory(DuplexStream),
    /// A TCP socket.
    Tcp(TcpStream),
    /// A TCP socket behind TLS.
    Secured(Box<dyn Secured>),
}

/// How much the kernels of both sides hold of what a client has not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Receiving {
    /// As much as the systems choose: 3.9 MB on loopback (Linux 6).
    #[default]
    Usual,
    /// As little as can be, so that a server notices soon that its client does not read: 72 kB on loopback (Linux 6).
    Narrow,
}

/// The receive buffer of a narrow client, in bytes. Linux doubles it (socket(7), `SO_RCVBUF`).
const NARROW_BUFFER_BYTES: u32 = 4096;

/// The largest segment that a narrow client takes, in bytes. Loopback has segments of 64 KiB, and Linux gives a sender room
/// for 20 of them.
const NARROW_SEGMENT_BYTES: u32 = 1400;

/// Connects over TCP. What is written goes out at once: without that a request in two pieces waits for a delayed
/// acknowledgement.
///
/// # Errors
/// When there is no connection.
pub async fn dial(address: SocketAddr, receiving: Receiving) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if receiving == Receiving::Narrow {
        // Both count only before the connection is made.
        socket.set_recv_buffer_size(NARROW_BUFFER_BYTES)?;
        socket2::SockRef::from(&socket).set_tcp_mss(NARROW_SEGMENT_BYTES)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Makes another link to the same peer; nothing where it cannot be reached.
pub type Redial = Box<dyn Fn() -> BoxFuture<'static, Option<Link>> + Send + Sync>;

/// Listens for TCP links on loopback.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Link {
    /// Both ends of an in-memory link.
    pub fn pair() -> (Link, Link) {
        let (left, right) = tokio::io::duplex(MEMORY_BYTES_MAX);
        (Link::Memory(left), Link::Memory(right))
    }

    /// Connects over TCP.
    ///
    /// # Errors
    /// When the clock is virtual, or no server listens.
    pub async fn connect(address: SocketAddr, clock: Clock) -> Result<Link, Error> {
        Link::connect_receiving(address, clock, Receiving::Usual).await
    }

    /// The same, with as much room for what is not read yet.
    ///
    /// # Errors
    /// When the clock is virtual, or nothing listens.
    pub async fn connect_receiving(address: SocketAddr, clock: Clock, receiving: Receiving) -> Result<Link, Error> {
        refuse_virtual(clock)?;
        let stream = dial(address, receiving).await.map_err(|error| socket_error("connect to", address, error))?;
        Ok(Link::Tcp(stream))
    }
}

impl Link {
    /// Ends the link with a FIN, and lets the peer do the same: data that it still sends is not answered with a reset
    /// that could destroy what it has not read yet.
    pub async fn finish(self) {
        self.finish_and_tell(|_| {}).await;
    }

    /// The same, and gives what the peer still says to a function. In memory it says nothing more.
    pub async fn finish_and_tell(mut self, mut tell: impl FnMut(&[u8])) {
        if !matches!(self, Link::Memory(_)) {
            let _ = self.shutdown().await;
            let mut rest = vec![0; READ_BYTES];
            while let Ok(count @ 1..) = self.read(&mut rest).await {
                tell(&rest[..count]);
            }
        }
    }

    /// Breaks the link: the peer is told that it broke (RST), and what is under way is lost. In memory the peer sees
    /// the end.
    pub fn reset(self) {
        match self {
            Link::Memory(_) => {}
            Link::Tcp(stream) => drop(stream.set_zero_linger()),
            Link::Secured(stream) => drop(stream.socket().set_zero_linger()),
        }
    }
}

impl Listener {
    /// Listens on a loopback port that the system picks.
    ///
    /// # Errors
    /// When the clock is virtual, or the system has no port.
    pub async fn bind(clock: Clock) -> Result<Listener, Error> {
        Listener::bind_to(clock, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Listens on an address; port 0 lets the system pick one.
    ///
    /// # Errors
    /// When the clock is virtual, or the address is taken or not one of this machine's.
    pub async fn bind_to(clock: Clock, address: SocketAddr) -> Result<Listener, Error> {
        refuse_virtual(clock)?;
        TcpListener::bind(address).await.map(Listener).map_err(|error| socket_error("listen on", address, error))
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        self.0.local_addr().map_err(|error| socket_error("name", SocketAddr::from(([127, 0, 0, 1], 0)), error))
    }

    /// The next connection.
    ///
    /// # Errors
    /// When the listener is broken.
    pub async fn accept(&self) -> Result<Link, Error> {
        Ok(self.accept_from().await?.0)
    }

    /// The next connection, and where it comes from.
    ///
    /// # Errors
    /// When the listener is broken.
    pub async fn accept_from(&self) -> Result<(Link, SocketAddr), Error> {
        loop {
            match self.0.accept().await {
                Ok((stream, peer)) => {
                    // A peer that is gone already shows soon enough.
                    let _ = stream.set_nodelay(true);
                    return Ok((Link::Tcp(stream), peer));
                }
                // The peer gave up, or there are no more files for now (accept(2)); others will come.
                Err(error) if is_passing(&error) => tokio::time::sleep(ACCEPT_PAUSE).await,
                Err(error) => return Err(socket_error("accept on", self.address()?, error)),
            }
        }
    }

    /// The listener itself, for an HTTP server on it.
    pub fn into_inner(self) -> TcpListener {
        self.0
    }
}

/// How long no connection is taken where the system has no more files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whether a listener lives on after an error.
fn is_passing(error: &io::Error) -> bool {
    const NO_FILES: [i32; 2] = [23, 24];
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    ) || error.raw_os_error().is_some_and(|code| NO_FILES.contains(&code))
}

fn refuse_virtual(clock: Clock) -> Result<(), Error> {
    match clock {
        Clock::Virtual => Err(Error::RealSocketUnderVirtualClock),
        Clock::Real => Ok(()),
    }
}

fn socket_error(doing: &'static str, address: SocketAddr, source: io::Error) -> Error {
    Error::Io { doing, path: PathBuf::from(address.to_string()), source }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Link::Memory(stream) => Pin::new(stream).poll_read(cx, buffer),
            Link::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Link::Secured(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Link::Memory(stream) => Pin::new(stream).poll_write(cx, bytes),
            Link::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Link::Secured(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Link::Memory(stream) => Pin::new(stream).poll_flush(cx),
            Link::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Link::Secured(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Link::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
            Link::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Link::Secured(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

/// The kind of progress on a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes came in.
    Read,
    /// The peer ended its direction, or the stream broke.
    End,
    /// Everything that was to be written is written.
    Flushed,
}

/// A link with the bytes that have come in and those that are still to go out.
#[derive(Debug)]
pub struct Wire {
    link: Link,
    /// Bytes read and not yet taken.
    pub incoming: BytesMut,
    /// Bytes written and not yet gone.
    pub outgoing: Vec<u8>,
    gone: usize,
    /// How many bytes are gone in all.
    written: u64,
    /// How many bytes are read that are not taken.
    read_ahead_max: usize,
    ended: bool,
    /// The peer broke the link instead of ending it.
    broken: bool,
}

impl Wire {
    /// Buffers for a link.
    pub fn new(link: Link) -> Wire {
        Wire {
            link,
            incoming: BytesMut::new(),
            outgoing: Vec::with_capacity(1024),
            gone: 0,
            written: 0,
            read_ahead_max: READ_AHEAD_BYTES_MAX,
            ended: false,
            broken: false,
        }
    }

    /// Lets the peer wait once so many bytes are read and not taken, or a little more. By default it waits only behind a
    /// whole message of 16 MiB.
    pub fn read_ahead(&mut self, bytes_max: usize) {
        self.read_ahead_max = bytes_max.min(READ_AHEAD_BYTES_MAX);
    }

    /// How many bytes the peer, or the system for it, has taken.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// The link, with what was read from it and not taken.
    pub fn into_link(self) -> (Link, BytesMut) {
        (self.link, self.incoming)
    }

    /// Whether the peer ended its direction.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the peer broke the link (RST) instead of ending it.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Breaks the link (RST); in memory the peer sees the end.
    pub fn reset(self) {
        self.link.reset();
    }

    /// Writes everything outgoing, and reads nothing. Cancel safe.
    pub async fn push(&mut self) {
        poll_fn(|cx| self.poll_push(cx)).await;
    }

    /// Writes as much of what is outgoing as goes; ready when all of it is gone.
    pub(crate) fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.gone < self.outgoing.len() {
            match Pin::new(&mut self.link).poll_write(cx, &self.outgoing[self.gone..]) {
                // The peer reads no more; what it said before that is still to be read.
                Poll::Ready(Ok(0) | Err(_)) => self.gone = self.outgoing.len(),
                Poll::Ready(Ok(count)) => {
                    self.gone += count;
                    self.written += count as u64;
                }
                Poll::Pending => {
                    self.let_go();
                    return Poll::Pending;
                }
            }
        }
        self.outgoing.clear();
        self.gone = 0;
        Poll::Ready(())
    }

    /// Lets the bytes go that are written, once they are many and no fewer than those that are not.
    fn let_go(&mut self) {
        if self.gone >= GONE_BYTES_MAX && 2 * self.gone >= self.outgoing.len() {
            self.outgoing.drain(..self.gone);
            self.gone = 0;
        }
    }

    /// Tells the peer that nothing more comes (FIN), once everything is written; it may still say something.
    pub async fn end(&mut self) {
        self.flush().await;
        let _ = self.link.shutdown().await;
    }

    /// Writes what is outgoing and reads what comes, and reports the first thing that completes.
    pub fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        if !self.outgoing.is_empty() && self.poll_push(cx).is_ready() {
            return Poll::Ready(Progress::Flushed);
        }
        // A reader that does not take the bytes it has gets no more; the peer has to wait, as with a socket.
        if self.ended || self.incoming.len() >= self.read_ahead_max {
            return Poll::Pending;
        }
        self.incoming.reserve(READ_BYTES);
        match pin!(self.link.read_buf(&mut self.incoming)).poll(cx) {
            Poll::Ready(Ok(1..)) => Poll::Ready(Progress::Read),
            Poll::Ready(end) => {
                self.ended = true;
                self.broken = end.is_err();
                Poll::Ready(Progress::End)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Waits until something moves. Cancel safe.
    pub async fn progress(&mut self) -> Progress {
        poll_fn(|cx| self.poll_progress(cx)).await
    }

    /// Writes everything outgoing; what comes in meanwhile is kept. Cancel safe.
    pub async fn flush(&mut self) {
        while !self.outgoing.is_empty() {
            self.progress().await;
        }
    }
}

/// Takes `count` bytes from the front of what came in.
pub fn take(incoming: &mut BytesMut, count: usize) {
    incoming.advance(count);
}
