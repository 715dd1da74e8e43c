//! `relapse proxy`: the edge in front of any server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use relapse::{
    Result,
    discover::{balancer, read_edge_fault},
    proxy::{Desk, Entry, Noted, Proxy, Setup as ProxySetup, control::serve as serve_control},
    upstream::Upstream,
};
use relapse_core::{
    error::Error,
    fault::{Fault, Place},
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    link::Listener,
};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::mpsc;

use super::{MISUSE, Source, complain_of, orders, print, run::progress_by_time, until_told_to_stop};

/// Where it stands, what it carries to, and what acts on the way.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// The server behind it: `http://`, `https://`, `ws://` or `wss://`, host and port. Paths are the client's.
    #[arg(long, value_name = "URL")]
    upstream: Upstream,
    /// Where it listens; port 0 lets the system pick one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[command(flatten)]
    faults: Faults,
    /// How many connections are carried at a time; whoever comes then is refused with 503.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,
    /// The only source of chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where it is controlled from: faults are listed, added, removed and paused there, and the log is read as it comes.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// How to print the log.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

/// The faults that act at an edge.
#[derive(Debug, Clone, Args)]
pub(super) struct Faults {
    /// A fault in one line, its kind and its settings, as in `strip_header header=Authorization` or
    /// `cut after_bytes=300 direction=to-client nth=2`; may be given more than once. `fixtures/README.md` lists the kinds.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each thing that happens.
    Human,
    /// A line of JSON for each.
    Json,
}

fn factor(text: &str) -> std::result::Result<f64, String> {
    let factor = text.parse().ok().filter(|factor: &f64| (0.0001..=1000.0).contains(factor));
    factor.ok_or_else(|| "write a number from 0.0001 to 1000".to_owned())
}

impl Faults {
    /// All of them, in the order: the balancer's, the case's, the single ones.
    pub(super) fn read(&self, read_fault: impl Fn(&str) -> Result<Fault>) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        if let Some(name) = &self.lb {
            faults.extend(balancer(name)?.faults);
        }
        if let Some(path) = &self.case {
            faults.extend(edge_faults_of(path)?);
        }
        for line in &self.fault {
            faults.push(read_fault(line)?);
        }
        Ok(faults
            .iter()
            .map(|fault| if self.time_scale == 1.0 { fault.clone() } else { fault.scaled(self.time_scale) })
            .collect())
    }
}

/// The edge faults of a case; says which of its faults act elsewhere.
fn edge_faults_of(path: &std::path::Path) -> Result<Vec<Fault>> {
    let name = path.display().to_string();
    let source = Source { cases: Some(PathBuf::from("fixtures/cases")) };
    let (cases, broken) = source.select(std::slice::from_ref(&name))?;
    if !broken.is_empty() {
        return Err(Error::NothingSelected { filter: name, nearest: None });
    }
    let (edge, others): (Vec<Fault>, Vec<Fault>) = cases
        .iter()
        .flat_map(|case| case.faults.iter().cloned())
        .partition(|fault| fault.kind.place() == Place::Edge && fault.trigger.step.is_none());
    for fault in others {
        complain_of(&format!("`{fault}` of {name} cannot act here: there is only an edge"));
    }
    if edge.is_empty() {
        complain_of(&format!("{name} has no fault of the edge: nothing of it acts here"));
    }
    Ok(edge)
}

/// How long connections that are ending anyway may take when the proxy is told to stop.
const ENDING_LIMIT: Duration = Duration::from_millis(1500);

/// Stands until it is told to stop.
pub(super) fn proxy(options: &Options) -> Result<u8> {
    let faults = options.faults.read(read_edge_fault)?;
    if !options.control.ip().is_loopback() {
        complain_of("--control must be an address of this machine alone: whoever reaches it can do what the proxy can");
        return Ok(MISUSE);
    }
    Runtime::standing().block_on(async {
        let setup = ProxySetup {
            listen: options.listen,
            upstream: options.upstream.clone(),
            faults,
            seed: options.seed,
            connections_max: options.max_connections as usize,
        };
        let proxy = Proxy::bind(setup).await?;
        let control = Listener::bind_to(Clock::Real, options.control).await?;
        let desk = proxy.desk();
        if options.format == Format::Human {
            introduce(options, &proxy, &control)?;
        } else {
            let (listening, control) = (proxy.address()?, control.address()?);
            print(serde_json::json!({"event": "listening", "address": listening, "control": control}));
        }
        let mut entries = desk.entries();
        let running = tokio::spawn(proxy.run());
        let standing = running.abort_handle();
        tokio::select! {
            stopped = running => stopped.unwrap_or(Ok(()))?,
            stopped = serve_control(control, desk.clone()) => stopped?,
            () = log(&mut entries, desk.clone(), options.format) => {}
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
            show(&entry, options.format);
        }
        standing.abort();
        if options.format == Format::Human {
            let counts = desk.counts();
            print(format!(
                "{} connection(s), {} refused, {} cut off now; {} times a fault acted",
                counts.accepted, counts.refused, counts.open, counts.acted
            ));
            for fault in desk.faults().iter().filter(|fault| fault.acted == 0) {
                print(format!("fault {} never acted: {}", fault.number, fault.fault));
            }
        }
        Ok(0)
    })
}

fn introduce(options: &Options, proxy: &Proxy, control: &Listener) -> Result<()> {
    print(format!("http://{} carries to {}", proxy.address()?, options.upstream));
    for fault in proxy.desk().faults() {
        print(format!("  fault {}: {}", fault.number, fault.fault));
    }
    print(format!("control: curl http://{}/faults, /events; or type `help`; Ctrl-C stops", control.address()?));
    Ok(())
}

/// Prints the log as it comes, and on a terminal how many connections there are; takes orders meanwhile.
async fn log(entries: &mut Receiver<std::sync::Arc<Entry>>, desk: Desk, format: Format) {
    let bar = progress_by_time("connections");
    // JSON output takes no orders.
    let mut lines = (format == Format::Human).then(orders::lines);
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            entry = entries.recv() => match entry {
                Ok(entry) => bar.suspend(|| show(&entry, format)),
                Err(RecvError::Lagged(missed)) => complain_of(&format!("{missed} line(s) of the log are missing: they came too fast")),
                Err(RecvError::Closed) => return,
            },
            Some(line) = next(&mut lines) => bar.suspend(|| orders::obey(&line, &desk)),
            _ = tick.tick() => {
                let counts = desk.counts();
                bar.set_position(counts.accepted);
                bar.set_message(format!("{} open, {} refused, {} times a fault acted", counts.open, counts.refused, counts.acted));
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

fn show(entry: &Entry, format: Format) {
    match (format, &entry.what) {
        (Format::Json, _) => print(serde_json::to_string(entry).unwrap_or_default()),
        // The requests of an opened connection and its close describe it.
        (Format::Human, Noted::Opened { .. }) => {}
        (Format::Human, _) => print(entry),
    }
}
