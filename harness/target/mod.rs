//! What stands behind the edge.

mod backend;

pub use backend::{Embedded, Transport};
