//! What one participant can make the server spend is bounded.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use motet::observe::reason::Reason;
use rtp::header::Header;
use shared::marshal::Marshal as _;

use crate::support::media::Kind;
use crate::support::raw::{IDS, Shape};
use crate::support::{Sim, ms, s};

const WATCHER: Shape = Shape {
    publishes: false,
    rids: &[],
    audio_slots: 3,
    video_slots: 3,
    passive: false,
    firefox: false,
    names_sources: true,
};

fn call(seed: u64) -> Sim {
    let mut sim = Sim::new(seed);
    sim.raw_caller(1, &Shape::default());
    sim.raw_caller(1, &WATCHER);
    sim.connect();
    sim.start_media();
    sim.run_for(s(1));
    sim
}

#[test]
fn a_thousand_sources_are_not_remembered() {
    let mut sim = call(1);
    for ssrc in 0..1000u32 {
        let mut header = Header {
            version: 2,
            payload_type: 111,
            sequence_number: 1000,
            ssrc: 5_000_000 + ssrc,
            ..Header::default()
        };
        header.set_extension(IDS.mid, Bytes::from_static(b"0")).expect("fits");
        let packet = rtp::packet::Packet { header, payload: Bytes::from_static(&[0xf8, 1, 2]) };
        let plain = packet.marshal().expect("marshals");
        sim.raw(0).send_rtp(&plain);
    }
    sim.run_for(ms(100));
    let refused = sim.server.dropped(Reason::SrtpTooManySources) + sim.server.dropped(Reason::StreamConflict);
    assert_eq!(refused, 1000);
    assert!(sim.server.dropped(Reason::SrtpTooManySources) > 800, "the cipher's state is bounded, too");
    sim.run_for(s(1));
    sim.drain();
    sim.check();
    sim.media(1).streams().iter().for_each(|stream| stream.assert_complete());
}

#[test]
fn requests_for_repetition_cost_a_quarter_of_the_media_at_most() {
    let mut sim = call(2);
    let slot = sim.media(1).slots.iter().find(|slot| slot.kind == Kind::Video).expect("one").clone();
    let traffic = sim.server.worker.traffic();
    let bytes = |sim: &mut Sim, rtx: bool| -> usize {
        let ssrc = if rtx { slot.rtx.expect("video") } else { slot.ssrc };
        let of_source = |bytes: &&Vec<u8>| bytes[8..12] == ssrc.to_be_bytes();
        sim.raw(1).datagrams.iter().map(|(.., bytes)| bytes).filter(of_source).map(Vec::len).sum()
    };
    let before = (bytes(&mut sim, false), bytes(&mut sim, true));
    for _ in 0..100 {
        let last = sim.media(1).received[&slot.ssrc].last().expect("media").header.sequence_number;
        let numbers: Vec<u16> = (0..100).map(|back| last.wrapping_sub(back)).collect();
        sim.raw(1).ask_for(slot.ssrc, &numbers);
        sim.run_for(ms(50));
    }
    let media = bytes(&mut sim, false) - before.0;
    let repeats = bytes(&mut sim, true) - before.1;
    assert!(repeats > media / 8, "{repeats} for {media}");
    // The sound earns a little, too; 64 KiB may be spent in advance.
    assert!(repeats < (media + media / 10) / 4 + 72 * 1024, "{repeats} for {media}");
    assert!(sim.server.dropped(Reason::RetransmitBudget) > 0);
    assert!(traffic.retransmitted.load(Ordering::Relaxed) > 0);
    sim.drain();
    sim.check();
}

#[test]
fn requests_for_keyframes_reach_the_publisher_twice_a_second_at_most() {
    let mut sim = call(3);
    let slot = sim.media(1).slots.iter().find(|slot| slot.kind == Kind::Video).expect("one").ssrc;
    let ssrc = sim.media(0).source("1", 0).ssrc;
    let before = sim.media(0).plis(ssrc);
    for _ in 0..300 {
        sim.raw(1).ask_for_keyframe(slot);
        sim.run_for(ms(10));
    }
    let asked = sim.media(0).plis(ssrc) - before;
    assert!((4..=7).contains(&asked), "{asked} in 3 s");
    sim.drain();
    sim.check();
}

#[test]
fn checks_from_hundreds_of_addresses_do_not_push_the_present_one_out() {
    let mut sim = call(4);
    let own = sim.raw(0).address;
    for port in 1..500 {
        let from = SocketAddr::from(([192, 0, 2, 99], port));
        sim.raw(0).send_check(from, false);
        sim.run_for(ms(3));
    }
    sim.run_for(s(1));
    sim.drain();
    sim.check();
    assert_eq!(sim.raw(0).address, own);
    sim.media(1).streams().iter().for_each(|stream| {
        stream.assert_complete();
        assert!(sim.now - stream.packets.last().expect("media").at < s(1));
    });
}

#[test]
fn more_people_than_slots_leave_the_rest_out() {
    let mut sim = Sim::new(5);
    let watcher = sim.raw_caller(1, &WATCHER);
    for _ in 0..6 {
        sim.raw_caller(1, &Shape::default());
    }
    sim.connect();
    sim.start_media();
    sim.run_for(s(1));
    sim.drain();
    sim.check();
    let streams = sim.media(watcher).streams();
    assert_eq!(streams.len(), 6);
    streams.iter().for_each(|stream| {
        assert_eq!(stream.publishers().len(), 1, "nobody takes turns");
        stream.assert_complete();
    });
}

#[test]
fn rooms_are_apart() {
    let mut sim = Sim::new(6);
    for room in [1, 2, 1, 2] {
        sim.raw_caller(room, &Shape::default());
    }
    sim.connect();
    sim.start_media();
    sim.run_for(s(1));
    sim.drain();
    sim.check();
    for (client, other) in [(0, 2), (1, 3), (2, 0), (3, 1)] {
        let streams = sim.media(client).streams();
        assert_eq!(streams.len(), 2);
        assert!(streams.iter().all(|stream| stream.publishers() == [other]));
    }
}

#[test]
fn the_largest_packets_of_browsers_fit_every_path() {
    let mut sim = call(7);
    // 1200 bytes with the header, as browsers cut them.
    sim.media(0).source("1", 0).payload_len = 1200 - 12 - 8 - 6;
    sim.media(0).source("1", 0).keyframe_wanted = true;
    sim.network.set_down(1, crate::support::network::Link::losing(0.05));
    sim.run_for(s(2));
    sim.network.set_down(1, crate::support::network::Link::default());
    sim.run_for(ms(500));
    sim.drain();
    sim.check();
    sim.media(1).streams().iter().for_each(|stream| stream.assert_complete());
    let longest = sim.raw(1).datagrams.iter().map(|(.., bytes)| bytes.len()).max().expect("some");
    assert!(longest > 1200, "{longest}");
}

#[test]
fn packets_that_are_too_large_for_some_paths_go_no_further() {
    let mut sim = call(8);
    sim.media(0).source("1", 0).payload_len = 1350;
    sim.media(0).source("1", 0).keyframe_wanted = true;
    sim.run_for(s(1));
    assert!(sim.server.dropped(Reason::SealNoRoom) > 0);
    sim.drain();
    let sound = sim.media(1).streams().remove(0);
    sound.assert_complete();
}
