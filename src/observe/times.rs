//! How often something took how long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::add;

/// Most buckets of a histogram. More tells durations apart more finely, fewer keeps a scrape small.
const MOST: usize = 14;

/// Upper bounds in microseconds for what a loop does in one turn: from a few packets to what people hear.
pub const TURN: &[u64] =
    &[20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000];

/// Upper bounds in microseconds for the steps of a join: from one machine to a handshake's deadline.
pub const JOIN: &[u64] = &[
    1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// A histogram without a lock. Written by one thread ([`Times::observe`]) or by many ([`Times::share`]), read by anyone.
#[derive(Debug)]
pub struct Times {
    bounds: &'static [u64],
    /// One for each bound, and one for what is longer.
    counts: [AtomicU64; MOST],
    nanos: AtomicU64,
}

impl Times {
    /// `bounds`: ascending, in microseconds; at most 13.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.len() < MOST, "one more is for what is longer");
        Self { bounds, counts: [const { AtomicU64::new(0) }; MOST], nanos: AtomicU64::new(0) }
    }

    /// By the only thread that writes: no locked instruction.
    pub fn observe(&self, took: Duration) {
        add(&self.counts[self.bucket(took)], 1);
        add(&self.nanos, nanos(took));
    }

    /// By one of several threads.
    pub fn share(&self, took: Duration) {
        self.counts[self.bucket(took)].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos(took), Ordering::Relaxed);
    }

    fn bucket(&self, took: Duration) -> usize {
        let micros = nanos(took).div_ceil(1000);
        self.bounds.iter().position(|bound| micros <= *bound).unwrap_or(self.bounds.len())
    }

    /// Upper bounds in seconds, the last one infinite, and how many were within each but not within the one before.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = self.bounds.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        bounds.zip(&self.counts).map(|(bound, count)| (bound, count.load(Ordering::Relaxed)))
    }

    /// Of all durations, in seconds.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.nanos.load(Ordering::Relaxed) as f64 / 1e9
    }
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_first_bucket_that_holds_them() {
        let times = Times::new(&[10, 100]);
        for (micros, many) in [(0, false), (10, true), (11, false), (100, false), (101, true)] {
            let took = Duration::from_micros(micros);
            if many { times.share(took) } else { times.observe(took) }
        }
        times.observe(Duration::from_nanos(10_001));
        let buckets: Vec<_> = times.buckets().collect();
        assert_eq!(buckets, [(1e-5, 2), (1e-4, 3), (f64::INFINITY, 1)]);
        assert!((times.sum() - 232.001e-6).abs() < 1e-9, "{}", times.sum());
    }

    #[test]
    fn bounds_ascend_and_leave_room_for_what_is_longer() {
        for bounds in [TURN, JOIN] {
            assert!(bounds.is_sorted() && Times::new(bounds).buckets().count() == bounds.len() + 1);
        }
    }
}
