//! What a receiver asks for again: the budget, the rate of repeats, and sealed packets that may only be
//! repeated as they were.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Retransmissions are at most one in four bytes of what this receiver gets. More repairs heavier loss and
/// feeds congestion that causes it, less leaves holes that a keyframe must fill.
const SHARE: u64 = 4;

/// Bytes that may be repeated before any were earned: a lost keyframe of a small picture. Higher lets a burst
/// of requests double a receiver's load, lower refuses the repair of the first frame.
const CREDIT: u64 = 64 * 1024;

/// Requests remembered to tell a repeat that came too soon.
const REMEMBERED: usize = 64;

/// The retransmissions of one receiver.
#[derive(Clone, Debug)]
pub struct Budget {
    /// In bytes, scaled by [`SHARE`].
    credit: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { credit: CREDIT * SHARE }
    }
}

impl Budget {
    /// Media was sent for the first time.
    pub fn earn(&mut self, bytes: usize) {
        self.credit = (self.credit + bytes as u64).min(CREDIT * SHARE);
    }

    /// Whether `bytes` may be repeated; if so they are spent.
    pub fn spend(&mut self, bytes: usize) -> bool {
        let cost = bytes as u64 * SHARE;
        if cost > self.credit {
            return false;
        }
        self.credit -= cost;
        true
    }
}

/// Which packets of one slot were repeated lately.
#[derive(Clone, Debug, Default)]
pub struct Repeats(VecDeque<(u16, Instant)>);

impl Repeats {
    /// Whether the packet may be repeated now: not within a round trip of the last time, because that repeat
    /// could not have arrived before the request was made. If so it is noted.
    pub fn allow(&mut self, sequence: u16, now: Instant, round_trip: Duration) -> bool {
        let recent = |at: Instant| now.saturating_duration_since(at) < round_trip;
        while self.0.front().is_some_and(|&(_, at)| !recent(at)) {
            self.0.pop_front();
        }
        if self.0.iter().any(|&(asked, _)| asked == sequence) {
            return false;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((sequence, now));
        true
    }
}

/// The last sealed packets of a slot that has no retransmission stream (audio). Sealing the number again would
/// break the cipher; the identical bytes may be sent as often as asked.
#[derive(Clone, Debug, Default)]
pub struct Sealed {
    packets: VecDeque<(u16, Vec<u8>)>,
}

impl Sealed {
    /// Packets kept: one second of audio. More repairs later requests than a jitter buffer waits for.
    const KEPT: usize = 50;

    pub fn keep(&mut self, sequence: u16, datagram: &[u8]) {
        let mut bytes = if self.packets.len() == Self::KEPT {
            self.packets.pop_front().map(|(_, bytes)| bytes).unwrap_or_default()
        } else {
            Vec::new()
        };
        bytes.clear();
        bytes.extend_from_slice(datagram);
        self.packets.push_back((sequence, bytes));
    }

    #[must_use]
    pub fn get(&self, sequence: u16) -> Option<&[u8]> {
        self.packets.iter().rev().find(|(kept, _)| *kept == sequence).map(|(_, bytes)| &bytes[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retransmissions_are_a_quarter_of_what_was_sent() {
        let mut budget = Budget::default();
        while budget.spend(1000) {}
        budget.earn(4000 - 1);
        assert!(budget.spend(900));
        assert!(!budget.spend(1000));
    }

    #[test]
    fn a_packet_is_repeated_once_per_round_trip() {
        let now = Instant::now();
        let rtt = Duration::from_millis(40);
        let mut repeats = Repeats::default();
        assert!(repeats.allow(7, now, rtt));
        assert!(!repeats.allow(7, now + rtt / 2, rtt));
        assert!(repeats.allow(8, now + rtt / 2, rtt));
        assert!(repeats.allow(7, now + rtt, rtt));
    }

    #[test]
    fn sealed_packets_are_kept_for_fifty_and_come_back_identical() {
        let mut sealed = Sealed::default();
        for n in 0..60u16 {
            sealed.keep(n.wrapping_sub(5), &n.to_be_bytes());
        }
        assert_eq!(sealed.get(4), None);
        assert_eq!(sealed.get(5), Some(&10u16.to_be_bytes()[..]));
        assert_eq!(sealed.get(54), Some(&59u16.to_be_bytes()[..]));
    }
}
