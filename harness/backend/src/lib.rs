//! The built-in service, which reproduces the reported defects, and the runner that judges cases on it.
//!
//! | module | holds |
//! |---|---|
//! | [`backend`] | the service as an ASGI app: routes, sessions, readiness, tokens |
//! | [`check`] | the checks that only this service has |
//! | [`defect`], [`revision`] | the defects that can be switched on, each with its mechanism in [`backend`] |
//! | [`dependency`] | its dependencies, and faults in calls to them |
//! | [`target`] | the service behind a server, in memory or on a socket |
//! | [`runner`] | runs cases with and without their defects, and judges |
//! | [`listening`] | the service on a port |

pub mod backend;
pub mod check;
pub mod defect;
pub mod dependency;
pub mod listening;
pub mod revision;
pub mod runner;
pub mod target;
