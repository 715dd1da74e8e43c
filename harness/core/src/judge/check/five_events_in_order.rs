//! An agent request is answered by its five events, once each and in order, for the user who asked.

use super::{Harm, Property, RunView, Violation};
use crate::judge::classify::Exchange;

pub(super) const CHECK: Property = Property {
    name: "five_events_in_order",
    property: "an agent request is answered by its five events",
    harm: Harm::Drop,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence.plain().filter(|reading| !reading.is_abridged()).filter_map(complain).collect()
}

fn complain(reading: &Exchange<'_>) -> Option<Violation> {
    let (wanted, seen) = (reading.agent_runs_owed(), reading.agent_runs());
    let events = reading.agent_events().len();
    // An outage, or a client that turns away, may cut a run short, and never adds one.
    let may_be_cut = reading.outage || wanted < reading.agent_requests();
    let limit = if may_be_cut { reading.agent_requests() } else { wanted } * reading.service.words.events.len();
    // The answers of an external server to other messages than requests are its own matter.
    let is_too_much = events > limit && !(reading.service.is_foreign() && reading.says_something_else());
    if seen < wanted || is_too_much || (events < limit && !may_be_cut) {
        let message =
            format!("{wanted} agent request(s) were answered by {seen} whole run(s), {events} event(s) in all");
        return Some(reading.violation("missing", message));
    }
    let foreign = reading.foreign_user.as_ref()?;
    Some(reading.violation("foreign", format!("an event carries the foreign user {foreign:?}")))
}
