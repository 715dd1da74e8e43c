//! A session opens only when a valid credential reached the server, and only for the user it names; what only a user may
//! see is shown to no other client.

use super::{Harm, Property, RunView, Violation};
use crate::judge::{
    classify::Exchange,
    outcome::{Class, Outcome},
};

pub(super) const CHECK: Property = Property {
    name: "opened_only_with_credential",
    property: "a session opens on a valid credential only, for the user it names",
    harm: Harm::Admitted,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    evidence.exchanges().filter_map(|(reading, outcome)| complain(reading, outcome)).collect()
}

fn complain(reading: &Exchange<'_>, outcome: &Outcome) -> Option<Violation> {
    let Some(welcome) = reading.welcome.as_ref() else {
        let is_shown = outcome.class == Class::WronglyAdmitted && reading.user.is_none();
        let text = format!("{} without a valid credential", outcome.ending);
        return is_shown.then(|| reading.violation("no user", text));
    };
    if reading.is_welcomed_as_itself() {
        return None;
    }
    Some(match reading.user {
        None => reading.violation("no user", format!("a session was opened as {welcome:?} without a valid credential")),
        Some(user) => reading.violation("foreign", format!("a session was opened as {welcome:?} for {user:?}")),
    })
}
