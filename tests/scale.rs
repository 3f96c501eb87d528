//! What happens in a room of many concerns few: counted in pieces of work, not in time.

use motet::control::Command;
use motet::observe::reason::Reason;
use motet::room::Source;
use motet::worker::Work;

use crate::support::media::{Kind, Stream};
use crate::support::raw::Shape;
use crate::support::{Sim, ms, s};

const VIEWER: Shape = Shape {
    publishes: false,
    rids: &[],
    audio_slots: 2,
    video_slots: 2,
    passive: false,
    firefox: false,
    names_sources: true,
};

/// Three publishers and so many viewers, who never connect: what they get is decided all the same.
fn room(viewers: usize) -> Sim {
    let mut sim = Sim::new(1);
    (0..3).for_each(|_| {
        sim.raw_caller(1, &Shape::default());
    });
    (0..viewers).for_each(|_| {
        sim.raw_caller(1, &VIEWER);
    });
    sim.run_for(ms(100));
    sim
}

/// The work that something causes.
fn cost(sim: &mut Sim, what: impl FnOnce(&mut Sim)) -> Work {
    let before = sim.server.worker.work();
    what(sim);
    sim.run_for(ms(150));
    let after = sim.server.worker.work();
    Work {
        assignments: after.assignments - before.assignments,
        candidates: after.candidates - before.candidates,
    }
}

fn leave(sim: &mut Sim, client: usize) {
    let now = sim.now;
    let reason = Reason::Bye;
    sim.server.command(now, client, |participant, epoch| Command::Leave { participant, epoch, reason });
}

#[test]
fn who_comes_and_goes_without_publishing_costs_nobody_else_anything() {
    for viewers in [10, 60] {
        let mut sim = room(viewers);
        let join = cost(&mut sim, |sim| {
            sim.raw_caller(1, &VIEWER);
        });
        assert_eq!(join, Work { assignments: 1, candidates: 6 }, "in a room of {viewers}");
        let gone = cost(&mut sim, |sim| leave(sim, viewers + 3));
        assert_eq!(gone, Work::default(), "in a room of {viewers}");
    }
}

#[test]
fn a_publication_is_looked_at_once_by_each_receiver() {
    let viewers = 40;
    let mut sim = room(viewers);
    let screen = sim.server.publication("1", Kind::Video, Source::Screen);
    let camera = sim.server.members[0].publications[1].publication;
    let others = viewers as u64 + 2;
    let unpublish = cost(&mut sim, |sim| {
        let now = sim.now;
        sim.server.command(now, 0, |participant, epoch| Command::Unpublish {
            participant,
            epoch,
            publication: camera,
        });
    });
    assert_eq!(unpublish.assignments, others);
    let publish = cost(&mut sim, |sim| {
        let now = sim.now;
        sim.server.command(now, 0, |participant, epoch| Command::Publish {
            participant,
            epoch,
            publish: screen,
        });
    });
    assert_eq!(publish, Work { assignments: others, candidates: others });
    // However much happens in one turn, each receiver is assigned once.
    let flapping = cost(&mut sim, |sim| {
        let now = sim.now;
        for away in [true, false, true, false] {
            sim.server.command(now, 0, |participant, epoch| Command::Away { participant, epoch, away });
        }
    });
    assert_eq!(flapping.assignments, others);
}

#[test]
fn a_voice_that_has_its_slots_concerns_nobody() {
    let mut sim = Sim::new(2);
    for _ in 0..2 {
        sim.raw_caller(1, &Shape::default());
    }
    for _ in 0..10 {
        sim.raw_caller(1, &VIEWER);
    }
    sim.connect();
    sim.start_media();
    sim.run_for(s(1));
    let speaking = cost(&mut sim, |sim| {
        sim.media(0).source("0", 0).level = 20;
        sim.run_for(s(2));
    });
    assert_eq!(speaking, Work::default());
}

#[test]
fn work_that_must_wait_goes_on_in_the_next_turns_and_nothing_is_forgotten() {
    let mut sim = Sim::new(3);
    sim.server.pieces = Some(1);
    for _ in 0..3 {
        sim.raw_caller(1, &Shape::default());
    }
    for _ in 0..20 {
        sim.raw_caller(1, &VIEWER);
    }
    sim.connect();
    sim.start_media();
    sim.run_for(s(1));
    let before = sim.server.worker.work().assignments;
    leave(&mut sim, 0);
    sim.media(0).stop();
    sim.run_for(ms(1));
    let first = sim.server.worker.work().assignments - before;
    sim.run_for(s(1));
    assert!(first < 22, "{first} at once");
    assert!(sim.server.worker.work().assignments - before >= 22);
    sim.drain();
    sim.check();
    for client in 3..23 {
        let streams = sim.media(client).streams();
        assert_eq!(streams.len(), 4);
        streams.iter().for_each(Stream::assert_complete);
        let have = sim.server.have(client);
        assert_eq!(have.slots.iter().filter(|slot| slot.publication.is_some()).count(), 4);
    }
}
