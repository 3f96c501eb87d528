//! Stage 3: what participants ask for in RTCP, and the answers: reports taken, packets repeated, keyframes asked of
//! publishers.

use std::time::Instant;

use super::receive::forward_space;
use super::report::send_rtcp;
use super::{Outlet, Worker};
use crate::id::{AddressPair, Ssrc};
use crate::net::SendBatch;
use crate::observe::add;
use crate::observe::reason::Reason;
use crate::room::clock::SenderReport;
use crate::room::registry::ParticipantKey;
use crate::rtp::feedback::round_trip;
use crate::rtp::rtcp::{ReportBlock, Rtcp, SenderInfo, packets};

impl Worker {
    pub(super) fn receive_rtcp(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        pair: AddressPair,
        datagram: &mut [u8],
        batch: &mut SendBatch,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Reason> {
        let len = self.members[key].transport.open_rtcp(now, pair, datagram)?;
        let mut result = Ok(());
        for packet in packets(&datagram[..len]) {
            match packet? {
                Rtcp::SenderReport { ssrc, info, reports } => {
                    self.take_sender_report(now, key, ssrc, &info);
                    reports.for_each(|block| self.take_report(now, key, &block));
                }
                Rtcp::ReceiverReport { reports, .. } => {
                    reports.for_each(|block| self.take_report(now, key, &block));
                }
                Rtcp::Nack { media, lost, .. } => {
                    for sequence in lost {
                        if let Err(reason) = self.retransmit(now, key, media, sequence, batch, outlet) {
                            self.drop_for(reason);
                        }
                    }
                }
                Rtcp::Pli { media, .. } => self.take_keyframe_request(key, media),
                Rtcp::Fir { entries, .. } => {
                    entries.for_each(|(media, _)| self.take_keyframe_request(key, media));
                }
                // A receiver's own congestion control: consumed here, never forwarded to publishers.
                Rtcp::TransportCc { .. } | Rtcp::Remb { .. } | Rtcp::Bye | Rtcp::Sdes => {}
                Rtcp::Other(_) => result = Err(Reason::RtcpUnexpected),
            }
        }
        result
    }

    fn take_sender_report(&mut self, now: Instant, key: ParticipantKey, ssrc: Ssrc, info: &SenderInfo) {
        let media = &mut self.members[key].media;
        let Some(stream) = media.stream(ssrc).filter(|stream| !stream.rtx) else { return };
        media.clock.handle_report(info.ntp, now);
        let publication = &mut self.publications[media.sections[usize::from(stream.section)].publication];
        publication.sender_clock = media.clock;
        let layer = &mut publication.layers[usize::from(stream.layer)];
        layer.report = Some(SenderReport { ntp: info.ntp, timestamp: info.rtp });
        layer.reception.handle_sender_report(now, info.ntp);
    }

    fn take_report(&mut self, now: Instant, key: ParticipantKey, block: &ReportBlock) {
        if let Some(sample) = round_trip(block, self.clock.ntp(now)) {
            let media = &mut self.members[key].media;
            // RFC 6298 §2: an eighth of each sample.
            media.round_trip = (media.round_trip * 7 + sample) / 8;
        }
    }

    fn take_keyframe_request(&mut self, key: ParticipantKey, media: Ssrc) {
        let member = &self.members[key];
        let Some(binding) =
            member.media.slots.iter().find(|slot| slot.section.ssrc == media).and_then(|slot| slot.binding)
        else {
            return;
        };
        let Some(publication) = self.publications.get_mut(binding.publication) else { return };
        let muted = publication.published.is_none_or(|published| published.muted);
        let layer = binding.layer.or(binding.target);
        if let Some(layer) = layer.and_then(|layer| publication.layers.get_mut(usize::from(layer)))
            && !muted
        {
            layer.keyframe.request();
            self.keyframes.push(binding.publication);
        }
    }

    /// Repeats one packet: on the retransmission stream with a fresh number (RFC 4588), or the identical bytes where a
    /// slot has none.
    fn retransmit(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        media: Ssrc,
        sequence: u16,
        batch: &mut SendBatch,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Reason> {
        let member = &mut self.members[key];
        let pair = member.transport.pair().ok_or(Reason::NotConnected)?;
        let index = member
            .media
            .slots
            .iter()
            .position(|slot| slot.section.ssrc == media)
            .ok_or(Reason::UnknownStream)?;
        let slot = &mut member.media.slots[index];
        let len = if slot.section.rtx_ssrc.is_none() {
            let datagram = slot.sealed.get(sequence).ok_or(Reason::NotInHistory)?;
            if !slot.repeats.allow(sequence, now, member.media.round_trip) {
                return Err(Reason::RetransmitTooSoon);
            }
            let len = datagram.len();
            if !member.media.budget.spend(len) {
                return Err(Reason::RetransmitBudget);
            }
            forward_space(batch, outlet).get_mut(..len).ok_or(Reason::SealNoRoom)?.copy_from_slice(datagram);
            len
        } else {
            let (source, segment) = slot.find(sequence).ok_or(Reason::NotInHistory)?;
            let publication = slot.binding.and_then(|binding| self.publications.get(binding.publication));
            let (packet, payload) = publication
                .and_then(|publication| publication.layers.get(usize::from(segment.layer)))
                .and_then(|layer| layer.history.get_fresh(source, now))
                .ok_or(Reason::NotInHistory)?;
            if !slot.repeats.allow(sequence, now, member.media.round_trip) {
                return Err(Reason::RetransmitTooSoon);
            }
            if !member.media.budget.spend(payload.len()) {
                return Err(Reason::RetransmitBudget);
            }
            let out = forward_space(batch, outlet);
            super::forward::seal_rtx(member, index, packet, payload, &segment, out)?
        };
        batch.push(pair, member.tag, member.gso, len);
        self.traffic.sent(1, len as u64);
        add(&self.traffic.retransmitted, 1);
        Ok(())
    }

    /// Asks the publishers for the keyframes that somebody cannot go on without.
    pub(super) fn ask_for_keyframes(&mut self, now: Instant, batch: &mut SendBatch, outlet: &mut dyn Outlet) {
        while let Some(key) = self.keyframes.pop() {
            let Some(publication) = self.publications.get_mut(key) else { continue };
            let owner = publication.owner;
            let Some(member) = self.members.get_mut(owner) else { continue };
            if publication.published.is_none_or(|published| published.muted) {
                publication.layers.iter_mut().for_each(|layer| layer.keyframe.cancel());
                continue;
            }
            let mut again = None;
            for layer in &mut publication.layers {
                let Some(ssrc) = layer.ssrc else { continue };
                if layer.keyframe.poll(now) && member.secured {
                    let sender = member.ssrc;
                    send_rtcp(member, &self.traffic, false, batch, outlet, |writer| writer.pli(sender, ssrc));
                    add(&self.traffic.keyframe_requests, 1);
                }
                again = [again, layer.keyframe.poll_timeout(now)].into_iter().flatten().min();
            }
            if let Some(again) = again {
                self.wake_at(owner, again);
            }
        }
    }
}
