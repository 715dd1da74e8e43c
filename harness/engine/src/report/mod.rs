//! Conversations as lines of text.

pub mod sequence;
