//! The events of a run, and the facts that follow from them.

pub mod code;
pub mod escape;
pub mod event_log;
pub mod redact;
pub mod service;
pub mod timeline;
pub mod transcript;
