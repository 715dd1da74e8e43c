//! What stands behind the edge.

mod backend;
mod url;

pub use backend::{Embedded, Transport};
pub use url::Url;
