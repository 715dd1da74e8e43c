//! Nothing is left behind: when every client is gone no connection is served and no session is held.

use super::{Property, RunView, Violation};

pub(super) const CHECK: Property =
    Property { name: "no_residue", property: "nothing is left behind when every client is gone", run: check };

fn check(evidence: &RunView<'_>) -> Vec<Violation> {
    let Some(residue) = evidence.transcript.residue else { return Vec::new() };
    if evidence.readings.iter().any(|reading| reading.is_held() || reading.may_go_on()) {
        return Vec::new();
    }
    [("connection(s)", residue.connections), ("session(s)", residue.sessions)]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| Violation::of_run(what, format!("{count} {what} are left when every client is gone")))
        .collect()
}
