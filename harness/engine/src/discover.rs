//! Finds cases and profiles: the only place that reads our files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use glob::{MatchOptions, Pattern};

use crate::{
    balancer::Balancer,
    case::{Case, Known, read_fault},
    files::{FileLimit, read_text},
    issue::Issue,
};
use relapse_core::{
    conformance::FrameCase,
    error::{Error, nearest},
    fault::Fault,
    judge::check::{self, Check},
};
use relapse_simulate::profile::Profile;

/// The files that the build script embeds.
mod embedded {
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// The server profiles, by the key `order` of each, and then by name. The first is the default one.
///
/// # Errors
/// When one of them cannot be read, which its own test forbids.
pub fn servers() -> Result<Vec<Arc<Profile>>, Error> {
    static READ: OnceLock<Vec<Arc<Profile>>> = OnceLock::new();
    if let Some(profiles) = READ.get() {
        return Ok(profiles.clone());
    }
    let read = embedded::SERVERS.iter().map(|(path, text)| Profile::parse(path, text).map(Arc::new));
    let mut profiles: Vec<Arc<Profile>> = read.collect::<Result<_, _>>()?;
    // Stable: the files come sorted by name.
    profiles.sort_by_key(|profile| profile.order.unwrap_or(u16::MAX));
    Ok(READ.get_or_init(|| profiles).clone())
}

/// The server profile with this name, or in this file, which ends in `.toml`. A profile of a file has the file's path as
/// its name, so that a command that names it can be repeated.
///
/// # Errors
/// When there is none, with the nearest right name; or when the file is no profile, with the place in it.
pub fn server(name: &str) -> Result<Arc<Profile>, Error> {
    if is_file(name) {
        let path = Path::new(name);
        let text = read_text(path, FileLimit::WRITTEN)?;
        return Ok(Arc::new(Profile { name: name.to_owned(), ..Profile::parse(name, &text)? }));
    }
    let servers = servers()?;
    let found = servers.iter().find(|profile| profile.name == name).cloned();
    found.ok_or_else(|| Error::unknown("server profile", name, servers.iter().map(|profile| profile.name.as_str())))
}

/// The server profiles with these names, in their order and each once: names, globs over names, `all`, and files that end
/// in `.toml`.
///
/// # Errors
/// As [`server`].
pub fn servers_named(names: &[String]) -> Result<Vec<Arc<Profile>>, Error> {
    let mut named: Vec<Arc<Profile>> = Vec::new();
    for name in names {
        let glob = if name == "all" { "*" } else { name };
        let mut matching = servers()?;
        matching.retain(|profile| matches_glob(glob, &profile.name));
        if matching.is_empty() {
            matching.push(server(name)?);
        }
        matching.retain(|profile| !named.contains(profile));
        named.extend(matching);
    }
    Ok(named)
}

/// The server profiles, and those in the files that cases name.
///
/// # Errors
/// As [`server`].
pub fn servers_for(cases: &[Arc<Case>]) -> Result<Vec<Arc<Profile>>, Error> {
    let mut servers = servers()?;
    for name in cases.iter().filter_map(|case| case.profiles.as_ref()).flatten() {
        if !servers.iter().any(|profile| profile.name == *name) {
            servers.push(server(name)?);
        }
    }
    Ok(servers)
}

/// Whether a profile or a load balancer is named by its file.
fn is_file(name: &str) -> bool {
    name.ends_with(".toml")
}

/// The profiles of the files that a case names.
fn profiles_in(case: &str) -> Result<Vec<Arc<Profile>>, Error> {
    // A case that is no TOML, or whose key is something else, has an error of its own.
    let table: toml::Table = case.parse().unwrap_or_default();
    let names = table.get("profiles").and_then(toml::Value::as_array).into_iter().flatten();
    names.filter_map(toml::Value::as_str).filter(|name| is_file(name)).map(server).collect()
}

/// The load balancers, by name.
///
/// # Errors
/// When one of them cannot be read, which its own test forbids.
pub fn balancers() -> Result<Vec<Balancer>, Error> {
    embedded::BALANCERS.iter().map(|(path, text)| Balancer::parse(path, text)).collect()
}

/// The load balancer with this name, or in this file, which ends in `.toml`.
///
/// # Errors
/// When there is none, with the nearest right name; or when the file is no load balancer, with the place in it.
pub fn balancer(name: &str) -> Result<Balancer, Error> {
    if is_file(name) {
        let path = Path::new(name);
        return Balancer::parse(name, &read_text(path, FileLimit::WRITTEN)?);
    }
    let balancers = balancers()?;
    let found = balancers.iter().find(|balancer| balancer.name == name).cloned();
    let names = balancers.iter().map(|balancer| balancer.name.as_str());
    found.ok_or_else(|| Error::unknown("load balancer", name, names))
}

/// The sets of packages in which every one is pinned, of each package the newest first: name and text of each
/// requirements file.
pub fn requirements() -> impl Iterator<Item = (&'static str, &'static str)> {
    embedded::REQUIREMENTS.iter().rev().map(|(path, text)| (path.trim_end_matches(".txt"), *text))
}

/// The reported issues, in the order of their file.
///
/// # Errors
/// When the file cannot be read, which its own test forbids.
pub fn issues() -> Result<Vec<Issue>, Error> {
    Issue::parse("issues.toml", include_str!("../../../fixtures/issues.toml"))
}

/// The cases of RFC 6455 that any of the filters selects, all of them without one, in the order of its sections. A filter is a case's name or its
/// last part, a section, or a glob over names.
///
/// # Errors
/// When a filter selects nothing, with the nearest right name.
pub fn frame_cases(filters: &[String]) -> Result<Vec<Arc<FrameCase>>, Error> {
    let groups = embedded::CONFORMANCE.iter().map(|(path, text)| FrameCase::parse(path, text));
    let cases: Vec<FrameCase> = groups.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    if let Some(filter) = filters.iter().find(|filter| !cases.iter().any(|case| selects_frames(filter, case))) {
        let names = cases.iter().flat_map(|case| [case.name.as_str(), last_part(&case.name), &case.section]);
        let nearest = nearest(filter, names).map(str::to_owned);
        return Err(Error::NothingSelected { filter: filter.clone(), nearest });
    }
    let selected = cases
        .into_iter()
        .filter(|case| filters.is_empty() || filters.iter().any(|filter| selects_frames(filter, case)));
    Ok(selected.map(Arc::new).collect())
}

fn selects_frames(filter: &str, case: &FrameCase) -> bool {
    case.section == filter || last_part(&case.name) == filter || matches_glob(filter, &case.name)
}

/// Reads a fault of an edge before anything else from one line, as in `strip_header header=Authorization`.
///
/// # Errors
/// Says what is wrong, with the nearest right name.
pub fn read_edge_fault(line: &str) -> Result<Fault, Error> {
    read_fault(line, &Known::NOTHING)
}

/// The beginning of the name of a file that travels inside this library.
pub const EMBEDDED: &str = "embedded:";

/// The reproducers that travel inside this library, each by a name that [`Catalogue::add`] takes for a path.
pub fn embedded_reproducers() -> impl Iterator<Item = PathBuf> {
    embedded::REPRODUCERS.iter().map(|(file, _)| embedded_name(file).into())
}

fn embedded_name(file: &str) -> String {
    format!("{EMBEDDED}{}", file.trim_end_matches(".toml"))
}

/// The cases below a directory, and what is wrong with those that cannot be read.
#[derive(Debug)]
pub struct Catalogue {
    /// The names that they may use besides those of servers and checks.
    known: Known<'static>,
    /// The cases, by name.
    pub cases: Vec<Arc<Case>>,
    /// The files that are no case.
    pub broken: Vec<Error>,
}

impl Catalogue {
    /// No cases yet; those that are added may use these names.
    pub fn knowing(known: Known<'static>) -> Catalogue {
        Catalogue { known, cases: Vec::new(), broken: Vec::new() }
    }

    /// Reads every case file (`*.toml`) below a directory. A broken one does not keep the others from being read.
    ///
    /// # Errors
    /// When there is no such directory, or no case file below it.
    pub fn read(directory: &Path, known: Known<'static>) -> Result<Catalogue, Error> {
        let mut catalogue = Catalogue::knowing(known);
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

    /// The cases that travel inside this library: those of the reported issues.
    ///
    /// # Errors
    /// When the profiles cannot be read, which their own test forbids.
    pub fn embedded(known: Known<'static>) -> Result<Catalogue, Error> {
        let mut catalogue = Catalogue::knowing(known);
        let mut files: Vec<&(&str, &str)> = embedded::CASES.iter().collect();
        // The order of a directory.
        files.sort_by_key(|(name, _)| Path::new(*name));
        for (file, text) in files {
            catalogue.add_text(file.trim_end_matches(".toml"), &format!("{EMBEDDED}{file}"), text)?;
        }
        Ok(catalogue)
    }

    /// Adds one case file, under the name of its path, or a reproducer by its name in [`embedded_reproducers`]; gives that
    /// name when the file is a case.
    ///
    /// # Errors
    /// When the profiles cannot be read, which their own test forbids.
    pub fn add(&mut self, path: &Path) -> Result<Option<String>, Error> {
        let name = path.display().to_string();
        let before = self.cases.len();
        let inside = embedded::REPRODUCERS.iter().find(|(file, _)| embedded_name(file) == name);
        match inside {
            Some((_, text)) => self.add_text(&name, &name, text)?,
            None => self.add_as(&name, path)?,
        }
        Ok((self.cases.len() > before).then_some(name))
    }

    fn add_as(&mut self, name: &str, path: &Path) -> Result<(), Error> {
        match read_text(path, FileLimit::WRITTEN) {
            Ok(text) => self.add_text(name, &path.display().to_string(), &text),
            Err(error) => {
                self.broken.push(error);
                Ok(())
            }
        }
    }

    /// Adds the text of a case file, under a name; errors show the path.
    fn add_text(&mut self, name: &str, path: &str, text: &str) -> Result<(), Error> {
        match self.read_case(name, path, text, &servers()?) {
            Ok(case) => self.cases.push(Arc::new(case)),
            Err(error) => self.broken.push(error),
        }
        Ok(())
    }

    fn read_case(&self, name: &str, path: &str, text: &str, servers: &[Arc<Profile>]) -> Result<Case, Error> {
        let own = profiles_in(text)?;
        let profiles: Vec<&str> = servers.iter().chain(&own).map(|profile| profile.name.as_str()).collect();
        let checks: Vec<&dyn Check> = check::ALL.iter().chain(self.known.checks).copied().collect();
        let known = Known { profiles: &profiles, checks: &checks, ..self.known };
        let mut case = Case::parse(path, name, text, &known)?;
        servers.iter().chain(&own).for_each(|profile| case.inherit_claims(profile));
        Ok(case)
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
        self.cases
            .iter()
            .filter(|case: &&Arc<Case>| filters.iter().any(|filter| selects(filter, case)))
            .cloned()
            .collect()
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
    let options = MatchOptions { case_sensitive: false, ..MatchOptions::new() };
    Pattern::new(filter).is_ok_and(|pattern| pattern.matches_with(text, options))
}

fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Finds case files; a directory below that cannot be read joins the broken files.
fn walk(directory: &Path, paths: &mut Vec<PathBuf>, broken: &mut Vec<Error>) -> Result<(), Error> {
    let failed = Error::io("read the directory", directory);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        // A link may lead back to here.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if let Err(error) = walk(&path, paths, broken) {
                broken.push(error);
            }
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    Ok(())
}
