//! Slots that pass from one person to another in mid-call: without a gap, and never under a wrong name.

use std::time::{Duration, Instant};

use motet::control::{Command, Update};
use motet::id::PublicationId;
use motet::room::{Want, Wish};

use crate::support::media::{Kind, Stream};
use crate::support::network::Link;
use crate::support::raw::{Raw, SIMULCAST, Shape};
use crate::support::{Sim, ms, s};

/// One slot of each kind.
pub const VIEWER: Shape = Shape {
    publishes: false,
    rids: &[],
    audio_slots: 1,
    video_slots: 1,
    passive: false,
    firefox: false,
    names_sources: true,
};

/// The viewer's number in [`call`].
const WATCHER: usize = 2;

/// Two publishers and a viewer who sees the first, 50 ms there and back for everybody, with media flowing.
fn call(seed: u64, shape: &Shape) -> Sim {
    let mut sim = Sim::new(seed);
    sim.acknowledges = Some(ms(50));
    let link = Link { delay: ms(25), ..Link::default() };
    for client in 0..3 {
        sim.links(client, link, link);
    }
    sim.raw_caller(1, shape);
    sim.raw_caller(1, shape);
    sim.raw_caller(1, &VIEWER);
    sim.connect();
    sim.start_media();
    sim.run_for(s(1) + ms(seed * 7));
    sim
}

/// The viewer wishes for one picture only.
fn look_at(sim: &mut Sim, viewer: usize, publisher: usize) {
    let id = PublicationId(sim.publication(publisher, "1"));
    let want = Want {
        default: Wish { height: 0, priority: 0 },
        publications: [(id, Wish::default())].into(),
        ..Want::default()
    };
    let now = sim.now;
    sim.server.command(now, viewer, |participant, epoch| Command::Want { participant, epoch, want });
}

fn picture(sim: &mut Sim, client: usize) -> Stream {
    let streams = sim.media(client).streams();
    streams.into_iter().find(|stream| stream.kind == Kind::Video).expect("a picture")
}

/// The longest time between two packets of a stream since then.
fn longest_gap(stream: &Stream, since: Instant) -> Duration {
    let gaps = stream.packets.windows(2).filter(|pair| pair[1].at > since);
    gaps.map(|pair| pair[1].at.saturating_duration_since(pair[0].at)).max().expect("it went on")
}

/// When the viewer was first told of a publication in its slot.
fn told(sim: &Sim, publication: u32, since: Instant) -> Instant {
    let names = |update: &Update| match update {
        Update::Have { have, .. } => {
            have.slots.iter().any(|slot| slot.publication == Some(PublicationId(publication)) && slot.pending)
        }
        _ => false,
    };
    let first = sim.server.updates.iter().find(|(at, update)| *at >= since && names(update));
    first.expect("it is told").0
}

#[test]
fn another_person_takes_a_slot_without_a_gap() {
    for seed in 0..12 {
        let shape = if seed % 2 == 0 { Shape::default() } else { SIMULCAST };
        let mut sim = call(seed, &shape);
        assert_eq!(picture(&mut sim, WATCHER).publishers(), [0]);
        let since = sim.now;
        look_at(&mut sim, WATCHER, 1);
        sim.run_for(s(1));
        let stream = picture(&mut sim, WATCHER);
        assert_eq!(stream.publishers(), [0, 1], "once, and the former never again");
        let gap = longest_gap(&stream, since);
        assert!(gap <= ms(100), "{gap:?} with seed {seed}");
        let publication = sim.publication(1, "1");
        let first = stream.packets.iter().find(|packet| packet.publication == publication).expect("it came");
        let known = told(&sim, publication, since) + ms(50);
        assert!(first.at >= known, "the name is known before");
        assert!(first.at <= since + ms(250), "{:?} with seed {seed}", first.at - since);
        sim.drain();
        sim.check();
        picture(&mut sim, WATCHER).assert_complete();
        let slot = sim.server.have(WATCHER).slots.pop().expect("the slot");
        assert_eq!((slot.publication, slot.pending), (Some(PublicationId(publication)), false));
        assert_eq!(slot.from_ts, Some(first.timestamp as u32));
    }
}

#[test]
fn whose_client_says_nothing_waits_a_little_longer_and_misses_nothing() {
    for seed in 0..4 {
        let mut sim = call(seed, &Shape::default());
        sim.acknowledges = None;
        let since = sim.now;
        look_at(&mut sim, WATCHER, 1);
        sim.run_for(s(1));
        let stream = picture(&mut sim, WATCHER);
        let first = stream.runs()[1].at;
        assert!((ms(300)..ms(500)).contains(&(first - since)), "{:?}", first - since);
        let gap = longest_gap(&stream, since);
        assert!(gap <= ms(100), "{gap:?}");
        sim.drain();
        sim.check();
        picture(&mut sim, WATCHER).assert_complete();
    }
}

#[test]
fn a_keyframe_that_came_too_soon_is_asked_for_again_at_once() {
    for seed in 0..4 {
        let mut sim = call(seed, &Shape::default());
        // The publisher is near and the viewer far.
        let near = Link { delay: ms(1), ..Link::default() };
        sim.links(1, near, near);
        sim.run_for(ms(100));
        sim.acknowledges = Some(ms(150));
        let since = sim.now;
        look_at(&mut sim, WATCHER, 1);
        sim.run_for(s(1));
        let first = picture(&mut sim, WATCHER).runs()[1].at;
        assert!(first - since < ms(150 + 25 + 34 + 5), "{:?}", first - since);
        sim.drain();
        sim.check();
        picture(&mut sim, WATCHER).assert_complete();
    }
}

#[test]
fn who_leaves_is_followed_by_the_next_as_soon_as_the_name_is_known() {
    for seed in 0..8 {
        let mut sim = call(seed, &Shape::default());
        let since = sim.now;
        sim.media(0).stop();
        sim.server.command(since, 0, |participant, epoch| Command::Leave {
            participant,
            epoch,
            reason: motet::observe::reason::Reason::Bye,
        });
        sim.run_for(s(1));
        let first = picture(&mut sim, WATCHER).runs()[1].at;
        // To the publisher and back, a frame, and to the viewer.
        assert!(first - since <= ms(50 + 34 + 25 + 5), "{:?}", first - since);
        sim.drain();
        sim.check();
        picture(&mut sim, WATCHER).assert_complete();
    }
}

#[test]
fn slots_that_pass_on_under_loss_confuse_nothing() {
    for seed in 0..4 {
        let mut sim = call(seed, &SIMULCAST);
        let bad = Link { delay: ms(25), jitter: ms(10), loss: 0.05, reorder: 0.03, ..Link::default() };
        (0..3).for_each(|client| sim.links(client, bad, bad));
        for publisher in [1, 0, 1, 0, 1, 1, 0, 1] {
            look_at(&mut sim, WATCHER, publisher);
            sim.run_for(ms(130 + 90 * seed));
        }
        let good = Link { delay: ms(25), ..Link::default() };
        (0..3).for_each(|client| sim.links(client, good, good));
        let since = sim.now;
        sim.run_for(s(2));
        sim.drain();
        sim.check();
        let stream = picture(&mut sim, WATCHER);
        assert_eq!(stream.publishers().last(), Some(&1));
        assert!(stream.packets.last().expect("packets").at > since + s(1));
    }
}

#[test]
fn a_change_of_mind_shows_no_trace() {
    let mut sim = call(3, &Shape::default());
    for publisher in [1, 0, 1, 0] {
        look_at(&mut sim, WATCHER, publisher);
        sim.run_for(ms(30));
    }
    sim.run_for(s(1));
    sim.drain();
    sim.check();
    let stream = picture(&mut sim, WATCHER);
    assert_eq!(stream.publishers(), [0]);
    stream.assert_complete();
}

#[test]
fn a_publication_that_ends_while_it_is_being_bound_leaves_the_slot_to_others() {
    for after in [0, 10, 40, 60, 90] {
        let mut sim = call(after, &Shape::default());
        let since = sim.now;
        look_at(&mut sim, WATCHER, 1);
        sim.run_for(ms(after));
        let publication = sim.server.members[1].publications[1].publication;
        let now = sim.now;
        sim.server.command(now, 1, |participant, epoch| Command::Unpublish {
            participant,
            epoch,
            publication,
        });
        sim.run_for(ms(200));
        assert_eq!(sim.server.have(WATCHER).slots[1].publication, None, "nobody else is wanted");
        look_at(&mut sim, WATCHER, 0);
        sim.run_for(s(1));
        let slot = sim.server.have(WATCHER).slots.pop().expect("the slot");
        assert_eq!(slot.publication, Some(PublicationId(sim.publication(0, "1"))));
        assert!(!slot.pending, "after {after} ms");
        let last = picture(&mut sim, WATCHER).packets.pop().expect("packets");
        assert!(sim.now - last.at < ms(80) && last.at > since);
        sim.drain();
        sim.check();
    }
}

/// The offer with so many more slots for pictures at its end.
pub fn grown(offer: &str, more: usize) -> String {
    let count = offer.matches("\r\nm=").count();
    let at = offer.rfind("m=video").expect("a section of a picture");
    let mut grown = offer.to_owned();
    for mid in count..count + more {
        grown += &offer[at..].replace(&format!("a=mid:{}\r\n", count - 1), &format!("a=mid:{mid}\r\n"));
    }
    let bundle = |count: usize| (0..count).map(|mid| format!(" {mid}")).collect::<String>() + "\r\n";
    let group = "a=group:BUNDLE";
    grown.replace(&format!("{group}{}", bundle(count)), &format!("{group}{}", bundle(count + more)))
}

/// What the room's signaling half does with the answer to a grown offer.
pub fn grow(sim: &mut Sim, client: usize, answered: motet::signal::negotiate::Answered) {
    let (now, transport) = (sim.now, motet::id::TransportNumber(0));
    sim.clients[client].answered(now, &answered.sdp);
    let media = Box::new(answered.media);
    sim.server.command(now, client, |participant, epoch| Command::Sections {
        participant,
        epoch,
        transport,
        media,
    });
}

#[test]
fn an_offer_that_grows_in_mid_call_brings_more_pictures_and_disturbs_none() {
    let mut sim = Sim::new(20);
    sim.acknowledges = Some(ms(50));
    for _ in 0..5 {
        sim.raw_caller(1, &Shape::default());
    }
    let (client, mut offer) = Raw::new(5, sim.now, &VIEWER);
    sim.join(1, &offer, Box::new(client));
    sim.connect();
    sim.start_media();
    sim.run_for(s(1));
    let mut pictures = 1;
    for more in [2, 2] {
        let since = sim.now;
        offer = grown(&offer, more);
        let answered = sim.server.members[5].negotiator.answer(&offer).expect("a grown offer is answered");
        grow(&mut sim, 5, answered);
        pictures += more;
        sim.run_for(s(1));
        let streams = sim.media(5).streams();
        let came: Vec<&Stream> = streams.iter().filter(|stream| stream.kind == Kind::Video).collect();
        assert_eq!(came.len(), pictures);
        for stream in came {
            assert_eq!(stream.publishers().len(), 1, "nobody changes place");
            let first = stream.packets[0].at.max(since);
            assert!(first - since < ms(200), "{:?}", first - since);
            assert!(longest_gap(stream, since) < ms(60));
        }
        assert!(sim.server.have(5).slots.iter().all(|slot| slot.publication.is_some()));
    }
    sim.drain();
    sim.check();
    sim.media(5).streams().iter().for_each(Stream::assert_complete);
}
