//! Measures how a real server treats an application, row by row, as a profile has it.

mod rows;
mod seen;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    binding::Binding,
    clock::Clock,
    credential::Credential,
    error::{Error, Trouble},
    fault::Fault,
    plan::Plan,
    probe::{self, Script},
    profile::{Profile, Row},
    python::{BLOCKED_LIMIT, Installation, MEMORY_LIMIT, START_LIMIT, Server, ServerChoice, Site, version, versions},
    recorder::Recorder,
    step::{Act, Awaited, Client, Request, Step},
    target::Served,
    transcript::Transcript,
};

/// What behaves as it is told.
const APPLICATION: &str = include_str!("../../fixtures/apps/measured.py");

/// How long anything is waited for. Daphne looks once a second whether its applications have failed, and gives up after 5 s
/// on those that accept nothing.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long an application that stays may take to come so far.
const STAYING: Duration = Duration::from_millis(500);
/// How often it is looked whether an application's call is over.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What was measured of a server.
#[derive(Debug, Clone)]
pub struct Measurement {
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
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        let differs = |row: &Row| {
            let measured = self.rows.get(&(row.section, row.key))?;
            (*measured != row.value)
                .then(|| format!("{}: {} is measured as {}", row.name(), shown(&row.value), shown(measured)))
        };
        let header = (self.server_header != profile.server_header)
            .then(|| format!("server_header: {:?} is measured as {:?}", profile.server_header, self.server_header));
        header.into_iter().chain(profile.rows().iter().filter_map(differs)).collect()
    }

    /// The names of the rows that were not measured.
    pub fn unmeasured(&self, like: &Profile) -> Vec<String> {
        let is_missing = |row: &Row| !self.rows.contains_key(&(row.section, row.key));
        like.rows().iter().filter(|row| is_missing(row)).map(Row::name).collect()
    }

    /// A profile's file. What was not measured is kept from what is known of that server, or left to be filled in; `like`
    /// is any profile.
    pub fn print(&self, name: &str, date: &str, known: Option<&Profile>, like: &Profile) -> String {
        let kept = known.map(Profile::rows);
        let row = |at: usize, row: Row| match (self.rows.get(&(row.section, row.key)), &kept) {
            (Some(value), _) => (Row { value: value.clone(), ..row }, true),
            (None, Some(kept)) => (kept[at].clone(), true),
            (None, None) => (row, false),
        };
        let rows: Vec<_> = like.rows().into_iter().enumerate().map(|(at, found)| row(at, found)).collect();
        let kept = match (known, self.unmeasured(like).join(", ")) {
            (_, missing) if missing.is_empty() => String::new(),
            (Some(known), missing) if known.name == name => format!("; not measured again: {missing}"),
            (Some(known), missing) => format!("; kept from {}: {missing}", known.name),
            (None, missing) => format!("; not measured: {missing}"),
        };
        let source = format!("measured {date} on loopback, CPython {}{kept}", self.python);
        let head = [
            ("name", name),
            ("server", self.server.as_str()),
            ("source", &source),
            ("server_header", &self.server_header),
        ];
        Profile::print(head, "Written by `relapse profile measure`.", &rows)
    }
}

/// Measures a server that an interpreter has. The clock is real, and it takes some ten seconds.
///
/// # Errors
/// When the server does not start, or does not serve.
pub async fn measure(choice: &ServerChoice, python: &Path) -> Result<Measurement, Error> {
    let bench = Bench::set_up(choice, python).map_err(|error| Trouble {
        message: format!("no temporary files can be written: {error}"),
        details: String::new(),
    })?;
    let found = versions(python, choice.software.decisive())?;
    let named = found.iter().filter_map(|(name, version)| Some(format!("{name} {}", version.as_ref()?)));
    let implementation = choice.implementation.as_ref().map(|name| format!("implementation {name}"));
    let server = named.chain(implementation).collect::<Vec<_>>().join(", ");
    let python_version = version(python)?;
    let measured = rows::all(&bench).await?;
    let server_header = measured.server_header;
    Ok(Measurement { server, python: python_version, rows: measured.rows, server_header })
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
    async fn start(&self, flags: &[&str]) -> Result<Stage, Error> {
        let site = Site {
            app: "measured:app".to_owned(),
            factory: false,
            python: self.python.clone(),
            directory: self.directory.path().to_owned(),
            environment: Vec::new(),
            blocked_limit: BLOCKED_LIMIT,
            clock: Clock::Real,
            fresh: false,
            memory_limit: MEMORY_LIMIT,
        };
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let installation = Installation { site, server: self.choice.clone(), flags, start_limit: START_LIMIT };
        let server = Server::run(installation).await?;
        Ok(Stage { served: Served::new(server, &Binding::default(), String::new()) })
    }
}

/// A server that runs, with what behaves as it is told.
struct Stage {
    served: Served,
}

/// What a client does there.
#[derive(Debug, Clone)]
struct Scene {
    /// The request, and whether it asks for a WebSocket.
    opening: Act,
    /// What it does then.
    then: Vec<Act>,
    /// What happens to it on its way.
    faults: Vec<Fault>,
}

impl Scene {
    /// A client that opens a WebSocket on an application with these acts, and waits.
    fn socket(path: &str) -> Scene {
        Scene::opened(path, vec![Act::Wait(Awaited::Close)])
    }

    /// A client that opens a WebSocket, and does something.
    fn opened(path: &str, then: Vec<Act>) -> Scene {
        Scene { opening: Act::Open(request(&format!("/ws{path}"))), then, faults: Vec::new() }
    }

    /// A plain request.
    fn plain(path: &str) -> Scene {
        Scene { opening: Act::Request(request(path)), then: Vec::new(), faults: Vec::new() }
    }

    /// The same, with these faults on the way.
    fn under(self, faults: Vec<Fault>) -> Scene {
        Scene { faults, ..self }
    }
}

fn request(path: &str) -> Request {
    Request { credential: Credential::None, client: Client::Library, ..Request::standard("GET", path) }
}

impl Stage {
    fn server(&self) -> &Server {
        self.served.server()
    }

    /// Performs a scene; what was seen and told of it.
    async fn perform(&self, scene: &Scene) -> Result<Transcript, Error> {
        let step = |act: &Act| Step { act: act.clone(), limit: PATIENCE };
        let steps: Vec<Step> = std::iter::once(&scene.opening).chain(&scene.then).map(step).collect();
        let recorder = Recorder::new(Plan { seed: 1, faults: scene.faults.clone() });
        probe::perform(Script::of_one(&steps), &recorder, &self.served).await?;
        let stays = match &scene.opening {
            Act::Open(request) | Act::Request(request) => request.path.ends_with(b"/stay"),
            _ => false,
        };
        Ok(self.close(&recorder, stays).await)
    }

    /// What was recorded, once the application's call is over, unless it stays; then once it has come so far.
    async fn close(&self, recorder: &Recorder, stays: bool) -> Transcript {
        let end = Instant::now() + if stays { STAYING } else { PATIENCE };
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
