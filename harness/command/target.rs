//! The target that `--target` names: a server behind a URL, or a Python application.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, OnceLock, mpsc};
use std::time::Duration;

use clap::{Args, ValueEnum};
use relapse::{
    Result,
    binding::{Binding, COMMAND_LIMIT, TokenSource},
    discover::{Catalogue, servers},
    external::{External, Front, Version},
    hunt::Launch,
    note::Note,
    recorded::{Recorded, is_secret, learn as learn_routes},
    route::Route,
    targets::Url,
    trial::{option, shell},
    upstream::Upstream,
};
use relapse_backend::conductor::KNOWN;
use relapse_core::{
    error::{Blame, Error, Trouble},
    record::transcript::TargetKind,
};
use relapse_python::{
    app::Python as PythonTarget,
    process::{
        BLOCKED_LIMIT, Installation as PythonInstallation, LifespanMode, MEMORY_LIMIT,
        Requirements as PythonRequirements, START_LIMIT, Server as PythonServer, ServerChoice, Site as PythonSite,
        end_all as end_interpreters,
    },
    served::Served,
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    profile::Profile,
};
use tokio::sync::Notify;

use super::{
    Moved, StopSignal, StopSignals,
    error::{CommandResult, Failure, UsageError},
    exit_code::CommandExit,
    moved,
    report::formats::Printing,
    server, servers_named,
    terminal::{complain, note, print},
};

/// The heading of options about a target, in help.
pub(super) const TARGET: &str = "Target";

/// Something of the user's own.
#[derive(Debug, Clone)]
pub(super) enum TargetSpec {
    /// A server behind a URL.
    Url(Upstream),
    /// `asgi:package.module:attribute`, and after ` @ ` each the directory it is in and the packages it runs with.
    Python {
        /// `package.module:attribute`.
        app: String,
        /// Its directory, and packages as pip knows them.
        places: Vec<String>,
    },
}

impl FromStr for TargetSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<TargetSpec, String> {
        let Some(python) = text.strip_prefix("asgi:") else { return text.parse().map(TargetSpec::Url) };
        let mut parts = python.split(" @ ").map(|part| part.trim().to_owned());
        let app = parts.next().unwrap_or_default();
        match app.split_once(':') {
            Some((module, attribute)) if !module.is_empty() && !attribute.is_empty() => {
                Ok(TargetSpec::Python { app, places: parts.collect() })
            }
            _ => Err("write it as in `asgi:package.module:app`".to_owned()),
        }
    }
}

impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetSpec::Url(upstream) => write!(f, "{upstream}"),
            TargetSpec::Python { app, places } => {
                write!(f, "asgi:{app}")?;
                places.iter().try_for_each(|place| write!(f, " @ {place}"))
            }
        }
    }
}

/// Something of the user's own, and everything that says how it is reached, for a command that looks at one thing.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = TARGET)]
pub(super) struct TargetArgs {
    /// The target: a server or a Python application
    ///
    /// A server is written as `http://`, `https://`, `ws://` or `wss://`, host and port; a Python application as
    /// `asgi:package.module:app`, with ` @ DIR` behind it where it is elsewhere.
    #[arg(long, value_name = "TARGET")]
    pub(super) target: TargetSpec,
    #[command(flatten)]
    pub(super) service_file: ServiceFileArgs,
    #[command(flatten)]
    pub(super) python: PythonArgs,
}

/// How to speak to an external server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = TARGET)]
pub(super) struct ServiceFileArgs {
    /// How the target is spoken to [default: relapse.toml]
    ///
    /// Where there is no `relapse.toml`, a server is spoken to as the built-in backend is, and a Python application by
    /// its own routes.
    #[arg(long = "service-file", value_name = "FILE")]
    pub(super) binding: Option<PathBuf>,
    #[arg(long = "binding", hide = true, value_name = "FILE", value_parser = |_: &str| moved("--service-file"))]
    _binding: Option<Moved>,
    /// A host that may be contacted although it is not this machine
    ///
    /// May be given more than once.
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
}

/// How many requests a server of the user's own gets at most, unless they say otherwise.
const REQUESTS_MAX: usize = 1000;

/// The limit on requests to an external server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = TARGET)]
pub(super) struct RequestBudget {
    /// How many requests each server gets at most
    #[arg(hide_short_help = true, long, value_name = "N", default_value_t = REQUESTS_MAX, requires = "target")]
    max_requests: usize,
    /// How many requests each server gets in a second at most
    ///
    /// As many as come on this machine without it, 10 elsewhere.
    #[arg(hide_short_help = true, long, value_name = "N", requires = "target", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
}

impl RequestBudget {
    /// The arguments that say the same.
    pub(super) fn arguments(&self) -> Vec<String> {
        let most = (self.max_requests != REQUESTS_MAX).then(|| ("--max-requests", self.max_requests.to_string()));
        let rate = self.rate.map(|rate| ("--rate", rate.to_string()));
        most.into_iter().chain(rate).flat_map(|(name, value)| option(name, value)).collect()
    }

    /// For a command that asks little, whatever the answers are.
    pub(super) const UNLIMITED: RequestBudget = RequestBudget { max_requests: usize::MAX, rate: None };

    /// The server, to be asked so much.
    pub(super) fn server(&self, upstream: &Upstream, binding: &Binding, token: &str) -> Url {
        let rate = self.rate.or((!upstream.is_loopback()).then_some(RATE));
        let pause = rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate);
        Url::new(upstream.clone(), binding, token.to_owned(), self.max_requests, pause)
    }
}

/// How many requests a second a server gets that is not on this machine.
const RATE: u32 = 10;

/// How a Python application is loaded.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Python application")]
pub(super) struct PythonArgs {
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
    pub(super) path: Vec<Route>,
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
    server: Option<ServerChoice>,
    /// How long it may keep its event loop to itself
    ///
    /// After that it is taken for stuck. In virtual time, a sleep of up to ten times as long only counts as an error.
    /// Work in threads may really take three times as long.
    #[arg(hide_short_help = true, long, value_name = "TIME", default_value = "20s", value_parser = humantime::parse_duration)]
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
    fresh: bool,
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
    pub(super) fn check_absent(&self) -> Result<(), UsageError> {
        match self.arguments().as_slice() {
            [] => Ok(()),
            given => Err(UsageError::NoPythonApplication { options: shell(given) }),
        }
    }

    /// Whether a real server stands in front of a Python application.
    pub(super) fn is_served(&self) -> bool {
        self.server.is_some()
    }

    /// The name of the real server in front of a Python application.
    pub(super) fn server_name(&self) -> Option<String> {
        self.server.as_ref().map(ServerChoice::to_string)
    }

    /// The arguments that say the same. A secret is not written down: whoever runs the line has it in the environment.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |name: &str, value: String| arguments.extend(option(name, value));
        let paths = [("--python", &self.python), ("--dir", &self.dir)];
        for (name, path) in paths.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?))) {
            add(name, path.display().to_string());
        }
        for (name, value) in &self.env {
            arguments.extend(match is_secret(name) {
                true => option("--env", format!("{name}=\"${name}\"")),
                // As a word of its own it would be taken from the environment.
                false if *value == format!("\"${name}\"") => vec![format!("--env={name}={value}")],
                false => option("--env", format!("{name}={value}")),
            });
        }
        let mut add = |name: &str, value: String| arguments.extend(option(name, value));
        self.path.iter().for_each(|route| add("--path", route.said()));
        self.recorded.iter().for_each(|path| add("--recorded", path.display().to_string()));
        let time = |time: Duration| humantime::format_duration(time).to_string();
        if self.blocked_limit != BLOCKED_LIMIT {
            add("--blocked-limit", time(self.blocked_limit));
        }
        if self.start_limit != START_LIMIT {
            add("--start-limit", time(self.start_limit));
        }
        if self.memory_limit << 20 != MEMORY_LIMIT {
            add("--memory-limit", self.memory_limit.to_string());
        }
        if self.clock == LoopClock::Real {
            add("--clock", "real".to_owned());
        }
        if self.lifespan == LifespanChoice::Off {
            add("--lifespan", "off".to_owned());
        }
        if let Some(server) = &self.server {
            add("--server", server.to_string());
        }
        let switches = [("--factory", self.factory), ("--fresh", self.fresh)];
        arguments.extend(switches.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned()));
        arguments
    }

    /// Where the application is, and whether its interpreter was chosen.
    fn site(&self, app: &str, places: &[String]) -> Result<(PythonSite, bool)> {
        let (mut directory, mut packages) = (self.dir.clone().unwrap_or_else(|| PathBuf::from(".")), None);
        for place in places {
            // A misspelled directory must not be asked of a package index.
            let is_packages = place.contains(['=', '<', '>', '~', '!']) || place.ends_with(".txt");
            match Path::new(place).is_dir() {
                true => directory = PathBuf::from(place),
                false if is_packages => packages = Some(PythonRequirements::of(place, Path::new("."))?),
                false => {
                    let message = format!(
                        "there is no directory `{place}`; packages are written with a version, as in `starlette==0.47.3`"
                    );
                    return Err(Trouble { message, details: String::new(), blame: Blame::Setup }.into());
                }
            }
        }
        let directory = directory.canonicalize().unwrap_or(directory);
        let beside = [&directory, Path::new(".")].map(|place| place.join(".venv/bin/python"));
        let active = std::env::var_os("VIRTUAL_ENV").map(|home| Path::new(&home).join("bin/python"));
        let (python, is_chosen) = match (&self.python, active) {
            (Some(python), _) => (python.clone(), true),
            (None, active) => {
                let known = beside.into_iter().chain(active).find(|python| python.is_file());
                known.map_or((PathBuf::from("python3"), false), |python| (python, true))
            }
        };
        // An interpreter that runs in another directory is named from there. A virtual environment is found by the name
        // of its interpreter, which is a link to another one's.
        let python =
            if python.components().count() > 1 { std::path::absolute(&python).unwrap_or(python) } else { python };
        let (python, is_chosen) = match packages {
            None => (python, is_chosen),
            Some(packages) => (packages.install(&python, &|text| note(text))?, true),
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
            lifespan: self.lifespan.into(),
        };
        Ok((site, is_chosen))
    }

    /// The routes of an application that the recordings show.
    fn recorded(&self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for path in &self.recorded {
            learn_routes(&mut routes, &read_recorded(path)?.routes);
        }
        Ok(routes)
    }

    /// Notes on what of the recordings is not used.
    pub(super) fn left_out(&self) -> Result<Vec<String>> {
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
    fn check_server(&self, profiles: &[String]) -> Result<(), UsageError> {
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

/// The fronts that a target runs behind, one after the other: every profile that is named, as a glob too; the first known
/// one of a Python application without any; `None` of a target whose server is real.
pub(super) fn profiles_in_front(
    target: &TargetSpec,
    python: &PythonArgs,
    names: &[String],
) -> Result<Vec<Option<String>>> {
    if !target.is_python() || python.is_served() {
        return Ok(vec![None]);
    }
    let profiles = match names {
        [] => vec![servers()?.swap_remove(0)],
        names => servers_named(names)?,
    };
    Ok(profiles.iter().map(|profile| Some(profile.name.clone())).collect())
}

/// The results behind several fronts, each with its front.
pub(super) type Results<T> = Vec<(Option<String>, T)>;

/// Does the same behind each front, one after the other, until Ctrl-C asks for an end. `act` gives the exit code and the
/// result, if that is printed later. Gives the highest exit code and every result with its front. Where results are printed
/// as they come, each front is named above its own.
///
/// # Errors
/// When the work fails behind the first front. Another error is printed and makes the exit code [`CommandExit::NoResult`], so that
/// the results behind the other fronts are not lost.
pub(super) fn behind_each<T>(
    fronts: &[Option<String>],
    printing: Printing,
    mut act: impl FnMut(Option<&str>) -> CommandResult<(CommandExit, Option<T>)>,
) -> CommandResult<(CommandExit, Results<T>)> {
    let has_headings = fronts.len() > 1 && printing == Printing::AsItComes;
    let (mut exit, mut results) = (CommandExit::Passes, Vec::new());
    for (number, front) in fronts.iter().enumerate() {
        if number > 0 && was_asked_to_end() {
            let left: Vec<&str> = fronts[number..].iter().flatten().map(String::as_str).collect();
            note(&format!("left out: behind {}", left.join(" ")));
            break;
        }
        if let Some(name) = front.as_ref().filter(|_| has_headings) {
            print(format!("behind {name}:\n"));
        }
        match act(front.as_deref()) {
            Ok((own, result)) => {
                exit = exit.max(own);
                results.extend(result.map(|result| (front.clone(), result)));
            }
            Err(failure @ Failure::Work(_)) if number == 0 => return Err(failure),
            Err(failure) => {
                complain(&failure);
                exit = exit.max(failure.exit());
            }
        }
        if has_headings {
            print("");
        }
    }
    Ok((exit, results))
}

/// How to treat routes that the code of an application only seems to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteGuessing {
    /// Only those that the application serves are kept.
    Checked,
    /// All are left, for whoever finds out.
    Kept,
    /// They are asked for only where nothing else shows that a client is let in: each request may change the app.
    Apart,
}

/// Everything that says how something of the user's own is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct TargetContext<'a> {
    pub(super) budget: &'a RequestBudget,
    pub(super) python: &'a PythonArgs,
    /// The profile of the server in front of a Python application; the first that is known without one.
    pub(super) profile: Option<&'a str>,
    pub(super) guesses: RouteGuessing,
    pub(super) seed: u64,
}

/// How a target is spoken to.
#[derive(Debug, Clone)]
pub(super) struct TargetIntroduction {
    pub(super) binding: Binding,
    /// The valid token; empty where none is needed.
    pub(super) token: String,
    /// Notes on it for the user.
    pub(super) notes: Vec<String>,
}

impl TargetSpec {
    /// The clock it is reached on.
    pub(super) fn clock(&self, python: &PythonArgs) -> Clock {
        match self {
            TargetSpec::Url(_) => Clock::Real,
            TargetSpec::Python { .. } if python.server.is_some() => Clock::Real,
            TargetSpec::Python { .. } => python.clock.into(),
        }
    }

    /// Whether it is a Python application.
    pub(super) fn is_python(&self) -> bool {
        matches!(self, TargetSpec::Python { .. })
    }

    /// Checks that each of these versions of it is of its kind, goes with what is said beside it, and may be contacted.
    pub(super) fn check_versions(
        &self,
        versions: &[&TargetSpec],
        python: &PythonArgs,
        profiles: &[String],
        service_file: &ServiceFileArgs,
    ) -> Result<(), UsageError> {
        for version in versions {
            if version.is_python() != self.is_python() {
                return Err(UsageError::DifferentKinds);
            }
            version.check(python, profiles, service_file)?;
        }
        Ok(())
    }

    /// Checks that what is said beside it goes with it, and that it may be contacted.
    pub(super) fn check(
        &self,
        python: &PythonArgs,
        profiles: &[String],
        service_file: &ServiceFileArgs,
    ) -> Result<(), UsageError> {
        match self {
            TargetSpec::Url(upstream) => {
                python.check_absent()?;
                if !profiles.is_empty() {
                    return Err(UsageError::ProfileOfUrl);
                }
                service_file.check_host(upstream)
            }
            TargetSpec::Python { .. } => {
                service_file.check_no_host()?;
                python.check_server(profiles)
            }
        }
    }

    /// Finds out how it is spoken to: reads the service file and the recordings, and gets the tokens.
    pub(super) fn introduce(
        &self,
        python: &PythonArgs,
        service_file: &ServiceFileArgs,
    ) -> CommandResult<TargetIntroduction> {
        let mut notes = python.left_out()?;
        let mut binding = if matches!(self, TargetSpec::Url(_)) || service_file.has_binding() {
            service_file.binding(&mut notes)?
        } else {
            notes.push(
                "no relapse.toml found; using the app's own routes with generated values; a relapse.toml with its paths, \
                 credential and messages, which `relapse init` writes, lets more of it be judged"
                    .to_owned(),
            );
            Binding::unknown()
        };
        let token = valid_token(&binding)?;
        for (name, user) in &binding.users {
            binding.user_tokens.insert(name.clone(), read_token(&user.source)?);
        }
        Ok(TargetIntroduction { binding, token, notes })
    }

    /// Reaches it, and finds out which server answers.
    pub(super) fn reach(
        &self,
        runtime: &Runtime,
        context: TargetContext<'_>,
        binding: &Binding,
        token: &str,
    ) -> Result<External> {
        let mut external = self.reach_unseen(runtime, context, binding, token)?;
        runtime.block_on(external.recognize(binding, &servers()?));
        Ok(external)
    }

    /// The same of a version that cases are judged on: an app that does not load or start is one too.
    pub(super) fn version(
        &self,
        runtime: &Runtime,
        context: TargetContext<'_>,
        binding: &Binding,
        token: &str,
    ) -> Result<Version> {
        match self.reach(runtime, context, binding, token) {
            Ok(external) => Ok(Version::Running(external)),
            Err(Error::Python(trouble)) if trouble.blame == Blame::App => {
                Ok(Version::NotStarted { kind: self.kind(context.python), trouble: *trouble })
            }
            Err(error) => Err(error),
        }
    }

    /// The kind of target.
    pub(super) fn kind(&self, python: &PythonArgs) -> TargetKind {
        match self {
            TargetSpec::Url(_) => TargetKind::Url,
            TargetSpec::Python { .. } if python.is_served() => TargetKind::Served,
            TargetSpec::Python { .. } => TargetKind::Python,
        }
    }

    /// Reaches it, whoever answers: a server behind a URL is not asked for anything yet.
    pub(super) fn reach_unseen(
        &self,
        runtime: &Runtime,
        context: TargetContext<'_>,
        binding: &Binding,
        token: &str,
    ) -> Result<External> {
        match self {
            TargetSpec::Url(upstream) => {
                Ok(External::new(context.budget.server(upstream, binding, token), Front::Unknown))
            }
            TargetSpec::Python { app, places } => launcher(app, places, context, binding, token)?(runtime),
        }
    }

    /// Where a Python application is; nothing of a server behind a URL.
    pub(super) fn site(&self, python: &PythonArgs) -> Result<Option<PythonSite>> {
        match self {
            TargetSpec::Url(_) => Ok(None),
            TargetSpec::Python { app, places } => Ok(Some(python.site(app, places)?.0)),
        }
    }

    /// Something that reaches it once more, for another worker; nothing where it is there once.
    pub(super) fn once_more(
        &self,
        context: TargetContext<'_>,
        binding: &Binding,
        token: &str,
    ) -> Result<Option<Box<Launch>>> {
        match self {
            TargetSpec::Url(_) => Ok(None),
            TargetSpec::Python { app, places } => launcher(app, places, context, binding, token).map(Some),
        }
    }
}

impl TargetArgs {
    /// Checks that everything that is said goes together, with these profiles too, and that it may be contacted.
    pub(super) fn check(&self, profiles: &[String]) -> Result<(), UsageError> {
        self.target.check(&self.python, profiles, &self.service_file)
    }

    /// The same, where a user can name the routes of a server behind a URL too.
    pub(super) fn check_by_path(&self, profiles: &[String]) -> Result<(), UsageError> {
        let python = PythonArgs { path: Vec::new(), ..self.python.clone() };
        self.target.check(&python, profiles, &self.service_file)
    }

    /// The clock it is reached on.
    pub(super) fn clock(&self) -> Clock {
        self.target.clock(&self.python)
    }

    /// Reaches it behind this profile, whoever answers.
    pub(super) fn reach(
        &self,
        runtime: &Runtime,
        profile: Option<&str>,
        binding: &Binding,
        token: &str,
        guesses: RouteGuessing,
    ) -> Result<External> {
        let budget = &RequestBudget::UNLIMITED;
        let context = TargetContext { budget, python: &self.python, profile, guesses, seed: 1 };
        self.target.reach_unseen(runtime, context, binding, token)
    }
}

impl ServiceFileArgs {
    /// Checks that a server may be contacted.
    fn check_host(&self, upstream: &Upstream) -> Result<(), UsageError> {
        let host = upstream.host();
        if upstream.is_loopback() || self.allow_host.iter().any(|allowed| allowed == host) {
            return Ok(());
        }
        Err(UsageError::HostNotAllowed { host: host.to_owned() })
    }

    /// Checks that no host is allowed, as the target contacts none.
    fn check_no_host(&self) -> Result<(), UsageError> {
        if self.allow_host.is_empty() { Ok(()) } else { Err(UsageError::HostOfPython) }
    }

    /// The arguments that say the same. A service file that is there without its name is named, so that the command does
    /// the same from a script.
    pub(super) fn arguments(&self) -> Vec<String> {
        let binding = self.path().into_iter().map(|path| ("--service-file", path.display().to_string()));
        let hosts = self.allow_host.iter().map(|host| ("--allow-host", host.clone()));
        binding.chain(hosts).flat_map(|(name, value)| option(name, value)).collect()
    }

    /// Where the service file is, if anywhere.
    fn path(&self) -> Option<PathBuf> {
        let here = PathBuf::from("relapse.toml");
        self.binding.clone().or_else(|| here.is_file().then_some(here))
    }

    /// Whether there is a service file.
    pub(super) fn has_binding(&self) -> bool {
        self.path().is_some()
    }

    fn binding(&self, notes: &mut Vec<String>) -> Result<Binding> {
        let Some(path) = self.path() else {
            notes.push(
                "no relapse.toml found; using the paths and messages of the built-in backend; `relapse init` writes one, --service-file names one".to_owned(),
            );
            return Ok(Binding::default());
        };
        let read = std::fs::read_to_string(&path);
        let text = read.map_err(|source| Error::Io { doing: "read", path: path.clone(), source })?;
        Binding::parse(&path.display().to_string(), &text)
    }
}

/// The valid token that a service file names, empty where it needs none.
pub(super) fn valid_token(binding: &Binding) -> Result<String, UsageError> {
    binding.credential.source.as_ref().map_or(Ok(String::new()), read_token)
}

/// A token from its source.
fn read_token(source: &TokenSource) -> Result<String, UsageError> {
    Runtime::new(Clock::Real).block_on(token(source))
}

/// A token from its source; empty where the target issues it.
///
/// # Errors
/// Says which variable is not set, or what the command did instead of printing a token.
async fn token(source: &TokenSource) -> Result<String, UsageError> {
    let command = match source {
        TokenSource::Issued => return Ok(String::new()),
        TokenSource::Literal(text) => return Ok(text.clone()),
        TokenSource::Env(name) => {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            return value.ok_or_else(|| UsageError::TokenVariable { name: name.clone() });
        }
        TokenSource::Command(command) => command,
    };
    let run = tokio::process::Command::new("sh").arg("-c").arg(command).kill_on_drop(true).output();
    let output = match tokio::time::timeout(COMMAND_LIMIT, run).await {
        Err(_) => {
            return Err(UsageError::TokenLate { command: command.clone(), seconds: COMMAND_LIMIT.as_secs() });
        }
        Ok(Err(error)) => {
            return Err(UsageError::TokenCommand { command: command.clone(), why: error.to_string() });
        }
        Ok(Ok(output)) => output,
    };
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !text.is_empty() {
        Ok(text)
    } else {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(UsageError::NoToken { command: command.clone(), status: output.status.to_string(), said })
    }
}

/// Starts an interpreter with an application in it.
fn launcher(
    app: &str,
    places: &[String],
    context: TargetContext<'_>,
    binding: &Binding,
    token: &str,
) -> Result<Box<Launch>> {
    end_interpreters_with_us();
    let (site, is_chosen) = context.python.site(app, places)?;
    let (binding, token, seed, guesses) = (binding.clone(), token.to_owned(), context.seed, context.guesses);
    let (named, recorded) = (context.python.path.clone(), context.python.recorded()?);
    let behind = match context.python.server.clone() {
        Some(server) => {
            let python = server.interpreter(&site.python, is_chosen, &note)?;
            FrontChoice::Server(server, PythonSite { python, ..site })
        }
        None => {
            let profile = match context.profile {
                Some(name) => server(name)?,
                None => servers()?.swap_remove(0),
            };
            FrontChoice::Profile(profile, site)
        }
    };
    Ok(Box::new(move |runtime: &Runtime| {
        let (mut reached, introduction) = match &behind {
            FrontChoice::Server(server, site) => {
                let (site, server, front) = (site.clone(), server.clone(), Front::Server(server.to_string()));
                let start_limit = site.start_limit;
                let installation = PythonInstallation { site, server, flags: Vec::new(), start_limit };
                let (server, introduction) = runtime.block_on(PythonServer::start(installation))?;
                (External::new(Served::new(server, &binding, token.clone()), front), introduction)
            }
            FrontChoice::Profile(profile, site) => {
                let launched = PythonTarget::launch(site.clone(), &binding, token.clone(), Arc::clone(profile), seed);
                let (python, introduction) = runtime.block_on(launched)?;
                (External::new(python, Front::Profile(profile.name.clone())), introduction)
            }
        };
        reached.routes = named.iter().cloned().chain(introduction.routes).collect();
        if reached.routes.is_empty() && recorded.is_empty() && binding.is_unknown() {
            // Routes guessed from its code are used if there are no others.
            match guesses {
                RouteGuessing::Apart => reached.guesses = introduction.guesses,
                RouteGuessing::Kept => reached.routes = introduction.guesses,
                RouteGuessing::Checked => {
                    reached.routes = introduction.guesses;
                    runtime.block_on(reached.forget_unfound(&binding, seed))?;
                }
            }
        }
        learn_routes(&mut reached.routes, &recorded);
        Ok(reached)
    }))
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
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
        doing: "read the recording",
        path: path.to_owned(),
        source,
    })?;
    let told = |why: String| Trouble {
        message: format!("{}: {why}", path.display()),
        details: String::new(),
        blame: Blame::Setup,
    };
    Ok(Recorded::read_har(&text).map_err(told)?)
}

/// The server in front of a Python application.
enum FrontChoice {
    /// One of the known servers, played by its profile.
    Profile(Arc<Profile>, PythonSite),
    /// A real one.
    Server(ServerChoice, PythonSite),
}

/// The text for the first Ctrl-C if it only asks to stop, and whether it did.
static ASKS_FIRST: OnceLock<&str> = OnceLock::new();
static WAS_ASKED: AtomicBool = AtomicBool::new(false);
/// Wakes what waits for that Ctrl-C.
static ASKED: Notify = Notify::const_new();

/// From now on the first Ctrl-C asks for a clean end and prints this text, and only the second one ends everything.
pub(super) fn ask_first(said: &'static str) {
    ASKS_FIRST.get_or_init(|| said);
    end_interpreters_with_us();
}

/// Whether an end was asked for.
pub(super) fn was_asked_to_end() -> bool {
    WAS_ASKED.load(Ordering::Acquire)
}

/// Waits until an end is asked for, after [`ask_first`]. The answer to Ctrl-C is printed by then.
pub(super) async fn asked_to_end() {
    let asked = ASKED.notified();
    if !was_asked_to_end() {
        asked.await;
    }
}

/// A signal that ends this process ends the interpreters too, wherever their applications are stuck.
pub(super) fn end_interpreters_with_us() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            Runtime::new(Clock::Real).block_on(async {
                let Ok(mut stops) = StopSignals::watch() else { return };
                let _ = ready.send(());
                let stop = stops.next().await;
                if let (StopSignal::Interrupt, Some(said)) = (stop, ASKS_FIRST.get()) {
                    // A reader of the request may end the process at once.
                    note(said);
                    WAS_ASKED.store(true, Ordering::Release);
                    ASKED.notify_waiters();
                    stops.next().await;
                }
                end_interpreters();
                std::process::exit(i32::from(CommandExit::Interrupted.number()));
            });
        });
        // From here on Ctrl-C is heard; an error means that it cannot be, and ends the process alone.
        let _ = is_ready.recv();
    });
}

/// Says what virtual time does not wait for, as far as it was noticed, each kind once, and what to do.
pub(super) fn tell_notes(notes: impl IntoIterator<Item = Note>) {
    let notes = Note::merge(notes);
    notes.iter().for_each(|seen| note(&seen.to_string()));
    if !notes.is_empty() {
        note("--clock real waits for such things, in real time");
    }
}
