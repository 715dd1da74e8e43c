//! Plans: what the arguments of each command come to, without a word printed and without a run.

use clap::FromArgMatches;
use rstest::rstest;

use super::{
    Arguments, Command, command,
    error::{CommandResult, Failure, UsageError},
    exit_code::CommandExit,
    hunt::HuntPlan,
};

fn parse(line: &str) -> Command {
    let arguments = std::iter::once("relapse").chain(line.split_whitespace());
    let matches = command().try_get_matches_from(arguments).unwrap();
    Arguments::from_arg_matches(&matches).unwrap().command.unwrap()
}

/// The plan of a command, as far as there is one.
fn plan(line: &str) -> CommandResult<()> {
    match parse(line) {
        Command::Run(args) => args.plan().map(drop),
        Command::Hunt(args) => args.plan().map(drop),
        Command::Replay(args) => args.plan().map(drop),
        Command::Serve(args) => args.plan().map(drop),
        Command::Proxy(args) => args.plan().map(drop),
        Command::Validate(args) => args.plan().map(drop),
        Command::Init(args) => args.plan().map(drop),
        Command::Conform(args) => args.plan().map(drop),
        Command::List(args) => args.plan().map(drop),
        Command::Show(args) => args.plan().map(drop),
        Command::Profile(_) => unreachable!("profiles have no plan"),
    }
}

fn no_python(options: &str) -> UsageError {
    UsageError::NoPythonApplication { options: options.to_owned() }
}

#[rstest]
#[case("run --dir here", no_python("--dir here"))]
#[case("conform --factory", no_python("--factory"))]
#[case("hunt --fresh", no_python("--fresh"))]
#[case("run --target ws://127.0.0.1:1 --clock real", no_python("--clock real"))]
#[case("run --target ws://127.0.0.1:1 --before asgi:service:app", UsageError::DifferentKinds { one: "server", other: "Python application" })]
#[case("run --target ws://127.0.0.1:1 --profile all", UsageError::NotLoaded { option: "--profile", noun: "server" })]
#[case("run --target ws://example.com:1", UsageError::HostNotAllowed { host: "example.com".to_owned() })]
#[case("run --target ws://127.0.0.1:1 --before ws://example.com:1", UsageError::HostNotAllowed { host: "example.com".to_owned() })]
#[case("run --target asgi:service:app --allow-host example.com", UsageError::HostOfPython)]
#[case("run --target asgi:service:app --server uvicorn --fresh", UsageError::ServerIsPlayed)]
#[case("run --target asgi:service:app --server uvicorn --profile all", UsageError::ServerIsPlayed)]
#[case("run --target asgi:service:app --server hypercorn --lifespan off", UsageError::ServerSendsLifespan { server: "hypercorn".to_owned() })]
#[case("validate --target asgi:service:app --wait 3s", UsageError::WaitInVirtualTime)]
#[case("validate --target asgi:service:app --watch", UsageError::WaitInVirtualTime)]
#[case("validate --target asgi:service:app --watch --clock real --profile all", UsageError::WatchOfSeveral)]
#[case("init --target ws://127.0.0.1:1 --service-file README.md", UsageError::FileExists { path: "README.md".into() })]
#[case("init --target ws://127.0.0.1:1 --service-file none.toml --token-env RELAPSE_HAS_NO_SUCH_VARIABLE", UsageError::TokenVariable { name: "RELAPSE_HAS_NO_SUCH_VARIABLE".to_owned() })]
#[case("conform --target asgi:service:app", UsageError::NoServiceFile { target: "asgi:service:app".to_owned() })]
#[case("conform --target asgi:service:app --dir x", UsageError::NoServiceFile { target: "asgi:service:app --dir x".to_owned() })]
#[case("hunt --target backend --before asgi:service:app", UsageError::BeforeOfBackend)]
#[case("hunt --hostile", UsageError::HuntOptionsOfPython)]
#[case("hunt --write-pytest tests", UsageError::HuntOptionsOfPython)]
#[case("hunt --target asgi:service:app --detection", UsageError::HuntOptionsOfBackend)]
#[case("hunt --target ws://127.0.0.1:1 --write-pytest tests", UsageError::TestsOfServer)]
#[case("hunt --target asgi:service:app --server uvicorn --write-pytest tests", UsageError::TestsOfServer)]
#[case("hunt --target ws://127.0.0.1:1 --hostile", UsageError::NotLoaded { option: "--hostile", noun: "server" })]
#[case("hunt --target asgi:service:app --write-pytest tests --profile uvicorn-0.35 --profile daphne-4.2", UsageError::TestsOfSeveral { first: "uvicorn-0.35".to_owned() })]
#[case("hunt --corpus fixtures/corpus --profile uvicorn-*", UsageError::CorpusBehindSeveral { first: "uvicorn-0.35".to_owned() })]
#[case("proxy --upstream ws://127.0.0.1:1 --control 0.0.0.0:0", UsageError::ControlFromElsewhere)]
#[case("replay --reproducers harness", UsageError::NoReproducer { path: "harness".into() })]
fn a_mistake_in_the_arguments_is_an_error_of_its_kind(#[case] line: &str, #[case] expected: UsageError) {
    match plan(line) {
        Err(failure @ Failure::Usage(_)) => {
            assert_eq!(failure.exit(), CommandExit::NoResult);
            let Failure::Usage(error) = failure else { unreachable!("it is one") };
            assert_eq!(error, expected);
        }
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case("run 508")]
#[case("run 508 --profile uvicorn-0.35")]
#[case("run 508 --target ws://127.0.0.1:1")]
#[case("run 508 --target asgi:service:app --server uvicorn")]
#[case("hunt --target ws://127.0.0.1:1 --before ws://localhost:2")]
#[case("replay fixtures/capsules/loop_goes_on.toml")]
#[case("serve --defect managers_leak --report 508")]
#[case("proxy --upstream ws://127.0.0.1:1 --lb nginx")]
#[case("validate --target asgi:service:app --clock real --wait 3s")]
#[case("init --target ws://127.0.0.1:1 --path ws:/x --service-file none.toml")]
#[case("conform 5.5.2")]
#[case("list 508")]
#[case("show S508-1")]
fn what_fits_together_is_planned(#[case] line: &str) {
    if let Err(failure) = plan(line) {
        panic!("{failure:?}");
    }
}

/// A filter that selects nothing leaves nothing to run on a target, and the reason is in the error.
#[rstest]
#[case("run no_such_case --target ws://127.0.0.1:1")]
#[case("list no_such_case")]
#[case("show no_such_case")]
#[case("hunt --corpus fixtures/corpus no_such_service")]
#[case("serve --report 1")]
fn without_a_case_there_is_no_plan(#[case] line: &str) {
    let Err(failure) = plan(line) else { panic!("{line} has a plan") };
    let Failure::NoCase(errors) = &failure else { panic!("{failure:?}") };
    assert_eq!((errors.len(), failure.exit()), (1, CommandExit::NoResult));
}

#[rstest]
#[case("hunt --merge a b", "merge 2")]
#[case("hunt --detection", "detect 20000")]
#[case("hunt", "backend 2000 from 1")]
#[case("hunt --corpus fixtures/corpus", "corpus of 64 behind uvicorn-0.54 for 60 s")]
#[case("hunt --corpus fixtures/corpus raw_* fastapi_ws_bad_json --time 5s", "corpus of 5 behind uvicorn-0.54 for 5 s")]
#[case(
    "hunt --corpus fixtures/corpus sse_* --cases 9 --profile daphne-4.2",
    "corpus of 3 behind daphne-4.2 for 9 cases"
)]
#[case("hunt --cases 10 --shard 2/2", "backend 5 from 6")]
#[case("hunt --target ws://127.0.0.1:1 --before ws://127.0.0.1:2", "target behind 1 of 2")]
fn a_hunt_is_of_one_kind(#[case] line: &str, #[case] expected: &str) {
    let Command::Hunt(args) = parse(line) else { panic!("{line}") };
    let kind = match args.plan().unwrap() {
        HuntPlan::Merge(parts) => format!("merge {}", parts.len()),
        HuntPlan::Detect(hunt) => format!("detect {}", hunt.cases),
        HuntPlan::OnCorpus(hunt) => {
            let length = hunt.time.map(|time| format!("{} s", time.as_secs()));
            let length = length.or(hunt.cases.map(|cases| format!("{cases} cases"))).unwrap();
            format!("corpus of {} behind {} for {length}", hunt.corpus.services.len(), hunt.profile)
        }
        HuntPlan::OnBackend(hunt) => format!("backend {} from {}", hunt.cases, hunt.seed),
        HuntPlan::OnTarget(hunt) => format!("target behind {} of {}", hunt.fronts.len(), hunt.versions.len()),
    };
    assert_eq!(kind, expected);
}

/// A corpus is hunted on without a hint, and instead of anything else.
#[rstest]
#[case("--target asgi:service:app")]
#[case("--detection")]
#[case("--defect managers_leak")]
#[case("--service-file relapse.toml")]
#[case("--path ws:/chat")]
#[case("--server uvicorn")]
#[case("--shard 1/2")]
fn a_corpus_is_hunted_on_alone(#[case] other: &str) {
    let line = format!("relapse hunt --corpus fixtures/corpus {other}");
    let refused = command().try_get_matches_from(line.split_whitespace()).unwrap_err();
    assert_eq!(refused.kind(), clap::error::ErrorKind::ArgumentConflict, "{refused}");
    assert!(command().try_get_matches_from(["relapse", "hunt", "a_service"]).is_err(), "a service needs its corpus");
}
