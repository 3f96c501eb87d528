//! Any datagram as an RTP packet.

use motet::rtp::extension::{ExtensionIds, Outgoing};
use motet::rtp::header::{FIXED_LEN, Header, padding_len};

/// What Chromium's offers negotiate.
const IDS: ExtensionIds = ExtensionIds {
    mid: 4,
    rid: 10,
    repaired_rid: 11,
    transport_cc: 3,
    audio_level: 1,
    video_orientation: 13,
};

/// A parsed header stays within the datagram, and what it says survives being written and parsed again.
pub fn fuzz_rtp_header(data: &[u8]) {
    let Ok(header) = Header::parse(data) else { return };
    assert!(header.len >= FIXED_LEN + 4 * usize::from(header.csrcs));
    let payload = &data[header.len..];
    if let Ok(padding) = padding_len(&header, payload) {
        assert!(padding <= payload.len() && header.padding == (padding != 0));
    }
    let mut bytes = 0;
    for (id, element) in header.extensions(data) {
        assert_ne!(id, 0);
        bytes += 1 + element.len();
    }
    assert!(FIXED_LEN + bytes <= header.len);

    let received = IDS.read(&header, data);
    let outgoing = Outgoing {
        marker: header.marker,
        padding: header.padding,
        payload_type: header.payload_type,
        sequence: header.sequence,
        timestamp: header.timestamp,
        ssrc: header.ssrc,
        csrc: (header.csrcs > 0).then_some(header.timestamp),
        transport_cc: received.transport_cc,
        audio_level: received.audio_level,
        video_orientation: received.video_orientation,
    };
    let mut out = [0xFF; Outgoing::MAX_LEN];
    let len = outgoing.write(&IDS, &mut out).expect("the longest fits");
    assert_eq!(len, outgoing.len(&IDS));
    let again = Header::parse(&out[..len]).expect("written well-formed");
    assert_eq!(again.len, len);
    assert_eq!(
        (again.marker, again.padding, again.payload_type, again.sequence, again.timestamp, again.ssrc),
        (header.marker, header.padding, header.payload_type, header.sequence, header.timestamp, header.ssrc)
    );
    let same = IDS.read(&again, &out[..len]);
    assert_eq!(
        (same.transport_cc, same.audio_level, same.video_orientation),
        (received.transport_cc, received.audio_level, received.video_orientation)
    );
    assert_eq!((same.mid, same.rid, same.repaired_rid), (None, None, None));
}
