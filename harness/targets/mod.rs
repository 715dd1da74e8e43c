//! The targets: the services behind the edge.

mod backend;
mod connections;
mod python;
mod served;
mod url;

pub use backend::{Embedded, Program, SECRET, Software, Transport};
pub use python::Python;
pub use served::Served;
pub use url::Url;

use crate::{
    edge::{self, Way},
    fault::Place,
    link::{Link, Redial},
    recorder::Scribe,
};

/// A connection to a server, with the edge in front of it where the plan has faults for that. `redial` makes another
/// connection to the same server, for a fault that asks once more.
fn through_the_edge(link: Option<Link>, scribe: Scribe, redial: impl FnOnce(&Scribe) -> Redial) -> Option<Link> {
    if !scribe.has_faults_at(Place::Edge) {
        return link;
    }
    let (client, near) = Link::pair();
    let again = edge::asks_again(&scribe).then(|| redial(&scribe));
    tokio::spawn(edge::relay(near, Way { link, again }, scribe, None));
    Some(client)
}
