//! Renderers: pure functions from results to text and JSON.

pub mod catalogue;
pub mod conformance;
pub mod hunt;
pub mod json;
pub mod located;
pub mod show;
pub mod table;
