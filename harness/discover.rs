//! Finds cases and profiles: the only place that reads our files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use globset::GlobBuilder;

use crate::{
    balancer::Balancer,
    case::{Case, Known, read_fault},
    check,
    conformance::FrameCase,
    dependency::{Dependency, MODULES, VARIABLES},
    error::{Error, nearest},
    fault::Fault,
    issue::Issue,
    profile::Profile,
};

/// The server profiles, as files: their texts travel inside the binary.
const SERVERS: [(&str, &str); 9] = [
    ("uvicorn-0.35.toml", include_str!("../fixtures/profiles/servers/uvicorn-0.35.toml")),
    ("uvicorn-0.54.toml", include_str!("../fixtures/profiles/servers/uvicorn-0.54.toml")),
    ("uvicorn-0.35-sansio.toml", include_str!("../fixtures/profiles/servers/uvicorn-0.35-sansio.toml")),
    ("uvicorn-0.35-wsproto.toml", include_str!("../fixtures/profiles/servers/uvicorn-0.35-wsproto.toml")),
    ("uvicorn-0.54-websockets.toml", include_str!("../fixtures/profiles/servers/uvicorn-0.54-websockets.toml")),
    ("uvicorn-0.54-wsproto.toml", include_str!("../fixtures/profiles/servers/uvicorn-0.54-wsproto.toml")),
    ("hypercorn-0.18.toml", include_str!("../fixtures/profiles/servers/hypercorn-0.18.toml")),
    ("daphne-4.2.toml", include_str!("../fixtures/profiles/servers/daphne-4.2.toml")),
    ("granian-2.8.toml", include_str!("../fixtures/profiles/servers/granian-2.8.toml")),
];

/// The server profiles, the default one first.
///
/// # Errors
/// When one of them cannot be read, which its own test forbids.
pub fn servers() -> Result<Vec<Arc<Profile>>, Error> {
    static READ: OnceLock<Vec<Arc<Profile>>> = OnceLock::new();
    if let Some(profiles) = READ.get() {
        return Ok(profiles.clone());
    }
    let profiles: Vec<Arc<Profile>> =
        SERVERS.iter().map(|(path, text)| Profile::parse(path, text).map(Arc::new)).collect::<Result<_, _>>()?;
    Ok(READ.get_or_init(|| profiles).clone())
}

/// The load balancers, as files: their texts travel inside the binary.
const BALANCERS: [(&str, &str); 8] = [
    ("gcp-https.toml", include_str!("../fixtures/profiles/balancers/gcp-https.toml")),
    ("cloud-run.toml", include_str!("../fixtures/profiles/balancers/cloud-run.toml")),
    ("alb.toml", include_str!("../fixtures/profiles/balancers/alb.toml")),
    ("nginx.toml", include_str!("../fixtures/profiles/balancers/nginx.toml")),
    ("nginx-websocket.toml", include_str!("../fixtures/profiles/balancers/nginx-websocket.toml")),
    ("traefik.toml", include_str!("../fixtures/profiles/balancers/traefik.toml")),
    ("cloudflare.toml", include_str!("../fixtures/profiles/balancers/cloudflare.toml")),
    ("envoy.toml", include_str!("../fixtures/profiles/balancers/envoy.toml")),
];

/// The load balancers.
///
/// # Errors
/// When one of them cannot be read, which its own test forbids.
pub fn balancers() -> Result<Vec<Balancer>, Error> {
    BALANCERS.iter().map(|(path, text)| Balancer::parse(path, text)).collect()
}

/// The reported issues, in the order of their file.
///
/// # Errors
/// When the file cannot be read, which its own test forbids.
pub fn issues() -> Result<Vec<Issue>, Error> {
    Issue::parse("issues.toml", include_str!("../fixtures/issues.toml"))
}

/// The cases of RFC 6455, as files in the order of its sections: their texts travel inside the binary.
const CONFORMANCE: [(&str, &str); 8] = [
    ("5.1-masking.toml", include_str!("../fixtures/conformance/5.1-masking.toml")),
    ("5.2-base-framing.toml", include_str!("../fixtures/conformance/5.2-base-framing.toml")),
    ("5.4-fragmentation.toml", include_str!("../fixtures/conformance/5.4-fragmentation.toml")),
    ("5.5-control-frames.toml", include_str!("../fixtures/conformance/5.5-control-frames.toml")),
    ("5.6-utf8.toml", include_str!("../fixtures/conformance/5.6-utf8.toml")),
    ("7.1-closing-handshake.toml", include_str!("../fixtures/conformance/7.1-closing-handshake.toml")),
    ("7.4-close-codes.toml", include_str!("../fixtures/conformance/7.4-close-codes.toml")),
    ("10.4-limits.toml", include_str!("../fixtures/conformance/10.4-limits.toml")),
];

/// The cases of RFC 6455 that any of the filters selects, all of them without one. A filter is a case's name or its
/// last part, a section, or a glob over names.
///
/// # Errors
/// When a filter selects nothing, with the nearest right name.
pub fn frame_cases(filters: &[String]) -> Result<Vec<Arc<FrameCase>>, Error> {
    let groups = CONFORMANCE.iter().map(|(path, text)| FrameCase::parse(path, text));
    let cases: Vec<FrameCase> = groups.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    let selects = |filter: &String, case: &FrameCase| {
        case.section == *filter || last_part(&case.name) == filter || matches_glob(filter, &case.name)
    };
    if let Some(filter) = filters.iter().find(|filter| !cases.iter().any(|case| selects(filter, case))) {
        let names = cases.iter().flat_map(|case| [case.name.as_str(), last_part(&case.name), &case.section]);
        let nearest = nearest(filter, names).map(str::to_owned);
        return Err(Error::NothingSelected { filter: filter.clone(), nearest });
    }
    let selected = |case: &FrameCase| filters.is_empty() || filters.iter().any(|filter| selects(filter, case));
    Ok(cases.into_iter().filter(selected).map(Arc::new).collect())
}

/// The names of the built-in backend.
const BACKEND: Known<'static> =
    Known { profiles: &[], checks: &[], dependencies: Dependency::NAMES, variables: VARIABLES, modules: MODULES };

/// Reads a fault of the built-in backend, or of the edge before it, from one line, as in
/// `hang dependency=database until_ms=5000`.
///
/// # Errors
/// Says what is wrong, with the nearest right name.
pub fn read_backend_fault(line: &str) -> Result<Fault, Error> {
    read_fault(line, &BACKEND)
}

/// Reads a fault of an edge before anything else from one line, as in `strip_header header=Authorization`.
///
/// # Errors
/// Says what is wrong, with the nearest right name.
pub fn read_edge_fault(line: &str) -> Result<Fault, Error> {
    read_fault(line, &Known::NOTHING)
}

/// The cases below a directory, and what is wrong with those that cannot be read.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// The cases, by name.
    pub cases: Vec<Arc<Case>>,
    /// The files that are no case.
    pub broken: Vec<Error>,
}

impl Catalogue {
    /// Reads every case file (`*.toml`) below a directory. A broken one does not keep the others from being read.
    ///
    /// # Errors
    /// When there is no such directory, or no case file below it.
    pub fn read(directory: &Path) -> Result<Catalogue, Error> {
        let mut catalogue = Catalogue::default();
        let mut paths = Vec::new();
        walk(directory, &mut paths, &mut catalogue.broken)?;
        paths.sort();
        if paths.is_empty() {
            return Err(Error::NoCases(directory.to_owned()));
        }
        for path in paths {
            let relative = path.strip_prefix(directory).unwrap_or(&path).with_extension("");
            let name =
                relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
            catalogue.add_as(&name, &path)?;
        }
        Ok(catalogue)
    }

    /// Adds one case file, under the name of its path; gives that name when the file is a case.
    ///
    /// # Errors
    /// When the profiles cannot be read, which their own test forbids.
    pub fn add(&mut self, path: &Path) -> Result<Option<String>, Error> {
        let name = path.display().to_string();
        let before = self.cases.len();
        self.add_as(&name, path)?;
        Ok((self.cases.len() > before).then_some(name))
    }

    fn add_as(&mut self, name: &str, path: &Path) -> Result<(), Error> {
        let profiles = servers()?;
        let profiles: Vec<&str> = profiles.iter().map(|profile| profile.name.as_str()).collect();
        let checks = check::names();
        let known = Known { profiles: &profiles, checks: &checks, ..BACKEND };
        let read =
            fs::read_to_string(path).map_err(|source| Error::Io { doing: "read", path: path.to_owned(), source });
        match read.and_then(|text| Case::parse(&path.display().to_string(), name, &text, &known)) {
            Ok(case) => self.cases.push(Arc::new(case)),
            Err(error) => self.broken.push(error),
        }
        Ok(())
    }

    /// The cases that any of the filters selects, in the catalogue's order; all of them without a filter. A filter is
    /// the number of a report (`508`, `#508`), a scenario (`S508-1`), a case's name or its last part, or a glob over
    /// names.
    ///
    /// A filter that selects nothing is a mistake that joins the broken files; the others still select.
    pub fn select(&mut self, filters: &[String]) -> Vec<Arc<Case>> {
        if filters.is_empty() {
            return self.cases.clone();
        }
        for filter in filters {
            if !self.cases.iter().any(|case| selects(filter, case)) {
                let nearest = self.nearest(filter);
                self.broken.push(Error::NothingSelected { filter: filter.clone(), nearest });
            }
        }
        let selected = |case: &&Arc<Case>| filters.iter().any(|filter| selects(filter, case));
        self.cases.iter().filter(selected).cloned().collect()
    }

    fn nearest(&self, filter: &str) -> Option<String> {
        let names = self.cases.iter().flat_map(|case| {
            let parts = [case.name.as_str(), last_part(&case.name)];
            parts.into_iter().chain(case.scenario.as_deref()).chain(case.issues.iter().map(String::as_str))
        });
        nearest(filter.trim_start_matches('#'), names).map(str::to_owned)
    }
}

fn selects(filter: &str, case: &Case) -> bool {
    let number = filter.strip_prefix('#').unwrap_or(filter);
    case.issues.iter().any(|issue| issue.eq_ignore_ascii_case(number))
        || case.scenario.as_ref().is_some_and(|scenario| scenario.eq_ignore_ascii_case(filter))
        || case.name == filter
        || last_part(&case.name) == filter
        || matches_glob(filter, &case.name)
        || case.scenario.as_ref().is_some_and(|scenario| matches_glob(filter, scenario))
}

/// Whether a glob, in any case, is one of a text; what is none matches nothing.
pub fn matches_glob(filter: &str, text: &str) -> bool {
    let glob = GlobBuilder::new(filter).case_insensitive(true).literal_separator(false).build();
    glob.is_ok_and(|glob| glob.compile_matcher().is_match(text))
}

fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Finds case files; a directory below that cannot be read joins the broken files.
fn walk(directory: &Path, paths: &mut Vec<PathBuf>, broken: &mut Vec<Error>) -> Result<(), Error> {
    let failed = |source| Error::Io { doing: "read the directory", path: directory.to_owned(), source };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            if let Err(error) = walk(&path, paths, broken) {
                broken.push(error);
            }
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    Ok(())
}
