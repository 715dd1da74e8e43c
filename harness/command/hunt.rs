//! `relapse hunt`: a generated search for failures without a report.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::builtin::{self, conductor::ground, defect::Defect, revision::Revision};
use crate::report::{
    hunt::{Detection, FoundReport, HuntDocument, HuntReport, coverage, render_detection},
    table::render as render_table,
};
use clap::{Args, ValueEnum};
use relapse::{
    Result,
    binding::Binding,
    discover::servers,
    hunt::{Campaign, Change, Fate, Foreign as ForeignPrey, Found, Ground, Hunt, Reached, Reproduction, hunt_all},
    trial::{option, shell},
};
use relapse_core::{
    error::Error,
    fault::Place,
    judge::verdict::{FindingKey, Verdict},
};
use relapse_simulate::clock::{Clock, Runtime};

use super::{
    MISUSE, Moved, complain, complain_of, moved, note, print,
    pytest::Tests,
    replay::{capsule_directory, replay_all},
    run::{Allowance, progress, progress_by_time},
    server,
    target::{
        Foreign, Guesses, Headings, Named, PythonOptions, Way, ask_first, behind_each, profiles_in_front, tell_notes,
        was_asked_to_end,
    },
    width,
};

/// A reproducer that was written.
struct Kept {
    /// Its text. Two versions can have the same finding of the same seed in different reproducers.
    text: String,
    path: String,
}

/// How many cases are drawn unless something else limits the hunt.
const CASES: u64 = 2000;
/// The same, for each defect that is to be detected.
const CASES_PER_DEFECT: u64 = 20_000;
/// The same, on a server of the user's own.
const CASES_ON_A_SERVER: u64 = 200;
/// How many cases a hunt has that ends by the clock.
const CASES_MAX: u64 = 1_000_000_000;

/// The target of a hunt, and its length.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// Target of the hunt: the built-in backend; or a server of yours, `http://`, `https://`, `ws://` or `wss://`, host
    /// and port, where faults act on the way to it only and times are real; or a Python application of yours,
    /// `asgi:package.module:app`, where faults act on scopes and events too and time is virtual.
    #[arg(long, visible_alias = "after", value_name = "backend|URL|asgi:MODULE:APP", default_value = "backend")]
    target: Target,
    /// Hunt on this version of it too, with the same seeds, and tell what the change from it to --target fixed and what it
    /// broke.
    #[arg(long, value_name = "URL|asgi:MODULE:APP", requires = "target", conflicts_with_all = ["detection", "defect", "shard", "merge"])]
    before: Option<Named>,
    #[command(flatten)]
    python: PythonOptions,
    /// The server profile in front of a Python application; may be given more than once, as a glob too, and `all` for all: it
    /// is hunted behind each in turn, and reproducers go into a directory for each.
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    #[command(flatten)]
    foreign: Foreign,
    #[command(flatten)]
    allowance: Allowance,
    /// How many cases are drawn: 2000, or 20000 for each defect with --detection, or 200 on a server of yours, unless --time
    /// ends the hunt.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=CASES_MAX))]
    cases: Option<u64>,
    /// How long to hunt behind each profile, as in `60s` or `5m`; the cases are not the same from machine to machine then.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// The seed of the first case; each further one has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Hunt one part of so many, as in `2/4`: the parts of a campaign have no seed in common, and their JSON documents
    /// merge.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Only faults at these injection points.
    #[arg(long, value_name = "POINT", value_delimiter = ',', value_parser = ["edge", "scope", "event", "dependency", "process"])]
    faults: Vec<String>,
    /// Let servers do only what the ASGI specification allows. It is so anyway on a Python application of yours.
    #[arg(long)]
    legal_only: bool,
    /// Let servers break the ASGI specification in front of a Python application of yours too.
    #[arg(long, conflicts_with = "legal_only")]
    hostile: bool,
    /// Hunt on a service with this defect instead of the repaired one; may be given more than once.
    #[arg(long, value_name = "NAME")]
    defect: Vec<String>,
    /// Hunt on each defect alone, with no hint, until it is found, and print the figures.
    #[arg(long, conflicts_with_all = ["defect", "shard", "time"])]
    detection: bool,
    /// Join the JSON documents of a campaign's parts instead of hunting.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["detection", "defect", "shard", "time", "cases", "seed", "faults", "legal_only", "capsules", "jobs"])]
    merge: Vec<PathBuf>,
    /// Where reproducers are replayed from first and written to: `fixtures/capsules`, or `reproducers` where there is no
    /// `fixtures`. Of what is found on a service with defects none is written unless this is given.
    #[arg(long = "reproducers", value_name = "DIR")]
    capsules: Option<PathBuf>,
    #[arg(long = "capsules", hide = true, value_name = "DIR", value_parser = |_: &str| moved("--reproducers"))]
    _capsules: Option<Moved>,
    /// Write each thing found on a Python application as a test that needs nothing but the application: into this
    /// directory, or this file, `NAME.py`.
    #[arg(long, value_name = "DIR|FILE", conflicts_with = "before")]
    write_pytest: Option<PathBuf>,
    /// How many cases run at a time; as many as there are cores without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// How to print what was found.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Debug, Clone)]
enum Target {
    /// The built-in backend.
    Backend,
    /// A target of the user's own.
    Own(Named),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        if text == "backend" { Ok(Target::Backend) } else { text.parse().map(Target::Own) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Each finding with its conversation.
    Human,
    /// One JSON document.
    Json,
}

/// One part of many, counted from 1.
#[derive(Debug, Clone, Copy)]
struct Shard {
    number: u64,
    of: u64,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let parts = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) && of <= CASES_MAX => Ok(Shard { number, of }),
            _ => Err("write it as in `2/4`: the second of four parts".to_owned()),
        }
    }
}

/// Hunts; the exit code is 1 when something was found, and 2 when nothing was reached.
pub(super) fn hunt(options: &Options) -> Result<u8> {
    if !options.merge.is_empty() {
        return merge(options);
    }
    if let Target::Own(target) = &options.target {
        return hunt_on(options, target);
    }
    if options.before.is_some() {
        complain_of("--before is about something of yours: `--target` names its other version");
        return Ok(MISUSE);
    }
    if options.python.is_out_of_place() {
        return Ok(MISUSE);
    }
    if options.hostile || !options.profile.is_empty() || options.write_pytest.is_some() {
        complain_of(
            "--hostile, --profile and --write-pytest are about a Python application of yours: `--target asgi:module:app` names one",
        );
        return Ok(MISUSE);
    }
    builtin::is_there()?;
    let defects = options.defect.iter().map(|name| defect(name)).collect::<Result<Vec<_>>>()?;
    let cases = match (options.cases, options.time, options.detection) {
        (Some(cases), ..) => cases,
        (None, Some(_), _) => CASES_MAX,
        (None, None, true) => CASES_PER_DEFECT,
        (None, None, false) => CASES,
    };
    let mut hunt = Hunt::on(ground(Revision::of(defects)), servers()?, cases);
    hunt.seed = options.seed;
    hunt.legal_only = options.legal_only;
    if !options.faults.is_empty() {
        hunt.places =
            Place::ALL.into_iter().filter(|place| options.faults.iter().any(|name| name == place.name())).collect();
    }
    if let Some(Shard { number, of }) = options.shard {
        hunt = hunt.shard(number, of);
    }
    let jobs = jobs(options);
    if options.detection {
        return detect(options, &hunt, jobs);
    }
    let is_human = options.format == Format::Human;
    let directory = capsule_directory(options.capsules.as_deref());
    let writes = hunt.ground.defects().is_empty() || options.capsules.is_some();
    let replayed = replay_all(&directory, jobs)?;
    if let Some(report) = &replayed {
        report.broken.iter().for_each(complain);
        let counts = report.counts();
        let (fixed, passed) = (counts[&Verdict::Fixed], counts[&Verdict::Passed]);
        let all = report.trials.len() + report.broken.len();
        if is_human {
            let passed = if passed > 0 { format!(", {passed} PASSED") } else { String::new() };
            print(format!("{all} reproducer(s) replayed, {fixed} FIXED{passed}"));
        }
        if is_human && report.trials.iter().any(|(_, judgement)| !judgement.verdict.passes()) {
            print(render_table(report, width()));
        }
    }
    #[expect(clippy::disallowed_methods, reason = "the command says how long it took")]
    let start = Instant::now();
    let campaign = watched(&hunt, jobs, options.time, start)?;
    let verdicts: Vec<(String, Verdict)> = replayed
        .iter()
        .flat_map(|report| &report.trials)
        .map(|(ran, judgement)| (ran.case().name.clone(), judgement.verdict))
        .collect();
    let code = tell(options, &hunt, &campaign, start, writes.then_some(&directory), &verdicts)?;
    Ok(code.max(replayed.map_or(0, |report| report.exit_code())))
}

/// Keeps what was found where there is a directory for it, and prints everything; the exit code of the hunt.
fn tell(
    options: &Options,
    hunt: &Hunt,
    campaign: &Campaign,
    start: Instant,
    directory: Option<&PathBuf>,
    replayed: &[(String, Verdict)],
) -> Result<u8> {
    let (mut report, _, written) =
        keep_and_report(hunt, campaign, directory, |found, kept| again(options, None, found, kept))?;
    report.replayed = replayed.iter().cloned().collect();
    let code = report.exit_code();
    match options.format {
        Format::Human => print_report(&report, start),
        Format::Json => print(HuntDocument::One(Box::new(report)).to_json()),
    }
    written?;
    Ok(exit_code(code))
}

/// Prints what a hunt found and reached.
fn print_report(report: &HuntReport, start: Instant) {
    print(report.findings() + report.coverage().trim_end());
    print(format!("{:.0} cases/s", report.reached.cases as f64 / start.elapsed().as_secs_f64().max(0.001)));
}

/// Keeps what was found where there is a directory for it, and stops what was hunted on. Gives the report, what was kept,
/// and whether that could be written, which is to be told after what was found.
fn keep_and_report(
    hunt: &Hunt,
    campaign: &Campaign,
    directory: Option<&PathBuf>,
    again: impl Fn(&Found, &[Kept]) -> (String, String),
) -> Result<(HuntReport, Vec<Kept>, Result)> {
    let mut kept = Vec::new();
    let written = directory.map_or(Ok(()), |directory| keep(&campaign.found, directory, &mut kept));
    let mut report = HuntReport::of(hunt, campaign, |found| again(found, &kept));
    report.shutdown = shut_down(hunt)?;
    Ok((report, kept, written))
}

/// Tells an application of the user's to stop; what was wrong with that.
fn shut_down(hunt: &Hunt) -> Result<BTreeSet<String>> {
    hunt.ground.external().map_or(Ok(BTreeSet::new()), |foreign| foreign.shut_down())
}

/// Where something that was found is kept, and the command that shows it again behind the same profile.
fn again(options: &Options, profile: Option<&str>, found: &Found, kept: &[Kept]) -> (String, String) {
    let kept = match found.reproduction {
        Reproduction::Shown => {
            let text = found.capsule.print();
            kept.iter().find(|kept| kept.text == text).map(|kept| kept.path.clone())
        }
        Reproduction::AfterOthers | Reproduction::Unconfirmed | Reproduction::SeenOnce => None,
    };
    let mut arguments = vec!["relapse".to_owned()];
    match (&kept, &options.target) {
        (Some(path), Target::Backend) => arguments.extend(["replay".to_owned(), path.clone()]),
        (Some(path), Target::Own(_)) => arguments.extend(["run".to_owned(), path.clone()]),
        (None, _) => {
            // A finding that needs other cases is found again by all of them.
            let (seed, cases) = match found.reproduction {
                Reproduction::Shown => (found.seed, 1),
                Reproduction::AfterOthers | Reproduction::Unconfirmed | Reproduction::SeenOnce => {
                    (options.seed, found.number)
                }
            };
            let (seed, cases) = (seed.to_string(), cases.to_string());
            arguments.extend(["hunt", "--seed", &seed, "--cases", &cases].map(str::to_owned));
            arguments.extend(aim(options));
        }
    }
    if let Target::Own(target) = &options.target {
        options.before.iter().for_each(|before| arguments.extend(option("--before", before.to_string())));
        arguments.extend(option("--target", target.to_string()));
        let profile = profile.filter(|_| !options.profile.is_empty());
        profile.iter().for_each(|name| arguments.extend(option("--profile", (*name).to_owned())));
        // An interpreter starts with the seed of the whole hunt.
        if kept.is_some() && target.is_python() && options.seed != 1 {
            arguments.extend(option("--seed", options.seed.to_string()));
        }
        let more = [options.allowance.arguments(), options.python.arguments(), options.foreign.arguments()];
        arguments.extend(more.concat());
    }
    (kept.unwrap_or_default(), shell(&arguments))
}

/// The front of one hunt of several, or of the only one.
#[derive(Debug, Clone, Copy)]
struct Behind<'a> {
    /// The profile; `None` of a target whose server is real.
    profile: Option<&'a str>,
    /// Where reproducers are written.
    directory: &'a Path,
}

/// The result of a hunt behind one front.
enum Hunted {
    /// Of one version.
    Alone(Box<HuntReport>),
    /// Of two versions: the document, and the exit code.
    Compared(serde_json::Value, u8),
}

impl Hunted {
    fn exit_code(&self) -> u8 {
        match self {
            Hunted::Alone(report) => report.exit_code(),
            Hunted::Compared(_, code) => *code,
        }
    }
}

/// Hunts on a target of the user's own, behind each profile that is named.
fn hunt_on(options: &Options, target: &Named) -> Result<u8> {
    if options.detection || !options.defect.is_empty() {
        complain_of("--detection and --defect are about the built-in backend");
        return Ok(MISUSE);
    }
    if options.write_pytest.is_some() && (matches!(target, Named::Url(_)) || options.python.is_served()) {
        complain_of("--write-pytest is about a Python application that is run in lockstep: `--target asgi:module:app`");
        return Ok(MISUSE);
    }
    if matches!(target, Named::Url(_)) && options.hostile {
        complain_of("--hostile is about a Python application; a server of yours is what it is");
        return Ok(MISUSE);
    }
    let versions: Vec<&Named> = options.before.iter().chain([target]).collect();
    let is_in_order = |named: &&Named| {
        named.is_comparable(target) && named.is_in_order(&options.python, &options.profile, &options.foreign)
    };
    if !versions.iter().all(is_in_order) {
        return Ok(MISUSE);
    }
    let fronts = profiles_in_front(target, &options.python, &options.profile)?;
    if let (Some(_), [Some(first), _, ..]) = (&options.write_pytest, fronts.as_slice()) {
        complain_of(&format!(
            "--write-pytest writes the events of one server: name one profile with it, as in `--profile {first}`"
        ));
        return Ok(MISUSE);
    }
    options.python.tell_left_out()?;
    let Some((binding, token)) = target.introduced(&options.foreign)? else { return Ok(MISUSE) };
    let directory = options.capsules.clone().unwrap_or_else(|| PathBuf::from("reproducers"));
    let headings = if options.format == Format::Human { Headings::Printed } else { Headings::Omitted };
    let (code, hunts) = behind_each(&fronts, headings, |front| {
        let own = front.filter(|_| fronts.len() > 1).map(|name| directory.join(name));
        let behind = Behind { profile: front, directory: own.as_deref().unwrap_or(&directory) };
        let hunted = hunt_behind(options, &versions, behind, &binding, &token)?;
        Ok((hunted.as_ref().map_or(MISUSE, |hunted| exit_code(hunted.exit_code())), hunted))
    })?;
    if options.format == Format::Json {
        print_documents(hunts);
    }
    Ok(code)
}

/// Prints one document for all fronts.
fn print_documents(hunts: Vec<(Option<String>, Hunted)>) {
    let (mut alone, mut compared) = (Vec::new(), Vec::new());
    for (front, hunted) in hunts {
        match hunted {
            Hunted::Alone(report) => alone.push((front, *report)),
            Hunted::Compared(document, _) => compared.push((front.unwrap_or_default(), document)),
        }
    }
    match compared.as_slice() {
        [] => {
            HuntDocument::of(alone).iter().for_each(|document| print(document.to_json()));
        }
        [(_, document)] => print(document),
        _ => {
            let profiles: serde_json::Map<String, serde_json::Value> = compared.into_iter().collect();
            print(serde_json::json!({ "schema": 1, "profiles": profiles }));
        }
    }
}

/// Hunts behind one front, and prints the result for people; `None` where there can be no hunt, which is complained of.
fn hunt_behind(
    options: &Options,
    versions: &[&Named],
    behind: Behind<'_>,
    binding: &Binding,
    token: &str,
) -> Result<Option<Hunted>> {
    #[expect(clippy::disallowed_methods, reason = "the command says how long it took")]
    let start = Instant::now();
    let mut hunted = Vec::new();
    for named in versions {
        let Some(mut hunt) = hunt_for(options, named, behind.profile, binding, token)? else { return Ok(None) };
        // The second version gets as many cases as the time allowed on the first.
        let time = options.time.filter(|_| hunted.is_empty());
        if let Some((_, first)) = hunted.last() {
            let first: &Campaign = first;
            hunt.cases = first.reached.cases;
        }
        let campaign = watched(&hunt, jobs(options), time, start)?;
        tell_notes(hunt.ground.external().into_iter().flat_map(|prey| prey.notes()));
        hunted.push((hunt, campaign));
    }
    let Some((hunt, campaign)) = hunted.pop() else { unreachable!("one version is there") };
    let again = |found: &Found, kept: &[Kept]| again(options, behind.profile, found, kept);
    let directory = behind.directory.to_owned();
    if let Some((old, before)) = hunted.pop() {
        for line in
            [&before, &campaign].map(|campaign| campaign.unfinished.line()).iter().filter(|line| !line.is_empty())
        {
            note(line.trim_end());
        }
        let progress = progress(before.found.len() + campaign.found.len(), "findings tried on both");
        let change = Change::between((&old, before), (&hunt, campaign), || progress.inc(1))?;
        progress.finish_and_clear();
        // The end of the old version is in the past.
        shut_down(&old)?;
        return tell_change(options, &hunt, &change, &directory, again).map(Some);
    }
    let (report, kept, written) = keep_and_report(&hunt, &campaign, Some(&directory), again)?;
    if options.format == Format::Human {
        print_report(&report, start);
    }
    let site = versions.last().and_then(|target| target.site(&options.python).transpose()).transpose()?;
    if let (Some(path), Some(site)) = (&options.write_pytest, site) {
        let profile = match behind.profile {
            Some(name) => server(name)?,
            None => servers()?.swap_remove(0),
        };
        let tests = Tests { path, site, binding, token, profile: &profile };
        tests.write(&campaign.found, |found| again(found, &kept))?;
    }
    // The findings are printed before the error that they could not be kept.
    if let Err(error) = written {
        if options.format == Format::Json {
            print_documents(vec![(None, Hunted::Alone(Box::new(report)))]);
        }
        return Err(error);
    }
    Ok(Some(Hunted::Alone(Box::new(report))))
}

/// Tells the effect of a change.
fn tell_change(
    options: &Options,
    hunt: &Hunt,
    change: &Change,
    directory: &Path,
    again: impl Fn(&Found, &[Kept]) -> (String, String),
) -> Result<Hunted> {
    let mut kept = Vec::new();
    let written = keep(change.fates.iter().map(|(_, found, _)| found), directory, &mut kept);
    let pages = |fate: Fate| {
        let of_fate = change.fates.iter().filter(move |(other, ..)| *other == fate);
        of_fate.map(|(_, found, _)| FoundReport::of(hunt, found, again(found, &kept))).collect::<Vec<_>>()
    };
    let places: Vec<String> = hunt.places.iter().map(|place| place.name().to_owned()).collect();
    let shutdown = shut_down(hunt)?;
    if options.format == Format::Human {
        for fate in Fate::ALL {
            let pages = pages(fate);
            if pages.is_empty() && matches!(fate, Fate::Changed | Fate::Unclear) {
                continue;
            }
            print(format!("{}: {}", fate.title(), pages.len()));
            if !pages.is_empty() {
                print(format!("\n{}", pages.iter().map(FoundReport::page).collect::<String>().trim_end()));
                print("");
            }
        }
        shutdown.iter().for_each(|complaint| print(format!("shutdown: {complaint}\n")));
        for (when, reached) in ["before", "after"].iter().zip(&change.reached) {
            let found = change.fates.iter().filter(|(.., on_after)| *on_after == (*when == "after")).count();
            print(format!("{when}: {}", coverage(reached, found, &places).trim_end()));
        }
    }
    let fates: BTreeMap<Fate, Vec<FoundReport>> = Fate::ALL.into_iter().map(|fate| (fate, pages(fate))).collect();
    let [before, after] = &change.reached;
    let document =
        serde_json::json!({ "schema": 2, "found": fates, "shutdown": shutdown, "before": before, "after": after });
    if written.is_err() && options.format == Format::Json {
        print(&document);
    }
    written?;
    let code = change.exit_code(!hunt.places.is_empty()).max(u8::from(!shutdown.is_empty()));
    Ok(Hunted::Compared(document, code))
}

/// Everything that says how versions are reached.
fn way<'a>(options: &'a Options, profile: Option<&'a str>) -> Way<'a> {
    let (allowance, python) = (&options.allowance, &options.python);
    Way { allowance, python, profile, guesses: Guesses::Checked, seed: options.seed }
}

/// A hunt on a target of the user's own; complains if it is not possible.
fn hunt_for(
    options: &Options,
    target: &Named,
    profile: Option<&str>,
    binding: &Binding,
    token: &str,
) -> Result<Option<Hunt>> {
    let (way, clock) = (way(options, profile), target.clock(&options.python));
    let runtime = Runtime::new(clock);
    let server = target.reach(&runtime, way, binding, token)?;
    let places = server.target.capabilities().places;
    if let Some(place) = options.faults.iter().find(|place| !places.iter().any(|known| known.name() == *place)) {
        let known: Vec<&str> = places.iter().map(|place| place.name()).collect();
        complain_of(&format!("no fault can act at the {place} of this target; at the {} one can", known.join(", ")));
        return Ok(None);
    }
    let usual = if clock == Clock::Real { CASES_ON_A_SERVER } else { CASES };
    let cases = options.cases.unwrap_or(if options.time.is_some() { CASES_MAX } else { usual });
    let once_more = target.once_more(way, binding, token)?;
    let mut prey = ForeignPrey::new(server, binding.clone(), runtime);
    if let Some(once_more) = once_more {
        prey = prey.for_many(once_more);
    }
    if let Err(why) = prey.greet(options.seed) {
        complain_of(&format!("a hunt would prove nothing: {why}"));
        return Ok(None);
    }
    let mut hunt = Hunt::on(Ground::External(Arc::new(prey)), servers()?, cases);
    // Without --hostile, use only faults that a conforming server can produce.
    hunt.legal_only = !options.hostile;
    hunt.places.retain(|place| options.faults.is_empty() || options.faults.iter().any(|name| name == place.name()));
    hunt.seed = options.seed;
    if let Some(Shard { number, of }) = options.shard {
        hunt = hunt.shard(number, of);
    }
    Ok(Some(hunt))
}

/// How many workers hunt.
fn jobs(options: &Options) -> usize {
    options.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
}

/// The exit code of a hunt; one that reached nothing says so.
fn exit_code(code: u8) -> u8 {
    if code == MISUSE {
        complain_of("the hunt proves nothing: no upgrade was accepted, or no fault acted; let it have more cases");
    }
    code
}

/// The arguments that decide what a seed draws, and on which revision.
fn aim(options: &Options) -> Vec<String> {
    let mut aim: Vec<String> = options.defect.iter().flat_map(|name| option("--defect", name.clone())).collect();
    if !options.faults.is_empty() {
        aim.extend(option("--faults", options.faults.join(",")));
    }
    let switches = [("--legal-only", options.legal_only), ("--hostile", options.hostile)];
    aim.extend(switches.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned()));
    aim
}

/// Hunts with a bar that says what is reached.
fn watched(hunt: &Hunt, jobs: usize, time: Option<Duration>, start: Instant) -> Result<Campaign> {
    let progress = match time {
        None => progress(usize::try_from(hunt.cases).unwrap_or(usize::MAX), "cases"),
        Some(_) => progress_by_time("cases"),
    };
    let so_far: Mutex<(Reached, BTreeSet<FindingKey>)> = Mutex::default();
    let watch = |reached: &Reached, complaints: &BTreeSet<FindingKey>| {
        let mut so_far = so_far.lock().unwrap_or_else(PoisonError::into_inner);
        so_far.0.add(reached);
        so_far.1.extend(complaints.iter().cloned());
        let (classes, kinds, complaints) = (so_far.0.classes.len(), so_far.0.faults.len(), so_far.1.len());
        progress.inc(reached.cases);
        let rate = so_far.0.cases as f64 / start.elapsed().as_secs_f64().max(0.001);
        let message = format!("{rate:.0}/s; {classes} classes, {kinds} kinds of fault, {complaints} finding(s)");
        progress.set_message(message);
        time.is_none_or(|time| start.elapsed() < time) && !was_asked_to_end()
    };
    ask_first("what was found so far is shrunk and told; once more ends everything");
    let campaign = hunt_all(hunt, jobs, &watch)?;
    progress.finish_and_clear();
    Ok(campaign)
}

/// Writes the reproducer of each finding that its case shows again, and adds it to `kept`. A case that shows nothing would
/// read FIXED of what is not.
fn keep<'a>(found: impl IntoIterator<Item = &'a Found>, directory: &Path, kept: &mut Vec<Kept>) -> Result {
    for found in found.into_iter().filter(|found| found.reproduction == Reproduction::Shown) {
        // Two findings of one seed may have names that begin alike.
        let names = std::iter::once(found.capsule.name.clone())
            .chain((2..).map(|number| format!("{}_{number}", found.capsule.name)));
        let is_free = |name: &String| {
            let path = directory.join(format!("{name}.toml")).display().to_string();
            !kept.iter().any(|kept| kept.path == path)
        };
        let name = names.into_iter().find(is_free).unwrap_or_default();
        let path = write(found, directory, &name)?;
        kept.push(Kept { text: found.capsule.print(), path });
    }
    Ok(())
}

/// Writes one reproducer; gives its path.
fn write(found: &Found, directory: &Path, name: &str) -> Result<String> {
    let path = directory.join(format!("{name}.toml"));
    let failed = |source| Error::Io { doing: "write", path: path.clone(), source };
    fs::create_dir_all(directory).map_err(failed)?;
    fs::write(&path, found.capsule.print()).map_err(failed)?;
    Ok(path.display().to_string())
}

/// Hunts on each defect alone; the exit code is 1 when one is not found.
fn detect(options: &Options, hunt: &Hunt, jobs: usize) -> Result<u8> {
    let progress = progress(Defect::ALL.len(), "defects");
    let next = Mutex::new(Defect::ALL.iter().copied().enumerate());
    let worker = || {
        let mut detected = Vec::new();
        loop {
            let taken = next.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, defect)) = taken else { return Ok(detected) };
            detected.push((index, defect, Hunt { ground: ground(Revision::only(defect)), ..hunt.clone() }.first()?));
            progress.inc(1);
        }
    };
    let parts: Vec<Result<Vec<_>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    progress.finish_and_clear();
    let mut detected: Vec<_> = parts.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    detected.sort_by_key(|(index, ..)| *index);
    if let Some(directory) = &options.capsules {
        for (_, defect, found) in &detected {
            if let Some(found) = found {
                write(found, directory, defect.name())?;
            }
        }
    }
    let detections: Vec<Detection<'_>> =
        detected.iter().map(|(_, defect, found)| Detection { defect: defect.name(), found: found.as_ref() }).collect();
    match options.format {
        Format::Human => print(render_detection(&detections, hunt.cases, width())),
        Format::Json => {
            let rows: Vec<_> = detections
                .iter()
                .map(|row| serde_json::json!({ "defect": row.defect, "cases": row.found.map(|found| found.number), "found_by": row.found.map(|found| found.key.to_string()) }))
                .collect();
            print(serde_json::json!({ "schema": 1, "limit": hunt.cases, "detections": rows }));
        }
    }
    Ok(u8::from(detected.iter().any(|(.., found)| found.is_none())))
}

/// Joins the documents of a campaign's parts.
fn merge(options: &Options) -> Result<u8> {
    let mut whole: Option<HuntDocument> = None;
    for path in &options.merge {
        let failed = |source| Error::Io { doing: "read", path: path.clone(), source };
        let text = fs::read_to_string(path).map_err(failed)?;
        let part = HuntDocument::parse(&text).map_err(|why| failed(std::io::Error::other(why)))?;
        match &mut whole {
            None => whole = Some(part),
            Some(whole) => whole.merge(part).map_err(|why| failed(std::io::Error::other(why)))?,
        }
    }
    let document = whole.expect("there is at least one file");
    match options.format {
        Format::Human => {
            for (profile, report) in document.hunts() {
                profile.iter().for_each(|name| print(format!("behind {name}:\n")));
                print(report.findings() + report.coverage().trim_end());
            }
        }
        Format::Json => print(document.to_json()),
    }
    let codes = document.hunts().into_iter().map(|(_, report)| exit_code(report.exit_code()));
    Ok(codes.max().unwrap_or(MISUSE))
}

fn defect(name: &str) -> Result<Defect> {
    let found = Defect::ALL.iter().copied().find(|defect| defect.name() == name);
    found.ok_or_else(|| Error::unknown("defect", name, Defect::ALL.iter().map(|defect| defect.name())))
}
