//! A participant's second connection takes the place of the first: make before break.

use std::time::Instant;

use motet::control::{Command, Update};
use motet::id::TransportNumber;
use motet::observe::reason::Reason;

use crate::support::media::{Kind, Stream};
use crate::support::network::Link;
use crate::support::raw::Shape;
use crate::support::{Sim, ms, s};

/// Two who see and hear each other.
fn call(seed: u64) -> Sim {
    let mut sim = Sim::new(seed);
    for _ in 0..2 {
        sim.raw_caller(1, &Shape::default());
    }
    sim.connect();
    sim.start_media();
    sim.run_for(s(1));
    sim
}

fn stream(sim: &mut Sim, client: usize, kind: Kind) -> Stream {
    sim.media(client).streams().into_iter().find(|stream| stream.kind == kind).expect("one")
}

/// The longest time without a packet since then, and who sent what came.
fn since(stream: &Stream, since: Instant) -> std::time::Duration {
    let at: Vec<_> = stream.packets.iter().map(|packet| packet.at).filter(|at| *at >= since).collect();
    at.windows(2).map(|pair| pair[1] - pair[0]).max().expect("packets")
}

fn publishers_since(stream: &Stream, since: Instant) -> Vec<u32> {
    let mut late = stream.clone();
    late.packets.retain(|packet| packet.at >= since);
    late.publishers()
}

#[test]
fn a_second_connection_takes_over_without_a_gap() {
    let mut sim = call(1);
    let slots = sim.server.have(1).slots;
    let began = sim.now;
    let second = sim.second(0, 1, &Shape::default());
    sim.run_until(s(2), "the second connection stands", |sim| sim.clients[second].is_connected());
    for kind in [Kind::Audio, Kind::Video] {
        assert_eq!(publishers_since(&stream(&mut sim, 1, kind), began), [0], "the first carries it so far");
    }
    let now = sim.now;
    sim.media(second).start(now);
    sim.run_for(s(1));
    let switched = sim.now;
    sim.media(0).stop();
    sim.run_for(s(1));
    for kind in [Kind::Audio, Kind::Video] {
        let stream = stream(&mut sim, 1, kind);
        assert_eq!(publishers_since(&stream, switched), [2], "the second carries it now");
        assert_eq!(stream.missing(), 0, "one numbering");
        assert!(since(&stream, began) <= ms(100), "{:?}", since(&stream, began));
    }
    let names = |slots: &[motet::room::SlotState]| slots.iter().map(|s| s.publication).collect::<Vec<_>>();
    assert_eq!(names(&sim.server.have(1).slots), names(&slots), "nobody moves to another slot");
    // Both connections are given the other one's media, and none of their own.
    for client in [0, second] {
        let streams = sim.media(client).streams();
        assert_eq!(streams.len(), 2);
        for stream in streams {
            assert_eq!(stream.publishers(), [1]);
            assert!(stream.packets.last().expect("packets").at > switched);
        }
    }
    // The first is forgotten some time later, without a word to anybody.
    sim.run_for(s(12));
    let last = stream(&mut sim, 0, Kind::Video).packets.last().expect("packets").at;
    assert!(sim.now - last > s(2) && sim.server.closed(0).is_none());
    assert_eq!(sim.server.dropped(Reason::Replaced), 1);
    assert_eq!(stream(&mut sim, 1, Kind::Video).publishers(), [0, 2]);
}

#[test]
fn a_second_connection_that_never_comes_leaves_the_first_alone() {
    let mut sim = call(2);
    let second = sim.second(0, 1, &Shape::default());
    sim.links(second, Link::dead(), Link::dead());
    sim.run_for(s(25));
    assert_eq!(sim.server.closed(0), Some(Reason::DtlsDeadline), "the client is told of the second");
    let closed = sim.server.updates.iter().find_map(|(_, update)| match update {
        Update::Closed { transport, .. } => Some(*transport),
        _ => None,
    });
    assert_eq!(closed, Some(TransportNumber(1)));
    let now = sim.now;
    sim.run_for(s(1));
    for client in [0, 1] {
        for kind in [Kind::Audio, Kind::Video] {
            assert!(since(&stream(&mut sim, client, kind), now) <= ms(100), "the first goes on");
        }
    }
    // A third one can still take over.
    let third = sim.second(0, 2, &Shape::default());
    sim.run_until(s(2), "the third stands", |sim| sim.clients[third].is_connected());
    let now = sim.now;
    sim.media(third).start(now);
    sim.run_for(s(2));
    assert_eq!(publishers_since(&stream(&mut sim, 1, Kind::Video), sim.now - s(1)), [3]);
}

#[test]
fn the_first_connection_may_end_before_the_second_stands() {
    let mut sim = call(3);
    let second = sim.second(0, 1, &Shape::default());
    let now = sim.now;
    sim.server.command(now, 0, |participant, epoch| Command::Away { participant, epoch, away: false });
    sim.raw(0).close();
    sim.run_until(s(2), "the second connection stands", |sim| sim.clients[second].is_connected());
    let now = sim.now;
    sim.media(second).start(now);
    sim.run_for(s(1));
    assert_eq!(sim.server.closed(0), None, "the end of the first is no news");
    assert_eq!(publishers_since(&stream(&mut sim, 1, Kind::Video), sim.now - ms(500)), [2]);
}

#[test]
fn mutes_and_departures_reach_both_connections() {
    let mut sim = call(4);
    let second = sim.second(0, 1, &Shape::default());
    let publication = sim.server.members[0].publications[1].publication;
    let now = sim.now;
    sim.server.command(now, 0, |participant, epoch| Command::Mute {
        participant,
        epoch,
        publication,
        muted: true,
    });
    sim.run_until(s(2), "the second connection stands", |sim| sim.clients[second].is_connected());
    let now = sim.now;
    sim.media(second).start(now);
    sim.run_for(s(1));
    let last = stream(&mut sim, 1, Kind::Video).packets.last().expect("packets").at;
    assert!(sim.now - last >= s(1), "muted before the second stood, and after");
    let now = sim.now;
    let reason = Reason::Bye;
    sim.server.command(now, 0, |participant, epoch| Command::Leave { participant, epoch, reason });
    sim.run_for(ms(100));
    let left = sim.now;
    sim.run_for(s(1));
    for client in [0, second] {
        for kind in [Kind::Audio, Kind::Video] {
            let last = stream(&mut sim, client, kind).packets.last().expect("packets").at;
            assert!(last <= left, "neither connection is served any more");
        }
    }
    let have = sim.server.have(1);
    assert!(have.slots.iter().all(|slot| slot.publication.is_none()), "{have:?}");
}
