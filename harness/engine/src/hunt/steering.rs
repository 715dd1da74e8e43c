//! Learns from the code that cases reach which cases are worth drawing next.
//!
//! Cases are drawn in generations. A generation is drawn by what the generations before it have reached, and by nothing that
//! depends on the number of workers: the first case that reaches a block is the same with any number of workers.

use std::collections::btree_map::{BTreeMap, Entry};
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{
    GeneratedCase,
    alike::{give_other_json, give_other_target, varied},
    external::ExternalTarget,
};
use crate::{client::earlier::refers_to_earlier, route::Route};
use relapse_core::{
    choices::Choices,
    client::step::{Action, Request, Step},
    record::code::{Block, BlockPlace, Blocks, ReachedBlocks},
};

/// How many cases the first generation has, which are drawn from their seeds alone. Each further one doubles all cases, up
/// to the longest.
pub const FIRST_GENERATION: u64 = 256;
const LONGEST_GENERATION: u64 = 2048;

/// How many cases that reached something new are kept to be varied: the last ones, which were the hardest to draw.
const KEPT_MAX: usize = 256;

/// The longest case that variations make, in visits.
const VISITS_MAX: usize = 8;

/// The generations of so many cases, by their numbers.
pub(super) fn generations(cases: u64) -> impl Iterator<Item = Range<u64>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let length = start.clamp(FIRST_GENERATION, LONGEST_GENERATION);
        let generation = start..cases.min(start.saturating_add(length));
        start = generation.end;
        (!generation.is_empty()).then_some(generation)
    })
}

/// The knowledge of the generations that are over.
#[derive(Debug, Default)]
pub(super) struct Steering(RwLock<Vec<(u64, Arc<Learnt>)>>);

/// The code that generations have reached, and the cases that reached it.
#[derive(Debug, Clone, Default)]
pub(super) struct Learnt {
    /// The numbers of the cases that reached code which none before them had.
    kept: Vec<u64>,
    reached: BTreeSet<Block>,
    /// The routes with code that no case has reached.
    pub(super) favored: BTreeSet<String>,
}

impl Steering {
    /// The knowledge by which the case with this number is drawn.
    pub(super) fn before(&self, number: u64) -> Option<Arc<Learnt>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().rev().find(|(end, _)| *end <= number).map(|(_, learnt)| Arc::clone(learnt))
    }

    /// Learns from a generation that ended before the case with this number.
    pub(super) fn learn(&self, end: u64, first: &BTreeMap<Block, u64>, code: &ReachedCode, routes: &[String]) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut learnt = known.last().map_or_else(Learnt::default, |(_, learnt)| Learnt::clone(learnt));
        let new = first.iter().filter(|(block, _)| !learnt.reached.contains(block)).map(|(_, number)| *number);
        let new: BTreeSet<u64> = new.collect();
        learnt.kept.extend(new);
        learnt.kept.drain(..learnt.kept.len().saturating_sub(KEPT_MAX));
        learnt.reached.extend(first.keys().cloned());
        learnt.favored = routes.iter().filter(|route| code.has_unreached(route)).cloned().collect();
        known.push((end, Arc::new(learnt)));
    }
}

impl Learnt {
    /// The number of a case to vary in place of a new one; in half of the cases, where one was kept.
    pub(super) fn parent(&self, choices: Choices) -> Option<u64> {
        (!self.kept.is_empty() && choices.fork("is varied").happens(1, 2))
            .then(|| choices.fork("parent").one(&self.kept))
    }
}

/// A case that reached something new, varied with the help of a newly drawn one.
pub(super) fn vary(
    choices: Choices,
    parent: GeneratedCase,
    new: GeneratedCase,
    target: &ExternalTarget,
) -> GeneratedCase {
    match choices.fork("variation").weighed(&[(2, "faults"), (3, "values"), (1, "both"), (2, "continued")]) {
        "faults" => GeneratedCase { faults: new.faults, ..parent },
        "values" => with_other_values(choices, parent, target),
        "both" => GeneratedCase { faults: new.faults, ..with_other_values(choices, parent, target) },
        // Steps with and without the names of clients do not mix, and what refers to earlier answers counts them.
        _ if parent.visits.len() + new.visits.len() > VISITS_MAX
            || parent.visits.iter().chain(&new.visits).flatten().any(|step| step.client.is_some())
            || new.visits.iter().flatten().any(refers_to_earlier) =>
        {
            GeneratedCase { faults: new.faults, ..parent }
        }
        _ => GeneratedCase { visits: [parent.visits, new.visits].concat(), ..parent },
    }
}

/// One message, body, query or path of the case says something else of the same form.
fn with_other_values(choices: Choices, mut case: GeneratedCase, target: &ExternalTarget) -> GeneratedCase {
    let unknown = Route::default();
    let mut steps: Vec<(&mut Step, &Route)> = Vec::new();
    for visit in &mut case.visits {
        let mut route = &unknown;
        for step in visit {
            route = target.route_of(step).unwrap_or(route);
            if can_say_other(step, route) {
                steps.push((step, route));
            }
        }
    }
    if steps.is_empty() {
        return case;
    }
    let (step, route) = steps.swap_remove(choices.fork("step").count(0..=steps.len() - 1));
    let choices = choices.fork("value");
    match &mut step.act {
        Action::SendText(text) => {
            let value = serde_json::from_str(text).unwrap_or_default();
            *text = varied(choices, route, value).to_string();
        }
        Action::Request(request) if has_json(request) => give_other_json(choices, route, request),
        Action::Request(request) | Action::Open(request) => give_other_target(choices, route, request),
        _ => {}
    }
    case
}

/// Whether a step on a route has JSON, a query or a path of which a value can be another.
fn can_say_other(step: &Step, route: &Route) -> bool {
    match &step.act {
        Action::SendText(text) => serde_json::from_str::<Json>(text).is_ok(),
        Action::Request(request) | Action::Open(request) => route.has_parameters() || has_json(request),
        _ => false,
    }
}

fn has_json(request: &Request) -> bool {
    serde_json::from_slice::<Json>(&request.body).is_ok()
}

/// The app's own code, and how much of it the calls of each route reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachedCode {
    /// The blocks of each file, in their order.
    pub files: BTreeMap<String, BTreeMap<u32, BlockPlace>>,
    /// The blocks that the calls of each route reached, by file.
    pub routes: BTreeMap<String, BTreeMap<String, BTreeSet<u32>>>,
}

impl ReachedCode {
    /// Whether nothing was counted.
    pub fn is_nothing(&self) -> bool {
        self.files.is_empty()
    }

    /// Notes the blocks of the app.
    pub(super) fn add_blocks(&mut self, blocks: Blocks) {
        for (Block { file, number }, place) in blocks {
            self.files.entry(file.to_string()).or_default().insert(number, place);
        }
    }

    /// Adds the blocks that a call of a route reached.
    fn reach(&mut self, route: &str, blocks: &BTreeSet<Block>) {
        let files = self.routes.entry(route.to_owned()).or_default();
        for Block { file, number } in blocks {
            match files.get_mut(&**file) {
                Some(numbers) => drop(numbers.insert(*number)),
                None => drop(files.insert(file.to_string(), BTreeSet::from([*number]))),
            }
        }
    }

    /// Adds what another part of a hunt reached.
    pub(super) fn add(&mut self, other: &ReachedCode) {
        for (file, blocks) in &other.files {
            self.files
                .entry(file.clone())
                .or_default()
                .extend(blocks.iter().map(|(number, place)| (*number, place.clone())));
        }
        for (route, files) in &other.routes {
            let own = self.routes.entry(route.clone()).or_default();
            files.iter().for_each(|(file, numbers)| own.entry(file.clone()).or_default().extend(numbers));
        }
    }

    /// How many blocks were reached, and how many there are.
    pub fn count(&self) -> (usize, usize) {
        let all = self.files.iter().flat_map(|(file, known)| known.keys().map(move |number| (file, *number)));
        let reached = all.clone().filter(|(file, number)| self.is_reached(file, *number)).count();
        (reached, all.count())
    }

    /// The lines of the functions that a route reached which no case has reached, as `app.py:30-34`, in their order.
    pub fn missed_lines(&self, route: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for (file, places) in self.missed(route) {
            let mut end = 0;
            for (first, last) in places.iter().map(|place| (place.first, place.last)).collect::<BTreeSet<_>>() {
                // A block inside another one that is missed is missed with it.
                if last > end {
                    lines.push(if first == last {
                        format!("{file}:{first}")
                    } else {
                        format!("{file}:{first}-{last}")
                    });
                    end = last;
                }
            }
        }
        lines
    }

    /// Whether a route has reached nothing, or there is more in the functions that it reached.
    fn has_unreached(&self, route: &str) -> bool {
        self.routes.get(route).is_none_or(BTreeMap::is_empty) || !self.missed(route).is_empty()
    }

    /// The blocks that no case has reached, of the functions that a route has reached, by file.
    fn missed(&self, route: &str) -> BTreeMap<&str, Vec<&BlockPlace>> {
        let mut missed: BTreeMap<&str, Vec<&BlockPlace>> = BTreeMap::new();
        for (file, numbers) in self.routes.get(route).into_iter().flatten() {
            let Some(known) = self.files.get(file) else { continue };
            let functions: BTreeSet<u32> =
                numbers.iter().filter_map(|number| known.get(number)).map(|place| place.function_line).collect();
            for (number, place) in known {
                if functions.contains(&place.function_line) && !self.is_reached(file, *number) {
                    missed.entry(file).or_default().push(place);
                }
            }
        }
        missed
    }

    /// Whether any route reached a block.
    fn is_reached(&self, file: &str, number: u32) -> bool {
        self.routes.values().any(|files| files.get(file).is_some_and(|numbers| numbers.contains(&number)))
    }
}

/// The sets of blocks that one worker has seen, so that each is looked at once for each route.
#[derive(Debug, Default)]
pub(super) struct SeenSets {
    /// By the address of the set, which is kept so that no other gets it.
    seen: HashSet<(usize, usize)>,
    kept: Vec<ReachedBlocks>,
    routes: Vec<String>,
}

impl SeenSets {
    /// Adds what a call of a route reached in the case with this number.
    pub(super) fn add(
        &mut self,
        route: &str,
        set: &ReachedBlocks,
        number: u64,
        code: &mut ReachedCode,
        first: &mut BTreeMap<Block, u64>,
    ) {
        let known = self.routes.iter().position(|known| known == route);
        let route_number = known.unwrap_or_else(|| {
            self.routes.push(route.to_owned());
            self.routes.len() - 1
        });
        if !self.seen.insert((route_number, Arc::as_ptr(set) as usize)) {
            return;
        }
        self.kept.push(Arc::clone(set));
        code.reach(route, set);
        for block in set.iter() {
            if let Entry::Vacant(entry) = first.entry(block.clone()) {
                entry.insert(number);
            }
        }
    }
}

/// Joins the first cases that reached each block.
pub(super) fn join_first(into: &mut BTreeMap<Block, u64>, from: BTreeMap<Block, u64>) {
    for (block, number) in from {
        into.entry(block).and_modify(|first| *first = number.min(*first)).or_insert(number);
    }
}

#[cfg(test)]
mod tests {
    use super::generations;

    #[test]
    fn generations_cover_all_cases() {
        let all: Vec<_> = generations(10_000).collect();
        assert_eq!(all[..5], [0..256, 256..512, 512..1024, 1024..2048, 2048..4096]);
        assert_eq!(all[5], 4096..6144);
        assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(all.last().map(|last| last.end), Some(10_000));
        assert_eq!(generations(0).count(), 0);
        assert_eq!(generations(3).map(|cases| cases.end).collect::<Vec<_>>(), [3]);
    }
}
