//! What an operator sees: reasons and their counters, log lines.
pub mod reason;
pub mod traffic;
