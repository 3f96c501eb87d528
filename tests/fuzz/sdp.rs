//! Offers: whatever is answered is an answer that mirrors the offer's sections, and can be offered again.

use std::io::Cursor;

use motet::signal::negotiate::{Answered, Environment, Limits, Negotiator};
use sdp::SessionDescription;

/// One transport's offers, one after the other, separated by NUL.
pub fn fuzz_sdp(data: &[u8]) {
    let environment = Environment {
        candidates: vec!["192.0.2.1:7882".parse().expect("an address")],
        fingerprint: ["AB"; 32].join(":"),
        worker: 7,
        limits: Limits::default(),
    };
    let mut negotiator = Negotiator::new(&environment);
    for offer in data.split(|&byte| byte == 0) {
        let offer = String::from_utf8_lossy(offer);
        let Ok(answered) = negotiator.answer(&offer) else { continue };
        assert_mirrors(&offer, &answered);
        let again = negotiator.answer(&offer).expect("the same offer is answered again");
        assert_eq!(again.media, answered.media, "nothing changes in a repeated offer");
        assert!(!again.restart);
    }
}

fn assert_mirrors(offer: &str, answered: &Answered) {
    let parse = |text: &str| SessionDescription::unmarshal(&mut Cursor::new(text)).expect("parses");
    let (offer, answer) = (parse(offer), parse(&answered.sdp));
    assert_eq!(offer.media_descriptions.len(), answer.media_descriptions.len());
    let mut accepted = 0;
    for (offered, answered) in offer.media_descriptions.iter().zip(&answer.media_descriptions) {
        assert_eq!(offered.media_name.media, answered.media_name.media);
        assert_eq!(offered.media_name.protos, answered.media_name.protos);
        accepted += usize::from(answered.media_name.port.value != 0);
    }
    assert!(accepted > 0, "an answer accepts something");
    let media = &answered.media;
    assert!(media.sending.len() <= 8 && media.slots.len() <= 16 + 49);
    assert!(media.sending.iter().all(|section| section.rids.len() <= 3));
    let lines = answered.sdp.lines().count();
    assert!(answered.sdp.lines().all(|line| line.as_bytes().get(1) == Some(&b'=')), "{lines} whole lines");
}
