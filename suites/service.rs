//! The built-in service's own rules: what a strict service does, row by row.

use std::time::Duration;

use relapse::{environment::Environment, run, target::Target as _};
use relapse_backend::{
    defect::Defect,
    revision::Revision,
    runner::BackendRunner,
    target::{Embedded, Transport},
};
use relapse_core::{
    client::{
        credential::{Credential, CredentialPlace},
        step::{Action, Awaited, Concurrency, Request, Step},
    },
    fault::{CallFault, Calls, Fault, FaultKind, ProcessFault, ScopeEdit, Trigger},
    judge::{
        check::{self, RunView},
        classify::Exchange,
        outcome::Class,
    },
    plan::Plan,
    record::transcript::{EventKind, Transcript},
    wire::{close_code::CloseCode, head::header, message::message_type},
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    recorder::Recorder,
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{answer, on_backend, open, profile, step, wait};

const SERVER: &str = "uvicorn-0.35";

fn request(method: &str, path: &str) -> Request {
    Request { credential: Credential::None, ..Request::standard(method, path) }
}

/// A plain request; what it shows is read with [`answer`].
fn plain(request: Request) -> Step {
    step(Action::Request(request))
}

fn serve(environment: Environment, faults: Vec<Fault>, steps: &[Step]) -> Transcript {
    on_backend(Revision::repaired(), environment, SERVER, faults, steps)
}

fn fails(dependency: &str) -> Fault {
    let calls = Calls { dependency: dependency.to_owned(), operation: None };
    Fault {
        kind: FaultKind::Call { calls, fault: CallFault::Fail { error: "connection refused".to_owned() } },
        trigger: Trigger::default(),
    }
}

/// A route's exception is the answer, and the reported handler's answer instead of it.
#[rstest]
#[case(400, 500)]
#[case(401, 401)]
#[case(403, 401)]
#[case(404, 404)]
#[case(405, 500)]
#[case(408, 500)]
#[case(409, 500)]
#[case(413, 500)]
#[case(422, 422)]
#[case(426, 500)]
#[case(429, 500)]
#[case(502, 500)]
#[case(503, 503)]
#[case(504, 500)]
fn a_raised_status_reaches_the_client(#[case] raised: u16, #[case] remapped: u16) {
    let steps = [plain(request("GET", &format!("/api/status/{raised}")))];
    let (head, body) = answer(&serve(Environment::Staging, Vec::new(), &steps), 0);
    assert_eq!(head.status, raised);
    assert_eq!(body["message"], "The route raised this status.");
    let told = match raised {
        401 => header(&head.headers, "www-authenticate"),
        429 | 503 => header(&head.headers, "retry-after"),
        _ => Some(&b""[..]),
    };
    assert!(told.is_some(), "{raised} lost its header");
    let defective =
        on_backend(Revision::only(Defect::StatusRemapped), Environment::Staging, SERVER, Vec::new(), &steps);
    let (head, _) = answer(&defective, 0);
    assert_eq!(head.status, remapped);
    assert_eq!(header(&head.headers, "retry-after"), None);
}

/// An exception that leaves a route is a 500 of the server, without a word of it; the guard of #517 relabels it.
#[test]
fn an_exception_of_a_route_stays_a_server_error() {
    let steps = [plain(request("GET", "/api/raises"))];
    let honest = serve(Environment::Staging, Vec::new(), &steps);
    assert_eq!(answer(&honest, 0).0.status, 500);
    assert!(honest.says("AttributeError: 'NoneType' object has no attribute 'thread_id'"));
    let dressed =
        on_backend(Revision::only(Defect::RelabellingGuard), Environment::Staging, SERVER, Vec::new(), &steps);
    let (head, body) = answer(&dressed, 0);
    assert_eq!(head.status, 400);
    assert_eq!(body["message"], "'NoneType' object has no attribute 'thread_id'", "and it leaks");
}

/// GET, HEAD and OPTIONS of the health routes agree; HEAD has no body.
#[rstest]
fn the_methods_of_health_agree(
    #[values("/health", "/health/", "/health/ready", "/health/live", "/ws/health")] path: &str,
) {
    let methods = ["GET", "HEAD", "OPTIONS"].map(|method| plain(request(method, path)));
    let transcript = serve(Environment::Production, Vec::new(), &methods);
    for (exchange, _) in methods.iter().enumerate() {
        assert_eq!(answer(&transcript, exchange).0.status, 200);
    }
    assert_eq!(answer(&transcript, 1).1, Value::Null);
}

/// Which dependency is critical where. In staging a session opens without database or Redis, and says so.
#[rstest]
fn what_is_critical_decides(
    #[values("database", "redis", "auth_service", "thread_service", "agent_supervisor", "websocket_bridge")]
    dependency: &str,
    #[values(Environment::Development, Environment::Testing, Environment::Staging, Environment::Production)]
    environment: Environment,
) {
    let steps = [open(), wait("connection_established"), plain(request("GET", "/health/ready"))];
    let transcript = serve(environment, vec![fails(dependency)], &steps);
    let spared = environment == Environment::Staging && ["database", "redis"].contains(&dependency);
    let outcome = Exchange::of(&transcript, 0).outcome();
    let (health, body) = answer(&transcript, 1);
    if spared {
        assert_eq!((outcome.class, health.status), (Class::Served, 200), "{outcome}");
        assert_eq!(body["status"], "degraded");
        assert_eq!(body["degraded_services"], json!([dependency]));
        let welcome = transcript.of(0).find_map(|event| match &event.what {
            EventKind::FrameSeen(frame) => serde_json::from_slice::<Value>(&frame.payload).ok(),
            _ => None,
        });
        assert_eq!(welcome.unwrap()["data"]["features"]["degraded"], json!([dependency]));
    } else {
        assert_eq!((outcome.class, health.status), (Class::RefusedUnavailable, 503), "{outcome}");
        assert_eq!(body["failed_services"], json!([dependency]));
    }
}

/// A dependency that hangs holds an upgrade for as long as its group may take, and no longer.
#[rstest]
#[case(Environment::Development, 500)]
#[case(Environment::Staging, 1733)]
#[case(Environment::Production, 2700)]
fn readiness_has_a_limit(#[case] environment: Environment, #[case] limit_ms: u128) {
    let calls = Calls { dependency: "auth_service".to_owned(), operation: None };
    let hangs = Fault { kind: FaultKind::Call { calls, fault: CallFault::Hang {} }, trigger: Trigger::default() };
    let transcript = serve(environment, vec![hangs], &[open()]);
    let (head, body) = answer(&transcript, 0);
    assert_eq!((head.status, &body["failed_services"]), (503, &json!(["auth_service"])));
    let answered = transcript.of(0).find(|event| matches!(event.what, EventKind::ResponseSeen(_))).unwrap().at;
    // Tokio's timers have a resolution of one millisecond.
    assert!((limit_ms..=limit_ms + 1).contains(&answered.as_millis()), "{answered:?}");
}

/// At every half second of an outage, and before and after it, health says what a handshake at that moment gets.
#[rstest]
fn health_and_handshake_agree_at_every_moment(
    #[values("auth_service", "thread_service", "agent_supervisor", "websocket_bridge")] dependency: &str,
    #[values(Environment::Staging, Environment::Production)] environment: Environment,
) {
    let trigger = Trigger { from: Duration::from_secs(10), until: Some(Duration::from_secs(20)), ..Trigger::default() };
    let outage = Fault { trigger, ..fails(dependency) };
    let moment = [
        plain(request("GET", "/health/ready")),
        open(),
        wait("connection_established"),
        step(Action::Close(CloseCode::NORMAL)),
        plain(request("GET", "/ws/health")),
        Step::new(Action::Pause, Duration::from_millis(500)),
    ];
    let steps: Vec<Step> = std::iter::repeat_n(moment, 40).flatten().collect();
    let transcript = serve(environment, vec![outage], &steps);
    let evidence = RunView::gather(&transcript, &relapse_core::judge::verdict::HealthyClient::Absent);
    let findings = check::findings(&evidence);
    assert_eq!(findings, [], "{dependency} in {environment}");
    let not_ready = evidence.outcomes.iter().filter(|outcome| outcome.class == Class::RefusedUnavailable).count();
    assert!((4..100).contains(&not_ready), "{not_ready} of 120 fall into the outage");
}

/// The breaker of the auth service opens after as many failures as its environment allows, spares the service from
/// then on, and lets clients in again when its time is over.
#[test]
fn the_auth_breaker_counts_failures_of_the_service() {
    // Of every four calls the first one is readiness's; the three attempts for the token fail, three upgrades long.
    let fails = |nth: u32| {
        let calls = Calls { dependency: "auth_service".to_owned(), operation: None };
        let kind = FaultKind::Call { calls, fault: CallFault::Fail { error: "connection refused".to_owned() } };
        Fault { kind, trigger: Trigger { nth, every: 4, times: Some(3), ..Trigger::default() } }
    };
    let pause = Step::new(Action::Pause, Duration::from_secs(16));
    let steps = [open(), open(), open(), open(), pause, open(), wait("connection_established")];
    let transcript = serve(Environment::Staging, vec![fails(2), fails(3), fails(4)], &steps);
    let classes: Vec<Class> = (0..5).map(|exchange| Exchange::of(&transcript, exchange).outcome().class).collect();
    let not_ready = Class::RefusedUnavailable;
    assert_eq!(classes, [not_ready, not_ready, not_ready, not_ready, Class::Served]);
    assert_eq!(transcript.fired, [3, 3, 3], "the open breaker makes no call");
    assert_eq!(answer(&transcript, 3).0.status, 503);
    let says =
        |what: &EventKind| matches!(what, EventKind::Logged { message, .. } if message.contains("breaker is open"));
    assert!(transcript.of(3).any(|event| says(&event.what)));
}

fn ask_for_ticket(body: Value) -> Request {
    Request { body: body.to_string().into_bytes(), ..Request::standard("POST", "/api/websocket/ticket") }
}

fn with_ticket(id: &str) -> Request {
    let query = format!("ticket={id}").into_bytes();
    Request { query, ..request("GET", "/ws") }
}

/// The identifier of the first ticket that this service gives out: its identifiers come from the seed alone.
fn first_ticket(body: &Value) -> String {
    let steps = [plain(ask_for_ticket(body.clone()))];
    let (head, body) = answer(&serve(Environment::Staging, Vec::new(), &steps), 0);
    assert_eq!(head.status, 201, "{body}");
    body["ticket_id"].as_str().unwrap().to_owned()
}

#[rstest]
#[case::once(json!({}), 0, &[true, false])]
#[case::again(json!({ "single_use": false }), 0, &[true, true])]
#[case::in_time(json!({ "ttl_seconds": 30 }), 29, &[true])]
#[case::too_late(json!({ "ttl_seconds": 30 }), 31, &[false])]
fn a_ticket_opens_as_often_as_it_says(#[case] body: Value, #[case] wait_s: u64, #[case] opens: &[bool]) {
    let id = first_ticket(&body);
    let mut steps = vec![plain(ask_for_ticket(body))];
    steps.push(Step::new(Action::Pause, Duration::from_millis(wait_s * 1000 + 1)));
    for _ in opens {
        steps.push(step(Action::Open(with_ticket(&id))));
        steps.push(wait("connection_established"));
        steps.push(step(Action::Close(CloseCode::NORMAL)));
    }
    let transcript = serve(Environment::Staging, Vec::new(), &steps);
    let opened: Vec<bool> =
        (1..=opens.len()).map(|exchange| Exchange::of(&transcript, exchange).welcome.is_some()).collect();
    assert_eq!(opened, opens);
}

#[rstest]
#[case::too_short(json!({ "ttl_seconds": 29 }), 422)]
#[case::too_long(json!({ "ttl_seconds": 3601 }), 422)]
#[case::no_number(json!({ "ttl_seconds": "long" }), 422)]
#[case::unknown_key(json!({ "ttl": 60 }), 422)]
#[case::shortest(json!({ "ttl_seconds": 30 }), 201)]
#[case::longest(json!({ "ttl_seconds": 3600 }), 201)]
fn a_ticket_lives_as_long_as_is_allowed(#[case] body: Value, #[case] status: u16) {
    let transcript = serve(Environment::Staging, Vec::new(), &[plain(ask_for_ticket(body))]);
    assert_eq!(answer(&transcript, 0).0.status, status);
}

#[test]
fn a_ticket_can_be_looked_at_and_taken_back_by_its_user() {
    let id = first_ticket(&json!({}));
    let path = format!("/api/websocket/ticket/{id}");
    let revoke = |user: &str| Request { user: user.to_owned(), ..Request::standard("DELETE", &path) };
    let steps = [
        plain(ask_for_ticket(json!({}))),
        plain(request("GET", &format!("{path}/validate"))),
        plain(request("GET", "/api/websocket/tickets/status")),
        plain(revoke("user-2")),
        plain(revoke("user-1")),
        plain(request("GET", &format!("{path}/validate"))),
        step(Action::Open(with_ticket(&id))),
    ];
    let transcript = serve(Environment::Staging, Vec::new(), &steps);
    let statuses: Vec<u16> = (0..7).map(|exchange| answer(&transcript, exchange).0.status).collect();
    assert_eq!(statuses, [201, 200, 200, 404, 204, 404, 401]);
    assert_eq!(answer(&transcript, 2).1["active_tickets"], 1);
}

/// The way in for end-to-end tests: a real token for who has the key, and never in production.
#[rstest]
#[case(Environment::Development, Some("relapse-embedded-backend-e2e-key"), 200)]
#[case(Environment::Testing, Some("relapse-embedded-backend-e2e-key"), 200)]
#[case(Environment::Staging, Some("relapse-embedded-backend-e2e-key"), 200)]
#[case(Environment::Staging, Some("another key"), 401)]
#[case(Environment::Staging, None, 401)]
#[case(Environment::Production, Some("relapse-embedded-backend-e2e-key"), 403)]
#[case(Environment::Production, None, 403)]
fn test_users_need_the_key(#[case] environment: Environment, #[case] key: Option<&str>, #[case] status: u16) {
    let headers = key.map(|key| ("X-E2E-Bypass-Key".into(), key.to_owned().into())).into_iter().collect();
    let body = json!({ "email": "tester@example.test" }).to_string().into_bytes();
    let ask = Request { headers, body, ..request("POST", "/auth/e2e/test-auth") };
    let (head, body) = answer(&serve(environment, Vec::new(), &[plain(ask)]), 0);
    assert_eq!(head.status, status);
    let Some(token) = body["access_token"].as_str() else { return assert_ne!(status, 200) };
    let upgrade =
        Request { headers: vec![("Authorization".into(), format!("Bearer {token}").into())], ..request("GET", "/ws") };
    let transcript = serve(environment, Vec::new(), &[step(Action::Open(upgrade)), wait("connection_established")]);
    assert_eq!(Exchange::of(&transcript, 0).welcome.as_deref(), Some("e2e-test..."));
}

/// No header admits a client without a credential.
#[rstest]
fn no_header_is_a_way_in(
    #[values("X-E2E-Bypass", "X-Test-Mode", "X-Latest-Thing", "X-E2E-User-Id")] name: &'static str,
    #[values(Environment::Development, Environment::Testing, Environment::Staging, Environment::Production)]
    environment: Environment,
) {
    let upgrade = Request {
        headers: vec![(name.into(), "true".into())],
        ..Request { credential: Credential::Unsigned, ..request("GET", "/ws") }
    };
    let transcript = serve(environment, Vec::new(), &[step(Action::Open(upgrade)), wait("connection_established")]);
    assert_eq!(Exchange::of(&transcript, 0).outcome().class, Class::RefusedAuth);
}

/// A message over the limit of the minute is told so, and the session lives on.
#[rstest]
#[case(Environment::Staging, 60)]
#[case(Environment::Production, 60)]
#[case(Environment::Development, 120)]
fn the_message_limit_is_told(#[case] environment: Environment, #[case] limit: usize) {
    let ping = || step(Action::SendText(r#"{"type":"ping"}"#.to_owned()));
    let mut steps = vec![open(), wait("connection_established")];
    steps.extend((0..=limit).map(|_| ping()));
    steps.push(wait("error_message"));
    steps.push(Step::new(Action::Pause, Duration::from_secs(61)));
    steps.extend([ping(), wait("pong")]);
    let transcript = serve(environment, Vec::new(), &steps);
    let reading = Exchange::of(&transcript, 0);
    let count = |name: &str| reading.messages.iter().filter(|message| *message == name).count();
    assert_eq!((count("pong"), count("error_message")), (limit + 1, 1));
    assert_eq!(reading.outcome().class, Class::Served);
}

/// A silent client hears from the service, at the pace of its environment.
#[rstest]
#[case(Environment::Development, 10)]
#[case(Environment::Testing, 15)]
#[case(Environment::Staging, 18)]
#[case(Environment::Production, 35)]
fn a_silent_client_gets_heartbeats(#[case] environment: Environment, #[case] interval_s: u64) {
    let pause = Step::new(Action::Pause, Duration::from_secs(interval_s * 2 + 1));
    let transcript = serve(environment, Vec::new(), &[open(), wait("connection_established"), pause]);
    let is_beat = |what: &EventKind| matches!(what, EventKind::FrameSeen(frame) if message_type(&frame.payload).is_some_and(|name| name == "heartbeat"));
    let beats: Vec<u64> =
        transcript.of(0).filter(|event| is_beat(&event.what)).map(|event| event.at.as_secs()).collect();
    assert_eq!(beats, [interval_s, interval_s * 2]);
}

/// A browser may call from where the front end lives, and from nowhere else.
#[rstest]
#[case("https://app.relapse.test", true)]
#[case("http://localhost:3000", true)]
#[case("https://evil.example", false)]
fn cors_allows_the_front_end(#[case] origin: &str, #[case] allowed: bool) {
    let asked = Request { headers: vec![("Origin".into(), origin.to_owned().into())], ..request("GET", "/health") };
    let (head, _) = answer(&serve(Environment::Staging, Vec::new(), &[plain(asked)]), 0);
    let said = header(&head.headers, "access-control-allow-origin");
    assert_eq!(said, allowed.then_some(origin.as_bytes()));
}

/// A session cookie names its user; one that was changed names no user.
#[rstest]
#[case(|cookie: String| cookie, json!("user-1"))]
#[case(|cookie: String| cookie.replace("session=", "session=x"), Value::Null)]
#[case(|cookie: String| format!("{cookie}x"), Value::Null)]
#[case(|_| "session=user-1".to_owned(), Value::Null)]
fn a_session_cookie_is_signed(#[case] change: fn(String) -> String, #[case] user: Value) {
    let begin = plain(Request::standard("POST", "/api/session"));
    let (head, _) = answer(&serve(Environment::Staging, Vec::new(), &[begin]), 0);
    let cookie = String::from_utf8_lossy(header(&head.headers, "set-cookie").unwrap()).into_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("Secure"), "{cookie}");
    let value = change(cookie.split(';').next().unwrap().to_owned());
    let asked = Request { headers: vec![("Cookie".into(), value.into())], ..request("GET", "/api/session") };
    let (head, body) = answer(&serve(Environment::Staging, Vec::new(), &[plain(asked)]), 0);
    assert_eq!((head.status, &body["user"]), (200, &user));
}

/// Every session mode follows the same rule of authentication, and says which it is.
#[rstest]
#[case("/ws", "mode=main", "main")]
#[case("/ws", "mode=factory", "factory")]
#[case("/ws", "mode=isolated", "isolated")]
#[case("/ws", "mode=legacy", "legacy")]
#[case("/ws", "mode=no-such", "main")]
#[case("/ws/factory", "", "factory")]
#[case("/ws/isolated", "", "isolated")]
#[case("/websocket", "", "legacy")]
#[case("/ws/test", "", "legacy")]
#[case("/api/v1/websocket", "", "main")]
fn every_mode_authenticates(#[case] path: &str, #[case] query: &str, #[case] mode: &str) {
    for credential in Credential::ALL {
        let upgrade = Request {
            credential,
            places: vec![CredentialPlace::Header],
            query: query.as_bytes().to_vec(),
            ..Request::standard("GET", path)
        };
        let steps = [step(Action::Open(upgrade)), wait("connection_established")];
        let transcript = serve(Environment::Staging, Vec::new(), &steps);
        let reading = Exchange::of(&transcript, 0);
        let expected = match credential {
            Credential::Valid => Class::Served,
            // It is more than the server takes.
            Credential::OverLong => Class::RefusedRequest,
            _ => Class::RefusedAuth,
        };
        assert_eq!(reading.outcome().class, expected, "{credential:?} on {path}?{query}");
        let names = |event: &relapse_core::record::transcript::Event| {
            matches!(&event.what, EventKind::FrameSeen(frame)
                if String::from_utf8_lossy(&frame.payload).contains(&format!("\"mode\":\"{mode}\"")))
        };
        assert_eq!(transcript.of(0).any(names), credential == Credential::Valid);
    }
}

fn hangs(dependency: &str, operation: &str) -> Fault {
    let calls = Calls { dependency: dependency.to_owned(), operation: Some(operation.to_owned()) };
    Fault { kind: FaultKind::Call { calls, fault: CallFault::Hang {} }, trigger: Trigger::default() }
}

/// Every call that a client waits for has a limit, also where readiness had nothing to say against it.
#[rstest]
#[case("thread_service", "open")]
#[case("agent_supervisor", "run")]
#[case("websocket_bridge", "emit")]
fn a_run_that_hangs_is_ended(#[case] dependency: &str, #[case] operation: &str) {
    let ask = step(Action::SendText(r#"{"type":"chat","content":"x"}"#.to_owned()));
    let steps = [open(), wait("connection_established"), ask, step(Action::Wait(Awaited::Close))];
    let transcript = serve(Environment::Production, vec![hangs(dependency, operation)], &steps);
    let outcome = Exchange::of(&transcript, 0).outcome();
    assert_eq!((outcome.class, outcome.ending.to_string().as_str()), (Class::RefusedUnavailable, "close 1013"));
}

/// A plain request that has to wait for a dependency is answered in time, and told when to come back.
#[rstest]
#[case("database", "lookup", Request::standard("GET", "/api/threads/"))]
#[case("auth_service", "check", Request::standard("GET", "/api/threads/"))]
#[case("redis", "set", Request::standard("POST", "/api/websocket/ticket"))]
fn a_request_that_hangs_is_answered(#[case] dependency: &str, #[case] operation: &str, #[case] asked: Request) {
    let limited = Step::new(Action::Request(asked), Duration::from_secs(5));
    let transcript = serve(Environment::Staging, vec![hangs(dependency, operation)], &[limited]);
    let (head, _) = answer(&transcript, 0);
    assert_eq!((head.status, header(&head.headers, "retry-after").is_some()), (503, true));
}

/// A ticket cannot be looked up without Redis: no client gets in on it, and none hears that it is bad.
#[test]
fn a_ticket_needs_redis() {
    let calls = Calls { dependency: "redis".to_owned(), operation: Some("get".to_owned()) };
    let kind = FaultKind::Call { calls, fault: CallFault::Fail { error: "connection refused".to_owned() } };
    let fails = Fault { kind, trigger: Trigger::default() };
    let upgrade = Request { places: vec![CredentialPlace::Ticket], ..Request::standard("GET", "/ws") };
    let transcript = serve(Environment::Staging, vec![fails], &[step(Action::Open(upgrade))]);
    assert_eq!(Exchange::of(&transcript, 0).outcome().class, Class::RefusedUnavailable);
}

/// Two sessions at the same time on one ticket: one of them is welcomed.
#[test]
fn a_ticket_is_spent_once_however_many_ask() {
    let id = first_ticket(&json!({}));
    let calls = Calls { dependency: "auth_service".to_owned(), operation: Some("check".to_owned()) };
    let slow = Fault {
        kind: FaultKind::Call { calls, fault: CallFault::Delay { delay: Duration::from_millis(100).into() } },
        trigger: Trigger { nth: 2, ..Trigger::default() },
    };
    let steps = [step(Action::Open(with_ticket(&id))), wait("connection_established")];
    let transcript = Runtime::new(Clock::Virtual).block_on(async {
        let target =
            Embedded::launch(Revision::repaired(), Environment::Staging, profile(SERVER), Transport::Memory, 1);
        run::converse(&[plain(ask_for_ticket(json!({})))], Plan::default(), &target).await.unwrap();
        let crowd = Concurrency { users: 1, connections: 2, rounds: 1 };
        let plan = Plan { seed: 1, faults: vec![slow] };
        let transcript = run::converse_as(crowd, &steps, Recorder::new(plan), &target).await.unwrap();
        target.stop().await.unwrap();
        transcript
    });
    let welcomed = (0..2).filter(|&exchange| Exchange::of(&transcript, exchange).welcome.is_some()).count();
    assert_eq!(welcomed, 1);
    let refused = (0..2).find(|&exchange| Exchange::of(&transcript, exchange).welcome.is_none()).unwrap();
    assert_eq!(answer(&transcript, refused).0.status, 401);
}

/// A ticket that did not open a session because the user has too many is still good.
#[test]
fn a_refusal_for_another_reason_spends_no_ticket() {
    let id = first_ticket(&json!({}));
    let unknown = Request { offers: vec!["no-such-protocol".to_owned()], ..with_ticket(&id) };
    let steps = [
        plain(ask_for_ticket(json!({}))),
        step(Action::Open(unknown)),
        step(Action::Open(with_ticket(&id))),
        wait("connection_established"),
    ];
    let transcript = serve(Environment::Staging, Vec::new(), &steps);
    assert_eq!(answer(&transcript, 1).0.status, 400);
    assert!(Exchange::of(&transcript, 2).welcome.is_some());
}

/// No user's data is given without a token, or with a bad one.
#[rstest]
fn what_belongs_to_a_user_needs_one(
    #[values(
        ("GET", "/api/threads/"),
        ("GET", "/api/v1/websocket/protected"),
        ("POST", "/api/session"),
        ("POST", "/api/websocket/ticket"),
        ("DELETE", "/api/websocket/ticket/some")
    )]
    route: (&str, &str),
) {
    for credential in Credential::ALL.into_iter().filter(|kind| *kind != Credential::Valid) {
        let asked = Request { credential, ..Request::standard(route.0, route.1) };
        let transcript = serve(Environment::Staging, Vec::new(), &[plain(asked)]);
        assert_eq!(answer(&transcript, 0).0.status, 401, "{credential:?} on {route:?}");
        assert_eq!(Exchange::of(&transcript, 0).outcome().class, Class::RefusedAuth);
    }
}

/// A user's row is made once.
#[test]
fn a_user_is_created_once() {
    let asked = || plain(Request::standard("GET", "/api/threads/"));
    let transcript = serve(Environment::Staging, Vec::new(), &[asked(), asked()]);
    let created = [0, 1].map(|exchange| answer(&transcript, exchange).1["user_created"].clone());
    assert_eq!(created, [json!(true), json!(false)]);
}

/// The message limit of one user is no other user's.
#[test]
fn one_users_messages_are_not_anothers() {
    let ping = || step(Action::SendText(r#"{"type":"ping"}"#.to_owned()));
    let mut steps = vec![open(), wait("connection_established")];
    steps.extend((0..=60).map(|_| ping()));
    steps.push(wait("error_message"));
    let other = Request { user: "user-2".to_owned(), ..Request::standard("GET", "/ws") };
    steps.extend([step(Action::Open(other)), wait("connection_established"), ping(), wait("pong")]);
    let transcript = serve(Environment::Staging, Vec::new(), &steps);
    assert_eq!(Exchange::of(&transcript, 1).messages, ["connection_established", "pong"]);
}

#[rstest]
#[case(8192, "ack")]
#[case(8193, "error_message")]
#[case(9001, "error_message")]
#[case(1 << 20, "error_message")]
fn a_message_has_a_size(#[case] size: usize, #[case] expected: &str) {
    let mut text = r#"{"type":"some_type"}"#.to_owned();
    text.extend(std::iter::repeat_n(' ', size - text.len()));
    let steps = [open(), wait("connection_established"), step(Action::SendText(text)), wait(expected)];
    let transcript = serve(Environment::Staging, Vec::new(), &steps);
    assert_eq!(Exchange::of(&transcript, 0).messages, ["connection_established", expected]);
}

/// A WebSocket without a query string has an empty one (ASGI, WebSocket connection scope).
#[test]
fn a_websocket_may_lack_its_query_string() {
    for kind in [
        ScopeEdit::Drop { key: "query_string".to_owned() },
        ScopeEdit::Set { key: "query_string".to_owned(), value: relapse_core::asgi::value::Value::None },
    ] {
        let steps = [open(), wait("connection_established")];
        let transcript = serve(Environment::Staging, vec![FaultKind::Scope(kind).into()], &steps);
        assert_eq!(Exchange::of(&transcript, 0).outcome().class, Class::Served);
    }
}

/// A scope that lacks what the specification requires is refused as malformed, on both protocols.
#[rstest]
fn a_malformed_scope_is_a_bad_request(#[values("path", "headers")] key: &str) {
    let drops =
        || Fault { kind: FaultKind::Scope(ScopeEdit::Drop { key: key.to_owned() }), trigger: Trigger::default() };
    for asked in [open(), plain(request("GET", "/health"))] {
        let transcript = serve(Environment::Staging, vec![drops()], &[asked]);
        assert_eq!(answer(&transcript, 0).0.status, 400);
        assert_eq!(Exchange::of(&transcript, 0).outcome().class, Class::RefusedRequest);
    }
}

/// A dependency that a session can do without keeps the service from starting no more than from serving.
#[rstest]
fn a_start_does_not_wait_for_what_is_not_critical(#[values("database", "redis")] dependency: &str) {
    let restart = Fault { kind: FaultKind::Process(ProcessFault::Restart {}), trigger: Trigger::default() };
    let start = |environment| {
        let pause = Step::new(Action::Pause, Duration::from_secs(10));
        let steps = [pause, open(), wait("connection_established")];
        let plan = Plan { seed: 1, faults: vec![restart.clone(), fails(dependency)] };
        let runner = BackendRunner::default();
        let crowd = Concurrency::ONE;
        let transcript =
            runner.converse(Revision::repaired(), environment, &profile(SERVER), crowd, &steps, plan).unwrap();
        Exchange::of(&transcript, 0).outcome().class
    };
    assert_eq!(start(Environment::Staging), Class::Served);
    assert_eq!(start(Environment::Production), Class::RefusedUnavailable);
}
