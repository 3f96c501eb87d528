//! A participant's door: HTTP, WebSocket, messages, sessions, rooms.
