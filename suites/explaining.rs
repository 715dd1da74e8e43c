//! What the wire alone tells of a cause, held against what really happened.

use std::collections::BTreeMap;
use std::path::Path;

use relapse::{
    Catalogue, Cause, Conductor, Environment, Place, Revision, Trial,
    classify::{self, Reading},
    event::Outbound,
    exception::Exception,
    explain::Kind,
    servers,
    step::{Act, Request, Step},
    transcript::{Event, Transcript, What},
};
use rstest::rstest;

use crate::support::{Ends, Scripted, converse, on_backend, profile, step, wait};

/// What somebody asks who wants to know which server answers.
fn asked(server: &str) -> [Transcript; 2] {
    let keyless = Request { without: vec!["Sec-WebSocket-Key".to_owned()], ..Request::standard("GET", "/ws") };
    let acts = [Act::Open(keyless), Act::Request(Request::standard("GET", "/health"))];
    let ask = |act| on_backend(Revision::repaired(), Environment::Staging, server, Vec::new(), &[step(act)] as &[Step]);
    acts.map(ask)
}

#[test]
fn every_server_is_recognized() {
    let servers = servers().unwrap();
    for profile in &servers {
        let transcripts = asked(&profile.name);
        let readings = transcripts.each_ref().map(|transcript| Reading::of(transcript, 0));
        let kind = Kind::of(&servers, &readings, readings.first());
        let names: Vec<&str> = kind.profiles.iter().map(|profile| profile.name.as_str()).collect();
        // Between these two versions nothing changed that can be seen in a handshake.
        let expected = match profile.name.as_str() {
            "uvicorn-0.35" | "uvicorn-0.54-websockets" => vec!["uvicorn-0.35", "uvicorn-0.54-websockets"],
            "uvicorn-0.54" | "uvicorn-0.35-sansio" => vec!["uvicorn-0.54", "uvicorn-0.35-sansio"],
            "uvicorn-0.35-wsproto" | "uvicorn-0.54-wsproto" => vec!["uvicorn-0.35-wsproto", "uvicorn-0.54-wsproto"],
            name => vec![name],
        };
        assert_eq!(names, expected, "{kind}");
        // Its plain answer alone names the server, though not the version.
        let named = Kind::of(&servers, &readings[1..], None);
        assert!(named.profiles.iter().any(|named| named.name == profile.name), "{named}");
    }
}

/// A proxy that puts its own name over the server's hides who answers, unless the answer is like nobody else's.
#[rstest]
#[case("uvicorn-0.35", "like uvicorn-0.35 or uvicorn-0.54-websockets, by how it refuses a bad handshake")]
#[case("granian-2.8", "like granian-2.8, by how it refuses a bad handshake")]
#[case("hypercorn-0.18", "none that is known")]
fn a_server_behind_another_name(#[case] server: &str, #[case] expected: &str) {
    let mut transcripts = asked(server);
    for event in transcripts.iter_mut().flat_map(|transcript| &mut transcript.events) {
        if let What::ResponseSeen(head) = &mut event.what {
            head.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(b"server"));
            head.headers.push((b"server"[..].into(), b"cloudflare"[..].into()));
        }
    }
    let readings = transcripts.each_ref().map(|transcript| Reading::of(transcript, 0));
    assert_eq!(Kind::of(&servers().unwrap(), &readings, readings.first()).to_string(), expected);
}

/// Wherever a case's defective twin crashes, falls silent or closes with 1011, what the wire tells has the real cause in
/// it; and where it tells one cause only, it is that.
#[test]
fn explanations_have_the_real_cause() {
    const TOLD: [Cause; 5] =
        [Cause::CrashBeforeAccept, Cause::CrashAfterAccept, Cause::Abandoned, Cause::AppChose1011, Cause::Keepalive];
    const OWN: [Cause; 2] = [Cause::Policy, Cause::AppChose1011];
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
    let cases = Catalogue::read(&directory).unwrap().cases;
    let conductor = Conductor::default();
    let (mut explained, mut certain) = (BTreeMap::new(), 0);
    for trial in Trial::of(&cases, &servers().unwrap(), None) {
        // What a fault between client and server did is not the server's doing.
        if trial.case.faults.iter().any(|fault| fault.kind.place() == Place::Edge) {
            continue;
        }
        let judged = conductor.run(&trial, trial.case.twin, 1).unwrap();
        let kind = Kind { profiles: vec![profile(&trial.profile.name)], by: "its name" };
        for (reading, outcome) in classify::readings(&judged.transcript).iter().zip(&judged.outcomes) {
            if !TOLD.contains(&outcome.cause) || outcome.class.is_good() {
                continue;
            }
            let name = format!("{} behind {}: {outcome}", trial.case.name, trial.profile.name);
            let explanation = kind.explain(reading, &outcome.ending).unwrap_or_else(|| panic!("{name}: nothing"));
            // Who closed before it crashed, or closed in a way that did not get through, decided so.
            let closed = |event: &&Event| matches!(event.what, What::Sent(Outbound::WebsocketClose { .. }));
            let decided = reading.events.iter().copied().any(|event| closed(&event));
            let is_told = explanation.causes.contains(&outcome.cause)
                || (decided && explanation.causes.iter().any(|cause| OWN.contains(cause)));
            assert!(is_told, "{name}: {explanation}");
            certain += usize::from(explanation.is_certain());
            *explained.entry(outcome.cause).or_insert(0) += 1;
        }
    }
    assert!(explained.values().sum::<usize>() > 50 && certain > 5, "{explained:?}, {certain} of them certain");
}

/// The three 1011s of uvicorn's: the application's own is certain while no ping can have expired, and a crash is none.
#[test]
fn a_1011_of_uvicorn_is_no_crash() {
    let server = profile("uvicorn-0.35");
    let kind = Kind { profiles: vec![server.clone()], by: "its name" };
    let told = |code: Option<u16>| {
        let application = Scripted::new(move |_, mut ends: Ends| async move {
            ends.receive().await?;
            ends.send(Outbound::WebsocketAccept { subprotocol: None, headers: Vec::new() }).await?;
            match code {
                Some(code) => ends.send(Outbound::WebsocketClose { code, reason: String::new() }).await,
                None => Err(Exception::new("ValueError", "no")),
            }
        });
        let open = step(Act::Open(Request::standard("GET", "/ws")));
        let transcript = converse(application, &server, &[open, wait("anything")]);
        let reading = Reading::of(&transcript, 0);
        let ending = reading.outcome().ending;
        let explanation = kind.explain(&reading, &ending).unwrap();
        (ending.to_string(), explanation.causes)
    };
    assert_eq!(told(Some(1011)), ("close 1011".to_owned(), vec![Cause::AppChose1011]));
    assert_eq!(told(None), ("drop (1006)".to_owned(), vec![Cause::CrashAfterAccept]));
}
