//! Any bytes as the payload of a VP8 packet, and as that of an Opus packet.

use motet::rtp::codec::{opus, vp8};

/// Rewriting changes the picture id and TL0PICIDX, and nothing else.
pub fn fuzz_vp8(data: &[u8]) {
    let ticks = opus::frame_ticks(data);
    assert!(ticks <= 5760 && ticks.is_multiple_of(120));

    let size = vp8::keyframe_size(data);
    let Ok(descriptor) = vp8::Descriptor::parse(data) else {
        assert_eq!(size, None);
        return;
    };
    assert!((1..=6).contains(&descriptor.len) && descriptor.len < data.len());
    assert!(!descriptor.keyframe || descriptor.start_of_frame);
    assert!(size.is_none() || descriptor.keyframe);

    let mut payload = data.to_vec();
    vp8::rewrite(&mut payload, &descriptor, 0x2AAA, Some(0x55));
    let mask = if descriptor.wide_picture_id { 0x7FFF } else { 0x7F };
    let expected = vp8::Descriptor {
        picture_id: descriptor.picture_id.map(|_| 0x2AAA & mask),
        tl0_picture_index: descriptor.tl0_picture_index.map(|_| 0x55),
        ..descriptor
    };
    assert_eq!(vp8::Descriptor::parse(&payload), Ok(expected));
    let rewritten = usize::from(descriptor.picture_id.is_some())
        + usize::from(descriptor.wide_picture_id)
        + usize::from(descriptor.tl0_picture_index.is_some());
    let changed = payload.iter().zip(data).filter(|(new, old)| new != old).count();
    assert!(changed <= rewritten);
    assert_eq!(payload[descriptor.len..], data[descriptor.len..]);
    vp8::rewrite(&mut [], &descriptor, 1, Some(1));
}
