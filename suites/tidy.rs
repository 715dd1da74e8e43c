//! The rules of this house, as tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{mixups, support};
use relapse::{case::Case, discover::Catalogue};
use relapse_backend::{defect::Defect, revision::Revision, runner::KNOWN};
use relapse_core::{
    conformance::Behavior,
    judge::{check, outcome::Class},
};

/// The crates from the bottom up, each with those that it may see.
const CRATES: [(&str, &[&str]); 6] = [
    ("harness/core", &[]),
    ("harness/simulate", &["relapse-core"]),
    ("harness/engine", &["relapse-core", "relapse-simulate"]),
    ("harness/python", &["relapse", "relapse-core", "relapse-simulate"]),
    ("harness/backend", &["relapse", "relapse-core", "relapse-simulate"]),
    (".", &["relapse", "relapse-backend", "relapse-core", "relapse-python", "relapse-simulate"]),
];

/// The most names that the front page of the library re-exports.
const FACADE_MAX: usize = 30;

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

#[test]
fn a_crate_sees_only_those_below() {
    for (directory, allowed) in CRATES {
        let manifest: toml::Table =
            fs::read_to_string(root().join(directory).join("Cargo.toml")).unwrap().parse().unwrap();
        let seen = manifest["dependencies"].as_table().unwrap().keys().filter(|name| name.starts_with("relapse"));
        assert_eq!(seen.collect::<Vec<_>>(), allowed, "{directory}");
    }
}

#[test]
fn a_judged_run_is_looked_at_once() {
    const LOOKS: [&str; 4] = ["Timeline::of(", "Exchange::of(", "classify::readings(", "RunView::gather("];
    let looks = |text: &str| LOOKS.iter().map(|look| text.matches(look).count()).sum::<usize>();
    for (file, text) in files("harness", "rs") {
        let text = text.split("#[cfg(test)]").next().unwrap();
        match file.as_str() {
            "harness/engine/src/verdict_rules.rs" => {
                assert_eq!(looks(text), 1, "{file} looks at a transcript where it becomes a judged run")
            }
            "harness/core/src/judge/check/mod.rs" => {
                assert_eq!(looks(text), 1, "{file} looks for a run that is looked at only once")
            }
            file if [
                "core/src/judge/check/",
                "core/src/judge/verdict",
                "command/report/",
                "engine/src/explain",
                "engine/src/external/translate",
                "engine/src/report/",
                "engine/src/trial",
            ]
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
fn the_core_cannot_wait() {
    for (file, text) in files("harness/core", "rs") {
        for word in ["tokio::", "async ", "std::fs", "std::net", "Instant::now"] {
            assert!(!text.contains(word), "{file} has `{word}`");
        }
    }
}

/// Of branches that are ready at one moment, the first is taken: a random one would make runs differ.
#[test]
fn no_select_is_random() {
    for (path, text) in files("harness", "rs") {
        let random = text.lines().zip(text.lines().skip(1));
        let random = random.filter(|(line, next)| line.contains("select! {") && next.trim() != "biased;");
        let random: Vec<&str> = random.map(|(line, _)| line).collect();
        // The command waits in real time.
        assert!(path.starts_with("harness/command/") || random.is_empty(), "{path}: {random:?}");
    }
}

/// Whatever leaves the command passes one place each for what is printed and for what is written, which know the secrets.
#[test]
fn the_command_has_one_way_out() {
    const WAYS: [&str; 6] = ["stdout()", "stderr()", "println!", "set_message(", "fs::write(", "File::create("];
    let found: BTreeSet<(String, &str)> = files("harness/command", "rs")
        .into_iter()
        .flat_map(|(file, text)| {
            let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
            WAYS.into_iter().filter(move |way| code.contains(way)).map(move |way| (file.clone(), way))
        })
        .collect();
    let output = "harness/command/output.rs".to_owned();
    let expected = ["stdout()", "stderr()", "set_message("].map(|way| (output.clone(), way));
    assert_eq!(found, BTreeSet::from(expected));
}

#[test]
fn the_front_page_of_the_library_is_short() {
    let page = fs::read_to_string(root().join("harness/engine/src/lib.rs")).unwrap();
    let exports = page.split("pub use ").skip(1).map(|rest| rest.split(';').next().unwrap_or_default());
    let names = exports.flat_map(|export| export.split([',', '{', '}', ':', ' ', '\n']));
    let is_name = |part: &&str| part.starts_with(char::is_uppercase) || matches!(*part, "servers" | "hunt_all");
    let count = names.filter(is_name).count();
    assert!((1..=FACADE_MAX).contains(&count), "it re-exports {count} names");
}

#[test]
fn a_type_name_stands_for_one_thing() {
    let mut declared: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in files("harness", "rs") {
        // The place of an absent backend has the names of the backend.
        if file.ends_with("builtin/absent.rs") {
            continue;
        }
        for line in text.split("#[cfg(test)]").next().unwrap().lines() {
            let line = line.trim_start();
            let line =
                ["pub ", "pub(crate) ", "pub(super) "].iter().find_map(|word| line.strip_prefix(word)).unwrap_or(line);
            let kinds = ["struct ", "enum ", "trait "].iter();
            for rest in kinds.filter_map(|kind| line.strip_prefix(kind)) {
                let name: String = rest.chars().take_while(|letter| letter.is_alphanumeric()).collect();
                declared.entry(name).or_default().insert(file.clone());
            }
        }
    }
    assert!(declared.contains_key("Transcript"), "no type is found");
    declared.retain(|_, files| files.len() > 1);
    assert_eq!(declared, BTreeMap::new());
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
            Revision::from(&case.twin) == Revision::only(*defect)
                || case.shams.iter().any(|sham| sham.defects.contains(defect.name()))
        };
        assert!(cases.cases.iter().any(is_meant), "{} has no case", defect.name());
        assert!(!defect.origin().is_empty() && defect.mechanism().ends_with('.'), "{}", defect.name());
    }
}

/// A check that needs an app in Python has a row in `suites/mixups.rs`; each other one is seen by a case.
#[test]
fn every_check_is_seen_to_fail() {
    let (by_cases, by_mixups) = (support::checks_of_cases(), mixups::checks_seen());
    for name in support::check_names() {
        let is_seen = by_cases.contains(name) || by_mixups.contains(name);
        assert!(is_seen, "no case and no mixup names {name}: breaking it would turn nothing red");
    }
}

#[test]
fn every_check_stands_in_a_file_of_its_name() {
    let lists =
        [("harness/core/src/judge/check", check::ALL), ("harness/backend/src/check", relapse_backend::check::KNOWN)];
    for (directory, checks) in lists {
        for name in checks.iter().map(|check| check.name()) {
            assert!(root().join(format!("{directory}/{name}.rs")).is_file(), "{name}");
        }
        assert_eq!(files(directory, "rs").len(), checks.len() + 1);
    }
}

#[test]
fn the_formats_are_documented() {
    let page = fs::read_to_string(root().join("fixtures/README.md")).unwrap();
    let classes = Class::ALL.iter().map(|class| format!("| `{class}` |"));
    let behaviors = Behavior::ALL.iter().map(|behavior| format!("| `{behavior}` |"));
    for row in classes.chain(behaviors) {
        assert!(page.contains(&row), "fixtures/README.md lacks the row\n{row}");
    }
}

#[test]
fn snapshots_mirror_the_cases_and_none_is_pending() {
    let snapshots = |below: &str| -> BTreeSet<String> {
        files(&format!("snapshots/{below}"), "snap").into_iter().map(|(file, _)| file).collect()
    };
    let of_cases = catalogue().cases.into_iter().map(|case| format!("snapshots/cases/{}.snap", case.name)).collect();
    assert_eq!(snapshots("cases"), of_cases, "a case without its snapshot, or a snapshot without its case");
    // Behind the first server, every case looks as its own file says.
    let of_servers = support::server_names().into_iter().skip(1).map(|name| format!("snapshots/servers/{name}.snap"));
    assert_eq!(snapshots("servers"), of_servers.collect(), "a server without its snapshot, or the other way round");
    let asked: BTreeSet<String> = files("suites", "rs")
        .into_iter()
        .filter(|(file, _)| !file.ends_with("/tidy.rs"))
        .flat_map(|(_, text)| {
            let names = text.split("check_page(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
            names.map(|name| format!("snapshots/rendering/{name}.snap")).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(snapshots("rendering"), asked);
    let names = |below: &str, extension: &str| -> BTreeSet<String> {
        let name =
            |(file, _): (String, String)| file.rsplit('/').next().unwrap().trim_end_matches(extension).to_owned();
        files(below, extension).into_iter().map(name).collect()
    };
    assert_eq!(
        names("snapshots/capsules", "snap"),
        names("fixtures/capsules", "toml"),
        "a reproducer without its snapshot"
    );
    let mut pending = Vec::new();
    find(&root().join("snapshots"), "new", &mut pending);
    assert_eq!(pending, Vec::<PathBuf>::new());
}

/// A new server adds a snapshot of its own, and changes none of a case.
#[test]
fn a_snapshot_of_a_case_names_one_server() {
    let names = support::server_names();
    let is_part = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '.');
    for (file, text) in files("snapshots/cases", "snap") {
        let words = text.split(|letter: char| !is_part(letter));
        let named: Vec<&str> = words.filter(|word| names.iter().any(|name| name == word)).collect();
        assert_eq!(named.len(), 1, "{file} names {named:?}");
    }
}

#[test]
fn every_profile_is_found_and_named_as_its_file() {
    let named: BTreeSet<String> =
        relapse::discover::servers().unwrap().iter().map(|profile| profile.name.clone()).collect();
    let filed: BTreeSet<String> = files("fixtures/profiles/servers", "toml")
        .into_iter()
        .map(|(file, _)| file.rsplit('/').next().unwrap().trim_end_matches(".toml").to_owned())
        .collect();
    assert_eq!(named, filed);
}

#[test]
fn every_frame_case_is_found() {
    let found: BTreeSet<String> =
        relapse::discover::frame_cases(&[]).unwrap().iter().map(|case| case.name.clone()).collect();
    let filed: usize =
        files("fixtures/conformance", "toml").iter().map(|(_, text)| text.matches("[[case]]").count()).sum();
    assert_eq!(found.len(), filed);
}

#[test]
fn every_issue_has_a_case_and_every_case_its_issues() {
    let issues = relapse::discover::issues().unwrap();
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

/// The most lines of a function that does not say why it is longer.
const FUNCTION_LINES_MAX: usize = 60;

/// A long function says why it is long: `// Long: an arm for each fault.` stands directly above it.
#[test]
fn a_long_function_says_why() {
    let mut found = Vec::new();
    let mut longest = 0;
    for (file, text) in [files("harness", "rs"), files("suites", "rs")].into_iter().flatten() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let qualifiers = code.split_once("fn ").map(|(qualifiers, _)| qualifiers.split_whitespace());
            let is_function = qualifiers.is_some_and(|mut words| {
                words.all(|word| word.starts_with("pub") || matches!(word, "async" | "const"))
            });
            if !is_function || code.ends_with([';', '}']) {
                continue;
            }
            let end = format!("{}}}", &line[..line.len() - code.len()]);
            let length = lines[at..].iter().position(|line| *line == end).map_or(0, |last| last + 1);
            longest = longest.max(length);
            if length > FUNCTION_LINES_MAX
                && !at.checked_sub(1).is_some_and(|above| lines[above].trim_start().starts_with("// Long: "))
            {
                found.push(format!("{file}:{}: {length} lines", at + 1));
            }
        }
    }
    assert!(longest > FUNCTION_LINES_MAX, "no function is found");
    assert!(found.is_empty(), "{found:#?}");
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

/// A sentence names who acts: a client, a server, a caller, a user.
#[test]
fn a_sentence_names_its_actor() {
    let refused = ["nobody", "somebody", "anybody", "everybody", "whoever"];
    let comments = [files("harness", "rs"), files("suites", "rs")].into_iter().flatten().map(|(file, text)| {
        let comments = text.lines().map(str::trim_start).filter(|line| line.starts_with("//"));
        (file, comments.collect::<Vec<_>>().join("\n"))
    });
    let texts = [files("fixtures", "toml"), files("fixtures", "md"), files(".github", "md")].into_iter().flatten();
    let page = ("README.md".to_owned(), fs::read_to_string(root().join("README.md")).unwrap());
    let mut found = Vec::new();
    for (file, text) in comments.chain(texts).chain([page]) {
        let words = text.split(|letter: char| !letter.is_alphanumeric()).map(str::to_lowercase);
        found.extend(words.filter(|word| refused.contains(&word.as_str())).map(|word| format!("{file}: {word}")));
    }
    assert!(found.is_empty(), "{found:#?}");
}

fn catalogue() -> Catalogue {
    let catalogue = Catalogue::read(&root().join("fixtures/cases"), KNOWN).unwrap();
    assert!(catalogue.broken.is_empty(), "{:?}", catalogue.broken);
    catalogue
}
