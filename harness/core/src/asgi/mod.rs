//! ASGI: scopes, events and their state machine, values, and exceptions of Python.

pub mod event;
pub mod exception;
pub mod scope;
pub mod value;
