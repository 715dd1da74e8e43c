//! The man in the middle: carries bytes between client and server, and lets the plan's edge faults act on them.

mod head;

use std::future::poll_fn;
use std::task::Poll;

use crate::{
    link::{Link, Progress, Wire, take},
    recorder::Scribe,
};

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
    client.flush().await;
    server.flush().await;
}

/// Moves everything that came in on one side to the other.
fn carry(from: &mut Wire, to: &mut Wire) {
    let count = from.incoming.len();
    to.outgoing.extend_from_slice(&from.incoming);
    take(&mut from.incoming, count);
}
