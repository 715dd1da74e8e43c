//! A finding as a test in Python that needs only the application: it replays the events that the application received,
//! and asserts the property that does not hold.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::recording::is_secret;
use relapse_core::{
    asgi::{
        event::Inbound,
        exception::Exception,
        scope::{Scope, ScopeType},
        value::Value,
    },
    fault::{EventFault, FaultKind},
    judge::{
        cause::Cause,
        check::RunView,
        classify::Exchange,
        outcome::{Class, Ending},
        verdict::{FindingKey, Rule},
    },
    record::transcript::EventKind,
};
use relapse_simulate::profile::Profile;

/// The code that replays the events.
const PLAYER: &str = include_str!("pytest.py");

/// The exception that some servers raise.
const GONE: &str = "class Gone(OSError):\n    \"\"\"What a server raises from send() once the client is gone.\"\"\"\n";

/// How long a connection may take beyond what it took when it was recorded, in seconds.
const LIMIT_S: u64 = 10;

/// From which time on an event is waited for, in seconds.
const NOTICED_S: f64 = 0.05;

/// From how many equal characters on a text is written shorter than it is.
const RUN_MIN: usize = 64;

/// How an application is loaded by a test.
#[derive(Debug)]
pub struct Loaded {
    /// The application, `module:attribute`.
    pub app: String,
    /// Whether the attribute is a function that makes it.
    pub factory: bool,
    /// Its directory, from the test's.
    pub directory: String,
    /// Environment variables that it is given.
    pub environment: Vec<(String, String)>,
    /// A token that is not to stand in a file, and the Python expression, a text, that gives it.
    pub secret: Option<(String, String)>,
}

/// The description of a test.
#[derive(Debug)]
pub struct Heading<'a> {
    /// The name of what was found: letters, digits and `_`.
    pub name: &'a str,
    /// The keys of the finding, and of the other findings.
    pub keys: Vec<&'a FindingKey>,
    /// The finding.
    pub message: &'a str,
    /// The seed that drew it.
    pub seed: u64,
    /// The command that shows it again.
    pub again: &'a str,
    /// How its application is loaded.
    pub loaded: &'a Loaded,
}

/// A property that can be looked at without a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TestedProperty {
    Raises,
    Sends,
    Status,
    Internal,
    Close,
    Body,
    Leak,
    Errors,
    Time,
}

/// The test; nothing where what was found is about more than what an application gets and sends.
pub fn render(heading: &Heading<'_>, evidence: &RunView<'_>, profile: &Profile) -> Option<String> {
    let properties = properties(heading, evidence);
    if properties.is_empty() {
        return None;
    }
    let loaded = heading.loaded;
    let writer = Writer { secret: loaded.secret.as_ref().map(|(token, _)| token.as_str()) };
    let mut text = format!(
        "\"\"\"{}.\n\nFound by `relapse hunt`, seed {}. What the application got and what became of its sends is played \
         again here, event by\nevent, as {} gave it: with pytest, or as a program. The whole of it again:\n\n    {}\n\"\"\"\n\n",
        docstring(&capitalized(heading.message)),
        heading.seed,
        profile.name,
        docstring(heading.again),
    );
    let logging = if properties.contains(&TestedProperty::Errors) { "import gc\n" } else { "" };
    let logs = if properties.contains(&TestedProperty::Errors) { "import logging\n" } else { "" };
    let _ = write!(
        text,
        "import asyncio\n{logging}import importlib\n{logs}import os\nimport sys\nfrom pathlib import Path\n\n\
         APP = {}\nFACTORY = {}\nDIRECTORY = Path(__file__).resolve().parent / {}\nENVIRONMENT = {}\n",
        quote(&loaded.app),
        if loaded.factory { "True" } else { "False" },
        quote(&loaded.directory),
        writer.dict(loaded.environment.iter().map(|(name, value)| {
            // Secrets are read from the environment, not written down.
            (name.as_str(), if is_secret(name) { format!("os.environ[{}]", quote(name)) } else { quote(value) })
        })),
    );
    if let Some((_, expression)) = &loaded.secret {
        let _ = writeln!(text, "TOKEN = {expression}");
    }
    let is_hang = evidence.outcomes.iter().any(|outcome| matches!(outcome.ending, Ending::Hang { .. }));
    let took = evidence.transcript.events.last().map_or(0, |event| event.at.as_secs());
    let limit = if is_hang { LIMIT_S } else { LIMIT_S + took };
    let _ = writeln!(text, "LIMIT = {limit}  # seconds for each connection");
    let _ = writeln!(text, "NOBODY_LEAVES = {}", if is_hang { "True" } else { "False" });
    text.push_str("\n\n");
    text.push_str(GONE);
    text.push_str(
        "\n\n# For each connection its scope; at which second, and after how many sends, the application receives what; and\n\
         # for some of its sends how many seconds they take and what they raise.\nCONNECTIONS = [\n",
    );
    for (exchange, reading) in evidence.readings.iter().enumerate() {
        writer.connection(&mut text, reading, exchange, profile);
    }
    let _ = write!(text, "]\n\n\ndef test_{}():\n", heading.name);
    if properties.contains(&TestedProperty::Errors) {
        text.push_str(ERRORS_BEFORE);
    }
    text.push_str("    for connection in connections():\n");
    text.push_str(TIME);
    properties.iter().for_each(|property| text.push_str(property.assertion()));
    if properties.contains(&TestedProperty::Errors) {
        text.push_str(ERRORS_AFTER);
    }
    if properties.contains(&TestedProperty::Sends) {
        let _ = write!(text, "\n\n{}", SENDS_MACHINE.trim_end());
        text.push('\n');
    }
    let _ = write!(text, "\n\n{}\n", PLAYER.trim_end());
    let _ = write!(text, "\n\nif __name__ == \"__main__\":\n    test_{}()\n", heading.name);
    Some(text)
}

/// The properties that do not hold, as far as the application's own events show it.
fn properties(heading: &Heading<'_>, evidence: &RunView<'_>) -> Vec<TestedProperty> {
    let escapes = |reading: &Exchange<'_>| {
        reading.escaped().is_some() && !reading.is_escape_injected() && reading.machine().is_some()
    };
    let has_escaped = evidence.readings.iter().any(escapes);
    let mut found = if has_escaped { vec![TestedProperty::Raises] } else { Vec::new() };
    let is_bad = |class: Class| evidence.outcomes.iter().any(|outcome| outcome.class == class);
    for key in &heading.keys {
        let subject = key.subject.as_deref().unwrap_or_default();
        found.extend(match key.rule {
            Rule::Check("asgi_conformance") => Some(TestedProperty::Sends),
            Rule::Check("no_server_error") if !has_escaped && !is_abandoned(evidence) => Some(TestedProperty::Status),
            Rule::Check("no_internal_close") if !has_escaped => Some(TestedProperty::Internal),
            Rule::Check("legal_close") => Some(TestedProperty::Close),
            Rule::Check("body_complete") if !has_escaped => Some(TestedProperty::Body),
            Rule::Check("no_leak_in_answers") => Some(TestedProperty::Leak),
            Rule::Check("no_error_log" | "no_error_log_for_client_fault")
                if !subject.starts_with("Exception in ASGI") =>
            {
                Some(TestedProperty::Errors)
            }
            Rule::Check("bounded_wait" | "handler_ends" | "no_residue") => Some(TestedProperty::Time),
            Rule::Class(Class::Hang) if is_bad(Class::Hang) => Some(TestedProperty::Time),
            Rule::Class(_) | Rule::Check(_) if subject == Cause::ReturnedWithoutResponse.name() => {
                Some(TestedProperty::Sends)
            }
            Rule::Class(_) | Rule::Check(_) | Rule::NoPanic => None,
        });
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn is_abandoned(evidence: &RunView<'_>) -> bool {
    evidence.outcomes.iter().any(|outcome| outcome.cause == Cause::ReturnedWithoutResponse)
}

const TIME: &str = "        assert not connection.is_late, f\"the application's call did not end within {LIMIT} s\"\n";

const ERRORS_BEFORE: &str = "    errors = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: errors.append(record.getMessage())
    logging.getLogger().addHandler(handler)
";

const ERRORS_AFTER: &str = "    gc.collect()  # Then asyncio logs exceptions of tasks that were not awaited.
    logging.getLogger().removeHandler(handler)
    assert not errors, f\"logged as an error: {errors[0]}\"
";

const SENDS_MACHINE: &str = "def breach(connection):
    \"\"\"What ASGI does not let an application send, or leave out.\"\"\"
    state, is_gone = \"connecting\", connection.is_left or connection.is_told_gone
    for event in connection.sent:
        name = event.get(\"type\", \"\").removeprefix(\"websocket.\" if \"http\" in event.get(\"type\", \"\") else \"\")
        following = {
            (\"websocket.accept\", \"connecting\"): \"open\",
            (\"websocket.send\", \"open\"): \"open\",
            (\"websocket.close\", \"connecting\"): \"over\",
            (\"websocket.close\", \"open\"): \"over\",
            (\"http.response.start\", \"connecting\"): \"responding\",
            (\"http.response.body\", \"responding\"): \"responding\" if event.get(\"more_body\") else \"over\",
        }
        if (name, state) not in following or name.startswith(\"websocket\") > (connection.scope[\"type\"] == \"websocket\"):
            return None if is_gone else f\"{event.get('type')} was sent while the exchange was {state}\"
        state = following[name, state]
    return None if state == \"over\" or is_gone else f\"the application left the exchange {state}\"
";

impl TestedProperty {
    fn assertion(self) -> &'static str {
        match self {
            TestedProperty::Raises => {
                "        assert connection.raised is None, f\"{connection.raised!r} left the application\"\n"
            }
            TestedProperty::Sends => "        wrong = breach(connection)\n        assert wrong is None, wrong\n",
            TestedProperty::Status => {
                "        for event in connection.sent:\n            assert event.get(\"status\") not in (500, 502, 504), f\"the client got HTTP {event['status']}\"\n"
            }
            TestedProperty::Internal => {
                "        for event in connection.sent:\n            assert event.get(\"code\") != 1011, \"the client got a close 1011\"\n"
            }
            TestedProperty::Close => {
                "        for event in connection.sent:\n            if event[\"type\"] == \"websocket.close\":\n                code, reason = event.get(\"code\") or 1000, event.get(\"reason\") or \"\"\n                is_code = code in (*range(1000, 1004), *range(1007, 1015), *range(3000, 5000))\n                assert is_code, f\"{code} may not stand in a close frame\"\n                assert len(reason.encode()) <= 123, f\"a close reason of {len(reason.encode())} bytes; 123 fit\"\n"
            }
            TestedProperty::Body => {
                "        bodies = [event.get(\"body\", b\"\") for event in connection.sent if event[\"type\"] == \"http.response.body\"]\n        headers = [dict(event.get(\"headers\", ())) for event in connection.sent if \"status\" in event]\n        announced = headers[0].get(b\"content-length\") if headers else None\n        length = sum(map(len, bodies))\n        assert announced in (None, b\"%d\" % length), f\"{length} bytes came of {announced} announced\"\n"
            }
            TestedProperty::Leak => {
                "        said = \"\".join(map(str, connection.sent))\n        assert \"Traceback (most recent call last)\" not in said, \"the client can read a traceback\"\n        inner = str(connection.raised or \"\")\n        assert len(inner) < 12 or inner not in said, f\"the client can read {inner!r}\"\n"
            }
            TestedProperty::Errors | TestedProperty::Time => "",
        }
    }
}

/// Writes Python.
struct Writer<'a> {
    /// The secret to keep out of the file.
    secret: Option<&'a str>,
}

impl Writer<'_> {
    fn connection(&self, text: &mut String, reading: &Exchange<'_>, exchange: usize, profile: &Profile) {
        let called = reading.events.iter().find_map(|event| match &event.what {
            EventKind::Called { kind, head } => Some((*kind, head, event.at)),
            _ => None,
        });
        let Some((kind, head, start)) = called else { return };
        let mut scope = Scope::build(kind, head, &profile.scope, exchange);
        for edit in
            reading.acted().filter_map(|fault| if let FaultKind::Scope(edit) = fault { Some(edit) } else { None })
        {
            edit.apply(&mut scope);
        }
        text.push_str("    (\n        {\n");
        let mut scope: Vec<_> = scope.0.iter().collect();
        scope.sort_by_key(|(key, _)| *key != "type");
        for (key, value) in scope {
            let _ = writeln!(text, "            {}: {},", quote(key), self.scope_value(key, value));
        }
        text.push_str("        },\n        [\n");
        let (receives, sends) = plays(reading, kind, start.as_secs_f64());
        for (second, count, received) in receives {
            let what = match received {
                Ok(event) => self.value(&event.to_value()),
                Err(exception) => raised(exception),
            };
            let _ = writeln!(text, "            ({}, {count}, {what}),", seconds(second));
        }
        text.push_str("        ],\n        {");
        let sends: Vec<String> = sends
            .into_iter()
            .map(|(number, (second, error))| {
                let error = error.map_or("None".to_owned(), raised);
                format!("{number}: ({}, {error})", seconds(second))
            })
            .collect();
        let _ = writeln!(text, "{}}},\n    ),", sends.join(", "));
    }

    /// The value of a key of a scope, with a header a line.
    fn scope_value(&self, key: &str, value: &Value) -> String {
        match value {
            Value::List(items) if key == "headers" && !items.is_empty() => {
                let lines = items.iter().map(|item| format!("                {},\n", self.value(item)));
                format!("[\n{}            ]", lines.collect::<String>())
            }
            value => self.value(value),
        }
    }

    fn value(&self, value: &Value) -> String {
        match value {
            Value::None => "None".to_owned(),
            Value::Bool(value) => if *value { "True" } else { "False" }.to_owned(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) if value.is_finite() => format!("{value:?}"),
            Value::Float(value) => format!("float({})", quote(&value.to_string())),
            Value::Str(value) => self.pieces(value.as_bytes(), "TOKEN", |piece| quote(&String::from_utf8_lossy(piece))),
            Value::Bytes(value) => self.pieces(value, "TOKEN.encode()", quote_bytes),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(|item| self.value(item)).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Dict(entries) => self.dict(entries.iter().map(|(key, value)| (key.as_ref(), self.value(value)))),
        }
    }

    fn dict<'k>(&self, entries: impl Iterator<Item = (&'k str, String)>) -> String {
        let mut entries: Vec<(&str, String)> = entries.collect();
        entries.sort_by_key(|(key, _)| *key != "type");
        let entries: Vec<String> = entries.into_iter().map(|(key, value)| format!("{}: {value}", quote(key))).collect();
        format!("{{{}}}", entries.join(", "))
    }

    /// A text in pieces: what is secret by its name, and long runs of one character by their length.
    fn pieces(&self, text: &[u8], secret: &str, quote: impl Fn(&[u8]) -> String) -> String {
        let token = self.secret.filter(|token| !token.is_empty()).map(str::as_bytes);
        if let Some(token) = token
            && let Some(at) = memchr::memmem::find(text, token)
        {
            let (before, after) = (&text[..at], &text[at + token.len()..]);
            return format!("{} + {secret} + {}", quote(before), self.pieces(after, secret, quote));
        }
        let run = text.chunk_by(|one, other| one == other).find(|run| run.len() >= RUN_MIN && run[0].is_ascii());
        let Some(run) = run else { return quote(text) };
        let at = run.as_ptr().addr() - text.as_ptr().addr();
        let (before, after) = (&text[..at], &text[at + run.len()..]);
        let mut pieces = vec![format!("{} * {}", quote(&run[..1]), run.len())];
        if !before.is_empty() {
            pieces.insert(0, quote(before));
        }
        if !after.is_empty() {
            pieces.push(self.pieces(after, secret, quote));
        }
        pieces.join(" + ")
    }
}

type Receives<'a> = Vec<(f64, usize, Result<&'a Inbound, &'a Exception>)>;
type Sends<'a> = BTreeMap<usize, (f64, Option<&'a Exception>)>;

/// The events that an application received, and the results of its sends, from its own event log.
fn plays<'a>(reading: &Exchange<'a>, kind: ScopeType, start: f64) -> (Receives<'a>, Sends<'a>) {
    let (mut receives, mut sends, mut count) = (Vec::new(), BTreeMap::new(), 0);
    let mut is_on_send = true;
    for event in &reading.events {
        let at = event.at.as_secs_f64() - start;
        match &event.what {
            // Events after the client's deadline are not part of it.
            EventKind::DeadlinePassed { .. } => break,
            EventKind::FaultFired { index, .. } => match reading.faults.get(*index).map(|fault| &fault.kind) {
                Some(FaultKind::Event { fault: EventFault::SendDelays { delay }, .. }) => {
                    sends.entry(count).or_insert((0.0, None)).0 += delay.0.as_secs_f64();
                }
                Some(FaultKind::Event { fault: EventFault::ReceiveRaises { .. }, .. }) => is_on_send = false,
                Some(FaultKind::Event { fault: EventFault::Cancel {}, .. }) => {
                    is_on_send = matches!(last_act(reading, event.at), Some(EventKind::Sent(_)));
                }
                _ => {}
            },
            EventKind::Received(received) => receives.push((at, count, Ok(received))),
            EventKind::Sent(_) => count += 1,
            EventKind::CallRaised(exception) if is_on_send => {
                sends.entry(count).or_insert((0.0, None)).1 = Some(exception)
            }
            EventKind::CallRaised(exception) => {
                is_on_send = true;
                receives.push((at, count, Err(exception)));
            }
            _ => {}
        }
    }
    // A server's exception for a wrong event is its answer to that event, and is not replayed.
    let is_answer = |exception: &Exception| !exception.is_disconnect() && !exception.is_cancellation();
    let injected =
        reading.acted().any(|fault| matches!(fault, FaultKind::Event { fault: EventFault::SendRaises { .. }, .. }));
    if kind == ScopeType::Http || !injected {
        sends.retain(|_, (delay, error)| *delay > 0.0 || !error.is_some_and(is_answer));
    }
    (receives, sends)
}

/// The last thing that the application did until some time.
fn last_act<'a>(reading: &Exchange<'a>, until: std::time::Duration) -> Option<&'a EventKind> {
    let is_act = |what: &EventKind| matches!(what, EventKind::Sent(_) | EventKind::Received(_));
    reading.events.iter().filter(|event| event.at <= until && is_act(&event.what)).map(|event| &event.what).next_back()
}

/// A time in seconds; 0 if it is too short to matter.
fn seconds(second: f64) -> String {
    if second < NOTICED_S { "0".to_owned() } else { format!("{second:.3}") }
}

/// The exception that `send` or `receive` raises.
fn raised(exception: &Exception) -> String {
    const BUILT_IN: [&str; 10] = [
        "OSError",
        "ConnectionResetError",
        "BrokenPipeError",
        "RuntimeError",
        "ValueError",
        "TypeError",
        "KeyError",
        "AttributeError",
        "AssertionError",
        "TimeoutError",
    ];
    match exception.type_name.as_str() {
        "ClientDisconnected" => "Gone()".to_owned(),
        Exception::CANCELLED => "asyncio.CancelledError()".to_owned(),
        name if BUILT_IN.contains(&name) => format!("{name}({})", quote(&exception.message)),
        _ => format!("RuntimeError({})", quote(&exception.to_string())),
    }
}

/// A text as Python writes it.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            ' '..='~' => quoted.push(character),
            other if u32::from(other) > 0xFFFF => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(other));
            }
            other => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(other));
            }
        }
    }
    quoted + "\""
}

fn quote_bytes(bytes: &[u8]) -> String {
    let mut quoted = String::from("b\"");
    for &byte in bytes {
        match byte {
            b'"' => quoted.push_str("\\\""),
            b'\\' => quoted.push_str("\\\\"),
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => {
                let _ = write!(quoted, "\\x{byte:02x}");
            }
        }
    }
    quoted + "\""
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or(String::new(), |first| first.to_uppercase().chain(characters).collect())
}

/// A text that may stand in a docstring.
fn docstring(text: &str) -> String {
    let text: String = text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    text.replace('\\', "\\\\").replace("\"\"\"", "'''")
}
