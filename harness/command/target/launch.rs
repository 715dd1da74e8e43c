//! Interpreters with an application in them.

use std::sync::Arc;

use relapse::{
    Result,
    discover::servers,
    external::{External, Front},
    hunt::Launch,
    recording::learn as learn_routes,
    service_file::ServiceFile,
};
use relapse_core::wire::head_limit::HeadLimit;
use relapse_python::{
    app::Python as PythonTarget,
    process::{
        Epoch, Installation as PythonInstallation, InterpreterOrigin, Server as PythonServer, ServerChoice,
        Site as PythonSite,
    },
    served::Served,
};
use relapse_simulate::{clock::Runtime, profile::Profile};

use super::{RouteGuessing, TargetContext};
use crate::{interrupt::end_interpreters_with_us, output::note, server};

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

/// Starts an interpreter with an application in it.
pub(super) fn launcher(
    app: &str,
    places: &[String],
    context: TargetContext<'_>,
    binding: &ServiceFile,
    token: &str,
) -> Result<Box<Launch>> {
    end_interpreters_with_us();
    let (site, origin) = context.python.site(app, places)?;
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
                let launched = PythonTarget::launch(site.clone(), &binding, token.clone(), Arc::clone(profile), seed);
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
