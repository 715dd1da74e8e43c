//! A Python application.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use relapse::{
    Result,
    discover::servers,
    external::{External, Front},
    hunt::Launch,
    recording::learn as learn_routes,
    route::RouteTrouble,
    service_file::ServiceFile,
};
use relapse_core::{record::service::TargetKind, wire::head_limit::HeadLimit};
use relapse_python::{
    app::Python as PythonTarget,
    process::{
        Epoch, Installation as PythonInstallation, InterpreterOrigin, Server as PythonServer, ServerChoice,
        Site as PythonSite,
    },
    served::Served,
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    profile::Profile,
};

use super::{FormEntry, PythonArgs, RouteGuessing, ServiceFileArgs, TargetContext, TargetForm, TargetSpec};
use crate::{error::UsageError, interrupt::end_interpreters_with_us, output::note, server};

/// The form of a Python application.
pub(super) static FORM: FormEntry = FormEntry {
    noun: "Python application",
    written: "`asgi:package.module:app`, with ` @ DIR` behind it where it is elsewhere",
    parse: |text| Some(parse(text.strip_prefix("asgi:")?).map(|form| Arc::new(form) as Arc<dyn TargetForm>)),
};

/// A Python application, as `asgi:package.module:attribute` and, after ` @ ` each, its places.
#[derive(Debug)]
struct PythonForm {
    /// `package.module:attribute`.
    app: String,
    /// Its directory, and packages as pip knows them.
    places: Vec<String>,
}

/// Reads an application and its places.
fn parse(text: &str) -> Result<PythonForm, String> {
    let mut parts = text.split(" @ ").map(|part| part.trim().to_owned());
    let app = parts.next().unwrap_or_default();
    match app.split_once(':') {
        Some((module, attribute)) if !module.is_empty() && !attribute.is_empty() => {
            Ok(PythonForm { app, places: parts.collect() })
        }
        _ => Err("write it as in `asgi:package.module:app`".to_owned()),
    }
}

impl TargetSpec {
    /// A Python application `package.module:attribute` with its directory, and packages as pip knows them.
    pub(crate) fn python(app: String, places: Vec<String>) -> TargetSpec {
        TargetSpec { noun: FORM.noun, target: Arc::new(PythonForm { app, places }) }
    }
}

impl fmt::Display for PythonForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "asgi:{}", self.app)?;
        self.places.iter().try_for_each(|place| write!(f, " @ {place}"))
    }
}

impl TargetForm for PythonForm {
    fn kind(&self, python: &PythonArgs) -> TargetKind {
        if python.is_served() { TargetKind::Served } else { TargetKind::Python }
    }

    fn clock(&self, python: &PythonArgs) -> Clock {
        python.clock()
    }

    fn check(
        &self,
        python: &PythonArgs,
        profiles: &[String],
        service_file: &ServiceFileArgs,
    ) -> Result<(), UsageError> {
        service_file.check_no_host()?;
        python.check_server(profiles)
    }

    fn reach(
        &self,
        runtime: &Runtime,
        context: TargetContext<'_>,
        binding: &ServiceFile,
        token: &str,
    ) -> Result<External> {
        let reached = self.launcher(context, binding, token)?(runtime)?;
        tell_troubles(&reached.troubles);
        Ok(reached)
    }

    fn once_more(&self, context: TargetContext<'_>, binding: &ServiceFile, token: &str) -> Result<Option<Box<Launch>>> {
        self.launcher(context, binding, token).map(Some)
    }

    fn site(&self, python: &PythonArgs) -> Result<Option<PythonSite>> {
        Ok(Some(python.site(&self.app, &self.places)?.0))
    }
}

/// Says which routes could not be learned, each failure once.
fn tell_troubles(troubles: &[RouteTrouble]) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    for trouble in troubles.iter().map(ToString::to_string) {
        if !told.contains(&trouble) {
            note(&trouble);
            told.insert(trouble);
        }
    }
}

/// The server in front of a Python application.
enum FrontChoice {
    /// One of the known servers, played by its profile.
    Profile(Arc<Profile>, PythonSite),
    /// A real one, with the limits that servers like it put on the heads of requests.
    Server(ServerChoice, Vec<HeadLimit>, PythonSite),
}

/// The limits of every profile of such a server on the heads of requests.
fn known_limits(server: &ServerChoice) -> Result<Vec<HeadLimit>> {
    let profiles = servers()?.into_iter().filter(|profile| {
        profile.choice.parse::<ServerChoice>().is_ok_and(|known| {
            let is_other = |own: &Option<String>, known: &Option<String>| own.is_some() && own != known;
            known.software == server.software && !is_other(&server.implementation, &known.implementation)
        })
    });
    Ok(profiles.flat_map(|profile| profile.limits.all().map(|(limit, _)| limit).collect::<Vec<_>>()).collect())
}

/// The server in front of an application there.
fn front(context: TargetContext<'_>, site: PythonSite, origin: InterpreterOrigin) -> Result<FrontChoice> {
    let Some(chosen) = context.python.server.clone() else {
        let profile = match context.profile {
            Some(name) => server(name)?,
            None => servers()?.swap_remove(0),
        };
        return Ok(FrontChoice::Profile(profile, site));
    };
    let python = chosen.interpreter(&site.python, origin, &note)?;
    let limits = known_limits(&chosen)?;
    Ok(FrontChoice::Server(chosen, limits, PythonSite { python, ..site }))
}

impl PythonForm {
    /// Starts an interpreter with an application in it.
    fn launcher(&self, context: TargetContext<'_>, binding: &ServiceFile, token: &str) -> Result<Box<Launch>> {
        end_interpreters_with_us();
        let (site, origin) = context.python.site(&self.app, &self.places)?;
        // A token says by the true time when it was issued and when it expires.
        let has_tokens = binding.credential.source.is_some() || !binding.users.is_empty();
        let epoch = if has_tokens { Epoch::Now } else { Epoch::Fixed };
        let site = PythonSite { epoch, coverage: context.coverage, deadline: context.deadline, ..site };
        let (binding, token, seed, guesses) = (binding.clone(), token.to_owned(), context.seed, context.guesses);
        let (named, recorded) = (context.python.named_routes()?, context.python.recorded()?);
        let behind = front(context, site, origin)?;
        Ok(Box::new(move |runtime: &Runtime| {
            let (mut reached, introduction) = match &behind {
                FrontChoice::Server(server, limits, site) => {
                    let (site, server, front) = (site.clone(), server.clone(), Front::Server(server.to_string()));
                    let start_limit = site.start_limit;
                    let installation = PythonInstallation { site, server, flags: Vec::new(), start_limit };
                    let (server, introduction) = runtime.block_on(PythonServer::start(installation))?;
                    let served = Served::new(server, &binding, token.clone()).limited(limits.clone());
                    (External::new(served, front), introduction)
                }
                FrontChoice::Profile(profile, site) => {
                    let launched =
                        PythonTarget::launch(site.clone(), &binding, token.clone(), Arc::clone(profile), seed);
                    let (python, introduction) = runtime.block_on(launched)?;
                    (External::new(python, Front::Profile(profile.name.clone())), introduction)
                }
            };
            reached.troubles = introduction.troubles;
            reached.routes = named.iter().cloned().chain(introduction.routes).collect();
            // A user who says how it is spoken to does not need guesses.
            if named.is_empty() && recorded.is_empty() && binding.is_unknown() {
                match guesses {
                    RouteGuessing::Checked => {
                        runtime.block_on(reached.add_found(introduction.guesses, &binding, seed))?;
                    }
                    RouteGuessing::Apart if reached.routes.is_empty() => reached.guesses = introduction.guesses,
                    RouteGuessing::Kept if reached.routes.is_empty() => reached.routes = introduction.guesses,
                    RouteGuessing::Apart | RouteGuessing::Kept => {}
                }
            }
            learn_routes(&mut reached.routes, &recorded);
            Ok(reached)
        }))
    }
}
