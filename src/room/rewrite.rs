//! One numbering for the life of a slot, whatever it carries: sequence numbers are continuous, timestamps never
//! go back, VP8 picture ids go on.
//!
//! A [`Rewriter`] holds the last few [`Segment`]s: stretches of the source's numbering that map onto the slot's
//! by one addition. A new one begins with each binding, and wherever a packet was consumed (a publisher's padding), so
//! that the slot's numbering closes over it. The way back, from a number that a receiver asks for to the
//! packet that stood there, is the same table read backwards: what was sent under an older segment is found under
//! it or not at all, never under another's.

use crate::observe::reason::Reason;
use crate::room::history::Packet;

/// Segments remembered. More lets late packets and requests reach further back through padding and
/// switches, fewer keeps the slot small (40 bytes each).
const SEGMENTS: usize = 64;

/// How far back a receiver may ask, in packets: a browser's own NACK list reaches no further.
const REACH: u64 = 1024;

/// A stretch of one source's numbering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Which binding it belongs to; counts up.
    binding: u32,
    /// Which layer of the publication it carries.
    pub layer: u8,
    /// First number of the source, unwrapped.
    first: u64,
    /// Added to the source's number (wrapping).
    sequence: u64,
    timestamp: u32,
    picture: u16,
    tl0: u8,
}

/// What a packet is called in the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Unwrapped; the wire carries the low 16 bits.
    pub sequence: u64,
    pub timestamp: u32,
    /// The VP8 ids to write, where they differ from the packet's own.
    pub picture: Option<Picture>,
}

/// VP8 ids (RFC 7741 §4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// 15 bits; the low 7 where the packet has the short form.
    pub id: u16,
    pub tl0: u8,
}

/// What becomes of a number whose packet is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumed {
    /// The slot's numbering has closed over it.
    Closed,
    /// Its place was already kept, because later packets were sent: it must be filled with padding.
    Fill(Rewritten),
}

/// The numbering of one slot.
#[derive(Clone, Debug)]
pub struct Rewriter {
    /// A ring once it has [`SEGMENTS`]; most slots never need more than one.
    segments: Vec<Segment>,
    /// How many segments there have been; 0 before the first binding.
    count: usize,
    /// Highest number of the source that was seen in this binding, forwarded or consumed.
    highest: u64,
    /// Highest number of the slot that is taken, sent or kept for a missing packet.
    last_sequence: u64,
    last_timestamp: Option<u32>,
    last_picture: Option<Picture>,
}

impl Rewriter {
    /// `start` is random; the slot's first number is drawn from it between 2¹⁰ and 2¹⁵: above, so that a late packet
    /// before the first has a number too, and below, so that receivers that lose the first packets estimate the
    /// roll-over counter right (RFC 3711 §3.3.1).
    #[must_use]
    pub fn new(start: u16) -> Self {
        Self {
            segments: Vec::new(),
            count: 0,
            highest: 0,
            // One cycle up, so that nothing late underflows; the wire shows the low 16 bits only.
            last_sequence: (1 << 16) + 1024 + u64::from(start % 30_000),
            last_timestamp: None,
            last_picture: None,
        }
    }

    /// Begins a binding, or another layer of it, with `packet`: it takes the next number of the slot.
    ///
    /// `timestamp` is where the slot's clock stands at the packet's capture; `step` the least distance from the last
    /// timestamp (the frame length for audio, since one sample of overlap makes browsers throw a packet away).
    /// Returns the timestamp that the packet gets.
    pub fn begin(&mut self, layer: u8, packet: &Packet, timestamp: u32, step: u32) -> u32 {
        let timestamp = match self.last_timestamp {
            Some(last) if timestamp.wrapping_sub(last.wrapping_add(step)).cast_signed() < 0 => {
                last.wrapping_add(step)
            }
            _ => timestamp,
        };
        let own = picture_of(packet);
        let shift = match (self.last_picture, own) {
            (Some(last), Some(own)) => Picture {
                id: last.id.wrapping_add(1).wrapping_sub(own.id) & 0x7fff,
                tl0: last.tl0.wrapping_add(1).wrapping_sub(own.tl0),
            },
            // The first binding keeps its ids, so that payloads can be sealed without a copy.
            _ => Picture::default(),
        };
        let binding = self.newest().map_or(0, |newest| newest.binding + 1);
        self.push(Segment {
            binding,
            layer,
            first: packet.sequence,
            sequence: (self.last_sequence + 1).wrapping_sub(packet.sequence),
            timestamp: timestamp.wrapping_sub(packet.timestamp),
            picture: shift.id,
            tl0: shift.tl0,
        });
        self.highest = packet.sequence - 1;
        timestamp
    }

    /// Names a packet of the present binding.
    ///
    /// # Errors
    /// [`Reason::BeforeBinding`] for one that is older than the binding, or than the table remembers.
    pub fn rewrite(&mut self, packet: &Packet) -> Result<Rewritten, Reason> {
        let segment = self.segment_of(packet.sequence).ok_or(Reason::BeforeBinding)?;
        let rewritten = segment.apply(packet);
        if packet.sequence > self.highest {
            self.highest = packet.sequence;
            self.last_sequence = rewritten.sequence;
            if self.last_timestamp.is_none_or(|last| rewritten.timestamp.wrapping_sub(last).cast_signed() > 0)
            {
                self.last_timestamp = Some(rewritten.timestamp);
            }
            self.last_picture = rewritten.picture.or_else(|| picture_of(packet)).or(self.last_picture);
        }
        Ok(rewritten)
    }

    /// Leaves out a packet of the present binding: the numbering closes over it, unless its place is taken.
    ///
    /// # Errors
    /// As [`rewrite`](Self::rewrite).
    pub fn consume(&mut self, packet: &Packet) -> Result<Consumed, Reason> {
        let segment = self.segment_of(packet.sequence).ok_or(Reason::BeforeBinding)?;
        if packet.sequence <= self.highest {
            return Ok(Consumed::Fill(segment.apply(packet)));
        }
        // Whatever is missing before it keeps its place: only this packet is known to be padding.
        self.last_sequence = packet.sequence.wrapping_add(segment.sequence).wrapping_sub(1);
        self.highest = packet.sequence;
        let next =
            Segment { first: packet.sequence + 1, sequence: segment.sequence.wrapping_sub(1), ..segment };
        match self.newest_mut() {
            // A run of padding needs one segment, not one each.
            Some(newest) if newest.first == packet.sequence => *newest = next,
            _ => self.push(next),
        }
        Ok(Consumed::Closed)
    }

    /// Which packet of which layer a receiver means by a number of the slot: the layer, the source's number, and
    /// the segment under which it was sent. `None` if it is out of reach or belongs to an older binding of another
    /// source (`binding` says from which on).
    #[must_use]
    pub fn find(&self, sequence: u16, oldest_binding: u32) -> Option<(u64, Segment)> {
        let behind = (self.last_sequence as u16).wrapping_sub(sequence);
        let sequence = self.last_sequence.checked_sub(u64::from(behind))?;
        if u64::from(behind) >= REACH {
            return None;
        }
        let segment =
            self.newest_first().find(|segment| segment.first.wrapping_add(segment.sequence) <= sequence)?;
        (segment.binding >= oldest_binding).then(|| (sequence.wrapping_sub(segment.sequence), *segment))
    }

    /// The number of the present binding, for [`find`](Self::find).
    #[must_use]
    pub fn binding(&self) -> u32 {
        self.newest().map_or(0, |newest| newest.binding)
    }

    /// The slot's timestamp for a timestamp of the present source.
    #[must_use]
    pub fn timestamp(&self, source: u32) -> Option<u32> {
        self.newest().map(|newest| source.wrapping_add(newest.timestamp))
    }

    fn segment_of(&self, sequence: u64) -> Option<Segment> {
        let binding = self.newest()?.binding;
        self.newest_first()
            .take_while(|segment| segment.binding == binding)
            .find(|segment| segment.first <= sequence)
            .copied()
    }

    fn newest_first(&self) -> impl Iterator<Item = &Segment> {
        let oldest = self.count.saturating_sub(SEGMENTS);
        (oldest..self.count).rev().map(|n| &self.segments[n % SEGMENTS])
    }

    fn newest(&self) -> Option<&Segment> {
        self.count.checked_sub(1).map(|n| &self.segments[n % SEGMENTS])
    }

    fn newest_mut(&mut self) -> Option<&mut Segment> {
        self.count.checked_sub(1).map(|n| &mut self.segments[n % SEGMENTS])
    }

    fn push(&mut self, segment: Segment) {
        match self.segments.get_mut(self.count % SEGMENTS) {
            Some(oldest) => *oldest = segment,
            None => self.segments.push(segment),
        }
        self.count += 1;
    }
}

impl Segment {
    /// Names a packet of this stretch.
    #[must_use]
    pub fn apply(&self, packet: &Packet) -> Rewritten {
        let shifted = self.picture != 0 || self.tl0 != 0;
        Rewritten {
            sequence: packet.sequence.wrapping_add(self.sequence),
            timestamp: packet.timestamp.wrapping_add(self.timestamp),
            picture: picture_of(packet).filter(|_| shifted).map(|own| Picture {
                id: own.id.wrapping_add(self.picture) & 0x7fff,
                tl0: own.tl0.wrapping_add(self.tl0),
            }),
        }
    }
}

fn picture_of(packet: &Packet) -> Option<Picture> {
    let descriptor = packet.descriptor.as_ref()?;
    Some(Picture { id: descriptor.picture_id?, tl0: descriptor.tl0_picture_index.unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    fn packet(sequence: u64, timestamp: u32) -> Packet {
        Packet {
            sequence,
            arrival: Instant::now(),
            timestamp,
            marker: false,
            audio_level: None,
            video_orientation: None,
            descriptor: None,
        }
    }

    #[test]
    fn numbers_are_continuous_over_several_full_cycles_and_switches() {
        let mut rewriter = Rewriter::new(0x7fff);
        let mut expected = None;
        let mut source = 65_000u64;
        for n in 0..200_000u64 {
            if n % 20_011 == 0 {
                source = source.wrapping_mul(7) % (1 << 40) + 5;
                rewriter.begin(0, &packet(source, n as u32), n as u32 * 3000, 1);
            }
            let out = rewriter.rewrite(&packet(source, n as u32)).expect("in the binding").sequence;
            assert!(expected.is_none_or(|next| next == out));
            expected = Some(out + 1);
            source += 1;
        }
    }

    #[test]
    fn timestamps_never_go_back_at_a_switch() {
        let mut rewriter = Rewriter::new(0);
        rewriter.begin(0, &packet(1, 500), 10_000, 960);
        assert_eq!(rewriter.rewrite(&packet(1, 500)).expect("bound").timestamp, 10_000);
        assert_eq!(rewriter.begin(1, &packet(9, 77), 10_100, 960), 10_960, "at least a frame later");
        assert_eq!(rewriter.rewrite(&packet(9, 77)).expect("bound").timestamp, 10_960);
        assert_eq!(rewriter.begin(0, &packet(50, 1), 90_000, 960), 90_000);
    }

    #[test]
    fn timestamps_follow_over_the_wrap_of_32_bits() {
        let mut rewriter = Rewriter::new(0);
        rewriter.begin(0, &packet(1, u32::MAX - 10), u32::MAX - 5, 1);
        assert_eq!(rewriter.rewrite(&packet(1, u32::MAX - 10)).expect("bound").timestamp, u32::MAX - 5);
        assert_eq!(rewriter.rewrite(&packet(2, 20)).expect("bound").timestamp, 25);
        assert_eq!(
            rewriter.begin(0, &packet(7, 0), u32::MAX - 100, 1),
            26,
            "an older clock does not go back"
        );
    }

    #[test]
    fn what_is_older_than_the_binding_is_dropped() {
        let mut rewriter = Rewriter::new(0);
        rewriter.begin(0, &packet(100, 0), 0, 1);
        assert_eq!(rewriter.rewrite(&packet(99, 0)), Err(Reason::BeforeBinding));
        rewriter.begin(1, &packet(5000, 0), 0, 1);
        assert_eq!(rewriter.rewrite(&packet(4999, 0)), Err(Reason::BeforeBinding));
    }

    #[test]
    fn padding_closes_and_a_late_one_fills_its_place() {
        let mut rewriter = Rewriter::new(0);
        rewriter.begin(0, &packet(10, 0), 0, 1);
        let first = rewriter.rewrite(&packet(10, 0)).expect("bound").sequence;
        assert_eq!(rewriter.consume(&packet(11, 0)), Ok(Consumed::Closed));
        assert_eq!(rewriter.consume(&packet(12, 0)), Ok(Consumed::Closed));
        assert_eq!(rewriter.rewrite(&packet(13, 0)).expect("bound").sequence, first + 1);
        // 14 is missing; 15 is sent; 14 turns out to be padding.
        assert_eq!(rewriter.rewrite(&packet(15, 0)).expect("bound").sequence, first + 3);
        let filled = rewriter.consume(&packet(14, 0));
        assert!(
            matches!(filled, Ok(Consumed::Fill(Rewritten { sequence, .. })) if sequence == first + 2),
            "{filled:?}"
        );
    }

    #[test]
    fn picture_ids_and_tl0_go_on_across_a_switch() {
        let vp8 = |sequence: u64, id: u16, tl0: u8| {
            let payload = [0x90, 0xf0, 0x80 | (id >> 8) as u8, id as u8, tl0, 0x05, 0];
            let descriptor = crate::rtp::codec::vp8::Descriptor::parse(&payload).ok();
            Packet { descriptor, ..packet(sequence, 0) }
        };
        let mut rewriter = Rewriter::new(0);
        rewriter.begin(0, &vp8(10, 700, 250), 0, 1);
        assert_eq!(
            rewriter.rewrite(&vp8(10, 700, 250)).expect("bound").picture,
            None,
            "the first keeps its ids"
        );
        rewriter.begin(1, &vp8(90, 0x7fff, 3), 0, 1);
        let picture = |rewriter: &mut Rewriter, sequence, id, tl0| {
            rewriter.rewrite(&vp8(sequence, id, tl0)).expect("bound").picture
        };
        assert_eq!(picture(&mut rewriter, 90, 0x7fff, 3), Some(Picture { id: 701, tl0: 251 }));
        assert_eq!(picture(&mut rewriter, 91, 0, 4), Some(Picture { id: 702, tl0: 252 }));
    }

    #[test]
    fn a_request_after_a_switch_finds_its_packet_or_nothing() {
        let mut rewriter = Rewriter::new(0);
        rewriter.begin(2, &packet(10, 0), 0, 1);
        let old = rewriter.rewrite(&packet(10, 0)).expect("bound").sequence;
        rewriter.begin(0, &packet(700, 0), 0, 1);
        let new = rewriter.rewrite(&packet(700, 0)).expect("bound").sequence;
        let found = |sequence: u64, from| {
            rewriter.find(sequence as u16, from).map(|(source, segment)| (source, segment.layer))
        };
        assert_eq!(found(old, 0), Some((10, 2)));
        assert_eq!(found(new, 0), Some((700, 0)));
        assert_eq!(found(old, rewriter.binding()), None, "it belonged to another publication");
        assert_eq!(found(new + 1, 0), None, "not yet sent");
        assert_eq!(found(old - 1, 0), None, "before the first");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Media,
        Padding,
        Lose,
        /// The loss before the last arrives late.
        Late {
            padding: bool,
        },
        Switch,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => Just(Step::Media),
            2 => Just(Step::Padding),
            2 => Just(Step::Lose),
            2 => any::<bool>().prop_map(|padding| Step::Late { padding }),
            1 => Just(Step::Switch),
        ];
        prop::collection::vec(step, 1..400)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Each place is taken once, every number is found again under the packet that took it, and nothing is left
        /// out but what is missing.
        #[test]
        fn each_number_names_one_packet_and_the_way_back_finds_it(steps in steps(), start: u16, first in 0u64..1 << 34) {
            let mut rewriter = Rewriter::new(start);
            let mut source = first + 1;
            let mut layer = 0u8;
            let mut lost: Vec<u64> = Vec::new();
            let mut taken: BTreeMap<u64, (u64, u8)> = BTreeMap::new();
            rewriter.begin(layer, &packet(source, 0), 0, 1);
            for step in steps {
                match step {
                    Step::Media => {
                        let out = rewriter.rewrite(&packet(source, 0)).expect("bound").sequence;
                        prop_assert!(taken.insert(out, (source, layer)).is_none());
                        source += 1;
                    }
                    Step::Padding => {
                        prop_assert_eq!(rewriter.consume(&packet(source, 0)), Ok(Consumed::Closed));
                        source += 1;
                    }
                    Step::Lose => {
                        lost.push(source);
                        source += 1;
                    }
                    Step::Late { padding } => {
                        let Some(sequence) = lost.pop() else { continue };
                        let late = packet(sequence, 0);
                        let out = if padding {
                            match rewriter.consume(&late) {
                                Ok(Consumed::Fill(filled)) => filled.sequence,
                                // Nothing was sent after it, or the table has forgotten.
                                _ => { source = source.max(sequence + 1); continue }
                            }
                        } else {
                            let Ok(rewritten) = rewriter.rewrite(&late) else { continue };
                            rewritten.sequence
                        };
                        prop_assert!(taken.insert(out, (sequence, layer)).is_none());
                    }
                    Step::Switch => {
                        lost.clear();
                        layer = (layer + 1) % 3;
                        source = source.wrapping_mul(31) % (1 << 34) + 1;
                        rewriter.begin(layer, &packet(source, 0), 0, 1);
                    }
                }
            }
            let newest = taken.keys().next_back().copied().unwrap_or(0);
            for (&out, &(source, layer)) in &taken {
                if newest - out < REACH && let Some((found, segment)) = rewriter.find(out as u16, 0) {
                    prop_assert_eq!((found, segment.layer), (source, layer));
                }
            }
        }
    }
}
