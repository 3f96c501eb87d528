//! Whatever arrives, from strangers and from hostile participants: a counted reason, and nobody else notices.

use std::net::SocketAddr;

use bytes::Bytes;
use motet::observe::reason::Reason;
use rtp::header::Header;
use shared::marshal::Marshal as _;

use crate::support::media::{Kind, Stream};
use crate::support::network::Rng;
use crate::support::raw::{IDS, Raw, SIMULCAST, Shape};
use crate::support::{Sim, ms, s};

fn stranger() -> SocketAddr {
    "203.0.113.66:6666".parse().expect("an address")
}

/// Two honest people (0 and 2) and a hostile one (1), whose packets the others do not judge.
fn call(seed: u64) -> Sim {
    let mut sim = Sim::new(seed);
    for shape in [Shape::default(), SIMULCAST, Shape::default()] {
        sim.raw_caller(1, &shape);
    }
    let ignored: Vec<u32> = ["0", "1"].iter().map(|mid| sim.publication(1, mid)).collect();
    for client in [0, 2] {
        sim.media(client).ignored.clone_from(&ignored);
    }
    sim.connect();
    sim.start_media();
    sim.media(1).stop();
    sim.run_for(ms(500));
    sim
}

/// The honest ones see and hear each other, completely.
fn assert_unharmed(sim: &mut Sim) {
    sim.run_for(ms(500));
    sim.drain();
    sim.check();
    for (client, other) in [(0, 2), (2, 0)] {
        let streams = sim.media(client).streams();
        assert_eq!(streams.len(), 2);
        for stream in streams {
            assert_eq!(stream.publishers(), [other]);
            stream.assert_complete();
            let last = stream.packets.last().expect("packets").at;
            assert!(sim.now - last < ms(960), "it went on to the end");
        }
        assert_eq!(sim.server.closed(client), None);
    }
}

fn dropped(sim: &Sim) -> u64 {
    sim.server.worker.traffic().dropped.nonzero().map(|(_, count)| count).sum()
}

#[test]
fn strangers_get_a_reason_and_no_answer() {
    let mut sim = call(1);
    sim.captured = Some(Vec::new());
    sim.run_for(s(1));
    let captured = sim.captured.take().expect("kept");
    let mut rng = Rng::new(1);
    let mut sent = 0;
    let before = dropped(&sim);
    for round in 0..3000 {
        let mut bytes = if rng.chance(0.3) {
            let len = rng.below(1300);
            rng.bytes(len)
        } else {
            captured[rng.below(captured.len())].1.clone()
        };
        // The unspoiled copy of a check is answered, as it is authentic; of all else not even that.
        let is_check = bytes.first().is_some_and(|first| *first < 4);
        for _ in 0..rng.below(6) + usize::from(is_check) {
            if !bytes.is_empty() {
                let at = rng.below(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
            }
        }
        if rng.chance(0.2) {
            bytes.truncate(rng.below(bytes.len() + 1));
        }
        if rng.chance(0.1) {
            bytes.extend(rng.bytes(7));
        }
        let unspoiled = captured.iter().any(|(_, original)| is_check && *original == bytes);
        if unspoiled {
            continue;
        }
        sent += 1;
        let answers = sim.inject(stranger(), &bytes);
        assert!(answers.is_empty(), "round {round}: {bytes:02x?} was answered with {answers:02x?}");
    }
    assert_eq!(dropped(&sim) - before, sent, "each has a reason");
    assert_unharmed(&mut sim);
}

#[test]
fn a_hello_from_a_stranger_and_media_before_the_handshake_are_dropped() {
    let mut sim = Sim::new(2);
    let (client, offer) = Raw::new(0, sim.now, &Shape::default());
    sim.join(1, &offer, Box::new(client));
    sim.captured = Some(Vec::new());
    sim.connect();
    let captured = sim.captured.take().expect("kept");
    let hello = captured.iter().find(|(_, bytes)| bytes[0] == 22).expect("a hello").1.clone();
    assert!(sim.inject(stranger(), &hello).is_empty());
    assert_eq!(sim.server.dropped(Reason::UnknownAddress), 1);

    let (mut client, offer) = Raw::new(1, sim.now, &Shape::default());
    client.deaf_to_dtls();
    sim.join(1, &offer, Box::new(client));
    sim.run_for(ms(100));
    let address = sim.raw(1).address;
    for bytes in [&[0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 1, 2, 3, 4][..], &[0x80, 200, 0, 1, 0, 0, 0, 7]]
    {
        let mut bytes = bytes.to_vec();
        bytes.resize(60, 0);
        assert!(sim.inject(address, &bytes).is_empty());
    }
    assert_eq!(sim.server.dropped(Reason::SrtpBeforeKeys), 2);
}

#[test]
fn replayed_reflected_and_borrowed_datagrams_are_dropped() {
    let mut sim = call(3);
    sim.captured = Some(Vec::new());
    sim.run_for(s(1));
    let captured = sim.captured.take().expect("kept");
    let (honest, hostile) = (sim.raw(0).address, sim.raw(1).address);
    let media = |bytes: &[u8]| (128..192).contains(&bytes[0]);
    let replays =
        |sim: &Sim| sim.server.dropped(Reason::SrtpReplayed) + sim.server.dropped(Reason::SrtpTooOld);
    let before = (replays(&sim), sim.server.dropped(Reason::SrtpAuthentication));
    let mut copies = 0;
    for (from, bytes) in captured.iter().filter(|(from, bytes)| *from == honest && media(bytes)) {
        sim.inject(*from, bytes);
        sim.inject(hostile, bytes);
        copies += 1;
    }
    assert!(copies > 100);
    assert_eq!(replays(&sim) - before.0, copies, "somebody repeats what was sent");
    assert_eq!(sim.server.dropped(Reason::SrtpAuthentication) - before.1, copies, "or says it was him");
    let reflected: Vec<_> = sim.raw(1).datagrams.iter().map(|(.., bytes)| bytes.clone()).collect();
    let before = sim.server.dropped(Reason::SrtpAuthentication);
    for bytes in &reflected {
        sim.inject(hostile, bytes);
        sim.inject(honest, bytes);
    }
    assert_eq!(sim.server.dropped(Reason::SrtpAuthentication) - before, 2 * reflected.len() as u64);
    assert_unharmed(&mut sim);
}

fn header(ssrc: u32, payload_type: u8, sequence: u16, names: &[(u8, &str)]) -> Header {
    let mut header = Header {
        version: 2,
        payload_type,
        sequence_number: sequence,
        ssrc,
        timestamp: 1,
        ..Header::default()
    };
    for (id, value) in names {
        header.set_extension(*id, Bytes::copy_from_slice(value.as_bytes())).expect("fits");
    }
    header
}

fn send(sim: &mut Sim, header: Header, payload: &[u8]) {
    let packet = rtp::packet::Packet { header, payload: Bytes::copy_from_slice(payload) };
    let plain = packet.marshal().expect("marshals");
    sim.raw(1).send_rtp(&plain);
    sim.run_for(ms(15));
}

#[test]
fn another_participants_names_are_worth_nothing() {
    let mut sim = call(4);
    let victim = sim.media(0).source("1", 0).clone();
    let slot = sim.media(2).slots[3].clone();
    let payload = [0x90, 0xf0, 0x81, 0x01, 1, 1, 0, 0, 0, 0x9d, 0x01, 0x2a, 64, 0, 64, 0, 1, 2, 3];
    for n in 0..50 {
        // The victim's source with the victim's section, which is the liar's own of that name.
        send(&mut sim, header(victim.ssrc, 96, n, &[(IDS.mid, "1"), (IDS.rid, "f")]), &payload);
        // The server's source towards the victim, the victim's retransmissions, a slot's section.
        send(&mut sim, header(slot.ssrc, 96, n, &[(IDS.mid, "1"), (IDS.rid, "h")]), &payload);
        send(
            &mut sim,
            header(slot.rtx.expect("video"), 97, n, &[(IDS.mid, "1"), (IDS.repaired_rid, "h")]),
            &payload,
        );
        send(&mut sim, header(77, 96, n, &[(IDS.mid, &slot.mid)]), &payload);
    }
    assert!(sim.server.dropped(Reason::UnknownStream) >= 50, "slots are no sending sections");
    // Requests about somebody else's sources.
    for ssrc in [victim.ssrc, slot.ssrc, 0, u32::MAX] {
        sim.raw(1).ask_for_keyframe(ssrc);
        sim.raw(1).ask_for(ssrc, &[0, 1, 2, 65_535]);
    }
    let asked = sim.media(0).plis(victim.ssrc);
    sim.run_for(ms(200));
    assert_eq!(sim.media(0).plis(victim.ssrc), asked, "nobody else is bothered");
    assert_unharmed(&mut sim);
}

#[test]
fn contradicting_packets_have_their_reasons() {
    let mut sim = call(5);
    let opus = [0xf8, 1, 2, 3];
    let reasons = |sim: &Sim, reason| sim.server.dropped(reason);
    // No name at all; an unknown one; an encoding that was not offered.
    let before = reasons(&sim, Reason::UnknownStream);
    send(&mut sim, header(1, 111, 1, &[]), &opus);
    send(&mut sim, header(1, 111, 2, &[(IDS.mid, "nobody")]), &opus);
    send(&mut sim, header(1, 96, 3, &[(IDS.mid, "1"), (IDS.rid, "x")]), &opus);
    send(&mut sim, header(1, 96, 4, &[(IDS.mid, "1")]), &opus);
    assert_eq!(reasons(&sim, Reason::UnknownStream) - before, 4);
    // A payload type of another section, and of none.
    let before = reasons(&sim, Reason::UnknownPayloadType);
    send(&mut sim, header(1, 96, 5, &[(IDS.mid, "0")]), &opus);
    send(&mut sim, header(1, 33, 6, &[(IDS.mid, "0")]), &opus);
    assert_eq!(reasons(&sim, Reason::UnknownPayloadType) - before, 2);
    // A source that changes its section, or becomes its own retransmission.
    send(&mut sim, header(9, 111, 7, &[(IDS.mid, "0")]), &opus);
    let before = reasons(&sim, Reason::StreamConflict);
    send(&mut sim, header(9, 111, 8, &[(IDS.mid, "1")]), &opus);
    // A second source of the same encoding.
    send(&mut sim, header(10, 111, 9, &[(IDS.mid, "0")]), &opus);
    assert_eq!(reasons(&sim, Reason::StreamConflict) - before, 2);
    // A payload that is no VP8, and padding that is longer than its packet.
    let before = reasons(&sim, Reason::CodecMalformed);
    send(&mut sim, header(11, 96, 1, &[(IDS.mid, "1"), (IDS.rid, "q")]), &[0x90]);
    assert_eq!(reasons(&sim, Reason::CodecMalformed) - before, 1);
    let before = reasons(&sim, Reason::RtpMalformed);
    let mut plain = vec![0xa0, 96, 0, 2, 0, 0, 0, 0, 0, 0, 0, 11];
    plain.extend([0x90, 0, 200]);
    sim.raw(1).send_rtp(&plain);
    sim.run_for(ms(15));
    assert_eq!(reasons(&sim, Reason::RtpMalformed) - before, 1);
    assert_unharmed(&mut sim);
}

#[test]
fn rtcp_with_absurd_lengths_is_dropped() {
    let mut sim = call(6);
    let before = sim.server.dropped(Reason::RtcpMalformed);
    let mut count = 0;
    for kind in [200u8, 201, 202, 203, 205, 206] {
        for format in [0x80u8, 0x81, 0x8f, 0x9f, 0xa1] {
            for length in [0u16, 1, 2, 3, 100, 0x7fff, 0xffff] {
                let mut plain = vec![format, kind];
                plain.extend(length.to_be_bytes());
                plain.extend([0xff; 20]);
                sim.raw(1).send_rtcp(&plain);
                count += 1;
            }
        }
    }
    sim.run_for(ms(50));
    let refused = sim.server.dropped(Reason::RtcpMalformed) - before;
    assert!(refused > count * 5 / 7, "{refused} of {count}");
    assert_unharmed(&mut sim);
}

#[test]
fn an_authenticated_participant_may_send_anything() {
    for seed in 0..3 {
        let mut sim = call(seed);
        sim.media(1).sources.iter_mut().for_each(|source| source.active = true);
        sim.captured = Some(Vec::new());
        sim.run_for(ms(700));
        let captured = sim.captured.take().expect("kept");
        let hostile = sim.raw(1).address;
        let mut rng = Rng::new(seed);
        for _ in 0..1500 {
            let len = 12 + rng.below(200);
            let mut plain = rng.bytes(len);
            plain[0] = 0x80 | (plain[0] & 0x3f);
            match rng.below(5) {
                // Its own sources with random contents and numbers.
                0 => {
                    let sources = &sim.raw(1).media.sources;
                    let source = sources[rng.below(sources.len())].clone();
                    plain[0] = 0x80 | [0, 0x20, 0x10, 0x01][rng.below(4)];
                    plain[1] = (plain[1] & 0x80) | source.payload_type;
                    let sequence = source.sequence.wrapping_add(rng.below(40) as u16);
                    plain[2..4].copy_from_slice(&sequence.to_be_bytes());
                    plain[8..12].copy_from_slice(&source.ssrc.to_be_bytes());
                    sim.raw(1).send_rtp(&plain);
                }
                1 => sim.raw(1).send_rtp(&plain),
                2 => {
                    plain[1] = 200 + rng.below(8) as u8;
                    let words = (plain.len() / 4 - 1) as u16;
                    plain.truncate(usize::from(words + 1) * 4);
                    plain[2..4].copy_from_slice(&words.to_be_bytes());
                    sim.raw(1).send_rtcp(&plain);
                }
                3 => {
                    let mut copy = captured[rng.below(captured.len())].1.clone();
                    let at = rng.below(copy.len());
                    copy[at] ^= 1 << rng.below(8);
                    sim.raw(1).send(hostile, copy);
                }
                _ => {
                    let slot = sim.media(1).slots[rng.below(6)].ssrc;
                    let numbers: Vec<u16> = (0..8).map(|_| rng.next() as u16).collect();
                    sim.raw(1).ask_for(slot, &numbers);
                    sim.raw(1).ask_for_keyframe(slot);
                }
            }
            sim.run_for(ms(1));
        }
        sim.media(1).stop();
        assert_unharmed(&mut sim);
        assert_eq!(sim.server.closed(1), None, "it is not even removed");
        let heard: Vec<Stream> = sim.media(1).streams();
        assert!(heard.iter().any(|stream| stream.kind == Kind::Audio), "and goes on hearing the others");
    }
}
