//! Conversations as lines of text, and findings as tests in Python.

pub mod pytest;
pub mod sequence;
