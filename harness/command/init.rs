//! `relapse init`: finds out how something of the user's own is spoken to, and writes it down.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use relapse::{
    Result,
    binding::{ServiceFile, TokenSource},
    init::init as get_acquainted,
    trial::{option, shell},
};
use relapse_core::error::Error;
use relapse_simulate::clock::Runtime;

use super::{
    MISUSE, complain_of, print,
    run::progress_by_time,
    target::{Guesses, Own, tell_notes, valid_token},
};

/// The server to ask, and where the service file goes.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    #[command(flatten)]
    own: Own,
    /// The server profile in front of a Python application.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The environment variable that holds a valid token.
    #[arg(long, value_name = "NAME", conflicts_with = "token_command")]
    token_env: Option<String>,
    /// The shell command that prints a valid token.
    #[arg(long, value_name = "COMMAND")]
    token_command: Option<String>,
    /// Write over the file that is there.
    #[arg(long)]
    force: bool,
}

/// Asks the server and writes the service file; the exit code is 1 when no session opened.
pub(super) fn init(options: &Options) -> Result<u8> {
    let own = &options.own;
    if !own.is_in_order_by_path(options.profile.as_slice()) {
        return Ok(MISUSE);
    }
    let path = own.foreign.binding.clone().unwrap_or_else(|| PathBuf::from("relapse.toml"));
    if path.exists() && !options.force {
        complain_of(&format!("{} is there already; --force writes over it", path.display()));
        return Ok(MISUSE);
    }
    // Of an application its routes are known, of a server nothing is.
    let mut binding = if own.target.is_python() { ServiceFile::unknown() } else { ServiceFile::default() };
    binding.credential.source = match (&options.token_env, &options.token_command) {
        (Some(name), _) => Some(TokenSource::Env(name.clone())),
        (None, Some(command)) => Some(TokenSource::Command(command.clone())),
        (None, None) => None,
    };
    let Some(token) = valid_token(&binding) else { return Ok(MISUSE) };
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let line = match (&options.token_env, &options.token_command) {
        (Some(name), _) => format!("env = {}", quoted(name)),
        (None, Some(command)) => format!("command = {}", quoted(command)),
        (None, None) => String::new(),
    };
    own.python.tell_left_out()?;
    let runtime = Runtime::new(own.clock());
    let server = own.reach(&runtime, options.profile.as_deref(), &binding, &token, Guesses::Kept)?;
    let bar = progress_by_time("asking");
    bar.enable_steady_tick(Duration::from_millis(200));
    let found = runtime.block_on(get_acquainted(server, &own.python.path, !token.is_empty()));
    bar.finish_and_clear();
    let found = found?;
    tell_notes(found.notes.iter().cloned());
    let text = found.to_toml(&own.target, &line);
    fs::write(&path, &text).map_err(|source| Error::Io { doing: "write", path: path.clone(), source })?;
    print(text.trim_end());
    let next = match found.opens {
        true => format!("written; `{}` tries it", shell(&options.validate())),
        false => "written, though no session opened".to_owned(),
    };
    print(format!("\n{}: {next}", path.display()));
    Ok(u8::from(!found.opens))
}

impl Options {
    /// The command that checks the same target with the file that is written.
    fn validate(&self) -> Vec<String> {
        let own = &self.own;
        let mut arguments = vec!["relapse".to_owned(), "validate".to_owned()];
        arguments.extend(option("--target", own.target.to_string()));
        self.profile.iter().for_each(|name| arguments.extend(option("--profile", name.clone())));
        arguments.extend([own.python.arguments(), own.foreign.arguments()].concat());
        arguments
    }
}
