//! `relapse serve`: the built-in backend for a browser, a script, or a front-end team.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use relapse::{Result, environment::Environment};
use relapse_backend::{
    conductor::read_backend_fault,
    defect::Defect,
    revision::Revision,
    stand::{Stand, StandSetup},
};
use relapse_core::{error::Error, fault::Fault};
use relapse_simulate::clock::{Clock, Runtime};

use super::{Source, print, proxy::Faults, server, until_told_to_stop};

/// Which backend stands where.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// Where it listens; port 0 lets the system pick one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Serve with this defect instead of the repaired service; may be given more than once.
    #[arg(long, value_name = "NAME")]
    defect: Vec<String>,
    /// Serve with every defect that the cases of this report have, as in 508.
    #[arg(long, value_name = "NUMBER")]
    report: Vec<String>,
    /// Behave as this server does.
    #[arg(long, value_name = "NAME", default_value = "uvicorn-0.35")]
    profile: String,
    /// The environment it believes to be in.
    #[arg(long, value_name = "NAME", default_value = "staging", value_parser = ["development", "testing", "staging", "production"])]
    environment: String,
    #[command(flatten)]
    faults: Faults,
    /// The only source of chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    source: Source,
}

/// Stands until it is told to stop.
pub(super) fn serve(options: &Options) -> Result<u8> {
    let revision = revision(options)?;
    let faults = options.faults.read(read_backend_fault)?;
    let profile = server(&options.profile)?;
    let named = |known: &Environment| known.name() == options.environment;
    let environment = Environment::ALL.into_iter().find(named).expect("the arguments are checked");
    Runtime::new(Clock::Real).block_on(async {
        let (listen, seed) = (options.listen, options.seed);
        let setup = StandSetup { listen, revision, profile, environment, faults: faults.clone(), seed };
        let stand = Stand::bind(setup).await?;
        introduce(options, revision, &faults, &stand.token("user-1"), stand.address()?);
        let stop = async {
            until_told_to_stop().await;
        };
        stand.run(Arc::new(print), stop).await?;
        print("stopped");
        Ok(0)
    })
}

/// The defects named, and those of the reports named.
fn revision(options: &Options) -> Result<Revision> {
    let mut defects = Vec::new();
    for name in &options.defect {
        let unknown = || Error::unknown("defect", name, Defect::ALL.iter().map(|defect| defect.name()));
        defects.push(Defect::ALL.iter().copied().find(|defect| defect.name() == name).ok_or_else(unknown)?);
    }
    let (cases, _) =
        if options.report.is_empty() { Default::default() } else { options.source.select(&options.report)? };
    for report in &options.report {
        let number = report.trim_start_matches('#');
        if !cases.iter().any(|case| case.issues.iter().any(|issue| issue.trim_start_matches('#') == number)) {
            return Err(Error::NothingSelected { filter: report.clone(), nearest: None });
        }
    }
    defects.extend(cases.iter().flat_map(|case| Revision::from(&case.twin).defects()));
    Ok(Revision::of(defects))
}

/// Says what stands where, and how to talk to it.
fn introduce(options: &Options, revision: Revision, faults: &[Fault], token: &str, address: SocketAddr) {
    print(format!("http://{address}  {revision} behind {} in {}", options.profile, options.environment));
    for fault in faults {
        print(format!("  {fault}"));
    }
    print(format!("  TOKEN={token}   # user-1, valid for 15 minutes"));
    print(format!("  curl http://{address}/health/ready"));
    print(format!(
        "  curl -i -N -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \\\n    -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' -H \"Authorization: Bearer $TOKEN\" http://{address}/ws"
    ));
    print(format!(
        "  new WebSocket(\"ws://{address}/ws\", [\"jwt-auth\", \"jwt.\" + btoa(TOKEN).replace(/=+$/, \"\")])"
    ));
    print("  Ctrl-C stops");
}
