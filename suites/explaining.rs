//! Causes explained by the wire alone, compared with the real ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use relapse::{
    discover::{Catalogue, servers},
    environment::Environment,
    explain::{Explanation, PossibleServers, UpgradePassage},
    trial::Trial,
    verdict_rules,
};
use relapse_backend::{
    revision::Revision,
    runner::{BackendRunner, KNOWN},
};
use relapse_core::{
    asgi::{event::Outbound, exception::Exception},
    client::step::{Action, Request, Step},
    fault::{FaultKind, HeadEdit, Place},
    judge::{cause::Cause, classify::Exchange},
    record::transcript::{Actor, Event, EventKind, Level, Transcript},
};
use relapse_simulate::application::Application;
use rstest::rstest;

use crate::support::{Ends, Scripted, converse, listed_servers, on_backend, profile, step, wait};

/// The requests that identify a server.
fn asked(server: &str) -> [Transcript; 2] {
    let keyless = Request { without: vec!["Sec-WebSocket-Key".to_owned()], ..Request::standard("GET", "/ws") };
    let acts = [Action::Open(keyless), Action::Request(Request::standard("GET", "/health"))];
    let ask = |act| on_backend(Revision::repaired(), Environment::Staging, server, Vec::new(), &[step(act)] as &[Step]);
    acts.map(ask)
}

/// The heads and bodies of the answers.
fn answers(transcripts: &[Transcript]) -> Vec<String> {
    let is_answer = |what: &EventKind| matches!(what, EventKind::ResponseSeen(_) | EventKind::BodySeen { .. });
    let events = transcripts.iter().flat_map(|transcript| &transcript.events);
    events.filter(|event| is_answer(&event.what)).map(|event| format!("{:?}", event.what)).collect()
}

#[test]
fn every_server_is_recognized() {
    let servers = servers().unwrap();
    for profile in &servers {
        let transcripts = asked(&profile.name);
        let readings = transcripts.each_ref().map(|transcript| Exchange::of(transcript, 0));
        let kind = PossibleServers::of(&servers, &readings, readings.first());
        let names: Vec<&str> = kind.profiles.iter().map(|profile| profile.name.as_str()).collect();
        // Between some versions nothing changed that can be seen in a handshake.
        let answers = answers(&transcripts);
        let alike = servers.iter().filter(|other| self::answers(&asked(&other.name)) == answers);
        assert_eq!(names, alike.map(|other| other.name.as_str()).collect::<Vec<_>>(), "{kind}");
        // Its plain answer alone names the server, though not the version.
        let named = PossibleServers::of(&servers, &readings[1..], None);
        assert!(named.profiles.iter().any(|named| named.name == profile.name), "{named}");
    }
}

/// A proxy that puts its own name over the server's hides the server, unless its answer is unique.
#[rstest]
#[case("uvicorn-0.35", "like uvicorn-0.35 or uvicorn-0.54-websockets, by how it refuses a bad handshake")]
#[case("granian-2.8", "like granian-2.8, by how it refuses a bad handshake")]
#[case("hypercorn-0.18", "none that is known")]
fn a_server_behind_another_name(#[case] server: &str, #[case] expected: &str) {
    let mut transcripts = asked(server);
    for event in transcripts.iter_mut().flat_map(|transcript| &mut transcript.events) {
        if let EventKind::ResponseSeen(head) = &mut event.what {
            head.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(b"server"));
            head.headers.push((b"server"[..].into(), b"cloudflare"[..].into()));
        }
    }
    let readings = transcripts.each_ref().map(|transcript| Exchange::of(transcript, 0));
    assert_eq!(PossibleServers::of(&listed_servers(), &readings, readings.first()).to_string(), expected);
}

/// Wherever a case's version with the bug crashes, falls silent or closes with 1011, what the wire tells has the real cause in
/// it and is never certain; what the application and its server were seen to do is, and is the real cause.
#[test]
fn explanations_have_the_real_cause() {
    const TOLD: [Cause; 5] = [
        Cause::CrashBeforeResponse,
        Cause::CrashAfterAccept,
        Cause::ReturnedWithoutResponse,
        Cause::AppSent1011,
        Cause::KeepaliveTimeout,
    ];
    const OWN: [Cause; 2] = [Cause::AppDecision, Cause::AppSent1011];
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
    let cases = Catalogue::read(&directory, KNOWN).unwrap().cases;
    let runner = BackendRunner::default();
    let (mut explained, mut sole, mut observed) = (BTreeMap::new(), 0, 0);
    for trial in Trial::of(&cases, &servers().unwrap(), None) {
        // Effects of a fault between client and server are not the server's.
        if trial.case.faults.iter().any(|fault| fault.kind.place() == Place::Edge) {
            continue;
        }
        let judged = runner.run(&trial, Revision::from(&trial.case.twin), 1).unwrap();
        let kind = PossibleServers { profiles: vec![profile(&trial.profile.name)], by: "its name" };
        for (exchange, outcome) in judged.outcomes.iter().enumerate() {
            let reading = verdict_rules::reading(&judged, exchange).unwrap();
            if !TOLD.contains(&outcome.cause) || outcome.class.is_good() {
                continue;
            }
            let name = format!("{} behind {}: {outcome}", trial.case.name, trial.profile.name);
            // An application that closed before it crashed, or whose close did not get through, made the decision
            // itself.
            let closed = |event: &&Event| matches!(event.what, EventKind::Sent(Outbound::WebsocketClose { .. }));
            let decided = reading.events.iter().copied().any(|event| closed(&event));
            let seen = kind.explain(&reading, &outcome.ending).filter(Explanation::is_certain);
            if let Some(explanation) = &seen {
                let is_seen =
                    explanation.causes.contains(&outcome.cause) || (decided && OWN.contains(&explanation.causes[0]));
                assert!(is_seen, "{name}: {explanation}");
                observed += 1;
            }
            let mut wire = judged.transcript.clone();
            wire.events.retain(|event| event.party == Actor::Probe);
            let explanation = kind
                .explain(&Exchange::of(&wire, exchange), &outcome.ending)
                .unwrap_or_else(|| panic!("{name}: nothing"));
            assert!(!explanation.is_certain(), "{name}: only the wire is seen, and yet {explanation}");
            let is_told = explanation.causes.contains(&outcome.cause)
                || (decided && explanation.causes.iter().any(|cause| OWN.contains(cause)));
            assert!(is_told, "{name}: {explanation}");
            sole += usize::from(explanation.sole_cause().is_some());
            *explained.entry(outcome.cause).or_insert(0) += 1;
        }
    }
    let count = explained.values().sum::<usize>();
    assert!(count > 50 && sole > 5 && observed > 50, "{explained:?}, {sole} with one candidate, {observed} seen");
}

/// An upgrade with an answer to a plain request: from outside the headers may be lost on the way.
#[rstest]
#[case::not_found(404, "not found", UpgradePassage::Doubtful)]
#[case::no_upgrade(400, "Connection header did not include 'upgrade'", UpgradePassage::Doubtful)]
#[case::upgrade_required(426, "", UpgradePassage::Doubtful)]
#[case::a_page(200, "<html>", UpgradePassage::Doubtful)]
#[case::moved(301, "", UpgradePassage::Doubtful)]
#[case::refused(403, "", UpgradePassage::Arrived)]
#[case::broken(500, "Internal Server Error", UpgradePassage::Arrived)]
fn an_upgrade_with_a_plain_answer(#[case] status: u16, #[case] body: &'static str, #[case] expected: UpgradePassage) {
    let server = profile("uvicorn-0.54");
    let application = Scripted::new(move |_, mut ends: Ends| async move {
        ends.receive().await?;
        ends.send(Outbound::ResponseStart { status, headers: Vec::new() }).await?;
        ends.send(Outbound::ResponseBody { body: body.as_bytes().to_vec(), more_body: false }).await
    });
    let asked = |act| converse(Arc::clone(&application) as Arc<dyn Application>, &server, &[step(act)]).events;
    let is_sent = |event: &Event| matches!(event.what, EventKind::RequestSent { .. });
    // As a proxy makes a plain request of an upgrade.
    let upgrade = asked(Action::Open(Request::standard("GET", "/ws")));
    let plain = asked(Action::Request(Request::standard("GET", "/ws")));
    let seen = plain.into_iter().filter(|event| event.party == Actor::Probe && !is_sent(event));
    let events = upgrade.into_iter().filter(is_sent).chain(seen).collect();
    let transcript = Transcript { events, ..Transcript::default() };
    let reading = Exchange::of(&transcript, 0);
    let kind = PossibleServers { profiles: vec![server.clone()], by: "its name" };
    let explanation = kind.explain(&reading, &reading.outcome().ending).unwrap();
    assert_eq!((explanation.passage, explanation.is_certain()), (expected, false), "{explanation}");
    let is_said = explanation.to_string().contains("may not have reached the server");
    assert_eq!(is_said, expected == UpgradePassage::Doubtful, "{explanation}");
    assert!(expected == UpgradePassage::Arrived || explanation.sole_cause().is_none(), "{explanation}");
    // Where no server is recognized, that is all that can be said.
    let unknown = PossibleServers::default().explain(&reading, &reading.outcome().ending);
    assert_eq!(unknown.is_some(), expected == UpgradePassage::Doubtful, "{unknown:?}");
}

/// A server that names another fault of the handshake took the request for an upgrade.
#[test]
fn a_refused_handshake_arrived() {
    let mut transcript = asked("uvicorn-0.54").into_iter().next().unwrap();
    transcript.events.retain(|event| event.party == Actor::Probe);
    let reading = Exchange::of(&transcript, 0);
    let ending = reading.outcome().ending;
    let told = |kind: PossibleServers| kind.explain(&reading, &ending).map(|explanation| explanation.passage);
    let server = profile("uvicorn-0.54");
    assert_eq!(told(PossibleServers { profiles: vec![server], by: "its name" }), Some(UpgradePassage::Arrived));
    assert_eq!(told(PossibleServers::default()), Some(UpgradePassage::Doubtful), "the words are of no known server");
}

/// The log of a server that the harness started is evidence, and so is an exception that the app handled.
#[rstest]
#[case("Exception in ASGI application: KeyError: 'a'", Cause::CrashBeforeResponse)]
#[case("Error in ASGI Framework: KeyError: 'a'", Cause::CrashBeforeResponse)]
#[case("Exception inside application: 'a': KeyError: 'a'", Cause::CrashBeforeResponse)]
#[case("ASGI callable returned without starting response.", Cause::ReturnedWithoutResponse)]
fn what_a_server_logs_is_seen(#[case] message: &str, #[case] expected: Cause) {
    let server = profile("uvicorn-0.54");
    let steps = [step(Action::Request(Request::standard("GET", "/health")))];
    let mut transcript = converse(Scripted::new(|_, _| async { Ok(()) }), &server, &steps);
    transcript.events.retain(|event| event.party == Actor::Probe);
    let explained = |transcript: &Transcript| {
        let reading = Exchange::of(transcript, 0);
        PossibleServers::default().explain(&reading, &reading.outcome().ending)
    };
    assert_eq!(explained(&transcript), None, "without the log nothing is known");
    let mut event = transcript.events[0].clone();
    event.party = Actor::Application;
    let logged = EventKind::Logged { level: Level::Error, message: message.to_owned(), unhandled: None };
    let handled = EventKind::Handled(Exception::new("KeyError", "'a'"));
    transcript.events.push(Event { what: handled, ..event.clone() });
    transcript.events.push(Event { what: logged, ..event });
    let explanation = explained(&transcript).unwrap();
    assert_eq!((explanation.is_certain(), explanation.sole_cause()), (true, Some(expected)), "{explanation}");
    let told = explanation.to_string();
    assert!(told.ends_with(", and it handled KeyError: 'a' (certain)"), "{told}");
}

/// A header that the harness's own edge removed from an upgrade is certain.
#[test]
fn what_the_edge_took_is_certain() {
    let faults = vec![FaultKind::Head(HeadEdit::HopByHop {}).into()];
    let open = step(Action::Open(Request::standard("GET", "/ws")));
    let transcript = on_backend(Revision::repaired(), Environment::Staging, "uvicorn-0.54", faults, &[open]);
    let reading = Exchange::of(&transcript, 0);
    let ending = reading.outcome().ending;
    let explanation = PossibleServers::default().explain(&reading, &ending).unwrap();
    assert_eq!(
        explanation.to_string(),
        "the headers Upgrade and Connection did not reach the server (certain)",
        "{ending}"
    );
}

/// The three 1011s of uvicorn's: the application's own is certain while no ping can have expired, and a crash is none.
#[test]
fn a_1011_of_uvicorn_is_no_crash() {
    let server = profile("uvicorn-0.35");
    let kind = PossibleServers { profiles: vec![server.clone()], by: "its name" };
    let told = |code: Option<u16>| {
        let application = Scripted::new(move |_, mut ends: Ends| async move {
            ends.receive().await?;
            ends.send(Outbound::WebsocketAccept { subprotocol: None, headers: Vec::new() }).await?;
            match code {
                Some(code) => ends.send(Outbound::WebsocketClose { code, reason: String::new() }).await,
                None => Err(Exception::new("ValueError", "no")),
            }
        });
        let open = step(Action::Open(Request::standard("GET", "/ws")));
        let transcript = converse(application, &server, &[open, wait("anything")]);
        let reading = Exchange::of(&transcript, 0);
        let ending = reading.outcome().ending;
        let explanation = kind.explain(&reading, &ending).unwrap();
        (ending.to_string(), explanation.causes)
    };
    assert_eq!(told(Some(1011)), ("close 1011".to_owned(), vec![Cause::AppSent1011]));
    assert_eq!(told(None), ("drop (1006)".to_owned(), vec![Cause::CrashAfterAccept]));
}
