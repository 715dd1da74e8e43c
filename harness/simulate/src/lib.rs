//! Everything between a client and an app: links on a virtual clock, the edge, and servers played by profile.
//!
//! ```text
//! client ──link──▶ edge ──link──▶ server ──scope, receive, send──▶ app
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`clock`], [`link`] | virtual and real time, and byte streams in memory, over TCP and over TLS |
//! | [`edge`] | the proxy between client and server, where network faults act |
//! | [`server`], [`profile`] | a server in front of an app, and the data that makes it behave as a named one |
//! | [`app_faults`] | faults between server and app: scopes, events and calls |
//! | [`application`] | the interface that a server calls |
//! | [`recorder`] | writes the transcript of a run |
//! | [`memory`] | one large run at a time, among many small ones |

pub mod app_faults;
pub mod application;
pub mod clock;
pub mod edge;
pub mod link;
pub mod memory;
pub mod profile;
pub mod recorder;
pub mod server;
