//! The built-in backend, and what stands in its place in a build without the feature `backend`.

#[cfg(not(feature = "backend"))]
mod absent;

#[cfg(feature = "backend")]
pub(super) use super::serve::{ServeArgs, serve};
#[cfg(not(feature = "backend"))]
pub(super) use absent::{ServeArgs, defect, revision, runner, serve};
#[cfg(feature = "backend")]
pub(super) use relapse_backend::{defect, revision, runner};

use relapse::Result;
#[cfg(not(feature = "backend"))]
use relapse_core::error::Error;

/// Whether this build has it.
///
/// # Errors
/// [`Error::NoBackend`](relapse_core::error::Error::NoBackend) where it has not.
pub(super) fn is_there() -> Result {
    #[cfg(not(feature = "backend"))]
    return Err(Error::NoBackend);
    #[cfg(feature = "backend")]
    Ok(())
}
