//! HTTP/1.1 and WebSocket, as bytes.

pub mod assembly;
pub mod body;
pub mod client;
pub mod close_code;
pub mod deflate;
pub mod frame;
pub mod frame_header;
pub mod head;
pub mod head_limit;
pub mod message;
pub mod percent;
