//! An exception as Python raises one: a type and a message.

use std::fmt;

use serde::Serialize;

/// An exception that an application raises. `AttributeError: 'URL' object has no attribute 'query_params'` is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exception {
    /// The exception's type name, such as `RuntimeError`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The text that `str(exception)` gives.
    pub message: String,
    /// Where it was raised, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<CodePlace>,
}

/// A place in an application's code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CodePlace {
    /// The file, from the application's directory where it is in there.
    pub file: String,
    /// The line, counted from 1.
    pub line: u32,
    /// The function.
    pub function: String,
}

impl fmt::Display for CodePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} in {}", self.file, self.line, self.function)
    }
}

impl Exception {
    /// An exception of this type with this message.
    pub fn new(type_name: &str, message: impl Into<String>) -> Exception {
        Exception { type_name: type_name.to_owned(), message: message.into(), place: None }
    }

    /// The exception that a coroutine gets from its `await` when it is cancelled. No `except Exception` catches it.
    pub const CANCELLED: &str = "CancelledError";

    /// Reads `Type: text`, or `Type` alone where that is a word with a capital; anything else is the text of a
    /// `RuntimeError`.
    pub fn parse(text: &str) -> Exception {
        match text.split_once(": ") {
            None if is_type_name(text) => Exception::new(text, ""),
            Some((type_name, message)) if !type_name.contains(' ') => Exception::new(type_name, message),
            _ => Exception::runtime_error(text),
        }
    }

    /// The exception that a cancelled coroutine gets from its `await`.
    pub fn cancelled() -> Exception {
        Exception::new(Exception::CANCELLED, "")
    }

    /// Whether it ends a cancelled coroutine.
    pub fn is_cancellation(&self) -> bool {
        self.type_name == Exception::CANCELLED
    }

    /// Whether a server says with it that the client is gone.
    pub fn is_disconnect(&self) -> bool {
        matches!(self.type_name.as_str(), "OSError" | "ClientDisconnected")
    }

    /// Whether it is uvicorn's own word for that (`uvicorn.protocols.utils.ClientDisconnected`), which it neither logs nor
    /// answers, whichever connection it comes from.
    pub fn is_client_disconnected(&self) -> bool {
        self.type_name == "ClientDisconnected"
    }

    /// Whether a framework says with it that the client is gone: Starlette's words for that.
    pub fn is_broken_off(&self) -> bool {
        matches!(self.type_name.as_str(), "WebSocketDisconnect" | "ClientDisconnect")
    }

    /// Type, message and place, as in `KeyError: 'room' (service.py:8 in chat)`.
    pub fn located(&self) -> String {
        let place = self.place.iter().map(|place| format!(" ({place})")).collect::<String>();
        format!("{self}{place}")
    }

    /// The operation met something in a state that forbids it.
    pub fn runtime_error(message: impl Into<String>) -> Exception {
        Exception::new("RuntimeError", message)
    }

    /// A value has the wrong type, or a call the wrong number of arguments.
    pub fn type_error(message: impl Into<String>) -> Exception {
        Exception::new("TypeError", message)
    }

    /// An object lacks the attribute that was read.
    pub fn attribute_error(class: &str, attribute: &str) -> Exception {
        Exception::new("AttributeError", format!("'{class}' object has no attribute '{attribute}'"))
    }

    /// A name is not bound where it is used.
    pub fn name_error(name: &str) -> Exception {
        Exception::new("NameError", format!("name '{name}' is not defined"))
    }

    /// A dict lacks the key that was read.
    pub fn key_error(key: &str) -> Exception {
        Exception::new("KeyError", format!("'{key}'"))
    }
}

/// Whether a text is one word with a capital.
fn is_type_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_uppercase())
        && text.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.type_name)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}
