//! The DTLS handshake (RFC 6347, RFC 5763, RFC 5764) by `dimpl`, behind a type of our own: it adds the limits
//! and the comparison of fingerprints, and turns the result into SRTP keys.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time;
use dimpl::Output;

use super::certificate::{self, Certificate};
use super::srtp::{self, Opener, Profile, Sealer};
use super::{DtlsRole, Event, Remote};
use crate::observe::reason::Reason;

/// The whole handshake must end within this, from the first authenticated check on. Longer keeps state for
/// somebody who will not come; shorter gives up on a path that loses every second packet.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// What a transport may send before its handshake is complete. An honest one needs 3 kB, and again as much for
/// each lost flight. Higher lets a hostile one occupy more memory and CPU; lower ends handshakes on bad paths.
/// It also bounds the certificate, and with it the buffer that takes it.
pub const MAX_HANDSHAKE_BYTES: usize = 64 * 1024;

/// The first repetition of a flight (then doubled, ±25 %). Higher adds to the wait for a picture whenever a
/// packet is lost: the whole recovery should stay below 0.1 s. Lower repeats the flight, some 700 bytes, for
/// nothing on every path slower than this; RFC 6347 §4.2.4.1 allows it where, as here, the application
/// is time-sensitive.
const FIRST_REPEAT: Duration = Duration::from_millis(50);

/// Repetitions of one flight: 50 ms doubled eight times is more than [`DEADLINE`], which so is what ends it.
const REPEATS: usize = 8;

/// The largest datagram of a flight: below any path's limit, as the media's 1232.
const MTU: usize = 1200;

/// Datagrams of flights that wait for somebody to take them; beyond it the oldest is given up, as if lost.
const MAX_WAITING: usize = 16;

/// Incoming datagrams that `dimpl` keeps until what is missing between them arrives; more than that ends
/// the handshake. Higher costs memory for a hostile peer, lower breaks on reordering.
const MAX_REORDERED: usize = 64;

pub(super) fn config() -> Result<dimpl::Config, dimpl::Error> {
    dimpl::Config::builder()
        .mtu(MTU)
        .max_queue_rx(MAX_REORDERED)
        // The address is proved by ICE; the cookie round would only cost a round trip.
        .use_server_cookie(false)
        .flight_start_rto(FIRST_REPEAT)
        .flight_retries(REPEATS)
        .handshake_timeout(DEADLINE)
        .build()
}

pub(super) struct Dtls {
    inner: dimpl::Dtls,
    role: DtlsRole,
    /// What the offer promised.
    fingerprint: [u8; 32],
    /// The peer showed the certificate of the offer.
    verified: bool,
    state: State,
    received: usize,
    /// `None` until the first authenticated check.
    deadline: Option<Instant>,
    /// As `dimpl` last said.
    wake: Option<Instant>,
    waiting: VecDeque<Box<[u8]>>,
    keys: Option<(Opener, Sealer)>,
    events: VecDeque<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Handshake,
    Secured,
    Closed,
    Failed(Reason),
}

impl Dtls {
    pub(super) fn new(certificate: &Certificate, remote: &Remote, now: Instant) -> Self {
        let mut inner = dimpl::Dtls::new_12(certificate.config(), certificate.pair(), now);
        inner.set_active(remote.role == DtlsRole::Client);
        Self {
            inner,
            role: remote.role,
            fingerprint: remote.fingerprint,
            verified: false,
            state: State::Handshake,
            received: 0,
            deadline: None,
            wake: None,
            waiting: VecDeque::new(),
            keys: None,
            events: VecDeque::new(),
        }
    }

    /// There is an address to talk to: the deadline runs, and as DTLS client we say hello.
    pub(super) fn start(&mut self, now: Instant) -> Result<(), Reason> {
        if self.deadline.is_some() {
            return Ok(());
        }
        self.deadline = Some(now + DEADLINE);
        self.turn(now)
    }

    /// A datagram from an address that passed a check.
    pub(super) fn handle(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Reason> {
        match self.state {
            State::Handshake => {
                self.received += datagram.len();
                if self.received > MAX_HANDSHAKE_BYTES {
                    return self.fail(Reason::DtlsTooManyBytes);
                }
            }
            State::Secured => {}
            State::Closed => return Err(Reason::DtlsClosed),
            State::Failed(reason) => return Err(reason),
        }
        if !is_plausible(datagram) {
            return Err(Reason::DtlsUnprotected);
        }
        self.turn(now)?;
        match self.inner.handle_packet(datagram) {
            Ok(()) => self.drain(),
            Err(error) => self.fail(reason(&error)),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), Reason> {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return Ok(());
        }
        if self.state == State::Handshake && self.deadline.is_some_and(|at| at <= now) {
            return self.fail(Reason::DtlsDeadline);
        }
        self.turn(now)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Handshake => {
                self.deadline.map(|deadline| self.wake.map_or(deadline, |at| at.min(deadline)))
            }
            State::Secured => self.wake,
            State::Closed | State::Failed(_) => None,
        }
    }

    /// The next datagram of a flight.
    pub(super) fn poll_transmit(&mut self, out: &mut [u8]) -> Option<usize> {
        let datagram = self.waiting.pop_front()?;
        let out = out.get_mut(..datagram.len())?;
        out.copy_from_slice(&datagram);
        Some(datagram.len())
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Opens the peer's packets; `None` while there are no keys.
    pub(super) fn opener(&mut self) -> Option<&mut Opener> {
        self.keys.as_mut().map(|(opener, _)| opener)
    }

    /// Seals ours; `None` while there are no keys.
    pub(super) fn sealer(&mut self) -> Option<&mut Sealer> {
        self.keys.as_mut().map(|(_, sealer)| sealer)
    }

    /// Tells `dimpl` the time, which repeats what is due.
    fn turn(&mut self, now: Instant) -> Result<(), Reason> {
        match self.inner.handle_timeout(now) {
            Ok(()) => self.drain(),
            Err(error) => self.fail(reason(&error)),
        }
    }

    /// Takes everything that `dimpl` has to say.
    fn drain(&mut self) -> Result<(), Reason> {
        if self.state == State::Handshake {
            // `dimpl` panics where the certificate is longer than the buffer.
            self.drain_into(&mut [0; MAX_HANDSHAKE_BYTES])
        } else {
            self.drain_into(&mut [0; 2048])
        }
    }

    fn drain_into(&mut self, buffer: &mut [u8]) -> Result<(), Reason> {
        let mut connected = false;
        loop {
            match self.inner.poll_output(buffer) {
                Output::Packet(datagram) => {
                    if self.waiting.len() == MAX_WAITING {
                        self.waiting.pop_front();
                    }
                    self.waiting.push_back(datagram.into());
                }
                Output::PeerCert(der) => {
                    let found = certificate::fingerprint(der);
                    if constant_time::verify_slices_are_equal(&found, &self.fingerprint).is_err() {
                        return self.fail(Reason::DtlsFingerprint);
                    }
                    self.verified = true;
                }
                Output::Connected => connected = true,
                Output::KeyingMaterial(material, profile) => self.secure(&material, profile)?,
                Output::CloseNotify => {
                    self.state = State::Closed;
                    self.events.push_back(Event::Closed);
                }
                Output::Timeout(at) => {
                    self.wake = Some(at);
                    break;
                }
                // Data channels are not spoken yet.
                Output::ApplicationData(_) => {}
                Output::BufferTooSmall { .. } => return self.fail(Reason::DtlsFailed),
                _ => {}
            }
        }
        if connected && self.state == State::Handshake {
            return self.fail(Reason::DtlsProfile);
        }
        Ok(())
    }

    fn secure(&mut self, material: &[u8], profile: dimpl::SrtpProfile) -> Result<(), Reason> {
        if !self.verified {
            return self.fail(Reason::DtlsFingerprint);
        }
        let profile = match profile {
            dimpl::SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
            dimpl::SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
            dimpl::SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128CmSha1_80,
            _ => return self.fail(Reason::DtlsProfile),
        };
        let Some((local, remote)) = srtp::split(profile, material, self.role) else {
            return self.fail(Reason::DtlsProfile);
        };
        self.state = State::Secured;
        self.keys = Some((Opener::new(profile, &remote), Sealer::new(profile, &local)));
        self.events.push_back(Event::Secured);
        Ok(())
    }

    /// The end: `dimpl` is not asked again, and nothing more is sent.
    fn fail(&mut self, reason: Reason) -> Result<(), Reason> {
        self.state = State::Failed(reason);
        self.waiting.clear();
        self.keys = None;
        self.events.push_back(Event::Failed(reason));
        Err(reason)
    }
}

impl std::fmt::Debug for Dtls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dtls").field("state", &self.state).finish_non_exhaustive()
    }
}

fn reason(error: &dimpl::Error) -> Reason {
    match error {
        dimpl::Error::Timeout(_) => Reason::DtlsDeadline,
        _ => Reason::DtlsFailed,
    }
}

/// Whether every record may stand there. Unprotected alerts and data are dropped before anybody believes them:
/// whoever can fake the client's address can write one, and a fatal alert would end the handshake. An honest
/// client that gives up is noticed by the deadline.
fn is_plausible(datagram: &[u8]) -> bool {
    const HEADER: usize = 13;
    const ALERT: u8 = 21;
    const APPLICATION_DATA: u8 = 23;
    let mut rest = datagram;
    while let Some(header) = rest.get(..HEADER) {
        let unprotected = header[3..5] == [0, 0];
        if unprotected && matches!(header[0], ALERT | APPLICATION_DATA) {
            return false;
        }
        let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
        rest = rest.get(HEADER + len..).unwrap_or_default();
    }
    true
}
