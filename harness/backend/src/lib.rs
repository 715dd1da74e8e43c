//! The built-in service of the reports, with its defects, and the runner that judges cases on it.
//!
//! | module | holds |
//! |---|---|
//! | [`backend`] | the service as an ASGI app: routes, sessions, readiness, tokens |
//! | [`check`] | the checks that only this service has |
//! | [`defect`], [`revision`] | the mistakes it can be told to contain, each with its mechanism in [`backend`] |
//! | [`dependency`] | what it depends on, and faults in calls to that |
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
