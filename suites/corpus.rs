//! The corpus: its services are whole, a few mistakes are found by the command, and the command says what it could not do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use relapse::corpus::{Corpus, CorpusVersion};
use serde_json::Value;
use tempfile::TempDir;

use crate::{replays::in_a_shell, support::relapse_command};

/// How many services there are at least.
const SERVICES_MIN: usize = 60;

/// The services that are hunted on here, which are found soon.
const SOON: [&str; 5] = [
    "fastapi_auth_header_unpack",
    "fastapi_upload_no_extension",
    "fastapi_ws_bad_json",
    "fastapi_ws_binary_frame",
    "raw_gate_scope_method",
];

/// How many cases each version has.
const CASES: &str = "150";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/corpus")
}

/// The command on a corpus, from its root.
fn hunt(corpus: &Path, arguments: &[&str]) -> Output {
    let mut command = relapse_command();
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["hunt", "--corpus"]).arg(corpus).args(arguments);
    command.output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8(text.clone()).unwrap()).into()
}

fn document(output: &Output) -> Value {
    let (stdout, stderr) = texts(output);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"))
}

/// The service with this name in a document.
fn service<'d>(document: &'d Value, name: &str) -> &'d Value {
    let found = document["services"].as_array().unwrap().iter().find(|service| service["service"] == name);
    found.unwrap_or_else(|| panic!("{name}: {document:#}"))
}

#[test]
fn every_service_is_whole() {
    let corpus = Corpus::read(&directory(), &[]).unwrap();
    assert!(corpus.broken.is_empty(), "{:?}", corpus.broken);
    assert!(corpus.services.len() >= SERVICES_MIN, "{}", corpus.services.len());
    let mut used = BTreeSet::new();
    for service in &corpus.services {
        let name = &service.name;
        assert!(service.source.starts_with("https://"), "{name}");
        assert!([&service.mistake, &service.trigger].iter().all(|text| text.ends_with('.')), "{name}");
        let [mistaken, repaired] = CorpusVersion::ALL.map(|version| fs::read_to_string(service.file(version)).unwrap());
        assert_ne!(mistaken, repaired, "{name}");
        assert!([&mistaken, &repaired].iter().all(|text| text.starts_with("\"\"\"")), "{name} does not say what it is");
        let own = service.finding.function.iter().filter(|function| !function.contains(':'));
        own.for_each(|function| assert!(mistaken.contains(&format!("def {function}(")), "{name} has no {function}"));
        used.extend(service.requirements.clone());
    }
    let sets = relapse::discover::requirements().map(|(set, _)| set).filter(|set| set.starts_with("corpus/"));
    assert_eq!(used, sets.map(str::to_owned).collect(), "a requirement set that no service uses");
}

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn mistakes_are_found_and_their_repairs_are_clean() {
    let output = hunt(&directory(), &[&SOON[..], &["--cases", CASES, "--jobs", "2", "--format", "json"]].concat());
    let document = document(&output);
    for name in SOON {
        let service = service(&document, name);
        assert_eq!(service["result"], "found", "{service:#}");
        assert_eq!(service["false_findings"], Value::Array(Vec::new()), "{service:#}");
    }
    assert_eq!(output.status.code(), Some(0), "{}", texts(&output).1);
}

/// An app that does this where a client posts.
fn app(with: &str) -> String {
    format!(
        "
async def order(receive):
    {with}

async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        for step in ('startup', 'shutdown'):
            await receive()
            await send({{'type': f'lifespan.{{step}}.complete'}})
    elif scope['type'] == 'http':
        if (scope['method'], scope['path']) == ('POST', '/'):
            await order(receive)
        await send({{'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'2')]}})
        await send({{'type': 'http.response.body', 'body': b'ok'}})
    elif (await receive())['type'] == 'websocket.connect':
        await send({{'type': 'websocket.close', 'code': 1000}})
"
    )
}

const FAILS: &str = "{}['total']";
const WORKS: &str = "await receive()";

/// A corpus with one folder of this name, whose mistake shows as this symptom.
fn put(corpus: &Path, name: &str, symptom: &str, [mistaken, repaired]: [&str; 2]) {
    let directory = corpus.join(name);
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("app.py"), app(mistaken)).unwrap();
    fs::write(directory.join("fixed.py"), app(repaired)).unwrap();
    let mistake = format!(
        "mistake = \"It fails.\"\nsource = \"https://example.com/1\"\ntrigger = \"A client posts.\"\n\n[finding]\n\
         route = \"POST /\"\nsymptom = \"{symptom}\"\nfunction = \"order\"\n"
    );
    fs::write(directory.join("mistake.toml"), mistake).unwrap();
}

/// A corpus in which one mistake is found and one is not, and one repair repairs nothing.
fn corpus() -> TempDir {
    let corpus = tempfile::tempdir().unwrap();
    put(corpus.path(), "a_right", "KeyError", [FAILS, WORKS]);
    put(corpus.path(), "b_missed", "TypeError", [FAILS, WORKS]);
    put(corpus.path(), "c_false", "KeyError", [FAILS, FAILS]);
    corpus
}

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_corpus_is_told_as_found_missed_and_false() {
    let corpus = corpus();
    let all = ["--cases", "40", "--jobs", "2", "--format", "json"];
    let output = hunt(corpus.path(), &all);
    let told = document(&output);
    assert_eq!(output.status.code(), Some(1), "{told:#}");
    let results = ["a_right", "b_missed", "c_false"].map(|name| {
        let service = service(&told, name);
        let count = |key: &str| service[key].as_array().unwrap().len();
        (service["result"].as_str().unwrap(), count("others"), count("false_findings"))
    });
    assert_eq!(results, [("found", 0, 0), ("missed", 1, 0), ("found", 0, 1)], "{told:#}");
    assert_eq!(told["summary"], serde_json::json!({ "found": 2, "of": 3, "false_findings": 1 }));
    // Whatever else runs at the same time, the same is found.
    let again = document(&hunt(corpus.path(), &["--cases", "40", "--format", "json"]));
    let findings = |told: &Value| {
        let services = told["services"].as_array().unwrap().iter();
        services.map(|service| (service["found"]["finding"].clone(), service["others"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(findings(&again), findings(&told));
    // The command for a false finding shows it.
    let line = service(&told, "c_false")["false_findings"][0]["reproduce"].as_str().unwrap().to_owned();
    let (code, printed) = in_a_shell(corpus.path(), &line);
    assert!(code == Some(1) && printed.contains("KeyError in order"), "{line}\n{printed}");
}

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_table_and_exit_codes_say_the_same() {
    let corpus = corpus();
    let cases = [
        ("a_*", 0, "found 1 of 1, 0 false findings on the fixes"),
        ("b_missed", 1, "found 0 of 1, 0 false findings on the fixes"),
        ("c_false", 1, "found 1 of 1, 1 false findings on the fixes"),
    ];
    for (name, code, summary) in cases {
        let output = hunt(corpus.path(), &[name, "--cases", "40"]);
        let (stdout, stderr) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
        assert_eq!(stdout.trim_end().lines().last(), Some(summary), "{stdout}{stderr}");
        assert_eq!(stdout.contains("\nfalse findings on the fixes: 1\n"), name == "c_false", "{stdout}");
        assert_eq!(stdout.contains("\nother findings"), name == "b_missed", "{stdout}");
    }
}

/// A mistake of a library stands in the file of the service, and is no false finding.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_known_finding_on_a_fix_is_not_false() {
    let corpus = tempfile::tempdir().unwrap();
    put(corpus.path(), "a_known", "KeyError", [FAILS, FAILS]);
    let file = corpus.path().join("a_known/mistake.toml");
    let known = "[[known]]\nkey = \"no_server_error\"\nreason = \"Library 1.0 fails here.\"\n";
    fs::write(&file, format!("{}\n{known}", fs::read_to_string(&file).unwrap())).unwrap();
    let output = hunt(corpus.path(), &["--cases", "40", "--format", "json"]);
    let told = document(&output);
    let service = service(&told, "a_known");
    let count = |key: &str| service[key].as_array().unwrap().len();
    assert_eq!((count("false_findings"), count("known_findings")), (0, 1), "{told:#}");
    assert_eq!(output.status.code(), Some(0), "{told:#}");
}

/// Whatever cannot be hunted on is told with its place, and the rest is hunted on.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_cannot_be_tried_is_told_with_its_place() {
    let corpus = tempfile::tempdir().unwrap();
    put(corpus.path(), "a_right", "KeyError", [FAILS, WORKS]);
    for name in ["b_no_start", "c_no_set", "d_no_fix", "e_no_symptom"] {
        put(corpus.path(), name, if name == "e_no_symptom" { "flood" } else { "KeyError" }, [FAILS, WORKS]);
    }
    fs::create_dir(corpus.path().join("f_empty")).unwrap();
    fs::write(corpus.path().join("b_no_start/fixed.py"), "import no_such_module\n").unwrap();
    fs::remove_file(corpus.path().join("d_no_fix/fixed.py")).unwrap();
    let mistake = corpus.path().join("c_no_set/mistake.toml");
    let text = format!("requirements = \"fastapy\"\n{}", fs::read_to_string(&mistake).unwrap());
    fs::write(&mistake, text).unwrap();
    let output = hunt(corpus.path(), &["--cases", "40", "nothing_*", "*"]);
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{stdout}{stderr}");
    let places = [
        "b_no_start/fixed.py: could not run the application",
        "c_no_set/mistake.toml:1:16",
        "did you mean `fastapi`?",
        "d_no_fix/fixed.py",
        "e_no_symptom/mistake.toml:7:11",
        "f_empty/mistake.toml",
        "the service `nothing_*`",
    ];
    let lacking: Vec<&str> = places.into_iter().filter(|place| !stderr.contains(place)).collect();
    assert!(lacking.is_empty(), "{lacking:?}: {stderr}");
    assert!(stdout.ends_with("\nfound 2 of 2, 0 false findings on the fixes; 1 not tried; 5 not read\n"), "{stdout}");
}
