//! A participant's door: HTTP, WebSocket, messages, sessions, rooms.
pub mod message;
pub mod session;
