//! A launched target, as the probe and the conduct see it.

use std::fmt;

use crate::{
    application::Promise,
    credential::{Credential, Presented},
    error::Error,
    link::Link,
    recorder::Scribe,
    transcript::Service,
};

/// A launched target.
pub trait Running: fmt::Debug {
    /// Opens a link to it. Everything that happens behind the link is recorded by this scribe.
    fn connect(&self, scribe: Scribe) -> Promise<'_, Result<Link, Error>>;

    /// A credential of this kind for a user.
    fn credential(&self, kind: Credential, user: &str) -> Presented;

    /// What is known of it.
    fn service(&self) -> Service;

    /// Ends whatever still runs. A panic in the target comes out here, so that a target that died cannot look like
    /// one that passed.
    fn stop(&self) -> Promise<'_, Result<(), Error>>;
}
