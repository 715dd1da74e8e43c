//! The report of a hunt: a document that merges with those of other machines, and a page for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::report::{baseline::BaselineReport, table::plain_table};
use relapse::hunt::{
    Campaign, Change, ChangeKind, Coverage, Found, Hunt, ReachedCode, Reproduction, STATES, Unfinished,
};
use relapse::report::sequence::{self, SequenceDetail};
use relapse::route::RouteTrouble;
use relapse_core::{
    client::step::Action,
    fault::{FaultKind, Place},
    judge::{
        harm::Harm,
        verdict::{Conclusion, Side, Verdict},
    },
};

/// How many kinds that never acted are named.
const MISSED_MAX: usize = 4;

/// The document's version.
const SCHEMA: u32 = 4;

/// The results of a hunt, or of many parts of one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HuntReport {
    schema: u32,
    /// The revision that was hunted on.
    pub revision: String,
    /// Whether servers kept to the ASGI specification.
    pub legal_only: bool,
    /// The first seed of each part, and how many cases it had.
    pub seeds: Vec<(u64, u64)>,
    /// The places that faults could act at.
    #[serde(rename = "injection_points")]
    pub places: Vec<String>,
    /// The coverage.
    #[serde(rename = "coverage")]
    pub reached: Coverage,
    /// The verdicts on the reproducers that were replayed first.
    pub replayed: BTreeMap<String, Verdict>,
    /// The findings, each once, in the order of their harm.
    pub found: Vec<FoundReport>,
    /// Whether there were too many findings, so that those of later cases are left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_more: bool,
    /// The problems with the end of an external application, when it was told to stop.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub shutdown: BTreeSet<String>,
    /// Those of them that are in the baseline.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub known_shutdown: BTreeSet<String>,
    /// The failures to learn the routes of an external application.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub route_troubles: Vec<RouteTrouble>,
    /// The part that could not be done.
    #[serde(default, skip_serializing_if = "Unfinished::is_nothing")]
    pub unfinished: Unfinished,
    /// The baseline, where the hunt has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineReport>,
}

/// The hunts on one app behind several profiles, as one document.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByProfile {
    schema: u32,
    /// The hunt behind each profile, by its name; each has the shape of a hunt behind one profile.
    pub profiles: BTreeMap<String, HuntReport>,
    /// The baseline that the hunts have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineReport>,
}

/// The document that a hunt prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HuntDocument {
    /// Of one hunt.
    One(Box<HuntReport>),
    /// Of hunts behind several profiles.
    Many(ByProfile),
}

/// One finding.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundReport {
    /// The key that tells it from others.
    pub key: String,
    /// The worst harm of what its smallest case shows.
    #[serde(default = "unknown_harm")]
    pub harm: Harm,
    /// The finding.
    pub message: String,
    /// The other findings of the smallest case.
    pub also: Vec<String>,
    /// The seed that drew it.
    pub seed: u64,
    /// The server: its profile, or where it is.
    pub server: String,
    /// The environment; empty where it is not known.
    pub environment: String,
    /// How many clients.
    pub clients: String,
    /// The faults that are left.
    pub faults: Vec<String>,
    /// The smallest conversation.
    pub conversation: Vec<String>,
    /// Whether its case shows it again.
    #[serde(default = "shown")]
    pub reproduction: Reproduction,
    /// Whether it is in the baseline; `None` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<bool>,
    /// Where its reproducer was written; empty where it was not.
    #[serde(rename = "reproducer")]
    pub capsule: String,
    /// The command that shows it again.
    #[serde(rename = "reproduce")]
    pub again: String,
}

/// For documents that were written before the field existed.
fn unknown_harm() -> Harm {
    Harm::Crash
}

/// Documents of before say nothing else.
fn shown() -> Reproduction {
    Reproduction::Shown
}

impl FoundReport {
    /// A hunt's finding, where its reproducer was written, and which command shows it again.
    pub fn of(hunt: &Hunt, found: &Found, (capsule, again): (String, String)) -> FoundReport {
        let lines = sequence::lines(&found.transcript, SequenceDetail::Conversation);
        let crowd = found.drawn.crowd;
        let clients =
            format!("{} user(s), {} connection(s) each, {} time(s)", crowd.users, crowd.connections, crowd.rounds);
        FoundReport {
            key: found.key.to_string(),
            harm: found.harm(),
            message: found.message.clone(),
            also: found.also.iter().map(|(key, _)| key.to_string()).collect(),
            seed: found.seed,
            server: match hunt.ground.external() {
                Some(foreign) => foreign.name(),
                None => found.drawn.server.clone(),
            },
            environment: match hunt.ground.external() {
                Some(_) => String::new(),
                None => found.drawn.environment.name().to_owned(),
            },
            clients: if crowd.clients() * crowd.rounds > 1 { clients } else { String::new() },
            faults: found.drawn.faults.iter().map(ToString::to_string).collect(),
            conversation: lines.into_iter().map(|line| line.text).collect(),
            reproduction: found.reproduction,
            baseline: None,
            capsule,
            again,
        }
    }

    /// Its place among others: by harm, then by how ordinary its trigger is, then by its case.
    fn rank(&self) -> (Harm, usize, bool, u64) {
        (self.harm, self.faults.len(), !self.clients.is_empty(), self.seed)
    }

    /// Whether it is in the baseline.
    pub fn is_known(&self) -> bool {
        self.baseline == Some(true)
    }

    /// Whether a hunt that has it fails.
    pub fn fails(&self) -> bool {
        self.reproduction != Reproduction::SeenOnce && !self.is_known()
    }

    /// The finding, and the conversation that shows it.
    pub fn page(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{}  {}", self.key, self.message);
        for also in &self.also {
            let _ = writeln!(text, "  also {also}");
        }
        if self.is_known() {
            text.push_str("  in the baseline\n");
        }
        let clients = if self.clients.is_empty() { String::new() } else { format!("; {}", self.clients) };
        let whereabouts = match self.environment.as_str() {
            "" => format!("at {}", self.server),
            environment => format!("behind {} in {environment}", self.server),
        };
        let came = match self.reproduction {
            Reproduction::Untried | Reproduction::SeenOnce => "from",
            Reproduction::Shown | Reproduction::AfterOthers | Reproduction::Unconfirmed => "shrunk from",
        };
        let _ = writeln!(text, "{whereabouts}{clients}, {came} seed {}", self.seed);
        for line in &self.conversation {
            let _ = writeln!(text, "  {line}");
        }
        let _ = writeln!(text, "reproduce: {}\n", self.again);
        text
    }
}

impl HuntReport {
    /// The results of a hunt. `kept` says where the reproducer of each finding was written, and which command shows it
    /// again.
    pub fn of(hunt: &Hunt, campaign: &Campaign, kept: impl Fn(&Found) -> (String, String)) -> HuntReport {
        let found = campaign.found.iter().map(|found| FoundReport::of(hunt, found, kept(found)));
        let mut found: Vec<FoundReport> = found.collect();
        found.sort_by_key(FoundReport::rank);
        HuntReport {
            schema: SCHEMA,
            revision: hunt.ground.defects().to_string(),
            legal_only: hunt.legal_only,
            replayed: BTreeMap::new(),
            seeds: vec![(hunt.seed, campaign.reached.cases)],
            places: hunt.places.iter().map(|place| place.name().to_owned()).collect(),
            reached: campaign.reached.clone(),
            found,
            has_more: campaign.has_more,
            shutdown: BTreeSet::new(),
            known_shutdown: BTreeSet::new(),
            route_troubles: hunt.ground.external().map_or(Vec::new(), |prey| prey.troubles.clone()),
            unfinished: campaign.unfinished.clone(),
            baseline: None,
        }
    }

    /// Joins another part of the same campaign. What both found stands once, from the lower seed.
    ///
    /// # Errors
    /// When it is a part of another campaign, or one that is there already.
    pub fn merge(&mut self, other: HuntReport) -> Result<(), String> {
        if (&self.revision, &self.places, self.legal_only) != (&other.revision, &other.places, other.legal_only) {
            return Err("it belongs to another campaign: the revision or the faults differ".to_owned());
        }
        BaselineReport::merge(&mut self.baseline, other.baseline)?;
        if other.seeds.iter().any(|new| self.seeds.iter().any(|known| overlap(*new, *known))) {
            return Err("some of its seeds are in another part already".to_owned());
        }
        self.seeds.extend(other.seeds);
        self.seeds.sort_unstable();
        self.reached.add(&other.reached);
        self.replayed.extend(other.replayed);
        self.shutdown.extend(other.shutdown);
        self.known_shutdown.extend(other.known_shutdown);
        self.route_troubles.extend(other.route_troubles);
        self.route_troubles.dedup();
        self.unfinished.add(other.unfinished);
        self.has_more |= other.has_more;
        self.found.extend(other.found);
        self.found.sort_by_key(|found| found.seed);
        let mut known = BTreeSet::new();
        self.found.retain(|found| {
            let is_new = !known.contains(&found.key);
            known.insert(found.key.clone());
            known.extend(found.also.iter().cloned());
            is_new
        });
        self.found.sort_by_key(FoundReport::rank);
        if let Some(mut baseline) = self.baseline.take() {
            baseline.count(self.are_known());
            self.baseline = Some(baseline);
        }
        Ok(())
    }

    /// Of each finding and each problem with the end, whether it is in the baseline.
    fn are_known(&self) -> impl Iterator<Item = bool> {
        let of_ends = self.shutdown.iter().map(|complaint| self.known_shutdown.contains(complaint));
        self.found.iter().map(FoundReport::is_known).chain(of_ends)
    }

    /// Whether it would prove nothing if nothing was found: nothing was reached, or cases are left out.
    pub fn proves_nothing(&self) -> bool {
        let lacks_faults = !self.places.is_empty() && self.reached.is_without_faults();
        self.reached.is_nothing() || lacks_faults || self.unfinished.cases > 0
    }

    /// The conclusion: `Finding` where something was found that can be shown again and is in no baseline, `Nothing` where
    /// nothing was reached or cases are left out. Where the harness failed it is `Nothing`, whatever was found.
    pub fn conclusion(&self) -> Conclusion {
        if !self.unfinished.internal_errors.is_empty() {
            return Conclusion::Nothing;
        }
        let fails = self.found.iter().any(FoundReport::fails);
        match (!fails && self.shutdown.is_subset(&self.known_shutdown), self.proves_nothing()) {
            (false, _) => Conclusion::Finding,
            (true, false) => Conclusion::Passes,
            (true, true) => Conclusion::Nothing,
        }
    }

    /// Each finding with its conversation, and what was wrong with the end.
    pub fn findings(&self) -> String {
        let ends = self.shutdown.iter().map(|complaint| {
            let known = if self.known_shutdown.contains(complaint) { "  in the baseline\n" } else { "" };
            format!("shutdown: {complaint}\n{known}\n")
        });
        let (known, new): (Vec<&FoundReport>, Vec<&FoundReport>) =
            self.found.iter().partition(|found| found.is_known());
        let (shown, others): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|found| found.reproduction == Reproduction::Shown);
        let others = section("not shown again by a case of its own", &others);
        let known = section("known, in the baseline", &known);
        shown.into_iter().map(FoundReport::page).chain([others, known]).chain(ends).collect()
    }

    /// The findings and the coverage.
    fn page(&self) -> String {
        self.findings() + self.coverage().trim_end() + "\n"
    }

    /// The coverage: cases, classes, endings, and which kinds of fault acted and which never did.
    pub fn coverage(&self) -> String {
        let known = self.are_known().filter(|is_known| *is_known).count();
        let count = FindingCount { all: self.found.len() + self.shutdown.len(), known };
        coverage(&self.reached, count, &self.places) + &self.unfinished.line()
    }
}

/// Findings below a title with their count; empty without any.
fn section(title: &str, found: &[&FoundReport]) -> String {
    if found.is_empty() {
        return String::new();
    }
    let pages: String = found.iter().map(|found| found.page()).collect();
    format!("{title}: {}\n\n{pages}", found.len())
}

/// How many findings there are, as the coverage says it.
#[derive(Debug, Clone, Copy)]
struct FindingCount {
    all: usize,
    /// Those in the baseline.
    known: usize,
}

impl fmt::Display for FindingCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} finding(s)", self.all)?;
        if self.known > 0 { write!(f, ", {} of them in the baseline", self.known) } else { Ok(()) }
    }
}

impl HuntDocument {
    /// The hunts behind several profiles, or the only hunt, whose profile is not named.
    pub fn of(mut hunts: Vec<(Option<String>, HuntReport)>) -> Option<HuntDocument> {
        if hunts.len() == 1 {
            return hunts.pop().map(|(_, report)| HuntDocument::One(Box::new(report)));
        }
        let profiles: BTreeMap<String, HuntReport> =
            hunts.into_iter().map(|(profile, report)| (profile.unwrap_or_default(), report)).collect();
        (!profiles.is_empty()).then_some(HuntDocument::Many(ByProfile { schema: SCHEMA, profiles, baseline: None }))
    }

    /// Puts in the baseline of all its hunts.
    pub fn set_baseline(&mut self, baseline: Option<BaselineReport>) {
        match self {
            HuntDocument::One(report) => report.baseline = baseline,
            HuntDocument::Many(many) => many.baseline = baseline,
        }
    }

    fn baseline(&self) -> Option<&BaselineReport> {
        match self {
            HuntDocument::One(report) => report.baseline.as_ref(),
            HuntDocument::Many(many) => many.baseline.as_ref(),
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When it is none, or of another version.
    pub fn parse(text: &str) -> Result<HuntDocument, String> {
        // An enum without a tag would not say which key is wrong.
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match value.get("schema").and_then(serde_json::Value::as_u64) {
            Some(schema) if schema == u64::from(SCHEMA) => {}
            Some(other) => return Err(format!("it has schema {other}, and this command reads schema {SCHEMA}")),
            None => return Err("it has no `schema`".to_owned()),
        }
        let document = match value.get("profiles") {
            Some(_) => serde_json::from_value(value).map(HuntDocument::Many),
            None => serde_json::from_value(value).map(|report| HuntDocument::One(Box::new(report))),
        };
        document.map_err(|error| error.to_string())
    }

    /// The findings and the coverage behind each profile.
    pub fn page(&self) -> String {
        let mut text = String::new();
        for (profile, report) in self.hunts() {
            profile.iter().for_each(|name| text.push_str(&format!("behind {name}:\n\n")));
            text.push_str(&report.page());
        }
        text + &self.baseline().map_or(String::new(), BaselineReport::page)
    }

    /// The document's text.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("names and texts are JSON")
    }

    /// Joins another part of the same campaign, profile by profile.
    ///
    /// # Errors
    /// When it is a part of another campaign, or one that is there already.
    pub fn merge(&mut self, other: HuntDocument) -> Result<(), String> {
        match (self, other) {
            (HuntDocument::One(own), HuntDocument::One(other)) => own.merge(*other),
            (HuntDocument::Many(own), HuntDocument::Many(other)) if own.profiles.keys().eq(other.profiles.keys()) => {
                BaselineReport::merge(&mut own.baseline, other.baseline)?;
                let mut both = own.profiles.values_mut().zip(other.profiles.into_values());
                both.try_for_each(|(own, other)| own.merge(other))?;
                if let Some(baseline) = &mut own.baseline {
                    baseline.count(own.profiles.values().flat_map(HuntReport::are_known));
                }
                Ok(())
            }
            (HuntDocument::One(_) | HuntDocument::Many(_), _) => {
                Err("it belongs to another campaign: the profiles differ".to_owned())
            }
        }
    }

    /// Each hunt, to be changed.
    pub fn reports_mut(&mut self) -> Vec<&mut HuntReport> {
        match self {
            HuntDocument::One(report) => vec![report],
            HuntDocument::Many(many) => many.profiles.values_mut().collect(),
        }
    }

    /// Each hunt with the profile that it was behind, where there are several.
    pub fn hunts(&self) -> Vec<(Option<&str>, &HuntReport)> {
        match self {
            HuntDocument::One(report) => vec![(None, report)],
            HuntDocument::Many(many) => many.profiles.iter().map(|(name, report)| (Some(&**name), report)).collect(),
        }
    }
}

/// Whether two ranges have a seed in common: the first seed of each, and how many it has.
fn overlap((one, count): (u64, u64), (other, count_of_other): (u64, u64)) -> bool {
    other.wrapping_sub(one) < count || one.wrapping_sub(other) < count_of_other
}

/// The coverage with faults at these places.
fn coverage(reached: &Coverage, found: FindingCount, places: &[String]) -> String {
    let Coverage { cases, sessions, classes, faults, states, routes, refusals, endings, code } = reached;
    let connections: u64 = classes.values().sum();
    let classes = classes
        .iter()
        .map(|(class, count)| format!("{class} {count} ({:.1} %)", 100.0 * *count as f64 / connections.max(1) as f64));
    let classes: Vec<String> = classes.collect();
    let mut text = format!(
        "{cases} case(s), {found}; {sessions} upgrades accepted\n{connections} connections in {} ways: {}\n",
        endings.len(),
        classes.join(", ")
    );
    let came: Vec<String> =
        STATES.iter().filter_map(|state| Some(format!("{state} {}", states.get(*state)?))).collect();
    let missed: Vec<&str> = STATES.iter().copied().filter(|state| !states.contains_key(*state)).collect();
    let came = if came.is_empty() { "none of those that are told apart".to_owned() } else { came.join(", ") };
    let _ = writeln!(text, "states     {came}{}", never(&missed));
    if !routes.is_empty() {
        let closed: Vec<&str> = routes.iter().filter(|(_, count)| **count == 0).map(|(name, _)| &**name).collect();
        let open = routes.len() - closed.len();
        let _ = writeln!(text, "routes     {open} of {} served", routes.len());
        closed.into_iter().for_each(|route| text.push_str(&never_served(route, refusals.get(route))));
    }
    text.push_str(&code_reached(code));
    for place in Place::ALL.iter().filter(|place| places.iter().any(|name| name == place.name())) {
        let kinds: Vec<&str> = FaultKind::all().filter(|kind| kind.place == *place).map(|kind| kind.name).collect();
        let acted = kinds.iter().filter_map(|kind| faults.get(*kind)).sum::<u64>();
        let missed: Vec<&str> = kinds.iter().copied().filter(|kind| !faults.contains_key(*kind)).collect();
        let _ = write!(
            text,
            "{:<10} {acted} times a fault acted, {} of {} kinds",
            place.name(),
            kinds.len() - missed.len(),
            kinds.len()
        );
        let _ = writeln!(text, "{}", never(&missed));
    }
    text
}

/// How much of the app's own code was reached, and the lines that no case reached in the functions of each route.
fn code_reached(code: &ReachedCode) -> String {
    if code.is_nothing() {
        return String::new();
    }
    let (reached, all) = code.count();
    let mut text = format!("code       {reached} of {all} blocks of the app's functions reached\n");
    let lacking = code.routes.keys().map(|route| (route, code.missed_lines(route)));
    let lacking: Vec<(&String, Vec<String>)> = lacking.filter(|(_, missed)| !missed.is_empty()).collect();
    for (route, missed) in lacking.iter().take(MISSED_MAX) {
        let lines: Vec<&str> = missed.iter().map(String::as_str).collect();
        let _ = writeln!(text, "           {route}{}", never(&lines));
    }
    if let Some(more @ 1..) = lacking.len().checked_sub(MISSED_MAX) {
        let _ = writeln!(text, "           and {more} more routes with lines that no case reached");
    }
    text
}

/// The names that were never reached, as far as there are not too many.
fn never(missed: &[&str]) -> String {
    if missed.is_empty() {
        return String::new();
    }
    let more = missed.len().saturating_sub(MISSED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("; never {}{more}", missed[..missed.len().min(MISSED_MAX)].join(", "))
}

/// A warning about a route that served no client, with how it mostly answered and what to provide.
fn never_served(route: &str, refusals: Option<&BTreeMap<String, u64>>) -> String {
    let most = refusals.and_then(|refusals| refusals.iter().max_by_key(|(_, count)| **count));
    let Some((ending, _)) = most else { return format!("WARNING `{route}` was not reached\n") };
    let provide = match ending.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["http", "401" | "403" | "407", ..] | ["close", "1008" | "4001" | "4003" | "4401" | "4403", ..] => {
            "a credential in a relapse.toml"
        }
        ["http", "404" | "410", ..] => "a path with values that exist, by `--path`",
        ["http", "400" | "406" | "411" | "413" | "415" | "422" | "426" | "428", ..] => {
            "the query that it needs, by `--path`"
        }
        ["close", "4406", ..] => "the subprotocol that it needs, by a relapse.toml",
        _ => "a request that it serves, by `--path`",
    };
    format!("WARNING `{route}` served no client: mostly {ending}; provide {provide}\n")
}

/// The results of hunts behind fronts.
#[derive(Debug)]
pub struct Hunts {
    /// Each result with its profile.
    pub results: Vec<(Option<String>, HuntResult)>,
    /// The baseline of all of them; `None` without one, and before all are there.
    pub baseline: Option<BaselineReport>,
}

/// The result of a hunt behind one front.
#[derive(Debug)]
pub enum HuntResult {
    /// Of one version, and how long the hunt took, in wall time.
    Alone(Box<HuntReport>, Duration),
    /// Of two versions.
    Compared(Box<ChangeReport>),
}

/// The effect of a change, with where each reproducer was written.
#[derive(Debug)]
pub struct ChangeReport {
    /// The findings of each fate.
    found: BTreeMap<ChangeKind, Vec<FoundReport>>,
    /// The problems with the end of the application from after the change.
    shutdown: BTreeSet<String>,
    /// The coverage of the hunts: before and after.
    reached: [Coverage; 2],
    /// How many findings each of the hunts had.
    counts: [usize; 2],
    /// The places that faults could act at.
    places: Vec<String>,
    conclusion: Conclusion,
    /// Whether both hunts did all their work.
    is_finished: bool,
}

impl ChangeReport {
    /// The effect of a change, seen by the hunt on the version from after, with what both hunts could not do. `kept` says
    /// where the reproducer of each finding was written, and which command shows it again.
    pub fn of(
        hunt: &Hunt,
        change: &Change,
        (shutdown, unfinished): (BTreeSet<String>, &Unfinished),
        kept: impl Fn(&Found, Side) -> (String, String),
    ) -> ChangeReport {
        let mut found: BTreeMap<ChangeKind, Vec<FoundReport>> = ChangeKind::ALL.map(|fate| (fate, Vec::new())).into();
        for (fate, seen, side) in &change.fates {
            found.entry(*fate).or_default().push(FoundReport::of(hunt, seen, kept(seen, *side)));
        }
        ChangeReport {
            found,
            reached: change.reached.clone(),
            counts: [change.findings(Side::Before), change.findings(Side::After)],
            places: hunt.places.iter().map(|place| place.name().to_owned()).collect(),
            conclusion: match unfinished.internal_errors.is_empty() {
                true => change.conclusion(&hunt.places).max(Conclusion::passes_if(shutdown.is_empty())),
                false => Conclusion::Nothing,
            },
            is_finished: unfinished.is_nothing(),
            shutdown,
        }
    }

    fn page(&self) -> String {
        let mut text = String::new();
        for (fate, found) in &self.found {
            if found.is_empty() && matches!(fate, ChangeKind::Changed | ChangeKind::Unclear) {
                continue;
            }
            let _ = writeln!(text, "{}: {}", fate.title(), found.len());
            if !found.is_empty() {
                let pages: String = found.iter().map(FoundReport::page).collect();
                let _ = writeln!(text, "\n{}\n", pages.trim_end());
            }
        }
        for complaint in &self.shutdown {
            let _ = writeln!(text, "shutdown: {complaint}\n");
        }
        for ((when, reached), count) in ["before", "after"].iter().zip(&self.reached).zip(self.counts) {
            let _ = writeln!(
                text,
                "{when}: {}",
                coverage(reached, FindingCount { all: count, known: 0 }, &self.places).trim_end()
            );
        }
        text
    }

    fn document(&self) -> serde_json::Value {
        let [before, after] = &self.reached;
        serde_json::json!({
            "schema": 2, "found": self.found, "shutdown": self.shutdown, "before": before, "after": after
        })
    }
}

impl HuntResult {
    /// Its conclusion.
    pub fn conclusion(&self) -> Conclusion {
        match self {
            HuntResult::Alone(report, _) => report.conclusion(),
            HuntResult::Compared(change) => change.conclusion,
        }
    }

    /// Whether it did all its work.
    pub fn is_finished(&self) -> bool {
        match self {
            HuntResult::Alone(report, _) => report.unfinished.is_nothing(),
            HuntResult::Compared(change) => change.is_finished,
        }
    }
}

impl Hunts {
    /// The findings and the coverage of each hunt, for people.
    pub fn page(&self) -> String {
        let pages = self.results.iter().map(|(_, result)| match result {
            HuntResult::Alone(report, wall) => {
                let rate = report.reached.cases as f64 / wall.as_secs_f64().max(0.001);
                format!("{}{rate:.0} cases/s\n", report.page())
            }
            HuntResult::Compared(change) => change.page(),
        });
        pages.chain(self.baseline.as_ref().map(BaselineReport::page)).collect()
    }

    /// One document for all fronts; empty where there is no result.
    pub fn to_json(&self) -> String {
        let (mut alone, mut compared) = (Vec::new(), Vec::new());
        for (front, result) in &self.results {
            match result {
                HuntResult::Alone(report, _) => alone.push((front.clone(), (**report).clone())),
                HuntResult::Compared(change) => {
                    compared.push((front.clone().unwrap_or_default(), change.document()));
                }
            }
        }
        match compared.as_slice() {
            [] => {
                let mut document = HuntDocument::of(alone);
                document.iter_mut().for_each(|document| document.set_baseline(self.baseline.clone()));
                document.map_or(String::new(), |document| document.to_json())
            }
            [(_, document)] => document.to_string(),
            _ => {
                let profiles: serde_json::Map<String, serde_json::Value> = compared.into_iter().collect();
                serde_json::json!({ "schema": 1, "profiles": profiles }).to_string()
            }
        }
    }
}

/// The figures of a detection.
#[derive(Debug)]
pub struct DetectionFigures<'a> {
    /// The defects.
    pub rows: &'a [Detection<'a>],
    /// How many cases each defect had at most.
    pub limit: u64,
}

impl DetectionFigures<'_> {
    /// One document.
    pub fn to_json(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            serde_json::json!({
                "defect": row.defect,
                "cases": row.found.map(|found| found.number),
                "found_by": row.found.map(|found| found.key.to_string()),
            })
        });
        let rows: Vec<_> = rows.collect();
        serde_json::json!({ "schema": 1, "limit": self.limit, "detections": rows }).to_string()
    }
}

/// One defect, and how the hunt found it.
#[derive(Debug)]
pub struct Detection<'a> {
    /// The defect's name.
    pub defect: &'a str,
    /// The finding; `None` if the hunt's cases do not show the defect.
    pub found: Option<&'a Found>,
}

/// The figures of a detection: for each defect after how many cases it was found, by what, and how small it became.
pub fn render_detection(detections: &[Detection<'_>], most: u64, width: usize) -> String {
    let mut table = plain_table(width);
    table.set_header(["defect", "cases", "faults", "steps", "found by"]);
    for Detection { defect, found } in detections {
        match found {
            Some(found) => table.add_row([
                (*defect).to_owned(),
                found.number.to_string(),
                found.drawn.faults.len().to_string(),
                steps(found).to_string(),
                found.key.to_string(),
            ]),
            None => {
                table.add_row([(*defect).to_owned(), format!("> {most}"), String::new(), String::new(), String::new()])
            }
        };
    }
    let found: Vec<&Found> = detections.iter().filter_map(|detection| detection.found).collect();
    let [within_200, within_2000, within_all] =
        [200, 2000, most].map(|limit| found.iter().filter(|found| found.number <= limit).count());
    let small = found.iter().filter(|found| found.drawn.faults.len() <= 2 && steps(found) <= 4).count();
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    format!(
        "{}\n\n{} of {} defects found; {within_200} within 200 cases, {within_2000} within 2000, {within_all} within {most}; {small} with at most two faults and four steps",
        lines.join("\n"),
        found.len(),
        detections.len(),
    )
}

/// How many steps the smallest case has; the waits for what the steps before them ask for are not counted.
fn steps(found: &Found) -> usize {
    found.drawn.steps().iter().filter(|step| !matches!(step.act, Action::Wait(_))).count()
}
