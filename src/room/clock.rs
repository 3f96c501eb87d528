//! One clock: every publisher's sender reports are mapped to the server's, so that what several people send
//! can be placed on one line per slot, and sound stays with its picture.

use std::time::{Duration, Instant};

use crate::units::NtpTime;

/// How long an observation of the way's shortest delay counts. Longer follows a drifting clock more slowly,
/// shorter takes a queue for a change of the clock.
const WINDOW: Duration = Duration::from_secs(10);

/// The server's clock as sender reports show it (RFC 3550 §4), from one fixed instant.
#[derive(Clone, Copy, Debug)]
pub struct ServerClock {
    epoch: Instant,
    /// Seconds since 1900 at `epoch`, 32.32 fixed point.
    ntp: u64,
}

impl ServerClock {
    /// `since_unix`: the time of day at `now`.
    #[must_use]
    pub fn new(now: Instant, since_unix: Duration) -> Self {
        const UNIX_IN_NTP: u64 = 2_208_988_800;
        let fraction = (u64::from(since_unix.subsec_nanos()) << 32) / 1_000_000_000;
        Self { epoch: now, ntp: ((since_unix.as_secs().wrapping_add(UNIX_IN_NTP)) << 32) | fraction }
    }

    #[must_use]
    pub fn ntp(&self, now: Instant) -> NtpTime {
        let since = now.saturating_duration_since(self.epoch).as_nanos();
        NtpTime(self.ntp.wrapping_add(((since << 32) / 1_000_000_000) as u64))
    }

    /// The time since the clock's epoch.
    #[must_use]
    pub fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }

    /// Where a clock of `rate` ticks per second stands that showed `base` at the epoch.
    #[must_use]
    pub fn line(&self, base: u32, rate: u32, at: Instant) -> u32 {
        base.wrapping_add(ticks(at.saturating_duration_since(self.epoch), rate) as u32)
    }
}

/// A duration in ticks of a clock.
#[must_use]
pub fn ticks(duration: Duration, rate: u32) -> u64 {
    (duration.as_nanos() * u128::from(rate) / 1_000_000_000) as u64
}

/// The offset of one publisher's clock: the least (arrival − NTP) within a sliding window, because delay only
/// ever adds.
#[derive(Clone, Copy, Debug, Default)]
pub struct SenderClock {
    /// Arrival and NTP time of the first report, against which differences are taken.
    origin: Option<(Instant, NtpTime)>,
    /// Least delay in ns relative to the origin, in the present and in the last window.
    present: Option<(Instant, i64)>,
    last: Option<i64>,
}

impl SenderClock {
    pub fn handle_report(&mut self, ntp: NtpTime, arrival: Instant) {
        let Some((origin, _)) = self.origin else {
            self.origin = Some((arrival, ntp));
            self.present = Some((arrival, 0));
            return;
        };
        let elapsed = arrival.saturating_duration_since(origin).as_nanos() as i64;
        let delay = elapsed - self.since_origin(ntp);
        self.present = match self.present {
            Some((began, least)) if arrival.saturating_duration_since(began) < WINDOW => {
                Some((began, least.min(delay)))
            }
            present => {
                self.last = present.map(|(_, least)| least);
                Some((arrival, delay))
            }
        };
    }

    /// When, by the server's clock, the publisher's clock showed `ntp`, as if the way took no time. `None` before
    /// the first report.
    #[must_use]
    pub fn to_server(&self, ntp: NtpTime) -> Option<Instant> {
        let (origin, _) = self.origin?;
        let (_, present) = self.present?;
        let delay = self.last.map_or(present, |last| last.min(present));
        offset(origin, self.since_origin(ntp).saturating_add(delay))
    }

    fn since_origin(&self, ntp: NtpTime) -> i64 {
        let Some((_, origin)) = self.origin else { return 0 };
        let difference = ntp.0.wrapping_sub(origin.0).cast_signed();
        ((i128::from(difference) * 1_000_000_000) >> 32) as i64
    }
}

/// The relation of one layer's timestamps to its publisher's clock, as its newest sender report states it.
#[derive(Clone, Copy, Debug)]
pub struct SenderReport {
    pub ntp: NtpTime,
    pub timestamp: u32,
}

impl SenderReport {
    /// When the sample with `timestamp` was captured, by the server's clock.
    #[must_use]
    pub fn capture(&self, clock: &SenderClock, timestamp: u32, rate: u32) -> Option<Instant> {
        let distance = timestamp.wrapping_sub(self.timestamp).cast_signed();
        let ns = i64::from(distance) * 1_000_000_000 / i64::from(rate);
        offset(clock.to_server(self.ntp)?, ns)
    }
}

fn offset(at: Instant, ns: i64) -> Option<Instant> {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    if ns < 0 { at.checked_sub(distance) } else { at.checked_add(distance) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_counts_from_1900() {
        let now = Instant::now();
        let clock = ServerClock::new(now, Duration::from_secs(1));
        assert_eq!(clock.ntp(now).0 >> 32, 2_208_988_801);
        let half = clock.ntp(now + Duration::from_millis(500));
        assert_eq!(half.0 as u32, 1 << 31);
    }

    #[test]
    fn the_least_delay_counts_and_an_old_one_is_forgotten() {
        let start = Instant::now();
        let ntp = |ms: u64| NtpTime((1000 << 32) + (ms << 32) / 1000);
        let mut clock = SenderClock::default();
        assert_eq!(clock.to_server(ntp(0)), None);
        // Sent at 0 ms with 30 ms of delay, then at 1 s with 10 ms.
        clock.handle_report(ntp(0), start + Duration::from_millis(30));
        clock.handle_report(ntp(1000), start + Duration::from_millis(1010));
        let at = clock.to_server(ntp(2000)).expect("reported");
        let error = at.duration_since(start).as_micros().abs_diff(2_010_000);
        assert!(error <= 1, "{error} µs");
        // From now on the way takes 50 ms: after two windows that is what counts.
        for s in 2..30 {
            clock.handle_report(ntp(s * 1000), start + Duration::from_millis(s * 1000 + 50));
        }
        let at = clock.to_server(ntp(30_000)).expect("reported");
        assert!(at.duration_since(start).as_micros().abs_diff(30_050_000) <= 1);
    }

    #[test]
    fn capture_times_follow_the_wrap_of_timestamps() {
        let now = Instant::now();
        let mut clock = SenderClock::default();
        clock.handle_report(NtpTime(1 << 40), now);
        let report = SenderReport { ntp: NtpTime(1 << 40), timestamp: u32::MAX - 44_999 };
        let at = report.capture(&clock, 45_000, 90_000).expect("reported");
        assert_eq!(at.duration_since(now), Duration::from_secs(1));
        let before = report.capture(&clock, u32::MAX - 44_999 - 90, 90_000).expect("reported");
        assert_eq!(now.duration_since(before), Duration::from_millis(1));
    }
}
