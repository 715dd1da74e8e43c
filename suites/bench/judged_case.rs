//! How fast the pipeline is: one judged case, and one that a hunt draws, runs and judges, beside a bare pair of
//! WebSocket ends that does the same as the first without a backend, a transcript or a judgement, and a long virtual
//! wait. Machines differ; the ratios to the bare pair do not.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{SinkExt, StreamExt};
use mimalloc::MiMalloc;
use relapse::{discover::servers, environment::Environment, hunt::Hunt, run, verdict_rules};
use relapse_backend::{
    revision::Revision,
    runner::{self, ground},
    target::{Embedded, Transport},
};
use relapse_core::{
    client::step::{Action, Step},
    judge::{
        outcome::{Class, Ending, Outcome},
        verdict::HealthyClient,
    },
    plan::Plan,
    record::transcript::Actor,
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    recorder,
};
use tokio_tungstenite::{
    accept_async_with_config, client_async_with_config,
    tungstenite::{Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

/// The command's own allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Upgrade with a bearer token, welcome, one user_message, five events, close 1000 both ways, transcript, all checks.
fn one_case(runtime: &Runtime, steps: &[Step], control: &HealthyClient) -> Class {
    let profile = Arc::clone(&servers().expect("the profiles are readable")[0]);
    let judged = runtime.block_on(async {
        let target = Embedded::launch(Revision::repaired(), Environment::Staging, profile, Transport::Memory, 1);
        let transcript = run::converse(steps, Plan { seed: 1, faults: Vec::new() }, &target).await;
        verdict_rules::judge(transcript.expect("memory has links"), control.clone())
    });
    assert!(judged.findings.is_empty(), "{:?}", judged.findings);
    judged.outcome.class
}

/// The same conversation between two library ends: nothing is authenticated, recorded or judged.
async fn bare_pair() {
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let (client, server) = tokio::io::duplex(64 * 1024);
    let serve = async move {
        let mut socket = accept_async_with_config(server, Some(config)).await.expect("a good handshake");
        socket.send(Message::text(EVENT)).await.expect("an open socket");
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                for _ in 0..6 {
                    socket.feed(Message::text(EVENT)).await.expect("an open socket");
                }
                socket.flush().await.expect("an open socket");
            }
        }
    };
    let ask = async {
        let request = "ws://relapse.test/ws".into_client_request().expect("a good request");
        let (mut socket, _) = client_async_with_config(request, client, Some(config)).await.expect("a good handshake");
        socket.next().await.expect("a welcome").expect("a welcome");
        socket.send(Message::text(r#"{"type":"user_message","content":"hello"}"#)).await.expect("an open socket");
        for _ in 0..6 {
            socket.next().await.expect("an event").expect("an event");
        }
        socket.close(None).await.expect("an open socket");
        while let Some(Ok(_)) = socket.next().await {}
    };
    let server = tokio::spawn(serve);
    ask.await;
    server.await.expect("the server ends");
}

/// As long as an agent event.
const EVENT: &str = r#"{"type":"agent_started","user_id":"user-1","thread_id":null,"timestamp":1767225600.0,"critical":true,"attempt":null,"agent_name":"triage","task_description":"hello"}"#;

fn bench(criterion: &mut Criterion) {
    let _logs = recorder::capture_logs();
    let runtime = Runtime::new(Clock::Virtual);
    let control = HealthyClient::Tried(Outcome {
        class: Class::Served,
        cause: relapse_core::judge::cause::Cause::Clean,
        ending: Ending::Left,
        closed_by: Actor::Probe,
    });
    let steps = runner::control_steps();
    let mut group = criterion.benchmark_group("judged");
    group.throughput(Throughput::Elements(1));
    group.bench_function("case", |bencher| bencher.iter(|| black_box(one_case(&runtime, &steps, &control))));
    let virtual_runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let virtual_runtime = virtual_runtime.expect("a runtime needs nothing but memory");
    group.bench_function("bare pair", |bencher| bencher.iter(|| virtual_runtime.block_on(bare_pair())));
    group.finish();

    const DRAWN: u64 = 256;
    let hunt = Hunt::on(ground(Revision::repaired()), servers().expect("the profiles are readable"), DRAWN);
    let mut group = criterion.benchmark_group("hunted");
    group.throughput(Throughput::Elements(DRAWN));
    group.bench_function("256 cases", |bencher| {
        bencher.iter(|| {
            let campaign = hunt.run().expect("memory has links");
            assert!(campaign.found.is_empty() && campaign.reached.cases == DRAWN);
        });
    });
    group.finish();

    let mut waiting = steps.clone();
    waiting.insert(2, Step::new(Action::Pause, std::time::Duration::from_secs(90)));
    criterion.bench_function("90 virtual seconds", |bencher| {
        bencher.iter(|| black_box(one_case(&runtime, &waiting, &control)));
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
