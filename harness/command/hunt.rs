//! `relapse hunt`: scripts and faults that nobody reported.

use std::time::Instant;

use clap::{Args, ValueEnum};
use relapse::{Campaign, Defect, Detail, Error, Hunt, Place, Result, Revision, hunt_all, sequence_lines, servers};

use super::{MISUSE, print, run::progress};

/// What is hunted, and how long.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// How many cases are drawn.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    cases: u64,
    /// The seed of the first case; each further one has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Hunt on a service with this defect instead of the repaired one; may be given more than once.
    #[arg(long, value_name = "NAME")]
    defect: Vec<String>,
    /// How many cases run at a time; as many as there are cores without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// How to print what was found.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Each finding with its conversation.
    Human,
    /// One JSON document.
    Json,
}

/// Hunts; the exit code is 1 when something was found, and 2 when nothing was reached.
pub(super) fn hunt(options: &Options) -> Result<u8> {
    #[expect(clippy::disallowed_methods, reason = "the command says how long it took")]
    let start = Instant::now();
    let defects = options.defect.iter().map(|name| defect(name)).collect::<Result<Vec<_>>>()?;
    let revision = Revision::of(defects);
    let hunt = Hunt {
        revision,
        servers: servers()?,
        seed: options.seed,
        cases: options.cases,
        stops_at_first: false,
        places: Place::ALL.to_vec(),
        legal_only: false,
    };
    let jobs = options.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let progress = progress(usize::try_from(options.cases).unwrap_or(usize::MAX), "cases");
    let campaign = hunt_all(&hunt, jobs, &|| progress.inc(1))?;
    progress.finish_and_clear();
    match options.format {
        Format::Human => {
            for found in &campaign.found {
                print(format!("{}  {}", found.key, found.message));
                for (key, message) in &found.also {
                    print(format!("  {key}  {message}"));
                }
                let server = &hunt.servers[found.drawn.server].name;
                let crowd = found.drawn.crowd;
                let many = if crowd.clients() * crowd.rounds > 1 {
                    format!(
                        "; {} user(s) on {} connection(s) each, {} time(s)",
                        crowd.users, crowd.connections, crowd.rounds
                    )
                } else {
                    String::new()
                };
                print(format!("behind {server} in {}{many}, shrunk from seed {}", found.drawn.environment, found.seed));
                for line in sequence_lines(&found.transcript, Detail::Conversation) {
                    print(format!("  {}", line.text));
                }
                let defects: String = options.defect.iter().map(|name| format!(" --defect {name}")).collect();
                print(format!("again: relapse hunt --seed {} --cases 1{defects}\n", found.seed));
            }
            let seconds = start.elapsed().as_secs_f64();
            print(summary(&campaign, seconds));
        }
        Format::Json => print(json(&campaign)),
    }
    Ok(match (campaign.found.is_empty(), campaign.reached_anything() || options.cases < ENOUGH) {
        (false, _) => 1,
        (true, true) => 0,
        (true, false) => MISUSE,
    })
}

/// From how many cases on a hunt must have reached something.
const ENOUGH: u64 = 20;

fn defect(name: &str) -> Result<Defect> {
    let found = Defect::ALL.iter().copied().find(|defect| defect.name() == name);
    found.ok_or_else(|| Error::unknown("defect", name, Defect::ALL.iter().map(|defect| defect.name())))
}

fn summary(campaign: &Campaign, seconds: f64) -> String {
    let classes: Vec<String> = campaign.classes.iter().map(|(class, count)| format!("{count} {class}")).collect();
    let faults: Vec<String> = campaign
        .faults
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    format!(
        "{} case(s), {} finding(s), {:.0} cases/s\n{} upgrades accepted; connections: {}\nfaults acted: {}",
        campaign.cases,
        campaign.found.len(),
        campaign.cases as f64 / seconds.max(0.001),
        campaign.sessions,
        classes.join(", "),
        if faults.is_empty() { "none".to_owned() } else { faults.join(", ") },
    )
}

fn json(campaign: &Campaign) -> String {
    let found: Vec<_> = campaign
        .found
        .iter()
        .map(|found| {
            let lines = sequence_lines(&found.transcript, Detail::Conversation);
            let conversation: Vec<String> = lines.into_iter().map(|line| line.text).collect();
            serde_json::json!({
                "key": found.key,
                "message": found.message,
                "also": found.also.iter().map(|(key, _)| key).collect::<Vec<_>>(),
                "seed": found.seed,
                "environment": found.drawn.environment.name(),
                "faults": found.drawn.faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "conversation": conversation,
            })
        })
        .collect();
    let classes: serde_json::Map<_, _> =
        campaign.classes.iter().map(|(class, count)| (class.name().to_owned(), (*count).into())).collect();
    let document = serde_json::json!({
        "schema": 1,
        "cases": campaign.cases,
        "sessions": campaign.sessions,
        "classes": classes,
        "faults": campaign.faults,
        "found": found,
    });
    serde_json::to_string_pretty(&document).expect("names and texts are JSON")
}
