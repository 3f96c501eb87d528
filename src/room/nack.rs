//! Which packets of one layer are missing, and when to ask the publisher for them again (RFC 4585 §6.2.1).

use std::time::{Duration, Instant};

/// Missing packets remembered per layer. More asks for longer bursts of loss, fewer gives up for a keyframe
/// sooner; beyond 256 a keyframe is cheaper than the repair.
const MOST_MISSING: usize = 256;

/// How long reordering is given before the first request, unless a second packet overtakes earlier. Longer
/// delays each repair by as much, shorter asks for packets that are merely late.
const REORDER: Duration = Duration::from_millis(10);

/// Requests for one packet before it is given up. More keeps asking a publisher that has forgotten it, fewer
/// gives up on links that lose many packets.
const TRIES: u8 = 10;

/// Shortest time between two requests for the same packet, whatever the round trip.
const SHORTEST_RETRY: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug)]
struct Missing {
    sequence: u64,
    since: Instant,
    asked: Option<Instant>,
    tries: u8,
    /// Packets with higher numbers that arrived since.
    overtaken: u8,
}

/// The gaps in one layer's numbering.
#[derive(Debug, Default)]
pub struct Nack {
    highest: Option<u64>,
    /// In ascending order.
    missing: Vec<Missing>,
}

/// What the arrival of a packet means for the gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The next number, or one with a gap before it that will be asked for.
    New,
    /// It fills a gap.
    Late,
    /// A gap larger than can be repaired: a keyframe is needed.
    Lost,
}

impl Nack {
    /// Notes the arrival of a packet.
    pub fn handle_packet(&mut self, sequence: u64, now: Instant) -> Arrival {
        let Some(highest) = self.highest else {
            self.highest = Some(sequence);
            return Arrival::New;
        };
        if sequence <= highest {
            if let Ok(at) = self.missing.binary_search_by_key(&sequence, |missing| missing.sequence) {
                self.missing.remove(at);
            }
            return Arrival::Late;
        }
        self.highest = Some(sequence);
        for missing in &mut self.missing {
            missing.overtaken = missing.overtaken.saturating_add(1);
        }
        let gap = sequence - highest - 1;
        if gap as usize + self.missing.len() > MOST_MISSING {
            self.missing.clear();
            return Arrival::Lost;
        }
        self.missing.extend((highest + 1..sequence).map(|sequence| Missing {
            sequence,
            since: now,
            asked: None,
            tries: 0,
            overtaken: 0,
        }));
        Arrival::New
    }

    /// When [`poll`](Self::poll) will next have something to ask; `None` while nothing is missing.
    #[must_use]
    pub fn poll_timeout(&self, round_trip: Duration) -> Option<Instant> {
        self.missing.iter().map(|missing| missing.due(round_trip)).min()
    }

    /// Writes the low 16 bits of the numbers to ask for now, in ascending order, and returns how many.
    pub fn poll(&mut self, now: Instant, round_trip: Duration, out: &mut [u16]) -> usize {
        let mut asked = 0;
        self.missing.retain_mut(|missing| {
            if asked == out.len() || missing.due(round_trip) > now {
                return true;
            }
            if missing.tries == TRIES {
                return false;
            }
            missing.tries += 1;
            missing.asked = Some(now);
            out[asked] = missing.sequence as u16;
            asked += 1;
            true
        });
        asked
    }

    /// Forgets all gaps, because the publisher is silent on purpose or began anew.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Missing {
    fn due(&self, round_trip: Duration) -> Instant {
        match self.asked {
            Some(asked) => asked + round_trip.max(SHORTEST_RETRY),
            // One packet that overtakes is reordering at its mildest; two are a loss.
            None if self.overtaken > 0 => self.since,
            None => self.since + REORDER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(50);

    fn ask(nack: &mut Nack, now: Instant) -> Vec<u16> {
        let mut out = [0; 32];
        let n = nack.poll(now, RTT, &mut out);
        out[..n].to_vec()
    }

    #[test]
    fn asks_after_ten_milliseconds_or_a_second_overtaking_packet() {
        let now = Instant::now();
        let mut nack = Nack::default();
        nack.handle_packet(10, now);
        nack.handle_packet(12, now);
        assert!(ask(&mut nack, now + Duration::from_millis(9)).is_empty());
        assert_eq!(ask(&mut nack, now + REORDER), [11]);

        let mut nack = Nack::default();
        nack.handle_packet(10, now);
        nack.handle_packet(12, now);
        nack.handle_packet(13, now);
        assert_eq!(ask(&mut nack, now), [11]);
    }

    #[test]
    fn asks_again_after_each_round_trip_and_gives_up_after_ten_tries() {
        let mut now = Instant::now();
        let mut nack = Nack::default();
        nack.handle_packet(0, now);
        nack.handle_packet(2, now);
        now += REORDER;
        for _ in 0..TRIES {
            assert_eq!(ask(&mut nack, now), [1]);
            assert!(ask(&mut nack, now + RTT / 2).is_empty());
            now += RTT;
        }
        assert!(ask(&mut nack, now).is_empty());
        assert_eq!(nack.poll_timeout(RTT), None);
    }

    #[test]
    fn what_arrives_late_is_not_asked_for() {
        let now = Instant::now();
        let mut nack = Nack::default();
        nack.handle_packet(65_535, now);
        nack.handle_packet(65_538, now);
        assert_eq!(nack.handle_packet(65_536, now), Arrival::Late);
        assert_eq!(ask(&mut nack, now + REORDER), [1], "the low 16 bits of 65 537");
    }

    #[test]
    fn a_gap_beyond_repair_is_lost_as_a_whole() {
        let now = Instant::now();
        let mut nack = Nack::default();
        nack.handle_packet(0, now);
        assert_eq!(nack.handle_packet(MOST_MISSING as u64 + 2, now), Arrival::Lost);
        assert_eq!(nack.poll_timeout(RTT), None);
    }
}
