//! Clients that get things that are not their own: each app with one mistake, and the same app without it.

use std::collections::BTreeSet;

use rstest::rstest;
use serde_json::Value;

use crate::rulings::{ONE, app, relapse, run};

/// A path that is answered with the token's own value a moment later, through one variable for all.
const PROFILE: &str = r#"
now = []

async def me(scope, receive, send):
    name = query(scope).get("name", "")
    if name:
        now[:] = [name]
    await asyncio.sleep(0.02)
    await answer(send, 200, OWN.encode())
"#;

/// Both clients ask in turn, at the same time, and in turn.
fn at_once() -> String {
    let ask = |name: &str| format!("\n[[step]]\nas = \"{name}\"\nrequest = \"GET /me\"\nquery = \"name={name}\"\n");
    let in_turn = [ask("ann"), ask("ben")].concat().repeat(2);
    let together = ask("ann") + "answer = \"later\"\n" + &ask("ben") + "\n[[step]]\nas = \"ann\"\nread_answer = true\n";
    let summary = "summary = \"Each client gets its own answer.\"\n";
    [summary, &in_turn, &together, &in_turn, "\n[expect]\naccept = [\"ok\"]\n"].concat()
}

/// A body that is kept, of which the first piece or all of it is read.
const BLOB: &str = r#"
kept = {}

async def blob(scope, receive, send):
    if scope["method"] == "GET":
        return await answer(send, 200, kept.get("body", b""))
    body = b""
    while True:
        event = await receive()
        body += event.get("body", b"")
        if READ:
            break
    kept["body"] = body
    await answer(send, 201, SAYS)
"#;

/// A request is told how long it took.
const TIMED: &str = r#"
async def blob(scope, receive, send):
    start = asyncio.get_running_loop().time()
    while (await receive()).get("more_body"):
        pass
    took = round((asyncio.get_running_loop().time() - start) * 1000)
    await answer(send, 200, json.dumps({"took_ms": took}).encode())
"#;

/// A body that comes in pieces between others that come whole, each with a look at what is kept.
fn in_pieces() -> String {
    let mut case = "summary = \"A body means the same in pieces.\"\n".to_owned();
    for number in 0..5 {
        case += "\n[[step]]\nrequest = \"PUT /blob\"\nbody = \"0123456789012345678901234567890123456789\"\n";
        case += if number == 2 { "slice_bytes = 20\nslice_pause_ms = 20\n" } else { "" };
        case += "\n[[step]]\nrequest = \"GET /blob\"\n";
    }
    case + "\n[expect]\naccept = [\"ok\"]\n"
}

/// A list of those who are told what is posted.
const NEWS: &str = r#"
told = []

async def news(scope, receive, send):
    if scope["type"] == "http":
        for other in list(told):
            await say(other, "news")
        return await answer(send, 200)
    await opened(receive, send)
    while (await receive())["type"] != "websocket.disconnect":
        if MAY_BE_TOLD:
            told.append(send)
        await say(send, "subscribed")
    told[:] = [other for other in told if other is not send]
"#;

/// One subscribes twice, the other once; then there is news, twice.
const TWICE: &str = r#"
summary = "Whoever subscribes twice is told once."
step = [
    { as = "ann", open = "/news" },
    { as = "ben", open = "/news" },
    { as = "ann", send = "subscribe" },
    { as = "ben", send = "subscribe" },
    { as = "ann", send = "subscribe" },
    { as = "cat", request = "POST /news" },
    { as = "cat", request = "POST /news" },
]

[expect]
accept = ["ok"]
"#;

/// Each visitor has a basket, or the class has one for all; TELLS everyone what is put in.
const BASKET: &str = r#"
there = []

class Visitor:
    BASKET

    def __init__(self):
        OWN

    async def serve(self, receive, send):
        there.append(send)
        await say(send, json.dumps(self.basket))
        while (event := await receive())["type"] != "websocket.disconnect":
            self.basket.append(event["text"])
            for other in TELLS:
                await say(other, json.dumps(self.basket))
        there.remove(send)

async def shop(scope, receive, send):
    await opened(receive, send)
    await Visitor().serve(receive, send)
"#;

/// One fills its basket while another one is there; then a third one comes.
const SHOPPING: &str = r#"
summary = "A basket is empty at first."
step = [
    { as = "ann", open = "/shop" },
    { as = "ben", open = "/shop" },
    { as = "ann", send = "apple" },
    { as = "cat", open = "/shop" },
    { as = "cat", pause_ms = 100 },
]

[expect]
accept = ["ok"]
"#;

fn shop(held: &str, own: &str, tells: &str) -> String {
    BASKET.replace("BASKET", held).replace("OWN", own).replace("TELLS", tells)
}

/// The checks with a finding, and the verdict.
fn judged(functions: &str, case: &str) -> (String, Vec<String>, Value) {
    let directory = app(functions);
    let (_, verdict, entry) = run(directory.path(), case, &ONE);
    let findings = entry["after"]["findings"].as_array().cloned().unwrap_or_default();
    let checks = findings.iter().filter_map(|finding| Some(finding["check"].as_str()?.to_owned())).collect();
    (verdict, checks, entry)
}

/// An app, and the check that complains of it.
struct Mixup {
    name: &'static str,
    functions: String,
    case: String,
    /// `None` where the app does nothing wrong.
    found: Option<&'static str>,
}

fn mixups() -> Vec<Mixup> {
    let row = |name, functions, case, found| Mixup { name, functions, case, found };
    let blob = |reads: &str, says: &str| BLOB.replace("READ", reads).replace("SAYS", says);
    let profile = |own: &str| PROFILE.replace("OWN", own);
    let news = |told: &str| NEWS.replace("MAY_BE_TOLD", told);
    let (twice, shopping) = (|| TWICE.to_owned(), || SHOPPING.to_owned());
    vec![
        row("mixed up", profile("now[0]"), at_once(), Some("answers_agree")),
        row("own answer", profile("name"), at_once(), None),
        // An answer that changes each time says nothing.
        row("counted", profile("(now.append(1) or str(len(now)))"), at_once(), None),
        row("first piece", blob("True", "str(len(body)).encode()"), in_pieces(), Some("answers_agree")),
        row("first piece is kept", blob("True", "b'kept'"), in_pieces(), Some("answers_agree")),
        row("whole body", blob("not event.get('more_body')", "str(len(body)).encode()"), in_pieces(), None),
        // How long a request took is no answer of another kind.
        row("timed", TIMED.to_owned(), in_pieces(), None),
        row("subscribed twice", news("True"), twice(), Some("delivered_once")),
        row("subscribed once", news("send not in told"), twice(), None),
        row("basket of the class", shop("basket = []", "pass", "[send]"), shopping(), Some("own_state")),
        row("own basket", shop("basket = []", "self.basket = []", "[send]"), shopping(), None),
        row("said to be of the class", shop("basket: 'ClassVar[list]' = []", "pass", "[send]"), shopping(), None),
        // A basket of all is told to all.
        row("basket for all", shop("basket = []", "pass", "there"), shopping(), None),
    ]
}

/// The checks that are seen to fail here.
pub(crate) fn checks_seen() -> BTreeSet<&'static str> {
    mixups().iter().filter_map(|mixup| mixup.found).collect()
}

#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_client_gets_its_own_and_once() {
    for Mixup { name, functions, case, found } in mixups() {
        let (verdict, checks, entry) = judged(&functions, &case);
        match found {
            Some(check) => {
                let is_found = verdict == "failed" && checks.iter().any(|found| found == check);
                assert!(is_found, "{name}: {checks:?}: {entry:#}");
            }
            None => assert!(verdict == "passed" && checks.is_empty(), "{name}: {checks:?}: {entry:#}"),
        }
    }
}

/// A hunt draws what shows them, by a conversation that was recorded.
#[rstest]
#[case::first_piece("blob", in_pieces(), BLOB.replace("READ", "True").replace("SAYS", "b'kept'"), "answers_agree")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_hunt_finds_it(#[case] _name: &str, #[case] recorded: String, #[case] functions: String, #[case] check: &str) {
    let directory = app(&functions);
    std::fs::write(directory.path().join("recorded.toml"), recorded).unwrap();
    let hunt = ["hunt", "--cases", "600", "--jobs", "1", "--recorded", "recorded.toml"];
    let options: Vec<&str> = hunt.into_iter().chain(ONE).collect();
    let (code, printed, said) = relapse(directory.path(), &options);
    assert!(code == Some(1) && printed.contains(check), "{printed}{said}");
}
