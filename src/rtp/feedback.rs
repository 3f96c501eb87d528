//! What a receiver counts of one stream, and its report blocks (RFC 3550 §6.4.1, §A.1, §A.3, §A.8).

use std::time::{Duration, Instant};

use super::rtcp::ReportBlock;
use crate::id::Ssrc;
use crate::units::NtpTime;

/// A step forward of at least this many numbers is suspected to be a restart. Higher takes more restarts for
/// losses, lower takes long outages for restarts (RFC 3550 §A.1 proposes 3000: a minute at 50 packets/s).
const MAX_DROPOUT: u16 = 3000;

/// A step back of up to this many numbers is a late packet. Higher takes more restarts for late packets, which
/// then count as duplicates; lower takes late packets for restarts (RFC 3550 §A.1 proposes 100).
const MAX_MISORDER: u16 = 100;

/// A packet whose delay differs from its predecessor's by more than this says nothing about the network: the
/// publisher's clock leapt, or it had nothing to send. Higher lets one leap spoil the jitter for a minute, lower
/// hides real delays.
const MAX_TRANSIT_STEP_SECONDS: u32 = 5;

/// What a packet's sequence number means for its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Newer than all before.
    Newer,
    /// Late or received before: which of them, [`Reception`] does not keep.
    Late,
    /// Far from all others. Not counted unless the next packet follows it.
    Suspect,
    /// The second packet in a row that follows a far jump: the publisher restarted its numbering, and the counters
    /// began anew.
    Restarted,
}

/// Statistics of one received stream.
#[derive(Clone, Copy, Debug)]
pub struct Reception {
    clock_rate: u32,
    numbers: Option<Numbers>,
    /// Arrival and timestamp of the packet before.
    last: Option<(Instant, u32)>,
    /// Sixteen times the jitter, in ticks of the clock.
    jitter: u32,
    /// The compact time of the last sender report and when it came.
    sender_report: Option<(u32, Instant)>,
}

/// The counters since the stream began or restarted; the names are those of RFC 3550 §A.1.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    base: u16,
    max: u16,
    cycles: u16,
    received: u32,
    expected_prior: u32,
    received_prior: u32,
    /// What follows the last suspect.
    after_suspect: Option<u16>,
}

impl Numbers {
    fn new(first: u16) -> Self {
        Self {
            base: first,
            max: first,
            cycles: 0,
            received: 1,
            expected_prior: 0,
            received_prior: 0,
            after_suspect: None,
        }
    }

    fn highest(&self) -> u32 {
        u32::from(self.cycles) << 16 | u32::from(self.max)
    }

    fn expected(&self) -> u32 {
        self.highest().wrapping_sub(u32::from(self.base)).wrapping_add(1)
    }
}

impl Reception {
    /// `clock_rate`: ticks per second of the stream's timestamps.
    #[must_use]
    pub fn new(clock_rate: u32) -> Self {
        Self { clock_rate, numbers: None, last: None, jitter: 0, sender_report: None }
    }

    /// Counts a packet of the stream, padding-only ones included, retransmissions on another SSRC not.
    #[inline]
    pub fn handle_packet(&mut self, now: Instant, sequence: u16, timestamp: u32) -> Progress {
        let progress = self.count(sequence);
        if progress == Progress::Suspect {
            return progress;
        }
        if progress == Progress::Restarted {
            self.last = None; // a new numbering comes with new timestamps
        }
        self.measure(now, timestamp);
        progress
    }

    /// RFC 3550 §A.1, without its probation: the packets are authenticated.
    fn count(&mut self, sequence: u16) -> Progress {
        let Some(numbers) = &mut self.numbers else {
            self.numbers = Some(Numbers::new(sequence));
            return Progress::Newer;
        };
        let step = sequence.wrapping_sub(numbers.max);
        if step == 0 || step > u16::MAX - MAX_MISORDER {
            numbers.received = numbers.received.wrapping_add(1);
            return Progress::Late;
        }
        if step < MAX_DROPOUT {
            numbers.cycles = numbers.cycles.wrapping_add(u16::from(sequence < numbers.max));
            numbers.max = sequence;
            numbers.received = numbers.received.wrapping_add(1);
            numbers.after_suspect = None;
            return Progress::Newer;
        }
        if numbers.after_suspect == Some(sequence) {
            *numbers = Numbers { base: sequence.wrapping_sub(1), received: 2, ..Numbers::new(sequence) };
            // The base may be 65 535 and the highest 0: the cycle between them counts.
            numbers.cycles = u16::from(sequence == 0);
            return Progress::Restarted;
        }
        numbers.after_suspect = Some(sequence.wrapping_add(1));
        Progress::Suspect
    }

    /// RFC 3550 §A.8, in integers with four binary places.
    fn measure(&mut self, now: Instant, timestamp: u32) {
        let Some((last_arrival, last_timestamp)) = self.last.replace((now, timestamp)) else { return };
        let elapsed = ticks(now.saturating_duration_since(last_arrival), self.clock_rate);
        let sent = timestamp.wrapping_sub(last_timestamp);
        let transit_step = elapsed.wrapping_sub(sent).cast_signed().unsigned_abs();
        if transit_step > self.clock_rate.saturating_mul(MAX_TRANSIT_STEP_SECONDS) {
            return;
        }
        self.jitter = self.jitter.saturating_add(transit_step) - (self.jitter.saturating_add(8) >> 4);
    }

    /// The publisher's sender report for this stream.
    pub fn handle_sender_report(&mut self, now: Instant, ntp: NtpTime) {
        self.sender_report = Some((ntp.compact(), now));
    }

    /// The report block for this stream, and the beginning of the next interval; `None` before the first packet.
    pub fn report(&mut self, now: Instant, ssrc: Ssrc) -> Option<ReportBlock> {
        let numbers = self.numbers.as_mut()?;
        let expected = numbers.expected();
        let lost = expected.wrapping_sub(numbers.received).cast_signed();
        let expected_now = expected.wrapping_sub(numbers.expected_prior);
        let received_now = numbers.received.wrapping_sub(numbers.received_prior);
        numbers.expected_prior = expected;
        numbers.received_prior = numbers.received;
        let lost_now = expected_now.saturating_sub(received_now);
        let fraction =
            if expected_now == 0 { 0 } else { (u64::from(lost_now) << 8) / u64::from(expected_now) };
        let (last_sr, delay_since_sr) = match self.sender_report {
            Some((compact, at)) => (compact, ticks(now.saturating_duration_since(at), 1 << 16)),
            None => (0, 0),
        };
        Some(ReportBlock {
            ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX), // 256/256 is out of range
            cumulative_lost: lost.clamp(-0x80_0000, 0x7F_FFFF),
            highest: numbers.highest(),
            jitter: self.jitter >> 4,
            last_sr,
            delay_since_sr,
        })
    }
}

/// The round trip that a receiver's block about our stream shows (RFC 3550 §6.4.1): `now` is the time of the clock
/// that our sender reports carry. `None` where the receiver has no report yet or its figures are impossible.
#[must_use]
pub fn round_trip(report: &ReportBlock, now: NtpTime) -> Option<Duration> {
    if report.last_sr == 0 {
        return None;
    }
    let elapsed = now.compact().wrapping_sub(report.last_sr);
    let units = elapsed.wrapping_sub(report.delay_since_sr);
    // Half the range and more is a negative round trip: clocks of both ends round, or the figures are invented.
    let units = u32::try_from(units.cast_signed()).ok()?;
    Some(Duration::from_nanos((u64::from(units) * 1_000_000_000) >> 16))
}

/// A duration in ticks of a clock, rounded; wraps as timestamps do.
fn ticks(duration: Duration, rate: u32) -> u32 {
    const NANOS: u64 = 1_000_000_000;
    let whole = duration.as_secs().wrapping_mul(rate.into());
    let part = (u64::from(duration.subsec_nanos()) * u64::from(rate) + NANOS / 2) / NANOS;
    whole.wrapping_add(part) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VIDEO: u32 = 90_000;

    /// A stream in which each packet comes 10 ms after the one before.
    struct Stream {
        reception: Reception,
        now: Instant,
        timestamp: u32,
    }

    impl Stream {
        fn new() -> Self {
            Self { reception: Reception::new(VIDEO), now: Instant::now(), timestamp: 0xFFFF_FF00 }
        }

        fn packet(&mut self, sequence: u16) -> Progress {
            self.now += Duration::from_millis(10);
            self.timestamp = self.timestamp.wrapping_add(900);
            self.reception.handle_packet(self.now, sequence, self.timestamp)
        }

        fn report(&mut self) -> ReportBlock {
            self.reception.report(self.now, Ssrc(1)).expect("a packet came")
        }
    }

    #[test]
    fn nothing_is_reported_before_the_first_packet() {
        assert_eq!(Reception::new(VIDEO).report(Instant::now(), Ssrc(1)), None);
    }

    #[test]
    fn losses_are_counted_in_total_and_per_interval() {
        let mut stream = Stream::new();
        for sequence in (100..200).filter(|n| n % 4 != 1) {
            assert_eq!(stream.packet(sequence), Progress::Newer);
        }
        let report = stream.report();
        assert_eq!((report.cumulative_lost, report.fraction_lost, report.highest), (25, 64, 199));
        for sequence in 200..300 {
            stream.packet(sequence);
        }
        let report = stream.report();
        assert_eq!((report.cumulative_lost, report.fraction_lost, report.highest), (25, 0, 299));
        assert_eq!(stream.report().fraction_lost, 0, "an empty interval");
        stream.packet(301);
        assert_eq!(stream.report().fraction_lost, 128);
    }

    #[test]
    fn late_packets_repay_losses_and_duplicates_make_them_negative() {
        let mut stream = Stream::new();
        for sequence in [10, 12] {
            stream.packet(sequence);
        }
        assert_eq!(stream.report().cumulative_lost, 1);
        assert_eq!(stream.packet(11), Progress::Late);
        assert_eq!(stream.report().cumulative_lost, 0);
        assert_eq!(stream.packet(12), Progress::Late);
        let report = stream.report();
        assert_eq!((report.cumulative_lost, report.fraction_lost, report.highest), (-1, 0, 12));
    }

    #[test]
    fn the_highest_number_counts_cycles() {
        for start in [0u16, 1, 0xFFFE, 0xFFFF] {
            let mut stream = Stream::new();
            for n in 0..200_000u32 {
                assert_eq!(stream.packet(start.wrapping_add(n as u16)), Progress::Newer);
            }
            let report = stream.report();
            assert_eq!(report.highest, u32::from(start) + 199_999);
            assert_eq!(report.cumulative_lost, 0);
        }
    }

    #[test]
    fn a_restart_of_the_numbering_is_not_thousands_of_losses() {
        for restart in [30_000u16, 60_000, 0xFFFE, 0xFFFF, 0] {
            let mut stream = Stream::new();
            for sequence in 10_000..10_100 {
                stream.packet(sequence);
            }
            stream.report();
            assert_eq!(stream.packet(restart), Progress::Suspect);
            let report = stream.report();
            assert_eq!((report.cumulative_lost, report.highest), (0, 10_099), "not counted yet");
            assert_eq!(stream.packet(restart.wrapping_add(1)), Progress::Restarted);
            for n in 2..100 {
                assert_eq!(stream.packet(restart.wrapping_add(n)), Progress::Newer);
            }
            let report = stream.report();
            assert_eq!((report.cumulative_lost, report.fraction_lost), (0, 0), "restart at {restart}");
            assert_eq!(report.highest, u32::from(restart) + 99, "restart at {restart}");
        }
    }

    #[test]
    fn one_stray_number_changes_nothing() {
        let mut stream = Stream::new();
        for sequence in 0..50 {
            stream.packet(sequence);
            assert_eq!(stream.packet(40_000 + sequence * 3), Progress::Suspect);
        }
        let report = stream.report();
        assert_eq!((report.cumulative_lost, report.highest), (0, 49));
    }

    #[test]
    fn jitter_is_zero_for_a_steady_stream_and_approaches_a_steady_deviation() {
        let mut stream = Stream::new();
        for sequence in 0..100 {
            stream.packet(sequence);
        }
        assert_eq!(stream.report().jitter, 0);
        for sequence in 100..600 {
            // Alternately 2 ms early and late: every step differs by 4 ms, which is 360 ticks.
            let off = Duration::from_millis(2);
            stream.now = if sequence % 2 == 0 { stream.now + off * 2 } else { stream.now - off * 2 };
            stream.packet(sequence);
        }
        let jitter = stream.report().jitter;
        assert!((350..=361).contains(&jitter), "{jitter}");
    }

    #[test]
    fn a_leap_of_the_publishers_clock_is_no_jitter() {
        let mut stream = Stream::new();
        stream.packet(1);
        stream.timestamp = stream.timestamp.wrapping_add(0x4000_0000);
        stream.packet(2);
        stream.now += Duration::from_secs(3600);
        stream.packet(3);
        assert_eq!(stream.report().jitter, 0);
    }

    #[test]
    fn the_last_sender_report_and_its_age_are_in_the_block() {
        let mut stream = Stream::new();
        stream.packet(1);
        assert_eq!((stream.report().last_sr, stream.report().delay_since_sr), (0, 0));
        stream.reception.handle_sender_report(stream.now, NtpTime(0x0102_0304_0506_0708));
        stream.now += Duration::from_millis(1500);
        assert_eq!((stream.report().last_sr, stream.report().delay_since_sr), (0x0304_0506, 0x1_8000));
    }

    #[test]
    fn round_trips_are_what_remains_after_the_receivers_delay() {
        let mut block = Stream::new();
        block.packet(1);
        let mut block = block.report();
        assert_eq!(round_trip(&block, NtpTime(1 << 40)), None, "no sender report yet");
        // The example of RFC 3550 §6.4.1: 6.125 s.
        block.last_sr = 0xB705_2000;
        block.delay_since_sr = 0x0005_4000;
        let now = NtpTime(0xB710_8000 << 16);
        assert_eq!(round_trip(&block, now), Some(Duration::from_millis(6125)));
        block.delay_since_sr = 0x000B_7000;
        assert_eq!(round_trip(&block, now), None, "negative");
    }

    proptest! {
        /// Against plain counting: without restarts, the totals are those of the distinct numbers sent.
        #[test]
        fn totals_are_those_of_plain_counting(
            base: u16,
            steps in prop::collection::vec((0u64..60, 0u64..99), 1..400),
        ) {
            let mut stream = Stream::new();
            let (mut newest, mut received) = (u64::from(base), 1u64);
            stream.packet(base);
            let (mut lost_before, mut expected_before) = (0, 0);
            for (n, (forward, back)) in steps.into_iter().enumerate() {
                // A third of the packets are late or doubled.
                let at = if n % 3 == 2 { newest.saturating_sub(back) } else { newest + forward };
                if at < u64::from(base) {
                    continue;
                }
                let progress = stream.packet(at as u16);
                prop_assert_eq!(progress, if at > newest { Progress::Newer } else { Progress::Late });
                newest = newest.max(at);
                received += 1;
                if n % 7 == 0 {
                    let report = stream.report();
                    let expected = newest - u64::from(base) + 1;
                    let lost = expected.cast_signed() - received.cast_signed();
                    prop_assert_eq!(u64::from(report.highest), newest);
                    prop_assert_eq!(i64::from(report.cumulative_lost), lost);
                    let (lost_now, expected_now) = (lost - lost_before, expected - expected_before);
                    let fraction = if lost_now <= 0 { 0 } else { lost_now * 256 / expected_now.cast_signed() };
                    prop_assert_eq!(i64::from(report.fraction_lost), fraction.min(255));
                    (lost_before, expected_before) = (lost, expected);
                }
            }
        }

        #[test]
        fn arbitrary_packets_never_panic(packets in prop::collection::vec(any::<(u16, u32, u32)>(), 1..100)) {
            let mut reception = Reception::new(u32::MAX);
            let start = Instant::now();
            for (sequence, timestamp, millis) in packets {
                let now = start + Duration::from_millis(millis.into());
                reception.handle_packet(now, sequence, timestamp);
                reception.handle_sender_report(now, NtpTime(timestamp.into()));
                let report = reception.report(now, Ssrc(1)).expect("a packet came");
                let round_trip = round_trip(&report, NtpTime(u64::from(millis) << 20));
                prop_assert!(round_trip.is_none_or(|time| time < Duration::from_secs(1 << 15)));
            }
        }
    }
}
