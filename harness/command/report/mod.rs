//! Renderers: pure functions from results to text and JSON, and the formats that name them.

pub mod baseline;
pub mod catalogue;
pub mod conformance;
pub mod corpus;
pub mod faults;
pub mod formats;
pub mod hunt;
pub mod json;
pub mod located;
pub mod proxy;
pub mod show;
pub mod table;
pub mod validation;
