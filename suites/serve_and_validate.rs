//! Standing services and their check: the built-in backend on a port, and the check of a deployment.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use relapse::{
    deadline::Deadline,
    environment::Environment,
    external::{External, Front},
    service_file::ServiceFile,
    targets::Url,
    validate::{Validation, validate},
};
use relapse_backend::{
    defect::Defect,
    listening::{Stand, StandSetup},
    revision::Revision,
    runner::read_backend_fault,
};
use relapse_simulate::{
    clock::{Clock, Runtime},
    link::Link,
};
use rstest::rstest;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::support::profile;

/// Longer than any passing test here takes.
const LIMIT: Duration = Duration::from_secs(20);

const BINDING: &str = "[credential]\nliteral = \"given by the test\"\n";

/// The repaired backend in staging, on any port.
fn setup() -> StandSetup {
    StandSetup {
        listen: "127.0.0.1:0".parse().unwrap(),
        revision: Revision::repaired(),
        profile: profile("uvicorn-0.35"),
        environment: Environment::Staging,
        faults: Vec::new(),
        seed: 1,
    }
}

/// The result of checking a backend.
fn check(revision: Revision, fault: Option<&str>, binding: &str) -> Validation {
    Runtime::new(Clock::Real).block_on(async {
        let faults = fault.map(|line| read_backend_fault(line).unwrap()).into_iter().collect();
        let setup = StandSetup { revision, faults, ..setup() };
        let stand = Stand::bind(setup).await.unwrap();
        let (address, token) = (stand.address().unwrap(), stand.token("user-1"));
        let binding = ServiceFile::parse("relapse.toml", binding).unwrap();
        let upstream = format!("ws://{address}").parse().unwrap();
        let mut server = External::new(Url::new(upstream, &binding, token, 100, Duration::ZERO), Front::Unknown);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let checked = async {
            let validation =
                validate(&mut server, &binding, &[], Duration::from_secs(3), Deadline::NEVER).await.unwrap();
            stop.send(()).unwrap();
            validation
        };
        let running = stand.run(Arc::new(|_| {}), async { drop(stopped.await) });
        let (validation, ran) = timeout(LIMIT, async { tokio::join!(checked, running) }).await.expect("it hangs");
        ran.unwrap();
        validation
    })
}

/// Each row of the check has been seen to fail.
#[rstest]
#[case::repaired(None, None, BINDING, &[])]
#[case::crash(Some("handler_is_a_function"), None, BINDING, &["one request"])]
#[case::no_health(None, Some("hang dependency=agent_supervisor"), BINDING, &["GET /health", "upgrade with no credential", "upgrade with a bad credential", "upgrade with a valid credential"])]
#[case::another_path(None, None, "[paths]\nwebsocket = \"/nowhere\"\n[credential]\nliteral = \"x\"\n", &["upgrade with no credential", "upgrade with a bad credential", "upgrade with a valid credential", "/health and the handshake"])]
#[case::no_credential_is_named(None, None, "", &["upgrade", "/health and the handshake"])]
#[case::other_events(None, None, "[credential]\nliteral = \"x\"\n[messages]\nevents = [\"agent_started\", \"agent_completed\", \"agent_thinking\"]\n", &["one request"])]
#[case::no_greeting(None, None, "[credential]\nliteral = \"x\"\n[messages]\nwelcome = \"\"\n", &[])]
#[case::another_greeting(None, None, "[credential]\nliteral = \"x\"\n[messages]\nwelcome = \"hello\"\n", &["one request"])]
#[case::nothing_is_said(None, None, "[credential]\nliteral = \"x\"\n[messages]\nwelcome = \"\"\nrequest = \"\"\nevents = []\n", &[])]
#[case::refused_after_the_accept(Some("auth_after_accept"), None, BINDING, &["upgrade with no credential", "upgrade with a bad credential"])]
#[case::everybody_enters(Some("relaxed_authentication"), None, BINDING, &["upgrade with no credential", "upgrade with a bad credential"])]
fn a_deployment_is_looked_at(
    #[case] defect: Option<&str>,
    #[case] fault: Option<&str>,
    #[case] binding: &str,
    #[case] failing: &[&str],
) {
    let named = |name: &str| Defect::ALL.iter().copied().find(|defect| defect.name() == name).unwrap();
    let validation = check(Revision::of(defect.map(named)), fault, binding);
    let found: Vec<&str> = validation.rows.iter().filter(|row| !row.passes).map(|row| row.tried.as_str()).collect();
    assert_eq!(found, failing, "{validation:#?}");
    assert_eq!(validation.passes, failing.is_empty());
    assert_eq!(validation.server, "uvicorn");
    let like = "like uvicorn-0.35 or uvicorn-0.54-websockets, by its Server header, and how it refuses a bad handshake";
    assert_eq!(validation.kind, like);
    let explained = validation.notes.join("\n").contains("the application itself closed with 1011 (likely)");
    assert_eq!(explained, defect == Some("handler_is_a_function"), "{:?}", validation.notes);
}

/// A connected client learns of a server's stop, in the way of that server.
#[rstest]
#[case::says_so("uvicorn-0.35", Some(1012))]
#[case::without_a_word("granian-2.8", None)]
fn clients_are_told_when_it_stops(#[case] server: &str, #[case] expected: Option<u16>) {
    Runtime::new(Clock::Real).block_on(async {
        let setup = StandSetup { profile: profile(server), ..setup() };
        let stand = Stand::bind(setup).await.unwrap();
        let address = stand.address().unwrap();
        let url = format!("ws://{address}/ws?token={}", stand.token("user-1"));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let client = async {
            let link = Link::connect(address, Clock::Real).await.unwrap();
            let (mut socket, _) = tokio_tungstenite::client_async(url, link).await.unwrap();
            assert!(socket.next().await.unwrap().unwrap().is_text());
            stop.send(()).unwrap();
            match socket.next().await {
                Some(Ok(Message::Close(Some(frame)))) => Some(u16::from(frame.code)),
                _ => None,
            }
        };
        let running = stand.run(Arc::new(|_| {}), async { drop(stopped.await) });
        let (code, ran) = timeout(LIMIT, async { tokio::join!(client, running) }).await.expect("it hangs");
        ran.unwrap();
        assert_eq!(code, expected);
    });
}

/// A command that stands until it is told to stop.
struct Standing {
    child: Child,
    /// Its first output, up to a line that says how to go on.
    first: Vec<String>,
}

impl Standing {
    fn start(arguments: &[&str]) -> Standing {
        let mut command = crate::support::relapse_command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.args(arguments).spawn().unwrap();
        let mut standing = Standing { child, first: Vec::new() };
        standing.read_until("Ctrl-C stops");
        standing
    }

    /// Reads a line at a time, up to one with this in it: what comes later is read when it stops.
    fn read_until(&mut self, text: &str) {
        let output = self.child.stdout.as_mut().unwrap();
        while !self.first.last().is_some_and(|line: &String| line.contains(text)) {
            let mut line = Vec::new();
            let mut byte = [0];
            while byte != *b"\n" {
                output.read_exact(&mut byte).expect("it goes on");
                line.push(byte[0]);
            }
            self.first.push(String::from_utf8(line).unwrap().trim_end().to_owned());
        }
    }

    /// Kills it; every problem that it had.
    fn errors(mut self) -> String {
        self.child.kill().unwrap();
        let mut errors = String::new();
        self.child.stderr.as_mut().unwrap().read_to_string(&mut errors).unwrap();
        errors
    }

    fn address(&self) -> String {
        let word = self.first[0].split(' ').next().unwrap();
        word.trim_start_matches("http://").to_owned()
    }

    /// Interrupts it; its exit code, and everything it printed.
    fn stop(mut self) -> (Option<i32>, String) {
        let interrupted = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(interrupted.success());
        let mut rest = String::new();
        self.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), format!("{}\n{rest}", self.first.join("\n")))
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        // Ends the process of a failed test.
        let _ = self.child.kill();
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut seen = String::new();
    stream.read_to_string(&mut seen).unwrap();
    seen
}

/// `serve` behind `proxy`, as an engineer starts them, until Ctrl-C.
#[test]
fn two_commands_stand_until_they_are_interrupted() {
    let served = Standing::start(&["serve", "--defect", "metrics_lack_attribute"]);
    let upstream = format!("http://{}", served.address());
    assert!(served.first[0].contains("metrics_lack_attribute behind uvicorn-0.35 in staging"), "{:?}", served.first);
    assert!(served.first.iter().any(|line| line.trim_start().starts_with("TOKEN=ey")), "{:?}", served.first);
    let fault = "set_answer_header header=X-Edge value=here";
    let mut proxied = Standing::start(&["proxy", "--upstream", &upstream, "--lb", "alb", "--fault", fault]);
    assert!(
        proxied.first.iter().any(|line| line == "  fault 8: edge: set X-Edge of the answer to \"here\""),
        "{:?}",
        proxied.first
    );
    let seen = get(&proxied.address(), "/health?token=secret");
    assert!(seen.starts_with("HTTP/1.1 200") && seen.contains("X-Edge: here"), "{seen}");
    // A proxy that stops before it has seen the end cuts it off.
    proxied.read_until("closed by");
    let (code, log) = proxied.stop();
    assert_eq!(code, Some(0), "{log}");
    for part in
        ["--> GET /health?token=…", "<-- 200", "1 connection(s), 0 refused, 0 cut off now", "fault 1 never acted"]
    {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!log.contains("secret"), "{log}");
    let (code, log) = served.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("--> GET /health") && log.ends_with("stopped\n"), "{log}");
}

/// The token of the control address is printed once, and a client with it controls the proxy.
#[rstest]
#[case::lines("human")]
#[case::document("json")]
fn a_proxy_prints_the_token_of_its_control(#[case] format: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relapse"));
    command.args(["proxy", "--upstream", "http://127.0.0.1:1", "--format", format]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut standing = Standing { child: command.spawn().unwrap(), first: Vec::new() };
    standing.read_until(if format == "json" { "\"controlled\"" } else { "Ctrl-C stops" });
    let printed = standing.first.join("\n");
    let between = |before: &str, after: &str| {
        let rest = printed.split_once(before).unwrap_or_else(|| panic!("{before}: {printed}")).1;
        rest.split_once(after).unwrap().0.to_owned()
    };
    let (token, address) = match format {
        "json" => (between("\"token\":\"", "\""), between("\"control\":\"", "\"")),
        _ => (between("TOKEN=", " "), between("$TOKEN\" http://", "/")),
    };
    for (token, status) in [(token.as_str(), "HTTP/1.1 200"), ("x", "HTTP/1.1 401")] {
        let mut stream = TcpStream::connect(&address).unwrap();
        let head = format!("GET /faults HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n");
        write!(stream, "{head}connection: close\r\n\r\n").unwrap();
        let mut seen = String::new();
        stream.read_to_string(&mut seen).unwrap();
        assert!(seen.starts_with(status), "{seen}");
    }
}

/// Commands typed at a standing proxy are obeyed, and invalid ones are answered with an error.
#[test]
fn a_proxy_takes_orders() {
    let mut proxied = Standing::start(&["proxy", "--upstream", "http://127.0.0.1:1"]);
    let orders = "add cut after_bytes=7\nadd cut\nremove 1\nremove 1\nadd pass\npause\nresum\nlist\nhelp\n";
    proxied.child.stdin.take().unwrap().write_all(orders.as_bytes()).unwrap();
    // The last line of the last answer.
    proxied.read_until("  help ");
    let done = proxied.first.join("\n");
    for part in ["fault 1: edge: ", "fault 1 is gone", "fault 2: edge: ", "  paused", "(0 times)"] {
        assert!(done.contains(part), "{part}: {done}");
    }
    assert!(!done.split("  paused").nth(1).unwrap().contains("fault 1:"), "{done}");
    let errors = proxied.errors();
    for part in ["`cut` needs `after_bytes`", "there is no fault \"1\"", "`resum` is no order: did you mean `resume`?"]
    {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}

/// The same cases, faults and checks on two external servers: a bug in the one before and not in the one after, cases
/// that cannot be translated for them, and cases accepted on both.
#[test]
fn cases_run_on_servers_that_are_not_ours() {
    let before = Standing::start(&["serve", "--defect", "query_params_on_url"]);
    let after = Standing::start(&["serve"]);
    let line = after.first.iter().find(|line| line.contains("TOKEN=")).unwrap();
    let token = line.split_once("TOKEN=").unwrap().1.split(' ').next().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let binding = directory.path().join("relapse.toml");
    std::fs::write(&binding, "[credential]\nenv = \"RELAPSE_TEST_TOKEN\"\n").unwrap();
    let run = |arguments: &[&str]| {
        let output = crate::support::relapse_command()
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["run", "--format", "json", "--service-file", binding.to_str().unwrap()])
            .args(arguments)
            .env("RELAPSE_TEST_TOKEN", token)
            .output()
            .unwrap();
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let verdicts =
            document["cases"].as_array().into_iter().flatten().map(|trial| {
                (trial["case"].as_str().unwrap().to_owned(), trial["verdict"].as_str().unwrap().to_owned())
            });
        (output.status.code(), verdicts.collect::<std::collections::BTreeMap<_, _>>())
    };
    let cases =
        ["auth/s508_07_no_credential", "upgrade/sr1_*", "process/sr9_startup_fails", "auth/s508_08_invalid_token"];
    let (old, new) = (format!("http://{}", before.address()), format!("http://{}", after.address()));
    let (code, verdicts) = run(&[&["--before", &old, "--after", &new], &cases[..]].concat());
    assert_eq!(verdicts["auth/s508_07_no_credential"], "fixed", "{verdicts:?}");
    assert_eq!(verdicts["auth/s508_08_invalid_token"], "fixed", "{verdicts:?}");
    assert_eq!(verdicts["process/sr9_startup_fails"], "inconclusive", "{verdicts:?}");
    assert_eq!(verdicts["upgrade/sr1_no_offer"], "not-reproduced", "{verdicts:?}");
    assert_eq!(code, Some(1));
    let (code, verdicts) = run(&["--target", &old, cases[0]]);
    assert_eq!((code, verdicts[cases[0]].as_str()), (Some(1), "failed"));
    let (code, verdicts) = run(&["--target", &new, cases[0], cases[2]]);
    assert_eq!((code, verdicts[cases[0]].as_str()), (Some(0), "passed"));
    // A failure of another kind is not the one that was reported.
    let other = Standing::start(&["serve", "--defect", "auth_after_accept"]);
    let (code, verdicts) = run(&["--before", &format!("http://{}", other.address()), "--after", &new, cases[0]]);
    assert_eq!((code, verdicts[cases[0]].as_str()), (Some(1), "not-reproduced"));
    // Nothing that could be said is no pass.
    assert_eq!(run(&["--target", &new, cases[2]]).0, Some(2));
    // And a budget is kept.
    let (code, verdicts) = run(&["--target", &new, "--max-requests", "1", cases[0]]);
    assert_eq!((code, verdicts[cases[0]].as_str()), (Some(2), "inconclusive"));
}

/// A service file that `init` wrote is one that `validate` passes with.
#[rstest]
#[case::refuses_at_the_handshake(&["serve"])]
#[case::refuses_after_the_accept(&["serve", "--defect", "auth_after_accept"])]
fn a_server_is_made_acquainted_with(#[case] serve: &[&str]) {
    let served = Standing::start(serve);
    let line = served.first.iter().find(|line| line.contains("TOKEN=")).unwrap();
    let token = line.split_once("TOKEN=").unwrap().1.split(' ').next().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let target = format!("http://{}", served.address());
    let relapse = |command: &str, more: &[&str]| {
        let mut relapse = crate::support::relapse_command();
        relapse.current_dir(directory.path()).args([command, "--target", &target]).args(more);
        relapse.env("RELAPSE_TEST_TOKEN", token).output().unwrap()
    };
    // Without a token nothing opens, and the file says what to do.
    let output = relapse("init", &[]);
    assert_eq!(output.status.code(), Some(1));
    let written = std::fs::read_to_string(directory.path().join("relapse.toml")).unwrap();
    assert!(written.contains("--token-env or --token-command names one"), "{written}");
    // As long as nothing is known of them, it says nothing of place and messages.
    for part in ["# place = ", "# invalid = ", "# welcome = ", "# request = ", "# events = "] {
        assert!(written.contains(&format!("\n{part}")), "{part}: {written}");
    }
    let file = ServiceFile::parse("relapse.toml", &written).unwrap();
    assert_eq!((file.messages.welcome, file.messages.request, file.messages.events), (None, None, Vec::new()));
    // An existing file is not overwritten.
    assert_eq!(relapse("init", &["--token-env", "RELAPSE_TEST_TOKEN"]).status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(directory.path().join("relapse.toml")).unwrap(), written);
    let output = relapse("init", &["--token-env", "RELAPSE_TEST_TOKEN", "--force"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let written = std::fs::read_to_string(directory.path().join("relapse.toml")).unwrap();
    for part in
        ["websocket = \"/ws\"", "env = \"RELAPSE_TEST_TOKEN\"", "\"connection_established\"", "\"agent_started\""]
    {
        assert!(written.contains(part), "{part}: {written}");
    }
    let validated = relapse("validate", &["--format", "json"]);
    let passes: serde_json::Value = serde_json::from_slice(&validated.stdout).unwrap();
    assert_eq!(passes["passes"], serve.len() == 1, "{passes:#}");
}

/// A hunt on an external server finds an error on the wire, explains it, and keeps a reproducer that runs on any
/// server; on a healthy server it finds nothing.
#[test]
fn servers_that_are_not_ours_are_hunted_on() {
    let (broken, repaired) = (
        Standing::start(&["serve", "--profile", "daphne-4.2", "--defect", "query_params_on_url"]),
        Standing::start(&["serve"]),
    );
    let line = repaired.first.iter().find(|line| line.contains("TOKEN=")).unwrap();
    let token = line.split_once("TOKEN=").unwrap().1.split(' ').next().unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("relapse.toml"), "[credential]\nenv = \"RELAPSE_TEST_TOKEN\"\n").unwrap();
    let relapse = |arguments: &[&str]| {
        let mut relapse = crate::support::relapse_command();
        relapse.current_dir(directory.path()).args(arguments).env("RELAPSE_TEST_TOKEN", token);
        let output = relapse.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (at_broken, at_repaired) = (format!("http://{}", broken.address()), format!("http://{}", repaired.address()));
    let (code, found) = relapse(&["hunt", "--target", &at_broken, "--cases", "8"]);
    assert_eq!(code, Some(1), "{found}");
    for part in ["no_server_error: 500", "an exception left the application before it accepted", "(like daphne-4.2, by"]
    {
        assert!(found.contains(part), "{part}: {found}");
    }
    let again = found.lines().find_map(|line| line.strip_prefix("reproduce: relapse ")).unwrap();
    let again: Vec<&str> = again.split(' ').collect();
    let (code, said) = relapse(&again);
    assert!(code == Some(1) && said.contains("FAILED reproducers/"), "{said}");
    let (code, said) = relapse(&["run", again[1], "--before", &at_broken, "--after", &at_repaired]);
    assert!(code == Some(0) && said.contains("FIXED"), "{said}");
    let (code, said) = relapse(&["hunt", "--target", &at_repaired, "--cases", "16"]);
    assert!(code == Some(0) && said.contains("16 case(s), 0 finding(s)"), "{said}");
    // Half of what may be asked is for looking again at what was found.
    let (code, said) = relapse(&["hunt", "--target", &at_broken, "--cases", "50", "--max-requests", "12"]);
    assert!(code == Some(1) && said.contains("finding(s)") && !said.contains("50 case(s)"), "{said}");
}

/// Invalid arguments are refused at once, with the nearest right name.
#[rstest]
#[case(&["proxy", "--upstream", "127.0.0.1:1"], "no scheme")]
#[case(&["proxy", "--upstream", "http://127.0.0.1:1", "--lb", "gcp-http"], "did you mean `gcp-https`?")]
#[case(&["proxy", "--upstream", "http://127.0.0.1:1", "--fault", "cut after_byte=1"], "`cut` needs `after_bytes`")]
#[case(&["proxy", "--upstream", "http://127.0.0.1:1", "--control", "0.0.0.0:0"], "--control must be an address of this machine")]
#[case(&["serve", "--defect", "metrics_lack_atribute"], "did you mean `metrics_lack_attribute`?")]
#[case(&["serve", "--report", "9999"], "select any case with `9999`")]
#[case(&["serve", "--listen", "192.0.2.1:1", "--allow-remote-clients"], "listen on 192.0.2.1:1")]
#[case(&["serve", "--listen", "0.0.0.0:0"], "reach 0.0.0.0:0: `--allow-remote-clients` lets them in")]
#[case(&["proxy", "--upstream", "http://127.0.0.1:1", "--listen", "[::]:0"], "reach [::]:0: `--allow-remote-clients`")]
#[case(&["proxy", "--upstream", "http://example.org"], "--allow-host example.org")]
#[case(&["validate", "--target", "wss://example.org"], "--allow-host example.org")]
#[case(&["validate", "--target", "ws://127.0.0.1:1", "--service-file", "no/such.toml"], "read no/such.toml")]
#[case(&["init", "--target", "ws://127.0.0.1:1", "--service-file", "no/such.toml"], "connect to 127.0.0.1:1")]
#[case(&["hunt", "--target", "ws://example.org"], "--allow-host example.org")]
#[case(&["hunt", "--target", "backen"], "no scheme")]
#[case(&["hunt", "--target", "ws://127.0.0.1:1", "--faults", "scope"], "at the edge one can")]
#[case(&["hunt", "--hostile"], "--target asgi:module:app")]
#[case(&["hunt", "--target", "ws://127.0.0.1:1", "--profile", "daphne-4.2"], "a server of yours is what it is")]
#[case(&["run", "--dir", "."], "no Python application to load with --dir .")]
#[case(&["run", "--target", "ws://127.0.0.1:1", "--factory"], "no Python application to load with --factory")]
#[case(&["init", "--target", "ws://example.org"], "--allow-host example.org")]
#[case(&["init", "--target", "ws://127.0.0.1:1", "--path", "/chat"], "write it as in `ws:/path`")]
#[case(&["init", "--target", "ws://127.0.0.1:1", "--dir", "."], "no Python application to load with --dir .")]
#[case(&["validate", "--target", "ws://127.0.0.1:1", "--server", "uvicorn"], "no Python application to load with --server uvicorn")]
#[case(&["validate", "--target", "ws://127.0.0.1:1", "--profile", "daphne-4.2"], "a server of yours is what it is")]
#[case(&["run", "--target", "ws://127.0.0.1:1", "--profile", "daphne-4.2"], "a server of yours is what it is")]
#[case(&["validate", "--target", "asgi:service"], "write it as in `asgi:package.module:app`")]
#[case(&["validate", "--target", "asgi:service:app", "--wait", "1s"], "--server runs it behind a real server")]
#[case(&["validate", "--target", "asgi:service:app", "--watch"], "--server runs it behind a real server")]
#[case(&["validate", "--target", "asgi:service:app", "--allow-host", "here"], "a Python application runs on this machine")]
#[case(&["hunt", "--target", "asgi:service:app", "--allow-host", "here"], "a Python application runs on this machine")]
#[case(&["init", "--target", "asgi:service:app", "--server", "uvicorn", "--profile", "daphne-4.2"], "--server runs a real server")]
#[case(&["init", "--target", "asgi:service:app", "--token-env", "RELAPSE_NO_TOKEN"], "the variable RELAPSE_NO_TOKEN is not set")]
#[case(&["init", "--target", "asgi:service:app", "--dir", "no/such"], "the directory no/such is not there")]
#[case(&["validate", "--target", "asgi:service:app", "--profile", "uvicorn-0.45"], "did you mean `uvicorn-0.54`?")]
fn misuse_is_told(#[case] arguments: &[&str], #[case] message: &str) {
    let output = crate::support::relapse_command().args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(message), "{said}");
    assert_eq!(output.status.code(), Some(2));
}

/// An absent server is a failure of the deployment, not of the harness.
#[test]
fn a_deployment_that_is_not_there_fails() {
    let arguments = ["validate", "--target", "ws://127.0.0.1:1", "--wait", "1ms", "--format", "json"];
    let output = crate::support::relapse_command().args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["rows"][0]["got"], "refused");
}
