//! Everything hostile that the command is tried with, by name and kind. Each mode is measured from outside: how long the
//! command takes, and how much memory.

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use rstest::rstest;
use rustix::process::Signal;

use crate::tools::at_a_time;

use super::{
    alone,
    asked::{self, Content, LIMIT, Signals},
    clients::{self, Rudeness, Standing},
    peer::Talk,
    watched::Ended,
};

/// The source of hostility.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A server that the command asks.
    Server,
    /// A client of what the command lets stand.
    Client,
    /// An app, or another program, that the command starts.
    App,
    /// A file that the command reads.
    File,
    /// A signal that the command gets.
    Signal,
}

/// Something hostile.
struct Mode {
    kind: Kind,
    name: &'static str,
    attempt: Attempt,
}

/// The part of the command in a mode.
enum Attempt {
    /// It asks a server.
    Server(&'static [&'static str], Talk),
    /// It asks a server that speaks TLS, or does not.
    Tls(Talk),
    /// Clients come to what it lets stand.
    Client(Standing, Rudeness),
    /// A client of a proxy with these faults does not read what this server says.
    Reader(&'static [&'static str], Talk),
    /// It performs a case on a path of an app. Several of them share one command.
    Path(&'static str),
    /// It does something with an app, and ends with one of these codes.
    App(&'static [&'static str], &'static str, &'static [i32]),
    /// It runs a command for a token.
    Token(&'static str),
    /// It is given a file of this name.
    File(&'static [&'static str], &'static str, Content),
    /// It gets signals.
    Signal(&'static [&'static str], Signals),
}

impl Mode {
    const fn new(kind: Kind, name: &'static str, attempt: Attempt) -> Mode {
        Mode { kind, name, attempt }
    }
}

const VALIDATE: &[&str] = &["validate", "--limit", "500ms", "--time", "1s"];
const HUNT: &[&str] = &["hunt", "--cases", "2", "--max-requests", "8", "--time", "1500ms"];
const CONFORM: &[&str] = &["conform", "5.1*", "--time", "1s"];
const INIT: &[&str] = &["init", "--time", "1s"];
const VALIDATE_APP: &[&str] = &["validate", "--time", "10s"];
const VALIDATE_SERVED: &[&str] = &["validate", "--time", "10s", "--server", "uvicorn==0.54.0"];
const HUNT_SERVED: &[&str] = &["hunt", "--cases", "20", "--jobs", "4", "--time", "10s", "--server", "uvicorn==0.54.0"];
const HUNT_ON_MANY: &[&str] = &["hunt", "--cases", "520", "--jobs", "8", "--time", "10s"];
const HUNT_LONG: &[&str] = &["hunt", "--cases", "700", "--time", "10s"];
const SERVICE_FILE: &[&str] = &["validate", "--target", "http://127.0.0.1:1", "--service-file"];
const CASE: &[&str] = &["run"];
const PROFILE: &[&str] = &["run", "S449-2", "--profile"];
const BALANCER: &[&str] = &["proxy", "--upstream", "http://127.0.0.1:1", "--lb"];
const RECORDING: &[&str] = &["hunt", "--cases", "1", "--target", "asgi:app:app", "--recorded"];
const MERGED: &[&str] = &["hunt", "--merge"];
const RUN_ALL: &[&str] = &["run", "--profile", "all"];
const HUNT_BACKEND: &[&str] = &["hunt", "--cases", "1000000"];
const CONFORM_ALL: &[&str] = &["conform", "--profile", "all"];
const VALIDATE_URL: &[&str] = &["validate", "--target", "URL"];
const SERVE: &[&str] = &["serve"];
const PROXY: &[&str] = &["proxy", "--upstream", "URL"];

/// All of them.
const MODES: &[Mode] = &[
    Mode::new(Kind::Server, "chunks", Attempt::Server(VALIDATE, Talk::Chunks)),
    Mode::new(Kind::Server, "length", Attempt::Server(VALIDATE, Talk::Length)),
    Mode::new(Kind::Server, "until_end", Attempt::Server(VALIDATE, Talk::UntilEnd)),
    Mode::new(Kind::Server, "header", Attempt::Server(VALIDATE, Talk::Header)),
    Mode::new(Kind::Server, "headers", Attempt::Server(VALIDATE, Talk::Headers)),
    Mode::new(Kind::Server, "interim", Attempt::Server(VALIDATE, Talk::Interim)),
    Mode::new(Kind::Server, "chunk_size", Attempt::Server(VALIDATE, Talk::ChunkSize)),
    Mode::new(Kind::Server, "two_lengths", Attempt::Server(VALIDATE, Talk::TwoLengths)),
    Mode::new(Kind::Server, "negative_length", Attempt::Server(VALIDATE, Talk::NegativeLength)),
    Mode::new(Kind::Server, "huge_length", Attempt::Server(VALIDATE, Talk::HugeLength)),
    Mode::new(Kind::Server, "false_gzip", Attempt::Server(VALIDATE, Talk::FalseGzip)),
    Mode::new(Kind::Server, "redirects", Attempt::Server(VALIDATE, Talk::Redirects)),
    Mode::new(Kind::Server, "messages", Attempt::Server(VALIDATE, Talk::Messages)),
    Mode::new(Kind::Server, "small_messages", Attempt::Server(VALIDATE, Talk::SmallMessages)),
    Mode::new(Kind::Server, "pings", Attempt::Server(VALIDATE, Talk::Pings)),
    Mode::new(Kind::Server, "fragments", Attempt::Server(VALIDATE, Talk::Fragments)),
    Mode::new(Kind::Server, "empty_fragments", Attempt::Server(VALIDATE, Talk::EmptyFragments)),
    Mode::new(Kind::Server, "frame", Attempt::Server(VALIDATE, Talk::Frame)),
    Mode::new(Kind::Server, "masked", Attempt::Server(VALIDATE, Talk::Masked)),
    Mode::new(Kind::Server, "reserved_bits", Attempt::Server(VALIDATE, Talk::ReservedBits)),
    Mode::new(Kind::Server, "wrong_key", Attempt::Server(VALIDATE, Talk::WrongKey)),
    Mode::new(Kind::Server, "silent", Attempt::Server(VALIDATE, Talk::Silent)),
    Mode::new(Kind::Server, "reset", Attempt::Server(VALIDATE, Talk::Reset)),
    Mode::new(Kind::Server, "slow_body", Attempt::Server(VALIDATE, Talk::SlowBody)),
    Mode::new(Kind::Server, "ssh", Attempt::Server(VALIDATE, Talk::Ssh)),
    Mode::new(Kind::Server, "noise", Attempt::Server(VALIDATE, Talk::Noise)),
    Mode::new(Kind::Server, "controls", Attempt::Server(VALIDATE, Talk::Controls)),
    Mode::new(Kind::Server, "hunt_messages", Attempt::Server(HUNT, Talk::Messages)),
    Mode::new(Kind::Server, "conform_messages", Attempt::Server(CONFORM, Talk::Messages)),
    Mode::new(Kind::Server, "init_small_messages", Attempt::Server(INIT, Talk::SmallMessages)),
    Mode::new(Kind::Server, "tls_records", Attempt::Tls(Talk::TlsRecords)),
    Mode::new(Kind::Server, "tls_ssh", Attempt::Tls(Talk::Ssh)),
    Mode::new(Kind::Server, "tls_reset", Attempt::Tls(Talk::Reset)),
    Mode::new(Kind::Server, "tls_silent", Attempt::Tls(Talk::Silent)),
    Mode::new(Kind::Client, "proxy_endless_head", Attempt::Client(Standing::Proxy, Rudeness::EndlessHead)),
    Mode::new(Kind::Client, "proxy_endless_body", Attempt::Client(Standing::Proxy, Rudeness::EndlessBody)),
    Mode::new(Kind::Client, "proxy_noise", Attempt::Client(Standing::Proxy, Rudeness::Noise)),
    Mode::new(Kind::Client, "proxy_idle", Attempt::Client(Standing::Proxy, Rudeness::Idle)),
    Mode::new(Kind::Client, "proxy_hasty", Attempt::Client(Standing::Proxy, Rudeness::Hasty)),
    Mode::new(Kind::Client, "proxy_pipelined", Attempt::Client(Standing::Proxy, Rudeness::Pipelined)),
    Mode::new(Kind::Client, "proxy_messages", Attempt::Client(Standing::Proxy, Rudeness::Messages)),
    Mode::new(Kind::Client, "proxy_frame", Attempt::Client(Standing::Proxy, Rudeness::Frame)),
    Mode::new(Kind::Client, "proxy_fragments", Attempt::Client(Standing::Proxy, Rudeness::Fragments)),
    Mode::new(Kind::Client, "proxy_pings", Attempt::Client(Standing::Proxy, Rudeness::Pings)),
    Mode::new(Kind::Client, "serve_endless_head", Attempt::Client(Standing::Serve, Rudeness::EndlessHead)),
    Mode::new(Kind::Client, "serve_endless_body", Attempt::Client(Standing::Serve, Rudeness::EndlessBody)),
    Mode::new(Kind::Client, "serve_idle", Attempt::Client(Standing::Serve, Rudeness::Idle)),
    Mode::new(Kind::Client, "serve_messages", Attempt::Client(Standing::Serve, Rudeness::Messages)),
    Mode::new(Kind::Client, "serve_frame", Attempt::Client(Standing::Serve, Rudeness::Frame)),
    Mode::new(Kind::Client, "control_endless_head", Attempt::Client(Standing::Control, Rudeness::EndlessHead)),
    Mode::new(Kind::Client, "control_endless_body", Attempt::Client(Standing::Control, Rudeness::EndlessBody)),
    Mode::new(Kind::Client, "control_slow_head", Attempt::Client(Standing::Control, Rudeness::SlowHead)),
    Mode::new(Kind::Client, "control_idle", Attempt::Client(Standing::Control, Rudeness::Idle)),
    Mode::new(Kind::Client, "does_not_read_length", Attempt::Reader(&[], Talk::Length)),
    Mode::new(Kind::Client, "does_not_read_chunks", Attempt::Reader(&[], Talk::Chunks)),
    Mode::new(
        Kind::Client,
        "does_not_read_delayed",
        Attempt::Reader(&["--fault", "delay_bytes delay_ms=1"], Talk::UntilEnd),
    ),
    Mode::new(Kind::App, "endless_body", Attempt::Path("endless_body")),
    Mode::new(Kind::App, "huge_body", Attempt::Path("huge_body")),
    Mode::new(Kind::App, "log_flood", Attempt::Path("log_flood")),
    Mode::new(Kind::App, "print_flood", Attempt::Path("print_flood")),
    Mode::new(Kind::App, "huge_header", Attempt::Path("huge_header")),
    Mode::new(Kind::App, "huge_message", Attempt::Path("huge_message")),
    Mode::new(Kind::App, "long_chain", Attempt::Path("long_chain")),
    Mode::new(Kind::App, "recursion", Attempt::Path("recursion")),
    Mode::new(Kind::App, "bad_text", Attempt::Path("bad_text")),
    Mode::new(Kind::App, "controls", Attempt::Path("controls")),
    Mode::new(Kind::App, "base_exception", Attempt::Path("base_exception")),
    Mode::new(Kind::App, "no_event", Attempt::Path("no_event")),
    Mode::new(Kind::App, "round_event", Attempt::Path("round_event")),
    Mode::new(Kind::App, "deep_event", Attempt::Path("deep_event")),
    Mode::new(Kind::App, "odd_types", Attempt::Path("odd_types")),
    Mode::new(Kind::App, "tasks", Attempt::Path("tasks")),
    Mode::new(Kind::App, "threads", Attempt::Path("threads")),
    Mode::new(Kind::App, "memory", Attempt::Path("memory")),
    Mode::new(Kind::App, "forks", Attempt::Path("forks")),
    Mode::new(Kind::App, "blocks", Attempt::Path("blocks")),
    Mode::new(Kind::App, "spins", Attempt::Path("spins")),
    Mode::new(Kind::App, "stops_itself", Attempt::Path("stops_itself")),
    Mode::new(Kind::App, "exits_hard", Attempt::Path("exits_hard")),
    Mode::new(Kind::App, "stops_loop", Attempt::Path("stops_loop")),
    Mode::new(Kind::App, "cancels_all", Attempt::Path("cancels_all")),
    Mode::new(Kind::App, "stays_at_exit", Attempt::Path("stays_at_exit")),
    Mode::new(Kind::App, "ignores_signals", Attempt::Path("ignores_signals")),
    Mode::new(Kind::App, "closes_files", Attempt::Path("closes_files")),
    Mode::new(Kind::App, "patches", Attempt::Path("patches")),
    Mode::new(Kind::App, "odd_errors", Attempt::Path("odd_errors")),
    Mode::new(Kind::App, "endless_messages", Attempt::App(VALIDATE_APP, "endless_messages", &[0, 1])),
    Mode::new(Kind::App, "small_messages", Attempt::App(VALIDATE_APP, "small_messages", &[0, 1])),
    Mode::new(Kind::App, "huge_message_of_session", Attempt::App(VALIDATE_APP, "huge_message_of_session", &[1])),
    Mode::new(Kind::App, "long_messages_on_many_workers", Attempt::App(HUNT_ON_MANY, "long_messages", &[0, 1])),
    Mode::new(Kind::App, "kept_messages_on_many_workers", Attempt::App(HUNT_ON_MANY, "kept_messages", &[0, 1])),
    Mode::new(Kind::App, "others_each_time", Attempt::App(HUNT_LONG, "others_each_time", &[1])),
    Mode::new(Kind::App, "endless_messages_of_server", Attempt::App(VALIDATE_SERVED, "endless_messages", &[0, 1])),
    Mode::new(Kind::App, "small_messages_of_server", Attempt::App(VALIDATE_SERVED, "small_messages", &[0, 1])),
    Mode::new(Kind::App, "long_messages_of_server", Attempt::App(HUNT_SERVED, "long_messages", &[0, 1])),
    Mode::new(Kind::App, "import_prints_in_server", Attempt::App(VALIDATE_SERVED, "prints app", &[1, 2])),
    Mode::new(Kind::App, "never_starts", Attempt::App(VALIDATE_APP, "never_starts", &[1, 2])),
    Mode::new(Kind::App, "starts_and_blocks", Attempt::App(VALIDATE_APP, "starts_and_blocks", &[1, 2])),
    Mode::new(Kind::App, "fails_at_length", Attempt::App(VALIDATE_APP, "fails_at_length", &[1, 2])),
    Mode::new(Kind::App, "never_stops", Attempt::App(VALIDATE_APP, "never_stops", &[0, 1])),
    Mode::new(Kind::App, "import_prints", Attempt::App(VALIDATE_APP, "prints app", &[2])),
    Mode::new(Kind::App, "import_blocks", Attempt::App(VALIDATE_APP, "blocks app", &[2])),
    Mode::new(Kind::App, "import_exits", Attempt::App(VALIDATE_APP, "exits app", &[2])),
    Mode::new(Kind::App, "import_closes_files", Attempt::App(VALIDATE_APP, "closes app", &[2])),
    Mode::new(Kind::App, "token_command_prints", Attempt::Token("yes | head -c 256M; sleep 600")),
    Mode::new(Kind::App, "token_command_stays", Attempt::Token("trap : TERM HUP INT; while :; do sleep 1; done")),
    Mode::new(Kind::File, "service_file_pipe", Attempt::File(SERVICE_FILE, "file", Content::Pipe)),
    Mode::new(Kind::File, "service_file_device", Attempt::File(SERVICE_FILE, "file", Content::Device)),
    Mode::new(Kind::File, "service_file_long", Attempt::File(SERVICE_FILE, "file", Content::Long)),
    Mode::new(Kind::File, "service_file_no_text", Attempt::File(SERVICE_FILE, "file", Content::NoText)),
    Mode::new(Kind::File, "service_file_directory", Attempt::File(SERVICE_FILE, "file", Content::Directory)),
    Mode::new(Kind::File, "service_file_link_round", Attempt::File(SERVICE_FILE, "file", Content::LinkRound)),
    Mode::new(Kind::File, "service_file_deep", Attempt::File(SERVICE_FILE, "file", Content::Deep)),
    Mode::new(Kind::File, "service_file_controls", Attempt::File(SERVICE_FILE, "file", Content::Controls)),
    Mode::new(Kind::File, "case_pipe", Attempt::File(CASE, "file.toml", Content::Pipe)),
    Mode::new(Kind::File, "case_device", Attempt::File(CASE, "file.toml", Content::Device)),
    Mode::new(Kind::File, "case_long", Attempt::File(CASE, "file.toml", Content::Long)),
    Mode::new(Kind::File, "case_no_text", Attempt::File(CASE, "file.toml", Content::NoText)),
    Mode::new(Kind::File, "case_link_to_nothing", Attempt::File(CASE, "file.toml", Content::LinkToNothing)),
    Mode::new(Kind::File, "case_empty", Attempt::File(CASE, "file.toml", Content::Empty)),
    Mode::new(Kind::File, "case_zeros", Attempt::File(CASE, "file.toml", Content::Zeros)),
    Mode::new(Kind::File, "case_deep", Attempt::File(CASE, "file.toml", Content::Deep)),
    Mode::new(Kind::File, "case_keys", Attempt::File(CASE, "file.toml", Content::Keys)),
    Mode::new(Kind::File, "case_controls", Attempt::File(CASE, "file.toml", Content::Controls)),
    Mode::new(Kind::File, "profile_pipe", Attempt::File(PROFILE, "file.toml", Content::Pipe)),
    Mode::new(Kind::File, "profile_device", Attempt::File(PROFILE, "file.toml", Content::Device)),
    Mode::new(Kind::File, "profile_long", Attempt::File(PROFILE, "file.toml", Content::Long)),
    Mode::new(Kind::File, "profile_no_text", Attempt::File(PROFILE, "file.toml", Content::NoText)),
    Mode::new(Kind::File, "profile_deep", Attempt::File(PROFILE, "file.toml", Content::Deep)),
    Mode::new(Kind::File, "load_balancer_pipe", Attempt::File(BALANCER, "file.toml", Content::Pipe)),
    Mode::new(Kind::File, "load_balancer_device", Attempt::File(BALANCER, "file.toml", Content::Device)),
    Mode::new(Kind::File, "load_balancer_long", Attempt::File(BALANCER, "file.toml", Content::Long)),
    Mode::new(Kind::File, "load_balancer_no_text", Attempt::File(BALANCER, "file.toml", Content::NoText)),
    Mode::new(Kind::File, "recording_pipe", Attempt::File(RECORDING, "file.har", Content::Pipe)),
    Mode::new(Kind::File, "recording_device", Attempt::File(RECORDING, "file.har", Content::Device)),
    Mode::new(Kind::File, "recording_long", Attempt::File(RECORDING, "file.har", Content::Long)),
    Mode::new(Kind::File, "recording_no_text", Attempt::File(RECORDING, "file.har", Content::NoText)),
    Mode::new(Kind::File, "recording_deep_json", Attempt::File(RECORDING, "file.har", Content::DeepJson)),
    Mode::new(Kind::File, "recording_numbers", Attempt::File(RECORDING, "file.har", Content::Numbers)),
    Mode::new(Kind::File, "merged_pipe", Attempt::File(MERGED, "file", Content::Pipe)),
    Mode::new(Kind::File, "merged_device", Attempt::File(MERGED, "file", Content::Device)),
    Mode::new(Kind::File, "merged_long", Attempt::File(MERGED, "file", Content::Long)),
    Mode::new(Kind::File, "merged_no_text", Attempt::File(MERGED, "file", Content::NoText)),
    Mode::new(Kind::File, "merged_deep_json", Attempt::File(MERGED, "file", Content::DeepJson)),
    Mode::new(Kind::File, "merged_controls", Attempt::File(MERGED, "file", Content::Controls)),
    Mode::new(Kind::Signal, "run_terminate", Attempt::Signal(RUN_ALL, &[Signal::TERM])),
    Mode::new(Kind::Signal, "hunt_hangup", Attempt::Signal(HUNT_BACKEND, &[Signal::HUP])),
    Mode::new(Kind::Signal, "hunt_interrupt", Attempt::Signal(HUNT_BACKEND, &[Signal::INT])),
    Mode::new(Kind::Signal, "hunt_terminate", Attempt::Signal(HUNT_BACKEND, &[Signal::TERM])),
    Mode::new(Kind::Signal, "conform_interrupt", Attempt::Signal(CONFORM_ALL, &[Signal::INT])),
    Mode::new(Kind::Signal, "validate_interrupt", Attempt::Signal(VALIDATE_URL, &[Signal::INT])),
    Mode::new(Kind::Signal, "serve_hangup", Attempt::Signal(SERVE, &[Signal::HUP])),
    Mode::new(Kind::Signal, "serve_terminate", Attempt::Signal(SERVE, &[Signal::TERM])),
    Mode::new(Kind::Signal, "proxy_interrupt", Attempt::Signal(PROXY, &[Signal::INT])),
    Mode::new(
        Kind::Signal,
        "hunt_stopped_and_continued",
        Attempt::Signal(HUNT_BACKEND, &[Signal::STOP, Signal::CONT, Signal::TERM]),
    ),
    Mode::new(Kind::Signal, "hunt_twice", Attempt::Signal(HUNT_BACKEND, &[Signal::INT, Signal::TERM])),
    Mode::new(Kind::Signal, "validate_twice", Attempt::Signal(VALIDATE_URL, &[Signal::INT, Signal::TERM])),
];

/// How many modes of each kind there are at least: at least 100 in all.
const AT_LEAST: [(Kind, usize); 5] =
    [(Kind::Server, 25), (Kind::Client, 18), (Kind::App, 30), (Kind::File, 25), (Kind::Signal, 10)];

/// How many commands run at a time. They mostly wait.
const AT_A_TIME: usize = 4;

/// How many paths of an app share a command.
const PATHS: usize = 2;

impl Attempt {
    /// Makes it; how the command ended.
    fn make(&self) -> Ended {
        match self {
            Attempt::Server(command, talk) => asked::server(command, "http", *talk),
            Attempt::Tls(talk) => asked::server(VALIDATE, "https", *talk),
            Attempt::Client(standing, rudeness) => clients::attack(*standing, *rudeness),
            Attempt::Reader(faults, talk) => clients::do_not_read(faults, *talk),
            Attempt::Path(name) => asked::paths(&[name]),
            Attempt::App(command, app, codes) => asked::app(command, app, codes),
            Attempt::Token(command) => asked::token(command),
            Attempt::File(command, name, content) => asked::file(command, name, *content),
            Attempt::Signal(command, signals) => asked::signals(command, signals),
        }
    }

    /// Whether the command has an end of its own.
    fn ends(&self) -> bool {
        !matches!(self, Attempt::Client(..) | Attempt::Reader(..))
    }
}

/// Makes some attempts with one command; what was not harmless about it, with the names.
fn try_together(modes: &[&Mode]) -> Result<String, String> {
    let names = modes.iter().map(|mode| mode.name).collect::<Vec<_>>().join(", ");
    let ended = catch_unwind(|| {
        let ended = match modes {
            [mode] => mode.attempt.make(),
            several => asked::paths(&several.iter().map(|mode| mode.name).collect::<Vec<_>>()),
        };
        ended.is_harmless();
        if modes[0].attempt.ends() {
            ended.has_ended();
        }
        assert!(ended.took < LIMIT, "it took {:?}", ended.took);
        ended
    });
    match ended {
        Ok(ended) => Ok(format!("{:>4} MiB {:>6.2} s  {names}", ended.peak_mib(), ended.took.as_secs_f64())),
        Err(panic) => {
            let text = panic.downcast::<String>().map_or("no text".to_owned(), |text| *text);
            Err(format!("{names}: {}", text.chars().take(4000).collect::<String>()))
        }
    }
}

/// Tries every mode of a kind, and prints what each took.
#[expect(clippy::print_stdout, reason = "people read what each mode takes")]
fn try_all(kind: Kind) {
    let _alone = alone();
    let chosen = std::env::var("RELAPSE_TEST_MODE").ok();
    assert!(chosen.as_ref().is_none_or(|name| MODES.iter().any(|mode| mode.name == name)), "no mode is named so");
    let of_kind = MODES.iter().filter(|mode| mode.kind == kind);
    let of_kind: Vec<&Mode> = of_kind.filter(|mode| chosen.as_ref().is_none_or(|name| mode.name == name)).collect();
    let (paths, alone): (Vec<&Mode>, Vec<&Mode>) =
        of_kind.into_iter().partition(|mode| matches!(mode.attempt, Attempt::Path(_)));
    let batches: Vec<&[&Mode]> = paths.chunks(PATHS).chain(alone.chunks(1)).collect();
    let tried = at_a_time(AT_A_TIME, &batches, |batch| try_together(batch));
    tried.iter().flatten().for_each(|line| println!("{line}"));
    let harmful: Vec<&String> = tried.iter().filter_map(|tried| tried.as_ref().err()).collect();
    assert!(harmful.is_empty(), "{} of {}: {harmful:#?}", harmful.len(), tried.len());
}

#[rstest]
fn every_mode_is_harmless(#[values(Kind::Server, Kind::Client, Kind::File, Kind::Signal)] kind: Kind) {
    try_all(kind);
}

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn every_mode_of_apps_is_harmless() {
    try_all(Kind::App);
}

#[test]
fn there_are_enough_modes() {
    let mut names: BTreeMap<(Kind, &str), usize> = BTreeMap::new();
    for mode in MODES {
        *names.entry((mode.kind, mode.name)).or_default() += 1;
    }
    assert!(names.values().all(|count| *count == 1), "two modes have one name: {names:?}");
    for (kind, at_least) in AT_LEAST {
        let count = MODES.iter().filter(|mode| mode.kind == kind).count();
        assert!(count >= at_least, "{count} modes of {kind:?}, and {at_least} are needed");
    }
    let at_least: usize = AT_LEAST.iter().map(|(_, count)| count).sum();
    assert!(at_least >= 100, "{at_least}");
}
