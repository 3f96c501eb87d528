//! A peer connection made by `rtc`, which shares neither ICE, SRTP nor RTP code with the server.
#![allow(dead_code, reason = "each program uses a part of it")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use rtc::interceptor::{
    Interceptor, NackResponderBuilder, Packet, ReceiverReportBuilder, SenderReportBuilder, StreamInfo,
    TaggedPacket,
};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::interceptor_registry::{Registry, Slot};
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::event::RTCPeerConnectionEvent;
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RTCRtpHeaderExtensionCapability, RTCRtpRtxParameters, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpSenderId, RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use rtc::sansio::Protocol as _;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;

/// Payload types.
const SOUND: u8 = 111;
const PICTURE: u8 = 96;
const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";

/// What is sent: one section each, numbers of its own.
struct Stream {
    sender: RTCRtpSenderId,
    payload_type: u8,
    ssrc: u32,
    sequence: u16,
    /// The section's name, which tells the server whose packets these are.
    mid: String,
}

/// See the module.
pub(crate) struct Peer {
    pc: RTCPeerConnection,
    local: Option<SocketAddr>,
    /// Header extension with the section's name.
    mid_id: u8,
    keyframe_wanted: Arc<AtomicBool>,
    state: RTCPeerConnectionState,
    /// What is sent, where anything is.
    streams: Option<Streams>,
    pub(crate) received: Received,
    pub(crate) offer: String,
}

struct Streams {
    sound: Stream,
    picture: Stream,
}

/// Packets that came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Received {
    pub(crate) sound: u64,
    pub(crate) pictures: u64,
}

/// What a peer connection is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) publishes: bool,
    /// Receiving sections.
    pub(crate) audio: usize,
    pub(crate) video: usize,
}

impl Peer {
    /// A peer connection and its offer.
    pub(crate) fn new(now: Instant, shape: Shape) -> anyhow::Result<Self> {
        let keyframe_wanted = Arc::new(AtomicBool::new(false));
        let registry = Registry::new()
            .with(
                Slot::from(1),
                KeyframeRequests { wanted: keyframe_wanted.clone(), ..KeyframeRequests::default() },
            )
            .with(Slot::NackResponder, NackResponderBuilder::new().build())
            .with(Slot::ReceiverReport, ReceiverReportBuilder::new().build())
            .with(Slot::SenderReport, SenderReportBuilder::new().build());
        let mut pc = RTCPeerConnectionBuilder::new()
            .with_media_engine(engine()?)
            .with_interceptor_registry(registry)
            .build(now)?;
        let mut stream = |kind, payload_type| {
            let ssrc = rand::random();
            let init = RTCRtpTransceiverInit {
                direction: RTCRtpTransceiverDirection::Sendonly,
                ..RTCRtpTransceiverInit::default()
            };
            let id = pc.add_transceiver_from_track(track(kind, ssrc), Some(init))?;
            let sequence = rand::random();
            anyhow::Ok(Stream { sender: id.into(), payload_type, ssrc, sequence, mid: String::new() })
        };
        let mut streams = None;
        if shape.publishes {
            let (sound, picture) =
                (stream(RtpCodecKind::Audio, SOUND)?, stream(RtpCodecKind::Video, PICTURE)?);
            streams = Some(Streams { sound, picture });
        }
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Recvonly,
            ..RTCRtpTransceiverInit::default()
        };
        for (kind, count) in [(RtpCodecKind::Audio, shape.audio), (RtpCodecKind::Video, shape.video)] {
            for _ in 0..count {
                pc.add_transceiver_from_kind(kind, Some(init.clone()))?;
            }
        }
        let offer = pc.create_offer(None)?;
        pc.set_local_description(now, offer.clone())?;
        if let Some(streams) = &mut streams {
            // The first of their kind: they were made first.
            streams.sound.mid = mid_of(&offer.sdp, "audio").context("no audio section")?;
            streams.picture.mid = mid_of(&offer.sdp, "video").context("no video section")?;
        }
        Ok(Self {
            pc,
            local: None,
            mid_id: 0,
            keyframe_wanted,
            state: RTCPeerConnectionState::New,
            streams,
            received: Received::default(),
            offer: offer.sdp,
        })
    }

    pub(crate) fn publishes(&self) -> bool {
        self.streams.is_some()
    }

    /// What `hello` says is published.
    pub(crate) fn publish(&self) -> serde_json::Value {
        self.streams.as_ref().map_or_else(
            || serde_json::json!([]),
            |streams| {
                serde_json::json!([
                    {"mid": streams.sound.mid, "kind": "audio", "source": "microphone"},
                    {"mid": streams.picture.mid, "kind": "video", "source": "camera"},
                ])
            },
        )
    }

    /// Takes the server's answer; from now on packets go between `local` and what the answer names.
    pub(crate) fn answered(&mut self, now: Instant, answer: &str, local: SocketAddr) -> anyhow::Result<()> {
        if !self.publishes() {
            return self.connect(now, answer, local);
        }
        let extension = answer.lines().find_map(|line| line.strip_prefix("a=extmap:")?.strip_suffix(MID));
        let id = extension.context("the answer has no extension for section names")?.trim_end();
        self.mid_id = id.split('/').next().unwrap_or(id).parse()?;
        self.connect(now, answer, local)
    }

    fn connect(&mut self, now: Instant, answer: &str, local: SocketAddr) -> anyhow::Result<()> {
        self.local = Some(local);
        let config = CandidateConfig {
            network: "udp".into(),
            address: local.ip().to_string(),
            port: local.port(),
            component: 1,
            ..CandidateConfig::default()
        };
        let candidate = CandidateHostConfig { base_config: config, ..CandidateHostConfig::default() }
            .new_candidate_host()?;
        self.pc.add_local_candidate(RTCIceCandidate::from(&candidate).to_json()?)?;
        // `rtc` looks for the DTLS role in the sections only, where the answer states it for the session.
        let answer = answer.replace("\r\na=rtcp-mux", "\r\na=setup:passive\r\na=rtcp-mux");
        Ok(self.pc.set_remote_description(now, RTCSessionDescription::answer(answer)?)?)
    }

    pub(crate) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let Some(local_addr) = self.local else { return };
        let transport = TransportContext {
            local_addr,
            peer_addr: from,
            transport_protocol: TransportProtocol::UDP,
            ecn: None,
        };
        // What it cannot use is its own business.
        let _ = self.pc.handle_read(TaggedBytesMut { now, transport, message: BytesMut::from(datagram) });
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let _ = self.pc.handle_timeout(now);
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        self.pc.poll_timeout()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<(SocketAddr, BytesMut)> {
        while let Some(event) = self.pc.poll_event() {
            if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) = event {
                self.state = state;
            }
        }
        while let Some(TaggedRTCMessage { message, .. }) = self.pc.poll_read() {
            match message {
                RTCMessage::RtpPacket(_, packet) if packet.header.payload_type == SOUND => {
                    self.received.sound += 1;
                }
                RTCMessage::RtpPacket(_, packet) if packet.header.payload_type == PICTURE => {
                    self.received.pictures += 1;
                }
                _ => {}
            }
        }
        let datagram = self.pc.poll_write()?;
        Some((datagram.transport.peer_addr, datagram.message))
    }

    pub(crate) fn state(&self) -> RTCPeerConnectionState {
        self.state
    }

    /// Whether somebody asked for a keyframe since the last call.
    pub(crate) fn take_keyframe_request(&self) -> bool {
        self.keyframe_wanted.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn send_sound(
        &mut self,
        now: Instant,
        timestamp: u32,
        payload: &'static [u8],
    ) -> anyhow::Result<()> {
        let payload = Bytes::from_static(payload);
        let Some(Streams { sound, .. }) = &mut self.streams else { return Ok(()) };
        send(&mut self.pc, sound, self.mid_id, now, timestamp, false, payload)
    }

    pub(crate) fn send_picture(
        &mut self,
        now: Instant,
        timestamp: u32,
        frame: Vec<Vec<u8>>,
    ) -> anyhow::Result<()> {
        let last = frame.len().saturating_sub(1);
        let Some(Streams { picture, .. }) = &mut self.streams else { return Ok(()) };
        for (index, payload) in frame.into_iter().enumerate() {
            let payload = Bytes::from(payload);
            send(&mut self.pc, picture, self.mid_id, now, timestamp, index == last, payload)?;
        }
        Ok(())
    }
}

fn send(
    pc: &mut RTCPeerConnection,
    stream: &mut Stream,
    mid_id: u8,
    now: Instant,
    timestamp: u32,
    marker: bool,
    payload: Bytes,
) -> anyhow::Result<()> {
    let mut header = rtp::header::Header {
        version: 2,
        marker,
        payload_type: stream.payload_type,
        sequence_number: stream.sequence,
        timestamp,
        ssrc: stream.ssrc,
        ..rtp::header::Header::default()
    };
    stream.sequence = stream.sequence.wrapping_add(1);
    header.set_extension(mid_id, Bytes::copy_from_slice(stream.mid.as_bytes()))?;
    let mut sender = pc.rtp_sender(stream.sender).context("the sender is gone")?;
    Ok(sender.write_rtp(now, rtp::Packet { header, payload })?)
}

fn mid_of(offer: &str, kind: &str) -> Option<String> {
    let section = offer.split("\r\nm=").find(|section| section.starts_with(kind))?;
    section.lines().find_map(|line| line.strip_prefix("a=mid:")).map(str::to_owned)
}

fn codec(kind: RtpCodecKind) -> RTCRtpCodec {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback { typ: typ.into(), parameter: parameter.into() };
    if kind == RtpCodecKind::Audio {
        RTCRtpCodec {
            mime_type: "audio/opus".into(),
            clock_rate: 48_000,
            channels: 2,
            sdp_fmtp_line: "minptime=10;useinbandfec=1".into(),
            rtcp_feedback: vec![],
        }
    } else {
        RTCRtpCodec {
            mime_type: "video/VP8".into(),
            clock_rate: 90_000,
            channels: 0,
            sdp_fmtp_line: String::new(),
            rtcp_feedback: vec![feedback("nack", ""), feedback("nack", "pli"), feedback("ccm", "fir")],
        }
    }
}

fn engine() -> anyhow::Result<MediaEngine> {
    let mut engine = MediaEngine::default();
    let repetitions = RTCRtpCodec {
        mime_type: "video/rtx".into(),
        clock_rate: 90_000,
        sdp_fmtp_line: "apt=96".into(),
        ..RTCRtpCodec::default()
    };
    for (rtp_codec, payload_type, kind) in [
        (codec(RtpCodecKind::Audio), SOUND, RtpCodecKind::Audio),
        (codec(RtpCodecKind::Video), PICTURE, RtpCodecKind::Video),
        (repetitions, 97, RtpCodecKind::Video),
    ] {
        engine.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, kind)?;
    }
    for kind in [RtpCodecKind::Audio, RtpCodecKind::Video] {
        engine.register_header_extension(RTCRtpHeaderExtensionCapability { uri: MID.into() }, kind, None)?;
    }
    Ok(engine)
}

fn track(kind: RtpCodecKind, ssrc: u32) -> MediaStreamTrack {
    let rtx = (kind == RtpCodecKind::Video).then(|| RTCRtpRtxParameters { ssrc: rand::random() });
    let coding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            ssrc: Some(ssrc),
            rtx,
            ..RTCRtpCodingParameters::default()
        },
        codec: codec(kind),
        ..RTCRtpEncodingParameters::default()
    };
    let name = format!("{kind:?}");
    MediaStreamTrack::new("prepared".into(), name.clone(), name, kind, vec![coding])
}

/// Listens for keyframe requests at the wire's end of the chain of interceptors: `rtc` does not hand them out.
#[derive(Default)]
struct KeyframeRequests {
    wanted: Arc<AtomicBool>,
    reads: VecDeque<TaggedPacket>,
    writes: VecDeque<TaggedPacket>,
}

impl rtc::sansio::Protocol<TaggedPacket, TaggedPacket, ()> for KeyframeRequests {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = shared::error::Error;
    type Time = Instant;

    fn handle_read(&mut self, packet: TaggedPacket) -> Result<(), Self::Error> {
        if let Packet::Rtcp(packets) = &packet.message.packet
            && packets
                .iter()
                .map(|packet| packet.as_any())
                .any(|any| any.is::<PictureLossIndication>() || any.is::<FullIntraRequest>())
        {
            self.wanted.store(true, Ordering::Relaxed);
        }
        self.reads.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.reads.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Self::Error> {
        self.writes.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.writes.pop_front()
    }
}

impl Interceptor for KeyframeRequests {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}
