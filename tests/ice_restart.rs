//! Where a participant's packets go: restarts, rebinding, silence, consent.

use std::net::SocketAddr;
use std::time::Duration;

use motet::control::{Command, Update};
use motet::id::TransportNumber;
use motet::observe::reason::Reason;

use crate::support::media::Kind;
use crate::support::network::Link;
use crate::support::raw::{Raw, Shape};
use crate::support::{Sim, ms, s};

/// The second address of client 1.
fn elsewhere() -> SocketAddr {
    "192.0.2.200:50000".parse().expect("an address")
}

/// Two raw clients; the offer of the second.
fn call() -> (Sim, String) {
    let mut sim = Sim::new(1);
    sim.raw_caller(1, &Shape::default());
    let (client, offer) = Raw::new(1, sim.now, &Shape::default());
    sim.join(1, &offer, Box::new(client));
    sim.connect();
    sim.start_media();
    sim.run_for(s(1));
    (sim, offer)
}

/// Where datagrams for client 1 arrived since then.
fn arrived_at(sim: &mut Sim, since: std::time::Instant) -> Vec<SocketAddr> {
    let mut addresses: Vec<_> =
        sim.raw(1).datagrams.iter().filter(|(at, ..)| *at > since).map(|(_, to, _)| *to).collect();
    addresses.dedup();
    addresses
}

fn restart(sim: &mut Sim, offer: &str) {
    let offer = sim.raw(1).restart_offer(offer);
    let answered = sim.server.members[1].negotiator.answer(&offer).expect("a restart is answered");
    assert!(answered.restart);
    let ufrag = sim.raw(1).server_ufrag.clone();
    assert!(answered.sdp.contains(&format!("a=ice-ufrag:{ufrag}\r\n")), "ours stays");
    let (now, remote) = (sim.now, answered.remote.credentials);
    let transport = TransportNumber(0);
    let command = |participant, epoch| Command::Restart { participant, epoch, transport, remote };
    sim.server.command(now, 1, command);
}

/// The longest time without any datagram at a client since then.
fn longest_silence(sim: &mut Sim, client: usize, since: std::time::Instant) -> Duration {
    let end = sim.now;
    let heard: Vec<_> = sim.media(client).heard.iter().copied().filter(|at| *at >= since).collect();
    let ends = heard.iter().skip(1).chain([&end]);
    heard.iter().zip(ends).map(|(a, b)| *b - *a).max().expect("something came")
}

fn silent_for(sim: &mut Sim, client: usize) -> Duration {
    sim.now - *sim.media(client).heard.last().expect("something came")
}

#[test]
fn in_a_restart_media_stays_on_the_old_pair_until_the_new_one_is_nominated() {
    let (mut sim, offer) = call();
    let old = sim.raw(1).address;
    let old_name = sim.raw(1).ufrag.clone();
    restart(&mut sim, &offer);
    sim.raw(1).checks = false;
    let since = sim.now;
    // Checks by the new name without nomination: answered, and nothing moves. Those by the old name are answered, too.
    for _ in 0..4 {
        sim.raw(1).send_check(elsewhere(), false);
        let by_old_name = sim.raw(1).check_named(&old_name, false);
        sim.raw(1).send(old, by_old_name);
        sim.run_for(ms(100));
    }
    assert_eq!(arrived_at(&mut sim, since), [old]);
    assert!(sim.raw(1).answers.iter().any(|(at, to)| *at > since && *to == elsewhere()));
    assert!(sim.raw(1).answers.iter().any(|(at, to)| *at > since && *to == old));
    // Nominated: everything moves at once, and the old name is worth nothing any more.
    sim.raw(1).send_check(elsewhere(), true);
    sim.raw(1).address = elsewhere();
    sim.run_for(ms(25));
    let since = sim.now;
    sim.run_for(ms(500));
    assert_eq!(arrived_at(&mut sim, since), [elsewhere()]);
    let by_old_name = sim.raw(1).check_named(&old_name, true);
    sim.raw(1).send(old, by_old_name);
    let since = sim.now;
    sim.run_for(ms(300));
    assert_eq!(arrived_at(&mut sim, since), [elsewhere()]);
    assert!(sim.server.dropped(Reason::StunUnknownUser) > 0);
    sim.drain();
    sim.check();
    for client in [0, 1] {
        sim.media(client).streams().iter().for_each(|stream| stream.assert_complete());
    }
    assert!(longest_silence(&mut sim, 1, since) <= ms(500));
}

#[test]
fn a_new_address_with_nomination_is_used_at_once() {
    let (mut sim, _) = call();
    sim.network.rebind(1, elsewhere());
    let now = sim.now;
    let address = sim.raw(1).address;
    sim.raw(1).send_check(address, true);
    sim.run_for(s(1));
    let gap = longest_silence(&mut sim, 1, now - ms(50));
    assert!(gap < ms(80), "{gap:?}");
    sim.drain();
    sim.check();
    for client in [0, 1] {
        sim.media(client).streams().iter().for_each(|stream| stream.assert_complete());
    }
}

#[test]
fn a_new_address_without_nomination_is_used_after_a_second_of_silence() {
    let (mut sim, _) = call();
    sim.raw(1).checks = false;
    sim.raw(1).nominates = false;
    sim.network.rebind(1, elsewhere());
    let rebound = sim.now;
    let address = sim.raw(1).address;
    // Media goes on from the new address, which is not known before a check came from it.
    let unknown = sim.server.dropped(Reason::UnknownAddress);
    sim.run_for(ms(40));
    for n in 1..=20 {
        sim.raw(1).send_check(address, false);
        sim.run_for(ms(100));
        let gap = sim.now - rebound;
        let heard = sim.media(1).heard.iter().any(|at| *at > rebound + ms(130));
        let media = arrived_at(&mut sim, rebound + ms(30)).is_empty();
        assert_eq!(heard && !media, gap > ms(1100), "after {gap:?}, check {n}");
        if gap > ms(1100) {
            break;
        }
    }
    assert!(sim.server.dropped(Reason::UnknownAddress) > unknown, "before the first check from there");
    sim.run_for(s(1));
    let since = sim.now;
    sim.run_for(ms(300));
    assert_eq!(arrived_at(&mut sim, since), [address]);
}

#[test]
fn a_check_from_another_address_does_not_take_a_living_one_over() {
    let (mut sim, _) = call();
    let old = sim.raw(1).address;
    let since = sim.now;
    for _ in 0..30 {
        sim.raw(1).send_check(elsewhere(), false);
        sim.run_for(ms(100));
    }
    assert_eq!(arrived_at(&mut sim, since), [old]);
}

#[test]
fn without_checks_nothing_is_sent_after_thirty_seconds_and_a_check_brings_it_back() {
    let (mut sim, _) = call();
    sim.raw(1).checks = false;
    let address = sim.raw(1).address;
    sim.raw(1).send_check(address, true);
    let last = sim.now;
    sim.run_for(s(29));
    assert!(silent_for(&mut sim, 1) < ms(600));
    sim.run_for(s(10));
    let heard = *sim.media(1).heard.last().expect("some");
    assert!(heard - last <= ms(30_100), "{:?}", heard - last);
    assert!(sim.server.dropped(Reason::NotConnected) > 0);
    sim.raw(1).send_check(address, true);
    sim.run_for(s(1));
    assert!(silent_for(&mut sim, 1) < ms(100));
    sim.drain();
    sim.check();
}

#[test]
fn an_idle_participant_hears_something_twice_a_second() {
    let mut sim = Sim::new(2);
    sim.raw_caller(1, &Shape { publishes: false, ..Shape::default() });
    sim.raw(0).sends_reports = false;
    sim.connect();
    sim.run_for(ms(100));
    let since = sim.now;
    sim.run_for(s(10));
    let silence = longest_silence(&mut sim, 0, since - ms(100));
    assert!(silence <= ms(515), "{silence:?}");
}

#[test]
fn silence_is_told_after_eight_seconds_and_so_is_its_end() {
    let (mut sim, _) = call();
    let id = sim.server.members[1].id;
    let now = sim.now;
    sim.network.set_up(1, Link::dead());
    sim.run_for(s(7));
    let heard = |sim: &Sim| -> Vec<(Duration, bool, u64)> {
        let of = |(at, update): &(std::time::Instant, Update)| match update {
            Update::Heard { participant, silent, since_ms, .. } if *participant == id => {
                Some((at.saturating_duration_since(now), *silent, *since_ms))
            }
            _ => None,
        };
        sim.server.updates.iter().filter_map(of).collect()
    };
    assert!(heard(&sim).is_empty());
    sim.run_for(s(2));
    let told = heard(&sim);
    assert_eq!(told.len(), 1, "{told:?}");
    let (at, silent, since_ms) = told[0];
    assert!(silent && at < ms(8600) && (8000..8600).contains(&since_ms), "{told:?}");
    sim.network.set_up(1, Link::default());
    sim.run_for(s(3));
    let told = heard(&sim);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(!told[1].1 && told[1].0 < ms(9000) + s(3), "{told:?}");
}

#[test]
fn who_never_comes_is_given_up() {
    let mut sim = Sim::new(3);
    sim.raw_caller(1, &Shape::default());
    sim.raw(0).checks = false;
    sim.run_for(s(25));
    assert_eq!(sim.server.closed(0), Some(Reason::DtlsDeadline));
    assert_eq!(sim.server.worker.poll_timeout(), None, "nothing is left to do");
}

#[test]
fn who_checks_and_says_nothing_more_is_given_up_too() {
    let mut sim = Sim::new(4);
    let (mut client, offer) = Raw::new(0, sim.now, &Shape::default());
    client.deaf_to_dtls();
    sim.join(1, &offer, Box::new(client));
    sim.run_for(s(12));
    assert_eq!(sim.server.closed(0), Some(Reason::DtlsDeadline));
}

#[test]
fn who_closes_is_gone_at_once() {
    let (mut sim, _) = call();
    sim.raw(1).close();
    sim.run_for(ms(50));
    assert_eq!(sim.server.closed(1), Some(Reason::DtlsClosed));
    sim.run_for(s(1));
    sim.check();
    let have = sim.server.have(0);
    assert!(have.slots.iter().all(|slot| slot.publication.is_none()), "nobody is left to be seen");
}

#[test]
fn two_clients_behind_one_translator_are_told_apart_by_port() {
    let (mut sim, _) = call();
    let shared = |port| SocketAddr::from(([203, 0, 113, 9], port));
    for client in [0, 1] {
        sim.network.rebind(client, shared(1000 + client as u16));
        let address = sim.raw(client).address;
        sim.raw(client).send_check(address, true);
    }
    sim.run_for(s(1));
    // Both translations are forgotten, and the ports come back exchanged.
    for client in [0, 1] {
        // What was on its way to the other.
        sim.raw(client).takes_foreign = true;
        sim.network.rebind(client, shared(1001 - client as u16));
        let address = sim.raw(client).address;
        sim.raw(client).send_check(address, true);
    }
    sim.run_for(ms(100));
    for client in [0, 1] {
        sim.raw(client).takes_foreign = false;
    }
    sim.run_for(s(1));
    sim.drain();
    sim.check();
    for client in [0, 1] {
        let streams = sim.media(client).streams();
        assert!(streams.iter().any(|stream| stream.kind == Kind::Video));
        streams.iter().for_each(|stream| stream.assert_complete());
    }
}
