//! Reproduces reported WebSocket 1011s and HTTP 500s by their real mechanism, and shows that they are gone.
//!
//! # The pipeline
//!
//! ```text
//! client ──link──▶ edge ──link──▶ server ──scope, receive, send──▶ app ──calls──▶ dependencies
//! (records         proxy           ASGI, played                     the built-in
//! only)                            by a profile                     backend
//! ```
//!
//! # The map
//!
//! A module imports only from ranks above its own; a suite checks that table.
//!
//! - *Words*, which cannot wait: [`value`] [`exception`] [`scope`] [`event`] (ASGI and its state machine), [`head`]
//!   [`frame`] [`message`] [`close_code`] (the wire), [`outcome`] [`cause`] (how an exchange ends), [`defect`] [`revision`]
//!   [`environment`] [`credential`] (what the backend is), [`issue`] (what was reported), [`fault`] [`plan`] [`step`] [`route`] [`recorded`] [`case`] [`profile`] [`balancer`] [`binding`] (what
//!   a run is made of), [`transcript`] [`timeline`] [`verdict`] [`trial`] [`error`] (its results).
//! - *Judgement*, pure functions of words: [`classify`] (outcome, class and cause from a transcript), [`judge`] (the verdict on a case's runs), [`explain`] (cause
//!   where only the wire is seen), [`check`] (one property a file), [`conformance`] (what RFC 6455 asks of frames, and how
//!   far it is kept), [`shutdown`] (how a process ended), [`redact`], [`report`].
//! - *Joints*, what actors meet over: [`clock`], [`link`], [`upstream`], [`recorder`], [`application`], [`dependency`],
//!   [`target`].
//! - *Machinery*, mutually blind: [`probe`], [`edge`], [`front`], [`interpose`], [`backend`], [`python`], [`discover`].
//! - *Targets*: [`targets`], one file each.
//! - *Conduct*: [`run`] picks the clock, launches, drives and judges; [`stand`] and [`proxy`] stand on a port;
//!   [`mod@init`] finds out how a deployment is spoken to, [`mod@validate`] looks at it, [`external`] judges cases on it,
//!   [`mod@conform`] tries how it takes frames; [`mod@measure`] finds out what a real
//!   server's profile says, [`differential`] holds the two against each other; [`hunt`] draws what is run, shrinks what fails and keeps it.
//!
//! # Invariants
//!
//! - Words cannot wait. The client never judges, and a check never drives.
//! - The site of a defect holds the mechanism, never the symptom; front and profile make the symptom of it.
//! - Chance enters only through the plan's seed, and time only through tokio's clock. One seed, one transcript.
//! - No real socket lives under the virtual clock.
//! - What is forbidden is code; what is remembered is a snapshot. No snapshot can bless a 1011.
//! - Every wait has a limit.
//!
//! The names re-exported here are the promise; the modules are open for the suites and may change.

pub mod application;
pub mod backend;
pub mod balancer;
pub mod binding;
pub mod case;
pub mod cause;
pub mod check;
pub mod classify;
pub mod clock;
pub mod close_code;
pub mod conform;
pub mod conformance;
pub mod credential;
pub mod defect;
pub mod dependency;
pub mod differential;
pub mod discover;
pub mod edge;
pub mod environment;
pub mod error;
pub mod event;
pub mod exception;
pub mod explain;
pub mod external;
pub mod fault;
pub mod frame;
pub mod front;
pub mod head;
pub mod hunt;
pub mod init;
pub mod interpose;
pub mod issue;
pub mod judge;
pub mod link;
pub mod measure;
pub mod message;
pub mod note;
pub mod outcome;
pub mod plan;
pub mod probe;
pub mod profile;
pub mod proxy;
pub mod python;
pub mod recorded;
pub mod recorder;
pub mod redact;
pub mod report;
pub mod revision;
pub mod route;
pub mod run;
pub mod scope;
pub mod shutdown;
pub mod signal;
pub mod stand;
pub mod step;
pub mod target;
pub mod targets;
pub mod timeline;
pub mod transcript;
pub mod trial;
pub mod upstream;
pub mod validate;
pub mod value;
pub mod verdict;

pub use balancer::Balancer;
pub use binding::{Binding, COMMAND_LIMIT, TokenSource};
pub use case::Case;
pub use cause::Cause;
pub use clock::{Clock, Runtime};
pub use conform::{PATIENCE, Peer, conform, conform_embedded};
pub use conformance::{Conformance, FrameCase};
pub use defect::Defect;
pub use differential::{Difference as ProgramDifference, Setup as DifferentialSetup, compare as compare_programs};
pub use discover::{Catalogue, balancers, frame_cases, issues, read_backend_fault, read_edge_fault, servers};
pub use environment::Environment;
pub use error::{Blame, Error, Trouble, did_you_mean};
pub use external::{External, Front, Version, Versions, judge_external};
pub use fault::{Fault, Place};
pub use hunt::{
    Campaign, Change, Fate, Foreign, Found, FoundReport, Hunt, HuntReport, Launch, Reached, Reproduction, Unfinished,
    hunt_all,
    report::{Detection, HuntDocument, coverage, render_detection},
};
pub use init::{Acquaintance, init as get_acquainted};
pub use issue::Issue;
pub use link::Listener;
pub use measure::Measurement;
pub use note::Note;
pub use outcome::{Class, Outcome};
pub use plan::Plan;
pub use profile::Profile;
pub use proxy::{Desk, Entry, Noted, Proxy, Setup as ProxySetup, control::serve as serve_control};
pub use python::{
    BLOCKED_LIMIT, Installation as PythonInstallation, LifespanMode, MEMORY_LIMIT, Requirements as PythonRequirements,
    START_LIMIT, Server as PythonServer, ServerChoice, Site as PythonSite, end_all as end_interpreters,
};
pub use recorded::{Recorded, is_secret, learn as learn_routes};
pub use report::{
    catalogue::{render_json as render_catalogue_json, render_list, render_map},
    conformance::{render as render_conformance, render_json as render_conformance_json},
    json::render as render_json,
    located::render as render_located,
    pytest::Loaded as LoadedApplication,
    sequence::{Detail, lines as sequence_lines},
    show::render as render_show,
    table::{plain_table, render as render_table},
};
pub use revision::Revision;
pub use route::Route;
pub use run::{Conductor, judge_all};
pub use stand::{Setup as StandSetup, Stand};
pub use targets::{Python as PythonTarget, Served, Url};
pub use transcript::Transcript;
pub use trial::{Ran, Report, TargetKind, TargetName, Trial, option, shell};
pub use upstream::Upstream;
pub use validate::{Validation, validate};
pub use verdict::{Finding, FindingKey, HealthyClient, Judged, Judgement, Reason, Side, Verdict};

/// The README's example is a test.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
pub struct Readme;

/// The result of the harness's own work, and its error.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;
