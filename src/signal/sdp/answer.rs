//! Writing an answer: what was decided for each section, in the shape that both browsers accept and that is
//! short.
//!
//! User name fragment, password, fingerprint and DTLS role stand once in the session and hold for all
//! sections; candidates stand in the first accepted section. (Firefox's tab ends where later sections have no
//! fingerprint and the session has none either.)

use std::net::SocketAddr;

use ::sdp::SessionDescription;
use ::sdp::description::common::{Address, Attribute, ConnectionInformation};
use ::sdp::description::media::{MediaDescription, MediaName, RangedPort};
use ::sdp::description::session::{Origin, TimeDescription};

use super::codec::Codec;
use super::offer::{Offer, Section};
use super::{Extension, RtcpFeedback};
use crate::id::{CNAME, Mid, Rid, Ssrc};
use crate::room::Kind;
use crate::transport::{Credentials, DtlsRole};

/// What the whole answer says.
#[derive(Debug)]
pub(in crate::signal) struct Session<'a> {
    /// Identifies the session in `o=`; the same in every answer of a transport.
    pub(in crate::signal) id: u64,
    /// Counts the answers.
    pub(in crate::signal) version: u64,
    pub(in crate::signal) local: &'a Credentials,
    /// `AB:CD:…`, SHA-256.
    pub(in crate::signal) fingerprint: &'a str,
    pub(in crate::signal) role: DtlsRole,
    /// Best first.
    pub(in crate::signal) candidates: &'a [SocketAddr],
}

/// What was decided for an accepted section.
#[derive(Debug)]
pub(in crate::signal) struct Accepted {
    pub(in crate::signal) mid: Mid,
    pub(in crate::signal) kind: Kind,
    pub(in crate::signal) codec: Codec,
    pub(in crate::signal) feedback: RtcpFeedback,
    pub(in crate::signal) extensions: Vec<AnsweredExtension>,
    /// The server receives.
    pub(in crate::signal) receives: bool,
    /// Encodings that the server receives; empty without simulcast.
    pub(in crate::signal) rids: Vec<Rid>,
    /// The server sends.
    pub(in crate::signal) slot: Option<Slot>,
}

/// `a=extmap`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::signal) struct AnsweredExtension {
    pub(in crate::signal) extension: Extension,
    pub(in crate::signal) id: u8,
    /// Where the offer limited the direction: `Some(true)` if only the server receives it.
    pub(in crate::signal) only_received: Option<bool>,
}

/// What the server sends in a slot, for the slot's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::signal) struct Slot {
    pub(in crate::signal) ssrc: Ssrc,
    pub(in crate::signal) rtx: Option<Ssrc>,
    /// Browsers play slots of one stream in step: the n-th sound and picture that belong together. `None`: by
    /// itself.
    pub(in crate::signal) pair: Option<u8>,
}

/// The text of the answer: for each section of the offer, in order, what was decided (`None`: rejected).
pub(in crate::signal) fn write(session: &Session<'_>, offer: &Offer, decided: &[Option<Accepted>]) -> String {
    let mut description = SessionDescription {
        origin: Origin {
            username: "-".to_owned(),
            session_id: session.id,
            session_version: session.version,
            network_type: "IN".to_owned(),
            address_type: "IP4".to_owned(),
            unicast_address: "0.0.0.0".to_owned(),
        },
        session_name: "-".to_owned(),
        connection_information: Some(ConnectionInformation {
            network_type: "IN".to_owned(),
            address_type: "IP4".to_owned(),
            address: Some(Address { address: "0.0.0.0".to_owned(), ttl: None, range: None }),
        }),
        time_descriptions: vec![TimeDescription::default()],
        ..SessionDescription::default()
    };
    let mut bundle = "BUNDLE".to_owned();
    for accepted in decided.iter().flatten() {
        bundle.push(' ');
        bundle.push_str(accepted.mid.as_str());
    }
    let setup = match session.role {
        DtlsRole::Server => "passive",
        DtlsRole::Client => "active",
    };
    description.attributes = vec![
        value("group", bundle),
        flag("ice-lite"),
        value("msid-semantic", "WMS *"),
        value("ice-ufrag", &*session.local.ufrag),
        value("ice-pwd", &*session.local.pwd),
        value("fingerprint", format!("sha-256 {}", session.fingerprint)),
        value("setup", setup),
    ];
    let mut candidates = Some(session.candidates);
    description.media_descriptions = offer
        .sections
        .iter()
        .zip(decided)
        .map(|(section, decided)| match decided {
            Some(accepted) => accept(section, accepted, candidates.take()),
            None => reject(section),
        })
        .collect();
    description.marshal()
}

fn reject(section: &Section) -> MediaDescription {
    let mut attributes = Vec::new();
    if let Some(mid) = section.mid {
        attributes.push(value("mid", mid.as_str()));
    }
    attributes.push(flag("inactive"));
    media(section, 0, vec![section.format.clone()], attributes)
}

fn accept(section: &Section, accepted: &Accepted, candidates: Option<&[SocketAddr]>) -> MediaDescription {
    let mut attributes = vec![value("mid", accepted.mid.as_str())];
    attributes.push(flag(match (accepted.receives, accepted.slot.is_some()) {
        (true, true) => "sendrecv",
        (true, false) => "recvonly",
        (false, true) => "sendonly",
        (false, false) => "inactive",
    }));
    attributes.push(flag("rtcp-mux"));
    if section.rtcp_rsize {
        attributes.push(flag("rtcp-rsize"));
    }
    add_codec(&mut attributes, accepted);
    for answered in &accepted.extensions {
        let direction = match answered.only_received {
            None => "",
            Some(true) => "/recvonly",
            Some(false) => "/sendonly",
        };
        attributes.push(value("extmap", format!("{}{direction} {}", answered.id, answered.extension.uri())));
    }
    add_simulcast(&mut attributes, &accepted.rids);
    if let Some(slot) = &accepted.slot {
        add_slot(&mut attributes, accepted.mid, slot);
    }
    if let Some(candidates) = candidates {
        add_candidates(&mut attributes, candidates);
    }
    let Codec { payload_type, rtx, .. } = accepted.codec;
    let formats = [Some(payload_type), rtx].into_iter().flatten().map(|number| number.to_string()).collect();
    media(section, 9, formats, attributes)
}

fn add_codec(attributes: &mut Vec<Attribute>, accepted: &Accepted) {
    let Codec { payload_type, rtx, opus, .. } = accepted.codec;
    let name = match accepted.kind {
        Kind::Audio => "opus/48000/2",
        Kind::Video => "VP8/90000",
    };
    attributes.push(value("rtpmap", format!("{payload_type} {name}")));
    for line in accepted.feedback.lines() {
        attributes.push(value("rtcp-fb", format!("{payload_type} {line}")));
    }
    if accepted.kind == Kind::Audio {
        let minptime = opus.minptime.map(|ms| format!("minptime={ms}"));
        let fec = opus.useinbandfec.map(|on| format!("useinbandfec={}", u8::from(on)));
        let parameters = [minptime, fec].into_iter().flatten().collect::<Vec<_>>().join(";");
        if !parameters.is_empty() {
            attributes.push(value("fmtp", format!("{payload_type} {parameters}")));
        }
    }
    if let Some(rtx) = rtx {
        attributes.push(value("rtpmap", format!("{rtx} rtx/90000")));
        attributes.push(value("fmtp", format!("{rtx} apt={payload_type}")));
    }
}

fn add_simulcast(attributes: &mut Vec<Attribute>, rids: &[Rid]) {
    if rids.is_empty() {
        return;
    }
    attributes.extend(rids.iter().map(|rid| value("rid", format!("{rid} recv"))));
    let list = rids.iter().map(Rid::as_str).collect::<Vec<_>>().join(";");
    attributes.push(value("simulcast", format!("recv {list}")));
}

/// Without `ssrc` and `ssrc-group:FID` Firefox recovers nothing; without `msid` the page cannot tell which
/// sound and picture belong together.
fn add_slot(attributes: &mut Vec<Attribute>, mid: Mid, slot: &Slot) {
    let stream = match slot.pair {
        Some(pair) => format!("pair-{pair}"),
        None => format!("slot-{mid}"),
    };
    attributes.push(value("msid", format!("{stream} slot-{mid}")));
    if let Some(rtx) = slot.rtx {
        attributes.push(value("ssrc-group", format!("FID {} {}", slot.ssrc.0, rtx.0)));
    }
    for ssrc in [Some(slot.ssrc), slot.rtx].into_iter().flatten() {
        attributes.push(value("ssrc", format!("{} cname:{CNAME}", ssrc.0)));
    }
}

/// Host candidates over UDP in order of preference (RFC 8445 §5.1.2.1).
fn add_candidates(attributes: &mut Vec<Attribute>, candidates: &[SocketAddr]) {
    for (local_preference, (foundation, candidate)) in (0..=u16::MAX).rev().zip((1..).zip(candidates)) {
        let priority = (126_u32 << 24) | (u32::from(local_preference) << 8) | 255;
        let (ip, port) = (candidate.ip().to_canonical(), candidate.port());
        attributes.push(value("candidate", format!("{foundation} 1 udp {priority} {ip} {port} typ host")));
    }
    attributes.push(flag("end-of-candidates"));
}

fn media(
    section: &Section,
    port: isize,
    formats: Vec<String>,
    attributes: Vec<Attribute>,
) -> MediaDescription {
    MediaDescription {
        media_name: MediaName {
            media: section.media.clone(),
            port: RangedPort { value: port, range: None },
            protos: vec![section.protocol.clone()],
            formats,
        },
        attributes,
        ..MediaDescription::default()
    }
}

fn flag(key: &str) -> Attribute {
    Attribute { key: key.to_owned(), value: None }
}

fn value(key: &str, value: impl Into<String>) -> Attribute {
    Attribute { key: key.to_owned(), value: Some(value.into()) }
}
