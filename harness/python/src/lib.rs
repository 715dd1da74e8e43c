//! Python apps as targets: in an interpreter on the virtual clock, and behind real servers.
//!
//! | module | holds |
//! |---|---|
//! | [`app`] | the target for an app in an interpreter, behind a server that a profile plays |
//! | [`served`] | the target for an app behind a real server that the harness starts |
//! | [`process`] | interpreters, servers and their environments |
//! | [`measure`] | finds out what a real server's profile says |
//! | [`differential`] | holds a profile against its real server with generated apps |
//! | [`pytest`] | writes findings of a hunt as tests in Python |
//!
//! These files run in Python: `process/shim.py` is the server and the event loop on the virtual clock in an interpreter,
//! `process/routes.py` with `process/routes/` learns the routes of an app there, `process/loader.py` starts both,
//! `process/compiler.py` compiles them once, and `process/witness.py` reports the events of an app from within a real server.
//!
//! A run on the virtual clock can be repeated to the byte, as far as the app takes nothing from outside: see
//! [`process::Confinement`] for addresses, [`process::Epoch`] for the time of day, and `Chance` in the shim for what is random.

pub mod app;
pub mod differential;
pub mod measure;
pub mod process;
pub mod pytest;
pub mod served;
