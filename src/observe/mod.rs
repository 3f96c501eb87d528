//! What an operator sees: reasons and their counters, log lines, metrics.

pub mod metrics;
pub mod people;
pub mod reason;
pub mod times;
pub mod traffic;

use std::sync::atomic::{AtomicU64, Ordering};

/// One writer: a plain addition, no locked instruction.
pub fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}
