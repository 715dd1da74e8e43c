//! The log entries of a proxy about the connections it carries.

use std::fmt;

use serde::Serialize;

use relapse_simulate::edge::Load;

/// One line of a proxy's log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogRecord {
    /// Time since the proxy began, in milliseconds.
    pub at_ms: u64,
    /// The connection, counted from 1.
    pub connection: u64,
    /// The logged event.
    #[serde(flatten)]
    pub what: LogEvent,
}

/// An event on a connection.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum LogEvent {
    /// It was made.
    Opened {
        /// The client's address.
        client: String,
    },
    /// There was no room for it.
    Refused {
        /// How many connections are carried at most.
        most: usize,
    },
    /// The upstream cannot be reached.
    Unreachable {
        /// Why not.
        why: String,
    },
    /// The client asked.
    Request {
        /// The method.
        method: String,
        /// Path and query; the query's values are left out, for they may be secret.
        target: String,
        /// Whether it asks for a WebSocket.
        upgrade: bool,
    },
    /// The server answered.
    Answer {
        /// The status.
        status: u16,
    },
    /// A fault acted.
    Fault {
        /// The fault's number.
        number: usize,
        /// The fault's effect.
        detail: String,
    },
    /// A fault can act no more, or something else that is worth a look.
    Warning {
        /// The message.
        message: String,
    },
    /// A close frame passed.
    Close(SentClose),
    /// It ended.
    Closed {
        /// `client`, `server`, or the number of a fault as `fault 2`.
        by: String,
        /// How.
        why: String,
        /// The close frames of both sides, in the order in which they came.
        closes: Vec<SentClose>,
        /// How long it lasted, in milliseconds.
        lasted_ms: u64,
        /// The traffic from the client.
        from_client: Carriage,
        /// The traffic from the server.
        from_server: Carriage,
    },
}

/// A side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxySide {
    /// The client.
    Client,
    /// The server.
    Server,
}

impl fmt::Display for ProxySide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxySide::Client => "client",
            ProxySide::Server => "server",
        })
    }
}

/// A close frame as one side sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SentClose {
    /// The actor.
    pub by: ProxySide,
    /// Its code; `None` when it has none.
    pub code: Option<u16>,
    /// Its reason.
    pub reason: String,
    /// When it came to the proxy: time since the proxy began, in milliseconds.
    pub close_at_ms: u64,
}

impl fmt::Display for SentClose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "close {code}")?,
            None => f.write_str("close without code")?,
        }
        if self.reason.is_empty() { Ok(()) } else { write!(f, " {:?}", self.reason) }
    }
}

/// The traffic from one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Carriage {
    /// Bytes.
    pub bytes: u64,
    /// WebSocket messages.
    pub messages: u64,
}

impl From<Load> for Carriage {
    fn from(load: Load) -> Carriage {
        Carriage { bytes: load.bytes, messages: load.messages }
    }
}

impl fmt::Display for LogRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3}  #{:<4} ", self.at_ms as f64 / 1000.0, self.connection)?;
        match &self.what {
            LogEvent::Opened { client } => write!(f, "opened by {client}"),
            LogEvent::Refused { most } => write!(f, "refused: {most} connections are carried already"),
            LogEvent::Unreachable { why } => write!(f, "the upstream cannot be reached: {why}"),
            LogEvent::Request { method, target, upgrade } => {
                write!(f, "--> {method} {target}{}", if *upgrade { " upgrade" } else { "" })
            }
            LogEvent::Answer { status } => write!(f, "<-- {status}"),
            LogEvent::Fault { number, detail } => write!(f, "!   fault {number}: {detail}"),
            LogEvent::Warning { message } => write!(f, "    {message}"),
            LogEvent::Close(said) => {
                let arrow = match said.by {
                    ProxySide::Client => "-->",
                    ProxySide::Server => "<--",
                };
                write!(f, "{arrow} {said}")
            }
            LogEvent::Closed { by, why, closes, lasted_ms, from_client, from_server } => {
                write!(f, "closed by {by}: {why}")?;
                // The first stands in the reason already.
                for said in closes.iter().skip(1) {
                    let after_ms = said.close_at_ms.saturating_sub(closes[0].close_at_ms);
                    write!(f, ", then {} said {said} {after_ms} ms later", said.by)?;
                }
                write!(
                    f,
                    "; {:.3} s, {} bytes there, {} back, {} and {} messages",
                    *lasted_ms as f64 / 1000.0,
                    from_client.bytes,
                    from_server.bytes,
                    from_client.messages,
                    from_server.messages
                )
            }
        }
    }
}
