//! The option `--api`: routes by an OpenAPI or AsyncAPI document.

use std::path::Path;

use http::Uri;
use relapse::{
    described,
    files::{FileLimit, read_text},
    route::Route,
    run,
    service_file::ServiceFile,
    upstream::Upstream,
};
use relapse_core::{
    client::step::{Action, Request, Step},
    error::Error,
    plan::Plan,
    record::transcript::{BodyEnd, EventKind, Transcript},
};
use relapse_simulate::clock::{Clock, Runtime};
use serde_json::Value as Json;

use super::service_file::RequestBudgetArgs;

/// How long a document may take to come. Real time.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// The routes that a document in a file, or behind a URL, describes.
///
/// # Errors
/// When it cannot be read, or is no such document.
pub(super) fn read(place: &str) -> Result<Vec<Route>, Error> {
    let text = if place.contains("://") {
        fetch(place).map_err(|why| no_routes(place, &why))?
    } else {
        read_text(Path::new(place), FileLimit::WRITTEN)?
    };
    let document = parse(&text).map_err(|why| no_routes(place, &why))?;
    let routes = described::routes(&document)
        .map_err(|why| no_routes(place, &format!("{why}; an OpenAPI or AsyncAPI document is needed")))?;
    if routes.is_empty() { Err(no_routes(place, "it describes no route")) } else { Ok(routes) }
}

fn no_routes(place: &str, why: &str) -> Error {
    Error::NoRoutes { place: place.to_owned(), why: why.to_owned() }
}

/// Reads JSON or YAML.
fn parse(text: &str) -> Result<Json, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"));
    }
    serde_yaml_ng::from_str(text).map_err(|error| format!("it is no YAML: {error}"))
}

/// Gets a document as a client does, without a credential.
fn fetch(url: &str) -> Result<String, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let upstream: Upstream = format!("{}://{authority}", uri.scheme_str().unwrap_or("http")).parse()?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request { query: query.as_bytes().to_vec(), ..Request::standard("GET", path) };
    let target = RequestBudgetArgs::UNLIMITED.server(&upstream, &ServiceFile::unknown(), "");
    let steps = [Step::new(Action::Request(request), LIMIT)];
    let plan = Plan { seed: 1, faults: Vec::new() };
    let transcript = Runtime::new(Clock::Real).block_on(run::converse(&steps, plan, &target));
    body(&transcript.map_err(|error| error.to_string())?)
}

/// The whole body of the one answer.
fn body(transcript: &Transcript) -> Result<String, String> {
    let mut answer = None;
    for event in transcript.of(0) {
        match &event.what {
            EventKind::ResponseSeen(head) if head.status != 200 => {
                return Err(format!("the server answered HTTP {}", head.status));
            }
            EventKind::BodySeen { body, end } => {
                if *end != BodyEnd::Complete || event.omitted_bytes > 0 {
                    return Err("the answer is not whole, or longer than 4 MiB".to_owned());
                }
                answer = Some(String::from_utf8_lossy(body).into_owned());
            }
            _ => {}
        }
    }
    answer.ok_or_else(|| "the server gave no answer".to_owned())
}
