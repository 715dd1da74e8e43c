//! The words of a client: its steps, its credentials, and the signals that it sends to a server.

pub mod credential;
pub mod signal;
pub mod step;
