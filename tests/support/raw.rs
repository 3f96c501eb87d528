//! A small client of which a test controls every byte: checks by `rtc-stun`, a DTLS session by `dimpl`, SRTP by `rtc-srtp`.
//! It can have several addresses, lie, and fall silent.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtcp::receiver_report::ReceiverReport;
use rtcp::reception_report::ReceptionReport;
use rtcp::sender_report::SenderReport;
use rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use shared::marshal::{Marshal as _, Unmarshal as _};
use srtp::context::Context;
use srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use srtp::protection_profile::ProtectionProfile;
use stun::attributes::{
    ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME, AttrType, RawAttribute,
};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter, TransactionId};
use stun::textattrs::TextAttribute;

use super::client::reports;
use super::media::{Arrival, Ids, Kind, MediaEnd, Outgoing, Report, Source};
use super::{Peer, home, ms, sdp};

/// What a client has and how it behaves.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub publishes: bool,
    /// Encodings of the picture; one without simulcast.
    pub rids: &'static [&'static str],
    pub audio_slots: usize,
    pub video_slots: usize,
    /// Whether the server sends the ClientHello.
    pub passive: bool,
    /// Calls itself Firefox.
    pub firefox: bool,
    /// Whether the offer names the sources of the picture.
    pub names_sources: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            publishes: true,
            rids: &[],
            audio_slots: 3,
            video_slots: 3,
            passive: false,
            firefox: false,
            names_sources: true,
        }
    }
}

/// Simulcast as browsers order it, without sources in the offer.
pub const SIMULCAST: Shape = Shape {
    publishes: true,
    rids: &["f", "h", "q"],
    audio_slots: 3,
    video_slots: 3,
    passive: false,
    firefox: false,
    names_sources: false,
};

pub const IDS: Ids = Ids { mid: 4, rid: 10, repaired_rid: 11, transport_cc: 3, audio_level: 1 };

/// How often a browser that has nothing to say checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(2500);

pub struct Raw {
    pub index: usize,
    /// Where media leaves from.
    pub address: SocketAddr,
    pub ufrag: String,
    pub pwd: String,
    pub server_ufrag: String,
    pub server_pwd: String,
    pub server: SocketAddr,
    pub media: MediaEnd,
    /// Whether checks carry USE-CANDIDATE.
    pub nominates: bool,
    pub checks: bool,
    /// Whether it asks for what is missing.
    pub nacks: bool,
    /// Answers requests for repetition.
    pub repeats: bool,
    pub sends_reports: bool,
    /// Whether packets carry transport-wide numbers, and how many were given out.
    pub numbers_packets: bool,
    pub transport_cc: u16,
    /// What does not open is somebody else's, and that is no error.
    pub takes_foreign: bool,
    /// Every protected datagram that came, and where.
    pub datagrams: Vec<(Instant, SocketAddr, Vec<u8>)>,
    /// Success answers to checks, by local address.
    pub answers: Vec<(Instant, SocketAddr)>,
    next_check: Instant,
    next_report: Instant,
    next_nack: Instant,
    dtls: dimpl::Dtls,
    dtls_wake: Option<Instant>,
    dtls_started: bool,
    keys: Option<Keys>,
    out: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    start: Instant,
}

struct Keys {
    seal: Context,
    open: Context,
}

fn fingerprint(pair: &dimpl::DtlsCertificate) -> String {
    pair.fingerprint_str()
}

impl Raw {
    /// A client and its offer. `index` is its tag, too.
    pub fn new(index: usize, now: Instant, shape: &Shape) -> (Self, String) {
        let pair = dimpl::certificate::generate_self_signed_certificate().expect("generates");
        let fingerprint = fingerprint(&pair);
        let config = dimpl::Config::builder().flight_start_rto(ms(50)).build().expect("valid");
        let mut dtls = dimpl::Dtls::new_12(Arc::new(config), pair, now);
        dtls.set_active(!shape.passive);
        let mut raw = Self {
            index,
            address: home(index),
            ufrag: format!("raw{index:02}"),
            pwd: format!("a/password/of/client/{index:04}"),
            server_ufrag: String::new(),
            server_pwd: String::new(),
            server: "198.51.100.1:7882".parse().expect("an address"),
            media: MediaEnd { ids: IDS, ..MediaEnd::default() },
            nominates: true,
            checks: true,
            nacks: true,
            repeats: true,
            sends_reports: true,
            numbers_packets: false,
            transport_cc: 0,
            takes_foreign: false,
            datagrams: Vec::new(),
            answers: Vec::new(),
            next_check: now,
            next_report: now + ms(300),
            next_nack: now,
            dtls,
            dtls_wake: None,
            dtls_started: false,
            keys: None,
            out: VecDeque::new(),
            start: now,
        };
        if shape.publishes {
            raw.add_sources(now, shape);
        }
        let offer = raw.offer(shape, &fingerprint);
        (raw, offer)
    }

    fn add_sources(&mut self, now: Instant, shape: &Shape) {
        let base = 1_000_000 * (self.index as u32 + 1);
        let mut audio = Source::new(self.index as u32, Kind::Audio, "0", base, now);
        audio.active = false;
        self.media.sources.push(audio);
        for layer in 0..shape.rids.len().max(1) as u8 {
            let ssrc = base + 10 + 10 * u32::from(layer);
            let mut source = Source::new(self.index as u32, Kind::Video, "1", ssrc, now);
            source.active = false;
            source.rtx_ssrc = Some(ssrc + 1);
            source.layer = layer;
            source.rid = shape.rids.get(usize::from(layer)).copied();
            source.height = if shape.rids.is_empty() { 180 } else { 720 >> layer };
            self.media.sources.push(source);
        }
    }

    fn offer(&self, shape: &Shape, fingerprint: &str) -> String {
        let sending = if shape.publishes { 2 } else { 0 };
        let count = sending + shape.audio_slots + shape.video_slots;
        let origin = if shape.firefox { "mozilla...THIS_IS_SDPARTA-99.0" } else { "-" };
        let mut sdp = format!("v=0\r\no={origin} 4711 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE");
        (0..count).for_each(|mid| write!(sdp, " {mid}").expect("grows"));
        sdp += "\r\n";
        let kinds = [(Kind::Audio, true), (Kind::Video, true)]
            .into_iter()
            .take(sending)
            .chain([(Kind::Audio, false)].repeat(shape.audio_slots))
            .chain([(Kind::Video, false)].repeat(shape.video_slots));
        for (mid, (kind, sends)) in kinds.enumerate() {
            self.section(&mut sdp, shape, mid, kind, sends, fingerprint);
        }
        sdp
    }

    fn section(
        &self,
        sdp: &mut String,
        shape: &Shape,
        mid: usize,
        kind: Kind,
        sends: bool,
        fingerprint: &str,
    ) {
        let mut line = |text: &str| *sdp += &format!("{text}\r\n");
        let setup = if shape.passive { "passive" } else { "actpass" };
        match kind {
            Kind::Audio => line("m=audio 9 UDP/TLS/RTP/SAVPF 111"),
            Kind::Video => line("m=video 9 UDP/TLS/RTP/SAVPF 96 97"),
        }
        line("c=IN IP4 0.0.0.0");
        line(&format!("a=ice-ufrag:{}", self.ufrag));
        line(&format!("a=ice-pwd:{}", self.pwd));
        line(&format!("a=fingerprint:sha-256 {fingerprint}"));
        line(&format!("a=setup:{setup}"));
        line(&format!("a=mid:{mid}"));
        line(if sends { "a=sendonly" } else { "a=recvonly" });
        line("a=rtcp-mux");
        line("a=rtcp-rsize");
        line("a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01");
        line("a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid");
        match kind {
            Kind::Audio => {
                line("a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level");
                line("a=rtpmap:111 opus/48000/2");
                line("a=rtcp-fb:111 transport-cc");
                line("a=fmtp:111 minptime=10;useinbandfec=1");
            }
            Kind::Video => {
                line("a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id");
                line("a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id");
                line("a=rtpmap:96 VP8/90000");
                for feedback in ["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"] {
                    line(&format!("a=rtcp-fb:96 {feedback}"));
                }
                line("a=rtpmap:97 rtx/90000");
                line("a=fmtp:97 apt=96");
            }
        }
        if !sends {
            return;
        }
        let own = || self.media.sources.iter().filter(move |source| source.kind == kind);
        if kind == Kind::Video && !shape.rids.is_empty() {
            shape.rids.iter().for_each(|rid| line(&format!("a=rid:{rid} send")));
            line(&format!("a=simulcast:send {}", shape.rids.join(";")));
        }
        if shape.names_sources {
            for source in own() {
                if let Some(rtx) = source.rtx_ssrc {
                    line(&format!("a=ssrc-group:FID {} {rtx}", source.ssrc));
                    line(&format!("a=ssrc:{rtx} cname:raw"));
                }
                line(&format!("a=ssrc:{} cname:raw", source.ssrc));
            }
        }
    }

    /// The offer of an ICE restart: the same with another name and password.
    pub fn restart_offer(&mut self, offer: &str) -> String {
        let (ufrag, pwd) = (format!("{}x", self.ufrag), format!("{}+anew", self.pwd));
        let changed = offer.replace(
            &format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", self.ufrag, self.pwd),
            &format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n"),
        );
        (self.ufrag, self.pwd) = (ufrag, pwd);
        changed
    }

    /// A connectivity check, as it would be sent.
    pub fn check(&self, nominates: bool) -> Vec<u8> {
        self.check_named(&self.ufrag, nominates)
    }

    /// A check under another of our names.
    pub fn check_named(&self, ufrag: &str, nominates: bool) -> Vec<u8> {
        self.check_as(ufrag, &self.server_pwd, nominates)
    }

    pub fn check_as(&self, ufrag: &str, pwd: &str, nominates: bool) -> Vec<u8> {
        self.check_with(&format!("{}:{ufrag}", self.server_ufrag), pwd, nominates)
    }

    pub fn check_with(&self, username: &str, pwd: &str, nominates: bool) -> Vec<u8> {
        let provider = stun::crypto::default_provider().expect("built in");
        let raw = |typ: AttrType, value: &[u8]| RawAttribute { typ, length: 0, value: value.to_vec() };
        let mut setters: Vec<Box<dyn Setter + '_>> = vec![
            Box::new(BINDING_REQUEST),
            Box::new(TransactionId::new()),
            Box::new(TextAttribute::new(ATTR_USERNAME, username.to_owned())),
            Box::new(raw(ATTR_ICE_CONTROLLING, &[7; 8])),
            Box::new(raw(ATTR_PRIORITY, &[0x6e, 0, 1, 0xff])),
        ];
        if nominates {
            setters.push(Box::new(raw(ATTR_USE_CANDIDATE, &[])));
        }
        setters.push(Box::new(MessageIntegrity::new_short_term_integrity_with_provider(
            pwd.to_owned(),
            provider.crypto(),
        )));
        setters.push(Box::new(FINGERPRINT));
        let mut message = Message::new();
        message.build(&setters).expect("builds");
        message.raw
    }

    /// Never begins its handshake.
    pub fn deaf_to_dtls(&mut self) {
        self.dtls_started = true;
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, from: SocketAddr, bytes: Vec<u8>) {
        self.out.push_back((from, self.server, bytes));
    }

    /// Sends a check from an address, which need not be the one that media uses.
    pub fn send_check(&mut self, from: SocketAddr, nominates: bool) {
        let check = self.check(nominates);
        self.send(from, check);
    }

    /// Any plaintext as SRTP.
    pub fn seal_rtp(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        Some(self.keys.as_mut()?.seal.encrypt_rtp(plain).ok()?.to_vec())
    }

    /// Any plaintext of at least 8 bytes as SRTCP.
    pub fn seal_rtcp(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        Some(self.keys.as_mut()?.seal.encrypt_rtcp(plain).ok()?.to_vec())
    }

    pub fn send_packet(&mut self, packet: Outgoing) {
        let mut packet = rtp::packet::Packet { header: packet.header, payload: packet.payload };
        if self.numbers_packets {
            let number = Bytes::copy_from_slice(&self.transport_cc.to_be_bytes());
            packet.header.set_extension(IDS.transport_cc, number).expect("fits");
            self.transport_cc += 1;
        }
        let plain = packet.marshal().expect("marshals");
        self.send_rtp(&plain);
    }

    pub fn send_rtp(&mut self, plain: &[u8]) {
        if let Some(sealed) = self.seal_rtp(plain) {
            self.send(self.address, sealed);
        }
    }

    pub fn send_rtcp(&mut self, plain: &[u8]) {
        if let Some(sealed) = self.seal_rtcp(plain) {
            self.send(self.address, sealed);
        }
    }

    pub fn send_reports(&mut self, packets: &[Box<dyn rtcp::Packet>]) {
        let plain = rtcp::packet::marshal(packets).expect("marshals");
        self.send_rtcp(&plain);
    }

    pub fn ask_for_keyframe(&mut self, ssrc: u32) {
        let pli = rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication {
            sender_ssrc: 1,
            media_ssrc: ssrc,
        };
        self.send_reports(&[Box::new(pli)]);
    }

    pub fn ask_for(&mut self, ssrc: u32, lost: &[u16]) {
        let nacks = nack_pairs_from_sequence_numbers(lost);
        self.send_reports(&[Box::new(TransportLayerNack { sender_ssrc: 1, media_ssrc: ssrc, nacks })]);
    }

    /// A clock of its own, 40 000 s and a bit behind everybody's.
    pub fn ntp(&self, now: Instant) -> u64 {
        let since = (now - self.start).as_nanos();
        (40_000 << 32) + 12345 + ((since << 32) / 1_000_000_000) as u64
    }

    fn take_datagram(&mut self, now: Instant, to: SocketAddr, bytes: &[u8]) {
        match bytes.first() {
            Some(0..4) => self.take_answer(now, to, bytes),
            Some(20..64) => {
                // Only what a peer could not have made is an error, and then it is ignored.
                let _ = self.dtls.handle_packet(bytes);
                self.drain_dtls();
            }
            Some(128..192) => self.take_protected(now, to, bytes),
            _ => panic!("the server sent {bytes:02x?}"),
        }
    }

    fn take_answer(&mut self, now: Instant, to: SocketAddr, bytes: &[u8]) {
        let mut message = Message::new();
        message.unmarshal_binary(bytes).expect("decodes");
        let provider = stun::crypto::default_provider().expect("built in");
        MessageIntegrity::check(&mut message, self.server_pwd.as_bytes(), provider.crypto())
            .expect("integrity");
        if message.typ != BINDING_SUCCESS {
            return;
        }
        self.answers.push((now, to));
        if !self.dtls_started {
            self.dtls_started = true;
            self.dtls.handle_timeout(now).expect("alive");
            self.drain_dtls();
        }
    }

    fn take_protected(&mut self, now: Instant, to: SocketAddr, bytes: &[u8]) {
        self.datagrams.push((now, to, bytes.to_vec()));
        let Some(keys) = &mut self.keys else { return };
        if (192..=223).contains(&bytes[1]) {
            let mut plain = match keys.open.decrypt_rtcp(bytes) {
                Err(shared::error::Error::SrtcpSsrcDuplicated(..)) => return,
                Err(_) if self.takes_foreign => return,
                plain => plain.expect("the server's RTCP opens"),
            };
            let packets = rtcp::packet::unmarshal(&mut plain).expect("the server's RTCP parses");
            for report in reports(&packets) {
                if let Report::Sender { ssrc, ntp, .. } = report {
                    self.media.missing.entry(ssrc).or_default().last_sender_report = Some((ntp, now));
                }
                let again = self.media.take(now, report);
                if self.repeats {
                    again.into_iter().for_each(|packet| self.send_packet(packet));
                }
            }
        } else {
            let mut plain = match keys.open.decrypt_rtp(bytes) {
                // A copy is refused by the replay window, as it has to be.
                Err(shared::error::Error::SrtpSsrcDuplicated(..)) => return,
                Err(_) if self.takes_foreign => return,
                plain => plain.expect("the server's RTP opens"),
            };
            let packet = rtp::packet::Packet::unmarshal(&mut plain).expect("the server's RTP parses");
            self.take_rtp(now, packet);
        }
    }

    fn take_rtp(&mut self, now: Instant, packet: rtp::packet::Packet) {
        let ssrc = packet.header.ssrc;
        let slot = self.media.slots.iter().find(|slot| slot.ssrc == ssrc || slot.rtx == Some(ssrc));
        let slot = slot.expect("a source that the answer names").clone();
        let mut arrival = Arrival { at: now, header: packet.header, payload: packet.payload, rtx: None };
        if slot.rtx == Some(ssrc) {
            assert_eq!(arrival.header.payload_type, 97);
            arrival.rtx = Some(arrival.header.sequence_number);
            arrival.header.ssrc = slot.ssrc;
            arrival.header.sequence_number = u16::from_be_bytes([arrival.payload[0], arrival.payload[1]]);
            arrival.payload = arrival.payload.slice(2..);
        }
        self.media.receive(arrival);
    }

    fn report(&mut self, now: Instant) {
        let ntp = self.ntp(now);
        let mut packets: Vec<Box<dyn rtcp::Packet>> = Vec::new();
        for source in self.media.sources.iter().filter(|source| source.active && source.frame > 0) {
            let rate = if source.kind == Kind::Audio { 48_000 } else { 90_000 };
            // `timestamp` is that of the next frame.
            let ahead = source.next.saturating_duration_since(now).as_nanos() as u64 * rate / 1_000_000_000;
            packets.push(Box::new(SenderReport {
                ssrc: source.ssrc,
                ntp_time: ntp,
                rtp_time: source.timestamp.wrapping_sub(ahead as u32),
                packet_count: source.counter,
                octet_count: source.counter * source.payload_len as u32,
                ..SenderReport::default()
            }));
        }
        let reports: Vec<ReceptionReport> = self
            .media
            .missing
            .iter()
            .map(|(ssrc, missing)| {
                let (last, delay) = missing.last_sender_report.map_or((0, 0), |(ntp, at)| {
                    ((ntp >> 16) as u32, ((now - at).as_nanos() * 65_536 / 1_000_000_000) as u32)
                });
                ReceptionReport { ssrc: *ssrc, last_sender_report: last, delay, ..ReceptionReport::default() }
            })
            .collect();
        packets.push(Box::new(ReceiverReport { ssrc: 1, reports, profile_extensions: Bytes::new() }));
        self.send_reports(&packets);
    }

    fn drain_dtls(&mut self) {
        let mut buffer = vec![0; 4096];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                dimpl::Output::Packet(datagram) => {
                    self.out.push_back((self.address, self.server, datagram.to_vec()));
                }
                dimpl::Output::KeyingMaterial(material, profile) => {
                    assert_eq!(profile, dimpl::SrtpProfile::AEAD_AES_256_GCM);
                    self.keys = Some(Keys::new(&material, self.dtls.is_active()));
                }
                dimpl::Output::Timeout(at) => {
                    self.dtls_wake = Some(at);
                    return;
                }
                _ => {}
            }
        }
    }

    /// A `close_notify`.
    pub fn close(&mut self) {
        self.dtls.close().expect("closes");
        self.drain_dtls();
    }
}

impl Keys {
    fn new(material: &[u8], active: bool) -> Self {
        // RFC 5764 §4.2: client key, server key, client salt, server salt.
        let (keys, salts) = material.split_at(64);
        let context = |client: bool| {
            let at = usize::from(!client);
            let provider = srtp::crypto::default_provider().expect("built in");
            Context::new(
                &keys[32 * at..32 * (at + 1)],
                &salts[12 * at..12 * (at + 1)],
                ProtectionProfile::AeadAes256Gcm,
                Some(srtp_replay_protection(1024)),
                Some(srtcp_replay_protection(128)),
                provider.crypto(),
            )
            .expect("lengths of the profile")
        };
        Self { seal: context(active), open: context(!active) }
    }
}

impl Peer for Raw {
    fn answered(&mut self, _now: Instant, answer: &str) {
        let session = &sdp::sections(answer)[0];
        self.server_ufrag = session.values("ice-ufrag").next().expect("a name").to_owned();
        self.server_pwd = session.values("ice-pwd").next().expect("a password").to_owned();
        self.media.slots = sdp::slots(answer);
    }

    fn handle_datagram(&mut self, now: Instant, _from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.take_datagram(now, to, bytes);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.dtls_wake.is_some_and(|at| at <= now) {
            self.dtls_wake = None;
            let _ = self.dtls.handle_timeout(now);
            self.drain_dtls();
        }
        if self.checks && self.next_check <= now {
            let interval = if self.answers.is_empty() { ms(50) } else { CHECK_INTERVAL };
            self.next_check = now + interval;
            self.send_check(self.address, self.nominates);
        }
        if self.keys.is_none() {
            return;
        }
        for packet in self.media.poll(now) {
            self.send_packet(packet);
        }
        if self.nacks && self.next_nack <= now {
            self.next_nack = now + ms(20);
            for (ssrc, lost) in self.media.missing(now) {
                self.ask_for(ssrc, &lost);
            }
        }
        if self.sends_reports && self.next_report <= now {
            self.next_report = now + ms(500);
            self.report(now);
        }
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        let connected = self.keys.is_some();
        let waiting = self.media.lacks();
        [
            self.dtls_wake.filter(|_| self.dtls_started),
            self.checks.then_some(self.next_check),
            (connected && self.nacks && waiting).then_some(self.next_nack),
            (connected && self.sends_reports).then_some(self.next_report),
            self.media.poll_timeout().filter(|_| connected),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn poll_transmit(&mut self, _now: Instant) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        self.out.pop_front()
    }

    fn media(&mut self) -> &mut MediaEnd {
        &mut self.media
    }

    fn is_connected(&self) -> bool {
        self.keys.is_some()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// The first packet of a compound one with a length field that lies.
pub fn with_length(plain: &[u8], length: u16) -> BytesMut {
    let mut bytes = BytesMut::from(plain);
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes
}
