//! `relapse serve`: the built-in backend for a browser, a script, or a front-end team.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use relapse::environment::Environment;
use relapse_backend::{
    listening::{Stand, StandSetup},
    revision::Revision,
    runner::read_backend_fault,
};
use relapse_core::{error::Error, fault::Fault};
use relapse_simulate::{
    clock::{Clock, Runtime},
    profile::Profile,
};

use super::{
    CaseSource, Selection, defect,
    error::{CommandResult, Failure},
    exit_code::CommandExit,
    interrupt::until_told_to_stop,
    output::{complain_about, complain_of, print, print_credential},
    proxy::{EdgeFaultArgs, EdgeFaults, ListenArgs},
    server,
};

/// Which backend stands where.
#[derive(Debug, Clone, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    listen: ListenArgs,
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
    faults: EdgeFaultArgs,
    /// The only source of chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    source: CaseSource,
}

/// The backend that stands.
pub(super) struct ServePlan {
    revision: Revision,
    faults: EdgeFaults,
    profile: Arc<Profile>,
    environment: Environment,
    /// The case files that cannot be read.
    broken: Vec<Error>,
}

impl ServeArgs {
    pub(super) fn plan(&self) -> CommandResult<ServePlan> {
        self.listen.address()?;
        let (revision, broken) = self.revision()?;
        let faults = self.faults.read(read_backend_fault)?;
        let profile = server(&self.profile)?;
        let environment = Environment::ALL.into_iter().find(|known| known.name() == self.environment);
        let environment = environment.ok_or_else(|| {
            Error::unknown("environment", &self.environment, Environment::ALL.iter().map(|known| known.name()))
        })?;
        Ok(ServePlan { revision, faults, profile, environment, broken })
    }
}

/// Stands until it is told to stop.
pub(super) fn serve(args: &ServeArgs) -> CommandResult {
    let ServePlan { revision, faults, profile, environment, broken } = args.plan()?;
    broken.iter().for_each(complain_about);
    faults.left_out.iter().for_each(complain_of);
    let faults = faults.faults;
    Runtime::new(Clock::Real).block_on(async {
        let (listen, seed) = (args.listen.address()?, args.seed);
        let setup = StandSetup { listen, revision, profile, environment, faults: faults.clone(), seed };
        let stand = Stand::bind(setup).await?;
        introduce(args, revision, &faults, &stand.token("user-1"), stand.address()?);
        let stop = async {
            until_told_to_stop().await;
        };
        stand.run(Arc::new(print), stop).await?;
        print("stopped");
        Ok(CommandExit::Passes)
    })
}

impl ServeArgs {
    /// The defects named, and those of the reports named; and the case files that cannot be read.
    fn revision(&self) -> CommandResult<(Revision, Vec<Error>)> {
        let mut defects = self.defect.iter().map(|name| defect(name)).collect::<Result<Vec<_>, _>>()?;
        let Selection { cases, broken } = match self.report.as_slice() {
            [] => Selection::default(),
            reports => self.source.select(reports)?,
        };
        for report in &self.report {
            let number = report.trim_start_matches('#');
            if !cases.iter().any(|case| case.issues.iter().any(|issue| issue.trim_start_matches('#') == number)) {
                let unknown = Error::NothingSelected { filter: report.clone(), nearest: None };
                return Err(if broken.is_empty() { unknown.into() } else { Failure::NoCase(broken) });
            }
        }
        defects.extend(cases.iter().flat_map(|case| Revision::from(&case.twin).defects()));
        Ok((Revision::of(defects), broken))
    }
}

/// Says what stands where, and how to talk to it.
fn introduce(args: &ServeArgs, revision: Revision, faults: &[Fault], token: &str, address: SocketAddr) {
    print(format!("http://{address}  {revision} behind {} in {}", args.profile, args.environment));
    for fault in faults {
        print(format!("  {fault}"));
    }
    print_credential(format!("  TOKEN={token}   # user-1, valid for 15 minutes"));
    print(format!("  curl http://{address}/health/ready"));
    print(format!(
        "  curl -i -N -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \\\n    -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' -H \"Authorization: Bearer $TOKEN\" http://{address}/ws"
    ));
    print(format!(
        "  new WebSocket(\"ws://{address}/ws\", [\"jwt-auth\", \"jwt.\" + btoa(TOKEN).replace(/=+$/, \"\")])"
    ));
    print("  Ctrl-C stops");
}
