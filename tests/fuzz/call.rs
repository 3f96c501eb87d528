//! A whole call: two connected participants, one of whom sends whatever the input says, authenticated or not, while
//! time passes and the room changes. Nothing panics, nothing is sealed twice, and whatever the server sends opens.
//!
//! The input is a list of steps: one byte says which, one byte how long its operand is, then the operand.

use std::net::SocketAddr;

use bytes::Bytes;
use motet::control::Command;
use motet::observe::reason::Reason;
use motet::room::{Want, WantAudio, WantVideo, Wish};
use rtp::header::Header;
use shared::marshal::Marshal as _;

use crate::support::raw::{IDS, SIMULCAST, Shape};
use crate::support::{Sim, ms};

/// Steps of one input; more would only make it slow.
const MOST_STEPS: usize = 64;

pub fn fuzz_call(data: &[u8]) {
    let mut sim = Sim::new(1);
    sim.raw_caller(1, &SIMULCAST);
    sim.raw_caller(1, &Shape { video_slots: 1, audio_slots: 1, ..Shape::default() });
    sim.connect();
    sim.raw(0).numbers_packets = true;
    sim.start_media();
    sim.run_for(ms(60));
    let mut rest = data;
    for _ in 0..MOST_STEPS {
        let [step, len, after @ ..] = rest else { break };
        let (operand, after) = after.split_at(usize::from(*len).min(after.len()));
        take(&mut sim, *step, operand);
        rest = after;
    }
    sim.run_for(ms(100));
    assert_eq!(sim.server.dropped(Reason::Panicked), 0);
    assert_eq!(sim.server.dropped(Reason::SealTwice), 0);
    assert_eq!(sim.server.closed(1), None, "the other one is not removed");
}

fn take(sim: &mut Sim, step: u8, operand: &[u8]) {
    let address = sim.raw(0).address;
    match step & 15 {
        0 => sim.raw(0).send_rtp(operand),
        1 | 2 => own_packet(sim, step & 15 == 2, operand),
        3 | 4 => {
            // A packet of some kind whose length is right, from either of the two.
            let [kind, count, body @ ..] = operand else { return };
            let body = &body[..body.len() / 4 * 4];
            let mut plain = vec![0x80 | count & 0x3f, 200 + kind % 8];
            plain.extend((body.len() as u16 / 4).to_be_bytes());
            plain.extend(body);
            if plain.len() >= 8 {
                sim.raw(usize::from(step & 1)).send_rtcp(&plain);
            }
        }
        5 if operand.len() >= 8 => sim.raw(0).send_rtcp(operand),
        6 => drop(sim.inject(address, operand)),
        7 => {
            let from = SocketAddr::from(([203, 0, 113, 1], 1));
            assert!(sim.inject(from, operand).is_empty(), "a stranger was answered");
        }
        8 => {
            // What a receiver asks for.
            let [slot, numbers @ ..] = operand else { return };
            let slots = &sim.raw(1).media.slots;
            let ssrc = slots[usize::from(*slot) % slots.len()].ssrc;
            let last = sim.raw(1).media.received.get(&ssrc).and_then(|arrivals| arrivals.last());
            let last = last.map_or(0, |arrival| arrival.header.sequence_number);
            let numbers: Vec<u16> = numbers.iter().map(|back| last.wrapping_sub(u16::from(*back))).collect();
            if numbers.is_empty() {
                sim.raw(1).ask_for_keyframe(ssrc);
            } else {
                sim.raw(1).ask_for(ssrc, &numbers);
            }
        }
        9 => sim.run_for(ms(operand.iter().map(|byte| u64::from(*byte)).sum::<u64>().min(1500))),
        10 => command(sim, operand),
        11 => {
            let [port, nominates, ..] = operand else { return };
            let from = SocketAddr::from(([192, 0, 2, 1], 40_000 + u16::from(*port % 16)));
            sim.raw(0).send_check(from, nominates & 1 == 1);
            if nominates & 2 == 2 {
                sim.raw(0).address = from;
            }
        }
        12 => {
            let [source, ..] = operand else { return };
            let sources = &mut sim.raw(0).media.sources;
            let index = usize::from(*source) % sources.len();
            sources[index].active ^= true;
            let now = sim.now;
            sim.media(0).sources[index].next = now;
        }
        _ => {}
    }
    sim.run_for(ms(2));
}

/// A packet of one of the liar's own sources: which, how far its number moves, flags, payload.
fn own_packet(sim: &mut Sim, rtx: bool, operand: &[u8]) {
    let [which, moves, flags, payload @ ..] = operand else { return };
    let sources = &mut sim.raw(0).media.sources;
    let index = usize::from(*which) % sources.len();
    let source = &mut sources[index];
    let step = i16::from(moves.cast_signed()) * if flags & 4 == 4 { 200 } else { 1 };
    let sequence = source.sequence.wrapping_add_signed(step);
    let mut header = Header {
        version: 2,
        padding: flags & 1 == 1,
        marker: flags & 2 == 2,
        payload_type: source.payload_type,
        sequence_number: sequence,
        timestamp: source.timestamp.wrapping_add(u32::from(*moves) << (flags >> 3)),
        ssrc: source.ssrc,
        ..Header::default()
    };
    if let (true, Some(ssrc), Some(payload_type)) = (rtx, source.rtx_ssrc, source.rtx_payload_type) {
        (header.ssrc, header.payload_type) = (ssrc, payload_type);
        let rid = source.rid.unwrap_or("f");
        header.set_extension(IDS.mid, Bytes::copy_from_slice(source.mid.as_bytes())).expect("fits");
        header.set_extension(IDS.repaired_rid, Bytes::from_static(rid.as_bytes())).expect("fits");
    }
    let packet = rtp::packet::Packet { header, payload: Bytes::copy_from_slice(payload) };
    let plain = packet.marshal().expect("marshals");
    sim.raw(0).send_rtp(&plain);
}

fn command(sim: &mut Sim, operand: &[u8]) {
    let [what, value, ..] = *operand else { return };
    let now = sim.now;
    let publish = sim.server.members[0].publications[usize::from(value >> 7)];
    let publication = publish.publication;
    let slots = &sim.raw(1).media.slots;
    let slot = slots[usize::from(value) % slots.len()].mid.parse().expect("a mid");
    sim.server.command(now, usize::from(what >> 7), |participant, epoch| match what & 31 {
        8 => Command::Seen { participant, epoch, version: u64::from(value) },
        9 => Command::Stall { participant, epoch, slot },
        10 | 11 => {
            let audio = if what & 1 == 0 { WantAudio::Only(vec![publication]) } else { WantAudio::Loudest };
            let video = Some(WantVideo { last: u16::from(value) });
            Command::Want { participant, epoch, want: Want { n: 2, audio, video, ..Want::default() } }
        }
        what => match what & 7 {
            0 | 1 => Command::Mute { participant, epoch, publication, muted: what & 1 == 1 },
            2 => Command::Unpublish { participant, epoch, publication },
            3 => Command::Publish { participant, epoch, publish },
            4 | 5 => Command::Away { participant, epoch, away: what & 1 == 1 },
            _ => {
                let default = Wish { height: u16::from(value) * 8, priority: value };
                Command::Want { participant, epoch, want: Want { n: 1, default, ..Want::default() } }
            }
        },
    });
}
