//! The baseline of a hunt: what a team knows does not fail, and everything else does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::python::python;

/// A raw app whose endpoints raise an exception if they are in `BROKEN`.
const APP: &str = "
def orders():
    {}['order']

def users():
    int('user')

def chat():
    None + 1

async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        return
    endpoint = {'/orders': orders, '/users': users, '/chat': chat}.get(scope['path'])
    if endpoint and endpoint.__name__ in BROKEN:
        endpoint()
    if scope['type'] == 'http':
        await send({'type': 'http.response.start', 'status': 200, 'headers': []})
        return await send({'type': 'http.response.body', 'body': b'ok'})
    await receive()
    await send({'type': 'websocket.accept'})
    while (await receive())['type'] != 'websocket.disconnect':
        pass
";

const TWO: [&str; 2] = ["orders", "users"];
const THREE: [&str; 3] = ["chat", "orders", "users"];

/// A directory with a baseline and an app, on which hunts go.
struct Team {
    directory: tempfile::TempDir,
}

impl Team {
    fn new() -> Team {
        Team { directory: tempfile::tempdir().unwrap() }
    }

    fn here(&self) -> &Path {
        self.directory.path()
    }

    fn baseline(&self) -> String {
        fs::read_to_string(self.here().join("known.toml")).unwrap()
    }

    /// Hunts on the app with these broken endpoints: the exit code, standard output and standard error.
    fn hunt(&self, broken: &[&str], options: &[&str]) -> (Option<i32>, String, String) {
        self.hunt_on(APP, broken, options)
    }

    fn hunt_on(&self, app: &str, broken: &[&str], options: &[&str]) -> (Option<i32>, String, String) {
        fs::write(self.here().join("service.py"), format!("BROKEN = {broken:?}\n{app}")).unwrap();
        let python = python();
        let hunt = ["hunt", "--target", "asgi:service:app", "--python", python.to_str().unwrap(), "--jobs", "1"];
        let paths = ["GET /orders", "GET /users", "GET /health", "ws:/chat"].map(|path| ["--path", path]).concat();
        let length = ["--faults", "edge", "--cases", "40"];
        let mut command = crate::support::relapse_command();
        let output =
            command.current_dir(self.here()).args(hunt).args(paths).args(length).args(options).output().unwrap();
        let [told, said] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code(), told, said)
    }

    /// The same as a document.
    fn document(&self, broken: &[&str], options: &[&str]) -> (Option<i32>, Value) {
        let (code, told, said) = self.hunt(broken, &[options, &["--format", "json"]].concat());
        (code, serde_json::from_str(&told).unwrap_or_else(|why| panic!("{why}: {said}")))
    }
}

const KNOWN: [&str; 2] = ["--baseline", "known.toml"];
const UPDATED: [&str; 3] = ["--baseline", "known.toml", "--update-baseline"];
const PRUNED: [&str; 3] = ["--baseline", "known.toml", "--prune-baseline"];

/// The functions behind the findings that are in the baseline, or are not.
fn functions(document: &Value, is_known: bool) -> Vec<&'static str> {
    let found = document["found"].as_array().unwrap().iter();
    let of = found.filter(|found| found["baseline"] == is_known).map(|found| {
        let text = found.to_string();
        THREE.into_iter().find(|name| text.contains(&format!(" in {name}"))).unwrap_or_else(|| panic!("{text}"))
    });
    let of: BTreeSet<&str> = of.collect();
    of.into_iter().collect()
}

/// The functions behind keys.
fn named(keys: &Value) -> Vec<&'static str> {
    let keys = keys.as_array().unwrap().iter().map(|key| key.as_str().unwrap());
    let of = keys.map(|key| THREE.into_iter().find(|name| key.contains(&format!(" in {name}"))).unwrap());
    let of: BTreeSet<&str> = of.collect();
    of.into_iter().collect()
}

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn known_findings_do_not_fail_and_new_ones_do() {
    let team = Team::new();
    let (code, first) = team.document(&TWO, &UPDATED);
    assert_eq!((code, functions(&first, true), functions(&first, false)), (Some(0), TWO.to_vec(), vec![]), "{first:#}");
    assert_eq!(named(&first["baseline"]["added"]), TWO);
    let written = team.baseline();
    assert_eq!(written.matches("[[finding]]").count(), 2, "{written}");

    let (code, second) = team.document(&TWO, &KNOWN);
    assert_eq!((code, functions(&second, true)), (Some(0), TWO.to_vec()), "{second:#}");
    let counts = |document: &Value| ["known", "new"].map(|name| document["baseline"][name].as_u64().unwrap());
    assert_eq!((counts(&second), &second["baseline"]["added"]), ([2, 0], &Value::Array(Vec::new())));
    let kept = second["found"][0]["reproducer"].as_str().unwrap();
    assert!(team.here().join(kept).is_file(), "a known finding keeps its reproducer");

    let (code, third) = team.document(&THREE, &KNOWN);
    assert_eq!((code, functions(&third, false), counts(&third)), (Some(1), vec!["chat"], [2, 1]), "{third:#}");
    let (code, told, said) = team.hunt(&THREE, &KNOWN);
    assert_eq!(said.matches(", in the baseline: ").count(), 2, "{said}");
    let (new, known) = told.split_once("known, in the baseline: 2\n").unwrap_or_else(|| panic!("{told}"));
    assert!(code == Some(1) && new.contains(" in chat") && !new.contains(" in orders"), "{told}");
    assert!(known.contains("40 case(s), 3 finding(s), 2 of them in the baseline; "), "{told}");
    assert!(known.ends_with("\nbaseline known.toml: 2 known, 1 new\n"), "{told}");
    assert_eq!(team.baseline(), written, "only an update changes it");

    // Without a baseline nothing is known.
    let (code, alone) = team.document(&TWO, &[]);
    assert!(code == Some(1) && alone["baseline"].is_null() && alone["found"][0]["baseline"].is_null(), "{alone:#}");
}

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_is_repaired_is_listed_and_pruned_and_notes_stay() {
    let team = Team::new();
    let (code, told, _) = team.hunt(&TWO, &UPDATED);
    assert!(code == Some(0) && told.contains("\nadded to the baseline: 2\n"), "{told}");
    let path = team.here().join("known.toml");
    let noted = team.baseline().replacen("note = \"\"", "note = \"Ticket 7: \\\"soon\\\"\"", 2);
    fs::write(&path, &noted).unwrap();

    let (code, told, _) = team.hunt(&["orders"], &KNOWN);
    let stale =
        told.split_once("in the baseline and not found by this hunt: 1\n").unwrap_or_else(|| panic!("{told}")).1;
    assert!(code == Some(0) && stale.contains(" in users") && stale.contains("--prune-baseline"), "{told}");
    assert_eq!(team.baseline(), noted, "it is only listed");

    // An update adds what is new and keeps the rest.
    let (code, told, _) = team.hunt(&["orders", "chat"], &UPDATED);
    assert!(code == Some(0) && told.contains("\nadded to the baseline: 1\n"), "{told}");
    let updated = team.baseline();
    assert_eq!(updated.matches("[[finding]]").count(), 3, "{updated}");
    assert_eq!(updated.matches("Ticket 7: \"soon\"").count(), 2, "{updated}");

    // A new finding fails, also where entries are dropped.
    let (code, told, _) = team.hunt(&["orders", "users"], &PRUNED);
    assert!(code == Some(0) && told.contains("\ndropped from the baseline: 1\n"), "{told}");
    assert_eq!(team.baseline().matches("[[finding]]").count(), 2);
    assert_eq!(team.hunt(&["orders", "chat"], &PRUNED).0, Some(1));
    let pruned = team.baseline();
    assert!(pruned.matches("[[finding]]").count() == 1 && pruned.contains(" in orders"), "{pruned}");
    assert!(pruned.contains("Ticket 7: \"soon\""), "{pruned}");
    // Both at once.
    assert_eq!(team.hunt(&["chat"], &[&UPDATED[..], &["--prune-baseline"]].concat()).0, Some(0));
    let both = team.baseline();
    assert!(both.matches("[[finding]]").count() == 1 && both.contains(" in chat"), "{both}");
    assert!(!both.contains("Ticket"), "{both}");
}

/// A hunt with other seeds finds the same failures by other cases.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_same_failures_are_known_to_other_seeds_and_profiles() {
    let team = Team::new();
    assert_eq!(team.hunt(&THREE, &UPDATED).0, Some(0));
    for seed in ["1000", "2000"] {
        let (code, told, _) = team.hunt(&THREE, &[&KNOWN[..], &["--seed", seed]].concat());
        assert!(code == Some(0) && told.ends_with("\nbaseline known.toml: 3 known, 0 new\n"), "{told}");
    }
    // Several profiles have one baseline.
    let profiles = ["--profile", "uvicorn-0.35", "--profile", "hypercorn-0.18"];
    let (code, many) = team.document(&THREE, &[&UPDATED[..], &profiles].concat());
    assert_eq!((code, &many["baseline"]["not_found"]), (Some(0), &Value::Array(Vec::new())), "{many:#}");
    assert!(many["profiles"]["uvicorn-0.35"]["baseline"].is_null(), "{many:#}");
    let (code, told, _) = team.hunt(&THREE, &[&KNOWN[..], &profiles].concat());
    assert!(code == Some(0) && told.ends_with("\nbaseline known.toml: 6 known, 0 new\n"), "{told}");
    assert_eq!(told.matches("\nbaseline known.toml").count(), 1, "{told}");
}

/// The parts of a campaign have one baseline, and it may also be given to their documents.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn the_parts_of_a_campaign_have_one_baseline() {
    let team = Team::new();
    assert_eq!(team.hunt(&TWO, &UPDATED).0, Some(0));
    let merged = |name: &str, options: &[&str], baseline: &[&str]| {
        for part in ["1/2", "2/2"] {
            let (_, document) = team.document(&THREE, &[options, &["--shard", part]].concat());
            fs::write(team.here().join(format!("{name}{}.json", &part[..1])), document.to_string()).unwrap();
        }
        let [one, two] = [1, 2].map(|part| format!("{name}{part}.json"));
        let merge = ["hunt", "--format", "json", "--merge", &one, &two];
        let mut command = crate::support::relapse_command();
        let output = command.current_dir(team.here()).args(merge).args(baseline).output().unwrap();
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (code, with) = merged("with", &KNOWN, &[]);
    assert_eq!((code, functions(&with, true), functions(&with, false)), (Some(1), TWO.to_vec(), vec!["chat"]));
    // A request that fits no route gives a finding of its own in the other part.
    let found = with["found"].as_array().unwrap().len();
    assert_eq!((&with["baseline"]["known"], &with["baseline"]["new"]), (&Value::from(found - 1), &Value::from(1)));
    let (code, without) = merged("without", &[], &KNOWN);
    assert_eq!((code, &without["baseline"]), (Some(1), &with["baseline"]));
    let merge = ["hunt", "--merge", "with1.json", "without2.json"];
    let mut command = crate::support::relapse_command();
    let output = command.current_dir(team.here()).args(merge).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && said.contains("only one of the parts has a baseline"), "{said}");
}

/// An app that does not end as it should fails a hunt like any finding, unless that is known.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_shutdown_that_fails_can_be_known() {
    let team = Team::new();
    let lifespan = "await receive()
        await send({'type': 'lifespan.startup.complete'})
        await receive()
        {}['timer']
";
    let app = APP.replacen("        return\n", &format!("        {lifespan}"), 1);
    let (code, told, _) = team.hunt_on(&app, &[], &UPDATED);
    assert!(code == Some(0) && told.contains("\nadded to the baseline: 1\n  shutdown: KeyError: 'timer' ("), "{told}");
    // The same on another line.
    let (code, told, _) = team.hunt_on(&format!("\n\n{app}"), &[], &KNOWN);
    assert!(code == Some(0) && told.contains("\n  in the baseline\n"), "{told}");
    assert!(told.ends_with("\nbaseline known.toml: 1 known, 0 new\n"), "{told}");
    let (code, told, _) = team.hunt_on(&app.replace("timer", "clock"), &[], &KNOWN);
    assert!(code == Some(1) && told.contains("\nbaseline known.toml: 0 known, 1 new\n"), "{told}");
}

/// A hunt that leaves cases out drops nothing, whatever it did not find: here the app ends, and does not start again.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_hunt_that_leaves_cases_out_drops_nothing() {
    let team = Team::new();
    assert_eq!(team.hunt(&TWO, &UPDATED).0, Some(0));
    let written = team.baseline();
    let app = format!("{STARTS_ONCE}{}", APP.replacen("    endpoint = ", "    serve()\n    endpoint = ", 1));
    let (_, told, said) = team.hunt_on(&app, &[], &PRUNED);
    let is_partial = told.contains("no licence is left") && told.contains(" case(s) are left out");
    assert!(is_partial && said.contains("nothing is dropped from the baseline"), "{told}{said}");
    assert_eq!(team.baseline(), written);
}

/// The beginning of an app that starts once, and ends after some requests.
const STARTS_ONCE: &str = "
import os
if os.path.exists('started'):
    raise RuntimeError('no licence is left')
open('started', 'w').close()
served = 0

def serve():
    global served
    served += 1
    if served == 20:
        os._exit(1)
";

/// A hunt that does not begin drops nothing.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_hunt_that_does_not_begin_drops_nothing() {
    let team = Team::new();
    assert_eq!(team.hunt(&TWO, &UPDATED).0, Some(0));
    let written = team.baseline();
    let (code, _, said) = team.hunt(&[], &[&PRUNED[..], &["--time", "1ms"]].concat());
    assert!(code == Some(2) && said.contains("the time was over before service:app was imported"), "{said}");
    assert_eq!(team.baseline(), written);
}

/// Misuse and broken files are told before anything starts.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_baseline_that_cannot_be_used_is_an_error() {
    let team = Team::new();
    let (code, told, said) = team.hunt(&TWO, &KNOWN);
    assert!(code == Some(2) && told.is_empty(), "{told}");
    assert!(said.contains("there is no baseline known.toml; --update-baseline writes one"), "{said}");
    assert_eq!(team.hunt(&TWO, &PRUNED).0, Some(2));
    for (text, expected) in [
        ("[[finding]]\nkey = \"a\"\nnotes = \"\"\n", "known.toml:3:1"),
        ("[[finding]]\nkey = \"a\"\n<<<<<<< main\n", "known.toml:3:"),
        ("[[finding]]\nkey = \"a\"\n\n[[finding]]\nkey = \"a\"\n", "known.toml:5:7"),
        ("[[finding]]\nmessage = \"a\"\n", "known.toml:1:1"),
    ] {
        fs::write(team.here().join("known.toml"), text).unwrap();
        let (code, told, said) = team.hunt(&TWO, &UPDATED);
        assert!(code == Some(2) && told.is_empty() && said.contains(expected), "{text}: {said}");
        assert_eq!(team.baseline(), text);
    }
    for options in [&["--before", "asgi:service:app"][..], &["--check-determinism"]] {
        let (code, told, said) = team.hunt(&TWO, &[&KNOWN[..], options].concat());
        assert!(code == Some(2) && told.is_empty() && said.contains("cannot be used with"), "{said}");
    }
    let (code, _, said) = team.hunt(&TWO, &["--update-baseline"]);
    assert!(code == Some(2) && said.contains("--baseline <FILE>"), "{said}");
}

/// No secret gets into the file, and a finding with one in its route is known again.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn no_secret_is_in_a_baseline() {
    let team = Team::new();
    let secret = ["--env", "API_TOKEN=ord-hidden-77", "--path", "GET /ord-hidden-77"];
    let app = APP.replace("'/orders': orders", "'/ord-hidden-77': orders");
    let (code, _, said) = team.hunt_on(&app, &["orders"], &[&UPDATED[..], &secret].concat());
    assert_eq!(code, Some(0), "{said}");
    let written = team.baseline();
    assert!(written.contains("<secret API_TOKEN>") && !written.contains("ord-hidden"), "{written}");
    let (code, told, _) = team.hunt_on(&app, &["orders"], &[&KNOWN[..], &secret].concat());
    assert!(code == Some(0) && told.ends_with("\nbaseline known.toml: 1 known, 0 new\n"), "{told}");
}
