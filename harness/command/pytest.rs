//! A hunt's findings on a Python application, as tests in Python.

use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use relapse::{
    Result,
    deadline::Deadline,
    files::{FileLimit, read_text},
    hunt::Found,
    service_file::{ServiceFile, TokenSource},
};
use relapse_python::{
    process::{Confinement, Site as PythonSite, finish},
    pytest::{Heading, Loaded, render},
};
use relapse_simulate::profile::Profile;

use super::{
    files::{self, Existing},
    output::{note, without_secrets},
};

/// How long a test may take that is tried once.
const TRY_LIMIT: Duration = Duration::from_secs(120);

/// The variable from which a test reads a token that has no name in the service file.
const TOKEN_VARIABLE: &str = "RELAPSE_TOKEN";

/// Where tests are written, and what they say of the application.
#[derive(Debug)]
pub(super) struct Tests<'a> {
    /// A directory, or one file.
    pub(super) path: &'a Path,
    /// Where the application is.
    pub(super) site: PythonSite,
    pub(super) binding: &'a ServiceFile,
    pub(super) token: &'a str,
    /// The server in front of it.
    pub(super) profile: &'a Profile,
    /// When nothing more is tried.
    pub(super) deadline: Deadline,
}

impl Tests<'_> {
    /// Writes a test for each finding, tries it, and says whether it fails as it is to. `again` gives the reproducer of a
    /// finding and the command that shows it.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn write(&self, found: &[Found], again: impl Fn(&Found) -> (String, String)) -> Result {
        let is_file = self.path.extension().is_some_and(|extension| extension == "py");
        for (number, found) in found.iter().enumerate() {
            let (capsule, again) = again(found);
            let name = Path::new(&capsule)
                .file_stem()
                .map_or(found.capsule.name.clone(), |stem| stem.to_string_lossy().into_owned());
            let path = match (is_file, number) {
                (false, _) => self.path.join(format!("test_{name}.py")),
                (true, 0) => self.path.to_owned(),
                (true, _) => self.path.with_file_name(format!("{}_{}.py", stem(self.path), number + 1)),
            };
            // The way to the application is told from a directory that is there.
            files::make_directory_of(&path)?;
            let loaded = self.loaded(&path);
            let heading = Heading { name: &name, found, again: &again, loaded: &loaded, profile: self.profile };
            let Some(text) = render(&heading) else {
                note(&format!("no test for {}: it is about what the server makes of the application", found.key));
                continue;
            };
            if path.exists() && !is_as_written(&path, &text) {
                note(&format!("{}: is there already, and stays as it is", path.display()));
                continue;
            }
            files::write(&path, &text, Existing::Replace)?;
            let tried = if self.deadline.is_over() { self.untried(&path) } else { self.tried(&path) };
            note(&tried);
        }
        Ok(())
    }

    fn loaded(&self, path: &Path) -> Loaded {
        let secret = match &self.binding.credential.source {
            Some(TokenSource::Env(name)) => Some(format!("secret({name:?})")),
            Some(TokenSource::Command(command)) => Some(format!("os.popen({command:?}).read().strip()")),
            Some(TokenSource::Literal(_)) => Some(format!("secret({TOKEN_VARIABLE:?})")),
            Some(TokenSource::Issued) | None => None,
        };
        let own = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let own = own.parent().map(|parent| parent.canonicalize().unwrap_or(parent.to_owned())).unwrap_or_default();
        Loaded {
            app: self.site.app.clone(),
            factory: self.site.factory,
            directory: between(&own, &self.site.directory).display().to_string(),
            environment: self.site.environment.clone(),
            secret: secret.map(|expression| (self.token.to_owned(), expression)),
        }
    }

    fn untried(&self, path: &Path) -> String {
        format!("{}: written; not tried: {}", path.display(), self.deadline.reason())
    }

    /// Runs a test once, and says what became of it.
    fn tried(&self, path: &Path) -> String {
        let mut python = Command::new(&self.site.python);
        if let Some(TokenSource::Literal(token)) = &self.binding.credential.source {
            python.env(TOKEN_VARIABLE, token);
        }
        python.envs(self.site.environment.iter().cloned()).arg(path);
        let shown = path.display();
        let limit = self.deadline.left().map_or(TRY_LIMIT, |left| left.min(TRY_LIMIT));
        let ended = match finish(&mut python, Confinement::App, limit) {
            _ if self.deadline.is_over() => return self.untried(path),
            Ok(None) => return format!("{shown}: written; it did not end within {} s", TRY_LIMIT.as_secs()),
            Err(error) => return format!("{shown}: written; it could not be tried: {error}"),
            Ok(Some(ended)) => ended,
        };
        let said = String::from_utf8_lossy(&ended.errors).into_owned();
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        match (ended.status.success(), last.split_once("AssertionError: ")) {
            (true, _) => format!("{shown}: written, and it passes: played alone nothing is wrong, so it shows nothing"),
            (false, Some((_, why))) => format!("{shown}: written; it fails, as it is to: {why}"),
            (false, None) => format!("{shown}: written; it cannot play that: {last}"),
        }
    }
}

/// Whether a file has this text, as it is written without secrets.
fn is_as_written(path: &Path, text: &str) -> bool {
    read_text(path, FileLimit::WRITTEN).is_ok_and(|there| there == without_secrets(text))
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The way from one directory to another.
fn between(from: &Path, to: &Path) -> PathBuf {
    let (from, to): (Vec<Component<'_>>, Vec<Component<'_>>) = (from.components().collect(), to.components().collect());
    let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let up = std::iter::repeat_n(Component::ParentDir, from.len() - common);
    let way: PathBuf = up.chain(to[common..].iter().copied()).collect();
    if way.as_os_str().is_empty() { PathBuf::from(".") } else { way }
}
