//! Edge faults on the request head.

use super::carry;
use crate::{
    fault::FaultKind,
    head::RequestHead,
    link::{Wire, take},
    recorder::Scribe,
    transcript::Party,
};

/// Rewrites the head of the connection's first request; everything after it passes as it is.
pub(super) struct Rewriter {
    scribe: Scribe,
    done: bool,
}

impl Rewriter {
    pub(super) fn new(scribe: Scribe) -> Rewriter {
        Rewriter { scribe, done: false }
    }

    pub(super) fn carry(&mut self, client: &mut Wire, server: &mut Wire) {
        if self.done {
            return carry(client, server);
        }
        match RequestHead::decode(&client.incoming) {
            Ok(None) => {}
            Ok(Some((mut head, length))) => {
                self.done = true;
                if self.rewrite(&mut head) {
                    take(&mut client.incoming, length);
                    head.encode(&mut server.outgoing);
                }
                carry(client, server);
            }
            Err(_) => {
                self.done = true;
                carry(client, server);
            }
        }
    }

    /// Lets each edge fault act; whether the head is another one now. An unchanged head passes byte for byte.
    fn rewrite(&self, head: &mut RequestHead) -> bool {
        let before = head.clone();
        for (index, fault) in self.scribe.plan().faults.iter().enumerate() {
            match &fault.kind {
                FaultKind::Pass if self.scribe.meets(index) => {
                    self.scribe.fired(index, Party::Edge, fault.kind.to_string());
                }
                FaultKind::Head(edit) if edit.applies_to(head) && self.scribe.meets(index) => {
                    edit.apply(head);
                    self.scribe.fired(index, Party::Edge, fault.kind.to_string());
                }
                _ => {}
            }
        }
        *head != before
    }
}
