//! `relapse validate`: the check of a deployment, fit for a rollback trigger.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use relapse::{
    Binding, COMMAND_LIMIT, Clock, Error, Result, Runtime, Upstream, Validation, plain_table, validate as try_it,
};

use super::{MISUSE, complain_of, note, print, run::progress_by_time, target::quoted, until_told_to_stop, width};

/// What is looked at, and how long.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    #[command(flatten)]
    target: Target,
    /// How long any single answer may take.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    limit: Duration,
    /// Try again until everything passes, for so long at most, as in `90s`.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Go on until Ctrl-C, and print a line each time.
    #[arg(long, conflicts_with = "wait")]
    watch: bool,
    /// The pause between two tries with --watch.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// How to print what was found.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

/// A server that is not ours.
#[derive(Debug, Clone, Args)]
pub(super) struct Target {
    /// The server: `http://`, `https://`, `ws://` or `wss://`, host and port.
    #[arg(long, value_name = "URL")]
    pub(super) target: Upstream,
    #[command(flatten)]
    pub(super) foreign: Foreign,
}

/// How a server that is not ours is spoken to.
#[derive(Debug, Clone, Args)]
pub(super) struct Foreign {
    /// How it is spoken to; `relapse.toml` where there is one, and what the embedded backend speaks where there is none.
    #[arg(long, value_name = "FILE")]
    pub(super) binding: Option<PathBuf>,
    /// A host that may be contacted although it is not this machine; may be given more than once.
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    Human,
    /// One JSON document; with --watch one a line.
    Json,
}

impl Foreign {
    /// Whether a server may be contacted; complains where it may not.
    pub(super) fn allows(&self, upstream: &Upstream) -> bool {
        let host = upstream.host();
        let is_allowed = upstream.is_loopback() || self.allow_host.iter().any(|allowed| allowed == host);
        if !is_allowed {
            complain_of(&format!(
                "{host} is not this machine; name it with `--allow-host {host}` if it may be contacted"
            ));
        }
        is_allowed
    }

    /// The arguments that say the same.
    pub(super) fn arguments(&self) -> String {
        let binding = self.binding.iter().map(|path| format!(" --binding {}", quoted(&path.display().to_string())));
        let hosts = self.allow_host.iter().map(|host| format!(" --allow-host {}", quoted(host)));
        binding.chain(hosts).collect()
    }

    /// Where the binding is, if anywhere.
    fn path(&self) -> Option<PathBuf> {
        let here = PathBuf::from("relapse.toml");
        self.binding.clone().or_else(|| here.is_file().then_some(here))
    }

    /// Whether anybody has said how it is spoken to.
    pub(super) fn has_binding(&self) -> bool {
        self.path().is_some()
    }

    pub(super) fn binding(&self) -> Result<Binding> {
        let Some(path) = self.path() else {
            note(
                "no relapse.toml here, so it is spoken to as the embedded backend; `relapse init` writes one, --binding names one",
            );
            return Ok(Binding::default());
        };
        let read = std::fs::read_to_string(&path);
        let text = read.map_err(|source| Error::Io { doing: "read", path: path.clone(), source })?;
        Binding::parse(&path.display().to_string(), &text)
    }
}

/// The valid token that a binding names; empty where it names none.
///
/// # Errors
/// Says which variable is not set, or what the command did instead of printing a token.
pub(super) async fn token(binding: &Binding) -> std::result::Result<String, String> {
    let credential = &binding.credential;
    if let Some(name) = &credential.env {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty());
        return value
            .ok_or_else(|| format!("the variable {name} is not set, and the binding says that it holds the token"));
    }
    let Some(command) = &credential.command else { return Ok(credential.literal.clone().unwrap_or_default()) };
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

/// Looks at a deployment; the exit code is 1 when anything is not as it has to be.
pub(super) fn validate(options: &Options) -> Result<u8> {
    if !options.target.foreign.allows(&options.target.target) {
        return Ok(MISUSE);
    }
    let binding = options.target.foreign.binding()?;
    Runtime::new(Clock::Real).block_on(async {
        let token = match token(&binding).await {
            Ok(token) => token,
            Err(why) => {
                complain_of(&why);
                return Ok(MISUSE);
            }
        };
        let once = || try_it(&options.target.target, &binding, &token, options.limit);
        if options.watch {
            return watch(options, once).await;
        }
        #[expect(clippy::disallowed_methods, reason = "the command says how long it took")]
        let began = Instant::now();
        let bar = progress_by_time("tries");
        let mut validation = once().await?;
        bar.inc(1);
        while let Some(limit) = options.wait.filter(|limit| !validation.passes && began.elapsed() < *limit) {
            let failing = failing(&validation);
            bar.set_message(failing);
            tokio::time::sleep(Duration::from_millis(500).min(limit)).await;
            validation = once().await?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        match options.format {
            Format::Human => {
                print(table(&validation));
                let said = if validation.passes { "passes" } else { "FAILS" };
                print(format!("{said} after {:.1} s", began.elapsed().as_secs_f64()));
            }
            Format::Json => print(serde_json::to_string_pretty(&validation).unwrap_or_default()),
        }
        Ok(u8::from(!validation.passes))
    })
}

/// Tries again and again; a line each time.
async fn watch<F: Future<Output = Result<Validation>>>(options: &Options, once: impl Fn() -> F) -> Result<u8> {
    let (mut tries, mut passed, mut last_failure) = (0_u32, 0_u32, None::<String>);
    let stop = until_told_to_stop();
    let mut stop = std::pin::pin!(stop);
    loop {
        let validation = tokio::select! {
            validation = once() => validation?,
            _ = stop.as_mut() => break,
        };
        tries += 1;
        passed += u32::from(validation.passes);
        if !validation.passes {
            last_failure = Some(failing(&validation));
        }
        match options.format {
            Format::Json => print(serde_json::to_string(&validation).unwrap_or_default()),
            Format::Human => {
                let rate = 100.0 * f64::from(passed) / f64::from(tries);
                let last = last_failure.as_ref().map_or(String::new(), |last| format!("; last failure: {last}"));
                let said = if validation.passes { "passes" } else { "FAILS " };
                print(format!("{said}  {passed} of {tries} ({rate:.0} %){last}"));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(options.every) => {}
            _ = stop.as_mut() => break,
        }
    }
    Ok(u8::from(passed < tries || tries == 0))
}

/// The first thing that is not as it has to be.
fn failing(validation: &Validation) -> String {
    let failing = validation.rows.iter().find(|row| !row.passes);
    failing.map_or(String::new(), |row| format!("{}: {}", row.tried, row.got))
}

fn table(validation: &Validation) -> String {
    let mut table = plain_table(width());
    table.set_header(["", "tried", "expected", "got", "ms"]);
    for row in &validation.rows {
        let took = row.took_ms.map_or(String::new(), |took| took.to_string());
        let mark = if row.passes { "ok" } else { "FAILS" };
        table.add_row([mark, &row.tried, &row.expected, &row.got, &took]);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    let named = if validation.server.is_empty() { String::new() } else { format!("{}, ", validation.server) };
    let notes: String = validation.notes.iter().map(|note| format!("\n{note}")).collect();
    format!("{}\n\nserver: {named}{}{notes}", lines.join("\n"), validation.kind)
}
