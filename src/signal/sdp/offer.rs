//! Reading an offer: one pass over each section's attributes, keeping only what an answer can depend on.
//!
//! Everything here is hostile text. Nothing of it is kept but numbers, checked names and the first words of a
//! section's `m=` line, which a rejected section has to repeat.

use std::collections::BTreeSet;
use std::io::Cursor;

use ::sdp::SessionDescription;
use ::sdp::description::common::Attribute;
use ::sdp::description::media::MediaDescription;

use super::codec::{Codec, Lines};
use super::{Extension, Limits, Refusal};
use crate::id::{Mid, Rid};
use crate::observe::reason::Reason;
use crate::room::{Kind, SignaledSsrc};
use crate::transport::Credentials;

/// The longest media type, protocol or format that a rejected section repeats.
const MAX_TOKEN: usize = 64;

/// What an offer says.
#[derive(Debug)]
pub(in crate::signal) struct Offer {
    /// The `o=` line of Firefox. The only place that tells browsers apart.
    pub(in crate::signal) firefox: bool,
    /// Of the section whose transport all bundled sections share (RFC 8843 §7.2).
    pub(in crate::signal) credentials: Credentials,
    pub(in crate::signal) fingerprint: [u8; 32],
    pub(in crate::signal) setup: Setup,
    /// Index of that section.
    pub(in crate::signal) tagged: usize,
    pub(in crate::signal) sections: Vec<Section>,
}

/// Who may send the ClientHello, in the offerer's words (RFC 4145 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::signal) enum Setup {
    ActPass,
    Active,
    Passive,
}

/// One `m=` section.
#[derive(Debug)]
pub(in crate::signal) struct Section {
    /// What a rejected section repeats: media type, protocol, one format.
    pub(in crate::signal) media: String,
    pub(in crate::signal) protocol: String,
    pub(in crate::signal) format: String,
    /// `None` for anything but audio and video.
    pub(in crate::signal) kind: Option<Kind>,
    pub(in crate::signal) mid: Option<Mid>,
    /// In the BUNDLE group, and not given up by its owner (port 0 without `bundle-only`).
    pub(in crate::signal) in_use: bool,
    /// The client may send.
    pub(in crate::signal) sends: bool,
    /// The client may receive.
    pub(in crate::signal) receives: bool,
    pub(in crate::signal) rtcp_mux: bool,
    pub(in crate::signal) rtcp_rsize: bool,
    pub(in crate::signal) codec: Option<Codec>,
    pub(in crate::signal) extensions: Vec<OfferedExtension>,
    /// Simulcast encodings in the offer's order; empty without simulcast.
    pub(in crate::signal) rids: Vec<Rid>,
    pub(in crate::signal) ssrcs: Vec<SignaledSsrc>,
    transport: TransportAttributes,
}

/// A known header extension with a one-byte id (RFC 8285 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::signal) struct OfferedExtension {
    pub(in crate::signal) extension: Extension,
    /// 1 to 14: `extmap-allow-mixed` is never answered, so that all headers are one-byte.
    pub(in crate::signal) id: u8,
    /// The direction where the offer limits it: `Some(true)` if only the client sends it.
    pub(in crate::signal) only_sent: Option<bool>,
}

/// Attributes of the transport; they may stand in the session, in a section, or in both.
#[derive(Debug, Default)]
struct TransportAttributes {
    ufrag: Option<String>,
    pwd: Option<String>,
    fingerprint: Option<[u8; 32]>,
    setup: Option<Setup>,
    /// Direction: (sends, receives).
    direction: Option<(bool, bool)>,
}

impl Offer {
    /// Reads an offer.
    ///
    /// # Errors
    /// [`Reason::MessageTooLarge`], [`Reason::SdpTooManySections`] (both before parsing),
    /// [`Reason::SdpMalformed`], [`Reason::SdpUnsupported`].
    pub(in crate::signal) fn parse(text: &str, limits: &Limits) -> Result<Self, Refusal> {
        check_size(text, limits)?;
        let description = SessionDescription::unmarshal(&mut Cursor::new(text.as_bytes()))
            .map_err(|_| Refusal::malformed("The SDP cannot be parsed."))?;

        let mut session = TransportAttributes::default();
        let mut bundle: Option<Vec<Mid>> = None;
        for Attribute { key, value } in &description.attributes {
            let value = value.as_deref().unwrap_or_default();
            match key.as_str() {
                "group" if bundle.is_none() => bundle = bundle_group(value, limits),
                "ice-lite" => {
                    return Err(Refusal::unsupported(
                        "The server is ICE-lite: the client must check addresses.",
                    ));
                }
                _ => session.read(key, value)?,
            }
        }
        let bundle = bundle.ok_or_else(|| Refusal::unsupported("The offer has no BUNDLE group."))?;
        let bundled: BTreeSet<Mid> = bundle.iter().copied().collect();

        let mut mids = BTreeSet::new();
        let mut sections = Vec::with_capacity(description.media_descriptions.len());
        for media in &description.media_descriptions {
            let section = Section::parse(media, session.direction, &bundled)?;
            if section.mid.is_some_and(|mid| !mids.insert(mid)) {
                return Err(Refusal::malformed("Two sections have the same mid."));
            }
            sections.push(section);
        }
        let tagged = sections
            .iter()
            .position(|section| section.mid.is_some() && section.mid == bundle.first().copied())
            .ok_or_else(|| Refusal::malformed("The BUNDLE group does not begin with a section's mid."))?;
        let (credentials, fingerprint, setup) = transport_of(session, &sections, tagged)?;
        let firefox = description.origin.username.starts_with("mozilla");
        Ok(Self { firefox, credentials, fingerprint, setup, tagged, sections })
    }
}

/// The cheap checks, before anything is allocated for the offer.
fn check_size(text: &str, limits: &Limits) -> Result<(), Refusal> {
    if text.len() > limits.text {
        return Err(Refusal {
            reason: Reason::MessageTooLarge,
            hint: format!("The SDP is longer than {} bytes.", limits.text),
        });
    }
    // Lines end with LF as the parser sees them, which skips any further CR and LF before a line.
    let sections = text
        .as_bytes()
        .split(|&byte| byte == b'\n')
        .filter(|line| {
            let start = line.iter().position(|&byte| byte != b'\r').unwrap_or(0);
            line[start..].starts_with(b"m=")
        })
        .take(limits.sections + 1)
        .count();
    if sections > limits.sections {
        return Err(Refusal {
            reason: Reason::SdpTooManySections,
            hint: format!("The offer has more than {} sections.", limits.sections),
        });
    }
    Ok(())
}

/// The mids of `a=group:BUNDLE …`; `None` for other groups.
fn bundle_group(value: &str, limits: &Limits) -> Option<Vec<Mid>> {
    let mut words = value.split_ascii_whitespace();
    (words.next() == Some("BUNDLE")).then(|| words.take(limits.sections).filter_map(mid_of).collect())
}

/// What the shared transport is: stated by the tagged section or by the session, contradicted by none.
fn transport_of(
    session: TransportAttributes,
    sections: &[Section],
    tagged: usize,
) -> Result<(Credentials, [u8; 32], Setup), Refusal> {
    let first = &sections[tagged].transport;
    let ufrag = first.ufrag.clone().or(session.ufrag);
    let pwd = first.pwd.clone().or(session.pwd);
    let credentials = match (ufrag, pwd) {
        (Some(ufrag), Some(pwd)) => Credentials { ufrag, pwd },
        _ => return Err(Refusal::unsupported("The first section has no ice-ufrag and ice-pwd.")),
    };
    let fingerprint = first
        .fingerprint
        .or(session.fingerprint)
        .ok_or_else(|| Refusal::unsupported("The first section has no sha-256 fingerprint."))?;
    let setup = first.setup.or(session.setup).unwrap_or(Setup::ActPass);
    // Without BUNDLE they could differ; here they would mean a second transport.
    let differs = |stated: Option<[u8; 32]>| stated.is_some_and(|stated| stated != fingerprint);
    if differs(session.fingerprint) || sections.iter().any(|section| differs(section.transport.fingerprint)) {
        return Err(Refusal::unsupported("Sections have different fingerprints."));
    }
    let mut in_use = sections.iter().filter(|section| section.in_use);
    if in_use.any(|section| section.transport.setup.is_some_and(|stated| stated != setup)) {
        return Err(Refusal::unsupported("Sections have different DTLS roles."));
    }
    Ok((credentials, fingerprint, setup))
}

impl TransportAttributes {
    /// Takes an attribute if it is one of the transport's; ignores all others.
    fn read(&mut self, key: &str, value: &str) -> Result<(), Refusal> {
        match key {
            "ice-ufrag" => self.ufrag = Some(ice_string(value, 4)?),
            "ice-pwd" => self.pwd = Some(ice_string(value, 22)?),
            "fingerprint" => {
                let Some(hash) = sha256_fingerprint(value)? else { return Ok(()) };
                if self.fingerprint.replace(hash).is_some_and(|other| other != hash) {
                    return Err(Refusal::unsupported("Two fingerprints of the same hash function differ."));
                }
            }
            "setup" => {
                self.setup = Some(match value {
                    "actpass" => Setup::ActPass,
                    "active" => Setup::Active,
                    "passive" => Setup::Passive,
                    _ => {
                        return Err(Refusal::unsupported("The DTLS role is none that an offer may ask for."));
                    }
                });
            }
            "sendrecv" => self.direction = Some((true, true)),
            "sendonly" => self.direction = Some((true, false)),
            "recvonly" => self.direction = Some((false, true)),
            "inactive" => self.direction = Some((false, false)),
            _ => {}
        }
        Ok(())
    }
}

/// `ice-ufrag` and `ice-pwd`: `min` to 256 ice-chars (RFC 8839 §5.4).
fn ice_string(value: &str, min: usize) -> Result<String, Refusal> {
    let well_formed = (min..=256).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/');
    if well_formed {
        Ok(value.to_owned())
    } else {
        Err(Refusal::malformed("ice-ufrag or ice-pwd is malformed."))
    }
}

/// The hash of `sha-256 AB:CD:…` (RFC 8122 §5); `None` for other hash functions.
fn sha256_fingerprint(value: &str) -> Result<Option<[u8; 32]>, Refusal> {
    let Some((function, text)) = value.split_once(' ') else {
        return Err(Refusal::malformed("A fingerprint is malformed."));
    };
    if !function.eq_ignore_ascii_case("sha-256") {
        return Ok(None);
    }
    let mut hash = [0; 32];
    let mut bytes = text.trim().split(':');
    for byte in &mut hash {
        *byte = bytes
            .next()
            .filter(|pair| pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .ok_or_else(|| Refusal::malformed("A fingerprint is malformed."))?;
    }
    match bytes.next() {
        None => Ok(Some(hash)),
        Some(_) => Err(Refusal::malformed("A fingerprint is malformed.")),
    }
}

impl Section {
    fn parse(
        media: &MediaDescription,
        session_direction: Option<(bool, bool)>,
        bundled: &BTreeSet<Mid>,
    ) -> Result<Self, Refusal> {
        let name = &media.media_name;
        let protocol = name.protos.join("/");
        let format = name.formats.first().cloned().unwrap_or_default();
        if ![&name.media, &protocol, &format].into_iter().all(|word| is_plain(word)) {
            return Err(Refusal::malformed("An m= line is malformed."));
        }
        let kind = match name.media.as_str() {
            "audio" => Some(Kind::Audio),
            "video" => Some(Kind::Video),
            _ => None,
        }
        .filter(|_| protocol == "UDP/TLS/RTP/SAVPF");
        let mut section = Self {
            media: name.media.clone(),
            protocol,
            format,
            kind,
            mid: None,
            in_use: false,
            sends: false,
            receives: false,
            rtcp_mux: false,
            rtcp_rsize: false,
            codec: None,
            extensions: Vec::new(),
            rids: Vec::new(),
            ssrcs: Vec::new(),
            transport: TransportAttributes::default(),
        };
        let bundle_only = section.read_attributes(media)?;
        section.in_use =
            (name.port.value != 0 || bundle_only) && section.mid.is_some_and(|mid| bundled.contains(&mid));
        (section.sends, section.receives) =
            section.transport.direction.or(session_direction).unwrap_or((true, true));
        Ok(section)
    }

    /// Returns whether the section is `bundle-only`, where port 0 does not mean "given up".
    fn read_attributes(&mut self, media: &MediaDescription) -> Result<bool, Refusal> {
        let mut bundle_only = false;
        let mut lines = Lines::new();
        for Attribute { key, value } in &media.attributes {
            let value = value.as_deref().unwrap_or_default();
            match key.as_str() {
                "mid" => {
                    let mid = mid_of(value).ok_or_else(|| Refusal::malformed("A mid is malformed."))?;
                    self.mid = Some(mid);
                }
                "bundle-only" => bundle_only = true,
                "rtcp-mux" => self.rtcp_mux = true,
                "rtcp-rsize" => self.rtcp_rsize = true,
                "extmap" => {
                    if let Some(offered) = extension_of(value)
                        && !self.extensions.iter().any(|known| known.extension == offered.extension)
                    {
                        self.extensions.push(offered);
                    }
                }
                _ if lines.read(key, value) => {}
                _ => self.transport.read(key, value)?,
            }
        }
        self.codec = lines.codec(self.kind, &media.media_name.formats);
        (self.rids, self.ssrcs) = lines.streams();
        Ok(bundle_only)
    }
}

/// `3 urn:…` or `9/sendonly urn:…` (RFC 8285 §8); `None` if it is not one of ours or its id needs two bytes.
fn extension_of(value: &str) -> Option<OfferedExtension> {
    let mut words = value.split_ascii_whitespace();
    let (id, direction) = match words.next()? {
        word if word.contains('/') => word.split_once('/')?,
        word => (word, "sendrecv"),
    };
    let only_sent = match direction {
        "sendrecv" => None,
        "sendonly" => Some(true),
        "recvonly" => Some(false),
        _ => return None,
    };
    let id = id.parse().ok().filter(|id| (1..=14).contains(id))?;
    Some(OfferedExtension { extension: Extension::from_uri(words.next()?)?, id, only_sent })
}

/// A mid that can stand in an answer as it is: a token (RFC 5888 §4).
fn mid_of(text: &str) -> Option<Mid> {
    text.bytes().all(is_token_byte).then(|| Mid::new(text.as_bytes())).flatten()
}

/// RFC 8866 §9, `token-char`.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]".contains(&byte)
}

/// A word of an `m=` line: tokens with slashes.
fn is_plain(word: &str) -> bool {
    (1..=MAX_TOKEN).contains(&word.len()) && word.bytes().all(|byte| is_token_byte(byte) || byte == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections(text: &str) -> Result<(), Reason> {
        let limits = Limits { sections: 1, ..Limits::default() };
        check_size(text, &limits).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn sections_are_counted_as_the_parser_finds_them() {
        assert_eq!(sections("v=0\r\nm=audio\r\na=m=\r\n m=\r\n"), Ok(()));
        assert_eq!(sections("m=a\n\r\r\nm=b"), Err(Reason::SdpTooManySections));
        assert_eq!(sections("m=a\n\rm=b"), Err(Reason::SdpTooManySections));
    }

    #[test]
    fn fingerprints_are_thirty_two_bytes_or_of_another_function() {
        let text = ["aB"; 32].join(":");
        assert_eq!(sha256_fingerprint(&format!("Sha-256 {text}")), Ok(Some([0xab; 32])));
        assert_eq!(sha256_fingerprint(&format!("sha-1 {text}")), Ok(None));
        for bad in ["sha-256".to_owned(), format!("sha-256 {text}:00"), "sha-256 +1:02".to_owned()] {
            assert!(sha256_fingerprint(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn extensions_with_long_ids_or_unknown_names_are_ignored() {
        let mid = Extension::Mid.uri();
        let read = |value: &str| extension_of(value).map(|offered| (offered.id, offered.only_sent));
        assert_eq!(read(&format!("3 {mid}")), Some((3, None)));
        assert_eq!(read(&format!("14/sendonly {mid} attributes")), Some((14, Some(true))));
        assert_eq!(read(&format!("1/recvonly {mid}")), Some((1, Some(false))));
        for bad in ["3", "", "3 urn:x", &format!("0 {mid}"), &format!("15 {mid}"), &format!("3/x {mid}")] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
