//! The servers themselves, held against the data of their profiles, row by row.

use relapse_python::{
    measure::{Measurement, Slow, measure},
    process::ServerChoice,
};
use relapse_simulate::clock::{Clock, Runtime};

use crate::{served::interpreter, support::profile};

/// Every server with the name of its profile, and the rows that it does not show.
const SERVERS: [(&str, &str, &[&str]); 9] = [
    ("uvicorn[websockets]==0.35.0", "uvicorn-0.35", &[]),
    ("uvicorn[sansio]==0.54.0", "uvicorn-0.54", &[]),
    // These sent no pings then.
    ("uvicorn[sansio]==0.35.0", "uvicorn-0.35-sansio", &["keepalive.application_sees"]),
    ("uvicorn[wsproto]==0.35.0", "uvicorn-0.35-wsproto", &["keepalive.application_sees"]),
    ("uvicorn[websockets]==0.54.0", "uvicorn-0.54-websockets", &[]),
    ("uvicorn[wsproto]==0.54.0", "uvicorn-0.54-wsproto", &[]),
    // It pings and waits for nothing, and an upgrade that is pending is not told that it stops.
    (
        "hypercorn==0.18.0",
        "hypercorn-0.18",
        &["keepalive.application_sees", "shutdown.open_sees", "shutdown.pending_send"],
    ),
    // It tells no code of a close frame without one, and nothing where it stops.
    ("daphne==4.2.3", "daphne-4.2", &["disconnect.without_code", "shutdown.open_sees", "shutdown.pending_send"]),
    // It sends no pings, tells a pending upgrade nothing of its end, and may end before it has told everybody else.
    (
        "granian==2.8.7",
        "granian-2.8",
        &["keepalive.expired", "keepalive.application_sees", "shutdown.open_sees", "shutdown.pending_send"],
    ),
];

/// Rows that take too long to measure on any of them.
const SLOW: [&str; 3] = ["lifespan.startup_timeout_s", "keepalive.ping_interval_ms", "keepalive.pong_timeout_ms"];

fn measured(server: &str) -> Measurement {
    let server: ServerChoice = server.parse().unwrap();
    let python = interpreter(&server);
    Runtime::new(Clock::Real).block_on(measure(&server, &python, Slow::LeftOut)).unwrap()
}

/// Every row of a profile is what its server does, but for those that cannot be seen. One server is measured at a time:
/// some give a client a second to answer.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn servers_do_as_their_profiles_say() {
    let mut wrong = Vec::new();
    for (server, name, unseen) in SERVERS {
        let measured = measured(server);
        let profile = profile(name);
        wrong.extend(measured.differences(&profile).iter().map(|row| format!("{name}: {row}")));
        let mut missing = measured.unmeasured(&profile);
        // Those are compared by other suites, in programs and with apps that block.
        missing.retain(|name| !name.starts_with("sequence.") && !name.starts_with("blocked_loop."));
        missing.retain(|name| !SLOW.iter().chain(unseen).any(|known| known == name));
        wrong.extend(missing.iter().map(|row| format!("{name}: {row} is not measured")));
    }
    assert_eq!(wrong, [""; 0]);
}
