//! `relapse proxy`: the edge in front of any server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use relapse::{
    Result,
    discover::{balancer, read_edge_fault},
    proxy::{
        LogRecord, Proxy, ProxyHandle, ProxySetup,
        control::{ControlToken, serve as serve_control},
    },
    upstream::Upstream,
};
use relapse_core::{
    fault::{Fault, Place},
    record::redact::{KnownSecret, Redactor},
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    link::Listener,
};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::mpsc;

use super::{
    CaseSource, Selection,
    error::{CommandResult, Failure, UsageError},
    exit_code::CommandExit,
    interrupt::until_told_to_stop,
    orders,
    output::{complain_of, keep_secret, print_credential, print_page, standing_progress, tell_progress},
    report::{
        formats::{Format, Printing},
        proxy::ProxyEvent,
    },
    target::AllowedHostArgs,
};

/// Where it stands, what it carries to, and what acts on the way.
#[derive(Debug, Clone, Args)]
pub(super) struct ProxyArgs {
    /// The server behind it: `http://`, `https://`, `ws://` or `wss://`, host and port. Paths are the client's.
    #[arg(long, value_name = "URL")]
    upstream: Upstream,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    hosts: AllowedHostArgs,
    #[command(flatten)]
    faults: EdgeFaultArgs,
    /// How many connections are carried at a time; further ones are refused with 503.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,
    /// The only source of chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where it is controlled from: faults are listed, added, removed and paused there, and the log is read as it comes.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// How to print the log.
    #[arg(long, default_value = "human", value_parser = Format::parser(|renderer| renderer.log))]
    format: Format<fn(&ProxyEvent<'_>) -> String>,
}

/// Where something listens, and for whom.
#[derive(Debug, Clone, Args)]
pub(super) struct ListenArgs {
    /// Where it listens; port 0 lets the system pick one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Let clients on other machines in, where it listens for them.
    #[arg(long)]
    allow_remote_clients: bool,
}

impl ListenArgs {
    /// The address, if no other machine reaches it, or may.
    pub(super) fn address(&self) -> Result<SocketAddr, UsageError> {
        match self.listen.ip().is_loopback() || self.allow_remote_clients {
            true => Ok(self.listen),
            false => Err(UsageError::RemoteClients { address: self.listen }),
        }
    }
}

/// The faults that act at an edge.
#[derive(Debug, Clone, Args)]
pub(super) struct EdgeFaultArgs {
    /// A fault in one line, its kind and its settings, as in `strip_header header=Authorization` or
    /// `cut after_bytes=300 direction=to-client nth=2`; may be given more than once. `relapse list --faults` lists the kinds.
    #[arg(long, value_name = "FAULT")]
    fault: Vec<String>,
    /// Behave as this load balancer does: gcp-https, cloud-run, alb, nginx, nginx-websocket, traefik, cloudflare or
    /// envoy.
    #[arg(long, value_name = "NAME")]
    lb: Option<String>,
    /// The edge faults of this case file.
    #[arg(long, value_name = "FILE")]
    case: Option<PathBuf>,
    /// Multiply every time of every fault by this, as in 0.1 to wait a tenth.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    time_scale: f64,
}

/// The faults of the arguments, and what of them cannot act.
#[derive(Debug)]
pub(super) struct EdgeFaults {
    pub(super) faults: Vec<Fault>,
    pub(super) left_out: Vec<UsageError>,
}

fn factor(text: &str) -> std::result::Result<f64, String> {
    let factor = text.parse().ok().filter(|factor: &f64| (0.0001..=1000.0).contains(factor));
    factor.ok_or_else(|| "write a number from 0.0001 to 1000".to_owned())
}

impl EdgeFaultArgs {
    /// All of them, in the order: the balancer's, the case's, the single ones.
    pub(super) fn read(&self, read_fault: impl Fn(&str) -> Result<Fault>) -> CommandResult<EdgeFaults> {
        let (mut faults, mut left_out) = (Vec::new(), Vec::new());
        if let Some(name) = &self.lb {
            faults.extend(balancer(name)?.faults);
        }
        if let Some(path) = &self.case {
            let of_case = edge_faults_of(path)?;
            faults.extend(of_case.faults);
            left_out.extend(of_case.left_out);
        }
        for line in &self.fault {
            faults.push(read_fault(line)?);
        }
        if self.time_scale != 1.0 {
            faults = faults.iter().map(|fault| fault.scaled(self.time_scale)).collect();
        }
        Ok(EdgeFaults { faults, left_out })
    }
}

/// The edge faults of a case.
fn edge_faults_of(path: &std::path::Path) -> CommandResult<EdgeFaults> {
    let name = path.display().to_string();
    let source = CaseSource { cases: None };
    let Selection { cases, broken } = source.select(std::slice::from_ref(&name))?;
    if !broken.is_empty() {
        return Err(Failure::NoCase(broken));
    }
    let (edge, others): (Vec<Fault>, Vec<Fault>) = cases
        .iter()
        .flat_map(|case| case.faults.iter().cloned())
        .partition(|fault| fault.kind.place() == Place::Edge && fault.trigger.step.is_none());
    let mut left_out = Vec::new();
    for fault in others {
        left_out.push(UsageError::FaultElsewhere { fault: fault.to_string(), case: name.clone() });
    }
    if edge.is_empty() {
        left_out.push(UsageError::NoEdgeFault { case: name.clone() });
    }
    Ok(EdgeFaults { faults: edge, left_out })
}

/// How long connections that are ending anyway may take when the proxy is told to stop.
const ENDING_LIMIT: Duration = Duration::from_millis(1500);

impl ProxyArgs {
    pub(super) fn plan(&self) -> CommandResult<EdgeFaults> {
        let faults = self.faults.read(read_edge_fault)?;
        if !self.control.ip().is_loopback() {
            return Err(UsageError::ControlFromElsewhere.into());
        }
        self.listen.address()?;
        self.hosts.check(&self.upstream)?;
        Ok(faults)
    }
}

/// Stands until it is told to stop.
pub(super) fn proxy(args: &ProxyArgs) -> CommandResult {
    let EdgeFaults { faults, left_out } = args.plan()?;
    left_out.iter().for_each(complain_of);
    let line = args.format.pages;
    Runtime::standing().block_on(async {
        let setup = ProxySetup {
            listen: args.listen.address()?,
            upstream: args.upstream.clone(),
            faults,
            seed: args.seed,
            connections_max: args.max_connections as usize,
        };
        let proxy = Proxy::bind(setup).await?;
        let control = Listener::bind_to(Clock::Real, args.control).await?;
        let (desk, token) = (proxy.desk(), ControlToken::random()?);
        print_page(&line(&ProxyEvent::Listening { address: proxy.address()?, upstream: &args.upstream, desk: &desk }));
        print_credential(line(&ProxyEvent::Controlled { address: control.address()?, token: &token }));
        keep_secret(&Redactor::new(vec![KnownSecret::named("control token", token.text())], Vec::new()));
        let mut entries = desk.entries();
        let running = tokio::spawn(proxy.run());
        let standing = running.abort_handle();
        tokio::select! {
            stopped = running => stopped.unwrap_or(Ok(()))?,
            stopped = serve_control(control, desk.clone(), token) => stopped?,
            () = log(&mut entries, desk.clone(), args.format) => {}
            () = until_told_to_stop() => {}
        }
        // Connections that are about to end may end, and are logged.
        let ending = async {
            while desk.counts().open > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(ENDING_LIMIT, ending).await;
        while let Ok(entry) = entries.try_recv() {
            print_page(&line(&ProxyEvent::Happened(&entry)));
        }
        standing.abort();
        print_page(&line(&ProxyEvent::Stopped(&desk)));
        Ok(CommandExit::Passes)
    })
}

/// Prints the log as it comes, and on a terminal how many connections there are; takes orders meanwhile.
async fn log(
    entries: &mut Receiver<std::sync::Arc<LogRecord>>,
    desk: ProxyHandle,
    format: Format<fn(&ProxyEvent<'_>) -> String>,
) {
    let bar = standing_progress("connections");
    // The answers to orders would disturb a document.
    let mut lines = (format.printing == Printing::AsItComes).then(orders::lines);
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            entry = entries.recv() => match entry {
                Ok(entry) => bar.suspend(|| print_page(&(format.pages)(&ProxyEvent::Happened(&entry)))),
                Err(RecvError::Lagged(lines)) => complain_of(&UsageError::LogLost { lines }),
                Err(RecvError::Closed) => return,
            },
            Some(line) = next(&mut lines) => bar.suspend(|| orders::obey(&line, &desk)),
            _ = tick.tick() => {
                let counts = desk.counts();
                bar.set_position(counts.accepted);
                tell_progress(&bar, &format!("{} open, {} refused, {} times a fault acted", counts.open, counts.refused, counts.acted));
            }
        }
    }
}

/// The next order, if a terminal can give one.
async fn next(lines: &mut Option<mpsc::UnboundedReceiver<String>>) -> Option<String> {
    match lines {
        Some(lines) => lines.recv().await,
        None => None,
    }
}
