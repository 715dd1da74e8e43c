//! Arguments of a case for the server that the harness starts.

use relapse_core::client::step::SourceLine;

/// Arguments for a server, beside those of the harness.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerArguments {
    /// The arguments, in order.
    pub arguments: Vec<String>,
    /// Where the case file has them.
    pub line: SourceLine,
}

/// Options that a case may not give, by the reason. A name that ends in `*` stands for all that begin with it. The names
/// are those of uvicorn 0.54, hypercorn 0.18, daphne 4.2 and granian 2.8 (`--help`).
const REFUSED: [(&str, &[&str]); 9] = [
    (
        "the harness chooses where the server listens",
        &[
            "-b",
            "--bind",
            "--insecure-bind",
            "--quic-bind",
            "--host",
            "-p",
            "--port",
            "--uds*",
            "-u",
            "--unix-socket",
            "--fd",
            "-e",
            "--endpoint",
        ],
    ),
    ("the harness speaks without TLS", &["--ssl*", "--certfile", "--keyfile*", "--ca-certs"]),
    ("what the harness sees comes from one worker", &["-w", "--workers", "--daemon", "-D"]),
    ("a server that starts anew by itself cannot be judged", &["--reload*"]),
    ("the harness loads the app", &["--app-dir", "--factory", "--interface", "--working-dir"]),
    ("the harness reads the log", &["--log-config"]),
    ("`relapse run --lifespan off` says that", &["--lifespan"]),
    ("the name of the server says that, as in `--server 'uvicorn[wsproto]'`", &["--ws"]),
    ("the server would not start, or as its file says", &["-h", "--help", "--version", "-c", "--config"]),
];

/// Options that are whole names and the beginnings of refused ones.
const ALLOWED: [&str; 1] = ["--log"];

/// Why a case may not give an argument, if so. A value behind an option stands for itself.
pub(super) fn refusal(argument: &str) -> Option<&'static str> {
    let option = argument.split_once('=').map_or(argument, |(option, _)| option);
    if !option.starts_with('-') || ALLOWED.contains(&option) {
        return None;
    }
    let mut reasons = REFUSED.iter();
    reasons.find(|(_, names)| names.iter().any(|name| is_meant(name, option))).map(|(reason, _)| *reason)
}

/// Whether an option is one with this name, or with this beginning before a `*`.
fn is_meant(name: &str, option: &str) -> bool {
    match name.strip_suffix('*') {
        _ if !option.starts_with("--") => name.len() == 2 && option.starts_with(name),
        // Hypercorn and daphne take the beginning of a name for the whole (Python's argparse).
        None => name == option || (option.len() > 3 && name.starts_with(option)),
        Some(start) => option.starts_with(start) || (option.len() > 3 && start.starts_with(option)),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::refusal;

    #[rstest]
    #[case::port("--port", "where the server listens")]
    #[case::with_value("--port=8000", "where the server listens")]
    #[case::short("-b0.0.0.0:80", "where the server listens")]
    #[case::abbreviated("--bin", "where the server listens")]
    #[case::socket("--uds-permissions", "where the server listens")]
    #[case::workers("--workers", "one worker")]
    #[case::reload("--reload-dir", "starts anew")]
    #[case::reload_abbreviated("--relo", "starts anew")]
    #[case::implementation("--ws", "the name of the server")]
    #[case::lifespan("--lifespan", "--lifespan off")]
    #[case::help("-h", "would not start")]
    fn what_breaks_the_harness_is_refused(#[case] argument: &str, #[case] reason: &str) {
        assert!(refusal(argument).is_some_and(|why| why.contains(reason)), "{argument}: {:?}", refusal(argument));
    }

    #[rstest]
    fn anything_else_is_passed_on(
        #[values(
            "--ws-ping-interval",
            "1",
            "--timeout-graceful-shutdown",
            "--limit-concurrency",
            "--timeout-keep-alive",
            "--log",
            "--log-level",
            "--graceful-timeout",
            "--websocket-ping-interval",
            "--ping-interval",
            "--workers-kill-timeout",
            "--root-path",
            "--header",
            "--http",
            "--backlog",
            "-t",
            "-v"
        )]
        argument: &str,
    ) {
        assert_eq!(refusal(argument), None);
    }
}
