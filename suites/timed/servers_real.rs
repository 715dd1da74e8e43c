//! The servers themselves, held against the data of their profiles, row by row.

use relapse_python::{
    measure::{Measurement, Slow, measure},
    process::{InterpreterOrigin, ServerChoice},
};
use relapse_simulate::clock::{Clock, Runtime};

use super::alone;
use crate::tools::python;
use relapse::discover::servers;

/// Rows that take too long to measure on any of them.
const SLOW: [&str; 4] = [
    "lifespan.startup_timeout_s",
    "before_accept.time_limit_s",
    "keepalive.ping_interval_ms",
    "keepalive.pong_timeout_ms",
];

fn measured(server: &str) -> Measurement {
    let server: ServerChoice = server.parse().unwrap();
    let python = server.interpreter(&python(), InterpreterOrigin::Default, &|_| {}).unwrap();
    Runtime::new(Clock::Real).block_on(measure(&server, &python, Slow::LeftOut)).unwrap()
}

/// Every row of a profile is what its server does, but for those that cannot be seen. One server is measured at a time:
/// some give a client a second to answer.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn servers_do_as_their_profiles_say() {
    let _alone = alone();
    let mut wrong = Vec::new();
    for profile in servers().unwrap() {
        let measured = measured(&profile.choice);
        let name = &profile.name;
        wrong.extend(measured.differences(&profile).iter().map(|row| format!("{name}: {row}")));
        let mut missing = measured.unmeasured(&profile);
        // Those are compared by other suites, in programs and with apps that block.
        missing.retain(|name| !name.starts_with("sequence.") && !name.starts_with("blocked_loop."));
        missing.retain(|name| !SLOW.contains(&name.as_str()) && !profile.unseen.contains(name));
        wrong.extend(missing.iter().map(|row| format!("{name}: {row} is not measured")));
    }
    assert_eq!(wrong, [""; 0]);
}
