//! As much of an SDP answer as a client has to understand.

use super::media::{Ids, Kind, SlotInfo};

/// One section of a description.
#[derive(Clone, Debug, Default)]
pub struct Section {
    pub kind: Option<Kind>,
    pub mid: String,
    lines: Vec<String>,
}

impl Section {
    /// What follows `a=key:`, for each such line.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines
            .iter()
            .filter_map(move |line| line.strip_prefix("a=")?.strip_prefix(key)?.strip_prefix(':'))
    }

    pub fn has(&self, line: &str) -> bool {
        self.lines.iter().any(|have| have == line)
    }
}

/// The session's part first, then the media sections.
pub fn sections(sdp: &str) -> Vec<Section> {
    let mut sections = vec![Section::default()];
    for line in sdp.lines() {
        if let Some(media) = line.strip_prefix("m=") {
            let kind = match media.split(' ').next() {
                Some("audio") => Some(Kind::Audio),
                Some("video") => Some(Kind::Video),
                _ => None,
            };
            sections.push(Section { kind, ..Section::default() });
        }
        let section = sections.last_mut().expect("never empty");
        if let Some(mid) = line.strip_prefix("a=mid:") {
            section.mid = mid.to_owned();
        }
        section.lines.push(line.to_owned());
    }
    sections
}

/// The server's sources.
pub fn slots(answer: &str) -> Vec<SlotInfo> {
    let mut slots = Vec::new();
    for section in sections(answer).iter().skip(1).filter(|section| section.has("a=sendonly")) {
        let number = |text: &str| text.split(' ').next().and_then(|text| text.parse().ok());
        let pair: Vec<u32> = section
            .values("ssrc-group")
            .flat_map(|group| group.strip_prefix("FID ").expect("FID").split(' '))
            .filter_map(number)
            .collect();
        let first = section.values("ssrc").find_map(number).expect("a source in every sending section");
        let (ssrc, rtx) = if let [ssrc, rtx] = pair[..] { (ssrc, Some(rtx)) } else { (first, None) };
        slots.push(SlotInfo { mid: section.mid.clone(), kind: section.kind.expect("media"), ssrc, rtx });
    }
    slots
}

/// Extension ids that are mapped anywhere.
pub fn ids(sdp: &str) -> Ids {
    let mut ids = Ids::default();
    for section in sections(sdp) {
        for value in section.values("extmap") {
            let (id, uri) = value.split_once(' ').expect("an id and a URI");
            let id = id.split('/').next().and_then(|id| id.parse().ok()).expect("a number");
            let target = match uri {
                "urn:ietf:params:rtp-hdrext:sdes:mid" => &mut ids.mid,
                "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id" => &mut ids.rid,
                "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id" => &mut ids.repaired_rid,
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01" => {
                    &mut ids.transport_cc
                }
                "urn:ietf:params:rtp-hdrext:ssrc-audio-level" => &mut ids.audio_level,
                _ => continue,
            };
            *target = id;
        }
    }
    ids
}
