//! What clients publish, and the judgement of what arrives elsewhere. Every payload names its publisher, layer, frame
//! and number, and is filled with bytes that follow from these, so that a payload is either exact or not.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use motet::room;
use rtp::codec::vp8::Vp8Packet;
use rtp::header::Header;
use rtp::packetizer::Depacketizer;

pub use motet::room::Kind;

pub const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
pub const VIDEO_INTERVAL: Duration = Duration::from_micros(33_333);

/// Header extension ids of one client, by URI; 0 where it has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ids {
    pub mid: u8,
    pub rid: u8,
    pub repaired_rid: u8,
    pub transport_cc: u8,
    pub audio_level: u8,
}

/// Whose payload it is and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    pub publisher: u32,
    pub layer: u8,
    pub frame: u32,
    /// Which packet of the frame, and how many there are.
    pub index: u8,
    pub of: u8,
    /// Counts the packets of the layer.
    pub counter: u32,
}

const MAGIC: [u8; 4] = *b"mOtT";
const TAG_LEN: usize = 4 + 4 + 1 + 4 + 1 + 1 + 4;

impl Tag {
    fn write(&self, out: &mut Vec<u8>, len: usize) {
        let start = out.len();
        out.extend(MAGIC);
        out.extend(self.publisher.to_be_bytes());
        out.push(self.layer);
        out.extend(self.frame.to_be_bytes());
        out.extend([self.index, self.of]);
        out.extend(self.counter.to_be_bytes());
        let filler = (out.len() - start..len.max(TAG_LEN)).map(|at| self.filler(at));
        out.extend(filler);
    }

    fn filler(&self, at: usize) -> u8 {
        (self.publisher ^ self.counter.wrapping_mul(31)).wrapping_add(at as u32 * 7) as u8
    }

    fn read(body: &[u8]) -> Self {
        assert!(body.len() >= TAG_LEN && body[..4] == MAGIC, "not a payload of ours: {body:02x?}");
        let word = |at: usize| u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
        let tag = Self {
            publisher: word(4),
            layer: body[8],
            frame: word(9),
            index: body[13],
            of: body[14],
            counter: word(15),
        };
        let exact = (TAG_LEN..body.len()).all(|at| body[at] == tag.filler(at));
        assert!(exact, "the payload of {tag:?} is spoiled");
        tag
    }
}

/// What a payload says once it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub tag: Tag,
    /// VP8 ids; `None` for sound.
    pub picture: Option<(u16, u8)>,
    /// First packet of a keyframe, with its height.
    pub keyframe: Option<u16>,
    pub start_of_frame: bool,
}

/// Reads a payload; panics where it is not exactly what somebody sent.
pub fn read(kind: Kind, payload: &Bytes) -> Seen {
    match kind {
        Kind::Audio => {
            Seen { tag: Tag::read(&payload[1..]), picture: None, keyframe: None, start_of_frame: true }
        }
        Kind::Video => {
            let mut vp8 = Vp8Packet::default();
            let body = vp8.depacketize(payload).expect("a VP8 payload");
            assert_eq!((vp8.i, vp8.l), (1, 1), "the ids are never left out");
            let start_of_frame = vp8.s == 1 && vp8.pid == 0;
            let key = start_of_frame && body[0] & 1 == 0;
            let header = match (start_of_frame, key) {
                (true, true) => 10,
                (true, false) => 3,
                _ => 0,
            };
            let keyframe = key.then(|| u16::from_le_bytes([body[8], body[9]]) & 0x3fff);
            Seen {
                tag: Tag::read(&body[header..]),
                picture: Some((vp8.picture_id, vp8.tl0_pic_idx)),
                keyframe,
                start_of_frame,
            }
        }
    }
}

/// A packet to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub mid: String,
    pub header: Header,
    pub payload: Bytes,
}

/// One encoding that a client sends.
#[derive(Clone, Debug)]
pub struct Source {
    pub publisher: u32,
    pub kind: Kind,
    pub source: room::Source,
    pub mid: String,
    pub rid: Option<&'static str>,
    pub layer: u8,
    pub payload_type: u8,
    pub rtx_payload_type: Option<u8>,
    pub ssrc: u32,
    pub rtx_ssrc: Option<u32>,
    /// Height of its picture.
    pub height: u16,
    pub packets_per_frame: u8,
    pub payload_len: usize,
    pub active: bool,
    /// MID and RID are on each packet until a receiver report acknowledges the source, and never again.
    pub naming: bool,
    /// The same for retransmissions, which have a source of their own.
    pub rtx_naming: bool,
    pub sequence: u16,
    pub timestamp: u32,
    pub frame: u32,
    pub counter: u32,
    pub keyframe_wanted: bool,
    pub next: Instant,
    /// Repeats the last packets to fill the link, as browsers probe: padding on the media source.
    pub padding_every: Option<u32>,
    /// How loud it is, in −dBov; nobody speaks unless told to.
    pub level: u8,
    /// A screen on which nothing moves: only the first frames and what is asked for is sent.
    pub still: bool,
    picture_id: u16,
    tl0: u8,
    key_index: u8,
    rtx_sequence: u16,
    history: VecDeque<Outgoing>,
}

impl Source {
    pub fn new(publisher: u32, kind: Kind, mid: &str, ssrc: u32, start: Instant) -> Self {
        Self {
            publisher,
            kind,
            source: match kind {
                Kind::Audio => room::Source::Microphone,
                Kind::Video => room::Source::Camera,
            },
            mid: mid.to_owned(),
            rid: None,
            layer: 0,
            payload_type: if kind == Kind::Audio { 111 } else { 96 },
            rtx_payload_type: (kind == Kind::Video).then_some(97),
            ssrc,
            rtx_ssrc: None,
            height: 180,
            packets_per_frame: if kind == Kind::Audio { 1 } else { 3 },
            payload_len: if kind == Kind::Audio { 80 } else { 700 },
            active: true,
            naming: true,
            rtx_naming: true,
            // Near the ends of their ranges, so that every test passes over the wrap.
            sequence: (65_500 + ssrc % 36) as u16,
            timestamp: u32::MAX - 90_000 - ssrc % 1000,
            frame: 0,
            counter: 0,
            keyframe_wanted: true,
            next: start,
            padding_every: None,
            level: 127,
            still: false,
            picture_id: 0x7ff0,
            tl0: 250,
            key_index: 0,
            rtx_sequence: 7,
            history: VecDeque::new(),
        }
    }

    pub fn interval(&self) -> Duration {
        if self.kind == Kind::Audio { AUDIO_INTERVAL } else { VIDEO_INTERVAL }
    }

    fn header(&mut self, ids: &Ids) -> Header {
        let mut header = Header {
            version: 2,
            payload_type: self.payload_type,
            sequence_number: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            ..Header::default()
        };
        self.sequence = self.sequence.wrapping_add(1);
        if self.naming {
            name(&mut header, ids.mid, &self.mid);
            if let Some(rid) = self.rid {
                name(&mut header, ids.rid, rid);
            }
        }
        header
    }

    /// The next frame.
    pub fn frame(&mut self, ids: &Ids) -> Vec<Outgoing> {
        let mut packets = Vec::new();
        let keyframe = std::mem::take(&mut self.keyframe_wanted);
        if self.kind == Kind::Video {
            self.picture_id = (self.picture_id + 1) & 0x7fff;
            self.tl0 = self.tl0.wrapping_add(1);
            self.key_index = (self.key_index + u8::from(keyframe)) & 0x1f;
        }
        for index in 0..self.packets_per_frame {
            let last = index + 1 == self.packets_per_frame;
            let tag = Tag {
                publisher: self.publisher,
                layer: self.layer,
                frame: self.frame,
                index,
                of: self.packets_per_frame,
                counter: self.counter,
            };
            self.counter += 1;
            let mut header = self.header(ids);
            let mut payload = Vec::new();
            match self.kind {
                Kind::Audio => {
                    // CELT, 20 ms, one frame (RFC 6716 §3.1).
                    payload.push(0xf8);
                    if ids.audio_level != 0 {
                        let level = Bytes::copy_from_slice(&[0x80 | self.level]);
                        header.set_extension(ids.audio_level, level).expect("fits");
                    }
                }
                Kind::Video => {
                    header.marker = last;
                    self.write_descriptor(&mut payload, index == 0, keyframe);
                }
            }
            // The last packets of a frame are a byte longer, as browsers split them.
            tag.write(&mut payload, self.payload_len + usize::from(last));
            packets.push(Outgoing { mid: self.mid.clone(), header, payload: payload.into() });
        }
        self.history.extend(packets.iter().cloned());
        while self.history.len() > 300 {
            self.history.pop_front();
        }
        if let Some(every) = self.padding_every
            && self.frame % every == every - 1
        {
            packets.extend((0..2).map(|_| self.padding(ids)));
        }
        self.frame += 1;
        let ticks = if self.kind == Kind::Audio { 960 } else { 3000 };
        self.timestamp = self.timestamp.wrapping_add(ticks);
        packets
    }

    /// A packet of padding only, with a number of the media source.
    fn padding(&mut self, ids: &Ids) -> Outgoing {
        let mut header = self.header(ids);
        header.padding = true;
        let packet = Outgoing { mid: self.mid.clone(), header, payload: Bytes::new() };
        self.history.push_back(packet.clone());
        packet
    }

    fn write_descriptor(&self, out: &mut Vec<u8>, start: bool, keyframe: bool) {
        out.push(0x80 | if start { 0x10 } else { 0 });
        out.push(0xf0);
        out.extend((0x8000 | self.picture_id).to_be_bytes());
        out.push(self.tl0);
        out.push(self.key_index);
        if start {
            // Frame tag with P = 0 for keyframes, then start code and size (RFC 6386 §9.1).
            out.extend([u8::from(!keyframe), 0, 0]);
            if keyframe {
                let width = self.height / 9 * 16;
                out.extend([0x9d, 0x01, 0x2a]);
                out.extend(width.to_le_bytes());
                out.extend(self.height.to_le_bytes());
            }
        }
    }

    /// A packet again, on the retransmission source where there is one (RFC 4588), else as it was.
    pub fn repeat(&mut self, sequence: u16, ids: &Ids) -> Option<Outgoing> {
        let kept = self.history.iter().find(|kept| kept.header.sequence_number == sequence)?.clone();
        let (Some(ssrc), Some(payload_type)) = (self.rtx_ssrc, self.rtx_payload_type) else {
            return Some(kept);
        };
        let mut header = Header {
            ssrc,
            payload_type,
            sequence_number: self.rtx_sequence,
            padding: false,
            extension: false,
            extensions: Vec::new(),
            ..kept.header
        };
        self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
        if self.rtx_naming {
            name(&mut header, ids.mid, &self.mid);
            if let Some(rid) = self.rid {
                name(&mut header, ids.repaired_rid, rid);
            }
        }
        let payload = [&sequence.to_be_bytes(), &kept.payload[..]].concat().into();
        Some(Outgoing { mid: self.mid.clone(), header, payload })
    }
}

fn name(header: &mut Header, id: u8, value: &str) {
    if id != 0 {
        header.set_extension(id, Bytes::copy_from_slice(value.as_bytes())).expect("fits");
    }
}

/// A packet that a client got.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub at: Instant,
    pub header: Header,
    pub payload: Bytes,
    /// It came on the retransmission source, with this number there. Only clients that see it say so.
    pub rtx: Option<u16>,
}

/// A media source of the server's, as the answer names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    pub mid: String,
    pub kind: Kind,
    pub ssrc: u32,
    pub rtx: Option<u32>,
}

/// The RTCP that a client got.
#[derive(Clone, Debug)]
pub enum Report {
    Pli(u32),
    Nack(u32, Vec<u16>),
    Receiver(Vec<u32>),
    Sender { ssrc: u32, ntp: u64, rtp: u32, packets: u32 },
    Remb(f32),
    TransportCc(usize),
    Other,
}

/// A client's media: what it sends, what it got.
#[derive(Debug, Default)]
pub struct MediaEnd {
    pub ids: Ids,
    pub sources: Vec<Source>,
    pub slots: Vec<SlotInfo>,
    /// By SSRC, in order of arrival, retransmissions under the source that they repair.
    pub received: BTreeMap<u32, Vec<Arrival>>,
    /// Publications whose packets are not judged, because a liar sends them.
    pub ignored: Vec<u32>,
    /// What did not come, by SSRC.
    pub missing: BTreeMap<u32, Missing>,
    pub reports: Vec<(Instant, Report)>,
    /// Arrival of every datagram of any kind.
    pub heard: Vec<Instant>,
}

/// What a receiver lacks of one source.
#[derive(Debug, Default)]
pub struct Missing {
    highest: Option<i64>,
    /// Number, when it was noticed, when it was asked for last, how often.
    lost: BTreeMap<i64, (Instant, Option<Instant>, u32)>,
    /// NTP time and arrival.
    pub last_sender_report: Option<(u64, Instant)>,
}

impl Missing {
    fn take(&mut self, now: Instant, sequence: u16) {
        let Some(highest) = self.highest else {
            self.highest = Some(i64::from(sequence));
            return;
        };
        let sequence = highest + i64::from(sequence.wrapping_sub(highest as u16).cast_signed());
        self.lost.remove(&sequence);
        for lost in highest + 1..sequence {
            self.lost.insert(lost, (now, None, 0));
        }
        self.highest = Some(highest.max(sequence));
    }

    fn due(&mut self, now: Instant) -> Vec<u16> {
        self.lost.retain(|_, (since, ..)| now - *since < Duration::from_millis(900));
        let mut due = Vec::new();
        for (sequence, (since, asked, tries)) in &mut self.lost {
            let waited = asked.map_or(now - *since >= Duration::from_millis(5), |asked| {
                now - asked >= Duration::from_millis(60)
            });
            if waited && *tries < 10 {
                *asked = Some(now);
                *tries += 1;
                due.push(*sequence as u16);
            }
        }
        due
    }
}

impl MediaEnd {
    /// A packet of a slot came.
    pub fn receive(&mut self, arrival: Arrival) {
        let ssrc = arrival.header.ssrc;
        if arrival.header.csrc.iter().any(|publication| self.ignored.contains(publication)) {
            return;
        }
        self.missing.entry(ssrc).or_default().take(arrival.at, arrival.header.sequence_number);
        self.received.entry(ssrc).or_default().push(arrival);
    }

    /// What is to be asked for now, by source.
    pub fn missing(&mut self, now: Instant) -> Vec<(u32, Vec<u16>)> {
        let missing = self.missing.iter_mut().map(|(ssrc, missing)| (*ssrc, missing.due(now)));
        missing.filter(|(_, lost)| !lost.is_empty()).collect()
    }

    pub fn lacks(&self) -> bool {
        self.missing.values().any(|missing| !missing.lost.is_empty())
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sources.iter().filter(|source| source.active).map(|source| source.next).min()
    }

    /// The packets that are due.
    pub fn poll(&mut self, now: Instant) -> Vec<Outgoing> {
        let mut packets = Vec::new();
        for source in self.sources.iter_mut().filter(|source| source.active) {
            while source.next <= now {
                if !source.still || source.frame < 10 || source.keyframe_wanted {
                    packets.extend(source.frame(&self.ids));
                } else {
                    source.timestamp = source.timestamp.wrapping_add(3000);
                }
                source.next += source.interval();
            }
        }
        packets
    }

    /// Takes RTCP. Returns the packets that are to be sent again.
    pub fn take(&mut self, now: Instant, report: Report) -> Vec<Outgoing> {
        let mut again = Vec::new();
        match &report {
            Report::Pli(ssrc) => {
                for source in self.sources.iter_mut().filter(|source| source.ssrc == *ssrc) {
                    source.keyframe_wanted = true;
                }
            }
            Report::Nack(ssrc, lost) => {
                if let Some(source) = self.sources.iter_mut().find(|source| source.ssrc == *ssrc) {
                    again.extend(lost.iter().filter_map(|lost| source.repeat(*lost, &self.ids)));
                }
            }
            Report::Receiver(acknowledged) => {
                for source in &mut self.sources {
                    source.naming &= !acknowledged.contains(&source.ssrc);
                    source.rtx_naming &= source.rtx_ssrc.is_none_or(|rtx| !acknowledged.contains(&rtx));
                }
            }
            _ => {}
        }
        self.reports.push((now, report));
        again
    }

    pub fn source(&mut self, mid: &str, layer: u8) -> &mut Source {
        let found = self.sources.iter_mut().find(|source| source.mid == mid && source.layer == layer);
        found.expect("such a source")
    }

    pub fn start(&mut self, now: Instant) {
        for source in &mut self.sources {
            source.active = true;
            source.next = source.next.max(now);
        }
    }

    pub fn stop(&mut self) {
        self.sources.iter_mut().for_each(|source| source.active = false);
    }

    pub fn plis(&self, ssrc: u32) -> usize {
        self.reports.iter().filter(|(_, report)| matches!(report, Report::Pli(of) if *of == ssrc)).count()
    }

    pub fn nacked(&self) -> usize {
        let lost = |report: &Report| if let Report::Nack(_, lost) = report { lost.len() } else { 0 };
        self.reports.iter().map(|(_, report)| lost(report)).sum()
    }

    /// What came in a slot, in the order of its numbering and each once.
    pub fn stream(&self, slot: usize) -> Stream {
        let slot = &self.slots[slot];
        Stream::new(slot.kind, self.received.get(&slot.ssrc).map_or(&[], Vec::as_slice))
    }

    /// The streams of all slots in which anything came.
    pub fn streams(&self) -> Vec<Stream> {
        (0..self.slots.len())
            .map(|slot| self.stream(slot))
            .filter(|stream| !stream.packets.is_empty())
            .collect()
    }
}

/// One packet of a slot.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Unwrapped.
    pub sequence: i64,
    /// Unwrapped.
    pub timestamp: i64,
    pub at: Instant,
    pub publication: u32,
    pub marker: bool,
    /// `None`: padding.
    pub seen: Option<Seen>,
}

/// What came in a slot, in the order of its numbering.
#[derive(Clone, Debug)]
pub struct Stream {
    pub kind: Kind,
    pub packets: Vec<Packet>,
    /// Copies beyond the first of a packet.
    pub copies: usize,
}

impl Stream {
    pub fn new(kind: Kind, arrivals: &[Arrival]) -> Self {
        let mut packets: BTreeMap<i64, Packet> = BTreeMap::new();
        let mut payloads: BTreeMap<i64, Bytes> = BTreeMap::new();
        let mut copies = 0;
        let mut last: Option<(i64, i64)> = None;
        for arrival in arrivals {
            let header = &arrival.header;
            let (sequence, timestamp) = match last {
                None => (i64::from(header.sequence_number), i64::from(header.timestamp)),
                Some((sequence, timestamp)) => (
                    sequence + i64::from(header.sequence_number.wrapping_sub(sequence as u16).cast_signed()),
                    timestamp + i64::from(header.timestamp.wrapping_sub(timestamp as u32).cast_signed()),
                ),
            };
            last = Some(last.map_or((sequence, timestamp), |(s, t)| (s.max(sequence), t.max(timestamp))));
            assert_eq!(header.csrc.len(), 1, "every packet names its publication");
            if let Some(payload) = payloads.get(&sequence) {
                assert_eq!(payload, &arrival.payload, "number {sequence} stands for one packet only");
                copies += 1;
                continue;
            }
            payloads.insert(sequence, arrival.payload.clone());
            let packet = Packet {
                sequence,
                timestamp,
                at: arrival.at,
                publication: header.csrc[0],
                marker: header.marker,
                seen: (!arrival.payload.is_empty()).then(|| read(kind, &arrival.payload)),
            };
            packets.insert(sequence, packet);
        }
        Self { kind, packets: packets.into_values().collect(), copies }
    }

    /// Packets with media, in order.
    pub fn media(&self) -> impl Iterator<Item = (&Packet, Seen)> {
        self.packets.iter().filter_map(|packet| Some((packet, packet.seen?)))
    }

    /// Numbers of the slot that never came, between the first and the last.
    pub fn missing(&self) -> usize {
        let (Some(first), Some(last)) = (self.packets.first(), self.packets.last()) else { return 0 };
        (last.sequence - first.sequence + 1) as usize - self.packets.len()
    }

    pub fn publishers(&self) -> Vec<u32> {
        let mut publishers: Vec<u32> = self.media().map(|(_, seen)| seen.tag.publisher).collect();
        publishers.dedup();
        publishers
    }

    /// Stretches of one publication's one layer.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (packet, seen) in self.media() {
            let key = (packet.publication, seen.tag.publisher, seen.tag.layer);
            match runs.last_mut() {
                Some(run) if (run.publication, run.publisher, run.layer) == key => run.last = seen.tag,
                _ => runs.push(Run {
                    publication: key.0,
                    publisher: key.1,
                    layer: key.2,
                    at: packet.at,
                    first: seen.tag,
                    last: seen.tag,
                    timestamp: packet.timestamp as u32,
                }),
            }
        }
        runs
    }

    /// What holds for every slot at every time. `publications` tells whose each is.
    pub fn check(&self, publications: &BTreeMap<u32, u32>) {
        let mut last: Option<(&Packet, Seen)> = None;
        let mut highest = i64::MIN;
        for (packet, seen) in self.media() {
            let tag = seen.tag;
            let owner = publications.get(&packet.publication);
            assert_eq!(owner, Some(&tag.publisher), "the publication that the packet names is its sender's");
            assert!(packet.timestamp >= highest, "timestamps never go back: {packet:?} after {last:?}");
            highest = packet.timestamp;
            if let Some((before, previous)) = last {
                let same = (before.publication, previous.tag.layer) == (packet.publication, tag.layer);
                let gap = packet.sequence - before.sequence;
                if same && tag.counter > previous.tag.counter {
                    // After an interruption: with a keyframe, or with silence.
                    let silence = self.kind == Kind::Audio && packet.timestamp - before.timestamp > 960 * gap;
                    let restarts = seen.keyframe.is_some() || silence;
                    let exact = i64::from(tag.counter - previous.tag.counter) <= gap;
                    assert!(
                        exact || restarts,
                        "something was left out without a hole: {previous:?} {seen:?}"
                    );
                } else if same {
                    panic!("out of order: {previous:?} then {seen:?}");
                } else {
                    self.check_switch((before, previous), (packet, seen));
                }
                if tag.frame == previous.tag.frame && same {
                    assert_eq!(packet.timestamp, before.timestamp, "one frame has one timestamp");
                } else if gap == 1 {
                    assert!(packet.timestamp > before.timestamp);
                }
                self.check_pictures((before, previous), (packet, seen), same);
            } else if self.kind == Kind::Video {
                assert!(seen.keyframe.is_some(), "a slot begins with a keyframe: {seen:?}");
            }
            if self.kind == Kind::Video {
                assert_eq!(packet.marker, tag.index + 1 == tag.of, "the marker ends the frame");
            }
            last = Some((packet, seen));
        }
    }

    fn check_switch(&self, (before, previous): (&Packet, Seen), (packet, seen): (&Packet, Seen)) {
        let gap = packet.sequence - before.sequence;
        if self.kind == Kind::Video && gap == 1 {
            assert!(seen.keyframe.is_some(), "a switch begins with a keyframe: {previous:?} {seen:?}");
        }
        if self.kind == Kind::Audio && gap == 1 {
            assert!(packet.timestamp - before.timestamp >= 960, "frames of sound never overlap");
        }
    }

    fn check_pictures(
        &self,
        (before, previous): (&Packet, Seen),
        (packet, seen): (&Packet, Seen),
        same: bool,
    ) {
        let (Some((id, tl0)), Some((last_id, last_tl0))) = (seen.picture, previous.picture) else { return };
        if packet.sequence - before.sequence != 1 {
            return;
        }
        let new = !same || seen.tag.frame != previous.tag.frame;
        let frames = match (new, seen.keyframe.is_some()) {
            (false, _) => 0,
            // A new stretch, whatever was left out before it.
            (true, true) if !same || id == last_id.wrapping_add(1) & 0x7fff => 1,
            (true, _) => (seen.tag.frame - previous.tag.frame) as u16,
        };
        assert_eq!(id, last_id.wrapping_add(frames) & 0x7fff, "picture ids go on: {previous:?} {seen:?}");
        assert_eq!(tl0, last_tl0.wrapping_add(frames as u8), "and so does TL0PICIDX: {previous:?} {seen:?}");
    }

    /// Within each stretch every packet of its source came.
    pub fn assert_complete(&self) {
        let mut last: Option<(&Packet, Seen)> = None;
        for (packet, seen) in self.media() {
            if let Some((before, previous)) = last
                && (before.publication, previous.tag.layer) == (packet.publication, seen.tag.layer)
            {
                let steps = seen.tag.counter - previous.tag.counter;
                assert_eq!(steps, 1, "a packet is missing between {previous:?} and {seen:?}");
            }
            last = Some((packet, seen));
        }
        assert_eq!(self.missing(), 0, "the numbering has no hole");
    }
}

/// A stretch of one publication's one layer in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub publication: u32,
    pub publisher: u32,
    pub layer: u8,
    pub at: Instant,
    pub first: Tag,
    pub last: Tag,
    /// The slot's timestamp of the first packet.
    pub timestamp: u32,
}
