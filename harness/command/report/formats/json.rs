//! JSON, one document a result.

use super::{HuntPages, Printing, Renderer, ValidationPages};
use crate::report::{catalogue, conformance, corpus, hunt, json, proxy, validation};

/// The format.
pub(super) const JSON: Renderer = Renderer {
    verdicts: Some(|report, _| json::render(report)),
    hunt: Some(HuntPages {
        replayed: |_, _| String::new(),
        hunts: hunt::Hunts::to_json,
        merged: hunt::HuntDocument::to_json,
        detection: |figures, _| figures.to_json(),
        corpus: |report, _| corpus::render_json(report),
    }),
    conformance: Some(|found, _| conformance::render_json(found)),
    validation: Some(ValidationPages {
        validations: |validations, _| validation::to_json(validations),
        watched: validation::to_json_line,
    }),
    catalogue: Some(|listing, _| catalogue::render_json(listing.issues, listing.cases)),
    log: Some(proxy::to_json_line),
    ..Renderer::new("json", "One JSON document, or a line of JSON each time where results go on", Printing::AtTheEnd)
};
