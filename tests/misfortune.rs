//! Suspended people and processes, and what happens in the middle of something else.

use std::time::{Duration, Instant};

use motet::control::{Command, Update};
use motet::id::TransportNumber;

use crate::rebinding::{VIEWER, grow, grown};
use crate::support::media::{Kind, Stream};
use crate::support::raw::{Raw, SIMULCAST, Shape};
use crate::support::{Peer as _, Sim, ms, s};

/// Four people who see and hear each other.
fn call(seed: u64) -> Sim {
    let mut sim = Sim::new(seed);
    sim.acknowledges = Some(ms(30));
    sim.raw_caller(1, &SIMULCAST);
    sim.raw_caller(1, &Shape::default());
    sim.caller(1);
    sim.raw_caller(1, &Shape::default());
    sim.connect();
    sim.start_media();
    sim.run_for(s(2));
    sim
}

/// When each stream of a client that came lately came again after that time.
fn back(sim: &mut Sim, client: usize, after: Instant) -> Vec<Duration> {
    let streams = sim.media(client).streams();
    let first = |stream: &Stream| {
        stream.packets.iter().find(|packet| packet.at >= after).map(|packet| packet.at - after)
    };
    streams.iter().filter_map(first).collect()
}

#[test]
fn a_pause_of_the_process_removes_nobody_and_media_is_back_within_a_second() {
    for (seed, pause) in [(1, s(5)), (2, s(12))] {
        let mut sim = call(seed);
        let told = sim.server.updates.len();
        sim.pause_server(pause);
        let woke = sim.now;
        sim.run_for(s(3));
        let silent =
            |update: &Update| matches!(update, Update::Closed { .. } | Update::Heard { silent: true, .. });
        let lost: Vec<_> = sim.server.updates[told..].iter().filter(|(_, update)| silent(update)).collect();
        assert!(lost.is_empty(), "{lost:?}");
        for client in 0..4 {
            let back = back(&mut sim, client, woke);
            assert_eq!(back.len(), 6, "client {client} after {pause:?}: {back:?}");
            assert!(back.iter().all(|after| *after <= s(1)), "client {client} after {pause:?}: {back:?}");
        }
    }
}

#[test]
fn who_is_suspended_for_ten_seconds_is_back_within_a_second() {
    let mut sim = call(3);
    let set_away = |sim: &mut Sim, away| {
        let now = sim.now;
        sim.server.command(now, 1, |participant, epoch| Command::Away { participant, epoch, away });
    };
    sim.suspended.insert(1);
    sim.run_for(s(8) + ms(600));
    let id = sim.server.members[1].id;
    let silent = |update: &Update| matches!(update, Update::Heard { participant, silent: true, .. } if *participant == id);
    assert!(sim.server.updates.iter().any(|(_, update)| silent(update)));
    set_away(&mut sim, true);
    sim.run_for(ms(1400));
    let shown = sim.server.have(0).slots.iter().filter(|slot| slot.publication.is_some()).count();
    assert_eq!(shown, 4, "who is away leaves the slots to others");
    sim.suspended.clear();
    let now = sim.now;
    // What was not captured meanwhile is not sent late.
    sim.media(1).sources.iter_mut().for_each(|source| {
        source.timestamp =
            source.timestamp.wrapping_add(if source.kind == Kind::Audio { 480_000 } else { 900_000 });
    });
    sim.media(1).start(now);
    sim.run_for(ms(50));
    set_away(&mut sim, false);
    sim.run_for(s(2));
    for client in 0..4 {
        let back = back(&mut sim, client, now);
        assert_eq!(back.len(), 6, "client {client}: {back:?}");
        assert!(back.iter().all(|after| *after <= s(1)), "client {client}: {back:?}");
    }
    assert!(sim.server.closed(1).is_none());
}

#[test]
fn slots_that_come_while_the_path_is_being_restarted_are_filled() {
    let mut sim = Sim::new(4);
    sim.acknowledges = Some(ms(30));
    for _ in 0..3 {
        sim.raw_caller(1, &Shape::default());
    }
    let (client, offer) = Raw::new(3, sim.now, &VIEWER);
    sim.join(1, &offer, Box::new(client));
    sim.connect();
    sim.start_media();
    sim.run_for(s(1));
    let since = sim.now;
    // Both in one offer; checks by the new name come only later.
    let restart = sim.raw(3).restart_offer(&offer);
    sim.raw(3).checks = false;
    let offer = grown(&restart, 2);
    let answered = sim.server.members[3].negotiator.answer(&offer).expect("a restart that grows is answered");
    assert!(answered.restart);
    let (now, remote) = (sim.now, answered.remote.credentials.clone());
    let transport = TransportNumber(0);
    sim.server.command(now, 3, |participant, epoch| Command::Restart {
        participant,
        epoch,
        transport,
        remote,
    });
    grow(&mut sim, 3, answered);
    sim.run_for(ms(300));
    let address = sim.raw(3).address;
    sim.raw(3).checks = true;
    sim.raw(3).send_check(address, true);
    sim.run_for(s(1));
    sim.drain();
    sim.check();
    let streams = sim.media(3).streams();
    assert_eq!(streams.iter().filter(|stream| stream.kind == Kind::Video).count(), 3);
    for stream in streams {
        stream.assert_complete();
        let gap = stream
            .packets
            .windows(2)
            .filter(|pair| pair[1].at > since)
            .map(|pair| pair[1].at - pair[0].at)
            .max();
        assert!(gap < Some(ms(80)), "{gap:?}");
    }
    assert!(sim.raw(3).is_connected());
}
