//! How fast the pipeline is: one judged case, and a long virtual wait.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mimalloc::MiMalloc;
use relapse::{
    Environment, Plan, Revision,
    clock::{Clock, Runtime},
    outcome::{Class, Ending, Outcome},
    recorder, run, servers,
    step::{Act, Step},
    target::{Embedded, Transport},
    transcript::Party,
};

/// The command's own allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Upgrade with a bearer token, welcome, one user_message, five events, close 1000 both ways, transcript, all checks.
fn one_case(runtime: &Runtime, steps: &[Step], control: &Outcome) -> Class {
    let profile = Arc::clone(&servers().expect("the profiles are readable")[0]);
    let judged = runtime.block_on(async {
        let target = Embedded::launch(Revision::repaired(), Environment::Staging, profile, Transport::Memory, 1);
        let transcript = run::converse(steps, Plan { seed: 1, faults: Vec::new() }, &target).await;
        run::judge(transcript.expect("memory has links"), control.clone())
    });
    assert!(judged.findings.is_empty(), "{:?}", judged.findings);
    judged.outcome.class
}

fn bench(criterion: &mut Criterion) {
    let _logs = recorder::capture_logs();
    let runtime = Runtime::new(Clock::Virtual);
    let control =
        Outcome { class: Class::GoodOpen, cause: relapse::Cause::Clean, ending: Ending::Left, closed_by: Party::Probe };
    let steps = run::control_steps();
    let mut group = criterion.benchmark_group("judged");
    group.throughput(Throughput::Elements(1));
    group.bench_function("case", |bencher| bencher.iter(|| black_box(one_case(&runtime, &steps, &control))));
    group.finish();

    let mut waiting = steps.clone();
    waiting.insert(2, Step { act: Act::Pause, limit: std::time::Duration::from_secs(90) });
    criterion.bench_function("90 virtual seconds", |bencher| {
        bencher.iter(|| black_box(one_case(&runtime, &waiting, &control)));
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
