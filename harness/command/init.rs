//! `relapse init`: finds out how a server is spoken to, and writes it down.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use relapse::{Binding, Clock, Error, Result, Runtime, get_acquainted};

use super::{
    MISUSE, complain_of, print,
    run::{RATE, progress_by_time},
    validate::{Target, token},
};

/// Which server, and where the binding goes.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    #[command(flatten)]
    target: Target,
    /// A path where it may speak WebSocket; may be given more than once, and is tried before the common ones.
    #[arg(long, value_name = "PATH")]
    path: Vec<String>,
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

/// Asks the server and writes the binding; the exit code is 1 when no session opened.
pub(super) fn init(options: &Options) -> Result<u8> {
    let upstream = &options.target.target;
    if !options.target.foreign.allows(upstream) {
        return Ok(MISUSE);
    }
    let path = options.target.foreign.binding.clone().unwrap_or_else(|| PathBuf::from("relapse.toml"));
    if path.exists() && !options.force {
        complain_of(&format!("{} is there already; --force writes over it", path.display()));
        return Ok(MISUSE);
    }
    let mut binding = Binding::default();
    binding.credential.env.clone_from(&options.token_env);
    binding.credential.command.clone_from(&options.token_command);
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let line = match (&options.token_env, &options.token_command) {
        (Some(name), _) => format!("env = {}", quoted(name)),
        (None, Some(command)) => format!("command = {}", quoted(command)),
        (None, None) => String::new(),
    };
    let pause = if upstream.is_loopback() { Duration::ZERO } else { Duration::from_secs(1) / RATE };
    let bar = progress_by_time("asking");
    bar.enable_steady_tick(Duration::from_millis(200));
    let found = Runtime::new(Clock::Real).block_on(async {
        let token = match token(&binding).await {
            Ok(token) => token,
            Err(why) => {
                complain_of(&why);
                return Ok(None);
            }
        };
        get_acquainted(upstream, &token, &options.path, pause).await.map(Some)
    });
    bar.finish_and_clear();
    let Some(found) = found? else { return Ok(MISUSE) };
    let text = found.to_toml(upstream, &line);
    fs::write(&path, &text).map_err(|source| Error::Io { doing: "write", path: path.clone(), source })?;
    print(text.trim_end());
    let next = if found.opens { "written; `relapse validate` tries it" } else { "written, though no session opened" };
    print(format!("\n{}: {next}", path.display()));
    Ok(u8::from(!found.opens))
}
