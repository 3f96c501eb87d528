//! Codecs and streams of one section: facts that are spread over several lines of an offer.

use super::RtcpFeedback;
use crate::id::{Rid, Ssrc};
use crate::room::{Kind, SignaledSsrc};

/// Encodings of one section that are used; more would only be layers that nobody can choose.
const MAX_RIDS: usize = 3;

/// SSRCs kept of one section: three encodings and their retransmissions, and room for a browser that lists a
/// few more. They are hints only, so that what does not fit is ignored.
const MAX_SSRCS: usize = 8;

/// Opus or VP8, as the section numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::signal) struct Codec {
    pub(in crate::signal) payload_type: u8,
    /// The payload type of its retransmissions (RFC 4588).
    pub(in crate::signal) rtx: Option<u8>,
    pub(in crate::signal) feedback: RtcpFeedback,
    pub(in crate::signal) opus: OpusParameters,
}

/// The parameters of Opus that are answered as offered (RFC 7587 §6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::signal) struct OpusParameters {
    /// Milliseconds.
    pub(in crate::signal) minptime: Option<u8>,
    pub(in crate::signal) useinbandfec: Option<bool>,
}

/// Everything of a section that needs more than one line to be understood.
#[derive(Debug)]
pub(super) struct Lines {
    payloads: [Payload; 128],
    /// `a=rtcp-fb:*`
    feedback: RtcpFeedback,
    declared_rids: Vec<Rid>,
    simulcast: Vec<Rid>,
    ssrcs: Vec<Ssrc>,
    /// (media, its retransmissions)
    fid: Vec<(Ssrc, Ssrc)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Payload {
    encoding: Encoding,
    /// Of retransmissions: the payload type that they repeat.
    apt: Option<u8>,
    feedback: RtcpFeedback,
    opus: OpusParameters,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Encoding {
    #[default]
    Other,
    Opus,
    Vp8,
    Rtx,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self {
            payloads: [Payload::default(); 128],
            feedback: RtcpFeedback::default(),
            declared_rids: Vec::new(),
            simulcast: Vec::new(),
            ssrcs: Vec::new(),
            fid: Vec::new(),
        }
    }

    /// Takes the attribute if it is one of codecs or streams. What is malformed is as good as absent.
    pub(super) fn read(&mut self, key: &str, value: &str) -> bool {
        match key {
            "rtpmap" => self.rtpmap(value),
            "fmtp" => self.fmtp(value),
            "rtcp-fb" => self.rtcp_fb(value),
            "rid" => self.rid(value),
            "simulcast" => self.simulcast(value),
            "ssrc" => {
                if let Some(Ok(ssrc)) = value.split(' ').next().map(str::parse).map(|n| n.map(Ssrc))
                    && self.ssrcs.len() < MAX_SSRCS
                    && !self.ssrcs.contains(&ssrc)
                {
                    self.ssrcs.push(ssrc);
                }
            }
            "ssrc-group" => {
                let mut words = value.split_ascii_whitespace();
                if words.next() == Some("FID")
                    && let Some(Ok(media)) = words.next().map(str::parse)
                    && let Some(Ok(rtx)) = words.next().map(str::parse)
                    && self.fid.len() < MAX_SSRCS / 2
                {
                    self.fid.push((Ssrc(media), Ssrc(rtx)));
                }
            }
            _ => return false,
        }
        true
    }

    /// `96 VP8/90000`
    fn rtpmap(&mut self, value: &str) {
        let Some((payload, name)) = self.payload(value) else { return };
        let is = |expected: &str| name.trim().eq_ignore_ascii_case(expected);
        payload.encoding = if is("opus/48000/2") {
            Encoding::Opus
        } else if is("VP8/90000") {
            Encoding::Vp8
        } else if is("rtx/90000") {
            Encoding::Rtx
        } else {
            Encoding::Other
        };
    }

    /// `97 apt=96` or `111 minptime=10;useinbandfec=1`
    fn fmtp(&mut self, value: &str) {
        let Some((payload, parameters)) = self.payload(value) else { return };
        for (name, value) in parameters.split(';').filter_map(|parameter| parameter.split_once('=')) {
            match (name.trim(), value.trim()) {
                ("apt", value) => payload.apt = value.parse().ok(),
                ("minptime", value) => {
                    payload.opus.minptime = value.parse().ok().filter(|ms| (3..=120).contains(ms));
                }
                ("useinbandfec", value) => payload.opus.useinbandfec = Some(value == "1"),
                _ => {}
            }
        }
    }

    /// `96 nack pli` or `* nack`
    fn rtcp_fb(&mut self, value: &str) {
        if let Some(kind) = value.strip_prefix("* ") {
            self.feedback.add(kind.trim());
        } else if let Some((payload, kind)) = self.payload(value) {
            payload.feedback.add(kind.trim());
        }
    }

    /// `f send` (RFC 8851 §10)
    fn rid(&mut self, value: &str) {
        let mut words = value.split_ascii_whitespace();
        if let Some(rid) = words.next().and_then(rid_of)
            && words.next() == Some("send")
            && self.declared_rids.len() < 2 * MAX_RIDS
        {
            self.declared_rids.push(rid);
        }
    }

    /// `send f;~h;q,r recv x` (RFC 8853 §5.1): the first of each list of alternatives. `~` says that the client
    /// does not send it at present, which changes nothing about whether it may.
    fn simulcast(&mut self, value: &str) {
        let mut words = value.split_ascii_whitespace();
        while let (Some(direction), Some(list)) = (words.next(), words.next()) {
            if direction == "send" {
                self.simulcast = list
                    .split(';')
                    .take(2 * MAX_RIDS)
                    .filter_map(|alternatives| alternatives.split(',').next())
                    .filter_map(|rid| rid_of(rid.strip_prefix('~').unwrap_or(rid)))
                    .collect();
            }
        }
    }

    /// Splits "<payload type> <rest>".
    fn payload<'a>(&mut self, value: &'a str) -> Option<(&mut Payload, &'a str)> {
        let (number, rest) = value.split_once(' ')?;
        Some((self.payloads.get_mut(number.parse::<usize>().ok()?)?, rest))
    }

    /// The first payload type of the one codec of this kind, and the first that retransmits it.
    pub(super) fn codec(&self, kind: Option<Kind>, formats: &[String]) -> Option<Codec> {
        let wanted = match kind? {
            Kind::Audio => Encoding::Opus,
            Kind::Video => Encoding::Vp8,
        };
        // 64 to 95 would be taken for RTCP where both share a port (RFC 5761 §4).
        let types = || {
            formats
                .iter()
                .filter_map(|format| format.parse::<u8>().ok())
                .filter(|number| matches!(number, 0..=63 | 96..=127))
        };
        let payload = |number: u8| &self.payloads[usize::from(number)];
        let payload_type = types().find(|&number| payload(number).encoding == wanted)?;
        let rtx = types().find(|&number| {
            payload(number).encoding == Encoding::Rtx && payload(number).apt == Some(payload_type)
        });
        let Payload { mut feedback, opus, .. } = *payload(payload_type);
        feedback.nack |= self.feedback.nack;
        feedback.pli |= self.feedback.pli;
        feedback.fir |= self.feedback.fir;
        feedback.transport_cc |= self.feedback.transport_cc;
        feedback.remb |= self.feedback.remb;
        Some(Codec { payload_type, rtx, feedback, opus })
    }

    /// Simulcast encodings, and the SSRCs that are not another's retransmissions.
    pub(super) fn streams(&self) -> (Vec<Rid>, Vec<SignaledSsrc>) {
        let mut rids = Vec::new();
        for &rid in &self.simulcast {
            if rids.len() < MAX_RIDS && self.declared_rids.contains(&rid) && !rids.contains(&rid) {
                rids.push(rid);
            }
        }
        let ssrcs = self
            .ssrcs
            .iter()
            .filter(|ssrc| !self.fid.iter().any(|(_, rtx)| rtx == *ssrc))
            .map(|&ssrc| {
                let rtx = self.fid.iter().find(|(media, _)| *media == ssrc).map(|&(_, rtx)| rtx);
                SignaledSsrc { rid: None, ssrc, rtx }
            })
            .collect();
        (rids, ssrcs)
    }
}

/// A rid (RFC 8851 §10): letters, digits, `-` and `_`.
fn rid_of(text: &str) -> Option<Rid> {
    let well_formed = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    well_formed.then(|| Rid::new(text.as_bytes())).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulcast_keeps_the_order_and_the_first_alternative() {
        let mut lines = Lines::new();
        for (key, value) in [("rid", "q send"), ("rid", "f send"), ("rid", "h recv"), ("rid", "x send")] {
            assert!(lines.read(key, value));
        }
        lines.read("simulcast", "recv h send ~f,x;h;q;q");
        let (rids, _) = lines.streams();
        assert_eq!(rids.iter().map(Rid::as_str).collect::<Vec<_>>(), ["f", "q"]);
    }

    #[test]
    fn only_retransmissions_of_the_codec_are_taken() {
        let mut lines = Lines::new();
        for (key, value) in [
            ("rtpmap", "98 VP9/90000"),
            ("rtpmap", "96 vp8/90000"),
            ("rtpmap", "97 rtx/90000"),
            ("rtpmap", "99 rtx/90000"),
            ("fmtp", "99 apt=98"),
            ("fmtp", "97 x=1; apt=96"),
            ("rtcp-fb", "* nack"),
            ("rtcp-fb", "96 nack pli"),
            ("rtcp-fb", "400 nack"),
        ] {
            assert!(lines.read(key, value));
        }
        let formats = ["98", "99", "x", "300", "96", "97"].map(str::to_owned);
        let codec = lines.codec(Some(Kind::Video), &formats).expect("VP8");
        assert_eq!((codec.payload_type, codec.rtx), (96, Some(97)));
        assert!(codec.feedback.nack && codec.feedback.pli && !codec.feedback.fir);
        assert!(lines.codec(Some(Kind::Audio), &formats).is_none());
        assert!(lines.codec(None, &formats).is_none());
    }
}
