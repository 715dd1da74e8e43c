//! `relapse init`: finds out how something of the user's own is spoken to, and writes it down.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use relapse::{
    deadline::Deadline,
    init::{InitToken, init as get_acquainted},
    service_file::{ServiceFile, TokenSource},
    trial::{option, shell},
};
use relapse_simulate::clock::Runtime;

use super::{
    error::{CommandResult, UsageError},
    exit_code::CommandExit,
    files::{self, Existing},
    interrupt::{end_in_order, end_request},
    output::{keep_secret, note, print, progress_by_time},
    target::{RouteGuessing, TARGET, TargetArgs, tell_notes, valid_token},
};

/// The server to ask, and where the service file goes.
#[derive(Debug, Clone, Args)]
pub(super) struct InitArgs {
    /// The server profile in front of a Python application.
    #[arg(help_heading = TARGET, long, value_name = "NAME")]
    profile: Option<String>,
    /// The environment variable that holds a valid token.
    #[arg(long, value_name = "NAME", conflicts_with = "token_command")]
    token_env: Option<String>,
    /// The shell command that prints a valid token.
    #[arg(long, value_name = "COMMAND")]
    token_command: Option<String>,
    /// How long all of it may take
    ///
    /// Nothing is written when it takes longer.
    #[arg(hide_short_help = true, long, value_name = "TIME", default_value = "3m", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Write over the file that is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    own: TargetArgs,
}

/// How the target is asked, and where the answer goes.
pub(super) struct InitPlan {
    /// The service file.
    path: PathBuf,
    /// As much as is known before the target is asked.
    binding: ServiceFile,
    /// The valid token; empty without one.
    token: String,
    /// The line of the service file that says where the token comes from.
    token_line: String,
    /// Notes for the user.
    notes: Vec<String>,
}

impl InitArgs {
    pub(super) fn plan(&self) -> CommandResult<InitPlan> {
        let own = &self.own;
        own.check(self.profile.as_slice())?;
        let path = own.service_file.binding.clone().unwrap_or_else(|| PathBuf::from("relapse.toml"));
        // A dangling link counts as an existing file.
        if path.symlink_metadata().is_ok() && !self.force {
            return Err(UsageError::FileExists { path }.into());
        }
        // Of an application its routes are known, of a server nothing is.
        let mut binding = if own.is_loaded() { ServiceFile::unknown() } else { ServiceFile::default() };
        let (source, token_line) = match (&self.token_env, &self.token_command) {
            (Some(name), _) => (Some(TokenSource::Env(name.clone())), format!("env = {}", in_quotes(name))),
            (None, Some(command)) => {
                (Some(TokenSource::Command(command.clone())), format!("command = {}", in_quotes(command)))
            }
            (None, None) => (None, String::new()),
        };
        binding.credential.source = source;
        let token = valid_token(&binding)?;
        binding.know_secrets(&token, own.python.secrets());
        keep_secret(&binding.redactor);
        Ok(InitPlan { path, binding, token, token_line, notes: own.python.left_out()? })
    }
}

/// A text as TOML has it.
fn in_quotes(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Asks the target and writes the service file.
pub(super) fn init(args: &InitArgs) -> CommandResult {
    let InitPlan { path, binding, token, token_line, notes } = args.plan()?;
    notes.iter().for_each(|text| note(text));
    end_in_order("stopping without writing a file; a second signal ends at once");
    let own = &args.own;
    let runtime = Runtime::new(own.clock());
    let deadline = Deadline::after(Some(args.time)).or_when(end_request);
    let server = own.reach(&runtime, args.profile.as_deref(), &binding, &token, RouteGuessing::Kept, deadline)?;
    let bar = progress_by_time("asking");
    bar.enable_steady_tick(Duration::from_millis(200));
    let token = if token.is_empty() { InitToken::None } else { InitToken::Given };
    let found = runtime.block_on(get_acquainted(server, &own.python.path, token, deadline));
    bar.finish_and_clear();
    let found = found?;
    tell_notes(found.notes.iter().cloned());
    let text = found.to_toml(&own.target, &token_line);
    files::write(&path, &text, if args.force { Existing::Replace } else { Existing::Keep })?;
    print(text.trim_end());
    let next = match found.opens {
        true => format!("written; `{}` tries it", shell(&args.validate())),
        false => "written, though no session opened".to_owned(),
    };
    print(format!("\n{}: {next}", path.display()));
    Ok(if found.opens { CommandExit::Passes } else { CommandExit::Finding })
}

impl InitArgs {
    /// The command that checks the same target with the file that is written.
    fn validate(&self) -> Vec<String> {
        let own = &self.own;
        let mut arguments = vec!["relapse".to_owned(), "validate".to_owned()];
        arguments.extend(option("--target", own.target.to_string()));
        self.profile.iter().for_each(|name| arguments.extend(option("--profile", name.clone())));
        arguments.extend([own.python.arguments(), own.service_file.arguments()].concat());
        arguments
    }
}
