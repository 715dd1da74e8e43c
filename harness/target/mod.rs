//! What stands behind the edge.

mod backend;
mod connections;
mod python;
mod url;

pub use backend::{Embedded, Transport};
pub use python::Python;
pub use url::Url;
