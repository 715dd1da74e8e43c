//! Markdown tables.

use super::{Printing, Renderer};
use crate::report::catalogue;

/// The format.
pub(super) const MARKDOWN: Renderer = Renderer {
    catalogue: Some(|listing, _| catalogue::render_map(listing.issues, listing.cases)),
    ..Renderer::new(
        "markdown",
        "The map from issues to cases, defects and checks, as a Markdown table",
        Printing::AtTheEnd,
    )
};
