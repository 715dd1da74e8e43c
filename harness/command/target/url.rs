//! A server behind a URL.

use std::{fmt, sync::Arc};

use relapse::{
    Result,
    external::{External, Front},
    service_file::ServiceFile,
    upstream::Upstream,
};
use relapse_core::record::service::TargetKind;
use relapse_simulate::clock::{Clock, Runtime};

use super::{FormEntry, PythonArgs, ServiceFileArgs, TargetContext, TargetForm};
use crate::error::UsageError;

/// The form of a URL.
pub(super) static FORM: FormEntry = FormEntry {
    noun: "server",
    written: "`http://`, `https://`, `ws://` or `wss://`, host and port",
    parse: |text| Some(text.parse().map(|upstream| Arc::new(UrlForm(upstream)) as Arc<dyn TargetForm>)),
};

/// A server behind a URL.
#[derive(Debug)]
struct UrlForm(Upstream);

impl fmt::Display for UrlForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TargetForm for UrlForm {
    fn kind(&self, _: &PythonArgs) -> TargetKind {
        TargetKind::Url
    }

    fn clock(&self, _: &PythonArgs) -> Clock {
        Clock::Real
    }

    fn check(
        &self,
        python: &PythonArgs,
        profiles: &[String],
        service_file: &ServiceFileArgs,
    ) -> Result<(), UsageError> {
        python.without_routes().check_absent()?;
        if !profiles.is_empty() {
            return Err(UsageError::NotLoaded { option: "--profile", noun: FORM.noun });
        }
        service_file.check_host(&self.0)
    }

    fn reach(&self, _: &Runtime, context: TargetContext<'_>, binding: &ServiceFile, token: &str) -> Result<External> {
        let server = External::new(context.budget.server(&self.0, binding, token), Front::Unknown);
        Ok(External { routes: context.python.named_routes()?, ..server })
    }
}
