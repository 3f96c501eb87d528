//! Writing compound packets into a caller's buffer.

use super::{
    APPLICATION, MAX_REPORTS, NACK, PAYLOAD_FEEDBACK, PLI, RECEIVER_REPORT, REMB, ReportBlock, SENDER_REPORT,
    SOURCE_DESCRIPTION, SenderInfo, TRANSPORT_CC, TRANSPORT_FEEDBACK,
};
use crate::id::Ssrc;
use crate::rtp::twcc::Recorder;
use crate::units::Bitrate;

/// Appends packets to one compound packet in a caller's buffer.
///
/// Every method returns `false`, and leaves what was written before as it was, where its packet does not fit.
/// RFC 3550 §6.1 wants a report first; feedback alone is the reduced-size form (RFC 5506).
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    #[must_use]
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Bytes written so far, always whole words.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A sender report (RFC 3550 §6.4.1); also `false` for more than [`MAX_REPORTS`] blocks.
    pub fn sender_report(&mut self, ssrc: Ssrc, info: &SenderInfo, reports: &[ReportBlock]) -> bool {
        self.packet(SENDER_REPORT, reports.len(), |body| {
            body.u32(ssrc.0)?;
            body.bytes(&info.ntp.0.to_be_bytes())?;
            body.u32(info.rtp)?;
            body.u32(info.packets)?;
            body.u32(info.octets)?;
            body.reports(reports)
        })
    }

    /// A receiver report (RFC 3550 §6.4.2); also `false` for more than [`MAX_REPORTS`] blocks.
    pub fn receiver_report(&mut self, ssrc: Ssrc, reports: &[ReportBlock]) -> bool {
        self.packet(RECEIVER_REPORT, reports.len(), |body| {
            body.u32(ssrc.0)?;
            body.reports(reports)
        })
    }

    /// A source description with nothing but the canonical name (RFC 3550 §6.5.1), at most 255 bytes of it.
    pub fn sdes_cname(&mut self, ssrc: Ssrc, cname: &str) -> bool {
        const CNAME: u8 = 1;
        let Ok(len) = u8::try_from(cname.len()) else { return false };
        self.packet(SOURCE_DESCRIPTION, 1, |body| {
            body.u32(ssrc.0)?;
            body.bytes(&[CNAME, len])?;
            body.bytes(cname.as_bytes())?;
            body.bytes(&[0])?; // ends the chunk; the zeros after it fill the word
            body.align()
        })
    }

    /// Asks for packets again (RFC 4585 §6.2.1). `lost` is sorted in the order of sending, wrapping included; where
    /// it is not, the same packets are asked for in more bytes. Nothing is written for an empty list.
    pub fn nack(&mut self, sender: Ssrc, media: Ssrc, lost: &[u16]) -> bool {
        let Some((&first, rest)) = lost.split_first() else { return true };
        self.packet(TRANSPORT_FEEDBACK, NACK.into(), |body| {
            body.u32(sender.0)?;
            body.u32(media.0)?;
            let (mut base, mut mask) = (first, 0u16);
            for &sequence in rest {
                match sequence.wrapping_sub(base) {
                    0 => {}
                    after @ 1..=16 => mask |= 1 << (after - 1),
                    _ => {
                        body.u32(u32::from(base) << 16 | u32::from(mask))?;
                        (base, mask) = (sequence, 0);
                    }
                }
            }
            body.u32(u32::from(base) << 16 | u32::from(mask))
        })
    }

    /// Asks for a keyframe (RFC 4585 §6.3.1).
    pub fn pli(&mut self, sender: Ssrc, media: Ssrc) -> bool {
        self.packet(PAYLOAD_FEEDBACK, PLI.into(), |body| {
            body.u32(sender.0)?;
            body.u32(media.0)
        })
    }

    /// Tells the sender of all these streams, at most 255, what they may take together
    /// (draft-alvestrand-rmcat-remb-03 §2.2). The bitrate is rounded down to 18 significant bits.
    pub fn remb(&mut self, sender: Ssrc, bitrate: Bitrate, ssrcs: &[Ssrc]) -> bool {
        let Ok(count) = u8::try_from(ssrcs.len()) else { return false };
        let exponent = (u64::BITS - bitrate.0.leading_zeros()).saturating_sub(18);
        let mantissa = (bitrate.0 >> exponent) as u32;
        self.packet(PAYLOAD_FEEDBACK, APPLICATION.into(), |body| {
            body.u32(sender.0)?;
            body.u32(0)?; // the streams are listed below
            body.bytes(&REMB)?;
            body.u32(u32::from(count) << 24 | exponent << 18 | mantissa)?;
            ssrcs.iter().try_for_each(|ssrc| body.u32(ssrc.0))
        })
    }

    /// Reports arrivals (draft-holmer-rmcat-transport-wide-cc-extensions-01): as many of the recorder's unreported ones
    /// as one packet holds, so it is called while [`Recorder::is_pending`]. Nothing is written where nothing is. The
    /// end is filled with zeros instead of RTCP padding, so that other packets may follow.
    pub fn transport_cc(&mut self, sender: Ssrc, media: Ssrc, recorder: &mut Recorder) -> bool {
        if !recorder.is_pending() {
            return true;
        }
        self.packet(TRANSPORT_FEEDBACK, TRANSPORT_CC.into(), |body| {
            body.u32(sender.0)?;
            body.u32(media.0)?;
            recorder.write(body)
        })
    }

    /// Writes a packet whose body `fill` writes; `count` goes into the five bits of the header.
    fn packet(&mut self, kind: u8, count: usize, fill: impl FnOnce(&mut Body<'_>) -> Option<()>) -> bool {
        if count > MAX_REPORTS {
            return false;
        }
        let Some((header, body)) = self.buffer[self.len..].split_first_chunk_mut::<4>() else { return false };
        let mut body = Body { buffer: body, len: 0 };
        if fill(&mut body).is_none() {
            return false;
        }
        let len = body.len;
        let Ok(words) = u16::try_from(len / 4) else { return false };
        let [l0, l1] = words.to_be_bytes();
        *header = [0x80 | count as u8, kind, l0, l1];
        self.len += 4 + len;
        true
    }
}

/// The body of the packet that is being written; its methods return `None` where the buffer ends.
pub(in crate::rtp) struct Body<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl Body<'_> {
    /// Bytes that can still be written.
    pub(in crate::rtp) fn space(&self) -> usize {
        self.buffer.len() - self.len
    }

    pub(in crate::rtp) fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.buffer.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    pub(in crate::rtp) fn u16(&mut self, word: u16) -> Option<()> {
        self.bytes(&word.to_be_bytes())
    }

    pub(in crate::rtp) fn u32(&mut self, word: u32) -> Option<()> {
        self.bytes(&word.to_be_bytes())
    }

    /// Zeros up to a whole word.
    pub(in crate::rtp) fn align(&mut self) -> Option<()> {
        let missing = self.len.next_multiple_of(4) - self.len;
        self.bytes(&[0; 3][..missing])
    }

    fn reports(&mut self, reports: &[ReportBlock]) -> Option<()> {
        /// What 24 bits with sign can hold (RFC 3550 §A.3 clamps likewise).
        const LOST: std::ops::RangeInclusive<i32> = -0x80_0000..=0x7F_FFFF;
        reports.iter().try_for_each(|report| {
            let lost = report.cumulative_lost.clamp(*LOST.start(), *LOST.end()).cast_unsigned() & 0xFF_FFFF;
            self.u32(report.ssrc.0)?;
            self.u32(u32::from(report.fraction_lost) << 24 | lost)?;
            self.u32(report.highest)?;
            self.u32(report.jitter)?;
            self.u32(report.last_sr)?;
            self.u32(report.delay_since_sr)
        })
    }
}
