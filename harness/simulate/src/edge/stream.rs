//! Edge faults on bytes: when they arrive, in which pieces, and whether they arrive at all.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{End, HIGH_WATER_BYTES};
use crate::recorder::ExchangeRecorder;
use relapse_core::{
    fault::{Direction, FaultKind, StreamFault},
    record::transcript::Actor,
};

/// How many pieces a second a throttled stream is cut into.
const PIECES_PER_SECOND: usize = 10;

/// The bytes of one direction that are under way.
pub(super) struct DelayedBytes {
    scribe: ExchangeRecorder,
    /// The faults that act on this connection.
    shape: Shape,
    queue: VecDeque<(Instant, Vec<u8>)>,
    waiting: usize,
    last_due: Option<Instant>,
    carried: usize,
    is_upgraded: bool,
    /// True once a limit or the silence took effect: nothing more is carried.
    is_silent: bool,
}

/// The faults that act on one direction of a connection.
#[derive(Default, PartialEq)]
pub(super) struct Shape {
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

/// The effect of reaching the limit of bytes.
#[derive(Clone, Copy, PartialEq)]
enum Limit {
    Ends(End),
    Stalls,
}

impl Shape {
    /// Asks the plan what acts on a connection: on the way to the server, and on the way to the client.
    pub(super) fn decide(scribe: &ExchangeRecorder) -> (Shape, Shape) {
        let (mut to_server, mut to_client) = (Shape::default(), Shape::default());
        for (index, fault) in scribe.plan().faults.iter().enumerate() {
            let FaultKind::Stream { direction, fault: what } = &fault.kind else { continue };
            if !scribe.meets(index) {
                continue;
            }
            for (shape, one) in [(&mut to_server, Direction::ToServer), (&mut to_client, Direction::ToClient)] {
                if direction.includes(one) {
                    shape.add(what, index);
                }
            }
            // The others act when their moment comes.
            let acts_at_once = matches!(
                what,
                StreamFault::Delay { .. }
                    | StreamFault::Jitter { .. }
                    | StreamFault::Throttle { .. }
                    | StreamFault::Slice { .. }
            );
            if acts_at_once {
                scribe.fired(index, Actor::Edge, fault.kind.to_string());
            }
        }
        (to_server, to_client)
    }

    /// Adds what one fault does; of two that limit the same the stricter one counts.
    fn add(&mut self, what: &StreamFault, index: usize) {
        fn least(limit: &mut Option<usize>, new: usize) {
            *limit = Some(limit.map_or(new, |old| old.min(new)));
        }
        let limit = match what {
            StreamFault::Delay { delay } => return self.delay += delay.0,
            StreamFault::Jitter { most } => return self.jitter += most.0,
            StreamFault::Throttle { rate } => return least(&mut self.bytes_per_second, rate.0),
            StreamFault::Slice { bytes } => return least(&mut self.slice, bytes.0),
            StreamFault::Silence {} => {
                self.silence.get_or_insert(index);
                return;
            }
            StreamFault::Cut { after } => (after.0, Limit::Ends(End::Finished), index),
            StreamFault::Reset { after } => (after.0, Limit::Ends(End::Reset), index),
            StreamFault::Stall { after } => (after.0, Limit::Stalls, index),
        };
        if self.limit.is_none_or(|(after, ..)| limit.0 < after) {
            self.limit = Some(limit);
        }
    }
}

impl DelayedBytes {
    pub(super) fn new(shape: Shape, scribe: ExchangeRecorder) -> DelayedBytes {
        DelayedBytes {
            scribe,
            shape,
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

    /// Whether nothing will ever act on it any more, and nothing is under way.
    pub(super) fn is_plain(&self) -> bool {
        !self.is_silent && self.queue.is_empty() && self.shape == Shape::default()
    }

    /// Whether the end of the stream does not go this way, because nothing does any more.
    pub(super) fn keeps_end(&mut self) -> bool {
        self.fall_silent();
        self.is_silent
    }

    /// Lets the silence begin that a fault makes of an upgrade.
    fn fall_silent(&mut self) {
        if let Some(index) = self.shape.silence.take_if(|_| self.is_upgraded) {
            self.scribe.fired(index, Actor::Edge, self.scribe.plan().faults[index].kind.to_string());
            self.is_silent = true;
        }
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

    pub(super) fn is_upgraded(&self) -> bool {
        self.is_upgraded
    }

    /// Sends bytes on their way, behind those that are there already.
    pub(super) fn push(&mut self, bytes: Vec<u8>, delay: Duration) {
        if bytes.is_empty() {
            return;
        }
        self.fall_silent();
        let shape = &self.shape;
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
        let piece = piece.min(shape.slice.unwrap_or(piece));
        if piece >= bytes.len() && shape.bytes_per_second.is_none() {
            self.queue.push_back((due, bytes));
            self.last_due = Some(due);
            return;
        }
        for piece in bytes.chunks(piece) {
            if let Some(rate) = shape.bytes_per_second {
                due += Duration::from_secs_f64(piece.len() as f64 / rate as f64);
            }
            self.queue.push_back((due, piece.to_vec()));
        }
        self.last_due = Some(due);
    }

    /// Hands over what is due, as far as the reader keeps up; how that ends the connection. Pieces go one at a time where
    /// their size is a fault's.
    pub(super) fn hand_over(&mut self, outgoing: &mut Vec<u8>) -> Option<(End, usize)> {
        if self.queue.is_empty() {
            return None;
        }
        let before_max = if self.shape.slice.is_some() { 1 } else { HIGH_WATER_BYTES };
        let now = Instant::now();
        while self.due().is_some_and(|due| due <= now) && outgoing.len() < before_max {
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
    fn carry(&mut self, piece: &[u8], outgoing: &mut Vec<u8>) -> Option<Option<(End, usize)>> {
        let reached = self.shape.limit.filter(|(after, ..)| self.carried + piece.len() >= *after);
        let Some((after, what, index)) = reached else {
            self.carried += piece.len();
            outgoing.extend_from_slice(piece);
            return None;
        };
        outgoing.extend_from_slice(&piece[..after - self.carried]);
        self.carried = after;
        self.scribe.fired(index, Actor::Edge, self.scribe.plan().faults[index].kind.to_string());
        self.shape.limit = None;
        self.is_silent = true;
        self.queue.clear();
        self.waiting = 0;
        Some(match what {
            Limit::Ends(end) => Some((end, index)),
            Limit::Stalls => None,
        })
    }
}
