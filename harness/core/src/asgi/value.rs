//! The values that a Python scope can hold, and their JSON form.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::mem::size_of;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value as Json;

use crate::asgi::exception::Exception;

/// A Python value as far as ASGI scopes and events need one.
///
/// The JSON form is plain JSON, except that bytes are `{"$bytes": "…"}` (printable ASCII as itself, `\\` for a
/// backslash, `\xNN` for the rest), a `str` that UTF-8 cannot encode is `{"$surrogates": "…"}` with its bytes in that form,
/// a float JSON cannot write is `{"$float": "nan" | "inf" | "-inf"}`, and a dict
/// that has a key starting with `$` is wrapped in `{"$dict": {…}}`, so that every value survives a round trip. Where
/// there is no null, as in TOML, `{"$none": true}` is read as one.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An `int` within 64 bits; ASGI has no larger ones.
    Int(i64),
    /// A `float`.
    Float(f64),
    /// A `str`.
    Str(String),
    /// A `str` that UTF-8 cannot encode.
    Surrogates(SurrogateText),
    /// A `bytes`.
    Bytes(Bytes),
    /// A `list` (ASGI writes pairs as two-item lists).
    List(Vec<Value>),
    /// A `dict` with `str` keys, kept in key order so that every rendering is stable.
    Dict(BTreeMap<Cow<'static, str>, Value>),
}

impl Value {
    /// The Python type's name, as Python's own error messages write it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) | Value::Surrogates(_) => "str",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Dict(_) => "dict",
        }
    }

    /// The bytes that it keeps in memory beside itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
            Value::Str(text) => text.len(),
            Value::Surrogates(SurrogateText(bytes)) | Value::Bytes(bytes) => bytes.len(),
            Value::List(items) => items.iter().map(|item| size_of::<Value>() + item.heap_bytes()).sum(),
            Value::Dict(entries) => {
                let of_entry = |(key, value): (&Cow<'_, str>, &Value)| {
                    size_of::<(Cow<'_, str>, Value)>() + key.len() + value.heap_bytes()
                };
                entries.iter().map(of_entry).sum()
            }
        }
    }

    fn to_json(&self) -> Json {
        match self {
            Value::None => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => Json::from(*value),
            Value::Float(value) => match serde_json::Number::from_f64(*value) {
                Some(number) => Json::Number(number),
                None if value.is_nan() => tagged("$float", Json::from("nan")),
                None if *value > 0.0 => tagged("$float", Json::from("inf")),
                None => tagged("$float", Json::from("-inf")),
            },
            Value::Str(value) => Json::String(value.clone()),
            Value::Surrogates(text) => tagged("$surrogates", Json::String(escape_bytes(text.as_bytes()))),
            Value::Bytes(value) => tagged("$bytes", Json::String(escape_bytes(value))),
            Value::List(items) => Json::Array(items.iter().map(Value::to_json).collect()),
            Value::Dict(entries) => {
                let plain = Json::Object(
                    entries.iter().map(|(key, value)| (key.clone().into_owned(), value.to_json())).collect(),
                );
                if entries.keys().any(|key| key.starts_with('$')) { tagged("$dict", plain) } else { plain }
            }
        }
    }

    fn from_json(json: Json) -> Result<Value, String> {
        Ok(match json {
            Json::Null => Value::None,
            Json::Bool(value) => Value::Bool(value),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(value), _) => Value::Int(value),
                (None, Some(value)) if !number.is_u64() => Value::Float(value),
                _ => return Err(format!("the number {number} does not fit in 64 bits")),
            },
            Json::String(value) => Value::Str(value),
            Json::Array(items) => Value::List(items.into_iter().map(Value::from_json).collect::<Result<_, _>>()?),
            Json::Object(entries) => return Value::from_object(entries),
        })
    }

    fn from_object(entries: serde_json::Map<String, Json>) -> Result<Value, String> {
        if !entries.keys().any(|key| key.starts_with('$')) {
            return Value::dict(entries);
        }
        let mut entries = entries.into_iter();
        match (entries.next(), entries.next()) {
            (Some((tag, Json::String(text))), None) if tag == "$bytes" => {
                unescape_bytes(&text).map(|bytes| Value::Bytes(bytes.into()))
            }
            (Some((tag, Json::String(text))), None) if tag == "$surrogates" => {
                unescape_bytes(&text).map(|bytes| Value::Surrogates(SurrogateText(bytes.into())))
            }
            (Some((tag, Json::String(text))), None) if tag == "$float" => match text.as_str() {
                "nan" => Ok(Value::Float(f64::NAN)),
                "inf" => Ok(Value::Float(f64::INFINITY)),
                "-inf" => Ok(Value::Float(f64::NEG_INFINITY)),
                other => Err(format!("`$float` is nan, inf or -inf, not `{other}`")),
            },
            (Some((tag, Json::Object(inner))), None) if tag == "$dict" => Value::dict(inner),
            (Some((tag, Json::Bool(true))), None) if tag == "$none" => Ok(Value::None),
            _ => {
                let known = "`$bytes`, `$surrogates`, `$float`, `$none`, `$dict`";
                Err(format!("a key that starts with `$` is one of {known}, and stands alone"))
            }
        }
    }

    /// A dict with these keys, whatever they start with.
    fn dict(entries: serde_json::Map<String, Json>) -> Result<Value, String> {
        let entries = entries.into_iter().map(|(key, value)| Ok((Cow::Owned(key), Value::from_json(value)?)));
        entries.collect::<Result<_, String>>().map(Value::Dict)
    }
}

/// The JSON form of a value that plain JSON does not have.
fn tagged(tag: &str, value: Json) -> Json {
    Json::Object([(tag.to_owned(), value)].into_iter().collect())
}

/// A Python `str` with halves of surrogate pairs, which UTF-8 cannot encode: `json.loads` makes one of `"\\ud800"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurrogateText(Bytes);

impl SurrogateText {
    /// The text that Python's UTF-8 codec writes as these bytes with `surrogatepass`.
    pub fn from_bytes(bytes: &[u8]) -> SurrogateText {
        SurrogateText(Bytes::copy_from_slice(bytes))
    }

    /// The bytes that Python's UTF-8 codec writes with `surrogatepass`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text with each surrogate as an escape, as in `\\ud800`.
    pub fn escaped(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        for unit in self.units() {
            match unit {
                Ok(character) => text.push(character),
                Err(surrogate) => text.push_str(&escape_surrogate(surrogate)),
            }
        }
        text
    }

    /// The error of Python's `str.encode`.
    pub fn error(&self) -> Exception {
        let units = self.units();
        let first = units.iter().position(Result::is_err).unwrap_or(0);
        let count = units[first.min(units.len())..].iter().take_while(|unit| unit.is_err()).count();
        let place = match (count, units.get(first)) {
            (1, Some(Err(surrogate))) => format!("character '{}' in position {first}", escape_surrogate(*surrogate)),
            _ => format!("characters in position {first}-{}", (first + count).saturating_sub(1)),
        };
        Exception::new("UnicodeEncodeError", format!("'utf-8' codec can't encode {place}: surrogates not allowed"))
    }

    /// Its characters, and its surrogates as errors.
    fn units(&self) -> Vec<Result<char, u16>> {
        let (mut rest, mut units) = (&self.0[..], Vec::new());
        while !rest.is_empty() {
            let valid = std::str::from_utf8(rest).map_or_else(|error| error.valid_up_to(), str::len);
            let (text, after) = rest.split_at(valid);
            units.extend(String::from_utf8_lossy(text).chars().map(Ok));
            let Some((&[first, second, third], after)) = after.split_first_chunk() else { break };
            let bits = |byte: u8, count: u32| u16::from(byte) & ((1 << count) - 1);
            units.push(Err(bits(first, 4) << 12 | bits(second, 6) << 6 | bits(third, 6)));
            rest = after;
        }
        units
    }
}

fn escape_surrogate(surrogate: u16) -> String {
    format!("\\u{surrogate:04x}")
}

/// Writes bytes as text that a person can read and [`unescape_bytes`] can turn back.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            0x20..=0x7e => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

/// Reads the text form of bytes.
///
/// # Errors
/// Says which escape is unknown or which character is not ASCII.
pub fn unescape_bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            '\\' => match rest.next() {
                Some('\\') => bytes.push(b'\\'),
                Some('r') => bytes.push(b'\r'),
                Some('n') => bytes.push(b'\n'),
                Some('t') => bytes.push(b'\t'),
                Some('x') => {
                    let digits: String = rest.by_ref().take(2).collect();
                    let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2);
                    bytes.push(byte.ok_or_else(|| format!("`\\x{digits}` is not a byte: two hexadecimal digits"))?);
                }
                other => return Err(format!("unknown escape `\\{}`", other.map_or(String::new(), String::from))),
            },
            ascii if ascii.is_ascii() => bytes.push(ascii as u8),
            other => return Err(format!("`{other}` is not ASCII: write its UTF-8 bytes as \\xNN")),
        }
    }
    Ok(bytes)
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::from_json(Json::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_json().fmt(f)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Str(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Str(value)
    }
}

impl From<Bytes> for Value {
    fn from(value: Bytes) -> Self {
        Value::Bytes(value)
    }
}

impl<const N: usize> From<[(&'static str, Value); N]> for Value {
    fn from(entries: [(&'static str, Value); N]) -> Self {
        Value::Dict(entries.into_iter().map(|(key, value)| (Cow::Borrowed(key), value)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{SurrogateText, Value};
    use crate::asgi::exception::Exception;

    /// As `str.encode` of CPython 3.12 has it.
    #[test]
    fn surrogates_have_the_error_of_python() {
        let cases: [(&[u8], &str, &str); 3] = [
            (b"a\xED\xA0\x80b", "a\\ud800b", "character '\\ud800' in position 1"),
            (b"\xED\xA0\x80\xED\xB0\x80", "\\ud800\\udc00", "characters in position 0-1"),
            (b"\xC3\xA9\xED\xBF\xBF!\xED\xA0\x80", "\u{e9}\\udfff!\\ud800", "character '\\udfff' in position 1"),
        ];
        for (bytes, escaped, place) in cases {
            let text = SurrogateText::from_bytes(bytes);
            let message = format!("'utf-8' codec can't encode {place}: surrogates not allowed");
            assert_eq!(text.escaped(), escaped);
            assert_eq!(text.error(), Exception::new("UnicodeEncodeError", message));
            let value = Value::Surrogates(text);
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value, "{json}");
        }
    }
}
