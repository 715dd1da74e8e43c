//! The effect of a change, fixed and broken: two hunts with the same seeds, and every finding on one version tried on
//! the other.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Campaign, Coverage, Found, Hunt, Worker, complaints};
use relapse_core::{
    error::Error,
    judge::verdict::{Conclusion, FindingKey},
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
    /// The other version has no place for what brings it about, so that nothing is shown.
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
    /// The result for each finding, in the order they are told in, with the finding and whether it is of the hunt on
    /// the version from after.
    pub fates: Vec<(ChangeKind, Found, bool)>,
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
        let (old, new) = (Worker::new(before.0)?, Worker::new(after.0)?);
        let reached = [before.1.reached, after.1.reached];
        let mut fates: Vec<(ChangeKind, Found, bool)> = Vec::new();
        for found in after.1.found {
            let fate = match old.shown(&found)? {
                Some(keys) if keys.contains(&found.key) => ChangeKind::Still,
                Some(_) => ChangeKind::Broken,
                None => ChangeKind::Unclear,
            };
            fates.push((fate, found, true));
            done();
        }
        for mut found in before.1.found {
            let shown = new.shown(&found)?;
            let fate = match shown.as_ref().map(|keys| (keys.contains(&found.key), keys.first())) {
                Some((true, _)) => ChangeKind::Still,
                Some((false, None)) => ChangeKind::Fixed,
                Some((false, Some(other))) => {
                    found.message.push_str(&format!("; after the change: {other}"));
                    ChangeKind::Changed
                }
                None => ChangeKind::Unclear,
            };
            let is_told = |(_, other, _): &(ChangeKind, Found, bool)| {
                other.key == found.key || other.also.iter().any(|(key, _)| *key == found.key)
            };
            if fate != ChangeKind::Still || !fates.iter().any(is_told) {
                fates.push((fate, found, false));
            }
            done();
        }
        fates.sort_by_key(|(fate, ..)| *fate);
        Ok(Change { fates, reached })
    }

    /// The conclusion: a finding where anything is broken after the change, or cannot be told; nothing where one of the
    /// hunts reached nothing.
    pub fn conclusion(&self, may_have_faults: bool) -> Conclusion {
        let found =
            |on_after: bool| self.fates.iter().any(|(fate, _, after)| *fate == ChangeKind::Still || *after == on_after);
        let is_vain = |(reached, on_after): (&Coverage, bool)| reached.is_nothing(may_have_faults) && !found(on_after);
        match self.reached.iter().zip([false, true]).any(is_vain) {
            true => Conclusion::Nothing,
            false => Conclusion::of(self.fates.iter().all(|(fate, ..)| *fate == ChangeKind::Fixed)),
        }
    }
}

impl Worker<'_> {
    /// The findings of a version in the smallest case of a finding; `None` where a fault of it does not act there.
    fn shown(&self, found: &Found) -> Result<Option<BTreeSet<FindingKey>>, Error> {
        let played = self.play(&found.drawn, found.seed)?;
        let acted = played.as_ref().map_or(true, |transcript| transcript.fired.iter().all(|fired| *fired > 0));
        let keys: BTreeSet<FindingKey> = complaints(&played).into_iter().map(|(key, _)| key).collect();
        Ok((acted || keys.contains(&found.key)).then_some(keys))
    }
}
