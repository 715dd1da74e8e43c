//! The deployment environment a backend believes it is in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A deployment environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Environment {
    /// An engineer's machine.
    Development,
    /// A test run.
    Testing,
    /// The stage before production.
    Staging,
    /// Production.
    Production,
}

impl Environment {
    /// Every environment.
    pub const ALL: [Environment; 4] =
        [Environment::Development, Environment::Testing, Environment::Staging, Environment::Production];

    /// The value that `ENVIRONMENT` carries for it.
    pub fn name(self) -> &'static str {
        match self {
            Environment::Development => "development",
            Environment::Testing => "testing",
            Environment::Staging => "staging",
            Environment::Production => "production",
        }
    }

    /// Whether it runs on the cloud platform: staging and production.
    pub fn is_deployed(self) -> bool {
        matches!(self, Environment::Staging | Environment::Production)
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
