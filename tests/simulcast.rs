//! Several encodings of one picture: which is forwarded to whom, and how a slot passes from one to another.

use motet::control::Command;
use motet::id::PublicationId;
use motet::observe::reason::Reason;
use motet::room::{Want, Why, Wish};

use crate::support::media::{Kind, Run, Stream};
use crate::support::network::Link;
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

/// A publisher of three layers and a viewer, with media flowing.
fn call(seed: u64) -> Sim {
    let mut sim = Sim::new(seed);
    sim.raw_caller(1, &SIMULCAST);
    sim.raw_caller(1, &VIEWER);
    sim.connect();
    sim.start_media();
    sim
}

fn picture(sim: &mut Sim, client: usize) -> Stream {
    let streams = sim.media(client).streams();
    streams.into_iter().find(|stream| stream.kind == Kind::Video).expect("a picture")
}

fn layers(runs: &[Run]) -> Vec<u8> {
    runs.iter().map(|run| run.layer).collect()
}

/// Which layer comes now.
fn layer_now(sim: &mut Sim, client: usize) -> u8 {
    picture(sim, client).runs().last().expect("something came").layer
}

#[test]
fn the_smallest_layer_that_fills_the_wish_is_forwarded() {
    let mut sim = call(1);
    for (height, layer) in [(180, 2), (181, 1), (720, 0), (2000, 0), (90, 2), (360, 1)] {
        sim.want(1, height);
        let took = sim.run_until(s(2), "the layer is there", |sim| {
            !sim.media(1).streams().is_empty()
                && sim.media(1).streams().iter().any(|stream| stream.kind == Kind::Video)
                && layer_now(sim, 1) == layer
        });
        assert!(took < ms(800), "{took:?} to layer {layer}");
        sim.run_for(ms(700));
        let have = sim.server.have(1);
        assert_eq!(have.slots.iter().filter_map(|slot| slot.layer).next_back(), Some(layer));
    }
    sim.drain();
    sim.check();
    let stream = picture(&mut sim, 1);
    stream.assert_complete();
    let runs = stream.runs();
    assert!(layers(&runs).ends_with(&[2, 1, 0, 2, 1]), "{:?}", layers(&runs));
}

#[test]
fn each_viewer_gets_the_layer_of_its_own() {
    let mut sim = call(2);
    sim.raw_caller(1, &VIEWER);
    sim.raw_caller(1, &VIEWER);
    sim.connect();
    for (client, height) in [(1, 720), (2, 360), (3, 180)] {
        sim.want(client, height);
    }
    sim.run_for(s(3));
    sim.drain();
    sim.check();
    for (client, layer) in [(1, 0), (2, 1), (3, 2)] {
        assert_eq!(layer_now(&mut sim, client), layer);
        picture(&mut sim, client).assert_complete();
    }
    // However many watch: no more than two requests a second for each layer.
    for layer in 0..3 {
        let ssrc = sim.media(0).source("1", layer).ssrc;
        assert!(sim.media(0).plis(ssrc) <= 4, "{} for layer {layer}", sim.media(0).plis(ssrc));
    }
}

#[test]
fn sources_stay_known_when_their_names_vanish_and_over_unpublishing() {
    let mut sim = call(3);
    sim.want(1, 720);
    sim.run_for(s(1));
    assert!(sim.media(0).sources.iter().all(|source| !source.naming), "every source was acknowledged");
    sim.media(0).stop();
    let publish = sim.server.members[0].publications[1];
    let now = sim.now;
    let publication = publish.publication;
    sim.server.command(now, 0, |participant, epoch| Command::Unpublish { participant, epoch, publication });
    sim.run_for(s(2));
    let again = sim.server.publication("1", Kind::Video, publish.source);
    sim.server.members[0].publications.push(again);
    let now = sim.now;
    sim.server.command(now, 0, |participant, epoch| Command::Publish { participant, epoch, publish: again });
    sim.start_media();
    sim.run_for(s(2));
    sim.drain();
    sim.check();
    assert_eq!(sim.server.dropped(Reason::UnknownStream), 0);
    let stream = picture(&mut sim, 1);
    stream.assert_complete();
    let last = stream.runs().last().copied().expect("something came");
    assert_eq!((last.publication, last.layer), (again.publication.0, 0));
    assert_ne!(again.publication, PublicationId(publication.0), "ids are never used again");
}

#[test]
fn a_layer_that_falls_silent_is_replaced_and_comes_back() {
    let mut sim = call(4);
    sim.want(1, 720);
    sim.run_for(s(2));
    assert_eq!(layer_now(&mut sim, 1), 0);
    sim.media(0).source("1", 0).active = false;
    let silent = sim.now;
    sim.run_until(s(3), "another layer is shown", |sim| layer_now(sim, 1) == 1);
    let took = sim.now - silent;
    assert!(took < ms(1200), "{took:?} without a picture");
    sim.run_for(s(1));
    let source = sim.clients[0].media().source("1", 0);
    source.active = true;
    source.next = sim.now;
    let back = sim.run_until(s(3), "the large one is back", |sim| layer_now(sim, 1) == 0);
    assert!(back < ms(700), "{back:?}");
    sim.run_for(s(1));
    sim.drain();
    sim.check();
    picture(&mut sim, 1).assert_complete();
}

#[test]
fn a_request_across_a_switch_finds_its_packet_or_nothing() {
    let mut sim = call(5);
    let slot = sim.media(1).slots.iter().find(|slot| slot.kind == Kind::Video).expect("one").clone();
    sim.want(1, 180);
    sim.run_for(s(2));
    let mut asked = 0;
    for height in [720, 180, 360, 720, 180] {
        sim.want(1, height);
        sim.run_for(ms(600));
        // What the slot numbered before and after the switch, all of it: `Stream` compares the payloads.
        let arrivals = &sim.media(1).received[&slot.ssrc];
        let mut numbers: Vec<u16> =
            arrivals.iter().rev().take(60).map(|arrival| arrival.header.sequence_number).collect();
        numbers.sort_unstable_by_key(|number| number.wrapping_sub(arrivals[0].header.sequence_number));
        numbers.dedup();
        asked += numbers.len();
        sim.raw(1).ask_for(slot.ssrc, &numbers);
        sim.run_for(ms(300));
    }
    sim.drain();
    sim.check();
    let stream = picture(&mut sim, 1);
    stream.assert_complete();
    assert!(stream.copies > asked / 3, "{} of {asked} came again", stream.copies);
    assert!(stream.runs().len() >= 5);
}

#[test]
fn switching_under_loss_confuses_nothing() {
    for seed in 0..4 {
        let mut sim = call(seed);
        sim.want(1, 720);
        sim.run_for(s(1));
        sim.network.set_down(1, Link { loss: 0.05, reorder: 0.03, ..Link::default() });
        sim.network.set_up(0, Link { loss: 0.05, reorder: 0.03, ..Link::default() });
        for height in [180, 360, 720, 180, 720, 360] {
            sim.want(1, height);
            sim.run_for(ms(800));
        }
        sim.links(0, Link::default(), Link::default());
        sim.links(1, Link::default(), Link::default());
        sim.run_for(ms(600));
        sim.drain();
        sim.check();
        picture(&mut sim, 1).assert_complete();
    }
}

#[test]
fn a_slot_passes_to_another_person_with_a_keyframe_and_never_repeats_the_former() {
    let mut sim = Sim::new(6);
    sim.raw_caller(1, &Shape::default());
    sim.raw_caller(1, &VIEWER);
    sim.raw_caller(1, &SIMULCAST);
    sim.connect();
    sim.start_media();
    sim.run_for(s(2));
    let slot = sim.media(1).slots.iter().find(|slot| slot.kind == Kind::Video).expect("one").clone();
    assert_eq!(picture(&mut sim, 1).publishers(), [0], "there is one slot, and it is taken");
    let now = sim.now;
    sim.media(0).stop();
    sim.server.command(now, 0, |participant, epoch| Command::Leave {
        participant,
        epoch,
        reason: Reason::Bye,
    });
    sim.run_for(ms(700));
    let stream = picture(&mut sim, 1);
    assert_eq!(stream.publishers(), [0, 2]);
    let runs = stream.runs();
    assert!(runs[1].at - now >= ms(300), "a client that says nothing gets time to change the name");
    let former: Vec<u16> = stream
        .media()
        .filter(|(_, seen)| seen.tag.publisher == 0)
        .map(|(packet, _)| packet.sequence as u16)
        .collect();
    let copies = stream.copies;
    sim.raw(1).ask_for(slot.ssrc, &former[former.len() - 20..]);
    sim.run_for(ms(300));
    assert_eq!(picture(&mut sim, 1).copies, copies, "who left is not shown again");
    sim.drain();
    sim.check();
    picture(&mut sim, 1).assert_complete();
    let have = sim.server.have(1);
    let state = have.slots.iter().find(|state| state.slot.as_str() == slot.mid).expect("the slot");
    assert_eq!(state.publication, Some(PublicationId(runs[1].publication)));
    assert_eq!(state.from_ts, Some(runs[1].timestamp), "the first packet's timestamp is told");
    assert!(!state.pending);
}

#[test]
fn a_wish_for_nothing_empties_the_slot_and_another_fills_it() {
    let mut sim = call(7);
    sim.run_for(s(1));
    sim.want(1, 0);
    sim.run_for(ms(100));
    let before = picture(&mut sim, 1).packets.len();
    let why = |sim: &Sim| sim.server.have(1).slots.last().and_then(|slot| slot.why);
    assert_eq!(why(&sim), Some(Why::NotWanted));
    sim.run_for(s(1));
    assert_eq!(picture(&mut sim, 1).packets.len(), before);
    let id = PublicationId(sim.publication(0, "1"));
    let want = Want {
        n: 2,
        default: Wish { height: 0, priority: 0 },
        publications: [(id, Wish { height: 180, priority: 0 })].into(),
        ..Want::default()
    };
    let now = sim.now;
    sim.server.command(now, 1, |participant, epoch| Command::Want { participant, epoch, want });
    sim.run_for(s(1));
    sim.drain();
    sim.check();
    let stream = picture(&mut sim, 1);
    assert!(stream.packets.len() > before + 30);
    stream.assert_complete();
    assert_eq!(sim.server.have(1).n, 2);
    assert_eq!(why(&sim), None);
}
