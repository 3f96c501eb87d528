//! Stage 3: what receivers and publishers are told and ask for, in RTCP.

use std::time::{Duration, Instant};

use super::member::{Member, Stage};
use super::receive::forward_space;
use super::{Outlet, Worker};
use crate::control::Update;
use crate::id::{AddressPair, CNAME, Ssrc};
use crate::net::SendBatch;
use crate::observe::reason::Reason;
use crate::observe::traffic::add;
use crate::room::Feedback;
use crate::room::clock::{SenderReport, ServerClock, ticks};
use crate::room::publication::Publication;
use crate::room::registry::{ParticipantKey, PublicationKey};
use crate::rtp::feedback::round_trip;
use crate::rtp::rtcp::{MAX_REPORTS, ReportBlock, Rtcp, SenderInfo, Writer, packets};
use crate::transport::srtp::Sealer;
use crate::transport::{DTLS_DEADLINE, Event};

/// Every participant gets something this often, so that it can tell a dead path from silence. Less often delays its
/// restart, more often wakes idle devices.
const REPORTS: Duration = Duration::from_millis(500);

/// Transport-wide feedback to publishers: the middle of what their congestion control expects (50–100 ms). More
/// often costs packets, less often makes it slow.
const TRANSPORT_FEEDBACK: Duration = Duration::from_millis(75);

/// Bitrate messages to publishers that take those instead.
const REMB: Duration = Duration::from_millis(200);

/// Nothing authenticated for so long: the participant may be away.
const SILENT: Duration = Duration::from_secs(8);

/// Bytes that the protection of an RTCP packet adds at most: index and tag (RFC 3711 §3.4, RFC 7714 §9).
const SRTCP_OVERHEAD: usize = 32;

/// Missing packets asked for in one message.
const ASKED_AT_ONCE: usize = 128;

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
                    send_rtcp(member, &self.traffic, batch, outlet, |writer| writer.pli(sender, ssrc));
                    add(&self.traffic.keyframe_requests, 1);
                }
                again = [again, layer.keyframe.poll_timeout(now)].into_iter().flatten().min();
            }
            if let Some(again) = again {
                self.wake_at(owner, again);
            }
        }
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
                send_rtcp(member, &self.traffic, batch, outlet, |writer| {
                    writer.sender_report(ssrc, &info, &[]) && writer.sdes_cname(ssrc, CNAME)
                });
            }
        }
    }

    /// Everything that recurs for one participant.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        batch: &mut SendBatch,
        outlet: &mut dyn Outlet,
    ) {
        let Some(member) = self.members.get_mut(key) else { return };
        member.trip(Stage::Tick);
        member.transport.handle_timeout(now);
        self.drive_transport(now, key, batch, outlet);
        let Some(member) = self.members.get_mut(key) else { return };
        let heard = member.transport.last_heard().unwrap_or(member.joined);
        let silence = now.saturating_duration_since(heard);
        if (silence >= SILENT) != member.silent {
            member.silent = silence >= SILENT;
            let (participant, epoch, silent) = (member.id, member.epoch, member.silent);
            let since_ms = silence.as_millis() as u64;
            self.updates.push_back((member.room, Update::Heard { participant, epoch, silent, since_ms }));
        }
        if member.secured {
            self.ask_for_missing(now, key, batch, outlet);
            self.send_feedback(now, key, batch, outlet);
            self.send_reports(now, key, batch, outlet);
        } else if now.saturating_duration_since(member.joined) > 2 * DTLS_DEADLINE
            && member.transport.last_heard().is_none()
        {
            // The handshake's own deadline runs from the first check; nobody ever came here.
            return self.give_up(now, key, Reason::DtlsDeadline);
        }
        self.schedule(now, key);
    }

    fn schedule(&mut self, now: Instant, key: ParticipantKey) {
        let Some(member) = self.members.get_mut(key) else { return };
        let mut wake = member.due.reports;
        if !member.secured {
            wake = now + REPORTS;
        } else if member.media.is_sending(now) {
            wake = wake.min(member.due.feedback);
        }
        for section in &member.media.sections {
            for layer in &self.publications[section.publication].layers {
                let missing = layer.nack.poll_timeout(member.media.round_trip);
                wake = [missing, layer.keyframe.poll_timeout(now)]
                    .into_iter()
                    .flatten()
                    .fold(wake, Instant::min);
            }
        }
        if let Some(at) = member.transport.poll_timeout() {
            wake = wake.min(at);
        }
        // Never at once: what is due now was done now, and a handshake that asks for the past must not spin.
        member.wake = wake.max(now + Duration::from_millis(1));
        self.wheel.schedule(key, member.wake);
    }

    fn ask_for_missing(
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
                    send_rtcp(member, &self.traffic, batch, outlet, |writer| {
                        writer.nack(sender, ssrc, &lost[..count])
                    });
                }
                if layer.keyframe.is_wanted() {
                    self.keyframes.push(publication_key);
                }
            }
            if publication.handle_timeout(now) {
                self.retarget_receivers(publication_key);
            }
        }
    }

    /// Congestion feedback to a publisher.
    fn send_feedback(
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
                    let sent = send_rtcp(member, &self.traffic, batch, outlet, |writer| {
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
                send_rtcp(member, &self.traffic, batch, outlet, |writer| {
                    writer.remb(sender, bitrate, &sources)
                });
            }
        }
    }

    /// Sender reports for what this participant receives, report blocks for what it sends.
    fn send_reports(
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
        let mut infos = Vec::new();
        for index in 0..member.media.slots.len() {
            if is_active(member, index, now) {
                infos.extend(sender_info(member, index, &self.publications, &self.clock, now));
            }
        }
        let sender = member.ssrc;
        send_rtcp(member, &self.traffic, batch, outlet, |writer| {
            let Some(((ssrc, info), rest)) = infos.split_first() else {
                return writer.receiver_report(sender, &blocks) && writer.sdes_cname(sender, CNAME);
            };
            writer.sender_report(*ssrc, info, &blocks)
                && writer.sdes_cname(*ssrc, CNAME)
                && rest.iter().all(|(ssrc, info)| writer.sender_report(*ssrc, info, &[]))
        });
    }

    /// Sends the handshake's datagrams and takes the transport's events.
    pub(super) fn drive_transport(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        batch: &mut SendBatch,
        outlet: &mut dyn Outlet,
    ) {
        loop {
            let Some(member) = self.members.get_mut(key) else { return };
            let out = forward_space(batch, outlet);
            let Some((pair, len)) = member.transport.poll_transmit(out) else { break };
            batch.push(pair, member.tag, false, len);
            self.traffic.sent(1, len as u64);
        }
        while let Some(event) = self.members.get_mut(key).and_then(|member| member.transport.poll_event()) {
            let member = &mut self.members[key];
            match event {
                Event::Secured => {
                    member.secured = true;
                    let (participant, epoch, transport) = (member.id, member.epoch, member.number);
                    self.updates
                        .push_back((member.room, Update::Connected { participant, epoch, transport }));
                    self.wake_at(key, now);
                }
                Event::Failed(reason) => return self.give_up(now, key, reason),
                Event::Closed => return self.give_up(now, key, Reason::DtlsClosed),
            }
        }
        if let Some(at) = self.members.get(key).and_then(|member| member.transport.poll_timeout()) {
            self.wake_at(key, at.max(now));
        }
    }
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
    publications: &slotmap::SlotMap<PublicationKey, Publication>,
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

fn first_source(
    member: &Member,
    publications: &slotmap::SlotMap<PublicationKey, Publication>,
) -> Option<Ssrc> {
    let sections = member.media.sections.iter();
    sections.flat_map(|section| &publications[section.publication].layers).find_map(|layer| layer.ssrc)
}

/// Writes one RTCP datagram to a member. Returns whether it was sent.
fn send_rtcp(
    member: &mut Member,
    traffic: &crate::observe::traffic::Traffic,
    batch: &mut SendBatch,
    outlet: &mut dyn Outlet,
    write: impl FnOnce(&mut Writer<'_>) -> bool,
) -> bool {
    let Some(pair) = member.transport.pair() else { return false };
    let Some(sealer) = member.transport.sealer() else { return false };
    let out = forward_space(batch, outlet);
    match seal_rtcp(sealer, out, write) {
        Some(len) => {
            batch.push(pair, member.tag, false, len);
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

/// An RTCP datagram with its protection stays below the path's assumed limit of 1232 bytes.
const LARGEST_RTCP: usize = 1232 - SRTCP_OVERHEAD;
