//! The target that `--target` names, in one of the [`FORMS`].

mod described;
mod fronts;
mod python;
mod python_args;
mod service_file;
mod url;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use relapse::{
    Result,
    deadline::Deadline,
    discover::servers,
    external::{External, Version},
    hunt::Launch,
    note::Note,
    service_file::ServiceFile,
};
use relapse_core::{
    error::{Blame, Error},
    record::service::TargetKind,
};
use relapse_python::process::{CodeCoverage, Site as PythonSite};
use relapse_simulate::clock::{Clock, Runtime};

use self::service_file::read_token;
pub(super) use self::{
    fronts::{behind_each, profiles_in_front},
    python_args::PythonArgs,
    service_file::{AllowedHostArgs, RequestBudgetArgs, ServiceFileArgs, valid_token},
};
use super::{
    error::{CommandResult, UsageError},
    output::{keep_secret, note},
};

/// The heading of options about a target, in help.
pub(super) const TARGET: &str = "Target";

/// The forms of a target, in the order of the help. The first takes every text that no other takes.
static FORMS: [&FormEntry; 2] = [&url::FORM, &python::FORM];

/// A form in which users name a target of their own. Each form is a file in this directory and an entry of [`FORMS`].
struct FormEntry {
    /// The noun for its targets, unique among the forms.
    noun: &'static str,
    /// How such a target is written, as the help says it.
    written: &'static str,
    /// Reads a text: `None` if it is not of this form, an error if it is and is malformed.
    parse: fn(&str) -> Option<ParsedForm>,
}

/// A target that was read, or why its text is none.
type ParsedForm = Result<Arc<dyn TargetForm>, String>;

/// A target as one form names it. It is printed as it is parsed.
trait TargetForm: fmt::Debug + fmt::Display + Send + Sync {
    /// The kind of target.
    fn kind(&self, python: &PythonArgs) -> TargetKind;

    /// The clock it is reached on.
    fn clock(&self, python: &PythonArgs) -> Clock;

    /// Checks that the other options fit it, and that it may be contacted.
    fn check(&self, python: &PythonArgs, profiles: &[String], service_file: &ServiceFileArgs)
    -> Result<(), UsageError>;

    /// Reaches it without asking a real server for anything yet.
    fn reach(
        &self,
        runtime: &Runtime,
        context: TargetContext<'_>,
        binding: &ServiceFile,
        token: &str,
    ) -> Result<External>;

    /// A launcher of a further instance of it for another worker; `None` where there is only one.
    fn once_more(&self, _: TargetContext<'_>, _: &ServiceFile, _token: &str) -> Result<Option<Box<Launch>>> {
        Ok(None)
    }

    /// The directory and interpreter of a Python application; `None` of any other target.
    fn site(&self, _: &PythonArgs) -> Result<Option<PythonSite>> {
        Ok(None)
    }
}

/// Something of the user's own.
#[derive(Debug, Clone)]
pub(super) struct TargetSpec {
    /// The noun of its form.
    pub(super) noun: &'static str,
    target: Arc<dyn TargetForm>,
}

impl FromStr for TargetSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<TargetSpec, String> {
        let read =
            |form: &&FormEntry| (form.parse)(text).map(|target| Ok(TargetSpec { noun: form.noun, target: target? }));
        FORMS.iter().rev().find_map(read).unwrap_or_else(|| Err("it has no known form".to_owned()))
    }
}

impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

/// The help of an option that takes a target.
pub(super) struct TargetHelp {
    /// The first line, with `{}` for the nouns of all forms.
    pub(super) summary: &'static str,
    /// Sentences that follow on how a target is written; empty for none.
    pub(super) more: &'static str,
}

/// The help where a command looks at one target.
const THE_TARGET: TargetHelp = TargetHelp { summary: "The target: a {}", more: "" };

impl TargetHelp {
    /// The help in one line.
    pub(super) fn short(&self) -> String {
        self.summary.replace("{}", &FORMS.map(|form| form.noun).join(" or "))
    }

    /// The same, with how a target of each form is written.
    pub(super) fn long(&self) -> String {
        let written = FORMS.map(|form| format!("a {} as {}", form.noun, form.written)).join("; ");
        let written = written.replacen("a ", "A ", 1).replacen(" as ", " is written as ", 1);
        format!("{}\n\n{written}. {}", self.short(), self.more).trim_end().to_owned()
    }
}

/// Something of the user's own, and everything that says how it is reached, for a command that looks at one thing.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = TARGET)]
pub(super) struct TargetArgs {
    #[arg(long, value_name = "TARGET", help = THE_TARGET.short(), long_help = THE_TARGET.long())]
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

impl TargetIntroduction {
    /// Knows the secrets of the target; from now on none of them is printed.
    fn of(mut binding: ServiceFile, token: String, notes: Vec<String>, python: &PythonArgs) -> TargetIntroduction {
        binding.know_secrets(&token, python.secrets());
        keep_secret(&binding.redactor);
        TargetIntroduction { binding, token, notes }
    }

    /// For cases that say everything in the target's own words: nothing is asked about it.
    pub(super) fn unasked(python: &PythonArgs) -> CommandResult<TargetIntroduction> {
        Ok(TargetIntroduction::of(ServiceFile::unknown(), String::new(), python.left_out()?, python))
    }
}

impl TargetSpec {
    /// The kind of target.
    pub(super) fn kind(&self, python: &PythonArgs) -> TargetKind {
        self.target.kind(python)
    }

    /// The clock it is reached on.
    pub(super) fn clock(&self, python: &PythonArgs) -> Clock {
        self.target.clock(python)
    }

    /// Checks that each of these versions has its form, fits the other options, and may be contacted.
    pub(super) fn check_versions(
        &self,
        versions: &[&TargetSpec],
        python: &PythonArgs,
        profiles: &[String],
        service_file: &ServiceFileArgs,
    ) -> Result<(), UsageError> {
        for version in versions {
            if version.noun != self.noun {
                return Err(UsageError::DifferentKinds { one: self.noun, other: version.noun });
            }
            version.check(python, profiles, service_file)?;
        }
        Ok(())
    }

    /// Checks that the other options fit it, and that it may be contacted.
    pub(super) fn check(
        &self,
        python: &PythonArgs,
        profiles: &[String],
        service_file: &ServiceFileArgs,
    ) -> Result<(), UsageError> {
        self.target.check(python, profiles, service_file)
    }

    /// Finds out how it is spoken to: reads the service file and the recordings, and gets the tokens.
    pub(super) fn introduce(
        &self,
        python: &PythonArgs,
        service_file: &ServiceFileArgs,
    ) -> CommandResult<TargetIntroduction> {
        let mut notes = python.left_out()?;
        let names_routes = self.kind(python).is_loaded() || python.names_routes();
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
        Ok(TargetIntroduction::of(binding, token, notes, python))
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

    /// Reaches it without asking a real server for anything yet.
    pub(super) fn reach_unseen(
        &self,
        runtime: &Runtime,
        context: TargetContext<'_>,
        binding: &ServiceFile,
        token: &str,
    ) -> Result<External> {
        self.target.reach(runtime, context, binding, token)
    }

    /// The directory and interpreter of a Python application; `None` of any other target.
    pub(super) fn site(&self, python: &PythonArgs) -> Result<Option<PythonSite>> {
        self.target.site(python)
    }

    /// A launcher of a further instance of it for another worker; `None` where there is only one.
    pub(super) fn once_more(
        &self,
        context: TargetContext<'_>,
        binding: &ServiceFile,
        token: &str,
    ) -> Result<Option<Box<Launch>>> {
        self.target.once_more(context, binding, token)
    }
}

impl TargetArgs {
    /// Whether the harness loads it: an app of the user's, which ends with the harness and tells its own routes.
    pub(super) fn is_loaded(&self) -> bool {
        self.target.kind(&self.python).is_loaded()
    }

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

/// Says what virtual time does not wait for, as far as it was noticed, each kind once, and what to do.
pub(super) fn tell_notes(notes: impl IntoIterator<Item = Note>) {
    let notes = Note::merge(notes);
    notes.iter().for_each(|seen| note(&seen.to_string()));
    if !notes.is_empty() {
        note("--clock real waits for such things, in real time");
    }
}
