//! Steps of a case: named clients, waits, several requests on one connection, bodies and their pace.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use relapse::{
    case::Case,
    discover::Catalogue,
    report::sequence::{SequenceDetail, lines as sequence_lines},
    run,
    target::Target as _,
    targets::Url,
};
use relapse_backend::runner::KNOWN;
use relapse_core::{
    asgi::{
        event::{Inbound, Outbound},
        scope::Scope,
        value::Value,
    },
    client::step::{Action, Awaited, BodyExpectation, Carrier, ClientName, Pattern, Request, Slices, Step},
    error::Error,
    fault::{EventFault, Events, Fault, FaultKind, HeadEdit, Trigger},
    plan::Plan,
    record::transcript::{BodyEnd, BodyPart, EventKind, NeverCame, Transcript},
    wire::{
        frame::{Frame, Opcode},
        head::{ResponseHead, field},
    },
};
use relapse_python::{app::Python as PythonTarget, process::Server as PythonServer, served::Served};
use relapse_simulate::{
    app_faults::FaultyApp,
    clock::{Clock, Runtime},
    link::{Link, Listener},
    server,
};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    python::{binding, python, site},
    served::installation,
    support::{Ends, Reached, Scripted, converse, profile, step},
};

fn by(name: &str, act: Action) -> Step {
    Step { client: Some(ClientName(name.to_owned())), ..step(act) }
}

fn open(path: &str) -> Action {
    Action::Open(Request::standard("GET", path))
}

fn get(path: &str) -> Request {
    Request::standard("GET", path)
}

fn text(text: &str) -> Action {
    Action::SendText(text.to_owned())
}

fn pause(ms: u64) -> Step {
    Step::new(Action::Pause, Duration::from_millis(ms))
}

fn path_of(scope: &Scope) -> String {
    match scope.0.get("path") {
        Some(Value::Str(path)) => path.clone(),
        other => panic!("a path is no {other:?}"),
    }
}

fn is_websocket(scope: &Scope) -> bool {
    scope.0.get("type") == Some(&Value::from("websocket"))
}

fn is_data(what: &EventKind, said: &str) -> bool {
    matches!(what, EventKind::FrameSeen(frame) if frame.opcode == Opcode::Text && frame.payload == said.as_bytes())
}

fn awaited(transcript: &Transcript, exchange: usize) -> Vec<Result<Awaited, NeverCame>> {
    let told = |what: &EventKind| match what {
        EventKind::AwaitedCame { waiting_for } => Some(Ok(waiting_for.clone())),
        EventKind::AwaitedNeverCame { why, .. } => Some(Err(*why)),
        _ => None,
    };
    transcript.of(exchange).filter_map(|event| told(&event.what)).collect()
}

fn count(transcript: &Transcript, exchange: usize, is_it: impl Fn(&EventKind) -> bool) -> usize {
    transcript.of(exchange).filter(|event| is_it(&event.what)).count()
}

/// Watchers of a list: a plain request reaches all of them. A message `gone` is said to all when one leaves.
fn watchers() -> Arc<Scripted> {
    let news = broadcast::channel::<String>(64).0;
    Scripted::new(move |scope, mut ends: Ends| {
        let news = news.clone();
        async move {
            if !is_websocket(&scope) {
                ends.receive().await?;
                let _ = news.send(path_of(&scope));
                ends.send(Outbound::ResponseStart { status: 200, headers: Vec::new() }).await?;
                return ends.send(Outbound::ResponseBody { body: b"{}".to_vec(), more_body: false }).await;
            }
            ends.receive().await?;
            ends.send(Outbound::WebsocketAccept { subprotocol: None, headers: Vec::new() }).await?;
            let mut heard = news.subscribe();
            loop {
                // Which of the two comes first does not matter here, and both are cancel safe.
                let event = tokio::select! {
                    biased;
                    event = ends.receive() => Err(event?),
                    said = heard.recv() => Ok(said),
                };
                match event {
                    Ok(Ok(said)) => ends.send(Outbound::text(said)).await?,
                    Ok(Err(_)) => return Ok(()),
                    Err(Inbound::WebsocketReceive { text: Some(text), .. }) => {
                        ends.send(Outbound::text(format!("echo {text}"))).await?;
                    }
                    Err(Inbound::WebsocketReceive { .. }) => {
                        ends.send(Outbound::WebsocketSend { text: None, bytes: Some(b"bytes".to_vec()) }).await?;
                    }
                    Err(_) => {
                        let _ = news.send("gone".to_owned());
                        return Ok(());
                    }
                }
            }
        }
    })
}

#[test]
fn one_client_sees_what_another_brings_about() {
    let steps = [
        by("ann", open("/jobs")),
        by("bob", open("/jobs")),
        by("ann", Action::Leave),
        by("cat", Action::Request(get("/first"))),
        by("cat", Action::Request(get("/second"))),
        by("bob", Action::Wait(Awaited::Text("second".to_owned()))),
        by("bob", Action::Wait(Awaited::Text("first".to_owned()))),
    ];
    let transcript = converse(watchers(), &profile("uvicorn-0.54"), &steps);
    assert_eq!(transcript.exchanges(), 4, "{transcript:#?}");
    // A wait passes over what came before it, so that the second one finds nothing.
    assert_eq!(awaited(&transcript, 1), [Ok(Awaited::Text("second".to_owned())), Err(NeverCame::Deadline)]);
    for said in ["gone", "/first", "/second"] {
        assert_eq!(count(&transcript, 1, |what| is_data(what, said)), 1, "{said}: {transcript:#?}");
    }
    assert_eq!(count(&transcript, 0, |what| matches!(what, EventKind::FrameSeen(_))), 0);
    // The messages for bob stand between what caused it and what came after.
    let at = |exchange: usize, is_it: &dyn Fn(&EventKind) -> bool| {
        transcript.events.iter().position(|event| event.exchange == exchange && is_it(&event.what)).unwrap()
    };
    assert!(at(0, &|what| *what == EventKind::Left) < at(1, &|what| is_data(what, "gone")));
    assert!(at(1, &|what| is_data(what, "gone")) < at(2, &|what| matches!(what, EventKind::RequestSent { .. })));
    assert!(at(1, &|what| is_data(what, "/first")) < at(3, &|what| matches!(what, EventKind::RequestSent { .. })));
    // A session that no step ends is parted in the end.
    assert_eq!(
        count(&transcript, 1, |what| matches!(what, EventKind::FrameSent(frame) if frame.opcode == Opcode::Close)),
        1
    );
    let shown: Vec<String> =
        sequence_lines(&transcript, SequenceDetail::Conversation).into_iter().map(|line| line.text).collect();
    assert!(shown.contains(&"--- connection 2: bob ---".to_owned()), "{shown:#?}");
}

/// In a case with names it is shown that a step came to nothing, and in one without as little as ever.
#[test]
fn a_step_that_came_to_nothing_is_shown() {
    let steps = [
        by("ann", open("/gone")),
        by("ann", Action::Close(relapse_core::wire::close_code::CloseCode::NORMAL)),
        by("ann", Action::Wait(Awaited::Text("late".to_owned()))),
        by("ann", Action::Ping),
    ];
    let shown = |steps: &[Step]| -> Vec<String> {
        let transcript = converse(watchers(), &profile("uvicorn-0.54"), steps);
        let lines = sequence_lines(&transcript, SequenceDetail::Full).into_iter().map(|line| line.text);
        lines.filter(|line| line.starts_with('x')).collect()
    };
    let expected = [
        "x   the session is over, and the client waited for a message with the text `late`",
        "x   step 4 is left out: its connection is over",
    ];
    assert_eq!(shown(&steps), expected);
    let nameless = steps.map(|step| Step { client: None, ..step });
    assert_eq!(shown(&nameless), Vec::<String>::new());
}

/// A client that has nothing to do answers the server's pings, and its session outlives them.
#[rstest]
fn who_does_not_act_answers_pings(#[values(1, 2)] clients: usize) {
    let names = ["ann", "bob"];
    let mut steps: Vec<Step> = names[..clients].iter().map(|name| by(name, open("/jobs"))).collect();
    steps.push(Step { limit: Duration::from_secs(90), ..by("bob", Action::Pause) });
    steps.push(by("ann", text("still there?")));
    steps.push(by("ann", Action::Wait(Awaited::Answer)));
    let transcript = converse(watchers(), &profile("uvicorn-0.54"), &steps);
    assert_eq!(awaited(&transcript, 0), [Ok(Awaited::Answer)], "{transcript:#?}");
    let pings =
        count(&transcript, 0, |what| matches!(what, EventKind::FrameSeen(frame) if frame.opcode == Opcode::Ping));
    assert!(pings >= 3, "{pings}");
    assert!(transcript.events.iter().all(|event| event.what != EventKind::KeepaliveExpired));
}

/// One that stops reading does not, also while others act.
#[test]
fn who_stops_reading_answers_no_pings() {
    let steps = [
        by("ann", open("/jobs")),
        by("bob", open("/jobs")),
        by("ann", Action::StopReading),
        Step { limit: Duration::from_secs(90), ..by("bob", Action::Pause) },
        by("ann", Action::Wait(Awaited::Close)),
    ];
    let transcript = converse(watchers(), &profile("uvicorn-0.54"), &steps);
    let expired = |exchange| count(&transcript, exchange, |what| *what == EventKind::KeepaliveExpired);
    assert_eq!((expired(0), expired(1)), (1, 0), "{transcript:#?}");
    assert_eq!(awaited(&transcript, 0), [Ok(Awaited::Close)]);
}

#[rstest]
#[case::text(text("hi"), Awaited::Text("o hi".to_owned()), true)]
#[case::other_text(text("hi"), Awaited::Text("bye".to_owned()), false)]
#[case::pattern(text("12"), Awaited::Match(Pattern::new(r"^echo \d+$").unwrap()), true)]
#[case::other_pattern(text("x"), Awaited::Match(Pattern::new(r"^echo \d+$").unwrap()), false)]
#[case::text_is_no_binary(Action::SendBytes(b"x".to_vec()), Awaited::Text("bytes".to_owned()), false)]
#[case::any_binary(Action::SendBytes(b"x".to_vec()), Awaited::Any, true)]
#[case::any(text("x"), Awaited::Any, true)]
#[case::answer(text("x"), Awaited::Answer, true)]
#[case::binary_answer(Action::SendBytes(b"x".to_vec()), Awaited::Answer, true)]
#[case::no_answer(Action::Ping, Awaited::Answer, false)]
fn a_wait_tells_whether_it_came(#[case] act: Action, #[case] wait: Awaited, #[case] comes: bool) {
    let steps = [step(open("/jobs")), step(act), step(Action::Wait(wait.clone()))];
    let transcript = converse(watchers(), &profile("uvicorn-0.54"), &steps);
    let expected = if comes { Ok(wait) } else { Err(NeverCame::Deadline) };
    assert_eq!(awaited(&transcript, 0), [expected], "{transcript:#?}");
    let passed = count(&transcript, 0, |what| matches!(what, EventKind::DeadlinePassed { .. }));
    assert_eq!(passed, usize::from(!comes));
}

/// A message that came before the client said anything is no answer.
#[rstest]
#[case(Awaited::Any, true)]
#[case(Awaited::Answer, false)]
fn what_came_before_is_no_answer(#[case] wait: Awaited, #[case] comes: bool) {
    let application = Scripted::new(|_, mut ends: Ends| async move {
        ends.receive().await?;
        ends.send(Outbound::WebsocketAccept { subprotocol: None, headers: Vec::new() }).await?;
        ends.send(Outbound::text("welcome")).await?;
        while !matches!(ends.receive().await?, Inbound::WebsocketDisconnect { .. }) {}
        Ok(())
    });
    let has_answer = |wait: Awaited| [step(open("/ws")), pause(10), step(text("hello")), step(Action::Wait(wait))];
    let transcript = converse(application, &profile("uvicorn-0.54"), &has_answer(wait.clone()));
    assert_eq!(awaited(&transcript, 0), [if comes { Ok(wait) } else { Err(NeverCame::Deadline) }]);
}

/// A session that ends first, or never begins, does not satisfy a wait.
#[rstest]
#[case::crashes(true, Awaited::Message("pong".to_owned()), Err(NeverCame::SessionOver))]
#[case::closes(true, Awaited::Close, Ok(Awaited::Close))]
#[case::refused(false, Awaited::Message("pong".to_owned()), Err(NeverCame::NotOpened))]
#[case::never_closed(false, Awaited::Close, Err(NeverCame::NotOpened))]
fn an_end_is_no_message(
    #[case] accepts: bool,
    #[case] wait: Awaited,
    #[case] expected: Result<Awaited, NeverCame>,
    #[values(0, 50)] pause_ms: u64,
) {
    let application = Scripted::new(move |_, mut ends: Ends| async move {
        ends.receive().await?;
        if accepts {
            ends.send(Outbound::WebsocketAccept { subprotocol: None, headers: Vec::new() }).await?;
        }
        ends.send(Outbound::WebsocketClose { code: 4000, reason: String::new() }).await
    });
    let mut steps = vec![step(open("/ws")), step(Action::Wait(wait))];
    if pause_ms > 0 {
        // Then the session is over before the wait begins.
        steps.insert(1, pause(pause_ms));
        steps.push(step(text("too late")));
    }
    let transcript = converse(application, &profile("uvicorn-0.54"), &steps);
    assert_eq!(awaited(&transcript, 0), [expected]);
    assert_eq!(count(&transcript, 0, |what| matches!(what, EventKind::DeadlinePassed { .. })), 0);
    let left_out = count(&transcript, 0, |what| matches!(what, EventKind::NotPerformed { step: 4 }));
    assert_eq!(left_out, usize::from(pause_ms > 0));
    // Nothing happens on a connection that is over.
    assert!(transcript.of(0).all(|event| event.at < Duration::from_millis(50)), "{transcript:#?}");
}

/// An application that answers a plain request with its path; `/slow` after a second, `/last` for the last time.
fn paths() -> Arc<Scripted> {
    Scripted::new(|scope, mut ends: Ends| async move {
        let path = path_of(&scope);
        ends.receive().await?;
        if is_websocket(&scope) {
            ends.send(Outbound::WebsocketAccept { subprotocol: None, headers: Vec::new() }).await?;
            while !matches!(ends.receive().await?, Inbound::WebsocketDisconnect { .. }) {}
            return Ok(());
        }
        if path == "/slow" {
            sleep(Duration::from_secs(1)).await;
        }
        let headers = match path.as_str() {
            "/last" => vec![("connection".into(), "close".into())],
            _ => Vec::new(),
        };
        ends.send(Outbound::ResponseStart { status: 200, headers }).await?;
        ends.send(Outbound::ResponseBody { body: path.into_bytes(), more_body: false }).await
    })
}

fn on(carrier: Carrier, path: &str) -> Request {
    Request { on: carrier, ..get(path) }
}

/// The body that the client read in each exchange, and the paths that the application saw there.
fn bodies(transcript: &Transcript) -> Vec<(String, Vec<String>)> {
    let of = |exchange| {
        let mut seen = (String::new(), Vec::new());
        for event in transcript.of(exchange) {
            match &event.what {
                EventKind::BodySeen { body, end: BodyEnd::Complete } => {
                    seen.0 = String::from_utf8(body.to_vec()).unwrap()
                }
                EventKind::Called { head, .. } => seen.1.push(String::from_utf8(head.target.to_vec()).unwrap()),
                _ => {}
            }
        }
        seen
    };
    (0..transcript.exchanges()).map(of).collect()
}

/// Steps on a target that counts its connections.
fn counted(application: Arc<Scripted>, steps: &[Step], plan: Plan) -> (Transcript, usize) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let transcript = Runtime::new(Clock::Virtual).block_on(async move {
        let served = Reached::new(move |scribe| {
            counter.fetch_add(1, Ordering::Relaxed);
            let (client, near) = Link::pair();
            let (far, server) = Link::pair();
            let application = FaultyApp::new(Arc::clone(&application) as _, scribe.clone());
            tokio::spawn(relapse_simulate::edge::relay(near, Some(far), scribe.clone(), None));
            tokio::spawn(server::serve(server, application, profile("uvicorn-0.54"), scribe, None));
            Box::pin(async { Ok(client) })
        });
        run::converse(steps, plan, &served).await.unwrap()
    });
    (transcript, connections.load(Ordering::Relaxed))
}

#[rstest]
#[case::one_after_the_other(Carrier::SameConnection)]
#[case::at_a_time(Carrier::Pipeline)]
fn several_requests_share_a_connection(#[case] carrier: Carrier) {
    let steps: Vec<Step> = [get("/slow"), on(carrier, "/b"), on(carrier, "/c"), get("/d")]
        .map(|request| step(Action::Request(request)))
        .into();
    // A fault of the edge belongs to the request that it acts on.
    let add = HeadEdit::Lower {};
    let plan = Plan { seed: 1, faults: vec![Fault::from(FaultKind::Head(add))] };
    let (transcript, connections) = counted(paths(), &steps, plan);
    let expected = ["/slow", "/b", "/c", "/d"].map(|path| (path.to_owned(), vec![path.to_owned()]));
    assert_eq!(bodies(&transcript), expected, "{transcript:#?}");
    assert_eq!(connections, 2);
    for exchange in 0..4 {
        assert_eq!(count(&transcript, exchange, |what| matches!(what, EventKind::FaultFired { .. })), 1, "{exchange}");
        let shared = count(&transcript, exchange, |what| matches!(what, EventKind::OnConnectionOf { exchange: 0 }));
        assert_eq!(shared, usize::from(exchange == 1 || exchange == 2));
    }
    // Those of a pipeline are out before the first answer comes.
    let early = transcript
        .events
        .iter()
        .take_while(|event| !matches!(event.what, EventKind::ResponseSeen(_)))
        .filter(|event| matches!(event.what, EventKind::RequestSent { .. }))
        .count();
    assert_eq!(early, if carrier == Carrier::Pipeline { 3 } else { 1 });
}

#[test]
fn a_session_may_begin_on_a_connection_that_was_used() {
    let upgrade = Action::Open(on(Carrier::SameConnection, "/ws"));
    let steps = [step(Action::Request(get("/a"))), step(upgrade), step(Action::Ping)];
    let (transcript, connections) = counted(paths(), &steps, Plan::default());
    assert_eq!((connections, transcript.sessions()), (1, 1));
    assert_eq!(
        count(&transcript, 1, |what| matches!(what, EventKind::FrameSeen(frame) if frame.opcode == Opcode::Pong)),
        1
    );
}

/// A connection that is over carries nothing more, and that is told.
#[test]
fn nothing_goes_on_a_connection_that_is_over() {
    let steps = [get("/last"), on(Carrier::SameConnection, "/b")].map(|request| step(Action::Request(request)));
    let (transcript, _) = counted(paths(), &steps, Plan::default());
    assert_eq!(count(&transcript, 1, |what| matches!(what, EventKind::NotPerformed { step: 2 })), 1, "{transcript:#?}");
    assert_eq!(count(&transcript, 1, |what| matches!(what, EventKind::RequestSent { .. })), 0);
}

/// A server in memory that keeps what each connection brings, piece by piece, and answers nothing.
fn kept(steps: &[Step]) -> (Transcript, Vec<(Duration, String)>) {
    let pieces = Arc::new(Mutex::new(Vec::new()));
    let keeper = Arc::clone(&pieces);
    let transcript = Runtime::new(Clock::Virtual).block_on(async move {
        let start = Instant::now();
        let server = Reached::new(move |_| {
            let keeper = Arc::clone(&keeper);
            Box::pin(async move {
                let (client, mut server) = Link::pair();
                tokio::spawn(async move {
                    let mut piece = [0; 4096];
                    loop {
                        let count = server.read(&mut piece).await.unwrap_or(0);
                        let text = String::from_utf8_lossy(&piece[..count]).into_owned();
                        keeper.lock().unwrap().push((start.elapsed(), text));
                        if count == 0 {
                            return;
                        }
                    }
                });
                Ok(client)
            })
        });
        let transcript = run::converse(steps, Plan::default(), &server).await.unwrap();
        // The end arrives too.
        sleep(Duration::from_millis(1)).await;
        transcript
    });
    let pieces = pieces.lock().unwrap().clone();
    (transcript, pieces)
}

#[rstest]
#[case::leaves(Action::Leave)]
#[case::breaks_off(Action::Reset)]
fn a_body_is_cut_short(#[case] goes: Action) {
    let request = Request { body: b"0123456789".to_vec(), body_sent: Some(4), ..Request::standard("POST", "/upload") };
    let steps = [step(Action::Request(request)), pause(3000), step(goes.clone())];
    let (transcript, pieces) = kept(&steps);
    let all: String = pieces.iter().map(|(_, piece)| piece.as_str()).collect();
    assert!(all.to_lowercase().contains("content-length: 10\r\n") && all.ends_with("\r\n\r\n0123"), "{all}");
    assert_eq!(pieces.last(), Some(&(Duration::from_secs(3), String::new())));
    assert_eq!(count(&transcript, 0, |what| matches!(what, EventKind::BodyCutShort { sent: 4, whole: 10 })), 1);
    assert_eq!(count(&transcript, 0, |what| *what == EventKind::LinkReset), usize::from(goes == Action::Reset));
    assert_eq!(count(&transcript, 0, |what| *what == EventKind::Left), 1);
}

#[test]
fn a_request_is_written_in_slices() {
    let slices = Some(Slices { bytes: 20, pause: Duration::from_secs(2) });
    let request = Request { give_up: Some(Duration::from_millis(1)), ..get("/") };
    let (transcript, pieces) = kept(&[Step { slices, ..step(Action::Request(request)) }]);
    let mut whole = Vec::new();
    for event in &transcript.events {
        if let EventKind::RequestSent { head, .. } = &event.what {
            head.encode(&mut whole);
        }
    }
    assert!(whole.len() > 60, "{}", whole.len());
    let expected: Vec<(Duration, String)> = (0..)
        .zip(whole.chunks(20))
        .map(|(number, piece)| (Duration::from_secs(2 * number), String::from_utf8(piece.to_vec()).unwrap()))
        .collect();
    assert_eq!(pieces[..pieces.len() - 1], expected);
}

#[test]
fn a_message_is_written_in_slices() {
    let slices = Some(Slices { bytes: 3, pause: Duration::from_secs(1) });
    let said = Step { slices, ..step(text("hello")) };
    let transcript = converse(
        watchers(),
        &profile("uvicorn-0.54"),
        &[step(open("/jobs")), said, step(Action::Wait(Awaited::Answer))],
    );
    let at = |is_it: &dyn Fn(&EventKind) -> bool| transcript.of(0).find(|event| is_it(&event.what)).unwrap().at;
    let sent = at(&|what| matches!(what, EventKind::FrameSent(_)));
    // A header of two bytes, a mask of four, and five of text: four pieces.
    assert_eq!(at(&|what| is_data(what, "echo hello")) - sent, Duration::from_secs(3));
}

/// An application that streams a body: a first byte after a time, and another after each of some pauses.
fn stream(pauses_ms: &'static [u64]) -> Arc<Scripted> {
    Scripted::new(move |_, mut ends: Ends| async move {
        ends.receive().await?;
        ends.send(Outbound::ResponseStart { status: 200, headers: Vec::new() }).await?;
        for pause in pauses_ms {
            sleep(Duration::from_millis(*pause)).await;
            ends.send(Outbound::ResponseBody { body: b"x".to_vec(), more_body: true }).await?;
        }
        ends.send(Outbound::ResponseBody { body: Vec::new(), more_body: false }).await
    })
}

#[rstest]
#[case::in_time(&[1000, 2000, 500], 1000, 2000, &[])]
#[case::late_first(&[1001, 2000, 500], 1000, 2000, &[(BodyPart::FirstByte, Some(1001))])]
#[case::late_next(&[10, 2500, 500], 1000, 2000, &[(BodyPart::Next, Some(2500))])]
#[case::both(&[4000, 3000], 1000, 2000, &[(BodyPart::FirstByte, Some(4000)), (BodyPart::Next, Some(3000))])]
#[case::never(&[60_000], 1000, 2000, &[(BodyPart::FirstByte, None)])]
#[case::stops(&[100, 60_000], 1000, 2000, &[(BodyPart::Next, Some(9_900))])]
fn a_body_has_its_pace(
    #[case] pauses_ms: &'static [u64],
    #[case] first_ms: u64,
    #[case] gap_ms: u64,
    #[case] expected: &[(BodyPart, Option<u64>)],
) {
    let ms = Duration::from_millis;
    let expects = BodyExpectation { first_byte: Some(ms(first_ms)), gap: Some(ms(gap_ms)) };
    let steps = [step(Action::Request(Request { expects, ..get("/") }))];
    let transcript = converse(stream(pauses_ms), &profile("uvicorn-0.54"), &steps);
    let late: Vec<_> = transcript
        .of(0)
        .filter_map(|event| match event.what {
            EventKind::BodyLate { part, took, .. } => Some((part, took)),
            _ => None,
        })
        .collect();
    let expected: Vec<_> = expected.iter().map(|(part, took)| (*part, took.map(ms))).collect();
    assert_eq!(late, expected, "{transcript:#?}");
    let timing = transcript.of(0).find_map(|event| match event.what {
        EventKind::BodyTimed(timing) => Some(timing),
        _ => None,
    });
    let first = timing.and_then(|timing| timing.first_byte);
    assert_eq!(first, Some(ms(pauses_ms[0])).filter(|_| pauses_ms[0] < 10_000));
}

/// Reads the head of a request, and answers an upgrade as a server does.
async fn answer_upgrade(link: &mut Link) {
    let mut bytes = [0; 4096];
    let count = link.read(&mut bytes).await.unwrap();
    let head = String::from_utf8_lossy(&bytes[..count]).into_owned();
    let Some(key) = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")) else { return };
    let headers = vec![
        field("upgrade", "websocket"),
        field("connection", "Upgrade"),
        field("sec-websocket-accept", derive_accept_key(key.as_bytes())),
    ];
    let mut answer = Vec::new();
    ResponseHead { status: 101, headers }.encode(&mut answer);
    link.write_all(&answer).await.unwrap();
}

/// The peer of a client that breaks its connection gets an error, and not an end.
#[rstest]
#[case(Action::Reset, true)]
#[case(Action::Leave, false)]
fn a_reset_breaks_the_connection(
    #[case] goes: Action,
    #[case] is_error: bool,
    #[values(false, true)] is_session: bool,
) {
    let seen = Runtime::new(Clock::Real).block_on(async {
        let listener = Listener::bind(Clock::Real).await.unwrap();
        let address = listener.address().unwrap();
        let peer = async {
            let mut link = listener.accept().await.unwrap();
            answer_upgrade(&mut link).await;
            let mut bytes = [0; 4096];
            loop {
                match link.read(&mut bytes).await {
                    Ok(0) => return false,
                    Ok(_) => {}
                    Err(_) => return true,
                }
            }
        };
        let target = Reached::new(move |_| Box::pin(Link::connect(address, Clock::Real)));
        let request = Request { body: b"xx".to_vec(), body_sent: Some(1), ..Request::standard("POST", "/") };
        let begins = if is_session { open("/") } else { Action::Request(request) };
        let steps = [step(begins), step(goes)];
        let client = run::converse(&steps, Plan::default(), &target);
        let (seen, performed) = tokio::join!(peer, client);
        performed.unwrap();
        seen
    });
    assert_eq!(seen, is_error);
}

/// How many bytes a server can write to a client on a real socket, which opens a session and does this, before it has to
/// wait for 300 ms.
fn written_to(act: Action) -> usize {
    Runtime::new(Clock::Real).block_on(async {
        let listener = Listener::bind(Clock::Real).await.unwrap();
        let address = listener.address().unwrap();
        let peer = async {
            let mut link = listener.accept().await.unwrap();
            answer_upgrade(&mut link).await;
            let mut message = Vec::new();
            Frame::encode_whole(Opcode::Binary, &[0; 64 * 1024], &mut message);
            let mut written = 0;
            while written < 64 << 20
                && let Ok(Ok(count)) = timeout(Duration::from_millis(300), link.write(&message)).await
            {
                written += count;
            }
            written
        };
        let target =
            Reached::new(move |scribe| Box::pin(Link::connect_receiving(address, Clock::Real, scribe.receiving())));
        let freeze = Step::new(Action::Freeze, Duration::from_secs(20));
        let script = [step(open("/")), step(act), freeze];
        let client = run::converse(&script, Plan::default(), &target);
        tokio::select! {
            written = peer => written,
            done = client => panic!("the client was done first: {done:?}"),
        }
    })
}

/// A server learns soon that its client does not read: with the kernel's own buffers that takes 3.9 MB on loopback, with
/// those of such a client 72 kB.
#[rstest]
#[case(Action::StopReading)]
#[case(Action::Freeze)]
fn a_client_that_does_not_read_holds_its_peer_up(#[case] act: Action) {
    let written = written_to(act);
    assert!(written < 1 << 20, "{written} bytes went");
}

/// An application gets an event without a key.
#[rstest]
#[case("websocket.disconnect", "code", Value::from([("type", "websocket.disconnect".into())]))]
#[case("websocket.receive", "text", Value::from([("type", "websocket.receive".into()), ("bytes", Value::None)]))]
#[case("websocket.receive", "bytes", Value::from([("type", "websocket.receive".into()), ("text", "hi".into())]))]
fn an_event_comes_without_a_key(#[case] event: &str, #[case] key: &str, #[case] expected: Value) {
    let events = Events(Some(event.to_owned()));
    let fault = EventFault::OmitKey { key: key.to_owned() };
    let plan = Plan { seed: 1, faults: vec![Fault::from(FaultKind::Event { events, fault })] };
    let steps = [step(open("/ws")), step(text("hi")), step(Action::Leave)];
    let (transcript, _) = counted(paths(), &steps, plan);
    let got = |what: &EventKind| *what == EventKind::Received(Inbound::Invalid(expected.clone()));
    assert_eq!(count(&transcript, 0, got), 1, "{transcript:#?}");
    assert_eq!(transcript.fired, [1]);
}

/// The rest of a case around some steps.
fn case_file(before: &str, steps: &str, faults: &str) -> String {
    let expect = "[expect]\naccept = [\"ok\"]\n[symptom]\noutcome = \"close 1011\"\nclass = \"server-error\"\n\
                  cause = \"app-sent-1011\"\nfound_by = [\"no_internal_close\"]\n";
    let head =
        "summary = \"x\"\nreported = \"x\"\nroot_cause = \"x\"\nscenario = \"x\"\ndefect = \"auth_after_accept\"\n";
    format!("{head}{before}{steps}{faults}{expect}")
}

fn read(text: &str) -> Result<Case, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("case.toml");
    std::fs::write(&path, text).unwrap();
    let mut catalogue = Catalogue::knowing(KNOWN);
    catalogue.add(&path)?;
    match catalogue.broken.pop() {
        Some(error) => Err(error),
        None => Ok(Case::clone(&catalogue.cases[0])),
    }
}

/// Steps that could never be performed are refused where they stand.
#[rstest]
#[case::left("open = '/'\n[[step]]\nleave = true\n[[step]]\nsend = 'x'", 4, "the client has left before")]
#[case::reset("open = '/'\n[[step]]\nreset = true\n[[step]]\nwait_any = true", 4, "the client has left before")]
#[case::plain("request = 'GET /'\n[[step]]\nwait = 'x'", 2, "has read the answer to its request")]
#[case::plain_close("request = 'GET /'\n[[step]]\nwait = 'close'", 2, "has read the answer to its request")]
#[case::plain_leave("request = 'GET /'\n[[step]]\nleave = true", 2, "has read the answer to its request")]
#[case::ping("ping = true\n[[step]]\nopen = '/'", 0, "there is no connection yet")]
#[case::closed("open = '/'\n[[step]]\nclose = 1000\n[[step]]\nsend = 'x'", 4, "has closed its session before")]
#[case::named("as = 'ann'\nopen = '/'\n[[step]]\nas = 'bob'\nsend = 'x'", 3, "`bob` has opened nothing yet")]
#[case::named_left(
    "as = 'ann'\nopen = '/'\n[[step]]\nas = 'bob'\nopen = '/'\n[[step]]\nas = 'ann'\nleave = true\n[[step]]\nas = 'bob'\nping = true\n[[step]]\nas = 'ann'\nping = true",
    12,
    "`ann` has left before"
)]
#[case::half_named("as = 'ann'\nopen = '/'\n[[step]]\nping = true", 3, "some steps name their client")]
#[case::no_name("as = ' '\nopen = '/'", 1, "is no name of a client")]
#[case::on_nothing("request = 'GET /'\non = 'same-connection'", 0, "has no connection here that carries another")]
#[case::on_session("open = '/'\n[[step]]\nrequest = 'GET /'\non = 'pipeline'", 2, "has no connection here")]
#[case::on_unknown("request = 'GET /'\n[[step]]\nrequest = 'GET /'\non = 'this one'", 4, "unknown variant")]
#[case::on_upgrade("request = 'GET /'\n[[step]]\nopen = '/'\non = 'pipeline'", 4, "an upgrade is not pipelined")]
#[case::on_retry(
    "request = 'GET /'\n[[step]]\nrequest = 'GET /'\non = 'pipeline'\nretry_ms = 5",
    5,
    "`retry_ms` is about a new connection"
)]
#[case::cut_and_stays("request = 'POST /'\nbody = 'abc'\nsend_body_bytes = 1", 0, "the client never goes")]
#[case::cut_and_waits(
    "request = 'POST /'\nbody = 'abc'\nsend_body_bytes = 1\n[[step]]\nwait_any = true",
    4,
    "is in the middle of a body"
)]
#[case::cut_and_asks(
    "request = 'POST /'\nbody = 'abc'\nsend_body_bytes = 1\n[[step]]\nrequest = 'GET /'",
    0,
    "the client never goes"
)]
#[case::cut_too_late("request = 'POST /'\nbody = 'abc'\nsend_body_bytes = 3", 3, "the body has 3 byte(s)")]
#[case::body_of_upgrade("open = '/'\ngap_within_ms = 3", 2, "is about a body, and an upgrade has none")]
#[case::pattern("open = '/'\n[[step]]\nwait_match = '{\"a\"'", 3, "this is no pattern")]
#[case::empty_text("open = '/'\n[[step]]\nwait_text = ''", 3, "every text contains the empty one")]
#[case::slices_of_nothing("open = '/'\n[[step]]\nping = true\nslice_bytes = 3", 4, "means nothing in a `ping` step")]
#[case::slices_without_size("open = '/'\nslice_pause_ms = 3", 2, "means nothing in a `open` step")]
#[case::extension("open = '/'\nextensions = 'mux'", 2, "`mux` is no extension that the client speaks")]
#[case::extension_parameter(
    "open = '/'\nextensions = 'permessage-deflate; server_max_window_bits=7'",
    2,
    "a window has 8 to 15 bits, and `7` is not among them"
)]
#[case::extension_of_a_request(
    "request = 'GET /'\nextensions = 'permessage-deflate'",
    2,
    "`extensions` means nothing in a `request` step"
)]
#[case::line_end("open = '/'\nheaders = { X = 'a\\r\\nb' }", 2, "holds a line end")]
#[case::signal("open = '/'\n[[step]]\nsignal = 'SIGTREM'", 3, "unknown signal `SIGTREM`")]
#[case::signal_of_a_client(
    "as = 'ann'\nopen = '/'\n[[step]]\nas = 'ann'\nsignal = 'SIGTERM'",
    3,
    "`ann` does not act here"
)]
#[case::signal_that_waits(
    "open = '/'\n[[step]]\nsignal = 'SIGTERM'\nwithin_ms = 5",
    4,
    "a `signal` step waits for nothing"
)]
#[case::exit("open = '/'\n[[step]]\nwait_exit = 'SIGTREM'", 3, "unknown signal `SIGTREM`")]
#[case::exit_of_nothing("open = '/'\n[[step]]\nwait_exit = false", 3, "`wait_exit = false` does nothing")]
#[case::answer_unread("request = 'GET /'\nanswer = 'later'", 0, "is never read")]
#[case::answer_unread_before("request = 'GET /'\nanswer = 'later'\n[[step]]\nopen = '/'", 0, "is never read")]
#[case::answer_unread_and_waits(
    "request = 'GET /'\nanswer = 'later'\n[[step]]\nwait_any = true",
    3,
    "has not read the answer to its request"
)]
#[case::answer_read(
    "request = 'GET /'\n[[step]]\nread_answer = true",
    2,
    "has no request here whose answer is not read"
)]
#[case::answer_of_upgrade("open = '/'\nanswer = 'later'", 2, "is about a body")]
#[case::answer_never("request = 'GET /'\nanswer = 'never'", 2, "unknown time of an answer")]
fn a_step_that_cannot_be_performed_is_refused(#[case] steps: &str, #[case] line: usize, #[case] message: &str) {
    match read(&case_file("", &format!("[[step]]\n{steps}\n"), "")) {
        Err(Error::File(located)) => {
            assert!(located.message.contains(message), "{}", located.message);
            // Six lines stand before what is given here; a whole step stands where its header is.
            assert_eq!(located.line_and_column().0, line + 6, "{}", located.message);
        }
        other => panic!("{other:?}"),
    }
}

/// A wrong signal gets the nearest right name, also one without its first letters.
#[rstest]
#[case("SIGTREM", "did you mean `SIGTERM`?")]
#[case("TERM", "did you mean `SIGTERM`?")]
#[case("sigusr1", "did you mean `SIGUSR1`?")]
#[case("SIGSEGV", "known are SIGHUP, ")]
fn a_wrong_signal_is_helped(#[case] name: &str, #[case] help: &str) {
    match read(&case_file("", &format!("[[step]]\nopen = '/'\n[[step]]\nsignal = '{name}'\n"), "")) {
        Err(Error::File(located)) => {
            assert!(located.help.as_ref().is_some_and(|text| text.starts_with(help)), "{:?}", located.help);
        }
        other => panic!("{other:?}"),
    }
}

/// Arguments that take away what the harness relies on are refused where they stand.
#[rstest]
#[case("['--port', '80']", "the harness chooses where the server listens")]
#[case("['--ws-ping-interval', '1',\n '--workers=4']", "what the harness sees comes from one worker")]
#[case("['service:app']", "is no option of a server")]
#[case("[]", "no argument is given")]
fn an_argument_that_breaks_the_harness_is_refused(#[case] arguments: &str, #[case] message: &str) {
    let text = case_file(&format!("server_arguments = {arguments}\n"), "[[step]]\nopen = '/'\n", "");
    match read(&text) {
        Err(Error::File(located)) => {
            assert!(located.message.contains(message), "{}", located.message);
            assert_eq!(located.line_and_column().0, 6 + arguments.matches('\n').count(), "{}", located.message);
        }
        other => panic!("{other:?}"),
    }
}

/// A healthy client and a crowd send no signal.
#[rstest]
#[case(
    "",
    "[healthy_client]\n[[healthy_client.step]]\nopen = '/'\n[[healthy_client.step]]\nsignal = 'SIGTERM'\n",
    "sends no signal"
)]
#[case("users = 2\n", "[[step]]\nsignal = 'SIGTERM'\n", "every client of the crowd")]
fn a_signal_is_sent_once(#[case] before: &str, #[case] more: &str, #[case] message: &str) {
    match read(&case_file(before, &format!("[[step]]\nopen = '/'\n{more}"), "")) {
        Err(Error::File(located)) => assert!(located.message.contains(message), "{}", located.message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_crowd_has_no_names() {
    let steps = "[[step]]\nas = 'ann'\nopen = '/'\n";
    match read(&case_file("connections = 2\n", steps, "")) {
        Err(Error::File(located)) => assert_eq!(located.message, "named clients cannot be a crowd"),
        other => panic!("{other:?}"),
    }
}

/// Every key of a step, as it is written again.
#[test]
// Long: one file with every key.
fn what_a_step_says_survives_its_file() {
    let steps = r#"
[[step]]
as = "ann"
open = "/ws"
slice_bytes = 7
slice_pause_ms = 20

[[step]]
as = "bob"
request = "POST /a"
body_bytes = 'line\r\nend'
first_byte_within_ms = 100
gap_within_ms = 200
within_ms = 700

[[step]]
as = "bob"
request = "POST /b"
on = "pipeline"

[[step]]
as = "bob"
request = "POST /c"
body = "0123456789"
send_body_bytes = 0
on = "same-connection"

[[step]]
as = "bob"
reset = true

[[step]]
as = "ann"
send_bytes = 'a\r\n\x00'
slice_bytes = 1

[[step]]
as = "ann"
stop_reading = true

[[step]]
as = "ann"
wait_text = "a \"text\""

[[step]]
as = "ann"
wait_match = '^\{"a": \d+'
within_ms = 9

[[step]]
as = "ann"
wait_any = true

[[step]]
as = "ann"
wait_answer = true

[[step]]
as = "cat"
request = "GET /d"
answer = "later"

[[step]]
signal = "SIGTERM"

[[step]]
as = "cat"
read_answer = true
within_ms = 300

[[step]]
wait_exit = 0
within_ms = 900

[[step]]
wait_exit = "SIGTERM"

[[step]]
wait_exit = true
"#;
    let fault = "[[fault]]\nat = \"event\"\nkind = \"omit_key\"\nevent = \"websocket.disconnect\"\nkey = \"code\"\n";
    let arguments = "server_arguments = [\"--ws-ping-interval\", \"1\"]\n";
    let case = read(&case_file(arguments, steps, fault)).unwrap();
    let again = Case { name: case.name.clone(), ..read(&case.print()).unwrap() };
    assert_eq!(again, case, "{}", case.print());
    let names: Vec<&str> = case.steps.iter().filter_map(|step| Some(step.client.as_ref()?.0.as_str())).collect();
    assert_eq!(names[..6], ["ann", "bob", "bob", "bob", "bob", "ann"]);
    assert_eq!(case.steps[5].act, Action::SendBytes(b"a\r\n\0".to_vec()));
    assert!(matches!(&case.steps[1].act, Action::Request(request) if request.body == b"line\r\nend"));
    assert!(matches!(&case.steps[3].act, Action::Request(request) if request.body_sent == Some(0)));
    assert_eq!(case.accepted.len(), 5);
    assert_eq!(case.server_arguments.arguments, ["--ws-ping-interval", "1"]);
    let last = case.steps.iter().map(|step| format!("{:?}", step.act)).skip_while(|act| act != "Signal(Term)");
    let last: Vec<String> = last.skip(1).collect();
    assert_eq!(last, ["ReadAnswer", "AwaitExit(Status(0))", "AwaitExit(Signal(Term))", "AwaitExit(Any)"]);
    assert_eq!(case.steps[0].slices, Some(Slices { bytes: 7, pause: Duration::from_millis(20) }));
}

/// Watchers of a list, in Python: `/publish` reaches them one after the other, and `/careful` also those behind one to
/// which it cannot write.
const WATCHERS: &str = r#"
watchers = []

async def watch(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    watchers.append(send)
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            if send in watchers:
                watchers.remove(send)
            return event["code"]
        await send({"type": "websocket.send", "text": "echo " + event["text"]})

async def publish(path):
    reached = []
    for send in list(watchers):
        try:
            await send({"type": "websocket.send", "text": '{"type": "job"}'})
            reached.append("reached")
        except Exception as error:
            reached.append(f"{type(error).__name__} {getattr(error, 'errno', None)} {error}")
            if path != "/careful":
                break
    return ", ".join(reached)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await watch(receive, send)
        return
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        size += len(event.get("body", b""))
        if not event.get("more_body"):
            break
    path = scope["path"]
    said = await publish(path) if path in ("/publish", "/careful") else f"{path} {size}"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
    await send({"type": "http.response.body", "body": said.encode()})
"#;

fn watching(path: &str) -> Vec<Step> {
    vec![
        by("ann", open("/jobs")),
        by("bob", open("/jobs")),
        // Each is in the list once it is answered.
        by("ann", text("x")),
        by("ann", Action::Wait(Awaited::Answer)),
        by("bob", text("x")),
        by("bob", Action::Wait(Awaited::Answer)),
        by("cat", Action::Request(Request::standard("POST", path))),
        by("ann", Action::Leave),
        by("bob", Action::Wait(Awaited::Message("job".to_owned()))),
    ]
}

/// These steps on the watchers in Python, in an interpreter and under the virtual clock.
fn in_python(steps: &[Step], faults: Vec<Fault>) -> Transcript {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), WATCHERS).unwrap();
    let site = site(&python, directory.path(), "service:app");
    Runtime::new(Clock::Virtual).block_on(async {
        let launched = PythonTarget::launch(site, &binding(), String::new(), profile("uvicorn-0.54"), 1).await;
        let (target, _) = launched.unwrap_or_else(|trouble| panic!("{}", trouble.message));
        let transcript = run::converse(steps, Plan { seed: 1, faults }, &target).await.unwrap();
        target.stop().await.unwrap();
        transcript
    })
}

/// One client's broken connection may not cost another its message: by the transcript the two are told apart.
#[rstest]
#[case::stops_at_the_first("/publish", false, "OSError 104 [Errno 104] Connection reset by peer")]
#[case::goes_on("/careful", true, "OSError 104 [Errno 104] Connection reset by peer, reached")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_message_that_another_client_lost_is_seen(#[case] path: &str, #[case] comes: bool, #[case] said: &str) {
    let fault = EventFault::SendRaises { error: "OSError: [Errno 104] Connection reset by peer".to_owned() };
    let kind = FaultKind::Event { events: Events(Some("websocket.send".to_owned())), fault };
    let step = Trigger { step: Some(7), times: Some(1), ..Trigger::default() };
    let transcript = in_python(&watching(path), vec![Fault { kind, trigger: step }]);
    assert_eq!(transcript.fired, [1]);
    let waited = awaited(&transcript, 1).pop().unwrap();
    assert_eq!(waited, if comes { Ok(Awaited::Message("job".to_owned())) } else { Err(NeverCame::Deadline) });
    assert_eq!(bodies(&transcript)[2].0, said);
}

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_key_that_is_missing_is_missed_in_python() {
    let events = Events(Some("websocket.disconnect".to_owned()));
    let fault = FaultKind::Event { events, fault: EventFault::OmitKey { key: "code".to_owned() } };
    let steps = [step(open("/jobs")), step(Action::Leave)];
    let transcript = in_python(&steps, vec![fault.into()]);
    let raised = transcript.events.iter().find_map(|event| match &event.what {
        EventKind::Raised(exception) => Some(exception.to_string()),
        _ => None,
    });
    assert_eq!(raised.as_deref(), Some("KeyError: 'code'"));
}

/// A real server gets the same steps, and everything that is seen belongs to its own exchange.
#[rstest]
#[case("uvicorn==0.54.0")]
#[case("hypercorn==0.18.0")]
#[case("granian==2.8.7")]
#[case("daphne==4.2.3")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn steps_are_performed_behind_real_servers(#[case] server: &str) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("service.py"), WATCHERS).unwrap();
    let installation = installation(server, directory.path());
    let post = |path: &str, on| {
        let body = vec![b'x'; path.len()];
        Action::Request(Request { body, on, ..Request::standard("POST", path) })
    };
    let mut steps = watching("/careful");
    steps.extend([
        by("cat", post("/a", Carrier::NewConnection)),
        by("cat", post("/bb", Carrier::SameConnection)),
        by("cat", post("/ccc", Carrier::Pipeline)),
        Step {
            slices: Some(Slices { bytes: 50, pause: Duration::from_millis(1) }),
            ..by("dan", post("/dddd", Carrier::NewConnection))
        },
        by("bob", Action::Reset),
    ]);
    let (transcript, by_url) = Runtime::new(Clock::Real).block_on(async {
        let (server, _) = PythonServer::start(installation).await.unwrap();
        let upstream = format!("http://{}", server.address()).parse().unwrap();
        let served = Served::new(server, &binding(), String::new());
        let transcript = run::converse(&steps, Plan::default(), &served).await.unwrap();
        served.clear().await.unwrap();
        let url = Url::new(upstream, &binding(), String::new(), 100, Duration::ZERO);
        let by_url = run::converse(&steps, Plan::default(), &url).await.unwrap();
        served.shut_down().await.unwrap();
        (transcript, by_url)
    });
    assert_eq!(awaited(&transcript, 1).pop(), Some(Ok(Awaited::Message("job".to_owned()))), "{transcript:#?}");
    let called = |path: &str, said: &str| (said.to_owned(), vec![path.to_owned()]);
    let expected = [
        called("/jobs", ""),
        called("/jobs", ""),
        called("/careful", "reached, reached"),
        called("/a", "/a 2"),
        called("/bb", "/bb 3"),
        called("/ccc", "/ccc 4"),
        called("/dddd", "/dddd 5"),
    ];
    assert_eq!(bodies(&transcript), expected, "{transcript:#?}");
    // Of a server behind a URL only the wire is seen.
    assert_eq!(awaited(&by_url, 1).pop(), Some(Ok(Awaited::Message("job".to_owned()))), "{by_url:#?}");
    let read = |bodies: &[(String, Vec<String>)]| bodies.iter().map(|(body, _)| body.clone()).collect::<Vec<_>>();
    assert_eq!(read(&bodies(&by_url)[3..]), read(&expected[3..]));
}
