//! The log of a standing proxy, as lines and as lines of JSON.

use std::fmt::Write as _;
use std::net::SocketAddr;

use relapse::{
    proxy::{LogEvent, LogRecord, ProxyHandle, control::ControlToken},
    upstream::Upstream,
};

/// An event in the log of a proxy.
#[derive(Debug)]
pub enum ProxyEvent<'a> {
    /// It stands.
    Listening {
        /// Where clients reach it.
        address: SocketAddr,
        /// The server behind it.
        upstream: &'a Upstream,
        /// Its faults and counts.
        desk: &'a ProxyHandle,
    },
    /// It can be controlled.
    Controlled {
        /// Where it is controlled from.
        address: SocketAddr,
        /// The token that every request there brings.
        token: &'a ControlToken,
    },
    /// Something happened on a connection.
    Happened(&'a LogRecord),
    /// It stopped.
    Stopped(&'a ProxyHandle),
}

/// The lines for people.
pub fn line(event: &ProxyEvent<'_>) -> String {
    let mut text = String::new();
    let _ = match event {
        ProxyEvent::Listening { address, upstream, desk } => {
            let _ = writeln!(text, "http://{address} carries to {upstream}");
            for fault in desk.faults() {
                let _ = writeln!(text, "  fault {}: {}", fault.number, fault.fault);
            }
            Ok(())
        }
        ProxyEvent::Controlled { address, token } => {
            let _ = writeln!(text, "  TOKEN={}   # for the control address", token.text());
            let request = format!("curl -H \"Authorization: Bearer $TOKEN\" http://{address}/faults");
            write!(text, "control: {request}, /events; or type `help`; Ctrl-C stops")
        }
        ProxyEvent::Happened(entry) => match entry.what {
            // The requests of an opened connection and its close describe it.
            LogEvent::Opened { .. } => Ok(()),
            _ => write!(text, "{entry}"),
        },
        ProxyEvent::Stopped(desk) => {
            let counts = desk.counts();
            let _ = writeln!(
                text,
                "{} connection(s), {} refused, {} cut off now; {} times a fault acted",
                counts.accepted, counts.refused, counts.open, counts.acted
            );
            for fault in desk.faults().iter().filter(|fault| fault.acted == 0) {
                let _ = writeln!(text, "fault {} never acted: {}", fault.number, fault.fault);
            }
            Ok(())
        }
    };
    text
}

/// A line of JSON for each event of a connection, and for the start.
pub fn to_json_line(event: &ProxyEvent<'_>) -> String {
    match event {
        ProxyEvent::Listening { address, .. } => {
            serde_json::json!({"event": "listening", "address": address}).to_string()
        }
        ProxyEvent::Controlled { address, token } => {
            serde_json::json!({"event": "controlled", "control": address, "token": token.text()}).to_string()
        }
        ProxyEvent::Happened(entry) => serde_json::to_string(entry).unwrap_or_default(),
        ProxyEvent::Stopped(_) => String::new(),
    }
}
