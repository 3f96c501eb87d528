//! Answering offers: one [`Negotiator`] for each transport keeps what must not change in the transport's life.
//!
//! The client always offers and the server only answers, so that two offers never cross. A section that was
//! accepted keeps its place, kind, payload types, header-extension ids and (where it is a slot) its SSRCs until
//! the client gives it up; a section once rejected or given up may come back as another.

mod section;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use self::section::{Capacity, Live, Mode};
use super::sdp::answer;
use super::sdp::offer::{Offer, Setup};
pub use super::sdp::{Limits, Refusal};
use crate::id::{Mid, Ssrc};
use crate::room::Media;
use crate::rtp::extension::ExtensionIds;
use crate::transport::{Credentials, DtlsRole, Remote};

/// What answers say about the worker that a transport lives on.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Addresses of the worker's UDP port, best first.
    pub candidates: Vec<SocketAddr>,
    /// SHA-256 of the process's certificate: `AB:CD:…`.
    pub fingerprint: String,
    /// Encoded in every user name fragment, so that a datagram on a shared port finds its worker.
    pub worker: u8,
    pub limits: Limits,
}

/// An offer's answer and what it means.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The answer's text.
    pub sdp: String,
    /// All sections in use, in SDP order.
    pub media: Media,
    pub remote: Remote,
    /// The client's user name fragment or password is not the one before: an ICE restart.
    pub restart: bool,
}

/// The SDP state of one transport, for its life.
#[derive(Debug)]
pub struct Negotiator {
    environment: Environment,
    local: Credentials,
    session_id: u64,
    answers: u64,
    ssrcs: SsrcSequence,
    /// What the last answer agreed on.
    agreed: Option<Agreed>,
}

#[derive(Clone, Debug)]
struct Agreed {
    remote: Remote,
    mode: Mode,
    /// One id for each extension in all sections (RFC 8843 §9.1).
    extensions: ExtensionIds,
    /// By position; `None` where a section was rejected or given up.
    sections: Vec<Option<Live>>,
}

/// Distinct SSRCs: the step is odd, so that none comes twice within 2³² of them.
#[derive(Clone, Copy, Debug)]
struct SsrcSequence(u32);

impl Negotiator {
    #[must_use]
    pub fn new(environment: &Environment) -> Self {
        Self {
            environment: environment.clone(),
            local: Credentials {
                ufrag: format!("{:02x}{}", environment.worker, random_ice_chars::<10>()),
                pwd: random_ice_chars::<24>(),
            },
            // Some parsers take the number as signed.
            session_id: rand::random::<u64>() >> 1,
            answers: 0,
            ssrcs: SsrcSequence(rand::random()),
            agreed: None,
        }
    }

    /// The server's user name fragment and password, the same in every answer.
    #[must_use]
    pub fn local(&self) -> &Credentials {
        &self.local
    }

    /// Answers an offer. After a refusal everything is as before.
    ///
    /// # Errors
    /// `MessageTooLarge`, `SdpTooManySections`, `SdpMalformed`, or `SdpUnsupported` where the offer lacks what
    /// a connection needs or changes what must not change.
    pub fn answer(&mut self, offer: &str) -> Result<Answered, Refusal> {
        let limits = self.environment.limits;
        let offer = Offer::parse(offer, &limits)?;
        let mut ssrcs = self.ssrcs;
        let agreed = agree(&offer, self.agreed.as_ref(), &limits, &mut ssrcs)?;

        let before = self.agreed.as_ref().map(|before| &before.remote.credentials);
        let restart = before.is_some_and(|before| *before != agreed.remote.credentials);
        let session = answer::Session {
            id: self.session_id,
            version: self.answers + 1,
            local: &self.local,
            fingerprint: &self.environment.fingerprint,
            role: agreed.remote.role,
            candidates: &self.environment.candidates,
        };
        let accepted: Vec<_> = agreed
            .sections
            .iter()
            .zip(&offer.sections)
            .map(|(live, section)| live.as_ref().map(|live| live.accepted(section, agreed.mode)))
            .collect();
        let sdp = answer::write(&session, &offer, &accepted);
        let answered = Answered { sdp, media: agreed.media(), remote: agreed.remote.clone(), restart };
        self.answers += 1;
        self.ssrcs = ssrcs;
        self.agreed = Some(agreed);
        Ok(answered)
    }
}

/// Accepts or rejects each section, and compares it with what it was before.
fn agree(
    offer: &Offer,
    before: Option<&Agreed>,
    limits: &Limits,
    ssrcs: &mut SsrcSequence,
) -> Result<Agreed, Refusal> {
    let old = |index: usize| before.and_then(|before| before.sections.get(index)?.as_ref());
    check_order(offer, before)?;
    let mut agreed = Agreed {
        remote: remote_of(offer, before.map(|before| &before.remote))?,
        mode: before.map_or_else(|| Mode::of(offer), |before| before.mode),
        extensions: before.map(|before| before.extensions).unwrap_or_default(),
        sections: Vec::with_capacity(offer.sections.len()),
    };
    let kept = offer.sections.iter().enumerate().filter(|(_, section)| section.in_use);
    let mut capacity = Capacity::new(limits, kept.filter_map(|(index, _)| old(index)));
    for (index, section) in offer.sections.iter().enumerate() {
        let live = match old(index).filter(|_| section.in_use) {
            Some(old) => Some(old.continued(section, agreed.mode, &mut capacity, ssrcs)?),
            None => Live::new(section, agreed.mode, &mut capacity, ssrcs),
        };
        if let Some(live) = &live {
            live.latch_extensions(&mut agreed.extensions)?;
        }
        agreed.sections.push(live);
    }
    if agreed.sections.iter().position(Option::is_some) != Some(offer.tagged) {
        return Err(Refusal::unsupported(
            "The first section of the BUNDLE group cannot be used: it needs Opus or VP8, and rtcp-mux.",
        ));
    }
    Ok(agreed)
}

/// A section in use stays where it is, and what it is; none disappears without a trace.
fn check_order(offer: &Offer, before: Option<&Agreed>) -> Result<(), Refusal> {
    let Some(before) = before else { return Ok(()) };
    if before.sections.len() > offer.sections.len() {
        return Err(Refusal::unsupported("The offer has fewer sections than the one before."));
    }
    let places: BTreeMap<Mid, usize> = before
        .sections
        .iter()
        .enumerate()
        .filter_map(|(index, live)| Some((live.as_ref()?.mid(), index)))
        .collect();
    for (index, section) in offer.sections.iter().enumerate() {
        let moved = section.mid.and_then(|mid| places.get(&mid)).is_some_and(|&place| place != index);
        let live = before.sections.get(index).and_then(Option::as_ref);
        let changed = section.in_use
            && live.is_some_and(|live| section.mid != Some(live.mid()) || section.kind != Some(live.kind()));
        if moved || changed {
            return Err(Refusal::unsupported("A section in use changed its place, mid or kind."));
        }
    }
    Ok(())
}

/// The other end of the pipe. The DTLS connection outlives every new offer, so that its certificate and roles
/// cannot change; only the ICE credentials may.
fn remote_of(offer: &Offer, before: Option<&Remote>) -> Result<Remote, Refusal> {
    let role = match (offer.setup, before.map(|before| before.role)) {
        (Setup::ActPass, Some(role)) => role,
        (Setup::ActPass | Setup::Active, None | Some(DtlsRole::Server)) => DtlsRole::Server,
        (Setup::Passive, None | Some(DtlsRole::Client)) => DtlsRole::Client,
        _ => return Err(Refusal::unsupported("The DTLS role cannot change.")),
    };
    if before.is_some_and(|before| before.fingerprint != offer.fingerprint) {
        return Err(Refusal::unsupported("The fingerprint cannot change."));
    }
    Ok(Remote { credentials: offer.credentials.clone(), fingerprint: offer.fingerprint, role })
}

impl Agreed {
    fn media(&self) -> Media {
        let mut media = Media { feedback: self.mode.feedback, ..Media::default() };
        // A source is in one section; where an offer says otherwise, the first is believed.
        let mut known = BTreeSet::new();
        for live in self.sections.iter().flatten() {
            if let Some(sending) = live.sending() {
                let mut sending = sending.clone();
                sending.ssrcs.retain_mut(|signaled| {
                    signaled.rtx = signaled.rtx.filter(|rtx| known.insert(*rtx));
                    known.insert(signaled.ssrc)
                });
                media.sending.push(sending);
            }
            media.slots.extend(live.receiving().cloned());
        }
        media
    }
}

impl SsrcSequence {
    fn next(&mut self) -> Ssrc {
        loop {
            self.0 = self.0.wrapping_add(0x9e37_79b9);
            if self.0 != 0 {
                return Ssrc(self.0);
            }
        }
    }
}

/// `N` random characters of those that ICE allows (RFC 8839 §5.4), six bits each.
fn random_ice_chars<const N: usize>() -> String {
    const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let random: [u8; N] = rand::random();
    random.iter().map(|byte| char::from(ICE_CHARS[usize::from(byte & 63)])).collect()
}
