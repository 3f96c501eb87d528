//! Who speaks, and who is heard and seen where not everybody can be.

use std::time::{Duration, Instant};

use motet::control::{Command, Update};
use motet::id::PublicationId;
use motet::room::{Want, WantAudio, WantVideo, Wish};

use crate::support::media::{Kind, Packet, Stream};
use crate::support::raw::Shape;
use crate::support::{Sim, ms, s};

const VIEWER: Shape = Shape {
    publishes: false,
    rids: &[],
    audio_slots: 3,
    video_slots: 3,
    passive: false,
    firefox: false,
    names_sources: true,
};

const QUIET: u8 = 90;
const TALK: u8 = 35;
const LOUD: u8 = 20;

/// So many publishers, who are quiet, and a viewer, who comes last.
fn call(seed: u64, publishers: usize, viewer: &Shape) -> Sim {
    let mut sim = Sim::new(seed);
    sim.acknowledges = Some(ms(20));
    for _ in 0..publishers {
        sim.raw_caller(1, &Shape::default());
    }
    sim.raw_caller(1, viewer);
    sim.connect();
    for client in 0..publishers {
        say(&mut sim, client, QUIET);
    }
    sim.start_media();
    sim.run_for(s(2));
    sim
}

fn say(sim: &mut Sim, client: usize, level: u8) {
    sim.media(client).source("0", 0).level = level;
}

fn want(sim: &mut Sim, client: usize, want: Want) {
    let now = sim.now;
    sim.server.command(now, client, |participant, epoch| Command::Want { participant, epoch, want });
}

/// What the room was told of its speakers, by clients' numbers.
fn told(sim: &Sim) -> Vec<(Instant, Vec<usize>)> {
    let number = |id| sim.server.members.iter().position(|member| member.id == id).expect("a member");
    let of = |(at, update): &(Instant, Update)| match update {
        Update::Speakers { speakers } => Some((*at, speakers.iter().map(|id| number(*id)).collect())),
        _ => None,
    };
    sim.server.updates.iter().filter_map(of).collect()
}

/// How long it takes until these are the speakers.
fn until(sim: &mut Sim, speakers: &[usize]) -> Duration {
    sim.run_until(s(2), "they speak", |sim| told(sim).last().is_some_and(|(_, now)| now == speakers))
}

/// Whose sound or picture each slot of a kind carries or will, by clients' numbers.
fn slots(sim: &mut Sim, client: usize, kind: Kind) -> Vec<Option<usize>> {
    let infos = sim.media(client).slots.clone();
    let owners = sim.owners();
    let have = sim.server.have(client);
    let of_kind = infos.iter().filter(|info| info.kind == kind);
    of_kind
        .map(|info| {
            let state = have.slots.iter().find(|state| state.slot.as_str() == info.mid).expect("told");
            state.publication.map(|id| owners[&id.0] as usize)
        })
        .collect()
}

fn sound(sim: &mut Sim, client: usize) -> Vec<Stream> {
    sim.media(client).streams().into_iter().filter(|stream| stream.kind == Kind::Audio).collect()
}

fn seen(sim: &mut Sim, client: usize) -> Vec<usize> {
    let mut seen: Vec<usize> = slots(sim, client, Kind::Video).into_iter().flatten().collect();
    seen.sort_unstable();
    seen
}

#[test]
fn the_room_is_told_who_speaks_soon_and_seldom() {
    let mut sim = call(1, 3, &VIEWER);
    assert!(told(&sim).is_empty(), "{:?}", told(&sim));
    say(&mut sim, 1, TALK);
    let took = until(&mut sim, &[1]);
    assert!((ms(200)..ms(520)).contains(&took), "{took:?}");
    say(&mut sim, 0, LOUD);
    until(&mut sim, &[0, 1]);
    say(&mut sim, 0, QUIET);
    until(&mut sim, &[1]);
    // The browser leaves silence out.
    sim.media(1).source("0", 0).active = false;
    let took = until(&mut sim, &[]);
    assert!(took <= ms(700), "{took:?}");
    say(&mut sim, 2, TALK);
    until(&mut sim, &[2]);
    let publication = sim.server.members[2].publications[0].publication;
    let now = sim.now;
    sim.server.command(now, 2, |participant, epoch| Command::Mute {
        participant,
        epoch,
        publication,
        muted: true,
    });
    let took = until(&mut sim, &[]);
    assert!(took <= ms(210), "muted: {took:?}");
    say(&mut sim, 0, TALK);
    until(&mut sim, &[0]);
    let now = sim.now;
    sim.server.command(now, 0, |participant, epoch| Command::Away { participant, epoch, away: true });
    let took = until(&mut sim, &[]);
    assert!(took <= ms(210), "away: {took:?}");
    let all = told(&sim);
    for pair in all.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= ms(200), "five a second at most");
        assert_ne!(pair[0].1, pair[1].1, "only changes");
    }
}

#[test]
fn who_coughs_is_no_speaker() {
    let mut sim = call(2, 2, &VIEWER);
    for _ in 0..5 {
        say(&mut sim, 0, LOUD);
        sim.run_for(ms(150));
        say(&mut sim, 0, QUIET);
        sim.run_for(ms(850));
    }
    assert!(told(&sim).is_empty(), "{:?}", told(&sim));
}

#[test]
fn while_all_voices_fit_nobody_moves() {
    let mut sim = call(3, 3, &VIEWER);
    let before = slots(&mut sim, 3, Kind::Audio);
    for speaker in [2, 0, 1, 0, 2] {
        say(&mut sim, speaker, TALK);
        sim.run_for(s(1));
        say(&mut sim, speaker, QUIET);
        sim.run_for(ms(300));
        assert_eq!(slots(&mut sim, 3, Kind::Audio), before);
    }
    sim.drain();
    sim.check();
    sound(&mut sim, 3).iter().for_each(Stream::assert_complete);
}

#[test]
fn who_speaks_is_heard_and_comes_back_to_the_slot_that_he_had() {
    for seed in 0..2 {
        let mut sim = call(seed, 6, &VIEWER);
        let viewer = 6;
        let mut home: Vec<Option<usize>> = vec![None; 6];
        for speaker in [4, 0, 5, 3, 4, 1, 2, 4, 0] {
            let since = sim.now;
            say(&mut sim, speaker, TALK);
            sim.run_for(s(1));
            let of_speaker = sim.publication(speaker, "0");
            let streams = sound(&mut sim, viewer);
            let packets = streams.iter().flat_map(|stream| &stream.packets);
            let heard = packets.filter(|packet| packet.publication == of_speaker && packet.at > since);
            let first = heard.map(|packet| packet.at - since).min();
            assert!(first.is_some_and(|first| first < ms(260)), "{first:?}");
            let slot = slots(&mut sim, viewer, Kind::Audio).iter().position(|of| *of == Some(speaker));
            assert!(slot.is_some(), "he keeps a slot");
            assert!(home[speaker].is_none_or(|home| Some(home) == slot), "{speaker} moved");
            home[speaker] = slot;
            say(&mut sim, speaker, QUIET);
            sim.run_for(s(1));
        }
        sim.drain();
        sim.check();
        for stream in sound(&mut sim, viewer) {
            stream.assert_complete();
            for run in stream.runs() {
                let of_run = |packet: &&Packet| (packet.at, packet.publication) == (run.at, run.publication);
                let first = stream.packets.iter().find(of_run).expect("there");
                assert!(first.marker, "the first packet of a voice");
            }
            let longest = stream.packets.windows(2).map(|pair| pair[1].at - pair[0].at).max();
            assert!(longest <= Some(ms(60)), "{longest:?} without sound");
        }
    }
}

#[test]
fn who_found_no_place_gets_that_of_who_falls_silent() {
    let mut sim = call(7, 5, &VIEWER);
    (0..4).for_each(|speaker| say(&mut sim, speaker, TALK));
    sim.run_for(s(2));
    let heard = slots(&mut sim, 5, Kind::Audio);
    let left_out = (0..4).find(|speaker| !heard.contains(&Some(*speaker))).expect("four in three slots");
    let quiet = (left_out + 1) % 4;
    say(&mut sim, quiet, QUIET);
    sim.run_for(s(1));
    let heard = slots(&mut sim, 5, Kind::Audio);
    assert!(heard.contains(&Some(left_out)) && !heard.contains(&Some(quiet)), "{heard:?}");
    sim.drain();
    sim.check();
}

#[test]
fn a_slot_keeps_a_voice_for_half_a_second() {
    let mut sim = call(9, 8, &VIEWER);
    for turn in 0..60 {
        say(&mut sim, turn % 8, LOUD);
        say(&mut sim, (turn + 5) % 8, QUIET);
        sim.run_for(ms(110));
    }
    sim.drain();
    sim.check();
    let mut changes = 0;
    for stream in sound(&mut sim, 8) {
        let runs = stream.runs();
        changes += runs.len() - 1;
        for pair in runs[1..].windows(2) {
            assert!(pair[1].at - pair[0].at >= ms(450), "{:?}", pair[1].at - pair[0].at);
        }
        stream.assert_complete();
    }
    assert!(changes >= 6, "{changes}");
}

#[test]
fn only_those_voices_that_are_wished_for() {
    let mut sim = call(4, 4, &VIEWER);
    let only = |sim: &Sim, clients: &[usize]| {
        WantAudio::Only(clients.iter().map(|client| PublicationId(sim.publication(*client, "0"))).collect())
    };
    let wish = Want { n: 7, audio: only(&sim, &[3, 1]), ..Want::default() };
    want(&mut sim, 4, wish);
    say(&mut sim, 0, LOUD);
    sim.run_for(s(1));
    assert_eq!(sim.server.have(4).n, 7);
    let mut heard: Vec<usize> = slots(&mut sim, 4, Kind::Audio).into_iter().flatten().collect();
    heard.sort_unstable();
    assert_eq!(heard, [1, 3]);
    let wish = Want { n: 8, audio: only(&sim, &[]), ..Want::default() };
    want(&mut sim, 4, wish);
    sim.run_for(ms(100));
    let silence = sim.now;
    sim.run_for(s(1));
    assert!(sound(&mut sim, 4).iter().all(|stream| stream.packets.last().expect("some").at <= silence));
    sim.drain();
    sim.check();
}

#[test]
fn the_cameras_of_those_who_spoke_last() {
    let mut sim = call(5, 5, &VIEWER);
    let viewer = 5;
    want(&mut sim, viewer, Want { n: 1, video: Some(WantVideo { last: 2 }), ..Want::default() });
    sim.run_for(ms(500));
    assert_eq!(seen(&mut sim, viewer), [0, 1], "nobody has spoken: those who came first");
    for (speaker, expected) in [(3, [0, 3]), (4, [3, 4]), (3, [3, 4]), (1, [1, 3])] {
        say(&mut sim, speaker, TALK);
        sim.run_for(s(1));
        assert_eq!(seen(&mut sim, viewer), expected, "{speaker} spoke");
        say(&mut sim, speaker, QUIET);
        sim.run_for(s(1));
    }
    // One more by name; a newcomer without a history does not push anybody out.
    let named = PublicationId(sim.publication(0, "1"));
    let wish = Want {
        n: 2,
        video: Some(WantVideo { last: 2 }),
        publications: [(named, Wish { height: 90, priority: 0 })].into(),
        ..Want::default()
    };
    want(&mut sim, viewer, wish);
    sim.raw_caller(1, &Shape::default());
    sim.connect();
    sim.start_media();
    sim.run_for(s(1));
    assert_eq!(seen(&mut sim, viewer), [0, 1, 3]);
    // Who leaves is followed by who spoke before him.
    let now = sim.now;
    sim.media(3).stop();
    sim.server.command(now, 3, |participant, epoch| Command::Leave {
        participant,
        epoch,
        reason: motet::observe::reason::Reason::Bye,
    });
    sim.run_for(s(1));
    assert_eq!(seen(&mut sim, viewer), [0, 1, 4]);
    sim.drain();
    sim.check();
}

#[test]
fn where_slots_are_short_priorities_decide() {
    let mut sim = call(6, 5, &VIEWER);
    let viewer = 5;
    let by_name = |sim: &Sim, wishes: &[(usize, u16, u8)]| Want {
        default: Wish { height: 180, priority: 1 },
        publications: wishes
            .iter()
            .map(|&(client, height, priority)| {
                (PublicationId(sim.publication(client, "1")), Wish { height, priority })
            })
            .collect(),
        ..Want::default()
    };
    let wish = by_name(&sim, &[(4, 180, 9), (0, 180, 0)]);
    want(&mut sim, viewer, wish);
    sim.run_for(s(1));
    assert_eq!(seen(&mut sim, viewer), [1, 2, 4], "4 takes the place of who matters least");
    let wish = by_name(&sim, &[(4, 0, 9), (0, 180, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)]);
    want(&mut sim, viewer, wish);
    sim.run_for(s(1));
    assert_eq!(seen(&mut sim, viewer), [0], "height 0 is a pause");
    sim.drain();
    sim.check();
}
