//! Types of the wire protocols and of ASGI, faults, transcripts, and the judgment of a run.
//!
//! Nothing here waits, does I/O or reads a clock. Everything is data, or a pure function of data.
//!
//! | module | holds |
//! |---|---|
//! | [`wire`] | heads and bodies of HTTP/1.1 messages; WebSocket frames, messages, close codes, and the client's side |
//! | [`asgi`] | scopes, events, values and exceptions of the ASGI specification |
//! | [`client`] | steps of a client, credentials, signals |
//! | [`choices`] | named random streams, from which hunts draw |
//! | [`fault`], [`plan`] | the faults that can be injected, and the faults of one run with its seed |
//! | [`record`] | the transcript of a run, its timeline, and the removal of secrets |
//! | [`judge`] | outcome, class and cause of an exchange; checks and findings; verdicts |
//! | [`conformance`] | what RFC 6455 requires of frames, and how well a server complies |
//! | [`error`] | the error type of all crates, with places in files and the nearest right name |

pub mod asgi;
pub mod choices;
pub mod client;
pub mod conformance;
pub mod error;
pub mod fault;
pub mod judge;
pub mod plan;
pub mod record;
pub mod wire;

/// The result of the harness's own work, and its error.
pub type Result<T = (), E = error::Error> = std::result::Result<T, E>;
