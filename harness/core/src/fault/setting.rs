//! The settings of a fault: how each kind of value is read from a case file, written to one, and shown.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use super::draw::odd_value;
use crate::{
    asgi::value::{Value, escape_bytes, unescape_bytes},
    choices::Choices,
    wire::head::readable,
};

/// The longest time that a setting may name.
pub const TIME_MAX: Duration = Duration::from_secs(3600);

/// A value that a case file can give a fault.
pub trait Setting: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// Says what it must be.
    fn read(value: toml::Value) -> Result<Self, String>;

    /// Writes it as [`Setting::read`] takes it; nothing where it is left out.
    fn write(&self) -> Option<toml::Value>;

    /// The default, or `None` if the setting is required.
    fn absent() -> Option<Self> {
        None
    }

    /// Draws a value where a fault's entry names none.
    fn draw(choices: Choices) -> Self;
}

/// Settings as a file gives them, taken one by one.
#[derive(Debug, Default)]
pub struct GivenSettings(pub BTreeMap<String, toml::Value>);

/// A setting that is missing, or not what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    /// Its key.
    pub key: &'static str,
    /// The values it accepts; `None` if the setting is missing.
    pub message: Option<String>,
}

impl GivenSettings {
    /// Takes a setting.
    ///
    /// # Errors
    /// When it must be given and is not, or is not what it must be.
    pub fn take<T: Setting>(&mut self, key: &'static str) -> Result<T, SettingError> {
        match self.0.remove(key) {
            None => T::absent().ok_or(SettingError { key, message: None }),
            Some(value) => T::read(value).map_err(|message| SettingError { key, message: Some(message) }),
        }
    }
}

/// Settings as they are written, in their order.
pub type WrittenSettings = Vec<(&'static str, toml::Value)>;

/// Writes a setting, unless it is left out.
pub fn put<T: Setting>(written: &mut WrittenSettings, key: &'static str, setting: &T) {
    written.extend(setting.write().map(|value| (key, value)));
}

/// Draws a setting: from what its entry names, or any value of its type.
macro_rules! drawn {
    ($draw:ident, $type:ty, $key:literal) => {
        <$type as crate::fault::setting::Setting>::draw($draw.choices.fork($key))
    };
    ($draw:ident, $type:ty, $key:literal, $source:expr) => {
        ($source)($draw, $key)?
    };
}
pub(super) use drawn;

/// Declares one place's faults: variant, name, how often a hunt draws it beside the others of its place, settings with
/// what a hunt draws for them, and how each is shown. One entry is the whole truth of a fault except for what it does.
macro_rules! faults {
    (
        $(#[doc = $about:literal])* $name:ident at $place:ident;
        $($(#[doc = $doc:literal])* $variant:ident $kind:literal, weight $weight:literal {
            $($(#[doc = $field_doc:literal])* $field:ident: $type:ty as $key:literal $(from $source:expr)?),* $(,)?
        } $text:literal;)*
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $($(#[doc = $doc])* $variant { $($(#[doc = $field_doc])* $field: $type),* },)*
        }

        impl $name {
            /// Every kind.
            pub const KINDS: &[crate::fault::Kind] = &[$(crate::fault::Kind {
                name: $kind,
                place: crate::fault::Place::$place,
                does: concat!($($doc),*),
                keys: &[$($key),*],
                weight: $weight,
            },)*];

            /// The kind's name, as cases write it.
            pub fn name(&self) -> &'static str {
                match self { $($name::$variant { .. } => $kind,)* }
            }

            /// Reads the kind with this name; nothing when it is none of these.
            pub(in crate::fault) fn read(
                kind: &str,
                settings: &mut crate::fault::setting::GivenSettings,
            ) -> Result<Option<$name>, crate::fault::setting::SettingError> {
                match kind {
                    $($kind => Ok(Some($name::$variant { $($field: settings.take($key)?),* })),)*
                    _ => Ok(None),
                }
            }

            /// Draws the settings of the kind with this name; `None` if it is none of these, or if the service has nothing
            /// that it could act on.
            pub(in crate::fault) fn draw(kind: &str, draw: &crate::fault::draw::FaultDraw<'_>) -> Option<$name> {
                match kind {
                    $($kind => Some($name::$variant {
                        $($field: crate::fault::setting::drawn!(draw, $type, $key $(, $source)?)),*
                    }),)*
                    _ => None,
                }
            }

            /// Writes its settings.
            pub(in crate::fault) fn write(&self, written: &mut crate::fault::setting::WrittenSettings) {
                match self {
                    $($name::$variant { $($field),* } => {
                        $(crate::fault::setting::put(written, $key, $field);)*
                    })*
                }
            }
        }

        impl std::fmt::Display for $name {
            #[allow(unused_variables, reason = "not every setting is shown")]
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self { $($name::$variant { $($field),* } => write!(f, $text),)* }
            }
        }
    };
}
pub(super) use faults;

fn text(value: toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text),
        other => Err(format!("a text, not a TOML {}", other.type_str())),
    }
}

fn bytes(value: toml::Value) -> Result<Vec<u8>, String> {
    unescape_bytes(&text(value)?)
}

impl Setting for String {
    fn read(value: toml::Value) -> Result<String, String> {
        text(value)
    }

    fn write(&self) -> Option<toml::Value> {
        Some(toml::Value::String(self.clone()))
    }

    fn draw(choices: Choices) -> Self {
        choices.one(&["", "relapse", "caf\u{e9}"]).to_owned()
    }
}

impl<T: Setting> Setting for Option<T> {
    fn read(value: toml::Value) -> Result<Option<T>, String> {
        T::read(value).map(Some)
    }

    fn write(&self) -> Option<toml::Value> {
        self.as_ref()?.write()
    }

    fn absent() -> Option<Option<T>> {
        Some(None)
    }

    fn draw(choices: Choices) -> Self {
        choices.fork("is given").happens(1, 2).then(|| T::draw(choices))
    }
}

impl Setting for Value {
    fn read(value: toml::Value) -> Result<Value, String> {
        let json = serde_json::to_value(value).and_then(serde_json::from_value);
        json.map_err(|error| format!("a scope value: {error}"))
    }

    fn write(&self) -> Option<toml::Value> {
        serde_json::to_value(self).ok().map(to_toml)
    }

    fn draw(choices: Choices) -> Self {
        odd_value(choices)
    }
}

/// JSON as TOML, which has no null: `{ "$none" = true }` is read as one.
fn to_toml(json: serde_json::Value) -> toml::Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => toml::Value::Table([("$none".to_owned(), toml::Value::Boolean(true))].into_iter().collect()),
        Json::Bool(value) => toml::Value::Boolean(value),
        Json::Number(number) => number
            .as_i64()
            .map_or_else(|| toml::Value::Float(number.as_f64().unwrap_or_default()), toml::Value::Integer),
        Json::String(text) => toml::Value::String(text),
        Json::Array(items) => toml::Value::Array(items.into_iter().map(to_toml).collect()),
        Json::Object(entries) => {
            toml::Value::Table(entries.into_iter().map(|(key, value)| (key, to_toml(value))).collect())
        }
    }
}

/// Declares a setting around another type, with what it is shown as.
macro_rules! wrapped {
    ($($(#[doc = $doc:literal])* $name:ident($inner:ty);)*) => {
        $($(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl Deref for $name {
            type Target = $inner;

            fn deref(&self) -> &$inner {
                &self.0
            }
        }

        impl<T: Into<$inner>> From<T> for $name {
            fn from(inner: T) -> $name {
                $name(inner.into())
            }
        })*
    };
}

wrapped! {
    /// A token of HTTP, such as a method or a header's name (RFC 9110 section 5.6.2).
    Token(String);
    /// Bytes that stay within their line: a header's value, a query string.
    Line(Vec<u8>);
    /// A path of a request target, percent-encoded.
    Path(Vec<u8>);
    /// Any bytes.
    Raw(Vec<u8>);
    /// A time of 1 ms to 1 h.
    Time(Duration);
    /// A number from 1 to 1 Mi.
    Count(usize);
}

/// The largest [`Count`].
const COUNT_MAX: i64 = 1 << 20;

impl Setting for Token {
    fn read(value: toml::Value) -> Result<Token, String> {
        let text = text(value)?;
        if is_token(&text) {
            Ok(Token(text))
        } else {
            Err(format!("a name of letters, digits and hyphens, not `{text}`"))
        }
    }

    fn write(&self) -> Option<toml::Value> {
        self.0.write()
    }

    fn draw(choices: Choices) -> Self {
        Token(choices.one(&["Authorization", "Host", "Cookie", "X-Relapse"]).to_owned())
    }
}

/// Whether a text is a token of HTTP (RFC 9110 section 5.6.2), and cannot end the line it stands in.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

impl Setting for Line {
    fn read(value: toml::Value) -> Result<Line, String> {
        let bytes = bytes(value)?;
        if bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | b'\0')) {
            return Err("one line: this text holds a line end".to_owned());
        }
        Ok(Line(bytes))
    }

    fn write(&self) -> Option<toml::Value> {
        Some(escape_bytes(&self.0).into())
    }

    fn draw(choices: Choices) -> Self {
        Line(choices.one(&[&b""[..], b"x", b"caf\xc3\xa9", b"\xff\xfe"]).to_vec())
    }
}

impl Setting for Path {
    fn read(value: toml::Value) -> Result<Path, String> {
        let Line(path) = Line::read(value)?;
        if !path.starts_with(b"/") || path.contains(&b' ') || path.contains(&b'?') {
            return Err("a path, which begins with `/` and holds no space and no `?`".to_owned());
        }
        Ok(Path(path))
    }

    fn write(&self) -> Option<toml::Value> {
        Some(escape_bytes(&self.0).into())
    }

    fn draw(choices: Choices) -> Self {
        Path(choices.one(&[&b"/"[..], b"/moved", b"//", b"/%2e%2e/"]).to_vec())
    }
}

impl Setting for Raw {
    fn read(value: toml::Value) -> Result<Raw, String> {
        bytes(value).map(Raw)
    }

    fn write(&self) -> Option<toml::Value> {
        Some(escape_bytes(&self.0).into())
    }

    fn draw(choices: Choices) -> Self {
        Raw(choices.one(&[&b""[..], b"{}", b"\x00\x01", b"\xff\xfe"]).to_vec())
    }
}

impl Setting for Time {
    fn read(value: toml::Value) -> Result<Time, String> {
        let ms = value.as_integer().and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
        ms.filter(|time| !time.is_zero() && *time <= TIME_MAX)
            .map(Time)
            .ok_or_else(|| "a time of 1 to 3600000 milliseconds".to_owned())
    }

    fn write(&self) -> Option<toml::Value> {
        Some(toml::Value::Integer(i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)))
    }

    fn draw(choices: Choices) -> Self {
        Time(Duration::from_millis(choices.within(1..=20_000)))
    }
}

impl Setting for Count {
    fn read(value: toml::Value) -> Result<Count, String> {
        let count = value.as_integer().filter(|count| (1..=COUNT_MAX).contains(count));
        count
            .and_then(|count| usize::try_from(count).ok())
            .map(Count)
            .ok_or_else(|| "a number from 1 to 1048576".to_owned())
    }

    fn write(&self) -> Option<toml::Value> {
        Some(toml::Value::Integer(i64::try_from(self.0).unwrap_or(i64::MAX)))
    }

    fn draw(choices: Choices) -> Self {
        Count(choices.one(&[1_usize, 2, 30, 300, 9000]))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", readable(&self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", readable(&self.0))
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", readable(&self.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0.as_millis())
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Declares a setting that is one of a few names.
macro_rules! names {
    ($(#[doc = $about:literal])* $name:ident $(= $default:ident)?; $($(#[doc = $doc:literal])* $variant:ident $text:literal,)*) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $doc])* $variant,)* }

        impl $name {
            /// Every one.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// Its name, as cases write it.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl crate::fault::setting::Setting for $name {
            fn read(value: toml::Value) -> Result<$name, String> {
                let text = value.as_str();
                let found = $name::ALL.iter().copied().find(|one| Some(one.name()) == text);
                found.ok_or_else(|| format!("one of {}", [$(concat!("`", $text, "`")),*].join(", ")))
            }

            fn write(&self) -> Option<toml::Value> {
                $(if *self == $name::$default { return None; })?
                Some(self.name().into())
            }

            $(fn absent() -> Option<$name> {
                Some($name::$default)
            })?

            fn draw(choices: crate::choices::Choices) -> $name {
                choices.one($name::ALL)
            }
        }

        impl crate::choices::Named for $name {
            fn below(&self, stream: crate::choices::Choices) -> crate::choices::Choices {
                stream.fork(self.name())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
pub(super) use names;
