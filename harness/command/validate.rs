//! `relapse validate`: the check of a deployment, fit for a rollback trigger.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::report::table::plain_table;
use clap::{Args, ValueEnum};
use relapse::{
    Result,
    binding::ServiceFile,
    external::External,
    validate::{Validation, validate as try_it},
};
use relapse_simulate::clock::{Clock, Runtime};

use super::{
    MISUSE, complain_of, print,
    run::progress_by_time,
    target::{Guesses, Headings, Own, ask_first, asked_to_end, behind_each, profiles_in_front, tell_notes},
    until_told_to_stop, width,
};

/// The target to look at, and the time limits.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    #[command(flatten)]
    own: Own,
    /// The server profile in front of a Python application; may be given more than once, as a glob too, and `all` for all: it
    /// is looked at behind each in turn.
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// How long any single answer may take.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    limit: Duration,
    /// Try again until everything passes, for so long at most, as in `90s`; where time is real.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Go on until Ctrl-C, and print a line each time; where time is real.
    #[arg(long, conflicts_with = "wait")]
    watch: bool,
    /// The pause between two tries with --watch.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// How to print what was found.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    Human,
    /// One JSON document, which names each profile where there are several; with --watch one a line.
    Json,
}

/// Looks at a deployment; the exit code is 1 when anything is not as it has to be.
pub(super) fn validate(options: &Options) -> Result<u8> {
    let own = &options.own;
    if !own.is_in_order(&options.profile) || options.waits_in_vain() {
        return Ok(MISUSE);
    }
    let fronts = profiles_in_front(&own.target, &own.python, &options.profile)?;
    if options.watch && fronts.len() > 1 {
        complain_of("--watch looks behind one profile: name one");
        return Ok(MISUSE);
    }
    own.python.tell_left_out()?;
    let Some((binding, token)) = own.target.introduced(&own.foreign)? else { return Ok(MISUSE) };
    if options.watch && own.target.is_python() {
        ask_first("it ends in good order; once more ends everything");
    }
    let headings = if options.format == Format::Human { Headings::Printed } else { Headings::Omitted };
    let (code, looked) = behind_each(&fronts, headings, |front| behind(options, front, &binding, &token))?;
    if options.format == Format::Json {
        match looked.as_slice() {
            [] => {}
            [(_, validation)] if fronts.len() == 1 => {
                print(serde_json::to_string_pretty(validation).unwrap_or_default());
            }
            _ => {
                let named = looked.into_iter().map(|(front, validation)| (front.unwrap_or_default(), validation));
                let by_profile: BTreeMap<String, Validation> = named.collect();
                print(serde_json::to_string_pretty(&by_profile).unwrap_or_default());
            }
        }
    }
    Ok(code)
}

/// Looks behind one front; the exit code, and what was seen where that is told later.
fn behind(
    options: &Options,
    front: Option<&str>,
    binding: &ServiceFile,
    token: &str,
) -> Result<(u8, Option<Validation>)> {
    let own = &options.own;
    let runtime = Runtime::new(own.clock());
    let mut server = own.reach(&runtime, front, binding, token, Guesses::Checked)?;
    if binding.is_unknown() && server.routes.is_empty() {
        complain_of("it tells no routes: --path names one, or a relapse.toml says how it is spoken to");
        return Ok((MISUSE, None));
    }
    let looked = runtime.block_on(async {
        match options.watch {
            true => watch(options, &mut server, binding).await.map(|code| (code, None)),
            false => look(options, &mut server, binding).await,
        }
    });
    tell_notes(server.target.notes());
    looked
}

impl Options {
    /// Whether it is to wait where only what is awaited takes time; complains.
    fn waits_in_vain(&self) -> bool {
        let is_in_vain = (self.watch || self.wait.is_some()) && self.own.clock() == Clock::Virtual;
        if is_in_vain {
            complain_of(
                "--wait and --watch let time pass, and that of an application in memory is virtual: --server runs it behind \
                 a real server, and --clock real lets it keep real time",
            );
        }
        is_in_vain
    }
}

/// Looks once, or until everything passes; the exit code, and what was seen, which is printed for people already.
async fn look(options: &Options, server: &mut External, binding: &ServiceFile) -> Result<(u8, Option<Validation>)> {
    #[expect(clippy::disallowed_methods, reason = "the command says how long it took")]
    let began = Instant::now();
    let bar = progress_by_time("tries");
    let mut validation = try_it(server, binding, &options.own.python.path, options.limit).await?;
    bar.inc(1);
    while let Some(limit) = options.wait.filter(|limit| !validation.passes && began.elapsed() < *limit) {
        let failing = failing(&validation);
        bar.set_message(failing);
        tokio::time::sleep(Duration::from_millis(500).min(limit)).await;
        validation = try_it(server, binding, &options.own.python.path, options.limit).await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    if validation.rows.is_empty() {
        complain_of("there is nothing that can be tried without changing anything: --path names what may be asked for");
        return Ok((MISUSE, None));
    }
    validation.shutdown = server.shut_down().await?;
    validation.passes &= validation.shutdown.is_empty();
    if options.format == Format::Human {
        print(table(&validation));
        let said = if validation.passes { "passes" } else { "FAILS" };
        print(format!("{said} after {:.1} s", began.elapsed().as_secs_f64()));
    }
    Ok((u8::from(!validation.passes), Some(validation)))
}

/// Looks again and again; a line each time.
async fn watch(options: &Options, server: &mut External, binding: &ServiceFile) -> Result<u8> {
    let (mut tries, mut passed, mut last_failure) = (0_u32, 0_u32, None::<String>);
    let stop = async {
        match options.own.target.is_python() {
            // Anything but Ctrl-C ends the process, with its interpreters.
            true => asked_to_end().await,
            false => until_told_to_stop().await,
        }
    };
    let mut stop = std::pin::pin!(stop);
    loop {
        let validation = tokio::select! {
            validation = try_it(server, binding, &options.own.python.path, options.limit) => validation?,
            () = stop.as_mut() => break,
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
            () = stop.as_mut() => break,
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
    let ends = validation.shutdown.iter().map(|complaint| format!("shutdown: {complaint}"));
    let notes: String = validation.notes.iter().cloned().chain(ends).map(|note| format!("\n{note}")).collect();
    format!("{}\n\nserver: {named}{}{notes}", lines.join("\n"), validation.kind)
}
