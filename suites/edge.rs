//! A request that is changed on its way: what each server and the service make of it, and that only what was meant is
//! changed.

use relapse::environment::Environment;
use relapse_backend::revision::Revision;
use relapse_core::{
    fault::{Fault, FaultKind, HeadEdit, Trigger, setting::Token},
    judge::{classify::Exchange, outcome::Class},
    record::transcript::EventKind,
    wire::head::header,
};
use relapse_simulate::profile::{Reception, RefusalAnswer};
use rstest::rstest;

use crate::support::{on_backend, open, profile, server_names, wait};

fn name(text: &str) -> Token {
    text.into()
}

#[rstest]
#[case::stripped(HeadEdit::Strip { header: name("authorization") }, Class::RefusedAuth)]
#[case::renamed(HeadEdit::Rename { header: name("Authorization"), to: name("X-Forwarded-Authorization") }, Class::RefusedAuth)]
#[case::twice(HeadEdit::Duplicate { header: name("Authorization") }, Class::Served)]
#[case::in_capitals(HeadEdit::Capitalize { header: name("Authorization") }, Class::Served)]
#[case::placeholder(HeadEdit::Set { header: name("Authorization"), value: b"{authorization}".to_vec().into() }, Class::RefusedAuth)]
#[case::one_more(HeadEdit::Set { header: name("X-Forwarded-For"), value: b"203.0.113.7".to_vec().into() }, Class::Served)]
#[case::not_ascii(HeadEdit::Set { header: name("X-Note"), value: b"caf\xe9".to_vec().into() }, Class::Served)]
#[case::query(HeadEdit::Query { query: b"utm_source=x".to_vec().into() }, Class::Served)]
#[case::bad_token_added(HeadEdit::Query { query: b"token=x".to_vec().into() }, Class::DisguisedError)]
#[case::path(HeadEdit::Path { path: b"/moved".to_vec().into() }, Class::RefusedRequest)]
fn a_changed_request_gets_what_it_deserves(#[case] edit: HeadEdit, #[case] expected: Class) {
    for server in &server_names() {
        let fault = Fault { kind: FaultKind::Head(edit.clone()), trigger: Trigger::default() };
        let steps = [open(), wait("connection_established")];
        let transcript = on_backend(Revision::repaired(), Environment::Staging, server, vec![fault], &steps);
        assert_eq!(transcript.fired, [1], "{edit} behind {server}");
        // A second credential is nothing that the classification knows of; the service refuses two that disagree.
        let outcome = Exchange::of(&transcript, 0).outcome();
        assert_eq!(outcome.class, expected, "{edit} behind {server}: {outcome}");
    }
}

/// Another method is no upgrade (RFC 6455 section 4.1), except for a server that does not look.
#[test]
fn an_upgrade_is_a_get() {
    for server in &server_names() {
        let edit = HeadEdit::Method { method: name("POST") };
        let fault = Fault { kind: FaultKind::Head(edit), trigger: Trigger::default() };
        let steps = [open(), wait("connection_established")];
        let transcript = on_backend(Revision::repaired(), Environment::Staging, server, vec![fault], &steps);
        let expected = match &profile(server).handshake.post {
            Reception::Accepted => Class::Served,
            Reception::Refused(RefusalAnswer::Hang) => Class::CutByFault,
            _ => Class::RefusedRequest,
        };
        assert_eq!(Exchange::of(&transcript, 0).outcome().class, expected, "behind {server}");
    }
}

/// An edit changes the header that it names, and everything else arrives as it was sent.
#[test]
fn nothing_else_is_changed() {
    let edit = HeadEdit::Set { header: name("Host"), value: b"[::1".to_vec().into() };
    let fault = Fault { kind: FaultKind::Head(edit), trigger: Trigger::default() };
    let transcript = on_backend(Revision::repaired(), Environment::Staging, "uvicorn-0.35", vec![fault], &[open()]);
    let reading = Exchange::of(&transcript, 0);
    let (sent, delivered) = (reading.request.unwrap(), reading.delivered.unwrap());
    assert_eq!((&sent.method, &sent.target), (&delivered.method, &delivered.target));
    let without_host = |head: &relapse_core::wire::head::RequestHead| {
        let others = head.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(b"host"));
        others.cloned().collect::<Vec<_>>()
    };
    assert_eq!(without_host(sent), without_host(delivered));
    assert_eq!(header(&delivered.headers, "host"), Some(&b"[::1"[..]));
    assert!(
        transcript
            .of(0)
            .any(|event| matches!(&event.what, EventKind::FaultFired { detail, .. } if detail.contains("Host")))
    );
}
