//! Networks that lose, repeat and reorder: everything arrives in the end, and nothing twice under one number.

use motet::observe::reason::Reason;

use crate::support::media::{Kind, Report};
use crate::support::network::Link;
use crate::support::raw::Shape;
use crate::support::{Sim, ms, s};

const SEEDS: std::ops::Range<u64> = 0..4;

/// An independent peer connection and a raw client, connected, with media flowing and named.
fn call(seed: u64) -> Sim {
    let mut sim = Sim::new(seed);
    sim.caller(1);
    sim.raw_caller(1, &Shape::default());
    sim.connect();
    sim.start_media();
    sim.run_for(ms(700));
    sim
}

/// The network gets well again, and everybody stops a little later, so that the last losses are noticed.
fn recover(sim: &mut Sim) {
    for client in 0..sim.clients.len() {
        sim.links(client, Link::default(), Link::default());
    }
    sim.run_for(ms(600));
    sim.drain();
    sim.check();
}

fn assert_everything_came(sim: &mut Sim, seed: u64) {
    for client in 0..sim.clients.len() {
        let streams = sim.media(client).streams();
        assert_eq!(streams.len(), 2, "seed {seed}");
        for stream in streams {
            let runs = stream.runs();
            assert_eq!(runs.len(), 1, "seed {seed}: {runs:?}");
            stream.assert_complete();
        }
    }
}

#[test]
fn what_is_lost_on_the_way_to_the_server_is_asked_for_and_comes() {
    for seed in SEEDS {
        let mut sim = call(seed);
        for client in 0..2 {
            sim.network.set_up(client, Link::losing(0.05));
        }
        sim.run_for(s(4));
        assert!(sim.network.lost > 20, "seed {seed}: {}", sim.network.lost);
        recover(&mut sim);
        for client in 0..2 {
            let lost = sim.media(client).nacked();
            assert!(lost > 5, "seed {seed}: {lost} requests");
        }
        assert_everything_came(&mut sim, seed);
    }
}

#[test]
fn what_is_lost_on_the_way_to_a_receiver_is_repeated() {
    for seed in SEEDS {
        let mut sim = call(seed);
        for client in 0..2 {
            sim.network.set_down(client, Link::losing(0.05));
        }
        sim.run_for(s(4));
        recover(&mut sim);
        assert_everything_came(&mut sim, seed);
        let media = sim.media(1);
        let repeats: Vec<_> = media.received.values().flatten().filter_map(|arrival| arrival.rtx).collect();
        assert!(repeats.len() > 5, "seed {seed}: {}", repeats.len());
        let mut unique = repeats.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), repeats.len(), "each retransmission has a number of its own");
    }
}

#[test]
fn copies_and_detours_do_no_harm() {
    for seed in SEEDS {
        let mut sim = call(seed);
        let before: usize = (0..2).map(|client| keyframe_requests(&mut sim, client)).sum();
        let rough = Link { duplicate: 0.1, reorder: 0.1, jitter: ms(4), ..Link::default() };
        for client in 0..2 {
            sim.links(client, rough, rough);
        }
        sim.run_for(s(4));
        assert!(sim.network.duplicated > 100);
        recover(&mut sim);
        assert_everything_came(&mut sim, seed);
        let after: usize = (0..2).map(|client| keyframe_requests(&mut sim, client)).sum();
        assert_eq!(before, after, "seed {seed}: reordering is no reason for a keyframe");
        assert!(sim.server.dropped(Reason::SrtpReplayed) > 50, "copies are refused before anything else");
    }
}

#[test]
fn a_bad_network_in_both_directions_loses_nothing_in_the_end() {
    for seed in SEEDS {
        let mut sim = call(seed);
        let bad = Link { loss: 0.05, duplicate: 0.02, reorder: 0.05, jitter: ms(5), delay: ms(25) };
        for client in 0..2 {
            sim.links(client, bad, bad);
        }
        sim.run_for(s(4));
        recover(&mut sim);
        assert_everything_came(&mut sim, seed);
    }
}

#[test]
fn sound_that_is_asked_for_again_is_the_identical_datagram() {
    let mut sim = call(7);
    sim.drain();
    let slot = sim.media(1).slots[0].clone();
    assert_eq!((slot.kind, slot.rtx), (Kind::Audio, None));
    let sound = |sim: &mut Sim| -> Vec<Vec<u8>> {
        let datagrams = &sim.raw(1).datagrams;
        let of_slot = |bytes: &&Vec<u8>| bytes[1] & 0x7f == 111 && bytes[8..12] == slot.ssrc.to_be_bytes();
        datagrams.iter().map(|(.., bytes)| bytes).filter(of_slot).cloned().collect()
    };
    let before = sound(&mut sim);
    let asked = &before[before.len() - 10..];
    let numbers: Vec<u16> = asked.iter().map(|bytes| u16::from_be_bytes([bytes[2], bytes[3]])).collect();
    sim.raw(1).ask_for(slot.ssrc, &numbers);
    sim.run_for(ms(200));
    assert_eq!(sound(&mut sim)[before.len()..], *asked);
    // Too old to be kept, and never sent.
    let first = &before[0];
    sim.raw(1).ask_for(slot.ssrc, &[u16::from_be_bytes([first[2], first[3]]).wrapping_sub(5)]);
    sim.run_for(ms(200));
    assert_eq!(sound(&mut sim).len(), before.len() + asked.len());
    assert!(sim.server.dropped(Reason::NotInHistory) > 0);
}

#[test]
fn a_packet_asked_for_twice_in_one_round_trip_is_repeated_once() {
    let mut sim = call(8);
    sim.drain();
    let slot = sim.media(1).slots.iter().find(|slot| slot.kind == Kind::Video).expect("one").clone();
    let last = sim.media(1).received[&slot.ssrc].last().expect("some").header.sequence_number;
    for _ in 0..5 {
        sim.raw(1).ask_for(slot.ssrc, &[last]);
    }
    sim.run_for(ms(100));
    let repeats = sim.media(1).received[&slot.ssrc].iter().filter(|arrival| arrival.rtx.is_some()).count();
    assert!(repeats <= 1, "{repeats}");
}

#[test]
fn padding_is_consumed_and_the_numbering_closes() {
    let mut sim = Sim::new(9);
    sim.raw_caller(1, &Shape::default());
    sim.raw_caller(1, &Shape { publishes: false, ..Shape::default() });
    sim.media(0).source("1", 0).padding_every = Some(3);
    sim.connect();
    sim.start_media();
    sim.run_for(s(3));
    sim.drain();
    sim.check();
    let streams = sim.media(1).streams();
    let video = streams.iter().find(|stream| stream.kind == Kind::Video).expect("a picture");
    assert_eq!(video.missing(), 0);
    assert!(video.packets.iter().all(|packet| packet.seen.is_some()), "no padding where nothing was late");
    video.assert_complete();
    assert!(sim.server.dropped(Reason::Padding) == 0 || video.packets.len() > 200);
}

#[test]
fn padding_that_was_late_fills_its_place() {
    for seed in SEEDS {
        let mut sim = Sim::new(seed);
        sim.raw_caller(1, &Shape::default());
        sim.raw_caller(1, &Shape { publishes: false, ..Shape::default() });
        sim.media(0).source("1", 0).padding_every = Some(2);
        sim.connect();
        sim.start_media();
        sim.run_for(ms(600));
        sim.network.set_up(0, Link { loss: 0.05, reorder: 0.2, ..Link::default() });
        sim.run_for(s(3));
        recover(&mut sim);
        let streams = sim.media(1).streams();
        let video = streams.iter().find(|stream| stream.kind == Kind::Video).expect("a picture");
        assert_eq!(video.missing(), 0, "seed {seed}: padding leaves no hole");
        assert!(
            video.packets.iter().any(|packet| packet.seen.is_none()),
            "seed {seed}: some place was filled"
        );
        video.assert_complete();
    }
}

fn keyframe_requests(sim: &mut Sim, client: usize) -> usize {
    sim.media(client).reports.iter().filter(|(_, report)| matches!(report, Report::Pli(_))).count()
}
