//! HTTP/1.1 and WebSocket, as bytes.

pub mod close_code;
pub mod frame;
pub mod head;
pub mod message;
