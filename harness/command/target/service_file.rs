//! The service file, the hosts that may be contacted, the limit on requests, and tokens.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use relapse::{
    Result,
    files::{FileLimit, read_text},
    service_file::{COMMAND_LIMIT, ServiceFile, TokenSource},
    targets::Url,
    trial::option,
    upstream::Upstream,
};
use relapse_python::process::{Confinement, finish};

use super::TARGET;
use crate::{Moved, error::UsageError, moved};

/// How to speak to an external server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = TARGET)]
pub(crate) struct ServiceFileArgs {
    /// How the target is spoken to [default: relapse.toml]
    ///
    /// Where there is no `relapse.toml`, a server is spoken to as the built-in backend is, and a Python application by
    /// its own routes.
    #[arg(long = "service-file", value_name = "FILE")]
    pub(crate) binding: Option<PathBuf>,
    #[arg(long = "binding", hide = true, value_name = "FILE", value_parser = |_: &str| moved("--service-file"))]
    _binding: Option<Moved>,
    #[command(flatten)]
    hosts: AllowedHostArgs,
}

/// The hosts that may be contacted.
#[derive(Debug, Clone, Args)]
pub(crate) struct AllowedHostArgs {
    /// A host that may be contacted although it is not this machine
    ///
    /// May be given more than once.
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
}

impl AllowedHostArgs {
    /// Checks that a server may be contacted.
    pub(crate) fn check(&self, upstream: &Upstream) -> Result<(), UsageError> {
        let host = upstream.host();
        if upstream.is_loopback() || self.allow_host.iter().any(|allowed| allowed == host) {
            return Ok(());
        }
        Err(UsageError::HostNotAllowed { host: host.to_owned() })
    }
}

/// How many requests a server of the user's own gets at most, unless they say otherwise.
const REQUESTS_MAX: usize = 1000;

/// The limit on requests to an external server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = TARGET)]
pub(crate) struct RequestBudgetArgs {
    /// How many requests each server gets at most
    #[arg(hide_short_help = true, long, value_name = "N", default_value_t = REQUESTS_MAX, requires = "target")]
    max_requests: usize,
    /// How many requests each server gets in a second at most
    ///
    /// As many as come on this machine without it, 10 elsewhere.
    #[arg(hide_short_help = true, long, value_name = "N", requires = "target", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
}

impl RequestBudgetArgs {
    /// The arguments that say the same.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let most = (self.max_requests != REQUESTS_MAX).then(|| ("--max-requests", self.max_requests.to_string()));
        let rate = self.rate.map(|rate| ("--rate", rate.to_string()));
        most.into_iter().chain(rate).flat_map(|(name, value)| option(name, value)).collect()
    }

    /// For a command that asks little, whatever the answers are.
    pub(crate) const UNLIMITED: RequestBudgetArgs = RequestBudgetArgs { max_requests: usize::MAX, rate: None };

    /// The server, to be asked so much.
    pub(crate) fn server(&self, upstream: &Upstream, binding: &ServiceFile, token: &str) -> Url {
        let rate = self.rate.or((!upstream.is_loopback()).then_some(RATE));
        let pause = rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate);
        Url::new(upstream.clone(), binding, token.to_owned(), self.max_requests, pause)
    }
}

/// How many requests a second a server gets that is not on this machine.
const RATE: u32 = 10;

impl ServiceFileArgs {
    /// Checks that a server may be contacted.
    pub(super) fn check_host(&self, upstream: &Upstream) -> Result<(), UsageError> {
        self.hosts.check(upstream)
    }

    /// Checks that no host is allowed, as the target contacts none.
    pub(super) fn check_no_host(&self) -> Result<(), UsageError> {
        if self.hosts.allow_host.is_empty() { Ok(()) } else { Err(UsageError::HostOfPython) }
    }

    /// The arguments that say the same. A service file that is there without its name is named, so that the command does
    /// the same from a script.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let binding = self.path().into_iter().map(|path| ("--service-file", path.display().to_string()));
        let hosts = self.hosts.allow_host.iter().map(|host| ("--allow-host", host.clone()));
        binding.chain(hosts).flat_map(|(name, value)| option(name, value)).collect()
    }

    /// Where the service file is, if anywhere.
    fn path(&self) -> Option<PathBuf> {
        let here = PathBuf::from("relapse.toml");
        self.binding.clone().or_else(|| here.is_file().then_some(here))
    }

    /// Whether there is a service file.
    pub(crate) fn has_binding(&self) -> bool {
        self.path().is_some()
    }

    pub(super) fn binding(&self, notes: &mut Vec<String>) -> Result<ServiceFile> {
        let Some(path) = self.path() else {
            notes.push(
                "no relapse.toml found; using the paths and messages of the built-in backend; `relapse init` writes one, --service-file names one".to_owned(),
            );
            return Ok(ServiceFile::default());
        };
        ServiceFile::parse(&path.display().to_string(), &read_text(&path, FileLimit::WRITTEN)?)
    }
}

/// The valid token that a service file names, empty where it needs none.
pub(crate) fn valid_token(binding: &ServiceFile) -> Result<String, UsageError> {
    binding.credential.source.as_ref().map_or(Ok(String::new()), read_token)
}

/// A token from its source; empty where the target issues it.
///
/// # Errors
/// Says which variable is not set, or what the command did instead of printing a token.
pub(super) fn read_token(source: &TokenSource) -> Result<String, UsageError> {
    let command = match source {
        TokenSource::Issued => return Ok(String::new()),
        TokenSource::Literal(text) => return Ok(text.clone()),
        TokenSource::Env(name) => {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            return value.ok_or_else(|| UsageError::TokenVariable { name: name.clone() });
        }
        TokenSource::Command(command) => command,
    };
    let run = finish(std::process::Command::new("sh").arg("-c").arg(command), Confinement::None, COMMAND_LIMIT);
    let ended = match run {
        Ok(None) => {
            return Err(UsageError::TokenLate { command: command.clone(), seconds: COMMAND_LIMIT.as_secs() });
        }
        Err(error) => {
            return Err(UsageError::TokenCommand { command: command.clone(), why: error.to_string() });
        }
        Ok(Some(ended)) => ended,
    };
    let text = String::from_utf8_lossy(&ended.output).trim().to_owned();
    if ended.status.success() && !text.is_empty() {
        Ok(text)
    } else {
        let said = String::from_utf8_lossy(&ended.errors).trim().to_owned();
        Err(UsageError::NoToken { command: command.clone(), status: ended.status.to_string(), said })
    }
}
