//! The targets: the services behind the edge.

pub mod connections;
mod url;

pub use url::Url;

use relapse_core::fault::Place;
use relapse_simulate::{
    edge::{self, ServerLink},
    link::{Link, Redial},
    recorder::ExchangeRecorder,
};

/// A connection to a server, with the edge in front of it where the plan has faults for that. `redial` makes another
/// connection to the same server, for a fault that asks once more.
pub fn through_the_edge(
    link: Option<Link>,
    scribe: ExchangeRecorder,
    redial: impl FnOnce(&ExchangeRecorder) -> Redial,
) -> Option<Link> {
    if !scribe.has_faults_at(Place::Edge) {
        return link;
    }
    let (client, near) = Link::pair();
    let again = edge::asks_again(&scribe).then(|| redial(&scribe));
    tokio::spawn(edge::relay(near, ServerLink { link, again }, scribe, None));
    Some(client)
}
