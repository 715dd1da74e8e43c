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
//! | [`server`], [`profile`] | the played server, and the profile that makes it behave like a named server |
//! | [`app_faults`] | faults between server and app: scopes, events and calls |
//! | [`application`] | the interface that a server calls |
//! | [`recorder`] | writes the transcript of a run |
//! | [`memory`] | limits memory: of the runs at work, only one may be large |

pub mod app_faults;
pub mod application;
pub mod clock;
pub mod edge;
pub mod link;
pub mod memory;
pub mod profile;
pub mod recorder;
pub mod server;
