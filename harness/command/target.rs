//! The target that `--target` names: a server behind a URL, or a Python application.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, OnceLock, mpsc};
use std::time::Duration;

use crate::builtin::conductor::KNOWN;
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
    trial::{option, shell},
    upstream::Upstream,
};
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
    MISUSE, Moved, Stop, Stops, complain, complain_of, moved, note, print, run::Allowance, server, servers_named,
};

/// Something of the user's own.
#[derive(Debug, Clone)]
pub(super) enum Named {
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

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Named, String> {
        let Some(python) = text.strip_prefix("asgi:") else { return text.parse().map(Named::Url) };
        let mut parts = python.split(" @ ").map(|part| part.trim().to_owned());
        let app = parts.next().unwrap_or_default();
        match app.split_once(':') {
            Some((module, attribute)) if !module.is_empty() && !attribute.is_empty() => {
                Ok(Named::Python { app, places: parts.collect() })
            }
            _ => Err("write it as in `asgi:package.module:app`".to_owned()),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Named::Url(upstream) => write!(f, "{upstream}"),
            Named::Python { app, places } => {
                write!(f, "asgi:{app}")?;
                places.iter().try_for_each(|place| write!(f, " @ {place}"))
            }
        }
    }
}

/// Something of the user's own, and everything that says how it is reached, for a command that looks at one thing.
#[derive(Debug, Clone, Args)]
pub(super) struct Own {
    /// Target: a server, `http://`, `https://`, `ws://` or `wss://`, host and port; or a Python application,
    /// `asgi:package.module:app`, and ` @ DIR` behind it where it is elsewhere.
    #[arg(long, value_name = "URL|asgi:MODULE:APP")]
    pub(super) target: Named,
    #[command(flatten)]
    pub(super) python: PythonOptions,
    #[command(flatten)]
    pub(super) foreign: Foreign,
}

/// How to speak to an external server.
#[derive(Debug, Clone, Args)]
pub(super) struct Foreign {
    /// How it is spoken to; `relapse.toml` where there is one, and what the built-in backend speaks where there is none.
    #[arg(long = "service-file", value_name = "FILE")]
    pub(super) binding: Option<PathBuf>,
    #[arg(long = "binding", hide = true, value_name = "FILE", value_parser = |_: &str| moved("--service-file"))]
    _binding: Option<Moved>,
    /// A host that may be contacted although it is not this machine; may be given more than once.
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
}

/// How a Python application is loaded.
#[derive(Debug, Clone, Args)]
pub(super) struct PythonOptions {
    /// The interpreter of a Python application: `.venv/bin/python` in its directory or in this one, the active virtual
    /// environment's, or `python3`, whichever is there first.
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// The directory of a Python application; this one without it.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// An environment variable for a Python application; may be given more than once.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// A route beside those that a Python application tells itself, `ws:/path` or `GET /path?name=value`; may be given more
    /// than once.
    #[arg(long, value_name = "ROUTE", value_parser = Route::parse)]
    pub(super) path: Vec<Route>,
    /// A good conversation with a Python application, from which its routes learn what they take: a HAR file, as browsers and
    /// proxies save one, or a case file; may be given more than once. Credentials in it are left out.
    #[arg(long, value_name = "FILE")]
    recorded: Vec<PathBuf>,
    /// The attribute is a function that makes the application.
    #[arg(long)]
    factory: bool,
    /// Run a Python application behind this server, on real sockets and in real time, instead of a profile: `uvicorn`,
    /// `hypercorn`, `daphne` or `granian`, with `==VERSION` behind it where that matters, and `uvicorn[websockets]`,
    /// `uvicorn[sansio]` or `uvicorn[wsproto]` for one of its implementations. It is taken from the application's interpreter;
    /// where --python and `.venv` name none, and it is not there, it is installed in an environment of its own.
    #[arg(long, value_name = "NAME[==VERSION]", value_parser = real_server)]
    server: Option<ServerChoice>,
    /// How long a Python application may keep its event loop to itself before it is taken for stuck. In virtual time, a
    /// sleep of up to ten times as long only counts as an error. Work in threads may really take three times as long.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = humantime::parse_duration)]
    blocked_limit: Duration,
    /// How much memory a Python application may have, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(16..=1 << 30))]
    memory_limit: u64,
    /// The clock of a Python application: virtual time costs nothing and is exact, also for the clocks that the application
    /// reads and for its threads; real time is for sockets, files and processes of its own.
    #[arg(long, value_enum, default_value_t = LoopClock::Virtual)]
    clock: LoopClock,
    /// Give each case a Python interpreter of its own.
    #[arg(long)]
    fresh: bool,
    /// How long the import of a Python application, and the start of a real server, may take; real time.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    start_limit: Duration,
    /// Whether a Python application gets lifespan events: `auto` as its server does it, `off` none.
    #[arg(long, value_enum, default_value_t = LifespanChoice::Auto)]
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

impl PythonOptions {
    /// Whether anything is said about a Python application; complains where there is none.
    pub(super) fn is_out_of_place(&self) -> bool {
        let is_given = !self.arguments().is_empty();
        if is_given {
            complain_of(&format!(
                "there is no Python application to load with {}: `--target asgi:module:app` names one",
                shell(&self.arguments())
            ));
        }
        is_given
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

    /// Says what of the recordings is not used.
    pub(super) fn tell_left_out(&self) -> Result<()> {
        for path in &self.recorded {
            let left_out: Vec<String> = read_recorded(path)?.left_out.into_iter().collect();
            if !left_out.is_empty() {
                note(&format!(
                    "{}: left out, as credentials are in them: {}; a relapse.toml says where a credential goes",
                    path.display(),
                    left_out.join(", ")
                ));
            }
        }
        Ok(())
    }

    /// Whether a real server is to stand in front of a Python application, and something else that plays one, or that only
    /// goes without; complains.
    fn contradicts(&self, profile: bool) -> bool {
        let is_both = self.server.is_some() && (profile || self.fresh);
        if is_both {
            complain_of(
                "--server runs a real server: --profile plays one, and --fresh is for interpreters without one",
            );
        }
        let omits = self.server.as_ref().filter(|_| self.lifespan == LifespanChoice::Off);
        let cannot_omit = omits.filter(|server| !server.software.can_omit_lifespan());
        if let Some(server) = cannot_omit {
            complain_of(&format!(
                "{server} sends lifespan events to every application; `--lifespan off` needs another"
            ));
        }
        is_both || cannot_omit.is_some()
    }
}

/// The fronts that a target runs behind, one after the other: every profile that is named, as a glob too; the first known
/// one of a Python application without any; `None` of a target whose server is real.
pub(super) fn profiles_in_front(
    target: &Named,
    python: &PythonOptions,
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

/// Whether the name of each profile is printed above what is shown behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Headings {
    /// It is, where there are several profiles.
    Printed,
    /// It is not: what is printed names it.
    Omitted,
}

/// The results behind several fronts, each with its front.
pub(super) type Results<T> = Vec<(Option<String>, T)>;

/// Does the same behind each front, one after the other, until Ctrl-C asks for an end. `act` gives the exit code and the
/// result, if there is one. Gives the highest exit code and every result with its front.
///
/// # Errors
/// Those of `act` behind the first front. A later error is printed and makes the exit code 2, so that the results behind
/// the other fronts are not lost.
pub(super) fn behind_each<T>(
    fronts: &[Option<String>],
    headings: Headings,
    mut act: impl FnMut(Option<&str>) -> Result<(u8, Option<T>)>,
) -> Result<(u8, Results<T>)> {
    let has_headings = fronts.len() > 1 && headings == Headings::Printed;
    let (mut code, mut results) = (0, Vec::new());
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
                code = code.max(own);
                results.extend(result.map(|result| (front.clone(), result)));
            }
            Err(error) if number > 0 => {
                complain(&error);
                code = MISUSE;
            }
            Err(error) => return Err(error),
        }
        if has_headings {
            print("");
        }
    }
    Ok((code, results))
}

/// How to treat routes that the code of an application only seems to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guesses {
    /// Only those that the application serves are kept.
    Checked,
    /// All are left, for whoever finds out.
    Kept,
    /// They are asked for only where nothing else shows that a client is let in: each request may change the app.
    Apart,
}

/// Everything that says how something of the user's own is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) allowance: &'a Allowance,
    pub(super) python: &'a PythonOptions,
    /// The profile of the server in front of a Python application; the first that is known without one.
    pub(super) profile: Option<&'a str>,
    pub(super) guesses: Guesses,
    pub(super) seed: u64,
}

impl Named {
    /// The clock it is reached on.
    pub(super) fn clock(&self, python: &PythonOptions) -> Clock {
        match self {
            Named::Url(_) => Clock::Real,
            Named::Python { .. } if python.server.is_some() => Clock::Real,
            Named::Python { .. } => python.clock.into(),
        }
    }

    /// Whether it is a Python application.
    pub(super) fn is_python(&self) -> bool {
        matches!(self, Named::Python { .. })
    }

    /// Whether it is of the kind of another version; complains where it is not.
    pub(super) fn is_comparable(&self, other: &Named) -> bool {
        let is_alike = self.is_python() == other.is_python();
        if !is_alike {
            complain_of("a server behind a URL and a Python application cannot be compared: name two of a kind");
        }
        is_alike
    }

    /// Whether what is said beside it goes with it, and it may be contacted; complains where it is not so.
    pub(super) fn is_in_order(&self, python: &PythonOptions, profiles: &[String], foreign: &Foreign) -> bool {
        match self {
            Named::Url(_) if python.is_out_of_place() => false,
            Named::Url(_) if !profiles.is_empty() => {
                complain_of("--profile is about a Python application; a server of yours is what it is");
                false
            }
            Named::Url(upstream) => foreign.allows(upstream),
            Named::Python { .. } => !foreign.is_out_of_place() && !python.contradicts(!profiles.is_empty()),
        }
    }

    /// How it is spoken to, and the valid token; nothing where that cannot be had, which is complained of.
    pub(super) fn introduced(&self, foreign: &Foreign) -> Result<Option<(Binding, String)>> {
        let mut binding = self.binding(foreign)?;
        let Some(token) = valid_token(&binding) else { return Ok(None) };
        for (name, user) in &binding.users {
            let Some(token) = read_token(&user.source) else { return Ok(None) };
            binding.user_tokens.insert(name.clone(), token);
        }
        Ok(Some((binding, token)))
    }

    /// How it is spoken to.
    fn binding(&self, foreign: &Foreign) -> Result<Binding> {
        if matches!(self, Named::Url(_)) || foreign.has_binding() {
            return foreign.binding();
        }
        note(
            "no relapse.toml found; using the app's own routes with generated values; a relapse.toml with its paths, credential \
             and messages, which `relapse init` writes, lets more of it be judged",
        );
        Ok(Binding::unknown())
    }

    /// Reaches it, and finds out which server answers.
    pub(super) fn reach(&self, runtime: &Runtime, way: Way<'_>, binding: &Binding, token: &str) -> Result<External> {
        let mut external = self.reach_unseen(runtime, way, binding, token)?;
        runtime.block_on(external.recognize(binding, &servers()?));
        Ok(external)
    }

    /// The same of a version that cases are judged on: an app that does not load or start is one too.
    pub(super) fn version(&self, runtime: &Runtime, way: Way<'_>, binding: &Binding, token: &str) -> Result<Version> {
        match self.reach(runtime, way, binding, token) {
            Ok(external) => Ok(Version::Running(external)),
            Err(Error::Python(trouble)) if trouble.blame == Blame::App => {
                Ok(Version::NotStarted { kind: self.kind(way.python), trouble: *trouble })
            }
            Err(error) => Err(error),
        }
    }

    /// The kind of target.
    pub(super) fn kind(&self, python: &PythonOptions) -> TargetKind {
        match self {
            Named::Url(_) => TargetKind::Url,
            Named::Python { .. } if python.is_served() => TargetKind::Served,
            Named::Python { .. } => TargetKind::Python,
        }
    }

    /// Reaches it, whoever answers: a server behind a URL is not asked for anything yet.
    pub(super) fn reach_unseen(
        &self,
        runtime: &Runtime,
        way: Way<'_>,
        binding: &Binding,
        token: &str,
    ) -> Result<External> {
        match self {
            Named::Url(upstream) => Ok(External::new(way.allowance.server(upstream, binding, token), Front::Unknown)),
            Named::Python { app, places } => launcher(app, places, way, binding, token)?(runtime),
        }
    }

    /// Where a Python application is; nothing of a server behind a URL.
    pub(super) fn site(&self, python: &PythonOptions) -> Result<Option<PythonSite>> {
        match self {
            Named::Url(_) => Ok(None),
            Named::Python { app, places } => Ok(Some(python.site(app, places)?.0)),
        }
    }

    /// Something that reaches it once more, for another worker; nothing where it is there once.
    pub(super) fn once_more(&self, way: Way<'_>, binding: &Binding, token: &str) -> Result<Option<Box<Launch>>> {
        match self {
            Named::Url(_) => Ok(None),
            Named::Python { app, places } => launcher(app, places, way, binding, token).map(Some),
        }
    }
}

impl Own {
    /// Whether everything that is said goes together, with these profiles too, and it may be contacted; complains where it is
    /// not so.
    pub(super) fn is_in_order(&self, profiles: &[String]) -> bool {
        self.target.is_in_order(&self.python, profiles, &self.foreign)
    }

    /// The same, where a user can name the routes of a server behind a URL too.
    pub(super) fn is_in_order_by_path(&self, profiles: &[String]) -> bool {
        let python = PythonOptions { path: Vec::new(), ..self.python.clone() };
        self.target.is_in_order(&python, profiles, &self.foreign)
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
        guesses: Guesses,
    ) -> Result<External> {
        let allowance = &Allowance::UNLIMITED;
        let way = Way { allowance, python: &self.python, profile, guesses, seed: 1 };
        self.target.reach_unseen(runtime, way, binding, token)
    }
}

impl Foreign {
    /// Whether a server may be contacted; complains where it may not.
    fn allows(&self, upstream: &Upstream) -> bool {
        let host = upstream.host();
        let is_allowed = upstream.is_loopback() || self.allow_host.iter().any(|allowed| allowed == host);
        if !is_allowed {
            complain_of(&format!(
                "{host} is not this machine; name it with `--allow-host {host}` if it may be contacted"
            ));
        }
        is_allowed
    }

    /// Whether a host is allowed although the target contacts no host at all; complains.
    fn is_out_of_place(&self) -> bool {
        let is_given = !self.allow_host.is_empty();
        if is_given {
            complain_of("--allow-host is about a server behind a URL; a Python application runs on this machine");
        }
        is_given
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

    fn binding(&self) -> Result<Binding> {
        let Some(path) = self.path() else {
            note(
                "no relapse.toml found; using the paths and messages of the built-in backend; `relapse init` writes one, --service-file names one",
            );
            return Ok(Binding::default());
        };
        let read = std::fs::read_to_string(&path);
        let text = read.map_err(|source| Error::Io { doing: "read", path: path.clone(), source })?;
        Binding::parse(&path.display().to_string(), &text)
    }
}

/// The valid token that a service file names, empty where it needs none; `None` where it cannot be had, which is reported.
pub(super) fn valid_token(binding: &Binding) -> Option<String> {
    binding.credential.source.as_ref().map_or(Some(String::new()), read_token)
}

/// A token from its source; `None` where it cannot be had, which is reported.
fn read_token(source: &TokenSource) -> Option<String> {
    Runtime::new(Clock::Real).block_on(token(source)).map_err(|why| complain_of(&why)).ok()
}

/// A token from its source; empty where the target issues it.
///
/// # Errors
/// Says which variable is not set, or what the command did instead of printing a token.
async fn token(source: &TokenSource) -> std::result::Result<String, String> {
    let command = match source {
        TokenSource::Issued => return Ok(String::new()),
        TokenSource::Literal(text) => return Ok(text.clone()),
        TokenSource::Env(name) => {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            return value.ok_or_else(|| {
                format!("the variable {name} is not set, and the service file says that it holds the token")
            });
        }
        TokenSource::Command(command) => command,
    };
    let run = tokio::process::Command::new("sh").arg("-c").arg(command).kill_on_drop(true).output();
    let output = match tokio::time::timeout(COMMAND_LIMIT, run).await {
        Err(_) => return Err(format!("`{command}` printed no token within {} s", COMMAND_LIMIT.as_secs())),
        Ok(Err(error)) => return Err(format!("`{command}` cannot be run: {error}")),
        Ok(Ok(output)) => output,
    };
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !text.is_empty() {
        Ok(text)
    } else {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(format!("`{command}` gave no token ({}): {said}", output.status))
    }
}

/// Starts an interpreter with an application in it.
fn launcher(app: &str, places: &[String], way: Way<'_>, binding: &Binding, token: &str) -> Result<Box<Launch>> {
    end_interpreters_with_us();
    let (site, is_chosen) = way.python.site(app, places)?;
    let (binding, token, seed, guesses) = (binding.clone(), token.to_owned(), way.seed, way.guesses);
    let (named, recorded) = (way.python.path.clone(), way.python.recorded()?);
    let behind = match way.python.server.clone() {
        Some(server) => {
            let python = server.interpreter(&site.python, is_chosen, &note)?;
            Behind::Server(server, PythonSite { python, ..site })
        }
        None => {
            let profile = match way.profile {
                Some(name) => server(name)?,
                None => servers()?.swap_remove(0),
            };
            Behind::Profile(profile, site)
        }
    };
    Ok(Box::new(move |runtime: &Runtime| {
        let (mut reached, introduction) = match &behind {
            Behind::Server(server, site) => {
                let (site, server, front) = (site.clone(), server.clone(), Front::Server(server.to_string()));
                let start_limit = site.start_limit;
                let installation = PythonInstallation { site, server, flags: Vec::new(), start_limit };
                let (server, introduction) = runtime.block_on(PythonServer::start(installation))?;
                (External::new(Served::new(server, &binding, token.clone()), front), introduction)
            }
            Behind::Profile(profile, site) => {
                let launched = PythonTarget::launch(site.clone(), &binding, token.clone(), Arc::clone(profile), seed);
                let (python, introduction) = runtime.block_on(launched)?;
                (External::new(python, Front::Profile(profile.name.clone())), introduction)
            }
        };
        reached.routes = named.iter().cloned().chain(introduction.routes).collect();
        if reached.routes.is_empty() && recorded.is_empty() && binding.is_unknown() {
            // Routes guessed from its code are used if there are no others.
            match guesses {
                Guesses::Apart => reached.guesses = introduction.guesses,
                Guesses::Kept => reached.routes = introduction.guesses,
                Guesses::Checked => {
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
enum Behind {
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
                let Ok(mut stops) = Stops::watch() else { return };
                let _ = ready.send(());
                let stop = stops.next().await;
                if let (Stop::Interrupt, Some(said)) = (stop, ASKS_FIRST.get()) {
                    // A reader of the request may end the process at once.
                    note(said);
                    WAS_ASKED.store(true, Ordering::Release);
                    ASKED.notify_waiters();
                    stops.next().await;
                }
                end_interpreters();
                std::process::exit(INTERRUPTED);
            });
        });
        // From here on Ctrl-C is heard; an error means that it cannot be, and ends the process alone.
        let _ = is_ready.recv();
    });
}

/// The exit code of what Ctrl-C ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// Says what virtual time does not wait for, as far as it was noticed, each kind once, and what to do.
pub(super) fn tell_notes(notes: impl IntoIterator<Item = Note>) {
    let notes = Note::merge(notes);
    notes.iter().for_each(|seen| note(&seen.to_string()));
    if !notes.is_empty() {
        note("--clock real waits for such things, in real time");
    }
}
