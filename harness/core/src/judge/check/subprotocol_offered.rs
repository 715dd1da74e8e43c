//! The selected subprotocol is one the client offered; one is selected whenever some were offered, because browsers
//! give the connection up otherwise.

use super::{Harm, Property, RunView, Violation};
use crate::wire::head::{header, readable};

pub(super) const CHECK: Property = Property {
    name: "subprotocol_offered",
    property: "the selected subprotocol is one the client offered",
    harm: Harm::Disguised,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence
        .plain()
        .filter(|reading| !reading.may_have_lost_credential())
        .filter_map(|reading| {
            let response = reading.response.filter(|head| head.status == 101)?;
            let offers = reading.request?.offered_subprotocols();
            match header(&response.headers, "sec-websocket-protocol").map(readable) {
                Some(selected) if !offers.contains(&selected) => {
                    let message = format!("the server selected `{selected}`, which was not offered");
                    Some(reading.violation("foreign", message))
                }
                Some(_) => None,
                // A server that knows none of them selects none (RFC 6455 section 4.2.2). The built-in backend refuses
                // a client that offers no other.
                None if reading.service.subprotocols.is_empty() => None,
                None if reading.service.is_foreign() && !reading.service.knows_any(&offers) => None,
                // Offers that were stripped on the way are not the server's to answer.
                None => {
                    let count = reading.delivered?.offered_subprotocols().len();
                    let message = format!("the server selected none of {count} subprotocol(s)");
                    (count > 0).then(|| reading.violation("none", message))
                }
            }
        })
        .collect()
}
