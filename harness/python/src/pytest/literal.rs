//! Values as Python writes them.

use std::fmt::Write as _;

use relapse_core::asgi::{exception::Exception, value::Value};

/// From how many equal characters on a text is written shorter than it is.
const RUN_MIN: usize = 64;

/// Writes values without a secret.
pub(super) struct Literals<'a> {
    /// The secret to keep out of the file.
    pub(super) secret: Option<&'a str>,
}

impl Literals<'_> {
    /// The value of a key of a scope, with a header a line.
    pub(super) fn scope_value(&self, key: &str, value: &Value) -> String {
        match value {
            Value::List(items) if key == "headers" && !items.is_empty() => {
                let lines = items.iter().map(|item| format!("                {},\n", self.value(item)));
                format!("[\n{}            ]", lines.collect::<String>())
            }
            value => self.value(value),
        }
    }

    pub(super) fn value(&self, value: &Value) -> String {
        match value {
            Value::None => "None".to_owned(),
            Value::Bool(value) => truth(*value).to_owned(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) if value.is_finite() => format!("{value:?}"),
            Value::Float(value) => format!("float({})", quote(&value.to_string())),
            Value::Str(value) => self.pieces(value.as_bytes(), "TOKEN", |piece| quote(&String::from_utf8_lossy(piece))),
            Value::Surrogates(text) => format!("{}.decode('utf-8', 'surrogatepass')", quote_bytes(text.as_bytes())),
            Value::Bytes(value) => self.pieces(value, "TOKEN.encode()", quote_bytes),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(|item| self.value(item)).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Dict(entries) => self.dict(entries.iter().map(|(key, value)| (key.as_ref(), self.value(value)))),
        }
    }

    pub(super) fn dict<'k>(&self, entries: impl Iterator<Item = (&'k str, String)>) -> String {
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

/// The exception that `send` or `receive` raises.
pub(super) fn raised(exception: &Exception) -> String {
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
pub(super) fn quote(text: &str) -> String {
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

/// The template's filter `literal`: a text or a truth value as Python writes it.
pub(super) fn of_template(value: &minijinja::Value) -> String {
    match value.as_str() {
        Some(text) => quote(text),
        None => truth(value.is_true()).to_owned(),
    }
}

fn truth(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}
