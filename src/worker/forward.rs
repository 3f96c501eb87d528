//! Stage 2: from what was kept to every receiver's send run. Receivers outside, packets inside: the packets of one
//! receiver stand together in the batch and leave in one segmented send.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::member::{Member, Stage};
use super::receive::forward_space;
use super::report::report_along;
use super::{Outlet, Worker};
use crate::id::Ssrc;
use crate::net::SendBatch;
use crate::observe::add;
use crate::observe::reason::Reason;
use crate::observe::traffic::Traffic;
use crate::room::clock::ServerClock;
use crate::room::history::Packet;
use crate::room::keyframe::OPENS_FOR;
use crate::room::publication::{Fresh, Publication};
use crate::room::registry::{ParticipantKey, PublicationKey};
use crate::room::rewrite::Segment;
use crate::room::route::Route;
use crate::room::slot::Admitted;
use crate::room::{Kind, ReceiveSection};
use crate::rtp::codec::{opus, vp8};
use crate::rtp::extension::Outgoing;
use crate::rtp::rtcp::SenderInfo;

/// Most bytes of RTP padding that are spent to make a packet as long as its neighbours. Browsers make the last packets
/// of a frame one byte longer than the first; more padding joins packets of different origin and costs the
/// receiver's link.
const MOST_PADDING: usize = 8;

/// Buffers that are used anew in each turn.
#[derive(Default)]
pub(super) struct Scratch {
    /// Bytes of padding for each fresh packet.
    padding: Vec<u8>,
    /// What a member's sender reports say.
    pub(super) infos: Vec<(Ssrc, SenderInfo)>,
    /// Receivers whose handling panicked.
    panicked: Vec<ParticipantKey>,
    /// Receivers to which something new was bound.
    begun: Vec<ParticipantKey>,
    /// Slots in which another publication took the place of this one.
    replaced: Vec<(PublicationKey, Route)>,
}

/// What is the same for all receivers of a publication in one turn.
struct Source<'a> {
    key: PublicationKey,
    publication: &'a Publication,
    clock: &'a ServerClock,
    padding: &'a [u8],
    /// Whether a slot may begin with what was kept.
    history_opening: bool,
    now: Instant,
}

/// Which layers of the publication a receiver cannot go on without a keyframe of.
type Waiting = [bool; 4];

impl Worker {
    pub(super) fn forward(&mut self, now: Instant, batch: &mut SendBatch, outlet: &mut dyn Outlet) {
        while let Some(key) = self.fresh.pop() {
            let Some(publication) = self.publications.get_mut(key) else { continue };
            if publication.layers_changed {
                // Before anything is forwarded: a layer that has just come to life mostly begins with a keyframe.
                self.retarget_receivers(now, key);
            }
            let publication = &mut self.publications[key];
            let fresh = std::mem::take(&mut publication.fresh);
            let publication = &self.publications[key];
            plan_padding(publication, &fresh, self.settings.padding, &mut self.scratch.padding);
            let source = Source {
                key,
                publication,
                clock: &self.clock,
                padding: &self.scratch.padding,
                history_opening: self.settings.history_opening,
                now,
            };
            let mut waiting = Waiting::default();
            let mut began = false;
            for route in publication.routes.as_slice() {
                let Some(member) = self.members.get_mut(route.receiver) else { continue };
                let mut begun = None;
                let work = || {
                    let traffic = &self.traffic;
                    let begun =
                        forward_to(member, *route, &fresh, &source, traffic, batch, outlet, &mut waiting);
                    let infos = &mut self.scratch.infos;
                    report_along(member, &self.publications, &self.clock, infos, traffic, now, batch, outlet);
                    begun
                };
                match catch_unwind(AssertUnwindSafe(work)) {
                    Ok(first) => begun = first,
                    Err(_) => self.scratch.panicked.push(route.receiver),
                }
                if let Some(begun) = begun {
                    began = true;
                    self.scratch.begun.push(route.receiver);
                    self.scratch.replaced.extend(begun.replaced.map(|former| (former, *route)));
                }
            }
            self.finish(key, fresh, waiting);
            if began {
                self.demand_changed(key);
            }
        }
        while let Some((former, route)) = self.scratch.replaced.pop() {
            if let Some(entry) = self.publications.get_mut(former) {
                entry.routes.remove(route);
            }
            self.demand_changed(former);
        }
        while let Some(key) = self.scratch.begun.pop() {
            if let Some(member) = self.members.get_mut(key) {
                member.progress.shown(now, &self.traffic.joins);
            }
            self.have_changed(key);
            self.report_bindings(now, key, batch, outlet);
        }
        while let Some(key) = self.scratch.panicked.pop() {
            self.give_up(key, Reason::Panicked);
        }
    }

    fn finish(&mut self, key: PublicationKey, mut fresh: Vec<Fresh>, waiting: Waiting) {
        let publication = &mut self.publications[key];
        for began in fresh.iter().filter(|fresh| fresh.keyframe) {
            // It served everybody who had asked; who could not take it yet asks below.
            publication.layers[usize::from(began.layer)].keyframe.cancel();
        }
        fresh.clear();
        publication.fresh = fresh;
        for (layer, _) in publication.layers.iter_mut().zip(waiting).filter(|(_, waits)| *waits) {
            layer.keyframe.request();
        }
        if publication.layers.iter().any(|layer| layer.keyframe.is_wanted()) {
            self.keyframes.push(key);
        }
    }
}

/// A binding or layer that began.
#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    /// The publication whose place was taken.
    replaced: Option<PublicationKey>,
}

/// Sends one receiver what it gets of a publication's fresh packets. Returns whether a binding or layer began.
fn forward_to(
    member: &mut Member,
    route: Route,
    fresh: &[Fresh],
    source: &Source<'_>,
    traffic: &Traffic,
    batch: &mut SendBatch,
    outlet: &mut dyn Outlet,
    waiting: &mut Waiting,
) -> Option<Begun> {
    if !member.secured || member.transport.pair().is_none() {
        traffic.dropped.count(Reason::NotConnected);
        return None;
    }
    member.trip(Stage::Seal);
    // Layer and number up to which a keyframe's followers were already sent from the history.
    let mut caught_up = begin_from_history(member, route, source, traffic, batch, outlet);
    if fresh.is_empty()
        && caught_up.is_none()
        && let Some(layer) = awaits(member, route, source)
    {
        // Just connected: no packet is there that would ask.
        waiting[usize::from(layer) % waiting.len()] = true;
    }
    let mut begun = caught_up.map(|_| Begun::default());
    for (fresh, padding) in fresh.iter().zip(source.padding) {
        if caught_up.is_some_and(|(layer, up_to)| layer == fresh.layer && fresh.sequence <= up_to) {
            continue;
        }
        match forward_packet(member, route, *fresh, *padding, source, traffic, batch, outlet) {
            Err(reason) => {
                if reason == Reason::AwaitKeyframe {
                    waiting[usize::from(fresh.layer) % waiting.len()] = true;
                }
                if reason != Reason::OtherLayer && reason != Reason::Padding {
                    traffic.dropped.count(reason);
                }
            }
            Ok(admitted) if admitted.begins => {
                let begun = begun.get_or_insert_default();
                begun.replaced = begun.replaced.or(admitted.replaced);
                let up_to = catch_up(member, route, *fresh, source, traffic, batch, outlet);
                caught_up = Some((fresh.layer, up_to));
            }
            Ok(_) => {}
        }
    }
    begun
}

/// A slot that waits begins with a keyframe that came a moment ago: mostly one that was asked for when the receiver
/// joined and that came while it was still connecting. Returns the layer and the last number that was sent.
fn begin_from_history(
    member: &mut Member,
    route: Route,
    source: &Source<'_>,
    traffic: &Traffic,
    batch: &mut SendBatch,
    outlet: &mut dyn Outlet,
) -> Option<(u8, u64)> {
    let layer = awaits(member, route, source)?;
    let (sequence, arrival) = source.publication.layers[usize::from(layer)].opening(source.now, OPENS_FOR)?;
    if !source.history_opening
        || !member.media.slots[usize::from(route.slot)].opens_from_history(arrival, source.now)
    {
        return None;
    }
    let first = Fresh { layer, sequence, padding: false, keyframe: true };
    forward_packet(member, route, first, 0, source, traffic, batch, outlet).ok()?;
    Some((layer, catch_up(member, route, first, source, traffic, batch, outlet)))
}

/// The layer that a receiver's slot needs a keyframe of, if it may begin now.
fn awaits(member: &Member, route: Route, source: &Source<'_>) -> Option<u8> {
    let layers = &source.publication.layers;
    let slot = &member.media.slots[usize::from(route.slot)];
    slot.awaits(source.key, |layer| Some(layers.get(usize::from(layer))?.generation))
}

/// A binding that began with a packet that came late: what follows it was received before, and is sent now.
fn catch_up(
    member: &mut Member,
    route: Route,
    first: Fresh,
    source: &Source<'_>,
    traffic: &Traffic,
    batch: &mut SendBatch,
    outlet: &mut dyn Outlet,
) -> u64 {
    let layer = &source.publication.layers[usize::from(first.layer)];
    for sequence in first.sequence + 1..=layer.highest {
        let Some((_, payload)) = layer.history.get(sequence) else { continue };
        let fresh = Fresh { sequence, padding: payload.is_empty(), keyframe: false, ..first };
        if let Err(reason) = forward_packet(member, route, fresh, 0, source, traffic, batch, outlet) {
            traffic.dropped.count(reason);
        }
    }
    layer.highest
}

/// Selects, rewrites, seals and lines up one packet for one receiver.
#[inline]
fn forward_packet(
    member: &mut Member,
    route: Route,
    fresh: Fresh,
    padding: u8,
    source: &Source<'_>,
    traffic: &Traffic,
    batch: &mut SendBatch,
    outlet: &mut dyn Outlet,
) -> Result<Admitted, Reason> {
    let index = usize::from(route.slot);
    let publication = source.publication;
    let layer = &publication.layers[usize::from(fresh.layer)];
    let slot = &mut member.media.slots[index];
    let Some(&binding) = slot.binding_of(source.key) else { return Err(Reason::NoReceiver) };
    if binding.layer != Some(fresh.layer) && binding.target != Some(fresh.layer) {
        return Err(Reason::OtherLayer);
    }
    let (packet, payload) = layer.history.get(fresh.sequence).ok_or(Reason::NotInHistory)?;
    let admitted = slot.admit(source.key, fresh, packet, layer.generation, |slot_base| {
        let capture = publication.capture(fresh.layer, packet);
        let place = source.clock.line(slot_base, publication.clock_rate, capture);
        (place, least_step(publication.kind, payload))
    })?;

    let pair = member.transport.pair().ok_or(Reason::NotConnected)?;
    let sealer = member.transport.sealer().ok_or(Reason::NotConnected)?;
    let header = Outgoing {
        // RFC 3551 §4.1: the first packet after a silence, which a new voice is for the slot, may be played later.
        marker: packet.marker || (admitted.begins && publication.kind == Kind::Audio),
        padding: padding > 0 || fresh.padding,
        payload_type: slot.section.payload_type,
        sequence: admitted.rewritten.sequence as u16,
        timestamp: admitted.rewritten.timestamp,
        ssrc: slot.section.ssrc,
        csrc: Some(binding.id.0),
        transport_cc: next_transport_cc(&mut member.media.transport_cc, &slot.section),
        audio_level: packet.audio_level,
        video_orientation: packet.video_orientation,
    };
    let out = forward_space(batch, outlet);
    let header_len = header.write(&slot.section.extensions, out).ok_or(Reason::SealNoRoom)?;
    let seal = &mut member.seals[index].media;
    let padding = if fresh.padding { 1 } else { padding };
    let tail = Tail::new(padding);
    let len = match (admitted.rewritten.picture, packet.descriptor) {
        (Some(picture), Some(descriptor)) => {
            let body = payload.len() + tail.bytes().len();
            let space = out.get_mut(header_len..header_len + body).ok_or(Reason::SealNoRoom)?;
            space[..payload.len()].copy_from_slice(payload);
            space[payload.len()..].copy_from_slice(tail.bytes());
            vp8::rewrite(space, &descriptor, picture.id, Some(picture.tl0));
            sealer.seal_rtp_in_place(seal, header.sequence, out, header_len, body)?
        }
        _ => sealer.seal_rtp(seal, header.sequence, out, header_len, payload, tail.bytes())?,
    };
    if slot.section.rtx_ssrc.is_none() && slot.section.nack {
        slot.sealed.keep(header.sequence, &out[..len]);
    }
    batch.push(pair, member.tag, member.gso, len);
    slot.packets = slot.packets.wrapping_add(1);
    slot.octets = slot.octets.wrapping_add(payload.len() as u32);
    slot.last_sent = Some(source.now);
    member.media.budget.earn(len);
    traffic.sent(1, len as u64);
    add(&traffic.forwarded, 1);
    Ok(admitted)
}

/// Seals a packet again as a retransmission: another source, a fresh number, the original one in front of the payload
/// (RFC 4588 §4). Returns the datagram's length.
pub(super) fn seal_rtx(
    member: &mut Member,
    index: usize,
    packet: &Packet,
    payload: &[u8],
    segment: &Segment,
    out: &mut [u8],
) -> Result<usize, Reason> {
    let slot = &mut member.media.slots[index];
    let sealer = member.transport.sealer().ok_or(Reason::NotConnected)?;
    let seal = member.seals[index].rtx.as_mut().ok_or(Reason::UnknownStream)?;
    let rewritten = segment.apply(packet);
    let header = Outgoing {
        marker: packet.marker,
        padding: false,
        payload_type: slot.section.rtx_payload_type.ok_or(Reason::UnknownPayloadType)?,
        sequence: slot.next_rtx(),
        timestamp: rewritten.timestamp,
        ssrc: seal.ssrc(),
        csrc: slot.binding.map(|binding| binding.id.0),
        transport_cc: next_transport_cc(&mut member.media.transport_cc, &slot.section),
        audio_level: packet.audio_level,
        video_orientation: packet.video_orientation,
    };
    let header_len = header.write(&slot.section.extensions, out).ok_or(Reason::SealNoRoom)?;
    let body = 2 + payload.len();
    let space = out.get_mut(header_len..header_len + body).ok_or(Reason::SealNoRoom)?;
    space[..2].copy_from_slice(&(rewritten.sequence as u16).to_be_bytes());
    space[2..].copy_from_slice(payload);
    if let (Some(picture), Some(descriptor)) = (rewritten.picture, packet.descriptor) {
        vp8::rewrite(&mut space[2..], &descriptor, picture.id, Some(picture.tl0));
    }
    sealer.seal_rtp_in_place(seal, header.sequence, out, header_len, body)
}

/// The next transport-wide sequence number, where the receiver takes them.
fn next_transport_cc(counter: &mut u16, section: &ReceiveSection) -> Option<u16> {
    if section.extensions.transport_cc == 0 {
        return None;
    }
    *counter = counter.wrapping_add(1);
    Some(*counter)
}

/// The least distance between the timestamps before and at a switch: a frame of sound, because one sample of overlap
/// makes browsers throw the packet away; any for pictures.
fn least_step(kind: Kind, payload: &[u8]) -> u32 {
    match kind {
        Kind::Audio => opus::frame_ticks(payload).max(1),
        Kind::Video => 1,
    }
}

/// RTP padding: zeros, and the count of all in the last byte (RFC 3550 §5.1).
struct Tail {
    bytes: [u8; MOST_PADDING],
    len: usize,
}

impl Tail {
    #[inline]
    fn new(len: u8) -> Self {
        let mut bytes = [0; MOST_PADDING];
        let len = usize::from(len).min(MOST_PADDING);
        if let Some(last) = bytes[..len].last_mut() {
            *last = len as u8;
        }
        Self { bytes, len }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Chooses padding such that neighbours of one layer become equally long where they almost are: a run may only end with
/// a shorter packet. The choice is the same for all receivers.
fn plan_padding(publication: &Publication, fresh: &[Fresh], enabled: bool, plan: &mut Vec<u8>) {
    plan.clear();
    plan.resize(fresh.len(), 0);
    if !enabled || publication.kind == Kind::Audio || publication.routes.is_empty() {
        return;
    }
    let size = |fresh: &Fresh| {
        let layer = &publication.layers[usize::from(fresh.layer)];
        layer.history.get(fresh.sequence).map_or(0, |(packet, payload)| wire_size(packet, payload))
    };
    let mut from = 0;
    while from < fresh.len() {
        let (mut least, mut most) = (size(&fresh[from]), size(&fresh[from]));
        let mut to = from + 1;
        while to < fresh.len() && fresh[to].layer == fresh[from].layer && !fresh[to].padding {
            let next = size(&fresh[to]);
            if most.max(next) - least.min(next) > MOST_PADDING {
                break;
            }
            (least, most) = (least.min(next), most.max(next));
            to += 1;
        }
        if to - from > 1 && !fresh[from].padding {
            for (at, plan) in plan[from..to].iter_mut().enumerate() {
                *plan = (most - size(&fresh[from + at])) as u8;
            }
        }
        from = to;
    }
}

/// Bytes by which packets of one layer differ: the payload, and the one extension that not all of them have.
fn wire_size(packet: &Packet, payload: &[u8]) -> usize {
    payload.len() + if packet.video_orientation.is_some() { 4 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_counts_itself_in_its_last_byte() {
        assert!(Tail::new(0).bytes().is_empty());
        assert_eq!(Tail::new(1).bytes(), [1]);
        assert_eq!(Tail::new(3).bytes(), [0, 0, 3]);
        assert_eq!(Tail::new(200).bytes().len(), MOST_PADDING);
    }
}
