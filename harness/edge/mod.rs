//! The man in the middle: carries bytes between client and server, and lets the plan's edge faults act on them.

mod head;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use crate::{
    link::{Link, Progress, Wire, take},
    recorder::Scribe,
};

/// How many bytes may wait for one side before the other is not read any further.
const HIGH_WATER_BYTES: usize = 1 << 20;

/// How long either side may take to read what had arrived when the other one ended.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// Carries one connection until either side ends it.
pub async fn relay(client: Link, server: Link, scribe: Scribe) {
    let (mut client, mut server) = (Wire::new(client), Wire::new(server));
    let mut request = head::Rewriter::new(scribe);
    loop {
        request.carry(&mut client, &mut server);
        carry(&mut server, &mut client);
        let progress = poll_fn(|cx| match client.poll_progress(cx) {
            Poll::Ready(progress) => Poll::Ready(progress),
            Poll::Pending => server.poll_progress(cx),
        })
        .await;
        if progress == Progress::End {
            break;
        }
    }
    // What has arrived is still delivered, as a kernel would.
    request.carry(&mut client, &mut server);
    carry(&mut server, &mut client);
    let _ = timeout(FLUSH_LIMIT, async { tokio::join!(client.flush(), server.flush()) }).await;
}

/// Moves what came in on one side to the other, as far as the other side still takes it.
fn carry(from: &mut Wire, to: &mut Wire) {
    let count = if to.outgoing.len() < HIGH_WATER_BYTES { from.incoming.len() } else { 0 };
    to.outgoing.extend_from_slice(&from.incoming);
    take(&mut from.incoming, count);
}
