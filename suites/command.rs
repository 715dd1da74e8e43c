//! The built command: what it prints, where, and its exit codes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use relapse_command::{
    exit_code::CommandExit,
    report::formats::{RENDERERS, Renderer},
};
use rstest::rstest;
use serde_json::Value;
use tempfile::TempDir;

fn relapse(arguments: &[&str]) -> Output {
    let mut command = crate::support::relapse_command();
    // The caller's environment must not leak in; no part of the command needs PATH.
    command.env_clear().current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments);
    command.output().unwrap()
}

/// How many server profiles there are.
fn servers() -> usize {
    relapse::discover::servers().unwrap().len()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn without_a_command_every_case_runs_and_is_fixed() {
    let output = relapse(&[]);
    assert_eq!(code(&output), Some(0), "{}{}", stdout(&output), stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("auth/s135_1_token_in_query") && text.contains("upgrade/sr1_no_offer"));
    let counts = text.lines().find(|line| line.contains("trial(s): ")).unwrap();
    let (trials, verdicts) = counts.split_once(" trial(s): ").unwrap();
    let trials = trials.rsplit(' ').next().unwrap();
    assert_eq!(verdicts, format!("{trials} FIXED"));
    let said = stderr(&output);
    let others: Vec<&str> = said.lines().filter(|line| !line.starts_with("progress: ")).collect();
    assert_eq!(others, Vec::<&str>::new(), "only lines of progress where standard error is piped");
    assert!(!text.contains('\u{1b}'), "no color where standard output is piped");
}

#[rstest]
#[case::number("508", 11)]
#[case::number_with_hash("#508", 11)]
#[case::scenario("S508-1", 1)]
#[case::scenario_in_small("s488-1", 5)]
#[case::name("auth/s135_1_token_in_query", 1)]
#[case::last_part("s135_1_token_in_query", 1)]
#[case::glob("upgrade/sr1_*", 4)]
#[case::file("fixtures/cases/session/smsg_explicit_answers.toml", 1)]
fn a_filter_selects(#[case] filter: &str, #[case] expected: usize) {
    let output = relapse(&["list", filter, "--format", "json"]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = document.as_array().unwrap().iter().flat_map(|issue| issue["cases"].as_array().unwrap());
    let cases: BTreeSet<&str> = rows.map(|row| row["case"].as_str().unwrap()).collect();
    assert_eq!(cases.len(), expected, "{cases:?}");
}

#[test]
fn the_json_document_says_everything() {
    let output = relapse(&["run", "S508-1", "--format", "json", "--seed", "7"]);
    assert_eq!(code(&output), Some(0));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], 6);
    let entries = document["cases"].as_array().unwrap();
    assert_eq!(entries.len(), servers(), "one entry a server");
    let first = &entries[0];
    assert_eq!(first["case"], "upgrade/s508_01_no_query");
    assert_eq!(first["issues"], serde_json::json!(["508", "517"]));
    assert_eq!((&first["target"], &first["profile"]), (&"backend".into(), &"uvicorn-0.35".into()));
    assert_eq!((&first["seed"], &first["verdict"]), (&7.into(), &"fixed".into()));
    assert_eq!(first["findings"], serde_json::json!([]));
    let seen = |run: &Value| {
        ["class", "cause", "outcome", "closed_by"].map(|key| run[key].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(seen(&first["before"]), ["server-error", "crash-before-response", "http 500", "server"]);
    assert_eq!(seen(&first["after"]), ["ok", "clean", "close 1000", "client"]);
    assert_eq!(seen(&first["healthy_client"]), ["ok", "clean", "close 1000", "client"]);
    assert_eq!(document["summary"]["fixed"], servers());
    assert_eq!(document["summary"]["still-broken"], 0);
    assert!(document["summary"]["wall_ms"].is_u64());
}

#[test]
fn one_job_and_two_jobs_say_the_same() {
    let run = |jobs: &str| {
        let output = relapse(&["run", "S488-1", "--format", "json", "--jobs", jobs]);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["cases"].clone()
    };
    assert_eq!(run("1"), run("2"));
}

#[test]
fn show_tells_the_whole_story() {
    let output = relapse(&["show", "s449_2_short_exception_text"]);
    assert_eq!(code(&output), Some(0));
    let text = stdout(&output);
    for part in [
        "#449",
        "reported",
        "root cause",
        "exception_as_close_reason",
        "dependency: agent_supervisor.run fails",
        "--> GET /ws upgrade",
        "<-- close 1011",
        "<-- close 1013",
        "FIXED",
        "relapse run session/s449_2_short_exception_text --profile uvicorn-0.35 --environment staging --seed 1",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    assert!(!text.contains("eyJ"), "a token is shown");
}

/// A directory with one good case, which claims the same behind every server, and the given text beside it.
fn beside_a_good_case(text: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    let good = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases/http/sr12_forbidden.toml");
    fs::copy(good, directory.path().join("good.toml")).unwrap();
    fs::write(directory.path().join("broken.toml"), text).unwrap();
    directory
}

fn good_text() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases/auth/s135_1_token_in_query.toml"))
        .unwrap()
}

#[rstest]
#[case::unknown_key("summary =", "sumary =", "unknown field `sumary`", "did you mean `summary`?", "broken.toml:1:1")]
#[case::unknown_step_key("by = [", "bye = [", "unknown field `bye`", "did you mean `by`?", "broken.toml:11:1")]
#[case::wrong_type("close = 1000", "close = \"1000\"", "invalid type", "", "broken.toml:17:9")]
#[case::unknown_defect(
    "auth_after_accept",
    "auth_after_acept",
    "unknown defect `auth_after_acept`",
    "did you mean `auth_after_accept`?",
    "broken.toml:6:10"
)]
#[case::unknown_fault(
    "strip_header",
    "strip_heder",
    "unknown fault `strip_heder`",
    "did you mean `strip_header`?",
    "broken.toml:21:8"
)]
#[case::unknown_profile(
    "\"all\"",
    "\"uvicron-0.35\"",
    "unknown server profile `uvicron-0.35`",
    "did you mean `uvicorn-0.35`?",
    "broken.toml:7:13"
)]
#[case::unknown_check(
    "no_internal_close",
    "no_internal_clos",
    "unknown check `no_internal_clos`",
    "did you mean `no_internal_close`?",
    ""
)]
#[case::unknown_class(
    "\"ok\"",
    "\"refused-aut\"",
    "`refused-aut` is no class and no outcome",
    "did you mean `refused-auth`?",
    ""
)]
#[case::old_class_accepted(
    "accept = [\"ok\"]",
    "accept = [\"good-open\"]",
    "`good-open` is no class and no outcome",
    "`good-open` is now `ok`",
    "broken.toml:25:11"
)]
#[case::old_class_that_failed(
    "accept = [\"ok\"]",
    "accept = [\"bad-server\"]",
    "`bad-server` is no class and no outcome",
    "`bad-server` is now `server-error`",
    ""
)]
#[case::old_class_counted(
    "[symptom]",
    "[expect.at_least]\ngood-open = 1\n\n[symptom]",
    "unknown variant `good-open`",
    "`good-open` is now `ok`",
    ""
)]
#[case::old_class_claimed(
    "class = \"server-error\"",
    "class = \"bad-server\"",
    "unknown variant `bad-server`",
    "`bad-server` is now `server-error`",
    "broken.toml:29:9"
)]
#[case::fault_at_the_wrong_place(
    "at = \"edge\"",
    "at = \"scope\"",
    "`strip_header` does not act at the scope",
    "write `at = \"edge\"`",
    ""
)]
#[case::can_never_fire(
    "header = \"Authorization\"",
    "header = \"Cookie\"",
    "this fault can never act",
    "check its settings",
    ""
)]
#[case::accepts_a_1011(
    "accept = [\"ok\"]",
    "accept = [\"server-error\"]",
    "`server-error` can never be accepted",
    "a case accepts `ok`, `refused-auth`, ",
    ""
)]
#[case::unknown_outcome(
    "outcome = \"close 1011\"",
    "outcome = \"close 1o11\"",
    "unknown outcome `close 1o11`",
    "did you mean `close 1011`?",
    ""
)]
#[case::unknown_scope_key(
    "at = \"edge\"\nkind = \"strip_header\"\nheader = \"Authorization\"",
    "at = \"scope\"\nkind = \"drop_key\"\nkey = \"querystring\"",
    "unknown scope key `querystring`",
    "did you mean `query_string`?",
    ""
)]
#[case::limit_on_nothing("close = 1000", "pause_ms = 5\nwithin_ms = 5", "a `pause_ms` step waits for nothing", "", "")]
#[case::line_end_in_a_header("by = [", "headers = { x-a = \"b\\r\\nc: d\" }\nby = [", "holds a line end", "", "")]
#[case::space_in_a_path(
    "open = \"/ws\"",
    "open = \"/w s\"",
    "a path holds no space",
    "percent-encode it",
    "broken.toml:10:8"
)]
#[case::old_key(
    "root_cause =",
    "behind =",
    "unknown field `behind`",
    "`behind` is now `root_cause`",
    "broken.toml:3:1"
)]
#[case::old_key_of_a_fault(
    "at = \"edge\"",
    "place = \"edge\"",
    "a fault has no key `place`",
    "`place` is now `at`",
    "broken.toml:20:1"
)]
#[case::old_table(
    "[symptom]",
    "[[sham]]\nclaim = \"x\"\n\n[symptom]",
    "unknown field `sham`",
    "`sham` is now `claimed_fix`",
    "broken.toml:27:3"
)]
#[case::no_toml("summary =", "summary", "", "", "broken.toml:1:")]
#[case::no_client("profiles =", "users = 0\nprofiles =", "no client would perform the steps", "between 1 and 1000", "")]
#[case::too_many("profiles =", "users = 1001\nprofiles =", "so many clients", "between 1 and 1000", "")]
#[case::outcome_of_a_close("close = 1000", "close = 1000\noutcome = \"http 500\"", "only `open` and `request`", "", "")]
#[case::outcome_without_space(
    "outcome = \"close 1011\"",
    "outcome = \"http503\"",
    "unknown outcome",
    "did you mean `http 503`?",
    ""
)]
#[case::outcome_of_no_status("outcome = \"close 1011\"", "outcome = \"http 999\"", "unknown outcome", "", "")]
#[case::never_gives_up("by = [", "give_up_ms = 5000\nby = [", "would never get to giving up", "within_ms", "")]
#[case::body_of_an_upgrade("by = [", "body = \"x\"\nby = [", "an upgrade has no body", "", "")]
#[case::at_least_of_nothing(
    "[symptom]",
    "[expect.at_least]\nrefused-unavailable = 1\n\n[symptom]",
    "is accepted nowhere",
    "",
    ""
)]
#[case::at_least_too_many(
    "[symptom]",
    "[expect.at_least]\nok = 2\n\n[symptom]",
    "the steps open 1 exchange(s)",
    "",
    ""
)]
#[case::unknown_operation(
    "[expect]",
    "[[fault]]\nat = \"dependency\"\nkind = \"hang\"\ndependency = \"redis\"\noperation = \"pig\"\n\n[expect]",
    "unknown operation `pig`",
    "did you mean `ping`?",
    ""
)]
#[case::no_delay(
    "[expect]",
    "[[fault]]\nat = \"dependency\"\nkind = \"delay\"\ndependency = \"redis\"\ndelay_ms = 0\n\n[expect]",
    "`delay_ms` must be a time of 1 to 3600000 milliseconds",
    "",
    ""
)]
#[case::over_before_it_begins(
    "[expect]",
    "[[fault]]\nat = \"dependency\"\nkind = \"hang\"\ndependency = \"redis\"\nfrom_ms = 5\nuntil_ms = 5\n\n[expect]",
    "over before it begins",
    "",
    ""
)]
#[case::absent_for_ever(
    "[expect]",
    "[[fault]]\nat = \"process\"\nkind = \"absent\"\n\n[expect]",
    "`absent` needs `until_ms`",
    "",
    ""
)]
#[case::absent_later(
    "[expect]",
    "[[fault]]\nat = \"process\"\nkind = \"absent\"\nfrom_ms = 1\nuntil_ms = 9\n\n[expect]",
    "`absent` needs `until_ms`",
    "",
    ""
)]
#[case::unknown_module(
    "[expect]",
    "[[fault]]\nat = \"process\"\nkind = \"missing_module\"\nmodule = \"reddis\"\nuntil_ms = 9\n\n[expect]",
    "unknown module `reddis`",
    "did you mean `redis`?",
    ""
)]
#[case::unknown_variable(
    "[expect]",
    "[[fault]]\nat = \"process\"\nkind = \"unset_variable\"\nname = \"ENVIROMENT\"\n\n[expect]",
    "unknown variable `ENVIROMENT`",
    "did you mean `ENVIRONMENT`?",
    ""
)]
#[case::variable_twice(
    "[expect]",
    "[[fault]]\nat = \"process\"\nkind = \"unset_variable\"\nname = \"TESTING\"\n\n[[fault]]\nat = \"process\"\nkind = \"set_variable\"\nname = \"TESTING\"\nvalue = \"1\"\n\n[expect]",
    "undoes another one",
    "",
    ""
)]
#[case::sham_of_nothing(
    "[symptom]",
    "[[claimed_fix]]\nclaim = \"x\"\ndefects = []\noutcome = \"hang\"\nclass = \"hang\"\nfound_by = []\n\n[symptom]",
    "this claimed fix says nothing",
    "",
    ""
)]
#[case::unknown_sham(
    "[symptom]",
    "[[claimed_fix]]\nclaim = \"x\"\ndefects = [\"random_secre\"]\noutcome = \"hang\"\nclass = \"hang\"\nfound_by = []\n\n[symptom]",
    "unknown defect `random_secre`",
    "did you mean `random_secret`?",
    ""
)]
fn a_broken_case_is_located_and_the_others_still_run(
    #[case] from: &str,
    #[case] to: &str,
    #[case] message: &str,
    #[case] help: &str,
    #[case] place: &str,
) {
    let text = good_text();
    assert!(text.contains(from), "{from}");
    let directory = beside_a_good_case(&text.replacen(from, to, 1));
    let output = relapse(&["run", "--cases", directory.path().to_str().unwrap()]);
    let complaint = stderr(&output);
    assert_eq!(code(&output), Some(2), "{complaint}");
    assert!(complaint.contains(message) && complaint.contains(help) && complaint.contains(place), "{complaint}");
    assert!(complaint.contains("broken.toml:"), "{complaint}");
    assert!(stdout(&output).contains(&format!(" {} FIXED", servers())), "the good case ran: {}", stdout(&output));
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_the_others_still_run() {
    let directory = beside_a_good_case("");
    fs::write(directory.path().join("broken.toml"), b"\xff\xfe not text").unwrap();
    let output = relapse(&["run", "--cases", directory.path().to_str().unwrap()]);
    assert_eq!(code(&output), Some(2));
    assert!(
        stderr(&output).contains("is not UTF-8 here") && stderr(&output).contains("broken.toml:1:1"),
        "{}",
        stderr(&output)
    );
    assert!(stdout(&output).contains(&format!(" {} FIXED", servers())));
}

/// Nothing is installed for a case file that cannot be read: the only error is about the file.
#[rstest]
#[case::packages(&["--target", "asgi:service:app @ no-such-package==0.0.1"])]
#[case::server(&["--target", "asgi:service:app", "--server", "uvicorn==0.0.1"])]
#[case::before(&["--target", "asgi:service:app", "--before", "asgi:service:app @ no-such-package==0.0.1"])]
#[case::not_there_too(&["nothing_like_this", "--target", "asgi:service:app @ no-such-package==0.0.1"])]
fn case_files_are_checked_before_anything_is_installed(#[case] target: &[&str]) {
    let directory = TempDir::new().unwrap();
    let broken = directory.path().join("broken.toml");
    fs::write(&broken, "summary = \"A mistake.\"\n\n[[step]]\nopn = \"/ws\"\n").unwrap();
    let output = relapse(&[&["run", broken.to_str().unwrap()], target].concat());
    let told = stderr(&output);
    assert_eq!((code(&output), stdout(&output).as_str()), (Some(2), ""), "{told}");
    assert!(told.contains("unknown field `opn`") && told.contains("did you mean `open`?"), "{told}");
    let complaints = told.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(complaints, 1 + usize::from(target.len() % 2 == 1), "{told}");
    assert!(!told.contains("note: "), "nothing else is begun: {told}");
}

/// A command is one line that a shell takes apart again as it was.
#[test]
fn arguments_are_quoted_for_a_shell() {
    let odd = [
        "",
        "plain",
        "a b",
        "it's",
        "$HOME `id` \"x\"",
        "a\\nb",
        "a\nb\t\r'\u{1b}[0m\\",
        "gr\u{fc}n",
        "*",
        "~",
        "=x",
        "#",
    ];
    let odd = [&odd[..], &["X=\"$X\"y", "a;b=\"$a;b\"", "\u{85}"]].concat();
    let line = relapse::trial::shell(&odd.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    assert!(!line.contains(char::is_control), "{line:?}");
    let script = format!("printf '%s\\0' {line}");
    let output = Command::new("/bin/bash").args(["-c", &script]).env_clear().output().unwrap();
    let taken = String::from_utf8(output.stdout).unwrap();
    assert_eq!(taken.split_terminator('\0').collect::<Vec<_>>(), odd, "{line}");
    // A secret comes from the environment of the shell.
    assert_eq!(relapse::trial::shell(&["TOKEN=\"$TOKEN\"".to_owned()]), "TOKEN=\"$TOKEN\"");
    assert_eq!(relapse::trial::option("--env", "-A=b".to_owned()), ["--env=-A=b"]);
}

#[rstest]
#[case::empty_directory(&["run", "--cases", "EMPTY"], "could not find any case file")]
#[case::no_directory(&["run", "--cases", "EMPTY/none"], "could not read the directory")]
#[case::old_option(&["hunt", "--capsules", "there"], "this option is now `--reproducers`")]
#[case::old_option_of_replay(&["replay", "--capsules=there"], "this option is now `--reproducers`")]
#[case::old_service_file(&["validate", "--target", "ws://127.0.0.1:1", "--binding", "x.toml"], "this option is now `--service-file`")]
#[case::selects_nothing(&["run", "509"], "did you mean `508`?")]
#[case::selects_no_name(&["run", "s135_1_token_in_qery"], "did you mean `s135_1_token_in_query`?")]
#[case::unknown_profile(&["run", "--profile", "uvicorn-0.53"], "did you mean `uvicorn-0.54`?")]
#[case::unknown_option(&["run", "--profil", "x"], "--profile")]
#[case::unknown_format(&["run", "--format", "yaml"], "human")]
#[case::no_jobs(&["run", "--jobs", "0"], "--jobs")]
#[case::unknown_defect(&["hunt", "--defect", "manager_leak"], "did you mean `managers_leak`?")]
#[case::no_cases(&["hunt", "--cases", "0"], "--cases")]
fn misuse_is_explained(#[case] arguments: &[&str], #[case] expected: &str) {
    let empty = TempDir::new().unwrap();
    let path = empty.path().to_str().unwrap();
    let arguments: Vec<String> = arguments.iter().map(|argument| argument.replace("EMPTY", path)).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = relapse(&arguments);
    assert_eq!(code(&output), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
}

/// Profiles are named by globs too, and each runs once.
#[test]
fn profiles_are_named_by_globs() {
    let arguments = ["run", "S517-2", "--profile", "uvicorn-0.54*", "--profile", "uvicorn-*-wsproto"];
    let told = stdout(&relapse(&arguments));
    assert!(told.contains(" uvicorn-0.54* ") && told.contains("4 trial(s): 4 FIXED"), "{told}");
}

/// A directory with a profile of the user's own, which behaves as a known one.
fn own_profile() -> (TempDir, String) {
    let directory = TempDir::new().unwrap();
    let known = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/profiles/servers/granian-2.8.toml");
    let text = fs::read_to_string(known).unwrap().replace("granian-2.8", "mine");
    let path = directory.path().join("mine.toml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

/// A file of the user's own is a profile, for the command and for a case, and the printed command names it.
#[test]
fn a_profile_is_a_file() {
    let (directory, path) = own_profile();
    let run = ["run", "S517-2", "--profile", &path, "--profile", "daphne-4.2", "--format", "json"];
    let document: Value = serde_json::from_slice(&relapse(&run).stdout).unwrap();
    let entries = document["cases"].as_array().unwrap();
    let servers: Vec<&str> = entries.iter().map(|entry| entry["profile"].as_str().unwrap()).collect();
    assert_eq!(servers, [&path, "daphne-4.2"]);
    assert_eq!(entries[0]["before"]["outcome"], "close without code (1005)");
    assert!(entries[0]["reproduce"].as_str().unwrap().contains(&path), "{}", entries[0]["reproduce"]);
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases/upgrade/s488_3_unknown_path.toml");
    let text = fs::read_to_string(case).unwrap().replace(r#"["all"]"#, &format!("[{path:?}]"));
    let case = directory.path().join("case.toml");
    fs::write(&case, text).unwrap();
    let output = relapse(&["run", case.to_str().unwrap()]);
    assert!(stdout(&output).contains("1 trial(s): 1 FIXED"), "{}{}", stdout(&output), stderr(&output));
}

/// A mistake in a file of the user's own is shown where it is.
#[rstest]
#[case::profile(&["run", "S517-2", "--profile"], "unknown field `order_of`")]
#[case::load_balancer(&["proxy", "--upstream", "http://127.0.0.1:1", "--lb"], "missing field `title`")]
fn a_file_of_the_users_own_is_held_to_its_format(#[case] arguments: &[&str], #[case] expected: &str) {
    let (_directory, path) = own_profile();
    let text = fs::read_to_string(&path).unwrap().replace("order =", "order_of =");
    fs::write(&path, text).unwrap();
    let output = relapse(&[arguments, &[&path]].concat());
    let told = stderr(&output);
    assert!(code(&output) == Some(2) && told.contains(expected) && told.contains("mine.toml:"), "{told}");
    let output = relapse(&[arguments, &["none.toml"]].concat());
    assert!(code(&output) == Some(2) && stderr(&output).contains("none.toml"), "{}", stderr(&output));
}

#[test]
fn a_filter_that_selects_nothing_does_not_keep_the_others_from_running() {
    let output = relapse(&["run", "S488-3", "S999-1", "--format", "json"]);
    assert_eq!(code(&output), Some(2));
    assert!(stderr(&output).contains("could not select any case with `S999-1`"), "{}", stderr(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["cases"].as_array().map(Vec::len), Some(2 * servers()));
    assert_eq!(document["errors"].as_array().map(Vec::len), Some(1));
}

#[rstest]
#[case::repaired(&["hunt", "--cases", "60"], 0, "0 finding(s)")]
#[case::defective(&["hunt", "--cases", "20", "--defect", "managers_leak"], 1, "no_residue")]
#[case::json(&["hunt", "--cases", "20", "--defect", "managers_leak", "--format", "json"], 1, "\"key\": \"no_residue")]
#[case::legal(&["hunt", "--cases", "60", "--legal-only", "--faults", "scope,event"], 0, "0 finding(s)")]
#[case::nothing_reached(&["hunt", "--cases", "5", "--shard", "9/10"], 2, "0 finding(s)")]
#[case::no_shard(&["hunt", "--shard", "5/4"], 2, "")]
#[case::no_place(&["hunt", "--faults", "scop"], 2, "")]
#[case::no_time(&["hunt", "--time", "soon"], 2, "")]
fn a_hunt_says_what_it_found(#[case] arguments: &[&str], #[case] exit: i32, #[case] expected: &str) {
    let output = relapse(arguments);
    assert_eq!(code(&output), Some(exit), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains(expected), "{}", stdout(&output));
}

/// The printed command of a finding finds it again.
#[test]
fn a_finding_is_found_again() {
    let arguments = ["hunt", "--cases", "60", "--defect", "exception_as_close_reason", "--seed", "7"];
    let again = |output: &Output| {
        let text = stdout(output);
        let line = text.lines().find_map(|line| line.strip_prefix("reproduce: relapse ")).expect("a replay line");
        line.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let key = "no_internal_close: app-sent-1011";
    let output = relapse(&arguments);
    assert!(stdout(&output).contains(key), "{}", stdout(&output));
    let replayed = relapse(&again(&output).iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code(&replayed), Some(1));
    assert!(stdout(&replayed).contains(key), "{}", stdout(&replayed));
    // As a reproducer it is gone on the repaired service, and replayed before the next hunt.
    let directory = tempfile::tempdir().unwrap();
    let capsules = directory.path().to_str().unwrap();
    let kept = relapse(&[&arguments[..], &["--reproducers", capsules]].concat());
    let replayed = relapse(&again(&kept).iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code(&replayed), Some(0), "{}{}", stdout(&replayed), stderr(&replayed));
    assert!(stdout(&replayed).contains("1 FIXED"), "{}", stdout(&replayed));
    let next = relapse(&["hunt", "--cases", "60", "--reproducers", capsules]);
    assert!(stdout(&next).starts_with("1 reproducer(s) replayed, 1 FIXED\n"), "{}", stdout(&next));
    assert_eq!(code(&next), Some(0));
}

/// A reproducer that is still broken, or no case at all, fails the hunt that replays it.
#[test]
fn a_hunt_fails_on_a_capsule_that_is_not_fixed() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/capsules/loop_goes_on.toml")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let capsule = directory.path().join("capsule.toml");
    let hunt = || relapse(&["hunt", "--cases", "60", "--reproducers", directory.path().to_str().unwrap()]);
    fs::write(&capsule, text.replace("accept = [\"ok\"]", "accept = [\"refused-unavailable\"]")).unwrap();
    assert_eq!(code(&hunt()), Some(1));
    fs::write(&capsule, "summary = 1").unwrap();
    assert_eq!(code(&hunt()), Some(2));
}

/// The parts of a campaign, hunted apart, make the whole.
#[test]
fn the_parts_of_a_campaign_merge() {
    let directory = tempfile::tempdir().unwrap();
    let none = directory.path().join("none");
    let hunt = |more: &[&str]| {
        let always = ["hunt", "--cases", "90", "--defect", "managers_leak", "--format", "json"];
        stdout(&relapse(&[&always[..], more].concat()))
    };
    let paths: Vec<String> = (1..=3)
        .map(|part| {
            let path = directory.path().join(format!("{part}.json"));
            fs::write(&path, hunt(&["--shard", &format!("{part}/3")])).unwrap();
            path.display().to_string()
        })
        .collect();
    let mut arguments = vec!["hunt", "--format", "json", "--merge"];
    arguments.extend(paths.iter().map(String::as_str));
    let merged = relapse(&arguments);
    assert_eq!(code(&merged), Some(1));
    let [merged, whole]: [Value; 2] = [stdout(&merged), hunt(&[])].map(|text| serde_json::from_str(&text).unwrap());
    assert_eq!(merged["coverage"], whole["coverage"]);
    let keys = |report: &Value| {
        let found = report["found"].as_array().unwrap().iter().map(|found| found["key"].to_string());
        found.collect::<Vec<_>>()
    };
    assert_eq!(keys(&merged), keys(&whole));
    // A part that is there already, and one of another campaign, are none of it.
    let other = directory.path().join("other.json");
    fs::write(&other, stdout(&relapse(&["hunt", "--cases", "20", "--seed", "500", "--format", "json"]))).unwrap();
    for stranger in [paths[0].as_str(), other.to_str().unwrap()] {
        let refused = relapse(&["hunt", "--merge", &paths[0], stranger]);
        assert_eq!(code(&refused), Some(2), "{}", stderr(&refused));
    }
    assert_eq!(merged["seeds"], serde_json::json!([[1, 30], [31, 30], [61, 30]]));
    let absent = relapse(&["hunt", "--merge", none.to_str().unwrap()]);
    assert_eq!(code(&absent), Some(2));
}

/// The figures of a detection: found soon, or named as not found.
#[test]
fn a_detection_says_what_it_takes() {
    let output = relapse(&["hunt", "--detection", "--cases", "3"]);
    let text = stdout(&output);
    assert_eq!(code(&output), Some(1), "three cases are too few: {text}");
    assert!(text.contains("shared_thread") && text.contains("> 3"), "{text}");
    assert!(
        text.lines().any(|line| line.contains("query_params_on_url") && line.contains("no_server_error")),
        "{text}"
    );
}

/// Each way not to be FIXED, provoked by a case that claims something untrue.
#[rstest]
#[case::wrong_symptom("outcome = \"close 1011\"", "outcome = \"close 1012\"", "not-reproduced", 1)]
#[case::wrong_log("log = \"No JWT", "log = \"No such text", "not-reproduced", 1)]
#[case::wrong_cause("cause = \"app-sent-1011\"", "cause = \"keepalive-timeout\"", "not-reproduced", 1)]
#[case::silent_check("found_by = [\"no_internal_close\"]", "found_by = [\"no_drop\"]", "not-reproduced", 1)]
#[case::wrong_class_accepted("accept = [\"ok\"]", "accept = [\"refused-request\"]", "still-broken", 1)]
#[case::idle_fault(
    "header = \"Authorization\"",
    "header = \"Authorization\"\nnth = 1\ntimes = 1\n\n[[fault]]\nat = \"dependency\"\nkind = \"fail\"\ndependency = \"secret_manager\"\nerror = \"x\"",
    "not-exercised",
    1
)]
fn a_claim_that_is_not_true_is_not_fixed(
    #[case] from: &str,
    #[case] to: &str,
    #[case] verdict: &str,
    #[case] exit: i32,
) {
    let text = good_text().replacen("profiles = [\"all\"]\n", "", 1);
    // Without the other servers there is nothing to say about them.
    let text = text.split("# Daphne").next().unwrap();
    assert!(text.contains(from), "{from}");
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("claim.toml");
    fs::write(&file, text.replacen(from, to, 1)).unwrap();
    let output = relapse(&["run", file.to_str().unwrap(), "--format", "json"]);
    assert_eq!(code(&output), Some(exit), "{}{}", stdout(&output), stderr(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["cases"][0]["verdict"], verdict, "{}", document["cases"][0]["why"]);
    assert_ne!(document["cases"][0]["why"], "");
}

/// Every command, as arguments: those that help lists, and those below them.
fn commands() -> Vec<Vec<String>> {
    let (mut found, mut open) = (Vec::new(), vec![Vec::new()]);
    while let Some(command) = open.pop() {
        let help = help(&command, "-h", 100);
        let listed = help.split("Commands:\n").nth(1).unwrap_or_default().lines();
        let listed = listed.take_while(|line| line.starts_with("  ")).map(|line| &line[2..]);
        // A line that goes on is indented further.
        let names = listed.filter(|line| !line.starts_with(' ')).filter_map(|line| line.split_whitespace().next());
        for name in names.filter(|name| *name != "help") {
            open.push([&command[..], &[name.to_owned()]].concat());
        }
        found.push(command);
    }
    assert!(found.len() >= 14, "{found:?}");
    found
}

/// The help of a command on a terminal so many characters wide.
fn help(command: &[String], option: &str, width: usize) -> String {
    let mut relapse = crate::support::relapse_command();
    relapse.env_clear().env("COLUMNS", width.to_string()).args(command).arg(option);
    let output = relapse.output().unwrap();
    assert_eq!(code(&output), Some(0), "{command:?}");
    stdout(&output)
}

fn assert_fits(text: &str, width: usize) {
    for line in text.lines() {
        // A word has no place to be broken.
        let is_one_word = line.split_whitespace().count() == 1;
        assert!(line.chars().count() <= width || is_one_word, "wider than {width}: {line}");
    }
}

#[test]
fn short_help_fits_one_screen() {
    for command in commands() {
        let text = help(&command, "-h", 100);
        assert!(
            text.lines().count() <= 40,
            "relapse {} -h has {} lines:\n{text}",
            command.join(" "),
            text.lines().count()
        );
        assert_fits(&text, 100);
    }
}

#[test]
fn long_help_wraps_at_the_width_of_the_terminal() {
    for command in commands() {
        let narrow = help(&command, "--help", 80);
        assert_fits(&narrow, 80);
        let wide = help(&command, "--help", 200);
        assert_fits(&wide, 100);
        assert!(narrow.lines().count() > wide.lines().count(), "{command:?}");
    }
}

/// The options of a command with many are grouped.
#[rstest]
#[case("run")]
#[case("hunt")]
#[case("validate")]
#[case("init")]
#[case("conform")]
fn help_has_headings(#[case] command: &str) {
    let text = help(&[command.to_owned()], "-h", 100);
    let headings: Vec<&str> = text.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).collect();
    assert!(headings.ends_with(&["Options:", "Target:", "Python application:"]), "{headings:?}");
}

#[test]
fn the_exit_codes_stand_in_help_and_readme() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let table = readme.split("\n## Exit codes\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert_eq!(rows, CommandExit::ALL.map(|exit| format!("| {} | {} |", exit.number(), exit.meaning())));
    for command in commands() {
        let text = help(&command, "--help", 100).split_whitespace().collect::<Vec<_>>().join(" ");
        for exit in CommandExit::ALL {
            let row = format!(" {} {}", exit.number(), exit.meaning());
            assert!(text.contains(&row), "relapse {} --help lacks {row:?}", command.join(" "));
        }
    }
}

/// A command refuses a format that has nothing for it, and names those that have.
#[rstest]
#[case::verdicts(&["run", "S508-1"], "markdown", |format: &Renderer| format.verdicts.is_some())]
#[case::log(&["proxy", "--upstream", "ws://127.0.0.1:1"], "markdown", |format: &Renderer| format.log.is_some())]
#[case::unknown(&["list"], "yaml", |format: &Renderer| format.catalogue.is_some())]
fn a_format_without_the_result_is_refused(
    #[case] arguments: &[&str],
    #[case] asked: &str,
    #[case] has_it: fn(&Renderer) -> bool,
) {
    let names = RENDERERS.iter().filter(|format| has_it(format)).map(|format| format.name).collect::<Vec<_>>();
    assert!(names.len() > 1 && !names.contains(&asked), "{names:?}");
    let output = relapse(&[arguments, &["--format", asked]].concat());
    assert_eq!(code(&output), Some(2));
    let expected = format!("[possible values: {}]", names.join(", "));
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
}
