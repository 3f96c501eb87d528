//! One receiving section of a participant's connection, for its life: what it carries now and how that is numbered.

use std::time::{Duration, Instant};

use crate::id::PublicationId;
use crate::observe::reason::Reason;
use crate::room::history::Packet;
use crate::room::publication::Fresh;
use crate::room::registry::PublicationKey;
use crate::room::retransmit::{Repeats, Sealed};
use crate::room::rewrite::{Consumed, Rewriter, Rewritten, Segment};
use crate::room::{Kind, ReceiveSection, SlotState, Why};

/// How long a slot that showed somebody else waits before the next picture: the time for the viewer to learn that
/// the name is about to change. Longer delays each switch, shorter risks a picture under a wrong name.
const NAME_CHANGE: Duration = Duration::from_millis(300);

/// A receive slot.
#[derive(Debug)]
pub struct Slot {
    pub section: ReceiveSection,
    pub binding: Option<Binding>,
    /// Where the slot's clock stood at the server's epoch.
    pub base: u32,
    /// Sent so far, for sender reports (RFC 3550 §6.4.1).
    pub packets: u32,
    pub octets: u32,
    pub last_sent: Option<Instant>,
    /// A sender report belongs in this flush.
    pub report_due: bool,
    pub repeats: Repeats,
    pub sealed: Sealed,
    rtx_sequence: u16,
    rewriter: Rewriter,
    /// The rewriter's first binding of the present publication.
    own_since: u32,
    carried_before: bool,
}

/// What a slot carries, or will from the next keyframe on.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    pub publication: PublicationKey,
    pub id: PublicationId,
    /// The layer that is being forwarded.
    pub layer: Option<u8>,
    /// The layer that should be.
    pub target: Option<u8>,
    /// Whether that layer is being sent.
    pub sent: bool,
    /// The slot's timestamp of the first packet.
    pub from_ts: Option<u32>,
    generation: u32,
    not_before: Instant,
}

/// A packet that the slot forwards.
#[derive(Clone, Copy, Debug)]
pub struct Admitted {
    pub rewritten: Rewritten,
    /// The packet begins a binding or another layer.
    pub begins: bool,
    /// The first of its publication in this slot.
    pub first: bool,
}

impl Slot {
    /// `start` and `base` are random: numbers that cannot be guessed (RFC 3550 §5.1).
    #[must_use]
    pub fn new(section: ReceiveSection, start: u16, base: u32) -> Self {
        Self {
            section,
            binding: None,
            base,
            packets: 0,
            octets: 0,
            last_sent: None,
            report_due: false,
            repeats: Repeats::default(),
            sealed: Sealed::default(),
            rtx_sequence: 1024 + start % 30_000,
            rewriter: Rewriter::new(start),
            own_since: 0,
            carried_before: false,
        }
    }

    /// Decides to carry another publication, from its next keyframe on.
    pub fn bind(&mut self, publication: PublicationKey, id: PublicationId, now: Instant) {
        let wait = self.carried_before && self.section.kind == Kind::Video;
        self.binding = Some(Binding {
            publication,
            id,
            layer: None,
            target: None,
            sent: false,
            from_ts: None,
            generation: 0,
            not_before: if wait { now + NAME_CHANGE } else { now },
        });
    }

    /// The same publication comes over another connection of its owner.
    pub fn rehome(&mut self, publication: PublicationKey) {
        if let Some(binding) = &mut self.binding {
            binding.publication = publication;
            (binding.layer, binding.target, binding.sent) = (None, None, false);
        }
    }

    /// Carries nothing any more.
    pub fn release(&mut self) {
        self.binding = None;
    }

    /// Decides which layer to forward, and notes whether it is being `sent`. Returns whether a keyframe of it is needed.
    pub fn retarget(&mut self, target: Option<u8>, sent: bool) -> bool {
        let Some(binding) = &mut self.binding else { return false };
        binding.target = target;
        binding.sent = sent;
        target.is_some() && binding.layer != target
    }

    /// Interrupts the forwarding: it goes on with the next keyframe, as a new stretch of numbers.
    pub fn interrupt(&mut self) {
        if let Some(binding) = &mut self.binding {
            binding.layer = None;
        }
    }

    /// The layer that the slot cannot begin with without a keyframe, if it may begin now. `generation` is asked for
    /// that of a layer.
    #[must_use]
    pub fn awaits(&self, now: Instant, generation: impl FnOnce(u8) -> Option<u32>) -> Option<u8> {
        let binding = self.binding.as_ref()?;
        let target = binding.target?;
        let carried = binding.layer == Some(target) && generation(target) == Some(binding.generation);
        (self.section.kind == Kind::Video && !carried && now >= binding.not_before).then_some(target)
    }

    /// Whether it may begin with a keyframe that came a moment ago. Not where it showed something before: there, what
    /// arrives later than its timestamps say looks like a bad link, and makes the receiver's buffer longer.
    #[must_use]
    pub fn opens_from_history(&self) -> bool {
        !self.carried_before
    }

    /// Whether the slot forwards this packet, and under which numbers.
    ///
    /// `place` is asked where a binding begins: where the slot's clock (which began at the given base) stands at the
    /// packet's capture, and the least distance from the last timestamp.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(
        &mut self,
        fresh: Fresh,
        packet: &Packet,
        generation: u32,
        now: Instant,
        place: impl FnOnce(u32) -> (u32, u32),
    ) -> Result<Admitted, Reason> {
        let binding = self.binding.as_mut().ok_or(Reason::NoReceiver)?;
        let current = binding.layer == Some(fresh.layer) && binding.generation == generation;
        let mut first = false;
        if !current {
            if binding.target != Some(fresh.layer) {
                return Err(Reason::OtherLayer);
            }
            if fresh.padding {
                return Err(Reason::Padding);
            }
            if !begins_keyframe(self.section.kind, packet) || now < binding.not_before {
                return Err(Reason::AwaitKeyframe);
            }
            let (timestamp, step) = place(self.base);
            let timestamp = self.rewriter.begin(fresh.layer, packet, timestamp, step);
            first = binding.from_ts.is_none();
            if first {
                binding.from_ts = Some(timestamp);
                self.own_since = self.rewriter.binding();
            }
            binding.layer = Some(fresh.layer);
            binding.generation = generation;
            self.carried_before = true;
            self.report_due = true;
        }
        let rewritten = if fresh.padding {
            match self.rewriter.consume(packet)? {
                Consumed::Closed => return Err(Reason::Padding),
                Consumed::Fill(rewritten) => rewritten,
            }
        } else {
            self.rewriter.rewrite(packet)?
        };
        Ok(Admitted { rewritten, begins: !current, first })
    }

    /// Which packet of which layer the receiver asks for.
    #[must_use]
    pub fn find(&self, sequence: u16) -> Option<(u64, Segment)> {
        self.binding.as_ref().filter(|binding| binding.from_ts.is_some())?;
        self.rewriter.find(sequence, self.own_since)
    }

    /// The number of the next retransmission; each is used once.
    pub fn next_rtx(&mut self) -> u16 {
        self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
        self.rtx_sequence
    }

    /// The slot's timestamp for a timestamp of what it carries.
    #[must_use]
    pub fn timestamp(&self, source: u32) -> Option<u32> {
        self.rewriter.timestamp(source)
    }

    /// What the viewer is told.
    #[must_use]
    pub fn state(&self) -> SlotState {
        let mut state = SlotState {
            slot: self.section.mid,
            publication: None,
            pending: false,
            from_ts: None,
            layer: None,
            why: None,
        };
        if let Some(binding) = &self.binding {
            state.publication = Some(binding.id);
            state.pending = binding.from_ts.is_none();
            state.from_ts = binding.from_ts;
            state.layer = binding.layer;
            state.why = match (binding.layer, binding.target) {
                (_, None) => Some(Why::NotSent),
                _ if !binding.sent => Some(Why::NotSent),
                (None, Some(_)) => Some(Why::Keyframe),
                _ => None,
            };
        }
        state
    }
}

fn begins_keyframe(kind: Kind, packet: &Packet) -> bool {
    match kind {
        Kind::Audio => true,
        Kind::Video => packet.descriptor.is_some_and(|vp8| vp8.keyframe && vp8.start_of_frame),
    }
}
