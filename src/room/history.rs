//! The packets of one layer that are kept for retransmission, each exactly once, whoever receives it.

use std::time::{Duration, Instant};

use crate::rtp::codec::vp8::Descriptor;

/// Packets kept per layer at most. More repairs longer outages of a receiver, fewer keeps memory small; what is
/// older than [`KEPT_FOR`] is of no use to anybody's jitter buffer.
pub const LARGEST: usize = 512;

/// Packets kept at first: a second of audio, or of a small picture.
const SMALLEST: usize = 64;

/// How long a packet is worth repeating. Longer wastes a receiver's link on frames that it has given up,
/// shorter loses repairs on links with a round trip of some hundred milliseconds.
pub const KEPT_FOR: Duration = Duration::from_secs(1);

/// A packet as it was received: opened, without header and padding.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Unwrapped sequence number of the publisher.
    pub sequence: u64,
    pub arrival: Instant,
    pub timestamp: u32,
    pub marker: bool,
    /// Raw value of the header extension (RFC 6464), forwarded as it is.
    pub audio_level: Option<u8>,
    /// Raw value of the header extension, forwarded as it is.
    pub video_orientation: Option<u8>,
    /// Present for VP8.
    pub descriptor: Option<Descriptor>,
}

/// A ring of packets, indexed by sequence number. It grows with the packet rate until it spans [`KEPT_FOR`];
/// in steady state nothing is allocated, because every cell keeps its bytes.
#[derive(Debug, Default)]
pub struct History {
    /// None before the first packet: most sections of most participants never carry any.
    cells: Vec<Cell>,
}

#[derive(Clone, Debug, Default)]
struct Cell {
    packet: Option<Packet>,
    payload: Vec<u8>,
}

impl History {
    /// Keeps a payload. A number that is already kept, or was already passed by the ring, stays as it is: it may
    /// have been sealed for somebody. Returns whether it is new.
    pub fn insert(&mut self, packet: Packet, payload: &[u8]) -> bool {
        if self.cells.is_empty() {
            self.cells = vec![Cell::default(); SMALLEST];
        }
        while self.cells.len() < LARGEST && self.would_forget_too_soon(&packet) {
            self.grow();
        }
        let index = self.index(packet.sequence);
        let cell = &mut self.cells[index];
        if cell.packet.is_some_and(|kept| kept.sequence >= packet.sequence) {
            return false;
        }
        cell.packet = Some(packet);
        cell.payload.clear();
        cell.payload.extend_from_slice(payload);
        true
    }

    /// The packet and its payload, if it is still kept.
    #[must_use]
    pub fn get(&self, sequence: u64) -> Option<(&Packet, &[u8])> {
        let cell = self.cells.get(self.index(sequence))?;
        let packet = cell.packet.as_ref().filter(|packet| packet.sequence == sequence)?;
        Some((packet, &cell.payload))
    }

    /// As [`get`](Self::get), and young enough to be worth repeating.
    #[must_use]
    pub fn get_fresh(&self, sequence: u64, now: Instant) -> Option<(&Packet, &[u8])> {
        self.get(sequence).filter(|(packet, _)| is_young(packet, now))
    }

    /// Forgets everything, for instance because the publisher started its numbering anew.
    pub fn clear(&mut self) {
        for cell in &mut self.cells {
            cell.packet = None;
        }
    }

    fn index(&self, sequence: u64) -> usize {
        sequence as usize & self.cells.len().wrapping_sub(1)
    }

    fn would_forget_too_soon(&self, packet: &Packet) -> bool {
        self.cells[self.index(packet.sequence)]
            .packet
            .is_some_and(|kept| kept.sequence < packet.sequence && is_young(&kept, packet.arrival))
    }

    fn grow(&mut self) {
        let doubled = vec![Cell::default(); self.cells.len() * 2];
        for cell in std::mem::replace(&mut self.cells, doubled) {
            if let Some(packet) = cell.packet {
                let index = self.index(packet.sequence);
                self.cells[index] = cell;
            }
        }
    }
}

fn is_young(packet: &Packet, now: Instant) -> bool {
    now.saturating_duration_since(packet.arrival) <= KEPT_FOR
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u64, arrival: Instant) -> Packet {
        Packet {
            sequence,
            arrival,
            timestamp: 0,
            marker: false,
            audio_level: None,
            video_orientation: None,
            descriptor: None,
        }
    }

    #[test]
    fn a_number_is_kept_once() {
        let now = Instant::now();
        let mut history = History::default();
        assert!(history.insert(packet(7, now), b"first"));
        assert!(!history.insert(packet(7, now), b"other"));
        assert_eq!(history.get(7).map(|(_, payload)| payload), Some(&b"first"[..]));
    }

    #[test]
    fn what_was_overwritten_is_gone_and_what_never_came_is_not_there() {
        let start = Instant::now();
        let mut history = History::default();
        assert!(history.get(7).is_none(), "nothing came yet");
        history.insert(packet(7, start), b"first");
        let (next, later) = (7 + SMALLEST as u64, start + 2 * KEPT_FOR);
        assert!(history.get(next).is_none(), "its place is taken by another");
        history.insert(packet(next, later), b"second");
        assert!(history.get(7).is_none());
        assert_eq!(history.get(next).map(|(_, payload)| payload), Some(&b"second"[..]));
    }

    #[test]
    fn grows_until_it_spans_a_second_and_no_further() {
        let start = Instant::now();
        let mut history = History::default();
        for n in 0..2000u64 {
            history.insert(packet(n, start + Duration::from_millis(n * 5)), &n.to_be_bytes());
        }
        assert_eq!(history.cells.len(), 256, "200 packets a second");
        let now = start + Duration::from_millis(1999 * 5);
        assert!(history.get_fresh(1999 - 199, now).is_some());
        assert!(history.get_fresh(1999 - 201, now).is_none());
        for n in 2000..20_000u64 {
            history.insert(packet(n, now), &[]);
        }
        assert_eq!(history.cells.len(), LARGEST);
        for n in 20_000 - LARGEST as u64..20_000 {
            assert!(history.get(n).is_some());
        }
    }

    #[test]
    fn what_the_ring_has_passed_is_not_taken_back() {
        let now = Instant::now();
        let mut history = History::default();
        for n in 0..1024u64 {
            history.insert(packet(n, now), &[]);
        }
        assert!(!history.insert(packet(1024 - LARGEST as u64 - 1, now), b"late"));
    }
}
