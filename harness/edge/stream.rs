//! Edge faults on bytes: when they arrive, in which pieces, and whether they arrive at all.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::End;
use crate::{
    fault::{Direction, FaultKind, StreamFault},
    recorder::Scribe,
    transcript::Party,
};

/// How many pieces a second a throttled stream is cut into.
const PIECES_PER_SECOND: usize = 10;

/// The bytes of one direction that are under way.
pub(super) struct Stream {
    direction: Direction,
    scribe: Scribe,
    /// What acts on this connection; known from its first bytes on.
    shape: Option<Shape>,
    queue: VecDeque<(Instant, Vec<u8>)>,
    waiting: usize,
    last_due: Option<Instant>,
    carried: usize,
    is_upgraded: bool,
    /// What was announced has happened: nothing more is carried.
    is_silent: bool,
}

/// What acts on a connection.
#[derive(Default)]
struct Shape {
    delay: Duration,
    /// The most that a piece is delayed by chance.
    jitter: Duration,
    bytes_per_second: Option<usize>,
    slice: Option<usize>,
    /// After how many bytes it is over, how, and by which fault.
    limit: Option<(usize, Limit, usize)>,
    /// The fault that silences the connection from the upgrade on.
    silence: Option<usize>,
}

/// What happens when so many bytes are carried.
#[derive(Clone, Copy)]
enum Limit {
    Ends(End),
    Stalls,
}

impl Stream {
    pub(super) fn new(direction: Direction, scribe: Scribe) -> Stream {
        Stream {
            direction,
            scribe,
            shape: None,
            queue: VecDeque::new(),
            waiting: 0,
            last_due: None,
            carried: 0,
            is_upgraded: false,
            is_silent: false,
        }
    }

    /// How many bytes are under way.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// When the next piece is to arrive.
    pub(super) fn due(&self) -> Option<Instant> {
        self.queue.front().map(|(due, _)| *due)
    }

    pub(super) fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= Instant::now())
    }

    /// The server switched protocols; what is already under way belongs to that.
    pub(super) fn upgraded(&mut self) {
        self.is_upgraded = true;
    }

    /// Sends bytes on their way, behind those that are there already.
    pub(super) fn push(&mut self, bytes: Vec<u8>, delay: Duration) {
        if bytes.is_empty() {
            return;
        }
        if self.shape.is_none() {
            self.shape = Some(self.decide());
        }
        let Some(shape) = &self.shape else { return };
        if let Some(index) = shape.silence.filter(|_| self.is_upgraded) {
            self.scribe.fired(index, Party::Edge, self.scribe.plan().faults[index].kind.to_string());
            self.is_silent = true;
            self.shape = Some(Shape::default());
        }
        let Some(shape) = &self.shape else { return };
        if self.is_silent {
            return;
        }
        let now = Instant::now();
        let mut due = now + shape.delay + delay;
        if !shape.jitter.is_zero() {
            let most = u32::try_from(shape.jitter.as_millis()).unwrap_or(u32::MAX);
            due += Duration::from_millis(u64::from(self.scribe.chance(most)));
        }
        due = due.max(self.last_due.unwrap_or(due));
        self.waiting += bytes.len();
        let piece = match shape.bytes_per_second {
            Some(rate) => (rate / PIECES_PER_SECOND).max(1),
            None => shape.slice.unwrap_or(bytes.len()),
        };
        for piece in bytes.chunks(piece.min(shape.slice.unwrap_or(piece))) {
            if let Some(rate) = shape.bytes_per_second {
                due += Duration::from_secs_f64(piece.len() as f64 / rate as f64);
            }
            self.queue.push_back((due, piece.to_vec()));
        }
        self.last_due = Some(due);
    }

    /// Asks the plan what acts on this connection.
    fn decide(&self) -> Shape {
        let mut shape = Shape::default();
        for (index, fault) in self.scribe.plan().faults.iter().enumerate() {
            let FaultKind::Stream { direction, fault: what } = &fault.kind else { continue };
            if !direction.includes(self.direction) || !self.scribe.meets(index) {
                continue;
            }
            match what {
                StreamFault::Delay { delay } => shape.delay += delay.0,
                StreamFault::Jitter { most } => shape.jitter += most.0,
                StreamFault::Throttle { rate } => shape.bytes_per_second = Some(rate.0),
                StreamFault::Slice { bytes } => shape.slice = Some(bytes.0),
                // These act when their moment comes.
                StreamFault::Cut { after } => shape.limit = Some((after.0, Limit::Ends(End::Finished), index)),
                StreamFault::Reset { after } => shape.limit = Some((after.0, Limit::Ends(End::Reset), index)),
                StreamFault::Stall { after } => shape.limit = Some((after.0, Limit::Stalls, index)),
                StreamFault::Silence {} => shape.silence = Some(index),
            }
            if !matches!(
                what,
                StreamFault::Cut { .. }
                    | StreamFault::Reset { .. }
                    | StreamFault::Stall { .. }
                    | StreamFault::Silence {}
            ) {
                self.scribe.fired(index, Party::Edge, fault.kind.to_string());
            }
        }
        shape
    }

    /// Hands over what is due; how that ends the connection. Pieces go one at a time where their size is a fault's.
    pub(super) fn hand_over(&mut self, outgoing: &mut Vec<u8>) -> Option<End> {
        let is_sliced = self.shape.as_ref().is_some_and(|shape| shape.slice.is_some());
        let now = Instant::now();
        while self.due().is_some_and(|due| due <= now) && (!is_sliced || outgoing.is_empty()) {
            let (_, piece) = self.queue.pop_front()?;
            self.waiting -= piece.len();
            if let Some(limit) = self.carry(&piece, outgoing) {
                return limit;
            }
        }
        None
    }

    /// Hands over everything, due or not: the connection ends.
    pub(super) fn hand_over_all(&mut self, outgoing: &mut Vec<u8>) {
        while let Some((_, piece)) = self.queue.pop_front() {
            outgoing.extend_from_slice(&piece);
        }
        self.waiting = 0;
    }

    /// Carries a piece as far as a limit lets it; when the limit is reached, how that ends the connection.
    fn carry(&mut self, piece: &[u8], outgoing: &mut Vec<u8>) -> Option<Option<End>> {
        let limit = self.shape.as_ref().and_then(|shape| shape.limit);
        let reached = limit.filter(|(after, ..)| self.carried + piece.len() >= *after);
        let Some((after, what, index)) = reached else {
            self.carried += piece.len();
            outgoing.extend_from_slice(piece);
            return None;
        };
        outgoing.extend_from_slice(&piece[..after - self.carried]);
        self.carried = after;
        self.scribe.fired(index, Party::Edge, self.scribe.plan().faults[index].kind.to_string());
        if let Some(shape) = &mut self.shape {
            shape.limit = None;
        }
        self.is_silent = true;
        self.queue.clear();
        self.waiting = 0;
        Some(match what {
            Limit::Ends(end) => Some(end),
            Limit::Stalls => None,
        })
    }
}
