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

/// How long a slot that showed somebody else waits for the viewer to learn that the name is about to change, where he
/// does not say so himself. Longer delays the switch for those whose signaling is slow, shorter risks a picture under a
/// wrong name.
const NAME_CHANGE: Duration = Duration::from_millis(300);

/// A keyframe that came so short a time ago begins a slot that fell silent before it: it is late by no more than links
/// usually are. Longer makes receivers' buffers longer, shorter asks the publisher for another more often.
const LATE: Duration = Duration::from_millis(60);

/// A receive slot.
#[derive(Debug)]
pub struct Slot {
    pub section: ReceiveSection,
    /// What is forwarded, or will be.
    pub binding: Option<Binding>,
    /// What takes the binding's place as soon as it can begin; until then the binding is forwarded. Only beside a
    /// binding that began.
    pub next: Option<Binding>,
    /// When the publication was decided that the slot carries or will carry.
    pub bound: Option<Instant>,
    /// The last complaint that was acted upon.
    pub stalled: Option<Instant>,
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
    /// What it carried last; `None` before the first.
    shown: Option<PublicationKey>,
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
    /// The layer that would suit best if all were sent.
    pub ideal: Option<u8>,
    /// The slot's timestamp of the first packet.
    pub from_ts: Option<u32>,
    generation: u32,
    gate: Option<Gate>,
}

/// What a binding waits for before it may begin, so that no picture stands under the name of another.
#[derive(Clone, Copy, Debug)]
struct Gate {
    /// The viewer has seen this statement of what its slots carry, or a later one.
    version: u64,
    /// Or this time has come.
    until: Instant,
}

/// A packet that the slot forwards.
#[derive(Clone, Copy, Debug)]
pub struct Admitted {
    pub rewritten: Rewritten,
    /// The packet begins a binding or another layer.
    pub begins: bool,
    /// The first of its publication in this slot.
    pub first: bool,
    /// Whose place it took: that publication is not received here any more.
    pub replaced: Option<PublicationKey>,
}

impl Slot {
    /// `start` and `base` are random: numbers that cannot be guessed (RFC 3550 §5.1).
    #[must_use]
    pub fn new(section: ReceiveSection, start: u16, base: u32) -> Self {
        Self {
            section,
            binding: None,
            next: None,
            bound: None,
            stalled: None,
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
            shown: None,
        }
    }

    /// Decides to carry another publication, from its next keyframe on. What it carries now goes on until then.
    ///
    /// `version` is that of the statement that will tell the viewer.
    pub fn bind(&mut self, publication: PublicationKey, id: PublicationId, version: u64, now: Instant) {
        self.bound = Some(now);
        if self.binding.is_some_and(|binding| binding.publication == publication) {
            self.next = None;
            return;
        }
        // Whoever was shown last may come back under the same name.
        let waits = self.shown.is_some_and(|shown| shown != publication) && self.section.kind == Kind::Video;
        let binding = Binding {
            publication,
            id,
            layer: None,
            target: None,
            sent: false,
            ideal: None,
            from_ts: None,
            generation: 0,
            gate: waits.then(|| Gate { version, until: now + NAME_CHANGE }),
        };
        if self.binding.is_some_and(|binding| binding.from_ts.is_some()) {
            self.next = Some(binding);
        } else {
            self.binding = Some(binding);
        }
    }

    /// A publication comes over another connection of its owner: the same to the viewer.
    pub fn rehome(&mut self, old: PublicationKey, new: PublicationKey) {
        if self.shown == Some(old) {
            self.shown = Some(new);
        }
        for binding in [&mut self.binding, &mut self.next].into_iter().flatten() {
            if binding.publication == old {
                binding.publication = new;
                (binding.layer, binding.target, binding.sent) = (None, None, false);
            }
        }
    }

    /// Carries nothing any more.
    pub fn release(&mut self) {
        (self.binding, self.next, self.bound) = (None, None, None);
    }

    /// A publication ended: nothing of it is forwarded any more. Returns whether the slot had to do with it.
    pub fn forget(&mut self, publication: PublicationKey) -> bool {
        let of = |binding: &Option<Binding>| binding.is_some_and(|b| b.publication == publication);
        if of(&self.next) {
            self.next = None;
            true
        } else if of(&self.binding) {
            self.binding = self.next.take();
            if self.binding.is_none() {
                self.bound = None;
            }
            true
        } else {
            false
        }
    }

    /// What the slot is to carry: what was decided last.
    #[must_use]
    pub fn decided(&self) -> Option<&Binding> {
        self.next.as_ref().or(self.binding.as_ref())
    }

    /// The binding of a publication.
    #[must_use]
    pub fn binding_of(&self, publication: PublicationKey) -> Option<&Binding> {
        [&self.binding, &self.next].into_iter().flatten().find(|binding| binding.publication == publication)
    }

    /// Decides which layer of the publication that was decided last to forward, and notes whether it is being `sent` and
    /// which were `ideal`.
    /// Returns whether a keyframe of it is needed.
    pub fn retarget(&mut self, target: Option<u8>, ideal: Option<u8>, sent: bool) -> bool {
        let Some(binding) = self.next.as_mut().or(self.binding.as_mut()) else { return false };
        binding.target = target;
        binding.ideal = ideal;
        binding.sent = sent;
        target.is_some() && binding.layer != target
    }

    /// Interrupts the forwarding of a publication: it goes on with the next keyframe, as a new stretch of numbers.
    pub fn interrupt(&mut self, publication: PublicationKey) {
        if let Some(binding) = self.binding.as_mut().filter(|binding| binding.publication == publication) {
            binding.layer = None;
        }
    }

    /// The viewer has seen a statement of what its slots carry. Returns the publication that may begin only now.
    pub fn handle_seen(&mut self, version: u64) -> Option<PublicationKey> {
        self.open(|gate| gate.version <= version)
    }

    /// Begins at last what waited long enough for the viewer. Returns the publication that may begin only now.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<PublicationKey> {
        self.open(|gate| gate.until <= now)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(self.decided()?.gate?.until)
    }

    fn open(&mut self, opens: impl FnOnce(&Gate) -> bool) -> Option<PublicationKey> {
        let binding = self.next.as_mut().or(self.binding.as_mut())?;
        binding.gate.take_if(|gate| opens(gate))?;
        Some(binding.publication)
    }

    /// The layer of a publication that the slot cannot begin with without a keyframe, if it may begin now. `generation`
    /// is asked for that of a layer.
    #[must_use]
    pub fn awaits(
        &self,
        publication: PublicationKey,
        generation: impl FnOnce(u8) -> Option<u32>,
    ) -> Option<u8> {
        let binding = self.binding_of(publication)?;
        let target = binding.target?;
        let carried = binding.layer == Some(target) && generation(target) == Some(binding.generation);
        (self.section.kind == Kind::Video && !carried && binding.gate.is_none()).then_some(target)
    }

    /// Whether it may begin with a keyframe that came a moment ago. Where it showed something before, only if that ended
    /// earlier and the keyframe is hardly late: what arrives later than its timestamps say looks like a bad link, and
    /// makes the receiver's buffer longer.
    #[must_use]
    pub fn opens_from_history(&self, arrival: Instant, now: Instant) -> bool {
        self.shown.is_none()
            || (self.next.is_none()
                && self.binding.is_some_and(|binding| binding.from_ts.is_none())
                && self.last_sent.is_none_or(|sent| sent < arrival)
                && now.saturating_duration_since(arrival) <= LATE)
    }

    /// Whether the slot forwards this packet of a publication, and under which numbers.
    ///
    /// `place` is asked where a binding begins: where the slot's clock (which began at the given base) stands at the
    /// packet's capture, and the least distance from the last timestamp.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(
        &mut self,
        publication: PublicationKey,
        fresh: Fresh,
        packet: &Packet,
        generation: u32,
        place: impl FnOnce(u32) -> (u32, u32),
    ) -> Result<Admitted, Reason> {
        let is_next = self.next.is_some_and(|next| next.publication == publication);
        let binding = if is_next { self.next.as_mut() } else { self.binding.as_mut() };
        let binding =
            binding.filter(|binding| binding.publication == publication).ok_or(Reason::NoReceiver)?;
        let current = binding.layer == Some(fresh.layer) && binding.generation == generation;
        let (mut first, mut replaced) = (false, None);
        if !current {
            if binding.target != Some(fresh.layer) {
                return Err(Reason::OtherLayer);
            }
            if fresh.padding {
                return Err(Reason::Padding);
            }
            if binding.gate.is_some() {
                return Err(Reason::AwaitName);
            }
            if !begins_keyframe(self.section.kind, packet) {
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
            if is_next {
                replaced = self.binding.map(|binding| binding.publication);
                self.binding = self.next.take();
            }
            self.shown = Some(publication);
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
        Ok(Admitted { rewritten, begins: !current, first, replaced })
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
        if let Some(binding) = self.decided() {
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

#[cfg(test)]
mod tests;
