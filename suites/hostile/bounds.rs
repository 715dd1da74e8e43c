//! Nothing that talks without end makes a command grow: servers, apps, clients, files and commands for tokens.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rstest::rstest;
use tempfile::tempdir;

use super::{
    peer::{Talk, Talker},
    watched::{Ended, Watched, looks},
};
use crate::python::python;

/// How long a command may take that is to end by itself.
const LIMIT: Duration = Duration::from_secs(60);

/// How long one is looked at that has no end of its own.
const SHORT: Duration = Duration::from_secs(2);

fn run(arguments: &[&str], directory: &Path) -> Ended {
    Watched::start(arguments, directory).end_within(LIMIT)
}

#[rstest]
#[case::chunks(Talk::Chunks)]
#[case::length(Talk::Length)]
#[case::until_end(Talk::UntilEnd)]
#[case::header(Talk::Header)]
#[case::interim(Talk::Interim)]
#[case::messages(Talk::Messages)]
#[case::small_messages(Talk::SmallMessages)]
#[case::pings(Talk::Pings)]
#[case::fragments(Talk::Fragments)]
#[case::empty_fragments(Talk::EmptyFragments)]
#[case::frame(Talk::Frame)]
fn a_server_that_talks_without_end(#[case] talk: Talk) {
    let (server, here) = (Talker::start(talk), tempdir().unwrap());
    let ended = run(&["validate", "--target", &server.url(), "--limit", "1s"], here.path());
    ended.is_harmless().has_ended();
    assert!(server.written() > 0, "the server was not asked: {ended:?}");
    assert_eq!(ended.code(), Some(1), "no such server is in order: {ended:?}");
}

#[rstest]
#[case::hunt(&["hunt", "--cases", "2", "--max-requests", "8"], Talk::Messages)]
#[case::hunt_of_bodies(&["hunt", "--cases", "2", "--max-requests", "8"], Talk::Length)]
#[case::conform(&["conform", "5.1*"], Talk::Messages)]
#[case::init(&["init"], Talk::SmallMessages)]
fn every_command_has_bounds(#[case] command: &[&str], #[case] talk: Talk) {
    let (server, here) = (Talker::start(talk), tempdir().unwrap());
    let url = server.url();
    let ended = Watched::start(&[command, &["--target", &url]].concat(), here.path()).end_within(SHORT);
    ended.is_harmless();
    assert!(server.written() > 0, "the server was not asked: {ended:?}");
}

/// Apps that talk without end: to their client, or in one message.
const APPS: &str = r#"
async def begin(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return False
    await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
    return True

async def say(scope, send, text):
    if scope["type"] == "websocket":
        await send({"type": "websocket.send", "text": text})
    else:
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

async def endless(scope, receive, send):
    while await begin(scope, receive, send):
        while True:
            await say(scope, send, "x" * 50000)

async def small(scope, receive, send):
    while await begin(scope, receive, send):
        while True:
            await say(scope, send, "x")

async def huge(scope, receive, send):
    if await begin(scope, receive, send):
        await say(scope, send, "x" * 30_000_000)
"#;

#[rstest]
#[case::endless("endless", "1s")]
#[case::small("small", "1s")]
#[case::huge("huge", "10s")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn an_app_that_talks_without_end(#[case] app: &str, #[case] blocked_limit: &str) {
    let here = tempdir().unwrap();
    fs::write(here.path().join("apps.py"), APPS).unwrap();
    fs::write(here.path().join("relapse.toml"), "[paths]\nwebsocket = \"/ws\"\nhealth = [\"/health\"]\n").unwrap();
    let python = python();
    let target = format!("asgi:apps:{app}");
    let arguments =
        ["validate", "--target", &target, "--python", python.to_str().unwrap(), "--blocked-limit", blocked_limit];
    let ended = run(&arguments, here.path());
    ended.is_harmless().has_ended();
    assert!(matches!(ended.code(), Some(0 | 1)), "the app was not looked at: {ended:?}");
    if app == "huge" {
        let said = "it sent and logged 28 MiB at once, and 20 MiB are the most that are taken";
        assert!(ended.stdout.contains(said) || ended.stderr.contains(said), "{ended:?}");
    }
}

/// A token command that prints much and does not end is ended after its limit, and little of its output is kept.
#[test]
fn a_token_command_that_talks_without_end() {
    let here = tempdir().unwrap();
    let service = "[credential]\ncommand = \"yes | head -c 256M; sleep 600\"\nplace = \"header\"\n";
    fs::write(here.path().join("relapse.toml"), service).unwrap();
    let ended = run(&["validate", "--target", "http://127.0.0.1:1"], here.path());
    ended.is_harmless().has_ended();
    assert_eq!(ended.code(), Some(2), "{ended:?}");
    assert!(ended.stderr.contains("sleep 600` printed no token within 10 s"), "{ended:?}");
}

/// A proxy holds little of what its client does not read, and goes on when the client does.
#[rstest]
#[case::no_fault(&[], Talk::Length)]
#[case::chunks(&[], Talk::Chunks)]
#[case::fault(&["--fault", "delay_bytes delay_ms=1"], Talk::UntilEnd)]
fn a_client_that_does_not_read(#[case] faults: &[&str], #[case] talk: Talk) {
    // The kernel's buffers on both sides of the proxy, and its own.
    const HELD_BYTES_MAX: u64 = 64 << 20;
    // Longer than a busy machine keeps the proxy from its work.
    const STILL: Duration = Duration::from_secs(2);
    let (server, here) = (Talker::start(talk), tempdir().unwrap());
    let url = server.url();
    let mut proxy = Watched::start(&[&["proxy", "--upstream", &url], faults].concat(), here.path());
    let line = proxy.line_with("http://127.0.0.1", LIMIT);
    let address = line.split(' ').find_map(|word| word.strip_prefix("http://")).unwrap().to_owned();
    let mut client = TcpStream::connect(&address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let (mut before, mut still) = (0, 0);
    while before == 0 || still < looks(STILL) {
        proxy.look();
        still = if server.written() == before { still + 1 } else { 0 };
        before = server.written();
        assert!(before < HELD_BYTES_MAX, "the server does not wait: {} MiB are held", before >> 20);
    }
    let mut read = vec![0; 8 << 20];
    client.read_exact(&mut read).unwrap();
    proxy.kill().is_harmless();
}

/// Every option that names a file refuses what is no regular file, and a file over the limit.
#[rstest]
#[case::service_file(&["validate", "--target", "http://127.0.0.1:1", "--service-file"], "file")]
#[case::case(&["run"], "file.toml")]
#[case::profile(&["run", "S449-2", "--profile"], "file.toml")]
#[case::load_balancer(&["proxy", "--upstream", "http://127.0.0.1:1", "--lb"], "file.toml")]
#[case::recording(&["hunt", "--cases", "1", "--target", "asgi:app:app", "--recorded"], "file.har")]
#[case::merged(&["hunt", "--merge"], "file")]
fn a_file_that_is_none(#[case] command: &[&str], #[case] name: &str) {
    let here = tempdir().unwrap();
    let file = here.path().join(name);
    let refused = |why: &str| {
        let ended = run(&[command, &[name]].concat(), here.path());
        ended.is_harmless().has_ended();
        assert_eq!(ended.code(), Some(2), "{why}: {ended:?}");
        assert!(ended.stderr.contains(why), "{why}: {ended:?}");
        fs::remove_file(&file).unwrap();
    };
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    refused("it is a pipe, and a regular file is needed");
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    refused("it is a device, and a regular file is needed");
    // A file of 300 MB that takes no room.
    fs::File::create(&file).unwrap().set_len(300_000_000).unwrap();
    refused(" MiB, and no such file is that long");
    fs::write(&file, b"[\n\xff]").unwrap();
    refused("the byte 0xff is not UTF-8 here");
}
