//! RTCP (RFC 3550 §6), its feedback messages (RFC 4585, RFC 5104) and reduced-size form (RFC 5506).
//!
//! ```text
//! |V=2|P|  count  |  packet type  |  length in words - 1 (this header is the first)  |
//! ```

mod read;
mod write;

pub use read::{FirEntries, NackEntries, Packets, RembSsrcs, Reports, Rtcp, packets};
pub(in crate::rtp) use write::Body;
pub use write::Writer;

use crate::id::Ssrc;
use crate::units::NtpTime;

/// Report blocks in one packet: its count has five bits.
pub const MAX_REPORTS: usize = 31;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
/// Feedback on the transport (RFC 4585 §6.2); the count says which.
const TRANSPORT_FEEDBACK: u8 = 205;
const NACK: u8 = 1;
const TRANSPORT_CC: u8 = 15;
/// Feedback on the payload (RFC 4585 §6.3); the count says which.
const PAYLOAD_FEEDBACK: u8 = 206;
const PLI: u8 = 1;
const FIR: u8 = 4;
const APPLICATION: u8 = 15;
/// Marks the application feedback that carries a bitrate (draft-alvestrand-rmcat-remb-03 §2.2).
const REMB: [u8; 4] = *b"REMB";

/// What a sender says about its own stream (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    pub ntp: NtpTime,
    /// The same instant in the stream's clock.
    pub rtp: u32,
    /// Packets and payload bytes sent so far; both wrap.
    pub packets: u32,
    pub octets: u32,
}

/// What a receiver says about one stream (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    pub ssrc: Ssrc,
    /// Of the packets since the last report, in 1/256.
    pub fraction_lost: u8,
    /// 24 bits with sign: duplicates make it negative.
    pub cumulative_lost: i32,
    /// Cycles of the sequence number in the high half, the highest number in the low.
    pub highest: u32,
    /// Interarrival jitter in the stream's clock.
    pub jitter: u32,
    /// [`NtpTime::compact`] of the last sender report; 0 before the first.
    pub last_sr: u32,
    /// Since that report arrived, in 1/65536 s; 0 before the first.
    pub delay_since_sr: u32,
}

#[cfg(test)]
mod tests;
