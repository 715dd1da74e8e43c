//! Carries what no fault acts on, as fast as it comes, and only looks at the headers of the frames.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Carried, ConnectionLimits, End, Ended, Journal, Last, Load};
use crate::link::Link;
use relapse_core::{
    record::transcript::Actor,
    wire::{
        frame::{Frame, Opcode},
        frame_header::{FrameHeader, apply_mask},
    },
};

/// How many bytes are carried at a time in each direction: at first, and where that is not enough.
const PIECE_BYTES: usize = 2 * 1024;
const PIECE_BYTES_MAX: usize = 32 * 1024;

/// The bytes of one direction that are read and not yet written.
struct Half {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    has_ended: bool,
    /// It was broken (RST) instead of ended.
    is_broken: bool,
    /// The last piece filled the buffer.
    is_tight: bool,
    scanner: Scanner,
}

impl Half {
    /// Begins with what was read before.
    fn new(already: &BytesMut, scanner: Scanner) -> Half {
        let mut buffer = vec![0; PIECE_BYTES.max(already.len())];
        buffer[..already.len()].copy_from_slice(already);
        let mut half =
            Half { buffer, start: 0, end: already.len(), has_ended: false, is_broken: false, is_tight: false, scanner };
        half.scanner.scan(already);
        half
    }

    /// Carries as much as goes; ready when nothing more will. Says whether anything moved.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Link, to: &mut Link, moved: &mut bool) -> Poll<()> {
        loop {
            if self.start < self.end {
                match Pin::new(&mut *to).poll_write(cx, &self.buffer[self.start..self.end]) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(count)) => self.start += count,
                    Poll::Pending => return Poll::Pending,
                }
                continue;
            }
            if self.has_ended {
                return Poll::Ready(());
            }
            if std::mem::take(&mut self.is_tight) {
                self.buffer.resize(2 * self.buffer.len(), 0);
            }
            let mut buffer = ReadBuf::new(&mut self.buffer);
            match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    (self.start, self.end) = (0, buffer.filled().len());
                    self.scanner.scan(&self.buffer[..self.end]);
                    *moved = true;
                    self.is_tight = self.end == self.buffer.len() && self.end < PIECE_BYTES_MAX;
                }
                Poll::Ready(end) => (self.has_ended, self.is_broken) = (true, end.is_err()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Carries both directions until either side ends, or its time is over.
pub(super) async fn pass(
    client: (&mut Link, &BytesMut, Scanner),
    server: (&mut Link, &BytesMut, Scanner),
    limits: &ConnectionLimits,
    mut last: Last,
) -> (Ended, End, Scanner, Scanner) {
    let (client, from_client, to_server) = client;
    let (server, from_server, to_client) = server;
    let mut there = Half::new(from_client, to_server);
    let mut back = Half::new(from_server, to_client);
    let due = limits.due(last, None);
    let mut timer: Option<Pin<Box<Sleep>>> = due.map(|(due, _)| Box::pin(sleep_until(due)));
    let ended = poll_fn(|cx| {
        loop {
            let (mut came, mut went) = (false, false);
            if there.poll(cx, client, server, &mut came).is_ready() {
                return Poll::Ready(Ended::Client);
            }
            if back.poll(cx, server, client, &mut went).is_ready() {
                return Poll::Ready(Ended::Server);
            }
            let Some(timer) = timer.as_mut() else { return Poll::Pending };
            if came {
                last.from_client = Instant::now();
            }
            if went {
                last.from_server = Instant::now();
            }
            match timer.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => match limits.due(last, None) {
                    Some((at, index)) if at <= Instant::now() => return Poll::Ready(Ended::Fault(index)),
                    Some((at, _)) => timer.as_mut().reset(at),
                    None => return Poll::Pending,
                },
            }
        }
    })
    .await;
    let is_broken = match ended {
        Ended::Client => there.is_broken,
        Ended::Server => back.is_broken,
        Ended::Fault(_) => false,
    };
    let end = if is_broken { End::Reset } else { End::Finished };
    (ended, end, there.scanner, back.scanner)
}

/// Follows the frames of one direction by their headers alone: counts messages, and tells of a close.
pub(super) struct Scanner {
    by: Actor,
    journal: Option<Journal>,
    load: Load,
    /// Whether what passes is frames.
    reads_frames: bool,
    /// A header, or a close frame, that is not whole.
    pending: Vec<u8>,
    /// Bytes of the payload that are still to come.
    skip: u64,
}

/// The longest payload of a control frame (RFC 6455 section 5.5), in bytes.
const CONTROL_BYTES_MAX: u64 = 125;

impl Scanner {
    /// Looks at what this actor sends.
    pub(super) fn new(by: Actor, journal: Option<Journal>) -> Scanner {
        Scanner { by, journal, load: Load::default(), reads_frames: false, pending: Vec::new(), skip: 0 }
    }

    /// From here on everything is frames.
    pub(super) fn upgraded(&mut self) {
        self.reads_frames = self.journal.is_some();
    }

    /// So many bytes passed that are no frames.
    pub(super) fn pass_by(&mut self, bytes: usize) {
        self.load.bytes += bytes as u64;
    }

    pub(super) fn load(&self) -> Load {
        self.load
    }

    pub(super) fn scan(&mut self, mut bytes: &[u8]) {
        self.load.bytes += bytes.len() as u64;
        while self.reads_frames && !bytes.is_empty() {
            if self.skip > 0 {
                let count = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
                bytes = &bytes[count..];
                self.skip -= count as u64;
                continue;
            }
            // Almost always a header is whole.
            let taken = if self.pending.is_empty() {
                self.frame(bytes)
            } else {
                let before = self.pending.len();
                let more = bytes.len().min(FrameHeader::BYTES_MAX + CONTROL_BYTES_MAX as usize);
                let mut pending = std::mem::take(&mut self.pending);
                pending.extend_from_slice(&bytes[..more]);
                let taken = self.frame(&pending);
                match taken {
                    Some(taken) => Some(taken.saturating_sub(before)),
                    None => {
                        self.pending = pending;
                        return;
                    }
                }
            };
            match taken {
                Some(taken) => bytes = &bytes[taken..],
                None => {
                    self.pending = bytes.to_vec();
                    return;
                }
            }
        }
    }

    /// Reads a header, and the whole frame where it is a close; how many bytes that took, or `None` while more are
    /// needed.
    fn frame(&mut self, bytes: &[u8]) -> Option<usize> {
        let header = FrameHeader::parse(bytes)?;
        if header.opcode == Opcode::Close && header.payload_bytes <= CONTROL_BYTES_MAX {
            let end = header.header_bytes + header.payload_bytes as usize;
            let mut payload = bytes.get(header.header_bytes..end)?.to_vec();
            if let Some(mask) = header.mask {
                apply_mask(&mut payload, mask);
            }
            self.tell_close(&Frame::new(Opcode::Close, payload));
            return Some(end);
        }
        // A message is as many frames as it likes; its last one counts.
        self.load.messages += u64::from(header.is_final && header.opcode.number() < 8);
        self.skip = header.payload_bytes;
        Some(header.header_bytes)
    }

    fn tell_close(&self, frame: &Frame) {
        let (code, reason) = frame.close_parts();
        if let Some(journal) = &self.journal {
            journal(Carried::Close { by: self.by, code, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::{Carried, Scanner};
    use relapse_core::{
        record::transcript::Actor,
        wire::{
            close_code::CloseCode,
            frame::{Frame, Opcode},
        },
    };

    /// However frames are cut into pieces, the same is seen of them.
    #[test]
    fn frames_are_followed() {
        let mut bytes = Vec::new();
        for length in [0, 5, 125, 126, 70_000] {
            Frame::new(Opcode::Text, vec![b'x'; length]).masked([1, 2, 3, 4]).encode(&mut bytes);
            Frame::new(Opcode::Ping, vec![b'x'; 4]).encode(&mut bytes);
        }
        let cut = Frame { is_final: false, ..Frame::new(Opcode::Text, &b"one"[..]) };
        cut.encode(&mut bytes);
        Frame::new(Opcode::Continuation, &b"two"[..]).encode(&mut bytes);
        Frame::close(Some(CloseCode(4001)), "gone").masked([9, 8, 7, 6]).encode(&mut bytes);
        for piece in [1, 2, 3, 7, 64, 1000, bytes.len()] {
            let closes = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&closes);
            let journal = move |carried: Carried<'_>| {
                if let Carried::Close { by, code, reason } = carried {
                    seen.lock().unwrap().push((by, code, reason));
                }
            };
            let mut scanner = Scanner::new(Actor::Probe, Some(Arc::new(journal)));
            scanner.upgraded();
            bytes.chunks(piece).for_each(|bytes| scanner.scan(bytes));
            assert_eq!((scanner.load.messages, scanner.load.bytes), (6, bytes.len() as u64), "pieces of {piece}");
            assert_eq!(*closes.lock().unwrap(), [(Actor::Probe, Some(CloseCode(4001)), "gone".to_owned())]);
        }
    }
}
