//! What stands behind the edge.

mod backend;
mod connections;
mod python;
mod served;
mod url;

pub use backend::{Embedded, Program, SECRET, Software, Transport};
pub use python::Python;
pub use served::Served;
pub use url::Url;
