//! A participant's door: HTTP, WebSocket, messages, sessions, rooms.

pub mod negotiate;
pub mod sdp;
