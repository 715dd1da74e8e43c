//! The options of a Python application.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::builtin::runner::KNOWN;
use clap::{Args, ValueEnum};
use relapse::{
    Result,
    deadline::Deadline,
    discover::{Catalogue, servers_named},
    files::{FileLimit, read_text},
    recording::{Recorded, learn as learn_routes},
    route::Route,
    trial::{add_option, option, shell},
};
use relapse_core::{
    error::{AppError, Blame},
    record::redact::{KnownSecret, holds_secret, password_in_url},
};
use relapse_python::process::{
    BLOCKED_LIMIT, CodeCoverage, Epoch, InterpreterOrigin, LifespanMode, MEMORY_LIMIT,
    Requirements as PythonRequirements, START_LIMIT, ServerChoice, Site as PythonSite,
};
use relapse_simulate::clock::Clock;

use super::described;
use crate::{error::UsageError, output::note};

/// How a Python application is loaded.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Python application")]
pub(crate) struct PythonArgs {
    /// Its interpreter
    ///
    /// Without it `.venv/bin/python` in its directory or in this one, the active virtual environment's, or `python3`,
    /// whichever is there first.
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Its directory; this one without it
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// An environment variable for it
    ///
    /// May be given more than once.
    #[arg(hide_short_help = true, long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// A route beside those that it tells itself, as in `ws:/path`
    ///
    /// Or `GET /path?name=value`. May be given more than once.
    #[arg(long, value_name = "ROUTE", value_parser = Route::parse)]
    pub(crate) path: Vec<Route>,
    /// An OpenAPI or AsyncAPI document of its routes
    ///
    /// A file or a URL, in JSON or YAML. May be given more than once.
    #[arg(hide_short_help = true, long, value_name = "FILE|URL")]
    api: Vec<String>,
    /// A good conversation, from which its routes learn
    ///
    /// They learn what they take from a HAR file, as browsers and proxies save one, or a case file. May be given more
    /// than once. Credentials in it are left out.
    #[arg(hide_short_help = true, long, value_name = "FILE")]
    recorded: Vec<PathBuf>,
    /// The attribute is a function that makes the application
    #[arg(hide_short_help = true, long)]
    factory: bool,
    /// Run it behind this real server instead of a profile
    ///
    /// It runs on real sockets and in real time. The server is `uvicorn`, `hypercorn`, `daphne` or `granian`, with
    /// `==VERSION` behind it where that matters, and `uvicorn[websockets]`, `uvicorn[sansio]` or `uvicorn[wsproto]` for
    /// one of its implementations. It is taken from the application's interpreter; where --python and `.venv` name
    /// none, and it is not there, it is installed in an environment of its own.
    #[arg(long, value_name = "NAME[==VERSION]", value_parser = real_server)]
    pub(super) server: Option<ServerChoice>,
    /// How long it may keep its event loop to itself
    ///
    /// After that it is taken for stuck. In virtual time, a sleep of up to ten times as long only counts as an error.
    /// Work in threads may really take three times as long.
    #[arg(hide_short_help = true, long, value_name = "TIME", default_value = "8s", value_parser = humantime::parse_duration)]
    blocked_limit: Duration,
    /// How much memory it may have, in MiB
    #[arg(hide_short_help = true, long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(16..=1 << 30))]
    memory_limit: u64,
    /// Its clock
    ///
    /// Virtual time costs nothing and is exact, also for the clocks that the application reads and for its threads;
    /// real time is for sockets, files and processes of its own.
    #[arg(hide_short_help = true, long, value_enum, default_value_t = LoopClock::Virtual)]
    clock: LoopClock,
    /// Give each case a Python interpreter of its own
    #[arg(hide_short_help = true, long)]
    pub(super) fresh: bool,
    /// How long its import, and the start of a real server, may take
    ///
    /// In real time.
    #[arg(hide_short_help = true, long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    start_limit: Duration,
    /// Whether it gets lifespan events
    ///
    /// With `auto` as its server does it, with `off` none.
    #[arg(hide_short_help = true, long, value_enum, default_value_t = LifespanChoice::Auto)]
    lifespan: LifespanChoice,
}

/// Whether lifespan events are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LifespanChoice {
    /// As the server does it.
    Auto,
    /// None.
    Off,
}

impl From<LifespanChoice> for LifespanMode {
    fn from(choice: LifespanChoice) -> LifespanMode {
        match choice {
            LifespanChoice::Auto => LifespanMode::Auto,
            LifespanChoice::Off => LifespanMode::Off,
        }
    }
}

/// The clock of an event loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LoopClock {
    /// Ours.
    Virtual,
    /// The wall clock.
    Real,
}

impl From<LoopClock> for Clock {
    fn from(clock: LoopClock) -> Clock {
        match clock {
            LoopClock::Virtual => Clock::Virtual,
            LoopClock::Real => Clock::Real,
        }
    }
}

/// A real server. Who names a profile is told so.
fn real_server(text: &str) -> Result<ServerChoice, String> {
    text.parse().map_err(|why: String| match servers_named(&[text.to_owned()]) {
        Ok(_) => format!("that names a profile: `--profile {text}` plays the server; {why}"),
        Err(_) => why,
    })
}

fn variable(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    parts
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "write it as in `NAME=value`".to_owned())
}

impl PythonArgs {
    /// Checks that nothing is said about a Python application, as there is none.
    pub(crate) fn check_absent(&self) -> Result<(), UsageError> {
        match self.arguments().as_slice() {
            [] => Ok(()),
            given => Err(UsageError::NoPythonApplication { options: shell(given) }),
        }
    }

    /// The same without the routes that the user names.
    pub(super) fn without_routes(&self) -> PythonArgs {
        PythonArgs { path: Vec::new(), api: Vec::new(), ..self.clone() }
    }

    /// The clock that the application keeps.
    pub(super) fn clock(&self) -> Clock {
        if self.is_served() { Clock::Real } else { self.clock.into() }
    }

    /// Whether a real server stands in front of a Python application.
    pub(crate) fn is_served(&self) -> bool {
        self.server.is_some()
    }

    /// The name of the real server in front of a Python application.
    pub(crate) fn server_name(&self) -> Option<String> {
        self.server.as_ref().map(ServerChoice::to_string)
    }

    /// The secrets among the variables: the values of names that secrets have, and passwords in URLs.
    pub(crate) fn secrets(&self) -> Vec<KnownSecret> {
        let mut secrets = Vec::new();
        for (name, value) in &self.env {
            if holds_secret(name) {
                secrets.push(KnownSecret::named(name, value));
            } else if let Some(password) = password_in_url(value) {
                secrets.push(KnownSecret::named(name, password));
            }
        }
        secrets
    }

    /// The arguments that say the same. A secret is not written down: the line takes it from the environment.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        let paths = [("--python", &self.python), ("--dir", &self.dir)];
        for (name, path) in paths.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?))) {
            add_option(&mut arguments, name, path.display());
        }
        for (name, value) in &self.env {
            arguments.extend(match holds_secret(name) || password_in_url(value).is_some() {
                true => option("--env", format!("{name}=\"${name}\"")),
                // As a word of its own it would be taken from the environment.
                false if *value == format!("\"${name}\"") => vec![format!("--env={name}={value}")],
                false => option("--env", format!("{name}={value}")),
            });
        }
        for route in &self.path {
            add_option(&mut arguments, "--path", route.said());
        }
        for place in &self.api {
            add_option(&mut arguments, "--api", place);
        }
        for path in &self.recorded {
            add_option(&mut arguments, "--recorded", path.display());
        }
        if self.blocked_limit != BLOCKED_LIMIT {
            add_option(&mut arguments, "--blocked-limit", humantime::format_duration(self.blocked_limit));
        }
        if self.start_limit != START_LIMIT {
            add_option(&mut arguments, "--start-limit", humantime::format_duration(self.start_limit));
        }
        if self.memory_limit << 20 != MEMORY_LIMIT {
            add_option(&mut arguments, "--memory-limit", self.memory_limit);
        }
        if self.clock == LoopClock::Real {
            add_option(&mut arguments, "--clock", "real");
        }
        if self.lifespan == LifespanChoice::Off {
            add_option(&mut arguments, "--lifespan", "off");
        }
        if let Some(server) = &self.server {
            add_option(&mut arguments, "--server", server);
        }
        let switches = [("--factory", self.factory), ("--fresh", self.fresh)];
        arguments.extend(switches.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned()));
        arguments
    }

    /// Where the application is, and where its interpreter comes from.
    pub(super) fn site(&self, app: &str, places: &[String]) -> Result<(PythonSite, InterpreterOrigin)> {
        let (mut directory, mut packages) = (self.dir.clone().unwrap_or_else(|| PathBuf::from(".")), None);
        for place in places {
            // A misspelled directory must not be asked of a package index.
            let is_packages = place.contains(['=', '<', '>', '~', '!'])
                || place.ends_with(".txt")
                || PythonRequirements::is_known(place);
            match Path::new(place).is_dir() {
                true => directory = PathBuf::from(place),
                false if is_packages => packages = Some(PythonRequirements::of(place, Path::new("."))?),
                false => {
                    let message = format!(
                        "there is no directory `{place}`; packages are written with a version, as in `starlette==0.47.3`"
                    );
                    return Err(AppError { message, details: String::new(), blame: Blame::Setup }.into());
                }
            }
        }
        let directory = directory.canonicalize().unwrap_or(directory);
        let beside = [&directory, Path::new(".")].map(|place| place.join(".venv/bin/python"));
        let active = std::env::var_os("VIRTUAL_ENV").map(|home| Path::new(&home).join("bin/python"));
        let chosen = match (&self.python, active) {
            (Some(python), _) => Some(python.clone()),
            (None, active) => beside.into_iter().chain(active).find(|python| python.is_file()),
        };
        let (python, origin) = match chosen {
            Some(python) => (python, InterpreterOrigin::Chosen),
            None => (PathBuf::from("python3"), InterpreterOrigin::Default),
        };
        // An interpreter that runs in another directory is named from there. A virtual environment is found by the name
        // of its interpreter, which is a link to another one's.
        let python =
            if python.components().count() > 1 { std::path::absolute(&python).unwrap_or(python) } else { python };
        let (python, origin) = match packages {
            None => (python, origin),
            Some(packages) => (packages.install(&python, &|text| note(text))?, InterpreterOrigin::Chosen),
        };
        let site = PythonSite {
            app: app.to_owned(),
            factory: self.factory,
            python,
            directory,
            environment: self.env.clone(),
            blocked_limit: self.blocked_limit,
            clock: self.clock.into(),
            fresh: self.fresh,
            memory_limit: self.memory_limit << 20,
            start_limit: self.start_limit,
            deadline: Deadline::NEVER,
            lifespan: self.lifespan.into(),
            epoch: Epoch::Fixed,
            coverage: CodeCoverage::None,
        };
        Ok((site, origin))
    }

    /// Whether the user names routes.
    pub(super) fn names_routes(&self) -> bool {
        !(self.path.is_empty() && self.api.is_empty())
    }

    /// The routes that the user names, and those of the documents.
    pub(super) fn named_routes(&self) -> Result<Vec<Route>> {
        let mut routes = self.path.clone();
        for place in &self.api {
            routes.extend(described::read(place)?);
        }
        Ok(routes)
    }

    /// The routes of an application that the recordings show.
    pub(super) fn recorded(&self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for path in &self.recorded {
            learn_routes(&mut routes, &read_recorded(path)?.routes);
        }
        Ok(routes)
    }

    /// Notes on what of the recordings is not used.
    pub(crate) fn left_out(&self) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for path in &self.recorded {
            let left_out: Vec<String> = read_recorded(path)?.left_out.into_iter().collect();
            if !left_out.is_empty() {
                notes.push(format!(
                    "{}: left out, as credentials are in them: {}; a relapse.toml says where a credential goes",
                    path.display(),
                    left_out.join(", ")
                ));
            }
        }
        Ok(notes)
    }

    /// Checks that a real server stands in front of a Python application only where nothing plays one, and nothing needs
    /// an interpreter without one.
    pub(super) fn check_server(&self, profiles: &[String]) -> Result<(), UsageError> {
        let Some(server) = &self.server else { return Ok(()) };
        if !profiles.is_empty() || self.fresh {
            return Err(UsageError::ServerIsPlayed);
        }
        if self.lifespan == LifespanChoice::Off && !server.software.can_omit_lifespan() {
            return Err(UsageError::ServerSendsLifespan { server: server.to_string() });
        }
        Ok(())
    }
}

/// The contents of a file with a good conversation.
fn read_recorded(path: &Path) -> Result<Recorded> {
    if path.extension().is_some_and(|extension| extension == "toml") {
        let mut catalogue = Catalogue::knowing(KNOWN);
        catalogue.add(path)?;
        return match (catalogue.broken.pop(), catalogue.cases.pop()) {
            (Some(broken), _) => Err(broken),
            (None, case) => Ok(case.map_or_else(Recorded::default, |case| Recorded::of_steps(&case.steps))),
        };
    }
    let text = read_text(path, FileLimit::RECORDED)?;
    let recorded = Recorded::read_har(&text).map_err(|why| AppError {
        message: format!("{}: {why}", path.display()),
        details: String::new(),
        blame: Blame::Setup,
    });
    Ok(recorded?)
}
