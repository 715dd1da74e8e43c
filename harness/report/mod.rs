//! Renders what was found: pure functions from verdicts and transcripts to text.

pub mod catalogue;
pub mod conformance;
pub mod json;
pub mod located;
pub mod pytest;
pub mod sequence;
pub mod show;
pub mod table;
