//! How fast a Python application is driven: one judged case on one without a framework and on one with Starlette, beside
//! Starlette's own TestClient with the same conversation, and 90 virtual seconds. `PYTHON` names an interpreter with
//! Starlette and httpx; without them only the first is measured.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mimalloc::MiMalloc;
use relapse::{
    deadline::Deadline, discover::servers, run, service_file::ServiceFile, target::Target as _, verdict_rules,
};
use relapse_core::{
    client::step::{Action, Step},
    judge::{outcome::Class, verdict::HealthyClient},
    plan::Plan,
};
use relapse_python::{
    app::Python as PythonTarget,
    process::{BLOCKED_LIMIT, CodeCoverage, Epoch, LifespanMode, MEMORY_LIMIT, START_LIMIT, Site as PythonSite},
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    recorder,
};

/// The command's own allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const BINDING: &str = r#"
[messages]
welcome = ""
request = '{"type":"user_message"}'
events = ["agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed"]
"#;

struct Driven {
    runtime: Runtime,
    target: PythonTarget,
    steps: Vec<Step>,
}

impl Driven {
    fn launch(python: &Path, app: &str, factory: bool) -> Driven {
        let site = PythonSite {
            app: app.to_owned(),
            factory,
            python: python.to_owned(),
            directory: Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/bench"),
            environment: Vec::new(),
            blocked_limit: BLOCKED_LIMIT,
            clock: Clock::Virtual,
            fresh: false,
            memory_limit: MEMORY_LIMIT,
            start_limit: START_LIMIT,
            deadline: Deadline::NEVER,
            lifespan: LifespanMode::Auto,
            epoch: Epoch::Fixed,
            coverage: CodeCoverage::None,
        };
        let binding = ServiceFile::parse("bench", BINDING).expect("a good service file");
        let runtime = Runtime::new(Clock::Virtual);
        let profile = Arc::clone(&servers().expect("the profiles are readable")[0]);
        let launched = runtime.block_on(PythonTarget::launch(site, &binding, String::new(), profile, 1));
        let (target, _) = launched.expect("the application loads");
        let steps = binding.session("relapse.test", Duration::from_secs(100)).expect("a path for WebSockets");
        Driven { runtime, target, steps }
    }

    fn one_case(&self) {
        let judged = self.runtime.block_on(async {
            let transcript = run::converse(&self.steps, Plan { seed: 1, faults: Vec::new() }, &self.target).await;
            self.target.clear().await.expect("nothing panicked");
            verdict_rules::judge(transcript.expect("memory has links"), HealthyClient::Absent)
        });
        assert!(judged.findings.is_empty() && judged.outcome.class == Class::Served, "{:?}", judged.findings);
        black_box(judged);
    }
}

fn bench(criterion: &mut Criterion) {
    let _logs = recorder::capture_logs();
    let python = std::env::var_os("PYTHON").map_or(PathBuf::from("python3"), PathBuf::from);
    let has_starlette = Command::new(&python).args(["-c", "import starlette, httpx"]).output();
    let has_starlette = has_starlette.is_ok_and(|output| output.status.success());
    let mut group = criterion.benchmark_group("python");
    group.throughput(Throughput::Elements(1));
    let raw = Driven::launch(&python, "service:raw", false);
    group.bench_function("raw", |bencher| bencher.iter(|| raw.one_case()));
    if has_starlette {
        let starlette = Driven::launch(&python, "service:make_starlette", true);
        group.bench_function("starlette", |bencher| bencher.iter(|| starlette.one_case()));
        group.bench_function("starlette's TestClient", |bencher| {
            bencher.iter_custom(|cases| {
                let mut client = Command::new(&python);
                client
                    .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/bench/service.py"))
                    .arg(cases.to_string());
                let output = client.output().expect("the interpreter runs");
                let told = String::from_utf8_lossy(&output.stdout).trim().parse::<f64>();
                let each = told.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
                Duration::from_secs_f64(each * cases as f64)
            });
        });
    }
    group.finish();

    let mut waiting = Driven::launch(&python, "service:raw", false);
    for step in &mut waiting.steps {
        if let Action::SendText(text) = &mut step.act {
            *text = r#"{"type":"user_message","content":"nap"}"#.to_owned();
        }
    }
    criterion.bench_function("90 virtual seconds in Python", |bencher| bencher.iter(|| waiting.one_case()));
}

criterion_group!(benches, bench);
criterion_main!(benches);
