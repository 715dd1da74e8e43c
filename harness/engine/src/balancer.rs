//! The effect of a named load balancer on everything that passes it: a bundle of edge faults, as data
//! (`fixtures/profiles/balancers/`).

use serde::Deserialize;

use crate::case::read_faults;
use relapse_core::{error::Error, fault::Fault};

/// A named load balancer.
#[derive(Debug, Clone, PartialEq)]
pub struct Balancer {
    /// Its name, such as `gcp-https`.
    pub name: String,
    /// Whose it is.
    pub title: String,
    /// Where the figures come from.
    pub source: String,
    /// The faults of every connection that passes it.
    pub faults: Vec<Fault>,
}

#[derive(Deserialize)]
struct Raw {
    name: String,
    title: String,
    source: String,
}

impl Balancer {
    /// Reads a balancer.
    ///
    /// # Errors
    /// Says where in the file and what is wrong.
    pub fn parse(path: &str, text: &str) -> Result<Balancer, Error> {
        let Raw { name, title, source } = toml::from_str(text).map_err(|error| Error::toml(path, text, &error))?;
        Ok(Balancer { name, title, source, faults: read_faults(path, text)? })
    }
}
