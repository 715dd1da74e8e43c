//! The edits that a server, or anything between it and the application, can make to a scope.

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    Legality,
    draw::{FaultDraw, odd_value},
    setting::{faults, names},
};
use crate::asgi::{
    scope::{Scope, ScopeType, keys},
    value::Value,
};

names! {
    /// A form of headers that the specification does not have, except for the one that only recommends.
    HeaderForm;
    /// Names and values are `str`.
    Str "str",
    /// Names are written in capitals.
    UpperCase "upper-case",
    /// Each header has a third item.
    ThreeItems "three-items",
    /// They are a dict.
    Dict "dict",
    /// There is a name that is not ASCII.
    NotAscii "not-ascii",
}

/// A key of a scope, by the specification.
fn scope_key(draw: &FaultDraw<'_>, key: &str) -> Option<String> {
    draw.choices.fork(key).pick(keys::ALL.iter().map(|known| (1, known.name, known.name.to_owned())))
}

/// A key to set: one of the specification, or one that frameworks and middleware put there.
fn set_key(draw: &FaultDraw<'_>, key: &str) -> Option<String> {
    const OTHERS: [(u32, &str); 2] = [(2, "query_params"), (1, "x")];
    let known = keys::ALL.iter().map(|known| (if known.name == "method" { 2 } else { 1 }, known.name));
    draw.choices.fork(key).pick(known.chain(OTHERS).map(|(weight, name)| (weight, name, name.to_owned())))
}

/// Nothing, a plausible value, or any other.
fn set_value(draw: &FaultDraw<'_>, key: &str) -> Option<Value> {
    let choices = draw.choices.fork(key);
    let values = [(3, "none", Value::None), (1, "text", "GET".into()), (4, "odd", odd_value(choices.fork("odd")))];
    choices.pick(values)
}

faults! {
    /// One change of a scope. An occasion is a call of the application.
    ScopeEdit at Scope;
    /// removes a key
    Drop "drop_key", weight 3 {
        /// The key.
        key: String as "key" from scope_key,
    } "drop scope[{key:?}]";
    /// puts a value under a key
    Set "set_key", weight 4 {
        /// The key.
        key: String as "key" from set_key,
        /// The value.
        value: Value as "value" from set_value,
    } "set scope[{key:?}] to {value}";
    /// gives the headers another form
    Headers "reshape_headers", weight 1 {
        /// The form.
        form: HeaderForm as "form",
    } "give the headers the form `{form}`";
}

impl ScopeEdit {
    /// Whether there is anything to act on.
    pub fn applies_to(&self, scope: &Scope) -> bool {
        match self {
            ScopeEdit::Drop { key } => scope.0.contains_key(key.as_str()),
            ScopeEdit::Set { .. } => true,
            ScopeEdit::Headers { .. } => scope.headers().is_ok(),
        }
    }

    /// Changes the scope.
    pub fn apply(&self, scope: &mut Scope) {
        match self {
            ScopeEdit::Drop { key } => drop(scope.0.remove(key.as_str())),
            ScopeEdit::Set { key, value } => drop(scope.0.insert(key.clone().into(), value.clone())),
            ScopeEdit::Headers { form } => {
                let reshaped = scope.headers().map(|pairs| reshape(&pairs, *form));
                if let Ok(headers) = reshaped {
                    scope.0.insert(Cow::Borrowed("headers"), headers);
                }
            }
        }
    }

    /// Whether a server gives an app such a scope: uvicorn, hypercorn, daphne and granian leave these keys out, or have no
    /// address where they listen on a socket of the file system.
    pub fn is_ordinary(&self) -> bool {
        match self {
            ScopeEdit::Drop { key } => matches!(key.as_str(), "extensions" | "raw_path" | "root_path" | "state"),
            ScopeEdit::Set { key, value } => matches!(key.as_str(), "client" | "server") && *value == Value::None,
            ScopeEdit::Headers { .. } => false,
        }
    }

    /// Whether a scope of this type may look so, and what says it.
    pub fn legality(&self, scope_type: ScopeType) -> Legality {
        match self {
            ScopeEdit::Drop { key } => keys::legality(scope_type, key, None),
            ScopeEdit::Set { key, value } => keys::legality(scope_type, key, Some(value)),
            ScopeEdit::Headers { form } => {
                let pairs = [(&b"host"[..], &b"relapse.test"[..])];
                keys::legality(scope_type, "headers", Some(&reshape(&pairs, *form)))
            }
        }
    }
}

fn reshape(pairs: &[(&[u8], &[u8])], form: HeaderForm) -> Value {
    let pairs = pairs.iter().copied();
    if form == HeaderForm::Dict {
        let entries = pairs.map(|(name, value)| (Cow::Owned(String::from_utf8_lossy(name).into_owned()), bytes(value)));
        return Value::Dict(entries.collect());
    }
    let mut items: Vec<Value> = pairs.map(|(name, value)| reshape_header(name, value, form)).collect();
    if form == HeaderForm::NotAscii {
        items.push(Value::List(vec![bytes(b"x-caf\xe9"), bytes(b"\xff")]));
    }
    Value::List(items)
}

/// One header of a list of this form.
fn reshape_header(name: &[u8], value: &[u8], form: HeaderForm) -> Value {
    Value::List(match form {
        HeaderForm::Str => vec![text(name), text(value)],
        HeaderForm::UpperCase => vec![bytes(&name.to_ascii_uppercase()), bytes(value)],
        HeaderForm::ThreeItems => vec![bytes(name), bytes(value), bytes(value)],
        HeaderForm::Dict | HeaderForm::NotAscii => vec![bytes(name), bytes(value)],
    })
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(Bytes::copy_from_slice(bytes))
}

fn text(bytes: &[u8]) -> Value {
    Value::Str(String::from_utf8_lossy(bytes).into_owned())
}
