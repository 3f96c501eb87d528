//! What publishers are told of the layers that anybody watches, and what viewers complain of.

use std::time::{Duration, Instant};

use motet::control::{Command, Update};

use crate::support::media::{Kind, Stream};
use crate::support::raw::{SIMULCAST, Shape};
use crate::support::{Sim, ms, s};

const VIEWER: Shape = Shape {
    publishes: false,
    rids: &[],
    audio_slots: 1,
    video_slots: 1,
    passive: false,
    firefox: false,
    names_sources: true,
};

/// A publisher of three layers and so many viewers.
fn call(seed: u64, viewers: usize) -> Sim {
    let mut sim = Sim::new(seed);
    sim.acknowledges = Some(ms(20));
    sim.raw_caller(1, &SIMULCAST);
    (0..viewers).for_each(|_| {
        sim.raw_caller(1, &VIEWER);
    });
    sim.connect();
    sim.start_media();
    sim
}

/// What the publisher was told, in order.
fn told(sim: &Sim) -> Vec<Vec<u8>> {
    let picture = sim.server.members[0].publications.last().expect("a picture").publication;
    let of = |(_, update): &(Instant, Update)| match update {
        Update::Layers { layers, .. } => Some(layers[&picture].clone()),
        _ => None,
    };
    sim.server.updates.iter().filter_map(of).collect()
}

/// Lets time pass in which the publisher does as it is told, a moment later. A layer that comes back goes on as if nothing
/// had been: with no keyframe but one that is asked for.
fn obey(sim: &mut Sim, duration: Duration) {
    let end = sim.now + duration;
    while sim.now < end {
        sim.run_for(ms(25));
        let Some(layers) = told(sim).pop() else { continue };
        let now = sim.now;
        for source in sim.media(0).sources.iter_mut().filter(|source| source.kind == Kind::Video) {
            let active = layers.contains(&source.layer);
            if active && !source.active {
                source.next = now;
            }
            source.active = active;
        }
    }
}

fn picture(sim: &mut Sim, client: usize) -> Stream {
    let streams = sim.media(client).streams();
    streams.into_iter().find(|stream| stream.kind == Kind::Video).expect("a picture")
}

fn layer_now(sim: &mut Sim, client: usize) -> u8 {
    picture(sim, client).runs().last().expect("something came").layer
}

fn longest_gap(stream: &Stream, since: Instant) -> Duration {
    let gaps = stream.packets.windows(2).filter(|pair| pair[1].at > since);
    gaps.map(|pair| pair[1].at - pair[0].at).max().expect("it went on")
}

#[test]
fn a_layer_that_nobody_watches_is_given_up_and_comes_back_at_once() {
    for seed in 0..4 {
        let mut sim = call(seed, 2);
        sim.want(1, 180);
        sim.want(2, 180);
        obey(&mut sim, s(4));
        assert!(told(&sim).is_empty(), "not for a moment");
        obey(&mut sim, s(3));
        assert_eq!(told(&sim).last(), Some(&vec![2]));
        let before = told(&sim).len();
        let since = sim.now;
        sim.want(1, 720);
        sim.run_for(ms(1));
        assert_eq!(told(&sim)[before..], [[0, 2]], "at once");
        obey(&mut sim, ms(600));
        assert_eq!(layer_now(&mut sim, 1), 0);
        assert_eq!(layer_now(&mut sim, 2), 2);
        let gap = longest_gap(&picture(&mut sim, 1), since);
        assert!(gap < ms(60), "the small one is shown meanwhile: {gap:?}");
        obey(&mut sim, s(6));
        assert_eq!(told(&sim).len(), before + 1, "{:?}", told(&sim));
        sim.drain();
        sim.check();
        picture(&mut sim, 1).assert_complete();
        picture(&mut sim, 2).assert_complete();
    }
}

#[test]
fn a_picture_that_nobody_watches_is_not_made_and_appears_for_the_next_viewer() {
    let mut sim = call(5, 1);
    sim.run_for(s(1));
    sim.want(1, 0);
    obey(&mut sim, s(6));
    assert_eq!(told(&sim).last().map(Vec::len), Some(0));
    assert!(sim.media(0).sources.iter().all(|source| source.kind == Kind::Audio || !source.active));
    let since = sim.now;
    sim.want(1, 360);
    obey(&mut sim, s(1));
    assert_eq!(told(&sim).last(), Some(&vec![1]));
    let stream = picture(&mut sim, 1);
    let first = stream.packets.iter().find(|packet| packet.at > since).expect("it is back");
    assert!(first.at - since < ms(200), "{:?}", first.at - since);
    // And for who comes when nobody is left.
    let now = sim.now;
    sim.server.command(now, 1, |participant, epoch| Command::Leave {
        participant,
        epoch,
        reason: motet::observe::reason::Reason::Bye,
    });
    obey(&mut sim, s(6));
    assert_eq!(told(&sim).last().map(Vec::len), Some(0));
    let newcomer = sim.raw_caller(1, &VIEWER);
    obey(&mut sim, s(1));
    assert_eq!(layer_now(&mut sim, newcomer), 1);
    sim.drain();
    sim.check();
}

#[test]
fn a_publisher_that_is_alone_rests() {
    let mut sim = call(6, 0);
    obey(&mut sim, s(6));
    assert_eq!(told(&sim), [Vec::<u8>::new()]);
}

fn stall(sim: &mut Sim, client: usize) -> usize {
    let mid = sim.media(client).slots.iter().find(|slot| slot.kind == Kind::Video).expect("one").mid.clone();
    let slot = mid.parse().expect("a mid");
    let before = sim.server.updates.len();
    let now = sim.now;
    sim.server.command(now, client, |participant, epoch| Command::Stall { participant, epoch, slot });
    sim.run_for(ms(1));
    let restated = sim.server.updates[before..].iter();
    restated.filter(|(_, update)| matches!(update, Update::Have { .. })).count()
}

#[test]
fn who_sees_nothing_new_is_told_again_and_gets_a_keyframe_once_a_second() {
    let mut sim = call(7, 1);
    sim.want(1, 180);
    sim.run_for(s(3));
    let ssrc = sim.media(0).source("1", 2).ssrc;
    let before = sim.media(0).plis(ssrc);
    assert_eq!(stall(&mut sim, 1), 1);
    assert_eq!(stall(&mut sim, 1), 0, "too soon");
    sim.run_for(ms(600));
    assert_eq!(sim.media(0).plis(ssrc) - before, 1);
    sim.run_for(ms(600));
    assert_eq!(stall(&mut sim, 1), 1);
    sim.run_for(ms(100));
    assert_eq!(sim.media(0).plis(ssrc) - before, 2);
    sim.drain();
    sim.check();
    picture(&mut sim, 1).assert_complete();
}

#[test]
fn who_complains_of_a_silent_layer_gets_another() {
    let mut sim = call(8, 1);
    sim.want(1, 720);
    sim.run_for(s(3));
    assert_eq!(layer_now(&mut sim, 1), 0);
    sim.media(0).source("1", 0).active = false;
    sim.run_for(ms(600));
    assert_eq!(layer_now(&mut sim, 1), 0);
    stall(&mut sim, 1);
    sim.run_for(ms(100));
    assert_eq!(layer_now(&mut sim, 1), 1);
    sim.drain();
    sim.check();
}
