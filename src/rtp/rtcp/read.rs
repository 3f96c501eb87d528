//! Reading compound and reduced-size packets in place.

use super::{
    APPLICATION, FIR, GOODBYE, NACK, PAYLOAD_FEEDBACK, PLI, RECEIVER_REPORT, REMB, ReportBlock,
    SENDER_REPORT, SOURCE_DESCRIPTION, SenderInfo, TRANSPORT_CC, TRANSPORT_FEEDBACK,
};
use crate::id::Ssrc;
use crate::observe::reason::Reason;
use crate::units::{Bitrate, NtpTime};

/// One RTCP packet, as far as this server has a use for it.
#[derive(Clone, Debug)]
pub enum Rtcp<'a> {
    SenderReport {
        ssrc: Ssrc,
        info: SenderInfo,
        reports: Reports<'a>,
    },
    ReceiverReport {
        ssrc: Ssrc,
        reports: Reports<'a>,
    },
    /// Lost packets, to be sent again (RFC 4585 §6.2.1).
    Nack {
        sender: Ssrc,
        media: Ssrc,
        lost: NackEntries<'a>,
    },
    /// A keyframe is needed (RFC 4585 §6.3.1).
    Pli {
        media: Ssrc,
    },
    /// A keyframe is demanded (RFC 5104 §4.3.1): each entry a stream and its command counter.
    Fir {
        entries: FirEntries<'a>,
    },
    /// A receiver's estimate for all these streams together (draft-alvestrand-rmcat-remb-03).
    Remb {
        bitrate: Bitrate,
        ssrcs: RembSsrcs<'a>,
    },
    /// Transport-wide feedback; [`crate::rtp::twcc`] reads the body.
    TransportCc {
        media: Ssrc,
        body: &'a [u8],
    },
    Bye,
    Sdes,
    /// Any other packet type, well-formed as far as its header goes.
    Other(u8),
}

/// The RTCP packets of one decrypted datagram, in order. The first malformed one yields
/// [`Reason::RtcpMalformed`] and ends it.
#[must_use]
pub fn packets(data: &[u8]) -> Packets<'_> {
    Packets { rest: data }
}

/// See [`packets`].
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Rtcp<'a>, Reason>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let packet = split_packet(self.rest).and_then(|(count, kind, body, rest)| {
            self.rest = rest;
            read(count, kind, body)
        });
        if packet.is_none() {
            self.rest = &[];
        }
        Some(packet.ok_or(Reason::RtcpMalformed))
    }
}

/// Splits the first packet off: its count, its type, its body without padding, and what follows it.
fn split_packet(data: &[u8]) -> Option<(u8, u8, &[u8], &[u8])> {
    let (&[first, kind, l0, l1], after) = data.split_first_chunk()?;
    if first >> 6 != 2 {
        return None;
    }
    let (mut body, rest) = after.split_at_checked(4 * usize::from(u16::from_be_bytes([l0, l1])))?;
    if first & 0x20 != 0 {
        // RFC 3550 §6.4.1 wants a multiple of four here. Chromium pads transport-wide feedback by 1 to 3 bytes and
        // announces them this way, so any length within the body is taken.
        let padding = usize::from(*body.last()?);
        if padding == 0 {
            return None;
        }
        body = &body[..body.len().checked_sub(padding)?];
    }
    Some((first & 0x1F, kind, body, rest))
}

fn read(count: u8, kind: u8, body: &[u8]) -> Option<Rtcp<'_>> {
    match kind {
        SENDER_REPORT => {
            let (ssrc, body) = split_u32(body)?;
            let (ntp, body) = body.split_first_chunk()?;
            let (rtp, body) = split_u32(body)?;
            let (packets, body) = split_u32(body)?;
            let (octets, body) = split_u32(body)?;
            let info = SenderInfo { ntp: NtpTime(u64::from_be_bytes(*ntp)), rtp, packets, octets };
            Some(Rtcp::SenderReport { ssrc: Ssrc(ssrc), info, reports: Reports::new(count, body)? })
        }
        RECEIVER_REPORT => {
            let (ssrc, body) = split_u32(body)?;
            Some(Rtcp::ReceiverReport { ssrc: Ssrc(ssrc), reports: Reports::new(count, body)? })
        }
        SOURCE_DESCRIPTION => (body.len() >= 4 * usize::from(count)).then_some(Rtcp::Sdes),
        GOODBYE => (body.len() >= 4 * usize::from(count)).then_some(Rtcp::Bye),
        TRANSPORT_FEEDBACK | PAYLOAD_FEEDBACK => read_feedback(count, kind, body),
        other => Some(Rtcp::Other(other)),
    }
}

/// The common head of all feedback (RFC 4585 §6.1): who speaks, about which stream.
fn read_feedback(format: u8, kind: u8, body: &[u8]) -> Option<Rtcp<'_>> {
    let (sender, body) = split_u32(body)?;
    let (media, body) = split_u32(body)?;
    let (sender, media) = (Ssrc(sender), Ssrc(media));
    match (kind, format) {
        (TRANSPORT_FEEDBACK, NACK) => Some(Rtcp::Nack { sender, media, lost: NackEntries::new(body)? }),
        (TRANSPORT_FEEDBACK, TRANSPORT_CC) => Some(Rtcp::TransportCc { media, body }),
        (PAYLOAD_FEEDBACK, PLI) => Some(Rtcp::Pli { media }),
        (PAYLOAD_FEEDBACK, FIR) => Some(Rtcp::Fir { entries: FirEntries { rest: whole(body, 8)? } }),
        (PAYLOAD_FEEDBACK, APPLICATION) if body.starts_with(&REMB) => read_remb(&body[REMB.len()..]),
        _ => Some(Rtcp::Other(kind)),
    }
}

/// ```text
/// | Num SSRC (8) | BR Exp (6) |  BR Mantissa (18)  |   SSRC feedback …
/// ```
fn read_remb(body: &[u8]) -> Option<Rtcp<'_>> {
    let (word, body) = split_u32(body)?;
    let exponent = word >> 18 & 0x3F;
    let mantissa = u64::from(word & 0x3_FFFF);
    let bitrate = mantissa << exponent;
    if bitrate >> exponent != mantissa {
        return None; // beyond 2⁶⁴ bit/s
    }
    let rest = body.get(..4 * (word >> 24) as usize)?;
    Some(Rtcp::Remb { bitrate: Bitrate(bitrate), ssrcs: RembSsrcs { rest } })
}

fn split_u32(data: &[u8]) -> Option<(u32, &[u8])> {
    data.split_first_chunk().map(|(&bytes, rest)| (u32::from_be_bytes(bytes), rest))
}

/// `data` where it is a whole, positive number of entries.
fn whole(data: &[u8], entry: usize) -> Option<&[u8]> {
    (!data.is_empty() && data.len().is_multiple_of(entry)).then_some(data)
}

/// The report blocks of one report, at most 31.
#[derive(Clone, Debug)]
pub struct Reports<'a> {
    rest: &'a [u8],
}

impl<'a> Reports<'a> {
    const BLOCK: usize = 24;

    /// What follows the blocks is a profile's extension of the report and is skipped.
    fn new(count: u8, body: &'a [u8]) -> Option<Self> {
        Some(Self { rest: body.get(..Self::BLOCK * usize::from(count))? })
    }
}

impl Iterator for Reports<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, rest) = self.rest.split_first_chunk::<{ Reports::BLOCK }>()?;
        self.rest = rest;
        let (words, _) = block.as_chunks::<4>();
        let word = |index: usize| u32::from_be_bytes(words[index]);
        Some(ReportBlock {
            ssrc: Ssrc(word(0)),
            fraction_lost: block[4],
            cumulative_lost: (word(1) << 8).cast_signed() >> 8,
            highest: word(2),
            jitter: word(3),
            last_sr: word(4),
            delay_since_sr: word(5),
        })
    }
}

/// The sequence numbers of one NACK, in the order of its entries: each entry names one packet and, by a bit mask,
/// some of the 16 that follow it. A datagram of 1500 bytes can name some 6000.
#[derive(Clone, Debug)]
pub struct NackEntries<'a> {
    rest: &'a [u8],
    /// Of the present entry: the packet before the one that the lowest bit of `mask` stands for.
    base: u16,
    mask: u16,
}

impl<'a> NackEntries<'a> {
    fn new(body: &'a [u8]) -> Option<Self> {
        Some(Self { rest: whole(body, 4)?, base: 0, mask: 0 })
    }
}

impl Iterator for NackEntries<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.mask != 0 {
            let bit = self.mask.trailing_zeros();
            self.mask &= self.mask - 1;
            return Some(self.base.wrapping_add(bit as u16 + 1));
        }
        let (&[p0, p1, b0, b1], rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        self.base = u16::from_be_bytes([p0, p1]);
        self.mask = u16::from_be_bytes([b0, b1]);
        Some(self.base)
    }
}

/// The streams of one full intra request, each with its command's sequence number.
#[derive(Clone, Debug)]
pub struct FirEntries<'a> {
    rest: &'a [u8],
}

impl Iterator for FirEntries<'_> {
    type Item = (Ssrc, u8);

    fn next(&mut self) -> Option<(Ssrc, u8)> {
        let (&[s0, s1, s2, s3, sequence, ..], rest) = self.rest.split_first_chunk::<8>()?;
        self.rest = rest;
        Some((Ssrc(u32::from_be_bytes([s0, s1, s2, s3])), sequence))
    }
}

/// The streams that a REMB concerns, at most 255.
#[derive(Clone, Debug)]
pub struct RembSsrcs<'a> {
    rest: &'a [u8],
}

impl Iterator for RembSsrcs<'_> {
    type Item = Ssrc;

    fn next(&mut self) -> Option<Ssrc> {
        let (ssrc, rest) = split_u32(self.rest)?;
        self.rest = rest;
        Some(Ssrc(ssrc))
    }
}
