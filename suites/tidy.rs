//! The rules of this house, as tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relapse::{Case, Catalogue, Class, Defect, Revision, check, conformance::Behavior, fault::FaultKind};

/// The ranks: a module imports from its own rank only where the rank says so, and from ranks above.
const RANKS: &[(&str, &[&str])] = &[
    (
        "words",
        &[
            "balancer",
            "binding",
            "case",
            "cause",
            "close_code",
            "credential",
            "defect",
            "environment",
            "error",
            "event",
            "exception",
            "fault",
            "frame",
            "head",
            "issue",
            "message",
            "note",
            "outcome",
            "plan",
            "profile",
            "recorded",
            "revision",
            "route",
            "scope",
            "signal",
            "step",
            "timeline",
            "transcript",
            "trial",
            "value",
            "verdict",
        ],
    ),
    ("judgement", &["check", "classify", "conformance", "explain", "judge", "redact", "report", "shutdown"]),
    ("joints", &["application", "clock", "dependency", "link", "recorder", "target", "upstream"]),
    ("machinery", &["backend", "discover", "edge", "front", "interpose", "probe", "python"]),
    ("targets", &["targets"]),
    (
        "conduct",
        &["conform", "differential", "external", "hunt", "init", "measure", "proxy", "run", "stand", "validate"],
    ),
];

/// Ranks whose modules do not see one another.
const BLIND: [&str; 1] = ["machinery"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(below: &str, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    find(&root().join(below), extension, &mut found);
    found.sort();
    assert!(!found.is_empty(), "no .{extension} below {below}");
    let name = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    found.into_iter().map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
}

fn find(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, extension, found);
        } else if path.extension().is_some_and(|other| other == extension) {
            found.push(path);
        }
    }
}

fn rank_of(module: &str) -> Option<usize> {
    RANKS.iter().position(|(_, modules)| modules.contains(&module))
}

/// The modules of this crate that a file names, in imports or in paths.
fn named_modules(text: &str) -> BTreeSet<String> {
    named_below(text, "crate::")
}

/// The first names below a path, in imports of one or many lines and wherever else the path stands.
fn named_below(text: &str, path: &str) -> BTreeSet<String> {
    let without_comments: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut named = BTreeSet::new();
    for (start, _) in without_comments.match_indices(path) {
        let rest = &without_comments[start + path.len()..];
        match rest.strip_prefix('{') {
            None => named.extend(first_word(rest)),
            Some(list) => {
                let (mut depth, mut item) = (1, String::new());
                for character in list.chars() {
                    depth += match character {
                        '{' => 1,
                        '}' => -1,
                        _ => 0,
                    };
                    if depth == 0 || (depth == 1 && character == ',') {
                        named.extend(first_word(item.trim()));
                        item.clear();
                    } else {
                        item.push(character);
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    named
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect();
    (!word.is_empty()).then_some(word)
}

#[test]
fn modules_import_from_the_ranks_above() {
    for (file, text) in files("harness", "rs") {
        let path = file.trim_start_matches("harness/").trim_end_matches(".rs");
        let module = path.split('/').next().unwrap();
        if matches!(module, "lib" | "main" | "command") {
            continue;
        }
        let rank = rank_of(module).unwrap_or_else(|| panic!("{file} has no rank"));
        for named in named_modules(&text) {
            let Some(other) = rank_of(&named) else { panic!("{file} names crate::{named}, which has no rank") };
            let sees_its_own = !BLIND.contains(&RANKS[rank].0);
            let allowed = other < rank || named == module || (other == rank && sees_its_own);
            assert!(allowed, "{file} ({}) may not import {named} ({})", RANKS[rank].0, RANKS[other].0);
        }
    }
}

#[test]
fn a_judged_run_is_looked_at_once() {
    const LOOKS: [&str; 4] = ["Timeline::of(", "Reading::of(", "classify::readings(", "Evidence::gather("];
    let looks = |text: &str| LOOKS.iter().map(|look| text.matches(look).count()).sum::<usize>();
    for (file, text) in files("harness", "rs") {
        let text = text.split("#[cfg(test)]").next().unwrap();
        match file.as_str() {
            "harness/judge.rs" => {
                assert_eq!(looks(text), 1, "{file} looks at a transcript where it becomes a judged run")
            }
            "harness/check/mod.rs" => assert_eq!(looks(text), 1, "{file} looks for a run that is looked at only once"),
            file if ["check/", "report/", "external/translate", "explain", "verdict", "trial"]
                .iter()
                .any(|judging| file.starts_with(&format!("harness/{judging}"))) =>
            {
                assert_eq!(looks(text), 0, "{file} computes its own view of a transcript");
            }
            _ => {}
        }
    }
}

#[test]
fn words_and_judgement_cannot_wait() {
    for (file, text) in files("harness", "rs") {
        let module = file.trim_start_matches("harness/").trim_end_matches(".rs").split('/').next().unwrap().to_owned();
        if rank_of(&module).is_some_and(|rank| rank < 2) {
            assert!(!text.contains("tokio::"), "{file} names tokio");
            assert!(!text.contains("async "), "{file} is asynchronous");
            assert!(!text.contains("std::fs"), "{file} touches files");
        }
    }
}

#[test]
fn the_command_sees_only_the_facade() {
    let facade = named_after(&fs::read_to_string(root().join("harness/lib.rs")).unwrap());
    for (file, text) in files("harness/command", "rs") {
        for name in named_below(&text, "relapse::") {
            assert!(facade.contains(&name), "{file} names relapse::{name}");
        }
    }
}

/// The names a library re-exports.
fn named_after(text: &str) -> BTreeSet<String> {
    let exports = text.split("pub use ").skip(1).map(|rest| rest.split(';').next().unwrap_or_default());
    let mut names: BTreeSet<String> = exports
        .flat_map(|export| export.split([',', '{', '}', ':']).map(|part| part.trim().to_owned()).collect::<Vec<_>>())
        .map(|part| part.rsplit(" as ").next().unwrap_or_default().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    names.insert("Result".to_owned());
    names
}

#[test]
fn every_file_says_first_what_it_is_for() {
    for (file, text) in files("harness", "rs").into_iter().chain(files("suites", "rs")) {
        assert!(text.starts_with("//! "), "{file} does not begin with a doc comment");
    }
}

#[test]
fn every_defect_has_one_site_and_a_case() {
    let backend: String = files("harness/backend", "rs").into_iter().map(|(_, text)| text).collect();
    let cases = catalogue();
    for defect in Defect::ALL {
        let sites = backend.matches(&format!("Defect::{defect:?})")).count();
        assert_eq!(sites, 1, "{} has {sites} sites", defect.name());
        let is_meant = |case: &Arc<Case>| {
            case.twin == Revision::only(*defect) || case.shams.iter().any(|sham| sham.revision.has(*defect))
        };
        assert!(cases.cases.iter().any(is_meant), "{} has no case", defect.name());
        assert!(!defect.origin().is_empty() && defect.mechanism().ends_with('.'), "{}", defect.name());
    }
}

#[test]
fn every_check_is_relied_on_by_a_case() {
    let cases = catalogue();
    let relied_on: BTreeSet<&str> = cases
        .cases
        .iter()
        .flat_map(|case| case.symptom.iter().chain(case.symptom_on.values()))
        .flat_map(|symptom| symptom.found_by.iter().map(String::as_str))
        .chain(
            cases.cases.iter().flat_map(|case| &case.shams).flat_map(|sham| sham.found_by.iter().map(String::as_str)),
        )
        .collect();
    for name in check::names() {
        assert!(relied_on.contains(name), "no case names {name}: breaking it would turn nothing red");
    }
}

#[test]
fn every_check_stands_in_a_file_of_its_name() {
    for name in check::names() {
        assert!(root().join(format!("harness/check/{name}.rs")).is_file(), "{name}");
    }
    assert_eq!(files("harness/check", "rs").len(), check::ALL.len() + 1);
}

#[test]
fn the_formats_are_documented() {
    let page = fs::read_to_string(root().join("fixtures/README.md")).unwrap();
    let code =
        |keys: &mut dyn Iterator<Item = &&str>| keys.map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    let faults = FaultKind::all().map(|kind| {
        let keys = code(&mut FaultKind::selecting_keys(kind.name).iter().chain(kind.keys));
        format!("| `{}` | `{}` | {keys} | {} |\n", kind.place.name(), kind.name, kind.does.trim())
    });
    let checks = check::ALL.iter().map(|check| format!("| `{}` | {} |\n", check.name, check.property));
    let classes = Class::ALL.iter().map(|class| format!("| `{class}` |"));
    let behaviors = Behavior::ALL.iter().map(|behavior| format!("| `{behavior}` |"));
    for row in faults.chain(checks).chain(classes).chain(behaviors) {
        assert!(page.contains(&row), "fixtures/README.md lacks the row\n{row}");
    }
}

#[test]
fn snapshots_mirror_the_cases_and_none_is_pending() {
    let mut expected = BTreeSet::new();
    for case in catalogue().cases {
        for revision in [case.twin.to_string(), "repaired".to_owned()] {
            expected.insert(format!("snapshots/cases/{}@{revision}.snap", case.name));
        }
    }
    let found: BTreeSet<String> = files("snapshots/cases", "snap").into_iter().map(|(file, _)| file).collect();
    assert_eq!(found, expected, "a case without its picture, or a picture without its case");
    let rendering: BTreeSet<String> = files("snapshots/rendering", "snap").into_iter().map(|(file, _)| file).collect();
    let asked: BTreeSet<String> = files("suites", "rs")
        .into_iter()
        .filter(|(file, _)| !file.ends_with("/tidy.rs"))
        .flat_map(|(_, text)| {
            let names = text.split("check_page(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
            names.map(|name| format!("snapshots/rendering/{name}.snap")).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(rendering, asked);
    let names = |below: &str, extension: &str| -> BTreeSet<String> {
        let name =
            |(file, _): (String, String)| file.rsplit('/').next().unwrap().trim_end_matches(extension).to_owned();
        files(below, extension).into_iter().map(name).collect()
    };
    assert_eq!(
        names("snapshots/capsules", "snap"),
        names("fixtures/capsules", "toml"),
        "a reproducer without its picture"
    );
    let mut pending = Vec::new();
    find(&root().join("snapshots"), "new", &mut pending);
    assert_eq!(pending, Vec::<PathBuf>::new());
}

#[test]
fn every_profile_is_found_and_named_as_its_file() {
    let named: BTreeSet<String> = relapse::servers().unwrap().iter().map(|profile| profile.name.clone()).collect();
    let filed: BTreeSet<String> = files("fixtures/profiles/servers", "toml")
        .into_iter()
        .map(|(file, _)| file.rsplit('/').next().unwrap().trim_end_matches(".toml").to_owned())
        .collect();
    assert_eq!(named, filed);
}

#[test]
fn every_frame_case_is_found() {
    let found: BTreeSet<String> = relapse::frame_cases(&[]).unwrap().iter().map(|case| case.name.clone()).collect();
    let filed: usize =
        files("fixtures/conformance", "toml").iter().map(|(_, text)| text.matches("[[case]]").count()).sum();
    assert_eq!(found.len(), filed);
}

#[test]
fn every_issue_has_a_case_and_every_case_its_issues() {
    let issues = relapse::issues().unwrap();
    let keys: Vec<&str> =
        issues.iter().flat_map(|issue| std::iter::once(&issue.key).chain(&issue.also)).map(String::as_str).collect();
    let known: BTreeSet<&str> = keys.iter().copied().collect();
    assert_eq!(known.len(), keys.len(), "an issue is listed twice");
    let cases = catalogue().cases;
    let named: BTreeSet<&str> = cases.iter().flat_map(|case| case.issues.iter().map(String::as_str)).collect();
    assert_eq!(named, known);
    for case in &cases {
        assert!(!case.issues.is_empty(), "{} belongs to no issue", case.name);
    }
}

#[test]
fn cases_are_named_once() {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for case in catalogue().cases {
        *seen.entry(case.name.rsplit('/').next().unwrap().to_owned()).or_default() += 1;
    }
    let twice: Vec<_> = seen.into_iter().filter(|(_, count)| *count > 1).collect();
    assert_eq!(twice, Vec::new());
}

#[test]
fn no_file_names_a_place_on_one_machine() {
    let places = ["/home", "/root", "/tmp", "/Users"].map(|place| format!("{place}/"));
    let texts = [files("harness", "rs"), files("suites", "rs"), files("fixtures", "toml"), files("snapshots", "snap")];
    for (file, text) in texts.into_iter().flatten() {
        for place in &places {
            assert!(!text.contains(place.as_str()), "{file} names {place}");
        }
    }
}

/// A comment says what a thing is, and does not ask.
#[test]
fn no_comment_begins_with_a_question_word() {
    let refused = ["What", "Who", "Whoever", "Nobody", "Somebody", "Nothing where", "Nothing of", "Nothing when"];
    let mut found = Vec::new();
    for (file, text) in [files("harness", "rs"), files("suites", "rs")].into_iter().flatten() {
        for (number, line) in text.lines().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
            let comment = comment.trim_start_matches(['/', '!']).trim_start();
            let begins = |start: &&str| {
                comment.strip_prefix(*start).is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric()))
            };
            if refused.iter().any(begins) {
                found.push(format!("{file}:{}: {comment}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

fn catalogue() -> Catalogue {
    let catalogue = Catalogue::read(&root().join("fixtures/cases")).unwrap();
    assert!(catalogue.broken.is_empty(), "{:?}", catalogue.broken);
    catalogue
}
