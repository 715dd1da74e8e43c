//! Measures how a real server treats an application, row by row, as a profile has it.

mod limits;
mod rows;
mod seen;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    process::{
        BLOCKED_LIMIT, CodeCoverage, Epoch, Installation, LifespanMode, MEMORY_LIMIT, START_LIMIT, Server,
        ServerChoice, Site, version, versions,
    },
    served::Served,
};
use relapse::{
    client::{self, Script},
    deadline::Deadline,
    service_file::ServiceFile,
};
use relapse_core::{
    client::{
        credential::Credential,
        step::{Action, Awaited, ClientStrictness, Request, Step},
    },
    error::{AppError, Blame, Error},
    fault::Fault,
    plan::Plan,
    record::transcript::Transcript,
};
use relapse_simulate::{
    clock::Clock,
    profile::{LimitRule, Profile, ProfileRow},
    recorder::Recorder,
};

/// An application that behaves as it is told.
const APPLICATION: &str = include_str!("../../../../fixtures/apps/measured.py");

/// How long anything is waited for. Daphne looks once a second whether its applications have failed, and gives up after 5 s
/// on those that accept nothing.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long an application that stays may take to come so far.
const STAYING: Duration = Duration::from_millis(500);
/// How often it is looked whether an application's call is over.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The measurement of a server.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// The server as `--server` takes it, with its version.
    pub choice: String,
    /// The server, with the versions of what decides how it behaves.
    pub server: String,
    /// Python's version.
    pub python: String,
    /// The value of each row, by section and key; nothing where the file would leave it out. What is not here was not
    /// measured.
    pub rows: BTreeMap<(&'static str, &'static str), Option<String>>,
    /// The `Server` header.
    pub server_header: String,
}

impl Measurement {
    /// The rows in which a profile says something else: what it says, and what was measured.
    pub fn differences(&self, profile: &Profile) -> Vec<String> {
        let mut differences = Vec::new();
        if self.server_header != profile.server_header {
            let (known, measured) = (&profile.server_header, &self.server_header);
            differences.push(format!("server_header: {known:?} is measured as {measured:?}"));
        }
        for row in profile.rows() {
            let measured = self.rows.get(&(row.section, row.key));
            if let Some(measured) = measured.filter(|measured| !is_as_known(&row, measured)) {
                let [known, measured] = [&row.value, measured].map(|value| value.as_deref().unwrap_or("nothing"));
                differences.push(format!("{}: {known} is measured as {measured}", row.name()));
            }
        }
        differences
    }

    /// The names of the rows that were not measured.
    pub fn unmeasured(&self, like: &Profile) -> Vec<String> {
        let mut rows = like.rows();
        rows.retain(|row| !self.rows.contains_key(&(row.section, row.key)));
        rows.iter().map(ProfileRow::name).collect()
    }

    /// A profile's file. What was not measured is kept from what is known of that server, or left to be filled in; `like`
    /// is any profile.
    pub fn print(&self, name: &str, date: &str, known: Option<&Profile>, like: &Profile) -> String {
        let kept = known.map(Profile::rows);
        let mut rows = Vec::new();
        for (at, row) in like.rows().into_iter().enumerate() {
            rows.push(match (self.rows.get(&(row.section, row.key)), &kept) {
                (Some(value), Some(kept)) if is_as_known(&kept[at], value) => (kept[at].clone(), true),
                (Some(value), _) => (ProfileRow { value: value.clone(), ..row }, true),
                (None, Some(kept)) => (kept[at].clone(), true),
                (None, None) => (row, false),
            });
        }
        let unseen = self.unmeasured(like);
        let again = known.filter(|known| known.name == name);
        let kept = match known {
            _ if unseen.is_empty() || again.is_some() => String::new(),
            Some(known) => format!("; kept from {}: {}", known.name, unseen.join(", ")),
            None => format!("; not measured: {}", unseen.join(", ")),
        };
        let source = format!("measured {date} on loopback, CPython {}{kept}", self.python);
        let mut head: Vec<(&str, toml::Value)> = vec![
            ("name", name.into()),
            ("choice", self.choice.as_str().into()),
            ("server", self.server.as_str().into()),
            ("source", source.into()),
            ("server_header", self.server_header.as_str().into()),
        ];
        head.extend(again.and_then(|known| known.order).map(|order| ("order", i64::from(order).into())));
        // A new profile fails like the one of its version until a case says otherwise.
        let fails_like = known.and_then(|known| match again {
            Some(again) => again.fails_like.clone(),
            None => Some(known.name.clone()),
        });
        head.extend(fails_like.map(|like| ("fails_like", like.into())));
        if again.is_some() && !unseen.is_empty() {
            head.push(("unseen", unseen.into()));
        }
        Profile::print(&head, "Written by `relapse profile measure`.", &rows)
    }
}

/// The times that are measured as they come, and how many of their units are a second.
const TIMES: [(&str, &str, i64); 4] = [
    ("lifespan", "startup_timeout_s", 1),
    ("before_accept", "time_limit_s", 1),
    ("keepalive", "ping_interval_ms", 1000),
    ("keepalive", "pong_timeout_ms", 1000),
];
/// How far such a time may come from what the server was told: daphne looks every 2 s, and hypercorn takes some to end.
const TIME_TOLERANCE_S: i64 = 5;

/// Whether two limits on whole heads may be the same. Servers look at a head after each read, so that reads decide how much
/// more than its limit comes in: up to half of it.
fn is_limit_near(known: &Option<String>, measured: &Option<String>) -> bool {
    let rule = |value: &Option<String>| LimitRule::parse(value.as_ref()?);
    rule(known).zip(rule(measured)).is_some_and(|(known, measured)| {
        let is_near = known.most.abs_diff(measured.most) <= known.most / 2;
        is_near && LimitRule { most: known.most, ..measured } == known
    })
}

/// Whether a row is measured as it is known.
fn is_as_known(known: &ProfileRow, measured: &Option<String>) -> bool {
    let time = TIMES.iter().find(|(section, key, _)| (*section, *key) == (known.section, known.key));
    let times = positive(&known.value).zip(positive(measured)).zip(time);
    let is_near =
        times.is_some_and(|((known, measured), (.., unit))| (known - measured).abs() <= TIME_TOLERANCE_S * unit);
    let is_of_head = (known.section, known.key) == ("limits", "head");
    is_near || (is_of_head && is_limit_near(&known.value, measured)) || known.value == *measured
}

fn positive(value: &Option<String>) -> Option<i64> {
    value.as_ref()?.parse().ok().filter(|number| *number > 0)
}

/// Measures a server that an interpreter has. The clock is real, and it takes about half a minute; with what is slow 75 s
/// more.
///
/// # Errors
/// When the server does not start, or does not serve.
pub async fn measure(choice: &ServerChoice, python: &Path, slow: Slow) -> Result<Measurement, Error> {
    let bench = Bench::set_up(choice, python).map_err(|error| AppError {
        message: format!("no temporary files can be written: {error}"),
        details: String::new(),
        blame: Blame::Setup,
    })?;
    let found = versions(python, choice.software.decisive())?;
    let named = found.iter().filter_map(|(name, version)| Some(format!("{name} {}", version.as_ref()?)));
    let implementation = choice.implementation.as_ref().map(|name| format!("implementation {name}"));
    let server = named.chain(implementation).collect::<Vec<_>>().join(", ");
    let python_version = version(python)?;
    let mut measured = rows::all(&bench).await?;
    if slow == Slow::Watched {
        measured.rows.extend(rows::slow(&bench).await?.rows);
    }
    let server_header = measured.server_header;
    let own = found.iter().find(|(name, _)| *name == choice.software.name()).and_then(|(_, version)| version.clone());
    let choice = ServerChoice { version: own.or_else(|| choice.version.clone()), ..choice.clone() }.to_string();
    Ok(Measurement { choice, server, python: python_version, rows: measured.rows, server_header })
}

/// Whether a server is watched for as long as it takes to see what it does of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slow {
    /// For 75 s.
    Watched,
    /// It is not.
    LeftOut,
}

/// Where servers are measured.
struct Bench {
    choice: ServerChoice,
    python: PathBuf,
    directory: TempDir,
}

impl Bench {
    fn set_up(choice: &ServerChoice, python: &Path) -> std::io::Result<Bench> {
        let directory = tempfile::Builder::new().prefix("relapse-measured-").tempdir()?;
        std::fs::write(directory.path().join("measured.py"), APPLICATION)?;
        Ok(Bench { choice: choice.clone(), python: python.to_owned(), directory })
    }

    /// Starts the server.
    async fn start(&self, flags: &[&str]) -> Result<RunningServer, Error> {
        self.start_with(flags, &[], START_LIMIT).await
    }

    /// Starts it in this environment, within this time.
    async fn start_with(
        &self,
        flags: &[&str],
        environment: &[(&str, &str)],
        start_limit: Duration,
    ) -> Result<RunningServer, Error> {
        let site = Site {
            app: "measured:app".to_owned(),
            factory: false,
            python: self.python.clone(),
            directory: self.directory.path().to_owned(),
            environment: environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            blocked_limit: BLOCKED_LIMIT,
            clock: Clock::Real,
            fresh: false,
            memory_limit: MEMORY_LIMIT,
            start_limit,
            deadline: Deadline::NEVER,
            lifespan: LifespanMode::Auto,
            epoch: Epoch::Fixed,
            coverage: CodeCoverage::None,
        };
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let installation = Installation { site, server: self.choice.clone(), flags, start_limit };
        let server = Server::run(installation).await?;
        Ok(RunningServer { served: Served::new(server, &ServiceFile::default(), String::new()) })
    }
}

/// A server that runs, with what behaves as it is told.
struct RunningServer {
    served: Served,
}

/// A client's script on the server.
#[derive(Debug, Clone)]
struct Scene {
    /// The request, and whether it asks for a WebSocket.
    opening: Action,
    /// Its acts once the opening is answered.
    then: Vec<Action>,
    /// The faults on its way.
    faults: Vec<Fault>,
}

impl Scene {
    /// A client that opens a WebSocket on an application with these acts, and waits.
    fn socket(path: &str) -> Scene {
        Scene::opened(path, vec![Action::Wait(Awaited::Close)])
    }

    /// A client that opens a WebSocket, and does something.
    fn opened(path: &str, then: Vec<Action>) -> Scene {
        Scene { opening: Action::Open(request(&format!("/ws{path}"))), then, faults: Vec::new() }
    }

    /// A plain request.
    fn plain(path: &str) -> Scene {
        Scene { opening: Action::Request(request(path)), then: Vec::new(), faults: Vec::new() }
    }

    /// The same, with these faults on the way.
    fn under(self, faults: Vec<Fault>) -> Scene {
        Scene { faults, ..self }
    }
}

fn request(path: &str) -> Request {
    Request { credential: Credential::None, client: ClientStrictness::Library, ..Request::standard("GET", path) }
}

impl RunningServer {
    fn server(&self) -> &Server {
        self.served.server()
    }

    /// Performs a scene; what was seen and told of it.
    async fn perform(&self, scene: &Scene) -> Result<Transcript, Error> {
        self.perform_within(scene, PATIENCE).await
    }

    /// Performs a scene whose steps may take this long.
    async fn perform_within(&self, scene: &Scene, limit: Duration) -> Result<Transcript, Error> {
        let steps: Vec<Step> = std::iter::once(&scene.opening)
            .chain(&scene.then)
            .map(|act: &Action| Step::new(act.clone(), limit))
            .collect();
        let recorder = Recorder::new(Plan { seed: 1, faults: scene.faults.clone() });
        client::perform(Script::of_one(&steps), &recorder, &self.served).await?;
        let stays = scene.opening.request().is_some_and(|request| request.path.ends_with(b"/stay"));
        Ok(self.close(&recorder, if stays { STAYING } else { PATIENCE }).await)
    }

    /// The transcript once the application's call is over, or when this much time has passed.
    async fn close(&self, recorder: &Recorder, patience: Duration) -> Transcript {
        let end = Instant::now() + patience;
        self.server().running();
        while recorder.is_application_running() && Instant::now() < end {
            sleep(LOOK_AGAIN).await;
            self.server().running();
        }
        recorder.transcript()
    }

    /// Performs scenes at the same time.
    async fn each<const N: usize>(&self, scenes: [Scene; N]) -> Result<[Transcript; N], Error> {
        let performed = join_all(scenes.iter().map(|scene| self.perform(scene))).await;
        let transcripts: Vec<Transcript> = performed.into_iter().collect::<Result<_, Error>>()?;
        Ok(transcripts.try_into().expect("there are as many as there were scenes"))
    }
}

#[cfg(test)]
mod tests {
    use super::{ProfileRow, is_as_known};

    fn known(key: &'static str, value: &str) -> ProfileRow {
        ProfileRow { section: "keepalive", key, value: Some(value.to_owned()) }
    }

    #[test]
    fn a_limit_on_heads_is_measured_as_near_as_reads_cut_it() {
        let limit = |most: usize| format!("{{ on = \"any\", most = {most}, over = {{ answer = \"drop\" }} }}");
        let known = ProfileRow { section: "limits", key: "head", value: Some(limit(131_072)) };
        assert!(is_as_known(&known, &Some(limit(127_973))));
        assert!(!is_as_known(&known, &Some(limit(65_535))));
        assert!(!is_as_known(&known, &Some(limit(127_973).replace("drop", "hang"))));
        assert!(!is_as_known(&known, &None));
        let line = ProfileRow { section: "limits", key: "line", value: Some(limit(8192)) };
        assert!(!is_as_known(&line, &Some(limit(8191))));
    }

    #[test]
    fn a_time_is_measured_as_near_as_a_server_keeps_it() {
        let interval = known("ping_interval_ms", "20000");
        for (measured, expected) in [("20000", true), ("22000", true), ("26000", false), ("0", false)] {
            assert_eq!(is_as_known(&interval, &Some(measured.to_owned())), expected, "{measured}");
        }
        assert!(!is_as_known(&interval, &None));
        assert!(!is_as_known(&known("application_sees", "1005"), &Some("1006".to_owned())));
    }
}
