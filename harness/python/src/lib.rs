//! Python apps as targets: in an interpreter on the virtual clock, and behind real servers.
//!
//! | module | holds |
//! |---|---|
//! | [`app`] | the target for an app in an interpreter, behind a server that a profile plays |
//! | [`served`] | the target for an app behind a real server that the harness starts |
//! | [`process`] | interpreters, servers and their environments |
//! | [`measure`] | measures a real server and writes its profile |
//! | [`differential`] | compares a profile with its real server, using generated apps |
//! | [`pytest`] | writes findings of a hunt as tests in Python |
//!
//! These files run in Python: `process/shim.py` is the server and the event loop on the virtual clock in an interpreter,
//! `process/routes.py` with `process/routes/` learns the routes of an app, `process/loader.py` starts the two,
//! `process/compiler.py` compiles them once, and `process/witness.py` reports the events of an app from within a real server.
//!
//! A run on the virtual clock is the same to the byte each time, unless the app uses something from outside: see
//! [`process::Confinement`] for addresses, [`process::Epoch`] for the time of day, and `Chance` in the shim for what is random.

pub mod app;
pub mod differential;
pub mod measure;
pub mod process;
pub mod pytest;
pub mod served;
