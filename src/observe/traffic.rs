//! What one worker received, sent and dropped.

use std::sync::atomic::{AtomicU64, Ordering};

use super::reason::Counters;

/// Counters of one worker: written by it, read by anyone.
#[derive(Debug, Default)]
pub struct Traffic {
    pub packets_in: AtomicU64,
    pub bytes_in: AtomicU64,
    pub packets_out: AtomicU64,
    pub bytes_out: AtomicU64,
    /// Media packets forwarded to a receiver for the first time.
    pub forwarded: AtomicU64,
    pub retransmitted: AtomicU64,
    pub keyframe_requests: AtomicU64,
    pub dropped: Counters,
}

impl Traffic {
    pub fn received(&self, bytes: usize) {
        add(&self.packets_in, 1);
        add(&self.bytes_in, bytes as u64);
    }

    pub fn sent(&self, packets: u64, bytes: u64) {
        add(&self.packets_out, packets);
        add(&self.bytes_out, bytes);
    }
}

/// One writer: a plain addition, no locked instruction.
pub fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}
