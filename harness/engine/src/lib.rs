//! Reproduces WebSocket 1011s and HTTP 500s by their real mechanism, and shows whether a fix removes them.
//!
//! A [`Case`] is the steps of a client, the faults that act, and what is accepted. A [`Target`] is a service behind the
//! edge. [`run`] performs a case on a target and gives a [`Transcript`]; [`verdict_rules`] judges it; a [`Hunt`] generates cases
//! of its own, and keeps the smallest that fails.
//!
//! | modules | hold |
//! |---|---|
//! | [`case`], [`balancer`], [`discover`], [`defects`], [`environment`], [`issue`] | case files and the names that they may use |
//! | [`service_file`], [`route`], [`recording`], [`mod@init`], [`mod@validate`] | the service file: how a service is spoken to |
//! | [`client`], [`run`] | the client, and a run of its steps |
//! | [`target`], [`targets`], [`upstream`] | the trait [`Target`], a server behind a URL, and how its address is parsed and dialed |
//! | [`check`] | properties of a run, re-exported from `relapse_core`; a service can add its own |
//! | [`verdict_rules`], [`explain`], [`external`], [`trial`] | the verdict on a case, on any target |
//! | [`hunt`] | generated cases, shrinking, reproducers |
//! | [`corpus`] | small services with one mistake each, which measure what a hunt finds |
//! | [`mod@conform`] | the frame cases of RFC 6455 on a target |
//! | `proxy` | a faulty proxy in front of any URL; with the feature `proxy` |
//! | [`files`] | files that a user names |
//! | [`report`], [`note`] | conversations as text, and notes to the user |
//! | [`deadline`] | deadlines in wall time |
//!
//! # Invariants
//!
//! - The client never judges, and a check never performs a step.
//! - Chance enters only through the seed of a plan, and time only through the clock. One seed, one transcript.
//! - Nothing opens a real socket on the virtual clock.
//! - Every wait and every buffer has a limit.

pub mod balancer;
pub mod case;
pub mod client;
pub mod conform;
pub mod corpus;
pub mod deadline;
pub mod defects;
pub mod described;
pub mod determinism;
pub mod discover;
pub mod environment;
pub mod explain;
pub mod external;
pub mod files;
pub mod hunt;
pub mod init;
pub mod issue;
pub mod note;
#[cfg(feature = "proxy")]
pub mod proxy;
pub mod recording;
pub mod report;
pub mod route;
pub mod run;
pub mod service_file;
pub mod target;
pub mod targets;
mod tls;
pub mod trial;
pub mod upstream;
pub mod validate;
pub mod verdict_rules;

pub use case::Case;
pub use discover::{Catalogue, servers};
pub use environment::Environment;
pub use hunt::{Found, Ground, Hunt, hunt_all};
pub use relapse_core::{
    Result,
    error::Error,
    fault::{Fault, Place},
    judge::{
        check,
        outcome::{Class, Outcome},
        verdict::{Finding, TrialResult, Verdict},
    },
    plan::Plan,
    record::transcript::Transcript,
};
pub use relapse_simulate::{
    clock::{Clock, Runtime},
    profile::Profile,
};
pub use route::Route;
pub use service_file::ServiceFile;
pub use target::Target;
pub use targets::Url;
pub use trial::Trial;
