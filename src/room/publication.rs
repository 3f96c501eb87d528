//! What arrives from one sending section: its layers, and what is published there.

use std::time::{Duration, Instant};

use crate::id::{PublicationId, Rid, Ssrc};
use crate::observe::reason::Reason;
use crate::room::clock::{SenderClock, SenderReport};
use crate::room::demand::Demand;
use crate::room::history::{History, Packet};
use crate::room::keyframe::Keyframe;
use crate::room::nack::{Arrival, Nack};
use crate::room::registry::ParticipantKey;
use crate::room::route::Routes;
use crate::room::select::LayerInfo;
use crate::room::speaker::Voice;
use crate::room::{Kind, SendingSection, Source};
use crate::rtp::codec::vp8;
use crate::rtp::extension::Received;
use crate::rtp::feedback::Reception;
use crate::rtp::header::Header;

/// Silence after which a layer is taken for not sent. Longer leaves a viewer with a frozen picture when the
/// publisher's browser drops a layer, shorter takes a still screen for a dead one.
pub const DEAD_AFTER: Duration = Duration::from_secs(1);

/// Silence after which a layer that somebody misses is taken for not sent. Longer leaves him waiting, shorter gives up
/// what comes with few pictures a second.
const STALLED_AFTER: Duration = Duration::from_millis(500);

/// A jump of the numbering beyond this is a restart or an intruder, not loss (RFC 3550 A.1).
const MAX_DROPOUT: i32 = 3000;

/// One sending section for the life of its transport. Browsers name a stream's section and encoding only in its
/// first packets, so what was learnt must outlive whatever is published there.
#[derive(Debug)]
pub struct Publication {
    pub owner: ParticipantKey,
    pub kind: Kind,
    pub clock_rate: u32,
    /// What the room calls it; `None` while nothing is published on the section.
    pub published: Option<Published>,
    /// The publisher's clock; one for all that it sends.
    pub sender_clock: SenderClock,
    /// Largest first; one without simulcast.
    pub layers: Vec<Layer>,
    /// Who receives it.
    pub routes: Routes,
    /// What arrived since the last forwarding, in order of arrival.
    pub fresh: Vec<Fresh>,
    /// Layer heights or liveness changed: receivers must choose anew.
    pub layers_changed: bool,
    /// Of a picture: which layers anybody watches.
    pub demand: Demand,
    /// Of sound: how loud it is.
    pub voice: Voice,
}

/// What the room knows of a publication.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    pub id: PublicationId,
    pub source: Source,
    pub muted: bool,
}

/// A packet that waits to be forwarded within this turn of the loop.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    pub layer: u8,
    pub sequence: u64,
    /// Padding without payload.
    pub padding: bool,
    /// The first packet of a keyframe.
    pub keyframe: bool,
}

/// One encoding of a publication.
#[derive(Debug)]
pub struct Layer {
    pub rid: Option<Rid>,
    pub ssrc: Option<Ssrc>,
    pub history: History,
    pub nack: Nack,
    pub keyframe: Keyframe,
    /// Where the youngest keyframe begins, and when it came.
    opening: Option<(u64, Instant)>,
    pub reception: Reception,
    pub report: Option<SenderReport>,
    /// Counts up when the publisher starts its numbering anew.
    pub generation: u32,
    pub height: u16,
    pub last_packet: Option<Instant>,
    pub highest: u64,
    alive: bool,
    numbering: Numbering,
}

impl Publication {
    #[must_use]
    pub fn new(owner: ParticipantKey, section: &SendingSection) -> Self {
        let layer = |rid| Layer {
            rid,
            ssrc: None,
            history: History::default(),
            nack: Nack::default(),
            keyframe: Keyframe::default(),
            opening: None,
            reception: Reception::new(section.kind.clock_rate()),
            report: None,
            generation: 0,
            height: 0,
            last_packet: None,
            highest: 0,
            alive: false,
            numbering: Numbering::default(),
        };
        let layers = if section.rids.is_empty() {
            vec![layer(None)]
        } else {
            section.rids.iter().map(|&rid| layer(Some(rid))).collect()
        };
        Self {
            owner,
            kind: section.kind,
            clock_rate: section.kind.clock_rate(),
            published: None,
            sender_clock: SenderClock::default(),
            layers,
            routes: Routes::default(),
            fresh: Vec::new(),
            layers_changed: false,
            demand: Demand::default(),
            voice: Voice::default(),
        }
    }

    /// Takes an opened packet: keeps it and lines it up for forwarding.
    ///
    /// `payload` is without padding. Returns whether packets are missing before it.
    ///
    /// # Errors
    /// The reason why it goes no further.
    pub fn handle_packet(
        &mut self,
        layer: u8,
        header: &Header,
        extensions: &Received,
        payload: &[u8],
        nack: bool,
        now: Instant,
    ) -> Result<(), Reason> {
        let published = self.published.ok_or(Reason::NotPublished)?;
        let Some(target) = self.layers.get_mut(usize::from(layer)) else {
            return Err(Reason::UnknownStream);
        };
        let number = target.numbering.unwrap(header.sequence);
        let Some((sequence, restarted)) = number else { return Err(Reason::TooOld) };
        if restarted {
            target.restart();
        }
        if published.muted {
            // Whoever is shown as muted is not heard; the numbers are no loss.
            target.nack.clear();
            target.highest = target.highest.max(sequence);
            return Err(Reason::Muted);
        }
        let mut packet = Packet {
            sequence,
            arrival: now,
            timestamp: header.timestamp,
            marker: header.marker,
            audio_level: extensions.audio_level,
            video_orientation: extensions.video_orientation,
            descriptor: None,
        };
        let mut keyframe = false;
        if self.kind == Kind::Video && !payload.is_empty() {
            let descriptor = vp8::Descriptor::parse(payload)?;
            packet.descriptor = Some(descriptor);
            keyframe = descriptor.keyframe && descriptor.start_of_frame;
            if keyframe {
                target.keyframe.handle_keyframe();
                if let Some((_, height)) = vp8::keyframe_size(payload) {
                    self.layers_changed |= target.height != height;
                    target.height = height;
                }
            }
        }
        if !target.history.insert(packet, payload) {
            return Err(Reason::Duplicate);
        }
        if keyframe && target.opening.is_none_or(|(other, _)| other < sequence) {
            target.opening = Some((sequence, now));
        }
        if nack && target.nack.handle_packet(sequence, now) == Arrival::Lost {
            target.keyframe.request();
        }
        target.highest = target.highest.max(sequence);
        target.last_packet = Some(now);
        if !target.alive {
            target.alive = true;
            self.layers_changed = true;
        }
        if let Some(level) = extensions.audio_level
            && self.kind == Kind::Audio
        {
            self.voice.handle_packet(level);
        }
        self.fresh.push(Fresh { layer, sequence, padding: payload.is_empty(), keyframe });
        Ok(())
    }

    /// Notes which layers fell silent. Returns whether receivers must choose anew.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        for layer in &mut self.layers {
            let alive = layer.last_packet.is_some_and(|at| now.saturating_duration_since(at) < DEAD_AFTER);
            if layer.alive && !alive {
                layer.alive = false;
                layer.keyframe.cancel();
                layer.nack.clear();
                self.layers_changed = true;
            }
        }
        self.layers_changed
    }

    /// A viewer shows nothing new of a layer: whether it has been silent for longer than its pictures are apart. Then
    /// receivers must choose anew.
    pub fn handle_stall(&mut self, layer: u8, now: Instant) -> bool {
        let Some(layer) = self.layers.get_mut(usize::from(layer)) else { return false };
        let silent = layer.last_packet.is_none_or(|at| now.saturating_duration_since(at) >= STALLED_AFTER);
        self.layers_changed |= layer.alive && silent;
        layer.alive &= !silent;
        silent
    }

    /// What receivers choose from.
    #[must_use]
    pub fn layer_infos(&self) -> ([LayerInfo; 4], usize) {
        let mut infos = [LayerInfo::default(); 4];
        let count = self.layers.len().min(infos.len());
        for (info, layer) in infos.iter_mut().zip(&self.layers) {
            *info =
                LayerInfo { alive: layer.alive, known: layer.last_packet.is_some(), height: layer.height };
        }
        (infos, count)
    }

    /// When the sample of `packet` was captured, by the server's clock: as the publisher's reports say, and its
    /// arrival before the first.
    #[must_use]
    pub fn capture(&self, layer: u8, packet: &Packet) -> Instant {
        self.layers
            .get(usize::from(layer))
            .and_then(|layer| layer.report)
            .and_then(|report| report.capture(&self.sender_clock, packet.timestamp, self.clock_rate))
            .unwrap_or(packet.arrival)
    }

    /// Another publication, or none, is on the section from now on.
    pub fn set_published(&mut self, published: Option<Published>) {
        self.published = published;
        self.demand = Demand::default();
        self.voice.silence();
        self.layers.iter_mut().for_each(|layer| layer.opening = None);
    }

    /// The publisher was muted or unmuted.
    pub fn set_muted(&mut self, muted: bool) {
        if let Some(published) = &mut self.published {
            published.muted = muted;
        }
        self.voice.silence();
        for layer in &mut self.layers {
            layer.nack.clear();
            layer.keyframe.cancel();
            layer.opening = None;
        }
    }
}

impl Layer {
    /// A keyframe that came so short a time ago that its followers are worth sending, too: the number of
    /// its first packet, and when that came.
    #[must_use]
    pub fn opening(&self, now: Instant, within: Duration) -> Option<(u64, Instant)> {
        self.opening.filter(|(_, at)| now.saturating_duration_since(*at) <= within)
    }

    /// The layer's bitstream begins anew: nothing that was kept may be sent for a number of the new one.
    fn restart(&mut self) {
        self.generation += 1;
        self.history.clear();
        self.nack.clear();
        self.opening = None;
        // It tells of the former timestamps.
        self.report = None;
        self.highest = 0;
    }
}

impl Kind {
    /// Ticks per second of RTP timestamps: VP8 (RFC 7741 §4.1), Opus (RFC 7587 §4.1).
    #[must_use]
    pub fn clock_rate(self) -> u32 {
        match self {
            Kind::Audio => 48_000,
            Kind::Video => 90_000,
        }
    }
}

/// Unwraps sequence numbers and tells a restarted numbering from loss.
#[derive(Clone, Copy, Debug, Default)]
struct Numbering {
    highest: Option<u64>,
    /// The number after one that jumped: seeing it makes the jump a restart.
    after_jump: Option<u16>,
}

impl Numbering {
    /// The unwrapped number and whether the numbering was restarted; `None` for one that jumped, and is not (yet)
    /// believed.
    fn unwrap(&mut self, sequence: u16) -> Option<(u64, bool)> {
        let Some(highest) = self.highest else {
            // One cycle up, so that late packets do not underflow.
            let first = (1 << 16) + u64::from(sequence);
            self.highest = Some(first);
            return Some((first, false));
        };
        let distance = i32::from(sequence.wrapping_sub(highest as u16).cast_signed());
        if distance.abs() <= MAX_DROPOUT {
            self.after_jump = None;
            let unwrapped = highest.wrapping_add_signed(i64::from(distance));
            self.highest = Some(highest.max(unwrapped));
            return Some((unwrapped, false));
        }
        if self.after_jump == Some(sequence) {
            self.after_jump = None;
            // Far from every number that was used before.
            let restarted = (((highest >> 16) + 2) << 16) + u64::from(sequence);
            self.highest = Some(restarted);
            return Some((restarted, true));
        }
        self.after_jump = Some(sequence.wrapping_add(1));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbering_unwraps_over_full_cycles_in_both_directions() {
        let mut numbering = Numbering::default();
        let mut expected = None;
        for n in 0..200_000u64 {
            let (unwrapped, restarted) = numbering.unwrap(n as u16).expect("in order");
            assert!(!restarted);
            assert!(expected.is_none_or(|next| next == unwrapped));
            expected = Some(unwrapped + 1);
            if n > 10 {
                assert_eq!(numbering.unwrap((n - 10) as u16), Some((unwrapped - 10, false)));
            }
        }
    }

    #[test]
    fn a_restarted_numbering_is_a_restart_not_losses() {
        let mut numbering = Numbering::default();
        let (before, _) = numbering.unwrap(100).expect("first");
        assert_eq!(numbering.unwrap(40_000), None, "one stray packet is not believed");
        assert_eq!(numbering.unwrap(101), Some((before + 1, false)));
        assert_eq!(numbering.unwrap(40_000), None);
        let (after, restarted) = numbering.unwrap(40_001).expect("the second one is");
        assert!(restarted);
        assert!(after > before + 65_536);
    }

    fn video() -> Publication {
        let section = SendingSection {
            mid: "1".parse().expect("a mid"),
            kind: Kind::Video,
            payload_type: 96,
            rtx_payload_type: None,
            extensions: crate::rtp::extension::ExtensionIds::default(),
            rids: Vec::new(),
            ssrcs: Vec::new(),
            nack: true,
        };
        Publication::new(ParticipantKey::default(), &section)
    }

    fn receive(publication: &mut Publication, sequence: u16, keyframe: bool, now: Instant) {
        let packet = [0x80, 96, (sequence >> 8) as u8, sequence as u8, 0, 0, 0, 0, 0, 0, 0, 1];
        let header = Header::parse(&packet).expect("a header");
        let payload = [0x10, u8::from(!keyframe), 0, 0, 0x9d, 0x01, 0x2a, 64, 1, 180, 0];
        // What is dropped, is dropped.
        let _ = publication.handle_packet(0, &header, &Received::default(), &payload, true, now);
    }

    fn opening(publication: &Publication, now: Instant) -> Option<u16> {
        let within = Duration::from_millis(500);
        publication.layers[0].opening(now, within).map(|(sequence, _)| sequence as u16)
    }

    #[test]
    fn the_youngest_keyframe_opens_until_it_is_old_or_of_another_time() {
        let now = Instant::now();
        let published = |id| Published { id: PublicationId(id), source: Source::Camera, muted: false };
        let mut publication = video();
        publication.set_published(Some(published(1)));
        receive(&mut publication, 10, true, now);
        receive(&mut publication, 12, true, now);
        receive(&mut publication, 13, false, now);
        receive(&mut publication, 11, true, now);
        assert_eq!(opening(&publication, now + Duration::from_millis(500)), Some(12));
        assert_eq!(opening(&publication, now + Duration::from_millis(501)), None, "too much has followed");

        publication.set_muted(true);
        receive(&mut publication, 14, true, now);
        publication.set_muted(false);
        assert_eq!(opening(&publication, now), None, "from before or while it was muted");

        receive(&mut publication, 15, true, now);
        publication.set_published(None);
        publication.set_published(Some(published(2)));
        assert_eq!(opening(&publication, now), None, "of what was published there before");

        receive(&mut publication, 16, true, now);
        receive(&mut publication, 40_000, false, now);
        receive(&mut publication, 40_001, false, now);
        assert_eq!(opening(&publication, now), None, "of another numbering");
    }
}
