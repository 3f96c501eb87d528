//! What one worker received, sent and dropped, and how its loop fares.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::add;
use super::reason::Counters;
use super::times::{JOIN, TURN, Times};

/// Counters of one worker: written by it, read by anyone.
#[derive(Debug)]
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
    /// Participants that it holds.
    pub members: AtomicU64,
    pub joins: Joins,
    /// From the end of a wait to the beginning of the next.
    pub turn: Times,
    /// How long a datagram waited for the loop, or a timer after it was due.
    pub lag: Times,
    /// Microseconds of processor time.
    pub user: AtomicU64,
    pub system: AtomicU64,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            packets_in: AtomicU64::default(),
            bytes_in: AtomicU64::default(),
            packets_out: AtomicU64::default(),
            bytes_out: AtomicU64::default(),
            forwarded: AtomicU64::default(),
            retransmitted: AtomicU64::default(),
            keyframe_requests: AtomicU64::default(),
            dropped: Counters::default(),
            members: AtomicU64::default(),
            joins: Joins::default(),
            turn: Times::new(TURN),
            lag: Times::new(TURN),
            user: AtomicU64::default(),
            system: AtomicU64::default(),
        }
    }
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

    /// Processor time that the worker's thread has used so far.
    pub fn used(&self, user: Duration, system: Duration) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.user.store(micros(user), Ordering::Relaxed);
        self.system.store(micros(system), Ordering::Relaxed);
    }
}

/// The steps of a join that the worker sees, each from the one before.
#[derive(Debug)]
pub struct Joins {
    /// The first authenticated check.
    pub check: Times,
    /// The end of the handshake.
    pub secure: Times,
    /// The first packet of somebody's media. Only of those who had anything to see or hear when they were connected.
    pub media: Times,
}

impl Default for Joins {
    fn default() -> Self {
        Self { check: Times::new(JOIN), secure: Times::new(JOIN), media: Times::new(JOIN) }
    }
}
