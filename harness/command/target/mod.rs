//! The target that `--target` names: a server behind a URL, or a Python application.

mod described;
mod fronts;
mod launch;
mod python_args;
mod service_file;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use clap::Args;
use relapse::{
    Result,
    deadline::Deadline,
    discover::servers,
    external::{External, Front, Version},
    hunt::Launch,
    note::Note,
    route::RouteTrouble,
    service_file::ServiceFile,
    upstream::Upstream,
};
use relapse_core::{
    error::{Blame, Error},
    record::service::TargetKind,
};
use relapse_python::process::{CodeCoverage, Site as PythonSite};
use relapse_simulate::clock::{Clock, Runtime};

pub(super) use self::{
    fronts::{behind_each, profiles_in_front},
    python_args::PythonArgs,
    service_file::{AllowedHostArgs, RequestBudgetArgs, ServiceFileArgs, valid_token},
};
use self::{launch::launcher, service_file::read_token};
use super::{
    error::{CommandResult, UsageError},
    output::{keep_secret, note},
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

/// How to treat routes that the code of an application only seems to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteGuessing {
    /// Only those that the application serves are kept.
    Checked,
    /// All of them are kept.
    Kept,
    /// They are asked for only where nothing else shows that a client is let in: each request may change the app.
    Apart,
}

/// Everything that says how something of the user's own is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct TargetContext<'a> {
    pub(super) budget: &'a RequestBudgetArgs,
    pub(super) python: &'a PythonArgs,
    /// The profile of the server in front of a Python application; the first that is known without one.
    pub(super) profile: Option<&'a str>,
    pub(super) guesses: RouteGuessing,
    /// Whether the code that the app's calls reach is counted.
    pub(super) coverage: CodeCoverage,
    pub(super) seed: u64,
    /// The end of the work that it is started for.
    pub(super) deadline: Deadline,
}

/// How a target is spoken to.
#[derive(Debug, Clone)]
pub(super) struct TargetIntroduction {
    pub(super) binding: ServiceFile,
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
            TargetSpec::Python { .. } => python.clock(),
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
                python.without_routes().check_absent()?;
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
        let names_routes = self.is_python() || python.names_routes();
        let mut binding = if !names_routes || service_file.has_binding() {
            service_file.binding(&mut notes)?
        } else {
            notes.push(
                "no relapse.toml found; using its routes with generated values; a relapse.toml with its paths, \
                 credential and messages, which `relapse init` writes, lets more of it be judged"
                    .to_owned(),
            );
            ServiceFile::unknown()
        };
        let token = valid_token(&binding)?;
        for (name, user) in &binding.users {
            binding.user_tokens.insert(name.clone(), read_token(&user.source)?);
        }
        binding.know_secrets(&token, python.secrets());
        keep_secret(&binding.redactor);
        Ok(TargetIntroduction { binding, token, notes })
    }

    /// Reaches it, and finds out which server answers.
    pub(super) fn reach(
        &self,
        runtime: &Runtime,
        context: TargetContext<'_>,
        binding: &ServiceFile,
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
        binding: &ServiceFile,
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

    /// Reaches it without asking a server behind a URL for anything yet.
    pub(super) fn reach_unseen(
        &self,
        runtime: &Runtime,
        context: TargetContext<'_>,
        binding: &ServiceFile,
        token: &str,
    ) -> Result<External> {
        match self {
            TargetSpec::Url(upstream) => {
                let server = External::new(context.budget.server(upstream, binding, token), Front::Unknown);
                Ok(External { routes: context.python.named_routes()?, ..server })
            }
            TargetSpec::Python { app, places } => {
                let reached = launcher(app, places, context, binding, token)?(runtime)?;
                tell_troubles(&reached.troubles);
                Ok(reached)
            }
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
        binding: &ServiceFile,
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

    /// The clock it is reached on.
    pub(super) fn clock(&self) -> Clock {
        self.target.clock(&self.python)
    }

    /// Reaches it behind this profile.
    pub(super) fn reach(
        &self,
        runtime: &Runtime,
        profile: Option<&str>,
        binding: &ServiceFile,
        token: &str,
        guesses: RouteGuessing,
        deadline: Deadline,
    ) -> Result<External> {
        let budget = &RequestBudgetArgs::UNLIMITED;
        let (python, coverage) = (&self.python, CodeCoverage::None);
        let context = TargetContext { budget, python, profile, guesses, coverage, seed: 1, deadline };
        self.target.reach_unseen(runtime, context, binding, token)
    }
}

/// Says which routes could not be learned, each failure once.
fn tell_troubles(troubles: &[RouteTrouble]) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    for trouble in troubles.iter().map(ToString::to_string) {
        if !told.contains(&trouble) {
            note(&trouble);
            told.insert(trouble);
        }
    }
}

/// Says what virtual time does not wait for, as far as it was noticed, each kind once, and what to do.
pub(super) fn tell_notes(notes: impl IntoIterator<Item = Note>) {
    let notes = Note::merge(notes);
    notes.iter().for_each(|seen| note(&seen.to_string()));
    if !notes.is_empty() {
        note("--clock real waits for such things, in real time");
    }
}
