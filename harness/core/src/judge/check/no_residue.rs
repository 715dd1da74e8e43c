//! Nothing is left behind: when every client is gone no connection is served, no session is held, and the application keeps
//! nothing of them that grows with each.

use super::{Harm, Property, RunView, Violation};
use crate::record::transcript::{EventKind, Held};

pub(super) const CHECK: Property = Property {
    name: "no_residue",
    property: "nothing is left behind when every client is gone",
    harm: Harm::Leak,
    run: check,
};

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    let mut found = left_behind(evidence);
    let Some(residue) = evidence.transcript.residue else { return found };
    if evidence.readings.iter().any(|reading| reading.is_held() || reading.may_go_on()) {
        return found;
    }
    let counts = [("connection(s)", residue.connections), ("session(s)", residue.sessions)];
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    found
        .extend(counts.map(|(what, count)| {
            Violation::of_run(what, format!("{count} {what} are left when every client is gone"))
        }));
    found
}

/// The tasks and objects that the application still holds for clients that are gone. The key has the name alone, because the
/// number of clients differs from case to case.
fn left_behind(evidence: &RunView<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for reading in &evidence.readings {
        for event in &reading.events {
            let EventKind::LeftBehind(leftover) = &event.what else { continue };
            let kind = match leftover.held {
                Held::Task => "task",
                Held::Objects => "objects in",
                Held::EmptyEntries => "empty entries in",
            };
            found.push(reading.violation(format!("{kind} {}", leftover.name), leftover.to_string()));
        }
    }
    found
}
