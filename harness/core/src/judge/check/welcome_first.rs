//! A session begins with the welcome: nothing comes before it, and none closes normally without it.

use super::{Harm, Property, RunView, Violation};
use crate::{
    judge::{classify::Exchange, outcome::Ending},
    wire::close_code::CloseCode,
};

pub(super) const CHECK: Property = Property {
    name: "welcome_first",
    property: "a session begins with the welcome",
    harm: Harm::Disguised,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence.exchanges().filter_map(|(reading, outcome)| complain(reading, &outcome.ending)).collect()
}

fn complain(reading: &Exchange<'_>, ending: &Ending) -> Option<Violation> {
    let normal = matches!(
        ending,
        Ending::Parted { .. } | Ending::Left | Ending::Close { code: None | Some(CloseCode::NORMAL), .. }
    );
    let welcomes = &reading.service.words.welcomes;
    if welcomes.is_empty() {
        // The service sends no welcome.
        return None;
    }
    let opened = reading.response.is_some_and(|head| head.status == 101);
    match (&reading.welcome, reading.messages.first()) {
        (None, _) if opened && normal && !reading.turned_away_at_once() => Some(
            reading
                .violation("missing", format!("the session ended normally ({ending}) and had never begun: no welcome")),
        ),
        (Some(_), Some(first)) if !welcomes.has(first) => {
            Some(reading.violation("late", format!("`{first}` came before the welcome")))
        }
        _ => None,
    }
}
