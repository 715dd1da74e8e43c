//! Tests that measure time or memory from outside. They are a binary of their own, so that no other suite runs beside them.

#![expect(clippy::unwrap_used, reason = "a suite that cannot go on has failed")]

mod timed; // the tests
mod tools; // helpers of all binaries
