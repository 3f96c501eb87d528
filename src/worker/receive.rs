//! Stage 1: whose datagram it is, what it holds, and where that is kept.

use std::time::{Duration, Instant};

use super::{Outlet, Stage, Worker};
use crate::id::AddressPair;
use crate::net::SendBatch;
use crate::observe::reason::Reason;
use crate::room::publication::Publication;
use crate::room::registry::ParticipantKey;
use crate::rtp::header::{self, Header};
use crate::transport::demux::{Protocol, classify};
use crate::transport::stun::Request;

/// Receivers' first reports to a publisher come this soon after its first packet: congestion control and the stop
/// of MID extensions wait for them.
const FIRST_REPORT: Duration = Duration::from_millis(50);

/// Datagrams of handshakes that may wait: what peers in the middle of theirs send in a round trip. More lets a storm of
/// joins delay each of them further, fewer makes peers repeat themselves.
const MOST_HANDSHAKES: usize = 1024;

impl Worker {
    pub(super) fn receive(
        &mut self,
        now: Instant,
        pair: AddressPair,
        datagram: &mut [u8],
        batch: &mut SendBatch,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Reason> {
        let protocol = classify(datagram)?;
        if protocol == Protocol::Stun {
            return self.receive_check(now, pair, datagram, batch, outlet);
        }
        let key = self.demux.by_address(pair.remote).ok_or(Reason::UnknownAddress)?;
        let mut result = Ok(());
        self.guard(key, |worker| {
            worker.members[key].trip(Stage::Receive);
            result = match protocol {
                Protocol::Rtp => worker.receive_rtp(now, key, pair, datagram),
                Protocol::Rtcp => worker.receive_rtcp(now, key, pair, datagram, batch, outlet),
                Protocol::Dtls | Protocol::Stun if worker.postpones_handshakes() => {
                    worker.postpone_handshake(key, pair, datagram)
                }
                Protocol::Dtls | Protocol::Stun => {
                    let result = worker.members[key].transport.handle_dtls(now, pair, datagram);
                    worker.drive_transport(now, key, batch, outlet);
                    result
                }
            };
        });
        result
    }

    /// One handshake's datagram in a turn is taken at once; others wait, so that media does not.
    fn postpones_handshakes(&mut self) -> bool {
        std::mem::replace(&mut self.handshook, true) || !self.handshakes.is_empty()
    }

    fn postpone_handshake(
        &mut self,
        key: ParticipantKey,
        pair: AddressPair,
        datagram: &[u8],
    ) -> Result<(), Reason> {
        if self.handshakes.len() >= MOST_HANDSHAKES {
            return Err(Reason::Overloaded);
        }
        self.handshakes.push_back((key, pair, datagram.to_vec()));
        Ok(())
    }

    /// Takes the handshake's datagram that has waited longest. Returns whether there was one.
    pub(super) fn shake_next_hand(
        &mut self,
        now: Instant,
        batch: &mut SendBatch,
        outlet: &mut dyn Outlet,
    ) -> bool {
        let Some((key, pair, datagram)) = self.handshakes.pop_front() else { return false };
        self.guard(key, |worker| {
            let Some(member) = worker.members.get_mut(key) else { return };
            let result = member.transport.handle_dtls(now, pair, &datagram);
            worker.drive_transport(now, key, batch, outlet);
            if let Err(reason) = result {
                worker.drop_for(reason);
            }
        });
        true
    }

    fn receive_check(
        &mut self,
        now: Instant,
        pair: AddressPair,
        datagram: &[u8],
        batch: &mut SendBatch,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Reason> {
        let key =
            self.demux.by_ufrag(Request::parse(datagram)?.server_ufrag()).ok_or(Reason::StunUnknownUser)?;
        let mut result = Ok(());
        self.guard(key, |worker| {
            let space = forward_space(batch, outlet);
            let member = &mut worker.members[key];
            match member.transport.handle_check(now, pair, datagram, space) {
                Err(reason) => result = Err(reason),
                Ok(answer) => {
                    batch.push(pair, member.tag, false, answer.len);
                    worker.traffic.sent(1, answer.len as u64);
                    match answer.refused {
                        Some(reason) => result = Err(reason),
                        None => {
                            member.progress.checked(now, &worker.traffic.joins);
                            if let Some(present) = member.transport.pair() {
                                worker.demux.keep(present.remote, key);
                            }
                            worker.demux.point(pair.remote, key);
                        }
                    }
                    worker.drive_transport(now, key, batch, outlet);
                }
            }
        });
        result
    }

    fn receive_rtp(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        pair: AddressPair,
        datagram: &mut [u8],
    ) -> Result<(), Reason> {
        let member = &mut self.members[key];
        let mut header = Header::parse(datagram)?;
        let len = member.transport.open_rtp(now, pair, datagram, header.len, header.ssrc, header.sequence)?;
        let mut payload = &datagram[header.len..header.len + len];
        payload = &payload[..len - header::padding_len(&header, payload)?];
        let media = &mut member.media;
        media.last_media = Some(now);
        let extensions = media.extensions.read(&header, datagram);
        if let Some(number) = extensions.transport_cc {
            media.twcc.record(number, self.clock.since(now));
        }
        let stream = media.latch(&header, &extensions)?;
        let section = &media.sections[usize::from(stream.section)];
        let publication = self.publications.get_mut(section.publication).ok_or(Reason::NotPublished)?;
        let layer = usize::from(stream.layer);
        if stream.rtx {
            // RFC 4588 §4: the original sequence number comes first. Without one it is a probe.
            let (osn, rest) = payload.split_first_chunk::<2>().ok_or(Reason::Padding)?;
            header.sequence = u16::from_be_bytes(*osn);
            payload = rest;
            if publication.layers[layer].ssrc.is_none() {
                return Err(Reason::UnknownStream);
            }
        } else {
            let layer = &mut publication.layers[layer];
            if layer.ssrc.is_none() {
                layer.ssrc = Some(header.ssrc);
            }
            if layer.last_packet.is_none() {
                let soon = now + FIRST_REPORT;
                member.due.reports = member.due.reports.min(soon);
            }
            layer.reception.handle_packet(now, header.sequence, header.timestamp);
        }
        let (nack, round_trip, publication_key) =
            (section.section.nack, media.round_trip, section.publication);
        let was_empty = publication.fresh.is_empty();
        publication.handle_packet(stream.layer, &header, &extensions, payload, nack, now)?;
        if was_empty {
            self.fresh.push(publication_key);
        }
        let listens = publication.voice.listed || extensions.audio_level.is_none();
        let due = next_duty(publication, stream.layer, round_trip).unwrap_or(member.due.reports);
        let due = due.min(member.due.reports).min(member.due.feedback);
        let room = member.room;
        self.wake_at(key, due.max(now));
        if !listens {
            self.listen(now, room, publication_key);
        }
        Ok(())
    }
}

/// When a missing packet of the layer is next to be asked for.
fn next_duty(publication: &Publication, layer: u8, round_trip: Duration) -> Option<Instant> {
    publication.layers[usize::from(layer)].nack.poll_timeout(round_trip)
}

/// The largest datagram that is sent, whatever a publisher sends: what fits IPv6's smallest MTU (1280 bytes with its
/// headers), and so every path. Browsers' packets stay below with all that is added to them.
pub(super) const LARGEST_DATAGRAM: usize = 1232;

/// Room for one datagram, made by sending what is there if need be.
pub(super) fn forward_space<'a>(batch: &'a mut SendBatch, outlet: &mut dyn Outlet) -> &'a mut [u8] {
    if batch.space().is_none() {
        outlet.flush(batch);
    }
    batch.space().and_then(|space| space.get_mut(..LARGEST_DATAGRAM)).unwrap_or_default()
}
