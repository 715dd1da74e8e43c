//! Tests of every case, server and file. One binary, so that there is one thing to link.

#![expect(clippy::unwrap_used, reason = "a suite that cannot go on has failed")]

mod asgi_values; // values, scopes, frames, events
mod attacks; // apps that try to obtain a wrong verdict
mod baselines; // what a team knows does not fail a hunt
mod command; // the built binary: output and exit codes
mod compression; // messages under permessage-deflate, from client to app, with faults between
mod conformance; // how servers keep RFC 6455, frame by frame
mod corpus; // small services with one mistake each
mod credentials; // every credential, place and environment
mod dependencies; // what the service depends on, over HTTP
mod differential;
mod edge; // a request that is changed on its way
mod explaining; // what the wire alone tells of a cause
mod faults; // each fault does what it says
mod frameworks; // what the frameworks of applications tell
mod generator; // what a seed draws, and that it goes on drawing it
mod hostile; // what must not harm: hostile apps, peers, files and users
mod hunt_apps; // hunts of applications by their own routes
mod hunts; // findings without a report
mod judgement; // what must not be taken for good
mod leftovers; // what apps keep of clients that are gone
mod lifespan; // the start and the end of a process
mod messages; // what the backend answers
mod mixups; // what a client gets that is not its own
mod mutations; // each check, defect and repair, taken away, turns a case red
mod plans; // whatever clients do and whatever fails
mod properties; // whatever a client may write
mod proxy; // the standing man in the middle
mod python; // users' own applications, in an interpreter
mod races; // the client leaves at every await
mod reference_app; // the reference app behind real servers
mod rendering; // what tables, pages and messages look like
mod replays; // every printed command, run by a shell
mod rulings; // the rules of the verdicts, one by one
mod secrets; // planted secrets, looked for in every output
mod serve_and_validate; // `serve`, and the check of a deployment
mod served; // users' own applications, behind real servers
mod servers; // what each server profile makes of an application's behavior
mod service; // the built-in service's own rules
mod signals; // signals and arguments for real servers
mod stage; // the reference app in Python, as software of a target
mod stalls; // apps that keep the event loop to themselves
mod steps; // the steps of a case
mod stories; // hunts whose clients belong together
mod support; // helpers
mod tidy; // the rules of this house
mod tools; // helpers of all binaries
mod twin; // the backend held against the real frameworks
mod unhandled; // exceptions that an app leaves to nothing
mod upgrades; // every opening handshake behind every server
mod validate_apps; // `validate`, `init` and `conform` on users' own applications
mod venvs; // what applications and servers are installed in
mod verdicts; // the verdicts on apps with one defect each
mod wire; // real sockets, and independent implementations on the other end
