//! The man in the middle: carries bytes between client and server, and lets the plan's edge faults act on them.
//!
//! Whatever no fault acts on passes byte for byte. What a connection carries is first a request and its answer
//! (`head`), then, after an upgrade, frames (`frames`); all of it is bytes with a way to go (`stream`).

mod frames;
mod head;
mod stream;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

use self::{
    frames::Mangler,
    head::Exchange,
    stream::{Shape, Stream},
};
use crate::{
    fault::Direction,
    link::{Link, Wire, take},
    recorder::Scribe,
};

/// How many bytes may wait for one side before the other is not read any further.
const HIGH_WATER_BYTES: usize = 1 << 20;

/// How long either side may take to read what had arrived when the other one ended.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// How a fault ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// In good order: what is under way arrives.
    Finished,
    /// At once: what is under way is lost.
    Reset,
}

/// Carries one connection until either side, or a fault, ends it.
pub async fn relay(client: Link, server: Link, scribe: Scribe) {
    let (there, back) = Shape::decide(&scribe);
    let mut relay = Relay {
        client: Wire::new(client),
        server: Wire::new(server),
        exchange: Exchange::new(scribe.clone()),
        to_server: Lane::new(Direction::ToServer, there, &scribe),
        to_client: Lane::new(Direction::ToClient, back, &scribe),
    };
    if relay.carry_all().await == End::Finished {
        let (client, server) = (&mut relay.client, &mut relay.server);
        let _ = timeout(FLUSH_LIMIT, async { tokio::join!(client.flush(), server.flush()) }).await;
    }
}

/// One direction of a connection.
struct Lane {
    frames: Mangler,
    stream: Stream,
}

impl Lane {
    fn new(direction: Direction, shape: Shape, scribe: &Scribe) -> Lane {
        Lane { frames: Mangler::new(direction, scribe.clone()), stream: Stream::new(shape, scribe.clone()) }
    }
}

struct Relay {
    client: Wire,
    server: Wire,
    exchange: Exchange,
    to_server: Lane,
    to_client: Lane,
}

impl Relay {
    /// Carries everything; how it ends.
    async fn carry_all(&mut self) -> End {
        loop {
            if let Some(end) = self.carry() {
                return end;
            }
            // What one side said before it ended is still delivered, as a kernel would.
            let is_through =
                |wire: &Wire, lane: &Lane| wire.has_ended() && wire.incoming.is_empty() && lane.stream.is_empty();
            if is_through(&self.client, &self.to_server) || is_through(&self.server, &self.to_client) {
                return End::Finished;
            }
            let due = [&self.to_server, &self.to_client].into_iter().filter_map(|lane| lane.stream.due()).min();
            if due.is_some_and(|due| due <= Instant::now()) && self.can_hand_over() {
                // Another piece is to go; whoever reads has its turn first.
                yield_now().await;
                continue;
            }
            let (client, server) = (&mut self.client, &mut self.server);
            let moved = poll_fn(|cx| match client.poll_progress(cx) {
                Poll::Ready(progress) => Poll::Ready(progress),
                Poll::Pending => server.poll_progress(cx),
            });
            match due.filter(|due| *due > Instant::now()) {
                None => {
                    moved.await;
                }
                Some(due) => {
                    tokio::select! {
                        biased;
                        _ = moved => {}
                        () = sleep_until(due) => {}
                    }
                }
            }
        }
    }

    /// Whether a piece that is due has nothing before it.
    fn can_hand_over(&self) -> bool {
        (self.to_server.stream.is_due() && self.server.outgoing.is_empty())
            || (self.to_client.stream.is_due() && self.client.outgoing.is_empty())
    }

    /// Moves what came in on either side as far as it gets.
    fn carry(&mut self) -> Option<End> {
        let mut end = None;
        if self.to_server.stream.waiting() < HIGH_WATER_BYTES {
            let incoming = &mut self.client.incoming;
            let mut carried = Vec::new();
            self.exchange.request(incoming, &mut carried);
            self.to_server.stream.push(carried, Duration::ZERO);
            if self.exchange.is_request_through() && !incoming.is_empty() {
                if self.exchange.is_upgraded() && self.to_server.frames.has_faults() {
                    end = self.to_server.frames.carry(incoming, &mut self.to_server.stream, &mut self.to_client.stream);
                } else {
                    self.to_server.stream.push(incoming.to_vec(), Duration::ZERO);
                    let count = incoming.len();
                    take(incoming, count);
                }
            }
        }
        if self.to_client.stream.waiting() < HIGH_WATER_BYTES {
            let incoming = &mut self.server.incoming;
            let mut carried = Vec::new();
            let was_upgraded = self.exchange.is_upgraded();
            end = end.or(self.exchange.answer(incoming, &mut carried));
            self.to_client.stream.push(carried, Duration::ZERO);
            if self.exchange.is_upgraded() && !was_upgraded {
                self.to_server.stream.upgraded();
                self.to_client.stream.upgraded();
            }
            if end.is_none() && self.exchange.is_answer_through() && !incoming.is_empty() {
                if self.exchange.is_upgraded() && self.to_client.frames.has_faults() {
                    let (there, back) = (&mut self.to_client.stream, &mut self.to_server.stream);
                    end = end.or(self.to_client.frames.carry(incoming, there, back));
                } else {
                    self.to_client.stream.push(incoming.to_vec(), Duration::ZERO);
                    let count = incoming.len();
                    take(incoming, count);
                }
            }
        }
        for (wire, lane) in [(&mut self.client, &mut self.to_server), (&mut self.server, &mut self.to_client)] {
            // What is not whole when a side ends never will be.
            if wire.has_ended() && lane.stream.waiting() < HIGH_WATER_BYTES {
                lane.frames.release(&mut lane.stream);
                lane.stream.push(wire.incoming.to_vec(), Duration::ZERO);
                wire.incoming.clear();
            }
        }
        let cut = self.to_server.stream.hand_over(&mut self.server.outgoing);
        let cut = cut.or(self.to_client.stream.hand_over(&mut self.client.outgoing));
        match end {
            // What a fault of frames or answers said last is still said.
            Some(End::Finished) => {
                self.to_server.stream.hand_over_all(&mut self.server.outgoing);
                self.to_client.stream.hand_over_all(&mut self.client.outgoing);
                end
            }
            _ => end.or(cut),
        }
    }
}
