//! The upgrade-request matrix: every missing, doubled, rewritten or malformed part of an opening handshake, behind every
//! server, in memory and on sockets.
//!
//! The rules for every cell are code; which of the good answers it is, is a picture to be reviewed.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use relapse::{discover::read_edge_fault, environment::Environment, run, target::Target as _};
use relapse_backend::{
    revision::Revision,
    target::{Embedded, Transport},
};
use relapse_core::{
    client::{
        credential::{Credential, CredentialPlace},
        step::{Action, Awaited, ClientStrictness, Request, Step},
    },
    fault::Fault,
    judge::{
        classify,
        outcome::{Class, Outcome},
    },
    plan::Plan,
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    link::Listener,
    profile::Profile,
    recorder,
};

use rstest::rstest;

use crate::support::{check_page, listed_servers};

/// Longer than anything takes on sockets that is answered at all.
const LIMIT: Duration = Duration::from_secs(2);

/// A row: what is wrong with the handshake, as the client writes it and as the edge changes it.
struct Row {
    name: &'static str,
    request: Request,
    faults: Vec<Fault>,
}

// Long: a row for each upgrade.
fn rows() -> Vec<Row> {
    let standard = || Request { client: ClientStrictness::Library, ..Request::standard("GET", "/ws") };
    let header = |name: &str, value: &str| (name.as_bytes().to_vec().into(), value.as_bytes().to_vec().into());
    let with = |name: &'static str, change: &dyn Fn(&mut Request)| {
        let mut request = standard();
        change(&mut request);
        Row { name, request, faults: Vec::new() }
    };
    let edited = |name: &'static str, faults: &[&str]| {
        let faults = faults.iter().map(|line| read_edge_fault(line).unwrap()).collect();
        Row { name, request: standard(), faults }
    };
    let without =
        |name: &'static str, gone: &'static str| with(name, &move |request| request.without.push(gone.into()));
    let set = |name: &'static str, key: &'static str, value: &'static str| {
        with(name, &move |request| request.headers.push(header(key, value)))
    };
    let placed = |name: &'static str, places: &'static [CredentialPlace]| {
        with(name, &move |request| request.places = places.to_vec())
    };
    let presented = |name: &'static str, kind: Credential| with(name, &move |request| request.credential = kind);
    vec![
        edited("nothing is wrong", &[]),
        without("no Upgrade", "Upgrade"),
        without("no Connection", "Connection"),
        set("Connection: keep-alive", "Connection", "keep-alive"),
        set("Connection: keep-alive, Upgrade", "Connection", "keep-alive, Upgrade"),
        set("Upgrade: WebSocket", "Upgrade", "WebSocket"),
        set("Upgrade: h2c", "Upgrade", "h2c"),
        edited("hop-by-hop headers dropped", &["drop_hop_by_hop"]),
        without("no key", "Sec-WebSocket-Key"),
        set("a short key", "Sec-WebSocket-Key", "c2hvcnQ="),
        set("a key that is no base64", "Sec-WebSocket-Key", "!!!"),
        edited("two keys", &["duplicate_header header=Sec-WebSocket-Key"]),
        without("no version", "Sec-WebSocket-Version"),
        set("version 8", "Sec-WebSocket-Version", "8"),
        edited("two versions", &["duplicate_header header=Sec-WebSocket-Version"]),
        edited("POST", &["set_method method=POST"]),
        edited("an unknown method", &["set_method method=BREW"]),
        edited("HTTP/1.0", &["set_version version=\"1.0\""]),
        without("no Host", "Host"),
        set("an empty Host", "Host", ""),
        set("Host: [", "Host", "["),
        edited("two Hosts", &["duplicate_header header=Host"]),
        set("Origin: null", "Origin", "null"),
        set("an Origin that is no URL", "Origin", "https://["),
        edited("every name in lower case", &["lower_names"]),
        edited("the key's name in capitals", &["capitalize_header header=Sec-WebSocket-Key"]),
        edited("an unknown path", &["set_path path=/nowhere"]),
        edited("a query that is no UTF-8", &["set_query query=\"a=%ff%fe\""]),
        with("an unknown offer", &|request| request.offers = vec!["graphql-ws".to_owned()]),
        placed("credential as a subprotocol", &[CredentialPlace::Subprotocol]),
        placed("credential as a subprotocol alone", &[CredentialPlace::SubprotocolAlone]),
        placed("credential in the query", &[CredentialPlace::Query]),
        placed("credential as a ticket", &[CredentialPlace::Ticket]),
        placed("credential in two places", &[CredentialPlace::Header, CredentialPlace::Query]),
        edited("credential stripped", &["strip_header header=Authorization"]),
        edited("credential twice", &["duplicate_header header=Authorization"]),
        edited("credential cut short", &["truncate_header header=Authorization bytes=20"]),
        presented("no credential", Credential::None),
        presented("an expired credential", Credential::Expired),
        presented("another algorithm", Credential::WrongAlgorithm),
    ]
}

/// The client's outcome.
fn attempt(row: &Row, profile: &Arc<Profile>, clock: Clock) -> Outcome {
    let step = |act| Step::new(act, LIMIT);
    let steps = [
        step(Action::Open(row.request.clone())),
        step(Action::Wait(Awaited::Message("connection_established".to_owned()))),
        step(Action::Leave),
    ];
    Runtime::new(clock).block_on(async {
        let _logs = recorder::capture_logs();
        let transport = match clock {
            Clock::Virtual => Transport::Memory,
            Clock::Real => Transport::Tcp(Listener::bind(clock).await.unwrap()),
        };
        let (revision, profile) = (Revision::repaired(), Arc::clone(profile));
        let target = Embedded::launch(revision, Environment::Staging, profile, transport, 1);
        let plan = Plan { seed: 1, faults: row.faults.clone() };
        let transcript = run::converse(&steps, plan, &target).await.unwrap();
        target.stop().await.unwrap();
        classify::readings(&transcript)[0].outcome()
    })
}

#[test]
fn every_handshake_behind_every_server() {
    let servers = listed_servers();
    let mut page = String::new();
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    writeln!(page, "{:<34} {}", "", names.iter().map(|name| format!("{name:<36}")).collect::<String>().trim_end())
        .unwrap();
    for row in rows() {
        let cells: Vec<String> = servers
            .iter()
            .map(|server| {
                let memory = attempt(&row, server, Clock::Virtual);
                let sockets = attempt(&row, server, Clock::Real);
                assert_eq!(memory.to_string(), sockets.to_string(), "{} behind {}", row.name, server.name);
                // A client that breaks the handshake is refused with a reason, or let in; none gets a 5xx, a 1011 or
                // silence.
                let is_fine = memory.class.is_good() || memory.class == Class::CutByFault;
                assert!(is_fine, "{} behind {}: {memory}", row.name, server.name);
                format!("{:<36}", format!("{} ({})", memory.ending, memory.class))
            })
            .collect();
        writeln!(page, "{:<34} {}", row.name, cells.concat().trim_end()).unwrap();
    }
    check_page("upgrades", &page);
}

/// Results measured on the real servers.
#[rstest]
#[case("Host", ["http 400", "http 400", "http 400", "http 400", "http 400", "http 400", "http 400", "open", "open"])]
#[case("Sec-WebSocket-Key", ["http 400", "http 400", "http 400", "open", "http 400", "open", "open", "http 400", "open"])]
#[case("Sec-WebSocket-Version", ["http 400", "http 400", "http 400", "open", "http 400", "open", "open", "http 400", "open"])]
fn a_header_that_comes_twice(#[case] header: &str, #[case] expected: [&str; 9]) {
    let fault = read_edge_fault(&format!("duplicate_header header={header}")).unwrap();
    let request = Request { client: ClientStrictness::Library, ..Request::standard("GET", "/ws") };
    let row = Row { name: "twice", request, faults: vec![fault] };
    let seen: Vec<String> = listed_servers()
        .iter()
        .map(|server| match attempt(&row, server, Clock::Virtual) {
            outcome if outcome.class == Class::Served => "open".to_owned(),
            outcome => outcome.ending.to_string(),
        })
        .collect();
    assert_eq!(seen, expected);
}
