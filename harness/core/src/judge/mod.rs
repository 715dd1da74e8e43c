//! Judgment, as pure functions of a transcript: outcome, class and cause of each exchange, the checks, and the verdict.

pub mod cause;
pub mod check;
pub mod classify;
pub mod harm;
pub mod lifespan;
pub mod outcome;
pub mod verdict;
