//! A launched target, as the probe and the conduct see it.

use std::fmt;

use crate::{
    application::Promise,
    credential::{Credential, Form, Presented},
    error::Error,
    link::Link,
    recorder::Scribe,
    transcript::{Residue, Service},
};

/// A launched target.
pub trait Running: fmt::Debug {
    /// Opens a link to it; `None` when nothing listens. Everything that happens behind the link is recorded by this
    /// scribe.
    fn connect(&self, scribe: Scribe) -> Promise<'_, Result<Option<Link>, Error>>;

    /// Starts its process anew, under the process faults of the scribe's plan. What is recorded belongs to no exchange.
    /// A target whose process is not ours cannot.
    fn restart(&self, _scribe: Scribe) -> Promise<'_, Result<(), Error>> {
        let fault = "anything on the process of what is not ours".to_owned();
        Box::pin(async move { Err(Error::NoSuchPlace { fault }) })
    }

    /// A credential of this kind for a user; a ticket where one is asked for.
    fn credential(&self, kind: Credential, user: &str, form: Form) -> Presented;

    /// What is known of it.
    fn service(&self) -> Service;

    /// What it still holds now; `None` where it cannot tell.
    fn residue(&self) -> Option<Residue>;

    /// Ends whatever still runs. A panic in the target comes out here, so that a target that died cannot look like
    /// one that passed.
    fn stop(&self) -> Promise<'_, Result<(), Error>>;
}
