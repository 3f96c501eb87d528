//! What an operator sees: reasons and their counters, log lines, metrics.
pub mod metrics;
pub mod people;
pub mod reason;
pub mod times;
pub mod traffic;
