//! Two people and a third meet: everything that each sends arrives at the others, exactly, and nothing else does.

use crate::support::media::Kind;
use crate::support::network::Link;
use crate::support::raw::Shape;
use crate::support::{Sim, ms, s};
use motet::worker::Settings;

#[test]
fn two_people_see_and_hear_each_other() {
    let mut sim = Sim::new(1);
    sim.caller(1);
    sim.caller(1);
    sim.connect();
    sim.start_media();
    sim.run_for(s(3));
    sim.drain();
    sim.check();
    for (client, other) in [(0, 1), (1, 0)] {
        let streams = sim.media(client).streams();
        let mut kinds: Vec<_> = streams.iter().map(|stream| stream.kind as usize).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, [Kind::Audio as usize, Kind::Video as usize]);
        for stream in streams {
            stream.assert_complete();
            assert_eq!(stream.publishers(), [other as u32]);
            let sent = match stream.kind {
                Kind::Audio => 150,
                Kind::Video => 3 * 90,
            };
            let came = stream.media().count();
            assert!(came + 12 >= sent, "{came} of {sent} packets of {:?}", stream.kind);
        }
    }
}

#[test]
fn who_joins_later_begins_with_a_keyframe_of_its_own() {
    let mut sim = Sim::new(2);
    sim.caller(1);
    sim.caller(1);
    sim.connect();
    sim.start_media();
    sim.run_for(s(2));
    let before = sim.media(0).plis(1_000_010);
    let third = sim.caller(1);
    sim.connect();
    sim.start_media();
    sim.run_for(s(2));
    sim.drain();
    sim.check();
    let streams = sim.media(third).streams();
    assert_eq!(streams.len(), 4, "sound and picture of two people");
    streams.iter().for_each(|stream| stream.assert_complete());
    let asked = sim.media(0).plis(1_000_010) - before;
    assert!((1..=2).contains(&asked), "{asked} requests for one newcomer");
    sim.run_for(ms(1));
}

#[test]
fn a_newcomer_sees_as_soon_as_it_is_connected() {
    let mut sim = Sim::new(4);
    sim.caller(1);
    sim.connect();
    sim.start_media();
    sim.run_for(s(2));
    let asked = sim.media(0).plis(1_000_010);
    let newcomers: Vec<_> = (0..4)
        .map(|_| {
            sim.run_for(ms(60));
            sim.caller(1)
        })
        .collect();
    for &newcomer in &newcomers {
        sim.run_until(s(1), "the server knows that it is connected", |sim| sim.server.is_connected(newcomer));
        let sees =
            |sim: &mut Sim| sim.media(newcomer).streams().iter().any(|stream| stream.kind == Kind::Video);
        // The way to the newcomer, not up to the publisher's next frame, let alone its next keyframe.
        let took = sim.run_until(s(1), "its picture begins", sees);
        assert!(took <= ms(12), "{took:?} after it was connected");
    }
    assert_eq!(sim.media(0).plis(1_000_010) - asked, 1, "one request served them all");
    sim.run_for(s(1));
    sim.drain();
    sim.check();
    for newcomer in newcomers {
        sim.media(newcomer).streams().iter().for_each(|stream| stream.assert_complete());
    }
}

#[test]
fn a_newcomer_begins_with_a_keyframe_of_its_own_where_the_history_may_not_open() {
    let mut sim = Sim::with(7, Settings { history_opening: false, ..Settings::default() });
    sim.caller(1);
    let viewer = sim.raw_caller(1, &Shape { publishes: false, ..Shape::default() });
    sim.connect();
    sim.start_media();
    sim.run_for(s(2));
    let asked = sim.media(0).plis(1_000_010);
    // Somebody else asks for a keyframe, which is young when the newcomer is connected.
    let newcomer = sim.caller(1);
    let slot = sim.media(viewer).slots.iter().find(|slot| slot.kind == Kind::Video).expect("one").ssrc;
    sim.raw(viewer).ask_for_keyframe(slot);
    sim.run_until(s(1), "the server knows that it is connected", |sim| sim.server.is_connected(newcomer));
    let connected = sim.now;
    assert_eq!(sim.media(0).plis(1_000_010) - asked, 1, "by the viewer");
    sim.run_for(s(1));
    assert_eq!(sim.media(0).plis(1_000_010) - asked, 2, "and when it was connected");
    sim.drain();
    sim.check();
    let streams = sim.media(newcomer).streams();
    let picture = streams.iter().find(|stream| stream.kind == Kind::Video).expect("a picture");
    let first = picture.media().next().expect("a packet").0.at;
    // Up to the publisher, its next frame, and down.
    assert!(first >= connected + ms(20), "{:?}", first - connected);
    picture.assert_complete();
}

#[test]
fn who_connects_slowly_does_not_begin_with_an_old_keyframe() {
    let mut sim = Sim::new(5);
    sim.caller(1);
    sim.connect();
    sim.start_media();
    sim.run_for(s(2));
    let asked = sim.media(0).plis(1_000_010);
    let newcomer = sim.clients.len();
    let slow = Link { delay: ms(200), ..Link::default() };
    sim.links(newcomer, slow, slow);
    assert_eq!(sim.caller(1), newcomer);
    sim.connect();
    sim.run_for(s(1));
    assert_eq!(sim.media(0).plis(1_000_010) - asked, 2, "when it joined, and when it was connected");
    sim.drain();
    sim.check();
    let streams = sim.media(newcomer).streams();
    assert!(!streams.is_empty());
    streams.iter().for_each(|stream| stream.assert_complete());
}

#[test]
fn the_steps_of_a_join_are_counted_once_each() {
    let mut sim = Sim::new(6);
    sim.caller(1);
    sim.connect();
    sim.start_media();
    sim.run_for(s(1));
    sim.caller(1);
    sim.connect();
    sim.start_media();
    sim.run_for(s(1));
    sim.check();
    let traffic = sim.server.worker.traffic();
    let counts = [&traffic.joins.check, &traffic.joins.secure, &traffic.joins.media];
    let counts = counts.map(|times| times.buckets().map(|(_, count)| count).sum::<u64>());
    assert_eq!(counts, [2, 2, 1], "the first one had nobody to see");
    let media = traffic.joins.media.sum();
    assert!(media < 0.1, "{media} s until the first packet");
    assert_eq!(traffic.members.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[test]
fn a_raw_client_and_a_peer_connection_understand_each_other() {
    let mut sim = Sim::new(3);
    sim.caller(1);
    sim.raw_caller(1, &Shape::default());
    sim.connect();
    sim.start_media();
    sim.run_for(s(2));
    sim.drain();
    sim.check();
    for client in [0, 1] {
        let streams = sim.media(client).streams();
        assert_eq!(streams.len(), 2);
        streams.iter().for_each(|stream| stream.assert_complete());
    }
}
