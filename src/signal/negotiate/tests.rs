//! What offers of real browsers come to, and what is refused.

use std::io::Cursor;

use ::sdp::SessionDescription;
use proptest::prelude::*;

use super::*;
use crate::id::Rid;
use crate::observe::reason::Reason;
use crate::room::{Feedback, Kind, SendingSection};

macro_rules! offers {
    ($($name:ident = $file:literal,)*) => {
        $(const $name: &str = include_str!(concat!("../../../tests/data/offers/", $file, ".sdp"));)*
        const ALL: &[(&str, &str)] = &[$(($file, $name),)*];
    };
}

offers! {
    CHROMIUM_JOIN = "chromium-join",
    CHROMIUM_GROWN = "chromium-grown",
    CHROMIUM_RESTART = "chromium-restart",
    CHROMIUM_CAMERA_OFF = "chromium-camera-off",
    CHROMIUM_STOPPED = "chromium-stopped",
    CHROMIUM_RECYCLED = "chromium-recycled",
    CHROMIUM_UNTRIMMED = "chromium-untrimmed",
    CHROMIUM_DATA = "chromium-data",
    CHROMIUM_MINIMAL = "chromium-minimal",
    CHROMIUM_25 = "chromium-slots-25",
    CHROMIUM_49 = "chromium-slots-49",
    FIREFOX_JOIN = "firefox-join",
    FIREFOX_GROWN = "firefox-grown",
    FIREFOX_RESTART = "firefox-restart",
    FIREFOX_CAMERA_OFF = "firefox-camera-off",
    FIREFOX_STOPPED = "firefox-stopped",
    FIREFOX_RECYCLED = "firefox-recycled",
    FIREFOX_UNTRIMMED = "firefox-untrimmed",
    FIREFOX_DATA = "firefox-data",
    FIREFOX_MINIMAL = "firefox-minimal",
    FIREFOX_25 = "firefox-slots-25",
    FIREFOX_49 = "firefox-slots-49",
}

/// One connection's offers in the order in which the browser made them.
const LIVES: [[&str; 6]; 2] = [
    [
        CHROMIUM_JOIN,
        CHROMIUM_GROWN,
        CHROMIUM_RESTART,
        CHROMIUM_CAMERA_OFF,
        CHROMIUM_STOPPED,
        CHROMIUM_RECYCLED,
    ],
    [FIREFOX_JOIN, FIREFOX_GROWN, FIREFOX_RESTART, FIREFOX_CAMERA_OFF, FIREFOX_STOPPED, FIREFOX_RECYCLED],
];

fn environment() -> Environment {
    Environment {
        candidates: vec![
            "192.0.2.1:7882".parse().expect("v4"),
            "[2001:db8::1]:7882".parse().expect("v6"),
            "[::ffff:192.0.2.2]:7883".parse().expect("mapped"),
        ],
        fingerprint: ["AB"; 32].join(":"),
        worker: 0x2a,
        limits: Limits::default(),
    }
}

fn negotiator() -> Negotiator {
    Negotiator::new(&environment())
}

fn answer(offer: &str) -> Answered {
    negotiator().answer(offer).expect("answered")
}

fn refusal(offer: &str) -> Reason {
    negotiator().answer(offer).expect_err("refused").reason
}

/// The session's lines, then each section's.
fn parts(sdp: &str) -> Vec<Vec<&str>> {
    let mut parts = vec![Vec::new()];
    for line in sdp.lines() {
        if line.starts_with("m=") {
            parts.push(Vec::new());
        }
        parts.last_mut().expect("never empty").push(line);
    }
    parts
}

fn count(sdp: &str, start: &str) -> usize {
    sdp.lines().filter(|line| line.starts_with(start)).count()
}

fn rids(section: &SendingSection) -> Vec<&str> {
    section.rids.iter().map(Rid::as_str).collect()
}

#[test]
fn every_answer_mirrors_its_offer() {
    for (name, offer) in ALL {
        let answered = answer(offer);
        let offered = SessionDescription::unmarshal(&mut Cursor::new(offer)).expect("an offer");
        let parsed = SessionDescription::unmarshal(&mut Cursor::new(&answered.sdp)).expect("an answer");
        assert_eq!(offered.media_descriptions.len(), parsed.media_descriptions.len(), "{name}");
        for (a, b) in offered.media_descriptions.iter().zip(&parsed.media_descriptions) {
            assert_eq!(a.media_name.media, b.media_name.media, "{name}");
            assert_eq!(a.media_name.protos, b.media_name.protos, "{name}");
            assert_eq!(a.attribute("mid"), b.attribute("mid"), "{name}");
            assert!(b.media_name.formats.iter().all(|format| a.media_name.formats.contains(format)));
        }
        assert!(answered.sdp.ends_with("\r\n"));
    }
}

#[test]
fn transport_attributes_stand_once_and_before_the_sections() {
    for (name, offer) in ALL {
        let negotiator = &mut negotiator();
        let sdp = negotiator.answer(offer).expect("answered").sdp;
        let parts = parts(&sdp);
        let Credentials { ufrag, pwd } = negotiator.local();
        for line in [
            "a=ice-lite".to_owned(),
            "a=setup:passive".to_owned(),
            format!("a=ice-ufrag:{ufrag}"),
            format!("a=ice-pwd:{pwd}"),
            format!("a=fingerprint:sha-256 {}", environment().fingerprint),
        ] {
            assert!(parts[0].contains(&&*line), "{name}: {line}");
            let key = line.split(':').next().expect("a key");
            assert_eq!(count(&sdp, key), 1, "{name}: {key}");
        }
        assert_eq!(count(&sdp, "a=group:BUNDLE "), 1, "{name}");
    }
}

#[test]
fn candidates_stand_in_the_first_section_best_first() {
    let sdp = answer(CHROMIUM_JOIN).sdp;
    let candidates: Vec<_> = sdp.lines().filter(|line| line.starts_with("a=candidate:")).collect();
    assert_eq!(
        candidates,
        [
            "a=candidate:1 1 udp 2130706431 192.0.2.1 7882 typ host",
            "a=candidate:2 1 udp 2130706175 2001:db8::1 7882 typ host",
            "a=candidate:3 1 udp 2130705919 192.0.2.2 7883 typ host",
        ]
    );
    let parts = parts(&sdp);
    assert!(parts[1].ends_with(&[candidates[0], candidates[1], candidates[2], "a=end-of-candidates"]));
    assert_eq!(count(&sdp, "a=end-of-candidates"), 1);
}

#[test]
fn nothing_is_answered_that_is_not_understood() {
    for (name, offer) in ALL {
        let sdp = answer(offer).sdp;
        for forbidden in [
            "extmap-allow-mixed",
            "dependency-descriptor",
            "abs-send-time",
            "toffset",
            "video-layers-allocation",
            "csrc-audio-level",
            "red/",
            "ulpfec",
            "flexfec",
            "H264",
            "VP9",
            "AV1",
            "telephone-event",
            "PCMU",
            "a=rtcp:",
            "a=rtcp-xr",
            "max-fs",
            "a=ice-options",
            "a=bundle-only",
            "a=sctp-port",
        ] {
            assert!(!sdp.contains(forbidden), "{name}: {forbidden}");
        }
        let mappings: BTreeSet<_> =
            sdp.lines().filter(|line| line.starts_with("a=rtpmap:")).map(|line| &line[10..]).collect();
        assert!(mappings.iter().all(|mapping| {
            ["opus/48000/2", "VP8/90000", "rtx/90000"].iter().any(|name| mapping.ends_with(name))
        }));
    }
}

#[test]
fn chromium_sends_three_encodings_and_numbers_its_packets() {
    for offer in [CHROMIUM_JOIN, CHROMIUM_UNTRIMMED] {
        let Answered { sdp, media, remote, restart } = answer(offer);
        assert_eq!(media.feedback, Feedback::TransportCc);
        assert_eq!(remote.role, DtlsRole::Server);
        assert!(!restart);
        let kinds: Vec<_> = media.sending.iter().map(|section| section.kind).collect();
        assert_eq!(kinds, [Kind::Audio, Kind::Video, Kind::Video, Kind::Audio]);

        let [microphone, camera, screen, _] = &media.sending[..] else { panic!("four sections") };
        assert_eq!((camera.payload_type, camera.rtx_payload_type), (96, Some(97)));
        assert_eq!(rids(camera), ["f", "h", "q"]);
        assert_eq!(rids(screen), ["f", "h"]);
        assert!(camera.nack && camera.ssrcs.is_empty());
        let ids = camera.extensions;
        assert_eq!((ids.mid, ids.rid, ids.repaired_rid), (4, 10, 11));
        assert_eq!((ids.transport_cc, ids.audio_level, ids.video_orientation), (3, 0, 13));
        assert_eq!((microphone.payload_type, microphone.rtx_payload_type), (111, None));
        assert!(microphone.nack);
        let ids = microphone.extensions;
        assert_eq!((ids.mid, ids.transport_cc, ids.audio_level), (4, 3, 1));
        assert_eq!((microphone.ssrcs.len(), microphone.ssrcs[0].rtx), (1, None));

        let parts = parts(&sdp);
        for line in [
            "a=recvonly",
            "a=rtcp-mux",
            "a=rtcp-rsize",
            "a=rtcp-fb:96 nack",
            "a=rtcp-fb:96 nack pli",
            "a=rtcp-fb:96 ccm fir",
            "a=rtcp-fb:96 transport-cc",
            "a=fmtp:97 apt=96",
            "a=extmap:13 urn:3gpp:video-orientation",
            "a=rid:f recv",
            "a=simulcast:recv f;h;q",
        ] {
            assert!(parts[2].contains(&line), "{line} in {:#?}", parts[2]);
        }
        assert!(parts[1].contains(&"a=fmtp:111 minptime=10;useinbandfec=1"));
        assert!(parts[1].contains(&"a=rtcp-fb:111 nack") && parts[1].contains(&"a=rtcp-fb:111 transport-cc"));
        assert_eq!(count(&sdp, "a=rtcp-fb:96 goog-remb"), 0);
    }
}

#[test]
fn firefox_sends_without_packet_numbers_and_is_told_a_bitrate() {
    for offer in [FIREFOX_JOIN, FIREFOX_UNTRIMMED] {
        let Answered { sdp, media, .. } = answer(offer);
        assert_eq!(media.feedback, Feedback::Remb);
        let [microphone, camera, screen, _] = &media.sending[..] else { panic!("four sections") };
        assert_eq!((camera.payload_type, camera.rtx_payload_type), (120, Some(124)));
        assert_eq!((rids(camera), rids(screen)), (vec!["f", "h", "q"], vec!["f", "h"]));
        assert_eq!(camera.ssrcs.len(), 3);
        assert!(camera.ssrcs.iter().all(|signaled| signaled.rtx.is_some() && signaled.rid.is_none()));
        let ids = camera.extensions;
        assert_eq!((ids.mid, ids.rid, ids.repaired_rid), (3, 9, 10));
        assert_eq!((ids.transport_cc, ids.video_orientation), (0, 0));
        assert!(camera.nack && !microphone.nack);

        let parts = parts(&sdp);
        for (index, part) in parts.iter().enumerate().skip(1) {
            let sends = index <= 4;
            assert_eq!(part.iter().any(|line| line.contains("transport-wide-cc")), !sends, "{part:#?}");
            assert_eq!(part.iter().any(|line| line.ends_with(" transport-cc")), !sends, "{part:#?}");
            assert_eq!(part.contains(&"a=rtcp-fb:120 goog-remb"), matches!(index, 2 | 3), "{part:#?}");
            assert!(!part.contains(&"a=rtcp-fb:109 nack"), "{part:#?}");
        }
        // What is only sent is only received by the other side.
        assert!(parts[2].contains(&"a=extmap:9/recvonly urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"));
        assert!(parts[1].contains(&"a=fmtp:109 useinbandfec=1"));
    }
}

#[test]
fn every_slot_names_its_sources() {
    for (name, offer) in ALL {
        let Answered { sdp, media, .. } = answer(offer);
        let mut ssrcs = BTreeSet::new();
        for slot in &media.slots {
            let mid = format!("a=mid:{}", slot.mid);
            let part = parts(&sdp).into_iter().find(|part| part.contains(&&*mid)).expect("its section");
            let has = |line: String| assert!(part.contains(&&*line), "{name}: {line} in {part:#?}");
            has("a=sendonly".to_owned());
            has(format!("a=ssrc:{} cname:{}", slot.ssrc.0, crate::id::CNAME));
            assert!(ssrcs.insert(slot.ssrc));
            assert_eq!(slot.rtx_ssrc.is_some(), slot.kind == Kind::Video, "{name}");
            if let Some(rtx) = slot.rtx_ssrc {
                has(format!("a=ssrc-group:FID {} {}", slot.ssrc.0, rtx.0));
                has(format!("a=ssrc:{} cname:{}", rtx.0, crate::id::CNAME));
                assert!(ssrcs.insert(rtx));
            }
            let ids = slot.extensions;
            assert_eq!((ids.mid, ids.rid, ids.repaired_rid), (0, 0, 0), "{name}");
            assert_ne!(ids.transport_cc, 0, "{name}");
            assert_eq!(ids.audio_level != 0, slot.kind == Kind::Audio, "{name}");
            assert!(!part.iter().any(|line| line.contains(":sdes:")), "{name}: {part:#?}");
            assert!(part.iter().any(|line| line.ends_with(" transport-cc")), "{name}: {part:#?}");
        }
        assert_eq!(count(&sdp, "a=ssrc:"), ssrcs.len(), "{name}");
    }
}

#[test]
fn the_first_three_slots_of_each_kind_are_pairs() {
    for offer in [CHROMIUM_JOIN, FIREFOX_JOIN] {
        let sdp = answer(offer).sdp;
        let streams: Vec<_> =
            sdp.lines().filter_map(|line| line.strip_prefix("a=msid:")?.split(' ').next()).collect();
        assert_eq!(streams.len(), 17);
        assert_eq!(streams[..4], ["pair-0", "pair-1", "pair-2", "slot-7"]);
        assert_eq!(streams[8..12], ["pair-0", "pair-1", "pair-2", "slot-15"]);
        let distinct: BTreeSet<_> = streams.iter().collect();
        assert_eq!(distinct.len(), 14);
    }
}

#[test]
fn data_is_rejected_for_now() {
    for offer in [CHROMIUM_DATA, FIREFOX_DATA] {
        let Answered { sdp, media, .. } = answer(offer);
        assert_eq!((media.sending.len(), media.slots.len()), (4, 17));
        assert!(
            sdp.contains("m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:21\r\na=inactive\r\n")
        );
        assert!(!sdp.lines().any(|line| line.starts_with("a=group:BUNDLE") && line.ends_with(" 21")));
    }
}

#[test]
fn without_simulcast_there_is_one_layer() {
    let media = answer(CHROMIUM_MINIMAL).media;
    assert!(media.sending.iter().all(|section| section.rids.is_empty()));
    assert!(media.sending[1].ssrcs[0].rtx.is_some());
    assert_eq!(media.slots.len(), 2);
}

#[test]
fn answers_stay_small() {
    for (offer, bytes) in [
        (CHROMIUM_JOIN, 10_500),
        (FIREFOX_JOIN, 9_500),
        (CHROMIUM_UNTRIMMED, 10_500),
        (CHROMIUM_25, 18_500),
        (FIREFOX_25, 17_000),
        (CHROMIUM_49, 30_500),
        (FIREFOX_49, 28_500),
    ] {
        let len = answer(offer).sdp.len();
        assert!(len < bytes, "{len} bytes");
    }
}

#[test]
fn a_life_of_offers_changes_nothing_but_what_it_asks_for() {
    for offers in LIVES {
        let mut negotiator = negotiator();
        let local = negotiator.local().clone();
        let answers: Vec<_> = offers.map(|offer| negotiator.answer(offer).expect("answered")).into();
        let [join, grown, restart, camera_off, stopped, recycled] = &answers[..] else {
            panic!("six answers")
        };
        let restarts: Vec<_> = answers.iter().map(|answered| answered.restart).collect();
        assert_eq!(restarts, [false, false, true, false, false, false]);
        assert_eq!(join.remote, grown.remote);
        assert_ne!(join.remote.credentials, restart.remote.credentials);
        for answered in &answers {
            assert!(
                answered.sdp.contains(&format!("a=ice-ufrag:{}\r\na=ice-pwd:{}", local.ufrag, local.pwd))
            );
            assert_eq!(answered.media.sending, join.media.sending);
            assert_eq!(answered.remote.role, DtlsRole::Server);
        }
        assert_eq!(grown.media.slots[..17], join.media.slots);
        assert_eq!(grown.media.slots.len(), 24);
        assert_eq!(grown.media, restart.media);
        assert_eq!(grown.media, camera_off.media);
        assert_eq!(stopped.media.slots, grown.media.slots[..23]);
        // The place is used again, the sources are not.
        assert_eq!(recycled.media.slots[..23], stopped.media.slots);
        assert_ne!(recycled.media.slots[23].mid, grown.media.slots[23].mid);
        assert_ne!(recycled.media.slots[23].ssrc, grown.media.slots[23].ssrc);
        let mut texts = answers.iter().map(|answered| answered.sdp.lines().nth(1).expect("o="));
        let first = texts.next().expect("an answer");
        assert!(texts.all(|line| line != first), "each answer has its own version");
    }
}

#[test]
fn local_credentials_name_the_worker_and_differ() {
    let (a, b) = (negotiator(), negotiator());
    assert_ne!(a.local(), b.local());
    for negotiator in [a, b] {
        let Credentials { ufrag, pwd } = negotiator.local();
        assert!(ufrag.starts_with("2a") && ufrag.len() >= 8, "{ufrag}");
        assert!(pwd.len() >= 24);
        let ice_char = |byte: u8| byte.is_ascii_alphanumeric() || b"+/".contains(&byte);
        assert!(ufrag.bytes().chain(pwd.bytes()).all(ice_char));
    }
}

#[test]
fn the_dtls_role_follows_the_first_offer() {
    let with = |setup: &str| CHROMIUM_JOIN.replace("a=setup:actpass", setup);
    for (setup, role, line) in [
        ("a=setup:actpass", DtlsRole::Server, "a=setup:passive"),
        ("a=setup:active", DtlsRole::Server, "a=setup:passive"),
        ("a=setup:passive", DtlsRole::Client, "a=setup:active"),
        ("a=x-none", DtlsRole::Server, "a=setup:passive"),
    ] {
        let mut negotiator = negotiator();
        let first = negotiator.answer(&with(setup)).expect("answered");
        assert_eq!(first.remote.role, role, "{setup}");
        assert!(first.sdp.contains(line), "{setup}");
        let second = negotiator.answer(&with("a=setup:actpass")).expect("answered");
        assert_eq!(second.remote.role, role, "{setup}");
        let other = if role == DtlsRole::Server { "a=setup:passive" } else { "a=setup:active" };
        let refusal = negotiator.answer(&with(other)).expect_err("the role changed");
        assert_eq!(refusal.reason, Reason::SdpUnsupported);
    }
    assert_eq!(refusal(&with("a=setup:holdconn")), Reason::SdpUnsupported);
    assert_eq!(refusal(&CHROMIUM_JOIN.replacen("actpass", "active", 1)), Reason::SdpUnsupported);
}

#[test]
fn a_section_for_both_directions_is_a_sending_section_and_a_slot() {
    let Answered { sdp, media, .. } = answer(&CHROMIUM_MINIMAL.replace("a=sendonly", "a=sendrecv"));
    assert_eq!((media.sending.len(), media.slots.len()), (2, 4));
    assert_eq!(media.sending[0].mid, media.slots[0].mid);
    assert_eq!((count(&sdp, "a=sendrecv"), count(&sdp, "a=sendonly")), (2, 2));
    assert_ne!(media.sending[0].extensions.transport_cc, 0);

    let media = answer(&FIREFOX_MINIMAL.replace("a=sendonly", "a=sendrecv")).media;
    assert!(media.sending.iter().all(|section| section.extensions.transport_cc == 0));
    assert!(media.slots[..2].iter().all(|slot| slot.extensions.transport_cc == 0));
}

#[test]
fn a_direction_turned_off_keeps_the_section() {
    let mut negotiator = negotiator();
    let before = negotiator.answer(CHROMIUM_MINIMAL).expect("answered");
    let off = CHROMIUM_MINIMAL.replace("a=recvonly", "a=inactive").replace("a=sendonly", "a=inactive");
    let off = negotiator.answer(&off).expect("answered");
    assert_eq!((off.media.sending.len(), off.media.slots.len()), (0, 0));
    assert_eq!(count(&off.sdp, "m=audio 9") + count(&off.sdp, "m=video 9"), 4);
    assert_eq!(count(&off.sdp, "a=ssrc"), 0);
    let again = negotiator.answer(CHROMIUM_MINIMAL).expect("answered");
    assert_eq!(again.media, before.media);
}

#[test]
fn slots_and_sending_sections_beyond_the_limits_are_rejected_alone() {
    let environment = Environment {
        limits: Limits { sending: 3, audio_slots: 2, video_slots: 4, ..Limits::default() },
        ..environment()
    };
    let mut negotiator = Negotiator::new(&environment);
    for offer in [CHROMIUM_JOIN, CHROMIUM_GROWN] {
        let Answered { sdp, media, .. } = negotiator.answer(offer).expect("answered");
        assert_eq!((media.sending.len(), media.slots.len()), (3, 6));
        let rejected =
            count(&sdp, "m=audio 0 UDP/TLS/RTP/SAVPF 111") + count(&sdp, "m=video 0 UDP/TLS/RTP/SAVPF 96");
        assert_eq!(rejected, offer.matches("\nm=").count() - 9);
        assert!(sdp.contains("a=group:BUNDLE 0 1 2 4 5 12 13 14 15\r\n"));
    }
}

#[test]
fn too_much_is_refused_before_it_is_parsed() {
    let head = CHROMIUM_MINIMAL.split("m=").next().expect("a head");
    let sections =
        |n: usize| format!("{head}{}", "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nnonsense\r\n".repeat(n));
    assert_eq!(refusal(&sections(96)), Reason::SdpMalformed);
    assert_eq!(refusal(&sections(97)), Reason::SdpTooManySections);
    assert_eq!(refusal(&sections(10_000)), Reason::SdpTooManySections);
    assert_eq!(refusal(&"m=\n".repeat(97)), Reason::SdpTooManySections);
    assert_eq!(refusal(&"m".repeat(512 * 1024 + 1)), Reason::MessageTooLarge);
    assert_eq!(refusal(&"m".repeat(512 * 1024)), Reason::SdpMalformed);
}

#[test]
fn offers_that_cannot_work_are_refused_with_their_reason() {
    let edit = |from: &str, to: &str| {
        let edited = CHROMIUM_JOIN.replace(from, to);
        assert_ne!(edited, CHROMIUM_JOIN, "{from}");
        edited
    };
    let once = |from: &str, to: &str| CHROMIUM_JOIN.replacen(from, to, 1);
    let without = |key: &str| -> String {
        CHROMIUM_JOIN.split_inclusive('\n').filter(|line| !line.starts_with(key)).collect()
    };
    for (what, offer) in [
        ("nothing", String::new()),
        ("not SDP", "hello".to_owned()),
        ("a mid twice", once("a=mid:1\r", "a=mid:2\r")),
        ("a long mid", once("a=mid:1\r", "a=mid:12345678901234567\r")),
        ("a mid that is no token", once("a=mid:1\r", "a=mid:a;b\r")),
        ("a short password", edit("a=ice-pwd:", "a=ice-pwd:short\r\na=x:")),
        ("a bad fragment", edit("a=ice-ufrag:", "a=ice-ufrag:a b c d e\r\na=x:")),
        ("a short fingerprint", edit("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 AB\r\na=x:")),
        ("a signed fingerprint", edit("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 +")),
        ("a bundle of strangers", edit("a=group:BUNDLE 0 ", "a=group:BUNDLE x ")),
        ("a strange media line", once("UDP/TLS/RTP/SAVPF 96", "UDP/TLS/\u{e9}RTP/SAVPF 96")),
    ] {
        assert_eq!(refusal(&offer), Reason::SdpMalformed, "{what}");
    }
    for (what, offer) in [
        ("no bundle", without("a=group")),
        ("no fragment", without("a=ice-ufrag")),
        ("no password", without("a=ice-pwd")),
        ("no fingerprint", without("a=fingerprint")),
        ("another hash function", edit("a=fingerprint:sha-256", "a=fingerprint:sha-512")),
        (
            "a section with another certificate",
            once("a=mid:7\r", &format!("a=fingerprint:sha-256 {}\r\na=mid:7\r", ["00"; 32].join(":"))),
        ),
        (
            "another certificate in the session",
            once("a=group", &format!("a=fingerprint:sha-256 {}\r\na=group", ["00"; 32].join(":"))),
        ),
        ("a lite client", once("a=group", "a=ice-lite\r\na=group")),
        ("no codec in the first section", once("opus/48000/2", "telephone-event/8000")),
        ("no rtcp-mux in the first section", once("a=rtcp-mux", "a=x")),
        ("a first section that is not the bundle's first", edit("BUNDLE 0 1", "BUNDLE 1 0")),
        ("a first section given up", once("m=audio 9", "m=audio 0")),
        ("a first section for data", format!("{}{}", head_with_data(), sections_of_join())),
        ("an extension with two ids", once("a=extmap:4 urn", "a=extmap:9 urn")),
        ("an id with two extensions", edit("a=extmap:13 urn", "a=extmap:4 urn")),
    ] {
        assert_eq!(refusal(&offer), Reason::SdpUnsupported, "{what}");
    }
}

fn head_with_data() -> String {
    let head = CHROMIUM_JOIN.split("m=").next().expect("a head").replace("BUNDLE 0", "BUNDLE d 0");
    let transport: String = CHROMIUM_JOIN
        .split_inclusive('\n')
        .skip_while(|line| !line.starts_with("m="))
        .filter(|line| ["a=ice-ufrag", "a=ice-pwd", "a=finger"].iter().any(|key| line.starts_with(key)))
        .take(3)
        .collect();
    format!("{head}m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{transport}a=mid:d\r\n")
}

fn sections_of_join() -> String {
    CHROMIUM_JOIN.split_inclusive('\n').skip_while(|line| !line.starts_with("m=")).collect()
}

#[test]
fn a_section_without_a_usable_codec_is_rejected_alone() {
    // The microphone stays; the camera offers VP8 only where RTCP would be taken for it, or beyond 127.
    for number in ["72", "128", "200"] {
        let offer = CHROMIUM_MINIMAL
            .replace("SAVPF 96 97", &format!("SAVPF {number} 97"))
            .replace("a=rtpmap:96", &format!("a=rtpmap:{number}"));
        let Answered { sdp, media, .. } = answer(&offer);
        assert_eq!((media.sending.len(), media.slots.len()), (1, 1), "{number}");
        assert_eq!(count(&sdp, &format!("m=video 0 UDP/TLS/RTP/SAVPF {number}")), 2);
    }
}

#[test]
fn strange_names_and_numbers_are_as_good_as_absent() {
    let offer = CHROMIUM_JOIN
        .replace("a=simulcast:send f;h;q", "a=simulcast:recv a;b send ~f,x;h;longer-than-8;*;h;q;z")
        .replace(
            "a=rid:q send",
            "a=rid:q send pt=96;max-width=1\r\na=rid:longer-than-8 send\r\na=rid:* send\r\na=rid:z send",
        )
        .replace("a=extmap:13 urn", "a=extmap:15 urn")
        .replace("a=extmap:11 urn", "a=extmap:11/inactive urn");
    let media = answer(&offer).media;
    assert_eq!(rids(&media.sending[1]), ["f", "h", "q"]);
    assert_eq!(media.sending[1].extensions.video_orientation, 0, "two-byte ids are not used");
    assert_eq!(media.sending[1].extensions.repaired_rid, 0);
    // More sources than are kept, malformed ones, and one in two sections.
    let many: String =
        (1..100).map(|n| format!("a=ssrc:{n} cname:x\r\na=ssrc-group:FID {n} x\r\n")).collect();
    let offer = CHROMIUM_MINIMAL
        .replace("a=rtpmap:111 opus", &format!("{many}a=ssrc:99999999999 x\r\na=rtpmap:111 opus"));
    assert!(answer(&offer).media.sending[0].ssrcs.len() <= 8);
    let media = answer(&CHROMIUM_MINIMAL.replace("a=ssrc:", "a=ssrc:7 cname:x\r\na=ssrc:")).media;
    let known: Vec<_> =
        media.sending.iter().flat_map(|section| &section.ssrcs).map(|known| known.ssrc).collect();
    assert_eq!(known.iter().filter(|ssrc| ssrc.0 == 7).count(), 1);
}

#[test]
fn encodings_without_their_extension_are_one_layer() {
    let offer = CHROMIUM_JOIN.replace("sdes:rtp-stream-id", "sdes:unknown");
    let Answered { sdp, media, .. } = answer(&offer);
    assert!(media.sending[1].rids.is_empty());
    assert!(!sdp.contains("a=simulcast") && !sdp.contains("a=rid"));
}

#[test]
fn a_client_that_cannot_number_packets_is_told_a_bitrate() {
    let offer = CHROMIUM_MINIMAL.replace("transport-wide-cc", "unknown-cc");
    let Answered { sdp, media, .. } = answer(&offer);
    assert_eq!(media.feedback, Feedback::Remb);
    assert_eq!(count(&sdp, "a=rtcp-fb:96 goog-remb"), 1);
}

#[test]
fn what_is_in_use_does_not_change_and_a_refusal_leaves_everything_as_it_was() {
    let mut negotiator = negotiator();
    let before = negotiator.answer(CHROMIUM_JOIN).expect("answered");
    let fewer = CHROMIUM_JOIN.rsplit_once("m=video").expect("many").0.to_owned();
    for (what, offer) in [
        ("fewer sections", fewer),
        ("a renamed section", CHROMIUM_JOIN.replace("a=mid:5\r", "a=mid:50\r").replace(" 5 6 ", " 50 6 ")),
        (
            "swapped sections",
            CHROMIUM_JOIN
                .replace("a=mid:5\r", "a=mid:x\r")
                .replace("a=mid:6\r", "a=mid:5\r")
                .replace("a=mid:x\r", "a=mid:6\r"),
        ),
        (
            "another payload type",
            CHROMIUM_JOIN.replace(":96", ":98").replace("SAVPF 96", "SAVPF 98").replace("apt=96", "apt=98"),
        ),
        ("no retransmissions", CHROMIUM_JOIN.replace("apt=96", "apt=95")),
        ("another extension id", CHROMIUM_JOIN.replace("a=extmap:13 urn", "a=extmap:9 urn")),
        ("an extension less", CHROMIUM_JOIN.replace("a=extmap:13 urn", "a=extmap:13 arn")),
        ("other encodings", CHROMIUM_JOIN.replace("send f;h;q", "send q;h;f")),
        ("another certificate", replace_fingerprint(CHROMIUM_JOIN)),
        ("no codec", CHROMIUM_JOIN.replace("VP8/90000", "VP9/90000")),
    ] {
        assert_ne!(offer, CHROMIUM_JOIN, "{what}");
        let refusal = negotiator.answer(&offer).expect_err(what);
        assert_eq!(refusal.reason, Reason::SdpUnsupported, "{what}");
        assert!(!refusal.hint.is_empty());
    }
    let after = negotiator.answer(CHROMIUM_JOIN).expect("answered");
    assert_eq!((after.media, after.remote), (before.media, before.remote));
}

fn replace_fingerprint(offer: &str) -> String {
    let line = offer.lines().find(|line| line.starts_with("a=fingerprint")).expect("a fingerprint");
    offer.replace(line, &format!("a=fingerprint:SHA-256 {}", ["0a"; 32].join(":")))
}

#[test]
fn a_fingerprint_is_the_same_in_either_case_and_at_either_level() {
    let upper = answer(&replace_fingerprint(CHROMIUM_JOIN)).remote.fingerprint;
    assert_eq!(upper, [0x0a; 32]);
    assert_eq!(answer(&replace_fingerprint(FIREFOX_JOIN)).remote.fingerprint, upper);
}

#[test]
fn sources_never_come_twice() {
    let mut ssrcs = SsrcSequence(0_u32.wrapping_sub(0x9e37_79b9));
    let first: BTreeSet<_> = (0..10_000).map(|_| ssrcs.next()).collect();
    assert_eq!(first.len(), 10_000);
    assert!(!first.contains(&Ssrc(0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Lines lost, doubled, cut short or moved elsewhere: an answer that mirrors the offer, or a refusal.
    #[test]
    fn damaged_offers_are_answered_or_refused(
        firefox: bool,
        edits in proptest::collection::vec((any::<u16>(), any::<u16>(), 0..5_u8), 1..6),
    ) {
        let offer = if firefox { FIREFOX_MINIMAL } else { CHROMIUM_MINIMAL };
        let mut lines: Vec<&str> = offer.split_inclusive('\n').collect();
        for (at, other, edit) in edits {
            let (at, other) = (usize::from(at) % lines.len(), usize::from(other) % lines.len());
            match edit {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[other]),
                2 => lines.swap(at, other),
                3 => lines[at] = &lines[at][lines[at].len() / 2..],
                _ => lines[at] = &lines[at][..lines[at].len() / 2],
            }
        }
        let offer = lines.concat();
        let mut negotiator = negotiator();
        if let Ok(answered) = negotiator.answer(&offer) {
            let offered = SessionDescription::unmarshal(&mut Cursor::new(&offer)).expect("parsed before");
            let parsed = SessionDescription::unmarshal(&mut Cursor::new(&answered.sdp)).expect("an answer");
            prop_assert_eq!(offered.media_descriptions.len(), parsed.media_descriptions.len());
            let again = negotiator.answer(&offer).expect("the same offer");
            prop_assert_eq!(again.media, answered.media);
        }
    }
}
