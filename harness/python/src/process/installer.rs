//! The tool that makes virtual environments: `uv` where it is on PATH, or else an interpreter's own `venv` and `pip`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tool that makes virtual environments, and installs into them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installer {
    /// This `uv`, which is many times as fast as pip.
    Uv(PathBuf),
    /// The interpreter's own modules.
    Pip,
}

/// Variables that tell pip where packages are, with those that tell uv the same.
const INDEX_VARIABLES: [(&str, &str); 4] = [
    ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
    ("PIP_EXTRA_INDEX_URL", "UV_INDEX"),
    ("PIP_FIND_LINKS", "UV_FIND_LINKS"),
    ("PIP_CERT", "SSL_CERT_FILE"),
];

impl Installer {
    /// The first `uv` on this process's PATH, or else pip. Where pip has settings that uv does not read, it is pip.
    pub fn on_path() -> Installer {
        match has_own_settings(|name| env::var_os(name)) {
            true => Installer::Pip,
            false => Installer::on(env::var_os("PATH").as_deref()),
        }
    }

    /// The first `uv` on this PATH, or else pip.
    pub fn on(path: Option<&OsStr>) -> Installer {
        let files = path.into_iter().flat_map(env::split_paths).map(|directory| directory.join("uv"));
        files.into_iter().find(|file| file.is_file()).map_or(Installer::Pip, Installer::Uv)
    }

    /// Its name in messages.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Installer::Uv(_) => "uv",
            Installer::Pip => "pip",
        }
    }

    /// Makes an environment without packages.
    pub(super) fn make(&self, python: &Path, place: &Path) -> Command {
        match self {
            Installer::Uv(uv) => {
                let mut command = uv_command(uv);
                command.args(["venv", "--quiet", "--no-project", "--python"]).arg(python).arg(place);
                command
            }
            Installer::Pip => {
                let mut command = interpreter(python);
                command.args(["-m", "venv"]).arg(place);
                command
            }
        }
    }

    /// Installs the packages of a requirements file into an environment. Python files are compiled at once, so that the
    /// first start of a server takes as long as any other.
    pub(super) fn install(&self, place: &Path, requirements: &Path) -> Command {
        let python = place.join("bin/python");
        match self {
            Installer::Uv(uv) => {
                let mut command = uv_command(uv);
                command.args(["pip", "install", "--quiet", "--compile-bytecode", "--python"]).arg(python);
                command.arg("-r").arg(requirements);
                command
            }
            Installer::Pip => {
                let mut command = interpreter(&python);
                command.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "-r"]);
                command.arg(requirements);
                command
            }
        }
    }
}

/// An interpreter on its own: no variable of ours reaches it.
pub(super) fn interpreter(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.env_remove("PYTHONPATH").env_remove("PYTHONHOME").env_remove("VIRTUAL_ENV").env("PYTHONUNBUFFERED", "1");
    command
}

fn uv_command(uv: &Path) -> Command {
    let mut command = Command::new(uv);
    command.env_remove("PYTHONPATH").env_remove("PYTHONHOME").env_remove("VIRTUAL_ENV");
    command.envs(index_variables(|name| env::var_os(name)));
    command
}

/// The variables that tell uv what pip is told, as far as uv is told nothing itself.
fn index_variables(get: impl Fn(&str) -> Option<OsString>) -> Vec<(&'static str, OsString)> {
    let missing = INDEX_VARIABLES.iter().filter(|(_, of_uv)| get(of_uv).is_none());
    missing.filter_map(|(of_pip, of_uv)| Some((*of_uv, as_uv_reads(of_uv, get(of_pip)?)))).collect()
}

/// A value of pip's as uv reads it: places of packages have commas between them, and not spaces.
fn as_uv_reads(name: &str, value: OsString) -> OsString {
    match value.to_str() {
        Some(text) if name == "UV_FIND_LINKS" => text.split_whitespace().collect::<Vec<_>>().join(",").into(),
        _ => value,
    }
}

/// Whether pip is told something that uv does not read: to ask no index, or a file of settings.
fn has_own_settings(get: impl Fn(&str) -> Option<OsString>) -> bool {
    let home = get("HOME").map(PathBuf::from);
    let below_home = [".config/pip/pip.conf", ".pip/pip.conf"];
    let of_user = home.iter().flat_map(|home| below_home.map(|file| home.join(file)));
    let mut files = of_user.chain([PathBuf::from("/etc/pip.conf"), PathBuf::from("/etc/xdg/pip/pip.conf")]);
    get("PIP_NO_INDEX").is_some() || get("PIP_CONFIG_FILE").is_some() || files.any(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;

    use super::{has_own_settings, index_variables};

    fn index_variables_where(names: &[&str]) -> Vec<(&'static str, OsString)> {
        index_variables(|name| names.contains(&name).then(|| OsString::from(format!("the {name}"))))
    }

    #[test]
    fn uv_looks_for_packages_where_pip_does() {
        let found = index_variables_where(&["PIP_INDEX_URL"]);
        assert_eq!(found, [("UV_DEFAULT_INDEX", OsString::from("the PIP_INDEX_URL"))]);
        assert_eq!(index_variables_where(&["PIP_INDEX_URL", "UV_DEFAULT_INDEX"]), []);
        assert_eq!(index_variables_where(&[]), []);
        let links = index_variables(|name| (name == "PIP_FIND_LINKS").then(|| OsString::from("/a  /b")));
        assert_eq!(links, [("UV_FIND_LINKS", OsString::from("/a,/b"))]);
    }

    fn is_pip_asked_for(home: &Path, variable: &str) -> bool {
        has_own_settings(|name| match name {
            "HOME" => Some(home.into()),
            _ => (name == variable).then(|| OsString::from("1")),
        })
    }

    #[test]
    fn settings_of_pip_alone_ask_for_pip() {
        let home = tempfile::tempdir().unwrap();
        assert!(is_pip_asked_for(home.path(), "PIP_NO_INDEX"));
        assert!(is_pip_asked_for(home.path(), "PIP_CONFIG_FILE"));
        std::fs::create_dir_all(home.path().join(".config/pip")).unwrap();
        std::fs::write(home.path().join(".config/pip/pip.conf"), "[global]\n").unwrap();
        assert!(is_pip_asked_for(home.path(), "OTHER"));
    }
}
