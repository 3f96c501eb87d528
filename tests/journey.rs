//! Two people and a third meet: everything that each sends arrives at the others, exactly, and nothing else does.

use crate::support::media::Kind;
use crate::support::raw::Shape;
use crate::support::{Sim, ms, s};

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
