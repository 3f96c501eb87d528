//! What happens within a call: roles, faults, mutes, departures, reports.

use std::time::Duration;

use motet::control::{Command, Update};
use motet::observe::reason::Reason;
use motet::room::Source;
use motet::worker::Stage;

use crate::support::media::{Kind, Report, Stream};
use crate::support::raw::{Raw, SIMULCAST, Shape};
use crate::support::{Sim, ms, s};

const WATCHER: Shape = Shape {
    publishes: false,
    rids: &[],
    audio_slots: 3,
    video_slots: 3,
    passive: false,
    firefox: false,
    names_sources: true,
};

fn call(seed: u64, shapes: &[Shape]) -> Sim {
    let mut sim = Sim::new(seed);
    for shape in shapes {
        sim.raw_caller(1, shape);
    }
    sim.connect();
    sim.start_media();
    sim
}

fn of_kind(sim: &mut Sim, client: usize, kind: Kind) -> Vec<Stream> {
    sim.media(client).streams().into_iter().filter(|stream| stream.kind == kind).collect()
}

fn finish(sim: &mut Sim) {
    sim.drain();
    sim.check();
}

#[test]
fn a_passive_client_gets_our_hello() {
    let mut sim = Sim::new(1);
    sim.raw_caller(1, &Shape { passive: true, ..Shape::default() });
    sim.caller(1);
    sim.connect();
    sim.start_media();
    sim.run_for(s(1));
    finish(&mut sim);
    for client in [0, 1] {
        let streams = sim.media(client).streams();
        assert_eq!(streams.len(), 2);
        streams.iter().for_each(Stream::assert_complete);
    }
}

#[test]
fn a_panic_removes_one_participant_and_nobody_else_notices() {
    for (seed, stage) in [(1, Stage::Receive), (2, Stage::Seal), (3, Stage::Tick)] {
        let mut sim = call(seed, &[Shape::default(), Shape::default(), Shape::default()]);
        sim.run_for(s(1));
        let (id, epoch) = (sim.server.members[1].id, sim.server.members[1].epoch);
        sim.server.worker.inject_panic(id, epoch, stage);
        sim.run_for(s(1));
        assert_eq!(sim.server.closed(1), Some(Reason::Panicked), "{stage:?}");
        assert_eq!(sim.server.dropped(Reason::Panicked), 1);
        sim.drain();
        let owners = sim.owners();
        for client in [0, 2] {
            let other = 2 - client as u32;
            for kind in [Kind::Audio, Kind::Video] {
                let streams = of_kind(&mut sim, client, kind);
                let of_other =
                    streams.iter().find(|stream| stream.publishers() == [other]).expect("one slot");
                of_other.check(&owners);
                of_other.assert_complete();
                let last = of_other.packets.last().expect("packets").at;
                assert!(sim.now - last < ms(960), "{stage:?}: it went on to the end");
            }
            let have = sim.server.have(client);
            assert_eq!(have.slots.iter().filter(|slot| slot.publication.is_some()).count(), 2);
        }
    }
}

#[test]
fn who_is_muted_is_not_heard_and_not_asked() {
    let mut sim = call(4, &[Shape::default(), WATCHER]);
    sim.run_for(s(1));
    let mute = |sim: &mut Sim, at: usize, muted| {
        let publication = sim.server.members[0].publications[at].publication;
        let now = sim.now;
        sim.server.command(now, 0, |participant, epoch| Command::Mute {
            participant,
            epoch,
            publication,
            muted,
        });
    };
    (0..2).for_each(|at| mute(&mut sim, at, true));
    sim.run_for(ms(50));
    let count =
        |sim: &mut Sim| sim.media(1).streams().iter().map(|stream| stream.packets.len()).sum::<usize>();
    let ssrc = sim.media(0).source("1", 0).ssrc;
    let (before, asked) = (count(&mut sim), sim.media(0).plis(ssrc));
    // The page goes on sending for a while, and a viewer asks.
    let slot = sim.media(1).slots.iter().find(|slot| slot.kind == Kind::Video).expect("one").ssrc;
    for _ in 0..4 {
        sim.raw(1).ask_for_keyframe(slot);
        sim.run_for(ms(500));
    }
    assert_eq!(count(&mut sim), before);
    assert_eq!(sim.media(0).plis(ssrc), asked, "a muted publisher is left alone");
    (0..2).for_each(|at| mute(&mut sim, at, false));
    sim.run_for(s(1));
    finish(&mut sim);
    assert!(count(&mut sim) > before + 60);
    sim.media(1).streams().iter().for_each(|stream| assert_eq!(stream.missing(), 0));
}

#[test]
fn however_many_ask_the_publisher_is_asked_once() {
    let mut sim = Sim::new(5);
    sim.raw_caller(1, &Shape::default());
    for _ in 0..12 {
        sim.raw_caller(1, &WATCHER);
    }
    sim.connect();
    sim.start_media();
    sim.run_for(s(2));
    let ssrc = sim.media(0).source("1", 0).ssrc;
    let before = sim.media(0).plis(ssrc);
    // All within one spacing, twice each.
    for _ in 0..2 {
        for client in 1..=12 {
            let slot =
                sim.media(client).slots.iter().find(|slot| slot.kind == Kind::Video).expect("one").ssrc;
            sim.raw(client).ask_for_keyframe(slot);
        }
        sim.run_for(ms(10));
    }
    sim.run_for(ms(300));
    assert_eq!(sim.media(0).plis(ssrc) - before, 1);
    finish(&mut sim);
}

#[test]
fn a_still_screen_appears_for_a_newcomer() {
    let mut sim = Sim::new(6);
    let (mut client, offer) = Raw::new(0, sim.now, &Shape::default());
    client.media.sources[1].source = Source::Screen;
    client.media.sources[1].still = true;
    sim.join(1, &offer, Box::new(client));
    sim.connect();
    sim.start_media();
    sim.run_for(s(5));
    let newcomer = sim.raw_caller(1, &WATCHER);
    sim.connect();
    sim.run_for(s(1));
    assert_eq!(of_kind(&mut sim, newcomer, Kind::Video).len(), 1, "the screen is seen");
    let ssrc = sim.media(0).source("1", 0).ssrc;
    let asked = sim.media(0).plis(ssrc);
    assert!((1..=3).contains(&asked), "{asked} requests");
    sim.run_for(s(5));
    assert_eq!(sim.media(0).plis(ssrc), asked, "and then the publisher is left alone");
    finish(&mut sim);
}

#[test]
fn a_publisher_that_begins_its_numbering_anew_is_followed() {
    for leap in [900_000, 0u32.wrapping_sub(900_000)] {
        let mut sim = call(7, &[Shape::default(), WATCHER]);
        sim.run_for(s(1));
        for mid in ["0", "1"] {
            let source = sim.clients[0].media().source(mid, 0);
            source.sequence = source.sequence.wrapping_add(20_000);
            source.timestamp = source.timestamp.wrapping_add(leap);
        }
        sim.run_for(s(2));
        finish(&mut sim);
        let lost = sim.media(0).nacked();
        assert!(lost < 10, "{lost} packets were asked for");
        for stream in sim.media(1).streams() {
            assert_eq!(stream.missing(), 0);
            let (came, rate) = (stream.media().count(), if stream.kind == Kind::Audio { 48 } else { 90 });
            assert!(
                came > if stream.kind == Kind::Audio { 140 } else { 3 * 70 },
                "{came} of {:?}",
                stream.kind
            );
            let steps = stream.packets.windows(2).map(|pair| pair[1].timestamp - pair[0].timestamp);
            let longest = steps.max().expect("packets") / rate;
            assert!(longest < 150, "the slot's clock leapt by {longest} ms");
        }
    }
}

#[test]
fn chromium_gets_transport_feedback_and_firefox_a_bitrate() {
    let mut sim = Sim::new(8);
    sim.raw_caller(1, &Shape::default());
    sim.raw_caller(1, &Shape { firefox: true, ..Shape::default() });
    // Chromium numbers its packets.
    sim.raw(0).numbers_packets = true;
    sim.connect();
    sim.start_media();
    sim.run_for(s(3));
    finish(&mut sim);
    let of = |sim: &mut Sim, client: usize, wanted: fn(&Report) -> Option<usize>| -> Vec<usize> {
        sim.media(client).reports.iter().filter_map(|(_, report)| wanted(report)).collect()
    };
    let feedback = |report: &Report| if let Report::TransportCc(n) = report { Some(*n) } else { None };
    let bitrate = |report: &Report| if let Report::Remb(rate) = report { Some(*rate as usize) } else { None };
    let acknowledged = of(&mut sim, 0, feedback);
    let sent = u64::from(sim.raw(0).transport_cc);
    assert_eq!(acknowledged.iter().sum::<usize>() as u64, sent, "every packet is accounted for once");
    assert!((25..=60).contains(&acknowledged.len()), "{} messages in 3 s", acknowledged.len());
    assert!(of(&mut sim, 0, bitrate).is_empty());
    let rates = of(&mut sim, 1, bitrate);
    assert!(of(&mut sim, 1, feedback).is_empty());
    assert!(rates.len() >= 13 && rates.iter().all(|rate| rate.abs_diff(5_000_000) < 50_000), "{rates:?}");
}

#[test]
fn the_first_receiver_report_comes_within_a_tenth_of_a_second() {
    let mut sim = call(9, &[SIMULCAST, WATCHER]);
    let began = sim.now;
    sim.run_for(s(1));
    for layer in 0..3 {
        let ssrc = sim.media(0).source("1", layer).ssrc;
        let first = sim.media(0).reports.iter().find_map(|(at, report)| match report {
            Report::Receiver(blocks) if blocks.contains(&ssrc) => Some(*at - began),
            _ => None,
        });
        // Two ways through the network, and the server's wait.
        assert!(first.expect("a report") <= ms(120), "{first:?} for layer {layer}");
    }
}

#[test]
fn reports_to_a_viewer_leave_with_its_media() {
    let mut sim = call(12, &[Shape::default(), WATCHER]);
    sim.run_for(s(3));
    let settled = sim.now;
    sim.run_for(s(5));
    let viewer = sim.media(1);
    let reports: Vec<_> = viewer.reports.iter().map(|(at, _)| *at).filter(|at| *at > settled).collect();
    let media: Vec<_> = viewer.received.values().flatten().map(|packet| packet.at).collect();
    assert!(reports.len() >= 10, "at least twice a second: {}", reports.len());
    let alone = reports.iter().filter(|at| !media.contains(at)).count();
    assert_eq!(alone, 0, "of {}", reports.len());
}

/// Where a slot's packets and sender reports stand: NTP time in ns against RTP ticks in ns.
fn clock_offsets(sim: &mut Sim, client: usize, ssrc: u32, rate: i64) -> Vec<i64> {
    let reports = &sim.media(client).reports;
    let mut origin: Option<(u64, u32)> = None;
    let mut offsets = Vec::new();
    for (_, report) in reports {
        if let Report::Sender { ssrc: of, ntp, rtp, .. } = report
            && *of == ssrc
        {
            let (first_ntp, first_rtp) = *origin.get_or_insert((*ntp, *rtp));
            let wall = ((ntp.wrapping_sub(first_ntp) as i128 * 1_000_000_000) >> 32) as i64;
            let media = i64::from(rtp.wrapping_sub(first_rtp).cast_signed()) * 1_000_000_000 / rate;
            offsets.push(media - wall);
        }
    }
    offsets
}

#[test]
fn one_line_holds_between_the_clock_and_a_slots_timestamps_whoever_it_carries() {
    let mut sim = call(10, &[Shape::default(), WATCHER, Shape::default()]);
    // Another clock, as far off as clocks are, and another distance.
    sim.network.set_up(2, crate::support::network::Link { delay: ms(60), ..Default::default() });
    sim.want(1, 180);
    sim.run_for(s(3));
    let now = sim.now;
    sim.media(0).stop();
    sim.server.command(now, 0, |participant, epoch| Command::Leave {
        participant,
        epoch,
        reason: Reason::Bye,
    });
    sim.run_for(s(3));
    finish(&mut sim);
    for (kind, rate) in [(Kind::Audio, 48_000), (Kind::Video, 90_000)] {
        let slots = sim.media(1).slots.clone();
        for slot in slots.iter().filter(|slot| slot.kind == kind) {
            let offsets = clock_offsets(&mut sim, 1, slot.ssrc, rate);
            if offsets.is_empty() {
                continue;
            }
            let spread = offsets.iter().max().expect("some") - offsets.iter().min().expect("some");
            let spread = Duration::from_nanos(spread as u64);
            assert!(spread < ms(80), "{kind:?}: {spread:?} in {offsets:?}");
        }
    }
}

#[test]
fn a_newer_epoch_replaces_the_older_and_its_commands_are_ignored() {
    let mut sim = call(11, &[Shape::default(), WATCHER]);
    sim.run_for(ms(500));
    let (client, offer) = Raw::new(0, sim.now, &Shape::default());
    let id = sim.server.members[0].id;
    // The same person, reloaded: a transport of its own.
    let member = sim.rejoin(0, &offer, Box::new(client));
    sim.run_for(s(2));
    assert!(sim.server.updates.iter().any(
        |(_, update)| matches!(update, Update::Connected { participant, epoch, .. } if *participant == id && epoch.0 == 2)
    ));
    let now = sim.now;
    sim.server.worker.handle_command(
        now,
        Command::Leave { participant: id, epoch: motet::id::Epoch(1), reason: Reason::Silent },
    );
    sim.start_media();
    sim.run_for(s(1));
    assert_eq!(member, 0);
    assert!(sim.server.dropped(Reason::Replaced) == 1);
    sim.drain();
    let owners = sim.owners();
    let streams = sim.media(1).streams();
    assert!(!streams.is_empty());
    for stream in streams {
        stream.check(&owners);
        assert!(sim.now - stream.packets.last().expect("some").at < s(1), "the new one is seen");
    }
}

#[test]
fn who_is_away_leaves_the_slots_and_returns() {
    let mut sim = call(12, &[Shape::default(), WATCHER]);
    sim.run_for(s(1));
    let away = |sim: &mut Sim, away| {
        let now = sim.now;
        sim.server.command(now, 0, |participant, epoch| Command::Away { participant, epoch, away });
        sim.run_for(ms(20));
        sim.server.have(1).slots.iter().filter(|slot| slot.publication.is_some()).count()
    };
    assert_eq!(away(&mut sim, true), 0);
    sim.run_for(s(1));
    assert_eq!(away(&mut sim, false), 2);
    sim.run_for(s(2));
    finish(&mut sim);
    for stream in sim.media(1).streams() {
        assert_eq!(stream.missing(), 0);
    }
}

#[test]
fn sound_levels_and_nothing_else_of_the_extensions_arrive() {
    let mut sim = call(13, &[Shape::default(), WATCHER]);
    sim.run_for(s(1));
    finish(&mut sim);
    for (ssrc, arrivals) in &sim.media(1).received {
        for arrival in arrivals {
            let ids = arrival.header.get_extension_ids();
            let audio = arrival.header.payload_type == 111;
            let allowed: &[u8] = if audio { &[1, 3] } else { &[3] };
            assert!(ids.iter().all(|id| allowed.contains(id)), "{ids:?} from {ssrc}");
            assert_eq!(arrival.header.get_extension(1).is_some(), audio);
        }
    }
    let stream = of_kind(&mut sim, 1, Kind::Audio).remove(0);
    stream.assert_complete();
}

#[test]
fn nothing_of_a_muted_person_reaches_a_newcomer() {
    let mut sim = call(14, &[Shape::default(), WATCHER]);
    sim.run_for(s(1));
    // A keyframe that is young enough to be repeated, and then silence.
    sim.media(0).source("1", 0).keyframe_wanted = true;
    sim.run_for(ms(60));
    for at in 0..2 {
        let publication = sim.server.members[0].publications[at].publication;
        let now = sim.now;
        sim.server.command(now, 0, |participant, epoch| Command::Mute {
            participant,
            epoch,
            publication,
            muted: true,
        });
    }
    let newcomer = sim.raw_caller(1, &WATCHER);
    sim.connect();
    sim.run_for(s(2));
    assert!(sim.media(newcomer).streams().is_empty());
    finish(&mut sim);
}

#[test]
fn the_first_packet_of_a_voice_in_a_slot_carries_the_marker() {
    let mut sim = call(15, &[Shape::default(), WATCHER]);
    sim.run_for(s(1));
    finish(&mut sim);
    let sound = of_kind(&mut sim, 1, Kind::Audio).remove(0);
    assert!(sound.packets[0].marker);
    assert!(sound.packets[1..].iter().all(|packet| !packet.marker));
}

#[test]
fn a_sender_report_comes_with_the_first_packet_of_a_binding() {
    let mut sim = call(16, &[Shape::default(), WATCHER]);
    sim.run_for(ms(600));
    for slot in sim.media(1).slots.clone() {
        let Some(first) = sim.media(1).received.get(&slot.ssrc).map(|arrivals| arrivals[0].at) else {
            continue;
        };
        let report = sim.media(1).reports.iter().find_map(|(at, report)| match report {
            Report::Sender { ssrc, .. } if *ssrc == slot.ssrc => Some(*at),
            _ => None,
        });
        assert_eq!(report, Some(first), "{:?}", slot.kind);
    }
}
