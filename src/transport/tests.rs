//! The whole pipe against a browser's end, in memory and with a clock of our own.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::certificate::Certificate;
use super::testing::{
    CLIENT_UFRAG, Check, Client, checked_transport, client_credentials, decode_answer, local, ms, pair,
};
use super::*;

static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(|| Certificate::generate().expect("generates"));

/// One way, on a wire of the same town.
const DELAY: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// What the wire loses, once.
#[derive(Clone, Copy, Debug)]
enum Lose {
    Nothing,
    /// The n-th burst: everything that side sends at one instant, which is a flight.
    Burst(Side, usize),
    /// The n-th datagram.
    Datagram(Side, usize),
}

/// A transport and a browser's end with a wire between.
struct Wire {
    start: Instant,
    now: Instant,
    transport: Transport,
    client: Client,
    events: Vec<Event>,
    /// Arrival, receiver, bytes.
    flying: Vec<(Instant, Side, Vec<u8>)>,
    lose: Lose,
    /// Bursts and datagrams sent by client and server.
    sent: [(usize, usize); 2],
}

impl Wire {
    /// After the first check. `role` is ours; the ClientHello is split at `mtu`.
    fn new(role: DtlsRole, mtu: usize, lose: Lose) -> Self {
        let start = Instant::now();
        let client = Client::new(role == DtlsRole::Server, mtu, start);
        let transport = checked_transport(&CERTIFICATE, &client.remote(role), start);
        Self {
            start,
            now: start,
            transport,
            client,
            events: Vec::new(),
            flying: Vec::new(),
            lose,
            sent: [(0, 0); 2],
        }
    }

    fn send(&mut self, from: Side, datagrams: Vec<Vec<u8>>) {
        let (bursts, count) = &mut self.sent[from as usize];
        let to = if from == Side::Client { Side::Server } else { Side::Client };
        let any = !datagrams.is_empty();
        for datagram in datagrams {
            let lost = match self.lose {
                Lose::Nothing => false,
                Lose::Burst(side, n) => side == from && n == *bursts,
                Lose::Datagram(side, n) => side == from && n == *count,
            };
            *count += 1;
            if !lost {
                self.flying.push((self.now + DELAY, to, datagram));
            }
        }
        *bursts += usize::from(any);
    }

    /// Everything that happens at the present instant.
    fn turn(&mut self) {
        let now = self.now;
        let mut arrived = Vec::new();
        self.flying.retain(|(at, side, datagram)| {
            let due = *at <= now;
            if due {
                arrived.push((*side, datagram.clone()));
            }
            !due
        });
        let mut to_client = Vec::new();
        for (side, datagram) in arrived {
            match side {
                Side::Client => to_client.push(datagram),
                Side::Server => _ = self.transport.handle_dtls(now, pair(1), &datagram),
            }
        }
        self.transport.handle_timeout(now);
        let mut flight = Vec::new();
        let mut out = [0; 1500];
        while let Some((to, len)) = self.transport.poll_transmit(&mut out) {
            assert_eq!(to, pair(1));
            assert!(len <= 1200);
            flight.push(out[..len].to_vec());
        }
        self.send(Side::Server, flight);
        let flight = self.client.step(now, &to_client);
        self.send(Side::Client, flight);
        self.events.extend(std::iter::from_fn(|| self.transport.poll_event()));
    }

    /// Runs until both ends have keys, or `limit` has passed; how long it took.
    fn run(&mut self, limit: Duration) -> Option<Duration> {
        self.turn();
        while !(self.client.keys.is_some() && self.transport.sealer().is_some()) {
            let flying = self.flying.iter().map(|(at, ..)| *at).min();
            let wakes = [flying, Some(self.client.wake), self.transport.poll_timeout()];
            let next = wakes.into_iter().flatten().min().expect("the client has a timer");
            assert!(next >= self.now, "time runs forward");
            self.now = next;
            if self.now > self.start + limit {
                return None;
            }
            self.turn();
        }
        Some(self.now - self.start)
    }

    fn feed(&mut self, datagram: &[u8]) -> Result<(), Reason> {
        self.transport.handle_dtls(self.now, pair(1), datagram)
    }
}

fn secured(role: DtlsRole) -> Wire {
    let mut wire = Wire::new(role, 1200, Lose::Nothing);
    wire.run(ms(100)).expect("connects");
    wire
}

#[test]
fn a_browser_connects_in_two_round_trips() {
    let mut wire = Wire::new(DtlsRole::Server, 1200, Lose::Nothing);
    assert_eq!(wire.run(ms(100)), Some(4 * DELAY), "no cookie round");
    assert_eq!(wire.events, [Event::Secured]);
    let (_, profile) = wire.client.keys.expect("keys");
    assert_eq!(profile, dimpl::SrtpProfile::AEAD_AES_256_GCM);
}

#[test]
fn a_passive_client_gets_our_hello_as_soon_as_there_is_a_pair() {
    let mut wire = Wire::new(DtlsRole::Client, 1200, Lose::Nothing);
    wire.run(ms(100)).expect("connects");
    assert_eq!(wire.events, [Event::Secured]);
    assert!(wire.client.connected);
}

#[test]
fn nothing_is_sent_before_the_first_check() {
    let now = Instant::now();
    let client = Client::new(false, 1200, now);
    let mut transport = Transport::new(&CERTIFICATE, &local(), &client.remote(DtlsRole::Client), now);
    transport.handle_timeout(now + ms(500));
    assert_eq!((transport.pair(), transport.poll_timeout()), (None, None));
    assert_eq!(transport.poll_transmit(&mut [0; 1500]), None);
}

#[test]
fn a_hello_in_several_datagrams_is_put_together() {
    for mtu in [80, 100, 150] {
        let mut wire = Wire::new(DtlsRole::Server, mtu, Lose::Nothing);
        assert_eq!(wire.run(ms(100)), Some(4 * DELAY), "mtu {mtu}");
        assert!(wire.sent[0].1 >= 4, "was split");
    }
}

#[test]
fn a_hello_may_arrive_in_reverse_order() {
    let mut wire = Wire::new(DtlsRole::Server, 100, Lose::Nothing);
    let mut hello = wire.client.step(wire.now, &[]);
    assert!(hello.len() >= 2);
    hello.reverse();
    for datagram in &hello {
        wire.feed(datagram).expect("accepted");
    }
    assert!(wire.run(ms(100)).is_some());
}

#[test]
fn each_lost_flight_is_made_up_for_within_a_tenth_of_a_second() {
    for role in [DtlsRole::Server, DtlsRole::Client] {
        for mtu in [1200, 100] {
            let mut clean = Wire::new(role, mtu, Lose::Nothing);
            let took = clean.run(ms(1000)).expect("connects");
            for side in [Side::Client, Side::Server] {
                let (bursts, datagrams) = clean.sent[side as usize];
                let bursts = (0..bursts).map(|n| Lose::Burst(side, n));
                let losses = bursts.chain((0..datagrams).map(|n| Lose::Datagram(side, n)));
                for lose in losses {
                    let mut wire = Wire::new(role, mtu, lose);
                    let recovered =
                        wire.run(ms(10_000)).unwrap_or_else(|| panic!("{role:?} {lose:?}: never"));
                    assert!(recovered - took < ms(100), "{role:?} {mtu} {lose:?}: {recovered:?}");
                    assert_eq!(wire.events, [Event::Secured]);
                }
            }
        }
    }
}

#[test]
fn a_lost_last_flight_is_repeated_although_we_are_done() {
    let mut wire = Wire::new(DtlsRole::Server, 1200, Lose::Burst(Side::Server, 1));
    while wire.transport.sealer().is_none() {
        wire.turn();
        wire.now += DELAY;
    }
    assert!(!wire.client.connected);
    wire.run(ms(200)).expect("the client repeats, so do we");
    assert!(wire.client.connected);
}

#[test]
fn strangers_are_not_shaken_hands_with() {
    let now = Instant::now();
    let mut client = Client::new(true, 1200, now);
    let hello = client.step(now, &[]);
    let mut fresh = Transport::new(&CERTIFICATE, &local(), &client.remote(DtlsRole::Server), now);
    assert_eq!(fresh.handle_dtls(now, pair(1), &hello[0]), Err(Reason::DtlsUnauthenticated));
    let mut checked = checked_transport(&CERTIFICATE, &client.remote(DtlsRole::Server), now);
    assert_eq!(checked.handle_dtls(now, pair(2), &hello[0]), Err(Reason::DtlsUnauthenticated));
    assert_eq!(checked.poll_transmit(&mut [0; 1500]), None);
    checked.handle_dtls(now, pair(1), &hello[0]).expect("the right address");
    assert!(checked.poll_transmit(&mut [0; 1500]).is_some());
}

#[test]
fn flights_go_where_the_client_nominated() {
    let now = Instant::now();
    let mut client = Client::new(true, 1200, now);
    let mut transport = checked_transport(&CERTIFICATE, &client.remote(DtlsRole::Server), now);
    transport.handle_dtls(now, pair(1), &client.step(now, &[])[0]).expect("accepted");
    let mut answer = [0; stun::MAX_ANSWER];
    transport.handle_check(now, pair(2), &Check::nominating(CLIENT_UFRAG), &mut answer).expect("accepted");
    let (to, _) = transport.poll_transmit(&mut [0; 1500]).expect("a flight");
    assert_eq!(to, pair(2));
}

#[test]
fn another_certificate_than_the_offers_gets_no_keys() {
    for role in [DtlsRole::Server, DtlsRole::Client] {
        let mut wire = Wire::new(role, 1200, Lose::Nothing);
        let remote = Remote { fingerprint: [7; 32], ..wire.client.remote(role) };
        wire.transport = checked_transport(&CERTIFICATE, &remote, wire.start);
        for _ in 0..20 {
            wire.turn();
            wire.now += DELAY;
        }
        assert_eq!(wire.events, [Event::Failed(Reason::DtlsFingerprint)], "{role:?}");
        assert!(wire.transport.sealer().is_none() && wire.client.keys.is_none());
        assert_eq!(wire.feed(&[22; 40]), Err(Reason::DtlsFingerprint), "and stays failed");
        assert_eq!(wire.transport.poll_transmit(&mut [0; 1500]), None);
    }
}

/// The same certificate with a signature of `len` bytes, which nobody verifies.
fn inflate(der: &[u8], len: u16) -> Vec<u8> {
    // SEQUENCE { SEQUENCE to-be-signed, SEQUENCE algorithm, BIT STRING signature }, RFC 5280 §4.1
    let element_len = |at: usize| match der[at + 1] {
        0x81 => 3 + usize::from(der[at + 2]),
        0x82 => 4 + usize::from(u16::from_be_bytes([der[at + 2], der[at + 3]])),
        short => 2 + usize::from(short),
    };
    let signature = 4 + element_len(4);
    let signature = signature + element_len(signature);
    assert_eq!((der[1], der[signature]), (0x82, 3));
    let mut out = der[..signature].to_vec();
    out.extend([3, 0x82]);
    out.extend(len.to_be_bytes());
    out.extend(vec![0; usize::from(len)]);
    let body = (out.len() - 4) as u16;
    out[2..4].copy_from_slice(&body.to_be_bytes());
    out
}

#[test]
fn a_giant_certificate_is_refused_like_any_other() {
    let mut wire = Wire::new(DtlsRole::Server, 1200, Lose::Nothing);
    let remote = wire.client.remote(DtlsRole::Server);
    let mut giant = dimpl::certificate::generate_self_signed_certificate().expect("generates");
    giant.certificate = inflate(&giant.certificate, 10_000);
    wire.client = Client::with_certificate(giant, true, 1200, wire.start);
    wire.transport = checked_transport(&CERTIFICATE, &remote, wire.start);
    for _ in 0..5 {
        wire.turn();
        wire.now += DELAY;
    }
    assert_eq!(wire.events, [Event::Failed(Reason::DtlsFingerprint)]);
}

#[test]
fn the_handshake_has_a_deadline() {
    for hello in [false, true] {
        let mut wire = Wire::new(DtlsRole::Server, 1200, Lose::Nothing);
        if hello {
            let hello = wire.client.step(wire.now, &[]);
            wire.feed(&hello[0]).expect("accepted");
        }
        let mut sent = 0;
        while let Some(at) = wire.transport.poll_timeout().filter(|at| *at <= wire.start + DTLS_DEADLINE) {
            wire.transport.handle_timeout(at);
            while wire.transport.poll_transmit(&mut [0; 1500]).is_some() {
                sent += 1;
            }
        }
        assert_eq!(wire.transport.poll_event(), Some(Event::Failed(Reason::DtlsDeadline)));
        assert!(if hello { (5..20).contains(&sent) } else { sent == 0 }, "{sent} datagrams");
        assert_eq!(
            wire.transport.poll_timeout(),
            Some(wire.start + CONSENT),
            "only consent is left to expire"
        );
    }
}

/// A record with a fragment of a ClientHello that will never be complete.
fn fragment(n: usize) -> Vec<u8> {
    let mut datagram = vec![22, 0xfe, 0xfd, 0, 0, 0, 0];
    datagram.extend((n as u32).to_be_bytes());
    datagram.extend([0, 13]); // record length
    datagram.extend([1, 0, 0xff, 0xff, 0, 0, 0]); // ClientHello of 65535 bytes, message 0
    datagram.extend(&(n as u32 * 2).to_be_bytes()[2..]);
    datagram.extend([0, 0, 1, 0x55]);
    datagram
}

#[test]
fn endless_handshakes_are_ended() {
    let mut wire = Wire::new(DtlsRole::Server, 1200, Lose::Nothing);
    let big = vec![0xee; 1200]; // no record at all, so `dimpl` itself does not mind
    let mut result = Ok(());
    let mut bytes = 0;
    while result.is_ok() {
        bytes += big.len();
        result = wire.feed(&big);
    }
    assert_eq!(result, Err(Reason::DtlsTooManyBytes));
    assert!(bytes > MAX_HANDSHAKE_BYTES && bytes < MAX_HANDSHAKE_BYTES + 2 * big.len());
    assert_eq!(wire.transport.poll_event(), Some(Event::Failed(Reason::DtlsTooManyBytes)));
    assert_eq!(wire.transport.poll_event(), None, "told once");

    let mut wire = Wire::new(DtlsRole::Server, 1200, Lose::Nothing);
    let end = (0..30_000).find_map(|n| wire.feed(&fragment(n)).err());
    assert!(end.is_some(), "28 000 fragments are too many");
}

#[test]
fn unprotected_alerts_and_data_are_not_believed() {
    let mut wire = Wire::new(DtlsRole::Server, 1200, Lose::Nothing);
    let alert = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
    let data = [23, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
    let mut hidden = fragment(0);
    hidden.extend(alert);
    for bad in [&alert[..], &data, &hidden] {
        assert_eq!(wire.feed(bad), Err(Reason::DtlsUnprotected));
    }
    wire.run(ms(100)).expect("connects all the same");
    for bad in [&alert[..], &data, &hidden] {
        assert_eq!(wire.feed(bad), Err(Reason::DtlsUnprotected));
    }
    assert_eq!(wire.events, [Event::Secured]);
}

#[test]
fn a_close_is_told() {
    let mut wire = secured(DtlsRole::Server);
    wire.client.dtls.close().expect("closes");
    let close = wire.client.drain();
    wire.feed(&close[0]).expect("accepted");
    assert_eq!(wire.transport.poll_event(), Some(Event::Closed));
    assert_eq!(wire.feed(&close[0]), Err(Reason::DtlsClosed));
}

#[test]
fn data_is_dropped_for_now_and_does_not_pile_up() {
    let mut wire = secured(DtlsRole::Server);
    for _ in 0..200 {
        wire.client.dtls.send_application_data(&[7; 1000]).expect("sends");
        for datagram in wire.client.drain() {
            wire.feed(&datagram).expect("accepted");
        }
    }
    assert_eq!(wire.transport.poll_event(), None);
}

#[test]
fn a_restart_and_a_move_keep_the_keys() {
    let mut wire = secured(DtlsRole::Server);
    let mut out = [0; stun::MAX_ANSWER];
    let now = wire.now + ms(100);
    wire.transport.restart(&client_credentials("newu"));
    assert_eq!(wire.transport.pair(), Some(pair(1)));
    let answer =
        wire.transport.handle_check(now, pair(2), &Check::nominating("newu"), &mut out).expect("accepted");
    decode_answer(&out[..answer.len]);
    assert_eq!((wire.transport.pair(), wire.transport.last_heard()), (Some(pair(2)), Some(now)));
    assert_eq!(wire.transport.poll_event(), None, "the handshake does not start anew");
    let (_, mut sealer) = client_media(&wire, DtlsRole::Server);
    let mut stream = srtp::SealStream::new(SSRC);
    for (n, port) in [(0, 1), (1, 2)] {
        let mut packet = sealed(&mut sealer, &mut stream, n);
        let sequence = SEQUENCE + u16::from(n);
        wire.transport.open_rtp(now, pair(port), &mut packet, 12, SSRC, sequence).expect("from either place");
    }
}

#[test]
fn media_needs_keys_and_a_known_address() {
    let now = Instant::now();
    let client = Client::new(true, 1200, now);
    let mut transport = checked_transport(&CERTIFICATE, &client.remote(DtlsRole::Server), now);
    let mut packet = [0x80; 40];
    assert_eq!(transport.open_rtp(now, pair(1), &mut packet, 12, Ssrc(1), 1), Err(Reason::SrtpBeforeKeys));
    assert_eq!(transport.open_rtp(now, pair(2), &mut packet, 12, Ssrc(1), 1), Err(Reason::UnknownAddress));
    assert_eq!(transport.open_rtcp(now, pair(1), &mut packet), Err(Reason::SrtpBeforeKeys));
    assert_eq!(transport.open_rtcp(now, pair(2), &mut packet), Err(Reason::UnknownAddress));
}

/// The client's ends of SRTP: what it opens and seals with.
fn client_media(wire: &Wire, role: DtlsRole) -> (Opener, Sealer) {
    let (material, profile) = wire.client.keys.as_ref().expect("keys");
    assert_eq!(*profile, dimpl::SrtpProfile::AEAD_AES_256_GCM);
    let theirs = if role == DtlsRole::Server { DtlsRole::Client } else { DtlsRole::Server };
    let profile = srtp::Profile::AeadAes256Gcm;
    let (local, remote) = srtp::split(profile, material, theirs).expect("long enough");
    (Opener::new(profile, &remote), Sealer::new(profile, &local))
}

const HEADER: [u8; 12] = [0x80, 96, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 5];
const SEQUENCE: u16 = 0x2000;
const SSRC: Ssrc = Ssrc(5);

/// Sealed media with the sequence number `n` after the first.
fn sealed(sealer: &mut Sealer, stream: &mut srtp::SealStream, n: u8) -> Vec<u8> {
    let mut out = [0; 1500];
    out[..12].copy_from_slice(&HEADER);
    out[3] = n;
    let sequence = SEQUENCE + u16::from(n);
    let len = sealer.seal_rtp(stream, sequence, &mut out, 12, b"sound", &[]).expect("seals");
    out[..len].to_vec()
}

#[test]
fn media_flows_both_ways_whoever_said_hello() {
    for role in [DtlsRole::Server, DtlsRole::Client] {
        let mut wire = secured(role);
        let (mut opener, mut sealer) = client_media(&wire, role);
        let now = wire.now + ms(10);
        let mut up = sealed(&mut sealer, &mut srtp::SealStream::new(SSRC), 0);
        let len = wire.transport.open_rtp(now, pair(1), &mut up, 12, SSRC, SEQUENCE).expect("opens");
        assert_eq!((&up[12..12 + len], wire.transport.last_heard()), (&b"sound"[..], Some(now)));

        let ours = wire.transport.sealer().expect("secured");
        let mut down = sealed(ours, &mut srtp::SealStream::new(SSRC), 0);
        let len = opener.open_rtp(&mut down, 12, SSRC, SEQUENCE).expect("opens");
        assert_eq!(down[12..12 + len], b"sound"[..]);

        let mut report = [0; 100];
        report[..8].copy_from_slice(&[0x80, 201, 0, 1, 0, 0, 0, 5]);
        let len = sealer.seal_rtcp(&mut report, 8).expect("seals");
        let later = now + ms(10);
        assert_eq!(wire.transport.open_rtcp(later, pair(1), &mut report[..len]), Ok(8));
        assert_eq!(wire.transport.last_heard(), Some(later));
    }
}

#[test]
fn forged_replayed_and_reflected_media_is_no_sign_of_life() {
    let mut wire = secured(DtlsRole::Server);
    let (_, mut sealer) = client_media(&wire, DtlsRole::Server);
    let mut stream = srtp::SealStream::new(SSRC);
    let packet = sealed(&mut sealer, &mut stream, 0);
    let heard = wire.now + ms(10);
    wire.transport.open_rtp(heard, pair(1), &mut packet.clone(), 12, SSRC, SEQUENCE).expect("opens");

    let later = heard + ms(500);
    let mut open = |packet: &[u8], port| {
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        wire.transport.open_rtp(later, pair(port), &mut packet.to_vec(), 12, SSRC, sequence)
    };
    assert_eq!(open(&packet, 1), Err(Reason::SrtpReplayed));
    let mut forged = sealed(&mut sealer, &mut stream, 1);
    assert_eq!(open(&forged, 9), Err(Reason::UnknownAddress), "right keys, wrong place");
    forged[14] ^= 1;
    assert_eq!(open(&forged, 1), Err(Reason::SrtpAuthentication));
    let reflected = sealed(wire.transport.sealer().expect("secured"), &mut srtp::SealStream::new(SSRC), 2);
    let result = wire.transport.open_rtp(later, pair(1), &mut reflected.clone(), 12, SSRC, SEQUENCE + 2);
    assert_eq!(result, Err(Reason::SrtpAuthentication));
    assert_eq!(wire.transport.last_heard(), Some(heard));
}

#[test]
fn media_keeps_the_pair_from_being_taken_over() {
    let mut wire = secured(DtlsRole::Server);
    let (_, mut sealer) = client_media(&wire, DtlsRole::Server);
    let mut stream = srtp::SealStream::new(SSRC);
    let mut answer = [0; stun::MAX_ANSWER];
    for n in 0..30 {
        wire.now += ms(100);
        let mut packet = sealed(&mut sealer, &mut stream, n);
        let sequence = SEQUENCE + u16::from(n);
        wire.transport.open_rtp(wire.now, pair(1), &mut packet, 12, SSRC, sequence).expect("opens");
        wire.transport.handle_check(wire.now, pair(2), &Check::plain(), &mut answer).expect("answered");
        assert_eq!(wire.transport.pair(), Some(pair(1)));
    }
    // A NAT rebinding: media comes from the new place, and says nothing; the next check does.
    let mut packet = sealed(&mut sealer, &mut stream, 30);
    wire.now += ms(1000);
    wire.transport.open_rtp(wire.now, pair(2), &mut packet, 12, SSRC, SEQUENCE + 30).expect("opens");
    assert_eq!(wire.transport.pair(), Some(pair(1)));
    wire.transport.handle_check(wire.now, pair(2), &Check::plain(), &mut answer).expect("answered");
    assert_eq!(wire.transport.pair(), Some(pair(2)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Any bytes that look like DTLS, at any stage: no panic, and an honest handshake's keys stay.
    #[test]
    fn any_dtls_bytes_are_taken(
        datagrams in prop::collection::vec((20u8..64, 0u8..3, prop::collection::vec(any::<u8>(), 0..120)), 1..20),
        after: bool,
    ) {
        let mut wire = if after { secured(DtlsRole::Server) } else { Wire::new(DtlsRole::Server, 1200, Lose::Nothing) };
        for (kind, epoch, body) in datagrams {
            let mut datagram = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 1];
            datagram.extend((body.len() as u16).to_be_bytes());
            datagram.extend(body);
            _ = wire.feed(&datagram);
            _ = wire.feed(&datagram[..datagram.len() / 2]);
            wire.now += ms(7);
            wire.transport.handle_timeout(wire.now);
            while wire.transport.poll_transmit(&mut [0; 1500]).is_some() {}
        }
        prop_assert_eq!(wire.transport.sealer().is_some(), after);
    }
}
