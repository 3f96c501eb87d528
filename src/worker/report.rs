//! What the server says in RTCP of its own accord: missing packets, congestion feedback, reports.

use std::time::{Duration, Instant};

use slotmap::SlotMap;

use super::member::Member;
use super::receive::{LARGEST_DATAGRAM, forward_space};
use super::{Outlet, Worker};
use crate::id::{CNAME, Ssrc};
use crate::net::SendBatch;
use crate::observe::traffic::Traffic;
use crate::room::Feedback;
use crate::room::clock::{ServerClock, ticks};
use crate::room::publication::Publication;
use crate::room::registry::{ParticipantKey, PublicationKey};
use crate::rtp::rtcp::{MAX_REPORTS, ReportBlock, SenderInfo, Writer};
use crate::transport::srtp::Sealer;

/// Every participant gets something this often, so that it can tell a dead path from silence. Less often delays its
/// restart, more often wakes idle devices.
pub(super) const REPORTS: Duration = Duration::from_millis(500);

/// A report that is due within this time leaves with the media: one frame at the usual rates. Longer reports more often
/// than is needed, shorter lets most reports miss the frame before them.
const ALONG: Duration = Duration::from_millis(50);

/// Transport-wide feedback to publishers: the middle of what their congestion control expects (50–100 ms). More
/// often costs packets, less often makes it slow.
const TRANSPORT_FEEDBACK: Duration = Duration::from_millis(75);

/// Bitrate messages to publishers that take those instead.
const REMB: Duration = Duration::from_millis(200);

/// Bytes that the protection of an RTCP packet adds at most: index and tag (RFC 3711 §3.4, RFC 7714 §9).
const SRTCP_OVERHEAD: usize = 32;

/// Missing packets asked for in one message.
const ASKED_AT_ONCE: usize = 128;

impl Worker {
    pub(super) fn ask_for_missing(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        batch: &mut SendBatch,
        outlet: &mut dyn Outlet,
    ) {
        for index in 0..self.members[key].media.sections.len() {
            let member = &mut self.members[key];
            let publication_key = member.media.sections[index].publication;
            let publication = &mut self.publications[publication_key];
            for layer in &mut publication.layers {
                let Some(ssrc) = layer.ssrc else { continue };
                let mut lost = [0; ASKED_AT_ONCE];
                let count = layer.nack.poll(now, member.media.round_trip, &mut lost);
                if count > 0 {
                    let sender = member.ssrc;
                    send_rtcp(member, &self.traffic, false, batch, outlet, |writer| {
                        writer.nack(sender, ssrc, &lost[..count])
                    });
                }
                if layer.keyframe.is_wanted() {
                    self.keyframes.push(publication_key);
                }
            }
            if publication.handle_timeout(now) {
                self.retarget_receivers(now, publication_key);
            }
        }
    }

    /// Congestion feedback to a publisher.
    pub(super) fn send_feedback(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        batch: &mut SendBatch,
        outlet: &mut dyn Outlet,
    ) {
        let member = &mut self.members[key];
        if now < member.due.feedback || !member.media.is_sending(now) {
            return;
        }
        let sender = member.ssrc;
        match member.media.feedback {
            Feedback::TransportCc => {
                member.due.feedback = now + TRANSPORT_FEEDBACK;
                let media = first_source(member, &self.publications).unwrap_or(sender);
                while member.media.twcc.is_pending() {
                    let mut recorder = std::mem::take(&mut member.media.twcc);
                    let sent = send_rtcp(member, &self.traffic, false, batch, outlet, |writer| {
                        writer.transport_cc(sender, media, &mut recorder)
                    });
                    member.media.twcc = recorder;
                    if !sent {
                        break;
                    }
                }
            }
            Feedback::Remb => {
                member.due.feedback = now + REMB;
                let mut sources = Vec::new();
                for section in &member.media.sections {
                    sources
                        .extend(self.publications[section.publication].layers.iter().filter_map(|l| l.ssrc));
                }
                let bitrate = self.settings.remb;
                send_rtcp(member, &self.traffic, false, batch, outlet, |writer| {
                    writer.remb(sender, bitrate, &sources)
                });
            }
        }
    }

    /// Sender reports for what this participant receives, report blocks for what it sends.
    pub(super) fn send_reports(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        batch: &mut SendBatch,
        outlet: &mut dyn Outlet,
    ) {
        let member = &mut self.members[key];
        if now < member.due.reports {
            return;
        }
        member.due.reports = now + REPORTS;
        let mut blocks = Vec::new();
        for section in &member.media.sections {
            for layer in &mut self.publications[section.publication].layers {
                // Never for a source whose section is not known yet: the report ends the extensions that name it.
                blocks.extend(layer.ssrc.and_then(|ssrc| layer.reception.report(now, ssrc)));
            }
        }
        blocks.truncate(MAX_REPORTS);
        let sender = member.ssrc;
        let infos = &mut self.scratch.infos;
        sender_infos(member, &self.publications, &self.clock, now, infos);
        send_rtcp(member, &self.traffic, false, batch, outlet, |writer| {
            write_reports(writer, sender, infos, &blocks)
        });
    }

    /// A sender report for each slot that something was just bound to, in the flush of its first packet.
    pub(super) fn report_bindings(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        batch: &mut SendBatch,
        outlet: &mut dyn Outlet,
    ) {
        let Some(member) = self.members.get_mut(key) else { return };
        for index in 0..member.media.slots.len() {
            if !std::mem::take(&mut member.media.slots[index].report_due) {
                continue;
            }
            if let Some((ssrc, info)) = sender_info(member, index, &self.publications, &self.clock, now) {
                send_rtcp(member, &self.traffic, false, batch, outlet, |writer| {
                    writer.sender_report(ssrc, &info, &[]) && writer.sdes_cname(ssrc, CNAME)
                });
            }
        }
    }
}

/// Sends who has just been sent media its nearly due reports right behind, as the last datagram of the same run, which costs
/// the kernel next to nothing. Not to those who send themselves: their reports say what arrived, and wait for it.
pub(super) fn report_along(
    member: &mut Member,
    publications: &SlotMap<PublicationKey, Publication>,
    clock: &ServerClock,
    infos: &mut Vec<(Ssrc, SenderInfo)>,
    traffic: &Traffic,
    now: Instant,
    batch: &mut SendBatch,
    outlet: &mut dyn Outlet,
) {
    if !member.secured || now + ALONG < member.due.reports || member.media.is_sending(now) {
        return;
    }
    member.due.reports = now + REPORTS;
    let (sender, segment) = (member.ssrc, member.gso);
    sender_infos(member, publications, clock, now, infos);
    send_rtcp(member, traffic, segment, batch, outlet, |writer| write_reports(writer, sender, infos, &[]));
}

/// What the sender reports of a member's slots say.
fn sender_infos(
    member: &Member,
    publications: &SlotMap<PublicationKey, Publication>,
    clock: &ServerClock,
    now: Instant,
    infos: &mut Vec<(Ssrc, SenderInfo)>,
) {
    infos.clear();
    for index in 0..member.media.slots.len() {
        if is_active(member, index, now) {
            infos.extend(sender_info(member, index, publications, clock, now));
        }
    }
}

fn write_reports(
    writer: &mut Writer<'_>,
    sender: Ssrc,
    infos: &[(Ssrc, SenderInfo)],
    blocks: &[ReportBlock],
) -> bool {
    let Some(((ssrc, info), rest)) = infos.split_first() else {
        return writer.receiver_report(sender, blocks) && writer.sdes_cname(sender, CNAME);
    };
    writer.sender_report(*ssrc, info, blocks)
        && writer.sdes_cname(*ssrc, CNAME)
        && rest.iter().all(|(ssrc, info)| writer.sender_report(*ssrc, info, &[]))
}

/// A slot is reported while media flows; a paused one would only keep the receiver awake.
fn is_active(member: &Member, index: usize, now: Instant) -> bool {
    let slot = &member.media.slots[index];
    slot.last_sent.is_some_and(|at| now.saturating_duration_since(at) < 2 * REPORTS)
}

/// The sender report of a slot: where its clock stands now, by the publisher's own reports where there are any.
fn sender_info(
    member: &Member,
    index: usize,
    publications: &SlotMap<PublicationKey, Publication>,
    clock: &ServerClock,
    now: Instant,
) -> Option<(Ssrc, SenderInfo)> {
    let slot = member.media.slots.get(index)?;
    let binding = slot.binding.as_ref()?;
    let publication = publications.get(binding.publication)?;
    let layer = publication.layers.get(usize::from(binding.layer?))?;
    let (packet, _) = layer.history.get(layer.highest)?;
    let capture = publication.capture(binding.layer?, packet);
    let since = ticks(now.saturating_duration_since(capture), publication.clock_rate) as u32;
    let rtp = slot.timestamp(packet.timestamp)?.wrapping_add(since);
    let info = SenderInfo { ntp: clock.ntp(now), rtp, packets: slot.packets, octets: slot.octets };
    Some((slot.section.ssrc, info))
}

fn first_source(member: &Member, publications: &SlotMap<PublicationKey, Publication>) -> Option<Ssrc> {
    let sections = member.media.sections.iter();
    sections.flat_map(|section| &publications[section.publication].layers).find_map(|layer| layer.ssrc)
}

/// Writes one RTCP datagram to a member; with `segment` it may leave in the run of what was just pushed for him. Returns
/// whether it was sent.
pub(super) fn send_rtcp(
    member: &mut Member,
    traffic: &Traffic,
    segment: bool,
    batch: &mut SendBatch,
    outlet: &mut dyn Outlet,
    write: impl FnOnce(&mut Writer<'_>) -> bool,
) -> bool {
    let Some(pair) = member.transport.pair() else { return false };
    let Some(sealer) = member.transport.sealer() else { return false };
    let out = forward_space(batch, outlet);
    match seal_rtcp(sealer, out, write) {
        Some(len) => {
            batch.push(pair, member.tag, segment, len);
            traffic.sent(1, len as u64);
            true
        }
        None => false,
    }
}

fn seal_rtcp(
    sealer: &mut Sealer,
    out: &mut [u8],
    write: impl FnOnce(&mut Writer<'_>) -> bool,
) -> Option<usize> {
    let room = out.len().min(LARGEST_RTCP);
    let mut writer = Writer::new(&mut out[..room]);
    // What did not fit is left out; what was written before it is whole.
    let _ = write(&mut writer);
    let len = writer.len();
    if len == 0 {
        return None;
    }
    sealer.seal_rtcp(out, len).ok()
}

/// What is left of a datagram for plain RTCP.
const LARGEST_RTCP: usize = LARGEST_DATAGRAM - SRTCP_OVERHEAD;
