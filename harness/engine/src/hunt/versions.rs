//! The effect of a change, fixed and broken: two hunts with the same seeds, and every finding on one version tried on
//! the other.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Campaign, Coverage, Found, Hunt, Worker, complaints, guarded};
use relapse_core::{
    error::Error,
    fault::Place,
    judge::verdict::{Conclusion, FindingKey, Side},
};

/// The result of trying a finding of one of two versions on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The version from before does not show it, and the one from after does.
    Broken,
    /// Both show it.
    Still,
    /// The version from before shows it, and the one from after fails in another way.
    Changed,
    /// The other version has no place for what brings it about, or there was no time for it, so that nothing is shown.
    Unclear,
    /// Only the version from before shows it, and nothing else is wrong with the one from after.
    Fixed,
}

impl ChangeKind {
    /// All of them, in the order they are told in.
    pub const ALL: [ChangeKind; 5] =
        [ChangeKind::Broken, ChangeKind::Still, ChangeKind::Changed, ChangeKind::Unclear, ChangeKind::Fixed];

    /// Its meaning for the change.
    pub fn title(self) -> &'static str {
        match self {
            ChangeKind::Broken => "broken by the change",
            ChangeKind::Still => "still broken",
            ChangeKind::Changed => "broken in another way since the change",
            ChangeKind::Unclear => "not comparable",
            ChangeKind::Fixed => "fixed by the change",
        }
    }
}

/// The effect of a change.
#[derive(Debug)]
pub struct Change {
    /// The result for each finding, in the order they are told in, with the finding and the version whose hunt found it.
    pub fates: Vec<(ChangeKind, Found, Side)>,
    /// The coverage of the hunts: before and after.
    pub reached: [Coverage; 2],
}

impl Change {
    /// Tries what was found on one version on the other. What both hunts found is told once. `done` is called after each.
    ///
    /// # Errors
    /// When the harness could not do its work.
    pub fn between(
        before: (&Hunt, Campaign),
        after: (&Hunt, Campaign),
        mut done: impl FnMut(),
    ) -> Result<Change, Error> {
        let worker = |hunt| Worker::new(hunt, None);
        let (old, new) = (worker(before.0)?, worker(after.0)?);
        let reached = [before.1.reached, after.1.reached];
        let mut fates: Vec<(ChangeKind, Found, Side)> = Vec::new();
        for mut found in after.1.found {
            let fate = match old.shown(&found) {
                Err(Error::TimeIsOver) => untried(&mut found, before.0.deadline.reason()),
                Err(Error::HarnessPanicked { text, .. }) => {
                    untried(&mut found, &format!("the harness panicked: {text}"))
                }
                shown => match shown? {
                    Some(keys) if keys.contains(&found.key) => ChangeKind::Still,
                    Some(_) => ChangeKind::Broken,
                    None => ChangeKind::Unclear,
                },
            };
            fates.push((fate, found, Side::After));
            done();
        }
        for mut found in before.1.found {
            let fate = match new.shown(&found) {
                Err(Error::TimeIsOver) => untried(&mut found, after.0.deadline.reason()),
                Err(Error::HarnessPanicked { text, .. }) => {
                    untried(&mut found, &format!("the harness panicked: {text}"))
                }
                shown => match shown?.as_ref().map(|keys| (keys.contains(&found.key), keys.first())) {
                    Some((true, _)) => ChangeKind::Still,
                    Some((false, None)) => ChangeKind::Fixed,
                    Some((false, Some(other))) => {
                        found.message.push_str(&format!("; after the change: {other}"));
                        ChangeKind::Changed
                    }
                    None => ChangeKind::Unclear,
                },
            };
            if fate != ChangeKind::Still || !fates.iter().any(|(_, other, _)| other.has(&found.key)) {
                fates.push((fate, found, Side::Before));
            }
            done();
        }
        fates.sort_by_key(|(fate, ..)| *fate);
        Ok(Change { fates, reached })
    }

    /// The conclusion for hunts with faults at these places: `Finding` if anything is broken, or may be, after the change;
    /// `Nothing` if a hunt without findings reached nothing, or no fault acted in it.
    pub fn conclusion(&self, places: &[Place]) -> Conclusion {
        for (reached, side) in self.reached.iter().zip([Side::Before, Side::After]) {
            let proves_nothing = reached.is_nothing() || !places.is_empty() && reached.is_without_faults();
            if proves_nothing && !self.has_findings(side) {
                return Conclusion::Nothing;
            }
        }
        Conclusion::passes_if(self.fates.iter().all(|(fate, ..)| *fate == ChangeKind::Fixed))
    }

    /// The findings that are told, of the hunt on a version.
    pub fn found_on(&self, side: Side) -> impl Iterator<Item = &Found> {
        self.fates.iter().filter(move |(.., of)| *of == side).map(|(_, found, _)| found)
    }

    /// How many findings the hunt on a version had.
    pub fn findings(&self, side: Side) -> usize {
        self.fates.iter().filter(|(.., of)| *of == side).count()
    }

    fn has_findings(&self, side: Side) -> bool {
        self.fates.iter().any(|(fate, _, of)| *fate == ChangeKind::Still || *of == side)
    }
}

/// The fate of a finding that was not tried on the other version, for this reason.
fn untried(found: &mut Found, reason: &str) -> ChangeKind {
    found.message.push_str(&format!("; not tried on the other version: {reason}"));
    ChangeKind::Unclear
}

impl Worker<'_> {
    /// The findings of a version in the smallest case of a finding; `None` where a fault of it does not act there.
    fn shown(&self, found: &Found) -> Result<Option<BTreeSet<FindingKey>>, Error> {
        let shown = guarded(found.seed, || self.shown_in_any_case(found));
        self.memory.give_back();
        shown
    }

    fn shown_in_any_case(&self, found: &Found) -> Result<Option<BTreeSet<FindingKey>>, Error> {
        let played = self.play(&found.drawn, found.seed)?;
        let acted = played.as_ref().map_or(true, |transcript| transcript.fired.iter().all(|fired| *fired > 0));
        let keys: BTreeSet<FindingKey> =
            complaints(&self.hunt.ground, &played).into_iter().map(|complaint| complaint.key).collect();
        Ok((acted || keys.contains(&found.key)).then_some(keys))
    }
}
