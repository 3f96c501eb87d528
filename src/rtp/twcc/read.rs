//! The sending side: reads feedback.

use super::{LARGE_DELTA, NOT_RECEIVED, SMALL_DELTA};
use crate::observe::reason::Reason;

/// Packets that one feedback packet may speak of. A datagram holds the deltas of some 1400 received ones, but four
/// bytes can claim 65 535 lost ones. Higher costs time for invented losses, lower refuses honest reports of an outage.
const MAX_PACKETS: u16 = 8192;

/// One feedback packet, validated: iterating over it cannot fail.
#[derive(Clone, Debug)]
pub struct Feedback<'a> {
    /// The first number that it speaks of.
    pub base: u16,
    /// How many numbers it speaks of, from `base` on.
    pub packets: u16,
    /// In 64 ms, 24 bits, of the receiver's clock.
    pub reference_time: u32,
    /// Counts feedback packets, so that lost ones are noticed.
    pub feedback_count: u8,
    symbols: Symbols<'a>,
    deltas: &'a [u8],
}

impl<'a> Feedback<'a> {
    /// Reads what stands after the SSRCs: [`Rtcp::TransportCc`](crate::rtp::rtcp::Rtcp::TransportCc)'s body.
    ///
    /// # Errors
    /// [`Reason::RtcpMalformed`] where chunks or deltas are missing, a reserved status is used or more than 8192
    /// packets are spoken of.
    pub fn parse(body: &'a [u8]) -> Result<Self, Reason> {
        Self::read(body).ok_or(Reason::RtcpMalformed)
    }

    fn read(body: &'a [u8]) -> Option<Self> {
        let (&[b0, b1, p0, p1, r0, r1, r2, feedback_count], chunks) = body.split_first_chunk()?;
        let packets = u16::from_be_bytes([p0, p1]);
        if packets > MAX_PACKETS {
            return None;
        }
        let symbols = Symbols { chunks, chunk: 0, left: 0 };
        let mut walk = symbols.clone();
        let mut deltas = 0;
        for _ in 0..packets {
            match walk.next()? {
                status @ (NOT_RECEIVED | SMALL_DELTA | LARGE_DELTA) => deltas += usize::from(status),
                _ => return None,
            }
        }
        Some(Self {
            base: u16::from_be_bytes([b0, b1]),
            packets,
            reference_time: u32::from_be_bytes([0, r0, r1, r2]),
            feedback_count,
            symbols,
            deltas: walk.chunks.get(..deltas)?,
        })
    }

    /// Each packet that it speaks of: its number and, where it was received, when: in ticks of 250 µs since
    /// the reference time, negative where it came before.
    #[must_use]
    pub fn packets(&self) -> Packets<'a> {
        Packets {
            symbols: self.symbols.clone(),
            deltas: self.deltas,
            sequence: self.base,
            left: self.packets,
            arrival: 0,
        }
    }
}

/// See [`Feedback::packets`].
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    symbols: Symbols<'a>,
    deltas: &'a [u8],
    sequence: u16,
    left: u16,
    /// At most 8192 deltas of 16 bits: it cannot overflow.
    arrival: i32,
}

impl Iterator for Packets<'_> {
    type Item = (u16, Option<i32>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let delta = match self.symbols.next()? {
            SMALL_DELTA => {
                let (&delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                i32::from(delta)
            }
            LARGE_DELTA => {
                let (&delta, rest) = self.deltas.split_first_chunk()?;
                self.deltas = rest;
                i32::from(i16::from_be_bytes(delta))
            }
            _ => return Some((sequence, None)),
        };
        self.arrival += delta;
        Some((sequence, Some(self.arrival)))
    }
}

/// The statuses that the chunks give. It does not know how many are meant: deltas follow the last chunk.
#[derive(Clone, Debug)]
struct Symbols<'a> {
    /// Those not begun, and what follows them.
    chunks: &'a [u8],
    chunk: u16,
    /// Statuses that the present chunk still gives.
    left: u16,
}

impl Iterator for Symbols<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        while self.left == 0 {
            let (&chunk, rest) = self.chunks.split_first_chunk()?;
            self.chunks = rest;
            self.chunk = u16::from_be_bytes(chunk);
            self.left = match self.chunk >> 14 {
                0b10 => 14,
                0b11 => 7,
                _ => self.chunk & 0x1FFF, // a run; an empty one gives nothing
            };
        }
        self.left -= 1;
        let status = match self.chunk >> 14 {
            0b10 => self.chunk >> self.left & 1,
            0b11 => self.chunk >> (2 * self.left) & 3,
            _ => self.chunk >> 13,
        };
        Some(status as u8)
    }
}
