//! One participant's secure pipe: ICE-lite, DTLS and SRTP over one address pair. No clock, socket or lock:
//! bytes and `now` are arguments, results are polled.
//!
//! ```text
//! datagram ─ demux::classify ┬ Stun  stun::Request::parse → Demux::by_ufrag    → Transport::handle_check
//!                            ├ Dtls  ─────────────────────── Demux::by_address → Transport::handle_dtls
//!                            └ Rtp, Rtcp ─────────────────── Demux::by_address → Transport::open_rtp, open_rtcp
//! ```
//! After each `handle_*`: send what [`Transport::poll_transmit`] gives, take [`Transport::poll_event`], and set
//! the timer to [`Transport::poll_timeout`].
//!
//! * An address counts only after an authenticated check from it; nothing is answered before, and everything
//!   goes to [`Transport::pair`] only, except the answer to a check, which goes back where it came from.
//! * Keys exist only after the peer showed the certificate whose fingerprint the offer holds.
//! * A [`Reason`] returned is a dropped datagram; [`Event::Failed`] is the transport's end.

pub mod certificate;
pub mod demux;
mod dtls;
mod ice;
pub mod srtp;
pub mod stun;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod timer;

use std::time::Instant;

use crate::id::{AddressPair, Ssrc};
use crate::observe::reason::Reason;
use certificate::Certificate;
use dtls::Dtls;
use ice::Ice;
use srtp::{Opener, Sealer};

pub use dtls::{DEADLINE as DTLS_DEADLINE, MAX_HANDSHAKE_BYTES};
pub use ice::{CONSENT, SILENT_AFTER};

/// An ICE user name fragment and password (RFC 8839 §5.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// 4 to 256 characters.
    pub ufrag: String,
    /// 22 to 256 characters.
    pub pwd: String,
}

/// Neither half is ever logged.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// What the offer says about the other end of the pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub credentials: Credentials,
    /// SHA-256 of the certificate (RFC 8122); others are refused by the negotiation.
    pub fingerprint: [u8; 32],
    /// Who sends the ClientHello.
    pub role: DtlsRole,
}

/// Our role in the DTLS handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtlsRole {
    /// The offer said `actpass` or `active`: the client sends the ClientHello.
    #[default]
    Server,
    /// The offer said `passive`: we send it.
    Client,
}

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Bytes of the answer, which goes back to the pair that the check came from.
    pub len: usize,
    /// Set where the answer is an error although the check was authenticated; otherwise the address belongs to
    /// this transport now: [`demux::Demux::point`] it there.
    pub refused: Option<Reason>,
}

/// What happened to the transport as a whole; each at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake is complete: media can be opened and sealed.
    Secured,
    /// The handshake failed; nothing will be sent or accepted any more.
    Failed(Reason),
    /// The other side closed (close_notify).
    Closed,
}

/// The secure pipe of one participant; see the module for how it is driven.
pub struct Transport {
    ice: Ice,
    dtls: Dtls,
    last_heard: Option<Instant>,
}

impl Transport {
    /// `local` is what our answer says, for the transport's life; `remote` what the offer says.
    #[must_use]
    pub fn new(certificate: &Certificate, local: &Credentials, remote: &Remote, now: Instant) -> Self {
        Self {
            ice: Ice::new(local, &remote.credentials),
            dtls: Dtls::new(certificate, remote, now),
            last_heard: None,
        }
    }

    /// Answers a connectivity check into `answer`, which has room for [`stun::MAX_ANSWER`] bytes.
    ///
    /// # Errors
    /// Why it is dropped without an answer: `Stun…`, [`Reason::TooShort`], or [`Reason::BatchFull`] for want of
    /// room.
    pub fn handle_check(
        &mut self,
        now: Instant,
        pair: AddressPair,
        datagram: &[u8],
        answer: &mut [u8],
    ) -> Result<Answer, Reason> {
        let answer = self.ice.handle_check(now, pair, datagram, answer)?;
        self.last_heard = Some(now);
        if answer.refused.is_none() {
            self.dtls.start(now).unwrap_or_default(); // told as an event
        }
        Ok(answer)
    }

    /// Takes a DTLS datagram.
    ///
    /// # Errors
    /// [`Reason::DtlsUnauthenticated`] from an address without an authenticated check; another `Dtls…` reason
    /// where the datagram is refused or ends the handshake (then it is an [`Event::Failed`] too).
    pub fn handle_dtls(&mut self, now: Instant, pair: AddressPair, datagram: &[u8]) -> Result<(), Reason> {
        if !self.ice.is_known(pair) {
            return Err(Reason::DtlsUnauthenticated);
        }
        self.dtls.handle(now, datagram)
    }

    /// Authenticates and decrypts an RTP packet in place; see [`Opener::open_rtp`].
    ///
    /// # Errors
    /// [`Reason::UnknownAddress`], [`Reason::SrtpBeforeKeys`], or what the opener says.
    pub fn open_rtp(
        &mut self,
        now: Instant,
        pair: AddressPair,
        packet: &mut [u8],
        header_len: usize,
        ssrc: Ssrc,
        sequence: u16,
    ) -> Result<usize, Reason> {
        let len = self.opener(pair)?.open_rtp(packet, header_len, ssrc, sequence)?;
        self.heard(now, pair);
        Ok(len)
    }

    /// Authenticates and decrypts an RTCP packet in place; see [`Opener::open_rtcp`].
    ///
    /// # Errors
    /// As [`Self::open_rtp`].
    pub fn open_rtcp(&mut self, now: Instant, pair: AddressPair, packet: &mut [u8]) -> Result<usize, Reason> {
        let len = self.opener(pair)?.open_rtcp(packet)?;
        self.heard(now, pair);
        Ok(len)
    }

    /// What seals outgoing packets; `None` before [`Event::Secured`].
    pub fn sealer(&mut self) -> Option<&mut Sealer> {
        self.dtls.sealer()
    }

    /// Where to send: `None` before the first authenticated check, and when none came for [`CONSENT`].
    #[must_use]
    pub fn pair(&self) -> Option<AddressPair> {
        self.ice.pair()
    }

    /// The client offered an ICE restart. Media stays where it is until a check with the new user name
    /// nominates another pair; until then checks with the old one are answered too. Our own credentials and
    /// the DTLS session remain.
    pub fn restart(&mut self, remote: &Credentials) {
        self.ice.restart(remote);
    }

    /// When the last authenticated STUN, SRTP or SRTCP came.
    #[must_use]
    pub fn last_heard(&self) -> Option<Instant> {
        self.last_heard
    }

    /// Does what is due; harmless before it is.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.ice.handle_timeout(now);
        self.dtls.handle_timeout(now).unwrap_or_default(); // told as an event
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.ice.poll_timeout(), self.dtls.poll_timeout()].into_iter().flatten().min()
    }

    /// The next datagram to send, written to `out` (≥ 1200 bytes), with where to. To be called until `None`.
    pub fn poll_transmit(&mut self, out: &mut [u8]) -> Option<(AddressPair, usize)> {
        let pair = self.ice.pair()?;
        self.dtls.poll_transmit(out).map(|len| (pair, len))
    }

    /// The next event. To be called until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.dtls.poll_event()
    }

    fn opener(&mut self, pair: AddressPair) -> Result<&mut Opener, Reason> {
        if !self.ice.is_known(pair) {
            return Err(Reason::UnknownAddress);
        }
        self.dtls.opener().ok_or(Reason::SrtpBeforeKeys)
    }

    fn heard(&mut self, now: Instant, pair: AddressPair) {
        self.last_heard = Some(now);
        self.ice.heard(now, pair);
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("dtls", &self.dtls).finish_non_exhaustive()
    }
}
