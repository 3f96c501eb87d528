//! Newtypes for quantities whose unit is easily mistaken.

/// Bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bitrate(pub u64);

/// An RTP timestamp in the clock of its stream (90 kHz for video, 48 kHz for Opus); wraps at 2³².
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RtpTime(pub u32);

impl RtpTime {
    #[must_use]
    pub fn wrapping_add(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks))
    }

    /// How far `self` is behind `later`: positive where `later` is later (RFC 1982 arithmetic).
    #[must_use]
    pub fn distance_to(self, later: Self) -> i32 {
        later.0.wrapping_sub(self.0).cast_signed()
    }
}

/// Seconds since 1900 in 32.32 fixed point (RFC 3550 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// The middle 32 bits, as sender and receiver reports carry them.
    #[must_use]
    pub fn compact(self) -> u32 {
        (self.0 >> 16) as u32
    }
}
